//! `temper init`: a commented configuration to begin with.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};

use anyhow::Result;
use temper_engine::Error;

use crate::cli::InitArgs;
use crate::files::io_error;
use crate::inputs::STDIN;
use crate::output;
use crate::settings;

/// Runs the command.
pub fn run(args: InitArgs) -> Result<()> {
    let model = args.model.as_deref().unwrap_or_default();
    let data: Vec<String> = args.data.into_iter().filter(|path| !path.is_empty()).collect();
    let file = args.file.display();
    let is_there = || Error::Config { problems: vec![format!("{file}: is already there; name another file")] };
    if args.file.exists() {
        return Err(is_there().into());
    }
    // Standard input comes once, and is for the run.
    let can_be_read = !model.is_empty() && !data.is_empty() && data.iter().all(|path| path != STDIN);
    let fitted = can_be_read.then(|| settings::fitted(model, &data));
    let text = settings::commented(model, &data, fitted.as_ref().and_then(|fitted| fitted.as_ref().ok()))?;
    // Made only if it is not there: two at once cannot overwrite each other either.
    let made = OpenOptions::new().write(true).create_new(true).open(&args.file);
    let mut made = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(),
        _ => io_error(&args.file, &error),
    })?;
    made.write_all(text.as_bytes()).and_then(|()| made.sync_all()).map_err(|error| io_error(&args.file, &error))?;
    if let Some(Err(error)) = fitted {
        // The file may be written before what it names is there. A closed stderr is no reason to fail.
        let _ = writeln!(io::stderr(), "warning: nothing is fitted to model and data: {error:#}");
    }
    let fill = match (model.is_empty(), data.is_empty()) {
        (true, true) => "fill in [model] path and [data] train",
        (true, false) => "fill in [model] path",
        (false, true) => "fill in [data] train",
        (false, false) => "change what you like",
    };
    output::text(&format!("wrote {file}; {fill}, then: temper train {}\n", output::quoted(&args.file)))
}
