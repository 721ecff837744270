// IQ4_NL: blocks of 32 elements in 18 bytes: f16 d, 16 bytes of nibbles; the low nibbles are elements 0..15, the high
// ones 16..31. Element: d level(q), the levels being -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113; here
// 128 more of each is a byte of four words.
fn element(i: u32) -> f32 {
    let block = (i / 32u) * 18u;
    let within = i % 32u;
    let q = (read_u8(block + 2u + within % 16u) >> ((within / 16u) * 4u)) & 0xfu;
    let words = vec4<u32>(0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);
    let level = f32((words[q / 4u] >> ((q % 4u) * 8u)) & 0xffu) - 128.0;
    return read_f16(block) * level;
}
