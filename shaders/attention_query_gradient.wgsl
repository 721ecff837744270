// Gradient of attention by its queries, and what the gradient by keys and values needs of every query.
//
//   p[j] = e^(s[j] - lse[h, i]), s as in attention.wgsl;   mean[h, i] = dout[i, h] . out[i, h] = Σ_j p[j] dp[j]
//   dp[j] = dout[i, h] . v[j];   dq[h, i] = scale Σ_j p[j] (dp[j] - mean[h, i]) k[j]
//
// Bindings
//   1 document_start [tokens] u32                                in   first token that each token sees, ascending
//   2 qkv            [tokens * (heads + 2 kv_heads) * head_dim]  in   what attention read
//   3 out            [tokens * heads * head_dim]                 in   from attention
//   4 lse            [heads * tokens]                            in   from attention
//   5 dout           [tokens * heads * head_dim]                 in   d loss / d out
//   6 mean           [heads * tokens]                            out
//   7 dqkv           as qkv                                      out  the query heads of d loss / d qkv
// Launch: heads * ceil(tokens / 64) * ceil(head_dim / 128) workgroups. Before: the output's product.
// After: attention_key_gradient.

@group(0) @binding(1) var<storage, read_write> document_start: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> dout: array<f32>;
@group(0) @binding(6) var<storage, read_write> mean: array<f32>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<f32>;

fn read_number(which: u32, at: u32) -> f32 {
    if (which == QKV) {
        return qkv_number(at);
    }
    if (which == OUT) {
        return out[at];
    }
    if (which == LSE) {
        return lse[at];
    }
    return dout[at];
}

fn put_number(which: u32, at: u32, value: f32) {
    if (which == MEAN) {
        mean[at] = value;
    } else {
        dqkv[at] = value;
    }
}

fn compute(group: u32, lane: u32) {
    let work = work_of(group, params.heads, true);
    if (work.first >= work.end) {
        return;
    }
    let key_head = params.heads + work.head / (params.heads / params.kv_heads);
    let queries = qkv_view(QKV, work.head, work.first, work.end);
    let outputs = out_view(OUT, work.head, work.first, work.end);
    let douts = out_view(DOUT, work.head, work.first, work.end);
    let row = 4u * (lane / ACROSS);
    var own_mean = vec4<f32>(0.0);
    for (var number = lane % ACROSS; number < params.head_dim; number += ACROSS) {
        own_mean += read_four(outputs, row, 1u, number) * read_four(douts, row, 1u, number);
    }
    own_mean = sum_across(own_mean, lane);
    if (work.offset == 0u && lane % ACROSS == 0u) {
        put_rows(own_mean, query_view(MEAN, work.head, work.first, work.end), 0u, lane);
    }
    let own_lse = read_four(query_view(LSE, work.head, work.first, work.end), row, 1u, 0u);
    let own = own_queries(work, lane);
    let last_start = document_start[work.end - 1u];
    var sums = Sums();
    let column = lane % ACROSS;
    for (var key = agree(document_start[work.first], lane); key < work.end; key += WIDTH) {
        let end = min(key + WIDTH, work.end);
        let keys = qkv_view(QKV, key_head, key, end);
        let scores = tile_products(queries, keys, lane);
        var tile = tile_products(douts, qkv_view(QKV, key_head + params.kv_heads, key, end), lane);
        let seen_a = sees(own, key + column);
        let seen_b = sees(own, key + column + ACROSS);
        let seen_c = sees(own, key + column + 2u * ACROSS);
        let seen_d = sees(own, key + column + 3u * ACROSS);
        tile.a = score_gradient(probability(scores.a, own_lse, seen_a), tile.a, own_mean, seen_a);
        tile.b = score_gradient(probability(scores.b, own_lse, seen_b), tile.b, own_mean, seen_b);
        tile.c = score_gradient(probability(scores.c, own_lse, seen_c), tile.c, own_mean, seen_c);
        tile.d = score_gradient(probability(scores.d, own_lse, seen_d), tile.d, own_mean, seen_d);
        let guarded = key < last_start || key + WIDTH > work.first;
        add_columns(&sums, tile, keys, work.offset, guarded, lane);
    }
    multiply(&sums, vec4<f32>(params.scale));
    put_sums(sums, qkv_view(DQKV, work.head, work.first, work.end), work.offset, lane);
}
