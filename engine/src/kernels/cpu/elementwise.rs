//! Small element-wise helpers: bias, sum of squares, column copies.

use temper_shaders::CopyColumnsParams;

use super::par;
use super::simd::{sum_lanes, vectorised};

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

/// Sum of squares, as gradient clipping needs it. Pieces of fixed size are summed in f32 lanes of at most 1024 terms and
/// combined in f64.
pub fn sum_squares(x: &[f32]) -> f64 {
    let parts = par::map(x.len().div_ceil(par::ELEMENTS), |index| {
        let start = index * par::ELEMENTS;
        sum_squares_piece(&x[start..x.len().min(start + par::ELEMENTS)])
    });
    parts.iter().sum()
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

vectorised! {
    fn add_row<FMA>(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    fn sum_squares_piece<FMA>(x: &[f32]) -> f64 {
        let mut total = 0.0f64;
        for part in x.chunks(1024) {
            let mut lanes = [0.0f32; 16];
            let (whole, rest) = part.as_chunks::<16>();
            for chunk in whole {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane += x * x;
                }
            }
            for (lane, x) in lanes.iter_mut().zip(rest) {
                *lane += x * x;
            }
            total += f64::from(sum_lanes(&lanes));
        }
        total
    }
}
