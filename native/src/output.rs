//! Results on stdout, where a reader that has gone away is no error.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes text as it is. Where the reader has gone away nothing is written, and the command goes on to its verdict.
pub fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => Ok(written?),
    }
}

/// True once the reader of results, such as `head`, has gone away: who works for it alone can stop.
pub fn closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    text(&format!("{}\n", serde_json::to_string(value)?))
}
