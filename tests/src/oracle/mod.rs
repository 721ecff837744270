//! What each kernel must compute, in f64 and plain nested loops.
//!
//! One file per stem, the same arguments in spirit as the kernel, no cleverness and no dependency: these are the
//! definitions that the CPU twins and the WGSL kernels are both held against.

pub mod dequantize;

macro_rules! declare {
    ($($operation:ident)*) => {
        $(pub mod $operation;)*
    };
}
temper_shaders::operations!(declare);

/// Inputs as f64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}
