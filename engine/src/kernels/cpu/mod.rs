//! The CPU twins of the WGSL kernels, on plain slices.
//!
//! Place in the flow: every operation of the engine has a shader (crate `temper-shaders`) and, here, a function of the
//! same stem that computes the same numbers on the CPU backend (but for the expansion of stored weights, which lies with
//! each format in `weights/format`). There are no tensors in this folder: arguments are
//! row-major `f32` slices, sizes are plain integers, and the launch layer above checks shapes and reports errors. The
//! functions here therefore assert their sizes: a failed assertion is a bug in the caller, never the user's input.
//!
//! Promises that hold for every function:
//! * the result does not depend on the number of threads: work is cut at fixed places and sums are combined in a fixed
//!   order;
//! * the widest instruction set of the machine is chosen at run time ([`simd`]), so one binary runs everywhere;
//! * outputs are written completely; what was in them before matters only where an argument says `accumulate`.

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

pub use adamw::{AdamwParams, adamw};
pub use attention::{AttentionShape, attention, attention_backward};
pub use dropout::dropout;
pub use elementwise::{add_bias, copy_columns, scale_add, sum_squares};
pub use gate::gate;
pub use gated_mlp::{gated_mlp, gated_mlp_backward};
pub use loss_gradient::loss_gradient;
pub use matmul::{Layout, matmul, matmul_nn, matmul_nt, matmul_tn};
pub use rms_norm::{rms_norm, rms_norm_backward, rms_norm_scale_gradient};
pub use rotary::{RotaryParams, rotary};
pub use row_stats::row_stats;

/// Label of a row that is not scored.
pub const NO_LABEL: u32 = u32::MAX;
/// Slots per row for the carried top-K values: the largest K.
pub const TOP_SLOTS: usize = 64;
/// Fields per row of the statistics; see [`row_stats`](row_stats()).
pub const STAT_FIELDS: usize = 8;

/// Stands for "no value" where a maximum or the top K start.
pub const LOWEST: f32 = f32::MIN;

/// Largest logit of the row; [`LOWEST`] where no logit is finite.
pub const STAT_MAX: usize = 0;
/// Sum of e^(z - max).
pub const STAT_SUM: usize = 1;
/// Sum of (z - max) e^(z - max).
pub const STAT_U: usize = 2;
/// Sum of e^(2 (z - max)).
pub const STAT_SUM_SQ: usize = 3;
/// The label's own logit; 0 where the row has none.
pub const STAT_LABEL_LOGIT: usize = 4;
/// How many logits are NaN or +inf, plus one if the label's own is not finite.
pub const STAT_NONFINITE: usize = 5;
/// max + ln(sum): the full vocabulary's log-sum-exp; [`LOWEST`] where no logit is finite.
pub const STAT_LSE: usize = 6;
/// Entropy in nats of the renormalised top K.
pub const STAT_ENTROPY: usize = 7;
