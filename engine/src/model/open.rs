//! Opens a model's files: description and weights together, compared with each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::architecture::{Architecture, SpecialTokens};
use super::folder;
use super::gguf::GgufModel;
use super::layout::HEAD;
use crate::error::{Error, Result};
use crate::host::{Bytes, Folder, MOST_CONFIGURATION_BYTES, shorten};
use crate::weights::gguf::Gguf;
use crate::weights::{WeightSource, read_small, safetensors, tensor_error};
use crate::words::counted;

/// A model's description and its weights, checked against each other.
#[derive(Clone)]
pub struct Opened {
    /// Shape and wiring.
    pub architecture: Architecture,
    /// The tensors.
    pub weights: Arc<dyn WeightSource>,
    /// Token ids that the model's configuration names.
    pub special: SpecialTokens,
}

/// Opens a Hugging Face folder: `config.json`, and `model.safetensors` or the shards that
/// `model.safetensors.index.json` lists.
///
/// # Errors
/// [`Error::Missing`] for a missing file, otherwise as [`Architecture::from_config_json`], [`safetensors::open_folder`],
/// [`folder::of_family`] and [`check`].
pub fn open_folder(folder: &dyn Folder) -> Result<Opened> {
    const CONFIG: &str = "config.json";
    let (config, file) = read_small(folder, CONFIG, MOST_CONFIGURATION_BYTES)?;
    let architecture = Architecture::from_config_json(&config, &file)?;
    let special = SpecialTokens::from_config_json(&config, &file)?;
    let weights = folder::of_family(Arc::new(safetensors::open_folder(folder)?), architecture.family)?;
    check(weights.as_ref(), &architecture)?;
    Ok(Opened { architecture, weights, special })
}

/// Opens a GGUF file; also gives the file itself, which holds the tokenizer. `file` is its name in messages.
///
/// # Errors
/// As [`Gguf::open`], [`GgufModel::new`] and [`check`].
pub fn open_gguf(bytes: Arc<dyn Bytes>, file: &str) -> Result<(Opened, Arc<GgufModel>)> {
    of_gguf(Gguf::open(bytes, file)?)
}

/// As [`open_gguf`], with the other parts beside it where the file is one of several.
///
/// # Errors
/// As [`Gguf::open_in`], [`GgufModel::new`] and [`check`].
pub fn open_gguf_in(folder: &dyn Folder, name: &str) -> Result<(Opened, Arc<GgufModel>)> {
    of_gguf(Gguf::open_in(folder, name)?)
}

fn of_gguf(container: Gguf) -> Result<(Opened, Arc<GgufModel>)> {
    let gguf = Arc::new(GgufModel::new(container)?);
    let architecture = gguf.architecture().clone();
    check(gguf.as_ref(), &architecture)?;
    let special = gguf.special_tokens()?;
    Ok((Opened { architecture, weights: gguf.clone(), special }, gguf))
}

/// Compares a source with a description: every tensor there, in the right shape, and none more. A vector may not be stored in
/// blocks: where rows are moved, its rows are single elements.
///
/// Two kinds of surplus are common in published files, mean nothing and pass: rotary tables (`rotary_emb.inv_freq`),
/// and a copy of a tied head.
///
/// # Errors
/// [`Error::Tensor`] for one problem, [`Error::Format`] listing several together.
pub fn check(source: &dyn WeightSource, architecture: &Architecture) -> Result<()> {
    let mut problems: Vec<(String, String)> = Vec::new();
    let mut expected = BTreeSet::new();
    for spec in architecture.tensor_specs() {
        match source.shape(&spec.name) {
            None => problems.push((spec.name.clone(), format!("is missing (expected shape {:?})", spec.shape))),
            Some(found) if found != spec.shape => {
                problems.push((spec.name.clone(), format!("expected shape {:?}, got {found:?}", spec.shape)));
            }
            Some(_) => {
                let blocks = source.format(&spec.name).filter(|format| format.block_elements() > 1);
                if let Some(format) = blocks.filter(|_| spec.shape.len() == 1) {
                    let advice = "quantise the model again, its matrices only";
                    problems.push((spec.name.clone(), format!("is a vector in blocks of {}: {advice}", format.name())));
                }
            }
        }
        expected.insert(spec.name);
    }
    for name in source.names() {
        let harmless = name.ends_with("rotary_emb.inv_freq") || (architecture.tied_head && name == HEAD.hugging_face);
        if !expected.contains(&name) && !harmless {
            let (family, layers) = (architecture.family.model_type, counted(architecture.layers, "layer"));
            problems.push((name, format!("is unexpected in a {family} model of {layers}")));
        }
    }
    let Some((first, problem)) = problems.first() else { return Ok(()) };
    let file = source.file_of(first);
    if problems.len() == 1 {
        return Err(tensor_error(&file, first, problem.clone()));
    }
    const SHOWN: usize = 12;
    let mut lines: Vec<String> =
        problems.iter().take(SHOWN).map(|(name, problem)| format!("  - {}: {problem}", shorten(name))).collect();
    if problems.len() > SHOWN {
        lines.push(format!("  - and {} more", problems.len() - SHOWN));
    }
    let problem = format!("{} tensors do not fit the model's description:\n{}", problems.len(), lines.join("\n"));
    Err(Error::Format { file, problem })
}

#[cfg(test)]
mod tests {
    use super::super::layout::TensorSpec;
    use super::*;
    use crate::weights::{MemorySource, RawTensor, WeightFormat};

    fn tiny() -> Architecture {
        let config = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 6, "max_position_embeddings": 16}"#;
        Architecture::from_config_json(config.as_bytes(), "config.json").unwrap()
    }

    fn tensors() -> Vec<RawTensor> {
        let zeros = |s: TensorSpec| {
            let values = vec![0.0; s.shape.iter().product()];
            RawTensor::from_f32(&s.name, s.shape, &values)
        };
        tiny().tensor_specs().into_iter().map(zeros).collect()
    }

    #[test]
    fn missing_unexpected_and_misshapen_tensors_are_reported_together() {
        let mut all = tensors();
        check(&MemorySource::new(all.clone()).unwrap(), &tiny()).unwrap();
        all.retain(|t| t.name != "model.norm.weight");
        all.iter_mut().find(|t| t.name == "lm_head.weight").unwrap().shape = vec![4, 8];
        all.push(RawTensor::from_f32("model.layers.0.self_attn.q_proj.bias", vec![4], &[0.0; 4]));
        let text = check(&MemorySource::new(all).unwrap(), &tiny()).unwrap_err().to_string();
        for part in
            ["3 tensors", "norm.weight: is missing", "expected shape [8, 4], got [4, 8]", "q_proj.bias: is unexp"]
        {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn a_vector_in_blocks_is_refused_by_name_with_its_format() {
        let config = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "attention_bias": true, "intermediate_size": 32, "max_position_embeddings": 16}"#;
        let arch = Architecture::from_config_json(config.as_bytes(), "config.json").unwrap();
        let all = |of_bias| {
            let stored = |spec: TensorSpec| {
                let format = if spec.name.ends_with("q_proj.bias") { of_bias } else { WeightFormat::F32 };
                RawTensor::quantise(&spec.name, &spec.shape, &vec![0.5; spec.shape.iter().product()], format).unwrap()
            };
            MemorySource::new(arch.tensor_specs().into_iter().map(stored)).unwrap()
        };
        for single in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
            check(&all(single), &arch).unwrap();
        }
        for format in [WeightFormat::Q8_0, WeightFormat::Q4_0] {
            let text = check(&all(format), &arch).unwrap_err().to_string();
            for part in
                ["layers.0.self_attn.q_proj.bias", "is a vector in blocks of", format.name(), "its matrices only"]
            {
                assert!(text.contains(part), "{part} not in {text}");
            }
        }
    }

    #[test]
    fn rotary_tables_and_a_copied_tied_head_may_lie_in_the_file() {
        let mut all = tensors();
        all.push(RawTensor::from_f32("model.layers.0.self_attn.rotary_emb.inv_freq", vec![1], &[1.0]));
        let tied = Architecture { tied_head: true, ..tiny() };
        check(&MemorySource::new(all).unwrap(), &tied).unwrap();
    }
}
