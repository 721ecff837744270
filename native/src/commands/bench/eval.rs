//! `temper bench eval`: questions of MMLU a second, as `temper eval` answers them, against the same model reading text and
//! choice whole for each choice, and against transformers on the same tokens and weights in the same turns.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use temper_engine::reading::OnError;
use temper_engine::tasks::{Item, Likelihoods, Task, TaskOptions};
use temper_engine::{Device, Model, wait};

use super::InTurns;
use crate::cli::BenchEvalArgs;
use crate::commands::eval::tasks::{Question, items_in, likeliest, longest_question, questions};
use crate::inputs::open_model;
use crate::output;

/// What runs beside.
const SCRIPT: &str = include_str!("../../../demo/torch_choices.py");
/// Largest difference of a log-likelihood from ours that counts as the same.
const TOLERANCE: f64 = 0.02;

/// One JSON line.
#[derive(Debug, Serialize)]
struct Compared {
    #[serde(flatten)]
    timed: InTurns,
    items_per_second: f64,
    /// Questions of which it takes another choice.
    other_choices: usize,
    /// Largest difference of a log-likelihood.
    error: f64,
}

/// A pass over all questions: seconds, and the log-likelihood of each choice.
#[derive(Debug, Deserialize)]
struct Pass {
    seconds: f64,
    log_likelihoods: Vec<Vec<f64>>,
}

/// Runs the benchmark: a first turn is compared and not timed, each further one times every variant once.
pub fn run(device: &Device, args: &BenchEvalArgs) -> Result<()> {
    let files = open_model(&args.model)?;
    let options = TaskOptions { shots: args.shots, limit: args.limit, on_error: OnError::Stop };
    let items = items_in(Task::Mmlu, &args.task_data, options)?;
    let all: Vec<&Item> = items.items.iter().collect();
    let asked = questions(&all, files.tokenizer()?, files.architecture.context)?;
    let mut model = files.load(device, temper_engine::models::Hold::Auto, false, 0)?;

    let folder = std::env::temp_dir().join(format!("temper-bench-eval-{}", std::process::id()));
    let mut beside = match &args.python {
        Some(python) => Some(Beside::start(python, &args.model, &folder, &asked)?),
        None => None,
    };
    let mut names = vec!["prefix shared (temper eval)", "every choice read whole"];
    if beside.is_some() {
        names.extend(["transformers, every choice", "transformers, every question"]);
    }
    let mut seconds = vec![Vec::new(); names.len()];
    let mut differs = vec![(0, 0.0); names.len()];
    for turn in 0..=args.timing.repeat {
        let mut ours = Vec::new();
        for (which, seconds) in seconds.iter_mut().enumerate() {
            let pass = match (which, &mut beside) {
                (0, _) => shared(&mut model, &asked)?,
                (1, _) => whole(&mut model, &asked)?,
                (2, Some(beside)) => beside.pass("choices")?,
                (_, Some(beside)) => beside.pass("questions")?,
                (_, None) => unreachable!("it has no name"),
            };
            if turn > 0 {
                seconds.push(pass.seconds);
            } else if which == 0 {
                ours = pass.log_likelihoods;
            } else {
                differs[which] = difference(&ours, &pass.log_likelihoods)?;
                let (other, error) = differs[which];
                // Equal choices within the tolerance may fall either way.
                if other * 100 > asked.len() || !(error <= TOLERANCE) {
                    bail!("{}: {other} of {} choices are others, by up to {error}", names[which], asked.len());
                }
            }
        }
    }
    drop(beside);
    let tokens: usize = asked.iter().map(|question| question.text.len()).sum();
    let shape = format!("{} questions of {} tokens, {} shots", asked.len(), tokens / asked.len(), args.shots);
    for (which, (variant, own)) in names.into_iter().zip(&seconds).enumerate() {
        let timed = InTurns::of("eval", variant, &shape, device, own, &seconds[0]);
        let items_per_second = asked.len() as f64 / timed.median_s;
        let (other_choices, error) = differs[which];
        let compared = Compared { timed, items_per_second, other_choices, error };
        if args.timing.json {
            output::json(&compared)?;
        } else {
            output::text(&format!(
                "{variant:<28} {items_per_second:>8.2} items/s  {:>8.2} s ({:.2} to {:.2})  {:.2} of the time; \
                 {other_choices} other choices, error {error:.1e}\n",
                compared.timed.median_s, compared.timed.min_s, compared.timed.max_s, compared.timed.ratio
            ))?;
        }
    }
    match args.timing.json {
        true => Ok(()),
        false => output::text(&format!("{shape}; {}\n", device.name())),
    }
}

fn shared(model: &mut Model, asked: &[Question]) -> Result<Pass> {
    let begun = Instant::now();
    let mut reader = Likelihoods::new(model, longest_question(asked))?;
    let mut log_likelihoods = Vec::with_capacity(asked.len());
    for question in asked {
        log_likelihoods.push(wait(reader.of(model, &question.text, &question.choices_tokens))?);
    }
    Ok(Pass { seconds: begun.elapsed().as_secs_f64(), log_likelihoods })
}

fn whole(model: &mut Model, asked: &[Question]) -> Result<Pass> {
    let begun = Instant::now();
    let mut log_likelihoods = Vec::with_capacity(asked.len());
    for question in asked {
        let mut own = Vec::with_capacity(question.choices_tokens.len());
        for choice in &question.choices_tokens {
            let mut reader = Likelihoods::new(model, question.text.len() + choice.len())?;
            own.extend(wait(reader.of(model, &question.text, std::slice::from_ref(choice)))?);
        }
        log_likelihoods.push(own);
    }
    Ok(Pass { seconds: begun.elapsed().as_secs_f64(), log_likelihoods })
}

/// Questions of which another choice is the likeliest, and the largest difference of a log-likelihood.
fn difference(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> Result<(usize, f64)> {
    if ours.len() != theirs.len() || ours.iter().zip(theirs).any(|(a, b)| a.len() != b.len()) {
        bail!("{} questions were asked, and {} answered", ours.len(), theirs.len());
    }
    let other = ours.iter().zip(theirs).filter(|(a, b)| likeliest(a) != likeliest(b)).count();
    let differences = ours.iter().flatten().zip(theirs.iter().flatten()).map(|(a, b)| (a - b).abs());
    Ok((other, differences.fold(0.0, |worst, one| if one <= worst { worst } else { one })))
}

/// The script beside, which waits between its passes.
struct Beside<'a> {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: &'a Path,
}

impl<'a> Beside<'a> {
    fn start(python: &Path, model: &str, folder: &'a Path, asked: &[Question]) -> Result<Self> {
        #[derive(Serialize)]
        struct Line<'a> {
            text: &'a [u32],
            choices: &'a [Vec<u32>],
        }
        std::fs::create_dir_all(folder)?;
        let (script, data) = (folder.join("torch_choices.py"), folder.join("questions.jsonl"));
        std::fs::write(&script, SCRIPT)?;
        let mut lines = String::new();
        for question in asked {
            lines += &serde_json::to_string(&Line { text: &question.text, choices: &question.choices_tokens })?;
            lines.push('\n');
        }
        std::fs::write(&data, lines)?;
        let mut command = Command::new(python);
        command.arg(script).arg(model).arg(data).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} cannot be run", python.display()))?;
        let (Some(ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{} has no standard input or output", python.display())
        };
        Ok(Self { child, ask, answers: BufReader::new(answers), folder })
    }

    fn pass(&mut self, way: &str) -> Result<Pass> {
        let mut line = String::new();
        let asked = writeln!(self.ask, "{way}").and_then(|()| self.answers.read_line(&mut line));
        if asked.is_err() || line.is_empty() {
            bail!("the Python script ended; it needs torch and transformers, and what it said is above");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(self.folder);
    }
}
