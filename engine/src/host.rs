//! What the engine asks of its host: bytes, folders and a clock.
//!
//! The engine opens no files and reads no clocks of its own, so that the same code runs as a command and in a web page.
//! The command implements these traits with files that it reads range by range and the system clock, the page with fetched
//! buffers and `performance.now`. Everything that comes through them is untrusted: whoever reads checks sizes against
//! [`Bytes::len`] before allocating.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Most bytes of a configuration, a run's or a model's: they are a few KiB, and a larger file is something else.
pub const MOST_CONFIGURATION_BYTES: u64 = 1 << 20;

/// A file's contents, read at any place, in any order, from any thread.
pub trait Bytes: Send + Sync {
    /// Length in bytes, as it was when the file was opened.
    fn len(&self) -> u64;

    /// True for an empty file.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// [`Error::Io`] when the range reaches past the end, the host cannot read, or the file is no longer what it was when it
    /// was opened.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()>;
}

/// Reads a range of a slice.
fn read_slice(bytes: &[u8], offset: u64, out: &mut [u8]) -> Result<()> {
    let range = usize::try_from(offset).ok().and_then(|start| bytes.get(start..start.checked_add(out.len())?));
    let Some(found) = range else {
        return Err(Error::Io {
            path: "memory".into(),
            problem: format!("bytes {offset}..+{} were asked for, but there are only {}", out.len(), bytes.len()),
        });
    };
    out.copy_from_slice(found);
    Ok(())
}

macro_rules! bytes_in_memory {
    ($kind:ty) => {
        impl Bytes for $kind {
            fn len(&self) -> u64 {
                <[u8]>::len(self) as u64
            }

            fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
                read_slice(self, offset, out)
            }
        }
    };
}
bytes_in_memory!(Vec<u8>);
bytes_in_memory!(Arc<[u8]>);
bytes_in_memory!(&'static [u8]);

/// A flat folder of files, such as a Hugging Face model folder.
pub trait Folder {
    /// Opens a file, or `None` where there is none of that name.
    ///
    /// # Errors
    /// [`Error::Format`] where `name` is not a plain file name ([`check_name`], which implementations call first),
    /// [`Error::Io`] where the file exists and cannot be opened.
    fn open(&self, name: &str) -> Result<Option<Arc<dyn Bytes>>>;

    /// How to name that file to the user, usually its path.
    fn display(&self, name: &str) -> String;
}

/// A monotonic clock.
pub trait Clock {
    /// Seconds since some fixed moment; only differences mean anything.
    fn seconds(&self) -> f64;
}

/// What is left of earlier runs on this machine: compiled kernels, which kernel was fastest for what. All of it can be made
/// again, so that a host may lose it; whoever takes something notices whether it was damaged.
pub trait Shelf: Send + Sync {
    /// What was left under a plain file name ([`check_name`]); none where nothing was, or it cannot be read.
    fn take(&self, name: &str) -> Option<Vec<u8>>;

    /// Leaves something there in the place of what was. Nobody waits for it or is told that it failed.
    fn leave(&self, name: &str, bytes: &[u8]);

    /// Takes a name for this process while it tries what it may not survive, until what is returned is dropped or the process
    /// ends, however it ends. Where it ends because somebody stops it, what lies under the name is lost. Another process that has
    /// the name is waited for; none where that takes too long. On a shelf that only one process knows it is free.
    fn hold(&self, _name: &str) -> Option<Box<dyn Any>> {
        Some(Box::new(()))
    }
}

/// In memory, for as long as the process.
impl Shelf for Mutex<BTreeMap<String, Vec<u8>>> {
    fn take(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn leave(&self, name: &str, bytes: &[u8]) {
        self.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), bytes.into());
    }
}

/// Accepts plain file names only, because names also come out of downloaded files (a shard index) and must not leave
/// the folder on any system: no separators of either kind, no drive or stream colon, no `.` or `..`, no control
/// characters, at most 255 bytes.
///
/// # Errors
/// [`Error::Format`] naming the offending name.
pub fn check_name(name: &str) -> Result<()> {
    let harmless = !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control());
    if harmless {
        return Ok(());
    }
    Err(Error::Format {
        file: shorten(name),
        problem: "not a plain file name: files must lie in the model's own folder".into(),
    })
}

/// A name from an untrusted file, safe to put in a message: control characters escaped and at most 120 characters long.
pub(crate) fn shorten(name: &str) -> String {
    const LONGEST: usize = 120;
    let mut text: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

/// A folder held in memory: embedded models, the page's downloads, tests.
#[derive(Default)]
pub struct MemoryFolder {
    files: BTreeMap<String, Arc<dyn Bytes>>,
}

impl MemoryFolder {
    /// An empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file.
    ///
    /// # Errors
    /// [`Error::Format`] where `name` is not a plain file name.
    pub fn insert(&mut self, name: &str, bytes: impl Bytes + 'static) -> Result<()> {
        check_name(name)?;
        self.files.insert(name.to_owned(), Arc::new(bytes));
        Ok(())
    }
}

impl Folder for MemoryFolder {
    fn open(&self, name: &str) -> Result<Option<Arc<dyn Bytes>>> {
        check_name(name)?;
        Ok(self.files.get(name).cloned())
    }

    fn display(&self, name: &str) -> String {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for bad in ["", ".", "..", "../a", "a/b", "a\\b", "C:a", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["model.safetensors", "model-00001-of-00003.safetensors", "..a", "naïve.json"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_read_past_the_end_is_an_error_and_not_a_panic() {
        let bytes = vec![1_u8, 2, 3];
        let mut out = [0; 2];
        bytes.read(1, &mut out).unwrap();
        assert_eq!(out, [2, 3]);
        assert!(bytes.read(2, &mut out).is_err());
        assert!(bytes.read(u64::MAX, &mut out).is_err());
    }

    #[test]
    fn a_memory_folder_gives_what_was_put_in_and_none_for_the_rest() {
        let mut folder = MemoryFolder::new();
        folder.insert("a", vec![7_u8]).unwrap();
        let mut out = [0];
        folder.open("a").unwrap().unwrap().read(0, &mut out).unwrap();
        assert_eq!(out, [7]);
        assert!(folder.open("b").unwrap().is_none());
        assert!(folder.open("../a").is_err());
    }
}
