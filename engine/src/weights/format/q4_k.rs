//! Q4_K: 256 elements in 144 bytes: f16 `d`, f16 `dmin`, 12 bytes of eight 6-bit scales and eight 6-bit minima, 128 bytes
//! of nibbles. Group `g` of 32 elements is `d scale[g] q - dmin min[g]`; groups 2k and 2k + 1 are the low and the high
//! nibbles of bytes 32k..32k + 32.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q4_K.
pub const FACTS: Facts = Facts {
    gguf_type: 12,
    name: "Q4_K",
    block_elements: 256,
    block_bytes: 144,
    halves: &[0, 2],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: None,
    kernels: Some(&formats::Q4_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 144]], out: &mut [[f32; 256]]) {
        for (block, out) in blocks.iter().zip(out) {
            let (d, dmin) = (half_at(block, 0), half_at(block, 2));
            let packed = &block[4..16];
            // The first four scales and minima are the low six bits of bytes 0..4 and 4..8; the others have their low four
            // bits in bytes 8..12 and their high two bits on top of those.
            let pair = |group: usize| {
                let (scale, min) = if group < 4 {
                    (packed[group] & 63, packed[group + 4] & 63)
                } else {
                    let low = packed[group + 4];
                    ((low & 15) | (packed[group - 4] >> 6 << 4), (low >> 4) | (packed[group] >> 6 << 4))
                };
                (d * f32::from(scale), dmin * f32::from(min))
            };
            for (run, (quants, out)) in block[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
                let ((scale, min), (scale_high, min_high)) = (pair(2 * run), pair(2 * run + 1));
                let (low, high) = out.split_at_mut(32);
                for ((low, high), &q) in low.iter_mut().zip(high).zip(quants) {
                    *low = scale * f32::from(q & 15) - min;
                    *high = scale_high * f32::from(q >> 4) - min_high;
                }
            }
        }
    }
}
