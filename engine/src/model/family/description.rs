//! What a family's file says.

use std::fmt;

use crate::data::tokenizer::gguf::PreTokenizer;
use crate::model::layout::{BlockNames, Name, name};

/// What the engine has to know of a family.
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The class that transformers puts into `architectures`.
    pub class_name: &'static str,
    /// `general.architecture` in GGUF files; `None` where these carry another family's.
    pub gguf_architecture: Option<&'static str>,
    /// Which parameters a block has, under which names.
    pub block: BlockNames,
    /// Biases of the attention's projections.
    pub attention_bias: AttentionBias,
    /// Rotary pairs are neighbours `(2i, 2i+1)` of a head, not `(i, i + half)`.
    pub interleaved_rotary: bool,
    /// Share of a head that is rotated where a configuration does not say; `None` where it is the whole head always.
    pub partial_rotary: Option<f64>,
    /// GGUF files hold the rows of q and k so that rotary pairs are neighbours, and Hugging Face's do not.
    pub gguf_rows_permuted: bool,
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

/// What keys of a `config.json` mean when they are absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// `rms_norm_eps`.
    pub norm_epsilon: f64,
    /// `head_dim`; `None`: hidden size divided by heads.
    pub head_dim: Option<usize>,
    /// `num_key_value_heads` may be absent, and is the number of heads then.
    pub kv_heads_are_heads: bool,
    /// `sliding_window`, where that key alone decides that attention is windowed. `None` where the key counts only with
    /// `use_sliding_window`, which every family refuses.
    pub sliding_window: Option<usize>,
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
pub const USUAL_DEFAULTS: Defaults =
    Defaults { norm_epsilon: 1e-6, head_dim: None, kv_heads_are_heads: false, sliding_window: None };

impl Family {
    /// Names of the modules that are rotated: q and k.
    pub fn rotated(&self) -> &'static [Name] {
        &self.block.qkv[..2]
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
