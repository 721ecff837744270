//! What a run has learned, as the files that other programs load: an adapter's, or those of a whole model.

use std::io::{self, Write};

use super::checkpoint::NamedFile;
use super::prepare;
use crate::config::{AdapterKind, Config};
use crate::error::Result;
use crate::export::{model, peft};
use crate::host::Folder;
use crate::model::Model;
use crate::model::files::{MOST_TOKENIZER_BYTES, ModelFiles};
use crate::weights::{WeightFormat, read_if_there};

/// Folder of a trained adapter.
pub const ADAPTER: &str = "adapter";
/// Folder of a model that was trained whole.
pub const MODEL: &str = "model";
/// Name of a whole model's weights.
pub const WEIGHTS: &str = "model.safetensors";
/// What a model's folder has besides its weights and `config.json`, as far as it is there.
pub const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// A result on its way to files.
pub struct Learned<'a> {
    /// Name of the folder that holds it: [`ADAPTER`] or [`MODEL`].
    pub folder: &'static str,
    /// The small files.
    pub files: Vec<NamedFile>,
    /// A whole model's weights, which are too large to be held twice; none of an adapter.
    pub weights: Option<Weights<'a>>,
}

/// A whole model's weights, which stay on the device until they are written.
pub struct Weights<'a>(&'a Model);

impl Weights<'_> {
    /// Writes [`WEIGHTS`].
    ///
    /// # Errors
    /// As [`model::write`].
    pub async fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        model::write(out, self.0).await
    }
}

/// Those of [`TOKENIZER_FILES`] that a model's folder has.
///
/// # Errors
/// The folder's, such as for a link out of it; [`crate::Error::Format`] for a file that is too large.
pub fn tokenizer_files(folder: &dyn Folder) -> Result<Vec<NamedFile>> {
    let mut found = Vec::new();
    for name in TOKENIZER_FILES {
        found.extend(read_if_there(folder, name, MOST_TOKENIZER_BYTES)?.map(|bytes| (name.to_string(), bytes)));
    }
    Ok(found)
}

/// What a model that was made of `files` has learned. `name` is what an adapter calls its base model; `beside` are the files
/// that came beside the model ([`tokenizer_files`]).
///
/// # Errors
/// Device errors; as [`peft::write`].
pub async fn learned<'a>(
    model: &'a Model,
    config: &Config,
    files: &ModelFiles,
    name: &str,
    beside: &[NamedFile],
) -> Result<Learned<'a>> {
    if config.adapter.kind == AdapterKind::Lora {
        let values = peft::values(model).await?;
        let files = peft::write(&prepare::lora_settings(config), Some(name), &values)?;
        return Ok(Learned { folder: ADAPTER, files, weights: None });
    }
    let small = beside_weights(files, model::format(model), beside)?;
    Ok(Learned { folder: MODEL, files: small, weights: Some(Weights(model)) })
}

/// What a Hugging Face folder has besides its weights, whose matrices are stored as `format`; `beside` as in [`learned`].
///
/// # Errors
/// [`crate::Error::Tokenizer`] for a tokenizer that has no such files.
pub fn beside_weights(files: &ModelFiles, format: WeightFormat, beside: &[NamedFile]) -> Result<Vec<NamedFile>> {
    let config = model::config_json(&files.architecture, &files.special, format);
    let mut small = vec![("config.json".to_string(), config.into_bytes())];
    small.extend_from_slice(beside);
    if let (1, Some(tokenizer)) = (small.len(), &files.tokenizer) {
        // A GGUF file holds the tokenizer in its own way, and a page keeps no file.
        small.extend(tokenizer.to_files()?);
    }
    Ok(small)
}
