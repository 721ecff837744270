// Matrix products on tensor cores: cooperative matrices with f16 operands and f32 sums.
//
//   target[g][i, j] (+)= alpha 2^(e_i + f_j) Σ_p left[g][i, p] right[g][j, p],   i < rows, j < columns, p < padded
//
// of rows that `half_rows.wgsl` made, all segments of them: e and f are their exponents. The power of two is applied to
// the f32 sum as two factors, so that neither leaves the range before the result does.
//
// A workgroup computes 8 by 8 tiles of the size in the shared part. It brings 32 terms of its rows and columns at a
// time into workgroup memory. The tiles are cut into eight parts of 4 by 2 tiles, a subgroup each. How many subgroups
// a workgroup has depends on the device, and where it may choose, on its driver: with fewer than eight the parts are
// computed in turns, with more some have no part; they compute the first and store it where nobody reads, because
// matrices are multiplied in uniform control flow alone, as are all whom a barrier waits for. The sums go through
// workgroup memory, a tile of each part at a time, so that every invocation knows which element it has.
//
// Rows and columns past the end load the last ones and write nothing; terms past the last are zeros already.
//
// Bindings
//   1 left_halves     [batches * rows, padded / 4]     in      padded is a multiple of 32
//   2 left_exponents  [batches * rows]                 in      the bits of an i32
//   3 right_halves    [batches * columns, padded / 4]  in
//   4 right_exponents [batches * columns]              in
//   5 target_values   [..]                             in/out  added to where accumulate is 1, else overwritten
// Launch: batches * ceil(rows / (8 tiles)) * ceil(columns / (8 tiles)) workgroups. Before: half_rows. After: anything.

struct Params {
    rows: u32,
    columns: u32,
    padded: u32,
    batches: u32,
    target_offset: u32,
    target_batch: u32,
    target_row: u32,
    accumulate: u32,
    alpha: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> left_halves: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> left_exponents: array<u32>;
@group(0) @binding(3) var<storage, read_write> right_halves: array<vec4<f16>>;
@group(0) @binding(4) var<storage, read_write> right_exponents: array<u32>;
@group(0) @binding(5) var<storage, read_write> target_values: array<f32>;

const WORKGROUP_SIZE: u32 = 256u;
const ROWS_PER_WORKGROUP: u32 = 8u * TILE;
const COLUMNS_PER_WORKGROUP: u32 = 8u * TILE;
// Terms that are brought in at a time, and vectors of four of them.
const HALF_TERMS: u32 = 32u;
const VECTORS: u32 = 8u;
// Between two rows in workgroup memory: a few more than the terms, so that rows do not all begin in one bank.
const STRIDE: u32 = 40u;
// Parts, how many of them lie side by side, and the tiles of each.
const PARTS: u32 = 8u;
const PARTS_ACROSS: u32 = 4u;
const TILES_DOWN: u32 = 4u;
const TILES_ACROSS: u32 = 2u;
const TILE_ELEMENTS: u32 = TILE * TILE;

var<workgroup> left_tile: array<f16, ROWS_PER_WORKGROUP * STRIDE>;
var<workgroup> right_tile: array<f16, COLUMNS_PER_WORKGROUP * STRIDE>;
// One tile of each part, and one of those who have none.
var<workgroup> sums: array<f32, (PARTS + 1u) * TILE_ELEMENTS>;

// Where a workgroup works.
struct Place {
    first_row: u32,
    first_column: u32,
    batch: u32,
    // Parts that are computed now; none where the launch started more workgroups than there are tiles.
    first_part: u32,
    parts: u32,
}

// Writes tile (down, across) of every part, which `sums` is about to hold, and lets `sums` be used again.
fn write(place: Place, down: u32, across: u32, lane: u32) {
    // Without this barrier sums are written to the target that another subgroup has not stored yet.
    workgroupBarrier();
    for (var index = lane; index < PARTS * TILE_ELEMENTS; index += WORKGROUP_SIZE) {
        let part = index / TILE_ELEMENTS;
        let row = place.first_row + ((part / PARTS_ACROSS) * TILES_DOWN + down) * TILE + (index / TILE) % TILE;
        let column = place.first_column + ((part % PARTS_ACROSS) * TILES_ACROSS + across) * TILE + index % TILE;
        let computed = part >= place.first_part && part - place.first_part < place.parts;
        if (computed && row < params.rows && column < params.columns) {
            let exponent = bitcast<i32>(left_exponents[place.batch * params.rows + row])
                + bitcast<i32>(right_exponents[place.batch * params.columns + column]);
            let at = params.target_offset + place.batch * params.target_batch + row * params.target_row + column;
            var value = params.alpha * scaled(sums[index], exponent);
            if (params.accumulate != 0u) {
                value += target_values[at];
            }
            target_values[at] = value;
        }
    }
    // Without this barrier sums are overwritten that another invocation still writes to the target.
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let across = (params.columns + COLUMNS_PER_WORKGROUP - 1u) / COLUMNS_PER_WORKGROUP;
    let tiles = across * ((params.rows + ROWS_PER_WORKGROUP - 1u) / ROWS_PER_WORKGROUP);
    let group = linear_workgroup(workgroup_id, workgroups);
    var place: Place;
    place.batch = min(group / tiles, params.batches - 1u);
    place.first_row = ((group % tiles) / across) * ROWS_PER_WORKGROUP;
    place.first_column = ((group % tiles) % across) * COLUMNS_PER_WORKGROUP;
    place.parts = select(0u, subgroups, group / tiles < params.batches);
    let row_vectors = params.padded / 4u;
    for (var first_part = 0u; first_part < PARTS; first_part += subgroups) {
        place.first_part = first_part;
        let busy = first_part + subgroup < PARTS;
        let part = select(0u, first_part + subgroup, busy);
        for (var index = lane; index < (PARTS + 1u) * TILE_ELEMENTS; index += WORKGROUP_SIZE) {
            sums[index] = 0.0;
        }
        // Without this barrier sums begin with what was not cleared yet.
        workgroupBarrier();
        let own = select(PARTS, part, busy) * TILE_ELEMENTS;
        var c00 = coopLoadT<SumMatrix>(&sums[own], TILE);
        var c01 = coopLoadT<SumMatrix>(&sums[own], TILE);
        var c10 = coopLoadT<SumMatrix>(&sums[own], TILE);
        var c11 = coopLoadT<SumMatrix>(&sums[own], TILE);
        var c20 = coopLoadT<SumMatrix>(&sums[own], TILE);
        var c21 = coopLoadT<SumMatrix>(&sums[own], TILE);
        var c30 = coopLoadT<SumMatrix>(&sums[own], TILE);
        var c31 = coopLoadT<SumMatrix>(&sums[own], TILE);
        let left_at = (part / PARTS_ACROSS) * TILES_DOWN * TILE * STRIDE;
        let right_at = (part % PARTS_ACROSS) * TILES_ACROSS * TILE * STRIDE;
        for (var first = 0u; first < row_vectors; first += VECTORS) {
            // Without this barrier terms are overwritten that another subgroup still multiplies.
            workgroupBarrier();
            for (var slot = lane; slot < ROWS_PER_WORKGROUP * VECTORS; slot += WORKGROUP_SIZE) {
                let row = place.batch * params.rows + min(place.first_row + slot / VECTORS, params.rows - 1u);
                let terms = left_halves[row * row_vectors + first + slot % VECTORS];
                let into = (slot / VECTORS) * STRIDE + (slot % VECTORS) * 4u;
                left_tile[into] = terms.x;
                left_tile[into + 1u] = terms.y;
                left_tile[into + 2u] = terms.z;
                left_tile[into + 3u] = terms.w;
            }
            for (var slot = lane; slot < COLUMNS_PER_WORKGROUP * VECTORS; slot += WORKGROUP_SIZE) {
                let column =
                    place.batch * params.columns + min(place.first_column + slot / VECTORS, params.columns - 1u);
                let terms = right_halves[column * row_vectors + first + slot % VECTORS];
                let into = (slot / VECTORS) * STRIDE + (slot % VECTORS) * 4u;
                right_tile[into] = terms.x;
                right_tile[into + 1u] = terms.y;
                right_tile[into + 2u] = terms.z;
                right_tile[into + 3u] = terms.w;
            }
            // Without this barrier terms are multiplied that another invocation has not brought in yet.
            workgroupBarrier();
            for (var term = 0u; term < HALF_TERMS; term += TILE) {
                // Rows of `right` are columns of the right matrix: it is loaded by columns.
                let b0 = coopLoad<RightMatrix>(&right_tile[right_at + term], STRIDE);
                let b1 = coopLoad<RightMatrix>(&right_tile[right_at + TILE * STRIDE + term], STRIDE);
                let a0 = coopLoadT<LeftMatrix>(&left_tile[left_at + term], STRIDE);
                c00 = coopMultiplyAdd(a0, b0, c00);
                c01 = coopMultiplyAdd(a0, b1, c01);
                let a1 = coopLoadT<LeftMatrix>(&left_tile[left_at + TILE * STRIDE + term], STRIDE);
                c10 = coopMultiplyAdd(a1, b0, c10);
                c11 = coopMultiplyAdd(a1, b1, c11);
                let a2 = coopLoadT<LeftMatrix>(&left_tile[left_at + 2u * TILE * STRIDE + term], STRIDE);
                c20 = coopMultiplyAdd(a2, b0, c20);
                c21 = coopMultiplyAdd(a2, b1, c21);
                let a3 = coopLoadT<LeftMatrix>(&left_tile[left_at + 3u * TILE * STRIDE + term], STRIDE);
                c30 = coopMultiplyAdd(a3, b0, c30);
                c31 = coopMultiplyAdd(a3, b1, c31);
            }
        }
        // One tile of each part at a time. All have loaded what they began with before the first barrier of the loop
        // above.
        coopStoreT(c00, &sums[own], TILE);
        write(place, 0u, 0u, lane);
        coopStoreT(c01, &sums[own], TILE);
        write(place, 0u, 1u, lane);
        coopStoreT(c10, &sums[own], TILE);
        write(place, 1u, 0u, lane);
        coopStoreT(c11, &sums[own], TILE);
        write(place, 1u, 1u, lane);
        coopStoreT(c20, &sums[own], TILE);
        write(place, 2u, 0u, lane);
        coopStoreT(c21, &sums[own], TILE);
        write(place, 2u, 1u, lane);
        coopStoreT(c30, &sums[own], TILE);
        write(place, 3u, 0u, lane);
        coopStoreT(c31, &sums[own], TILE);
        write(place, 3u, 1u, lane);
    }
}
