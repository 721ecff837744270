//! `temper chat`: a conversation with a model, in a terminal or line by line from a pipe.
//!
//! What was said stays in the model's cache: of each turn only what is new is read, as far as the template writes earlier turns as
//! it did before. The first Ctrl-C stops an answer, the next one ends the program.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Result;
use temper_engine::continuing::{Cache, Request, Talk, Writer};
use temper_engine::reading::{ChatTemplate, Message};
use temper_engine::words::counted;
use temper_engine::{Error, Model, Tokenizer, wait};

use super::generate::sampling;
use crate::cli::{ChatArgs, Global};
use crate::inputs::{Layout, ModelInUse, devices};
use crate::interrupt;
use crate::output;

/// Most tokens of a conversation unless more are asked for.
const CONTEXT: usize = 8192;

const HELP: &str = "/reset forgets the conversation, /system TEXT says what the model is told before it (and forgets it), \
                    /quit ends; Ctrl-C stops an answer";

/// Both sides of a conversation.
struct Conversation<'a> {
    args: &'a ChatArgs,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    model: Model,
    talk: Talk,
    /// Most tokens of a conversation, and those that the model was made for.
    context: usize,
    made_for: usize,
    system: Option<String>,
    messages: Vec<Message>,
    /// Answers so far, also forgotten ones: each draws with another seed.
    answers: u64,
    /// Lines that were not answered, since the conversation was full.
    unanswered: usize,
}

/// Runs the command.
pub fn run(args: ChatArgs, global: &Global) -> Result<()> {
    let (devices, _) = devices(global.device.as_deref())?;
    let chosen = ModelInUse::open(&args.model)?.told(&args.template.template_var)?;
    let files = &chosen.files;
    let tokenizer = files.tokenizer()?;
    let Layout::Chat(template) = chosen.layout()? else {
        let problem = "this model has no chat template to talk with, or its run was trained without one; temper generate \
                       --prompt asks it without";
        return Err(Error::Config { problems: vec![problem.into()] }.into());
    };
    let made_for = files.architecture.context;
    let context = args.context.unwrap_or(made_for.min(CONTEXT));
    if context > made_for {
        let problem = format!("--context {context}: the model was made for {made_for} tokens and can take no more");
        return Err(Error::Config { problems: vec![problem] }.into());
    }
    let model = chosen.load(&devices, Cache::bytes(&files.architecture, 1, context))?;
    let talk = Talk::new(&model, context)?;
    let (system, messages) = (args.system.clone(), Vec::new());
    let mut conversation = Conversation {
        args: &args,
        tokenizer,
        template,
        model,
        talk,
        context,
        made_for,
        system,
        messages,
        answers: 0,
        unanswered: 0,
    };
    let by_hand = io::stdin().is_terminal();
    if by_hand {
        say(HELP)?;
    }
    let mut input = io::stdin().lock();
    loop {
        if by_hand {
            output::text("> ")?;
        }
        if output::closed() {
            return Ok(());
        }
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return if by_hand { output::text("\n") } else { conversation.ended() };
        }
        let heard = match String::from_utf8(line) {
            Ok(line) => conversation.hear(line.trim()),
            Err(_) => Err(Error::Config { problems: vec!["a line is not UTF-8 text".into()] }.into()),
        };
        match heard {
            Ok(true) => {}
            Ok(false) => return if by_hand { Ok(()) } else { conversation.ended() },
            // At a terminal one can go on; a script wants to know.
            Err(error) if by_hand && error.downcast_ref::<Error>().is_some_and(Error::is_bad_input) => {
                say(&format!("{error:#}"))?;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Conversation<'_> {
    /// Does what a line asks for; false where that is to end.
    fn hear(&mut self, line: &str) -> Result<bool> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "" => {}
            "/quit" => return Ok(false),
            "/reset" => self.messages.clear(),
            "/system" => {
                self.system = Some(rest.trim().to_owned()).filter(|text| !text.is_empty());
                self.messages.clear();
            }
            "/help" => say(HELP)?,
            _ if command.starts_with('/') => say(&format!("there is no {command}; {HELP}"))?,
            _ => self.answer(line)?,
        }
        Ok(true)
    }

    /// Lets the model answer. What fails is as if it had not been said.
    fn answer(&mut self, line: &str) -> Result<()> {
        self.messages.push(Message::new("user", line));
        let answer = self.written();
        match &answer {
            Ok(Some(text)) => self.messages.push(Message::new("assistant", text)),
            Ok(None) | Err(_) => {
                self.messages.pop();
            }
        }
        self.answers += 1;
        answer.map(drop)
    }

    /// Says why nothing more is answered, and how to go on: the conversation has so many tokens.
    fn say_full(&mut self, tokens: usize) -> Result<()> {
        self.unanswered += 1;
        let (context, larger) = (self.context, self.larger());
        say(&format!(
            "not answered: the conversation has {tokens} tokens with this line, and the context of {context} has to hold the \
             answer too. /reset forgets what was said, and a shorter line may fit; {larger}"
        ))
    }

    /// Whether there can be more room.
    fn larger(&self) -> String {
        match self.context < self.made_for {
            true => format!("temper chat --context N allows up to {}", self.made_for),
            false => "--context cannot be larger, since the model was made for so many".into(),
        }
    }

    /// What a script is told at its end.
    ///
    /// # Errors
    /// [`Error::Config`] where lines were not answered.
    fn ended(&self) -> Result<()> {
        if self.unanswered == 0 {
            return Ok(());
        }
        let problem = format!("{} not answered: the conversation was full", counted(self.unanswered, "line"));
        Err(Error::Config { problems: vec![problem] }.into())
    }

    /// The answer, shown as it is made; none where there is no room for one.
    fn written(&mut self) -> Result<Option<String>> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let all: Vec<Message> = system.chain(self.messages.iter().cloned()).collect();
        let prompt = self.tokenizer.encode(&self.template.render(&all, true)?)?;
        if prompt.len() >= self.context {
            self.say_full(prompt.len())?;
            return Ok(None);
        }
        let room = self.context - prompt.len();
        let sampling = sampling(&self.args.drawing, self.args.temperature, self.answers);
        tracing::debug!("{} tokens, {} of them known", prompt.len(), self.talk.known(&prompt));
        let request = Request { prompt, count: self.args.max_tokens, sampling };
        let mut writer = Writer::new(self.tokenizer, &self.args.drawing.stop);
        let (mut text, mut failed) = (String::new(), None);
        let mut show = |new: temper_engine::Result<String>| {
            let shown = new.map_err(anyhow::Error::from).and_then(|new| {
                text += &new;
                output::text(&new)
            });
            failed = shown.err().or(failed.take());
            failed.is_none() && !output::closed()
        };
        interrupt::listen_once();
        let stop = self.tokenizer.eos_ids();
        let each = &mut |token| {
            let new = writer.push(token);
            show(new) && !writer.ended()
        };
        let done = wait(self.talk.answer(&mut self.model, &request, stop, &interrupt::requested, each));
        interrupt::listen_no_more();
        let made = done?;
        show(writer.finish());
        let is_cut = made.len() == room && !writer.ended() && made.last().is_some_and(|last| !stop.contains(last));
        if let Some(error) = failed {
            return Err(error);
        }
        output::text("\n")?;
        if is_cut {
            let (context, larger) = (self.context, self.larger());
            say(&format!(
                "the answer ends here: the context of {context} tokens is full. /reset forgets what was said; {larger}"
            ))?;
        }
        Ok(Some(text))
    }
}

/// Something beside the conversation.
fn say(text: &str) -> Result<()> {
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(io::stderr(), "{text}");
    Ok(())
}
