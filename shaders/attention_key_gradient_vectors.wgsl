// Gradient of attention by its keys and values as attention_key_gradient.wgsl, of heads that are multiples of 4 numbers
// wide, without workgroup memory: see attention_vectors.wgsl.
//
//   dv[g, j] = Σ p[h, i, j] dout[i, h];   dk[g, j] = scale Σ p[h, i, j] (dout[i, h] . v[g, j] - mean[h, i]) q[i, h]
// over the query heads h of key head g and the queries i that see j. An invocation has four keys and goes through all
// of them in order.
//
// Bindings
//   1 document_start [tokens] u32                                    in   first token that each token sees, ascending
//   2 qkv            [tokens * (heads + 2 kv_heads) * head_dim / 4]  in   what attention read
//   3 lse            [heads * tokens]                                in   from attention_vectors
//   4 dout           [tokens * heads * head_dim / 4]                 in   d loss / d out
//   5 mean           [heads * tokens]                                in   from attention_query_gradient_vectors
//   6 dqkv           as qkv                                          out  the key and value heads of d loss / d qkv
// Launch: ceil(kv_heads * ceil(tokens / 4) / 16) workgroups. Before: attention_query_gradient_vectors. After: rotary.

@group(0) @binding(1) var<storage, read_write> document_start: array<u32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> dout: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> dqkv: array<vec4<f32>>;

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
    if (block >= params.kv_heads * blocks()) {
        return;
    }
    let key_head = block / blocks();
    let first = 4u * (block % blocks());
    let count = min(4u, params.tokens - first);
    let width = head_vectors();
    let keys = four_tokens(first);
    let rows = keys * token_vectors() + (params.heads + key_head) * width;
    let value_rows = rows + params.kv_heads * width;
    let past = past_readers(keys.w);
    let group = params.heads / params.kv_heads;
    for (var head = key_head * group; head < (key_head + 1u) * group; head++) {
        for (var query = first; query < past; query += 4u) {
            let queries = vec4<u32>(query) + vec4<u32>(0u, 1u, 2u, 3u);
            let near = four_tokens(query);
            let starts = starts_of(queries);
            let columns = near * token_vectors() + head * width;
            let outs = near * (params.heads * width) + head * width;
            let numbers = near + head * params.tokens;
            var tile = mat4x4<f32>();
            var dtile = mat4x4<f32>();
            for (var n = 0u; n < width; n++) {
                let q = four_of_qkv(columns + n);
                tile += products(four_of_qkv(rows + n), q);
                let d = four_of_dout(outs + n);
                dtile += products(four_of_qkv(value_rows + n), d);
            }
            let lses = vec4<f32>(lse[numbers.x], lse[numbers.y], lse[numbers.z], lse[numbers.w]);
            let means = vec4<f32>(mean[numbers.x], mean[numbers.y], mean[numbers.z], mean[numbers.w]);
            let seen_a = seen(vec4<u32>(keys.x), queries, starts);
            let seen_b = seen(vec4<u32>(keys.y), queries, starts);
            let seen_c = seen(vec4<u32>(keys.z), queries, starts);
            let seen_d = seen(vec4<u32>(keys.w), queries, starts);
            let pa = probability(tile[0], lses, seen_a);
            let pb = probability(tile[1], lses, seen_b);
            let pc = probability(tile[2], lses, seen_c);
            let pd = probability(tile[3], lses, seen_d);
            let a = params.scale * score_gradient(pa, dtile[0], means, seen_a);
            let b = params.scale * score_gradient(pb, dtile[1], means, seen_b);
            let c = params.scale * score_gradient(pc, dtile[2], means, seen_c);
            let d = params.scale * score_gradient(pd, dtile[3], means, seen_d);
            let begins = query == first && head == key_head * group;
            let guarded = query < keys.w || query + 3u >= params.tokens || starts.w > first;
            for (var n = 0u; n < width; n++) {
                let dy = four_of_dout(outs + n);
                let q = four_of_qkv(columns + n);
                add(rows.x + n, weighed(q, a, seen_a, guarded), begins);
                add(value_rows.x + n, weighed(dy, pa, seen_a, guarded), begins);
                if (count > 1u) {
                    add(rows.y + n, weighed(q, b, seen_b, guarded), begins);
                    add(value_rows.y + n, weighed(dy, pb, seen_b, guarded), begins);
                }
                if (count > 2u) {
                    add(rows.z + n, weighed(q, c, seen_c, guarded), begins);
                    add(value_rows.z + n, weighed(dy, pc, seen_c, guarded), begins);
                }
                if (count > 3u) {
                    add(rows.w + n, weighed(q, d, seen_d, guarded), begins);
                    add(value_rows.w + n, weighed(dy, pd, seen_d, guarded), begins);
                }
            }
        }
    }
}
