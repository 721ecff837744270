//! TALR (arXiv 2509.20758): weight `max(exp(-ce / tau), w_min)`, tau being the median over the batch's sequences of their
//! mean cross entropy.
//!
//! Where the source is silent: weights are not normalised over the batch, an even number of sequences has the mean of the
//! two middle ones as its median, and tau is at least 1e-6.

use super::quantile::median;
use super::rule::{BatchStats, GateParams, Rule, gate, kind};
use crate::kernels::row_stats::RowStats;
use crate::settings::{Range, settings};

/// Smallest tau that a cross entropy is divided by.
pub const TAU_MIN: f32 = 1e-6;

settings! {
    /// Token-adaptive loss reweighting.
    pub struct Talr in "objective": Copy {
        /// Temperature in nats: tokens of a larger loss count less.
        tau: Option<f64> = None, range = Range::at_least(1e-6), hint = "; leave it out for the batch's median",
            derived = "the median over the batch's documents of their mean cross entropy",
            used = &[("method", &["talr"])];
        /// Floor of the weight: no token counts less than this.
        w_min: f64 = 0.01, range = Range::within(0.0, 1.0), label = "floor", used = &[("method", &["talr"])];
    }
}

impl Rule for Talr {
    fn needs_batch(&self) -> bool {
        self.tau.is_none()
    }

    fn fix(&self, batch: &mut BatchStats) {
        if let Some(tau) = self.tau {
            batch.tau = (tau as f32).max(TAU_MIN);
        }
    }

    fn gather(&self, rows: &[RowStats], sequence_of_row: &[u32], batch: &mut BatchStats) {
        if self.tau.is_none() {
            batch.tau = (median_of_means(rows, sequence_of_row) as f32).max(TAU_MIN);
        }
    }

    fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        (-row.ce / batch.tau).exp().max(self.w_min as f32)
    }

    fn gate(&self, batch: &BatchStats) -> GateParams {
        GateParams { a: batch.tau, b: self.w_min as f32, ..gate(kind::TALR) }
    }
}

/// The median over sequences of each one's mean cross entropy. Summed in f64, so that it does not depend on the order in
/// which rows arrive.
fn median_of_means(rows: &[RowStats], sequence_of_row: &[u32]) -> f64 {
    let mut sums = std::collections::BTreeMap::<u32, (f64, u64)>::new();
    for (row, &sequence) in rows.iter().zip(sequence_of_row) {
        let (sum, count) = sums.entry(sequence).or_default();
        *sum += f64::from(row.ce);
        *count += 1;
    }
    median(sums.values().map(|(sum, count)| sum / *count as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{close, gathered, plain};
    use super::*;

    #[test]
    fn tau_is_that_of_the_median_sequence_and_it_and_the_weight_have_floors() {
        let objective = Talr::default();
        let rows = [plain(1.0, 1.0), plain(3.0, 1.0), plain(4.0, 1.0), plain(9.0, 1.0)];
        let batch = gathered(&objective, &rows, &[7, 7, 3, 9]);
        assert_eq!(batch.tau, 4.0, "means are 2, 4 and 9");
        assert_eq!(gathered(&objective, &rows[..3], &[7, 7, 3]).tau, 3.0, "of two, the middle");
        assert!(close(objective.weight(&rows[1], &batch), (-0.75f32).exp(), 1e-6));
        assert_eq!(objective.weight(&plain(400.0, 1.0), &batch), 0.01);
        let certain = [plain(0.0, 0.0)];
        let batch = gathered(&objective, &certain, &[0]);
        assert_eq!(batch.tau, TAU_MIN);
        assert_eq!(objective.weight(&certain[0], &batch), 1.0);
    }
}
