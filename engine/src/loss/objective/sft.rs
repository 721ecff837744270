//! Plain fine-tuning: weight 1.

use super::rule::{BatchStats, GateParams, Rule, gate, kind};
use crate::kernels::row_stats::RowStats;

/// Weight 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sft;

impl Rule for Sft {
    fn weight(&self, _: &RowStats, _: &BatchStats) -> f32 {
        1.0
    }

    fn gate(&self, _: &BatchStats) -> GateParams {
        gate(kind::SFT)
    }
}
