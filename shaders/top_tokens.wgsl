// The tokens of the K largest logits of each row, largest first, the lower token first of equals.
//
//   tokens[r, i] = column_start + the column of the value top[r, i],  i < K;  -1 for a slot without a value
// Where more columns reach the K-th value than fit the list of candidates, all slots of the row are -2.
//
// Bindings
//   1 logits [rows * cols]         in   one tile of the vocabulary
//   2 top    [rows * MAX_TOP_K]    in   the K largest of this tile, in descending order, as row_stats leaves them
//   3 tokens [rows * MAX_TOP_K]    out  whole numbers: a vocabulary has fewer than 2^24 tokens
// Launch: one workgroup a row. Before: row_stats of the same tile, with `first` 1 and the same K. After: the host.

struct Params {
    rows: u32,
    cols: u32,
    column_start: u32,
    top_k: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> top: array<f32>;
@group(0) @binding(3) var<storage, read_write> tokens: array<f32>;

override WORKGROUP_SIZE: u32 = 256u;
const MAX_TOP_K: u32 = 64u;
const CANDIDATES: u32 = 1024u;

var<workgroup> values: array<f32, CANDIDATES>;
var<workgroup> columns: array<u32, CANDIDATES>;
var<workgroup> candidate_count: atomic<u32>;
var<workgroup> candidate_total: u32;

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
    let top_k = clamp(params.top_k, 1u, MAX_TOP_K);
    let bound = top[row * MAX_TOP_K + top_k - 1u];
    if (lane == 0u) {
        atomicStore(&candidate_count, 0u);
    }
    // Without this barrier an early candidate is counted before the reset and lost.
    workgroupBarrier();
    for (var column = lane; column < params.cols; column += WORKGROUP_SIZE) {
        let z = logits[row_start + column];
        if (is_finite(z) && z >= bound) {
            let slot = atomicAdd(&candidate_count, 1u);
            if (slot < CANDIDATES) {
                values[slot] = z;
                columns[slot] = column;
            }
        }
    }
    // Without this barrier the total misses candidates of slower invocations.
    workgroupBarrier();
    if (lane == 0u) {
        candidate_total = atomicLoad(&candidate_count);
    }
    // Brings its own barriers: the total is written before anyone reads it, and the candidates are complete.
    let total = workgroupUniformLoad(&candidate_total);
    let too_many = total > CANDIDATES;
    for (var slot = lane; slot < MAX_TOP_K; slot += WORKGROUP_SIZE) {
        if (too_many || slot >= min(total, top_k)) {
            tokens[row * MAX_TOP_K + slot] = select(-1.0, -2.0, too_many);
        }
    }
    if (too_many) {
        return;
    }
    // The order in which candidates came is no matter: ranks are by value and column.
    for (var index = lane; index < total; index += WORKGROUP_SIZE) {
        let value = values[index];
        let column = columns[index];
        var rank = 0u;
        for (var other = 0u; other < total; other++) {
            let rival = values[other];
            rank += u32(rival > value || (rival == value && columns[other] < column));
        }
        if (rank < top_k) {
            tokens[row * MAX_TOP_K + rank] = f32(params.column_start + column);
        }
    }
}
