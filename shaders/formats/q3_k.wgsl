// Q3_K: blocks of 256 elements in 110 bytes: 32 bytes of high bits, 64 bytes of bit pairs, 12 bytes of scales, f16 d.
// Element: d (scale[r] - 32) (q - 4), with a scale for each run r of 16 elements. Element 32 g + l of half h of 128
// elements takes its low bits from bits 2 g and 2 g + 1 of byte l of that half's 32, its high bit from bit 4 h + g of
// byte l. Scale r has six bits: the low four in byte r % 8 (low nibble if r < 8, else high), the upper two in byte 8
// + r % 4, from bit 2 (r / 4) up.
fn element(i: u32) -> f32 {
    let block = (i / 256u) * 110u;
    let within = i % 256u;
    let run = within / 16u;
    let scales = block + 96u;
    let scale_low = (read_u8(scales + run % 8u) >> ((run / 8u) * 4u)) & 0xfu;
    let scale_high = (read_u8(scales + 8u + run % 4u) >> ((run / 4u) * 2u)) & 3u;
    let pairs = read_u8(block + 32u + (within / 128u) * 32u + within % 32u);
    let low = (pairs >> (((within % 128u) / 32u) * 2u)) & 3u;
    let high = (read_u8(block + within % 32u) >> (within / 32u)) & 1u;
    let scale = read_f16(block + 108u) * (f32(scale_low | (scale_high << 4u)) - 32.0);
    return scale * (f32(low | (high << 2u)) - 4.0);
}
