// F16: the i-th IEEE binary16 number.
fn element(i: u32) -> f32 {
    return read_f16(i * 2u);
}
