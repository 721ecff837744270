// Copies (or adds) a block of columns between arrays of different row lengths: slices fused projections and joins them
// again.
//
//   target[r * target_stride + target_offset + j] (+)= source[r * source_stride + source_offset + j],  j < width
//
// Bindings
//   1 source_values [rows, source_stride]  in
//   2 target_values [rows, target_stride]  in/out  added to where accumulate is 1, else overwritten (and not read)
// Launch: one invocation an element, rows * width. Before: a fused projection. After: whoever wants one part of it.

struct Params {
    rows: u32,
    source_stride: u32,
    source_offset: u32,
    target_stride: u32,
    target_offset: u32,
    width: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> source_values: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_values: array<f32>;

const WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_workgroup(workgroup_id, workgroups) * WORKGROUP_SIZE + lane;
    if (index >= params.rows * params.width) {
        return;
    }
    let row = index / params.width;
    let column = index % params.width;
    let to = row * params.target_stride + params.target_offset + column;
    var value = source_values[row * params.source_stride + params.source_offset + column];
    if (params.accumulate != 0u) {
        value += target_values[to];
    }
    target_values[to] = value;
}
