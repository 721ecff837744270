// Tiles of attention in single precision: numbers of rows and columns are multiplied out of workgroup memory.

@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;

// Vectors between two numbers, or columns, in workgroup memory: one more than there are, so that neighbours lie in
// different banks.
const PITCH: u32 = 17u;

// Sixteen numbers of all rows and, from COLUMN_NUMBERS on, of all columns, while these are multiplied; then half a
// tile.
var<workgroup> numbers: array<vec4<f32>, 544>;
const COLUMN_NUMBERS: u32 = 272u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    compute(params.first_group + linear_workgroup(workgroup_id, workgroups), lane);
}

fn qkv_number(at: u32) -> f32 {
    return qkv[at];
}

// The dot products of rows and columns over all numbers of the head.
fn tile_products(rows: View, columns: View, lane: u32) -> Quad {
    let down = lane / ACROSS;
    let across = lane % ACROSS;
    var products = Quad();
    for (var number = 0u; number < params.head_dim; number += ACROSS) {
        // Without this barrier a fast invocation overwrites what a slow one still reads.
        workgroupBarrier();
        if (number + across < params.head_dim) {
            numbers[across * PITCH + down] = read_four(rows, 4u * down, 1u, number + across);
            numbers[COLUMN_NUMBERS + across * PITCH + down] = read_four(columns, down, ACROSS, number + across);
        }
        // Without this barrier numbers are read before they were written.
        workgroupBarrier();
        let past = min(ACROSS, params.head_dim - number) * PITCH;
        for (var at = 0u; at < past; at += PITCH) {
            let row = numbers[at + down];
            let column = numbers[COLUMN_NUMBERS + at + across];
            products.a += row * column.x;
            products.b += row * column.y;
            products.c += row * column.z;
            products.d += row * column.w;
        }
    }
    return products;
}

// Adds each of the columns' tokens times its weight in the tile, numbers `offset` on. Where `guarded`, a weight of zero
// hides whatever its token holds, NaN too.
fn add_columns(sums: ptr<function, Sums>, tile: Quad, columns: View, offset: u32, guarded: bool, lane: u32) {
    var half = columns;
    for (var first = columns.first; first < columns.end; first += 2u * ACROSS) {
        let second = first > columns.first;
        tell(select(tile.a, tile.c, second), select(tile.b, tile.d, second), lane);
        half.first = first;
        half.end = min(columns.end, first + 2u * ACROSS);
        (*sums).low = with_columns((*sums).low, half, offset, guarded, lane);
        if (offset + WIDTH < params.head_dim) {
            (*sums).high = with_columns((*sums).high, half, offset + WIDTH, guarded, lane);
        }
    }
}

// Lets all invocations read 32 columns: column c of rows 4 down .. 4 down + 3 is numbers[c * PITCH + down].
fn tell(one: vec4<f32>, other: vec4<f32>, lane: u32) {
    let to = (lane % ACROSS) * PITCH + lane / ACROSS;
    // Without this barrier a fast invocation overwrites what a slow one still reads.
    workgroupBarrier();
    numbers[to] = one;
    numbers[to + ACROSS * PITCH] = other;
    // Without this barrier the columns of others are read before they were written.
    workgroupBarrier();
}

// The sums of numbers `offset` on, with the columns of which the invocations were told.
fn with_columns(before: Quad, columns: View, offset: u32, guarded: bool, lane: u32) -> Quad {
    var sums = before;
    // Numbers past the head's last read that one, and are never put anywhere.
    let last = params.head_dim - 1u;
    let a = min(offset + lane % ACROSS, last);
    let b = min(a + ACROSS, last);
    let c = min(b + ACROSS, last);
    let d = min(c + ACROSS, last);
    let down = lane / ACROSS;
    let past = (columns.end - columns.first) * PITCH;
    var at = columns.start + columns.first * columns.stride;
    if (guarded) {
        for (var column = 0u; column < past; column += PITCH) {
            let weight = numbers[column + down];
            let hidden = weight == vec4<f32>(0.0);
            sums.a = select(sums.a + weight * read_number(columns.which, at + a), sums.a, hidden);
            sums.b = select(sums.b + weight * read_number(columns.which, at + b), sums.b, hidden);
            sums.c = select(sums.c + weight * read_number(columns.which, at + c), sums.c, hidden);
            sums.d = select(sums.d + weight * read_number(columns.which, at + d), sums.d, hidden);
            at += columns.stride;
        }
    } else if (offset + ACROSS >= params.head_dim) {
        for (var column = 0u; column < past; column += PITCH) {
            sums.a += numbers[column + down] * read_number(columns.which, at + a);
            at += columns.stride;
        }
    } else {
        for (var column = 0u; column < past; column += PITCH) {
            let weight = numbers[column + down];
            sums.a += weight * read_number(columns.which, at + a);
            sums.b += weight * read_number(columns.which, at + b);
            sums.c += weight * read_number(columns.which, at + c);
            sums.d += weight * read_number(columns.which, at + d);
            at += columns.stride;
        }
    }
    return sums;
}

// Sum over the 16 invocations that have the same rows.
fn sum_across(value: vec4<f32>, lane: u32) -> vec4<f32> {
    let down = lane / ACROSS;
    tell(value, vec4<f32>(0.0), lane);
    var sum = numbers[down];
    for (var at = PITCH; at < ACROSS * PITCH; at += PITCH) {
        sum += numbers[at + down];
    }
    return sum;
}

// Maximum over the same.
fn max_across(value: vec4<f32>, lane: u32) -> vec4<f32> {
    let down = lane / ACROSS;
    tell(value, value, lane);
    var most = numbers[down];
    for (var at = PITCH; at < ACROSS * PITCH; at += PITCH) {
        most = max(most, numbers[at + down]);
    }
    return most;
}
