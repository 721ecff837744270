//! IQ4_XS: 256 elements in 136 bytes: f16 `d`, 2 bytes of the scales' high bit pairs, 4 bytes of their low nibbles, 128
//! bytes of nibbles. Group `g` of 32 elements is `d (scale[g] - 32) LEVELS[q]` with the levels of IQ4_NL; its elements lie
//! in 16 bytes of their own, 0..16 in the low nibbles and 16..32 in the high ones.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at, one_by_one};
use super::iq4_nl::LEVELS;
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about IQ4_XS.
pub const FACTS: Facts = Facts {
    gguf_type: 23,
    name: "IQ4_XS",
    block_elements: 256,
    block_bytes: 136,
    halves: &[0],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: None,
    levels: None,
    kernels: Some(&formats::IQ4_XS),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 136]], out: &mut [[f32; 256]]) {
        for (block, out) in one_by_one(blocks, out) {
            let d = half_at(block, 0);
            let high = u16::from_le_bytes([block[2], block[3]]);
            for (group, (quants, out)) in block[8..].chunks_exact(16).zip(out.chunks_exact_mut(32)).enumerate() {
                let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
                let high = (high >> (2 * group) & 3) as u8;
                let scale = d * (f32::from(low | high << 4) - 32.0);
                let levels = LEVELS.map(|level| scale * level);
                for (i, &q) in quants.iter().enumerate() {
                    out[i] = levels[usize::from(q & 15)];
                    out[i + 16] = levels[usize::from(q >> 4)];
                }
            }
        }
    }
}
