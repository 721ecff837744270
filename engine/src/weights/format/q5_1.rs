//! Q5_1: 32 elements in 24 bytes: f16 `d`, f16 `m`, 4 bytes with the fifth bit of each element, then 16 bytes whose low
//! nibbles are elements 0..16 and high nibbles 16..32. Element: `d q + m`.

use temper_shaders::formats;

use super::block::{
    Facts, Levels, expand_blocks, half_at, least_and_step, one_by_one, push_fives, push_half, put_five,
};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q5_1.
pub const FACTS: Facts = Facts {
    gguf_type: 7,
    name: "Q5_1",
    block_elements: 32,
    block_bytes: 24,
    halves: &[0, 2],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: Some(&Levels {
        most: 31,
        of: |block, _| (half_at(block, 0), half_at(block, 2)),
        put: |block, element, level| put_five(&mut block[4..], element, level),
    }),
    kernels: Some(&formats::Q5_1),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 24]], out: &mut [[f32; 32]]) {
        for (block, out) in one_by_one(blocks, out) {
            let (d, m) = (half_at(block, 0), half_at(block, 2));
            let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
            for (i, &q) in block[8..].iter().enumerate() {
                let low = u32::from(q & 15) | (fifth >> i & 1) << 4;
                let high = u32::from(q >> 4) | (fifth >> (i + 16) & 1) << 4;
                out[i] = d * low as f32 + m;
                out[i + 16] = d * high as f32 + m;
            }
        }
    }
}

/// `m = min x`, `d = (max x - m) / 31`, `q = floor((x - m) / d + 0.5)`, rounded with the unrounded `d` and `m`, as in ggml.
fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let (m, d, inverse) = least_and_step(block, 31.0);
    let fits = push_half(d, bytes) & push_half(m, bytes);
    push_fives(block, bytes, |x| (((x - m) * inverse + 0.5) as u8).min(31));
    fits
}
