//! What describes a weight format, and what the expansions of several formats share.

use half::f16;
use temper_shaders::formats::FormatKernels;

use crate::kernels::cpu::par;

/// Appends one block of elements to stored bytes; false where one, or the block's scale, overflows.
pub type QuantiseBlock = fn(&[f32], &mut Vec<u8>) -> bool;

/// What there is to know about a weight format. Each file of this folder states one.
pub struct Facts {
    /// Number of the type in GGUF.
    pub gguf_type: u32,
    /// Name of the type in GGUF.
    pub name: &'static str,
    /// Elements of a block.
    pub block_elements: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Where in a block 16-bit floats lie, in bytes. All other bytes mean finite numbers whatever they are.
    pub halves: &'static [usize],
    /// Expands whole blocks; the second array is written completely. Panics where the sizes do not fit.
    pub expand: fn(&[u8], &mut [f32]),
    /// `None` for a format that Temper reads but does not write.
    pub quantise: Option<QuantiseBlock>,
    /// The kernels with this format's part; `None` for f32, which devices hold unpacked.
    pub kernels: Option<&'static FormatKernels>,
}

/// Cuts both arrays at fixed places and expands the blocks between them on all cores. A plain number is a block of one.
///
/// # Panics
/// Where the arrays are not equally many whole blocks.
pub fn expand_blocks<const BYTES: usize, const ELEMENTS: usize>(
    stored: &[u8],
    out: &mut [f32],
    expand: fn(&[[u8; BYTES]], &mut [[f32; ELEMENTS]]),
) {
    let ((stored, rest), (out, rest_out)) = (stored.as_chunks::<BYTES>(), out.as_chunks_mut::<ELEMENTS>());
    let whole = rest.is_empty() && rest_out.is_empty() && stored.len() == out.len();
    assert!(whole, "whole blocks of {ELEMENTS} elements in {BYTES} bytes");
    let length = par::ELEMENTS / ELEMENTS;
    par::pieces(out, length, |index, out| expand(&stored[index * length..][..out.len()], out));
}

/// The half-precision number at a byte of a block.
#[inline]
pub fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Appends a half-precision number; false where it overflows.
pub fn push_half(value: f32, bytes: &mut Vec<u8>) -> bool {
    let rounded = f16::from_f32(value);
    bytes.extend(rounded.to_le_bytes());
    rounded.is_finite()
}

/// `1 / d`, or 0 for a block so small that its scale vanishes.
pub fn inverse_or_zero(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}
