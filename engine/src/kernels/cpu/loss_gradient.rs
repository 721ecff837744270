//! The gradient of the loss, written over the logits: `weight * (softmax(z) - onehot(label))`.

use super::simd::{exp, vectorised};
use super::{NO_LABEL, STAT_FIELDS, STAT_MAX, STAT_SUM, par};

/// Overwrites a tile `logits [rows, columns]` of the vocabulary, whose first column is token `column_start`, with the
/// gradient by those logits. `weight [rows]` holds gate times scale; a row of weight 0 becomes exactly 0 whatever its
/// logits are. `stats [rows, 8]` are those of the whole row.
pub fn loss_gradient(
    logits: &mut [f32],
    columns: usize,
    column_start: usize,
    labels: &[u32],
    weight: &[f32],
    stats: &[f32],
) {
    let rows = labels.len();
    assert_eq!(logits.len(), rows * columns);
    assert_eq!(weight.len(), rows);
    assert_eq!(stats.len(), rows * STAT_FIELDS);
    if columns == 0 {
        return;
    }
    let block = par::rows_per_task(columns);
    par::pieces(logits, block * columns, |index, piece| {
        for (r, row) in piece.chunks_exact_mut(columns).enumerate() {
            let r = index * block + r;
            if weight[r] == 0.0 {
                row.fill(0.0);
                continue;
            }
            let stats = &stats[r * STAT_FIELDS..(r + 1) * STAT_FIELDS];
            softmax_row(row, weight[r] / stats[STAT_SUM], stats[STAT_MAX]);
            if labels[r] != NO_LABEL
                && let Some(z) = (labels[r] as usize).checked_sub(column_start).and_then(|c| row.get_mut(c))
            {
                *z -= weight[r];
            }
        }
    });
}

vectorised! {
    /// factor * e^(z - max): unlike e^(z - lse) exact where the logits are large, since lse is rounded and max is not.
    fn softmax_row<FMA>(row: &mut [f32], factor: f32, max: f32) {
        for z in row {
            *z = factor * exp::<FMA>(*z - max);
        }
    }
}
