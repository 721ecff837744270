//! The parent that watches and the child that is watched.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a campaign tells whoever runs it what it found")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::mutate;
use super::targets::Target;

/// Seconds of the processor that one input may take.
const HANG: f64 = 5.0;
/// Seconds by the clock: other programs may be running, and what waits forever takes none of the processor.
const WAIT: f64 = 30.0;
/// Bytes of writable memory of a child; beyond what inputs may use, what the program itself needs.
const MEMORY: u64 = (1 << 30) + (256 << 20);
/// Findings of one target after which it is given up.
const ENOUGH: usize = 20;

/// What the command asked for.
pub struct Wish {
    pub target: Option<String>,
    pub seed: u64,
    pub seconds: Option<f64>,
    /// Of each target.
    pub inputs: Option<u64>,
}

impl Wish {
    pub fn from_environment() -> Self {
        let number = |name: &str| {
            std::env::var(name)
                .ok()
                .map(|text| text.parse::<f64>().unwrap_or_else(|_| panic!("{name}={text}: no number")))
        };
        Self {
            target: std::env::var("TEMPER_HOSTILE_TARGET").ok(),
            seed: number("TEMPER_HOSTILE_SEED").unwrap_or(1.0) as u64,
            seconds: number("TEMPER_HOSTILE_MINUTES").map(|minutes| minutes * 60.0),
            inputs: number("TEMPER_HOSTILE_INPUTS").map(|inputs| inputs as u64),
        }
    }
}

/// The number of the input that a child works on, shared through a file.
struct Board(File);

impl Board {
    fn at(path: &PathBuf) -> Self {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        Self(file.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes))
    }

    fn begin(&self, number: u64) {
        self.0.write_all_at(&number.to_le_bytes(), 0).expect("the board can be written");
    }
}

/// Runs a target until the time or the inputs are over (whichever comes first where both are given). Findings in words.
pub fn campaign(target: Target, seed: u64, seconds: f64, inputs: Option<u64>) -> Vec<String> {
    let started = Instant::now();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let board_path = folder.path().join("board");
    let board = Board::at(&board_path);
    let last = inputs.unwrap_or(u64::MAX);
    let deadline = inputs.is_none().then(|| started + Duration::from_secs_f64(seconds));
    let over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    let mut findings = Vec::new();
    let mut next = 0;
    while next < last && !over() && findings.len() < ENOUGH {
        board.begin(next);
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads", "1"])
            .env("TEMPER_HOSTILE_CHILD", format!("{} {seed} {next} {last}", target.name()))
            .env("TEMPER_HOSTILE_BOARD", &board_path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the child starts");
        let (mut seen, mut since, mut used) = (u64::MAX, Instant::now(), 0.0);
        let mut late = false;
        let end = loop {
            std::thread::sleep(Duration::from_millis(20));
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                break Some(status);
            }
            let (now, processor) = (board.number(), processor_seconds(child.id()));
            if now != seen {
                (seen, since, used) = (now, Instant::now(), processor);
            }
            late = processor - used > HANG || since.elapsed().as_secs_f64() > WAIT;
            if over() || late {
                child.kill().expect("the child can be ended");
                child.wait().expect("the child ends");
                break None;
            }
        };
        let number = board.number();
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let why = match end {
            Some(status) if status.success() => break,
            None if !late => {
                next = number;
                break;
            }
            None => format!("took more than {HANG} seconds"),
            Some(status) => {
                let words =
                    log.lines().filter(|line| line.contains("panicked") || line.contains("memory")).collect::<Vec<_>>();
                let rest = log.lines().rev().take(3).collect::<Vec<_>>();
                format!("{status}: {}", if words.is_empty() { rest.join(" | ") } else { words.join(" | ") })
            }
        };
        let saved = save(target, seed, number);
        findings.push(format!("{} seed {seed} input {number}: {why} ({saved})", target.name()));
        next = number + 1;
    }
    let done = board.number().max(next);
    let rate = done as f64 / started.elapsed().as_secs_f64();
    println!("{:<14} {done:>9} inputs, {rate:>7.0} a second, {} findings", target.name(), findings.len());
    for finding in &findings {
        println!("    {finding}");
    }
    findings
}

/// What a process has used of the processor so far; by the clock alone where the system does not tell.
fn processor_seconds(process: u32) -> f64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return 0.0 };
    // Behind the name, which may hold blanks: the 12th and 13th field, in hundredths of a second.
    let fields = status.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Writes an input's files into the target folder.
fn save(target: Target, seed: u64, number: u64) -> String {
    let program = std::env::current_exe().expect("this program");
    let top = program.ancestors().nth(3).expect("target/release/deps/program");
    let folder = top.join("hostile").join(format!("{}-{seed}-{number}", target.name()));
    std::fs::create_dir_all(&folder).expect("a folder for findings");
    for (index, bytes) in mutate::input(target, &target.seeds(), seed, number).iter().enumerate() {
        std::fs::write(folder.join(index.to_string()), bytes).expect("a finding can be saved");
    }
    folder.display().to_string()
}

/// Works through the inputs that the environment names.
pub fn child() {
    let Ok(task) = std::env::var("TEMPER_HOSTILE_CHILD") else { return };
    let fields: Vec<&str> = task.split(' ').collect();
    let [name, seed, first, last] = fields[..] else { panic!("{task:?} is no task") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let target = Target::named(name);
    let board = Board::at(&std::env::var("TEMPER_HOSTILE_BOARD").expect("a board").into());
    limit_memory();
    // A panic that the engine turns into an error ends the page all the same.
    static PANIC: Mutex<Option<String>> = Mutex::new(None);
    std::panic::set_hook(Box::new(|panic| {
        *PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic.to_string());
    }));
    let seeds = target.seeds();
    let mut run = target.runner();
    for index in number(first)..number(last) {
        board.begin(index);
        let input = mutate::input(target, &seeds, number(seed), index);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&input)));
        let panic = PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if panic.is_some() || result.is_err() {
            // Not by a panic: the harness would add its own words.
            eprintln!("panicked: {}", panic.unwrap_or_default().replace('\n', " "));
            std::process::exit(3);
        }
    }
    board.begin(number(last));
}

fn limit_memory() {
    let limit = libc::rlimit { rlim_cur: MEMORY, rlim_max: MEMORY };
    // SAFETY: the pointer is to a value that lives through the call, which only reads it.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) };
    assert_eq!(failed, 0, "memory cannot be limited");
}
