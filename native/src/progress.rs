//! What a person sees while a run goes on: a bar on a terminal, plain lines anywhere else, and the table at the end.
//!
//! Place in the flow: engine events -> [progress] -> stderr. Results belong on stdout and are printed by the commands.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use temper_engine::events::{Evaluated, Phase, Selected, Started, StepMetrics};
use temper_engine::words::counted;
pub use temper_engine::words::grouped;
use temper_engine::{Evaluation, Event};

use crate::run_folder::{Measured, Retention};

/// How bars look.
pub fn bar_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// What is over sooner is not worth a bar.
const SOON: Duration = Duration::from_millis(300);
/// Before that the speed so far says little.
const RATED: Duration = Duration::from_secs(1);

/// Shows on a terminal how far `work` is with a model's files, which it reads or writes: it tells the bytes done, of all.
pub fn progress<T>(what: &str, work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let (begin, shows) = (Instant::now(), io::stderr().is_terminal());
    let mut bar: Option<ProgressBar> = None;
    let done = work(&mut |done, all| {
        if !shows || begin.elapsed() < SOON {
            return;
        }
        let bar = bar.get_or_insert_with(|| {
            let style = "{prefix:8} [{bar:28}] {binary_bytes}/{binary_total_bytes}{msg}";
            ProgressBar::new(all).with_style(bar_style(style)).with_prefix(what.to_string())
        });
        bar.set_message(pace(done, all, begin.elapsed()));
        bar.set_position(done);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

/// How fast bytes are gone through, and for how long still; nothing while that is not known.
fn pace(done: u64, all: u64, elapsed: Duration) -> String {
    if done == 0 || elapsed < RATED {
        return String::new();
    }
    let a_second = done as f64 / elapsed.as_secs_f64();
    let left = duration(all.saturating_sub(done) as f64 / a_second);
    format!("  {}/s  {left} left", BinaryBytes(a_second as u64))
}

/// Shows a run's events on stderr.
pub struct Progress {
    /// None where stderr is not a terminal.
    bar: Option<ProgressBar>,
    steps: u64,
    /// Step and time of the first logged step, from which the time left is estimated: what came before it (evaluation,
    /// warming up) is not repeated.
    first: Option<(u64, f64)>,
}

impl Progress {
    /// A bar if stderr is a terminal.
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            bar.set_style(bar_style("{prefix:>8} [{bar:28}] {pos}/{len}  {msg}"));
            bar
        });
        Self { bar, steps: 0, first: None }
    }

    /// Shows one event of a run with one learner.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Started { learners } => learners.iter().for_each(|started| self.started(started)),
            Event::Step { learners } => learners.iter().for_each(|metrics| self.step(metrics)),
            Event::Evaluated { learners } => learners.iter().for_each(|one| self.line(&evaluated_line(one))),
            Event::Landscape { .. } | Event::Rows(_) => {}
            Event::Saved { step, path } => match &self.bar {
                // On a terminal a checkpoint is not worth a line of its own.
                Some(_) => {}
                None => self.line(&format!("saved step {step} to {path}")),
            },
            Event::Selected(selected) => selected_lines(selected).iter().for_each(|line| self.line(line)),
            Event::Warning { message } => self.line(&format!("warning: {message}")),
            Event::Finished(finished) => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                let how = if finished.interrupted { "stopped" } else { "finished" };
                self.line(&format!(
                    "{how} after {}, {} trained tokens, {}",
                    counted(finished.step, "step"),
                    grouped(finished.tokens),
                    duration(finished.seconds)
                ));
            }
        }
    }

    /// Shows how far an evaluation is. Only a terminal is told: elsewhere it would be a line a micro-batch.
    pub fn evaluating(&mut self, what: &str, done: usize, of: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("measuring {what}: {done} of {of}"));
            bar.tick();
        }
    }

    fn started(&mut self, started: &Started) {
        self.steps = started.steps;
        self.line(&format!("device     {} ({})", started.device, started.why));
        self.line(&format!(
            "model      {}: {} parameters, {} trained ({:.2} %)",
            started.model,
            grouped(started.parameters),
            grouped(started.trainable),
            100.0 * started.trainable as f64 / started.parameters.max(1) as f64
        ));
        let from = if started.step > 0 { format!(", from step {}", started.step) } else { String::new() };
        self.line(&format!("objective  {}, {}{from}", started.objective, counted(started.steps, "step")));
        if let Some(bar) = &self.bar {
            bar.set_prefix(started.objective.clone());
            bar.set_length(started.steps);
            bar.set_position(started.step);
            bar.enable_steady_tick(Duration::from_millis(500));
        }
    }

    fn step(&mut self, metrics: &StepMetrics) {
        let (first_step, first_seconds) = *self.first.get_or_insert((metrics.step, metrics.seconds));
        let left = match metrics.step - first_step.min(metrics.step) {
            0 => String::new(),
            done => {
                let pace = (metrics.seconds - first_seconds) / done as f64;
                format!("  {} left", duration(pace * self.steps.saturating_sub(metrics.step) as f64))
            }
        };
        let numbers = format!(
            "loss {:.4}  ce {:.4}  gate {:.3}  {} tok/s{left}",
            metrics.loss,
            metrics.cross_entropy,
            metrics.gate_mean,
            grouped(metrics.tokens_per_second.round() as u64)
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(metrics.step);
                bar.set_message(numbers);
            }
            None => {
                let width = self.steps.to_string().len();
                self.line(&format!("step {:>width$}/{}  {numbers}", metrics.step, self.steps));
            }
        }
    }

    /// A line above the bar, or just a line. A closed stderr is not a reason to end a run.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(io::stderr(), "{text}");
            }
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Which step is the result, and why the run ended where it did before its last step.
fn selected_lines(Selected { step, of, ended }: &Selected) -> Vec<String> {
    let ended = ended.iter().map(|why| format!("ended      {why}"));
    ended.chain([format!("result     step {step} of the {of} made")]).collect()
}

fn evaluated_line(evaluated: &Evaluated) -> String {
    let when = match evaluated.phase {
        Phase::Before => "before".to_string(),
        Phase::During => format!("step {}", evaluated.step),
        Phase::After => "after".to_string(),
    };
    let mut line = format!("{when:<10}");
    let Evaluated { target, general, wrong, .. } = evaluated;
    for (name, set) in [("target", target), ("general", general), ("wrong", wrong)] {
        if let Some(set) = set {
            // Writing to a string cannot fail.
            let _ = write!(line, " {name} perplexity {} (loss {:.4}) ", perplexity(set.perplexity, 3), set.loss);
        }
    }
    line.trim_end().to_string()
}

/// A perplexity with so many decimals; that of a diverged model may have three hundred digits before them.
pub fn perplexity(value: f64, decimals: usize) -> String {
    if value < 1e6 { format!("{value:.decimals$}") } else { format!("{value:.3e}") }
}

/// The table at the end of a run: target and general set before and after, and the wrong labels where they were measured,
/// for the objective and its baseline. What was never measured has no columns, and where nothing was there is no table.
pub fn end_table(objective: &str, retention: &Retention) -> String {
    let mut rows = vec![("before".to_string(), retention.before)];
    rows.push((format!("after {objective}"), retention.after));
    if let Some(baseline) = &retention.baseline {
        rows.push((format!("after {}", baseline.objective), baseline.after));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(12);
    type Of = fn(&Measured) -> Option<Evaluation>;
    let mut sets: Vec<(&str, Of)> = vec![("target", |m| m.target), ("general", |m| m.general), ("wrong", |m| m.wrong)];
    sets.retain(|(_, of)| rows.iter().any(|(_, measured)| of(measured).is_some()));
    if sets.is_empty() {
        return String::new();
    }
    let line = |name: &str, cells: Vec<String>| format!("{name:width$}  {}\n", cells.join("  "));
    let titles = sets.iter().map(|(title, _)| format!("{title:^30}")).collect();
    let columns = sets.iter().map(|_| format!("{:>8}  {:>10}  {:>8}", "loss", "perplexity", "change")).collect();
    let mut text = line("", titles) + &line("", columns);
    for (name, measured) in &rows {
        text += &line(
            name,
            sets.iter().map(|(_, of)| cell(of(measured).as_ref(), of(&retention.before).as_ref())).collect(),
        );
    }
    text.push_str("loss in nats per token; change of perplexity against before\n");
    text
}

fn cell(now: Option<&Evaluation>, before: Option<&Evaluation>) -> String {
    let Some(now) = now else { return format!("{:>8}  {:>10}  {:>8}", "-", "-", "-") };
    let change = match before {
        Some(before) if before != now => change(before.perplexity, now.perplexity),
        _ => String::new(),
    };
    format!("{:>8.4}  {:>10}  {change:>8}", now.loss, number(now.perplexity))
}

/// Relative change in percent with its sign.
pub fn change(from: f64, to: f64) -> String {
    match 100.0 * (to / from - 1.0) {
        // A perplexity is at least 1: something is left of it.
        percent if percent <= -99.95 => format!("{:.2} %", percent.max(-99.99)),
        percent if percent.abs() < 1e6 => format!("{percent:+.1} %"),
        percent => format!("{percent:+.1e} %"),
    }
}

/// A share of which no more than two significant digits are known.
pub fn two_digits(share: f64) -> String {
    let zeros = -share.log10().floor();
    if !(0.0..=4.0).contains(&zeros) {
        return format!("{share:.1e}");
    }
    let decimals = zeros as usize + 1;
    format!("{share:.decimals$}")
}

/// Four significant digits or so, without an exponent for ordinary sizes.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if !v.is_finite() || !(1e-3..1e6).contains(&v) => format!("{value:.3e}"),
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.2}"),
        v if v >= 1.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// `2 h 3 min`, `4 min 5 s`, `6.7 s`.
pub fn duration(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_folder::BaselineMeasured;

    fn measured(target: f64, general: f64) -> Measured {
        let set = |loss: f64| Some(Evaluation::from_sum(loss * 100.0, 100));
        Measured { target: set(target), general: set(general), wrong: None }
    }

    #[test]
    fn the_end_table_has_both_sets_for_the_objective_and_its_baseline() {
        let retention = Retention {
            before: measured(3.0, 3.0),
            after: measured(1.5, 3.05),
            baseline: Some(BaselineMeasured { objective: "sft".into(), after: measured(1.4, 3.4) }),
        };
        let table = end_table("eaft", &retention);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 6, "{table}");
        assert_eq!(lines[3], "after eaft      1.5000       4.482   -77.7 %    3.0500       21.12    +5.1 %", "{table}");
        assert!(lines[4].starts_with("after sft"), "{table}");
        let widths: Vec<_> = lines[1..5].iter().map(|line| line.chars().count()).collect();
        assert!(widths[1..].iter().all(|w| *w <= widths[0]), "{table}");
    }

    #[test]
    fn the_end_table_has_wrong_labels_where_they_were_measured() {
        let with = |loss: f64| Measured { wrong: Some(Evaluation::from_sum(loss, 1)), ..measured(1.0, 3.0) };
        let retention = Retention { before: with(7.0), after: with(0.5), baseline: None };
        let table = end_table("sft", &retention);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].contains("wrong") && lines[3].ends_with("0.5000       1.649   -99.8 %"), "{table}");
    }

    #[test]
    fn a_set_that_was_not_measured_is_a_dash_and_not_a_zero_and_one_that_never_was_has_no_columns() {
        let retention = Retention { after: measured(1.0, 1.0), ..Retention::default() };
        let table = end_table("eaft", &retention);
        assert!(table.lines().nth(2).unwrap().matches(" -").count() >= 6, "{table}");
        let only = Measured { general: None, ..measured(1.0, 1.0) };
        let table = end_table("eaft", &Retention { before: only, after: only, baseline: None });
        assert!(table.contains("target") && !table.contains("general") && !table.contains(" - "), "{table}");
        assert_eq!(end_table("eaft", &Retention::default()), "");
    }

    #[test]
    fn how_fast_a_file_is_read_is_said_once_that_means_something() {
        let (second, mib) = (Duration::from_secs(1), 1 << 20);
        assert_eq!(pace(mib, mib, Duration::from_nanos(1)), "", "a tiny file has no speed");
        assert_eq!(pace(mib, 9 * mib, second / 2), "");
        assert_eq!(pace(0, mib, 9 * second), "");
        assert_eq!(pace(4 * mib, 10 * mib, 2 * second), "  2.00 MiB/s  3.0 s left");
        assert_eq!(pace(4 * mib, 4 * mib, 2 * second), "  2.00 MiB/s  0.0 s left");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0.5, 0.023_456, 0.000_123, 3e-9].map(two_digits), ["0.50", "0.023", "0.00012", "3.0e-9"]);
        assert_eq!([1.0, 0.0].map(two_digits), ["1.0", "0.0e0"]);
        assert_eq!([duration(6.66), duration(65.0), duration(7380.0)], ["6.7 s", "1 min 5 s", "2 h 3 min"]);
        assert_eq!(duration(f64::NAN), "0.0 s");
        assert_eq!([number(0.0), number(12.345), number(123456.0), number(1e9)], ["0", "12.35", "123456", "1.000e9"]);
    }

    #[test]
    fn an_evaluation_line_names_what_was_measured() {
        let evaluated = Evaluated {
            phase: Phase::Before,
            step: 0,
            target: Some(Evaluation::from_sum(0.0, 5)),
            general: None,
            wrong: None,
        };
        assert_eq!(evaluated_line(&evaluated), "before     target perplexity 1.000 (loss 0.0000)");
        let awful = Evaluated { target: Some(Evaluation::from_sum(1e5, 2)), ..evaluated };
        assert_eq!(evaluated_line(&awful), "before     target perplexity 1.798e308 (loss 50000.0000)");
        assert_eq!([change(500.0, 14.0), change(500.0, 1e300)], ["-97.2 %", "+2.0e299 %"]);
        let almost_all = [change(1e4, 4.9), change(5e4, 15.0), change(1e300, 1.0)];
        assert_eq!(almost_all, ["-99.95 %", "-99.97 %", "-99.99 %"]);
    }
}
