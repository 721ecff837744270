// Weight of each row's cross entropy, from its statistics; a constant of the backward pass.
//
//   ht = max(entropy_top_k, 0) / normalizer, which for a normalizer of 0 is ln max(count, 2) of the row
//   p = e^-ce, the label's probability      scale multiplies every weight
//   ce = ln sum + (max - label_logit)            H = ln sum - u / sum, the full entropy  S = sum_sq / sum², Σ P²
//   kind 0 sft      1                                     kind 5 dft     p
//        1 linear   ht                                         6 talr    max(e^(-ce / a), b)
//        2 power    ht^exponent, 0^0 = 1                       7 mile    (a + H)^exponent * b
//        3 sigmoid  1 / (1 + e^(-a (ht - b)))                  8 deft    p^S
//        4 hard     1 if ht > threshold else 0                 9 profit  1 if ce < b else 0
//       10 masked  0 if entropy_top_k <= threshold and ce >= b, else 1
// Kinds 9 and 10 compare with the cross entropy of a probability: no exp, so they decide alike on every device.
// ce is formed from max and sum rather than from lse: with logits of 1e4 the rounding of lse alone would cost 3e-4.
// Exponent 0 gives exactly the weights of sft and exponent 1 exactly those of linear.
//
// Bindings
//   1 stats  [rows * 8]  in   as row_stats leaves them after the last vocabulary tile
//   2 weight [rows]      out
// Launch: one invocation a row. Before: row_stats. After: loss_gradient (which wants weight / trained tokens: see
// scale).

struct Params {
    rows: u32,
    kind: u32,
    exponent: f32,
    normalizer: f32,
    a: f32,
    b: f32,
    threshold: f32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> stats: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<f32>;

const WORKGROUP_SIZE: u32 = 256u;
const KIND_SFT: u32 = 0u;
const KIND_LINEAR: u32 = 1u;
const KIND_POWER: u32 = 2u;
const KIND_SIGMOID: u32 = 3u;
const KIND_HARD: u32 = 4u;
const KIND_DFT: u32 = 5u;
const KIND_TALR: u32 = 6u;
const KIND_MILE: u32 = 7u;
const KIND_DEFT: u32 = 8u;
const KIND_PROFIT: u32 = 9u;
const KIND_MASKED: u32 = 10u;

// base^exponent for base >= 0, exact where it must be.
fn power(base: f32, exponent: f32) -> f32 {
    if (exponent == 0.0) {
        return 1.0;
    }
    if (exponent == 1.0) {
        return base;
    }
    // Phrased so that NaN, too, stays out of pow.
    if (!(base > 0.0)) {
        return 0.0;
    }
    return pow(base, exponent);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup_id, workgroups) * WORKGROUP_SIZE + lane;
    if (row >= params.rows) {
        return;
    }
    let base = row * STATS_WIDTH;
    let sum = stats[base + STAT_SUM];
    let log_sum = log_one_plus(max(sum - 1.0, 0.0));
    let ce = log_sum + (stats[base + STAT_MAX] - stats[base + STAT_LABEL_LOGIT]);
    let p = exp(-ce);
    let entropy_top_k = max(stats[base + STAT_ENTROPY_TOP_K], 0.0);
    var normalizer = params.normalizer;
    if (normalizer == 0.0) {
        // Of a single token the entropy is 0, whatever it is divided by.
        normalizer = log(max(stats[base + STAT_COUNT], 2.0));
    }
    let ht = entropy_top_k / normalizer;

    var gate = 1.0;
    switch params.kind {
        case KIND_LINEAR: {
            gate = ht;
        }
        case KIND_POWER: {
            gate = power(ht, params.exponent);
        }
        case KIND_SIGMOID: {
            gate = sigmoid(params.a * (ht - params.b));
        }
        case KIND_HARD: {
            gate = select(0.0, 1.0, ht > params.threshold);
        }
        case KIND_DFT: {
            gate = p;
        }
        case KIND_TALR: {
            gate = max(exp(-ce / params.a), params.b);
        }
        case KIND_MILE: {
            let entropy = max(log_sum - stats[base + STAT_SUM_SHIFTED] / sum, 0.0);
            gate = power(params.a + entropy, params.exponent) * params.b;
        }
        case KIND_DEFT: {
            gate = exp(-ce * (stats[base + STAT_SUM_SQUARED] / (sum * sum)));
        }
        case KIND_PROFIT: {
            gate = select(0.0, 1.0, ce < params.b);
        }
        case KIND_MASKED: {
            gate = select(1.0, 0.0, entropy_top_k <= params.threshold && ce >= params.b);
        }
        case KIND_SFT: {
            // The constant 1.
        }
        default: {
            // A kind that this file does not know must not train as SFT: NaN, which stops the step.
            gate = bitcast<f32>(0x7fc00000u | params.kind);
        }
    }
    weight[row] = gate * params.scale;
}
