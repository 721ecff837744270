//! Rotary position embedding, and how a model's frequencies were changed so that it reaches further than the context it was
//! first trained with.
//!
//! What the files say of it is read by [`super::hugging_face`] and [`super::gguf`]; what comes of it is asked by
//! [`Rope::frequencies`] and [`Rope::tables`].

use std::f64::consts::PI;

/// Larger than any published model's by an order of magnitude.
pub(super) const LONGEST_CONTEXT: usize = 1 << 28;

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How many leading elements of each head are rotated; the rest pass through.
    pub rotary_dim: usize,
    /// True: pairs are neighbours `(2i, 2i+1)`. False: pairs are halves `(i, i + rotary_dim/2)`.
    pub interleaved: bool,
    /// How the frequencies are scaled, where they are.
    pub scaling: Option<RopeScaling>,
}

impl Rope {
    /// Angle by which each of the `rotary_dim / 2` pairs turns from one token to the next, in radians:
    /// `theta ^ (-2 i / rotary_dim)`, changed as the scaling says.
    pub fn frequencies(&self) -> Vec<f64> {
        let plain = |pair: usize| self.theta.powf(-((2 * pair) as f64) / self.rotary_dim as f64);
        let scaled = |pair| match &self.scaling {
            Some(scaling) => scaling.frequency(pair, plain(pair), self),
            None => plain(pair),
        };
        (0..self.rotary_dim / 2).map(scaled).collect()
    }

    /// Cosines and sines `[positions, rotary_dim / 2]`, row-major, computed in f64 and rounded once. Both are multiplied by
    /// `factor` and the scaling's own, if it has one; the way back through the rotation is then still its transpose.
    pub fn tables(&self, positions: usize, factor: f64) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.frequencies();
        let attention = factor * self.scaling.as_ref().map_or(1.0, RopeScaling::attention);
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        let table = |of: fn(f64) -> f64| angles().map(|a| (attention * of(a)) as f32).collect();
        (table(f64::cos), table(f64::sin))
    }
}

/// A scaling of rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// All frequencies are divided by this (`linear`).
    Linear {
        /// How much further the model reaches.
        factor: f64,
    },
    /// That of Llama 3.1 and later (`llama3`).
    Llama3(Llama3Scaling),
    /// YaRN (Peng et al. 2023, arXiv 2309.00071).
    Yarn(Yarn),
    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753), within the original context.
    Long(LongRope),
}

impl RopeScaling {
    /// The frequency (radians a token) of pair `pair`, which is `frequency` without scaling.
    pub fn frequency(&self, pair: usize, frequency: f64, rope: &Rope) -> f64 {
        match self {
            Self::Linear { factor } => frequency / factor,
            Self::Llama3(scaling) => frequency / scaling.divisor(frequency),
            Self::Yarn(yarn) => {
                let (low, high) = yarn.ramp(rope);
                let interpolated = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / yarn.factor * interpolated + frequency * (1.0 - interpolated)
            }
            Self::Long(long) => frequency / f64::from(long.short[pair]),
        }
    }

    /// What cosines and sines are multiplied by. Scores of attention grow by its square.
    pub fn attention(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention,
            Self::Long(long) => long.attention,
            Self::Linear { .. } | Self::Llama3(_) => 1.0,
        }
    }

    /// Longest sequence, in tokens, of a model whose files say `context`.
    pub fn context(&self, context: usize) -> usize {
        match self {
            // A cast saturates: anything absurd is caught by the architecture's check.
            Self::Yarn(yarn) => context.max((yarn.original_context * yarn.factor) as usize),
            Self::Long(long) => context.min(long.original_context),
            Self::Linear { .. } | Self::Llama3(_) => context,
        }
    }

    /// What is impossible about it.
    pub(super) fn problem(&self, rope: &Rope) -> Option<String> {
        // Written so that NaN is refused as well.
        let factor = |x: f64| (1.0..=1e6).contains(&x);
        let context = |x: f64| (1.0..=LONGEST_CONTEXT as f64).contains(&x);
        let (name, possible) = match self {
            Self::Linear { factor: found } => ("linear", factor(*found)),
            Self::Llama3(s) => {
                let ordered = s.low_frequency_factor > 0.0
                    && s.high_frequency_factor > s.low_frequency_factor
                    && s.high_frequency_factor <= 1e6;
                ("llama3", factor(s.factor) && ordered && context(s.original_context))
            }
            Self::Yarn(s) => {
                let turns = s.beta_slow > 0.0 && s.beta_fast >= s.beta_slow && s.beta_fast <= 1e6;
                let attention = s.attention > 0.0 && s.attention <= 1e3;
                let possible = factor(s.factor) && context(s.original_context) && turns && attention;
                ("yarn", possible && s.ramp(rope).1 > s.ramp(rope).0)
            }
            Self::Long(s) => return s.problem(rope.rotary_dim / 2),
        };
        (!possible).then(|| format!("{name} rope scaling has impossible factors: {self:?}"))
    }
}

/// The scaling of Llama 3.1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Low frequencies are divided by this.
    pub factor: f64,
    /// Wavelengths above `original_context / low_frequency_factor` count as low frequency.
    pub low_frequency_factor: f64,
    /// Wavelengths below `original_context / high_frequency_factor` stay as they are.
    pub high_frequency_factor: f64,
    /// Context length before the extension, in tokens.
    pub original_context: f64,
}

impl Llama3Scaling {
    /// The number by which a frequency (radians a token) is divided.
    ///
    /// With `wavelength = 2 pi / frequency` and `s = (original_context / wavelength - low) / (high - low)`: 1 for short
    /// wavelengths, `factor` for long ones, and `1 / ((1 - s) / factor + s)` between (transformers,
    /// `_compute_llama3_parameters`).
    pub fn divisor(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * PI / frequency;
        if wavelength > self.original_context / self.low_frequency_factor {
            self.factor
        } else if wavelength < self.original_context / self.high_frequency_factor {
            1.0
        } else {
            let smooth = (self.original_context / wavelength - self.low_frequency_factor)
                / (self.high_frequency_factor - self.low_frequency_factor);
            1.0 / ((1.0 - smooth) / self.factor + smooth)
        }
    }
}

/// YaRN: pairs that turn often within the original context stay as they are, those that turn seldom are divided by
/// `factor`, and between the two lies a ramp over the pairs' numbers (transformers, `_compute_yarn_parameters`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How much further the model reaches.
    pub factor: f64,
    /// Context length before the extension, in tokens.
    pub original_context: f64,
    /// The ramp begins at the pair that turns so often within the original context.
    pub beta_fast: f64,
    /// The ramp ends at the pair that turns so often within it.
    pub beta_slow: f64,
    /// The ramp's ends are rounded outwards to whole pairs.
    pub truncate: bool,
    /// What cosines and sines are multiplied by.
    pub attention: f64,
}

impl Yarn {
    /// Turns that files leave out.
    pub const BETA_FAST: f64 = 32.0;
    /// Turns that files leave out.
    pub const BETA_SLOW: f64 = 1.0;

    /// YaRN with all else as the paper has it.
    pub fn new(factor: f64, original_context: f64) -> Self {
        let (beta_fast, beta_slow) = (Self::BETA_FAST, Self::BETA_SLOW);
        let attention = Self::attention_of(factor, 1.0);
        Self { factor, original_context, beta_fast, beta_slow, truncate: true, attention }
    }

    /// `0.1 by ln(factor) + 1`; 1 where nothing is stretched.
    pub fn attention_of(factor: f64, by: f64) -> f64 {
        if factor > 1.0 { 0.1 * by * factor.ln() + 1.0 } else { 1.0 }
    }

    /// First and last pair of the ramp.
    fn ramp(&self, rope: &Rope) -> (f64, f64) {
        let dimensions = rope.rotary_dim as f64;
        let pair =
            |turns: f64| dimensions * (self.original_context / (turns * 2.0 * PI)).ln() / (2.0 * rope.theta.ln());
        let (mut low, mut high) = (pair(self.beta_fast), pair(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dimensions - 1.0));
        // A ramp of no length is a step.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }
}

/// LongRoPE: each pair's frequency is divided by a factor of its own, one of `short` up to the original context and one of
/// `long` beyond (transformers, `_compute_longrope_parameters`). A run has one table of angles, so that what it computes does
/// not depend on which sequence came before; it is the short one, and sequences end at the original context.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// Divisors up to the original context, one a pair.
    pub short: Vec<f32>,
    /// Divisors beyond it, which are kept for who reads an exported model.
    pub long: Vec<f32>,
    /// Context length before the extension, in tokens.
    pub original_context: usize,
    /// Context length after it.
    pub reach: usize,
    /// What cosines and sines are multiplied by.
    pub attention: f64,
}

impl LongRope {
    /// `sqrt(1 + ln(factor) / ln(original context))`; 1 where nothing is stretched.
    pub fn attention_of(factor: f64, original_context: usize) -> f64 {
        if factor > 1.0 { (1.0 + factor.ln() / (original_context as f64).ln()).sqrt() } else { 1.0 }
    }

    /// The factor of cosines and sines that follows from the contexts.
    pub fn usual_attention(&self) -> f64 {
        Self::attention_of(self.reach as f64 / self.original_context as f64, self.original_context)
    }

    fn problem(&self, pairs: usize) -> Option<String> {
        for (name, factors) in [("short", &self.short), ("long", &self.long)] {
            if factors.len() != pairs {
                return Some(format!("{} {name} factors of longrope for {pairs} pairs", factors.len()));
            }
            if let Some(factor) = factors.iter().find(|factor| !(1e-3..=1e6).contains(*factor)) {
                return Some(format!("a {name} factor of longrope is {factor}; 0.001 to 1e6 is possible"));
            }
        }
        // Of a single token there is no logarithm to divide by.
        let contexts = [self.original_context, self.reach].iter().all(|x| (2..=LONGEST_CONTEXT).contains(x));
        let attention = self.attention > 0.0 && self.attention <= 1e3;
        let text = || {
            let Self { original_context, reach, attention, .. } = self;
            format!("longrope from {original_context} to {reach} tokens with an attention factor of {attention}")
        };
        (!contexts || !attention).then(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(theta: f64, scaling: RopeScaling) -> Rope {
        Rope { theta, rotary_dim: 128, interleaved: false, scaling: Some(scaling) }
    }

    #[test]
    fn yarn_leaves_fast_pairs_divides_slow_ones_and_ramps_between() {
        // Qwen3 at four times its 32,768 tokens: pairs 23.6 and 39.6 turn 32 times and once within them.
        let scaling = RopeScaling::Yarn(Yarn::new(4.0, 32_768.0));
        let rope = rope(1e6, scaling.clone());
        let share = |pair: usize| scaling.frequency(pair, 1.0, &rope);
        assert_eq!((share(0), share(23), share(40), share(63)), (1.0, 1.0, 0.25, 0.25));
        let between = (24..40).map(share).collect::<Vec<_>>();
        assert!(between.windows(2).all(|pair| pair[1] < pair[0]) && between[0] < 1.0 && between[15] > 0.25);
        assert!((scaling.attention() - 1.138_629_436_111_989).abs() < 1e-15);
        assert_eq!(scaling.context(40_960), 131_072);
        assert_eq!(scaling.problem(&rope), None);
    }

    #[test]
    fn impossible_scalings_are_refused_and_so_is_what_is_no_number() {
        let yarn = Yarn::new(4.0, 32_768.0);
        let rest = [
            RopeScaling::Linear { factor: 0.5 },
            RopeScaling::Linear { factor: f64::NAN },
            RopeScaling::Yarn(Yarn { factor: 0.0, ..yarn }),
            RopeScaling::Yarn(Yarn { factor: f64::INFINITY, ..yarn }),
            RopeScaling::Yarn(Yarn { attention: f64::NAN, ..yarn }),
            RopeScaling::Yarn(Yarn { beta_slow: 0.0, ..yarn }),
            RopeScaling::Yarn(Yarn { beta_fast: 0.5, ..yarn }),
            // No pair turns even once within so few tokens.
            RopeScaling::Yarn(Yarn { original_context: 4.0, ..yarn }),
        ];
        for scaling in rest {
            assert!(scaling.problem(&rope(1e6, scaling.clone())).is_some(), "{scaling:?}");
        }
    }

    #[test]
    fn longrope_divides_each_pair_by_its_short_factor_and_ends_at_the_original_context() {
        // Phi-4-mini: 4,096 tokens made 131,072.
        let long = LongRope {
            short: (0..64).map(|pair| 1.0 + pair as f32 / 64.0).collect(),
            long: vec![32.0; 64],
            original_context: 4096,
            reach: 131_072,
            attention: LongRope::attention_of(32.0, 4096),
        };
        assert!((long.attention - 1.190_238_071_423_808).abs() < 1e-12, "{}", long.attention);
        assert_eq!(long.usual_attention(), long.attention);
        let rope = rope(1e4, RopeScaling::Long(long.clone()));
        let plain = Rope { scaling: None, ..rope.clone() };
        for (pair, (found, plain)) in rope.frequencies().into_iter().zip(plain.frequencies()).enumerate() {
            assert_eq!(found, plain / (1.0 + pair as f64 / 64.0));
        }
        assert_eq!(rope.tables(1, 1.0).0, vec![long.attention as f32; 64]);
        let scaling = RopeScaling::Long(long.clone());
        assert_eq!((scaling.problem(&rope), scaling.context(131_072)), (None, 4096));
        for (wrong, named) in [
            (LongRope { short: vec![1.0; 48], ..long.clone() }, "48 short factors of longrope for 64 pairs"),
            (LongRope { long: vec![0.0; 64], ..long.clone() }, "a long factor of longrope is 0"),
            (LongRope { short: vec![f32::NAN; 64], ..long.clone() }, "is NaN"),
            (LongRope { original_context: 1, ..long.clone() }, "from 1 to 131072 tokens"),
            (LongRope { attention: f64::NAN, ..long.clone() }, "factor of NaN"),
        ] {
            let problem = RopeScaling::Long(wrong).problem(&rope).unwrap();
            assert!(problem.contains(named), "{problem}");
        }
    }
}
