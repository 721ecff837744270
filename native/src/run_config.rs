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

use temper_engine::configuration::CHANGEABLE;
use temper_engine::running::{Digest, HEAD, Origin};
use temper_engine::{Config, Error, Result};

const FIRST: &str =
    "# The configuration of a run. To change one that is going on: temper train --resume --set KEY=VALUE --out ...\n";
/// What is wrong where one run says how its head is held and another one with the same storage does not.
pub const OTHER_HEAD: &str =
    "the run began when the head of a frozen model of four bits had four bits too, and it has more now";
const DIGESTS: &str = "# digests: file ";

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
            let advice = format!("begin a new run with it: temper train {file} --out ANOTHER_FOLDER");
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
    /// [`Error::Config`] naming the first key that cannot change.
    pub fn changed(&self, config: &Config, step: u64) -> Result<Self> {
        let mut changed = Self { config: config.clone(), ..self.clone() };
        for (key, was, is) in self.config.differences(config) {
            if !CHANGEABLE.contains(&key.as_str()) {
                let problem = format!(
                    "--resume goes on with the run's own configuration, which has {key} = {was} and not {is}; leave it out, or \
                     begin a new run in another folder. What can change: {}",
                    CHANGEABLE.join(", ")
                );
                return Err(Error::Config { problems: vec![problem] });
            }
            changed.changes.push(format!("at step {step}: {key} from {was} to {is}"));
        }
        Ok(changed)
    }

    /// What was changed since the run began, a line each.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Refuses to go on with something else than the run began with.
    ///
    /// # Errors
    /// [`Error::Config`] saying what is other.
    pub fn refuse_other(&self, origin: &Origin) -> Result<()> {
        let (model, data) = (&self.config.model, &self.config.data);
        let path = |path: &Option<String>| path.clone().unwrap_or_else(|| data.train.clone());
        let described = |what: &str| match what {
            "model" => format!("{}: holds other weights, or describes the model otherwise,", model.path),
            "train" => format!("{}: gives other training data", data.train),
            "target" => format!("{}: gives another target set", path(&data.target)),
            "general" => format!("{}: gives another general set", path(&data.general)),
            "wrong" => format!("{}: gives another set of wrong labels", path(&data.wrong)),
            other => format!("{other}: is other"),
        };
        if origin.contains_key(HEAD) && !self.origin.contains_key(HEAD) {
            let advice = "end it with the program that began it, or begin a new run";
            return Err(Error::Config { problems: vec![format!("run.storage: {OTHER_HEAD}; {advice}")] });
        }
        let other: Vec<String> = self
            .origin
            .iter()
            .filter(|(what, digest)| origin.get(*what) != Some(digest))
            .map(|(what, _)| {
                format!("{} than the run began with; restore that to go on, or begin a new run", described(what))
            })
            .collect();
        match other.is_empty() {
            true => Ok(()),
            false => Err(Error::Config { problems: other }),
        }
    }
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
        for (what, words) in [("model", "m: holds other weights"), ("train", "t: gives other training data")] {
            let mut other = begun.origin.clone();
            other.insert(what.into(), Digest::of(b"other"));
            let refused = begun.refuse_other(&other).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
