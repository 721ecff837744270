//! What a step costs in arithmetic, and how fast a device does it: together how long a step takes, before there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use half::f16;

use super::execution::Execution;
use super::ledger::{Ledger, Load, Share, Site};
use super::optimiser::Clipping;
use super::prepare;
use super::session::Session;
use crate::config::Config;
use crate::data::{Document, pack};
use crate::device::Device;
use crate::error::Result;
use crate::host::Clock;
use crate::kernels::matmul::{Operand, Product};
use crate::kernels::{Packed, Rows};
use crate::model::Keep;
use crate::model::architecture::{Architecture, SpecialTokens};
use crate::model::files::ModelFiles;
use crate::model::layout::TensorSpec;
use crate::model::load::{Hold, name_hash};
use crate::model::parameter::from_host;
use crate::model::settings::AdapterKind;
use crate::rng::Rng;
use crate::weights::{RawTensor, WeightFormat, WeightSource, absent};

/// Rows of the largest matrix and of the stream that a calibration multiplies: enough to be as fast as in a run.
const MOST_ROWS: usize = 4096;
const MOST_TOKENS: usize = 512;

/// Steps that are timed, after a first one that is not.
const TIMED_STEPS: usize = 3;
/// A step of fewer tokens, unless it has no more, is mostly what it does once, whatever its tokens.
const FEWEST_TOKENS: f64 = 256.0;
/// A vocabulary of fewer entries, unless it has no more, is no wider than what a gate reads of it.
const FEWEST_ENTRIES: usize = 1024;
/// The learning rate of timed steps: weights stay what they are, and finite.
const STILL: f64 = 0.0;

/// Rows of a random matrix that differ.
const RANDOM_ROWS: usize = 64;
/// Standard deviation of random numbers, and scale of random blocks: neither overflows on its way through some blocks.
const STD: f64 = 0.02;
const SCALE: f64 = 1.0 / 4096.0;

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

    /// Documents like those that it was taken of, of about so many tokens together, each trained at its end.
    fn documents(&self, tokens: f64, vocab: usize) -> Vec<Document> {
        let length = (self.context.min(tokens).round() as usize).max(2);
        let trained = (self.rows / self.tokens * length as f64).round() as usize;
        let from = length - trained.clamp(1, length - 1);
        let count = ((tokens / length as f64).round() as usize).max(1);
        let mut rng = Rng::new(0);
        let mut document = || Document {
            tokens: (0..length).map(|_| rng.below(vocab) as u32).collect(),
            trained: (0..length).map(|at| at >= from).collect(),
            line: 1,
        };
        (0..count).map(|_| document()).collect()
    }

    /// Floating point operations of a step's products on a device that holds this share of the model, two for each
    /// multiplication with its addition.
    ///
    /// With m the elements of all blocks' matrices, v those of the head, r those of an adapter's pairs, q the width of all
    /// query heads in all layers, t tokens of which n are trained rows, in documents of c tokens on average, or less where
    /// blocks have a window:
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

    /// Twice what a token sees on average in a block: c without a window, and with one of w tokens, where c is more,
    /// 2 w - w² / c.
    fn seen(&self, arch: &Architecture, block: usize) -> f64 {
        match arch.window_of(block).map(|tokens| tokens as f64) {
            Some(window) if window < self.context => window * (2.0 - window / self.context),
            _ => self.context,
        }
    }

    fn sizes(&self, config: &Config, arch: &Architecture, share: Share) -> Sizes {
        let block = arch.block(0);
        let layers = share.blocks(arch).len() as f64;
        let pairs = |linear: &crate::model::layout::LinearSpec| {
            let adapted = |name: &str| config.adapter.targets.includes(name.rsplit('.').next().unwrap_or(name));
            let sizes = linear.modules.iter().filter(|module| adapted(&module.name)).map(|m| m.rows + linear.inputs);
            config.adapter.rank as f64 * sizes.sum::<usize>() as f64
        };
        let seen = share.blocks(arch).map(|block| self.seen(arch, block));
        Sizes {
            matrices: layers * block.linears().map(|l| l.rows() as f64 * l.inputs as f64).sum::<f64>(),
            pairs: match config.adapter.kind {
                AdapterKind::None => 0.0,
                AdapterKind::Lora => layers * block.linears().map(pairs).sum::<f64>(),
            },
            head: if share.is_last() { arch.vocab as f64 * arch.hidden as f64 } else { 0.0 },
            attention: 7.0 * arch.query_width() as f64 * seen.sum::<f64>(),
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

/// A run whose steps are to be timed before there is one, on one of its devices.
#[derive(Clone, Copy)]
pub struct Timed<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// Its model's shape.
    pub arch: &'a Architecture,
    /// Its model's weights, of which the formats are asked and nothing is read; none where they are random.
    pub weights: Option<&'a dyn WeightSource>,
    /// How it goes through its model on this device.
    pub execution: Execution,
    /// Its steps.
    pub work: Work,
    /// Where it computes.
    pub device: &'a Device,
    /// Bytes that may be held there.
    pub memory: u64,
}

impl Timed<'_> {
    /// Operations ([`Work::operations`]) that the device does in a second of such steps, measured for a few times `seconds` at
    /// most.
    ///
    /// Of small models products are not most of a step. So real steps are timed, of which the fastest counts: of the whole
    /// model where the products of all of them take no longer than `seconds`, else of a slice of it: fewer blocks, as much
    /// less of the vocabulary, and, where one block is too much still, fewer tokens. The weights are random, in the formats of
    /// the run's. Where even a slice of some hundred tokens would take longer, or more than the memory, bare products of the
    /// model's widest layer are timed in place of it: of large models they are most of a step.
    ///
    /// # Errors
    /// Device errors.
    pub async fn operations_per_second(&self, seconds: f64, clock: &dyn Clock) -> Result<f64> {
        let of_products = self.of_products(seconds / 8.0, clock)?;
        if let Some(slice) = self.slice(of_products * seconds / (1 + TIMED_STEPS) as f64) {
            let of_steps = self.of_steps(&slice, seconds, clock).await;
            self.device.release_unused();
            // What a run's steps are refused for is told by the run.
            if let Ok(of_steps) = of_steps {
                return Ok(of_steps);
            }
        }
        self.of_products(seconds, clock)
    }

    /// The largest part of a step that takes so many operations at `most`; none where that is too little to be like a step, or
    /// does not fit the memory.
    fn slice(&self, most: f64) -> Option<Slice> {
        let Self { arch, execution, work, .. } = *self;
        let execution = Execution { resident: u64::MAX, ..execution };
        let operations = |arch: &Architecture| work.operations(self.config, arch, execution, Share::default());
        let layers = ((arch.layers as f64 * most / operations(arch)) as usize).clamp(1, arch.layers);
        // Blocks and vocabulary keep their shares of a step.
        let vocab = (arch.vocab * layers / arch.layers).max(arch.vocab.min(FEWEST_ENTRIES));
        let arch = Architecture { layers, vocab, ..arch.clone() };
        let tokens = work.tokens * (most / operations(&arch)).min(1.0);
        if tokens < work.tokens.min(FEWEST_TOKENS) {
            return None;
        }
        let mut config = self.config.clone();
        config.adapter.from = None;
        if self.weights.is_none() {
            // Random weights are not rounded where they are frozen.
            config.run.storage = config.run.storage.trained();
        }
        let weights = Arc::new(RandomWeights::like(self.weights, &arch));
        let documents = work.documents(tokens, vocab);
        let (load, site) = (Load::of(&config, &documents, &[]), Site::of(self.device));
        let ledger = Ledger::new(&config, &arch, Some(&*weights), 1, load, site, execution);
        let fits = ledger.device_bytes() <= self.memory;
        fits.then_some(Slice { config, arch, weights, execution, documents })
    }

    /// The pace of the fastest of a few steps of this slice, after one that compiles kernels and makes scratch; of fewer
    /// where they take longer than so many seconds.
    async fn of_steps(&self, slice: &Slice, seconds: f64, clock: &dyn Clock) -> Result<f64> {
        let Slice { config, documents, .. } = slice;
        let packed: Vec<&Document> = documents.iter().collect();
        let longest = packed.iter().map(|document| document.tokens.len()).max().unwrap_or(0);
        let batches = pack(&packed, config.run.batch_tokens.max(longest), config.data.packing)?;
        let mut session = slice.session(self.device)?;
        session.step(&batches, STILL).await?;
        self.device.sync()?;
        let (begin, mut fastest) = (clock.seconds(), f64::INFINITY);
        for _ in 0..TIMED_STEPS {
            let start = clock.seconds();
            session.step(&batches, STILL).await?;
            self.device.sync()?;
            fastest = fastest.min(clock.seconds() - start);
            if clock.seconds() - begin >= seconds {
                break;
            }
        }
        Ok(slice.operations() / fastest.max(f64::EPSILON))
    }

    /// The pace of products of the model's widest layer as the run holds it. The numbers are zeros.
    fn of_products(&self, seconds: f64, clock: &dyn Clock) -> Result<f64> {
        let Self { config, arch, weights, work, device, .. } = *self;
        let block = arch.block(0);
        let (columns, rows) = (arch.hidden, block.gate_up.rows().min(MOST_ROWS));
        let tokens = if config.data.packing { work.tokens } else { work.context };
        let tokens = (tokens as usize).min(config.run.batch_tokens).clamp(1, MOST_TOKENS);
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
}

/// A step of a smaller model like the run's.
struct Slice {
    config: Config,
    arch: Architecture,
    weights: Arc<RandomWeights>,
    execution: Execution,
    documents: Vec<Document>,
}

impl Slice {
    /// What makes the step.
    fn session(&self, device: &Device) -> Result<Session> {
        let Self { config, arch, weights, execution, documents } = self;
        let files = ModelFiles {
            architecture: arch.clone(),
            weights: Some(weights.clone()),
            tokenizer: None,
            special: SpecialTokens::default(),
            tokenizer_file: String::new(),
            template_beside: false,
            has_tokenizer_model: false,
        };
        let base = prepare::base(config, &files, device, *execution)?;
        let session = prepare::session(config, &config.objective()?, base, *execution)?;
        Ok(Session { sample_weights: vec![0.5; documents.len()], ..session })
    }

    /// What the step takes.
    fn operations(&self) -> f64 {
        Work::of(&self.documents, 1).operations(&self.config, &self.arch, self.execution, Share::default())
    }
}

/// Random weights in the formats of others, made when they are read: some random rows, again and again.
struct RandomWeights(BTreeMap<String, (Vec<usize>, WeightFormat)>);

impl RandomWeights {
    /// Of a model of this shape; in single precision where there are no others.
    fn like(others: Option<&dyn WeightSource>, arch: &Architecture) -> Self {
        let announced = |TensorSpec { name, shape }| {
            let format = others.and_then(|others| others.format(&name)).unwrap_or(WeightFormat::F32);
            (name, (shape, format))
        };
        Self(arch.tensor_specs().into_iter().map(announced).collect())
    }

    fn random_rows(name: &str, shape: [usize; 2], format: WeightFormat) -> Result<Vec<u8>> {
        let mut rng = Rng::new(name_hash(name));
        if format.block_elements() == 1 {
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| (rng.normal() * STD) as f32).collect();
            return Ok(RawTensor::quantise(name, &shape, &values, format)?.bytes);
        }
        let length = format.bytes_for_shape(&shape).unwrap_or(0);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        // All but a block's floats is a finite number whatever it is.
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for &at in format.halves() {
                block[at..at + 2].copy_from_slice(&f16::from_f64(SCALE).to_le_bytes());
            }
        }
        Ok(bytes)
    }
}

impl WeightSource for RandomWeights {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.get(name).map(|(shape, _)| shape.as_slice())
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        self.0.get(name).map(|(_, format)| *format)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let (shape, format) = self.0.get(name).ok_or_else(|| absent("random weights", name))?;
        let &[rows, columns] = shape.as_slice() else {
            return RawTensor::quantise(name, shape, &vec![1.0; shape.iter().product()], *format);
        };
        let some = Self::random_rows(name, [rows.min(RANDOM_ROWS), columns], *format)?;
        let length = format.bytes_for_shape(shape).unwrap_or(0);
        let mut bytes = some.repeat(length.div_ceil(some.len().max(1)));
        bytes.truncate(length);
        Ok(RawTensor { name: name.into(), shape: shape.clone(), format: *format, bytes })
    }

    fn file_of(&self, _name: &str) -> String {
        "random weights".into()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::data::tokens_of;
    use crate::model::architecture::Window;
    use crate::wait;

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

    #[test]
    fn blocks_with_a_window_attend_to_no_more_than_it() {
        let (config, mut arch) = config(&[]);
        let all = WORK.forward_operations(&config, &arch, Share::default());
        arch.window = Some(Window { tokens: 20, pattern: vec![true, false, true, true] });
        let within = WORK.forward_operations(&config, &arch, Share::default());
        // On average 16 tokens in place of 25, in three blocks: the first 20 of 50 see fewer than 20.
        let want = 1000.0 * 4.0 * 128.0 * 3.0 * (25.0 - 16.0);
        assert!((all - within - want).abs() < 1e-6 * want, "{all} {within} {want}");
    }

    fn with_timed<T>(set: &[(&str, &str)], ask: impl FnOnce(Timed) -> T) -> T {
        let ((config, arch), device) = (config(set), Device::cpu());
        let execution = Execution::resident(Keep::Everything);
        let (config, arch, device) = (&config, &arch, &device);
        ask(Timed { config, arch, weights: None, execution, work: WORK, device, memory: u64::MAX })
    }

    /// Goes on by a second whenever it is looked at.
    #[derive(Default)]
    struct Ticking(Cell<f64>);

    impl Clock for Ticking {
        fn seconds(&self) -> f64 {
            self.0.set(self.0.get() + 1.0);
            self.0.get()
        }
    }

    #[test]
    fn of_a_step_that_takes_long_fewer_blocks_are_timed_then_fewer_tokens_then_none() {
        with_timed(&[], |timed| {
            let all = timed.work.operations(timed.config, timed.arch, timed.execution, Share::default());
            let shape = |slice: Slice| (slice.arch.layers, slice.arch.vocab, tokens_of(&slice.documents));
            let timed_of = |part: f64| timed.slice(part * all).map(shape);
            assert_eq!(timed_of(1.0), Some((4, 2048, 1000)));
            assert_eq!(timed_of(f64::INFINITY), timed_of(1.0));
            assert_eq!(timed_of(0.5), Some((2, 1024, 1000)));
            let (layers, vocab, tokens) = timed_of(0.125).unwrap();
            assert!((layers, vocab) == (1, FEWEST_ENTRIES) && (256..600).contains(&tokens), "{tokens}");
            assert_eq!(timed_of(0.01), None);
            assert!(Timed { memory: 1 << 20, ..timed }.slice(all).is_none(), "more than there is");
            let documents = timed.slice(all).unwrap().documents;
            assert_eq!(Work::of(&documents, 1), WORK, "like those that are trained on");
        });
    }

    #[test]
    fn a_pace_is_that_of_real_steps_where_these_are_short_and_else_of_products() {
        with_timed(&[("adapter.kind", "none"), ("data.packing", "true")], |timed| {
            let pace = |timed: Timed| wait(timed.operations_per_second(8.0, &Ticking::default())).unwrap();
            let of_products = timed.of_products(1.0, &Ticking::default()).unwrap();
            let slice = timed.slice(of_products * 2.0).unwrap();
            // A step takes the second between two looks at the clock.
            assert_eq!(pace(timed), slice.operations());
            assert_eq!(pace(Timed { memory: 0, ..timed }), of_products);
            // What the run would be refused for is not made either.
            let (refused, _) = config(&[("adapter.targets", "gate_up_proj"), ("data.packing", "true")]);
            assert_eq!(pace(Timed { config: &refused, ..timed }), of_products);
        });
    }

    #[test]
    fn steps_of_every_kind_are_timed_with_weights_held_as_the_runs() {
        let work = Work { tokens: 64.0, rows: 16.0, context: 16.0 };
        let sets: [&[(&str, &str)]; 7] = [
            &[],
            &[("adapter.kind", "none")],
            &[("adapter.kind", "none"), ("run.storage", "bf16"), ("run.moments", "8bit"), ("optim.clipping", "twice")],
            &[("objective.method", "flow")],
            &[("run.storage", "q4_0"), ("data.packing", "false")],
            &[("run.storage", "f32"), ("adapter.dropout", "0.1")],
            &[("run.batch_tokens", "32"), ("run.accumulation", "2")],
        ];
        for set in sets {
            with_timed(set, |timed| {
                let mut stored = RandomWeights::like(None, timed.arch);
                let matrices = stored.0.values_mut().filter(|(shape, _)| shape.len() == 2);
                matrices.for_each(|(_, format)| *format = WeightFormat::Q8_0);
                for weights in [None, Some(&stored as &dyn WeightSource)] {
                    let timed = Timed { weights, work, ..timed };
                    let slice = timed.slice(f64::INFINITY).unwrap();
                    let name = &timed.arch.embedding().name;
                    let expected = if weights.is_some() { WeightFormat::Q8_0 } else { WeightFormat::F32 };
                    assert_eq!(slice.weights.format(name), Some(expected));
                    let pace = wait(timed.of_steps(&slice, 8.0, &Ticking::default()));
                    assert_eq!(pace.unwrap(), slice.operations(), "{set:?}");
                }
            });
        }
    }

    #[test]
    fn random_weights_of_every_format_are_finite_and_differ_from_row_to_row() {
        for format in WeightFormat::ALL {
            let weights = RandomWeights([("w".to_string(), (vec![RANDOM_ROWS + 6, 256], format))].into());
            let values = weights.read("w").unwrap().to_f32();
            assert_eq!(values.len(), (RANDOM_ROWS + 6) * 256, "{format:?}");
            assert!(values.iter().all(|value| value.is_finite()), "{format:?}");
            assert_ne!(values[..256], values[256..512], "{format:?}");
        }
        assert!(RandomWeights([].into()).read("w").is_err());
    }
}
