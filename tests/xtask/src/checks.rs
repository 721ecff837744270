//! `test` and `lint`: which commands decide whether a tree is good, and in which order.
//!
//! What burn costs decides the list. cargo keeps check-mode and build-mode artefacts of a dependency apart, per target and
//! per feature set; `cargo check` and `cargo clippy` share theirs. So each pass below brings one thing that no other pass
//! does, and nothing is compiled twice:
//!
//! | pass over burn | cold, 2 cores | what only it tells |
//! |---|---|---|
//! | clippy, host, SPIR-V (on macOS: MSL) kernels | 2 min 10 s | lints of the whole workspace; the tensor-core feature compiles |
//! | clippy, wasm32 | 1 min 30 s | lints of the browser's code path, with its own prohibitions |
//! | check, Windows | 1 min 40 s | DX12 compiles |
//! | check, macOS, MSL kernels | 1 min 40 s | Metal compiles, with the tensor-core feature |
//! | build and test, host | 12 min | everything else |
//! | build, wasm32, profile `web` | 15 min beside another build | the page that the browser tests drive, and its size |
//!
//! The default feature set gets no clippy pass of its own: the feature only adds code, and the build compiles the rest.
//! Build and test share one set of artefacts as long as the test dependencies ask for no feature that `temper` itself does
//! not, which [`features`] checks first. It is why `temper-web` is empty on the host, and why the page's bundler, which
//! needs other features of crates below burn, is linted, built and tested by itself. The browser's build cannot share: it
//! wants vector instructions. The first run takes well over twenty minutes on two cores; a
//! repeated one is mostly tests.

use std::path::Path;
use std::process::Command;

use crate::step::{Step, run_all};
use crate::{Failure, features, root, setup, smollm2, web};

/// All crates but the page's bundler, see above.
const CRATES: &str = "--workspace --exclude temper-web-bundle";

/// Everything, cheapest first.
pub fn test() -> Result<(), Failure> {
    setup::ensure()?;
    features::agree()?;
    wasm_prohibitions()?;
    let mut tests = Step::cargo("all tests", &format!("test --release --locked {CRATES}"));
    // Without it the software Vulkan driver complains on every device it opens.
    let runtime = std::env::temp_dir().join(format!("temper-test-{}", std::process::id()));
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        std::fs::create_dir_all(&runtime).map_err(|error| format!("{}: {error}", runtime.display()))?;
        tests = tests.with("XDG_RUNTIME_DIR", runtime.display().to_string());
    }
    // One test uses all cores by itself (burn's CPU backend, software Vulkan); many at once only add memory.
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        tests = tests.with("RUST_TEST_THREADS", "2");
    }
    let model = smollm2::fetch();
    if let Ok(path) = &model {
        tests = tests.with("TEMPER_SMOLLM2", path.display().to_string());
    }

    let [format, host, wasm, bundler] = lints();
    let mut steps = vec![
        format,
        Step::cargo("shaders", "test --release --locked -p temper-shaders"),
        host,
        wasm,
        bundler,
        Step::cargo("Windows", "check --release --locked --target x86_64-pc-windows-msvc -p temper"),
        Step::cargo("macOS", "check --release --locked --target aarch64-apple-darwin -p temper --features metal"),
        Step::cargo("the command", "build --release --locked"),
        tests,
        Step::cargo("tests of the page's bundler", "test --release --locked -p temper-web-bundle"),
    ];
    steps.extend(web::build_steps()?);
    let browser = setup::missing_for_browser_tests();
    if browser.is_empty() {
        steps.extend(web::browser_steps()?);
    }
    let result = run_all(&steps);
    // Empty but for what a driver left behind, or never made: either way its removal cannot matter.
    let _ = std::fs::remove_dir_all(&runtime);
    result?;
    // Last, where it is seen: a green run that left something out says so.
    if let Err(problem) = model {
        println!("== without the SmolLM2 model: {problem}");
    }
    if !browser.is_empty() {
        println!("== without the browser tests, which need {}", browser.join(", "));
    }
    Ok(())
}

/// Formatting and lints.
pub fn lint() -> Result<(), Failure> {
    setup::ensure_rust()?;
    features::agree()?;
    wasm_prohibitions()?;
    run_all(&lints())
}

fn lints() -> [Step; 4] {
    let kernels = if cfg!(target_os = "macos") { "metal" } else { "vulkan" };
    let host = format!("clippy --release --locked {CRATES} --all-targets --features temper/{kernels} -- -D warnings");
    [
        Step::cargo("format", "fmt --all --check"),
        Step::cargo("lints", &host),
        Step::cargo(
            "lints for wasm32",
            "clippy --release --locked --target wasm32-unknown-unknown -p temper-engine -p temper-web -- -D warnings",
        )
        .with("CLIPPY_CONF_DIR", wasm_configuration().display().to_string()),
        Step::cargo(
            "lints of the page's bundler",
            "clippy --release --locked -p temper-web-bundle --all-targets -- -D warnings",
        ),
    ]
}

fn wasm_configuration() -> std::path::PathBuf {
    root().join("tests/clippy-wasm")
}

/// Hands the wasm32 lint one use of each thing that it must refuse, and sees that it does. Takes a second.
fn wasm_prohibitions() -> Result<(), Failure> {
    let folder = wasm_configuration();
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).map_err(|e| format!("{}: {e}", folder.join(name).display()))
    };
    let configuration = read("clippy.toml")?;
    let prohibited = prohibited_std_paths(&configuration);
    let output = Command::new("clippy-driver")
        .args("--edition 2024 --crate-type lib --emit metadata --target wasm32-unknown-unknown".split(' '))
        .args("-D clippy::disallowed_types -D clippy::disallowed_methods --error-format short -o".split(' '))
        .args([std::env::temp_dir().join(format!("temper-forbidden-{}.rmeta", std::process::id()))])
        .arg(folder.join("forbidden.rs"))
        .env("CLIPPY_CONF_DIR", &folder)
        .output()
        .map_err(|error| format!("clippy-driver could not be started: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    let missed = missed(&prohibited, &messages);
    if output.status.success() || prohibited.is_empty() || !missed.is_empty() {
        return Err(format!(
            "the wasm32 lint does not refuse everything that {} forbids; missed: {missed:?}\n{messages}",
            Path::new("tests/clippy-wasm/clippy.toml").display()
        ));
    }
    println!("== the wasm32 lint refuses all {} things that it must", prohibited.len());
    Ok(())
}

/// The `std::` paths that a clippy configuration forbids, one entry a line.
fn prohibited_std_paths(configuration: &str) -> Vec<&str> {
    configuration
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("{ path = \""))
        .filter_map(|rest| rest.split('"').next())
        .filter(|path| path.starts_with("std::"))
        .collect()
}

/// Those of `prohibited` that clippy's messages do not name.
fn missed<'a>(prohibited: &[&'a str], messages: &str) -> Vec<&'a str> {
    prohibited
        .iter()
        .copied()
        .filter(|path| {
            !messages.contains(&format!("disallowed method `{path}`"))
                && !messages.contains(&format!("disallowed type `{path}`"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prohibition_that_clippy_did_not_enforce_is_reported() {
        let configuration = "
            # { path = \"std::fs::copy\" }
            { path = \"std::fs::read\", reason = \"\" },
            { path = \"std::fs::read_dir\", reason = \"\" },
            { path = \"pollster::block_on\", reason = \"\" },";
        let prohibited = prohibited_std_paths(configuration);
        assert_eq!(prohibited, ["std::fs::read", "std::fs::read_dir"]);
        let messages = "forbidden.rs:1:1: error: use of a disallowed method `std::fs::read_dir`";
        assert_eq!(missed(&prohibited, messages), ["std::fs::read"]);
    }
}
