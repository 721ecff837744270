//! Ctrl-C and what else asks a process to stop: the first time a run stops after the step under way or in the middle of an
//! evaluation, and saves a checkpoint; the second time the process ends at once. A command that has nothing to save ends at
//! once the first time, unless it is writing a file: then the half-written one is removed before. So is, whatever the command, what
//! would tell later processes that this one crashed.
//!
//! The C library's `signal` is all that is needed, and every platform with a terminal has it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, fs, thread};

use crate::output::quoted;

/// What a process exits with that was stopped with Ctrl-C, as shells report it.
pub const INTERRUPTED: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// True while a command stops in its own way.
static LISTENING: AtomicBool = AtomicBool::new(false);
/// Files that are being written while none does.
static WRITING: Mutex<usize> = Mutex::new(0);
/// See [`Passing`].
static PASSING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// True once the user wants the run to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// True where the user has stopped a command that does not stop in its own way.
pub fn stopped() -> bool {
    requested() && !LISTENING.load(Ordering::Relaxed)
}

/// Starts listening.
pub fn listen() {
    LISTENING.store(true, Ordering::Relaxed);
    signals::note();
}

/// While there is one, what is begun has left nothing that could be gone on with: who wants to stop it ends the process within a
/// moment.
pub struct Unbegun {
    begun: Arc<Mutex<bool>>,
}

impl Unbegun {
    /// From now on; `undo` takes away what was made for it.
    pub fn now(undo: Box<dyn FnOnce() + Send>) -> Self {
        /// How often it is asked.
        const LOOK: Duration = Duration::from_millis(50);
        listen();
        let begun = Arc::new(Mutex::new(false));
        let watched = Arc::clone(&begun);
        let watch = move || {
            loop {
                thread::sleep(LOOK);
                let begun = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if *begun {
                    return;
                }
                if requested() {
                    end_as_asked(undo);
                }
            }
        };
        // Without it what was made is left, as it is by a process that is killed.
        let _ = thread::Builder::new().spawn(watch);
        Self { begun }
    }
}

impl Drop for Unbegun {
    fn drop(&mut self) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Ends the process, without what is only of use to it.
fn end_as_asked(undo: impl FnOnce()) -> ! {
    // Never let go of: what is gone does not come back.
    let passing = not_ending();
    passing.iter().for_each(|path| drop(fs::remove_file(path)));
    undo();
    // Nobody is left to tell if stderr is gone too.
    let said = "temper: stopped as asked; nothing was begun, and nothing of it is left";
    let _ = writeln!(io::stderr(), "{said}");
    signals::end_process(INTERRUPTED.into())
}

/// Keeps the process from ending as asked, until what is returned is dropped: for a [`Passing`] file that is being written.
pub fn not_ending() -> MutexGuard<'static, Vec<PathBuf>> {
    PASSING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file by which later processes would know that this one crashed. To be stopped is no crash: while there is one, who wants to
/// stop the process ends it within a moment, and the file is removed before.
pub struct Passing {
    path: PathBuf,
    /// Where no command stops in its own way.
    watch: Option<Unbegun>,
}

impl Passing {
    /// From now on.
    pub fn of(path: PathBuf) -> Self {
        let listening = LISTENING.load(Ordering::Relaxed);
        not_ending().push(path.clone());
        Self { path, watch: (!listening).then(|| Unbegun::now(Box::new(|| {}))) }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        not_ending().retain(|path| *path != self.path);
        if self.watch.is_some() {
            signals::end();
            LISTENING.store(false, Ordering::Relaxed);
            // Within the last moment.
            if requested() {
                end_as_asked(|| {});
            }
        }
    }
}

/// Lets Ctrl-C stop what begins now; the next one ends the process.
pub fn listen_once() {
    REQUESTED.store(false, Ordering::Relaxed);
    LISTENING.store(true, Ordering::Relaxed);
    signals::note_ctrl_c();
}

/// Lets Ctrl-C end the process again.
pub fn listen_no_more() {
    signals::end();
    LISTENING.store(false, Ordering::Relaxed);
    REQUESTED.store(false, Ordering::Relaxed);
}

/// A file that is being written. While there is one, a signal to stop does not end the process, which would leave what
/// is half-written, but makes the next write fail. Nothing of that where a command stops in its own way: it may be
/// saving.
pub struct Writing {
    stops: bool,
}

impl Writing {
    /// Begins to write.
    pub fn begin() -> Self {
        let stops = !LISTENING.load(Ordering::Relaxed);
        if stops {
            let mut writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
            if *writing == 0 {
                signals::note();
            }
            *writing += 1;
        }
        Self { stops }
    }

    /// Allows to write on.
    ///
    /// # Errors
    /// Where the user wants to stop.
    pub fn go_on(&self) -> io::Result<()> {
        // Not `ErrorKind::Interrupted`, after which whoever writes tries again.
        if self.stops && stopped() { Err(nothing_left()) } else { Ok(()) }
    }
}

/// What is said of a file that was stopped in the middle.
pub fn nothing_left() -> io::Error {
    io::Error::other("stopped as asked; nothing of it is left")
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.stops {
            return;
        }
        let mut writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        *writing -= 1;
        if *writing == 0 && !LISTENING.load(Ordering::Relaxed) {
            signals::end();
        }
    }
}

/// What was stopped as asked: no failure, but not finished either.
#[derive(Debug)]
pub struct Interrupted {
    /// How to go on.
    pub again: String,
}

impl Interrupted {
    /// A run in this folder.
    pub fn run(folder: &Path) -> Self {
        Self { again: format!("temper train --out {} --resume", quoted(folder)) }
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped as asked; go on with: {}", self.again)
    }
}

impl std::error::Error for Interrupted {}

#[cfg(any(unix, windows))]
mod signals {
    use libc::{SIG_DFL, SIG_IGN, SIGINT, c_int, sighandler_t, signal};

    use super::{Ordering, REQUESTED};

    extern "C" fn stop(number: c_int) {
        REQUESTED.store(true, Ordering::Relaxed);
        // SAFETY: `signal` is among the functions that a handler may call. The next one of this kind ends the process.
        unsafe { signal(number, SIG_DFL) };
    }

    /// Lets signals to stop only be noted.
    pub fn note() {
        note_ctrl_c();
        // What a scheduler or `docker stop` sends before it kills.
        #[cfg(unix)]
        set(libc::SIGTERM, stop as extern "C" fn(c_int) as sighandler_t);
    }

    /// Lets Ctrl-C only be noted.
    pub fn note_ctrl_c() {
        set(SIGINT, stop as extern "C" fn(c_int) as sighandler_t);
    }

    /// Lets them end the process again.
    pub fn end() {
        set(SIGINT, SIG_DFL);
        #[cfg(unix)]
        set(libc::SIGTERM, SIG_DFL);
    }

    /// Ends the process without what else happens at an exit, for which other threads would have to rest.
    pub fn end_process(code: c_int) -> ! {
        // SAFETY: it does not return, and nothing is unwound.
        unsafe { libc::_exit(code) }
    }

    fn set(number: c_int, handler: sighandler_t) {
        // SAFETY: a handler only stores to an atomic and calls `signal`. A signal that was ignored when the process began
        // (`nohup`, a background job of a shell without job control) stays ignored.
        unsafe {
            if signal(number, handler) == SIG_IGN {
                signal(number, SIG_IGN);
            }
        }
    }

    /// Lets a write beyond `ulimit -f` fail with an error, like one to a full disk, instead of ending the process.
    pub fn ignore_file_size_signal() {
        // SAFETY: ignoring a signal runs no code.
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        unsafe {
            signal(libc::SIGXFSZ, SIG_IGN)
        };
    }
}

#[cfg(not(any(unix, windows)))]
mod signals {
    /// No signals here.
    pub fn note() {}

    /// No signals here.
    pub fn note_ctrl_c() {}

    /// No signals here.
    pub fn end() {}

    /// Ends the process.
    pub fn end_process(code: i32) -> ! {
        std::process::exit(code)
    }

    /// No signals here.
    pub fn ignore_file_size_signal() {}
}

pub use signals::ignore_file_size_signal;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_how_to_go_on_can_be_pasted_into_a_shell() {
        let line = |folder: &str| Interrupted::run(Path::new(folder)).to_string();
        assert!(line("runs/a-2").ends_with("--out runs/a-2 --resume"));
        assert!(line("my runs/it's").ends_with(r"--out 'my runs/it'\''s' --resume"));
    }
}
