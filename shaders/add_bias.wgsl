// Adds a bias to each row, in place.
//
//   x[r, j] <- x[r, j] + bias[j]
//
// Bindings
//   1 x    [rows * width]  in/out
//   2 bias [width]         in
// Launch: one invocation an element of x. Before: the GEMM of a projection with a bias (Qwen2's q, k, v).
// After: rotary.

struct Params {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;

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
    x[index] = x[index] + bias[index % params.width];
}
