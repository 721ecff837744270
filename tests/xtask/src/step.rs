//! The steps of a longer run: each has a name, is timed, and can be repeated by hand when it fails.
//!
//! Two run at a time where they may, because most of what cargo does here is one long chain of crates that leaves a second
//! core idle; but never two of cargo, which lets only one of its commands into the target folder. A step says what has to be
//! done [before](Step::after) it. What two steps print is told apart by their names.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::{Failure, root};

/// How many steps run at a time. More would only take memory from each other: a step uses all cores where it can.
const AT_ONCE: usize = 2;
/// How many steps the closing table lists.
const LISTED: usize = 12;
/// How a line begins by which a test says that it was left out: `SKIPPED name: reason`.
const SKIPPED: &str = "SKIPPED ";

/// A check or a command line, and what it needs.
pub struct Step {
    name: String,
    work: Work,
    after: Vec<&'static str>,
    alone: bool,
}

/// Steps out of what a program wrote on its standard output.
type More = Box<dyn Fn(&str) -> Result<Vec<Step>, Failure> + Send + Sync>;

enum Work {
    /// Says what it has found to be right.
    Check(fn() -> Result<String, Failure>),
    Program(Program),
    /// A program whose output lists what is to be done further.
    Source(Program, More),
}

struct Program {
    name: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    hidden: Vec<(&'static str, String)>,
    /// Absolute, or below the repository's root.
    folder: PathBuf,
    /// What repeats it, if that is not this command line.
    repeat: Option<String>,
}

impl Step {
    /// A cargo command; `arguments` are separated by blanks.
    ///
    /// The cargo that started this program is used, so that one toolchain runs throughout.
    pub fn cargo(name: &str, arguments: &str) -> Self {
        Self::program(name, "cargo", arguments)
    }

    /// Any other program, on the path or by its own.
    pub fn program(name: &str, program: &str, arguments: &str) -> Self {
        let program = Program {
            name: program.into(),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            environment: Vec::new(),
            hidden: Vec::new(),
            folder: PathBuf::new(),
            repeat: None,
        };
        Self::new(name, Work::Program(program))
    }

    /// A check that this program makes itself.
    pub fn check(name: &str, check: fn() -> Result<String, Failure>) -> Self {
        Self::new(name, Work::Check(check))
    }

    fn new(name: &str, work: Work) -> Self {
        Self { name: name.into(), work, after: Vec::new(), alone: false }
    }

    /// Makes further steps, to be run after it, out of what the program writes on its standard output.
    pub fn then(mut self, more: impl Fn(&str) -> Result<Vec<Step>, Failure> + Send + Sync + 'static) -> Self {
        if let Work::Program(program) = self.work {
            self.work = Work::Source(program, Box::new(more));
        }
        self
    }

    /// Adds one argument that may hold blanks.
    pub fn argument(self, argument: impl Into<String>) -> Self {
        self.changed(|program| program.arguments.push(argument.into()))
    }

    /// Runs in this folder instead of the repository's root, from which it may be given.
    pub fn inside(self, folder: impl Into<PathBuf>) -> Self {
        self.changed(|program| program.folder = folder.into())
    }

    /// Is repeated by this line instead of its own.
    pub fn repeated_by(self, line: String) -> Self {
        self.changed(|program| program.repeat = Some(line))
    }

    /// Sets an environment variable for this step only.
    pub fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        self.changed(|program| program.environment.push((name, value.into())))
    }

    /// Sets an environment variable that cargo sets too, and so is no part of the line that repeats this step.
    pub fn hidden(self, name: &'static str, value: impl Into<String>) -> Self {
        self.changed(|program| program.hidden.push((name, value.into())))
    }

    fn changed(mut self, change: impl FnOnce(&mut Program)) -> Self {
        match &mut self.work {
            Work::Program(program) | Work::Source(program, _) => change(program),
            Work::Check(_) => {}
        }
        self
    }

    /// Starts only when these have passed. Names that are not part of a run are not waited for.
    pub fn after(mut self, names: &[&'static str]) -> Self {
        self.after.extend(names);
        self
    }

    /// Measures time, or needs the whole machine: nothing runs beside it.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// What it is called, on the command line too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if it takes hold of the target folder.
    fn is_cargo(&self) -> bool {
        match &self.work {
            Work::Program(program) | Work::Source(program, _) => program.name == "cargo",
            Work::Check(_) => false,
        }
    }

    /// What has to be done before it.
    #[cfg(test)]
    pub fn waits_for(&self) -> &[&'static str] {
        &self.after
    }

    /// The line that repeats this step in a shell.
    pub fn line(&self) -> String {
        match &self.work {
            Work::Check(_) => format!("cargo xtask test --only {}", self.name),
            Work::Program(program) | Work::Source(program, _) => program.line(),
        }
    }

    /// Gives back what is to be done further.
    fn run(&self, output: &Output) -> Result<Vec<Step>, String> {
        match &self.work {
            Work::Check(check) => check().map(|words| output.line(&self.name, words.as_bytes()))?,
            Work::Program(program) => program.run(&self.name, output, false).map(|_| ())?,
            Work::Source(program, more) => return more(&program.run(&self.name, output, true)?),
        }
        Ok(Vec::new())
    }
}

impl Program {
    fn line(&self) -> String {
        let mut line = String::new();
        if !self.folder.as_os_str().is_empty() && self.repeat.is_none() {
            line += &format!("cd {} && ", self.folder.display());
        }
        for (name, value) in &self.environment {
            line += &format!("{name}={} ", quoted(value));
        }
        if let Some(repeat) = &self.repeat {
            return line + repeat;
        }
        line += &self.name;
        for argument in &self.arguments {
            line += " ";
            line += &quoted(argument);
        }
        line
    }

    /// Gives back what it wrote on its standard output if that is wanted; else it is passed on.
    fn run(&self, step: &str, output: &Output, keep: bool) -> Result<String, String> {
        let program = match (self.name.as_str(), std::env::var("CARGO")) {
            ("cargo", Ok(cargo)) => cargo,
            (program, _) => program.to_owned(),
        };
        let mut command = Command::new(&program);
        command.args(&self.arguments).current_dir(root().join(&self.folder));
        if keep {
            command.stdout(Stdio::piped());
        }
        if output.prefixed {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            // cargo sees no terminal behind the pipe; where there is one, its colours are wanted all the same.
            if std::io::stdout().is_terminal() {
                command.env("CARGO_TERM_COLOR", "always");
            }
        }
        command.envs(self.environment.iter().chain(&self.hidden).map(|(name, value)| (name, value)));
        let mut child = command.spawn().map_err(|error| format!("{program} could not be started: {error}"))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let mut kept = String::new();
        std::thread::scope(|scope| {
            scope.spawn(|| err.map(|pipe| output.pass_on(step, pipe)));
            match out {
                Some(mut pipe) if keep => pipe.read_to_string(&mut kept).map(|_| ()),
                Some(pipe) => {
                    output.pass_on(step, pipe);
                    Ok(())
                }
                None => Ok(()),
            }
        })
        .map_err(|error| format!("what {program} wrote: {error}"))?;
        let status = child.wait().map_err(|error| format!("{program}: {error}"))?;
        if status.success() { Ok(kept) } else { Err(status.to_string()) }
    }
}

/// Where the steps' lines go, and what was heard of tests that were left out.
#[derive(Default)]
struct Output {
    /// Lines bear their step's name; else the steps have the terminal to themselves.
    prefixed: bool,
    skipped: Mutex<Vec<String>>,
}

impl Output {
    fn line(&self, step: &str, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if line.starts_with(SKIPPED) {
            self.skipped.lock().expect("nothing panics while it holds this").push(line.to_owned());
        }
        if self.prefixed { println!("{step:>17} | {line}") } else { println!("{line}") }
    }

    fn pass_on(&self, step: &str, pipe: impl Read) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            self.line(step, &line);
            line.clear();
        }
    }
}

/// As a shell needs it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Runs the steps one after another, each with the terminal to itself, and stops at the first that fails.
pub fn run_in_order(steps: &[Step]) -> Result<(), Failure> {
    let output = Output::default();
    for (index, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}: {}", index + 1, steps.len(), step.name, step.line());
        let start = Instant::now();
        let more = step.run(&output).map_err(|problem| failed(step, start.elapsed(), &problem))?;
        println!("== {} ok, {:.1} s", step.name, start.elapsed().as_secs_f64());
        run_in_order(&more)?;
    }
    Ok(())
}

/// Runs the steps, two at a time where they may, the earlier in the list first. After a failure nothing more is started.
/// Ends with what took longest; returns what tests said that were left out, as `SKIPPED name: reason`.
pub fn run_all(steps: Vec<Step>) -> Result<Vec<String>, Failure> {
    let start = Instant::now();
    let mut steps: Vec<Arc<Step>> = steps.into_iter().map(Arc::new).collect();
    let output = Output { prefixed: true, ..Output::default() };
    let mut state = vec![State::Waiting; steps.len()];
    let mut failures = Vec::new();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        loop {
            while let Some(index) = next(&steps, &state).filter(|_| failures.is_empty()) {
                let step = Arc::clone(&steps[index]);
                println!("\n== {}: {}", step.name, step.line());
                state[index] = State::Running;
                let (sender, output) = (sender.clone(), &output);
                scope.spawn(move || {
                    let start = Instant::now();
                    let result = step.run(output);
                    // The receiver outlives every step.
                    let _ = sender.send((index, result, start.elapsed()));
                });
            }
            if !state.contains(&State::Running) {
                break;
            }
            let (index, result, took) = receiver.recv().expect("a step is running, and it holds a sender");
            let step = Arc::clone(&steps[index]);
            match result {
                Ok(more) => {
                    state[index] = State::Passed(took);
                    state.extend(more.iter().map(|_| State::Waiting));
                    steps.extend(more.into_iter().map(Arc::new));
                    let passed = state.iter().filter(|state| matches!(state, State::Passed(_))).count();
                    println!("== {} ok, {:.1} s ({passed}/{})", step.name, took.as_secs_f64(), steps.len());
                }
                Err(problem) => {
                    state[index] = State::Failed;
                    let problem = failed(&step, took, &problem);
                    println!("\n== {problem}");
                    failures.push(problem);
                }
            }
        }
    });
    println!("{}", longest(&steps, &state));
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    let waiting: Vec<&str> =
        steps.iter().zip(&state).filter(|(_, state)| **state == State::Waiting).map(|(step, _)| step.name()).collect();
    if !waiting.is_empty() {
        return Err(format!("these steps wait for each other: {}", waiting.join(", ")));
    }
    println!("== all {} steps passed, {:.0} s", steps.len(), start.elapsed().as_secs_f64());
    Ok(output.skipped.into_inner().expect("nothing panics while it holds this"))
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Running,
    Passed(Duration),
    Failed,
}

/// The first step that can start now.
fn next(steps: &[Arc<Step>], state: &[State]) -> Option<usize> {
    let running: Vec<&Step> =
        steps.iter().zip(state).filter(|(_, s)| **s == State::Running).map(|(s, _)| s.as_ref()).collect();
    if running.len() >= AT_ONCE || running.iter().any(|step| step.alone) {
        return None;
    }
    let passed = |name: &str| {
        let all = steps.iter().zip(state);
        all.filter(|(step, _)| step.name == name).all(|(_, state)| matches!(state, State::Passed(_)))
    };
    let builds = running.iter().any(|step| step.is_cargo());
    let can = |step: &Step| {
        !(step.is_cargo() && builds)
            && step.after.iter().all(|name| passed(name))
            && (!step.alone || running.is_empty())
    };
    (0..steps.len()).find(|&index| state[index] == State::Waiting && can(&steps[index]))
}

fn failed(step: &Step, took: Duration, problem: &str) -> Failure {
    let seconds = took.as_secs_f64();
    format!("{} failed after {seconds:.1} s ({problem}); to repeat it alone:\n  {}", step.name, step.line())
}

/// A table of the longest steps.
fn longest(steps: &[Arc<Step>], state: &[State]) -> String {
    let mut times: Vec<(Duration, &str)> = steps
        .iter()
        .zip(state)
        .filter_map(|(step, state)| if let State::Passed(took) = state { Some((*took, step.name())) } else { None })
        .collect();
    times.sort_by(|a, b| b.cmp(a));
    let mut table = format!("\n== the longest of {} steps", times.len());
    for (took, name) in times.iter().take(LISTED) {
        table += &format!("\n   {name:<17} {:>7.1} s", took.as_secs_f64());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(name: &str) -> Step {
        Step::cargo(name, "--version")
    }

    #[test]
    fn a_run_stops_at_a_failing_step_and_says_how_to_repeat_it() {
        assert_eq!(run_all(vec![good("version")]), Ok(vec![]));
        let bad = || Step::cargo("nonsense", "--no-such-option here").with("NAME", "value");
        let missing = || Step::program("missing", "no-such-program-anywhere", "").after(&["nonsense"]);
        let problem = run_all(vec![good("version"), bad(), missing()]).unwrap_err();
        assert!(problem.starts_with("nonsense failed"), "{problem}");
        assert!(problem.ends_with("NAME=value cargo --no-such-option here"), "{problem}");
        assert_eq!(run_in_order(&[good("version")]), Ok(()));
        let problem = run_in_order(&[good("version"), bad(), missing()]).unwrap_err();
        assert!(problem.starts_with("nonsense failed"), "{problem}");
    }

    #[test]
    fn a_failing_check_is_a_failing_step() {
        let check = Step::check("nonsense", || Err("it is wrong".into()));
        let problem = run_all(vec![check]).unwrap_err();
        assert!(problem.contains("it is wrong") && problem.contains("--only nonsense"), "{problem}");
        assert_eq!(run_all(vec![Step::check("sense", || Ok("it is right".into()))]), Ok(vec![]));
    }

    #[test]
    fn what_a_step_finds_to_be_done_is_done_and_can_fail() {
        let source = |then: &'static str| {
            Step::cargo("source", "--version").then(move |text| {
                assert!(text.starts_with("cargo 1."), "{text}");
                Ok(vec![Step::cargo("found", then).repeated_by("cargo so".into()).with("NAME", "value")])
            })
        };
        assert_eq!(run_all(vec![source("--version")]), Ok(vec![]));
        assert_eq!(run_in_order(&[source("--version")]), Ok(()));
        let problem = run_all(vec![source("--no-such-option")]).unwrap_err();
        assert!(problem.starts_with("found failed") && problem.ends_with("NAME=value cargo so"), "{problem}");
        let problem = run_all(vec![good("source").then(|_| Err("it lists nothing".into()))]).unwrap_err();
        assert!(problem.contains("it lists nothing"), "{problem}");
    }

    #[test]
    fn steps_that_wait_for_each_other_are_a_failure() {
        let problem = run_all(vec![good("a").after(&["b"]), good("b").after(&["a"])]).unwrap_err();
        assert!(problem.contains("wait for each other: a, b"), "{problem}");
    }

    #[test]
    fn the_line_that_repeats_a_step_can_be_pasted_into_a_shell() {
        let step = Step::cargo("", "run --").argument("my folder/it's").with("FLAGS", "-C a=b").inside("web/tests");
        assert_eq!(step.line(), r"cd web/tests && FLAGS='-C a=b' cargo run -- 'my folder/it'\''s'");
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failure() {
        let missing = Step::program("missing", "no-such-program-anywhere", "");
        assert!(run_all(vec![missing]).unwrap_err().contains("no-such-program-anywhere could not be started"));
    }

    #[test]
    fn two_steps_run_at_a_time_but_not_two_of_cargo_nor_before_what_they_need_nor_beside_one_that_is_alone() {
        let other = |name| Step::program(name, "node", "");
        let steps: Vec<Arc<Step>> = [
            good("a"),
            good("b"),
            other("c").after(&["b", "not part of this run"]),
            other("d").alone(),
            other("e"),
            other("f"),
        ]
        .map(Arc::new)
        .into();
        let (waits, runs, passed) = (State::Waiting, State::Running, State::Passed(Duration::ZERO));
        assert_eq!(next(&steps, &[waits; 6]), Some(0));
        assert_eq!(next(&steps, &[runs, waits, waits, waits, waits, waits]), Some(4), "b is of cargo too");
        assert_eq!(next(&steps, &[runs, waits, waits, waits, runs, waits]), None, "two are running");
        assert_eq!(next(&steps, &[passed, waits, waits, waits, runs, waits]), Some(1));
        assert_eq!(next(&steps, &[passed, runs, waits, waits, passed, passed]), None, "c needs b, d wants to be alone");
        assert_eq!(next(&steps, &[passed, passed, waits, waits, passed, passed]), Some(2));
        assert_eq!(next(&steps, &[passed, passed, passed, waits, passed, passed]), Some(3));
        assert_eq!(next(&steps, &[passed, passed, passed, runs, waits, passed]), None, "d is alone");
        assert_eq!(next(&steps, &[passed, State::Failed, waits, runs, waits, waits]), None);
        assert_eq!(next(&steps, &[passed; 6]), None);
    }

    #[test]
    fn what_was_left_out_is_heard_among_all_that_is_printed() {
        let output = Output::default();
        output.pass_on(
            "tests",
            &b"test a ... ok\nSKIPPED b: no model\r\nnot SKIPPED c: this\n\xff\nSKIPPED d: no tool"[..],
        );
        assert_eq!(*output.skipped.lock().unwrap(), ["SKIPPED b: no model", "SKIPPED d: no tool"]);
    }

    #[test]
    fn the_table_lists_the_longest_steps_first() {
        let steps = [good("short"), good("long"), good("failed")].map(Arc::new);
        let state = [State::Passed(Duration::from_secs(1)), State::Passed(Duration::from_secs(60)), State::Failed];
        let table = longest(&steps, &state);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines, ["   long                 60.0 s", "   short                 1.0 s"], "{table}");
    }
}
