//! Stored weights to f32: f16, bf16 and the GGUF block formats, in ggml's layouts (little-endian).

use half::f16;

use super::par;
use super::simd::vectorised;

/// Elements of a small block.
const BLOCK: usize = 32;
/// Elements of a super-block of the K formats.
const SUPER_BLOCK: usize = 256;

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Cuts both arrays into blocks of `bytes` stored bytes and `N` numbers and expands each.
fn blocks<const N: usize>(
    stored: &[u8],
    bytes: usize,
    out: &mut [f32],
    expand: impl Fn(&[u8], &mut [f32; N]) + Sync + Send,
) {
    assert!(
        out.len().is_multiple_of(N) && stored.len() == out.len() / N * bytes,
        "whole blocks of {N} in {bytes} bytes"
    );
    let per_task = par::ELEMENTS / N;
    par::pieces(out, per_task * N, |index, out| {
        let stored = &stored[index * per_task * bytes..];
        for (block, out) in stored.chunks_exact(bytes).zip(out.as_chunks_mut::<N>().0) {
            expand(block, out);
        }
    });
}

/// f16, 2 bytes each.
pub fn dequantize_f16(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), 2 * out.len());
    par::pieces(out, par::ELEMENTS, |index, out| {
        f16_piece(bytes[2 * index * par::ELEMENTS..].as_chunks::<2>().0, out);
    });
}

/// bf16, 2 bytes each.
pub fn dequantize_bf16(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), 2 * out.len());
    par::pieces(out, par::ELEMENTS, |index, out| {
        bf16_piece(bytes[2 * index * par::ELEMENTS..].as_chunks::<2>().0, out);
    });
}

/// Q4_0: 18 bytes for 32 numbers: f16 d, then 16 bytes whose low nibbles are numbers 0..15 and high nibbles 16..31; value
/// d (q - 8).
pub fn dequantize_q4_0(bytes: &[u8], out: &mut [f32]) {
    blocks::<BLOCK>(bytes, 18, out, |block, out| {
        let d = half_at(block, 0);
        for (i, &q) in block[2..18].iter().enumerate() {
            out[i] = d * (f32::from(q & 15) - 8.0);
            out[i + 16] = d * (f32::from(q >> 4) - 8.0);
        }
    });
}

/// Q4_1: 20 bytes for 32 numbers: f16 d, f16 m, nibbles as in Q4_0; value d q + m.
pub fn dequantize_q4_1(bytes: &[u8], out: &mut [f32]) {
    blocks::<BLOCK>(bytes, 20, out, |block, out| {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        for (i, &q) in block[4..20].iter().enumerate() {
            out[i] = d * f32::from(q & 15) + m;
            out[i + 16] = d * f32::from(q >> 4) + m;
        }
    });
}

/// Q8_0: 34 bytes for 32 numbers: f16 d, then 32 signed bytes; value d q.
pub fn dequantize_q8_0(bytes: &[u8], out: &mut [f32]) {
    blocks::<BLOCK>(bytes, 34, out, |block, out| {
        let d = half_at(block, 0);
        for (out, &q) in out.iter_mut().zip(&block[2..34]) {
            *out = d * f32::from(q as i8);
        }
    });
}

/// Q4_K: 144 bytes for 256 numbers: f16 d, f16 dmin, 12 bytes of eight 6-bit (scale, min) pairs, then 128 bytes; each run
/// of 32 bytes holds 32 numbers in its low nibbles and the next 32 in its high ones. Value d scale q - dmin min.
pub fn dequantize_q4_k(bytes: &[u8], out: &mut [f32]) {
    blocks::<SUPER_BLOCK>(bytes, 144, out, |block, out| {
        let (d, dmin) = (half_at(block, 0), half_at(block, 2));
        let packed = &block[4..16];
        // Pairs 0..3 lie in the low six bits of bytes 0..3 and 4..7; pairs 4..7 have their low four bits in bytes 8..11
        // and their high two in the tops of the former.
        let pair = |j: usize| {
            if j < 4 {
                (packed[j] & 63, packed[j + 4] & 63)
            } else {
                ((packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4), (packed[j + 4] >> 4) | (packed[j] >> 6 << 4))
            }
        };
        for (run, (quants, out)) in block[16..144].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
            for (half, out) in out.chunks_exact_mut(32).enumerate() {
                let (scale, min) = pair(2 * run + half);
                let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
                for (out, &q) in out.iter_mut().zip(quants) {
                    *out = scale * f32::from((q >> (4 * half)) & 15) - min;
                }
            }
        }
    });
}

/// Q6_K: 210 bytes for 256 numbers: 128 bytes of low four bits, 64 bytes of high two bits, 16 signed scales, f16 d. Value
/// d scale (q - 32). Per half of 128 numbers, number 32 g + l (g = 0..3) has its low bits in byte l + 32 (g mod 2), low
/// nibble for g < 2, its high bits in byte l at 2 g, and scale 2 g + l / 16.
pub fn dequantize_q6_k(bytes: &[u8], out: &mut [f32]) {
    blocks::<SUPER_BLOCK>(bytes, 210, out, |block, out| {
        let d = half_at(block, 208);
        for (h, out) in out.chunks_exact_mut(128).enumerate() {
            let (low, high, scales) = (&block[64 * h..64 * (h + 1)], &block[128 + 32 * h..], &block[192 + 8 * h..]);
            for (g, out) in out.chunks_exact_mut(32).enumerate() {
                let scale = |i: usize| d * f32::from(scales[2 * g + i] as i8);
                let low = &low[32 * (g % 2)..32 * (g % 2) + 32];
                q6_k_group(low, 4 * (g as u32 / 2), &high[..32], 2 * g as u32, [scale(0), scale(1)], out);
            }
        }
    });
}

vectorised! {
    /// The bits of f16 moved into f32's fields and the exponent's offset corrected by a product, which also makes subnormal
    /// numbers right; infinity and NaN get their exponent back.
    fn f16_piece<FMA>(bytes: &[[u8; 2]], out: &mut [f32]) {
        /// 2^112, the difference of the exponents' offsets.
        const OFFSET: f32 = f32::from_bits((127 + 112) << 23);
        for (two, out) in bytes.iter().zip(out) {
            let bits = u32::from(u16::from_le_bytes(*two));
            let (sign, rest) = ((bits & 0x8000) << 16, bits & 0x7fff);
            let magnitude = (f32::from_bits(rest << 13) * OFFSET).to_bits();
            let magnitude = if rest >= 0x7c00 { magnitude | 0x7f80_0000 } else { magnitude };
            *out = f32::from_bits(magnitude | sign);
        }
    }

    /// bf16 is the upper half of an f32.
    fn bf16_piece<FMA>(bytes: &[[u8; 2]], out: &mut [f32]) {
        for (two, out) in bytes.iter().zip(out) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*two)) << 16);
        }
    }

    /// 32 numbers of Q6_K.
    fn q6_k_group<FMA>(low: &[u8], low_shift: u32, high: &[u8], high_shift: u32, scale: [f32; 2], out: &mut [f32]) {
        let parts = low.chunks_exact(16).zip(high.chunks_exact(16)).zip(out.chunks_exact_mut(16)).zip(scale);
        for (((low, high), out), scale) in parts {
            for ((low, high), out) in low.iter().zip(high).zip(out) {
                let q = ((i32::from(*low) >> low_shift) & 15) | (((i32::from(*high) >> high_shift) & 3) << 4);
                *out = scale * (q - 32) as f32;
            }
        }
    }
}
