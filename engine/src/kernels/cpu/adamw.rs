//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it, and the sum of squares that clipping needs.

use temper_shaders::AdamwParams;

use super::par;
use super::simd::{sum_lanes, vectorised};

/// `g' = scale g; p *= 1 - lr wd; m = b1 m + (1 - b1) g'; v = b2 v + (1 - b2) g'^2;
/// p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + epsilon)`, all in place.
pub fn adamw(params: &AdamwParams, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    assert!(gradient.len() == parameter.len() && first.len() == parameter.len() && second.len() == parameter.len());
    let gradient_pieces = |index: usize, length: usize| &gradient[index * par::ELEMENTS..][..length];
    let second = par::Shared::new(second);
    par::pieces2(parameter, par::ELEMENTS, first, par::ELEMENTS, |index, parameter, first| {
        // SAFETY: each task takes its own piece.
        let second = unsafe { second.slice(index * par::ELEMENTS, parameter.len()) };
        step(parameter, gradient_pieces(index, first.len()), first, second, params);
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

vectorised! {
    fn step<FMA>(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], params: &AdamwParams) {
        let decay = 1.0 - params.learning_rate * params.weight_decay;
        let rate = params.learning_rate / params.bias1;
        let root = params.bias2.sqrt();
        let AdamwParams { beta1, beta2, epsilon, gradient_scale, .. } = *params;
        for ((p, g), (m, v)) in parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)) {
            let g = g * gradient_scale;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *p = *p * decay - rate * (*m / (v.sqrt() / root + epsilon));
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
