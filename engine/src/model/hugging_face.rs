//! A model's description in Hugging Face's words: reads and writes `config.json`.
//!
//! Both styles are read: that of transformers 4 with `rope_theta`, `rope_scaling` and `partial_rotary_factor` at the top
//! level, and that of transformers 5 with `rope_parameters`. Every number is checked before anything is allocated from
//! it. What a file asks for and the engine does not implement (sliding windows, other rope scalings, MLP biases, experts)
//! is refused by name: computing something slightly different would be worse.

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, SpecialTokens, format_error, missing, unsupported};
use super::family::{self, AttentionBias, listed};
use super::rope::{Llama3Scaling, Rope, RopeScaling, Yarn};
use crate::data::record::BYTE_ORDER_MARK;
use crate::error::{Error, Result};
use crate::host::{MOST_CONFIGURATION_BYTES, shorten};

impl SpecialTokens {
    /// Reads `bos_token_id`, `eos_token_id` (a number or a list) and `pad_token_id`; what is absent or null stays
    /// empty.
    ///
    /// # Errors
    /// [`Error::Format`] where the text is not a JSON object or an id is not a token id.
    pub fn from_config_json(bytes: &[u8], file: &str) -> Result<Self> {
        let object = parse_object(bytes, file)?;
        let id = |key: &str, value: &Value| {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| format_error(file, format!("{key} is {}, which is no token id", brief(value))))
        };
        let one = |key: &str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => id(key, value).map(Some),
        };
        let eos = match object.get("eos_token_id") {
            Some(Value::Array(list)) => list.iter().map(|v| id("eos_token_id", v)).collect::<Result<_>>()?,
            _ => one("eos_token_id")?.into_iter().collect(),
        };
        Ok(Self { bos: one("bos_token_id")?, eos, pad: one("pad_token_id")? })
    }
}

impl Architecture {
    /// Reads a Hugging Face `config.json`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Format`] for malformed JSON and for missing, mistyped or impossible values; [`Error::Unsupported`] for
    /// what the engine does not implement, naming the field.
    pub fn from_config_json(bytes: &[u8], file: &str) -> Result<Self> {
        let object = parse_object(bytes, file)?;
        let config = Config { object: &object, file };
        let model_type = config.text("model_type")?;
        let family = family::of_model_type(&model_type).ok_or_else(|| {
            let known = listed(&family::ALL.map(|family| family.model_type));
            unsupported(format!("model type \"{}\"; {known} are", shorten(&model_type)))
        })?;
        refuse_other_wiring(&config)?;

        let defaults = &family.defaults;
        let heads = config.required("num_attention_heads")?;
        let hidden = config.required("hidden_size")?;
        let kv_heads = match config.count("num_key_value_heads")? {
            Some(found) => found,
            None if defaults.kv_heads_are_heads => heads,
            None => return Err(config.missing("num_key_value_heads")),
        };
        let head_dim = match config.count("head_dim")?.or(defaults.head_dim) {
            Some(found) => found,
            None => {
                if heads == 0 || hidden % heads != 0 {
                    let text = format!("head_dim is absent and hidden_size {hidden} is no multiple of {heads} heads");
                    return Err(format_error(file, text));
                }
                hidden / heads
            }
        };
        let context = config.required("max_position_embeddings")?;
        let (theta, partial, scaling) = read_rope(&config, context)?;
        let rotary = head_dim as f64 * partial.or(family.partial_rotary).unwrap_or(1.0);
        let architecture = Self {
            family,
            vocab: config.required("vocab_size")?,
            hidden,
            layers: config.required("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            intermediate: config.required("intermediate_size")?,
            norm_epsilon: config.number("rms_norm_eps")?.unwrap_or(defaults.norm_epsilon),
            // A cast saturates: anything absurd is caught by `validate` below.
            rope: Rope { theta, rotary_dim: rotary as usize, interleaved: family.interleaved_rotary, scaling },
            attention_bias: match family.attention_bias {
                AttentionBias::Never => false,
                AttentionBias::Always => true,
                AttentionBias::Configured { .. } => config.flag("attention_bias")?.unwrap_or(false),
            },
            tied_head: config.flag("tie_word_embeddings")?.unwrap_or(false), // false is each family's own default
            context: context.max(scaling.and_then(|s| s.reach()).map_or(0, |reach| reach as usize)),
        };
        architecture.validate(file)?;
        refuse_window(&config, &architecture)?;
        Ok(architecture)
    }

    /// Writes a `config.json` in the style of transformers 4, which transformers 5 reads as well. The tensors beside it
    /// have type `dtype` (`float32`, `float16` or `bfloat16`).
    pub fn to_config_json(&self, special: &SpecialTokens, dtype: &str) -> String {
        let mut config = json!({
            "architectures": [self.family.class_name],
            "attention_dropout": 0.0,
            "bos_token_id": special.bos,
            "eos_token_id": match special.eos.as_slice() {
                [] => Value::Null,
                [one] => json!(one),
                several => json!(several),
            },
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.context,
            "model_type": self.family.model_type,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": special.pad,
            "rms_norm_eps": self.norm_epsilon,
            "rope_scaling": self.rope.scaling.map(|scaling| written(&scaling)),
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tied_head,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab,
        });
        if matches!(self.family.attention_bias, AttentionBias::Configured { .. }) {
            config["attention_bias"] = json!(self.attention_bias);
        }
        if self.family.partial_rotary.is_some() {
            config["partial_rotary_factor"] = json!(self.rope.rotary_dim as f64 / self.head_dim as f64);
        }
        for (key, value) in self.family.switched_off {
            config[*key] = json!(value);
        }
        let mut text = format!("{config:#}");
        text.push('\n');
        text
    }
}

/// A JSON value for a message, however large it is.
fn brief(value: &Value) -> String {
    shorten(&value.to_string())
}

fn parse_object(bytes: &[u8], file: &str) -> Result<Map<String, Value>> {
    if bytes.len() > MOST_CONFIGURATION_BYTES as usize {
        return Err(format_error(file, format!("{} bytes are too many for a model configuration", bytes.len())));
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|e| format_error(file, format!("not a JSON object: {e}")))
}

/// Typed look-ups in a `config.json`, where null means absent.
struct Config<'a> {
    object: &'a Map<String, Value>,
    file: &'a str,
}

impl<'a> Config<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    fn missing(&self, key: &str) -> Error {
        missing(self.file, key)
    }

    fn typed<T>(&self, key: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = || format_error(self.file, format!("{key} is {}, but {wanted} is needed", brief(value)));
        read(value).map(Some).ok_or_else(text)
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn required(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    fn text(&self, key: &str) -> Result<String> {
        let found = self.typed(key, "a string", Value::as_str)?;
        found.map(str::to_owned).ok_or_else(|| self.missing(key))
    }

    fn object(&self, key: &str) -> Result<Option<Config<'a>>> {
        let found = self.typed(key, "an object", Value::as_object)?;
        Ok(found.map(|object| Config { object, file: self.file }))
    }
}

/// Refuses configurations that mean another computation than the one implemented.
fn refuse_other_wiring(config: &Config) -> Result<()> {
    let refuse = |key: &str, why: &str| {
        let value = config.get(key).map(brief).unwrap_or_default();
        Err(unsupported(format!("{}: {key} is {value}; {why}", config.file)))
    };
    if let Some(act) = config.typed("hidden_act", "a string", Value::as_str)?
        && !matches!(act, "silu" | "swish")
    {
        return refuse("hidden_act", "only silu is implemented");
    }
    if config.flag("mlp_bias")? == Some(true) {
        return refuse("mlp_bias", "biases in the MLP are not implemented");
    }
    if config.flag("use_sliding_window")? == Some(true) {
        return refuse("use_sliding_window", "sliding windows are not implemented");
    }
    if let Some(types) = config.typed("layer_types", "a list", Value::as_array)?
        && types.iter().any(|t| t.as_str() != Some("full_attention"))
    {
        return refuse("layer_types", "only full_attention is implemented");
    }
    if config.get("quantization_config").is_some() {
        return refuse("quantization_config", "take the f16, bf16 or f32 model, or a GGUF file");
    }
    Ok(())
}

/// Refuses a sliding window in families where that key alone decides. A window that no sequence of the model outgrows is
/// the same computation as none.
fn refuse_window(config: &Config, architecture: &Architecture) -> Result<()> {
    const KEY: &str = "sliding_window";
    let Some(default) = architecture.family.defaults.sliding_window else { return Ok(()) };
    // Null is a value of its own here: no window, where an absent key means the default.
    let window = match config.object.get(KEY) {
        None => Some(default),
        Some(_) => config.count(KEY)?,
    };
    let context = architecture.context;
    let Some(window) = window.filter(|&window| window < context) else { return Ok(()) };
    Err(unsupported(format!(
        "{}: {KEY} is {window} and the context {context} tokens; attention within a window is not implemented. Up to \
         {window} tokens there is no difference: where no document is longer, set {KEY} to null in a copy of the model. \
         Otherwise take a version of the model without a window",
        config.file
    )))
}

/// Rope theta, rotated share of the head where given, and scaling, from either style of configuration. `context` is that of
/// the configuration, which is the original one where a scaling does not say another.
fn read_rope(config: &Config, context: usize) -> Result<(f64, Option<f64>, Option<RopeScaling>)> {
    let parameters = config.object("rope_parameters")?;
    // Transformers 5 keeps everything in one object; 4 has theta and the partial factor beside the scaling.
    let (scaling, key) = match &parameters {
        Some(_) => (parameters.as_ref(), "rope_parameters"),
        None => (None, "rope_scaling"),
    };
    let old = config.object("rope_scaling")?;
    let scaling = scaling.or(old.as_ref());
    let either = |name: &str| -> Result<Option<f64>> {
        match parameters.as_ref().map(|p| p.number(name)).transpose()?.flatten() {
            Some(found) => Ok(Some(found)),
            None => config.number(name),
        }
    };
    let theta = either("rope_theta")?.unwrap_or(10_000.0);
    let partial = either("partial_rotary_factor")?;
    if let Some(share) = partial
        && !(share > 0.0 && share <= 1.0)
    {
        return Err(format_error(
            config.file,
            format!("partial_rotary_factor is {share}; above 0 and at most 1 is possible"),
        ));
    }
    let Some(scaling) = scaling else { return Ok((theta, partial, None)) };
    if scaling.object.values().any(Value::is_object) {
        return Err(unsupported(format!("{}: {key} differs between layers", config.file)));
    }
    let kind = match scaling.typed("rope_type", "a string", Value::as_str)? {
        Some(kind) => kind,
        None => scaling.typed("type", "a string", Value::as_str)?.unwrap_or("default"),
    };
    let need = |name: &str| scaling.number(name)?.ok_or_else(|| missing(config.file, &format!("{key}.{name}")));
    let scaling = match kind {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: need("factor")? }),
        "llama3" => Some(RopeScaling::Llama3(Llama3Scaling {
            factor: need("factor")?,
            low_frequency_factor: need("low_freq_factor")?,
            high_frequency_factor: need("high_freq_factor")?,
            original_context: need("original_max_position_embeddings")?,
        })),
        "yarn" => Some(RopeScaling::Yarn(read_yarn(config, scaling, context)?)),
        other => {
            let text = format!(
                "{}: {key} of type \"{}\"; default, linear, llama3 and yarn are implemented",
                config.file,
                shorten(other)
            );
            return Err(unsupported(text));
        }
    };
    Ok((theta, partial, scaling))
}

/// YaRN as transformers 5 reads it: the explicit factor counts, and what is zero is left out.
fn read_yarn(config: &Config, scaling: &Config, context: usize) -> Result<Yarn> {
    let given = |name: &str| Ok(scaling.number(name)?.filter(|&x| x != 0.0));
    // Some models say it beside the scaling, which then counts.
    let original = match config.number("original_max_position_embeddings")? {
        Some(outside) => outside,
        None => scaling.number("original_max_position_embeddings")?.unwrap_or(context as f64),
    };
    let factor = scaling.number("factor")?.unwrap_or(context as f64 / original);
    let attention = match (scaling.number("attention_factor")?, given("mscale")?, given("mscale_all_dim")?) {
        (Some(attention), ..) => attention,
        (None, Some(one), Some(all)) => Yarn::attention_of(factor, one) / Yarn::attention_of(factor, all),
        _ => Yarn::attention_of(factor, 1.0),
    };
    Ok(Yarn {
        beta_fast: given("beta_fast")?.unwrap_or(Yarn::BETA_FAST),
        beta_slow: given("beta_slow")?.unwrap_or(Yarn::BETA_SLOW),
        truncate: scaling.flag("truncate")?.unwrap_or(true),
        attention,
        ..Yarn::new(factor, original)
    })
}

/// A scaling as configurations have it.
fn written(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::Linear { factor } => json!({"factor": factor, "rope_type": "linear"}),
        RopeScaling::Llama3(s) => json!({
            "factor": s.factor,
            "high_freq_factor": s.high_frequency_factor,
            "low_freq_factor": s.low_frequency_factor,
            "original_max_position_embeddings": s.original_context as u64,
            "rope_type": "llama3",
        }),
        RopeScaling::Yarn(s) => json!({
            "attention_factor": s.attention,
            "beta_fast": s.beta_fast,
            "beta_slow": s.beta_slow,
            "factor": s.factor,
            "original_max_position_embeddings": s.original_context as u64,
            "rope_type": "yarn",
            "truncate": s.truncate,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> Value {
        json!({"model_type": "llama", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0})
    }

    fn read(config: &Value) -> Result<Architecture> {
        Architecture::from_config_json(config.to_string().as_bytes(), "config.json")
    }

    fn with(key: &str, value: Value) -> Result<Architecture> {
        let mut config = llama();
        config[key] = value;
        read(&config)
    }

    #[test]
    fn what_a_llama_file_leaves_out_has_the_familys_own_default() {
        let found = read(&llama()).unwrap();
        assert_eq!((found.head_dim, found.rope.rotary_dim), (16, 16));
        assert!(
            !found.tied_head && !found.attention_bias && found.family.block.q_norm.is_none() && !found.rope.interleaved
        );
        let mut old = llama();
        old.as_object_mut().unwrap().remove("num_key_value_heads");
        assert_eq!(read(&old).unwrap().kv_heads, 4);
    }

    #[test]
    fn impossible_numbers_are_refused_and_nothing_is_allocated_for_them() {
        for (key, value) in [
            ("vocab_size", json!(0)),
            ("vocab_size", json!(u64::MAX)),
            ("hidden_size", json!(-1)),
            ("hidden_size", json!(65)),
            ("num_hidden_layers", json!(4_000_000_000_u64)),
            ("num_attention_heads", json!(0)),
            ("num_key_value_heads", json!(3)),
            ("num_key_value_heads", json!(0)),
            ("head_dim", json!(15)),
            ("intermediate_size", json!("many")),
            ("rms_norm_eps", json!(0.0)),
            ("rms_norm_eps", json!(-1e-5)),
            ("rope_theta", json!(0)),
            ("max_position_embeddings", json!(0)),
            ("model_type", json!(3)),
        ] {
            assert!(matches!(with(key, value.clone()), Err(Error::Format { .. })), "{key} = {value}");
        }
        assert!(read(&json!([])).is_err());
        assert!(Architecture::from_config_json(b"{\"model_type\":", "config.json").is_err());
    }

    #[test]
    fn what_the_engine_does_not_compute_is_refused_by_name() {
        for (key, value) in [
            ("model_type", json!("mixtral")),
            ("mlp_bias", json!(true)),
            ("use_sliding_window", json!(true)),
            ("layer_types", json!(["full_attention", "sliding_attention"])),
            ("hidden_act", json!("gelu")),
            ("rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0})),
            ("rope_scaling", json!({"type": "longrope", "factor": 4.0, "short_factor": [1.0], "long_factor": [1.0]})),
            ("rope_parameters", json!({"full_attention": {"rope_type": "default"}})),
            ("partial_rotary_factor", json!(0.5)),
            ("quantization_config", json!({"bits": 4})),
        ] {
            let error = with(key, value.clone()).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{key} = {value}: {error}");
        }
    }

    #[test]
    fn a_yarn_model_reaches_as_far_as_its_scaling_says() {
        let found = |scaling: Value| with("rope_scaling", scaling).map(|found| found.context).unwrap();
        assert_eq!(found(json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})), 256);
        // As Qwen2.5 says to write it: the context of the file is the original one.
        assert_eq!(found(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128})), 512);
        assert_eq!(found(json!({"type": "yarn", "factor": 4.0})), 512);
        assert_eq!(found(json!({"type": "yarn", "original_max_position_embeddings": 32})), 128);
        assert_eq!(found(json!({"type": "linear", "factor": 4.0})), 128);
        for wrong in [
            json!({"type": "yarn", "factor": 0.5}),
            json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0}),
            json!({"type": "yarn", "factor": 4.0, "attention_factor": -1.0}),
            json!({"type": "yarn", "factor": "four"}),
            json!({"type": "linear"}),
        ] {
            let error = with("rope_scaling", wrong.clone()).unwrap_err();
            assert!(matches!(error, Error::Format { .. }), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_mistral_whose_window_is_shorter_than_its_context_is_refused_with_both_numbers_and_a_way_out() {
        let read = |window: Option<Value>, context: u64| {
            let mut config = llama();
            config["model_type"] = json!("mistral");
            config["max_position_embeddings"] = json!(context);
            if let Some(window) = window {
                config["sliding_window"] = window;
            }
            read(&config)
        };
        for (window, context) in
            [(Some(json!(null)), 32_768), (Some(json!(128)), 128), (Some(json!(4096)), 128), (None, 4096)]
        {
            assert!(read(window.clone(), context).is_ok(), "{window:?} of {context}");
        }
        // Where the key is absent, transformers' default of 4096 counts.
        for (window, context, named) in [(Some(json!(127)), 128, "127"), (None, 32_768, "4096")] {
            let error = read(window, context).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            for part in [named, &context.to_string(), "sliding_window to null"] {
                assert!(error.to_string().contains(part), "{part} not in {error}");
            }
        }
        assert!(matches!(read(Some(json!("wide")), 128), Err(Error::Format { .. })));
        assert!(with("sliding_window", json!(4)).is_ok(), "in other families the key alone means nothing");
    }

    #[test]
    fn a_written_configuration_reads_back_as_the_same_description() {
        let mut all = vec![read(&llama()).unwrap()];
        let mut scaled = all[0].clone();
        scaled.attention_bias = true;
        scaled.tied_head = true;
        let llama3 = Llama3Scaling {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 32.0,
        };
        let yarn = Yarn { beta_fast: 8.0, truncate: false, attention: 1.25, ..Yarn::new(2.5, 48.0) };
        for scaling in [RopeScaling::Llama3(llama3), RopeScaling::Linear { factor: 4.0 }, RopeScaling::Yarn(yarn)] {
            scaled.rope.scaling = Some(scaling);
            all.push(scaled.clone());
        }
        for family in family::ALL {
            let mut config = llama();
            config["model_type"] = json!(family.model_type);
            config["head_dim"] = json!(32);
            config["sliding_window"] = json!(null);
            let found = read(&config).unwrap();
            assert_eq!(found.family, family);
            all.push(found);
        }
        let special = SpecialTokens { bos: Some(1), eos: vec![2, 7], pad: None };
        for architecture in all {
            let text = architecture.to_config_json(&special, "float32");
            assert_eq!(Architecture::from_config_json(text.as_bytes(), "config.json").unwrap(), architecture);
            assert_eq!(SpecialTokens::from_config_json(text.as_bytes(), "config.json").unwrap(), special);
            // As some editors save it.
            let text = format!("\u{feff}{text}");
            assert_eq!(Architecture::from_config_json(text.as_bytes(), "config.json").unwrap(), architecture);
            assert_eq!(SpecialTokens::from_config_json(text.as_bytes(), "config.json").unwrap(), special);
        }
    }
}
