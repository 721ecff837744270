//! Root-mean-square norm and its gradients: `y = x * scale / sqrt(mean(x^2) + epsilon)` (Zhang and Sennrich 2019).

use temper_shaders::RmsNormParams;

use super::par;
use super::simd::{dot, sum_lanes, vectorised};

/// Rows whose products one partial sum of the scale gradient covers.
const SCALE_ROWS: usize = 32;

/// `x [rows, width]`, `scale [width]` -> `y [rows, width]` and `inverse [rows]`, the reciprocal root mean squares.
pub fn rms_norm(params: &RmsNormParams, x: &[f32], scale: &[f32], y: &mut [f32], inverse: &mut [f32]) {
    let width = scale.len();
    assert!(x.len() == inverse.len() * width && y.len() == x.len());
    if width == 0 {
        return;
    }
    let block = par::rows_per_task(width);
    par::pieces2(y, block * width, inverse, block, |index, y, inverse| {
        let x = &x[index * block * width..][..y.len()];
        for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse) {
            *inverse = 1.0 / (dot_row(x, x) / width as f32 + params.epsilon).sqrt();
            scale_row(x, scale, *inverse, y);
        }
    });
}

/// Gradient by `x`: `dx = inverse * (dy * scale - x * inverse^2 * mean(dy * scale * x))`.
pub fn rms_norm_backward(x: &[f32], scale: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32]) {
    let width = scale.len();
    assert!(x.len() == inverse.len() * width && dy.len() == x.len() && dx.len() == x.len());
    if width == 0 {
        return;
    }
    let block = par::rows_per_task(width);
    par::pieces(dx, block * width, |index, dx| {
        for (r, dx) in dx.chunks_exact_mut(width).enumerate() {
            let r = index * block + r;
            let row = r * width..(r + 1) * width;
            backward_row(&x[row.clone()], scale, inverse[r], &dy[row], dx);
        }
    });
}

/// Gradient by `scale [width]`: the sum over rows of `dy * x * inverse`.
///
/// Blocks of 32 rows are summed on their own and the blocks' sums are added in order.
pub fn rms_norm_scale_gradient(x: &[f32], inverse: &[f32], dy: &[f32], dscale: &mut [f32]) {
    let width = dscale.len();
    assert!(x.len() == inverse.len() * width && dy.len() == x.len());
    dscale.fill(0.0);
    let partial = par::map(inverse.len().div_ceil(SCALE_ROWS), |index| {
        let mut sum = vec![0.0; width];
        let start = index * SCALE_ROWS;
        for (r, &inverse) in inverse.iter().enumerate().skip(start).take(SCALE_ROWS) {
            let row = r * width..(r + 1) * width;
            scale_gradient_row(&x[row.clone()], inverse, &dy[row], &mut sum);
        }
        sum
    });
    for sum in partial {
        for (total, sum) in dscale.iter_mut().zip(sum) {
            *total += sum;
        }
    }
}

vectorised! {
    fn dot_row<FMA>(x: &[f32], y: &[f32]) -> f32 {
        dot::<FMA>(x, y)
    }

    fn scale_row<FMA>(x: &[f32], scale: &[f32], inverse: f32, y: &mut [f32]) {
        for ((x, scale), y) in x.iter().zip(scale).zip(y) {
            *y = x * inverse * scale;
        }
    }

    fn backward_row<FMA>(x: &[f32], scale: &[f32], inverse: f32, dy: &[f32], dx: &mut [f32]) {
        let mut lanes = [0.0f32; 16];
        for (l, ((x, scale), (dy, dx))) in x.iter().zip(scale).zip(dy.iter().zip(dx.iter_mut())).enumerate() {
            *dx = dy * scale;
            lanes[l % 16] += *dx * x;
        }
        let mean = sum_lanes(&lanes) / x.len() as f32;
        let factor = inverse * inverse * inverse * mean;
        for (x, dx) in x.iter().zip(dx) {
            *dx = inverse * *dx - factor * x;
        }
    }

    fn scale_gradient_row<FMA>(x: &[f32], inverse: f32, dy: &[f32], sum: &mut [f32]) {
        for ((x, dy), sum) in x.iter().zip(dy).zip(sum) {
            *sum += dy * (x * inverse);
        }
    }
}
