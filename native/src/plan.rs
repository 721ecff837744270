//! Whether a run fits and how long it takes, and what would make it fit: what `temper plan` shows and `temper train` goes by.

use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use temper_engine::configuration::AdapterKind;
use temper_engine::host::Clock;
use temper_engine::perplexity::first_tokens;
use temper_engine::reading::{OnError, steps_per_epoch, tokens_of};
use temper_engine::running::{
    Execution, Keep, Kind, Ledger, Load, Placement, Sheet, Site, Stage, Timed, Work, check, check_tokens, placement,
};
use temper_engine::words::{bytes, counted};
use temper_engine::{Config, Device, Devices, Document, Error, MemoryLimit, ModelFiles, Result, wait};

use crate::memory::{available_bytes, described, total_bytes};
use crate::run_folder::is_adapter;

/// The share of a run's time from which on a line says what measuring takes.
const NOTEWORTHY: f64 = 0.05;
/// Documents shorter than this are not proposed.
const SHORTEST_CUTOFF: usize = 64;
/// Nor are measured sets of fewer tokens, which say next to nothing.
const FEWEST_MEASURED: usize = 256;

/// What a run is made of, before anything is loaded.
pub struct Subject<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// Its model.
    pub files: &'a ModelFiles,
    /// Where it computes.
    pub devices: &'a Devices,
    /// What it trains on; nothing where that was not read yet.
    pub train: &'a [Document],
    /// What it measures: the sets that losses are taken of, and at [`MAPPED`] what the maps are drawn from.
    pub measured: &'a [&'a [Document]],
}

/// Where [`Subject::measured`] has the documents that are measured before and after only.
const MAPPED: usize = 3;

/// How much memory there is.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// On each device; `None` where nobody knows.
    pub devices: Vec<Option<u64>>,
    /// In the host's memory, for all that is held there; `None` where nobody knows, and where the CPU is the only device.
    pub host: Option<u64>,
    /// Whose limit that is on each device, and in the host's memory.
    limits: (Vec<MemoryLimit>, MemoryLimit),
}

impl Room {
    /// Of these devices under the configuration's budgets.
    pub fn of(devices: &Devices, config: &Config) -> Self {
        let host = available_bytes();
        let said = config.run.device_memory.as_ref().map_or(Vec::new(), |sizes| sizes.bytes());
        let room = |(index, device): (usize, &Device)| {
            let shared = if device.is_cpu() || device.shares_memory() { host } else { None };
            least([
                (said.get(index).copied(), MemoryLimit::Setting("run.device_memory")),
                (device.free_bytes(), MemoryLimit::Device(device.name().into())),
                (shared, MemoryLimit::Machine),
            ])
        };
        let alone = devices.all().len() == 1 && devices.have_cpu();
        let said_of_host = config.run.host_memory.map(|size| size.0);
        let beside = least([(said_of_host, MemoryLimit::Setting("run.host_memory")), (host, MemoryLimit::Machine)]);
        let (devices, limits) = devices.all().iter().enumerate().map(room).unzip();
        Self { devices, host: beside.0.filter(|_| !alone), limits: (limits, beside.1) }
    }
}

/// The least of these limits that somebody knows, of equal ones the first.
fn least<const N: usize>(limits: [(Option<u64>, MemoryLimit); N]) -> (Option<u64>, MemoryLimit) {
    limits.into_iter().filter(|(bytes, _)| bytes.is_some()).min_by_key(|(bytes, _)| *bytes).unwrap_or_default()
}

/// Memory that each device has, whoever holds it, so that blocks are shared in the same way each time: of the CPU what the
/// machine has; `None` where nobody knows.
pub fn memory_of(devices: &Devices) -> Vec<Option<u64>> {
    devices.all().iter().map(|device| if device.is_cpu() { total_bytes() } else { None }).collect()
}

/// A run's memory, and its arithmetic.
pub struct Plan {
    /// Where its model lies.
    pub placement: Placement,
    /// What each device holds.
    pub ledgers: Vec<Ledger>,
    /// The shape of its data.
    pub load: Load,
    /// How it goes through its model on each device.
    pub executions: Vec<Execution>,
    /// Operations of a step on each device; 0 without data.
    operations: Vec<f64>,
    /// Those of everything that is measured over the run, of its samples too where they are weighed.
    measuring: Vec<f64>,
    /// Bytes that there are on each device; where nobody knows, those that the run holds.
    memory: Vec<u64>,
}

impl Plan {
    /// Of a run in this room.
    ///
    /// # Errors
    /// Data of which no step can be made; devices on which the model cannot lie; as [`check`].
    pub fn of(subject: &Subject, room: &Room) -> Result<Self> {
        let Subject { config, files, devices, train, measured } = subject;
        let (arch, weights, load) = (&files.architecture, files.weights.as_deref(), Load::of(config, train, measured));
        check(config, arch)?;
        let placement = placement(config, files, devices, &memory_of(devices))?;
        let sites = Site::of_each(&placement).into_iter().zip(&room.devices);
        let sites: Vec<Site> = sites.map(|(site, &memory)| Site { memory, ..site }).collect();
        let executions = Execution::plan_each(config, arch, weights, 1, load, &sites);
        let each = || sites.iter().zip(&executions);
        let ledger = |(site, way): (&Site, &Execution)| Ledger::new(config, arch, weights, 1, load, *site, *way);
        let ledgers: Vec<Ledger> = each().map(ledger).collect();
        let there = |(site, ledger): (&Site, &Ledger)| site.memory.unwrap_or(ledger.device_bytes());
        let memory = sites.iter().zip(&ledgers).map(there).collect();
        let (mut operations, mut measuring) = (vec![0.0; sites.len()], vec![0.0; sites.len()]);
        if !train.is_empty() {
            let work = Work::of(train, steps(config, train)?.1);
            operations = each().map(|(site, way)| work.operations(config, arch, *way, site.share)).collect();
            let often = |(index, documents)| Ok((Work::of(documents, 1), times_measured(config, train, index)? as f64));
            let sets = measured.iter().copied().enumerate().map(often).collect::<Result<Vec<(Work, f64)>>>()?;
            // Once: a baseline finds the weights that the run kept.
            let samples = config.weighs_samples().then(|| Work::of(train, 1));
            let of_site = |site: &Site| {
                let set = |(work, times): &(Work, f64)| times * work.forward_operations(config, arch, site.share);
                let weighing = samples.map_or(0.0, |work| work.untouched_operations(config, arch, site.share));
                sets.iter().map(set).sum::<f64>() + weighing
            };
            measuring = sites.iter().map(of_site).collect();
        }
        Ok(Self { placement, ledgers, load, executions, operations, measuring, memory })
    }

    /// Each device's part with what it holds.
    pub fn stages(&self) -> impl Iterator<Item = (&Stage, &Ledger)> {
        self.placement.stages().iter().zip(&self.ledgers)
    }

    /// Most that the device holds; of several, that each holds, together.
    pub fn device_bytes(&self) -> u64 {
        self.ledgers.iter().map(Ledger::device_bytes).fold(0, u64::saturating_add)
    }

    /// Most that the host holds beside devices with their own memory.
    pub fn host_bytes(&self) -> u64 {
        self.ledgers.iter().map(Ledger::host_bytes).fold(0, u64::saturating_add)
    }

    /// What the device holds that holds most.
    pub fn fullest(&self) -> &Ledger {
        self.ledgers.iter().max_by_key(|ledger| ledger.device_bytes()).expect("a run has a device")
    }

    /// False where more is needed than there is; what nobody knows is taken to suffice.
    pub fn fits(&self, room: &Room) -> bool {
        self.lacks(room).is_none()
    }

    /// What is needed and what there is, where that is less.
    fn lacks(&self, room: &Room) -> Option<Lack> {
        // The CPU's part is in the host's memory, beside what other devices have there.
        let in_host = |(stage, ledger): (&Stage, &Ledger)| {
            if stage.device.is_cpu() { ledger.device_bytes() } else { ledger.host_bytes() }
        };
        let (limits, of_host) = &room.limits;
        let host = (self.stages().map(in_host).fold(0, u64::saturating_add), room.host, of_host, String::new());
        let each = self.stages().zip(room.devices.iter().zip(limits));
        let each = each.map(|((stage, ledger), (there, limit))| (ledger.device_bytes(), *there, limit, self.on(stage)));
        let lacks = |(needed, there, limit, on): (u64, Option<u64>, &MemoryLimit, String)| {
            let available = there.filter(|there| needed > *there)?;
            Some(Lack { needed, available, limit: limit.clone(), on })
        };
        each.chain([host]).find_map(lacks)
    }

    /// Where something is, where that is not clear.
    fn on(&self, stage: &Stage) -> String {
        if self.placement.is_split() { format!(" on {}", stage.device.name()) } else { String::new() }
    }

    /// Refuses what does not fit, with what would.
    ///
    /// # Errors
    /// [`Error::Memory`] with both numbers; [`Error::Limit`] where so many tokens at once are more than a device binds.
    pub fn check(&self, subject: &Subject, room: &Room) -> Result<()> {
        if !subject.train.is_empty() {
            let most = self.load.tokens.max(self.load.evaluated);
            subject
                .devices
                .all()
                .iter()
                .try_for_each(|device| check_tokens(&subject.files.architecture, most, device))?;
        }
        let Some(Lack { needed, available, limit, on }) = self.lacks(room) else { return Ok(()) };
        let what = match subject.train.is_empty() {
            true => format!("even training on a single token{on}"),
            false => format!("training on {} at once{on}", counted(self.load.tokens, "token")),
        };
        let what = described(&what, subject.files);
        Err(Error::Memory { what, needed, available, limit, advice: self.advice(subject, room) })
    }

    /// In words, what would fit.
    fn advice(&self, subject: &Subject, room: &Room) -> String {
        let advice = changes(subject, self, room);
        let of = |change: &&Change| format!("{} ({})", change.arguments(), bytes(change.peak_bytes));
        let fitting: Vec<String> = advice.iter().filter(|change| change.fits).map(|change| of(&change)).collect();
        match (fitting.is_empty(), advice.last()) {
            // What the data need comes on top of it.
            (false, _) if subject.train.is_empty() => format!(
                "that alone would fit with {}; `temper plan` says what the whole run needs",
                fitting.join(", or with ")
            ),
            (false, _) => format!("it fits with {}", fitting.join(", or with ")),
            (true, Some(most)) => format!("take a smaller model; even with {} it is too much", of(&most)),
            (true, None) => "take a smaller model".into(),
        }
    }

    /// An error of the run: where a device ran out of memory in the middle, with what would need less. What was planned was
    /// too much for it, whatever it told, so it is taken to have three quarters of that. `saved` where there is a checkpoint.
    pub fn explained(&self, error: Error, subject: &Subject, room: &Room, saved: bool) -> Error {
        let Error::OutOfMemory { device, what, asked, own, .. } = error else { return error };
        let planned = self.device_bytes();
        let there = |(there, ledger): (&Option<u64>, &Ledger)| {
            Some(there.unwrap_or(u64::MAX).min(ledger.device_bytes() / 4 * 3))
        };
        let room = Room { devices: room.devices.iter().zip(&self.ledgers).map(there).collect(), ..room.clone() };
        let kept = if saved { "; the last checkpoint is intact" } else { "" };
        let advice = format!("{} were planned{kept}; {}", bytes(planned), self.advice(subject, &room));
        Error::OutOfMemory { device, what, asked, own, advice }
    }

    /// The moments of each device as a table, kinds that nobody holds left out.
    pub fn table(&self) -> String {
        let of = |(index, (stage, ledger)): (usize, (&Stage, &Ledger))| {
            let title = match self.placement.is_split() {
                true => format!("{}: {}\n", stage.device.name(), self.placement.held_by(index)),
                false => String::new(),
            };
            title + &table_of(ledger, stage.device.is_cpu())
        };
        self.stages().enumerate().map(of).collect::<Vec<_>>().join("\n")
    }

    /// In one line, with how long it takes where that is known.
    pub fn line(&self, room: &Room, time: Option<&Time>) -> String {
        let each = self.stages().zip(&room.devices).map(|((stage, ledger), there)| {
            let of = match there {
                Some(there) => format!(" of {} available", bytes(*there)),
                None => ", memory unknown".into(),
            };
            format!("{}{of}{}", bytes(ledger.device_bytes()), self.on(stage))
        });
        let time = time.map_or(String::new(), |t| {
            let [step, all, measuring] =
                [t.seconds_per_step, t.seconds, t.measuring_seconds].map(crate::progress::duration);
            let measuring = match t.measuring_seconds >= NOTEWORTHY * t.seconds {
                true => format!(", of which {measuring} for what is measured"),
                false => String::new(),
            };
            format!(", about {step} a step, {all} in all{measuring}")
        });
        format!("peak {}{}{time}", each.collect::<Vec<_>>().join(", "), self.way())
    }

    /// What it costs time to fit, in words.
    fn way(&self) -> String {
        let Execution { keep, .. } = self.executions[0];
        let mut way = match keep {
            Keep::Inputs => ", each block computed twice".to_string(),
            Keep::InputsOnHost => ", each block computed twice with its input waiting on the host".into(),
            Keep::Nothing | Keep::Everything => String::new(),
        };
        let left = self.executions.iter().filter(|way| way.resident != u64::MAX);
        if let Some(most) = left.map(|way| way.resident).max() {
            way += &format!(", weights beyond {} read from the file at each use", bytes(most));
        }
        way
    }
}

/// Memory that is not there.
struct Lack {
    needed: u64,
    available: u64,
    /// Whose limit that is.
    limit: MemoryLimit,
    /// Where, where that is not clear.
    on: String,
}

/// One device's moments.
fn table_of(ledger: &Ledger, on_cpu: bool) -> String {
    let entries = &ledger.moments;
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| entries.iter().any(|e| e.device.of(*kind) > 0 || e.host.of(*kind) > 0))
        .collect();
    let mut rows = vec![
        std::iter::once("MiB")
            .chain(kinds.iter().map(|k| k.words()))
            .chain(["all"])
            .map(str::to_string)
            .collect::<Vec<_>>(),
    ];
    let mut row = |name: String, sheet: &Sheet| {
        let cells = kinds.iter().map(|kind| mib(sheet.of(*kind)));
        rows.push(std::iter::once(name).chain(cells).chain([mib(sheet.total())]).collect());
    };
    for entry in entries {
        row(entry.moment.words().into(), &entry.device);
        if !on_cpu && entry.host.total() > 0 {
            row("  beside it".into(), &entry.host);
        }
    }
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c].len()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells =
            cells.map(|(c, (cell, &width))| if c == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

/// How long a run takes.
#[derive(Clone, Debug, Serialize)]
pub struct Time {
    /// Steps of the run.
    pub steps: u64,
    /// Of its operations, at the pace of each device.
    pub seconds_per_step: f64,
    /// Of all that is measured before, after and on the way, and of weighing samples, where an objective does.
    pub measuring_seconds: f64,
    /// The whole run: all steps, its baseline's too, and what is measured.
    pub seconds: f64,
    /// Floating point operations of a step.
    pub operations_per_step: f64,
    /// What the device did of them in a second; of several, what they do one after the other.
    pub operations_per_second: f64,
    /// What each device did.
    #[serde(skip)]
    paces: Vec<f64>,
}

impl Time {
    /// Measures each device for about so many seconds, as [`Timed::operations_per_second`] does.
    ///
    /// # Errors
    /// Device errors; data of which no step can be made.
    pub fn measure(subject: &Subject, plan: &Plan, seconds: f64) -> Result<Self> {
        let Subject { config, files, train, .. } = subject;
        let (arch, weights, clock) = (&files.architecture, files.weights.as_deref(), Since::now());
        let (steps, pass) = steps(config, train)?;
        let work = Work::of(train, pass);
        let pace = |((stage, &execution), &memory): ((&Stage, &Execution), &u64)| {
            let timed = Timed { config, arch, weights, execution, work, device: &stage.device, memory };
            wait(timed.operations_per_second(seconds, &clock))
        };
        let each = plan.placement.stages().iter().zip(&plan.executions).zip(&plan.memory);
        let paces = each.map(pace).collect::<Result<Vec<f64>>>()?;
        let operations: f64 = plan.operations.iter().sum();
        let seconds_per_step = seconds_of(&plan.operations, &paces);
        let measuring_seconds = seconds_of(&plan.measuring, &paces);
        let trainings = 1 + u64::from(config.run.baseline.is_some());
        Ok(Self {
            steps,
            seconds_per_step,
            measuring_seconds,
            seconds: seconds_per_step * (trainings * steps) as f64 + measuring_seconds,
            operations_per_step: operations,
            operations_per_second: operations / seconds_per_step,
            paces,
        })
    }
}

/// The system's clock, from when this was made.
pub struct Since(Instant);

impl Since {
    /// From now on.
    pub fn now() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Since {
    fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// One device waits for the other.
fn seconds_of(operations: &[f64], paces: &[f64]) -> f64 {
    operations.iter().zip(paces).map(|(operations, pace)| operations / pace).sum()
}

/// Tokens that a run trains on, over all its steps.
///
/// # Errors
/// As [`steps`].
pub fn trained_tokens(config: &Config, train: &[Document]) -> Result<u64> {
    let (steps, pass) = steps(config, train)?;
    Ok((tokens_of(train) as f64 * steps as f64 / pass.max(1) as f64) as u64)
}

/// How often a run measures its sets: before, after, and on the way.
///
/// # Errors
/// Data of which no step can be made.
pub fn measurements(config: &Config, train: &[Document]) -> Result<u64> {
    let ((steps, _), run) = (steps(config, train)?, &config.run);
    let on_the_way = match (run.eval_every, run.evaluations) {
        (0, 0) => 0,
        (0, parts) => steps.div_ceil(steps.div_ceil(parts)) - 1,
        (every, _) => (steps - 1) / every,
    };
    Ok(2 + on_the_way)
}

/// How often a run goes through the set `index` of [`Subject::measured`], whose last is what the maps are drawn from: a baseline
/// from the same start measures all but the start again.
fn times_measured(config: &Config, train: &[Document], index: usize) -> Result<u64> {
    let times = if index == MAPPED { 2 } else { measurements(config, train)? };
    Ok(times + if config.run.baseline.is_some() { times - 1 } else { 0 })
}

/// Steps of a run, and those of one pass over its data.
///
/// # Errors
/// Data of which no step can be made.
fn steps(config: &Config, train: &[Document]) -> Result<(u64, u64)> {
    let run = &config.run;
    let files = config.data.train.to_string();
    let pass = steps_per_epoch(&files, train, run.seed, run.batch_tokens, run.accumulation)?;
    Ok((run.steps.unwrap_or_else(|| (run.epochs.unwrap_or(1.0) * pass as f64).ceil() as u64).max(1), pass))
}

/// Settings that need less.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// `section.key=value`, as `--set` takes them.
    pub set: Vec<String>,
    /// The peak with them, on the device; of several, of each, together.
    pub peak_bytes: u64,
    /// Whether that is enough.
    pub fits: bool,
    /// What they cost beside time, in words.
    pub cost: &'static str,
    /// A step's time with them, where the device was measured.
    pub seconds_per_step: Option<f64>,
    #[serde(skip)]
    settings: Settings,
    #[serde(skip)]
    operations: Vec<f64>,
}

impl Change {
    /// As they are written on the command line.
    pub fn arguments(&self) -> String {
        self.set.iter().map(|set| format!("--set {set}")).collect::<Vec<_>>().join(" ")
    }

    /// With the time of a step at this speed.
    pub fn timed(self, time: &Time) -> Self {
        Self { seconds_per_step: Some(seconds_of(&self.operations, &time.paces)), ..self }
    }
}

type Settings = Vec<(String, String)>;

/// What settings cost beside time, by their keys, from what costs most on. All others give the same result.
const COSTS: [(&str, &str); 6] = [
    ("data.cutoff_length", "sees less of the data"),
    ("adapter.rank", "trains fewer values"),
    ("adapter.kind", "trains an adapter alone"),
    ("run.moments", "rounds the moments"),
    ("run.storage", "rounds the weights"),
    ("data.measured_tokens", "measures on fewer tokens"),
];

fn cost_of(settings: &[(String, String)]) -> &'static str {
    let changed = |(key, _): &&(&str, &str)| settings.iter().any(|(other, _)| other == key);
    COSTS.iter().find(changed).map_or("the same result", |(_, cost)| *cost)
}

/// What would need less, by what it costs: first what gives the same result in more time, then what measures less, what stores
/// or trains something else, and last what sees less of the data. Each alone; where none alone is enough, also all together, as
/// far as they are needed.
pub fn changes(subject: &Subject, plan: &Plan, room: &Room) -> Vec<Change> {
    let peak = plan.device_bytes();
    let ladders = ladders(subject, subject.config);
    let mut found: Vec<Change> =
        ladders.iter().filter_map(|rungs| first_that_fits(subject, peak, rungs, &[], room)).collect();
    if found.iter().any(|change| change.fits) {
        return found;
    }
    let mut together: Option<Change> = None;
    for index in 0..ladders.len() {
        let so_far = together.as_ref().map_or(Settings::new(), |change| change.settings.clone());
        let peak = together.as_ref().map_or(peak, |change| change.peak_bytes);
        let Ok(config) = subject.config.with(&so_far) else { break };
        let rungs = &self::ladders(subject, &config)[index];
        together = first_that_fits(subject, peak, rungs, &so_far, room).or(together);
        if together.as_ref().is_some_and(|change| change.fits) {
            break;
        }
    }
    let is_new = |change: &Change| found.iter().all(|other| other.set != change.set);
    let together = together.filter(is_new);
    found.extend(together);
    found
}

/// Ways for a run of this configuration to need less, each from little to much.
fn ladders(subject: &Subject, config: &Config) -> [Vec<Settings>; 9] {
    let Subject { train, measured, .. } = subject;
    let set = |pairs: &[(&str, String)]| pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    let longest = train.iter().map(|document| document.tokens.len()).max().unwrap_or(0);
    let largest = measured.iter().take(MAPPED).map(|set| tokens_of(set)).max().unwrap_or(0);
    let largest = config.data.measured_tokens.map_or(largest, |most| largest.min(most as usize));
    let halves = |from: usize, least: usize| {
        std::iter::successors(Some(from / 2), |n| Some(n / 2))
            .take_while(move |n| *n >= least.max(1))
            .collect::<Vec<_>>()
    };
    let (batch, accumulation) = (config.run.batch_tokens, config.run.accumulation);
    let smaller = |tokens: usize| {
        let times = batch.div_ceil(tokens);
        [("run.batch_tokens", tokens.to_string()), ("run.accumulation", accumulation.saturating_mul(times).to_string())]
    };
    let full = config.adapter.kind == AdapterKind::None;
    let (rank, alpha) = (config.adapter.rank, config.adapter.alpha);
    let narrower = |narrow: usize| {
        let mut pairs = vec![("adapter.rank", narrow.to_string())];
        if !config.adapter.rslora {
            // The scale of what the factors say, alpha / rank, stays.
            pairs.push(("adapter.alpha", (alpha * narrow as f64 / rank as f64).to_string()));
        }
        set(&pairs)
    };
    let cutoff = longest.min(config.data.cutoff_length);
    [
        vec![set(&[("run.recompute", "always".into())])],
        match config.optim.max_grad_norm > 0.0 {
            true => vec![set(&[("optim.clipping", "twice".into())])],
            false => Vec::new(),
        },
        if train.is_empty() {
            Vec::new()
        } else {
            halves(batch, longest).into_iter().map(|n| set(&smaller(n))).collect()
        },
        halves(largest, FEWEST_MEASURED).into_iter().map(|n| set(&[("data.measured_tokens", n.to_string())])).collect(),
        // A format that this program does not know is refused as a setting, and left out.
        match full {
            true => vec![set(&[("run.storage", "bf16".into())])],
            // The adapter of a run goes on beside what it was trained on.
            false if config.adapter.from.as_deref().is_some_and(|from| !is_adapter(Path::new(from))) => Vec::new(),
            false => ["f16", "q8_0", "q4_0"].map(|format| set(&[("run.storage", format.into())])).into(),
        },
        vec![set(&[("run.moments", "8bit".into())])],
        if full { vec![set(&[("adapter.kind", "lora".into())])] } else { Vec::new() },
        // One that is gone on from is as wide as it is.
        match full || config.adapter.from.is_some() {
            true => Vec::new(),
            false => halves(rank, 1).into_iter().map(narrower).collect(),
        },
        halves(cutoff, SHORTEST_CUTOFF)
            .into_iter()
            .map(|n| {
                let tokens = smaller(n.min(batch));
                set(&[&[("data.cutoff_length", n.to_string())], &tokens[..]].concat())
            })
            .collect(),
    ]
}

/// The first of these settings that is enough, on top of others; the last one that needs less than `peak` where none is.
fn first_that_fits(
    subject: &Subject,
    peak: u64,
    rungs: &[Settings],
    on: &[(String, String)],
    room: &Room,
) -> Option<Change> {
    let mut least: Option<Change> = None;
    for rung in rungs {
        let replaced = |key: &str| rung.iter().any(|(other, _)| other == key);
        let settings: Settings = on.iter().filter(|(key, _)| !replaced(key)).chain(rung).cloned().collect();
        let Ok(config) = subject.config.with(&settings) else { continue };
        let Some((train, measured)) = read_again(subject, &config) else { continue };
        let measured: Vec<&[Document]> = measured.iter().map(|set| &set[..]).collect();
        let subject = Subject { config: &config, train: &train, measured: &measured, ..*subject };
        let Ok(plan) = Plan::of(&subject, room) else { continue };
        let peak_bytes = plan.device_bytes();
        if peak_bytes >= least.as_ref().map_or(peak, |change| change.peak_bytes) {
            continue;
        }
        let set = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (fits, cost, operations) = (plan.fits(room), cost_of(&settings), plan.operations);
        least = Some(Change { set, peak_bytes, fits, cost, seconds_per_step: None, settings, operations });
        if fits {
            break;
        }
    }
    least
}

/// Documents that are there as they are, or made anew.
type Documents<'a> = Cow<'a, [Document]>;

/// What a run of this configuration would train on and measure, of documents that were read with longer or as long ones; none
/// where it would refuse its data.
fn read_again<'a>(subject: &Subject<'a>, config: &Config) -> Option<(Documents<'a>, Vec<Documents<'a>>)> {
    let (longest, on_error) = (config.data.cutoff_length, config.data.on_error);
    let most = config.data.measured_tokens.map_or(usize::MAX, |most| most as usize);
    let read = |(index, set): (usize, &'a [Document])| -> Option<Documents<'a>> {
        if index == MAPPED {
            // Drawn from as many tokens, however they are cut.
            return Some(set.iter().flat_map(|document| windows(document, longest)).collect());
        }
        Some(match shortened(set, longest, on_error)? {
            Cow::Borrowed(set) => Cow::Borrowed(first_tokens(set, most)),
            Cow::Owned(set) => Cow::Owned(first_tokens(&set, most).to_vec()),
        })
    };
    let measured = subject.measured.iter().copied().enumerate().map(read).collect::<Option<Vec<_>>>()?;
    Some((shortened(subject.train, longest, on_error)?, measured))
}

/// Documents of at most `longest` tokens, as reading makes them: a text comes in windows, and any other record loses its end.
/// None where that is refused: a record that loses all that is trained of it, unless it is left out, and no document at all.
fn shortened(documents: &[Document], longest: usize, on_error: OnError) -> Option<Documents<'_>> {
    if documents.iter().all(|document| document.tokens.len() <= longest) {
        return Some(documents.into());
    }
    let mut short = Vec::with_capacity(documents.len());
    for document in documents {
        let is_text = document.trained.iter().skip(1).all(|trained| *trained);
        let parts = windows(document, longest).take(if is_text { usize::MAX } else { 1 });
        let parts: Vec<Document> = parts.filter(|part| part.trained_tokens() > 0).collect();
        if parts.is_empty() && on_error == OnError::Stop {
            return None;
        }
        short.extend(parts);
    }
    (!short.is_empty()).then(|| short.into())
}

/// A document in parts of so many tokens; a last one of a single token has nothing to score.
fn windows(document: &Document, longest: usize) -> impl Iterator<Item = Document> {
    let parts = document.tokens.chunks(longest).zip(document.trained.chunks(longest));
    parts.filter(|(tokens, _)| tokens.len() > 1).map(move |(tokens, trained)| Document {
        tokens: tokens.to_vec(),
        trained: trained.to_vec(),
        line: document.line,
    })
}

fn mib(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { format!("{:.1}", bytes as f64 / f64::from(1 << 20)) }
}

#[cfg(test)]
mod tests {
    use temper_engine::host::MemoryFolder;
    use temper_engine::models::{Architecture, SpecialTokens};

    use super::*;

    /// A run of a model of one block on these documents, with its plan and its room.
    fn with_plan<T>(train: &[Document], set: &[(&str, &str)], ask: impl FnOnce(&Plan, &Subject, &Room) -> T) -> T {
        let description = br#"{"model_type": "llama", "vocab_size": 7, "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}"#;
        let architecture = Architecture::from_config_json(description, "config.json").unwrap();
        let files = ModelFiles::random(architecture, SpecialTokens::default(), &MemoryFolder::new()).unwrap();
        let text = "[model]\npath = \"tiny\"\ninit = \"random\"\n[data]\ntrain = \"counting\"\n[run]\nsteps = 1\n";
        let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let config = Config::parse(text, "test", &set).unwrap();
        let devices = Devices::new(vec![Device::cpu()]).unwrap();
        let subject = Subject { config: &config, files: &files, devices: &devices, train, measured: &[] };
        let room = Room::of(&devices, &config);
        ask(&Plan::of(&subject, &room).unwrap(), &subject, &room)
    }

    fn document() -> Document {
        Document { tokens: vec![1; 30], trained: vec![true; 30], line: 1 }
    }

    #[test]
    fn memory_that_lacks_is_said_to_lack_by_whoever_limits_it_and_for_what_is_known_of_the_data() {
        let refused = |train: &[Document], set: &[(&str, &str)]| {
            with_plan(train, set, |plan, subject, room| plan.check(subject, room).unwrap_err().to_string())
        };
        let budget = &[("run.device_memory", "1KiB")];
        let before = refused(&[], budget);
        assert!(before.starts_with("even training on a single token (1 layer, hidden 8, vocabulary 7: "), "{before}");
        assert!(before.contains(", and run.device_memory allows 1 KiB: "), "{before}");
        let after = refused(&[document()], budget);
        assert!(after.starts_with("training on 30 tokens at once (1 layer"), "{after}");
        assert!(after.contains(", and run.device_memory allows 1 KiB: "), "{after}");
        with_plan(&[document()], &[], |plan, subject, room| plan.check(subject, room).unwrap());
        // What would fit before the data are read may be too much with them.
        let by_a_byte = |train: &[Document]| {
            let never = ("run.recompute", "never");
            let needed = with_plan(train, &[never], |plan, _, _| plan.device_bytes());
            let less = (needed - 1).to_string();
            let set = [never, ("run.device_memory", less.as_str())];
            with_plan(train, &set, |plan, subject, room| plan.check(subject, room).unwrap_err().to_string())
        };
        let before = by_a_byte(&[]);
        assert!(before.contains(": that alone would fit with --set "), "{before}");
        assert!(before.ends_with("; `temper plan` says what the whole run needs"), "{before}");
        let after = by_a_byte(&[document()]);
        assert!(after.contains(": it fits with --set ") && !after.contains("temper plan"), "{after}");
    }

    #[test]
    fn weighing_samples_takes_one_pass_of_the_untouched_model_over_the_training_data() {
        let train = [document(), document()];
        let measuring = |set: &[(&str, &str)]| with_plan(&train, set, |plan, _, _| plan.measuring.clone());
        assert_eq!(measuring(&[]), [0.0]);
        let pass = with_plan(&train, &[], |_, subject, _| {
            let (config, arch) = (subject.config, &subject.files.architecture);
            Work::of(&train, 1).untouched_operations(config, arch, Site::default().share)
        });
        assert!(pass > 0.0);
        for set in [("objective.method", "flow"), ("run.baseline", "flow")] {
            assert_eq!(measuring(&[set]), [pass], "{set:?}");
        }
    }

    #[test]
    fn documents_get_shorter_as_reading_makes_them_and_what_it_would_refuse_is_not_proposed() {
        let text = || Document { tokens: (0..9).collect(), trained: vec![true; 9], line: 1 };
        let record = |from: usize| Document { trained: (0..9).map(|at| at >= from).collect(), ..text() };
        let lengths = |documents: &[Document], on_error: OnError| {
            let short = shortened(documents, 4, on_error)?;
            Some(short.iter().map(|document| document.tokens.len()).collect::<Vec<_>>())
        };
        assert_eq!(lengths(&[text(), record(3)], OnError::Stop), Some(vec![4, 4, 4]));
        assert_eq!(lengths(&[text(), record(4)], OnError::Stop), None);
        assert_eq!(lengths(&[text(), record(4)], OnError::Skip), Some(vec![4, 4]));
        let proposed = |set: &[(&str, &str)], from: usize| {
            let train = [Document { tokens: vec![1; 200], trained: (0..200).map(|at| at >= from).collect(), line: 1 }];
            let set = [set, &[("run.device_memory", "1KiB")]].concat();
            with_plan(&train, &set, |plan, subject, room| {
                changes(subject, plan, room).iter().any(|change| change.set[0].starts_with("data.cutoff_length="))
            })
        };
        assert!(proposed(&[], 10) && !proposed(&[], 150));
        // Nothing would be left of the data.
        assert!(!proposed(&[("data.on_error", "skip")], 150));
    }

    #[test]
    fn of_several_limits_the_least_that_is_known_counts_and_of_equal_ones_the_first() {
        let (setting, machine) = (MemoryLimit::Setting("run.device_memory"), MemoryLimit::Machine);
        let found = |a: Option<u64>, b: Option<u64>| least([(a, setting.clone()), (b, machine.clone())]);
        assert_eq!(found(Some(2), Some(3)), (Some(2), setting.clone()));
        assert_eq!(found(Some(3), Some(2)), (Some(2), machine.clone()));
        assert_eq!(found(Some(2), Some(2)), (Some(2), setting.clone()));
        assert_eq!(found(None, Some(2)), (Some(2), machine.clone()));
        assert_eq!(found(None, None).0, None);
    }

    #[test]
    fn who_runs_out_of_memory_is_told_of_a_checkpoint_only_where_there_is_one() {
        let said = |saved: bool| {
            let error = Error::OutOfMemory {
                device: "a card".into(),
                what: "scores".into(),
                asked: None,
                own: 0,
                advice: String::new(),
            };
            with_plan(&[document()], &[], |plan, subject, room| plan.explained(error, subject, room, saved).to_string())
        };
        assert!(said(true).contains("were planned; the last checkpoint is intact; "), "{}", said(true));
        assert!(said(false).contains("were planned; ") && !said(false).contains("checkpoint"), "{}", said(false));
    }
}
