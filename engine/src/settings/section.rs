//! A section: its keys declared together, read, checked, written with comments and described.

use serde_json::json;
use toml::Value;

use super::key::{Key, Kind};
use super::reader::Reader;

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
                    unset: <$kind as $crate::settings::Setting>::UNSET,
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
