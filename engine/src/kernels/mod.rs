//! The operations that are ours: each has a WGSL shader, a CPU twin in [`cpu`] and one function here that runs whichever
//! the tensors' device calls for. Matrix products choose between several kernels: see [`matmul`].

pub mod adamw;
pub mod attention;
pub mod cpu;
pub mod dequantize;
pub mod elementwise;
pub mod gate;
pub mod gated_mlp;
pub mod launch;
pub mod loss_gradient;
pub mod matmul;
pub mod rms_norm;
pub mod rotary;
pub mod row_stats;
pub mod tensor;

pub use dequantize::Packed;
pub use rotary::Rotary;
pub use tensor::Indices;

/// A range of columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// First column.
    pub offset: usize,
    /// Number of columns.
    pub width: usize,
}
