// Matrix products in any layout, without workgroup memory: each invocation keeps 8 rows by 4 columns of the result in
// registers and reads straight from storage.
//
//   target[g][i, j] (+)= alpha Σ_p left[g][i, p] right[g][p, j],   i < rows, j < columns, p < inner, g < batches
//
// where left[g][i, p] is left_values[left_offset + g left_batch + i left_row + p left_step], and so for right (row p,
// column j) and for target (row i, columns contiguous). Strides say what is transposed, offsets pick columns of a fused
// matrix.
//
// Made for software adapters, where barriers and workgroup memory cost more than they save. Neighbouring invocations
// have neighbouring columns and the same rows: their reads of `right` are contiguous, those of `left` all the same.
//
// Bindings
//   1 left_values   [..]  in
//   2 right_values  [..]  in
//   3 target_values [..]  in/out  added to where accumulate is 1, else overwritten (and not read)
// Launch: batches * ceil(rows / 64) * ceil(columns / 128) workgroups. Before: anything. After: anything.

const WORKGROUP_SIZE: u32 = 256u;
// Invocations across; each has columns `across`, `across + 32`, `across + 64`, `across + 96` of the tile.
const ACROSS: u32 = 32u;
const ROWS_PER_WORKGROUP: u32 = 64u;
const COLUMNS_PER_WORKGROUP: u32 = 128u;
const ROWS_EACH: u32 = 8u;

fn put_row(row: u32, column: u32, base: u32, sums: vec4<f32>) {
    put(row, column, base, sums.x);
    put(row, column + ACROSS, base, sums.y);
    put(row, column + 2u * ACROSS, base, sums.z);
    put(row, column + 3u * ACROSS, base, sums.w);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles_across = (params.columns + COLUMNS_PER_WORKGROUP - 1u) / COLUMNS_PER_WORKGROUP;
    let tiles = tiles_across * ((params.rows + ROWS_PER_WORKGROUP - 1u) / ROWS_PER_WORKGROUP);
    let group = linear_workgroup(workgroup_id, workgroups);
    let batch = group / tiles;
    if (batch >= params.batches) {
        return;
    }
    let tile = group % tiles;
    let row = (tile / tiles_across) * ROWS_PER_WORKGROUP + (lane / ACROSS) * ROWS_EACH;
    let column = (tile % tiles_across) * COLUMNS_PER_WORKGROUP + lane % ACROSS;
    // Rows and columns past the end read the last one and write nothing.
    let last_row = params.rows - 1u;
    let last_column = params.columns - 1u;
    let left = params.left_offset + batch * params.left_batch;
    let a0 = left + min(row, last_row) * params.left_row;
    let a1 = left + min(row + 1u, last_row) * params.left_row;
    let a2 = left + min(row + 2u, last_row) * params.left_row;
    let a3 = left + min(row + 3u, last_row) * params.left_row;
    let a4 = left + min(row + 4u, last_row) * params.left_row;
    let a5 = left + min(row + 5u, last_row) * params.left_row;
    let a6 = left + min(row + 6u, last_row) * params.left_row;
    let a7 = left + min(row + 7u, last_row) * params.left_row;
    let right = params.right_offset + batch * params.right_batch;
    let b0 = right + min(column, last_column) * params.right_column;
    let b1 = right + min(column + ACROSS, last_column) * params.right_column;
    let b2 = right + min(column + 2u * ACROSS, last_column) * params.right_column;
    let b3 = right + min(column + 3u * ACROSS, last_column) * params.right_column;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0);
    var s5 = vec4<f32>(0.0);
    var s6 = vec4<f32>(0.0);
    var s7 = vec4<f32>(0.0);
    for (var p = 0u; p < params.inner; p++) {
        let a = p * params.left_step;
        let b = p * params.right_step;
        let right_row =
            vec4<f32>(right_values[b0 + b], right_values[b1 + b], right_values[b2 + b], right_values[b3 + b]);
        s0 += left_values[a0 + a] * right_row;
        s1 += left_values[a1 + a] * right_row;
        s2 += left_values[a2 + a] * right_row;
        s3 += left_values[a3 + a] * right_row;
        s4 += left_values[a4 + a] * right_row;
        s5 += left_values[a5 + a] * right_row;
        s6 += left_values[a6 + a] * right_row;
        s7 += left_values[a7 + a] * right_row;
    }
    let base = params.target_offset + batch * params.target_batch;
    put_row(row, column, base, s0);
    put_row(row + 1u, column, base, s1);
    put_row(row + 2u, column, base, s2);
    put_row(row + 3u, column, base, s3);
    put_row(row + 4u, column, base, s4);
    put_row(row + 5u, column, base, s5);
    put_row(row + 6u, column, base, s6);
    put_row(row + 7u, column, base, s7);
}
