// Inverted dropout from a counter: element i of a seed is kept or dropped whoever asks, in any order, so the backward
// pass is the same kernel on the gradient and a resumed run drops the same elements.
//
//   y[i] = x[i] / keep_probability if uniform(seed, i) < keep_probability, else 0
//   uniform(seed, i) = (random_bits(seed, i) >> 8) / 2^24; its Rust twin is temper_shaders::dropout_uniform.
// Where an element is dropped x is not used, so what it holds cannot matter.
//
// Bindings
//   1 x [count]  in
//   2 y [count]  out
// Launch: one invocation an element. Before: the input of a LoRA branch (or, backward, its gradient). After: the A
// product.

struct Params {
    count: u32,
    seed_low: u32,
    seed_high: u32,
    keep_probability: f32,
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
    let h = random_bits(params.seed_low, params.seed_high, index);
    // 24 bits fit f32 exactly, so the comparison is the same on every device.
    let uniform_value = f32(h >> 8u) * 5.9604644775390625e-8;
    var kept = 0.0;
    if (uniform_value < params.keep_probability) {
        kept = x[index] / params.keep_probability;
    }
    y[index] = kept;
}
