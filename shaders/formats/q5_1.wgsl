// Q5_1: blocks of 32 elements in 24 bytes: f16 d, f16 m, 4 bytes with the fifth bit of each element, 16 bytes of
// nibbles; the low nibbles are elements 0..15, the high ones 16..31. Element: d q + m.
fn element(i: u32) -> f32 {
    let block = (i / 32u) * 24u;
    let within = i % 32u;
    let nibble = (read_u8(block + 8u + within % 16u) >> ((within / 16u) * 4u)) & 0xfu;
    let fifth = (read_u8(block + 4u + within / 8u) >> (within % 8u)) & 1u;
    return read_f16(block) * f32(nibble | (fifth << 4u)) + read_f16(block + 2u);
}
