//! Q6_K: 256 elements in 210 bytes: 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen i8 scales, f16 `d`.
//! Element: `d scale (q - 32)`. Within each half of 128 elements, element 32 g + l (g = 0..4) has its low bits in byte
//! l + 32 (g mod 2), low nibble for g < 2, its high bits in byte l at 2 g, and scale 2 g + l / 16.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q6_K.
pub const FACTS: Facts = Facts {
    gguf_type: 14,
    name: "Q6_K",
    block_elements: 256,
    block_bytes: 210,
    halves: &[208],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: None,
    kernels: Some(&formats::Q6_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 210]], out: &mut [[f32; 256]]) {
        for (block, out) in blocks.iter().zip(out) {
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
