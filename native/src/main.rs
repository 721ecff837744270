//! The `temper` command: reads arguments, runs one command, prints an error once, and exits with its code.
//!
//! 0 is success (also when the reader of our output went away), 1 a run that failed, 2 something that was asked for and
//! cannot be, 130 what was stopped with Ctrl-C: a run that can be resumed, or a file of which nothing is left.

mod calibrating;
mod cli;
mod commands;
mod comparison;
mod doubts;
mod figures;
mod files;
mod inputs;
mod interrupt;
mod landscape;
mod memory;
mod meter;
mod output;
mod place;
mod plan;
mod progress;
mod report;
mod run_config;
mod run_folder;
mod settings;
mod shelf;
mod templates;
mod tensorboard;
mod training_set;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::process::ExitCode;
use std::sync::Arc;

use cli::{Cli, Command};
use interrupt::{INTERRUPTED, Interrupted};
use temper_engine::{compute_on_this_thread, keep_on, leave_compiled, lost};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    quiet_display_driver();
    interrupt::ignore_file_size_signal();
    let Cli { global, command } = Cli::of(&std::env::args_os().collect::<Vec<_>>()).unwrap_or_else(|said| said.exit());
    let level = ["warn", "temper=info,temper_engine=info,warn", "temper=debug,temper_engine=debug,info"];
    let default = level[usize::from(global.verbose).min(level.len() - 1)];
    let filter = EnvFilter::try_from_env("TEMPER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).init();

    compute_on_this_thread(threads());
    if let Some(cache) = shelf::Cache::of_this_machine() {
        keep_on(Arc::new(cache));
    }
    hush_after_loss();
    let run = || match command {
        Command::Train(args) => commands::train::run(args, &global),
        Command::Compare(args) => commands::compare::run(&args, &global),
        Command::Plan(args) => commands::plan::run(args, &global),
        Command::Config(args) => commands::config::run(args, &global),
        Command::Init(args) => commands::init::run(args),
        Command::Eval(args) => commands::eval::run(args, &global),
        Command::Scan(args) => commands::scan::run(args, &global),
        Command::Devices(args) => commands::devices::run(args, &global),
        Command::Generate(args) => commands::generate::run(args, &global),
        Command::Chat(args) => commands::chat::run(args, &global),
        Command::Bench(args) => commands::bench::run(args, &global),
        Command::Export(args) => commands::export::run(&args),
        Command::Quantize(args) => commands::quantize::run(args),
        Command::Fabricate(args) => commands::fabricate::run(args),
        Command::Loss(args) => commands::loss::run(args, &global),
        Command::Logits(args) => commands::logits::run(args, &global),
        Command::Web(args) => commands::web::run(args, &global),
    };
    // Libraries panic where a device is lost: that is no bug of theirs or ours.
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| match lost() {
        Some(error) => Err(error.into()),
        None => resume_unwind(panic),
    });
    if lost().is_none() {
        leave_compiled();
    }
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        let _ = writeln!(io::stderr(), "temper: {interrupted}");
        return ExitCode::from(INTERRUPTED);
    }
    if interrupt::stopped() {
        let _ = writeln!(io::stderr(), "temper: {error:#}");
        return ExitCode::from(INTERRUPTED);
    }
    // Nobody is left to tell if stderr is gone too.
    let _ = writeln!(io::stderr(), "temper: error: {error:#}");
    ExitCode::from(if is_bad_input(&error) { 2 } else { 1 })
}

/// Threads for the CPU: as many as rayon would take.
fn threads() -> usize {
    let asked =
        std::env::var("RAYON_NUM_THREADS").ok().and_then(|number| number.parse().ok()).filter(|&number| number > 0);
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
}

/// Leaves unsaid what libraries panic about once a device is lost, also on threads of theirs: it follows from the loss,
/// which is the error that is told.
fn hush_after_loss() {
    let told = take_hook();
    set_hook(Box::new(move |panic| {
        if lost().is_none() {
            told(panic);
        }
    }));
}

/// On Linux without a desktop session, Mesa's Vulkan drivers ask for a display although nothing is shown, and Wayland's
/// library complains on stderr that `XDG_RUNTIME_DIR` is not set. With a path at which there is no socket it finds no
/// display and says nothing. The path does not exist, so nobody can put a socket there and nothing has to be removed.
fn quiet_display_driver() {
    #[cfg(target_os = "linux")]
    if std::env::var_os("XDG_RUNTIME_DIR").is_none_or(|folder| folder.is_empty()) {
        // SAFETY: the first thing that `main` does, before any thread is started that could read the environment.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", "/nonexistent") };
    }
}

fn is_bad_input(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<temper_engine::Error>().is_some_and(|e| e.is_bad_input()))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_errors_kind_decides_the_exit_code_through_any_context() {
        let bad: Result<(), _> = Err(temper_engine::Error::Device { problem: "none".into() });
        assert!(is_bad_input(&bad.context("while starting").unwrap_err()));
        for failed in [
            temper_engine::Error::Kernel { name: "gate".into(), message: "refused".into() },
            temper_engine::Error::Lost { problem: "the GPU stopped answering".into() },
        ] {
            let failed: Result<(), _> = Err(failed);
            assert!(!is_bad_input(&failed.context("while training").unwrap_err()));
        }
    }
}
