//! One description of a model's shape for Llama, Qwen2/2.5, Qwen3 and GLM-4, and where it is read from and written to.
//!
//! A description comes out of a Hugging Face `config.json` (the style of transformers 4 with `rope_theta`,
//! `rope_scaling` and `partial_rotary_factor` at the top level, or of transformers 5 with `rope_parameters`), out of
//! GGUF metadata, or is made by hand for a model trained from scratch. Every number is checked before anything is
//! allocated from it. The block implementation, the weight check and the exporters all ask this one type: which tensors
//! there are and how large ([`Architecture::tensor_specs`]), and the rotary tables ([`Architecture::rope_tables`]).
//!
//! What a file asks for and the engine does not implement (sliding windows, other rope scalings, MLP biases, experts)
//! is refused by name: computing something slightly different would be worse.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::host::shorten;
use crate::weights::gguf::Metadata;

/// Which published family a model belongs to. It decides defaults and the few wiring differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Llama 2, 3, 3.1, 3.2, SmolLM2 and others of that shape.
    Llama,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMS norms on every q and k head.
    Qwen3,
    /// GLM-4-0414: four norms a layer, fused gate and up, interleaved rotary on part of the head.
    Glm4,
}

impl Family {
    /// All families, for messages and tests.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Glm4];

    /// `model_type` in `config.json`, which is also `general.architecture` in GGUF.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Glm4 => "glm4",
        }
    }

    /// The class name that transformers puts into `architectures`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Glm4 => "Glm4ForCausalLM",
        }
    }

    fn from_model_type(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|f| f.model_type() == name)
            .ok_or_else(|| unsupported(format!("model type \"{}\"; llama, qwen2, qwen3 and glm4 are", shorten(name))))
    }
}

/// The frequency scaling of Llama 3.1 and later (`rope_type` `llama3`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Low frequencies are divided by this.
    pub factor: f64,
    /// Wavelengths above `original_context / low_frequency_factor` count as low frequency.
    pub low_frequency_factor: f64,
    /// Wavelengths below `original_context / high_frequency_factor` stay as they are.
    pub high_frequency_factor: f64,
    /// Context length before the extension, in tokens.
    pub original_context: f64,
}

impl Llama3Scaling {
    /// The number by which a frequency (radians a token) is divided.
    ///
    /// With `wavelength = 2 pi / frequency` and `s = (original_context / wavelength - low) / (high - low)`: 1 for short
    /// wavelengths, `factor` for long ones, and `1 / ((1 - s) / factor + s)` between (transformers,
    /// `_compute_llama3_parameters`).
    pub fn divisor(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength > self.original_context / self.low_frequency_factor {
            self.factor
        } else if wavelength < self.original_context / self.high_frequency_factor {
            1.0
        } else {
            let smooth = (self.original_context / wavelength - self.low_frequency_factor)
                / (self.high_frequency_factor - self.low_frequency_factor);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        }
    }

    /// The scaling behind a GGUF file's `rope_freqs.weight`, which stores only the resulting divisors.
    ///
    /// All published models use factors 1 and 4; the largest divisor is `factor`, and the original context is the power
    /// of two that gives these very divisors. `None` where there is none.
    fn from_divisors(divisors: &[f32], frequencies: &[f64]) -> Option<Self> {
        let factor = f64::from(divisors.iter().copied().fold(1.0_f32, f32::max));
        (4..=22).map(|power| f64::from(1_u32 << power)).find_map(|original_context| {
            let scaling = Self { factor, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_context };
            let fits = divisors.len() == frequencies.len()
                && divisors.iter().zip(frequencies).all(|(&found, &frequency)| {
                    let expected = scaling.divisor(frequency);
                    (f64::from(found) - expected).abs() <= 1e-4 * expected
                });
            fits.then_some(scaling)
        })
    }
}

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How many leading elements of each head are rotated; the rest pass through.
    pub rotary_dim: usize,
    /// True: pairs are neighbours `(2i, 2i+1)`. False: pairs are halves `(i, i + rotary_dim/2)`.
    pub interleaved: bool,
    /// Llama 3.1's scaling, where the model uses it.
    pub scaling: Option<Llama3Scaling>,
}

/// Shape and wiring of a decoder-only transformer. All counts are in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Published family.
    pub family: Family,
    /// Rows of the embedding (at least the tokenizer's size; some models pad it).
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; `heads * head_dim` need not be `hidden`.
    pub head_dim: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Biases on q, k and v (and on o, see [`Architecture::attention_output_bias`]).
    pub attention_bias: bool,
    /// RMS norm over each q and k head before the rotation.
    pub qk_norm: bool,
    /// Norms also after attention and after the MLP, before the residual sum.
    pub sandwich_norms: bool,
    /// Gate and up are one matrix `[2 * intermediate, hidden]`, gate first.
    pub fused_gate_up: bool,
    /// The head is the embedding matrix.
    pub tied_head: bool,
    /// Longest sequence that the model was made for, in tokens.
    pub context: usize,
}

/// A tensor that a model must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Hugging Face name.
    pub name: String,
    /// Row-major, `[out, in]` for matrices.
    pub shape: Vec<usize>,
}

/// What a GGUF file says about a model outside its metadata: in which tensors there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufFacts {
    /// Rows of `token_embd.weight`.
    pub vocab: usize,
    /// No `output.weight`.
    pub tied_head: bool,
    /// There is a `blk.0.attn_q.bias`.
    pub attention_bias: bool,
    /// Contents of `rope_freqs.weight`.
    pub rope_divisors: Option<Vec<f32>>,
}

/// Token ids that travel with a model from one configuration file to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Start of a document.
    pub bos: Option<u32>,
    /// Ends of an answer; several models have more than one.
    pub eos: Vec<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

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

// Larger than any published model by an order of magnitude, small enough that no product of three overflows a u64.
const MOST_LAYERS: usize = 1 << 10;
const MOST_HEADS: usize = 1 << 12;
const WIDEST_HEAD: usize = 1 << 12;
const WIDEST_LAYER: usize = 1 << 20;
const LARGEST_VOCABULARY: usize = 1 << 24;
const LONGEST_CONTEXT: usize = 1 << 28;
/// A `config.json` is a few KiB; a larger one is something else.
const LARGEST_CONFIG: usize = 1 << 20;

impl Architecture {
    /// Reads a Hugging Face `config.json`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Format`] for malformed JSON and for missing, mistyped or impossible values; [`Error::Unsupported`] for
    /// what the engine does not implement, naming the field.
    pub fn from_config_json(bytes: &[u8], file: &str) -> Result<Self> {
        let object = parse_object(bytes, file)?;
        let config = Config { object: &object, file };
        let family = Family::from_model_type(&config.text("model_type")?)?;
        refuse_other_wiring(&config)?;

        let heads = config.required("num_attention_heads")?;
        let hidden = config.required("hidden_size")?;
        let kv_heads = match config.count("num_key_value_heads")? {
            Some(found) => found,
            None if family == Family::Llama => heads, // Llama 1 and 2 files predate the key
            None => return Err(config.missing("num_key_value_heads")),
        };
        let head_dim = match (config.count("head_dim")?, family) {
            (Some(found), _) => found,
            (None, Family::Llama | Family::Qwen2) => {
                if heads == 0 || hidden % heads != 0 {
                    let text = format!("head_dim is absent and hidden_size {hidden} is no multiple of {heads} heads");
                    return Err(format_error(file, text));
                }
                hidden / heads
            }
            (None, Family::Qwen3 | Family::Glm4) => 128, // transformers' default for these families
        };
        let (default_epsilon, default_partial) = match family {
            Family::Glm4 => (1.5625e-7, 0.5),
            _ => (1e-6, 1.0),
        };
        let (theta, partial, scaling) = read_rope(&config)?;
        let rotary = head_dim as f64 * partial.unwrap_or(default_partial);
        let architecture = Self {
            family,
            vocab: config.required("vocab_size")?,
            hidden,
            layers: config.required("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            intermediate: config.required("intermediate_size")?,
            norm_epsilon: config.number("rms_norm_eps")?.unwrap_or(default_epsilon),
            // A cast saturates: anything absurd is caught by `validate` below.
            rope: Rope { theta, rotary_dim: rotary as usize, interleaved: family == Family::Glm4, scaling },
            attention_bias: family == Family::Qwen2 || config.flag("attention_bias")?.unwrap_or(false),
            qk_norm: family == Family::Qwen3,
            sandwich_norms: family == Family::Glm4,
            fused_gate_up: family == Family::Glm4,
            tied_head: config.flag("tie_word_embeddings")?.unwrap_or(false), // false is each family's own default
            context: config.required("max_position_embeddings")?,
        };
        architecture.validate(file)?;
        Ok(architecture)
    }

    /// Reads GGUF metadata; `file` is the file's name in messages. [`crate::weights::gguf::Gguf::architecture`] calls
    /// this with the facts of its own tensors.
    ///
    /// # Errors
    /// As [`Architecture::from_config_json`]; [`Error::Unsupported`] also where `rope_freqs.weight` holds divisors that
    /// no Llama 3 scaling produces.
    pub fn from_gguf_metadata(metadata: &Metadata, facts: &GgufFacts, file: &str) -> Result<Self> {
        let name = metadata.text("general.architecture").ok_or_else(|| missing(file, "general.architecture"))?;
        let family = Family::from_model_type(name)?;
        let key = |suffix: &str| format!("{name}.{suffix}");
        let count = |suffix: &str| -> Result<Option<usize>> {
            let key = key(suffix);
            match (metadata.get(&key), metadata.unsigned(&key)) {
                (None, _) => Ok(None),
                (Some(_), Some(n)) => {
                    usize::try_from(n).map(Some).map_err(|_| format_error(file, format!("{key} is {n}")))
                }
                (Some(_), None) => Err(unsupported(format!("{file}: {key} is not one whole number"))),
            }
        };
        let required = |suffix: &str| count(suffix)?.ok_or_else(|| missing(file, &key(suffix)));

        if count("expert_count")?.unwrap_or(0) > 0 {
            return Err(unsupported(format!(
                "{file}: {} is not zero; mixtures of experts are not supported",
                key("expert_count")
            )));
        }
        match metadata.text(&key("rope.scaling.type")) {
            None | Some("none") => {}
            Some(other) => {
                let text = format!("{file}: rope scaling \"{}\"; only none and llama3's are", shorten(other));
                return Err(unsupported(text));
            }
        }
        if count("attention.sliding_window")?.unwrap_or(0) > 0 {
            return Err(unsupported(format!(
                "{file}: {}: sliding windows are not supported",
                key("attention.sliding_window")
            )));
        }

        let heads = required("attention.head_count")?;
        let hidden = required("embedding_length")?;
        let head_dim = match count("attention.key_length")? {
            Some(found) => found,
            None if heads > 0 && hidden % heads == 0 => hidden / heads,
            None => return Err(missing(file, &key("attention.key_length"))),
        };
        if count("attention.value_length")?.is_some_and(|v| v != head_dim) {
            return Err(unsupported(format!("{file}: value heads of another width than key heads")));
        }
        let mut architecture = Self {
            family,
            vocab: facts.vocab,
            hidden,
            layers: required("block_count")?,
            heads,
            kv_heads: count("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            intermediate: required("feed_forward_length")?,
            norm_epsilon: metadata
                .number(&key("attention.layer_norm_rms_epsilon"))
                .ok_or_else(|| missing(file, &key("attention.layer_norm_rms_epsilon")))?,
            rope: Rope {
                theta: metadata.number(&key("rope.freq_base")).unwrap_or(10_000.0),
                rotary_dim: count("rope.dimension_count")?.unwrap_or(head_dim),
                interleaved: family == Family::Glm4,
                scaling: None,
            },
            attention_bias: facts.attention_bias,
            qk_norm: family == Family::Qwen3,
            sandwich_norms: family == Family::Glm4,
            fused_gate_up: family == Family::Glm4,
            tied_head: facts.tied_head,
            context: required("context_length")?,
        };
        architecture.validate(file)?;
        if let Some(divisors) = &facts.rope_divisors {
            let found = Llama3Scaling::from_divisors(divisors, &architecture.rope_frequencies());
            architecture.rope.scaling =
                Some(found.ok_or_else(|| unsupported(format!("{file}: rope_freqs.weight holds no Llama 3 scaling")))?);
        }
        Ok(architecture)
    }

    /// Writes a `config.json` in the style of transformers 4, which transformers 5 reads as well. The tensors beside it
    /// have type `dtype` (`float32`, `float16` or `bfloat16`).
    pub fn to_config_json(&self, special: &SpecialTokens, dtype: &str) -> String {
        let mut config = json!({
            "architectures": [self.family.class_name()],
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
            "model_type": self.family.model_type(),
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": special.pad,
            "rms_norm_eps": self.norm_epsilon,
            "rope_scaling": self.rope.scaling.map(|s| json!({
                "factor": s.factor,
                "high_freq_factor": s.high_frequency_factor,
                "low_freq_factor": s.low_frequency_factor,
                "original_max_position_embeddings": s.original_context as u64,
                "rope_type": "llama3",
            })),
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tied_head,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab,
        });
        match self.family {
            Family::Llama => {
                config["attention_bias"] = json!(self.attention_bias);
                config["mlp_bias"] = json!(false);
            }
            Family::Qwen2 => config["use_sliding_window"] = json!(false),
            Family::Qwen3 => {
                config["attention_bias"] = json!(self.attention_bias);
                config["use_sliding_window"] = json!(false);
            }
            Family::Glm4 => {
                config["attention_bias"] = json!(self.attention_bias);
                config["partial_rotary_factor"] = json!(self.rope.rotary_dim as f64 / self.head_dim as f64);
            }
        }
        let mut text = format!("{config:#}");
        text.push('\n');
        text
    }

    /// Checks every number; `file` is where they came from.
    ///
    /// # Errors
    /// [`Error::Format`] listing all impossible values, [`Error::Unsupported`] for possible ones that are not
    /// implemented.
    pub fn validate(&self, file: &str) -> Result<()> {
        let mut problems = Vec::new();
        for (what, found, most) in [
            ("vocabulary", self.vocab, LARGEST_VOCABULARY),
            ("hidden size", self.hidden, WIDEST_LAYER),
            ("number of layers", self.layers, MOST_LAYERS),
            ("number of heads", self.heads, MOST_HEADS),
            ("number of key-value heads", self.kv_heads, MOST_HEADS),
            ("head size", self.head_dim, WIDEST_HEAD),
            ("intermediate size", self.intermediate, WIDEST_LAYER),
            ("context length", self.context, LONGEST_CONTEXT),
        ] {
            if found == 0 || found > most {
                problems.push(format!("{what} is {found}; 1 to {most} is possible"));
            }
        }
        if self.kv_heads > 0 && !self.heads.is_multiple_of(self.kv_heads) {
            problems.push(format!("{} heads cannot share {} key-value heads evenly", self.heads, self.kv_heads));
        }
        let rotary = self.rope.rotary_dim;
        if rotary == 0 || !rotary.is_multiple_of(2) || rotary > self.head_dim {
            problems
                .push(format!("{rotary} rotated elements in a head of {}; an even number is needed", self.head_dim));
        }
        // Written so that NaN is refused as well.
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon <= 0.1) {
            problems.push(format!("norm epsilon is {}; above 0 and at most 0.1 is possible", self.norm_epsilon));
        }
        if !(self.rope.theta > 1.0 && self.rope.theta <= 1e12) {
            problems.push(format!("rope theta is {}; above 1 and at most 1e12 is possible", self.rope.theta));
        }
        if let Some(s) = &self.rope.scaling {
            let possible = s.factor >= 1.0
                && s.factor <= 1e6
                && s.low_frequency_factor > 0.0
                && s.high_frequency_factor > s.low_frequency_factor
                && s.high_frequency_factor <= 1e6
                && s.original_context >= 1.0
                && s.original_context <= LONGEST_CONTEXT as f64;
            if !possible {
                problems.push(format!("llama3 rope scaling has impossible factors: {s:?}"));
            }
        }
        if problems.is_empty() && self.total_elements().is_none() {
            problems.push("the tensors are too large for this machine's addresses".into());
        }
        if !problems.is_empty() {
            return Err(format_error(file, problems.join("; ")));
        }
        if self.family != Family::Glm4 && rotary != self.head_dim {
            let text = format!(
                "{file}: {} with only {rotary} of {} elements rotated",
                self.family.model_type(),
                self.head_dim
            );
            return Err(unsupported(text));
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together (and of all value heads).
    pub fn key_value_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// True where the attention's output projection has a bias: Llama and Qwen3 with `attention_bias`. Qwen2 and GLM-4
    /// have biases on q, k and v only.
    pub fn attention_output_bias(&self) -> bool {
        self.attention_bias && matches!(self.family, Family::Llama | Family::Qwen3)
    }

    /// Every tensor that the model must have: embedding, layers in order, final norm, and the head unless it is tied.
    pub fn tensor_specs(&self) -> Vec<TensorSpec> {
        let mut specs = vec![spec("model.embed_tokens.weight", &[self.vocab, self.hidden])];
        for layer in 0..self.layers {
            specs.extend(self.layer_specs(layer));
        }
        specs.push(spec("model.norm.weight", &[self.hidden]));
        if !self.tied_head {
            specs.push(spec("lm_head.weight", &[self.vocab, self.hidden]));
        }
        specs
    }

    /// The tensors of one layer, in the order in which the forward pass uses them.
    pub fn layer_specs(&self, layer: usize) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        let mut add = |name: &str, shape: &[usize]| specs.push(spec(&format!("model.layers.{layer}.{name}"), shape));
        let (hidden, query, key) = (self.hidden, self.query_width(), self.key_value_width());
        add("input_layernorm.weight", &[hidden]);
        for (name, width) in [("q_proj", query), ("k_proj", key), ("v_proj", key)] {
            add(&format!("self_attn.{name}.weight"), &[width, hidden]);
            if self.attention_bias {
                add(&format!("self_attn.{name}.bias"), &[width]);
            }
        }
        if self.qk_norm {
            add("self_attn.q_norm.weight", &[self.head_dim]);
            add("self_attn.k_norm.weight", &[self.head_dim]);
        }
        add("self_attn.o_proj.weight", &[hidden, query]);
        if self.attention_output_bias() {
            add("self_attn.o_proj.bias", &[hidden]);
        }
        if self.sandwich_norms {
            add("post_self_attn_layernorm.weight", &[hidden]);
        }
        add("post_attention_layernorm.weight", &[hidden]);
        if self.fused_gate_up {
            add("mlp.gate_up_proj.weight", &[2 * self.intermediate, hidden]);
        } else {
            add("mlp.gate_proj.weight", &[self.intermediate, hidden]);
            add("mlp.up_proj.weight", &[self.intermediate, hidden]);
        }
        add("mlp.down_proj.weight", &[hidden, self.intermediate]);
        if self.sandwich_norms {
            add("post_mlp_layernorm.weight", &[hidden]);
        }
        specs
    }

    /// The linear layers of one block by their short name (`q_proj`, `down_proj`, ...), those that LoRA can adapt.
    /// Gives `(module, out, in)` with the module's full name, such as `model.layers.0.self_attn.q_proj`.
    pub fn linear_modules(&self, layer: usize) -> Vec<(String, usize, usize)> {
        let matrices = self.layer_specs(layer).into_iter().filter_map(|s| match s.shape[..] {
            [out, input] => Some((s.name.strip_suffix(".weight")?.to_owned(), out, input)),
            _ => None,
        });
        matrices.collect()
    }

    /// Number of parameters, each tensor counted once (a tied head is the embedding).
    pub fn parameter_count(&self) -> u64 {
        self.total_elements().unwrap_or(u64::MAX)
    }

    /// Sum of all tensors' elements; `None` where a tensor's bytes in f32, or the sum, cannot be counted here.
    fn total_elements(&self) -> Option<u64> {
        let layer = self.layer_specs(0);
        let mut outside = vec![spec("", &[self.vocab, self.hidden]), spec("", &[self.hidden])];
        if !self.tied_head {
            outside.push(spec("", &[self.vocab, self.hidden]));
        }
        let sum = |specs: &[TensorSpec]| {
            specs.iter().try_fold(0_u64, |sum, s| {
                let elements = s.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
                // An allocation holds at most isize::MAX bytes.
                isize::try_from(elements.checked_mul(4)?).ok()?;
                sum.checked_add(elements as u64)
            })
        };
        sum(&layer)?.checked_mul(self.layers as u64)?.checked_add(sum(&outside)?)
    }

    /// Angle by which each of the `rotary_dim / 2` pairs turns from one token to the next, in radians:
    /// `theta ^ (-2 i / rotary_dim)`, divided as the scaling says.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let pairs = self.rope.rotary_dim / 2;
        let frequencies = (0..pairs).map(|i| self.rope.theta.powf(-((2 * i) as f64) / self.rope.rotary_dim as f64));
        frequencies.map(|f| self.rope.scaling.map_or(f, |s| f / s.divisor(f))).collect()
    }

    /// Cosines and sines `[positions, rotary_dim / 2]`, row-major, computed in f64 and rounded once.
    pub fn rope_tables(&self, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.rope_frequencies();
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        (angles().map(|a| a.cos() as f32).collect(), angles().map(|a| a.sin() as f32).collect())
    }
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec() }
}

fn format_error(file: &str, problem: String) -> Error {
    Error::Format { file: file.to_owned(), problem }
}

fn missing(file: &str, key: &str) -> Error {
    format_error(file, format!("{key} is missing"))
}

fn unsupported(problem: String) -> Error {
    Error::Unsupported { problem }
}

/// A JSON value for a message, however large it is.
fn brief(value: &Value) -> String {
    shorten(&value.to_string())
}

fn parse_object(bytes: &[u8], file: &str) -> Result<Map<String, Value>> {
    if bytes.len() > LARGEST_CONFIG {
        return Err(format_error(file, format!("{} bytes are too many for a model configuration", bytes.len())));
    }
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

/// Rope theta, rotated share of the head where given, and scaling, from either style of configuration.
fn read_rope(config: &Config) -> Result<(f64, Option<f64>, Option<Llama3Scaling>)> {
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
    match kind {
        "default" => Ok((theta, partial, None)),
        "llama3" => {
            let scaling = Llama3Scaling {
                factor: need("factor")?,
                low_frequency_factor: need("low_freq_factor")?,
                high_frequency_factor: need("high_freq_factor")?,
                original_context: need("original_max_position_embeddings")?,
            };
            Ok((theta, partial, Some(scaling)))
        }
        other => {
            let text =
                format!("{}: {key} of type \"{}\"; default and llama3 are implemented", config.file, shorten(other));
            Err(unsupported(text))
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
        assert!(!found.tied_head && !found.attention_bias && !found.qk_norm && !found.rope.interleaved);
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
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
            ("rope_scaling", json!({"type": "linear", "factor": 4.0})),
            ("rope_parameters", json!({"full_attention": {"rope_type": "default"}})),
            ("partial_rotary_factor", json!(0.5)),
            ("quantization_config", json!({"bits": 4})),
        ] {
            let error = with(key, value.clone()).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{key} = {value}: {error}");
        }
    }

    #[test]
    fn a_written_configuration_reads_back_as_the_same_description() {
        let mut all = vec![read(&llama()).unwrap()];
        let mut scaled = all[0].clone();
        scaled.rope.scaling = Some(Llama3Scaling {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 32.0,
        });
        scaled.attention_bias = true;
        scaled.tied_head = true;
        all.push(scaled);
        for (family, kind) in [(Family::Qwen2, "qwen2"), (Family::Qwen3, "qwen3"), (Family::Glm4, "glm4")] {
            let mut config = llama();
            config["model_type"] = json!(kind);
            config["head_dim"] = json!(32);
            let found = read(&config).unwrap();
            assert_eq!(found.family, family);
            all.push(found);
        }
        let special = SpecialTokens { bos: Some(1), eos: vec![2, 7], pad: None };
        for architecture in all {
            let text = architecture.to_config_json(&special, "float32");
            assert_eq!(Architecture::from_config_json(text.as_bytes(), "config.json").unwrap(), architecture);
            assert_eq!(SpecialTokens::from_config_json(text.as_bytes(), "config.json").unwrap(), special);
        }
    }

    #[test]
    fn rotary_tables_start_at_angle_zero_and_turn_the_first_pair_by_one_radian() {
        let (cos, sin) = read(&llama()).unwrap().rope_tables(3);
        assert_eq!((cos.len(), sin.len()), (24, 24));
        assert!(cos[..8].iter().all(|&c| c == 1.0) && sin[..8].iter().all(|&s| s == 0.0));
        assert_eq!((cos[8], sin[8]), (1.0_f64.cos() as f32, 1.0_f64.sin() as f32));
        assert_eq!(cos[17], (2.0 * 10_000.0_f64.powf(-2.0 / 16.0)).cos() as f32);
    }

    #[test]
    fn llama3_scaling_is_found_again_in_its_own_divisors() {
        let plain = read(&llama()).unwrap();
        let frequencies = plain.rope_frequencies();
        for (factor, original_context) in [(8.0, 32.0), (8.0, 8192.0), (32.0, 8192.0)] {
            let scaling =
                Llama3Scaling { factor, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_context };
            let divisors: Vec<f32> = frequencies.iter().map(|&f| scaling.divisor(f) as f32).collect();
            let found = Llama3Scaling::from_divisors(&divisors, &frequencies).unwrap();
            for &f in &frequencies {
                assert!((found.divisor(f) - scaling.divisor(f)).abs() <= 1e-4 * scaling.divisor(f));
            }
        }
        assert!(Llama3Scaling::from_divisors(&[1.0, 3.0, 2.0, 1.0, 5.0, 1.0, 1.0, 2.0], &frequencies).is_none());
        assert!(Llama3Scaling::from_divisors(&[1.0], &frequencies).is_none());
    }

    #[test]
    fn parameters_are_counted_as_the_tensors_that_are_listed() {
        let found = read(&llama()).unwrap();
        let listed: usize = found.tensor_specs().iter().map(|s| s.shape.iter().product::<usize>()).sum();
        assert_eq!(found.parameter_count(), listed as u64);
        assert_eq!(found.linear_modules(1)[0], ("model.layers.1.self_attn.q_proj".to_owned(), 64, 64));
        assert_eq!(found.linear_modules(0).len(), 7);
    }
}
