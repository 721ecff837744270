//! Ctrl-C and what else asks a process to stop: the first time a run stops after the step under way and saves a checkpoint,
//! the second time the process ends at once.
//!
//! The C library's `signal` is all that is needed, and every platform with a terminal has it; a crate for it would change
//! the features of dependencies that burn shares, which compiles burn again.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// True once the user wants the run to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// A run that was stopped as asked: no failure, but not finished either.
#[derive(Debug)]
pub struct Interrupted {
    /// The run's folder.
    pub folder: PathBuf,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display().to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
        let folder = if folder.chars().all(plain) { folder } else { format!("'{}'", folder.replace('\'', r"'\''")) };
        write!(f, "stopped as asked; go on with: temper train --out {folder} --resume")
    }
}

impl std::error::Error for Interrupted {}

#[cfg(any(unix, windows))]
mod signals {
    use super::{Ordering, REQUESTED};

    const DEFAULT: usize = 0;
    const IGNORE: usize = 1;
    const INTERRUPT: i32 = 2;
    #[cfg(unix)]
    const TERMINATE: i32 = 15;

    unsafe extern "C" {
        fn signal(number: i32, handler: usize) -> usize;
    }

    extern "C" fn stop(number: i32) {
        REQUESTED.store(true, Ordering::Relaxed);
        // SAFETY: `signal` is among the functions that a handler may call. The next one of this kind ends the process.
        unsafe { signal(number, DEFAULT) };
    }

    /// Starts listening.
    pub fn listen() {
        let handler = stop as extern "C" fn(i32) as usize;
        // SAFETY: the handler only stores to an atomic and calls `signal`. A signal that was ignored when the process
        // began (`nohup`, a background job of a shell without job control) stays ignored.
        unsafe {
            if signal(INTERRUPT, handler) == IGNORE {
                signal(INTERRUPT, IGNORE);
            }
            // What a scheduler or `docker stop` sends before it kills.
            #[cfg(unix)]
            if signal(TERMINATE, handler) == IGNORE {
                signal(TERMINATE, IGNORE);
            }
        }
    }

    /// Lets a write beyond `ulimit -f` fail with an error, like one to a full disk, instead of ending the process.
    pub fn ignore_file_size_signal() {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            const FILE_SIZE: i32 = 25;
            // SAFETY: ignoring a signal runs no code.
            unsafe { signal(FILE_SIZE, IGNORE) };
        }
    }
}

#[cfg(not(any(unix, windows)))]
mod signals {
    /// No signals here.
    pub fn listen() {}

    /// No signals here.
    pub fn ignore_file_size_signal() {}
}

pub use signals::{ignore_file_size_signal, listen};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_how_to_go_on_can_be_pasted_into_a_shell() {
        let line = |folder: &str| Interrupted { folder: folder.into() }.to_string();
        assert!(line("runs/a-2").ends_with("--out runs/a-2 --resume"));
        assert!(line("my runs/it's").ends_with(r"--out 'my runs/it'\''s' --resume"));
    }
}
