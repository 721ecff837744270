//! `--calibrate` of `temper quantize` and `temper export`: matrices rounded by what the model makes of some texts.

use anyhow::Result;
use temper_engine::models::{Quantised, Recipe, calibrate};
use temper_engine::perplexity::first_tokens;
use temper_engine::reading::{ReadOptions, read_measured, tokens_of};
use temper_engine::{Document, Error, ModelFiles, wait};

use crate::cli::Calibrating;
use crate::inputs::read_data;
use crate::meter::Meter;
use crate::output;
use crate::progress::grouped;

/// Tokens of which each file gives at least as many: a sequence of one predicts nothing.
const LEAST_EACH: usize = 2;

/// Refuses to calibrate what is not rounded level by level, and by too few tokens of each file.
///
/// # Errors
/// [`Error::Config`].
pub fn refuse_in_vain(args: &Calibrating, recipe: Recipe) -> Result<()> {
    let least = LEAST_EACH * args.calibrate.len();
    let problem = if args.calibrate.is_empty() {
        return Ok(());
    } else if !recipe.has_levels() {
        let to = recipe.name().to_lowercase();
        format!("--calibrate: {to} rounds each element by itself; leave it out, or choose fewer bits with --to")
    } else if args.calibrate_tokens < least {
        let (tokens, files) = (args.calibrate_tokens, args.calibrate.len());
        format!("--calibrate-tokens {tokens}: {files} files need at least {least}, {LEAST_EACH} of each")
    } else {
        return Ok(());
    };
    Err(Error::Config { problems: vec![problem] }.into())
}

/// What is read meanwhile, of each file as many tokens; nothing where nothing is asked for.
///
/// # Errors
/// What reading gives.
pub fn documents(args: &Calibrating, files: &ModelFiles, options: ReadOptions<'_>) -> Result<Vec<Document>> {
    let context = files.architecture.context;
    let each = args.calibrate_tokens / args.calibrate.len().max(1);
    let mut documents = Vec::new();
    for path in &args.calibrate {
        let options = ReadOptions { cutoff_length: options.cutoff_length.min(each), ..options };
        let set = read_measured(path, &read_data(path)?, files.tokenizer()?, context, options)?;
        documents.extend_from_slice(first_tokens(&set.documents, each));
    }
    if !documents.is_empty() {
        let (tokens, names) = (grouped(tokens_of(&documents) as u64), args.calibrate.join(", "));
        output::text(&format!("rounding by what the model makes of {tokens} tokens of {names}\n"))?;
    }
    Ok(documents)
}

/// The same with its blocks' matrices rounded by what they read of the documents; `files` is the same model.
///
/// # Errors
/// As [`calibrate`].
pub fn calibrated(model: Quantised, files: &ModelFiles, documents: &[Document], recipe: Recipe) -> Result<Quantised> {
    if documents.is_empty() {
        return Ok(model);
    }
    let (meter, read) = (Meter::with_lines("rounding"), tokens_of(documents) as u64);
    meter.of_items(files.architecture.layers as u64);
    let rounded = wait(calibrate(files, documents, recipe, &mut |done, of| {
        meter.at(done as u64, read * done as u64 / of.max(1) as u64);
    }));
    meter.finish();
    Ok(model.with_rounded(&files.architecture, rounded?))
}
