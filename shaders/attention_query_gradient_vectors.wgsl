// Gradient of attention by its queries as attention_query_gradient.wgsl, of heads that are multiples of 4 numbers wide,
// without workgroup memory: see attention_vectors.wgsl.
//
//   p[j] = e^(s[j] - lse[h, i]), s as in attention.wgsl;   mean[h, i] = dout[i, h] . out[i, h]
//   dq[h, i] = scale Σ_j p[j] (dout[i, h] . v[j] - mean[h, i]) k[j]
//
// Bindings
//   1 document_start [tokens] u32                                    in   first token that each token sees, ascending
//   2 qkv            [tokens * (heads + 2 kv_heads) * head_dim / 4]  in   what attention read
//   3 out            [tokens * heads * head_dim / 4]                 in   from attention_vectors
//   4 lse            [heads * tokens]                                in   from attention_vectors
//   5 dout           [tokens * heads * head_dim / 4]                 in   d loss / d out
//   6 mean           [heads * tokens]                                out
//   7 dqkv           as qkv                                          out  the query heads of d loss / d qkv
// Launch: ceil(heads * ceil(tokens / 4) / 16) workgroups. Before: the output's product.
// After: attention_key_gradient_vectors.

@group(0) @binding(1) var<storage, read_write> document_start: array<u32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> mean: array<f32>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<vec4<f32>>;

// Adds to what is there, or begins with it.
fn add(at: u32, value: vec4<f32>, begins: bool) {
    dqkv[at] = value + select(dqkv[at], vec4<f32>(0.0), begins);
}

fn four_of_dout(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(dout[at.x], dout[at.y], dout[at.z], dout[at.w]);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = (params.first_group + linear_workgroup(workgroup_id, workgroups)) * WORKGROUP_SIZE + lane;
    if (block >= params.heads * blocks()) {
        return;
    }
    let head = block / blocks();
    let first = 4u * (block % blocks());
    let count = min(4u, params.tokens - first);
    let width = head_vectors();
    let key_head = params.heads + head / (params.heads / params.kv_heads);
    let queries = four_tokens(first);
    let starts = starts_of(queries);
    let rows = queries * token_vectors() + head * width;
    let outs = queries * (params.heads * width) + head * width;
    let numbers = queries + head * params.tokens;
    var means = vec4<f32>(0.0);
    for (var n = 0u; n < width; n++) {
        means += vec4<f32>(
            dot(out[outs.x + n], dout[outs.x + n]),
            dot(out[outs.y + n], dout[outs.y + n]),
            dot(out[outs.z + n], dout[outs.z + n]),
            dot(out[outs.w + n], dout[outs.w + n]),
        );
    }
    for (var row = 0u; row < count; row++) {
        mean[numbers[row]] = means[row];
    }
    let lses = vec4<f32>(lse[numbers.x], lse[numbers.y], lse[numbers.z], lse[numbers.w]);
    for (var key = starts.x; key <= queries.w; key += 4u) {
        let keys = vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u);
        let columns = four_tokens(key) * token_vectors() + key_head * width;
        let values = columns + params.kv_heads * width;
        var tile = mat4x4<f32>();
        var dtile = mat4x4<f32>();
        for (var n = 0u; n < width; n++) {
            let k = four_of_qkv(columns + n);
            tile += products(four_of_qkv(rows + n), k);
            let v = four_of_qkv(values + n);
            dtile += products(four_of_dout(outs + n), v);
        }
        let seen_a = seen(keys, vec4<u32>(queries.x), vec4<u32>(starts.x));
        let seen_b = seen(keys, vec4<u32>(queries.y), vec4<u32>(starts.y));
        let seen_c = seen(keys, vec4<u32>(queries.z), vec4<u32>(starts.z));
        let seen_d = seen(keys, vec4<u32>(queries.w), vec4<u32>(starts.w));
        let a = params.scale * own_gradient(tile[0], dtile[0], lses.x, means.x, seen_a);
        let b = params.scale * own_gradient(tile[1], dtile[1], lses.y, means.y, seen_b);
        let c = params.scale * own_gradient(tile[2], dtile[2], lses.z, means.z, seen_c);
        let d = params.scale * own_gradient(tile[3], dtile[3], lses.w, means.w, seen_d);
        let begins = key == starts.x;
        let guarded = key < starts.w || key + 3u > first;
        for (var n = 0u; n < width; n++) {
            let k = four_of_qkv(columns + n);
            add(rows.x + n, weighed(k, a, seen_a, guarded), begins);
            if (count > 1u) {
                add(rows.y + n, weighed(k, b, seen_b, guarded), begins);
            }
            if (count > 2u) {
                add(rows.z + n, weighed(k, c, seen_c, guarded), begins);
            }
            if (count > 3u) {
                add(rows.w + n, weighed(k, d, seen_d, guarded), begins);
            }
        }
    }
}

// By the scores of one query.
fn own_gradient(product: vec4<f32>, dp: vec4<f32>, lse: f32, mean: f32, is_seen: vec4<bool>) -> vec4<f32> {
    return score_gradient(probability(product, vec4<f32>(lse), is_seen), dp, vec4<f32>(mean), is_seen);
}
