//! What the conformance tests share: oracles in f64 with plain loops, comparators that treat NaN as failure, and the
//! golden vectors from PyTorch and transformers.

pub mod compare;
pub mod devices;
pub mod golden;
pub mod models;
pub mod oracle;
pub mod runs;
pub mod skip;
