//! Entropy of the largest logits of a row, of which there may be any number.

use super::row_stats::{entropy, row_stats};

/// The entropy in nats of the softmax over the `top_k` largest finite logits of the row, and how many these are.
pub fn of_largest(row: &[f32], top_k: usize) -> (f64, usize) {
    let top = row_stats(row, None, top_k).top;
    (entropy(&top), top.len())
}

/// The same over the fewest largest that have at least `share` of the row's probability together.
pub fn of_share(row: &[f32], share: f64) -> (f64, usize) {
    let all = row_stats(row, None, 0);
    let mut found = 0.0;
    for (index, z) in all.top.iter().enumerate() {
        found += (z - all.max).exp();
        if found >= share * all.sum {
            return (entropy(&all.top[..=index]), index + 1);
        }
    }
    (entropy(&all.top), all.top.len())
}
