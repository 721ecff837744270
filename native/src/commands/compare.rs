//! `temper compare`: a run for each point of a grid, each a process of its own, and a report on all of them.
//!
//! Everything is in one folder, which one process writes at a time, and the same command goes on with what is there: finished
//! runs are kept, a run that was interrupted is resumed, and new values of a setting only add runs.
//!
//! ```text
//! compare.toml      what all runs share
//! files.json        what each is made of
//! runs/NAME/        a run's folder
//! logs/NAME.log     what it said
//! report.html, report.md, frontier.svg, comparison.json, paths.csv
//! ```

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use temper_engine::running::HEAD;
use temper_engine::words::counted;
use temper_engine::{Config, Error};

use crate::cli::{CompareArgs, Global};
use crate::comparison::frontier::Path as RunPath;
use crate::comparison::made_of::{self, Known, MadeOf};
use crate::comparison::report::{self, Done, PICTURE, Rendered};
use crate::comparison::{Grid, Point};
use crate::files::{io_error, write_atomically};
use crate::inputs::read_configuration;
use crate::interrupt::{self, Interrupted};
use crate::output;
use crate::progress::{bar_style, duration};
use crate::run_config::{ADAPTER_FROM, OTHER_HEAD, RunConfig};
use crate::run_folder::{self, Part, RunFolder, Taken};
use crate::settings::refuse_other_files;

const SHARED: &str = "compare.toml";
const RUNS: &str = "runs";
const LOGS: &str = "logs";
const REPORT: &str = "report.html";
/// How often it is asked whether a run has ended, and, where somebody sees it, how far the run is.
const LOOK: Duration = Duration::from_millis(250);
const SHOWN: Duration = Duration::from_secs(2);
/// What a process exits with that was stopped as asked.
const STOPPED: i32 = 130;
/// And that was given what it cannot use.
const REFUSED: i32 = 2;
/// What a run's own account of why it failed begins with.
const FAILED: &str = "temper: error: ";
/// So much of what it said last is repeated where it gave none.
const LAST_LINES: usize = 3;

/// Runs the command.
pub fn run(args: &CompareArgs, global: &Global) -> Result<()> {
    let file = args.config.display().to_string();
    refuse_other_files(&args.config)?;
    let text = String::from_utf8(read_configuration(&file)?).with_context(|| format!("{file}: is no UTF-8 text"))?;
    let mut set = args.set.clone();
    if let Some(device) = &global.device {
        set.push(("run.device".into(), device.clone()));
    }
    let grid = Grid::of(&text, &file, &set, &args.vary)?;
    if let Some(warning) = grid.warning() {
        // A closed stderr is no reason to train nothing.
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    if args.dry_run {
        let line = |point: &Point| {
            let set = point.set.iter().map(|(key, value)| format!(" --set {key}={value}")).collect::<String>();
            format!("{}{set}\n", point.name)
        };
        return output::text(&grid.points.iter().map(line).collect::<String>());
    }
    let name = args.config.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    let name = name.rsplit(':').next().unwrap_or(&name).to_string();
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("compare-{name}")));
    let folder = Folder::open(&out, &grid)?;
    let (mut begun_with, mut known) = (MadeOf::open(&folder.path)?, Known::default());
    if !begun_with.is_empty() {
        let configs: Vec<Config> = grid.points.iter().map(resolved).collect::<Result<_>>()?;
        begun_with.refuse_other(&known.now(&configs), &folder.runs())?;
    }
    interrupt::listen();

    let bar = Bar::new(&grid);
    let mut done: Vec<Option<Done>> =
        grid.points.iter().map(|point| folder.done(&grid, point)).collect::<Result<_>>()?;
    let mut begun = Begun::default();
    for run in done.iter().flatten() {
        begun.add(&folder, run.point)?;
    }
    let (mut failed, mut refused) = (Vec::new(), 0);
    for (index, point) in grid.points.iter().enumerate() {
        if done[index].is_none() {
            // The files may have changed while the runs before it were trained.
            let files = known.now([&resolved(point)?]);
            begun_with.refuse_other(&files, &folder.runs())?;
            if RunFolder::look_into(&folder.run(point)).is_err() {
                begun_with.begin(&point.name, files)?;
            }
            match folder.train(&grid, point, &bar, index)? {
                Ended::Well(run) => {
                    begun.add(&folder, point)?;
                    done[index] = Some(*run);
                }
                Ended::Stopped => {
                    bar.clear();
                    folder.report(&name, &grid, &done)?;
                    let finished = done.iter().flatten().count();
                    let again = format!("the same command (done: {finished} of {})", counted(grid.points.len(), "run"));
                    return Err(Interrupted { again }.into());
                }
                Ended::Badly(code, why) => {
                    refused += usize::from(code == Some(REFUSED));
                    bar.line(&format!("{} failed: {why}", point.name));
                    failed.push(point.name.as_str());
                    continue;
                }
            }
            folder.report(&name, &grid, &done)?;
        }
        bar.at(index + 1, point, 0);
    }
    bar.clear();
    let runs = counted(grid.points.len(), "run");
    let problem = format!("{} of {runs} failed: {}", failed.len(), failed.join(", "));
    // Nothing was trained, for what was given.
    if refused == grid.points.len() {
        folder.leave_nothing();
        return Err(Error::Config { problems: vec![problem] }.into());
    }
    let (answer, path) = folder.report(&name, &grid, &done)?;
    output::text(&format!("{answer}\nreport     {}\n", path.display()))?;
    if failed.is_empty() { Ok(()) } else { bail!(problem) }
}

/// A run's configuration.
fn resolved(point: &Point) -> Result<Config> {
    Ok(Config::parse(&point.config, &point.name, &[])?)
}

/// What the runs began with: only those of the same model and the same data are compared.
#[derive(Default)]
struct Begun(Vec<(String, RunConfig)>);

impl Begun {
    /// Another run.
    ///
    /// # Errors
    /// [`Error::Config`] where its files are not those that another run of the same configuration read.
    fn add(&mut self, folder: &Folder, point: &Point) -> Result<()> {
        // One of before there were digests tells nothing.
        let Ok(run) = RunFolder::look_into(&folder.run(point)).and_then(|run| run.run_config()) else { return Ok(()) };
        for (name, other) in &self.0 {
            let (one, two) = (&run.config, &other.config);
            if one.model != two.model || one.data != two.data {
                continue;
            }
            let seeds = one.run.seed == two.run.seed;
            let differs = |(what, digest): (&String, _)| {
                // The order of what is trained depends on the seed.
                (what != "train" || seeds)
                    && (what != ADAPTER_FROM || one.adapter.from == two.adapter.from)
                    && other.origin.get(what).is_some_and(|other| other != digest)
            };
            let heads = [&run, other].map(|run| run.origin.contains_key(HEAD));
            if one.run.storage == two.run.storage && one.adapter.kind == two.adapter.kind && heads[0] != heads[1] {
                let problem = format!("{} and {name}: {OTHER_HEAD}; remove the older one", folder.run(point).display());
                return Err(Error::Config { problems: vec![problem] }.into());
            }
            if let Some((what, _)) = run.origin.iter().find(|one| differs(*one)) {
                let problem = format!(
                    "{}: began with another {what} than {name}: the files have changed in between; give --out another folder, \
                     or remove the folder of the run that is of other files than there are now",
                    folder.run(point).display()
                );
                return Err(Error::Config { problems: vec![problem] }.into());
            }
        }
        self.0.push((point.name.clone(), run));
        Ok(())
    }
}

/// How a run's process ended.
enum Ended<'a> {
    Well(Box<Done<'a>>),
    Stopped,
    /// With its exit code, and what it said.
    Badly(Option<i32>, String),
}

/// A comparison's folder, which this process has.
struct Folder {
    path: PathBuf,
    /// Nothing was in it.
    is_new: bool,
    _taken: Taken,
}

impl Folder {
    /// A new one, or one that holds runs of the same configuration.
    fn open(path: &Path, grid: &Grid) -> Result<Self> {
        let own = grid.base.to_toml();
        // What is in another's folder is not touched.
        is_new(path, &own)?;
        let taken = run_folder::take(path)?;
        // Another process may have begun and ended between the look and the lock.
        let is_new = is_new(path, &own)?;
        if is_new {
            write_atomically(&path.join(SHARED), |w| w.write_all(own.as_bytes()))?;
        }
        for inner in [RUNS, LOGS] {
            let inner = path.join(inner);
            fs::create_dir_all(&inner).map_err(|error| io_error(&inner, &error))?;
        }
        Ok(Self { path: path.to_path_buf(), is_new, _taken: taken })
    }

    /// Takes away what a new comparison wrote of which no run began, so that the folder is as it was.
    fn leave_nothing(&self) {
        // One of runs that holds something stays, and so does all else.
        if self.is_new && fs::remove_dir(self.runs()).is_ok() {
            let _ = fs::remove_dir_all(self.path.join(LOGS));
            for file in [SHARED, made_of::FILES] {
                let _ = fs::remove_file(self.path.join(file));
            }
        }
    }

    /// Where its runs are.
    fn runs(&self) -> PathBuf {
        self.path.join(RUNS)
    }

    fn run(&self, point: &Point) -> PathBuf {
        self.runs().join(&point.name)
    }

    /// A run that came to its end.
    ///
    /// # Errors
    /// Where there is one of this name with other settings.
    fn done<'a>(&self, grid: &Grid, point: &'a Point) -> Result<Option<Done<'a>>> {
        let Ok(folder) = RunFolder::look_into(&self.run(point)) else { return Ok(None) };
        if folder.config()?.to_toml() != point.config {
            let problem = format!(
                "{}: holds a run with other settings than {} has now; give the variant another name, or remove that folder",
                folder.path().display(),
                point.name
            );
            return Err(Error::Config { problems: vec![problem] }.into());
        }
        let Some(summary) = folder.summary()?.filter(|summary| !summary.finished.interrupted) else { return Ok(None) };
        let history = folder.evaluations()?.history;
        let (seed, setting) = (point.seed.clone(), point.setting.clone());
        let path = RunPath {
            variant: point.variant,
            seed,
            setting,
            points: history.iter().filter_map(|e| grid.measure.point(e)).collect(),
        };
        let metrics = folder.read_metrics(Part::Main)?.0;
        Ok(Some(Done { point, path, history, metrics, summary, landscapes: folder.landscapes()? }))
    }

    /// Trains a point, from where it was interrupted, while `before` runs are done.
    fn train<'a>(&self, grid: &Grid, point: &'a Point, bar: &Bar, before: usize) -> Result<Ended<'a>> {
        let (run, log) = (self.run(point), self.path.join(LOGS).join(format!("{}.log", point.name)));
        let mut command = Command::new(this_program()?);
        command.arg("train").arg("--out").arg(&run);
        if RunFolder::look_into(&run).is_ok() {
            command.arg("--resume");
        } else {
            command.arg(self.path.join(SHARED));
            point.set.iter().for_each(|(key, value)| {
                command.arg("--set").arg(format!("{key}={value}"));
            });
        }
        let out = File::options().create(true).append(true).open(&log).map_err(|error| io_error(&log, &error))?;
        let err = out.try_clone().map_err(|error| io_error(&log, &error))?;
        // What it said when it was tried before is no news.
        let before_it = out.metadata().map_err(|error| io_error(&log, &error))?.len() as usize;
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().context("starting a run")?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if interrupt::requested() {
                stop(&mut child);
            }
            if bar.wants_to_know()
                && let Ok((steps, _)) = RunFolder::look_into(&run).and_then(|folder| folder.read_metrics(Part::Main))
            {
                bar.at(before, point, steps.last().map_or(0, |step| step.step));
            }
            sleep(LOOK);
        };
        Ok(match status.code() {
            Some(0) => match self.done(grid, point)? {
                Some(run) => Ended::Well(Box::new(run)),
                None => Ended::Badly(Some(0), format!("it left no result; see {}", log.display())),
            },
            _ if interrupt::requested() => Ended::Stopped,
            Some(STOPPED) => Ended::Stopped,
            code => {
                let said = fs::read(&log).unwrap_or_default();
                let why = why_it_failed(&String::from_utf8_lossy(said.get(before_it..).unwrap_or_default()));
                // What is refused says all there is to know, and its log may go.
                let log = if code == Some(REFUSED) { String::new() } else { format!(" ({})", log.display()) };
                Ended::Badly(code, format!("{why}{log}"))
            }
        })
    }

    /// Writes the report on what is done, and gives it in words with its path.
    fn report(&self, name: &str, grid: &Grid, done: &[Option<Done>]) -> Result<(String, PathBuf)> {
        let done: Vec<&Done> = done.iter().flatten().collect();
        let Rendered { answer, html, markdown, picture, paths, numbers } =
            report::render(&format!("Comparison: {name}"), grid, &done)?;
        let numbers = serde_json::to_string_pretty(&numbers)? + "\n";
        let files = [("comparison.json", numbers), ("paths.csv", paths), ("report.md", markdown), (REPORT, html)];
        for (file, text) in files.into_iter().chain(picture.map(|svg| (PICTURE, svg))) {
            write_atomically(&self.path.join(file), |w| w.write_all(text.as_bytes()))?;
        }
        Ok((answer, self.path.join(REPORT)))
    }
}

/// Whether nothing is in a folder yet, or a comparison whose runs share these settings.
///
/// # Errors
/// [`Error::Config`] where it holds anything else.
fn is_new(path: &Path, shared: &str) -> Result<bool> {
    let refuse = |problem: &str| Error::Config { problems: vec![format!("--out {}: {problem}", path.display())] };
    match fs::read_to_string(path.join(SHARED)) {
        // As it is understood: a key that came later has its default.
        Ok(there) if Config::parse(&there, SHARED, &[]).is_ok_and(|there| there.to_toml() == shared) => Ok(false),
        Ok(_) => Err(refuse("holds a comparison whose runs share other settings; choose another folder").into()),
        Err(_) if run_folder::is_unused(path) => Ok(true),
        Err(_) => Err(refuse("is not empty; choose an empty folder or one that does not exist yet").into()),
    }
}

/// Of all that a run said its own account of why it failed, or, where it was ended without one, its last lines.
fn why_it_failed(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let account = lines.iter().rposition(|line| line.starts_with(FAILED));
    let begin = account.unwrap_or(lines.len().saturating_sub(LAST_LINES));
    lines[begin..].join("; ").trim_start_matches(FAILED).to_string()
}

/// This very program: on Linux also where its file was replaced meanwhile, so that all runs are of one version.
fn this_program() -> Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() {
        return Ok(running);
    }
    std::env::current_exe().context("finding this program")
}

/// Asks a run to save and stop, and waits until it has, which may take a step. From a terminal Ctrl-C reaches it as well, and
/// is another signal than this one: two of a kind would end it at once.
fn stop(child: &mut Child) {
    #[cfg(unix)]
    // SAFETY: sends a signal to a process that was not waited for, so that its number is no other's.
    unsafe {
        libc::kill(child.id() as libc::pid_t, libc::SIGTERM)
    };
    let _ = child.wait();
}

/// How far the comparison is.
struct Bar {
    bar: Option<ProgressBar>,
    runs: usize,
    /// Steps of a run, where they are known.
    steps: Option<u64>,
    begin: Instant,
    /// Runs that were done when it began.
    first: Cell<Option<f64>>,
    shown: Cell<Option<Instant>>,
}

impl Bar {
    fn new(grid: &Grid) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            ProgressBar::new(1000 * grid.points.len() as u64).with_style(bar_style(" compare [{bar:28}] {msg}"))
        });
        let (runs, steps) = (grid.points.len(), grid.base.run.steps);
        Self { bar, runs, steps, begin: Instant::now(), first: Cell::default(), shown: Cell::default() }
    }

    /// True where somebody sees it, and has seen nothing new for a while.
    fn wants_to_know(&self) -> bool {
        self.bar.is_some() && self.shown.get().is_none_or(|shown| shown.elapsed() >= SHOWN)
    }

    /// So many runs are done, and so many steps of the one under way.
    fn at(&self, runs: usize, point: &Point, step: u64) {
        let Some(bar) = &self.bar else { return };
        self.shown.set(Some(Instant::now()));
        let part = self.steps.map_or(0.0, |steps| step as f64 / steps.max(1) as f64);
        let done = runs as f64 + part.min(1.0);
        let first = self.first.get().unwrap_or(done);
        self.first.set(Some(first));
        let left = match done - first {
            made if made > 0.02 => {
                let pace = self.begin.elapsed().as_secs_f64() / made;
                format!("  {} left", duration(pace * (self.runs as f64 - done)))
            }
            _ => String::new(),
        };
        bar.set_position((1000.0 * done) as u64);
        bar.set_message(format!(
            "run {} of {}: {}, step {step}{left}",
            (runs + 1).min(self.runs),
            self.runs,
            point.name
        ));
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(io::stderr(), "{text}");
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_failed_run_said_only_its_own_account_is_repeated() {
        let said = "before     target perplexity 9\nstep 1/20\ntemper: error: gradient of x: not finite\nat step 1\n";
        assert_eq!(why_it_failed(said), "gradient of x: not finite; at step 1");
        assert_eq!(why_it_failed("a\nb\nc\nd\n"), "b; c; d");
        assert_eq!(why_it_failed(""), "");
    }
}
