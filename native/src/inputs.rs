//! What a command is given: models, adapters and data sets by path, and the small ones embedded in the program.
//!
//! Files are untrusted: each kind has a [`Limit`], and a file's size is known before any of it is read.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use temper_engine::configuration::{AdapterKind, ArchitectureSource, Init};
use temper_engine::host::{Bytes, Folder, MOST_CONFIGURATION_BYTES, MemoryFolder};
use temper_engine::inside::probe::prove;
use temper_engine::models::{Architecture, Hold, SpecialTokens};
use temper_engine::reading::{
    ChatTemplate, Message, OnError, ReadOptions, RecordFormat, TemplateVariables, Templating,
};
use temper_engine::result::{self, ADAPTER, Adapter, MODEL};
use temper_engine::running::{Digest, Digester, HEAD, NamedFile, Snapshot, placement_of_model};
use temper_engine::words::counted;
use temper_engine::{Config, Devices, Error, Model, ModelFiles, Result, Tokenizer};

use crate::cli::ModelArgs;
use crate::files::{Beside, OpenFile, OsFolder, model_error, read_error};
use crate::memory;
use crate::output::quoted;
use crate::plan::{Since, memory_of};
use crate::progress::progress;
use crate::run_config::OTHER_HEAD;
use crate::run_folder::{RunFolder, is_adapter};

/// The devices that are asked for ([`Devices::choose`]), and why; a GPU's kernels are tried once a driver ([`prove`]).
///
/// # Errors
/// As those.
pub fn devices(wanted: Option<&str>) -> Result<(Devices, String)> {
    let (devices, why) = Devices::choose(wanted, &Since::now())?;
    devices.all().iter().try_for_each(prove)?;
    Ok((devices, why))
}

/// Paths that begin with this name files inside the program.
pub const EMBEDDED: &str = "embedded:";

/// The configuration that `temper train` runs without any argument.
pub const DEMO_CONFIG: &str = include_str!("../demo/train.toml");

/// Files inside the program, by name.
const FILES: [(&str, &[u8]); 14] = [
    ("base/config.json", include_bytes!("../demo/base/config.json")),
    ("base/model.safetensors", include_bytes!("../demo/base/model.safetensors")),
    ("base/tokenizer.json", include_bytes!("../demo/base/tokenizer.json")),
    ("base/tokenizer_config.json", include_bytes!("../demo/base/tokenizer_config.json")),
    ("train.jsonl", include_bytes!("../demo/train.jsonl")),
    ("target.jsonl", include_bytes!("../demo/target.jsonl")),
    ("general.txt", include_bytes!("../demo/general.txt")),
    ("train.toml", DEMO_CONFIG.as_bytes()),
    ("facts.toml", include_bytes!("../demo/facts.toml")),
    ("facts/train.jsonl", include_bytes!("../demo/facts/train.jsonl")),
    ("facts/target.jsonl", include_bytes!("../demo/facts/target.jsonl")),
    ("facts/wrong.jsonl", include_bytes!("../demo/facts/wrong.jsonl")),
    ("meant/train.jsonl", include_bytes!("../demo/meant/train.jsonl")),
    ("meant/target.jsonl", include_bytes!("../demo/meant/target.jsonl")),
];

/// How much is read of a kind of file.
struct Limit {
    /// What the file is to be, with its article.
    what: &'static str,
    /// Most bytes of a regular file, as it lies there.
    file: u64,
    /// Most bytes of what has no size to be looked at: what a `.gz` file unpacks to, and what comes through a pipe.
    stream: u64,
    /// What to do about a larger one.
    advice: &'static str,
}

/// A data set. It is held in memory whole, with its records and tokens beside it: several times its size.
const DATA: Limit = Limit {
    what: "a data set",
    file: 4 << 30,
    stream: 1 << 30,
    advice: "take a part of it, such as its first lines (head -n), or, where it is packed, unpack it (gunzip)",
};

/// A configuration, of a run or of a model.
const CONFIGURATION: Limit = Limit {
    what: "a configuration",
    file: MOST_CONFIGURATION_BYTES,
    stream: MOST_CONFIGURATION_BYTES,
    advice: "is it what its name says?",
};

/// A path that means standard input.
pub const STDIN: &str = "-";

/// Opens a Hugging Face folder, a GGUF file, or an embedded folder.
///
/// # Errors
/// What is missing or malformed, with its file.
pub fn open_model(path: &str) -> Result<ModelFiles> {
    let on_disk = Path::new(path);
    if path.starts_with(EMBEDDED) || on_disk.is_dir() {
        let opened = ModelFiles::open_folder(open_folder(path)?.as_ref());
        return opened.map_err(|error| model_error(on_disk, error));
    }
    let (folder, name) = Beside::of(on_disk)?;
    ModelFiles::open_gguf_in(&folder, &name).map_err(|error| model_error(on_disk, error))
}

/// Opens the model that a run begins with.
///
/// # Errors
/// As [`open_model`]; what is wrong with the description of one that begins with random weights.
pub fn model_files(config: &Config) -> Result<ModelFiles> {
    if config.model.init == Init::Pretrained {
        return open_model(&config.model.path);
    }
    let (bytes, file) = match &config.model.architecture {
        Some(ArchitectureSource::Path(path)) => (read_configuration(path)?, path.clone()),
        Some(ArchitectureSource::Inline(table)) => {
            let json = serde_json::to_vec(table).map_err(|e| Error::Config { problems: vec![e.to_string()] })?;
            (json, "[model] architecture".to_string())
        }
        None => {
            let path = Path::new(&config.model.path).join("config.json").display().to_string();
            (read_configuration(&path)?, path)
        }
    };
    let architecture = Architecture::from_config_json(&bytes, &file)?;
    let special = SpecialTokens::from_config_json(&bytes, &file)?;
    ModelFiles::random(architecture, special, open_folder(&config.model.path)?.as_ref())
}

/// A folder on disk or inside the program.
///
/// # Errors
/// [`Error::Missing`] where there is none.
pub fn open_folder(path: &str) -> Result<Box<dyn Folder>> {
    Ok(match path.strip_prefix(EMBEDDED) {
        Some(name) => Box::new(embedded_folder(name)?),
        None => Box::new(OsFolder::open(Path::new(path))?),
    })
}

/// How a model is asked.
pub enum Layout {
    /// In its chat template.
    Chat(ChatTemplate),
    /// As a run without a template has it: a prompt, a line end, the answer.
    Lines,
    /// As a text that goes on.
    Text,
}

impl Layout {
    /// The tokens of a prompt, after which the answer comes; a chat template is told `system` before it.
    ///
    /// # Errors
    /// [`Error::Template`] and [`Error::Tokenizer`].
    pub fn prompt(&self, tokenizer: &Tokenizer, system: Option<&str>, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Chat(template) => {
                let told = system.map(|system| Message::new("system", system));
                let messages: Vec<Message> = told.into_iter().chain([Message::new("user", text)]).collect();
                // A template writes the first token itself.
                tokenizer.encode(&template.render(&messages, true)?)
            }
            Self::Lines => tokenizer.encode_begun(&format!("{text}\n")),
            Self::Text => tokenizer.encode_begun(text),
        }
    }
}

/// The tokenizer's files as they lie beside a model's; none of a GGUF file, which holds its own.
///
/// # Errors
/// As [`result::tokenizer_files`].
pub fn files_beside(model: &str) -> Result<Vec<NamedFile>> {
    if !model.starts_with(EMBEDDED) && !Path::new(model).is_dir() {
        return Ok(Vec::new());
    }
    result::tokenizer_files(open_folder(model)?.as_ref())
}

/// A model that is only used: its files, and the adapter to put on it.
pub struct ModelInUse {
    /// Where the files are, as [`open_model`] takes it.
    pub path: String,
    /// Description, weights and tokenizer.
    pub files: ModelFiles,
    /// How its matrices are held.
    pub storage: Hold,
    /// Configuration of the run that trained it.
    pub run: Option<Config>,
    /// What its chat template is told.
    pub variables: TemplateVariables,
    /// Its weights are not those of its files, but those that a run had trained by one of its checkpoints.
    pub is_of_checkpoint: bool,
    adapter: Option<Pairs>,
    /// Digest of the model that the run's adapter was trained on.
    trained_on: Option<Digest>,
    /// What kind of records the run was trained on.
    records: Option<String>,
}

/// Where an adapter is.
enum Pairs {
    /// In a folder, as PEFT has it.
    Folder(PathBuf),
    /// In a checkpoint.
    Checkpoint(Snapshot),
}

impl ModelInUse {
    /// Opens what `--model` and `--adapter` name, or what the run of `--run` trained, by its end or by `--step`.
    ///
    /// # Errors
    /// What is missing or malformed, with its file; [`Error::Missing`] for a run that has not come to its end, or came to it
    /// without a result; as [`RunFolder::checkpoint`].
    pub fn open(args: &ModelArgs) -> Result<Self> {
        let Some(run) = &args.run else {
            let path = args.model.clone().unwrap_or_default();
            let found = args.adapter.as_deref().map(adapter_at).transpose()?;
            let storage = args.storage.or(found.as_ref().and_then(|found| found.storage));
            let (adapter, trained_on) = found.map(|found| (found.folder, found.trained_on)).unzip();
            return Ok(Self {
                files: open_model(&path)?,
                path,
                adapter: adapter.map(Pairs::Folder),
                storage: storage.unwrap_or(Hold::Auto),
                run: None,
                variables: TemplateVariables::default(),
                is_of_checkpoint: false,
                trained_on: trained_on.flatten(),
                records: None,
            });
        };
        let folder = RunFolder::look_into(run)?;
        let config = folder.config()?;
        if let (None, AdapterKind::Lora) = (args.storage, config.adapter.kind) {
            refuse_other_head(&folder, &config)?;
        }
        let opened = match args.step {
            Some(step) => Self::at_step(&folder, config, step)?,
            None => Self::result_of(&folder, config)?,
        };
        Ok(Self { storage: args.storage.unwrap_or(opened.storage), ..opened })
    }

    /// What a run left at its end.
    fn result_of(run: &RunFolder, config: Config) -> Result<Self> {
        let is_adapter = config.adapter.kind == AdapterKind::Lora;
        let result = run.path().join(if is_adapter { ADAPTER } else { MODEL });
        if !result.is_dir() {
            return Err(Error::Missing { path: result.display().to_string(), problem: run.no_result() });
        }
        let records = run.summary()?.and_then(|summary| summary.records);
        if !is_adapter {
            let path = result.display().to_string();
            return Ok(Self { path: path.clone(), ..Self::trained(config, open_model(&path)?, records) });
        }
        let files = open_model(&config.model.path).map_err(|error| of_run(error, run))?;
        let trained_on = trained_on(run);
        Ok(Self { adapter: Some(Pairs::Folder(result)), trained_on, ..Self::trained(config, files, records) })
    }

    /// What a run had trained by one of its checkpoints, also where it has not come to its end.
    fn at_step(run: &RunFolder, config: Config, step: u64) -> Result<Self> {
        let path = run.checkpoint(step)?;
        let in_checkpoint = |error: Error| match error {
            Error::Checkpoint { field, problem } => {
                Error::Checkpoint { field: format!("{}: {field}", path.display()), problem }
            }
            other => other,
        };
        let snapshot = Snapshot::open(&OsFolder::open(&path)?).map_err(in_checkpoint)?;
        RunFolder::refuse_renamed(step, snapshot.step).map_err(in_checkpoint)?;
        let record = RunFolder::record(&path).map_err(in_checkpoint)?;
        let records = match record.records {
            // That of an older version says nothing of them.
            None => run.summary()?.and_then(|summary| summary.records),
            found => found,
        };
        let mut files = model_files(&config).map_err(|error| of_run(error, run))?;
        let (is_adapter, seed, origin) =
            (config.adapter.kind == AdapterKind::Lora, config.run.seed, Some(snapshot.origin));
        if is_adapter {
            let adapter = Some(Pairs::Checkpoint(snapshot));
            return Ok(Self { adapter, trained_on: origin, ..Self::trained(config, files, records) });
        }
        // Their own weights are not needed, but the description is theirs.
        let found = files.origin()?.unwrap_or_else(|| files.origin_of_random(seed));
        files.weights = Some(snapshot.weights(&files.architecture)?);
        let opened = Self { is_of_checkpoint: true, trained_on: origin, ..Self::trained(config, files, records) };
        opened.refuse_other(|| Ok(Some(found)))?;
        Ok(Self { trained_on: None, ..opened })
    }

    /// What a run of this configuration trained out of these files, or into them.
    fn trained(config: Config, files: ModelFiles, records: Option<String>) -> Self {
        Self {
            path: config.model.path.clone(),
            files,
            // An adapter was trained on weights that were rounded so.
            storage: config.run.storage,
            variables: config.data.template_variables.clone().unwrap_or_default(),
            run: Some(config),
            is_of_checkpoint: false,
            adapter: None,
            trained_on: None,
            records,
        }
    }

    /// The same whose chat template is told these too, each as `NAME=VALUE`.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no variable.
    pub fn told(mut self, variables: &[String]) -> Result<Self> {
        self.variables = self.variables.with(variables)?;
        Ok(self)
    }

    /// Refuses another model than the one that the run began with; `digest` is asked only where that is known.
    ///
    /// # Errors
    /// [`Error::Config`] with both digests; as `digest`.
    pub fn refuse_other(&self, digest: impl FnOnce() -> Result<Option<Digest>>) -> Result<()> {
        let Some(trained) = self.trained_on else { return Ok(()) };
        let Some(found) = digest()?.filter(|found| *found != trained) else { return Ok(()) };
        let (what, advice) = match &self.adapter {
            Some(Pairs::Folder(_)) => {
                ("this run's adapter was trained on", "give the right one with --model and the adapter with --adapter")
            }
            Some(Pairs::Checkpoint(_)) => ("this run's adapter was trained on", "restore that one"),
            None => ("this run began with", "restore that one"),
        };
        Err(Error::Config {
            problems: vec![format!(
                "{} is not the model that {what}: its digest is {found}, and that one's was {trained}; {advice}",
                self.path
            )],
        })
    }

    /// How data are read for it: as its run read what it measured; without one by the model's chat template, every assistant
    /// turn scored, up to the model's context.
    pub fn reading(&self) -> ReadOptions<'_> {
        let (context, variables) = (self.files.architecture.context, Some(&self.variables));
        match &self.run {
            Some(config) => {
                let own = ReadOptions::of(&config.data).measured();
                ReadOptions { cutoff_length: own.cutoff_length.min(context), variables, ..own }
            }
            None => reading_untrained(&self.files, variables),
        }
    }

    /// How it is asked: as its run was trained, without one in the model's chat template, or as a text where it has none.
    ///
    /// # Errors
    /// [`Error::Template`] for a template that cannot be used; [`Error::Tokenizer`] where there is no tokenizer.
    pub fn layout(&self) -> Result<Layout> {
        let own = self.run.as_ref().is_none_or(|config| config.data.template == Templating::Model);
        if let Some(template) = ChatTemplate::of(self.files.tokenizer()?, Some(&self.variables))?.filter(|_| own) {
            return Ok(Layout::Chat(template));
        }
        Ok(match &self.records {
            Some(kind) if kind != "text" => Layout::Lines,
            _ => Layout::Text,
        })
    }

    /// A digest of the adapter; none without one.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Io`] for what cannot be read.
    pub fn adapter_digest(&self) -> Result<Option<Digest>> {
        match &self.adapter {
            Some(Pairs::Folder(folder)) => digest_of_adapter(folder).map(Some),
            Some(Pairs::Checkpoint(snapshot)) => Ok(Some(snapshot.digest)),
            None => Ok(None),
        }
    }

    /// The adapter, read.
    ///
    /// # Errors
    /// As [`result::read`] and [`Snapshot::adapter`].
    pub fn adapter(&self) -> Result<Option<Adapter>> {
        let path = match &self.adapter {
            Some(Pairs::Folder(path)) => path,
            Some(Pairs::Checkpoint(snapshot)) => return snapshot.adapter(self.storage).map(Some),
            None => return Ok(None),
        };
        let (settings, values) = result::read(&OsFolder::open(path)?)?;
        Ok(Some(Adapter { settings, values, file: path.display().to_string(), base: self.storage }))
    }

    /// Puts the model on its devices, with its adapter. `more` are the bytes that its use will take beside it.
    ///
    /// # Errors
    /// As [`ModelFiles::load_onto`] and [`memory::check_model`], and an adapter that does not fit.
    pub fn load(&self, devices: &Devices, more: u64) -> Result<Model> {
        let placement = placement_of_model(&self.files, self.storage, devices, &memory_of(devices))?;
        memory::check_model(&self.files, &placement, self.storage, more)?;
        let mut model = progress("loading", |heard| self.files.load_onto(&placement, self.storage, false, 0, heard))?;
        self.refuse_other(|| Ok(Some(model.origin)))?;
        if let Some(Adapter { settings, values, file, .. }) = self.adapter()? {
            model.load_lora(&settings, values, &file)?;
        }
        Ok(model)
    }
}

/// How data are read for a model that no run of ours trained: by its chat template, every assistant turn scored, up to its
/// context.
pub fn reading_untrained<'a>(files: &ModelFiles, variables: Option<&'a TemplateVariables>) -> ReadOptions<'a> {
    ReadOptions {
        format: RecordFormat::Auto,
        fields: None,
        on_error: OnError::Stop,
        cutoff_length: files.architecture.context,
        last_turn_only: false,
        template: Templating::Model,
        variables,
    }
}

/// An adapter that a run goes on from.
pub struct Start {
    /// It, read.
    pub adapter: Adapter,
    /// Digest of its files.
    pub digest: Digest,
    /// Digest of the model that it was trained on, where a run tells.
    trained_on: Option<Digest>,
    /// How that one's matrices were held, where a run tells.
    storage: Option<Hold>,
}

impl Start {
    /// Reads what `adapter.from` names: PEFT's folder, or that of a run, whose adapter it then is.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is neither; [`Error::Config`] for a run that trained all weights, and for an adapter of some
    /// layers; as [`result::read`].
    pub fn open(from: &str) -> Result<Self> {
        let Found { folder, trained_on, storage } = adapter_at(Path::new(from))?;
        let (settings, values) = result::read(&OsFolder::open(&folder)?)?;
        if settings.some_layers {
            let problem = format!(
                "[adapter] from: {} is of some layers only (layers_to_transform), and training takes all: merge it into its \
                 model first (temper export), and give the result as model.path",
                folder.display()
            );
            return Err(Error::Config { problems: vec![problem] });
        }
        let base = storage.unwrap_or(Hold::Auto);
        let adapter = Adapter { settings, values, file: folder.display().to_string(), base };
        Ok(Self { adapter, digest: digest_of_adapter(&folder)?, trained_on, storage })
    }

    /// The configuration in a text that goes on from it, with overrides.
    ///
    /// # Errors
    /// As [`Config::going_on`]; [`Error::Config`] for matrices that are held otherwise than it was trained on.
    pub fn configured(&self, text: &str, file: &str, overrides: &[(String, String)]) -> Result<Config> {
        let Adapter { settings, base, file: folder, .. } = &self.adapter;
        let config = Config::going_on(text, file, overrides, settings, *base)?;
        let Some(storage) = self.storage.filter(|storage| *storage != config.run.storage) else { return Ok(config) };
        Err(Error::Config {
            problems: vec![format!(
                "run.storage: is {}, and the run's adapter was trained on a model that was held as {storage}; leave it out, or, \
                 to go on from it all the same, give its adapter: {folder}",
                config.run.storage
            )],
        })
    }

    /// Where it is and what, in words.
    pub fn words(&self) -> String {
        let Adapter { settings, values, file, .. } = &self.adapter;
        format!("{file}: rank {}, alpha {}, {}", settings.rank, settings.alpha, counted(values.len(), "pair"))
    }

    /// Refuses another model, at `path`, than the one that it was trained on.
    ///
    /// # Errors
    /// [`Error::Config`] with both digests.
    pub fn refuse_other(&self, path: &str, found: Digest) -> Result<()> {
        let Some(trained) = self.trained_on.filter(|trained| *trained != found) else { return Ok(()) };
        let folder = &self.adapter.file;
        Err(Error::Config {
            problems: vec![format!(
                "[adapter] from: {path} is not the model that the run's adapter was trained on: its digest is {found}, and that \
                 one's was {trained}; give the right one with --model, or, to go on from it all the same, its adapter: {folder}"
            )],
        })
    }
}

/// An adapter that is named itself or by its run, and what a run tells of it.
struct Found {
    folder: PathBuf,
    /// Digest of the model that it was trained on.
    trained_on: Option<Digest>,
    /// How that one's matrices were held.
    storage: Option<Hold>,
}

fn adapter_at(path: &Path) -> Result<Found> {
    if is_adapter(path) || !path.is_dir() {
        return Ok(Found { folder: path.to_path_buf(), trained_on: None, storage: None });
    }
    adapter_of_run(path)
}

/// The folder of the adapter that `adapter.from` names.
///
/// # Errors
/// As [`Start::open`].
pub fn adapter_folder(from: &str) -> Result<PathBuf> {
    adapter_at(Path::new(from)).map(|found| found.folder)
}

/// The adapter of a run that has come to its end.
fn adapter_of_run(path: &Path) -> Result<Found> {
    let Ok(run) = RunFolder::look_into(path) else {
        let problem = "is neither an adapter (adapter_config.json is missing) nor the folder of a run".into();
        return Err(Error::Missing { path: path.display().to_string(), problem });
    };
    let config = run.config()?;
    if config.adapter.kind != AdapterKind::Lora {
        let problem = format!(
            "the run {} trained all weights and has no adapter; what it trained is a model: --model {}",
            path.display(),
            quoted(&path.join(MODEL))
        );
        return Err(Error::Config { problems: vec![problem] });
    }
    let folder = path.join(ADAPTER);
    match folder.is_dir() {
        true => Ok(Found { folder, trained_on: trained_on(&run), storage: Some(config.run.storage) }),
        false => Err(Error::Missing { path: folder.display().to_string(), problem: run.no_result() }),
    }
}

/// Digest of the model that a run began with, where it tells.
fn trained_on(run: &RunFolder) -> Option<Digest> {
    run.run_config().ok()?.origin.get("model").copied()
}

/// Digest of the files of an adapter.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Io`] for what cannot be read.
pub fn digest_of_adapter(folder: &Path) -> Result<Digest> {
    /// Bytes that are in memory.
    const DIGESTED_AT_ONCE: usize = 1 << 20;
    let mut digester = Digester::default();
    for name in result::ADAPTER_FILES {
        let file = OpenFile::open(&folder.join(name))?;
        let mut piece = vec![0; DIGESTED_AT_ONCE];
        for begin in (0..file.len()).step_by(DIGESTED_AT_ONCE) {
            let piece = &mut piece[..DIGESTED_AT_ONCE.min((file.len() - begin) as usize)];
            file.read(begin, piece)?;
            digester.add(piece);
        }
    }
    Ok(digester.digest())
}

/// Refuses an adapter of four bits that was trained before the head had more, where nobody says how to hold the model.
fn refuse_other_head(run: &RunFolder, config: &Config) -> Result<()> {
    let of_before = run.run_config().is_ok_and(|begun| !begun.origin.contains_key(HEAD));
    if !of_before || config.run.storage.head_of_four_bits().is_none() {
        return Ok(());
    }
    let advice = "train it again, or give --model, --adapter and another --storage than that of the run";
    Err(Error::Config { problems: vec![format!("{}: {OTHER_HEAD}; {advice}", run.path().display())] })
}

/// What is missing of a run's model, whose path may be relative to another folder than this one.
fn of_run(error: Error, run: &RunFolder) -> Error {
    match error {
        Error::Missing { path, problem } => {
            let run = run.path().display();
            Error::Missing { path, problem: format!("{problem}; it is the model of the run {run} (its model.path)") }
        }
        other => other,
    }
}

fn embedded_folder(name: &str) -> Result<MemoryFolder> {
    let mut folder = MemoryFolder::new();
    let mut found = false;
    for (path, bytes) in FILES {
        if let Some((parent, file)) = path.rsplit_once('/')
            && parent == name
        {
            folder.insert(file, bytes)?;
            found = true;
        }
    }
    if found { Ok(folder) } else { Err(no_such_embedded(name)) }
}

fn no_such_embedded(name: &str) -> Error {
    let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
    Error::Missing { path: format!("{EMBEDDED}{name}"), problem: format!("embedded are: base, {}", names.join(", ")) }
}

/// Contents of a data file; `.gz` is unpacked. A pipe is read to its end, as is standard input for the path `-`.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Io`] where it cannot be read; [`Error::Format`] where it is larger than the limit, or
/// neither a file nor a pipe: before any of it is held, except for a pipe.
pub fn read_data(path: &str) -> Result<Vec<u8>> {
    read(path, &DATA)
}

/// Contents of a configuration, in the same way.
///
/// # Errors
/// As [`read_data`].
pub fn read_configuration(path: &str) -> Result<Vec<u8>> {
    read(path, &CONFIGURATION)
}

fn read(path: &str, limit: &Limit) -> Result<Vec<u8>> {
    if let Some(name) = path.strip_prefix(EMBEDDED) {
        let found = FILES.iter().find(|(file, _)| *file == name);
        return found.map(|(_, bytes)| bytes.to_vec()).ok_or_else(|| no_such_embedded(name));
    }
    let on_disk = Path::new(path);
    let failed = |error: io::Error| read_error(on_disk, &error);
    let wrong = |problem: String| Error::Format { file: path.into(), problem };
    let most = |size: String, most: u64| {
        wrong(format!("has {size}, and {} may have at most {most}; {}", limit.what, limit.advice))
    };
    let whole = |stream: &mut dyn Read| {
        let read = read_stream(stream, limit.stream).map_err(failed)?;
        read.ok_or_else(|| most(format!("more than {} bytes", limit.stream), limit.stream))
    };
    if path == STDIN {
        return whole(&mut io::stdin().lock());
    }
    // Asked before it is opened, since some devices act on that.
    let found = fs::metadata(on_disk).map_err(failed)?;
    if is_pipe(&found) {
        return whole(&mut File::open(on_disk).map_err(failed)?);
    }
    if !found.is_file() {
        let what = if found.is_dir() { "a folder" } else { "a device" };
        return Err(wrong(format!("is {what}; give a file, a pipe, or {STDIN} for standard input")));
    }
    if found.len() > limit.file {
        return Err(most(format!("{} bytes", found.len()), limit.file));
    }
    let file = OpenFile::open(on_disk)?;
    let mut bytes = vec![0; file.len() as usize];
    file.read(0, &mut bytes)?;
    if !path.ends_with(".gz") {
        return Ok(bytes);
    }
    // Unpacked twice, the first time to know the size: a few KiB can unpack to terabytes.
    let unpacked = || MultiGzDecoder::new(bytes.as_slice()).take(limit.stream + 1);
    let size = io::copy(&mut unpacked(), &mut io::sink()).map_err(failed)?;
    if size > limit.stream {
        return Err(most(format!("more than {} bytes when unpacked", limit.stream), limit.stream));
    }
    let mut whole = Vec::with_capacity(size as usize);
    unpacked().read_to_end(&mut whole).map_err(failed)?;
    Ok(whole)
}

/// How far a stream of data is read.
#[derive(Clone)]
pub struct Reading {
    done: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Reading {
    /// Bytes that were read, of a packed file as they lie there.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// All of them, where that is known.
    pub fn total(&self) -> Option<u64> {
        self.total
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.done.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// What is unpacked, whose errors say of which file and what to do.
struct Unpacked<R> {
    inner: R,
    path: PathBuf,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // Travels inside, for whoever reads to take out.
        self.inner.read(out).map_err(|error| io::Error::other(read_error(&self.path, &error)))
    }
}

/// Bytes of a data file as it lies there; none of a pipe. Opens nothing, since some devices act on that, and the other end of a
/// pipe too.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Io`] where there is none; [`Error::Format`] for what is neither a file nor a pipe.
pub fn size_of_data(path: &str) -> Result<Option<u64>> {
    if path == STDIN || path.starts_with(EMBEDDED) {
        return Ok(None);
    }
    let on_disk = Path::new(path);
    let found = fs::metadata(on_disk).map_err(|error| read_error(on_disk, &error))?;
    if !found.is_file() && !is_pipe(&found) {
        let what = if found.is_dir() { "a folder" } else { "a device" };
        let problem = format!("is {what}; give a file, a pipe, or {STDIN} for standard input");
        return Err(Error::Format { file: path.into(), problem });
    }
    Ok(found.is_file().then_some(found.len()))
}

/// Contents of a data file as they are read, of any size; `.gz` is unpacked on the way. A pipe is read, as is standard input
/// for the path `-`.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Io`] where it cannot be opened; [`Error::Format`] for what is neither a file nor a pipe.
pub fn stream_data(path: &str) -> Result<(Box<dyn BufRead>, Reading)> {
    /// Bytes that are read at once.
    const AT_ONCE: usize = 1 << 18;
    let done = Arc::new(AtomicU64::new(0));
    let mut reading = Reading { done: Arc::clone(&done), total: None };
    if path.starts_with(EMBEDDED) {
        let bytes = read_data(path)?;
        reading.total = Some(bytes.len() as u64);
        return Ok((
            Box::new(BufReader::with_capacity(AT_ONCE, Counted { inner: io::Cursor::new(bytes), done })),
            reading,
        ));
    }
    if path == STDIN {
        return Ok((Box::new(BufReader::with_capacity(AT_ONCE, Counted { inner: io::stdin(), done })), reading));
    }
    reading.total = size_of_data(path)?;
    let on_disk = Path::new(path);
    let file = Counted { inner: File::open(on_disk).map_err(|error| read_error(on_disk, &error))?, done };
    let input: Box<dyn Read> = match path.ends_with(".gz") {
        true => Box::new(Unpacked { inner: MultiGzDecoder::new(file), path: on_disk.to_path_buf() }),
        false => Box::new(file),
    };
    Ok((Box::new(BufReader::with_capacity(AT_ONCE, input)), reading))
}

/// All of a stream; `None` where it is longer than `most` bytes.
fn read_stream(stream: &mut dyn Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    stream.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// A pipe, of a shell's `<(...)` or by name.
#[cfg(unix)]
fn is_pipe(found: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_found: &fs::Metadata) -> bool {
    false
}
