//! A run: one or several learners that start from one model and see the same batches, from the first evaluation to the
//! last, as one stream of events.
//!
//! Place in the flow: configurations that differ in their objective -> [run] -> [`Event`]s -> a face, which pulls them
//! with [`Run::next`] and shows them. Between two pulls the face may look at a learner, change its objective, save it, or
//! wait as long as it likes. Everything that touches the outside world is the [`Host`]'s: files, the clock, the wish to
//! stop.
//!
//! Learners that start from clones of one model share its memory until a parameter of theirs is stepped; with an
//! adapter, all but the adapter stays shared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Checkpoint, Done, NamedFile, Progress, VERSION, broken};
use super::divergence::{self, Divergence, Moment, On};
use super::event::{
    Evaluated, Event, Finished, Landscape, LearnerRows, Phase, Started, StepMetrics, StepRows, TokenPlace,
};
use super::execution::Execution;
use super::host::Host;
use super::prepare::{self, Plan};
use super::samples::Samples;
use super::schedule;
use super::selection::{Rule, Selection};
use super::session::{Session, StepOutcome};
use crate::config::{AdapterKind, CHANGEABLE, Config};
use crate::data::{Document, Loader, MicroBatch, fingerprint};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::eval::perplexity::{self, Evaluation, Scored, Watch};
use crate::export::bundle;
use crate::export::merged::Adapter;
use crate::host::{Folder, MemoryFolder};
use crate::kernels::row_stats::RowStats;
use crate::loss::head;
use crate::loss::objective::{BatchStats, Objective, conflict_share_quantile};
use crate::model::Model;
use crate::words::counted;

/// What is measured besides training.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// The domain that is trained for.
    pub target: Vec<Document>,
    /// What should not be forgotten.
    pub general: Vec<Document>,
    /// Labels that should not be learned.
    pub wrong: Vec<Document>,
    /// Training documents of the entropy-by-probability map.
    pub landscape: Vec<Document>,
}

/// What only the host knows of what it trains, for [`Started`].
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Why this device.
    pub why: String,
    /// Model, as the user named it, with its architecture.
    pub model: String,
}

/// One model that learns.
pub struct Learner {
    config: Config,
    session: Session,
    /// Statistics of the batch of its last step, if it was made with the objective of now.
    batch: Option<BatchStats>,
    /// Weights of the training documents, where the objective weighs them.
    samples: Option<Arc<Samples>>,
    divergence: Divergence,
}

impl Learner {
    /// A learner at its first step. `config` is what its checkpoints say of it.
    ///
    /// # Errors
    /// As [`prepare::session`].
    pub fn new(config: Config, objective: &Objective, base: Model, execution: Execution) -> Result<Self> {
        Self::begun(config, objective, base, execution, None)
    }

    /// The same, whose adapter goes on from `start`.
    ///
    /// # Errors
    /// As [`prepare::session_from`].
    pub fn going_on(
        config: Config,
        objective: &Objective,
        base: Model,
        execution: Execution,
        start: &Adapter,
    ) -> Result<Self> {
        Self::begun(config, objective, base, execution, Some(start))
    }

    fn begun(
        config: Config,
        objective: &Objective,
        base: Model,
        execution: Execution,
        start: Option<&Adapter>,
    ) -> Result<Self> {
        let session = prepare::session_from(&config, objective, base, execution, start)?;
        Ok(Self { config, session, batch: None, samples: None, divergence: Divergence::default() })
    }

    /// The configuration that it follows.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its model, objective and optimiser.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Its model.
    pub fn model(&mut self) -> &mut Model {
        &mut self.session.model
    }

    fn moment(&self, peak: f64) -> Moment {
        let Session { model, objective, step, .. } = &self.session;
        Moment { step: *step, objective: objective.method(), vocab: model.arch.vocab, peak }
    }

    /// True once it was said that it has diverged.
    pub fn has_diverged(&self) -> bool {
        self.divergence.said()
    }

    /// Statistics of the batch of its last step; none before the first step with its objective of now.
    pub fn batch(&self) -> Option<BatchStats> {
        self.batch
    }
}

/// What an objective would do with each of these tokens: its weight under the statistics of the last step's batch. Where no step
/// was made with this objective yet, the tokens are taken for the batch. Shuffled gates are shown where they belong.
///
/// # Errors
/// As [`Objective::batch`].
pub fn weights(objective: &Objective, batch: Option<BatchStats>, scored: &Scored, vocab: usize) -> Result<Vec<f32>> {
    let batch = match batch {
        Some(batch) => batch,
        None => batch_of(objective, scored, vocab)?,
    };
    Ok(scored.rows.iter().map(|row| objective.weight(row, &batch)).collect())
}

/// A run under way.
pub struct Run {
    learners: Vec<Learner>,
    /// Which learners these are of a run whose others train elsewhere, and how many it has in all.
    first: usize,
    of: usize,
    loader: Loader,
    plan: Plan,
    sets: Arc<Sets>,
    about: About,
    state: State,
    /// What is still to be done or told before the next step.
    due: VecDeque<Due>,
    done: Done,
    /// Clock of the host when the pull under way began.
    pulled: f64,
    /// Step of the last checkpoint.
    saved: u64,
    /// Batches without a trained token.
    skipped: u64,
    /// Whether the models are measured before the first step.
    start: bool,
    /// An evaluation between steps is still to be made at this one.
    evaluation_due: bool,
    /// Where one of the measured steps becomes the result: which one.
    selection: Option<(Rule, Selection)>,
    /// The last step that was made.
    made: u64,
    /// What the learner holds is of no step: something in it is no number.
    is_spoilt: bool,
}

/// Digests of what a run begins with, by what it is: `model`, `train`, `target`, `general` and `wrong`; and [`HEAD`], where that
/// is held otherwise than in runs of before 2026-11-27 with the same configuration.
pub type Origin = BTreeMap<String, Digest>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was told yet.
    New,
    /// Steps are left, or what follows the last one.
    Under,
    /// The last event was told.
    Over,
}

/// Which format the head of a frozen model of four bits is held in.
pub const HEAD: &str = "head";

enum Due {
    Tell(Event),
    /// The untouched model looks at all training documents.
    Weigh,
    Evaluate(Phase),
    Landscape(Phase),
    Save,
    /// The learner goes back to the step that is the result.
    Select,
    Finish {
        interrupted: bool,
    },
}

/// What the file of a saved run says of itself.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    learners: usize,
    note: String,
}

/// Fields of the [`Error::Checkpoint`] that refuses a checkpoint which is whole, but of another run.
pub const OTHER_RUN: [&str; 4] = ["model", "data", "configuration", "steps"];

/// Races were saved before runs of one learner were: the name is part of the format.
const HEADER: &str = "race.json";

impl Run {
    /// A run at its first step. The learners' configurations may differ in `[objective]` only; all else is the first's.
    ///
    /// # Errors
    /// [`Error::Config`] where they differ in more, or there is none; otherwise as [`Loader::new`] and [`prepare::plan`].
    pub fn new(learners: Vec<Learner>, documents: Vec<Document>, sets: Arc<Sets>, about: About) -> Result<Self> {
        let refuse = |problem: &str| Error::Config { problems: vec![problem.into()] };
        let first = &learners.first().ok_or_else(|| refuse("a run needs a learner"))?.config;
        if learners.iter().any(|other| apart_from_objective(first, &other.config) != other.config) {
            return Err(refuse("the learners of a run may differ in [objective] only"));
        }
        let selection = Rule::of(&first.run).map(|rule| (rule, Selection::default()));
        if selection.is_some() && learners.len() > 1 {
            return Err(refuse("[run] keep_best: a run of several learners has no step that is best for all"));
        }
        let loader = Loader::new(&first.data.train.to_string(), documents, first.run.seed)?;
        let plan = prepare::plan(first, &loader)?;
        Ok(Self {
            first: 0,
            of: learners.len(),
            learners,
            loader,
            plan,
            sets,
            about,
            state: State::New,
            due: VecDeque::new(),
            done: Done::default(),
            pulled: 0.0,
            saved: 0,
            skipped: 0,
            start: true,
            evaluation_due: false,
            selection,
            made: 0,
            is_spoilt: false,
        })
    }

    /// The same run without the measurements before the first step, for a start that another run has measured.
    #[must_use]
    pub fn without_start(mut self) -> Self {
        self.start = false;
        self
    }

    /// The part of a run of `of` learners that begins with number `first`: the others see the same batches in runs of their own, and
    /// what is saved goes together ([`Run::joined`]).
    #[must_use]
    pub fn part(mut self, first: usize, of: usize) -> Self {
        (self.first, self.of) = (first, of.max(first + self.learners.len()));
        self
    }

    /// The number of the first learner, in a run whose others may train elsewhere.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Steps of the whole run, and those done.
    pub fn steps(&self) -> (u64, u64) {
        (self.plan.steps, self.learners[0].session.step)
    }

    /// The learning rate of the next step as the schedule of another configuration has it on the same data, and as this one.
    ///
    /// # Errors
    /// As where a run is prepared with it.
    pub fn rates(&self, other: &Config) -> Result<[f64; 2]> {
        let done = self.steps().1;
        Ok([prepare::plan(other, &self.loader)?.schedule.at(done), self.plan.schedule.at(done)])
    }

    /// The learners.
    pub fn learners(&self) -> &[Learner] {
        &self.learners
    }

    /// The learners, to run their models.
    pub fn learners_mut(&mut self) -> &mut [Learner] {
        &mut self.learners
    }

    /// What the run begins with. Whoever goes on with it has to have the same.
    pub fn origin(&self) -> Origin {
        let measured = |documents: &[Document]| fingerprint(documents, 0).into();
        let digests = [
            ("model", self.learners[0].session.model.origin),
            ("train", self.loader.fingerprint().into()),
            ("target", measured(&self.sets.target)),
            ("general", measured(&self.sets.general)),
            ("wrong", measured(&self.sets.wrong)),
        ];
        let config = &self.learners[0].config;
        let frozen = config.adapter.kind == AdapterKind::Lora;
        let head = config.run.storage.head_of_four_bits().filter(|_| frozen);
        let head = head.map(|format| (HEAD, Digest::of(format.name().as_bytes())));
        digests.into_iter().chain(head).map(|(what, digest)| (what.to_string(), digest)).collect()
    }

    /// The training documents.
    pub fn documents(&self) -> &[Document] {
        self.loader.documents()
    }

    /// True where nothing is left to do or to tell before the next step: all that follows a step has been pulled.
    pub fn is_between_steps(&self) -> bool {
        self.state != State::New && self.due.is_empty()
    }

    /// Another distance between evaluations, from the next step on; 0 evaluates only before and after.
    pub fn evaluate_every(&mut self, steps: u64) {
        self.plan.eval_every = steps;
    }

    /// Goes on until there is something to tell; `None` after [`Event::Finished`].
    ///
    /// # Errors
    /// Those of [`Session::step`] and of the host. The last checkpoint is intact then. A learner whose turn was before a
    /// failing one's has been stepped: several learners go on from a checkpoint only.
    pub async fn next(&mut self, host: &mut dyn Host) -> Result<Option<Event>> {
        self.pulled = host.seconds();
        let event = self.go_on(host).await;
        self.done.seconds = self.seconds(host);
        // What happens until the next pull is the face's own time.
        self.pulled = host.seconds();
        event
    }

    /// Wall time of the run so far.
    fn seconds(&self, host: &dyn Host) -> f64 {
        self.done.seconds + (host.seconds() - self.pulled)
    }

    async fn go_on(&mut self, host: &mut dyn Host) -> Result<Option<Event>> {
        while self.state != State::Over || !self.due.is_empty() {
            match self.take_up(host).await {
                Ok(None) => {}
                Ok(told) => return Ok(told),
                Err(error) => self.end_with_the_best(error)?,
            }
        }
        Ok(None)
    }

    /// Does what is due next, or else a step, and says what there is to tell of it.
    async fn take_up(&mut self, host: &mut dyn Host) -> Result<Option<Event>> {
        Ok(match self.due.pop_front() {
            Some(Due::Tell(event)) => Some(event),
            Some(Due::Weigh) => match self.weigh(host).await? {
                Some(()) => None,
                None => self.stop(),
            },
            Some(Due::Evaluate(phase)) => match self.evaluated(phase, host).await.map_err(of_step(self.steps().1))? {
                Some(learners) => {
                    self.evaluation_due = false;
                    self.look_for_divergence(&learners);
                    self.choose(&learners[0]);
                    Some(Event::Evaluated { learners })
                }
                None => self.stop(),
            },
            Some(Due::Landscape(phase)) => match self.landscape(host).await.map_err(of_step(self.steps().1))? {
                Some(learners) => Some(Event::Landscape { phase, learners }),
                None => self.stop(),
            },
            Some(Due::Save) => self.save(host)?,
            Some(Due::Select) => self.select(host)?,
            Some(Due::Finish { interrupted }) => {
                self.state = State::Over;
                let (step, tokens) = (self.made, self.done.tokens);
                Some(Event::Finished(Finished { step, tokens, seconds: self.seconds(host), interrupted }))
            }
            None => {
                match self.state {
                    State::New if self.selection.is_some() && host.checkpoints().is_none() => {
                        let problem = "[run] keep_best: needs checkpoints, and none are kept here";
                        return Err(Error::Config { problems: vec![problem.into()] });
                    }
                    State::New => {
                        let learners = self.begin();
                        self.due.push_front(Due::Tell(Event::Started { learners }));
                    }
                    State::Under if host.stop_requested() => self.end(true),
                    State::Under => self.step(host).await?,
                    State::Over => {}
                }
                None
            }
        })
    }

    /// A run that chooses and has chosen needs no more steps: where one makes what is no number, its result is there already.
    fn end_with_the_best(&mut self, error: Error) -> Result<()> {
        match (&error, &mut self.selection) {
            (Error::NonFinite { .. }, Some((_, selection)))
                if selection.ended().is_none() && selection.best_step().is_some() =>
            {
                selection.end(error.to_string());
                self.due.clear();
                // Nothing of the weights of now is saved.
                self.is_spoilt = true;
                self.due.push_back(Due::Select);
                self.measure_at(Phase::After);
                self.due.push_back(Due::Finish { interrupted: false });
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Begins, for a face that answers with what is started: [`Event::Started`] is then not told.
    pub fn begin(&mut self) -> Vec<Started> {
        self.state = State::Under;
        let (steps, done) = self.steps();
        let warmup = self.learners[0].config.optim.warmup_steps;
        let warnings = [divergence::too_small(self.plan.schedule.peak), schedule::too_long(warmup, steps)];
        self.due.extend(warnings.into_iter().flatten().map(|message| Due::Tell(Event::Warning { message })));
        if self.learners.iter().any(|learner| learner.session.objective.weighs_samples()) {
            self.due.push_back(Due::Weigh);
        }
        let chooses = self.selection.is_some();
        if done == 0 && self.start {
            self.measure_at(Phase::Before);
        } else if self.evaluation_due && (done < steps || chooses) {
            self.measure_at(Phase::During);
        }
        let is_over =
            done >= steps || self.selection.as_ref().is_some_and(|(_, selection)| selection.ended().is_some());
        // A run that chooses ends once its last step is measured.
        if is_over && !(chooses && self.evaluation_due) {
            self.end(false);
        }
        self.learners.iter().map(|learner| self.started(learner)).collect()
    }

    /// Weighs the training documents for the learners whose objective asks for it: with what an earlier part of the run found,
    /// or with a pass of the untouched model, which is given up then. None where the user wants to stop.
    async fn weigh(&mut self, host: &mut dyn Host) -> Result<Option<()>> {
        let mut found: Option<Arc<Samples>> = None;
        for learner in &mut self.learners {
            let session = &mut learner.session;
            if !session.objective.weighs_samples() {
                continue;
            }
            let samples = match found.take() {
                Some(samples) => samples,
                None => {
                    let documents = self.loader.documents();
                    let (model, data) = (session.model.origin, fingerprint(documents, 0).into());
                    let name = Samples::name(model, data);
                    match host.recall(&name)? {
                        Some(bytes) => Arc::new(Samples::read(&name, &bytes, documents)?),
                        None => {
                            let untouched = session.untouched.as_mut().expect("an objective that asks it has it");
                            let Some(samples) = Samples::measure(untouched, documents, host).await? else {
                                return Ok(None);
                            };
                            host.keep(&name, &samples.write())?;
                            Arc::new(samples)
                        }
                    }
                }
            };
            if session.objective.divergence().is_none() {
                session.untouched = None;
            }
            learner.samples = Some(samples.clone());
            found = Some(samples);
        }
        Ok(Some(()))
    }

    fn started(&self, learner: &Learner) -> Started {
        let Session { model, objective, step, .. } = &learner.session;
        Started {
            step: *step,
            steps: self.plan.steps,
            device: model.placement().to_string(),
            why: self.about.why.clone(),
            model: self.about.model.clone(),
            parameters: model.arch.parameter_count(),
            trainable: model.trained().iter().map(|p| p.count() as u64).sum(),
            objective: objective.method().to_string(),
        }
    }

    /// Plans what is measured: only what there is, so that a run with nothing due has nothing to tell.
    fn measure_at(&mut self, phase: Phase) {
        let Sets { target, general, wrong, .. } = self.sets.as_ref();
        if [target, general, wrong].into_iter().any(|set| !set.is_empty()) {
            self.due.push_back(Due::Evaluate(phase));
            self.evaluation_due = phase == Phase::During;
        }
        if phase != Phase::During && !self.sets.landscape.is_empty() {
            self.due.push_back(Due::Landscape(phase));
        }
    }

    /// What follows the last step.
    fn end(&mut self, interrupted: bool) {
        self.due.push_back(Due::Save);
        if !interrupted {
            if self.selection.is_some() {
                self.due.push_back(Due::Select);
            }
            self.measure_at(Phase::After);
        }
        self.due.push_back(Due::Finish { interrupted });
    }

    /// Ends in the middle of a measurement: what is not measured is left to whoever goes on.
    fn stop(&mut self) -> Option<Event> {
        self.due.clear();
        self.end(true);
        None
    }

    /// One optimiser step of every learner, on the same batch.
    async fn step(&mut self, host: &mut dyn Host) -> Result<()> {
        let batches = self.loader.next_step(self.plan.batch_tokens, self.plan.accumulation, self.plan.packing)?;
        if batches.iter().all(|batch| batch.trained_tokens() == 0) {
            self.skipped += 1;
            if self.skipped == 1 {
                let message = "a batch without any trained token was skipped".to_string();
                self.due.push_back(Due::Tell(Event::Warning { message }));
            }
            // A data set with trained tokens has some within an epoch; the loader refuses one without any.
            return Ok(());
        }
        let (steps, done) = self.steps();
        let (step, rate) = (done + 1, self.plan.schedule.at(done));
        let every = |often: u64| often > 0 && step.is_multiple_of(often);
        let logged = every(self.plan.log_every.max(1)) || step == 1 || step == steps;
        let (mut metrics, mut rows, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for learner in &mut self.learners {
            let start = host.seconds();
            if let Some(samples) = &learner.samples {
                let of_step = self.loader.last_step().iter().map(|&document| samples.weights()[document as usize]);
                learner.session.sample_weights = of_step.collect();
            }
            let again = |problem: &String| format!("step {step} was made again with smaller tiles: {problem}");
            if !logged {
                let done = learner.session.step_unread(&batches, rate).await?;
                learner.batch = Some(done.batch);
                warnings.extend(done.retried.as_ref().map(again));
                let at = learner.moment(self.plan.schedule.peak);
                warnings.extend(learner.divergence.see_norm(done.gradient_norm, at));
                continue;
            }
            let outcome = learner.session.step(&batches, rate).await?;
            warnings.extend(outcome.retried.as_ref().map(again));
            let now = host.seconds();
            let seconds = self.done.seconds + (now - self.pulled);
            metrics.push(self::metrics(&outcome, step, rate, now - start, seconds, host.peak_bytes()));
            learner.batch = Some(outcome.batch);
            let at = learner.moment(self.plan.schedule.peak);
            warnings.extend(learner.divergence.see(On::Batch, outcome.cross_entropy, at));
            warnings.extend(learner.divergence.see_norm(outcome.gradient_norm, at));
            rows.push(LearnerRows { stats: outcome.rows, gates: outcome.gates, batch: outcome.batch });
        }
        self.made = step;
        self.done.tokens += batches.iter().map(MicroBatch::trained_tokens).sum::<usize>() as u64;
        if logged {
            self.due.push_back(Due::Tell(Event::Step { learners: metrics }));
            if host.shows_rows() {
                let (epoch, places) = (self.loader.cursor().epoch, places(&batches, self.loader.last_step()));
                self.due.push_back(Due::Tell(Event::Rows(StepRows { step, epoch, places, learners: rows })));
            }
        }
        self.due.extend(warnings.into_iter().map(|message| Due::Tell(Event::Warning { message })));
        if every(self.plan.save_every) && host.checkpoints().is_some() {
            self.due.push_back(Due::Save);
        }
        let chooses = self.selection.is_some();
        if every(self.plan.eval_every) && step < steps || step == steps && chooses {
            self.measure_at(Phase::During);
        }
        // A run that chooses ends once its last step is measured.
        if step == steps && !(chooses && self.evaluation_due) {
            self.end(false);
        }
        Ok(())
    }

    /// What the losses just measured say of which step is the result, and whether it is time to end.
    fn choose(&mut self, measured: &Evaluated) {
        let (steps, step) = self.steps();
        let Some((rule, selection)) = &mut self.selection else { return };
        if selection.see(rule, measured) {
            self.due.push_front(Due::Save);
        }
        if measured.phase == Phase::During && (selection.ended().is_some() || step >= steps) {
            if selection.ended().is_some() {
                // A checkpoint of this step that was made before it was measured does not know of it.
                self.saved = 0;
            }
            self.end(false);
        }
    }

    /// Goes back to the step that is the result: what is measured, shown and saved from here on is of it.
    fn select(&mut self, host: &mut dyn Host) -> Result<Option<Event>> {
        let Some((_, selection)) = &self.selection else { return Ok(None) };
        let selected = selection.result(self.made)?;
        let warning = selection.warning();
        let session = &mut self.learners[0].session;
        if let (true, Some(checkpoints)) = (self.is_spoilt || selected.step != session.step, host.checkpoints()) {
            let files = checkpoints.open(selected.step)?;
            checkpoint::load(session, files.as_ref()).map_err(|error| match error {
                Error::Checkpoint { field, problem } => {
                    broken(&format!("of step {}, which is the result: {field}", selected.step), problem)
                }
                other => other,
            })?;
            // Its checkpoint is there, and the newest one remains that of the last step.
            (self.saved, self.is_spoilt) = (selected.step, false);
        }
        if let Some(message) = warning {
            self.due.push_front(Due::Tell(Event::Warning { message }));
        }
        Ok(Some(Event::Selected(selected)))
    }

    /// What the losses just measured say of the learners, to be told next.
    fn look_for_divergence(&mut self, measured: &[Evaluated]) {
        for (learner, measured) in self.learners.iter_mut().zip(measured) {
            let at = learner.moment(self.plan.schedule.peak);
            for (on, set) in [(On::Target, measured.target), (On::General, measured.general)] {
                if let Some(message) = set.and_then(|set| learner.divergence.see(on, set.loss, at)) {
                    self.due.push_front(Due::Tell(Event::Warning { message }));
                }
            }
        }
    }

    /// Writes a checkpoint, where the host keeps them and the newest is not of this step.
    fn save(&mut self, host: &mut dyn Host) -> Result<Option<Event>> {
        let (_, step) = self.steps();
        if self.saved == step || host.checkpoints().is_none() {
            return Ok(None);
        }
        let done = Done { tokens: self.done.tokens, seconds: self.seconds(host) };
        let checkpoint = match self.learners.as_slice() {
            [learner] => self.checkpoint_of(learner, done),
            _ => self.checkpoint("", done)?,
        };
        let Some(checkpoints) = host.checkpoints() else { return Ok(None) };
        if let Some(best) = self.selection.as_ref().and_then(|(_, selection)| selection.best_step()) {
            checkpoints.stays(best);
        }
        let path = checkpoints.save(step, &checkpoint)?;
        self.saved = step;
        Ok(Some(Event::Saved { step, path }))
    }

    /// Loss of every learner on the measured sets now, in answer to a question: not one of the run's own evaluations.
    ///
    /// # Errors
    /// As [`perplexity::rows`].
    pub async fn evaluate(&mut self, host: &mut dyn Host) -> Result<Vec<Evaluated>> {
        Ok(self.evaluated(Phase::During, host).await?.unwrap_or_default())
    }

    /// None where the user wants to stop.
    async fn evaluated(&mut self, phase: Phase, host: &mut dyn Host) -> Result<Option<Vec<Evaluated>>> {
        if let (Phase::After, Some((_, selection))) = (phase, &self.selection) {
            // The result was measured when it was chosen.
            if let Some(best) = selection.best_at(self.steps().1) {
                return Ok(Some(vec![Evaluated { phase, ..best.clone() }]));
            }
        }
        let mut learners: Vec<Evaluated> = Vec::with_capacity(self.learners.len());
        for learner in &mut self.learners {
            let step = learner.session.step;
            let one = match learners.first() {
                // Before the first step all are the same model: measured once.
                Some(first) if step == 0 => first.clone(),
                _ => {
                    let Sets { target, general, wrong, .. } = self.sets.as_ref();
                    let mut losses = [None; 3];
                    let sets = [("target", target), ("general", general), ("wrong", wrong)];
                    for (loss, (name, set)) in losses.iter_mut().zip(sets) {
                        let Some(found) = loss_on(&mut learner.session, set, name, host).await? else {
                            return Ok(None);
                        };
                        *loss = found;
                    }
                    let [target, general, wrong] = losses;
                    Evaluated { phase, step, target, general, wrong }
                }
            };
            learners.push(one);
        }
        Ok(Some(learners))
    }

    /// None where the user wants to stop.
    async fn landscape(&mut self, host: &mut dyn Host) -> Result<Option<Vec<Landscape>>> {
        let mut learners = Vec::with_capacity(self.learners.len());
        for learner in &mut self.learners {
            let scored = score(&mut learner.session, &self.sets.landscape, "landscape", host).await?;
            let Some(scored) = scored else { return Ok(None) };
            let Session { objective, model, .. } = &learner.session;
            // All documents form one batch here, so that percentiles are those of the whole sample.
            let batch = batch_of(objective, &scored, model.arch.vocab)?;
            let mut landscape = Landscape::default();
            let (samples, trained) = (learner.samples.as_ref(), self.loader.documents());
            let weight_of = |document: &Document| Some(samples?.weight_of(document, trained));
            let weights: Vec<Option<f32>> = self.sets.landscape.iter().map(weight_of).collect();
            for (row, &document) in scored.rows.iter().zip(&scored.documents) {
                let weight = weights[document as usize].unwrap_or_else(|| objective.weight(row, &batch));
                landscape.add(row, weight);
            }
            learners.push(landscape);
        }
        Ok(Some(learners))
    }

    /// Whether [`Run::change`] takes these: the new objectives.
    ///
    /// # Errors
    /// [`Error::Config`] for a change that needs a new run.
    pub fn check_change(&self, configs: &[Config]) -> Result<Vec<Objective>> {
        let mut pairs = configs.iter().zip(&self.learners);
        if configs.len() != self.learners.len() || pairs.any(|(new, old)| old.config.needs_restart(new)) {
            let problem = "only [objective] and [optim] can change while learners train; anything else needs a reset";
            return Err(Error::Config { problems: vec![problem.into()] });
        }
        let objectives: Vec<Objective> = configs.iter().map(Config::objective).collect::<Result<_>>()?;
        for (learner, objective) in self.learners.iter().zip(&objectives) {
            let has = match objective.weighs_samples() {
                true => learner.samples.is_some(),
                false => learner.session.untouched.is_some(),
            };
            if objective.needs_untouched() && !has {
                let problem = format!(
                    "[objective] method: {} asks the model as it was before the first step, which this learner did not keep; \
                     it needs a reset",
                    objective.method()
                );
                return Err(Error::Config { problems: vec![problem] });
            }
        }
        Ok(objectives)
    }

    /// New objectives, learning rates and schedule, from the next step on.
    ///
    /// # Errors
    /// As [`Run::check_change`]; nothing is changed then.
    pub fn change(&mut self, configs: Vec<Config>) -> Result<()> {
        let objectives = self.check_change(&configs)?;
        self.plan.schedule = prepare::plan(&configs[0], &self.loader)?.schedule;
        for ((learner, config), objective) in self.learners.iter_mut().zip(configs).zip(objectives) {
            if learner.session.objective != objective {
                learner.batch = None;
            }
            learner.samples = learner.samples.take().filter(|_| objective.weighs_samples());
            learner.session.objective = objective;
            learner.session.optimiser = prepare::optimiser(&config);
            learner.config = config;
        }
        Ok(())
    }

    /// Goes on where a checkpoint of a run of one learner stood.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is broken, altered, or of another model, configuration, data set or number of learners;
    /// this run is to be made anew then. The configuration may differ in [`CHANGEABLE`], and the steps may only have become
    /// more.
    pub fn resume(&mut self, folder: &dyn Folder) -> Result<()> {
        match self.learners.len() {
            1 => self.resume_learner(0, folder),
            found => Err(wrong(format!("is of one learner, and this run has {found}"))),
        }
    }

    fn resume_learner(&mut self, index: usize, folder: &dyn Folder) -> Result<()> {
        let learner = &mut self.learners[index];
        let Progress { steps, cursor, data, evaluation_due, done, selection, config } =
            checkpoint::load(&mut learner.session, folder)?.progress;
        let step = learner.session.step;
        if data != self.loader.fingerprint().into() {
            let problem = "is of other training data than the run began with; restore that data to go on";
            return Err(broken("data", problem.into()));
        }
        refuse_changes(&Config::parse(&config, "the checkpoint's configuration", &[])?, &learner.config)?;
        if self.plan.steps < steps.max(step) {
            let problem = format!(
                "it stands at step {step} of {steps}, and the configuration now has {}; they can only become more",
                counted(self.plan.steps, "step")
            );
            return Err(broken("steps", problem));
        }
        learner.batch = None;
        self.loader.resume(cursor)?;
        self.done = done;
        self.saved = step;
        self.made = step;
        self.evaluation_due = evaluation_due;
        if let (Some((_, own)), Some(known)) = (&mut self.selection, selection) {
            if let (Some(why), true) = (known.ended(), self.plan.steps > steps) {
                return Err(broken("steps", format!("the run has ended: {why}; more steps need a new run")));
            }
            *own = known;
        }
        Ok(())
    }

    fn checkpoint_of<'a>(&self, learner: &'a Learner, done: Done) -> Checkpoint<'a> {
        let progress = Progress {
            steps: self.plan.steps,
            cursor: self.loader.cursor(),
            data: self.loader.fingerprint().into(),
            evaluation_due: self.evaluation_due,
            done,
            selection: self.selection.as_ref().map(|(_, selection)| selection.clone()),
            config: learner.config.to_toml(),
        };
        Checkpoint::new(&learner.session, progress)
    }

    /// The checkpoints of all learners, each under its number, and what says so.
    fn checkpoint(&self, note: &str, done: Done) -> Result<Checkpoint<'_>> {
        let header = Header { version: VERSION, learners: self.of, note: note.into() };
        let header = serde_json::to_vec(&header).map_err(|e| wrong(e.to_string()))?;
        let learners = self.learners.iter().map(|learner| self.checkpoint_of(learner, done)).collect();
        Ok(Checkpoint::of_several((HEADER.into(), header), self.first, learners))
    }

    /// Everything that goes on from here, as one file. `note` comes back from [`Run::note`].
    ///
    /// # Errors
    /// As [`Checkpoint::write`].
    pub async fn bundle(&self, note: &str) -> Result<Vec<u8>> {
        bundle::pack(HEADER, &self.checkpoint(note, self.done)?.in_memory().await?)
    }

    /// The bundles of all parts of a run, saved at the same step, as the one that a run of all learners writes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where they are not the parts of one run.
    pub fn joined(parts: &[&[u8]]) -> Result<Vec<u8>> {
        let mut files: Vec<NamedFile> = Vec::new();
        for part in parts {
            for (name, bytes) in bundle::unpack("the checkpoint", part)? {
                match files.iter().find(|(known, _)| *known == name) {
                    None => files.push((name, bytes)),
                    // What all parts say of the run.
                    Some((_, known)) if name == HEADER && *known == bytes => {}
                    Some(_) => return Err(wrong(format!("two of its parts differ in {name}"))),
                }
            }
        }
        let of = header(&files)?.learners;
        let is_there = |index: usize| files.iter().any(|(name, _)| name.starts_with(&format!("{index}/")));
        match (0..of).find(|&index| !is_there(index)) {
            None => bundle::pack(HEADER, &files),
            Some(index) => Err(wrong(format!("lacks learner {index} of {of}"))),
        }
    }

    /// The note of a bundled run, which says how to make the run that it is restored into.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file is no bundled run.
    pub fn note(bytes: &[u8]) -> Result<String> {
        let files = bundle::unpack("the checkpoint", bytes)?;
        Ok(header(&files)?.note)
    }

    /// Goes on where a bundled run stood; a part of a run takes its own learners out of it. This run must have been made from
    /// the same configurations and data.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file is broken or of another model, data set or number of learners; this run is to
    /// be made anew then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let files = bundle::unpack("the checkpoint", bytes)?;
        let header = header(&files)?;
        if header.learners != self.of {
            let problem = format!("has {}, and this race {}", counted(header.learners, "learner"), self.of);
            return Err(wrong(problem));
        }
        let mut steps = Vec::with_capacity(self.of);
        for index in 0..self.of {
            let mut folder = MemoryFolder::new();
            for (name, bytes) in &files {
                if let Some(name) = name.strip_prefix(&format!("{index}/")) {
                    folder.insert(name, bytes.clone())?;
                }
            }
            steps.push(checkpoint::step(&folder)?);
            if let Some(own) = index.checked_sub(self.first).filter(|&own| own < self.learners.len()) {
                self.resume_learner(own, &folder)?;
            }
        }
        match steps.iter().all(|step| *step == steps[0]) {
            true => Ok(()),
            false => Err(wrong("its learners stand at different steps".into())),
        }
    }
}

fn apart_from_objective(from: &Config, with: &Config) -> Config {
    Config { objective: with.objective.clone(), ..from.clone() }
}

fn header(files: &[NamedFile]) -> Result<Header> {
    let (_, bytes) = files
        .iter()
        .find(|(name, _)| name == HEADER)
        .ok_or_else(|| wrong(format!("has no {HEADER}; is it a saved race?")))?;
    let header: Header = serde_json::from_slice(bytes).map_err(|e| wrong(format!("{HEADER} is not readable: {e}")))?;
    match header.version {
        VERSION => Ok(header),
        other => Err(checkpoint::other_version("the saved race", other)),
    }
}

fn wrong(problem: String) -> Error {
    Error::Checkpoint { field: "the saved race".into(), problem }
}

/// A run goes on as it began.
fn refuse_changes(was: &Config, is: &Config) -> Result<()> {
    let mut changes = was.differences(is);
    changes.retain(|(key, ..)| !CHANGEABLE.contains(&key.as_str()));
    let Some((key, was, is)) = changes.first() else { return Ok(()) };
    let more = match changes.len() {
        1 => String::new(),
        2 => ", and 1 more key differs".into(),
        more => format!(", and {} more keys differ", more - 1),
    };
    let problem = format!("the run began with {key} = {was}, and now it is {is}{more}; restore it, or begin a new run");
    Err(broken("configuration", problem))
}

/// Makes of an error of a measurement one that names the step after which it was made: what is no number then is what was learned.
fn of_step(done: u64) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::NonFinite { tensor, row, step: None } if done > 0 => Error::NonFinite { tensor, row, step: Some(done) },
        other => other,
    }
}

/// What tokens say of the batch that they form.
fn batch_of(objective: &Objective, scored: &Scored, vocab: usize) -> Result<BatchStats> {
    match objective.needs_batch() {
        true => objective.batch(&scored.rows, &scored.documents, vocab),
        false => Ok(objective.without_batch(vocab)),
    }
}

async fn loss_on(
    session: &mut Session,
    documents: &[Document],
    what: &str,
    host: &mut dyn Host,
) -> Result<Option<Option<Evaluation>>> {
    match documents.is_empty() {
        true => Ok(Some(None)),
        false => Ok(score(session, documents, what, host).await?.map(|scored| Some(perplexity::score(&scored)))),
    }
}

/// None where the user wants to stop.
async fn score(
    session: &mut Session,
    documents: &[Document],
    what: &str,
    host: &mut dyn Host,
) -> Result<Option<Scored>> {
    struct Watching<'a>(&'a mut dyn Host, &'a str);
    impl Watch for Watching<'_> {
        fn done(&mut self, done: usize, of: usize) {
            self.0.evaluating(self.1, done, of);
        }

        fn stop(&self) -> bool {
            self.0.stop_requested()
        }
    }
    let top_k = head::top_k(&session.objective);
    perplexity::rows_until(&mut session.model, documents, top_k, &mut Watching(host, what)).await
}

/// Where each trained token of the micro-batches stands. `documents` are those of the step, in order.
fn places(batches: &[MicroBatch], documents: &[u32]) -> Vec<TokenPlace> {
    let of_batch = |batch: &MicroBatch| {
        let trained = (0..batch.labels.len()).filter(|&at| batch.labels[at] >= 0);
        // The label of a position is the token after it.
        let place = |at: usize| TokenPlace {
            document: documents[batch.document[at] as usize],
            position: batch.positions[at] + 1,
        };
        trained.map(place).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of_batch).collect()
}

/// What is logged of a step: all of it in `outcome`, but for the rate, the times and the memory.
fn metrics(
    outcome: &StepOutcome,
    step: u64,
    learning_rate: f64,
    step_seconds: f64,
    seconds: f64,
    peak_device_bytes: u64,
) -> StepMetrics {
    let share = |count: usize| count as f64 / outcome.gates.len().max(1) as f64;
    let cross_entropy = |of: fn(&RowStats) -> bool| {
        let (count, sum) =
            outcome.rows.iter().filter(|row| of(row)).fold((0, 0.0), |(n, sum), row| (n + 1, sum + f64::from(row.ce)));
        (count > 0).then(|| sum / f64::from(count))
    };
    StepMetrics {
        step,
        tokens: outcome.trained_tokens as u64,
        loss: outcome.loss,
        cross_entropy: outcome.cross_entropy,
        gate_mean: outcome.gates.iter().map(|&g| f64::from(g)).sum::<f64>() / outcome.gates.len().max(1) as f64,
        gate_below_0_1: share(outcome.gates.iter().filter(|&&g| g < 0.1).count()),
        conflict_share: share(outcome.rows.iter().filter(|r| r.is_conflict()).count()),
        conflict_share_quantile: conflict_share_quantile(&outcome.rows),
        sure_cross_entropy: cross_entropy(RowStats::is_sure),
        open_cross_entropy: cross_entropy(RowStats::is_open),
        learning_rate,
        gradient_norm: outcome.gradient_norm,
        tokens_per_second: outcome.tokens as f64 / step_seconds.max(1e-9),
        peak_device_bytes,
        seconds,
    }
}
