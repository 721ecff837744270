// Causal grouped-query attention as attention.wgsl, of heads that are multiples of 4 numbers wide, without workgroup
// memory.
//
//   lse[h, i] = ln Σ_j e^s[j],   s[j] = scale q[h, i] . k[h / (heads / kv_heads), j]
//   out[i, h] = Σ_j e^(s[j] - lse[h, i]) v[h / (heads / kv_heads), j]
//
// Made for software adapters, where barriers cost more than they save and a load costs as much for one number as for
// four: an invocation has four queries of a head, and multiplies them by four keys at a time.
//
// Bindings
//   1 document_start [tokens] u32                                    in   first token that each token sees, ascending
//   2 qkv            [tokens * (heads + 2 kv_heads) * head_dim / 4]  in   heads of the queries, the keys, the values
//   3 out            [tokens * heads * head_dim / 4]                 out
//   4 lse            [heads * tokens]                                out  for the backward pass
// Launch: ceil(heads * ceil(tokens / 4) / 16) workgroups. Before: rotary. After: the output's product.

@group(0) @binding(1) var<storage, read_write> document_start: array<u32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

// Adds to what is `factor` times as large from now on, or begins with it.
fn add(at: u32, value: vec4<f32>, factor: f32, begins: bool) {
    out[at] = value + select(factor * out[at], vec4<f32>(0.0), begins);
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
    let into = queries * (params.heads * width) + head * width;
    var maximum = vec4<f32>(LOWEST);
    var total = vec4<f32>(0.0);
    for (var key = starts.x; key <= queries.w; key += 4u) {
        let keys = vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u);
        let columns = four_tokens(key) * token_vectors() + key_head * width;
        var tile = mat4x4<f32>();
        for (var n = 0u; n < width; n++) {
            let k = four_of_qkv(columns + n);
            tile += products(four_of_qkv(rows + n), k);
        }
        let seen_a = seen(keys, vec4<u32>(queries.x), vec4<u32>(starts.x));
        let seen_b = seen(keys, vec4<u32>(queries.y), vec4<u32>(starts.y));
        let seen_c = seen(keys, vec4<u32>(queries.z), vec4<u32>(starts.z));
        let seen_d = seen(keys, vec4<u32>(queries.w), vec4<u32>(starts.w));
        var a = select(vec4<f32>(LOWEST), params.scale * tile[0], seen_a);
        var b = select(vec4<f32>(LOWEST), params.scale * tile[1], seen_b);
        var c = select(vec4<f32>(LOWEST), params.scale * tile[2], seen_c);
        var d = select(vec4<f32>(LOWEST), params.scale * tile[3], seen_d);
        let before = maximum;
        maximum = max(before, vec4<f32>(largest_of(a), largest_of(b), largest_of(c), largest_of(d)));
        // Selected again, since where nothing was seen yet the maximum is that of hidden keys.
        a = select(vec4<f32>(0.0), exponential(a - maximum.x), seen_a);
        b = select(vec4<f32>(0.0), exponential(b - maximum.y), seen_b);
        c = select(vec4<f32>(0.0), exponential(c - maximum.z), seen_c);
        d = select(vec4<f32>(0.0), exponential(d - maximum.w), seen_d);
        let factor = exp(before - maximum);
        total = factor * total + vec4<f32>(sum_of(a), sum_of(b), sum_of(c), sum_of(d));
        let begins = key == starts.x;
        let guarded = key < starts.w || key + 3u > first;
        let values = columns + params.kv_heads * width;
        for (var n = 0u; n < width; n++) {
            let v = four_of_qkv(values + n);
            add(into.x + n, weighed(v, a, seen_a, guarded), factor.x, begins);
            if (count > 1u) {
                add(into.y + n, weighed(v, b, seen_b, guarded), factor.y, begins);
            }
            if (count > 2u) {
                add(into.z + n, weighed(v, c, seen_c, guarded), factor.z, begins);
            }
            if (count > 3u) {
                add(into.w + n, weighed(v, d, seen_d, guarded), factor.w, begins);
            }
        }
    }
    for (var row = 0u; row < count; row++) {
        for (var n = 0u; n < width; n++) {
            out[into[row] + n] *= 1.0 / total[row];
        }
        lse[head * params.tokens + first + row] = maximum[row] + log(total[row]);
    }
}
