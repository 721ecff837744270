//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it.

use temper_shaders::AdamwParams;

use super::par;
use super::simd::vectorised;

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
