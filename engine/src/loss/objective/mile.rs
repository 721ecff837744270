//! MiLe loss (arXiv 2310.19531): weight `(sigma + H)^gamma` over its mean in the batch, with the full entropy `H`.

use super::rule::{BatchStats, GateParams, Rule, gate, kind};
use crate::kernels::row_stats::RowStats;
use crate::settings::{Range, settings};

settings! {
    /// Entropy-weighted fine-tuning whose weights are 1 on average over the batch.
    pub struct Mile in "objective": Copy {
        /// Added to the entropy, in nats.
        sigma: f64 = 1.0, range = Range::at_least(0.0).single(), used = &[("method", &["mile"])];
        /// Exponent of the entropy: larger prefers unsure tokens more.
        gamma: f64 = 1.0, range = Range::at_least(0.0).single(), used = &[("method", &["mile"])];
    }
}

impl Mile {
    fn raw(&self, row: &RowStats) -> f32 {
        (self.sigma as f32 + row.entropy_full).powf(self.gamma as f32)
    }
}

impl Rule for Mile {
    fn needs_batch(&self) -> bool {
        true
    }

    fn gather(&self, rows: &[RowStats], _: &[u32], batch: &mut BatchStats) {
        let sum: f64 = rows.iter().map(|r| f64::from(self.raw(r))).sum();
        let mean = (sum / rows.len() as f64) as f32;
        // sigma = 0 and one-hot rows only: every weight is 0, whatever it is divided by.
        batch.mile_mean = if mean > 0.0 { mean } else { 1.0 };
    }

    fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        self.raw(row) / batch.mile_mean
    }

    fn gate(&self, batch: &BatchStats) -> GateParams {
        GateParams { a: self.sigma as f32, b: 1.0 / batch.mile_mean, exponent: self.gamma as f32, ..gate(kind::MILE) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{close, gathered, plain, sample};
    use super::*;

    #[test]
    fn weights_have_mean_one_and_grow_with_the_full_entropy() {
        let (rows, sequences) = sample();
        let objective = Mile::default();
        let batch = gathered(&objective, &rows, &sequences);
        let mean = rows.iter().map(|r| objective.weight(r, &batch)).sum::<f32>() / rows.len() as f32;
        assert!(close(mean, 1.0, 1e-5), "{mean}");
        assert!(objective.weight(&plain(1.0, 2.0), &batch) > objective.weight(&plain(1.0, 1.0), &batch));
        let flat = Mile { sigma: 0.0, gamma: 1.0 };
        let batch = gathered(&flat, &[plain(0.0, 0.0)], &[0]);
        assert_eq!(flat.weight(&plain(0.0, 0.0), &batch), 0.0, "no entropy at all is weight 0 and not NaN");
    }
}
