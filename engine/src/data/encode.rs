//! Records become documents: rendered, tokenised as one text, and each token marked as trained or not.
//!
//! | record | template | tokens | trained |
//! | --- | --- | --- | --- |
//! | chat | given | the rendered text, and the end-of-sequence token if the template closes the last turn with no special token | the assistant's turns |
//! | chat | none | each message and a newline; the end-of-sequence token instead of the newline after an assistant's (so prompt, newline, completion, end) | the assistant's messages with their end |
//! | text | - | the text and the end-of-sequence token, cut into windows of `cutoff_length` | all |
//!
//! The beginning-of-sequence token comes first where the tokenizer asks for it and no template writes it. Neither token
//! is added to a text that has it already, as one has that a template rendered before it came here. The whole text is
//! tokenised at once, so ids are those of inference; a token is trained if it starts inside a trained span, or if it is
//! the next speaker's and what ends the turn before it.

use std::ops::Range;

use serde::Serialize;

use crate::data::record::{all_skipped, numbered};
use crate::data::tokenizer::Tokens;
use crate::data::{ChatTemplate, Content, Conversation, Document, Message, OnError, Record, Tokenizer, tokens_of};
use crate::error::{Error, Result};

/// How many messages about skipped records a report keeps.
const KEPT_PROBLEMS: usize = 5;

/// How records are turned into documents.
#[derive(Clone, Copy, Debug)]
pub struct EncodeOptions {
    /// Longest document in tokens, at least 2. Longer conversations lose their end, longer texts are cut into windows.
    pub cutoff_length: usize,
    /// Train only the last assistant turn of a conversation instead of every one.
    pub last_turn_only: bool,
    /// What to do with a record that cannot be rendered, or has no trained token (left, after the cutoff).
    pub on_error: OnError,
}

/// What records say that is in no document, though they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unwritten {
    /// Trained turns whose thinking the chat template leaves out, as many do with all but the last one.
    pub thinking_by_template: usize,
    /// Turns whose thinking nothing writes, since there is no chat template.
    pub thinking: usize,
    /// Conversations whose tools nothing writes, since there is no chat template.
    pub tools: usize,
}

impl Unwritten {
    /// Of a conversation that is read without a template.
    fn without_template(chat: &Conversation) -> Self {
        let thinking = chat.messages.iter().filter(|message| message.reasoning().is_some()).count();
        Self { thinking, tools: usize::from(chat.tools.is_some()), ..Self::default() }
    }

    /// Counts what another one counts, too.
    pub fn add(&mut self, other: Self) {
        self.thinking_by_template += other.thinking_by_template;
        self.thinking += other.thinking;
        self.tools += other.tools;
    }
}

/// Counts of what became of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EncodeReport {
    /// Documents made.
    pub documents: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Their scored positions.
    pub trained_tokens: usize,
    /// Tokens of the longest document.
    pub longest: usize,
    /// Conversations that lost their end to the cutoff.
    pub truncated: usize,
    /// Conversations that were read as bare lines, without roles, since the model has no chat template.
    pub bare: usize,
    /// Pairs of a question and its answer that were written one after the other, since the model has no chat template.
    pub pairs: usize,
    /// What records say that is in none of the documents.
    pub unwritten: Unwritten,
    /// Conversations with a trained turn that says nothing, of which only its end is trained.
    pub empty_answers: usize,
    /// Records left out under [`OnError::Skip`].
    pub skipped: usize,
    /// The first few reasons for leaving out, with their lines.
    pub problems: Vec<String>,
}

/// Documents and how they came about.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// In file order.
    pub documents: Vec<Document>,
    /// Counts.
    pub report: EncodeReport,
}

/// Turns the records of a file into documents. `file` is its name, for messages.
///
/// # Errors
/// [`Error::Record`] for the first record that cannot be used, unless they are skipped; [`Error::Data`] if none is left;
/// [`Error::Config`] if `cutoff_length` is below 2.
pub fn encode(
    file: &str,
    records: &[Record],
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: EncodeOptions,
) -> Result<Encoded> {
    if options.cutoff_length < 2 {
        let problem = format!("data.cutoff_length is {}: a document needs at least 2 tokens", options.cutoff_length);
        return Err(Error::Config { problems: vec![problem] });
    }
    let mut documents = Vec::with_capacity(records.len());
    let mut report = EncodeReport::default();
    for record in records {
        match encode_record(record, tokenizer, template, options, &mut report) {
            Ok(made) => documents.extend(made),
            Err(error) => {
                // The message keeps its cause and gains the place.
                let problem = numbered(record.number, error);
                let error = Error::Record { file: file.into(), line: record.line, problem };
                if options.on_error == OnError::Stop {
                    return Err(error);
                }
                report.skipped += 1;
                if report.problems.len() < KEPT_PROBLEMS {
                    report.problems.push(error.to_string());
                }
            }
        }
    }
    let Some(longest) = documents.iter().map(|document: &Document| document.tokens.len()).max() else {
        let problem = format!("no record is left: {}", all_skipped("record", report.skipped, &report.problems));
        return Err(Error::Data { file: file.into(), problem });
    };
    report.documents = documents.len();
    report.tokens = tokens_of(&documents);
    report.trained_tokens = documents.iter().map(Document::trained_tokens).sum();
    report.longest = longest;
    Ok(Encoded { documents, report })
}

/// Why a record gives no document: an engine's error, or plain words.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Engine(#[from] Error),
    #[error("{0}")]
    Words(String),
}

fn encode_record(
    record: &Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: EncodeOptions,
    report: &mut EncodeReport,
) -> Result<Vec<Document>, Refusal> {
    let cutoff = options.cutoff_length;
    let mut stream = Stream::default();
    match &record.content {
        Content::Text(text) => {
            stream.ids(tokenizer.encode(text)?, true);
            stream.eos(tokenizer, 0, true)?;
            stream.bos(tokenizer);
            let windows = stream.tokens.chunks(cutoff).zip(stream.trained.chunks(cutoff));
            // A window of one token would have nothing to score.
            let documents: Vec<Document> = windows
                .filter(|(tokens, _)| tokens.len() > 1)
                .map(|(tokens, trained)| Document {
                    tokens: tokens.to_vec(),
                    trained: trained.to_vec(),
                    line: record.line,
                })
                .collect();
            if documents.is_empty() {
                return Err(Refusal::Words("the text is a single token, and the first token is never scored".into()));
            }
            Ok(documents)
        }
        Content::Chat(chat) => {
            if template.is_none()
                && let Some(index) = chat.messages.iter().position(Message::calls_tools)
            {
                let problem = format!(
                    "message {} has tool_calls, which only a chat template writes: give the model one that has them \
                     (chat_template.jinja beside it, with data.template = \"model\"), or write the calls into the \
                     message's content, as the model is to say them",
                    index + 1
                );
                return Err(Refusal::Words(problem));
            }
            let unwritten = match template {
                Some(template) => stream.chat(chat, tokenizer, template, options)?,
                None => stream.plain_chat(chat, tokenizer, options.last_turn_only)?,
            };
            let whole = Document { tokens: stream.tokens, trained: stream.trained, line: record.line };
            let length = whole.tokens.len();
            if whole.trained_tokens() == 0 {
                let problem = "no token is trained: the conversation has no assistant turn that is trained";
                return Err(Refusal::Words(problem.into()));
            }
            let is_empty = usize::from(has_empty_answer(chat, options.last_turn_only));
            if length <= cutoff {
                report.unwritten.add(unwritten);
                report.empty_answers += is_empty;
                return Ok(vec![whole]);
            }
            let mut cut = whole;
            cut.tokens.truncate(cutoff);
            cut.trained.truncate(cutoff);
            if cut.trained_tokens() == 0 {
                return Err(Refusal::Words(format!(
                    "no trained token is left: the record has {length} tokens, and the first trained one lies beyond the \
                     {cutoff} that are kept (data.cutoff_length, at most run.batch_tokens and the model's context; of a scan \
                     --cutoff-length); raise the least of these, or leave such records out with data.on_error=skip (of scan \
                     and eval --skip-broken)"
                )));
            }
            report.truncated += 1;
            report.unwritten.add(unwritten);
            report.empty_answers += is_empty;
            Ok(vec![cut])
        }
    }
}

/// Whether a trained turn says nothing: neither text nor thinking nor a call of a tool.
fn has_empty_answer(chat: &Conversation, last_turn_only: bool) -> bool {
    let says_nothing =
        |message: &Message| message.content.trim().is_empty() && message.thinking().is_none() && !message.calls_tools();
    let mut trained = chat.messages.iter().filter(|message| message.trained);
    if last_turn_only { trained.next_back().is_some_and(says_nothing) } else { trained.any(says_nothing) }
}

/// Tokens and marks as they are collected.
#[derive(Default)]
struct Stream {
    tokens: Vec<u32>,
    trained: Vec<bool>,
}

impl Stream {
    fn ids(&mut self, ids: Vec<u32>, trained: bool) {
        self.trained.extend(std::iter::repeat_n(trained, ids.len()));
        self.tokens.extend(ids);
    }

    /// A text of which the `spans` (byte ranges, in order) are trained.
    fn text(&mut self, text: &str, spans: &[Range<usize>], tokenizer: &Tokenizer) -> Result<()> {
        self.tokens(tokenizer.encode_with_offsets(text)?, spans);
        Ok(())
    }

    /// Tokens of a text of which the `spans` are trained.
    fn tokens(&mut self, tokens: Tokens, spans: &[Range<usize>]) {
        let mut spans = spans.iter().peekable();
        for (start, _) in &tokens.offsets {
            while spans.next_if(|span| span.end <= *start).is_some() {}
            self.trained.push(spans.peek().is_some_and(|span| span.contains(start)));
        }
        self.tokens.extend(tokens.ids);
    }

    /// Puts the beginning before a whole text that lacks it.
    fn bos(&mut self, tokenizer: &Tokenizer) {
        if let Some(bos) = tokenizer.missing_bos(&self.tokens) {
            self.tokens.insert(0, bos);
            self.trained.insert(0, false);
        }
    }

    /// Ends the text that began `from` this token, unless it says its end itself.
    fn eos(&mut self, tokenizer: &Tokenizer, from: usize, trained: bool) -> Result<()> {
        if !ends(&self.tokens[from..], tokenizer)? {
            self.ids(tokenizer.eos_id().into_iter().collect(), trained);
        }
        Ok(())
    }

    fn chat(
        &mut self,
        chat: &Conversation,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        options: EncodeOptions,
    ) -> Result<Unwritten> {
        let turns = template.turns(chat)?;
        let tokens = tokenizer.encode_with_offsets(turns.text())?;
        // Turns that the cutoff takes away need not be found, apart from the first of them, which tells that there is one.
        let end = tokens.offsets.get(options.cutoff_length).map_or(usize::MAX, |(start, _)| *start);
        let spans = turns.within(end, options.last_turn_only)?;
        let thinking_by_template = turns.without_thinking(&spans, options.last_turn_only);
        // Some templates (GLM-4) leave the end of a turn to the next speaker's token, which a last turn does not have; the
        // model would never learn to stop.
        let stops = stops(&tokens, &spans, tokenizer)?;
        self.tokens(tokens, &spans);
        for stop in stops {
            self.trained[stop] = true;
        }
        if let Some(last) = chat.messages.last().filter(|message| message.role == "assistant") {
            let closed = last_word(&self.tokens, tokenizer)?.is_some_and(|id| tokenizer.is_special(id));
            if !closed {
                self.eos(tokenizer, 0, last.trained)?;
            }
        }
        Ok(Unwritten { thinking_by_template, ..Unwritten::default() })
    }

    /// The layout without a template; see the file header.
    fn plain_chat(&mut self, chat: &Conversation, tokenizer: &Tokenizer, last_turn_only: bool) -> Result<Unwritten> {
        let last = chat.messages.iter().rposition(|message| message.trained);
        // Text up to the next end-of-sequence token; that token separates, so tokenising the pieces apart is exact.
        let (mut text, mut spans) = (String::new(), Vec::new());
        for (index, message) in chat.messages.iter().enumerate() {
            let start = text.len();
            text.push_str(&message.content);
            if message.role != "assistant" {
                text.push('\n');
                continue;
            }
            let trained = message.trained && (!last_turn_only || Some(index) == last);
            if trained {
                spans.push(start..text.len());
            }
            if tokenizer.eos_id().is_none() {
                text.push('\n');
                continue;
            }
            let from = self.tokens.len();
            self.text(&text, &spans, tokenizer)?;
            self.eos(tokenizer, from, trained)?;
            text.clear();
            spans.clear();
        }
        self.text(&text, &spans, tokenizer)?;
        self.bos(tokenizer);
        Ok(Unwritten::without_template(chat))
    }
}

/// The last token that is not white space.
fn last_word(tokens: &[u32], tokenizer: &Tokenizer) -> Result<Option<u32>> {
    for id in tokens.iter().rev() {
        if tokenizer.is_special(*id) || !tokenizer.decode(&[*id], false)?.trim().is_empty() {
            return Ok(Some(*id));
        }
    }
    Ok(None)
}

/// Whether these tokens say their end, white space aside.
fn ends(tokens: &[u32], tokenizer: &Tokenizer) -> Result<bool> {
    Ok(last_word(tokens, tokenizer)?.is_some_and(|id| tokenizer.eos_ids().contains(&id)))
}

/// The tokens right behind turns at which generation stops, where a turn has no such end itself.
fn stops(tokens: &Tokens, turns: &[Range<usize>], tokenizer: &Tokenizer) -> Result<Vec<usize>> {
    let at = |place: usize| tokens.offsets.partition_point(|(start, _)| *start < place);
    let mut stops = Vec::new();
    for turn in turns {
        let (first, next) = (at(turn.start), at(turn.end));
        let is_stop = tokens.ids.get(next).is_some_and(|id| tokenizer.eos_ids().contains(id));
        if is_stop && !ends(tokens.ids.get(first..next).unwrap_or_default(), tokenizer)? {
            stops.push(next);
        }
    }
    Ok(stops)
}
