// Backward pass of gated_mlp, written over its input.
//
//   with σ = 1 / (1 + e^-v), v = gate or, for gelu by tanh, 2 sqrt(2/π) (gate + 0.044715 gate³), v' its slope:
//   gate <- dy * up * σ * (1 + gate * (1 - σ) * v')        up <- dy * gate * σ
//
// Bindings
//   1 gate_up [rows * 2 * width]  in/out  the forward input (gate half, then up half); afterwards its gradient
//   2 dy      [rows * width]      in
// Launch: one invocation an element of dy; it alone touches its gate and its up.
// Before: the backward pass of the down projection. After: the backward passes of the gate and up projections.

struct Params {
    rows: u32,
    width: u32,
    activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;

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
    // Row r of gate_up starts at 2 r width = r width further than row r of dy.
    let at_gate = index + (index / params.width) * params.width;
    let at_up = at_gate + params.width;
    let gate = gate_up[at_gate];
    let up = gate_up[at_up];
    let inside = inside_sigmoid(gate, params.activation);
    let activation = sigmoid(inside.x);
    let gradient = dy[index];
    // 1 - σ(v) is σ(-v), which keeps its precision where σ rounds to 1.
    gate_up[at_gate] = gradient * up * activation * (1.0 + gate * (sigmoid(-inside.x) * inside.y));
    gate_up[at_up] = gradient * gate * activation;
}
