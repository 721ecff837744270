//! Whether a file or folder is still where it was: somebody may move or remove it while a run writes to it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use temper_engine::{Error, Result};

use crate::files::io_error;

/// A path, and what was there when it was opened.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Keeps its number from being given to another file.
    handle: Option<File>,
}

impl Place {
    /// The file or folder at `path`.
    ///
    /// # Errors
    /// [`Error::Missing`] where nothing is there, [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let attempt = || -> io::Result<Option<File>> {
            // Elsewhere folders cannot be opened, and what is open cannot be moved.
            if cfg!(unix) { File::open(path).map(Some) } else { fs::metadata(path).map(|_| None) }
        };
        let handle = attempt().map_err(|error| io_error(path, &error))?;
        Ok(Self { path: path.to_path_buf(), handle })
    }

    /// Refuses to go on where the path now leads to nothing or to something else.
    ///
    /// # Errors
    /// [`Error::Io`] saying what is gone, and where it is now as far as that can be known.
    pub fn check(&self) -> Result<()> {
        let there = match &self.handle {
            Some(file) => is_at(file, &self.path),
            None => self.path.exists(),
        };
        if there {
            return Ok(());
        }
        let now = match self.now() {
            Some(now) => format!("; it is now {}, from where the run can be gone on with (--resume)", now.display()),
            None => String::new(),
        };
        Err(Error::Io {
            path: self.path.display().to_string(),
            problem: format!("is gone: it was moved or removed while the run was going on{now}"),
        })
    }

    /// Where it was moved to, where the system tells.
    pub fn now(&self) -> Option<PathBuf> {
        self.handle.as_ref().and_then(path_of)
    }
}

/// Where an open file lies; none where it was removed or the system does not tell.
#[cfg(target_os = "linux")]
pub fn path_of(file: &File) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok().filter(|path| is_at(file, path))
}

/// Where an open file lies; none where it was removed or the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn path_of(_file: &File) -> Option<PathBuf> {
    None
}

/// True where `path` leads to this open file.
#[cfg(unix)]
pub fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |data: fs::Metadata| (data.dev(), data.ino());
    file.metadata().map(place).is_ok_and(|here| fs::metadata(path).map(place).is_ok_and(|there| here == there))
}

/// True where `path` leads to this open file, which cannot be removed while it is open.
#[cfg(not(unix))]
pub fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_was_moved_removed_or_replaced_is_gone_and_what_is_there_is_not() {
        let base = tempfile::tempdir().unwrap();
        let (a, b) = (base.path().join("a"), base.path().join("b"));
        fs::create_dir(&a).unwrap();
        let place = Place::open(&a).unwrap();
        place.check().unwrap();
        fs::rename(&a, &b).unwrap();
        let moved = place.check().unwrap_err();
        assert!(!moved.is_bad_input() && moved.to_string().contains("moved or removed"), "{moved}");
        if cfg!(target_os = "linux") {
            assert!(moved.to_string().contains(&b.display().to_string()), "{moved}");
        }
        fs::create_dir(&a).unwrap();
        assert!(place.check().is_err(), "another folder of that name is not it");
        fs::remove_dir(&a).unwrap();
        fs::rename(&b, &a).unwrap();
        place.check().unwrap();
        fs::remove_dir(&a).unwrap();
        assert!(place.check().is_err() && place.now().is_none());
        assert!(Place::open(&a).unwrap_err().is_bad_input());
    }
}
