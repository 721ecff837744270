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
//! wants vector instructions.
//!
//! Two steps run at a time, and cargo lets only one of its commands into the target folder. So the tests are run without
//! cargo, see [`binaries`]: while they, and later the browser tests, take one half of the machine, the other compiles on.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::step::{Step, run_all};
use crate::{Failure, binaries, cooperative, features, format, kill, markdown, root, setup, smollm2, web};

/// All crates but the page's bundler, see above.
pub const CRATES: &str = "--workspace --exclude temper-web-bundle";

/// `test`: everything, or the steps of these names.
pub fn test(only: &[&str]) -> Result<(), Failure> {
    known(only, &steps(&[], None)?)?;
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    // Whoever repeats one step has seen to the rest, or reads what is missing.
    if only.is_empty() {
        setup::ensure()?;
    }
    let mut left_out = Vec::new();
    let browser = setup::missing_for_browser_tests();
    // What a test may lack: instructions of the processor, which nobody can install, and what is not here all the same.
    let mut absent = vec!["instructions"];
    absent.extend(setup::TOOLS.iter().filter(|tool| !(tool.present)()).map(|tool| tool.package));
    let mut environment = Vec::new();
    let mut driver = None;
    if wanted(TESTS) {
        match cooperative::fetch() {
            Ok(folder) => driver = Some(folder),
            Err(problem) => {
                println!("== without a driver that has cooperative matrices: {problem}");
                absent.push(cooperative::THING);
            }
        }
        match smollm2::fetch() {
            Ok(path) => environment.push(("TEMPER_SMOLLM2", path.display().to_string())),
            Err(problem) => {
                println!("== without the SmolLM2 model: {problem}");
                absent.push("smollm2");
            }
        }
    }
    // A test that leaves itself out for any other reason fails.
    environment.push(("TEMPER_MAY_SKIP", absent.join(" ")));
    let mut steps = steps(&environment, driver)?;
    if !browser.is_empty() {
        let needs = browser.join(", ");
        for step in steps.iter().filter(|step| web::BROWSER.contains(&step.name()) && wanted(step.name())) {
            left_out.push(format!("SKIPPED {}: it needs {needs}", step.name()));
        }
        steps.retain(|step| !web::BROWSER.contains(&step.name()));
    }
    steps.retain(|step| wanted(step.name()));
    left_out.extend(run_all(steps)?);
    // Last, where it is seen: a run that left something out does not end like one that did not.
    if !left_out.is_empty() {
        left_out.sort();
        println!("== but NOT EVERYTHING was tested:\n   {}", left_out.join("\n   "));
    }
    Ok(())
}

/// Fails if one of `names` is no step's.
fn known(names: &[&str], steps: &[Step]) -> Result<(), Failure> {
    let all: Vec<&str> = steps.iter().map(Step::name).collect();
    match names.iter().find(|name| !all.contains(name)) {
        Some(unknown) => Err(format!("there is no step {unknown:?}; there are {}", all.join(", "))),
        None => Ok(()),
    }
}

/// `test --list`: the steps' names and what each runs.
pub fn list() -> Result<(), Failure> {
    steps(&[], None)?.iter().for_each(|step| println!("{:<17} {}", step.name(), step.line()));
    Ok(())
}

/// Formatting and lints.
pub fn lint() -> Result<(), Failure> {
    setup::ensure_rust()?;
    run_all(lints()).map(|_| ())
}

/// The step that builds all tests, and then runs them.
const TESTS: &str = "tests";

/// Everything, cheapest first. `environment` is for the tests, `driver` the folder of one with cooperative matrices.
fn steps(environment: &[(&'static str, String)], driver: Option<PathBuf>) -> Result<Vec<Step>, Failure> {
    let mut environment = environment.to_vec();
    // One test uses all cores by itself (burn's CPU backend, software Vulkan); many at once only add memory.
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        environment.push(("RUST_TEST_THREADS", "2".into()));
    }
    // Without a folder for it the software Vulkan driver complains on every device it opens.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        environment.push(("XDG_RUNTIME_DIR", std::env::temp_dir().display().to_string()));
    }
    let with_environment = |step| environment.iter().fold(step, |step: Step, (name, value)| step.with(name, value));
    let root = std::fs::canonicalize(root()).map_err(|error| format!("{}: {error}", root().display()))?;
    let mut steps = lints();
    let [bundler, wasm] = [steps.pop(), steps.pop()].map(|step| step.expect("there are lints"));
    steps.extend([
        with_environment(Step::cargo("shaders", "test --release --locked -p temper-shaders")),
        Step::cargo(
            TESTS,
            &format!("test --release --locked {CRATES} --no-run --message-format json-render-diagnostics"),
        )
        .then({
            let environment = environment.clone();
            // The tests of the shaders have had their turn.
            move |messages| binaries::steps(messages, &root, "shaders", &environment, driver.as_deref())
        }),
        // Nothing is left to compile for these two, or the tests have another build of burn than the command has.
        Step::cargo("command", "build --release --locked").after(&[TESTS]),
        Step::check("interruptions", kill::few).after(&["command"]),
        Step::cargo("examples", &format!("test --doc --release --locked {CRATES}")).after(&[TESTS]),
    ]);
    // Early, since the browser tests wait for it.
    steps.extend(web::build_steps()?);
    steps.extend(web::browser_steps()?);
    steps.extend([
        wasm,
        Step::cargo("windows", "check --release --locked --target x86_64-pc-windows-msvc -p temper"),
        Step::cargo("macos", "check --release --locked --target aarch64-apple-darwin -p temper --features metal"),
        bundler,
        Step::cargo("bundler", "test --release --locked -p temper-web-bundle"),
    ]);
    Ok(steps)
}

/// Cheapest first; the last two can wait for the tests.
fn lints() -> Vec<Step> {
    let kernels = if cfg!(target_os = "macos") { "metal" } else { "vulkan" };
    let host = format!("clippy --release --locked {CRATES} --all-targets --features temper/{kernels} -- -D warnings");
    vec![
        Step::check("format", format::check),
        Step::check("markdown", markdown::check),
        Step::check("features", features::agree),
        Step::check("prohibitions", wasm_prohibitions),
        Step::cargo("lints", &host),
        Step::cargo(
            "lints-wasm",
            "clippy --release --locked --target wasm32-unknown-unknown -p temper-engine -p temper-web -- -D warnings",
        )
        .with("CLIPPY_CONF_DIR", wasm_configuration().display().to_string()),
        Step::cargo("lints-bundler", "clippy --release --locked -p temper-web-bundle --all-targets -- -D warnings"),
    ]
}

fn wasm_configuration() -> PathBuf {
    root().join("tests/clippy-wasm")
}

/// Hands the wasm32 lint one use of each thing that it must refuse, and sees that it does. Takes a second.
fn wasm_prohibitions() -> Result<String, Failure> {
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
    Ok(format!("the wasm32 lint refuses all {} things that it must", prohibited.len()))
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
    fn every_step_has_a_name_of_its_own_and_waits_for_steps_that_there_are() {
        let steps = steps(&[("NAME", "value".into())], None).unwrap();
        let names: Vec<&str> = steps.iter().map(Step::name).collect();
        let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        for step in &steps {
            known(step.waits_for(), &steps).unwrap_or_else(|problem| panic!("{}: {problem}", step.name()));
        }
        let problem = known(&["lints", "lint"], &steps).unwrap_err();
        assert!(problem.contains("no step \"lint\"") && problem.contains("lints-wasm"), "{problem}");
    }

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
