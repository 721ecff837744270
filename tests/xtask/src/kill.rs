//! `kill`: runs that are interrupted at any moment, and run folders in which something was altered.
//!
//! A *kill* starts a small run of the demo model, ends its process at random moments (mostly so that it notices nothing, some
//! of the time with a signal that asks it to stop) and goes on with it until it finishes. All that it leaves must be what the
//! same run leaves that nobody interrupts, to the bit, but for times and memory.
//!
//! An *alteration* takes the folder of a run that was killed half-way, changes one thing in it, in its model or in its data,
//! and goes on with it. That must be refused with a message, or leave the same to the bit; a damaged line of metrics must be
//! named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Failure, root, web};

/// How many of each the tests do.
const FEW: (u64, u64) = (5, 40);
/// A run that takes longer than this hangs.
const TOO_LONG: Duration = Duration::from_secs(600);

/// `kill` with its arguments.
pub fn run(arguments: &[&str]) -> Result<(), Failure> {
    let (mut runs, mut alterations, mut seed) = (20, 0, 1);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().and_then(|value| value.parse().ok());
        let value: u64 = value.ok_or_else(|| format!("{name} takes a number"))?;
        match *name {
            "--runs" => runs = value,
            "--alterations" => alterations = value,
            "--seed" => seed = value,
            other => return Err(format!("kill knows --runs, --alterations and --seed, not {other}")),
        }
    }
    println!("{}", campaign(runs, alterations, seed)?);
    Ok(())
}

/// A handful, for the tests.
pub fn few() -> Result<String, Failure> {
    campaign(FEW.0, FEW.1, 1)
}

fn campaign(runs: u64, alterations: u64, seed: u64) -> Result<String, Failure> {
    let work = std::env::temp_dir().join(format!("temper-kill-{}", std::process::id()));
    let program = web::target_folder()?.join("release").join(format!("temper{}", std::env::consts::EXE_SUFFIX));
    if !program.exists() {
        return Err(format!("{} is not built yet: cargo build --release", program.display()));
    }
    let lab = Lab { work, program, seed };
    lab.lay_out()?;
    let mut said = Vec::new();
    let mut failed = 0;
    if runs > 0 {
        let (line, wrong) = lab.kills(runs)?;
        said.push(line);
        failed += wrong;
    }
    if alterations > 0 {
        let (line, wrong) = lab.alterations(alterations)?;
        said.push(line);
        failed += wrong;
    }
    let said = said.join("; ");
    if failed > 0 {
        return Err(format!("{said}; what differed is above, and the folder {} is left", lab.work.display()));
    }
    let _ = fs::remove_dir_all(&lab.work);
    Ok(said)
}

/// The runs of the kills: their name and what they set.
const KINDS: [(&str, &[&str]); 3] = [
    ("adapter", &["adapter.kind=lora", "adapter.rank=4", "adapter.dropout=0.1", "run.baseline=sft"]),
    ("full", &["run.accumulation=2", "objective.method=mile"]),
    ("sparse", &["run.save_every=3", "run.eval_every=3", "run.log_every=4", "run.keep=1", "optim.max_grad_norm=0"]),
];

struct Lab {
    work: PathBuf,
    program: PathBuf,
    seed: u64,
}

/// How a process ended, and what it said.
struct Ended {
    /// None where a signal ended it.
    code: Option<i32>,
    stderr: String,
}

impl Lab {
    /// The model, data of which little is left, and a configuration.
    fn lay_out(&self) -> Result<(), Failure> {
        let demo = root().join("native/demo");
        self.io(fs::create_dir_all(self.at("model")))?;
        for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            self.io(fs::copy(demo.join("base").join(file), self.at("model").join(file)))?;
        }
        for (file, lines) in [("train.jsonl", 40), ("target.jsonl", 4), ("general.txt", 6)] {
            let text = self.io(fs::read_to_string(demo.join(file)))?;
            let first: String = text.split_inclusive('\n').take(lines).collect();
            self.io(fs::write(self.at(file), first))?;
        }
        let path = |name: &str| format!("{:?}", self.at(name).display().to_string());
        let text = format!(
            "[model]\npath = {}\n[data]\ntrain = {}\ntarget = {}\ngeneral = {}\ncutoff_length = 256\non_error = \"skip\"\n[adapter]\n\
             kind = \"none\"\n[optim]\nlearning_rate = 3e-4\n[run]\nsteps = 12\nbatch_tokens = 256\naccumulation = 1\n\
             save_every = 2\neval_every = 2\ndevice = \"cpu\"\n",
            path("model"),
            path("train.jsonl"),
            path("target.jsonl"),
            path("general.txt"),
        );
        self.io(fs::write(self.at("run.toml"), text))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn io<T>(&self, result: std::io::Result<T>) -> Result<T, Failure> {
        result.map_err(|error| format!("{}: {error}", self.work.display()))
    }

    /// Begins the run in this folder, or goes on with it where it has begun.
    fn command(&self, out: &Path, set: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("train");
        if out.join("config.toml").exists() {
            command.arg("--resume");
        } else {
            command.arg(self.at("run.toml"));
            for set in set {
                command.args(["--set", set]);
            }
        }
        command.arg("--out").arg(out).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs to the end, or until this moment, when the signal is sent.
    fn process(&self, out: &Path, set: &[&str], until: Option<(Duration, &str)>) -> Result<Ended, Failure> {
        let said = self.at("stderr");
        let stderr = self.io(fs::File::create(&said))?;
        let begin = Instant::now();
        let start = self.command(out, set).stderr(stderr).spawn();
        let mut child = start.map_err(|error| format!("{}: {error}", self.program.display()))?;
        let mut until = until;
        let status = loop {
            if let Some(status) = self.io(child.try_wait())? {
                break status;
            }
            match until {
                Some((moment, signal)) if begin.elapsed() >= moment => {
                    match signal {
                        "KILL" => self.io(child.kill())?,
                        other => {
                            let id = child.id().to_string();
                            self.io(Command::new("kill").args([&format!("-{other}"), &id]).status())?;
                        }
                    }
                    until = None;
                }
                _ if begin.elapsed() > TOO_LONG => {
                    self.io(child.kill())?;
                    return Err(format!("a run in {} does not come to its end", out.display()));
                }
                _ => sleep(Duration::from_micros(500)),
            }
        };
        let stderr = String::from_utf8_lossy(&self.io(fs::read(&said))?).into_owned();
        Ok(Ended { code: status.code(), stderr })
    }

    /// A run that nobody interrupts, and how long it took.
    fn whole(&self, name: &str, set: &[&str]) -> Result<(PathBuf, Duration), Failure> {
        let out = self.at(&format!("whole-{name}"));
        let begin = Instant::now();
        let ended = self.process(&out, set, None)?;
        match ended.code {
            Some(0) => Ok((out, begin.elapsed())),
            _ => Err(format!("the uninterrupted run failed: {}", ended.stderr)),
        }
    }

    fn kills(&self, runs: u64) -> Result<(String, u64), Failure> {
        let wholes = KINDS.iter().map(|(name, set)| self.whole(name, set)).collect::<Result<Vec<_>, _>>()?;
        let (mut interruptions, mut differed) = (0, 0);
        let begin = Instant::now();
        for run in 0..runs {
            let mut random = Random(self.seed.wrapping_mul(1 << 32).wrapping_add(run));
            let kind = random.below(KINDS.len() as u64) as usize;
            let ((name, set), (whole, length)) = (KINDS[kind], &wholes[kind]);
            let out = self.at("killed");
            let mut moments = Vec::new();
            let mut problem = None;
            for left in (0..=1 + random.below(4)).rev() {
                let moment = length.mul_f64(random.below(1100) as f64 / 1000.0);
                let signal = match random.below(10) {
                    0 if cfg!(unix) => "INT",
                    1 | 2 if cfg!(unix) => "TERM",
                    _ => "KILL",
                };
                let ended = self.process(&out, set, (left > 0).then_some((moment, signal)))?;
                if left > 0 {
                    moments.push(format!("{signal} after {:.3} s", moment.as_secs_f64()));
                }
                match ended.code {
                    Some(0 | 130) | None if left > 0 => {}
                    // How Windows reports a process that was ended.
                    Some(1) if left > 0 && cfg!(windows) => {}
                    Some(0) => {}
                    code => {
                        problem = Some(format!("ended with {code:?}: {}", ended.stderr.trim_end()));
                        break;
                    }
                }
            }
            interruptions += moments.len();
            let differences = match problem {
                Some(problem) => vec![problem],
                None => differences(&left(whole)?, &left(&out)?),
            };
            if differences.is_empty() {
                self.io(fs::remove_dir_all(&out))?;
            } else {
                differed += 1;
                let kept = self.at(&format!("differs-{run}"));
                self.io(fs::rename(&out, &kept))?;
                println!("run {run} of seed {} ({name}; {}):", self.seed, moments.join(", "));
                differences.iter().for_each(|difference| println!("  {difference}"));
            }
        }
        let seconds = begin.elapsed().as_secs();
        Ok((format!("{runs} runs, {interruptions} interruptions, {differed} differ ({seconds} s)"), differed))
    }

    fn alterations(&self, count: u64) -> Result<(String, u64), Failure> {
        let set = ["adapter.kind=lora", "adapter.rank=4", "run.keep=100", "run.steps=8"];
        let (whole, _) = self.whole("altered", &set)?;
        let want = left(&whole)?;
        // As if it had been killed after step 5.
        let half = self.at("half");
        self.io(copy_folder(&whole, &half))?;
        for gone in ["adapter", "checkpoints/step-00000006", "checkpoints/step-00000008"] {
            self.io(fs::remove_dir_all(half.join(gone)))?;
        }
        for gone in ["summary.json", "report.html"] {
            self.io(fs::remove_file(half.join(gone)))?;
        }
        let (mut refused, mut same, mut warned, mut wrong) = (0, 0, 0, 0);
        let begin = Instant::now();
        for number in 0..count {
            let out = self.at("altered");
            self.io(copy_folder(&half, &out))?;
            let mut random = Random((self.seed ^ 0xA17E).wrapping_mul(1 << 32).wrapping_add(number));
            let altered = self.alter(&out, &mut random)?;
            let ended = self.process(&out, &set, None)?;
            let said = ended.stderr.lines().any(|line| line.starts_with("temper: error:"));
            let problem = match ended.code {
                Some(1 | 2) if said => {
                    refused += 1;
                    None
                }
                Some(0) => {
                    let mut differences = differences(&want, &left(&out)?);
                    // The lines of metrics are kept as far as they can be read, and it is said where they cannot.
                    let named = ended.stderr.lines().any(|l| l.starts_with("warning:") && l.contains("metrics.jsonl"));
                    let before = differences.len();
                    differences.retain(|difference| !named || !difference.starts_with("metrics.jsonl"));
                    match (differences.is_empty(), before) {
                        (true, 0) => same += 1,
                        (true, _) => warned += 1,
                        (false, _) => {}
                    }
                    (!differences.is_empty()).then(|| differences.join("\n  "))
                }
                code => Some(format!("ended with {code:?}: {}", ended.stderr.trim_end())),
            };
            if let Some(problem) = problem {
                wrong += 1;
                println!("alteration {number} of seed {} ({}):\n  {problem}", self.seed, altered.what);
            }
            if let Some((path, before)) = altered.outside {
                self.io(fs::write(path, before))?;
            }
            self.io(fs::remove_dir_all(&out))?;
        }
        let seconds = begin.elapsed().as_secs();
        let line = format!(
            "{count} alterations: {refused} refused, {same} without effect, {warned} named in a warning, {wrong} wrong \
             ({seconds} s)"
        );
        Ok((line, wrong))
    }

    /// Changes one thing.
    fn alter(&self, out: &Path, random: &mut Random) -> Result<Altered, Failure> {
        let mut inside = self.io(files(out))?;
        inside.sort();
        let any = inside[random.below(inside.len() as u64) as usize].clone();
        let name = any.strip_prefix(out).unwrap_or(&any).display().to_string();
        let mut bytes = self.io(fs::read(&any))?;
        let length = bytes.len().max(1) as u64;
        let here = |what: String| Ok(Altered { what, outside: None });
        match random.below(8) {
            0 | 1 if !bytes.is_empty() => {
                let (at, bit) = (random.below(length) as usize, random.below(8));
                bytes[at] ^= 1 << bit;
                self.io(fs::write(&any, bytes))?;
                here(format!("bit {bit} of byte {at} of {name}"))
            }
            2 => {
                let keep = random.below(length) as usize;
                self.io(fs::write(&any, &bytes[..keep.min(bytes.len())]))?;
                here(format!("{name} cut off after {keep} bytes"))
            }
            3 => {
                self.io(fs::remove_file(&any))?;
                here(format!("{name} removed"))
            }
            4 => {
                let [from, to] = ["step-00000002", "step-00000004"].map(|step| out.join("checkpoints").join(step));
                if random.below(4) == 0 {
                    self.io(fs::remove_dir_all(&to))?;
                    if random.below(2) == 0 {
                        self.io(fs::rename(&from, &to))?;
                        return here("a checkpoint renamed over the newest one".into());
                    }
                    return here("the newest checkpoint removed".into());
                }
                let names = ["state.json", "trained.safetensors", "optimiser.safetensors", "record.json"];
                let name = names[random.below(4) as usize];
                self.io(fs::copy(from.join(name), to.join(name)))?;
                here(format!("{name} of another checkpoint"))
            }
            5 | 6 => {
                let config = out.join("config.toml");
                let text = self.io(fs::read_to_string(&config))?;
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                let keys: Vec<usize> = (0..lines.len()).filter(|&line| lines[line].contains(" = ")).collect();
                let line = keys[random.below(keys.len() as u64) as usize];
                let before = lines[line].clone();
                lines[line] = another_value(&before, random);
                let what = format!("{before:?} is {:?}", lines[line]);
                self.io(fs::write(&config, lines.join("\n") + "\n"))?;
                here(what)
            }
            _ => {
                let names =
                    ["model/model.safetensors", "model/config.json", "train.jsonl", "target.jsonl", "general.txt"];
                let name = names[random.below(names.len() as u64) as usize];
                let path = self.at(name);
                let before = self.io(fs::read(&path))?;
                let mut after = before.clone();
                let at = random.below(after.len() as u64) as usize;
                let what = if random.below(4) == 0 {
                    after.truncate(at);
                    format!("{name} cut off after {at} bytes")
                } else {
                    after[at] ^= 1 << random.below(7);
                    format!("byte {at} of {name}")
                };
                self.io(fs::write(&path, after))?;
                Ok(Altered { what, outside: Some((path, before)) })
            }
        }
    }
}

/// What was altered, and what to put back outside of the run's folder.
struct Altered {
    what: String,
    outside: Option<(PathBuf, Vec<u8>)>,
}

/// A line `key = value` with a value that may be one too.
fn another_value(line: &str, random: &mut Random) -> String {
    let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
    let other = match value {
        "true" => "false".to_string(),
        "false" => "true".to_string(),
        text if text.starts_with('"') => {
            let others =
                ["\"sft\"", "\"eaft\"", "\"none\"", "\"lora\"", "\"auto\"", "\"cosine\"", "\"linear\"", "\"f16\""];
            others[random.below(others.len() as u64) as usize].to_string()
        }
        number => match (number.parse::<u64>(), number.parse::<f64>()) {
            (Ok(whole), _) => (if random.below(2) == 0 { whole * 2 + 1 } else { whole.saturating_sub(1) }).to_string(),
            (_, Ok(real)) => format!("{:?}", if random.below(2) == 0 { real * 2.0 } else { real * 0.99 }),
            _ => format!("{number} "),
        },
    };
    format!("{key} = {other}")
}

/// All that a run has left, by name, without what is measured in seconds and bytes of memory.
fn left(out: &Path) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let io = |error: std::io::Error| format!("{}: {error}", out.display());
    let newest = fs::read_dir(out.join("checkpoints")).map_err(io)?;
    let newest = newest.flatten().map(|entry| entry.path()).max();
    let mut all = BTreeMap::new();
    for path in files(out).map_err(io)? {
        let inside = path.strip_prefix(out).unwrap_or(&path).to_path_buf();
        let name = inside.display().to_string();
        // An older checkpoint may stem from before an alteration.
        let older =
            inside.starts_with("checkpoints") && newest.as_ref().is_some_and(|newest| !path.starts_with(newest));
        // Of the report and of what TensorBoard reads all comes from the other files, and times.
        if name == "report.html" || name.ends_with("events.out.tfevents.temper") || older {
            continue;
        }
        let bytes = fs::read(&path).map_err(io)?;
        let measured: &[&str] = match inside.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
            "metrics.jsonl" => &["tokens_per_second", "peak_device_bytes", "seconds"],
            // A run that was gone on with says from which step.
            "summary.json" => &["tokens_per_second", "peak_device_bytes", "seconds", "memory", "started"],
            "state.json" => &["seconds", "state"],
            "record.json" => &["state", "digest", "metrics"],
            _ => &[],
        };
        let bytes = match String::from_utf8(bytes) {
            Ok(text) => without(&text, measured).into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        all.insert(name, bytes);
    }
    Ok(all)
}

/// JSON without the values of these keys.
fn without(text: &str, keys: &[&str]) -> String {
    keys.iter().fold(text.to_owned(), |text, key| {
        let mut rest = text.as_str();
        let mut out = String::new();
        let mark = format!("\"{key}\":");
        while let Some(at) = rest.find(&mark) {
            let (before, after) = rest.split_at(at + mark.len());
            out.push_str(before);
            rest = &after[value_length(after)..];
        }
        out + rest
    })
}

/// Length of the JSON value that the text begins with.
fn value_length(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' => depth += 1,
            '}' | ']' | ',' if depth == 0 => return at,
            '}' | ']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// What differs between what two runs left.
fn differences(want: &BTreeMap<String, Vec<u8>>, got: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, bytes) in want {
        match got.get(name) {
            None => all.push(format!("{name} is missing")),
            Some(other) if other != bytes => {
                let at = bytes.iter().zip(other).take_while(|(a, b)| a == b).count();
                let around = |bytes: &[u8]| {
                    let range = at.saturating_sub(60)..(at + 60).min(bytes.len());
                    String::from_utf8_lossy(&bytes[range]).escape_debug().to_string()
                };
                let (sizes, texts) = ((bytes.len(), other.len()), (around(bytes), around(other)));
                all.push(format!("{name} differs at byte {at} ({sizes:?} bytes): {:?} and not {:?}", texts.1, texts.0));
            }
            Some(_) => {}
        }
    }
    all.extend(got.keys().filter(|name| !want.contains_key(*name)).map(|name| format!("{name} is left over")));
    all
}

/// All files in a folder and below.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    for path in files(from)? {
        let copy = to.join(path.strip_prefix(from).unwrap_or(&path));
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::copy(&path, copy)?;
    }
    Ok(())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_left_out_and_nothing_else_is() {
        let text = r#"{"step":3,"seconds":1.5,"more":{"seconds":2},"memory":{"a":[1,"}"],"b":{}},"loss":0.25}"#;
        let want = r#"{"step":3,"seconds":,"more":{"seconds":},"memory":,"loss":0.25}"#;
        assert_eq!(without(text, &["seconds", "memory"]), want);
        assert_eq!(without(text, &[]), text);
    }

    #[test]
    fn a_difference_names_its_file() {
        let of = |files: &[(&str, &str)]| -> BTreeMap<String, Vec<u8>> {
            files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).collect()
        };
        let want = of(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert!(differences(&want, &want).is_empty());
        let found = differences(&want, &of(&[("a", "1"), ("b", "4"), ("d", "3")]));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].starts_with("b differs at byte 0") && found[1] == "c is missing" && found[2] == "d is left over"
        );
    }
}
