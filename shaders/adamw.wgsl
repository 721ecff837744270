// One AdamW step with decoupled decay, as torch.optim.AdamW orders it.
//
//   g = gradient_scale * gradient
//   p <- p (1 - learning_rate * weight_decay)
//   m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g²
//   p <- p - learning_rate / bias1 * m / (sqrt(v) / sqrt(bias2) + epsilon)        bias_k = 1 - beta_k^t, t from 1
// gradient_scale is where clipping by the global norm enters. Clearing the gradient is the host's business.
//
// Bindings
//   1 parameter     [count]  in/out
//   2 gradient      [count]  in
//   3 first_moment  [count]  in/out  m, zeros before step 1
//   4 second_moment [count]  in/out  v, zeros before step 1
// Launch: one invocation an element. Before: the block's backward pass and sum_squares. After: the next forward pass.

struct Params {
    count: u32,
    learning_rate: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    bias1: f32,
    bias2: f32,
    gradient_scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> first_moment: array<f32>;
@group(0) @binding(4) var<storage, read_write> second_moment: array<f32>;

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
    let g = params.gradient_scale * gradient[index];
    let m = params.beta1 * first_moment[index] + (1.0 - params.beta1) * g;
    let v = params.beta2 * second_moment[index] + (1.0 - params.beta2) * g * g;
    first_moment[index] = m;
    second_moment[index] = v;
    let decayed = parameter[index] * (1.0 - params.learning_rate * params.weight_decay);
    let denominator = sqrt(v) / sqrt(params.bias2) + params.epsilon;
    parameter[index] = decayed - params.learning_rate / params.bias1 * (m / denominator);
}
