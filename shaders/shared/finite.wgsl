// Tests for NaN and infinity by their bits: compilers may assume that neither exists and fold `x != x` to false.
const EXPONENT_BITS: u32 = 0x7f800000u;
const NEGATIVE_INFINITY_BITS: u32 = 0xff800000u;
// The lowest f32. Stands for "no value" wherever a maximum or a sorted list starts: WGSL has no literal for -infinity.
// In hexadecimal, because Chrome refuses the usual -3.4028235e38: it is a hair beyond what f32 holds.
const LOWEST: f32 = -0x1.fffffep+127;
// e^d is zero in f32 for every d at or below this one.
const NEGLIGIBLE: f32 = -104.0;

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & EXPONENT_BITS) != EXPONENT_BITS;
}

fn is_negative_infinity(x: f32) -> bool {
    return bitcast<u32>(x) == NEGATIVE_INFINITY_BITS;
}

