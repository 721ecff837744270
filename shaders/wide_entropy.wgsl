// Entropy of the largest logits of each row, for more of them than row_stats selects; written over entropy_top_k.
//
//   chosen = the K largest logits; or, where top_k is 0, the fewest largest with Σ e^(z - max) >= share * sum
//   entropy_top_k = ln s - v / s  with  s = Σ e^(z - max), v = Σ (z - max) e^(z - max) over the chosen
//   count = how many are chosen
// Of logits that equal the least chosen one as many are taken as are needed: values suffice, so order cannot matter.
//
// Bindings
//   1 logits [rows * cols]      in      one vocabulary tile
//   2 state  [rows * 18] u32    in/out  0..15 what each digit holds, as f32; in the last sweep, of what lies above
//                                       the least chosen, Σ e^d below the maximum, Σ d e^d, the number, the
//                                       number of maxima, and the number that equal the least. 16 the digits
//                                       found so far, 17 what is still to be found at or below them, as f32
//   3 stats  [rows * 8]         in/out  as row_stats leaves them after the last vocabulary tile
// Launch: one workgroup a row, for every tile in each of nine sweeps: shift 28, 24, .. 0, then 32.
// Before: row_stats on all tiles. After: gate.
//
// The least chosen logit is found digit by digit, of four bits each, in the order of f32 as u32: a sweep adds up what
// those hold that begin with the digits found so far, by their next digit, and the digit is the one in which, from
// above, enough is reached. Each sum is a tree, so it does not depend on who comes first.

struct Params {
    rows: u32,
    cols: u32,
    shift: u32,
    first: u32,
    last: u32,
    top_k: u32,
    share: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<u32>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;

override WORKGROUP_SIZE: u32 = 256u;
const STATE_WIDTH: u32 = 18u;
const PREFIX: u32 = 16u;
const NEEDED: u32 = 17u;
const LAST_SWEEP: u32 = 32u;

var<workgroup> partial: array<vec4<f32>, WORKGROUP_SIZE>;

// f32 in the order of its values as u32, and back.
fn ordered_key(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value_of_key(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

fn exponential(d: f32) -> f32 {
    if (d > NEGLIGIBLE) {
        return exp(d);
    }
    return 0.0;
}

// Sum over the workgroup; complete for lane 0 alone. From uniform control flow only.
fn sum_of_all(lane: u32, value: vec4<f32>) -> vec4<f32> {
    // Without this barrier a fast invocation overwrites the sum before that lane 0 still reads.
    workgroupBarrier();
    partial[lane] = value;
    for (var stride = WORKGROUP_SIZE / 2u; stride > 0u; stride = stride / 2u) {
        // Without this barrier a value is read before its owner has written it.
        workgroupBarrier();
        if (lane < stride) {
            partial[lane] = partial[lane] + partial[lane + stride];
        }
    }
    return partial[0];
}

// Adds a tile's share to four numbers of the row's state.
fn add_to_state(lane: u32, at: u32, value: vec4<f32>) {
    let sum = sum_of_all(lane, value);
    if (lane == 0u) {
        for (var index = 0u; index < 4u; index++) {
            var before = 0.0;
            if (params.first == 0u) {
                before = bitcast<f32>(state[at + index]);
            }
            state[at + index] = bitcast<u32>(before + sum[index]);
        }
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup_id, workgroups);
    if (row >= params.rows) {
        return;
    }
    let row_start = row * params.cols;
    let of_row = row * STATE_WIDTH;
    let base = row * STATS_WIDTH;
    let maximum = stats[base + STAT_MAX];
    let by_share = params.top_k == 0u;
    var prefix = 0u;
    if (params.shift != 28u) {
        prefix = state[of_row + PREFIX];
    }

    if (params.shift == LAST_SWEEP) {
        // Σ e^d of what lies below the maximum, Σ d e^d, the number above the least chosen and of those the maxima;
        // then the number that equal it.
        var above = vec4<f32>(0.0);
        var equal = 0.0;
        for (var column = lane; column < params.cols; column += WORKGROUP_SIZE) {
            let z = logits[row_start + column];
            if (is_finite(z)) {
                let key = ordered_key(z);
                if (key > prefix) {
                    let d = z - maximum;
                    let e = exponential(d);
                    if (d < 0.0) {
                        above += vec4<f32>(e, 0.0, 1.0, 0.0);
                        if (e > 0.0) {
                            above.y += d * e;
                        }
                    } else {
                        above += vec4<f32>(0.0, 0.0, 1.0, 1.0);
                    }
                } else if (key == prefix) {
                    equal += 1.0;
                }
            }
        }
        add_to_state(lane, of_row, above);
        add_to_state(lane, of_row + 4u, vec4<f32>(equal, 0.0, 0.0, 0.0));
        if (lane == 0u && params.last != 0u) {
            let below = bitcast<f32>(state[of_row]);
            let shifted = bitcast<f32>(state[of_row + 1u]);
            let count = bitcast<f32>(state[of_row + 2u]);
            let maxima = bitcast<f32>(state[of_row + 3u]);
            let ties = bitcast<f32>(state[of_row + 4u]);
            let d = value_of_key(prefix) - maximum;
            let e = exponential(d);
            var taken = f32(params.top_k) - count;
            if (by_share) {
                taken = ties;
                if (e > 0.0) {
                    taken = ceil(bitcast<f32>(state[of_row + NEEDED]) / e);
                }
            }
            taken = clamp(taken, min(1.0, ties), ties);
            var rest = below + (maxima - 1.0) + taken * e;
            var slope = shifted;
            if (e > 0.0) {
                slope += taken * d * e;
            }
            rest = max(rest, 0.0);
            stats[base + STAT_COUNT] = count + taken;
            stats[base + STAT_ENTROPY_TOP_K] = max(log_one_plus(rest) - slope / (1.0 + rest), 0.0);
        }
        return;
    }

    // What each digit holds, four in each.
    var bins_0 = vec4<f32>(0.0);
    var bins_4 = vec4<f32>(0.0);
    var bins_8 = vec4<f32>(0.0);
    var bins_12 = vec4<f32>(0.0);
    let digits = vec4<u32>(0u, 1u, 2u, 3u);
    for (var column = lane; column < params.cols; column += WORKGROUP_SIZE) {
        let z = logits[row_start + column];
        if (is_finite(z)) {
            let key = ordered_key(z);
            // Shifted twice: a shift of 32 is not defined.
            if (((key ^ prefix) >> params.shift) >> 4u == 0u) {
                var measure = 1.0;
                if (by_share) {
                    measure = exponential(z - maximum);
                }
                let digit = vec4<u32>((key >> params.shift) & 15u);
                let amount = vec4<f32>(measure);
                bins_0 += select(vec4<f32>(0.0), amount, digit == digits);
                bins_4 += select(vec4<f32>(0.0), amount, digit == digits + 4u);
                bins_8 += select(vec4<f32>(0.0), amount, digit == digits + 8u);
                bins_12 += select(vec4<f32>(0.0), amount, digit == digits + 12u);
            }
        }
    }
    add_to_state(lane, of_row, bins_0);
    add_to_state(lane, of_row + 4u, bins_4);
    add_to_state(lane, of_row + 8u, bins_8);
    add_to_state(lane, of_row + 12u, bins_12);
    if (lane != 0u || params.last == 0u) {
        return;
    }
    var needed = f32(params.top_k);
    if (params.shift != 28u) {
        needed = bitcast<f32>(state[of_row + NEEDED]);
    } else if (by_share) {
        needed = params.share * stats[base + STAT_SUM];
    }
    // From above; where rounding, or too few logits, leaves something to be found, the lowest digit that holds any.
    var chosen = 0u;
    var before = 0.0;
    var found = 0.0;
    for (var index = 0u; index < 16u; index++) {
        let digit = 15u - index;
        let amount = bitcast<f32>(state[of_row + digit]);
        if (amount > 0.0) {
            chosen = digit;
            before = found;
            found += amount;
            if (found >= needed) {
                break;
            }
        }
    }
    state[of_row + PREFIX] = prefix | (chosen << params.shift);
    state[of_row + NEEDED] = bitcast<u32>(needed - before);
}
