//! Randomness that means the same for ever: a counter-based generator whose whole state is a seed and a position.

/// SplitMix64's finaliser over `seed` and `counter`: statistically independent streams for different seeds.
///
/// Constants from Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
pub fn mix(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of numbers from one seed.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    counter: u64,
}

impl Rng {
    /// The stream of `seed`, which is mixed so that neighbouring seeds are unrelated.
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed, 0), counter: 0 }
    }

    /// Next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.seed, self.counter)
    }

    /// Uniform in `[0, 1)` with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let u = 1.0 - self.uniform();
        let v = self.uniform();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        // The bias of a 64-bit remainder is below 2^-32 for any n that is a count of things in memory.
        (self.next_u64() % n.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut rng = Rng::new(42);
        // Computed independently, in Python, from the definition above.
        assert_eq!(
            [rng.next_u64(), rng.next_u64(), rng.next_u64()],
            [0xF4AB_D143_FEB2_4055, 0x7C81_6738_C129_03B2, 0x113E_5DEC_6F8F_D8A8]
        );
        assert_eq!(mix(0, 0), 0xE220_A839_7B1D_CDAF, "SplitMix64's first output from seed 0");
        assert_ne!(Rng::new(42).next_u64(), Rng::new(43).next_u64());
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut rng = Rng::new(7);
        let n = 100_000;
        let uniform: f64 = (0..n).map(|_| rng.uniform()).sum::<f64>() / n as f64;
        assert!((uniform - 0.5).abs() < 0.005, "{uniform}");
        let (mut mean, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            mean += x / n as f64;
            square += x * x / n as f64;
        }
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "{mean} {square}");
    }
}
