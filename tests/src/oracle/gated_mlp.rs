//! Gated activation.

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `silu(gate) * up` of `gate_up [rows, 2 width]`.
pub fn gated_mlp(gate_up: &[f64], width: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in gate_up.chunks(2 * width) {
        for j in 0..width {
            y.push(row[j] * sigmoid(row[j]) * row[width + j]);
        }
    }
    y
}

/// Gradient by `gate_up`.
pub fn gated_mlp_backward(gate_up: &[f64], width: usize, dy: &[f64]) -> Vec<f64> {
    let mut gradient = vec![0.0; gate_up.len()];
    for (r, row) in gate_up.chunks(2 * width).enumerate() {
        for j in 0..width {
            let (x, up, dy) = (row[j], row[width + j], dy[r * width + j]);
            let s = sigmoid(x);
            // d silu / dx = s + x s (1 - s)
            gradient[2 * r * width + j] = dy * up * (s + x * s * (1.0 - s));
            gradient[2 * r * width + width + j] = dy * x * s;
        }
    }
    gradient
}
