// The part of a row [rows, cols] that one workgroup writes, COLUMNS_PER_WORKGROUP columns at most; of rows of logits.
// Takes rows and cols of the kernel's params, and rows.wgsl and finite.wgsl before it.
const WORKGROUP_SIZE: u32 = 256u;
const COLUMNS_PER_WORKGROUP: u32 = 1024u;

struct RowTile {
    row: u32,
    // Where the row begins; first and last column, the last one excluded.
    row_start: u32,
    start: u32,
    end: u32,
}

fn tiles_of_row() -> u32 {
    return (params.cols + COLUMNS_PER_WORKGROUP - 1u) / COLUMNS_PER_WORKGROUP;
}

fn row_tile(group: u32) -> RowTile {
    let tiles = tiles_of_row();
    let row = group / tiles;
    let start = (group % tiles) * COLUMNS_PER_WORKGROUP;
    return RowTile(row, row * params.cols, start, min(start + COLUMNS_PER_WORKGROUP, params.cols));
}

// Of a logit, by the maximum of its row and the sum of e^(z - maximum).
fn probability(z: f32, maximum: f32, sum: f32) -> f32 {
    // -infinity is a masked column: its probability, and with it its gradient, is 0.
    if (is_negative_infinity(z)) {
        return 0.0;
    }
    return exp(z - maximum) / sum;
}

