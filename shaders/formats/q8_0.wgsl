// Q8_0: blocks of 32 elements in 34 bytes: f16 d, 32 signed bytes. Element: d q.
fn element(i: u32) -> f32 {
    let block = (i / 32u) * 34u;
    return read_f16(block) * read_i8(block + 2u + i % 32u);
}
