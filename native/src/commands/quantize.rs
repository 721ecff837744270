//! `temper quantize`: a model as a GGUF file whose matrices take fewer bits.

use std::path::Path;

use anyhow::Result;
use temper_engine::Error;
use temper_engine::models::{Quantised, quantised};

use crate::cli::QuantizeArgs;
use crate::files::{Beside, write_atomically};
use crate::inputs::{EMBEDDED, open_model};
use crate::output;
use crate::progress::grouped;

/// Runs the command.
pub fn run(args: QuantizeArgs) -> Result<()> {
    let refuse = |problem: String| Error::Config { problems: vec![problem] };
    let recipe = quantised::target(&args.to).ok_or_else(|| {
        let known: Vec<String> = quantised::targets().collect();
        refuse(format!("--to {}: is not one of {}", args.to, known.join(", ")))
    })?;
    if args.out.exists() {
        return Err(refuse(format!("{}: is already there; name another file", args.out.display())).into());
    }
    let path = Path::new(&args.model);
    let model = if args.model.starts_with(EMBEDDED) || path.is_dir() {
        let name = path.file_name().map_or_else(|| args.model.clone(), |name| name.to_string_lossy().into_owned());
        Quantised::of_files(&open_model(&args.model)?, &name, recipe)?
    } else {
        let (folder, name) = Beside::of(path)?;
        Quantised::of_gguf(&folder, &name, recipe)?
    };
    write_atomically(&args.out, |out| model.write(out))?;
    let matrices = model.matrices();
    let matrices: Vec<String> =
        matrices.iter().map(|(format, count)| format!("{count} in {}", format.name())).collect();
    let bytes = std::fs::metadata(&args.out).map_or(0, |found| found.len());
    output::text(&format!(
        "wrote {}: {} bytes; matrices: {}\n",
        args.out.display(),
        grouped(bytes),
        matrices.join(", ")
    ))
}
