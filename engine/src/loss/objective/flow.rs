//! FLOW (arXiv 2502.02797): every token of a sample has the weight `exp(-L / tau)`, L being the mean cross entropy of the
//! sample under the untouched model and tau the median of L over all samples. Measured once, before the first step.
//!
//! Where the source is silent: a sample is a document as it is trained, cut off where it is too long; one without trained tokens
//! has weight 0 and no part in the median; tau is at least 1e-6. The weights are not normalised, as in the published code.

use super::quantile::median;
use super::rule::{BatchStats, GateParams, Rule, gate, kind};
use super::talr::TAU_MIN;
use crate::kernels::row_stats::RowStats;

/// The weight of a sample, which its rows alone do not tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow;

impl Rule for Flow {
    fn weighs_samples(&self) -> bool {
        true
    }

    /// Of a row whose sample was not weighed.
    fn weight(&self, _: &RowStats, _: &BatchStats) -> f32 {
        1.0
    }

    fn gate(&self, _: &BatchStats) -> GateParams {
        gate(kind::SFT)
    }
}

/// The weight of each sample from its mean cross entropy under the untouched model, none where nothing of it is trained.
pub fn weights(losses: &[Option<f64>]) -> Vec<f32> {
    let known: Vec<f64> = losses.iter().copied().flatten().collect();
    if known.is_empty() {
        return vec![0.0; losses.len()];
    }
    let tau = median(known).max(f64::from(TAU_MIN));
    losses.iter().map(|loss| loss.map_or(0.0, |loss| (-loss / tau).exp() as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::close;
    use super::*;

    #[test]
    fn the_median_sample_weighs_one_over_e_easier_ones_more_and_one_without_trained_tokens_nothing() {
        let weights = weights(&[Some(2.0), None, Some(4.0), Some(0.0), Some(8.0), Some(1.0)]);
        let want = [(-1.0f32).exp(), 0.0, (-2.0f32).exp(), 1.0, (-4.0f32).exp(), (-0.5f32).exp()];
        assert!(weights.iter().zip(want).all(|(got, want)| close(*got, want, 1e-6)), "{weights:?}");
    }

    #[test]
    fn samples_that_cost_nothing_weigh_one_and_no_samples_weigh_nothing() {
        assert_eq!(weights(&[Some(0.0), Some(0.0)]), [1.0, 1.0]);
        assert_eq!(weights(&[None, None]), [0.0, 0.0]);
        assert!(weights(&[]).is_empty());
    }
}
