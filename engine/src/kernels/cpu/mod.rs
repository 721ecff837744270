//! The CPU twins of the WGSL kernels, on plain slices.
//!
//! Place in the flow: every operation of the engine has a shader (crate `temper-shaders`) and, here, a function of the
//! same stem that computes the same numbers on the CPU backend (but for the expansion of stored weights, which lies with
//! each format in `weights/format`). There are no tensors in this folder: arguments are
//! row-major `f32` slices, sizes are plain integers, and the launch layer above checks shapes and reports errors. The
//! functions here therefore assert their sizes: a failed assertion is a bug in the caller, never the user's input.
//!
//! Where a shader's uniform holds more than sizes, its twin takes the same struct first, then slices in the order of the
//! bindings. Sizes that slices tell by their length are not read from it.
//!
//! Promises that hold for every function:
//! * the result does not depend on the number of threads: work is cut at fixed places and sums are combined in a fixed
//!   order;
//! * the widest instruction set of the machine is chosen at run time ([`simd`]), so one binary runs everywhere;
//! * outputs are written completely; what was in them before matters only where an argument says so (`accumulate`, `first`).

pub mod par;
pub mod simd;

macro_rules! declare {
    ($($operation:ident)*) => {
        $(
            pub mod $operation;
            pub use $operation::*;
        )*
    };
}
temper_shaders::operations!(declare);
