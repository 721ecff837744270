//! Statistics of each row of logits: log-sum-exp, label logit, entropies. Two sweeps over a row that stays in cache.
//!
//! Place in the flow: first thing after the head's product; the gate and the gradient need nothing else. The vocabulary
//! may arrive in tiles: each call merges its columns into the row's running statistics.
//!
//! Top K without sorting: the first sweep keeps the largest logit of each of 256 interleaved classes of columns.
//! At least K logits reach the K-th largest class maximum, so it is a lower bound of the K-th largest logit, and a close
//! one. The second sweep, which sums exponentials, collects the few logits that reach it.

use temper_shaders::{LOWEST, MAX_TOP_K, NO_LABEL, RowStatsParams, STATS_WIDTH, stat};

use super::par;
use super::simd::{exp, fma, vectorised};

/// Interleaved classes of columns: lane c of both sweeps covers the columns c, c + 256, ..
const CLASSES: usize = 256;
/// Below this e^d is 0.
const NEGLIGIBLE: f32 = -104.0;
/// Candidates for the top K that are held before the lower ones are thrown away.
const CANDIDATES: usize = 512;

/// Statistics of `logits [rows, cols]`, the tile of the vocabulary that starts at token `column_start`.
///
/// `labels [rows]` holds each row's token or [`NO_LABEL`]; `top_k` is at most [`MAX_TOP_K`], and 0 for the entropy of all
/// tokens. With `first` the carried arrays are written afresh, else this tile is merged into them; after the last tile they
/// describe the whole row. `top [rows, 64]` holds the largest `top_k` logits so far in descending order, then [`LOWEST`].
/// `stats [rows, 8]` holds, with m the row's largest logit: m, sum of e^(z-m), sum of (z-m) e^(z-m), sum of e^(2(z-m)), the
/// label's logit (0 without one), the number of logits that are NaN or +inf (plus one if the label's own is not finite), how
/// many tokens the entropy is of, and the entropy in nats of the renormalised top K. A logit that is not finite contributes 0
/// to sums and entropies.
pub fn row_stats(params: &RowStatsParams, logits: &[f32], labels: &[u32], top: &mut [f32], stats: &mut [f32]) {
    let (rows, columns, column_start) = (labels.len(), params.cols as usize, params.column_start as usize);
    let (all, first) = (params.top_k == 0, params.first != 0);
    let top_k = (params.top_k as usize).max(1);
    assert_eq!(logits.len(), rows * columns);
    assert_eq!(top.len(), rows * MAX_TOP_K);
    assert_eq!(stats.len(), rows * STATS_WIDTH);
    assert!((1..=MAX_TOP_K).contains(&top_k), "top_k is 1 to {MAX_TOP_K}");
    let block = par::rows_per_task(columns);
    par::pieces2(top, block * MAX_TOP_K, stats, block * STATS_WIDTH, |index, top, stats| {
        let rows = top.chunks_exact_mut(MAX_TOP_K).zip(stats.chunks_exact_mut(STATS_WIDTH));
        for (r, (top, stats)) in rows.enumerate() {
            let r = index * block + r;
            if first {
                top.fill(LOWEST);
                stats.fill(0.0);
                stats[stat::MAX] = LOWEST;
            }
            let row = &logits[r * columns..(r + 1) * columns];
            if labels[r] != NO_LABEL
                && let Some(&z) = (labels[r] as usize).checked_sub(column_start).and_then(|c| row.get(c))
            {
                stats[stat::LABEL_LOGIT] = z;
                stats[stat::NONFINITE] += f32::from(!z.is_finite());
            }
            merge_row(row, top_k, top, stats);
            let seen = column_start + columns;
            stats[stat::COUNT] = if all { seen } else { seen.min(top_k) } as f32;
            if all {
                let sum = stats[stat::SUM];
                let entropy = if sum > 0.0 { sum.ln() - stats[stat::SUM_SHIFTED] / sum } else { 0.0 };
                stats[stat::ENTROPY_TOP_K] = entropy.max(0.0);
            }
        }
    });
}

/// Merges one row's tile into its running statistics.
fn merge_row(row: &[f32], top_k: usize, top: &mut [f32], stats: &mut [f32]) {
    let mut maxima = [LOWEST; CLASSES];
    stats[stat::NONFINITE] += lane_maxima(row, &mut maxima) as f32;

    // Lower bound of the K-th largest: from this tile's classes, and from the K values carried so far.
    let tile_max = maxima.iter().fold(LOWEST, |m, &z| m.max(z));
    let (_, kth, _) = maxima.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
    let threshold = kth.max(top[top_k - 1]);

    let old_max = stats[stat::MAX];
    let max = old_max.max(tile_max);
    if max > LOWEST {
        let mut sums =
            [f64::from(stats[stat::SUM]), f64::from(stats[stat::SUM_SHIFTED]), f64::from(stats[stat::SUM_SQUARED])];
        if max > old_max && sums[0] > 0.0 {
            // Carried sums are moved to the new maximum: (z - max) = (z - old) + (old - max).
            let shift = f64::from(old_max) - f64::from(max);
            let factor = shift.exp();
            sums = [sums[0] * factor, (sums[1] + shift * sums[0]) * factor, sums[2] * factor * factor];
        }
        let mut candidates = Candidates::new(&top[..top_k], top_k, threshold);
        sum_row(row, max, &mut sums, &mut candidates);
        candidates.finish(&mut top[..top_k]);
        stats[stat::MAX] = max;
        stats[stat::SUM] = sums[0] as f32;
        stats[stat::SUM_SHIFTED] = sums[1] as f32;
        stats[stat::SUM_SQUARED] = sums[2] as f32;
    }
    stats[stat::ENTROPY_TOP_K] = entropy(&top[..top_k]);
}

/// Entropy in nats of the softmax over `top` (descending; [`LOWEST`] entries are absent): H = ln s - u / s with
/// s = sum of e^d, u = sum of d e^d, d = z - max. Never negative.
fn entropy(top: &[f32]) -> f32 {
    let max = f64::from(top[0]);
    // Without the maximum's own term, so that a peaked distribution keeps its relative precision.
    let (mut rest, mut u) = (0.0f64, 0.0f64);
    for &z in top[1..].iter().take_while(|&&z| z > LOWEST) {
        let d = f64::from(z) - max;
        let e = d.exp();
        rest += e;
        u += d * e;
    }
    (rest.ln_1p() - u / (1.0 + rest)).max(0.0) as f32
}

/// Logits that may be among the K largest.
struct Candidates {
    values: [f32; CANDIDATES],
    length: usize,
    top_k: usize,
    /// Logits must reach this.
    threshold: f32,
}

impl Candidates {
    /// Starts from the carried values, descending with [`LOWEST`] for absent ones.
    fn new(carried: &[f32], top_k: usize, threshold: f32) -> Self {
        let mut this = Self { values: [0.0; CANDIDATES], length: 0, top_k, threshold: threshold.max(LOWEST.next_up()) };
        for &z in carried.iter().take_while(|&&z| z > LOWEST) {
            this.values[this.length] = z;
            this.length += 1;
        }
        this
    }

    /// Keeps those of `part` that reach the threshold.
    #[inline(never)]
    fn offer(&mut self, part: &[f32]) {
        for &z in part {
            if z >= self.threshold && z < f32::INFINITY {
                self.push(z);
            }
        }
    }

    fn push(&mut self, z: f32) {
        self.values[self.length] = z;
        self.length += 1;
        if self.length == CANDIDATES {
            // Too many reach the threshold (ties, or a rising row): keep the K best, and from now on ask for more than
            // the least of them. Equal values beyond K change nothing.
            let (_, kth, _) = self.values.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            self.threshold = kth.next_up();
            self.length = self.top_k;
        }
    }

    fn finish(mut self, top: &mut [f32]) {
        let values = &mut self.values[..self.length];
        if values.len() > self.top_k {
            values.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
        }
        let kept = values.len().min(self.top_k);
        values[..kept].sort_unstable_by(|a, b| b.total_cmp(a));
        top.fill(LOWEST);
        top[..kept].copy_from_slice(&values[..kept]);
    }
}

/// Lane by lane sums over a row: lane c covers the columns c, c + 256, ..
struct LaneSums {
    sum: [f32; CLASSES],
    u: [f32; CLASSES],
    sum_sq: [f32; CLASSES],
}

/// Adds e^d, d e^d and e^2d of up to 256 logits to their lanes; returns how many reach the threshold.
#[inline(always)]
fn add_lanes<const FMA: bool>(part: &[f32], max: f32, threshold: f32, lanes: &mut LaneSums) -> u32 {
    let mut reached = 0;
    let sums = lanes.sum.iter_mut().zip(&mut lanes.u).zip(&mut lanes.sum_sq);
    for (&z, ((sum, u), sum_sq)) in part.iter().zip(sums) {
        let z = if z < f32::INFINITY { z } else { LOWEST };
        reached += u32::from(z >= threshold);
        let d = z - max;
        // e is 0 there; the bound keeps infinity * 0 out of the sum.
        let d = if d < NEGLIGIBLE { NEGLIGIBLE } else { d };
        let e = exp::<FMA>(d);
        *sum += e;
        *u = fma::<FMA>(d, e, *u);
        *sum_sq = fma::<FMA>(e, e, *sum_sq);
    }
    reached
}

/// Raises the lanes' maxima by up to 256 logits; returns how many are NaN or +inf, which are passed over.
#[inline(always)]
fn raise_lanes(part: &[f32], maxima: &mut [f32; CLASSES]) -> u32 {
    let mut bad = 0;
    for (&z, max) in part.iter().zip(maxima) {
        let good = z < f32::INFINITY;
        bad += u32::from(!good);
        let z = if good { z } else { LOWEST };
        *max = if z > *max { z } else { *max };
    }
    bad
}

// The loops below keep 256 lanes in arrays, so that the compiler turns each into plain vector code, and call their body
// twice, because whole pieces of known length are faster.
vectorised! {
    fn lane_maxima<FMA>(row: &[f32], maxima: &mut [f32; CLASSES]) -> u32 {
        let (whole, rest) = row.as_chunks::<CLASSES>();
        let bad: u32 = whole.iter().map(|part| raise_lanes(part, maxima)).sum();
        bad + raise_lanes(rest, maxima)
    }

    /// Adds sum e^d, sum d e^d and sum e^2d (d = z - max) to `sums`, and offers logits to the candidates.
    fn sum_row<FMA>(row: &[f32], max: f32, sums: &mut [f64; 3], candidates: &mut Candidates) {
        let mut lanes = LaneSums { sum: [0.0; CLASSES], u: [0.0; CLASSES], sum_sq: [0.0; CLASSES] };
        let (whole, rest) = row.as_chunks::<CLASSES>();
        for part in whole {
            if add_lanes::<FMA>(part, max, candidates.threshold, &mut lanes) > 0 {
                candidates.offer(part);
            }
        }
        if add_lanes::<FMA>(rest, max, candidates.threshold, &mut lanes) > 0 {
            candidates.offer(rest);
        }
        for (sum, lanes) in sums.iter_mut().zip([&lanes.sum, &lanes.u, &lanes.sum_sq]) {
            *sum += lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
    }
}
