//! `temper train`: a whole run, its baseline, and everything that is left in the run folder.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use temper_engine::configuration::AdapterKind;
use temper_engine::events::{Finished, Selected, Started};
use temper_engine::host::{Clock, Folder};
use temper_engine::perplexity::first_tokens;
use temper_engine::reading::{ReadOptions, drawn, fingerprint, read_measured, read_set, tokens_of};
use temper_engine::result::learned;
use temper_engine::running::{About, Checkpoint, Digest, NamedFile, OTHER_RUN, Origin, base_on};
use temper_engine::words::{counted, plural};
use temper_engine::{
    Checkpoints, Config, Devices, Document, Error, Event, Host, Learner, ModelFiles, Objective, Run, Session, Sets,
    result, wait,
};

use crate::cli::{Global, TrainArgs};
use crate::doubts::{self, Doubt};
use crate::files::{OsFolder, write_new};
use crate::inputs::{STDIN, Start, devices, files_beside, model_files, read_data};
use crate::interrupt::{self, Interrupted, Unbegun};
use crate::landscape;
use crate::memory::{self, Before, Memory, Peaks};
use crate::output;
use crate::plan::{Plan, Room, Since, Subject, Time};
use crate::progress::{Progress, end_table, grouped, number, progress};
use crate::report::{self, Report};
use crate::run_config::{ADAPTER_FROM, DATA_REPLAY, RunConfig, data_train};
use crate::run_folder::{
    BaselineMeasured, Curves, Evaluations, FileShare, Landscapes, Metrics, Part, Record, Reserved, Retention,
    RunFolder, Summary,
};
use crate::settings::{self, Settings};
use crate::training_set::{TrainingFile, TrainingSet, of_each_file};

/// Seconds that the device is measured for before a run: enough for a rough word.
const CALIBRATION_S: f64 = 0.1;

/// Runs the command.
pub fn run(args: TrainArgs, global: &Global) -> Result<()> {
    let (destination, settings) = open(&args, global)?;
    let unbegun = destination.unbegun();
    // What no data would make fit is refused before any is read.
    let read = Read::of(settings, &|subject| {
        let room = Room::of(subject.devices, subject.config);
        Plan::of(subject, &room)?.check(subject, &room)
    });
    let read = read.map_err(|error| destination.explained(error))?;
    let measured = read.measured();
    let subject = read.subject(&measured);
    let room = Room::of(&read.devices, &read.config);
    let plan = Plan::of(&subject, &room)?;
    plan.check(&subject, &room)?;
    let time = Time::measure(&subject, &plan, CALIBRATION_S)?;
    say(&format!("plan       {}", plan.line(&room, Some(&time))));
    let Read { config, files, start, devices, why, train, records, shares, digests, warnings, .. } = read;
    let (target, general, wrong, landscape) = (read.target, read.general, read.wrong, read.landscape);
    say_what_is_mapped(&landscape);
    let sets = Arc::new(Sets { target, general, wrong, landscape });
    let folder = destination.folder();
    let before = Before::now();
    // What cannot be copied is refused now and not after the training.
    let beside = match config.adapter.kind {
        AdapterKind::Lora => Vec::new(),
        AdapterKind::None => files_beside(&config.model.path)?,
    };
    let job = Job {
        folder,
        config: &config,
        devices: &devices,
        why: &why,
        files: &files,
        start,
        beside,
        records,
        shares,
        warnings,
        sets,
        plan,
        before,
    };
    let origin = |run: &Run| -> Origin { run.origin().into_iter().chain(digests.clone()).collect() };

    let explained = &|error: anyhow::Error| match error.downcast_ref() {
        Some(Error::OutOfMemory { .. }) => job.explained(error, &train, &room),
        _ => after_loss(error, folder),
    };

    interrupt::listen();
    let mut run = job.prepare(&config.objective()?, train.clone()).map_err(explained)?;
    let (begun, record) = match &destination {
        Destination::New(_) => (RunConfig::new(config.clone(), origin(&run)), Record::default()),
        Destination::Resumed(folder, begun) => {
            begun.refuse_other(&origin(&run))?;
            let record = resume(&mut run, folder)?;
            (begun.changed(&config, run.steps().1)?, record)
        }
    };
    let after_loading = memory::peak_resident_bytes();
    // Everything that can be refused has been by now: a mistake leaves no folder behind, and changes nothing in one.
    drop(unbegun);
    destination.write(&begun, &run)?;
    let mut main = job.train(run, record, Part::Main).map_err(explained)?;
    main.peaks.after_loading = after_loading;
    let interrupted = || Interrupted::run(folder.path());
    if main.finished.interrupted {
        return Err(interrupted().into());
    }
    let baseline = match config.baseline()? {
        Some(objective) => {
            say(&format!("\nbaseline   {} from the same start", method_name(&objective)));
            // It is short and keeps no checkpoints; it starts again after an interruption. What it starts from was measured.
            let again = |error| after_loss(error, folder);
            let run = job.prepare(&objective, train).map_err(again)?.without_start();
            begun.refuse_other(&origin(&run))?;
            let trained = job.train(run, Record::default(), Part::Baseline).map_err(again)?;
            if trained.finished.interrupted {
                return Err(interrupted().into());
            }
            Some((method_name(&objective), trained))
        }
        None => None,
    };
    job.finish(main, baseline)
}

/// An error of a run, with how to go on where that is the loss of its device and the run had begun.
fn after_loss(error: anyhow::Error, folder: &RunFolder) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Error::Lost { problem }) if folder.config().is_ok() => {
            let again = Interrupted::run(folder.path()).again;
            Error::Lost { problem: format!("{problem}; to go on: {again}") }.into()
        }
        _ => error,
    }
}

/// All that a run reads before it loads its model.
pub struct Read {
    /// Its configuration, fitted to model and data.
    pub config: Config,
    /// Its model's files.
    pub files: ModelFiles,
    /// The adapter that it goes on from.
    pub start: Option<Start>,
    /// Where it computes.
    pub devices: Devices,
    /// Why there.
    pub why: String,
    /// What it trains on.
    pub train: Vec<Document>,
    /// What kind of records that was.
    pub records: String,
    /// What of each file that is, where the files have shares.
    pub shares: Vec<FileShare>,
    /// Digests of what that was made of, where it was made of several files.
    pub digests: Origin,
    /// What makes its results doubtful.
    pub warnings: Vec<String>,
    /// What is to be learned, measured.
    pub target: Vec<Document>,
    /// What is to be kept, measured.
    pub general: Vec<Document>,
    /// What is not to be learned, measured.
    pub wrong: Vec<Document>,
    /// What the entropy-by-probability maps are drawn from.
    pub landscape: Vec<Document>,
}

impl Read {
    /// All that a run measures.
    pub fn measured(&self) -> [&[Document]; 4] {
        [&self.target, &self.general, &self.wrong, &self.landscape]
    }

    /// What is planned.
    pub fn subject<'a>(&'a self, measured: &'a [&'a [Document]]) -> Subject<'a> {
        let Self { config, files, devices, train, .. } = self;
        Subject { config, files, devices, train, measured }
    }

    /// Opens the model, asks `check` what it thinks of it without data, reads the data and says what was read.
    ///
    /// # Errors
    /// What is missing or malformed, with its file; as `check`.
    pub fn of(mut settings: Settings, check: &dyn Fn(&Subject) -> temper_engine::Result<()>) -> Result<Self> {
        doubts::refuse_measured_replay(&settings.config)?;
        doubts::refuse_repeated_file(&settings.config)?;
        let (devices, why) = devices(Some(&settings.config.run.device))?;
        let (devices, said) = devices.computing(settings.config.run.compute, &Since::now())?;
        said.iter().for_each(|line| say(line));
        let on_tensor_cores = devices.all().iter().find(|device| device.halves());
        let why = on_tensor_cores.map_or(why.clone(), |device| format!("{why}; products {}", device.precision()));
        let path = &settings.config.model.path;
        let files = model_files(&settings.config).with_context(|| format!("while opening the model {path}"))?;
        let tokenizer = files.tokenizer()?;
        if files.template_beside {
            say("template   chat_template.jinja beside the model, in place of the file's own");
        }
        let context = files.architecture.context;
        settings.fit_to_model(context);
        let config = &settings.config;
        check(&Subject { config, files: &files, devices: &devices, train: &[], measured: &[] })?;
        let start = config.adapter.from.as_deref().map(Start::open).transpose()?;
        start.iter().for_each(|start| say(&format!("adapter    goes on from {}", start.words())));
        let mut warnings = Vec::new();
        let mut training = TrainingSet::read(config, tokenizer, &mut |path, set| {
            warnings.extend(say_what_was_read("train", path, &set.records, &set.encoding));
            refuse_longer(&set.documents, context, path)
        })
        .context("while reading [data] train")?;
        let digest = |documents: &[Document]| Digest::from(fingerprint(documents, 0));
        let mut digests: Origin = start.iter().map(|start| (ADAPTER_FROM.to_string(), start.digest)).collect();
        // The other sets may look different from the training set: each is detected on its own.
        let measured = ReadOptions::of(&config.data).measured();
        let data = &config.data;
        let count = training.files.len();
        if data.replay.is_some() || count > 1 {
            // Before anything is held out of them.
            let files = training.files.iter().enumerate();
            digests.extend(files.map(|(index, file)| (data_train(index, count), digest(&file.documents))));
        }
        let mut held_out = Vec::new();
        let mut sets = [("target", &data.target), ("general", &data.general), ("wrong", &data.wrong)]
            .map(|(name, path)| (name, path.clone(), Vec::new()));
        for (name, path, set) in &mut sets {
            if let Some(path) = path {
                let data = read_data(path)
                    .and_then(|bytes| read_measured(path, &bytes, tokenizer, context, measured))
                    .with_context(|| format!("while reading [data] {name}"))?;
                warnings.extend(say_what_was_read(name, path, &data.records, &data.encoding));
                *set = data.documents;
            } else if let (Some(share), "target") = (config.data.hold_out, *name) {
                let ends = training.hold_out(share)?;
                say_what_was_held_out(&ends, &training.files);
                held_out = ends.iter().map(Vec::len).collect();
                *set = ends.into_iter().flatten().collect();
            }
        }
        let shares = training.draw(config.run.seed);
        shares.iter().for_each(say_what_is_drawn);
        let (records, counts) = (training.kinds(), training.counts());
        let mut train = training.into_documents();
        let own = train.len();
        if let Some(path) = &config.data.replay {
            let set = read_data(path)
                .and_then(|bytes| read_set(path, &bytes, tokenizer, measured))
                .context("while reading [data] replay")?;
            warnings.extend(say_what_was_read("replay", path, &set.records, &set.encoding));
            refuse_longer(&set.documents, context, path)?;
            digests.insert(DATA_REPLAY.into(), digest(&set.documents));
            // Whole sets, of which a part may be measured: what is left does not depend on how large that part is.
            let measured = sets.each_ref().map(|(name, _, set)| (*name, set.as_slice()));
            let (apart, left_out) = doubts::apart(set.documents, path, &measured)?;
            left_out.iter().for_each(|line| say(line));
            let replay = drawn(apart, tokens_of(&train), config.data.replay_share, config.run.seed);
            say(&what_is_mixed_in(&replay, &train, config.data.replay_share));
            train.extend(replay);
        }
        if let Some(line) = settings.fit_to_data(&train)? {
            say(&line);
        }
        let most = settings.config.data.measured_tokens.map_or(usize::MAX, |most| most as usize);
        let [target, general, wrong] = sets.map(|(name, _, set)| {
            let files = if name == "target" { held_out.as_slice() } else { &[] };
            beginning(name, set, files, most)
        });
        let config = settings.config;
        // Wrong labels are there to be trained on.
        let own_file = match config.data.train.paths() {
            [file] => file.as_str(),
            _ => "data.train",
        };
        let held_out = config.data.target.is_none().then_some(own_file);
        let measured = [("target", &target, held_out), ("general", &general, None)];
        let memorised =
            |(name, set, file): (&str, &Vec<Document>, Option<&str>)| doubts::memorised(name, set, &train[..own], file);
        let memorised: Vec<String> = measured.into_iter().filter_map(memorised).collect();
        memorised.iter().for_each(|warning| warn(warning));
        warnings.extend(memorised);
        let landscape = landscape::documents(&config, &train[..own], &counts)?;
        Ok(Self {
            config,
            files,
            start,
            devices,
            why,
            train,
            records,
            shares,
            digests,
            warnings,
            target,
            general,
            wrong,
            landscape,
        })
    }
}

/// The folder that a run writes to.
enum Destination {
    New(Reserved),
    Resumed(RunFolder, RunConfig),
}

impl Destination {
    fn folder(&self) -> &RunFolder {
        match self {
            Self::New(reserved) => reserved.folder(),
            Self::Resumed(folder, _) => folder,
        }
    }

    /// What ends a new run that is stopped before it has begun.
    fn unbegun(&self) -> Option<Unbegun> {
        match self {
            Self::New(reserved) => Some(Unbegun::now(reserved.undo())),
            Self::Resumed(..) => None,
        }
    }

    /// What came out of a pipe when the run began does not come by itself when it goes on.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let is_of_pipe = matches!(error.downcast_ref(), Some(Error::Data { file, .. }) if file == STDIN);
        match self {
            Self::Resumed(..) if is_of_pipe => {
                error.context(format!("the run's data came from standard input ({STDIN}) and must be piped in again"))
            }
            _ => error,
        }
    }

    /// Writes the run's configuration where it is not there already, and says what was changed.
    fn write(&self, config: &RunConfig, run: &Run) -> temper_engine::Result<()> {
        let begun = match self {
            Self::New(_) => return self.folder().write_run_config(config),
            Self::Resumed(_, begun) if begun == config => return Ok(()),
            Self::Resumed(_, begun) => begun,
        };
        let rates = run.rates(&begun.config)?;
        self.folder().write_run_config(config)?;
        for change in &config.changes()[begun.changes().len()..] {
            // The schedule is spread over the new length.
            let is_of_length = ["run.steps", "run.epochs"].iter().any(|key| change.contains(&format!(": {key} from ")));
            let jump = match rates {
                [was, is] if is_of_length && was != is => {
                    format!("; the rate there goes from {} to {}", number(was), number(is))
                }
                _ => String::new(),
            };
            say(&format!("changed    {change}{jump}"));
        }
        Ok(())
    }
}

/// The run's folder and configuration.
fn open(args: &TrainArgs, global: &Global) -> Result<(Destination, Settings)> {
    let device = global.device.as_ref().map(|device| ("run.device".to_string(), device.clone()));
    if let (true, Some(out)) = (args.resume, &args.out) {
        let folder = RunFolder::open(out)?;
        let begun = folder.run_config()?;
        let given = match &args.run.config {
            Some(_) => {
                let own = || ("run.device".to_string(), begun.config.run.device.clone());
                Settings::of(&args.run, vec![device.unwrap_or_else(own)])?.config
            }
            None => begun.config.with(&settings::overrides(&args.run).into_iter().chain(device).collect::<Vec<_>>())?,
        };
        // What cannot change, and what cannot go on, is refused before anything is read.
        begun.refuse_changes(&given, &settings::overrides(&args.run))?;
        if let Some(why) = folder.without_result() {
            return Err(why.into());
        }
        return Ok((Destination::Resumed(folder, begun), Settings::fixed(given, String::new())));
    }
    let settings = Settings::of(&args.run, device.into_iter().collect())?;
    settings.refuse_vain(&args.run)?;
    let out = args.out.clone().unwrap_or_else(|| settings::free_folder(&settings.name));
    // Before anything is made that would be left.
    interrupt::listen();
    Ok((Destination::New(RunFolder::reserve(&out)?), settings))
}

/// Goes on from the newest checkpoint, where there is one, and says what the run had written by then.
fn resume(run: &mut Run, folder: &RunFolder) -> Result<Record> {
    let Some((step, path)) = folder.checkpoints().pop() else {
        let path = folder.path().display();
        say(&format!("resume     {path} has no checkpoint: the run begins again, at its first step"));
        return Ok(Record::default());
    };
    let mut attempt = || -> temper_engine::Result<Record> {
        run.resume(&OsFolder::open(&path)?)?;
        RunFolder::refuse_renamed(step, run.steps().1)?;
        RunFolder::record(&path)
    };
    attempt().map_err(|error| match &error {
        Error::Checkpoint { field, .. } if OTHER_RUN.contains(&field.as_str()) => error.into(),
        _ => anyhow::Error::new(error)
            .context(format!("while reading {}; without that folder, --resume takes the one before", path.display())),
    })
}

/// What one training of a run left.
struct Trained {
    started: Started,
    finished: Finished,
    /// Which step is the result, where one was chosen.
    selected: Option<Selected>,
    evaluations: Evaluations,
    landscapes: Landscapes,
    peaks: Peaks,
    /// Most that it held on its device.
    own_peak: Option<u64>,
}

struct Job<'a> {
    folder: &'a RunFolder,
    config: &'a Config,
    devices: &'a Devices,
    why: &'a str,
    files: &'a ModelFiles,
    /// The adapter that it goes on from.
    start: Option<Start>,
    /// Files beside the model's that a whole model is saved with.
    beside: Vec<NamedFile>,
    /// What kind of records it trains on.
    records: String,
    /// What of each of several files that is.
    shares: Vec<FileShare>,
    /// What was warned of before it began.
    warnings: Vec<String>,
    sets: Arc<Sets>,
    plan: Plan,
    /// What the process held before the model was loaded.
    before: Before,
}

impl Job<'_> {
    /// Everything up to the first step. Writes nothing.
    fn prepare(&self, objective: &Objective, documents: Vec<Document>) -> Result<Run> {
        let Plan { placement, executions, .. } = &self.plan;
        let base = progress("loading", |heard| base_on(self.config, self.files, placement.clone(), executions, heard))?;
        // What is kept and in which order is the same on all devices.
        let (config, execution) = (self.config.clone(), executions[0]);
        let learner = match &self.start {
            Some(start) => {
                start.refuse_other(&config.model.path, base.origin)?;
                Learner::going_on(config, objective, base, execution, &start.adapter)?
            }
            None => Learner::new(config, objective, base, execution)?,
        };
        let about = About { why: self.why.into(), model: model_name(self.config, self.files) };
        Ok(Run::new(vec![learner], documents, self.sets.clone(), about)?)
    }

    /// Out of memory in the middle, with what would need less.
    fn explained(&self, error: anyhow::Error, train: &[Document], room: &Room) -> anyhow::Error {
        let Self { config, files, devices, sets, .. } = self;
        let measured: [&[Document]; 4] = [&sets.target, &sets.general, &sets.wrong, &sets.landscape];
        let subject = Subject { config, files, devices, train, measured: &measured };
        match error.downcast() {
            Ok(error) => self.plan.explained(error, &subject, room, !self.folder.checkpoints().is_empty()).into(),
            Err(other) => other,
        }
    }

    /// Goes on with a run, which had written what `record` says.
    fn train(&self, mut run: Run, record: Record, part: Part) -> Result<Trained> {
        let (_, done) = run.steps();
        let (metrics, warnings) = self.folder.metrics(part, done, record.metrics)?;
        warnings.iter().for_each(|warning| warn(warning));
        let written = Written {
            folder: self.folder,
            part,
            metrics,
            curves: self.folder.curves(part, &record.evaluations)?,
            evaluations: record.evaluations,
            landscapes: record.landscapes,
            records: Some(self.records.clone()),
        };
        let keep = (part == Part::Main).then_some(self.config.run.keep);
        let mut host = NativeHost {
            devices: self.devices,
            written,
            keep,
            stays: None,
            progress: Progress::new(),
            begin: Instant::now(),
        };
        let (mut started, mut finished, mut selected) = (None, None, None);
        let mut peaks = Peaks::default();
        while let Some(event) = wait(run.next(&mut host)).inspect_err(|error| host.written.failed(error))? {
            host.progress.event(&event);
            host.written.event(&event)?;
            if let (Event::Step { .. }, 0) = (&event, peaks.after_first_step) {
                peaks.after_first_step = memory::peak_resident_bytes();
            }
            match event {
                Event::Started { mut learners } => started = learners.pop(),
                Event::Finished(event) => finished = Some(event),
                Event::Selected(event) => selected = Some(event),
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
        // The CPU's is the host's memory, that of the others their own.
        let in_host = if self.devices.have_cpu() { self.before.peak_since() } else { None };
        let own_peak = [in_host, self.devices.peak_bytes()].into_iter().flatten().reduce(u64::saturating_add);
        let Written { evaluations, landscapes, .. } = host.written;
        Ok(Trained { started, finished, selected, evaluations, landscapes, peaks, own_peak })
    }

    /// `adapter/` or `model/`: what other programs load.
    fn save_result(&self, session: &Session) -> Result<()> {
        let path = &self.config.model.path;
        let learned = wait(learned(&session.model, self.config, self.files, path, &self.beside))?;
        self.folder.write_result(learned.folder, &learned.files, |folder| match learned.weights {
            None => Ok(()),
            Some(weights) => write_new(&folder.join(result::WEIGHTS), |out| wait(weights.write(out))),
        })?;
        Ok(())
    }

    fn finish(&self, main: Trained, baseline: Option<(String, Trained)>) -> Result<()> {
        let (metrics, warnings) = self.folder.read_metrics(Part::Main)?;
        warnings.iter().for_each(|warning| warn(warning));
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
            records: Some(self.records.clone()),
            tokens_per_second: speeds.iter().sum::<f64>() / speeds.len().max(1) as f64,
            peak_device_bytes: metrics.iter().map(|m| m.peak_device_bytes).max().unwrap_or(0),
            memory: Memory::new(&self.plan.ledgers, peaks, main.own_peak, self.devices.have_cpu()),
            selected: main.selected.clone(),
            retention: retention.clone(),
            shares: self.shares.clone(),
            warnings: [Some(&main), baseline.as_ref().map(|(_, trained)| trained)]
                .into_iter()
                .flatten()
                .flat_map(|trained| trained.evaluations.warnings.clone())
                .chain(self.warnings.clone())
                .collect(),
        };
        self.folder.write_summary(&summary)?;
        let of_baseline = match &baseline {
            Some(_) => self.folder.read_metrics(Part::Baseline)?.0,
            None => Vec::new(),
        };
        let html = report::render(&Report {
            config: &self.config.to_toml(),
            summary: &summary,
            metrics: &metrics,
            baseline: &of_baseline,
            history: &main.evaluations.history,
            landscapes: &main.landscapes,
            memory: &self
                .plan
                .stages()
                .map(|(stage, ledger)| (stage.device.name().to_string(), ledger))
                .collect::<Vec<_>>(),
            baseline_landscape: baseline.as_ref().and_then(|(_, trained)| trained.landscapes.after.as_ref()),
        })?;
        let path = self.folder.write_report(&html)?;
        let table = end_table(&main.started.objective, &retention);
        if !table.is_empty() {
            output::text(&format!("\n{table}\n"))?;
        }
        output::text(&format!("report     {}\n", path.display()))
    }
}

fn model_name(config: &Config, files: &ModelFiles) -> String {
    let arch = &files.architecture;
    format!(
        "{} ({}, {}, hidden {}, vocabulary {})",
        config.model.path,
        arch.family.model_type,
        counted(arch.layers, "layer"),
        arch.hidden,
        arch.vocab
    )
}

fn method_name(objective: &Objective) -> String {
    objective.method().to_string()
}

/// Gives what makes results doubtful.
fn say_what_was_read(
    set: &str,
    path: &str,
    records: &temper_engine::reading::Report,
    encoding: &temper_engine::reading::EncodeReport,
) -> Vec<String> {
    let scored = if matches!(set, "train" | "replay") { "trained" } else { "scored" };
    let mut line = format!(
        "{set:<10} {path}: {} ({}), {}, {}, {} {scored}",
        counted(records.records, "record"),
        records.kind,
        counted(encoding.documents, "document"),
        counted(encoding.tokens, "token"),
        encoding.trained_tokens
    );
    if encoding.truncated > 0 {
        line += &format!(", {} cut off at the end", encoding.truncated);
    }
    if let Some(fields) = doubts::not_read(&records.unread) {
        line += &format!(", {fields}");
    }
    say(&line);
    if encoding.pairs > 0 && set == "train" {
        say("           no chat template: each is the prompt, a newline, the completion, and the end of text");
    }
    let doubts = doubts::of_reading(set, path, records, encoding);
    doubts.iter().flat_map(Doubt::lines).for_each(|line| say(&line));
    doubts.into_iter().map(|doubt| doubt.what).collect()
}

/// Refuses a document that is longer than the model can read.
fn refuse_longer(documents: &[Document], context: usize, file: &str) -> temper_engine::Result<()> {
    let Some(long) = documents.iter().find(|document| document.tokens.len() > context) else { return Ok(()) };
    let length = long.tokens.len();
    let problem = format!("{length} tokens, but the model's context is {context}; lower [data] cutoff_length");
    Err(Error::Record { file: file.into(), line: long.line, problem })
}

/// How much of a text of before is trained on beside these documents.
fn what_is_mixed_in(replay: &[Document], beside: &[Document], wanted: f64) -> String {
    let share_by = |count: fn(&[Document]) -> usize| {
        let [own, others] = [count(replay), count(beside)];
        own as f64 / (own + others).max(1) as f64
    };
    let trained = share_by(|documents| documents.iter().map(Document::trained_tokens).sum());
    let (tokens, share) = (tokens_of(replay), share_by(tokens_of));
    let less = if share < 0.99 * wanted { ", which are all: less than data.replay_share asks for" } else { "" };
    format!(
        "replay     {} {}, {} tokens, are mixed in: {:.1} % of all tokens, {:.1} % of the trained ones{less}",
        grouped(replay.len() as u64),
        plural(replay.len(), "document"),
        grouped(tokens as u64),
        100.0 * share,
        100.0 * trained
    )
}

/// The ends of these files.
fn say_what_was_held_out(ends: &[Vec<Document>], files: &[TrainingFile]) {
    let sum = |of: fn(&Document) -> usize| ends.iter().flatten().map(of).sum::<usize>() as u64;
    let last = |(end, file): (&Vec<Document>, &TrainingFile)| {
        let [some, all] = [end.len(), end.len() + file.documents.len()].map(|count| grouped(count as u64));
        match files {
            [_] => format!("the last {some} of these {all} documents"),
            _ => format!("the last {some} of {all} documents of {}", file.path),
        }
    };
    say(&format!(
        "target     held out: {}, {} tokens, {} scored; not trained on",
        ends.iter().zip(files).map(last).collect::<Vec<_>>().join(", "),
        grouped(sum(|document| document.tokens.len())),
        grouped(sum(Document::trained_tokens))
    ));
}

/// Of one of several files.
fn say_what_is_drawn(share: &FileShare) {
    let FileShare { file, documents, left_out_documents: left_out, .. } = share;
    let drawn = match left_out {
        0 => format!("all of {} {}", grouped(*documents as u64), plural(*documents, "document")),
        _ => format!(
            "{} of {} documents; the other {} ({} trained tokens) are left out",
            grouped(*documents as u64),
            grouped((documents + left_out) as u64),
            grouped(*left_out as u64),
            grouped(share.left_out_trained_tokens as u64)
        ),
    };
    say(&format!("shares     {file}: {:.1} % of the trained tokens, {drawn}", 100.0 * share.share));
}

/// The documents of a set that are measured: the first ones of each of its files, where it is of several, which have at most so
/// many tokens.
fn beginning(name: &str, set: Vec<Document>, counts: &[usize], most: usize) -> Vec<Document> {
    let all = tokens_of(&set);
    if all <= most {
        return set;
    }
    let whole = [set.len()];
    let counts = if counts.is_empty() { &whole[..] } else { counts };
    let first: Vec<Document> =
        of_each_file(&set, counts, most).flat_map(|(own, most)| first_tokens(own, most).to_vec()).collect();
    if first.len() < set.len() {
        let [some, all] = [tokens_of(&first), all].map(|tokens| grouped(tokens as u64));
        say(&format!("{name:<10} measured on its first {some} of {all} tokens (data.measured_tokens)"));
    }
    first
}

fn say_what_is_mapped(landscape: &[Document]) {
    let tokens = tokens_of(landscape);
    say(&match tokens {
        0 => "landscape  none: the run is too short for it".into(),
        _ => format!("landscape  {} tokens of train, measured before and after", grouped(tokens as u64)),
    });
}

fn warn(problem: &str) {
    say(&format!("warning: {problem}"));
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
    curves: Curves,
    evaluations: Evaluations,
    landscapes: Landscapes,
    /// What kind of records it trains on.
    records: Option<String>,
}

impl Written<'_> {
    /// What a checkpoint keeps of it.
    fn record(&self) -> Record {
        Record {
            metrics: self.metrics.written(),
            evaluations: self.evaluations.clone(),
            landscapes: self.landscapes.clone(),
            records: self.records.clone(),
        }
    }

    /// Notes for whoever asks for a result that going on would only come to this again.
    fn failed(&mut self, error: &Error) {
        if let Error::NonFinite { step: Some(step), .. } = error {
            self.evaluations.overflowed = Some(*step);
            // The error itself is told in any case.
            let _ = self.folder.write_evaluations(self.part, &self.evaluations);
        }
    }

    fn event(&mut self, event: &Event) -> temper_engine::Result<()> {
        // The runs of the command have one learner.
        match event {
            Event::Step { learners } => learners.iter().try_for_each(|metrics| {
                self.metrics.append(metrics)?;
                self.curves.step(metrics)
            }),
            Event::Evaluated { learners } => {
                for evaluated in learners {
                    // One that is repeated after a resume is there already.
                    if !self.evaluations.has(evaluated) {
                        self.curves.evaluated(evaluated)?;
                    }
                    self.evaluations.record(evaluated);
                }
                self.folder.write_evaluations(self.part, &self.evaluations)
            }
            Event::Warning { message } => {
                self.evaluations.warn(message);
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
    devices: &'a Devices,
    written: Written<'a>,
    /// How many of the newest checkpoints are kept; none where no checkpoint is made.
    keep: Option<usize>,
    /// Step of one that stays beside them.
    stays: Option<u64>,
    progress: Progress,
    begin: Instant,
}

impl Checkpoints for NativeHost<'_> {
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> temper_engine::Result<String> {
        let write = |name: &str, out: &mut dyn Write| wait(checkpoint.write(name, out));
        let names: Vec<&str> = checkpoint.names().collect();
        let keep = self.keep.unwrap_or_default();
        let path =
            self.written.folder.save_checkpoint(step, &self.written.record(), &names, &write, keep, self.stays)?;
        Ok(path.display().to_string())
    }

    fn stays(&mut self, step: u64) {
        self.stays = Some(step);
    }

    fn open(&mut self, step: u64) -> temper_engine::Result<Box<dyn Folder>> {
        let Some((_, path)) = self.written.folder.checkpoints().into_iter().find(|(other, _)| *other == step) else {
            let path = self.written.folder.path().join("checkpoints").display().to_string();
            let problem =
                format!("has no checkpoint of step {step}, which is the result; restore it and go on with --resume");
            return Err(Error::Missing { path, problem });
        };
        Ok(Box::new(OsFolder::open(&path)?))
    }
}

impl Clock for NativeHost<'_> {
    fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}

impl Host for NativeHost<'_> {
    fn checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        self.keep.is_some().then_some(self as &mut dyn Checkpoints)
    }

    fn peak_bytes(&self) -> u64 {
        self.devices.reserved_bytes().unwrap_or_else(memory::peak_resident_bytes)
    }

    fn stop_requested(&self) -> bool {
        interrupt::requested()
    }

    fn recall(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.written.folder.recall(name)
    }

    fn keep(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.written.folder.keep(name, bytes)
    }

    fn evaluating(&mut self, what: &str, done: usize, of: usize) {
        self.progress.evaluating(what, done, of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mixed_in_is_said_as_a_share_of_all_tokens_and_of_the_trained_ones() {
        let document = |trained: usize| Document {
            tokens: vec![1; 10],
            trained: (0..10).map(|at| (1..=trained).contains(&at)).collect(),
            line: 1,
        };
        let said = what_is_mixed_in(&[document(9)], &[document(1), document(1), document(1)], 0.25);
        assert!(said.ends_with("10 tokens, are mixed in: 25.0 % of all tokens, 75.0 % of the trained ones"), "{said}");
        let less = what_is_mixed_in(&[document(9)], &[document(1)], 0.9);
        assert!(less.ends_with(", which are all: less than data.replay_share asks for"), "{less}");
    }

    #[test]
    fn who_loses_the_device_of_a_run_that_had_begun_is_told_how_to_go_on() {
        let place = tempfile::tempdir().unwrap();
        let reserved = RunFolder::reserve(&place.path().join("run")).unwrap();
        let said = || {
            let error = anyhow::Error::from(Error::Lost { problem: "the GPU was lost".into() });
            after_loss(error, reserved.folder()).to_string()
        };
        assert_eq!(said(), "device: the GPU was lost");
        let config = Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "x", &[]).unwrap();
        reserved.folder().write_run_config(&RunConfig::new(config, Origin::default())).unwrap();
        let text = said();
        assert!(text.contains("lost; to go on: temper train --out ") && text.ends_with("--resume"), "{text}");
        // What is wrong otherwise stays as it is said.
        let other = anyhow::Error::from(Error::Device { problem: "none".into() }).context("while starting");
        assert_eq!(after_loss(other, reserved.folder()).to_string(), "while starting");
    }
}
