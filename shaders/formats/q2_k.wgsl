// Q2_K: blocks of 256 elements in 84 bytes: 16 bytes of scales (low nibble) and minima (high nibble), one for each 16
// elements, 64 bytes of bit pairs, f16 d, f16 dmin. Element: d scale q - dmin minimum.
// Each half of 128 elements has 32 bytes of its own. In a half, element 32 g + l is bits 2 g and 2 g + 1 of byte l.
fn element(i: u32) -> f32 {
    let block = (i / 256u) * 84u;
    let within = i % 256u;
    let scales = read_u8(block + within / 16u);
    let pairs = read_u8(block + 16u + (within / 128u) * 32u + within % 32u);
    let q = (pairs >> (((within % 128u) / 32u) * 2u)) & 3u;
    let product = (read_f16(block + 80u) * f32(scales & 0xfu)) * f32(q);
    return product - read_f16(block + 82u) * f32(scales >> 4u);
}
