//! What a run trains: a value, its gradient and its optimiser moments, together.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};

use crate::device::Device;
use crate::error::Result;
use crate::kernels::{self, Moments, Weights, elementwise};

/// A named trainable (or frozen) matrix; vectors are stored as `[1, n]`. A clone shares memory until one of them is stepped.
#[derive(Clone)]
pub struct Parameter {
    /// Names of the row ranges that this matrix fuses, in order: one for most, three for a fused q/k/v projection.
    pub parts: Vec<Part>,
    /// The value, `[rows, columns]`; vectors and adapters in single precision.
    pub value: Weights,
    /// Whether gradients are taken.
    pub trained: bool,
    /// Whether the parameter is a vector in files (`[n]` rather than `[1, n]`).
    pub vector: bool,
    /// What weight decay draws it to.
    pub decays_to: f32,
    /// First row within its matrix, where a vocabulary matrix is cut into tiles; else 0.
    pub tile_start: usize,
    /// Gradient of the step under way, if any token reached it.
    pub gradient: Option<Tensor<2>>,
    /// First and second moment of AdamW, made at the first step.
    pub moments: Option<Moments>,
}

/// One named row range of a fused parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Name as in a Hugging Face file.
    pub name: String,
    /// Rows of this part.
    pub rows: usize,
}

impl Parameter {
    /// A parameter of one part.
    pub fn new(name: impl Into<String>, value: impl Into<Weights>, trained: bool) -> Self {
        let value = value.into();
        let rows = value.dims()[0];
        Self::fused(vec![Part { name: name.into(), rows }], value, trained)
    }

    /// A parameter that fuses several named row ranges.
    pub fn fused(parts: Vec<Part>, value: impl Into<Weights>, trained: bool) -> Self {
        let value = value.into();
        Self { parts, value, trained, vector: false, decays_to: 0.0, tile_start: 0, gradient: None, moments: None }
    }

    /// A vector parameter from a `[1, n]` value.
    pub fn vector(parts: Vec<Part>, value: Tensor<2>, trained: bool) -> Self {
        Self { vector: true, ..Self::fused(parts, value, trained) }
    }

    /// Elements.
    pub fn count(&self) -> usize {
        let [rows, columns] = self.value.dims();
        rows * columns
    }

    /// The value as a vector, for kernels that take one.
    pub fn as_vector(&self) -> Tensor<1> {
        let n = self.count();
        self.value.single().clone().reshape([n])
    }

    /// Adds to the gradient.
    ///
    /// # Errors
    /// Device errors.
    pub fn add_gradient(&mut self, device: &Device, gradient: Tensor<2>) -> Result<()> {
        self.gradient = Some(match self.gradient.take() {
            Some(sum) => elementwise::add(device, &sum, gradient)?,
            None => gradient,
        });
        Ok(())
    }

    /// The named parts, in order: name, shape, elements.
    pub fn ranges(&self) -> impl Iterator<Item = (&str, Vec<usize>, Range<usize>)> {
        let columns = self.value.dims()[1];
        let mut at = 0;
        self.parts.iter().map(move |part| {
            // A fused vector is one row: its parts are column ranges.
            let (length, shape) = if self.vector {
                (part.rows, vec![part.rows])
            } else {
                (part.rows * columns, vec![part.rows, columns])
            };
            at += length;
            (part.name.as_str(), shape, at - length..at)
        })
    }

    /// Splits host values into the named parts, in order: name, shape, values.
    pub fn split<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = (&'a str, Vec<usize>, &'a [f32])> {
        self.ranges().map(|(name, shape, elements)| (name, shape, &values[elements]))
    }

    /// The name and the row of an element.
    pub fn locate(&self, element: usize) -> (String, usize) {
        let (name, shape, elements) =
            self.ranges().find(|(.., elements)| elements.contains(&element)).expect("an element of the parameter");
        let columns = if self.vector { 1 } else { shape[1] };
        (name.to_string(), self.tile_start + (element - elements.start) / columns)
    }

    /// Name and row of the first of these host values (the parameter's own, or of its gradient or moments) that is NaN or
    /// infinite.
    pub fn first_non_finite(&self, values: &[f32]) -> Option<(String, usize)> {
        values.iter().position(|value| !value.is_finite()).map(|at| self.locate(at))
    }
}

/// Host values of a tensor.
///
/// # Errors
/// Device errors while reading back.
pub async fn to_host<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    kernels::tensor::read(tensor).await
}

/// A matrix from host values.
pub fn from_host(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device.burn())
}
