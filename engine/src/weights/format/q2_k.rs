//! Q2_K: 256 elements in 84 bytes: 16 bytes of scales (low nibble) and minima (high nibble), 64 bytes of bit pairs, f16
//! `d`, f16 `dmin`. Run `r` of 16 elements is `d scale[r] q - dmin min[r]`. Within each half of 128 elements, element
//! 32 g + l (g = 0..4) is bits 2 g and 2 g + 1 of byte l.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at, one_by_one};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q2_K.
pub const FACTS: Facts = Facts {
    gguf_type: 10,
    name: "Q2_K",
    block_elements: 256,
    block_bytes: 84,
    halves: &[80, 82],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: None,
    levels: None,
    kernels: Some(&formats::Q2_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 84]], out: &mut [[f32; 256]]) {
        for (block, out) in one_by_one(blocks, out) {
            let (d, dmin) = (half_at(block, 80), half_at(block, 82));
            for (run, out) in out.chunks_exact_mut(16).enumerate() {
                let scale = d * f32::from(block[run] & 15);
                let min = dmin * f32::from(block[run] >> 4);
                let shift = run % 8 / 2 * 2;
                let pairs = &block[16 + run / 8 * 32 + run % 2 * 16..][..16];
                for (out, &q) in out.iter_mut().zip(pairs) {
                    *out = scale * ((u32::from(q) >> shift) & 3) as f32 - min;
                }
            }
        }
    }
}
