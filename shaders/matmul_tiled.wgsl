// Matrix products in any layout, in tiles that lie in workgroup memory: for hardware.
//
//   target[g][i, j] (+)= alpha Σ_p left[g][i, p] right[g][p, j],   i < rows, j < columns, p < inner, g < batches
//
// with the strides of `matmul.wgsl`. A workgroup computes 128 rows by 64 columns. It brings 16 terms of its rows and
// columns at a time into workgroup memory, four terms of a row or column a vector, zeros past the last term; each
// invocation keeps 8 rows by 4 columns of the result in registers. Neighbouring invocations load neighbouring numbers,
// whichever direction is contiguous. Rows and columns past the end load the last ones and write nothing.
//
// Bindings
//   1 left_values   [..]  in
//   2 right_values  [..]  in
//   3 target_values [..]  in/out  added to where accumulate is 1, else overwritten (and not read)
// Launch: batches * ceil(rows / 128) * ceil(columns / 64) workgroups. Before: anything. After: anything.

struct Params {
    rows: u32,
    columns: u32,
    inner: u32,
    batches: u32,
    left_offset: u32,
    left_batch: u32,
    left_row: u32,
    left_step: u32,
    right_offset: u32,
    right_batch: u32,
    right_step: u32,
    right_column: u32,
    target_offset: u32,
    target_batch: u32,
    target_row: u32,
    accumulate: u32,
    alpha: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> left_values: array<f32>;
@group(0) @binding(2) var<storage, read_write> right_values: array<f32>;
@group(0) @binding(3) var<storage, read_write> target_values: array<f32>;

const WORKGROUP_SIZE: u32 = 256u;
const ROWS_PER_WORKGROUP: u32 = 128u;
const COLUMNS_PER_WORKGROUP: u32 = 64u;
// Terms that are brought in at a time, and vectors of four of them.
const TERMS: u32 = 16u;
const VECTORS: u32 = 4u;
// Invocations across; each has columns `across`, `across + 16`, `across + 32`, `across + 48` of the tile.
const ACROSS: u32 = 16u;
const ROWS_EACH: u32 = 8u;
// One more than there are rows, or columns: vectors of one row that are written together then lie in different banks.
const LEFT_STRIDE: u32 = 129u;
const RIGHT_STRIDE: u32 = 65u;

var<workgroup> left_tile: array<vec4<f32>, 516>;
var<workgroup> right_tile: array<vec4<f32>, 260>;

// Terms `p .. p + 4` of the row of `left` that begins at `at`; zeros past the last.
fn left_terms(at: u32, p: u32) -> vec4<f32> {
    let step = params.left_step;
    let first = at + p * step;
    var terms = vec4<f32>(0.0);
    if (p < params.inner) {
        terms.x = left_values[first];
    }
    if (p + 1u < params.inner) {
        terms.y = left_values[first + step];
    }
    if (p + 2u < params.inner) {
        terms.z = left_values[first + 2u * step];
    }
    if (p + 3u < params.inner) {
        terms.w = left_values[first + 3u * step];
    }
    return terms;
}

// The same of a column of `right`.
fn right_terms(at: u32, p: u32) -> vec4<f32> {
    let step = params.right_step;
    let first = at + p * step;
    var terms = vec4<f32>(0.0);
    if (p < params.inner) {
        terms.x = right_values[first];
    }
    if (p + 1u < params.inner) {
        terms.y = right_values[first + step];
    }
    if (p + 2u < params.inner) {
        terms.z = right_values[first + 2u * step];
    }
    if (p + 3u < params.inner) {
        terms.w = right_values[first + 3u * step];
    }
    return terms;
}

// Four terms of a row by those of four columns.
fn dots(left: vec4<f32>, r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(left, r0), dot(left, r1), dot(left, r2), dot(left, r3));
}

fn put(row: u32, column: u32, base: u32, sum: f32) {
    if (row >= params.rows || column >= params.columns) {
        return;
    }
    let at = base + row * params.target_row + column;
    var value = params.alpha * sum;
    if (params.accumulate != 0u) {
        value += target_values[at];
    }
    target_values[at] = value;
}

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
    // The same for all of a workgroup, so that the barriers below stay uniform.
    if (batch >= params.batches) {
        return;
    }
    let tile = group % tiles;
    let first_row = (tile / tiles_across) * ROWS_PER_WORKGROUP;
    let first_column = (tile % tiles_across) * COLUMNS_PER_WORKGROUP;
    let left = params.left_offset + batch * params.left_batch;
    let right = params.right_offset + batch * params.right_batch;
    // Which rows, which column and which four terms this invocation brings in.
    var left_slot = lane % ROWS_PER_WORKGROUP;
    var left_vector = lane / ROWS_PER_WORKGROUP;
    var left_next = 0u;
    if (params.left_step == 1u) {
        left_slot = lane / VECTORS;
        left_vector = lane % VECTORS;
        left_next = ROWS_PER_WORKGROUP / 2u;
    }
    var right_slot = lane % COLUMNS_PER_WORKGROUP;
    var right_vector = lane / COLUMNS_PER_WORKGROUP;
    if (params.right_step == 1u) {
        right_slot = lane / VECTORS;
        right_vector = lane % VECTORS;
    }
    // The second of the two is as many rows further down, or two vectors further on.
    let left_further = select(2u, 0u, left_next > 0u);
    let a0 = left + min(first_row + left_slot, params.rows - 1u) * params.left_row;
    let a1 = left + min(first_row + left_slot + left_next, params.rows - 1u) * params.left_row;
    let b = right + min(first_column + right_slot, params.columns - 1u) * params.right_column;
    let left_into = left_vector * LEFT_STRIDE + left_slot;
    let left_into_next = (left_vector + left_further) * LEFT_STRIDE + left_slot + left_next;
    let right_into = right_vector * RIGHT_STRIDE + right_slot;

    let across = lane % ACROSS;
    let down = (lane / ACROSS) * ROWS_EACH;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0);
    var s5 = vec4<f32>(0.0);
    var s6 = vec4<f32>(0.0);
    var s7 = vec4<f32>(0.0);
    for (var first = 0u; first < params.inner; first += TERMS) {
        let left_first = left_terms(a0, first + 4u * left_vector);
        let left_second = left_terms(a1, first + 4u * (left_vector + left_further));
        let right_first = right_terms(b, first + 4u * right_vector);
        // Without this barrier terms are overwritten that another invocation still multiplies.
        workgroupBarrier();
        left_tile[left_into] = left_first;
        left_tile[left_into_next] = left_second;
        right_tile[right_into] = right_first;
        // Without this barrier terms are multiplied that another invocation has not brought in yet.
        workgroupBarrier();
        for (var v = 0u; v < VECTORS; v++) {
            let r = v * RIGHT_STRIDE + across;
            let r0 = right_tile[r];
            let r1 = right_tile[r + ACROSS];
            let r2 = right_tile[r + 2u * ACROSS];
            let r3 = right_tile[r + 3u * ACROSS];
            let l = v * LEFT_STRIDE + down;
            s0 += dots(left_tile[l], r0, r1, r2, r3);
            s1 += dots(left_tile[l + 1u], r0, r1, r2, r3);
            s2 += dots(left_tile[l + 2u], r0, r1, r2, r3);
            s3 += dots(left_tile[l + 3u], r0, r1, r2, r3);
            s4 += dots(left_tile[l + 4u], r0, r1, r2, r3);
            s5 += dots(left_tile[l + 5u], r0, r1, r2, r3);
            s6 += dots(left_tile[l + 6u], r0, r1, r2, r3);
            s7 += dots(left_tile[l + 7u], r0, r1, r2, r3);
        }
    }
    let base = params.target_offset + batch * params.target_batch;
    let row = first_row + down;
    let column = first_column + across;
    put_row(row, column, base, s0);
    put_row(row + 1u, column, base, s1);
    put_row(row + 2u, column, base, s2);
    put_row(row + 3u, column, base, s3);
    put_row(row + 4u, column, base, s4);
    put_row(row + 5u, column, base, s5);
    put_row(row + 6u, column, base, s6);
    put_row(row + 7u, column, base, s7);
}
