// Powers of two, by which rows of halves are kept in range.

fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(127i + clamp(exponent, -126i, 127i)) << 23u);
}

// A number times a power of two, in two factors, so that neither leaves the range before the result does.
fn scaled(value: f32, exponent: i32) -> f32 {
    let half = exponent / 2i;
    return value * power_of_two(half) * power_of_two(exponent - half);
}
