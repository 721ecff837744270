// Reads of one and two little-endian bytes out of `packed_words`, the array of u32 that the kernel binds.

fn read_u8(byte: u32) -> u32 {
    return (packed_words[byte / 4u] >> ((byte % 4u) * 8u)) & 0xffu;
}

fn read_i8(byte: u32) -> f32 {
    return f32(bitcast<i32>(read_u8(byte) << 24u) >> 24u);
}

// `byte` must be even: then a half word never straddles two words. It is in every format that has any, since a block of
// those is an even number of bytes.
fn read_u16(byte: u32) -> u32 {
    return (packed_words[byte / 4u] >> ((byte % 4u) * 8u)) & 0xffffu;
}

// IEEE binary16 by hand: unpack2x16float may flush subnormals, and small block scales are subnormal.
fn read_f16(byte: u32) -> f32 {
    let half = read_u16(byte);
    let sign = (half & 0x8000u) << 16u;
    let exponent = (half >> 10u) & 0x1fu;
    let mantissa = half & 0x3ffu;
    if (exponent == 0u) {
        // Zero or subnormal: mantissa * 2^-24, exact and normal in f32; the sign goes in by its bit to keep -0.
        return bitcast<f32>(sign | bitcast<u32>(f32(mantissa) * 5.9604644775390625e-8));
    }
    if (exponent == 31u) {
        return bitcast<f32>(sign | 0x7f800000u | (mantissa << 13u));
    }
    return bitcast<f32>(sign | ((exponent + 112u) << 23u) | (mantissa << 13u));
}

