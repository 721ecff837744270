//! `temper bench hardware`: all that is worth knowing of a card, within a few minutes and without a network: whether its
//! kernels are right, how fast products, loss, head and whole steps are, in single precision and, where the card is faster
//! so, in half. Every part is a process of its own with a limit of its own, and its result is written before the next one
//! begins, so that a driver that falls over or hangs, or a clock that runs out, costs one part.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;
use temper_engine::Device;

use crate::cli::BenchHardwareArgs;
use crate::files::io_error;
use crate::output;

/// When a part is ended, however much time is left.
const MOST: Duration = Duration::from_secs(90);
/// The same for a model that is written, or checked on the CPU and trained.
const MOST_OF_A_MODEL: Duration = Duration::from_secs(150);
/// How long a part that was ended may take to be gone: a driver may keep it for ever.
const GONE: Duration = Duration::from_secs(5);

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
        Some(folder) => tempfile::tempdir_in(folder).map_err(|error| io_error(folder, &error))?,
        None => tempfile::tempdir()?,
    };
    let end = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let mut tour = Tour { folder: folder.path(), out: args.json.as_deref(), device, end, failed: Vec::new() };
    let found = tour.part("devices", MOST, &["devices", "--json"])?;
    if let Some(problem) = nothing_to_see(found.as_deref(), device) {
        bail!("{problem}");
    }
    let calibrate = ["devices", "--calibrate", "--json"];
    let mut calibrated = tour.part("calibrate", MOST, &calibrate)?.unwrap_or_default();
    if calibrated.iter().any(|line| line["cut_off"] == true) {
        // What took the time was compiling, as a rule, and that is done.
        calibrated = tour.part("calibrate again", MOST, &calibrate)?.unwrap_or_default();
    }
    let halves = calibrated.iter().any(|line| line["kernel"] == "cooperative" && line["taken"] == true);
    tour.part("self-test", MOST, &["devices", "--self-test", "--json"])?;
    for shape in PRODUCTS {
        for layout in ["nt", "nn"] {
            let product = ["bench", "product", "--shape", shape, "--layout", layout, "--repeat", "5", "--json"];
            tour.part(&format!("product {shape} {layout}"), MOST, &product)?;
        }
    }
    let loss = ["bench", "loss", "--rows", "256", "--vocab", "151936", "--repeat", "5", "--json"];
    tour.part("loss", MOST, &loss)?;
    for (like, quant) in MODELS {
        let model = tour.folder.join(format!("{like}-{quant}.gguf"));
        let file = model.display().to_string();
        let fabricate = ["fabricate", "--like", like, "--quant", quant, "--out", &file];
        if tour.part(&format!("fabricate {like}"), MOST_OF_A_MODEL, &fabricate)?.is_none() {
            continue;
        }
        for compute in ["f32", "auto"] {
            let name = format!("step {like} {compute}");
            if compute == "auto" && !halves {
                tour.leave_out(&name, "the calibration chose no tensor cores: it would be f32 again")?;
                continue;
            }
            let step = ["bench", "step", "--model", &file, "--compute", compute, "--tokens", "512"];
            let how = ["--check-tokens", CHECKED_TOKENS, "--repeat", "3", "--profile", "--json"];
            tour.part(&name, MOST_OF_A_MODEL, &[&step[..], &how].concat())?;
        }
        fs::remove_file(&model)?;
    }
    let head = ["bench", "head", "--rows", "512", "--hidden", "2560", "--vocab", "151936", "--repeat", "3", "--json"];
    tour.part("head", MOST, &head)?;
    if tour.failed.is_empty() { Ok(()) } else { bail!("not done, or wrong: {}", tour.failed.join(", ")) }
}

/// Why a tour would show nothing: no device was found, or only the CPU, for which nobody asked. With what there is.
fn nothing_to_see(found: Option<&[Value]>, wanted: Option<&str>) -> Option<String> {
    let Some([found, ..]) = found else { return Some("it is not known which device this would be a tour of".into()) };
    let asked = wanted.is_some_and(|wanted| wanted.trim().eq_ignore_ascii_case("cpu"));
    if asked || found["chosen"] != Device::cpu().name() {
        return None;
    }
    let named = |adapter: &Value| Some(format!("{} ({})", adapter["id"].as_str()?, adapter["name"].as_str()?));
    let adapters: Vec<String> = found["adapters"].as_array().into_iter().flatten().filter_map(named).collect();
    let adapters = if adapters.is_empty() { "none".to_string() } else { adapters.join(", ") };
    Some(format!(
        "this would be a tour of the CPU, and a card was meant; adapters found: {adapters}. A card needs its driver \
         and its API's loader (Vulkan on Linux: libvulkan.so.1); --device names another device, or cpu"
    ))
}

/// What all parts share.
struct Tour<'a> {
    folder: &'a Path,
    out: Option<&'a Path>,
    device: Option<&'a str>,
    end: Instant,
    /// Parts that were not done, or found something wrong.
    failed: Vec<String>,
}

/// What became of a part. One JSON line.
#[derive(Serialize)]
struct Part<'a> {
    bench: &'static str,
    part: &'a str,
    ok: bool,
    seconds: f64,
    /// Why it is not ok.
    problem: Option<String>,
    /// Why it was left out.
    left_out: Option<&'a str>,
    /// What was said beside the lines.
    said: String,
    lines: Vec<Value>,
}

impl Tour<'_> {
    /// Runs this program once, for so long at most, and writes what it printed. That is given back where all went well.
    fn part(&mut self, name: &str, most: Duration, args: &[&str]) -> Result<Option<Vec<Value>>> {
        let begin = Instant::now();
        let (printed, said, problem) = match begin < self.end {
            true => self.child(args, self.end.min(begin + most))?,
            false => (String::new(), String::new(), Some("there was no time left".to_string())),
        };
        let lines: Vec<Value> = printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let (ok, seconds) = (problem.is_none(), begin.elapsed().as_secs_f64());
        let part = Part { bench: "hardware", part: name, ok, seconds, problem, left_out: None, said, lines };
        self.write(&part)?;
        if !ok {
            self.failed.push(name.into());
        }
        Ok(ok.then_some(part.lines))
    }

    /// Says why a part is not worth its time.
    fn leave_out(&self, name: &str, why: &str) -> Result<()> {
        self.write(&Part {
            bench: "hardware",
            part: name,
            ok: true,
            seconds: 0.0,
            problem: None,
            left_out: Some(why),
            said: String::new(),
            lines: Vec::new(),
        })
    }

    fn write(&self, part: &Part) -> Result<()> {
        if let Some(out) = self.out {
            let mut out = OpenOptions::new().create(true).append(true).open(out)?;
            writeln!(out, "{}", serde_json::to_string(part)?)?;
            out.sync_all()?;
        }
        let told = part.lines.iter().filter_map(told);
        let why = part.problem.clone().or(part.left_out.map(|why| format!("left out: {why}")));
        let told = told.chain(why).collect::<Vec<_>>().join("; ");
        output::text(&format!("{:<28} {:>6.1} s  {told}\n", part.part, part.seconds))
    }

    /// What a child printed until then, on stdout and stderr, and what went wrong.
    fn child(&self, args: &[&str], end: Instant) -> Result<(String, String, Option<String>)> {
        let (stdout, stderr) = (self.folder.join("stdout"), self.folder.join("stderr"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args);
        if let Some(device) = self.device.filter(|_| args[0] != "fabricate") {
            command.args(["--device", device]);
        }
        let begin = Instant::now();
        let mut child =
            command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).spawn()?;
        let mut ended = None;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            let now = Instant::now();
            match ended {
                None if now > end => {
                    child.kill()?;
                    ended = Some(now);
                }
                Some(at) if now > at + GONE => break None,
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let read = |file: &PathBuf| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        let (printed, said) = (read(&stdout)?, read(&stderr)?);
        let problem = match (status, ended) {
            (Some(status), None) if status.success() => None,
            (Some(status), None) => Some(format!("{status}: {said}")),
            (_, at) => Some(format!("cut off after {:.0} s", at.map_or(0.0, |at| (at - begin).as_secs_f64()))),
        };
        Ok((printed, said, problem))
    }
}

/// A child's line in short.
fn told(line: &Value) -> Option<String> {
    let (text, number) = (|name: &str| line[name].as_str(), |name: &str| line[name].as_f64());
    let name = text("kernel").or(text("variant"));
    // Which device was chosen, and what is wrong.
    if let Some(said) = text("why").or(text("problem")) {
        return Some(name.map_or(said.into(), |name| format!("{name}: {said}")));
    }
    let (name, ms) = (name?, number("median_s").or(number("seconds")).unwrap_or(f64::NAN) * 1e3);
    match text("bench") {
        Some("product") => Some(format!("{name} {:.0} GFLOP/s", number("gflops")?)),
        Some("profile") => None,
        Some(_) => {
            let products = text("products").map_or(String::new(), |products| format!(" {products}"));
            Some(format!("{name} {ms:.1} ms, {:.0} tokens/s{products}", number("tokens_per_second")?))
        }
        // A calibration.
        None => (line["taken"] == true).then(|| format!("{} {name} {ms:.3} ms", text("class").unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tour_of_the_cpu_that_nobody_asked_for_ends_with_what_there_is() {
        let see = |chosen: &str, adapters: Value, wanted| {
            nothing_to_see(Some(&[json!({ "chosen": chosen, "why": "so", "adapters": adapters })]), wanted)
        };
        let none = see("CPU", json!([]), None).expect("nothing was found");
        assert!(none.contains("adapters found: none") && none.contains("loader"), "{none}");
        let software = json!([{ "id": "vulkan:0", "name": "a processor" }]);
        let some = see("CPU", software.clone(), Some("auto")).expect("no card was found");
        assert!(some.contains("adapters found: vulkan:0 (a processor)"), "{some}");
        assert_eq!(see("CPU", software.clone(), Some(" CPU")), None);
        assert_eq!(see("a processor (vulkan:0)", software, Some("vulkan")), None);
        assert!(nothing_to_see(None, Some("cpu")).is_some() && nothing_to_see(Some(&[]), None).is_some());
    }

    #[test]
    fn what_is_wrong_and_what_was_chosen_is_told_of_a_line() {
        let lines = [
            json!({ "chosen": "A card", "why": "A card: the first", "adapters": [] }),
            json!({ "class": "wide", "kernel": "tiled", "seconds": 0.002, "taken": false }),
            json!({ "class": "wide", "kernel": "cooperative", "seconds": 0.0005, "taken": true }),
            json!({ "bench": "product", "kernel": "tiled", "median_s": 0.1, "gflops": 7.0 }),
            json!({ "bench": "product", "kernel": "cooperative", "problem": "computes wrong" }),
            json!({
                "bench": "step", "variant": "temper sft", "median_s": 0.5, "tokens_per_second": 9.0,
                "products": "in single precision",
            }),
            json!({ "kernel": "gate", "passed": true }),
        ];
        let want = [
            "A card: the first",
            "wide cooperative 0.500 ms",
            "tiled 7 GFLOP/s",
            "cooperative: computes wrong",
            "temper sft 500.0 ms, 9 tokens/s in single precision",
        ];
        assert_eq!(lines.iter().filter_map(told).collect::<Vec<_>>(), want);
    }
}
