// Q5_K: blocks of 256 elements in 176 bytes: f16 d, f16 dmin, 12 bytes of scales and minima, 32 bytes of fifth bits,
// 128 bytes of nibbles. Element: d scale[j] q - dmin minimum[j]. Scales, minima and nibbles lie as in Q4_K; the fifth
// bit of element l of sub-block j is bit j of byte l.
fn element(i: u32) -> f32 {
    let block = (i / 256u) * 176u;
    let sub_block = (i % 256u) / 32u;
    let scales = block + 4u;
    var scale = 0u;
    var minimum = 0u;
    if (sub_block < 4u) {
        scale = read_u8(scales + sub_block) & 63u;
        minimum = read_u8(scales + sub_block + 4u) & 63u;
    } else {
        let low = read_u8(scales + sub_block + 4u);
        scale = (low & 0xfu) | ((read_u8(scales + sub_block - 4u) >> 6u) << 4u);
        minimum = (low >> 4u) | ((read_u8(scales + sub_block) >> 6u) << 4u);
    }
    let nibbles = read_u8(block + 48u + (sub_block / 2u) * 32u + i % 32u);
    let nibble = (nibbles >> ((sub_block % 2u) * 4u)) & 0xfu;
    let fifth = (read_u8(block + 16u + i % 32u) >> sub_block) & 1u;
    let product = (read_f16(block) * f32(scale)) * f32(nibble | (fifth << 4u));
    return product - read_f16(block + 2u) * f32(minimum);
}
