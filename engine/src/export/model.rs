//! A whole model as a Hugging Face folder: `config.json` and one `model.safetensors`.
//!
//! The weights are one file of any size, written with one tensor in memory at a time. There is no sharding;
//! transformers and this engine read single files of any size.

use std::collections::HashMap;
use std::io::{self, Write};

use super::stream::{Stream, wrong};
use crate::error::Result;
use crate::model::Model;
use crate::model::architecture::{Architecture, SpecialTokens, TensorSpec};
use crate::model::parameter::to_host;
use crate::weights::{Storage, tensor_error};

/// Contents of `config.json` for weights stored as `storage` (F32, F16 or BF16).
pub fn config_json(architecture: &Architecture, special: &SpecialTokens, storage: Storage) -> String {
    let dtype = match storage {
        Storage::F16 => "float16",
        Storage::Bf16 => "bfloat16",
        _ => "float32",
    };
    architecture.to_config_json(special, dtype)
}

/// Writes `model.safetensors` of a model that was trained whole. Each tensor is read back from the device when its turn
/// comes, so that the weights do not exist a second time.
///
/// # Errors
/// The writer's; device errors; [`crate::Error::Tensor`] for a tensor that was not trained. See
/// [`super::stream::into_error`].
pub async fn write_trained(out: &mut dyn Write, model: &Model, storage: Storage) -> io::Result<()> {
    let specs = model.arch.tensor_specs();
    let trained = model.trained();
    let mut stream = Stream::begin(out, specs.clone(), storage)?;
    for spec in &specs {
        let mut values = Vec::with_capacity(spec.shape.iter().product());
        // Tiles of one vocabulary matrix follow one another under one name.
        for parameter in trained.iter().filter(|p| p.parts.iter().any(|part| part.name == spec.name)) {
            let host = to_host(&parameter.value).await.map_err(wrong)?;
            parameter.split(&host).filter(|(name, ..)| *name == spec.name).for_each(|(.., v)| values.extend(v));
        }
        if values.is_empty() {
            return Err(wrong(tensor_error("model.safetensors", &spec.name, "was not trained".into())));
        }
        stream.tensor(&spec.name, &values)?;
    }
    stream.finish()
}

/// Every trained tensor by name, read back from the device: after full fine-tuning, all that [`write`] asks for.
///
/// # Errors
/// Device errors.
pub async fn values(model: &Model) -> Result<HashMap<String, Vec<f32>>> {
    let mut tensors: HashMap<String, Vec<f32>> = HashMap::new();
    for parameter in model.trained() {
        let host = to_host(&parameter.value).await?;
        for (name, _, values) in parameter.split(&host) {
            // Tiles of one vocabulary matrix follow one another under one name.
            tensors.entry(name.to_string()).or_default().extend_from_slice(values);
        }
    }
    Ok(tensors)
}

/// Writes `model.safetensors`, asking `fetch` for each tensor of [`Architecture::tensor_specs`] in that order.
///
/// # Errors
/// The writer's and `fetch`'s, and as [`Stream::tensor`]; see [`super::stream::into_error`].
pub fn write(
    out: &mut dyn Write,
    architecture: &Architecture,
    storage: Storage,
    fetch: &mut dyn FnMut(&TensorSpec) -> Result<Vec<f32>>,
) -> io::Result<()> {
    let specs = architecture.tensor_specs();
    let mut stream = Stream::begin(out, specs.clone(), storage)?;
    for spec in &specs {
        stream.tensor(&spec.name, &fetch(spec).map_err(wrong)?)?;
    }
    stream.finish()
}
