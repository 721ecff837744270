//! Attention of one token over the keys and values of its sequence, with the full softmax.

/// `query [head_dim]`, `keys` and `values` of `head_dim` each -> `[head_dim]`.
pub fn attend(query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], scale: f64) -> Vec<f64> {
    let mut scores = Vec::new();
    for key in keys {
        let mut dot = 0.0;
        for i in 0..query.len() {
            dot += query[i] * key[i];
        }
        scores.push(scale * dot);
    }
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    let mut out = vec![0.0; query.len()];
    for (score, value) in scores.iter().zip(values) {
        for i in 0..out.len() {
            out[i] += (score - max).exp() / sum * value[i];
        }
    }
    out
}

/// The nearest half-precision number, ties to even: of normal size, or a whole multiple of the least subnormal one.
pub fn through_half(x: f32) -> f64 {
    let x = f64::from(x);
    let exponent = if x == 0.0 { -14 } else { (x.abs().log2().floor() as i32).max(-14) };
    let step = 2.0_f64.powi(exponent - 10);
    (x / step).round_ties_even() * step
}
