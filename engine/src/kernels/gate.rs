//! The weight of each token from its row statistics: every row of the objective table that one row decides.

use burn::tensor::Tensor;

use super::cpu;
use super::tensor::{empty_gpu, from_cube, from_vec, gpu_of, on_cpu, on_gpu, slice};
use crate::device::Device;
use crate::error::Result;

/// What the device's gate kernel needs to compute one weight a row: `scale * f_kind(row)`.
///
/// | kind | f | reads |
/// |---|---|---|
/// | 0 | 1 | |
/// | 1 | entropy_top_k / normalizer | normalizer |
/// | 2 | (entropy_top_k / normalizer)^exponent | normalizer, exponent |
/// | 3 | 1 / (1 + exp(-a (entropy_top_k / normalizer - b))) | normalizer, a, b |
/// | 4 | 1 if entropy_top_k / normalizer > threshold else 0 (normalizer is 1 here, so no rounding) | threshold |
/// | 5 | p | |
/// | 6 | max(exp(-ce / a), b) | a, b |
/// | 7 | (a + entropy_full)^exponent * b | a, b, exponent |
/// | 8 | p^collision = exp(-ce * collision) | |
/// | 9 | 1 if p > a, compared as ce < b, else 0 | b |
/// | 10 | 0 if entropy_top_k <= threshold and p <= a, compared as ce >= b, else 1 | threshold, b |
///
/// In kinds 9 and 10 `a` is the probability and `b` the same threshold as a cross entropy: comparing with `b` needs no
/// `exp`, so it decides alike on every device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateParams {
    /// Row of the table above.
    pub kind: u32,
    /// See the table.
    pub exponent: f32,
    /// See the table; never 0.
    pub normalizer: f32,
    /// See the table.
    pub a: f32,
    /// See the table.
    pub b: f32,
    /// See the table; the lowest number of f32 where nothing is to be dropped.
    pub threshold: f32,
    /// Factor on every weight; 1 for all objectives of today.
    pub scale: f32,
}

/// `fields [rows, 8]` -> `[rows]`: gate times the gate's own scale times `reciprocal`, one over the trained tokens.
///
/// # Errors
/// Device errors.
pub fn weights(device: &Device, fields: &Tensor<2>, gate: &GateParams, reciprocal: f32) -> Result<Tensor<1>> {
    let rows = fields.dims()[0];
    let gate = GateParams { scale: gate.scale * reciprocal, ..*gate };
    if device.is_cpu() {
        let fields = on_cpu(fields);
        let mut weight = vec![0.0; rows];
        cpu::gate(slice(&fields), &gate, &mut weight);
        return Ok(from_vec(weight, [rows]));
    }
    let fields = on_gpu(fields);
    let weight = empty_gpu(&fields, [rows]);
    let kernel = &temper_shaders::GATE;
    let params = [
        rows.into(),
        gate.kind.into(),
        gate.exponent.into(),
        gate.normalizer.into(),
        gate.a.into(),
        gate.b.into(),
        gate.threshold.into(),
        gate.scale.into(),
    ];
    gpu_of(device).run(kernel, &params, &[&fields, &weight], kernel.workgroups(1, rows as u64))?;
    Ok(from_cube(weight))
}
