//! The test programs that cargo has built, as steps: so that two run at a time, which `cargo test` does not do.

use std::path::Path;

use crate::checks::CRATES;
use crate::step::Step;
use crate::{Failure, cooperative, web};

/// Those that take longest, which begin first so that none is left over at the end.
const LONG: [&str; 6] = ["tests/models", "tests/smollm2", "tests/kernels", "tests/loss", "native/cli", "tests/hostile"];

/// A step for each test program in what `cargo test --no-run --message-format json` wrote, but those of the folder
/// `except`; `environment` is for all. They are named by their crate's folder: `native/cli`, and `native/unit` for the
/// tests inside it. Where there is a driver with cooperative matrices, tests that need one run on it, in steps of their own.
pub fn steps(
    messages: &str,
    root: &Path,
    except: &str,
    environment: &[(&'static str, String)],
    driver: Option<&Path>,
) -> Result<Vec<Step>, Failure> {
    let mut found = Vec::new();
    for message in messages.lines() {
        // Not the target's own field of that name: a program may have tests inside and be no test itself.
        let profile = message.split_once("\"profile\":{").map_or("", |(_, rest)| rest);
        let profile = profile.split('}').next().unwrap_or_default();
        let is_test = message.contains("\"reason\":\"compiler-artifact\"") && profile.contains("\"test\":true");
        let Some(program) = web::text_field(message, "executable").filter(|_| is_test) else { continue };
        let field = |name: &str| {
            web::text_field(message, name).ok_or_else(|| format!("cargo names no {name} of a test: {message}"))
        };
        let (manifest, target) = (field("manifest_path")?, target(message)?);
        let crate_folder = Path::new(&manifest).parent().ok_or_else(|| format!("{manifest} lies in no folder"))?;
        let short = crate_folder.strip_prefix(root).unwrap_or(crate_folder).display().to_string();
        if short == except {
            continue;
        }
        let mut name = short.clone();
        name += "/";
        name += if target.is_test { &target.name } else { "unit" };
        let which = if target.is_test { format!("--test {}", target.name) } else { format!("--{}", target.kind) };
        // Not by `--package`: another selection has other features, and compiles burn again.
        let repeat = format!("cargo test --release --locked {CRATES} {which}");
        let mut step = Step::program(&name, &program, "")
            .inside(crate_folder)
            .repeated_by(repeat)
            .hidden("CARGO_MANIFEST_DIR", crate_folder.display().to_string());
        for (name, value) in environment {
            step = step.with(name, value.as_str());
        }
        if let (Some(driver), true) = (driver, cooperative::PROGRAMS.contains(&name.as_str())) {
            step = step.argument("--skip").argument(cooperative::FILTER);
            let mut more = cooperative::step(&format!("{name}-cooperative"), &program, crate_folder, driver);
            // The driver is there, so none may be left out for want of it.
            for (name, value) in environment {
                more = more.with(name, value.as_str());
            }
            found.push(more);
        }
        found.push(step);
    }
    if found.is_empty() {
        return Err("cargo has built no test".into());
    }
    found.sort_by_key(|step| LONG.iter().position(|long| *long == step.name()).unwrap_or(LONG.len()));
    Ok(found)
}

struct Target {
    name: String,
    kind: &'static str,
    is_test: bool,
}

fn target(message: &str) -> Result<Target, Failure> {
    let inside = message.split_once("\"target\":{").map(|(_, rest)| rest).unwrap_or_default();
    let name = web::text_field(inside, "name").ok_or_else(|| format!("cargo names no target: {message}"))?;
    let kinds = inside.split_once("\"kind\":[").and_then(|(_, rest)| rest.split_once(']')).map(|(kinds, _)| kinds);
    let kind = match kinds.unwrap_or_default() {
        kinds if kinds.contains("\"test\"") => "test",
        kinds if kinds.contains("\"bin\"") => "bins",
        _ => "lib",
    };
    Ok(Target { name, kind, is_test: kind == "test" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///t/engine#temper-engine@0.1.0","manifest_path":"/t/engine/Cargo.toml","target":{"kind":["lib"],"crate_types":["lib"],"name":"temper_engine","src_path":"/t/engine/src/lib.rs","edition":"2024","doc":true,"doctest":false,"test":true},"profile":{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":false},"features":[],"filenames":["/d/libtemper_engine.rlib"],"executable":null,"fresh":true}
{"reason":"compiler-artifact","package_id":"path+file:///t/native#temper@0.1.0","manifest_path":"/t/native/Cargo.toml","target":{"kind":["bin"],"crate_types":["bin"],"name":"temper","src_path":"/t/native/src/main.rs","edition":"2024","doc":true,"doctest":false,"test":true},"profile":{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":false},"features":[],"filenames":["/d/temper"],"executable":"/d/temper","fresh":true}
{"reason":"compiler-artifact","manifest_path":"/t/native/Cargo.toml","target":{"kind":["bin"],"crate_types":["bin"],"name":"temper","src_path":"/t/native/src/main.rs","edition":"2024","doc":true,"doctest":false,"test":true},"profile":{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":true},"features":[],"filenames":["/d/deps/temper-1"],"executable":"/d/deps/temper-1","fresh":true}
{"reason":"compiler-artifact","manifest_path":"/t/shaders/Cargo.toml","target":{"kind":["test"],"crate_types":["bin"],"name":"kernels","src_path":"/t/shaders/tests/kernels/main.rs","edition":"2024","doc":true,"doctest":false,"test":true},"profile":{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":true},"features":[],"executable":"/d/deps/kernels-2","fresh":true}
{"reason":"compiler-artifact","manifest_path":"/t/tests/Cargo.toml","target":{"kind":["test"],"crate_types":["bin"],"name":"models","src_path":"/t/tests/tests/models.rs","edition":"2024","doc":true,"doctest":false,"test":true},"profile":{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":true},"features":[],"executable":"/d/deps/models-3","fresh":true}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn every_test_program_is_a_step_and_nothing_else_is() {
        let steps = steps(MESSAGES, Path::new("/t"), "shaders", &[("RUST_TEST_THREADS", "2".into())], None).unwrap();
        let lines: Vec<String> = steps.iter().map(|step| format!("{}: {}", step.name(), step.line())).collect();
        assert_eq!(
            lines,
            [
                "tests/models: RUST_TEST_THREADS=2 cargo test --release --locked --workspace --exclude temper-web-bundle --test models",
                "native/unit: RUST_TEST_THREADS=2 cargo test --release --locked --workspace --exclude temper-web-bundle --bins",
            ]
        );
    }

    #[test]
    fn a_build_without_a_test_or_with_an_unreadable_one_is_a_failure() {
        let root = Path::new("/t");
        assert!(steps(r#"{"reason":"build-finished","success":true}"#, root, "", &[], None).is_err());
        let nameless = MESSAGES.replace("\"name\":\"models\",", "");
        assert!(steps(&nameless, root, "", &[], None).is_err());
        assert!(steps(&MESSAGES.replace("manifest_path", "manifest"), root, "", &[], None).is_err());
    }

    #[test]
    fn tests_for_tensor_cores_run_where_there_is_a_driver_for_them_and_only_there() {
        let environment = [("TEMPER_MAY_SKIP", "smollm2".to_owned()), ("RUST_TEST_THREADS", "2".to_owned())];
        let steps = steps(MESSAGES, Path::new("/t"), "shaders", &environment, Some(Path::new("/r"))).unwrap();
        let names: Vec<&str> = steps.iter().map(Step::name).collect();
        assert_eq!(names, ["tests/models", "native/unit", "tests/models-cooperative"]);
        let line = steps[2].line();
        assert!(line.ends_with("/d/deps/models-3 half_precision") && line.contains("RUST_TEST_THREADS=2"), "{line}");
        assert!(line.contains("TEMPER_MAY_SKIP=smollm2 "), "what may be left out elsewhere may be here: {line}");
    }
}
