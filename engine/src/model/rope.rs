//! Rotary position embedding, and how a model's frequencies were changed so that it reaches further than the context it was
//! first trained with.
//!
//! What the files say of it is read by [`super::hugging_face`] and [`super::gguf`]; what comes of it is asked by
//! [`super::architecture::Architecture::rope_frequencies`].

use std::f64::consts::PI;

/// Larger than any published model's by an order of magnitude.
pub(super) const LONGEST_CONTEXT: usize = 1 << 28;

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
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

/// A scaling of rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        }
    }

    /// What cosines and sines are multiplied by. Scores of attention grow by its square.
    pub fn attention(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention,
            Self::Linear { .. } | Self::Llama3(_) => 1.0,
        }
    }

    /// Tokens that the model reaches with it, where the scaling says so.
    pub fn reach(&self) -> Option<f64> {
        match self {
            Self::Yarn(yarn) => Some(yarn.original_context * yarn.factor),
            Self::Linear { .. } | Self::Llama3(_) => None,
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
        let rope = rope(1e6, scaling);
        let share = |pair: usize| scaling.frequency(pair, 1.0, &rope);
        assert_eq!((share(0), share(23), share(40), share(63)), (1.0, 1.0, 0.25, 0.25));
        let between = (24..40).map(share).collect::<Vec<_>>();
        assert!(between.windows(2).all(|pair| pair[1] < pair[0]) && between[0] < 1.0 && between[15] > 0.25);
        assert!((scaling.attention() - 1.138_629_436_111_989).abs() < 1e-15);
        assert_eq!(scaling.reach(), Some(131_072.0));
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
            assert!(scaling.problem(&rope(1e6, scaling)).is_some(), "{scaling:?}");
        }
    }
}
