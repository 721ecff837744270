//! F32: IEEE single precision.

use super::block::{Facts, numbers};

/// What there is to know about F32.
pub const FACTS: Facts = Facts {
    gguf_type: 0,
    name: "F32",
    block_elements: 1,
    block_bytes: 4,
    halves: &[],
    expand,
    quantise: Some(quantise),
    kernels: None,
};

fn expand(stored: &[u8], out: &mut [f32]) {
    numbers::<4>(stored, out, |stored, out| {
        for (out, &four) in out.iter_mut().zip(stored) {
            *out = f32::from_le_bytes(four);
        }
    });
}

fn quantise(block: &[f32], bytes: &mut Vec<u8>) -> bool {
    bytes.extend(block[0].to_le_bytes());
    true
}
