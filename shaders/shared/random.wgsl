// Random numbers from a counter: number `index` of a seed is the same whoever asks, in any order.
//
//   random_bits(seed, i) = mix(mix(i ^ mix(seed_low)) + mix(seed_high ^ 0x9e3779b9)), all modulo 2^32
//   mix(v): v ^= v >> 16; v *= 0x7feb352d; v ^= v >> 15; v *= 0x846ca68b; v ^= v >> 16
// mix is a bijection of u32 with low bias (two multiply-xorshift rounds). The Rust twins are temper_shaders::mix_bits
// and random_bits.

fn mix_bits(value: u32) -> u32 {
    var v = value;
    v ^= v >> 16u;
    v *= 0x7feb352du;
    v ^= v >> 15u;
    v *= 0x846ca68bu;
    v ^= v >> 16u;
    return v;
}

fn random_bits(seed_low: u32, seed_high: u32, index: u32) -> u32 {
    return mix_bits(mix_bits(index ^ mix_bits(seed_low)) + mix_bits(seed_high ^ 0x9e3779b9u));
}

