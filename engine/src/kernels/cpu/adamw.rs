//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it.

use super::par;
use super::simd::vectorised;

/// One step's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwParams {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// 1 - beta1 ^ step, step counted from 1.
    pub bias1: f32,
    /// 1 - beta2 ^ step.
    pub bias2: f32,
    /// Factor on the gradient before anything else: clipping.
    pub gradient_scale: f32,
}

/// `g' = scale g; p *= 1 - lr wd; m = b1 m + (1 - b1) g'; v = b2 v + (1 - b2) g'^2;
/// p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + epsilon)`, all in place.
pub fn adamw(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], params: &AdamwParams) {
    assert!(gradient.len() == parameter.len() && first.len() == parameter.len() && second.len() == parameter.len());
    let gradient_pieces = |index: usize, length: usize| &gradient[index * par::ELEMENTS..][..length];
    let second = par::Shared::new(second);
    par::pieces2(parameter, par::ELEMENTS, first, par::ELEMENTS, |index, parameter, first| {
        // SAFETY: each task takes its own piece.
        let second = unsafe { second.slice(index * par::ELEMENTS, parameter.len()) };
        step(parameter, gradient_pieces(index, first.len()), first, second, params);
    });
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
}
