// Row statistics of the loss head, one vocabulary tile at a time.
//
// For a row z of logits, over all columns of all tiles so far (an empty sum is 0, -infinity contributes nothing):
//   max = max z             sum = Σ e^(z - max)            u = Σ (z - max) e^(z - max)      sum_sq = Σ e^(2 (z - max))
//   label_logit = z[label]  nonfinite = count of NaN and +infinity
//   entropy_top_k = ln s - v / s  with  s = Σ e^(t - t_1),  v = Σ (t - t_1) e^(t - t_1)
//                   over the K largest values t of the row, t_1 the largest: the entropy of their renormalised softmax
// Values suffice, so neither ties nor order can matter. With fewer than K finite logits it is the entropy of those. For
// top_k = 0 it is that of all: ln sum - u / sum.
// It is evaluated as ln(1 + (s - 1)) - v / s, two non-negative terms, so it is never below 0 and keeps its relative
// precision on peaked rows.
//
// Bindings
//   1 logits [rows * cols]  in      one vocabulary tile, columns column_start .. column_start + cols of the vocabulary
//   2 labels [rows] u32     in      column of the whole vocabulary, 0xffffffff for none; only the tile that holds it
//                                   reads it
//   3 top    [rows * 64]    in/out  the K largest values so far, descending; unused slots hold -3.4028235e38
//   4 stats  [rows * 8]     in/out  0 max, 1 sum, 2 u, 3 sum_sq, 4 label_logit (0 until its tile was seen), 5 nonfinite
//                                   (one more if the label's own logit is not finite), 6 count: the tokens
//                                   that the entropy is of, min(K, columns so far), 7 entropy_top_k
// Launch: one workgroup a row. `first` = 1 for the first tile, whose `top` and `stats` are not read; every tile leaves
// final values, so the last tile's are the answer.
// Before: the GEMM of the head. After: gate, loss_gradient.
//
// Top K without sorting: the K-th largest of the invocations' own maxima and the carried values is a lower bound T of
// the K-th largest of the row, since those are K different elements of it. One more sweep collects what is strictly
// above T (a few values); if that is fewer than K, the missing ones equal T. Should too many lie above T (all large
// values in the columns of few invocations), T is raised by bisection over the f32 values, at most 32 sweeps more.

struct Params {
    rows: u32,
    cols: u32,
    column_start: u32,
    top_k: u32,
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> top: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;

override WORKGROUP_SIZE: u32 = 256u;
const MAX_TOP_K: u32 = 64u;
const CANDIDATES: u32 = 1024u;
const HIGHEST: f32 = 0x1.fffffep+127;

// Online sums over the finite logits of a set, relative to their maximum, and the number of NaN and +infinity beside
// them.
struct Moments {
    maximum: f32,
    sum: f32,
    sum_shifted: f32,
    sum_squared: f32,
    nonfinite: f32,
}

var<workgroup> moments: array<Moments, WORKGROUP_SIZE>;
var<workgroup> leaders: array<f32, WORKGROUP_SIZE + MAX_TOP_K>;
var<workgroup> candidates: array<f32, CANDIDATES>;
var<workgroup> chosen: array<f32, MAX_TOP_K>;
var<workgroup> chosen_exp: array<f32, MAX_TOP_K>;
var<workgroup> candidate_count: atomic<u32>;
var<workgroup> candidate_total: u32;
var<workgroup> first_bound: f32;

fn empty_moments() -> Moments {
    return Moments(LOWEST, 0.0, 0.0, 0.0, 0.0);
}

fn add_value(old: Moments, z: f32) -> Moments {
    var m = old;
    let d = z - m.maximum;
    if (d <= 0.0) {
        // The guard also keeps an overflowed difference from becoming -infinity * 0 = NaN.
        if (d > NEGLIGIBLE) {
            let e = exp(d);
            m.sum += e;
            m.sum_shifted += d * e;
            m.sum_squared += e * e;
        }
        return m;
    }
    if (m.sum > 0.0 && -d > NEGLIGIBLE) {
        let c = exp(-d);
        m.sum_shifted = c * (m.sum_shifted - d * m.sum);
        m.sum = c * m.sum;
        m.sum_squared = c * c * m.sum_squared;
    } else {
        m = empty_moments();
        m.nonfinite = old.nonfinite;
    }
    m.maximum = z;
    m.sum += 1.0;
    m.sum_squared += 1.0;
    return m;
}

fn merge(a: Moments, b: Moments) -> Moments {
    var large = a;
    var small = b;
    if (b.maximum > a.maximum) {
        large = b;
        small = a;
    }
    let d = small.maximum - large.maximum;
    if (small.sum > 0.0 && d > NEGLIGIBLE) {
        let c = exp(d);
        large.sum += c * small.sum;
        large.sum_shifted += c * (small.sum_shifted + d * small.sum);
        large.sum_squared += c * c * small.sum_squared;
    }
    large.nonfinite += small.nonfinite;
    return large;
}

// f32 in the order of its values as u32, and back; both zeros stay apart, which the bisection does not mind.
fn ordered_key(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value_of_key(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

// How many leaders come before number `index` in descending order, ties by index: a permutation.
fn rank_of_leader(index: u32) -> u32 {
    let value = leaders[index];
    var rank = 0u;
    for (var other = 0u; other < WORKGROUP_SIZE + MAX_TOP_K; other++) {
        let rival = leaders[other];
        rank += u32(rival > value || (rival == value && other < index));
    }
    return rank;
}

fn add_candidate(value: f32) {
    let slot = atomicAdd(&candidate_count, 1u);
    if (slot < CANDIDATES) {
        candidates[slot] = value;
    }
}

// Collects the values strictly above `bound` and returns how many there are; past CANDIDATES they are only counted.
fn collect(row_start: u32, lane: u32, carried: f32, bound: f32) -> u32 {
    if (lane == 0u) {
        atomicStore(&candidate_count, 0u);
    }
    // Without this barrier an early candidate is counted before the reset and lost.
    workgroupBarrier();
    for (var column = lane; column < params.cols; column += WORKGROUP_SIZE) {
        let z = logits[row_start + column];
        if (is_finite(z) && z > bound) {
            add_candidate(z);
        }
    }
    if (carried > bound) {
        add_candidate(carried);
    }
    // Without this barrier the total misses candidates of slower invocations.
    workgroupBarrier();
    if (lane == 0u) {
        candidate_total = atomicLoad(&candidate_count);
    }
    // Brings its own barriers: the total is written before anyone reads it, and read before the next reset.
    return workgroupUniformLoad(&candidate_total);
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
    let top_k = clamp(params.top_k, 1u, MAX_TOP_K);

    // Sweep 1: sums and the invocation's own maximum.
    var own = empty_moments();
    for (var column = lane; column < params.cols; column += WORKGROUP_SIZE) {
        let z = logits[row_start + column];
        if (is_finite(z)) {
            own = add_value(own, z);
        } else if (!is_negative_infinity(z)) {
            own.nonfinite += 1.0;
        }
    }
    // Slots of `top` past K are unused too: a smaller K than the buffer's width carries K values and no more.
    var carried = LOWEST;
    if (params.first == 0u && lane < top_k) {
        carried = top[row * MAX_TOP_K + lane];
    }
    leaders[lane] = own.maximum;
    if (lane < MAX_TOP_K) {
        leaders[WORKGROUP_SIZE + lane] = carried;
    }
    moments[lane] = own;

    // The sums, as a tree.
    for (var stride = WORKGROUP_SIZE / 2u; stride > 0u; stride = stride / 2u) {
        // Without this barrier a partial result is read before its owner has written it. The first one also publishes
        // `leaders`.
        workgroupBarrier();
        if (lane < stride) {
            moments[lane] = merge(moments[lane], moments[lane + stride]);
        }
    }

    // The lower bound. Ranks are a permutation, so exactly one leader has rank K - 1 and writes.
    if (rank_of_leader(lane) == top_k - 1u) {
        first_bound = leaders[lane];
    }
    if (lane < MAX_TOP_K && rank_of_leader(WORKGROUP_SIZE + lane) == top_k - 1u) {
        first_bound = leaders[WORKGROUP_SIZE + lane];
    }
    // Brings its own barriers: the bound is written before it is read.
    var bound = workgroupUniformLoad(&first_bound);

    // Sweep 2, and more of them only if the candidates overflow. Invariant once it has overflowed: more than CANDIDATES
    // values lie
    // above `low`, fewer than K above `high`; where the two meet, everything between them equals `high`.
    // All of it is uniform: `bound` and `total` are, and the rest follows from them.
    var total = collect(row_start, lane, carried, bound);
    if (total > CANDIDATES) {
        var low = ordered_key(bound);
        var high = ordered_key(HIGHEST);
        while (high - low > 1u) {
            let middle = low + (high - low) / 2u;
            bound = value_of_key(middle);
            total = collect(row_start, lane, carried, bound);
            if (total > CANDIDATES) {
                low = middle;
            } else if (total < top_k) {
                high = middle;
            } else {
                break;
            }
        }
        if (high - low <= 1u) {
            bound = value_of_key(high);
            total = collect(row_start, lane, carried, bound);
        }
    }

    // The K largest, in descending order. What the candidates leave open equals the bound (or is unused with it).
    if (lane < MAX_TOP_K) {
        chosen[lane] = select(LOWEST, bound, lane < top_k);
    }
    // Without this barrier a candidate is overwritten by the filling.
    workgroupBarrier();
    for (var index = lane; index < total; index += WORKGROUP_SIZE) {
        let value = candidates[index];
        var rank = 0u;
        for (var other = 0u; other < total; other++) {
            let rival = candidates[other];
            rank += u32(rival > value || (rival == value && other < index));
        }
        if (rank < top_k) {
            chosen[rank] = value;
        }
    }
    // Without this barrier the list is read before it is complete.
    workgroupBarrier();
    if (lane < MAX_TOP_K) {
        let value = chosen[lane];
        let d = value - chosen[0];
        var e = 0.0;
        if (value != LOWEST && d > NEGLIGIBLE) {
            e = exp(d);
        }
        chosen_exp[lane] = e;
        top[row * MAX_TOP_K + lane] = value;
    }
    // Without this barrier the sum below misses exponentials of slower invocations.
    workgroupBarrier();
    if (lane != 0u) {
        return;
    }

    var rest = 0.0;
    var shifted = 0.0;
    for (var index = 1u; index < top_k; index++) {
        let e = chosen_exp[index];
        if (e > 0.0) {
            rest += e;
            shifted += (chosen[index] - chosen[0]) * e;
        }
    }
    var entropy = max(log_one_plus(rest) - shifted / (1.0 + rest), 0.0);

    var result = moments[0];
    var label_logit = 0.0;
    let base = row * STATS_WIDTH;
    if (params.first == 0u) {
        let before = Moments(
            stats[base + STAT_MAX],
            stats[base + STAT_SUM],
            stats[base + STAT_SUM_SHIFTED],
            stats[base + STAT_SUM_SQUARED],
            stats[base + STAT_NONFINITE],
        );
        result = merge(before, result);
        label_logit = stats[base + STAT_LABEL_LOGIT];
    }
    // An absent label is never an index.
    let label = labels[row];
    if (label != NO_LABEL && label >= params.column_start && label - params.column_start < params.cols) {
        label_logit = logits[row_start + (label - params.column_start)];
        if (!is_finite(label_logit)) {
            result.nonfinite += 1.0;
        }
    }
    var count = params.column_start + params.cols;
    if (params.top_k > 0u) {
        count = min(params.top_k, count);
    } else {
        entropy = 0.0;
        if (result.sum > 0.0) {
            entropy = max(log_one_plus(max(result.sum - 1.0, 0.0)) - result.sum_shifted / result.sum, 0.0);
        }
    }
    stats[base + STAT_MAX] = result.maximum;
    stats[base + STAT_SUM] = result.sum;
    stats[base + STAT_SUM_SHIFTED] = result.sum_shifted;
    stats[base + STAT_SUM_SQUARED] = result.sum_squared;
    stats[base + STAT_LABEL_LOGIT] = label_logit;
    stats[base + STAT_NONFINITE] = result.nonfinite;
    stats[base + STAT_COUNT] = f32(count);
    stats[base + STAT_ENTROPY_TOP_K] = entropy;
}
