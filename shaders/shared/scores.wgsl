// What all attention kernels share: scores, and which of them count.

struct Params {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    // Number of the launch's first workgroup: what takes long is launched in pieces.
    first_group: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// First token that a token sees: of its document, or of its window where that begins later; past the last token one
// that no key reaches.
fn start_of(token: u32) -> u32 {
    if (token >= params.tokens) {
        return 0xffffffffu;
    }
    return document_start[token];
}

// First token behind all that see the key: what tokens see begins in ascending order, so it is searched by halves.
fn past_readers(key: u32) -> u32 {
    var low = key + 1u;
    var high = params.tokens;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if (document_start[middle] <= key) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

// e^x, but NaN and infinity stay what they are: a driver's own may make finite numbers of them.
fn exponential(x: vec4<f32>) -> vec4<f32> {
    let exponent = vec4<u32>(EXPONENT_BITS);
    return select(exp(x), x, (bitcast<vec4<u32>>(x) & exponent) == exponent);
}

// Of scores whose log-sum-exp is known; exactly 0 where they are hidden.
fn probability(product: vec4<f32>, lse: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(0.0), exponential(params.scale * product - lse), seen);
}

// By the scores, from the gradient by their probabilities; exactly 0 where they are hidden.
fn score_gradient(p: vec4<f32>, dp: vec4<f32>, mean: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(0.0), p * (dp - mean), seen);
}
