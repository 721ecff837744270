// Operands of a product, read a number at a time, of which the right one is a stored matrix; the part of `formats/`
// behind says what element i of it is.

@group(0) @binding(1) var<storage, read_write> left_values: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed_words: array<u32>;

fn right_value(at: u32) -> f32 {
    return element(at);
}

