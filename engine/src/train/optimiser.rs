//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019), clipped by the global gradient norm.
//!
//! What a clipped step needs to know before it steps anything is the norm of all gradients; [`Clipping`] says how it is known
//! and what is held meanwhile. Without clipping a block is stepped as soon as its gradients are complete, so that only
//! one block's gradients exist at a time.

use burn::tensor::Tensor;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels;
use crate::kernels::adamw::{AdamwParams, SumSquares};
use crate::kernels::tensor::empty;
use crate::kernels::{Moments, Weights};
use crate::model::Model;
use crate::model::load::name_hash;
use crate::model::parameter::{Parameter, to_host};
use crate::rng::mix;
use crate::settings::choice;

choice! {
    /// How the norm is known that gradients are clipped by.
    pub enum Clipping {
        /// All gradients are kept until their norm is known: the most memory.
        Kept = "kept" as "all gradients kept",
        /// A first backward pass adds up squares and keeps nothing, a second one steps block after block: the same result in
        /// the time of one more backward pass.
        Twice = "twice" as "two backward passes",
        /// By the norm of the step before, block after block: no more time, but a step that is larger than the one before
        /// is not held back by itself. The first step is clipped by its own norm, with two backward passes.
        LastNorm = "last_norm" as "the norm of the step before",
    }
}

impl Clipping {
    /// True where a step waits until all gradients are there: they are clipped, and were all kept for their norm.
    pub fn keeps_gradients(self, max_grad_norm: f64) -> bool {
        max_grad_norm > 0.0 && self == Self::Kept
    }
}

choice! {
    /// How the moments of what is trained are held.
    pub enum MomentBits {
        /// In single precision: 8 bytes a parameter.
        F32 = "f32",
        /// In 8 bits, in blocks of 256 with a scale each: 2 bytes a parameter. Vectors stay in single precision.
        Eight = "8bit",
    }
}

impl MomentBits {
    /// True where this parameter's moments take 8 bits.
    pub fn coded(self, vector: bool) -> bool {
        self == Self::Eight && !vector
    }
}

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
    /// How that norm is known.
    pub clipping: Clipping,
    /// How moments are held.
    pub moments: MomentBits,
}

/// Of one step, what all parameters share.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its number, from 1.
    pub number: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Factor on every gradient.
    pub gradient_scale: f64,
    /// Of the run: decides with the step's number, a parameter's name and an element's place how it is rounded.
    pub seed: u64,
}

impl Default for AdamW {
    /// PyTorch's constants, without decay and without clipping, all in single precision.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decay_vectors: false,
            max_grad_norm: 0.0,
            clipping: Clipping::Kept,
            moments: MomentBits::F32,
        }
    }
}

impl AdamW {
    /// Factor on every gradient so that the global norm does not exceed the limit, as torch's `clip_grad_norm_`.
    pub fn clip_factor(&self, norm: f64) -> f64 {
        if self.max_grad_norm <= 0.0 { 1.0 } else { (self.max_grad_norm / (norm + 1e-6)).min(1.0) }
    }

    /// Applies a step to one parameter and drops its gradient.
    ///
    /// # Errors
    /// Device errors.
    pub fn apply(&self, device: &Device, parameter: &mut Parameter, step: &Step) -> Result<()> {
        let Some(gradient) = parameter.gradient.take() else { return Ok(()) };
        let coded = self.moments.coded(parameter.vector);
        let moments = parameter.moments.take();
        let moments = moments.unwrap_or_else(|| Moments::zeros(device, parameter.value.dims(), coded));
        let decays = !parameter.vector || self.decay_vectors;
        let exponent = step.number.min(i32::MAX as u64) as i32;
        let params = AdamwParams {
            count: 0, // the launch fills it in
            learning_rate: step.learning_rate as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            epsilon: self.epsilon as f32,
            weight_decay: if decays { self.weight_decay as f32 } else { 0.0 },
            bias1: (1.0 - self.beta1.powi(exponent)) as f32,
            bias2: (1.0 - self.beta2.powi(exponent)) as f32,
            gradient_scale: step.gradient_scale as f32,
        };
        // Moved out so that the kernel finds itself the sole owner and writes in place.
        let value = std::mem::replace(&mut parameter.value, empty(device, [1, 1]).into());
        let (value, moments) = match (value, moments) {
            (Weights::F32(value), Moments::F32(first, second)) => {
                let (value, first, second) = kernels::adamw::step(device, value, &gradient, first, second, &params)?;
                (Weights::F32(value), Moments::F32(first, second))
            }
            (value, moments) => {
                let seed = mix(mix(step.seed, step.number), name_hash(&parameter.parts[0].name));
                let params = params.compact(mix(seed, parameter.tile_start as u64));
                kernels::adamw::step_compact(device, value, &gradient, moments, &params)?
            }
        };
        // Decay pulled at the distance from zero.
        let back = params.learning_rate * params.weight_decay * parameter.decays_to;
        let value = match value {
            Weights::F32(value) if back != 0.0 => {
                device.submit();
                Weights::F32(value + back)
            }
            value => value,
        };
        (parameter.value, parameter.moments) = (value, Some(moments));
        Ok(())
    }

    /// Steps every trained parameter that has a gradient.
    ///
    /// # Errors
    /// Device errors.
    pub fn step(&self, model: &mut Model, step: &Step) -> Result<()> {
        model.visit_placed_mut(&mut |device, p| self.apply(device, p, step))
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
        let adamw = AdamW { max_grad_norm: 1.0, ..AdamW::default() };
        assert_eq!(adamw.clip_factor(0.5), 1.0);
        assert!((adamw.clip_factor(4.0) * 4.0 - 1.0).abs() < 1e-6);
        assert_eq!(AdamW { max_grad_norm: 0.0, ..adamw }.clip_factor(1e9), 1.0);
    }
}
