//! `temper quantize`: a model as a GGUF file whose matrices take fewer bits.

use std::path::Path;

use anyhow::Result;
use temper_engine::Error;
use temper_engine::models::{Quantised, quantised};

use super::export::{name_of, refuse_if_there, write_gguf};
use crate::calibrating::{calibrated, documents, refuse_in_vain};
use crate::cli::QuantizeArgs;
use crate::files::{Beside, model_error};
use crate::inputs::{EMBEDDED, open_model, reading_untrained};

/// Runs the command.
pub fn run(args: QuantizeArgs) -> Result<()> {
    let recipe = quantised::target(&args.to).ok_or_else(|| {
        let known: Vec<String> = quantised::targets().collect();
        Error::Config { problems: vec![format!("--to {}: is not one of {}", args.to, known.join(", "))] }
    })?;
    refuse_if_there(&args.out)?;
    refuse_in_vain(&args.calibrating, recipe)?;
    let path = Path::new(&args.model);
    let mut model = if args.model.starts_with(EMBEDDED) || path.is_dir() {
        Quantised::of_files(&open_model(&args.model)?, &name_of(&args.model), recipe)?
    } else {
        let (folder, name) = Beside::of(path)?;
        Quantised::of_gguf(&folder, &name, recipe, None).map_err(|error| model_error(path, error))?
    };
    if !args.calibrating.calibrate.is_empty() {
        let files = open_model(&args.model)?;
        let documents = documents(&args.calibrating, &files, reading_untrained(&files, None))?;
        model = calibrated(model, &files, &documents, recipe)?;
    }
    write_gguf(&args.out, &model)
}
