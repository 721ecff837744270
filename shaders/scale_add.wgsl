// Adds a multiple of one array to another.
//
//   y[i] <- y[i] + scale * x[i]
//
// Bindings
//   1 x [count]  in
//   2 y [count]  in/out
// Launch: one invocation an element. Before: two branches that end in a sum (residual, LoRA, accumulation).
// After: whoever reads the sum.

struct Params {
    count: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

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
    y[index] = y[index] + params.scale * x[index];
}
