// Numbers that a kernel takes in as they are.

@group(0) @binding(1) var<storage, read_write> values: array<f32>;

fn value(at: u32) -> f32 {
    return values[at];
}

