//! Chat templates: a conversation becomes one text, and the assistant's parts of it are found again.
//!
//! Templates are Jinja programs that come with a model, written for Python. They run in minijinja with what Hugging Face
//! offers them (`trim_blocks`, `lstrip_blocks`, Python's string methods, `raise_exception`, `tojson` as `json.dumps` writes
//! it, `{% generation %}`), and with limits on instructions, recursion and output, since they are untrusted. One thing is
//! left out on purpose: `strftime_now` is undefined, because a run could not be repeated on another day; templates that ask
//! for it have a date of their own to fall back to.
//!
//! **Trained spans.** A template does not say where an assistant's turn begins and ends. Two renderings tell: of the
//! messages before the turn with the generation prompt, and of the messages up to and with the turn. Where both are
//! prefixes of the whole text, the turn is what lies between. Templates that write earlier turns differently from the
//! last one (Qwen3 drops earlier thinking) break that; then the turn's content is replaced by a marker and rendered
//! again, and what did not change around the marker is not the turn.
//!
//! Those renderings are as long as what stands before the turn, so all turns of a long conversation take quadratic time. Two
//! things keep that away: turns that begin behind a given place are not looked for ([`Turns::within`]), and where a template
//! certainly writes message by message (`template/local.rs`) the renderings are read off the whole text.

mod local;
mod python_json;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde_json::{Map, Value};

use crate::data::{Conversation, Message};
use crate::error::{Error, Result};

/// Instructions of one rendering. Real templates need about a hundred a message.
const FUEL: u64 = 20_000_000;
/// Depth of macros and nested blocks.
const RECURSION: usize = 120;
/// Bytes of one rendering.
const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// Bytes of a template's source.
const MAX_SOURCE_BYTES: usize = 1 << 20;
const NAME: &str = "chat_template";
/// The same template, telling where messages begin; there only where it is known to.
const MARKED: &str = "marked_chat_template";

/// What a rendering is given beside the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// End with the words that open an assistant's turn.
    pub add_generation_prompt: bool,
    /// Tool descriptions.
    pub tools: Option<Value>,
    /// Further variables, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// Byte ranges of the assistant's turns: content and what ends the turn. In order, apart from each other.
    pub trained: Vec<Range<usize>>,
}

/// A compiled chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
    /// There is a template [`MARKED`].
    marks_messages: bool,
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are the spellings of the special tokens.
    ///
    /// # Errors
    /// [`Error::Template`] with line and cause if the source does not parse or is too long.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            let problem = format!("the source has {} bytes, and {MAX_SOURCE_BYTES} are allowed", source.len());
            return Err(Error::Template { problem });
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_formatter(|out, state, value| match value.kind() {
            // As Python prints them.
            ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
            ValueKind::None => Ok(out.write_str("None")?),
            _ => minijinja::escape_formatter(out, state, value),
        });
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Jinja, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let source = without_generation_tags(source);
        let marked = local::marked(&source);
        environment.add_template_owned(NAME, source).map_err(problem)?;
        let marks_messages = marked.is_some();
        if let Some(marked) = marked {
            environment.add_template_owned(MARKED, marked).map_err(problem)?;
        }
        Ok(Self { environment, bos: bos.map(str::to_owned), eos: eos.map(str::to_owned), marks_messages })
    }

    /// Renders messages without tools or further variables.
    ///
    /// # Errors
    /// [`Error::Template`] if the template raises an exception, fails, or exceeds a limit.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &RenderOptions { add_generation_prompt, ..RenderOptions::default() })
    }

    /// Renders messages with everything that a template may ask for.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        Ok(self.write(NAME, Jinja::from_serialize(messages), options)?.0)
    }

    /// The text that the template of this name writes, and where it marked it.
    fn write(&self, name: &str, messages: Jinja, options: &RenderOptions) -> Result<(String, Vec<usize>)> {
        let mut context: Vec<(String, Jinja)> = Vec::with_capacity(options.variables.len() + 6);
        context.extend(options.variables.iter().map(|(name, value)| (name.clone(), Jinja::from_serialize(value))));
        context.push(("messages".into(), messages));
        context.push(("add_generation_prompt".into(), options.add_generation_prompt.into()));
        context.push(("tools".into(), options.tools.as_ref().map_or(().into(), Jinja::from_serialize)));
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            if let Some(token) = token {
                context.push((name.into(), token.as_str().into()));
            }
        }
        let mut output = Bounded::default();
        let marks: Arc<Mutex<Vec<usize>>> = Arc::default();
        if name == MARKED {
            let (length, marks) = (output.length.clone(), marks.clone());
            let mark = move || marks.lock().map(|mut marks| marks.push(length.load(Ordering::Relaxed))).is_ok();
            context.push((local::MARK.into(), Jinja::from_function(mark)));
        }
        let template = self.environment.get_template(name).map_err(problem)?;
        template.render_captured_to(Jinja::from_iter(context), &mut output).map_err(problem)?;
        let text = String::from_utf8(output.bytes).map_err(|error| Error::Template { problem: error.to_string() })?;
        let marks = marks.lock().map(|mut marks| std::mem::take(&mut *marks)).unwrap_or_default();
        Ok((text, marks))
    }

    /// Renders a conversation and finds the assistant's turns in it; with `last_turn_only`, the last of them.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and [`Error::Template`] if a turn cannot be told from the text around it.
    pub fn render_trained(&self, conversation: &Conversation, last_turn_only: bool) -> Result<Rendered> {
        let turns = self.turns(conversation)?;
        let trained = turns.within(usize::MAX, last_turn_only)?;
        Ok(Rendered { text: turns.text, trained })
    }

    /// Renders a conversation, in which turns can then be looked for.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn turns<'a>(&'a self, conversation: &'a Conversation) -> Result<Turns<'a>> {
        let options = RenderOptions { tools: conversation.tools.clone(), ..RenderOptions::default() };
        let values: Vec<Jinja> = conversation.messages.iter().map(Jinja::from_serialize).collect();
        let mut turns = Turns { template: self, conversation, values, options, text: String::new(), marks: None };
        let name = if self.marks_messages { MARKED } else { NAME };
        let (text, starts) = turns.write(name, &turns.values, false)?;
        turns.text = text;
        turns.marks = turns.marks(starts);
        Ok(turns)
    }
}

/// A rendered conversation whose turns are found when they are asked for.
pub struct Turns<'a> {
    template: &'a ChatTemplate,
    conversation: &'a Conversation,
    /// The messages, as the template sees them.
    values: Vec<Jinja>,
    options: RenderOptions,
    /// The whole text.
    pub text: String,
    marks: Option<Marks>,
}

/// What is known of a text that was written message by message. The rendering of the first `n` messages is then the text up
/// to `starts[n]` and the tail.
struct Marks {
    /// Where each message begins, and where the last one ends.
    starts: Vec<usize>,
    /// What follows the last message.
    tail: String,
    /// The same with the generation prompt.
    prompt: String,
}

impl Turns<'_> {
    /// Byte ranges of the assistant's turns, or with `last_turn_only` the last of them: content and what ends the turn. In
    /// order, apart from each other. None is looked for after one that begins behind `end`.
    ///
    /// # Errors
    /// [`Error::Template`] if a turn cannot be told from the text around it.
    pub fn within(&self, end: usize, last_turn_only: bool) -> Result<Vec<Range<usize>>> {
        let messages = &self.conversation.messages;
        let mut turns: Vec<usize> = (0..messages.len()).filter(|index| messages[*index].role == "assistant").collect();
        if last_turn_only {
            turns = turns.split_off(turns.len().saturating_sub(1));
        }
        let mut trained: Vec<Range<usize>> = Vec::new();
        for turn in turns {
            let span = match self.marked(turn) {
                Some(span) => span,
                None => self.find(turn)?,
            };
            if let Some(previous) = trained.last()
                && previous.end > span.start
            {
                return Err(unclear(turn, "it overlaps the turn before it"));
            }
            let is_last = span.start > end;
            trained.push(span);
            if is_last {
                break;
            }
        }
        Ok(trained)
    }

    fn write(&self, name: &str, messages: &[Jinja], add_generation_prompt: bool) -> Result<(String, Vec<usize>)> {
        let options = RenderOptions { add_generation_prompt, ..self.options.clone() };
        self.template.write(name, Jinja::from(messages.to_vec()), &options)
    }

    fn render(&self, messages: &[Jinja], add_generation_prompt: bool) -> Result<String> {
        self.write(NAME, messages, add_generation_prompt).map(|(text, _)| text)
    }

    /// The places at which a marked template marked the text, with what follows the last of them.
    fn marks(&self, starts: Vec<usize>) -> Option<Marks> {
        let &end = starts.last().filter(|_| starts.len() == self.values.len() + 1)?;
        let prompted = self.render(&self.values, true).ok()?;
        let prompt = prompted.strip_prefix(self.text.get(..end)?)?.to_owned();
        Some(Marks { tail: self.text[end..].to_owned(), prompt, starts })
    }

    /// The byte range of message `turn`, as [`Turns::find`] finds it by its first way, without a rendering.
    fn marked(&self, turn: usize) -> Option<Range<usize>> {
        // Before the first message a template may refuse, or write something else.
        let marks = self.marks.as_ref().filter(|_| turn > 0)?;
        let (start, end) = (marks.starts[turn], marks.starts[turn + 1]);
        let before = start + marks.prompt.len();
        let with = end + marks.tail.len();
        let both = self.text.get(start..)?.starts_with(&marks.prompt) && self.text.get(end..)?.starts_with(&marks.tail);
        (both && with > before).then_some(before..with)
    }

    /// The byte range of message `turn`.
    fn find(&self, turn: usize) -> Result<Range<usize>> {
        let (text, values) = (&self.text, &self.values);
        // A template may refuse a partial conversation; that only means that this way is closed.
        let before = self.render(&values[..turn], true).ok().filter(|before| text.starts_with(before.as_str()));
        if let Some(before) = &before {
            let with = self.render(&values[..=turn], false).ok();
            if let Some(with) = with.filter(|with| with.len() > before.len() && with.starts_with(before.as_str()))
                && text.starts_with(&with)
            {
                return Ok(before.len()..with.len());
            }
        }

        let marker = (0..).map(|n| format!("TemperMarker{n}x")).find(|marker| !text.contains(marker.as_str()));
        let Some(marker) = marker else { return Err(unclear(turn, "no marker is free")) };
        let mut marked = values.clone();
        let message = Message { content: marker.clone(), ..self.conversation.messages[turn].clone() };
        marked[turn] = Jinja::from_serialize(message);
        let around = self.render(&marked, false)?;
        let Some((head, tail)) = around.split_once(&marker) else {
            return Err(unclear(turn, "the template does not write its content as it is"));
        };
        if !text.ends_with(tail) || text.len() < tail.len() {
            return Err(unclear(turn, "the text after it depends on its content"));
        }
        let content_end = text.len() - tail.len();
        // What ends a turn is what follows the marker where the turn is the last; the text shares it up to the next turn.
        let alone = self.render(&marked[..=turn], false)?;
        let ending = alone.split_once(&marker).map_or("", |(_, ending)| ending);
        let shared = ending.char_indices().zip(tail.chars()).take_while(|((_, a), b)| a == b).last();
        let end = content_end + shared.map_or(0, |((at, letter), _)| at + letter.len_utf8());
        let start = match before {
            Some(before) => before.len(),
            None if text.starts_with(head) => head.len(),
            None => return Err(unclear(turn, "the text before it depends on its content")),
        };
        // An empty content can leave out a separator that follows the marker, so only the whole turn is compared.
        if end < start {
            return Err(unclear(turn, "the text around it depends on its content"));
        }
        Ok(start..end)
    }
}

fn unclear(turn: usize, why: &str) -> Error {
    Error::Template {
        problem: format!(
            "cannot find assistant turn (message {}) in the rendered text: {why}; train without the template or give the \
             data as prompt and completion",
            turn + 1
        ),
    }
}

/// An engine's error with its line, in one line of text.
fn problem(error: minijinja::Error) -> Error {
    let place = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let mut text = format!("{place}{}", error.kind());
    if let Some(detail) = error.detail() {
        text.push_str(&format!(": {detail}"));
    }
    if let Some(cause) = std::error::Error::source(&error) {
        text.push_str(&format!(": {cause}"));
    }
    Error::Template { problem: text }
}

/// Collects output up to [`MAX_OUTPUT_BYTES`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    /// How many there are, for whoever asks while a template writes.
    length: Arc<AtomicUsize>,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other(format!("the output exceeds {MAX_OUTPUT_BYTES} bytes")));
        }
        self.bytes.extend_from_slice(bytes);
        self.length.store(self.bytes.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `json.dumps(value, ensure_ascii, indent, separators, sort_keys)` with Hugging Face's defaults.
fn tojson(value: Jinja, options: Kwargs) -> Result<Jinja, minijinja::Error> {
    let bad = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    let indent = options.get::<Option<usize>>("indent")?.map(|indent| indent.min(16));
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(other) => return Err(bad(format!("tojson needs two separators, got {}", other.len()))),
    };
    let style = python_json::Style {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item,
        key,
    };
    options.assert_all_used()?;
    let value = serde_json::to_value(&value).map_err(|error| bad(format!("tojson: {error}")))?;
    Ok(python_json::write(&value, &style).into())
}

/// Hugging Face's `{% generation %}` marks trained text for its own masks. It has no effect on a rendering, so it becomes
/// an `if` that is always true, which keeps the white-space control of its tags.
fn without_generation_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        output.push_str(before);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end + 2);
        let inside = &tag[2..tag.len() - 2];
        match inside.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim() {
            "generation" => output.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => output.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => output.push_str(tag),
        }
        rest = after;
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</>\\n' }}{% endfor %}\
                          {% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";
    /// Writes a note into the last turn only, as Qwen3 does with its thinking.
    const FORGETFUL: &str = "{% for m in messages %}{{ '<' + m.role + '>' }}{% if m.role == 'assistant' and loop.last %}\
                             {{ '(note)' }}{% endif %}{{ m.content | trim + '</>\\n' }}{% endfor %}\
                             {% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

    fn conversation(turns: &[(&str, &str)]) -> Conversation {
        let messages = turns.iter().map(|(role, content)| Message::new(*role, *content)).collect();
        Conversation { messages, tools: None }
    }

    fn spans(source: &str, turns: &[(&str, &str)], last: bool) -> Result<Vec<String>> {
        let template = ChatTemplate::new(source, None, Some("</s>"))?;
        let rendered = template.render_trained(&conversation(turns), last)?;
        Ok(rendered.trained.iter().map(|span| rendered.text[span.clone()].to_owned()).collect())
    }

    fn render(source: &str, variables: Value) -> Result<String> {
        let Value::Object(variables) = variables else { panic!("not an object") };
        let template = ChatTemplate::new(source, None, None)?;
        template.render_with(&[], &RenderOptions { variables, ..RenderOptions::default() })
    }

    #[test]
    fn every_assistant_turn_is_trained_with_what_ends_it() {
        let turns = [("user", "a"), ("assistant", "b"), ("user", "b"), ("assistant", "b\n")];
        assert_eq!(spans(CHATML, &turns, false).unwrap(), ["b</>\n", "b\n</>\n"]);
        assert_eq!(spans(CHATML, &turns, true).unwrap(), ["b\n</>\n"]);
        assert!(spans(CHATML, &turns[..1], false).unwrap().is_empty());
    }

    #[test]
    fn turns_are_found_where_a_template_writes_earlier_turns_differently() {
        let turns = [("user", "a"), ("assistant", " b "), ("user", "b"), ("assistant", "c")];
        assert_eq!(spans(FORGETFUL, &turns, false).unwrap(), ["b</>\n", "(note)c</>\n"]);
    }

    #[test]
    fn a_conversation_that_begins_with_the_assistant_is_found_too() {
        let picky = format!("{{% if messages|length == 0 %}}{{{{ raise_exception('empty') }}}}{{% endif %}}{CHATML}");
        let turns = [("assistant", "b"), ("user", "a"), ("assistant", "")];
        assert_eq!(spans(&picky, &turns, false).unwrap(), ["b</>\n", "</>\n"]);
    }

    /// A template of each kind: read off one rendering, and rendered turn by turn.
    const ALIKE: [&str; 6] = [
        CHATML,
        "{{ bos_token }}{%- for m in messages -%} [{{ m.role }}] {{ m.content }} {% endfor %}\n{{ eos_token }}",
        "{% for m in messages %}\n  {% if m.role == 'assistant' %}\n{{ m.content }}</s>\n  {% endif %}\n{% endfor +%}\n",
        "{% if messages[0].role != 'system' %}S\n{% endif %}{% for m in messages %}{{ loop.index0 }}{{ m.content | trim }}\
         {% endfor %}{% if add_generation_prompt %}{{ '7' }}{% else %}.{% endif %}",
        "{% for m in messages %}{{ '' if m.content else raise_exception('x') }}{{ m.content }}|{% endfor %}{{ eos_token }}",
        "{% set n = namespace(last='') %}{% for m in messages %}{{ n.last }}>{{ m.content }};{% set n.last = m.role %}{% endfor %}",
    ];

    #[test]
    fn turns_read_off_one_rendering_are_those_that_are_found_one_by_one() {
        let texts = ["a", "b\n", " 7 ", "</s>", "", "9", "> ;a", "é|"];
        let roles = ["user", "assistant", "system", "assistant"];
        for source in ALIKE {
            let quick = ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap();
            assert!(quick.marks_messages, "{source}");
            let slow = ChatTemplate { marks_messages: false, ..quick.clone() };
            for shift in 0..roles.len() {
                for count in 1..24 {
                    let message = |at: usize| Message::new(roles[(at + shift) % 4], texts[at * (shift + 3) % 8]);
                    let chat = Conversation { messages: (0..count).map(message).collect(), tools: None };
                    for last in [false, true] {
                        let found = |template: &ChatTemplate| {
                            template.render_trained(&chat, last).map_err(|error| error.to_string())
                        };
                        assert_eq!(found(&quick), found(&slow), "{source} of {chat:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_turn_is_looked_for_behind_the_one_that_begins_past_the_end() {
        let turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("assistant", "e")];
        for source in [CHATML, FORGETFUL] {
            let template = ChatTemplate::new(source, None, None).unwrap();
            let chat = conversation(&turns);
            let rendered = template.turns(&chat).unwrap();
            let all = rendered.within(usize::MAX, false).unwrap();
            assert_eq!(all.len(), 3);
            assert_eq!(rendered.within(all[1].start, false).unwrap(), all);
            assert_eq!(rendered.within(all[1].start - 1, false).unwrap(), all[..2]);
            assert_eq!(rendered.within(0, false).unwrap(), all[..1]);
        }
    }

    #[test]
    fn a_turn_that_cannot_be_found_is_an_error() {
        let hidden = "{{ messages | length }}{% for m in messages %}{{ m.content | length }};{% endfor %}";
        let error = spans(hidden, &[("user", "a"), ("assistant", "b"), ("user", "c")], false).unwrap_err().to_string();
        assert!(error.contains("cannot find assistant turn (message 2)"), "{error}");
    }

    #[test]
    fn generation_tags_change_nothing() {
        let tagged = CHATML
            .replace("{{ '<' + m", "{% generation %}{{ '<' + m")
            .replace("{% endfor %}", "{%- endgeneration -%}{% endfor %}");
        let turns = [("user", "a"), ("assistant", "b")];
        assert_eq!(spans(&tagged, &turns, false).unwrap(), spans(CHATML, &turns, false).unwrap());
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = serde_json::json!({"x": {"b": [1, 2.5, null, true, "é<'\n"], "a": {}, "e": []}});
        assert_eq!(
            render("{{ x | tojson }}", value.clone()).unwrap(),
            r#"{"b": [1, 2.5, null, true, "é<'\n"], "a": {}, "e": []}"#
        );
        assert_eq!(
            render("{{ x | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}", value.clone())
                .unwrap(),
            r#"{"a":{},"b":[1,2.5,null,true,"\u00e9<'\n"],"e":[]}"#
        );
        assert_eq!(
            render("{{ x | tojson(indent=2) }}", value).unwrap(),
            "{\n  \"b\": [\n    1,\n    2.5,\n    null,\n    true,\n    \"é<'\\n\"\n  ],\n  \"a\": {},\n  \"e\": []\n}"
        );
    }

    #[test]
    fn truth_and_nothing_print_as_in_python() {
        assert_eq!(render("{{ true }} {{ none }} {{ missing }}", serde_json::json!({})).unwrap(), "True None ");
    }

    #[test]
    fn hostile_templates_end_with_an_error() {
        let cases = [
            (
                "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
                "fuel",
            ),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
            ("{% for a in range(90000) %}{{ 'x' * 100000 }}{% endfor %}", "exceeds"),
            ("{{ 'x' * 1000000000000 }}", "too large"),
            ("{% if %}", "line 1"),
            ("{{ raise_exception('no system role') }}", "no system role"),
            ("{{ a.b.c }}", "undefined"),
            ("{% include 'other' %}", "other"),
        ];
        for (source, expected) in cases {
            let error = ChatTemplate::new(source, None, None)
                .and_then(|template| template.render(&[], false))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{source}: {error}");
        }
        let deep = format!("{}{}", "{% if a %}".repeat(50_000), "{% endif %}".repeat(50_000));
        assert!(ChatTemplate::new(&deep, None, None).is_err());
        assert!(ChatTemplate::new(&" ".repeat(MAX_SOURCE_BYTES + 1), None, None).is_err());
    }

    #[test]
    fn todays_date_is_undefined_so_that_a_run_can_be_repeated() {
        let source = "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'none' }}";
        assert_eq!(ChatTemplate::new(source, None, None).unwrap().render(&[], false).unwrap(), "none");
    }
}
