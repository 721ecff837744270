// Q4_K: blocks of 256 elements in 144 bytes: f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes of nibbles.
// Element: d scale[j] q - dmin minimum[j].
// Sub-block j holds elements 32 j .. 32 j + 31: the low (j even) or high (j odd) nibbles of the 32 bytes that start at
// byte 32 (j / 2). The 12 bytes hold eight scales and eight minima of six bits. Scale j < 4 is the low six bits of byte
// j, minimum j < 4 those of byte j + 4. For j >= 4, byte j + 4 holds the low four bits of the scale (low nibble) and of
// the minimum (high nibble); their upper two bits are those of bytes j - 4 and j.
fn element(i: u32) -> f32 {
    let block = (i / 256u) * 144u;
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
    let nibbles = read_u8(block + 16u + (sub_block / 2u) * 32u + i % 32u);
    let nibble = (nibbles >> ((sub_block % 2u) * 4u)) & 0xfu;
    let product = (read_f16(block) * f32(scale)) * f32(nibble);
    return product - read_f16(block + 2u) * f32(minimum);
}
