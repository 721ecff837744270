//! Fine-tune language models without making them forget, on any GPU or on the CPU.
//!
//! The flow, one type per arrow (see `ARCHITECTURE.md`):
//!
//! ```text
//! record -> rendered chat and trained spans -> tokens -> packed batch          data
//!   -> embedding -> block 0 .. block L-1                                       model
//!   -> loss head in chunks: logits, row statistics, gate, gradient             loss
//!   -> block L-1 .. block 0: pull-back, AdamW                                  train
//!   -> event -> metrics, checkpoint, report, page                              the hosts
//! ```
//!
//! The engine opens no file, starts no thread for control flow, prints nothing and asks the clock only through
//! [`host`]; the same code runs natively and as WebAssembly.

pub mod config;
pub mod data;
pub mod device;
pub mod error;
pub mod eval;
pub mod export;
pub mod host;
pub mod kernels;
pub mod lab;
pub mod loss;
pub mod message;
pub mod model;
pub mod probe;
pub mod rng;
pub mod settings;
pub mod train;
pub mod weights;

pub use device::Device;
pub use error::{Error, Result};

/// Waits for an engine's future. What reads numbers back from a device is `async`, because a browser's thread must not
/// block; natively this is all there is to it.
#[cfg(not(target_family = "wasm"))]
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}
