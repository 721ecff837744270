//! What a file calls the fields of its records (`data.fields`), where it does not call them as they are read.
//!
//! The first usable record of a file decides whether all are named so: those of several files, and of what is only
//! measured, may have the names that are read.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use toml::Value;

use crate::error::{Error, Result};
use crate::settings::{Composed, did_you_mean};

/// Every name by which a field is read: of messages, of one kind of record each, and of several kinds.
const NAMES: [&str; 14] = [
    "messages",
    "role",
    "content",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "history",
    "question",
    "answer",
    "text",
    "system",
    "tools",
];
/// Those that one kind of record has, kind by kind.
const OF_ONE_KIND: [&[&str]; 5] = [
    &["messages"],
    &["prompt", "completion"],
    &["instruction", "input", "output", "history"],
    &["question", "answer"],
    &["text"],
];
/// Those that messages have; all others are a record's.
const OF_MESSAGES: [&str; 2] = ["role", "content"];
/// Those that a record may be without.
const OPTIONAL: [&str; 4] = ["input", "history", "system", "tools"];
/// Where a record has messages.
const LISTS: [&str; 4] = ["messages", "conversations", "prompt", "completion"];
const WORDS: &str = "a table of names such as { prompt = \"question\", completion = \"response\" }, or \
                     prompt=question,completion=response";

/// What a file calls the fields of its records, by the names that are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub struct Fields(Vec<Field>);

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    /// By which it is read.
    name: &'static str,
    /// What a file has in its place.
    given: String,
}

impl Field {
    fn is_of_messages(&self) -> bool {
        OF_MESSAGES.contains(&self.name)
    }

    /// Whether a record has to have it.
    fn is_needed(&self) -> bool {
        !self.is_of_messages() && !OPTIONAL.contains(&self.name)
    }
}

impl Fields {
    /// From pairs of a name that is read and what the file has in its place.
    fn of(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let mut fields: Vec<Field> = Vec::new();
        for (name, given) in pairs {
            let Some(known) = NAMES.into_iter().find(|known| *known == name) else {
                let hint = did_you_mean(&name, &NAMES);
                return Err(format!("{name:?} is no name that is read, one of {}{hint}", NAMES.join(", ")));
            };
            if given.is_empty() {
                return Err(format!("{name} is given no field"));
            }
            let field = Field { name: known, given };
            if fields.iter().any(|other| other.name == known) {
                return Err(format!("{name} is given twice"));
            }
            let is_same =
                |other: &&Field| other.given == field.given && other.is_of_messages() == field.is_of_messages();
            if let Some(other) = fields.iter().find(is_same) {
                return Err(format!("{:?} is given for {} and for {name}", field.given, other.name));
            }
            fields.push(field);
        }
        // One order, in which they are written.
        fields.sort_by_key(|field| NAMES.iter().position(|name| *name == field.name));
        let fields = Self(fields);
        fields.refuse_several_kinds().map(|()| fields)
    }

    fn refuse_several_kinds(&self) -> Result<(), String> {
        let of_one = |kind: &&[&str]| self.0.iter().find(|field| kind.contains(&field.name)).map(|field| field.name);
        let found: Vec<&str> = OF_ONE_KIND.iter().filter_map(of_one).collect();
        if let [one, other, ..] = found[..] {
            return Err(format!("{one} and {other} are of two kinds of records: leave one out"));
        }
        match self.0.iter().find(|field| field.name != "text") {
            Some(other) if found == ["text"] => {
                Err(format!("of a record with a text nothing else is read: leave {} out", other.name))
            }
            _ => Ok(()),
        }
    }

    /// The first name of the kind that these names are of; none where records of several kinds have them.
    pub(super) fn kind(&self) -> Option<&'static str> {
        let is_of = |kind: &&&[&str]| self.0.iter().any(|field| kind.contains(&field.name));
        OF_ONE_KIND.iter().find(is_of).map(|kind| kind[0])
    }
}

impl From<Fields> for Value {
    fn from(Fields(fields): Fields) -> Self {
        Self::Table(fields.into_iter().map(|field| (field.name.into(), Self::String(field.given))).collect())
    }
}

impl TryFrom<Value> for Fields {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => text.parse(),
            Value::Table(table) => {
                let pair = |(name, given): (String, Value)| match given {
                    Value::String(given) => Ok((name, given)),
                    other => Err(format!("{name} = {other} is not the name of a field, in quotation marks")),
                };
                Self::of(table.into_iter().map(pair).collect::<Result<_, String>>()?)
            }
            other => Err(format!("{other} is not {WORDS}")),
        }
    }
}

impl FromStr for Fields {
    type Err = String;

    /// `prompt=question,completion=response`.
    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let parts = pair.split_once('=').map(|(name, given)| (name.trim().to_owned(), given.trim().to_owned()));
            parts.ok_or_else(|| format!("{text:?} is not {WORDS}"))
        };
        Self::of(text.split(',').map(pair).collect::<Result<_, String>>()?)
    }
}

impl Composed for Fields {
    const WORDS: &'static str = WORDS;
    const IS_TABLE: bool = true;
}

/// What became of [`Fields`] in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldsFound {
    /// Those that no record had.
    unused: Vec<Field>,
    /// What the first record had, in words.
    first: String,
}

impl FieldsFound {
    /// Of a text, which has no records.
    pub(super) fn none(fields: &Fields) -> Self {
        Self { unused: fields.0.clone(), first: "no fields, since the file is plain text".into() }
    }
}

/// What to say of a field that no record of all these files has, though it was asked for.
pub fn unused_field(files: &[(&str, FieldsFound)]) -> Option<String> {
    let (_, first) = files.first()?;
    let is_unused = |field: &&Field| files.iter().all(|(_, found)| found.unused.contains(field));
    let Field { name, given } = first.unused.iter().find(is_unused)?;
    Some(format!(
        "no record has a field `{given}`, which is its `{name}` by data.fields; the first one has {}",
        first.first
    ))
}

/// Refuses a field that no record of all these files has, though it was asked for.
///
/// # Errors
/// [`Error::Data`] with it, and with what the first record has.
pub fn refuse_unused_field(files: &[(&str, FieldsFound)]) -> Result<()> {
    let Some(problem) = unused_field(files) else { return Ok(()) };
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    Err(Error::Data { file: names.join(", "), problem })
}

/// Gives the records of one file the names that are read.
pub(super) struct Renaming<'f> {
    fields: &'f Fields,
    /// Whether the records are named so; none before the first usable one.
    holds: Option<bool>,
    /// Which of the fields some record had.
    used: Vec<bool>,
    /// What the first record had, in words.
    first: Option<String>,
}

impl<'f> Renaming<'f> {
    pub(super) fn new(fields: &'f Fields) -> Self {
        Self { fields, holds: None, used: vec![false; fields.0.len()], first: None }
    }

    /// Renames what a record has; false where it is to be read as it is, as it can be (`is_known`). Whoever uses it then
    /// says so ([`Self::settle`]).
    ///
    /// # Errors
    /// The field that is missing.
    pub(super) fn rename(&mut self, record: &mut Map<String, Json>, is_known: bool) -> Result<bool, String> {
        self.first.get_or_insert_with(|| fields(record));
        if self.holds == Some(false) {
            return Ok(false);
        }
        let is_missing = |field: &&Field| field.is_needed() && !record.contains_key(&field.given);
        match self.fields.0.iter().find(is_missing) {
            Some(_) if is_known && self.holds.is_none() => return Ok(false),
            Some(Field { name, given }) => {
                let found = fields(record);
                return Err(format!("field `{given}` is missing, which is `{name}` by data.fields (found {found})"));
            }
            None => {}
        }
        self.rename_in(record, false);
        for list in LISTS {
            if let Some(Json::Array(messages)) = record.get_mut(list) {
                messages.iter_mut().filter_map(Json::as_object_mut).for_each(|message| self.rename_in(message, true));
            }
        }
        Ok(true)
    }

    /// Renames the fields of a record, or of a message.
    fn rename_in(&mut self, object: &mut Map<String, Json>, of_messages: bool) {
        let own = self.fields.0.iter().zip(&mut self.used);
        let take = |(field, used): (&'f Field, &mut bool)| {
            let value = object.remove(&field.given)?;
            *used = true;
            let value = match value {
                Json::String(role) if field.name == "role" => role_of_share_gpt(&role).into(),
                value => value,
            };
            Some((field.name, value))
        };
        // All are taken out before one is put in: two may have each other's name.
        let taken: Vec<(&str, Json)> =
            own.filter(|(field, _)| field.is_of_messages() == of_messages).filter_map(take).collect();
        object.extend(taken.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }

    /// A record was used, renamed or as it is: the others of the file are to be alike.
    pub(super) fn settle(&mut self, renamed: bool) {
        self.holds = Some(renamed);
    }

    /// As [`Fields::kind`].
    pub(super) fn kind(&self) -> Option<&'static str> {
        self.fields.kind()
    }

    /// A problem with a record that was renamed, told with the names that the file has.
    pub(super) fn explain(&self, problem: String) -> String {
        let is_named = |field: &&Field| {
            field.name != field.given
                && (problem.contains(&format!("`{}`", field.name)) || problem.starts_with(&format!("{}[", field.name)))
        };
        let named = self.fields.0.iter().filter(is_named);
        let told: Vec<String> = named.map(|field| format!("`{}` is its `{}`", field.given, field.name)).collect();
        if told.is_empty() { problem } else { format!("{problem}; by data.fields {}", told.join(", ")) }
    }

    /// What became of the fields so far.
    pub(super) fn found(&self) -> FieldsFound {
        let unused = self.fields.0.iter().zip(&self.used).filter(|(_, used)| !**used);
        let first = self.first.clone().unwrap_or_else(|| "no fields".into());
        FieldsFound { unused: unused.map(|(field, _)| field.clone()).collect(), first }
    }
}

/// The role that ShareGPT calls so.
pub(super) fn role_of_share_gpt(given: &str) -> &str {
    match given {
        "human" => "user",
        "gpt" | "chatgpt" | "model" | "bot" | "function_call" => "assistant",
        // Where a template has no such role it becomes `tool`.
        "function_response" => "observation",
        role => role,
    }
}

/// The field names of an object, for messages; the first few, since the object is untrusted.
pub(super) fn fields(object: &Map<String, Json>) -> String {
    if object.is_empty() {
        return "no fields".into();
    }
    let mut names: Vec<String> =
        object.keys().take(8).map(|name| format!("`{}`", name.chars().take(40).collect::<String>())).collect();
    if object.len() > names.len() {
        names.push("...".into());
    }
    format!("fields {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(text: &str, set: &[(&str, &str)]) -> Result<Config, String> {
        let text = format!("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n{text}\n");
        let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Config::parse(&text, "r.toml", &set).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_a_table_or_pairs_and_read_back_as_they_were_written() {
        let pairs = "completion = a b, prompt=q";
        let by_table = read("fields = { prompt = \"q\", completion = \"a b\" }", &[]).unwrap();
        for other in [
            read("[data.fields]\ncompletion = \"a b\"\nprompt = \"q\"", &[]),
            read("fields.prompt = \"q\"\nfields.completion = \"a b\"", &[]),
            read(&format!("fields = {pairs:?}"), &[]),
            read("fields = { text = \"b\" }", &[("data.fields", pairs)]),
            read("", &[("data.fields", "{ prompt = \"q\", completion = \"a b\" }")]),
        ] {
            assert_eq!(other.unwrap(), by_table);
        }
        for text in [by_table.to_toml(), by_table.to_commented_toml()] {
            assert_eq!(Config::parse(&text, "again", &[]).unwrap(), by_table, "{text}");
        }
        assert_eq!(toml::from_str::<Config>(&by_table.to_toml()).unwrap(), by_table);
        for none in ["", "{}"] {
            let set = [("data.fields".to_string(), none.to_string())];
            assert_eq!(by_table.with(&set).unwrap().data.fields, None, "{none:?}");
        }
        let without = read("", &[]).unwrap();
        let keys: Vec<String> = without.differences(&by_table).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, ["data.fields"], "a run does not go on with other ones");
    }

    #[test]
    fn names_that_cannot_be_meant_together_are_refused() {
        for (value, problem) in [
            ("3", "3 is not a table of names such as { prompt = "),
            ("question", "\"question\" is not a table of names"),
            ("prompt=a,", "is not a table of names"),
            ("promt=a", "\"promt\" is no name that is read, one of messages, role, content"),
            ("promt=a", "did you mean prompt?"),
            ("prompt=", "prompt is given no field"),
            ("{ prompt = 3 }", "prompt = 3 is not the name of a field"),
            ("prompt=a,prompt=b", "prompt is given twice"),
            ("prompt=a,completion=a", "\"a\" is given for prompt and for completion"),
            ("prompt=a,output=b", "prompt and output are of two kinds of records"),
            ("text=a,system=b", "of a record with a text nothing else is read: leave system out"),
        ] {
            let error = read("", &[("data.fields", value)]).unwrap_err();
            assert!(error.contains("[data] fields: ") && error.contains(problem), "{value}: {error}");
        }
        let other = [("data.fields", "prompt=a"), ("data.format", "messages")];
        let error = read("", &other).unwrap_err();
        let problem = "[data] fields: are those of prompt_completion, and data.format is \"messages\": leave one out";
        assert!(error.contains(problem), "{error}");
        read("", &[("data.fields", "role=a,system=b"), ("data.format", "messages")]).unwrap();
        // What other trainers call it.
        for other in ["columns", "field_instruction", "dataset_text_field"] {
            let key = format!("data.{other}");
            let error = read("", &[(key.as_str(), "a")]).unwrap_err();
            assert!(error.contains("did you mean data.fields?"), "{error}");
        }
    }
}
