//! How a trained parameter lies in memory: its weights in single precision or in bf16, its moments in single precision or in
//! 8 bits.
//!
//! **Weights.** bf16 is the upper half of single precision. A step of training is often smaller than the distance between two
//! bf16, so that rounding to nearest would undo it. Either the rounding is left to chance, in proportion (stochastic rounding:
//! Gupta et al., "Deep Learning with Limited Numerical Precision", 2015; of weights in training Zamirai et al., "Revisiting
//! BFloat16 Training", 2020), so that the mean of what is stored is what the step gave; or the lower half is kept as well
//! (Kalamkar et al., "Optimizing Deep Learning Recommender Systems' Training On CPU Cluster Architectures", 2020, split SGD):
//! products read bf16, steps read single precision, and nothing is lost. The latter takes 4 bytes a parameter, as single
//! precision does.
//!
//! **Moments.** Blocks of 256 share a scale, their largest number (Dettmers et al., "8-bit Optimizers via Block-wise
//! Quantization", 2022), so that one large number coarsens only its neighbours. A code is a small float: of the first moment a
//! sign, 4 bits of exponent and 3 of mantissa (like the first moments of Peng et al., "FP8-LM", 2023); of the root of the
//! second moment 4 bits of each, since the root is what a step divides by. So the relative error is at most an eighth or a
//! sixteenth over 16 powers of two, where the paper's dynamic tree goes from a hundredth near the largest number to a half near
//! the smallest, and a code is made by adding and shifting, without a table. What is rounded is left to chance here too: in a
//! step a second moment changes by a thousandth, which rounding to nearest would never see. A root that is not 0 never becomes
//! 0; too large a number there makes a step small, 0 would make it huge.
//!
//! What chance decides is a function of the seed and the element (`shaders/shared/random.wgsl`), so that a resumed run makes the
//! same decisions, and so does another device.

use burn::tensor::Tensor;
use temper_shaders::compact::BLOCK;

use super::cpu;
use super::matmul::Operand;
use super::tensor::read;
use super::{Packed, Words, elementwise};
use crate::device::Device;
use crate::error::Result;
use crate::weights::{RawTensor, WeightFormat};

/// Weights of a parameter, `[rows, columns]`. A clone shares memory until one of the two is stepped.
#[derive(Clone)]
pub enum Weights {
    /// In single precision.
    F32(Tensor<2>),
    /// In bf16.
    Bf16(Bf16),
}

/// A matrix in bf16.
#[derive(Clone)]
pub struct Bf16 {
    /// What products read, `[rows, columns]` of 16 bits.
    pub upper: Words,
    /// What is missing to single precision, where it is kept.
    pub lower: Option<Words>,
    shape: [usize; 2],
}

impl From<Tensor<2>> for Weights {
    fn from(values: Tensor<2>) -> Self {
        Self::F32(values)
    }
}

impl From<&Weights> for Operand<2> {
    fn from(weights: &Weights) -> Self {
        match weights {
            Weights::F32(values) => Self::from(values),
            Weights::Bf16(matrix) => Self::from(&matrix.packed()),
        }
    }
}

impl Weights {
    /// Matrices of `columns` inputs below each other, in bf16; with `split` the lower halves too.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] for values that bf16 does not hold.
    pub fn bf16(device: &Device, raws: Vec<RawTensor>, columns: usize, split: bool) -> Result<Self> {
        let rows = raws.iter().map(|raw| raw.elements() / columns.max(1)).sum();
        let mut upper = Vec::new();
        let mut lower = Vec::new();
        for raw in raws {
            if split {
                halve(&raw, &mut upper, &mut lower);
            } else if raw.format == WeightFormat::Bf16 && upper.is_empty() {
                upper = raw.bytes;
            } else if raw.format == WeightFormat::Bf16 {
                upper.extend_from_slice(&raw.bytes);
            } else {
                upper.extend(raw.stored_as(WeightFormat::Bf16)?.bytes);
            }
        }
        let lower = split.then(|| Words::new(device, lower));
        Ok(Self::Bf16(Bf16 { upper: Words::new(device, upper), lower, shape: [rows, columns] }))
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::F32(values) => values.dims(),
            Self::Bf16(matrix) => matrix.shape,
        }
    }

    /// The transpose, as one side of a product.
    pub fn transposed(&self) -> Operand<2> {
        Operand::from(self).transposed()
    }

    /// Of what is always in single precision: vectors and adapters.
    ///
    /// # Panics
    /// On bf16: a bug, since only matrices of a model are held so.
    pub fn single(&self) -> &Tensor<2> {
        match self {
            Self::F32(values) => values,
            Self::Bf16(_) => panic!("a vector or an adapter in bf16"),
        }
    }

    /// Rows `indices - start`, `[indices, columns]`; zero rows where an index lies outside.
    ///
    /// # Errors
    /// Device errors.
    pub fn gather(&self, device: &Device, indices: &[u32], start: usize) -> Result<Tensor<2>> {
        match self {
            Self::F32(values) => elementwise::gather_rows(device, values, indices, start),
            Self::Bf16(matrix) if device.is_cpu() => Ok(matrix.packed().gather(device, indices, start)),
            // Rows by index want the bytes on the host, and these change with each step.
            Self::Bf16(matrix) => elementwise::gather_rows(device, &matrix.packed().dense(device)?, indices, start),
        }
    }

    /// What products read, in single precision on the host.
    ///
    /// # Errors
    /// Device errors while reading back.
    pub async fn read(&self) -> Result<Vec<f32>> {
        match self {
            Self::F32(values) => read(values).await,
            Self::Bf16(matrix) => Ok(WeightFormat::Bf16.to_f32(&matrix.upper.read().await?)),
        }
    }
}

impl Bf16 {
    /// A matrix of these halves, as they lie in a file.
    pub fn new(upper: Words, lower: Option<Words>, shape: [usize; 2]) -> Self {
        Self { upper, lower, shape }
    }

    /// As products take it.
    pub fn packed(&self) -> Packed {
        Packed::of_words(&self.upper, WeightFormat::Bf16, self.shape)
    }
}

/// Cuts values into two halves of 16 bits, piece by piece: they never exist in f32 as a whole.
fn halve(raw: &RawTensor, upper: &mut Vec<u8>, lower: &mut Vec<u8>) {
    const PIECE: usize = 1 << 16;
    let bytes = PIECE / raw.format.block_elements() * raw.format.block_bytes();
    for piece in raw.bytes.chunks(bytes) {
        let values = raw.format.to_f32(piece);
        let start = upper.len();
        upper.resize(start + 2 * values.len(), 0);
        lower.resize(start + 2 * values.len(), 0);
        cpu::split(&values, &mut upper[start..], &mut lower[start..]);
    }
}

/// First and second moment of a parameter.
#[derive(Clone)]
pub enum Moments {
    /// In single precision, `[rows, columns]` each.
    F32(Tensor<2>, Tensor<2>),
    /// In 8 bits: the first moment, and the root of the second.
    Coded([Coded; 2]),
}

/// Codes of 8 bits with their scales.
#[derive(Clone)]
pub struct Coded {
    /// One an element.
    pub codes: Words,
    /// One a block of [`BLOCK`] elements: what the largest code stands for.
    pub scales: Tensor<1>,
}

impl Coded {
    /// Scales of so many elements.
    pub fn blocks(count: usize) -> usize {
        count.div_ceil(BLOCK)
    }
}

impl Moments {
    /// Of a parameter that was never stepped.
    pub fn zeros(device: &Device, [rows, columns]: [usize; 2], coded: bool) -> Self {
        if !coded {
            let zeros = || Tensor::<2>::zeros([rows, columns], device.burn());
            return Self::F32(zeros(), zeros());
        }
        let count = rows * columns;
        let zeros = || Coded {
            codes: Words::zeros(device, count),
            scales: Tensor::zeros([Coded::blocks(count)], device.burn()),
        };
        Self::Coded([zeros(), zeros()])
    }

    /// Both in single precision on the host.
    ///
    /// # Errors
    /// Device errors while reading back.
    pub async fn read(&self) -> Result<[Vec<f32>; 2]> {
        match self {
            Self::F32(first, second) => Ok([read(first).await?, read(second).await?]),
            Self::Coded(both) => {
                let mut values = [Vec::new(), Vec::new()];
                let expand = [cpu::first_values, cpu::second_values];
                for ((coded, out), expand) in both.iter().zip(&mut values).zip(expand) {
                    let (codes, scales) = (coded.codes.read().await?, read(&coded.scales).await?);
                    out.resize(codes.len(), 0.0);
                    for ((codes, out), scale) in codes.chunks(BLOCK).zip(out.chunks_mut(BLOCK)).zip(scales) {
                        expand(codes, scale, out);
                    }
                }
                Ok(values)
            }
        }
    }
}
