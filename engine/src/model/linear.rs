//! A linear layer, `y = x Wᵀ + b + s (drop(x) Aᵀ) Bᵀ`, and its backward pass.
//!
//! The projections that read one input are fused into one matrix (q, k and v; gate and up), each part with its own LoRA
//! pair on its own columns of the output. The low-rank term stays factorised: `W + s B A` is never formed.

use burn::tensor::Tensor;

use super::parameter::{Parameter, Part};
use super::weight::Weight;
use crate::device::Device;
use crate::error::Result;
use crate::kernels::matmul::{AsOperand, Product};
use crate::kernels::{self, Columns};

/// A low-rank pair on one part of a layer's output.
#[derive(Clone)]
pub struct Lora {
    /// `A [rank, in]`.
    pub a: Parameter,
    /// `B [part, rank]`.
    pub b: Parameter,
    /// The part's columns of the output.
    pub columns: Columns,
}

/// What LoRA does in a layer besides its matrices.
#[derive(Clone, Copy, Debug)]
pub struct LoraScale {
    /// As [`LoraSettings::scale`](super::adapter::LoraSettings::scale).
    pub scale: f32,
    /// Share of inputs dropped before `A`.
    pub dropout: f32,
}

/// A (fused) linear layer.
#[derive(Clone)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Weight,
    /// `[1, out]`.
    pub bias: Option<Parameter>,
    /// At most one pair per part.
    pub lora: Vec<Lora>,
    /// Meaningful where `lora` is not empty.
    pub lora_scale: LoraScale,
}

impl Linear {
    /// `[tokens, in] -> [tokens, out]`. `seed` is the step's dropout seed for this layer, `None` outside training; `few` where
    /// texts are continued by a token or a few ([`Product::run_in_few_rows`]).
    ///
    /// # Errors
    /// Device errors.
    pub fn forward(&self, device: &Device, x: &Tensor<2>, seed: Option<u64>, few: bool) -> Result<Tensor<2>> {
        let run = |product: Product<2>| if few { product.run_in_few_rows(device) } else { product.run(device) };
        let mut y = run(Product::of(x, self.weight.operand().transposed()))?;
        if let Some(bias) = &self.bias {
            y = kernels::elementwise::add_bias(device, y, &bias.as_vector())?;
        }
        if !self.lora.is_empty() {
            let x = self.dropped(device, x, seed)?;
            for lora in &self.lora {
                let low = run(Product::of(&x, lora.a.value.transposed()))?;
                let high = Product::of(&low, lora.b.value.transposed()).times(self.lora_scale.scale);
                y = run(high.added_to_columns(y, lora.columns))?;
            }
        }
        Ok(y)
    }

    /// Pulls `dy [tokens, out]` back to `dx [tokens, in]`, adding to the gradients of what is trained.
    ///
    /// `x` and `seed` are those of the forward pass.
    ///
    /// # Errors
    /// Device errors.
    pub fn backward(&mut self, device: &Device, x: &Tensor<2>, dy: &Tensor<2>, seed: Option<u64>) -> Result<Tensor<2>> {
        let mut dx = Product::of(dy, self.weight.operand()).run(device)?;
        if let Some(weight) = self.weight.trained_mut() {
            weight.gradient = Some(Product::of(dy.transposed(), x).added_to(weight.gradient.take()).run(device)?);
        }
        if let Some(bias) = self.bias.as_mut().filter(|b| b.trained) {
            device.submit();
            bias.add_gradient(device, dy.clone().sum_dim(0))?;
        }
        if self.lora.is_empty() {
            return Ok(dx);
        }
        let scale = self.lora_scale.scale;
        let dropped = self.dropped(device, x, seed)?;
        let mut dx_low: Option<Tensor<2>> = None;
        for lora in &mut self.lora {
            let low = Product::of(&dropped, lora.a.value.transposed()).run(device)?;
            let dy = dy.columns(lora.columns);
            let dlow = Product::of(dy.clone(), &lora.b.value).times(scale).run(device)?;
            lora.b.add_gradient(device, Product::of(dy.transposed(), &low).times(scale).run(device)?)?;
            let da = Product::of(dlow.transposed(), &dropped).added_to(lora.a.gradient.take());
            lora.a.gradient = Some(da.run(device)?);
            if self.lora_scale.dropout > 0.0 && seed.is_some() {
                // The mask applies to the sum of all low-rank terms, which share one dropped input.
                dx_low = Some(Product::of(&dlow, &lora.a.value).added_to(dx_low).run(device)?);
            } else {
                dx = Product::of(&dlow, &lora.a.value).added_to(dx).run(device)?;
            }
        }
        if let Some(dx_low) = dx_low {
            dx = kernels::elementwise::add(device, &dx, self.dropped(device, &dx_low, seed)?)?;
        }
        Ok(dx)
    }

    /// The parts' names and rows.
    pub fn parts(&self) -> &[Part] {
        self.weight.parts()
    }

    /// Inputs of the layer.
    pub fn inputs(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Dropout is its own transpose, so the backward pass of the mask is the mask.
    fn dropped(&self, device: &Device, x: &Tensor<2>, seed: Option<u64>) -> Result<Tensor<2>> {
        match seed {
            Some(seed) if self.lora_scale.dropout > 0.0 => {
                kernels::elementwise::dropout(device, x, seed, 1.0 - self.lora_scale.dropout)
            }
            _ => Ok(x.clone()),
        }
    }

    /// Calls `visit` on every parameter of the layer.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.weight.parameter().into_iter().for_each(&mut *visit);
        self.bias.iter().for_each(&mut *visit);
        for lora in &self.lora {
            visit(&lora.a);
            visit(&lora.b);
        }
    }

    /// Calls `visit` on every parameter of the layer.
    pub fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter) -> Result<()>) -> Result<()> {
        self.weight.parameter_mut().into_iter().try_for_each(&mut *visit)?;
        if let Some(bias) = &mut self.bias {
            visit(bias)?;
        }
        for lora in &mut self.lora {
            visit(&mut lora.a)?;
            visit(&mut lora.b)?;
        }
        Ok(())
    }
}
