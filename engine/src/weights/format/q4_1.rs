//! Q4_1: 32 elements in 20 bytes: f16 `d`, f16 `m`, nibbles as in Q4_0. Element: `d q + m`.

use temper_shaders::formats;

use super::block::{
    Facts, Levels, expand_blocks, half_at, least_and_step, one_by_one, push_half, push_nibbles, put_nibble,
};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q4_1.
pub const FACTS: Facts = Facts {
    gguf_type: 3,
    name: "Q4_1",
    block_elements: 32,
    block_bytes: 20,
    halves: &[0, 2],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: Some(&Levels {
        most: 15,
        of: |block, _| (half_at(block, 0), half_at(block, 2)),
        put: |block, element, level| put_nibble(&mut block[4..], element, level),
    }),
    kernels: Some(&formats::Q4_1),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 20]], out: &mut [[f32; 32]]) {
        for (block, out) in one_by_one(blocks, out) {
            let (d, m) = (half_at(block, 0), half_at(block, 2));
            for (i, &q) in block[4..].iter().enumerate() {
                out[i] = d * f32::from(q & 15) + m;
                out[i + 16] = d * f32::from(q >> 4) + m;
            }
        }
    }
}

/// `m = min x`, `d = (max x - m) / 15`, `q = floor((x - m) / d + 0.5)`, rounded with the unrounded `d` and `m`, as in ggml.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let (m, d, inverse) = least_and_step(block, 15.0);
    let fits = push_half(d, bytes) & push_half(m, bytes);
    push_nibbles(block, bytes, |x| (((x - m) * inverse + 0.5) as u8).min(15));
    fits
}
