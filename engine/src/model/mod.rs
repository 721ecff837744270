//! A decoder-only language model: embedding, blocks, final norm, head.
//!
//! One description ([`architecture`]) and one block ([`block`]) serve all families ([`family`]). The forward and the
//! backward pass are plain functions on device tensors; no graph is kept.

pub mod adapter;
pub mod architecture;
pub mod block;
pub mod cache;
pub mod family;
pub mod files;
pub mod folder;
pub mod gguf;
pub mod hugging_face;
pub mod layout;
pub mod linear;
pub mod load;
pub mod open;
pub mod parameter;
pub mod placement;
pub mod rope;
pub mod settings;
pub mod slots;
pub mod vocabulary;
pub mod weight;

use burn::tensor::Tensor;

use crate::data::MicroBatch;
use crate::device::Device;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::kernels;
use crate::kernels::tensor::{OnHost, moved};
use architecture::Architecture;
use block::{Activations, Attention, Block, Pass, RotaryTables, Stream};
use cache::Step;
use parameter::Parameter;
use placement::{Placement, Stage};
use slots::Slots;
use vocabulary::VocabularyMatrix;

/// A model on its devices. A clone shares the original's memory; a parameter gets memory of its own when it is stepped.
#[derive(Clone)]
pub struct Model {
    /// Its description.
    pub arch: Architecture,
    /// Token embedding; also the head where they are tied.
    pub embedding: VocabularyMatrix,
    /// Blocks, first to last.
    pub blocks: Vec<Block>,
    /// Norm before the head.
    pub final_norm: Parameter,
    /// The head, where it is not the embedding.
    pub head: Option<VocabularyMatrix>,
    /// What it was made of: its description and its weights as they were stored. Training does not change it.
    pub origin: Digest,
    placement: Placement,
    /// One for each stage.
    rotary: Vec<RotaryTables>,
    slots: Slots,
}

/// How much of the forward pass is kept for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Nothing: there is no backward pass.
    Nothing,
    /// Each block's input; a block runs again before its backward pass.
    Inputs,
    /// As `Inputs`, in the host's memory until the backward pass; on the CPU the same.
    InputsOnHost,
    /// Everything that the backward passes read.
    Everything,
}

/// A block's input, `[tokens, hidden]`, kept for the backward pass.
#[derive(Clone)]
enum Input {
    OnDevice(Tensor<2>),
    OnHost(OnHost),
}

/// What a forward pass left behind.
pub struct Forward {
    /// Last block's output, `[tokens, hidden]`, before the final norm.
    pub output: Tensor<2>,
    inputs: Vec<Input>,
    activations: Vec<Activations>,
    /// One for each stage.
    streams: Vec<Stream>,
    seed: Option<u64>,
}

/// A backward pass under way, after the head and before the block that is next. A clone pulls the same back again.
#[derive(Clone)]
pub struct Backward {
    /// Gradient by the output of that block, `[tokens, hidden]`.
    dy: Tensor<2>,
    inputs: Vec<Input>,
    activations: Vec<Activations>,
    streams: Vec<Stream>,
    seed: Option<u64>,
}

/// Final-norm outputs of the trained rows of a micro-batch.
pub struct TrainedRows {
    /// Rows of the stream that are trained.
    pub rows: Vec<u32>,
    /// Label of each.
    pub labels: Vec<u32>,
    /// Inputs of the final norm, `[rows, hidden]`.
    input: Tensor<2>,
    inverse: Tensor<1>,
    /// Outputs of the final norm, `[rows, hidden]`.
    pub hidden: Tensor<2>,
}

impl Model {
    /// Puts the parts together; see [`load`] for where they come from.
    pub fn new(
        arch: Architecture,
        embedding: VocabularyMatrix,
        blocks: Vec<Block>,
        final_norm: Parameter,
        head: Option<VocabularyMatrix>,
        placement: Placement,
    ) -> Self {
        // Grown on demand: most runs are far shorter than a model's context.
        let rotary = placement.stages().iter().map(|stage| RotaryTables::new(&arch, &stage.device, 0)).collect();
        Self {
            arch,
            embedding,
            blocks,
            final_norm,
            head,
            origin: Digest::default(),
            placement,
            rotary,
            slots: Slots::default(),
        }
    }

    /// Where its parts lie.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The matrix that makes logits.
    pub fn head(&self) -> &VocabularyMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The matrix that makes logits.
    pub fn head_mut(&mut self) -> &mut VocabularyMatrix {
        self.head.as_mut().unwrap_or(&mut self.embedding)
    }

    /// Runs a packed stream through all blocks.
    ///
    /// # Errors
    /// [`Error::Token`] on a token outside the vocabulary; what reading a block gives that is left in its file; device errors.
    pub fn forward(&mut self, batch: &MicroBatch, keep: Keep, seed: Option<u64>) -> Result<Forward> {
        Ok(self.forward_until(batch, keep, seed, &|| false)?.expect("nobody stops it"))
    }

    /// Runs several streams, each with its seed, through all blocks: all of them through a block before the next one.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_all(&mut self, batches: &[(&MicroBatch, Option<u64>)], keep: Keep) -> Result<Vec<Forward>> {
        Ok(self.forward_all_until(batches, keep, &|| false)?.expect("nobody stops it"))
    }

    /// As [`Model::forward`]; none where `stop`, which is asked before every block, says so.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_until(
        &mut self,
        batch: &MicroBatch,
        keep: Keep,
        seed: Option<u64>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Forward>> {
        Ok(self.forward_all_until(&[(batch, seed)], keep, stop)?.and_then(|mut forwards| forwards.pop()))
    }

    fn forward_all_until(
        &mut self,
        batches: &[(&MicroBatch, Option<u64>)],
        keep: Keep,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Forward>>> {
        let mut forwards = batches.iter().map(|(batch, seed)| self.enter(batch, *seed)).collect::<Result<Vec<_>>>()?;
        Ok(self.through_blocks(&mut forwards, keep, None, stop)?.then_some(forwards))
    }

    /// Runs what was embedded through all blocks; with `step` it is one stream, whose keys and values go into a cache. False
    /// where `stop` said so.
    fn through_blocks(
        &mut self,
        forwards: &mut [Forward],
        keep: Keep,
        mut step: Option<&mut Step>,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool> {
        for index in 0..self.blocks.len() {
            if stop() {
                return Ok(false);
            }
            self.through(index, forwards, keep, step.as_deref_mut())?;
        }
        Ok(true)
    }

    /// Runs what came to a block through it.
    fn through(
        &mut self,
        index: usize,
        forwards: &mut [Forward],
        keep: Keep,
        mut step: Option<&mut Step>,
    ) -> Result<()> {
        let next = (index + 1 < self.blocks.len()).then_some(index + 1);
        let stage = self.placement.stage_of(index);
        let device = &self.placement.stages()[stage].device;
        self.slots.enter(&mut self.blocks, index, next, device)?;
        for forward in &mut *forwards {
            let mut input = forward.output.clone();
            if index > 0 && self.placement.stage_of(index - 1) != stage {
                input = moved(input, device)?;
            }
            match keep {
                Keep::InputsOnHost if !device.is_cpu() => {
                    forward.inputs.push(Input::OnHost(OnHost::of(&input)?));
                }
                Keep::Inputs | Keep::InputsOnHost => forward.inputs.push(Input::OnDevice(input.clone())),
                Keep::Nothing | Keep::Everything => {}
            }
            let pass = Pass {
                device,
                arch: &self.arch,
                rotary: &self.rotary[stage],
                stream: &forward.streams[stage],
                seed: forward.seed,
                attention: match &mut step {
                    Some(step) => Attention::Cache(step.of_block(index, stage, self.arch.window_of(index))),
                    None => Attention::Stream,
                },
            };
            let (output, of_block) = self.blocks[index].forward(&pass, input)?;
            forward.output = output;
            if keep == Keep::Everything {
                forward.activations.push(of_block);
            }
        }
        Ok(())
    }

    /// Embeds streams for who takes them through the blocks one by one ([`Model::through_block`]).
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn enter_all(&mut self, batches: &[MicroBatch]) -> Result<Vec<Forward>> {
        batches.iter().map(|batch| self.enter(batch, None)).collect()
    }

    /// Runs streams that have come to a block through it.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn through_block(&mut self, index: usize, streams: &mut [Forward]) -> Result<()> {
        self.through(index, streams, Keep::Nothing, None)
    }

    /// What the linear layers of a block read of a stream that has come to it, in the order of
    /// [`parts`](layout::BlockOf::parts). The stream stays where it is.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn inputs_of_block(&mut self, index: usize, stream: &mut Forward) -> Result<[Tensor<2>; 4]> {
        let before = stream.output.clone();
        self.through(index, std::slice::from_mut(stream), Keep::Everything, None)?;
        stream.output = before;
        let stage = self.placement.stage_of(index);
        let device = &self.placement.stages()[stage].device;
        let kept = stream.activations.pop().expect("a block keeps what it is told to");
        kept.read_by_linears(&self.blocks[index], device, &self.arch)
    }

    /// Embeds a stream.
    fn enter(&mut self, batch: &MicroBatch, seed: Option<u64>) -> Result<Forward> {
        let vocab = self.arch.vocab;
        if let Some(row) = batch.tokens.iter().position(|&t| t as usize >= vocab) {
            return Err(Error::Token { place: row + 1, token: batch.tokens[row], vocab });
        }
        for stage in self.placement.stages() {
            Activations::check(&self.arch, batch.tokens.len(), &stage.device)?;
        }
        let longest = batch.positions.iter().max().map_or(0, |&p| p as usize + 1);
        self.arch.check_length(longest)?;
        let window = self.arch.window.as_ref().map(|window| window.tokens);
        let mut streams = Vec::with_capacity(self.rotary.len());
        for (stage, rotary) in self.placement.stages().iter().zip(&mut self.rotary) {
            let device = &stage.device;
            if longest > rotary.positions() {
                *rotary = RotaryTables::new(&self.arch, device, longest.next_power_of_two());
            }
            streams.push(Stream::new(device, batch, window));
        }
        let output = self.scaled(self.embedding.gather(self.placement.first(), &batch.tokens)?);
        Ok(Forward { output, inputs: Vec::new(), activations: Vec::new(), streams, seed })
    }

    /// Rows of the embedding, or their gradients, times the factor that they enter the model with.
    fn scaled(&self, rows: Tensor<2>) -> Tensor<2> {
        if self.arch.embedding_scale == 1.0 {
            return rows;
        }
        // burn multiplies.
        self.placement.first().submit();
        rows * self.arch.embedding_scale as f32
    }

    /// Final-norm outputs of the rows whose label is not ignored; `None` where there is no such row.
    ///
    /// # Errors
    /// Device errors.
    pub fn trained_rows(&self, batch: &MicroBatch, forward: &Forward) -> Result<Option<TrainedRows>> {
        let rows: Vec<u32> = (0..batch.labels.len()).filter(|&t| batch.labels[t] >= 0).map(|t| t as u32).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let labels = rows.iter().map(|&t| batch.labels[t as usize] as u32).collect();
        let input = kernels::elementwise::gather_rows(self.placement.last(), &forward.output, &rows, 0)?;
        let (hidden, inverse) = self.norm(&input)?;
        Ok(Some(TrainedRows { rows, labels, input, inverse, hidden }))
    }

    fn norm(&self, x: &Tensor<2>) -> Result<(Tensor<2>, Tensor<1>)> {
        let scale = self.final_norm.as_vector();
        kernels::rms_norm::forward(self.placement.last(), x, &scale, self.arch.norm_epsilon as f32)
    }

    /// Begins to pull the gradient of the final-norm outputs back. What follows is [`Model::backward_block`] for each block
    /// from the last to the first, then [`Model::end_backward`].
    ///
    /// # Errors
    /// Device errors.
    pub fn begin_backward(&mut self, forward: Forward, rows: TrainedRows, dhidden: Tensor<2>) -> Result<Backward> {
        let Forward { output, inputs, activations, streams, seed } = forward;
        let device = self.placement.last();
        let drows = block::norm_backward(device, &mut self.final_norm, &rows.input, &rows.inverse, &dhidden)?;
        let zeros = Tensor::zeros(output.dims(), device.burn());
        let dy = kernels::elementwise::scatter_add_rows(device, zeros, &rows.rows, 0, &drows)?;
        Ok(Backward { dy, inputs, activations, streams, seed })
    }

    /// Pulls all of these back through the block that is next; its gradients for them are complete then.
    ///
    /// # Errors
    /// What reading a block gives that is left in its file; device errors.
    pub fn backward_block(&mut self, index: usize, backs: Vec<Backward>) -> Result<Vec<Backward>> {
        let stage = self.placement.stage_of(index);
        let device = &self.placement.stages()[stage].device;
        let crosses = index + 1 < self.blocks.len() && self.placement.stage_of(index + 1) != stage;
        self.slots.enter(&mut self.blocks, index, index.checked_sub(1), device)?;
        let block = &mut self.blocks[index];
        let pull = |mut back: Backward| {
            let pass = Pass {
                device,
                arch: &self.arch,
                rotary: &self.rotary[stage],
                stream: &back.streams[stage],
                seed: back.seed,
                attention: Attention::Stream,
            };
            let kept = match (back.activations.pop(), back.inputs.pop()) {
                (Some(kept), _) => kept,
                (None, Some(input)) => {
                    let input = match input {
                        Input::OnDevice(input) => input,
                        Input::OnHost(input) => input.onto(device),
                    };
                    block.forward(&pass, input)?.1
                }
                (None, None) => unreachable!("a backward pass after a forward pass that kept nothing"),
            };
            // Moved out, so that the block finds itself the sole owner.
            let dy = if crosses { moved(back.dy, device)? } else { back.dy };
            back.dy = block.backward(&pass, kept, dy)?;
            Ok(back)
        };
        backs.into_iter().map(pull).collect()
    }

    /// Gives the embedding what is left, where it is trained.
    ///
    /// # Errors
    /// Device errors.
    pub fn end_backward(&mut self, batch: &MicroBatch, back: Backward) -> Result<()> {
        if !self.embedding.parameters().any(|parameter| parameter.trained) {
            return Ok(());
        }
        let dy = self.scaled(back.dy);
        self.embedding.add_row_gradients(self.placement.first(), &batch.tokens, &dy)
    }

    /// Logits of every position of `tokens`, `[tokens, vocab]` on the host.
    ///
    /// # Errors
    /// As [`Model::forward`]; [`Error::NonFinite`] naming the row, and the weight that it comes from.
    pub async fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let batch = MicroBatch::whole(tokens);
        let forward = self.forward(&batch, Keep::Nothing, None)?;
        let (hidden, _) = self.norm(&forward.output)?;
        self.logits_on_host(&self.head().logits(self.placement.last(), &hidden)?).await
    }

    /// Logits of some rows, a tensor `[rows, tile]` a tile of the vocabulary, as `[rows, vocab]` on the host.
    async fn logits_on_host(&self, tiles: &[Tensor<2>]) -> Result<Vec<f32>> {
        let (rows, vocab) = (tiles.first().map_or(0, |tile| tile.dims()[0]), self.arch.vocab);
        let mut all = vec![0.0; rows * vocab];
        let mut start = 0;
        for tile in tiles {
            let width = tile.dims()[1];
            let values = kernels::tensor::read(tile).await?;
            for (row, values) in all.chunks_exact_mut(vocab).zip(values.chunks_exact(width)) {
                row[start..start + width].copy_from_slice(values);
            }
            start += width;
        }
        self.finite(all, vocab).await
    }

    /// Refuses logits, `[rows, vocab]`, that are not all finite: nothing can be read out of them.
    async fn finite(&self, logits: Vec<f32>, vocab: usize) -> Result<Vec<f32>> {
        match logits.iter().position(|z| !z.is_finite()) {
            None => Ok(logits),
            Some(at) => {
                let error = Error::NonFinite { tensor: "logits".into(), row: at / vocab, step: None };
                Err(self.blame(error).await)
            }
        }
    }

    /// Adds to a [`Error::NonFinite`] which weight it comes from, where a weight is not finite itself. Other errors pass.
    /// Reads every weight back, so it is for errors only.
    pub async fn blame(&self, error: Error) -> Error {
        let Error::NonFinite { tensor, row, step } = error else { return error };
        let mut parameters = Vec::new();
        self.visit(&mut |parameter| parameters.push(parameter));
        for parameter in parameters {
            if let Ok(values) = parameter.value.read().await
                && let Some((name, at)) = parameter.first_non_finite(&values)
            {
                let tensor = format!("{tensor} (because of weight {name}, row {at})");
                return Error::NonFinite { tensor, row, step };
            }
        }
        Error::NonFinite { tensor, row, step }
    }

    /// Calls `visit` on every parameter, in a fixed order.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        (0..self.placement.stages().len()).for_each(|stage| self.visit_stage(stage, visit));
    }

    /// Calls `visit` on every parameter of a stage, in the order of [`Model::visit`].
    pub fn visit_stage<'a>(&'a self, stage: usize, visit: &mut dyn FnMut(&'a Parameter)) {
        let stages = self.placement.stages();
        if stage == 0 {
            self.embedding.tiles().iter().filter_map(|t| t.weight.parameter()).for_each(&mut *visit);
        }
        for block in &self.blocks[stages[stage].blocks.clone()] {
            block.visit(visit);
        }
        if stage + 1 == stages.len() {
            visit(&self.final_norm);
            self.head.iter().flat_map(|h| h.tiles()).filter_map(|t| t.weight.parameter()).for_each(visit);
        }
    }

    /// Calls `visit` on every parameter, in the order of [`Model::visit`].
    ///
    /// # Errors
    /// The first error of `visit`.
    pub fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter) -> Result<()>) -> Result<()> {
        self.visit_placed_mut(&mut |_, parameter| visit(parameter))
    }

    /// Calls `visit` on every parameter and the device that it lies on, in the order of [`Model::visit`].
    ///
    /// # Errors
    /// The first error of `visit`.
    pub fn visit_placed_mut(&mut self, visit: &mut dyn FnMut(&Device, &mut Parameter) -> Result<()>) -> Result<()> {
        let (first, last) = (self.placement.first(), self.placement.last());
        let embedding = self.embedding.tiles_mut().iter_mut();
        embedding.filter_map(|t| t.weight.parameter_mut()).try_for_each(|parameter| visit(first, parameter))?;
        for stage in self.placement.stages() {
            for block in &mut self.blocks[stage.blocks.clone()] {
                block.visit_mut(&mut |parameter| visit(&stage.device, parameter))?;
            }
        }
        visit(last, &mut self.final_norm)?;
        let head = self.head.iter_mut().flat_map(|h| h.tiles_mut());
        head.filter_map(|t| t.weight.parameter_mut()).try_for_each(|parameter| visit(last, parameter))
    }

    /// The parameters before the blocks and those behind them, in the order of [`Model::visit`].
    pub fn around_blocks(&self) -> (Vec<&Parameter>, Vec<&Parameter>) {
        let head = self.head.iter().flat_map(VocabularyMatrix::parameters);
        (self.embedding.parameters().collect(), std::iter::once(&self.final_norm).chain(head).collect())
    }

    /// The trained parameters, in a fixed order.
    pub fn trained(&self) -> Vec<&Parameter> {
        self.trained_on_each().into_iter().flat_map(|(_, trained)| trained).collect()
    }

    /// The trained parameters of each device, in the order of [`Model::trained`].
    pub fn trained_on_each<'a>(&'a self) -> Vec<(&'a Device, Vec<&'a Parameter>)> {
        let of_stage = |(index, stage): (usize, &'a Stage)| {
            let mut trained = Vec::new();
            self.visit_stage(index, &mut |p| {
                if p.trained {
                    trained.push(p);
                }
            });
            (&stage.device, trained)
        };
        self.placement.stages().iter().enumerate().map(of_stage).collect()
    }
}
