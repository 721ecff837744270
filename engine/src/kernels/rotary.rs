//! Rotary position embedding (Su et al. 2021) on the query and key heads of a fused projection.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use temper_shaders::{ROTARY, RotaryBindings, RotaryParams};

use super::cpu;
use super::launch::size;
use super::sample::{Case, matrix};
use super::tensor::{Indices, flat, from_cube, from_flex, gpu_of, into_cpu, into_gpu, on_gpu, slice_mut};
use crate::device::Device;
use crate::error::Result;

/// Cosines and sines of a model's rotary frequencies, for as many positions as were asked for.
#[derive(Clone)]
pub struct Rotary {
    cos: Arc<Vec<f32>>,
    sin: Arc<Vec<f32>>,
    on_device: Option<(Tensor<1>, Tensor<1>)>,
    rotary_dim: usize,
    interleaved: bool,
    positions: usize,
}

impl Rotary {
    /// From the cosines and sines of `positions` positions, each `[positions, rotary_dim / 2]`. `interleaved`: pairs are
    /// neighbours, not halves.
    pub fn new(
        device: &Device,
        (cos, sin): (Vec<f32>, Vec<f32>),
        rotary_dim: usize,
        interleaved: bool,
        positions: usize,
    ) -> Self {
        let upload =
            |values: &Vec<f32>| Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), device.burn());
        let on_device = (!device.is_cpu() && positions > 0).then(|| (upload(&cos), upload(&sin)));
        Self { cos: Arc::new(cos), sin: Arc::new(sin), on_device, rotary_dim, interleaved, positions }
    }

    /// Positions that the tables hold.
    pub fn positions(&self) -> usize {
        self.positions
    }
}

/// Rotates the first `heads * head_dim` columns of `x [tokens, width]` by each token's position; by minus it with
/// `inverse`, which is the backward pass.
///
/// # Errors
/// Device errors.
pub fn rotate(
    device: &Device,
    x: Tensor<2>,
    heads: usize,
    head_dim: usize,
    rotary: &Rotary,
    positions: &Indices,
    inverse: bool,
) -> Result<Tensor<2>> {
    let [tokens, width] = x.dims();
    let params = RotaryParams {
        tokens: size(tokens),
        heads: size(heads),
        head_dim: size(head_dim),
        rotary_dim: size(rotary.rotary_dim),
        interleaved: u32::from(rotary.interleaved),
        inverse: u32::from(inverse),
        row_stride: size(width),
    };
    if device.is_cpu() {
        let mut x = into_cpu(x);
        cpu::rotary(&params, slice_mut(&mut x), &rotary.cos, &rotary.sin, positions.host());
        return Ok(from_flex(x));
    }
    let x = into_gpu(x);
    let (cos, sin) = rotary.on_device.as_ref().expect("rotary tables made for the CPU used on a GPU");
    let pairs = tokens * heads * rotary.rotary_dim / 2;
    let (cos_table, sin_table) = (on_gpu(cos), on_gpu(sin));
    let tensors = RotaryBindings { x: &x, cos_table: &cos_table, sin_table: &sin_table, positions: positions.gpu() };
    gpu_of(device).run(&ROTARY, params, tensors, ROTARY.workgroups(1, pairs as u64))?;
    Ok(from_cube(x))
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[("rotary", |d| {
    let angle = |at: usize| (at / 8) as f64 * 10_000.0_f64.powf((at % 8) as f64 / -8.0);
    let table = |of: fn(f64) -> f64| (0..16 * 8).map(|at| of(angle(at)) as f32).collect();
    let rotary = Rotary::new(d, (table(f64::cos), table(f64::sin)), 16, false, 16);
    let positions = Indices::new(d, vec![0, 1, 2, 7, 15]);
    Ok(vec![flat(&rotate(d, matrix(d, 4, 5, 3 * 16), 2, 16, &rotary, &positions, false)?)])
})];
