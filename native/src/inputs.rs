//! What a command is given: models, adapters and data sets by path, and the small ones embedded in the program.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use temper_engine::data::{
    self, ChatTemplate, Content, Document, EncodeOptions, EncodeReport, Format, OnError, Record, Report, Tokenizer,
};
use temper_engine::eval::perplexity::{self, WINDOW};
use temper_engine::export::peft;
use temper_engine::host::{Folder, MemoryFolder};
use temper_engine::model::Model;
use temper_engine::model::architecture::{Architecture, SpecialTokens};
use temper_engine::model::load::{self, Hold};
use temper_engine::weights::{self, WeightSource};
use temper_engine::{Device, Error, Result};

use crate::files::{MappedFile, OsFolder, io_error};

/// Paths that begin with this name files inside the program.
pub const EMBEDDED: &str = "embedded:";

/// The configuration that `temper train` runs without an argument.
pub const DEMO_CONFIG: &str = include_str!("../demo/train.toml");

/// Files inside the program, by name.
const FILES: [(&str, &[u8]); 7] = [
    ("base/config.json", include_bytes!("../demo/base/config.json")),
    ("base/model.safetensors", include_bytes!("../demo/base/model.safetensors")),
    ("base/tokenizer.json", include_bytes!("../demo/base/tokenizer.json")),
    ("base/tokenizer_config.json", include_bytes!("../demo/base/tokenizer_config.json")),
    ("train.jsonl", include_bytes!("../demo/train.jsonl")),
    ("target.jsonl", include_bytes!("../demo/target.jsonl")),
    ("general.txt", include_bytes!("../demo/general.txt")),
];

/// No data file is read past this: it is held in memory whole.
const MAX_DATA_BYTES: u64 = 4 << 30;

/// A model's description, weights and tokenizer, not yet on a device.
pub struct ModelFiles {
    /// Shape and wiring.
    pub architecture: Architecture,
    /// The weights; none for a model that starts from random ones.
    pub weights: Option<Arc<dyn WeightSource>>,
    /// The tokenizer, where the files hold one.
    pub tokenizer: Option<Tokenizer>,
    /// Token ids that the configuration names.
    pub special: SpecialTokens,
}

impl ModelFiles {
    /// Opens a Hugging Face folder, a GGUF file, or an embedded folder.
    ///
    /// # Errors
    /// What is missing or malformed, with its file.
    pub fn open(path: &str) -> Result<Self> {
        if let Some(name) = path.strip_prefix(EMBEDDED) {
            return Self::open_folder(&embedded_folder(name)?);
        }
        let on_disk = Path::new(path);
        if on_disk.is_dir() {
            return Self::open_folder(&OsFolder::open(on_disk)?);
        }
        let (opened, gguf) = weights::open_gguf(Arc::new(MappedFile::open(on_disk)?), path)?;
        let vocabulary = gguf.tokenizer()?;
        let tokenizer = Tokenizer::from_gguf(&vocabulary.vocabulary())?;
        Self::new(opened.architecture, Some(opened.weights), Some(tokenizer), opened.special)
    }

    fn open_folder(folder: &dyn Folder) -> Result<Self> {
        let opened = weights::open_folder(folder)?;
        let tokenizer = read_tokenizer(folder)?;
        Self::new(opened.architecture, Some(opened.weights), tokenizer, opened.special)
    }

    /// A model without weights: the architecture of a `config.json` and the tokenizer of a folder.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn random(architecture: Architecture, special: SpecialTokens, tokenizer_folder: &str) -> Result<Self> {
        let tokenizer = match tokenizer_folder.strip_prefix(EMBEDDED) {
            Some(name) => read_tokenizer(&embedded_folder(name)?)?,
            None => read_tokenizer(&OsFolder::open(Path::new(tokenizer_folder))?)?,
        };
        Self::new(architecture, None, tokenizer, special)
    }

    fn new(
        architecture: Architecture,
        weights: Option<Arc<dyn WeightSource>>,
        mut tokenizer: Option<Tokenizer>,
        special: SpecialTokens,
    ) -> Result<Self> {
        if let Some(tokenizer) = &mut tokenizer {
            if tokenizer.vocab_size() > architecture.vocab {
                return Err(Error::Tokenizer {
                    problem: format!(
                        "it has {} tokens and the model only {}: they do not belong together",
                        tokenizer.vocab_size(),
                        architecture.vocab
                    ),
                });
            }
            tokenizer.add_eos_ids(&special.eos)?;
        }
        Ok(Self { architecture, weights, tokenizer, special })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the files hold none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer
            .as_ref()
            .ok_or_else(|| Error::Tokenizer { problem: "there is no tokenizer.json beside the model".into() })
    }

    /// Puts the model on a device, all parameters trained where `full`.
    ///
    /// # Errors
    /// What the weights lack; device errors.
    pub fn load(&self, device: &Device, hold: Hold, full: bool, seed: u64) -> Result<Model> {
        match &self.weights {
            Some(weights) => load::load(&self.architecture, weights.as_ref(), device, hold, full),
            None => load::random(&self.architecture, seed, device),
        }
    }

    /// As [`ModelFiles::load`] for a model that is only used, with an adapter where one is given.
    ///
    /// # Errors
    /// As [`ModelFiles::load`], and an adapter that does not fit.
    pub fn load_frozen(&self, device: &Device, adapter: Option<&Path>) -> Result<Model> {
        let mut model = self.load(device, Hold::F32, false, 0)?;
        if let Some(path) = adapter {
            let (settings, values) = peft::read(&OsFolder::open(path)?)?;
            model.load_lora(&settings, values, &path.display().to_string())?;
        }
        Ok(model)
    }
}

fn read_tokenizer(folder: &dyn Folder) -> Result<Option<Tokenizer>> {
    let Some(tokenizer) = read_whole(folder, "tokenizer.json")? else { return Ok(None) };
    let mut config = read_whole(folder, "tokenizer_config.json")?;
    if let Some(template) = read_whole(folder, "chat_template.jinja")? {
        config = Some(with_chat_template(config, &template)?);
    }
    Tokenizer::from_json(&tokenizer, config.as_deref()).map(Some)
}

/// Newer folders keep the chat template in a file of its own.
fn with_chat_template(config: Option<Vec<u8>>, template: &[u8]) -> Result<Vec<u8>> {
    let wrong = |problem: String| Error::Template { problem };
    let mut config: serde_json::Map<String, serde_json::Value> = match config {
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| wrong(format!("tokenizer_config.json is not JSON: {e}")))?
        }
        None => serde_json::Map::new(),
    };
    let text = String::from_utf8(template.to_vec()).map_err(|_| wrong("chat_template.jinja is not UTF-8".into()))?;
    config.insert("chat_template".into(), text.into());
    serde_json::to_vec(&config).map_err(|e| wrong(e.to_string()))
}

fn read_whole(folder: &dyn Folder, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = folder.open(name)? else { return Ok(None) };
    if file.len() > MAX_DATA_BYTES {
        return Err(Error::Format {
            file: folder.display(name),
            problem: format!("{} bytes are too many", file.len()),
        });
    }
    let mut bytes = vec![0; file.len() as usize];
    file.read(0, &mut bytes)?;
    Ok(Some(bytes))
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
    Error::Io { path: format!("{EMBEDDED}{name}"), problem: format!("embedded are: base, {}", names.join(", ")) }
}

/// Contents of a data file; `.gz` is unpacked.
///
/// # Errors
/// [`Error::Io`].
pub fn read_data(path: &str) -> Result<Vec<u8>> {
    if let Some(name) = path.strip_prefix(EMBEDDED) {
        let found = FILES.iter().find(|(file, _)| *file == name);
        return found.map(|(_, bytes)| bytes.to_vec()).ok_or_else(|| no_such_embedded(name));
    }
    let on_disk = Path::new(path);
    let file = std::fs::File::open(on_disk).map_err(|e| io_error(on_disk, &e))?;
    let mut bytes = Vec::new();
    let read = match path.ends_with(".gz") {
        true => flate2::read::MultiGzDecoder::new(file).take(MAX_DATA_BYTES).read_to_end(&mut bytes),
        false => file.take(MAX_DATA_BYTES).read_to_end(&mut bytes),
    };
    match read {
        Ok(n) if n as u64 == MAX_DATA_BYTES => {
            Err(Error::Data { file: path.into(), problem: format!("it is larger than {MAX_DATA_BYTES} bytes") })
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(io_error(on_disk, &error)),
    }
}

/// How a data set is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// What its records look like.
    pub format: Format,
    /// What happens to a broken record.
    pub on_error: OnError,
    /// Longest document, in tokens.
    pub cutoff_length: usize,
    /// Train the last assistant turn only.
    pub last_turn_only: bool,
}

/// A data set as documents.
pub struct DataSet {
    /// The documents.
    pub documents: Vec<Document>,
    /// What the file held.
    pub records: Report,
    /// What became of it.
    pub encoding: EncodeReport,
}

/// Reads a set on which loss is only measured. Records are scored on what would be trained; a plain text is cut into
/// windows of [`WINDOW`] tokens, each on its own and without tokens around it, or shorter ones where the model's context
/// or the options' `cutoff_length` is shorter.
///
/// # Errors
/// As [`read_set`].
pub fn read_measured(path: &str, tokenizer: &Tokenizer, context: usize, options: ReadOptions) -> Result<DataSet> {
    let bytes = read_data(path)?;
    let (records, report) = data::record::parse(path, &bytes, options.format, options.on_error)?;
    let [Record { content: Content::Text(text), .. }] = records.as_slice() else {
        return read_set(path, tokenizer, options);
    };
    if !bytes.ends_with(text.as_bytes()) {
        // One record of JSONL.
        return read_set(path, tokenizer, options);
    }
    let documents = perplexity::windows(&tokenizer.encode(text)?, WINDOW.min(context).min(options.cutoff_length));
    if documents.is_empty() {
        return Err(Error::Data { file: path.into(), problem: "it has fewer than two tokens".into() });
    }
    let sum = |of: fn(&Document) -> usize| documents.iter().map(of).sum();
    let encoding = EncodeReport {
        documents: documents.len(),
        tokens: sum(|d| d.tokens.len()),
        trained_tokens: sum(Document::trained_tokens),
        longest: documents.iter().map(|d| d.tokens.len()).max().unwrap_or(0),
        ..EncodeReport::default()
    };
    Ok(DataSet { documents, records: report, encoding })
}

/// Reads and tokenises a data set.
///
/// # Errors
/// Broken records with their line, and a set of which nothing is left.
pub fn read_set(path: &str, tokenizer: &Tokenizer, options: ReadOptions) -> Result<DataSet> {
    let (records, report) = data::record::parse(path, &read_data(path)?, options.format, options.on_error)?;
    let template = tokenizer
        .chat_template()
        .map(|source| {
            let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
            let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
            ChatTemplate::new(source, bos.as_deref(), eos.as_deref(), None)
        })
        .transpose()?;
    let encode = EncodeOptions {
        cutoff_length: options.cutoff_length,
        last_turn_only: options.last_turn_only,
        on_error: options.on_error,
    };
    let encoded = data::encode(path, &records, tokenizer, template.as_ref(), encode)?;
    Ok(DataSet { documents: encoded.documents, records: report, encoding: encoded.report })
}
