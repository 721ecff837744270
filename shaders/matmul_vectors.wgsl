// Matrix products without workgroup memory, as `matmul.wgsl`, of operands that can be read four numbers at a time.
//
//   target[g][i, j] (+)= alpha Σ_p left[g][i, p] right[g][p, j],   i < rows, j < columns, p < inner, g < batches
//
// with the strides of `matmul.wgsl`. Each operand is contiguous in one direction, one of these three ways:
//   left_step = 1, right_step = 1      both in their terms: a layer's output
//   left_step = 1, right_column = 1    the gradient by a layer's input
//   left_row = 1, right_column = 1     the gradient by a layer's weight
// and every other stride and offset of both is a multiple of 4; so is inner in the first two ways. Four numbers then
// lie in one row of what is stored, so that all of them are there where the first is. Rows and columns past the end
// read the last ones and write nothing; the numbers beside a view that are read with its last ones reach only columns
// past the end.
//
// Made for software adapters, where a load costs as much for one number as for four: each invocation keeps 8 rows by 8
// columns of the result in registers.
//
// Bindings
//   1 left_values   [.. / 4]  in
//   2 right_values  [.. / 4]  in
//   3 target_values [..]      in/out  added to where accumulate is 1, else overwritten (and not read)
// Launch: batches * ceil(rows / 32) * ceil(columns / 128) workgroups. Before: anything. After: anything.

const WORKGROUP_SIZE: u32 = 64u;
// Invocations across; each has eight columns side by side.
const ACROSS: u32 = 16u;
const ROWS_PER_WORKGROUP: u32 = 32u;
const COLUMNS_PER_WORKGROUP: u32 = 128u;
const ROWS_EACH: u32 = 8u;

fn put_row(row: u32, column: u32, base: u32, sums: vec4<f32>) {
    put(row, column, base, sums.x);
    put(row, column + 1u, base, sums.y);
    put(row, column + 2u, base, sums.z);
    put(row, column + 3u, base, sums.w);
}

fn put_rows(row: u32, column: u32, base: u32, sums: mat4x4<f32>) {
    put_row(row, column, base, sums[0]);
    put_row(row + 1u, column, base, sums[1]);
    put_row(row + 2u, column, base, sums[2]);
    put_row(row + 3u, column, base, sums[3]);
}

// Where four rows, or columns, begin of which each is contiguous in its terms.
fn starts(base: u32, first: u32, last: u32, stride: u32) -> vec4<u32> {
    return vec4<u32>(base) + stride * min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
}

fn left_at(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(left_values[at.x], left_values[at.y], left_values[at.z], left_values[at.w]);
}

fn right_at(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(right_values[at.x], right_values[at.y], right_values[at.z], right_values[at.w]);
}

// Four terms of four rows by those of four columns: column i of the result is row i of the product.
fn four_dots(left: mat4x4<f32>, right: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(left[0] * right, left[1] * right, left[2] * right, left[3] * right);
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
    let column = (tile % tiles_across) * COLUMNS_PER_WORKGROUP + 8u * (lane % ACROSS);
    // From here on in groups of four numbers.
    let left = (params.left_offset + batch * params.left_batch) / 4u;
    let right = (params.right_offset + batch * params.right_batch) / 4u;
    let last_row = params.rows - 1u;
    let last_column = params.columns - 1u;
    // Rows 0 to 3 and 4 to 7 by columns 0 to 3, then by columns 4 to 7.
    var s00 = mat4x4<f32>();
    var s10 = mat4x4<f32>();
    var s01 = mat4x4<f32>();
    var s11 = mat4x4<f32>();
    if (params.left_step == 1u) {
        let stride = params.left_row / 4u;
        let low = starts(left, row, last_row, stride);
        let high = starts(left, row + 4u, last_row, stride);
        let terms = params.inner / 4u;
        if (params.right_step == 1u) {
            let across = params.right_column / 4u;
            let near = starts(right, column, last_column, across);
            let far = starts(right, column + 4u, last_column, across);
            for (var p = 0u; p < terms; p++) {
                let l = left_at(low + p);
                let h = left_at(high + p);
                let n = right_at(near + p);
                let f = right_at(far + p);
                s00 += four_dots(l, n);
                s10 += four_dots(h, n);
                s01 += four_dots(l, f);
                s11 += four_dots(h, f);
            }
        } else {
            let down = params.right_step / 4u * vec4<u32>(0u, 1u, 2u, 3u);
            let near = right + min(column, last_column) / 4u + down;
            let far = right + min(column + 4u, last_column) / 4u + down;
            for (var p = 0u; p < terms; p++) {
                let l = left_at(low + p);
                let h = left_at(high + p);
                let n = right_at(near + p * params.right_step);
                let f = right_at(far + p * params.right_step);
                s00 += n * l;
                s10 += n * h;
                s01 += f * l;
                s11 += f * h;
            }
        }
    } else {
        let along = params.left_step / 4u;
        let down = params.right_step / 4u;
        let low = left + min(row, last_row) / 4u;
        let high = left + min(row + 4u, last_row) / 4u;
        let near = right + min(column, last_column) / 4u;
        let far = right + min(column + 4u, last_column) / 4u;
        // Four terms at a time, for a loop's turn costs as much as several of them; then what is left.
        let fours = params.inner / 4u * 4u;
        for (var p = 0u; p < fours; p += 4u) {
            let term = p + vec4<u32>(0u, 1u, 2u, 3u);
            let l = transpose(left_at(low + term * along));
            let h = transpose(left_at(high + term * along));
            let n = right_at(near + term * down);
            let f = right_at(far + term * down);
            s00 += n * l;
            s10 += n * h;
            s01 += f * l;
            s11 += f * h;
        }
        for (var p = fours; p < params.inner; p++) {
            let l = left_values[low + p * along];
            let h = left_values[high + p * along];
            let n = right_values[near + p * down];
            let f = right_values[far + p * down];
            s00 += mat4x4<f32>(l.x * n, l.y * n, l.z * n, l.w * n);
            s10 += mat4x4<f32>(h.x * n, h.y * n, h.z * n, h.w * n);
            s01 += mat4x4<f32>(l.x * f, l.y * f, l.z * f, l.w * f);
            s11 += mat4x4<f32>(h.x * f, h.y * f, h.z * f, h.w * f);
        }
    }
    let base = params.target_offset + batch * params.target_batch;
    put_rows(row, column, base, s00);
    put_rows(row + 4u, column, base, s10);
    put_rows(row, column + 4u, base, s01);
    put_rows(row + 4u, column + 4u, base, s11);
}
