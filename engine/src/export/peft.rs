//! LoRA adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! The configuration has every key that PEFT 0.21 writes. A module `model.layers.0.self_attn.q_proj` becomes the keys
//! `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` `[r, in]` and `.lora_B.weight` `[out, r]`, in f32.
//! On reading, an option that changes what an adapter computes and that the engine does not implement is refused by
//! name; so is an unknown option, unless it is switched off.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::stream::to_bytes;
use crate::error::{Error, Result};
use crate::host::{Folder, MOST_CONFIGURATION_BYTES, shorten};
use crate::model::Model;
use crate::model::adapter::{AdapterValues, LoraSettings};
use crate::model::layout::TensorSpec;
use crate::weights::safetensors::SafetensorsFile;
use crate::weights::{WeightFormat, WeightSource, read_small, tensor_error};

/// Name of the configuration.
pub const CONFIG: &str = "adapter_config.json";
/// Name of the weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// All of an adapter's files.
pub const FILES: [&str; 2] = [CONFIG, WEIGHTS];

const PREFIX: &str = "base_model.model.";
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";
/// The version of PEFT whose format this is.
const PEFT_VERSION: &str = "0.21.2";

/// An adapter's matrices, read back from the model that they were trained in.
///
/// # Errors
/// Device errors.
pub async fn values(model: &Model) -> Result<AdapterValues> {
    let mut values = AdapterValues::new();
    for parameter in model.trained() {
        let name = &parameter.parts[0].name;
        if let Some(module) = name.strip_suffix(A) {
            values.entry(module.into()).or_default().0 = parameter.value.read().await?;
        } else if let Some(module) = name.strip_suffix(B) {
            values.entry(module.into()).or_default().1 = parameter.value.read().await?;
        }
    }
    Ok(values)
}

/// Both files of an adapter, as names and contents. `base_model` is the path or hub name that PEFT loads the base from.
///
/// # Errors
/// [`Error::Tensor`] where a matrix does not have `rank` rows or columns, or holds a number that is not finite.
pub fn write(
    settings: &LoraSettings,
    base_model: Option<&str>,
    values: &AdapterValues,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut tensors = Vec::new();
    for (module, (a, b)) in values {
        let rank = settings.rank;
        if rank == 0 || a.len() % rank != 0 || b.len() % rank != 0 {
            let problem = format!("{} and {} values are no matrices of rank {rank}", a.len(), b.len());
            return Err(tensor_error(WEIGHTS, module, problem));
        }
        let spec =
            |end: &str, shape: [usize; 2]| TensorSpec { name: format!("{PREFIX}{module}{end}"), shape: shape.to_vec() };
        tensors.push((spec(A, [rank, a.len() / rank]), a.as_slice()));
        tensors.push((spec(B, [b.len() / rank, rank]), b.as_slice()));
    }
    let weights = to_bytes(tensors, WeightFormat::F32, WEIGHTS)?;
    let targets: BTreeSet<&str> = match settings.targets.is_empty() {
        true => values.keys().map(|module| last_name(module)).collect(),
        false => settings.targets.iter().map(String::as_str).collect(),
    };
    let config = config_json(settings, base_model, &targets);
    Ok(vec![(CONFIG.into(), config.into_bytes()), (WEIGHTS.into(), weights)])
}

fn config_json(settings: &LoraSettings, base_model: Option<&str>, targets: &BTreeSet<&str>) -> String {
    // PEFT declares alpha an integer; a fraction is written only where it is one.
    let alpha = match settings.alpha {
        whole if whole.fract() == 0.0 && whole.abs() < 1e15 => json!(whole as i64),
        fraction => json!(fraction),
    };
    let config = json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": {},
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": alpha,
        "lora_bias": false,
        "lora_dropout": settings.dropout,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": PEFT_VERSION,
        "qalora_group_size": 16,
        "r": settings.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": targets,
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": settings.rslora,
        "velora_config": null,
    });
    format!("{config:#}\n")
}

/// Reads an adapter. The settings' targets are the modules that really have matrices.
///
/// # Errors
/// [`Error::Missing`] for a missing file, [`Error::Format`] for a malformed one, [`Error::Unsupported`] for an option that
/// the engine does not implement, [`Error::Tensor`] for a key or shape that is no LoRA matrix of the stated rank.
pub fn read(folder: &dyn Folder) -> Result<(LoraSettings, AdapterValues)> {
    let (text, file) = read_small(folder, CONFIG, MOST_CONFIGURATION_BYTES)?;
    let wrong = |problem: String| Error::Format { file: file.clone(), problem };
    let config: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| wrong(format!("not a JSON object: {e}")))?;
    refuse_other_kinds(&config, &file)?;
    let number = |key: &str| {
        let found = config.get(key).and_then(Value::as_f64).filter(|n| n.is_finite());
        found.ok_or_else(|| wrong(format!("{key} is missing or no number")))
    };
    let rank = config.get("r").and_then(Value::as_u64).and_then(|r| usize::try_from(r).ok()).filter(|r| *r > 0);
    let rank = rank.ok_or_else(|| wrong("r is missing or no whole number above 0".into()))?;
    let alpha = number("lora_alpha")?;
    let dropout = match config.get("lora_dropout") {
        None | Some(Value::Null) => 0.0,
        Some(_) => number("lora_dropout")?,
    };
    let rslora = match config.get("use_rslora") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(on)) => *on,
        Some(_) => return Err(wrong("use_rslora is neither true nor false".into())),
    };
    if !(0.0..1.0).contains(&dropout) {
        return Err(wrong(format!("lora_dropout is {dropout}; 0 up to 1 is possible")));
    }

    let file = folder.display(WEIGHTS);
    let Some(bytes) = folder.open(WEIGHTS)? else {
        return Err(Error::Missing { path: file, problem: "there is no such file".into() });
    };
    let source = SafetensorsFile::open(bytes, &file)?;
    let values = read_matrices(&source, PREFIX, rank, &file)?;
    let targets: BTreeSet<&str> = values.keys().map(|module| last_name(module)).collect();
    let targets = targets.into_iter().map(str::to_owned).collect();
    let some_layers = config.get(SOME_LAYERS).is_some_and(|layers| !is_off(layers));
    Ok((LoraSettings { rank, alpha, rslora, dropout, targets, some_layers }, values))
}

/// `A` and `B` of one module, as far as they have been found.
type Halves = (Option<Vec<f32>>, Option<Vec<f32>>);

/// An adapter's matrices out of a file of nothing else, whose names begin with `prefix`.
///
/// # Errors
/// [`Error::Tensor`] for a name or shape that is no LoRA matrix of this rank; [`Error::Format`] for a file without any.
pub fn read_matrices(source: &SafetensorsFile, prefix: &str, rank: usize, file: &str) -> Result<AdapterValues> {
    let mut halves: BTreeMap<String, Halves> = BTreeMap::new();
    for name in source.names() {
        let refuse = |problem: String| Err(tensor_error(file, &name, problem));
        let stem = name.strip_prefix(prefix);
        let (module, is_a) = match stem.and_then(|s| s.strip_suffix(A)) {
            Some(module) => (Some(module), true),
            None => (stem.and_then(|s| s.strip_suffix(B)), false),
        };
        let Some(module) = module else {
            return refuse("is no lora_A or lora_B of a linear layer; only those are supported".into());
        };
        let fits = match source.shape(&name) {
            Some(&[rows, columns]) => {
                if is_a {
                    rows == rank
                } else {
                    columns == rank
                }
            }
            _ => false,
        };
        if !fits {
            let expected = if is_a { format!("[{rank}, in]") } else { format!("[out, {rank}]") };
            return refuse(format!("expected shape {expected}, got {:?}", source.shape(&name).unwrap_or_default()));
        }
        let values = source.read(&name)?.to_f32();
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return refuse(format!("element {at} is {}", values[at]));
        }
        let half = halves.entry(module.to_owned()).or_default();
        *(if is_a { &mut half.0 } else { &mut half.1 }) = Some(values);
    }
    if halves.is_empty() {
        return Err(Error::Format { file: file.to_owned(), problem: "the adapter has no tensors".into() });
    }
    let both = |(module, (a, b)): (String, Halves)| match (a, b) {
        (Some(a), Some(b)) => Ok((module, (a, b))),
        (None, _) => Err(tensor_error(file, &format!("{prefix}{module}{A}"), "is missing".into())),
        (_, None) => Err(tensor_error(file, &format!("{prefix}{module}{B}"), "is missing".into())),
    };
    halves.into_iter().map(both).collect()
}

/// Which layers have matrices, where not all have.
const SOME_LAYERS: &str = "layers_to_transform";

/// Options that say nothing about what the adapter computes, or that the tensors themselves show.
const HARMLESS: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    SOME_LAYERS, // read
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "use_rslora", // read
    "eva_config", // how A was initialised
];

/// Whether an option of this value is switched off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn refuse_other_kinds(config: &Map<String, Value>, file: &str) -> Result<()> {
    if config.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        let found = config.get("peft_type").unwrap_or(&Value::Null).to_string();
        let problem = format!("{file}: peft_type is {}; only LORA is", shorten(&found));
        return Err(Error::Unsupported { problem });
    }
    for (key, value) in config {
        let off = is_off(value);
        let text = value.as_str();
        let supported = match key.as_str() {
            "peft_type" => true,
            "bias" => off || text == Some("none"),
            "task_type" => off || text == Some("CAUSAL_LM"),
            // Those that also change the base model's weights (pissa, olora, loftq, ...) need that base.
            "init_lora_weights" => {
                off || *value == Value::Bool(true) || matches!(text, Some("gaussian" | "eva" | "orthogonal"))
            }
            key => off || HARMLESS.contains(&key),
        };
        if !supported {
            let value = shorten(&value.to_string());
            return Err(Error::Unsupported { problem: format!("{file}: {} = {value} in an adapter", shorten(key)) });
        }
    }
    Ok(())
}

fn last_name(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::MemoryFolder;

    fn adapter() -> (LoraSettings, AdapterValues) {
        let settings = LoraSettings {
            rank: 2,
            alpha: 8.0,
            rslora: false,
            dropout: 0.05,
            targets: vec!["q_proj".into(), "up_proj".into()],
            some_layers: false,
        };
        let pair = |k: f32| ((0..6).map(|i| i as f32 * k).collect(), (0..4).map(|i| i as f32 - k).collect());
        let names = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"];
        (settings, names.into_iter().zip([0.5, 2.0]).map(|(n, k)| (n.to_owned(), pair(k))).collect())
    }

    fn folder(files: Vec<(String, Vec<u8>)>) -> MemoryFolder {
        let mut folder = MemoryFolder::new();
        for (name, bytes) in files {
            folder.insert(&name, bytes).unwrap();
        }
        folder
    }

    /// The written adapter with one option changed.
    fn with(key: &str, value: Value) -> MemoryFolder {
        let (settings, values) = adapter();
        let mut files = write(&settings, Some("base"), &values).unwrap();
        let mut config: Value = serde_json::from_slice(&files[0].1).unwrap();
        config[key] = value;
        files[0].1 = config.to_string().into_bytes();
        folder(files)
    }

    #[test]
    fn a_written_adapter_reads_back_as_it_was() {
        let (settings, values) = adapter();
        let found = read(&folder(write(&settings, None, &values).unwrap())).unwrap();
        assert_eq!(found, (settings.clone(), values.clone()));
        let stable = LoraSettings { rslora: true, ..settings.clone() };
        let found = read(&folder(write(&stable, None, &values).unwrap())).unwrap().0;
        assert_eq!(found, stable);
        assert!((found.scale() - 8.0 / 2.0_f64.sqrt()).abs() < 1e-15 && settings.scale() == 4.0);
        let unnamed = LoraSettings { targets: Vec::new(), ..settings.clone() };
        assert_eq!(read(&folder(write(&unnamed, None, &values).unwrap())).unwrap().0, settings);
    }

    #[test]
    fn options_that_change_the_computation_are_refused_by_name() {
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("use_dora", json!(true)),
            ("use_qalora", json!(true)),
            ("rank_pattern", json!({"q_proj": 8})),
            ("alpha_pattern", json!({"q_proj": 8})),
            ("bias", json!("all")),
            ("lora_bias", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("fan_in_fan_out", json!(true)),
            ("layer_replication", json!([[0, 1]])),
            ("init_lora_weights", json!("pissa")),
            ("trainable_token_indices", json!([1])),
            ("task_type", json!("SEQ_CLS")),
            ("an_option_of_the_future", json!(1)),
        ] {
            let error = read(&with(key, value)).unwrap_err();
            assert!(matches!(&error, Error::Unsupported { problem } if problem.contains(key)), "{key}: {error}");
        }
        for (key, value) in [
            ("r", json!(0)),
            ("r", json!(-1)),
            ("lora_alpha", json!("8")),
            ("lora_dropout", json!(1.0)),
            ("use_rslora", json!(1)),
        ] {
            assert!(matches!(read(&with(key, value)), Err(Error::Format { .. })), "{key}");
        }
        assert!(read(&with("r", json!(3))).is_err(), "another rank than the tensors have");
        assert!(read(&with("an_option_of_the_future", json!(null))).is_ok());
        for (layers, some) in [(json!(null), false), (json!([]), false), (json!([0, 1]), true), (json!(0), true)] {
            assert_eq!(read(&with("layers_to_transform", layers.clone())).unwrap().0.some_layers, some, "{layers}");
        }
    }

    #[test]
    fn a_half_adapter_is_refused() {
        let (settings, values) = adapter();
        let one = |name: &str, shape: [usize; 2]| {
            let values = vec![0.0_f32; shape[0] * shape[1]];
            let spec = TensorSpec { name: name.into(), shape: shape.to_vec() };
            let mut files = write(&settings, None, &adapter().1).unwrap();
            files[1].1 = to_bytes([(spec, values.as_slice())], WeightFormat::F32, "x").unwrap();
            read(&folder(files)).unwrap_err().to_string()
        };
        for (name, shape, problem) in [
            ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", [2, 3], "up_proj.lora_B.weight: is missing"),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight", [3, 2], "up_proj.lora_A.weight: is missing"),
            ("base_model.model.model.embed_tokens.lora_embedding_A", [2, 3], "is no lora_A or lora_B"),
            ("model.layers.0.mlp.up_proj.lora_A.weight", [2, 3], "is no lora_A or lora_B"),
        ] {
            let found = one(name, shape);
            assert!(found.contains(problem), "{found}");
        }
        assert!(read(&MemoryFolder::new()).is_err());
        let wrong = LoraSettings { rank: 4, ..settings.clone() };
        assert!(write(&wrong, None, &values).is_err());
    }
}
