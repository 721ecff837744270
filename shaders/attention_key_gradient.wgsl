// Gradient of attention by its keys and values.
//
//   dv[g, j] = Σ p[h, i, j] dout[i, h];   dk[g, j] = scale Σ p[h, i, j] (dp[h, i, j] - mean[h, i]) q[i, h]
// over the query heads h of key head g and the queries i that see j; p, dp, mean as in attention_query_gradient.wgsl.
// A workgroup goes through all of them in order, so that nothing is added by two.
//
// Bindings
//   1 document_start [tokens] u32                                in   first token that each token sees, ascending
//   2 qkv            [tokens * (heads + 2 kv_heads) * head_dim]  in   what attention read
//   3 lse            [heads * tokens]                            in   from attention
//   4 dout           [tokens * heads * head_dim]                 in   d loss / d out
//   5 mean           [heads * tokens]                            in   from attention_query_gradient
//   6 dqkv           as qkv                                      out  the key and value heads of d loss / d qkv
// Launch: kv_heads * ceil(tokens / 64) * ceil(head_dim / 128) workgroups. Before: attention_query_gradient.
// After: rotary.

@group(0) @binding(1) var<storage, read_write> document_start: array<u32>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> dout: array<f32>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> dqkv: array<f32>;

fn read_number(which: u32, at: u32) -> f32 {
    if (which == QKV) {
        return qkv_number(at);
    }
    if (which == LSE) {
        return lse[at];
    }
    if (which == DOUT) {
        return dout[at];
    }
    return mean[at];
}

fn put_number(which: u32, at: u32, value: f32) {
    dqkv[at] = value;
}

fn compute(group: u32, lane: u32) {
    let work = work_of(group, params.kv_heads, false);
    if (work.first >= work.end) {
        return;
    }
    let key_head = params.heads + work.head;
    let value_head = key_head + params.kv_heads;
    let keys = qkv_view(QKV, key_head, work.first, work.end);
    let values = qkv_view(QKV, value_head, work.first, work.end);
    let own = own_tokens(work, lane);
    let past = agree(past_readers(work.end - 1u), lane);
    let readers = params.heads / params.kv_heads;
    var dkeys = Sums();
    var dvalues = Sums();
    for (var head = work.head * readers; head < (work.head + 1u) * readers; head++) {
        for (var query = work.first; query < past; query += WIDTH) {
            let end = min(query + WIDTH, past);
            let queries = qkv_view(QKV, head, query, end);
            let douts = out_view(DOUT, head, query, end);
            let lses = query_view(LSE, head, query, end);
            let means = query_view(MEAN, head, query, end);
            let a = lane % ACROSS;
            let b = a + ACROSS;
            let c = b + ACROSS;
            let d = c + ACROSS;
            let seen_a = seen_by(own, query + a);
            let seen_b = seen_by(own, query + b);
            let seen_c = seen_by(own, query + c);
            let seen_d = seen_by(own, query + d);
            let guarded = query + 1u < work.end || document_start[end - 1u] > work.first;
            var tile = tile_products(keys, queries, lane);
            tile.a = probability(tile.a, vec4<f32>(read_view(lses, a, 0u)), seen_a);
            tile.b = probability(tile.b, vec4<f32>(read_view(lses, b, 0u)), seen_b);
            tile.c = probability(tile.c, vec4<f32>(read_view(lses, c, 0u)), seen_c);
            tile.d = probability(tile.d, vec4<f32>(read_view(lses, d, 0u)), seen_d);
            add_columns(&dvalues, tile, douts, work.offset, guarded, lane);
            let dtile = tile_products(values, douts, lane);
            tile.a = score_gradient(tile.a, dtile.a, vec4<f32>(read_view(means, a, 0u)), seen_a);
            tile.b = score_gradient(tile.b, dtile.b, vec4<f32>(read_view(means, b, 0u)), seen_b);
            tile.c = score_gradient(tile.c, dtile.c, vec4<f32>(read_view(means, c, 0u)), seen_c);
            tile.d = score_gradient(tile.d, dtile.d, vec4<f32>(read_view(means, d, 0u)), seen_d);
            add_columns(&dkeys, tile, queries, work.offset, guarded, lane);
        }
    }
    multiply(&dkeys, vec4<f32>(params.scale));
    put_sums(dkeys, qkv_view(DQKV, key_head, work.first, work.end), work.offset, lane);
    put_sums(dvalues, qkv_view(DQKV, value_head, work.first, work.end), work.offset, lane);
}
