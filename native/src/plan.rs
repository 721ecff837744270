//! Whether a run fits and how long it takes, and what would make it fit: what `temper plan` shows and `temper train` goes by.

use std::time::Instant;

use serde::Serialize;
use temper_engine::configuration::{AdapterKind, ByteSize};
use temper_engine::host::Clock;
use temper_engine::reading::steps_per_epoch;
use temper_engine::running::{Execution, Kind, Ledger, Load, Sheet, Site, Work, check_tokens, operations_per_second};
use temper_engine::{Config, Device, Document, Error, ModelFiles, Result};

use crate::memory::{available_bytes, described};

/// Documents shorter than this are not proposed.
const SHORTEST_CUTOFF: usize = 64;

/// What a run is made of, before anything is loaded.
pub struct Subject<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// Its model.
    pub files: &'a ModelFiles,
    /// Where it computes.
    pub device: &'a Device,
    /// What it trains on; nothing where that was not read yet.
    pub train: &'a [Document],
    /// What it measures.
    pub measured: &'a [&'a [Document]],
}

/// How much memory there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// On the device; `None` where nobody knows.
    pub device: Option<u64>,
    /// In the host's memory beside a device; `None` where nobody knows, and on the CPU.
    pub host: Option<u64>,
}

impl Room {
    /// Of this device under the configuration's budgets.
    pub fn of(device: &Device, config: &Config) -> Self {
        let said = |budget: &Option<ByteSize>| budget.map(|ByteSize(bytes)| bytes);
        let (on_device, beside) = (said(&config.run.device_memory), said(&config.run.host_memory));
        let less = |a: Option<u64>, b: Option<u64>| [a, b].into_iter().flatten().min();
        match device.is_cpu() {
            true => Self { device: less(on_device, available_bytes()), host: None },
            false => {
                let shared = if device.shares_memory() { available_bytes() } else { None };
                let there = less(device.free_bytes(), shared);
                Self { device: less(on_device, there), host: less(beside, available_bytes()) }
            }
        }
    }
}

/// A run's memory, and its arithmetic.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it holds.
    pub ledger: Ledger,
    /// The shape of its data.
    pub load: Load,
    /// How it goes through its model.
    pub execution: Execution,
    /// Operations of a step; 0 without data.
    operations: f64,
}

impl Plan {
    /// Of a run in this room.
    ///
    /// # Errors
    /// Data of which no step can be made.
    pub fn of(subject: &Subject, room: Room) -> Result<Self> {
        let Subject { config, files, device, train, measured } = subject;
        let (arch, load) = (&files.architecture, Load::of(config, train, measured));
        let (weights, site) = (files.weights.as_deref(), Site { memory: room.device, ..Site::of(device) });
        let execution = Execution::plan(config, arch, weights, 1, site);
        let ledger = Ledger::new(config, arch, weights, 1, load, site, execution);
        let operations = match train.is_empty() {
            true => 0.0,
            false => Work::of(train, steps(config, train)?.1).operations(config, arch, execution),
        };
        Ok(Self { ledger, load, execution, operations })
    }

    /// False where more is needed than there is; what nobody knows is taken to suffice.
    pub fn fits(&self, room: Room) -> bool {
        self.lacks(room).is_none()
    }

    /// What is needed and what there is, where that is less.
    fn lacks(&self, room: Room) -> Option<(u64, u64)> {
        let both = [(self.ledger.device_bytes(), room.device), (self.ledger.host_bytes(), room.host)];
        both.into_iter().find_map(|(needed, there)| there.filter(|there| needed > *there).map(|there| (needed, there)))
    }

    /// Refuses what does not fit, with what would.
    ///
    /// # Errors
    /// [`Error::Memory`] with both numbers; [`Error::Limit`] where so many tokens at once are more than the device binds.
    pub fn check(&self, subject: &Subject, room: Room) -> Result<()> {
        if !subject.train.is_empty() {
            let most = self.load.tokens.max(self.load.evaluated);
            check_tokens(&subject.files.architecture, most, subject.device)?;
        }
        let Some((needed, available)) = self.lacks(room) else { return Ok(()) };
        let tokens = self.load.tokens.max(1);
        let what = described(&format!("training on {tokens} tokens at once"), subject.files);
        Err(Error::Memory { what, needed, available, advice: self.advice(subject, room) })
    }

    /// In words, what would fit.
    fn advice(&self, subject: &Subject, room: Room) -> String {
        let advice = changes(subject, self, room);
        let of = |change: &&Change| format!("{} ({})", change.arguments(), bytes(change.peak_bytes));
        let fitting: Vec<String> = advice.iter().filter(|change| change.fits).map(|change| of(&change)).collect();
        match (fitting.is_empty(), advice.last()) {
            (false, _) => format!("it fits with {}", fitting.join(", or with ")),
            (true, Some(most)) => format!("take a smaller model; even {} is too much", of(&most)),
            (true, None) => "take a smaller model".into(),
        }
    }

    /// An error of the run: where the device ran out of memory in the middle, with what would need less. What was planned was
    /// too much for it, whatever it told, so it is taken to have three quarters of that.
    pub fn explained(&self, error: Error, subject: &Subject, room: Room) -> Error {
        let Error::OutOfMemory { device, what, asked, own, .. } = error else { return error };
        let planned = self.ledger.device_bytes();
        let there = room.device.map_or(u64::MAX, |there| there).min(planned / 4 * 3);
        let advice = format!(
            "{} were planned; the last checkpoint is intact; {}",
            bytes(planned),
            self.advice(subject, Room { device: Some(there), ..room })
        );
        Error::OutOfMemory { device, what, asked, own, advice }
    }

    /// The moments as a table, kinds that nobody holds left out.
    pub fn table(&self, on_cpu: bool) -> String {
        let entries = &self.ledger.moments;
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
            let cells = cells
                .map(|(c, (cell, &width))| if c == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
            cells.collect::<Vec<_>>().join("  ") + "\n"
        };
        rows.iter().map(line).collect()
    }

    /// In one line, with how long it takes where that is known.
    pub fn line(&self, room: Room, time: Option<&Time>) -> String {
        let peak = bytes(self.ledger.device_bytes());
        let of = match room.device {
            Some(there) => format!(" of {} available", bytes(there)),
            None => ", memory unknown".into(),
        };
        let time = time.map_or(String::new(), |t| {
            format!(
                ", about {} a step, {}",
                crate::progress::duration(t.seconds_per_step),
                crate::progress::duration(t.seconds)
            )
        });
        format!("peak {peak}{of}{time}")
    }
}

/// How long a run takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Time {
    /// Steps of the run.
    pub steps: u64,
    /// Of its products, at the speed of the device's.
    pub seconds_per_step: f64,
    /// All steps, without evaluations.
    pub seconds: f64,
    /// Floating point operations of a step.
    pub operations_per_step: f64,
    /// What the device did of them in a second.
    pub operations_per_second: f64,
}

impl Time {
    /// Measures the device for so many seconds.
    ///
    /// # Errors
    /// Device errors; data of which no step can be made.
    pub fn measure(subject: &Subject, plan: &Plan, seconds: f64) -> Result<Self> {
        struct Since(Instant);
        impl Clock for Since {
            fn seconds(&self) -> f64 {
                self.0.elapsed().as_secs_f64()
            }
        }
        let Subject { config, files, device, train, .. } = subject;
        let (weights, clock) = (files.weights.as_deref(), Since(Instant::now()));
        let arch = &files.architecture;
        let pace = operations_per_second(config, arch, weights, plan.load.tokens, device, seconds, &clock)?;
        let (steps, _) = steps(config, train)?;
        let seconds_per_step = plan.operations / pace;
        Ok(Self {
            steps,
            seconds_per_step,
            seconds: seconds_per_step * steps as f64,
            operations_per_step: plan.operations,
            operations_per_second: pace,
        })
    }
}

/// Steps of a run, and those of one pass over its data.
///
/// # Errors
/// Data of which no step can be made.
pub fn steps(config: &Config, train: &[Document]) -> Result<(u64, u64)> {
    let run = &config.run;
    let pass = steps_per_epoch(&config.data.train, train, run.seed, run.batch_tokens, run.accumulation)?;
    Ok((run.steps.unwrap_or_else(|| (run.epochs.unwrap_or(1.0) * pass as f64).ceil() as u64).max(1), pass))
}

/// Settings that need less.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// `section.key=value`, as `--set` takes them.
    pub set: Vec<String>,
    /// The peak with them, on the device.
    pub peak_bytes: u64,
    /// Whether that is enough.
    pub fits: bool,
    /// A step's time with them, where the device was measured.
    pub seconds_per_step: Option<f64>,
    #[serde(skip)]
    settings: Settings,
    #[serde(skip)]
    operations: f64,
}

impl Change {
    /// As they are written on the command line.
    pub fn arguments(&self) -> String {
        self.set.iter().map(|set| format!("--set {set}")).collect::<Vec<_>>().join(" ")
    }

    /// With the time of a step at this speed.
    pub fn timed(self, time: &Time) -> Self {
        Self { seconds_per_step: Some(self.operations / time.operations_per_second), ..self }
    }
}

type Settings = Vec<(String, String)>;

/// What would need less: first what gives the same result in more time, then what stores or trains something else, last what
/// sees less of the data. Each alone; where none alone is enough, also all together, as far as they are needed.
pub fn changes(subject: &Subject, plan: &Plan, room: Room) -> Vec<Change> {
    let peak = plan.ledger.device_bytes();
    let ladders = ladders(subject.config, subject.train);
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
        let rungs = &self::ladders(&config, subject.train)[index];
        together = first_that_fits(subject, peak, rungs, &so_far, room).or(together);
        if together.as_ref().is_some_and(|change| change.fits) {
            break;
        }
    }
    found.extend(together.filter(|_| found.len() > 1));
    found
}

/// Ways to need less, each from little to much.
fn ladders(config: &Config, train: &[Document]) -> [Vec<Settings>; 7] {
    let set = |pairs: &[(&str, String)]| pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    let longest = train.iter().map(|document| document.tokens.len()).max().unwrap_or(0);
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
        // A format that this program does not know is refused as a setting, and left out.
        match full {
            true => vec![set(&[("run.storage", "bf16".into())])],
            false => ["f16", "q8_0", "q4_0"].map(|format| set(&[("run.storage", format.into())])).into(),
        },
        vec![set(&[("run.moments", "8bit".into())])],
        if full { vec![set(&[("adapter.kind", "lora".into())])] } else { Vec::new() },
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
    room: Room,
) -> Option<Change> {
    let mut least: Option<Change> = None;
    for rung in rungs {
        let replaced = |key: &str| rung.iter().any(|(other, _)| other == key);
        let settings: Settings = on.iter().filter(|(key, _)| !replaced(key)).chain(rung).cloned().collect();
        let Ok(config) = subject.config.with(&settings) else { continue };
        let mut train = subject.train.to_vec();
        for document in &mut train {
            document.tokens.truncate(config.data.cutoff_length);
            document.trained.truncate(config.data.cutoff_length);
        }
        let subject = Subject { config: &config, train: &train, ..*subject };
        let Ok(plan) = Plan::of(&subject, room) else { continue };
        let peak_bytes = plan.ledger.device_bytes();
        if peak_bytes >= least.as_ref().map_or(peak, |change| change.peak_bytes) {
            continue;
        }
        let set = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (fits, operations) = (plan.fits(room), plan.operations);
        least = Some(Change { set, peak_bytes, fits, seconds_per_step: None, settings, operations });
        if fits {
            break;
        }
    }
    least
}

/// Bytes for people.
pub fn bytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1000.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

fn mib(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { format!("{:.1}", bytes as f64 / f64::from(1 << 20)) }
}
