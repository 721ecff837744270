//! Small inputs for the self-test (`crate::probe`): each operation gives its cases as a `SELF_TEST` beside its launch.

use burn::tensor::{Tensor, TensorData};

use super::tensor::Indices;
use crate::device::Device;
use crate::error::Result;
use crate::rng::Rng;

/// A kernel's stem and a launch of it, whose results are its answer.
pub type Case = (&'static str, fn(&Device) -> Result<Vec<Tensor<1>>>);

/// Rows of [`logits`].
pub const ROWS: usize = 6;
const VOCAB: usize = 300;

/// Values in [-1, 1).
pub fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| (2.0 * rng.uniform() - 1.0) as f32).collect()
}

/// `[rows, columns]` of [`random`].
pub fn matrix(device: &Device, seed: u64, rows: usize, columns: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(random(seed, rows * columns), [rows, columns]), device.burn())
}

/// `[length]` of [`random`].
pub fn vector(device: &Device, seed: u64, length: usize) -> Tensor<1> {
    matrix(device, seed, 1, length).reshape([length])
}

/// `[ROWS, 300]`, far enough apart for every kind of gate.
pub fn logits(device: &Device) -> Tensor<2> {
    matrix(device, 24, ROWS, VOCAB) * 6.0
}

/// A label for each row of [`logits`].
pub fn labels(device: &Device) -> Indices {
    Indices::new(device, vec![0, 1, 77, 150, 298, 299])
}
