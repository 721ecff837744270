// Attention of new tokens over the keys and values that a cache holds of their sequences, their own with them.
//
//   out[r, h] = Σ_j p_j v_j,  p = softmax(scale q[r, h] · k_j),  j < keys(r) = places[2 r + 1]
//
// over the rows places[2 r] + j of the cache, key head h / (heads / kv_heads). The softmax is made by tiles: m is the
// largest score so far, and what was summed is multiplied with e^(m_before - m) (Milakov and Gimelshein 2018).
//
// Bindings
//   1 qkv        [rows, stride]               in   query heads first
//   2 places     [rows, 2] u32                in   first row of the token's sequence in the cache; its keys
//   3 key_values [.., words] u32              in   as append_keys wrote them
//   4 out        [rows, heads * head_dim]     out
// Launch: one workgroup a (row, head), rows * heads. Before: append_keys. After: the output projection.

struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    stride: u32,
    // Number of the launch's first workgroup: what takes long is launched in pieces.
    first_group: u32,
    halves: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(2) var<storage, read_write> places: array<u32>;
@group(0) @binding(3) var<storage, read_write> key_values: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

override WORKGROUP_SIZE: u32 = 256u;
// Keys of a tile.
const KEYS: u32 = 256u;

var<workgroup> weights: array<f32, KEYS>;
var<workgroup> own_keys: u32;

fn cached(index: u32) -> f32 {
    if (params.halves == 0u) {
        return bitcast<f32>(key_values[index]);
    }
    return value_of_half((key_values[index / 2u] >> (16u * (index % 2u))) & 0xffffu);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = params.first_group + linear_workgroup(workgroup_id, workgroups);
    if (group >= params.rows * params.heads) {
        return;
    }
    let row = group / params.heads;
    let head = group % params.heads;
    let key_head = head / (params.heads / params.kv_heads);
    let width = 2u * params.kv_heads * params.head_dim;
    let query = row * params.stride + head * params.head_dim;
    let first_key = places[2u * row] * width + key_head * params.head_dim;
    let first_value = first_key + params.kv_heads * params.head_dim;
    let target_start = group * params.head_dim;
    if (lane == 0u) {
        own_keys = places[2u * row + 1u];
    }
    // Brings its own barriers: the count is written before it is read, and the same for all.
    let keys = workgroupUniformLoad(&own_keys);

    var maximum = LOWEST;
    var sum = 0.0;
    for (var tile = 0u; tile < keys; tile += KEYS) {
        let count = min(KEYS, keys - tile);
        var own_maximum = LOWEST;
        for (var key = lane; key < count; key += WORKGROUP_SIZE) {
            let at = first_key + (tile + key) * width;
            var score = 0.0;
            for (var i = 0u; i < params.head_dim; i++) {
                score += qkv[query + i] * cached(at + i);
            }
            score = score * params.scale;
            weights[key] = score;
            own_maximum = max(own_maximum, score);
        }
        let before = maximum;
        maximum = max(before, workgroup_max(lane, own_maximum));
        // Of the first tile nothing was summed before.
        let factor = select(exp(before - maximum), 0.0, tile == 0u);
        var own_sum = 0.0;
        for (var key = lane; key < count; key += WORKGROUP_SIZE) {
            let weight = exp(weights[key] - maximum);
            weights[key] = weight;
            own_sum += weight;
        }
        // Its barriers also publish the weights.
        sum = sum * factor + workgroup_sum(lane, own_sum);
        // Each invocation sums the numbers of the head that it alone writes.
        for (var i = lane; i < params.head_dim; i += WORKGROUP_SIZE) {
            var value = 0.0;
            if (tile > 0u) {
                value = out[target_start + i] * factor;
            }
            for (var key = 0u; key < count; key++) {
                value += weights[key] * cached(first_value + (tile + key) * width + i);
            }
            out[target_start + i] = value;
        }
        // Without this barrier a fast invocation overwrites weights that a slow one still reads.
        workgroupBarrier();
    }
    for (var i = lane; i < params.head_dim; i += WORKGROUP_SIZE) {
        var value = 0.0;
        if (keys > 0u) {
            value = out[target_start + i] / sum;
        }
        out[target_start + i] = value;
    }
}
