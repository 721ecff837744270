//! Hands out the values of a TOML text and its overrides, and collects every problem with them.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::key::{Key, Setting};
use super::spelling::nearest;
use crate::error::{Error, Result};

/// So many lines of a text that is not TOML are named: of one that is something else all of them would be.
const NAMED_LINES: usize = 5;

/// Where a value was written. Problems are listed in this order: the file from top to bottom, then overrides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Line of the file, from 1.
    Line(usize),
    /// Nowhere.
    Missing,
    /// The n-th `--set`, and its key.
    Set(usize, String),
}

/// One value, with where the user wrote it.
struct Entry {
    value: Value,
    origin: Origin,
    taken: bool,
    refused: bool,
}

/// Hands out values, collecting problems; what nobody took in the end is unknown.
pub struct Reader<'a> {
    file_name: &'a str,
    sections: Vec<(&'static str, Vec<&'static Key>)>,
    profile: toml::Table,
    entries: BTreeMap<(String, String), Entry>,
    problems: Vec<(Origin, String)>,
}

impl<'a> Reader<'a> {
    /// A reader of these sections.
    ///
    /// `file_name` is only for messages. `overrides` are `(section.key, value)`, applied after the file in their order;
    /// a value is read as TOML and, where it is not TOML, as a bare string, so that `run.device=cpu` needs no quotes. An
    /// empty one takes back what the file says of a key that may be left out.
    pub fn new(
        sections: Vec<(&'static str, Vec<&'static Key>)>,
        text: &str,
        file_name: &'a str,
        overrides: &[(String, String)],
    ) -> Self {
        let mut reader =
            Self { file_name, sections, profile: toml::Table::new(), entries: BTreeMap::new(), problems: Vec::new() };
        reader.read_text(text);
        for (index, (key, text)) in overrides.iter().enumerate() {
            let origin = Origin::Set(index, key.clone());
            match key.split_once('.') {
                Some((section, name)) if reader.keys(section).is_some() => {
                    reader.insert(section, name, override_value(text), origin);
                }
                Some((section, _)) => {
                    let hint = reader.section_hint(section);
                    reader.problems.push((origin, format!("unknown section \"{section}\"{hint}")));
                }
                None => {
                    let hint = reader.suggestion("", key);
                    reader.problems.push((origin, format!("expected section.key=value{hint}")));
                }
            }
        }
        reader
    }

    /// Other defaults than the declared ones: a host's own. They are no values that somebody gave.
    pub fn with_profile(mut self, profile: toml::Table) -> Self {
        self.profile = profile;
        self
    }

    fn read_text(&mut self, text: &str) {
        let line_of = |offset: usize| text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1;
        let (document, errors) = DeTable::parse_recoverable(text);
        for (nth, error) in errors.iter().enumerate().take(NAMED_LINES + 1) {
            let line = error.span().map_or(1, |span| line_of(span.start));
            let problem = match errors.len() - nth {
                more if nth == NAMED_LINES => format!("and {more} more from here on"),
                _ => format!("not valid TOML: {}", error.message()),
            };
            self.problems.push((Origin::Line(line), problem));
        }
        for (name, item) in document.into_inner() {
            let origin = Origin::Line(line_of(name.span().start));
            let name = name.into_inner().into_owned();
            let known = self.keys(&name).is_some();
            match item.into_inner() {
                DeValue::Table(table) if known => {
                    for (key, value) in table {
                        let origin = Origin::Line(line_of(key.span().start));
                        match Value::deserialize(toml::de::ValueDeserializer::from(value)) {
                            Ok(value) => self.insert(&name, key.into_inner().as_ref(), value, origin),
                            Err(error) => self.problems.push((origin, error.message().to_string())),
                        }
                    }
                }
                DeValue::Table(_) => {
                    let hint = self.section_hint(&name);
                    self.problems.push((origin, format!("unknown section [{name}]{hint}")));
                }
                _ if known => {
                    self.problems.push((origin, format!("{name} is a section: write [{name}] and its keys below")));
                }
                _ => {
                    let hint = self.suggestion("", &name);
                    self.problems.push((origin, format!("{name} stands outside of any section{hint}")));
                }
            }
        }
    }

    fn insert(&mut self, section: &str, key: &str, value: Value, origin: Origin) {
        let at = (section.to_string(), key.to_string());
        let known = self.keys(section).and_then(|keys| keys.iter().find(|known| known.name == key)).copied();
        // As if it had never been given: what other keys have instead of it counts again.
        if known.is_some_and(|known| known.is_unset_by(&value)) {
            self.entries.remove(&at);
            return;
        }
        self.entries.insert(at, Entry { value, origin, taken: false, refused: false });
    }

    fn keys(&self, section: &str) -> Option<&[&'static Key]> {
        self.sections.iter().find(|(name, _)| *name == section).map(|(_, keys)| keys.as_slice())
    }

    fn key(&self, section: &str, name: &str) -> &'static Key {
        let found = self.keys(section).and_then(|keys| keys.iter().find(|key| key.name == name));
        found.expect("only declared keys are read")
    }

    /// What a section may have meant that there is none of, one that is spelt much alike or whose keys are called so by other
    /// trainers (`lora` of `lora_alpha`), and all that there are.
    fn section_hint(&self, name: &str) -> String {
        let names: Vec<&str> = self.sections.iter().map(|(name, _)| *name).collect();
        let begins = |alias: &&str| alias.split_once('_').is_some_and(|(begin, _)| begin == name);
        let is_called_so = |keys: &[&Key]| keys.iter().any(|key| key.aliases.iter().any(begins));
        let other = || self.sections.iter().find(|(own, keys)| name.starts_with(own) || is_called_so(keys));
        let meant = nearest(name, &names).or_else(|| other().map(|(own, _)| *own));
        let meant = meant.map_or(String::new(), |own| format!("; did you mean {own}?"));
        format!("{meant} (sections: {})", names.join(", "))
    }

    fn entry(&self, section: &str, key: &str) -> Option<&Entry> {
        self.entries.get(&(section.to_string(), key.to_string()))
    }

    /// The value of a key, or `default` (the profile's, where it has one) where it is not given or cannot be used; the
    /// latter becomes a problem.
    ///
    /// # Panics
    /// Where no section declares the key.
    pub fn value<T: Setting>(&mut self, section: &str, name: &str, default: T) -> T {
        let key = self.key(section, name);
        let of_profile = self.profile.get(section).and_then(|table| table.get(name)).and_then(T::from_value);
        let Some(entry) = self.entries.get_mut(&(section.to_string(), name.to_string())) else {
            if !key.required.is_empty() && of_profile.is_none() {
                self.problem(section, name, format!("is missing: give {}", key.required));
            }
            return of_profile.unwrap_or(default);
        };
        entry.taken = true;
        let (problem, value) = (key.problem_of(&entry.value), T::from_value(&entry.value));
        match problem {
            None => value.or(of_profile).unwrap_or(default),
            Some(problem) => {
                entry.refused = true;
                self.problem(section, name, problem);
                of_profile.unwrap_or(default)
            }
        }
    }

    /// A usable value that was given, without taking it.
    pub fn given<T: Setting>(&self, section: &str, name: &str) -> Option<T> {
        let entry = self.entry(section, name)?;
        self.key(section, name).problem_of(&entry.value).is_none().then(|| T::from_value(&entry.value))?
    }

    /// True where the file or an override gives the key.
    pub fn has(&self, section: &str, key: &str) -> bool {
        self.entry(section, key).is_some()
    }

    /// True where the key was given and could not be used.
    pub fn refused(&self, section: &str, key: &str) -> bool {
        self.entry(section, key).is_some_and(|entry| entry.refused)
    }

    /// True where an override gives the key.
    pub fn is_overridden(&self, section: &str, key: &str) -> bool {
        self.entry(section, key).is_some_and(|entry| matches!(entry.origin, Origin::Set(..)))
    }

    /// True where something is already wrong with the key.
    pub fn has_problem(&self, section: &str, key: &str) -> bool {
        let about = format!("[{section}] {key}: ");
        self.problems.iter().any(|(_, problem)| problem.starts_with(&about))
    }

    /// Where the key was given.
    pub fn origin(&self, section: &str, key: &str) -> Origin {
        self.entry(section, key).map_or(Origin::Missing, |entry| entry.origin.clone())
    }

    /// Adds a problem with a key.
    pub fn problem(&mut self, section: &str, key: &str, problem: impl std::fmt::Display) {
        self.problem_at(self.origin(section, key), section, key, problem);
    }

    /// Adds a problem with a key that shows somewhere else.
    pub fn problem_at(&mut self, origin: Origin, section: &str, key: &str, problem: impl std::fmt::Display) {
        self.problems.push((origin, format!("[{section}] {key}: {problem}")));
    }

    /// Everything that nobody took is unknown; all problems become one error.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem, in the order of the file and then of the overrides.
    pub fn finish(mut self) -> Result<()> {
        for ((section, key), entry) in std::mem::take(&mut self.entries) {
            if !entry.taken {
                let hint = self.suggestion(&section, &key);
                self.problem_at(entry.origin, &section, &key, format!("unknown key{hint}"));
            }
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by(|a, b| a.0.cmp(&b.0));
        let problems = self
            .problems
            .into_iter()
            .map(|(origin, problem)| match origin {
                Origin::Line(line) => format!("{}:{line}: {problem}", self.file_name),
                Origin::Missing if self.file_name.is_empty() => problem,
                Origin::Missing => format!("{}: {problem}", self.file_name),
                Origin::Set(_, key) => format!("--set {key}: {problem}"),
            })
            .collect();
        Err(Error::Config { problems })
    }

    /// `; did you mean ...?` for a key: what other trainers call it, then what is spelt much alike in its own section, then
    /// anywhere.
    fn suggestion(&self, section: &str, key: &str) -> String {
        let lower = key.to_lowercase();
        let find = |is_meant: &dyn Fn(&str, &Key) -> bool| {
            let of = |(name, keys): &(&'static str, Vec<&'static Key>)| {
                keys.iter().find(|known| is_meant(name, known)).map(|known| format!("{name}.{}", known.name))
            };
            self.sections.iter().find_map(of)
        };
        let is_alias = |known: &Key| known.aliases.contains(&lower.as_str());
        // In its own section a name is what others mean by it there, and elsewhere first what has that very name.
        let meant = find(&|own, known| own == section && is_alias(known))
            .or_else(|| find(&|other, known| other != section && known.name == lower))
            .or_else(|| find(&|_, known| is_alias(known)));
        if let Some(meant) = meant {
            return format!("; did you mean {meant}?");
        }
        let names = |keys: &[&'static Key]| keys.iter().map(|key| key.name).collect::<Vec<_>>();
        let own = self.keys(section).map_or_else(Vec::new, names);
        if let Some(known) = nearest(key, &own) {
            return format!("; did you mean {known}?");
        }
        for (other, keys) in &self.sections {
            if let Some(known) = nearest(key, &names(keys)) {
                return format!("; did you mean {other}.{known}?");
            }
        }
        match own.as_slice() {
            [] => String::new(),
            keys => format!("; [{section}] has {}", keys.join(", ")),
        }
    }
}

/// The value of an override: TOML where it is TOML, else the text itself.
fn override_value(text: &str) -> Value {
    toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        // A date is a value in TOML and a folder's name here.
        .filter(|value| !value.is_datetime())
        .unwrap_or_else(|| Value::String(text.to_string()))
}
