//! The guard of the build time: `cargo run` and `cargo test --workspace` must agree on every dependency's features.
//!
//! cargo unites the features that all selected crates ask for. A test dependency that wants one more feature of something
//! below burn (naga, miniz_oxide, futures) therefore gives burn a second identity and compiles it again: nine minutes on
//! two cores, with nothing in the output that says why. The page's bundler stands aside: it asks for more features of what
//! burn uses, and is built and tested by itself.

use std::collections::BTreeSet;
use std::process::Command;

use crate::{Failure, root};

/// Fails, naming the crates, if the workspace's tests would use another variant of a crate than the command does.
pub fn agree() -> Result<String, Failure> {
    let command = tree(&["--package", "temper", "--edges", "normal,build"])?;
    let tests = tree(&["--workspace", "--exclude", "temper-web-bundle", "--edges", "normal,build,dev"])?;
    let differing = variants_missing_from(&tests, &command);
    if command.is_empty() || !differing.is_empty() {
        return Err(format!(
            "the tests switch on further features of what the command uses, so burn would be compiled twice:\n{}\n\
             Give the test dependency fewer features or another backend, or name the same features in native/Cargo.toml.",
            differing.join("\n")
        ));
    }
    Ok(format!("`cargo run` and `cargo test` agree on all {} crates and can share one build", command.lines().count()))
}

/// One line a crate: name, version, features.
fn tree(selection: &[&str]) -> Result<String, Failure> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p} [{f}]"])
        .args(selection)
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo tree could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo tree failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(unique(&text).into_iter().collect::<Vec<_>>().join("\n"))
}

/// The lines without repetitions; cargo marks those with an asterisk.
fn unique(tree: &str) -> BTreeSet<&str> {
    tree.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty()).collect()
}

fn variants_missing_from<'a>(tests: &str, command: &'a str) -> Vec<&'a str> {
    let tests = unique(tests);
    unique(command).into_iter().filter(|line| !tests.contains(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_dependency_with_one_feature_more_is_reported() {
        let command = "naga v30.0.1 [wgsl-in]\nburn v0.22.1 [std]\nnaga v30.0.1 [wgsl-in] (*)";
        let tests = "naga v30.0.1 [msl-out,wgsl-in]\nburn v0.22.1 [std] (*)\nflate2 v1.1.0 [zlib-rs]";
        assert_eq!(variants_missing_from(tests, command), ["naga v30.0.1 [wgsl-in]"]);
        assert!(variants_missing_from(command, command).is_empty());
    }
}
