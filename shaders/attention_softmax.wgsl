// Softmax of attention scores under the causal mask of packed documents, in place.
//
//   query i sees the tokens document_start[i] <= j <= i
//   scores[h, i, j] <- e^(scale s[h, i, j] - m) / Σ_k e^(scale s[h, i, k] - m) over what it sees, m their maximum;
//     elsewhere 0
// A query that sees nothing (which a correct packing never makes) gets zeros. Queries and keys are ranges of the
// stream's tokens; what a query sees must lie among the keys.
//
// Bindings
//   1 scores         [heads * queries * keys]  in/out  q kᵀ, unscaled; afterwards probabilities
//   2 document_start [tokens] u32              in      first token of the document that each token belongs to
// Launch: one workgroup a (head, query), heads * queries. Before: the GEMM q kᵀ. After: the GEMM with v.

struct Params {
    heads: u32,
    queries: u32,
    keys: u32,
    first_query: u32,
    first_key: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> document_start: array<u32>;

override WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup_id, workgroups);
    if (row >= params.heads * params.queries) {
        return;
    }
    let query = params.first_query + row % params.queries;
    let past = params.first_key + params.keys;
    let begin = clamp(document_start[query], params.first_key, past) - params.first_key;
    let end = clamp(query + 1u, params.first_key, past) - params.first_key;
    let row_start = row * params.keys;

    var own_maximum = LOWEST;
    for (var column = begin + lane; column < end; column += WORKGROUP_SIZE) {
        own_maximum = max(own_maximum, scores[row_start + column] * params.scale);
    }
    let maximum = workgroup_max(lane, own_maximum);

    var own_sum = 0.0;
    for (var column = begin + lane; column < end; column += WORKGROUP_SIZE) {
        let e = exp(scores[row_start + column] * params.scale - maximum);
        scores[row_start + column] = e;
        own_sum += e;
    }
    let sum = workgroup_sum(lane, own_sum);
    let inverse = select(0.0, 1.0 / sum, sum != 0.0);

    // Each invocation scales the columns whose exponentials it wrote itself, so no barrier is needed.
    for (var column = begin + lane; column < end; column += WORKGROUP_SIZE) {
        scores[row_start + column] = scores[row_start + column] * inverse;
    }
    for (var column = lane; column < begin; column += WORKGROUP_SIZE) {
        scores[row_start + column] = 0.0;
    }
    for (var column = end + lane; column < params.keys; column += WORKGROUP_SIZE) {
        scores[row_start + column] = 0.0;
    }
}
