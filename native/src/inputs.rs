//! What a command is given: models, adapters and data sets by path, and the small ones embedded in the program.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use temper_engine::export::peft;
use temper_engine::host::{Folder, MemoryFolder};
use temper_engine::model::Model;
use temper_engine::model::files::ModelFiles;
use temper_engine::model::load::Hold;
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

/// Puts a model that is only used on a device, with an adapter where one is given.
///
/// # Errors
/// As [`ModelFiles::load`], and an adapter that does not fit.
pub fn load_frozen(files: &ModelFiles, device: &Device, adapter: Option<&Path>) -> Result<Model> {
    let mut model = files.load(device, Hold::F32, false, 0)?;
    if let Some(path) = adapter {
        let (settings, values) = peft::read(&OsFolder::open(path)?)?;
        model.load_lora(&settings, values, &path.display().to_string())?;
    }
    Ok(model)
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
