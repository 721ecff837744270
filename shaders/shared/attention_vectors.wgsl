// What the attention kernels for software adapters share: no workgroup memory, and four numbers a load. An invocation
// has four tokens of a head, its rows, and goes through four others at a time, the columns; what it sums lies in the
// result itself.

const WORKGROUP_SIZE: u32 = 16u;

// Four tokens from `first` on; the last one in place of those past it.
fn four_tokens(first: u32) -> vec4<u32> {
    return min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.tokens - 1u));
}

// Blocks of four tokens.
fn blocks() -> u32 {
    return (params.tokens + 3u) / 4u;
}

// Vectors of a head, and of all heads of a token.
fn head_vectors() -> u32 {
    return params.head_dim / 4u;
}

fn token_vectors() -> u32 {
    return (params.heads + 2u * params.kv_heads) * head_vectors();
}

// Whether keys are seen by queries, with the first tokens that these see.
fn seen(keys: vec4<u32>, queries: vec4<u32>, starts: vec4<u32>) -> vec4<bool> {
    return (keys >= starts) & (keys <= queries);
}

fn starts_of(tokens: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(start_of(tokens.x), start_of(tokens.y), start_of(tokens.z), start_of(tokens.w));
}

fn largest_of(x: vec4<f32>) -> f32 {
    return max(max(x.x, x.y), max(x.z, x.w));
}

fn sum_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// Sum of four columns, each times its weight. Where `guarded`, a column that is not seen has no part, whatever it
// holds.
fn weighed(columns: mat4x4<f32>, weights: vec4<f32>, is_seen: vec4<bool>, guarded: bool) -> vec4<f32> {
    if (!guarded) {
        return columns * weights;
    }
    let zero = vec4<f32>(0.0);
    let only = mat4x4<f32>(
        select(zero, columns[0], is_seen.x),
        select(zero, columns[1], is_seen.y),
        select(zero, columns[2], is_seen.z),
        select(zero, columns[3], is_seen.w),
    );
    return only * weights;
}

// Four tokens' vectors of `qkv`, and the products of four rows' with four columns': a column of the result each row.
fn four_of_qkv(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(qkv[at.x], qkv[at.y], qkv[at.z], qkv[at.w]);
}

fn products(rows: mat4x4<f32>, columns: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(rows[0] * columns, rows[1] * columns, rows[2] * columns, rows[3] * columns);
}
