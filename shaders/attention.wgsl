// Causal grouped-query attention within each document of a packed stream, or a window of it, by an online softmax
// (Milakov and Gimelshein 2018; Dao et al. 2022).
//
//   query i of head h sees the tokens document_start[i] <= j <= i
//   s[j] = scale q[h, i] . k[h / (heads / kv_heads), j];   lse[h, i] = ln Σ_j e^s[j]
//   out[i, h] = Σ_j e^(s[j] - lse[h, i]) v[h / (heads / kv_heads), j]
// What a query does not see has no part in its result, whatever it holds.
//
// Bindings
//   1 document_start [tokens] u32                                in   first token that each token sees, ascending
//   2 qkv            [tokens * (heads + 2 kv_heads) * head_dim]  in   heads of the queries, the keys, the values
//   3 out            [tokens * heads * head_dim]                 out
//   4 lse            [heads * tokens]                            out  for the backward pass
// Launch: heads * ceil(tokens / 64) * ceil(head_dim / 128) workgroups. Before: rotary. After: the output's product.

@group(0) @binding(1) var<storage, read_write> document_start: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

fn read_number(which: u32, at: u32) -> f32 {
    return qkv_number(at);
}

fn put_number(which: u32, at: u32, value: f32) {
    if (which == OUT) {
        out[at] = value;
    } else {
        lse[at] = value;
    }
}

fn compute(group: u32, lane: u32) {
    let work = work_of(group, params.heads, true);
    if (work.first >= work.end) {
        return;
    }
    let key_head = params.heads + work.head / (params.heads / params.kv_heads);
    let queries = qkv_view(QKV, work.head, work.first, work.end);
    let own = own_queries(work, lane);
    let last_start = document_start[work.end - 1u];
    var sums = Sums();
    var maximum = vec4<f32>(LOWEST);
    var total = vec4<f32>(0.0);
    let column = lane % ACROSS;
    for (var key = agree(document_start[work.first], lane); key < work.end; key += WIDTH) {
        let end = min(key + WIDTH, work.end);
        var tile = tile_products(queries, qkv_view(QKV, key_head, key, end), lane);
        let seen_a = sees(own, key + column);
        let seen_b = sees(own, key + column + ACROSS);
        let seen_c = sees(own, key + column + 2u * ACROSS);
        let seen_d = sees(own, key + column + 3u * ACROSS);
        tile.a = select(vec4<f32>(LOWEST), params.scale * tile.a, seen_a);
        tile.b = select(vec4<f32>(LOWEST), params.scale * tile.b, seen_b);
        tile.c = select(vec4<f32>(LOWEST), params.scale * tile.c, seen_c);
        tile.d = select(vec4<f32>(LOWEST), params.scale * tile.d, seen_d);
        let before = maximum;
        maximum = max(before, max_across(max(max(tile.a, tile.b), max(tile.c, tile.d)), lane));
        // Selected again, since where nothing was seen yet the maximum is that of hidden keys.
        tile.a = select(vec4<f32>(0.0), exponential(tile.a - maximum), seen_a);
        tile.b = select(vec4<f32>(0.0), exponential(tile.b - maximum), seen_b);
        tile.c = select(vec4<f32>(0.0), exponential(tile.c - maximum), seen_c);
        tile.d = select(vec4<f32>(0.0), exponential(tile.d - maximum), seen_d);
        let factor = exp(before - maximum);
        total = factor * total + ((tile.a + tile.b) + (tile.c + tile.d));
        multiply(&sums, factor);
        let values = qkv_view(QKV, key_head + params.kv_heads, key, end);
        let guarded = key < last_start || key + WIDTH > work.first;
        add_columns(&sums, tile, values, work.offset, guarded, lane);
    }
    total = sum_across(total, lane);
    // Of rows past the last query the total is 0; nothing of them is put.
    multiply(&sums, 1.0 / total);
    put_sums(sums, out_view(OUT, work.head, work.first, work.end), work.offset, lane);
    if (work.offset == 0u && column == 0u) {
        put_rows(maximum + log(total), query_view(LSE, work.head, work.first, work.end), 0u, lane);
    }
}
