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
// Made for software adapters, where a load costs as much for one number as for four: each invocation keeps 8 rows by 4
// columns of the result in registers.
//
// Bindings
//   1 left_values   [.. / 4]  in
//   2 right_values  [.. / 4]  in
//   3 target_values [..]      in/out  added to where accumulate is 1, else overwritten (and not read)
// Launch: batches * ceil(rows / 64) * ceil(columns / 128) workgroups. Before: anything. After: anything.

const WORKGROUP_SIZE: u32 = 256u;
// Invocations across; each has four columns side by side.
const ACROSS: u32 = 32u;
const ROWS_PER_WORKGROUP: u32 = 64u;
const COLUMNS_PER_WORKGROUP: u32 = 128u;
const ROWS_EACH: u32 = 8u;

fn put_row(row: u32, column: u32, base: u32, sums: vec4<f32>) {
    put(row, column, base, sums.x);
    put(row, column + 1u, base, sums.y);
    put(row, column + 2u, base, sums.z);
    put(row, column + 3u, base, sums.w);
}

// Four terms of a row by four rows of `right`, each of four columns.
fn combined(left: vec4<f32>, r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>) -> vec4<f32> {
    return left.x * r0 + left.y * r1 + left.z * r2 + left.w * r3;
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
    let column = (tile % tiles_across) * COLUMNS_PER_WORKGROUP + 4u * (lane % ACROSS);
    // From here on in groups of four numbers.
    let left = (params.left_offset + batch * params.left_batch) / 4u;
    let right = (params.right_offset + batch * params.right_batch) / 4u;
    let last_row = params.rows - 1u;
    let last_column = params.columns - 1u;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0);
    var s5 = vec4<f32>(0.0);
    var s6 = vec4<f32>(0.0);
    var s7 = vec4<f32>(0.0);
    if (params.left_step == 1u) {
        let stride = params.left_row / 4u;
        let a0 = left + min(row, last_row) * stride;
        let a1 = left + min(row + 1u, last_row) * stride;
        let a2 = left + min(row + 2u, last_row) * stride;
        let a3 = left + min(row + 3u, last_row) * stride;
        let a4 = left + min(row + 4u, last_row) * stride;
        let a5 = left + min(row + 5u, last_row) * stride;
        let a6 = left + min(row + 6u, last_row) * stride;
        let a7 = left + min(row + 7u, last_row) * stride;
        let terms = params.inner / 4u;
        if (params.right_step == 1u) {
            let across = params.right_column / 4u;
            let b0 = right + min(column, last_column) * across;
            let b1 = right + min(column + 1u, last_column) * across;
            let b2 = right + min(column + 2u, last_column) * across;
            let b3 = right + min(column + 3u, last_column) * across;
            for (var p = 0u; p < terms; p++) {
                let r0 = right_values[b0 + p];
                let r1 = right_values[b1 + p];
                let r2 = right_values[b2 + p];
                let r3 = right_values[b3 + p];
                s0 += dots(left_values[a0 + p], r0, r1, r2, r3);
                s1 += dots(left_values[a1 + p], r0, r1, r2, r3);
                s2 += dots(left_values[a2 + p], r0, r1, r2, r3);
                s3 += dots(left_values[a3 + p], r0, r1, r2, r3);
                s4 += dots(left_values[a4 + p], r0, r1, r2, r3);
                s5 += dots(left_values[a5 + p], r0, r1, r2, r3);
                s6 += dots(left_values[a6 + p], r0, r1, r2, r3);
                s7 += dots(left_values[a7 + p], r0, r1, r2, r3);
            }
        } else {
            let down = params.right_step / 4u;
            let b0 = right + min(column, last_column) / 4u;
            for (var p = 0u; p < terms; p++) {
                let b = b0 + 4u * p * down;
                let r0 = right_values[b];
                let r1 = right_values[b + down];
                let r2 = right_values[b + 2u * down];
                let r3 = right_values[b + 3u * down];
                s0 += combined(left_values[a0 + p], r0, r1, r2, r3);
                s1 += combined(left_values[a1 + p], r0, r1, r2, r3);
                s2 += combined(left_values[a2 + p], r0, r1, r2, r3);
                s3 += combined(left_values[a3 + p], r0, r1, r2, r3);
                s4 += combined(left_values[a4 + p], r0, r1, r2, r3);
                s5 += combined(left_values[a5 + p], r0, r1, r2, r3);
                s6 += combined(left_values[a6 + p], r0, r1, r2, r3);
                s7 += combined(left_values[a7 + p], r0, r1, r2, r3);
            }
        }
    } else {
        let along = params.left_step / 4u;
        let down = params.right_step / 4u;
        let a0 = left + min(row, last_row) / 4u;
        let a4 = left + min(row + 4u, last_row) / 4u;
        let b0 = right + min(column, last_column) / 4u;
        // Four terms at a time, for a loop's turn costs as much as several of them; then what is left.
        let fours = params.inner / 4u * 4u;
        for (var p = 0u; p < fours; p += 4u) {
            let a = a0 + p * along;
            let c = a4 + p * along;
            let b = b0 + p * down;
            let l0 = left_values[a];
            let l1 = left_values[a + along];
            let l2 = left_values[a + 2u * along];
            let l3 = left_values[a + 3u * along];
            let h0 = left_values[c];
            let h1 = left_values[c + along];
            let h2 = left_values[c + 2u * along];
            let h3 = left_values[c + 3u * along];
            let r0 = right_values[b];
            let r1 = right_values[b + down];
            let r2 = right_values[b + 2u * down];
            let r3 = right_values[b + 3u * down];
            s0 += combined(vec4<f32>(l0.x, l1.x, l2.x, l3.x), r0, r1, r2, r3);
            s1 += combined(vec4<f32>(l0.y, l1.y, l2.y, l3.y), r0, r1, r2, r3);
            s2 += combined(vec4<f32>(l0.z, l1.z, l2.z, l3.z), r0, r1, r2, r3);
            s3 += combined(vec4<f32>(l0.w, l1.w, l2.w, l3.w), r0, r1, r2, r3);
            s4 += combined(vec4<f32>(h0.x, h1.x, h2.x, h3.x), r0, r1, r2, r3);
            s5 += combined(vec4<f32>(h0.y, h1.y, h2.y, h3.y), r0, r1, r2, r3);
            s6 += combined(vec4<f32>(h0.z, h1.z, h2.z, h3.z), r0, r1, r2, r3);
            s7 += combined(vec4<f32>(h0.w, h1.w, h2.w, h3.w), r0, r1, r2, r3);
        }
        for (var p = fours; p < params.inner; p++) {
            let low = left_values[a0 + p * along];
            let high = left_values[a4 + p * along];
            let r = right_values[b0 + p * down];
            s0 += low.x * r;
            s1 += low.y * r;
            s2 += low.z * r;
            s3 += low.w * r;
            s4 += high.x * r;
            s5 += high.y * r;
            s6 += high.z * r;
            s7 += high.w * r;
        }
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
