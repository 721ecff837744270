//! Frozen matrices as their file stores them, and the f32 scratch that a product reads.

use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_dispatch::{BackendTensor, DispatchTensorKind};
use burn_wgpu::CubeTensor;
use temper_shaders::formats::{DequantizeBindings, DequantizeParams};

use super::launch::size;
use super::tensor::{empty_gpu, flat, from_cube, from_vec, gpu_of};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::weights::{RawTensor, WeightFormat};

/// A matrix `[rows, columns]` of 16-bit floats or quantised blocks, on the device or in host memory.
#[derive(Clone)]
pub struct Packed {
    format: WeightFormat,
    rows: usize,
    columns: usize,
    bytes: Bytes,
}

#[derive(Clone)]
enum Bytes {
    Host(Arc<Vec<u8>>),
    /// Little-endian words, the last one padded.
    Device(CubeTensor),
}

impl Packed {
    /// Takes the bytes of a matrix that has `columns` inputs.
    pub fn new(device: &Device, raw: RawTensor, columns: usize) -> Self {
        let rows = raw.shape.iter().product::<usize>() / columns;
        let bytes = if device.is_cpu() {
            Bytes::Host(Arc::new(raw.bytes))
        } else {
            let mut bytes = raw.bytes;
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let words: Vec<i32> =
                bytes.chunks_exact(4).map(|w| i32::from_le_bytes(w.try_into().expect("four bytes"))).collect();
            let shape = [words.len()];
            let tensor = Tensor::<1, Int>::from_data(TensorData::new(words, shape), (device.burn(), DType::I32));
            match tensor.into_dispatch().kind {
                DispatchTensorKind::Cube(BackendTensor::Int(tensor)) => Bytes::Device(tensor),
                _ => panic!("a GPU device made a tensor elsewhere"),
            }
        };
        Self { format: raw.format, rows, columns, bytes }
    }

    /// Inputs of the matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Outputs of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// The parts, one below the other, in f32: `[sum of rows, columns]`.
///
/// # Errors
/// Device errors.
pub fn dense(device: &Device, parts: &[Packed]) -> Result<Tensor<2>> {
    let columns = parts[0].columns;
    if device.is_cpu() {
        let rows: usize = parts.iter().map(|p| p.rows).sum();
        let mut out = vec![0.0; rows * columns];
        let mut rest = out.as_mut_slice();
        for part in parts {
            let (here, after) = rest.split_at_mut(part.rows * columns);
            let Bytes::Host(bytes) = &part.bytes else { panic!("weights made for a GPU used on the CPU") };
            part.format.expand(bytes, here);
            rest = after;
        }
        return Ok(from_vec(out, [rows, columns]));
    }
    let mut tensors = Vec::with_capacity(parts.len());
    for part in parts {
        let Bytes::Device(words) = &part.bytes else { panic!("weights made for the CPU used on a GPU") };
        let count = part.rows * columns;
        let out = empty_gpu(words, [part.rows, columns]);
        let kernel = &part.format.kernels().expect("f32 weights are never packed").dequantize;
        let params = DequantizeParams { count: size(count) };
        let bound = DequantizeBindings { packed_words: words, out: &out };
        gpu_of(device).run(kernel, params, bound, kernel.workgroups(1, count as u64))?;
        tensors.push(from_cube(out));
    }
    Ok(if tensors.len() == 1 { tensors.remove(0) } else { Tensor::cat(tensors, 0) })
}

/// The self-test: blocks of a format.
///
/// # Errors
/// Device errors.
pub(crate) fn self_test(device: &Device, format: WeightFormat) -> Result<Vec<Tensor<1>>> {
    let (rows, columns) = (3, 512);
    let bytes =
        format.bytes_for(rows * columns).ok_or_else(|| Error::Unsupported { problem: "a probe's shape".into() })?;
    let mut rng = Rng::new(25);
    let mut bytes: Vec<u8> = (0..bytes).map(|_| (rng.next_u64() & 0xff) as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        // The exponents are kept small.
        format.halves().iter().for_each(|at| block[at + 1] = 0x2c | block[at + 1] & 0x83);
    }
    let raw = RawTensor { name: "probe".into(), shape: vec![rows, columns], format, bytes };
    Ok(vec![flat(&dense(device, &[Packed::new(device, raw, columns)])?)])
}
