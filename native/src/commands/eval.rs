//! `temper eval`: loss and perplexity on a text or a data set.

use anyhow::Result;
use temper_engine::data::{Format, OnError};
use temper_engine::eval::perplexity::{self, WINDOW};
use temper_engine::loss::objective::TOP_K_MIN;
use temper_engine::{Device, Error};

use crate::cli::{EvalArgs, Global};
use crate::inputs::{ModelFiles, ReadOptions, read_data, read_set};
use crate::output;
use crate::progress::Progress;

/// Runs the command.
pub fn run(args: EvalArgs, global: &Global) -> Result<()> {
    let (device, why) = Device::choose(global.device.as_deref())?;
    let files = ModelFiles::open(&args.model)?;
    let tokenizer = files.tokenizer()?;
    let documents = match (&args.input.text, &args.input.data) {
        (Some(path), _) => {
            let name = path.display().to_string();
            let text = String::from_utf8(read_data(&name)?)
                .map_err(|_| Error::Data { file: name.clone(), problem: "it is not UTF-8 text".into() })?;
            let documents = perplexity::windows(&tokenizer.encode(&text)?, WINDOW.min(files.architecture.context));
            if documents.is_empty() {
                return Err(Error::Data { file: name, problem: "it has fewer than two tokens".into() }.into());
            }
            documents
        }
        (None, Some(path)) => {
            let options = ReadOptions {
                format: Format::Auto,
                on_error: OnError::Stop,
                cutoff_length: files.architecture.context,
                last_turn_only: false,
            };
            read_set(&path.display().to_string(), tokenizer, options)?.documents
        }
        (None, None) => unreachable!("clap demands one of --text and --data"),
    };
    let mut model = files.load_frozen(&device, args.adapter.as_deref())?;
    let mut progress = Progress::new();
    let rows = perplexity::rows(&mut model, &documents, TOP_K_MIN, &mut |done, of| {
        progress.evaluating("loss", done, of);
    })?;
    let score = perplexity::score(&rows);
    if args.json {
        return output::json(&score);
    }
    output::text(&format!(
        "loss       {:.4} nats per token\nperplexity {:.4}\ntokens     {}\ndevice     {} ({why})\n",
        score.loss,
        score.perplexity,
        score.tokens,
        device.name()
    ))
}
