//! Q6_K: 256 elements in 210 bytes: 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen i8 scales, f16 `d`.
//! Element: `d scale (q - 32)`. Within each half of 128 elements, element 32 g + l (g = 0..4) has its low bits in byte
//! l + 32 (g mod 2), low nibble for g < 2, its high bits in byte l at 2 g, and scale 2 g + l / 16.

use temper_shaders::formats;

use super::block::{Facts, blocks, half_at};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q6_K.
pub const FACTS: Facts = Facts {
    gguf_type: 14,
    name: "Q6_K",
    block_elements: 256,
    block_bytes: 210,
    halves: &[208],
    expand,
    quantise: None,
    kernels: Some(&formats::Q6_K),
};

fn expand(stored: &[u8], out: &mut [f32]) {
    blocks::<256>(stored, 210, out, |block, out| {
        let d = half_at(block, 208);
        for (h, out) in out.chunks_exact_mut(128).enumerate() {
            let (low, high, scales) = (&block[64 * h..64 * (h + 1)], &block[128 + 32 * h..], &block[192 + 8 * h..]);
            for (g, out) in out.chunks_exact_mut(32).enumerate() {
                let scale = |i: usize| d * f32::from(scales[2 * g + i].cast_signed());
                let low = &low[32 * (g % 2)..32 * (g % 2) + 32];
                group(low, 4 * (g as u32 / 2), &high[..32], 2 * g as u32, [scale(0), scale(1)], out);
            }
        }
    });
}

vectorised! {
    /// 32 elements, of two scales.
    fn group<FMA>(low: &[u8], low_shift: u32, high: &[u8], high_shift: u32, scale: [f32; 2], out: &mut [f32]) {
        let parts = low.chunks_exact(16).zip(high.chunks_exact(16)).zip(out.chunks_exact_mut(16)).zip(scale);
        for (((low, high), out), scale) in parts {
            for ((low, high), out) in low.iter().zip(high).zip(out) {
                let q = ((i32::from(*low) >> low_shift) & 15) | (((i32::from(*high) >> high_shift) & 3) << 4);
                *out = scale * (q - 32) as f32;
            }
        }
    }
}
