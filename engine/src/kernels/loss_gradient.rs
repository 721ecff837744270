//! The gradient by the logits, `weight * (softmax - onehot)`, written over them.

use burn::tensor::Tensor;
use temper_shaders::{LOSS_GRADIENT, LossGradientBindings, LossGradientParams};

use super::cpu;
use super::launch::size;
use super::row_stats::sample_statistics;
use super::sample::{self, Case};
use super::tensor::{
    Indices, flat, from_cube, from_flex, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice, slice_mut,
};
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
    let params = LossGradientParams { rows: size(rows), cols: size(columns), column_start: size(column_start) };
    if device.is_cpu() {
        let (mut logits, weight, fields) = (into_cpu(logits), on_cpu(weight), on_cpu(fields));
        cpu::loss_gradient(&params, slice_mut(&mut logits), labels.host(), slice(&weight), slice(&fields));
        return Ok(from_flex(logits));
    }
    let (logits, weight, fields) = (into_gpu(logits), on_gpu(weight), on_gpu(fields));
    let tensors = LossGradientBindings { logits: &logits, labels: labels.gpu(), weight: &weight, stats: &fields };
    gpu_of(device).run(&LOSS_GRADIENT, params, tensors, LOSS_GRADIENT.workgroups(rows as u64, columns as u64))?;
    Ok(from_cube(logits))
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[("loss_gradient", |d| {
    let (fields, weight) = (sample_statistics(d)?, sample::vector(d, 21, sample::ROWS));
    let over = over_logits(d, sample::logits(d), 0, &sample::labels(d), &weight, &fields)?;
    Ok(vec![flat(&over)])
})];
