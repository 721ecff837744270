//! The gradient by the logits, `weight * (softmax - onehot)`, written over them.

use burn::tensor::Tensor;

use super::cpu;
use super::tensor::{Indices, from_cube, from_flex, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice, slice_mut};
use crate::device::Device;
use crate::error::Result;

/// Overwrites a tile of logits `[rows, columns]` by its gradient. `weight [rows]` is already divided by the token count;
/// a row of weight 0 gets exactly 0.
///
/// # Errors
/// Device errors.
pub fn over_logits(
    device: &Device,
    logits: Tensor<2>,
    column_start: usize,
    labels: &Indices,
    weight: &Tensor<1>,
    fields: &Tensor<2>,
) -> Result<Tensor<2>> {
    let [rows, columns] = logits.dims();
    if device.is_cpu() {
        let (mut logits, weight, fields) = (into_cpu(logits), on_cpu(weight), on_cpu(fields));
        let values = slice_mut(&mut logits);
        cpu::loss_gradient(values, columns, column_start, labels.host(), slice(&weight), slice(&fields));
        return Ok(from_flex(logits));
    }
    let (logits, weight, fields) = (into_gpu(logits), on_gpu(weight), on_gpu(fields));
    let kernel = &temper_shaders::LOSS_GRADIENT;
    let params = [rows.into(), columns.into(), column_start.into()];
    let groups = kernel.workgroups(rows as u64, columns as u64);
    gpu_of(device).run(kernel, &params, &[&logits, labels.gpu(), &weight, &fields], groups)?;
    Ok(from_cube(logits))
}
