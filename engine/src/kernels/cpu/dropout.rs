//! Inverted dropout from a counter: the mask is a function of (seed, element), so a recomputed block sees the same mask
//! and nothing is stored. Bit for bit the mask of `dropout.wgsl`.

use temper_shaders::DropoutParams;

use super::par;
use super::simd::vectorised;

/// `y[i] = x[i] / keep` where element i is kept (with probability `keep`), else 0, by a mask that depends on the seed and
/// `i` alone. The backward pass is the same function on the gradient.
///
/// With `mix` a bijection of the 32-bit integers, `h = mix(mix(i ^ mix(seed low)) + mix(seed high ^ 0x9e3779b9))`, and an
/// element is kept where `(h >> 8) / 2^24 < keep`.
pub fn dropout(params: &DropoutParams, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let (low, high) = (mix(params.seed_low), mix(params.seed_high ^ 0x9e37_79b9));
    par::pieces(y, par::ELEMENTS, |index, y| {
        let start = index * par::ELEMENTS;
        dropout_piece(&x[start..start + y.len()], start as u32, low, high, params.keep_probability, y);
    });
}

/// A 32-bit bijection in which every input bit reaches every output bit.
#[inline(always)]
fn mix(mut v: u32) -> u32 {
    v ^= v >> 16;
    v = v.wrapping_mul(0x7feb_352d);
    v ^= v >> 15;
    v = v.wrapping_mul(0x846c_a68b);
    v ^ (v >> 16)
}

vectorised! {
    fn dropout_piece<FMA>(x: &[f32], start: u32, low: u32, high: u32, keep: f32, y: &mut [f32]) {
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            let h = mix(mix(start.wrapping_add(i as u32) ^ low).wrapping_add(high));
            // 24 bits fit f32 exactly. Through i32, since that conversion is one instruction everywhere.
            let uniform = (h >> 8) as i32 as f32 * (1.0 / 16_777_216.0);
            *y = if uniform < keep { x / keep } else { 0.0 };
        }
    }
}
