// Puts keys and values of new tokens into a block's cache.
//
//   key_values[place(r), j] = source[r * source_stride + source_offset + j],  j < width,
//   place(r) = places[2 r] + places[2 r + 1] - 1
//
// A row of the cache is a token's key heads and then its value heads, as f32 or as pairs of f16, whose numbers are kept
// within what f16 holds.
//
// Bindings
//   1 source_values [rows, source_stride]  in      queries, keys and values of the new tokens, as attention reads them
//   2 places        [rows, 2] u32          in      first row of the token's sequence in the cache; its keys and its own
//   3 key_values    [.., words] u32        in/out  words = width, or width / 2 as f16; other rows are left alone
// Launch: one invocation a word, rows * words. Before: rotary. After: cached_attention.

struct Params {
    rows: u32,
    width: u32,
    source_stride: u32,
    source_offset: u32,
    halves: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> source_values: array<f32>;
@group(0) @binding(2) var<storage, read_write> places: array<u32>;
@group(0) @binding(3) var<storage, read_write> key_values: array<u32>;

const WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let words = params.width >> min(params.halves, 1u);
    let index = linear_workgroup(workgroup_id, workgroups) * WORKGROUP_SIZE + lane;
    if (index >= params.rows * words) {
        return;
    }
    let row = index / words;
    let word = index % words;
    let to = (places[2u * row] + places[2u * row + 1u] - 1u) * words + word;
    let source = row * params.source_stride + params.source_offset;
    if (params.halves == 0u) {
        key_values[to] = bitcast<u32>(source_values[source + word]);
    } else {
        let low = half_of(source_values[source + 2u * word]);
        let high = half_of(source_values[source + 2u * word + 1u]);
        key_values[to] = low | (high << 16u);
    }
}
