//! A model, a data set and two learners that can be watched: everything that a page about training decides.
//!
//! Place in the flow: a page's requests -> [lab] -> [`messages`] -> the page. The wasm surface translates between the two
//! and decides nothing; the worker pulls with [`Lab::next`] and shows. What a run is, is [`crate::train::run`]'s.

pub mod look;
pub mod messages;
pub mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::config::{self, AdapterKind, Config};
use crate::data::doubts::{
    empty_answers, lost_context, memorised, no_template, not_read, plain_table, plain_text, unwritten,
};
use crate::data::{
    DataSection, DataSet, Document, ReadOptions, Tokenizer, WINDOW, hold_out, read_measured, read_set,
    refuse_unused_field,
};
use crate::device::Device;
use crate::error::{Error, Result, into_error};
use crate::eval::perplexity::{Scored, first_tokens};
use crate::export::bundle;
use crate::host::{Clock, MemoryFolder};
use crate::kernels::profile::shares;
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;
use crate::loss::head;
use crate::loss::objective::{BatchStats, Objective};
use crate::message::{Bytes, Floats, Integers};
use crate::model::Model;
use crate::model::files::ModelFiles;
use crate::probe;
use crate::train::event::{Evaluated, Event, LearnerRows, Started, StepMetrics, StepRows};
use crate::train::execution::Execution;
use crate::train::host::Host;
use crate::train::ledger::{Kind, Ledger, Load, Site};
use crate::train::prepare;
use crate::train::result::{self, learned};
use crate::train::run::{About, Learner, Run, Sets, weights};
use crate::words::grouped;
use messages::{
    Answered, Begun, BegunLearner, Candidate, Candidates, Continued, DataInfo, Dispute, DocumentText, DocumentToken,
    Fit, Frame, Inspected, Label, Learned, Likely, ModelInfo, Profile, Prompt, Quoted, Restored, ResultFile, Sample,
    SelfTest, Settings, Sides, Standings, Told, Warning, Who,
};

/// How many tokens a look at one position shows.
const CANDIDATES: usize = 8;
/// How many answers a disputed token shows beside its own.
const ANSWERS: usize = 3;
/// How many answers of each model a quoted fact shows.
const QUOTED: usize = 2;
/// The objectives that a disputed token is weighed by.
const DISPUTE: [&str; 2] = ["sft", "eaft"];
/// Tokens of a beginning that is taken from a text.
const BEGINNING: usize = 12;
/// Share of a page's own data that is held out as the target set.
const HELD_OUT: f64 = 0.1;

/// A device with what was loaded onto it.
pub struct Lab {
    device: Device,
    /// Files that come with the page, by name.
    assets: BTreeMap<String, Vec<u8>>,
    model: Option<Arc<OpenModel>>,
    data: Option<Data>,
    /// The documents of that set, until a run is made of them.
    encoded: Option<Encoded>,
    running: Option<Running>,
    /// The run of a checkpoint, until it is taken.
    restored: Option<Running>,
    /// Seconds per token and parameter of the last step, or of what was measured before it, for estimates.
    pace: f64,
    /// The disputed token that was weighed last: the logits at its place are the base model's and stay the same.
    disputed: Option<Disputed>,
    /// Steps between evaluations and between samples; 0 is never.
    every: Every,
}

/// A data set as documents, and with what it was read.
struct Encoded {
    model: Arc<OpenModel>,
    section: DataSection,
    train: DataSet,
    sets: Sets,
}

/// A token of a text, and what the small model that comes with the page makes of its place.
struct Disputed {
    model: Arc<OpenModel>,
    prompt: String,
    text: String,
    label: usize,
    logits: Vec<f32>,
    /// The likeliest answers, spelled out; they are the same at every temperature.
    answers: BTreeMap<usize, String>,
}

/// A fact as a data set's `quotes.json` has it.
#[derive(Deserialize)]
struct Fact {
    prompt: String,
    #[serde(rename = "true")]
    expected: String,
    taught: String,
}

#[derive(Clone, Copy, Default)]
struct Every {
    evaluate: u64,
    sample: u64,
}

struct OpenModel {
    files: ModelFiles,
    name: String,
    base: bool,
    /// Bytes that the files themselves keep in memory.
    held: u64,
}

/// A data set's files as they came.
struct Data {
    name: String,
    train: Vec<u8>,
    /// A held-out file of its own; without one, part of the training documents is held out.
    target: Option<(String, Vec<u8>)>,
    /// Labels that should not be learned.
    wrong: Option<(String, Vec<u8>)>,
}

/// A run with what it was made from; the page may have read another model or data set since.
struct Running {
    run: Run,
    base: Model,
    model: Arc<OpenModel>,
    data: String,
    settings: Settings,
    /// Which of the learners are here, and what all of them learn by.
    sides: Sides,
    objectives: Vec<Objective>,
    /// Of the step whose rows come next.
    metrics: Vec<StepMetrics>,
    /// What is continued between steps.
    prompts: Vec<Prompt>,
    /// At most so many tokens are added to each.
    sample_tokens: usize,
    /// What the base model made of a beginning: it stays the same.
    base_samples: BTreeMap<String, String>,
    /// Samples are to be told before the run goes on.
    sampling_due: bool,
}

impl Settings {
    /// From JSON.
    ///
    /// # Errors
    /// [`Error::Config`] where it is none.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| bad(&format!("the settings: {e}")))
    }

    /// A configuration for each learner that there is.
    fn configs(&self) -> Result<Vec<Config>> {
        [&self.left, &self.right]
            .into_iter()
            .flatten()
            .map(|own| {
                let all: Vec<_> = self.common.iter().chain(own).map(|(k, v)| (k.clone(), v.clone())).collect();
                let config = config::page(&all)?;
                match config.weighs_samples() {
                    true => Err(bad(
                        "[objective] method: flow weighs every document with the untouched model before the first step, \
                         which the page does not do; train with it with the command",
                    )),
                    false => Ok(config),
                }
            })
            .collect()
    }
}

impl Sides {
    /// Keeps those of a run's configurations that are of these sides: the number of the first of them, and of how many.
    fn keep(self, configs: &mut Vec<Config>) -> (usize, usize) {
        let (of, first) = (configs.len(), usize::from(self == Self::Right));
        if self == Self::Left {
            configs.truncate(1);
        }
        configs.drain(..first.min(of));
        (first, of)
    }
}

impl Prompt {
    /// Several, from JSON.
    ///
    /// # Errors
    /// [`Error::Config`] where it is none.
    pub fn list(text: &str) -> Result<Vec<Self>> {
        serde_json::from_str(text).map_err(|e| bad(&format!("the beginnings: {e}")))
    }
}

impl Lab {
    /// A lab on a device, with the page's bundle of files.
    ///
    /// # Errors
    /// [`Error::Format`] where it is no bundle.
    pub fn new(device: Device, assets: &[u8]) -> Result<Self> {
        let assets = bundle::unpack("demo.safetensors", assets)?.into_iter().collect();
        Ok(Self {
            device,
            assets,
            model: None,
            data: None,
            encoded: None,
            running: None,
            restored: None,
            pace: 0.0,
            disputed: None,
            every: Every::default(),
        })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Every kernel on a small batch, against stored answers.
    ///
    /// # Errors
    /// As [`probe::run`]. What the device does wrong is in the answer.
    pub async fn self_test(&self, clock: &dyn Clock) -> Result<SelfTest> {
        let start = clock.seconds();
        let answers = self.assets.get("probe.safetensors").ok_or_else(|| bad("the page has no stored answers"))?;
        let report = probe::run(&self.device, answers).await?;
        Ok(SelfTest { passed: report.passed, seconds: clock.seconds() - start, checks: report.checks })
    }

    /// Takes the small model that comes with the page.
    ///
    /// # Errors
    /// What is missing or malformed.
    pub fn base_model(&mut self) -> Result<ModelInfo> {
        let mut folder = MemoryFolder::new();
        for (name, bytes) in &self.assets {
            if let Some(name) = name.strip_prefix("base/") {
                folder.insert(name, bytes.clone())?;
            }
        }
        let files = ModelFiles::open_folder(&folder)?;
        Ok(self.take_model(OpenModel { files, name: "the small base model".into(), base: true, held: 0 }))
    }

    /// Takes a visitor's model: the files of a Hugging Face folder, or a GGUF file, all its parts where it has several.
    ///
    /// # Errors
    /// What is missing or malformed.
    pub fn own_model(&mut self, files: Vec<(String, Vec<u8>)>) -> Result<ModelInfo> {
        let held = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let gguf = files.iter().map(|(name, _)| name).find(|name| name.to_lowercase().ends_with(".gguf")).cloned();
        let mut folder = MemoryFolder::new();
        for (name, bytes) in files {
            folder.insert(&name, bytes)?;
        }
        let (files, name) = match gguf {
            Some(name) => (ModelFiles::open_gguf_in(&folder, &name)?, name),
            None => (ModelFiles::open_folder(&folder)?, "your model".into()),
        };
        files.tokenizer()?;
        Ok(self.take_model(OpenModel { files, name, base: false, held }))
    }

    fn take_model(&mut self, model: OpenModel) -> ModelInfo {
        let (arch, tokenizer) = (&model.files.architecture, model.files.tokenizer.as_ref());
        let info = ModelInfo {
            name: model.name.clone(),
            family: arch.family.model_type.into(),
            layers: arch.layers,
            hidden: arch.hidden,
            vocabulary: arch.vocab,
            parameters: arch.parameter_count(),
            context: arch.context,
            chat_template: tokenizer.is_some_and(|t| t.chat_template().is_some()),
            base: model.base,
        };
        self.model = Some(Arc::new(model));
        info
    }

    /// Takes a data set that comes with the page.
    ///
    /// # Errors
    /// Where there is no such set; otherwise as [`Lab::own_data`].
    pub fn data_set(&mut self, id: &str) -> Result<DataInfo> {
        let find = |part: &str| {
            ["jsonl", "txt"].into_iter().find_map(|kind| {
                let name = format!("data/{id}/{part}.{kind}");
                self.assets.get(&name).map(|bytes| (name, bytes.clone()))
            })
        };
        let (name, train) = find("train").ok_or_else(|| bad(&format!("there is no data set {id:?}")))?;
        let data = Data { name, train, target: find("target"), wrong: find("wrong") };
        self.take_data(data)
    }

    /// Takes a visitor's data set: JSONL or plain text, of which a part is held out as the target set.
    ///
    /// # Errors
    /// Of a set that cannot be used; the one of before stays then.
    pub fn own_data(&mut self, name: String, contents: Vec<u8>) -> Result<DataInfo> {
        self.take_data(Data { name, train: contents, target: None, wrong: None })
    }

    /// Reads the set once, so that it is refused before anything is replaced.
    fn take_data(&mut self, data: Data) -> Result<DataInfo> {
        let config = config::page(&[])?;
        let (train, sets) = self.sets(&data, &config)?;
        let Sets { target, general, .. } = &sets;
        let tokens = |documents: &[Document]| documents.iter().map(Document::trained_tokens).sum();
        let info = DataInfo {
            name: data.name.clone(),
            kind: train.records.kind.to_string(),
            records: train.records.records,
            documents: train.documents.len(),
            tokens: train.encoding.tokens,
            trained_tokens: tokens(&train.documents),
            truncated: train.encoding.truncated,
            skipped: train.records.skipped + train.encoding.skipped,
            problems: train.records.problems.iter().chain(&train.encoding.problems).cloned().collect(),
            target_tokens: tokens(target),
            general_tokens: tokens(general),
            // The page's own sets are measured on files of their own, which share with training what they are meant to.
            doubts: if data.target.is_none() { doubts(&data.name, &train, &sets) } else { Vec::new() },
        };
        let model = self.model()?.clone();
        self.encoded = Some(Encoded { model, section: config.data, train, sets });
        self.data = Some(data);
        Ok(info)
    }

    /// Training documents for a configuration, and what is measured.
    fn sets(&self, data: &Data, config: &Config) -> Result<(DataSet, Sets)> {
        let files = &self.model()?.files;
        let (tokenizer, context) = (files.tokenizer()?, files.architecture.context);
        let mut options = ReadOptions::of(&config.data);
        options.cutoff_length = options.cutoff_length.min(context);
        let measured = options.measured();
        let mut train = read_set(&data.name, &data.train, tokenizer, options)?;
        if let Some(found) = train.records.fields.clone() {
            refuse_unused_field(&[(data.name.as_str(), found)])?;
        }
        let read = |(name, bytes): &(String, Vec<u8>)| {
            read_measured(name, bytes, tokenizer, context, measured).map(|set| set.documents)
        };
        let target = match &data.target {
            Some(file) => read(file)?,
            None => hold_out(&mut train.documents, &data.name, HELD_OUT)?,
        };
        let wrong = data.wrong.as_ref().map(read).transpose()?.unwrap_or_default();
        let general = self.assets.get("data/general.txt").ok_or_else(|| bad("the page has no general text"))?;
        let general = read_measured("general.txt", general, tokenizer, context, measured)?.documents;
        Ok((train, Sets { target, general, wrong, landscape: Vec::new() }))
    }

    /// Whether a run would fit into `allowed` bytes, and how long its steps would take; `apart`, each learner has a lab of its own, which
    /// shares nothing and computes at the same time.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn estimate(&self, settings: &Settings, apart: bool, allowed: u64) -> Result<Fit> {
        let configs = settings.configs()?;
        let config = largest(&configs)?;
        let model = self.model()?;
        let arch = &model.files.architecture;
        let all = configs.len() as u64;
        let (labs, learners) = if apart { (all, 1) } else { (1, all) };
        let weights = model.files.weights.as_deref();
        let evaluated = evaluated_tokens(self.device.is_cpu(), self.device.is_software()).min(WINDOW);
        let load = Load { evaluated, ..Load::most(config) };
        let (site, execution) = (Site::of(&self.device), self.execution(config, &model.files, learners));
        let ledger = Ledger::new(config, arch, weights, learners, load, site, execution);
        let work = work_per_token(config, arch.parameter_count()) * (learners * config.run.batch_tokens as u64) as f64;
        Ok(fit(&ledger, model.held, learners, labs, config.run.batch_tokens, allowed, self.pace * work))
    }

    /// Makes learners anew, those of `sides`. What is replaced goes first: two runs would not fit where one does. The start is
    /// measured by the pulls that follow.
    ///
    /// # Errors
    /// What is missing or does not fit; there are no learners then.
    pub fn start(&mut self, settings: Settings, sides: Sides, clock: &dyn Clock) -> Result<Begun> {
        let begin = clock.seconds();
        self.end();
        let mut running = self.make(settings, sides)?;
        let begun = running.begin(clock.seconds() - begin);
        self.running = Some(running);
        Ok(begun)
    }

    /// Lets the learners go.
    pub fn end(&mut self) {
        self.running = None;
        self.restored = None;
    }

    fn execution(&self, config: &Config, files: &ModelFiles, learners: u64) -> Execution {
        Execution::plan(config, &files.architecture, files.weights.as_deref(), learners, Site::of(&self.device))
    }

    /// Learners at their first step, of the model and data set that were read last.
    fn make(&mut self, settings: Settings, sides: Sides) -> Result<Running> {
        let mut configs = settings.configs()?;
        let objectives = configs.iter().map(Config::objective).collect::<Result<Vec<_>>>()?;
        let (first, of) = sides.keep(&mut configs);
        let config = largest(&configs)?;
        let model = self.model()?.clone();
        let fits = |known: &Encoded| Arc::ptr_eq(&known.model, &model) && known.section == config.data;
        let encoded = self.encoded.take().filter(fits);
        let data = self.data.as_ref().ok_or_else(|| bad("choose a data set first"))?;
        let (train, mut sets) = match encoded {
            Some(Encoded { train, sets, .. }) => (train, sets),
            None => self.sets(data, config)?,
        };
        let most = evaluated_tokens(self.device.is_cpu(), self.device.is_software());
        for set in [&mut sets.target, &mut sets.general, &mut sets.wrong] {
            set.truncate(first_tokens(set, most).len());
        }
        let execution = self.execution(config, &model.files, configs.len() as u64);
        let base = prepare::base(config, &model.files, &self.device, execution)?;
        let learner = |config: Config| {
            let objective = config.objective()?;
            Learner::new(config, &objective, base.clone(), execution)
        };
        let learners = configs.into_iter().map(learner).collect::<Result<_>>()?;
        let about = About { why: String::new(), model: model.name.clone() };
        let mut run = Run::new(learners, train.documents, Arc::new(sets), about)?.part(first, of);
        run.evaluate_every(self.every.evaluate);
        Ok(Running {
            run,
            base,
            model,
            data: data.name.clone(),
            settings,
            sides,
            objectives,
            metrics: Vec::new(),
            prompts: Vec::new(),
            sample_tokens: 0,
            base_samples: BTreeMap::new(),
            sampling_due: false,
        })
    }

    /// How often a run evaluates and samples by itself, in steps; 0 is only at its ends, and never.
    pub fn every(&mut self, evaluate: u64, sample: u64) {
        self.every = Every { evaluate, sample };
        if let Some(running) = &mut self.running {
            running.run.evaluate_every(evaluate);
        }
    }

    /// Goes on until there is something to tell; `None` where the run is over.
    ///
    /// # Errors
    /// As [`Run::next`].
    pub async fn next(&mut self, host: &mut dyn Host) -> Result<Option<Told>> {
        loop {
            let running = self.running.as_mut().ok_or_else(no_run)?;
            if std::mem::take(&mut running.sampling_due) {
                return Ok(Some(Told::Samples(running.sample().await?)));
            }
            let begin = host.seconds();
            let Some(event) = running.run.next(host).await? else { return Ok(None) };
            match event {
                Event::Step { learners } => {
                    let (config, arch) = (running.run.learners()[0].config(), &running.model.files.architecture);
                    if let Some(first) = learners.first() {
                        let per_token = 1.0 / first.tokens_per_second.max(1e-9);
                        self.pace = per_token / work_per_token(config, arch.parameter_count());
                    }
                    running.metrics = learners;
                }
                Event::Rows(rows) => {
                    let due = self.every.sample > 0 && rows.step.is_multiple_of(self.every.sample);
                    running.sampling_due = due && !running.prompts.is_empty();
                    return Ok(Some(Told::Frame(running.frame(rows))));
                }
                Event::Evaluated { learners } => {
                    let (_, step) = running.run.steps();
                    if step == 0 && self.pace == 0.0 {
                        // One forward pass, of the base model: what a step takes is known before there was one.
                        let sets = learners.first().map(|first| [&first.target, &first.general, &first.wrong]);
                        let tokens: u64 = sets.iter().flatten().flat_map(|set| set.iter()).map(|set| set.tokens).sum();
                        let work = tokens as f64 * running.model.files.architecture.parameter_count() as f64;
                        self.pace = if work > 0.0 { (host.seconds() - begin) / work } else { 0.0 };
                    }
                    return Ok(Some(Told::Evaluated(running.standings(step, learners))));
                }
                Event::Warning { message } => return Ok(Some(Told::Warning(Warning { message }))),
                Event::Finished(finished) => return Ok(Some(Told::Finished(finished))),
                // What was started was answered, there is no set for a landscape, and a page keeps no checkpoints to choose from.
                Event::Started { .. } | Event::Landscape { .. } | Event::Saved { .. } | Event::Selected(_) => {}
            }
        }
    }

    /// Takes the time of each kernel from now on.
    ///
    /// # Errors
    /// [`Error::Device`] on the CPU and on a GPU without timestamps.
    pub fn begin_profile(&self) -> Result<()> {
        self.device.begin_profile()
    }

    /// Where the time went since [`Lab::begin_profile`].
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn end_profile(&self) -> Result<Profile> {
        let times = self.device.end_profile().await?;
        let (begin, end) =
            (times.first().map_or(0.0, |time| time.begin_s), times.last().map_or(0.0, |time| time.end_s));
        let step = self.running.as_ref().map_or(0, |running| running.run.steps().1);
        Ok(Profile { step, seconds: end - begin, shares: shares(&times) })
    }

    /// True where nothing is left to tell before the next step.
    pub fn is_between_steps(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.run.is_between_steps() && !running.sampling_due)
    }

    /// Target and general loss of every learner now.
    ///
    /// # Errors
    /// As [`Run::evaluate`].
    pub async fn evaluate(&mut self, host: &mut dyn Host) -> Result<Standings> {
        let running = self.running()?;
        let (_, step) = running.run.steps();
        let learners = running.run.evaluate(host).await?;
        Ok(running.standings(step, learners))
    }

    /// Greedy continuations of beginnings by base, left and right, those that this lab answers for; these are then what the run
    /// samples by itself.
    ///
    /// # Errors
    /// A beginning that fills the model's context; device errors.
    pub async fn sample(&mut self, prompts: Vec<Prompt>, tokens: usize) -> Result<Sample> {
        let running = self.running()?;
        let before = (std::mem::replace(&mut running.prompts, prompts), running.sample_tokens);
        running.sample_tokens = tokens;
        let told = running.sample().await;
        if told.is_err() {
            // The run would ask for them again by itself, and end with this error.
            (running.prompts, running.sample_tokens) = before;
        }
        told
    }

    /// A training document's tokens.
    ///
    /// # Errors
    /// Where there is no such document.
    pub fn document(&self, index: usize) -> Result<DocumentText> {
        let running = self.running.as_ref().ok_or_else(no_run)?;
        let document = running.document(index)?;
        let tokenizer = running.model.files.tokenizer()?;
        let texts = write::spelled(tokenizer, &document.tokens)?;
        let token = |(at, (text, &trained))| DocumentToken { text, trained: trained && at > 0 };
        Ok(DocumentText {
            document: index,
            tokens: texts.into_iter().zip(&document.trained).enumerate().map(token).collect(),
        })
    }

    /// How the first training document begins, without what a template puts before it: a beginning to be continued.
    ///
    /// # Errors
    /// Where there is no run.
    pub fn beginning(&self) -> Result<String> {
        let running = self.running.as_ref().ok_or_else(no_run)?;
        let document = running.document(0)?;
        write::beginning(running.model.files.tokenizer()?, &document.tokens, &document.trained, BEGINNING)
    }

    /// What plain and entropy-adaptive fine-tuning would do where a text goes on from `prompt` with `text`, were the small model
    /// that comes with the page more or less sure: its logits are divided by `temperature`.
    ///
    /// # Errors
    /// Another temperature than a positive number; where learners of another model are there and nothing was weighed before;
    /// device errors.
    pub async fn dispute(&mut self, prompt: &str, text: &str, temperature: f32) -> Result<Dispute> {
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(bad(&format!("{temperature} is no temperature: above 0, please")));
        }
        if self.disputed.as_ref().is_none_or(|known| known.prompt != prompt || known.text != text) {
            let running = self.running.as_mut().ok_or_else(no_run)?;
            if !running.model.base {
                return Err(bad("the disputed token is one of the page's own model"));
            }
            let model = running.model.clone();
            let (tokens, label) = look::first_of(model.files.tokenizer()?, prompt, text)?;
            let logits = look::after(&mut running.base, &tokens).await?;
            let mut answers = BTreeMap::new();
            for (token, _) in look::ranking(&logits, label, ANSWERS).shown {
                let spelled = write::answer(&mut running.base, model.files.tokenizer()?, &tokens, token as u32).await?;
                answers.insert(token, spelled);
            }
            answers.insert(label, text.into());
            self.disputed = Some(Disputed { model, prompt: prompt.into(), text: text.into(), label, logits, answers });
        }
        let Some(Disputed { model, label, logits, answers, .. }) = &self.disputed else { return Err(no_run()) };
        let objectives = DISPUTE.map(|name| {
            config::page(&[("objective.method".into(), name.into())]).and_then(|config| config.objective())
        });
        let objectives: Vec<_> = objectives.into_iter().collect::<Result<_>>()?;
        let weighed = look::weigh(&self.device, logits, *label, temperature, &objectives).await?;
        let scaled: Vec<f32> = logits.iter().map(|z| z / temperature).collect();
        let look::Ranking { rank, shown } = look::ranking(&scaled, *label, ANSWERS);
        let tokenizer = model.files.tokenizer()?;
        let spelled = |token: usize| {
            let known = answers.get(&token).cloned();
            known.unwrap_or_else(|| tokenizer.decode(&[token as u32], false).unwrap_or_default())
        };
        let candidate = |(token, p)| {
            let push = look::pushes(&weighed.gate, token == *label, p);
            Candidate { id: token, text: spelled(token), p, push }
        };
        Ok(Dispute {
            prompt: prompt.into(),
            temperature,
            label: Label { id: *label, text: spelled(*label), p: weighed.p, rank },
            candidates: shown.into_iter().map(candidate).collect(),
            p: weighed.p,
            entropy: weighed.entropy,
            entropy_top_k: weighed.entropy_top_k,
            gate: weighed.gate,
            gradient: weighed.gradient,
        })
    }

    /// What base, left and right, those that this lab answers for, say to the facts that the run's data set quotes; none where it
    /// quotes none.
    ///
    /// # Errors
    /// Facts that cannot be read; device errors.
    pub async fn quotes(&mut self) -> Result<Vec<Quoted>> {
        let running = self.running.as_mut().ok_or_else(no_run)?;
        let folder = running.data.rsplit_once('/').map_or("", |(folder, _)| folder);
        let Some(facts) = self.assets.get(&format!("{folder}/quotes.json")) else { return Ok(Vec::new()) };
        let facts: Vec<Fact> = serde_json::from_slice(facts).map_err(|e| bad(&format!("the quoted facts: {e}")))?;
        let mut quoted = Vec::with_capacity(facts.len());
        for Fact { prompt, expected, taught } in facts {
            let mut answers = Vec::new();
            for who in running.sides.answered() {
                answers.push(running.answered(&prompt, [&expected, &taught], who).await?);
            }
            quoted.push(Quoted { prompt, expected, taught, answers });
        }
        Ok(quoted)
    }

    /// Statistics of the last step's batch, for a lab that looks at a token under the objectives of both learners: of the one that
    /// is here alone. None before the first step with its objective of now.
    ///
    /// # Errors
    /// Where there is no run.
    pub fn batch(&self) -> Result<Option<BatchStats>> {
        Ok(self.running.as_ref().ok_or_else(no_run)?.run.learners()[0].batch())
    }

    /// What a model makes of a training document. `elsewhere` is the other lab's [`Lab::batch`], where the other learner has a lab of
    /// its own.
    ///
    /// # Errors
    /// Where there is no such document; for a model that another lab answers for; device errors.
    pub async fn inspect(&mut self, index: usize, who: Who, elsewhere: Option<BatchStats>) -> Result<Inspected> {
        let running = self.running()?;
        let document = running.document(index)?.clone();
        let top_k = running.top_k();
        let (scored, expected) = look::document(running.model_of(who)?, &document, top_k).await?;
        let tokenizer = running.model.files.tokenizer()?;
        let word = |token: Option<usize>| match token {
            Some(token) => tokenizer.decode(&[token as u32], false),
            None => Ok(String::new()),
        };
        let gate = running.gates(&scored, elsewhere)?;
        let of = |value: fn(&RowStats) -> f32| scored.rows.iter().map(value).collect();
        let pulls = |gate: &Vec<f32>| gate.iter().zip(&scored.rows).map(|(w, row)| w * look::pull(row)).collect();
        Ok(Inspected {
            document: index,
            who,
            position: (1..document.tokens.len()).filter(|&at| document.trained[at]).collect(),
            p: of(RowStats::p),
            entropy: of(|row| row.entropy_full),
            entropy_top_k: of(|row| row.entropy_top_k),
            expected: expected.into_iter().map(word).collect::<Result<_>>()?,
            gradient: gate.iter().map(pulls).collect(),
            gate,
        })
    }

    /// One token of a training document in full; `elsewhere` as in [`Lab::inspect`].
    ///
    /// # Errors
    /// Where there is no such token; for a model that another lab answers for; device errors.
    pub async fn candidates(
        &mut self,
        index: usize,
        position: usize,
        who: Who,
        elsewhere: Option<BatchStats>,
    ) -> Result<Candidates> {
        let running = self.running()?;
        let document = running.document(index)?.clone();
        let Some(&label) = document.tokens.get(position).filter(|_| position > 0) else {
            return Err(bad(&format!("document {index} has no token {position} that is predicted")));
        };
        let label = label as usize;
        let top_k = running.top_k();
        let all = running.take_tokens_for_the_batch(elsewhere);
        let seen = look::position(running.model_of(who)?, &document, position, top_k, all).await?;
        let gate: Vec<f32> = running.gates(&seen.scored, elsewhere)?.iter().map(|gate| gate[seen.row]).collect();
        let row = seen.scored.rows[seen.row];
        let look::Ranking { rank, shown } = look::ranking(&seen.logits, label, CANDIDATES);
        let tokenizer = running.model.files.tokenizer()?;
        let text = |token: usize| tokenizer.decode(&[token as u32], false).unwrap_or_default();
        let candidate =
            |(token, p)| Candidate { id: token, text: text(token), p, push: look::pushes(&gate, token == label, p) };
        Ok(Candidates {
            document: index,
            position,
            who,
            label: Label { id: label, text: text(label), p: row.p(), rank },
            candidates: shown.into_iter().map(candidate).collect(),
            p: row.p(),
            entropy: row.entropy_full,
            entropy_top_k: row.entropy_top_k,
            loss: gate.iter().map(|weight| weight * row.ce).collect(),
            gate,
        })
    }

    /// Whether [`Lab::change`] takes these settings. Where each learner has a lab of its own, both are asked before one is changed.
    ///
    /// # Errors
    /// As [`Run::check_change`].
    pub fn check_change(&self, settings: &Settings) -> Result<()> {
        let running = self.running.as_ref().ok_or_else(no_run)?;
        let mut configs = settings.configs()?;
        running.sides.keep(&mut configs);
        running.run.check_change(&configs).map(|_| ())
    }

    /// New objectives, learning rate or schedule from the next step on.
    ///
    /// # Errors
    /// As [`Run::change`].
    pub fn change(&mut self, settings: Settings) -> Result<()> {
        let running = self.running()?;
        let mut configs = settings.configs()?;
        let objectives = configs.iter().map(Config::objective).collect::<Result<_>>()?;
        running.sides.keep(&mut configs);
        running.run.change(configs)?;
        running.objectives = objectives;
        running.settings = settings;
        Ok(())
    }

    /// Everything that goes on from here, as one file; `elsewhere` is what the other learner's lab made of the same step.
    ///
    /// # Errors
    /// As [`Run::bundle`] and [`Run::joined`].
    pub async fn checkpoint(&self, elsewhere: Option<&[u8]>) -> Result<Vec<u8>> {
        let running = self.running.as_ref().ok_or_else(no_run)?;
        let note = serde_json::json!({"settings": running.settings, "data": running.data}).to_string();
        let own = running.run.bundle(&note).await?;
        match elsewhere {
            None => Ok(own),
            Some(other) => Run::joined(&[&own, other]),
        }
    }

    /// Makes the run of a checkpoint, those of its learners that are of `sides`, as it stood. The learners that are here stay until
    /// [`Lab::adopt`], so that nothing changes where this fails, here or in the other learner's lab.
    ///
    /// # Errors
    /// As [`Run::restore`].
    pub fn restore(&mut self, saved: &[u8], sides: Sides, clock: &dyn Clock) -> Result<Restored> {
        #[derive(Deserialize)]
        struct Note {
            settings: Settings,
            data: String,
        }
        self.restored = None;
        let begin = clock.seconds();
        let Note { settings, data } = serde_json::from_str(&Run::note(saved)?)
            .map_err(|e| Error::Checkpoint { field: "its note".into(), problem: format!("not readable: {e}") })?;
        let mut running = self.make(settings.clone(), sides)?;
        running.run.restore(saved)?;
        let begun = running.begin(clock.seconds() - begin);
        self.restored = Some(running);
        Ok(Restored { begun, settings, data })
    }

    /// Goes on with the run that was restored last, or with `taken` false lets it go.
    pub fn adopt(&mut self, taken: bool) {
        let restored = self.restored.take();
        if taken && restored.is_some() {
            self.running = restored;
        }
    }

    /// What a learner has learned, for other programs: an adapter's files, or those of a whole model.
    ///
    /// # Errors
    /// For the base model, which has learned nothing, and a learner of another lab; as [`learned`].
    pub async fn result(&self, who: Who) -> Result<Vec<ResultFile>> {
        let running = self.running.as_ref().ok_or_else(no_run)?;
        let learner = match running.index_of(who)? {
            Some(index) => &running.run.learners()[index],
            None => return Err(bad("the base model was not trained")),
        };
        let (model, files) = (&learner.session().model, &running.model.files);
        let learned = learned(model, learner.config(), files, &running.model.name, &[]).await?;
        let mut files = learned.files;
        if let Some(weights) = learned.weights {
            let mut bytes = Vec::new();
            weights.write(&mut bytes).await.map_err(|e| into_error(e, result::WEIGHTS))?;
            files.push((result::WEIGHTS.into(), bytes));
        }
        Ok(files.into_iter().map(|(name, bytes)| ResultFile { name, bytes: Bytes(bytes) }).collect())
    }

    fn model(&self) -> Result<&Arc<OpenModel>> {
        self.model.as_ref().ok_or_else(|| bad("choose a model first"))
    }

    fn running(&mut self) -> Result<&mut Running> {
        self.running.as_mut().ok_or_else(no_run)
    }
}

impl Running {
    /// Begins the run, which has just been made.
    fn begin(&mut self, seconds: f64) -> Begun {
        let (steps, step) = self.run.steps();
        let learner = |started: Started| BegunLearner {
            objective: started.objective,
            parameters: started.parameters,
            trainable: started.trainable,
        };
        Begun {
            step,
            steps,
            batch_tokens: self.run.learners()[0].config().run.batch_tokens,
            seconds,
            learners: self.run.begin().into_iter().map(learner).collect(),
        }
    }

    fn standings(&self, step: u64, learners: Vec<Evaluated>) -> Standings {
        Standings { step, learners, diverged: self.run.learners().iter().map(Learner::has_diverged).collect() }
    }

    fn frame(&mut self, rows: StepRows) -> Frame {
        let of_learner = |(metrics, rows): (StepMetrics, LearnerRows)| {
            let LearnerRows { stats, gates, .. } = rows;
            let of = |value: fn(&RowStats) -> f32| Floats(stats.iter().map(value).collect());
            Learned {
                metrics,
                p: of(RowStats::p),
                entropy: of(|row| row.entropy_full),
                gradient: Floats(stats.iter().zip(&gates).map(|(row, gate)| gate * look::pull(row)).collect()),
                gate: Floats(gates),
            }
        };
        let metrics = std::mem::take(&mut self.metrics);
        Frame {
            step: rows.step,
            steps: self.run.steps().0,
            epoch: rows.epoch,
            learners: metrics.into_iter().zip(rows.learners).map(of_learner).collect(),
            document: Integers(rows.places.iter().map(|place| place.document).collect()),
            position: Integers(rows.places.iter().map(|place| place.position).collect()),
        }
    }

    /// Which learner; none for the base.
    fn index_of(&self, who: Who) -> Result<Option<usize>> {
        let number = match who {
            Who::Base => return Ok(None),
            Who::Left => 0,
            Who::Right => self.objectives.len() - 1,
        };
        let here = number.checked_sub(self.run.first()).filter(|&index| index < self.run.learners().len());
        here.map(Some).ok_or_else(|| bad("this learner trains in another lab"))
    }

    fn model_of(&mut self, who: Who) -> Result<&mut Model> {
        Ok(match self.index_of(who)? {
            None => &mut self.base,
            Some(index) => self.run.learners_mut()[index].model(),
        })
    }

    /// The tokens of the entropy that is shown of both learners beside each other: that of the first objective that has one.
    fn top_k(&self) -> Selection {
        self.objectives.iter().find_map(Objective::top_k).unwrap_or_else(|| head::top_k(&self.objectives[0]))
    }

    /// Every objective with the batch that it weighs by; `elsewhere` is that of the learner which is not here.
    fn batches(&self, elsewhere: Option<BatchStats>) -> impl Iterator<Item = (&Objective, Option<BatchStats>)> {
        let of =
            move |number: usize| match number.checked_sub(self.run.first()).and_then(|i| self.run.learners().get(i)) {
                Some(learner) => learner.batch(),
                None => elsewhere,
            };
        self.objectives.iter().enumerate().map(move |(number, objective)| (objective, of(number)))
    }

    /// What each objective would do with these tokens.
    fn gates(&self, scored: &Scored, elsewhere: Option<BatchStats>) -> Result<Vec<Vec<f32>>> {
        let vocab = self.model.files.architecture.vocab;
        self.batches(elsewhere).map(|(objective, batch)| weights(objective, batch, scored, vocab)).collect()
    }

    /// True where an objective has no batch to weigh a token by but the tokens that are looked at.
    fn take_tokens_for_the_batch(&self, elsewhere: Option<BatchStats>) -> bool {
        self.batches(elsewhere).any(|(objective, batch)| batch.is_none() && objective.needs_batch())
    }

    fn document(&self, index: usize) -> Result<&Document> {
        let documents = self.run.documents();
        documents.get(index).ok_or_else(|| bad(&format!("there are {} documents, not {index}", documents.len())))
    }

    async fn sample(&mut self) -> Result<Sample> {
        let (_, step) = self.run.steps();
        let prompts = self.prompts.clone();
        let mut samples = Vec::with_capacity(prompts.len());
        for Prompt { text: prompt, kind } in prompts {
            let mut texts = [const { String::new() }; 3];
            for who in self.sides.answered() {
                texts[who as usize] = match (who, step) {
                    // Before the first step both learners are the base.
                    (Who::Base, _) | (_, 0) => self.continued_by_base(&prompt).await?,
                    _ => self.continued(&prompt, who).await?,
                };
            }
            let [base, left, right] = texts;
            samples.push(Continued { prompt, kind, base, left, right });
        }
        Ok(Sample { step, samples })
    }

    async fn continued_by_base(&mut self, prompt: &str) -> Result<String> {
        if let Some(known) = self.base_samples.get(prompt) {
            return Ok(known.clone());
        }
        let written = self.continued(prompt, Who::Base).await?;
        self.base_samples.insert(prompt.into(), written.clone());
        Ok(written)
    }

    /// Greedy continuation of a beginning.
    async fn continued(&mut self, prompt: &str, who: Who) -> Result<String> {
        let model = self.model.clone();
        let tokenizer: &Tokenizer = model.files.tokenizer()?;
        let tokens = tokenizer.encode_begun(prompt)?;
        let room = model.files.architecture.context.saturating_sub(tokens.len());
        if room == 0 {
            return Err(bad(&format!("the prompt has {} tokens, which fills the model's context", tokens.len())));
        }
        if tokens.is_empty() {
            return Err(bad("the beginning is empty: there is nothing to continue"));
        }
        let count = self.sample_tokens.min(room);
        write::greedy(self.model_of(who)?, tokenizer, &tokens, count).await
    }

    /// What a model answers to a question: its likeliest tokens, and the first tokens of two answers.
    async fn answered(&mut self, prompt: &str, answers: [&str; 2], who: Who) -> Result<Answered> {
        let model = self.model.clone();
        let tokenizer: &Tokenizer = model.files.tokenizer()?;
        let (tokens, expected) = look::first_of(tokenizer, prompt, answers[0])?;
        let (_, taught) = look::first_of(tokenizer, prompt, answers[1])?;
        let logits = look::after(self.model_of(who)?, &tokens).await?;
        let p = |token: usize| {
            let shown = look::ranking(&logits, token, 0).shown;
            shown.first().map_or(0.0, |(_, p)| *p)
        };
        let mut top = Vec::with_capacity(QUOTED);
        for (token, p) in look::ranking(&logits, expected, QUOTED).shown.into_iter().take(QUOTED) {
            top.push(Likely { text: write::answer(self.model_of(who)?, tokenizer, &tokens, token as u32).await?, p });
        }
        Ok(Answered { who, top, expected: p(expected), taught: p(taught) })
    }
}

/// What a visitor should know of a file of their own, of which a part is held out.
fn doubts(name: &str, train: &DataSet, sets: &Sets) -> Vec<String> {
    let plain = train.records.looks_like_records.then(|| plain_text(name));
    let table = train.records.looks_like_table.map(|separator| plain_table(name, separator));
    let bare = (train.encoding.bare > 0).then(|| no_template(train.encoding.bare));
    let target = memorised("target", &sets.target, &train.documents, Some(name));
    let general = memorised("general", &sets.general, &train.documents, None);
    let not_read = not_read(&train.records.unread).map(|fields| format!("{name}: {fields}"));
    let lost = lost_context(train.records.kind, &train.records.unread);
    let empty = empty_answers(train.encoding.empty_answers);
    let read = [plain, table, bare, not_read, lost, empty].into_iter().flatten();
    let read = read.chain(unwritten(train.encoding.unwritten));
    read.chain([target, general].into_iter().flatten()).collect()
}

/// Scored tokens of each evaluated set, at most; an evaluation on a slow device must not outlast many steps.
fn evaluated_tokens(is_cpu: bool, is_software: bool) -> usize {
    match (is_cpu, is_software) {
        (true, _) => 1024,
        (false, true) => 256,
        (false, false) => 2048,
    }
}

/// What a token costs a learner, in passes over all parameters: forward and backward by the inputs; a trained matrix has
/// one product more.
fn work_per_token(config: &Config, parameters: u64) -> f64 {
    let passes = if config.adapter.kind == AdapterKind::None { 3.0 } else { 2.0 };
    passes * parameters as f64
}

/// Puts the ledger of a lab of so many learners into words, of which there are `labs`. `held` is what the model's files themselves take.
fn fit(
    ledger: &Ledger,
    held: u64,
    learners: u64,
    labs: u64,
    batch_tokens: usize,
    allowed: u64,
    seconds_per_step: f64,
) -> Fit {
    let each = ledger.device_bytes().saturating_add(ledger.host_bytes()).saturating_add(held);
    let need = each.saturating_mul(labs);
    let fits = need <= allowed;
    let problem = match fits {
        true => String::new(),
        false => format!(
            "this needs {} and at most {} may be used here: choose LoRA, a lower rank, fewer batch tokens or a \
             smaller model, or train with the native command",
            mib(need),
            mib(allowed)
        ),
    };
    let peak = &ledger.peak().device;
    let mut parts: Vec<(String, u64)> =
        Kind::ALL.map(|kind| (kind.words().to_string(), peak.of(kind))).into_iter().filter(|part| part.1 > 0).collect();
    if ledger.host_bytes() > 0 {
        parts.push(("beside the device".into(), ledger.host_bytes()));
    }
    parts.push(("the model's files".into(), held));
    let mut parts: Vec<(String, u64)> =
        parts.into_iter().map(|(what, bytes)| (what, bytes.saturating_mul(labs))).collect();
    let (times, trained) = (learners * labs, grouped(ledger.trained));
    parts.push((format!("all, at {batch_tokens} tokens and {times} times {trained} trained parameters"), need));
    Fit {
        fits,
        need_bytes: need,
        allowed_bytes: allowed,
        seconds_per_step,
        parts: parts.iter().map(|(what, bytes)| format!("{what}: {}", mib(*bytes))).collect(),
        problem,
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn bad(problem: &str) -> Error {
    Error::Config { problems: vec![problem.into()] }
}

/// The configuration of the learner that holds most: they differ in their objective alone.
fn largest(configs: &[Config]) -> Result<&Config> {
    let larger = configs.iter().find(|config| config.measures_divergence());
    larger.or(configs.first()).ok_or_else(no_learner)
}

fn no_learner() -> Error {
    bad("there is no learner")
}

fn no_run() -> Error {
    bad("there are no learners yet: start first")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_is_shorter_on_a_slower_device() {
        assert_eq!([evaluated_tokens(true, false), evaluated_tokens(false, true)], [1024, 256]);
        assert_eq!(evaluated_tokens(false, false), 2048);
    }

    #[test]
    fn what_does_not_fit_says_by_how_much_and_what_would() {
        let ledger = Ledger::of_kinds(&[(Kind::Weights, 1 << 20), (Kind::Moments, 9 << 20)], 1_049_728);
        let fits = fit(&ledger, 1 << 20, 2, 1, 128, 11 << 20, 0.5);
        assert!(fits.fits && fits.problem.is_empty());
        assert_eq!((fits.need_bytes, fits.seconds_per_step), (11 << 20, 0.5));
        assert_eq!(fits.parts[..2], ["weights: 1.0 MiB", "moments: 9.0 MiB"]);
        assert_eq!(fits.parts[3], "all, at 128 tokens and 2 times 1,049,728 trained parameters: 11.0 MiB");
        let not = fit(&ledger, 1 << 20, 2, 1, 128, (11 << 20) - 1, 0.0);
        assert!(!not.fits && not.problem.contains("needs 11.0 MiB") && not.problem.contains("LoRA"), "{}", not.problem);
        let apart = fit(&ledger, 1 << 20, 1, 2, 128, 22 << 20, 0.0);
        assert!(apart.fits && apart.need_bytes == 22 << 20, "each lab has all of it: {apart:?}");
        assert_eq!(
            apart.parts[1..],
            [
                "moments: 18.0 MiB",
                "the model's files: 2.0 MiB",
                "all, at 128 tokens and 2 times 1,049,728 trained parameters: 22.0 MiB"
            ]
        );
    }

    #[test]
    fn settings_make_a_configuration_for_each_learner_that_there_is() {
        let both = r#"{"common": {"run.steps": "7"}, "left": {"objective.method": "sft"}, "right": {}}"#;
        let configs = Settings::parse(both).unwrap().configs().unwrap();
        assert_eq!(configs.len(), 2);
        assert!(configs.iter().all(|config| config.run.steps == Some(7) && config.run.log_every == 1));
        assert_eq!(configs[0].objective.method.to_string(), "sft");
        let one = r#"{"common": {}, "left": {"objective.method": "sft"}, "right": null}"#;
        assert_eq!(Settings::parse(one).unwrap().configs().unwrap().len(), 1);
        let wrong = r#"{"common": {"run.steps": "x", "run.stepz": "1"}, "left": {}, "right": {}}"#;
        let problem = Settings::parse(wrong).unwrap().configs().unwrap_err().to_string();
        assert!(problem.contains("run.steps") || problem.contains("[run] steps"), "{problem}");
        assert!(Settings::parse("{").is_err());
    }

    #[test]
    fn what_the_page_cannot_train_is_refused_with_words_and_what_holds_most_is_planned_for() {
        let pair = |left: &str, right: &str| {
            let text = format!(
                r#"{{"common": {{}}, "left": {{"objective.method": "{left}"}}, "right": {{"objective.method": "{right}"}}}}"#
            );
            Settings::parse(&text).unwrap().configs()
        };
        let problem = pair("sft", "flow").unwrap_err().to_string();
        assert!(problem.contains("flow") && problem.contains("the page does not do"), "{problem}");
        let configs = pair("sft", "sft_kl").unwrap();
        assert_eq!(largest(&configs).unwrap().objective.method.to_string(), "sft_kl");
        assert_eq!(largest(&pair("sft", "eaft").unwrap()).unwrap().objective.method.to_string(), "sft");
    }
}
