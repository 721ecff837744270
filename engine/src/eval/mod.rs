//! What a model knows, measured: loss and perplexity on text, generated text; how a data set meets it, before it is
//! trained.

pub mod generate;
#[cfg(not(target_family = "wasm"))]
pub mod interval;
#[cfg(not(target_family = "wasm"))]
pub mod likelihood;
pub mod perplexity;
#[cfg(not(target_family = "wasm"))]
pub mod scan;
#[cfg(not(target_family = "wasm"))]
pub mod tally;
#[cfg(not(target_family = "wasm"))]
pub mod tasks;
#[cfg(not(target_family = "wasm"))]
pub mod text;
#[cfg(not(target_family = "wasm"))]
pub mod token_class;
