// BF16: the i-th upper half of an f32.
fn element(i: u32) -> f32 {
    return bitcast<f32>(read_u16(i * 2u) << 16u);
}
