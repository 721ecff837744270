// Tiles of attention on tensor cores: operands in half precision, sums in f32.
//
// Queries, keys, values and their gradients are rows of halves with a power of two each (half_rows.wgsl), a row a token
// and head. Weights of a tile are made into such rows here, so that nothing leaves the range of f16 whatever its size;
// the powers of two are applied to the f32 sums.
//
// A tile's sixteen matrices are cut into eight parts of two that lie side by side, a subgroup each; where there are
// fewer subgroups the parts are computed in turns, and where there are more some have none: they compute the first
// and store it where nobody reads, because matrices are multiplied in uniform control flow alone. No matrix of sums
// outlives a tile: what is summed over tiles is in each invocation's own numbers, as in attention_tiles.wgsl.
//
// A kernel's own part declares `read_halves(which, row, vector, rest)`, four numbers of a row or what rounding left of
// them, `read_exponent(which, row)`, and SEGMENTS: 3 where sums are to be nearly those of single precision, of halves
// with halves and of each with the other's rest, else 1.

// Terms that are brought in at a time, and vectors of four of them.
const HALF_TERMS: u32 = 32u;
const VECTORS: u32 = 8u;
// Between two rows in workgroup memory, and between two tokens whose numbers are the columns: a few more than there
// are, so that not all begin in one bank.
const STRIDE: u32 = 40u;
const SPREAD: u32 = 72u;
const PARTS: u32 = 8u;
const TILE_ELEMENTS: u32 = TILE * TILE;
// Behind the sixteen matrices two for whom has no part, and one of zeros, which sums begin with.
const ZEROS: u32 = 18u * TILE_ELEMENTS;
const NAN_BITS: u32 = 0x7fc00000u;

var<workgroup> left_tile: array<f16, ROWS_PER_WORKGROUP * STRIDE>;
var<workgroup> right_tile: array<f16, WIDTH * STRIDE>;
var<workgroup> tile_sums: array<f32, 19u * TILE_ELEMENTS>;
// Of the tokens that are brought in, in turns by one and the other, a bit each: whether it holds what is not finite.
var<workgroup> spoiled: array<atomic<u32>, 2>;

var<private> own_subgroup: u32;
var<private> subgroup_count: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    own_subgroup = subgroup;
    subgroup_count = subgroups;
    if (lane < 2u) {
        atomicStore(&spoiled[lane], 0u);
    }
    compute(params.first_group + linear_workgroup(workgroup_id, workgroups), lane);
}

// Rounded to what f16 holds, by hand: compilers may take a conversion there and back for nothing.
fn eleven_bits(values: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(values);
    let special = (bits & vec4<u32>(EXPONENT_BITS)) == vec4<u32>(EXPONENT_BITS);
    let rounded = bitcast<vec4<f32>>((bits + vec4<u32>(0x1000u)) & vec4<u32>(0xffffe000u));
    return select(rounded, values, special);
}

fn vectors_of_a_row() -> u32 {
    return VECTORS * tiles_of(params.head_dim, HALF_TERMS);
}

// A token's row among those of halves.
fn row_of(view: View, token: u32) -> u32 {
    return (view.start + token * view.stride) / params.head_dim;
}

// Four numbers of a token of a view, or their rest; past its end, and past the head's last number, there are zeros.
fn four_halves(view: View, token: u32, vector: u32, rest: bool) -> vec4<f16> {
    if (token >= view.end || vector >= vectors_of_a_row()) {
        return vec4<f16>();
    }
    return read_halves(view.which, row_of(view, token), vector, rest);
}

fn exponent_of(view: View, index: u32) -> i32 {
    let token = view.first + index;
    if (token >= view.end) {
        return 0i;
    }
    return bitcast<i32>(read_exponent(view.which, row_of(view, token)));
}

// An invocation's four rows of one of its columns, of the sums that the subgroups have stored.
fn own_sums(column: u32, lane: u32) -> vec4<f32> {
    let down = lane / ACROSS;
    let tile = (down / 4u) * 4u + column;
    let at = tile * TILE_ELEMENTS + 4u * (down % 4u) * TILE + lane % ACROSS;
    return vec4<f32>(tile_sums[at], tile_sums[at + TILE], tile_sums[at + 2u * TILE], tile_sums[at + 3u * TILE]);
}

fn with_exponents(values: vec4<f32>, exponents: vec4<i32>) -> vec4<f32> {
    return vec4<f32>(
        scaled(values.x, exponents.x),
        scaled(values.y, exponents.y),
        scaled(values.z, exponents.z),
        scaled(values.w, exponents.w),
    );
}

// The dot products of rows and columns over all numbers of the head.
fn tile_products(rows: View, columns: View, lane: u32) -> Quad {
    tile_sums[ZEROS + lane] = 0.0;
    for (var turn = 0u; turn < PARTS; turn += subgroup_count) {
        let busy = turn + own_subgroup < PARTS;
        let part = select(0u, turn + own_subgroup, busy);
        let own = select(PARTS, part, busy) * 2u * TILE_ELEMENTS;
        let left_at = (part / 2u) * TILE * STRIDE;
        let right_at = (part % 2u) * 2u * TILE * STRIDE;
        // Without this barrier sums begin with zeros that are not written yet.
        workgroupBarrier();
        var c0 = coopLoadT<SumMatrix>(&tile_sums[ZEROS], TILE);
        var c1 = coopLoadT<SumMatrix>(&tile_sums[ZEROS], TILE);
        for (var step = 0u; step < SEGMENTS * vectors_of_a_row(); step += VECTORS) {
            let segment = step / vectors_of_a_row();
            let vector = step % vectors_of_a_row();
            // Without this barrier terms are overwritten that another subgroup still multiplies.
            workgroupBarrier();
            for (var slot = lane; slot < ROWS_PER_WORKGROUP * VECTORS; slot += WORKGROUP_SIZE) {
                let index = slot / VECTORS;
                let left = four_halves(rows, rows.first + index, vector + slot % VECTORS, segment == 1u);
                let right = four_halves(columns, columns.first + index, vector + slot % VECTORS, segment == 2u);
                let into = index * STRIDE + 4u * (slot % VECTORS);
                left_tile[into] = left.x;
                left_tile[into + 1u] = left.y;
                left_tile[into + 2u] = left.z;
                left_tile[into + 3u] = left.w;
                right_tile[into] = right.x;
                right_tile[into + 1u] = right.y;
                right_tile[into + 2u] = right.z;
                right_tile[into + 3u] = right.w;
            }
            // Without this barrier terms are multiplied that another invocation has not brought in yet.
            workgroupBarrier();
            for (var term = 0u; term < HALF_TERMS; term += TILE) {
                let a = coopLoadT<LeftMatrix>(&left_tile[left_at + term], STRIDE);
                // Rows of `right_tile` are columns of the right matrix: it is loaded by columns.
                let b0 = coopLoad<RightMatrix>(&right_tile[right_at + term], STRIDE);
                let b1 = coopLoad<RightMatrix>(&right_tile[right_at + TILE * STRIDE + term], STRIDE);
                c0 = coopMultiplyAdd(a, b0, c0);
                c1 = coopMultiplyAdd(a, b1, c1);
            }
        }
        coopStoreT(c0, &tile_sums[own], TILE);
        coopStoreT(c1, &tile_sums[own + TILE_ELEMENTS], TILE);
    }
    // Without this barrier sums are read that another subgroup has not stored yet.
    workgroupBarrier();
    let row = 4u * (lane / ACROSS);
    let column = lane % ACROSS;
    let exponents = vec4<i32>(
        exponent_of(rows, row),
        exponent_of(rows, row + 1u),
        exponent_of(rows, row + 2u),
        exponent_of(rows, row + 3u),
    );
    return Quad(
        with_exponents(own_sums(0u, lane), exponents + exponent_of(columns, column)),
        with_exponents(own_sums(1u, lane), exponents + exponent_of(columns, column + ACROSS)),
        with_exponents(own_sums(2u, lane), exponents + exponent_of(columns, column + 2u * ACROSS)),
        with_exponents(own_sums(3u, lane), exponents + exponent_of(columns, column + 3u * ACROSS)),
    );
}

// Adds each of the columns' tokens times its weight in the tile, numbers `offset` on. Where `guarded`, a weight of zero
// hides whatever its token holds, NaN too.
fn add_columns(sums: ptr<function, Sums>, tile: Quad, columns: View, offset: u32, guarded: bool, lane: u32) {
    let column = lane % ACROSS;
    var weights = Quad(
        with_exponents(tile.a, vec4<i32>(exponent_of(columns, column))),
        with_exponents(tile.b, vec4<i32>(exponent_of(columns, column + ACROSS))),
        with_exponents(tile.c, vec4<i32>(exponent_of(columns, column + 2u * ACROSS))),
        with_exponents(tile.d, vec4<i32>(exponent_of(columns, column + 3u * ACROSS))),
    );
    let largest = max(max(magnitude(weights.a), magnitude(weights.b)), max(magnitude(weights.c), magnitude(weights.d)));
    let shifts = shifts_of(max_across(largest, lane));
    weights = multiplied(weights, powers_of_two(shifts));
    let back = powers_of_two(-shifts);
    for (var first = offset; first < min(offset + COLUMNS_PER_WORKGROUP, params.head_dim); first += WIDTH) {
        let more = multiplied(weighted(weights, columns, first, guarded, lane), back);
        if (first == offset) {
            (*sums).low = added((*sums).low, more);
        } else {
            (*sums).high = added((*sums).high, more);
        }
    }
}

fn added(one: Quad, other: Quad) -> Quad {
    return Quad(one.a + other.a, one.b + other.b, one.c + other.c, one.d + other.d);
}

// What is not finite counts as infinite.
fn magnitude(values: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(values) & vec4<u32>(0x7fffffffu);
    return bitcast<vec4<f32>>(min(bits, vec4<u32>(EXPONENT_BITS)));
}

// The exponents of the powers of two by which rows are multiplied to be halved, from their largest numbers: those of
// half_rows.wgsl.
fn shifts_of(largest: vec4<f32>) -> vec4<i32> {
    let bits = bitcast<vec4<u32>>(largest);
    let exponents = vec4<i32>(bits >> vec4<u32>(23u));
    let shifts = min(vec4<i32>(141i) - exponents, vec4<i32>(126i));
    return select(shifts, vec4<i32>(0i), (bits == vec4<u32>(0u)) | (exponents == vec4<i32>(255i)));
}

fn powers_of_two(exponents: vec4<i32>) -> vec4<f32> {
    return vec4<f32>(
        power_of_two(exponents.x),
        power_of_two(exponents.y),
        power_of_two(exponents.z),
        power_of_two(exponents.w),
    );
}

// The columns' tokens times these weights, 64 numbers from `offset` on.
fn weighted(weights: Quad, columns: View, offset: u32, guarded: bool, lane: u32) -> Quad {
    let row = 4u * (lane / ACROSS);
    var lost = vec4<bool>(false);
    tile_sums[ZEROS + lane] = 0.0;
    for (var turn = 0u; turn < PARTS; turn += subgroup_count) {
        let busy = turn + own_subgroup < PARTS;
        let part = select(0u, turn + own_subgroup, busy);
        let own = select(PARTS, part, busy) * 2u * TILE_ELEMENTS;
        let left_at = (part / 2u) * TILE * STRIDE;
        let right_at = (part % 2u) * 2u * TILE;
        // Without this barrier sums begin with zeros that are not written yet.
        workgroupBarrier();
        var c0 = coopLoadT<SumMatrix>(&tile_sums[ZEROS], TILE);
        var c1 = coopLoadT<SumMatrix>(&tile_sums[ZEROS], TILE);
        for (var step = 0u; step < 2u * SEGMENTS; step++) {
            let second = step % 2u;
            let segment = step / 2u;
            // Without this barrier terms are overwritten that another subgroup still multiplies.
            workgroupBarrier();
            if (lane == 0u) {
                atomicStore(&spoiled[1u - second], 0u);
            }
            var one = select(weights.a, weights.c, second == 1u);
            var other = select(weights.b, weights.d, second == 1u);
            if (segment == 1u) {
                one -= eleven_bits(one);
                other -= eleven_bits(other);
            } else {
                one = eleven_bits(one);
                other = eleven_bits(other);
            }
            for (var i = 0u; i < 4u; i++) {
                let into = (row + i) * STRIDE + lane % ACROSS;
                left_tile[into] = f16(one[i]);
                left_tile[into + ACROSS] = f16(other[i]);
            }
            for (var slot = lane; slot < HALF_TERMS * (WIDTH / 4u); slot += WORKGROUP_SIZE) {
                let term = slot / (WIDTH / 4u);
                let vector = slot % (WIDTH / 4u);
                let token = columns.first + second * HALF_TERMS + term;
                var four = four_halves(columns, token, offset / 4u + vector, segment == 2u);
                let bits = bitcast<vec4<u32>>(vec4<f32>(four)) & vec4<u32>(EXPONENT_BITS);
                if (guarded && any(bits == vec4<u32>(EXPONENT_BITS))) {
                    four = vec4<f16>();
                    atomicOr(&spoiled[second], 1u << term);
                }
                let into = term * SPREAD + 4u * vector;
                right_tile[into] = four.x;
                right_tile[into + 1u] = four.y;
                right_tile[into + 2u] = four.z;
                right_tile[into + 3u] = four.w;
            }
            // Without this barrier terms are multiplied that another invocation has not brought in yet.
            workgroupBarrier();
            for (var term = 0u; term < HALF_TERMS; term += TILE) {
                let a = coopLoadT<LeftMatrix>(&left_tile[left_at + term], STRIDE);
                let b0 = coopLoadT<RightMatrix>(&right_tile[term * SPREAD + right_at], SPREAD);
                let b1 = coopLoadT<RightMatrix>(&right_tile[term * SPREAD + right_at + TILE], SPREAD);
                c0 = coopMultiplyAdd(a, b0, c0);
                c1 = coopMultiplyAdd(a, b1, c1);
            }
            // Who sees a token that is not finite has no finite sums.
            for (var left = atomicLoad(&spoiled[second]); left != 0u; left &= left - 1u) {
                let term = countTrailingZeros(left);
                for (var i = 0u; i < 4u; i++) {
                    lost[i] = lost[i] || left_tile[(row + i) * STRIDE + term] != 0.0h;
                }
            }
        }
        coopStoreT(c0, &tile_sums[own], TILE);
        coopStoreT(c1, &tile_sums[own + TILE_ELEMENTS], TILE);
    }
    // Without this barrier sums are read that another subgroup has not stored yet.
    workgroupBarrier();
    var nan = NAN_BITS;
    let nothing = vec4<f32>(bitcast<f32>(nan));
    return Quad(
        select(own_sums(0u, lane), nothing, lost),
        select(own_sums(1u, lane), nothing, lost),
        select(own_sums(2u, lane), nothing, lost),
        select(own_sums(3u, lane), nothing, lost),
    );
}

// Lets all invocations read one number of each of four rows from every invocation.
fn tell(values: vec4<f32>, lane: u32) {
    // Without this barrier a fast invocation overwrites what a slow one still reads.
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
        tile_sums[i * WORKGROUP_SIZE + lane] = values[i];
    }
    // Without this barrier the numbers of others are read before they were written.
    workgroupBarrier();
}

fn told(slot: u32) -> vec4<f32> {
    return vec4<f32>(
        tile_sums[slot],
        tile_sums[WORKGROUP_SIZE + slot],
        tile_sums[2u * WORKGROUP_SIZE + slot],
        tile_sums[3u * WORKGROUP_SIZE + slot],
    );
}

// Sum over the 16 invocations that have the same rows.
fn sum_across(value: vec4<f32>, lane: u32) -> vec4<f32> {
    tell(value, lane);
    let first = lane - lane % ACROSS;
    var sum = told(first);
    for (var other = first + 1u; other < first + ACROSS; other++) {
        sum += told(other);
    }
    return sum;
}

// Maximum over the same.
fn max_across(value: vec4<f32>, lane: u32) -> vec4<f32> {
    tell(value, lane);
    let first = lane - lane % ACROSS;
    var most = told(first);
    for (var other = first + 1u; other < first + ACROSS; other++) {
        most = max(most, told(other));
    }
    return most;
}
