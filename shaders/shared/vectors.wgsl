// Operands of a product, read four numbers at a time.

@group(0) @binding(1) var<storage, read_write> left_values: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> right_values: array<vec4<f32>>;

