//! One optimiser step: the only place where data, model, objective and optimiser meet.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::data::MicroBatch;
use crate::error::{Error, Result};
use crate::kernels::adamw::SumSquares;
use crate::kernels::row_stats::RowStats;
use crate::kernels::tensor::read_all;
use crate::loss::head::{self, HeadOutput};
use crate::loss::objective::{BatchStats, Objective};
use crate::model::{Keep, Model};
use crate::rng::mix;
use crate::train::optimiser::{self, AdamW};

/// A model being trained.
pub struct Session {
    /// The model.
    pub model: Model,
    /// What is minimised. May be replaced between steps.
    pub objective: Objective,
    /// How parameters are stepped.
    pub optimiser: AdamW,
    /// What is kept of a forward pass.
    pub keep: Keep,
    /// All micro-batches of a step pass a block before the next one, instead of all blocks before the next micro-batch. Costs
    /// what is kept of each; saves the way of a block that lies in its file.
    pub together: bool,
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
                self.optimiser.step(&mut self.model, number, learning_rate, done.gradient_norm)?;
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
        // Where the head lies.
        let device = self.model.placement().last().clone();
        let seed = self.seed;
        let groups: Vec<Range<usize>> = match self.together {
            true => std::iter::once(0..batches.len()).collect(),
            false => (0..batches.len()).map(|index| index..index + 1).collect(),
        };
        let alone = groups.len() == 1;
        let of_group = |group: &Range<usize>| -> Vec<(&MicroBatch, Option<u64>)> {
            group.clone().map(|index| (&batches[index], Some(mix(mix(seed, number), index as u64)))).collect()
        };

        let mut ready = None;
        if self.objective.needs_batch() {
            let mut rows = Vec::new();
            let mut sequences = Vec::new();
            for group in &groups {
                let streams = of_group(group);
                let keep = if alone { self.keep } else { Keep::Nothing };
                let forwards = self.model.forward_all(&streams, keep)?;
                for ((batch, _), forward) in streams.iter().zip(&forwards) {
                    if let Some(trained) = self.model.trained_rows(batch, forward)? {
                        let head = self.model.head();
                        let top_k = head::top_k(&self.objective);
                        rows.extend(head::statistics(&device, head, &trained.hidden, &trained.labels, top_k).await?);
                        sequences.extend(trained.rows.iter().map(|&row| batch.document[row as usize]));
                    }
                }
                ready = alone.then_some(forwards);
            }
            done.batch = self.objective.batch(&rows, &sequences, self.model.arch.vocab)?;
        }

        // A block may be stepped at once only where neither clipping nor another micro-batch can still change its step.
        let immediate = learning_rate.filter(|_| self.optimiser.max_grad_norm <= 0.0 && alone);
        let mut sum_squares = 0.0;
        let mut outputs = Vec::new();
        for group in &groups {
            let streams = of_group(group);
            let forwards = match ready.take() {
                Some(forwards) => forwards,
                None => self.model.forward_all(&streams, self.keep)?,
            };
            let (mut backs, mut trained_batches) = (Vec::new(), Vec::new());
            for ((batch, _), forward) in streams.iter().zip(forwards) {
                let Some(trained) = self.model.trained_rows(batch, &forward)? else { continue };
                let (output, dhidden) = head::gradient(
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
                outputs.push(output);
                backs.push(self.model.begin_backward(forward, trained, dhidden)?);
                trained_batches.push(*batch);
            }
            for block in (0..self.model.blocks.len()).rev() {
                self.model.backward_block(block, &mut backs)?;
                if let Some(learning_rate) = immediate {
                    sum_squares += self.step_block(block, number, learning_rate).await?;
                }
            }
            for (batch, back) in trained_batches.into_iter().zip(backs) {
                self.model.end_backward(batch, back)?;
            }
        }

        // One wait for everything that the host wants to know.
        let trained = self.model.trained_on_each();
        let squares = trained.iter().map(|(device, trained)| optimiser::sum_squares(device, trained));
        let squares = squares.collect::<Result<Vec<_>>>()?;
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
        for sum in squares.iter().chain([&counts, &sizes]) {
            if let SumSquares::Partials(partials) = sum {
                wanted.push(partials.clone());
            }
        }
        let read = read_all(wanted).await?;
        let (mut of_outputs, of_sums) = read.split_at(of_rows);
        let mut of_sums = of_sums.iter();
        let mut terms = |sum| match sum {
            SumSquares::Known(sum) => vec![sum],
            SumSquares::Partials(_) => of_sums.next().into_iter().flatten().copied().map(f64::from).collect::<Vec<_>>(),
        };
        // One after the other, so that the sum over several devices is that over one.
        sum_squares += squares.into_iter().flat_map(&mut terms).sum::<f64>();
        let mut value = |sum| terms(sum).into_iter().sum::<f64>();
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
            return Err(optimiser::non_finite_gradient(&self.model.trained(), number).await);
        }
        done.gradient_norm = sum_squares.sqrt();
        Ok(done)
    }

    /// Steps one block whose gradients are complete; returns their sum of squares.
    async fn step_block(&mut self, block: usize, number: u64, learning_rate: f64) -> Result<f64> {
        let device = self.model.placement().of_block(block).clone();
        let mut parameters = Vec::new();
        self.model.blocks[block].visit(&mut |p| parameters.push(p));
        let squares = optimiser::sum_squares(&device, &parameters)?.read().await?;
        if !squares.is_finite() {
            return Err(optimiser::non_finite_gradient(&parameters, number).await);
        }
        let optimiser = &self.optimiser;
        self.model.blocks[block].visit_mut(&mut |p| optimiser.apply(&device, p, number, learning_rate, 1.0))?;
        Ok(squares)
    }
}
