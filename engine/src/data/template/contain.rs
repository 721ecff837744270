//! Renders apart from the rest of the program: on a thread with a stack of its own, under a deadline, and where a panic is
//! an error. The limits of [`super::limit`] are what keeps a template in bounds; this is for what they overlook.
//!
//! A thread cannot be ended from outside. One that is late goes on until the program ends, so a template that was late
//! once is not tried again.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::limit::{ADVICE, Limit};
use crate::error::{Error, Result};

/// Bytes of stack. They are only reserved.
const STACK: usize = 64 << 20;
/// For one conversation, by the clock: a real one takes a thousandth of a second, and a machine may be busy elsewhere.
const SECONDS: u64 = 60;

/// Where a template is rendered.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// A rendering missed its deadline and may still be going on.
    late: AtomicBool,
}

impl Apart {
    /// What `job` gives.
    ///
    /// # Errors
    /// Its own, and [`Error::Template`] where it panics, or takes longer than [`SECONDS`], or one before it did.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.within(Duration::from_secs(SECONDS), job)
    }

    fn within<T: Send + 'static>(&self, time: Duration, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if self.late.load(Ordering::Relaxed) {
            return Err(Error::Template { problem: format!("an earlier conversation took too long; {ADVICE}") });
        }
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK).spawn(move || {
            // Who asked may be gone.
            let _ = sender.send(job());
        });
        let thread = thread.map_err(|error| Error::Template { problem: format!("no thread to render on: {error}") })?;
        match receiver.recv_timeout(time) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.late.store(true, Ordering::Relaxed);
                Err(Error::Template {
                    problem: format!("it exceeds the limit of {SECONDS} {}; {ADVICE}", Limit::Seconds),
                })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let cause = match thread.join() {
                    Err(panic) => words(panic),
                    Ok(()) => "no answer".into(),
                };
                Err(Error::Template { problem: format!("the template engine failed on it ({cause}); {ADVICE}") })
            }
        }
    }
}

/// What a panic said.
fn words(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(words) => *words,
        Err(other) => other.downcast_ref::<&str>().map_or("no words", |words| words).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_or_panics_is_an_error() {
        let apart = Apart::default();
        assert_eq!(apart.run(|| Ok(3)).unwrap(), 3);
        let panicked = apart.run(|| -> Result<()> { panic!("on purpose") }).unwrap_err();
        assert!(panicked.to_string().contains("on purpose"), "{panicked}");
        let late = apart.within(Duration::from_millis(50), || -> Result<()> {
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        });
        let late = late.unwrap_err().to_string();
        assert!(late.contains("seconds for one conversation") && late.contains("data.template"), "{late}");
        let after = apart.run(|| Ok(3)).unwrap_err().to_string();
        assert!(after.contains("an earlier conversation took too long"), "threads do not pile up: {after}");
    }
}
