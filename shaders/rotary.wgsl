// Rotary position embedding, in place, and its backward pass.
//
//   for pair i of head h of token t, with c = cos[positions[t], i] and s = sin[positions[t], i] (s negated if inverse):
//   (a, b) <- (a c - b s, b c + a s)
// The pair is elements (i, i + rotary_dim / 2) of the head, or (2 i, 2 i + 1) if interleaved; elements at and past
// rotary_dim stay as they are. The gradient of a rotation is rotated by the opposite angle.
//
// Bindings
//   1 x         [tokens * row_stride]          in/out  (t, h, d) at t * row_stride + h * head_dim + d
//   2 cos_table [positions * rotary_dim / 2]   in      row p holds the cosines of position p
//   3 sin_table [positions * rotary_dim / 2]   in
//   4 positions [tokens] u32                   in      rows of the two tables; the host keeps them inside
// Launch: one invocation a pair, tokens * heads * rotary_dim / 2. Before: the q and k projections (and their norms).
// After: attention.

struct Params {
    tokens: u32,
    heads: u32,
    head_dim: u32,
    rotary_dim: u32,
    interleaved: u32,
    inverse: u32,
    row_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> cos_table: array<f32>;
@group(0) @binding(3) var<storage, read_write> sin_table: array<f32>;
@group(0) @binding(4) var<storage, read_write> positions: array<u32>;

const WORKGROUP_SIZE: u32 = 256u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_workgroup(workgroup_id, workgroups) * WORKGROUP_SIZE + lane;
    let pairs = params.rotary_dim / 2u;
    if (index >= params.tokens * params.heads * pairs) {
        return;
    }
    let pair = index % pairs;
    let head = (index / pairs) % params.heads;
    let token = index / (pairs * params.heads);
    let start = token * params.row_stride + head * params.head_dim;
    var first = start + pair;
    var second = first + pairs;
    if (params.interleaved != 0u) {
        first = start + 2u * pair;
        second = first + 1u;
    }
    let entry = positions[token] * pairs + pair;
    let c = cos_table[entry];
    var s = sin_table[entry];
    if (params.inverse != 0u) {
        s = -s;
    }
    let a = x[first];
    let b = x[second];
    x[first] = a * c - b * s;
    x[second] = b * c + a * s;
}
