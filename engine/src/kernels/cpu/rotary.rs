//! Rotary position embedding (Su et al. 2021), in place, on some heads of each row.

use temper_shaders::RotaryParams;

use super::par;
use super::simd::vectorised;

/// Rotates each row of `x` by the angles of its position. `cos` and `sin` are `[positions, rotary_dim / 2]`.
///
/// # Panics
/// Where a position lies outside the tables or heads outside the row.
pub fn rotary(params: &RotaryParams, x: &mut [f32], cos: &[f32], sin: &[f32], positions: &[u32]) {
    let [heads, head_dim, rotary_dim, row_stride] =
        [params.heads, params.head_dim, params.rotary_dim, params.row_stride].map(|size| size as usize);
    let (interleaved, inverse) = (params.interleaved != 0, params.inverse != 0);
    let half = rotary_dim / 2;
    assert!(rotary_dim % 2 == 0 && rotary_dim <= head_dim && heads * head_dim <= row_stride);
    assert!(x.len() >= positions.len() * row_stride && cos.len() == sin.len());
    if half == 0 || heads == 0 {
        return;
    }
    let block = par::rows_per_task(heads * head_dim);
    par::pieces(&mut x[..positions.len() * row_stride], block * row_stride, |index, piece| {
        for (r, row) in piece.chunks_exact_mut(row_stride).enumerate() {
            let at = positions[index * block + r] as usize * half;
            let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
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
