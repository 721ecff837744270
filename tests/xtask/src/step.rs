//! One command of a longer run: announced, timed, and repeatable by hand when it fails.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Failure, root};

/// A command line with what it is for.
pub struct Step {
    what: &'static str,
    program: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Below the repository's root.
    folder: &'static str,
}

impl Step {
    /// A cargo command; `arguments` are separated by blanks.
    ///
    /// The cargo that started this program is used, so that one toolchain runs throughout.
    pub fn cargo(what: &'static str, arguments: &str) -> Self {
        Self::program(what, "cargo", arguments)
    }

    /// Any other program on the path.
    pub fn program(what: &'static str, program: &str, arguments: &str) -> Self {
        Self {
            what,
            program: program.into(),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            environment: Vec::new(),
            folder: "",
        }
    }

    /// Adds one argument that may hold blanks.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs in a folder of the repository instead of its root.
    pub fn inside(mut self, folder: &'static str) -> Self {
        self.folder = folder;
        self
    }

    /// Sets an environment variable for this step only.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The line that repeats this step in a shell.
    pub fn line(&self) -> String {
        let mut line = String::new();
        if !self.folder.is_empty() {
            line += &format!("cd {} && ", self.folder);
        }
        for (name, value) in &self.environment {
            line += &format!("{name}={} ", quoted(value));
        }
        line += &self.program;
        for argument in &self.arguments {
            line += " ";
            line += &quoted(argument);
        }
        line
    }

    fn run(&self) -> Result<Duration, Failure> {
        let program = match (self.program.as_str(), std::env::var("CARGO")) {
            ("cargo", Ok(cargo)) => cargo,
            (program, _) => program.to_owned(),
        };
        let start = Instant::now();
        let status = Command::new(&program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(root().join(self.folder))
            .status()
            .map_err(|error| format!("{program} could not be started: {error}"))?;
        if status.success() {
            Ok(start.elapsed())
        } else {
            let seconds = start.elapsed().as_secs_f64();
            Err(format!("{} failed after {seconds:.1} s ({status}); to repeat it alone:\n  {}", self.what, self.line()))
        }
    }
}

/// As a shell needs it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Runs the steps in order and stops at the first that fails.
pub fn run_all(steps: &[Step]) -> Result<(), Failure> {
    let start = Instant::now();
    for (index, step) in steps.iter().enumerate() {
        println!("\n== {}/{} {}: {}", index + 1, steps.len(), step.what, step.line());
        let took = step.run()?;
        println!("== {}/{} ok, {:.1} s", index + 1, steps.len(), took.as_secs_f64());
    }
    println!("\n== all {} steps passed, {:.0} s", steps.len(), start.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stops_at_the_first_failing_step_and_says_how_to_repeat_it() {
        let good = || Step::cargo("version", "--version");
        assert_eq!(run_all(&[good()]), Ok(()));
        let bad = Step::cargo("nonsense", "--no-such-option here").with("NAME", "value");
        let missing = Step { program: "no-such-program-anywhere".into(), ..good() };
        let problem = run_all(&[good(), bad, missing]).unwrap_err();
        assert!(problem.starts_with("nonsense failed"), "{problem}");
        assert!(problem.ends_with("NAME=value cargo --no-such-option here"), "{problem}");
    }

    #[test]
    fn the_line_that_repeats_a_step_can_be_pasted_into_a_shell() {
        let step = Step::cargo("", "run --").argument("my folder/it's").with("FLAGS", "-C a=b").inside("web/tests");
        assert_eq!(step.line(), r"cd web/tests && FLAGS='-C a=b' cargo run -- 'my folder/it'\''s'");
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failure() {
        let missing = Step { program: "no-such-program-anywhere".into(), ..Step::cargo("missing", "") };
        assert!(run_all(&[missing]).unwrap_err().contains("no-such-program-anywhere could not be started"));
    }
}
