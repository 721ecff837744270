//! Root-mean-square norm.

/// `y` and the reciprocal root mean squares.
pub fn rms_norm(x: &[f64], scale: &[f64], epsilon: f64) -> (Vec<f64>, Vec<f64>) {
    let width = scale.len();
    let (mut y, mut inverse) = (Vec::new(), Vec::new());
    for row in x.chunks(width) {
        let mut sum = 0.0;
        for x in row {
            sum += x * x;
        }
        let r = 1.0 / (sum / width as f64 + epsilon).sqrt();
        inverse.push(r);
        for j in 0..width {
            y.push(row[j] * r * scale[j]);
        }
    }
    (y, inverse)
}

/// Gradients by `x` and by `scale`.
pub fn rms_norm_backward(x: &[f64], scale: &[f64], epsilon: f64, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let width = scale.len();
    let (_, inverse) = rms_norm(x, scale, epsilon);
    let (mut dx, mut dscale) = (vec![0.0; x.len()], vec![0.0; width]);
    for (r, inverse) in inverse.iter().enumerate() {
        for (j, dscale) in dscale.iter_mut().enumerate() {
            let i = r * width + j;
            *dscale += dy[i] * x[i] * inverse;
            // y_k = x_k s_k r, dr/dx_j = -r^3 x_j / width.
            for k in 0..width {
                let own = if j == k { *inverse } else { 0.0 };
                let through_r = -inverse.powi(3) * x[i] * x[r * width + k] / width as f64;
                dx[i] += dy[r * width + k] * scale[k] * (own + through_r);
            }
        }
    }
    (dx, dscale)
}
