//! Q4_0: 32 elements in 18 bytes: f16 `d`, then 16 bytes whose low nibbles are elements 0..16 and high nibbles 16..32.
//! Element: `d (q - 8)`.

use temper_shaders::formats;

use super::block::{
    Facts, Levels, expand_blocks, half_at, inverse_or_zero, of_largest_magnitude, one_by_one, push_half, push_nibbles,
    put_nibble,
};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q4_0.
pub const FACTS: Facts = Facts {
    gguf_type: 2,
    name: "Q4_0",
    block_elements: 32,
    block_bytes: 18,
    halves: &[0],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: Some(&Levels {
        most: 15,
        of: |block, _| {
            let d = half_at(block, 0);
            (d, -8.0 * d)
        },
        put: |block, element, level| put_nibble(&mut block[2..], element, level),
    }),
    kernels: Some(&formats::Q4_0),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 18]], out: &mut [[f32; 32]]) {
        for (block, out) in one_by_one(blocks, out) {
            let d = half_at(block, 0);
            for (i, &q) in block[2..].iter().enumerate() {
                out[i] = d * (f32::from(q & 15) - 8.0);
                out[i + 16] = d * (f32::from(q >> 4) - 8.0);
            }
        }
    }
}

/// `d = x* / -8` with `x*` the element of largest magnitude, `q = min(15, floor(x / d + 8.5))`. `d` is stored in f16, the
/// elements are rounded with the unrounded one, as in ggml.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let d = of_largest_magnitude(block) / -8.0;
    let inverse = inverse_or_zero(d);
    let fits = push_half(d, bytes);
    push_nibbles(block, bytes, |x| ((x * inverse + 8.5) as u8).min(15));
    fits
}
