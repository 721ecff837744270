//! What a session tells its face while it works.
//!
//! Place in the flow: every stage -> [events] -> progress bar, `metrics.jsonl`, report, web page. A face translates
//! events and adds nothing; field names are the same in Rust, in JSON lines, in JavaScript and in the report. A step that
//! is not logged emits no event and reads nothing back from the device but its gradient's norm and whether its logits
//! were finite, since a step that is not must be abandoned.

use serde::{Deserialize, Serialize};

pub use crate::eval::perplexity::Evaluation;
use crate::kernels::row_stats::{CONFLICT_ENTROPY, CONFLICT_PROBABILITY, RowStats};
use crate::loss::objective::BatchStats;
use crate::message::{Message, Value, messages};

/// One thing that happened. What differs between the learners of a run comes once for each, in their order. As JSON: an
/// object whose `event` names the variant in snake case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The model is loaded and the first step is next.
    Started {
        /// A learner each.
        learners: Vec<Started>,
    },
    /// A logged step is done.
    Step {
        /// A learner each.
        learners: Vec<StepMetrics>,
    },
    /// The rows of the step that was just told, for a host that shows them. Never JSON: they are many.
    #[serde(skip)]
    Rows(StepRows),
    /// The sets that are measured were.
    Evaluated {
        /// A learner each.
        learners: Vec<Evaluated>,
    },
    /// The entropy-by-probability map of training tokens was taken.
    Landscape {
        /// Before or after training.
        phase: Phase,
        /// A learner each.
        learners: Vec<Landscape>,
    },
    /// A checkpoint is complete on disk.
    Saved {
        /// Steps done.
        step: u64,
        /// Where, as the host names it.
        path: String,
    },
    /// One of the measured steps is the result, and the learner stands there now.
    Selected(Selected),
    /// Something the user should know; the run goes on.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The run is over.
    Finished(Finished),
}

/// First event of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Steps already done: 0, or those of the checkpoint that is resumed.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Device name.
    pub device: String,
    /// Why this device.
    pub why: String,
    /// Model, as the user named it, with its architecture.
    pub model: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// Parameters that are trained.
    pub trainable: u64,
    /// Objective name.
    pub objective: String,
}

messages! {
    snake_case;

    /// What a logged step measured. One line of `metrics.jsonl`.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    pub struct StepMetrics {
        /// Optimiser steps done, from 1.
        pub step: u64,
        /// Trained tokens of this step's whole batch.
        pub tokens: u64,
        /// Gated loss, nats per trained token.
        pub loss: f64,
        /// Ungated cross entropy, nats per trained token: comparable between objectives.
        pub cross_entropy: f64,
        /// Mean weight.
        pub gate_mean: f64,
        /// Share of trained tokens whose weight is below 0.1.
        pub gate_below_0_1: f64,
        /// Share of confident conflicts: label probability below 0.1 and full entropy below 0.5 nats.
        pub conflict_share: f64,
        /// Share of tokens in the batch's lowest 15 % by both label probability and full entropy.
        pub conflict_share_quantile: f64,
        /// Cross entropy of the tokens that the model is sure of now, with a full entropy of at most 0.5 nats, in nats per
        /// token; none where there is none.
        pub sure_cross_entropy: Option<f64>,
        /// Cross entropy of the tokens whose full entropy is at least 2 nats.
        pub open_cross_entropy: Option<f64>,
        /// Learning rate that this step used.
        pub learning_rate: f64,
        /// Global gradient norm before clipping.
        pub gradient_norm: f64,
        /// All tokens through the model, trained or not, per second of this step.
        pub tokens_per_second: f64,
        /// Highest device memory so far, in bytes; 0 where the device does not say.
        pub peak_device_bytes: u64,
        /// Wall time of the run, in seconds, without interruptions and pauses.
        pub seconds: f64,
    }

    /// What is measured besides training, at one moment.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Evaluated {
        /// When.
        pub phase: Phase,
        /// Steps done.
        pub step: u64,
        /// On what was trained for; none where no such set is configured.
        pub target: Option<Evaluation>,
        /// On what should not be forgotten.
        pub general: Option<Evaluation>,
        /// On labels that should not be learned: the lower, the more of the wrong was learned.
        pub wrong: Option<Evaluation>,
    }

    /// Which step's weights are the result of a run that chooses.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Selected {
        /// Steps done by then.
        pub step: u64,
        /// Steps that were made in all.
        pub of: u64,
        /// Why the run ended before its last step; none where it did not.
        pub ended: Option<String>,
    }

    /// Last event of a session.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Finished {
        /// Steps done.
        pub step: u64,
        /// Trained tokens of all steps.
        pub tokens: u64,
        /// Wall time in seconds, without interruptions and pauses.
        pub seconds: f64,
        /// True where the user stopped the run early; it can be resumed.
        pub interrupted: bool,
    }
}

/// What a step saw: the statistics behind its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRows {
    /// Steps done.
    pub step: u64,
    /// Passes over the data that were begun before this step.
    pub epoch: u64,
    /// Where each trained token of the batch stands, in the order of the rows.
    pub places: Vec<TokenPlace>,
    /// A learner each.
    pub learners: Vec<LearnerRows>,
}

/// Where a token stands in the training data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPlace {
    /// Index of its document.
    pub document: u32,
    /// Index of the token in that document.
    pub position: u32,
}

/// The trained tokens of a step as one learner saw them.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnerRows {
    /// Statistics of each.
    pub stats: Vec<RowStats>,
    /// Weight of each, as the device used it.
    pub gates: Vec<f32>,
    /// Statistics of the whole batch that the weights were computed with.
    pub batch: BatchStats,
}

/// When something was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the first step.
    Before,
    /// Between two steps.
    During,
    /// After the last step.
    After,
}

impl Message for Phase {
    #[cfg(test)]
    fn type_name() -> String {
        "(\"before\" | \"during\" | \"after\")".into()
    }

    fn into_value(self) -> Value {
        let name = match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        };
        Value::Text(name.into())
    }
}

/// Counts of training tokens by label probability and full entropy, with the weight each cell got on average.
///
/// Cells are [`Landscape::PROBABILITY_BINS`] by [`Landscape::ENTROPY_BINS`], `[entropy][probability]` row by row from
/// (0, 0). Both edges of the confident-conflict region are cell edges. Entropies of [`Landscape::ENTROPY_MAX`] and more
/// are in the last row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Landscape {
    /// Tokens per cell.
    pub counts: Vec<u64>,
    /// Sum of weights per cell.
    pub gate_sums: Vec<f64>,
    /// Sum of weight times [`RowStats::gradient_norm`] per cell; empty in files of versions that did not count it.
    #[serde(default)]
    pub gradient_sums: Vec<f64>,
    /// Tokens that are confident conflicts.
    pub conflicts: u64,
}

impl Default for Landscape {
    fn default() -> Self {
        let cells = Self::PROBABILITY_BINS * Self::ENTROPY_BINS;
        Self { counts: vec![0; cells], gate_sums: vec![0.0; cells], gradient_sums: vec![0.0; cells], conflicts: 0 }
    }
}

impl Landscape {
    /// Columns; each is 0.025 wide.
    pub const PROBABILITY_BINS: usize = 40;
    /// Rows; each is 0.1 nats high.
    pub const ENTROPY_BINS: usize = 40;
    /// Upper end of the entropy axis, in nats.
    pub const ENTROPY_MAX: f32 = 4.0;

    /// Adds one token.
    pub fn add(&mut self, row: &RowStats, weight: f32) {
        // `as usize` saturates: a NaN or a negative rounding error lands in cell 0, infinity in the last.
        let column = (row.p() * Self::PROBABILITY_BINS as f32) as usize;
        let line = (row.entropy_full / Self::ENTROPY_MAX * Self::ENTROPY_BINS as f32) as usize;
        let cell = line.min(Self::ENTROPY_BINS - 1) * Self::PROBABILITY_BINS + column.min(Self::PROBABILITY_BINS - 1);
        self.counts[cell] += 1;
        self.gate_sums[cell] += f64::from(weight);
        self.gradient_sums[cell] += f64::from(weight * row.gradient_norm());
        self.conflicts += u64::from(row.is_conflict());
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Count and mean weight of a cell; none where it is empty, or where the vectors of a map that was read from a file
    /// are too short.
    pub fn cell(&self, entropy_bin: usize, probability_bin: usize) -> Option<(u64, f64)> {
        let cell = entropy_bin * Self::PROBABILITY_BINS + probability_bin;
        let count = self.counts.get(cell).copied().filter(|count| *count > 0)?;
        Some((count, self.gate_sums.get(cell)? / count as f64))
    }

    /// Mean norm of what a cell's tokens pull at their logits with, weight times gradient of the cross entropy; none where the
    /// cell is empty or it was not counted.
    pub fn gradient(&self, entropy_bin: usize, probability_bin: usize) -> Option<f64> {
        let cell = entropy_bin * Self::PROBABILITY_BINS + probability_bin;
        let count = self.counts.get(cell).copied().filter(|count| *count > 0)?;
        Some(self.gradient_sums.get(cell)? / count as f64)
    }

    /// Share of confident conflicts: label probability below 0.1, full entropy below 0.5 nats.
    pub fn conflict_share(&self) -> f64 {
        self.conflicts as f64 / self.tokens().max(1) as f64
    }

    /// The least full entropy that a label of probability `p` leaves possible, in nats:
    /// `h_b(p) = -p ln p - (1 - p) ln (1 - p)`. No token lies below this curve.
    pub fn lower_bound(p: f64) -> f64 {
        let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        term(p) + term(1.0 - p)
    }

    /// Right and upper edge of the confident-conflict region: (probability, nats).
    pub const CONFLICT_REGION: (f32, f32) = (CONFLICT_PROBABILITY, CONFLICT_ENTROPY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(p: f32, entropy_full: f32) -> RowStats {
        RowStats { ce: -p.ln(), entropy_top_k: 0.0, entropy_tokens: 20, entropy_full, collision: 0.5 }
    }

    #[test]
    fn an_event_is_an_object_that_names_itself_and_reads_back() {
        let events = [
            Event::Step { learners: vec![StepMetrics { step: 3, loss: 1.5, ..StepMetrics::default() }] },
            Event::Evaluated {
                learners: vec![Evaluated {
                    phase: Phase::Before,
                    step: 0,
                    target: Some(Evaluation::from_sum(20.0, 10)),
                    general: None,
                    wrong: Some(Evaluation::from_sum(2.0, 1)),
                }],
            },
            Event::Landscape { phase: Phase::After, learners: vec![Landscape::default()] },
            Event::Saved { step: 3, path: "checkpoints/step-3".into() },
        ];
        let mut names = Vec::new();
        for event in events {
            let json = serde_json::to_value(&event).unwrap();
            names.push(json["event"].as_str().unwrap().to_string());
            assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        }
        assert_eq!(names, ["step", "evaluated", "landscape", "saved"]);
    }

    #[test]
    fn a_line_of_metrics_has_the_fields_that_scripts_read() {
        let json = serde_json::to_value(StepMetrics::default()).unwrap();
        let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        for field in [
            "step",
            "tokens",
            "loss",
            "cross_entropy",
            "gate_mean",
            "gate_below_0_1",
            "conflict_share",
            "conflict_share_quantile",
            "sure_cross_entropy",
            "open_cross_entropy",
            "learning_rate",
            "gradient_norm",
            "tokens_per_second",
            "peak_device_bytes",
            "seconds",
        ] {
            assert!(fields.iter().any(|f| f == field), "{field}");
        }
        assert_eq!(fields.len(), 15);
    }

    #[test]
    fn every_token_lands_in_exactly_one_cell_of_the_landscape() {
        let mut map = Landscape::default();
        for (p, entropy) in [(0.0f32, 0.0), (1.0, 0.0), (0.06, 0.33), (0.51, 99.0), (f32::NAN, 1.04), (0.51, -1e-7)] {
            map.add(&row(p, entropy), 0.5);
        }
        assert_eq!(map.tokens(), 6);
        assert_eq!(map.cell(0, 39), Some((1, 0.5)), "a sure and right token is in the last column");
        assert_eq!(map.cell(3, 2), Some((1, 0.5)));
        assert_eq!(map.cell(39, 20), Some((1, 0.5)));
        assert_eq!(map.cell(5, 5), None);
        // |P - onehot(y)| of p = 0.06 and a collision of 0.5: sqrt(0.94^2 + 0.5 - 0.06^2).
        assert!((map.gradient(3, 2).unwrap() - 0.5 * (0.94_f64.powi(2) + 0.5 - 0.06_f64.powi(2)).sqrt()).abs() < 1e-6);
        assert_eq!(map.gradient(5, 5), None);
        let old = Landscape { gradient_sums: Vec::new(), ..map.clone() };
        assert_eq!((old.gradient(3, 2), old.cell(3, 2)), (None, Some((1, 0.5))));
        assert_eq!(map.conflicts, 2);
        assert!((map.conflict_share() - 2.0 / 6.0).abs() <= 1e-12);
    }

    #[test]
    fn the_lower_bound_is_the_binary_entropy() {
        assert_eq!(Landscape::lower_bound(0.0), 0.0);
        assert_eq!(Landscape::lower_bound(1.0), 0.0);
        assert!((Landscape::lower_bound(0.5) - 2f64.ln()).abs() <= 1e-15);
    }
}
