// Gradient of rms_norm with respect to its weight.
//
//   dscale[j] = Σ_r dy[r, j] * x[r, j] * inverse_rms[r]
// One workgroup owns 32 columns and adds their rows in a fixed order: no atomics, the same bits every run.
//
// Bindings
//   1 x           [rows * width]  in      the forward input
//   2 inverse_rms [rows]          in      from rms_norm
//   3 dy          [rows * width]  in
//   4 dscale      [width]         out
// Launch: ceil(width / 32) workgroups. Before: the backward pass of the projection. After: the optimiser.

struct Params {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> inverse_rms: array<f32>;
@group(0) @binding(3) var<storage, read_write> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dscale: array<f32>;

const WORKGROUP_SIZE: u32 = 256u;
const COLUMNS_PER_WORKGROUP: u32 = 32u;
const ROW_LANES: u32 = 8u; // WORKGROUP_SIZE / COLUMNS_PER_WORKGROUP

var<workgroup> partial_sums: array<f32, WORKGROUP_SIZE>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_column = linear_workgroup(workgroup_id, workgroups) * COLUMNS_PER_WORKGROUP;
    if (first_column >= params.width) {
        return;
    }
    let column = first_column + lane % COLUMNS_PER_WORKGROUP;
    let row_lane = lane / COLUMNS_PER_WORKGROUP;
    var sum = 0.0;
    if (column < params.width) {
        for (var row = row_lane; row < params.rows; row += ROW_LANES) {
            let index = row * params.width + column;
            sum += dy[index] * x[index] * inverse_rms[row];
        }
    }
    partial_sums[lane] = sum;
    // Without this barrier the row lanes below read sums that are not written yet.
    workgroupBarrier();
    if (row_lane != 0u || column >= params.width) {
        return;
    }
    for (var other = 1u; other < ROW_LANES; other++) {
        sum += partial_sums[other * COLUMNS_PER_WORKGROUP + lane];
    }
    dscale[column] = sum;
}
