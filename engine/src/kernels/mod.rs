//! The operations that are ours: each has WGSL shaders, CPU twins in [`cpu`] and functions here that run whichever the
//! tensors' device calls for. Their list is the shader table's ([`temper_shaders::operations`]). Matrix products choose between several kernels: see [`matmul`].

#[cfg(not(target_family = "wasm"))]
pub mod calibration;
pub mod compact;
pub mod cpu;
pub mod dequantize;
pub(crate) mod gone;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod kept;
pub mod launch;
pub mod multiplier;
mod own;
pub mod profile;
mod record;
pub(crate) mod sample;
pub mod statistics;
pub mod tensor;
pub mod words;

macro_rules! declare {
    ($($operation:ident)*) => {
        $(pub mod $operation;)*

        /// The self-test's cases of every operation.
        pub(crate) const SELF_TESTS: &[&[sample::Case]] = &[$($operation::SELF_TEST),*];
    };
}
temper_shaders::operations!(declare);

pub use compact::{Moments, Weights};
pub use dequantize::{InFile, Packed, Rows};
pub use gated_mlp::Activation;
pub use rotary::Rotary;
pub use tensor::Indices;
pub use words::Words;

/// A range of columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// First column.
    pub offset: usize,
    /// Number of columns.
    pub width: usize,
}
