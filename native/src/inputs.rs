//! What a command is given: models, adapters and data sets by path, and the small ones embedded in the program.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use temper_engine::configuration::AdapterKind;
use temper_engine::host::{Folder, MemoryFolder};
use temper_engine::models::Hold;
use temper_engine::result::{self, ADAPTER, MODEL};
use temper_engine::{Device, Error, Model, ModelFiles, Result};

use crate::cli::ModelArgs;
use crate::files::{MappedFile, OsFolder, io_error};
use crate::run_folder::RunFolder;

/// Paths that begin with this name files inside the program.
pub const EMBEDDED: &str = "embedded:";

/// The configuration that `temper train` runs without any argument.
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

/// Opens a Hugging Face folder, a GGUF file, or an embedded folder.
///
/// # Errors
/// What is missing or malformed, with its file.
pub fn open_model(path: &str) -> Result<ModelFiles> {
    let on_disk = Path::new(path);
    if path.starts_with(EMBEDDED) || on_disk.is_dir() {
        return ModelFiles::open_folder(open_folder(path)?.as_ref());
    }
    ModelFiles::open_gguf(Arc::new(MappedFile::open(on_disk)?), path)
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

/// A model that is only used: its files, and the adapter to put on it.
pub struct ModelInUse {
    /// Description, weights and tokenizer.
    pub files: ModelFiles,
    adapter: Option<PathBuf>,
}

impl ModelInUse {
    /// Opens what `--model` and `--adapter` name, or what the run of `--run` trained.
    ///
    /// # Errors
    /// What is missing or malformed, with its file; [`Error::Missing`] for a run that has not come to its end.
    pub fn open(args: &ModelArgs) -> Result<Self> {
        let Some(run) = &args.run else {
            let path = args.model.as_deref().unwrap_or_default();
            return Ok(Self { files: open_model(path)?, adapter: args.adapter.clone() });
        };
        let config = RunFolder::look_into(run)?.config()?;
        let result = run.join(if config.adapter.kind == AdapterKind::Lora { ADAPTER } else { MODEL });
        if !result.is_dir() {
            let problem = format!(
                "is not there: the run has not come to its end; go on with it: temper train --out {} --resume",
                run.display()
            );
            return Err(Error::Missing { path: result.display().to_string(), problem });
        }
        match config.adapter.kind {
            AdapterKind::Lora => Ok(Self { files: open_model(&config.model.path)?, adapter: Some(result) }),
            AdapterKind::None => Ok(Self { files: open_model(&result.display().to_string())?, adapter: None }),
        }
    }

    /// Puts the model on a device, with its adapter.
    ///
    /// # Errors
    /// As [`ModelFiles::load`], and an adapter that does not fit.
    pub fn load(&self, device: &Device) -> Result<Model> {
        let mut model = self.files.load(device, Hold::Auto, false, 0)?;
        if let Some(path) = &self.adapter {
            let (settings, values) = result::read(&OsFolder::open(path)?)?;
            model.load_lora(&settings, values, &path.display().to_string())?;
        }
        Ok(model)
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
