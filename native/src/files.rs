//! Files as the engine and the run folder need them: complete or absent, read range by range, and inside their folder.
//!
//! Place in the flow: beneath everything that touches the disk. The engine sees only [`Bytes`] and [`Folder`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use temper_engine::host::{Bytes, Folder, check_name};
use temper_engine::{Error, Result};

use crate::interrupt::Writing;
use crate::output::quoted;

/// Start of the name of a file or folder that is being written. A killed process leaves one; nothing reads it, and
/// [`remove_partial`] clears it away.
const PARTIAL: &str = ".partial-";

const NOTHING_THERE: &str = "there is no such file or folder";

/// An operating system's error with what to do about it, which is the same for every command. Of a file that was to be read,
/// [`read_error`] says more.
pub fn io_error(path: &Path, error: &io::Error) -> Error {
    use io::ErrorKind::{
        FileTooLarge, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    // What was named is not there, or something else: the user's to mend, like any other bad input.
    let missing = |problem: String| Error::Missing { path: path.display().to_string(), problem };
    let advice = match error.kind() {
        NotFound if !parent(path).is_dir() => {
            return missing(format!("the folder {} is not there; make it first", parent(path).display()));
        }
        NotFound => return missing(NOTHING_THERE.into()),
        NotADirectory => return missing("a part of this path is a file and not a folder".into()),
        IsADirectory => return missing("is a folder; name a file".into()),
        StorageFull | QuotaExceeded => ": the disk is full; free some space",
        FileTooLarge => ": this account may not write files of this size (ulimit -f)",
        PermissionDenied => ": this account may not write there; choose another place",
        ReadOnlyFilesystem => ": choose another place",
        _ => "",
    };
    Error::Io { path: path.display().to_string(), problem: words(error) + advice }
}

/// The operating system's words: without its number for them, and without the temporary file that it names, for which nobody
/// asked.
pub fn words(error: &io::Error) -> String {
    let said = error.to_string();
    let end = [" (os error ", " at path \""].into_iter().filter_map(|mark| said.find(mark)).min();
    said[..end.unwrap_or(said.len())].to_owned()
}

/// An operating system's error while a file was to be read, which may be a packed one.
pub fn read_error(path: &Path, error: &io::Error) -> Error {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, PermissionDenied, UnexpectedEof};
    let is_packed = path.extension().is_some_and(|end| end == "gz");
    let shown = path.display().to_string();
    match error.kind() {
        // The user's to mend, like any other bad input.
        PermissionDenied => {
            let problem = format!("cannot be read: {}; let this account read it", words(error));
            Error::Missing { path: shown, problem }
        }
        NotFound => Error::Missing { path: shown, problem: NOTHING_THERE.into() },
        // What unpacking says.
        UnexpectedEof | InvalidData | InvalidInput if is_packed => {
            let problem = format!("cannot be unpacked: {}; is it complete, and packed with gzip?", words(error));
            Error::Format { file: shown, problem }
        }
        _ => io_error(path, error),
    }
}

/// An error while a model was opened, in words for whoever named no model: something on Hugging Face, one file of a model's
/// folder, or a folder that is none.
pub fn model_error(path: &Path, error: Error) -> Error {
    let is_part = path.extension().is_some_and(|end| ["safetensors", "json", "bin"].iter().any(|part| end == *part));
    let problem = match &error {
        Error::Missing { .. } if !path.exists() => no_such_model(path),
        Error::Missing { path: file, .. } if path.is_dir() && Path::new(file).ends_with("config.json") => {
            no_model_in(path)
        }
        Error::Format { .. } if path.is_file() && is_part => {
            "is one file of a model; give the folder that holds all of them, or a GGUF file".into()
        }
        _ => return error,
    };
    Error::Missing { path: path.display().to_string(), problem }
}

/// Nothing is there: what to do where that can be a name on Hugging Face.
fn no_such_model(path: &Path) -> String {
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let named = path.to_str().and_then(|path| Some((path, path.split_once('/')?)));
    let is_name = |(owner, name): (&str, &str)| {
        [owner, name].iter().all(plain) && !name.ends_with(".gguf") && !Path::new(owner).exists()
    };
    match named.filter(|(_, parts)| is_name(*parts)) {
        None => NOTHING_THERE.into(),
        Some((path, (_, name))) => format!(
            "{NOTHING_THERE}, and Temper downloads nothing. If that is a model on Hugging Face, get its files with `hf download \
             {path} --local-dir {name}`, or a GGUF file of it, and give the path of that"
        ),
    }
}

/// A folder is no model's: what it is, or what in it is one.
fn no_model_in(folder: &Path) -> String {
    const EXPORT: &str = "a command without that option takes the model that `temper export` makes of it";
    let (shown, has) = (quoted(folder), |name: &str| folder.join(name).exists());
    if has("adapter_config.json") {
        return format!(
            "is an adapter and no model: give it beside the model that it was trained on, `--model BASE --adapter \
             {shown}`; {EXPORT}"
        );
    }
    if has("config.toml") && ["checkpoints", "summary.json"].into_iter().any(has) {
        return format!("is the folder of a run and no model: give `--run {shown}` in place of --model; {EXPORT}");
    }
    if has("record.json") && has("state.json") {
        return format!(
            "is a checkpoint of a run and no model: give the run's folder and the step, `--run DIR --step N`, in place \
             of --model; {EXPORT}"
        );
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = entries.filter(|path| path.extension().is_some_and(|end| end == "gguf")).min();
    let found = found.map(|file| format!("; it holds {}: give that file", file.display()));
    format!("is no model's folder: it has no config.json{}", found.unwrap_or_default())
}

/// A whole file of at most `most` bytes; none where there is none. Its size is compared before anything of it is held. It
/// may be written to meanwhile.
///
/// # Errors
/// [`Error::Format`] with both numbers where it is larger; [`Error::Missing`] where it is no regular file or may not be
/// read; [`Error::Io`].
pub fn read_small(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| read_error(path, &error))?,
    };
    if !found.is_file() {
        return Err(not_regular(path));
    }
    if found.len() > most {
        let problem = format!("has {} bytes, and no more than {most} are read", found.len());
        return Err(Error::Format { file: path.display().to_string(), problem });
    }
    fs::read(path).map(Some).map_err(|error| read_error(path, &error))
}

fn not_regular(path: &Path) -> Error {
    Error::Missing { path: path.display().to_string(), problem: "this is not a regular file".into() }
}

/// `web/` of the source tree. Cargo says at run time where that is; the path of the build is only the second best, because
/// a shared target folder outlives a checkout.
pub fn web_sources() -> PathBuf {
    let native = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&native).with_file_name("web")
}

/// Writes a file that is, whatever happens, either the old one, absent, or complete: a temporary file in the same folder
/// is written, forced to the disk, renamed, and the folder forced to the disk so that the name survives a power cut.
///
/// What is no file (`/dev/stdout`, a pipe) is written to and stays what it is; a link is followed.
///
/// # Errors
/// [`Error::Io`], also where the user wants to stop (see [`Writing`]), and those of `write`; the temporary file is gone
/// then, and an old file untouched.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let attempt = || -> io::Result<()> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            let mut buffered = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            write(&mut buffered)?;
            return buffered.flush();
        }
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let writing = Writing::begin();
        let folder = parent(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(PARTIAL);
        // Temporary files are private by default; results are ordinary files, subject to the umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder)?;
        let mut buffered = BufWriter::with_capacity(1 << 20, temporary);
        write(&mut Stoppable { out: &mut buffered, writing: &writing })?;
        let temporary = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        temporary.as_file().sync_all()?;
        writing.go_on()?;
        temporary.persist(path).map_err(|failed| failed.error)?;
        sync_folder(folder)
    };
    // The engine's errors travel inside those of its writers.
    attempt().map_err(|error| error.downcast::<Error>().unwrap_or_else(|error| io_error(path, &error)))
}

/// Writes a folder of files so that it is complete or absent: into a temporary one beside it, which is then renamed.
/// A folder that is already there is replaced. `fill` writes what is better not held in memory whole.
///
/// # Errors
/// [`Error::Io`], also where the user wants to stop (see [`Writing`]), and those of `fill`; the temporary folder is gone
/// then.
pub fn write_folder_with(
    path: &Path,
    files: &[(String, Vec<u8>)],
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<()> {
    let attempt = || -> io::Result<()> {
        let parent = parent(path);
        let writing = Writing::begin();
        let mut builder = tempfile::Builder::new();
        builder.prefix(PARTIAL);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temporary = builder.tempdir_in(parent)?;
        for (name, contents) in files {
            write_new(&temporary.path().join(name), |out| out.write_all(contents))?;
        }
        fill(temporary.path())?;
        sync_folder(temporary.path())?;
        writing.go_on()?;
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        fs::rename(temporary.path(), path)?;
        // Its name is no longer the temporary one: there is nothing to clean up.
        let _moved = temporary.keep();
        sync_folder(parent)
    };
    for (name, _) in files {
        check_name(name)?;
    }
    // The engine's errors travel inside those of its writers.
    attempt().map_err(|error| error.downcast::<Error>().unwrap_or_else(|error| io_error(path, &error)))
}

/// Writes a file that is not there yet and forces it to the disk: for what is inside a folder that is not seen before it is
/// whole.
///
/// # Errors
/// The operating system's, and those of `write`; where the user wants to stop (see [`Writing`]).
pub fn write_new(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let writing = Writing::begin();
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    write(&mut Stoppable { out: &mut out, writing: &writing })?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Writes until the user wants to stop.
struct Stoppable<'a> {
    out: &'a mut dyn Write,
    writing: &'a Writing,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writing.go_on()?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// True for what an interrupted write left.
pub fn is_partial(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(PARTIAL)
}

/// Clears away what an interrupted write left in this folder. Failing to is harmless and not reported.
pub fn remove_partial(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_partial(&entry) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Forces a folder's list of names to the disk. Windows has no such call and orders renames itself.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// A file of which ranges are read when they are asked for: opening a model of many gigabytes costs nothing, and of what
/// was read only what somebody keeps stays in memory.
///
/// It is not mapped into memory: another program that shortens a mapped file ends this process with a bus error. Here
/// that, like any other change, is an error with the file's name.
pub struct OpenFile {
    file: File,
    path: PathBuf,
    /// As it was when it was opened.
    length: u64,
    modified: Option<SystemTime>,
}

impl OpenFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Io`] where it cannot be opened or is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, path)
    }

    /// Opens a file that messages call by another path.
    fn open_as(target: &Path, path: &Path) -> Result<Self> {
        let failed = |error: io::Error| read_error(path, &error);
        // Asked before it is opened: opening a pipe waits for its other end, and some devices act on it.
        if !fs::metadata(target).map_err(failed)?.is_file() {
            return Err(not_regular(path));
        }
        let file = File::open(target).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        Ok(Self { file, path: path.to_path_buf(), length: found.len(), modified: found.modified().ok() })
    }

    /// Fails where the file is not what it was when it was opened: shorter or longer, or written to.
    fn check_unchanged(&self) -> Result<()> {
        let found = self.file.metadata().map_err(|error| io_error(&self.path, &error))?;
        let changed = match (found.len(), found.modified().ok()) {
            (length, _) if length != self.length => format!("it had {} bytes and has {length} now", self.length),
            (_, modified) if modified != self.modified => "it was written to".into(),
            _ => return Ok(()),
        };
        Err(Error::Io {
            path: self.path.display().to_string(),
            problem: format!(
                "was changed by another program while it was in use: {changed}; wait until the other is done, and start again"
            ),
        })
    }
}

impl Bytes for OpenFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.length) {
            let problem = format!("bytes {offset}..+{} were asked for, but it has only {}", out.len(), self.length);
            return Err(Error::Io { path: self.path.display().to_string(), problem });
        }
        let read = read_exact_at(&self.file, out, offset);
        // First of all: a file that was shortened fails the read as well, in words that do not say why.
        self.check_unchanged()?;
        read.map_err(|error| read_error(&self.path, &error))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = &mut out[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A folder of the file system, out of which no name and no link leads.
///
/// One exception, by its exact shape: in the cache of the Hugging Face hub a model's files are links from
/// `snapshots/<commit>/` into `blobs/` beside `snapshots`, so those are followed.
pub struct OsFolder {
    /// As the user named it, for messages.
    path: PathBuf,
    /// Without links.
    root: PathBuf,
    /// The hub cache's `blobs`, where `root` is one of its snapshots.
    blobs: Option<PathBuf>,
}

impl OsFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`Error::Io`] where there is none or it is not a folder.
    pub fn open(path: &Path) -> Result<Self> {
        let root = path.canonicalize().map_err(|error| read_error(path, &error))?;
        if !root.is_dir() {
            return Err(Error::Missing { path: path.display().to_string(), problem: "this is not a folder".into() });
        }
        let snapshots = root.parent().filter(|parent| parent.ends_with("snapshots"));
        let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
        Ok(Self { path: path.to_path_buf(), root, blobs })
    }
}

impl Folder for OsFolder {
    fn open(&self, name: &str) -> Result<Option<Arc<dyn Bytes>>> {
        check_name(name)?;
        let path = self.root.join(name);
        let target = match path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(&path, &error)),
        };
        let inside = |folder: &Path| target.starts_with(folder);
        if !inside(&self.root) && !self.blobs.as_deref().is_some_and(inside) {
            return Err(Error::Format {
                file: self.display(name),
                problem: format!("is a link out of its folder, to {}; copy the file instead", target.display()),
            });
        }
        Ok(Some(Arc::new(OpenFile::open_as(&target, &self.path.join(name))?)))
    }

    fn display(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// A file that the user named, and those beside it. What is opened has that name, one made of it or one that is known, never
/// one out of a file, so links are followed.
pub struct Beside {
    folder: PathBuf,
}

impl Beside {
    /// The folder of a file, and the file's name in it.
    ///
    /// # Errors
    /// [`Error::Missing`] where the path names no file.
    pub fn of(path: &Path) -> Result<(Self, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::Missing {
            path: path.display().to_string(),
            problem: "this is no file with a readable name".into(),
        })?;
        Ok((Self { folder: path.parent().unwrap_or(Path::new("")).to_path_buf() }, name.to_owned()))
    }
}

impl Folder for Beside {
    fn open(&self, name: &str) -> Result<Option<Arc<dyn Bytes>>> {
        let path = self.folder.join(name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Ok(Some(Arc::new(OpenFile::open(&path)?))),
        }
    }

    fn display(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        let message = error.unwrap_err().to_string();
        assert!(message.contains("the disk is full") && !message.contains("--"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.json"]);
        write_atomically(&path, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_written_to_and_never_replaced_and_a_link_is_followed() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let full = Path::new("/dev/full");
        let message = write_atomically(full, |w| w.write_all(b"x")).unwrap_err().to_string();
        assert!(message.contains("the disk is full"), "{message}");
        write_atomically(Path::new("/dev/null"), |w| w.write_all(b"x")).unwrap();
        assert!(fs::metadata(full).unwrap().file_type().is_char_device());

        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"old").unwrap();
        symlink("file", &link).unwrap();
        write_atomically(&link, |w| w.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn a_written_file_is_readable_by_others_as_far_as_the_umask_lets() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("a"), folder.path().join("b"));
        write_atomically(&ours, |w| w.write_all(b"x")).unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_folder_is_complete_or_absent_and_leftovers_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-1");
        for contents in [b"1".to_vec(), b"2".to_vec()] {
            write_folder_with(&path, &[("a".into(), contents.clone()), ("b".into(), vec![])], |_| Ok(())).unwrap();
            assert_eq!(fs::read(path.join("a")).unwrap(), contents);
        }
        assert!(write_folder_with(&folder.path().join("step-2"), &[("../x".into(), vec![])], |_| Ok(())).is_err());
        let failed = write_folder_with(&path, &[], |_| Err(io::Error::from(io::ErrorKind::StorageFull)));
        assert!(failed.is_err());
        assert_eq!(fs::read(path.join("a")).unwrap(), b"2", "an attempt that fails leaves the folder of the last one");
        assert_eq!(names(folder.path()), ["step-1"]);
        fs::create_dir(folder.path().join(".partial-killed")).unwrap();
        fs::write(folder.path().join(".partial-file"), b"").unwrap();
        remove_partial(folder.path());
        assert_eq!(names(folder.path()), ["step-1"]);
    }

    #[test]
    fn what_cannot_be_written_is_named_as_the_user_named_it_and_no_command_gets_another_ones_advice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/where.gguf");
        let error = write_atomically(&path, |w| w.write_all(b"x")).unwrap_err();
        let message = error.to_string();
        assert!(error.is_bad_input() && message.contains("where.gguf: the folder "), "{message}");
        assert!(message.contains("make it first") && !message.contains(PARTIAL), "{message}");
        let error = write_folder_with(&path, &[], |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("make it first") && !error.contains(PARTIAL), "{error}");
        // As the temporary file's writer says it.
        let full = io::Error::new(io::ErrorKind::StorageFull, "No space left (os error 28) at path \"/a/.partial-x\"");
        assert_eq!(io_error(Path::new("x"), &full).to_string(), "x: No space left: the disk is full; free some space");
        for (kind, bad) in [
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::ReadOnlyFilesystem, false),
            (io::ErrorKind::FileTooLarge, false),
            (io::ErrorKind::NotADirectory, true),
            (io::ErrorKind::IsADirectory, true),
        ] {
            let error = io_error(Path::new("x"), &kind.into());
            assert!(error.is_bad_input() == bad && !error.to_string().contains("--"), "{error}");
        }
        // A folder is in the way.
        let message = write_atomically(folder.path(), |w| w.write_all(b"x")).unwrap_err().to_string();
        assert!(!message.contains(PARTIAL), "{message}");
    }

    #[test]
    fn who_names_no_model_is_told_what_would_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let missing = |path: &Path| Error::Missing { path: path.display().to_string(), problem: "nothing".into() };
        let said = |path: &Path, error: Error| {
            let error = model_error(path, error);
            assert!(error.is_bad_input());
            error.to_string()
        };
        let hub = Path::new("Qwen/Qwen3-0.6B");
        let message = said(hub, missing(hub));
        assert!(message.contains("hf download Qwen/Qwen3-0.6B --local-dir Qwen3-0.6B"), "{message}");
        assert!(message.contains("no such file or folder") && message.contains("downloads nothing"), "{message}");
        for path in ["nowhere", "./a/b", "/a/b", "a/b/c", "a/b.gguf", "a b/c", "../a"] {
            let message = said(Path::new(path), missing(Path::new(path)));
            assert_eq!(message, format!("{path}: there is no such file or folder"));
        }
        // A folder that is there is no owner on Hugging Face.
        assert!(!said(&at("model"), missing(&at("model"))).contains("hf download"));

        let config = at("config.json");
        assert!(said(folder.path(), missing(&config)).ends_with("is no model's folder: it has no config.json"));
        for (files, part) in [
            (&["adapter_config.json"][..], "--model BASE --adapter "),
            (&["config.toml", "summary.json"][..], "--run "),
            (&["record.json", "state.json"][..], "--step N"),
        ] {
            files.iter().for_each(|name| fs::write(at(name), b"{}").unwrap());
            let message = said(folder.path(), missing(&config));
            assert!(message.contains(part) && message.contains("temper export"), "{message}");
            files.iter().for_each(|name| fs::remove_file(at(name)).unwrap());
        }
        // What is to be pasted into a shell is quoted where that is needed.
        let spaced = at("put full");
        fs::create_dir(&spaced).unwrap();
        ["config.toml", "summary.json"].iter().for_each(|name| fs::write(spaced.join(name), b"{}").unwrap());
        let message = said(&spaced, missing(&spaced.join("config.json")));
        assert!(message.contains(&format!("give `--run '{}'` in place", spaced.display())), "{message}");
        fs::write(at("config.toml"), b"").unwrap();
        assert!(said(folder.path(), missing(&config)).ends_with("it has no config.json"), "no run has begun there");
        fs::write(at("b.gguf"), b"").unwrap();
        assert!(said(folder.path(), missing(&config)).contains("b.gguf: give that file"));
        let tokenizer = said(folder.path(), missing(&at("tokenizer_config.json")));
        assert!(tokenizer.contains("tokenizer_config.json: nothing"), "{tokenizer}");
        let weights = at("model.safetensors");
        fs::write(&weights, b"").unwrap();
        let format = || Error::Format { file: "x".into(), problem: "no GGUF file".into() };
        assert!(said(&weights, format()).contains("give the folder"));
        assert!(said(&at("b.gguf"), format()).contains("no GGUF file"), "it is meant to be one");
    }

    #[test]
    fn what_cannot_be_read_is_bad_input_and_nothing_is_said_of_where_to_write() {
        let said = |name: &str, kind: io::ErrorKind| {
            let error = read_error(Path::new(name), &kind.into());
            (error.is_bad_input(), error.to_string())
        };
        let (bad, message) = said("a.jsonl", io::ErrorKind::PermissionDenied);
        assert!(bad && message.contains("a.jsonl: cannot be read") && !message.contains("--out"), "{message}");
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidInput, io::ErrorKind::InvalidData] {
            let (bad, message) = said("a.jsonl.gz", kind);
            assert!(bad && message.contains("is it complete, and packed with gzip?"), "{message}");
            assert!(!said("a.jsonl", kind).0, "a file that is not packed");
        }
        assert!(!said("a.jsonl.gz", io::ErrorKind::TimedOut).0);
    }

    #[test]
    fn a_file_that_is_larger_than_it_may_be_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(read_small(&path, 3).unwrap(), None);
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read_small(&path, 3).unwrap().as_deref(), Some(&b"abc"[..]));
        // A hole: nothing lies on the disk.
        File::create(&path).unwrap().set_len(1 << 32).unwrap();
        let error = read_small(&path, 3).unwrap_err();
        assert!(
            error.is_bad_input() && error.to_string().contains("has 4294967296 bytes, and no more than 3"),
            "{error}"
        );
        assert!(read_small(folder.path(), 3).unwrap_err().is_bad_input());
        #[cfg(unix)]
        assert!(read_small(Path::new("/dev/zero"), 3).is_err(), "a device has no size");
    }

    /// The whole contents.
    fn contents(bytes: &dyn Bytes) -> Vec<u8> {
        let mut out = vec![0; bytes.len() as usize];
        bytes.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn an_open_file_reads_any_range_and_refuses_what_is_past_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"abcdef").unwrap();
        let file = OpenFile::open(&path).unwrap();
        let mut out = [0; 3];
        file.read(2, &mut out).unwrap();
        assert_eq!((&out, file.len(), contents(&file)), (b"cde", 6, b"abcdef".to_vec()));
        for offset in [4, 6, u64::MAX] {
            let message = file.read(offset, &mut out).unwrap_err().to_string();
            assert!(message.contains(&format!("bytes {offset}..+3")) && message.contains("only 6"), "{message}");
        }
        fs::write(&path, b"").unwrap();
        let empty = OpenFile::open(&path).unwrap();
        assert!(empty.is_empty() && contents(&empty).is_empty());
        assert!(OpenFile::open(folder.path()).is_err(), "a folder is not a file");
        #[cfg(unix)]
        assert!(OpenFile::open(Path::new("/dev/zero")).is_err(), "a device is not a file");
    }

    #[test]
    fn a_file_that_changes_while_it_is_open_is_an_error_with_its_name_and_both_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let open = || {
            fs::write(&path, vec![7; 10_000]).unwrap();
            OpenFile::open(&path).unwrap()
        };
        let mut out = [0; 100];
        let fails = |file: &OpenFile, offset, out: &mut [u8], expected: &str| {
            let error = file.read(offset, out).unwrap_err();
            assert!(!error.is_bad_input(), "a run that failed");
            let message = error.to_string();
            for part in ["model.gguf", "changed by another program", expected, "start again"] {
                assert!(message.contains(part), "{part} is not in: {message}");
            }
        };
        let file = open();
        file.read(9_000, &mut out).unwrap();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.set_len(4_000).unwrap();
        fails(&file, 9_000, &mut out, "had 10000 bytes and has 4000 now");
        fails(&file, 0, &mut out, "had 10000 bytes and has 4000 now");

        let file = open();
        writer.set_len(10_001).unwrap();
        fails(&file, 0, &mut out, "had 10000 bytes and has 10001 now");

        let file = open();
        writer.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        fails(&file, 0, &mut out, "it was written to");

        // Another file of the same name is no change: this one is still there until it is closed.
        let file = open();
        write_atomically(&path, |out| out.write_all(b"other")).unwrap();
        file.read(0, &mut out).unwrap();
        assert_eq!(out, [7; 100]);
    }

    #[test]
    fn a_missing_file_is_none_and_a_missing_folder_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let open = OsFolder::open(folder.path()).unwrap();
        assert!(open.open("config.json").unwrap().is_none());
        assert!(open.open("../config.json").is_err());
        assert!(OsFolder::open(&folder.path().join("nowhere")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_refused_except_into_the_hub_caches_blobs() {
        use std::os::unix::fs::symlink;
        let base = tempfile::tempdir().unwrap();
        let model = base.path().join("models--a--b");
        let (snapshot, blobs) = (model.join("snapshots/c0ffee"), model.join("blobs"));
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("sha"), b"weights").unwrap();
        fs::write(base.path().join("secret"), b"s").unwrap();
        symlink("../../blobs/sha", snapshot.join("model.safetensors")).unwrap();
        symlink("../../../secret", snapshot.join("tokenizer.json")).unwrap();
        let folder = OsFolder::open(&snapshot).unwrap();
        assert_eq!(contents(folder.open("model.safetensors").unwrap().unwrap().as_ref()), b"weights");
        let Err(error) = folder.open("tokenizer.json") else { panic!("the link was followed") };
        assert!(error.to_string().contains("link out of its folder"), "{error}");
    }
}
