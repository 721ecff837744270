//! Reads data files: JSONL with one record a line, or plain text. First stage of the data flow.
//!
//! A file is of one kind, which the first usable record decides (or the `format` option demands), and every other line
//! has to be of that kind. A line that is not gives an error that names file, line and what would be right, or is
//! skipped and counted. All conversational kinds become the same thing, a list of messages:
//!
//! | kind | fields | becomes |
//! | --- | --- | --- |
//! | `messages` | `messages` of `role`/`content`, or ShareGPT `conversations` of `from`/`value` | as it is |
//! | `prompt_completion` | `prompt`, `completion` | user, assistant |
//! | `instruction` | `instruction`, `output`; optional `input`, `system`, `history` | user (instruction, newline, input), assistant |
//! | `question_answer` | `question`, `answer` (GSM8K) | user, assistant |
//! | `text` | `text` | one text, trained throughout |

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::settings::choice;

/// A longer line is refused: it is no record, but a file in another format. What is made of a line takes many times its
/// size, a list of numbers 30 times.
pub(super) const MAX_LINE_BYTES: usize = 16 << 20;
/// How many messages about skipped lines a report keeps.
pub(super) const KEPT_PROBLEMS: usize = 5;
/// What a message's `role` may be. A list, so that a misspelt `assistant` is an error and not silently untrained.
const ROLES: [&str; 8] = ["system", "developer", "user", "assistant", "tool", "function", "observation", "environment"];
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
    /// Every other field (`tool_calls`, `reasoning_content`, `name` ...), which a template may look at.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A turn without extra fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), extra: Map::new() }
    }
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
    /// Line in the file, from 1.
    pub line: usize,
    /// What it says.
    pub content: Content,
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The kind of all its records.
    pub kind: Kind,
    /// How many are usable.
    pub records: usize,
    /// How many lines were skipped.
    pub skipped: usize,
    /// The first few reasons for skipping, with their lines.
    pub problems: Vec<String>,
}

/// Reads a whole file.
///
/// `name` is used in messages, and its ending tells JSONL (`.jsonl`, `.ndjson`, `.json`) from plain text (`.txt`,
/// `.text`, `.md`), which becomes one text record; a file of another name is JSONL if it begins with `{`.
///
/// # Errors
/// [`Error::Record`] for the first line that cannot be used, unless `on_error` is [`OnError::Skip`]; [`Error::Data`] for
/// a file that is empty or has no usable record.
pub fn parse(name: &str, bytes: &[u8], format: RecordFormat, on_error: OnError) -> Result<(Vec<Record>, Report)> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let data_error = |problem: String| Error::Data { file: name.into(), problem };
    let Some(first) = first else {
        return Err(data_error("the file is empty: give JSONL (one JSON object a line) or a text file".into()));
    };
    if is_plain(name, format, *first) {
        return parse_plain(name, bytes);
    }
    if *first == b'[' {
        return Err(data_error(ARRAY.into()));
    }

    let mut kind = kind_of(format);
    // Blank lines at the end are how editors leave files; blank lines elsewhere are damage.
    let end = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
    let mut records = Vec::new();
    let (mut skipped, mut problems) = (0, Vec::new());
    for (index, line) in bytes[..end].split(|byte| *byte == b'\n').enumerate() {
        match parse_line(line, &mut kind) {
            Ok(content) => records.push(Record { line: index + 1, content }),
            Err(problem) => {
                let error = Error::Record { file: name.into(), line: index + 1, problem };
                if on_error == OnError::Stop {
                    return Err(error);
                }
                skipped += 1;
                if problems.len() < KEPT_PROBLEMS {
                    problems.push(error.to_string());
                }
            }
        }
    }
    match kind {
        Some(kind) if !records.is_empty() => {
            let report = Report { kind, records: records.len(), skipped, problems };
            Ok((records, report))
        }
        _ => Err(data_error(format!(
            "no usable record: {skipped} lines were skipped, the first because of: {}",
            problems[0]
        ))),
    }
}

/// What is wrong with a JSON array.
pub(super) const ARRAY: &str = "the file is a JSON array, but JSONL is needed: one object a line (`jq -c '.[]' in.json > \
                                out.jsonl` converts it)";

/// Whether a file of this name, whose first character that is not white space is `first`, is plain text.
pub(super) fn is_plain(name: &str, format: RecordFormat, first: u8) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    matches!(format, RecordFormat::Auto | RecordFormat::Text)
        && match ending.as_deref() {
            Some("jsonl" | "ndjson" | "json") => false,
            Some("txt" | "text" | "md") => true,
            _ => first != b'{',
        }
}

/// The kind of record that is demanded; none where the first usable one decides.
pub(super) fn kind_of(format: RecordFormat) -> Option<Kind> {
    match format {
        RecordFormat::Auto => None,
        RecordFormat::Messages => Some(Kind::Messages),
        RecordFormat::PromptCompletion => Some(Kind::PromptCompletion),
        RecordFormat::Instruction => Some(Kind::Instruction),
        RecordFormat::Text => Some(Kind::Text),
        RecordFormat::QuestionAnswer => Some(Kind::QuestionAnswer),
    }
}

/// What is wrong with a line of so many bytes.
pub(super) fn too_long(bytes: u64) -> String {
    format!(
        "the line has {bytes} bytes, and {MAX_LINE_BYTES} are allowed: split the record, or give running text as a text file"
    )
}

fn parse_plain(name: &str, bytes: &[u8]) -> Result<(Vec<Record>, Report)> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        let problem = format!("byte {} of the file is not UTF-8 text", error.valid_up_to());
        Error::Record { file: name.into(), line, problem }
    })?;
    let records = vec![Record { line: 1, content: Content::Text(text.to_owned()) }];
    Ok((records, Report { kind: Kind::Text, records: 1, skipped: 0, problems: Vec::new() }))
}

/// One line; fixes the file's kind if it is the first usable one.
pub(super) fn parse_line(line: &[u8], kind: &mut Option<Kind>) -> Result<Content, String> {
    if line.len() > MAX_LINE_BYTES {
        return Err(too_long(line.len() as u64));
    }
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("not UTF-8 text (byte {} of the line)", error.valid_up_to()))?;
    if text.trim().is_empty() {
        return Err("the line is empty: write one JSON object a line".into());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        // The position inside the line; serde_json's own line number would always be 1.
        let column = error.column();
        let cause = error.to_string();
        let cause = cause.split(" at line ").next().unwrap_or_default().to_owned();
        format!("not a JSON object ({cause}, column {column})")
    })?;
    let Value::Object(object) = value else {
        return Err(format!("expected a JSON object, found {}", type_name(&value)));
    };
    let found = detect(&object);
    let wanted = match (*kind, found) {
        (None, None) => {
            return Err(format!("unknown kind of record: it has {}, but needs {ALLOWED}", fields(&object)));
        }
        (None, Some(found)) => found,
        (Some(wanted), Some(found)) if found != wanted && !has_kind(&object, wanted) => {
            return Err(format!(
                "this record is of kind {found}, but the file's kind is {wanted}; a file is of one kind"
            ));
        }
        (Some(wanted), _) => wanted,
    };
    let content = read(wanted, object)?;
    *kind = Some(wanted);
    Ok(content)
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

fn read(kind: Kind, mut object: Map<String, Value>) -> Result<Content, String> {
    let chat = |messages| Ok(Content::Chat(Conversation { messages, tools: None }));
    match kind {
        Kind::Text => {
            let text = take_string(&mut object, "text")?;
            if text.is_empty() {
                return Err("field `text` is empty".into());
            }
            Ok(Content::Text(text))
        }
        Kind::PromptCompletion => {
            let prompt = take_string(&mut object, "prompt")?;
            chat(vec![Message::new("user", prompt), Message::new("assistant", take_string(&mut object, "completion")?)])
        }
        Kind::QuestionAnswer => {
            let question = take_string(&mut object, "question")?;
            chat(vec![Message::new("user", question), Message::new("assistant", take_string(&mut object, "answer")?)])
        }
        Kind::Instruction => read_instruction(object).and_then(chat),
        Kind::Messages => read_messages(object).map(Content::Chat),
    }
}

fn read_instruction(mut object: Map<String, Value>) -> Result<Vec<Message>, String> {
    let mut prompt = take_string(&mut object, "instruction")?;
    let output = take_string(&mut object, "output")?;
    if let Some(input) = take_optional_string(&mut object, "input")?.filter(|input| !input.is_empty()) {
        prompt.push('\n');
        prompt.push_str(&input);
    }
    let mut messages = Vec::new();
    if let Some(system) = take_optional_string(&mut object, "system")?.filter(|system| !system.is_empty()) {
        messages.push(Message::new("system", system));
    }
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

fn read_messages(mut object: Map<String, Value>) -> Result<Conversation, String> {
    let (field, share_gpt) =
        if object.contains_key("messages") { ("messages", false) } else { ("conversations", true) };
    let value = object.remove(field).unwrap_or_default();
    let Value::Array(turns) = value else {
        return Err(format!("field `{field}` must be a list of messages, found {}", type_name(&value)));
    };
    if turns.is_empty() {
        return Err(format!("field `{field}` is an empty list: at least one message is needed"));
    }
    let mut messages = Vec::with_capacity(turns.len() + 1);
    if share_gpt && let Some(system) = take_optional_string(&mut object, "system")?.filter(|text| !text.is_empty()) {
        messages.push(Message::new("system", system));
    }
    for (index, turn) in turns.into_iter().enumerate() {
        messages.push(read_message(turn).map_err(|problem| format!("{field}[{index}]: {problem}"))?);
    }
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
        None | Some(Value::Array(_)) => {
            Ok(Conversation { messages, tools: tools.filter(|t| t != &Value::Array(vec![])) })
        }
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
    let role = take_string(&mut turn, role_field)?;
    let role = match role.as_str() {
        "human" if share_gpt => "user".into(),
        "gpt" | "chatgpt" | "model" | "bot" | "function_call" if share_gpt => "assistant".into(),
        "function_response" if share_gpt => "tool".into(),
        _ => role,
    };
    if !ROLES.contains(&role.as_str()) {
        return Err(format!("unknown `{role_field}` {role:?}: use one of {}", ROLES.join(", ")));
    }
    let calls_tools = role == "assistant"
        && turn.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(|c| !c.is_empty()));
    let content = match turn.remove(content_field) {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => join_parts(parts, content_field)?,
        // What OpenAI's format writes for a turn that only calls tools.
        None | Some(Value::Null) if calls_tools => String::new(),
        None => return Err(format!("field `{content_field}` is missing (found {})", fields(&turn))),
        Some(other) => return Err(format!("field `{content_field}` must be a string, found {}", type_name(&other))),
    };
    Ok(Message { role, content, extra: turn })
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

/// The field names of an object, for messages; the first few, since the object is untrusted.
fn fields(object: &Map<String, Value>) -> String {
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

    #[test]
    fn history_and_system_of_an_instruction_become_earlier_turns() {
        let (content, _) = one(r#"{"instruction":"c","output":"d","system":"s","history":[["a","b"]]}"#);
        let roles: Vec<_> = turns(content).into_iter().map(|(role, text)| format!("{role}:{text}")).collect();
        assert_eq!(roles, ["system:s", "user:a", "assistant:b", "user:c", "assistant:d"]);
    }

    #[test]
    fn skipping_counts_the_bad_lines_and_keeps_the_first_few_reasons() {
        let mut text = String::from("{\"text\":1}\n{\"text\":\"ok\"}\n\n");
        for _ in 0..20 {
            text.push_str("{half\n");
        }
        let (records, report) = parse("d.jsonl", text.as_bytes(), RecordFormat::Auto, OnError::Skip).unwrap();
        assert_eq!(records, [Record { line: 2, content: Content::Text("ok".into()) }]);
        assert_eq!((report.kind, report.records, report.skipped, report.problems.len()), (Kind::Text, 1, 22, 5));
        assert!(report.problems[0].starts_with("d.jsonl, line 1: field `text` must be a string, found a number"));
    }

    #[test]
    fn the_name_decides_between_plain_text_and_records() {
        let (records, report) = parse("book.txt", b"{not json", RecordFormat::Auto, OnError::Stop).unwrap();
        assert_eq!((records.len(), report.kind), (1, Kind::Text));
        assert!(stop("book.jsonl", "not json", RecordFormat::Auto).contains("line 1: not a JSON object"));
        assert!(stop("a.json", "[{\"text\":\"a\"}]", RecordFormat::Auto).contains("JSON array"));
        assert!(stop("a.txt", " \n", RecordFormat::Auto).contains("empty"));
        assert!(stop("a.txt", "plain", RecordFormat::Messages).contains("line 1"));
        let bad = parse("a.txt", b"ok\nbad \xff", RecordFormat::Auto, OnError::Stop).unwrap_err().to_string();
        assert_eq!(bad, "a.txt, line 2: byte 7 of the file is not UTF-8 text");
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
