// Backward pass of rms_norm to its input.
//
//   with i = inverse_rms[r] and g[j] = scale[j] * dy[r, j]:
//   dx[r, j] = i * (g[j] - x[r, j] * i² * Σ_k g[k] x[r, k] / width)
//
// Bindings
//   1 x           [rows * width]  in   the forward input
//   2 scale       [width]         in
//   3 inverse_rms [rows]          in   from rms_norm
//   4 dy          [rows * width]  in
//   5 dx          [rows * width]  out
// Launch: one workgroup a row. Before: the backward pass of the projection.
// After: the residual gradient is added to dx.

struct Params {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> inverse_rms: array<f32>;
@group(0) @binding(4) var<storage, read_write> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

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
    var products = 0.0;
    for (var column = lane; column < params.width; column += WORKGROUP_SIZE) {
        products += scale[column] * dy[row_start + column] * x[row_start + column];
    }
    let inverse = inverse_rms[row];
    let pull = workgroup_sum(lane, products) / f32(params.width) * inverse * inverse;
    for (var column = lane; column < params.width; column += WORKGROUP_SIZE) {
        dx[row_start + column] = inverse * (scale[column] * dy[row_start + column] - x[row_start + column] * pull);
    }
}
