// Backward pass of attention_softmax to the unscaled scores, written over the incoming gradient.
//
//   dprobabilities[h, i, j] <- scale * p[h, i, j] * (dp[h, i, j] - Σ_k p[h, i, k] dp[h, i, k])
// Where p is 0 (masked columns among them) the result is exactly 0 and dp is not used, so what the mask hides may hold
// anything.
//
// Bindings
//   1 probabilities  [heads * queries * keys]  in      from attention_softmax
//   2 dprobabilities [heads * queries * keys]  in/out  d loss / d p; afterwards d loss / d scores
// Launch: one workgroup a (head, query), heads * queries. Before: the GEMM dout vᵀ. After: the GEMMs for dq and dk.

struct Params {
    heads: u32,
    queries: u32,
    keys: u32,
    first_query: u32,
    first_key: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> probabilities: array<f32>;
@group(0) @binding(2) var<storage, read_write> dprobabilities: array<f32>;

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
    let row_start = row * params.keys;
    var own_sum = 0.0;
    for (var column = lane; column < params.keys; column += WORKGROUP_SIZE) {
        let p = probabilities[row_start + column];
        if (p != 0.0) {
            own_sum += p * dprobabilities[row_start + column];
        }
    }
    let mean = workgroup_sum(lane, own_sum);
    for (var column = lane; column < params.keys; column += WORKGROUP_SIZE) {
        let p = probabilities[row_start + column];
        var gradient = 0.0;
        if (p != 0.0) {
            gradient = params.scale * p * (dprobabilities[row_start + column] - mean);
        }
        dprobabilities[row_start + column] = gradient;
    }
}
