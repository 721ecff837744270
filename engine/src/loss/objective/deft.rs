//! DEFT (arXiv 2602.11424): weight `p^a` with `a = sum_v P(v)^2`, value `(1 - p^a) / a`.
//!
//! Its published code adds 1e-6 to the denominator `a`; `a` is at least 1/V, so it is not needed and left out.

use super::rule::{BatchStats, GateParams, Rule, gate, kind};
use crate::kernels::row_stats::RowStats;

/// Weight `p^a`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deft;

impl Rule for Deft {
    fn weight(&self, row: &RowStats, _: &BatchStats) -> f32 {
        (-row.ce * row.collision).exp()
    }

    /// The deformed logarithm, whose derivative is the weight times that of the cross entropy.
    fn loss(&self, row: &RowStats, _: &BatchStats) -> f32 {
        -(-row.ce * row.collision).exp_m1() / row.collision
    }

    fn gate(&self, _: &BatchStats) -> GateParams {
        gate(kind::DEFT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{close, plain};
    use super::*;

    #[test]
    fn the_value_approaches_the_cross_entropy_for_flat_rows_and_one_minus_p_for_sure_ones() {
        let none = BatchStats::neutral(50);
        let flat = RowStats { collision: 1e-6, ..plain(2.0, 3.0) };
        assert!(close(Deft.loss(&flat, &none), 2.0, 1e-5));
        let sure = RowStats { collision: 1.0, ..plain(2.0, 0.0) };
        assert!(close(Deft.loss(&sure, &none), 1.0 - (-2f32).exp(), 1e-6));
        assert!(close(Deft.weight(&sure, &none), (-2f32).exp(), 1e-6));
    }
}
