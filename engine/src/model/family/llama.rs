//! Llama 2, 3, 3.1, 3.2, SmolLM2 and others of that shape; in GGUF Mistral too.

use super::description::{AttentionBias, Defaults, Family, USUAL, USUAL_DEFAULTS};
use crate::data::tokenizer::gguf::{PreTokenizer, Split};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "llama",
    class_name: "LlamaForCausalLM",
    gguf_architecture: Some("llama"),
    attention_bias: AttentionBias::Configured { output: true },
    gguf_rows_permuted: true,
    // Files of Llama 1 and 2 are older than the key.
    defaults: Defaults { kv_heads_are_heads: true, ..USUAL_DEFAULTS },
    switched_off: &[("mlp_bias", Some(false))],
    pre_tokenizers: &[
        PreTokenizer { split: Split::DigitsThenGpt2, ..PreTokenizer::named(&["smollm"]) },
        PreTokenizer {
            split: Split::Patterns(&[WORDS_AND_NUMBERS]),
            whole_words_first: true,
            add_bos: true,
            ..PreTokenizer::named(&["llama-bpe", "llama3", "llama-v3"])
        },
    ],
    ..USUAL
};

/// Llama 3's split: digits in groups of up to three.
pub const WORDS_AND_NUMBERS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
