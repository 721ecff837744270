//! Of which files a training set is made, and in which shares they are trained on.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::settings::{Composed, Setting};

/// What has to be given.
pub const REQUIRED: &str = "a JSONL file, or a list of them";
const PATHS: &str = "a path or a list of paths";
const NUMBERS: &str = "a list of numbers above 0, such as [0.7, 0.3]";

/// One file or several, none of them twice: in a configuration a path or a list of paths. One is written as its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub struct Files(Vec<String>);

impl Files {
    /// Where they are, in their order; at least one.
    pub fn paths(&self) -> &[String] {
        &self.0
    }
}

impl Default for Files {
    /// One whose path nobody gave yet.
    fn default() -> Self {
        Self(vec![String::new()])
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl From<Files> for Value {
    fn from(Files(paths): Files) -> Self {
        match <[String; 1]>::try_from(paths) {
            Ok([path]) => Self::String(path),
            Err(paths) => Self::Array(paths.into_iter().map(Self::String).collect()),
        }
    }
}

impl TryFrom<Value> for Files {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let paths: Option<Vec<String>> = match &value {
            Value::String(path) => Some(vec![path.clone()]),
            Value::Array(paths) => paths.iter().map(|path| path.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let paths = paths.ok_or_else(|| format!("{value} is not {PATHS}"))?;
        if paths.is_empty() || paths.iter().any(String::is_empty) {
            return Err(format!("is empty: give {REQUIRED}"));
        }
        match paths.iter().enumerate().find(|(index, path)| paths[..*index].contains(path)) {
            Some((_, path)) => Err(format!("{path} is in the list twice: leave one out")),
            None => Ok(Self(paths)),
        }
    }
}

impl Composed for Files {
    const WORDS: &'static str = PATHS;
}

/// How much of what is trained each of several files has, in their order: numbers above 0, of any sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub struct Shares(Vec<f64>);

impl Shares {
    /// One for each file.
    pub fn each(&self) -> &[f64] {
        &self.0
    }
}

impl From<Shares> for Value {
    fn from(Shares(shares): Shares) -> Self {
        Self::Array(shares.into_iter().map(Self::Float).collect())
    }
}

impl TryFrom<Value> for Shares {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let shares: Option<Vec<f64>> = match &value {
            Value::Array(shares) => shares.iter().map(f64::from_value).collect(),
            Value::String(text) => text.split(',').map(|share| share.trim().parse().ok()).collect(),
            _ => None,
        };
        let is_share = |share: &f64| *share > 0.0 && share.is_finite();
        let usable = shares.filter(|shares| !shares.is_empty() && shares.iter().all(is_share));
        usable.map(Self).ok_or_else(|| format!("{value} is not {NUMBERS}"))
    }
}

impl Composed for Shares {
    const WORDS: &'static str = NUMBERS;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::Error;

    fn read(text: &str, set: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let text = format!("[model]\npath = \"m\"\n[data]\n{text}\n");
        let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        match Config::parse(&text, "r.toml", &set) {
            Ok(config) => Ok(config),
            Err(Error::Config { problems }) => Err(problems),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn one_file_is_written_as_its_path_and_several_as_a_list_and_both_read_back() {
        for (given, written, paths) in [
            ("train = \"a, b.jsonl\"", "train = \"a, b.jsonl\"", &["a, b.jsonl"][..]),
            ("train = [\"a.jsonl\"]", "train = \"a.jsonl\"", &["a.jsonl"]),
            ("train = [\"b.jsonl\", \"a.txt\"]", "train = [\"b.jsonl\", \"a.txt\"]", &["b.jsonl", "a.txt"]),
            ("train = [\"-\", \"a.txt\"]\nshares = [7, 0.3]", "shares = [7.0, 0.3]", &["-", "a.txt"]),
        ] {
            let config = read(given, &[]).unwrap();
            assert_eq!(config.data.train.paths(), paths);
            for text in [config.to_toml(), config.to_commented_toml()] {
                assert!(text.lines().any(|line| line == written), "{written} is not in {text}");
                assert_eq!(Config::parse(&text, "again", &[]).unwrap(), config, "{text}");
            }
            assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
        }
        let set = [("data.train", "[\"a\",\"b\"]"), ("data.shares", "3, 1")];
        let config = read("train = \"t\"", &set).unwrap();
        assert_eq!(config.data.train.to_string(), "a, b");
        assert_eq!(config.data.shares.as_ref().map(Shares::each), Some(&[3.0, 1.0][..]));
        assert_eq!(config.with(&[("data.shares".into(), String::new())]).unwrap().data.shares, None);
        let one = config.with(&[("data.train".into(), "a,b".into()), ("data.shares".into(), String::new())]).unwrap();
        assert_eq!(one.data.train.paths(), ["a,b"], "a name may have a comma");
    }

    #[test]
    fn files_that_are_none_or_there_twice_are_refused() {
        for (value, problem) in [
            ("3", "3 is not a path or a list of paths"),
            ("[\"a\", 3]", "is not a path or a list of paths"),
            ("[]", "is empty: give a JSONL file"),
            ("[\"a\", \"\"]", "is empty: give a JSONL file"),
            ("[\"a\", \"b\", \"a\"]", "a is in the list twice"),
            ("[\"-\", \"-\"]", "- is in the list twice"),
        ] {
            let problems = read(&format!("train = {value}"), &[]).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with("r.toml:4: [data] train: "), "{problems:?}");
            assert!(problems[0].contains(problem), "{problems:?}");
        }
    }

    #[test]
    fn shares_are_positive_and_one_for_each_of_several_files() {
        let two = "train = [\"a\", \"b\"]\n";
        for (text, problem) in [
            (format!("{two}shares = [1]"), "1 share for the 2 files of data.train"),
            (format!("{two}shares = [1, 2, 3]"), "3 shares for the 2 files of data.train"),
            ("train = \"a\"\nshares = [1]".into(), "is about several files, and data.train is one"),
            (format!("{two}shares = [1, 0]"), "is not a list of numbers above 0"),
            (format!("{two}shares = [1, -1]"), "is not a list of numbers above 0"),
            (format!("{two}shares = [1, inf]"), "is not a list of numbers above 0"),
            (format!("{two}shares = [1, \"b\"]"), "is not a list of numbers above 0"),
            (format!("{two}shares = []"), "is not a list of numbers above 0"),
            (format!("{two}shares = 0.5"), "0.5 is not a list of numbers above 0"),
        ] {
            let problems = read(&text, &[]).unwrap_err();
            let named = problems.len() == 1 && problems[0].contains("[data] shares: ") && problems[0].contains(problem);
            assert!(named, "{text}: {problems:?}");
        }
        let problems = read("train = 3\nshares = [1, 2]", &[]).unwrap_err();
        assert_eq!(problems.len(), 1, "how many files are meant is not known: {problems:?}");
    }
}
