//! `temper generate`: a model's answer to a prompt, or to many.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use temper_engine::continuing::{Cache, Request, Writer, generate_all};
use temper_engine::reading::{TO_UTF_8, refuse_no_text};
use temper_engine::words::counted;
use temper_engine::{Error, Sampling, wait};

use crate::cli::{DrawingArgs, GenerateArgs, Global};
use crate::inputs::{Layout, ModelInUse, devices, read_data};
use crate::output;

/// One line of the answers to `--prompts`.
#[derive(Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    answer: &'a str,
    tokens: usize,
    /// What it ended at.
    ended: &'static str,
}

/// An answer under way.
struct Written<'a> {
    writer: Writer<'a>,
    text: String,
    tokens: usize,
    last: Option<u32>,
    over: bool,
}

/// Runs the command. The answer to one prompt appears as it is made, those to many in the order of their prompts.
pub fn run(args: GenerateArgs, global: &Global) -> Result<()> {
    let (devices, _) = devices(global.device.as_deref())?;
    let chosen = ModelInUse::open(&args.model)?.told(&args.template.template_var)?;
    let files = &chosen.files;
    let tokenizer = files.tokenizer()?;
    let layout = if args.raw { Layout::Text } else { chosen.layout()? };
    let system = args.system.as_deref();
    if system.is_some() && !matches!(layout, Layout::Chat(_)) {
        let problem = "--system: this model has no chat template to say it in, or its run was trained without one; write it \
                       into the prompt";
        return Err(Error::Config { problems: vec![problem.into()] }.into());
    }
    let (prompts, name) = match (&args.prompt, &args.prompts) {
        (Some(prompt), _) => (vec![(0, prompt.clone())], "--prompt".to_string()),
        (None, path) => lines(path.as_deref().unwrap_or_default())?,
    };
    let context = files.architecture.context;
    let mut requests = Vec::with_capacity(prompts.len());
    for (nth, text) in &prompts {
        let prompt = layout.prompt(tokenizer, system, text)?;
        let Some(room) = context.checked_sub(prompt.len()).filter(|room| *room > 0) else {
            let line = if prompts.len() > 1 { format!(", line {}", nth + 1) } else { String::new() };
            let problem = format!(
                "{name}{line} has {} tokens, and the model's context of {context} has to hold the answer too; shorten it",
                prompt.len()
            );
            return Err(Error::Config { problems: vec![problem] }.into());
        };
        let sampling = sampling(&args.drawing, args.temperature, *nth as u64);
        requests.push(Request { prompt, count: args.max_tokens.min(room), sampling });
    }
    let longest = requests.iter().map(|request| request.prompt.len() + request.count).max().unwrap_or(0);
    let at_once = args.batch.min(requests.len());
    let mut model = chosen.load(&devices, Cache::bytes(&files.architecture, at_once, longest))?;

    let stream = args.prompt.is_some();
    let written = |_: &(usize, String)| Written {
        writer: Writer::new(tokenizer, &args.drawing.stop),
        text: String::new(),
        tokens: 0,
        last: None,
        over: false,
    };
    let mut answers: Vec<Written> = prompts.iter().map(written).collect();
    let mut told = 0;
    let mut failed = None;
    let begun = Instant::now();
    let mut first = None;
    wait(generate_all(&mut model, &requests, at_once, tokenizer.eos_ids(), &mut |at, token| {
        first.get_or_insert_with(Instant::now);
        let answer = &mut answers[at];
        let heard = answer.hear(token, requests[at].count, tokenizer.eos_ids()).map_err(anyhow::Error::from);
        let shown = heard.and_then(|new| if stream { output::text(&new) } else { tell(&prompts, &answers, &mut told) });
        failed = shown.err().or(failed.take());
        failed.is_none() && !answers[at].over && !output::closed()
    }))?;
    if let Some(error) = failed {
        return Err(error);
    }
    let (tokens, seconds) = (answers.iter().map(|answer| answer.tokens).sum::<usize>(), begun.elapsed().as_secs_f64());
    let read = first.map_or(0.0, |first| (first - begun).as_secs_f64());
    tracing::info!("{} in {seconds:.2} s, the first one after {read:.2} s", counted(tokens, "token"));
    if stream {
        return output::text("\n");
    }
    // Those for which nothing was to be made.
    answers.iter_mut().for_each(|answer| answer.over = true);
    tell(&prompts, &answers, &mut told)
}

impl Written<'_> {
    /// Takes a token; what of the text is new.
    fn hear(&mut self, token: u32, most: usize, ends: &[u32]) -> temper_engine::Result<String> {
        self.tokens += 1;
        self.last = Some(token);
        let mut new = self.writer.push(token)?;
        self.over = self.writer.ended() || ends.contains(&token) || self.tokens == most;
        if self.over {
            new += &self.writer.finish()?;
        }
        self.text += &new;
        Ok(new)
    }

    fn ended(&self, ends: &[u32]) -> &'static str {
        match self.last {
            _ if self.writer.ended() => "string",
            Some(last) if ends.contains(&last) => "token",
            _ => "length",
        }
    }
}

/// Prints the answers that are over and before which all are; `told` are those that were printed.
fn tell(prompts: &[(usize, String)], answers: &[Written], told: &mut usize) -> Result<()> {
    while let Some(answer) = answers.get(*told).filter(|answer| answer.over) {
        let ended = answer.ended(answer.writer.tokenizer().eos_ids());
        output::json(&Answer { prompt: &prompts[*told].1, answer: &answer.text, tokens: answer.tokens, ended })?;
        *told += 1;
    }
    Ok(())
}

/// The prompts of a file, each with how many lines are before it, and the file's name. Blank lines are nothing, as in data.
fn lines(path: &str) -> Result<(Vec<(usize, String)>, String)> {
    let bytes = read_data(path)?;
    refuse_no_text(path, &bytes)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Format { file: path.into(), problem: format!("is not UTF-8 text: {TO_UTF_8}") })?;
    let lines = text.strip_prefix('\u{FEFF}').unwrap_or(&text).lines().enumerate();
    let prompts: Vec<(usize, String)> =
        lines.filter(|(_, line)| !line.trim().is_empty()).map(|(nth, line)| (nth, line.to_owned())).collect();
    if prompts.is_empty() {
        return Err(Error::Data { file: path.into(), problem: "has no line, and each is a prompt".into() }.into());
    }
    Ok((prompts, path.into()))
}

/// What the arguments say of the `nth` text.
pub fn sampling(drawing: &DrawingArgs, temperature: f32, nth: u64) -> Sampling {
    let DrawingArgs { top_k, top_p, seed, .. } = *drawing;
    Sampling { temperature: temperature.into(), top_k, top_p, seed: seed.wrapping_add(nth) }
}
