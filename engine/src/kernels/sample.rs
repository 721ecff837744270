//! Small inputs for the self-test (`crate::probe`): each operation gives its cases as a `SELF_TEST` beside its launch.

use burn::tensor::{Tensor, TensorData};

use super::tensor::Indices;
use crate::device::Device;
use crate::error::Result;
use crate::rng::Rng;

/// A kernel's stem and a launch of it, whose results are its answer.
pub type Case = (&'static str, fn(&Device) -> Result<Vec<Tensor<1>>>);

/// Largest difference relative to the largest element of `want`, and what is wrong where that is above `tolerance`; NaN is.
pub fn compare(got: &[f32], want: &[f32], tolerance: f32) -> (f32, String) {
    if got.len() != want.len() {
        return (-1.0, format!("{} values, expected {}", got.len(), want.len()));
    }
    let largest = want.iter().fold(0.0_f32, |largest, v| largest.max(v.abs())).max(f32::MIN_POSITIVE);
    let mut error = 0.0_f32;
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let difference = (got - want).abs() / largest;
        if !difference.is_finite() {
            return (-1.0, format!("element {at} is {got}, expected {want}"));
        }
        error = error.max(difference);
    }
    match error <= tolerance {
        true => (error, String::new()),
        false => (error, format!("differs by {error:.1e} of its largest element, allowed are {tolerance:.0e}")),
    }
}

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

/// Logits of another model for the rows of [`logits`].
pub fn other_logits(device: &Device) -> Tensor<2> {
    logits(device) + matrix(device, 25, ROWS, VOCAB)
}

/// A label for each row of [`logits`].
pub fn labels(device: &Device) -> Indices {
    Indices::new(device, vec![0, 1, 77, 150, 298, 299])
}
