//! Loss and gradient of a weighted cross entropy.

use super::row_stats::row_stats;

/// `weight * (softmax(row) - onehot(label))`; exactly 0 for weight 0.
pub fn loss_gradient(row: &[f32], label: Option<usize>, weight: f64) -> Vec<f64> {
    if weight == 0.0 {
        return vec![0.0; row.len()];
    }
    let stats = row_stats(row, label, 1);
    let mut gradient = Vec::with_capacity(row.len());
    for (column, &z) in row.iter().enumerate() {
        let p = (f64::from(z) - stats.max).exp() / stats.sum;
        let hit = if label == Some(column) { 1.0 } else { 0.0 };
        gradient.push(weight * (p - hit));
    }
    gradient
}

/// `weight * cross entropy`.
pub fn loss(row: &[f32], label: usize, weight: f64) -> f64 {
    let stats = row_stats(row, Some(label), 1);
    weight * (stats.lse - stats.label_logit)
}
