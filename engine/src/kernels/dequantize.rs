//! Frozen matrices as their file stores them, in memory or still in the file, and their rows in f32.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use temper_shaders::formats::{DequantizeBindings, DequantizeParams};

use super::cpu::par;
use super::launch::{Binding, size};
use super::own::Own;
use super::tensor::{flat, from_vec, gpu_of, on_gpu};
use crate::device::Device;
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
    /// In a buffer of its own; in host memory too where rows are asked for by index.
    Device(Arc<Own>, Option<Arc<Vec<u8>>>),
    /// In the file, as the tensor of this name: read each time it is used.
    Source(Arc<dyn WeightSource>, String),
}

impl Part {
    /// In memory of `device`; on a GPU cut into parts that can be bound.
    fn on(device: &Device, raw: RawTensor, columns: usize, rows: Rows) -> Result<Vec<Self>> {
        let count = raw.elements() / columns;
        let Some(gpu) = device.gpu() else {
            return Ok(vec![Self { format: raw.format, rows: count, place: Place::Host(Arc::new(raw.bytes)) }]);
        };
        let row_bytes = raw.format.bytes_for(columns).expect("a row is whole blocks");
        // A kernel counts elements in 32 bits.
        let most = (gpu.max_binding_bytes() / row_bytes.max(1) as u64).min(u64::from(u32::MAX) / columns.max(1) as u64);
        let tile = |(_, tile): (usize, RawTensor)| {
            let words = Arc::new(gpu.upload(&format!("weights of {}", tile.name), &tile.bytes)?);
            let (format, rows_here) = (tile.format, tile.elements() / columns);
            let host = (rows == Rows::ByIndex).then(|| Arc::new(tile.bytes));
            Ok(Self { format, rows: rows_here, place: Place::Device(words, host) })
        };
        let raw = RawTensor { shape: vec![count, columns], ..raw };
        raw.into_row_tiles((most as usize).max(1)).into_iter().map(tile).collect()
    }

    /// Bytes of a row of `columns` elements.
    fn row_bytes(&self, columns: usize) -> usize {
        self.format.bytes_for(columns).expect("a row is whole blocks")
    }

    fn host(&self) -> &[u8] {
        match &self.place {
            Place::Host(bytes) | Place::Device(_, Some(bytes)) => bytes,
            _ => panic!("weights that are not in host memory used there"),
        }
    }
}

impl Packed {
    /// Takes the bytes of matrices that have `columns` inputs.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Limit`].
    ///
    /// # Panics
    /// Where a row is no whole number of blocks: such tensors cannot be opened.
    pub fn new(device: &Device, raws: Vec<RawTensor>, columns: usize, rows: Rows) -> Result<Self> {
        let mut parts = Vec::with_capacity(raws.len());
        for raw in raws {
            parts.extend(Part::on(device, raw, columns, rows)?);
        }
        Ok(Self::of_parts(parts, columns))
    }

    /// Matrices of `columns` inputs that stay in their file: each use reads them, and what was read is given back after it.
    /// `tensors` are their names, rows and formats.
    pub fn in_file(
        source: &Arc<dyn WeightSource>,
        tensors: Vec<(String, usize, WeightFormat)>,
        columns: usize,
    ) -> Self {
        let part = |(name, rows, format)| Part { format, rows, place: Place::Source(source.clone(), name) };
        Self::of_parts(tensors.into_iter().map(part).collect(), columns)
    }

    fn of_parts(parts: Vec<Part>, columns: usize) -> Self {
        Self { rows: parts.iter().map(|part| part.rows).sum(), parts: parts.into(), columns }
    }

    /// The same with all bytes in memory of `device`.
    ///
    /// # Errors
    /// What reading the file gives.
    pub fn fetched(&self, device: &Device) -> Result<Self> {
        if !self.parts.iter().any(|part| matches!(part.place, Place::Source(..))) {
            return Ok(self.clone());
        }
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in self.parts.iter() {
            match &part.place {
                Place::Source(source, name) => {
                    parts.extend(Part::on(device, source.read(name)?, self.columns, Rows::Whole)?);
                }
                _ => parts.push(part.clone()),
            }
        }
        Ok(Self::of_parts(parts, self.columns))
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

    /// In f32 on the device, `[rows, columns]`: for tests, since on a GPU it must fit one binding.
    ///
    /// # Errors
    /// Device errors.
    pub fn dense(&self, device: &Device) -> Result<Tensor<2>> {
        let (columns, here) = (self.columns, self.fetched(device)?);
        if device.is_cpu() {
            let mut out = vec![0.0; self.rows * columns];
            here.expand(0..self.rows, 0..columns, &mut out);
            return Ok(from_vec(out, [self.rows, columns]));
        }
        let tiles = here.tiles(device).into_iter().map(|rows| here.dense_rows(device, rows));
        Ok(Tensor::cat(tiles.collect::<Result<_>>()?, 0))
    }

    /// Ranges of rows that fit in f32 into one tile of a GPU, as even as they get.
    pub(super) fn tiles(&self, device: &Device) -> Vec<Range<usize>> {
        let most = (device.tile_bytes() / (self.columns as u64 * 4).max(1)).max(1) as usize;
        let rows = self.rows.div_ceil(self.rows.div_ceil(most).max(1)).max(1);
        (0..self.rows).step_by(rows).map(|first| first..(first + rows).min(self.rows)).collect()
    }

    /// Rows in f32 on a GPU, `[rows, columns]`.
    ///
    /// # Errors
    /// Device errors.
    pub(super) fn dense_rows(&self, device: &Device, rows: Range<usize>) -> Result<Tensor<2>> {
        let out = Tensor::empty([rows.len(), self.columns], device.burn());
        let (target, gpu) = (on_gpu(&out), gpu_of(device));
        let mut at = rows.start;
        while at < rows.end {
            let (part, first) = self.part_of(at);
            let Place::Device(words, _) = &part.place else { panic!("weights that are not on the GPU used there") };
            let here = (part.rows - first).min(rows.end - at);
            let (count, first, start) = (here * self.columns, first * self.columns, (at - rows.start) * self.columns);
            at += here;
            let Some(kernels) = part.format.kernels() else {
                let bytes = |elements: usize| elements as u64 * 4;
                gpu.copy(words, bytes(first), &target, bytes(start), bytes(count))?;
                continue;
            };
            let params = DequantizeParams { count: size(count), first: size(first), start: size(start) };
            let bound = DequantizeBindings { packed_words: Binding::from(&**words), out: Binding::from(&target) };
            gpu.run(&kernels.dequantize, params, bound, kernels.dequantize.workgroups(1, count as u64))?;
        }
        Ok(out)
    }

    /// The part that a row lies in, and the row's place there.
    fn part_of(&self, mut row: usize) -> (&Part, usize) {
        for part in self.parts.iter() {
            if row < part.rows {
                return (part, row);
            }
            row -= part.rows;
        }
        panic!("a row past the end of a matrix");
    }

    /// Expands a rectangle into `out`, `[rows, columns]` of it, on all cores. Columns are whole blocks
    /// ([`Packed::block_elements`]).
    ///
    /// # Panics
    /// Where they are not, the rectangle lies outside, or the bytes are not in host memory ([`Packed::fetched`]).
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

    fn expand_row(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let (part, row) = self.part_of(row);
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
    Ok(vec![flat(&Packed::new(device, vec![raw], columns, Rows::Whole)?.dense(device)?)])
}
