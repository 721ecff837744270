//! Q5_0: 32 elements in 22 bytes: f16 `d`, 4 bytes with the fifth bit of each element, then 16 bytes whose low nibbles are
//! elements 0..16 and high nibbles 16..32. Element: `d (q - 16)`.

use temper_shaders::formats;

use super::block::{
    Facts, Levels, expand_blocks, half_at, inverse_or_zero, of_largest_magnitude, one_by_one, push_fives, push_half,
    put_five,
};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q5_0.
pub const FACTS: Facts = Facts {
    gguf_type: 6,
    name: "Q5_0",
    block_elements: 32,
    block_bytes: 22,
    halves: &[0],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: Some(&Levels {
        most: 31,
        of: |block, _| {
            let d = half_at(block, 0);
            (d, -16.0 * d)
        },
        put: |block, element, level| put_five(&mut block[2..], element, level),
    }),
    kernels: Some(&formats::Q5_0),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 22]], out: &mut [[f32; 32]]) {
        for (block, out) in one_by_one(blocks, out) {
            let d = half_at(block, 0);
            let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
            for (i, &q) in block[6..].iter().enumerate() {
                let low = u32::from(q & 15) | (fifth >> i & 1) << 4;
                let high = u32::from(q >> 4) | (fifth >> (i + 16) & 1) << 4;
                out[i] = d * (low as f32 - 16.0);
                out[i + 16] = d * (high as f32 - 16.0);
            }
        }
    }
}

/// `d = x* / -16` with `x*` the element of largest magnitude, `q = min(31, floor(x / d + 16.5))`, rounded with the unrounded
/// `d`, as in ggml.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let d = of_largest_magnitude(block) / -16.0;
    let inverse = inverse_or_zero(d);
    let fits = push_half(d, bytes);
    push_fives(block, bytes, |x| ((x * inverse + 16.5) as u8).min(31));
    fits
}
