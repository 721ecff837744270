// IEEE binary16 by hand: pack2x16float and unpack2x16float may flush subnormals, and need a capability in naga.

const LARGEST_HALF: u32 = 0x477fe000u;
const LEAST_NORMAL_HALF: u32 = 0x38800000u;

// The nearest number in 16 bits, ties to even; beyond 65504, also infinity and NaN, 65504 with its sign.
fn half_of(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = min(bits & 0x7fffffffu, LARGEST_HALF);
    if (magnitude < LEAST_NORMAL_HALF) {
        // The last place of 0.5 is 2^-24, that of subnormal numbers: the addition rounds to it.
        return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u);
    }
    return sign | (((magnitude + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u) - (112u << 10u));
}

// What 16 bits mean that are neither infinity nor NaN.
fn value_of_half(half: u32) -> f32 {
    let sign = (half & 0x8000u) << 16u;
    let exponent = (half >> 10u) & 0x1fu;
    let mantissa = half & 0x3ffu;
    if (exponent == 0u) {
        return bitcast<f32>(sign | bitcast<u32>(f32(mantissa) * 5.9604644775390625e-8));
    }
    return bitcast<f32>(sign | ((exponent + 112u) << 23u) | (mantissa << 13u));
}

