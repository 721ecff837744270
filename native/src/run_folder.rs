//! The folder of a run and everything in it.
//!
//! ```text
//! config.toml      resolved configuration, and digests of what the run began with
//! metrics.jsonl    a line a logged step
//! events.out.tfevents.temper   the same and the evaluations for TensorBoard
//! summary.json     what came out, written at the end (and `retention` within it)
//! landscape.json   entropy-by-probability maps before and after
//! checkpoints/     step-00000100/ ...: complete or absent, the newest few kept; each with a record of what the files above
//!                  held then, so that whatever happens to them, a resumed run leaves what an uninterrupted one does
//! adapter/ or model/
//! baseline/        metrics.jsonl and landscape.json of the baseline, where one was trained
//! report.html
//! ```
//!
//! A killed process at any moment leaves a folder that `--resume` goes on with, or that counts as empty. One process writes a
//! run at a time. Where the folder, or one of those that are written to, is moved or removed meanwhile, the next write says so
//! and ends the run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use temper_engine::events::{Evaluated, Finished, Landscape, Phase, Selected, Started, StepMetrics};
use temper_engine::host::MOST_CONFIGURATION_BYTES;
use temper_engine::result::{ADAPTER, ADAPTER_FILES, MODEL};
use temper_engine::running::{Digest, Digester, without_result};
use temper_engine::{Config, Error, Evaluation, Result};

use crate::files::{
    OsFolder, io_error, is_partial, read_small, remove_partial, write_atomically, write_folder_with, write_new,
};
use crate::interrupt::Interrupted;
use crate::memory::Memory;
use crate::place::{Place, is_at, path_of};
use crate::run_config::RunConfig;
use crate::tensorboard::{self, EVENTS};

/// Locked by the process that writes the run, whose number it holds.
const LOCK: &str = ".lock";
const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
const SUMMARY: &str = "summary.json";
const EVALUATIONS: &str = "evaluations.json";
const LANDSCAPE: &str = "landscape.json";
const CHECKPOINTS: &str = "checkpoints";
/// Most bytes of a file that a run writes: a number for each of a hundred million documents, or a line for each of some
/// million steps.
const MOST_KEPT: u64 = 2 << 30;
const REPORT: &str = "report.html";
/// In a checkpoint: what the run had written by then.
const RECORD: &str = "record.json";
/// In a checkpoint: the engine's own description of it.
const STATE: &str = "state.json";

/// Which of the two trainings of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The objective.
    Main,
    /// The baseline, for comparison.
    Baseline,
}

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of Temper.
    pub temper: String,
    /// What was trained, where, and how much.
    pub started: Started,
    /// How it ended.
    pub finished: Finished,
    /// Seed of the run.
    pub seed: u64,
    /// What kind of records it was trained on, such as `question_answer`, with commas between those of several files; none in
    /// summaries of before 2026-11-27.
    #[serde(default)]
    pub records: Option<String>,
    /// All tokens through the model per second, mean over the logged steps; 0 where none was logged.
    pub tokens_per_second: f64,
    /// Highest device memory, in bytes; 0 where the device does not say.
    pub peak_device_bytes: u64,
    /// Where the memory goes.
    #[serde(default)]
    pub memory: Memory,
    /// Which step is the result; none where it is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<Selected>,
    /// Loss on the target set and on the general set.
    pub retention: Retention,
    /// What was trained on of each file, where data.shares says how much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<FileShare>,
    /// What was warned of: by the run, by its baseline, and of its data.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What is trained on of one of several files that have shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileShare {
    /// The file.
    pub file: String,
    /// Of the trained tokens of all files, those of this one.
    pub share: f64,
    /// Documents that are trained on.
    pub documents: usize,
    /// Their trained tokens.
    pub trained_tokens: usize,
    /// Documents that are not, beside what is held out.
    pub left_out_documents: usize,
    /// What would have been trained of them.
    pub left_out_trained_tokens: usize,
}

/// What was learned and what was kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Retention {
    /// The model before training.
    pub before: Measured,
    /// The model after training with the run's objective.
    pub after: Measured,
    /// The model after training with the baseline from the same start; none where no baseline is configured.
    pub baseline: Option<BaselineMeasured>,
}

/// The measured sets at one moment; none where a set is not configured or was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was trained for.
    pub target: Option<Evaluation>,
    /// What should not be forgotten.
    pub general: Option<Evaluation>,
    /// Labels that should not be learned.
    pub wrong: Option<Evaluation>,
}

/// The baseline's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineMeasured {
    /// Objective name.
    pub objective: String,
    /// After training.
    pub after: Measured,
}

/// `landscape.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Landscapes {
    /// Before training.
    pub before: Option<Landscape>,
    /// After training.
    pub after: Option<Landscape>,
}

impl Landscapes {
    /// Keeps the map of a phase.
    pub fn record(&mut self, phase: Phase, landscape: &Landscape) {
        match phase {
            Phase::Before => self.before = Some(landscape.clone()),
            Phase::During => {}
            Phase::After => self.after = Some(landscape.clone()),
        }
    }
}

/// `evaluations.json`: what was measured so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluations {
    /// Before training.
    pub before: Measured,
    /// After training.
    pub after: Measured,
    /// All, in order.
    pub history: Vec<Evaluated>,
    /// What the run warned of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The step in which numbers overflowed, which ended the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflowed: Option<u64>,
}

impl Evaluations {
    /// Keeps an evaluation; one that is repeated replaces the first.
    pub fn record(&mut self, evaluated: &Evaluated) {
        let measured = Measured { target: evaluated.target, general: evaluated.general, wrong: evaluated.wrong };
        match evaluated.phase {
            Phase::Before => self.before = measured,
            Phase::During => {}
            Phase::After => self.after = measured,
        }
        if !self.has(evaluated) {
            self.history.retain(|e| e.step != evaluated.step || e.phase != evaluated.phase);
            self.history.push(evaluated.clone());
        }
    }

    /// True where the same was measured at that step, be it as an evaluation on the way that became the result.
    pub fn has(&self, evaluated: &Evaluated) -> bool {
        self.history.iter().any(|known| *evaluated == Evaluated { phase: evaluated.phase, ..known.clone() })
    }

    /// Keeps a warning; a resumed run may repeat it.
    pub fn warn(&mut self, message: &str) {
        if !self.warnings.iter().any(|known| known == message) {
            self.warnings.push(message.to_owned());
        }
    }
}

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    /// Held while this process writes the run; none where it only reads.
    lock: Option<Arc<Lock>>,
}

impl RunFolder {
    /// Makes the folder of a new run, still empty, so that a place that cannot be written to is known before a large
    /// model is read.
    ///
    /// # Errors
    /// [`Error::Config`] where it already holds a run (nothing is ever overwritten) or other files, or another process is
    /// writing to it; [`Error::Io`] where it cannot be made.
    pub fn reserve(path: &Path) -> Result<Reserved> {
        let refuse = |problem: &str| Error::Config { problems: vec![format!("--out {}: {problem}", path.display())] };
        if path.join(CONFIG).exists() {
            return Err(refuse("already holds a run; go on with it (--resume) or choose another folder"));
        }
        // What an attempt left that was killed before its first file was complete does not count.
        let partials = |folder: &Path| {
            fs::read_dir(folder)
                .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| is_partial(&entry))))
        };
        let ours = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| match entry.file_name() {
                name if name == CHECKPOINTS => partials(&entry.path()),
                name => name == LOCK || is_partial(&entry),
            })
        };
        match fs::read_dir(path).map(|mut entries| entries.all(ours)) {
            Ok(false) => return Err(refuse("is not empty; choose an empty folder or one that does not exist yet")),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(refuse("is not a folder")),
            _ => {}
        }
        let made = Made::of(path)?;
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(|error| io_error(&checkpoints, &error))?;
        let run = Self { path: path.to_path_buf(), lock: Some(lock_run(path, &checkpoints)?) };
        // Another process may have begun and ended between the look and the lock.
        if path.join(CONFIG).exists() {
            return Err(refuse("already holds a run; go on with it (--resume) or choose another folder"));
        }
        [path, &checkpoints].into_iter().for_each(remove_partial);
        Ok(Reserved { run, made })
    }

    /// Opens the folder of a run to read it. Nothing in it is touched: the run may be going on.
    ///
    /// # Errors
    /// [`Error::Config`] where it holds no run.
    pub fn look_into(path: &Path) -> Result<Self> {
        if path.join(CONFIG).is_file() {
            return Ok(Self { path: path.to_path_buf(), lock: None });
        }
        Err(Error::Config { problems: vec![format!("{}: holds no run ({CONFIG} is missing)", path.display())] })
    }

    /// Opens the folder of a run to go on with it, and clears away what a killed process left.
    ///
    /// # Errors
    /// [`Error::Config`] where it holds no run, a finished one without a checkpoint, or another process is writing it.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |problem: String| Error::Config { problems: vec![format!("{}: {problem}", path.display())] };
        if !path.join(CONFIG).is_file() {
            return Err(refuse(format!("holds no run to go on with ({CONFIG} is missing)")));
        }
        let found = Self { path: path.to_path_buf(), lock: None };
        if path.join(SUMMARY).is_file() && found.checkpoints().is_empty() {
            // To train it again would overwrite what it left.
            let result = [ADAPTER, MODEL].map(|name| path.join(name)).into_iter().find(|result| result.is_dir());
            let result = result.map_or(String::new(), |result| format!("; its result is {}", result.display()));
            return Err(refuse(format!(
                "the run is finished, and no checkpoint is left to go on from{result}; begin a new run with another --out"
            )));
        }
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(|error| io_error(&checkpoints, &error))?;
        let run = Self { path: path.to_path_buf(), lock: Some(lock_run(path, &checkpoints)?) };
        for folder in [run.path.clone(), run.checkpoints_path(), run.part(Part::Baseline)] {
            remove_partial(&folder);
        }
        Ok(run)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration it was created with.
    ///
    /// # Errors
    /// As [`read_small`], or [`Error::Config`] where someone edited it into something invalid.
    pub fn config(&self) -> Result<Config> {
        let (text, file) = self.config_text()?;
        Config::parse(&text, &file, &[])
    }

    /// `config.toml` and its name.
    fn config_text(&self) -> Result<(String, String)> {
        let path = self.path.join(CONFIG);
        let gone = || io_error(&path, &io::ErrorKind::NotFound.into());
        let text = read_small(&path, MOST_CONFIGURATION_BYTES)?.ok_or_else(gone)?;
        Ok((String::from_utf8_lossy(&text).into_owned(), path.display().to_string()))
    }

    /// What the run began with and how it goes on.
    ///
    /// # Errors
    /// As [`read_small`]; [`Error::Config`] where the file was edited, which names what differs from the newest
    /// checkpoint.
    pub fn run_config(&self) -> Result<RunConfig> {
        let (text, file) = self.config_text()?;
        RunConfig::parse(&text, &file, || {
            let (_, newest) = self.checkpoints().pop()?;
            let state = read_small(&newest.join(STATE), MOST_KEPT).ok()??;
            let state: serde_json::Value = serde_json::from_slice(&state).ok()?;
            Config::parse(state["progress"]["config"].as_str()?, "the checkpoint", &[]).ok()
        })
    }

    /// Writes what the run began with and how it goes on, which makes the folder that of a run.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_run_config(&self, config: &RunConfig) -> Result<()> {
        self.guarded(|| write_atomically(&self.path.join(CONFIG), |w| w.write_all(config.to_text().as_bytes())))
    }

    /// Writes, where all is still in its place, and says what is gone where it is not, or how a run that has begun goes on.
    fn guarded<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        let in_place = || self.lock.as_ref().map_or(Ok(()), |lock| lock.in_place());
        in_place()?;
        // It may also go while it is written to.
        write().map_err(|error| match (in_place(), error) {
            (Err(gone), _) => gone,
            (Ok(()), Error::Io { path, problem }) if self.path.join(CONFIG).is_file() => {
                let again = Interrupted::run(&self.path).again;
                let saved = match self.checkpoints().is_empty() {
                    true => "no checkpoint was saved before, so that it begins again",
                    false => "what the run saved is intact, go on",
                };
                Error::Io { path, problem: format!("{problem}; {saved} with: {again}") }
            }
            (Ok(()), error) => error,
        })
    }

    fn part(&self, part: Part) -> PathBuf {
        match part {
            Part::Main => self.path.clone(),
            Part::Baseline => self.path.join("baseline"),
        }
    }

    /// Opens `metrics.jsonl` for appending, and says what is wrong with it. Lines of steps after `done` are dropped first: a run
    /// that is resumed from a checkpoint does those steps again, and no step may be in the file twice. `written` is what the
    /// checkpoint knows of the lines up to there. A new run has `done` 0.
    ///
    /// # Errors
    /// As [`read_small`].
    pub fn metrics(&self, part: Part, done: u64, written: Prefix) -> Result<(Metrics, Vec<String>)> {
        let folder = self.part(part);
        let path = folder.join(METRICS);
        let mut digester = Digester::default();
        let mut warnings = Vec::new();
        let text = read_small(&path, MOST_KEPT)?.unwrap_or_default();
        let mut attempt = || -> io::Result<File> {
            fs::create_dir_all(&folder)?;
            let lines = Lines::of(&text);
            let keep = lines.length_until(done);
            digester.add(&text[..keep]);
            warnings.extend(lines.warnings(&path));
            if warnings.is_empty() && Prefix::of(&digester) != written {
                warnings.push(format!(
                    "{}: is not what was written up to step {done}: lines were changed, or are missing; the curves show what is \
                     there",
                    path.display()
                ));
            }
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            if keep < text.len() {
                file.set_len(keep as u64)?;
            }
            Ok(file)
        };
        let file = self.guarded(|| attempt().map_err(|error| io_error(&path, &error)))?;
        Ok((Metrics { file: Growing::of(self, file, path)?, digester }, warnings))
    }

    /// The steps of `metrics.jsonl`, and a warning for each line that is none. An incomplete last line, which a killed process
    /// can leave, is left out.
    ///
    /// # Errors
    /// As [`read_small`].
    pub fn read_metrics(&self, part: Part) -> Result<(Vec<StepMetrics>, Vec<String>)> {
        let path = self.part(part).join(METRICS);
        let lines = Lines::of(&read_small(&path, MOST_KEPT)?.unwrap_or_default());
        Ok((lines.steps(), lines.warnings(&path)))
    }

    /// Writes what TensorBoard reads of the steps that `metrics.jsonl` holds and of these evaluations, and opens it for appending.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn curves(&self, part: Part, evaluations: &Evaluations) -> Result<Curves> {
        let path = self.part(part).join(EVENTS);
        let steps = self.read_metrics(part)?.0;
        let begin = seconds_since_1970() - steps.last().map_or(0.0, |step| step.seconds);
        // What was measured after a step happened at its end.
        let when =
            |at: &Evaluated| begin + steps.iter().rfind(|step| step.step <= at.step).map_or(0.0, |step| step.seconds);
        let mut text = tensorboard::head(begin);
        text.extend(steps.iter().flat_map(|step| tensorboard::step(begin, step)));
        text.extend(evaluations.history.iter().flat_map(|at| tensorboard::evaluated(when(at), at)));
        self.guarded(|| write_atomically(&path, |w| w.write_all(&text)))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|error| io_error(&path, &error))?;
        Ok(Curves { file: Growing::of(self, file, path)?, begin })
    }

    /// `summary.json`; none where the run has not come to its end.
    ///
    /// # Errors
    /// As [`read_small`]; [`Error::Format`] where it is none.
    pub fn summary(&self) -> Result<Option<Summary>> {
        self.read(SUMMARY)
    }

    /// `evaluations.json` of the run itself.
    ///
    /// # Errors
    /// As [`RunFolder::summary`].
    pub fn evaluations(&self) -> Result<Evaluations> {
        Ok(self.read(EVALUATIONS)?.unwrap_or_default())
    }

    /// `landscape.json` of the run itself.
    ///
    /// # Errors
    /// As [`RunFolder::summary`].
    pub fn landscapes(&self) -> Result<Landscapes> {
        Ok(self.read(LANDSCAPE)?.unwrap_or_default())
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path.join(name);
        let Some(text) = read_small(&path, MOST_KEPT)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::Format {
            file: path.display().to_string(),
            problem: format!("is not what a run writes: {error}"),
        })
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_summary(&self, summary: &Summary) -> Result<()> {
        self.guarded(|| {
            write_atomically(&self.path.join(SUMMARY), |w| {
                serde_json::to_writer_pretty(&mut *w, summary)?;
                w.write_all(b"\n")
            })
        })
    }

    /// Writes `evaluations.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_evaluations(&self, part: Part, evaluations: &Evaluations) -> Result<()> {
        self.guarded(|| {
            write_atomically(&self.part(part).join(EVALUATIONS), |w| {
                serde_json::to_writer_pretty(&mut *w, evaluations)?;
                w.write_all(b"\n")
            })
        })
    }

    /// Writes a folder of results, such as `adapter/`, complete or not at all, replacing the one of an earlier attempt.
    /// `fill` writes into it what is not in `files`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_result(
        &self,
        name: &str,
        files: &[(String, Vec<u8>)],
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<()> {
        self.guarded(|| write_folder_with(&self.path.join(name), files, fill))
    }

    /// Writes `landscape.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_landscapes(&self, part: Part, landscapes: &Landscapes) -> Result<()> {
        let path = self.part(part).join(LANDSCAPE);
        self.guarded(|| write_atomically(&path, |w| Ok(serde_json::to_writer(w, landscapes)?)))
    }

    /// What [`RunFolder::keep`] left under this name.
    ///
    /// # Errors
    /// As [`read_small`].
    pub fn recall(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read_small(&self.path.join(name), MOST_KEPT)
    }

    /// Keeps a file for whoever goes on with the run, complete or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.guarded(|| write_atomically(&self.path.join(name), |w| w.write_all(bytes)))
    }

    /// Writes `report.html` and says where it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_report(&self, html: &str) -> Result<PathBuf> {
        let path = self.path.join(REPORT);
        self.guarded(|| write_atomically(&path, |w| w.write_all(html.as_bytes())))?;
        Ok(path)
    }

    fn checkpoints_path(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// Complete checkpoints, oldest first, with their step.
    pub fn checkpoints(&self) -> Vec<(u64, PathBuf)> {
        let mut found: Vec<_> = fs::read_dir(self.checkpoints_path())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
                Some((step, entry.path()))
            })
            .collect();
        found.sort();
        found
    }

    /// The checkpoint of a step.
    ///
    /// # Errors
    /// [`Error::Config`] naming the steps of which there is one.
    pub fn checkpoint(&self, step: u64) -> Result<PathBuf> {
        let all = self.checkpoints();
        let steps: Vec<String> = all.iter().map(|(step, _)| step.to_string()).collect();
        let there = match steps.as_slice() {
            [] => "there is none yet".to_string(),
            [only] => format!("there is one, of step {only}"),
            several => format!("there are those of steps {}", several.join(", ")),
        };
        let found = all.into_iter().find(|(other, _)| *other == step);
        let problem = || format!("--step {step}: {} has no checkpoint of that step; {there}", self.path.display());
        found.map(|(_, path)| path).ok_or_else(|| Error::Config { problems: vec![problem()] })
    }

    /// Why the result is not there, and what helps.
    pub fn no_result(&self) -> String {
        let steps: Vec<u64> = self.checkpoints().into_iter().map(|(step, _)| step).collect();
        let newest = steps.last().copied();
        let or = |begin: &str, step: Option<u64>| step.map_or(String::new(), |step| format!("{begin} --step {step}"));
        if let Some(why) = self.without_result() {
            let own = or("; its newest checkpoint is used all the same with", newest);
            return format!("is not there, since the run ended without a result: {why}{own}");
        }
        let overflowed = self.evaluations().ok().and_then(|measured| measured.overflowed);
        // Another device may have come beyond that step.
        if let Some(step) = overflowed.filter(|step| newest.is_none_or(|newest| newest <= *step)) {
            let before = steps.into_iter().rfind(|before| *before < step);
            return format!(
                "is not there: numbers of the run overflowed in step {step}, to which --resume comes again; begin a new run with \
                 a lower optim.learning_rate{}",
                or(", or use the checkpoint before that with", before)
            );
        }
        let (again, own) = (Interrupted::run(&self.path).again, or(", or use its newest checkpoint with", newest));
        format!("is not there: the run has not come to its end; go on with it: {again}{own}")
    }

    /// Why the run has ended without a result, where its newest checkpoint says so; it takes no more steps. What is wrong with
    /// that checkpoint is said by whoever goes on from it.
    pub fn without_result(&self) -> Option<Error> {
        let (_, newest) = self.checkpoints().pop()?;
        let problem = without_result(&OsFolder::open(&newest).ok()?).ok()??;
        Some(Error::Selection { problem })
    }

    /// Refuses a checkpoint that is of another step than its folder's name says.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] with both.
    pub fn refuse_renamed(named: u64, step: u64) -> Result<()> {
        if named == step {
            return Ok(());
        }
        let problem = format!("it is of step {step}, and its folder is called that of step {named}");
        Err(Error::Checkpoint { field: "step".into(), problem })
    }

    /// What the run had written when the checkpoint in this folder was made.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is missing or was changed; as [`read_small`].
    pub fn record(checkpoint: &Path) -> Result<Record> {
        let broken = |problem: String| Error::Checkpoint { field: RECORD.into(), problem };
        let bytes = read_small(&checkpoint.join(RECORD), MOST_KEPT)?;
        let bytes = bytes.ok_or_else(|| broken("is missing from the checkpoint".into()))?;
        let unreadable = |error: serde_json::Error| broken(format!("not readable: {error}"));
        let Vouched { state, digest, record } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if digest != Digest::of(&serde_json::to_vec(&(state, &record)).map_err(unreadable)?) {
            return Err(broken("was changed after it was written; restore it".into()));
        }
        match state == digest_of_state(checkpoint)? {
            true => Ok(record),
            false => Err(broken(format!("belongs to another {STATE}; restore it"))),
        }
    }

    /// Writes a checkpoint, complete or not at all, and then removes all but the newest `keep` (at least this one) and the one
    /// that `stays`. `write` gives the contents of each of `files`, which may be too large to be held in memory.
    ///
    /// # Errors
    /// [`Error::Io`], and those of `write`; every older checkpoint is intact then.
    pub fn save_checkpoint(
        &self,
        step: u64,
        record: &Record,
        files: &[&str],
        write: &dyn Fn(&str, &mut dyn Write) -> io::Result<()>,
        keep: usize,
        stays: Option<u64>,
    ) -> Result<PathBuf> {
        let path = self.checkpoints_path().join(format!("step-{step:08}"));
        self.guarded(|| {
            write_folder_with(&path, &[], |folder| {
                files.iter().try_for_each(|name| write_new(&folder.join(name), |out| write(name, out)))?;
                let state = digest_of_state(folder).map_err(io::Error::other)?;
                write_new(&folder.join(RECORD), |out| record.write(state, out))
            })?;
            let mut all = self.checkpoints();
            all.retain(|(step, _)| Some(*step) != stays);
            let old = all.len().saturating_sub(keep.max(1));
            for (_, path) in all.iter().take(old).filter(|(other, _)| *other != step) {
                fs::remove_dir_all(path).map_err(|error| io_error(path, &error))?;
            }
            Ok(path)
        })
    }
}

/// What a run has written beside its checkpoints, as each of them keeps it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The lines of metrics.
    pub metrics: Prefix,
    /// What was measured.
    pub evaluations: Evaluations,
    /// Its maps.
    pub landscapes: Landscapes,
    /// As [`Summary::records`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<String>,
}

impl Record {
    fn write(&self, state: Digest, out: &mut dyn Write) -> io::Result<()> {
        let digest = Digest::of(&serde_json::to_vec(&(state, self))?);
        Ok(serde_json::to_writer(out, &Vouched { state, digest, record: self })?)
    }
}

/// A record with the digest of the state beside it, and that of the JSON of both.
#[derive(Serialize, Deserialize)]
struct Vouched<R> {
    state: Digest,
    digest: Digest,
    record: R,
}

/// Of the engine's part of a checkpoint, which vouches for the rest of it. Where it is missing, the engine says so.
fn digest_of_state(checkpoint: &Path) -> Result<Digest> {
    Ok(Digest::of(&read_small(&checkpoint.join(STATE), MOST_KEPT)?.unwrap_or_default()))
}

/// How much was written to a file, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    bytes: u64,
    digest: Digest,
}

impl Prefix {
    fn of(digester: &Digester) -> Self {
        Self { bytes: digester.length(), digest: digester.digest() }
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self::of(&Digester::default())
    }
}

/// The folder of a run that has not begun. Dropped like that, it leaves no trace, so that the same command works once what
/// was wrong with it is mended.
#[derive(Debug)]
pub struct Reserved {
    run: RunFolder,
    /// Goes after the lock, whose file is in it.
    made: Made,
}

impl Reserved {
    /// The folder.
    pub fn folder(&self) -> &RunFolder {
        &self.run
    }

    /// Does what dropping it does, for a process that ends without that.
    pub fn undo(&self) -> Box<dyn FnOnce() + Send> {
        let path = &self.run.path;
        let (config, lock, checkpoints) = (path.join(CONFIG), path.join(LOCK), self.run.checkpoints_path());
        let made = self.made.0.clone();
        Box::new(move || {
            if config.exists() {
                return;
            }
            let _ = fs::remove_file(lock);
            // What holds something stays.
            for folder in std::iter::once(&checkpoints).chain(&made) {
                let _ = fs::remove_dir(folder);
            }
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.run.path.join(CONFIG).exists() {
            return;
        }
        // Its file is in the way.
        drop(self.run.lock.take());
        // Not removed if it holds something.
        let _ = fs::remove_dir(self.run.checkpoints_path());
    }
}

/// Folders that this process made, from the innermost one on. Dropped, they go again as far as nothing came into them.
#[derive(Debug)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a folder, and those above it that are not there.
    fn of(folder: &Path) -> Result<Self> {
        let is_missing = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
        let made = Self(folder.ancestors().take_while(is_missing).map(Path::to_path_buf).collect());
        fs::create_dir_all(folder).map_err(|error| io_error(folder, &error))?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            // One that holds something stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The lock of a folder. Its file goes with it; a killed process leaves the file, which then locks nothing.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// The run's folder, and that of its checkpoints; nothing of a folder that is no run's.
    places: Vec<Place>,
}

impl Lock {
    /// Refuses where a folder is gone, and clears away what was half-written to where it is now.
    fn in_place(&self) -> Result<()> {
        let gone = self.places.iter().try_for_each(Place::check);
        if gone.is_err() {
            let moved = self.places.iter().filter_map(Place::now);
            moved.for_each(|folder| {
                [folder.join("baseline"), folder].iter().for_each(|folder| remove_partial(folder));
            });
        }
        gone
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Wherever it is now; another process may have begun a run of that name.
        let path = path_of(&self.file).or_else(|| is_at(&self.file, &self.path).then(|| self.path.clone()));
        if let Some(path) = path {
            let _ = fs::remove_file(path);
        }
    }
}

/// A folder of results that is no run's, which this process has.
#[derive(Debug)]
pub struct Taken {
    _lock: Lock,
    /// Goes after the lock, whose file is in it.
    _made: Made,
}

/// Whether this is the folder of an adapter itself, and not that of a run.
pub fn is_adapter(folder: &Path) -> bool {
    ADAPTER_FILES.iter().any(|name| folder.join(name).is_file())
}

/// True of a folder in which nothing is but what a process left that was killed before its first file was complete, and where
/// there is none.
pub fn is_unused(folder: &Path) -> bool {
    let is_left =
        |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == LOCK || is_partial(&entry));
    fs::read_dir(folder).into_iter().flatten().all(is_left)
}

/// Takes a folder of results that is no run's for this process, as [`RunFolder::open`] does a run's, and clears away what
/// a killed process left in it. The folder is made where there is none, and goes again where nothing was written into it.
///
/// # Errors
/// [`Error::Config`] naming the process that has it; [`Error::Io`].
pub fn take(folder: &Path) -> Result<Taken> {
    let made = Made::of(folder)?;
    let lock = lock(folder, Vec::new())?;
    remove_partial(folder);
    Ok(Taken { _lock: lock, _made: made })
}

fn lock_run(folder: &Path, checkpoints: &Path) -> Result<Arc<Lock>> {
    lock(folder, vec![Place::open(folder)?, Place::open(checkpoints)?]).map(Arc::new)
}

/// Takes a folder for this process, until the lock is dropped or the process ends, however it ends.
///
/// # Errors
/// [`Error::Config`] naming the process that has it; [`Error::Io`].
fn lock(folder: &Path, places: Vec<Place>) -> Result<Lock> {
    let path = folder.join(LOCK);
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(|error| io_error(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = if holder.is_empty() { "another process".into() } else { format!("process {holder}") };
                let problem = format!(
                    "{}: {holder} is writing to it; let it end first, or choose another folder with --out",
                    folder.display()
                );
                return Err(Error::Config { problems: vec![problem] });
            }
            // Some network file systems have no locks: nothing can be promised there, as before.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Lock { file, path, places });
            }
            Err(TryLockError::Error(error)) => return Err(io_error(&path, &error)),
        }
        // A process that ends removes its lock's file: one that was opened before that is nobody's.
        if !is_at(&file, &path) {
            continue;
        }
        let said = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        said.map_err(|error| io_error(&path, &error))?;
        return Ok(Lock { file, path, places });
    }
}

/// The complete lines of a `metrics.jsonl`, with where each ends, and why those that are no steps are none.
struct Lines {
    lines: Vec<(usize, std::result::Result<StepMetrics, String>)>,
}

impl Lines {
    fn of(text: &[u8]) -> Self {
        let mut end = 0;
        let read = |line: &[u8]| {
            end += line.len();
            (end, serde_json::from_slice(line).map_err(|error| error.to_string()))
        };
        Self { lines: text.split_inclusive(|byte| *byte == b'\n').filter(|l| l.ends_with(b"\n")).map(read).collect() }
    }

    fn steps(&self) -> Vec<StepMetrics> {
        self.lines.iter().filter_map(|(_, line)| line.clone().ok()).collect()
    }

    /// Length of the text until after the last step up to `done`.
    fn length_until(&self, done: u64) -> usize {
        let until = |(_, line): &&(usize, _)| matches!(line, Ok(StepMetrics { step, .. }) if *step <= done);
        self.lines.iter().rfind(until).map_or(0, |(end, _)| *end)
    }

    fn warnings(&self, path: &Path) -> Vec<String> {
        let warning = |(index, (_, line)): (usize, &(usize, std::result::Result<StepMetrics, String>))| {
            let problem = line.as_ref().err()?;
            Some(format!("{}, line {}: is damaged and left out ({problem})", path.display(), index + 1))
        };
        self.lines.iter().enumerate().filter_map(warning).collect()
    }
}

/// A file of a run, open for appending: refused where it, or the run's folder, is gone.
#[derive(Debug)]
struct Growing {
    run: RunFolder,
    file: File,
    place: Place,
    path: PathBuf,
}

impl Growing {
    fn of(run: &RunFolder, file: File, path: PathBuf) -> Result<Self> {
        let place = Place::open(&path)?;
        Ok(Self { run: run.clone(), file, place, path })
    }

    /// In one write, so that a reader never sees half of it.
    fn append(&self, bytes: &[u8]) -> Result<()> {
        self.run.guarded(|| {
            self.place.check()?;
            (&self.file).write_all(bytes).map_err(|error| io_error(&self.path, &error))
        })
    }
}

/// What TensorBoard reads of a run, open for appending.
#[derive(Debug)]
pub struct Curves {
    file: Growing,
    /// When the run would have begun had nothing interrupted it, in seconds since 1970.
    begin: f64,
}

impl Curves {
    /// Appends a logged step.
    ///
    /// # Errors
    /// [`Error::Io`], also where the file is gone.
    pub fn step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.file.append(&tensorboard::step(self.begin, metrics))
    }

    /// Appends an evaluation.
    ///
    /// # Errors
    /// [`Error::Io`], also where the file is gone.
    pub fn evaluated(&mut self, evaluated: &Evaluated) -> Result<()> {
        self.file.append(&tensorboard::evaluated(seconds_since_1970(), evaluated))
    }
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// `metrics.jsonl`, open for appending.
#[derive(Debug)]
pub struct Metrics {
    file: Growing,
    digester: Digester,
}

impl Metrics {
    /// Appends a line.
    ///
    /// # Errors
    /// [`Error::Io`], also where the file is gone.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let mut line = serde_json::to_vec(metrics).map_err(|error| io_error(&self.file.path, &error.into()))?;
        line.push(b'\n');
        self.file.append(&line)?;
        self.digester.add(&line);
        Ok(())
    }

    /// What the file holds.
    pub fn written(&self) -> Prefix {
        Prefix::of(&self.digester)
    }
}

#[cfg(test)]
mod tests {
    use temper_engine::running::Origin;

    use super::*;

    fn config() -> Config {
        Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "x", &[]).unwrap()
    }

    fn created(path: &Path, config: &Config) -> Result<RunFolder> {
        let reserved = RunFolder::reserve(path)?;
        begin(&reserved, config)?;
        Ok(reserved.folder().clone())
    }

    fn begin(reserved: &Reserved, config: &Config) -> Result<()> {
        reserved.folder().write_run_config(&RunConfig::new(config.clone(), Origin::default()))
    }

    fn metrics(run: &RunFolder, part: Part, done: u64) -> Metrics {
        run.metrics(part, done, Prefix::default()).unwrap().0
    }

    fn save(run: &RunFolder, step: u64, keep: usize) -> Result<PathBuf> {
        run.save_checkpoint(step, &Record::default(), &["state.json"], &|_, out| out.write_all(b"{}"), keep, None)
    }

    fn step(step: u64) -> StepMetrics {
        StepMetrics { step, loss: 1.0 / step as f64, ..StepMetrics::default() }
    }

    fn steps(run: &RunFolder) -> Vec<u64> {
        run.read_metrics(Part::Main).unwrap().0.iter().map(|m| m.step).collect()
    }

    #[test]
    fn a_checkpoint_that_stays_is_kept_beside_the_newest() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let save = |step, stays| {
            run.save_checkpoint(step, &Record::default(), &["state.json"], &|_, out| out.write_all(b"{}"), 2, stays)
                .unwrap();
            run.checkpoints().into_iter().map(|(step, _)| step).collect::<Vec<_>>()
        };
        assert_eq!(save(1, None), [1]);
        assert_eq!(save(2, Some(1)), [1, 2]);
        assert_eq!(save(3, Some(1)), [1, 2, 3]);
        assert_eq!(save(4, Some(1)), [1, 3, 4]);
        assert_eq!(save(5, Some(5)), [3, 4, 5], "the newest stays anyway");
        assert_eq!(save(6, Some(4)), [4, 5, 6]);
    }

    #[test]
    fn a_new_run_writes_its_resolved_configuration_and_never_overwrites_another() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("runs/a");
        let run = created(&path, &config()).unwrap();
        assert_eq!(run.config().unwrap(), config());
        assert!(created(&path, &config()).unwrap_err().to_string().contains("--resume"));
        drop(run);
        assert!(RunFolder::open(&path).is_ok());

        let full = base.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("thesis.txt"), "x").unwrap();
        assert!(created(&full, &config()).unwrap_err().to_string().contains("not empty"));
        assert!(RunFolder::open(&full).unwrap_err().is_bad_input());
        assert!(created(&full.join("thesis.txt"), &config()).is_err());
    }

    #[test]
    fn one_process_writes_a_run_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        let taken = |result: Result<RunFolder>| {
            let error = result.unwrap_err();
            assert!(error.is_bad_input(), "{error}");
            assert!(error.to_string().contains(&format!("process {} is writing", std::process::id())), "{error}");
        };
        let reserved = RunFolder::reserve(&path).unwrap();
        taken(RunFolder::reserve(&path).map(|reserved| reserved.folder().clone()));
        begin(&reserved, &config()).unwrap();
        taken(RunFolder::open(&path));
        assert!(RunFolder::look_into(&path).is_ok(), "who only reads need not wait");
        drop(reserved);
        let first = RunFolder::open(&path).unwrap();
        taken(RunFolder::open(&path));
        drop(first);
        assert!(RunFolder::open(&path).is_ok());
    }

    #[test]
    fn one_process_writes_any_other_folder_at_a_time_and_clears_away_only_what_a_killed_one_left() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("scan");
        let first = take(&path).unwrap();
        fs::write(path.join(".partial-first"), "half").unwrap();
        let error = take(&path).unwrap_err();
        assert!(error.is_bad_input(), "{error}");
        assert!(error.to_string().contains(&format!("process {} is writing", std::process::id())), "{error}");
        assert!(path.join(".partial-first").exists(), "it is still being written");
        drop(first);
        fs::write(path.join(LOCK), "1").unwrap();
        assert!(is_unused(&path) && is_unused(&path.join("none")), "a killed process left it");
        drop(take(&path).unwrap());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        fs::write(path.join("scan.jsonl"), "").unwrap();
        assert!(!is_unused(&path));
    }

    #[test]
    fn a_file_of_a_run_that_is_larger_than_any_is_refused_with_both_numbers_before_it_is_read() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let checkpoint = save(&run, 1, 1).unwrap();
        // These are holes: nothing lies on the disk.
        let grow = |path: PathBuf, most: u64| {
            let before = fs::read(&path).ok();
            OpenOptions::new().create(true).append(true).open(&path).unwrap().set_len(most + 1).unwrap();
            (path, before, most)
        };
        let refused = |error: Error, (path, before, most): (PathBuf, Option<Vec<u8>>, u64)| {
            let message = error.to_string();
            assert!(error.is_bad_input() && message.starts_with(&path.display().to_string()), "{message}");
            assert!(message.contains(&format!("{} bytes, and no more than {most}", most + 1)), "{message}");
            fs::remove_file(&path).unwrap();
            if let Some(before) = before {
                fs::write(&path, before).unwrap();
            }
        };
        let grown = grow(run.path().join(CONFIG), MOST_CONFIGURATION_BYTES);
        refused(run.config().unwrap_err(), grown);
        let grown = grow(run.path().join(CONFIG), MOST_CONFIGURATION_BYTES);
        refused(run.run_config().unwrap_err(), grown);
        let grown = grow(run.path().join(METRICS), MOST_KEPT);
        assert!(run.metrics(Part::Main, 0, Prefix::default()).is_err());
        refused(run.read_metrics(Part::Main).unwrap_err(), grown);
        let grown = grow(run.path().join(SUMMARY), MOST_KEPT);
        refused(run.summary().unwrap_err(), grown);
        let grown = grow(run.path().join("scores"), MOST_KEPT);
        refused(run.recall("scores").unwrap_err(), grown);
        for name in [RECORD, STATE] {
            let grown = grow(checkpoint.join(name), MOST_KEPT);
            refused(RunFolder::record(&checkpoint).unwrap_err(), grown);
        }
        assert_eq!((run.config().unwrap(), RunFolder::record(&checkpoint).unwrap()), (config(), Record::default()));
    }

    #[test]
    fn a_write_that_fails_says_whether_there_is_a_checkpoint_to_go_on_from() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let full = || {
            let failed = run.guarded(|| Err::<(), _>(Error::Io { path: "a".into(), problem: "no space left".into() }));
            failed.unwrap_err().to_string()
        };
        let again = Interrupted::run(run.path()).again;
        let nothing =
            format!("a: no space left; no checkpoint was saved before, so that it begins again with: {again}");
        assert_eq!(full(), nothing);
        save(&run, 1, 1).unwrap();
        assert_eq!(full(), format!("a: no space left; what the run saved is intact, go on with: {again}"));
    }

    #[test]
    fn what_a_process_left_that_was_killed_while_it_began_counts_as_empty() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        fs::create_dir_all(path.join(CHECKPOINTS).join(".partial-1")).unwrap();
        fs::write(path.join(".partial-config.toml"), "[mod").unwrap();
        fs::write(path.join(LOCK), "1").unwrap();
        let run = created(&path, &config()).unwrap();
        assert!(!path.join(".partial-config.toml").exists() && run.checkpoints().is_empty());
        let other = base.path().join("b");
        fs::create_dir_all(other.join(CHECKPOINTS).join("step-1")).unwrap();
        assert!(created(&other, &config()).unwrap_err().to_string().contains("not empty"));
    }

    #[test]
    fn folders_above_a_run_or_a_scan_of_which_nothing_is_left_go_with_it() {
        let base = tempfile::tempdir().unwrap();
        let (runs, below) = (base.path().join("runs"), base.path().join("runs/new/a"));
        drop(RunFolder::reserve(&below).unwrap());
        drop(take(&below).unwrap());
        assert!(!runs.exists());
        // One that was there stays, as does what another one is in.
        fs::create_dir(&runs).unwrap();
        drop(take(&below).unwrap());
        assert_eq!(fs::read_dir(&runs).unwrap().count(), 0);
        let first = RunFolder::reserve(&below).unwrap();
        let second = RunFolder::reserve(&below.with_file_name("b")).unwrap();
        drop(first);
        assert!(!below.exists() && second.folder().path().exists());
        drop(second);
        fs::remove_dir(runs.join("new")).unwrap();
        // What was begun, and what was written to, stays.
        let begun = created(&below, &config()).unwrap();
        drop(begun);
        assert!(below.join(CONFIG).exists() && below.join(CHECKPOINTS).is_dir());
        let scan = runs.join("scan");
        let taken = take(&scan).unwrap();
        fs::write(scan.join("scan.jsonl"), "{}").unwrap();
        drop(taken);
        assert_eq!(fs::read_dir(&scan).unwrap().count(), 1);
    }

    #[test]
    fn a_finished_run_without_a_checkpoint_is_not_begun_again_and_an_unfinished_one_is() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        drop(created(&path, &config()).unwrap());
        drop(RunFolder::open(&path).unwrap());
        fs::write(path.join(SUMMARY), "{}").unwrap();
        fs::remove_dir(path.join(CHECKPOINTS)).unwrap();
        for result in ["", ADAPTER] {
            fs::create_dir_all(path.join(result)).unwrap();
            let error = RunFolder::open(&path).unwrap_err();
            assert!(error.is_bad_input() && !path.join(CHECKPOINTS).exists(), "{error}");
            for part in ["a: the run is finished", "another --out", result] {
                assert!(error.to_string().contains(part), "{error}");
            }
        }
        fs::create_dir_all(path.join(CHECKPOINTS).join("step-00000003")).unwrap();
        assert!(RunFolder::open(&path).is_ok());
    }

    #[test]
    fn a_run_that_never_begins_leaves_no_trace() {
        let base = tempfile::tempdir().unwrap();
        for existed in [false, true] {
            let path = base.path().join(format!("a-{existed}"));
            if existed {
                fs::create_dir(&path).unwrap();
            }
            drop(RunFolder::reserve(&path).unwrap());
            assert_eq!(path.exists(), existed);
            assert!(created(&path, &config()).is_ok());
            assert!(path.join(CHECKPOINTS).is_dir());
        }
    }

    #[test]
    fn resuming_drops_the_lines_of_steps_that_are_done_again() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let mut lines = metrics(&run, Part::Main, 0);
        (1..=5).for_each(|s| lines.append(&step(s)).unwrap());
        drop(lines);
        let mut lines = metrics(&run, Part::Main, 3);
        lines.append(&step(4)).unwrap();
        assert_eq!(steps(&run), [1, 2, 3, 4]);
        metrics(&run, Part::Baseline, 0).append(&step(1)).unwrap();
        assert_eq!(steps(&run), [1, 2, 3, 4], "the baseline has its own file");
    }

    #[test]
    fn a_line_cut_short_by_a_kill_is_neither_read_nor_appended_to() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        metrics(&run, Part::Main, 0).append(&step(1)).unwrap();
        let path = run.path().join(METRICS);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"step\":2,\"lo");
        fs::write(&path, text).unwrap();
        assert_eq!(steps(&run), [1]);
        metrics(&run, Part::Main, 2).append(&step(2)).unwrap();
        assert_eq!(steps(&run), [1, 2]);
    }

    #[test]
    fn the_newest_checkpoints_are_kept_and_a_half_written_one_is_none() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        let run = created(&path, &config()).unwrap();
        for step in [9, 10, 100, 200] {
            save(&run, step, 2).unwrap();
        }
        fs::create_dir(path.join("checkpoints/.partial-300")).unwrap();
        drop(run);
        let run = RunFolder::open(&path).unwrap();
        let found: Vec<_> = run.checkpoints().into_iter().map(|(step, _)| step).collect();
        assert_eq!(found, [100, 200]);
        assert!(!path.join("checkpoints/.partial-300").exists());
        save(&run, 150, 1).unwrap();
        assert!(run.checkpoints().iter().any(|(step, _)| *step == 150), "the one just written is never removed");

        let infinite = || Error::NonFinite { tensor: "w".into(), row: 1, step: Some(200) };
        let failed = run.save_checkpoint(
            200,
            &Record::default(),
            &["state.json"],
            &|_, out| {
                out.write_all(b"{")?;
                Err(io::Error::new(io::ErrorKind::InvalidData, infinite()))
            },
            1,
            None,
        );
        assert_eq!(failed.unwrap_err().to_string(), infinite().to_string(), "the engine's own error comes through");
        assert!(run.checkpoints().iter().any(|(step, _)| *step == 200), "and the one that was there before stays");
    }

    #[test]
    fn a_checkpoint_is_found_by_its_step_and_another_step_is_refused_with_those_there_are() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let refused = |step: u64| {
            let error = run.checkpoint(step).unwrap_err();
            assert!(error.is_bad_input());
            error.to_string()
        };
        assert!(refused(3).contains("--step 3: ") && refused(3).ends_with("there is none yet"), "{}", refused(3));
        save(&run, 4, 9).unwrap();
        assert!(refused(3).ends_with("there is one, of step 4"), "{}", refused(3));
        save(&run, 10, 9).unwrap();
        assert!(refused(3).ends_with("there are those of steps 4, 10"), "{}", refused(3));
        assert!(run.checkpoint(10).unwrap().ends_with("checkpoints/step-00000010"));
    }

    #[test]
    fn a_run_without_a_result_names_the_checkpoint_that_can_be_used_and_no_resume_that_fails_again() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let overflows = |step: u64| {
            let evaluations = Evaluations { overflowed: Some(step), ..Evaluations::default() };
            run.write_evaluations(Part::Main, &evaluations).unwrap();
            run.no_result()
        };
        let ends = |said: String, end: &str| assert!(said.ends_with(end), "{said}");
        ends(run.no_result(), "--resume");
        ends(overflows(3), "step 3, to which --resume comes again; begin a new run with a lower optim.learning_rate");
        fs::remove_file(run.path().join(EVALUATIONS)).unwrap();
        save(&run, 4, 9).unwrap();
        save(&run, 8, 9).unwrap();
        ends(run.no_result(), "--resume, or use its newest checkpoint with --step 8");
        for (step, before) in [(9, 8), (8, 4)] {
            ends(overflows(step), &format!("or use the checkpoint before that with --step {before}"));
        }
        // It was resumed elsewhere, and came beyond it.
        assert!(overflows(7).contains("go on with it: "), "{}", overflows(7));
    }

    #[test]
    fn a_damaged_line_is_named_and_the_others_stay() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let mut lines = metrics(&run, Part::Main, 0);
        (1..=5).for_each(|s| lines.append(&step(s)).unwrap());
        let written = lines.written();
        drop(lines);
        let path = run.path().join(METRICS);
        let text = fs::read(&path).unwrap();
        assert_eq!(run.metrics(Part::Main, 5, written).unwrap().1, [""; 0]);
        let damaged = |line: usize, with: &[u8]| {
            let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            lines[line - 1] = with;
            fs::write(&path, lines.concat()).unwrap();
        };
        damaged(2, b"{\"step\":2,\xff\n");
        let named = |warnings: Vec<String>| {
            assert!(warnings.len() == 1 && warnings[0].contains("metrics.jsonl, line 2: is damaged"), "{warnings:?}");
        };
        named(run.read_metrics(Part::Main).unwrap().1);
        assert_eq!(steps(&run), [1, 3, 4, 5]);
        named(run.metrics(Part::Main, 4, written).unwrap().1);
        assert_eq!(steps(&run), [1, 3, 4]);
        // Readable, and not what was written: a number was changed, or a line is missing.
        for with in [&b"{}"[..], b""] {
            damaged(2, if with.is_empty() { with } else { &text[..text.len() / 5] });
            let (_, warnings) = run.metrics(Part::Main, 5, written).unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains("metrics.jsonl"), "{warnings:?}");
        }
        let changed = String::from_utf8(text.clone()).unwrap().replace("\"loss\":0.5", "\"loss\":0.25");
        fs::write(&path, changed).unwrap();
        let (_, warnings) = run.metrics(Part::Main, 5, written).unwrap();
        assert!(warnings[0].contains("not what was written up to step 5"), "{warnings:?}");
    }

    /// Numbers that need all their digits, so that a reader which rounds is found out.
    #[test]
    fn what_was_measured_survives_its_file_to_the_bit_and_a_changed_record_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let mut state = 1_u64;
        let mut number = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f64::from_bits((state >> 12) | 0x3FF0_0000_0000_0000) * 10_f64.powi((state >> 58) as i32 - 32)
        };
        let mut record = Record::default();
        for step in 0..200 {
            let mut set = || Some(Evaluation { loss: number(), perplexity: number(), tokens: step });
            let evaluated = Evaluated { phase: Phase::During, step, target: set(), general: set(), wrong: set() };
            record.evaluations.record(&evaluated);
        }
        let mut landscape = Landscape::default();
        landscape.gate_sums.iter_mut().for_each(|sum| *sum = number());
        record.landscapes = Landscapes { before: Some(landscape), after: None };
        record.records = Some("question_answer".into());
        let path = run.save_checkpoint(3, &record, &[], &|_, _| Ok(()), 1, None).unwrap();
        assert_eq!(RunFolder::record(&path).unwrap(), record);

        let file = path.join(RECORD);
        let text = fs::read(&file).unwrap();
        let mut unchanged = 0;
        let places = (0..text.len()).step_by(997);
        for at in places.clone() {
            let mut other = text.clone();
            other[at] ^= 1;
            fs::write(&file, other).unwrap();
            match RunFolder::record(&path) {
                // The last of 17 digits can be another one of the same number.
                Ok(found) => {
                    assert_eq!(found, record, "byte {at}");
                    unchanged += 1;
                }
                Err(refused) => {
                    assert!(refused.is_bad_input() && refused.to_string().contains(RECORD), "byte {at}: {refused}");
                }
            }
        }
        assert!(unchanged * 20 < places.count(), "{unchanged}");
        let other =
            run.save_checkpoint(4, &Record::default(), &[STATE], &|_, out| out.write_all(b"{}"), 2, None).unwrap();
        fs::copy(other.join(RECORD), &file).unwrap();
        assert!(RunFolder::record(&path).unwrap_err().to_string().contains("belongs to another state.json"));
        fs::remove_file(&file).unwrap();
        assert!(RunFolder::record(&path).unwrap_err().to_string().contains("missing"));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_moved_or_removed_is_noticed_at_the_next_write_and_nothing_half_is_left() {
        let base = tempfile::tempdir().unwrap();
        let gone = |error: Error, what: &Path| {
            let message = error.to_string();
            assert!(!error.is_bad_input() && message.contains("is gone"), "{message}");
            assert!(message.starts_with(&what.display().to_string()), "{message}");
        };
        let summary = |run: &RunFolder| run.write_evaluations(Part::Main, &Evaluations::default());
        for (what, elsewhere) in [("", "moved"), (CHECKPOINTS, "moved-checkpoints"), (METRICS, "moved-metrics")] {
            let path = base.path().join(format!("run-{elsewhere}"));
            let elsewhere = base.path().join(elsewhere);
            let run = created(&path, &config()).unwrap();
            let mut lines = metrics(&run, Part::Main, 0);
            lines.append(&step(1)).unwrap();
            save(&run, 1, 1).unwrap();
            let moved = if what.is_empty() { path.clone() } else { path.join(what) };
            fs::rename(&moved, &elsewhere).unwrap();
            gone(lines.append(&step(2)).unwrap_err(), &moved);
            if what != METRICS {
                gone(summary(&run).unwrap_err(), &moved);
                gone(save(&run, 2, 1).unwrap_err(), &moved);
                assert!(!moved.exists(), "nothing is made anew where it was");
            }
            drop((lines, run));
            if what.is_empty() {
                let run = RunFolder::open(&elsewhere).unwrap();
                assert_eq!((steps(&run), run.checkpoints().len()), (vec![1], 1));
                let mut names: Vec<_> =
                    fs::read_dir(&elsewhere).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
                names.sort();
                assert_eq!(names, [LOCK, CHECKPOINTS, CONFIG, METRICS]);
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_half_written_when_a_folder_is_moved_is_cleared_away_where_it_is_now() {
        let base = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (base.path().join("a"), base.path().join("b"));
        let run = created(&path, &config()).unwrap();
        let failed = run.save_checkpoint(
            1,
            &Record::default(),
            &["one", "two"],
            &|name, out| {
                if name == "one" {
                    fs::rename(&path, &elsewhere)?;
                }
                out.write_all(b"x")
            },
            1,
            None,
        );
        assert!(failed.unwrap_err().to_string().contains("is gone"));
        drop(run);
        let left: Vec<_> = fs::read_dir(elsewhere.join(CHECKPOINTS)).unwrap().collect();
        assert!(left.is_empty() && !path.exists() && !elsewhere.join(LOCK).exists(), "{left:?}");
    }
}
