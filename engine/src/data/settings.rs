//! `[data]`: what to train and evaluate on.

use serde::{Deserialize, Serialize};
use serde_json::Map;
use toml::Value;

use super::fields::Fields;
use super::files::{Files, REQUIRED, Shares};
use super::record::{OnError, RecordFormat};
use crate::error::{Error, Result};
use crate::settings::{Composed, Range, choice, settings};

choice! {
    /// Which assistant turns of a chat are trained.
    pub enum TrainOn {
        /// Every one.
        All = "all",
        /// The last one only.
        Last = "last",
    }
}

choice! {
    /// What makes one text of a conversation.
    pub enum Templating {
        /// The chat template that came with the model, if one did.
        Model = "model",
        /// None: prompt, newline, completion, end.
        Off = "none",
    }
}

settings! {
    /// What to train and evaluate on.
    pub struct DataSection in "data" {
        /// JSONL or text to train on, in one file or in several, of which each may look different.
        train: Files = Files::default(), required = REQUIRED;
        /// How much of what is trained each of several files has, in their order: documents are drawn by the seed, the same
        /// in every epoch, so that the trained tokens are in these shares; of all but the scarcest file a part is left out.
        shares: Option<Shares> = None, derived = "all of each file";
        /// JSONL or text on which the target loss is measured before and after.
        target: Option<String> = None;
        /// In place of a target: the share of the training documents, the last ones of each file, that is measured and not
        /// trained on.
        hold_out: Option<f64> = None, range = Range::above(0.0).below(1.0),
            hint = "; to hold nothing out leave it out (--set data.hold_out=)";
        /// JSONL or text on which forgetting is measured before and after.
        general: Option<String> = None;
        /// JSONL or text with labels that should not be learned: how much of them was learned is measured before and after.
        wrong: Option<String> = None;
        /// JSONL or text, without what is measured, to be mixed in: the model goes on hearing what it should keep.
        replay: Option<String> = None;
        /// Share of all tokens read in training, prompts too, that replay has: documents drawn by the seed, the same in every
        /// epoch. Of the tokens that are trained its share may be another, and is said.
        replay_share: f64 = 0.1, range = Range::above(0.0).below(1.0);
        /// Most tokens that are measured of each of these sets: its first documents.
        measured_tokens: Option<u64> = None, range = Range::at_least(2.0), derived = "all of them";
        /// What the records of the training set look like.
        format: RecordFormat = RecordFormat::Auto;
        /// Longest document in tokens; longer ones are cut.
        cutoff_length: usize = 2048, range = Range::at_least(2.0),
            derived = "2048, or run.batch_tokens where that is smaller",
            aliases = &["cutoff_len", "max_length", "max_seq_length"];
        /// Several documents in one row, each with its own attention and positions.
        packing: bool = true;
        /// What happens to a record that cannot be used.
        on_error: OnError = OnError::Stop;
        /// Which assistant turns of a chat are trained.
        train_on: TrainOn = TrainOn::All;
        /// Whether conversations are rendered with the model's chat template.
        template: Templating = Templating::Model;
        /// Values that the chat template asks for by name, such as { enable_thinking = false }; the day that its strftime_now writes
        /// is one of them ({ strftime_now = "2026-01-31" }).
        template_variables: Option<TemplateVariables> = None, used = &[("template", &["model"])],
            aliases = &["chat_template_kwargs"];
        /// What the fields of records are called, where they have other names than those that are read, such as { prompt =
        /// "question", completion = "response" }: messages with role and content, prompt and completion, instruction, input, output
        /// and history, question and answer, or text; system and tools. A file whose first record has not all of them is read as
        /// it is, and a field that no record has is refused.
        fields: Option<Fields> = None, derived = "as they are read",
            aliases = &["columns", "field_instruction", "field_input", "field_output", "field_messages",
                "message_property_mappings", "dataset_text_field"];
    }
}

/// Names that a chat template is given by whoever renders.
const RENDERED: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];

/// What a chat template is told beside the conversation, by name: strings, whole numbers, true and false.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub struct TemplateVariables(Map<String, serde_json::Value>);

impl TemplateVariables {
    /// These variables, and over them those of `pairs`: each `NAME=VALUE`, in which `true`, `false` and whole numbers
    /// are what they look like, and everything else is a string.
    ///
    /// # Errors
    /// [`Error::Config`] with every pair that is none or has a name that cannot be given.
    pub fn with(mut self, pairs: &[String]) -> Result<Self> {
        let mut problems = Vec::new();
        for pair in pairs {
            let added = match pair.split_once('=') {
                Some((name, value)) => self.add(name, told(value)),
                None => Err("is not NAME=VALUE".into()),
            };
            problems.extend(added.err().map(|problem| format!("template variable {pair:?}: {problem}")));
        }
        if problems.is_empty() { Ok(self) } else { Err(Error::Config { problems }) }
    }

    /// The values by name.
    pub fn values(&self) -> &Map<String, serde_json::Value> {
        &self.0
    }

    fn add(&mut self, name: &str, value: serde_json::Value) -> Result<(), String> {
        let mut letters = name.chars();
        let is_name = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !is_name {
            return Err(format!("{name:?} is not a name: a letter, and then letters, digits and _"));
        }
        if RENDERED.contains(&name) {
            return Err(format!("{name} is what the conversation or the tokenizer gives; use another name"));
        }
        self.0.insert(name.into(), value);
        Ok(())
    }
}

/// What the text of a value says.
fn told(text: &str) -> serde_json::Value {
    match (text, text.parse::<i64>()) {
        ("true", _) => true.into(),
        ("false", _) => false.into(),
        (_, Ok(number)) => number.into(),
        (text, Err(_)) => text.into(),
    }
}

impl From<TemplateVariables> for Value {
    fn from(variables: TemplateVariables) -> Self {
        let value = |value: serde_json::Value| match value {
            serde_json::Value::Bool(flag) => Self::Boolean(flag),
            serde_json::Value::Number(number) => Self::Integer(number.as_i64().unwrap_or_default()),
            other => Self::String(other.as_str().unwrap_or_default().into()),
        };
        Self::Table(variables.0.into_iter().map(|(name, of)| (name, value(of))).collect())
    }
}

impl TryFrom<Value> for TemplateVariables {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let Value::Table(table) = value else { return Err(format!("{value} is not {WORDS}")) };
        let mut variables = Self::default();
        for (name, value) in table {
            let value: serde_json::Value = match value {
                Value::Boolean(flag) => flag.into(),
                Value::Integer(number) => number.into(),
                Value::String(text) => text.into(),
                other => return Err(format!("{name} = {other} is not a string, a whole number, true or false")),
            };
            variables.add(&name, value)?;
        }
        Ok(variables)
    }
}

const WORDS: &str = "a table of strings, whole numbers, true and false";

impl Composed for TemplateVariables {
    const WORDS: &'static str = WORDS;
    const IS_TABLE: bool = true;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::settings::{Reader, Settings};

    fn read(text: &str, set: &[(&str, &str)]) -> Result<Option<TemplateVariables>, String> {
        let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let mut reader = Reader::new(vec![DataSection::section()], text, "r.toml", &set);
        let section = DataSection::read(&mut reader, DataSection::default());
        reader.finish().map_err(|error| error.to_string())?;
        let written = toml::to_string(&BTreeMap::from([("data", &section)])).unwrap();
        for written in [written, section.to_commented_toml()] {
            let mut reader = Reader::new(vec![DataSection::section()], &written, "again", &[]);
            assert_eq!(DataSection::read(&mut reader, DataSection::default()), section, "{written}");
            reader.finish().unwrap();
        }
        Ok(section.template_variables)
    }

    #[test]
    fn template_variables_are_a_table_and_read_back_as_they_were_written() {
        let of = |variables: Option<TemplateVariables>| variables.map(|of| json!(of.values()));
        assert_eq!(read("[data]\ntrain = \"t\"\n", &[]), Ok(None));
        let text = "[data]\ntrain = \"t\"\ntemplate_variables = { thinking = false, level = 3, who = \"a b\" }\n";
        let expected = json!({"thinking": false, "level": 3, "who": "a b"});
        assert_eq!(read(text, &[]).map(of), Ok(Some(expected)));
        let set = [("data.template_variables", "{ thinking = true }")];
        assert_eq!(read(text, &set).map(of), Ok(Some(json!({"thinking": true}))));
        for none in ["", "{}"] {
            assert_eq!(read(text, &[("data.template_variables", none)]), Ok(None), "{none:?}");
        }
    }

    #[test]
    fn a_template_variable_that_cannot_be_given_is_refused() {
        for (value, problem) in [
            ("{ messages = 1 }", "messages is what the conversation or the tokenizer gives"),
            ("{ eos_token = \"x\" }", "eos_token is what"),
            ("{ \"a b\" = 1 }", "\"a b\" is not a name"),
            ("{ _a = 1 }", "\"_a\" is not a name"),
            ("{ a = 0.5 }", "a = 0.5 is not a string, a whole number, true or false"),
            ("{ a = [1] }", "is not a string"),
            ("thinking", "\"thinking\" is not a table of strings"),
        ] {
            let text = "[data]\ntrain = \"t\"\n";
            let error = read(text, &[("data.template_variables", value)]).unwrap_err();
            assert!(error.contains("[data] template_variables: ") && error.contains(problem), "{value}: {error}");
        }
    }

    #[test]
    fn pairs_of_an_option_are_read_over_what_a_run_has() {
        let pairs = |pairs: &[&str]| pairs.iter().map(|pair| pair.to_string()).collect::<Vec<_>>();
        let first = TemplateVariables::default().with(&pairs(&["a=true", "b=-3", "c=x=y", "d=", "e=0.5"])).unwrap();
        assert_eq!(json!(first.values()), json!({"a": true, "b": -3, "c": "x=y", "d": "", "e": "0.5"}));
        let second = first.with(&pairs(&["a=false", "b=True"])).unwrap();
        assert_eq!(json!(second.values()), json!({"a": false, "b": "True", "c": "x=y", "d": "", "e": "0.5"}));
        let Err(Error::Config { problems }) = second.with(&pairs(&["a", "tools=1", "=1", "f=1"])) else {
            panic!("three pairs are refused")
        };
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("template variable \"a\": is not NAME=VALUE"), "{problems:?}");
    }
}
