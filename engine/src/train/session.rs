//! One optimiser step: the only place where data, model, objective and optimiser meet.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::data::MicroBatch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels;
use crate::kernels::adamw::SumSquares;
use crate::kernels::row_stats::RowStats;
use crate::kernels::tensor::read_all;
use crate::loss::head::{self, HeadOutput, HeadRows, Known};
use crate::loss::objective::shuffle::{Place, shuffled};
use crate::loss::objective::{BatchStats, Objective};
use crate::model::parameter::Parameter;
use crate::model::{Backward, Keep, Model};
use crate::rng::mix;
use crate::train::optimiser::{self, AdamW, Clipping, Step};

/// A model being trained.
pub struct Session {
    /// The model.
    pub model: Model,
    /// What is minimised. May be replaced between steps.
    pub objective: Objective,
    /// The model as it was before the first step, without an adapter, where the objective asks it. It shares the memory of all
    /// that is not trained.
    pub untouched: Option<Model>,
    /// The weight of each document of the step that is next, where the objective weighs samples.
    pub sample_weights: Vec<f32>,
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
    /// Global gradient norm of the step before, which [`Clipping::LastNorm`] goes by.
    pub last_norm: Option<f64>,
}

/// What the seed of shuffled gates is mixed with; dropout takes the numbers of micro-batches.
const SHUFFLE: u64 = u64::MAX;

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
    /// That the device ran out of memory, where the step was made again with smaller tiles because of it.
    pub retried: Option<String>,
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
    /// As [`StepDone::retried`].
    pub retried: Option<String>,
    /// Statistics of each trained row, in order.
    pub rows: Vec<RowStats>,
    /// Gate of each trained row as the device used it.
    pub gates: Vec<f32>,
}

impl StepOutcome {
    fn new(done: StepDone, rows: Rows, objective: &Objective) -> Self {
        let StepDone { step, trained_tokens, tokens, gradient_norm, batch, retried } = done;
        let Rows { stats, gates, divergences } = rows;
        let mean = |sum: f64| sum / trained_tokens.max(1) as f64;
        let mut loss = 0.0;
        let mut cross_entropy = 0.0;
        let of_others = objective.weighs_samples() || objective.is_shuffled();
        for (row, &gate) in stats.iter().zip(&gates) {
            loss += if of_others { f64::from(gate * row.ce) } else { f64::from(objective.loss(row, &batch)) };
            cross_entropy += row.ce as f64;
        }
        if let Some(divergence) = objective.divergence() {
            loss += f64::from(divergence.beta) * divergences.iter().map(|&kl| f64::from(kl)).sum::<f64>();
        }
        Self {
            step,
            trained_tokens,
            tokens,
            loss: mean(loss),
            cross_entropy: mean(cross_entropy),
            gradient_norm,
            batch,
            retried,
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
    divergences: Vec<f32>,
}

impl Session {
    /// At its first step, everything of a forward pass kept, micro-batch after micro-batch, with seed 0.
    pub fn new(model: Model, objective: Objective, optimiser: AdamW) -> Self {
        Self {
            model,
            objective,
            untouched: None,
            sample_weights: Vec::new(),
            optimiser,
            keep: Keep::Everything,
            together: false,
            seed: 0,
            step: 0,
            last_norm: None,
        }
    }

    /// Applies one optimiser step on micro-batches that together are its batch.
    ///
    /// The gradient is the one of the sum over all trained tokens divided by their number, however the batch is split.
    /// Objectives that need whole-batch statistics get those of all micro-batches, at the price of a second forward
    /// pass where there is more than one. Row statistics and the gradient's norm are read back once per step, together,
    /// before anything is stepped: a step with NaN or infinity in its logits or gradients changes nothing.
    ///
    /// # Errors
    /// [`Error::NonFinite`], naming the step; device errors. The model is unchanged then (its gradients are dropped),
    /// with one exception: where blocks are stepped one by one before the norm is known (no clipping, or by the last norm),
    /// those above the first gradient that is not finite have been stepped, and the session is to be loaded from a checkpoint
    /// again.
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
        mut rows: Option<&mut Rows>,
    ) -> Result<StepDone> {
        let number = self.step + 1;
        let known = self.known_scale();
        let mut tried = self.pass(batches, Some(learning_rate), number, rows.as_deref_mut()).await;
        if let Err(error) = tried {
            let error = self.model.placement().explain(error);
            // Nothing is stepped before a pass is over, but where blocks are stepped on the way.
            let again =
                matches!(error, Error::OutOfMemory { .. }) && !self.steps_on_the_way(batches) && self.make_room()?;
            tried = Err(error);
            if let (true, Err(error)) = (again, &tried) {
                let retried = Some(error.to_string());
                if let Some(rows) = &mut rows {
                    **rows = Rows::default();
                }
                let second = self.pass(batches, Some(learning_rate), number, rows).await;
                tried = second
                    .map(|done| StepDone { retried, ..done })
                    .map_err(|error| self.model.placement().explain(error));
            }
        }
        let error = match tried {
            Ok(mut done) if done.trained_tokens > 0 => {
                // What was not stepped on the way, by the same factor.
                let gradient_scale = known.unwrap_or_else(|| self.optimiser.clip_factor(done.gradient_norm));
                let step = Step { number, learning_rate, gradient_scale, seed: self.seed };
                let stepped = self.optimiser.step(&mut self.model, &step);
                stepped.map_err(|error| self.model.placement().explain(error))?;
                done.step = Some(number);
                self.step = number;
                self.last_norm = Some(done.gradient_norm);
                return Ok(done);
            }
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        self.drop_gradients()?;
        Err(match error {
            Error::NonFinite { tensor, row, .. } => {
                self.model.blame(Error::NonFinite { tensor, row, step: Some(number) }).await
            }
            other => other,
        })
    }

    /// True where blocks are stepped before the pass is over: where no other micro-batch can still change their gradients, and
    /// the factor on these is known by then.
    fn steps_on_the_way(&self, batches: &[MicroBatch]) -> bool {
        let alone = self.together || batches.len() == 1;
        alone && !self.optimiser.clipping.keeps_gradients(self.optimiser.max_grad_norm)
    }

    /// Half-summed gradients must not leak into a step that is tried next.
    fn drop_gradients(&mut self) -> Result<()> {
        self.model.visit_mut(&mut |p| {
            p.gradient = None;
            Ok(())
        })
    }

    /// Gives up what a pass left, and makes the next one hold less: nothing of a block is kept for the way back, and tiles are
    /// half as large. False where that was done before and does not help any more.
    fn make_room(&mut self) -> Result<bool> {
        self.drop_gradients()?;
        self.keep = Keep::Inputs;
        self.together = false;
        Ok(self.model.placement().make_room())
    }

    /// The factor on a step's gradients, where it does not depend on them.
    fn known_scale(&self) -> Option<f64> {
        let AdamW { max_grad_norm, clipping, .. } = self.optimiser;
        match (max_grad_norm > 0.0, clipping) {
            (false, _) => Some(1.0),
            (true, Clipping::LastNorm) => self.last_norm.map(|norm| self.optimiser.clip_factor(norm)),
            (true, Clipping::Kept | Clipping::Twice) => None,
        }
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
            retried: None,
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
        // By micro-batch, where the weights are not the rows' own.
        let mut weights: Option<Vec<Vec<f32>>> = match self.objective.weighs_samples() {
            true => Some(batches.iter().map(|batch| self.sample_weights_of(batch)).collect::<Result<_>>()?),
            false => None,
        };
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
            if self.objective.is_shuffled() {
                let own: Vec<f32> = rows.iter().map(|row| self.objective.weight(row, &done.batch)).collect();
                let places: Vec<Vec<Place>> = batches.iter().map(places).collect();
                let mut mixed = shuffled(&own, &places.concat(), mix(mix(seed, number), SHUFFLE)).into_iter();
                weights = Some(places.iter().map(|places| mixed.by_ref().take(places.len()).collect()).collect());
            }
        }

        // At once where the factor on gradients is known, else after a first pull-back that only measures them.
        let step = |gradient_scale, learning_rate| Step { number, learning_rate, gradient_scale, seed };
        let in_turn = learning_rate.filter(|_| self.steps_on_the_way(batches));
        let at_once = in_turn.and_then(|rate| Some(step(self.known_scale()?, rate)));
        let twice = in_turn.filter(|_| at_once.is_none());
        let mut sum_squares = 0.0;
        let mut outputs = Vec::new();
        for group in &groups {
            let streams = of_group(group);
            let forwards = match ready.take() {
                Some(forwards) => forwards,
                None => self.model.forward_all(&streams, self.keep)?,
            };
            let (mut backs, mut trained_batches) = (Vec::new(), Vec::new());
            for ((index, (batch, _)), forward) in group.clone().zip(&streams).zip(forwards) {
                let Some(trained) = self.model.trained_rows(batch, &forward)? else { continue };
                let untouched = match (&mut self.untouched, self.objective.divergence()) {
                    (Some(model), Some(_)) => Some(hidden_of(model, batch)?),
                    _ => None,
                };
                let known = Known {
                    weights: weights.as_ref().map(|weights| weights[index].as_slice()),
                    untouched: self.untouched.as_ref().map(Model::head).zip(untouched.as_ref()),
                };
                let (output, dhidden) = head::gradient_of_known(
                    &device,
                    self.model.head_mut(),
                    &trained.hidden,
                    &trained.labels,
                    &self.objective,
                    &done.batch,
                    known,
                    reciprocal,
                )?;
                if at_once.is_some() || twice.is_some() {
                    // What follows changes weights, so the check for NaN cannot wait for the end of the step.
                    output.check(&device).await?;
                }
                outputs.push(output);
                backs.push(self.model.begin_backward(forward, trained, dhidden)?);
                trained_batches.push(*batch);
            }
            if let Some(learning_rate) = twice {
                sum_squares = self.measure(&backs, &trained_batches, number).await?;
                let norm = sum_squares.sqrt();
                let stepping = step(self.optimiser.clip_factor(norm), learning_rate);
                for block in (0..self.model.blocks.len()).rev() {
                    backs = self.model.backward_block(block, backs)?;
                    self.step_block(block, &stepping)?;
                }
                continue;
            }
            for block in (0..self.model.blocks.len()).rev() {
                backs = self.model.backward_block(block, backs)?;
                if let Some(stepping) = &at_once {
                    sum_squares += self.checked_squares(block, number).await?;
                    self.step_block(block, stepping)?;
                }
            }
            for (batch, back) in trained_batches.into_iter().zip(backs) {
                self.model.end_backward(batch, back)?;
            }
        }

        // One wait for everything that the host wants to know.
        let trained = self.model.trained_on_each();
        let squares = match twice {
            // What is left of them was measured with the others.
            Some(_) => Vec::new(),
            None => {
                let squares = trained.iter().map(|(device, trained)| optimiser::sum_squares(device, trained));
                squares.collect::<Result<Vec<_>>>()?
            }
        };
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
                let HeadRows { stats, weights, divergences } = output.rows_of(of_output)?;
                rows.stats.extend(stats);
                rows.gates.extend(weights.into_iter().map(|w| w / reciprocal));
                rows.divergences.extend(divergences);
                of_outputs = rest;
            }
        }
        if !sum_squares.is_finite() {
            return Err(optimiser::non_finite_gradient(&self.model.trained(), number).await);
        }
        done.gradient_norm = sum_squares.sqrt();
        Ok(done)
    }

    /// The weight of each trained row from that of its document.
    fn sample_weights_of(&self, batch: &MicroBatch) -> Result<Vec<f32>> {
        let weight = |(document, _): Place| self.sample_weights.get(document as usize).copied();
        places(batch).into_iter().map(weight).collect::<Option<_>>().ok_or_else(|| Error::Shape {
            what: "weights of the step's documents".into(),
            expected: format!("[{}]", batch.document.iter().max().map_or(0, |last| last + 1)),
            got: format!("[{}]", self.sample_weights.len()),
        })
    }

    /// Pulls copies of these back, block by block, and drops the blocks' gradients once they are measured; those of the
    /// vocabulary and of the last norm are complete then, and stay. The sum of squares is that of all gradients together, to the
    /// bit.
    async fn measure(&mut self, backs: &[Backward], batches: &[&MicroBatch], number: u64) -> Result<f64> {
        let mut copies = backs.to_vec();
        let mut of_blocks: Vec<Vec<SumSquares>> = Vec::new();
        for block in (0..self.model.blocks.len()).rev() {
            copies = self.model.backward_block(block, copies)?;
            let (mut squares, device) = (Vec::new(), self.model.placement().of_block(block).clone());
            self.model.blocks[block].visit_mut(&mut |p| {
                if let Some(gradient) = p.gradient.take() {
                    squares.push(kernels::adamw::sum_squares(&device, &[&gradient])?);
                }
                Ok(())
            })?;
            of_blocks.push(squares);
        }
        for (batch, back) in batches.iter().zip(copies) {
            self.model.end_backward(batch, back)?;
        }
        // In the order in which a visit comes to them.
        let (before, after) = self.model.around_blocks();
        let of = |device: &Device, parameters: Vec<&Parameter>| {
            parameters.into_iter().map(|p| optimiser::sum_squares(device, &[p])).collect::<Result<Vec<_>>>()
        };
        let placement = self.model.placement();
        let (before, after) = (of(placement.first(), before)?, of(placement.last(), after)?);
        let squares = before.into_iter().chain(of_blocks.into_iter().rev().flatten()).chain(after).collect();
        let sum = SumSquares::joined(squares).read().await?;
        if sum.is_finite() {
            return Ok(sum);
        }
        // Which one it is was forgotten with the gradients.
        let mut again = backs.to_vec();
        for block in (0..self.model.blocks.len()).rev() {
            again = self.model.backward_block(block, again)?;
            self.checked_squares(block, number).await?;
        }
        Err(optimiser::non_finite_gradient(&self.model.trained(), number).await)
    }

    /// Sum of squares of a block's gradients, which are complete; refused where one is not finite.
    async fn checked_squares(&self, block: usize, number: u64) -> Result<f64> {
        let mut parameters = Vec::new();
        self.model.blocks[block].visit(&mut |p| parameters.push(p));
        let squares = optimiser::sum_squares(self.model.placement().of_block(block), &parameters)?.read().await?;
        match squares.is_finite() {
            true => Ok(squares),
            false => Err(optimiser::non_finite_gradient(&parameters, number).await),
        }
    }

    /// Steps one block whose gradients are complete.
    fn step_block(&mut self, block: usize, step: &Step) -> Result<()> {
        let (device, optimiser) = (self.model.placement().of_block(block).clone(), &self.optimiser);
        self.model.blocks[block].visit_mut(&mut |p| optimiser.apply(&device, p, step))
    }
}

/// Where each trained row of a micro-batch stands: its document in the step, and its position in that.
fn places(batch: &MicroBatch) -> Vec<Place> {
    let trained = (0..batch.labels.len()).filter(|&row| batch.labels[row] >= 0);
    trained.map(|row| (batch.document[row], batch.positions[row])).collect()
}

/// Final-norm outputs of another model for the trained rows of a micro-batch, of which there are some. Nothing is random: it has
/// no adapter, and so no dropout.
fn hidden_of(model: &mut Model, batch: &MicroBatch) -> Result<Tensor<2>> {
    let forward = model.forward(batch, Keep::Nothing, None)?;
    Ok(model.trained_rows(batch, &forward)?.expect("a micro-batch with trained rows").hidden)
}
