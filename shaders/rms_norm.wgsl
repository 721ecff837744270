// Root-mean-square normalisation.
//
//   inverse_rms[r] = 1 / sqrt(Σ_j x[r, j]² / width + epsilon)        y[r, j] = x[r, j] * inverse_rms[r] * scale[j]
//
// Bindings
//   1 x           [rows * width]  in
//   2 scale       [width]         in   the norm's weight
//   3 y           [rows * width]  out
//   4 inverse_rms [rows]          out  kept for the two backward kernels
// Launch: one workgroup a row. Before: the residual stream (or one head of q, k). After: a projection.

struct Params {
    rows: u32,
    width: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> inverse_rms: array<f32>;

override WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup_id, workgroups);
    if (row >= params.rows) {
        return;
    }
    let row_start = row * params.width;
    var squares = 0.0;
    for (var column = lane; column < params.width; column += WORKGROUP_SIZE) {
        let value = x[row_start + column];
        squares += value * value;
    }
    let mean = workgroup_sum(lane, squares) / f32(params.width);
    let inverse = 1.0 / sqrt(mean + params.epsilon);
    if (lane == 0u) {
        inverse_rms[row] = inverse;
    }
    for (var column = lane; column < params.width; column += WORKGROUP_SIZE) {
        y[row_start + column] = x[row_start + column] * inverse * scale[column];
    }
}
