//! Small operations on whole matrices: bias, dropout, column ranges, rows by index.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use temper_shaders::{
    ADD_BIAS, AddBiasBindings, AddBiasParams, COPY_COLUMNS, CopyColumnsBindings, CopyColumnsParams, DROPOUT,
    DropoutBindings, DropoutParams,
};

use super::launch::size;
use super::sample::{Case, matrix, vector};
use super::tensor::{
    empty_gpu, flat, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice, slice_mut,
};
use super::{Columns, cpu};
use crate::device::Device;
use crate::error::Result;

/// `x [rows, width] + bias [width]`.
///
/// # Errors
/// Device errors.
pub fn add_bias(device: &Device, x: Tensor<2>, bias: &Tensor<1>) -> Result<Tensor<2>> {
    let [rows, width] = x.dims();
    if device.is_cpu() {
        let (mut x, bias) = (into_cpu(x), on_cpu(bias));
        cpu::add_bias(slice_mut(&mut x), slice(&bias));
        return Ok(from_flex(x));
    }
    let (x, bias) = (into_gpu(x), on_gpu(bias));
    let params = AddBiasParams { rows: size(rows), width: size(width) };
    let tensors = AddBiasBindings { x: &x, bias: &bias };
    gpu_of(device).run(&ADD_BIAS, params, tensors, ADD_BIAS.workgroups(rows as u64, width as u64))?;
    Ok(from_cube(x))
}

/// `x + y`, of one shape.
///
/// # Errors
/// Device errors.
pub fn add(device: &Device, x: &Tensor<2>, y: Tensor<2>) -> Result<Tensor<2>> {
    if device.is_cpu() {
        return Ok(x.clone() + y);
    }
    let whole = Columns { offset: 0, width: x.dims()[1] };
    add_columns(device, y, whole, x)
}

/// Inverted dropout: each value is kept with probability `keep` and divided by it, else 0. The mask is a function of
/// `seed` and the position alone, so the backward pass makes it again.
///
/// # Errors
/// Device errors.
pub fn dropout(device: &Device, x: &Tensor<2>, seed: u64, keep: f32) -> Result<Tensor<2>> {
    let [rows, width] = x.dims();
    let params = DropoutParams {
        count: size(rows * width),
        seed_low: seed as u32,
        seed_high: (seed >> 32) as u32,
        keep_probability: keep,
    };
    if device.is_cpu() {
        let x = on_cpu(x);
        let mut y = vec![0.0; rows * width];
        cpu::dropout(&params, slice(&x), &mut y);
        return Ok(from_vec(y, [rows, width]));
    }
    let x = on_gpu(x);
    let y = empty_gpu(&x, [rows, width]);
    let tensors = DropoutBindings { x: &x, y: &y };
    gpu_of(device).run(&DROPOUT, params, tensors, DROPOUT.workgroups(rows as u64, width as u64))?;
    Ok(from_cube(y))
}

/// A contiguous copy of a column range, `[rows, columns.width]`.
///
/// # Errors
/// Device errors.
pub fn columns(device: &Device, x: &Tensor<2>, columns: Columns) -> Result<Tensor<2>> {
    let rows = x.dims()[0];
    let target = if device.is_cpu() {
        from_vec(vec![0.0; rows * columns.width], [rows, columns.width])
    } else {
        from_cube(empty_gpu(&on_gpu(x), [rows, columns.width]))
    };
    copy(device, x, columns.offset, target, Columns { offset: 0, width: columns.width }, false)
}

/// `target` with a column range replaced by `values [rows, columns.width]`.
///
/// # Errors
/// Device errors.
pub fn set_columns(device: &Device, target: Tensor<2>, columns: Columns, values: &Tensor<2>) -> Result<Tensor<2>> {
    copy(device, values, 0, target, columns, false)
}

/// `target` with `values [rows, columns.width]` added to a column range.
///
/// # Errors
/// Device errors.
pub fn add_columns(device: &Device, target: Tensor<2>, columns: Columns, values: &Tensor<2>) -> Result<Tensor<2>> {
    copy(device, values, 0, target, columns, true)
}

fn copy(
    device: &Device,
    source: &Tensor<2>,
    source_offset: usize,
    target: Tensor<2>,
    columns: Columns,
    accumulate: bool,
) -> Result<Tensor<2>> {
    let ([rows, source_stride], [_, target_stride]) = (source.dims(), target.dims());
    let params = CopyColumnsParams {
        rows: size(rows),
        source_stride: size(source_stride),
        source_offset: size(source_offset),
        target_stride: size(target_stride),
        target_offset: size(columns.offset),
        width: size(columns.width),
        accumulate: u32::from(accumulate),
    };
    if device.is_cpu() {
        let (source, mut target) = (on_cpu(source), into_cpu(target));
        cpu::copy_columns(&params, slice(&source), slice_mut(&mut target));
        return Ok(from_flex(target));
    }
    let (source, target) = (on_gpu(source), into_gpu(target));
    let tensors = CopyColumnsBindings { source_values: &source, target_values: &target };
    let groups = COPY_COLUMNS.workgroups(rows as u64, columns.width as u64);
    gpu_of(device).run(&COPY_COLUMNS, params, tensors, groups)?;
    Ok(from_cube(target))
}

/// Rows `indices - start` of `matrix [rows, width]`; zero rows where an index lies outside.
///
/// # Errors
/// Device errors.
pub fn gather_rows(device: &Device, matrix: &Tensor<2>, indices: &[u32], start: usize) -> Result<Tensor<2>> {
    let [rows, width] = matrix.dims();
    if device.is_cpu() {
        let matrix = on_cpu(matrix);
        let values = slice(&matrix);
        let mut out = vec![0.0; indices.len() * width];
        for (out, &index) in out.chunks_exact_mut(width).zip(indices) {
            if let Some(row) = (index as usize).checked_sub(start).filter(|&row| row < rows) {
                out.copy_from_slice(&values[row * width..][..width]);
            }
        }
        return Ok(from_vec(out, [indices.len(), width]));
    }
    let (local, inside) = localise(indices, start, rows);
    let selected = matrix.clone().select(0, device_indices(device, &local));
    Ok(if inside.iter().all(|&x| x == 1.0) { selected } else { selected * column(device, inside) })
}

/// `sum [rows, width]` with `values [indices, width]` added to rows `indices - start`; those outside are left out.
///
/// # Errors
/// Device errors.
pub fn scatter_add_rows(
    device: &Device,
    sum: Tensor<2>,
    indices: &[u32],
    start: usize,
    values: &Tensor<2>,
) -> Result<Tensor<2>> {
    let [rows, width] = sum.dims();
    if device.is_cpu() {
        let (mut sum, values) = (into_cpu(sum), on_cpu(values));
        let (target, values) = (slice_mut(&mut sum), slice(&values));
        for (value, &index) in values.chunks_exact(width).zip(indices) {
            if let Some(row) = (index as usize).checked_sub(start).filter(|&row| row < rows) {
                for (target, value) in target[row * width..][..width].iter_mut().zip(value) {
                    *target += value;
                }
            }
        }
        return Ok(from_flex(sum));
    }
    let (local, inside) = localise(indices, start, rows);
    let values =
        if inside.iter().all(|&x| x == 1.0) { values.clone() } else { values.clone() * column(device, inside) };
    Ok(sum.select_assign(0, device_indices(device, &local), values, IndexingUpdateOp::Add))
}

/// Row numbers within a tile (0 where outside) and 1 or 0 for inside or outside.
fn localise(indices: &[u32], start: usize, rows: usize) -> (Vec<i32>, Vec<f32>) {
    indices
        .iter()
        .map(|&index| match (index as usize).checked_sub(start).filter(|&row| row < rows) {
            Some(row) => (row as i32, 1.0),
            None => (0, 0.0),
        })
        .unzip()
}

fn device_indices(device: &Device, local: &[i32]) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(local.to_vec(), [local.len()]), device.burn())
}

fn column(device: &Device, values: Vec<f32>) -> Tensor<2> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n, 1]), device.burn())
}

/// The self-test; `gather_rows` stands for what burn computes.
pub(crate) const SELF_TEST: &[Case] = &[
    ("dropout", |d| Ok(vec![flat(&dropout(d, &matrix(d, 14, 6, 60), 42, 0.75)?)])),
    ("add_bias", |d| Ok(vec![flat(&add_bias(d, matrix(d, 15, 6, 60), &vector(d, 16, 60))?)])),
    ("copy_columns", |d| {
        let range = Columns { offset: 7, width: 20 };
        let taken = columns(d, &matrix(d, 17, 6, 60), range)?;
        Ok(vec![flat(&add_columns(d, matrix(d, 18, 6, 60), range, &taken)?)])
    }),
    ("gather_rows", |d| {
        let rows = gather_rows(d, &matrix(d, 22, 10, 33), &[0, 9, 4, 4], 0)?;
        Ok(vec![flat(&scatter_add_rows(d, matrix(d, 23, 6, 33), &[1, 1, 5, 0], 0, &rows)?)])
    }),
];
