//! ProFiT (arXiv 2601.09195): weight 1 for tokens above a probability, else 0.

use super::rule::{BatchStats, GateParams, Rule, finite, gate, indicator, kind};
use crate::kernels::row_stats::RowStats;
use crate::settings::{Range, settings};

settings! {
    /// Probability-guided selection.
    pub struct Profit in "objective": Copy {
        /// Tokens at or below this probability are left out.
        threshold: f64 = 0.1, range = Range::within(0.0, 1.0), used = &[("method", &["profit"])];
    }
}

impl Profit {
    /// The threshold as a cross entropy, which is compared: a comparison of `exp` would not decide alike on every device.
    fn most(&self) -> f32 {
        -(self.threshold as f32).ln()
    }
}

impl Rule for Profit {
    fn weight(&self, row: &RowStats, _: &BatchStats) -> f32 {
        indicator(row.ce < self.most())
    }

    fn gate(&self, _: &BatchStats) -> GateParams {
        GateParams { a: self.threshold as f32, b: finite(self.most()), ..gate(kind::PROFIT) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::plain;
    use super::*;

    #[test]
    fn what_is_above_a_tenth_is_kept_and_a_threshold_of_zero_keeps_every_token() {
        let (likely, unlikely) = (plain(-(0.3f32.ln()), 1.0), plain(-(0.05f32.ln()), 1.0));
        let none = BatchStats::neutral(50);
        let profit = Profit::default();
        assert_eq!(profit.weight(&likely, &none), 1.0);
        assert_eq!(profit.weight(&unlikely, &none), 0.0);
        let all = Profit { threshold: 0.0 };
        assert_eq!(all.weight(&plain(60.0, 1.0), &none), 1.0);
    }
}
