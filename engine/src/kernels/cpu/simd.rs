//! Choice of instruction set at run time, and the exponential that every kernel here shares.
//!
//! The binary is built for the plainest CPU of its architecture. [`vectorised!`] compiles a function's body three
//! times (AVX-512, AVX2 with FMA, baseline) and picks once the machine is known; the bodies are ordinary loops without
//! branches that the compiler turns into vector code. The constant `FMA` says whether a fused multiply-add is one
//! instruction, because `f32::mul_add` without it is a slow library call.

use std::sync::atomic::{AtomicU8, Ordering};

/// Instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the binary was built for.
    Baseline,
    /// x86-64 with AVX2, FMA and F16C (x86-64-v3).
    Avx2,
    /// x86-64 with AVX-512 F, BW, CD, DQ, VL (x86-64-v4).
    Avx512,
}

/// Highest level that kernels may use, as [`limit_level`] set it.
static LIMIT: AtomicU8 = AtomicU8::new(Level::Avx512 as u8);

/// Makes kernels use no more than `limit` even where the machine has more, so that tests reach every path. Kernels that
/// run meanwhile on other threads may use either.
pub fn limit_level(limit: Level) {
    LIMIT.store(limit as u8, Ordering::Relaxed);
}

/// The level that kernels use: the best of this machine within the limit.
#[inline]
pub fn level() -> Level {
    let limit = match LIMIT.load(Ordering::Relaxed) {
        0 => Level::Baseline,
        1 => Level::Avx2,
        _ => Level::Avx512,
    };
    machine_level().min(limit)
}

/// The best level of this machine.
#[inline]
fn machine_level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => Level::Avx512,
                (true, false) => Level::Avx2,
                _ => Level::Baseline,
            }
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    Level::Baseline
}

/// True where the baseline itself has a fused multiply-add.
pub const BASELINE_FMA: bool = cfg!(target_arch = "aarch64");

/// Defines functions whose body is compiled once per [`Level`] and chosen at run time.
///
/// `fn name<FMA>(..)` becomes an ordinary function; inside, `FMA` is a `const bool`.
macro_rules! vectorised {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters, unused_variables)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                match $crate::kernels::cpu::simd::level() {
                    // SAFETY: the level was detected on this machine.
                    $crate::kernels::cpu::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::kernels::cpu::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::kernels::cpu::simd::Level::Baseline => {}
                }
            }
            body::<{ $crate::kernels::cpu::simd::BASELINE_FMA }>($($arg),*)
        }
    )*};
}
pub(crate) use vectorised;

/// a * b + c, fused where that is one instruction.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Sum of products, in 16 lanes and then over these.
#[inline(always)]
pub fn dot<const FMA: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    for (x, y) in x.iter().zip(y) {
        for l in 0..16 {
            lanes[l] = fma::<FMA>(x[l], y[l], lanes[l]);
        }
    }
    for (l, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[l] = fma::<FMA>(*x, *y, lanes[l]);
    }
    sum_lanes(&lanes)
}

/// e^x, at most 2 units in the last place off, without branches.
///
/// x below -87.33 (where e^x leaves the normal numbers) gives 0, so -inf does too; x above 88.37 gives e^88.37, a
/// finite number; NaN gives NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r = 1 + r + r^2 P(r), P a minimax polynomial of degree 4.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const HIGHEST: f32 = 88.37;
    const LOWEST: f32 = -87.33;
    /// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    /// The leading bits of ln 2 (exact in products with n) and the rest.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Written so that NaN stays NaN: a comparison with NaN is false.
    let bounded = if x > HIGHEST { HIGHEST } else { x };
    let bounded = if bounded < LOWEST { LOWEST } else { bounded };
    let shifted = fma::<FMA>(bounded, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -LN2_LOW, fma::<FMA>(n, -LN2_HIGH, bounded));
    let p = fma::<FMA>(r, 0.001_381_459_9, 0.008_368_717);
    let p = fma::<FMA>(r, p, 0.041_668_39);
    let p = fma::<FMA>(r, p, 0.166_665_21);
    let p = fma::<FMA>(r, p, 0.499_999_94);
    let p = fma::<FMA>(r * r, p, r) + 1.0;
    // n + 127 in the exponent field is 2^n; the low bits of `shifted` hold n.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = p * power;
    if x < LOWEST { 0.0 } else { y }
}

/// 1 / (1 + e^-x), without ever forming an infinity: the exponent is never positive.
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-x.abs());
    (if x >= 0.0 { 1.0 } else { e }) / (1.0 + e)
}

/// The number that half-precision bits mean. `half` asks the machine each time what it can, which costs more than this where
/// one number is wanted.
#[inline(always)]
pub fn of_half(bits: u16) -> f32 {
    /// 2^-14, the least normal number of half precision.
    const LEAST: u32 = (127 - 14) << 23;
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
    let magnitude = match rest >> 23 {
        // Subnormal numbers are what is above 2^-14 in one that has the same fraction.
        0 => (f32::from_bits(rest | LEAST) - f32::from_bits(LEAST)).to_bits(),
        31 => rest + ((255 - 31) << 23),
        _ => rest + ((127 - 15) << 23),
    };
    f32::from_bits(magnitude | sign)
}

/// Sums 16 lanes in a fixed tree.
#[inline(always)]
pub fn sum_lanes(lanes: &[f32; 16]) -> f32 {
    let mut eight = [0.0f32; 8];
    for i in 0..8 {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    let four = [eight[0] + eight[4], eight[1] + eight[5], eight[2] + eight[6], eight[3] + eight[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorised! {
        fn exp_all<FMA>(x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = exp::<FMA>(x);
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place_of_the_true_value() {
        let x: Vec<f32> = (0..2_000_000).map(|i| -87.3 + i as f32 * 8.75e-5).collect();
        let mut fast = vec![f32::NAN; x.len()];
        exp_all(&x, &mut fast);
        let mut plain = fast.clone();
        for (y, &x) in plain.iter_mut().zip(&x) {
            *y = exp::<false>(x);
        }
        for y in [&fast, &plain] {
            let worst = x.iter().zip(y).fold(0.0f64, |worst, (&x, &y)| {
                let want = f64::from(x).exp();
                let error = (f64::from(y) - want).abs() / (want * f64::from(f32::EPSILON));
                // `max` would take the number where one of the two is NaN.
                if error.is_nan() { f64::INFINITY } else { worst.max(error) }
            });
            assert!(worst < 2.0, "{worst}");
        }
    }

    #[test]
    fn every_half_precision_number_is_what_the_half_crate_makes_of_it() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (of_half(bits), half::f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn exp_is_zero_far_below_finite_far_above_and_nan_only_for_nan() {
        for fma in [true, false] {
            let exp = |x| if fma { exp::<true>(x) } else { exp::<false>(x) };
            assert_eq!(exp(0.0), 1.0);
            assert_eq!(exp(f32::NEG_INFINITY), 0.0);
            assert_eq!(exp(-1e30), 0.0);
            assert_eq!(exp(-88.0), 0.0);
            assert_eq!(exp(1e-40), 1.0);
            assert!(exp(1e30).is_finite() && exp(f32::INFINITY) > 1e38);
            assert!(exp(f32::NAN).is_nan() && exp(f32::from_bits(0x7fc0_0001)).is_nan());
        }
    }
}
