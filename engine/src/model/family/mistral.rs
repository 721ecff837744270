//! Mistral 7B and others of that shape: Llama's wiring, without biases; early ones attend within a window.

use super::description::{Family, USUAL, Windows};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "mistral",
    class_name: "MistralForCausalLM",
    // llama.cpp calls them llama, and permutes their rows as it does Llama's.
    gguf_architecture: None,
    windows: Windows::Everywhere(Some(4096)),
    ..USUAL
};
