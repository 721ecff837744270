//! Frozen matrices as their file stores them, and the f32 scratch that a product reads.

use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_dispatch::{BackendTensor, DispatchTensorKind};
use burn_wgpu::CubeTensor;
use temper_shaders::{DequantizeBindings, DequantizeParams, TypedKernel};

use super::cpu;
use super::launch::size;
use super::tensor::{empty_gpu, from_cube, from_vec, gpu_of};
use crate::device::Device;
use crate::error::Result;
use crate::weights::{RawTensor, Storage};

/// A matrix `[rows, columns]` of 16-bit floats or quantised blocks, on the device or in host memory.
#[derive(Clone)]
pub struct Packed {
    storage: Storage,
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
        Self { storage: raw.storage, rows, columns, bytes }
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
            on_host(part.storage, bytes, here);
            rest = after;
        }
        return Ok(from_vec(out, [rows, columns]));
    }
    let mut tensors = Vec::with_capacity(parts.len());
    for part in parts {
        let Bytes::Device(words) = &part.bytes else { panic!("weights made for the CPU used on a GPU") };
        let count = part.rows * columns;
        let out = empty_gpu(words, [part.rows, columns]);
        let kernel = shader(part.storage);
        let params = DequantizeParams { count: size(count), byte_offset: 0 };
        let bound = DequantizeBindings { packed_words: words, out: &out };
        gpu_of(device).run(kernel, params, bound, kernel.workgroups(1, count as u64))?;
        tensors.push(from_cube(out));
    }
    Ok(if tensors.len() == 1 { tensors.remove(0) } else { Tensor::cat(tensors, 0) })
}

/// The CPU kernel of a storage type.
pub fn on_host(storage: Storage, bytes: &[u8], out: &mut [f32]) {
    match storage {
        Storage::F32 => {
            for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
            }
        }
        Storage::F16 => cpu::dequantize_f16(bytes, out),
        Storage::Bf16 => cpu::dequantize_bf16(bytes, out),
        Storage::Q4_0 => cpu::dequantize_q4_0(bytes, out),
        Storage::Q4_1 => cpu::dequantize_q4_1(bytes, out),
        Storage::Q8_0 => cpu::dequantize_q8_0(bytes, out),
        Storage::Q4K => cpu::dequantize_q4_k(bytes, out),
        Storage::Q6K => cpu::dequantize_q6_k(bytes, out),
    }
}

fn shader(storage: Storage) -> &'static TypedKernel<DequantizeParams, DequantizeBindings> {
    match storage {
        Storage::F32 => panic!("f32 weights are never packed"),
        Storage::F16 => &temper_shaders::DEQUANTIZE_F16,
        Storage::Bf16 => &temper_shaders::DEQUANTIZE_BF16,
        Storage::Q4_0 => &temper_shaders::DEQUANTIZE_Q4_0,
        Storage::Q4_1 => &temper_shaders::DEQUANTIZE_Q4_1,
        Storage::Q8_0 => &temper_shaders::DEQUANTIZE_Q8_0,
        Storage::Q4K => &temper_shaders::DEQUANTIZE_Q4_K,
        Storage::Q6K => &temper_shaders::DEQUANTIZE_Q6_K,
    }
}
