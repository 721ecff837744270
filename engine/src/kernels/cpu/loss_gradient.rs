//! The gradient of the loss, written over the logits: `weight * (softmax(z) - onehot(label))`.

use temper_shaders::{LossGradientParams, NO_LABEL, STATS_WIDTH, stat};

use super::par;
use super::simd::{exp, vectorised};

/// Overwrites a tile `logits [rows, cols]` of the vocabulary, whose first column is token `column_start`, with the
/// gradient by those logits. `weight [rows]` holds gate times scale; a row of weight 0 becomes exactly 0 whatever its
/// logits are. `stats [rows, 8]` are those of the whole row.
pub fn loss_gradient(params: &LossGradientParams, logits: &mut [f32], labels: &[u32], weight: &[f32], stats: &[f32]) {
    let (rows, columns, column_start) = (labels.len(), params.cols as usize, params.column_start as usize);
    assert_eq!(logits.len(), rows * columns);
    assert_eq!(weight.len(), rows);
    assert_eq!(stats.len(), rows * STATS_WIDTH);
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
            let stats = &stats[r * STATS_WIDTH..(r + 1) * STATS_WIDTH];
            softmax_row(row, weight[r] / stats[stat::SUM], stats[stat::MAX]);
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
