//! What each kernel must compute, in f64 and plain nested loops.
//!
//! One file per stem, the same arguments in spirit as the kernel, no cleverness and no dependency: these are the
//! definitions that the CPU twins and the WGSL kernels are both held against.

pub mod adamw;
pub mod attention;
pub mod dequantize;
pub mod gate;
pub mod gated_mlp;
pub mod loss_gradient;
pub mod matmul;
pub mod rms_norm;
pub mod rotary;
pub mod row_stats;

/// Inputs as f64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}
