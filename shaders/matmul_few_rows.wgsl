// Matrix products in any layout whose result has few rows or few columns: generation, and the thin sides of an
// adapter.
//
//   target[g][i, j] (+)= alpha Σ_p left[g][i, p] right[g][p, j],   i < rows, j < columns, p < inner, g < batches
//
// with the strides of `matmul.wgsl`. There is too little to compute to keep a device busy a tile at a time, so a
// workgroup shares the terms of its 8 rows by 32 columns: an invocation sums every 32nd term of 8 rows by 4 columns,
// and the 32 partial sums of each element are added up in workgroup memory, in their order. Neighbouring invocations
// have neighbouring terms where those of `right` are contiguous, else neighbouring columns. Rows and columns past the
// end read the last ones and write nothing; a single row takes a loop of its own. The right operand may be a stored
// matrix: each of its elements is then expanded once a workgroup, and read in as few bytes as the file has it.
//
// Bindings
//   1 left_values   [..]  in
//   2 right_values  [..]  in
//   2 packed_words  [words] u32  in  in place of those a stored matrix, strides and offsets in its elements
//   3 target_values [..]  in/out  added to where accumulate is 1, else overwritten (and not read)
// Launch: batches * ceil(rows / 8) * ceil(columns / 32) workgroups. Before: anything. After: anything.

const WORKGROUP_SIZE: u32 = 256u;
const ROWS_PER_WORKGROUP: u32 = 8u;
const COLUMNS_PER_WORKGROUP: u32 = 32u;
// Invocations that share the terms of an element, and such groups: four columns each.
const SLICES: u32 = 32u;
const GROUPS: u32 = 8u;
// One more than there are slices: sums of neighbouring elements then lie in different banks.
const STRIDE: u32 = 33u;

// Partial sums of two rows at a time.
var<workgroup> partial_sums: array<f32, 2112>;

fn keep(row: u32, column: u32, slice: u32, sums: vec4<f32>) {
    let at = (row * COLUMNS_PER_WORKGROUP + column) * STRIDE + slice;
    partial_sums[at] = sums.x;
    partial_sums[at + STRIDE] = sums.y;
    partial_sums[at + 2u * STRIDE] = sums.z;
    partial_sums[at + 3u * STRIDE] = sums.w;
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
    // The same for all of a workgroup, so that the barriers below stay uniform.
    if (batch >= params.batches) {
        return;
    }
    let tile = group % tiles;
    let row = (tile / tiles_across) * ROWS_PER_WORKGROUP;
    let first_column = (tile % tiles_across) * COLUMNS_PER_WORKGROUP;
    let terms_contiguous = params.right_step == 1u;
    let slice = select(lane / GROUPS, lane % SLICES, terms_contiguous);
    let mine = 4u * select(lane % GROUPS, lane / SLICES, terms_contiguous);
    let last_row = params.rows - 1u;
    let last_column = params.columns - 1u;
    let left = params.left_offset + batch * params.left_batch;
    let right = params.right_offset + batch * params.right_batch;
    let column = first_column + mine;
    let b0 = right + min(column, last_column) * params.right_column;
    let b1 = right + min(column + 1u, last_column) * params.right_column;
    let b2 = right + min(column + 2u, last_column) * params.right_column;
    let b3 = right + min(column + 3u, last_column) * params.right_column;
    let a0 = left + row * params.left_row;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0);
    var s5 = vec4<f32>(0.0);
    var s6 = vec4<f32>(0.0);
    var s7 = vec4<f32>(0.0);
    if (row == last_row) {
        for (var p = slice; p < params.inner; p += SLICES) {
            let b = p * params.right_step;
            let right_row =
                vec4<f32>(right_value(b0 + b), right_value(b1 + b), right_value(b2 + b), right_value(b3 + b));
            s0 += left_values[a0 + p * params.left_step] * right_row;
        }
    } else {
        let a1 = left + min(row + 1u, last_row) * params.left_row;
        let a2 = left + min(row + 2u, last_row) * params.left_row;
        let a3 = left + min(row + 3u, last_row) * params.left_row;
        let a4 = left + min(row + 4u, last_row) * params.left_row;
        let a5 = left + min(row + 5u, last_row) * params.left_row;
        let a6 = left + min(row + 6u, last_row) * params.left_row;
        let a7 = left + min(row + 7u, last_row) * params.left_row;
        for (var p = slice; p < params.inner; p += SLICES) {
            let a = p * params.left_step;
            let b = p * params.right_step;
            let right_row =
                vec4<f32>(right_value(b0 + b), right_value(b1 + b), right_value(b2 + b), right_value(b3 + b));
            s0 += left_values[a0 + a] * right_row;
            s1 += left_values[a1 + a] * right_row;
            s2 += left_values[a2 + a] * right_row;
            s3 += left_values[a3 + a] * right_row;
            s4 += left_values[a4 + a] * right_row;
            s5 += left_values[a5 + a] * right_row;
            s6 += left_values[a6 + a] * right_row;
            s7 += left_values[a7 + a] * right_row;
        }
    }
    let base = params.target_offset + batch * params.target_batch;
    let pairs = min((last_row - row) / 2u + 1u, ROWS_PER_WORKGROUP / 2u);
    for (var pair = 0u; pair < pairs; pair++) {
        var even = s0;
        var odd = s1;
        if (pair == 1u) {
            even = s2;
            odd = s3;
        }
        if (pair == 2u) {
            even = s4;
            odd = s5;
        }
        if (pair == 3u) {
            even = s6;
            odd = s7;
        }
        // Without this barrier partial sums are overwritten that another invocation still adds up.
        workgroupBarrier();
        keep(0u, mine, slice, even);
        keep(1u, mine, slice, odd);
        // Without this barrier partial sums are added up that another invocation has not written yet.
        workgroupBarrier();
        let of_row = row + 2u * pair + lane / COLUMNS_PER_WORKGROUP;
        let of_column = first_column + lane % COLUMNS_PER_WORKGROUP;
        if (lane < 2u * COLUMNS_PER_WORKGROUP && of_row < params.rows && of_column < params.columns) {
            var sum = 0.0;
            for (var s = 0u; s < SLICES; s++) {
                sum += partial_sums[lane * STRIDE + s];
            }
            put(of_row, of_column, base, sum);
        }
    }
}
