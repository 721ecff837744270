//! F32: IEEE single precision.

use super::block::{Facts, expand_blocks};

/// What there is to know about F32.
pub const FACTS: Facts = Facts {
    gguf_type: 0,
    name: "F32",
    block_elements: 1,
    block_bytes: 4,
    halves: &[],
    expand: |stored, out| expand_blocks(stored, out, expand),
    quantise: Some(quantise),
    levels: None,
    kernels: None,
};

fn expand(blocks: &[[u8; 4]], out: &mut [[f32; 1]]) {
    for (&bytes, [out]) in blocks.iter().zip(out) {
        *out = f32::from_le_bytes(bytes);
    }
}

fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    bytes.extend(block[0].to_le_bytes());
    true
}
