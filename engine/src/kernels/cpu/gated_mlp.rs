//! The gated activation of the MLP (Shazeer 2020): `y = act(gate) * up`, where `act(x) = x / (1 + e^-x)` (silu) or gelu.

use temper_shaders::activation;

use super::par;
use super::simd::{fma, sigmoid, vectorised};

/// The activation of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))) / 2` (Hendrycks and Gimpel 2016), `gelu_pytorch_tanh` in configuration files.
    GeluTanh,
}

impl Activation {
    /// As the shader's uniform has it.
    pub fn code(self) -> u32 {
        match self {
            Self::Silu => activation::SILU,
            Self::GeluTanh => activation::GELU_TANH,
        }
    }
}

/// `gate_up [rows, 2 width]`, gate half first -> `y [rows, width]`.
pub fn gated_mlp(activation: Activation, gate_up: &[f32], width: usize, y: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * y.len());
    if width == 0 {
        return;
    }
    let forward_row = match activation {
        Activation::Silu => silu_row,
        Activation::GeluTanh => gelu_row,
    };
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
pub fn gated_mlp_backward(activation: Activation, gate_up: &mut [f32], width: usize, dy: &[f32]) {
    assert_eq!(gate_up.len(), 2 * dy.len());
    if width == 0 {
        return;
    }
    let backward_row = match activation {
        Activation::Silu => silu_backward_row,
        Activation::GeluTanh => gelu_backward_row,
    };
    let block = par::rows_per_task(width);
    par::pieces(gate_up, 2 * block * width, |index, piece| {
        let dy = &dy[index * block * width..][..piece.len() / 2];
        for (gate_up, dy) in piece.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width)) {
            let (gate, up) = gate_up.split_at_mut(width);
            backward_row(gate, up, dy);
        }
    });
}

/// What the sigmoid is of in gelu, `2 sqrt(2/π) (x + 0.044715 x³)`, since `(1 + tanh u) / 2 = sigmoid(2 u)`; and its slope.
/// Farther from 0 than 12 the sigmoid is exactly 0 or 1, and the cube might overflow. NaN stays NaN.
#[inline(always)]
fn inside_gelu<const FMA: bool>(x: f32) -> (f32, f32) {
    let near = x.clamp(-12.0, 12.0);
    let square = near * near;
    (near * fma::<FMA>(square, 0.071_354_814, 1.595_769_2), fma::<FMA>(square, 0.214_064_45, 1.595_769_2))
}

vectorised! {
    fn silu_row<FMA>(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((gate, up), y) in gate.iter().zip(up).zip(y) {
            *y = gate * sigmoid::<FMA>(*gate) * up;
        }
    }

    fn gelu_row<FMA>(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((gate, up), y) in gate.iter().zip(up).zip(y) {
            let (inside, _) = inside_gelu::<FMA>(*gate);
            *y = gate * sigmoid::<FMA>(inside) * up;
        }
    }

    fn silu_backward_row<FMA>(gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            let (x, u) = (*gate, *up);
            let s = sigmoid::<FMA>(x);
            let silu = x * s;
            *gate = dy * u * (s + silu * (1.0 - s));
            *up = dy * silu;
        }
    }

    fn gelu_backward_row<FMA>(gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            let (x, u) = (*gate, *up);
            let (inside, slope) = inside_gelu::<FMA>(x);
            let s = sigmoid::<FMA>(inside);
            let gelu = x * s;
            *gate = dy * u * (s + gelu * ((1.0 - s) * slope));
            *up = dy * gelu;
        }
    }
}
