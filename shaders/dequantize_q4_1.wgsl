// De-quantisation of Q4_1 blocks, as GGUF stores them, to f32.
//
//   block of 32 elements, 20 bytes: f16 d, f16 m, 16 bytes of nibbles; the low nibbles are elements 0..15, the high
//     ones 16..31
//   out = d q + m
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
    let block = params.byte_offset + (index / 32u) * 20u;
    let element = index % 32u;
    let nibble = (read_u8(block + 4u + element % 16u) >> ((element / 16u) * 4u)) & 0xfu;
    out[index] = read_f16(block) * f32(nibble) + read_f16(block + 2u);
}
