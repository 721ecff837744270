// Operands of a product, read a number at a time.

@group(0) @binding(1) var<storage, read_write> left_values: array<f32>;
@group(0) @binding(2) var<storage, read_write> right_values: array<f32>;

fn right_value(at: u32) -> f32 {
    return right_values[at];
}

