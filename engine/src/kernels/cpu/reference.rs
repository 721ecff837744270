//! Divergence of each row from another model's, and the gradient of a loss with that in it, over the logits.
//!
//! Place in the flow: the divergence behind [`row_stats`](super::row_stats()) of both, the gradient in the place of
//! [`loss_gradient`](super::loss_gradient()).

use temper_shaders::{NO_LABEL, ReferenceDivergenceParams, ReferenceGradientParams, STATS_WIDTH, stat};

use super::par;
use super::simd::{exp, vectorised};

/// Below this e^d is 0.
const NEGLIGIBLE: f32 = -104.0;
/// Interleaved sums over a row.
const LANES: usize = 64;

/// A row's softmax, e^(z - max) / sum, and its logarithm, (z - max) - log_sum: from the shifted parts, since log-sum-exp is
/// rounded where logits are large.
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    sum: f32,
    log_sum: f32,
}

fn softmax_of(stats: &[f32], row: usize) -> Softmax {
    let (max, sum) = (stats[row * STATS_WIDTH + stat::MAX], stats[row * STATS_WIDTH + stat::SUM]);
    Softmax { max, sum, log_sum: sum.ln() }
}

/// Adds to `divergence [rows]` (or writes, at the first tile) what the tile `logits [rows, cols]` has of the divergence from
/// `reference`; `stats` are those of both, each of whole rows.
pub fn reference_divergence(
    params: &ReferenceDivergenceParams,
    logits: &[f32],
    reference: &[f32],
    stats: [&[f32]; 2],
    divergence: &mut [f32],
) {
    let columns = params.cols as usize;
    assert_eq!(logits.len(), divergence.len() * columns);
    assert_eq!(reference.len(), logits.len());
    let block = par::rows_per_task(columns);
    par::pieces(divergence, block, |index, piece| {
        for (r, sum) in piece.iter_mut().enumerate() {
            let row = index * block + r;
            let [own, other] = [logits, reference].map(|all| &all[row * columns..(row + 1) * columns]);
            let [p, q] = stats.map(|stats| softmax_of(stats, row));
            let of_tile = match params.kind {
                0 => divergence_of(other, own, q, p),
                _ => divergence_of(own, other, p, q),
            };
            *sum = if params.first != 0 { of_tile } else { *sum + of_tile };
        }
    });
}

/// What [`reference_gradient`] knows of the rows.
pub struct ReferenceRows<'a> {
    /// Token of each, or [`NO_LABEL`].
    pub labels: &'a [u32],
    /// Gate times scale.
    pub weight: &'a [f32],
    /// Statistics of the model's rows.
    pub stats: &'a [f32],
    /// Those of the reference's.
    pub reference_stats: &'a [f32],
    /// What [`reference_divergence`] gave.
    pub divergence: &'a [f32],
}

/// Overwrites a tile `logits [rows, cols]`, whose first column is token `column_start`, with the gradient by those logits of
/// the weighted cross entropy and `beta` times the divergence from the same tile of the reference.
pub fn reference_gradient(
    params: &ReferenceGradientParams,
    logits: &mut [f32],
    reference: &[f32],
    of: &ReferenceRows<'_>,
) {
    let (rows, columns, column_start) = (of.labels.len(), params.cols as usize, params.column_start as usize);
    assert_eq!(logits.len(), rows * columns);
    assert_eq!(reference.len(), logits.len());
    if columns == 0 {
        return;
    }
    let block = par::rows_per_task(columns);
    par::pieces(logits, block * columns, |index, piece| {
        for (r, row) in piece.chunks_exact_mut(columns).enumerate() {
            let r = index * block + r;
            let other = &reference[r * columns..(r + 1) * columns];
            let (p, q) = (softmax_of(of.stats, r), softmax_of(of.reference_stats, r));
            match params.kind {
                0 => forward_row(row, other, p, q, of.weight[r], params.beta),
                _ => reverse_row(row, other, p, q, of.weight[r], params.beta, of.divergence[r]),
            }
            if of.labels[r] != NO_LABEL
                && let Some(z) = (of.labels[r] as usize).checked_sub(column_start).and_then(|c| row.get_mut(c))
            {
                *z -= of.weight[r];
            }
        }
    });
}

vectorised! {
    /// Sum of P (ln P - ln Q) over columns.
    fn divergence_of<FMA>(own: &[f32], other: &[f32], p: Softmax, q: Softmax) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let mut at = 0;
        while at < own.len() {
            let end = (at + LANES).min(own.len());
            for (lane, (&z, &r)) in lanes.iter_mut().zip(own[at..end].iter().zip(&other[at..end])) {
                let (log_p, log_q) = ((z - p.max) - p.log_sum, (r - q.max) - q.log_sum);
                // What has no probability adds nothing, whatever the other has there.
                let term = exp::<FMA>(log_p) * (log_p - log_q);
                *lane += if log_p > NEGLIGIBLE { term } else { 0.0 };
            }
            at = end;
        }
        lanes.iter().map(|&sum| f64::from(sum)).sum::<f64>() as f32
    }

    /// weight P + beta (P - Q).
    fn forward_row<FMA>(row: &mut [f32], other: &[f32], p: Softmax, q: Softmax, weight: f32, beta: f32) {
        for (z, &r) in row.iter_mut().zip(other) {
            let (own, kept) = (exp::<FMA>(*z - p.max) / p.sum, exp::<FMA>(r - q.max) / q.sum);
            *z = weight * own + beta * (own - kept);
        }
    }

    /// weight P + beta P (ln P - ln Q - KL(P || Q)).
    fn reverse_row<FMA>(row: &mut [f32], other: &[f32], p: Softmax, q: Softmax, weight: f32, beta: f32, kl: f32) {
        for (z, &r) in row.iter_mut().zip(other) {
            let own = exp::<FMA>(*z - p.max) / p.sum;
            let (log_p, log_q) = ((*z - p.max) - p.log_sum, (r - q.max) - q.log_sum);
            let pull = own * (log_p - log_q - kl);
            *z = weight * own + beta * if own > 0.0 { pull } else { 0.0 };
        }
    }
}
