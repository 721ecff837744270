// IQ4_XS: blocks of 256 elements in 136 bytes: f16 d, 2 bytes of the scales' upper bit pairs, 4 bytes of their low
// nibbles, 128 bytes of nibbles. Element: d (scale[j] - 32) level(q), with the levels of IQ4_NL. Sub-block j of 32
// elements has 16 bytes of nibbles: the low ones are its elements 0..15, the high ones 16..31.
fn element(i: u32) -> f32 {
    let block = (i / 256u) * 136u;
    let sub_block = (i % 256u) / 32u;
    let within = i % 32u;
    let scale_low = (read_u8(block + 4u + sub_block / 2u) >> ((sub_block % 2u) * 4u)) & 0xfu;
    let scale_high = (read_u8(block + 2u + sub_block / 4u) >> ((sub_block % 4u) * 2u)) & 3u;
    let q = (read_u8(block + 8u + sub_block * 16u + within % 16u) >> ((within / 16u) * 4u)) & 0xfu;
    let words = vec4<u32>(0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);
    let level = f32((words[q / 4u] >> ((q % 4u) * 8u)) & 0xffu) - 128.0;
    return (read_f16(block) * (f32(scale_low | (scale_high << 4u)) - 32.0)) * level;
}
