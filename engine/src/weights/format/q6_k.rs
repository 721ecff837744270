//! Q6_K: 256 elements in 210 bytes: 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen i8 scales, f16 `d`.
//! Element: `d scale (q - 32)`. Within each half of 128 elements, element 32 g + l (g = 0..4) has its low bits in byte
//! l + 32 (g mod 2), low nibble for g < 2, its high bits in byte l at 2 g, and scale 2 g + l / 16.

use half::f16;
use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at, nearest, one_by_one, push_half};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q6_K.
pub const FACTS: Facts = Facts {
    gguf_type: 14,
    name: "Q6_K",
    block_elements: 256,
    block_bytes: 210,
    halves: &[208],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: None,
    kernels: Some(&formats::Q6_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 210]], out: &mut [[f32; 256]]) {
        for (block, out) in one_by_one(blocks, out) {
            let d = half_at(block, 208);
            for (h, out) in out.chunks_exact_mut(128).enumerate() {
                let (low, high, scales) = (&block[64 * h..64 * (h + 1)], &block[128 + 32 * h..], &block[192 + 8 * h..]);
                for (run, out) in out.chunks_exact_mut(16).enumerate() {
                    // A scale has 16 elements, half a group.
                    let (g, l) = (run / 2, run % 2 * 16);
                    let (low, high) = (&low[32 * (g % 2) + l..][..16], &high[l..][..16]);
                    let scale = d * f32::from(scales[run].cast_signed());
                    let (low_shift, high_shift) = (4 * (g / 2), 2 * g);
                    for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
                        let q = ((i32::from(low) >> low_shift) & 15) | (((i32::from(high) >> high_shift) & 3) << 4);
                        *out = scale * (q - 32) as f32;
                    }
                }
            }
        }
    }
}

/// Runs of a block, each with a scale of its own.
const RUNS: usize = 16;
/// Elements of a run.
const RUN: usize = 16;
/// A run whose largest element is below this is nothing.
const NOTHING: f32 = 1e-15;

/// `scale q` of a run as least squares find it, and 32 above the whole numbers `q` of that.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    quants: [u8; RUN],
}

/// As ggml's reference without an importance matrix: each run is fitted by itself, scales are rounded to eight bits of the
/// largest, and the elements are rounded with what came of that.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let mut fits = fit(block);
    let largest = fits.iter().fold(0.0_f32, |most, fit| if fit.scale.abs() > most.abs() { fit.scale } else { most });
    if largest.abs() < NOTHING {
        bytes.resize(bytes.len() + FACTS.block_bytes, 0);
    } else {
        let inverse = -128.0 / largest;
        let d = f16::from_f32(1.0 / inverse).to_f32();
        let scales = fits.map(|fit| nearest(inverse * fit.scale).min(127.0) as i8);
        for (run, (fit, &scale)) in fits.iter_mut().zip(&scales).enumerate() {
            let step = d * f32::from(scale);
            // Without a step all elements are zero, whatever their quants.
            if step != 0.0 {
                for (q, x) in fit.quants.iter_mut().zip(&block[RUN * run..]) {
                    *q = quant(1.0, x / step) as u8;
                }
            }
        }
        let q = |at: usize| fits[at / RUN].quants[at % RUN];
        for half in [0, 128] {
            bytes.extend((0..64).map(|l| (q(half + l) & 15) | q(half + l + 64) << 4));
        }
        for half in [0, 128] {
            bytes.extend((0..32).map(|l| (0..4).fold(0, |bits, g| bits | q(half + 32 * g + l) >> 4 << (2 * g))));
        }
        bytes.extend(scales.map(i8::cast_unsigned));
        if !push_half(1.0 / inverse, bytes) {
            return false;
        }
    }
    // Squares of what is far beyond the format would overflow above.
    block.iter().all(|x| x.abs() < 1e9)
}

/// 32 above the nearest of the whole numbers that a quant can be.
#[inline(always)]
fn quant(inverse: f32, x: f32) -> f32 {
    nearest(inverse * x).clamp(-32.0, 31.0) + 32.0
}

vectorised! {
    /// Least squares over the quants that come of 19 scales, in which elements weigh by their squares; the best wins. The runs
    /// are lanes.
    fn fit<FMA>(block: &[f32]) -> [Fit; RUNS] {
        const NONE: [f32; RUNS] = [0.0; RUNS];
        let mut x = [NONE; RUN];
        for (run, elements) in block.chunks_exact(RUN).enumerate() {
            for (x, &element) in x.iter_mut().zip(elements) {
                x[run] = element;
            }
        }
        let mut largest = NONE;
        for x in &x {
            for r in 0..RUNS {
                largest[r] = if x[r].abs() > largest[r].abs() { x[r] } else { largest[r] };
            }
        }
        let (mut inverse, mut scale, mut best) = (NONE, NONE, NONE);
        // The scale that just reaches the largest element is to be beaten.
        for at in [0, -9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
            let mut tried = NONE;
            for r in 0..RUNS {
                tried[r] = -(32.0 + 0.1 * at as f32) / largest[r];
            }
            let (mut sum_qx, mut sum_qq) = (NONE, NONE);
            for x in &x {
                for r in 0..RUNS {
                    let (weight, q) = (x[r] * x[r], quant(tried[r], x[r]) - 32.0);
                    sum_qx[r] += weight * x[r] * q;
                    sum_qq[r] += weight * q * q;
                }
            }
            for r in 0..RUNS {
                let won = at == 0 || (sum_qq[r] > 0.0 && sum_qx[r] * sum_qx[r] > best[r] * sum_qq[r]);
                let fitted = if sum_qq[r] == 0.0 { 0.0 } else { sum_qx[r] / sum_qq[r] };
                inverse[r] = if won { tried[r] } else { inverse[r] };
                scale[r] = if won { fitted } else { scale[r] };
                best[r] = if won { fitted * sum_qx[r] } else { best[r] };
            }
        }
        let mut fits = [Fit { scale: 0.0, quants: [0; RUN] }; RUNS];
        for (r, fit) in fits.iter_mut().enumerate() {
            if largest[r].abs() >= NOTHING {
                fit.scale = scale[r];
                for (q, x) in fit.quants.iter_mut().zip(&x) {
                    *q = quant(inverse[r], x[r]) as u8;
                }
            }
        }
        fits
    }
}
