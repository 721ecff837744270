// One AdamW step as in adamw.wgsl, on weights in bf16, on moments in 8 bits, or on both.
//
// What is stored is made f32, stepped by adamw's formula, and stored again; g is the gradient, scaled.
//   weights 0: f32. Weights 1: bf16, the upper half of the f32 after a random number of 16 bits was added to it, so
//   that the mean over all random numbers is the f32 itself. Weights 2: the f32 in two halves; the upper one is bf16,
//   rounded to nearest, and f32 = upper * 2^16 + lower as bits, the lower half with a sign.
//   coded 1: each block of 256 elements has a scale, its largest |m| and its largest sqrt(v). A code is the upper bits
//   of |m| / scale (with its sign) or of sqrt(v) / scale after random lower bits were added, less a base, so that the
//   largest number is the largest code. Code 0 is 0. What is below code 1 becomes 0 or code 1 by chance, but a sqrt(v)
//   that is not 0 never becomes 0: steps divide by it.
// Random numbers are those of the seed at the element's index; moments use what mix makes of them once more.
//
// Bindings
//   1 parameter     u32 in/out  [count] bits of f32, or [count / 2] two bf16 a word, the lower half first
//   2 low_halves    u32 in/out  [count / 2] with weights 2
//   3 gradient      [count]  in
//   4 first_moment  u32 in/out  [count] bits of f32, or [count / 4] four codes a word
//   5 second_moment u32 in/out  the same
//   6 first_scale   [blocks] in/out  with coded 1
//   7 second_scale  [blocks] in/out  with coded 1
// Launch: one invocation four elements. Before: the block's backward pass and sum_squares. After: the next
// forward pass.

struct Params {
    count: u32,
    learning_rate: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    bias1: f32,
    bias2: f32,
    gradient_scale: f32,
    weights: u32,
    coded: u32,
    seed_low: u32,
    seed_high: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> parameter: array<u32>;
@group(0) @binding(2) var<storage, read_write> low_halves: array<u32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(4) var<storage, read_write> first_moment: array<u32>;
@group(0) @binding(5) var<storage, read_write> second_moment: array<u32>;
@group(0) @binding(6) var<storage, read_write> first_scale: array<f32>;
@group(0) @binding(7) var<storage, read_write> second_scale: array<f32>;

const WORKGROUP_SIZE: u32 = 256u;
const COLUMNS_PER_WORKGROUP: u32 = 1024u;
// Invocations that share a block.
const BLOCK_INVOCATIONS: u32 = 64u;
const WEIGHTS_F32: u32 = 0u;
const WEIGHTS_SPLIT: u32 = 2u;
const FIRST_BASE: u32 = 889u;
const SECOND_BASE: u32 = 1777u;

// Each invocation's largest |m| and sqrt(v).
var<workgroup> first_largest: array<f32, WORKGROUP_SIZE>;
var<workgroup> second_largest: array<f32, WORKGROUP_SIZE>;

fn half_of(word: u32, index: u32) -> u32 {
    return (word >> ((index % 2u) * 16u)) & 0xffffu;
}

fn weight(index: u32) -> f32 {
    if (params.weights == WEIGHTS_F32) {
        return bitcast<f32>(parameter[index]);
    }
    let upper = half_of(parameter[index / 2u], index) << 16u;
    if (params.weights == WEIGHTS_SPLIT) {
        let lower = half_of(low_halves[index / 2u], index);
        return bitcast<f32>(upper + (lower ^ 0x8000u) - 0x8000u);
    }
    return bitcast<f32>(upper);
}

// bf16 of a weight in the lower half of the result, and its own lower half in the upper one.
fn halves(value: f32, random: u32) -> vec2<u32> {
    let bits = bitcast<u32>(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) {
        return vec2<u32>(bits >> 16u, 0u);
    }
    if (params.weights == WEIGHTS_SPLIT) {
        return vec2<u32>((bits + 0x8000u) >> 16u, bits & 0xffffu);
    }
    return vec2<u32>((bits + random) >> 16u, 0u);
}

fn code_of(word: u32, index: u32) -> u32 {
    return (word >> ((index % 4u) * 8u)) & 0xffu;
}

fn first(index: u32) -> f32 {
    if (params.coded == 0u) {
        return bitcast<f32>(first_moment[index]);
    }
    let code = code_of(first_moment[index / 4u], index);
    let size = code & 0x7fu;
    let share = select(bitcast<f32>((size + FIRST_BASE) << 20u), 0.0, size == 0u);
    return select(share, -share, code > 0x7fu) * first_scale[index / (4u * BLOCK_INVOCATIONS)];
}

fn second(index: u32) -> f32 {
    if (params.coded == 0u) {
        return bitcast<f32>(second_moment[index]);
    }
    let code = code_of(second_moment[index / 4u], index);
    let share = select(bitcast<f32>((code + SECOND_BASE) << 19u), 0.0, code == 0u);
    let root = share * second_scale[index / (4u * BLOCK_INVOCATIONS)];
    return root * root;
}

// `random` has 16 bits.
fn first_code(value: f32, scale: f32, random: u32) -> u32 {
    let size = select(0.0, abs(value) / scale, scale > 0.0);
    let least = bitcast<f32>((FIRST_BASE + 1u) << 20u);
    let above = min(((bitcast<u32>(max(size, least)) + (random << 4u)) >> 20u) - FIRST_BASE, 0x7fu);
    let below = select(0u, 1u, f32(random) * 1.52587890625e-5 * least < size);
    return select(above, below, size < least) | ((bitcast<u32>(value) >> 24u) & 0x80u);
}

fn second_code(root: f32, scale: f32, random: u32) -> u32 {
    let size = select(0.0, root / scale, scale > 0.0);
    let least = bitcast<f32>((SECOND_BASE + 1u) << 19u);
    let above = min(((bitcast<u32>(max(size, least)) + (random << 3u)) >> 19u) - SECOND_BASE, 0xffu);
    return select(above, select(0u, 1u, size > 0.0), size < least);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let start = linear_workgroup(workgroup_id, workgroups) * COLUMNS_PER_WORKGROUP + lane * 4u;
    // Past the end there is nothing to do but to take part in the barriers.
    let count = min(4u, max(params.count, start) - start);
    var m = vec4<f32>();
    var root = vec4<f32>();
    var random = vec4<u32>();
    var m_largest = 0.0;
    var root_largest = 0.0;
    var upper = vec2<u32>();
    var lower = vec2<u32>();
    for (var i = 0u; i < count; i++) {
        let index = start + i;
        let g = params.gradient_scale * gradient[index];
        let m_new = params.beta1 * first(index) + (1.0 - params.beta1) * g;
        let v_new = params.beta2 * second(index) + (1.0 - params.beta2) * g * g;
        let decayed = weight(index) * (1.0 - params.learning_rate * params.weight_decay);
        let denominator = sqrt(v_new) / sqrt(params.bias2) + params.epsilon;
        let w_new = decayed - params.learning_rate / params.bias1 * (m_new / denominator);
        random[i] = random_bits(params.seed_low, params.seed_high, index);
        if (params.weights == WEIGHTS_F32) {
            parameter[index] = bitcast<u32>(w_new);
        } else {
            let both = halves(w_new, random[i] >> 16u);
            upper[i / 2u] |= both.x << ((i % 2u) * 16u);
            lower[i / 2u] |= both.y << ((i % 2u) * 16u);
        }
        if (params.coded == 0u) {
            first_moment[index] = bitcast<u32>(m_new);
            second_moment[index] = bitcast<u32>(v_new);
        } else {
            m[i] = m_new;
            root[i] = sqrt(v_new);
            m_largest = max(m_largest, abs(m_new));
            root_largest = max(root_largest, root[i]);
        }
    }
    if (params.weights != WEIGHTS_F32) {
        for (var i = 0u; i < count; i += 2u) {
            parameter[(start + i) / 2u] = upper[i / 2u];
            if (params.weights == WEIGHTS_SPLIT) {
                low_halves[(start + i) / 2u] = lower[i / 2u];
            }
        }
    }
    first_largest[lane] = m_largest;
    second_largest[lane] = root_largest;
    // Without this barrier scales are written that others still read.
    storageBarrier();
    // Without this barrier largest numbers are read before their owners have written them.
    workgroupBarrier();
    if (params.coded == 0u || count == 0u) {
        return;
    }
    let block = lane / BLOCK_INVOCATIONS * BLOCK_INVOCATIONS;
    for (var other = block; other < block + BLOCK_INVOCATIONS; other++) {
        m_largest = max(m_largest, first_largest[other]);
        root_largest = max(root_largest, second_largest[other]);
    }
    if (lane == block) {
        first_scale[start / (4u * BLOCK_INVOCATIONS)] = m_largest;
        second_scale[start / (4u * BLOCK_INVOCATIONS)] = root_largest;
    }
    var first_word = 0u;
    var second_word = 0u;
    for (var i = 0u; i < count; i++) {
        let again = mix_bits(random[i]);
        first_word |= first_code(m[i], m_largest, again >> 16u) << (i * 8u);
        second_word |= second_code(root[i], root_largest, again & 0xffffu) << (i * 8u);
    }
    first_moment[start / 4u] = first_word;
    second_moment[start / 4u] = second_word;
}
