//! Counts of scored tokens whose size does not depend on how many there are.

use serde::Serialize;
use temper_shaders::{LOWEST, MAX_TOP_K};

use crate::kernels::row_stats::RowStats;

/// A trained token, and what the model thought of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Index of its document among those that were given.
    pub document: u32,
    /// Index of the token in its document, at least 1.
    pub position: u32,
    /// The token, which is the label.
    pub token: u32,
    /// Cross entropy and entropies, those of the top K with the gate's K.
    pub stats: RowStats,
    /// Its weight.
    pub gate: f32,
    /// The token that the model thought most likely, the lowest of equals.
    pub wanted: u32,
    /// Probability of that one.
    pub wanted_p: f32,
}

/// Counts and means of some tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Tokens.
    pub tokens: u64,
    /// Confident conflicts among them: label probability below 0.1, full entropy below 0.5 nats.
    pub conflicts: u64,
    /// Sum of cross entropies, in nats.
    pub ce: f64,
    /// Sum of full entropies, in nats.
    pub entropy: f64,
    /// Sum of gates.
    pub gate: f64,
}

impl Tally {
    /// Adds a token.
    pub fn add(&mut self, score: &TokenScore) {
        self.tokens += 1;
        self.conflicts += u64::from(score.stats.is_conflict());
        self.ce += f64::from(score.stats.ce);
        self.entropy += f64::from(score.stats.entropy_full);
        self.gate += f64::from(score.gate);
    }

    /// Conflicts among the tokens; 0 of none.
    pub fn conflict_share(&self) -> f64 {
        self.mean(self.conflicts as f64)
    }

    /// A sum over the tokens as a mean; 0 of none.
    pub fn mean(&self, sum: f64) -> f64 {
        sum / self.tokens.max(1) as f64
    }
}

/// Tokens up to which [`Bottoms`] is exact.
const EXACT: usize = 65_536;
/// Bins of an octave. A bin is at most a 32nd of its lower edge wide.
const OCTAVE: u32 = 32;
/// What is below 2^-20 nats is in the first bin, what is 128 and more in the last.
const OCTAVES: [i32; 2] = [-20, 7];
const BINS: usize = ((OCTAVES[1] - OCTAVES[0]) as u32 * OCTAVE) as usize;
/// The paper's share of the tokens that are lowest, in percent (its `p15` and `H15`).
const BOTTOM_PERCENT: u64 = 15;

/// The share of tokens that are among the lowest 15 % of all in both label probability and entropy, the paper's
/// conflicts, of any number of tokens.
///
/// Up to 65,536 tokens all are kept, and the share is exact. Beyond, cross entropy and entropy are counted in 864 by
/// 864 bins, 32 an octave: both quantiles are then known up to the bin they lie in, cross entropy and entropy to 3.1 % of
/// their value at most, and the share lies between the count of tokens that are certainly beyond both and of those that may
/// be. Both bounds are given. The label probability, exp(-cross entropy), is known less well where it is small: at 0.02 to
/// 12 %.
#[derive(Clone, Debug, Default)]
pub struct Bottoms {
    tokens: u64,
    kept: Vec<[f32; 2]>,
    /// `[entropy][cross entropy]`, once there are too many to be kept.
    cells: Vec<u64>,
}

/// What [`Bottoms`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bottom {
    /// Share of tokens strictly below both quantiles, at least.
    pub share_least: f64,
    /// At most; the same where all tokens were kept.
    pub share_most: f64,
    /// The 15th percentile of label probabilities: where it lies in a bin, the middle of that bin of cross entropies.
    pub probability: f64,
    /// The 15th percentile of entropies, in nats.
    pub entropy: f64,
    /// True where all tokens were kept.
    pub exact: bool,
}

impl Bottoms {
    /// Adds a token.
    pub fn add(&mut self, score: &TokenScore) {
        self.add_pair([score.stats.entropy_full, score.stats.ce]);
    }

    fn add_pair(&mut self, pair: [f32; 2]) {
        self.tokens += 1;
        if self.cells.is_empty() {
            if self.kept.len() < EXACT {
                self.kept.push(pair);
                return;
            }
            self.cells = vec![0; BINS * BINS];
            for pair in std::mem::take(&mut self.kept) {
                self.cells[cell(pair)] += 1;
            }
        }
        self.cells[cell(pair)] += 1;
    }

    /// The share and its quantiles; zeros of no tokens.
    pub fn found(&self) -> Bottom {
        let rank = (BOTTOM_PERCENT * self.tokens).div_ceil(100);
        if rank == 0 {
            return Bottom { exact: true, ..Bottom::default() };
        }
        if self.cells.is_empty() {
            let nth = |which: usize, sign: f32| {
                let mut values: Vec<f32> = self.kept.iter().map(|pair| sign * pair[which]).collect();
                *values.select_nth_unstable_by(rank as usize - 1, f32::total_cmp).1
            };
            // The lowest probability is the highest cross entropy.
            let (entropy, minus_ce) = (nth(0, 1.0), nth(1, -1.0));
            let count = self.kept.iter().filter(|pair| pair[0] < entropy && -pair[1] < minus_ce).count();
            let share = count as f64 / self.tokens as f64;
            let probability = f64::from(minus_ce).exp();
            let entropy = f64::from(entropy);
            return Bottom { share_least: share, share_most: share, probability, entropy, exact: true };
        }
        let row = |bin: usize| &self.cells[bin * BINS..(bin + 1) * BINS];
        let column = |bin: usize| (0..BINS).map(|line| self.cells[line * BINS + bin]).sum::<u64>();
        let mut seen = 0;
        let mut reaches = |count: u64| {
            seen += count;
            seen >= rank
        };
        let entropy = (0..BINS).find(|&bin| reaches(row(bin).iter().sum())).unwrap_or(BINS - 1);
        let mut seen = 0;
        let mut reaches = |count: u64| {
            seen += count;
            seen >= rank
        };
        let ce = (0..BINS).rev().find(|&bin| reaches(column(bin))).unwrap_or(0);
        let below = |lines: usize, from: usize| -> f64 {
            let count: u64 = (0..lines).map(|line| row(line)[from..].iter().sum::<u64>()).sum();
            count as f64 / self.tokens as f64
        };
        Bottom {
            share_least: below(entropy, ce + 1),
            share_most: below(entropy + 1, ce),
            probability: (-middle(ce)).exp(),
            entropy: middle(entropy),
            exact: false,
        }
    }
}

fn bin(value: f32) -> usize {
    // Neighbouring bits of a positive float are neighbouring numbers, and the upper ones are an octave and its parts.
    let part = value.to_bits() >> (23 - OCTAVE.trailing_zeros());
    let first = ((127 + OCTAVES[0]) as u32) * OCTAVE;
    if value > 0.0 { (part.saturating_sub(first) as usize).min(BINS - 1) } else { 0 }
}

fn cell([entropy, ce]: [f32; 2]) -> usize {
    bin(entropy) * BINS + bin(ce)
}

/// The middle of a bin.
fn middle(bin: usize) -> f64 {
    let edge = |bin: usize| {
        let (octave, part) = (bin as u32 / OCTAVE, bin as u32 % OCTAVE);
        f64::from(OCTAVES[0] + octave as i32).exp2() * (1.0 + f64::from(part) / f64::from(OCTAVE))
    };
    (edge(bin) + edge(bin + 1)) / 2.0
}

/// How well the entropy of the K most likely tokens stands for that of all: Pearson's correlation for every K from 2 to
/// 64 (the paper's Figure 6), in one sweep (Welford's updates).
#[derive(Clone, Debug)]
pub struct Fidelity {
    tokens: f64,
    full: [f64; 2],
    /// Mean, sum of squares about it, and sum of products with the full entropy, of each K.
    of_k: Vec<[f64; 3]>,
}

impl Default for Fidelity {
    fn default() -> Self {
        Self { tokens: 0.0, full: [0.0; 2], of_k: vec![[0.0; 3]; MAX_TOP_K + 1] }
    }
}

impl Fidelity {
    /// The values of K.
    pub const K: std::ops::RangeInclusive<usize> = 2..=MAX_TOP_K;

    /// Adds a row by its largest logits in descending order; `hear` is told the entropy of the K largest, renormalised,
    /// of each K. Where there are fewer than K, it is that of those there are.
    pub fn add(&mut self, top: &[f32], full: f64, mut hear: impl FnMut(usize, f64)) {
        self.tokens += 1.0;
        let off = full - self.full[0];
        self.full[0] += off / self.tokens;
        let off_after = full - self.full[0];
        self.full[1] += off * off_after;
        // H = ln s - u / s with s = sum of e^d, u = sum of d e^d, d = z - max; s without the maximum's own term, so
        // that a peaked distribution keeps its relative precision.
        let (mut rest, mut u) = (0.0_f64, 0.0_f64);
        for k in Self::K {
            if let Some(&z) = top.get(k - 1).filter(|z| **z > LOWEST) {
                let d = f64::from(z) - f64::from(top[0]);
                rest += d.exp();
                u += d * d.exp();
            }
            let entropy = (rest.ln_1p() - u / (1.0 + rest)).max(0.0);
            hear(k, entropy);
            let [mean, squares, products] = &mut self.of_k[k];
            let off = entropy - *mean;
            *mean += off / self.tokens;
            *squares += off * (entropy - *mean);
            *products += off * off_after;
        }
    }

    /// Pearson's correlation with the full entropy of each K; none where one of the two never changes.
    pub fn correlations(&self) -> Vec<(usize, Option<f64>)> {
        let of = |k: usize| {
            let [_, squares, products] = self.of_k[k];
            let r = products / (squares * self.full[1]).sqrt();
            (k, r.is_finite().then_some(r.clamp(-1.0, 1.0)))
        };
        Self::K.map(of).collect()
    }
}

/// Is the model right as often as it is sure? Its most likely token's probability against how often that one is the
/// label, in 20 bins of equal width (Guo et al. 2017).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reliability {
    bins: [Reliable; 20],
}

/// Tokens of which the model was about as sure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Reliable {
    /// How many.
    pub tokens: u64,
    /// Sum of the most likely token's probabilities.
    pub confidence: f64,
    /// How often that token was the label.
    pub right: u64,
}

impl Reliability {
    /// Adds a token.
    pub fn add(&mut self, score: &TokenScore) {
        let count = self.bins.len();
        let bin = &mut self.bins[((f64::from(score.wanted_p) * count as f64) as usize).min(count - 1)];
        bin.tokens += 1;
        bin.confidence += f64::from(score.wanted_p);
        bin.right += u64::from(score.wanted == score.token);
    }

    /// The bins, from unsure to sure.
    pub fn bins(&self) -> &[Reliable] {
        &self.bins
    }

    /// Expected calibration error: the mean over tokens of how far their bin's share of right ones is from its mean
    /// confidence.
    pub fn expected_error(&self) -> f64 {
        let tokens: u64 = self.bins.iter().map(|bin| bin.tokens).sum();
        self.bins.iter().map(|bin| (bin.right as f64 - bin.confidence).abs()).sum::<f64>() / tokens.max(1) as f64
    }

    /// Of tokens of which the model was surer than 0.9: how many there are, and how many of them it was wrong about.
    pub fn sure(&self) -> [u64; 2] {
        let sure = &self.bins[self.bins.len() * 9 / 10..];
        let tokens = sure.iter().map(|bin| bin.tokens).sum::<u64>();
        [tokens, tokens - sure.iter().map(|bin| bin.right).sum::<u64>()]
    }
}

/// The few with the highest scores, in descending order; of equal ones those that came first.
#[derive(Clone, Debug)]
pub struct Highest<T> {
    most: usize,
    entries: Vec<(f64, T)>,
}

impl<T> Highest<T> {
    /// Of at most so many.
    pub fn new(most: usize) -> Self {
        Self { most, entries: Vec::with_capacity(most) }
    }

    /// Offers one; it is made only where it is kept.
    pub fn offer(&mut self, score: f64, make: impl FnOnce() -> T) {
        let at = self.entries.partition_point(|(other, _)| *other >= score);
        // NaN is higher than nothing.
        if at < self.most && !score.is_nan() {
            self.entries.truncate(self.most - 1);
            self.entries.insert(at, (score, make()));
        }
    }

    /// Scores and entries.
    pub fn entries(&self) -> &[(f64, T)] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::row_stats::RowStats;
    use crate::loss::objective::conflict_share_quantile;
    use crate::rng::Rng;

    fn pairs(count: usize) -> Vec<[f32; 2]> {
        let mut rng = Rng::new(5);
        let pair = |_| [(rng.normal().abs() * 1.5) as f32, (-rng.uniform().ln() * 1.2) as f32];
        (0..count).map(pair).collect()
    }

    fn rows(pairs: &[[f32; 2]]) -> Vec<RowStats> {
        pairs.iter().map(|&[entropy_full, ce]| RowStats { ce, entropy_full, ..RowStats::default() }).collect()
    }

    #[test]
    fn conflicts_by_quantiles_are_exact_while_all_are_kept_and_within_their_bounds_beyond() {
        for count in [1, 2, 19, 20, 1000, EXACT, EXACT + 1, 3 * EXACT] {
            let pairs = pairs(count);
            let mut bottoms = Bottoms::default();
            pairs.iter().for_each(|&pair| bottoms.add_pair(pair));
            let (found, want) = (bottoms.found(), conflict_share_quantile(&rows(&pairs)));
            assert_eq!(found.exact, count <= EXACT);
            if found.exact {
                assert_eq!([found.share_least, found.share_most], [want; 2], "of {count}");
            } else {
                assert!(found.share_least <= want && want <= found.share_most, "{found:?} and {want}");
                assert!(found.share_most - found.share_least < 0.005 && found.share_least > 0.01, "{found:?}");
                let mut entropies: Vec<f32> = pairs.iter().map(|pair| pair[0]).collect();
                entropies.sort_by(f32::total_cmp);
                let exact = f64::from(entropies[(15 * count).div_ceil(100) - 1]);
                assert!((found.entropy / exact - 1.0).abs() <= 1.0 / 32.0, "{found:?} and {exact}");
            }
        }
        let nothing = Bottoms::default().found();
        assert_eq!([nothing.share_least, nothing.share_most, nothing.probability], [0.0; 3]);
    }

    #[test]
    fn bins_are_in_the_order_of_numbers_and_hold_their_middles() {
        let values = [0.0, 1e-30, 1e-6, 1e-3, 0.5, 0.515, 0.52, 1.0, 10.9, 127.9, 128.0, 1e30];
        let bins = values.map(bin);
        assert!(bins.is_sorted() && bins[0] == 0 && bins[10] == BINS - 1, "{bins:?}");
        assert_ne!(bin(0.5), bin(0.52));
        for at in 0..BINS {
            assert_eq!(bin(middle(at) as f32), at);
        }
        assert_eq!(bin(f32::NAN), 0, "never an index beyond the bins");
    }

    #[test]
    fn the_correlation_is_pearsons_of_entropies_by_their_definition() {
        let mut rng = Rng::new(3);
        let mut fidelity = Fidelity::default();
        let mut seen: Vec<(Vec<f64>, f64)> = Vec::new();
        for _ in 0..300 {
            let scale = 0.3 + 6.0 * rng.uniform();
            let mut row: Vec<f32> = (0..90).map(|_| (rng.normal() * scale) as f32 + 40.0).collect();
            row.sort_by(|a, b| b.total_cmp(a));
            let entropy = |row: &[f32]| {
                let sum: f64 = row.iter().map(|z| f64::from(z - 40.0).exp()).sum();
                let p = row.iter().map(|z| f64::from(z - 40.0).exp() / sum);
                p.map(|p| if p > 0.0 { -p * p.ln() } else { 0.0 }).sum::<f64>()
            };
            let full = entropy(&row);
            let of_k: Vec<f64> = Fidelity::K.map(|k| entropy(&row[..k])).collect();
            fidelity.add(&row[..MAX_TOP_K], full, |k, h| assert!((h - of_k[k - 2]).abs() <= 1e-9, "K = {k}: {h}"));
            seen.push((of_k, full));
        }
        let n = seen.len() as f64;
        let mean_full = seen.iter().map(|s| s.1).sum::<f64>() / n;
        for (k, found) in fidelity.correlations() {
            let mean = seen.iter().map(|s| s.0[k - 2]).sum::<f64>() / n;
            let sum =
                |of: &dyn Fn(f64, f64) -> f64| seen.iter().map(|s| of(s.0[k - 2] - mean, s.1 - mean_full)).sum::<f64>();
            let r = sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
            let found = found.expect("entropies that change");
            assert!((found - r).abs() <= 1e-9, "K = {k}: {found} and {r}");
        }
        assert!(fidelity.correlations()[62].1 > fidelity.correlations()[0].1);
        assert!(Fidelity::default().correlations().iter().all(|(_, r)| r.is_none()));
    }

    #[test]
    fn a_vocabulary_smaller_than_k_has_the_entropy_of_all_of_it() {
        let mut fidelity = Fidelity::default();
        let mut found = Vec::new();
        let mut top = [LOWEST; MAX_TOP_K];
        top[..3].copy_from_slice(&[1.0; 3]);
        fidelity.add(&top, 3f64.ln(), |_, h| found.push(h));
        assert!((found[0] - 2f64.ln()).abs() <= 1e-12);
        assert!(found[1..].iter().all(|h| (h - 3f64.ln()).abs() <= 1e-12));
    }

    fn sure(wanted_p: f32, right: bool) -> TokenScore {
        let stats = RowStats::default();
        TokenScore { document: 0, position: 1, token: 1, stats, gate: 0.5, wanted: u32::from(right), wanted_p }
    }

    #[test]
    fn the_calibration_error_is_the_mean_distance_of_bins_and_the_sure_and_wrong_are_counted() {
        let mut found = Reliability::default();
        // Three of four right at 0.8 in one bin, one of two at 0.95 in another, one sure and right.
        [(0.8, true), (0.8, true), (0.8, true), (0.8, false), (0.95, true), (0.95, false), (1.0, true)]
            .iter()
            .for_each(|&(p, right)| found.add(&sure(p, right)));
        let want = ((3.0 - 3.2_f64).abs() + (2.0 - 2.9_f64).abs()) / 7.0;
        assert!((found.expected_error() - want).abs() <= 1e-6, "{}", found.expected_error());
        assert_eq!(found.sure(), [3, 1]);
        assert_eq!(Reliability::default().expected_error(), 0.0);
    }

    #[test]
    fn the_highest_are_kept_in_order_and_never_more_than_wanted() {
        let mut highest = Highest::new(3);
        for (at, score) in [1.0, 5.0, f64::NAN, 5.0, 0.5, 7.0, 2.0].into_iter().enumerate() {
            highest.offer(score, || at);
        }
        assert_eq!(highest.entries(), [(7.0, 5), (5.0, 1), (5.0, 3)]);
    }

    #[test]
    fn a_tally_counts_conflicts_by_the_absolute_thresholds() {
        let mut tally = Tally::default();
        for (p, entropy) in [(0.05_f32, 0.2), (0.05, 0.6), (0.5, 0.2)] {
            let stats = RowStats { ce: -p.ln(), entropy_full: entropy, ..RowStats::default() };
            tally.add(&TokenScore { stats, ..sure(0.9, true) });
        }
        assert_eq!((tally.tokens, tally.conflicts), (3, 1));
        assert!((tally.conflict_share() - 1.0 / 3.0).abs() <= 1e-12);
        assert!((tally.mean(tally.gate) - 0.5).abs() <= 1e-12);
        assert_eq!(Tally::default().conflict_share(), 0.0);
    }
}
