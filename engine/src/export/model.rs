//! A whole model as a Hugging Face folder: `config.json` and one `model.safetensors`.
//!
//! The weights are one file of any size, written with one tensor in memory at a time. There is no sharding;
//! transformers and this engine read single files of any size.

use std::io::{self, Write};

use super::stream::{Stream, wrong};
use crate::model::Model;
use crate::model::architecture::{Architecture, SpecialTokens};
use crate::model::parameter::to_host;
use crate::weights::{WeightFormat, tensor_error};

/// Contents of `config.json` for weights stored as `format` (F32, F16 or BF16).
pub fn config_json(architecture: &Architecture, special: &SpecialTokens, format: WeightFormat) -> String {
    let dtype = match format {
        WeightFormat::F16 => "float16",
        WeightFormat::Bf16 => "bfloat16",
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
pub async fn write(out: &mut dyn Write, model: &Model, format: WeightFormat) -> io::Result<()> {
    let specs = model.arch.tensor_specs();
    let trained = model.trained();
    let mut stream = Stream::begin(out, specs.clone(), format)?;
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
