//! A whole model as a Hugging Face folder: `config.json` and one `model.safetensors`.
//!
//! The weights are one file of any size, written with one tensor in memory at a time. There is no sharding;
//! transformers and this engine read single files of any size.

use std::collections::HashMap;
use std::io::{self, Write};

use super::stream::{Stream, wrong};
use crate::error::Result;
use crate::model::Model;
use crate::model::architecture::{Architecture, SpecialTokens};
use crate::model::layout::TensorSpec;
use crate::model::parameter::to_host;
use crate::weights::WeightFormat;

/// Contents of `config.json` for weights stored as `format` (F32, F16 or BF16).
pub fn config_json(architecture: &Architecture, special: &SpecialTokens, format: WeightFormat) -> String {
    let dtype = match format {
        WeightFormat::F16 => "float16",
        WeightFormat::Bf16 => "bfloat16",
        _ => "float32",
    };
    architecture.to_config_json(special, dtype)
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
    format: WeightFormat,
    fetch: &mut dyn FnMut(&TensorSpec) -> Result<Vec<f32>>,
) -> io::Result<()> {
    let specs = architecture.tensor_specs();
    let mut stream = Stream::begin(out, specs.clone(), format)?;
    for spec in &specs {
        stream.tensor(&spec.name, &fetch(spec).map_err(wrong)?)?;
    }
    stream.finish()
}
