// What attention_key_gradient.wgsl binds besides on tensor cores, where binding 2 has halves in place of qkv:
//   2 qkv_halves     [tokens * (heads + 2 kv_heads), padded / 4]  in  padded is head_dim rounded up to a multiple of 32
//   7 qkv_exponents  [tokens * (heads + 2 kv_heads)]              in  the bits of an i32
//   8 dout_halves    [tokens * heads, padded / 4]                 in
//   9 dout_exponents [tokens * heads]                             in

const SEGMENTS: u32 = 1u;

@group(0) @binding(2) var<storage, read_write> qkv_halves: array<vec4<f16>>;
@group(0) @binding(7) var<storage, read_write> qkv_exponents: array<u32>;
@group(0) @binding(8) var<storage, read_write> dout_halves: array<vec4<f16>>;
@group(0) @binding(9) var<storage, read_write> dout_exponents: array<u32>;

fn qkv_number(at: u32) -> f32 {
    let row = at / params.head_dim;
    let number = at % params.head_dim;
    let four = read_halves(QKV, row, number / 4u, false);
    return scaled(f32(four[number % 4u]), bitcast<i32>(qkv_exponents[row]));
}

fn read_halves(which: u32, row: u32, vector: u32, rest: bool) -> vec4<f16> {
    let at = row * vectors_of_a_row() + vector;
    if (which == QKV) {
        return qkv_halves[at];
    }
    return dout_halves[at];
}

fn read_exponent(which: u32, row: u32) -> u32 {
    if (which == QKV) {
        return qkv_exponents[row];
    }
    return dout_exponents[row];
}
