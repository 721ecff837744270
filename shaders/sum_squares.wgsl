// Partial sums of squares, for gradient norms.
//
//   partial[g] = Σ x[i]² over the i with (i / WORKGROUP_SIZE) % groups == g
// Every partial sum is written, so the host or a second pass adds exactly `groups` numbers, in order: no atomics, the
// same bits every run.
//
// Bindings
//   1 x            [count]   in
//   2 partial_sums [groups]  out
// Launch: `groups` workgroups, any number from 1. Before: the block's backward pass. After: the host's clipping by the
// global norm.

struct Params {
    count: u32,
    groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial_sums: array<f32>;

override WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_workgroup(workgroup_id, workgroups);
    if (group >= params.groups) {
        return;
    }
    var own_sum = 0.0;
    for (var index = group * WORKGROUP_SIZE + lane; index < params.count; index += params.groups * WORKGROUP_SIZE) {
        own_sum += x[index] * x[index];
    }
    let sum = workgroup_sum(lane, own_sum);
    if (lane == 0u) {
        partial_sums[group] = sum;
    }
}
