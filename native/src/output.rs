//! Results on stdout, where a reader that has gone away is no error.

use std::io::{self, Write};

use anyhow::Result;

/// Writes text as it is.
pub fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    text(&format!("{}\n", serde_json::to_string(value)?))
}
