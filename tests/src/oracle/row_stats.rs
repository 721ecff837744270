//! Statistics of a row of logits.

/// Statistics of one whole row, over its finite logits.
#[derive(Clone, Debug, PartialEq)]
pub struct RowStats {
    /// Largest finite logit; -inf without one.
    pub max: f64,
    /// Sum of e^(z - max).
    pub sum: f64,
    /// Sum of (z - max) e^(z - max).
    pub u: f64,
    /// Sum of e^(2 (z - max)).
    pub sum_sq: f64,
    /// The label's logit; 0 without a label.
    pub label_logit: f64,
    /// Number of NaN and +inf, plus one if the label's own logit is not finite.
    pub nonfinite: usize,
    /// Log-sum-exp; -inf without a finite logit.
    pub lse: f64,
    /// Entropy in nats of the softmax over the `top_k` largest.
    pub entropy_top_k: f64,
    /// Tokens that it is of: no more than the row has, masked ones included.
    pub count: usize,
    /// The `top_k` largest finite logits, descending.
    pub top: Vec<f64>,
}

/// Statistics of `row`; the top K by sorting all of it. With a `top_k` of 0 all are the top.
pub fn row_stats(row: &[f32], label: Option<usize>, top_k: usize) -> RowStats {
    let mut sorted: Vec<f64> = row.iter().filter(|z| z.is_finite()).map(|&z| f64::from(z)).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let max = sorted.first().copied().unwrap_or(f64::NEG_INFINITY);
    let (mut sum, mut u, mut sum_sq) = (0.0, 0.0, 0.0);
    for z in &sorted {
        let d = z - max;
        sum += d.exp();
        u += d * d.exp();
        sum_sq += (2.0 * d).exp();
    }
    let count = if top_k == 0 { row.len() } else { top_k.min(row.len()) };
    let top: Vec<f64> = sorted.iter().copied().take(count).collect();
    let mut nonfinite = row.iter().filter(|z| z.is_nan() || **z == f32::INFINITY).count();
    let label_logit = label.map_or(0.0, |label| f64::from(row[label]));
    if !label_logit.is_finite() {
        nonfinite += 1;
    }
    let (lse, entropy_top_k) = (max + sum.ln(), entropy(&top));
    RowStats { max, sum, u, sum_sq, label_logit, nonfinite, lse, entropy_top_k, count, top }
}

/// Entropy in nats of the softmax over `logits`: - sum p ln p.
pub fn entropy(logits: &[f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|z| (z - max).exp()).sum();
    let mut h = 0.0;
    for z in logits {
        let p = (z - max).exp() / sum;
        if p > 0.0 {
            h -= p * p.ln();
        }
    }
    h
}
