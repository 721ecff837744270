//! Writes a safetensors file front to back, with one tensor in memory at a time.
//!
//! The header comes first and names every tensor's place, so shapes are announced before the first value is known. Any
//! number of bytes fits (offsets are u64); there is no sharding. The reader is [`crate::weights::safetensors`].
//!
//! Errors are [`io::Error`]s, because the host wraps the whole write (temporary file, rename) and knows the path. What
//! is wrong with the tensors themselves is an [`Error`] inside one; [`crate::error::into_error`] takes it out again.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::error::{Result, into_error, wrong};
use crate::model::layout::TensorSpec;
use crate::weights::{RawTensor, WeightFormat, tensor_error};

/// Values converted at a time.
const CHUNK: usize = 1 << 16;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Floats: F32, F16 or BF16.
    Float(WeightFormat),
    /// Whole bytes.
    U8,
    /// Whole numbers of 16 bits.
    U16,
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Float(format) => format.name(),
            Self::U8 => "U8",
            Self::U16 => "U16",
        }
    }

    fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Float(WeightFormat::F32) => Some(4),
            Self::Float(WeightFormat::F16 | WeightFormat::Bf16) | Self::U16 => Some(2),
            Self::Float(_) => None,
            Self::U8 => Some(1),
        }
    }

    fn bytes_for_shape(self, shape: &[usize]) -> Option<u64> {
        let element = self.element_bytes()? as u64;
        shape.iter().try_fold(element, |bytes, &dim| bytes.checked_mul(dim as u64))
    }
}

/// A file being written.
pub struct Stream<'a> {
    out: &'a mut dyn Write,
    specs: Vec<(TensorSpec, Store)>,
    next: usize,
    /// Bytes of the next tensor that are written already.
    written: u64,
}

impl<'a> Stream<'a> {
    /// Writes the header for tensors that will follow in this order, all stored as F32, F16 or BF16.
    ///
    /// # Errors
    /// The writer's; [`Error::Tensor`] for another format, a name that comes twice, and sizes that cannot be counted.
    pub fn begin(out: &'a mut dyn Write, specs: Vec<TensorSpec>, format: WeightFormat) -> io::Result<Self> {
        Self::begin_mixed(out, specs.into_iter().map(|spec| (spec, Store::Float(format))).collect())
    }

    /// As [`Stream::begin`], each tensor stored in its own way.
    ///
    /// # Errors
    /// As [`Stream::begin`].
    pub fn begin_mixed(out: &'a mut dyn Write, specs: Vec<(TensorSpec, Store)>) -> io::Result<Self> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0_u64;
        for (spec, store) in &specs {
            let refuse = |problem: &str| Err(wrong(tensor_error("output", &spec.name, problem.into())));
            if store.element_bytes().is_none() {
                return refuse("safetensors files hold F32, F16 or BF16");
            }
            let length = store.bytes_for_shape(&spec.shape);
            let (start, Some(next)) = (end, length.and_then(|n| end.checked_add(n))) else {
                return refuse("is too large");
            };
            end = next;
            let entry = json!({"dtype": store.name(), "shape": spec.shape, "data_offsets": [start, end]});
            if header.insert(spec.name.clone(), entry).is_some() {
                return refuse("comes twice");
            }
        }
        let mut header = Value::Object(header).to_string();
        // Data that starts at a multiple of 8 can be mapped and used in place.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        Ok(Self { out, specs, next: 0, written: 0 })
    }

    /// The tensor that must come next, or `None` when all are written.
    pub fn next(&self) -> Option<&TensorSpec> {
        self.specs.get(self.next).map(|(spec, _)| spec)
    }

    /// Writes the next tensor's values, row-major.
    ///
    /// # Errors
    /// The writer's; [`Error::Tensor`] for a tensor out of order, a wrong number of values, and values that are not
    /// finite in the file's format.
    pub fn tensor(&mut self, name: &str, values: &[f32]) -> io::Result<()> {
        let refuse = |problem: String| Err(wrong(tensor_error("output", name, problem)));
        let Some(spec) = self.next() else { return refuse("comes after the last announced tensor".into()) };
        if spec.name != name {
            return refuse(format!("comes where {} was announced", spec.name));
        }
        if spec.shape.iter().product::<usize>() != values.len() {
            return refuse(format!("expected shape {:?}, got {} values", spec.shape, values.len()));
        }
        self.append(name, values)
    }

    /// Writes some of the next tensor's values; when all of them are there, the next one's turn comes.
    ///
    /// # Errors
    /// As [`Stream::tensor`].
    pub fn append(&mut self, name: &str, values: &[f32]) -> io::Result<()> {
        let refuse = |problem: &str| Err(wrong(tensor_error("output", name, problem.into())));
        let Some(&(_, Store::Float(format))) = self.specs.get(self.next) else {
            return refuse("comes as values where none were announced");
        };
        if values.is_empty() {
            return self.append_bytes(name, &[]);
        }
        for chunk in values.chunks(CHUNK) {
            self.append_bytes(name, &RawTensor::quantise(name, &[chunk.len()], chunk, format).map_err(wrong)?.bytes)?;
        }
        Ok(())
    }

    /// Writes some of the next tensor's bytes as they are stored.
    ///
    /// # Errors
    /// As [`Stream::tensor`].
    pub fn append_bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let refuse = |problem: String| Err(wrong(tensor_error("output", name, problem)));
        let Some((spec, store)) = self.specs.get(self.next) else {
            return refuse("comes after the last announced tensor".into());
        };
        if spec.name != name {
            return refuse(format!("comes where {} was announced", spec.name));
        }
        let all = store.bytes_for_shape(&spec.shape).unwrap_or(0);
        let written = self.written.saturating_add(bytes.len() as u64);
        if written > all {
            return refuse(format!("expected {all} bytes, got {written}"));
        }
        self.out.write_all(bytes)?;
        (self.next, self.written) = if written == all { (self.next + 1, 0) } else { (self.next, written) };
        Ok(())
    }

    /// Checks that everything announced was written, and flushes.
    ///
    /// # Errors
    /// The writer's; [`Error::Tensor`] for the first tensor that is missing.
    pub fn finish(self) -> io::Result<()> {
        match self.specs.get(self.next) {
            Some((spec, _)) => Err(wrong(tensor_error("output", &spec.name, "was announced but not written".into()))),
            None => self.out.flush(),
        }
    }
}

/// A whole file in memory.
///
/// # Errors
/// As [`Stream::tensor`].
pub fn to_bytes<'v>(
    tensors: impl IntoIterator<Item = (TensorSpec, &'v [f32])>,
    format: WeightFormat,
    path: &str,
) -> Result<Vec<u8>> {
    let (specs, values): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    let mut bytes = Vec::new();
    let write = |bytes: &mut Vec<u8>| -> io::Result<()> {
        let mut stream = Stream::begin(bytes, specs.clone(), format)?;
        for (spec, values) in specs.iter().zip(values) {
            stream.tensor(&spec.name, values)?;
        }
        stream.finish()
    };
    write(&mut bytes).map_err(|e| into_error(e, path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::weights::WeightSource;
    use crate::weights::safetensors::SafetensorsFile;
    use std::sync::Arc;

    fn spec(name: &str, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), shape: shape.to_vec() }
    }

    #[test]
    fn what_is_streamed_is_read_back() {
        for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
            let tensors =
                [(spec("b", &[2, 3]), &[1.0, -2.0, 0.5, 0.0, 4.0, 8.0][..]), (spec("a\"é", &[1]), &[3.0][..])];
            let bytes = to_bytes(tensors, format, "x").unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(header % 8, 0);
            let file = SafetensorsFile::open(Arc::new(bytes), "x").unwrap();
            assert_eq!(file.shape("b"), Some(&[2, 3][..]));
            assert_eq!(file.read("b").unwrap().to_f32(), [1.0, -2.0, 0.5, 0.0, 4.0, 8.0]);
            assert_eq!(file.read("a\"é").unwrap().to_f32(), [3.0]);
        }
    }

    #[test]
    fn tensors_that_were_not_announced_so_are_refused() {
        let mut sink = io::sink();
        let announced = || vec![spec("a", &[2]), spec("b", &[1])];
        let mut stream = Stream::begin(&mut sink, announced(), WeightFormat::F32).unwrap();
        assert!(stream.tensor("b", &[1.0]).is_err());
        assert!(stream.tensor("a", &[1.0]).is_err());
        assert!(stream.tensor("a", &[1.0, f32::NAN]).is_err());
        stream.tensor("a", &[1.0, 2.0]).unwrap();
        let error = into_error(stream.finish().unwrap_err(), "x");
        assert!(matches!(&error, Error::Tensor { tensor, .. } if tensor == "b"), "{error}");
        assert!(Stream::begin(&mut sink, vec![spec("a", &[2]), spec("a", &[1])], WeightFormat::F32).is_err());
        assert!(Stream::begin(&mut sink, vec![spec("a", &[32])], WeightFormat::Q8_0).is_err());
        assert!(Stream::begin(&mut sink, vec![spec("a", &[usize::MAX, 2])], WeightFormat::F32).is_err());
    }

    #[test]
    fn a_full_disk_stays_an_io_error() {
        let mut small = [0_u8; 4];
        let mut out = &mut small[..];
        let error = Stream::begin(&mut out, vec![spec("a", &[2])], WeightFormat::F32).err().unwrap();
        assert!(matches!(into_error(error, "model.safetensors"), Error::Io { .. }));
    }
}
