//! The objective table's weights, one row at a time.

use super::row_stats::RowStats;

/// Constants of a gate; which ones count depends on the kind.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Row of the table: 0 sft, 1 linear, 2 power, 3 sigmoid, 4 hard, 5 dft, 6 talr, 7 mile, 8 deft, 9 profit, 10 masked.
    pub kind: u32,
    /// Exponent of power and mile.
    pub exponent: f64,
    /// What the top-K entropy is divided by.
    pub normalizer: f64,
    /// First constant.
    pub a: f64,
    /// Second constant.
    pub b: f64,
    /// Threshold on the entropy.
    pub threshold: f64,
    /// Factor on every weight.
    pub scale: f64,
}

/// The weight of one row.
pub fn gate(g: &Gate, row: &RowStats) -> f64 {
    let ce = row.lse - row.label_logit;
    let p = (-ce).exp();
    let h = row.entropy_top_k / g.normalizer;
    // Full entropy and collision probability from the softmax sums.
    let entropy_full = row.sum.ln() - row.u / row.sum;
    let collision = row.sum_sq / (row.sum * row.sum);
    let value = match g.kind {
        0 => 1.0,
        1 => h,
        2 => h.powf(g.exponent),
        3 => 1.0 / (1.0 + (-g.a * (h - g.b)).exp()),
        4 => f64::from(u8::from(h > g.threshold)),
        5 => p,
        6 => (-ce / g.a).exp().max(g.b),
        7 => (g.a + entropy_full).powf(g.exponent) * g.b,
        8 => p.powf(collision),
        9 => f64::from(u8::from(ce < g.b)),
        10 => f64::from(u8::from(!(row.entropy_top_k <= g.threshold && ce >= g.b))),
        kind => panic!("no gate of kind {kind}"),
    };
    value * g.scale
}
