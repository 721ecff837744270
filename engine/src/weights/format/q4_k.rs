//! Q4_K: 256 elements in 144 bytes: f16 `d`, f16 `dmin`, 12 bytes of eight 6-bit scales and eight 6-bit minima, 128 bytes
//! of nibbles. Group `g` of 32 elements is `d scale[g] q - dmin min[g]`; groups 2k and 2k + 1 are the low and the high
//! nibbles of bytes 32k..32k + 32.

use temper_shaders::formats;

use super::block::{
    Facts, Levels, expand_blocks, half_at, nearest, one_by_one, push_half, put_half_byte, six_bit_pair,
};
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
    levels: Some(&Levels {
        most: 15,
        of: |block, element| {
            let (scale, min) = six_bit_pair(&block[4..16], element / GROUP);
            (half_at(block, 0) * f32::from(scale), -(half_at(block, 2) * f32::from(min)))
        },
        put: |block, element, level| {
            let (pair, within) = (element / (2 * GROUP), element % (2 * GROUP));
            put_half_byte(&mut block[16 + pair * GROUP + within % GROUP], within >= GROUP, level);
        },
    }),
    kernels: Some(&formats::Q4_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 144]], out: &mut [[f32; 256]]) {
        for (block, out) in one_by_one(blocks, out) {
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

/// Groups of a block.
const GROUPS: usize = 8;
/// Elements of a group.
const GROUP: usize = 32;

/// `q = scale x + min` of a group as least squares find it, and the quants of that.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    /// What is subtracted; never negative.
    min: f32,
    quants: [u8; GROUP],
}

/// As ggml's reference without an importance matrix: each group is fitted by itself, scales and minima are rounded to six
/// bits of the largest, and the elements are rounded with what came of that.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let mut fits = fit(block);
    // Of -0 and 0 the 0, which `max` does not promise.
    let largest = |of: fn(&Fit) -> f32| fits.iter().map(of).fold(0.0_f32, |most, x| if x > most { x } else { most });
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

#[inline(always)]
fn quant(inverse: f32, x: f32) -> f32 {
    nearest(inverse * x).clamp(0.0, 15.0)
}

vectorised! {
    /// Weighted least squares over the quants that come of 22 scales, in which large elements weigh more; the least error
    /// wins. What a try begins with is the minimum that won before it, so tries follow one another; the groups are lanes.
    fn fit<FMA>(block: &[f32]) -> [Fit; GROUPS] {
        const NONE: [f32; GROUPS] = [0.0; GROUPS];
        let mut x = [NONE; GROUP];
        for (group, elements) in block.chunks_exact(GROUP).enumerate() {
            for (x, &element) in x.iter_mut().zip(elements) {
                x[group] = element;
            }
        }
        let (mut least, mut most, mut root) = (NONE, [f32::NEG_INFINITY; GROUPS], NONE);
        for x in &x {
            for g in 0..GROUPS {
                least[g] = if x[g] < least[g] { x[g] } else { least[g] };
                most[g] = if x[g] > most[g] { x[g] } else { most[g] };
                root[g] += x[g] * x[g];
            }
        }
        root = root.map(|squares| (squares / GROUP as f32).sqrt());
        let (mut weights, mut sum_weights, mut sum_x) = ([NONE; GROUP], NONE, NONE);
        for (weights, x) in weights.iter_mut().zip(&x) {
            for g in 0..GROUPS {
                weights[g] = root[g] + x[g].abs();
                sum_weights[g] += weights[g];
                sum_x[g] += weights[g] * x[g];
            }
        }

        // The plain fit, from the least to the greatest element, is to be beaten. `origin` and `inverse` make the quants.
        let mut origin = least;
        let (mut inverse, mut scale, mut min, mut least_error) = (NONE, NONE, least, NONE);
        for g in 0..GROUPS {
            inverse[g] = 15.0 / (most[g] - least[g]);
            scale[g] = 1.0 / inverse[g];
        }
        for (x, weights) in x.iter().zip(&weights) {
            for g in 0..GROUPS {
                let difference = scale[g] * quant(inverse[g], x[g] - origin[g]) + min[g] - x[g];
                least_error[g] += weights[g] * (difference * difference);
            }
        }
        for at in 0..=20 {
            let levels = -1.0 + 0.1 * at as f32 + 15.0;
            let (tried_origin, mut tried) = (min, NONE);
            let (mut sum_q, mut sum_qq, mut sum_qx) = (NONE, NONE, NONE);
            for g in 0..GROUPS {
                tried[g] = levels / (most[g] - tried_origin[g]);
            }
            for (x, weights) in x.iter().zip(&weights) {
                for g in 0..GROUPS {
                    let weighted = weights[g] * quant(tried[g], x[g] - tried_origin[g]);
                    sum_q[g] += weighted;
                    sum_qq[g] += weighted * quant(tried[g], x[g] - tried_origin[g]);
                    sum_qx[g] += weighted * x[g];
                }
            }
            let (mut tried_scale, mut tried_min, mut error) = (NONE, NONE, NONE);
            for g in 0..GROUPS {
                let determinant = sum_weights[g] * sum_qq[g] - sum_q[g] * sum_q[g];
                let free_scale = (sum_weights[g] * sum_qx[g] - sum_x[g] * sum_q[g]) / determinant;
                let free_min = (sum_qq[g] * sum_x[g] - sum_q[g] * sum_qx[g]) / determinant;
                // A minimum above zero cannot be stored.
                let above = free_min > 0.0;
                tried_scale[g] = if above { sum_qx[g] / sum_qq[g] } else { free_scale };
                tried_min[g] = if above { 0.0 } else { free_min };
                // Where there is no fit, nothing is won.
                error[g] = if determinant > 0.0 { 0.0 } else { f32::INFINITY };
            }
            for (x, weights) in x.iter().zip(&weights) {
                for g in 0..GROUPS {
                    let q = quant(tried[g], x[g] - tried_origin[g]);
                    let difference = tried_scale[g] * q + tried_min[g] - x[g];
                    error[g] += weights[g] * (difference * difference);
                }
            }
            for g in 0..GROUPS {
                let won = error[g] < least_error[g];
                least_error[g] = if won { error[g] } else { least_error[g] };
                scale[g] = if won { tried_scale[g] } else { scale[g] };
                min[g] = if won { tried_min[g] } else { min[g] };
                inverse[g] = if won { tried[g] } else { inverse[g] };
                origin[g] = if won { tried_origin[g] } else { origin[g] };
            }
        }
        let mut fits = [Fit { scale: 0.0, min: 0.0, quants: [0; GROUP] }; GROUPS];
        for (g, fit) in fits.iter_mut().enumerate() {
            fit.min = -min[g];
            // Elements that are all the same, and not positive, are their minimum.
            if most[g] != least[g] {
                fit.scale = scale[g];
                for (q, x) in fit.quants.iter_mut().zip(&x) {
                    *q = quant(inverse[g], x[g] - origin[g]) as u8;
                }
            }
        }
        fits
    }
}
