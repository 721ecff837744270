//! IQ4_NL: 32 elements in 18 bytes: f16 `d`, nibbles as in Q4_0. Element: `d LEVELS[q]`; the levels lie closer together
//! around zero, where most weights are.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at, one_by_one};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about IQ4_NL.
pub const FACTS: Facts = Facts {
    gguf_type: 20,
    name: "IQ4_NL",
    block_elements: 32,
    block_bytes: 18,
    halves: &[0],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: None,
    levels: None,
    kernels: Some(&formats::IQ4_NL),
};

/// What the sixteen nibbles stand for.
pub const LEVELS: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 18]], out: &mut [[f32; 32]]) {
        for (block, out) in one_by_one(blocks, out) {
            // Sixteen products in place of thirty-two.
            let d = half_at(block, 0);
            let levels = LEVELS.map(|level| d * level);
            for (i, &q) in block[2..].iter().enumerate() {
                out[i] = levels[usize::from(q & 15)];
                out[i + 16] = levels[usize::from(q >> 4)];
            }
        }
    }
}
