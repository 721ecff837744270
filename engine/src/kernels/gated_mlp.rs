//! The gated activation of the MLP, `silu(gate) * up` or `gelu(gate) * up` (Shazeer 2020), on a fused `[rows, 2 width]`, gate
//! half first.

use burn::tensor::Tensor;
use temper_shaders::{GATED_MLP, GATED_MLP_BACKWARD, GatedMlpBackwardBindings, GatedMlpBindings, GatedMlpParams};

use super::cpu;
pub use super::cpu::gated_mlp::Activation;
use super::launch::size;
use super::sample::{Case, matrix};
use super::tensor::{
    empty_gpu, flat, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice, slice_mut,
};
use crate::device::Device;
use crate::error::Result;

/// `gate_up [rows, 2 width] -> [rows, width]`.
///
/// # Errors
/// Device errors.
pub fn forward(device: &Device, gate_up: &Tensor<2>, activation: Activation) -> Result<Tensor<2>> {
    let [rows, double] = gate_up.dims();
    let width = double / 2;
    if device.is_cpu() {
        let gate_up = on_cpu(gate_up);
        let mut y = vec![0.0; rows * width];
        cpu::gated_mlp(activation, slice(&gate_up), width, &mut y);
        return Ok(from_vec(y, [rows, width]));
    }
    let gate_up = on_gpu(gate_up);
    let y = empty_gpu(&gate_up, [rows, width]);
    let params = GatedMlpParams { rows: size(rows), width: size(width), activation: activation.code() };
    let tensors = GatedMlpBindings { gate_up: &gate_up, y: &y };
    gpu_of(device).run(&GATED_MLP, params, tensors, GATED_MLP.workgroups(rows as u64, width as u64))?;
    Ok(from_cube(y))
}

/// Gradient by `gate_up`, written over it, from `dy [rows, width]`.
///
/// # Errors
/// Device errors.
pub fn backward(device: &Device, gate_up: Tensor<2>, dy: &Tensor<2>, activation: Activation) -> Result<Tensor<2>> {
    let [rows, double] = gate_up.dims();
    let width = double / 2;
    if device.is_cpu() {
        let (mut gate_up, dy) = (into_cpu(gate_up), on_cpu(dy));
        cpu::gated_mlp_backward(activation, slice_mut(&mut gate_up), width, slice(&dy));
        return Ok(from_flex(gate_up));
    }
    let (gate_up, dy) = (into_gpu(gate_up), on_gpu(dy));
    let params = GatedMlpParams { rows: size(rows), width: size(width), activation: activation.code() };
    let tensors = GatedMlpBackwardBindings { gate_up: &gate_up, dy: &dy };
    let groups = GATED_MLP_BACKWARD.workgroups(rows as u64, width as u64);
    gpu_of(device).run(&GATED_MLP_BACKWARD, params, tensors, groups)?;
    Ok(from_cube(gate_up))
}

/// The self-test, of both activations.
pub(crate) const SELF_TEST: &[Case] = &[
    ("gated_mlp", |d| {
        let of = |activation| forward(d, &matrix(d, 5, 7, 130), activation);
        Ok(vec![flat(&of(Activation::Silu)?), flat(&of(Activation::GeluTanh)?)])
    }),
    ("gated_mlp_backward", |d| {
        let of = |activation| backward(d, matrix(d, 5, 7, 130), &matrix(d, 6, 7, 65), activation);
        Ok(vec![flat(&of(Activation::Silu)?), flat(&of(Activation::GeluTanh)?)])
    }),
];
