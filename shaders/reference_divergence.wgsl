// Divergence of each row's softmax from that of another model's logits, one vocabulary tile at a time.
//
//   with P the softmax of the logits z and Q that of the reference's logits r:
//   kind 0 forward  KL(Q || P) = Σ Q (ln Q - ln P)
//        1 reverse  KL(P || Q) = Σ P (ln P - ln Q)
//   ln P = (z - max) - ln sum, each from its own statistics; what has no probability adds nothing
//
// Bindings
//   1 logits          [rows * cols]  in      one vocabulary tile of the model
//   2 reference       [rows * cols]  in      the same tile of the reference
//   3 stats           [rows * 8]     in      of the model, as row_stats leaves them after the last vocabulary tile
//   4 reference_stats [rows * 8]     in      of the reference
//   5 divergence      [rows]         in/out  the sum over the tiles so far; not read at the first one
// Launch: one workgroup a row. Before: row_stats on all tiles of both. After: reference_gradient.

struct Params {
    rows: u32,
    cols: u32,
    first: u32,
    kind: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> reference: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;
@group(0) @binding(4) var<storage, read_write> reference_stats: array<f32>;
@group(0) @binding(5) var<storage, read_write> divergence: array<f32>;

override WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup_id, workgroups);
    if (row >= params.rows) {
        return;
    }
    let row_start = row * params.cols;
    let base = row * STATS_WIDTH;
    let maximum = stats[base + STAT_MAX];
    let log_sum = log_one_plus(max(stats[base + STAT_SUM] - 1.0, 0.0));
    let reference_maximum = reference_stats[base + STAT_MAX];
    let reference_log_sum = log_one_plus(max(reference_stats[base + STAT_SUM] - 1.0, 0.0));
    var own = 0.0;
    for (var column = lane; column < params.cols; column += WORKGROUP_SIZE) {
        let z = logits[row_start + column];
        let r = reference[row_start + column];
        let log_p = (z - maximum) - log_sum;
        let log_q = (r - reference_maximum) - reference_log_sum;
        if (params.kind == 0u) {
            if (!is_negative_infinity(r) && log_q > NEGLIGIBLE) {
                own += exp(log_q) * (log_q - log_p);
            }
        } else if (!is_negative_infinity(z) && log_p > NEGLIGIBLE) {
            own += exp(log_p) * (log_p - log_q);
        }
    }
    let sum = workgroup_sum(lane, own);
    if (lane == 0u) {
        var before = 0.0;
        if (params.first == 0u) {
            before = divergence[row];
        }
        divergence[row] = before + sum;
    }
}
