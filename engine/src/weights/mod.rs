//! Weights: where they lie, how they are stored, and one tensor at a time out of it.
//!
//! A [`WeightSource`] is named tensors, whatever the file: [`safetensors`] (single or sharded), [`gguf`], or
//! [`MemorySource`]. Opening reads headers only; a tensor's bytes are fetched when asked for, so a block at a time can be
//! brought to a device. What tensors a model must have, and what GGUF calls them, is known to `model/`. How a
//! tensor's bytes are to be read is its [`WeightFormat`].
//!
//! Files are untrusted: nothing is allocated from a number in a file before that number was compared with the file's
//! size.

pub mod compensated;
mod format;
pub mod gguf;
pub mod safetensors;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::host::{Bytes, Folder, shorten};
use crate::kernels::cpu::par;

pub use format::WeightFormat;

/// A tensor as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTensor {
    /// Its name in the source.
    pub name: String,
    /// Row-major, `[out, in]` for matrices.
    pub shape: Vec<usize>,
    /// How `bytes` are to be read.
    pub format: WeightFormat,
    /// `format.bytes_for_shape(shape)` bytes.
    pub bytes: Vec<u8>,
}

impl RawTensor {
    /// A tensor of f32 values.
    pub fn from_f32(name: &str, shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { name: name.to_owned(), shape, format: WeightFormat::F32, bytes }
    }

    /// Stores f32 values, for quantising on load and for writing models. The rounding is ggml's.
    ///
    /// # Errors
    /// [`Error::Tensor`] where shape and values disagree, a row is no whole number of blocks, a value or a block's scale is
    /// no finite number in that format, or Temper does not write that format.
    pub fn quantise(name: &str, shape: &[usize], values: &[f32], format: WeightFormat) -> Result<Self> {
        let refuse = |problem: String| Err(tensor_error("values to store", name, problem));
        if shape.iter().product::<usize>() != values.len() || format.bytes_for_shape(shape).is_none() {
            return refuse(format!("{} values are no {} tensor of shape {shape:?}", values.len(), format.name()));
        }
        let mut bytes = Vec::with_capacity(format.bytes_for(values.len()).unwrap_or(0));
        append(&mut bytes, name, values, 0, format)?;
        Ok(Self { name: name.to_owned(), shape: shape.to_vec(), format, bytes })
    }

    /// The same tensor in another format, piece by piece: its values never exist in f32 as a whole. What was rounded before
    /// is rounded once more.
    ///
    /// # Errors
    /// As [`RawTensor::quantise`].
    pub fn stored_as(&self, format: WeightFormat) -> Result<Self> {
        /// Elements of a piece, whole blocks in every format.
        const PIECE: usize = 1 << 20;
        let Some(length) = format.bytes_for_shape(&self.shape) else {
            let problem = format!("rows of {:?} are no whole blocks of {}", self.shape, format.name());
            return Err(tensor_error("values to store", &self.name, problem));
        };
        let mut bytes = Vec::with_capacity(length);
        let piece_bytes = PIECE / self.format.block_elements() * self.format.block_bytes();
        for (index, piece) in self.bytes.chunks(piece_bytes).enumerate() {
            append(&mut bytes, &self.name, &self.format.to_f32(piece), index * PIECE, format)?;
        }
        Ok(Self { name: self.name.clone(), shape: self.shape.clone(), format, bytes })
    }

    /// All elements in f32, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        self.format.to_f32(&self.bytes)
    }

    /// Cut into matrices of at most `rows` rows, each with its first row.
    pub fn into_row_tiles(self, rows: usize) -> Vec<(usize, Self)> {
        let count = self.shape.first().copied().unwrap_or(0);
        if rows >= count {
            return vec![(0, self)];
        }
        let bytes = rows * (self.bytes.len() / count);
        let tile = |(index, bytes): (usize, &[u8])| {
            let start = index * rows;
            let shape = [&[rows.min(count - start)], &self.shape[1..]].concat();
            (start, Self { name: self.name.clone(), shape, format: self.format, bytes: bytes.to_vec() })
        };
        self.bytes.chunks(bytes).enumerate().map(tile).collect()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Appends whole blocks of a tensor to its stored bytes, on all cores. `first` is the index of the first of `values` in it.
fn append(bytes: &mut Vec<u8>, name: &str, values: &[f32], first: usize, format: WeightFormat) -> Result<()> {
    let refuse = |problem: String| Err(tensor_error("values to store", name, problem));
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return refuse(format!("element {} is {}", first + at, values[at]));
    }
    let Some(quantise_block) = format.quantise_block() else {
        return refuse(format!("Temper reads {} but does not write it", format.name()));
    };
    let block = format.block_elements();
    let pieces: Vec<&[f32]> = values.chunks(par::ELEMENTS).collect();
    // What came before the first block that does not fit, and whether there is one.
    let stored = par::map(pieces.len(), |index| {
        let mut bytes = Vec::with_capacity(format.bytes_for(pieces[index].len()).unwrap_or(0));
        let fits = pieces[index].chunks_exact(block).all(|block| quantise_block(block, &mut bytes));
        (bytes, fits)
    });
    for (index, (piece, fits)) in stored.into_iter().enumerate() {
        if !fits {
            let blocks = piece.len() / format.block_bytes() - 1;
            let at = first + index * par::ELEMENTS + blocks * block;
            let problem = format!("elements from {at} on are too large for {}", format.name());
            return match format {
                WeightFormat::F32 | WeightFormat::Bf16 => refuse(problem),
                _ => refuse(problem + "; bf16 has room for them (`--to bf16`, or `--storage bf16` where it is loaded)"),
            };
        }
        bytes.extend(piece);
    }
    Ok(())
}

/// Named tensors, row-major. A model's own are under their Hugging Face names and in Hugging Face layout.
pub trait WeightSource: Send + Sync {
    /// All names, sorted.
    fn names(&self) -> Vec<String>;

    /// Row-major shape, or `None` where there is no such tensor.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// How a tensor is stored, or `None` where there is no such tensor.
    fn format(&self, name: &str) -> Option<WeightFormat>;

    /// Fetches one tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] where there is none of that name, [`Error::Io`] where the host cannot read.
    fn read(&self, name: &str) -> Result<RawTensor>;

    /// The file in which a tensor lies (or would lie), for messages.
    fn file_of(&self, name: &str) -> String;
}

/// Tensors held in memory: embedded models, fresh weights, tests.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    tensors: BTreeMap<String, RawTensor>,
}

impl MemorySource {
    /// A source of these tensors.
    ///
    /// # Errors
    /// [`Error::Tensor`] for two tensors of one name and where bytes and shape do not agree.
    pub fn new(tensors: impl IntoIterator<Item = RawTensor>) -> Result<Self> {
        let mut map = BTreeMap::new();
        for tensor in tensors {
            let expected = tensor.format.bytes_for_shape(&tensor.shape);
            if expected != Some(tensor.bytes.len()) {
                let (bytes, shape, kind) = (tensor.bytes.len(), &tensor.shape, tensor.format.name());
                let problem = format!("{bytes} bytes are no {kind} tensor of shape {shape:?}");
                return Err(tensor_error("memory", &tensor.name, problem));
            }
            if let Some(twice) = map.insert(tensor.name.clone(), tensor) {
                return Err(tensor_error("memory", &twice.name, "there are two of this name".into()));
            }
        }
        Ok(Self { tensors: map })
    }
}

impl WeightSource for MemorySource {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        self.tensors.get(name).map(|t| t.format)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        self.tensors.get(name).cloned().ok_or_else(|| absent("memory", name))
    }

    fn file_of(&self, _name: &str) -> String {
        "memory".to_owned()
    }
}

/// Reads a whole small file of a folder, with its name for messages.
///
/// # Errors
/// [`Error::Missing`] where it is missing, [`Error::Format`] where it is larger than `most` bytes.
pub(crate) fn read_small(folder: &dyn Folder, name: &str, most: u64) -> Result<(Vec<u8>, String)> {
    let file = folder.display(name);
    match read_if_there(folder, name, most)? {
        Some(bytes) => Ok((bytes, file)),
        None => Err(Error::Missing { path: file, problem: "there is no such file".into() }),
    }
}

/// Refuses what Git has in place of a large file.
///
/// # Errors
/// [`Error::Format`] with how to come by the file itself.
pub(crate) fn refuse_pointer(bytes: &dyn Bytes, file: &str) -> Result<()> {
    const BEGINS: &[u8] = b"version https://git-lfs";
    let mut found = [0u8; BEGINS.len()];
    if bytes.len() < found.len() as u64 {
        return Ok(());
    }
    bytes.read(0, &mut found)?;
    if found != *BEGINS {
        return Ok(());
    }
    let advice = "get that with `git lfs pull`, or the whole model with `hf download`";
    let problem = format!("is a Git LFS pointer, a few lines that stand for the file itself; {advice}");
    Err(Error::Format { file: file.into(), problem })
}

/// As [`read_small`], but `None` where the file is missing.
///
/// # Errors
/// As [`read_small`].
pub(crate) fn read_if_there(folder: &dyn Folder, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = folder.open(name)? else { return Ok(None) };
    let (file, length) = (folder.display(name), bytes.len());
    if length > most {
        let problem =
            format!("has {length} bytes, and at most {most} are read of such a file; is it what its name says?");
        return Err(Error::Format { file, problem });
    }
    refuse_pointer(bytes.as_ref(), &file)?;
    read_range(bytes.as_ref(), 0, length, &file).map(Some)
}

/// Copies a range that has already been checked against the file's length, straight into the memory that keeps it.
pub(crate) fn read_range(bytes: &dyn Bytes, offset: u64, length: u64, file: &str) -> Result<Vec<u8>> {
    let too_large = || Error::Format { file: file.to_owned(), problem: format!("{length} bytes do not fit in memory") };
    let length = usize::try_from(length).map_err(|_| too_large())?;
    let mut out = Vec::new();
    out.try_reserve_exact(length).map_err(|_| too_large())?;
    out.resize(length, 0);
    bytes.read(offset, &mut out)?;
    Ok(out)
}

pub(crate) fn tensor_error(file: &str, tensor: &str, problem: String) -> Error {
    Error::Tensor { file: file.to_owned(), tensor: shorten(tensor), problem }
}

pub(crate) fn absent(file: &str, name: &str) -> Error {
    tensor_error(file, name, "there is no such tensor".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::MemoryFolder;

    #[test]
    fn a_memory_source_refuses_doubles_and_wrong_sizes() {
        let one = RawTensor::from_f32("a", vec![2], &[1.0, 2.0]);
        assert!(MemorySource::new([one.clone(), one.clone()]).is_err());
        assert!(MemorySource::new([RawTensor { shape: vec![3], ..one }]).is_err());
    }

    #[test]
    fn a_pointer_of_git_is_named_in_place_of_any_file() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 538090408\n";
        let mut folder = MemoryFolder::new();
        folder.insert("tokenizer.json", pointer.to_vec()).unwrap();
        folder.insert("m.gguf", pointer.to_vec()).unwrap();
        let small = read_small(&folder, "tokenizer.json", 1 << 20).unwrap_err();
        let gguf = gguf::Gguf::open_in(&folder, "m.gguf").err().expect("no GGUF file");
        for (error, file) in [(small, "tokenizer.json"), (gguf, "m.gguf")] {
            let message = error.to_string();
            assert!(error.is_bad_input() && message.starts_with(&format!("{file}: is a Git LFS pointer")), "{message}");
            assert!(message.contains("git lfs pull"), "{message}");
        }
    }

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0 * (1.0 + (i / 32) as f32)).collect()
    }

    #[test]
    fn what_is_written_reads_back_within_half_a_step() {
        let values = wave(128);
        for (format, steps) in [(WeightFormat::F32, 0.0), (WeightFormat::F16, 2e-3), (WeightFormat::Bf16, 8e-3)] {
            let stored = RawTensor::quantise("t", &[2, 64], &values, format).unwrap();
            for (found, &value) in stored.to_f32().iter().zip(&values) {
                assert!((found - value).abs() <= steps * value.abs(), "{format:?}: {found} for {value}");
            }
        }
        let symmetric =
            [(WeightFormat::Q8_0, 127.0, 0.51), (WeightFormat::Q5_0, 16.0, 1.01), (WeightFormat::Q4_0, 8.0, 1.01)];
        for (format, levels, slack) in symmetric {
            let stored = RawTensor::quantise("t", &[2, 64], &values, format).unwrap();
            for (block, found) in values.chunks(32).zip(stored.to_f32().chunks(32)) {
                let largest = block.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                for (x, y) in block.iter().zip(found) {
                    // The far end of Q4_0's and Q5_0's range is one level short, hence a whole step there. The scale is an f16.
                    assert!((x - y).abs() <= largest / levels * slack + 1e-3 * largest, "{format:?}: {y} for {x}");
                }
            }
        }
    }

    #[test]
    fn a_range_from_its_least_to_its_greatest_element_reads_back_within_half_a_step() {
        let values: Vec<f32> = wave(512).iter().map(|x| x + 1.5).collect();
        let formats = [(WeightFormat::Q4_1, 15.0, 32), (WeightFormat::Q5_1, 31.0, 32), (WeightFormat::Q4K, 15.0, 32)];
        for (format, levels, group) in formats {
            let stored = RawTensor::quantise("t", &[2, 256], &values, format).unwrap();
            for (block, found) in values.chunks(group).zip(stored.to_f32().chunks(group)) {
                let least = block.iter().copied().fold(0.0, f32::min);
                let most = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                // Scales and minima of Q4_K are six bits of the largest of eight.
                let slack = if format == WeightFormat::Q4K { 1.2 } else { 0.51 };
                for (x, y) in block.iter().zip(found) {
                    let step = (most - least) / levels;
                    assert!((x - y).abs() <= step * slack + 2e-3 * most.max(-least), "{format:?}: {y} for {x}");
                }
            }
        }
    }

    #[test]
    fn a_tensor_in_another_format_has_the_bytes_that_its_values_have() {
        // More than one piece of what is converted at a time.
        let shape = [5, 1 << 18];
        let values = wave(1 << 15).repeat(40);
        let stored = RawTensor::quantise("t", &shape, &values, WeightFormat::Q8_0).unwrap();
        for format in [WeightFormat::Q4_0, WeightFormat::Q4K, WeightFormat::F16, WeightFormat::F32] {
            let expected = RawTensor::quantise("t", &shape, &stored.to_f32(), format).unwrap();
            assert_eq!(stored.stored_as(format).unwrap(), expected, "{format:?}");
        }
        let narrow = RawTensor::quantise("t", &[8, 32], &wave(256), WeightFormat::Q8_0).unwrap();
        let problem = narrow.stored_as(WeightFormat::Q4K).unwrap_err().to_string();
        assert!(problem.contains("rows of [8, 32] are no whole blocks of Q4_K"), "{problem}");
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place_in_the_whole_tensor() {
        let mut values = wave(1 << 15).repeat(64);
        values[1_500_000] = 1e9;
        let problem = |values: &[f32]| {
            let raw = RawTensor::from_f32("t", vec![2, 1 << 20], values);
            raw.stored_as(WeightFormat::Q8_0).unwrap_err().to_string()
        };
        assert!(problem(&values).contains("elements from 1500000 on are too large for Q8_0"), "{}", problem(&values));
        assert!(problem(&values).contains("--to bf16"), "{}", problem(&values));
        values[1_400_000] = f32::NAN;
        assert!(problem(&values).contains("element 1400000 is NaN"), "{}", problem(&values));
    }

    #[test]
    fn zeros_and_what_vanishes_beside_an_f16_scale_become_zeros() {
        let formats = WeightFormat::ALL.into_iter().filter(|format| format.quantise_block().is_some());
        for format in formats {
            let stored = RawTensor::quantise("t", &[256], &[0.0; 256], format).unwrap();
            assert!(stored.to_f32().iter().all(|&x| x == 0.0), "{format:?}");
            let stored = RawTensor::quantise("t", &[256], &[1e-44; 256], format).unwrap();
            assert!(stored.to_f32().iter().all(|&x| x.abs() <= 1e-44), "{format:?}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_an_error() {
        let one = |x: f32| vec![x; 32];
        assert!(RawTensor::quantise("t", &[32], &one(f32::NAN), WeightFormat::F32).is_err());
        assert!(RawTensor::quantise("t", &[32], &one(1e6), WeightFormat::F16).is_err());
        assert!(RawTensor::quantise("t", &[32], &one(f32::MAX), WeightFormat::Bf16).is_err());
        assert!(RawTensor::quantise("t", &[32], &one(1e9), WeightFormat::Q8_0).is_err());
        assert!(RawTensor::quantise("t", &[31], &one(1.0)[..31], WeightFormat::Q8_0).is_err());
        assert!(RawTensor::quantise("t", &[64], &one(1.0), WeightFormat::F32).is_err());
        assert!(RawTensor::quantise("t", &[256], &[1e9; 256], WeightFormat::Q4K).is_err());
        assert!(RawTensor::quantise("t", &[256], &wave(256), WeightFormat::Q5K).is_err());
    }
}
