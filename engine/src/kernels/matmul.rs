//! Matrix products in the three layouts that training needs, and on column ranges of fused matrices.
//!
//! On the CPU they call the GEMM on the tensors' own memory, with strides instead of copies; on a GPU they are burn's.

use burn::tensor::Tensor;

use super::cpu::{self, Layout, matmul::Sizes};
use super::tensor::{from_flex, from_vec, into_cpu, on_cpu, slice, slice_mut};
use super::{Columns, elementwise};
use crate::device::Device;
use crate::error::Result;

/// `a [m, k]`, `b [n, k]` -> `a bᵀ [m, n]`.
///
/// # Errors
/// Device errors.
pub fn nt(device: &Device, a: &Tensor<2>, b: &Tensor<2>) -> Result<Tensor<2>> {
    let ([m, k], [n, _]) = (a.dims(), b.dims());
    if !device.is_cpu() {
        return Ok(a.clone().matmul(b.clone().transpose()));
    }
    let (a, b) = (on_cpu(a), on_cpu(b));
    let mut c = vec![0.0; m * n];
    cpu::matmul_nt(slice(&a), slice(&b), Sizes { m, n, k }, 1.0, false, &mut c);
    Ok(from_vec(c, [m, n]))
}

/// `a [m, k]`, `b [k, n]` -> `a b [m, n]`.
///
/// # Errors
/// Device errors.
pub fn nn(device: &Device, a: &Tensor<2>, b: &Tensor<2>) -> Result<Tensor<2>> {
    let ([m, k], [_, n]) = (a.dims(), b.dims());
    if !device.is_cpu() {
        return Ok(a.clone().matmul(b.clone()));
    }
    let (a, b) = (on_cpu(a), on_cpu(b));
    let mut c = vec![0.0; m * n];
    cpu::matmul_nn(slice(&a), slice(&b), Sizes { m, n, k }, 1.0, false, &mut c);
    Ok(from_vec(c, [m, n]))
}

/// `sum [m, n]`, `a [m, k]`, `b [k, n]` -> `sum + a b`.
///
/// # Errors
/// Device errors.
pub fn nn_add(device: &Device, sum: Tensor<2>, a: &Tensor<2>, b: &Tensor<2>) -> Result<Tensor<2>> {
    let ([m, k], [_, n]) = (a.dims(), b.dims());
    if !device.is_cpu() {
        return Ok(sum + a.clone().matmul(b.clone()));
    }
    let (a, b, mut sum) = (on_cpu(a), on_cpu(b), into_cpu(sum));
    cpu::matmul_nn(slice(&a), slice(&b), Sizes { m, n, k }, 1.0, true, slice_mut(&mut sum));
    Ok(from_flex(sum))
}

/// `sum [m, n]` (zero where `None`), `a [k, m]`, `b [k, n]` -> `sum + aᵀ b`.
///
/// # Errors
/// Device errors.
pub fn tn_add(device: &Device, sum: Option<Tensor<2>>, a: &Tensor<2>, b: &Tensor<2>) -> Result<Tensor<2>> {
    let ([k, m], [_, n]) = (a.dims(), b.dims());
    if !device.is_cpu() {
        let product = a.clone().transpose().matmul(b.clone());
        return Ok(match sum {
            Some(sum) => sum + product,
            None => product,
        });
    }
    let (a, b) = (on_cpu(a), on_cpu(b));
    let accumulate = sum.is_some();
    let mut sum = sum.map_or_else(|| into_cpu(from_vec(vec![0.0; m * n], [m, n])), into_cpu);
    cpu::matmul_tn(slice(&a), slice(&b), Sizes { m, n, k }, 1.0, accumulate, slice_mut(&mut sum));
    Ok(from_flex(sum))
}

/// Adds `alpha a bᵀ` to a column range of `y`: `a [m, k]`, `b [width, k]`.
///
/// # Errors
/// Device errors.
pub fn nt_add_columns(
    device: &Device,
    y: Tensor<2>,
    columns: Columns,
    a: &Tensor<2>,
    b: &Tensor<2>,
    alpha: f32,
) -> Result<Tensor<2>> {
    let [rows, width] = y.dims();
    let k = a.dims()[1];
    if !device.is_cpu() {
        let term = (a.clone() * alpha).matmul(b.clone().transpose());
        return elementwise::add_columns(device, y, columns, &term);
    }
    let (a, b, mut y) = (on_cpu(a), on_cpu(b), into_cpu(y));
    let out = &mut slice_mut(&mut y)[columns.offset..];
    let sizes = Sizes { m: rows, n: columns.width, k };
    cpu::matmul(slice(&a), Layout::rows(k), slice(&b), Layout::transposed(k), sizes, alpha, true, out, width);
    Ok(from_flex(y))
}

/// `alpha dy[:, columns] b`: `dy [m, width]`, `b [columns.width, n]` -> `[m, n]`.
///
/// # Errors
/// Device errors.
pub fn nn_columns(device: &Device, dy: &Tensor<2>, columns: Columns, b: &Tensor<2>, alpha: f32) -> Result<Tensor<2>> {
    let ([m, width], n) = (dy.dims(), b.dims()[1]);
    if !device.is_cpu() {
        return Ok(elementwise::columns(device, dy, columns)?.matmul(b.clone()) * alpha);
    }
    let (dy, b) = (on_cpu(dy), on_cpu(b));
    let mut c = vec![0.0; m * n];
    let a = &slice(&dy)[columns.offset..];
    let sizes = Sizes { m, n, k: columns.width };
    cpu::matmul(a, Layout::rows(width), slice(&b), Layout::rows(n), sizes, alpha, false, &mut c, n);
    Ok(from_vec(c, [m, n]))
}

/// `alpha dy[:, columns]ᵀ b`: `dy [m, width]`, `b [m, n]` -> `[columns.width, n]`.
///
/// # Errors
/// Device errors.
pub fn tn_columns(device: &Device, dy: &Tensor<2>, columns: Columns, b: &Tensor<2>, alpha: f32) -> Result<Tensor<2>> {
    let ([m, width], n) = (dy.dims(), b.dims()[1]);
    if !device.is_cpu() {
        return Ok(elementwise::columns(device, dy, columns)?.transpose().matmul(b.clone()) * alpha);
    }
    let (dy, b) = (on_cpu(dy), on_cpu(b));
    let mut c = vec![0.0; columns.width * n];
    let a = &slice(&dy)[columns.offset..];
    let sizes = Sizes { m: columns.width, n, k: m };
    cpu::matmul(a, Layout::transposed(width), slice(&b), Layout::rows(n), sizes, alpha, false, &mut c, n);
    Ok(from_vec(c, [columns.width, n]))
}
