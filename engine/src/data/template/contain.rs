//! Renders apart from the rest of the program: on a thread with a stack of its own, under a deadline, and where a panic is
//! an error. The limits of [`super::limit`] are what keeps a template in bounds; this is for what they overlook.
//!
//! A thread cannot be ended from outside. One that is late goes on until the program ends, so a template that was late
//! once is not tried again.

use std::sync::mpsc;
use std::time::Duration;

use super::limit::{ADVICE, Limit, exceeded};
use crate::error::{Error, Result};

/// Bytes of stack. They are only reserved.
const STACK: usize = 64 << 20;
/// For one conversation. A real one takes a thousandth of a second.
const SECONDS: u64 = 20;

/// What `render` gives.
///
/// # Errors
/// Its own, and [`Error::Template`] where it panics or takes longer than [`SECONDS`].
pub(super) fn contained<T: Send + 'static>(render: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    within(Duration::from_secs(SECONDS), render)
}

fn within<T: Send + 'static>(time: Duration, render: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK).spawn(move || {
        // Who asked may be gone.
        let _ = sender.send(render());
    });
    let thread = thread.map_err(|error| Error::Template { problem: format!("no thread to render on: {error}") })?;
    match receiver.recv_timeout(time) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(exceeded(Limit::Seconds, time.as_secs() as usize, time.as_secs() as usize))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let cause = match thread.join() {
                Err(panic) => panic.downcast::<String>().map_or_else(
                    |other| other.downcast_ref::<&str>().map_or("no words", |words| words).to_owned(),
                    |words| *words,
                ),
                Ok(()) => "no answer".into(),
            };
            Err(Error::Template { problem: format!("the template engine failed on it ({cause}); {ADVICE}") })
        }
    }
}

/// Whether an error is that of a deadline.
pub(super) fn was_late(error: &Error) -> bool {
    matches!(error, Error::Template { problem } if problem.contains(&Limit::Seconds.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_or_panics_is_an_error() {
        let late = within(Duration::from_millis(50), || -> Result<()> {
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        });
        assert!(was_late(&late.unwrap_err()));
        let panicked = contained(|| -> Result<()> { panic!("on purpose") }).unwrap_err();
        assert!(panicked.to_string().contains("on purpose"), "{panicked}");
        assert_eq!(contained(|| Ok(3)).unwrap(), 3);
    }
}
