//! A LoRA adapter put into the weights that it was trained on: `W + scale B A`, one matrix at a time; and as
//! llama.cpp's adapter file, which leaves them as they are.
//!
//! Source of the file's format: llama.cpp's `convert_lora_to_gguf.py` and `src/llama-adapter.cpp`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::gguf::{Announced, Field, write};
use crate::error::{Error, Result, wrong};
use crate::kernels::cpu::par;
use crate::model::adapter::{AdapterValues, LoraSettings, Pair, check_pair};
use crate::model::architecture::Architecture;
use crate::model::files::ModelFiles;
use crate::model::gguf::{permute, stored_tensors, written_as};
use crate::model::layout::is_head;
use crate::model::load::Hold;
use crate::weights::{RawTensor, WeightFormat, WeightSource};

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
