//! The weight of each scored token from its row statistics: the objective table on the CPU.
//!
//! Place in the flow: after [`row_stats`](super::row_stats()), before [`loss_gradient`](super::loss_gradient()). The
//! weight is detached by construction, since the gradient kernel only multiplies by it.

use super::{STAT_ENTROPY, STAT_FIELDS, STAT_LABEL_LOGIT, STAT_MAX, STAT_SUM, STAT_SUM_SQ, STAT_U};
use crate::kernels::gate::GateParams;

/// The kinds of [`GateParams`]'s table, by the names that the shader has for them.
#[allow(missing_docs, reason = "the table describes them")]
pub mod kind {
    pub const SFT: u32 = 0;
    pub const LINEAR: u32 = 1;
    pub const POWER: u32 = 2;
    pub const SIGMOID: u32 = 3;
    pub const HARD: u32 = 4;
    pub const DFT: u32 = 5;
    pub const TALR: u32 = 6;
    pub const MILE: u32 = 7;
    pub const DEFT: u32 = 8;
    pub const PROFIT: u32 = 9;
    pub const MASKED: u32 = 10;
}

/// Writes `weight [rows]`, `scale` times the gate of each row of `stats [rows, 8]`; the gates are [`GateParams`]'s table.
///
/// The cross entropy is formed as `ln sum + (max - label logit)` rather than from the log-sum-exp, whose own rounding
/// would cost 5e-4 at logits of 1e4.
pub fn gate(stats: &[f32], params: &GateParams, weight: &mut [f32]) {
    assert_eq!(stats.len(), weight.len() * STAT_FIELDS);
    for (stats, weight) in stats.chunks_exact(STAT_FIELDS).zip(weight) {
        *weight = gate_of(params, stats) * params.scale;
    }
}

/// One row's gate from its statistics.
fn gate_of(params: &GateParams, stats: &[f32]) -> f32 {
    let GateParams { kind, exponent, normalizer, a, b, threshold, .. } = *params;
    let sum = stats[STAT_SUM];
    let log_sum = sum.ln().max(0.0);
    let ce = log_sum + (stats[STAT_MAX] - stats[STAT_LABEL_LOGIT]);
    let entropy = stats[STAT_ENTROPY].max(0.0);
    let h = entropy / normalizer;
    let indicator = |keep: bool| if keep { 1.0 } else { 0.0 };
    match kind {
        kind::SFT => 1.0,
        kind::LINEAR => h,
        kind::POWER => power(h, exponent),
        kind::SIGMOID => 1.0 / (1.0 + (-a * (h - b)).exp()),
        kind::HARD => indicator(h > threshold),
        kind::DFT => (-ce).exp(),
        kind::TALR => (-ce / a).exp().max(b),
        kind::MILE => power(a + (log_sum - stats[STAT_U] / sum).max(0.0), exponent) * b,
        kind::DEFT => (-ce * (stats[STAT_SUM_SQ] / (sum * sum))).exp(),
        kind::PROFIT => indicator(ce < b),
        kind::MASKED => indicator(!(entropy <= threshold && ce >= b)),
        // As in the shader: a kind that is not in the table must not train as SFT. NaN stops the step.
        _ => f32::NAN,
    }
}

/// `base ^ exponent` for a base that is not negative, where exponent 0 is exactly 1 (0 ^ 0 too) and exponent 1 is exactly
/// the base.
fn power(base: f32, exponent: f32) -> f32 {
    if exponent == 0.0 {
        1.0
    } else if exponent == 1.0 {
        base
    } else {
        base.powf(exponent)
    }
}
