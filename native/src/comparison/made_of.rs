//! What each run of a comparison is made of: a digest of every file that it reads, written down before it begins, so that
//! its numbers are never put beside those of other files.
//!
//! ```text
//! files.json   run -> setting and path -> digest
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use temper_engine::configuration::{ArchitectureSource, Init};
use temper_engine::result::ADAPTER_FILES;
use temper_engine::running::{Digest, Digester};
use temper_engine::words::counted;
use temper_engine::{Config, Error, Tokenizer};

use crate::files::{read_error, write_atomically};
use crate::inputs::{
    EMBEDDED, adapter_folder, digest_of_adapter, files_beside, open_model, read_configuration, size_of_data,
    stream_data,
};
use crate::run_folder::RunFolder;

/// In a comparison's folder.
pub const FILES: &str = "files.json";
/// So many runs are named, and of more their number.
const MOST_NAMED: usize = 6;

/// A digest of each file, by its setting and path. What cannot be read has none: the run that reads it says why.
pub type Files = BTreeMap<String, Digest>;

/// Digests that this process made, so that a large file is read once as long as neither its size nor its time of change is
/// another.
#[derive(Default)]
pub struct Known(BTreeMap<String, (Vec<Stamp>, Digest)>);

/// A file, its size, and when it was changed.
type Stamp = (PathBuf, u64, SystemTime);

impl Known {
    /// The files that runs of these configurations read, as they are now.
    pub fn now<'a>(&mut self, configs: impl IntoIterator<Item = &'a Config>) -> Files {
        let mut files: BTreeMap<String, Option<Digest>> = BTreeMap::new();
        for config in configs {
            for (setting, path) in data_of(config) {
                let make = |file: &String| self.digest(file, Some(vec![path.into()]), || of_data(path));
                files.entry(format!("{setting} {path}")).or_insert_with_key(make);
            }
            if let Some(from) = &config.adapter.from {
                let folder = adapter_folder(from).ok();
                let parts = folder.as_ref().map(|folder| ADAPTER_FILES.map(|name| folder.join(name)).to_vec());
                let make = |file: &String| self.digest(file, parts, || digest_of_adapter(folder.as_ref()?).ok());
                files.entry(format!("adapter.from {from}")).or_insert_with_key(make);
            }
            let (path, init) = (&config.model.path, config.model.init);
            let setting = if init == Init::Pretrained { "model.path" } else { "model.path (with random weights)" };
            let make = |file: &String| self.digest(file, files_of_model(path), || of_model(path, init));
            files.entry(format!("{setting} {path}")).or_insert_with_key(make);
        }
        files.into_iter().filter_map(|(file, digest)| Some((file, digest?))).collect()
    }

    /// What `make` gives or gave of these files, which are looked at before it reads them: what changes meanwhile is read again.
    /// Where they cannot be looked at it is asked each time.
    fn digest(
        &mut self,
        what: &str,
        files: Option<Vec<PathBuf>>,
        make: impl FnOnce() -> Option<Digest>,
    ) -> Option<Digest> {
        let stamp = |file: PathBuf| {
            let found = fs::metadata(&file).ok()?;
            Some((file, found.len(), found.modified().ok()?))
        };
        let now: Option<Vec<Stamp>> = files.and_then(|files| files.into_iter().map(stamp).collect());
        if let (Some((then, digest)), Some(now)) = (self.0.get(what), &now)
            && then == now
        {
            return Some(*digest);
        }
        let digest = make();
        if let (Some(now), Some(digest)) = (now, digest) {
            self.0.insert(what.to_string(), (now, digest));
        }
        digest
    }
}

/// Settings that name a file, with that.
fn data_of(config: &Config) -> impl Iterator<Item = (&'static str, &str)> {
    let data = &config.data;
    let architecture = match &config.model.architecture {
        Some(ArchitectureSource::Path(path)) if config.model.init != Init::Pretrained => Some(path),
        _ => None,
    };
    let train = data.train.paths().iter().map(|path| ("data.train", Some(path)));
    let others = [
        ("data.target", data.target.as_ref()),
        ("data.general", data.general.as_ref()),
        ("data.wrong", data.wrong.as_ref()),
        ("data.replay", data.replay.as_ref()),
        ("model.architecture", architecture),
    ];
    train.chain(others).filter_map(|(setting, path)| Some((setting, path?.as_str())))
}

/// Of a pipe none: it is read once, by the run.
fn of_data(path: &str) -> Option<Digest> {
    if !path.starts_with(EMBEDDED) {
        size_of_data(path).ok()??;
    }
    let (mut stream, _) = stream_data(path).ok()?;
    let mut digester = Digester::default();
    loop {
        let piece = match stream.fill_buf() {
            Ok([]) => return Some(digester.digest()),
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        digester.add(piece);
        let length = piece.len();
        stream.consume(length);
    }
}

/// Of its weights, where they are read, and of its tokenizer. One that can no longer be opened is another one.
fn of_model(path: &str, init: Init) -> Option<Digest> {
    if !path.starts_with(EMBEDDED) && !Path::new(path).exists() {
        return None;
    }
    let mut digester = Digester::default();
    for (name, bytes) in files_beside(path).ok()? {
        digester.add(name.as_bytes());
        digester.add(&bytes);
    }
    if init == Init::Pretrained {
        let files = open_model(path).ok();
        let origin = files.as_ref().and_then(|files| files.origin().ok().flatten());
        digester.add(origin.map_or(String::new(), |origin| origin.to_string()).as_bytes());
        // A folder's is one of the files above.
        let tokenizer = files.as_ref().filter(|files| files.template_beside).and_then(|files| files.tokenizer.as_ref());
        digester.add(tokenizer.and_then(Tokenizer::chat_template).unwrap_or_default().as_bytes());
    } else {
        let description = Path::new(path).join("config.json").display().to_string();
        digester.add(&read_configuration(&description).unwrap_or_default());
    }
    // The tokenizer of a GGUF file is in it, but for a chat template beside it.
    if let Some(found) = fs::metadata(path).ok().filter(|found| found.is_file()) {
        digester.add(&found.len().to_le_bytes());
    }
    Some(digester.digest())
}

/// All that a model can be made of: what its folder holds, or a file with those of its kind beside it, which may be its parts,
/// and a chat template.
/// None where nobody can see that; an embedded one has no files, and never changes.
fn files_of_model(path: &str) -> Option<Vec<PathBuf>> {
    if path.starts_with(EMBEDDED) {
        return Some(Vec::new());
    }
    let path = Path::new(path);
    let within = if path.is_dir() { Some(path) } else { path.parent() };
    let within = within.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_of_gguf = |file: &PathBuf| file.extension() == path.extension() || file.ends_with("chat_template.jinja");
    let is_of_it = |file: &PathBuf| file.is_file() && (path.is_dir() || is_of_gguf(file));
    let entries = fs::read_dir(within).ok()?.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(is_of_it).collect();
    files.sort();
    Some(files)
}

/// What the runs of a comparison were made of.
pub struct MadeOf {
    path: PathBuf,
    runs: BTreeMap<String, Files>,
}

impl MadeOf {
    /// As it is written in a comparison's folder; nothing where no run has begun, or an older version began them.
    ///
    /// # Errors
    /// [`Error::Config`] where somebody edited it, and where it cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILES);
        let runs = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let problem = format!("{}: is not as it was written ({error}); restore it", path.display());
                Error::Config { problems: vec![problem] }
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(read_error(&path, &error).into()),
        };
        Ok(Self { path, runs })
    }

    /// True where nothing is known of any run.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Writes down what a run that begins is made of.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(&mut self, run: &str, files: Files) -> Result<()> {
        self.runs.insert(run.to_string(), files);
        let text = serde_json::to_string_pretty(&self.runs)? + "\n";
        Ok(write_atomically(&self.path, |w| w.write_all(text.as_bytes()))?)
    }

    /// Refuses files that are not what runs in the folder `runs` were made of.
    ///
    /// # Errors
    /// [`Error::Config`] with each such file, its setting and the runs.
    pub fn refuse_other(&self, now: &Files, runs: &Path) -> Result<()> {
        let mut other: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (run, files) in &self.runs {
            let differs = |(file, digest): &(&String, &Digest)| now.get(*file).is_some_and(|now| now != *digest);
            let changed: Vec<&str> = files.iter().filter(differs).map(|(file, _)| file.as_str()).collect();
            let folder = runs.join(run);
            // One that was removed, or never came to its first step, is made anew.
            if changed.is_empty() || RunFolder::look_into(&folder).is_err() {
                continue;
            }
            changed.into_iter().for_each(|file| other.entry(file).or_default().push(folder.display().to_string()));
        }
        let problem = |(file, runs): (&str, Vec<String>)| {
            let more = match runs.len().saturating_sub(MOST_NAMED) {
                0 => String::new(),
                more => format!(" and {} more", counted(more, "run")),
            };
            let named = runs[..runs.len().min(MOST_NAMED)].join(", ");
            format!(
                "{file}: is not what it was when {named}{more} began; restore it, or give --out another folder (without these \
                 folders they are trained again)"
            )
        };
        let problems: Vec<String> = other.into_iter().map(problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Config { problems }.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    fn config(train: &Path) -> Config {
        let set = [("data.train".to_string(), format!("{:?}", train.display().to_string()))];
        Config::parse("[model]\npath = \"embedded:base\"\n[data]\ntrain = \"t\"\n", "x", &set).unwrap()
    }

    #[test]
    fn each_of_several_training_files_has_a_digest_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one.txt", "two.txt"].map(|name| folder.path().join(name));
        [&one, &two].into_iter().for_each(|file| fs::write(file, "before").unwrap());
        let config = config(&one).with(&[("data.train".to_string(), format!("{:?}", [&one, &two]))]).unwrap();
        let mut known = Known::default();
        let before = known.now([&config]);
        fs::write(&two, "after").unwrap();
        let after = known.now([&config]);
        let differ: Vec<&String> = before.keys().filter(|file| before[*file] != after[*file]).collect();
        assert_eq!((before.len(), differ), (3, vec![&format!("data.train {}", two.display())]));
    }

    #[test]
    fn an_adapter_to_go_on_from_has_a_digest_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| ADAPTER_FILES.map(|name| fs::write(folder.path().join(name), text).unwrap());
        write("before");
        let from = folder.path().display().to_string();
        let config = config(Path::new("t")).with(&[("adapter.from".to_string(), format!("{from:?}"))]).unwrap();
        let now = || Known::default().now([&config]).get(&format!("adapter.from {from}")).copied();
        let before = now();
        write("after");
        assert!(before.is_some() && now().is_some() && now() != before);
        fs::remove_file(folder.path().join(ADAPTER_FILES[1])).unwrap();
        assert_eq!(now(), None);
    }

    #[test]
    fn a_file_is_read_once_until_its_size_or_its_time_of_change_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (file, reads) = (folder.path().join("m.gguf"), Cell::new(0));
        let write = |text: &str, seconds: u64| {
            fs::write(&file, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        let mut known = Known::default();
        let mut read = |files: Option<Vec<PathBuf>>| {
            known.digest("model.path m.gguf", files, || {
                reads.set(reads.get() + 1);
                Some(Digest::of(&fs::read(&file).unwrap()))
            })
        };
        for (text, seconds, times) in [("one", 1, 1), ("one", 1, 1), ("two", 2, 2), ("three", 2, 3)] {
            write(text, seconds);
            assert_eq!(read(Some(vec![file.clone()])), Some(Digest::of(text.as_bytes())));
            assert_eq!(reads.get(), times, "{text}");
        }
        for (files, times) in [(Some(vec![folder.path().join("gone")]), 4), (None, 5)] {
            read(files);
            assert_eq!(reads.get(), times, "what cannot be looked at is read each time");
        }
    }

    #[test]
    fn a_model_is_its_folder_or_a_file_with_those_of_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, text] = ["m-1.gguf", "m-2.gguf", "notes.txt"].map(|name| folder.path().join(name));
        [&two, &text, &one].into_iter().for_each(|file| fs::write(file, "x").unwrap());
        fs::create_dir(folder.path().join("runs")).unwrap();
        let found = |path: &Path| files_of_model(&path.display().to_string());
        assert_eq!(found(&one), Some(vec![one.clone(), two.clone()]));
        assert_eq!(found(folder.path()), Some(vec![one, two, text]));
        assert_eq!(files_of_model("embedded:base"), Some(Vec::new()));
    }

    #[test]
    fn only_the_runs_that_are_there_and_were_made_of_other_files_are_named_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (train, runs) = (folder.path().join("t.txt"), folder.path().join("runs"));
        let config = config(&train);
        let mut known = Known::default();
        fs::write(&train, "before").unwrap();
        let before = known.now([&config]);
        assert_eq!(before.len(), 2, "{before:?}");
        fs::write(&train, "after").unwrap();
        let after = known.now([&config]);
        let mut made_of = MadeOf::open(folder.path()).unwrap();
        assert!(made_of.is_empty());
        for (run, files) in [("a", &before), ("b", &after), ("gone", &before)] {
            made_of.begin(run, files.clone()).unwrap();
        }
        for run in ["a", "b"] {
            fs::create_dir_all(runs.join(run)).unwrap();
            fs::write(runs.join(run).join("config.toml"), config.to_toml()).unwrap();
        }
        let made_of = MadeOf::open(folder.path()).unwrap();
        for (files, own, other) in [(&before, "a", "b"), (&after, "b", "a")] {
            let said = made_of.refuse_other(files, &runs).unwrap_err().to_string();
            let [own, other] = [own, other].map(|run| runs.join(run).display().to_string());
            let words = format!("data.train {}: is not what it was when {other} began", train.display());
            assert!(said.contains(&words), "{said}");
            assert!(!said.contains(&own) && !said.contains("gone") && !said.contains("model.path"), "{said}");
        }
        fs::remove_file(&train).unwrap();
        // What is not there is named by the run that reads it.
        made_of.refuse_other(&known.now([&config]), &runs).unwrap();
        fs::write(folder.path().join(FILES), "{").unwrap();
        assert!(MadeOf::open(folder.path()).is_err_and(|error| error.to_string().contains(FILES)));
    }
}
