//! `temper quantize`: a model as a GGUF file whose matrices take fewer bits.

use std::path::Path;

use anyhow::Result;
use temper_engine::models::{Quantised, Recipe, Rounded, calibrate, quantised};
use temper_engine::perplexity::first_tokens;
use temper_engine::reading::{OnError, ReadOptions, RecordFormat, Templating, read_measured, tokens_of};
use temper_engine::{Error, ModelFiles, wait};

use super::export::{name_of, refuse_if_there, write_gguf};
use crate::cli::QuantizeArgs;
use crate::files::{Beside, model_error};
use crate::inputs::{EMBEDDED, open_model, read_data};
use crate::meter::Meter;
use crate::output;
use crate::progress::grouped;

/// Runs the command.
pub fn run(args: QuantizeArgs) -> Result<()> {
    let recipe = quantised::target(&args.to).ok_or_else(|| {
        let known: Vec<String> = quantised::targets().collect();
        Error::Config { problems: vec![format!("--to {}: is not one of {}", args.to, known.join(", "))] }
    })?;
    refuse_if_there(&args.out)?;
    let path = Path::new(&args.model);
    let mut model = if args.model.starts_with(EMBEDDED) || path.is_dir() {
        Quantised::of_files(&open_model(&args.model)?, &name_of(&args.model), recipe)?
    } else {
        let (folder, name) = Beside::of(path)?;
        Quantised::of_gguf(&folder, &name, recipe, None).map_err(|error| model_error(path, error))?
    };
    if !args.calibrate.is_empty() {
        refuse_without_levels(&model, &args.to)?;
        let files = open_model(&args.model)?;
        let rounded = rounded(&files, &args.calibrate, args.calibrate_tokens, recipe)?;
        model = model.with_rounded(&files.architecture, rounded);
    }
    write_gguf(&args.out, &model)
}

/// Refuses to calibrate what is not rounded one by one.
fn refuse_without_levels(model: &Quantised, to: &str) -> Result<()> {
    if model.matrices().iter().any(|(format, _)| format.levels().is_some()) {
        return Ok(());
    }
    let problem = format!("--calibrate: --to {to} rounds each element by itself; leave it out, or choose fewer bits");
    Err(Error::Config { problems: vec![problem] }.into())
}

/// The blocks' matrices, rounded by what they read of some files, of each as many tokens.
fn rounded(files: &ModelFiles, data: &[String], tokens: usize, recipe: Recipe) -> Result<Rounded> {
    let each = tokens / data.len();
    let (tokenizer, context) = (files.tokenizer()?, files.architecture.context);
    let options = ReadOptions {
        format: RecordFormat::Auto,
        on_error: OnError::Stop,
        cutoff_length: context.min(each),
        last_turn_only: false,
        template: Templating::Model,
        variables: None,
    };
    let mut documents = Vec::new();
    for path in data {
        let set = read_measured(path, &read_data(path)?, tokenizer, context, options)?;
        documents.extend_from_slice(first_tokens(&set.documents, each));
    }
    let (meter, read) = (Meter::new("rounding"), tokens_of(&documents) as u64);
    output::text(&format!("reading {} tokens of {}\n", grouped(read), data.join(", ")))?;
    meter.of_items(files.architecture.layers as u64);
    let rounded = wait(calibrate(files, &documents, recipe, &mut |done, of| {
        meter.at(done as u64, read * done as u64 / of.max(1) as u64);
    }));
    meter.finish();
    Ok(rounded?)
}
