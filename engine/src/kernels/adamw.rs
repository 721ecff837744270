//! AdamW's update of one matrix in place, and the sums of squares that clipping needs.

use burn::tensor::Tensor;
use temper_shaders::compact::{WEIGHTS_BF16, WEIGHTS_F32, WEIGHTS_SPLIT};
use temper_shaders::{
    ADAMW, ADAMW_COMPACT, AdamwBindings, AdamwCompactBindings, SUM_SQUARES, SumSquaresBindings, SumSquaresParams,
};

use super::Words;
use super::compact::{Bf16, Coded, Moments, Weights};
use super::cpu;
use super::cpu::adamw::{MomentsMut, WeightsMut};
use super::launch::size;
use super::sample::{Case, matrix};
use super::tensor::{
    empty, empty_gpu, flat, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, joined, on_cpu, on_gpu, read,
    slice, slice_mut,
};
use crate::device::Device;
use crate::error::Result;

pub use temper_shaders::{AdamwCompactParams, AdamwParams};

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

/// The same step on weights in bf16, on moments in 8 bits, or on both; `params` need not say how these are held. Each is
/// given back as it was held.
///
/// # Errors
/// Device errors.
pub fn step_compact(
    device: &Device,
    weights: Weights,
    gradient: &Tensor<2>,
    moments: Moments,
    params: &AdamwCompactParams,
) -> Result<(Weights, Moments)> {
    match device.is_cpu() {
        true => Ok(compact_on_cpu(weights, gradient, moments, params)),
        false => compact_on_gpu(device, weights, gradient, moments, params),
    }
}

fn compact_on_cpu(
    weights: Weights,
    gradient: &Tensor<2>,
    moments: Moments,
    params: &AdamwCompactParams,
) -> (Weights, Moments) {
    let gradient = on_cpu(gradient);
    // Moved out of their tensors, so that these find themselves the sole owners and are written in place.
    let (mut value, mut matrix) = match weights {
        Weights::F32(value) => (Some(into_cpu(value)), None),
        Weights::Bf16(matrix) => (None, Some(matrix)),
    };
    let (mut single, mut coded) = match moments {
        Moments::F32(first, second) => (Some([into_cpu(first), into_cpu(second)]), None),
        Moments::Coded(both) => {
            let [(first, a), (second, b)] = both.map(|Coded { codes, scales }| (codes, into_cpu(scales)));
            (None, Some(([first, second], [a, b])))
        }
    };
    let held = match (&mut value, &mut matrix) {
        (Some(value), _) => WeightsMut::F32(slice_mut(value)),
        (None, Some(Bf16 { upper, lower: None, .. })) => WeightsMut::Bf16(upper.host_mut()),
        (None, Some(Bf16 { upper, lower: Some(lower), .. })) => WeightsMut::Split(upper.host_mut(), lower.host_mut()),
        (None, None) => unreachable!("weights are the one or the other"),
    };
    let both = match (&mut single, &mut coded) {
        (Some(both), _) => MomentsMut::F32(both.each_mut().map(slice_mut)),
        (None, Some((codes, scales))) => {
            MomentsMut::Coded(codes.each_mut().map(Words::host_mut), scales.each_mut().map(slice_mut))
        }
        (None, None) => unreachable!("moments are the one or the other"),
    };
    cpu::adamw_compact(params, held, slice(&gradient), both);
    let weights = match (value, matrix) {
        (None, Some(matrix)) => Weights::Bf16(matrix),
        (value, _) => Weights::F32(from_flex(value.expect("weights are the one or the other"))),
    };
    let moments = match (single, coded) {
        (Some([first, second]), _) => Moments::F32(from_flex(first), from_flex(second)),
        (None, coded) => {
            let ([first, second], [a, b]) = coded.expect("moments are the one or the other");
            let back = |(codes, scales)| Coded { codes, scales: from_flex(scales) };
            Moments::Coded([(first, a), (second, b)].map(back))
        }
    };
    (weights, moments)
}

fn compact_on_gpu(
    device: &Device,
    mut weights: Weights,
    gradient: &Tensor<2>,
    mut moments: Moments,
    params: &AdamwCompactParams,
) -> Result<(Weights, Moments)> {
    let [rows, columns] = weights.dims();
    let gradient = on_gpu(gradient);
    // What a kind has not is bound all the same, and nobody looks at it.
    let nothing = || empty_gpu(&gradient, [1]);
    let (kind, parameter, low_halves) = match &mut weights {
        Weights::F32(value) => {
            let own = into_gpu(std::mem::replace(value, empty(device, [1, 1])));
            *value = from_cube(own.clone());
            (WEIGHTS_F32, own, nothing())
        }
        Weights::Bf16(Bf16 { upper, lower: None, .. }) => (WEIGHTS_BF16, upper.gpu_mut().clone(), nothing()),
        Weights::Bf16(Bf16 { upper, lower: Some(lower), .. }) => {
            (WEIGHTS_SPLIT, upper.gpu_mut().clone(), lower.gpu_mut().clone())
        }
    };
    let (coded, [first, second], [first_scale, second_scale]) = match &mut moments {
        Moments::F32(first, second) => {
            let both = [first, second].map(|moment| {
                let own = into_gpu(std::mem::replace(moment, empty(device, [1, 1])));
                *moment = from_cube(own.clone());
                own
            });
            (0, both, [nothing(), nothing()])
        }
        Moments::Coded(both) => {
            let codes = both.each_mut().map(|coded| coded.codes.gpu_mut().clone());
            let scales = both.each_mut().map(|coded| {
                let own = into_gpu(std::mem::replace(&mut coded.scales, empty(device, [1])));
                coded.scales = from_cube(own.clone());
                own
            });
            (1, codes, scales)
        }
    };
    let params = AdamwCompactParams { count: size(rows * columns), weights: kind, coded, ..*params };
    let tensors = AdamwCompactBindings {
        parameter: &parameter,
        low_halves: &low_halves,
        gradient: &gradient,
        first_moment: &first,
        second_moment: &second,
        first_scale: &first_scale,
        second_scale: &second_scale,
    };
    gpu_of(device).run(&ADAMW_COMPACT, params, tensors, ADAMW_COMPACT.workgroups(1, (rows * columns) as u64))?;
    Ok((weights, moments))
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

    /// Several as one, added in their order.
    pub fn joined(parts: Vec<Self>) -> Self {
        let (mut known, mut partials) = (0.0, Vec::new());
        for part in parts {
            match part {
                Self::Known(sum) => known += sum,
                Self::Partials(of_one) => partials.push(of_one),
            }
        }
        if partials.is_empty() { Self::Known(known) } else { Self::Partials(joined(partials, 0)) }
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
    Ok(SumSquares::Partials(joined(partials, 0)))
}

/// The step of the self-test.
const SAMPLE: AdamwParams = AdamwParams {
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

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[
    ("adamw", |d| {
        let second = matrix(d, 12, 3, 100).powf_scalar(2.0);
        let (p, m, v) = step(d, matrix(d, 9, 3, 100), &matrix(d, 10, 3, 100), matrix(d, 11, 3, 100), second, &SAMPLE)?;
        Ok(vec![flat(&p), flat(&m), flat(&v)])
    }),
    ("adamw_compact", |d| {
        // Equal numbers, each its block's largest: no device's own rounding tips what chance decides.
        let ones = Tensor::<2>::ones([3, 100], d.burn());
        let halves = |half: u16| Words::new(d, half.to_le_bytes().repeat(300));
        let weights = Bf16::new(halves(0x3f80), Some(halves(0)), [3, 100]);
        let zeros = Moments::zeros(d, [3, 100], true);
        let (weights, moments) = step_compact(d, Weights::Bf16(weights), &ones, zeros, &SAMPLE.compact(1 | 2 << 32))?;
        match (weights, moments) {
            (Weights::Bf16(matrix), Moments::Coded([first, second])) => {
                Ok(vec![flat(&matrix.packed().dense(d)?), first.scales, second.scales])
            }
            _ => unreachable!("each stays as it is held"),
        }
    }),
    ("sum_squares", |d| {
        let x = matrix(d, 13, 40, 100);
        // On a GPU partial sums; their sum is what counts.
        match sum_squares(d, &[&x])? {
            SumSquares::Known(sum) => Ok(vec![from_vec(vec![sum as f32], [1])]),
            SumSquares::Partials(partials) => {
                d.submit();
                Ok(vec![partials.sum()])
            }
        }
    }),
];
