//! Qwen2 and Qwen2.5: biases on q, k and v.

use super::description::{AttentionBias, Family, USUAL_DEFAULTS, USUAL_NAMES};
use crate::data::tokenizer::gguf::{PreTokenizer, Split};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "qwen2",
    class_name: "Qwen2ForCausalLM",
    gguf_architecture: Some("qwen2"),
    block: USUAL_NAMES,
    attention_bias: AttentionBias::Always,
    interleaved_rotary: false,
    partial_rotary: None,
    gguf_rows_permuted: false,
    defaults: USUAL_DEFAULTS,
    switched_off: &[("use_sliding_window", Some(false))],
    // Qwen3's too.
    pre_tokenizers: &[PreTokenizer {
        split: Split::Patterns(&[EVERY_DIGIT_ALONE]),
        nfc: true,
        ..PreTokenizer::named(&["qwen2", "deepseek-r1-qwen"])
    }],
};

/// The split of Qwen2, Qwen2.5 and Qwen3.
const EVERY_DIGIT_ALONE: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
