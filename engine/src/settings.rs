//! Reads settings: one TOML text plus `--set section.key=value`, with every problem at once. Knows no section.
//!
//! A section is declared once, beside what it configures, with [`settings!`]: key, type, default, range and one sentence
//! of help. From that declaration come the struct, its reader, its checks, the comments of a written file and the
//! description for other programs. What crosses keys or sections is the business of whoever puts the sections together.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};

/// A value chosen by name. [`choice!`] writes the enum, its names and their help once.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every name with its value, in the order in which they are listed to the user.
    const ALL: &'static [(&'static str, Self)];
    /// The same names for people.
    const NAMED: &'static [Named];

    /// The value of this name.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The name of this value.
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

/// One name of a [`Choice`].
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// As files have it.
    pub name: &'static str,
    /// A few words for a list; the name itself where nothing better is declared.
    pub label: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// Declares an enum whose values are chosen by name: `/// help` and `Variant = "name" as "label"`, the label optional.
macro_rules! choice {
    ($(#[doc = $about:literal])+ pub enum $type:ident {
        $($(#[doc = $help:literal])+ $variant:ident = $name:literal $(as $label:literal)?),+ $(,)?
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $type { $($(#[doc = $help])+ #[serde(rename = $name)] $variant),+ }

        impl $crate::settings::Choice for $type {
            const ALL: &'static [(&'static str, Self)] = &[$(($name, Self::$variant)),+];
            const NAMED: &'static [$crate::settings::Named] = &[$($crate::settings::Named {
                name: $name,
                label: [$($label,)? $name][0],
                help: concat!($($help),+),
            }),+];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::settings::Choice::name(*self))
            }
        }

        impl $crate::settings::Setting for $type {
            const KIND: $crate::settings::Kind =
                $crate::settings::Kind::Choice { names: <Self as $crate::settings::Choice>::NAMED, optional: false };

            fn from_value(value: &toml::Value) -> Option<Self> {
                value.as_str().and_then(<Self as $crate::settings::Choice>::from_name)
            }

            fn to_value(&self) -> Option<toml::Value> {
                Some(toml::Value::String($crate::settings::Choice::name(*self).into()))
            }
        }

        impl $crate::settings::Setting for Option<$type> {
            const KIND: $crate::settings::Kind =
                $crate::settings::Kind::Choice { names: <$type as $crate::settings::Choice>::NAMED, optional: true };

            fn from_value(value: &toml::Value) -> Option<Self> {
                Some(<$type as $crate::settings::Setting>::from_value(value))
            }

            fn to_value(&self) -> Option<toml::Value> {
                self.and_then(|value| $crate::settings::Setting::to_value(&value))
            }
        }
    };
}
pub(crate) use choice;

/// Declares the keys of a section, or part of them: a struct with a field a key,
/// `/// help` and `key: Type = default, attribute = value ...;`. Attributes are the further fields of [`Key`].
macro_rules! settings {
    ($(#[doc = $about:literal])+ pub struct $type:ident in $section:literal $(: $copy:ident)? {
        $($(#[doc = $help:literal])+ $field:ident: $kind:ty = $default:expr $(, $attribute:ident = $value:expr)*;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[derive($($copy)?)]
        pub struct $type {
            $($(#[doc = $help])+
            #[serde(skip_serializing_if = "crate::settings::Setting::is_unset")]
            pub $field: $kind),+
        }

        impl Default for $type {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }

        impl $crate::settings::Settings for $type {
            const SECTION: &'static str = $section;
            const HELP: &'static str = concat!($($about),+);

            fn keys() -> Vec<&'static $crate::settings::Key> {
                const KEYS: &[$crate::settings::Key] = &[$($crate::settings::Key {
                    name: stringify!($field),
                    help: concat!($($help),+),
                    kind: <$kind as $crate::settings::Setting>::KIND,
                    $($attribute: $value,)*
                    ..$crate::settings::Key::PLAIN
                }),+];
                KEYS.iter().collect()
            }

            fn read(reader: &mut $crate::settings::Reader, base: Self) -> Self {
                Self { $($field: reader.value($section, stringify!($field), base.$field)),+ }
            }

            fn values(&self) -> Vec<Option<toml::Value>> {
                vec![$($crate::settings::Setting::to_value(&self.$field)),+]
            }
        }
    };
}
pub(crate) use settings;

/// What is declared of one key.
#[derive(Clone, Copy)]
pub struct Key {
    /// Name within its section.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// A few words for a form; empty: the name.
    pub label: &'static str,
    /// Which numbers are allowed.
    pub range: Range,
    /// What is said of a number outside of the range, after it.
    pub hint: &'static str,
    /// Refuses single numbers in its own words, before the range is looked at.
    pub refuse: fn(f64) -> Option<String>,
    /// Where the default depends on other settings: how, in words.
    pub derived: &'static str,
    /// What must be given, where there is no default.
    pub required: &'static str,
    /// For which values of other keys of the section the key is read; all of them must hold. Empty: always.
    pub used: &'static [Used],
    /// Names that other trainers use for the same thing and that no spelling distance would find.
    pub aliases: &'static [&'static str],
}

/// One condition under which a key is read: another key of its section and the values that it must have one of.
pub type Used = (&'static str, &'static [&'static str]);

impl Key {
    /// A key of which nothing special is declared.
    pub const PLAIN: Self = Self {
        name: "",
        help: "",
        kind: Kind::Text,
        label: "",
        range: Range::ANY,
        hint: "",
        refuse: |_| None,
        derived: "",
        required: "",
        used: &[],
        aliases: &[],
    };

    /// Why a value cannot be used.
    pub fn problem_of(&self, value: &Value) -> Option<String> {
        let refusal = || Some(format!("{value} is not {}{}", self.allowed(), self.hint));
        match self.kind {
            Kind::Text => match value.as_str() {
                None => refusal(),
                Some("") if !self.required.is_empty() => Some(format!("is empty: give {}", self.required)),
                Some(_) => None,
            },
            Kind::Flag => {
                if value.is_bool() {
                    None
                } else {
                    refusal()
                }
            }
            Kind::Choice { names, optional } => match value.as_str() {
                Some("" | "none") if optional => None,
                Some(name) if names.iter().any(|known| known.name == name) => None,
                Some(name) => {
                    let known: Vec<&str> = names.iter().map(|n| n.name).collect();
                    Some(format!("\"{name}\" is not {}{}", self.allowed(), did_you_mean(name, &known)))
                }
                None => refusal(),
            },
            Kind::Whole { most } => match whole(value) {
                None => refusal(),
                Some(n) => (self.refuse)(n as f64).or_else(|| match n {
                    n if !self.range.contains(n as f64) => refusal(),
                    n if n > most => Some(format!("{n} is larger than {most}")),
                    _ => None,
                }),
            },
            Kind::Number => match number(value) {
                None => refusal(),
                Some(v) => (self.refuse)(v).or_else(|| if self.range.contains(v) { None } else { refusal() }),
            },
            Kind::Other { check, .. } => check(value).err(),
        }
    }

    /// What is allowed, in words that follow "is not".
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Text => "a string".into(),
            Kind::Flag => "true or false".into(),
            Kind::Choice { names, .. } => {
                format!("one of {}", names.iter().map(|named| named.name).collect::<Vec<_>>().join(", "))
            }
            Kind::Whole { .. } => self.range.words_for_whole(),
            Kind::Number => self.range.words(),
            Kind::Other { words, .. } => words.into(),
        }
    }

    /// A few words for a form.
    pub fn label(&self) -> String {
        let label = if self.label.is_empty() { self.name.replace('_', " ") } else { self.label.into() };
        label[..1].to_uppercase() + &label[1..]
    }

    /// What is known of the key, as JSON: `default` is the value where nothing is given.
    fn describe(&self, default: Option<&Value>) -> serde_json::Value {
        let mut of = json!({ "name": self.name, "label": self.label(), "help": self.help.trim() });
        let mut set = |name: &str, value: serde_json::Value| of[name] = value;
        set("type", self.kind.name().into());
        set("allowed", self.allowed().into());
        if let Kind::Choice { names, optional } = self.kind {
            let names = names.iter().map(|n| json!({ "name": n.name, "label": n.label, "help": n.help.trim() }));
            set("choices", names.collect());
            if optional {
                set("optional", true.into());
            }
        }
        if matches!(self.kind, Kind::Whole { .. } | Kind::Number) {
            self.range.describe(&mut set);
        }
        match (self.required, self.derived) {
            ("", "") => set("default", json!(default)),
            ("", derived) => set("derived", derived.into()),
            (required, _) => set("required", required.into()),
        }
        if !self.used.is_empty() {
            let used = self.used.iter().map(|(key, values)| json!({ "key": key, "values": values }));
            set("used", used.collect());
        }
        of
    }
}

/// What the values of a key are.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A string.
    Text,
    /// True or false.
    Flag,
    /// A whole number, which also 1e3 and 8.0 are.
    Whole {
        /// Largest that the type holds.
        most: u64,
    },
    /// A finite number.
    Number,
    /// One of several names.
    Choice {
        /// All of them.
        names: &'static [Named],
        /// True where `""` and `"none"` stand for no choice.
        optional: bool,
    },
    /// Something of its own.
    Other {
        /// What it is.
        words: &'static str,
        /// Says why a value cannot be used.
        check: fn(&Value) -> Result<(), String>,
    },
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Flag => "flag",
            Self::Whole { .. } => "whole",
            Self::Number => "number",
            Self::Choice { .. } => "choice",
            Self::Other { .. } => "other",
        }
    }
}

/// Allowed numbers: from a least to a most, either of which may itself be excluded. Never infinite, never NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    least: f64,
    most: f64,
    without_least: bool,
    without_most: bool,
}

impl Range {
    /// Every finite number.
    pub const ANY: Self = Self { least: f64::MIN, most: f64::MAX, without_least: false, without_most: false };

    /// `least` and all above.
    pub const fn at_least(least: f64) -> Self {
        Self { least, ..Self::ANY }
    }

    /// All above `least`.
    pub const fn above(least: f64) -> Self {
        Self { least, without_least: true, ..Self::ANY }
    }

    /// From `least` to `most`, both included.
    pub const fn within(least: f64, most: f64) -> Self {
        Self { least, most, ..Self::ANY }
    }

    /// From `least` up to, but without, `most`.
    pub const fn until(least: f64, most: f64) -> Self {
        Self { least, most, without_most: true, ..Self::ANY }
    }

    /// Of these numbers those below `most`.
    pub const fn below(self, most: f64) -> Self {
        Self { most, without_most: true, ..self }
    }

    /// Of these numbers those that are finite in single precision, too.
    pub const fn single(self) -> Self {
        let (low, high) = (f32::MIN as f64, f32::MAX as f64);
        Self { least: self.least.max(low), most: self.most.min(high), ..self }
    }

    fn contains(&self, v: f64) -> bool {
        let (low, high) = (v > self.least, v < self.most);
        (low || (v == self.least && !self.without_least)) && (high || (v == self.most && !self.without_most))
    }

    /// The ends that were declared, and not only the largest finite numbers.
    fn ends(&self) -> (Option<f64>, Option<f64>) {
        let declared = |end: f64| Some(end).filter(|end| end.abs() < f64::from(f32::MAX));
        (declared(self.least), declared(self.most))
    }

    fn words(&self) -> String {
        match self.ends() {
            (None, None) => "a finite number".into(),
            (Some(least), None) if self.without_least => format!("a finite number above {least}"),
            (Some(least), None) => format!("a finite number of at least {least}"),
            (None, Some(most)) => format!("a finite number of at most {most}"),
            (Some(least), Some(most)) if self.without_least => format!("a number above {least} and below {most}"),
            (Some(least), Some(most)) if self.without_most => format!("at least {least} and below {most}"),
            (Some(least), Some(most)) => format!("within {least} to {most}"),
        }
    }

    fn words_for_whole(&self) -> String {
        let (least, most) = self.ends();
        let least = least.unwrap_or(0.0);
        most.map_or_else(
            || format!("a whole number of at least {least}"),
            |most| format!("a whole number from {least} to {most}"),
        )
    }

    fn describe(&self, set: &mut dyn FnMut(&str, serde_json::Value)) {
        let (least, most) = self.ends();
        if let Some(least) = least {
            set(if self.without_least { "above" } else { "least" }, least.into());
        }
        if let Some(most) = most {
            set(if self.without_most { "below" } else { "most" }, most.into());
        }
    }
}

/// A type that a key can have. Values were checked by [`Key::problem_of`] before they come here.
pub trait Setting: Sized {
    /// What its values are.
    const KIND: Kind;
    /// The value, where it is of this type.
    fn from_value(value: &Value) -> Option<Self>;
    /// The value for a file, `None` where it is not set.
    fn to_value(&self) -> Option<Value>;
    /// True where a file leaves the key out.
    fn is_unset(&self) -> bool {
        self.to_value().is_none()
    }
}

impl Setting for String {
    const KIND: Kind = Kind::Text;

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_string)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::String(self.clone()))
    }
}

/// A string of which `""` means none.
impl Setting for Option<String> {
    const KIND: Kind = Kind::Text;

    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value).map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    fn to_value(&self) -> Option<Value> {
        self.clone().map(Value::String)
    }
}

impl Setting for bool {
    const KIND: Kind = Kind::Flag;

    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

impl Setting for u64 {
    const KIND: Kind = Kind::Whole { most: i64::MAX as u64 };

    fn from_value(value: &Value) -> Option<Self> {
        whole(value)
    }

    fn to_value(&self) -> Option<Value> {
        i64::try_from(*self).ok().map(Value::Integer)
    }
}

impl Setting for usize {
    // 2^31 tokens or rows are beyond every device; the bound keeps later products inside 64 bits and wasm's usize.
    const KIND: Kind = Kind::Whole { most: i32::MAX as u64 };

    fn from_value(value: &Value) -> Option<Self> {
        whole(value).and_then(|n| Self::try_from(n).ok())
    }

    fn to_value(&self) -> Option<Value> {
        (*self as u64).to_value()
    }
}

impl Setting for f64 {
    const KIND: Kind = Kind::Number;

    fn from_value(value: &Value) -> Option<Self> {
        number(value)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Float(*self))
    }
}

impl Setting for Option<u64> {
    const KIND: Kind = u64::KIND;

    fn from_value(value: &Value) -> Option<Self> {
        whole(value).map(Some)
    }

    fn to_value(&self) -> Option<Value> {
        self.and_then(|n| n.to_value())
    }
}

impl Setting for Option<f64> {
    const KIND: Kind = Kind::Number;

    fn from_value(value: &Value) -> Option<Self> {
        number(value).map(Some)
    }

    fn to_value(&self) -> Option<Value> {
        self.map(Value::Float)
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(i) => u64::try_from(*i).ok(),
        Value::Float(f) if f.fract() == 0.0 && (0.0..=9e15).contains(f) => Some(*f as u64),
        _ => None,
    }
}

/// Keys of one section with their values: what [`settings!`] declares.
pub trait Settings: Sized + Default {
    /// Name of the section.
    const SECTION: &'static str;
    /// What it is about.
    const HELP: &'static str;

    /// Its keys, in the order of a written file.
    fn keys() -> Vec<&'static Key>;

    /// Takes every key out of the reader; `base` holds what counts where a key is not given.
    fn read(reader: &mut Reader, base: Self) -> Self;

    /// The values, in the order of the keys.
    fn values(&self) -> Vec<Option<Value>>;

    /// What is wrong with values that did not come through a reader, by key.
    fn problems(&self) -> Vec<Problem> {
        let of = |(key, value): (&'static Key, Option<Value>)| {
            Some(Problem { key: key.name, problem: key.problem_of(&value?)? })
        };
        Self::keys().into_iter().zip(self.values()).filter_map(of).collect()
    }

    /// Name and keys, for a [`Reader`].
    fn section() -> (&'static str, Vec<&'static Key>) {
        (Self::SECTION, Self::keys())
    }

    /// The section as TOML, each key under a comment that says what it is, what is allowed and what the default is. A key
    /// that is not set is a comment.
    fn to_commented_toml(&self) -> String {
        let mut text = format!("# {}\n[{}]\n", Self::HELP.trim(), Self::SECTION);
        for ((key, value), default) in Self::keys().iter().zip(self.values()).zip(Self::default().values()) {
            let default = match (key.required, key.derived, default) {
                ("", "", Some(default)) => format!(" Default: {default}."),
                ("", "", None) => " Default: not set.".into(),
                ("", derived, _) => format!(" Default: {derived}."),
                _ => " Required.".into(),
            };
            let allowed = match key.kind {
                Kind::Text | Kind::Flag => String::new(),
                _ => format!(" Allowed: {}.", key.allowed()),
            };
            wrap(&format!("{}{allowed}{default}", key.help.trim()), &mut text);
            match value {
                Some(value) => text += &format!("{} = {value}\n", key.name),
                None => text += &format!("# {} =\n", key.name),
            }
        }
        text
    }

    /// The section as JSON: its name, help, and what is known of each key.
    fn describe() -> serde_json::Value {
        let defaults = Self::default().values();
        let keys = Self::keys().iter().zip(&defaults).map(|(key, default)| key.describe(default.as_ref())).collect();
        json!({ "name": Self::SECTION, "help": Self::HELP.trim(), "keys": serde_json::Value::Array(keys) })
    }
}

/// Writes words as lines of comment that fit a screen.
fn wrap(words: &str, text: &mut String) {
    const WIDTH: usize = 100;
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            *text += &format!("{line}\n");
            line = String::from("#");
        }
        line += &format!(" {word}");
    }
    *text += &format!("{line}\n");
}

/// A value of a section that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Key within the section.
    pub key: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

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
    /// a value is read as TOML and, where it is not TOML, as a bare string, so that `run.device=cpu` needs no quotes.
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
                    let hint = did_you_mean(section, &reader.section_names());
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
        for error in &errors {
            let line = error.span().map_or(1, |span| line_of(span.start));
            self.problems.push((Origin::Line(line), format!("not valid TOML: {}", error.message())));
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
                    let hint = did_you_mean(&name, &self.section_names());
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
        let entry = Entry { value, origin, taken: false, refused: false };
        self.entries.insert((section.to_string(), key.to_string()), entry);
    }

    fn keys(&self, section: &str) -> Option<&[&'static Key]> {
        self.sections.iter().find(|(name, _)| *name == section).map(|(_, keys)| keys.as_slice())
    }

    fn key(&self, section: &str, name: &str) -> &'static Key {
        let found = self.keys(section).and_then(|keys| keys.iter().find(|key| key.name == name));
        found.expect("only declared keys are read")
    }

    fn section_names(&self) -> Vec<&'static str> {
        self.sections.iter().map(|(name, _)| *name).collect()
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

    /// `; did you mean ...?` for a key: what other trainers call it, then its own section, then anywhere.
    fn suggestion(&self, section: &str, key: &str) -> String {
        for (other, keys) in &self.sections {
            if let Some(known) = keys.iter().find(|known| known.aliases.contains(&key)) {
                return format!("; did you mean {other}.{}?", known.name);
            }
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

/// `; did you mean ...?` for a misspelt name, or nothing.
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// The known name with the smallest edit distance, if it is near enough to be a slip: a third of the length, at least 1.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::levenshtein(&name, &candidate.replace('-', "_")), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    choice! {
        /// A colour.
        pub enum Colour {
            /// Like blood.
            Red = "red" as "red: warm",
            /// Like the sky.
            Blue = "blue",
        }
    }

    settings! {
        /// Paint.
        pub struct Paint in "paint": Copy {
            /// Which paint it is.
            colour: Colour = Colour::Red, aliases = &["hue"];
            /// How much of it there is.
            litres: f64 = 0.5, range = Range::above(0.0);
            /// How often it is put on.
            coats: usize = 2, range = Range::within(1.0, 9.0), label = "number of coats";
            /// How bright it shines,
            /// in parts.
            gloss: Option<f64> = None, range = Range::until(0.0, 1.0), derived = "what the wall needs",
                used = &[("colour", &["blue"])];
        }
    }

    fn read(text: &str, set: &[(&str, &str)]) -> Result<Paint> {
        let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut reader = Reader::new(vec![Paint::section()], text, "wall.toml", &set);
        let paint = Paint::read(&mut reader, Paint::default());
        reader.finish().map(|()| paint)
    }

    fn problems(text: &str, set: &[(&str, &str)]) -> Vec<String> {
        match read(text, set) {
            Err(Error::Config { problems }) => problems,
            other => panic!("expected problems, got {other:?}"),
        }
    }

    #[test]
    fn what_is_not_given_has_its_declared_default_or_the_profiles() {
        assert_eq!(read("", &[]).unwrap(), Paint::default());
        let profile = toml::from_str("[paint]\ncoats = 3\ngloss = 0.1\n").unwrap();
        let mut reader = Reader::new(vec![Paint::section()], "[paint]\ngloss = 0.2", "", &[]).with_profile(profile);
        let paint = Paint::read(&mut reader, Paint::default());
        assert!(!reader.has("paint", "coats"), "a profile's value is not given by anybody");
        assert_eq!((paint.coats, paint.gloss, paint.litres), (3, Some(0.2), 0.5));
        reader.finish().unwrap();
    }

    #[test]
    fn every_value_of_a_wrong_type_or_out_of_range_is_reported_with_its_line() {
        let found = problems("[paint]\ncolour = \"rad\"\nlitres = 0\ncoats = 10\ngloss = 1\n", &[("paint.hue", "1")]);
        assert_eq!(
            found,
            [
                "wall.toml:2: [paint] colour: \"rad\" is not one of red, blue; did you mean red?",
                "wall.toml:3: [paint] litres: 0 is not a finite number above 0",
                "wall.toml:4: [paint] coats: 10 is not a whole number from 1 to 9",
                "wall.toml:5: [paint] gloss: 1 is not at least 0 and below 1",
                "--set paint.hue: [paint] hue: unknown key; did you mean paint.colour?",
            ]
        );
        let found = problems("[paint]\ncolour = 3\nlitres = inf\ncoats = 1.5\n", &[("pant.coats", "1")]);
        assert_eq!(found[0], "wall.toml:2: [paint] colour: 3 is not one of red, blue");
        assert_eq!(found[1], "wall.toml:3: [paint] litres: inf is not a finite number above 0");
        assert_eq!(found[2], "wall.toml:4: [paint] coats: 1.5 is not a whole number from 1 to 9");
        assert_eq!(found[3], "--set pant.coats: unknown section \"pant\"; did you mean paint?");
    }

    #[test]
    fn values_that_were_set_in_code_are_checked_like_those_of_a_file() {
        let odd = Paint { litres: f64::NAN, coats: 0, ..Paint::default() };
        let keys: Vec<_> = odd.problems().iter().map(|p| p.key).collect();
        assert_eq!(keys, ["litres", "coats"]);
        assert!(Paint::default().problems().is_empty());
    }

    #[test]
    fn a_section_says_of_every_key_what_it_is_and_what_is_allowed() {
        let paint = Paint::describe();
        assert_eq!((&paint["name"], &paint["help"]), (&json!("paint"), &json!("Paint.")));
        assert_eq!(
            paint["keys"][0],
            json!({
                "name": "colour", "label": "Colour", "help": "Which paint it is.", "type": "choice",
                "allowed": "one of red, blue", "default": "red",
                "choices": [
                    { "name": "red", "label": "red: warm", "help": "Like blood." },
                    { "name": "blue", "label": "blue", "help": "Like the sky." },
                ],
            })
        );
        assert_eq!(
            paint["keys"][3],
            json!({
                "name": "gloss", "label": "Gloss", "help": "How bright it shines, in parts.", "type": "number",
                "allowed": "at least 0 and below 1", "least": 0.0, "below": 1.0, "derived": "what the wall needs",
                "used": [{ "key": "colour", "values": ["blue"] }],
            })
        );
        assert_eq!(paint["keys"][2]["label"], "Number of coats");
    }

    #[test]
    fn a_commented_file_reads_back_and_explains_every_key() {
        let paint = Paint { coats: 4, gloss: None, ..Paint::default() };
        let text = paint.to_commented_toml();
        assert_eq!(read(&text, &[]).unwrap(), paint, "{text}");
        assert!(
            text.contains("# How often it is put on. Allowed: a whole number from 1 to 9. Default: 2.\ncoats = 4\n")
        );
        assert!(text.contains("Default: what the wall needs.\n# gloss =\n"), "{text}");
    }

    #[test]
    fn a_slip_is_at_most_a_third_of_the_name() {
        assert_eq!(nearest("learning-rte", &["learning_rate", "steps"]), Some("learning_rate"));
        assert_eq!(nearest("stp", &["steps"]), None);
        assert_eq!(nearest("step", &["steps"]), Some("steps"));
    }
}
