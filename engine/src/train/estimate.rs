//! Whether learners fit, before anything is allocated.

use serde::Serialize;

use super::session::KEEP_BYTES;
use crate::config::Config;
use crate::loss::plan::{HeadLimits, head_plan};
use crate::model::architecture::Architecture;
use crate::model::block::Activations;
use crate::model::layout::TensorSpec;
use crate::model::load::Hold;
use crate::model::settings::AdapterKind;
use crate::train::session::Recompute;
use crate::weights::{WeightFormat, WeightSource};

/// What learners need, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The base model as it is held; learners share it.
    pub base: u64,
    /// Parameters that each learner trains.
    pub trained: u64,
    /// Value, gradient and both moments of what all learners train.
    pub learning: u64,
    /// What the forward pass of one micro-batch leaves for the backward pass.
    pub activations: u64,
    /// Logits of one chunk of the head.
    pub logits: u64,
}

impl Estimate {
    /// What `learners` learners of one configuration need, on top of the files' own bytes. Saturates where the numbers of
    /// an untrusted file are absurd.
    pub fn new(config: &Config, arch: &Architecture, weights: Option<&dyn WeightSource>, learners: u64) -> Self {
        let parameters = arch.parameter_count();
        let modules = arch.linear_modules(0);
        let layers = arch.layers as u64;
        let per_block = |of: &dyn Fn(&(String, usize, usize)) -> u64| {
            modules.iter().fold(0_u64, |sum, module| sum.saturating_add(of(module))).saturating_mul(layers)
        };
        let base = match config.adapter.kind {
            AdapterKind::None => f32s(parameters),
            AdapterKind::Lora => held_bytes(arch, weights, config.run.storage),
        };
        let trained = match config.adapter.kind {
            AdapterKind::None => parameters,
            AdapterKind::Lora => per_block(&|(name, outputs, inputs)| {
                let module = name.rsplit('.').next().unwrap_or(name);
                match config.adapter.targets.includes(module) {
                    true => (config.adapter.rank as u64).saturating_mul((inputs + outputs) as u64),
                    false => 0,
                }
            }),
        };
        let tokens = config.run.batch_tokens as u64;
        let kept_block = (Activations::bytes_per_token(arch) as u64).saturating_mul(tokens);
        let kept = kept_block.saturating_mul(layers);
        let inputs = f32s((arch.hidden as u64).saturating_mul(tokens)).saturating_mul(layers);
        let activations = match config.run.recompute {
            Recompute::Never => kept,
            Recompute::Auto if kept <= KEEP_BYTES as u64 => kept,
            _ => inputs.saturating_add(kept_block),
        };
        let limits = HeadLimits::new(u64::MAX);
        let rows = head_plan(config.run.batch_tokens.max(1), arch.hidden, arch.vocab, limits)
            .map_or(1, |plan| plan.rows_per_chunk);
        Self {
            base,
            trained,
            learning: f32s(trained).saturating_mul(4).saturating_mul(learners),
            activations,
            logits: f32s((arch.vocab as u64).saturating_mul(rows as u64)),
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        [self.learning, self.activations, self.logits].into_iter().fold(self.base, u64::saturating_add)
    }
}

fn f32s(count: u64) -> u64 {
    count.saturating_mul(4)
}

/// Bytes of a frozen model as it is held; every block as the first. Saturates where the numbers of an untrusted file are
/// absurd.
pub fn held_bytes(arch: &Architecture, weights: Option<&dyn WeightSource>, hold: Hold) -> u64 {
    let matrices = sum_of_matrices(arch, &|spec| Some(elements(spec))).unwrap_or(u64::MAX);
    let vectors = f32s(arch.parameter_count().saturating_sub(matrices));
    let held = match hold {
        Hold::F32 => None,
        Hold::Auto => sum_of_matrices(arch, &|spec| stored_bytes(weights?, spec)),
        _ => sum_of_matrices(arch, &|spec| Some(hold.format(spec.shape[1])?.bytes_for_shape(&spec.shape)? as u64)),
    };
    held.unwrap_or(f32s(matrices)).saturating_add(vectors)
}

/// What loading holds for a moment beside the model, at most: its largest tensor as the file has it, and on the way to
/// another form in f32 too; of random weights, in three forms. Saturates as [`held_bytes`].
pub fn passing_bytes(arch: &Architecture, weights: Option<&dyn WeightSource>) -> u64 {
    let outside = [arch.embedding()].into_iter().chain(arch.head());
    let of = |spec: &TensorSpec| match weights {
        None => f32s(elements(spec)).saturating_mul(3),
        Some(weights) => match weights.format(&spec.name) {
            Some(WeightFormat::F32) | None => f32s(elements(spec)).saturating_mul(2),
            Some(_) => stored_bytes(weights, spec).unwrap_or(u64::MAX).saturating_mul(2),
        },
    };
    outside.chain(arch.block(0).tensors()).map(|spec| of(&spec)).max().unwrap_or(0)
}

/// The blocks' frozen matrices that can stay in their file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// All of them, every block as the first.
    pub all: u64,
    /// The largest that one product reads.
    pub largest: u64,
}

impl Blocks {
    /// Of a model that is held as stored; none otherwise, and none that is stored in f32.
    pub fn left_in_their_file(arch: &Architecture, weights: Option<&dyn WeightSource>, hold: Hold) -> Self {
        let Some(weights) = weights.filter(|_| hold == Hold::Auto) else { return Self::default() };
        let block = arch.block(0);
        let fused = block.linears().map(|linear| {
            let matrices = linear.modules.iter().map(|module| linear.weight(module));
            matrices.map(|spec| match weights.format(&spec.name) {
                None | Some(WeightFormat::F32) => None,
                Some(_) => stored_bytes(weights, &spec),
            })
        });
        let bytes: Vec<u64> =
            fused.filter_map(|mut matrices| matrices.try_fold(0_u64, |sum, of| sum.checked_add(of?))).collect();
        Self {
            all: bytes.iter().fold(0_u64, |sum, of| sum.saturating_add(*of)).saturating_mul(arch.layers as u64),
            largest: bytes.into_iter().max().unwrap_or(0),
        }
    }
}

fn stored_bytes(weights: &dyn WeightSource, spec: &TensorSpec) -> Option<u64> {
    Some(weights.format(&spec.name)?.bytes_for_shape(&spec.shape)? as u64)
}

/// Over the vocabulary's matrices and those of the blocks, each as the first block's.
fn sum_of_matrices(arch: &Architecture, of: &dyn Fn(&TensorSpec) -> Option<u64>) -> Option<u64> {
    let sum = |specs: Vec<TensorSpec>| {
        let matrices = specs.into_iter().filter(|spec| spec.shape.len() == 2);
        matrices.map(|spec| of(&spec)).try_fold(0_u64, |sum, of| sum.checked_add(of?))
    };
    let outside = [arch.embedding()].into_iter().chain(arch.head()).collect();
    sum(outside)?.checked_add(sum(arch.block(0).tensors())?.checked_mul(arch.layers as u64)?)
}

fn elements(spec: &TensorSpec) -> u64 {
    spec.shape.iter().fold(1, |count, &dim| count.saturating_mul(dim as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(set: &[(&str, &str)], learners: u64) -> Estimate {
        let arch = Architecture::from_config_json(
            br#"{"model_type": "llama", "vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384,
                 "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
                 "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#,
            "config.json",
        );
        let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let config = Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "run.toml", &set);
        Estimate::new(&config.unwrap(), &arch.unwrap(), None, learners)
    }

    #[test]
    fn full_training_keeps_four_numbers_a_parameter_and_learner_beside_the_base() {
        let full = estimate(&[("adapter.kind", "none")], 2);
        assert_eq!((full.base, full.trained, full.learning), (4 * 1_049_728, 1_049_728, 2 * 16 * 1_049_728));
    }

    #[test]
    fn an_adapter_trains_rank_times_inputs_and_outputs_of_its_targets_alone() {
        let lora = estimate(&[("adapter.rank", "8"), ("adapter.targets", "q_proj,down_proj")], 1);
        assert_eq!(lora.trained, 4 * 8 * ((128 + 128) + (384 + 128)));
        assert!(lora.total() < estimate(&[("adapter.kind", "none")], 1).total());
    }
}
