//! Q8_0: 32 elements in 34 bytes: f16 `d`, then 32 signed bytes. Element: `d q`.

use temper_shaders::formats;

use super::block::{Facts, Levels, expand_blocks, half_at, inverse_or_zero, one_by_one, push_half};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q8_0.
pub const FACTS: Facts = Facts {
    gguf_type: 8,
    name: "Q8_0",
    block_elements: 32,
    block_bytes: 34,
    halves: &[0],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: Some(&Levels {
        most: 254,
        of: |block, _| {
            let d = half_at(block, 0);
            (d, -127.0 * d)
        },
        // The byte is signed.
        put: |block, element, level| block[2 + element] = level.wrapping_sub(127),
    }),
    kernels: Some(&formats::Q8_0),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 34]], out: &mut [[f32; 32]]) {
        for (block, out) in one_by_one(blocks, out) {
            let d = half_at(block, 0);
            for (out, &q) in out.iter_mut().zip(&block[2..]) {
                *out = d * f32::from(q.cast_signed());
            }
        }
    }
}

/// `d = max|x| / 127`, `q = round(x / d)`. `d` is stored in f16, the elements are rounded with the unrounded one, as in
/// ggml.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let d = block.iter().fold(0.0_f32, |m, x| m.max(x.abs())) / 127.0;
    let inverse = inverse_or_zero(d);
    let fits = push_half(d, bytes);
    bytes.extend(block.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned()));
    fits
}
