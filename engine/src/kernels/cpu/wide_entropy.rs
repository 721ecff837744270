//! Entropy of the largest logits of each row, for more of them than the row statistics select.
//!
//! Place in the flow: behind [`row_stats`](super::row_stats()), whose maximum and sum it reads, and before
//! [`gate`](super::gate()). Unlike the shader it has the whole row at once: the largest are found by halving what may be the
//! least of them, each time with one selection, which visits each logit twice in all.

use temper_shaders::{STATS_WIDTH, WideEntropyParams, stat};

use super::par;

/// Below this e^d is 0.
const NEGLIGIBLE: f64 = -104.0;

/// Writes count and entropy of the chosen over `stats [rows, 8]`. `tiles` are the row's logits, `[rows, columns]` each. Chosen
/// are the `top_k` largest or, where that is 0, the fewest largest whose sum of e^(z - max) reaches `share` of the row's. A
/// logit that is not finite is never chosen.
pub fn wide_entropy(params: &WideEntropyParams, tiles: &[&[f32]], stats: &mut [f32]) {
    let rows = stats.len() / STATS_WIDTH;
    assert!(tiles.iter().all(|tile| tile.len() % rows.max(1) == 0), "tiles have as many rows as the statistics");
    let widths: Vec<usize> = tiles.iter().map(|tile| tile.len() / rows.max(1)).collect();
    let vocab: usize = widths.iter().sum();
    let block = par::rows_per_task(vocab);
    par::pieces(stats, block * STATS_WIDTH, |index, stats| {
        let mut values = Vec::with_capacity(vocab);
        for (r, stats) in stats.chunks_exact_mut(STATS_WIDTH).enumerate() {
            let row = index * block + r;
            values.clear();
            let least = least_that_may_count(params, stats, vocab);
            for (tile, width) in tiles.iter().zip(&widths) {
                let logits = &tile[row * width..(row + 1) * width];
                values.extend(logits.iter().copied().filter(|z| z.is_finite() && *z >= least));
            }
            let max = f64::from(stats[stat::MAX]);
            let chosen = match params.top_k {
                0 => fewest(&mut values, max, f64::from(params.share) * f64::from(stats[stat::SUM])),
                top_k => largest(&mut values, top_k as usize),
            };
            stats[stat::COUNT] = chosen.len() as f32;
            stats[stat::ENTROPY_TOP_K] = entropy(chosen, max);
        }
    });
}

/// A logit below which all of the vocabulary together has less than half of what a share leaves out: none of those is chosen.
fn least_that_may_count(params: &WideEntropyParams, stats: &[f32], vocab: usize) -> f32 {
    let left_out = (1.0 - f64::from(params.share)) * f64::from(stats[stat::SUM]);
    match params.top_k {
        0 if left_out > 0.0 => (f64::from(stats[stat::MAX]) - (2.0 * vocab as f64 / left_out).ln()) as f32,
        _ => f32::MIN,
    }
}

/// The `top_k` largest.
fn largest(values: &mut [f32], top_k: usize) -> &[f32] {
    if top_k < values.len() {
        values.select_nth_unstable_by(top_k, |a, b| b.total_cmp(a));
    }
    &values[..top_k.min(values.len())]
}

/// The fewest largest whose sum of e^(z - max) reaches `target`; all where it does not.
fn fewest(values: &mut [f32], max: f64, target: f64) -> &[f32] {
    // The least chosen one lies in low..high, and what is before low has this much.
    let (mut low, mut high, mut before) = (0, values.len(), 0.0);
    while high - low > 1 {
        let middle = (low + high) / 2;
        values[low..high].select_nth_unstable_by(middle - low, |a, b| b.total_cmp(a));
        let half: f64 = values[low..middle].iter().map(|&z| exponential(f64::from(z) - max)).sum();
        if before + half >= target {
            high = middle;
        } else {
            (low, before) = (middle, before + half);
        }
    }
    &values[..high]
}

fn exponential(d: f64) -> f64 {
    if d > NEGLIGIBLE { d.exp() } else { 0.0 }
}

/// Entropy in nats of the softmax over `chosen`, of which one is `max`: H = ln s - u / s with s = sum of e^d, u = sum of d e^d,
/// d = z - max. Never negative.
fn entropy(chosen: &[f32], max: f64) -> f32 {
    // Without the maximum's own term, so that a peaked distribution keeps its relative precision.
    let (mut below, mut maxima, mut u) = (0.0f64, 0.0f64, 0.0f64);
    for &z in chosen {
        let d = f64::from(z) - max;
        let e = exponential(d);
        if d < 0.0 {
            below += e;
            u += d.max(NEGLIGIBLE) * e;
        } else {
            maxima += 1.0;
        }
    }
    let rest = (below + maxima - 1.0).max(0.0);
    (rest.ln_1p() - u / (1.0 + rest)).max(0.0) as f32
}
