//! Where a tensor's numbers lie: host slices on the CPU backend, wgpu buffers on a GPU.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Device as BurnDevice, Int, Shape, Tensor, TensorData, Transaction};
use burn_dispatch::{BackendTensor, DispatchTensorKind};
use burn_flex::{Flex, FlexTensor};
use burn_wgpu::{CubeBackend, CubeTensor};

use super::launch::Gpu;
use super::record::{Recorder, submit_all};
use crate::device::Device;
use crate::error::{Error, Result};

/// A tensor's backend primitive, contiguous.
pub enum Primitive {
    /// Host memory.
    Cpu(FlexTensor),
    /// Device memory.
    Gpu(CubeTensor),
}

/// The primitive of a plain (not autodiff) tensor, made contiguous where it is not.
pub fn primitive<const D: usize>(tensor: Tensor<D>) -> Primitive {
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Float(t)) => Primitive::Cpu(contiguous_cpu(t)),
        DispatchTensorKind::Cube(BackendTensor::Float(t)) if t.is_contiguous() => Primitive::Gpu(t),
        DispatchTensorKind::Cube(BackendTensor::Float(t)) => {
            submit_all();
            Primitive::Gpu(burn_cubecl::kernel::into_contiguous(t))
        }
        other => panic!("a kernel was given a tensor that is not a plain float tensor: {}", other_name(&other)),
    }
}

fn contiguous_cpu(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

fn other_name(kind: &DispatchTensorKind) -> &'static str {
    match kind {
        DispatchTensorKind::Flex(t) => t.name(),
        DispatchTensorKind::Cube(t) => t.name(),
        #[cfg(not(target_family = "wasm"))]
        DispatchTensorKind::Autodiff(_) => "autodiff",
    }
}

/// Host memory of a tensor on the CPU backend.
///
/// # Panics
/// On a GPU tensor: a bug, since callers branch on the device.
pub fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> FlexTensor {
    match primitive(tensor.clone()) {
        Primitive::Cpu(t) => t,
        Primitive::Gpu(_) => panic!("a CPU kernel was given a GPU tensor"),
    }
}

/// As [`on_cpu`], taking the tensor so that a sole owner can be written in place.
pub fn into_cpu<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    match primitive(tensor) {
        Primitive::Cpu(t) => t,
        Primitive::Gpu(_) => panic!("a CPU kernel was given a GPU tensor"),
    }
}

/// Device memory of a tensor on a GPU.
///
/// # Panics
/// On a CPU tensor: a bug, since callers branch on the device.
pub fn on_gpu<const D: usize>(tensor: &Tensor<D>) -> CubeTensor {
    match primitive(tensor.clone()) {
        Primitive::Gpu(t) => t,
        Primitive::Cpu(_) => panic!("a GPU kernel was given a CPU tensor"),
    }
}

/// As [`on_gpu`], for a tensor that a kernel will overwrite: copied first where others share its memory.
pub fn into_gpu<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    match primitive(tensor) {
        Primitive::Gpu(t) if t.handle.can_mut() => t,
        Primitive::Gpu(t) => {
            submit_all();
            t.copy()
        }
        Primitive::Cpu(_) => panic!("a GPU kernel was given a CPU tensor"),
    }
}

/// Slice of a contiguous f32 host tensor.
pub fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("contiguous f32")
}

/// Mutable slice of a contiguous f32 host tensor; copied first where others share its memory.
pub fn slice_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    // Slices may share an oversized buffer; then only a compact copy is ours to write.
    let count = tensor.layout().num_elements();
    if tensor.layout().start_offset() != 0 || tensor.bytes().len() != count * size_of::<f32>() {
        let values = slice(tensor).to_vec();
        *tensor = FlexTensor::from_data(TensorData::new(values, tensor.layout().shape().clone()));
    }
    tensor.storage_mut::<f32>()
}

/// A host tensor as an engine tensor.
pub fn from_flex<const D: usize>(tensor: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(tensor)
}

/// A tensor from host values on the CPU backend.
pub fn from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    from_flex(FlexTensor::from_data(TensorData::new(values, Shape::from(shape))))
}

/// A device tensor as an engine tensor.
pub fn from_cube<const D: usize>(tensor: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<CubeBackend>(tensor)
}

/// Uninitialised contiguous f32 memory on the device of `like`.
pub fn empty_gpu<const D: usize>(like: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    let bytes = shape.iter().product::<usize>() * size_of::<f32>();
    let handle = like.client.empty(bytes.max(size_of::<f32>()));
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), Shape::from(shape), handle, DType::F32)
}

/// Memory of a device, to be written: zeros on the CPU, anything on a GPU.
pub fn empty<const D: usize>(device: &Device, shape: [usize; D]) -> Tensor<D> {
    match device.is_cpu() {
        true => from_vec(vec![0.0; shape.iter().product()], shape),
        // Nothing is computed or written for it, so nothing has to be submitted before.
        false => Tensor::empty(shape, device.burn_for_memory()),
    }
}

/// Tensors one behind the other along a dimension. burn joins them, so what of them is recorded is submitted first.
pub fn joined<const D: usize>(mut parts: Vec<Tensor<D>>, along: usize) -> Tensor<D> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    submit_all();
    Tensor::cat(parts, along)
}

/// Some rows of a matrix. burn cuts them out, so what of it is recorded is submitted first.
pub fn rows(matrix: &Tensor<2>, rows: Range<usize>) -> Tensor<2> {
    if rows == (0..matrix.dims()[0]) {
        return matrix.clone();
    }
    submit_all();
    matrix.clone().slice(rows)
}

/// The launch layer of a device that is known to be a GPU.
pub fn gpu_of(device: &Device) -> &Gpu {
    device.gpu().expect("a GPU tensor on the CPU device")
}

/// Host copy of a tensor's values. In a browser, where waiting must not block, the only way to get them.
///
/// # Errors
/// [`Error::Lost`].
pub async fn read<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    let data = answer(&tensor.device(), || tensor.clone().into_data_async()).await?;
    data.try_into_vec::<f32>().map_err(|e| lost(format!("{e:?}")))
}

/// Host copies of several tensors' values, with one wait for all of a device.
///
/// # Errors
/// [`Error::Lost`].
pub async fn read_all(tensors: Vec<Tensor<1>>) -> Result<Vec<Vec<f32>>> {
    let mut all = vec![Vec::new(); tensors.len()];
    let mut left: Vec<(usize, Tensor<1>)> = tensors.into_iter().enumerate().collect();
    while let Some(device) = left.first().map(|(_, tensor)| tensor.device()) {
        let (here, elsewhere): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, tensor)| tensor.device() == device);
        let (places, own): (Vec<usize>, Vec<Tensor<1>>) = here.into_iter().unzip();
        let transaction = own.into_iter().fold(Transaction::default(), Transaction::register);
        let read = answer(&device, || transaction.execute_async()).await?;
        for (place, data) in places.into_iter().zip(read) {
            all[place] = data.try_into_vec::<f32>().map_err(|e| lost(format!("{e:?}")))?;
        }
        left = elsewhere;
    }
    Ok(all)
}

/// What comes of asking a device for something, once all that this thread recorded is submitted.
///
/// # Errors
/// [`Error::Lost`].
pub(super) async fn answer<T, E: Debug, A>(device: &BurnDevice, ask: impl FnOnce() -> A) -> Result<T>
where
    A: Future<Output = std::result::Result<T, E>>,
{
    submit_all();
    let asked = async { ask().await.map_err(|e| lost(format!("{e:?}"))) };
    match Recorder::known(device) {
        Some(recorder) => recorder.answer(asked).await,
        None => asked.await,
    }
}

/// A matrix that waits in the host's memory. A clone shares it.
#[derive(Clone)]
pub struct OnHost {
    values: Arc<Vec<f32>>,
    shape: [usize; 2],
}

impl OnHost {
    /// Reads a device's matrix.
    ///
    /// # Errors
    /// [`Error::Lost`]; in a browser always, where reading cannot be waited for.
    pub fn of(tensor: &Tensor<2>) -> Result<Self> {
        #[cfg(not(target_family = "wasm"))]
        return Ok(Self { values: Arc::new(pollster::block_on(read(tensor))?), shape: tensor.dims() });
        #[cfg(target_family = "wasm")]
        return Err(Error::Device { problem: format!("a browser does not wait for {:?} numbers", tensor.dims()) });
    }

    /// The same matrix on a device. Values that nobody shares are not copied on the way.
    pub fn onto(self, device: &Device) -> Tensor<2> {
        let values = Arc::try_unwrap(self.values).unwrap_or_else(|shared| shared.to_vec());
        Tensor::from_data(TensorData::new(values, self.shape), device.burn())
    }
}

/// A matrix of one device on another one, by way of the host.
///
/// # Errors
/// As [`OnHost::of`].
pub fn moved(tensor: Tensor<2>, to: &Device) -> Result<Tensor<2>> {
    let values = OnHost::of(&tensor)?;
    drop(tensor);
    Ok(values.onto(to))
}

/// A tensor's elements in order, for [`read_all`].
pub fn flat<const D: usize>(tensor: &Tensor<D>) -> Tensor<1> {
    let count = tensor.dims().iter().product::<usize>();
    tensor.clone().reshape([count])
}

fn lost(problem: String) -> Error {
    Error::Lost { problem: format!("reading results back failed: {problem}") }
}

/// Words in burn's pool on a GPU.
///
/// # Panics
/// On the CPU: a bug, since callers branch on the device.
pub(super) fn upload(device: &Device, words: Vec<i32>) -> CubeTensor {
    let shape = [words.len()];
    let tensor = Tensor::<1, Int>::from_data(TensorData::new(words, shape), (device.burn(), DType::I32));
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Int(tensor)) => tensor,
        _ => panic!("a GPU device made a tensor elsewhere"),
    }
}

/// Unsigned indices (labels, positions) that kernels read: kept on the host, and on the device where there is one.
#[derive(Clone)]
pub struct Indices {
    host: Vec<u32>,
    device: Option<CubeTensor>,
}

impl Indices {
    /// Uploads `values` where `device` is a GPU.
    pub fn new(device: &Device, values: Vec<u32>) -> Self {
        let uploaded = device.gpu().map(|_| upload(device, values.iter().map(|&v| v as i32).collect()));
        Self { host: values, device: uploaded }
    }

    /// Host values.
    pub fn host(&self) -> &[u32] {
        &self.host
    }

    /// Number of indices.
    pub fn len(&self) -> usize {
        self.host.len()
    }

    /// True without any index.
    pub fn is_empty(&self) -> bool {
        self.host.is_empty()
    }

    /// Device buffer.
    pub(crate) fn gpu(&self) -> &CubeTensor {
        self.device.as_ref().expect("indices made for the CPU used on a GPU")
    }
}
