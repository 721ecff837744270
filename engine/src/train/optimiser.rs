//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019), clipped by the global gradient norm.
//!
//! Clipping stays exact because no parameter is stepped before the norm over all of them is known: gradients of every
//! trained parameter are kept until then. Where clipping is off and nothing accumulates, a block is stepped as soon as
//! its gradients are complete, so that only one block's gradients exist at a time.

use burn::tensor::Tensor;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels;
use crate::kernels::adamw::SumSquares;
use crate::model::Model;
use crate::model::parameter::{Parameter, to_host};

/// Hyperparameters of AdamW.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether norms and biases decay too; most trainers leave them alone.
    pub decay_vectors: bool,
    /// Global gradient norm above which gradients are scaled down; 0 turns clipping off.
    pub max_grad_norm: f64,
}

impl AdamW {
    /// Factor on every gradient so that the global norm does not exceed the limit, as torch's `clip_grad_norm_`.
    pub fn clip_factor(&self, norm: f64) -> f64 {
        if self.max_grad_norm <= 0.0 { 1.0 } else { (self.max_grad_norm / (norm + 1e-6)).min(1.0) }
    }

    /// Applies step number `step` (from 1) to one parameter and drops its gradient.
    ///
    /// # Errors
    /// Device errors.
    pub fn apply(
        &self,
        device: &Device,
        parameter: &mut Parameter,
        step: u64,
        learning_rate: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let Some(gradient) = parameter.gradient.take() else { return Ok(()) };
        let shape = parameter.value.dims();
        let zeros = || Tensor::<2>::zeros(shape, device.burn());
        let (first, second) = parameter.moments.take().unwrap_or_else(|| (zeros(), zeros()));
        let decays = !parameter.vector || self.decay_vectors;
        let params = kernels::adamw::AdamwParams {
            count: 0, // the launch fills it in
            learning_rate: learning_rate as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            epsilon: self.epsilon as f32,
            weight_decay: if decays { self.weight_decay as f32 } else { 0.0 },
            bias1: (1.0 - self.beta1.powi(step.min(i32::MAX as u64) as i32)) as f32,
            bias2: (1.0 - self.beta2.powi(step.min(i32::MAX as u64) as i32)) as f32,
            gradient_scale: gradient_scale as f32,
        };
        // Moved out so that the kernel finds itself the sole owner and writes in place.
        let value = std::mem::replace(&mut parameter.value, Tensor::zeros([1, 1], device.burn()));
        let (value, first, second) = kernels::adamw::step(device, value, &gradient, first, second, &params)?;
        parameter.value = value;
        parameter.moments = Some((first, second));
        Ok(())
    }

    /// Steps every trained parameter that has a gradient, scaled down where their global `norm` asks for it.
    ///
    /// # Errors
    /// Device errors.
    pub fn step(&self, model: &mut Model, step: u64, learning_rate: f64, norm: f64) -> Result<()> {
        let factor = self.clip_factor(norm);
        model.visit_placed_mut(&mut |device, p| self.apply(device, p, step, learning_rate, factor))
    }
}

/// Sum of squares of all these parameters' gradients.
///
/// # Errors
/// Device errors.
pub(super) fn sum_squares(device: &Device, parameters: &[&Parameter]) -> Result<SumSquares> {
    let gradients: Vec<&Tensor<2>> = parameters.iter().filter_map(|p| p.gradient.as_ref()).collect();
    kernels::adamw::sum_squares(device, &gradients)
}

/// Which gradient, and which row of it, is not finite; for errors only, since it reads gradients back.
pub(super) async fn non_finite_gradient(parameters: &[&Parameter], step: u64) -> Error {
    for parameter in parameters {
        let Some(gradient) = &parameter.gradient else { continue };
        match to_host(gradient).await.map(|values| parameter.first_non_finite(&values)) {
            Ok(None) => {}
            Ok(Some((name, row))) => {
                return Error::NonFinite { tensor: format!("gradient of {name}"), row, step: Some(step) };
            }
            Err(error) => return error,
        }
    }
    Error::NonFinite { tensor: "the gradient's norm".into(), row: 0, step: Some(step) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_within_the_norm_are_left_alone_and_larger_ones_are_scaled_to_it() {
        let adamw = AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decay_vectors: false,
            max_grad_norm: 1.0,
        };
        assert_eq!(adamw.clip_factor(0.5), 1.0);
        assert!((adamw.clip_factor(4.0) * 4.0 - 1.0).abs() < 1e-6);
        assert_eq!(AdamW { max_grad_norm: 0.0, ..adamw }.clip_factor(1e9), 1.0);
    }
}
