//! Root-mean-square norm and its backward pass: `y = x * scale / sqrt(mean(x²) + epsilon)` (Zhang and Sennrich 2019).

use burn::tensor::Tensor;
use temper_shaders::{
    RMS_NORM, RMS_NORM_BACKWARD, RMS_NORM_SCALE_GRADIENT, RmsNormBackwardBindings, RmsNormBackwardParams,
    RmsNormBindings, RmsNormParams, RmsNormScaleGradientBindings,
};

use super::cpu;
use super::launch::size;
use super::sample::{Case, matrix, vector};
use super::tensor::{empty_gpu, flat, from_cube, from_vec, gpu_of, on_cpu, on_gpu, slice};
use crate::device::Device;
use crate::error::Result;

/// `x [rows, width]`, `scale [width]` -> `y [rows, width]`, reciprocal root mean squares `[rows]`.
///
/// # Errors
/// Device errors.
pub fn forward(device: &Device, x: &Tensor<2>, scale: &Tensor<1>, epsilon: f32) -> Result<(Tensor<2>, Tensor<1>)> {
    let [rows, width] = x.dims();
    let params = RmsNormParams { rows: size(rows), width: size(width), epsilon };
    if device.is_cpu() {
        let (x, scale) = (on_cpu(x), on_cpu(scale));
        let (mut y, mut inverse) = (vec![0.0; rows * width], vec![0.0; rows]);
        cpu::rms_norm(&params, slice(&x), slice(&scale), &mut y, &mut inverse);
        return Ok((from_vec(y, [rows, width]), from_vec(inverse, [rows])));
    }
    let (x, scale) = (on_gpu(x), on_gpu(scale));
    let (y, inverse) = (empty_gpu(&x, [rows, width]), empty_gpu(&x, [rows]));
    let tensors = RmsNormBindings { x: &x, scale: &scale, y: &y, inverse_rms: &inverse };
    gpu_of(device).run(&RMS_NORM, params, tensors, rows as u64)?;
    Ok((from_cube(y), from_cube(inverse)))
}

/// Gradient by `x`, from `dy [rows, width]` and what [`forward`] returned.
///
/// # Errors
/// Device errors.
pub fn backward(
    device: &Device,
    x: &Tensor<2>,
    scale: &Tensor<1>,
    inverse: &Tensor<1>,
    dy: &Tensor<2>,
) -> Result<Tensor<2>> {
    let [rows, width] = x.dims();
    if device.is_cpu() {
        let (x, scale, inverse, dy) = (on_cpu(x), on_cpu(scale), on_cpu(inverse), on_cpu(dy));
        let mut dx = vec![0.0; rows * width];
        cpu::rms_norm_backward(slice(&x), slice(&scale), slice(&inverse), slice(&dy), &mut dx);
        return Ok(from_vec(dx, [rows, width]));
    }
    let (x, scale, inverse, dy) = (on_gpu(x), on_gpu(scale), on_gpu(inverse), on_gpu(dy));
    let dx = empty_gpu(&x, [rows, width]);
    let params = RmsNormBackwardParams { rows: size(rows), width: size(width) };
    let tensors = RmsNormBackwardBindings { x: &x, scale: &scale, inverse_rms: &inverse, dy: &dy, dx: &dx };
    gpu_of(device).run(&RMS_NORM_BACKWARD, params, tensors, rows as u64)?;
    Ok(from_cube(dx))
}

/// Gradient by `scale`, `[width]`.
///
/// # Errors
/// Device errors.
pub fn scale_gradient(device: &Device, x: &Tensor<2>, inverse: &Tensor<1>, dy: &Tensor<2>) -> Result<Tensor<1>> {
    let [rows, width] = x.dims();
    if device.is_cpu() {
        let (x, inverse, dy) = (on_cpu(x), on_cpu(inverse), on_cpu(dy));
        let mut dscale = vec![0.0; width];
        cpu::rms_norm_scale_gradient(slice(&x), slice(&inverse), slice(&dy), &mut dscale);
        return Ok(from_vec(dscale, [width]));
    }
    let (x, inverse, dy) = (on_gpu(x), on_gpu(inverse), on_gpu(dy));
    let dscale = empty_gpu(&x, [width]);
    let params = RmsNormBackwardParams { rows: size(rows), width: size(width) };
    let tensors = RmsNormScaleGradientBindings { x: &x, inverse_rms: &inverse, dy: &dy, dscale: &dscale };
    let groups = RMS_NORM_SCALE_GRADIENT.workgroups(1, width as u64);
    gpu_of(device).run(&RMS_NORM_SCALE_GRADIENT, params, tensors, groups)?;
    Ok(from_cube(dscale))
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[
    ("rms_norm", |d| {
        let (y, inverse) = forward(d, &matrix(d, 1, 5, 70), &vector(d, 2, 70), 1e-5)?;
        Ok(vec![flat(&y), inverse])
    }),
    ("rms_norm_backward", |d| {
        let (x, scale) = (matrix(d, 1, 5, 70), vector(d, 2, 70));
        let inverse = forward(d, &x, &scale, 1e-5)?.1;
        Ok(vec![flat(&backward(d, &x, &scale, &inverse, &matrix(d, 3, 5, 70))?)])
    }),
    ("rms_norm_scale_gradient", |d| {
        let x = matrix(d, 1, 5, 70);
        let inverse = forward(d, &x, &vector(d, 2, 70), 1e-5)?.1;
        Ok(vec![scale_gradient(d, &x, &inverse, &matrix(d, 3, 5, 70))?])
    }),
];
