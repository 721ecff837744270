//! Learners that start from one model and see the same batches, stepped in turn: what makes objectives comparable.
//!
//! Place in the flow: configurations that differ in their objective -> [race] -> one [`Lap`] a step -> the page. The
//! learners share the base model's memory until a parameter of theirs is stepped; with an adapter, all but the adapter
//! stays shared.

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Done, NamedFile};
use super::event::{Evaluation, StepMetrics};
use super::prepare;
use super::run::{self, Plan};
use super::session::{Session, StepOutcome};
use crate::config::Config;
use crate::data::{Document, Loader, MicroBatch};
use crate::error::{Error, Result};
use crate::eval::perplexity;
use crate::export::bundle;
use crate::host::{Clock, MemoryFolder};
use crate::kernels::row_stats::RowStats;
use crate::loss::objective::{BatchStats, Objective};
use crate::model::Model;

/// Whose model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The model that all learners started from.
    Base,
    /// A learner, by its place.
    Learner(usize),
}

/// The learners of one race.
pub struct Race {
    base: Model,
    configs: Vec<Config>,
    learners: Vec<Learner>,
    loader: Loader,
    plan: Plan,
}

struct Learner {
    session: Session,
    done: Done,
}

/// What one step did to every learner.
pub struct Lap {
    /// Steps done.
    pub step: u64,
    /// Passes over the data that were begun before this step.
    pub epoch: u64,
    /// Per learner: what is logged, and the rows behind it.
    pub learners: Vec<(StepMetrics, StepOutcome)>,
    /// Where each trained token of the batch stands, in the order of the rows.
    pub places: Vec<Place>,
}

/// Where a token stands in the training data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of its document.
    pub document: u32,
    /// Index of the token in that document.
    pub position: u32,
}

/// What the file of a saved race says of itself.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    learners: usize,
    note: String,
}

const VERSION: u32 = 1;
const RACE: &str = "race.json";

impl Race {
    /// Learners at their first step, one for each configuration. The configurations may differ in `[objective]` only.
    ///
    /// # Errors
    /// [`Error::Config`] where they differ in more, or there is none; otherwise as [`prepare::session`] and [`Loader::new`].
    pub fn new(configs: Vec<Config>, base: Model, documents: Vec<Document>) -> Result<Self> {
        let refuse = |problem: &str| Error::Config { problems: vec![problem.into()] };
        let first = configs.first().ok_or_else(|| refuse("a race needs a learner"))?;
        if configs.iter().any(|other| apart_from_objective(first, other) != *other) {
            return Err(refuse("the learners of a race may differ in [objective] only"));
        }
        let loader = Loader::new(&first.data.train, documents, first.run.seed)?;
        let plan = prepare::plan(first, &loader)?;
        let learners = configs
            .iter()
            .map(|config| {
                let session = prepare::session(config, &config.objective()?, base.clone())?;
                Ok(Learner { session, done: Done::default() })
            })
            .collect::<Result<_>>()?;
        Ok(Self { base, configs, learners, loader, plan })
    }

    /// Steps of the whole race, and those done.
    pub fn steps(&self) -> (u64, u64) {
        (self.plan.steps, self.learners[0].session.step)
    }

    /// The configurations that the learners follow.
    pub fn configs(&self) -> &[Config] {
        &self.configs
    }

    /// Trained parameters of a learner.
    pub fn trainable(&self, learner: usize) -> u64 {
        self.learners[learner].session.model.trained().iter().map(|p| p.count() as u64).sum()
    }

    /// A model of the race.
    pub fn model(&mut self, who: Who) -> &mut Model {
        match who {
            Who::Base => &mut self.base,
            Who::Learner(index) => &mut self.learners[index].session.model,
        }
    }

    /// The training documents.
    pub fn documents(&self) -> &[Document] {
        self.loader.documents()
    }

    /// One optimiser step of every learner, on the same batch. `None` where the race is over.
    ///
    /// # Errors
    /// As [`Session::step`]. A learner whose turn was before the failing one's has been stepped; go on from a checkpoint.
    pub async fn step(&mut self, clock: &dyn Clock) -> Result<Option<Lap>> {
        let (steps, done) = self.steps();
        if done >= steps {
            return Ok(None);
        }
        loop {
            let batches = self.loader.next_step(self.plan.batch_tokens, self.plan.accumulation, self.plan.packing)?;
            if batches.iter().all(|batch| batch.trained_tokens() == 0) {
                // The loader refuses data without any trained token, so an epoch has a batch with some.
                continue;
            }
            let rate = self.plan.schedule.at(done);
            let mut lap = Lap {
                step: done + 1,
                epoch: self.loader.cursor().epoch,
                learners: Vec::with_capacity(self.learners.len()),
                places: places(&batches, self.loader.last_step()),
            };
            for learner in &mut self.learners {
                let start = clock.seconds();
                let outcome = learner.session.step(&batches, rate).await?;
                let seconds = clock.seconds() - start;
                learner.done.tokens += outcome.trained_tokens as u64;
                learner.done.seconds += seconds;
                let peak = learner.session.device().reserved_bytes().unwrap_or(0);
                let metrics = run::metrics(&outcome, lap.step, rate, seconds, learner.done.seconds, peak);
                lap.learners.push((metrics, outcome));
            }
            return Ok(Some(lap));
        }
    }

    /// New objectives, learning rates and schedule, from the next step on.
    ///
    /// # Errors
    /// [`Error::Config`] for a change that needs a new race.
    pub fn change(&mut self, configs: Vec<Config>) -> Result<()> {
        let changed =
            |a: &Config, b: &Config| (&a.model, &a.data, &a.adapter, &a.run) != (&b.model, &b.data, &b.adapter, &b.run);
        if configs.len() != self.configs.len() || configs.iter().zip(&self.configs).any(|(new, old)| changed(new, old))
        {
            let problem = "only [objective] and [optim] can change while learners train; anything else needs a reset";
            return Err(Error::Config { problems: vec![problem.into()] });
        }
        let objectives: Vec<Objective> = configs.iter().map(Config::objective).collect::<Result<_>>()?;
        self.plan.schedule = prepare::plan(&configs[0], &self.loader)?.schedule;
        for ((learner, config), objective) in self.learners.iter_mut().zip(&configs).zip(objectives) {
            learner.session.objective = objective;
            learner.session.optimiser = prepare::optimiser(&config.optim);
        }
        self.configs = configs;
        Ok(())
    }

    /// Loss of a model on documents.
    ///
    /// # Errors
    /// As [`perplexity::rows`].
    pub async fn evaluate(&mut self, who: Who, documents: &[Document]) -> Result<Evaluation> {
        Ok(Evaluation::of(&self.rows(who, documents).await?))
    }

    /// Statistics of every trained token of documents, each document alone.
    ///
    /// # Errors
    /// As [`perplexity::rows`].
    pub async fn rows(&mut self, who: Who, documents: &[Document]) -> Result<Vec<RowStats>> {
        // The K of the first objective that has one, so that a learner's own entropies are shown beside another's.
        let top_k = self.learners.iter().find_map(|learner| learner.session.objective.top_k()).unwrap_or(20);
        perplexity::rows(self.model(who), documents, top_k, &mut |_, _| {}).await
    }

    /// What each learner's objective would do with such rows if they were its whole batch: weights by learner.
    ///
    /// # Errors
    /// As [`Objective::batch`].
    pub fn weights(&self, rows: &[RowStats]) -> Result<Vec<Vec<f32>>> {
        let one = |learner: &Learner| {
            let Session { objective, model, .. } = &learner.session;
            let batch: BatchStats = match objective.needs_batch() {
                true => objective.batch(rows, &vec![0; rows.len()], model.arch.vocab)?,
                false => objective.without_batch(model.arch.vocab),
            };
            Ok(rows.iter().map(|row| objective.weight(row, &batch)).collect())
        };
        self.learners.iter().map(one).collect()
    }

    /// A learner's session, to save what it learned.
    pub fn session(&self, learner: usize) -> &Session {
        &self.learners[learner].session
    }

    /// Everything that goes on from here, as one file. `note` comes back from [`Race::note`].
    ///
    /// # Errors
    /// As [`checkpoint::save`].
    pub async fn save(&self, note: &str) -> Result<Vec<u8>> {
        let saved = Saved { version: VERSION, learners: self.learners.len(), note: note.into() };
        let saved = serde_json::to_vec(&saved).map_err(|e| wrong(e.to_string()))?;
        let mut files: Vec<NamedFile> = vec![(RACE.into(), saved)];
        for (index, (learner, config)) in self.learners.iter().zip(&self.configs).enumerate() {
            let (cursor, fingerprint) = (self.loader.cursor(), self.loader.fingerprint());
            let own = checkpoint::save(&learner.session, cursor, fingerprint, learner.done, &config.to_toml()).await?;
            files.extend(own.into_iter().map(|(name, bytes)| (format!("{index}/{name}"), bytes)));
        }
        bundle::pack(RACE, &files)
    }

    /// The note of a saved race, which says how to make the race that it is restored into.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file is no saved race.
    pub fn note(bytes: &[u8]) -> Result<String> {
        let files = bundle::unpack("the checkpoint", bytes)?;
        Ok(describe(&files)?.note)
    }

    /// Goes on where a saved race stood. This race must have been made from the same configurations and data.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file is broken or of another model, data set or number of learners; this race is to
    /// be made anew then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let files = bundle::unpack("the checkpoint", bytes)?;
        let saved = describe(&files)?;
        if saved.learners != self.learners.len() {
            let problem = format!("has {} learners, and this race {}", saved.learners, self.learners.len());
            return Err(wrong(problem));
        }
        for (index, learner) in self.learners.iter_mut().enumerate() {
            let mut folder = MemoryFolder::new();
            for (name, bytes) in &files {
                if let Some(name) = name.strip_prefix(&format!("{index}/")) {
                    folder.insert(name, bytes.clone())?;
                }
            }
            let state = checkpoint::load(&mut learner.session, &folder)?;
            if state.data_fingerprint != self.loader.fingerprint() {
                return Err(Error::Checkpoint {
                    field: "data_fingerprint".into(),
                    problem: "is of other training data; choose the data set that the race began with".into(),
                });
            }
            learner.done = state.done;
            self.loader.resume(state.cursor)?;
        }
        let step = self.learners[0].session.step;
        match self.learners.iter().all(|learner| learner.session.step == step) {
            true => Ok(()),
            false => Err(wrong("its learners stand at different steps".into())),
        }
    }
}

fn apart_from_objective(from: &Config, with: &Config) -> Config {
    Config { objective: with.objective.clone(), ..from.clone() }
}

fn describe(files: &[NamedFile]) -> Result<Saved> {
    let (_, bytes) = files
        .iter()
        .find(|(name, _)| name == RACE)
        .ok_or_else(|| wrong(format!("has no {RACE}; is it a saved race?")))?;
    let saved: Saved = serde_json::from_slice(bytes).map_err(|e| wrong(format!("{RACE} is not readable: {e}")))?;
    match saved.version {
        VERSION => Ok(saved),
        other => Err(wrong(format!("is of format {other}, and only {VERSION} is known"))),
    }
}

fn wrong(problem: String) -> Error {
    Error::Checkpoint { field: "the saved race".into(), problem }
}

/// Where each trained token of the micro-batches stands. `documents` are those of the step, in order.
fn places(batches: &[MicroBatch], documents: &[u32]) -> Vec<Place> {
    let of_batch = |batch: &MicroBatch| {
        let trained = (0..batch.labels.len()).filter(|&at| batch.labels[at] >= 0);
        // The label of a position is the token after it.
        let place =
            |at: usize| Place { document: documents[batch.document[at] as usize], position: batch.positions[at] + 1 };
        trained.map(place).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of_batch).collect()
}
