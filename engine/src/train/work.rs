//! What a step costs in arithmetic, and how fast a device does it: together how long a step takes, before there is one.

use burn::tensor::Tensor;

use super::execution::Execution;
use super::ledger::Share;
use super::optimiser::Clipping;
use crate::config::Config;
use crate::data::Document;
use crate::device::Device;
use crate::error::Result;
use crate::host::Clock;
use crate::kernels::matmul::{Operand, Product};
use crate::kernels::{Packed, Rows};
use crate::model::Keep;
use crate::model::architecture::Architecture;
use crate::model::load::Hold;
use crate::model::parameter::from_host;
use crate::model::settings::AdapterKind;
use crate::weights::{RawTensor, WeightFormat, WeightSource};

/// Rows of the largest matrix and of the stream that a calibration multiplies: enough to be as fast as in a run.
const MOST_ROWS: usize = 4096;
const MOST_TOKENS: usize = 512;

/// What all steps of a run go through, as far as arithmetic depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Tokens of a step, on average.
    pub tokens: f64,
    /// Trained ones of them.
    pub rows: f64,
    /// Tokens of a token's document, on average over tokens.
    pub context: f64,
}

impl Work {
    /// Of these training documents, of which a pass takes so many steps.
    pub fn of(documents: &[Document], steps_per_epoch: u64) -> Self {
        let lengths = || documents.iter().map(|document| document.tokens.len() as f64);
        let (all, steps) = (lengths().sum::<f64>(), steps_per_epoch.max(1) as f64);
        let trained = documents.iter().map(Document::trained_tokens).sum::<usize>() as f64;
        Self {
            tokens: all / steps,
            rows: trained / steps,
            context: lengths().map(|n| n * n).sum::<f64>() / all.max(1.0),
        }
    }

    /// Floating point operations of a step's products on a device that holds this share of the model, two for each
    /// multiplication with its addition.
    ///
    /// With m the elements of all blocks' matrices, v those of the head, r those of an adapter's pairs, q the width of all
    /// query heads in all layers, t tokens of which n are trained rows, in documents of c tokens on average:
    ///
    /// | | operations |
    /// | --- | --- |
    /// | blocks, forward and back by the inputs | 4 m t |
    /// | back by the matrices, where they are trained | 2 m t |
    /// | forward once more, where activations are not kept | 2 m t |
    /// | by the inputs and the matrices once more, where gradients are measured first, with what these need again | as above |
    /// | pairs: forward, once more, back by inputs and pairs | about 8 r t |
    /// | attention: 2 products of half a square forward, 5 back | 14 q c t / 2 |
    /// | head: logits, back by the hidden states; by the head where it is trained | 4 v n; 2 v n |
    /// | the untouched model, where how far it is is measured: blocks, attention, head | 2 m t + 4 q c t / 2 + 2 v n |
    ///
    /// Everything else reads and writes what these make, and takes far less time.
    pub fn operations(&self, config: &Config, arch: &Architecture, execution: Execution, share: Share) -> f64 {
        let Sizes { matrices, pairs, head, attention } = self.sizes(config, arch, share);
        let full = config.adapter.kind == AdapterKind::None;
        let again = match execution.keep {
            Keep::Everything => 0.0,
            _ => 2.0 * (matrices + pairs) + 2.0 / 7.0 * attention,
        };
        let trained = if full { 2.0 } else { 0.0 };
        // A first pull-back that only measures: all of the way back, and what is computed again for it.
        let measured = match config.optim.max_grad_norm > 0.0 && config.optim.clipping == Clipping::Twice {
            true => (2.0 + trained) * matrices + 4.0 * pairs + 5.0 / 7.0 * attention + again,
            false => 0.0,
        };
        let untouched = if config.measures_divergence() { 1.0 } else { 0.0 };
        let of_untouched = untouched * (2.0 * matrices + 2.0 / 7.0 * attention);
        let of_token = (4.0 + trained) * matrices + 8.0 * pairs + attention + again + measured + of_untouched;
        self.tokens * of_token + self.rows * (4.0 + trained + 2.0 * untouched) * head
    }

    /// Those of going through these tokens once without training on them, as a measurement does: of the blocks, the pairs and
    /// the attention forward, and the logits of the trained rows.
    pub fn forward_operations(&self, config: &Config, arch: &Architecture, share: Share) -> f64 {
        self.forward(self.sizes(config, arch, share))
    }

    /// As [`Work::forward_operations`] of the untouched model, which has no pairs: what weighing these samples takes.
    pub fn untouched_operations(&self, config: &Config, arch: &Architecture, share: Share) -> f64 {
        self.forward(Sizes { pairs: 0.0, ..self.sizes(config, arch, share) })
    }

    fn forward(&self, Sizes { matrices, pairs, head, attention }: Sizes) -> f64 {
        self.tokens * (2.0 * (matrices + pairs) + 2.0 / 7.0 * attention) + self.rows * 2.0 * head
    }

    fn sizes(&self, config: &Config, arch: &Architecture, share: Share) -> Sizes {
        let block = arch.block(0);
        let layers = share.blocks(arch).len() as f64;
        let pairs = |linear: &crate::model::layout::LinearSpec| {
            let adapted = |name: &str| config.adapter.targets.includes(name.rsplit('.').next().unwrap_or(name));
            let sizes = linear.modules.iter().filter(|module| adapted(&module.name)).map(|m| m.rows + linear.inputs);
            config.adapter.rank as f64 * sizes.sum::<usize>() as f64
        };
        Sizes {
            matrices: layers * block.linears().map(|l| l.rows() as f64 * l.inputs as f64).sum::<f64>(),
            pairs: match config.adapter.kind {
                AdapterKind::None => 0.0,
                AdapterKind::Lora => layers * block.linears().map(pairs).sum::<f64>(),
            },
            head: if share.is_last() { arch.vocab as f64 * arch.hidden as f64 } else { 0.0 },
            attention: 7.0 * layers * arch.query_width() as f64 * self.context,
        }
    }
}

/// What the products of a share of a model are counted by: m, r and v of [`Work::operations`], and its attention, forward and
/// back, of a token.
struct Sizes {
    matrices: f64,
    pairs: f64,
    head: f64,
    attention: f64,
}

/// Operations that the device does in a second, measured for so many `seconds` with the products of the model's widest layer as the run holds it.
/// Nothing of the weights is read: the numbers are zeros.
///
/// # Errors
/// Device errors.
pub fn operations_per_second(
    config: &Config,
    arch: &Architecture,
    weights: Option<&dyn WeightSource>,
    tokens: usize,
    device: &Device,
    seconds: f64,
    clock: &dyn Clock,
) -> Result<f64> {
    let block = arch.block(0);
    let (columns, rows) = (arch.hidden, block.gate_up.rows().min(MOST_ROWS));
    let tokens = tokens.clamp(1, MOST_TOKENS);
    let module = &block.gate_up.modules[0];
    let stored = weights.and_then(|weights| weights.format(&block.gate_up.weight(module).name));
    let format = match (config.adapter.kind, config.run.storage, stored) {
        (AdapterKind::None, hold, _) => hold.trained().format(false, columns).unwrap_or(WeightFormat::F32),
        (_, Hold::F32, _) | (_, _, None) => WeightFormat::F32,
        (_, hold, Some(format)) => hold.format(false, columns).unwrap_or(format),
    };
    let zeros = |rows: usize, columns: usize| from_host(vec![0.0; rows * columns], [rows, columns], device);
    let right: Operand<2> = match format.bytes_for_shape(&[rows, columns]) {
        Some(bytes) if format != WeightFormat::F32 => {
            let raw = RawTensor { name: String::new(), shape: vec![rows, columns], format, bytes: vec![0; bytes] };
            (&Packed::new(device, vec![raw], columns, Rows::Whole)?).into()
        }
        _ => (&zeros(rows, columns)).into(),
    };
    let (x, dy) = (zeros(tokens, columns), zeros(tokens, rows));
    let pair = || -> Result<[Tensor<2>; 2]> {
        Ok([Product::of(&x, right.clone().transposed()).run(device)?, Product::of(&dy, right.clone()).run(device)?])
    };
    // The first compiles kernels and makes scratch.
    drop(pair()?);
    device.sync()?;
    let operations = 4.0 * tokens as f64 * rows as f64 * columns as f64;
    let (begin, mut done) = (clock.seconds(), 0.0);
    loop {
        drop(pair()?);
        device.sync()?;
        done += operations;
        let taken = clock.seconds() - begin;
        if taken >= seconds {
            return Ok(done / taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Site;
    use super::*;

    const WORK: Work = Work { tokens: 1000.0, rows: 100.0, context: 50.0 };

    fn config(set: &[(&str, &str)]) -> (Config, Architecture) {
        let arch = Architecture::from_config_json(
            br#"{"model_type": "llama", "vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384,
                 "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
                 "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#,
            "config.json",
        );
        let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let config = Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "run.toml", &set).unwrap();
        (config, arch.unwrap())
    }

    fn operations(set: &[(&str, &str)]) -> f64 {
        let (config, arch) = config(set);
        let execution = Execution::plan(&config, &arch, None, 1, Site::default());
        WORK.operations(&config, &arch, execution, Share::default())
    }

    #[test]
    fn a_steps_operations_are_those_of_its_products() {
        // q, k, v and output; gate, up and down.
        let matrices = 4.0 * (128.0 * (128.0 + 64.0 + 64.0 + 128.0) + 3.0 * 128.0 * 384.0);
        let (head, attention) = (2048.0 * 128.0, 7.0 * 4.0 * 128.0 * 50.0);
        let full = operations(&[("adapter.kind", "none"), ("run.recompute", "never")]);
        assert_eq!(full, 1000.0 * (6.0 * matrices + attention) + 100.0 * 6.0 * head);
        let again = operations(&[("adapter.kind", "none"), ("run.recompute", "always")]);
        assert_eq!(again - full, 1000.0 * (2.0 * matrices + 2.0 / 7.0 * attention));
        let lora = operations(&[("adapter.rank", "8"), ("adapter.targets", "q_proj"), ("run.recompute", "never")]);
        let pairs = 4.0 * 8.0 * (128.0 + 128.0);
        assert_eq!(lora, 1000.0 * (4.0 * matrices + 8.0 * pairs + attention) + 100.0 * 4.0 * head);
        let (config, arch) = config(&[("adapter.rank", "8"), ("adapter.targets", "q_proj")]);
        let once = WORK.forward_operations(&config, &arch, Share::default());
        assert_eq!(once, 1000.0 * (2.0 * matrices + 2.0 * pairs + 2.0 / 7.0 * attention) + 100.0 * 2.0 * head);
        let untouched = WORK.untouched_operations(&config, &arch, Share::default());
        assert_eq!(untouched, 1000.0 * (2.0 * matrices + 2.0 / 7.0 * attention) + 100.0 * 2.0 * head);
    }
}
