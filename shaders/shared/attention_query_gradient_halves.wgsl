// What attention_query_gradient.wgsl binds besides on tensor cores, where binding 2 has halves in place of qkv:
//   2 qkv_halves      [tokens * (heads + 2 kv_heads), padded / 4] in  padded: head_dim rounded up to a multiple of 32
//   8 qkv_exponents   [tokens * (heads + 2 kv_heads)]             in  the bits of an i32
//   9 dout_halves     [tokens * heads, padded / 4]                in
//   10 dout_exponents [tokens * heads]                            in

@group(0) @binding(8) var<storage, read_write> qkv_exponents: array<u32>;
@group(0) @binding(9) var<storage, read_write> dout_halves: array<vec4<f16>>;
@group(0) @binding(10) var<storage, read_write> dout_exponents: array<u32>;
