//! Qwen3: a norm on every q and k head.

use super::description::{AttentionBias, Defaults, Family, USUAL, USUAL_DEFAULTS, USUAL_NAMES, Windows};
use crate::model::layout::{BlockNames, name};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "qwen3",
    class_name: "Qwen3ForCausalLM",
    gguf_architecture: Some("qwen3"),
    block: BlockNames {
        q_norm: Some(name("self_attn.q_norm", "attn_q_norm")),
        k_norm: Some(name("self_attn.k_norm", "attn_k_norm")),
        ..USUAL_NAMES
    },
    attention_bias: AttentionBias::Configured { output: true },
    windows: Windows::Switched,
    defaults: Defaults { head_dim: Some(128), ..USUAL_DEFAULTS },
    ..USUAL
};
