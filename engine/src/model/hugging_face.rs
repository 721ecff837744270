//! A model's description in Hugging Face's words: reads and writes `config.json`.
//!
//! Both styles are read: that of transformers 4 with `rope_theta`, `rope_scaling` and `partial_rotary_factor` at the top
//! level, and that of transformers 5 with `rope_parameters`, for each kind of layer where these differ. Of a model that reads
//! more than text the part for text is taken (`text_config`). Every number is checked before anything is allocated from it.
//! What a file asks for and the engine does not implement (other rope scalings, MLP biases, capped logits, experts) is refused
//! by name: computing something slightly different would be worse.

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, SpecialTokens, Window, format_error, missing, unsupported};
use super::family::{self, AttentionBias, Family, Windows, listed, periodic};
use super::rope::{Llama3Scaling, LongRope, Rope, RopeScaling, Yarn};
use crate::data::record::BYTE_ORDER_MARK;
use crate::error::{Error, Result};
use crate::host::{MOST_CONFIGURATION_BYTES, shorten};
use crate::kernels::Activation;

/// The part for text of a configuration of a model that reads more.
const TEXT: &str = "text_config";
const WINDOW: &str = "sliding_window";
const LAYER_TYPES: &str = "layer_types";

impl SpecialTokens {
    /// Reads `bos_token_id`, `eos_token_id` (a number or a list) and `pad_token_id`, of the whole model or of its part for
    /// text; what is absent or null stays empty.
    ///
    /// # Errors
    /// [`Error::Format`] where the text is not a JSON object or an id is not a token id.
    pub fn from_config_json(bytes: &[u8], file: &str) -> Result<Self> {
        let object = parse_object(bytes, file)?;
        let id = |key: &str, value: &Value| {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| format_error(file, format!("{key} is {}, which is no token id", brief(value))))
        };
        let given = |key: &str| {
            let text = object.get(TEXT).and_then(|text| text.get(key));
            object.get(key).filter(|value| !value.is_null()).or(text).filter(|value| !value.is_null())
        };
        let one = |key: &str| given(key).map(|value| id(key, value)).transpose();
        let eos = match given("eos_token_id") {
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
        let (family, object) = text_of(parse_object(bytes, file)?, file)?;
        let defaults = &family.defaults;
        let config = Config { object: &object, file, sizes: defaults.sizes };
        refuse_other_wiring(&config, family)?;

        let heads = config.required("num_attention_heads")?;
        let hidden = config.required("hidden_size")?;
        let kv_heads = match config.size("num_key_value_heads")? {
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
        let query_scalar = match defaults.query_scalar {
            Some(default) => config.count("query_pre_attn_scalar")?.unwrap_or(default),
            None => head_dim,
        };
        let context = config.required("max_position_embeddings")?;
        let (rope, local_rope) = read_ropes(&config, family, head_dim, context)?;
        let mut architecture = Self {
            family,
            vocab: config.required("vocab_size")?,
            hidden,
            layers: config.required("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            intermediate: config.required("intermediate_size")?,
            norm_epsilon: config.number("rms_norm_eps")?.unwrap_or(defaults.norm_epsilon),
            context: rope.scaling.as_ref().map_or(context, |scaling| scaling.context(context)),
            local_rope: local_rope.filter(|local| *local != rope),
            rope,
            window: None,
            attention_scale: (query_scalar != head_dim).then(|| (query_scalar as f64).sqrt().recip()),
            embedding_scale: family.embedding_scale(hidden),
            attention_bias: match family.attention_bias {
                AttentionBias::Never => false,
                AttentionBias::Always => true,
                AttentionBias::Configured { .. } => config.flag("attention_bias")?.unwrap_or(false),
            },
            tied_head: config.flag("tie_word_embeddings")?.unwrap_or(defaults.tied_head),
        };
        architecture.validate(file)?;
        // Only now is the number of layers one to make a list for.
        let window = read_window(&config, family, architecture.layers)?;
        architecture.set_window(window);
        architecture.validate(file)?;
        Ok(architecture)
    }

    /// Writes a `config.json` in the style of transformers 4, which transformers 5 reads as well. The tensors beside it
    /// have type `dtype` (`float32`, `float16` or `bfloat16`).
    pub fn to_config_json(&self, special: &SpecialTokens, dtype: &str) -> String {
        let (hidden_act, activation) = match self.family.activation {
            Activation::Silu => ("hidden_act", "silu"),
            Activation::GeluTanh => ("hidden_activation", "gelu_pytorch_tanh"),
        };
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
            hidden_act: activation,
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.reach(),
            "model_type": self.family.model_type,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": special.pad,
            "rms_norm_eps": self.norm_epsilon,
            "rope_scaling": self.rope.scaling.as_ref().map(written),
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
        if let Some(RopeScaling::Long(long)) = &self.rope.scaling {
            config["original_max_position_embeddings"] = json!(long.original_context);
        }
        if self.family.local_theta.is_some() {
            config["rope_local_base_freq"] = json!(self.local_rope.as_ref().unwrap_or(&self.rope).theta);
        }
        if self.family.defaults.query_scalar.is_some() {
            let scalar = self.attention_scale.map_or(self.head_dim as f64, |scale| scale.powi(-2));
            config["query_pre_attn_scalar"] = json!(scalar.round() as u64);
        }
        for (key, value) in self.written_window() {
            config[key] = value;
        }
        for (key, value) in self.family.switched_off {
            config[*key] = json!(value);
        }
        let mut text = format!("{config:#}");
        text.push('\n');
        text
    }

    /// Where blocks attend within a window, as configurations have it.
    fn written_window(&self) -> Vec<(&'static str, Value)> {
        let (window, windows) = (&self.window, self.family.windows);
        let tokens = (WINDOW, json!(window.as_ref().map(|window| window.tokens)));
        let kind = |block| if self.window_of(block).is_some() { "sliding_attention" } else { "full_attention" };
        let types: (_, Value) = (LAYER_TYPES, (0..self.layers).map(kind).collect());
        match (windows, window) {
            (Windows::Never, _) => Vec::new(),
            (Windows::Everywhere(_), _) => vec![tokens],
            (Windows::Switched, None) => vec![("use_sliding_window", json!(false))],
            (Windows::Switched, Some(window)) => {
                let first = window.pattern.iter().position(|&within| within);
                vec![("use_sliding_window", json!(true)), tokens, ("max_window_layers", json!(first)), types]
            }
            (Windows::Periodic(..), _) => {
                // What readers go by that know no types.
                let period = window.as_ref().and_then(Window::period).filter(|&period| period > 0);
                let period = period.map(|period| ("sliding_window_pattern", json!(period)));
                [tokens, types].into_iter().chain(period).collect()
            }
        }
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

/// The family of a configuration, and the part of it that is about text.
fn text_of(mut object: Map<String, Value>, file: &str) -> Result<(&'static Family, Map<String, Value>)> {
    let model_type = Config { object: &object, file, sizes: &[] }.text("model_type")?;
    if let Some(family) = family::of_model_type(&model_type) {
        return Ok((family, object));
    }
    let Some(family) = family::ALL.into_iter().find(|family| family.text_of == Some(&*model_type)) else {
        let known: Vec<&str> =
            family::ALL.iter().flat_map(|family| [Some(family.model_type), family.text_of]).flatten().collect();
        return Err(unsupported(format!("model type \"{}\"; {} are", shorten(&model_type), listed(&known))));
    };
    let Some(Value::Object(mut text)) = object.remove(TEXT) else {
        return Err(format_error(file, format!("{TEXT} is missing or no object, in a model of type {model_type}")));
    };
    if let Some(other) = text.get("model_type").filter(|found| found.as_str() != Some(family.model_type)) {
        return Err(unsupported(format!("{file}: {TEXT}.model_type is {}, in a {model_type} model", brief(other))));
    }
    // What is said of the whole is said of its text.
    for key in ["tie_word_embeddings", "quantization_config"] {
        if let Some(value) = object.remove(key) {
            text.entry(key).or_insert(value);
        }
    }
    Ok((family, text))
}

/// Typed look-ups in a `config.json`, where null means absent.
struct Config<'a> {
    object: &'a Map<String, Value>,
    file: &'a str,
    /// What numbers are that are absent ([`family`]).
    sizes: &'static [(&'static str, usize)],
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

    fn size(&self, key: &str) -> Result<Option<usize>> {
        let usual = || self.sizes.iter().find(|(known, _)| *known == key).map(|(_, size)| *size);
        Ok(self.count(key)?.or_else(usual))
    }

    fn required(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.missing(key))
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
        Ok(found.map(|object| Config { object, file: self.file, sizes: &[] }))
    }

    /// The error of a key whose value is not implemented.
    fn refused(&self, key: &str, why: &str) -> Error {
        let value = self.get(key).map(brief).unwrap_or_default();
        unsupported(format!("{}: {key} is {value}; {why}", self.file))
    }
}

/// Refuses configurations that mean another computation than the one implemented.
fn refuse_other_wiring(config: &Config, family: &Family) -> Result<()> {
    let (known, only) = match family.activation {
        Activation::Silu => (&["silu", "swish"][..], "only silu is implemented in this family"),
        Activation::GeluTanh => (&["gelu_pytorch_tanh"][..], "only gelu_pytorch_tanh is implemented in this family"),
    };
    for key in ["hidden_act", "hidden_activation"] {
        if config.typed(key, "a string", Value::as_str)?.is_some_and(|act| !known.contains(&act)) {
            return Err(config.refused(key, only));
        }
    }
    if config.flag("mlp_bias")? == Some(true) {
        return Err(config.refused("mlp_bias", "biases in the MLP are not implemented"));
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if config.number(key)?.is_some() {
            return Err(config.refused(key, "capped scores and logits are not implemented"));
        }
    }
    if config.flag("use_bidirectional_attention")? == Some(true) {
        return Err(config.refused("use_bidirectional_attention", "only tokens before another are seen"));
    }
    if config.flag("use_sliding_window")? == Some(true) && family.windows != Windows::Switched {
        let why = format!("models of type {} have no such switch", family.model_type);
        return Err(config.refused("use_sliding_window", &why));
    }
    if config.get("quantization_config").is_some() {
        return Err(config.refused("quantization_config", "take the f16, bf16 or f32 model, or a GGUF file"));
    }
    Ok(())
}

/// Which blocks attend within a window, as transformers decides it.
fn read_window(config: &Config, family: &Family, layers: usize) -> Result<Option<Window>> {
    /// Of Qwen models without the keys: the window, and the first layer that has it.
    const SWITCHED: [usize; 2] = [4096, 28];
    // Null is a value of its own here: no window, where an absent key means the default.
    let given = |default| if config.object.contains_key(WINDOW) { config.count(WINDOW) } else { Ok(default) };
    let tokens = match family.windows {
        Windows::Never => None,
        Windows::Everywhere(default) => given(default)?,
        Windows::Periodic(default, _) => given(Some(default))?,
        Windows::Switched if config.flag("use_sliding_window")? == Some(true) => {
            Some(config.count(WINDOW)?.unwrap_or(SWITCHED[0]))
        }
        Windows::Switched => None,
    };
    let types = read_layer_types(config)?;
    let Some(tokens) = tokens else {
        return match types {
            Some(types) if types.contains(&true) => {
                Err(config.refused(LAYER_TYPES, "this model has no sliding window"))
            }
            _ => Ok(None),
        };
    };
    let pattern = match (types, family.windows) {
        (Some(types), Windows::Everywhere(_)) if types.contains(&false) => {
            let why = format!("all layers of a model of type {} have its {WINDOW}", family.model_type);
            return Err(config.refused(LAYER_TYPES, &why));
        }
        (Some(types), _) => types,
        (None, Windows::Switched) => {
            let first = config.count("max_window_layers")?.unwrap_or(SWITCHED[1]);
            (0..layers).map(|block| block >= first).collect()
        }
        (None, Windows::Periodic(_, usual)) => {
            let saved = config.count("_sliding_window_pattern")?;
            periodic(config.count("sliding_window_pattern")?.or(saved).unwrap_or(usual), layers)
        }
        (None, windows) => windows.usual_pattern(layers),
    };
    Ok(Some(Window { tokens, pattern }))
}

/// True for each layer with a window, where the configuration lists the kinds of attention.
fn read_layer_types(config: &Config) -> Result<Option<Vec<bool>>> {
    let Some(types) = config.typed(LAYER_TYPES, "a list", Value::as_array)? else { return Ok(None) };
    let within = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(config.refused(LAYER_TYPES, "full_attention and sliding_attention are implemented")),
    };
    types.iter().map(within).collect::<Result<_>>().map(Some)
}

/// Rotation of most blocks, and of those within a window where the family has two.
fn read_ropes(config: &Config, family: &Family, head_dim: usize, context: usize) -> Result<(Rope, Option<Rope>)> {
    const KEY: &str = "rope_parameters";
    let parameters = config.object(KEY)?;
    let old = config.object("rope_scaling")?;
    let rope = |found: Found| {
        let rotary = head_dim as f64 * found.partial.or(family.partial_rotary).unwrap_or(1.0);
        // A cast saturates: anything absurd is caught by the architecture's check.
        let (theta, scaling) = (found.theta, found.scaling);
        Rope { theta, rotary_dim: rotary as usize, interleaved: family.interleaved_rotary, scaling }
    };
    let usual = family.defaults.theta;
    let Some(local_theta) = family.local_theta else {
        return Ok((rope(read_rope(config, parameters, old, ("rope_theta", usual), context)?), None));
    };
    // One object for each kind of attention.
    let of = |kind: &str| parameters.as_ref().map_or(Ok(None), |parameters| parameters.object(kind));
    if parameters.as_ref().is_some_and(|all| !all.object.is_empty() && !all.object.values().any(Value::is_object)) {
        return Err(config.refused(KEY, "an object for each of full_attention and sliding_attention is needed"));
    }
    let global = read_rope(config, of("full_attention")?, old, ("rope_theta", usual), context)?;
    let local = read_rope(config, of("sliding_attention")?, None, ("rope_local_base_freq", local_theta), context)?;
    if local.scaling.is_some() {
        return Err(config.refused(KEY, "a scaling within windows is not implemented"));
    }
    Ok((rope(global), Some(rope(local))))
}

/// What a configuration says of a rotation.
struct Found {
    theta: f64,
    /// Rotated share of a head.
    partial: Option<f64>,
    scaling: Option<RopeScaling>,
}

/// A rotation in either style: transformers 5 keeps everything in one object, 4 has theta, under the key given with what it is
/// where absent, and the partial factor beside the scaling. `context` is that of the configuration, which is the original one
/// where a scaling does not say another.
fn read_rope(
    config: &Config,
    parameters: Option<Config>,
    old: Option<Config>,
    (theta_key, usual_theta): (&str, f64),
    context: usize,
) -> Result<Found> {
    let either = |name: &str, old_name: &str| -> Result<Option<f64>> {
        match parameters.as_ref().map(|p| p.number(name)).transpose()?.flatten() {
            Some(found) => Ok(Some(found)),
            None => config.number(old_name),
        }
    };
    let theta = either("rope_theta", theta_key)?.unwrap_or(usual_theta);
    let partial = either("partial_rotary_factor", "partial_rotary_factor")?;
    if let Some(share) = partial
        && !(share > 0.0 && share <= 1.0)
    {
        return Err(format_error(
            config.file,
            format!("partial_rotary_factor is {share}; above 0 and at most 1 is possible"),
        ));
    }
    let key = if parameters.is_some() { "rope_parameters" } else { "rope_scaling" };
    let scaling = match parameters.as_ref().or(old.as_ref()) {
        Some(scaling) => read_scaling(config, scaling, key, context)?,
        None => None,
    };
    Ok(Found { theta, partial, scaling })
}

fn read_scaling(config: &Config, scaling: &Config, key: &str, context: usize) -> Result<Option<RopeScaling>> {
    if scaling.object.values().any(Value::is_object) {
        return Err(unsupported(format!("{}: {key} differs between layers", config.file)));
    }
    let kind = match scaling.typed("rope_type", "a string", Value::as_str)? {
        Some(kind) => kind,
        None => scaling.typed("type", "a string", Value::as_str)?.unwrap_or("default"),
    };
    let need = |name: &str| scaling.number(name)?.ok_or_else(|| missing(config.file, &format!("{key}.{name}")));
    Ok(Some(match kind {
        "default" => return Ok(None),
        "linear" => RopeScaling::Linear { factor: need("factor")? },
        "llama3" => RopeScaling::Llama3(Llama3Scaling {
            factor: need("factor")?,
            low_frequency_factor: need("low_freq_factor")?,
            high_frequency_factor: need("high_freq_factor")?,
            original_context: need("original_max_position_embeddings")?,
        }),
        // As the first files of Phi-3 called it.
        "longrope" | "su" => RopeScaling::Long(read_long(config, scaling, key, context)?),
        "yarn" => RopeScaling::Yarn(read_yarn(config, scaling, context)?),
        other => {
            let text = format!(
                "{}: {key} of type \"{}\"; default, linear, llama3, longrope and yarn are implemented",
                config.file,
                shorten(other)
            );
            return Err(unsupported(text));
        }
    }))
}

fn read_long(config: &Config, scaling: &Config, key: &str, reach: usize) -> Result<LongRope> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let factors = |name: &str| -> Result<Vec<f32>> {
        let name_in_file = || format!("{key}.{name}");
        let list = scaling.typed(name, "a list of numbers", Value::as_array)?;
        let list = list.ok_or_else(|| missing(config.file, &name_in_file()))?;
        let number = |value: &Value| {
            let wrong =
                || format_error(config.file, format!("{} has {}, which is no number", name_in_file(), brief(value)));
            // In single precision, as transformers and GGUF files have them.
            value.as_f64().map(|factor| factor as f32).ok_or_else(wrong)
        };
        list.iter().map(number).collect()
    };
    // Beside the scaling it counts first.
    let original = match config.count(ORIGINAL)? {
        Some(outside) => outside,
        None => scaling.count(ORIGINAL)?.unwrap_or(reach),
    };
    let mut long = LongRope {
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        original_context: original,
        reach,
        attention: 1.0,
    };
    long.attention = match (scaling.number("attention_factor")?, scaling.number("factor")?) {
        (Some(attention), _) => attention,
        (None, Some(factor)) => LongRope::attention_of(factor, original),
        (None, None) => long.usual_attention(),
    };
    Ok(long)
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
        RopeScaling::Long(s) => {
            // The shortest decimals of these singles.
            let factors =
                |all: &[f32]| all.iter().filter_map(|x| x.to_string().parse::<f64>().ok()).collect::<Vec<_>>();
            let mut scaling =
                json!({"long_factor": factors(&s.long), "short_factor": factors(&s.short), "type": "longrope"});
            // Some readers know only those three.
            if s.attention != s.usual_attention() {
                scaling["attention_factor"] = json!(s.attention);
            }
            scaling
        }
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
            ("model_type", json!("gemma2")),
            ("mlp_bias", json!(true)),
            ("use_sliding_window", json!(true)),
            ("layer_types", json!(["full_attention", "sliding_attention"])),
            ("hidden_act", json!("gelu")),
            ("rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0})),
            ("attn_logit_softcapping", json!(50.0)),
            ("final_logit_softcapping", json!(30.0)),
            ("use_bidirectional_attention", json!(true)),
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

    /// A configuration of two layers of another family, with these keys.
    fn of(model_type: &str, keys: Value) -> Value {
        let mut config = llama();
        config["model_type"] = json!(model_type);
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        config
    }

    #[test]
    fn a_window_is_where_the_family_has_it_and_none_where_no_sequence_outgrows_it() {
        let window = |tokens, pattern: &[bool]| Some(Window { tokens, pattern: pattern.to_vec() });
        let both = [true, true];
        for (model_type, keys, expected) in [
            ("mistral", json!({"sliding_window": null, "max_position_embeddings": 32_768}), None),
            ("mistral", json!({"sliding_window": 128}), None),
            ("mistral", json!({"sliding_window": 127}), window(127, &both)),
            // Where the key is absent, transformers' default of 4096 counts.
            ("mistral", json!({}), None),
            ("mistral", json!({"max_position_embeddings": 32_768}), window(4096, &both)),
            (
                "mistral",
                json!({"sliding_window": 64, "layer_types": ["sliding_attention", "sliding_attention"]}),
                window(64, &both),
            ),
            ("phi3", json!({"max_position_embeddings": 32_768}), None),
            ("phi3", json!({"sliding_window": 64}), window(64, &both)),
            ("qwen2", json!({"sliding_window": 4}), None),
            ("qwen2", json!({"sliding_window": 4, "use_sliding_window": false, "max_window_layers": 0}), None),
            ("qwen2", json!({"sliding_window": 4, "use_sliding_window": true}), None),
            (
                "qwen3",
                json!({"sliding_window": 4, "use_sliding_window": true, "max_window_layers": 1}),
                window(4, &[false, true]),
            ),
            (
                "qwen3",
                json!({"sliding_window": 4, "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"]}),
                window(4, &[true, false]),
            ),
            // In these families the key alone means nothing.
            ("llama", json!({"sliding_window": 4}), None),
            ("glm4", json!({"sliding_window": 4, "head_dim": 16}), None),
        ] {
            let found = read(&of(model_type, keys.clone())).unwrap();
            assert_eq!(found.window, expected, "{model_type} {keys}");
            assert!(found.local_rope.is_none() && found.embedding_scale == 1.0, "{model_type}");
        }
        for (model_type, keys) in [
            ("mistral", json!({"sliding_window": "wide"})),
            ("mistral", json!({"sliding_window": 0})),
            ("qwen2", json!({"use_sliding_window": true, "sliding_window": 4, "layer_types": ["sliding_attention"]})),
        ] {
            let error = read(&of(model_type, keys.clone())).unwrap_err();
            assert!(matches!(error, Error::Format { .. }), "{model_type} {keys}: {error}");
        }
        for (model_type, keys) in [
            ("mistral", json!({"use_sliding_window": true})),
            ("mistral", json!({"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]})),
            ("mistral", json!({"sliding_window": null, "layer_types": ["sliding_attention", "full_attention"]})),
            ("qwen2", json!({"layer_types": ["sliding_attention", "full_attention"]})),
            ("qwen2", json!({"layer_types": ["chunked_attention", "full_attention"]})),
        ] {
            let error = read(&of(model_type, keys.clone())).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{model_type} {keys}: {error}");
        }
    }

    #[test]
    fn a_gemma_has_two_rotations_a_window_but_in_every_sixth_layer_and_a_scaled_embedding() {
        let keys = json!({"num_hidden_layers": 7, "head_dim": 256, "sliding_window": 512, "rope_theta": 1e6,
            "rope_local_base_freq": 20_000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
        let found = read(&of("gemma3_text", keys.clone())).unwrap();
        let local = found.local_rope.clone().unwrap();
        assert_eq!((found.rope.theta, found.rope.scaling.clone()), (1e6, Some(RopeScaling::Linear { factor: 8.0 })));
        assert_eq!((local.theta, local.scaling, local.rotary_dim), (20_000.0, None, 256));
        // The window reaches further than the context, but its layers have their own rotation.
        assert_eq!(found.window, Some(Window { tokens: 512, pattern: periodic(6, 7) }));
        assert_eq!((found.embedding_scale, found.attention_scale, found.tied_head), (8.0, None, true));
        // As transformers 5 writes it.
        let mut new = of("gemma3_text", keys);
        for old in ["rope_theta", "rope_local_base_freq", "rope_scaling"] {
            new.as_object_mut().unwrap().remove(old);
        }
        new["rope_parameters"] = json!({
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0},
        });
        assert_eq!(read(&new).unwrap(), found);
        // 27 billion parameters: scores are divided by another number than the heads' width says.
        let scaled = read(&of("gemma3_text", json!({"head_dim": 128, "query_pre_attn_scalar": 168}))).unwrap();
        assert_eq!(scaled.attention_scale, Some(168_f64.sqrt().recip()));
        for (keys, named) in [
            (json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}), "an object for each"),
            (json!({"hidden_activation": "silu"}), "only gelu_pytorch_tanh"),
            (json!({"final_logit_softcapping": 30.0}), "final_logit_softcapping is 30.0"),
        ] {
            let error = read(&of("gemma3_text", keys)).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn the_part_for_text_is_taken_of_a_gemma_that_sees_and_what_it_leaves_out_has_its_own_defaults() {
        // As the configuration of 4 billion parameters was published.
        let whole = json!({"model_type": "gemma3", "eos_token_id": [1, 106], "tie_word_embeddings": true,
            "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10_240,
                "num_hidden_layers": 34, "sliding_window": 1024, "bos_token_id": 2,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
            "vision_config": {"model_type": "siglip_vision_model"}});
        let found = read(&whole).unwrap();
        assert_eq!((found.heads, found.kv_heads, found.head_dim, found.vocab), (8, 4, 256, 262_208));
        assert_eq!((found.context, found.rope.theta, found.tied_head), (131_072, 1e6, true));
        assert_eq!(found.local_rope.as_ref().unwrap().theta, 10_000.0);
        assert_eq!(found.window.as_ref().unwrap().tokens, 1024);
        assert!((found.parameter_count() as f64 / 3.88e9 - 1.0).abs() < 0.01, "{}", found.parameter_count());
        let special = SpecialTokens::from_config_json(whole.to_string().as_bytes(), "config.json").unwrap();
        assert_eq!(special, SpecialTokens { bos: Some(2), eos: vec![1, 106], pad: None });
        // What is written is text alone.
        let text = found.to_config_json(&special, "bfloat16");
        assert!(text.contains("\"gemma3_text\"") && text.contains("\"Gemma3ForCausalLM\""), "{text}");
        assert_eq!(Architecture::from_config_json(text.as_bytes(), "config.json").unwrap(), found);
        let with = |key: &str, value: Value| {
            let mut other = whole.clone();
            other[key] = value;
            read(&other).unwrap_err().to_string()
        };
        assert!(with("text_config", json!(null)).contains("text_config is missing"));
        let other = with("text_config", json!({"model_type": "llama"}));
        assert!(other.contains("text_config.model_type is") && other.contains("llama"), "{other}");
        assert!(with("quantization_config", json!({"bits": 4})).contains("quantization_config"));
    }

    #[test]
    fn longrope_ends_at_the_original_context_and_is_written_as_it_was() {
        let factors = |first: f64| [first, 1.2, 1.5, 2.0, 2.75, 4.0, 6.5, 9.0];
        let scaling = |kind: &str| json!({"type": kind, "short_factor": factors(1.05), "long_factor": factors(1.5)});
        let keys = |scaling: Value| {
            json!({"max_position_embeddings": 131_072, "rope_scaling": scaling,
            "original_max_position_embeddings": 4096, "sliding_window": 8192})
        };
        let found = read(&of("phi3", keys(scaling("longrope")))).unwrap();
        assert_eq!((found.context, found.reach()), (4096, 131_072));
        assert_eq!(read(&of("phi3", keys(scaling("su")))).unwrap(), found);
        let Some(RopeScaling::Long(long)) = &found.rope.scaling else { panic!("{:?}", found.rope) };
        assert_eq!((long.short[0], long.attention), (1.05, LongRope::attention_of(32.0, 4096)));
        // It makes a difference to those who go beyond the original context.
        assert_eq!(found.window.as_ref().unwrap().tokens, 8192);
        let text = found.to_config_json(&SpecialTokens::default(), "float32");
        assert_eq!(Architecture::from_config_json(text.as_bytes(), "config.json").unwrap(), found);
        let text: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&text["rope_scaling"], &text["max_position_embeddings"]), (&scaling("longrope"), &json!(131_072)));
        let mut given = scaling("longrope");
        given["attention_factor"] = json!(1.5);
        let given = read(&of("phi3", keys(given))).unwrap();
        assert_eq!(given.rope.scaling.as_ref().unwrap().attention(), 1.5);
        let text = given.to_config_json(&SpecialTokens::default(), "float32");
        assert_eq!(Architecture::from_config_json(text.as_bytes(), "config.json").unwrap(), given);
        for (key, value) in
            [("short_factor", json!([1.0])), ("long_factor", json!("long")), ("short_factor", json!(null))]
        {
            let mut wrong = scaling("longrope");
            wrong[key] = value;
            let error = read(&of("phi3", keys(wrong))).unwrap_err();
            assert!(matches!(error, Error::Format { .. }), "{error}");
        }
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
        for (model_type, keys) in [
            ("mistral", json!({"sliding_window": 64})),
            ("qwen2", json!({"sliding_window": 64, "use_sliding_window": true, "max_window_layers": 1})),
            ("gemma3_text", json!({"sliding_window": 64, "query_pre_attn_scalar": 168, "num_hidden_layers": 8})),
            ("gemma3_text", json!({"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]})),
            ("phi3", json!({"sliding_window": 64, "partial_rotary_factor": 0.75})),
        ] {
            let found = read(&of(model_type, keys)).unwrap();
            assert!(found.window.is_some(), "{found:?}");
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
