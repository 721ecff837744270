//! Weights: where they lie, how they are stored, and one tensor at a time out of it.
//!
//! A [`WeightSource`] is named tensors, whatever the file: [`safetensors`] (single or sharded), [`gguf`], or
//! [`MemorySource`]. Opening reads headers only; a tensor's bytes are fetched when asked for, so a block at a time can be
//! brought to a device. What tensors a model must have, and what GGUF calls them, is known to [`crate::model`]. The readable definition of every stored format is in [`dequantize`].
//!
//! Files are untrusted: nothing is allocated from a number in a file before that number was compared with the file's
//! size.

pub mod dequantize;
pub mod gguf;
pub mod safetensors;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::host::{Bytes, Folder, shorten};

/// How a tensor's elements are stored. All little-endian; the quantised ones as GGUF defines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 32 elements: f16 scale, 4-bit values.
    Q4_0,
    /// 32 elements: f16 scale, f16 minimum, 4-bit values.
    Q4_1,
    /// 32 elements: f16 scale, 8-bit values.
    Q8_0,
    /// 256 elements: f16 scale and minimum, eight 6-bit scales and minima, 4-bit values.
    Q4K,
    /// 256 elements: sixteen 8-bit scales, f16 scale, 6-bit values.
    Q6K,
}

impl WeightFormat {
    /// Every format, for tables and tests.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q4_0, Self::Q4_1, Self::Q8_0, Self::Q4K, Self::Q6K];

    /// Elements in a block; a row of a matrix is a whole number of blocks.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Bytes of so many elements; `None` where they are no whole number of blocks, or too many to count.
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        let whole = elements.is_multiple_of(self.block_elements());
        whole.then(|| (elements / self.block_elements()).checked_mul(self.block_bytes())).flatten()
    }

    /// Bytes of a tensor whose rows each are whole blocks; `None` as in [`WeightFormat::bytes_for`].
    pub fn bytes_for_shape(self, shape: &[usize]) -> Option<usize> {
        let elements = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
        let row = shape.last().copied().unwrap_or(1);
        row.is_multiple_of(self.block_elements()).then(|| self.bytes_for(elements)).flatten()
    }

    /// The name that GGUF uses (`Q4_K`, `BF16`).
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }
}

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

    /// All elements in f32, row-major; see [`dequantize::to_f32`].
    pub fn to_f32(&self) -> Vec<f32> {
        dequantize::to_f32(self)
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
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
/// [`Error::Io`] where it is missing, [`Error::Format`] where it is larger than `most` bytes.
pub(crate) fn read_small(folder: &dyn Folder, name: &str, most: u64) -> Result<(Vec<u8>, String)> {
    let file = folder.display(name);
    let Some(bytes) = folder.open(name)? else {
        return Err(Error::Missing { path: file, problem: "there is no such file".into() });
    };
    if bytes.len() > most {
        let problem = format!("{} bytes are more than the {most} that such a file can have", bytes.len());
        return Err(Error::Format { file, problem });
    }
    Ok((read_range(bytes.as_ref(), 0, bytes.len(), &file)?, file))
}

/// Copies a range that has already been checked against the file's length.
pub(crate) fn read_range(bytes: &dyn Bytes, offset: u64, length: u64, file: &str) -> Result<Vec<u8>> {
    let too_large = || Error::Format { file: file.to_owned(), problem: format!("{length} bytes do not fit in memory") };
    let mut out = vec![0; usize::try_from(length).map_err(|_| too_large())?];
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

    #[test]
    fn rows_must_be_whole_blocks() {
        assert_eq!(WeightFormat::Q4_1.bytes_for(64), Some(40));
        assert_eq!(WeightFormat::Q4_1.bytes_for(33), None);
        assert_eq!(WeightFormat::Q6K.bytes_for_shape(&[2, 256]), Some(420));
        assert_eq!(WeightFormat::Q6K.bytes_for_shape(&[256, 2]), None);
        assert_eq!(WeightFormat::F32.bytes_for(usize::MAX), None);
        assert_eq!(WeightFormat::F32.bytes_for_shape(&[usize::MAX, 2]), None);
    }

    #[test]
    fn a_memory_source_refuses_doubles_and_wrong_sizes() {
        let one = RawTensor::from_f32("a", vec![2], &[1.0, 2.0]);
        assert!(MemorySource::new([one.clone(), one.clone()]).is_err());
        assert!(MemorySource::new([RawTensor { shape: vec![3], ..one }]).is_err());
    }
}
