//! The published families of models that the engine knows, each one file of data.
//!
//! What differs between families is written there and nowhere else: what they are called in Hugging Face and GGUF, which
//! parameters their blocks have and under which names, the few switches of their wiring, what a configuration means by
//! leaving a key out, and how their vocabularies split text. Reading ([`super::hugging_face`], [`super::gguf`]), loading
//! and the block itself know no family. A new one is a file here, a line in [`ALL`] and a golden model with its test.

mod description;
pub mod gemma3;
pub mod glm4;
pub mod llama;
pub mod mistral;
pub mod phi3;
pub mod qwen2;
pub mod qwen3;

pub use description::{AttentionBias, Family, Windows, periodic};

use crate::data::tokenizer::gguf::PreTokenizer;

/// Every family.
pub const ALL: [&Family; 7] =
    [&llama::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY, &glm4::FAMILY, &mistral::FAMILY, &gemma3::FAMILY, &phi3::FAMILY];

/// The family of a `model_type`.
pub fn of_model_type(model_type: &str) -> Option<&'static Family> {
    ALL.into_iter().find(|family| family.model_type == model_type)
}

/// The family of a GGUF file's `general.architecture`.
pub fn of_gguf(architecture: &str) -> Option<&'static Family> {
    ALL.into_iter().find(|family| family.gguf_architecture == Some(architecture))
}

/// The pre-tokenizers of all families.
pub fn pre_tokenizers() -> Vec<&'static PreTokenizer> {
    ALL.into_iter().flat_map(|family| family.pre_tokenizers).collect()
}

/// "a, b and c", for messages.
pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
