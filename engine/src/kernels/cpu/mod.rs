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

pub mod adamw;
pub mod attention;
pub mod dropout;
pub mod elementwise;
pub mod gate;
pub mod gated_mlp;
pub mod loss_gradient;
pub mod matmul;
pub mod par;
pub mod rms_norm;
pub mod rotary;
pub mod row_stats;
pub mod simd;

pub use adamw::adamw;
pub use attention::{attention, attention_backward};
pub use dropout::dropout;
pub use elementwise::{add_bias, copy_columns, sum_squares};
pub use gate::gate;
pub use gated_mlp::{gated_mlp, gated_mlp_backward};
pub use loss_gradient::loss_gradient;
pub use rms_norm::{rms_norm, rms_norm_backward, rms_norm_scale_gradient};
pub use rotary::rotary;
pub use row_stats::row_stats;
