//! The objective table: what each trained token's cross entropy is multiplied by.
//!
//! Place in the flow: `logits tile -> row statistics -> [objective: weight] -> gradient over the logits`. An objective
//! is a *weight per token*, computed from that token's row statistics (and for some objectives from statistics of the
//! whole optimiser batch) and treated as a constant by the gradient. For every objective of the table
//!
//! ```text
//! loss     = sum_t value_t / N
//! gradient = weight_t * (softmax(z_t) - onehot(y_t)) / N
//! ```
//!
//! with `N` the trained tokens of the whole accumulated batch and `value_t = weight_t * ce_t` (DEFT alone has another
//! value, see [`Objective::loss`]; its gradient has the same form). Notation of the table: `ce = lse - z_y` (nats),
//! `p = exp(-ce)`, `H_K` the entropy of the softmax over the K largest logits only (renormalised, nats), `H` the entropy
//! of the full softmax (nats), `h = H_K / normalizer`, `q15(x)` the 15th percentile of `x` over the batch.
//!
//! | objective | weight | value | source |
//! |---|---|---|---|
//! | `sft` | 1 | ce | - |
//! | `eaft`, gate `linear` | h | h ce | arXiv 2601.02151 Eq. 3; K = 20 |
//! | `eaft`, gate `power` | h^exponent | h^e ce | same, section 5.1 (exponent 2, 3) |
//! | `eaft`, gate `sigmoid` | 1 / (1 + exp(-steepness (h - midpoint))) | w ce | same, 30 and 0.17 |
//! | `eaft`, gate `hard` | 1 if H_K > q15(H_K), else 0 | w ce | same, Eq. 4 |
//! | `masked_sft` | 0 if H_K <= q15(H_K) and p <= q15(p), else 1 | w ce | same, section 3.2 (the pilot) |
//! | `dft` | p | p ce | arXiv 2508.05629 |
//! | `talr` | max(exp(-ce / tau), w_min), tau = median over sequences of the mean ce | w ce | arXiv 2509.20758 |
//! | `mile` | (sigma + H)^gamma / batch mean of the same | w ce | arXiv 2310.19531 |
//! | `deft` | p^a, a = sum_v P(v)^2 | (1 - p^a) / a | arXiv 2602.11424 |
//! | `profit` | 1 if p > threshold, else 0 | w ce | arXiv 2601.09195; 0.1 |
//!
//! Choices where the sources are silent or differ:
//! - *Batch* means all trained rows of one optimiser step, over all its micro-batches: the result does not depend on how
//!   the batch is split or packed. Rows with an ignored label are in no statistic and no denominator.
//! - DEFT's published code adds 1e-6 to the denominator `a`; `a` is at least 1/V, so it is not needed and left out.
//! - TALR's weights are not normalised over the batch; an even number of sequences has the mean of the two middle ones
//!   as its median; tau is at least 1e-6.
//! - An exponent of 0 makes every gate exactly 1 (0^0 = 1): the weight is the constant, so the result is SFT to the bit.
//!
//! **Where the next objectives join.** The device's gate kernel only fills a buffer of one weight a row, and the gradient
//! kernel only reads it. A weight per *sample* (FLOW) is a factor on that buffer, applied after the gate. A *reference
//! model* (SFT-KL, ASFT) adds `beta (P - P_ref)` to the gradient of a row and `beta KL` to its value: one more pass over
//! the tile after the gradient was written; its weight on the cross entropy stays one of the rows above. Neither changes
//! a kernel; both are a variant here plus an input of the head.

use crate::config::{ObjectiveSection, choice};
use crate::error::{Error, Result};
use crate::kernels::gate::GateParams;
use crate::kernels::row_stats::RowStats;

choice! {
    /// Objective names as a configuration spells them.
    pub enum Method {
        /// Plain cross entropy.
        Sft = "sft",
        /// Entropy-adaptive fine-tuning.
        Eaft = "eaft",
        /// The pilot's mask: low entropy and low probability.
        MaskedSft = "masked_sft",
        /// Dynamic fine-tuning.
        Dft = "dft",
        /// Token-adaptive loss reweighting.
        Talr = "talr",
        /// MiLe loss.
        Mile = "mile",
        /// Dynamic entropy fine-tuning.
        Deft = "deft",
        /// Probability-guided selection.
        Profit = "profit",
    }
}

choice! {
    /// Shapes of the EAFT gate as a configuration spells them.
    pub enum GateShape {
        /// `h`.
        Linear = "linear",
        /// `h^exponent`.
        Power = "power",
        /// `sigmoid(steepness (h - midpoint))`.
        Sigmoid = "sigmoid",
        /// 0 for the lowest `percentile` % of the batch by entropy, else 1.
        Hard = "hard",
    }
}

choice! {
    /// What the top-K entropy is divided by.
    pub enum Normalizer {
        /// ln min(K, V): the gate is 1 for a flat row. The paper's definition.
        LnK = "ln_k",
        /// The constant 3.0 whatever K is: parity with LLaMA-Factory.
        Const3 = "const_3",
        /// 1, so the gate is in nats: parity with Axolotl.
        None = "none",
    }
}

impl Normalizer {
    /// The divisor for `top_k` over a vocabulary of `vocab` tokens.
    pub fn value(self, top_k: usize, vocab: usize) -> f32 {
        match self {
            // A vocabulary of one token has entropy 0 and ln 1 = 0; dividing by 1 keeps the gate at 0 instead of NaN.
            Self::LnK if top_k.min(vocab) < 2 => 1.0,
            Self::LnK => (top_k.min(vocab) as f32).ln(),
            Self::Const3 => 3.0,
            Self::None => 1.0,
        }
    }
}

/// Smallest K: the entropy of one value is always 0 and ln 1 = 0, so K = 1 would be 0 / 0.
pub const TOP_K_MIN: usize = 2;
/// Largest K that the row statistics kernel selects.
pub const TOP_K_MAX: usize = 64;
/// Smallest tau that TALR divides by.
pub const TALR_TAU_MIN: f32 = 1e-6;
/// The relative form of the same uses this percentile of the batch for both.
pub const CONFLICT_PERCENTILE: f64 = 15.0;

/// The EAFT gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gate {
    /// `h^exponent`; linear is exponent 1.
    Power {
        /// Finite and at least 0.
        exponent: f32,
    },
    /// `sigmoid(steepness (h - midpoint))`.
    Sigmoid {
        /// Slope at the midpoint times four.
        steepness: f32,
        /// The `h` at which the gate is one half.
        midpoint: f32,
    },
    /// Drops the lowest `percentile` % by entropy.
    Hard {
        /// In percent, 0..=100.
        percentile: f64,
    },
}

/// One row of the table with its constants. Build it with [`Objective::from_section`], which validates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// Weight 1.
    Sft,
    /// The entropy gate.
    Eaft {
        /// K of the renormalised top-K entropy.
        top_k: usize,
        /// Divisor of that entropy.
        normalizer: Normalizer,
        /// Shape of the gate.
        gate: Gate,
    },
    /// Weight 0 in the joint lowest corner of entropy and probability.
    MaskedSft {
        /// K of the entropy that is ranked.
        top_k: usize,
        /// In percent.
        entropy_percentile: f64,
        /// In percent.
        probability_percentile: f64,
    },
    /// Weight p.
    Dft,
    /// Weight `max(exp(-ce / tau), w_min)`.
    Talr {
        /// Floor of the weight.
        w_min: f32,
        /// A fixed tau in nats; `None` is the median of the batch.
        tau: Option<f32>,
    },
    /// Weight `(sigma + H)^gamma` over its batch mean.
    Mile {
        /// Added to the entropy, in nats.
        sigma: f32,
        /// Exponent.
        gamma: f32,
    },
    /// Weight `p^a`.
    Deft,
    /// Weight 1 above a probability, else 0.
    Profit {
        /// Strictly above this the token is trained.
        threshold: f32,
    },
}

/// Scalars of one optimiser batch, over all its trained rows. An empty batch is fine: its scalars are neutral.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchStats {
    /// Vocabulary size, which bounds K.
    pub vocab: usize,
    /// Percentile of `H_K` in nats; minus infinity where nothing is to be dropped.
    pub entropy_threshold: f32,
    /// Percentile of `p`; minus infinity where nothing is to be dropped.
    pub probability_threshold: f32,
    /// The same threshold as a cross entropy (`p <= probability_threshold` is `ce >= ce_threshold`). Comparing this one
    /// needs a subtraction only, so every device takes the same decision for the row that *is* the percentile, which an
    /// approximate `exp` would not.
    pub ce_threshold: f32,
    /// TALR's temperature in nats.
    pub tau: f32,
    /// Mean of `(sigma + H)^gamma`.
    pub mile_mean: f32,
}

impl BatchStats {
    /// What objectives that need no statistics of the batch are given.
    pub fn neutral(vocab: usize) -> Self {
        Self {
            vocab,
            entropy_threshold: f32::NEG_INFINITY,
            probability_threshold: f32::NEG_INFINITY,
            ce_threshold: f32::INFINITY,
            tau: 1.0,
            mile_mean: 1.0,
        }
    }
}

/// A value of `[objective]` that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldProblem {
    /// Key within the section.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl Objective {
    /// Validates a configuration section. Every value is checked, also those that the chosen method does not read, so
    /// that one file can be run with several methods.
    ///
    /// # Errors
    /// All problems at once.
    pub fn check(section: &ObjectiveSection) -> Result<Self, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let mut demand = |good: bool, field: &'static str, problem: String| {
            if !good {
                problems.push(FieldProblem { field, problem });
            }
        };
        let s = section;
        demand(
            s.top_k != 1,
            "top_k",
            "1 gives an entropy of 0 for every token (and ln 1 = 0 as its normaliser), so nothing would be trained; \
             use 2 to 64, the paper uses 20"
                .into(),
        );
        demand(
            s.top_k == 1 || (TOP_K_MIN..=TOP_K_MAX).contains(&s.top_k),
            "top_k",
            format!("{} is outside {TOP_K_MIN} to {TOP_K_MAX}", s.top_k),
        );
        let at_least_zero = |v: f64| v.is_finite() && v >= 0.0 && (v as f32).is_finite();
        for (field, value) in
            [("exponent", s.exponent), ("steepness", s.steepness), ("sigma", s.sigma), ("gamma", s.gamma)]
        {
            demand(at_least_zero(value), field, format!("{value} is not a finite number of at least 0"));
        }
        demand((s.midpoint as f32).is_finite(), "midpoint", format!("{} is not a finite number", s.midpoint));
        demand(
            s.exponent == 1.0 || s.gate == GateShape::Power,
            "exponent",
            format!(
                "{} is read by gate = \"power\" only, but the gate is \"{}\"; set gate = \"power\" or leave exponent out",
                s.exponent, s.gate
            ),
        );
        for (field, value) in [
            ("percentile", s.percentile),
            ("entropy_percentile", s.entropy_percentile),
            ("probability_percentile", s.probability_percentile),
        ] {
            demand((0.0..=100.0).contains(&value), field, format!("{value} is outside 0 to 100 (percent)"));
            demand(
                !(value > 0.0 && value < 1.0),
                field,
                format!("{value} is a percentage below 1 %: percentiles are given in percent, write {}", value * 100.0),
            );
        }
        for (field, value) in [("w_min", s.w_min), ("threshold", s.threshold)] {
            demand((0.0..=1.0).contains(&value), field, format!("{value} is outside 0 to 1"));
        }
        if let Some(tau) = s.tau {
            demand(
                tau.is_finite() && tau >= f64::from(TALR_TAU_MIN),
                "tau",
                format!("{tau} is not a finite number of at least {TALR_TAU_MIN}; leave it out for the batch's median"),
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }

        Ok(match s.method {
            Method::Sft => Self::Sft,
            Method::Eaft => Self::Eaft {
                top_k: s.top_k,
                normalizer: s.normalizer,
                gate: match s.gate {
                    GateShape::Linear => Gate::Power { exponent: 1.0 },
                    GateShape::Power => Gate::Power { exponent: s.exponent as f32 },
                    GateShape::Sigmoid => Gate::Sigmoid { steepness: s.steepness as f32, midpoint: s.midpoint as f32 },
                    GateShape::Hard => Gate::Hard { percentile: s.percentile },
                },
            },
            Method::MaskedSft => Self::MaskedSft {
                top_k: s.top_k,
                entropy_percentile: s.entropy_percentile,
                probability_percentile: s.probability_percentile,
            },
            Method::Dft => Self::Dft,
            Method::Talr => Self::Talr { w_min: s.w_min as f32, tau: s.tau.map(|tau| tau as f32) },
            Method::Mile => Self::Mile { sigma: s.sigma as f32, gamma: s.gamma as f32 },
            Method::Deft => Self::Deft,
            Method::Profit => Self::Profit { threshold: s.threshold as f32 },
        })
    }

    /// [`Objective::check`] as an engine error.
    ///
    /// # Errors
    /// [`Error::Config`] with all problems.
    pub fn from_section(section: &ObjectiveSection) -> Result<Self> {
        Self::check(section).map_err(|problems| Error::Config {
            problems: problems.iter().map(|p| format!("[objective] {}: {}", p.field, p.problem)).collect(),
        })
    }

    /// The name in a configuration.
    pub fn method(&self) -> Method {
        match self {
            Self::Sft => Method::Sft,
            Self::Eaft { .. } => Method::Eaft,
            Self::MaskedSft { .. } => Method::MaskedSft,
            Self::Dft => Method::Dft,
            Self::Talr { .. } => Method::Talr,
            Self::Mile { .. } => Method::Mile,
            Self::Deft => Method::Deft,
            Self::Profit { .. } => Method::Profit,
        }
    }

    /// True where no weight is known before the statistics of the whole optimiser batch are: the head then sweeps all
    /// rows once for statistics before it computes any gradient.
    pub fn needs_batch(&self) -> bool {
        matches!(
            self,
            Self::Eaft { gate: Gate::Hard { .. }, .. }
                | Self::MaskedSft { .. }
                | Self::Talr { tau: None, .. }
                | Self::Mile { .. }
        )
    }

    /// The K of the entropy that the weight reads, `None` where it reads none.
    pub fn top_k(&self) -> Option<usize> {
        match self {
            Self::Eaft { top_k, .. } | Self::MaskedSft { top_k, .. } => Some(*top_k),
            _ => None,
        }
    }

    /// Reduces all trained rows of an optimiser batch to the scalars this objective needs.
    ///
    /// `sequence_of_row[i]` says to which document row `i` belongs (any numbering; only TALR reads it). A document
    /// without trained rows has no part in any statistic. The order of the rows does not matter.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two slices differ in length; [`Error::NonFinite`] naming the first row that holds a NaN
    /// or an infinity, since such a row would poison every threshold.
    pub fn batch(&self, rows: &[RowStats], sequence_of_row: &[u32], vocab: usize) -> Result<BatchStats> {
        if rows.len() != sequence_of_row.len() {
            return Err(Error::Shape {
                what: "sequence_of_row of the objective's batch statistics".into(),
                expected: format!("[{}]", rows.len()),
                got: format!("[{}]", sequence_of_row.len()),
            });
        }
        if let Some(row) = rows.iter().position(|row| !row.is_finite()) {
            return Err(Error::NonFinite { tensor: "logits".into(), row, step: None });
        }
        let mut batch = BatchStats::neutral(vocab);
        if rows.is_empty() {
            return Ok(batch);
        }
        match *self {
            Self::Eaft { gate: Gate::Hard { percentile }, .. } => {
                batch.entropy_threshold = quantile(rows.iter().map(|r| r.entropy_top_k).collect(), percentile);
            }
            Self::MaskedSft { entropy_percentile, probability_percentile, .. } => {
                batch.entropy_threshold = quantile(rows.iter().map(|r| r.entropy_top_k).collect(), entropy_percentile);
                // The lowest probabilities are the highest cross entropies; the mirrored values keep one definition of
                // the percentile.
                let threshold = -quantile(rows.iter().map(|r| -r.ce).collect(), probability_percentile);
                // A device's logarithm may round the percentile's own row to the other side: WGSL allows it 2^-21.
                batch.ce_threshold = threshold - threshold.abs().max(1.0) * 2e-6;
                batch.probability_threshold = match batch.ce_threshold.is_finite() {
                    true => (-batch.ce_threshold).exp(),
                    false => f32::NEG_INFINITY,
                };
            }
            Self::Talr { tau, .. } => {
                batch.tau = tau.unwrap_or_else(|| median_of_means(rows, sequence_of_row)).max(TALR_TAU_MIN);
            }
            Self::Mile { sigma, gamma } => {
                let sum: f64 = rows.iter().map(|r| f64::from((sigma + r.entropy_full).powf(gamma))).sum();
                let mean = (sum / rows.len() as f64) as f32;
                // sigma = 0 and one-hot rows only: every weight is 0, whatever it is divided by.
                batch.mile_mean = if mean > 0.0 { mean } else { 1.0 };
            }
            _ => {}
        }
        Ok(batch)
    }

    /// The statistics to use where [`Self::needs_batch`] is false.
    pub fn without_batch(&self, vocab: usize) -> BatchStats {
        let mut batch = BatchStats::neutral(vocab);
        if let Self::Talr { tau: Some(tau), .. } = self {
            batch.tau = tau.max(TALR_TAU_MIN);
        }
        batch
    }

    /// The weight of a row: the readable definition, which kernels and their twins are tested against.
    pub fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        match *self {
            Self::Sft => 1.0,
            Self::Eaft { top_k, normalizer, gate } => {
                let h = row.entropy_top_k / normalizer.value(top_k, batch.vocab);
                match gate {
                    // Not powf: a gate of exponent 0 is the constant 1 even for a row whose statistics are not finite.
                    Gate::Power { exponent: 0.0 } => 1.0,
                    Gate::Power { exponent: 1.0 } => h,
                    Gate::Power { exponent } => h.powf(exponent),
                    Gate::Sigmoid { steepness, midpoint } => 1.0 / (1.0 + (-steepness * (h - midpoint)).exp()),
                    Gate::Hard { .. } => indicator(row.entropy_top_k > batch.entropy_threshold),
                }
            }
            Self::MaskedSft { .. } => {
                indicator(!(row.entropy_top_k <= batch.entropy_threshold && row.ce >= batch.ce_threshold))
            }
            Self::Dft => row.p(),
            Self::Talr { w_min, .. } => (-row.ce / batch.tau).exp().max(w_min),
            Self::Mile { sigma, gamma } => (sigma + row.entropy_full).powf(gamma) / batch.mile_mean,
            Self::Deft => (-row.ce * row.collision).exp(),
            Self::Profit { threshold } => indicator(row.ce < -threshold.ln()),
        }
    }

    /// What a row adds to the loss before the division by N: `weight * ce`, and for DEFT the deformed logarithm
    /// `(1 - p^a) / a`, whose derivative is `weight` times that of the cross entropy.
    pub fn loss(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        match self {
            Self::Deft => -(-row.ce * row.collision).exp_m1() / row.collision,
            _ => self.weight(row, batch) * row.ce,
        }
    }

    /// The same weight in the form the device's gate kernel evaluates.
    pub fn gate_params(&self, batch: &BatchStats) -> GateParams {
        let constant =
            GateParams { rows: 0, kind: 0, exponent: 1.0, normalizer: 1.0, a: 0.0, b: 0.0, threshold: 0.0, scale: 1.0 };
        match *self {
            Self::Sft => constant,
            Self::Eaft { top_k, normalizer, gate } => {
                let normalizer = normalizer.value(top_k, batch.vocab);
                match gate {
                    Gate::Power { exponent: 0.0 } => constant,
                    Gate::Power { exponent: 1.0 } => GateParams { kind: 1, normalizer, ..constant },
                    Gate::Power { exponent } => GateParams { kind: 2, normalizer, exponent, ..constant },
                    Gate::Sigmoid { steepness, midpoint } => {
                        GateParams { kind: 3, normalizer, a: steepness, b: midpoint, ..constant }
                    }
                    // The threshold is one of the rows' own entropies: compared in nats, undivided, so that no device
                    // rounds that row to the other side.
                    Gate::Hard { .. } => GateParams { kind: 4, threshold: finite(batch.entropy_threshold), ..constant },
                }
            }
            Self::Dft => GateParams { kind: 5, ..constant },
            Self::Talr { w_min, .. } => GateParams { kind: 6, a: batch.tau, b: w_min, ..constant },
            Self::Mile { sigma, gamma } => {
                GateParams { kind: 7, a: sigma, b: 1.0 / batch.mile_mean, exponent: gamma, ..constant }
            }
            Self::Deft => GateParams { kind: 8, ..constant },
            Self::Profit { threshold } => GateParams { kind: 9, a: threshold, b: finite(-threshold.ln()), ..constant },
            Self::MaskedSft { .. } => GateParams {
                kind: 10,
                threshold: finite(batch.entropy_threshold),
                a: finite(batch.probability_threshold),
                b: finite(batch.ce_threshold),
                ..constant
            },
        }
    }
}

/// WGSL lets a compiler assume that there are no infinities: "never" is the largest number instead.
fn finite(threshold: f32) -> f32 {
    threshold.clamp(f32::MIN, f32::MAX)
}

fn indicator(keep: bool) -> f32 {
    if keep { 1.0 } else { 0.0 }
}

/// The `percent`-th percentile by nearest rank: the smallest of the values that at least `percent` % of all values do
/// not exceed, so it is one of the values. `x <= percentile` is "in the bottom `percent` %", and Eq. 4's
/// `x > percentile` is its exact complement; of equal values at the edge all are in the bottom. 0 % is minus infinity
/// (nothing is in the bottom), as is any percentile of nothing.
pub fn quantile(mut values: Vec<f32>, percent: f64) -> f32 {
    // percent * n / 100 and not (percent / 100) * n: exact for whole percentages, so the ceiling does not jump a rank.
    let rank = (percent * values.len() as f64 / 100.0).ceil() as usize;
    if rank == 0 || values.is_empty() {
        return f32::NEG_INFINITY;
    }
    let index = rank.min(values.len()) - 1;
    *values.select_nth_unstable_by(index, f32::total_cmp).1
}

/// TALR's tau: the median over sequences of each one's mean cross entropy. Summed in f64, so that it does not depend on
/// the order in which rows arrive.
fn median_of_means(rows: &[RowStats], sequence_of_row: &[u32]) -> f32 {
    let mut sums = std::collections::BTreeMap::<u32, (f64, u64)>::new();
    for (row, &sequence) in rows.iter().zip(sequence_of_row) {
        let (sum, count) = sums.entry(sequence).or_default();
        *sum += f64::from(row.ce);
        *count += 1;
    }
    let mut means: Vec<f64> = sums.values().map(|(sum, count)| sum / *count as f64).collect();
    means.sort_by(f64::total_cmp);
    let middle = means.len() / 2;
    let median = match means.len() % 2 {
        1 => means[middle],
        _ => (means[middle - 1] + means[middle]) / 2.0,
    };
    median as f32
}

/// Share of rows strictly below the batch's own 15th percentile in both label probability and full entropy. Unlike the
/// absolute form it compares rows with each other, so it stays small where nearly all tokens are certain and right.
pub fn conflict_share_quantile(rows: &[RowStats]) -> f64 {
    let entropy = quantile(rows.iter().map(|r| r.entropy_full).collect(), CONFLICT_PERCENTILE);
    let minus_ce = quantile(rows.iter().map(|r| -r.ce).collect(), CONFLICT_PERCENTILE);
    let count = rows.iter().filter(|r| r.entropy_full < entropy && -r.ce < minus_ce).count();
    count as f64 / rows.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Choice;

    /// f64 statistics of a row of logits, straight from the definitions, as the reference for what producers deliver.
    fn row(logits: &[f64], label: usize, top_k: usize) -> RowStats {
        let softmax = |z: &[f64]| -> Vec<f64> {
            let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = z.iter().map(|v| (v - max).exp()).sum();
            z.iter().map(|v| (v - max).exp() / sum).collect()
        };
        let entropy = |p: &[f64]| -> f64 { p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum() };
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let full = softmax(logits);
        let mut sorted = logits.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted.truncate(top_k);
        RowStats {
            ce: (max - logits[label] + logits.iter().map(|v| (v - max).exp()).sum::<f64>().ln()) as f32,
            entropy_top_k: entropy(&softmax(&sorted)) as f32,
            entropy_full: entropy(&full) as f32,
            collision: full.iter().map(|p| p * p).sum::<f64>() as f32,
        }
    }

    /// A row given by what the weights read.
    fn plain(ce: f32, entropy: f32) -> RowStats {
        RowStats { ce, entropy_top_k: entropy, entropy_full: entropy, collision: 0.5 }
    }

    fn section(method: Method) -> ObjectiveSection {
        ObjectiveSection { method, ..ObjectiveSection::default() }
    }

    fn eaft(gate: Gate) -> Objective {
        Objective::Eaft { top_k: 20, normalizer: Normalizer::LnK, gate }
    }

    fn everything() -> Vec<Objective> {
        let mut all: Vec<_> =
            Method::ALL.iter().map(|(_, method)| Objective::check(&section(*method)).unwrap()).collect();
        all.push(eaft(Gate::Power { exponent: 2.0 }));
        all.push(eaft(Gate::Power { exponent: 0.5 }));
        all.push(eaft(Gate::Power { exponent: 0.0 }));
        all.push(eaft(Gate::Sigmoid { steepness: 30.0, midpoint: 0.17 }));
        all.push(eaft(Gate::Hard { percentile: 15.0 }));
        all
    }

    /// 60 varied rows over a vocabulary of 50, in six sequences.
    fn sample() -> (Vec<RowStats>, Vec<u32>) {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let rows = (0..60)
            .map(|i| {
                let scale = 1.0 + f64::from(i % 12);
                let logits: Vec<f64> = (0..50).map(|_| (next() - 0.5) * 2.0 * scale).collect();
                row(&logits, (next() * 50.0) as usize, 20)
            })
            .collect();
        (rows, (0..60).map(|i| i / 10).collect())
    }

    /// What the gate kernel computes, from its parameter table alone.
    fn kernel(g: &GateParams, row: &RowStats) -> f32 {
        let (ce, h) = (row.ce, row.entropy_top_k / g.normalizer);
        g.scale
            * match g.kind {
                0 => 1.0,
                1 => h,
                2 => h.powf(g.exponent),
                3 => 1.0 / (1.0 + (-g.a * (h - g.b)).exp()),
                4 => indicator(h > g.threshold),
                5 => (-ce).exp(),
                6 => (-ce / g.a).exp().max(g.b),
                7 => (g.a + row.entropy_full).powf(g.exponent) * g.b,
                8 => (-ce * row.collision).exp(),
                9 => indicator(ce < g.b),
                10 => indicator(!(row.entropy_top_k <= g.threshold && ce >= g.b)),
                kind => panic!("kind {kind}"),
            }
    }

    fn close(a: f32, b: f32, tolerance: f32) -> bool {
        (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn the_kernel_parameters_and_the_readable_definition_give_the_same_weight() {
        let (rows, sequences) = sample();
        for objective in everything() {
            let batch = objective.batch(&rows, &sequences, 50).unwrap();
            let params = objective.gate_params(&batch);
            for row in &rows {
                let (a, b) = (objective.weight(row, &batch), kernel(&params, row));
                assert!(close(a, b, 1e-6), "{objective:?}: {a} against {b} for {row:?}");
            }
        }
    }

    #[test]
    fn objectives_without_batch_statistics_have_the_same_weights_with_neutral_ones() {
        let (rows, sequences) = sample();
        for objective in everything().into_iter().filter(|o| !o.needs_batch()) {
            let (with, without) = (objective.batch(&rows, &sequences, 50).unwrap(), objective.without_batch(50));
            assert_eq!(objective.gate_params(&with), objective.gate_params(&without), "{objective:?}");
        }
        let needing: Vec<_> = everything().into_iter().filter(Objective::needs_batch).map(|o| o.method()).collect();
        assert_eq!(needing, [Method::MaskedSft, Method::Talr, Method::Mile, Method::Eaft]);
    }

    #[test]
    fn the_gradient_of_every_value_is_its_weight_times_that_of_the_cross_entropy() {
        let (rows, sequences) = sample();
        for objective in everything() {
            let batch = objective.batch(&rows, &sequences, 50).unwrap();
            for row in rows.iter().filter(|r| r.ce < 8.0) {
                // Move the label logit only through ce, holding the detached statistics: d value / d ce = weight, where
                // weight * ce has its weight held too.
                let weight = f64::from(objective.weight(row, &batch));
                let (ce, step) = (f64::from(row.ce), 1e-3);
                let value = |ce: f64| match objective {
                    Objective::Deft => {
                        let a = f64::from(row.collision);
                        (1.0 - (-ce * a).exp()) / a
                    }
                    _ => weight * ce,
                };
                assert!(close(value(ce) as f32, objective.loss(row, &batch), 2e-6), "{objective:?}");
                let slope = (value(ce + step) - value(ce - step)) / (2.0 * step);
                assert!((slope - weight).abs() <= 1e-5, "{objective:?}: slope {slope}, weight {weight}");
            }
        }
    }

    #[test]
    fn an_exponent_of_zero_is_sft_to_the_bit_even_for_rows_without_entropy() {
        let zero = eaft(Gate::Power { exponent: 0.0 });
        let batch = zero.without_batch(50);
        assert_eq!(zero.gate_params(&batch), Objective::Sft.gate_params(&batch));
        for row in [plain(3.25, 0.0), plain(1e-7, 2.0)] {
            assert_eq!(zero.weight(&row, &batch), 1.0);
            assert_eq!(zero.loss(&row, &batch).to_bits(), Objective::Sft.loss(&row, &batch).to_bits());
        }
    }

    #[test]
    fn a_flat_row_has_gate_one_and_ln_20_over_3_under_the_constant_and_nats_without_normaliser() {
        let flat = row(&[0.0; 50], 7, 20);
        for (normalizer, expected) in
            [(Normalizer::LnK, 1.0), (Normalizer::Const3, 0.998_577), (Normalizer::None, 2.995_732)]
        {
            let objective = Objective::Eaft { top_k: 20, normalizer, gate: Gate::Power { exponent: 1.0 } };
            let weight = objective.weight(&flat, &objective.without_batch(50));
            assert!(close(weight, expected, 1e-6), "{normalizer}: {weight}");
        }
    }

    #[test]
    fn k_is_bounded_by_the_vocabulary_and_k_equal_to_it_is_the_full_entropy_over_ln_v() {
        assert_eq!(Normalizer::LnK.value(20, 7), 7f32.ln());
        assert_eq!(Normalizer::Const3.value(20, 7), 3.0);
        assert_eq!(Normalizer::LnK.value(20, 1), 1.0);
        let logits: Vec<f64> = (0..20).map(|i| f64::from(i) * 0.3).collect();
        let whole = row(&logits, 3, 20);
        let objective = eaft(Gate::Power { exponent: 1.0 });
        let weight = objective.weight(&whole, &objective.without_batch(20));
        assert!(close(weight, whole.entropy_full / 20f32.ln(), 1e-6));
    }

    #[test]
    fn a_one_hot_row_has_gate_exactly_zero_and_never_minus_zero() {
        let mut logits = [-200.0; 30];
        logits[4] = 200.0;
        let sure = row(&logits, 4, 20);
        for exponent in [0.5, 1.0, 2.0] {
            let weight = eaft(Gate::Power { exponent }).weight(&sure, &BatchStats::neutral(30));
            assert_eq!(weight.to_bits(), 0, "exponent {exponent}");
        }
        assert_eq!(eaft(Gate::Power { exponent: 1.0 }).loss(&sure, &BatchStats::neutral(30)), 0.0);
    }

    #[test]
    fn the_sigmoid_gate_is_one_half_at_its_midpoint() {
        let objective = eaft(Gate::Sigmoid { steepness: 30.0, midpoint: 0.17 });
        let at = |h: f32| objective.weight(&plain(1.0, h * 20f32.ln()), &BatchStats::neutral(50));
        assert!(close(at(0.17), 0.5, 1e-5));
        assert!(close(at(0.0), 1.0 / (1.0 + 5.1f32.exp()), 1e-5));
        assert!(close(at(1.0), 1.0, 1e-6));
    }

    #[test]
    fn a_percentile_is_one_of_the_values_and_its_bottom_share_is_at_or_below_it() {
        let values: Vec<f32> = (1..=20).rev().map(|i| i as f32).collect();
        assert_eq!(quantile(values.clone(), 15.0), 3.0);
        assert_eq!(quantile(values.clone(), 15.1), 4.0);
        assert_eq!(quantile(values.clone(), 100.0), 20.0);
        assert_eq!(quantile(values, 0.0), f32::NEG_INFINITY);
        assert_eq!(quantile(vec![], 15.0), f32::NEG_INFINITY);
        assert_eq!(quantile((1..=100).map(|i| i as f32).collect(), 7.0), 7.0);
    }

    #[test]
    fn the_hard_gate_drops_the_lowest_fifteen_percent_by_entropy_and_keeps_strictly_more() {
        let rows: Vec<_> = (0..20).map(|i| plain(if i < 10 { 0.01 } else { 9.0 }, i as f32 * 0.1)).collect();
        let objective = eaft(Gate::Hard { percentile: 15.0 });
        let batch = objective.batch(&rows, &[0; 20], 50).unwrap();
        let weights: Vec<_> = rows.iter().map(|r| objective.weight(r, &batch)).collect();
        assert_eq!(weights[..3], [0.0; 3]);
        assert_eq!(weights[3..], [1.0; 17]);

        let equal = vec![plain(1.0, 0.7); 8];
        let batch = objective.batch(&equal, &[0; 8], 50).unwrap();
        assert!(equal.iter().all(|r| objective.weight(r, &batch) == 0.0), "strict: equal entropies are all dropped");
        let keep_all = eaft(Gate::Hard { percentile: 0.0 });
        let batch = keep_all.batch(&equal, &[0; 8], 50).unwrap();
        assert!(equal.iter().all(|r| keep_all.weight(r, &batch) == 1.0));
    }

    #[test]
    fn the_pilot_mask_drops_only_rows_that_are_lowest_in_both_entropy_and_probability() {
        // Probability falls with ce. Rows 0..3 have the lowest entropy; 2, 3 and 19 the lowest probability.
        let rows: Vec<_> = (0..20)
            .map(|i| {
                let ce = if [2, 3, 19].contains(&i) { 6.0 + i as f32 * 0.1 } else { 0.5 - i as f32 * 0.01 };
                plain(ce, i as f32 * 0.1)
            })
            .collect();
        let objective = Objective::check(&section(Method::MaskedSft)).unwrap();
        let batch = objective.batch(&rows, &[0; 20], 50).unwrap();
        assert!(close(batch.probability_threshold, (-6.2f32).exp(), 1e-6));
        let dropped: Vec<_> = (0..20).filter(|i| objective.weight(&rows[*i], &batch) == 0.0).collect();
        assert_eq!(dropped, [2], "0 and 1 are likely, 3 has the fourth lowest entropy, 19 is uncertain");
    }

    #[test]
    fn dft_is_the_probability_and_profit_keeps_what_is_above_a_tenth() {
        let (likely, unlikely) = (plain(-(0.3f32.ln()), 1.0), plain(-(0.05f32.ln()), 1.0));
        let none = BatchStats::neutral(50);
        assert!(close(Objective::Dft.weight(&likely, &none), 0.3, 1e-6));
        assert!(close(Objective::Dft.loss(&likely, &none), 0.3 * 1.203_972_8, 1e-6));
        let profit = Objective::check(&section(Method::Profit)).unwrap();
        assert_eq!(profit.weight(&likely, &none), 1.0);
        assert_eq!(profit.weight(&unlikely, &none), 0.0);
        let all = Objective::Profit { threshold: 0.0 };
        assert_eq!(all.weight(&plain(60.0, 1.0), &none), 1.0, "threshold 0 keeps every token");
    }

    #[test]
    fn talr_takes_tau_from_the_median_sequence_and_floors_it_and_the_weight() {
        let objective = Objective::check(&section(Method::Talr)).unwrap();
        let rows = [plain(1.0, 1.0), plain(3.0, 1.0), plain(4.0, 1.0), plain(9.0, 1.0)];
        let batch = objective.batch(&rows, &[7, 7, 3, 9], 50).unwrap();
        assert_eq!(batch.tau, 4.0, "means are 2, 4 and 9");
        assert_eq!(objective.batch(&rows[..3], &[7, 7, 3], 50).unwrap().tau, 3.0, "of two, the middle");
        assert!(close(objective.weight(&rows[1], &batch), (-0.75f32).exp(), 1e-6));
        assert_eq!(objective.weight(&plain(400.0, 1.0), &batch), 0.01);
        let certain = [plain(0.0, 0.0)];
        let batch = objective.batch(&certain, &[0], 50).unwrap();
        assert_eq!(batch.tau, TALR_TAU_MIN);
        assert_eq!(objective.weight(&certain[0], &batch), 1.0);
    }

    #[test]
    fn mile_weights_have_mean_one_and_grow_with_the_full_entropy() {
        let (rows, sequences) = sample();
        let objective = Objective::check(&section(Method::Mile)).unwrap();
        let batch = objective.batch(&rows, &sequences, 50).unwrap();
        let mean = rows.iter().map(|r| objective.weight(r, &batch)).sum::<f32>() / rows.len() as f32;
        assert!(close(mean, 1.0, 1e-5), "{mean}");
        assert!(objective.weight(&plain(1.0, 2.0), &batch) > objective.weight(&plain(1.0, 1.0), &batch));
        let flat = Objective::Mile { sigma: 0.0, gamma: 1.0 };
        let batch = flat.batch(&[plain(0.0, 0.0)], &[0], 50).unwrap();
        assert_eq!(flat.weight(&plain(0.0, 0.0), &batch), 0.0, "no entropy at all is weight 0 and not NaN");
    }

    #[test]
    fn deft_approaches_the_cross_entropy_for_flat_rows_and_one_minus_p_for_sure_ones() {
        let none = BatchStats::neutral(50);
        let flat = RowStats { collision: 1e-6, ..plain(2.0, 3.0) };
        assert!(close(Objective::Deft.loss(&flat, &none), 2.0, 1e-5));
        let sure = RowStats { collision: 1.0, ..plain(2.0, 0.0) };
        assert!(close(Objective::Deft.loss(&sure, &none), 1.0 - (-2f32).exp(), 1e-6));
        assert!(close(Objective::Deft.weight(&sure, &none), (-2f32).exp(), 1e-6));
    }

    #[test]
    fn an_empty_batch_gives_neutral_statistics() {
        for objective in everything() {
            let batch = objective.batch(&[], &[], 50).unwrap();
            let params = objective.gate_params(&batch);
            assert!(kernel(&params, &plain(1.0, 1.0)).is_finite(), "{objective:?}");
            let GateParams { exponent, normalizer, a, b, threshold, scale, .. } = params;
            assert!([exponent, normalizer, a, b, threshold, scale].iter().all(|v| v.is_finite()), "{params:?}");
        }
        assert_eq!(conflict_share_quantile(&[]), 0.0);
    }

    #[test]
    fn a_row_that_is_not_finite_is_named_and_never_enters_a_threshold() {
        let mut rows = vec![plain(1.0, 1.0); 5];
        rows[3].ce = f32::INFINITY;
        let objective = Objective::check(&section(Method::MaskedSft)).unwrap();
        let error = objective.batch(&rows, &[0; 5], 50).unwrap_err();
        assert!(matches!(error, Error::NonFinite { row: 3, .. }), "{error}");
        assert!(matches!(objective.batch(&rows, &[0; 4], 50), Err(Error::Shape { .. })));
        for poisoned in [f32::NAN, f32::INFINITY] {
            assert!(!RowStats { entropy_full: poisoned, ..plain(1.0, 1.0) }.is_finite());
        }
    }

    #[test]
    fn every_value_out_of_range_is_reported_at_once_and_k_of_one_says_why() {
        let bad = ObjectiveSection {
            top_k: 1,
            exponent: f64::NAN,
            gate: GateShape::Power,
            percentile: 0.15,
            threshold: 1.5,
            w_min: -0.1,
            tau: Some(0.0),
            ..section(Method::Eaft)
        };
        let problems = Objective::check(&bad).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|p| p.field).collect();
        assert_eq!(fields, ["top_k", "exponent", "percentile", "w_min", "threshold", "tau"]);
        assert!(problems[0].problem.contains("entropy of 0"));
        assert!(problems[2].problem.contains("write 15"));
        for (top_k, good) in [(0, false), (2, true), (64, true), (65, false)] {
            assert_eq!(Objective::check(&ObjectiveSection { top_k, ..section(Method::Eaft) }).is_ok(), good);
        }
        for (exponent, good) in [(-1.0, false), (0.0, true), (3.0, true), (f64::INFINITY, false), (1e300, false)] {
            let s = ObjectiveSection { exponent, gate: GateShape::Power, ..section(Method::Eaft) };
            assert_eq!(Objective::check(&s).is_ok(), good, "{exponent}");
        }
    }

    #[test]
    fn an_exponent_that_the_gate_would_ignore_is_refused() {
        let s = ObjectiveSection { exponent: 2.0, gate: GateShape::Linear, ..section(Method::Eaft) };
        assert!(Objective::from_section(&s).unwrap_err().to_string().contains("gate = \"power\" only"));
    }

    #[test]
    fn a_confident_conflict_is_unlikely_and_certain_at_once() {
        assert!(plain(5.0, 0.2).is_conflict());
        assert!(!plain(5.0, 1.2).is_conflict(), "uncertain");
        assert!(!plain(0.1, 0.2).is_conflict(), "likely");
        let mut rows = vec![plain(0.1, 2.0); 18];
        rows.extend([plain(7.0, 0.1), plain(8.0, 0.1)]);
        // Strict, so that the 18 equal rows at the percentile itself do not count.
        assert!((conflict_share_quantile(&rows) - 0.1).abs() <= 1e-12);
    }

    #[test]
    fn full_entropy_is_never_below_the_binary_entropy_of_the_label() {
        let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        for row in sample().0 {
            let p = f64::from(row.p());
            assert!(f64::from(row.entropy_full) >= term(p) + term(1.0 - p) - 1e-5, "{row:?}");
        }
    }
}
