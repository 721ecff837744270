//! Reads data files: JSONL with one record a line, one JSON array of records, or plain text. First stage of the data
//! flow.
//!
//! A file is of one kind, which the first usable record decides (or the `format` option demands), and every other
//! record has to be of that kind. One that is not gives an error that names file, line and what would be right, or is
//! skipped and counted. All conversational kinds become the same thing, a list of messages:
//!
//! | kind | fields | becomes |
//! | --- | --- | --- |
//! | `messages` | `messages` of `role`/`content`, or ShareGPT `conversations` of `from`/`value` | as it is |
//! | `prompt_completion` | `prompt`, `completion` | user, assistant |
//! | | the same as lists of messages (TRL) | the messages of both; none of the prompt's is trained |
//! | `instruction` | `instruction`, `output`; optional `input`, `history` | user (instruction, newline, input), assistant |
//! | `question_answer` | `question`, `answer` (GSM8K) | user, assistant |
//! | `text` | `text` | one text, trained throughout |
//!
//! Beside any of the conversational ones, a string `system` becomes the first message, and `tools` are offered. An
//! assistant's message with `"weight": 0` or `"train": false` is read and not trained, and a `function_call` in it is one of
//! `tool_calls`. Fields of other names are read by what the user says they are ([`Fields`]), which decides the kind, too.
//! All others are counted ([`Unread`]); those by which a record means something else than what is read of it are refused.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fields::{Fields, FieldsFound, Renaming, fields, role_of_share_gpt};
use crate::error::{Error, Result};
use crate::settings::choice;
use crate::words::counted;

/// A longer record is refused: it is none, but a file in another format. What is made of a record takes many times its
/// size, a list of numbers 30 times.
pub(super) const MAX_RECORD_BYTES: usize = 16 << 20;
/// What some editors write before a text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// How many messages about skipped lines a report keeps.
pub(super) const KEPT_PROBLEMS: usize = 5;
/// What a message's `role` may be. A list, so that a misspelt `assistant` is an error and not silently untrained.
const ROLES: [&str; 8] = ["system", "developer", "user", "assistant", "tool", "function", "observation", "environment"];
/// The fields in which a message has what was thought before it was said.
pub(super) const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];
/// The role whose turns are trained.
const ASSISTANT: &str = "assistant";
/// Fields that say where a record came from, and nothing that could be learned.
const ORIGINS: [&str; 9] = ["dataset", "id", "idx", "index", "meta", "metadata", "source", "url", "uuid"];
/// How many names of fields that are not read are kept; they come out of the file.
const KEPT_NAMES: usize = 256;
/// What to do about a text in another encoding.
pub const TO_UTF_8: &str = "make UTF-8 of the file, for example with `iconv -f GB18030 -t utf-8`";
/// What to do about records that are refused for what they are.
const LEAVE_OUT: &str =
    "take the field out, or leave such records out with data.on_error=skip (of scan and eval --skip-broken)";
/// The fields by which a kind is recognised, for error messages.
const ALLOWED: &str = "`messages` (or ShareGPT `conversations`), `prompt` and `completion`, `instruction` and `output`, \
                       `question` and `answer`, or `text`";

choice! {
    /// What the user says the file holds.
    pub enum RecordFormat {
        /// The first usable record decides.
        Auto = "auto",
        /// The field messages, or conversations.
        Messages = "messages",
        /// The fields prompt and completion.
        PromptCompletion = "prompt_completion",
        /// The fields instruction, input and output.
        Instruction = "instruction",
        /// The field text, or a plain text file.
        Text = "text",
        /// The fields question and answer.
        QuestionAnswer = "question_answer",
    }
}

/// What a file turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `messages` or `conversations`.
    Messages,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `instruction`, `input` and `output`.
    Instruction,
    /// `text`, or a plain text file.
    Text,
    /// `question` and `answer`.
    QuestionAnswer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt_completion",
            Self::Instruction => "instruction",
            Self::Text => "text",
            Self::QuestionAnswer => "question_answer",
        })
    }
}

choice! {
    /// What to do with a line that cannot be used.
    pub enum OnError {
        /// Fail with its file, line and cause.
        Stop = "stop",
        /// Leave it out and count it.
        Skip = "skip",
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` and the like.
    pub role: String,
    /// The text. Empty for an assistant turn that only calls tools.
    pub content: String,
    /// True for an assistant's turn, unless the record says that it is only read.
    #[serde(skip)]
    pub trained: bool,
    /// The content as `tool_calls`, where it is a ShareGPT `function_call`: for templates that know them.
    #[serde(skip)]
    pub calls: Option<Value>,
    /// Every other field (`tool_calls`, `reasoning_content`, `name` ...), which a template may look at.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A turn without extra fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let role = role.into();
        Self { trained: role == ASSISTANT, role, content: content.into(), calls: None, extra: Map::new() }
    }

    /// What was thought before it was said, where a field says it, with that field.
    pub(super) fn reasoning(&self) -> Option<(&'static str, &str)> {
        let text = |field: &'static str| self.extra.get(field).and_then(Value::as_str).map(|text| (field, text));
        REASONING.into_iter().filter_map(text).find(|(_, text)| !text.trim().is_empty())
    }

    /// What was thought before it was said, where a field says it or the content between the marks that most models have.
    pub(super) fn thinking(&self) -> Option<&str> {
        let in_content = || {
            let (before, _) = self.content.split_once("</think>")?;
            before.rsplit_once("<think>").map(|(_, thinking)| thinking)
        };
        let thinking = self.reasoning().map(|(_, text)| text).or_else(in_content)?.trim();
        (!thinking.is_empty()).then_some(thinking)
    }

    /// True where the field `tool_calls` has any.
    pub(super) fn calls_tools(&self) -> bool {
        has_calls(&self.extra)
    }
}

fn has_calls(fields: &Map<String, Value>) -> bool {
    fields.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty())
}

/// A conversation and what it was offered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// The turns, at least one.
    pub messages: Vec<Message>,
    /// Tool descriptions for the template.
    pub tools: Option<Value>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Running text, trained throughout.
    Text(String),
    /// Turns, of which the assistant's are trained.
    Chat(Conversation),
}

/// One usable record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Line of the file on which it begins, from 1.
    pub line: usize,
    /// Its number in a JSON array, from 1; none where each record has a line.
    pub number: Option<usize>,
    /// What it says.
    pub content: Content,
}

/// A field that is not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// What the file calls it.
    pub field: String,
    /// How many of the usable records say something in it.
    pub records: usize,
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The kind of all its records.
    pub kind: Kind,
    /// How many are usable.
    pub records: usize,
    /// How many lines, or records of a JSON array, were skipped.
    pub skipped: usize,
    /// The first few reasons for skipping, with their lines.
    pub problems: Vec<String>,
    /// The file is plain text, and has no records.
    pub plain: bool,
    /// Fields of its records that are not read, the most frequent first.
    pub unread: Vec<Unread>,
    /// The file is plain text by its name, and its first lines are JSON objects: perhaps it has records.
    pub looks_like_records: bool,
    /// What separates columns, where the file is plain text by its name, and its first lines are those of a table.
    pub looks_like_table: Option<char>,
    /// What became of the fields that were given other names, where some were.
    #[serde(skip)]
    pub fields: Option<FieldsFound>,
}

/// Reads a whole file, whose fields have the names of this module's table.
///
/// # Errors
/// As [`parse_named`].
pub fn parse(name: &str, bytes: &[u8], format: RecordFormat, on_error: OnError) -> Result<(Vec<Record>, Report)> {
    parse_named(name, bytes, format, None, on_error)
}

/// Reads a whole file, of which `named` says what its fields are called.
///
/// `name` is used in messages, and its ending, before a `.gz`, tells records (`.jsonl`, `.ndjson`, `.json`) from plain text
/// (`.txt`, `.text`, `.md`), which becomes one text record; a file of another name has records if it begins with `{`, or with
/// `[` and `{` behind it. Records have a line each, or are the elements of one JSON array, where the file begins with `[`.
///
/// # Errors
/// [`Error::Record`] for the first record that cannot be used, unless `on_error` is [`OnError::Skip`]; [`Error::Data`]
/// for a file that is empty or has no usable record; as [`refuse_table`] and [`refuse_no_text`].
pub fn parse_named(
    name: &str,
    bytes: &[u8],
    format: RecordFormat,
    named: Option<&Fields>,
    on_error: OnError,
) -> Result<(Vec<Record>, Report)> {
    refuse_table(name, format)?;
    refuse_no_text(name, bytes)?;
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let data_error = |problem: String| Error::Data { file: name.into(), problem };
    let Some(first) = first else {
        return Err(data_error("the file is empty: give JSONL (one JSON object a line) or a text file".into()));
    };
    if is_plain(name, format, bytes) {
        return parse_plain(name, bytes, format, named);
    }

    let is_array = *first == b'[';
    let shape = Shape::new(format, named);
    let mut found = Found { name, on_error, shape, records: Vec::new(), skipped: 0, problems: Vec::new() };
    if is_array {
        let (mut elements, mut rest) = (Elements::default(), bytes);
        loop {
            let (used, raw) = elements.cut(rest);
            rest = &rest[used..];
            let Some(Raw { line, number, bytes }) = raw.or_else(|| elements.end()) else { break };
            found.add(line, number, bytes.as_deref().map_err(String::clone))?;
        }
    } else {
        refuse_columns(name, bytes)?;
        let lines = bytes.split(|byte| *byte == b'\n').enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
            found.add(index + 1, None, Ok(line))?;
        }
    }
    let Found { shape, records, skipped, problems, .. } = found;
    match shape.kind {
        Some(kind) if !records.is_empty() => {
            let report = Report {
                kind,
                records: records.len(),
                skipped,
                problems,
                plain: false,
                unread: shape.unread(),
                looks_like_records: false,
                looks_like_table: None,
                fields: shape.fields(),
            };
            Ok((records, report))
        }
        _ => {
            let what = if is_array { "record" } else { "line" };
            Err(data_error(format!("no usable record: {}", all_skipped(what, skipped, &problems))))
        }
    }
}

/// Why nothing is left of a file, of which so many were skipped.
pub(super) fn all_skipped(what: &str, skipped: usize, problems: &[String]) -> String {
    let first = problems.first().map_or("", String::as_str);
    match skipped {
        0 => format!("there is no {what} in it"),
        1 => format!("its only {what} was skipped, because of: {first}"),
        _ => format!("all {} were skipped, the first because of: {first}", counted(skipped, what)),
    }
}

/// What was found in a file so far.
struct Found<'n> {
    name: &'n str,
    on_error: OnError,
    shape: Shape<'n>,
    records: Vec<Record>,
    skipped: usize,
    problems: Vec<String>,
}

impl Found<'_> {
    /// Reads one more record, of which the bytes are given or why it has none.
    fn add(&mut self, line: usize, number: Option<usize>, bytes: Result<&[u8], String>) -> Result<()> {
        match bytes.and_then(|bytes| self.shape.read(bytes)) {
            Ok(content) => self.records.push(Record { line, number, content }),
            Err(problem) => {
                let error = Error::Record { file: self.name.into(), line, problem: numbered(number, problem) };
                if self.on_error == OnError::Stop {
                    return Err(error);
                }
                self.skipped += 1;
                if self.problems.len() < KEPT_PROBLEMS {
                    self.problems.push(error.to_string());
                }
            }
        }
        Ok(())
    }
}

/// A problem with a record. One of a JSON array is told by its number, too: all of them may stand on one line.
pub(super) fn numbered(number: Option<usize>, problem: impl fmt::Display) -> String {
    number.map_or_else(|| problem.to_string(), |number| format!("record {number}: {problem}"))
}

/// A record as a file has it.
pub(super) struct Raw {
    /// Line on which it begins, from 1.
    pub line: usize,
    /// Its number in a JSON array, from 1.
    pub number: Option<usize>,
    /// Its bytes, without the end of its line, or why there are none to be used.
    pub bytes: Result<Vec<u8>, String>,
}

/// Cuts a JSON array into its elements as it is read, so that no more than one of them is held. Whether they are JSON
/// is for others to say; here only brackets and strings count.
#[derive(Default)]
pub(super) struct Elements {
    /// Brackets that are open; the array's own is the first.
    depth: usize,
    string: bool,
    escaped: bool,
    /// The array's end was read.
    over: bool,
    /// Something behind the array's end was read.
    behind: bool,
    /// Line feeds that were read.
    lines: usize,
    /// Elements that were read.
    count: usize,
    /// Line on which the element that is being read begins.
    line: usize,
    /// Its bytes; no more are held than are allowed.
    bytes: Vec<u8>,
    /// How many they are.
    length: u64,
}

impl Elements {
    /// Reads on up to the end of an element: how many bytes were read, and the element where it ends in them. The first
    /// byte that is not white space must be the array's bracket.
    pub(super) fn cut(&mut self, bytes: &[u8]) -> (usize, Option<Raw>) {
        for (at, &byte) in bytes.iter().enumerate() {
            self.lines += usize::from(byte == b'\n');
            if let Some(raw) = self.step(byte) {
                return (at + 1, Some(raw));
            }
        }
        (bytes.len(), None)
    }

    /// The end of the file: what is wrong where the array does not end before it.
    pub(super) fn end(&mut self) -> Option<Raw> {
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let problem = "the file ends before the JSON array does: a bracket or a quotation mark is missing";
        Some(Raw { bytes: Err(problem.into()), ..self.element() })
    }

    fn step(&mut self, byte: u8) -> Option<Raw> {
        if self.over {
            if byte.is_ascii_whitespace() || std::mem::replace(&mut self.behind, true) {
                return None;
            }
            let problem = "something stands behind the end of the JSON array: a file is one array, or an object a line";
            return Some(Raw { line: self.lines + 1, number: None, bytes: Err(problem.into()) });
        }
        if self.string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.string = true,
                b'[' | b'{' => {
                    self.depth += 1;
                    if self.depth == 1 {
                        return None;
                    }
                }
                b',' if self.depth == 1 => return Some(self.element()),
                b']' if self.depth == 1 => {
                    self.over = true;
                    let empty = self.count == 0 && self.length == 0;
                    return (!empty).then(|| self.element());
                }
                b']' | b'}' if self.depth > 1 => self.depth -= 1,
                _ => {}
            }
        }
        if self.length == 0 {
            if byte.is_ascii_whitespace() {
                return None;
            }
            self.line = self.lines + 1;
        }
        self.length += 1;
        if self.bytes.len() < MAX_RECORD_BYTES {
            // One line, for whoever writes it into a file of lines. Outside of strings all white space is alike.
            let ends_a_line = !self.string && matches!(byte, b'\n' | b'\r');
            self.bytes.push(if ends_a_line { b' ' } else { byte });
        }
        None
    }

    /// What was read of an element, which ends here.
    fn element(&mut self) -> Raw {
        self.count += 1;
        let mut bytes = std::mem::take(&mut self.bytes);
        let (line, bytes) = match std::mem::take(&mut self.length) {
            0 => (self.lines + 1, Err("nothing stands there: there is a comma too many".into())),
            length if length > MAX_RECORD_BYTES as u64 => (self.line, Err(too_long(length))),
            _ => {
                bytes.truncate(bytes.trim_ascii_end().len());
                (self.line, Ok(bytes))
            }
        };
        Raw { line, number: Some(self.count), bytes }
    }
}

/// Refuses a table, which its name tells: columns are no records, and read as text their commas would be learned. A table
/// of text is read where the user says what its records are.
///
/// # Errors
/// [`Error::Data`] saying how to make records of it.
pub fn refuse_table(name: &str, format: RecordFormat) -> Result<()> {
    let (stem, ending) = name.strip_suffix(".gz").unwrap_or(name).rsplit_once('.').unwrap_or((name, ""));
    let is_auto = format == RecordFormat::Auto;
    let jsonl = format!("{stem}.jsonl");
    let pandas = |read: &str| pandas(read, &jsonl);
    let python = match ending.to_ascii_lowercase().as_str() {
        "csv" if is_auto => pandas(&read_csv(name, ',')),
        "tsv" if is_auto => pandas(&read_csv(name, '\t')),
        "parquet" => pandas(&format!("read_parquet({name:?})")),
        "feather" => pandas(&format!("read_feather({name:?})")),
        "xlsx" | "xls" => pandas(&format!("read_excel({name:?}, {AS_TEXT})")),
        "arrow" => format!("datasets.Dataset.from_file({name:?}).to_json({jsonl:?})"),
        _ => return Ok(()),
    };
    let problem =
        format!("a .{ending} file is a table, and what is read are records or running text: {}", advice(&python));
    Err(Error::Data { file: name.into(), problem })
}

/// Refuses a table that is called records by its name: the columns of its first lines tell it.
///
/// # Errors
/// [`Error::Data`] saying how to make records of it.
pub(super) fn refuse_columns(name: &str, text: &[u8]) -> Result<()> {
    let Some(separator) = separator(text, &[(',', 1), (';', 1), ('\t', 1)]) else { return Ok(()) };
    let problem = format!("it is a table, and what is read are records: {}", of_columns(name, separator));
    Err(Error::Data { file: name.into(), problem })
}

/// What separates columns, where the first lines of a text are those of a table. Running text has commas, too.
pub(super) fn looks_like_table(text: &[u8]) -> Option<char> {
    separator(text, &[(';', 2), ('\t', 2)])
}

/// The first of these separators that each of the first lines has as often as the others, and at least so many times.
fn separator(text: &[u8], separators: &[(char, usize)]) -> Option<char> {
    const LOOKED_AT: usize = 5;
    const LEAST: usize = 3;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let lines: Vec<&[u8]> = lines.take(LOOKED_AT).collect();
    let is_json = |line: &&[u8]| matches!(line.trim_ascii_start(), [b'{' | b'[', ..]);
    if lines.len() < LEAST || lines.iter().any(is_json) {
        return None;
    }
    let count = |line: &[u8], separator: char| line.iter().filter(|byte| char::from(**byte) == separator).count();
    let fits = |(separator, least): &&(char, usize)| {
        let first = count(lines[0], *separator);
        first >= *least && lines.iter().all(|line| count(line, *separator) == first)
    };
    separators.iter().find(fits).map(|(separator, _)| *separator)
}

/// How to make records of a table whose columns this separates.
pub(super) fn of_columns(name: &str, separator: char) -> String {
    let (stem, ending) = name.strip_suffix(".gz").unwrap_or(name).rsplit_once('.').unwrap_or((name, ""));
    // The table itself is not written over.
    let stem = if ending.eq_ignore_ascii_case("jsonl") { format!("{stem}.records") } else { stem.to_owned() };
    advice(&pandas(&read_csv(name, separator), &format!("{stem}.jsonl")))
}

/// Of a table of text each cell is text: numbers would be refused as such, and an empty cell is no "nan".
const AS_TEXT: &str = "dtype=str, keep_default_na=False";

fn read_csv(name: &str, separator: char) -> String {
    match separator {
        ',' => format!("read_csv({name:?}, {AS_TEXT})"),
        other => format!("read_csv({name:?}, sep={:?}, {AS_TEXT})", other.to_string()),
    }
}

fn pandas(read: &str, jsonl: &str) -> String {
    format!("pandas.{read}.to_json({jsonl:?}, orient=\"records\", lines=True)")
}

/// What to do with a table that this line of Python reads.
fn advice(python: &str) -> String {
    format!(
        "make JSONL of it, one JSON object a line, with the fields {ALLOWED}; in Python, once its columns are named so, \
         or data.fields says how they are: {python}"
    )
}

/// Refuses a file that is no UTF-8 text by its first bytes, whatever it is called.
///
/// # Errors
/// [`Error::Data`] saying what it is and how to make text of it.
pub fn refuse_no_text(name: &str, begins: &[u8]) -> Result<()> {
    let problem = match begins {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            "it is UTF-16, and what is read is UTF-8: make that of it with `iconv -f utf-16 -t utf-8`"
        }
        [0x1F, 0x8B, ..] => "it is packed with gzip, and its name does not say so: name it .gz, or unpack it (gunzip)",
        [b'P', b'K', 3, 4, ..] => "it is a zip file: unzip it, and give the file that was in it",
        _ => return Ok(()),
    };
    Err(Error::Data { file: name.into(), problem: problem.into() })
}

/// Whether a text looks like records: its first lines that are not empty are JSON objects.
pub(super) fn looks_like_records(text: &[u8]) -> bool {
    const LOOKED_AT: usize = 3;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let mut lines = lines.take(LOOKED_AT).peekable();
    let is_object =
        |line: &[u8]| line.len() <= MAX_RECORD_BYTES && serde_json::from_slice::<Map<String, Value>>(line).is_ok();
    lines.peek().is_some() && lines.all(is_object)
}

/// Whether a file of this name, which begins so, is plain text. Where the name does not tell, the first two characters do that are
/// not white space.
pub(super) fn is_plain(name: &str, format: RecordFormat, begins: &[u8]) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let mut marks = begins.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
    matches!(format, RecordFormat::Auto | RecordFormat::Text)
        && match ending.as_deref() {
            Some("jsonl" | "ndjson" | "json") => false,
            Some("txt" | "text" | "md") => true,
            _ => !matches!((marks.next(), marks.next()), (None | Some(b'{'), _) | (Some(b'['), Some(b'{'))),
        }
}

/// The kind of record that is demanded; none where the first usable one decides.
fn kind_of(format: RecordFormat) -> Option<Kind> {
    match format {
        RecordFormat::Auto => None,
        RecordFormat::Messages => Some(Kind::Messages),
        RecordFormat::PromptCompletion => Some(Kind::PromptCompletion),
        RecordFormat::Instruction => Some(Kind::Instruction),
        RecordFormat::Text => Some(Kind::Text),
        RecordFormat::QuestionAnswer => Some(Kind::QuestionAnswer),
    }
}

/// What is wrong with a record of so many bytes.
pub(super) fn too_long(bytes: u64) -> String {
    format!(
        "it has {bytes} bytes, and {MAX_RECORD_BYTES} are allowed: split the record, or give running text as a text file"
    )
}

fn parse_plain(
    name: &str,
    bytes: &[u8],
    format: RecordFormat,
    named: Option<&Fields>,
) -> Result<(Vec<Record>, Report)> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        let problem = format!("byte {} of the file is not UTF-8 text: {TO_UTF_8}", error.valid_up_to());
        Error::Record { file: name.into(), line, problem }
    })?;
    let records = vec![Record { line: 1, number: None, content: Content::Text(line_ends(text).into_owned()) }];
    let report = Report {
        kind: Kind::Text,
        records: 1,
        skipped: 0,
        problems: Vec::new(),
        plain: true,
        unread: Vec::new(),
        looks_like_records: looks_like_records(bytes),
        looks_like_table: looks_like_table(bytes).filter(|_| format == RecordFormat::Auto),
        fields: named.map(FieldsFound::none),
    };
    Ok((records, report))
}

/// A plain text without the line ends of Windows, which no model was made to write.
pub(super) fn line_ends(text: &str) -> Cow<'_, str> {
    if text.contains("\r\n") { text.replace("\r\n", "\n").into() } else { text.into() }
}

/// What the records of a file look like, which the first usable one decides.
pub(super) struct Shape<'f> {
    /// The kind of all; none before the first usable one, where none is demanded.
    pub kind: Option<Kind>,
    renaming: Option<Renaming<'f>>,
    /// Fields that are not read, and how many records have them.
    unread: BTreeMap<String, usize>,
}

impl<'f> Shape<'f> {
    /// Of records that nobody read yet.
    pub(super) fn new(format: RecordFormat, named: Option<&'f Fields>) -> Self {
        Self { kind: kind_of(format), renaming: named.map(Renaming::new), unread: BTreeMap::new() }
    }

    /// What became of the fields that were given other names, where some were.
    pub(super) fn fields(&self) -> Option<FieldsFound> {
        self.renaming.as_ref().map(Renaming::found)
    }

    /// Fields so far that are not read: the most frequent first, those of origin behind others.
    pub(super) fn unread(&self) -> Vec<Unread> {
        let of = |(field, records): (&String, &usize)| Unread { field: field.clone(), records: *records };
        let mut unread: Vec<Unread> = self.unread.iter().map(of).collect();
        unread.sort_by_key(|unread| (Reverse(unread.records), ORIGINS.contains(&unread.field.as_str())));
        unread
    }

    /// Reads one record.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Content, String> {
        let mut object = parse_object(bytes)?;
        let as_it_is = detect(&object);
        let renamed = match &mut self.renaming {
            Some(renaming) => renaming.rename(&mut object, as_it_is.is_some())?,
            None => false,
        };
        let renaming = self.renaming.as_ref().filter(|_| renamed);
        let found = renaming.and_then(Renaming::kind).map(kind_with).or_else(|| detect(&object));
        refuse_what_means_otherwise(&object, found, renamed)?;
        let wanted = self.wanted(found, &object)?;
        let content = read(wanted, &mut object).map_err(|problem| match renaming {
            Some(renaming) => renaming.explain(problem),
            None => problem,
        })?;
        self.kind = Some(wanted);
        if let Some(renaming) = &mut self.renaming {
            renaming.settle(renamed);
        }
        self.count_unread(object);
        Ok(content)
    }

    /// Counts what is left of a record that was read.
    fn count_unread(&mut self, rest: Map<String, Value>) {
        for (field, _) in rest.into_iter().filter(|(_, value)| says_something(value)) {
            if self.unread.len() < KEPT_NAMES || self.unread.contains_key(&field) {
                *self.unread.entry(field).or_default() += 1;
            }
        }
    }

    /// As which kind a record is read that was found to be of one.
    fn wanted(&self, found: Option<Kind>, object: &Map<String, Value>) -> Result<Kind, String> {
        match (self.kind, found) {
            (None, None) => Err(format!(
                "unknown kind of record: it has {}, but needs {ALLOWED}; where they have other names, data.fields says \
                 which, such as {{ prompt = \"question\", completion = \"response\" }}",
                fields(object)
            )),
            (None, Some(found)) => Ok(found),
            (Some(wanted), Some(found)) if found != wanted && !has_kind(object, wanted) => {
                Err(format!("this record is of kind {found}, but the file's kind is {wanted}; a file is of one kind"))
            }
            (Some(wanted), _) => Ok(wanted),
        }
    }
}

/// The kind of which these names are, where another one is demanded.
pub(crate) fn other_kind(format: RecordFormat, named: &Fields) -> Option<Kind> {
    let (wanted, meant) = (kind_of(format)?, kind_with(named.kind()?));
    (wanted != meant).then_some(meant)
}

/// The kind whose records have a field of this name, of [`Fields::kind`].
fn kind_with(name: &str) -> Kind {
    match name {
        "messages" => Kind::Messages,
        "prompt" => Kind::PromptCompletion,
        "instruction" => Kind::Instruction,
        "question" => Kind::QuestionAnswer,
        _ => Kind::Text,
    }
}

/// The JSON object that a record is.
fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(too_long(bytes.len() as u64));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 text (byte {} of the line): {TO_UTF_8}", error.valid_up_to()))?;
    let value: Value = serde_json::from_str(text).map_err(|error| {
        // The position inside the line; serde_json's own line number would always be 1.
        let column = error.column();
        let cause = error.to_string();
        let cause = cause.split(" at line ").next().unwrap_or_default().to_owned();
        format!("not a JSON object ({cause}, column {column})")
    })?;
    match value {
        Value::Object(object) => Ok(object),
        other => Err(format!("expected a JSON object, found {}", type_name(&other))),
    }
}

fn has_kind(object: &Map<String, Value>, kind: Kind) -> bool {
    let has = |name: &str| object.contains_key(name);
    match kind {
        Kind::Messages => has("messages") || has("conversations"),
        Kind::PromptCompletion => has("prompt") && has("completion"),
        Kind::Instruction => has("instruction") && has("output"),
        Kind::QuestionAnswer => has("question") && has("answer"),
        Kind::Text => has("text"),
    }
}

fn detect(object: &Map<String, Value>) -> Option<Kind> {
    [Kind::Messages, Kind::PromptCompletion, Kind::Instruction, Kind::QuestionAnswer, Kind::Text]
        .into_iter()
        .find(|kind| has_kind(object, *kind))
}

/// Whether a field has anything in it.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

/// Refuses a record with a field that makes something else of it than what is read: one of two answers, something to look at
/// or to listen to, or an answer that is not to be learned.
fn refuse_what_means_otherwise(object: &Map<String, Value>, kind: Option<Kind>, renamed: bool) -> Result<(), String> {
    let has = |field: &&str| match object.get(*field) {
        None | Some(Value::Bool(_) | Value::Number(_)) => false,
        Some(value) => says_something(value),
    };
    // Who said which of two answers is read has seen the other one.
    let answers: &[&str] = if renamed { &["chosen"] } else { &["chosen", "rejected"] };
    if let Some(field) = answers.iter().copied().find(has) {
        return Err(format!(
            "the record has a field `{field}`, as preference data has it, and what is trained is one answer, not the choice \
             between two; to train the chosen one say so with data.fields, such as {{ prompt = \"prompt\", completion = \
             \"chosen\" }}, or {{ messages = \"chosen\" }} where it is a whole conversation; else {LEAVE_OUT}"
        ));
    }
    let media = ["image", "images", "video", "videos", "audio", "audios"];
    if let Some(field) = media.into_iter().find(has) {
        return Err(format!(
            "the record has a field `{field}`, and what is read is text, which would lack it: {LEAVE_OUT}"
        ));
    }
    if object.get("label") == Some(&Value::Bool(false)) && kind != Some(Kind::Text) {
        return Err(format!(
            "its `label` is false, which says that its answer is not to be learned (KTO): {LEAVE_OUT}"
        ));
    }
    Ok(())
}

/// Takes out of a record what one of its kind has.
fn read(kind: Kind, object: &mut Map<String, Value>) -> Result<Content, String> {
    let mut messages = match kind {
        Kind::Text => {
            let text = take_string(object, "text")?;
            if text.is_empty() {
                return Err("field `text` is empty".into());
            }
            if read_tools(object)?.is_some() {
                let problem = "the record has a field `tools` beside `text`, which is trained as it is, without them";
                return Err(format!("{problem}: take the field out, or give `messages`"));
            }
            return Ok(Content::Text(text));
        }
        Kind::PromptCompletion if ["prompt", "completion"].iter().all(|field| is_list(object, field)) => {
            let mut messages = read_turns(object, "prompt")?;
            messages.iter_mut().for_each(|message| message.trained = false);
            messages.extend(read_turns(object, "completion")?);
            messages
        }
        Kind::PromptCompletion => read_pair(object, "prompt", "completion")?,
        Kind::QuestionAnswer => read_pair(object, "question", "answer")?,
        Kind::Instruction => read_instruction(object)?,
        Kind::Messages => read_messages(object)?,
    };
    let tools = read_tools(object)?;
    add_system(object, &mut messages)?;
    Ok(Content::Chat(Conversation { messages, tools }))
}

/// Puts what a record has as `system` before its messages.
fn add_system(object: &mut Map<String, Value>, messages: &mut Vec<Message>) -> Result<(), String> {
    let Some(system) = take_optional_string(object, "system")?.filter(|system| !system.is_empty()) else {
        return Ok(());
    };
    if messages.first().is_some_and(|message| message.role == "system") {
        return Err("the record has a field `system`, and its first message is of the role system: keep one".into());
    }
    messages.insert(0, Message::new("system", system));
    Ok(())
}

fn is_list(object: &Map<String, Value>, field: &str) -> bool {
    object.get(field).is_some_and(Value::is_array)
}

/// Two strings, of which the second answers the first.
fn read_pair(object: &mut Map<String, Value>, asked: &str, answer: &str) -> Result<Vec<Message>, String> {
    let asked = take_string(object, asked)?;
    Ok(vec![Message::new("user", asked), Message::new(ASSISTANT, take_string(object, answer)?)])
}

fn read_instruction(object: &mut Map<String, Value>) -> Result<Vec<Message>, String> {
    let mut prompt = take_string(object, "instruction")?;
    let output = take_string(object, "output")?;
    if let Some(input) = take_optional_string(object, "input")?.filter(|input| !input.is_empty()) {
        prompt.push('\n');
        prompt.push_str(&input);
    }
    let mut messages = Vec::new();
    match object.remove("history") {
        None | Some(Value::Null) => {}
        Some(history) => {
            let pairs: Vec<(String, String)> = serde_json::from_value(history)
                .map_err(|_| "field `history` must be a list of [question, answer] pairs of strings".to_owned())?;
            for (question, answer) in pairs {
                messages.push(Message::new("user", question));
                messages.push(Message::new("assistant", answer));
            }
        }
    }
    messages.push(Message::new("user", prompt));
    messages.push(Message::new("assistant", output));
    Ok(messages)
}

fn read_messages(object: &mut Map<String, Value>) -> Result<Vec<Message>, String> {
    let Some(field) = ["messages", "conversations"].into_iter().find(|field| object.contains_key(*field)) else {
        let found = fields(object);
        return Err(format!("field `messages` (or ShareGPT's `conversations`) is missing (found {found})"));
    };
    read_turns(object, field)
}

/// A list of messages.
fn read_turns(object: &mut Map<String, Value>, field: &str) -> Result<Vec<Message>, String> {
    let turns = match object.remove(field).unwrap_or_default() {
        Value::Array(turns) if turns.is_empty() => {
            return Err(format!("field `{field}` is an empty list: at least one message is needed"));
        }
        Value::Array(turns) => turns,
        other => return Err(format!("field `{field}` must be a list of messages, found {}", type_name(&other))),
    };
    turns
        .into_iter()
        .enumerate()
        .map(|(index, turn)| read_message(turn).map_err(|problem| format!("{field}[{index}]: {problem}")))
        .collect()
}

fn read_tools(object: &mut Map<String, Value>) -> Result<Option<Value>, String> {
    let tools = match object.remove("tools") {
        None | Some(Value::Null) => None,
        // ShareGPT files carry the list as a string of JSON.
        Some(Value::String(text)) if text.trim().is_empty() => None,
        Some(Value::String(text)) => Some(
            serde_json::from_str(&text)
                .map_err(|error| format!("field `tools` is a string, but not of JSON: {error}"))?,
        ),
        Some(tools) => Some(tools),
    };
    match tools {
        None | Some(Value::Array(_)) => Ok(tools.filter(|tools| tools != &Value::Array(vec![]))),
        Some(other) => Err(format!("field `tools` must be a list, found {}", type_name(&other))),
    }
}

/// One message in either spelling: `role`/`content` or ShareGPT's `from`/`value`.
fn read_message(turn: Value) -> Result<Message, String> {
    let Value::Object(mut turn) = turn else {
        return Err(format!("a message must be an object, found {}", type_name(&turn)));
    };
    let share_gpt = !turn.contains_key("role") && turn.contains_key("from");
    let (role_field, content_field) = if share_gpt { ("from", "value") } else { ("role", "content") };
    let given = take_string(&mut turn, role_field)?;
    let role = if share_gpt { role_of_share_gpt(&given) } else { given.as_str() };
    if !ROLES.contains(&role) {
        return Err(format!("unknown `{role_field}` {role:?}: use one of {}", ROLES.join(", ")));
    }
    if role == ASSISTANT {
        read_function_call(&mut turn)?;
    }
    let calls_tools = role == ASSISTANT && has_calls(&turn);
    let content = match turn.remove(content_field) {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => join_parts(parts, content_field)?,
        // What OpenAI's format writes for a turn that only calls tools.
        None | Some(Value::Null) if calls_tools => String::new(),
        None => return Err(format!("field `{content_field}` is missing (found {})", fields(&turn))),
        Some(other) => return Err(format!("field `{content_field}` must be a string, found {}", type_name(&other))),
    };
    let trained = role == ASSISTANT && read_trained(&mut turn)?;
    let calls = (share_gpt && given == "function_call").then(|| read_calls(&content)).flatten();
    Ok(Message { role: role.to_owned(), content, trained, calls, extra: turn })
}

/// Whether an assistant's turn is trained: OpenAI's `weight`, or `train`.
fn read_trained(turn: &mut Map<String, Value>) -> Result<bool, String> {
    let weight = match turn.remove("weight") {
        None | Some(Value::Null) => true,
        Some(Value::Number(weight)) if weight.as_f64() == Some(1.0) => true,
        Some(Value::Number(weight)) if weight.as_f64() == Some(0.0) => false,
        Some(Value::Number(other)) => return Err(format!("field `weight` must be 0 or 1, found {other}")),
        Some(other) => return Err(format!("field `weight` must be 0 or 1, found {}", type_name(&other))),
    };
    let train = match turn.remove("train") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(train)) => train,
        Some(other) => return Err(format!("field `train` must be true or false, found {}", type_name(&other))),
    };
    Ok(weight && train)
}

/// Turns the field `function_call`, in which OpenAI's format once had the only call, into `tool_calls`.
fn read_function_call(turn: &mut Map<String, Value>) -> Result<(), String> {
    let call = match turn.remove("function_call") {
        None | Some(Value::Null) => return Ok(()),
        Some(call) => call,
    };
    if has_calls(turn) {
        return Err("a message has `function_call` or `tool_calls`, and this one has both: keep one".into());
    }
    let call = read_call(call).ok_or("field `function_call` must be an object with a string `name` and `arguments`")?;
    turn.insert("tool_calls".into(), Value::Array(vec![call]));
    Ok(())
}

/// What a ShareGPT `function_call` calls, in OpenAI's form, where it is JSON: a call or a list of such.
fn read_calls(text: &str) -> Option<Value> {
    let calls = match serde_json::from_str::<Value>(text).ok()? {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let calls = calls.into_iter().map(read_call).collect::<Option<Vec<Value>>>()?;
    (!calls.is_empty()).then_some(Value::Array(calls))
}

/// A `name` and `arguments` as one of `tool_calls`.
fn read_call(mut call: Value) -> Option<Value> {
    let call = call.as_object_mut()?;
    let name = call.remove("name").filter(Value::is_string)?;
    let arguments = call.remove("arguments")?;
    Some(json!({ "type": "function", "function": { "name": name, "arguments": arguments } }))
}

/// `[{"type": "text", "text": "..."}]`, the list form of a content.
fn join_parts(parts: Vec<Value>, field: &str) -> Result<String, String> {
    let mut text = String::new();
    for part in &parts {
        match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
            (Some("text"), Some(piece)) => text.push_str(piece),
            _ => return Err(format!("field `{field}` has a part that is not text; only `type` \"text\" is supported")),
        }
    }
    Ok(text)
}

fn take_string(object: &mut Map<String, Value>, field: &str) -> Result<String, String> {
    match object.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("field `{field}` must be a string, found {}", type_name(&other))),
        None => Err(format!("field `{field}` is missing (found {})", fields(object))),
    }
}

fn take_optional_string(object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, String> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("field `{field}` must be a string, found {}", type_name(&other))),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fields::refuse_unused_field;

    fn stop(name: &str, text: &str, format: RecordFormat) -> String {
        parse(name, text.as_bytes(), format, OnError::Stop).unwrap_err().to_string()
    }

    fn one(text: &str) -> (Content, Kind) {
        let (mut records, report) = parse("d.jsonl", text.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
        (records.remove(0).content, report.kind)
    }

    fn turns(content: Content) -> Vec<(String, String)> {
        let Content::Chat(chat) = content else { panic!("not a chat") };
        chat.messages.into_iter().map(|message| (message.role, message.content)).collect()
    }

    #[test]
    fn every_kind_is_detected_from_its_fields() {
        let pair = |a: &str, b: &str| vec![("user".to_owned(), a.to_owned()), ("assistant".to_owned(), b.to_owned())];
        let cases = [
            (
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
                Kind::Messages,
                pair("a", "b"),
            ),
            (
                r#"{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}"#,
                Kind::Messages,
                pair("a", "b"),
            ),
            (r#"{"prompt":"a","completion":"b","id":3}"#, Kind::PromptCompletion, pair("a", "b")),
            (r#"{"instruction":"a","input":"x","output":"b"}"#, Kind::Instruction, pair("a\nx", "b")),
            (r#"{"instruction":"a","input":"","output":"b"}"#, Kind::Instruction, pair("a", "b")),
            (r#"{"question":"a","answer":"b"}"#, Kind::QuestionAnswer, pair("a", "b")),
        ];
        for (text, kind, expected) in cases {
            let (content, found) = one(text);
            assert_eq!(found, kind, "{text}");
            assert_eq!(turns(content), expected, "{text}");
        }
        assert_eq!(one(r#"{"text":"a"}"#), (Content::Text("a".into()), Kind::Text));
    }

    #[test]
    fn an_assistant_turn_that_only_calls_tools_may_have_null_content() {
        let (content, _) = one(
            r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{"name":"f"}]}],"tools":"[{\"name\":\"f\"}]"}"#,
        );
        let Content::Chat(chat) = content else { panic!("not a chat") };
        assert_eq!(chat.messages[0].content, "");
        assert!(chat.messages[0].extra.contains_key("tool_calls"));
        assert!(chat.tools.is_some());
    }

    fn chat(text: &str) -> Conversation {
        let (Content::Chat(chat), _) = one(text) else { panic!("not a chat") };
        chat
    }

    #[test]
    fn a_function_call_keeps_its_text_and_has_the_calls_in_openais_form_where_it_is_json() {
        let call = |value: &str| {
            let line = json!({"conversations": [
                {"from": "human", "value": "w?"}, {"from": "function_call", "value": value},
                {"from": "observation", "value": "sun"}, {"from": "function_response", "value": "rain"},
            ]});
            let chat = chat(&line.to_string());
            let roles: Vec<&str> = chat.messages.iter().map(|message| message.role.as_str()).collect();
            assert_eq!(roles, ["user", "assistant", "observation", "observation"]);
            assert_eq!((chat.messages[1].content.as_str(), chat.messages[1].trained), (value, true));
            chat.messages[1].calls.clone()
        };
        let of = |arguments: Value| json!({"type": "function", "function": {"name": "f", "arguments": arguments}});
        assert_eq!(call(r#"{"name":"f","arguments":{"x":1}}"#), Some(json!([of(json!({"x": 1}))])));
        let two = r#"[{"arguments":{},"name":"f"},{"name":"f","arguments":"{}"}]"#;
        assert_eq!(call(two), Some(json!([of(json!({})), of(json!("{}"))])));
        for text in ["f(1)", "", "[]", "3", r#"{"name":"f"}"#, r#"{"name":3,"arguments":{}}"#, r#"[{"name":"f"},1]"#] {
            assert_eq!(call(text), None, "{text}");
        }
        let plain = chat(r#"{"messages":[{"role":"assistant","content":"{\"name\":\"f\",\"arguments\":{}}"}]}"#);
        assert_eq!(plain.messages[0].calls, None, "an answer in JSON is an answer");
    }

    #[test]
    fn a_function_call_of_openais_older_format_is_one_of_tool_calls() {
        let of = |fields: &str| {
            format!(
                r#"{{"messages":[{{"role":"assistant",{fields},"function_call":{{"name":"f","arguments":"{{}}"}}}}]}}"#
            )
        };
        let expected = json!([{"type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        for fields in [r#""content":"""#, r#""content":null"#, r#""content":null,"tool_calls":null"#] {
            let chat = chat(&of(fields));
            assert_eq!(chat.messages[0].content, "");
            assert_eq!(chat.messages[0].extra.get("tool_calls"), Some(&expected), "{fields}");
            assert!(!chat.messages[0].extra.contains_key("function_call") && chat.messages[0].calls_tools());
        }
        let error = stop("d.jsonl", &of(r#""content":"","tool_calls":[{"name":"f"}]"#), RecordFormat::Auto);
        assert!(error.contains("d.jsonl, line 1: messages[0]: ") && error.contains("has both: keep one"), "{error}");
        for call in ["3", "{}", r#"{"name":"f"}"#, r#"{"name":null,"arguments":"{}"}"#] {
            let line = format!(r#"{{"messages":[{{"role":"assistant","content":"","function_call":{call}}}]}}"#);
            let error = stop("d.jsonl", &line, RecordFormat::Auto);
            assert!(error.contains("field `function_call` must be an object with a string `name`"), "{error}");
        }
        let none = chat(r#"{"messages":[{"role":"assistant","content":"a","function_call":null}]}"#);
        assert!(none.messages[0].extra.is_empty());
    }

    #[test]
    fn an_assistants_turn_of_weight_0_is_not_trained_and_other_weights_are_refused() {
        let trained = |fields: &str| {
            let line = format!(r#"{{"messages":[{{"role":"assistant","content":"a"{fields}}}]}}"#);
            let parsed = parse("d.jsonl", line.as_bytes(), RecordFormat::Auto, OnError::Stop);
            parsed.map_err(|error| error.to_string()).map(|(records, _)| match &records[0].content {
                Content::Chat(chat) => {
                    assert!(chat.messages[0].extra.is_empty(), "it is nothing for a template");
                    chat.messages[0].trained
                }
                Content::Text(_) => panic!("not a chat"),
            })
        };
        for fields in ["", r#","weight":1"#, r#","weight":1.0"#, r#","train":true"#, r#","weight":null,"train":null"#] {
            assert_eq!(trained(fields), Ok(true), "{fields}");
        }
        for fields in [r#","weight":0"#, r#","weight":0.0"#, r#","train":false"#, r#","weight":1,"train":false"#] {
            assert_eq!(trained(fields), Ok(false), "{fields}");
        }
        for (fields, problem) in [
            (r#","weight":0.5"#, "field `weight` must be 0 or 1, found 0.5"),
            (r#","weight":"0""#, "field `weight` must be 0 or 1, found a string"),
            (r#","train":0"#, "field `train` must be true or false, found a number"),
        ] {
            assert_eq!(trained(fields), Err(format!("d.jsonl, line 1: messages[0]: {problem}")));
        }
        let user = chat(r#"{"messages":[{"role":"user","content":"a","weight":1}]}"#);
        assert!(!user.messages[0].trained, "only an assistant's turn ever is");
    }

    #[test]
    fn a_prompt_and_a_completion_of_messages_are_one_conversation_of_which_the_completion_is_trained() {
        let line = r#"{"prompt":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},
            {"role":"user","content":"c"}],"completion":[{"role":"assistant","content":"d"},
            {"role":"assistant","content":"e","weight":0}],"tools":[{"type":"function"}]}"#;
        let (content, kind) = one(&line.replace('\n', ""));
        assert_eq!(kind, Kind::PromptCompletion);
        let Content::Chat(chat) = content else { panic!("not a chat") };
        let found: Vec<_> = chat.messages.iter().map(|message| (message.content.as_str(), message.trained)).collect();
        assert_eq!(found, [("a", false), ("b", false), ("c", false), ("d", true), ("e", false)]);
        assert!(chat.tools.is_some());
        for (line, problem) in [
            (r#"{"prompt":[],"completion":[{"role":"assistant","content":"d"}]}"#, "field `prompt` is an empty list"),
            (r#"{"prompt":[{"role":"user","content":"a"}],"completion":[3]}"#, "completion[0]: a message must be"),
            (
                r#"{"prompt":"a","completion":[{"role":"assistant","content":"d"}]}"#,
                "field `completion` must be a string",
            ),
        ] {
            assert!(stop("d.jsonl", line, RecordFormat::Auto).contains(problem), "{line}");
        }
    }

    #[test]
    fn history_and_system_of_an_instruction_become_earlier_turns() {
        let (content, _) = one(r#"{"instruction":"c","output":"d","system":"s","history":[["a","b"]]}"#);
        let roles: Vec<_> = turns(content).into_iter().map(|(role, text)| format!("{role}:{text}")).collect();
        assert_eq!(roles, ["system:s", "user:a", "assistant:b", "user:c", "assistant:d"]);
    }

    #[test]
    fn a_system_becomes_the_first_message_of_every_conversational_kind() {
        let conversational = [
            r#""messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#,
            r#""conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]"#,
            r#""prompt":"a","completion":"b""#,
            r#""prompt":[{"role":"user","content":"a"}],"completion":[{"role":"assistant","content":"b"}]"#,
            r#""instruction":"a","output":"b""#,
            r#""question":"a","answer":"b""#,
        ];
        for fields in conversational {
            let told = chat(&format!(r#"{{"system":"s",{fields}}}"#));
            assert_eq!(told.messages[0], Message::new("system", "s"), "{fields}");
            assert_eq!(told.messages[1..], chat(&format!("{{{fields}}}")).messages, "{fields}");
            for none in ["\"\"", "null"] {
                assert_eq!(chat(&format!(r#"{{"system":{none},{fields}}}"#)).messages, told.messages[1..], "{fields}");
            }
            let error = stop("d.jsonl", &format!(r#"{{"system":3,{fields}}}"#), RecordFormat::Auto);
            assert!(error.contains("d.jsonl, line 1: field `system` must be a string, found a number"), "{error}");
        }
        let system = r#"{"role":"system","content":"t"}"#;
        for line in [
            format!(r#"{{"system":"s","messages":[{system}]}}"#),
            format!(r#"{{"system":"s","prompt":[{system}],"completion":[{{"role":"assistant","content":"b"}}]}}"#),
            r#"{"system":"s","conversations":[{"from":"system","value":"t"}]}"#.into(),
        ] {
            let error = stop("d.jsonl", &line, RecordFormat::Auto);
            let problem =
                "d.jsonl, line 1: the record has a field `system`, and its first message is of the role system";
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn tools_are_read_beside_every_conversational_kind_and_refused_beside_a_text() {
        for fields in [
            r#""messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#,
            r#""prompt":"a","completion":"b""#,
            r#""instruction":"a","output":"b""#,
            r#""question":"a","answer":"b""#,
        ] {
            let (list, text) = (r#"[{"name":"f"}]"#, r#""[{\"name\":\"f\"}]""#);
            for (tools, is_any) in [(list, true), (text, true), ("null", false), ("[]", false)] {
                let found = chat(&format!(r#"{{{fields},"tools":{tools}}}"#)).tools;
                assert_eq!(found.is_some(), is_any, "{fields}, {tools}");
            }
            let error = stop("d.jsonl", &format!(r#"{{{fields},"tools":3}}"#), RecordFormat::Auto);
            assert!(error.contains("d.jsonl, line 1: field `tools` must be a list"), "{error}");
        }
        let error = stop("d.jsonl", r#"{"text":"a","tools":[{"name":"f"}]}"#, RecordFormat::Auto);
        assert!(error.contains("d.jsonl, line 1: the record has a field `tools` beside `text`, "), "{error}");
        assert_eq!(one(r#"{"text":"a","tools":[]}"#).1, Kind::Text);
    }

    #[test]
    fn thinking_is_what_a_field_says_or_the_content_between_its_marks() {
        let thinking = |content: &str, fields: Value| {
            let Value::Object(extra) = fields else { panic!("not an object") };
            Message { extra, ..Message::new("assistant", content) }.thinking().map(str::to_owned)
        };
        for field in REASONING {
            assert_eq!(thinking("b", json!({ field: " c\n" })).as_deref(), Some("c"), "{field}");
        }
        assert_eq!(thinking("<think>\nc\n</think>\n\nb", json!({"reasoning": ""})).as_deref(), Some("c"));
        for content in ["b", "<think>\n\n</think>\n\nb", "</think>b", "<think>b"] {
            assert_eq!(thinking(content, json!({})), None, "{content}");
        }
    }

    #[test]
    fn a_record_without_messages_is_told_what_it_has_and_what_it_needs() {
        let good = r#"{"messages":[{"role":"user","content":"a"}]}"#;
        let error = stop("d.jsonl", &format!("{good}\n{{\"foo\":1}}"), RecordFormat::Auto);
        let problem = "field `messages` (or ShareGPT's `conversations`) is missing (found fields `foo`)";
        assert!(error.contains(&format!("d.jsonl, line 2: {problem}")), "{error}");
        let error = stop("d.jsonl", r#"{"messages":null}"#, RecordFormat::Auto);
        assert!(error.contains("field `messages` must be a list of messages, found null"), "{error}");
    }

    fn named(fields: &str, text: &str, on_error: OnError) -> Result<(Vec<Record>, Report)> {
        let fields: Fields = fields.parse().unwrap();
        parse_named("d.jsonl", text.as_bytes(), RecordFormat::Auto, Some(&fields), on_error)
    }

    #[test]
    fn fields_of_other_names_are_read_by_what_the_user_says_they_are() {
        for (fields, other, known, kind) in [
            (
                "prompt=question,completion=response",
                r#"{"question":"a","response":"b"}"#,
                r#"{"prompt":"a","completion":"b"}"#,
                Kind::PromptCompletion,
            ),
            // Only what is called otherwise need be said, and what is said counts more than what is there besides.
            (
                "completion=response",
                r#"{"prompt":"a","response":"b","completion":"c","text":"d","messages":[]}"#,
                r#"{"prompt":"a","completion":"b"}"#,
                Kind::PromptCompletion,
            ),
            (
                "prompt=completion,completion=prompt",
                r#"{"prompt":"b","completion":"a"}"#,
                r#"{"prompt":"a","completion":"b"}"#,
                Kind::PromptCompletion,
            ),
            (
                "instruction=task,input=context,output=target_text,history=past,system=rules",
                r#"{"task":"a","context":"x","target_text":"b","past":[["c","d"]],"rules":"s"}"#,
                r#"{"instruction":"a","input":"x","output":"b","history":[["c","d"]],"system":"s"}"#,
                Kind::Instruction,
            ),
            (
                "question=q,answer=a,tools=functions",
                r#"{"q":"a","a":"b","functions":[{"name":"f"}]}"#,
                r#"{"question":"a","answer":"b","tools":[{"name":"f"}]}"#,
                Kind::QuestionAnswer,
            ),
            ("text=content", r#"{"content":"a"}"#, r#"{"text":"a"}"#, Kind::Text),
            (
                "messages=conversation,role=speaker,content=utterance",
                r#"{"conversation":[{"speaker":"human","utterance":"a"},{"speaker":"assistant","utterance":"b"}]}"#,
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
                Kind::Messages,
            ),
            (
                "role=who,content=what",
                r#"{"prompt":[{"who":"user","what":"a"}],"completion":[{"who":"assistant","what":"b"}]}"#,
                r#"{"prompt":[{"role":"user","content":"a"}],"completion":[{"role":"assistant","content":"b"}]}"#,
                Kind::PromptCompletion,
            ),
        ] {
            let (records, report) = named(fields, other, OnError::Stop).unwrap();
            assert_eq!((&records[0].content, report.kind), (&one(known).0, kind), "{fields}");
            let found = report.fields.unwrap();
            refuse_unused_field(&[("d.jsonl", found)]).unwrap();
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_named_with_its_line_what_it_is_for_and_what_is_there() {
        let good = r#"{"question":"a","response":"b"}"#;
        let fields = "prompt=question,completion=response";
        let problem =
            "field `response` is missing, which is `completion` by data.fields (found fields `question`, `x`)";
        for (before, line) in [(String::new(), 1), (format!("{good}\n"), 2)] {
            let text = format!("{before}{{\"question\":\"a\",\"x\":\"b\"}}");
            let error = named(fields, &text, OnError::Stop).unwrap_err().to_string();
            assert_eq!(error, format!("d.jsonl, line {line}: {problem}"));
        }
        // Behind one that is named so none is read as it is.
        let error = named(fields, &format!("{good}\n{{\"prompt\":\"a\",\"completion\":\"b\"}}"), OnError::Stop);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("d.jsonl, line 2: field `question` is missing, which is `prompt`"), "{error}");
        let (records, report) = named(fields, &format!("{{\"x\":1}}\n{good}"), OnError::Skip).unwrap();
        assert_eq!((records.len(), report.skipped), (1, 1));
        for (fields, text, problem) in [
            (
                fields,
                r#"{"question":"a","response":3}"#,
                "field `completion` must be a string, found a number; by data.fields `response` is its `completion`",
            ),
            (
                "messages=turns,role=who,content=what",
                r#"{"turns":[{"who":"user","that":"a"}]}"#,
                "messages[0]: field `content` is missing (found fields `that`); by data.fields `turns` is its `messages`, \
                 `what` is its `content`",
            ),
            ("prompt=q", r#"{"q":"a","x":"b"}"#, "field `completion` is missing (found fields `x`)"),
        ] {
            let error = named(fields, text, OnError::Stop).unwrap_err().to_string();
            assert_eq!(error, format!("d.jsonl, line 1: {problem}"));
        }
        let error = stop("d.jsonl", r#"{"x":"a"}"#, RecordFormat::Auto);
        assert!(error.contains("data.fields says which, such as { prompt = \"question\", "), "{error}");
    }

    #[test]
    fn a_file_that_has_the_usual_names_is_read_as_it_is_and_a_field_that_no_file_has_is_told() {
        let found = |fields: &str, text: &str| {
            let (records, report) = named(fields, text, OnError::Stop).unwrap();
            assert_eq!(records[0].content, one(text.lines().next().unwrap()).0, "{fields}");
            report.fields.unwrap()
        };
        let fields = "prompt=question,completion=response,system=rules";
        let usual = "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"c\",\"completion\":\"d\",\"rules\":\"e\"}";
        let lacking = ("usual.jsonl", found(fields, usual));
        let problem = "data set usual.jsonl: no record has a field `question`, which is its `prompt` by data.fields; the first \
                       one has fields `prompt`, `completion`";
        assert_eq!(refuse_unused_field(std::slice::from_ref(&lacking)).unwrap_err().to_string(), problem);
        let other = named(fields, "{\"question\":\"a\",\"response\":\"b\"}", OnError::Stop).unwrap().1.fields.unwrap();
        let error = refuse_unused_field(&[lacking.clone(), ("other.jsonl", other)]).unwrap_err().to_string();
        assert!(error.starts_with("data set usual.jsonl, other.jsonl: no record has a field `rules`"), "{error}");
        let all = "{\"question\":\"a\",\"response\":\"b\"}\n{\"question\":\"a\",\"response\":\"b\",\"rules\":\"c\"}";
        let all = named(fields, all, OnError::Stop).unwrap().1.fields.unwrap();
        refuse_unused_field(&[lacking, ("all.jsonl", all)]).unwrap();
        let fields: Fields = "text=body".parse().unwrap();
        let read = parse_named("a.txt", b"plain", RecordFormat::Auto, Some(&fields), OnError::Stop);
        let error = refuse_unused_field(&[("a.txt", read.unwrap().1.fields.unwrap())]).unwrap_err().to_string();
        assert!(error.contains("`body`") && error.ends_with("since the file is plain text"), "{error}");
        refuse_unused_field(&[]).unwrap();
    }

    #[test]
    fn skipping_counts_the_bad_lines_and_keeps_the_first_few_reasons() {
        let mut text = String::from("{\"text\":1}\n{\"text\":\"ok\"}\n\n");
        for _ in 0..20 {
            text.push_str("{half\n");
        }
        let (records, report) = parse("d.jsonl", text.as_bytes(), RecordFormat::Auto, OnError::Skip).unwrap();
        assert_eq!(records, [Record { line: 2, number: None, content: Content::Text("ok".into()) }]);
        assert_eq!((report.kind, report.records, report.skipped, report.problems.len()), (Kind::Text, 1, 21, 5));
        assert!(report.problems[0].starts_with("d.jsonl, line 1: field `text` must be a string, found a number"));
    }

    #[test]
    fn the_name_decides_between_plain_text_and_records() {
        let (records, report) = parse("book.txt", b"{not json", RecordFormat::Auto, OnError::Stop).unwrap();
        assert_eq!((records.len(), report.kind), (1, Kind::Text));
        assert!(stop("book.jsonl", "not json", RecordFormat::Auto).contains("line 1: not a JSON object"));
        assert!(stop("a.txt", " \n", RecordFormat::Auto).contains("empty"));
        assert!(stop("a.txt", "plain", RecordFormat::Messages).contains("line 1"));
        let bad = parse("a.txt", b"ok\nbad \xff", RecordFormat::Auto, OnError::Stop).unwrap_err().to_string();
        assert_eq!(bad, format!("a.txt, line 2: byte 7 of the file is not UTF-8 text: {TO_UTF_8}"));
    }

    #[test]
    fn a_table_is_refused_by_its_name_with_the_way_to_records() {
        for (name, python) in [
            ("a/b.csv", r#").to_json("a/b.jsonl", orient="records", lines=True)"#),
            ("a/b.csv", r#"pandas.read_csv("a/b.csv", dtype=str, keep_default_na=False)"#),
            ("b.TSV", r#"pandas.read_csv("b.TSV", sep="\t", dtype=str, keep_default_na=False)"#),
            ("b.csv.gz", r#"pandas.read_csv("b.csv.gz", dtype=str, keep_default_na=False).to_json("b.jsonl""#),
            ("b.parquet", r#"pandas.read_parquet("b.parquet")"#),
            ("b.feather", "read_feather"),
            ("b.xlsx", "read_excel"),
            ("b.arrow", r#"datasets.Dataset.from_file("b.arrow").to_json("b.jsonl")"#),
        ] {
            // Not even a look is taken.
            for bytes in [&b"question,answer\na,b\n"[..], b"", b"\xff"] {
                let error = parse(name, bytes, RecordFormat::Auto, OnError::Skip).unwrap_err();
                let (message, is_bad) = (error.to_string(), error.is_bad_input());
                assert!(is_bad && message.starts_with(&format!("data set {name}: a .")), "{message}");
                assert!(message.contains("one JSON object a line") && message.contains("`messages`"), "{message}");
                assert!(message.contains(python), "{message}");
            }
        }
        let (_, report) = parse("b.csv", b"a,b\n", RecordFormat::Text, OnError::Stop).unwrap();
        assert_eq!(report.kind, Kind::Text, "as asked for");
        assert!(parse("b.parquet", b"a,b\n", RecordFormat::Text, OnError::Stop).is_err());
        for name in ["csv", "a.csv/b", "b.csv.txt", "b"] {
            assert!(parse(name, b"a,b\n", RecordFormat::Auto, OnError::Stop).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_table_that_is_called_records_is_refused_as_one_that_says_so() {
        let refused = |text: &str| stop("a/b.jsonl", text, RecordFormat::Auto);
        for (text, reads) in [
            ("question,answer\na,b\nc,d\n", r#"pandas.read_csv("a/b.jsonl", dtype=str"#),
            ("\nquestion;answer\r\na, b;c\r\nd;e\r\n", r#"sep=";""#),
            ("question\tanswer\na\tb\nc\td\ne\tf\ng\th\nand what follows", r#"sep="\t""#),
        ] {
            let message = refused(text);
            assert!(message.contains("it is a table") && message.contains(reads), "{message}");
            assert!(message.contains(r#".to_json("a/b.records.jsonl""#), "{message}");
        }
        let record = "{\"prompt\":\"a\",\"completion\":\"b\"}";
        parse("b.jsonl", format!("{record}\n").repeat(4).as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
        for text in ["a,b\nc,d\n", "a,b\nc\nd,e\n", format!("a,b\n{record}\n{record}\n").as_str()] {
            assert!(refused(text).contains("line 1: not a JSON object"), "{text}");
        }
    }

    #[test]
    fn a_text_whose_first_lines_are_those_of_a_table_is_told_from_others() {
        let looks =
            |text: &str, format| parse("a.txt", text.as_bytes(), format, OnError::Stop).unwrap().1.looks_like_table;
        for (separator, text) in [(';', "a;b;c\n1;2;3\n4;5;6\n"), ('\t', "a\tb\tc\n1\t\t3\n\t5\t6\n")] {
            assert_eq!(looks(text, RecordFormat::Text), None, "as asked for");
            assert_eq!(looks(text, RecordFormat::Auto), Some(separator));
        }
        for text in ["a,b,c\nd,e,f\ng,h,i\n", "a;b\nc;d\ne;f\n", "a;b;c\nd;e;f\n", "a;b;c\nd\ne;f;g\n"] {
            assert_eq!(looks(text, RecordFormat::Auto), None, "{text}");
        }
    }

    #[test]
    fn a_text_whose_first_lines_are_json_objects_is_told_from_others() {
        let looks = |name: &str, text: &str| {
            parse(name, text.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap().1.looks_like_records
        };
        let record = "{\"text\":\"a\"}";
        for text in [record.into(), format!("\n{record}\r\n\n{record}\n"), format!("{record}\n").repeat(9)] {
            assert!(looks("a.txt", &text) && looks("a.md", &text), "{text}");
            assert!(!looks("a.jsonl", text.trim_start().lines().next().unwrap()), "it is read as it looks");
        }
        for text in ["a", "{half\n{\"text\":\"a\"}", "[{\"text\":\"a\"}]", "3\n4\n", "{\"text\":\"a\"}\nand more\n"] {
            assert!(!looks("a.txt", text), "{text}");
        }
    }

    #[test]
    fn a_json_array_is_read_as_its_elements_with_their_lines() {
        let elements = [r#"{"text": "a, ]}\" [{""#, "}, ", r#"{"text": "b", "n": [1, {}]}, {"text": "c"}"#];
        let text = format!("\u{feff} [\n{}\n]\n", elements.join("\n"));
        let (records, report) = parse("d.json", text.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
        let record =
            |line, number, text: &str| Record { line, number: Some(number), content: Content::Text(text.into()) };
        assert_eq!(records, [record(2, 1, "a, ]}\" [{"), record(4, 2, "b"), record(4, 3, "c")]);
        assert_eq!((report.kind, report.records, report.skipped), (Kind::Text, 3, 0));
    }

    #[test]
    fn what_is_wrong_with_an_element_or_the_array_is_told_with_number_and_line() {
        let good = r#"{"text":"a"}"#;
        let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(MAX_RECORD_BYTES));
        for (text, goods, problem) in [
            (format!("[{good},\n3,{good}]"), 2, "line 2: record 2: expected a JSON object, found a number"),
            (format!("[{good},\n{{\"text\":3}}]"), 1, "line 2: record 2: field `text` must be a string"),
            (format!("[{good}\n{good},\n{good}]"), 1, "line 1: record 1: not a JSON object (trailing characters"),
            (format!("[{good},\n{{\"text\":\"a\"],{good}]"), 2, "line 2: record 2: not a JSON object"),
            (format!("[{good},\n,{good}]"), 2, "line 2: record 2: nothing stands there"),
            (format!("[{good},\n]"), 1, "line 2: record 2: nothing stands there"),
            (format!("[{good},\n{{\"text\":\"a"), 1, "line 2: record 2: the file ends before the JSON array does"),
            (format!("[{good}\n"), 0, "line 1: record 1: the file ends before"),
            (format!("[{good},\n"), 1, "line 2: record 2: the file ends before"),
            (format!("[{good}]\n{good}\n{good}"), 1, "line 2: something stands behind the end of the JSON array"),
            (
                format!("[{good},\n{long},{good}]"),
                2,
                "line 2: record 2: it has 16777227 bytes, and 16777216 are allowed",
            ),
        ] {
            let shown = &text[..text.len().min(60)];
            let error = stop("d.json", &text, RecordFormat::Auto);
            assert!(error.starts_with(&format!("d.json, {problem}")), "{shown}: {error}");
            match parse("d.json", text.as_bytes(), RecordFormat::Auto, OnError::Skip) {
                Ok((records, report)) => assert_eq!((records.len(), report.skipped), (goods, 1), "{shown}"),
                Err(error) => {
                    assert!(
                        goods == 0 && error.to_string().contains("no usable record: its only record was skipped"),
                        "{shown}: {error}"
                    );
                }
            }
        }
        assert!(stop("d.json", "[ ]", RecordFormat::Auto).contains("no usable record: there is no record in it"));
        let (records, _) = parse("d", b"[a] is a line of text", RecordFormat::Auto, OnError::Stop).unwrap();
        assert_eq!(records[0].number, None, "a name that says nothing and no brace: text");
    }

    #[test]
    fn what_a_file_begins_with_tells_an_array_where_its_name_does_not_and_packing_hides_no_name() {
        let read = |name: &str, text: &str| parse(name, text.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
        let array = " [\n {\"text\": \"a\"}]";
        for name in ["a.json.gz", "a.dat", "a.gz", "-", "/dev/fd/63"] {
            let (records, report) = read(name, array);
            assert_eq!((&records[0].content, report.plain), (&Content::Text("a".into()), false), "{name}");
            assert!(read(name, "{\"text\": \"a\"}").1.records == 1, "{name}");
        }
        for (name, text) in [("a.txt.gz", "{a text"), ("a.txt.gz", array), ("a.md", array), ("-", "[a"), ("-", "[")] {
            assert!(read(name, text).1.plain, "{name}: {text}");
        }
        assert!(!read("a.jsonl.gz", "{\"text\": \"a\"}").1.plain);
    }

    #[test]
    fn a_json_array_is_cut_alike_however_its_bytes_come() {
        let text = r#"[ {"a": "\\"}, [1, "]\""], "x" , {"b": {}} ] "#;
        for step in 1..text.len() {
            let mut elements = Elements::default();
            let mut found = Vec::new();
            for mut bytes in text.as_bytes().chunks(step) {
                while !bytes.is_empty() {
                    let (used, raw) = elements.cut(bytes);
                    bytes = &bytes[used..];
                    found.extend(raw.map(|raw| String::from_utf8(raw.bytes.unwrap()).unwrap()));
                }
            }
            assert!(elements.end().is_none());
            assert_eq!(found, [r#"{"a": "\\"}"#, r#"[1, "]\""]"#, r#""x""#, r#"{"b": {}}"#], "{step} bytes at a time");
        }
    }

    #[test]
    fn fields_that_are_not_read_are_counted_the_most_frequent_first_and_those_of_origin_behind_others() {
        let unread = |text: &str| -> Vec<(String, usize)> {
            let (_, report) = parse("d.jsonl", text.as_bytes(), RecordFormat::Auto, OnError::Skip).unwrap();
            report.unread.into_iter().map(|unread| (unread.field, unread.records)).collect()
        };
        let of = |fields: &[(&str, usize)]| -> Vec<(String, usize)> {
            fields.iter().map(|(field, records)| (field.to_string(), *records)).collect()
        };
        let text = "{\"question\":\"a\",\"context\":\"c\",\"answer\":\"b\",\"id\":1}\n\
                    {\"question\":\"a\",\"context\":\"\",\"answer\":\"b\",\"x\":[]}\n\
                    {\"question\":\"a\",\"context\":\"e\",\"answer\":\"b\",\"id\":2,\"text\":\"t\"}\n\
                    {\"question\":3,\"lost\":1}";
        // Of usable records, where they say something.
        assert_eq!(unread(text), of(&[("context", 2), ("id", 2), ("text", 1)]));
        for (line, fields) in [
            (r#"{"prompt":"a","input":"c","completion":"b"}"#, &[("input", 1)][..]),
            (r#"{"instruction":"a","input":"c","output":"b","system":"s","tools":[{"name":"f"}]}"#, &[]),
            (
                r#"{"messages":[{"role":"user","content":"a","name":"n"}],"prompt":"a","completion":"b"}"#,
                &[("completion", 1), ("prompt", 1)],
            ),
            (r#"{"prompt":"a","completion":"b","label":true,"chosen":null,"images":[]}"#, &[("label", 1)]),
            (r#"{"text":"a","label":false}"#, &[("label", 1)]),
        ] {
            assert_eq!(unread(line), of(fields), "{line}");
        }
        let many: Vec<String> = (0..2 * KEPT_NAMES).map(|n| format!("\"f{n}\":1")).collect();
        assert_eq!(unread(&format!("{{\"text\":\"a\",{}}}", many.join(","))).len(), KEPT_NAMES);
        let (_, report) = named("input=context,instruction=question,output=answer", text, OnError::Skip).unwrap();
        assert!(report.unread.iter().all(|unread| unread.field != "context"), "{:?}", report.unread);
    }

    #[test]
    fn a_record_that_means_something_else_than_what_is_read_of_it_is_refused() {
        let preference = "as preference data has it, and what is trained is one answer";
        for (line, problem) in [
            (r#"{"prompt":"a","chosen":"b","rejected":"c"}"#, preference),
            (r#"{"prompt":"a","completion":"b","rejected":"c"}"#, preference),
            (
                r#"{"conversations":[{"from":"human","value":"a"}],"chosen":{"from":"gpt","value":"b"},"rejected":{}}"#,
                preference,
            ),
            (r#"{"text":"<image> a","images":["a.png"]}"#, "field `images`, and what is read is text"),
            (r#"{"prompt":"a","completion":"b","audio":{"path":"a.wav"}}"#, "field `audio`"),
            (r#"{"prompt":"a","completion":"b","label":false}"#, "its `label` is false"),
        ] {
            let error = stop("d.jsonl", line, RecordFormat::Auto);
            assert!(error.starts_with("d.jsonl, line 1: ") && error.contains(problem), "{line}: {error}");
            assert!(error.contains("data.on_error=skip"), "{error}");
            let good = r#"{"text":"a"}"#;
            let (records, report) =
                parse("d.jsonl", format!("{line}\n{good}").as_bytes(), RecordFormat::Auto, OnError::Skip).unwrap();
            assert_eq!((records.len(), report.skipped), (1, 1), "{line}");
        }
        // What the user says counts.
        for (fields, line) in [
            ("completion=chosen", r#"{"prompt":"a","chosen":"b","rejected":"c"}"#),
            (
                "messages=chosen",
                r#"{"chosen":[{"role":"user","content":"a"}],"rejected":[{"role":"user","content":"b"}]}"#,
            ),
        ] {
            let (_, report) = named(fields, line, OnError::Stop).unwrap();
            assert_eq!(report.unread, [Unread { field: "rejected".into(), records: 1 }], "{fields}");
        }
    }

    #[test]
    fn plain_text_loses_the_line_ends_of_windows_and_what_a_record_says_keeps_them() {
        let (records, report) = parse("a.txt", b"a\r\n\r\nb\rc\r\n", RecordFormat::Auto, OnError::Stop).unwrap();
        assert_eq!(records[0].content, Content::Text("a\n\nb\rc\n".into()));
        assert!(report.plain);
        assert_eq!(one(r#"{"text":"a\r\nb"}"#).0, Content::Text("a\r\nb".into()));
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_do_not_matter() {
        let (records, _) = parse(
            "d.jsonl",
            b"\xEF\xBB\xBF{\"text\":\"a\"}\r\n{\"text\":\"b\"}\r\n\r\n",
            RecordFormat::Auto,
            OnError::Stop,
        )
        .unwrap();
        assert_eq!(records.len(), 2);
    }
}
