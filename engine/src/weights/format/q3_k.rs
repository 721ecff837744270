//! Q3_K: 256 elements in 110 bytes: 32 bytes of high bits, 64 bytes of bit pairs, 12 bytes of sixteen 6-bit scales, f16
//! `d`. Run `r` of 16 elements is `d (scale[r] - 32) (q - 4)`. Within half h of 128 elements, element 32 g + l (g = 0..4)
//! has bits 2 g and 2 g + 1 of the half's byte l as its low bits, and bit 4 h + g of byte l of the high bits above them.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at, one_by_one};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q3_K.
pub const FACTS: Facts = Facts {
    gguf_type: 11,
    name: "Q3_K",
    block_elements: 256,
    block_bytes: 110,
    halves: &[108],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: None,
    levels: None,
    kernels: Some(&formats::Q3_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 110]], out: &mut [[f32; 256]]) {
        for (block, out) in one_by_one(blocks, out) {
            let d = half_at(block, 108);
            let packed = &block[96..108];
            for (run, out) in out.chunks_exact_mut(16).enumerate() {
                // Low four bits: scales 0..8 in the low nibbles of the first eight bytes, 8..16 in their high ones. High two
                // bits: scales r, r + 4, r + 8 and r + 12 in byte 8 + r, from its lowest bits up.
                let low = packed[run % 8] >> (run / 8 * 4) & 15;
                let high = packed[8 + run % 4] >> (run / 4 * 2) & 3;
                let scale = d * (f32::from(low | high << 4) - 32.0);
                let (half, group, l) = (run / 8, run % 8 / 2, run % 2 * 16);
                let (pair_shift, high_shift) = (2 * group, 4 * half + group);
                let (high, pairs) = (&block[l..][..16], &block[32 + 32 * half + l..][..16]);
                for ((out, &pair), &high) in out.iter_mut().zip(pairs).zip(high) {
                    let q = ((i32::from(pair) >> pair_shift) & 3) | (((i32::from(high) >> high_shift) & 1) << 2);
                    *out = scale * (q - 4) as f32;
                }
            }
        }
    }
}
