//! The objective table's weights, one row at a time.

use temper_shaders::GateParams;

use super::row_stats::RowStats;

/// Constants of a gate; which ones count depends on the kind.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Row of the table: 0 sft, 1 linear, 2 power, 3 sigmoid, 4 hard, 5 dft, 6 talr, 7 mile, 8 deft, 9 profit, 10 masked.
    pub kind: u32,
    /// Exponent of power and mile.
    pub exponent: f64,
    /// What the top-K entropy is divided by; 0 for the logarithm of each row's count.
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

impl From<&GateParams> for Gate {
    fn from(params: &GateParams) -> Self {
        let GateParams { kind, exponent, normalizer, a, b, threshold, scale, .. } = *params;
        let [exponent, normalizer, a, b, threshold, scale] =
            [exponent, normalizer, a, b, threshold, scale].map(f64::from);
        Self { kind, exponent, normalizer, a, b, threshold, scale }
    }
}

/// Constants of every kind of gate, for the tests of the kernel and of its twin. Thresholds lie between rows;
/// `tests/loss.rs` puts them on rows.
pub fn examples() -> Vec<GateParams> {
    let of = |kind| GateParams {
        rows: 0,
        kind,
        exponent: 1.0,
        normalizer: 3.0,
        a: 0.0,
        b: 0.0,
        threshold: 0.0,
        scale: 0.125,
    };
    vec![
        of(0),
        of(1),
        GateParams { normalizer: 0.0, ..of(1) },
        GateParams { exponent: 0.0, ..of(2) },
        GateParams { exponent: 0.5, ..of(2) },
        GateParams { exponent: 2.0, ..of(2) },
        GateParams { exponent: 3.0, ..of(2) },
        GateParams { a: 30.0, b: 0.17, ..of(3) },
        GateParams { normalizer: 1.0, threshold: 1.234, ..of(4) },
        of(5),
        GateParams { a: 0.7, b: 0.01, ..of(6) },
        GateParams { a: 1.0, b: 0.4, exponent: 1.5, ..of(7) },
        of(8),
        GateParams { b: -(0.1f32.ln()), ..of(9) },
        GateParams { b: -(0.3f32.ln()), threshold: 2.0, ..of(10) },
    ]
}

/// The weight of one row.
pub fn gate(g: &Gate, row: &RowStats) -> f64 {
    let ce = row.lse - row.label_logit;
    let p = (-ce).exp();
    // Without a normaliser it is the logarithm of the row's own count, of which a single token has no entropy.
    let normalizer = if g.normalizer == 0.0 { (row.count.max(2) as f64).ln() } else { g.normalizer };
    let h = row.entropy_top_k / normalizer;
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
