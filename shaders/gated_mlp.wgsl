// The product inside a gated MLP.
//
//   y[r, j] = act(gate[r, j]) * up[r, j]
//   act(g) = g σ(g), σ(x) = 1 / (1 + e^-x) (silu), or g (1 + tanh(sqrt(2/π) (g + 0.044715 g³))) / 2 (gelu by tanh)
//
// Bindings
//   1 gate_up [rows * 2 * width]  in   a row holds the gate half, then the up half
//   2 y       [rows * width]      out
// Launch: one invocation an element of y. Before: the gate and up projections. After: the down projection.

struct Params {
    rows: u32,
    width: u32,
    activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

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
    // Row r of gate_up starts at 2 r width = r width further than row r of y.
    let at_gate = index + (index / params.width) * params.width;
    let gate = gate_up[at_gate];
    y[index] = gate * sigmoid(inside_sigmoid(gate, params.activation).x) * gate_up[at_gate + params.width];
}
