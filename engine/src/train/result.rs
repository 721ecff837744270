//! What a run has learned, as the files that other programs load: an adapter's, or those of a whole model.

use std::collections::HashMap;
use std::io::{self, Write};

use super::checkpoint::NamedFile;
use super::prepare;
use crate::config::{AdapterKind, Config};
use crate::error::{Error, Result};
use crate::export::{model, peft};
use crate::model::Model;
use crate::model::architecture::Architecture;
use crate::model::files::ModelFiles;
use crate::weights::WeightFormat;

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
pub struct Learned {
    /// Name of the folder that holds it: `adapter` or `model`.
    pub folder: &'static str,
    /// The small files.
    pub files: Vec<NamedFile>,
    /// A whole model's weights, which are too large to be held twice; none of an adapter.
    pub weights: Option<Weights>,
}

/// A whole model's weights, read back from the device.
pub struct Weights {
    architecture: Architecture,
    tensors: HashMap<String, Vec<f32>>,
}

impl Weights {
    /// Writes [`WEIGHTS`], giving up each tensor once it is written.
    ///
    /// # Errors
    /// The writer's; a tensor that is missing or not finite, see [`into_error`](crate::export::stream::into_error).
    pub fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        model::write(out, &self.architecture, WeightFormat::F32, &mut |spec| {
            self.tensors.remove(&spec.name).ok_or_else(|| Error::Tensor {
                file: WEIGHTS.into(),
                tensor: spec.name.clone(),
                problem: "was not trained".into(),
            })
        })
    }
}

/// What a model that was made of `files` has learned. `name` is what an adapter calls its base model; `beside` reads a file
/// that came beside the model, such as one of [`TOKENIZER_FILES`].
///
/// # Errors
/// Device errors; as [`peft::write`].
pub async fn learned(
    model: &Model,
    config: &Config,
    files: &ModelFiles,
    name: &str,
    beside: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
) -> Result<Learned> {
    if config.adapter.kind == AdapterKind::Lora {
        let values = peft::values(model).await?;
        let files = peft::write(&prepare::lora_settings(config), Some(name), &values)?;
        return Ok(Learned { folder: "adapter", files, weights: None });
    }
    let architecture = files.architecture.clone();
    let config = model::config_json(&architecture, &files.special, WeightFormat::F32);
    let mut small = vec![("config.json".to_string(), config.into_bytes())];
    small.extend(TOKENIZER_FILES.iter().filter_map(|name| Some((name.to_string(), beside(name)?))));
    if let (1, Some(tokenizer)) = (small.len(), &files.tokenizer) {
        // A GGUF file holds the tokenizer in its own way, and a page keeps no file.
        small.extend(tokenizer.to_files()?);
    }
    let weights = Weights { architecture, tensors: model::values(model).await? };
    Ok(Learned { folder: "model", files: small, weights: Some(weights) })
}
