// De-quantisation of Q4_K blocks, as GGUF stores them, to f32.
//
//   block of 256 elements, 144 bytes: f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes of nibbles
//   out = d scale[j] q - dmin minimum[j]
// Sub-block j holds elements 32 j .. 32 j + 31: the low (j even) or high (j odd) nibbles of the 32 bytes that start at
// byte 32 (j / 2). The 12 bytes hold eight scales and eight minima of six bits. Scale j < 4 is the low six bits of byte
// j, minimum j < 4 those of byte j + 4. For j >= 4, byte j + 4 holds the low four bits of the scale (low nibble) and of
// the minimum (high nibble); their upper two bits are those of bytes j - 4 and j.
//
// Bindings
//   1 packed_words [words] u32  in   the bytes, little endian, from byte_offset on, which may be any byte
//   2 out          [count]      out
// Launch: one invocation an element. Before: the weights' upload. After: the GEMM that multiplies by the matrix.

struct Params {
    count: u32,
    byte_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> packed_words: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

const WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_workgroup(workgroup_id, workgroups) * WORKGROUP_SIZE + lane;
    if (index >= params.count) {
        return;
    }
    let block = params.byte_offset + (index / 256u) * 144u;
    let element = index % 256u;
    let sub_block = element / 32u;
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
    let nibbles = read_u8(block + 16u + (sub_block / 2u) * 32u + element % 32u);
    let nibble = (nibbles >> ((sub_block % 2u) * 4u)) & 0xfu;
    let product = (read_f16(block) * f32(scale)) * f32(nibble);
    out[index] = product - read_f16(block + 2u) * f32(minimum);
}
