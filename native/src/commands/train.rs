//! `temper train`: a whole run, its baseline, and everything that is left in the run folder.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use temper_engine::config::{ArchitectureSource, Config, Init};
use temper_engine::data::{Document, ReadOptions, read_measured, read_set};
use temper_engine::eval::perplexity::first_tokens;
use temper_engine::host::Clock;
use temper_engine::loss::objective::Objective;
use temper_engine::model::architecture::{Architecture, SpecialTokens};
use temper_engine::model::files::ModelFiles;
use temper_engine::train::checkpoint::NamedFile;
use temper_engine::train::event::{Event, Finished, Started};
use temper_engine::train::prepare;
use temper_engine::train::result::{self, learned};
use temper_engine::train::run::{About, Checkpoints, Host, Learner, OTHER_DATA, Run, Sets};
use temper_engine::train::session::Session;
use temper_engine::{Device, Error, wait};

use crate::cli::{Global, TrainArgs};
use crate::files::OsFolder;
use crate::inputs::{DEMO_CONFIG, open_folder, open_model, read_data};
use crate::interrupt::{self, Interrupted};
use crate::memory;
use crate::output;
use crate::progress::{Progress, end_table};
use crate::report::{self, Report};
use crate::run_folder::{
    BaselineMeasured, Evaluations, Landscapes, Metrics, Part, Reserved, Retention, RunFolder, Summary,
};

/// Tokens of training documents that the entropy-by-probability map is drawn from.
const LANDSCAPE_TOKENS: usize = 16_384;
/// Runs the command.
pub fn run(args: TrainArgs, global: &Global) -> Result<()> {
    let (place, config) = open(&args, global)?;
    let (device, why) = Device::choose(Some(&config.run.device))?;
    let files = model_files(&config).with_context(|| format!("while opening the model {}", config.model.path))?;
    let tokenizer = files.tokenizer()?;
    let read = ReadOptions::of(&config.data);
    let train = read_data(&config.data.train)
        .and_then(|bytes| read_set(&config.data.train, &bytes, tokenizer, read))
        .context("while reading [data] train")?;
    say_what_was_read("train", &config.data.train, &train.records, &train.encoding);
    let context = files.architecture.context;
    // The other sets may look different from the training set: each is detected on its own.
    let measured = read.measured();
    let mut sets = [Vec::new(), Vec::new()];
    for (set, (name, path)) in sets.iter_mut().zip([("target", &config.data.target), ("general", &config.data.general)])
    {
        if let Some(path) = path {
            let data = read_data(path)
                .and_then(|bytes| read_measured(path, &bytes, tokenizer, context, measured))
                .with_context(|| format!("while reading [data] {name}"))?;
            say_what_was_read(name, path, &data.records, &data.encoding);
            *set = data.documents;
        }
    }
    let [target, general] = sets;
    if let Some(long) = train.documents.iter().find(|d| d.tokens.len() > context) {
        let problem =
            format!("{} tokens, but the model's context is {context}; lower [data] cutoff_length", long.tokens.len());
        return Err(Error::Record { file: config.data.train.clone(), line: long.line, problem }.into());
    }
    let landscape = first_tokens(&train.documents, LANDSCAPE_TOKENS).to_vec();
    let sets = Arc::new(Sets { target, general, landscape });
    let folder = place.folder();
    let job = Job { folder, config: &config, device: &device, why: &why, files: &files, sets };

    interrupt::listen();
    let run = job.prepare(&config.objective()?, Part::Main, train.documents.clone())?;
    // Everything that can be refused has been by now: a mistake leaves no folder behind.
    if let Place::New(reserved) = &place {
        reserved.begin(&config)?;
    }
    let main = job.train(run, Part::Main)?;
    let interrupted = || Interrupted { folder: folder.path().to_path_buf() };
    if main.finished.interrupted {
        return Err(interrupted().into());
    }
    let baseline = match config.baseline()? {
        Some(objective) => {
            say(&format!("\nbaseline   {} from the same start", method_name(&objective)));
            let trained = job.train(job.prepare(&objective, Part::Baseline, train.documents)?, Part::Baseline)?;
            if trained.finished.interrupted {
                return Err(interrupted().into());
            }
            Some((method_name(&objective), trained))
        }
        None => None,
    };
    job.finish(main, baseline)
}

/// Where a run is written.
enum Place {
    New(Reserved),
    Resumed(RunFolder),
}

impl Place {
    fn folder(&self) -> &RunFolder {
        match self {
            Self::New(reserved) => reserved.folder(),
            Self::Resumed(folder) => folder,
        }
    }
}

/// The run's folder and configuration.
fn open(args: &TrainArgs, global: &Global) -> Result<(Place, Config)> {
    let device = global.device.as_ref().map(|device| ("run.device".to_string(), device.clone()));
    if let (true, Some(out)) = (args.resume, &args.out) {
        let folder = RunFolder::open(out)?;
        let mut config = folder.config()?;
        if let Some(device) = device {
            config = config.with(&[device])?;
        }
        if args.config.is_some() {
            let given = read_config(args, vec![("run.device".into(), config.run.device.clone())])?;
            refuse_changes(&config, &given)?;
        } else {
            refuse_changes(&config, &config.with(&args.set)?)?;
        }
        return Ok((Place::Resumed(folder), config));
    }
    let config = read_config(args, device.into_iter().collect())?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => free_folder(args.config.as_deref()),
    };
    Ok((Place::New(RunFolder::reserve(&out)?), config))
}

/// A run goes on as it began: another value of anything but the device would make it another run.
fn refuse_changes(own: &Config, given: &Config) -> Result<()> {
    let (own, given) = (own.to_toml(), given.to_toml());
    let other = |from: &str, than: &str| from.lines().find(|line| !than.lines().any(|l| l == *line)).map(str::to_owned);
    let nothing = || "nothing".to_owned();
    if own == given {
        return Ok(());
    }
    let (had, has) = (other(&own, &given).unwrap_or_else(nothing), other(&given, &own).unwrap_or_else(nothing));
    let problem = format!(
        "--resume goes on with the run's own configuration, which has {had} and not {has}; leave out the file and --set, \
         or begin a new run in another folder"
    );
    Err(Error::Config { problems: vec![problem] }.into())
}

/// The configuration that the arguments ask for, with more overrides after theirs.
fn read_config(args: &TrainArgs, more: Vec<(String, String)>) -> Result<Config> {
    let mut overrides = args.set.clone();
    overrides.extend(more);
    let (text, name) = match &args.config {
        Some(path) => {
            let bytes = read_data(&path.display().to_string())?;
            let text = String::from_utf8(bytes).map_err(|_| Error::Format {
                file: path.display().to_string(),
                problem: "a configuration is UTF-8 text".into(),
            })?;
            (text, path.display().to_string())
        }
        None => (DEMO_CONFIG.to_string(), "the embedded configuration".to_string()),
    };
    Ok(Config::parse(&text, &name, &overrides)?)
}

/// `runs/<name of the configuration>`, or the first of `-2`, `-3` ... that does not exist yet.
fn free_folder(config: Option<&Path>) -> PathBuf {
    let stem = config.and_then(Path::file_stem).map_or("demo".into(), |s| s.to_string_lossy().into_owned());
    let first = Path::new("runs").join(&stem);
    let mut out = first.clone();
    let mut n = 2;
    while out.exists() {
        out = first.with_file_name(format!("{stem}-{n}"));
        n += 1;
    }
    out
}

fn model_files(config: &Config) -> temper_engine::Result<ModelFiles> {
    if config.model.init == Init::Pretrained {
        return open_model(&config.model.path);
    }
    let (bytes, file) = match &config.model.architecture {
        Some(ArchitectureSource::Path(path)) => (read_data(path)?, path.clone()),
        Some(ArchitectureSource::Inline(table)) => {
            let json = serde_json::to_vec(table).map_err(|e| Error::Config { problems: vec![e.to_string()] })?;
            (json, "[model] architecture".to_string())
        }
        None => {
            let path = Path::new(&config.model.path).join("config.json").display().to_string();
            (read_data(&path)?, path)
        }
    };
    let architecture = Architecture::from_config_json(&bytes, &file)?;
    let special = SpecialTokens::from_config_json(&bytes, &file)?;
    ModelFiles::random(architecture, special, open_folder(&config.model.path)?.as_ref())
}

/// What one training of a run left.
struct Trained {
    started: Started,
    finished: Finished,
    evaluations: Evaluations,
}

struct Job<'a> {
    folder: &'a RunFolder,
    config: &'a Config,
    device: &'a Device,
    why: &'a str,
    files: &'a ModelFiles,
    sets: Arc<Sets>,
}

impl Job<'_> {
    /// Everything up to the first step, from the last checkpoint where there is one. Writes nothing.
    fn prepare(&self, objective: &Objective, part: Part, documents: Vec<Document>) -> Result<Run> {
        let config = self.config;
        let base = prepare::base(config, self.files, self.device)?;
        let learner = Learner::new(config.clone(), objective, base)?;
        let about = About { why: self.why.into(), model: model_name(config, self.files) };
        let run = Run::new(vec![learner], documents, self.sets.clone(), about)?;
        Ok(match part {
            Part::Main => {
                let mut run = run;
                if let Some((_, path)) = self.folder.checkpoints().pop() {
                    run.resume(&OsFolder::open(&path)?).map_err(|error| match &error {
                        Error::Checkpoint { field, .. } if field == OTHER_DATA => error.into(),
                        _ => anyhow::Error::new(error).context(format!(
                            "while reading {}; without that folder, --resume takes the one before",
                            path.display()
                        )),
                    })?;
                }
                run
            }
            // A baseline is short and keeps no checkpoints; it starts again after an interruption. What it starts from has
            // been measured.
            Part::Baseline => run.without_start(),
        })
    }

    fn train(&self, mut run: Run, part: Part) -> Result<Trained> {
        let mut host = NativeHost {
            device: self.device,
            checkpoints: match part {
                Part::Main => Some(Kept { folder: self.folder, keep: self.config.run.keep }),
                Part::Baseline => None,
            },
            progress: Progress::new(),
            begin: Instant::now(),
        };
        let (_, done) = run.steps();
        let mut written = Written {
            folder: self.folder,
            part,
            metrics: self.folder.metrics(part, done)?,
            evaluations: self.folder.read_evaluations(part)?,
            landscapes: self.folder.read_landscapes(part)?,
        };
        let (mut started, mut finished) = (None, None);
        while let Some(event) = wait(run.next(&mut host))? {
            host.progress.event(&event);
            written.event(&event)?;
            match event {
                Event::Started { mut learners } => started = learners.pop(),
                Event::Finished(event) => finished = Some(event),
                _ => {}
            }
        }
        let (Some(started), Some(finished)) = (started, finished) else {
            unreachable!("every run starts and finishes")
        };
        if part == Part::Main && !finished.interrupted {
            self.save_result(run.learners()[0].session())?;
        }
        Ok(Trained { started, finished, evaluations: written.evaluations })
    }

    /// `adapter/` or `model/`: what other programs load.
    fn save_result(&self, session: &Session) -> Result<()> {
        let path = &self.config.model.path;
        let mut beside = |name: &str| read_data(&beside(path, name)).ok();
        let learned = wait(learned(&session.model, self.config, self.files, path, &mut beside))?;
        self.folder.write_result(learned.folder, &learned.files, |folder| match learned.weights {
            None => Ok(()),
            Some(weights) => {
                let mut out = BufWriter::with_capacity(1 << 20, File::create_new(folder.join(result::WEIGHTS))?);
                weights.write(&mut out)?;
                out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
            }
        })?;
        Ok(())
    }

    fn finish(&self, main: Trained, baseline: Option<(String, Trained)>) -> Result<()> {
        let metrics = self.folder.read_metrics(Part::Main)?;
        let retention = Retention {
            before: main.evaluations.before,
            after: main.evaluations.after,
            baseline: baseline
                .as_ref()
                .map(|(objective, t)| BaselineMeasured { objective: objective.clone(), after: t.evaluations.after }),
        };
        let speeds: Vec<f64> = metrics.iter().map(|m| m.tokens_per_second).collect();
        let summary = Summary {
            temper: env!("CARGO_PKG_VERSION").into(),
            started: main.started.clone(),
            finished: main.finished.clone(),
            seed: self.config.run.seed,
            tokens_per_second: speeds.iter().sum::<f64>() / speeds.len().max(1) as f64,
            peak_device_bytes: metrics.iter().map(|m| m.peak_device_bytes).max().unwrap_or(0),
            retention: retention.clone(),
        };
        self.folder.write_summary(&summary)?;
        let baseline_landscapes = self.folder.read_landscapes(Part::Baseline)?;
        let html = report::render(&Report {
            config: &self.config.to_toml(),
            summary: &summary,
            metrics: &metrics,
            baseline: &if baseline.is_some() { self.folder.read_metrics(Part::Baseline)? } else { Vec::new() },
            history: &main.evaluations.history,
            landscapes: &self.folder.read_landscapes(Part::Main)?,
            baseline_landscape: baseline_landscapes.after.as_ref(),
        })?;
        let path = self.folder.write_report(&html)?;
        output::text(&format!("\n{}\n", end_table(&main.started.objective, &retention)))?;
        output::text(&format!("report     {}\n", path.display()))
    }
}

fn beside(model: &str, name: &str) -> String {
    format!("{}/{name}", model.trim_end_matches('/'))
}

fn model_name(config: &Config, files: &ModelFiles) -> String {
    let arch = &files.architecture;
    format!(
        "{} ({}, {} layers, hidden {}, vocabulary {})",
        config.model.path, arch.family.model_type, arch.layers, arch.hidden, arch.vocab
    )
}

fn method_name(objective: &Objective) -> String {
    objective.method().to_string()
}

fn say_what_was_read(
    set: &str,
    path: &str,
    records: &temper_engine::data::Report,
    encoding: &temper_engine::data::EncodeReport,
) {
    let mut line = format!(
        "{set:<10} {path}: {} records ({}), {} documents, {} tokens, {} trained",
        records.records, records.kind, encoding.documents, encoding.tokens, encoding.trained_tokens
    );
    if encoding.truncated > 0 {
        line += &format!(", {} cut off at the end", encoding.truncated);
    }
    say(&line);
    let skipped = records.skipped + encoding.skipped;
    if skipped > 0 {
        let count = if skipped == 1 { "1 record was".to_string() } else { format!("{skipped} records were") };
        say(&format!("warning: {set}: {count} skipped, the first for these reasons:"));
        for problem in records.problems.iter().chain(&encoding.problems) {
            say(&format!("  {problem}"));
        }
    }
}

/// A line for people. A closed stderr is no reason to end a run.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// What a run leaves in its folder as it goes.
struct Written<'a> {
    folder: &'a RunFolder,
    part: Part,
    metrics: Metrics,
    evaluations: Evaluations,
    landscapes: Landscapes,
}

impl Written<'_> {
    fn event(&mut self, event: &Event) -> temper_engine::Result<()> {
        // The runs of the command have one learner.
        match event {
            Event::Step { learners } => learners.iter().try_for_each(|metrics| self.metrics.append(metrics)),
            Event::Evaluated { learners } => {
                learners.iter().for_each(|evaluated| self.evaluations.record(evaluated));
                self.folder.write_evaluations(self.part, &self.evaluations)
            }
            Event::Landscape { phase, learners } => {
                learners.iter().for_each(|landscape| self.landscapes.record(*phase, landscape));
                self.folder.write_landscapes(self.part, &self.landscapes)
            }
            _ => Ok(()),
        }
    }
}

struct NativeHost<'a> {
    device: &'a Device,
    checkpoints: Option<Kept<'a>>,
    progress: Progress,
    begin: Instant,
}

/// The newest checkpoints of a run.
struct Kept<'a> {
    folder: &'a RunFolder,
    keep: usize,
}

impl Checkpoints for Kept<'_> {
    fn save(&mut self, step: u64, files: Vec<NamedFile>) -> temper_engine::Result<String> {
        self.folder.save_checkpoint(step, &files, self.keep).map(|path| path.display().to_string())
    }
}

impl Clock for NativeHost<'_> {
    fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}

impl Host for NativeHost<'_> {
    fn checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        self.checkpoints.as_mut().map(|kept| kept as &mut dyn Checkpoints)
    }

    fn peak_bytes(&self) -> u64 {
        self.device.reserved_bytes().unwrap_or_else(memory::peak_resident_bytes)
    }

    fn stop_requested(&self) -> bool {
        interrupt::requested()
    }

    fn evaluating(&mut self, what: &str, done: usize, of: usize) {
        self.progress.evaluating(what, done, of);
    }
}
