//! The weight of each token from its row statistics: every row of the objective table that one row decides.

use burn::tensor::Tensor;
use temper_shaders::{GATE, GateBindings};

use super::cpu::{self, gate::kind};
use super::launch::size;
use super::row_stats::sample_statistics;
use super::sample::Case;
use super::tensor::{empty_gpu, from_cube, from_vec, gpu_of, on_cpu, on_gpu, slice};
use crate::device::Device;
use crate::error::Result;

pub use temper_shaders::GateParams;

/// `fields [rows, 8]` -> `[rows]`: gate times the gate's own scale times `reciprocal`, one over the trained tokens. The
/// kinds of gate are [`cpu::gate::kind`]'s.
///
/// # Errors
/// Device errors.
pub fn weights(device: &Device, fields: &Tensor<2>, gate: &GateParams, reciprocal: f32) -> Result<Tensor<1>> {
    let rows = fields.dims()[0];
    let params = GateParams { rows: size(rows), scale: gate.scale * reciprocal, ..*gate };
    if device.is_cpu() {
        let fields = on_cpu(fields);
        let mut weight = vec![0.0; rows];
        cpu::gate(&params, slice(&fields), &mut weight);
        return Ok(from_vec(weight, [rows]));
    }
    let fields = on_gpu(fields);
    let weight = empty_gpu(&fields, [rows]);
    let tensors = GateBindings { stats: &fields, weight: &weight };
    gpu_of(device).run(&GATE, params, tensors, GATE.workgroups(1, rows as u64))?;
    Ok(from_cube(weight))
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[("gate", |d| {
    let fields = sample_statistics(d)?;
    let constant =
        GateParams { rows: 0, kind: 0, exponent: 2.0, normalizer: 3.0, a: 1.0, b: 0.1, threshold: 1.0, scale: 1.0 };
    let exponent = |kind| if kind == kind::MILE { 1.0 } else { 2.0 };
    let gates = kind::ALL.iter().map(|&(_, kind)| GateParams { kind, exponent: exponent(kind), ..constant });
    gates.map(|gate| weights(d, &fields, &gate, 0.5)).collect()
})];
