//! Rotary position embedding (Su et al. 2021), in place, on some heads of each row.

use super::par;
use super::simd::vectorised;

/// Where the rotated numbers lie and how they are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotaryParams {
    /// Consecutive heads to rotate.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Leading numbers of each head that are rotated; even, at most `head_dim`.
    pub rotary_dim: usize,
    /// Pairs are (2i, 2i + 1) rather than (i, i + rotary_dim / 2).
    pub interleaved: bool,
    /// Rotate by minus the angle: the gradient of the rotation.
    pub inverse: bool,
    /// Elements between the starts of two rows.
    pub row_stride: usize,
    /// Column of the first head.
    pub row_offset: usize,
}

/// Rotates each row of `x` by the angles of its position. `cos` and `sin` are `[positions, rotary_dim / 2]`.
///
/// # Panics
/// Where a position lies outside the tables or heads outside the row.
pub fn rotary(x: &mut [f32], cos: &[f32], sin: &[f32], positions: &[u32], params: &RotaryParams) {
    let RotaryParams { heads, head_dim, rotary_dim, interleaved, inverse, row_stride, row_offset } = *params;
    let half = rotary_dim / 2;
    assert!(rotary_dim % 2 == 0 && rotary_dim <= head_dim && row_offset + heads * head_dim <= row_stride);
    assert!(x.len() >= positions.len() * row_stride && cos.len() == sin.len());
    if half == 0 || heads == 0 {
        return;
    }
    let block = par::rows_per_task(heads * head_dim);
    par::pieces(&mut x[..positions.len() * row_stride], block * row_stride, |index, piece| {
        for (r, row) in piece.chunks_exact_mut(row_stride).enumerate() {
            let at = positions[index * block + r] as usize * half;
            let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
            for head in row[row_offset..row_offset + heads * head_dim].chunks_exact_mut(head_dim) {
                let head = &mut head[..rotary_dim];
                if interleaved { rotate_pairs(head, cos, sin, inverse) } else { rotate_halves(head, cos, sin, inverse) }
            }
        }
    });
}

vectorised! {
    fn rotate_halves<FMA>(head: &mut [f32], cos: &[f32], sin: &[f32], inverse: bool) {
        let sign = if inverse { -1.0 } else { 1.0 };
        let (first, second) = head.split_at_mut(cos.len());
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
            let (x, y, sin) = (*a, *b, sign * sin);
            *a = x * cos - y * sin;
            *b = y * cos + x * sin;
        }
    }

    fn rotate_pairs<FMA>(head: &mut [f32], cos: &[f32], sin: &[f32], inverse: bool) {
        let sign = if inverse { -1.0 } else { 1.0 };
        let (pairs, _) = head.as_chunks_mut::<2>();
        for ([a, b], (cos, sin)) in pairs.iter_mut().zip(cos.iter().zip(sin)) {
            let (x, y, sin) = (*a, *b, sign * sin);
            *a = x * cos - y * sin;
            *b = y * cos + x * sin;
        }
    }
}
