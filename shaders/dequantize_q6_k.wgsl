// De-quantisation of Q6_K blocks, as GGUF stores them, to f32.
//
//   block of 256 elements, 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales, f16 d
//   out = d scale (q - 32)
// Each half of 128 elements has 64 + 32 bytes and 8 scales of its own. In a half, element e = 32 g + l takes its nibble
// from byte 32 (g % 2) + l (low if g < 2, else high), its upper bits from bits 2 g and 2 g + 1 of byte l, and scale
// 2 g + l / 16.
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
    let block = params.byte_offset + (index / 256u) * 210u;
    let half_block = (index % 256u) / 128u;
    let group = (index % 128u) / 32u;
    let l = index % 32u;
    let low_byte = read_u8(block + half_block * 64u + (group % 2u) * 32u + l);
    let low = (low_byte >> ((group / 2u) * 4u)) & 0xfu;
    let high = (read_u8(block + 128u + half_block * 32u + l) >> (group * 2u)) & 3u;
    let scale = read_i8(block + 192u + half_block * 8u + group * 2u + l / 16u);
    out[index] = read_f16(block + 208u) * scale * (f32(low | (high << 4u)) - 32.0);
}
