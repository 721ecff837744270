//! The folder where this machine keeps what can be made again: compiled kernels, and which kernel was fastest for what.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use temper_engine::host::{Shelf, check_name};

use crate::files::write_atomically;
use crate::interrupt::{Passing, not_ending};

/// Names another folder than the system's for such things; nothing is kept where it is empty.
const VARIABLE: &str = "TEMPER_CACHE";
/// A larger file is none of ours.
const MOST_BYTES: u64 = 256 << 20;
/// How long another process is waited for that has a name, after how long that is said, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(120);
const SILENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// A folder that need not exist.
pub struct Cache {
    folder: PathBuf,
    /// True once another process was waited for in vain: no second time.
    gave_up: AtomicBool,
}

impl Cache {
    /// `$TEMPER_CACHE`, else `temper` in the system's folder for caches; none where there is none.
    pub fn of_this_machine() -> Option<Self> {
        let folder = match std::env::var_os(VARIABLE) {
            Some(named) if named.is_empty() => return None,
            Some(named) => named.into(),
            None => dirs::cache_dir()?.join("temper"),
        };
        Some(Self::at(folder))
    }

    fn at(folder: PathBuf) -> Self {
        Self { folder, gave_up: AtomicBool::new(false) }
    }

    /// A name's lock, which the system lets go of however its process ends; none where another process has it for so long. It is
    /// of a file of its own, which stays: what lies under the name is replaced whenever something is left there.
    fn lock(&self, name: &str, patience: Duration) -> Option<Box<dyn Any>> {
        let path = self.folder.join(format!("{name}.lock"));
        let open = || OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        // Where nothing can be kept nobody is told anything either.
        let Ok(file) = fs::create_dir_all(&self.folder).and_then(|()| open()) else { return Some(Box::new(())) };
        let (begin, mut said) = (Instant::now(), false);
        loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if begin.elapsed() >= patience => return None,
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems have no locks: nothing can be promised there.
                Ok(()) | Err(TryLockError::Error(_)) => return Some(Box::new(file)),
            }
            if !said && begin.elapsed() >= SILENCE {
                let seconds = patience.as_secs();
                tracing::warn!("waiting for another process that has {}, at most {seconds} seconds", path.display());
                said = true;
            }
            thread::sleep(LOOK);
        }
    }
}

impl Shelf for Cache {
    fn take(&self, name: &str) -> Option<Vec<u8>> {
        check_name(name).ok()?;
        let mut bytes = Vec::new();
        let file = File::open(self.folder.join(name)).ok()?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= MOST_BYTES).then_some(bytes)
    }

    fn leave(&self, name: &str, bytes: &[u8]) {
        if check_name(name).is_err() {
            return;
        }
        let path = self.folder.join(name);
        let _not_ending = not_ending();
        let written = fs::create_dir_all(&self.folder)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(write_atomically(&path, |w| w.write_all(bytes))?));
        match written {
            Ok(()) => tracing::debug!("{} holds {} bytes for later runs", path.display(), bytes.len()),
            Err(error) => tracing::debug!("nothing is kept for later runs: {error:#}"),
        }
    }

    fn hold(&self, name: &str) -> Option<Box<dyn Any>> {
        if check_name(name).is_err() {
            return Some(Box::new(()));
        }
        let patience = if self.gave_up.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        let Some(lock) = self.lock(name, patience) else {
            self.gave_up.store(true, Ordering::Relaxed);
            return None;
        };
        // In this order: others find the file as it is to be.
        Some(Box::new((Passing::of(self.folder.join(name)), lock)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_there_later_and_only_in_its_folder() {
        let base = tempfile::tempdir().unwrap();
        let cache = Cache::at(base.path().join("not/yet"));
        assert_eq!(cache.take("a"), None);
        cache.leave("a", b"one");
        cache.leave("a", b"two");
        assert_eq!(cache.take("a").as_deref(), Some(&b"two"[..]));
        cache.leave("../b", b"three");
        assert!(!base.path().join("not/b").exists() && cache.take("../a").is_none());
        // Where it cannot be written, nothing happens.
        fs::write(base.path().join("file"), "").unwrap();
        let nowhere = Cache::at(base.path().join("file"));
        nowhere.leave("a", b"four");
        assert!(nowhere.lock("a", Duration::ZERO).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn another_process_is_waited_for_and_leaves_its_word_only_where_it_crashes() {
        use std::process::{Command, Stdio};

        use crate::interrupt::{INTERRUPTED, Unbegun};

        const TEST: &str = "shelf::tests::another_process_is_waited_for_and_leaves_its_word_only_where_it_crashes";
        /// The folder, where this is the other process.
        const FOLDER: &str = "TEMPER_TEST_SHELF";
        /// There too where it is one that is stopped in its own way.
        const UNBEGUN: &str = "TEMPER_TEST_UNBEGUN";
        if let Some(folder) = std::env::var_os(FOLDER) {
            let _unbegun = std::env::var_os(UNBEGUN).map(|_| Unbegun::now(Box::new(|| {})));
            let cache = Cache::at(folder.into());
            let _held = cache.hold("it").expect("nobody else has it");
            cache.leave("it", b"trying");
            return thread::sleep(Duration::from_secs(60));
        }
        let stopped = (libc::SIGTERM, Some(i32::from(INTERRUPTED)), None);
        let crashed = (libc::SIGKILL, None, Some(&b"trying"[..]));
        for (unbegun, (signal, code, word)) in [(false, stopped), (true, stopped), (false, crashed)] {
            let base = tempfile::tempdir().unwrap();
            let cache = Cache::at(base.path().into());
            let mut other = Command::new(std::env::current_exe().unwrap());
            other.args(["--exact", TEST]).env(FOLDER, base.path()).stdout(Stdio::null()).stderr(Stdio::null());
            if unbegun {
                other.env(UNBEGUN, "");
            }
            let mut other = other.spawn().unwrap();
            while cache.take("it").is_none() {
                assert!(other.try_wait().unwrap().is_none(), "it ended before it left anything");
                thread::sleep(Duration::from_millis(10));
            }
            assert!(cache.lock("it", Duration::ZERO).is_none(), "it is held");
            // SAFETY: a child that was not waited for: its number is nobody else's.
            assert_eq!(unsafe { libc::kill(other.id() as libc::pid_t, signal) }, 0);
            assert!(cache.lock("it", PATIENCE).is_some(), "it is held no more");
            assert_eq!((other.wait().unwrap().code(), cache.take("it").as_deref()), (code, word));
        }
    }
}
