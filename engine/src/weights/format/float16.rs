//! F16: IEEE half precision.

use temper_shaders::formats;

use super::block::{Facts, expand_blocks, push_half};
use crate::kernels::cpu::simd::vectorised;

/// What there is to know about F16.
pub const FACTS: Facts = Facts {
    gguf_type: 1,
    name: "F16",
    block_elements: 1,
    block_bytes: 2,
    halves: &[0],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(|block, bytes| push_half(block[0], bytes)),
    levels: None,
    kernels: Some(&formats::F16),
};

vectorised! {
    /// The bits of f16 moved into f32's fields and the exponent's offset corrected by a product, which also makes subnormal
    /// numbers right; infinity and NaN get their exponent back.
    fn expand<FMA>(blocks: &[[u8; 2]], out: &mut [[f32; 1]]) {
        /// 2^112, the difference of the exponents' offsets.
        const OFFSET: f32 = f32::from_bits((127 + 112) << 23);
        for (&bytes, [out]) in blocks.iter().zip(out) {
            let bits = u32::from(u16::from_le_bytes(bytes));
            let (sign, rest) = ((bits & 0x8000) << 16, bits & 0x7fff);
            let magnitude = (f32::from_bits(rest << 13) * OFFSET).to_bits();
            let magnitude = if rest >= 0x7c00 { magnitude | 0x7f80_0000 } else { magnitude };
            *out = f32::from_bits(magnitude | sign);
        }
    }
}
