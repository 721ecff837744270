//! The folder of a run and everything in it.
//!
//! ```text
//! config.toml      resolved configuration
//! metrics.jsonl    a line a logged step
//! summary.json     what came out, written at the end (and `retention` within it)
//! landscape.json   entropy-by-probability maps before and after
//! checkpoints/     step-00000100/ ...: complete or absent, the newest few kept
//! adapter/ or model/
//! baseline/        metrics.jsonl and landscape.json of the baseline, where one was trained
//! report.html
//! ```
//!
//! A killed process at any moment leaves a folder that `--resume` goes on with, or that counts as empty. One process writes a
//! run at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use temper_engine::events::{Evaluated, Finished, Landscape, Phase, Started, StepMetrics};
use temper_engine::{Config, Error, Evaluation, Result};

use crate::files::{io_error, is_partial, remove_partial, write_atomically, write_folder_with, write_new};
use crate::memory::Memory;

/// Locked by the process that writes the run, whose number it holds.
const LOCK: &str = ".lock";
const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
const SUMMARY: &str = "summary.json";
const EVALUATIONS: &str = "evaluations.json";
const LANDSCAPE: &str = "landscape.json";
const CHECKPOINTS: &str = "checkpoints";
const REPORT: &str = "report.html";

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
    /// All tokens through the model per second, mean over the logged steps; 0 where none was logged.
    pub tokens_per_second: f64,
    /// Highest device memory, in bytes; 0 where the device does not say.
    pub peak_device_bytes: u64,
    /// Where the memory goes.
    #[serde(default)]
    pub memory: Memory,
    /// Loss on the target set and on the general set.
    pub retention: Retention,
    /// What the run warned of, its baseline's last.
    #[serde(default)]
    pub warnings: Vec<String>,
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

/// The two sets at one moment; none where the set is not configured or was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was trained for.
    pub target: Option<Evaluation>,
    /// What should not be forgotten.
    pub general: Option<Evaluation>,
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

/// `evaluations.json`: what was measured so far, kept because a resumed run does not measure the start again.
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
}

impl Evaluations {
    /// Keeps an evaluation; one that a resumed run repeats replaces the first.
    pub fn record(&mut self, evaluated: &Evaluated) {
        let measured = Measured { target: evaluated.target, general: evaluated.general };
        match evaluated.phase {
            Phase::Before => self.before = measured,
            Phase::During => {}
            Phase::After => self.after = measured,
        }
        self.history.retain(|e| e.step != evaluated.step || e.phase != evaluated.phase);
        self.history.push(evaluated.clone());
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
        let existed = path.exists();
        match fs::read_dir(path).map(|mut entries| entries.all(ours)) {
            Ok(false) => return Err(refuse("is not empty; choose an empty folder or one that does not exist yet")),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(refuse("is not a folder")),
            _ => {}
        }
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(|error| io_error(&checkpoints, &error))?;
        let run = Self { path: path.to_path_buf(), lock: Some(lock(path)?) };
        // Another process may have begun and ended between the look and the lock.
        if path.join(CONFIG).exists() {
            return Err(refuse("already holds a run; go on with it (--resume) or choose another folder"));
        }
        [path, &checkpoints].into_iter().for_each(remove_partial);
        Ok(Reserved { run, existed })
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
    /// [`Error::Config`] where it holds no run, or another process is writing it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join(CONFIG).is_file() {
            let problem = format!("{}: holds no run to go on with ({CONFIG} is missing)", path.display());
            return Err(Error::Config { problems: vec![problem] });
        }
        let run = Self { path: path.to_path_buf(), lock: Some(lock(path)?) };
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
    /// [`Error::Io`], or [`Error::Config`] where someone edited it into something invalid.
    pub fn config(&self) -> Result<Config> {
        let path = self.path.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|error| io_error(&path, &error))?;
        Config::parse(&text, &path.display().to_string(), &[])
    }

    fn part(&self, part: Part) -> PathBuf {
        match part {
            Part::Main => self.path.clone(),
            Part::Baseline => self.path.join("baseline"),
        }
    }

    /// Opens `metrics.jsonl` for appending. Lines of steps after `done` are dropped first: a run that is resumed from a
    /// checkpoint does those steps again, and no step may be in the file twice. A new run has `done` 0.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn metrics(&self, part: Part, done: u64) -> Result<Metrics> {
        let folder = self.part(part);
        fs::create_dir_all(&folder).map_err(|error| io_error(&folder, &error))?;
        let path = folder.join(METRICS);
        let attempt = || -> io::Result<File> {
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            let keep = kept_length(&text, done);
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            if keep < text.len() as u64 {
                file.set_len(keep)?;
            }
            Ok(file)
        };
        let file = attempt().map_err(|error| io_error(&path, &error))?;
        Ok(Metrics { file, path })
    }

    /// All lines of `metrics.jsonl`; an incomplete last line, which a killed process can leave, is left out.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for any other line that is not a step.
    pub fn read_metrics(&self, part: Part) -> Result<Vec<StepMetrics>> {
        let path = self.part(part).join(METRICS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error(&path, &error)),
        };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|error| Error::Format {
                    file: path.display().to_string(),
                    problem: format!("line {}: {error}", index + 1),
                })
            })
            .collect()
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_summary(&self, summary: &Summary) -> Result<()> {
        write_atomically(&self.path.join(SUMMARY), |w| {
            serde_json::to_writer_pretty(&mut *w, summary)?;
            w.write_all(b"\n")
        })
    }

    /// Writes `evaluations.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_evaluations(&self, part: Part, evaluations: &Evaluations) -> Result<()> {
        write_atomically(&self.part(part).join(EVALUATIONS), |w| {
            serde_json::to_writer_pretty(&mut *w, evaluations)?;
            w.write_all(b"\n")
        })
    }

    /// Reads `evaluations.json`; nothing measured where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`].
    pub fn read_evaluations(&self, part: Part) -> Result<Evaluations> {
        Ok(read_json(&self.part(part).join(EVALUATIONS))?.unwrap_or_default())
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
        write_folder_with(&self.path.join(name), files, fill)
    }

    /// Writes `landscape.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_landscapes(&self, part: Part, landscapes: &Landscapes) -> Result<()> {
        let folder = self.part(part);
        fs::create_dir_all(&folder).map_err(|error| io_error(&folder, &error))?;
        write_atomically(&folder.join(LANDSCAPE), |w| Ok(serde_json::to_writer(w, landscapes)?))
    }

    /// Reads `landscape.json`; empty where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`].
    pub fn read_landscapes(&self, part: Part) -> Result<Landscapes> {
        Ok(read_json(&self.part(part).join(LANDSCAPE))?.unwrap_or_default())
    }

    /// Writes `report.html` and says where it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_report(&self, html: &str) -> Result<PathBuf> {
        let path = self.path.join(REPORT);
        write_atomically(&path, |w| w.write_all(html.as_bytes()))?;
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

    /// Writes a checkpoint, complete or not at all, and then removes all but the newest `keep` (at least this one). `write`
    /// gives the contents of each of `files`, which may be too large to be held in memory.
    ///
    /// # Errors
    /// [`Error::Io`], and those of `write`; every older checkpoint is intact then.
    pub fn save_checkpoint(
        &self,
        step: u64,
        files: &[&str],
        write: &dyn Fn(&str, &mut dyn Write) -> io::Result<()>,
        keep: usize,
    ) -> Result<PathBuf> {
        let folder = self.checkpoints_path();
        fs::create_dir_all(&folder).map_err(|error| io_error(&folder, &error))?;
        let path = folder.join(format!("step-{step:08}"));
        write_folder_with(&path, &[], |folder| {
            files.iter().try_for_each(|name| write_new(&folder.join(name), |out| write(name, out)))
        })?;
        let all = self.checkpoints();
        let old = all.len().saturating_sub(keep.max(1));
        for (_, path) in all.iter().take(old).filter(|(other, _)| *other != step) {
            fs::remove_dir_all(path).map_err(|error| io_error(path, &error))?;
        }
        Ok(path)
    }
}

/// The folder of a run that has not begun. Dropped like that, it leaves no trace, so that the same command works once what
/// was wrong with it is mended.
#[derive(Debug)]
pub struct Reserved {
    run: RunFolder,
    /// The folder was there before.
    existed: bool,
}

impl Reserved {
    /// The folder.
    pub fn folder(&self) -> &RunFolder {
        &self.run
    }

    /// Writes the resolved configuration, which makes the folder that of a run.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(&self, config: &Config) -> Result<()> {
        write_atomically(&self.run.path.join(CONFIG), |w| w.write_all(config.to_toml().as_bytes()))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.run.path.join(CONFIG).exists() {
            return;
        }
        // Neither folder is removed if it holds something.
        // Its file is in the way.
        drop(self.run.lock.take());
        let _ = fs::remove_dir(self.run.checkpoints_path());
        if !self.existed {
            let _ = fs::remove_dir(&self.run.path);
        }
    }
}

/// The lock of a run's folder. Its file goes with it; a killed process leaves the file, which then locks nothing.
#[derive(Debug)]
struct Lock {
    _file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes a run's folder for this process, until its last handle is dropped or the process ends, however it ends.
///
/// # Errors
/// [`Error::Config`] naming the process that has it; [`Error::Io`].
fn lock(folder: &Path) -> Result<Arc<Lock>> {
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
                    "{}: {holder} is writing this run; let it end first, or choose another folder with --out",
                    folder.display()
                );
                return Err(Error::Config { problems: vec![problem] });
            }
            // Some network file systems have no locks: nothing can be promised there, as before.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Arc::new(Lock { _file: file, path }));
            }
            Err(TryLockError::Error(error)) => return Err(io_error(&path, &error)),
        }
        // A process that ends removes its lock's file: one that was opened before that is nobody's.
        if !is_at(&file, &path) {
            continue;
        }
        let said = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        said.map_err(|error| io_error(&path, &error))?;
        return Ok(Arc::new(Lock { _file: file, path }));
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |data: fs::Metadata| (data.dev(), data.ino());
    file.metadata().map(place).ok() == fs::metadata(path).map(place).ok()
}

/// Elsewhere a file that is open cannot be removed.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

/// Length of the leading lines that are whole, readable, and of steps up to `done`.
fn kept_length(text: &[u8], done: u64) -> u64 {
    #[derive(Deserialize)]
    struct Step {
        step: u64,
    }
    let kept = text
        .split_inclusive(|byte| *byte == b'\n')
        .take_while(|line| line.ends_with(b"\n") && serde_json::from_slice::<Step>(line).is_ok_and(|s| s.step <= done));
    kept.map(<[u8]>::len).sum::<usize>() as u64
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::Format { file: path.display().to_string(), problem: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, &error)),
    }
}

/// `metrics.jsonl`, open for appending.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    path: PathBuf,
}

impl Metrics {
    /// Appends a line, in one write, so that a reader never sees half of one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let attempt = || -> io::Result<()> {
            let mut line = serde_json::to_vec(metrics)?;
            line.push(b'\n');
            (&self.file).write_all(&line)
        };
        attempt().map_err(|error| io_error(&self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "x", &[]).unwrap()
    }

    fn created(path: &Path, config: &Config) -> Result<RunFolder> {
        let reserved = RunFolder::reserve(path)?;
        reserved.begin(config)?;
        Ok(reserved.folder().clone())
    }

    fn step(step: u64) -> StepMetrics {
        StepMetrics { step, loss: 1.0 / step as f64, ..StepMetrics::default() }
    }

    fn steps(run: &RunFolder) -> Vec<u64> {
        run.read_metrics(Part::Main).unwrap().iter().map(|m| m.step).collect()
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
        reserved.begin(&config()).unwrap();
        taken(RunFolder::open(&path));
        assert!(RunFolder::look_into(&path).is_ok(), "who only reads need not wait");
        drop(reserved);
        let first = RunFolder::open(&path).unwrap();
        taken(RunFolder::open(&path));
        drop(first);
        assert!(RunFolder::open(&path).is_ok());
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
        let mut metrics = run.metrics(Part::Main, 0).unwrap();
        (1..=5).for_each(|s| metrics.append(&step(s)).unwrap());
        drop(metrics);
        let mut metrics = run.metrics(Part::Main, 3).unwrap();
        metrics.append(&step(4)).unwrap();
        assert_eq!(steps(&run), [1, 2, 3, 4]);
        run.metrics(Part::Baseline, 0).unwrap().append(&step(1)).unwrap();
        assert_eq!(steps(&run), [1, 2, 3, 4], "the baseline has its own file");
    }

    #[test]
    fn a_line_cut_short_by_a_kill_is_neither_read_nor_appended_to() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        run.metrics(Part::Main, 0).unwrap().append(&step(1)).unwrap();
        let path = run.path().join(METRICS);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"step\":2,\"lo");
        fs::write(&path, text).unwrap();
        assert_eq!(steps(&run), [1]);
        run.metrics(Part::Main, 2).unwrap().append(&step(2)).unwrap();
        assert_eq!(steps(&run), [1, 2]);
    }

    #[test]
    fn the_newest_checkpoints_are_kept_and_a_half_written_one_is_none() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        let run = created(&path, &config()).unwrap();
        for step in [9, 10, 100, 200] {
            run.save_checkpoint(step, &["state.json"], &|_, out| out.write_all(b"{}"), 2).unwrap();
        }
        fs::create_dir(path.join("checkpoints/.partial-300")).unwrap();
        drop(run);
        let run = RunFolder::open(&path).unwrap();
        let found: Vec<_> = run.checkpoints().into_iter().map(|(step, _)| step).collect();
        assert_eq!(found, [100, 200]);
        assert!(!path.join("checkpoints/.partial-300").exists());
        run.save_checkpoint(150, &["state.json"], &|_, out| out.write_all(b"{}"), 1).unwrap();
        assert!(run.checkpoints().iter().any(|(step, _)| *step == 150), "the one just written is never removed");

        let infinite = || Error::NonFinite { tensor: "w".into(), row: 1, step: Some(200) };
        let failed = run.save_checkpoint(
            200,
            &["state.json"],
            &|_, out| {
                out.write_all(b"{")?;
                Err(io::Error::new(io::ErrorKind::InvalidData, infinite()))
            },
            1,
        );
        assert_eq!(failed.unwrap_err().to_string(), infinite().to_string(), "the engine's own error comes through");
        assert!(run.checkpoints().iter().any(|(step, _)| *step == 200), "and the one that was there before stays");
    }

    #[test]
    fn landscapes_read_back() {
        let base = tempfile::tempdir().unwrap();
        let run = created(&base.path().join("a"), &config()).unwrap();
        let landscapes = Landscapes { before: Some(Landscape::default()), after: None };
        run.write_landscapes(Part::Baseline, &landscapes).unwrap();
        assert_eq!(run.read_landscapes(Part::Baseline).unwrap(), landscapes);
        assert_eq!(run.read_landscapes(Part::Main).unwrap(), Landscapes::default());
        fs::write(run.path().join(LANDSCAPE), "{").unwrap();
        assert!(matches!(run.read_landscapes(Part::Main), Err(Error::Format { .. })));
    }
}
