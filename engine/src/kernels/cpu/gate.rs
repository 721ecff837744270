//! The weight of each scored token from its row statistics: the objective table on the CPU.
//!
//! Place in the flow: after [`row_stats`](super::row_stats()), before [`loss_gradient`](super::loss_gradient()). The
//! weight is detached by construction, since the gradient kernel only multiplies by it.

use temper_shaders::{GateParams, STATS_WIDTH, stat};

/// Kinds of gate, under the names and numbers of `gate.wgsl` (there `KIND_SFT` and so on). With h the top-K entropy over the
/// normalizer, ce the cross entropy and p = e^-ce the label's probability:
pub mod kind {
    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
            $($(#[$doc])* pub const $name: u32 = $number;)*
            /// Every kind by name.
            pub const ALL: &[(&str, u32)] = &[$((stringify!($name), $name)),*];
        };
    }
    kinds! {
        /// 1.
        SFT = 0;
        /// h.
        LINEAR = 1;
        /// h ^ exponent.
        POWER = 2;
        /// 1 / (1 + e^(-a (h - b))).
        SIGMOID = 3;
        /// 1 where h is above the threshold, else 0. Given a normalizer of 1, so that no device rounds a row across it.
        HARD = 4;
        /// p.
        DFT = 5;
        /// max(e^(-ce / a), b).
        TALR = 6;
        /// (a + full entropy) ^ exponent * b.
        MILE = 7;
        /// p ^ collision probability.
        DEFT = 8;
        /// 1 where ce is below b, else 0: a probability as a cross entropy, which needs no exp and so decides alike on every
        /// device.
        PROFIT = 9;
        /// 0 where the top-K entropy is at most the threshold and ce at least b, else 1.
        MASKED = 10;
    }
}

/// Writes `weight [rows]`, `scale` times the gate of each row of `stats [rows, 8]`.
///
/// The cross entropy is formed as `ln sum + (max - label logit)` rather than from the log-sum-exp, whose own rounding
/// would cost 5e-4 at logits of 1e4.
pub fn gate(params: &GateParams, stats: &[f32], weight: &mut [f32]) {
    assert_eq!(stats.len(), weight.len() * STATS_WIDTH);
    for (stats, weight) in stats.chunks_exact(STATS_WIDTH).zip(weight) {
        *weight = gate_of(params, stats) * params.scale;
    }
}

/// One row's gate from its statistics.
fn gate_of(params: &GateParams, stats: &[f32]) -> f32 {
    let GateParams { kind, exponent, normalizer, a, b, threshold, .. } = *params;
    let sum = stats[stat::SUM];
    let log_sum = sum.ln().max(0.0);
    let ce = log_sum + (stats[stat::MAX] - stats[stat::LABEL_LOGIT]);
    let entropy = stats[stat::ENTROPY_TOP_K].max(0.0);
    // Of a single token the entropy is 0, whatever it is divided by.
    let normalizer = if normalizer == 0.0 { stats[stat::COUNT].max(2.0).ln() } else { normalizer };
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
        kind::MILE => power(a + (log_sum - stats[stat::SUM_SHIFTED] / sum).max(0.0), exponent) * b,
        kind::DEFT => (-ce * (stats[stat::SUM_SQUARED] / (sum * sum))).exp(),
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
