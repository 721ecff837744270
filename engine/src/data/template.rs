//! Chat templates: a conversation becomes one text, and the assistant's parts of it are found again.
//!
//! Templates are Jinja programs that come with a model, written for Python. They run in minijinja with what Hugging Face
//! offers them (`trim_blocks`, `lstrip_blocks`, Python's string methods, `raise_exception`, `tojson` as `json.dumps` writes
//! it, `{% generation %}`). One thing is left out on purpose: `strftime_now` knows no day but the one that a variable gives
//! (`template/today.rs`), because a run could not be repeated on another day. Without it the function is undefined: many
//! templates that ask for it have a date of their own to fall back to, and one that has none is refused with what to give.
//!
//! Templates are untrusted, and minijinja bounds little of what they can do. So the source is checked before it is compiled
//! (`source.rs`), what it is compiled to is guarded (`guard.rs`, `filters.rs`) under limits that are the same everywhere
//! (`limit.rs`), and natively it runs apart from the program (`contain.rs`).
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
//!
//! **What a template leaves out.** Many know no role `observation`, some no `tool_calls`, and write nothing where they
//! meet one. So a conversation is first put into the roles and fields that the source names ([`ChatTemplate::turns`]),
//! and one of which a message, the tools, or the reasoning still leave no trace is refused.

#[cfg(not(target_family = "wasm"))]
mod contain;
/// A page's worker is ended from outside.
#[cfg(target_family = "wasm")]
mod contain {
    #[derive(Debug, Default)]
    pub(super) struct Apart {}

    impl Apart {
        pub(super) fn run<T>(&self, job: impl FnOnce() -> crate::Result<T>) -> crate::Result<T> {
            job()
        }
    }
}
mod filters;
mod guard;
mod limit;
mod local;
mod python_json;
mod slice;
mod source;
mod today;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use minijinja::machinery::{Vm, make_string_output};
use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, State};
use serde_json::{Map, Value};

use self::guard::Program;
use self::limit::{ADVICE, Limit, OTHER};
use self::today::Day;
use crate::data::record::REASONING;
use crate::data::{Conversation, Message, TemplateVariables, Tokenizer};
use crate::error::{Error, Result};

const NAME: &str = "chat_template";

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

/// A chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    environment: Environment<'static>,
    /// As [`source::prepare`] left it.
    source: String,
    /// The same template, telling where messages begin; there only where it is known to.
    marked: Option<String>,
    bos: Option<String>,
    eos: Option<String>,
    /// What every rendering is given.
    variables: Map<String, Value>,
    /// The day that `strftime_now` writes.
    today: Option<Day>,
    apart: contain::Apart,
}

impl ChatTemplate {
    /// Checks and compiles `source`. `bos` and `eos` are the spellings of the special tokens.
    ///
    /// # Errors
    /// [`Error::Template`] with line and cause if the source does not parse or exceeds a limit.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        Self::compiled(source, bos, eos, Map::new())
    }

    /// The template that came with a tokenizer, which is given `variables` in every rendering; none where none came.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`]; [`Error::Template`] where the variable `strftime_now` is no day.
    pub fn of(tokenizer: &Tokenizer, variables: Option<&TemplateVariables>) -> Result<Option<Self>> {
        let Some(source) = tokenizer.chat_template() else { return Ok(None) };
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
        let variables = variables.map(|variables| variables.values().clone()).unwrap_or_default();
        Self::compiled(source, bos.as_deref(), eos.as_deref(), variables).map(Some)
    }

    fn compiled(source: &str, bos: Option<&str>, eos: Option<&str>, mut variables: Map<String, Value>) -> Result<Self> {
        let source = source::prepare(source)?;
        let today = variables.shift_remove(today::NAME).map(day).transpose()?;
        let inner = Inner {
            environment: environment(),
            marked: local::marked(&source),
            source,
            bos: bos.map(str::to_owned),
            eos: eos.map(str::to_owned),
            variables,
            today,
            apart: contain::Apart::default(),
        };
        let template = Self { inner: Arc::new(inner) };
        template.apart(|_| Ok(()))?;
        Ok(template)
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
        let (messages, options) = (Jinja::from_serialize(messages), options.clone());
        self.apart(move |compiled| compiled.render(messages, &options))
    }

    /// Renders a conversation and finds the assistant's turns in it; with `last_turn_only`, the last of them.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and [`Error::Template`] if a turn cannot be told from the text around it.
    pub fn render_trained(&self, conversation: &Conversation, last_turn_only: bool) -> Result<Rendered> {
        let turns = self.turns(conversation)?;
        let trained = turns.within(usize::MAX, last_turn_only)?;
        Ok(Rendered { text: turns.text().to_owned(), trained })
    }

    /// Renders a conversation, in which turns can then be looked for. A message of the role `observation` or `function` becomes
    /// one of `tool` where the template has no such role, and a ShareGPT `function_call` becomes `tool_calls` where it has
    /// those. Arguments of `tool_calls` that are a string of JSON, as OpenAI writes them, become the object that they
    /// are, unless the template can only write a string.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and [`Error::Template`] where the template leaves out what a message says.
    pub fn turns(&self, conversation: &Conversation) -> Result<Turns> {
        let conversation = self.fitted(conversation)?;
        let whole = self.apart(move |compiled| Whole::rendered(compiled, conversation))?;
        Ok(Turns { template: self.clone(), whole: Arc::new(whole) })
    }

    /// The conversation in the roles and fields that the template knows.
    fn fitted(&self, conversation: &Conversation) -> Result<Conversation> {
        let source = &self.inner.source;
        // As a role that is compared; the token `<|observation|>` is written for the role `tool` too.
        let observes = source.contains("'observation'") || source.contains("\"observation\"");
        let knows_calls = source.contains("tool_calls");
        let parses = !needs_string_arguments(source);
        let mut conversation = conversation.clone();
        // That word alone is in every template that writes tools.
        let has_functions = compares_role_with(source, "function");
        for (index, message) in conversation.messages.iter_mut().enumerate() {
            let role = message.role.as_str();
            if (role == "observation" && !observes) || (role == "function" && !has_functions) {
                message.role = "tool".into();
            }
            if let Some(calls) = message.calls.take().filter(|_| knows_calls) {
                message.content.clear();
                message.extra.insert("tool_calls".into(), calls);
            }
            if message.calls_tools() && !knows_calls {
                return Err(left_out(index, "tool_calls", OTHER));
            }
            if parses && let Some(calls) = message.extra.get_mut("tool_calls").and_then(Value::as_array_mut) {
                calls.iter_mut().for_each(parse_arguments);
            }
        }
        Ok(conversation)
    }

    /// Compiles the template and hands it over, natively on a thread of its own: what is compiled borrows its source. It
    /// costs a tenth of a millisecond, and most conversations need it once.
    fn apart<T: Send + 'static>(&self, use_it: impl FnOnce(&Compiled) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        self.inner.apart.run(move || {
            let program = guard::compile(NAME, &inner.source).map_err(problem)?;
            use_it(&Compiled { inner: &inner, program })
        })
    }
}

/// A template that is compiled.
struct Compiled<'a> {
    inner: &'a Inner,
    program: Program<'a>,
}

impl Compiled<'_> {
    fn render(&self, messages: Jinja, options: &RenderOptions) -> Result<String> {
        self.write(&self.program, messages, options, Vec::new())
    }

    /// The text that a program writes, given some variables more.
    fn write(
        &self,
        program: &Program,
        messages: Jinja,
        options: &RenderOptions,
        more: Vec<(String, Jinja)>,
    ) -> Result<String> {
        // What comes later counts: no variable of a user's takes the place of what the engine gives.
        let variables = self.inner.variables.iter().chain(&options.variables);
        let mut context: Vec<(String, Jinja)> =
            variables.map(|(name, value)| (name.clone(), Jinja::from_serialize(value))).collect();
        context.extend(more);
        if let Some(today) = self.inner.today {
            context.push((today::NAME.into(), Jinja::from_function(move |format: String| today.write(&format))));
        }
        context.push(("messages".into(), messages));
        context.push(("add_generation_prompt".into(), options.add_generation_prompt.into()));
        context.push(("tools".into(), options.tools.as_ref().map_or(().into(), Jinja::from_serialize)));
        for (name, token) in [("bos_token", &self.inner.bos), ("eos_token", &self.inner.eos)] {
            if let Some(token) = token {
                context.push((name.into(), token.as_str().into()));
            }
        }
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let Program { main, blocks } = program;
        let machine = Vm::new(&self.inner.environment);
        let done = machine.eval(main, Jinja::from_iter(context), blocks, &mut output, AutoEscape::None);
        done.map(|_| ()).map_err(problem)?;
        match text.len() {
            long if long > limit::VALUE as usize => Err(limit::exceeded(Limit::Value, long, limit::VALUE as usize)),
            _ => Ok(text),
        }
    }
}

/// A rendered conversation whose turns are found when they are asked for.
pub struct Turns {
    template: ChatTemplate,
    whole: Arc<Whole>,
}

impl Turns {
    /// The whole text.
    pub fn text(&self) -> &str {
        &self.whole.text
    }

    /// Byte ranges of the turns that are trained, or with `last_turn_only` the last of them: content and what ends the
    /// turn. In order, apart from each other. None is looked for after one that begins behind `end`.
    ///
    /// # Errors
    /// [`Error::Template`] if a turn cannot be told from the text around it.
    pub fn within(&self, end: usize, last_turn_only: bool) -> Result<Vec<Range<usize>>> {
        let turns = self.trained(last_turn_only);
        if turns.iter().all(|&turn| self.whole.marked(turn).is_some()) {
            return self.whole.within(None, &turns, end);
        }
        let whole = Arc::clone(&self.whole);
        self.template.apart(move |compiled| whole.within(Some(compiled), &turns, end))
    }

    /// How many of the turns that [`Turns::within`] found at these places were thought about in words that the template leaves out,
    /// as many do with all but the last one.
    pub fn without_thinking(&self, spans: &[Range<usize>], last_turn_only: bool) -> usize {
        let (messages, text) = (&self.whole.conversation.messages, self.text());
        let mut from = 0;
        let is_without = |(turn, span): &(usize, &Range<usize>)| {
            // What was thought may stand before what is said.
            let around = &text[std::mem::replace(&mut from, span.end)..span.end];
            messages[*turn].thinking().is_some_and(|thinking| !around.contains(thinking))
        };
        self.trained(last_turn_only).into_iter().zip(spans).filter(is_without).count()
    }

    /// Which messages are trained.
    fn trained(&self, last_turn_only: bool) -> Vec<usize> {
        let messages = &self.whole.conversation.messages;
        let mut turns: Vec<usize> = (0..messages.len()).filter(|index| messages[*index].trained).collect();
        if last_turn_only {
            turns = turns.split_off(turns.len().saturating_sub(1));
        }
        turns
    }
}

/// A rendered conversation.
struct Whole {
    conversation: Conversation,
    /// The messages, as the template sees them.
    values: Vec<Jinja>,
    text: String,
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

impl Whole {
    fn rendered(compiled: &Compiled, conversation: Conversation) -> Result<Self> {
        let values = conversation.messages.iter().map(Jinja::from_serialize).collect();
        let mut whole = Self { conversation, values, text: String::new(), marks: None };
        match &compiled.inner.marked {
            Some(source) => whole.write_marked(compiled, source)?,
            None => whole.text = whole.render(compiled, &whole.values, false)?,
        }
        whole.refuse_left_out(compiled)?;
        whole.refuse_tools_left_out(compiled)?;
        whole.refuse_reasoning_left_out(compiled)?;
        Ok(whole)
    }

    /// Writes the text with a program that tells where messages begin.
    fn write_marked(&mut self, compiled: &Compiled, source: &str) -> Result<()> {
        let program = guard::compile(NAME, source).map_err(problem)?;
        let starts: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mark = {
            let starts = Arc::clone(&starts);
            move |state: &State| starts.lock().map(|mut starts| starts.push(limit::written(state))).is_ok()
        };
        let context = vec![(local::MARK.to_owned(), Jinja::from_function(mark))];
        self.text = compiled.write(&program, Jinja::from(self.values.clone()), &self.options(false), context)?;
        let starts = starts.lock().map(|mut starts| std::mem::take(&mut *starts)).unwrap_or_default();
        self.marks = self.marks(compiled, starts);
        Ok(())
    }

    /// Refuses a conversation with a message that the template does not write: nobody would know what is missing. One
    /// message of a role is looked at, and none of the roles that every template writes.
    fn refuse_left_out(&self, compiled: &Compiled) -> Result<()> {
        let mut seen = vec!["system", "user", "assistant"];
        for (index, message) in self.conversation.messages.iter().enumerate() {
            if message.content.trim().is_empty() || seen.contains(&message.role.as_str()) {
                continue;
            }
            seen.push(&message.role);
            let Some((_, marked)) = self.with_marker(index) else { continue };
            // A template that fails on another content has looked at it.
            if self.render(compiled, &marked, false).is_ok_and(|text| text == self.text) {
                return Err(left_out(index, &format!("content of the role {:?}", message.role), ADVICE));
            }
        }
        Ok(())
    }

    /// Refuses tools without which the text would be the same.
    fn refuse_tools_left_out(&self, compiled: &Compiled) -> Result<()> {
        if self.conversation.tools.is_none() {
            return Ok(());
        }
        let without = RenderOptions { tools: None, ..self.options(false) };
        // A template that fails without them has looked at them.
        match compiled.render(Jinja::from(self.values.clone()), &without) {
            Ok(text) if text == self.text => Err(no_trace("field `tools`")),
            _ => Ok(()),
        }
    }

    /// Refuses reasoning without which the text would be the same. The last turn that has any is looked at, as it is
    /// where it ends the conversation: many templates leave out that of earlier turns, and mean to.
    fn refuse_reasoning_left_out(&self, compiled: &Compiled) -> Result<()> {
        let messages = &self.conversation.messages;
        let Some((turn, field)) = messages.iter().enumerate().rev().find_map(|(turn, message)| {
            let (field, _) = message.reasoning().filter(|_| message.role == "assistant")?;
            Some((turn, field))
        }) else {
            return Ok(());
        };
        let mut silent = messages[turn].clone();
        // All at once: some records say the same in two of them, and one is enough.
        silent.extra.retain(|name, _| !REASONING.contains(&name.as_str()));
        let mut values = self.values[..=turn].to_vec();
        let with = self.render(compiled, &values, false);
        values[turn] = Jinja::from_serialize(silent);
        // A template may refuse a partial conversation; then nothing is known.
        match (with, self.render(compiled, &values, false)) {
            (Ok(with), Ok(without)) if with == without => {
                Err(no_trace(&format!("field `{field}` (message {})", turn + 1)))
            }
            _ => Ok(()),
        }
    }

    /// The messages with a marker as the content of one of them; the text does not have it.
    fn with_marker(&self, index: usize) -> Option<(String, Vec<Jinja>)> {
        let marker = (0..).map(|n| format!("TemperMarker{n}x")).find(|marker| !self.text.contains(marker.as_str()))?;
        let mut values = self.values.clone();
        let message = Message { content: marker.clone(), ..self.conversation.messages[index].clone() };
        values[index] = Jinja::from_serialize(message);
        Some((marker, values))
    }

    fn options(&self, add_generation_prompt: bool) -> RenderOptions {
        RenderOptions { add_generation_prompt, tools: self.conversation.tools.clone(), variables: Map::new() }
    }

    fn render(&self, compiled: &Compiled, messages: &[Jinja], add_generation_prompt: bool) -> Result<String> {
        compiled.render(Jinja::from(messages.to_vec()), &self.options(add_generation_prompt))
    }

    /// The places at which a marked template marked the text, with what follows the last of them.
    fn marks(&self, compiled: &Compiled, starts: Vec<usize>) -> Option<Marks> {
        let &end = starts.last().filter(|_| starts.len() == self.values.len() + 1)?;
        let prompted = self.render(compiled, &self.values, true).ok()?;
        let prompt = prompted.strip_prefix(self.text.get(..end)?)?.to_owned();
        Some(Marks { tail: self.text[end..].to_owned(), prompt, starts })
    }

    /// The byte ranges of these messages, up to the first that begins behind `end`.
    fn within(&self, compiled: Option<&Compiled>, turns: &[usize], end: usize) -> Result<Vec<Range<usize>>> {
        let mut trained: Vec<Range<usize>> = Vec::new();
        for &turn in turns {
            let span = match (self.marked(turn), compiled) {
                (Some(span), _) => span,
                (None, Some(compiled)) => self.find(compiled, turn)?,
                (None, None) => return Err(unclear(turn, "it is not marked")),
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

    /// The byte range of message `turn`, as [`Whole::find`] finds it by its first way, without a rendering.
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
    fn find(&self, compiled: &Compiled, turn: usize) -> Result<Range<usize>> {
        let (text, values) = (&self.text, &self.values);
        // A template may refuse a partial conversation; that only means that this way is closed.
        let before =
            self.render(compiled, &values[..turn], true).ok().filter(|before| text.starts_with(before.as_str()));
        if let Some(before) = &before {
            let with = self.render(compiled, &values[..=turn], false).ok();
            if let Some(with) = with.filter(|with| with.len() > before.len() && with.starts_with(before.as_str()))
                && text.starts_with(&with)
            {
                return Ok(before.len()..with.len());
            }
        }

        let Some((marker, marked)) = self.with_marker(turn) else { return Err(unclear(turn, "no marker is free")) };
        let around = self.render(compiled, &marked, false)?;
        let Some((head, tail)) = around.split_once(&marker) else {
            return Err(unclear(turn, "the template does not write its content as it is"));
        };
        if !text.ends_with(tail) || text.len() < tail.len() {
            return Err(unclear(turn, "the text after it depends on its content"));
        }
        let content_end = text.len() - tail.len();
        // What ends a turn is what follows the marker where the turn is the last; the text shares it up to the next turn.
        let alone = self.render(compiled, &marked[..=turn], false)?;
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

/// What every template finds.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(limit::INSTRUCTIONS));
    environment.set_recursion_limit(limit::RECURSION);
    environment.set_formatter(|out, state, value| {
        // As Python prints them.
        let printed = match value.kind() {
            ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
            ValueKind::None => "None".to_owned(),
            ValueKind::Undefined => return Ok(()),
            _ => match value.as_str() {
                Some(text) => {
                    limit::write(state, text.len())?;
                    return Ok(out.write_str(text)?);
                }
                None => limit::text(value)?,
            },
        };
        limit::write(state, printed.len())?;
        Ok(out.write_str(&printed)?)
    });
    environment.add_global(source::ONE, 1);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Jinja, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    guard::install(&mut environment);
    filters::install(&mut environment);
    environment
}

fn unclear(turn: usize, why: &str) -> Error {
    Error::Template {
        problem: format!("cannot find assistant turn (message {}) in the rendered text: {why}; {ADVICE}", turn + 1),
    }
}

fn left_out(message: usize, what: &str, advice: &str) -> Error {
    let what = format!("it leaves out the {what} (message {}), so that it would be missing from the text", message + 1);
    Error::Template { problem: format!("{what}; use what the template writes, or {advice}") }
}

/// A field that makes no difference to the text.
fn no_trace(what: &str) -> Error {
    let problem = format!(
        "it leaves out the {what}, so that it would be missing from the text; take the field out of the record, or put a \
         template that writes it into chat_template.jinja beside the model"
    );
    Error::Template { problem }
}

/// The day that the variable `strftime_now` gives.
fn day(given: Value) -> Result<Day> {
    given.as_str().and_then(Day::read).ok_or_else(|| {
        let (name, example) = (today::NAME, today::EXAMPLE);
        let problem = format!("the variable {name} is {given}, and a day such as \"{example}\" is wanted");
        Error::Template { problem }
    })
}

/// Whether a template asks whether the role of a message is this one.
fn compares_role_with(source: &str, role: &str) -> bool {
    let is_of_role = |before: &str| {
        let compared = before.trim_end().strip_suffix("==").map(str::trim_end);
        compared.is_some_and(|compared| compared.trim_end_matches(['\'', '"', ']']).ends_with("role"))
    };
    ['\'', '"'].into_iter().any(|mark| {
        let word = format!("{mark}{role}{mark}");
        source.match_indices(&word).any(|(at, _)| is_of_role(&source[..at]))
    })
}

/// Whether a template puts the arguments of a call between other texts as they are, so that they must be one: it never
/// asks what they are, and some use of them has no filter.
fn needs_string_arguments(source: &str) -> bool {
    let uses = || source.split("arguments").skip(1).map(|rest| rest.trim_start_matches(['\'', '"', ']']).trim_start());
    let begins = |starts: &[&str]| uses().any(|rest| starts.iter().any(|start| rest.starts_with(start)));
    begins(&["}}", "-}}", "+", "~"]) && !begins(&["is string", "is not string", "is mapping", "is not mapping"])
}

/// Reads the arguments of one of `tool_calls` that are an object in a string.
fn parse_arguments(call: &mut Value) {
    let function = if call.get("function").is_some() { call.get_mut("function") } else { Some(call) };
    let Some(arguments) = function.and_then(|function| function.get_mut("arguments")) else { return };
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    if let Some(parsed) = parsed {
        *arguments = Value::Object(parsed);
    }
}

/// An engine's error with its line, in one line of text.
fn problem(error: minijinja::Error) -> Error {
    let place = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    if error.kind() == ErrorKind::OutOfFuel {
        let allowed = limit::INSTRUCTIONS;
        return Error::Template {
            problem: format!("{place}it exceeds the limit of {allowed} {}; {ADVICE}", Limit::Instructions),
        };
    }
    let mut text = format!("{place}{}", error.kind());
    if let Some(detail) = error.detail() {
        text.push_str(&format!(": {detail}"));
    }
    if let Some(cause) = std::error::Error::source(&error) {
        text.push_str(&format!(": {cause}"));
    }
    if text.contains("exceeds the limit") {
        text.push_str(&format!("; {ADVICE}"));
    }
    if error.kind() == ErrorKind::UnknownFunction && text.contains(today::NAME) {
        let (name, example) = (today::NAME, today::EXAMPLE);
        text.push_str(&format!(
            "; it writes the day, which has to be given for a run to be repeatable: data.template_variables = {{ {name} = \
             \"{example}\" }} (of a command --template-var {name}={example})"
        ));
    }
    Error::Template { problem: text }
}

/// `json.dumps(value, ensure_ascii, indent, separators, sort_keys)` with Hugging Face's defaults.
fn tojson(state: &State, value: Jinja, options: Kwargs) -> Result<Jinja, minijinja::Error> {
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
    // Every letter as an escape, and for each part what stands around it.
    let weight = limit::weigh(&value)?;
    let around = (style.item.len() + style.key.len() + style.indent.unwrap_or(0) * 64) as u64;
    limit::make(state, weight.bytes.saturating_mul(6).saturating_add(weight.nodes.saturating_mul(around)))?;
    let value = serde_json::to_value(&value).map_err(|error| bad(format!("tojson: {error}")))?;
    Ok(python_json::write(&value, &style).into())
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

    /// The same template, which finds turns one by one.
    fn unmarked(template: &ChatTemplate) -> ChatTemplate {
        let Inner { environment, source, bos, eos, variables, today, .. } = template.inner.as_ref();
        let (environment, source, bos, eos) = (environment.clone(), source.clone(), bos.clone(), eos.clone());
        let (marked, variables, today, apart) = (None, variables.clone(), *today, contain::Apart::default());
        ChatTemplate { inner: Arc::new(Inner { environment, source, marked, bos, eos, variables, today, apart }) }
    }

    #[test]
    fn turns_read_off_one_rendering_are_those_that_are_found_one_by_one() {
        let texts = ["a", "b\n", " 7 ", "</s>", "", "9", "> ;a", "é|"];
        let roles = ["user", "assistant", "system", "assistant"];
        for source in ALIKE {
            let quick = ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap();
            assert!(quick.inner.marked.is_some(), "{source}");
            let slow = unmarked(&quick);
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

    /// A turn of the assistant that has some fields beside its content.
    fn saying(content: &str, fields: Value) -> Message {
        let Value::Object(extra) = fields else { panic!("not an object") };
        Message { extra, ..Message::new("assistant", content) }
    }

    fn text_of(source: &str, messages: &[Message], tools: Option<Value>) -> Result<String> {
        let template = ChatTemplate::new(source, None, None)?;
        let chat = Conversation { messages: messages.to_vec(), tools };
        Ok(template.turns(&chat)?.text().to_owned())
    }

    /// A template that writes the calls of a message with `arguments` as it is given.
    fn calling(arguments: &str) -> String {
        format!(
            "{{% for m in messages %}}{{{{ m.content }}}}{{% for call in m.tool_calls or [] %}}\
             {{% set call = call.function if call.function else call %}}{arguments}{{% endfor %}}{{% endfor %}}"
        )
    }

    #[test]
    fn arguments_in_a_string_of_json_are_written_as_the_object_that_they_are() {
        let object = serde_json::json!({"x": {"b": [1, null, true], "a": "é\""}});
        let given = object.to_string();
        let canonical = r#"{"x": {"b": [1, null, true], "a": "é\""}}"#;
        let written = |source: &str, arguments: &Value| {
            let inner = serde_json::json!({"name": "f", "arguments": arguments});
            let outer = serde_json::json!({"type": "function", "function": &inner});
            let said = [inner, outer].map(|call| {
                let fields = serde_json::json!({ "tool_calls": [call] });
                text_of(source, &[Message::new("user", ""), saying("", fields)], None)
            });
            let [inner, outer] = said.map(|said| said.map_err(|error| error.to_string()));
            assert_eq!(inner, outer, "{source}");
            inner
        };
        let told_apart =
            "{% if call.arguments is string %}{{ call.arguments }}{% else %}{{ call.arguments | tojson }}{% endif %}";
        for arguments in ["{{ call.arguments | tojson }}", "{{ call['arguments']|tojson }}", told_apart] {
            let source = calling(arguments);
            for given in [&object, &Value::String(given.clone())] {
                assert_eq!(written(&source, given).unwrap(), canonical, "{source}");
            }
        }
        // What is no object stays a string, as does whatever is put between other texts.
        for other in ["f(1)", "", "[1]", "3", "{half"] {
            let other = Value::String(other.into());
            assert_eq!(written(&calling("{{ call.arguments | tojson }}"), &other).unwrap(), other.to_string());
        }
        for bare in ["{{ '' + call['arguments'] + '' }}", "{{ call.arguments }}", "{{- call[\"arguments\"] -}}"] {
            assert_eq!(written(&calling(bare), &Value::String(given.clone())).unwrap(), given, "{bare}");
        }
    }

    #[test]
    fn tools_and_reasoning_of_which_nothing_would_be_written_are_refused() {
        let tools = || Some(serde_json::json!([{"type": "function", "function": {"name": "f"}}]));
        let asked = Message::new("user", "a");
        let plain = [asked.clone(), saying("b", serde_json::json!({}))];
        let error = text_of(CHATML, &plain, tools()).unwrap_err().to_string();
        assert!(error.contains("it leaves out the field `tools`, ") && error.contains("take the field out"), "{error}");
        let offering = format!("{{% if tools %}}{{{{ tools | tojson }}}}{{% endif %}}{CHATML}");
        assert!(text_of(&offering, &plain, tools()).unwrap().contains("\"f\""));

        // Writes the reasoning of the last turn, and leaves out that of earlier ones.
        let thinking = CHATML
            .replace("m.content", "(m.reasoning_content if m.reasoning_content and loop.last else '') + m.content");
        for field in REASONING {
            let fields = serde_json::json!({ field: "c" });
            let chat = [asked.clone(), saying("b", fields), asked.clone(), saying("b", serde_json::json!({}))];
            for count in [2, 3, 4] {
                let error = text_of(CHATML, &chat[..count], None).unwrap_err().to_string();
                assert!(error.contains(&format!("it leaves out the field `{field}` (message 2), ")), "{error}");
                let known = text_of(&thinking, &chat[..count], None);
                assert_eq!(known.is_ok(), field == "reasoning_content", "{known:?}");
            }
            let empty = saying("b", serde_json::json!({ field: " " }));
            assert!(text_of(CHATML, &[asked.clone(), empty], None).is_ok());
        }
        let twice = saying("b", serde_json::json!({"reasoning": "c", "reasoning_content": "c"}));
        assert!(text_of(&thinking, &[asked, twice], None).is_ok(), "one of the two is written");
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

    /// What a template makes of no messages, or why it is refused.
    fn outcome(source: &str) -> String {
        match ChatTemplate::new(source, None, None).and_then(|template| template.render(&[], false)) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    /// `step` applied to `n.x` again and again.
    fn again(first: &str, step: &str) -> String {
        format!(
            "{{% set n = namespace(x={first}) %}}{{% for i in range(90000) %}}{{% set n.x = {step} %}}{{% endfor %}}{{{{ n.x | length }}}}"
        )
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
            ("{{ 'x' * 1000000000000 }}", "bytes in one value"),
            ("{% if %}", "line 1"),
            ("{%}", "line 1"),
            ("{{ raise_exception('no system role') }}", "no system role"),
            ("{{ a.b.c }}", "undefined"),
            ("{{ 1 is divisibleby(0) }}", "divisibleby zero"),
            ("{% include 'other' %}", "other"),
        ];
        for (source, expected) in cases {
            let error = outcome(source);
            assert!(error.contains("chat template: ") && error.contains(expected), "{source}: {error}");
        }
        let deep = format!("{}{}", "{% if a %}".repeat(50_000), "{% endif %}".repeat(50_000));
        assert!(ChatTemplate::new(&deep, None, None).is_err());
        assert!(ChatTemplate::new(&" ".repeat(source::BYTES + 1), None, None).is_err());
    }

    #[test]
    fn a_template_that_the_compiler_would_recurse_into_is_refused_by_its_source() {
        let chain = |link: &str| format!("{{{{ {}1 }}}}", link.repeat(1000));
        let cases = [
            (chain("not "), "operators and brackets"),
            (chain("1 + "), "operators and brackets"),
            (chain("- "), "operators and brackets"),
            (chain("1 if 1 else "), "operators and brackets"),
            (chain("["), "operators and brackets"),
            (format!("{{{{ a{} }}}}", ".b".repeat(1000)), "operators and brackets"),
            (format!("{{{{ a{} }}}}", "|list".repeat(1000)), "operators and brackets"),
            (format!("{{{{ [{}] }}}}", "1, ".repeat(9000)), "words and signs"),
            (format!("{{{{ {}'{}' }}}}", "1 ~ ".repeat(200), "x".repeat(99_999)), "times its operators"),
            (format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(1000)), "elif"),
            ("{% if a %}".repeat(200) + &"{% endif %}".repeat(200), "recursion"),
        ];
        for (source, expected) in cases {
            let error = outcome(&source);
            assert!(error.contains("chat template: ") && error.contains(expected), "{}: {error}", &source[..40]);
        }
        assert_eq!(outcome(&format!("{{{{ {}1 }}}}", "1 + ".repeat(100))), "101");
        assert_eq!(outcome("{{ 2 * 3 ** 2 * 'ab' | length }} {{ 3 * 'ab' }}"), "36 ababab");
    }

    #[test]
    fn no_value_outgrows_the_limits() {
        let cases = [
            (again("'aa'", "n.x ~ n.x"), "bytes in one value"),
            (again("'aa'", "n.x + n.x"), "bytes in one value"),
            (again("'aa'", "n.x * 2"), "bytes in one value"),
            (again("'aa'", "n.x | replace('a', 'aa')"), "bytes in one value"),
            (again("'aa'", "n.x.replace('a', 'aa')"), "bytes in one value"),
            (again("'aa'", "'%s%s' | format(n.x, n.x)"), "bytes in one value"),
            (again("'aa'", "'{0}{0}'.format(n.x)"), "bytes in one value"),
            (again("'aa'", "n.x.join([n.x, n.x])"), "bytes in one value"),
            (again("'a\\nb'", "n.x | indent(4000)"), "bytes"),
            (again("[1]", "n.x + n.x"), "bytes in one value"),
            (again("[1]", "n.x * 2"), "bytes in one value"),
            (again("[1]", "[n.x, n.x]"), "bytes in one value"),
            (again("[1]", "[n.x]"), "inside each other"),
            (again("{}", "{'a': n.x}"), "inside each other"),
            (again("{}", "dict(a=n.x)"), "inside each other"),
            (again("[1]", "n.x | batch(1) | list"), "inside each other"),
            (
                format!(
                    "{{% set x %}}{{% for i in range(90000) %}}{{% for i in range(90000) %}}{}{{% endfor %}}{{% endfor %}}{{% endset %}}",
                    "0123456789".repeat(100)
                ),
                "bytes of values made",
            ),
            ("{{ 'a' * 60000000 ~ 'a' * 60000000 }}".into(), "bytes in one value"),
            ("{{ [0] * 1000000000 }}".into(), "bytes in one value"),
            ("{{ ([] * 9000000000000000000) | list }}".into(), "bytes in one value"),
            ("{{ [1] | batch(1000000000) }}".into(), "as a width"),
            ("{{ [1] | slice(1000000000) }}".into(), "as a width"),
            ("{{ 'a' | indent(1000000000, true) }}".into(), "as a width"),
            ("{{ '%1000000000d' | format(1) }}".into(), "four digits"),
            ("{{ '%.1000000000f' | format(1) }}".into(), "four digits"),
            ("{{ '%*d' | format(1000000000, 1) }}".into(), "four digits"),
            ("{{ '{:1000000000}'.format(1) }}".into(), "four digits"),
            ("{{ '{:{}}'.format(1, 1000000000) }}".into(), "four digits"),
            ("{{ ('a' * 100000).replace('', 'b' * 100000) }}".into(), "bytes in one value"),
            (
                "{{ (['a'] * 1000) | map('replace', 'a', 'b' * 1000000) | list | length }}".into(),
                "bytes of values made",
            ),
            ("{{ ('a' * 1000000).strip('b' * 1000000) }}".into(), "letters to strip"),
            ("{% set n = namespace() %}{% set n.a = n %}{{ n }}".into(), "a namespace cannot be put into"),
            ("{% set n = namespace() %}{% set n.a = [n] %}".into(), "a namespace cannot be put into"),
            ("{% set n = namespace() %}{% set m = namespace(n=n) %}".into(), "a namespace cannot be put into"),
            (again("[1] * 1000000", "n.x if n.x == n.x else n.x"), "bytes of values looked at"),
            (again("[1] * 1000000", "n.x if 2 in n.x else n.x"), "bytes of values looked at"),
            (again("'ab' * 1000000", "n.x if n.x.count('c') else n.x"), "bytes of values looked at"),
            ("{% for i in range(90000) %}{% macro f() %}{% endmacro %}{% endfor %}".into(), "bytes of values made"),
        ];
        for (source, expected) in cases {
            let error = outcome(&source);
            assert!(error.contains("chat template: ") && error.contains(expected), "{source}: {error}");
        }
        let error = outcome("{{ [0] * 1000000000 }}");
        assert!(error.contains("set data.template to \"none\""), "the way out is named: {error}");
    }

    #[test]
    fn what_minijinja_gets_wrong_is_pythons_here() {
        // Lists that are computed lazily would lie in each other.
        let lazy = again("[[1]]", "n.x | map('reverse')").replace("90000", "5000");
        for (source, expected) in [
            (lazy.as_str(), "1"),
            ("{{ 'a'.count('') }} {{ 'aXbXc'.count('X') }} {{ [1, 2, 1].count(1) }}", "2 2 2"),
            ("[{{ ''[::-1] }}] {{ [][::-1] }} {{ 'abc'[::-1] }} {{ [1, 2, 3][-2:] }}", "[] [] cba [2, 3]"),
            ("{{ 'aaa'.replace('a', 'b', 2) }} {{ 'aaa' | replace('a', 'bb') }}", "bba bbbbbb"),
            ("{{ ', '.join(['a', 1]) }} {{ ['a', 1] | join('-') }}", "a, 1 a-1"),
            ("{{ 'ab cd'.split(' ')[1] }} {{ {'a': 1}.items() | list }}", "cd [[\"a\", 1]]"),
            ("{% set n = namespace(a=1) %}{% set n.a = n.a + 1 %}{{ n.a }} {{ 1 < n.a < 3 }}", "2 True"),
            ("{% macro f(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call f(1) %}!{% endcall %}", "12!"),
            ("{% for i in [1, [2, 3]] recursive %}{{ loop(i) if i is sequence else i }},{% endfor %}", "1,2,3,,"),
            ("{% for a, b in {'x': 1}.items() if b %}{{ a }}{{ b }}{% else %}none{% endfor %}", "x1"),
            ("{{ 'x' if 'a' in 'abc' and 3 not in [1, 2] else 'y' }} {{ '%5.1f' | format(2) }}", "x   2.0"),
            ("{{ 4 is divisibleby(2) }} {{ 5 is divisibleby 2 }}", "True False"),
            ("{% filter upper %}a{% endfilter %}{% set x | trim %} b {% endset %}{{ x }}", "Ab"),
        ] {
            assert_eq!(outcome(source), expected, "{source}");
        }
    }

    #[test]
    fn todays_date_is_the_one_that_is_given_so_that_a_run_can_be_repeated_or_undefined() {
        let given = |source: &str, variables: Value| -> Result<String> {
            let Value::Object(variables) = variables else { panic!("not an object") };
            ChatTemplate::compiled(source, None, None, variables)?.render(&[], false)
        };
        let careful = "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'none' }}";
        let careless = "{% set today = strftime_now('%Y-%m-%d') %}Today is {{ today }}.";
        let day = || serde_json::json!({"strftime_now": "2026-01-31"});
        assert_eq!(given(careful, serde_json::json!({})).unwrap(), "none");
        assert_eq!(given(careful, day()).unwrap(), "31 Jan 2026");
        assert_eq!(given(careless, day()).unwrap(), "Today is 2026-01-31.");
        let error = given(careless, serde_json::json!({})).unwrap_err().to_string();
        assert!(error.contains("is unknown") && error.contains("--template-var strftime_now=2026-01-31"), "{error}");
        let error = given(careless, serde_json::json!({"strftime_now": "today"})).unwrap_err().to_string();
        assert!(error.contains("the variable strftime_now is \"today\""), "{error}");
        let error = given("{{ strftime_now('%H') }}", day()).unwrap_err().to_string();
        assert!(error.contains("a day has no %H"), "{error}");
    }

    #[test]
    fn a_function_is_a_tool_unless_the_template_has_such_a_role() {
        let answer = Message { role: "function".into(), ..saying("sun", serde_json::json!({"name": "f"})) };
        let chat = [Message::new("user", "a"), answer, saying("b", serde_json::json!({}))];
        let with_name = CHATML.replace("m.role", "m.role + (m.name or '')");
        assert!(text_of(&with_name, &chat, None).unwrap().contains("<toolf>sun</>"));
        for knowing in ["m.role == 'function'", "m['role'] == \"function\""] {
            let source = with_name.replacen("{{", &format!("{{% if {knowing} %}}{{% endif %}}{{{{"), 1);
            assert!(text_of(&source, &chat, None).unwrap().contains("<functionf>sun</>"), "{knowing}");
        }
        let other = with_name.replacen("{{", "{% if m.type == 'function' %}{% endif %}{{", 1);
        assert!(text_of(&other, &chat, None).unwrap().contains("<toolf>sun</>"));
    }

    #[test]
    fn turns_whose_thinking_a_template_leaves_out_are_counted() {
        let dropping = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% if loop.last %}\
                        {{ m.reasoning_content or '' }}{{ m.content }}{% else %}{{ m.content.split('</think>')[-1] }}\
                        {% endif %}{% else %}{{ m.content }}{% endif %}</>{% endfor %}\
                        {% if add_generation_prompt %}<assistant>{% endif %}";
        let template = ChatTemplate::new(dropping, None, None).unwrap();
        let asked = || Message::new("user", "a");
        let in_field = |n: usize| saying("b", serde_json::json!({"reasoning_content": format!(" thought {n}\n")}));
        let in_content = |n: usize| saying(&format!("<think>\nthought {n}\n</think>\n\nb"), serde_json::json!({}));
        let count = |messages: Vec<Message>, last: bool| {
            let turns = template.turns(&Conversation { messages, tools: None }).unwrap();
            let spans = turns.within(usize::MAX, last).unwrap();
            turns.without_thinking(&spans, last)
        };
        for with in [&in_field as &dyn Fn(usize) -> Message, &in_content] {
            let chat = || vec![asked(), with(1), asked(), with(2), asked(), with(3)];
            assert_eq!((count(chat(), false), count(chat(), true)), (2, 0));
            let mut read = chat();
            read[1].trained = false;
            assert_eq!(count(read, false), 1, "what is only read is not trained without its thinking");
        }
        let plain = || saying("b", serde_json::json!({"reasoning_content": " "}));
        assert_eq!(count(vec![asked(), plain(), asked(), in_content(1)], false), 0);
    }
}
