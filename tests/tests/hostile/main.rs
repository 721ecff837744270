//! The standing campaign: broken and hostile files are given to everything that reads what was downloaded, and none may
//! end in a panic, a signal, a hang or more than a gibibyte of memory.
//!
//! Each target runs in a process of its own, in which one input follows the other; its parent watches it (`watch.rs`) and
//! starts it anew behind an input that ended it. An input is a function of target, seed and number (`mutate.rs`,
//! `templates.rs`), so a finding is repeated by its number alone; it is saved all the same.
//!
//! In `cargo test` a minute in all; `cargo xtask hostile` as long as one likes.
#![cfg(unix)]

mod mutate;
mod seeds;
mod targets;
mod templates;
mod watch;

use targets::Target;

/// Seconds for all targets together where nothing is said.
const SECONDS: f64 = 60.0;

#[test]
fn no_hostile_input_ends_the_program() {
    let wish = watch::Wish::from_environment();
    let chosen: Vec<Target> = match &wish.target {
        Some(name) => vec![Target::named(name)],
        None => Target::ALL.to_vec(),
    };
    let seconds = wish.seconds.unwrap_or(SECONDS) / chosen.len() as f64;
    let mut findings = Vec::new();
    for target in chosen {
        findings.extend(watch::campaign(target, wish.seed, seconds, wish.inputs));
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// The process that is watched; alone it has nothing to do.
#[test]
#[ignore = "started by the test above"]
fn child() {
    watch::child();
}

#[test]
fn a_panic_a_hang_an_abort_and_too_much_memory_are_findings() {
    let findings = watch::campaign(Target::Broken, 0, 60.0, Some(targets::BROKEN_INPUTS));
    let found = findings.join("\n");
    assert_eq!(findings.len(), 4, "{found}");
    for expected in ["panicked", "took more than", "signal", "on purpose"] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn an_input_is_a_function_of_its_seed_and_number() {
    for target in Target::ALL {
        let seeds = target.seeds();
        let input = |number| mutate::input(target, &seeds, 7, number);
        assert!((0..20).all(|number| input(number) == input(number)), "{}", target.name());
        let distinct: std::collections::BTreeSet<_> = (0..50).map(input).collect();
        assert!(distinct.len() > 40, "{}: {} of 50 inputs differ", target.name(), distinct.len());
    }
}
