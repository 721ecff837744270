//! `temper train`: a whole run, its baseline, and everything that is left in the run folder.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use temper_engine::configuration::{ArchitectureSource, Init};
use temper_engine::events::{Finished, Started};
use temper_engine::host::Clock;
use temper_engine::models::{Architecture, SpecialTokens};
use temper_engine::perplexity::first_tokens;
use temper_engine::reading::{ReadOptions, hold_out, read_measured, read_set};
use temper_engine::result::learned;
use temper_engine::running::{About, Checkpoint, OTHER_DATA, base};
use temper_engine::{
    Checkpoints, Config, Device, Document, Error, Event, Host, Learner, ModelFiles, Objective, Run, Session, Sets,
    result, wait,
};

use crate::cli::{Global, TrainArgs};
use crate::files::{OsFolder, write_new};
use crate::inputs::{open_folder, open_model, read_configuration, read_data};
use crate::interrupt::{self, Interrupted};
use crate::memory::{self, Memory, Peaks, Planned};
use crate::output;
use crate::progress::{Progress, end_table, grouped};
use crate::report::{self, Report};
use crate::run_folder::{
    BaselineMeasured, Evaluations, Landscapes, Metrics, Part, Reserved, Retention, RunFolder, Summary,
};
use crate::settings::{self, Settings};

/// Tokens of training documents that the entropy-by-probability map is drawn from.
const LANDSCAPE_TOKENS: usize = 16_384;
/// Runs the command.
pub fn run(args: TrainArgs, global: &Global) -> Result<()> {
    let (destination, mut settings) = open(&args, global)?;
    let (device, why) = Device::choose(Some(&settings.config.run.device))?;
    let path = &settings.config.model.path;
    let files = model_files(&settings.config).with_context(|| format!("while opening the model {path}"))?;
    let tokenizer = files.tokenizer()?;
    let context = files.architecture.context;
    settings.fit_to_model(context);
    let config = &settings.config;
    // What no data would make fit is refused before any is read.
    memory::check_run(config, &files, &device, 1)?;
    let read = ReadOptions::of(&config.data);
    let mut train = read_data(&config.data.train)
        .and_then(|bytes| read_set(&config.data.train, &bytes, tokenizer, read))
        .context("while reading [data] train")?;
    say_what_was_read("train", &config.data.train, &train.records, &train.encoding);
    if let Some(long) = train.documents.iter().find(|d| d.tokens.len() > context) {
        let problem =
            format!("{} tokens, but the model's context is {context}; lower [data] cutoff_length", long.tokens.len());
        return Err(Error::Record { file: config.data.train.clone(), line: long.line, problem }.into());
    }
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
        } else if let (Some(share), "target") = (config.data.hold_out, name) {
            *set = hold_out(&mut train.documents, &config.data.train, share)?;
            say_what_was_held_out(set, train.documents.len());
        }
    }
    let [target, general] = sets;
    if let Some(line) = settings.fit_to_data(&train.documents)? {
        say(&line);
    }
    let config = settings.config;
    let tokens = largest_batch(&config, &train.documents);
    memory::check_run(&config, &files, &device, tokens)?;
    let landscape = first_tokens(&train.documents, LANDSCAPE_TOKENS).to_vec();
    let sets = Arc::new(Sets { target, general, landscape });
    let folder = destination.folder();
    let job = Job { folder, config: &config, device: &device, why: &why, files: &files, sets, tokens };

    interrupt::listen();
    let run = job.prepare(&config.objective()?, Part::Main, train.documents.clone())?;
    let after_loading = memory::peak_resident_bytes();
    // Everything that can be refused has been by now: a mistake leaves no folder behind.
    if let Destination::New(reserved) = &destination {
        reserved.begin(&config)?;
    }
    let mut main = job.train(run, Part::Main)?;
    main.peaks.after_loading = after_loading;
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

/// The folder that a run writes to.
enum Destination {
    New(Reserved),
    Resumed(RunFolder),
}

impl Destination {
    fn folder(&self) -> &RunFolder {
        match self {
            Self::New(reserved) => reserved.folder(),
            Self::Resumed(folder) => folder,
        }
    }
}

/// The run's folder and configuration.
fn open(args: &TrainArgs, global: &Global) -> Result<(Destination, Settings)> {
    let device = global.device.as_ref().map(|device| ("run.device".to_string(), device.clone()));
    if let (true, Some(out)) = (args.resume, &args.out) {
        let folder = RunFolder::open(out)?;
        let mut config = folder.config()?;
        if let Some(device) = device {
            config = config.with(&[device])?;
        }
        if args.config.is_some() {
            let given = Settings::of(args, vec![("run.device".into(), config.run.device.clone())])?;
            refuse_changes(&config, &given.config)?;
        } else {
            refuse_changes(&config, &config.with(&settings::overrides(args))?)?;
        }
        return Ok((Destination::Resumed(folder), Settings::fixed(config, String::new())));
    }
    let settings = Settings::of(args, device.into_iter().collect())?;
    let out = args.out.clone().unwrap_or_else(|| settings::free_folder(&settings.name));
    Ok((Destination::New(RunFolder::reserve(&out)?), settings))
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

fn model_files(config: &Config) -> temper_engine::Result<ModelFiles> {
    if config.model.init == Init::Pretrained {
        return open_model(&config.model.path);
    }
    let (bytes, file) = match &config.model.architecture {
        Some(ArchitectureSource::Path(path)) => (read_configuration(path)?, path.clone()),
        Some(ArchitectureSource::Inline(table)) => {
            let json = serde_json::to_vec(table).map_err(|e| Error::Config { problems: vec![e.to_string()] })?;
            (json, "[model] architecture".to_string())
        }
        None => {
            let path = Path::new(&config.model.path).join("config.json").display().to_string();
            (read_configuration(&path)?, path)
        }
    };
    let architecture = Architecture::from_config_json(&bytes, &file)?;
    let special = SpecialTokens::from_config_json(&bytes, &file)?;
    ModelFiles::random(architecture, special, open_folder(&config.model.path)?.as_ref())
}

/// Most tokens that a micro-batch of these documents can have.
fn largest_batch(config: &Config, documents: &[Document]) -> usize {
    let lengths = documents.iter().map(|document| document.tokens.len());
    let all = if config.data.packing { lengths.sum() } else { lengths.max().unwrap_or(0) };
    all.min(config.run.batch_tokens)
}

/// What one training of a run left.
struct Trained {
    started: Started,
    finished: Finished,
    evaluations: Evaluations,
    peaks: Peaks,
}

struct Job<'a> {
    folder: &'a RunFolder,
    config: &'a Config,
    device: &'a Device,
    why: &'a str,
    files: &'a ModelFiles,
    sets: Arc<Sets>,
    /// Of the largest micro-batch.
    tokens: usize,
}

impl Job<'_> {
    /// Everything up to the first step, from the last checkpoint where there is one. Writes nothing.
    fn prepare(&self, objective: &Objective, part: Part, documents: Vec<Document>) -> Result<Run> {
        let config = self.config;
        let base = base(config, self.files, self.device)?;
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
        let mut peaks = Peaks::default();
        while let Some(event) = wait(run.next(&mut host))? {
            host.progress.event(&event);
            written.event(&event)?;
            if let (Event::Step { .. }, 0) = (&event, peaks.after_first_step) {
                peaks.after_first_step = memory::peak_resident_bytes();
            }
            match event {
                Event::Started { mut learners } => started = learners.pop(),
                Event::Finished(event) => finished = Some(event),
                _ => {}
            }
        }
        let (Some(started), Some(finished)) = (started, finished) else {
            unreachable!("every run starts and finishes")
        };
        peaks.after_training = memory::peak_resident_bytes();
        if part == Part::Main && !finished.interrupted {
            self.save_result(run.learners()[0].session())?;
        }
        peaks.after_saving = memory::peak_resident_bytes();
        Ok(Trained { started, finished, evaluations: written.evaluations, peaks })
    }

    /// `adapter/` or `model/`: what other programs load.
    fn save_result(&self, session: &Session) -> Result<()> {
        let path = &self.config.model.path;
        let mut beside = |name: &str| read_data(&beside(path, name)).ok();
        let learned = wait(learned(&session.model, self.config, self.files, path, &mut beside))?;
        self.folder.write_result(learned.folder, &learned.files, |folder| match learned.weights {
            None => Ok(()),
            Some(weights) => write_new(&folder.join(result::WEIGHTS), |out| wait(weights.write(out))),
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
        let peaks = Peaks { at_end: memory::peak_resident_bytes(), ..main.peaks };
        let speeds: Vec<f64> = metrics.iter().map(|m| m.tokens_per_second).collect();
        let summary = Summary {
            temper: env!("CARGO_PKG_VERSION").into(),
            started: main.started.clone(),
            finished: main.finished.clone(),
            seed: self.config.run.seed,
            tokens_per_second: speeds.iter().sum::<f64>() / speeds.len().max(1) as f64,
            peak_device_bytes: metrics.iter().map(|m| m.peak_device_bytes).max().unwrap_or(0),
            memory: Memory::new(Planned::of(self.config, self.files, self.tokens), peaks, self.device.is_cpu()),
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
    records: &temper_engine::reading::Report,
    encoding: &temper_engine::reading::EncodeReport,
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

fn say_what_was_held_out(held_out: &[Document], left: usize) {
    let tokens: usize = held_out.iter().map(|document| document.tokens.len()).sum();
    let trained: usize = held_out.iter().map(Document::trained_tokens).sum();
    let (count, all) = (held_out.len(), held_out.len() + left);
    say(&format!(
        "target     held out: the last {} of these {} documents, {} tokens, {} scored; not trained on",
        grouped(count as u64),
        grouped(all as u64),
        grouped(tokens as u64),
        grouped(trained as u64)
    ));
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
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> temper_engine::Result<String> {
        let write = |name: &str, out: &mut dyn Write| wait(checkpoint.write(name, out));
        let names: Vec<&str> = checkpoint.names().collect();
        let path = self.folder.save_checkpoint(step, &names, &write, self.keep)?;
        Ok(path.display().to_string())
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
