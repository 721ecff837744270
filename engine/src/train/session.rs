//! One optimiser step: the only place where data, model, objective and optimiser meet.

use burn::tensor::Tensor;

use crate::data::MicroBatch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::adamw::SumSquares;
use crate::kernels::row_stats::RowStats;
use crate::kernels::tensor::read_all;
use crate::loss::head::{self, HeadOutput};
use crate::loss::objective::Objective;
use crate::model::block::Activations;
use crate::model::{Forward, Keep, Model};
use crate::rng::mix;
use crate::train::optimiser::{self, AdamW};

/// Whether blocks run a second time before their pull-back (gradient checkpointing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Run again only where keeping everything would take more than [`KEEP_BYTES`].
    #[default]
    Auto,
    /// Always: least memory.
    Always,
    /// Never: a third fewer operations.
    Never,
}

/// With [`Recompute::Auto`], what a micro-batch's kept activations may take: 512 MiB.
pub const KEEP_BYTES: usize = 512 << 20;

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
    /// Statistics of each trained row, in order.
    pub rows: Vec<RowStats>,
    /// Gate of each trained row as the device used it.
    pub gates: Vec<f32>,
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
        let number = self.step + 1;
        let error = match self.pass(batches, Some(learning_rate), number).await {
            Ok(mut outcome) if outcome.trained_tokens > 0 => {
                // Clipping is off where blocks were stepped on the way, so the whole norm is the right one for the rest.
                self.optimiser.step(&mut self.model, number, learning_rate, outcome.gradient_norm)?;
                outcome.step = Some(number);
                self.step = number;
                return Ok(outcome);
            }
            Ok(outcome) => return Ok(outcome),
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
        self.pass(batches, None, self.step + 1).await
    }

    /// Forward and pull-back of all micro-batches. With a learning rate, blocks are stepped on the way where that is
    /// allowed; what is left to step keeps its gradient.
    async fn pass(&mut self, batches: &[MicroBatch], learning_rate: Option<f64>, number: u64) -> Result<StepOutcome> {
        let trained_tokens: usize = batches.iter().map(MicroBatch::trained_tokens).sum();
        let tokens = batches.iter().map(|b| b.tokens.len()).sum();
        let mut outcome = StepOutcome {
            step: None,
            trained_tokens,
            tokens,
            loss: 0.0,
            cross_entropy: 0.0,
            gradient_norm: 0.0,
            rows: Vec::new(),
            gates: Vec::new(),
        };
        if trained_tokens == 0 {
            return Ok(outcome);
        }
        let reciprocal = 1.0 / trained_tokens as f32;
        let device = self.model.device().clone();
        let seed = self.seed;
        let batch_seed = |index: usize| mix(mix(seed, number), index as u64);

        let mut forwards: Vec<Option<Forward>> = Vec::new();
        let batch_stats = if self.objective.needs_batch() {
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
            self.objective.batch(&rows, &sequences, self.model.arch.vocab)?
        } else {
            self.objective.without_batch(self.model.arch.vocab)
        };

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
                &batch_stats,
                reciprocal,
            )?;
            if immediate.is_some() {
                // What follows changes weights, so the check for NaN cannot wait for the end of the step.
                output.rows().await?;
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
        let mut wanted: Vec<Tensor<1>> = outputs.iter().flat_map(HeadOutput::on_device).collect();
        if let SumSquares::Partials(partials) = &squares {
            wanted.push(partials.clone());
        }
        let mut read = read_all(wanted).await?;
        sum_squares += match squares {
            SumSquares::Known(sum) => sum,
            SumSquares::Partials(_) => SumSquares::of_partials(&read.pop().unwrap_or_default()),
        };
        let mut read = read.as_slice();
        for output in &outputs {
            let (of_output, rest) = read.split_at(output.on_device().len());
            let (rows, weights) = head::rows_of(of_output)?;
            outcome.rows.extend(rows);
            outcome.gates.extend(weights.into_iter().map(|w| w / reciprocal));
            read = rest;
        }
        if !sum_squares.is_finite() {
            return Err(optimiser::non_finite_gradient(&trained, number).await);
        }
        outcome.gradient_norm = sum_squares.sqrt();
        for row in &outcome.rows {
            outcome.loss += self.objective.loss(row, &batch_stats) as f64;
            outcome.cross_entropy += row.ce as f64;
        }
        outcome.loss /= trained_tokens as f64;
        outcome.cross_entropy /= trained_tokens as f64;
        Ok(outcome)
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
        self.model.blocks[block].visit_mut(&mut |p| optimiser.apply(&device, p, number, learning_rate, 1.0))?;
        Ok(squares)
    }

    fn keep(&self, batch: &MicroBatch) -> Keep {
        let bytes = Activations::bytes_per_token(&self.model.arch) * self.model.arch.layers * batch.tokens.len();
        match self.recompute {
            Recompute::Always => Keep::Inputs,
            Recompute::Auto if bytes > KEEP_BYTES => Keep::Inputs,
            _ => Keep::Everything,
        }
    }

    /// The device of the session.
    pub fn device(&self) -> &Device {
        self.model.device()
    }
}
