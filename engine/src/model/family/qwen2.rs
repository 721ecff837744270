//! Qwen2 and Qwen2.5: biases on q, k and v.

use super::description::{AttentionBias, Family, USUAL, Windows};
use crate::data::tokenizer::gguf::{PreTokenizer, Split};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "qwen2",
    class_name: "Qwen2ForCausalLM",
    gguf_architecture: Some("qwen2"),
    attention_bias: AttentionBias::Always,
    windows: Windows::Switched,
    // Qwen3's too.
    pre_tokenizers: &[PreTokenizer {
        split: Split::Patterns(&[EVERY_DIGIT_ALONE]),
        nfc: true,
        ..PreTokenizer::named(&["qwen2", "deepseek-r1-qwen"])
    }],
    ..USUAL
};

/// The split of Qwen2, Qwen2.5 and Qwen3.
const EVERY_DIGIT_ALONE: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
