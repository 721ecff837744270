// Numbers that a kernel takes in out of a stored matrix; the part of `formats/` behind says what element i of it is.

@group(0) @binding(1) var<storage, read_write> packed_words: array<u32>;

fn value(at: u32) -> f32 {
    return element(at);
}

