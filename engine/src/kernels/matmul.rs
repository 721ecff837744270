//! Matrix products in the three layouts that training needs, and on column ranges of fused matrices.
//!
//! On the CPU they call the GEMM on the tensors' own memory, with strides instead of copies. On a hardware GPU they are
//! burn's; on a software adapter a WGSL kernel with strides.

use burn::tensor::Tensor;

use super::cpu::{self, Layout, matmul::Sizes};
use super::tensor::{
    empty_gpu, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice, slice_mut,
};
use super::{Columns, elementwise};
use crate::device::Device;
use crate::error::Result;

/// `a [m, k]`, `b [n, k]` -> `a bᵀ [m, n]`.
///
/// # Errors
/// Device errors.
pub fn nt(device: &Device, a: &Tensor<2>, b: &Tensor<2>) -> Result<Tensor<2>> {
    let ([m, k], [n, _]) = (a.dims(), b.dims());
    if device.own_products() {
        return product(device, None, [m, n], 0, Operand::rows(a), Operand::transposed(b), 1, k, 1.0);
    }
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
    if device.own_products() {
        return product(device, None, [m, n], 0, Operand::rows(a), Operand::rows(b), 1, k, 1.0);
    }
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
    if device.own_products() {
        return product(device, Some(sum), [m, n], 0, Operand::rows(a), Operand::rows(b), 1, k, 1.0);
    }
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
    if device.own_products() {
        return product(device, sum, [m, n], 0, Operand::transposed(a), Operand::rows(b), 1, k, 1.0);
    }
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
    if device.own_products() {
        let (left, right) = (Operand::rows(a), Operand::transposed(b));
        return product(device, Some(y), [rows, columns.width], columns.offset, left, right, 1, k, alpha);
    }
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
    if device.own_products() {
        let left = Operand { offset: columns.offset, ..Operand::rows(dy) };
        return product(device, None, [m, n], 0, left, Operand::rows(b), 1, columns.width, alpha);
    }
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
    if device.own_products() {
        let left = Operand { offset: columns.offset, ..Operand::transposed(dy) };
        return product(device, None, [columns.width, n], 0, left, Operand::rows(b), 1, m, alpha);
    }
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

/// `a [g, m, k]`, `b [g, k, n]` -> `a b [g, m, n]`, each transposed in its last two dimensions where its flag says so. Only
/// for GPUs: on the CPU attention has a kernel of its own.
///
/// # Errors
/// Device errors.
pub fn batched(
    device: &Device,
    a: &Tensor<3>,
    a_transposed: bool,
    b: &Tensor<3>,
    b_transposed: bool,
) -> Result<Tensor<3>> {
    let turned = |x: &Tensor<3>, transposed: bool| if transposed { x.clone().transpose() } else { x.clone() };
    if !device.own_products() {
        return Ok(turned(a, a_transposed).matmul(turned(b, b_transposed)));
    }
    let [batches, m, k] = turned(a, a_transposed).dims();
    let n = turned(b, b_transposed).dims()[2];
    let operand = |x: &Tensor<3>, transposed: bool| {
        let [batches, rows, columns] = x.dims();
        let flat = x.clone().reshape([batches * rows, columns]);
        let operand = if transposed { Operand::transposed(&flat) } else { Operand::rows(&flat) };
        Operand { batch: rows * columns, ..operand }
    };
    let (left, right) = (operand(a, a_transposed), operand(b, b_transposed));
    let flat = product(device, None, [m, n], 0, left, right, batches, k, 1.0)?;
    Ok(flat.reshape([batches, m, n]))
}

/// How the WGSL kernel walks a matrix: element (i, j) of batch g is at `offset + g batch + i row + j column`.
struct Operand {
    tensor: Tensor<2>,
    offset: usize,
    batch: usize,
    row: usize,
    column: usize,
}

impl Operand {
    /// The tensor as it is.
    fn rows(tensor: &Tensor<2>) -> Self {
        let row = tensor.dims()[1];
        Self { tensor: tensor.clone(), offset: 0, batch: 0, row, column: 1 }
    }

    /// Its transpose.
    fn transposed(tensor: &Tensor<2>) -> Self {
        let column = tensor.dims()[1];
        Self { tensor: tensor.clone(), offset: 0, batch: 0, row: 1, column }
    }
}

/// The WGSL product, `[batches * rows, columns]`; or added to the columns of `sum` from `to_column` on.
#[allow(clippy::too_many_arguments, reason = "what the binding table lists")]
fn product(
    device: &Device,
    sum: Option<Tensor<2>>,
    [rows, columns]: [usize; 2],
    to_column: usize,
    left: Operand,
    right: Operand,
    batches: usize,
    inner: usize,
    alpha: f32,
) -> Result<Tensor<2>> {
    let accumulate = sum.is_some();
    let (a, b) = (on_gpu(&left.tensor), on_gpu(&right.tensor));
    let width = sum.as_ref().map_or(columns, |sum| sum.dims()[1]);
    let target = match sum {
        Some(sum) => into_gpu(sum),
        None => empty_gpu(&a, [batches * rows, columns]),
    };
    let kernel = &temper_shaders::MATMUL;
    let params = [
        rows.into(),
        columns.into(),
        inner.into(),
        batches.into(),
        left.offset.into(),
        left.batch.into(),
        left.row.into(),
        left.column.into(),
        right.offset.into(),
        right.batch.into(),
        right.row.into(),
        right.column.into(),
        to_column.into(),
        (rows * columns).into(),
        width.into(),
        accumulate.into(),
        alpha.into(),
    ];
    let groups = batches as u64 * kernel.workgroups(rows as u64, columns as u64);
    gpu_of(device).run(kernel, &params, &[&a, &b, &target], groups)?;
    Ok(from_cube(target))
}
