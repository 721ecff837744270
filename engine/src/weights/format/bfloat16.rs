//! BF16: the upper half of an f32.

use half::bf16;
use temper_shaders::formats;

use super::block::{Facts, expand_blocks};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about BF16.
pub const FACTS: Facts = Facts {
    gguf_type: 30,
    name: "BF16",
    block_elements: 1,
    block_bytes: 2,
    halves: &[0],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: None,
    kernels: Some(&formats::BF16),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 2]], out: &mut [[f32; 1]]) {
        for (&bytes, [out]) in blocks.iter().zip(out) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
        }
    }
}

fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    let rounded = bf16::from_f32(block[0]);
    bytes.extend(rounded.to_le_bytes());
    rounded.is_finite()
}
