//! Phi-3, Phi-3.5-mini and Phi-4-mini: q, k and v in one matrix, gate and up in another, LongRoPE, rotary on part of the head.

use super::description::{Defaults, Family, USUAL, USUAL_DEFAULTS, USUAL_NAMES, Windows};
use crate::data::tokenizer::gguf::{PreTokenizer, Split};
use crate::model::layout::{BlockNames, name};

/// See [`Family`].
pub static FAMILY: Family = Family {
    model_type: "phi3",
    class_name: "Phi3ForCausalLM",
    gguf_architecture: Some("phi3"),
    block: BlockNames {
        qkv: &[name("self_attn.qkv_proj", "attn_qkv")],
        // Gate half first.
        gate_up: &[name("mlp.gate_up_proj", "ffn_up")],
        ..USUAL_NAMES
    },
    windows: Windows::Everywhere(None),
    partial_rotary: Some(1.0),
    defaults: Defaults { norm_epsilon: 1e-5, kv_heads_are_heads: true, ..USUAL_DEFAULTS },
    // Phi-4-mini's; Phi-3 has Llama 2's vocabulary.
    pre_tokenizers: &[PreTokenizer { split: Split::Patterns(&[WORDS_BY_CASE]), ..PreTokenizer::named(&["gpt-4o"]) }],
    ..USUAL
};

/// The split of GPT-4o's vocabulary: a capital begins a word.
const WORDS_BY_CASE: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
