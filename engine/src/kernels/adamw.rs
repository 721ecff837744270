//! AdamW's update of one matrix in place, and the sums of squares that clipping needs.

use burn::tensor::Tensor;
use temper_shaders::{ADAMW, AdamwBindings, SUM_SQUARES, SumSquaresBindings, SumSquaresParams};

use super::cpu;
use super::launch::size;
use super::sample::{Case, matrix};
use super::tensor::{
    empty_gpu, flat, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, read, slice, slice_mut,
};
use crate::device::Device;
use crate::error::Result;

pub use temper_shaders::AdamwParams;

/// Partial sums that one reduction leaves for the host to add.
const PARTIALS: usize = 64;

/// New value, first and second moment; torch's AdamW.
///
/// # Errors
/// Device errors.
pub fn step(
    device: &Device,
    value: Tensor<2>,
    gradient: &Tensor<2>,
    first: Tensor<2>,
    second: Tensor<2>,
    params: &AdamwParams,
) -> Result<(Tensor<2>, Tensor<2>, Tensor<2>)> {
    let [rows, columns] = value.dims();
    if device.is_cpu() {
        let gradient = on_cpu(gradient);
        let (mut value, mut first, mut second) = (into_cpu(value), into_cpu(first), into_cpu(second));
        let (p, m, v) = (slice_mut(&mut value), slice_mut(&mut first), slice_mut(&mut second));
        cpu::adamw(params, p, slice(&gradient), m, v);
        return Ok((from_flex(value), from_flex(first), from_flex(second)));
    }
    let (value, gradient) = (into_gpu(value), on_gpu(gradient));
    let (first, second) = (into_gpu(first), into_gpu(second));
    let params = AdamwParams { count: size(rows * columns), ..*params };
    let tensors =
        AdamwBindings { parameter: &value, gradient: &gradient, first_moment: &first, second_moment: &second };
    gpu_of(device).run(&ADAMW, params, tensors, ADAMW.workgroups(rows as u64, columns as u64))?;
    Ok((from_cube(value), from_cube(first), from_cube(second)))
}

/// A sum of squares that the host may have to fetch: known on the CPU, partial sums on a GPU.
pub enum SumSquares {
    /// The sum.
    Known(f64),
    /// Terms of it, still on the device; read them with whatever else is read, then [`SumSquares::of_partials`].
    Partials(Tensor<1>),
}

impl SumSquares {
    /// The sum of partial sums that were read back.
    pub fn of_partials(values: &[f32]) -> f64 {
        values.iter().copied().map(f64::from).sum()
    }

    /// The sum, with a read-back of its own.
    ///
    /// # Errors
    /// Device errors.
    pub async fn read(self) -> Result<f64> {
        match self {
            Self::Known(sum) => Ok(sum),
            Self::Partials(partials) => Ok(Self::of_partials(&read(&partials).await?)),
        }
    }
}

/// Sum of squares over all elements of all tensors: the square of the global norm.
///
/// # Errors
/// Device errors.
pub fn sum_squares(device: &Device, tensors: &[&Tensor<2>]) -> Result<SumSquares> {
    if device.is_cpu() {
        return Ok(SumSquares::Known(tensors.iter().map(|t| cpu::sum_squares(slice(&on_cpu(t)))).sum()));
    }
    if tensors.is_empty() {
        return Ok(SumSquares::Known(0.0));
    }
    let mut partials: Vec<Tensor<1>> = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let x = on_gpu(tensor);
        let partial = empty_gpu(&x, [PARTIALS]);
        let [rows, columns] = tensor.dims();
        let params = SumSquaresParams { count: size(rows * columns), groups: size(PARTIALS) };
        let tensors = SumSquaresBindings { x: &x, partial_sums: &partial };
        gpu_of(device).run(&SUM_SQUARES, params, tensors, PARTIALS as u64)?;
        partials.push(from_cube(partial));
    }
    Ok(SumSquares::Partials(Tensor::cat(partials, 0)))
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[
    ("adamw", |d| {
        let params = AdamwParams {
            count: 0,
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            bias1: 0.1,
            bias2: 0.001,
            gradient_scale: 0.5,
        };
        let second = matrix(d, 12, 3, 100).powf_scalar(2.0);
        let (p, m, v) = step(d, matrix(d, 9, 3, 100), &matrix(d, 10, 3, 100), matrix(d, 11, 3, 100), second, &params)?;
        Ok(vec![flat(&p), flat(&m), flat(&v)])
    }),
    ("sum_squares", |d| {
        let x = matrix(d, 13, 40, 100);
        // On a GPU partial sums; their sum is what counts.
        match sum_squares(d, &[&x])? {
            SumSquares::Known(sum) => Ok(vec![from_vec(vec![sum as f32], [1])]),
            SumSquares::Partials(partials) => Ok(vec![partials.sum()]),
        }
    }),
];
