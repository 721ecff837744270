//! The run's configuration: six sections put together, and what crosses them.
//!
//! Place in the flow: before everything. Each section is declared beside what it configures; [`Config::parse`] reads them
//! all from one TOML file plus `--set section.key=value` and reports *every* unknown key and *every* invalid value
//! together. What comes out is resolved: nothing later looks at defaults again, and [`Config::to_toml`] writes a file that
//! parses back to an equal configuration, which is what a run folder and a checkpoint keep. [`schema`] describes every key
//! to other programs, the page among them.

use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Value;

use crate::data::record::other_kind;
use crate::error::{Error, Result};
use crate::kernels::row_stats::{CONFLICT_ENTROPY, CONFLICT_PROBABILITY};
use crate::loss::objective::eaft::Gates;
use crate::loss::objective::{Method, Objective};
use crate::model::adapter::LoraSettings;
use crate::model::load::Hold;
use crate::settings::{Key, NumberOr, Origin, Problem, Reader, Settings, Used};
use crate::words::counted;

pub use crate::data::DataSection;
pub use crate::loss::objective::ObjectiveSection;
pub use crate::model::settings::{AdapterKind, AdapterSection, ArchitectureSource, Init, ModelSection};
pub use crate::settings::Choice;
pub use crate::train::settings::{OptimSection, RunSection};

/// A whole run, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `[model]`
    pub model: ModelSection,
    /// `[data]`
    pub data: DataSection,
    /// `[objective]`
    pub objective: ObjectiveSection,
    /// `[adapter]`
    pub adapter: AdapterSection,
    /// `[optim]`
    pub optim: OptimSection,
    /// `[run]`
    pub run: RunSection,
}

/// Does something with each section, in the order of a written file.
macro_rules! each_section {
    ($of:ident) => {
        [
            ModelSection::$of(),
            DataSection::$of(),
            ObjectiveSection::$of(),
            AdapterSection::$of(),
            OptimSection::$of(),
            RunSection::$of(),
        ]
    };
    ($config:expr, $of:ident) => {
        [
            $config.model.$of(),
            $config.data.$of(),
            $config.objective.$of(),
            $config.adapter.$of(),
            $config.optim.$of(),
            $config.run.$of(),
        ]
    };
}

/// What can change while learners train: from the next step on.
const LIVE: [&str; 2] = [ObjectiveSection::SECTION, OptimSection::SECTION];

/// What may be changed when a run is resumed: nothing that the steps already made would have depended on. The number of
/// steps only grows, and the schedule is spread over the new one from there on.
pub const CHANGEABLE: [&str; 9] = [
    "run.steps",
    "run.epochs",
    "run.log_every",
    "run.save_every",
    "run.keep",
    "run.eval_every",
    "run.evaluations",
    "run.device",
    "run.device_memory",
];

/// Defaults of the page where they differ: it brings its own model and data, counts what it cannot use, trains all weights
/// of a small model for a few steps that one can watch, and has no files to save to.
const PAGE: &str = r#"
[model]
path = "page"
[data]
train = "page"
on_error = "skip"
cutoff_length = 512
[adapter]
kind = "none"
[optim]
learning_rate = 3e-4
[run]
steps = 80
batch_tokens = 512
accumulation = 1
save_every = 0
eval_every = 10
"#;
/// Into how many parts evaluations divide a run that chooses among them, where it does not say.
const EVALUATIONS: u64 = 10;
/// The methods that the page's two learners begin with, left and right.
const PAGE_METHODS: [&str; 2] = ["sft", "eaft"];

impl Config {
    /// Reads a configuration.
    ///
    /// `file_name` is only for messages. `overrides` are `(section.key, value)`, applied after the file in their order;
    /// a value is read as TOML and, where it is not TOML, as a bare string, so that `run.device=cpu` needs no quotes. An
    /// empty one takes back what the file says of a key that may be left out.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with every problem of the file and the overrides, in the order of the file;
    /// an override without effect is one.
    pub fn parse(text: &str, file_name: &str, overrides: &[(String, String)]) -> Result<Self> {
        let reader = Reader::new(each_section!(section).into(), text, file_name, overrides);
        let (config, mut reader) = Self::resolve(reader, AdapterSection::default(), Hold::Auto);
        config.refuse_unread(&mut reader);
        reader.finish().map(|()| config)
    }

    /// As [`Config::parse`], where `adapter.from` names this adapter, which was trained on matrices that were held as `storage`:
    /// what is not given of its settings and of that is as it is there.
    ///
    /// # Errors
    /// As [`Config::parse`]; [`Error::Config`](crate::Error::Config) for rank, alpha, rslora or targets that are given otherwise
    /// than the adapter has them, and for those of the adapter that no run can have.
    pub fn going_on(
        text: &str,
        file_name: &str,
        overrides: &[(String, String)],
        adapter: &LoraSettings,
        storage: Hold,
    ) -> Result<Self> {
        let base = AdapterSection::from(adapter);
        let reader = Reader::new(each_section!(section).into(), text, file_name, overrides);
        let (config, mut reader) = Self::resolve(reader, base.clone(), storage);
        config.refuse_unread(&mut reader);
        const A: &str = AdapterSection::SECTION;
        for Problem { key, problem } in base.problems() {
            reader.problem(A, "from", format!("cannot go on from this adapter: {key}: {problem}"));
        }
        let from = config.adapter.from.as_deref().unwrap_or_default();
        for (key, problem) in LoraSettings::from(&config.adapter).problems_beside(adapter) {
            reader.problem(A, key, format!("{problem} ({from})"));
        }
        reader.finish().map(|()| config)
    }

    /// As [`Config::parse`], of what several runs share: an override may be for some of them only, and is not refused where
    /// others would not read it.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn shared(text: &str, file_name: &str, overrides: &[(String, String)]) -> Result<Self> {
        let reader = Reader::new(each_section!(section).into(), text, file_name, overrides);
        let (config, reader) = Self::resolve(reader, AdapterSection::default(), Hold::Auto);
        reader.finish().map(|()| config)
    }

    /// What is asked for, with the reader that knows what is wrong with it; of `[adapter]` what is not given is as in `base`, and
    /// `run.storage` as here.
    fn resolve(mut reader: Reader<'_>, base: AdapterSection, storage: Hold) -> (Self, Reader<'_>) {
        let model = model(&mut reader);
        let objective = ObjectiveSection::resolve(&mut reader);
        let adapter = adapter(&mut reader, &model, base);
        let optim = optim(&mut reader, &model, &adapter);
        let (data, run) = data_and_run(&mut reader, storage);
        if adapter.kind == AdapterKind::Lora && run.storage == Hold::Bf16Compensated {
            reader.problem(
                RunSection::SECTION,
                "storage",
                "only trained weights have lower halves to keep, and an adapter trains none of the model's: use \"bf16\", \
                 or kind = \"none\" in [adapter]",
            );
        }
        let config = Self { model, data, objective, adapter, optim, run };
        config.refuse_untouched_beside_adapter(&mut reader);
        (config, reader)
    }

    /// Refuses objectives that ask the untouched model where training begins with an adapter: what they would hold on to is the
    /// model without it.
    fn refuse_untouched_beside_adapter(&self, reader: &mut Reader) {
        let objectives = [self.objective().ok(), self.baseline().ok().flatten()];
        let asking = objectives.into_iter().flatten().find(Objective::needs_untouched);
        if let (Some(_), Some(objective)) = (&self.adapter.from, asking) {
            let problem = format!(
                "{} asks the model as it is without an adapter, and this run begins with one: merge the two first \
                 (temper export) and train the result, or take another objective",
                objective.method()
            );
            reader.problem(AdapterSection::SECTION, "from", problem);
        }
    }

    /// Refuses overrides that ask for something in vain. A file may hold what is not read: it can be of several runs, and a
    /// resolved one has every key. A default is nobody's wish.
    fn refuse_unread(&self, reader: &mut Reader) {
        let (all, methods) = (self.values(), self.methods());
        let value_of = |name: &str| all.iter().find(|(other, ..)| other == name).and_then(|(.., value)| value.as_ref());
        let holds = |name: &str, values: &[&str]| match name {
            "objective.method" => methods.iter().any(|method| values.contains(&method.name())),
            _ => value_of(name).and_then(Value::as_str).is_some_and(|value| values.contains(&value)),
        };
        for ((name, key, value), (.., default)) in all.iter().zip(Self::defaults().values()) {
            let section = name.split('.').next().unwrap_or_default();
            let is_wish = reader.is_overridden(section, key.name) && *value != default;
            if !is_wish || reader.has_problem(section, key.name) {
                continue;
            }
            // One that could not be read waits for the next attempt.
            let is_in_vain = |(other, values): &&Used| {
                !reader.refused(section, other) && !holds(&format!("{section}.{other}"), values)
            };
            if let Some((other, values)) = key.used.iter().find(is_in_vain) {
                let read = values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(" or ");
                let [value, is] = [value.as_ref(), value_of(&format!("{section}.{other}"))].map(said);
                let problem = format!(
                    "{value} is read with {section}.{other} = {read} only, and that is {is}; set it so, or leave {} out",
                    key.name
                );
                reader.problem(section, key.name, problem);
            }
        }
        let (data, optim, run) = (&self.data, &self.optim, &self.run);
        let is_a_share = data.replay_share != DataSection::default().replay_share;
        if data.replay.is_none() && is_a_share && reader.is_overridden(DataSection::SECTION, "replay_share") {
            reader.problem(DataSection::SECTION, "replay_share", "is about data.replay, which is not given");
        }
        let by_eaft = [Some(self.objective.method), run.baseline].contains(&Some(Method::Eaft));
        const O: &str = ObjectiveSection::SECTION;
        // Without the mean it has been refused above.
        let is_wish = reader.is_overridden(O, "gates") && !reader.has_problem(O, "gates");
        if self.objective.eaft.gates == Gates::Shuffled && !by_eaft && is_wish {
            let problem =
                "\"shuffled\" changes nothing where only the gates' mean is taken (objective.scale): leave it out";
            reader.problem(O, "gates", problem);
        }
        if let (Some(warmup), Some(steps)) = (optim.warmup_steps, run.steps)
            && warmup > steps
            && reader.is_overridden(OptimSection::SECTION, "warmup_steps")
        {
            let problem = format!("{warmup} is more than run.steps, which is {steps}; give at most {steps}");
            reader.problem(OptimSection::SECTION, "warmup_steps", problem);
        }
    }

    /// Whose constants are read: those of the objective, of its baseline, and of the gate whose mean is the scale of either.
    fn methods(&self) -> Vec<Method> {
        let mut methods: Vec<Method> = [Some(self.objective.method), self.run.baseline].into_iter().flatten().collect();
        if methods.contains(&Method::Sft) && matches!(self.objective.sft.scale, NumberOr::Named(_)) {
            methods.push(Method::Eaft);
        }
        methods
    }

    /// What is declared of each key, with nothing given.
    fn defaults() -> Self {
        Self {
            model: ModelSection::default(),
            data: DataSection::default(),
            objective: ObjectiveSection::default(),
            adapter: AdapterSection::default(),
            optim: OptimSection::default(),
            run: RunSection::default(),
        }
    }

    /// The resolved file: parses back to an equal configuration.
    pub fn to_toml(&self) -> String {
        // Tables of plain values always serialise; the engine has no state in which this could fail.
        toml::to_string(self).unwrap_or_default()
    }

    /// The same with each key under a comment that says what it is, what is allowed and what the default is.
    pub fn to_commented_toml(&self) -> String {
        each_section!(self, to_commented_toml).join("\n")
    }

    /// The objective, validated.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where a field was changed after parsing to something invalid.
    pub fn objective(&self) -> Result<Objective> {
        Objective::from_section(&self.objective)
    }

    /// The baseline's objective: `run.baseline` with the constants of `[objective]`.
    ///
    /// # Errors
    /// As [`Config::objective`].
    pub fn baseline(&self) -> Result<Option<Objective>> {
        let Some(method) = self.run.baseline else { return Ok(None) };
        Objective::from_section(&ObjectiveSection { method, ..self.objective.clone() }).map(Some)
    }

    /// True where a learner measures how far it is from the untouched model in every step: with `[objective]` or the baseline.
    pub(crate) fn measures_divergence(&self) -> bool {
        let objectives = [self.objective().ok(), self.baseline().ok().flatten()];
        objectives.into_iter().flatten().any(|objective| objective.divergence().is_some())
    }

    /// True where a learner weighs its samples with the untouched model before the first step.
    pub fn weighs_samples(&self) -> bool {
        let objectives = [self.objective().ok(), self.baseline().ok().flatten()];
        objectives.into_iter().flatten().any(|objective| objective.weighs_samples())
    }

    /// The resolved configuration with another value of one key, for a face that changes a parsed configuration (for
    /// example `--device`).
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn with(&self, overrides: &[(String, String)]) -> Result<Self> {
        Self::parse(&self.to_toml(), "config.toml", overrides)
    }

    /// True where `other` differs in more than what can change while a learner trains, which is `[objective]` and
    /// `[optim]`.
    pub fn needs_restart(&self, other: &Self) -> bool {
        let apart =
            |config: &Self| Self { objective: self.objective.clone(), optim: self.optim.clone(), ..config.clone() };
        apart(other) != *self
    }

    /// Keys of another value in `other`, as `section.key`, with the value here and the value there in words.
    pub fn differences(&self, other: &Self) -> Vec<(String, String, String)> {
        let both = self.values().into_iter().zip(other.values());
        both.filter(|((_, _, here), (_, _, there))| here != there)
            .map(|((name, _, here), (_, _, there))| (name, said(here.as_ref()), said(there.as_ref())))
            .collect()
    }

    /// Every key as `section.key` with its value, `None` where it is not set.
    fn values(&self) -> Vec<(String, &'static Key, Option<Value>)> {
        let names = each_section!(section).into_iter();
        let of = |((section, keys), values): ((&str, Vec<&'static Key>), Vec<Option<Value>>)| {
            keys.into_iter()
                .zip(values)
                .map(|(key, value)| (format!("{section}.{}", key.name), key, value))
                .collect::<Vec<_>>()
        };
        names.zip(each_section!(self, values)).flat_map(of).collect()
    }
}

/// A value in words.
fn said(value: Option<&Value>) -> String {
    value.map_or("not set".to_string(), Value::to_string)
}

/// The configuration of a learner on the page: its own defaults with these overrides, of which not all have to be read.
///
/// # Errors
/// As [`Config::parse`].
pub fn page(overrides: &[(String, String)]) -> Result<Config> {
    // Our own text; a test reads it.
    let profile = toml::from_str(PAGE).unwrap_or_default();
    let reader = Reader::new(each_section!(section).into(), "", "", overrides).with_profile(profile);
    let (config, reader) = Config::resolve(reader, AdapterSection::default(), Hold::Auto);
    reader.finish()?;
    if config.adapter.from.is_some() {
        let problem = "[adapter] from: the page reads no adapter; go on from one with the command";
        return Err(Error::Config { problems: vec![problem.into()] });
    }
    if config.run.keep_best {
        let problem = "[run] keep_best: the page keeps no checkpoints to take the best step from";
        return Err(Error::Config { problems: vec![problem.into()] });
    }
    Ok(config)
}

/// All that is known of every key, and what the page begins with, as JSON.
///
/// `sections` lists sections, each with its `keys`: `name`, `label`, `help`, `type`, `allowed` in words, the range
/// (`least` or `above`, `most` or `below`) or the `choices`, `default` or the sentence `derived`, `optional` where an empty
/// text leaves it out, and in `used` the values of other keys of the section for which it is read. `live` sections may change while learners train. `page.initial` has
/// the page's value of each key, were it read; `page.methods` those of the two learners. `conflict` bounds probability and
/// entropy (nats) of a confident conflict.
pub fn schema() -> serde_json::Value {
    let mut sections = each_section!(describe);
    for section in &mut sections {
        section["live"] = LIVE.iter().any(|live| section["name"] == *live).into();
    }
    json!({
        "sections": sections,
        "page": { "initial": page_values(), "methods": PAGE_METHODS },
        "conflict": { "probability": short(CONFLICT_PROBABILITY), "entropy": short(CONFLICT_ENTROPY) },
    })
}

/// The setting, `section.key`, of this name, or else the one that other trainers call so; dashes are taken for underscores.
pub fn setting_called(name: &str) -> Option<String> {
    let name = name.to_lowercase().replace('-', "_");
    let sections = each_section!(section);
    let find = |is_meant: &dyn Fn(&Key) -> bool| {
        let of = |(section, keys): &(&str, Vec<&'static Key>)| {
            keys.iter().find(|key| is_meant(key)).map(|key| format!("{section}.{}", key.name))
        };
        sections.iter().find_map(of)
    };
    find(&|key| key.name == name).or_else(|| find(&|key| key.aliases.contains(&name.as_str())))
}

/// The number as it is written in single precision, without the digits that double precision would add.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(value.into())
}

/// The page's value of each key, under settings for which it is read.
fn page_values() -> serde_json::Map<String, serde_json::Value> {
    let all = page(&[]).map_or_else(|_| Vec::new(), |config| config.values());
    let values = all.into_iter().filter(|(_, key, _)| key.required.is_empty()).map(|(name, key, value)| {
        let section = name.split('.').next().unwrap_or_default();
        let read: Vec<_> =
            key.used.iter().map(|(other, values)| (format!("{section}.{other}"), values[0].to_string())).collect();
        let value = match page(&read) {
            Ok(config) => config.values().into_iter().find(|(other, ..)| *other == name).and_then(|(.., value)| value),
            Err(_) => value,
        };
        (name, json!(value))
    });
    values.collect()
}

fn model(reader: &mut Reader) -> ModelSection {
    let model = ModelSection::read(reader, ModelSection::default());
    if model.architecture.is_some() && model.init == Init::Pretrained {
        reader.problem(ModelSection::SECTION, "architecture", "is read with init = \"random\" only");
    }
    model
}

fn adapter(reader: &mut Reader, model: &ModelSection, base: AdapterSection) -> AdapterSection {
    let kind = if model.init == Init::Random { AdapterKind::None } else { AdapterKind::Lora };
    let adapter = AdapterSection::read(reader, AdapterSection { kind, ..base });
    if adapter.from.is_some() && adapter.kind == AdapterKind::None {
        reader.problem(
            AdapterSection::SECTION,
            "from",
            "all weights are trained (kind = \"none\"), and no adapter: merge it into its model first (temper export), and \
             give the result as model.path",
        );
    }
    if adapter.kind == AdapterKind::Lora && model.init == Init::Random {
        reader.problem(
            AdapterSection::SECTION,
            "kind",
            "\"lora\" would freeze random weights: with init = \"random\" train them all (kind = \"none\")",
        );
    }
    adapter
}

fn optim(reader: &mut Reader, model: &ModelSection, adapter: &AdapterSection) -> OptimSection {
    let learning_rate = match (model.init, adapter.kind) {
        (Init::Random, _) => 1e-3,
        (Init::Pretrained, AdapterKind::Lora) => 1e-4,
        (Init::Pretrained, AdapterKind::None) => 1e-5,
    };
    let mut optim = OptimSection::read(reader, OptimSection { learning_rate, ..OptimSection::default() });
    const O: &str = OptimSection::SECTION;
    // Below it devices may take a number for 0.
    let least = f32::MIN_POSITIVE;
    if optim.epsilon < f64::from(least) {
        let problem = format!("is {:e}; in single precision at least {least:e} is possible", optim.epsilon);
        reader.problem(O, "epsilon", problem);
    }
    match (reader.origin(O, "warmup_ratio"), reader.origin(O, "warmup_steps")) {
        // As with steps and epochs, an override beats the file; in one file the ratio is what counts without steps.
        (Origin::Set(..), Origin::Line(_)) => optim.warmup_steps = None,
        (Origin::Set(..), Origin::Set(..)) if optim.warmup_steps.is_some() => {
            reader.problem(
                O,
                "warmup_steps",
                "warmup_ratio and warmup_steps both say how long the warm-up is: leave one out",
            );
        }
        _ => {}
    }
    optim
}

fn data_and_run(reader: &mut Reader, storage: Hold) -> (DataSection, RunSection) {
    const D: &str = DataSection::SECTION;
    const R: &str = RunSection::SECTION;
    let mut data = DataSection::read(reader, DataSection::default());
    let mut run = RunSection::read(reader, RunSection { storage, ..RunSection::default() });

    // A document has to fit into a micro-batch: a limit that is not given follows the other one.
    match (reader.has(D, "cutoff_length"), reader.has(R, "batch_tokens")) {
        (true, false) => run.batch_tokens = run.batch_tokens.max(data.cutoff_length),
        (false, true) => data.cutoff_length = data.cutoff_length.min(run.batch_tokens),
        _ => {}
    }
    if data.cutoff_length > run.batch_tokens {
        let (cutoff, batch) = (data.cutoff_length, run.batch_tokens);
        let problem = format!("{cutoff} tokens do not fit into a micro-batch of run.batch_tokens = {batch}");
        reader.problem(D, "cutoff_length", problem);
    }

    if let Some(kind) = data.fields.as_ref().and_then(|fields| other_kind(data.format, fields)) {
        let problem = format!("are those of {kind}, and data.format is \"{}\": leave one out", data.format);
        reader.problem(D, "fields", problem);
    }

    let files = data.train.paths().len();
    match data.shares.as_ref().map(|shares| shares.each().len()) {
        // How many files are meant is not known.
        Some(_) if reader.has_problem(D, "train") => {}
        Some(_) if files == 1 => {
            let problem = "is about several files, and data.train is one: leave it out (--set data.shares=)";
            reader.problem(D, "shares", problem);
        }
        Some(given) if given != files => {
            let (given, files) = (counted(given, "share"), counted(files, "file"));
            let problem = format!("{given} for the {files} of data.train: give one for each, in their order");
            reader.problem(D, "shares", problem);
        }
        _ => {}
    }

    if data.target.is_some() && data.hold_out.is_some() {
        // As with steps and epochs, an override beats the file.
        match (reader.origin(D, "target"), reader.origin(D, "hold_out")) {
            (Origin::Set(..), Origin::Line(_)) => data.hold_out = None,
            (Origin::Line(_), Origin::Set(..)) => data.target = None,
            (target, hold_out) => {
                let problem = "target and hold_out both say what is measured: leave one out";
                reader.problem_at(target.max(hold_out), D, "hold_out", problem);
            }
        }
    }

    match (reader.origin(R, "steps"), reader.origin(R, "epochs")) {
        (Origin::Missing, Origin::Missing) if run.steps.is_none() => run.epochs = run.epochs.or(Some(1.0)),
        (Origin::Missing, Origin::Missing) => {}
        (_, Origin::Missing) => run.epochs = None,
        (Origin::Missing, _) => run.steps = None,
        // An override beats the file's other way of saying how long, so `--set run.steps=3` always works.
        (Origin::Set(..), Origin::Line(_)) => run.epochs = None,
        (Origin::Line(_), Origin::Set(..)) => run.steps = None,
        (steps, epochs) => {
            let problem = "steps and epochs both say how long to train: leave one out";
            reader.problem_at(steps.max(epochs), R, "epochs", problem);
        }
    }
    if run.device.is_empty() {
        run.device = RunSection::default().device;
    }
    if run.eval_every > 0 && run.evaluations > 0 {
        // As with steps and epochs, an override beats the file.
        match ["eval_every", "evaluations"].map(|key| reader.is_overridden(R, key)) {
            [false, true] => run.eval_every = 0,
            [true, false] => run.evaluations = 0,
            _ => {}
        }
    }
    selecting(reader, &data, &mut run);
    (data, run)
}

/// What a run that chooses its result needs to do so.
fn selecting(reader: &mut Reader, data: &DataSection, run: &mut RunSection) {
    const R: &str = RunSection::SECTION;
    let limits = [("forget_at_most", run.forget_at_most.is_some()), ("patience", run.patience.is_some())];
    let limit = limits.into_iter().find(|(_, given)| *given).map(|(key, _)| key);
    if let (Some(limit), false) = (limit, run.keep_best) {
        match (reader.origin(R, "keep_best"), reader.origin(R, limit)) {
            // As with steps and epochs, an override beats the file.
            (Origin::Missing, _) | (Origin::Line(_), Origin::Set(..)) => run.keep_best = true,
            _ => reader.problem(R, "keep_best", format!("{limit} makes the best step the result: leave one out")),
        }
    }
    if !run.keep_best {
        return;
    }
    if run.forget_at_most.is_some() && data.general.is_none() {
        reader.problem(R, "forget_at_most", "is about data.general, which is not given");
    }
    if data.target.is_none() && data.hold_out.is_none() {
        for (key, by_target) in [("patience", run.patience.is_some()), ("keep_best", limit.is_none())] {
            if by_target {
                reader.problem(R, key, "is about the target loss: give data.target or data.hold_out");
            }
        }
    }
    if run.baseline.is_some() {
        let problem = "is trained to its last step, and would be compared with a chosen one: leave it out, and use temper compare";
        reader.problem(R, "baseline", problem);
    }
    if (run.eval_every, run.evaluations) == (0, 0) {
        let by_override = |keys: &[&str]| keys.iter().any(|key| reader.is_overridden(R, key));
        let says_none = reader.has(R, "eval_every") || reader.has(R, "evaluations");
        let beaten =
            by_override(&["keep_best", "forget_at_most", "patience"]) && !by_override(&["eval_every", "evaluations"]);
        match says_none && !beaten {
            true => reader.problem(R, "keep_best", "chooses among evaluations: give run.evaluations or run.eval_every"),
            false => run.evaluations = EVALUATIONS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::objective::eaft::GateShape;
    use crate::loss::objective::sft::Sft;
    use crate::train::settings::Recompute;

    const SMALL: &str = "[model]\npath = \"m\"\n[data]\ntrain = \"t.jsonl\"\n";

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, "run.toml", &[])
    }

    fn with(text: &str, set: &[(&str, &str)]) -> Result<Config> {
        let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Config::parse(text, "run.toml", &set)
    }

    fn problems(result: Result<Config>) -> Vec<String> {
        match result {
            Err(Error::Config { problems }) => problems,
            other => panic!("expected problems, got {other:?}"),
        }
    }

    #[test]
    fn a_model_and_data_are_enough_and_the_defaults_are_the_documented_ones() {
        let config = parse(SMALL).unwrap();
        assert_eq!(config.objective, ObjectiveSection::default());
        assert_eq!(config.objective().unwrap().method(), Method::Eaft);
        assert_eq!((config.adapter.kind, config.adapter.rank, config.adapter.alpha), (AdapterKind::Lora, 16, 32.0));
        assert_eq!(config.optim.learning_rate, 1e-4);
        assert_eq!((config.run.steps, config.run.epochs, config.run.seed), (None, Some(1.0), 42));
        assert_eq!((config.data.cutoff_length, config.run.batch_tokens), (2048, 2048));
        assert_eq!((config.run.baseline, config.run.recompute), (None, Recompute::Auto));
    }

    #[test]
    fn what_is_set_beats_what_a_resolved_file_says_of_choosing_and_of_the_warm_up() {
        let given =
            parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\ntarget = \"a\"\ngeneral = \"g\"\n").unwrap().to_toml();
        let chosen = with(&given, &[("run.forget_at_most", "0.1")]).unwrap().run;
        assert_eq!((chosen.keep_best, chosen.evaluations), (true, 10));
        let rarer = with(&given, &[("run.keep_best", "true"), ("run.evaluations", "3")]).unwrap().run;
        assert_eq!((rarer.keep_best, rarer.evaluations), (true, 3));
        let none = with(&given, &[("run.keep_best", "true"), ("run.evaluations", "0")]);
        assert!(problems(none)[0].contains("keep_best: chooses among evaluations"));
        let contradicting = with(&given, &[("run.keep_best", "false"), ("run.patience", "1")]);
        assert!(problems(contradicting)[0].contains("keep_best: patience makes the best step the result"));

        let steps = with(SMALL, &[("optim.warmup_steps", "7")]).unwrap();
        assert_eq!(steps.optim.warmup_steps, Some(7));
        let ratio = with(&steps.to_toml(), &[("optim.warmup_ratio", "0.5")]).unwrap();
        assert_eq!((ratio.optim.warmup_steps, ratio.optim.warmup_ratio), (None, 0.5));
        assert_eq!(parse(&steps.to_toml()).unwrap(), steps);
    }

    #[test]
    fn what_is_set_beats_the_files_other_way_of_saying_how_often_is_measured() {
        let file = |run: &str| format!("{SMALL}target = \"a\"\n[run]\n{run}");
        let often = |text: &str, set: &[(&str, &str)]| {
            let run = with(text, set).unwrap().run;
            (run.eval_every, run.evaluations)
        };
        assert_eq!(often(&file("eval_every = 4\n"), &[("run.evaluations", "3")]), (0, 3));
        assert_eq!(often(&file("evaluations = 3\n"), &[("run.eval_every", "4")]), (4, 0));
        assert_eq!(often(&file("eval_every = 4\nevaluations = 3\n"), &[]), (4, 3), "as a run may have been begun with");
        assert_eq!(often(&file("eval_every = 4\n"), &[("run.evaluations", "0")]), (4, 0));
    }

    #[test]
    fn a_name_of_other_trainers_leads_to_the_setting_of_its_own_section_first_however_it_is_written() {
        for (key, meant) in [
            ("objective.alpha", "objective.exponent"),
            ("run.alpha", "adapter.alpha"),
            ("objective.K", "objective.top_k"),
            ("run.num_train_epochs", "run.epochs"),
            ("run.per_device_train_batch_size", "run.batch_tokens"),
            ("data.max_seq_length", "data.cutoff_length"),
            ("optim.warmup", "optim.warmup_ratio"),
            ("optim.grad_clip", "optim.max_grad_norm"),
            ("run.bf16", "run.storage"),
        ] {
            let found = problems(with(SMALL, &[(key, "1")]));
            assert!(found[0].ends_with(&format!("; did you mean {meant}?")), "{found:#?}");
        }
    }

    #[test]
    fn a_number_or_a_flag_that_toml_writes_otherwise_is_told_how() {
        for (key, value, plain) in [
            ("optim.learning_rate", ".001", "; write 0.001"),
            ("data.packing", "False", "; write false"),
            ("run.keep_best", "True", "; write true"),
            ("objective.top_k", "20.", "; write 20"),
            ("objective.scale", ".5", "; write 0.5"),
        ] {
            let found = problems(with(SMALL, &[(key, value)]));
            assert!(found[0].ends_with(plain), "{found:#?}");
        }
        let found = problems(with(SMALL, &[("optim.learning_rate", "-.1")]));
        assert!(found[0].ends_with("is not a finite number above 0"), "{found:#?}");
    }

    #[test]
    fn the_learning_rate_defaults_to_what_is_trained() {
        assert_eq!(with(SMALL, &[("adapter.kind", "none")]).unwrap().optim.learning_rate, 1e-5);
        let random = with(SMALL, &[("model.init", "random")]).unwrap();
        assert_eq!((random.optim.learning_rate, random.adapter.kind), (1e-3, AdapterKind::None));
    }

    #[test]
    fn the_resolved_file_parses_back_to_an_equal_configuration() {
        let full = r#"
[model]
path = "models/with \"quotes\""
init = "random"
architecture = { model_type = "llama", hidden_size = 64, rope_parameters = { rope_theta = 1e4 } }
[data]
train = "a.jsonl"
target = "b.jsonl"
general = "c.txt"
format = "question_answer"
cutoff_length = 512
packing = false
on_error = "skip"
train_on = "last"
template_variables = { enable_thinking = false, level = 3, language = "en" }
fields = { question = "asked", answer = "said \"so\"" }
[objective]
method = "talr"
exponent = 0.1
normalizer = "const_3"
tau = 0.30000000000000004
[adapter]
kind = "none"
targets = ["q_proj", "v_proj"]
[optim]
learning_rate = 3e-5
schedule = "linear"
[run]
steps = 7
baseline = "sft"
device = "llvmpipe"
storage = "f16"
recompute = "always"
"#;
        for text in [full, SMALL] {
            let config = parse(text).unwrap();
            let written = config.to_toml();
            for written in [&written, &config.to_commented_toml()] {
                let again = Config::parse(written, "config.toml", &[]).unwrap_or_else(|e| panic!("{e}\n{written}"));
                assert_eq!(again, config, "{written}");
            }
            assert_eq!(toml::from_str::<Config>(&written).unwrap(), config);
            assert_eq!(config.with(&[]).unwrap(), config);
        }
        assert_eq!(parse(full).unwrap().run.epochs, None);
        let eaft = parse(full).unwrap().objective.eaft;
        let plain = Objective::Sft(Sft { eaft, ..Sft::default() });
        assert_eq!(parse(full).unwrap().baseline().unwrap(), Some(plain));
    }

    #[test]
    fn a_written_file_has_every_key_that_is_set_in_the_order_in_which_it_is_declared() {
        let written = parse(SMALL).unwrap().to_toml();
        let keys = |text: &str| {
            let line = |line: &str| Some(line.split('=').next()?.trim().to_string()).filter(|key| !key.is_empty());
            text.lines().filter_map(line).collect::<Vec<_>>()
        };
        let declared = each_section!(section).into_iter().zip(each_section!(parse(SMALL).unwrap(), values));
        let wanted: Vec<String> = declared
            .flat_map(|((section, keys), values)| {
                let set = keys.into_iter().zip(values).filter(|(_, value)| value.is_some());
                std::iter::once(format!("[{section}]")).chain(set.map(|(key, _)| key.name.to_string()))
            })
            .collect();
        assert_eq!(keys(&written), wanted, "{written}");
        let commented = parse(SMALL).unwrap().to_commented_toml();
        let bare: Vec<&str> = commented.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(keys(&bare.join("\n")), keys(&written), "{commented}");
        for key in Config::parse(SMALL, "", &[]).unwrap().values() {
            assert!(commented.contains(key.1.help.trim().split(' ').next().unwrap()), "{}", key.0);
        }
    }

    /// As runs of earlier versions left it in their folders and checkpoints.
    const STORED: &str = r#"[model]
path = "m"
init = "pretrained"

[data]
train = "t.jsonl"
format = "question_answer"
cutoff_length = 512
packing = true
on_error = "stop"
train_on = "all"

[objective]
method = "talr"
gate = "power"
top_k = 10
exponent = 3.0
steepness = 30.0
midpoint = 0.17
percentile = 15.0
normalizer = "const_3"
entropy_percentile = 15.0
probability_percentile = 15.0
tau = 0.5
w_min = 0.01
sigma = 1.0
gamma = 1.0
threshold = 0.1

[adapter]
kind = "lora"
rank = 16
alpha = 32.0
dropout = 0.0
targets = "all-linear"

[optim]
learning_rate = 0.0001
schedule = "cosine"
warmup_ratio = 0.03
weight_decay = 0.0
max_grad_norm = 1.0
beta1 = 0.9
beta2 = 0.999
epsilon = 0.00000001

[run]
steps = 7
batch_tokens = 2048
accumulation = 8
seed = 42
log_every = 1
save_every = 100
keep = 2
eval_every = 0
baseline = "masked_sft"
device = "auto"
storage = "f16"
recompute = "auto"
"#;

    #[test]
    fn a_stored_configuration_is_read_and_written_again_to_the_letter() {
        let config = parse(STORED).unwrap();
        assert_eq!(config.objective.talr.tau, Some(0.5));
        // Line for line; settings that came later may stand between.
        let written = config.to_toml();
        let mut rest = written.lines();
        for line in STORED.lines() {
            assert!(rest.any(|found| found == line), "{line:?} is missing or out of order in:\n{written}");
        }
    }

    #[test]
    fn the_page_has_its_own_defaults_and_a_document_still_fits_a_batch() {
        let page = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            page(&set).unwrap()
        };
        let config = page(&[]);
        assert_eq!((config.optim.learning_rate, config.adapter.kind), (3e-4, AdapterKind::None));
        assert_eq!((config.run.steps, config.run.epochs, config.run.accumulation), (Some(80), None, 1));
        assert_eq!((config.data.cutoff_length, config.run.batch_tokens, config.run.save_every), (512, 512, 0));
        for (batch, cutoff) in [("128", 128), ("2048", 512)] {
            assert_eq!(page(&[("run.batch_tokens", batch)]).data.cutoff_length, cutoff);
        }
        // The rate is the page's own whatever is trained.
        assert_eq!(page(&[("adapter.kind", "lora")]).optim.learning_rate, 3e-4);
        assert_eq!(page(&[("run.epochs", "2")]).run.steps, None);
        let profile: toml::Table = toml::from_str(PAGE).unwrap();
        for (section, keys) in &profile {
            for key in keys.as_table().unwrap().keys() {
                let name = format!("{section}.{key}");
                assert!(config.values().iter().any(|(known, ..)| *known == name), "{name} is no setting");
            }
        }
        assert!(PAGE_METHODS.iter().all(|name| Method::from_name(name).is_some()));
    }

    #[test]
    fn an_objective_or_a_rate_can_change_while_a_learner_trains_and_nothing_else() {
        let config = parse(SMALL).unwrap();
        let differs = |set: &[(&str, &str)]| config.needs_restart(&with(SMALL, set).unwrap());
        assert!(!differs(&[("objective.method", "talr"), ("optim.learning_rate", "1e-3")]));
        for (key, value) in [("run.seed", "7"), ("adapter.rank", "4"), ("data.packing", "false"), ("model.path", "n")] {
            assert!(differs(&[(key, value)]), "{key}");
        }
    }

    #[test]
    fn the_schema_has_every_key_with_its_help_and_the_value_that_the_page_begins_with() {
        let schema = schema();
        let config = parse(SMALL).unwrap();
        let sections = schema["sections"].as_array().unwrap();
        let names: Vec<String> = sections
            .iter()
            .flat_map(|s| s["keys"].as_array().unwrap().iter().map(|key| format!("{}.{}", s["name"], key["name"])))
            .map(|name| name.replace('"', ""))
            .collect();
        assert_eq!(names, config.values().into_iter().map(|(name, ..)| name).collect::<Vec<_>>());
        for section in sections {
            for key in section["keys"].as_array().unwrap() {
                let help = key["help"].as_str().unwrap();
                assert!(help.len() > 8 && help.ends_with('.') && !help.contains('`'), "{key}");
                let said = ["default", "derived", "required"].iter().filter(|of| !key[**of].is_null()).count();
                assert!(said <= 1, "{key}");
                for choice in key["choices"].as_array().into_iter().flatten() {
                    assert!(choice["help"].as_str().unwrap().ends_with('.'), "{choice}");
                }
            }
        }
        let initial = &schema["page"]["initial"];
        assert_eq!(initial["optim.learning_rate"], 3e-4);
        assert_eq!(initial["objective.exponent"], 2.0, "under the gate that reads it");
        assert!(initial["objective.tau"].is_null());
        let live: Vec<_> = sections.iter().filter(|s| s["live"] == true).map(|s| s["name"].as_str().unwrap()).collect();
        assert_eq!(live, ["objective", "optim"]);
        assert_eq!(schema["conflict"], json!({ "probability": 0.1, "entropy": 0.5 }));
    }

    #[test]
    fn every_unknown_key_and_every_invalid_value_is_reported_with_its_line() {
        let text = "[model]
path = 3
[data]
train = \"t.jsonl\"
formt = \"text\"
[objective]
methd = \"sft\"
gate = \"lineer\"
top_k = 1
[optim]
lr = 1e-4
learning_rate = -1
warmup_ratio = nan
[run]
steps = 2.5
storage = \"bf15\"
[optin]
x = 1
";
        let found = problems(with(text, &[("run.kep", "3"), ("adapter.rank", "many"), ("nonsense", "1")]));
        let starts: Vec<&str> = [
            "run.toml:2: [model] path: 3 is not a string",
            "run.toml:5: [data] formt: unknown key; did you mean format?",
            "run.toml:7: [objective] methd: unknown key; did you mean method?",
            "run.toml:8: [objective] gate: \"lineer\" is not one of linear, power, sigmoid, hard; did you mean linear?",
            "run.toml:9: [objective] top_k: 1 gives an entropy of 0",
            "run.toml:11: [optim] lr: unknown key; did you mean optim.learning_rate?",
            "run.toml:12: [optim] learning_rate: -1 is not a finite number above 0",
            "run.toml:13: [optim] warmup_ratio: nan is not within 0 to 1",
            "run.toml:15: [run] steps: 2.5 is not a whole number of at least 1",
            "run.toml:16: [run] storage: \"bf15\" is not one of auto, f32, bf16, bf16_compensated, f16, q8_0, q4_0, q4_k",
            "run.toml:17: unknown section [optin]; did you mean optim?",
            "--set run.kep: [run] kep: unknown key; did you mean keep?",
            "--set adapter.rank: [adapter] rank: \"many\" is not a whole number of at least 1",
            "--set nonsense: expected section.key=value",
        ]
        .to_vec();
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}\n{start}");
        }
    }

    #[test]
    fn a_setting_is_found_by_its_name_or_by_that_of_other_trainers() {
        for (name, setting) in [
            ("epochs", Some("run.epochs")),
            ("learning-rate", Some("optim.learning_rate")),
            ("lr", Some("optim.learning_rate")),
            ("Lora-Rank", Some("adapter.rank")),
            ("nonsense", None),
        ] {
            assert_eq!(setting_called(name).as_deref(), setting, "{name}");
        }
    }

    #[test]
    fn of_an_unknown_section_all_are_named_with_the_one_that_it_may_be() {
        for (section, meant) in
            [("optimizer", "; did you mean optim?"), ("lora", "; did you mean adapter?"), ("zebra", "")]
        {
            let found = problems(parse(&format!("[{section}]\nx = 1\n")));
            let all = "model, data, objective, adapter, optim, run";
            let said = format!("run.toml:1: unknown section [{section}]{meant} (sections: {all})");
            assert!(found.contains(&said), "{found:#?}");
        }
    }

    #[test]
    fn of_a_text_that_is_no_toml_a_few_lines_are_named_and_the_others_are_counted() {
        let found = problems(parse(&"{\"question\": 1}\n".repeat(32)));
        let of = |part: &str| found.iter().filter(|problem| problem.contains(part)).count();
        assert_eq!((of("not valid TOML"), of(" more from here on")), (5, 1), "{found:#?}");
    }

    #[test]
    fn broken_toml_is_reported_with_its_line_beside_other_problems() {
        let found = problems(parse("[model]\npath = \n[data]\ntrain = \"t\"\nformat = \"csv\"\n"));
        assert!(found.iter().any(|p| p.starts_with("run.toml:2: not valid TOML")), "{found:#?}");
        assert!(found.iter().any(|p| p.starts_with("run.toml:5: [data] format")), "{found:#?}");
    }

    #[test]
    fn what_is_required_and_missing_is_named() {
        let found = problems(parse(""));
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].contains("[model] path: is missing"));
        assert!(found[1].contains("[data] train: is missing"));
        assert!(problems(parse("learning_rate = 1\n"))[0].contains("did you mean optim.learning_rate?"));
    }

    #[test]
    fn an_override_beats_the_file_and_needs_no_quotes() {
        let text = format!("{SMALL}[run]\nepochs = 3\ndevice = \"cpu\"\n[objective]\nmethod = \"sft\"\n");
        let config = with(
            &text,
            &[
                ("run.steps", "5"),
                ("run.device", "NVIDIA H200, 2"),
                ("objective.method", "eaft"),
                ("adapter.targets", "q_proj,v_proj"),
                ("data.target", "2024-01-01"),
                ("run.baseline", ""),
            ],
        )
        .unwrap();
        assert_eq!((config.run.steps, config.run.epochs), (Some(5), None));
        assert_eq!(config.run.device, "NVIDIA H200, 2");
        assert_eq!(config.objective.method, Method::Eaft);
        assert_eq!(
            config.adapter.targets,
            crate::model::settings::Targets::Names(vec!["q_proj".into(), "v_proj".into()])
        );
        assert_eq!(config.data.target.as_deref(), Some("2024-01-01"));
        assert!(config.adapter.targets.includes("v_proj") && !config.adapter.targets.includes("o_proj"));
    }

    #[test]
    fn recomputing_is_automatic_always_or_never() {
        for (name, expected) in [("always", Recompute::Always), ("never", Recompute::Never), ("auto", Recompute::Auto)]
        {
            assert_eq!(with(SMALL, &[("run.recompute", name)]).unwrap().run.recompute, expected);
        }
        let found = problems(with(SMALL, &[("run.recompute", "true"), ("run.gradient_checkpointing", "true")]));
        assert_eq!(found[0], "--set run.recompute: [run] recompute: true is not one of auto, always, never");
        assert!(found[1].contains("did you mean run.recompute?"), "{found:#?}");
    }

    #[test]
    fn a_part_of_the_data_is_held_out_or_another_file_is_the_target() {
        assert_eq!(parse(SMALL).unwrap().data.hold_out, None);
        let config = with(SMALL, &[("data.hold_out", "0.1")]).unwrap();
        assert_eq!(config.data.hold_out, Some(0.1));
        assert_eq!(config.with(&[]).unwrap(), config);
        let found = problems(with(SMALL, &[("data.target", "t"), ("data.hold_out", "0.1")]));
        assert!(found[0].contains("leave one out"), "{found:#?}");
        let file = SMALL.replace("[data]", "[data]\nhold_out = 0.2");
        let data = with(&file, &[("data.target", "t")]).unwrap().data;
        assert_eq!((data.target.as_deref(), data.hold_out), (Some("t"), None), "an override beats the file");
        for wrong in ["0", "1", "nan", "a"] {
            assert!(problems(with(SMALL, &[("data.hold_out", wrong)]))[0].contains("above 0 and below 1"), "{wrong}");
        }
    }

    #[test]
    fn whatever_may_be_left_out_is_taken_back_by_an_empty_override() {
        let plain = parse(SMALL).unwrap();
        for ((name, key, _), (.., default)) in plain.values().into_iter().zip(Config::defaults().values()) {
            assert_eq!(key.unset.is_some(), default.is_none(), "{name}");
            let found = with(SMALL, &[(&*name, "")]);
            match key.unset {
                Some(_) => assert_eq!(found.unwrap(), plain, "{name}"),
                // The one text that has a default of its own for it.
                None if name == "run.device" => assert_eq!(found.unwrap(), plain),
                None => assert!(problems(found)[0].starts_with(&format!("--set {name}: ")), "{name}"),
            }
        }
        let run = |more: &str, set: &[(&str, &str)]| with(&format!("{SMALL}{more}"), set).unwrap().run;
        let epochs = run("[run]\nsteps = 5\n", &[("run.steps", "")]);
        assert_eq!((epochs.steps, epochs.epochs), (None, Some(1.0)));
        assert_eq!(run("[run]\nepochs = 3\n", &[("run.steps", "")]).epochs, Some(3.0), "nothing stands in its place");
        let limited = "general = \"g\"\n[run]\nforget_at_most = 0.1\npatience = 2\ndevice_memory = \"6GiB\"\n";
        let taken = ["run.forget_at_most", "run.patience", "run.device_memory"].map(|key| (key, ""));
        let free = run(limited, &taken);
        assert_eq!((free.forget_at_most, free.patience, free.device_memory, free.keep_best), (None, None, None, false));
    }

    #[test]
    fn an_epsilon_that_single_precision_takes_for_zero_is_refused() {
        assert_eq!(with(SMALL, &[("optim.epsilon", "1.2e-38")]).unwrap().optim.epsilon, 1.2e-38);
        for tiny in ["1e-50", "1e-45", "1e-39"] {
            let found = problems(with(SMALL, &[("optim.epsilon", tiny)]));
            let said = format!("epsilon: is {tiny}; in single precision at least 1.1754944e-38 is possible");
            assert!(found.len() == 1 && found[0].ends_with(&said), "{found:#?}");
        }
        let zero = problems(with(SMALL, &[("optim.epsilon", "0")]));
        assert!(zero.len() == 1 && zero[0].contains("above 0"), "{zero:#?}");
    }

    #[test]
    fn what_is_not_set_is_as_in_the_adapter_to_go_on_from_and_what_is_set_otherwise_is_refused() {
        let targets = vec!["k_proj".to_string(), "q_proj".to_string()];
        let adapter = LoraSettings { rank: 8, alpha: 12.0, rslora: true, dropout: 0.1, targets, some_layers: false };
        let text = format!("{SMALL}[adapter]\nfrom = \"a\"\n");
        let of = |adapter: &LoraSettings, set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Config::going_on(&text, "run.toml", &set, adapter, Hold::Q8_0)
        };
        let storage = |set: &[(&str, &str)]| of(&adapter, set).unwrap().run.storage;
        assert_eq!([storage(&[]), storage(&[("run.storage", "f16")])], [Hold::Q8_0, Hold::F16]);
        let config = of(&adapter, &[]).unwrap();
        assert_eq!(LoraSettings::from(&config.adapter), adapter);
        assert_eq!((config.adapter.from.as_deref(), config.adapter.kind), (Some("a"), AdapterKind::Lora));
        for written in [config.to_toml(), config.to_commented_toml()] {
            assert_eq!(parse(&written).unwrap(), config);
        }
        let same = [("adapter.rank", "8"), ("adapter.targets", "q_proj,k_proj"), ("adapter.dropout", "0")];
        assert_eq!(of(&adapter, &same).unwrap().adapter.dropout, 0.0, "dropout may be another");
        for (key, value, words) in [
            ("adapter.rank", "16", "is 16, and in the adapter to go on from 8"),
            ("adapter.alpha", "32", "is 32, and in the adapter to go on from 12"),
            ("adapter.rslora", "false", "is false, and in the adapter to go on from true"),
            ("adapter.targets", "q_proj", "is q_proj, and in the adapter to go on from k_proj, q_proj"),
        ] {
            let found = problems(of(&adapter, &[(key, value)]));
            assert!(found.len() == 1 && found[0].starts_with(&format!("--set {key}: ")), "{found:#?}");
            assert!(found[0].contains(words) && found[0].ends_with("(a)"), "{found:#?}");
        }
        let head = LoraSettings { targets: vec!["lm_head".into()], ..adapter };
        let found = problems(of(&head, &[]));
        assert!(found[0].contains("from: cannot go on from this adapter: targets: \"lm_head\" is not"), "{found:#?}");
    }

    #[test]
    fn no_adapter_is_gone_on_from_where_all_weights_are_trained_the_model_without_it_is_asked_or_on_the_page() {
        let from = ("adapter.from", "a");
        for (set, words) in [
            (("adapter.kind", "none"), "all weights are trained (kind = \"none\"), and no adapter"),
            (("objective.method", "sft_kl"), "sft_kl asks the model as it is without an adapter"),
            (("objective.method", "flow"), "flow asks the model"),
            (("run.baseline", "asft"), "asft asks the model"),
        ] {
            let found = problems(with(SMALL, &[from, set]));
            assert!(found.len() == 1 && found[0].starts_with("--set adapter.from: "), "{found:#?}");
            assert!(found[0].contains(words) && found[0].contains("temper export"), "{found:#?}");
        }
        with(SMALL, &[from, ("objective.method", "dft"), ("run.baseline", "sft")]).unwrap();
        let set = [from, ("adapter.kind", "lora")].map(|(key, value)| (key.to_string(), value.to_string()));
        assert!(problems(page(&set))[0].contains("[adapter] from: the page reads no adapter"));
    }

    #[test]
    fn an_override_without_effect_is_refused_with_both_keys() {
        for (set, parts) in [
            (
                &[("adapter.kind", "none"), ("adapter.rank", "8")][..],
                ["adapter.rank: ", "8 is read with adapter.kind = \"lora\" only"],
            ),
            (&[("adapter.kind", "none"), ("adapter.alpha", "8")], ["adapter.alpha: ", "and that is \"none\""]),
            (&[("adapter.kind", "none"), ("adapter.rslora", "true")], ["adapter.rslora: ", "adapter.kind"]),
            (&[("adapter.kind", "none"), ("adapter.dropout", "0.1")], ["adapter.dropout: ", "adapter.kind"]),
            (&[("adapter.kind", "none"), ("adapter.targets", "q_proj")], ["adapter.targets: ", "adapter.kind"]),
            (
                &[("optim.schedule", "constant"), ("optim.min_rate", "0.1")],
                ["optim.min_rate: ", "optim.schedule = \"cosine\" or \"linear\""],
            ),
            (&[("data.replay_share", "0.2")], ["data.replay_share: ", "data.replay, which is not given"]),
            (
                &[("objective.method", "sft"), ("objective.scale", "gate_mean"), ("objective.gates", "shuffled")],
                ["objective.gates: ", "changes nothing where only the gates' mean is taken"],
            ),
            (
                &[("data.template", "none"), ("data.template_variables", "{ a = 1 }")],
                ["data.template_variables: ", "data.template = "],
            ),
            (
                &[("objective.tau", "0.5")],
                ["objective.tau: ", "objective.method = \"talr\" only, and that is \"eaft\""],
            ),
            (&[("objective.method", "sft"), ("objective.gate", "hard")], ["objective.gate: ", "objective.method"]),
            (&[("objective.method", "sft"), ("objective.exponent", "2")], ["objective.exponent: ", "objective.method"]),
            (&[("objective.mass", "0.9")], ["objective.mass: ", "objective.top_k = \"adaptive\" only, and that is 20"]),
            (
                &[("run.steps", "5"), ("optim.warmup_steps", "6")],
                ["optim.warmup_steps: ", "6 is more than run.steps, which is 5"],
            ),
        ] {
            let found = problems(with(SMALL, set));
            assert_eq!(found.len(), 1, "{set:?}: {found:#?}");
            assert!(found[0].starts_with("--set ") && parts.iter().all(|part| found[0].contains(part)), "{found:#?}");
        }
        let found = problems(with(SMALL, &[("objective.method", "tarl"), ("objective.tau", "0.5")]));
        assert_eq!(found.len(), 1, "what a misspelt method reads is not known: {found:#?}");
    }

    #[test]
    fn what_a_file_holds_in_vain_what_is_a_default_and_what_another_part_reads_is_not_refused() {
        for set in [
            &[("adapter.kind", "none"), ("adapter.rank", "16"), ("adapter.targets", "all-linear")][..],
            &[("objective.method", "sft"), ("objective.gate", "linear"), ("objective.top_k", "20")],
            &[("optim.schedule", "constant"), ("optim.min_rate", "0"), ("data.replay_share", "0.1")],
            &[("objective.tau", "0.5"), ("run.baseline", "talr")],
            &[("objective.method", "sft"), ("objective.scale", "gate_mean"), ("objective.gate", "hard")],
            &[("objective.method", "masked_sft"), ("objective.top_k", "5")],
            &[
                ("objective.method", "sft"),
                ("objective.scale", "gate_mean"),
                ("objective.gates", "shuffled"),
                ("run.baseline", "eaft"),
            ],
            &[("data.replay_share", "0.2"), ("data.replay", "r")],
            &[("run.steps", "5"), ("optim.warmup_steps", "5")],
        ] {
            with(SMALL, set).unwrap_or_else(|error| panic!("{set:?}: {error}"));
        }
        let file = "replay_share = 0.2\n[objective]\ntau = 0.5\n[adapter]\nkind = \"none\"\nrank = 8\n[optim]\n\
                    schedule = \"constant\"\nmin_rate = 0.1\nwarmup_steps = 9\n[run]\nsteps = 5\n";
        let config = parse(&format!("{SMALL}{file}")).unwrap();
        for written in [config.to_toml(), config.to_commented_toml()] {
            assert_eq!(parse(&written).unwrap(), config);
        }
        assert_eq!(with(&config.to_toml(), &[("run.steps", "3")]).unwrap().run.steps, Some(3));
        let shared = Config::shared(SMALL, "run.toml", &[("objective.tau".into(), "0.5".into())]).unwrap();
        assert_eq!(shared.objective.talr.tau, Some(0.5), "one of several runs may read it");
        assert_eq!(page(&[("objective.tau".into(), "0.5".into())]).unwrap().objective.talr.tau, Some(0.5));
    }

    #[test]
    fn more_epochs_than_anybody_waits_for_are_refused() {
        let found = problems(with(SMALL, &[("run.epochs", "1e300")]));
        assert!(found[0].ends_with("is not a number above 0 and below 1000000"), "{found:#?}");
    }

    #[test]
    fn steps_and_epochs_in_one_file_contradict_each_other() {
        let found = problems(parse(&format!("{SMALL}[run]\nsteps = 5\nepochs = 1\n")));
        assert!(found[0].contains("leave one out"), "{found:#?}");
    }

    #[test]
    fn a_document_must_fit_a_micro_batch_and_the_limit_not_given_follows() {
        let small = with(SMALL, &[("run.batch_tokens", "512")]).unwrap();
        assert_eq!((small.data.cutoff_length, small.run.batch_tokens), (512, 512));
        let long = with(SMALL, &[("data.cutoff_length", "4096")]).unwrap();
        assert_eq!((long.data.cutoff_length, long.run.batch_tokens), (4096, 4096));
        let found = problems(with(SMALL, &[("data.cutoff_length", "4096"), ("run.batch_tokens", "512")]));
        assert!(found[0].contains("do not fit"), "{found:#?}");
    }

    #[test]
    fn an_exponent_alone_is_the_power_gate_and_power_alone_is_squared() {
        let objective = |set: &[(&str, &str)]| with(SMALL, set).unwrap().objective.eaft;
        let exponent = objective(&[("objective.exponent", "0")]);
        assert_eq!((exponent.gate, exponent.exponent), (GateShape::Power, 0.0));
        let power = objective(&[("objective.gate", "power")]);
        assert_eq!((power.gate, power.exponent), (GateShape::Power, 2.0));
        let found = problems(with(SMALL, &[("objective.gate", "linear"), ("objective.exponent", "2")]));
        assert!(found[0].starts_with("--set objective.exponent: [objective] exponent: 2 is read by"), "{found:#?}");
    }

    #[test]
    fn adapter_targets_are_all_linear_or_known_layers() {
        let found = problems(with(SMALL, &[("adapter.targets", "[\"q_porj\"]"), ("adapter.dropout", "1")]));
        assert!(found[0].contains("did you mean q_proj?"), "{found:#?}");
        assert!(found[1].contains("below 1"), "{found:#?}");
        assert!(problems(with(SMALL, &[("adapter.targets", "[]")]))[0].contains("empty"));
    }

    #[test]
    fn random_weights_are_not_frozen_and_an_architecture_needs_them() {
        let found = problems(with(SMALL, &[("model.init", "random"), ("adapter.kind", "lora")]));
        assert!(found[0].contains("would freeze random weights"), "{found:#?}");
        let found = problems(with(SMALL, &[("model.architecture", "a/config.json")]));
        assert!(found[0].contains("init = \"random\" only"), "{found:#?}");
        let inline = with(SMALL, &[("model.init", "random"), ("model.architecture", "{ hidden_size = 64 }")]).unwrap();
        assert!(matches!(inline.model.architecture, Some(ArchitectureSource::Inline(table)) if table.len() == 1));
    }
}
