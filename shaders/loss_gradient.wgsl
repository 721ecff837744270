// Gradient of the weighted cross entropy, written over the logits of one vocabulary tile.
//
//   logits[r, c] <- weight[r] * (e^(logits[r, c] - max) / sum - [column_start + c == labels[r]])
// A row of weight 0 becomes exactly 0, whatever its logits hold (0 * NaN would be NaN).
// e^(z - max) / sum is e^(z - lse) without the rounding of lse, which at logits of 1e4 would cost 5e-4.
//
// Bindings
//   1 logits [rows * cols]  in/out  one vocabulary tile; afterwards d loss / d logits
//   2 labels [rows] u32     in      column of the whole vocabulary, 0xffffffff for none; compared, never used as an
//                                   index
//   3 weight [rows]         in      gate, already divided by the number of trained tokens of the whole batch
//   4 stats  [rows * 8]     in      as row_stats leaves them after the last vocabulary tile
// Launch: rows * ceil(cols / 1024) workgroups; one writes up to COLUMNS_PER_WORKGROUP columns of one row.
// Before: gate. After: the GEMM that takes the gradient to the hidden states.

struct Params {
    rows: u32,
    cols: u32,
    column_start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> weight: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_workgroup(workgroup_id, workgroups);
    if (group >= params.rows * tiles_of_row()) {
        return;
    }
    let tile = row_tile(group);
    let row = tile.row;

    let row_weight = weight[row];
    if (row_weight == 0.0) {
        for (var column = tile.start + lane; column < tile.end; column += WORKGROUP_SIZE) {
            logits[tile.row_start + column] = 0.0;
        }
        return;
    }
    let maximum = stats[row * STATS_WIDTH + STAT_MAX];
    let sum = stats[row * STATS_WIDTH + STAT_SUM];
    let label = labels[row];
    for (var column = tile.start + lane; column < tile.end; column += WORKGROUP_SIZE) {
        let z = logits[tile.row_start + column];
        let hit = select(0.0, 1.0, params.column_start + column == label);
        logits[tile.row_start + column] = row_weight * (probability(z, maximum, sum) - hit);
    }
}
