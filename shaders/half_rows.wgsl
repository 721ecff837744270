// Rows of an operand of a product in half precision, each with a power of two that keeps it in range.
//
//   halves[g rows + i, p] = f16(2^-e values[g][i, p]),   exponents[g rows + i] = e,   0 for inner <= p < padded
//
// With rests a row is three such segments one behind the other, and one of them has in place of the halves what they
// leave, f16(2^-e values[g][i, p] - half): the first segment of a left operand, the second of a right one. A product of
// two rows is then rests by halves, halves by rests and halves by halves: all of it but rests by rests, 2^-22 of its
// terms. What is small comes first, since tensor cores may cut sums off instead of rounding them.
//
// Rests need no power of two of their own. They begin 2^-11 below their halves, so whatever is at least 2^-17 of its
// row's largest number keeps 22 bits; what is smaller loses f16's last place, 2^-39 of that number, to the rests (2^-28
// where a device takes subnormals for zero), which a sum in f32 could not hold beside the largest either.
//
// Here values[g][i, p] is value(offset + g batch + i row + p step): rows and terms as the product reads them, for
// the right operand its columns. e is such that the row's largest number lands in [2^14, 2^15): f16 ends at 65,504,
// and what is 2^28 times smaller than the largest keeps all of its digits. NaN and infinity become NaN, and their row
// keeps e = 0. Two numbers share a word, the first in its lower half.
//
// Neighbouring invocations have neighbouring terms where those are contiguous, else neighbouring rows.
//
// Bindings
//   1 values    [..]                                     in
//   1 packed_words [words] u32                           in   in place of those a stored matrix
//   2 halves    [batches * rows, segments * padded / 2]  out  padded is a multiple of 8, at least inner
//   3 exponents [batches * rows]                         out  the bits of an i32
// Launch: ceil(batches * rows / 8) workgroups. Before: anything. After: matmul_cooperative.

struct Params {
    rows: u32,
    batches: u32,
    inner: u32,
    padded: u32,
    offset: u32,
    batch: u32,
    row: u32,
    step: u32,
    // Which of three segments has the rests, counted from 1; 0 for one segment, of halves.
    rests: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> halves: array<u32>;
@group(0) @binding(3) var<storage, read_write> exponents: array<u32>;

const WORKGROUP_SIZE: u32 = 256u;
const ROWS_PER_WORKGROUP: u32 = 8u;
// Invocations that share a row, and terms that each takes at a time.
const SHARES: u32 = 32u;
const SEGMENTS: u32 = 3u;
const TERMS_EACH: u32 = 8u;
const MAGNITUDE: u32 = 0x7fffffffu;
const EXPONENT: u32 = 0x7f800000u;
const HALF_NAN: u32 = 0x7e00u;

var<workgroup> largest: array<u32, 256>;

// A number as f16, or what that leaves of it. By bits throughout: compilers may take a conversion there and back for
// nothing, and every rest for zero.
fn half_or_rest(number: f32, factor: f32, rest: bool) -> u32 {
    if ((bitcast<u32>(number) & EXPONENT) == EXPONENT) {
        return HALF_NAN;
    }
    let nearest = half_of(number * factor);
    if (!rest) {
        return nearest;
    }
    return half_of(number * factor - value_of_half(nearest));
}

// Two numbers as a word of f16.
fn halved(low: f32, high: f32, factor: f32, rest: bool) -> u32 {
    return half_or_rest(low, factor, rest) | (half_or_rest(high, factor, rest) << 16u);
}

fn term(at: u32, p: u32) -> f32 {
    if (p >= params.inner) {
        return 0.0;
    }
    return value(at + p * params.step);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let contiguous = params.step == 1u;
    let slot = select(lane % ROWS_PER_WORKGROUP, lane / SHARES, contiguous);
    let share = select(lane / ROWS_PER_WORKGROUP, lane % SHARES, contiguous);
    let wanted = linear_workgroup(workgroup_id, workgroups) * ROWS_PER_WORKGROUP + slot;
    let rows = params.batches * params.rows;
    // Rows past the end read the last one and write nothing.
    let row = min(wanted, rows - 1u);
    let at = params.offset + (row / params.rows) * params.batch + (row % params.rows) * params.row;
    var most = 0u;
    for (var p = share * TERMS_EACH; p < params.inner; p += SHARES * TERMS_EACH) {
        for (var t = 0u; t < TERMS_EACH; t++) {
            most = max(most, bitcast<u32>(term(at, p + t)) & MAGNITUDE);
        }
    }
    largest[slot * SHARES + share] = most;
    // Without this barrier the largest number of another invocation's terms is read too early.
    workgroupBarrier();
    for (var s = 0u; s < SHARES; s++) {
        most = max(most, largest[slot * SHARES + s]);
    }
    if (wanted >= rows) {
        return;
    }
    // Of numbers, those with more bits are larger; NaN and infinity lie above all of them.
    let exponent = most >> 23u;
    var shift = 0i;
    if (most != 0u && exponent != 255u) {
        // The factor itself must be a normal number.
        shift = min(141i - i32(exponent), 126i);
    }
    let factor = bitcast<f32>(u32(127i + shift) << 23u);
    if (share == 0u) {
        exponents[row] = bitcast<u32>(-shift);
    }
    let segments = select(1u, SEGMENTS, params.rests != 0u);
    let into = row * segments * (params.padded / 2u);
    for (var p = share * TERMS_EACH; p < params.padded; p += SHARES * TERMS_EACH) {
        for (var t = 0u; t < TERMS_EACH; t += 2u) {
            let low = term(at, p + t);
            let high = term(at, p + t + 1u);
            let nearest = halved(low, high, factor, false);
            for (var segment = 0u; segment < segments; segment++) {
                var word = nearest;
                if (segment + 1u == params.rests) {
                    word = halved(low, high, factor, true);
                }
                halves[into + (segment * params.padded + p + t) / 2u] = word;
            }
        }
    }
}
