// Q6_K: blocks of 256 elements in 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales,
// f16 d. Element: d scale (q - 32).
// Each half of 128 elements has 64 + 32 bytes and 8 scales of its own. In a half, element e = 32 g + l takes its nibble
// from byte 32 (g % 2) + l (low if g < 2, else high), its upper bits from bits 2 g and 2 g + 1 of byte l, and scale
// 2 g + l / 16.
fn element(i: u32) -> f32 {
    let block = (i / 256u) * 210u;
    let half_block = (i % 256u) / 128u;
    let group = (i % 128u) / 32u;
    let l = i % 32u;
    let low_byte = read_u8(block + half_block * 64u + (group % 2u) * 32u + l);
    let low = (low_byte >> ((group / 2u) * 4u)) & 0xfu;
    let high = (read_u8(block + 128u + half_block * 32u + l) >> (group * 2u)) & 3u;
    let scale = read_i8(block + 192u + half_block * 8u + group * 2u + l / 16u);
    return read_f16(block + 208u) * scale * (f32(low | (high << 4u)) - 32.0);
}
