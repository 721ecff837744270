//! `config.toml` of a run: the resolved configuration, and above it what tells later whether it is still that run's.
//!
//! ```text
//! # The configuration of a run. ...
//! # digests: file 0123456789abcdef, general ..., model ..., target ..., train ...
//! # at step 10: run.steps from 10 to 20
//! [model]
//! ...
//! ```
//!
//! For TOML these lines are comments, so the file also begins a new run. The digest of the file is of all of it but itself; the
//! others are of what the run began with (see [`Origin`]). They are here because this file is written once all of that is known
//! and before anything is trained, and replaced as a whole.

use std::path::Path;

use temper_engine::configuration::CHANGEABLE;
use temper_engine::running::{Digest, HEAD, Origin};
use temper_engine::{Config, Error, Result};

use crate::output::quoted;

const FIRST: &str =
    "# The configuration of a run. To change one that is going on: temper train --resume --set KEY=VALUE --out ...\n";
/// What is wrong where one run says how its head is held and another one with the same storage does not.
pub const OTHER_HEAD: &str =
    "the run began when the head of a frozen model of four bits had four bits too, and it has more now";
const DIGESTS: &str = "# digests: file ";
/// What the engine calls its digests of data.
const TRAIN: &str = "train";
const TARGET: &str = "target";
const GENERAL: &str = "general";
const WRONG: &str = "wrong";
/// Digest of what `data.train` gave, in runs with replay: what is trained on is made of both. Of several files each has its
/// own (see [`data_train`]).
const DATA_TRAIN: &str = "data.train";
/// Digest of what `data.replay` gave, before documents were drawn.
pub const DATA_REPLAY: &str = "data.replay";
/// Digest of the adapter that training began with.
pub const ADAPTER_FROM: &str = "adapter.from";

/// What the digest is called of what one of so many files of `data.train` gave, before anything was held out or drawn.
pub fn data_train(index: usize, files: usize) -> String {
    if files == 1 { DATA_TRAIN.into() } else { format!("{DATA_TRAIN}.{}", index + 1) }
}

/// What `config.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// The configuration.
    pub config: Config,
    /// What the run began with.
    pub origin: Origin,
    /// What was changed since, a line each.
    changes: Vec<String>,
}

impl RunConfig {
    /// Of a run that begins.
    pub fn new(config: Config, origin: Origin) -> Self {
        Self { config, origin, changes: Vec::new() }
    }

    /// The file.
    pub fn to_text(&self) -> String {
        let origin: Vec<String> = self.origin.iter().map(|(what, digest)| format!(", {what} {digest}")).collect();
        let changes: Vec<String> = self.changes.iter().map(|change| format!("# {change}\n")).collect();
        let (before, after) = (
            format!("{FIRST}{DIGESTS}"),
            format!("{}\n{}{}", origin.concat(), changes.concat(), self.config.to_toml()),
        );
        format!("{before}{}{after}", Digest::of(format!("{before}{after}").as_bytes()))
    }

    /// Reads the file. `before` is the configuration that a checkpoint holds, by which an edit is named.
    ///
    /// # Errors
    /// [`Error::Config`] where it is no configuration, was edited, or is of a version that wrote no digests.
    pub fn parse(text: &str, file: &str, before: impl FnOnce() -> Option<Config>) -> Result<Self> {
        let refuse = |problem: String| Error::Config { problems: vec![format!("{file}: {problem}")] };
        let config = Config::parse(text, file, &[])?;
        let found = text.find(DIGESTS).and_then(|at| text[at..].lines().next().map(|line| (at + DIGESTS.len(), line)));
        let Some((at, line)) = found else {
            let advice =
                format!("begin a new run with it: temper train {} --out ANOTHER_FOLDER", quoted(Path::new(file)));
            return Err(refuse(format!("has no line \"{}...\", as an older version wrote it; {advice}", DIGESTS)));
        };
        let mut digests = line.trim_start_matches("# digests: ").split(", ").map(|one| {
            let (what, digest) = one.split_once(' ')?;
            Some((what.to_string(), Digest::try_from(digest.to_string()).ok()?))
        });
        let own = digests.next().flatten();
        let origin: Option<Origin> = digests.collect();
        let rest = |digest: &Digest| format!("{}{}", &text[..at], &text[at + digest.to_string().len()..]);
        let (Some((_, own)), Some(origin)) = (own, origin) else {
            return Err(refuse("the line of its digests was edited; restore it".into()));
        };
        if own != Digest::of(rest(&own).as_bytes()) {
            let edits = before().map_or(Vec::new(), |before| before.differences(&config));
            let named: Vec<String> =
                edits.iter().map(|(key, was, is)| format!("{key} was {was}, and now is {is}")).collect();
            let named = if named.is_empty() { String::new() } else { format!(" ({})", named.join("; ")) };
            return Err(refuse(format!(
                "was edited since the run began{named}; restore it, or begin a new run with it in another folder. What can \
                 change while a run goes on is changed with --set: {}",
                CHANGEABLE.join(", ")
            )));
        }
        let changes = text.lines().skip(2).map_while(|line| line.strip_prefix("# ")).map(str::to_owned).collect();
        Ok(Self { config, origin, changes })
    }

    /// The same with another configuration from `step` on.
    ///
    /// # Errors
    /// As [`RunConfig::refuse_changes`].
    pub fn changed(&self, config: &Config, step: u64) -> Result<Self> {
        self.refuse_changes(config, &[])?;
        let mut changed = Self { config: config.clone(), ..self.clone() };
        for (key, was, is) in self.config.differences(config) {
            changed.changes.push(format!("at step {step}: {key} from {was} to {is}"));
        }
        Ok(changed)
    }

    /// Refuses another configuration that differs in what cannot change. `set` are the keys that were given, of which one is
    /// named before a key that follows from it.
    ///
    /// # Errors
    /// [`Error::Config`] naming one key that cannot change.
    pub fn refuse_changes(&self, config: &Config, set: &[(String, String)]) -> Result<()> {
        let mut fixed = self.config.differences(config);
        fixed.retain(|(key, ..)| !CHANGEABLE.contains(&key.as_str()));
        let given = fixed.iter().find(|(key, ..)| set.iter().any(|(name, _)| name == key));
        let Some((key, was, is)) = given.or(fixed.first()) else { return Ok(()) };
        let problem = format!(
            "--resume goes on with the run's own configuration, where {key} is {was}: it cannot become {is}; leave it out, or \
             begin a new run in another folder. What can change: {}",
            CHANGEABLE.join(", ")
        );
        Err(Error::Config { problems: vec![problem] })
    }

    /// What was changed since the run began, a line each.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Refuses to go on with something else than the run began with.
    ///
    /// # Errors
    /// [`Error::Config`] saying which setting and which of its files are other.
    pub fn refuse_other(&self, origin: &Origin) -> Result<()> {
        if origin.contains_key(HEAD) && !self.origin.contains_key(HEAD) {
            let advice = "end it with the program that began it, or begin a new run";
            return Err(Error::Config { problems: vec![format!("run.storage: {OTHER_HEAD}; {advice}")] });
        }
        let is_other = |(what, digest): &(&String, &Digest)| origin.get(*what) != Some(digest);
        let mut other: Vec<&str> = self.origin.iter().filter(is_other).map(|(what, _)| what.as_str()).collect();
        let data = &self.config.data;
        // What is trained on follows from these, and what is held out from the training set.
        let is_part = |what: &&str| is_of_file(what) || [DATA_REPLAY, TARGET, GENERAL, WRONG].contains(what);
        if self.knows_parts() && other.iter().any(is_part) {
            other.retain(|what| *what != TRAIN);
        }
        if data.target.is_none() && other.iter().any(|what| *what == TRAIN || is_of_file(what)) {
            other.retain(|what| *what != TARGET);
        }
        let problem = |what: &&str| {
            format!("{} than the run began with; restore that to go on, or begin a new run", self.described(what))
        };
        match other.is_empty() {
            true => Ok(()),
            false => Err(Error::Config { problems: other.iter().map(problem).collect() }),
        }
    }

    /// Whether there is a digest of each file that is trained on.
    fn knows_parts(&self) -> bool {
        self.origin.keys().any(|what| is_of_file(what))
    }

    /// What is other where a digest is.
    fn described(&self, what: &str) -> String {
        let data = &self.config.data;
        let files = data.train.paths();
        if let Some((_, file)) = files.iter().enumerate().find(|(index, _)| data_train(*index, files.len()) == what) {
            return format!("data.train {file}: gives other training data");
        }
        let set = |key: &str, path: &Option<String>| format!("data.{key} {}", path.as_deref().unwrap_or_default());
        let (train, replay) = (format!("data.train {}", data.train), set("replay", &data.replay));
        match what {
            "model" => {
                format!("model.path {}: holds other weights, or describes the model otherwise,", self.config.model.path)
            }
            TRAIN if self.knows_parts() && data.replay.is_some() => {
                format!("{replay}: other documents of it are drawn")
            }
            TRAIN if self.knows_parts() => format!("{train}: other documents of them are drawn, or in another order"),
            // A run of before there were digests of both.
            TRAIN if data.replay.is_some() => format!(
                "{train}, {replay}: one of them was changed, or the run began when what is measured was not left out of \
                 replay yet: they give other training data"
            ),
            TRAIN => format!("{train}: gives other training data"),
            DATA_REPLAY => format!("{replay}: gives another text to mix in"),
            TARGET if data.target.is_none() => format!("{train}: gives another part to hold out"),
            TARGET => format!("{}: gives another target set", set("target", &data.target)),
            GENERAL => format!("{}: gives another general set", set("general", &data.general)),
            WRONG => format!("{}: gives another set of wrong labels", set("wrong", &data.wrong)),
            ADAPTER_FROM => {
                let from = self.config.adapter.from.as_deref().unwrap_or_default();
                format!("{ADAPTER_FROM} {from}: holds another adapter")
            }
            other => format!("{other}: is other"),
        }
    }
}

/// Whether this is the name of the digest of a file that is trained on.
fn is_of_file(what: &str) -> bool {
    what.starts_with(DATA_TRAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(set: &[(&str, &str)]) -> Config {
        let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n[run]\nsteps = 6\n", "x", &set).unwrap()
    }

    fn of(set: &[(&str, &str)]) -> RunConfig {
        let origin = ["model", "train"].map(|what| (what.to_string(), Digest::of(what.as_bytes())));
        RunConfig::new(config(set), origin.into_iter().collect())
    }

    fn parse(text: &str) -> Result<RunConfig> {
        RunConfig::parse(text, "config.toml", || Some(config(&[])))
    }

    #[test]
    fn it_reads_back_with_its_changes_and_begins_a_new_run_too() {
        let begun = of(&[]);
        assert_eq!(parse(&begun.to_text()).unwrap(), begun);
        assert_eq!(Config::parse(&begun.to_text(), "x", &[]).unwrap(), begun.config);
        let longer = begun.changed(&config(&[("run.steps", "9"), ("run.keep", "5")]), 6).unwrap();
        assert_eq!(longer.changes(), ["at step 6: run.steps from 6 to 9", "at step 6: run.keep from 2 to 5"]);
        assert_eq!(parse(&longer.to_text()).unwrap(), longer);
        let again = longer.changed(&config(&[("run.steps", "9")]), 8).unwrap();
        assert_eq!(again.changes().len(), 3);
        assert_eq!(parse(&again.to_text()).unwrap(), again);
    }

    #[test]
    fn every_edit_is_refused_and_named() {
        let text = of(&[]).to_text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(edited) = String::from_utf8(bytes) else { continue };
            let refused = parse(&edited).unwrap_err();
            assert!(matches!(refused, Error::Config { .. }), "byte {at}: {refused}");
        }
        let edited = parse(&text.replace("steps = 6", "steps = 600")).unwrap_err().to_string();
        assert!(edited.contains("run.steps was 6, and now is 600") && edited.contains("--set"), "{edited}");
        let old = parse(&config(&[]).to_toml()).unwrap_err().to_string();
        assert!(old.contains("older version"), "{old}");
    }

    #[test]
    fn only_what_earlier_steps_do_not_depend_on_can_change() {
        for (key, value) in
            [("run.seed", "1"), ("optim.learning_rate", "1"), ("model.path", "n"), ("run.accumulation", "9")]
        {
            let refused = of(&[]).changed(&config(&[(key, value)]), 3).unwrap_err().to_string();
            assert!(refused.contains(key) && refused.contains("another folder"), "{refused}");
        }
        let set = [("data.target", "a"), ("run.patience", "2")];
        let begun = of(&set[..1]);
        let given = set[1..].iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>();
        let derived = begun.refuse_changes(&config(&set), &given).unwrap_err().to_string();
        assert!(derived.contains("run.patience is not set") && !derived.contains("keep_best"), "{derived}");
        for key in CHANGEABLE {
            assert!(config(&[]).differences(&config(&[])).is_empty());
            let all = Config::parse("", "x", &[(key.to_string(), "?".to_string())]).unwrap_err().to_string();
            assert!(!all.contains("unknown key"), "{key} is a key: {all}");
        }
    }

    #[test]
    fn other_weights_and_data_are_named() {
        let begun = of(&[]);
        begun.refuse_other(&begun.origin).unwrap();
        for (what, words) in
            [("model", "model.path m: holds other weights"), ("train", "data.train t: gives other training data")]
        {
            let mut other = begun.origin.clone();
            other.insert(what.into(), Digest::of(b"other"));
            let refused = begun.refuse_other(&other).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }

    /// What is refused of a run with these settings where these of its digests are other.
    fn refused(set: &[(&str, &str)], digests: &[&str], other: &[&str]) -> Vec<String> {
        let origin = |other: &[&str]| -> Origin {
            digests.iter().map(|what| (what.to_string(), Digest::from(u64::from(other.contains(what))))).collect()
        };
        let begun = RunConfig::new(config(set), origin(&[]));
        match begun.refuse_other(&origin(other)) {
            Ok(()) => Vec::new(),
            Err(Error::Config { problems }) => problems,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_setting_and_the_file_that_changed_are_named_and_not_what_follows_from_them() {
        let set = [("data.replay", "r"), ("data.general", "g"), ("data.target", "a"), ("data.wrong", "w")];
        let all = ["model", "train", "target", "general", "wrong", DATA_TRAIN, DATA_REPLAY];
        // What is trained on changes with each of them: from replay is left out what is measured.
        for (what, words) in [
            (DATA_REPLAY, "data.replay r: gives another text to mix in"),
            (DATA_TRAIN, "data.train t: gives other training data"),
            ("general", "data.general g: gives another general set"),
            ("target", "data.target a: gives another target set"),
            ("wrong", "data.wrong w: gives another set of wrong labels"),
        ] {
            let problems = refused(&set, &all, &["train", what]);
            assert!(problems.len() == 1 && problems[0].starts_with(words), "{problems:?}");
        }
        assert_eq!(refused(&set, &all, &[DATA_TRAIN, DATA_REPLAY, "train"]).len(), 2);
        let drawn = refused(&set, &all, &["train"]);
        let words = "data.replay r: other documents of it are drawn";
        assert!(drawn.len() == 1 && drawn[0].starts_with(words), "{drawn:?}");
        // What is held out is of the training set.
        let set = [("data.replay", "r"), ("data.hold_out", "0.1")];
        let problems = refused(&set, &all, &[DATA_TRAIN, "target", "train"]);
        assert!(problems.len() == 1 && problems[0].starts_with("data.train t: gives other training"), "{problems:?}");
        let problems = refused(&[("data.hold_out", "0.1")], &["train", "target"], &["target"]);
        assert!(problems.len() == 1 && problems[0].starts_with("data.train t: gives another part"), "{problems:?}");
    }

    #[test]
    fn of_several_training_files_the_one_that_changed_is_named_and_no_other() {
        let set = [("data.train", "[\"a\", \"b\"]"), ("data.hold_out", "0.1")];
        let [one, two] = [0, 1].map(|index| data_train(index, 2));
        let (one, two) = (one.as_str(), two.as_str());
        let all = ["model", "train", "target", one, two];
        let problems = refused(&set, &all, &["train", "target", two]);
        let words = "data.train b: gives other training data than the run began with";
        assert!(problems.len() == 1 && problems[0].starts_with(words), "{problems:?}");
        assert_eq!(refused(&set, &all, &["train", "target", one, two]).len(), 2);
        let drawn = refused(&set, &all, &["train"]);
        assert!(drawn.len() == 1 && drawn[0].starts_with("data.train a, b: other documents of them"), "{drawn:?}");
        let begun = RunConfig::new(config(&set), all.map(|what| (what.to_string(), Digest::default())).into());
        assert_eq!(parse(&begun.to_text()).unwrap(), begun);
        assert_eq!(data_train(0, 1), "data.train", "as in runs of before there could be several");
    }

    #[test]
    fn a_run_of_before_there_was_a_digest_of_replay_goes_on_or_is_refused_with_both_files() {
        let (set, before) = ([("data.replay", "r")], ["model", "train", "target"]);
        let begun = RunConfig::new(config(&set), before.map(|what| (what.to_string(), Digest::default())).into());
        let mut now = begun.origin.clone();
        now.extend([DATA_TRAIN, DATA_REPLAY].map(|what| (what.to_string(), Digest::of(b"own"))));
        begun.refuse_other(&now).unwrap();
        assert_eq!(parse(&begun.to_text()).unwrap(), begun, "and its configuration stays as it is");
        let problems = refused(&set, &before, &["train"]);
        let both = "data.train t, data.replay r: one of them was changed, or the run began when";
        assert!(problems.len() == 1 && problems[0].starts_with(both), "{problems:?}");
    }
}
