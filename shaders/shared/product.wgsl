// What kernels for products have in common: their parameters, and how an element of the result is written.

struct Params {
    rows: u32,
    columns: u32,
    inner: u32,
    batches: u32,
    left_offset: u32,
    left_batch: u32,
    left_row: u32,
    left_step: u32,
    right_offset: u32,
    right_batch: u32,
    right_step: u32,
    right_column: u32,
    target_offset: u32,
    target_batch: u32,
    target_row: u32,
    accumulate: u32,
    alpha: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> target_values: array<f32>;

// Writes an element of the batch that begins at `base`, or adds to it; past the last row or column nothing.
fn put(row: u32, column: u32, base: u32, sum: f32) {
    if (row >= params.rows || column >= params.columns) {
        return;
    }
    let at = base + row * params.target_row + column;
    var value = params.alpha * sum;
    if (params.accumulate != 0u) {
        value += target_values[at];
    }
    target_values[at] = value;
}

// Four terms of a row by those of four columns.
fn dots(left: vec4<f32>, r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(left, r0), dot(left, r1), dot(left, r2), dot(left, r3));
}

