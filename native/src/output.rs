//! Results on stdout, where a reader that has gone away is no error; and paths as a shell takes them.

use std::io::{self, Write};
use std::path::Path;
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

/// A path as it can be pasted into a shell: in quotes where it needs them.
pub fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    match !path.is_empty() && path.chars().all(plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    text(&format!("{}\n", serde_json::to_string(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        let said = ["runs/a-2", "my runs/a", "it's", "$HOME", ""].map(|path| quoted(Path::new(path)));
        assert_eq!(said, ["runs/a-2", "'my runs/a'", r"'it'\''s'", "'$HOME'", "''"]);
    }
}
