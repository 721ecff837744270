//! `cargo xtask`: the project's own commands, the same on a laptop and in automation.
//!
//! Standard library only, so that it compiles in seconds before anything else does. Each subcommand is one file:
//! [`checks`] (`test`, `lint`), [`cooperative`], [`doctor`], [`hostile`], [`kill`], [`smollm2`], [`study`], [`web`]. [`binaries`] lists the tests that cargo
//! has built, [`features`] guards the build time, [`format`] finds every file, [`markdown`] reads the documents, [`setup`] knows
//! what the machine must offer, and
//! [`step`] runs and times what the others list.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to whoever runs it")]

mod binaries;
mod checks;
mod cooperative;
mod doctor;
mod features;
mod format;
mod hostile;
mod kill;
mod markdown;
mod setup;
mod smollm2;
mod step;
mod study;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <COMMAND>

  test      install what the tests need (Debian, Ubuntu; else say how), then run everything, cheapest first
            --list: the names of its steps; --only NAME...: these alone
  lint      formatting, Markdown and lints only, for the host and for wasm32
  fmt       format every Rust file
  doctor    say what this machine has and lacks for building, testing and training
  kill      interrupt runs of the built command at random moments, go on with them, and compare what they leave to the bit
            --runs N; --alterations N: of run folders, which must be refused or make no difference; --seed S
  hostile   give broken and hostile files to everything that reads one, ten minutes without options
            --minutes M | --inputs N (of each target); --target NAME; --seed S
  smollm2   fetch the SmolLM2-135M test model (a 93 MB download), check it, print its path
  cooperative  make the software driver with cooperative matrices that kernels for tensor cores are tested on, print its folder
  study     train what STUDY.md compares and write its tables: hours, and the same command goes on where it was
            --only NAME: one part, may be repeated; --out DIR; --tables: train nothing
  web       build: put the page together in web/dist; serve: build it and show it; test: build it and run the browser tests";

/// Why a subcommand stopped, in words for the user.
type Failure = String;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["test"] => checks::test(&[]),
        ["test", "--list"] => checks::list(),
        ["test", "--only", ref names @ ..] if !names.is_empty() => checks::test(names),
        ["lint"] => checks::lint(),
        ["fmt"] => format::write(),
        ["doctor"] => doctor::run(),
        ["kill", ref arguments @ ..] => kill::run(arguments),
        ["hostile", ref options @ ..] => hostile::run(options),
        ["cooperative"] => cooperative::fetch().map(|path| println!("{}", path.display())),
        ["smollm2"] => smollm2::fetch().map(|path| println!("{}", path.display())),
        ["study", ref arguments @ ..] => study::run(arguments),
        ["web", "build"] => web::build(),
        ["web", "serve"] => web::serve(),
        ["web", "test"] => web::test(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            if !arguments.is_empty() {
                eprintln!("cargo xtask: there is no command \"{}\"\n", arguments.join(" "));
            }
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("cargo xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root. Asked at run time, because a shared target folder outlives a checkout.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(here).join("../..")
}
