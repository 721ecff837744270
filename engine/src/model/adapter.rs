//! LoRA pairs on a model's linear layers: fresh ones, and those of a PEFT adapter.
//!
//! Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021); initial values as PEFT sets them.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::Model;
use super::architecture::Architecture;
use super::layout::Part;
use super::linear::{Lora, LoraScale};
use super::load::name_hash;
use super::parameter::{Parameter, from_host};
use super::settings::{AdapterKind, AdapterSection, Targets};
use crate::error::{Error, Result};
use crate::kernels::Columns;
use crate::rng::{Rng, mix};

/// Hyperparameters of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSettings {
    /// LoRA rank.
    pub rank: usize,
    /// LoRA alpha, of which [`LoraSettings::scale`] is made.
    pub alpha: f64,
    /// Rank-stabilised (rsLoRA, arXiv 2312.03732).
    pub rslora: bool,
    /// Share of inputs dropped before `A`, in training.
    pub dropout: f64,
    /// Modules that get a pair, such as `q_proj`; empty means every linear layer but the head.
    pub targets: Vec<String>,
    /// Only some layers' modules have one (PEFT's `layers_to_transform`): those of others stay as they are.
    pub some_layers: bool,
}

impl LoraSettings {
    /// What the low-rank term is multiplied by: alpha / rank, or alpha / sqrt(rank) where it is rank-stabilised.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// In which settings one that goes on from `other` differs from it and cannot: the key, and what is wrong. One without targets
    /// has those that the model has, of which it is told nothing here.
    pub fn problems_beside(&self, other: &Self) -> Vec<(&'static str, String)> {
        let targets = |settings: &Self| {
            let mut names: Vec<&str> = settings.targets.iter().map(String::as_str).collect();
            names.sort_unstable();
            names.dedup();
            names.join(", ")
        };
        let values = |settings: &Self| {
            [
                ("rank", settings.rank.to_string()),
                ("alpha", settings.alpha.to_string()),
                ("rslora", settings.rslora.to_string()),
                ("targets", targets(settings)),
            ]
        };
        let both = values(self).into_iter().zip(values(other));
        both.filter(|((_, own), (_, its))| own != its && !own.is_empty() && !its.is_empty())
            .map(|((key, own), (_, its))| {
                (key, format!("is {own}, and in the adapter to go on from {its}; leave it out"))
            })
            .collect()
    }

    /// Refuses targets that no block of a model has.
    ///
    /// # Errors
    /// [`Error::Config`] for each, listing those that it has.
    pub fn check(&self, arch: &Architecture) -> Result<()> {
        let block = arch.block(0);
        let modules: Vec<&str> =
            block.linears().flat_map(|linear| &linear.modules).filter_map(|m| m.name.rsplit('.').next()).collect();
        let unknown = self.targets.iter().filter(|target| !modules.contains(&target.as_str()));
        let problem = |t| format!("[adapter] targets: this model has no module {t:?}; it has {}", modules.join(", "));
        let problems: Vec<String> = unknown.map(problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Config { problems }) }
    }
}

impl From<&AdapterSection> for LoraSettings {
    fn from(section: &AdapterSection) -> Self {
        Self {
            rank: section.rank,
            alpha: section.alpha,
            rslora: section.rslora,
            dropout: section.dropout,
            targets: match &section.targets {
                Targets::AllLinear => Vec::new(),
                Targets::Names(names) => names.clone(),
            },
            some_layers: false,
        }
    }
}

impl From<&LoraSettings> for AdapterSection {
    fn from(settings: &LoraSettings) -> Self {
        Self {
            kind: AdapterKind::Lora,
            from: None,
            rank: settings.rank,
            alpha: settings.alpha,
            rslora: settings.rslora,
            dropout: settings.dropout,
            targets: match settings.targets.as_slice() {
                [] => Targets::AllLinear,
                names => Targets::Names(names.to_vec()),
            },
        }
    }
}

/// `A [rank, in]` and `B [out, rank]` of a matrix, row-major.
pub type Pair = (Vec<f32>, Vec<f32>);

/// An adapter's pairs by PEFT key stem (`model.layers.0.self_attn.q_proj`).
pub type AdapterValues = BTreeMap<String, Pair>;

/// Refuses a pair that is not of this rank, or of another matrix than one of `[rows, columns]`; `file` and `module` say whose
/// it is.
///
/// # Errors
/// [`Error::Tensor`] with what was expected.
pub fn check_pair((a, b): &Pair, rank: usize, [rows, columns]: [usize; 2], file: &str, module: &str) -> Result<()> {
    if a.len() == rank * columns && b.len() == rows * rank {
        return Ok(());
    }
    let expected = format!("lora_A [{rank}, {columns}] and lora_B [{rows}, {rank}]");
    let problem = format!("expected {expected}, got {} and {} values", a.len(), b.len());
    Err(Error::Tensor { file: file.into(), tensor: module.into(), problem })
}

impl Model {
    /// Puts a fresh pair on every target: `A` uniform in ±1/sqrt(in) (PEFT's Kaiming uniform with a = sqrt 5), `B` zero.
    ///
    /// # Errors
    /// [`Error::Config`] for a target that the model does not have, listing those it has, and for a rank above the width
    /// of a layer.
    pub fn add_lora(&mut self, settings: &LoraSettings, seed: u64) -> Result<()> {
        self.attach(settings, &mut |name, inputs, outputs, rank| {
            if rank > inputs.max(outputs) {
                let problem =
                    format!("[adapter] rank: {rank} is above the width of {name} ({inputs} inputs, {outputs} outputs)");
                return Err(Error::Config { problems: vec![problem] });
            }
            let mut rng = Rng::new(mix(seed, name_hash(name)));
            let bound = 1.0 / (inputs as f64).sqrt();
            let a = (0..rank * inputs).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
            Ok(Some((a, vec![0.0; outputs * rank])))
        })
    }

    /// Puts the pairs of a saved adapter on the model.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a missing or mis-shaped matrix, or one that fits no layer.
    pub fn load_lora(&mut self, settings: &LoraSettings, mut values: AdapterValues, file: &str) -> Result<()> {
        let wrong = |tensor: &str, problem: String| Error::Tensor { file: file.into(), tensor: tensor.into(), problem };
        self.attach(settings, &mut |name, inputs, outputs, rank| {
            let pair = values.remove(name);
            match &pair {
                Some(pair) => check_pair(pair, rank, [outputs, inputs], file, name)?,
                None if settings.some_layers => {}
                None => return Err(wrong(name, "has no lora_A and lora_B".into())),
            }
            Ok(pair)
        })?;
        match values.keys().next() {
            Some(extra) => Err(wrong(extra, "fits no targeted layer of the model".into())),
            None => Ok(()),
        }
    }

    #[allow(clippy::type_complexity, reason = "the closure's signature is the whole contract and is used once")]
    fn attach(
        &mut self,
        settings: &LoraSettings,
        values: &mut dyn FnMut(&str, usize, usize, usize) -> Result<Option<Pair>>,
    ) -> Result<()> {
        settings.check(&self.arch)?;
        let rank = settings.rank;
        for block in &mut self.blocks {
            let device = self.placement.of_block(block.index);
            for part in block.parts_mut() {
                let Part::Linear(linear) = part else { continue };
                linear.lora_scale = LoraScale { scale: settings.scale() as f32, dropout: settings.dropout as f32 };
                let inputs = linear.inputs();
                let mut offset = 0;
                for part in linear.parts().to_vec() {
                    let columns = Columns { offset, width: part.rows };
                    offset += part.rows;
                    let stem = part.name.strip_suffix(".weight").unwrap_or(&part.name);
                    let module = stem.rsplit('.').next().unwrap_or(stem);
                    if !settings.targets.is_empty() && !settings.targets.iter().any(|t| t == module) {
                        continue;
                    }
                    let Some((a, b)) = values(stem, inputs, part.rows, rank)? else { continue };
                    let a: Tensor<2> = from_host(a, [rank, inputs], device);
                    let b: Tensor<2> = from_host(b, [part.rows, rank], device);
                    linear.lora.push(Lora {
                        a: Parameter::new(format!("{stem}.lora_A.weight"), a, true),
                        b: Parameter::new(format!("{stem}.lora_B.weight"), b, true),
                        columns,
                    });
                }
            }
        }
        Ok(())
    }
}
