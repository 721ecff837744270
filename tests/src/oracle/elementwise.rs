//! Small element-wise operations.

/// Inverted dropout: what is `kept` is divided by the probability of being kept; all else is 0, whatever x holds.
pub fn dropout(x: &[f64], kept: &[bool], keep: f64) -> Vec<f64> {
    x.iter().zip(kept).map(|(x, &kept)| if kept { x / keep } else { 0.0 }).collect()
}

/// `x [rows, width] + bias [width]`.
pub fn add_bias(x: &[f64], bias: &[f64]) -> Vec<f64> {
    x.iter().enumerate().map(|(i, x)| x + bias[i % bias.len()]).collect()
}

/// Rows `indices - start` of `matrix [rows, width]`; zero rows where an index lies outside.
pub fn gather_rows(matrix: &[f64], width: usize, indices: &[u32], start: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for &index in indices {
        let row = (index as usize).checked_sub(start).and_then(|row| matrix.get(row * width..(row + 1) * width));
        out.extend(row.map_or_else(|| vec![0.0; width], <[f64]>::to_vec));
    }
    out
}

/// `sum [rows, width]` with the rows of `values` added to rows `indices - start`; those outside are left out.
pub fn scatter_add_rows(sum: &mut [f64], width: usize, indices: &[u32], start: usize, values: &[f64]) {
    for (value, &index) in values.chunks(width).zip(indices) {
        if let Some(row) = (index as usize).checked_sub(start).filter(|row| row * width < sum.len()) {
            (0..width).for_each(|c| sum[row * width + c] += value[c]);
        }
    }
}
