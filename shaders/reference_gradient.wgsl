// Gradient of the weighted cross entropy and of beta times the divergence from another model, written over the logits
// of one vocabulary tile.
//
//   logits[r, c] <- weight[r] * (P[c] - [column_start + c == labels[r]]) + beta * d
//   kind 0 forward  d = P[c] - Q[c]
//        1 reverse  d = P[c] * (ln P[c] - ln Q[c] - KL(P || Q))
// P and Q as in reference_divergence. The cross entropy of a row of weight 0 adds exactly 0.
//
// Bindings
//   1 logits          [rows * cols]  in/out  one vocabulary tile; afterwards d loss / d logits
//   2 reference       [rows * cols]  in      the same tile of the reference
//   3 labels          [rows] u32     in      column of the whole vocabulary, 0xffffffff for none; compared, never used
//                                            as an index
//   4 weight          [rows]         in      gate, already divided by the number of trained tokens of the whole batch
//   5 stats           [rows * 8]     in      of the model, as row_stats leaves them after the last vocabulary tile
//   6 reference_stats [rows * 8]     in      of the reference
//   7 divergence      [rows]         in      as reference_divergence leaves it after the last vocabulary tile
// Launch: rows * ceil(cols / 1024) workgroups; one writes up to COLUMNS_PER_WORKGROUP columns of one row.
// Before: gate, reference_divergence. After: the GEMM that takes the gradient to the hidden states.

struct Params {
    rows: u32,
    cols: u32,
    column_start: u32,
    kind: u32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> reference: array<f32>;
@group(0) @binding(3) var<storage, read_write> labels: array<u32>;
@group(0) @binding(4) var<storage, read_write> weight: array<f32>;
@group(0) @binding(5) var<storage, read_write> stats: array<f32>;
@group(0) @binding(6) var<storage, read_write> reference_stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> divergence: array<f32>;

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
    let base = row * STATS_WIDTH;

    let row_weight = weight[row];
    let row_divergence = divergence[row];
    let label = labels[row];
    let maximum = stats[base + STAT_MAX];
    let sum = stats[base + STAT_SUM];
    let log_sum = log_one_plus(max(sum - 1.0, 0.0));
    let reference_maximum = reference_stats[base + STAT_MAX];
    let reference_sum = reference_stats[base + STAT_SUM];
    let reference_log_sum = log_one_plus(max(reference_sum - 1.0, 0.0));
    for (var column = tile.start + lane; column < tile.end; column += WORKGROUP_SIZE) {
        let z = logits[tile.row_start + column];
        let r = reference[tile.row_start + column];
        let p = probability(z, maximum, sum);
        var pull = 0.0;
        if (params.kind == 0u) {
            pull = p - probability(r, reference_maximum, reference_sum);
        } else if (p > 0.0) {
            let log_p = (z - maximum) - log_sum;
            let log_q = (r - reference_maximum) - reference_log_sum;
            pull = p * (log_p - log_q - row_divergence);
        }
        var gradient = params.beta * pull;
        if (row_weight != 0.0) {
            gradient += row_weight * (p - select(0.0, 1.0, params.column_start + column == label));
        }
        logits[tile.row_start + column] = gradient;
    }
}
