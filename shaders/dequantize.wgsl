// De-quantisation of a stored matrix to f32. The part of `formats/` in front says what element i is.
//
//   out[start + i] = value(first + i),   i < count
//
// Bindings
//   1 packed_words [words] u32  in   the stored bytes, little endian, the last word padded
//   2 out          [..]         out
// Launch: one invocation an element. Before: the weights' upload. After: the GEMM that multiplies by the matrix.

struct Params {
    count: u32,
    first: u32,
    start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
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
    out[params.start + index] = value(params.first + index);
}
