//! The tokens of the largest logits of a row.

/// At most `top_k` finite ones of the row, by picking the largest that is left, and the first of equals, again and again.
pub fn top_tokens(row: &[f64], top_k: usize) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    while found.len() < top_k {
        let mut best: Option<usize> = None;
        for column in 0..row.len() {
            if row[column].is_finite() && !found.contains(&column) && best.is_none_or(|best| row[column] > row[best]) {
                best = Some(column);
            }
        }
        match best {
            Some(best) => found.push(best),
            None => break,
        }
    }
    found
}
