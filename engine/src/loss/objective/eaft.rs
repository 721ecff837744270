//! EAFT (arXiv 2601.02151, Eq. 3 and section 5.1): a gate over the entropy of the model's own top K, `h = H_K / normalizer`.
//!
//! | gate | weight |
//! |---|---|
//! | `linear` | h |
//! | `power` | h^exponent; exponent 0 is exactly 1 (0^0 = 1), so the result is SFT to the bit |
//! | `sigmoid` | 1 / (1 + exp(-steepness (h - midpoint))) |
//! | `hard` | 1 if H_K > q_percentile(H_K), else 0 (Eq. 4) |
//!
//! K is a number up to the vocabulary, `full` (all of it: h is the entropy over ln V) or `adaptive`: the fewest most probable
//! tokens that carry a share of the probability, `mass`, less 1e-5 for rounding. Their number differs from row to row, and so
//! does the normaliser ln K. Where a single token carries the share there is no entropy, and the gate is 0.
//!
//! With `gates = "shuffled"` each trained token of an optimiser batch gets the gate of another one: a control with the same
//! gates and no selection. Which one is a function of the run's seed, the step and the tokens' places ([`super::shuffle`]).

use super::quantile::{quantile, refuse_fraction};
use super::rule::{BatchStats, GateParams, Rule, finite, gate, indicator, kind};
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;
use crate::settings::{NumberOr, Problem, Range, Reader, Settings, choice, settings};

/// Smallest K: the entropy of one value is always 0 and ln 1 = 0, so K = 1 would be 0 / 0.
pub const TOP_K_MIN: usize = 2;

choice! {
    /// Shapes of the gate.
    pub enum GateShape {
        /// The weight is the normalised entropy h itself.
        Linear = "linear" as "linear: h",
        /// The weight is h to an exponent: above 1, half-sure tokens count less too.
        Power = "power" as "power: h to an exponent",
        /// The weight is almost 0 below the midpoint and almost 1 above.
        Sigmoid = "sigmoid" as "sigmoid: a soft step",
        /// The lowest entropies of the batch get weight 0, all others 1.
        Hard = "hard" as "hard: a cut",
    }
}

choice! {
    /// How K may be said without a number.
    pub enum KBy {
        /// Entropy of the whole vocabulary.
        Full = "full" as "the whole vocabulary",
        /// Entropy of the fewest tokens that carry the share of the probability that mass says.
        Adaptive = "adaptive" as "as many as carry a share",
    }
}

choice! {
    /// Which token gets which gate.
    pub enum Gates {
        /// Each its own.
        Own = "own" as "each its own",
        /// Each that of another token of the batch, by chance: a control, the same gates without their selection.
        Shuffled = "shuffled" as "shuffled: a control",
    }
}

choice! {
    /// What the top-K entropy is divided by.
    pub enum Normalizer {
        /// Divides the entropy by ln K, so that the gate is at most 1 (the paper's definition); K of each token where it is adaptive.
        LnK = "ln_k" as "ln K",
        /// Divides by 3 whatever K is, like LLaMA-Factory.
        Const3 = "const_3" as "3.0",
        /// Divides by nothing: the gate is in nats, like Axolotl.
        None = "none",
    }
}

impl Normalizer {
    /// The divisor for `top_k` over a vocabulary of `vocab` tokens.
    pub fn value(self, top_k: usize, vocab: usize) -> f32 {
        match self {
            // A vocabulary of one token has entropy 0 and ln 1 = 0; dividing by 1 keeps the gate at 0 instead of NaN.
            Self::LnK if top_k.min(vocab) < 2 => 1.0,
            Self::LnK => (top_k.min(vocab) as f32).ln(),
            Self::Const3 => 3.0,
            Self::None => 1.0,
        }
    }
}

settings! {
    /// The entropy gate.
    pub struct Eaft in "objective": Copy {
        /// Shape of the gate, which makes a token's weight of its entropy.
        gate: GateShape = GateShape::Linear, derived = "linear, or power where an exponent is given",
            used = &[("method", &["eaft"])];
        /// Entropy is taken over so many of the most probable tokens, over all, or over as many as carry a share.
        top_k: NumberOr<usize, KBy> = NumberOr::Number(20), range = Range::at_least(TOP_K_MIN as f64), refuse = refuse_one,
            label = "K", used = &[("method", &["eaft", "masked_sft"])], aliases = &["k"];
        /// Share of the probability that an adaptive K carries.
        mass: f64 = 0.95, range = Range::above(0.0).below(1.0),
            used = &[("method", &["eaft", "masked_sft"]), ("top_k", &["adaptive"])], aliases = &["top_p"];
        /// Exponent of the power gate: 2 and 3 are in the paper, 0 is plain SFT.
        exponent: f64 = 1.0, range = Range::at_least(0.0).single(), derived = "2 with the power gate",
            used = &[("method", &["eaft"]), ("gate", &["power"])], aliases = &["eaft_alpha", "alpha"];
        /// How abrupt the step of the sigmoid gate is: its slope at the midpoint, times four.
        steepness: f64 = 30.0, range = Range::at_least(0.0).single(),
            used = &[("method", &["eaft"]), ("gate", &["sigmoid"])];
        /// Normalised entropy at which the sigmoid gate is one half: 0.17 is 0.51 nats.
        midpoint: f64 = 0.17, range = Range::ANY.single(), used = &[("method", &["eaft"]), ("gate", &["sigmoid"])];
        /// Lowest share of the batch by entropy that the hard gate drops, in percent.
        percentile: f64 = 15.0, range = Range::within(0.0, 100.0), hint = " (percent)", refuse = refuse_fraction,
            used = &[("method", &["eaft"]), ("gate", &["hard"])];
        /// What the entropy is divided by.
        normalizer: Normalizer = Normalizer::LnK, label = "normaliser",
            used = &[("method", &["eaft"]), ("gate", &["linear", "power", "sigmoid"])];
        /// Which token gets which gate.
        gates: Gates = Gates::Own, used = &[("method", &["eaft"])];
    }
}

fn refuse_one(top_k: f64) -> Option<String> {
    (top_k == 1.0).then(|| {
        format!(
            "1 gives an entropy of 0 for every token (and ln 1 = 0 as its normaliser), so nothing would be trained; \
             use {TOP_K_MIN} or more, the paper uses 20"
        )
    })
}

impl Eaft {
    /// Defaults where some keys are given: an exponent alone asks for the power gate, and that gate alone is squared.
    pub(super) fn defaults(reader: &Reader) -> Self {
        let mut base = Self::default();
        if reader.has(Self::SECTION, "exponent") && !reader.has(Self::SECTION, "gate") {
            base.gate = GateShape::Power;
        }
        if reader.given(Self::SECTION, "gate").unwrap_or(base.gate) == GateShape::Power {
            base.exponent = 2.0;
        }
        base
    }

    /// An exponent that the gate would ignore. `linear` is exponent 1.
    pub(super) fn contradiction(&self) -> Option<Problem> {
        (self.exponent != 1.0 && self.gate != GateShape::Power).then(|| Problem {
            key: "exponent",
            problem: format!(
                "{} is read by gate = \"power\" only, but the gate is \"{}\"; set gate = \"power\" or leave exponent out",
                self.exponent, self.gate
            ),
        })
    }

    /// The tokens whose entropy is taken.
    pub fn selection(&self) -> Selection {
        match self.top_k {
            NumberOr::Number(k) => Selection::Top(k),
            NumberOr::Named(KBy::Full) => Selection::Full,
            NumberOr::Named(KBy::Adaptive) => Selection::Share(self.mass as f32),
        }
    }

    /// The divisor, or 0 for that of each row's own K.
    fn normalizer(&self, batch: &BatchStats) -> f32 {
        match (self.selection(), self.normalizer) {
            (Selection::Share(_), Normalizer::LnK) => 0.0,
            (Selection::Top(k), normalizer) => normalizer.value(k, batch.vocab),
            (_, normalizer) => normalizer.value(batch.vocab, batch.vocab),
        }
    }
}

impl Rule for Eaft {
    fn needs_batch(&self) -> bool {
        self.gate == GateShape::Hard || self.is_shuffled()
    }

    fn top_k(&self) -> Option<Selection> {
        Some(self.selection())
    }

    fn is_shuffled(&self) -> bool {
        self.gates == Gates::Shuffled
    }

    fn gather(&self, rows: &[RowStats], _: &[u32], batch: &mut BatchStats) {
        if self.gate == GateShape::Hard {
            batch.entropy_threshold = quantile(rows.iter().map(|r| r.entropy_top_k).collect(), self.percentile);
        }
    }

    fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        let normalizer = match self.normalizer(batch) {
            // Of a single token the entropy is 0, whatever it is divided by.
            0.0 => (row.entropy_tokens.max(2) as f32).ln(),
            fixed => fixed,
        };
        let (h, exponent) = (row.entropy_top_k / normalizer, self.exponent as f32);
        match self.gate {
            GateShape::Linear => h,
            // Not powf: a gate of exponent 0 is the constant 1 even for a row whose statistics are not finite.
            GateShape::Power if exponent == 0.0 => 1.0,
            GateShape::Power if exponent == 1.0 => h,
            GateShape::Power => h.powf(exponent),
            GateShape::Sigmoid => 1.0 / (1.0 + (-(self.steepness as f32) * (h - self.midpoint as f32)).exp()),
            GateShape::Hard => indicator(row.entropy_top_k > batch.entropy_threshold),
        }
    }

    fn gate(&self, batch: &BatchStats) -> GateParams {
        let normalizer = self.normalizer(batch);
        let exponent = self.exponent as f32;
        match self.gate {
            GateShape::Power if exponent == 0.0 => gate(kind::SFT),
            GateShape::Power if exponent != 1.0 => GateParams { normalizer, exponent, ..gate(kind::POWER) },
            GateShape::Linear | GateShape::Power => GateParams { normalizer, ..gate(kind::LINEAR) },
            GateShape::Sigmoid => {
                GateParams { normalizer, a: self.steepness as f32, b: self.midpoint as f32, ..gate(kind::SIGMOID) }
            }
            // The threshold is one of the rows' own entropies: compared in nats, undivided, so that no device rounds that
            // row to the other side.
            GateShape::Hard => GateParams { threshold: finite(batch.entropy_threshold), ..gate(kind::HARD) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{close, gathered, plain, row};
    use super::super::sft::Sft;
    use super::*;

    fn with(gate: GateShape) -> Eaft {
        Eaft { gate, ..Eaft::default() }
    }

    fn power(exponent: f64) -> Eaft {
        Eaft { exponent, ..with(GateShape::Power) }
    }

    #[test]
    fn an_exponent_of_zero_is_sft_to_the_bit_even_for_rows_without_entropy() {
        let (zero, batch) = (power(0.0), BatchStats::neutral(50));
        assert_eq!(Rule::gate(&zero, &batch), Sft::default().gate(&batch));
        for row in [plain(3.25, 0.0), plain(1e-7, 2.0)] {
            assert_eq!(zero.weight(&row, &batch), 1.0);
            assert_eq!(zero.loss(&row, &batch).to_bits(), Sft::default().loss(&row, &batch).to_bits());
        }
    }

    #[test]
    fn an_exponent_of_one_is_the_linear_gate_to_the_bit() {
        let (one, linear, batch) = (power(1.0), with(GateShape::Linear), BatchStats::neutral(50));
        assert_eq!(Rule::gate(&one, &batch), Rule::gate(&linear, &batch));
        let row = plain(3.25, 0.7);
        assert_eq!(one.weight(&row, &batch).to_bits(), linear.weight(&row, &batch).to_bits());
    }

    #[test]
    fn a_flat_row_has_gate_one_and_ln_20_over_3_under_the_constant_and_nats_without_normaliser() {
        let flat = row(&[0.0; 50], 7, 20);
        for (normalizer, expected) in
            [(Normalizer::LnK, 1.0), (Normalizer::Const3, 0.998_577), (Normalizer::None, 2.995_732)]
        {
            let weight = Eaft { normalizer, ..Eaft::default() }.weight(&flat, &BatchStats::neutral(50));
            assert!(close(weight, expected, 1e-6), "{normalizer}: {weight}");
        }
    }

    #[test]
    fn k_is_bounded_by_the_vocabulary_and_k_equal_to_it_is_the_full_entropy_over_ln_v() {
        assert_eq!(Normalizer::LnK.value(20, 7), 7f32.ln());
        assert_eq!(Normalizer::Const3.value(20, 7), 3.0);
        assert_eq!(Normalizer::LnK.value(20, 1), 1.0);
        let logits: Vec<f64> = (0..20).map(|i| f64::from(i) * 0.3).collect();
        let whole = row(&logits, 3, 20);
        let weight = Eaft::default().weight(&whole, &BatchStats::neutral(20));
        assert!(close(weight, whole.entropy_full / 20f32.ln(), 1e-6));
    }

    #[test]
    fn a_one_hot_row_has_gate_exactly_zero_and_never_minus_zero() {
        let mut logits = [-200.0; 30];
        logits[4] = 200.0;
        let sure = row(&logits, 4, 20);
        for exponent in [0.5, 1.0, 2.0] {
            let weight = power(exponent).weight(&sure, &BatchStats::neutral(30));
            assert_eq!(weight.to_bits(), 0, "exponent {exponent}");
        }
        assert_eq!(power(1.0).loss(&sure, &BatchStats::neutral(30)), 0.0);
    }

    #[test]
    fn the_sigmoid_gate_is_one_half_at_its_midpoint() {
        let at = |h: f32| with(GateShape::Sigmoid).weight(&plain(1.0, h * 20f32.ln()), &BatchStats::neutral(50));
        assert!(close(at(0.17), 0.5, 1e-5));
        assert!(close(at(0.0), 1.0 / (1.0 + 5.1f32.exp()), 1e-5));
        assert!(close(at(1.0), 1.0, 1e-6));
    }

    #[test]
    fn the_hard_gate_drops_the_lowest_fifteen_percent_by_entropy_and_keeps_strictly_more() {
        let rows: Vec<_> = (0..20).map(|i| plain(if i < 10 { 0.01 } else { 9.0 }, i as f32 * 0.1)).collect();
        let objective = with(GateShape::Hard);
        let batch = gathered(&objective, &rows, &[0; 20]);
        let weights: Vec<_> = rows.iter().map(|r| objective.weight(r, &batch)).collect();
        assert_eq!(weights[..3], [0.0; 3]);
        assert_eq!(weights[3..], [1.0; 17]);

        let equal = vec![plain(1.0, 0.7); 8];
        let batch = gathered(&objective, &equal, &[0; 8]);
        assert!(equal.iter().all(|r| objective.weight(r, &batch) == 0.0), "strict: equal entropies are all dropped");
        let keep_all = Eaft { percentile: 0.0, ..objective };
        let batch = gathered(&keep_all, &equal, &[0; 8]);
        assert!(equal.iter().all(|r| keep_all.weight(r, &batch) == 1.0));
    }
}
