//! SFT-KL (arXiv 2601.02151, appendix E and F) and ASFT (arXiv 2509.23753): a divergence from the untouched model is added to
//! the cross entropy,
//!
//! ```text
//! loss = sum_t (weight_t ce_t + beta KL_t) / N        SFT-KL: weight 1, ASFT: weight p
//! ```
//!
//! The sources are silent or at odds: the paper names beta = 0.5 alone; ASFT's text says reverse, its code and LLaMA-Factory's
//! (beta 0.1) take the forward divergence KL(untouched || model). Here it is exact, over the whole vocabulary, forward unless
//! asked otherwise, and divided by the trained tokens of the batch like everything else. With an adapter the untouched model is
//! the same one with its adapter off; where all weights are trained it is a second set of them.

use super::rule::{BatchStats, Divergence, GateParams, Rule, gate, kind};
use crate::kernels::reference::Direction;
use crate::kernels::row_stats::RowStats;
use crate::settings::{Range, settings};

settings! {
    /// The divergence from the untouched model.
    pub struct Held in "objective": Copy {
        /// Factor on the divergence from the untouched model, in nats: larger keeps more and learns less.
        beta: Option<f64> = None, range = Range::at_least(0.0).single(), derived = "0.5 for sft_kl, 0.1 for asft",
            used = &[("method", &["sft_kl", "asft"])], aliases = &["kl_coef", "asft_alpha", "lambda"];
        /// Which of the two divergences from the untouched model.
        kl: Direction = Direction::Forward, label = "KL", used = &[("method", &["sft_kl", "asft"])];
    }
}

/// A cross entropy, and the divergence beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beside<R> {
    /// The weight of the cross entropy.
    pub rule: R,
    /// Factor and direction.
    pub held: Held,
    /// The factor where none was given.
    pub beta: f64,
}

impl<R: Rule> Rule for Beside<R> {
    fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        self.rule.weight(row, batch)
    }

    fn gate(&self, batch: &BatchStats) -> GateParams {
        self.rule.gate(batch)
    }

    fn divergence(&self) -> Option<Divergence> {
        let beta = self.held.beta.unwrap_or(self.beta) as f32;
        Some(Divergence { beta, direction: self.held.kl })
    }
}

/// Weight 1, whatever the scale of plain fine-tuning is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plain;

impl Rule for Plain {
    fn weight(&self, _: &RowStats, _: &BatchStats) -> f32 {
        1.0
    }

    fn gate(&self, _: &BatchStats) -> GateParams {
        gate(kind::SFT)
    }
}
