//! Frozen matrices as their file stores them, in memory or still in the file, and their rows in f32.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_dispatch::{BackendTensor, DispatchTensorKind};
use burn_wgpu::CubeTensor;
use temper_shaders::formats::{DequantizeBindings, DequantizeParams};

use super::Words;
use super::cpu::par;
use super::launch::size;
use super::tensor::{empty_gpu, flat, from_cube, from_vec, gpu_of};
use crate::device::Device;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::weights::{RawTensor, WeightFormat, WeightSource};

/// A frozen matrix `[rows, columns]` of 16-bit floats or quantised blocks: one or several tensors of a file, one below the
/// other. It is expanded to f32 where it is used and never kept so. A clone shares its memory.
#[derive(Clone)]
pub struct Packed {
    parts: Arc<[Part]>,
    rows: usize,
    columns: usize,
}

/// How rows of a [`Packed`] are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The matrix as a whole, in products.
    Whole,
    /// Also one by one ([`Packed::gather`]): on a GPU the bytes are held in host memory too.
    ByIndex,
}

#[derive(Clone)]
struct Part {
    format: WeightFormat,
    rows: usize,
    place: Place,
}

/// Where bytes lie.
#[derive(Clone)]
enum Place {
    Host(Arc<Vec<u8>>),
    /// As little-endian words, the last one padded; in host memory too where rows are asked for by index.
    Device(CubeTensor, Option<Arc<Vec<u8>>>),
    /// In the file, and in memory only while it is used.
    File(InFile, Option<Box<Place>>),
}

/// A tensor that is left in its file.
#[derive(Clone)]
pub struct InFile {
    /// The file, or files.
    pub source: Arc<dyn WeightSource>,
    /// Name of the tensor.
    pub name: String,
    /// Rows of it.
    pub rows: usize,
    /// How it is stored.
    pub format: WeightFormat,
    /// Its bytes when it was looked at first.
    pub digest: Digest,
}

impl InFile {
    /// Its bytes.
    ///
    /// # Errors
    /// What reading gives; [`Error::Tensor`] where the bytes are no longer what they were.
    pub fn read(&self) -> Result<Vec<u8>> {
        let bytes = self.source.read(&self.name)?.bytes;
        if Digest::of(&bytes) == self.digest {
            return Ok(bytes);
        }
        Err(Error::Tensor {
            file: self.source.file_of(&self.name),
            tensor: self.name.clone(),
            problem: "it is not what it was when the run began: the file was changed under the run".into(),
        })
    }
}

impl Place {
    /// In memory of `device`.
    fn on(device: &Device, bytes: Vec<u8>, rows: Rows) -> Self {
        if device.is_cpu() {
            return Self::Host(Arc::new(bytes));
        }
        let words = upload(device, &bytes);
        Self::Device(words, (rows == Rows::ByIndex).then(|| Arc::new(bytes)))
    }

    /// Where the bytes can be used.
    fn held(&self) -> &Self {
        match self {
            Self::File(file, None) => panic!("{} was used while it was in its file", file.name),
            Self::File(_, Some(held)) => held,
            _ => self,
        }
    }
}

impl Part {
    /// Bytes of a row of `columns` elements.
    fn row_bytes(&self, columns: usize) -> usize {
        self.format.bytes_for(columns).expect("a row is whole blocks")
    }

    fn host(&self) -> &[u8] {
        match self.place.held() {
            Place::Host(bytes) | Place::Device(_, Some(bytes)) => bytes,
            _ => panic!("weights that are not in host memory used there"),
        }
    }
}

impl Packed {
    /// Takes the bytes of matrices that have `columns` inputs.
    ///
    /// # Panics
    /// Where a row is no whole number of blocks: such tensors cannot be opened.
    pub fn new(device: &Device, raws: Vec<RawTensor>, columns: usize, rows: Rows) -> Self {
        let part = |raw: RawTensor| {
            let (format, count) = (raw.format, raw.elements() / columns);
            Part { format, rows: count, place: Place::on(device, raw.bytes, rows) }
        };
        Self::of_parts(raws.into_iter().map(part).collect(), columns)
    }

    /// Matrices of `columns` inputs that stay in their file: they are to be read ([`Packed::missing`]), used
    /// ([`Packed::hold`]) and given back ([`Packed::release`]).
    pub fn in_file(files: Vec<InFile>, columns: usize) -> Self {
        let part = |file: InFile| Part { format: file.format, rows: file.rows, place: Place::File(file, None) };
        Self::of_parts(files.into_iter().map(part).collect(), columns)
    }

    /// A matrix of bytes that others rewrite, as they are now.
    pub fn of_words(words: &Words, format: WeightFormat, [rows, columns]: [usize; 2]) -> Self {
        let place = match words.on_host() {
            Some(bytes) => Place::Host(bytes.clone()),
            None => Place::Device(words.gpu().clone(), None),
        };
        Self::of_parts(vec![Part { format, rows, place }], columns)
    }

    fn of_parts(parts: Vec<Part>, columns: usize) -> Self {
        Self { rows: parts.iter().map(|part| part.rows).sum(), parts: parts.into(), columns }
    }

    /// True where it, or a part of it, is left in its file, held or not.
    pub fn lies_in_file(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.place, Place::File(..)))
    }

    /// What has to be read before it can be used, in the order of [`Packed::hold`].
    pub fn missing(&self) -> impl Iterator<Item = &InFile> {
        self.parts.iter().filter_map(|part| match &part.place {
            Place::File(file, None) => Some(file),
            _ => None,
        })
    }

    /// Takes what was missing.
    pub fn hold(&mut self, device: &Device, read: &mut impl Iterator<Item = Vec<u8>>) {
        self.replace(|file, held| {
            held.or_else(|| {
                let bytes = read.next().unwrap_or_else(|| panic!("{} was not read", file.name));
                Some(Box::new(Place::on(device, bytes, Rows::Whole)))
            })
        });
    }

    /// Gives back what can be read again.
    pub fn release(&mut self) {
        self.replace(|_, _| None);
    }

    fn replace(&mut self, mut change: impl FnMut(&InFile, Option<Box<Place>>) -> Option<Box<Place>>) {
        let part = |part: &Part| match &part.place {
            Place::File(file, held) => {
                Part { place: Place::File(file.clone(), change(file, held.clone())), ..part.clone() }
            }
            _ => part.clone(),
        };
        self.parts = self.parts.iter().map(part).collect();
    }

    /// Inputs of the matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Outputs of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of the longest block: a multiple of those of every part.
    pub fn block_elements(&self) -> usize {
        self.parts.iter().map(|part| part.format.block_elements()).max().unwrap_or(1)
    }

    /// In f32 on the device, `[rows, columns]`.
    ///
    /// # Errors
    /// Device errors.
    ///
    /// # Panics
    /// Where it is left in its file and not held.
    pub fn dense(&self, device: &Device) -> Result<Tensor<2>> {
        let columns = self.columns;
        if device.is_cpu() {
            let mut out = vec![0.0; self.rows * columns];
            self.expand(0..self.rows, 0..columns, &mut out);
            return Ok(from_vec(out, [self.rows, columns]));
        }
        let mut tensors = Vec::with_capacity(self.parts.len());
        for part in self.parts.iter() {
            let Place::Device(words, _) = part.place.held() else { panic!("weights made for the CPU used on a GPU") };
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

    /// Expands a rectangle into `out`, `[rows, columns]` of it, on all cores. Columns are whole blocks
    /// ([`Packed::block_elements`]).
    ///
    /// # Panics
    /// Where they are not, the rectangle lies outside, or the bytes are not in host memory.
    pub fn expand(&self, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) {
        let width = columns.len();
        assert!(rows.end <= self.rows && columns.end <= self.columns && out.len() == rows.len() * width);
        if width == 0 {
            return;
        }
        let together = par::rows_per_task(width);
        par::pieces(out, together * width, |index, out| {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                self.expand_row(rows.start + index * together + row, columns.clone(), out);
            }
        });
    }

    fn expand_row(&self, mut row: usize, columns: Range<usize>, out: &mut [f32]) {
        let part = self.parts.iter().find(|part| {
            let here = row < part.rows;
            row -= if here { 0 } else { part.rows };
            here
        });
        let part = part.expect("a row of the matrix");
        let (of, bytes) = (part.format, part.row_bytes(self.columns));
        let at = |column: usize| of.bytes_for(column).expect("columns are whole blocks");
        of.expand(&part.host()[row * bytes..][at(columns.start)..at(columns.end)], out);
    }

    /// Rows `indices - start` in f32, `[indices, columns]`; zero rows where an index lies outside.
    ///
    /// # Panics
    /// Where the matrix was not made for it ([`Rows::ByIndex`]).
    pub fn gather(&self, device: &Device, indices: &[u32], start: usize) -> Tensor<2> {
        let mut out = vec![0.0; indices.len() * self.columns];
        for (out, &index) in out.chunks_exact_mut(self.columns).zip(indices) {
            if let Some(row) = (index as usize).checked_sub(start).filter(|&row| row < self.rows) {
                self.expand_row(row, 0..self.columns, out);
            }
        }
        Tensor::from_data(TensorData::new(out, [indices.len(), self.columns]), device.burn())
    }
}

pub(super) fn upload(device: &Device, bytes: &[u8]) -> CubeTensor {
    let word = |word: &[u8]| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        i32::from_le_bytes(padded)
    };
    let words: Vec<i32> = bytes.chunks(4).map(word).collect();
    let shape = [words.len()];
    let tensor = Tensor::<1, Int>::from_data(TensorData::new(words, shape), (device.burn(), DType::I32));
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Int(tensor)) => tensor,
        _ => panic!("a GPU device made a tensor elsewhere"),
    }
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
    Ok(vec![flat(&Packed::new(device, vec![raw], columns, Rows::Whole).dense(device)?)])
}
