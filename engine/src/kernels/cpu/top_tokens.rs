//! The tokens of the K largest logits of each row.

use temper_shaders::{MAX_TOP_K, TopTokensParams};

/// What a slot without a value holds.
const NONE: f32 = -1.0;

/// `tokens [rows, 64]`: the tokens of the values `top [rows, 64]` that [`super::row_stats`] found in `logits [rows, cols]`, the
/// lower one first of equals, then -1.
///
/// # Panics
/// Where sizes do not fit.
pub fn top_tokens(params: &TopTokensParams, logits: &[f32], top: &[f32], tokens: &mut [f32]) {
    let (rows, columns, top_k) = (params.rows as usize, params.cols as usize, params.top_k as usize);
    assert!(logits.len() == rows * columns && top.len() == rows * MAX_TOP_K && tokens.len() == rows * MAX_TOP_K);
    assert!((1..=MAX_TOP_K).contains(&top_k), "top_k is 1 to {MAX_TOP_K}");
    for (row, tokens) in tokens.chunks_exact_mut(MAX_TOP_K).enumerate() {
        let logits = &logits[row * columns..(row + 1) * columns];
        let bound = top[row * MAX_TOP_K + top_k - 1];
        let reaches = |column: &usize| logits[*column].is_finite() && logits[*column] >= bound;
        let mut found: Vec<usize> = (0..columns).filter(reaches).collect();
        // Stable: equal values stay in the order of their columns.
        found.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        tokens.fill(NONE);
        for (token, column) in tokens.iter_mut().zip(found.into_iter().take(top_k)) {
            *token = (params.column_start as usize + column) as f32;
        }
    }
}
