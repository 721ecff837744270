//! The run's configuration: one TOML file plus `--set section.key=value`, checked as a whole.
//!
//! Place in the flow: before everything. [`Config::parse`] reads the file, applies the overrides, fills in defaults and
//! reports *every* unknown key and *every* invalid value together, each with its line or override. What comes out is
//! resolved: nothing later looks at defaults again, and [`Config::to_toml`] writes a file that parses back to an equal
//! configuration, which is what a run folder and a checkpoint keep.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::data::{Format, OnError};
use crate::error::{Error, Result};
use crate::loss::objective::{GateShape, Method, Normalizer, Objective};
use crate::train::session::Recompute;

/// A value chosen by name: the enum, its names in files, and its parser are written once.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every name with its value, in the order in which they are listed to the user.
    const ALL: &'static [(&'static str, Self)];

    /// The value of this name.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The name of this value.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }

    /// All names, for messages.
    fn names() -> String {
        Self::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* pub enum $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $type { $($(#[$variant_doc])* #[serde(rename = $name)] $variant),+ }

        impl $crate::config::Choice for $type {
            const ALL: &'static [(&'static str, Self)] = &[$(($name, Self::$variant)),+];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::config::Choice::name(*self))
            }
        }
    };
}
pub(crate) use choice;

choice! {
    /// Where the weights to start from come from.
    pub enum Init {
        /// From the model's files.
        Pretrained = "pretrained",
        /// Drawn from the run's seed; the files give only the architecture and the tokenizer.
        Random = "random",
    }
}

impl Choice for Format {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("messages", Self::Messages),
        ("prompt_completion", Self::PromptCompletion),
        ("instruction", Self::Instruction),
        ("text", Self::Text),
        ("question_answer", Self::QuestionAnswer),
    ];
}

impl Choice for OnError {
    const ALL: &'static [(&'static str, Self)] = &[("stop", Self::Stop), ("skip", Self::Skip)];
}

impl Choice for Recompute {
    const ALL: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];
}

choice! {
    /// Which assistant turns of a chat are trained.
    pub enum TrainOn {
        /// Every one.
        All = "all",
        /// The last one only.
        Last = "last",
    }
}

choice! {
    /// What is trained.
    pub enum AdapterKind {
        /// Low-rank factors beside frozen weights.
        Lora = "lora",
        /// The weights themselves.
        None = "none",
    }
}

choice! {
    /// Course of the learning rate after warm-up.
    pub enum ScheduleKind {
        /// Half a cosine down to 0.
        Cosine = "cosine",
        /// A straight line down to 0.
        Linear = "linear",
        /// The peak throughout.
        Constant = "constant",
    }
}

choice! {
    /// How weights that are not trained lie in device memory.
    pub enum Storage {
        /// Single precision.
        F32 = "f32",
        /// Frozen block matrices in half precision, on any device; products are in single precision.
        F16 = "f16",
        /// As the file has them: quantised blocks stay quantised.
        AsIs = "as-is",
    }
}

/// Linear layers of a block by the names that Hugging Face and PEFT use, in the order in which a block applies them.
pub const LINEAR_NAMES: [&str; 8] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"];

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

/// `[model]`: where to start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSection {
    /// A Hugging Face folder or a GGUF file. Required.
    pub path: String,
    /// Default `pretrained`.
    pub init: Init,
    /// With `init = "random"`: the architecture, in place of the one in `path`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub architecture: Option<Architecture>,
}

/// An architecture given in the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Architecture {
    /// Path of a `config.json`.
    Path(String),
    /// The keys of a Hugging Face `config.json` as an inline table.
    Inline(toml::Table),
}

/// `[data]`: what to train and evaluate on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSection {
    /// JSONL to train on. Required.
    pub train: String,
    /// JSONL or text on which the target loss is measured before and after; none by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// In place of `target`: the share of the training documents, the last ones, that is measured and not trained on.
    /// Above 0 and below 1; none by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold_out: Option<f64>,
    /// JSONL or text on which forgetting is measured before and after; none by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub general: Option<String>,
    /// Default `auto`.
    pub format: Format,
    /// Longest document in tokens; longer ones are cut. Default 2048, or `run.batch_tokens` where that is smaller.
    pub cutoff_length: usize,
    /// Several documents in one row, each with its own attention and positions. Default true.
    pub packing: bool,
    /// Default `stop`.
    pub on_error: OnError,
    /// Default `all`.
    pub train_on: TrainOn,
}

/// `[objective]`: the row of the objective table and its constants. Keys that the method does not read are checked and
/// otherwise ignored, so that one file can be run with several methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveSection {
    /// Default `eaft`.
    pub method: Method,
    /// Gate of `eaft`. Default `linear`, or `power` where an exponent is given.
    pub gate: GateShape,
    /// K of the top-K entropy, 2 to 64. Default 20.
    pub top_k: usize,
    /// Gate `power`: default 2. (`linear` is exponent 1.) 0 is plain SFT to the bit.
    pub exponent: f64,
    /// Gate `sigmoid`: default 30.
    pub steepness: f64,
    /// Gate `sigmoid`: default 0.17, which is 0.51 nats.
    pub midpoint: f64,
    /// Gate `hard`: lowest share by entropy that is dropped, in percent of the batch. Default 15.
    pub percentile: f64,
    /// What the entropy is divided by. Default `ln_k`.
    pub normalizer: Normalizer,
    /// `masked_sft`: percent of the batch by entropy. Default 15.
    pub entropy_percentile: f64,
    /// `masked_sft`: percent of the batch by label probability. Default 15.
    pub probability_percentile: f64,
    /// `talr`: temperature in nats; by default the median over the batch's sequences of their mean cross entropy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tau: Option<f64>,
    /// `talr`: floor of the weight. Default 0.01.
    pub w_min: f64,
    /// `mile`: added to the entropy, in nats. Default 1.
    pub sigma: f64,
    /// `mile`: exponent. Default 1.
    pub gamma: f64,
    /// `profit`: tokens above this probability are trained. Default 0.1.
    pub threshold: f64,
}

impl Default for ObjectiveSection {
    fn default() -> Self {
        Self {
            method: Method::Eaft,
            gate: GateShape::Linear,
            top_k: 20,
            exponent: 1.0,
            steepness: 30.0,
            midpoint: 0.17,
            percentile: 15.0,
            normalizer: Normalizer::LnK,
            entropy_percentile: 15.0,
            probability_percentile: 15.0,
            tau: None,
            w_min: 0.01,
            sigma: 1.0,
            gamma: 1.0,
            threshold: 0.1,
        }
    }
}

/// `[adapter]`: what is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterSection {
    /// Default `lora`; `none` trains the weights themselves. With `init = "random"` the default is `none`.
    pub kind: AdapterKind,
    /// Default 16.
    pub rank: usize,
    /// The adapter's output is scaled by alpha / rank. Default 32.
    pub alpha: f64,
    /// Probability of dropping an input of the adapter. Default 0.
    pub dropout: f64,
    /// Default `"all-linear"`.
    pub targets: Targets,
}

/// Linear layers that get an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub enum Targets {
    /// Every linear layer of every block; never the output head.
    AllLinear,
    /// Those of these names, out of [`LINEAR_NAMES`].
    Names(Vec<String>),
}

impl Targets {
    /// True where the linear layer of this name gets an adapter.
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::AllLinear => true,
            Self::Names(names) => names.iter().any(|known| known == name),
        }
    }
}

impl From<Targets> for Value {
    fn from(targets: Targets) -> Self {
        match targets {
            Targets::AllLinear => Self::String("all-linear".into()),
            Targets::Names(names) => Self::Array(names.into_iter().map(Self::String).collect()),
        }
    }
}

impl TryFrom<Value> for Targets {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let names: Vec<String> = match &value {
            Value::String(text) if text == "all-linear" => return Ok(Self::AllLinear),
            Value::String(text) => text.split(',').map(|name| name.trim().to_string()).collect(),
            Value::Array(items) if items.iter().all(Value::is_str) => {
                items.iter().filter_map(Value::as_str).map(str::to_string).collect()
            }
            _ => return Err(format!("{value} is not \"all-linear\" or a list of layer names")),
        };
        if names.is_empty() {
            return Err("the list is empty; use \"all-linear\" or name at least one layer".into());
        }
        match names.iter().find(|name| !LINEAR_NAMES.contains(&name.as_str())) {
            Some(unknown) => Err(format!(
                "\"{unknown}\" is not \"all-linear\" or one of {}{}",
                LINEAR_NAMES.join(", "),
                did_you_mean(unknown, &LINEAR_NAMES)
            )),
            None => Ok(Self::Names(names)),
        }
    }
}

/// `[optim]`: AdamW and its schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimSection {
    /// Peak. Default 1e-4 with an adapter, 1e-5 for full fine-tuning, 1e-3 from random weights.
    pub learning_rate: f64,
    /// Default `cosine`.
    pub schedule: ScheduleKind,
    /// Share of the steps over which the rate rises from 0. Default 0.03.
    pub warmup_ratio: f64,
    /// Decoupled. Default 0.
    pub weight_decay: f64,
    /// Global norm to which gradients are clipped; 0 turns clipping off. Default 1.
    pub max_grad_norm: f64,
    /// Default 0.9.
    pub beta1: f64,
    /// Default 0.999.
    pub beta2: f64,
    /// Default 1e-8.
    pub epsilon: f64,
}

/// `[run]`: how long, on what, and what is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSection {
    /// Optimiser steps. Exactly one of `steps` and `epochs` is set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub steps: Option<u64>,
    /// Passes over the training data. Default 1 where `steps` is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epochs: Option<f64>,
    /// Most tokens in one micro-batch. Default 2048, or `data.cutoff_length` where that is larger.
    pub batch_tokens: usize,
    /// Micro-batches per optimiser step. Default 8.
    pub accumulation: usize,
    /// Seed of everything random: order, initial factors, dropout. Default 42.
    pub seed: u64,
    /// Steps between two lines of metrics; steps that are not logged read nothing back. Default 1.
    pub log_every: u64,
    /// Steps between two checkpoints; 0 keeps only the end. Default 100.
    pub save_every: u64,
    /// Newest checkpoints to keep. Default 2.
    pub keep: usize,
    /// Steps between two evaluations; 0 evaluates only before and after. Default 0.
    pub eval_every: u64,
    /// Objective that is also trained from the same start, for comparison; none by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub baseline: Option<Method>,
    /// `auto`, `cpu`, `vulkan`, `metal`, `dx12` or part of an adapter's name. Default `auto`.
    pub device: String,
    /// Default `f32`.
    pub storage: Storage,
    /// Whether blocks run a second time before their pull-back, which needs less memory and a third more operations.
    /// Default `auto`: only where keeping everything would take more than
    /// [`KEEP_BYTES`](crate::train::session::KEEP_BYTES) a micro-batch. The results are the same to the bit.
    pub recompute: Recompute,
}

impl Config {
    /// Reads a configuration.
    ///
    /// `file_name` is only for messages. `overrides` are `(section.key, value)`, applied after the file in their order;
    /// a value is read as TOML and, where it is not TOML, as a bare string, so that `run.device=cpu` needs no quotes.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem of the file and the overrides, in the order of the file.
    pub fn parse(text: &str, file_name: &str, overrides: &[(String, String)]) -> Result<Self> {
        let mut reader = Reader::new(text, file_name, overrides);
        let model = reader.model();
        let objective = reader.objective();
        let adapter = reader.adapter(&model);
        let optim = reader.optim(&model, &adapter);
        let (data, run) = reader.data_and_run();
        reader.finish()?;
        Ok(Self { model, data, objective, adapter, optim, run })
    }

    /// The resolved file: parses back to an equal configuration.
    pub fn to_toml(&self) -> String {
        // Tables of plain values always serialise; the engine has no state in which this could fail.
        toml::to_string(self).unwrap_or_default()
    }

    /// The objective, validated.
    ///
    /// # Errors
    /// [`Error::Config`] where a field was changed after parsing to something invalid.
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

    /// The resolved configuration with another value of one key, for a face that changes a parsed configuration (for
    /// example `--device`).
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn with(&self, overrides: &[(String, String)]) -> Result<Self> {
        Self::parse(&self.to_toml(), "config.toml", overrides)
    }
}

impl ObjectiveSection {
    /// Reads `[objective]` alone, from overrides of the form `(objective.key, value)`: for commands that evaluate an
    /// objective without a run. `method` is applied first.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem, among them keys of other sections.
    pub fn from_overrides(method: &str, overrides: &[(String, String)]) -> Result<Self> {
        let mut all = vec![("objective.method".to_string(), method.to_string())];
        all.extend_from_slice(overrides);
        let mut reader = Reader::new("", "", &all);
        let objective = reader.objective();
        reader.finish()?;
        Ok(objective)
    }
}

/// All keys by section: the one list that unknown keys and suggestions are taken from.
const KEYS: [(&str, &[&str]); 6] = [
    ("model", &["path", "init", "architecture"]),
    ("data", &["train", "target", "hold_out", "general", "format", "cutoff_length", "packing", "on_error", "train_on"]),
    (
        "objective",
        &[
            "method",
            "gate",
            "top_k",
            "exponent",
            "steepness",
            "midpoint",
            "percentile",
            "normalizer",
            "entropy_percentile",
            "probability_percentile",
            "tau",
            "w_min",
            "sigma",
            "gamma",
            "threshold",
        ],
    ),
    ("adapter", &["kind", "rank", "alpha", "dropout", "targets"]),
    (
        "optim",
        &["learning_rate", "schedule", "warmup_ratio", "weight_decay", "max_grad_norm", "beta1", "beta2", "epsilon"],
    ),
    (
        "run",
        &[
            "steps",
            "epochs",
            "batch_tokens",
            "accumulation",
            "seed",
            "log_every",
            "save_every",
            "keep",
            "eval_every",
            "baseline",
            "device",
            "storage",
            "recompute",
        ],
    ),
];

/// Names that other trainers use for the same thing and that no spelling distance would find.
const ALIASES: [(&str, &str); 19] = [
    ("lr", "optim.learning_rate"),
    ("lr_scheduler_type", "optim.schedule"),
    ("max_norm", "optim.max_grad_norm"),
    ("clip", "optim.max_grad_norm"),
    ("eps", "optim.epsilon"),
    ("r", "adapter.rank"),
    ("lora_r", "adapter.rank"),
    ("lora_rank", "adapter.rank"),
    ("lora_alpha", "adapter.alpha"),
    ("target_modules", "adapter.targets"),
    ("k", "objective.top_k"),
    ("eaft_alpha", "objective.exponent"),
    ("loss", "objective.method"),
    ("cutoff_len", "data.cutoff_length"),
    ("max_length", "data.cutoff_length"),
    ("batch_size", "run.batch_tokens"),
    ("gradient_accumulation_steps", "run.accumulation"),
    ("max_steps", "run.steps"),
    ("gradient_checkpointing", "run.recompute"),
];

/// One value, with where the user wrote it.
struct Entry {
    value: Value,
    place: Place,
}

/// Where something was written. Problems are listed in this order: the file from top to bottom, then overrides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Line of the file, from 1.
    Line(usize),
    /// Nowhere: a required key that is missing.
    Missing,
    /// The n-th `--set`, and its key.
    Set(usize, String),
}

/// Takes values out of the tables, collecting problems; what is left over at the end is unknown. Not left to serde, which
/// stops at the first mistake: all of them are reported at once, each with its line.
struct Reader<'a> {
    file_name: &'a str,
    entries: BTreeMap<(String, String), Entry>,
    problems: Vec<(Place, String)>,
}

impl<'a> Reader<'a> {
    fn new(text: &str, file_name: &'a str, overrides: &[(String, String)]) -> Self {
        let mut reader = Self { file_name, entries: BTreeMap::new(), problems: Vec::new() };
        let line_of = |offset: usize| text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1;

        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = error.span().map_or(1, |span| line_of(span.start));
            reader.problems.push((Place::Line(line), format!("not valid TOML: {}", error.message())));
        }
        for (name, item) in document.into_inner() {
            let place = Place::Line(line_of(name.span().start));
            let name = name.into_inner().into_owned();
            match item.into_inner() {
                DeValue::Table(table) if KEYS.iter().any(|(section, _)| *section == name) => {
                    for (key, value) in table {
                        let place = Place::Line(line_of(key.span().start));
                        let deserializer = toml::de::ValueDeserializer::from(value);
                        match Value::deserialize(deserializer) {
                            Ok(value) => {
                                let slot = (name.clone(), key.into_inner().into_owned());
                                reader.entries.insert(slot, Entry { value, place });
                            }
                            Err(error) => reader.problems.push((place, error.message().to_string())),
                        }
                    }
                }
                DeValue::Table(_) => {
                    let sections = KEYS.map(|(section, _)| section);
                    let hint = did_you_mean(&name, &sections);
                    reader.problems.push((place, format!("unknown section [{name}]{hint}")));
                }
                _ if KEYS.iter().any(|(section, _)| *section == name) => {
                    reader.problems.push((place, format!("{name} is a section: write [{name}] and its keys below")));
                }
                _ => {
                    let hint = suggestion("", &name);
                    reader.problems.push((place, format!("{name} stands outside of any section{hint}")));
                }
            }
        }
        for (index, (key, text)) in overrides.iter().enumerate() {
            let place = Place::Set(index, key.clone());
            match key.split_once('.') {
                Some((section, name)) if KEYS.iter().any(|(known, _)| *known == section) => {
                    let value = override_value(text);
                    reader.entries.insert((section.into(), name.into()), Entry { value, place });
                }
                Some((section, _)) => {
                    let sections = KEYS.map(|(section, _)| section);
                    let hint = did_you_mean(section, &sections);
                    reader.problems.push((place, format!("unknown section \"{section}\"{hint}")));
                }
                None => reader.problems.push((place, format!("expected section.key=value{}", suggestion("", key)))),
            }
        }
        reader
    }

    fn take(&mut self, section: &str, key: &str) -> Option<Entry> {
        self.entries.remove(&(section.to_string(), key.to_string()))
    }

    fn place(&self, section: &str, key: &str) -> Place {
        self.entries.get(&(section.to_string(), key.to_string())).map_or(Place::Missing, |e| e.place.clone())
    }

    fn has(&self, section: &str, key: &str) -> bool {
        self.place(section, key) != Place::Missing
    }

    fn problem(&mut self, place: Place, section: &str, key: &str, problem: impl std::fmt::Display) {
        self.problems.push((place, format!("[{section}] {key}: {problem}")));
    }

    /// A value that `read` understands, or its message; the default where the key is not given or not usable.
    fn value<T>(&mut self, section: &str, key: &str, default: T, read: impl Fn(&Value) -> Result<T, String>) -> T {
        let Some(entry) = self.take(section, key) else { return default };
        match read(&entry.value) {
            Ok(value) => value,
            Err(problem) => {
                self.problem(entry.place, section, key, problem);
                default
            }
        }
    }

    fn string(&mut self, section: &str, key: &str, default: &str) -> String {
        self.value(section, key, default.to_string(), |value| {
            value.as_str().map(str::to_string).ok_or_else(|| format!("{value} is not a string"))
        })
    }

    /// A string of which `""` means none.
    fn optional_string(&mut self, section: &str, key: &str) -> Option<String> {
        Some(self.string(section, key, "")).filter(|text| !text.is_empty())
    }

    fn required_string(&mut self, section: &str, key: &str, what: &str) -> String {
        let place = self.place(section, key);
        let given = self.has(section, key);
        let before = self.problems.len();
        let text = self.string(section, key, "");
        if text.is_empty() && self.problems.len() == before {
            let problem = if given { format!("is empty: give {what}") } else { format!("is missing: give {what}") };
            self.problem(place, section, key, problem);
        }
        text
    }

    fn flag(&mut self, section: &str, key: &str, default: bool) -> bool {
        self.value(section, key, default, |value| {
            value.as_bool().ok_or_else(|| format!("{value} is not true or false"))
        })
    }

    fn choice<T: Choice>(&mut self, section: &str, key: &str, default: T) -> T {
        self.value(section, key, default, read_choice)
    }

    /// A whole number of at least `least`.
    fn count(&mut self, section: &str, key: &str, default: u64, least: u64) -> u64 {
        self.value(section, key, default, |value| {
            // 1e3 and 8.0 are whole numbers too.
            let whole = match value {
                Value::Integer(i) => u64::try_from(*i).ok(),
                Value::Float(f) if f.fract() == 0.0 && (0.0..=9e15).contains(f) => Some(*f as u64),
                _ => None,
            };
            whole.filter(|n| *n >= least).ok_or_else(|| format!("{value} is not a whole number of at least {least}"))
        })
    }

    fn size(&mut self, section: &str, key: &str, default: usize, least: usize) -> usize {
        // 2^31 tokens or rows are beyond every device; the bound keeps later products inside 64 bits and wasm's usize.
        let place = self.place(section, key);
        let count = self.count(section, key, default as u64, least as u64);
        if count > i32::MAX as u64 {
            self.problem(place, section, key, format!("{count} is larger than {}", i32::MAX));
            return default;
        }
        count as usize
    }

    /// A finite number for which `good` holds; `allowed` says so in words.
    fn number(&mut self, section: &str, key: &str, default: f64, allowed: &str, good: fn(f64) -> bool) -> f64 {
        self.value(section, key, default, |value| {
            let number = match value {
                Value::Integer(i) => Some(*i as f64),
                Value::Float(f) => Some(*f),
                _ => None,
            };
            number.filter(|n| n.is_finite() && good(*n)).ok_or_else(|| format!("{value} is not {allowed}"))
        })
    }

    fn model(&mut self) -> ModelSection {
        let path = self.required_string("model", "path", "a Hugging Face folder or a GGUF file");
        let init = self.choice("model", "init", Init::Pretrained);
        let place = self.place("model", "architecture");
        let architecture = self.value("model", "architecture", None, |value| match value {
            Value::String(path) if path.is_empty() => Ok(None),
            Value::String(path) => Ok(Some(Architecture::Path(path.clone()))),
            Value::Table(table) => Ok(Some(Architecture::Inline(table.clone()))),
            _ => Err(format!("{value} is not an inline table or the path of a config.json")),
        });
        if architecture.is_some() && init == Init::Pretrained {
            self.problem(place, "model", "architecture", "is read with init = \"random\" only");
        }
        ModelSection { path, init, architecture }
    }

    fn objective(&mut self) -> ObjectiveSection {
        const S: &str = "objective";
        let places: BTreeMap<&str, Place> = KEYS[2].1.iter().map(|key| (*key, self.place(S, key))).collect();
        let before = self.problems.len();
        let default = ObjectiveSection::default();
        // An exponent alone asks for the power gate; `linear` is the same with exponent 1.
        let default_gate =
            if self.has(S, "exponent") && !self.has(S, "gate") { GateShape::Power } else { default.gate };
        let method = self.choice(S, "method", default.method);
        let gate = self.choice(S, "gate", default_gate);
        let default_exponent = if gate == GateShape::Power { 2.0 } else { default.exponent };
        // Ranges are the objective table's own business; here a number only has to be a number.
        let mut number = |key: &str, default: f64| self.number(S, key, default, "a finite number", |_| true);
        let section = ObjectiveSection {
            method,
            gate,
            exponent: number("exponent", default_exponent),
            steepness: number("steepness", default.steepness),
            midpoint: number("midpoint", default.midpoint),
            percentile: number("percentile", default.percentile),
            entropy_percentile: number("entropy_percentile", default.entropy_percentile),
            probability_percentile: number("probability_percentile", default.probability_percentile),
            w_min: number("w_min", default.w_min),
            sigma: number("sigma", default.sigma),
            gamma: number("gamma", default.gamma),
            threshold: number("threshold", default.threshold),
            tau: if places["tau"] == Place::Missing { None } else { Some(number("tau", 1.0)) },
            top_k: self.size(S, "top_k", default.top_k, 0),
            normalizer: self.choice(S, "normalizer", default.normalizer),
        };
        // A gate that could not be read would make its parameters look wrong too; those wait for the next attempt.
        let unread_gate = self.problems[before..].iter().any(|(place, _)| *place == places["gate"]);
        if let Err(problems) = Objective::check(&section) {
            for p in problems.iter().filter(|p| !(unread_gate && p.field == "exponent")) {
                self.problem(places[p.field].clone(), S, p.field, &p.problem);
            }
        }
        section
    }

    fn adapter(&mut self, model: &ModelSection) -> AdapterSection {
        const S: &str = "adapter";
        let default_kind = if model.init == Init::Random { AdapterKind::None } else { AdapterKind::Lora };
        let place = self.place(S, "kind");
        let kind = self.choice(S, "kind", default_kind);
        if kind == AdapterKind::Lora && model.init == Init::Random {
            self.problem(
                place,
                S,
                "kind",
                "\"lora\" would freeze random weights: with init = \"random\" train them all (kind = \"none\")",
            );
        }
        AdapterSection {
            kind,
            rank: self.size(S, "rank", 16, 1),
            alpha: self.number(S, "alpha", 32.0, "a number above 0", |v| v > 0.0),
            dropout: self.number(S, "dropout", 0.0, "at least 0 and below 1", |v| (0.0..1.0).contains(&v)),
            targets: self.value(S, "targets", Targets::AllLinear, |value| Targets::try_from(value.clone())),
        }
    }

    fn optim(&mut self, model: &ModelSection, adapter: &AdapterSection) -> OptimSection {
        const S: &str = "optim";
        let learning_rate = match (model.init, adapter.kind) {
            (Init::Random, _) => 1e-3,
            (Init::Pretrained, AdapterKind::Lora) => 1e-4,
            (Init::Pretrained, AdapterKind::None) => 1e-5,
        };
        let share = |v: f64| (0.0..1.0).contains(&v);
        OptimSection {
            learning_rate: self.number(S, "learning_rate", learning_rate, "a finite number above 0", |v| v > 0.0),
            schedule: self.choice(S, "schedule", ScheduleKind::Cosine),
            warmup_ratio: self.number(S, "warmup_ratio", 0.03, "within 0 to 1", |v| (0.0..=1.0).contains(&v)),
            weight_decay: self.number(S, "weight_decay", 0.0, "a number of at least 0", |v| v >= 0.0),
            max_grad_norm: self
                .number(S, "max_grad_norm", 1.0, "a number of at least 0 (0: no clipping)", |v| v >= 0.0),
            beta1: self.number(S, "beta1", 0.9, "at least 0 and below 1", share),
            beta2: self.number(S, "beta2", 0.999, "at least 0 and below 1", share),
            epsilon: self.number(S, "epsilon", 1e-8, "a finite number above 0", |v| v > 0.0),
        }
    }

    fn data_and_run(&mut self) -> (DataSection, RunSection) {
        const D: &str = "data";
        const R: &str = "run";
        // A document has to fit into a micro-batch: a limit that is not given follows the other one.
        let cutoff_place = self.place(D, "cutoff_length");
        let (cutoff_given, batch_given) = (self.has(D, "cutoff_length"), self.has(R, "batch_tokens"));
        let cutoff = self.size(D, "cutoff_length", 2048, 2);
        let batch_tokens = self.size(R, "batch_tokens", 2048, 2);
        let (cutoff_length, batch_tokens) = match (cutoff_given, batch_given) {
            (true, false) => (cutoff, batch_tokens.max(cutoff)),
            (false, true) => (cutoff.min(batch_tokens), batch_tokens),
            _ => (cutoff, batch_tokens),
        };
        if cutoff_length > batch_tokens {
            self.problem(
                cutoff_place,
                D,
                "cutoff_length",
                format!("{cutoff_length} tokens do not fit into a micro-batch of run.batch_tokens = {batch_tokens}"),
            );
        }

        let (target_place, hold_out_place) = (self.place(D, "target"), self.place(D, "hold_out"));
        let mut target = self.optional_string(D, "target");
        let share = |v: f64| 0.0 < v && v < 1.0;
        let mut hold_out = (hold_out_place != Place::Missing)
            .then(|| self.number(D, "hold_out", 0.1, "a share above 0 and below 1", share));
        if target.is_some() && hold_out.is_some() {
            // As with steps and epochs, an override beats the file.
            match (&target_place, &hold_out_place) {
                (Place::Set(..), Place::Line(_)) => hold_out = None,
                (Place::Line(_), Place::Set(..)) => target = None,
                _ => self.problem(
                    target_place.max(hold_out_place),
                    D,
                    "hold_out",
                    "target and hold_out both say what is measured: leave one out",
                ),
            }
        }
        let data = DataSection {
            train: self.required_string(D, "train", "a JSONL file"),
            target,
            hold_out,
            general: self.optional_string(D, "general"),
            format: self.choice(D, "format", Format::Auto),
            cutoff_length,
            packing: self.flag(D, "packing", true),
            on_error: self.choice(D, "on_error", OnError::Stop),
            train_on: self.choice(D, "train_on", TrainOn::All),
        };

        let (steps_place, epochs_place) = (self.place(R, "steps"), self.place(R, "epochs"));
        let (mut steps_given, mut epochs_given) = (self.has(R, "steps"), self.has(R, "epochs"));
        let steps = self.count(R, "steps", 1, 1);
        let epochs = self.number(R, "epochs", 1.0, "a number above 0", |v| v > 0.0);
        if steps_given && epochs_given {
            // An override beats the file's other way of saying how long, so `--set run.steps=3` always works.
            match (&steps_place, &epochs_place) {
                (Place::Set(..), Place::Line(_)) => epochs_given = false,
                (Place::Line(_), Place::Set(..)) => steps_given = false,
                _ => self.problem(
                    steps_place.max(epochs_place),
                    R,
                    "epochs",
                    "steps and epochs both say how long to train: leave one out",
                ),
            }
        }
        let run = RunSection {
            steps: steps_given.then_some(steps),
            epochs: (epochs_given || !steps_given).then_some(epochs),
            batch_tokens,
            accumulation: self.size(R, "accumulation", 8, 1),
            seed: self.count(R, "seed", 42, 0),
            log_every: self.count(R, "log_every", 1, 1),
            save_every: self.count(R, "save_every", 100, 0),
            keep: self.size(R, "keep", 2, 1),
            eval_every: self.count(R, "eval_every", 0, 0),
            baseline: self.value(R, "baseline", None, |value| match value.as_str() {
                Some("" | "none") => Ok(None),
                _ => read_choice(value).map(Some),
            }),
            device: Some(self.string(R, "device", "auto")).filter(|d| !d.is_empty()).unwrap_or_else(|| "auto".into()),
            storage: self.choice(R, "storage", Storage::F32),
            recompute: self.choice(R, "recompute", Recompute::Auto),
        };
        (data, run)
    }

    /// Everything that nobody took is unknown; all problems become one error.
    fn finish(mut self) -> Result<()> {
        for ((section, key), entry) in std::mem::take(&mut self.entries) {
            let hint = suggestion(&section, &key);
            self.problem(entry.place, &section, &key, format!("unknown key{hint}"));
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by(|a, b| a.0.cmp(&b.0));
        let problems = self
            .problems
            .into_iter()
            .map(|(place, problem)| match place {
                Place::Line(line) => format!("{}:{line}: {problem}", self.file_name),
                Place::Missing if self.file_name.is_empty() => problem,
                Place::Missing => format!("{}: {problem}", self.file_name),
                Place::Set(_, key) => format!("--set {key}: {problem}"),
            })
            .collect();
        Err(Error::Config { problems })
    }
}

fn read_choice<T: Choice>(value: &Value) -> Result<T, String> {
    let names: Vec<&str> = T::ALL.iter().map(|(name, _)| *name).collect();
    match value.as_str() {
        Some(name) => T::from_name(name)
            .ok_or_else(|| format!("\"{name}\" is not one of {}{}", T::names(), did_you_mean(name, &names))),
        None => Err(format!("{value} is not one of {}", T::names())),
    }
}

/// The value of an override: TOML where it is TOML, else the text itself.
fn override_value(text: &str) -> Value {
    toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        // A date is a value in TOML and a folder's name here.
        .filter(|value| !value.is_datetime())
        .unwrap_or_else(|| Value::String(text.to_string()))
}

/// `; did you mean ...?` for a key: in its own section first, then anywhere.
fn suggestion(section: &str, key: &str) -> String {
    if let Some((_, alias)) = ALIASES.iter().find(|(name, _)| *name == key) {
        return format!("; did you mean {alias}?");
    }
    let own = KEYS.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, keys)| keys);
    if let Some(known) = nearest(key, own) {
        return format!("; did you mean {known}?");
    }
    for (other, keys) in KEYS {
        if let Some(known) = nearest(key, keys) {
            return format!("; did you mean {other}.{known}?");
        }
    }
    match own {
        [] => String::new(),
        keys => format!("; [{section}] has {}", keys.join(", ")),
    }
}

fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// The known name with the smallest edit distance, if it is near enough to be a slip: a third of the length, at least 1.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (edit_distance(&name, &candidate.replace('-', "_")), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

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
storage = "as-is"
recompute = "always"
"#;
        for text in [full, SMALL] {
            let config = parse(text).unwrap();
            let written = config.to_toml();
            let again = Config::parse(&written, "config.toml", &[]).unwrap_or_else(|e| panic!("{e}\n{written}"));
            assert_eq!(again, config, "{written}");
            assert_eq!(toml::from_str::<Config>(&written).unwrap(), config);
            assert_eq!(config.with(&[]).unwrap(), config);
        }
        assert_eq!(parse(full).unwrap().run.epochs, None);
        assert_eq!(parse(full).unwrap().baseline().unwrap(), Some(Objective::Sft));
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
storage = \"bf16\"
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
            "run.toml:16: [run] storage: \"bf16\" is not one of f32, f16, as-is",
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
        assert_eq!(config.adapter.targets, Targets::Names(vec!["q_proj".into(), "v_proj".into()]));
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
        let objective = |set: &[(&str, &str)]| with(SMALL, set).unwrap().objective;
        let exponent = objective(&[("objective.exponent", "0")]);
        assert_eq!((exponent.gate, exponent.exponent), (GateShape::Power, 0.0));
        let power = objective(&[("objective.gate", "power")]);
        assert_eq!((power.gate, power.exponent), (GateShape::Power, 2.0));
        let found = problems(with(SMALL, &[("objective.gate", "linear"), ("objective.exponent", "2")]));
        assert!(found[0].starts_with("--set objective.exponent: [objective] exponent: 2 is read by"), "{found:#?}");
    }

    #[test]
    fn an_objective_alone_is_read_from_overrides_and_refuses_other_sections() {
        let set = [("objective.top_k".to_string(), "5".to_string())];
        let section = ObjectiveSection::from_overrides("eaft", &set).unwrap();
        assert_eq!((section.method, section.top_k), (Method::Eaft, 5));
        let other = [("run.steps".to_string(), "5".to_string())];
        assert!(ObjectiveSection::from_overrides("eaft", &other).is_err());
        assert!(ObjectiveSection::from_overrides("eeft", &[]).unwrap_err().to_string().contains("did you mean eaft?"));
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
        assert!(matches!(inline.model.architecture, Some(Architecture::Inline(table)) if table.len() == 1));
    }
}
