// What attention.wgsl binds besides on tensor cores:
//   5 qkv_exponents [tokens * (heads + 2 kv_heads)]  in  the bits of an i32, from half_rows
// Gates are made of what comes of its scores, so they are nearly those of single precision; half_rows' own halves would
// not do for that, and what they round away is cheaper to make here than to read.

const SEGMENTS: u32 = 3u;

@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(5) var<storage, read_write> qkv_exponents: array<u32>;

fn qkv_number(at: u32) -> f32 {
    return qkv[at];
}

fn read_halves(which: u32, row: u32, vector: u32, rest: bool) -> vec4<f16> {
    let power = power_of_two(-bitcast<i32>(qkv_exponents[row]));
    var four = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        let number = 4u * vector + i;
        if (number < params.head_dim) {
            four[i] = qkv[row * params.head_dim + number] * power;
        }
    }
    let halves = eleven_bits(four);
    return vec4<f16>(select(halves, four - halves, rest));
}

fn read_exponent(which: u32, row: u32) -> u32 {
    return qkv_exponents[row];
}
