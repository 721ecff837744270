//! The folder where this machine keeps what can be made again: compiled kernels, and which kernel was fastest for what.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use temper_engine::host::{Shelf, check_name};

use crate::files::write_atomically;

/// Names another folder than the system's for such things; nothing is kept where it is empty.
const VARIABLE: &str = "TEMPER_CACHE";
/// A larger file is none of ours.
const MOST_BYTES: u64 = 256 << 20;

/// A folder that need not exist.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `$TEMPER_CACHE`, else `temper` in the system's folder for caches; none where there is none.
    pub fn of_this_machine() -> Option<Self> {
        let folder = match std::env::var_os(VARIABLE) {
            Some(named) if named.is_empty() => return None,
            Some(named) => named.into(),
            None => dirs::cache_dir()?.join("temper"),
        };
        Some(Self { folder })
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
        let written = fs::create_dir_all(&self.folder)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(write_atomically(&path, |w| w.write_all(bytes))?));
        match written {
            Ok(()) => tracing::debug!("{} holds {} bytes for later runs", path.display(), bytes.len()),
            Err(error) => tracing::debug!("nothing is kept for later runs: {error:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_there_later_and_only_in_its_folder() {
        let base = tempfile::tempdir().unwrap();
        let cache = Cache { folder: base.path().join("not/yet") };
        assert_eq!(cache.take("a"), None);
        cache.leave("a", b"one");
        cache.leave("a", b"two");
        assert_eq!(cache.take("a").as_deref(), Some(&b"two"[..]));
        cache.leave("../b", b"three");
        assert!(!base.path().join("not/b").exists() && cache.take("../a").is_none());
        // Where it cannot be written, nothing happens.
        fs::write(base.path().join("file"), "").unwrap();
        Cache { folder: base.path().join("file") }.leave("a", b"four");
    }
}
