//! A bar for commands that go through data: how far, how fast, how long still. Where stderr is not a terminal nothing, or, of what
//! takes long between two items, a line an item.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use indicatif::ProgressBar;

use crate::progress::{bar_style, duration, grouped};

/// Shows how far a command is.
pub struct Meter {
    what: &'static str,
    bar: Option<ProgressBar>,
    begun: Instant,
    /// How many items are gone through, where that is known and where lines say how far.
    lines: Option<Cell<Option<u64>>>,
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
        Self { what, bar, begun: Instant::now(), lines: None }
    }

    /// The same, with a line an item where there is no bar.
    pub fn with_lines(what: &'static str) -> Self {
        let meter = Self::new(what);
        Self { lines: meter.bar.is_none().then(Cell::default), ..meter }
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
        if let Some(lines) = &self.lines {
            lines.set(Some(total));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_style(bar_style("{prefix:>8} [{bar:28}] {pos}/{len}  {msg}"));
        }
    }

    /// So far, after so many tokens.
    pub fn at(&self, done: u64, tokens: u64) {
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        if let Some(bar) = &self.bar {
            bar.set_message(pace(done, bar.length(), tokens, seconds));
            bar.set_position(done);
        }
        if let Some(all) = self.lines.as_ref().and_then(Cell::get) {
            // A closed stderr is no reason to end.
            let _ = writeln!(io::stderr(), "{}", line(self.what, done, all, tokens, seconds));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How fast, and how long still, where it is known of how many items.
fn pace(done: u64, all: Option<u64>, tokens: u64, seconds: f64) -> String {
    let left = match all.filter(|_| done > 0) {
        Some(all) => {
            format!("  {} left", duration(seconds / done as f64 * all.saturating_sub(done) as f64))
        }
        None => String::new(),
    };
    let speed = (tokens as f64 / seconds).round() as u64;
    format!("{} tok/s{left}", grouped(speed))
}

/// What is said in place of the bar.
fn line(what: &str, done: u64, all: u64, tokens: u64, seconds: f64) -> String {
    format!("{what:<10} {done} of {all}  {}", pace(done, Some(all), tokens, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_bar_does() {
        assert_eq!(line("rounding", 3, 12, 600, 6.0), "rounding   3 of 12  100 tok/s  18 s left");
        assert_eq!(pace(0, Some(12), 0, 1.0), "0 tok/s");
        assert_eq!(pace(7, None, 14, 2.0), "7 tok/s");
    }
}
