//! What describes a weight format, and what the expansions of several formats share.

use half::f16;
use temper_shaders::formats::FormatKernels;

use crate::kernels::cpu::par;
use crate::kernels::cpu::simd::of_half;

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
    /// `None` for a format whose elements nobody chooses one by one.
    pub levels: Option<&'static Levels>,
    /// The kernels with this format's part; `None` for f32, which devices hold unpacked.
    pub kernels: Option<&'static FormatKernels>,
}

/// The equally spaced levels of a block whose scales are chosen: an element is `step level + least`.
pub struct Levels {
    /// The greatest level; the least is 0.
    pub most: u8,
    /// `(step, least)` of an element of this block.
    pub of: fn(&[u8], usize) -> (f32, f32),
    /// Writes an element's level into this block.
    pub put: fn(&mut [u8], usize, u8),
}

/// Writes the low or the high four bits of a byte.
pub fn put_half_byte(byte: &mut u8, high: bool, value: u8) {
    *byte = if high { (*byte & 15) | value << 4 } else { (*byte & 0xf0) | value };
}

/// Writes one of 32 elements of four bits, as [`push_nibbles`] lays them out.
pub fn put_nibble(nibbles: &mut [u8], element: usize, value: u8) {
    put_half_byte(&mut nibbles[element % 16], element >= 16, value);
}

/// Writes one of 32 elements of five bits, as [`push_fives`] lays them out.
pub fn put_five(fives: &mut [u8], element: usize, value: u8) {
    let fifth = &mut fives[element / 8];
    *fifth = *fifth & !(1 << (element % 8)) | (value >> 4) << (element % 8);
    put_nibble(&mut fives[4..], element, value & 15);
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

/// Blocks and what they expand to, each to be vectorised by itself: a compiler that knows of the others takes sixteen blocks at
/// once, a gather and a scatter for each number, which is ten times slower.
#[inline(always)]
pub fn one_by_one<'a, B, T>(blocks: &'a [B], out: &'a mut [T]) -> impl Iterator<Item = (&'a B, &'a mut T)> {
    blocks.iter().map(std::hint::black_box).zip(out)
}

/// The half-precision number at a byte of a block.
#[inline(always)]
pub fn half_at(block: &[u8], at: usize) -> f32 {
    of_half(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Appends a half-precision number; false where it overflows.
pub fn push_half(value: f32, bytes: &mut Vec<u8>) -> bool {
    let rounded = f16::from_f32(value);
    bytes.extend(rounded.to_le_bytes());
    rounded.is_finite()
}

/// Scale and minimum of one of the eight groups of Q4_K and Q5_K. The first four scales and minima are the low six bits of
/// bytes 0..4 and 4..8; the others have their low four bits in bytes 8..12 and their high two bits on top of those.
#[inline]
pub fn six_bit_pair(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        ((low & 15) | (packed[group - 4] >> 6 << 4), (low >> 4) | (packed[group] >> 6 << 4))
    }
}

/// Least of 32 elements, the step of `levels` equal ones from there to the greatest, and its inverse (0 for a step that
/// vanishes).
pub fn least_and_step(block: &[f32], levels: f32) -> (f32, f32, f32) {
    let least = block.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let step = (greatest - least) / levels;
    (least, step, inverse_or_zero(step))
}

/// The element of largest magnitude, the first of several.
pub fn of_largest_magnitude(block: &[f32]) -> f32 {
    block.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most })
}

/// Appends 32 elements of four bits: 16 bytes whose low nibbles are elements 0..16 and high nibbles 16..32.
pub fn push_nibbles(block: &[f32], bytes: &mut Vec<u8>, quant: impl Fn(f32) -> u8) {
    bytes.extend((0..16).map(|i| quant(block[i]) | quant(block[i + 16]) << 4));
}

/// Appends 32 elements of five bits: 4 bytes of the fifth bits, then the others as [`push_nibbles`].
pub fn push_fives(block: &[f32], bytes: &mut Vec<u8>, quant: impl Fn(f32) -> u8) {
    let fifth = block.iter().enumerate().fold(0_u32, |bits, (i, &x)| bits | u32::from(quant(x) >> 4) << i);
    bytes.extend(fifth.to_le_bytes());
    push_nibbles(block, bytes, |x| quant(x) & 15);
}

/// The nearest whole number, even ones before odd ones; adding and subtracting 1.5 * 2^23 rounds so.
#[inline(always)]
pub fn nearest(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}

/// `1 / d`, or 0 for a block so small that its scale vanishes.
pub fn inverse_or_zero(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}
