//! Q5_K: 256 elements in 176 bytes: f16 `d`, f16 `dmin`, 12 bytes of eight 6-bit scales and minima as in Q4_K, 32 bytes of
//! fifth bits, 128 bytes of nibbles. Group `g` of 32 elements is `d scale[g] q - dmin min[g]`; its nibbles lie as in Q4_K,
//! and the fifth bit of its element l is bit g of byte l.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, half_at, one_by_one, six_bit_pair};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about Q5_K.
pub const FACTS: Facts = Facts {
    gguf_type: 13,
    name: "Q5_K",
    block_elements: 256,
    block_bytes: 176,
    halves: &[0, 2],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: None,
    levels: None,
    kernels: Some(&formats::Q5_K),
};

vectorised! {
    fn expand<FMA>(blocks: &[[u8; 176]], out: &mut [[f32; 256]]) {
        for (block, out) in one_by_one(blocks, out) {
            let (d, dmin) = (half_at(block, 0), half_at(block, 2));
            let fifth = &block[16..48];
            for (group, out) in out.chunks_exact_mut(32).enumerate() {
                let (scale, min) = six_bit_pair(&block[4..16], group);
                let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
                let (shift, nibbles) = (group % 2 * 4, &block[48 + group / 2 * 32..][..32]);
                for ((out, &nibble), &fifth) in out.iter_mut().zip(nibbles).zip(fifth) {
                    let q = ((u32::from(nibble) >> shift) & 15) | (((u32::from(fifth) >> group) & 1) << 4);
                    *out = scale * q as f32 - min;
                }
            }
        }
    }
}
