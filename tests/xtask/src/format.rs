//! `format`: every Rust file by rustfmt. `cargo fmt` follows `mod` lines and so misses what a macro declares, such as the
//! kernels, whose modules come from the shader table's list.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, root};

/// Refuses files that are formatted otherwise.
pub fn check() -> Result<String, Failure> {
    let files = rustfmt(&["--check"])?;
    Ok(format!("{files} Rust files are formatted"))
}

/// Formats them.
pub fn write() -> Result<(), Failure> {
    rustfmt(&[]).map(|_| ())
}

/// Gives back the number of files.
fn rustfmt(arguments: &[&str]) -> Result<usize, Failure> {
    let mut files = Vec::new();
    find(Path::new(""), ".rs", &mut files)?;
    // A search that finds nothing would accept everything.
    if !files.iter().any(|file| file == Path::new("engine/src/kernels/adamw.rs")) {
        return Err(format!("no kernels below {}", root().display()));
    }
    let output = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .args(arguments)
        .args(&files)
        .current_dir(root())
        .output()
        .map_err(|error| format!("rustfmt could not be started: {error}"))?;
    match output.status.success() {
        true => Ok(files.len()),
        false => Err(format!(
            "{}{}`cargo xtask fmt` formats them",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Files below `folder` whose names end like this, as paths from the root; without what is hidden, built or brought by npm.
pub fn find(folder: &Path, end: &str, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let here = root().join(folder);
    let entries = std::fs::read_dir(&here).map_err(|error| format!("{}: {error}", here.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("{}: {error}", here.display()))?;
        let name = entry.file_name();
        let Some(text) = name.to_str() else { continue };
        let kind = entry.file_type().map_err(|error| format!("{}: {error}", entry.path().display()))?;
        if kind.is_dir() {
            if !text.starts_with('.') && !["target", "node_modules", "dist"].contains(&text) {
                find(&folder.join(&name), end, files)?;
            }
        } else if text.ends_with(end) {
            files.push(folder.join(&name));
        }
    }
    Ok(())
}
