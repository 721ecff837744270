//! What a run holds in memory, by moment and by kind, before anything is allocated.
//!
//! A pure function of the model's shape, the formats of its weights, the configuration, the shape of the data and the limits
//! of the device. It goes through a run as the run itself will, from loading to the result's files, and takes and gives what
//! `model/load.rs`, `model/block.rs`, `loss/head.rs`, `kernels/attention.rs` and `session.rs` allocate and free, in their
//! order. Whoever changes what these hold changes it here too; the command's tests compare with the memory that the system
//! counts.
//!
//! Not counted is what the program holds without a model: its own code, the data, the driver, and what an allocator rounds up.
//! Sums saturate, since the numbers come out of untrusted files.

use std::ops::Range;

use serde::Serialize;

use super::execution::Execution;
use super::optimiser::{Clipping, MomentBits};
use crate::config::Config;
use crate::data::{Document, WINDOW, tokens_of};
use crate::device::Device;
use crate::kernels::attention;
use crate::kernels::cpu::{self, matmul};
use crate::kernels::launch;
use crate::loss::head;
use crate::loss::plan::{HeadLimits, head_plan};
use crate::model::Keep;
use crate::model::architecture::Architecture;
use crate::model::layout::{BlockSpec, LinearSpec, TensorSpec, is_head};
use crate::model::load::Hold;
use crate::model::placement::{Placement, Stage};
use crate::model::settings::AdapterKind;
use crate::weights::{WeightFormat, WeightSource};
use temper_shaders::compact::BLOCK;
use temper_shaders::{HALF_TERMS, MAX_TOP_K, STATS_WIDTH, WIDE_ENTROPY_STATE};

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The model's own weights as they are held.
    Weights,
    /// Values of an adapter.
    Adapter,
    /// Gradients of what is trained, and what is known of a step's rows.
    Gradients,
    /// Both moments of what is trained.
    Moments,
    /// What is kept of all blocks but the one that is computed: their inputs, or all that their backward passes read.
    Kept,
    /// The block that is computed, and the streams between blocks.
    Activations,
    /// What attention makes on its way: on the CPU the scores of a block of queries.
    Scores,
    /// Logits of a chunk of the head, and its statistics.
    Logits,
    /// Weights in single precision while they are used, packed operands of products.
    Scratch,
    /// Copies on the way from or to a file.
    Transfer,
}

impl Kind {
    /// All, in their order.
    pub const ALL: [Self; 10] = [
        Self::Weights,
        Self::Adapter,
        Self::Gradients,
        Self::Moments,
        Self::Kept,
        Self::Activations,
        Self::Scores,
        Self::Logits,
        Self::Scratch,
        Self::Transfer,
    ];

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Adapter => "adapter",
            Self::Gradients => "gradients",
            Self::Moments => "moments",
            Self::Kept => "kept of blocks",
            Self::Activations => "activations",
            Self::Scores => "scores",
            Self::Logits => "logits",
            Self::Scratch => "scratch",
            Self::Transfer => "copies",
        }
    }
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// The model comes from its files.
    Loading,
    /// It is there, with its adapter, and nothing was done yet.
    Loaded,
    /// The sets are measured.
    Evaluation,
    /// A micro-batch goes through the blocks.
    Forward,
    /// Its rows go through the loss head and back.
    Head,
    /// It goes back through the blocks.
    Backward,
    /// Parameters are stepped.
    Step,
    /// A checkpoint or the result is written.
    Saving,
}

/// Bytes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sheet([u64; Kind::ALL.len()]);

impl Sheet {
    /// Of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

impl Moment {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Evaluation => "evaluation",
            Self::Forward => "forward",
            Self::Head => "head",
            Self::Backward => "backward",
            Self::Step => "step",
            Self::Saving => "saving",
        }
    }
}

impl Serialize for Sheet {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(Kind::ALL.into_iter().map(|kind| (kind, self.of(kind))).filter(|(_, bytes)| *bytes > 0))
    }
}

/// What is held when a moment holds most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The moment.
    pub moment: Moment,
    /// On the device; on the CPU, where there is one memory, all of it.
    pub device: Sheet,
    /// In the host's memory beside a device that has its own.
    pub host: Sheet,
}

/// Where a run computes, as far as memory depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The device's memory is the host's.
    pub cpu: bool,
    /// Its memory is its own: what waits in the host's takes nothing of it.
    pub own_memory: bool,
    /// As [`Device::max_binding_bytes`].
    pub max_binding_bytes: u64,
    /// How many halves on tensor cores each number of a wide product's operands is in the copies that are made of both: none
    /// in single precision. As [`Device::segments`].
    pub segments: usize,
    /// Attention is, too, out of copies of what it reads.
    pub halved_attention: bool,
    /// Threads that products are shared among; each keeps its own scratch.
    pub threads: usize,
    /// Bytes that a run may take, where somebody tells.
    pub memory: Option<u64>,
    /// What of the model it holds.
    pub share: Share,
}

impl Site {
    /// This device on this machine, with a whole model, of whose memory nothing is known.
    pub fn of(device: &Device) -> Self {
        let (cpu, max_binding_bytes) = (device.is_cpu(), device.max_binding_bytes());
        let (segments, halved_attention) = (device.segments(), device.halves_attention());
        // A browser's page cannot wait for what comes from a device.
        let own_memory = !device.shares_memory() && !cfg!(target_family = "wasm");
        let threads = cpu::par::threads();
        Self {
            cpu,
            own_memory,
            max_binding_bytes,
            segments,
            halved_attention,
            threads,
            memory: None,
            share: Share::default(),
        }
    }

    /// Each device of a model with what it holds.
    pub fn of_each(placement: &Placement) -> Vec<Self> {
        let of = placement.stages().len();
        let share =
            |(stage, own): (usize, &Stage)| Share { stage, of, start: own.blocks.start, blocks: own.blocks.len() };
        let stages = placement.stages().iter().enumerate();
        stages.map(|stage| Self { share: share(stage), ..Self::of(&stage.1.device) }).collect()
    }
}

/// What of a model one of several devices holds: so many blocks from one on, the first device also the embedding, the last one
/// final norm and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which of them it is, from 0.
    pub stage: usize,
    /// Number of devices.
    pub of: usize,
    /// The first block.
    pub start: usize,
    /// Blocks; all behind the first one where there are fewer.
    pub blocks: usize,
}

impl Default for Share {
    /// A whole model.
    fn default() -> Self {
        Self { stage: 0, of: 1, start: 0, blocks: usize::MAX }
    }
}

impl Share {
    fn is_first(self) -> bool {
        self.stage == 0
    }

    /// True where it has the head.
    pub fn is_last(self) -> bool {
        self.stage + 1 == self.of
    }

    /// The blocks of a model.
    pub fn blocks(self, arch: &Architecture) -> Range<usize> {
        self.start.min(arch.layers)..self.start.saturating_add(self.blocks).min(arch.layers)
    }
}

/// The shape of the data, as far as memory depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Tokens of the largest micro-batch.
    pub tokens: usize,
    /// Its trained rows, at most.
    pub rows: usize,
    /// Micro-batches of a step, at most.
    pub micro_batches: usize,
    /// Tokens of the largest micro-batch of an evaluation; 0 where nothing is measured.
    pub evaluated: usize,
}

impl Load {
    /// What any data take.
    pub const LEAST: Self = Self { tokens: 1, rows: 1, micro_batches: 1, evaluated: 0 };

    /// What a configuration allows, before data is known.
    pub fn most(config: &Config) -> Self {
        let tokens = config.run.batch_tokens;
        Self { tokens, rows: tokens, micro_batches: config.run.accumulation, evaluated: 0 }
    }

    /// Of these training documents and sets that are measured.
    pub fn of(config: &Config, train: &[Document], measured: &[&[Document]]) -> Self {
        let longest = |documents: &[Document]| documents.iter().map(|d| d.tokens.len()).max().unwrap_or(0);
        let (batch, all) = (config.run.batch_tokens, tokens_of(train));
        let tokens = if config.data.packing { all } else { longest(train) }.min(batch);
        let trained: usize = train.iter().map(Document::trained_tokens).sum();
        let train = if config.weighs_samples() { train } else { &[] };
        let measured = || measured.iter().copied().chain([train]);
        // A step takes documents while their tokens fit it.
        let step = batch.saturating_mul(config.run.accumulation).min(all);
        let streams = match config.data.packing {
            true => step.div_ceil(batch.max(1)),
            false => train.len().min(step.div_ceil((all / train.len().max(1)).max(1))),
        };
        let evaluated = measured().map(|set| tokens_of(set).min(longest(set).max(WINDOW))).max().unwrap_or(0);
        Self { tokens, rows: tokens.min(trained), micro_batches: streams.max(1), evaluated }
    }
}

/// What a run holds, moment by moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// In the order in which they come.
    pub moments: Vec<Entry>,
    /// Parameters that each learner trains.
    #[serde(skip)]
    pub trained: u64,
}

impl Ledger {
    /// Of a run of `learners` learners of one configuration that goes through its model like this.
    pub fn new(
        config: &Config,
        arch: &Architecture,
        weights: Option<&dyn WeightSource>,
        learners: u64,
        load: Load,
        site: Site,
        execution: Execution,
    ) -> Self {
        let full = config.adapter.kind == AdapterKind::None;
        let hold = if full { config.run.storage.trained() } else { config.run.storage };
        let mut book = Book { site, ..Book::default() };
        let (count, slots) = load_model(&mut book, arch, weights, hold, execution.resident);
        let trained = count.saturating_mul(u64::from(full));
        book.close(Moment::Loading);
        // From the first use on; the untouched model reads the blocks for itself.
        let slots = slots.saturating_mul(1 + u64::from(config.measures_divergence()));
        book.take(Kind::Weights, slots);
        book.take_at(Place::Host, Kind::Transfer, if site.cpu { 0 } else { slots });
        let (untouched, objective) = (config.measures_divergence(), config.objective().ok());
        let wide = objective.is_some_and(|objective| head::top_k(&objective).is_wide(arch.vocab));
        let mut run = Walk { config, arch, full, hold, weights, load, execution, book, first: true, untouched, wide };
        let trained = if full { trained } else { run.adapter() };
        // Learners share the base until they are stepped, then what they train is their own.
        let of_blocks = (arch.layers as u64).saturating_mul(vectors_of(&arch.block(0)));
        let vectors = if full { of_blocks.saturating_add(elements(&arch.final_norm())) } else { 0 };
        if full {
            let matrices = trained.saturating_sub(vectors).saturating_mul(hold.trained_bytes());
            let set = matrices.saturating_add(f32s(vectors));
            run.book.take(Kind::Weights, set.saturating_mul(learners - 1 + u64::from(untouched)));
            if config.weighs_samples() && !untouched {
                // Beside what a checkpoint holds, where a run goes on.
                run.book.pass(Kind::Weights, set);
            }
        } else {
            run.book.take(Kind::Adapter, f32s(trained).saturating_mul(learners));
        }
        run.scratch();
        run.rotary();
        run.book.close(Moment::Loaded);
        // From the first step on; what comes before it holds less.
        let moments = run.moments(trained, vectors);
        run.book.take(Kind::Moments, moments.saturating_mul(learners));
        if load.evaluated > 0 {
            run.evaluate();
        }
        run.step();
        run.save(trained);
        Self { moments: run.book.entries, trained }
    }

    /// Of a model that is only loaded.
    pub fn of_model(arch: &Architecture, weights: Option<&dyn WeightSource>, hold: Hold, site: Site) -> Self {
        let mut book = Book { site, ..Book::default() };
        load_model(&mut book, arch, weights, hold, u64::MAX);
        book.close(Moment::Loading);
        book.close(Moment::Loaded);
        Self { moments: book.entries, trained: 0 }
    }

    /// For tests: one moment that holds these.
    #[cfg(test)]
    pub(crate) fn of_kinds(kinds: &[(Kind, u64)], trained: u64) -> Self {
        let mut book = Book::default();
        kinds.iter().for_each(|&(kind, bytes)| book.take(kind, bytes));
        book.close(Moment::Step);
        Self { moments: book.entries, trained }
    }

    /// The moment at which the device holds most.
    pub fn peak(&self) -> &Entry {
        let first = self.moments.first().expect("a ledger has a moment");
        self.moments.iter().fold(
            first,
            |most, entry| {
                if entry.device.total() > most.device.total() { entry } else { most }
            },
        )
    }

    /// Most that the device holds; on the CPU all that the run holds.
    pub fn device_bytes(&self) -> u64 {
        self.peak().device.total()
    }

    /// Most that the host holds beside a device with its own memory; 0 on the CPU.
    pub fn host_bytes(&self) -> u64 {
        self.moments.iter().map(|entry| entry.host.total()).max().unwrap_or(0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Device,
    Host,
}

/// What is held now, and what was held when it was most since the last moment was closed.
#[derive(Default)]
struct Book {
    site: Site,
    live: [Sheet; 2],
    most: [Sheet; 2],
    entries: Vec<Entry>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            cpu: true,
            own_memory: false,
            max_binding_bytes: u64::MAX,
            segments: 0,
            halved_attention: false,
            threads: 1,
            memory: None,
            share: Share::default(),
        }
    }
}

impl Book {
    fn take(&mut self, kind: Kind, bytes: u64) {
        self.take_at(Place::Device, kind, bytes);
    }

    fn give(&mut self, kind: Kind, bytes: u64) {
        self.give_at(Place::Device, kind, bytes);
    }

    fn give_at(&mut self, place: Place, kind: Kind, bytes: u64) {
        let at = if self.site.cpu { Place::Device } else { place } as usize;
        let held = &mut self.live[at].0[kind as usize];
        *held = held.saturating_sub(bytes);
    }

    /// Held and given back at once.
    fn pass(&mut self, kind: Kind, bytes: u64) {
        self.take(kind, bytes);
        self.give(kind, bytes);
    }

    fn take_at(&mut self, place: Place, kind: Kind, bytes: u64) {
        // The CPU's memory is the host's.
        let at = if self.site.cpu { Place::Device } else { place } as usize;
        let held = &mut self.live[at].0[kind as usize];
        *held = held.saturating_add(bytes);
        if self.live[at].total() >= self.most[at].total() {
            self.most[at] = self.live[at];
        }
    }

    /// As [`Book::pass`], in the host's memory.
    fn pass_on_host(&mut self, kind: Kind, bytes: u64) {
        self.take_at(Place::Host, kind, bytes);
        self.give_at(Place::Host, kind, bytes);
    }

    /// What is now is most: a moment begins that does not hold what was held on the way to it.
    fn forget(&mut self) {
        self.most = self.live;
    }

    /// Ends a moment; one that comes again is held to be the larger of the two.
    fn close(&mut self, moment: Moment) {
        let [device, host] = self.most;
        match self.entries.iter_mut().find(|entry| entry.moment == moment) {
            Some(entry) if entry.device.total() < device.total() => *entry = Entry { moment, device, host },
            Some(_) => {}
            None => self.entries.push(Entry { moment, device, host }),
        }
        self.forget();
    }
}

fn f32s(count: u64) -> u64 {
    count.saturating_mul(4)
}

fn product(a: usize, b: usize) -> u64 {
    (a as u64).saturating_mul(b as u64)
}

fn elements(spec: &TensorSpec) -> u64 {
    spec.shape.iter().fold(1, |count, &dim| count.saturating_mul(dim as u64))
}

/// Goes through `model/load.rs`; gives the number of parameters, and what the slots take in which blocks are held that are left
/// in their file. So many bytes of the blocks' matrices stay in memory.
fn load_model(
    book: &mut Book,
    arch: &Architecture,
    weights: Option<&dyn WeightSource>,
    hold: Hold,
    mut resident: u64,
) -> (u64, u64) {
    let mut count = 0_u64;
    // Gives what is left in the file.
    let mut matrix = |book: &mut Book, specs: &[TensorSpec], by_index: bool, of_block: bool| {
        let all = specs.iter().fold(0_u64, |sum, spec| sum.saturating_add(elements(spec)));
        count = count.saturating_add(all);
        let stored = stored(weights, specs, hold, arch.tied_head);
        if let (Held::Packed(bytes), true) = (&stored, of_block && hold == Hold::Auto) {
            let Some(left) = resident.checked_sub(*bytes) else {
                resident = 0;
                // It is read once, to be digested.
                book.pass_on_host(Kind::Transfer, *bytes);
                return *bytes;
            };
            resident = left;
        }
        if hold.trained() == hold && hold != Hold::F32 {
            // What is rounded to bf16 is there as it was meanwhile; random numbers are drawn and laid down as a file's bytes.
            let format = |spec: &TensorSpec| weights.and_then(|weights| weights.format(&spec.name));
            let source = specs.iter().fold(0_u64, |sum, spec| {
                let bytes = format(spec).and_then(|format| format.bytes_for_shape(&spec.shape));
                sum.saturating_add(bytes.map_or(f32s(elements(spec)).saturating_mul(2), |bytes| bytes as u64))
            });
            let moved = specs.len() == 1 && hold == Hold::Bf16 && format(&specs[0]) == Some(WeightFormat::Bf16);
            book.pass_on_host(Kind::Transfer, if moved { 0 } else { source });
        }
        if hold == Hold::Bf16Compensated {
            book.take(Kind::Weights, all.saturating_mul(2));
        }
        match stored {
            // Its bytes become the matrix; on a device they are words on the way.
            Held::Packed(bytes) if book.site.cpu => book.take(Kind::Weights, bytes),
            Held::Packed(bytes) => {
                book.pass_on_host(Kind::Transfer, bytes.saturating_mul(if by_index { 1 } else { 2 }));
                if by_index {
                    book.take_at(Place::Host, Kind::Weights, bytes);
                }
                book.take(Kind::Weights, bytes);
            }
            Held::Dense(passing) if book.site.cpu => {
                book.take(Kind::Weights, f32s(all));
                book.pass(Kind::Transfer, passing);
            }
            Held::Dense(passing) => {
                book.pass_on_host(Kind::Transfer, passing.saturating_add(f32s(all)));
                book.take(Kind::Weights, f32s(all));
            }
        }
        0
    };
    let share = book.site.share;
    if share.is_first() {
        matrix(book, &[arch.embedding()], true, false);
    }
    // A head that is the embedding is held once more where it lies elsewhere.
    let head = arch.head().or_else(|| (!share.is_first()).then(|| arch.embedding()));
    if let (true, Some(head)) = (share.is_last(), head) {
        matrix(book, &[head], false, false);
    }
    let final_norm = if share.is_last() { elements(&arch.final_norm()) } else { 0 };
    let mut vectors = final_norm;
    let (mut slots, mut before) = (0_u64, 0);
    for index in share.blocks(arch) {
        let block = arch.block(index);
        let mut left = 0_u64;
        for linear in block.linears() {
            let specs: Vec<TensorSpec> = linear.modules.iter().map(|module| linear.weight(module)).collect();
            left = left.saturating_add(matrix(book, &specs, false, true));
        }
        slots = slots.max(left.saturating_add(before));
        before = left;
        vectors = vectors.saturating_add(vectors_of(&block));
        book.take(Kind::Weights, f32s(vectors_of(&block)));
    }
    book.take(Kind::Weights, f32s(final_norm));
    (count.saturating_add(vectors), slots)
}

fn vectors_of(block: &BlockSpec) -> u64 {
    block.tensors().iter().filter(|spec| spec.shape.len() == 1).map(elements).sum()
}

enum Held {
    /// In so many bytes, as the file stores them or in half precision.
    Packed(u64),
    /// In single precision, with so many bytes beside it on the way.
    Dense(u64),
}

/// How the matrices that one product reads are held.
fn stored(weights: Option<&dyn WeightSource>, specs: &[TensorSpec], hold: Hold, tied: bool) -> Held {
    let all = specs.iter().fold(0_u64, |sum, spec| sum.saturating_add(elements(spec)));
    let Some(weights) = weights else {
        if matches!(hold, Hold::Bf16 | Hold::Bf16Compensated) {
            return Held::Packed(all.saturating_mul(2));
        }
        // Random numbers are drawn, laid down as a file's bytes, and expanded.
        return Held::Dense(f32s(all));
    };
    let format = |spec: &TensorSpec| weights.format(&spec.name);
    let bytes = specs.iter().fold(0_u64, |sum, spec| {
        let own = format(spec).and_then(|format| format.bytes_for_shape(&spec.shape));
        sum.saturating_add(own.map_or(f32s(elements(spec)), |bytes| bytes as u64))
    });
    let packs = specs.iter().all(|spec| format(spec).is_some_and(|format| format != WeightFormat::F32));
    match hold {
        Hold::Auto if packs => Held::Packed(bytes),
        Hold::Auto | Hold::F32 => Held::Dense(bytes),
        _ => {
            let bytes =
                |spec: &TensorSpec| hold.format(is_head(&spec.name, tied), spec.shape[1])?.bytes_for_shape(&spec.shape);
            let mut converted = specs.iter().map(bytes);
            let sum = converted.try_fold(0_u64, |sum, bytes| sum.checked_add(bytes? as u64));
            Held::Packed(sum.unwrap_or(f32s(all)))
        }
    }
}

/// A run under way.
struct Walk<'a> {
    config: &'a Config,
    arch: &'a Architecture,
    weights: Option<&'a dyn WeightSource>,
    hold: Hold,
    full: bool,
    load: Load,
    execution: Execution,
    book: Book,
    /// No gradient is there yet.
    first: bool,
    /// The untouched model is asked in every step.
    untouched: bool,
    /// The rows' entropy is made in sweeps of its own.
    wide: bool,
}

impl Walk<'_> {
    /// Parameters of an adapter.
    fn adapter(&self) -> u64 {
        let block = self.arch.block(0);
        block
            .linears()
            .fold(0, |sum, linear| self.low_rank(linear).iter().fold(sum, |sum, pair| pair.1.saturating_add(sum)))
            .saturating_mul(self.blocks() as u64)
    }

    /// Blocks that the device holds.
    fn blocks(&self) -> usize {
        self.book.site.share.blocks(self.arch).len()
    }

    /// Bytes of both moments of so many parameters, some of them of vectors, which keep single precision.
    fn moments(&self, trained: u64, vectors: u64) -> u64 {
        match self.config.run.moments {
            MomentBits::F32 => f32s(trained).saturating_mul(2),
            MomentBits::Eight => {
                let matrices = trained.saturating_sub(vectors);
                // A code each, and a scale each for every block; what a matrix's last block lacks is not counted.
                let scales = f32s(matrices.div_ceil(BLOCK as u64));
                matrices.saturating_add(scales).saturating_add(f32s(vectors)).saturating_mul(2)
            }
        }
    }

    /// Rows and parameters of a layer's pairs.
    fn low_rank(&self, linear: &LinearSpec) -> Vec<(usize, u64)> {
        // A rank above the width of a layer is refused where the layer is known.
        let rank = self.config.adapter.rank.min(self.arch.hidden.max(self.arch.intermediate));
        let inputs = linear.inputs;
        let adapted = |name: &str| !self.full && self.config.adapter.targets.includes(name);
        let modules = linear.modules.iter().filter(move |m| adapted(m.name.rsplit('.').next().unwrap_or(&m.name)));
        modules.map(|m| (m.rows, product(rank, inputs + m.rows))).collect()
    }

    /// What the CPU's threads keep once they have multiplied and attended. A device's scratch comes and goes.
    fn scratch(&mut self) {
        let (arch, Site { cpu, threads, .. }) = (self.arch, self.book.site);
        if !cpu {
            return;
        }
        let each = f32s(cpu::attention::scratch_elements(shape_of(arch)) as u64);
        self.book.take(Kind::Scores, each.saturating_mul(threads as u64));
        // The gradients by weights are products whose left side is transposed, and packed whole.
        let transposed = self.full.then(|| {
            let of_blocks = arch.block(0).linears().map(LinearSpec::rows).max().unwrap_or(0);
            let of_head = if self.book.site.share.is_last() { arch.vocab } else { 0 };
            let sides = [[of_blocks, self.load.tokens], [of_head, self.chunk(self.load.rows, 1)]];
            sides.map(|side| matmul::scratch_elements(Some(side)))
        });
        let each = transposed.map_or(matmul::scratch_elements(None), |[a, b]| a.max(b));
        let rectangle = if self.hold == Hold::F32 { 0 } else { matmul::rectangle_elements(threads) };
        let all = (each as u64).saturating_mul(threads as u64).saturating_add(rectangle as u64);
        self.book.take(Kind::Scratch, f32s(all));
    }

    /// The rotary tables, which grow to the longest document; on a device they stay on the host as well.
    fn rotary(&mut self) {
        let tokens = self.load.tokens.max(self.load.evaluated).min(self.arch.context);
        let positions = tokens.checked_next_power_of_two().unwrap_or(usize::MAX);
        // Blocks with a window may have tables of their own.
        let ropes = [Some(&self.arch.rope), self.arch.local_rope.as_ref()].into_iter().flatten();
        let tables = f32s(product(positions, ropes.map(|rope| rope.rotary_dim).sum()));
        self.book.take(Kind::Scratch, tables);
        if !self.book.site.cpu {
            self.book.take_at(Place::Host, Kind::Scratch, tables);
        }
    }

    /// Rows of a chunk of the head in which so many models have logits.
    fn chunk(&self, rows: usize, models: u64) -> usize {
        let limits = HeadLimits::new(self.book.site.max_binding_bytes, self.tile_bytes()).shared_by(models);
        head_plan(rows.max(1), self.arch.hidden, self.arch.vocab, limits).map_or(1, |plan| plan.rows_per_chunk)
    }

    fn evaluate(&mut self) {
        let tokens = self.load.evaluated;
        let output = over(tokens, self.arch.hidden);
        let block = self.arch.block(0);
        self.book.take(Kind::Activations, output);
        for _ in 0..self.blocks().min(2) {
            let kept = self.forward_block(&block, tokens);
            self.book.give(Kind::Activations, kept.saturating_add(output));
        }
        if self.book.site.share.is_last() {
            self.head(tokens, false);
        }
        self.cross(output);
        self.book.give(Kind::Activations, output);
        self.book.close(Moment::Evaluation);
    }

    /// A step in which gradients accumulate: its first group of micro-batches that pass a block together, and one that stands
    /// for all that follow.
    fn step(&mut self) {
        let (arch, Load { tokens, micro_batches, .. }) = (self.arch, self.load);
        let (block, blocks, keep, share) = (arch.block(0), self.blocks(), self.execution.keep, self.book.site.share);
        // Only the last device sees the head's rows.
        let rows = if share.is_last() { self.load.rows } else { 0 };
        let (groups, together) = if self.execution.together { (1, micro_batches) } else { (micro_batches, 1) };
        let stream = over(tokens, arch.hidden);
        let of_all = |bytes: u64| bytes.saturating_mul(together as u64);
        let of_others = |bytes: u64| bytes.saturating_mul(together as u64 - 1);
        let kept_at = if keep == Keep::InputsOnHost { Place::Host } else { Place::Device };
        let waits = keep == Keep::InputsOnHost && !self.book.site.cpu;
        for nth in 0..groups.min(2) {
            if nth == 1 {
                // What the others left of their rows.
                self.book.take(Kind::Gradients, head_output(rows).saturating_mul(groups as u64 - 2));
            }
            self.book.take(Kind::Activations, of_all(stream));
            let mut of_block = 0;
            for _ in 0..blocks {
                let made = self.forward_block(&block, tokens);
                // The output takes the place of the input, which is kept.
                self.book.give(Kind::Activations, made.saturating_add(stream));
                of_block = if keep == Keep::Everything { made.saturating_add(stream) } else { stream };
                self.book.take_at(kept_at, Kind::Kept, of_all(of_block));
                // A copy that the device can read or write lies between.
                self.book.pass_on_host(Kind::Transfer, if waits { stream } else { 0 });
            }
            self.cross(stream);
            self.book.close(Moment::Forward);
            for first in [true, false].into_iter().take(together) {
                self.first = nth == 0 && first;
                if share.is_last() {
                    self.head(rows, true);
                } else if self.untouched {
                    self.untouched();
                }
                // The last output gives way to its gradient.
                self.book.pass(Kind::Activations, stream.saturating_add(over(rows, arch.hidden)));
                self.book.give(Kind::Activations, over(rows, 2 * arch.hidden + 1));
                self.book.give(Kind::Gradients, over(rows, arch.hidden));
            }
            self.book.take(Kind::Gradients, head_output(rows).saturating_mul(together.saturating_sub(2) as u64));
            self.book.close(Moment::Head);
            // The first of two pull-backs writes over copies of what the second one reads.
            let copied =
                match (keep, self.config.optim.clipping, self.execution.steps_in_turn(self.config, micro_batches)) {
                    (Keep::Everything, Clipping::Twice | Clipping::LastNorm, true) => {
                        over(tokens, block.gate_up.rows())
                    }
                    _ => 0,
                };
            self.book.take(Kind::Activations, copied);
            for _ in 0..blocks {
                let gradients = self.book.live[0].of(Kind::Gradients);
                for first in [true, false].into_iter().take(together) {
                    self.first = nth == 0 && first;
                    self.book.give_at(kept_at, Kind::Kept, of_block);
                    self.book.take(Kind::Activations, of_block);
                    self.book.pass_on_host(Kind::Transfer, if waits { stream } else { 0 });
                    if keep != Keep::Everything {
                        self.forward_block(&block, tokens);
                        self.book.give(Kind::Activations, stream);
                    }
                    self.backward_block(&block, tokens);
                }
                let rest = of_others(of_block).saturating_sub(if together > 1 { of_block } else { 0 });
                self.book.give_at(kept_at, Kind::Kept, rest);
                if self.execution.steps_in_turn(self.config, micro_batches) {
                    // Stepped at once.
                    let own = self.book.live[0].of(Kind::Gradients).saturating_sub(gradients);
                    self.book.give(Kind::Gradients, own);
                }
            }
            self.book.give(Kind::Activations, copied);
            if self.full && !arch.tied_head && share.is_first() {
                self.gradient(elements(&arch.embedding()));
            }
            self.cross(stream);
            self.book.give(Kind::Activations, of_all(stream));
            self.book.close(Moment::Backward);
        }
        self.book.give(Kind::Gradients, head_output(rows).saturating_mul(micro_batches as u64));
        self.book.forget();
        self.book.close(Moment::Step);
        self.book.give(Kind::Gradients, u64::MAX);
        self.book.forget();
    }

    /// A stream on its way from or to another device, through the host.
    fn cross(&mut self, stream: u64) {
        if self.book.site.share.of > 1 {
            self.book.pass_on_host(Kind::Transfer, stream);
        }
    }

    /// Copies of what is written, a parameter at a time, but for what lies in the host's memory as it is written; an
    /// adapter's file is put together before it is written.
    fn save(&mut self, trained: u64) {
        let compact = self.hold != Hold::F32 && self.config.run.moments == MomentBits::Eight;
        let block = self.arch.block(0);
        let matrices = block.linears().map(|linear| product(linear.rows(), linear.inputs));
        let copies = match self.full {
            true if compact && self.book.site.cpu => vectors_of(&block),
            true => matrices.chain([elements(&self.arch.embedding())]).max().unwrap_or(0),
            false => trained.saturating_mul(2),
        };
        self.book.pass_on_host(Kind::Transfer, f32s(copies));
        self.book.close(Moment::Saving);
    }

    /// The rows of a micro-batch through the head; `back` with their gradient.
    fn head(&mut self, rows: usize, back: bool) {
        let arch = self.arch;
        let models = if back && self.untouched { 2 } else { 1 };
        let (vocabulary, chunk) = (elements(&arch.embedding()), self.chunk(rows, models as u64));
        // Inputs and outputs of the norm before it.
        let normed = over(rows, 2 * arch.hidden + 1);
        self.book.take(Kind::Activations, normed);
        let of_untouched = if models == 2 { over(rows, arch.hidden) } else { 0 };
        if models == 2 {
            self.untouched();
            self.book.pass(Kind::Activations, normed);
            self.book.take(Kind::Activations, of_untouched);
        }
        let wide = match (self.wide, self.book.site.cpu) {
            (false, _) => 0,
            (true, true) => over(self.book.site.threads, arch.vocab),
            (true, false) => over(chunk, WIDE_ENTROPY_STATE),
        };
        let of_each = arch.vocab + MAX_TOP_K + STATS_WIDTH;
        let logits = over(chunk, models * of_each + models).saturating_add(wide);
        self.book.take(Kind::Logits, logits);
        let spec = arch.head().unwrap_or_else(|| arch.embedding());
        self.expand(&[spec]);
        if back {
            self.book.take(Kind::Gradients, head_output(rows).saturating_add(over(rows, arch.hidden)));
            if self.full {
                self.gradient(vocabulary);
            }
        }
        self.book.give(Kind::Logits, logits);
        self.book.give(Kind::Activations, of_untouched);
        if back {
            let together = if rows > chunk { over(rows, arch.hidden) } else { 0 };
            self.book.pass(Kind::Gradients, together);
        } else {
            self.book.give(Kind::Activations, normed);
        }
    }

    /// The untouched model's forward pass of a micro-batch.
    fn untouched(&mut self) {
        let (block, tokens) = (self.arch.block(0), self.load.tokens);
        let output = over(tokens, self.arch.hidden);
        self.book.take(Kind::Activations, output);
        for _ in 0..self.blocks().min(2) {
            let kept = self.forward_block(&block, tokens);
            self.book.give(Kind::Activations, kept.saturating_add(output));
        }
        self.cross(output);
        self.book.give(Kind::Activations, output);
    }

    /// `Block::forward`, whose input is held already. Holds its output and what is made for the way back, which it gives.
    fn forward_block(&mut self, block: &BlockSpec, tokens: usize) -> u64 {
        let arch = self.arch;
        let of = |width| over(tokens, width);
        let (hidden, query, key) = (of(arch.hidden), of(arch.query_width()), of(arch.key_value_width()));
        let before = self.held();
        self.hold(hidden);
        self.forward_linear(&block.qkv, tokens);
        self.free(hidden);
        if block.q_norm.is_some() {
            self.hold(query.saturating_add(key));
            self.book.pass(Kind::Activations, query);
        }
        self.hold(query.saturating_add(of(arch.heads)));
        let halves = self.halved_heads(tokens, arch.heads + 2 * arch.kv_heads);
        self.book.pass(Kind::Scratch, halves);
        self.forward_linear(&block.output, tokens);
        if block.attention_norm.is_some() {
            self.hold(hidden);
        }
        self.hold(hidden);
        self.forward_linear(&block.gate_up, tokens);
        self.free(hidden);
        let active = of(block.down.inputs);
        self.hold(active);
        self.forward_linear(&block.down, tokens);
        if block.mlp_output_norm.is_some() {
            self.hold(hidden);
        }
        self.free(active);
        self.held().saturating_sub(before).saturating_sub(hidden)
    }

    /// `Block::backward`: frees what the forward pass made and the input; the gradient of the input takes the place of that
    /// of the output.
    fn backward_block(&mut self, block: &BlockSpec, tokens: usize) {
        let arch = self.arch;
        let of = |width| over(tokens, width);
        let (hidden, query, key) = (of(arch.hidden), of(arch.query_width()), of(arch.key_value_width()));
        let (qkv, gate_up, active) = (of(block.qkv.rows()), of(block.gate_up.rows()), of(block.down.inputs));

        let dmlp = if block.mlp_output_norm.is_some() { hidden } else { 0 };
        self.hold(dmlp.saturating_add(active));
        self.free(dmlp); // The norm's input.
        self.backward_linear(&block.down, tokens);
        self.free(dmlp.saturating_add(active));
        self.free(active);
        self.hold(hidden);
        self.backward_linear(&block.gate_up, tokens);
        self.free(hidden.saturating_add(gate_up));
        self.book.pass(Kind::Activations, hidden);
        self.free(hidden.saturating_mul(2)); // With the stream between attention and MLP.

        let dprojected = if block.attention_norm.is_some() { hidden } else { 0 };
        self.hold(dprojected);
        self.free(dprojected);
        self.backward_linear(&block.output, tokens);
        self.hold(qkv);
        self.attend_backward(tokens);
        self.free(qkv.saturating_add(query.saturating_mul(2)).saturating_add(of(arch.heads)));
        if block.q_norm.is_some() {
            self.book.pass(Kind::Activations, query.saturating_mul(2));
            self.free(query.saturating_add(key));
        }
        self.hold(hidden);
        self.backward_linear(&block.qkv, tokens);
        self.free(hidden.saturating_add(qkv));
        self.hold(hidden);
        self.free(hidden.saturating_mul(3).saturating_add(dprojected));

        if self.full {
            self.gradient(vectors_of(block));
        }
    }

    /// Holds the output.
    fn forward_linear(&mut self, linear: &LinearSpec, tokens: usize) {
        self.hold(over(tokens, linear.rows()));
        self.expand_linear(linear);
        self.halve(linear, tokens);
        if let Some(rank) = self.rank(linear) {
            let dropped = self.dropped(linear, tokens);
            self.book.pass(Kind::Activations, dropped.saturating_add(over(tokens, rank)));
        }
    }

    /// Holds the gradient of the input.
    fn backward_linear(&mut self, linear: &LinearSpec, tokens: usize) {
        self.hold(over(tokens, linear.inputs));
        self.expand_linear(linear);
        self.halve(linear, tokens);
        if self.full {
            self.gradient(product(linear.rows(), linear.inputs));
        }
        if let Some(rank) = self.rank(linear) {
            // The dropped input, the sum of gradients by it, and that sum dropped.
            let dropped = self.dropped(linear, tokens).saturating_mul(3);
            let passing = dropped.saturating_add(over(tokens, 2 * rank));
            self.hold(passing);
            for (_, count) in self.low_rank(linear) {
                self.gradient(count);
            }
            self.free(passing);
        }
    }

    fn rank(&self, linear: &LinearSpec) -> Option<usize> {
        let (rows, count) = *self.low_rank(linear).first()?;
        Some((count / (rows + linear.inputs) as u64) as usize)
    }

    fn dropped(&self, linear: &LinearSpec, tokens: usize) -> u64 {
        if self.config.adapter.dropout > 0.0 { over(tokens, linear.inputs) } else { 0 }
    }

    /// Attention's backward pass beside its result: on the CPU copies of the keys' and values' gradients, on a device a
    /// number for each query and head.
    fn attend_backward(&mut self, tokens: usize) {
        let copies = match self.book.site.cpu {
            true => f32s(cpu::attention::stripes_elements(shape_of(self.arch), tokens) as u64),
            false => over(tokens, self.arch.heads),
        };
        // Where products are of two halves a number, gradients are in single precision.
        let halves = match self.book.site.segments {
            0 | 1 => self.halved_heads(tokens, 2 * (self.arch.heads + self.arch.kv_heads)),
            _ => 0,
        };
        self.book.pass(Kind::Scores, copies.saturating_add(halves));
    }

    /// Copies in half precision of what attention reads, so many rows of a head a token, each with an exponent.
    fn halved_heads(&self, tokens: usize, rows: usize) -> u64 {
        let bytes = 2 * self.arch.head_dim.next_multiple_of(HALF_TERMS) + 4;
        if self.book.site.halved_attention { product(tokens, rows.saturating_mul(bytes)) } else { 0 }
    }

    /// What one product may take for itself.
    fn tile_bytes(&self) -> u64 {
        match self.book.site.cpu {
            true => u64::MAX,
            false => launch::tile_bytes(self.book.site.max_binding_bytes, 0),
        }
    }

    /// A frozen matrix in single precision while it is used: on the CPU only a rectangle of it is, on a device as many rows as
    /// fit a tile.
    fn expand(&mut self, specs: &[TensorSpec]) {
        if matches!(stored(self.weights, specs, self.hold, self.arch.tied_head), Held::Packed(_)) {
            self.tile(specs);
        }
    }

    fn expand_linear(&mut self, linear: &LinearSpec) {
        let specs: Vec<TensorSpec> = linear.modules.iter().map(|module| linear.weight(module)).collect();
        match self.lies_in_buffers(linear) {
            true => self.tile(&specs),
            // Tensor cores have it halved as it is stored.
            false if self.book.site.segments > 0 => {}
            false => self.expand(&specs),
        }
    }

    /// Whether a matrix lies in buffers of its own even where it is held in single precision.
    fn lies_in_buffers(&self, linear: &LinearSpec) -> bool {
        f32s(product(linear.rows(), linear.inputs)) > self.book.site.max_binding_bytes
    }

    /// Copies of a product's operands in halves, of a matrix as much as fits a tile so and in single precision.
    fn halve(&mut self, linear: &LinearSpec, tokens: usize) {
        let bytes = 2 * self.book.site.segments as u64;
        if bytes > 0 {
            let matrix = product(linear.rows(), linear.inputs).min(self.tile_bytes() / bytes.max(4));
            let stream = product(tokens, linear.rows().max(linear.inputs));
            let tile = if self.lies_in_buffers(linear) { f32s(matrix) } else { 0 };
            let halves = matrix.saturating_add(stream).saturating_mul(bytes);
            self.book.pass(Kind::Scratch, tile.saturating_add(halves));
        }
    }

    fn tile(&mut self, specs: &[TensorSpec]) {
        if !self.book.site.cpu {
            let whole = specs.iter().fold(0_u64, |sum, spec| sum.saturating_add(elements(spec)));
            self.book.pass(Kind::Scratch, f32s(whole).min(self.tile_bytes()));
        }
    }

    /// A gradient that is made, or added to; on a device the sum is another tensor.
    fn gradient(&mut self, count: u64) {
        match self.first {
            true => self.book.take(Kind::Gradients, f32s(count)),
            false if self.book.site.cpu => {}
            false => self.book.pass(Kind::Gradients, f32s(count)),
        }
    }

    fn held(&self) -> u64 {
        self.book.live[0].of(Kind::Activations)
    }

    fn hold(&mut self, bytes: u64) {
        self.book.take(Kind::Activations, bytes);
    }

    fn free(&mut self, bytes: u64) {
        self.book.give(Kind::Activations, bytes);
    }
}

/// What stays of the head's rows until the end of the step: their statistics and weights. A divergence of each is not counted.
fn head_output(rows: usize) -> u64 {
    over(rows, STATS_WIDTH + 1)
}

fn shape_of(arch: &Architecture) -> attention::Shape {
    attention::Shape { heads: arch.heads, kv_heads: arch.kv_heads, head_dim: arch.head_dim }
}

/// Bytes of so many numbers a token.
fn over(tokens: usize, width: usize) -> u64 {
    f32s(product(tokens, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(set: &[(&str, &str)]) -> (Config, Architecture) {
        let arch = Architecture::from_config_json(
            br#"{"model_type": "llama", "vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384,
                 "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
                 "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#,
            "config.json",
        );
        let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let config = Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "run.toml", &set);
        (config.unwrap(), arch.unwrap())
    }

    fn ledger(set: &[(&str, &str)], learners: u64, load: Load, site: Site) -> Ledger {
        let (config, arch) = configured(set);
        Ledger::new(&config, &arch, None, learners, load, site, Execution::plan(&config, &arch, None, learners, site))
    }

    const LOAD: Load = Load { tokens: 512, rows: 512, micro_batches: 2, evaluated: 0 };

    fn of(ledger: &Ledger, moment: Moment) -> Sheet {
        ledger.moments.iter().find(|entry| entry.moment == moment).expect("a moment of every run").device
    }

    #[test]
    fn full_training_holds_value_moments_and_at_last_all_gradients_once_for_each_parameter() {
        let ledger = ledger(&[("adapter.kind", "none")], 1, LOAD, Site::default());
        let parameters = 4 * 1_049_728;
        assert_eq!(ledger.trained, 1_049_728);
        let step = of(&ledger, Moment::Step);
        assert_eq!([Kind::Weights, Kind::Moments].map(|kind| step.of(kind)), [parameters, 2 * parameters]);
        // The norm before the head is a vector of 128.
        assert_eq!(step.of(Kind::Gradients), parameters - 4 * 128);
        assert_eq!(step.of(Kind::Activations) + step.of(Kind::Kept) + step.of(Kind::Logits), 0);
    }

    #[test]
    fn of_fewer_bits_weights_and_moments_take_2_bytes_each_and_gradients_those_of_a_block_and_the_vocabulary() {
        let set =
            [("adapter.kind", "none"), ("run.storage", "bf16"), ("run.moments", "8bit"), ("optim.clipping", "twice")];
        let ledger = ledger(&set, 1, LOAD, Site::default());
        let (vectors, vocabulary, block) = (4 * 256 + 128, 2048 * 128, 128 * 256 + 128 * 128 + 3 * 128 * 384 + 256);
        let matrices = ledger.trained - vectors;
        let step = of(&ledger, Moment::Step);
        assert_eq!(step.of(Kind::Weights), 2 * matrices + 4 * vectors);
        assert_eq!(step.of(Kind::Moments), 2 * (matrices + 4 * matrices.div_ceil(256) + 4 * vectors));
        // The head's statistics are held as well.
        let gradients = |moment| of(&ledger, moment).of(Kind::Gradients) - 2 * 512 * 4 * 9;
        assert_eq!(step.of(Kind::Gradients), 4 * vocabulary);
        // The most is held somewhere within a block, with some of its gradients.
        let most = gradients(Moment::Backward);
        assert!(most > 4 * vocabulary && most <= 4 * (vocabulary + block), "{most}");
        // A second learner shares nothing once it is stepped.
        let two = self::ledger(&set, 2, LOAD, Site::default());
        let more = of(&two, Moment::Step).total() - step.total();
        assert_eq!(more, step.of(Kind::Weights) + step.of(Kind::Moments));
    }

    #[test]
    fn an_adapter_trains_rank_times_inputs_and_outputs_of_its_targets_alone() {
        let set = [("adapter.rank", "8"), ("adapter.targets", "q_proj,down_proj")];
        let [one, two] = [1, 2].map(|learners| ledger(&set, learners, LOAD, Site::default()));
        assert_eq!(one.trained, 4 * 8 * ((128 + 128) + (384 + 128)));
        // A second learner has its own values and moments, and nothing else.
        assert_eq!(two.device_bytes() - one.device_bytes(), 3 * 4 * one.trained);
        assert!(one.device_bytes() < ledger(&[("adapter.kind", "none")], 1, LOAD, Site::default()).device_bytes());
    }

    #[test]
    fn a_divergence_takes_a_second_set_of_weights_where_all_are_trained_and_with_an_adapter_none() {
        for (kind, more) in [("none", 4 * 1_049_728), ("lora", 0)] {
            let with =
                |method| ledger(&[("adapter.kind", kind), ("objective.method", method)], 1, LOAD, Site::default());
            let step = |ledger: &Ledger| of(ledger, Moment::Step).of(Kind::Weights);
            let (plain, held) = (with("sft"), with("sft_kl"));
            assert_eq!(step(&held) - step(&plain), more, "{kind}");
            let baseline = [("adapter.kind", kind), ("run.baseline", "asft")];
            assert_eq!(step(&ledger(&baseline, 1, LOAD, Site::default())), step(&held), "{kind}");
            let logits = |ledger: &Ledger| of(ledger, Moment::Head).of(Kind::Logits);
            // So few tokens of vocabulary do not make a chunk shorter.
            assert!(logits(&held) > logits(&plain) && logits(&held) <= 2 * logits(&plain) + 4096, "{kind}");
        }
    }

    #[test]
    fn everything_that_a_micro_batch_takes_is_given_back() {
        for set in [
            [("run.recompute", "always"), ("adapter.kind", "none"), ("objective.method", "eaft")],
            [("run.recompute", "never"), ("adapter.kind", "lora"), ("objective.method", "eaft")],
            [("run.recompute", "never"), ("adapter.kind", "lora"), ("objective.method", "sft_kl")],
            [("run.recompute", "always"), ("adapter.kind", "none"), ("objective.top_k", "full")],
            [("run.recompute", "always"), ("adapter.kind", "none"), ("objective.top_k", "adaptive")],
        ] {
            for cpu in [true, false] {
                let site = Site { cpu, max_binding_bytes: 1 << 27, threads: 2, ..Site::default() };
                let ledger = ledger(&set, 1, Load { evaluated: 700, ..LOAD }, site);
                let (step, loaded) = (of(&ledger, Moment::Step), of(&ledger, Moment::Loaded));
                for kind in [Kind::Kept, Kind::Activations, Kind::Logits] {
                    assert_eq!(step.of(kind), 0, "{set:?} {kind:?}");
                }
                for kind in [Kind::Weights, Kind::Adapter, Kind::Scratch] {
                    assert_eq!(step.of(kind), loaded.of(kind), "{set:?} {kind:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_kept_of_the_blocks_is_their_inputs_or_all_that_they_read() {
        let kept = |how| of(&ledger(&[("run.recompute", how)], 1, LOAD, Site::default()), Moment::Head).of(Kind::Kept);
        let arch_bytes = 4 * (128 + 256 + 128 + 4 + 128 + 768);
        assert_eq!(kept("never"), 4 * 512 * arch_bytes);
        assert_eq!(kept("always"), 4 * 512 * 4 * 128);
    }

    #[test]
    fn inputs_that_wait_on_the_host_are_counted_there() {
        let gpu = Site { cpu: false, own_memory: true, max_binding_bytes: 1 << 27, ..Site::default() };
        let (config, arch) = configured(&[]);
        let kept = |keep| {
            let ledger = Ledger::new(&config, &arch, None, 1, LOAD, gpu, Execution::resident(keep));
            let head = ledger.moments.iter().find(|entry| entry.moment == Moment::Head).unwrap().clone();
            let step = ledger.moments.iter().find(|entry| entry.moment == Moment::Step).unwrap().host;
            [head.device.of(Kind::Kept), head.host.of(Kind::Kept), step.of(Kind::Kept)]
        };
        let all = 4 * 512 * 4 * 128;
        assert_eq!([kept(Keep::Inputs), kept(Keep::InputsOnHost)], [[all, 0, 0], [0, all, 0]]);
    }

    #[test]
    fn a_device_with_its_own_memory_holds_no_scores_and_the_host_only_what_passes() {
        let gpu = Site { cpu: false, max_binding_bytes: 1 << 27, threads: 2, ..Site::default() };
        let ledger = ledger(&[], 1, LOAD, gpu);
        assert_eq!(of(&ledger, Moment::Forward).of(Kind::Scores), 0);
        // Where most is held attention is over, or it holds a number for each query and head.
        let back = of(&ledger, Moment::Backward).of(Kind::Scores);
        assert!([0, 4 * 4 * 512].contains(&back), "{back}");
        assert!(ledger.host_bytes() > 0 && ledger.host_bytes() < ledger.device_bytes());
        assert_eq!(self::ledger(&[], 1, LOAD, Site::default()).host_bytes(), 0);
    }

    #[test]
    fn half_precision_takes_copies_of_both_operands() {
        let few = Load { tokens: 8, rows: 8, micro_batches: 1, evaluated: 8 };
        let gpu = Site { cpu: false, max_binding_bytes: 1 << 27, ..Site::default() };
        let bytes = |segments, load| ledger(&[], 1, load, Site { segments, ..gpu }).device_bytes();
        // With few tokens nothing else is as large as the widest matrix, in single precision and halved.
        assert!(bytes(1, few) > bytes(0, few), "{} {}", bytes(1, few), bytes(0, few));
        assert!(bytes(3, few) > bytes(1, few), "{} {}", bytes(3, few), bytes(1, few));
        assert!(bytes(1, LOAD) >= bytes(0, LOAD) && bytes(3, LOAD) >= bytes(1, LOAD));
        let attention = |halved_attention| ledger(&[], 1, LOAD, Site { segments: 1, halved_attention, ..gpu });
        let scores = |ledger: &Ledger| of(ledger, Moment::Backward).of(Kind::Scores);
        assert!(attention(true).device_bytes() >= attention(false).device_bytes());
        let scratch = |ledger: &Ledger| of(ledger, Moment::Forward).of(Kind::Scratch) + scores(ledger);
        assert!(scratch(&attention(true)) >= scratch(&attention(false)));
    }

    #[test]
    fn rotary_tables_of_blocks_with_a_window_are_held_beside_the_others() {
        let (config, arch) = configured(&[]);
        let bytes = |local_rope| {
            let (arch, site) = (Architecture { local_rope, ..arch.clone() }, Site::default());
            let execution = Execution::plan(&config, &arch, None, 1, site);
            Ledger::new(&config, &arch, None, 1, LOAD, site, execution).device_bytes()
        };
        // Cosines and sines of 512 positions.
        assert_eq!(bytes(Some(arch.rope.clone())) - bytes(None), 4 * 512 * 32);
    }

    #[test]
    fn absurd_numbers_saturate() {
        let load = Load { tokens: usize::MAX, rows: usize::MAX, micro_batches: usize::MAX, evaluated: usize::MAX };
        assert_eq!(ledger(&[("adapter.kind", "none")], u64::MAX, load, Site::default()).device_bytes(), u64::MAX);
    }
}
