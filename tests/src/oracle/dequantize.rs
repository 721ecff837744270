//! Stored weight formats, one number at a time: each function says what number `i` of the stored bytes is. This is the
//! readable definition of every format; what the engine and the shaders do is tested against it.

use temper_engine::inside::weights::WeightFormat;

/// What number `i` of the stored bytes is.
pub type Definition = fn(&[u8], usize) -> f64;

/// The definition of a format.
pub fn definition(format: WeightFormat) -> Definition {
    match format {
        WeightFormat::F32 => stored_f32,
        WeightFormat::F16 => stored_f16,
        WeightFormat::Bf16 => stored_bf16,
        WeightFormat::Q4_0 => q4_0,
        WeightFormat::Q4_1 => q4_1,
        WeightFormat::Q5_0 => q5_0,
        WeightFormat::Q5_1 => q5_1,
        WeightFormat::Q8_0 => q8_0,
        WeightFormat::Q2K => q2_k,
        WeightFormat::Q3K => q3_k,
        WeightFormat::Q4K => q4_k,
        WeightFormat::Q5K => q5_k,
        WeightFormat::Q6K => q6_k,
        WeightFormat::Iq4Nl => iq4_nl,
        WeightFormat::Iq4Xs => iq4_xs,
    }
}

/// Random bytes as blocks of a format. The exponents of 16-bit floats are made moderate, since random ones are infinite or
/// NaN now and then.
pub fn moderate(format: WeightFormat, mut stored: Vec<u8>) -> Vec<u8> {
    for block in stored.chunks_mut(format.block_bytes()) {
        match format {
            WeightFormat::F32 => block[3] = block[3] & 0x80 | 0x3f,
            // Of the sixteen-bit formats, 0x38 is a number between 2^-15 and 1.
            _ => format.halves().iter().for_each(|at| block[at + 1] = block[at + 1] & 0x83 | 0x38),
        }
    }
    stored
}

/// Number `i` of f32 storage.
pub fn stored_f32(bytes: &[u8], i: usize) -> f64 {
    f64::from(f32::from_bits((0..4).map(|k| u32::from(bytes[4 * i + k]) << (8 * k)).sum()))
}

/// IEEE binary16 from its fields.
pub fn f16(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let mantissa = f64::from(bits & 1023);
    match exponent {
        0 => sign * mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1.0 + mantissa / 1024.0) * 2f64.powi(exponent - 15),
    }
}

fn half_at(bytes: &[u8], at: usize) -> f64 {
    f16(u16::from(bytes[at]) + 256 * u16::from(bytes[at + 1]))
}

/// Number `i` of f16 storage.
pub fn stored_f16(bytes: &[u8], i: usize) -> f64 {
    half_at(bytes, 2 * i)
}

/// Number `i` of bf16 storage: the upper half of an f32.
pub fn stored_bf16(bytes: &[u8], i: usize) -> f64 {
    f64::from(f32::from_bits((u32::from(bytes[2 * i]) + 256 * u32::from(bytes[2 * i + 1])) << 16))
}

/// Nibble of number `i` among 32: the low ones come first.
fn nibble(bytes: &[u8], i: usize) -> f64 {
    f64::from(if i < 16 { bytes[i] % 16 } else { bytes[i - 16] / 16 })
}

/// Number `i` of Q4_0: d (q - 8).
pub fn q4_0(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 32 * 18..][..18];
    half_at(block, 0) * (nibble(&block[2..], i % 32) - 8.0)
}

/// Number `i` of Q4_1: d q + m.
pub fn q4_1(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 32 * 20..][..20];
    half_at(block, 0) * nibble(&block[4..], i % 32) + half_at(block, 2)
}

/// Number `i` of Q5_0: d (q - 16), the fifth bits of all 32 numbers first.
pub fn q5_0(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 32 * 22..][..22];
    let fifth = block[2 + i % 32 / 8] / 2u8.pow(i as u32 % 8) % 2;
    half_at(block, 0) * (nibble(&block[6..], i % 32) + 16.0 * f64::from(fifth) - 16.0)
}

/// Number `i` of Q5_1: d q + m, the fifth bits of all 32 numbers first.
pub fn q5_1(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 32 * 24..][..24];
    let fifth = block[4 + i % 32 / 8] / 2u8.pow(i as u32 % 8) % 2;
    half_at(block, 0) * (nibble(&block[8..], i % 32) + 16.0 * f64::from(fifth)) + half_at(block, 2)
}

/// Number `i` of Q8_0: d q.
pub fn q8_0(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 32 * 34..][..34];
    half_at(block, 0) * f64::from(block[2 + i % 32] as i8)
}

/// Number `i` of Q2_K: d scale q - dmin min, sixteen runs of 16 numbers with a 4-bit scale and min each.
pub fn q2_k(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 256 * 84..][..84];
    let (half, group, within) = (i % 256 / 128, i % 128 / 32, i % 32);
    let both = block[i % 256 / 16];
    let q = block[16 + 32 * half + within] / 4u8.pow(group as u32) % 4;
    half_at(block, 80) * f64::from(both % 16) * f64::from(q) - half_at(block, 82) * f64::from(both / 16)
}

/// Number `i` of Q3_K: d (scale - 32) (q - 4), sixteen runs of 16 numbers with a 6-bit scale each.
pub fn q3_k(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 256 * 110..][..110];
    let (half, group, within, run) = (i % 256 / 128, i % 128 / 32, i % 32, i % 256 / 16);
    let packed = &block[96..108];
    let low = if run < 8 { packed[run] % 16 } else { packed[run - 8] / 16 };
    let scale = low + packed[8 + run % 4] / 4u8.pow(run as u32 / 4) % 4 * 16;
    let q = block[32 + 32 * half + within] / 4u8.pow(group as u32) % 4;
    // The high bits of all eight groups of 32 numbers are the bits of one byte.
    let high = block[within] / 2u8.pow((4 * half + group) as u32) % 2;
    half_at(block, 108) * (f64::from(scale) - 32.0) * (f64::from(q) + 4.0 * f64::from(high) - 4.0)
}

/// Scale and minimum of one of the eight runs of Q4_K and Q5_K, six bits each.
fn scale_and_min(packed: &[u8], run: usize) -> (u8, u8) {
    if run < 4 {
        (packed[run] % 64, packed[run + 4] % 64)
    } else {
        // Low four bits in the last four bytes, high two above the first eight bytes' own six.
        (packed[run + 4] % 16 + packed[run - 4] / 64 * 16, packed[run + 4] / 16 + packed[run] / 64 * 16)
    }
}

/// Number `i` of Q4_K: d scale q - dmin min, eight runs of 32 numbers with a 6-bit scale and min each.
pub fn q4_k(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 256 * 144..][..144];
    let (run, within) = (i % 256 / 32, i % 32);
    let (scale, min) = scale_and_min(&block[4..16], run);
    let byte = block[16 + run / 2 * 32 + within];
    let q = if run % 2 == 0 { byte % 16 } else { byte / 16 };
    half_at(block, 0) * f64::from(scale) * f64::from(q) - half_at(block, 2) * f64::from(min)
}

/// Number `i` of Q5_K: as Q4_K with a fifth bit; those of number l of all eight runs are the bits of byte l.
pub fn q5_k(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 256 * 176..][..176];
    let (run, within) = (i % 256 / 32, i % 32);
    let (scale, min) = scale_and_min(&block[4..16], run);
    let byte = block[48 + run / 2 * 32 + within];
    let q = if run % 2 == 0 { byte % 16 } else { byte / 16 };
    let fifth = block[16 + within] / 2u8.pow(run as u32) % 2;
    let q = f64::from(q) + 16.0 * f64::from(fifth);
    half_at(block, 0) * f64::from(scale) * q - half_at(block, 2) * f64::from(min)
}

/// Number `i` of Q6_K: d scale (q - 32), sixteen runs of 16 numbers with a signed 8-bit scale each.
pub fn q6_k(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 256 * 210..][..210];
    let (half, group, within) = (i % 256 / 128, i % 128 / 32, i % 32);
    let low = block[64 * half + group % 2 * 32 + within];
    let low = if group < 2 { low % 16 } else { low / 16 };
    let high = block[128 + 32 * half + within] / 4u8.pow(group as u32) % 4;
    let scale = block[192 + i % 256 / 16] as i8;
    half_at(block, 208) * f64::from(scale) * (f64::from(low) + 16.0 * f64::from(high) - 32.0)
}

/// What the sixteen nibbles of IQ4_NL and IQ4_XS stand for.
const LEVELS: [f64; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Number `i` of IQ4_NL: d level(q).
pub fn iq4_nl(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 32 * 18..][..18];
    half_at(block, 0) * LEVELS[nibble(&block[2..], i % 32) as usize]
}

/// Number `i` of IQ4_XS: d (scale - 32) level(q), eight runs of 32 numbers with a 6-bit scale each.
pub fn iq4_xs(bytes: &[u8], i: usize) -> f64 {
    let block = &bytes[i / 256 * 136..][..136];
    let run = i % 256 / 32;
    let low = block[4 + run / 2];
    let low = if run.is_multiple_of(2) { low % 16 } else { low / 16 };
    let high = block[2 + run / 4] / 4u8.pow(run as u32 % 4) % 4;
    let level = LEVELS[nibble(&block[8 + 16 * run..], i % 32) as usize];
    half_at(block, 0) * (f64::from(low) + 16.0 * f64::from(high) - 32.0) * level
}
