//! One optimiser step: the only place where data, model, objective and optimiser meet.

use burn::tensor::Tensor;

use crate::data::MicroBatch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::adamw::SumSquares;
use crate::kernels::row_stats::RowStats;
use crate::kernels::tensor::read_all;
use crate::loss::head::{self, HeadOutput};
use crate::loss::objective::{BatchStats, Objective};
use crate::model::architecture::Architecture;
use crate::model::block::Activations;
use crate::model::{Forward, Keep, Model};
use crate::rng::mix;
use crate::settings::choice;
use crate::train::optimiser::{self, AdamW, Step};

choice! {
    /// Whether blocks run a second time in the backward pass (gradient checkpointing).
    pub enum Recompute {
        /// Only where keeping everything would take more than 512 MiB a micro-batch.
        Auto = "auto",
        /// In every step: least memory.
        Always = "always",
        /// In no step: a third fewer operations.
        Never = "never",
    }
}

/// With [`Recompute::Auto`], what a micro-batch's kept activations may take: 512 MiB.
const KEEP_BYTES: usize = 512 << 20;

/// What is kept of a micro-batch of so many tokens.
pub(super) fn keeps(recompute: Recompute, arch: &Architecture, tokens: usize) -> Keep {
    let bytes = Activations::bytes_per_token(arch).saturating_mul(arch.layers).saturating_mul(tokens);
    match recompute {
        Recompute::Always => Keep::Inputs,
        Recompute::Auto if bytes > KEEP_BYTES => Keep::Inputs,
        _ => Keep::Everything,
    }
}

/// A model being trained.
pub struct Session {
    /// The model.
    pub model: Model,
    /// What is minimised. May be replaced between steps.
    pub objective: Objective,
    /// How parameters are stepped.
    pub optimiser: AdamW,
    /// When blocks run again.
    pub recompute: Recompute,
    /// Seed of dropout masks.
    pub seed: u64,
    /// Steps applied so far.
    pub step: u64,
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct StepDone {
    /// The optimiser step, from 1; `None` where no token was trained and the step was skipped.
    pub step: Option<u64>,
    /// Trained tokens of the step.
    pub trained_tokens: usize,
    /// All tokens that went through the model.
    pub tokens: usize,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Statistics of the step's batch that the objective's weights were computed with.
    pub batch: BatchStats,
}

/// What a step did, with its rows for whoever wants to plot them.
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// The optimiser step, from 1; `None` where no token was trained and the step was skipped.
    pub step: Option<u64>,
    /// Trained tokens of the step.
    pub trained_tokens: usize,
    /// All tokens that went through the model.
    pub tokens: usize,
    /// Sum of the objective's per-token losses over trained tokens, divided once by their number.
    pub loss: f64,
    /// Ungated cross entropy, the same way.
    pub cross_entropy: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Statistics of the step's batch that the objective's weights were computed with.
    pub batch: BatchStats,
    /// Statistics of each trained row, in order.
    pub rows: Vec<RowStats>,
    /// Gate of each trained row as the device used it.
    pub gates: Vec<f32>,
}

impl StepOutcome {
    fn new(done: StepDone, rows: Rows, objective: &Objective) -> Self {
        let StepDone { step, trained_tokens, tokens, gradient_norm, batch } = done;
        let Rows { stats, gates } = rows;
        let mean = |sum: f64| sum / trained_tokens.max(1) as f64;
        let mut loss = 0.0;
        let mut cross_entropy = 0.0;
        for row in &stats {
            loss += objective.loss(row, &batch) as f64;
            cross_entropy += row.ce as f64;
        }
        Self {
            step,
            trained_tokens,
            tokens,
            loss: mean(loss),
            cross_entropy: mean(cross_entropy),
            gradient_norm,
            batch,
            rows: stats,
            gates,
        }
    }
}

/// What a pass reads back of its rows.
#[derive(Default)]
struct Rows {
    stats: Vec<RowStats>,
    gates: Vec<f32>,
}

impl Session {
    /// Applies one optimiser step on micro-batches that together are its batch.
    ///
    /// The gradient is the one of the sum over all trained tokens divided by their number, however the batch is split.
    /// Objectives that need whole-batch statistics get those of all micro-batches, at the price of a second forward
    /// pass where there is more than one. Row statistics and the gradient's norm are read back once per step, together,
    /// before anything is stepped: a step with NaN or infinity in its logits or gradients changes nothing.
    ///
    /// # Errors
    /// [`Error::NonFinite`], naming the step; device errors. The model is unchanged then (its gradients are dropped),
    /// with one exception: where blocks are stepped one by one (no clipping, one micro-batch), those above the first
    /// gradient that is not finite have been stepped, and the session is to be loaded from a checkpoint again.
    pub async fn step(&mut self, batches: &[MicroBatch], learning_rate: f64) -> Result<StepOutcome> {
        let mut rows = Rows::default();
        let done = self.try_step(batches, learning_rate, Some(&mut rows)).await?;
        Ok(StepOutcome::new(done, rows, &self.objective))
    }

    /// The same step to the bit, of which nobody wants to see the rows: only the gradient's norm and what tells
    /// whether all logits and losses were finite is read back.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub async fn step_unread(&mut self, batches: &[MicroBatch], learning_rate: f64) -> Result<StepDone> {
        self.try_step(batches, learning_rate, None).await
    }

    async fn try_step(
        &mut self,
        batches: &[MicroBatch],
        learning_rate: f64,
        rows: Option<&mut Rows>,
    ) -> Result<StepDone> {
        let number = self.step + 1;
        let error = match self.pass(batches, Some(learning_rate), number, rows).await {
            Ok(mut done) if done.trained_tokens > 0 => {
                // Clipping is off where blocks were stepped on the way, so the whole norm is the right one for the rest.
                let gradient_scale = self.optimiser.clip_factor(done.gradient_norm);
                let step = Step { number, learning_rate, gradient_scale, seed: self.seed };
                self.optimiser.step(&mut self.model, &step)?;
                done.step = Some(number);
                self.step = number;
                return Ok(done);
            }
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // Half-summed gradients must not leak into a step that the caller may try next.
        self.model.visit_mut(&mut |p| {
            p.gradient = None;
            Ok(())
        })?;
        Err(match error {
            Error::NonFinite { tensor, row, .. } => {
                self.model.blame(Error::NonFinite { tensor, row, step: Some(number) }).await
            }
            other => other,
        })
    }

    /// Gradients of the objective on a batch, left in the model's parameters, without stepping anything.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub async fn gradients(&mut self, batches: &[MicroBatch]) -> Result<StepOutcome> {
        let mut rows = Rows::default();
        let done = self.pass(batches, None, self.step + 1, Some(&mut rows)).await?;
        Ok(StepOutcome::new(done, rows, &self.objective))
    }

    /// Forward and backward pass of all micro-batches. With a learning rate, blocks are stepped on the way where that is
    /// allowed; what is left to step keeps its gradient. Rows are read back where there is somewhere to put them.
    async fn pass(
        &mut self,
        batches: &[MicroBatch],
        learning_rate: Option<f64>,
        number: u64,
        rows: Option<&mut Rows>,
    ) -> Result<StepDone> {
        let trained_tokens: usize = batches.iter().map(MicroBatch::trained_tokens).sum();
        let mut done = StepDone {
            step: None,
            trained_tokens,
            tokens: batches.iter().map(|b| b.tokens.len()).sum(),
            gradient_norm: 0.0,
            batch: self.objective.without_batch(self.model.arch.vocab),
        };
        if trained_tokens == 0 {
            return Ok(done);
        }
        let reciprocal = 1.0 / trained_tokens as f32;
        let device = self.model.device().clone();
        let seed = self.seed;
        let batch_seed = |index: usize| mix(mix(seed, number), index as u64);

        let mut forwards: Vec<Option<Forward>> = Vec::new();
        if self.objective.needs_batch() {
            let mut rows = Vec::new();
            let mut sequences = Vec::new();
            for (index, batch) in batches.iter().enumerate() {
                let keep = if batches.len() == 1 { self.keep(batch) } else { Keep::Nothing };
                let forward = self.model.forward(batch, keep, Some(batch_seed(index)))?;
                if let Some(trained) = self.model.trained_rows(batch, &forward)? {
                    let head = self.model.head();
                    let top_k = head::top_k(&self.objective);
                    rows.extend(head::statistics(&device, head, &trained.hidden, &trained.labels, top_k).await?);
                    sequences.extend(trained.rows.iter().map(|&row| batch.document[row as usize]));
                }
                if batches.len() == 1 {
                    forwards.push(Some(forward));
                }
            }
            done.batch = self.objective.batch(&rows, &sequences, self.model.arch.vocab)?;
        }

        // A block may be stepped at once only where neither clipping nor another micro-batch can still change its step.
        let immediate = learning_rate.filter(|_| self.optimiser.max_grad_norm <= 0.0 && batches.len() == 1);
        let mut sum_squares = 0.0;
        let mut outputs = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let forward = match forwards.get_mut(index).and_then(Option::take) {
                Some(forward) => forward,
                None => self.model.forward(batch, self.keep(batch), Some(batch_seed(index)))?,
            };
            let Some(trained) = self.model.trained_rows(batch, &forward)? else { continue };
            let output = head::gradient(
                &device,
                self.model.head_mut(),
                &trained.hidden,
                &trained.labels,
                &self.objective,
                &done.batch,
                reciprocal,
            )?;
            if immediate.is_some() {
                // What follows changes weights, so the check for NaN cannot wait for the end of the step.
                output.check(&device).await?;
            }
            let mut back = self.model.begin_backward(forward, &trained, &output.dhidden)?;
            for block in (0..self.model.blocks.len()).rev() {
                back = self.model.backward_block(block, back)?;
                if let Some(learning_rate) = immediate {
                    sum_squares += self.step_block(block, number, learning_rate).await?;
                }
            }
            self.model.end_backward(batch, back)?;
            outputs.push(output);
        }

        // One wait for everything that the host wants to know.
        let trained = self.model.trained();
        let squares = optimiser::sum_squares(&device, &trained)?;
        let mut wanted: Vec<Tensor<1>> = match &rows {
            Some(_) => outputs.iter().flat_map(HeadOutput::on_device).collect(),
            None => Vec::new(),
        };
        let of_rows = wanted.len();
        // Where rows are read, each is looked at; else these sums say whether one has to be.
        let [counts, sizes] = match &rows {
            Some(_) => [SumSquares::Known(0.0), SumSquares::Known(0.0)],
            None => head::sums(&device, &outputs)?,
        };
        for sum in [&squares, &counts, &sizes] {
            if let SumSquares::Partials(partials) = sum {
                wanted.push(partials.clone());
            }
        }
        let read = read_all(wanted).await?;
        let (mut of_outputs, of_sums) = read.split_at(of_rows);
        let mut of_sums = of_sums.iter();
        let mut value = |sum| match sum {
            SumSquares::Known(sum) => sum,
            SumSquares::Partials(_) => SumSquares::of_partials(of_sums.next().map_or(&[], Vec::as_slice)),
        };
        sum_squares += value(squares);
        if head::is_suspect([value(counts), value(sizes)]) {
            // Named as where rows are read: the first bad one of the first micro-batch that has one.
            for output in &outputs {
                output.rows().await?;
            }
        }
        if let Some(rows) = rows {
            for output in &outputs {
                let (of_output, rest) = of_outputs.split_at(output.on_device().len());
                let (stats, weights) = head::rows_of(of_output)?;
                rows.stats.extend(stats);
                rows.gates.extend(weights.into_iter().map(|w| w / reciprocal));
                of_outputs = rest;
            }
        }
        if !sum_squares.is_finite() {
            return Err(optimiser::non_finite_gradient(&trained, number).await);
        }
        done.gradient_norm = sum_squares.sqrt();
        Ok(done)
    }

    /// Steps one block whose gradients are complete; returns their sum of squares.
    async fn step_block(&mut self, block: usize, number: u64, learning_rate: f64) -> Result<f64> {
        let device = self.model.device().clone();
        let mut parameters = Vec::new();
        self.model.blocks[block].visit(&mut |p| parameters.push(p));
        let squares = optimiser::sum_squares(&device, &parameters)?.read().await?;
        if !squares.is_finite() {
            return Err(optimiser::non_finite_gradient(&parameters, number).await);
        }
        let optimiser = &self.optimiser;
        let step = Step { number, learning_rate, gradient_scale: 1.0, seed: self.seed };
        self.model.blocks[block].visit_mut(&mut |p| optimiser.apply(&device, p, &step))?;
        Ok(squares)
    }

    fn keep(&self, batch: &MicroBatch) -> Keep {
        keeps(self.recompute, &self.model.arch, batch.tokens.len())
    }

    /// The device of the session.
    pub fn device(&self) -> &Device {
        self.model.device()
    }
}
