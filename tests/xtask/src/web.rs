//! `web build|serve|test`: the page, from the engine compiled for the browser to the tests that drive a real one.
//!
//! [`build`] compiles `temper-web` for wasm32 and lets `temper-web-bundle` put `web/dist` together, which [`serve`] shows and
//! [`test`] drives Chromium through. JavaScript is not built at all; npm brings only what the tests need.

use std::path::PathBuf;
use std::process::Command;

use crate::step::{Step, run_in_order};
use crate::{Failure, root, setup};

/// Built for a browser's vector instructions: every browser with WebGPU has them, and the CPU fallback needs them.
const FLAGS: &str = "-C target-feature=+simd128";
const DIST: &str = "web/dist";

/// The steps that drive a browser.
pub const BROWSER: [&str; 3] = ["npm", "browser", "browser-timed"];

/// Puts `web/dist` together.
pub fn build() -> Result<(), Failure> {
    setup::ensure_rust()?;
    run_in_order(&build_steps()?)
}

/// Builds the page and serves it until Ctrl-C.
pub fn serve() -> Result<(), Failure> {
    build()?;
    let site = root().join(DIST).display().to_string();
    run_in_order(&[Step::cargo("server", "run --release --locked -- web --site").argument(site)])
}

/// Builds the page and runs the browser tests.
pub fn test() -> Result<(), Failure> {
    setup::ensure()?;
    let mut steps = build_steps()?;
    steps.push(Step::cargo("command", "build --release --locked"));
    steps.extend(browser_steps()?);
    run_in_order(&steps)
}

/// Compile, bundle.
pub fn build_steps() -> Result<Vec<Step>, Failure> {
    let module = target_folder()?.join("wasm32-unknown-unknown/web/temper_web.wasm");
    Ok(vec![
        Step::cargo("module", "build --locked --profile web --target wasm32-unknown-unknown -p temper-web")
            .with("RUSTFLAGS", FLAGS),
        Step::cargo("page", "run --release --locked -p temper-web-bundle --")
            .argument(module.display().to_string())
            .argument(DIST)
            .after(&["module"]),
    ])
}

/// The tests in Chromium, once the page and the command are built.
pub fn browser_steps() -> Result<Vec<Step>, Failure> {
    let temper = target_folder()?.join("release").join(format!("temper{}", std::env::consts::EXE_SUFFIX));
    // npm is a script on Windows, which only its shell finds.
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let node = |name, file: &str| {
        Step::program(name, "node", &format!("--test {file}"))
            .inside("web/tests")
            .with("TEMPER", temper.display().to_string())
            .after(&["npm", "page", "command"])
    };
    Ok(vec![
        Step::program("npm", npm, "ci --no-audit --no-fund").inside("web/tests"),
        node("browser", "page.test.mjs"),
        // What it measures is only true where nothing else runs.
        node("browser-timed", "timed.test.mjs").alone(),
    ])
}

/// Where cargo builds: the `CARGO_TARGET_DIR`, the configuration's, or `target`.
pub fn target_folder() -> Result<PathBuf, Failure> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args("metadata --locked --no-deps --format-version 1".split(' '))
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo metadata could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text_field(&text, "target_directory").map(PathBuf::from).ok_or("cargo metadata names no target folder".into())
}

/// A field of a JSON text whose value is a path: text in which only `\` and `"` are written specially.
pub fn text_field(json: &str, name: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    let mut value = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_is_read_from_the_metadata() {
        let json = r#"{"packages":[],"target_directory":"C:\\a \"b\"\\target","version":1}"#;
        assert_eq!(text_field(json, "target_directory").as_deref(), Some(r#"C:\a "b"\target"#));
        assert_eq!(text_field(json, "version"), None);
        assert_eq!(text_field(r#"{"cut":"off"#, "cut"), None);
    }

    #[test]
    fn the_browser_tests_are_known_by_name() {
        let steps = browser_steps().unwrap();
        let names: Vec<&str> = steps.iter().map(Step::name).collect();
        assert_eq!(names, BROWSER);
    }

    #[test]
    fn the_module_is_compiled_before_it_is_bundled_and_only_it_gets_the_browsers_flags() {
        let lines: Vec<String> = build_steps().unwrap().iter().map(|step| step.line()).collect();
        let [compile, bundle] = &lines[..] else { panic!("{lines:?}") };
        assert!(compile.starts_with("RUSTFLAGS='-C target-feature=+simd128' cargo build"), "{compile}");
        assert!(!bundle.contains("RUSTFLAGS") && bundle.contains("temper_web.wasm"), "{bundle}");
    }
}
