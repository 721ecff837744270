//! `temper eval`: loss and perplexity on a text or a data set; or benchmarks ([tasks]).

pub(crate) mod tasks;

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use temper_engine::configuration::TOP_K_MIN;
use temper_engine::perplexity::WINDOW;
use temper_engine::reading::{OnError, ReadOptions, TO_UTF_8, read_measured, refuse_no_text, refuse_unused_field};
use temper_engine::{Document, Error, Evaluation, Event, Tokenizer, perplexity, wait};

use crate::cli::{EvalArgs, Global};
use crate::doubts::{self, Doubt};
use crate::inputs::{ModelInUse, devices, read_data};
use crate::progress::Progress;
use crate::{output, progress};

/// What is printed as JSON.
#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    score: Evaluation,
    /// Records that were left out.
    skipped: usize,
}

/// Runs the command.
pub fn run(args: EvalArgs, global: &Global) -> Result<()> {
    if !args.input.tasks.is_empty() {
        return tasks::run(&args, global);
    }
    let (devices, why) = devices(global.device.as_deref())?;
    let chosen = ModelInUse::open(&args.model)?.told(&args.template.template_var)?;
    let files = &chosen.files;
    let tokenizer = files.tokenizer()?;
    let context = files.architecture.context;
    let (documents, skipped) = match (&args.input.text, &args.input.data) {
        // Any file is text here, whatever it is called.
        (Some(path), _) => (text_windows(path, tokenizer, context)?, 0),
        (None, Some(path)) => {
            let file = path.display().to_string();
            let own = chosen.reading();
            let on_error = if args.tasks.skip_broken { OnError::Skip } else { own.on_error };
            let fields = args.named.fields.as_ref().or(own.fields);
            let options = ReadOptions { on_error, fields, ..own };
            let read = read_measured(&file, &read_data(&file)?, tokenizer, context, options)?;
            // Those of a run are for its own files.
            if let (Some(_), Some(found)) = (&args.named.fields, &read.records.fields) {
                refuse_unused_field(&[(file.as_str(), found.clone())])?;
            }
            let doubts = doubts::of_reading("data", &file, &read.records, &read.encoding);
            let not_read = doubts::not_read(&read.records.unread).map(|fields| format!("{file}: {fields}"));
            for line in not_read.into_iter().chain(doubts.iter().flat_map(Doubt::lines)) {
                // Nobody is left to tell where stderr is closed.
                let _ = writeln!(io::stderr(), "{line}");
            }
            (read.documents, read.records.skipped + read.encoding.skipped)
        }
        (None, None) => unreachable!("clap demands one of --text, --data and --tasks"),
    };
    let mut model = chosen.load(&devices, 0)?;
    let mut shown = Progress::new();
    let rows = wait(perplexity::rows(&mut model, &documents, TOP_K_MIN, &mut |done, of| {
        shown.evaluating("loss", done, of);
    }))?;
    let score = perplexity::score(&rows);
    let vocab = files.architecture.vocab;
    if score.loss >= perplexity::knowing_nothing(vocab) {
        let message = format!(
            "the loss is no less than ln {vocab} = {:.2}, that of knowing nothing: the model is untrained, its training has \
             diverged, or it knows nothing of this text",
            perplexity::knowing_nothing(vocab)
        );
        shown.event(&Event::Warning { message });
    }
    if args.json {
        return output::json(&Found { score, skipped });
    }
    output::text(&format!(
        "loss       {:.4} nats per token\nperplexity {}\ntokens     {}\ndevice     {} ({why})\n",
        score.loss,
        progress::perplexity(score.perplexity, 4),
        score.tokens,
        model.placement()
    ))
}

fn text_windows(path: &Path, tokenizer: &Tokenizer, context: usize) -> Result<Vec<Document>> {
    let file = path.display().to_string();
    let bytes = read_data(&file)?;
    refuse_no_text(&file, &bytes)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Data { file: file.clone(), problem: format!("it is not UTF-8 text: {TO_UTF_8}") })?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let documents = perplexity::windows(&tokenizer.encode(text)?, WINDOW.min(context));
    match documents.is_empty() {
        true => Err(Error::Data { file, problem: "it has fewer than two tokens".into() }.into()),
        false => Ok(documents),
    }
}
