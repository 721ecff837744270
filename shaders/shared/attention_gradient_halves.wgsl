// Operands of attention's gradients on tensor cores: halves of queries, keys and values, in place of qkv at binding 2,
// and of d loss / d out. Their kernels' own parts bind the others.

const SEGMENTS: u32 = 1u;

@group(0) @binding(2) var<storage, read_write> qkv_halves: array<vec4<f16>>;

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
