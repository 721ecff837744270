//! What the worker holds: a device, a model, a data set, and the race between two learners.

use std::collections::BTreeMap;
use std::sync::Arc;

use js_sys::{Array, Uint8Array};
use serde::{Deserialize, Serialize};
use temper_engine::config::{AdapterKind, Config};
use temper_engine::data::{DataSet, Document, ReadOptions, Tokenizer, read_measured, read_set};
use temper_engine::eval::generate::{Sampling, generate};
use temper_engine::export;
use temper_engine::host::{Clock, MemoryFolder};
use temper_engine::kernels::row_stats::RowStats;
use temper_engine::model::files::ModelFiles;
use temper_engine::probe;
use temper_engine::train::estimate::Estimate;
use temper_engine::train::prepare;
use temper_engine::train::race::{Race, Who};
use temper_engine::weights::WeightFormat;
use temper_engine::{Device, Error};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::js::{PerformanceClock, Refusal, array, bytes, floats, integers, json, object};

type Result<T, E = Refusal> = std::result::Result<T, E>;

/// What is set where the page sets nothing: a page has one micro-batch a step and no files, and counts
/// what it cannot use.
const PAGE_CONFIG: &str = "[model]\npath = \"page\"\n[data]\ntrain = \"page\"\non_error = \"skip\"\n[run]\naccumulation = 1\nsave_every = 0\n";
/// Scored tokens of each evaluated set, at most; an evaluation on a slow device must not outlast many steps.
fn evaluated_tokens(device: &Device) -> usize {
    match (device.is_cpu(), device.is_software()) {
        (true, _) => 1024,
        (false, true) => 256,
        (false, false) => 2048,
    }
}
/// How many tokens a look at one position shows.
const CANDIDATES: usize = 8;
/// A page's own data: one document in this many is held out as the target set.
const HELD_OUT: usize = 10;

/// The engine's state in the worker.
#[wasm_bindgen]
pub struct Lab {
    device: Device,
    assets: BTreeMap<String, Vec<u8>>,
    clock: PerformanceClock,
    model: Option<Arc<OpenModel>>,
    data: Option<Data>,
    race: Option<Running>,
    /// Seconds per token and parameter of the last step, for estimates.
    pace: f64,
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
}

/// A race with what it was made from; the page may have read another model or data set since.
struct Running {
    race: Race,
    model: Arc<OpenModel>,
    data: String,
    settings: Settings,
    target: Vec<Document>,
    general: Vec<Document>,
}

/// The page's settings: `section.key` and value as the command's `--set` takes them.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Settings {
    common: BTreeMap<String, String>,
    left: Option<BTreeMap<String, String>>,
    right: Option<BTreeMap<String, String>>,
}

impl Settings {
    fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|e| Error::Config { problems: vec![format!("the settings: {e}")] })
    }

    /// A configuration for each learner that there is.
    fn configs(&self) -> Result<Vec<Config>, Error> {
        [&self.left, &self.right]
            .into_iter()
            .flatten()
            .map(|own| {
                let all: Vec<_> = self.common.iter().chain(own).map(|(k, v)| (k.clone(), v.clone())).collect();
                Config::parse(PAGE_CONFIG, "the page", &all)
            })
            .collect()
    }

    fn first(&self) -> Result<Config, Error> {
        self.configs()?.into_iter().next().ok_or_else(|| bad("there is no learner"))
    }
}

/// `DataInfo` of the protocol.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataInfo<'a> {
    name: &'a str,
    kind: String,
    records: usize,
    documents: usize,
    tokens: usize,
    trained_tokens: usize,
    truncated: usize,
    skipped: usize,
    problems: Vec<&'a String>,
    target_tokens: usize,
    general_tokens: usize,
}

#[wasm_bindgen]
impl Lab {
    /// A lab on `"webgpu"` (`software` where that is no hardware) or `"cpu"`, with the page's bundle of files.
    pub async fn open(device: String, software: bool, assets: Vec<u8>) -> Result<Lab> {
        // A panic is a bug; without this its words would be lost in a bare trap.
        std::panic::set_hook(Box::new(|info| web_sys::console::error_1(&info.to_string().into())));
        let assets = export::bundle::unpack("demo.safetensors", &assets)?.into_iter().collect();
        let device = match device.as_str() {
            "webgpu" => Device::browser(software).await?,
            _ => Device::cpu(),
        };
        Ok(Self { device, assets, clock: PerformanceClock::new(), model: None, data: None, race: None, pace: 0.0 })
    }

    /// Name of the device.
    pub fn device_name(&self) -> String {
        self.device.name().to_owned()
    }

    /// Every kernel on a small batch, against stored answers: `SelfTest` of the protocol.
    pub async fn self_test(&self) -> Result<JsValue> {
        let start = self.clock.seconds();
        let answers = self.assets.get("probe.safetensors").ok_or_else(|| bad("the page has no stored answers"))?;
        let report = probe::run(&self.device, answers).await?;
        let seconds = self.clock.seconds() - start;
        Ok(object(&[("passed", report.passed.into()), ("checks", json(&report.checks)), ("seconds", seconds.into())]))
    }

    /// Takes the small model that comes with the page.
    pub fn base_model(&mut self) -> Result<JsValue> {
        let mut folder = MemoryFolder::new();
        for (name, bytes) in &self.assets {
            if let Some(name) = name.strip_prefix("base/") {
                folder.insert(name, bytes.clone())?;
            }
        }
        let files = ModelFiles::open_folder(&folder)?;
        Ok(self.take_model(OpenModel { files, name: "the small base model".into(), base: true, held: 0 }))
    }

    /// Takes a visitor's model: the files of a Hugging Face folder, or one GGUF file.
    pub fn own_model(&mut self, names: Vec<String>, contents: Array) -> Result<JsValue> {
        let mut files: Vec<(String, Vec<u8>)> =
            names.into_iter().zip(contents.iter().map(|bytes| Uint8Array::new(&bytes).to_vec())).collect();
        let held = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let (files, name) = match files.iter().position(|(name, _)| name.to_lowercase().ends_with(".gguf")) {
            Some(at) => {
                let (name, bytes) = files.swap_remove(at);
                (ModelFiles::open_gguf(Arc::new(bytes), &name)?, name)
            }
            None => {
                let mut folder = MemoryFolder::new();
                for (name, bytes) in files {
                    folder.insert(&name, bytes)?;
                }
                (ModelFiles::open_folder(&folder)?, "your model".into())
            }
        };
        files.tokenizer()?;
        Ok(self.take_model(OpenModel { files, name, base: false, held }))
    }

    /// Takes a data set that comes with the page.
    pub fn data_set(&mut self, id: &str) -> Result<JsValue> {
        let find = |part: &str| {
            ["jsonl", "txt"].into_iter().find_map(|kind| {
                let name = format!("data/{id}/{part}.{kind}");
                self.assets.get(&name).map(|bytes| (name, bytes.clone()))
            })
        };
        let (name, train) = find("train").ok_or_else(|| bad(&format!("there is no data set {id:?}")))?;
        let data = Data { name, train, target: find("target") };
        self.take_data(data)
    }

    /// Takes a visitor's data set: JSONL or plain text.
    pub fn own_data(&mut self, name: String, contents: Vec<u8>) -> Result<JsValue> {
        self.take_data(Data { name, train: contents, target: None })
    }

    /// What a race would need: `Estimate` of the protocol. `allowed` is in bytes.
    pub fn estimate(&self, settings: &str, allowed: f64) -> Result<JsValue> {
        let settings = Settings::parse(settings)?;
        let configs = settings.configs()?;
        let config = settings.first()?;
        let model = self.model()?;
        let arch = &model.files.architecture;
        let learners = configs.len() as u64;
        let estimate = Estimate::new(&config, arch, model.files.weights.as_deref(), learners);
        let (need, allowed) = (estimate.total().saturating_add(model.held), allowed as u64);
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
        let parts = [
            ("base model".to_string(), estimate.base),
            (format!("what {learners} learners train, {} parameters each", estimate.trained), estimate.learning),
            (format!("activations of {} tokens", config.run.batch_tokens), estimate.activations),
            ("logits of one chunk".to_string(), estimate.logits),
            ("the model's files".to_string(), model.held),
        ];
        let parts = parts.iter().map(|(what, bytes)| format!("{what}: {}", mib(*bytes)).into());
        // Forward and pull-back by the inputs; a trained matrix has one product more.
        let passes = if config.adapter.kind == AdapterKind::None { 3.0 } else { 2.0 };
        let work = passes * learners as f64 * config.run.batch_tokens as f64 * arch.parameter_count() as f64;
        Ok(object(&[
            ("fits", fits.into()),
            ("needBytes", (need as f64).into()),
            ("allowedBytes", (allowed as f64).into()),
            ("secondsPerStep", (self.pace * work).into()),
            ("parts", array(parts)),
            ("problem", problem.into()),
        ]))
    }

    /// Makes the learners anew: `Started` of the protocol.
    pub fn start(&mut self, settings: &str) -> Result<JsValue> {
        let settings = Settings::parse(settings)?;
        let begin = self.clock.seconds();
        // What is replaced goes first: two races would not fit where one does.
        self.race = None;
        self.race = Some(self.running(settings)?);
        self.started(begin)
    }

    /// One step of every learner: `Frame` of the protocol, or null where the race is over.
    pub async fn step(&mut self) -> Result<JsValue> {
        let running = self.race.as_mut().ok_or_else(no_race)?;
        let parameters = running.model.files.architecture.parameter_count() as f64;
        let Some(lap) = running.race.step(&self.clock).await? else { return Ok(JsValue::NULL) };
        let passes = if running.race.configs()[0].adapter.kind == AdapterKind::None { 3.0 } else { 2.0 };
        if let Some((metrics, outcome)) = lap.learners.first() {
            let per_token = 1.0 / metrics.tokens_per_second.max(1e-9);
            self.pace = if outcome.tokens > 0 { per_token / (passes * parameters) } else { self.pace };
        }
        let learners = lap.learners.iter().map(|(metrics, outcome)| {
            let mut metrics = metrics.clone();
            if metrics.peak_device_bytes == 0 {
                // On the CPU the module's own memory, which never shrinks.
                metrics.peak_device_bytes = core::arch::wasm32::memory_size(0) as u64 * 65_536;
            }
            let of = |value: fn(&RowStats) -> f32| floats(&outcome.rows.iter().map(value).collect::<Vec<_>>());
            let gradient: Vec<f32> =
                outcome.rows.iter().zip(&outcome.gates).map(|(row, gate)| gate * push(row)).collect();
            object(&[
                ("metrics", json(&metrics)),
                ("p", of(RowStats::p)),
                ("entropy", of(|row| row.entropy_full)),
                ("gate", floats(&outcome.gates)),
                ("gradient", floats(&gradient)),
            ])
        });
        let column = |of: fn(&temper_engine::train::race::Place) -> u32| {
            integers(&lap.places.iter().map(of).collect::<Vec<_>>())
        };
        Ok(object(&[
            ("step", (lap.step as f64).into()),
            ("steps", (running.race.steps().0 as f64).into()),
            ("epoch", (lap.epoch as f64).into()),
            ("learners", array(learners)),
            ("document", column(|place| place.document)),
            ("position", column(|place| place.position)),
        ]))
    }

    /// Target and general loss of every learner: `Evaluated` of the protocol.
    pub async fn evaluate(&mut self) -> Result<JsValue> {
        let running = self.race.as_mut().ok_or_else(no_race)?;
        let (_, step) = running.race.steps();
        let mut learners = Vec::new();
        for index in 0..running.race.configs().len() {
            // Before the first step all are the base: measured once.
            let both = match (step, learners.first()) {
                (0, Some(first)) => JsValue::clone(first),
                _ => {
                    let target = running.race.evaluate(Who::Learner(index), &running.target).await?;
                    let general = running.race.evaluate(Who::Learner(index), &running.general).await?;
                    object(&[("target", json(&target)), ("general", json(&general))])
                }
            };
            learners.push(both);
        }
        Ok(object(&[("step", (step as f64).into()), ("learners", array(learners))]))
    }

    /// Greedy continuation of a prompt by `"base"`, `"left"` or `"right"`.
    pub async fn continue_text(&mut self, prompt: &str, count: usize, who: &str) -> Result<JsValue> {
        let running = self.race.as_mut().ok_or_else(no_race)?;
        let model = running.model.clone();
        let who = running.who(who)?;
        let tokenizer = model.files.tokenizer()?;
        let mut tokens = tokenizer.encode(prompt)?;
        if let Some(bos) = tokenizer.bos_id().filter(|_| tokenizer.add_bos()) {
            tokens.insert(0, bos);
        }
        let room = model.files.architecture.context.saturating_sub(tokens.len());
        if room == 0 {
            return Err(bad(&format!("the prompt has {} tokens, which fills the model's context", tokens.len())).into());
        }
        let greedy = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };
        let stop = tokenizer.eos_ids();
        let new = generate(running.race.model(who), &tokens, count.min(room), greedy, stop, &mut |_| {}).await?;
        Ok(tokenizer.decode(&new, true)?.into())
    }

    /// A training document's tokens: `DocumentText` of the protocol.
    pub fn document(&mut self, index: usize) -> Result<JsValue> {
        let running = self.race.as_mut().ok_or_else(no_race)?;
        let model = running.model.clone();
        let document = running.document(index)?;
        let tokenizer = model.files.tokenizer()?;
        let texts = texts(tokenizer, &document.tokens)?;
        let tokens =
            texts.into_iter().zip(&document.trained).enumerate().map(|(at, (text, trained))| {
                object(&[("text", text.into()), ("trained", (*trained && at > 0).into())])
            });
        Ok(object(&[("document", (index as f64).into()), ("tokens", array(tokens))]))
    }

    /// What a model makes of a training document: `Inspected` of the protocol.
    pub async fn inspect(&mut self, index: usize, who: &str) -> Result<JsValue> {
        let running = self.race.as_mut().ok_or_else(no_race)?;
        let document = running.document(index)?.clone();
        let name = who;
        let who = running.who(who)?;
        let positions = (1..document.tokens.len()).filter(|&at| document.trained[at]).map(|at| (at as f64).into());
        let positions = array(positions);
        let rows = running.race.rows(who, std::slice::from_ref(&document)).await?;
        let weights = running.race.weights(&rows)?;
        let of = |value: fn(&RowStats) -> f32| json(&rows.iter().map(value).collect::<Vec<_>>());
        let gradients: Vec<Vec<f32>> =
            weights.iter().map(|w| w.iter().zip(&rows).map(|(w, row)| w * push(row)).collect()).collect();
        Ok(object(&[
            ("document", (index as f64).into()),
            ("who", name.into()),
            ("position", positions),
            ("p", of(RowStats::p)),
            ("entropy", of(|row| row.entropy_full)),
            ("entropyTopK", of(|row| row.entropy_top_k)),
            ("gate", json(&weights)),
            ("gradient", json(&gradients)),
        ]))
    }

    /// One token of a training document in full: `Candidates` of the protocol.
    pub async fn candidates(&mut self, index: usize, position: usize, who: &str) -> Result<JsValue> {
        let running = self.race.as_mut().ok_or_else(no_race)?;
        let model = running.model.clone();
        let document = running.document(index)?.clone();
        let name = who;
        let who = running.who(who)?;
        let Some(&label) = document.tokens.get(position).filter(|_| position > 0) else {
            return Err(bad(&format!("document {index} has no token {position} that is predicted")).into());
        };
        // The row's statistics as training sees them: this token alone is scored.
        let trained = (0..=position).map(|at| at == position).collect();
        let before = &document.tokens[..position];
        let alone = Document { tokens: document.tokens[..=position].to_vec(), trained, line: document.line };
        let rows = running.race.rows(who, std::slice::from_ref(&alone)).await?;
        let weights: Vec<f32> = running.race.weights(&rows)?.iter().map(|w| w[0]).collect();
        let row = rows[0];
        let logits = running.race.model(who).last_logits(before).await?;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|z| (z - largest).exp()).sum();
        let p = |token: usize| (logits[token] - largest).exp() / sum;
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let label = label as usize;
        let rank = order.iter().position(|&token| token == label).unwrap_or(0) + 1;
        let mut shown = order[..CANDIDATES.min(order.len())].to_vec();
        if !shown.contains(&label) {
            shown.push(label);
        }
        let tokenizer = model.files.tokenizer()?;
        let text = |token: usize| tokenizer.decode(&[token as u32], false).unwrap_or_default();
        let candidates = shown.into_iter().map(|token| {
            let toward = f32::from(u8::from(token == label)) - p(token);
            let pushes: Vec<f32> = weights.iter().map(|w| w * toward).collect();
            object(&[
                ("id", (token as f64).into()),
                ("text", text(token).into()),
                ("p", p(token).into()),
                ("push", json(&pushes)),
            ])
        });
        let losses: Vec<f32> = weights.iter().map(|w| w * row.ce).collect();
        Ok(object(&[
            ("document", (index as f64).into()),
            ("position", (position as f64).into()),
            ("who", name.into()),
            (
                "label",
                object(&[
                    ("id", (label as f64).into()),
                    ("text", text(label).into()),
                    ("p", row.p().into()),
                    ("rank", (rank as f64).into()),
                ]),
            ),
            ("candidates", array(candidates)),
            ("p", row.p().into()),
            ("entropy", row.entropy_full.into()),
            ("entropyTopK", row.entropy_top_k.into()),
            ("gate", json(&weights)),
            ("loss", json(&losses)),
        ]))
    }

    /// New objectives, learning rate or schedule from the next step on.
    pub fn change(&mut self, settings: &str) -> Result<()> {
        let settings = Settings::parse(settings)?;
        let running = self.race.as_mut().ok_or_else(no_race)?;
        running.race.change(settings.configs()?)?;
        running.settings = settings;
        Ok(())
    }

    /// Everything that goes on from here, as one file.
    pub async fn checkpoint(&self) -> Result<JsValue> {
        let running = self.race.as_ref().ok_or_else(no_race)?;
        let note = serde_json::json!({"settings": running.settings, "data": running.data}).to_string();
        Ok(bytes(&running.race.save(&note).await?))
    }

    /// Makes the race of a checkpoint and goes on where it stood. Nothing changes where that fails.
    pub fn restore(&mut self, saved: Vec<u8>) -> Result<JsValue> {
        #[derive(Deserialize)]
        struct Note {
            settings: Settings,
            data: String,
        }
        let begin = self.clock.seconds();
        let note: Note = serde_json::from_str(&Race::note(&saved)?)
            .map_err(|e| Error::Checkpoint { field: "its note".into(), problem: format!("not readable: {e}") })?;
        let Note { settings, data } = note;
        let shown = json(&settings);
        let mut running = self.running(settings)?;
        running.race.restore(&saved)?;
        self.race = Some(running);
        let started = self.started(begin)?;
        for (name, value) in [("settings", shown), ("data", data.into())] {
            let _ = js_sys::Reflect::set(&started, &name.into(), &value);
        }
        Ok(started)
    }

    /// What a learner has learned, for other programs: an adapter's files, or those of a whole model.
    pub async fn result(&self, side: &str) -> Result<JsValue> {
        let running = self.race.as_ref().ok_or_else(no_race)?;
        let model = &running.model;
        let Who::Learner(index) = running.who(side)? else { return Err(bad("the base model was not trained").into()) };
        let (session, config) = (running.race.session(index), &running.race.configs()[index]);
        let files: Vec<(String, Vec<u8>)> = match config.adapter.kind {
            AdapterKind::Lora => {
                let values = export::peft::values(&session.model).await?;
                export::peft::write(&prepare::lora_settings(config), Some(&model.name), &values)?
            }
            AdapterKind::None => {
                let mut tensors = export::model::values(&session.model).await?;
                let arch = &model.files.architecture;
                let mut weights = Vec::new();
                export::model::write(&mut weights, arch, WeightFormat::F32, &mut |spec| {
                    tensors.remove(&spec.name).ok_or_else(|| Error::Tensor {
                        file: "model.safetensors".into(),
                        tensor: spec.name.clone(),
                        problem: "was not trained".into(),
                    })
                })
                .map_err(|e| export::stream::into_error(e, "model.safetensors"))?;
                let config = export::model::config_json(arch, &model.files.special, WeightFormat::F32);
                let mut files = vec![("config.json".to_string(), config.into_bytes())];
                files.extend(model.files.tokenizer()?.to_files()?);
                files.push(("model.safetensors".into(), weights));
                files
            }
        };
        let files = files.iter().map(|(name, content)| object(&[("name", name.into()), ("bytes", bytes(content))]));
        Ok(array(files))
    }
}

impl Lab {
    fn model(&self) -> Result<&Arc<OpenModel>, Error> {
        self.model.as_ref().ok_or_else(no_model)
    }

    /// Learners at their first step, of the model and data set that were read last.
    fn running(&self, settings: Settings) -> Result<Running> {
        let configs = settings.configs()?;
        let config = settings.first()?;
        let model = self.model()?.clone();
        let (train, target, general) = self.sets(&config)?;
        let base = prepare::base(&config, &model.files, &self.device)?;
        let race = Race::new(configs, base, train.documents)?;
        let data = self.data.as_ref().map_or_else(String::new, |data| data.name.clone());
        let (target, general) = (self.evaluated(target), self.evaluated(general));
        Ok(Running { race, model, data, settings, target, general })
    }

    fn take_model(&mut self, model: OpenModel) -> JsValue {
        let (arch, tokenizer) = (&model.files.architecture, model.files.tokenizer.as_ref());
        let info = object(&[
            ("name", model.name.as_str().into()),
            ("family", arch.family.model_type.into()),
            ("layers", (arch.layers as f64).into()),
            ("hidden", (arch.hidden as f64).into()),
            ("vocabulary", (arch.vocab as f64).into()),
            ("parameters", (arch.parameter_count() as f64).into()),
            ("context", (arch.context as f64).into()),
            ("chatTemplate", tokenizer.is_some_and(|t| t.chat_template().is_some()).into()),
            ("base", model.base.into()),
        ]);
        self.model = Some(Arc::new(model));
        info
    }

    /// Reads the set once, so that it is refused before anything is replaced.
    fn take_data(&mut self, data: Data) -> Result<JsValue> {
        let before = self.data.replace(data);
        let config = Config::parse(PAGE_CONFIG, "the page", &[("data.cutoff_length".into(), "512".into())]);
        let read = config.and_then(|config| self.sets(&config));
        let (train, target, general) = match read {
            Ok(sets) => sets,
            Err(error) => {
                self.data = before;
                return Err(error.into());
            }
        };
        let tokens = |documents: &[Document]| documents.iter().map(Document::trained_tokens).sum();
        let info = DataInfo {
            name: self.data.as_ref().map_or("", |data| data.name.as_str()),
            kind: train.records.kind.to_string(),
            records: train.records.records,
            documents: train.documents.len(),
            tokens: train.encoding.tokens,
            trained_tokens: tokens(&train.documents),
            truncated: train.encoding.truncated,
            skipped: train.records.skipped + train.encoding.skipped,
            problems: train.records.problems.iter().chain(&train.encoding.problems).collect(),
            target_tokens: tokens(&target),
            general_tokens: tokens(&general),
        };
        Ok(json(&info))
    }

    /// Training, target and general documents for a configuration.
    fn sets(&self, config: &Config) -> Result<(DataSet, Vec<Document>, Vec<Document>), Error> {
        let files = &self.model()?.files;
        let data = self.data.as_ref().ok_or_else(|| bad("choose a data set first"))?;
        let (tokenizer, context) = (files.tokenizer()?, files.architecture.context);
        let mut options = ReadOptions::of(&config.data);
        options.cutoff_length = options.cutoff_length.min(context);
        let measured = ReadOptions { on_error: options.on_error, ..options.measured() };
        let mut train = read_set(&data.name, &data.train, tokenizer, options)?;
        let target = match &data.target {
            Some((name, bytes)) => read_measured(name, bytes, tokenizer, context, measured)?.documents,
            None => hold_out(&mut train, &data.name)?,
        };
        let general = self.assets.get("data/general.txt").ok_or_else(|| bad("the page has no general text"))?;
        let general = read_measured("general.txt", general, tokenizer, context, measured)?.documents;
        Ok((train, target, general))
    }

    /// The part of a set that evaluations score.
    fn evaluated(&self, documents: Vec<Document>) -> Vec<Document> {
        let most = evaluated_tokens(&self.device);
        let mut tokens = 0;
        let within = |document: &Document| {
            let before = tokens;
            tokens += document.tokens.len();
            before == 0 || tokens <= most
        };
        documents.into_iter().take_while(within).collect()
    }

    fn started(&self, begin: f64) -> Result<JsValue> {
        let running = self.race.as_ref().ok_or_else(no_race)?;
        let parameters = running.model.files.architecture.parameter_count();
        let (steps, step) = running.race.steps();
        let learners = running.race.configs().iter().enumerate().map(|(index, config)| {
            object(&[
                ("objective", config.objective.method.to_string().into()),
                ("parameters", (parameters as f64).into()),
                ("trainable", (running.race.trainable(index) as f64).into()),
            ])
        });
        Ok(object(&[
            ("step", (step as f64).into()),
            ("steps", (steps as f64).into()),
            ("batchTokens", (running.race.configs()[0].run.batch_tokens as f64).into()),
            ("seconds", (self.clock.seconds() - begin).into()),
            ("learners", array(learners)),
        ]))
    }
}

impl Running {
    fn who(&self, who: &str) -> Result<Who, Error> {
        let learners = self.race.configs().len();
        match (who, learners) {
            ("base", _) => Ok(Who::Base),
            ("left", _) | ("right", 1) => Ok(Who::Learner(0)),
            ("right", _) => Ok(Who::Learner(1)),
            _ => Err(bad(&format!("{who:?} is none of base, left, right"))),
        }
    }

    fn document(&self, index: usize) -> Result<&Document, Error> {
        let documents = self.race.documents();
        documents.get(index).ok_or_else(|| bad(&format!("there are {} documents, not {index}", documents.len())))
    }
}

/// Takes one document in [`HELD_OUT`] out of the training set.
fn hold_out(train: &mut DataSet, name: &str) -> Result<Vec<Document>, Error> {
    let documents = std::mem::take(&mut train.documents);
    if documents.len() < 2 {
        let problem = "it has one document, and one must be held out to see what is learned; give at least two";
        return Err(Error::Data { file: name.into(), problem: problem.into() });
    }
    let keep = documents.len() - documents.len().div_ceil(HELD_OUT);
    let mut documents = documents;
    let target = documents.split_off(keep);
    train.documents = documents;
    Ok(target)
}

/// Norm of a row's gradient by its logits under weight 1: `|softmax - onehot|`, from
/// `(1 - p)^2 + sum_v P(v)^2 - p^2`.
fn push(row: &RowStats) -> f32 {
    let p = row.p();
    ((1.0 - p).powi(2) + (row.collision - p * p).max(0.0)).sqrt()
}

/// Text of each token. Parts of a character that spans several tokens are shown as replacement characters.
fn texts(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<Vec<String>, Error> {
    tokens.iter().map(|&token| tokenizer.decode(&[token], false)).collect()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn bad(problem: &str) -> Error {
    Error::Config { problems: vec![problem.into()] }
}

fn no_model() -> Error {
    bad("choose a model first")
}

fn no_race() -> Error {
    bad("there are no learners yet: start first")
}
