//! Dynamic fine-tuning (arXiv 2508.05629): weight p.

use super::rule::{BatchStats, GateParams, Rule, gate, kind};
use crate::kernels::row_stats::RowStats;

/// Weight `p`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dft;

impl Rule for Dft {
    fn weight(&self, row: &RowStats, _: &BatchStats) -> f32 {
        row.p()
    }

    fn gate(&self, _: &BatchStats) -> GateParams {
        gate(kind::DFT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{close, plain};
    use super::*;

    #[test]
    fn the_weight_is_the_labels_probability() {
        let likely = plain(-(0.3f32.ln()), 1.0);
        let none = BatchStats::neutral(50);
        assert!(close(Dft.weight(&likely, &none), 0.3, 1e-6));
        assert!(close(Dft.loss(&likely, &none), 0.3 * 1.203_972_8, 1e-6));
    }
}
