//! A whole run: evaluation before, steps with their events and checkpoints, evaluation after.
//!
//! Everything that touches the outside world is the [`Host`]'s: files, the clock, the wish to stop.

use super::checkpoint::{Checkpoint, Done};
use super::event::{Evaluated, Evaluation, Event, Finished, Landscape, Phase, StepMetrics};
use super::schedule::Schedule;
use super::session::{Session, StepOutcome};
use crate::data::{Document, Loader};
use crate::error::Result;
use crate::eval::perplexity;
use crate::kernels::row_stats::RowStats;
use crate::loss::head;
use crate::loss::objective::conflict_share_quantile;

/// What a run needs from outside.
pub trait Host {
    /// Hears what happened.
    ///
    /// # Errors
    /// Whatever ends the run, such as a full disk.
    fn event(&mut self, event: &Event) -> Result<()>;
    /// Stores a checkpoint so that it is complete or absent, and returns its name for people.
    ///
    /// # Errors
    /// Whatever ends the run, such as a full disk.
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> Result<String>;
    /// Monotonic seconds.
    fn seconds(&self) -> f64;
    /// Highest device memory so far, in bytes; 0 where nobody knows.
    fn peak_bytes(&self) -> u64;
    /// True once the user wants to stop after the step under way.
    fn stop_requested(&self) -> bool;
    /// Progress within an evaluation: micro-batches done, of.
    fn evaluating(&mut self, what: &str, done: usize, of: usize);
}

/// Shape of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Optimiser steps in all.
    pub steps: u64,
    /// Learning rates.
    pub schedule: Schedule,
    /// Tokens of a micro-batch, at most.
    pub batch_tokens: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Several documents in one micro-batch.
    pub packing: bool,
    /// A step in this many emits an event.
    pub log_every: u64,
    /// A step in this many is followed by a checkpoint; 0 means only the end.
    pub save_every: u64,
    /// A step in this many is followed by an evaluation; 0 means only before and after.
    pub eval_every: u64,
    /// The resolved configuration, kept in checkpoints.
    pub config: String,
    /// What was done before the run was interrupted.
    pub done: Done,
    /// A run that is only there to be compared with keeps no checkpoints and does not measure the shared start again.
    pub comparison: bool,
}

/// What is measured besides training.
#[derive(Default)]
pub struct Sets<'a> {
    /// The domain that is trained for.
    pub target: &'a [Document],
    /// What should not be forgotten.
    pub general: &'a [Document],
    /// Training documents of the entropy-by-probability map.
    pub landscape: &'a [Document],
}

/// Runs from the session's step to the plan's last one.
///
/// # Errors
/// Those of [`Session::step`] and of the host. The last checkpoint is intact then.
pub async fn run(
    session: &mut Session,
    loader: &mut Loader,
    plan: &Plan,
    sets: &Sets<'_>,
    host: &mut dyn Host,
) -> Result<Finished> {
    // As if the time before an interruption and the time since were one.
    let begin = host.seconds() - plan.done.seconds;
    let mut trained_tokens = plan.done.tokens;
    if session.step == 0 && !plan.comparison {
        measure(session, sets, Phase::Before, host).await?;
        landscape(session, sets, Phase::Before, host).await?;
    }
    let mut interrupted = false;
    let mut saved = session.step;
    let mut skipped = 0u64;
    while session.step < plan.steps {
        if host.stop_requested() {
            interrupted = true;
            break;
        }
        let batches = loader.next_step(plan.batch_tokens, plan.accumulation, plan.packing)?;
        let rate = plan.schedule.at(session.step);
        let start = host.seconds();
        let outcome = session.step(&batches, rate).await?;
        let Some(step) = outcome.step else {
            skipped += 1;
            if skipped == 1 {
                let message = "a batch without any trained token was skipped".to_string();
                host.event(&Event::Warning { message })?;
            }
            // A data set with trained tokens has some within an epoch; the loader refuses one without any.
            continue;
        };
        trained_tokens += outcome.trained_tokens as u64;
        let now = host.seconds();
        if step % plan.log_every.max(1) == 0 || step == 1 || step == plan.steps {
            let metrics = metrics(&outcome, step, rate, now - start, now - begin, host.peak_bytes());
            host.event(&Event::Step(metrics))?;
        }
        if plan.save_every > 0 && step % plan.save_every == 0 && !plan.comparison {
            save(session, loader, plan, Done { tokens: trained_tokens, seconds: now - begin }, host)?;
            saved = step;
        }
        if plan.eval_every > 0 && step % plan.eval_every == 0 && step < plan.steps {
            measure(session, sets, Phase::During, host).await?;
        }
    }
    if saved != session.step && !plan.comparison {
        let done = Done { tokens: trained_tokens, seconds: host.seconds() - begin };
        save(session, loader, plan, done, host)?;
    }
    if !interrupted {
        measure(session, sets, Phase::After, host).await?;
        landscape(session, sets, Phase::After, host).await?;
    }
    let finished =
        Finished { step: session.step, tokens: trained_tokens, seconds: host.seconds() - begin, interrupted };
    host.event(&Event::Finished(finished.clone()))?;
    Ok(finished)
}

fn save(session: &Session, loader: &Loader, plan: &Plan, done: Done, host: &mut dyn Host) -> Result<()> {
    let checkpoint = Checkpoint::new(session, loader.cursor(), loader.fingerprint(), done, &plan.config)?;
    let path = host.save(session.step, &checkpoint)?;
    host.event(&Event::Saved { step: session.step, path })
}

async fn measure(session: &mut Session, sets: &Sets<'_>, phase: Phase, host: &mut dyn Host) -> Result<()> {
    let mut measured = [None, None];
    for (out, (what, documents)) in measured.iter_mut().zip([("target", sets.target), ("general", sets.general)]) {
        if !documents.is_empty() {
            *out = Some(Evaluation::of(&rows_of(session, documents, what, host).await?));
        }
    }
    let [target, general] = measured;
    if target.is_none() && general.is_none() {
        return Ok(());
    }
    host.event(&Event::Evaluated(Evaluated { phase, step: session.step, target, general }))
}

async fn landscape(session: &mut Session, sets: &Sets<'_>, phase: Phase, host: &mut dyn Host) -> Result<()> {
    if sets.landscape.is_empty() {
        return Ok(());
    }
    let rows = rows_of(session, sets.landscape, "landscape", host).await?;
    let vocab = session.model.arch.vocab;
    // All rows form one batch here, so that percentiles are those of the whole sample.
    let batch = match session.objective.needs_batch() {
        true => session.objective.batch(&rows, &vec![0; rows.len()], vocab)?,
        false => session.objective.without_batch(vocab),
    };
    let mut landscape = Landscape::default();
    for row in &rows {
        landscape.add(row, session.objective.weight(row, &batch));
    }
    host.event(&Event::Landscape { phase, landscape })
}

async fn rows_of(
    session: &mut Session,
    documents: &[Document],
    what: &str,
    host: &mut dyn Host,
) -> Result<Vec<RowStats>> {
    let top_k = head::top_k(&session.objective);
    perplexity::rows(&mut session.model, documents, top_k, &mut |done, of| host.evaluating(what, done, of)).await
}

/// What is logged of a step: all of it in `outcome`, but for the rate, the times and the memory.
pub fn metrics(
    outcome: &StepOutcome,
    step: u64,
    learning_rate: f64,
    step_seconds: f64,
    seconds: f64,
    peak_device_bytes: u64,
) -> StepMetrics {
    let share = |count: usize| count as f64 / outcome.gates.len().max(1) as f64;
    StepMetrics {
        step,
        tokens: outcome.trained_tokens as u64,
        loss: outcome.loss,
        cross_entropy: outcome.cross_entropy,
        gate_mean: outcome.gates.iter().map(|&g| f64::from(g)).sum::<f64>() / outcome.gates.len().max(1) as f64,
        gate_below_0_1: share(outcome.gates.iter().filter(|&&g| g < 0.1).count()),
        conflict_share: share(outcome.rows.iter().filter(|r| r.is_conflict()).count()),
        conflict_share_quantile: conflict_share_quantile(&outcome.rows),
        learning_rate,
        gradient_norm: outcome.gradient_norm,
        tokens_per_second: outcome.tokens as f64 / step_seconds.max(1e-9),
        peak_device_bytes,
        seconds,
    }
}
