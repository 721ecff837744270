//! A bar for commands that go through data: how far, how fast, how long still. Nothing where stderr is not a terminal.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::ProgressBar;

use crate::progress::{bar_style, duration, grouped};

/// Shows how far a command is.
pub struct Meter {
    bar: Option<ProgressBar>,
    begun: Instant,
}

impl Meter {
    /// Begins, with `what` before the bar.
    pub fn new(what: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_prefix(what);
            bar.set_style(bar_style("{prefix:>8} {spinner} {msg}"));
            bar
        });
        Self { bar, begun: Instant::now() }
    }

    /// Bytes are gone through, so many where that is known.
    pub fn of_bytes(&self, total: Option<u64>) {
        if let (Some(bar), Some(total)) = (&self.bar, total) {
            bar.set_length(total);
            bar.set_style(bar_style("{prefix:>8} [{bar:28}] {percent:>3} %  {msg}"));
        }
    }

    /// So many items are gone through.
    pub fn of_items(&self, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_style(bar_style("{prefix:>8} [{bar:28}] {pos}/{len}  {msg}"));
        }
    }

    /// So far, after so many tokens.
    pub fn at(&self, done: u64, tokens: u64) {
        let Some(bar) = &self.bar else { return };
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        let left = match bar.length().filter(|_| done > 0) {
            Some(all) => {
                format!("  {} left", duration(seconds / done as f64 * all.saturating_sub(done) as f64))
            }
            None => String::new(),
        };
        let speed = (tokens as f64 / seconds).round() as u64;
        bar.set_message(format!("{} tok/s{left}", grouped(speed)));
        bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
