//! What a web page sees of the engine: a wasm-bindgen surface that translates and decides nothing.
//!
//! Place in the flow: page -> worker -> **this** -> `temper-engine`. Requests come as strings and bytes, answers go back
//! as objects and typed arrays; `web/page/messages.js` has their types. It exists only for wasm32; on other targets the crate
//! is empty, so that a whole-workspace build does not pull the browser bindings in. `cargo xtask test` lints it for wasm32.
#![cfg(target_family = "wasm")]

mod js;
mod lab;

use wasm_bindgen::prelude::wasm_bindgen;

pub use lab::Lab;

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Runs the static constructors of the crates below (cubecl registers its kernels with some), once.
///
/// Without this call the linker takes the module for a command and wraps every export, those of wasm-bindgen's own glue
/// included, in a call of all constructors: three quarters of a training step on WebGPU were spent in them.
#[wasm_bindgen(start)]
pub fn start() {
    // SAFETY: the linker makes this function; it takes and returns nothing, and the module's start runs once.
    unsafe { __wasm_call_ctors() }
}

/// Version of the engine inside this module, such as `"0.1.0"`. The page shows it and sends it with bug reports.
#[wasm_bindgen]
pub fn version() -> String {
    // All crates of the workspace carry one version.
    env!("CARGO_PKG_VERSION").to_owned()
}

/// What is known of every setting, as JSON: see `temper_engine::configuration::schema`. The page has the same text as a file,
/// since it makes its controls before the module is there.
#[wasm_bindgen]
pub fn schema() -> String {
    temper_engine::configuration::schema().to_string()
}
