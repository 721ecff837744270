//! `temper bench capacity`: what large models take on this machine, each trained for a step or a few by the command itself.
//!
//! Model files are fabricated in the shapes of published models, one at a time, and deleted. Every run is a process of its own,
//! so that its peak is its own; what it was planned to hold and what it held come from its `summary.json`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use temper_engine::Error;
use temper_engine::words::bytes;

use super::spread;
use crate::cli::BenchCapacityArgs;
use crate::files::io_error;
use crate::output;

/// What models are trained on.
const TEXT: &str = "embedded:general.txt";

/// Where the work is done, and with what.
struct Bench<'a> {
    folder: &'a Path,
    /// A small model with real weights.
    model: Option<&'a str>,
}

/// What a proof found: numbers by name, and what they had to be.
#[derive(Default)]
struct Found {
    numbers: serde_json::Map<String, Value>,
    musts: Vec<(String, bool)>,
}

impl Found {
    fn number(&mut self, name: &str, value: impl Into<Value>) {
        self.numbers.insert(name.into(), value.into());
    }

    /// A number that may be so large.
    fn at_most(&mut self, name: &str, value: f64, most: f64) {
        self.number(name, value);
        self.musts.push((format!("{name} {value:.3} at most {most}"), value <= most));
    }

    fn must(&mut self, what: &str, holds: bool) {
        self.musts.push((what.into(), holds));
    }
}

/// A run that is over.
struct Trained {
    losses: Vec<f64>,
    /// Of each step.
    seconds: Vec<f64>,
    /// From the start of the process to its end.
    whole_s: f64,
    planned_bytes: f64,
    peak_bytes: f64,
    resident_bytes: f64,
}

impl Trained {
    fn step_s(&self) -> f64 {
        // The first step also makes scratch.
        let later = if self.seconds.len() > 1 { &self.seconds[1..] } else { &self.seconds };
        spread(later.to_vec())[1]
    }

    fn report(&self, found: &mut Found) {
        found.number("planned_bytes", self.planned_bytes);
        found.number("peak_bytes", self.peak_bytes);
        found.number("peak_resident_bytes", self.resident_bytes);
        found.number("step_s", self.step_s());
        found.number("whole_s", self.whole_s);
    }
}

/// A proof: its name, and how it is made.
type Proof = (&'static str, fn(&Bench) -> Result<Option<Found>>);

const PROOFS: &[Proof] = &[
    ("streamed", streamed),
    ("q4_0-base", quantised_base),
    ("small", small),
    ("4b", |bench| four_billion(bench)),
    ("8b", |bench| one_step(bench, "qwen3-8b", "q4_k", 256, None)),
    ("14b", |bench| one_step(bench, "qwen3-14b", "q4_k", 256, None)),
    ("glm4-9b", |bench| one_step(bench, "glm4-9b", "q4_0", 64, Some("3GiB"))),
    ("1.7b-full", full),
    ("long", long),
    ("32b", |bench| one_step(bench, "qwen3-32b", "q4_0", 128, Some("6GiB"))),
    ("qwen2.5-32b", |bench| one_step(bench, "qwen2.5-32b", "q4_0", 64, Some("6GiB"))),
    ("glm4-32b", |bench| one_step(bench, "glm4-32b", "q4_0", 64, Some("6GiB"))),
];

/// Runs the benchmark.
pub fn run(args: &BenchCapacityArgs) -> Result<()> {
    if let Some(name) = args.only.iter().find(|name| !PROOFS.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = PROOFS.iter().map(|(name, _)| *name).collect();
        let problem = format!("--only {name}: is not one of {}", known.join(", "));
        return Err(Error::Config { problems: vec![problem] }.into());
    }
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder).map_err(|error| io_error(folder, &error))?,
        None => tempfile::tempdir()?,
    };
    let bench = Bench { folder: folder.path(), model: args.model.as_deref() };
    // What an interrupted benchmark has found is not found again.
    let done = args.out.as_ref().map(|out| fs::read_to_string(out).unwrap_or_default()).unwrap_or_default();
    let is_done = |name: &str| {
        let names = done.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        names.into_iter().any(|line| line["proof"] == name)
    };
    let mut failed = Vec::new();
    for (name, proof) in PROOFS {
        if (!args.only.is_empty() && !args.only.iter().any(|only| only == name)) || is_done(name) {
            continue;
        }
        let found = match proof(&bench) {
            Ok(Some(found)) => found,
            Ok(None) => {
                output::text(&format!("{name:<12} skipped: needs --model, a small model with real weights\n"))?;
                continue;
            }
            // The others may be made all the same.
            Err(error) => {
                output::text(&format!("{name:<12} failed: {error:#}\n"))?;
                failed.push(*name);
                continue;
            }
        };
        let held = found.musts.iter().all(|(_, holds)| *holds);
        let mut line = json!({ "bench": "capacity", "proof": name, "holds": held });
        line.as_object_mut().expect("an object").extend(found.numbers.clone());
        if let Some(out) = &args.out {
            let mut out = OpenOptions::new().create(true).append(true).open(out)?;
            writeln!(out, "{line}")?;
            out.sync_all()?;
        }
        if args.json {
            output::json(&line)?;
            continue;
        }
        let of = |name: &str| found.numbers.get(name).and_then(Value::as_f64);
        let mut text = format!("{name:<12} {}", if held { "holds" } else { "DOES NOT HOLD" });
        if let (Some(planned), Some(peak), Some(step)) = (of("planned_bytes"), of("peak_bytes"), of("step_s")) {
            text += &format!(": planned {}, held {}, {step:.1} s a step", bytes(planned as u64), bytes(peak as u64));
        }
        for (must, holds) in &found.musts {
            text += &format!("\n  {} {must}", if *holds { "+" } else { "-" });
        }
        output::text(&(text + "\n"))?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("could not be made: {}", failed.join(", ")) }
}

/// A model of a published shape, and one step of an adapter on it; under a budget twice, from the disk and from the system's
/// cache.
fn one_step(bench: &Bench, like: &str, quant: &str, tokens: usize, budget: Option<&str>) -> Result<Option<Found>> {
    let model = bench.fabricate(like, quant, None)?;
    let mut found = Found::default();
    found.number("file_bytes", fs::metadata(&model)?.len());
    let mut set = vec![];
    if let Some(budget) = budget {
        set.push(("run.device_memory", budget));
        forget(&model)?;
    }
    let first = bench.train(&model, tokens, 1, &set)?;
    first.report(&mut found);
    found.at_most("peak_of_plan", first.peak_bytes / first.planned_bytes, 1.05);
    if budget.is_some() {
        found.number("cold_s", first.whole_s);
        let again = bench.train(&model, tokens, 1, &set)?;
        found.number("warm_s", again.whole_s);
        found.number("warm_step_s", again.step_s());
        found.must("the same loss from the disk and from the cache", first.losses == again.losses);
    }
    fs::remove_file(model)?;
    Ok(Some(found))
}

/// 512 tokens of a 4B model in 4 bits, against the bare products: as a run goes through it by itself, and in less memory with
/// each block computed twice, whose products are a half more.
fn four_billion(bench: &Bench) -> Result<Option<Found>> {
    let model = bench.fabricate("qwen3-4b", "q4_0", None)?;
    let mut found = Found::default();
    let file = fs::metadata(&model)?.len() as f64;
    let always = ("run.recompute", "always");
    let ways: [(&str, &[(&str, &str)]); 2] = [("", &[]), ("_computed_twice", &[always])];
    for (way, set) in ways {
        // The speed of the products is taken before and after, since it drifts.
        let before = bench.products(&model, 512, 3, set)?;
        let trained = bench.train(&model, 512, 3, set)?;
        let products = (before + bench.products(&model, 512, 3, set)?) / 2.0;
        match way {
            "" => trained.report(&mut found),
            _ => found.number(&format!("peak_bytes{way}"), trained.peak_bytes),
        }
        found.number(&format!("products_s{way}"), products);
        let beside_the_file = (trained.peak_bytes - file) / f64::from(1 << 30);
        found.at_most(&format!("peak_gib_beside_the_file{way}"), beside_the_file, 3.5);
        found.at_most(&format!("peak_of_plan{way}"), trained.peak_bytes / trained.planned_bytes, 1.05);
        found.at_most(&format!("step_of_bare_products{way}"), trained.step_s() / products, 1.15);
    }
    fs::remove_file(model)?;
    Ok(Some(found))
}

/// Full fine-tuning in little memory.
fn full(bench: &Bench) -> Result<Option<Found>> {
    let model = bench.fabricate("qwen3-1.7b", "bf16", None)?;
    let mut found = Found::default();
    let set = [
        ("adapter.kind", "none"),
        ("run.storage", "bf16"),
        ("run.moments", "8bit"),
        ("optim.clipping", "twice"),
        ("run.recompute", "always"),
        ("optim.learning_rate", "1e-5"),
    ];
    let trained = bench.train(&model, 256, 2, &set)?;
    trained.report(&mut found);
    found.at_most("peak_gib", trained.peak_bytes / f64::from(1 << 30), 10.0);
    found.at_most("peak_of_plan", trained.peak_bytes / trained.planned_bytes, 1.05);
    fs::remove_file(model)?;
    Ok(Some(found))
}

/// Two blocks of a 4B model on documents of 2,048 to 16,384 tokens.
fn long(bench: &Bench) -> Result<Option<Found>> {
    let model = bench.fabricate("qwen3-4b", "q4_0", Some(2))?;
    let mut found = Found::default();
    let lengths = [2048, 4096, 8192, 16_384];
    let mut held = Vec::new();
    for tokens in lengths {
        let trained = bench.train(&model, tokens, 1, &[("run.recompute", "always")])?;
        found.number(&format!("peak_bytes_{tokens}"), trained.peak_bytes);
        found.number(&format!("step_s_{tokens}"), trained.step_s());
        held.push(trained.peak_bytes - fs::metadata(&model)?.len() as f64);
    }
    let growth = (held[3] / held[0]).ln() / (lengths[3] as f64 / lengths[0] as f64).ln();
    found.at_most("exponent_of_memory", growth, 1.05);
    fs::remove_file(model)?;
    Ok(Some(found))
}

/// Blocks in memory against blocks in the file.
fn streamed(bench: &Bench) -> Result<Option<Found>> {
    let Some(model) = bench.model else { return Ok(None) };
    let (model, mut found) = (Path::new(model), Found::default());
    let always = ("run.recompute", "always");
    let resident = bench.train(model, 512, 10, &[always])?;
    let budget = (resident.planned_bytes as u64 - (50 << 20)).to_string();
    let streamed = bench.train(model, 512, 10, &[always, ("run.device_memory", &budget)])?;
    streamed.report(&mut found);
    found.number("resident_step_s", resident.step_s());
    found.must("the same losses to the bit", resident.losses == streamed.losses);
    found.at_most("peak_of_resident", streamed.peak_bytes / resident.peak_bytes, 1.0);
    found.at_most("time_of_resident", streamed.step_s() / resident.step_s(), 1.15);
    Ok(Some(found))
}

/// A base in 4 bits, rounded by what it reads of the text that it is trained on, against one in single precision; beside them one
/// that is rounded element by element.
fn quantised_base(bench: &Bench) -> Result<Option<Found>> {
    let Some(model) = bench.model else { return Ok(None) };
    let (model, mut found) = (Path::new(model), Found::default());
    let rounded = bench.folder.join("rounded.gguf");
    let files = [model.display().to_string(), rounded.display().to_string()];
    bench.temper(&["quantize", "--to", "q4_0", "--calibrate", TEXT], &files)?;
    let train =
        |model: &Path, storage| bench.train(model, 256, 50, &[("run.storage", storage), ("run.recompute", "always")]);
    let (whole, plain, packed) = (train(model, "f32")?, train(model, "q4_0")?, train(&rounded, "auto")?);
    packed.report(&mut found);
    found.number("f32_step_s", whole.step_s());
    let last = |trained: &Trained| trained.losses.iter().rev().take(10).sum::<f64>() / 10.0;
    found.number("loss", last(&packed));
    found.number("f32_loss", last(&whole));
    found.number("plainly_rounded_loss", last(&plain));
    found.at_most("time_of_f32", packed.step_s() / whole.step_s(), 1.05);
    found.at_most("loss_off_f32", (last(&packed) / last(&whole) - 1.0).abs(), 0.02);
    Ok(Some(found))
}

/// A small model in little memory.
fn small(bench: &Bench) -> Result<Option<Found>> {
    let Some(model) = bench.model else { return Ok(None) };
    let mut found = Found::default();
    let trained = bench.train(Path::new(model), 512, 10, &[("run.recompute", "always")])?;
    trained.report(&mut found);
    found.number("tokens_per_second", 512.0 / trained.step_s());
    found.at_most("peak_resident_mib", trained.resident_bytes / f64::from(1 << 20), 700.0);
    Ok(Some(found))
}

impl Bench<'_> {
    fn fabricate(&self, like: &str, quant: &str, layers: Option<usize>) -> Result<PathBuf> {
        let out = self.folder.join(format!("{like}-{quant}.gguf"));
        let layers = layers.map(|layers| layers.to_string());
        let mut args = vec!["fabricate", "--like", like, "--quant", quant];
        if let Some(layers) = &layers {
            args.extend(["--layers", layers]);
        }
        self.temper(&args, &["--out".into(), out.display().to_string()])?;
        Ok(out)
    }

    /// A configuration that measures nothing before and after, which would take longer than the steps themselves.
    fn config(&self, model: &Path) -> Result<PathBuf> {
        let file = self.folder.join("run.toml");
        let path = toml::Value::String(model.display().to_string());
        fs::write(&file, format!("[model]\npath = {path}\n[data]\ntrain = \"{TEXT}\"\n"))?;
        Ok(file)
    }

    /// Seconds that a step's matrix products take alone, at the speed that is measured now.
    fn products(&self, model: &Path, tokens: usize, steps: usize, set: &[(&str, &str)]) -> Result<f64> {
        let args = arguments(&self.config(model)?, tokens, steps, set);
        let plan: Value = serde_json::from_slice(&self.temper(&["plan", "--json", "--device", "cpu"], &args)?)?;
        plan["seconds_per_step"].as_f64().context("seconds_per_step of a plan")
    }

    /// EAFT with an adapter of rank 16 on all linear layers, if `set` says nothing else.
    fn train(&self, model: &Path, tokens: usize, steps: usize, set: &[(&str, &str)]) -> Result<Trained> {
        let out = self.folder.join("run");
        let mut args = arguments(&self.config(model)?, tokens, steps, set);
        args.extend(["--out".into(), out.display().to_string()]);
        let begin = Instant::now();
        self.temper(&["train", "--device", "cpu"], &args)?;
        let whole_s = begin.elapsed().as_secs_f64();
        let read = |name: &str| fs::read_to_string(out.join(name)).with_context(|| format!("{name} of the run"));
        let summary: Value = serde_json::from_str(&read("summary.json")?)?;
        let of_memory = |pointer: &str| {
            summary["memory"].pointer(pointer).and_then(Value::as_f64).with_context(|| format!("memory{pointer}"))
        };
        let metrics = read("metrics.jsonl")?;
        let steps = metrics.lines().map(serde_json::from_str).collect::<serde_json::Result<Vec<Value>>>()?;
        let number = |step: &Value, field: &str| step[field].as_f64().with_context(|| format!("{field} of a step"));
        let trained = Trained {
            losses: steps.iter().map(|step| number(step, "loss")).collect::<Result<_>>()?,
            seconds: steps
                .iter()
                .map(|step| Ok(number(step, "tokens")? / number(step, "tokens_per_second")?))
                .collect::<Result<_>>()?,
            whole_s,
            planned_bytes: of_memory("/planned_peak_bytes")?,
            peak_bytes: of_memory("/peak_bytes")?,
            resident_bytes: of_memory("/measured_peak_resident_bytes/after_training")?,
        };
        fs::remove_dir_all(out)?;
        Ok(trained)
    }

    /// This program, with its own output kept for the error.
    fn temper(&self, args: &[&str], more: &[String]) -> Result<Vec<u8>> {
        let out = Command::new(std::env::current_exe()?).args(args).args(more).stdin(Stdio::null()).output()?;
        if !out.status.success() {
            bail!("temper {} {}: {}", args.join(" "), more.join(" "), String::from_utf8_lossy(&out.stderr));
        }
        Ok(out.stdout)
    }
}

fn arguments(config: &Path, tokens: usize, steps: usize, set: &[(&str, &str)]) -> Vec<String> {
    let own = [
        ("data.cutoff_length", tokens.to_string()),
        ("run.batch_tokens", tokens.to_string()),
        ("run.accumulation", "1".into()),
        ("run.steps", steps.to_string()),
        ("adapter.rank", "16".into()),
    ];
    let own = own.iter().map(|(key, value)| format!("{key}={value}"));
    let set = set.iter().map(|(key, value)| format!("{key}={value}"));
    let sets = own.chain(set).flat_map(|set| ["--set".to_string(), set]);
    std::iter::once(config.display().to_string()).chain(sets).collect()
}

/// Takes a file out of the system's cache, where the system can.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open for as long as the call takes.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    drop(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_above_what_it_may_be_and_one_that_is_none_do_not_hold() {
        let mut found = Found::default();
        for (value, holds) in [(1.0, true), (1.01, true), (1.02, false), (f64::NAN, false)] {
            found.at_most("time", value, 1.01);
            assert_eq!(found.musts.last().map(|(_, holds)| *holds), Some(holds), "{value}");
        }
    }
}
