//! Devices that are lost: their driver ended what took too long, was restarted or failed, or the card is there no more.
//!
//! wgpu says so once, to who listens. What was asked for before never comes then, and libraries that wait for it panic on
//! threads of theirs. So whoever waits here is woken by the loss itself, and told of it in place of what follows from it.

use std::any::Any;
use std::collections::HashMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};

use crate::error::{Error, Result};

/// The first loss in this process.
static FIRST: OnceLock<String> = OnceLock::new();

/// What is to be said of the first device that was lost in this process, where one was.
pub fn lost() -> Option<Error> {
    FIRST.get().map(|problem| Error::Lost { problem: problem.clone() })
}

/// Whether a device is lost, and who waits for something of it.
#[derive(Default)]
pub(super) struct Gone {
    why: OnceLock<String>,
    /// A thread waits for one thing at a time.
    waiting: Mutex<HashMap<ThreadId, Waker>>,
}

impl Gone {
    /// Notes that the device of this name is lost, and wakes who waits for it; `why` are the driver's words.
    #[cfg(not(target_family = "wasm"))]
    pub fn tell(&self, name: &str, why: &str) {
        let why = why.trim().trim_end_matches('.');
        let said = if why.is_empty() { String::new() } else { format!(" ({why})") };
        let problem = format!(
            "the GPU {name} was lost{said}: its driver ended the work or was restarted, or the card is gone. What was \
             saved before is intact; a newer driver may help where that happens again, and --device cpu does without it"
        );
        let _ = FIRST.set(problem.clone());
        let _ = self.why.set(problem);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_values().for_each(Waker::wake);
    }

    /// The loss, where there was one.
    pub fn error(&self) -> Option<Error> {
        self.why.get().map(|problem| Error::Lost { problem: problem.clone() })
    }

    /// Refuses a device that is lost.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn check(&self) -> Result<()> {
        self.error().map_or(Ok(()), Err)
    }

    /// Waits for what a device gives, or until it is lost.
    ///
    /// # Errors
    /// [`Error::Lost`]; those of `work`.
    pub async fn wait_for<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Before it is asked whether it is lost: what is lost between the two wakes already.
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.insert(thread::current().id(), context.waker().clone());
            drop(waiting);
            if let Some(error) = self.error() {
                return Poll::Ready(Err(error));
            }
            match caught(|| work.as_mut().poll(context)) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(done)) => Poll::Ready(self.error().map_or(done, Err)),
                Err(problem) => {
                    let failed = || Error::Lost { problem: format!("reading results back failed: {problem}") };
                    Poll::Ready(Err(self.error().unwrap_or_else(failed)))
                }
            }
        })
        .await
    }
}

/// What burn's queue or wgpu says by unwinding.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|said| words(&*said))
}

fn words(said: &(dyn Any + Send)) -> String {
    let text = said.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| said.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".into())
}

/// What the device says is wrong with what this thread asks of it; what burn asks comes from a thread of its own.
#[cfg(not(target_family = "wasm"))]
pub(super) fn heard<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let scopes = [OutOfMemory, Validation, Internal].map(|filter| device.push_error_scope(filter));
    let done = work();
    let said: Vec<wgpu::Error> = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
    said.first().map_or(Ok(done), |error| Err(error.to_string()))
}

/// In a browser, which tells later, whoever reads is told.
#[cfg(target_family = "wasm")]
pub(super) fn heard<T>(_: &wgpu::Device, work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    Ok(work())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_for_a_device_that_is_lost_is_woken_and_told_why() {
        let gone = Arc::new(Gone::default());
        assert_eq!(pollster::block_on(gone.wait_for(ready(Ok(5)))).unwrap(), 5);
        assert!(gone.check().is_ok());
        let told = gone.clone();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            told.tell("Card 9", "Parent device is lost.");
        });
        let error = pollster::block_on(gone.wait_for(pending::<Result<()>>())).unwrap_err();
        thread.join().unwrap();
        assert!(matches!(error, Error::Lost { .. }));
        let text = error.to_string();
        assert!(text.contains("the GPU Card 9 was lost (Parent device is lost): "), "{text}");
        assert!(text.contains("saved before is intact"), "{text}");
        // Whatever comes of it afterwards.
        let error = pollster::block_on(gone.wait_for(ready(Ok(5)))).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(gone.check().is_err());
    }

    fn unwinding<T>() -> T {
        std::panic::resume_unwind(Box::new("the device is out of memory"))
    }

    #[test]
    fn what_a_library_says_by_unwinding_is_an_error() {
        let error = pollster::block_on(Gone::default().wait_for(async { unwinding::<Result<()>>() })).unwrap_err();
        assert!(error.to_string().contains("failed: the device is out of memory"), "{error}");
        assert_eq!(caught(unwinding::<u8>), Err("the device is out of memory".into()));
        assert_eq!(caught(|| 5), Ok(5));
    }
}
