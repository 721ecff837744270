//! The gated activation of the MLP (Shazeer 2020): `y = silu(gate) * up` with `silu(x) = x / (1 + e^-x)`.

use super::par;
use super::simd::{sigmoid, vectorised};

/// `gate_up [rows, 2 width]`, gate half first -> `y [rows, width]`.
pub fn gated_mlp(gate_up: &[f32], width: usize, y: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * y.len());
    if width == 0 {
        return;
    }
    let block = par::rows_per_task(width);
    par::pieces(y, block * width, |index, piece| {
        let gate_up = &gate_up[2 * index * block * width..][..2 * piece.len()];
        for (gate_up, y) in gate_up.chunks_exact(2 * width).zip(piece.chunks_exact_mut(width)) {
            let (gate, up) = gate_up.split_at(width);
            forward_row(gate, up, y);
        }
    });
}

/// Overwrites `gate_up [rows, 2 width]` with its gradient, from `dy [rows, width]`.
pub fn gated_mlp_backward(gate_up: &mut [f32], width: usize, dy: &[f32]) {
    assert_eq!(gate_up.len(), 2 * dy.len());
    if width == 0 {
        return;
    }
    let block = par::rows_per_task(width);
    par::pieces(gate_up, 2 * block * width, |index, piece| {
        let dy = &dy[index * block * width..][..piece.len() / 2];
        for (gate_up, dy) in piece.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width)) {
            let (gate, up) = gate_up.split_at_mut(width);
            backward_row(gate, up, dy);
        }
    });
}

vectorised! {
    fn forward_row<FMA>(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((gate, up), y) in gate.iter().zip(up).zip(y) {
            *y = gate * sigmoid::<FMA>(*gate) * up;
        }
    }

    fn backward_row<FMA>(gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            let (x, u) = (*gate, *up);
            let s = sigmoid::<FMA>(x);
            let silu = x * s;
            *gate = dy * u * (s + silu * (1.0 - s));
            *up = dy * silu;
        }
    }
}
