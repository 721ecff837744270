//! What is declared of one key: its type, which values are allowed, and what is said of it.

use serde_json::json;
use toml::Value;

use super::spelling::did_you_mean;

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
                $crate::settings::Kind::Choice { names: <Self as $crate::settings::Choice>::NAMED };

            fn from_value(value: &toml::Value) -> Option<Self> {
                value.as_str().and_then(<Self as $crate::settings::Choice>::from_name)
            }

            fn says_none(value: &toml::Value) -> bool {
                let none = |name: &str| name == "none" && <Self as $crate::settings::Choice>::from_name(name).is_none();
                value.as_str().is_some_and(|name| name.is_empty() || none(name))
            }

            fn to_value(&self) -> Option<toml::Value> {
                Some(toml::Value::String($crate::settings::Choice::name(*self).into()))
            }
        }
    };
}
pub(crate) use choice;

/// What is declared of one key.
#[derive(Clone, Copy)]
pub struct Key {
    /// Name within its section.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Where it may be left out: the values by which it is, the empty text among them.
    pub unset: Option<fn(&Value) -> bool>,
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
        unset: None,
        label: "",
        range: Range::ANY,
        hint: "",
        refuse: |_| None,
        derived: "",
        required: "",
        used: &[],
        aliases: &[],
    };

    /// True for a value by which the key is left out, such as that of `--set section.key=`.
    pub fn is_unset_by(&self, value: &Value) -> bool {
        self.unset.is_some_and(|unset| unset(value))
    }

    /// Why a value cannot be used.
    pub fn problem_of(&self, value: &Value) -> Option<String> {
        if self.is_unset_by(value) {
            return None;
        }
        let refusal = || Some(format!("{value} is not {}{}{}", self.allowed(), self.hint, self.rewritten(value)));
        match self.kind {
            Kind::Text => match value.as_str() {
                None => refusal(),
                Some("") if !self.required.is_empty() => Some(format!("is empty: give {}", self.required)),
                Some(_) => None,
            },
            Kind::Flag if value.is_bool() => None,
            Kind::Flag => refusal(),
            Kind::Choice { names } => match value.as_str() {
                Some(name) if names.iter().any(|known| known.name == name) => None,
                Some(name) => {
                    let known: Vec<&str> = names.iter().map(|n| n.name).collect();
                    Some(format!("\"{name}\" is not {}{}", self.allowed(), did_you_mean(name, &known)))
                }
                None => refusal(),
            },
            Kind::NumberOr { names, .. } if value.is_str() => match value.as_str() {
                Some(name) if names.iter().any(|known| known.name == name) => None,
                name => {
                    let known: Vec<&str> = names.iter().map(|n| n.name).collect();
                    let hint = did_you_mean(name.unwrap_or(""), &known) + &self.rewritten(value);
                    Some(format!("{value} is not {}{hint}", self.allowed()))
                }
            },
            Kind::Whole { most } | Kind::NumberOr { most: Some(most), .. } => match whole(value) {
                None => self.beyond(value, most).or_else(refusal),
                Some(n) => (self.refuse)(n as f64).or_else(|| match n {
                    n if !self.range.contains(n as f64) => refusal(),
                    n if n > most => Some(format!("{n} is larger than {most}")),
                    _ => None,
                }),
            },
            Kind::Number | Kind::NumberOr { most: None, .. } => match number(value) {
                None => refusal(),
                Some(v) if self.range.contains(v) => (self.refuse)(v),
                Some(v) => (self.refuse)(v).or_else(refusal),
            },
            Kind::Other { check, .. } => check(value).err(),
        }
    }

    /// `; write ...` for a number or a flag that other languages write so, and TOML does not: `.001`, `True`.
    fn rewritten(&self, value: &Value) -> String {
        let Some(text) = value.as_str() else { return String::new() };
        let number = || text.parse::<f64>().ok().filter(|number| self.range.contains(*number));
        let plain = match self.kind {
            Kind::Flag => Some(text.to_lowercase()).filter(|text| ["true", "false"].contains(&text.as_str())),
            Kind::Whole { most } | Kind::NumberOr { most: Some(most), .. } => {
                number().filter(|n| n.fract() == 0.0 && (0.0..=most as f64).contains(n)).map(|n| n.to_string())
            }
            Kind::Number | Kind::NumberOr { most: None, .. } => number().map(|n| n.to_string()),
            _ => None,
        };
        plain.map_or(String::new(), |plain| format!("; write {plain}"))
    }

    /// What is wrong with a whole number that is none of the type's, where no range says it: a negative one, or one that is too
    /// large for TOML and therefore a text.
    fn beyond(&self, value: &Value, most: u64) -> Option<String> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = match (self.kind, value) {
            (Kind::Whole { .. }, Value::Integer(number)) => number.to_string(),
            (Kind::Whole { .. }, Value::String(text)) if is_digits(text) => text.clone(),
            _ => return None,
        };
        let (least, None) = self.range.ends() else { return None };
        Some(format!("{number} is not a whole number from {} to {most}{}", least.unwrap_or(0.0), self.hint))
    }

    /// What is allowed, in words that follow "is not".
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Text => "a string".into(),
            Kind::Flag => "true or false".into(),
            Kind::Choice { names } => {
                format!("one of {}", names.iter().map(|named| named.name).collect::<Vec<_>>().join(", "))
            }
            Kind::Whole { .. } => self.range.words_for_whole(),
            Kind::Number => self.range.words(),
            Kind::NumberOr { most, names } => {
                let number = if most.is_some() { self.range.words_for_whole() } else { self.range.words() };
                names.iter().fold(number, |words, named| format!("{words} or \"{}\"", named.name))
            }
            Kind::Other { words, .. } => words.into(),
        }
    }

    /// A few words for a form.
    pub fn label(&self) -> String {
        let label = if self.label.is_empty() { self.name.replace('_', " ") } else { self.label.into() };
        label[..1].to_uppercase() + &label[1..]
    }

    /// What is known of the key, as JSON: `default` is the value where nothing is given.
    pub(super) fn describe(&self, default: Option<&Value>) -> serde_json::Value {
        let mut of = json!({ "name": self.name, "label": self.label(), "help": self.help.trim() });
        let mut set = |name: &str, value: serde_json::Value| of[name] = value;
        set("type", self.kind.name().into());
        set("allowed", self.allowed().into());
        if self.unset.is_some() {
            set("optional", true.into());
        }
        if let Kind::Choice { names } = self.kind {
            let names = names.iter().map(|n| json!({ "name": n.name, "label": n.label, "help": n.help.trim() }));
            set("choices", names.collect());
        }
        if let Kind::NumberOr { most, names } = self.kind {
            set("whole", most.is_some().into());
            let names = names.iter().map(|n| json!({ "name": n.name, "label": n.label, "help": n.help.trim() }));
            set("names", names.collect());
        }
        if matches!(self.kind, Kind::Whole { .. } | Kind::Number | Kind::NumberOr { .. }) {
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
    },
    /// A number, or one of several names instead of it.
    NumberOr {
        /// Largest that the type holds, of a whole number.
        most: Option<u64>,
        /// All names.
        names: &'static [Named],
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
            Self::NumberOr { .. } => "number_or_name",
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
    /// As [`Key::unset`].
    const UNSET: Option<fn(&Value) -> bool> = None;
    /// True for a value that stands for none where there may be none.
    fn says_none(value: &Value) -> bool {
        value.as_str() == Some("")
    }
    /// The value, where it is of this type.
    fn from_value(value: &Value) -> Option<Self>;
    /// The value for a file, `None` where it is not set.
    fn to_value(&self) -> Option<Value>;
    /// True where a file leaves the key out.
    fn is_unset(&self) -> bool {
        self.to_value().is_none()
    }
}

/// A setting of several parts, which says itself how it is read from TOML and written there.
pub trait Composed: Clone + Into<Value> + TryFrom<Value, Error = String> {
    /// As [`Kind::Other`]'s.
    const WORDS: &'static str;
    /// It is a table, and an empty one says nothing either.
    const IS_TABLE: bool = false;
}

impl<T: Composed> Setting for T {
    const KIND: Kind = Kind::Other { words: T::WORDS, check: |value| T::try_from(value.clone()).map(drop) };

    fn says_none(value: &Value) -> bool {
        value.as_str() == Some("") || T::IS_TABLE && value.as_table().is_some_and(toml::Table::is_empty)
    }

    fn from_value(value: &Value) -> Option<Self> {
        Self::try_from(value.clone()).ok()
    }

    fn to_value(&self) -> Option<Value> {
        Some(self.clone().into())
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

/// What may be left out.
impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
    const UNSET: Option<fn(&Value) -> bool> = Some(T::says_none);

    fn from_value(value: &Value) -> Option<Self> {
        if T::says_none(value) { Some(None) } else { T::from_value(value).map(Some) }
    }

    fn to_value(&self) -> Option<Value> {
        self.as_ref().and_then(T::to_value)
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

/// A number, or a name instead of it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum NumberOr<N, C> {
    /// A number.
    Number(N),
    /// What stands for one, or for how to come by one.
    Named(C),
}

impl<C: Choice> Setting for NumberOr<usize, C> {
    const KIND: Kind = Kind::NumberOr { most: Some(i32::MAX as u64), names: C::NAMED };

    fn from_value(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(name) => C::from_name(name).map(Self::Named),
            None => usize::from_value(value).map(Self::Number),
        }
    }

    fn to_value(&self) -> Option<Value> {
        match self {
            Self::Number(number) => number.to_value(),
            Self::Named(name) => Some(Value::String(name.name().into())),
        }
    }
}

impl<C: Choice> Setting for NumberOr<f64, C> {
    const KIND: Kind = Kind::NumberOr { most: None, names: C::NAMED };

    fn from_value(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(name) => C::from_name(name).map(Self::Named),
            None => number(value).map(Self::Number),
        }
    }

    fn to_value(&self) -> Option<Value> {
        match self {
            Self::Number(number) => number.to_value(),
            Self::Named(name) => Some(Value::String(name.name().into())),
        }
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
