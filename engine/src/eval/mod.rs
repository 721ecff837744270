//! What a model knows, measured: loss and perplexity on text, generated text.

pub mod generate;
pub mod perplexity;
#[cfg(not(target_family = "wasm"))]
pub mod text;
