//! GLM-4-0414: four norms a layer, gate and up in one matrix, interleaved rotary on part of the head.

use super::description::{AttentionBias, Defaults, Family, USUAL, USUAL_DEFAULTS, USUAL_NAMES};
use super::llama;
use crate::data::tokenizer::gguf::{PreTokenizer, Split};
use crate::model::layout::{BlockNames, name};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "glm4",
    class_name: "Glm4ForCausalLM",
    gguf_architecture: Some("glm4"),
    block: BlockNames {
        attention_norm: Some(name("post_self_attn_layernorm", "post_attention_norm")),
        // The norm before the MLP, whatever it is called.
        mlp_norm: name("post_attention_layernorm", "ffn_norm"),
        // Gate half first.
        gate_up: &[name("mlp.gate_up_proj", "ffn_up")],
        mlp_output_norm: Some(name("post_mlp_layernorm", "post_ffw_norm")),
        ..USUAL_NAMES
    },
    attention_bias: AttentionBias::Configured { output: false },
    interleaved_rotary: true,
    partial_rotary: Some(0.5),
    defaults: Defaults { norm_epsilon: 1.5625e-7, head_dim: Some(128), ..USUAL_DEFAULTS },
    pre_tokenizers: &[PreTokenizer {
        split: Split::Patterns(&[llama::WORDS_AND_NUMBERS]),
        ..PreTokenizer::named(&["glm4", "chatglm-bpe"])
    }],
    ..USUAL
};
