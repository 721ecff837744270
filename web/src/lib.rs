//! What a web page sees of the engine: a wasm-bindgen surface that translates and decides nothing.
//!
//! Place in the flow: page -> worker -> **this** -> `temper-engine`. It exists only for wasm32; on other targets the crate
//! is empty, so that a whole-workspace build does not pull the browser bindings in. `cargo xtask test` lints it for wasm32.
#![cfg(target_family = "wasm")]

use temper_engine as _;
use wasm_bindgen::prelude::wasm_bindgen;

/// Version of the engine inside this module, such as `"0.1.0"`. The page shows it and sends it with bug reports.
#[wasm_bindgen]
pub fn version() -> String {
    // All crates of the workspace carry one version.
    env!("CARGO_PKG_VERSION").to_owned()
}
