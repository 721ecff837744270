//! Mistral 7B and others of that shape: Llama's wiring, without biases; early ones attend within a window.

use super::description::{AttentionBias, Defaults, Family, USUAL_DEFAULTS, USUAL_NAMES};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "mistral",
    class_name: "MistralForCausalLM",
    // llama.cpp calls them llama, and permutes their rows as it does Llama's.
    gguf_architecture: None,
    block: USUAL_NAMES,
    attention_bias: AttentionBias::Never,
    interleaved_rotary: false,
    partial_rotary: None,
    gguf_rows_permuted: false,
    defaults: Defaults { sliding_window: Some(4096), ..USUAL_DEFAULTS },
    switched_off: &[("sliding_window", None)],
    pre_tokenizers: &[],
};
