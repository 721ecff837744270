//! Frozen matrices as their file stores them, in memory or still in the file, and their rows in f32.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use burn_wgpu::CubeTensor;
use temper_shaders::formats::{DequantizeBindings, DequantizeParams, FormatKernels};

use super::Words;
use super::cpu::matmul::{Blocks, PIECE, RowsOf, Segment};
use super::cpu::par;
use super::launch::{Binding, size};
use super::own::Own;
use super::tensor::{empty, from_vec, gpu_of, joined, on_gpu};
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
    /// In a buffer of its own; in host memory too where rows are asked for by index.
    Device(Arc<Own>, Option<Arc<Vec<u8>>>),
    /// On a GPU, where it is trained: in burn's pool, like all that is rewritten.
    Trained(CubeTensor),
    /// In the file, and in memory only while it is used, in one or several parts.
    File(InFile, Option<Arc<[Part]>>),
}

/// Rows of a [`Packed`] that lie in one buffer of a GPU.
#[derive(Clone)]
pub(super) struct Piece {
    part: Part,
    /// The first of them in the buffer.
    pub first: usize,
    /// How many.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
}

impl Piece {
    /// The buffer.
    ///
    /// # Panics
    /// Where it is on no GPU.
    pub fn words(&self) -> Binding<'_> {
        match &self.part.place {
            Place::Device(words, _) => Binding::from(&**words),
            Place::Trained(words) => Binding::from(words),
            _ => panic!("weights that are not on the GPU used there"),
        }
    }

    /// The kernels that read it; none where it is in f32.
    pub fn kernels(&self) -> Option<&'static FormatKernels> {
        self.part.format.kernels()
    }
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
            None => Place::Trained(words.gpu().clone()),
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
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn hold(&mut self, device: &Device, read: &mut impl Iterator<Item = Vec<u8>>) -> Result<()> {
        let columns = self.columns;
        self.replace(|file, held| {
            if held.is_some() {
                return Ok(held);
            }
            let bytes = read.next().unwrap_or_else(|| panic!("{} was not read", file.name));
            let shape = vec![file.rows, columns];
            let raw = RawTensor { name: file.name.clone(), shape, format: file.format, bytes };
            Ok(Some(Part::on(device, raw, columns, Rows::Whole)?.into()))
        })
    }

    /// Gives back what can be read again.
    pub fn release(&mut self) {
        self.replace(|_, _| Ok(None)).expect("giving back does not fail");
    }

    fn replace(
        &mut self,
        mut change: impl FnMut(&InFile, Option<Arc<[Part]>>) -> Result<Option<Arc<[Part]>>>,
    ) -> Result<()> {
        let part = |part: &Part| match &part.place {
            Place::File(file, held) => {
                let place = Place::File(file.clone(), change(file, held.clone())?);
                Ok(Part { place, ..part.clone() })
            }
            _ => Ok(part.clone()),
        };
        self.parts = self.parts.iter().map(part).collect::<Result<_>>()?;
        Ok(())
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
        let tiles = self.tiles(device, 4).into_iter().map(|rows| self.dense_rows(device, rows));
        Ok(joined(tiles.collect::<Result<_>>()?, 0))
    }

    /// Ranges of rows that fit with so many bytes an element, 4 in f32, into one tile of a GPU, as even as they get.
    pub(super) fn tiles(&self, device: &Device, element_bytes: u64) -> Vec<Range<usize>> {
        let most = (device.tile_bytes() / (self.columns as u64 * element_bytes).max(1)).max(1) as usize;
        let rows = self.rows.div_ceil(self.rows.div_ceil(most).max(1)).max(1);
        (0..self.rows).step_by(rows).map(|first| first..(first + rows).min(self.rows)).collect()
    }

    /// Rows in f32 on a GPU, `[rows, columns]`.
    ///
    /// # Errors
    /// Device errors.
    pub(super) fn dense_rows(&self, device: &Device, rows: Range<usize>) -> Result<Tensor<2>> {
        let out = empty(device, [rows.len(), self.columns]);
        let (target, gpu) = (on_gpu(&out), gpu_of(device));
        let mut start = 0;
        for piece in self.pieces(rows) {
            let (count, first) = (piece.rows * self.columns, piece.first * self.columns);
            match (&piece.part.place, piece.kernels()) {
                (Place::Device(words, _), None) => {
                    let bytes = |elements: usize| elements as u64 * 4;
                    gpu.copy(words, bytes(first), &target, bytes(start), bytes(count))?;
                }
                (_, kernels) => {
                    let kernel = kernels.map(|kernels| &kernels.dequantize).expect("trained matrices are not in f32");
                    let params = DequantizeParams { count: size(count), first: size(first), start: size(start) };
                    let bound = DequantizeBindings { packed_words: piece.words(), out: Binding::from(&target) };
                    gpu.run(kernel, params, bound, kernel.workgroups(1, count as u64))?;
                }
            }
            start += count;
        }
        Ok(out)
    }

    /// Rows by the buffers that they lie in, in order.
    pub(super) fn pieces(&self, rows: Range<usize>) -> Vec<Piece> {
        let (mut pieces, mut at) = (Vec::new(), rows.start);
        while at < rows.end {
            let (part, first) = self.part_of(at);
            let here = (part.rows - first).min(rows.end - at);
            pieces.push(Piece { part: part.clone(), first, rows: here, columns: self.columns });
            at += here;
        }
        pieces
    }

    /// The part that a row lies in, and the row's place there.
    fn part_of(&self, row: usize) -> (&Part, usize) {
        part_of(&self.parts, row)
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

    fn expand_row(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let (part, row) = self.part_of(row);
        let (of, bytes) = (part.format, part.row_bytes(self.columns));
        let at = |column: usize| of.bytes_for(column).expect("columns are whole blocks");
        of.expand(&part.host()[row * bytes..][at(columns.start)..at(columns.end)], out);
    }

    /// Its bytes in host memory, for products of a few rows.
    ///
    /// # Panics
    /// Where they are not there.
    pub(super) fn segments(&self) -> Vec<Segment<'_>> {
        let mut segments = Vec::with_capacity(self.parts.len());
        for part in self.parts.iter() {
            let held = match &part.place {
                Place::File(file, held) => {
                    held.as_deref().unwrap_or_else(|| panic!("{} was used while it was in its file", file.name))
                }
                _ => std::slice::from_ref(part),
            };
            segments.extend(held.iter().filter(|part| part.rows > 0).map(|part| {
                let piece_bytes = part.row_bytes(PIECE);
                let kind = match part.format {
                    WeightFormat::Q4_0 => Blocks::Q4_0,
                    WeightFormat::Q4_1 => Blocks::Q4_1,
                    WeightFormat::Q8_0 => Blocks::Q8_0,
                    _ => Blocks::Other,
                };
                let stored = RowsOf::Blocks { kind, bytes: part.host(), expand: part.format.expander(), piece_bytes };
                Segment { rows: part.rows, stored }
            }));
        }
        segments
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

fn part_of(parts: &[Part], mut row: usize) -> (&Part, usize) {
    for part in parts {
        match &part.place {
            _ if row >= part.rows => row -= part.rows,
            Place::File(_, Some(held)) => return part_of(held, row),
            Place::File(file, None) => panic!("{} was used while it was in its file", file.name),
            _ => return (part, row),
        }
    }
    panic!("a row past the end of a matrix");
}

/// For the self-test: blocks of a format, `[3, 512]`.
///
/// # Errors
/// Device errors.
pub(crate) fn blocks(device: &Device, format: WeightFormat) -> Result<Packed> {
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
    Packed::new(device, vec![raw], columns, Rows::Whole)
}
