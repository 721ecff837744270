// What the attention kernels share: tiles of 64 rows by 64 columns and sums over their columns. Memory is linear in the
// number of tokens, since no tile leaves its workgroup.
//
// Rows and columns are tokens of one head: queries and keys, or in the pass to keys and values keys and queries. Of 256
// invocations, 16 down and 16 across, each holds
//   of a tile, rows 4 down .. 4 down + 3 (the components of a vec4) of columns across, across + 16, + 32 and + 48;
//   of sums, the same rows of every 16th number of a head from `across` on.
// A workgroup sums 128 numbers of a head; a wider head has several workgroups, each of which makes all tiles.
//
// A kernel declares `read_number(which, at)` and `put_number(which, at, value)` for the arrays that it binds, and
// `compute(group, lane)`. The part behind this one calls that and has the tiles and their sums: of operands as they are
// (attention_tiles.wgsl), or in half precision on tensor cores (attention_matrices.wgsl).

const WORKGROUP_SIZE: u32 = 256u;
const ROWS_PER_WORKGROUP: u32 = 64u;
const COLUMNS_PER_WORKGROUP: u32 = 128u;
// Columns of a tile, and numbers that one Quad sums.
const WIDTH: u32 = 64u;
const ACROSS: u32 = 16u;
// Arrays that a kernel reads or writes.
const QKV: u32 = 0u;
const OUT: u32 = 1u;
const LSE: u32 = 2u;
const DOUT: u32 = 3u;
const MEAN: u32 = 4u;
const DQKV: u32 = 5u;

var<workgroup> agreed: u32;

// Tokens of a head, `first .. end`.
struct View {
    which: u32,
    // Numbers from one token to the next, and the head's first among them.
    stride: u32,
    start: u32,
    first: u32,
    end: u32,
}

// Four rows of columns, or of numbers, across, across + 16, + 32 and + 48.
struct Quad {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

// Sums of 128 numbers.
struct Sums {
    low: Quad,
    high: Quad,
}

// What one workgroup makes: numbers `offset` on of the rows `first .. end` of a head.
struct Work {
    head: u32,
    offset: u32,
    first: u32,
    end: u32,
}

fn tiles_of(count: u32, size: u32) -> u32 {
    return (count + size - 1u) / size;
}

// The work of a workgroup, all heads of a tile one after the other; past the last workgroup it ends before it begins.
// The tiles are counted down where `downwards`, so that those with the most to do come first.
fn work_of(group: u32, heads: u32, downwards: bool) -> Work {
    let parts = tiles_of(params.head_dim, COLUMNS_PER_WORKGROUP);
    let tiles = tiles_of(params.tokens, ROWS_PER_WORKGROUP);
    let tile = group / (heads * parts);
    if (tile >= tiles) {
        return Work(0u, 0u, 1u, 0u);
    }
    let first = ROWS_PER_WORKGROUP * select(tile, tiles - 1u - tile, downwards);
    let offset = (group / heads % parts) * COLUMNS_PER_WORKGROUP;
    return Work(group % heads, offset, first, min(first + ROWS_PER_WORKGROUP, params.tokens));
}

// What the first invocation says, for all and, as compilers see it, the same for all.
fn agree(value: u32, lane: u32) -> u32 {
    if (lane == 0u) {
        agreed = value;
    }
    return workgroupUniformLoad(&agreed);
}

// The `head`-th head of qkv or its gradient: query heads, then key heads, then value heads.
fn qkv_view(which: u32, head: u32, first: u32, end: u32) -> View {
    let stride = (params.heads + 2u * params.kv_heads) * params.head_dim;
    return View(which, stride, head * params.head_dim, first, end);
}

// A query head of the output or its gradient.
fn out_view(which: u32, head: u32, first: u32, end: u32) -> View {
    return View(which, params.heads * params.head_dim, head * params.head_dim, first, end);
}

// A number for each query of a head.
fn query_view(which: u32, head: u32, first: u32, end: u32) -> View {
    return View(which, 1u, head * params.tokens, first, end);
}

// Past the end there are zeros.
fn read_view(view: View, index: u32, number: u32) -> f32 {
    let token = view.first + index;
    if (token >= view.end) {
        return 0.0;
    }
    return read_number(view.which, view.start + token * view.stride + number);
}

fn read_four(view: View, index: u32, step: u32, number: u32) -> vec4<f32> {
    return vec4<f32>(
        read_view(view, index, number),
        read_view(view, index + step, number),
        read_view(view, index + 2u * step, number),
        read_view(view, index + 3u * step, number),
    );
}

// Tokens of an invocation's four rows and the first ones that these see.
struct Queries {
    token: vec4<u32>,
    start: vec4<u32>,
}

fn own_tokens(work: Work, lane: u32) -> vec4<u32> {
    return vec4<u32>(work.first + 4u * (lane / ACROSS)) + vec4<u32>(0u, 1u, 2u, 3u);
}

fn own_queries(work: Work, lane: u32) -> Queries {
    let token = own_tokens(work, lane);
    return Queries(token, vec4<u32>(start_of(token.x), start_of(token.y), start_of(token.z), start_of(token.w)));
}

fn sees(queries: Queries, key: u32) -> vec4<bool> {
    return (vec4<u32>(key) >= queries.start) & (vec4<u32>(key) <= queries.token);
}

fn seen_by(keys: vec4<u32>, query: u32) -> vec4<bool> {
    return (keys >= vec4<u32>(start_of(query))) & (keys <= vec4<u32>(query));
}

fn multiplied(quad: Quad, factor: vec4<f32>) -> Quad {
    return Quad(factor * quad.a, factor * quad.b, factor * quad.c, factor * quad.d);
}

fn multiply(sums: ptr<function, Sums>, factor: vec4<f32>) {
    (*sums).low = multiplied((*sums).low, factor);
    (*sums).high = multiplied((*sums).high, factor);
}

// Puts sums of numbers `offset` on where the rows have them.
fn put_sums(sums: Sums, rows: View, offset: u32, lane: u32) {
    let number = offset + lane % ACROSS;
    put_rows(sums.low.a, rows, number, lane);
    put_rows(sums.low.b, rows, number + ACROSS, lane);
    put_rows(sums.low.c, rows, number + 2u * ACROSS, lane);
    put_rows(sums.low.d, rows, number + 3u * ACROSS, lane);
    put_rows(sums.high.a, rows, number + WIDTH, lane);
    put_rows(sums.high.b, rows, number + WIDTH + ACROSS, lane);
    put_rows(sums.high.c, rows, number + WIDTH + 2u * ACROSS, lane);
    put_rows(sums.high.d, rows, number + WIDTH + 3u * ACROSS, lane);
}

fn put_rows(values: vec4<f32>, rows: View, number: u32, lane: u32) {
    if (number >= params.head_dim) {
        return;
    }
    let token = rows.first + 4u * (lane / ACROSS);
    for (var row = 0u; row < min(4u, rows.end - min(token, rows.end)); row++) {
        put_number(rows.which, rows.start + (token + row) * rows.stride + number, values[row]);
    }
}
