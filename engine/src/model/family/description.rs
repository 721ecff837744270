//! What a family's file says.

use std::fmt;

use crate::data::tokenizer::gguf::PreTokenizer;
use crate::kernels::Activation;
use crate::model::layout::{BlockNames, Name, name};

/// What the engine has to know of a family.
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The class that transformers puts into `architectures`.
    pub class_name: &'static str,
    /// `model_type` of models of which this is the part for text, under `text_config`; the other parts are left out.
    pub text_of: Option<&'static str>,
    /// `general.architecture` in GGUF files; `None` where these carry another family's.
    pub gguf_architecture: Option<&'static str>,
    /// Which parameters a block has, under which names.
    pub block: BlockNames,
    /// Biases of the attention's projections.
    pub attention_bias: AttentionBias,
    /// What the MLP's gate goes through.
    pub activation: Activation,
    /// What Hugging Face's files subtract of every norm's weight; GGUF files hold it as it is used.
    pub norm_offset: f32,
    /// The embedding's rows are multiplied by the square root of their width.
    pub scaled_embedding: bool,
    /// Which blocks attend within a window.
    pub windows: Windows,
    /// Base of the rotary frequencies within windows where files do not say, of families in which it differs from the others'.
    pub local_theta: Option<f64>,
    /// Rotary pairs are neighbours `(2i, 2i+1)` of a head, not `(i, i + half)`.
    pub interleaved_rotary: bool,
    /// Share of a head that is rotated where a configuration does not say; `None` where it is the whole head always.
    pub partial_rotary: Option<f64>,
    /// GGUF files hold the rows of q and k so that rotary pairs are neighbours, and Hugging Face's do not.
    pub gguf_rows_permuted: bool,
    /// Blocks of the one model whose scores are divided by the square root of the hidden size shared among its heads, which
    /// GGUF files do not say.
    pub gguf_scores_by_hidden: Option<usize>,
    /// What a configuration means that leaves keys out, as transformers has it.
    pub defaults: Defaults,
    /// Keys that say what the engine does not compute, with the value that switches it off (`None` is null). They are
    /// written into every `config.json`, because they say more than a key that is absent.
    pub switched_off: &'static [(&'static str, Option<bool>)],
    /// How vocabularies split text that GGUF files of this family know by name.
    pub pre_tokenizers: &'static [PreTokenizer],
}

/// Where the projections of attention have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    /// Nowhere.
    Never,
    /// On q, k and v.
    Always,
    /// On q, k and v, and on the output's too where `output`, if `attention_bias` says so.
    Configured {
        /// Whether the output projection has one as well.
        output: bool,
    },
}

/// Which blocks attend within a window of tokens, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// None.
    Never,
    /// All, where `sliding_window` is a number; of a file without the key it is this one.
    Everywhere(Option<usize>),
    /// Where `use_sliding_window` says so, those from the one numbered `max_window_layers` on.
    Switched,
    /// All but every so manieth (`sliding_window_pattern`), or as `layer_types` says. The first number is the window where
    /// files do not say, the second how manieth.
    Periodic(usize, usize),
}

impl Windows {
    /// The blocks with a window of a model of which a GGUF file says only that it has one.
    pub fn usual_pattern(self, layers: usize) -> Vec<bool> {
        match self {
            Self::Periodic(_, period) => periodic(period, layers),
            Self::Never | Self::Everywhere(_) | Self::Switched => periodic(0, layers),
        }
    }
}

/// Blocks of which every `period`th sees all tokens and the others those of a window, true for these, as configurations and
/// GGUF files count: all have one where the period is zero.
pub fn periodic(period: usize, layers: usize) -> Vec<bool> {
    (1..=layers).map(|block| period == 0 || !block.is_multiple_of(period)).collect()
}

/// What keys of a `config.json` mean when they are absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// `rms_norm_eps`.
    pub norm_epsilon: f64,
    /// `head_dim`; `None`: hidden size divided by heads.
    pub head_dim: Option<usize>,
    /// `num_key_value_heads` may be absent, and is the number of heads then.
    pub kv_heads_are_heads: bool,
    /// `tie_word_embeddings`.
    pub tied_head: bool,
    /// `rope_theta`.
    pub theta: f64,
    /// `query_pre_attn_scalar`, the number by whose square root attention's scores are divided; `None` in families that have
    /// no such key and divide by that of a head's width.
    pub query_scalar: Option<usize>,
    /// Other numbers, which published files of some families leave out.
    pub sizes: &'static [(&'static str, usize)],
}

/// Names that most families share: Llama's.
pub const USUAL_NAMES: BlockNames = BlockNames {
    index: 0,
    input_norm: name("input_layernorm", "attn_norm"),
    qkv: &[name("self_attn.q_proj", "attn_q"), name("self_attn.k_proj", "attn_k"), name("self_attn.v_proj", "attn_v")],
    q_norm: None,
    k_norm: None,
    output: &[name("self_attn.o_proj", "attn_output")],
    attention_norm: None,
    mlp_norm: name("post_attention_layernorm", "ffn_norm"),
    gate_up: &[name("mlp.gate_proj", "ffn_gate"), name("mlp.up_proj", "ffn_up")],
    down: &[name("mlp.down_proj", "ffn_down")],
    mlp_output_norm: None,
};

/// Defaults that most families share.
pub const USUAL_DEFAULTS: Defaults = Defaults {
    norm_epsilon: 1e-6,
    head_dim: None,
    kv_heads_are_heads: false,
    tied_head: false,
    theta: 10_000.0,
    query_scalar: None,
    sizes: &[],
};

/// What most families share: Llama's wiring. A family names what is its own.
pub const USUAL: Family = Family {
    model_type: "",
    class_name: "",
    text_of: None,
    gguf_architecture: None,
    block: USUAL_NAMES,
    attention_bias: AttentionBias::Never,
    activation: Activation::Silu,
    norm_offset: 0.0,
    scaled_embedding: false,
    windows: Windows::Never,
    local_theta: None,
    interleaved_rotary: false,
    partial_rotary: None,
    gguf_rows_permuted: false,
    gguf_scores_by_hidden: None,
    defaults: USUAL_DEFAULTS,
    switched_off: &[],
    pre_tokenizers: &[],
};

impl Family {
    /// What Hugging Face's files subtract of a tensor: zero of all but norms, whose weights are the vectors called `weight`.
    pub fn offset_of(&self, name: &str, shape: &[usize]) -> f32 {
        if shape.len() == 1 && name.ends_with(".weight") { self.norm_offset } else { 0.0 }
    }

    /// Factor of the embedding's rows, of so many elements each: their square root in single precision, as llama.cpp has it.
    /// (transformers rounds it to the precision in which a model computes.)
    pub fn embedding_scale(&self, hidden: usize) -> f64 {
        if self.scaled_embedding { f64::from((hidden as f32).sqrt()) } else { 1.0 }
    }

    /// Names of the modules that are rotated as a whole: q and k, where they are modules of their own.
    pub fn rotated(&self) -> &'static [Name] {
        self.block.qkv.get(..2).unwrap_or_default()
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.model_type)
    }
}
