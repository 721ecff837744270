//! A whole model as a Hugging Face folder: `config.json` and one `model.safetensors`.
//!
//! The weights are one file of any size, written with one tensor in memory at a time. There is no sharding;
//! transformers and this engine read single files of any size.

use std::io::{self, Write};

use super::stream::{Store, Stream};
use crate::error::wrong;
use crate::kernels::Weights;
use crate::model::Model;
use crate::model::architecture::{Architecture, SpecialTokens};
use crate::model::layout::TensorSpec;
use crate::model::parameter::{Parameter, to_host};
use crate::weights::{WeightFormat, WeightSource, tensor_error};

/// What a model that was trained whole is stored as: bf16 where its matrices are held so, f32 else.
pub fn format(model: &Model) -> WeightFormat {
    let compact = model.trained().iter().any(|parameter| matches!(parameter.value, Weights::Bf16(_)));
    if compact { WeightFormat::Bf16 } else { WeightFormat::F32 }
}

/// Contents of `config.json` for weights stored as `format` (F32, F16 or BF16).
pub fn config_json(architecture: &Architecture, special: &SpecialTokens, format: WeightFormat) -> String {
    let dtype = match format {
        WeightFormat::F16 => "float16",
        WeightFormat::Bf16 => "bfloat16",
        _ => "float32",
    };
    architecture.to_config_json(special, dtype)
}

/// Writes `model.safetensors` of weights as they are, in files or merged: matrices as `format` (F32, F16 or BF16), vectors in
/// f32.
///
/// # Errors
/// The writer's; [`crate::Error`] inside for what cannot be read or stored. See [`crate::error::into_error`].
pub fn write_source(
    out: &mut dyn Write,
    architecture: &Architecture,
    source: &dyn WeightSource,
    format: WeightFormat,
) -> io::Result<()> {
    let store = |spec: &TensorSpec| if spec.shape.len() == 1 { WeightFormat::F32 } else { format };
    let specs: Vec<_> = architecture.tensor_specs().into_iter().map(|spec| (store(&spec), spec)).collect();
    let announced = specs.iter().map(|(store, spec)| (spec.clone(), Store::Float(*store))).collect();
    let mut stream = Stream::begin_mixed(out, announced)?;
    for (store, spec) in &specs {
        let raw =
            source.read(&spec.name).and_then(|raw| if raw.format == *store { Ok(raw) } else { raw.stored_as(*store) });
        let raw = raw.map_err(wrong)?;
        match architecture.family.offset_of(&spec.name, &spec.shape) {
            0.0 => stream.append_bytes(&spec.name, &raw.bytes)?,
            offset => stream.append(&spec.name, &without(&raw.to_f32(), offset))?,
        }
    }
    stream.finish()
}

/// Writes `model.safetensors` of a model that was trained whole, each tensor as it is held: matrices in bf16 as bf16, the rest
/// as f32. Each is read back from the device when its turn comes, so that the weights do not exist a second time.
///
/// # Errors
/// The writer's; device errors; [`crate::Error::Tensor`] for a tensor that was not trained. See
/// [`crate::error::into_error`].
pub async fn write(out: &mut dyn Write, model: &Model) -> io::Result<()> {
    let trained = model.trained();
    // Tiles of one vocabulary matrix follow one another under one name.
    let of = |name: &str| -> Vec<&Parameter> {
        trained.iter().copied().filter(|p| p.parts.iter().any(|part| part.name == name)).collect()
    };
    let mut specs = Vec::new();
    for spec in model.arch.tensor_specs() {
        let store = match of(&spec.name).first().map(|parameter| &parameter.value) {
            Some(Weights::F32(_)) => WeightFormat::F32,
            Some(Weights::Bf16(_)) => WeightFormat::Bf16,
            None => return Err(wrong(tensor_error("model.safetensors", &spec.name, "was not trained".into()))),
        };
        specs.push((spec, Store::Float(store)));
    }
    let mut stream = Stream::begin_mixed(out, specs.clone())?;
    for (TensorSpec { name, shape }, _) in &specs {
        let offset = model.arch.family.offset_of(name, shape);
        for parameter in of(name) {
            let own = parameter.ranges().filter(|(part, ..)| part == name).map(|(.., elements)| elements);
            match &parameter.value {
                Weights::F32(values) => {
                    let values = to_host(values).await.map_err(wrong)?;
                    for elements in own {
                        match offset {
                            0.0 => stream.append(name, &values[elements])?,
                            offset => stream.append(name, &without(&values[elements], offset))?,
                        }
                    }
                }
                Weights::Bf16(matrix) => {
                    let bytes = matrix.upper.read().await.map_err(wrong)?;
                    for elements in own {
                        stream.append_bytes(name, &bytes[2 * elements.start..2 * elements.end])?;
                    }
                }
            }
        }
    }
    stream.finish()
}

/// A norm as files have it.
fn without(values: &[f32], offset: f32) -> Vec<f32> {
    values.iter().map(|value| value - offset).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::folder::of_family;
    use crate::weights::safetensors::SafetensorsFile;
    use crate::weights::{MemorySource, RawTensor};

    #[test]
    fn norms_are_written_as_the_files_of_the_family_have_them() {
        let config = r#"{"model_type": "gemma3_text", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2, "query_pre_attn_scalar": 2,
            "intermediate_size": 6, "max_position_embeddings": 16}"#;
        let arch = Architecture::from_config_json(config.as_bytes(), "config.json").unwrap();
        let held = |spec: TensorSpec| {
            let values = vec![1.25; spec.shape.iter().product()];
            RawTensor::from_f32(&spec.name, spec.shape, &values)
        };
        let source = MemorySource::new(arch.tensor_specs().into_iter().map(held)).unwrap();
        let mut bytes = Vec::new();
        write_source(&mut bytes, &arch, &source, WeightFormat::Bf16).unwrap();
        let file: Arc<dyn WeightSource> = Arc::new(SafetensorsFile::open(Arc::new(bytes), "x").unwrap());
        assert_eq!(file.read("model.norm.weight").unwrap().to_f32(), [0.25; 4]);
        assert_eq!(file.read("model.embed_tokens.weight").unwrap().to_f32(), [1.25; 32]);
        let read = of_family(file, arch.family).unwrap();
        for spec in arch.tensor_specs() {
            assert_eq!(read.read(&spec.name).unwrap().to_f32(), source.read(&spec.name).unwrap().to_f32());
        }
    }
}
