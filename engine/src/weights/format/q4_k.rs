//! Q4_K: 256 elements in 144 bytes: f16 `d`, f16 `dmin`, 12 bytes of eight 6-bit scales and eight 6-bit minima, 128 bytes
//! of nibbles. Group `g` of 32 elements is `d scale[g] q - dmin min[g]`; groups 2k and 2k + 1 are the low and the high
//! nibbles of bytes 32k..32k + 32.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at, push_half, six_bit_pair};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q4_K.
pub const FACTS: Facts = Facts {
    gguf_type: 12,
    name: "Q4_K",
    block_elements: 256,
    block_bytes: 144,
    halves: &[0, 2],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    kernels: Some(&formats::Q4_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 144]], out: &mut [[f32; 256]]) {
        for (block, out) in blocks.iter().zip(out) {
            let (d, dmin) = (half_at(block, 0), half_at(block, 2));
            let pair = |group: usize| {
                let (scale, min) = six_bit_pair(&block[4..16], group);
                (d * f32::from(scale), dmin * f32::from(min))
            };
            for (run, (quants, out)) in block[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
                let ((scale, min), (scale_high, min_high)) = (pair(2 * run), pair(2 * run + 1));
                let (low, high) = out.split_at_mut(32);
                for ((low, high), &q) in low.iter_mut().zip(high).zip(quants) {
                    *low = scale * f32::from(q & 15) - min;
                    *high = scale_high * f32::from(q >> 4) - min_high;
                }
            }
        }
    }
}

/// Elements of a group.
const GROUP: usize = 32;
/// Scales that are tried for a group: those with which its range takes 14 to 16 levels, in tenths.
const TRIES: usize = 21;

/// `q = scale x + min` of a group as least squares find it, and the quants of that.
struct Fit {
    scale: f32,
    /// What is subtracted; never negative.
    min: f32,
    quants: [u8; GROUP],
}

/// As ggml's reference without an importance matrix: each group is fitted by itself, scales and minima are rounded to six
/// bits of the largest, and the elements are rounded with what came of that.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let mut fits: [Fit; 8] = std::array::from_fn(|group| fit(&block[GROUP * group..][..GROUP]));
    let largest = |of: fn(&Fit) -> f32| fits.iter().map(of).fold(0.0_f32, f32::max);
    let (most_scale, most_min) = (largest(|fit| fit.scale), largest(|fit| fit.min));
    let six_bits = |x: f32, most: f32| match most > 0.0 {
        true => nearest(63.0 / most * x).min(63.0) as u8,
        false => 0,
    };
    let start = bytes.len();
    let whole = push_half(most_scale / 63.0, bytes) & push_half(most_min / 63.0, bytes);
    let (d, dmin) = (half_at(&bytes[start..], 0), half_at(&bytes[start..], 2));

    let mut packed = [0_u8; 12];
    for (group, fit) in fits.iter_mut().enumerate() {
        let (scale, min) = (six_bits(fit.scale, most_scale), six_bits(fit.min, most_min));
        if group < 4 {
            (packed[group], packed[group + 4]) = (scale, min);
        } else {
            packed[group + 4] = (scale & 15) | (min & 15) << 4;
            packed[group - 4] |= scale >> 4 << 6;
            packed[group] |= min >> 4 << 6;
        }
        let (step, shift) = (d * f32::from(scale), dmin * f32::from(min));
        // Without a step all elements are `-min`, whatever their quants.
        if step != 0.0 {
            for (q, x) in fit.quants.iter_mut().zip(&block[GROUP * group..]) {
                *q = nearest((x + shift) / step).clamp(0.0, 15.0) as u8;
            }
        }
    }
    bytes.extend(packed);
    for [low, high] in fits.as_chunks().0 {
        bytes.extend(low.quants.iter().zip(&high.quants).map(|(low, high)| low | high << 4));
    }
    whole
}

/// The nearest whole number, even ones before odd ones; adding and subtracting 1.5 * 2^23 rounds so.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}

/// Weighted least squares over quants that come of several scales; the least error wins. Large elements weigh more.
fn fit(x: &[f32]) -> Fit {
    let mean_square = x.iter().map(|x| x * x).sum::<f32>() / GROUP as f32;
    let root = mean_square.sqrt();
    let mut weights = [0.0; GROUP];
    weights.iter_mut().zip(x).for_each(|(weight, x)| *weight = root + x.abs());
    let least = x.iter().copied().fold(0.0_f32, f32::min);
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most == least {
        return Fit { scale: 0.0, min: -least, quants: [0; GROUP] };
    }
    let range = most - least;
    // The plain fit, from the least to the greatest element, is to be beaten.
    let plain = 15.0 / range;
    let (mut scale, mut min, mut inverse) = (1.0 / plain, least, plain);
    let mut least_error = 0.0;
    for (x, weight) in x.iter().zip(&weights) {
        let difference = scale * quant(inverse, x - least) + min - x;
        least_error += weight * (difference * difference);
    }
    let tries = tried(x, &weights, least, range);
    for (at, error) in tries.error.into_iter().enumerate() {
        if error < least_error {
            least_error = error;
            (scale, min, inverse) = (tries.scale[at], tries.min[at], tries.inverse[at]);
        }
    }
    let mut quants = [0; GROUP];
    quants.iter_mut().zip(x).for_each(|(q, x)| *q = quant(inverse, x - least) as u8);
    Fit { scale, min: -min, quants }
}

#[inline(always)]
fn quant(inverse: f32, x: f32) -> f32 {
    nearest(inverse * x).clamp(0.0, 15.0)
}

/// What comes of each scale that is tried: `inverse` makes the quants, `scale` and `min` are the least squares over them.
struct Tries {
    inverse: [f32; TRIES],
    scale: [f32; TRIES],
    min: [f32; TRIES],
    error: [f32; TRIES],
}

vectorised! {
    /// All tries side by side, so that sums over elements keep their order and tries are lanes. An error of a try without a
    /// fit is infinite.
    fn tried<FMA>(x: &[f32], weights: &[f32; GROUP], least: f32, range: f32) -> Tries {
        let inverse: [f32; TRIES] = std::array::from_fn(|at| (-1.0 + 0.1 * at as f32 + 15.0) / range);
        let (mut sum_q, mut sum_qq, mut sum_qx) = ([0.0_f32; TRIES], [0.0_f32; TRIES], [0.0_f32; TRIES]);
        let (mut sum_weights, mut sum_x) = (0.0, 0.0);
        for (x, weight) in x.iter().zip(weights) {
            sum_weights += weight;
            sum_x += weight * x;
            for at in 0..TRIES {
                let q = quant(inverse[at], x - least);
                sum_q[at] += weight * q;
                sum_qq[at] += weight * q * q;
                sum_qx[at] += weight * q * x;
            }
        }
        let (mut scale, mut min, mut error) = ([0.0; TRIES], [0.0; TRIES], [0.0; TRIES]);
        for at in 0..TRIES {
            let determinant = sum_weights * sum_qq[at] - sum_q[at] * sum_q[at];
            let free_min = (sum_qq[at] * sum_x - sum_q[at] * sum_qx[at]) / determinant;
            let free_scale = (sum_weights * sum_qx[at] - sum_x * sum_q[at]) / determinant;
            // A minimum above zero cannot be stored.
            let above = free_min > 0.0;
            min[at] = if above { 0.0 } else { free_min };
            scale[at] = if above { sum_qx[at] / sum_qq[at] } else { free_scale };
            error[at] = if determinant > 0.0 { 0.0 } else { f32::INFINITY };
        }
        for (x, weight) in x.iter().zip(weights) {
            for at in 0..TRIES {
                let difference = scale[at] * quant(inverse[at], x - least) + min[at] - x;
                error[at] += weight * (difference * difference);
            }
        }
        Tries { inverse, scale, min, error }
    }
}
