//! Bytes that kernels rewrite: halves of weights, codes of moments.

use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use burn_wgpu::{CubeBackend, CubeTensor};

use super::record::submit_all;
use super::tensor::{answer, upload};
use crate::device::Device;
use crate::error::{Error, Result};

/// Bytes in the host's memory on the CPU, and as little-endian words, the last one padded, on a GPU. A clone shares them
/// until one of the two is rewritten.
#[derive(Clone)]
pub struct Words {
    place: Place,
    length: usize,
}

#[derive(Clone)]
enum Place {
    Host(Arc<Vec<u8>>),
    Device(CubeTensor),
}

impl Words {
    /// These bytes on a device.
    pub fn new(device: &Device, bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        let place = match device.is_cpu() {
            true => Place::Host(Arc::new(bytes)),
            false => Place::Device(upload(device, words(&bytes))),
        };
        Self { place, length }
    }

    /// So many zeros.
    pub fn zeros(device: &Device, length: usize) -> Self {
        Self::new(device, vec![0; length])
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True without any byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Host memory of bytes on the CPU; `None` on a GPU.
    pub fn on_host(&self) -> Option<&Arc<Vec<u8>>> {
        match &self.place {
            Place::Host(bytes) => Some(bytes),
            Place::Device(_) => None,
        }
    }

    /// Host memory of bytes on the CPU, to be rewritten; copied first where others share it.
    ///
    /// # Panics
    /// On a GPU: a bug, since callers branch on the device.
    pub fn host_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Place::Host(bytes) => Arc::make_mut(bytes).as_mut_slice(),
            Place::Device(_) => panic!("a CPU kernel was given bytes of a GPU"),
        }
    }

    /// Device memory of bytes on a GPU.
    ///
    /// # Panics
    /// On the CPU: a bug, since callers branch on the device.
    pub fn gpu(&self) -> &CubeTensor {
        match &self.place {
            Place::Device(words) => words,
            Place::Host(_) => panic!("a GPU kernel was given bytes of the CPU"),
        }
    }

    /// As [`Words::gpu`], to be rewritten; copied first where others share it.
    ///
    /// # Panics
    /// As [`Words::gpu`].
    pub fn gpu_mut(&mut self) -> &CubeTensor {
        if let Place::Device(words) = &mut self.place
            && !words.handle.can_mut()
        {
            submit_all();
            *words = words.copy();
        }
        self.gpu()
    }

    /// The bytes on the host.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn read(&self) -> Result<Cow<'_, [u8]>> {
        let words = match &self.place {
            Place::Host(bytes) => return Ok(Cow::Borrowed(bytes)),
            Place::Device(words) => Tensor::<1, Int>::from_primitive::<CubeBackend>(words.clone()),
        };
        let data = answer(&words.device(), || words.clone().into_data_async()).await?;
        let lost = |problem: String| Error::Lost { problem: format!("reading bytes back failed: {problem}") };
        let words = data.try_into_vec::<i32>().map_err(|e| lost(format!("{e:?}")))?;
        let mut bytes: Vec<u8> = words.into_iter().flat_map(i32::to_le_bytes).collect();
        bytes.truncate(self.length);
        Ok(Cow::Owned(bytes))
    }
}
/// Little-endian words, the last one padded with zeros.
fn words(bytes: &[u8]) -> Vec<i32> {
    let word = |word: &[u8]| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        i32::from_le_bytes(padded)
    };
    bytes.chunks(4).map(word).collect()
}
