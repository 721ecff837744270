//! Plain fine-tuning: every token has the same weight, 1 or a scale.
//!
//! With a scale it is a control: the step of a gated objective without its selection. `gate_mean` takes for the scale of every
//! token the mean of EAFT's gate (as the keys of that gate say) over the trained tokens of the same optimiser batch, so that
//! the weights of a step sum up to what EAFT's would.

use super::eaft::Eaft;
use super::rule::{BatchStats, GateParams, Rule, gate, kind};
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;
use crate::settings::{NumberOr, Range, choice, settings};

choice! {
    /// What the scale may follow.
    pub enum ScaleBy {
        /// Every token of a batch weighs what EAFT's gate is on average over it: its step without its selection.
        GateMean = "gate_mean" as "EAFT's mean gate",
    }
}

settings! {
    /// The scale of plain fine-tuning.
    pub struct Scale in "objective": Copy {
        /// Weight of every token, or gate_mean: the mean over the batch of the gate that EAFT would give with the keys below.
        scale: NumberOr<f64, ScaleBy> = NumberOr::Number(1.0), range = Range::above(0.0).single(),
            used = &[("method", &["sft"])], label = "scale";
    }
}

/// Weight `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sft {
    /// The weight of every token.
    pub scale: Scale,
    /// The gate whose mean the weight may be.
    pub eaft: Eaft,
}

impl Sft {
    fn scale(&self, batch: &BatchStats) -> f32 {
        match self.scale.scale {
            NumberOr::Number(scale) => scale as f32,
            NumberOr::Named(ScaleBy::GateMean) => batch.gate_mean,
        }
    }
}

impl Rule for Sft {
    fn needs_batch(&self) -> bool {
        matches!(self.scale.scale, NumberOr::Named(ScaleBy::GateMean))
    }

    fn top_k(&self) -> Option<Selection> {
        self.needs_batch().then(|| self.eaft.top_k()).flatten()
    }

    fn gather(&self, rows: &[RowStats], sequences: &[u32], batch: &mut BatchStats) {
        if self.needs_batch() {
            self.eaft.gather(rows, sequences, batch);
            let sum: f64 = rows.iter().map(|row| f64::from(self.eaft.weight(row, batch))).sum();
            batch.gate_mean = (sum / rows.len() as f64) as f32;
        }
    }

    fn weight(&self, _: &RowStats, batch: &BatchStats) -> f32 {
        self.scale(batch)
    }

    fn gate(&self, batch: &BatchStats) -> GateParams {
        GateParams { scale: self.scale(batch), ..gate(kind::SFT) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::eaft::GateShape;
    use super::super::samples::{close, gathered, plain, sample};
    use super::*;

    fn with(scale: NumberOr<f64, ScaleBy>, gate: GateShape) -> Sft {
        Sft { scale: Scale { scale }, eaft: Eaft { gate, ..Eaft::default() } }
    }

    #[test]
    fn a_constant_scale_is_the_weight_of_every_token_and_one_is_plain_fine_tuning_to_the_bit() {
        let (none, row) = (BatchStats::neutral(50), plain(3.25, 0.2));
        let third = with(NumberOr::Number(0.3), GateShape::Linear);
        assert_eq!((third.weight(&row, &none), third.loss(&row, &none)), (0.3, 0.3 * 3.25));
        assert_eq!(Rule::gate(&Sft::default(), &none), gate(kind::SFT));
        assert_eq!(Sft::default().loss(&row, &none).to_bits(), 3.25f32.to_bits());
    }

    #[test]
    fn gate_mean_gives_every_token_the_mean_that_eaft_gives_the_batch() {
        let (rows, sequences) = sample();
        for shape in [GateShape::Linear, GateShape::Sigmoid, GateShape::Hard] {
            let (sft, eaft) =
                (with(NumberOr::Named(ScaleBy::GateMean), shape), Eaft { gate: shape, ..Eaft::default() });
            assert!(sft.needs_batch() && sft.top_k() == eaft.top_k());
            let (own, of_eaft) = (gathered(&sft, &rows, &sequences), gathered(&eaft, &rows, &sequences));
            let sum = |rule: &dyn Rule, batch| rows.iter().map(|row| rule.weight(row, batch)).sum::<f32>();
            let (ours, eafts) = (sum(&sft, &own), sum(&eaft, &of_eaft));
            assert!(eafts > 1.0 && close(ours, eafts, 1e-5), "{shape}: {ours} and {eafts}");
            let weights: Vec<_> = rows.iter().map(|row| sft.weight(row, &own)).collect();
            assert!(weights.windows(2).all(|two| two[0] == two[1]));
        }
    }
}
