//! Divergence of a row from another model's, and what it adds to a gradient.

/// Natural logarithms of the softmax; minus infinity where the logit is.
pub fn log_softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|z| (z - max).exp()).sum();
    row.iter().map(|z| z - max - sum.ln()).collect()
}

/// KL(Q || P) where `reverse` is false, else KL(P || Q), with P of `row` and Q of `reference`.
pub fn divergence(row: &[f64], reference: &[f64], reverse: bool) -> f64 {
    let (p, q) = (log_softmax(row), log_softmax(reference));
    let (own, other) = if reverse { (p, q) } else { (q, p) };
    let mut sum = 0.0;
    for (own, other) in own.into_iter().zip(other) {
        if own > f64::NEG_INFINITY {
            sum += own.exp() * (own - other);
        }
    }
    sum
}

/// `weight` times the cross entropy of `label` plus `beta` times the divergence.
pub fn loss(row: &[f64], reference: &[f64], label: usize, weight: f64, beta: f64, reverse: bool) -> f64 {
    -weight * log_softmax(row)[label] + beta * divergence(row, reference, reverse)
}

/// The gradient of [`loss`] by the row's logits.
pub fn gradient(row: &[f64], reference: &[f64], label: usize, weight: f64, beta: f64, reverse: bool) -> Vec<f64> {
    let (p, q) = (log_softmax(row), log_softmax(reference));
    let kl = divergence(row, reference, reverse);
    let mut gradient = Vec::with_capacity(row.len());
    for column in 0..row.len() {
        let own = p[column].exp();
        let hit = if column == label { 1.0 } else { 0.0 };
        let pull = match reverse {
            false => own - q[column].exp(),
            true if own > 0.0 => own * (p[column] - q[column] - kl),
            true => 0.0,
        };
        gradient.push(weight * (own - hit) + beta * pull);
    }
    gradient
}
