//! Gated activation.

use std::f64::consts::PI;

/// An activation and its slope.
pub type Activation = (fn(f64) -> f64, fn(f64) -> f64);

/// `x / (1 + e^-x)`.
pub const SILU: Activation = (silu, silu_slope);

/// `x (1 + tanh u) / 2` with `u = sqrt(2/π) (x + 0.044715 x³)`.
pub const GELU_TANH: Activation = (gelu_tanh, gelu_tanh_slope);

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

fn silu_slope(x: f64) -> f64 {
    let s = sigmoid(x);
    s + x * s * (1.0 - s)
}

fn tanh_inside(x: f64) -> f64 {
    ((2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh()
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + tanh_inside(x))
}

fn gelu_tanh_slope(x: f64) -> f64 {
    let t = tanh_inside(x);
    // d tanh(u) / dx = (1 - tanh(u)²) du / dx
    let du = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * du
}

/// `act(gate) * up` of `gate_up [rows, 2 width]`.
pub fn gated_mlp((act, _): Activation, gate_up: &[f64], width: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in gate_up.chunks(2 * width) {
        for j in 0..width {
            y.push(act(row[j]) * row[width + j]);
        }
    }
    y
}

/// Gradient by `gate_up`.
pub fn gated_mlp_backward((act, slope): Activation, gate_up: &[f64], width: usize, dy: &[f64]) -> Vec<f64> {
    let mut gradient = vec![0.0; gate_up.len()];
    for (r, row) in gate_up.chunks(2 * width).enumerate() {
        for j in 0..width {
            let (x, up, dy) = (row[j], row[width + j], dy[r * width + j]);
            gradient[2 * r * width + j] = dy * up * slope(x);
            gradient[2 * r * width + width + j] = dy * act(x);
        }
    }
    gradient
}
