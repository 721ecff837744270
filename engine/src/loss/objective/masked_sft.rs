//! The pilot's mask (arXiv 2601.02151, section 3.2): plain fine-tuning without the tokens that are lowest in the batch in
//! both entropy and probability.

use super::quantile::{quantile, refuse_fraction};
use super::rule::{BatchStats, GateParams, Rule, finite, gate, indicator, kind};
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;
use crate::settings::{Range, settings};

settings! {
    /// The two edges of the mask.
    pub struct Edges in "objective": Copy {
        /// Lowest share of the batch by entropy that is masked where the probability is low too, in percent.
        entropy_percentile: f64 = 15.0, range = Range::within(0.0, 100.0), hint = " (percent)",
            refuse = refuse_fraction, used = &[("method", &["masked_sft"])];
        /// Lowest share of the batch by label probability that is masked where the entropy is low too, in percent.
        probability_percentile: f64 = 15.0, range = Range::within(0.0, 100.0), hint = " (percent)",
            refuse = refuse_fraction, used = &[("method", &["masked_sft"])];
    }
}

/// Weight 0 in the joint lowest corner of entropy and probability, else 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskedSft {
    /// Tokens of the entropy that is ranked.
    pub selection: Selection,
    /// Where the corner ends.
    pub edges: Edges,
}

impl Rule for MaskedSft {
    fn needs_batch(&self) -> bool {
        true
    }

    fn top_k(&self) -> Option<Selection> {
        Some(self.selection)
    }

    fn gather(&self, rows: &[RowStats], _: &[u32], batch: &mut BatchStats) {
        let Edges { entropy_percentile, probability_percentile } = self.edges;
        batch.entropy_threshold = quantile(rows.iter().map(|r| r.entropy_top_k).collect(), entropy_percentile);
        // The lowest probabilities are the highest cross entropies; the mirrored values keep one definition of the
        // percentile.
        let threshold = -quantile(rows.iter().map(|r| -r.ce).collect(), probability_percentile);
        // A device's logarithm may round the percentile's own row to the other side: WGSL allows it 2^-21.
        batch.ce_threshold = threshold - threshold.abs().max(1.0) * 2e-6;
        batch.probability_threshold = match batch.ce_threshold.is_finite() {
            true => (-batch.ce_threshold).exp(),
            false => f32::NEG_INFINITY,
        };
    }

    fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        indicator(!(row.entropy_top_k <= batch.entropy_threshold && row.ce >= batch.ce_threshold))
    }

    fn gate(&self, batch: &BatchStats) -> GateParams {
        GateParams {
            threshold: finite(batch.entropy_threshold),
            a: finite(batch.probability_threshold),
            b: finite(batch.ce_threshold),
            ..gate(kind::MASKED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{close, gathered, plain};
    use super::*;

    #[test]
    fn only_rows_that_are_lowest_in_both_entropy_and_probability_are_dropped() {
        // Probability falls with ce. Rows 0..3 have the lowest entropy; 2, 3 and 19 the lowest probability.
        let rows: Vec<_> = (0..20)
            .map(|i| {
                let ce = if [2, 3, 19].contains(&i) { 6.0 + i as f32 * 0.1 } else { 0.5 - i as f32 * 0.01 };
                plain(ce, i as f32 * 0.1)
            })
            .collect();
        let objective = MaskedSft { selection: Selection::Top(20), edges: Edges::default() };
        let batch = gathered(&objective, &rows, &[0; 20]);
        assert!(close(batch.probability_threshold, (-6.2f32).exp(), 1e-6));
        let dropped: Vec<_> = (0..20).filter(|i| objective.weight(&rows[*i], &batch) == 0.0).collect();
        assert_eq!(dropped, [2], "0 and 1 are likely, 3 has the fourth lowest entropy, 19 is uncertain");
    }
}
