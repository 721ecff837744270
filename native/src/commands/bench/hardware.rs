//! `temper bench hardware`: all that is worth knowing of a card, within a few minutes and without a network: whether its kernels
//! are right, how fast products, loss, head and whole steps are. Every part is a process of its own and its result is written
//! before the next one begins, so that a driver that falls over, or a clock that runs out, costs one part.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cli::BenchHardwareArgs;
use crate::output;

/// Rows, depth and columns of the products of Qwen3-4B over 512 tokens: q, k and v; gate and up; down; and a cube for the peak.
const PRODUCTS: &[&str] = &["512x2560x6144", "512x2560x19456", "512x9728x2560", "4096x4096x4096"];

/// Models that are fabricated and trained for some steps.
const MODELS: &[(&str, &str)] =
    &[("qwen3-0.6b", "q8_0"), ("qwen3-1.7b", "q4_k"), ("qwen3-4b", "q4_k"), ("qwen3-8b", "q4_k")];

/// Part of the text against which a step is checked on the CPU, which takes long for large models.
const CHECKED_TOKENS: &str = "32";

/// Runs the benchmark.
pub fn run(args: &BenchHardwareArgs, device: Option<&str>) -> Result<()> {
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder).with_context(|| format!("--folder {}", folder.display()))?,
        None => tempfile::tempdir()?,
    };
    let end = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let tour = Tour { folder: folder.path(), out: args.json.as_deref(), device, end };
    let mut failed = Vec::new();
    let mut part = |name: &str, args: &[&str]| -> Result<bool> {
        let done = tour.part(name, args)?;
        if !done {
            failed.push(name.to_string());
        }
        Ok(done)
    };
    part("devices", &["devices", "--json"])?;
    part("self-test", &["devices", "--self-test", "--json"])?;
    for shape in PRODUCTS {
        for layout in ["nt", "nn"] {
            let name = format!("product {shape} {layout}");
            part(&name, &["bench", "product", "--shape", shape, "--layout", layout, "--repeat", "5", "--json"])?;
        }
    }
    part("loss", &["bench", "loss", "--rows", "256", "--vocab", "151936", "--repeat", "5", "--json"])?;
    for (like, quant) in MODELS {
        let model = tour.folder.join(format!("{like}-{quant}.gguf"));
        let file = model.display().to_string();
        let made =
            part(&format!("fabricate {like}"), &["fabricate", "--like", like, "--quant", quant, "--out", &file])?;
        if made {
            let step = ["bench", "step", "--model", &file, "--tokens", "512", "--check-tokens", CHECKED_TOKENS];
            part(&format!("step {like}"), &[&step[..], &["--repeat", "3", "--profile", "--json"]].concat())?;
            fs::remove_file(&model)?;
        }
    }
    let head = ["bench", "head", "--rows", "512", "--hidden", "2560", "--vocab", "151936"];
    part("head", &[&head[..], &["--repeat", "3", "--json"]].concat())?;
    if failed.is_empty() { Ok(()) } else { bail!("not done, or wrong: {}", failed.join(", ")) }
}

/// What all parts share.
struct Tour<'a> {
    folder: &'a Path,
    out: Option<&'a Path>,
    device: Option<&'a str>,
    end: Instant,
}

impl Tour<'_> {
    /// Runs this program once, and writes what it printed. False where it failed or there was no time for it.
    fn part(&self, name: &str, args: &[&str]) -> Result<bool> {
        let begin = Instant::now();
        let (printed, problem) = match self.end.checked_duration_since(begin) {
            None => (String::new(), Some("there was no time left".to_string())),
            Some(_) => self.child(args)?,
        };
        let lines: Vec<Value> = printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let seconds = begin.elapsed().as_secs_f64();
        let line = json!({
            "bench": "hardware", "part": name, "ok": problem.is_none(), "seconds": seconds, "problem": problem, "lines": lines,
        });
        if let Some(out) = self.out {
            let mut out = OpenOptions::new().create(true).append(true).open(out)?;
            writeln!(out, "{line}")?;
            out.sync_all()?;
        }
        let said = problem.unwrap_or_else(|| lines.iter().filter_map(told).collect::<Vec<_>>().join("; "));
        output::text(&format!("{name:<28} {seconds:>6.1} s  {said}\n"))?;
        Ok(line["ok"] == true)
    }

    /// What a child printed, and what went wrong.
    fn child(&self, args: &[&str]) -> Result<(String, Option<String>)> {
        let (stdout, stderr) = (self.folder.join("stdout"), self.folder.join("stderr"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args);
        if let Some(device) = self.device.filter(|_| args[0] != "fabricate") {
            command.args(["--device", device]);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() > self.end {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let read = |file: &PathBuf| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let problem = match status {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{status}: {}", read(&stderr)?.trim())),
            None => Some("cut off: the time was over".into()),
        };
        Ok((read(&stdout)?, problem))
    }
}

/// A child's line in short.
fn told(line: &Value) -> Option<String> {
    let number = |name: &str| line[name].as_f64();
    let name = line["kernel"].as_str().or(line["variant"].as_str())?;
    match line["bench"].as_str()? {
        "product" => Some(format!("{name} {:.0} GFLOP/s", number("gflops")?)),
        "profile" => None,
        _ => Some(format!("{name} {:.1} ms, {:.0} tokens/s", number("median_s")? * 1e3, number("tokens_per_second")?)),
    }
}
