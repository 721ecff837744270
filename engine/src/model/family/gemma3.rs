//! Gemma 3, its text: four norms a layer whose files hold what is beyond 1, five layers within a window for each that sees
//! everything, with rotary frequencies of their own.

use super::description::{AttentionBias, Defaults, Family, USUAL, USUAL_DEFAULTS, USUAL_NAMES, Windows};
use crate::kernels::Activation;
use crate::model::layout::{BlockNames, name};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "gemma3_text",
    class_name: "Gemma3ForCausalLM",
    text_of: Some("gemma3"),
    gguf_architecture: Some("gemma3"),
    block: BlockNames {
        q_norm: Some(name("self_attn.q_norm", "attn_q_norm")),
        k_norm: Some(name("self_attn.k_norm", "attn_k_norm")),
        attention_norm: Some(name("post_attention_layernorm", "post_attention_norm")),
        mlp_norm: name("pre_feedforward_layernorm", "ffn_norm"),
        mlp_output_norm: Some(name("post_feedforward_layernorm", "post_ffw_norm")),
        ..USUAL_NAMES
    },
    attention_bias: AttentionBias::Configured { output: true },
    activation: Activation::GeluTanh,
    norm_offset: 1.0,
    scaled_embedding: true,
    windows: Windows::Periodic(4096, 6),
    local_theta: Some(10_000.0),
    // That of 27 billion parameters.
    gguf_scores_by_hidden: Some(62),
    defaults: Defaults {
        head_dim: Some(256),
        tied_head: true,
        theta: 1e6,
        query_scalar: Some(256),
        // The configuration of 4 billion parameters has five keys.
        sizes: &[
            ("hidden_size", 2304),
            ("intermediate_size", 9216),
            ("max_position_embeddings", 131_072),
            ("num_attention_heads", 8),
            ("num_hidden_layers", 26),
            ("num_key_value_heads", 4),
            ("vocab_size", 262_208),
        ],
        ..USUAL_DEFAULTS
    },
    switched_off: &[
        ("attn_logit_softcapping", None),
        ("final_logit_softcapping", None),
        ("use_bidirectional_attention", Some(false)),
    ],
    ..USUAL
};
