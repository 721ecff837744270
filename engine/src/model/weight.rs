//! A matrix of the model: a parameter, or frozen as its file stores it.

use burn::tensor::Tensor;

use super::parameter::{Parameter, Part};
use crate::device::Device;
use crate::error::Result;
use crate::kernels::Packed;
use crate::kernels::matmul::Operand;

/// `[rows, columns]`, trained or frozen.
#[derive(Clone)]
pub enum Weight {
    /// In single precision, or in bf16 where it is trained so.
    Dense(Parameter),
    /// As the file stores it, with the names and rows of its parts; expanded each time it is used.
    Packed(Packed, Vec<Part>),
}

impl From<Parameter> for Weight {
    fn from(parameter: Parameter) -> Self {
        Self::Dense(parameter)
    }
}

impl Weight {
    /// As one side of a product.
    pub fn operand(&self) -> Operand<2> {
        match self {
            Self::Dense(parameter) => Operand::from(&parameter.value),
            Self::Packed(packed, _) => Operand::from(packed),
        }
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(parameter) => parameter.value.dims(),
            Self::Packed(packed, _) => [packed.rows(), packed.columns()],
        }
    }

    /// Names and rows of what is fused in it.
    pub fn parts(&self) -> &[Part] {
        match self {
            Self::Dense(parameter) => &parameter.parts,
            Self::Packed(_, parts) => parts,
        }
    }

    /// The parameter, where it is one.
    pub fn parameter(&self) -> Option<&Parameter> {
        match self {
            Self::Dense(parameter) => Some(parameter),
            Self::Packed(..) => None,
        }
    }

    /// The parameter, where it is one.
    pub fn parameter_mut(&mut self) -> Option<&mut Parameter> {
        match self {
            Self::Dense(parameter) => Some(parameter),
            Self::Packed(..) => None,
        }
    }

    /// The parameter, where it is trained.
    pub fn trained_mut(&mut self) -> Option<&mut Parameter> {
        self.parameter_mut().filter(|parameter| parameter.trained)
    }

    /// Rows `indices - start`, `[indices, columns]`; zero rows where an index lies outside.
    ///
    /// # Errors
    /// Device errors.
    pub fn gather(&self, device: &Device, indices: &[u32], start: usize) -> Result<Tensor<2>> {
        match self {
            Self::Dense(parameter) => parameter.value.gather(device, indices, start),
            Self::Packed(packed, _) => Ok(packed.gather(device, indices, start)),
        }
    }
}
