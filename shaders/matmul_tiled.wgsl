// Matrix products in any layout, in tiles that lie in workgroup memory: for hardware.
//
//   target[g][i, j] (+)= alpha Σ_p left[g][i, p] right[g][p, j],   i < rows, j < columns, p < inner, g < batches
//
// with the strides of `matmul.wgsl`; the shared part in front of this reads a number or four numbers at a time, for
// which strides must be as in `matmul_vectors.wgsl`. A workgroup computes 128 rows by 64 columns. It brings 16 terms
// of its rows and columns at a time into workgroup memory, four terms of a row or column a vector, zeros past the
// last term; each invocation keeps 8 rows by 8 columns of the result in registers. Neighbouring invocations load
// neighbouring numbers, whichever direction is contiguous. Rows and columns past the end load the last ones and write
// nothing.
//
// Bindings
//   1 left_values   [..]  in      of vectors of four where those are read
//   2 right_values  [..]  in      the same
//   3 target_values [..]  in/out  added to where accumulate is 1, else overwritten (and not read)
// Launch: batches * ceil(rows / 128) * ceil(columns / 64) workgroups. Before: anything. After: anything.

const WORKGROUP_SIZE: u32 = 128u;
const ROWS_PER_WORKGROUP: u32 = 128u;
const COLUMNS_PER_WORKGROUP: u32 = 64u;
// Terms that are brought in at a time, and vectors of four of them.
const TERMS: u32 = 16u;
const VECTORS: u32 = 4u;
// Invocations across; each has every eighth column of the tile from `across` on.
const ACROSS: u32 = 8u;
const ROWS_EACH: u32 = 8u;
// One more than there are rows, or columns: vectors of one row that are written together then lie in different banks.
const LEFT_STRIDE: u32 = 129u;
const RIGHT_STRIDE: u32 = 65u;

var<workgroup> left_tile: array<vec4<f32>, 516>;
var<workgroup> right_tile: array<vec4<f32>, 260>;

// Which rows, or columns, and which terms the n-th block of a tile has: neighbours have neighbouring numbers.
fn block_place(n: u32, blocks: u32, terms_contiguous: bool) -> vec2<u32> {
    if (terms_contiguous) {
        return vec2<u32>(4u * (n / VECTORS), n % VECTORS);
    }
    return vec2<u32>(4u * (n % blocks), n / blocks);
}

fn put_row(row: u32, column: u32, base: u32, near: vec4<f32>, far: vec4<f32>) {
    put(row, column, base, near.x);
    put(row, column + ACROSS, base, near.y);
    put(row, column + 2u * ACROSS, base, near.z);
    put(row, column + 3u * ACROSS, base, near.w);
    put(row, column + 4u * ACROSS, base, far.x);
    put(row, column + 5u * ACROSS, base, far.y);
    put(row, column + 6u * ACROSS, base, far.z);
    put(row, column + 7u * ACROSS, base, far.w);
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
    // One block of four rows by four terms is every invocation's, one of four columns every other one's.
    let rows = block_place(lane, ROWS_PER_WORKGROUP / 4u, params.left_step == 1u);
    let columns = block_place(lane, COLUMNS_PER_WORKGROUP / 4u, params.right_step == 1u);
    let brings_columns = lane < COLUMNS_PER_WORKGROUP / 4u * VECTORS;
    let left_into = rows.y * LEFT_STRIDE + rows.x;
    let right_into = columns.y * RIGHT_STRIDE + columns.x;
    let across = lane % ACROSS;
    let down = (lane / ACROSS) * ROWS_EACH;
    var near0 = vec4<f32>(0.0);
    var far0 = vec4<f32>(0.0);
    var near1 = vec4<f32>(0.0);
    var far1 = vec4<f32>(0.0);
    var near2 = vec4<f32>(0.0);
    var far2 = vec4<f32>(0.0);
    var near3 = vec4<f32>(0.0);
    var far3 = vec4<f32>(0.0);
    var near4 = vec4<f32>(0.0);
    var far4 = vec4<f32>(0.0);
    var near5 = vec4<f32>(0.0);
    var far5 = vec4<f32>(0.0);
    var near6 = vec4<f32>(0.0);
    var far6 = vec4<f32>(0.0);
    var near7 = vec4<f32>(0.0);
    var far7 = vec4<f32>(0.0);
    for (var first = 0u; first < params.inner; first += TERMS) {
        let left_terms_here = left_block(first_row + rows.x, first + 4u * rows.y, left);
        // Without this barrier terms are overwritten that another invocation still multiplies.
        workgroupBarrier();
        left_tile[left_into] = left_terms_here[0];
        left_tile[left_into + 1u] = left_terms_here[1];
        left_tile[left_into + 2u] = left_terms_here[2];
        left_tile[left_into + 3u] = left_terms_here[3];
        if (brings_columns) {
            let right_terms_here = right_block(first_column + columns.x, first + 4u * columns.y, right);
            right_tile[right_into] = right_terms_here[0];
            right_tile[right_into + 1u] = right_terms_here[1];
            right_tile[right_into + 2u] = right_terms_here[2];
            right_tile[right_into + 3u] = right_terms_here[3];
        }
        // Without this barrier terms are multiplied that another invocation has not brought in yet.
        workgroupBarrier();
        // Two vectors at a time: as many numbers as registers hold beside the sums.
        for (var v = 0u; v < VECTORS; v += 2u) {
            let r = v * RIGHT_STRIDE + across;
            let r0 = right_tile[r];
            let r1 = right_tile[r + ACROSS];
            let r2 = right_tile[r + 2u * ACROSS];
            let r3 = right_tile[r + 3u * ACROSS];
            let r4 = right_tile[r + 4u * ACROSS];
            let r5 = right_tile[r + 5u * ACROSS];
            let r6 = right_tile[r + 6u * ACROSS];
            let r7 = right_tile[r + 7u * ACROSS];
            let q0 = right_tile[r + RIGHT_STRIDE];
            let q1 = right_tile[r + RIGHT_STRIDE + ACROSS];
            let q2 = right_tile[r + RIGHT_STRIDE + 2u * ACROSS];
            let q3 = right_tile[r + RIGHT_STRIDE + 3u * ACROSS];
            let q4 = right_tile[r + RIGHT_STRIDE + 4u * ACROSS];
            let q5 = right_tile[r + RIGHT_STRIDE + 5u * ACROSS];
            let q6 = right_tile[r + RIGHT_STRIDE + 6u * ACROSS];
            let q7 = right_tile[r + RIGHT_STRIDE + 7u * ACROSS];
            let l = v * LEFT_STRIDE + down;
            let a0 = left_tile[l];
            let b0 = left_tile[l + LEFT_STRIDE];
            near0 += dots(a0, r0, r1, r2, r3) + dots(b0, q0, q1, q2, q3);
            far0 += dots(a0, r4, r5, r6, r7) + dots(b0, q4, q5, q6, q7);
            let a1 = left_tile[l + 1u];
            let b1 = left_tile[l + LEFT_STRIDE + 1u];
            near1 += dots(a1, r0, r1, r2, r3) + dots(b1, q0, q1, q2, q3);
            far1 += dots(a1, r4, r5, r6, r7) + dots(b1, q4, q5, q6, q7);
            let a2 = left_tile[l + 2u];
            let b2 = left_tile[l + LEFT_STRIDE + 2u];
            near2 += dots(a2, r0, r1, r2, r3) + dots(b2, q0, q1, q2, q3);
            far2 += dots(a2, r4, r5, r6, r7) + dots(b2, q4, q5, q6, q7);
            let a3 = left_tile[l + 3u];
            let b3 = left_tile[l + LEFT_STRIDE + 3u];
            near3 += dots(a3, r0, r1, r2, r3) + dots(b3, q0, q1, q2, q3);
            far3 += dots(a3, r4, r5, r6, r7) + dots(b3, q4, q5, q6, q7);
            let a4 = left_tile[l + 4u];
            let b4 = left_tile[l + LEFT_STRIDE + 4u];
            near4 += dots(a4, r0, r1, r2, r3) + dots(b4, q0, q1, q2, q3);
            far4 += dots(a4, r4, r5, r6, r7) + dots(b4, q4, q5, q6, q7);
            let a5 = left_tile[l + 5u];
            let b5 = left_tile[l + LEFT_STRIDE + 5u];
            near5 += dots(a5, r0, r1, r2, r3) + dots(b5, q0, q1, q2, q3);
            far5 += dots(a5, r4, r5, r6, r7) + dots(b5, q4, q5, q6, q7);
            let a6 = left_tile[l + 6u];
            let b6 = left_tile[l + LEFT_STRIDE + 6u];
            near6 += dots(a6, r0, r1, r2, r3) + dots(b6, q0, q1, q2, q3);
            far6 += dots(a6, r4, r5, r6, r7) + dots(b6, q4, q5, q6, q7);
            let a7 = left_tile[l + 7u];
            let b7 = left_tile[l + LEFT_STRIDE + 7u];
            near7 += dots(a7, r0, r1, r2, r3) + dots(b7, q0, q1, q2, q3);
            far7 += dots(a7, r4, r5, r6, r7) + dots(b7, q4, q5, q6, q7);
        }
    }
    let base = params.target_offset + batch * params.target_batch;
    let row = first_row + down;
    let column = first_column + across;
    put_row(row, column, base, near0, far0);
    put_row(row + 1u, column, base, near1, far1);
    put_row(row + 2u, column, base, near2, far2);
    put_row(row + 3u, column, base, near3, far3);
    put_row(row + 4u, column, base, near4, far4);
    put_row(row + 5u, column, base, near5, far5);
    put_row(row + 6u, column, base, near6, far6);
    put_row(row + 7u, column, base, near7, far7);
}
