//! A LoRA adapter put into the weights that it was trained on: `W + scale B A`, one matrix at a time; and as
//! llama.cpp's adapter file, which leaves them as they are.
//!
//! Source of the file's format: llama.cpp's `convert_lora_to_gguf.py` and `src/llama-adapter.cpp`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::gguf::{Announced, Field, write};
use super::recipe::{Matrix, Recipe};
use crate::error::{Error, Result, wrong};
use crate::kernels::cpu::par;
use crate::model::adapter::{AdapterValues, LoraSettings, Pair, check_pair};
use crate::model::architecture::Architecture;
use crate::model::files::ModelFiles;
use crate::model::gguf::{permute, stored_tensors, written_as};
use crate::model::layout::is_head;
use crate::model::load::Hold;
use crate::weights::{RawTensor, WeightFormat, WeightSource};

/// First rows of a matrix that tell what rounding leaves of its adapter: enough for a share of all, and soon rounded.
const SAMPLED_ROWS: usize = 128;

/// A trained adapter, as it was read.
pub struct Adapter {
    /// Rank, alpha and targets.
    pub settings: LoraSettings,
    /// Its matrices.
    pub values: AdapterValues,
    /// Its folder, for messages.
    pub file: String,
    /// How the matrices were held that it was trained on, and that it is added to.
    pub base: Hold,
}

impl Adapter {
    /// The pairs under the names of the tensors they belong to: `(in a GGUF file, in Hugging Face's, pair)`; rows of `B` are in
    /// Hugging Face's order, or in that of a GGUF file where `permuted`.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a pair that fits no matrix of the model.
    fn of_tensors(&self, arch: &Architecture, permuted: bool) -> Result<Vec<(String, String, Pair)>> {
        let mut left: BTreeMap<&str, &Pair> =
            self.values.iter().map(|(module, pair)| (module.as_str(), pair)).collect();
        let mut pairs = Vec::new();
        for stored in stored_tensors(arch) {
            let (Some(module), &[rows, columns]) = (stored.spec.name.strip_suffix(".weight"), &*stored.spec.shape)
            else {
                continue;
            };
            // Only matrices of blocks are adapted.
            let found = stored.name.starts_with("blk.").then(|| left.remove(module)).flatten();
            let Some(pair) = found else { continue };
            check_pair(pair, self.settings.rank, [rows, columns], &self.file, module)?;
            let (a, b) = pair;
            let b = match stored.permuted_head.filter(|_| permuted) {
                Some(head) => permute(b, rows, head),
                None => b.clone(),
            };
            pairs.push((stored.name, stored.spec.name.clone(), (a.clone(), b)));
        }
        match left.keys().next() {
            Some(module) => {
                let problem = "fits no linear layer of the model's blocks".into();
                Err(Error::Tensor { file: self.file.clone(), tensor: (*module).into(), problem })
            }
            None => Ok(pairs),
        }
    }

    /// A model's files with the adapter in their weights.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a pair that fits no matrix of the model; [`Error::Missing`] for files without weights.
    pub fn merged_into(&self, files: ModelFiles) -> Result<ModelFiles> {
        let Some(weights) = &files.weights else {
            return Err(Error::Missing { path: self.file.clone(), problem: "its model has no weights".into() });
        };
        let pairs = self.of_tensors(&files.architecture, false)?;
        let pairs = pairs.into_iter().map(|(_, name, pair)| (name, pair)).collect();
        let weights: Arc<dyn WeightSource> = Arc::new(self.added(weights.clone(), &files.architecture, pairs));
        Ok(ModelFiles { weights: Some(weights), ..files })
    }

    /// A GGUF file's tensors, as it names and orders them, with the adapter in them.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a pair that fits no matrix of the model.
    pub fn merged_into_gguf(&self, base: Arc<dyn WeightSource>, arch: &Architecture) -> Result<Arc<dyn WeightSource>> {
        let pairs = self.of_tensors(arch, true)?.into_iter().map(|(name, _, pair)| (name, pair)).collect();
        Ok(Arc::new(self.added(base, arch, pairs)))
    }

    /// How much of the adapter is left in this model's weights where `to` stores the sum, over a sample of every matrix that it
    /// changes: `<round(W + D) - round(W), D> / <D, D>`, with `D = scale B A`. It is 1 but where the weights lie on a grid and
    /// `D` is small beside the steps between the format's numbers: rounding up and down does not even out there. None for an
    /// adapter that changes nothing.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a pair that fits no matrix of the model, and for what the format has no room for;
    /// [`Error::Io`] where the host cannot read.
    pub fn left_in(&self, base: &dyn WeightSource, arch: &Architecture, to: Recipe) -> Result<Option<f64>> {
        let (rank, scale) = (self.settings.rank, self.settings.scale() as f32);
        let (mut left, mut all) = (0.0, 0.0);
        for (in_gguf, name, pair) in self.of_tensors(arch, false)? {
            // Adapted matrices are of blocks, so none is the head.
            let held = self.base.frozen(first_rows(base.read(&name)?), false)?;
            let matrix = Matrix { name: &in_gguf, row: held.shape[1], layers: arch.layers, tied: arch.tied_head };
            let products = products_after_rounding(&held, &pair, rank, scale, to.format(matrix))?;
            left += products[0];
            all += products[1];
        }
        Ok((all > 0.0).then(|| left / all))
    }

    fn added(&self, base: Arc<dyn WeightSource>, arch: &Architecture, pairs: BTreeMap<String, Pair>) -> Merged {
        let scale = self.settings.scale() as f32;
        Merged { base, hold: self.base, tied: arch.tied_head, pairs, rank: self.settings.rank, scale }
    }

    /// Writes the adapter for llama.cpp (`--lora`), of a model of this architecture: its pairs in f32, under the names of the
    /// tensors they belong to.
    ///
    /// # Errors
    /// The writer's; an [`Error`] inside for a pair that fits no matrix of the model (see [`crate::error::into_error`]).
    pub fn write_gguf(&self, arch: &Architecture, out: &mut dyn Write) -> io::Result<()> {
        let pairs = self.of_tensors(arch, true).map_err(wrong)?;
        let text = |value: &str| Field::Text(value.into());
        let fields = [
            ("general.architecture", text(written_as(arch).gguf_architecture.unwrap_or_default())),
            ("general.type", text("adapter")),
            ("adapter.type", text("lora")),
            // llama.cpp divides it by the rank.
            ("adapter.lora.alpha", Field::Number((self.settings.scale() * self.settings.rank as f64) as f32)),
            ("general.file_type", Field::Count(0)),
        ]
        .map(|(key, field)| (key.to_string(), field));
        let rank = self.settings.rank;
        let mut tensors = Vec::new();
        for (name, _, (a, b)) in &pairs {
            for (end, shape) in [("lora_a", [rank, a.len() / rank]), ("lora_b", [b.len() / rank, rank])] {
                let name = format!("{name}.{end}");
                tensors.push(Announced { name, shape: shape.to_vec(), format: WeightFormat::F32 });
            }
        }
        write(out, &fields, &tensors, &mut |index, out| {
            let (_, _, (a, b)) = &pairs[index / 2];
            let values = if index % 2 == 0 { a } else { b };
            values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
        })
    }
}

/// Weights with an adapter in them. A matrix that it changes is in f32, every other tensor as it was held.
struct Merged {
    base: Arc<dyn WeightSource>,
    hold: Hold,
    /// The head is the embedding.
    tied: bool,
    /// By the name of the tensor.
    pairs: BTreeMap<String, Pair>,
    rank: usize,
    scale: f32,
}

impl WeightSource for Merged {
    fn names(&self) -> Vec<String> {
        self.base.names()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.base.shape(name)
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        let (stored, shape) = (self.base.format(name)?, self.base.shape(name)?);
        match shape {
            _ if self.pairs.contains_key(name) => Some(WeightFormat::F32),
            &[_, row] => Some(self.hold.format(is_head(name, self.tied), row).unwrap_or(stored)),
            _ => Some(stored),
        }
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let mut raw = self.base.read(name)?;
        if raw.shape.len() == 2 {
            raw = self.hold.frozen(raw, is_head(name, self.tied))?;
        }
        let Some((a, b)) = self.pairs.get(name) else { return Ok(raw) };
        let mut values = raw.to_f32();
        add_product(&mut values, a, b, self.rank, self.scale);
        Ok(RawTensor::from_f32(name, raw.shape, &values))
    }

    fn file_of(&self, name: &str) -> String {
        self.base.file_of(name)
    }
}

fn first_rows(mut matrix: RawTensor) -> RawTensor {
    let (rows, row_bytes) = (matrix.shape[0], matrix.bytes.len() / matrix.shape[0]);
    matrix.shape[0] = rows.min(SAMPLED_ROWS);
    matrix.bytes.truncate(matrix.shape[0] * row_bytes);
    matrix
}

/// `<round(W + D) - round(W), D>` and `<D, D>`, with `D = scale B A`, of the first rows of a matrix.
fn products_after_rounding(
    held: &RawTensor,
    (a, b): &Pair,
    rank: usize,
    scale: f32,
    format: WeightFormat,
) -> Result<[f64; 2]> {
    let rounded = |values: &[f32]| -> Result<Vec<f32>> {
        Ok(RawTensor::quantise(&held.name, &held.shape, values, format)?.to_f32())
    };
    let mut values = held.to_f32();
    let without = rounded(&values)?;
    add_product(&mut values, a, b, rank, scale);
    let with = rounded(&values)?;
    values.fill(0.0);
    add_product(&mut values, a, b, rank, scale);
    let mut products = [0.0; 2];
    for ((with, without), change) in with.iter().zip(&without).zip(&values) {
        let change = f64::from(*change);
        products[0] += (f64::from(*with) - f64::from(*without)) * change;
        products[1] += change * change;
    }
    Ok(products)
}

/// `W += scale B A`, with `W [out, in]`, `A [rank, in]`, `B [out, rank]`.
fn add_product(w: &mut [f32], a: &[f32], b: &[f32], rank: usize, scale: f32) {
    let columns = a.len() / rank;
    let rows = par::rows_per_task(columns);
    par::pieces(w, rows * columns, |index, piece| {
        let factors = b[index * rows * rank..].chunks_exact(rank);
        for (row, factors) in piece.chunks_exact_mut(columns).zip(factors) {
            for (factor, from) in factors.iter().zip(a.chunks_exact(columns)) {
                let factor = scale * factor;
                row.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of an adapter that adds `change` to every element of a matrix of ones, more rows than the sample has.
    fn left_of(change: f32, format: WeightFormat) -> f64 {
        let (rows, columns) = (SAMPLED_ROWS + 2, 32);
        let ones = RawTensor::from_f32("w", vec![rows, columns], &vec![1.0; rows * columns]);
        // Each of two ranks adds half of it.
        let pair = (vec![change; 2 * columns], vec![0.25; 2 * rows]);
        let [left, all] = products_after_rounding(&first_rows(ones), &pair, 2, 2.0, format).unwrap();
        let expected = (SAMPLED_ROWS * columns) as f64 * f64::from(change).powi(2);
        assert!((all / expected - 1.0).abs() < 1e-6, "{all} and not {expected}");
        left / all
    }

    #[test]
    fn what_rounding_leaves_of_an_adapter_is_all_in_f32_and_on_a_grid_nothing_or_too_much_in_fewer_bits() {
        // Beside 1 the steps of f16 are 2^-10, and those of bf16 2^-7.
        let step = 1.0 / 1024.0;
        for (share, format, expected) in [
            (0.25, WeightFormat::F32, 1.0),
            (0.25, WeightFormat::F16, 0.0),
            (0.75, WeightFormat::F16, 1.0 / 0.75),
            (3.0, WeightFormat::F16, 1.0),
            (3.0, WeightFormat::Bf16, 0.0),
            (8.0, WeightFormat::Bf16, 1.0),
        ] {
            let left = left_of(share * step, format);
            assert!((left - expected).abs() < 1e-3, "{share} steps in {}: {left} and not {expected}", format.name());
        }
    }
}
