//! Small element-wise operations: bias, column copies, and dropout, whose mask is a function of (seed, element), so that a
//! recomputed block sees the same mask and nothing is stored.

use temper_shaders::{CopyColumnsParams, DropoutParams, mix_bits};

use super::par;
use super::simd::vectorised;

/// `y [rows, width] += bias [width]`, in place.
pub fn add_bias(y: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    if width == 0 {
        return;
    }
    assert_eq!(y.len() % width, 0, "whole rows");
    par::pieces(y, par::rows_per_task(width) * width, |_, piece| {
        for row in piece.chunks_exact_mut(width) {
            add_row(row, bias);
        }
    });
}

/// Copies `rows x width` numbers between two matrices with their own row strides and first columns, or adds them with
/// `accumulate`.
pub fn copy_columns(params: &CopyColumnsParams, source: &[f32], target: &mut [f32]) {
    let CopyColumnsParams { source_stride, source_offset, target_stride, target_offset, .. } = *params;
    let [source_stride, source_offset, target_stride, target_offset] =
        [source_stride, source_offset, target_stride, target_offset].map(|size| size as usize);
    let (rows, width, accumulate) = (params.rows as usize, params.width as usize, params.accumulate != 0);
    assert!(
        source_offset + width <= source_stride && target_offset + width <= target_stride,
        "columns outside the row"
    );
    assert!(source.len() >= rows * source_stride && target.len() >= rows * target_stride, "rows outside the matrix");
    if width == 0 {
        return;
    }
    let block = par::rows_per_task(width);
    par::pieces(&mut target[..rows * target_stride], block * target_stride, |index, piece| {
        for (r, row) in piece.chunks_exact_mut(target_stride).enumerate() {
            let from = &source[(index * block + r) * source_stride + source_offset..][..width];
            let to = &mut row[target_offset..target_offset + width];
            if accumulate { add_row(to, from) } else { to.copy_from_slice(from) }
        }
    });
}

/// `y[i] = x[i] / keep` where element i is kept (with probability `keep`), else 0, by a mask that depends on the seed and
/// `i` alone. The backward pass is the same function on the gradient.
///
/// With `h` the random bits of the seed at i ([`temper_shaders::random_bits`]), an element is kept where
/// `(h >> 8) / 2^24 < keep`.
pub fn dropout(params: &DropoutParams, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let (low, high) = (mix_bits(params.seed_low), mix_bits(params.seed_high ^ 0x9e37_79b9));
    par::pieces(y, par::ELEMENTS, |index, y| {
        let start = index * par::ELEMENTS;
        dropout_piece(&x[start..start + y.len()], start as u32, low, high, params.keep_probability, y);
    });
}

vectorised! {
    fn add_row<FMA>(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    fn dropout_piece<FMA>(x: &[f32], start: u32, low: u32, high: u32, keep: f32, y: &mut [f32]) {
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            let h = mix_bits(mix_bits(start.wrapping_add(i as u32) ^ low).wrapping_add(high));
            // 24 bits fit f32 exactly. Through i32, since that conversion is one instruction everywhere.
            let uniform = (h >> 8) as i32 as f32 * (1.0 / 16_777_216.0);
            *y = if uniform < keep { x / keep } else { 0.0 };
        }
    }
}
