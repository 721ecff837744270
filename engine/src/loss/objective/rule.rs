//! What every objective is made of: a rule for the weight of a row, and the scalars of a batch that it may read.

pub use crate::kernels::cpu::gate::kind;
pub use crate::kernels::gate::GateParams;
use crate::kernels::reference::Direction;
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;

/// A divergence from the untouched model that is added to each row's loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Factor on it.
    pub beta: f32,
    /// Which it is.
    pub direction: Direction,
}

/// One row of the table: what it makes of a row of logits, given the scalars of the row's batch.
pub trait Rule {
    /// True where no weight is known before the statistics of the whole optimiser batch are.
    fn needs_batch(&self) -> bool {
        false
    }

    /// The tokens whose entropy the weight reads, `None` where it reads none.
    fn top_k(&self) -> Option<Selection> {
        None
    }

    /// The divergence from the untouched model in the loss.
    fn divergence(&self) -> Option<Divergence> {
        None
    }

    /// True where the weight is one of whole samples, measured with the untouched model before the first step.
    fn weighs_samples(&self) -> bool {
        false
    }

    /// True where each row of a batch gets the weight of another one.
    fn is_shuffled(&self) -> bool {
        false
    }

    /// Scalars that are known without any row.
    fn fix(&self, _batch: &mut BatchStats) {}

    /// Scalars of the batch's rows, of which there is at least one; `sequence_of_row[i]` is the document of row `i`.
    fn gather(&self, _rows: &[RowStats], _sequence_of_row: &[u32], _batch: &mut BatchStats) {}

    /// The weight.
    fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32;

    /// What the row adds to the loss before the division by N.
    fn loss(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        self.weight(row, batch) * row.ce
    }

    /// The weight in the form that the device's gate kernel evaluates.
    fn gate(&self, batch: &BatchStats) -> GateParams;
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
    /// Mean of EAFT's gate.
    pub gate_mean: f32,
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
            gate_mean: 1.0,
        }
    }

    /// All of it as numbers, for another engine that looks at the same learner.
    pub fn to_numbers(self) -> [f32; 7] {
        let Self { vocab, entropy_threshold, probability_threshold, ce_threshold, tau, mile_mean, gate_mean } = self;
        // Every vocabulary is below the 2^24 that single precision counts exactly to.
        [vocab as f32, entropy_threshold, probability_threshold, ce_threshold, tau, mile_mean, gate_mean]
    }

    /// What [`BatchStats::to_numbers`] made.
    pub fn from_numbers(numbers: [f32; 7]) -> Self {
        let [vocab, entropy_threshold, probability_threshold, ce_threshold, tau, mile_mean, gate_mean] = numbers;
        let vocab = vocab as usize;
        Self { vocab, entropy_threshold, probability_threshold, ce_threshold, tau, mile_mean, gate_mean }
    }
}

/// Parameters of a kind of gate whose constants are set on top.
pub fn gate(kind: u32) -> GateParams {
    GateParams { rows: 0, kind, exponent: 1.0, normalizer: 1.0, a: 0.0, b: 0.0, threshold: 0.0, scale: 1.0 }
}

/// WGSL lets a compiler assume that there are no infinities: "never" is the largest number instead.
pub fn finite(threshold: f32) -> f32 {
    threshold.clamp(f32::MIN, f32::MAX)
}

/// 1 or 0.
pub fn indicator(keep: bool) -> f32 {
    if keep { 1.0 } else { 0.0 }
}
