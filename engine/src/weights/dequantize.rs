//! The readable definition of every stored format, and the way back for the formats that Temper writes.
//!
//! [`to_f32`] says what a stored tensor means; the fast versions on the CPU and on the GPU are tested against it. The
//! block layouts are those of ggml (`ggml-common.h`, `ggml-quants.c`). [`quantise`] makes f16, bf16, Q8_0 and Q4_0 out
//! of f32, for quantising on load and for writing models; its rounding is ggml's.

use half::{bf16, f16};

use super::{RawTensor, WeightFormat, tensor_error};
use crate::error::Result;

/// All elements of a tensor in f32, row-major. A trailing part that is no whole block is left out; the sources in this
/// crate never produce one.
pub fn to_f32(tensor: &RawTensor) -> Vec<f32> {
    blocks_to_f32(tensor.format, &tensor.bytes)
}

/// All elements of consecutive blocks in f32.
pub fn blocks_to_f32(format: WeightFormat, bytes: &[u8]) -> Vec<f32> {
    let mut out = Vec::with_capacity(bytes.len() / format.block_bytes() * format.block_elements());
    for block in bytes.chunks_exact(format.block_bytes()) {
        match format {
            WeightFormat::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            WeightFormat::F16 => out.push(f16_at(block, 0)),
            WeightFormat::Bf16 => out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
            WeightFormat::Q4_0 => q4(block, 2, f16_at(block, 0), -8.0 * f16_at(block, 0), &mut out),
            WeightFormat::Q4_1 => q4(block, 4, f16_at(block, 0), f16_at(block, 2), &mut out),
            WeightFormat::Q8_0 => {
                let d = f16_at(block, 0);
                out.extend(block[2..].iter().map(|&q| d * f32::from(q.cast_signed())));
            }
            WeightFormat::Q4K => q4_k(block, &mut out),
            WeightFormat::Q6K => q6_k(block, &mut out),
        }
    }
    out
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `d q + m`: the low nibbles of 16 bytes are elements 0..16, the high ones 16..32. (Q4_0 has `m = -8 d`; the products
/// are exact in f32, so this rounds like `d (q - 8)`, which is what is also exact.)
fn q4(block: &[u8], at: usize, d: f32, m: f32, out: &mut Vec<f32>) {
    let quants = &block[at..];
    out.extend(quants.iter().map(|q| d * f32::from(q & 15) + m));
    out.extend(quants.iter().map(|q| d * f32::from(q >> 4) + m));
}

/// Q4_K: f16 `d`, f16 `dmin`, 12 bytes with eight 6-bit scales and eight 6-bit minima, 128 bytes of nibbles. Group `g`
/// of 32 elements is `d scale[g] q - dmin min[g]`; groups 2k and 2k+1 are the low and the high nibbles of bytes
/// 32k..32k+32.
fn q4_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let packed = &block[4..16];
    for group in 0..8 {
        // The first four scales and minima are the low six bits of bytes 0..4 and 4..8; the others have their low four
        // bits in bytes 8..12 and their high two bits on top of those.
        let (scale, min) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let low = packed[group + 4];
            ((low & 15) | (packed[group - 4] >> 6 << 4), (low >> 4) | (packed[group] >> 6 << 4))
        };
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let bytes = &block[16 + group / 2 * 32..][..32];
        let shift = group % 2 * 4;
        out.extend(bytes.iter().map(|q| scale * f32::from((q >> shift) & 15) - min));
    }
}

/// Q6_K: 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen i8 scales, f16 `d`. Element `e` is
/// `d scale[e / 16] (q - 32)`. Within each half of 128 elements, quarter `k` of 32 takes its nibbles from bytes
/// `(k % 2) * 32 ..` (low for k < 2, else high) and its bit pair `k` from the 32 high bytes.
fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let d = f16_at(block, 208);
    for element in 0..256 {
        let (half, quarter, lane) = (element / 128, element % 128 / 32, element % 32);
        let low = block[half * 64 + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 15;
        let high = block[128 + half * 32 + lane] >> (2 * quarter) & 3;
        let scale = d * f32::from(block[192 + element / 16].cast_signed());
        out.push(scale * (f32::from(low | high << 4) - 32.0));
    }
}

/// Stores f32 values as `format`: F32, F16, BF16, Q8_0 or Q4_0.
///
/// Q8_0: `d = max|x| / 127`, `q = round(x / d)`. Q4_0: `d = x* / -8` with `x*` the element of largest magnitude,
/// `q = min(15, floor(x / d + 8.5))`. `d` is stored in f16, the values are rounded with the unrounded one, as in ggml.
///
/// # Errors
/// [`crate::Error::Tensor`] where shape and values disagree, a row is no whole number of blocks, a value or a block's
/// scale is no finite number in that format, or Temper does not write that format.
pub fn quantise(name: &str, shape: &[usize], values: &[f32], format: WeightFormat) -> Result<RawTensor> {
    let refuse = |problem: String| Err(tensor_error("values to store", name, problem));
    if shape.iter().product::<usize>() != values.len() || format.bytes_for_shape(shape).is_none() {
        return refuse(format!("{} values are no {} tensor of shape {shape:?}", values.len(), format.name()));
    }
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return refuse(format!("element {at} is {}", values[at]));
    }
    let mut bytes = Vec::with_capacity(format.bytes_for(values.len()).unwrap_or(0));
    for (index, block) in values.chunks_exact(format.block_elements()).enumerate() {
        let fits = match format {
            WeightFormat::F32 => {
                bytes.extend(block[0].to_le_bytes());
                true
            }
            WeightFormat::F16 => push_f16(block[0], &mut bytes),
            WeightFormat::Bf16 => {
                let rounded = bf16::from_f32(block[0]);
                bytes.extend(rounded.to_le_bytes());
                rounded.is_finite()
            }
            WeightFormat::Q8_0 => {
                let d = block.iter().fold(0.0_f32, |m, x| m.max(x.abs())) / 127.0;
                let inverse = inverse_or_zero(d);
                let fits = push_f16(d, &mut bytes);
                bytes.extend(block.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned()));
                fits
            }
            WeightFormat::Q4_0 => {
                let largest = block.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
                let d = largest / -8.0;
                let inverse = inverse_or_zero(d);
                let fits = push_f16(d, &mut bytes);
                let quant = |x: f32| ((x * inverse + 8.5) as u8).min(15);
                bytes.extend((0..16).map(|i| quant(block[i]) | quant(block[i + 16]) << 4));
                fits
            }
            WeightFormat::Q4_1 | WeightFormat::Q4K | WeightFormat::Q6K => {
                return refuse(format!("Temper reads {} but does not write it", format.name()));
            }
        };
        if !fits {
            let first = index * format.block_elements();
            return refuse(format!("elements from {first} on are too large for {}", format.name()));
        }
    }
    Ok(RawTensor { name: name.to_owned(), shape: shape.to_vec(), format, bytes })
}

/// `1 / d`, or 0 for a block so small that its scale vanishes.
fn inverse_or_zero(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Appends a half-precision number; false where it overflows.
fn push_f16(value: f32, bytes: &mut Vec<u8>) -> bool {
    let rounded = f16::from_f32(value);
    bytes.extend(rounded.to_le_bytes());
    rounded.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0 * (1.0 + (i / 32) as f32)).collect()
    }

    #[test]
    fn each_format_gives_as_many_elements_as_its_blocks_hold() {
        for format in WeightFormat::ALL {
            let bytes = vec![0x11; 3 * format.block_bytes()];
            assert_eq!(blocks_to_f32(format, &bytes).len(), 3 * format.block_elements(), "{format:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back_within_half_a_step() {
        let values = wave(128);
        for (format, steps) in [(WeightFormat::F32, 0.0), (WeightFormat::F16, 2e-3), (WeightFormat::Bf16, 8e-3)] {
            let stored = quantise("t", &[2, 64], &values, format).unwrap();
            for (found, &value) in to_f32(&stored).iter().zip(&values) {
                assert!((found - value).abs() <= steps * value.abs(), "{format:?}: {found} for {value}");
            }
        }
        for (format, levels, slack) in [(WeightFormat::Q8_0, 127.0, 0.51), (WeightFormat::Q4_0, 8.0, 1.01)] {
            let stored = quantise("t", &[2, 64], &values, format).unwrap();
            for (block, found) in values.chunks(32).zip(to_f32(&stored).chunks(32)) {
                let largest = block.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                for (x, y) in block.iter().zip(found) {
                    // The far end of Q4_0's range is one level short, hence a whole step there. The scale is an f16.
                    assert!((x - y).abs() <= largest / levels * slack + 1e-3 * largest, "{format:?}: {y} for {x}");
                }
            }
        }
    }

    #[test]
    fn zeros_and_what_vanishes_beside_an_f16_scale_become_zeros() {
        for format in [WeightFormat::F16, WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_0] {
            let stored = quantise("t", &[32], &[0.0; 32], format).unwrap();
            assert!(to_f32(&stored).iter().all(|&x| x == 0.0), "{format:?}");
            let stored = quantise("t", &[32], &[1e-44; 32], format).unwrap();
            assert!(to_f32(&stored).iter().all(|&x| x.abs() <= 1e-44), "{format:?}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_an_error() {
        let one = |x: f32| vec![x; 32];
        assert!(quantise("t", &[32], &one(f32::NAN), WeightFormat::F32).is_err());
        assert!(quantise("t", &[32], &one(1e6), WeightFormat::F16).is_err());
        assert!(quantise("t", &[32], &one(f32::MAX), WeightFormat::Bf16).is_err());
        assert!(quantise("t", &[32], &one(1e9), WeightFormat::Q8_0).is_err());
        assert!(quantise("t", &[31], &one(1.0)[..31], WeightFormat::Q8_0).is_err());
        assert!(quantise("t", &[64], &one(1.0), WeightFormat::F32).is_err());
        assert!(quantise("t", &[256], &wave(256), WeightFormat::Q4K).is_err());
    }
}
