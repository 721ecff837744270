//! `hostile`: the campaign of hostile inputs (`tests/tests/hostile`) for as long as one likes. `cargo xtask test` runs a
//! minute of it.

use std::process::Command;

use crate::checks::CRATES;
use crate::{Failure, root};

/// Each option and the variable by which the test program hears of it.
const OPTIONS: [(&str, &str); 4] = [
    ("--minutes", "TEMPER_HOSTILE_MINUTES"),
    ("--inputs", "TEMPER_HOSTILE_INPUTS"),
    ("--target", "TEMPER_HOSTILE_TARGET"),
    ("--seed", "TEMPER_HOSTILE_SEED"),
];

/// Builds the test program as the tests do, and runs it.
pub fn run(arguments: &[&str]) -> Result<(), Failure> {
    let mut environment = environment(arguments)?;
    if !environment.iter().any(|(name, _)| name.ends_with("MINUTES") || name.ends_with("INPUTS")) {
        environment.push(("TEMPER_HOSTILE_MINUTES", "10"));
    }
    let test = "--test hostile -- no_hostile_input_ends_the_program --exact --nocapture";
    let status = Command::new("cargo")
        .args(format!("test --release --locked {CRATES} {test}").split(' '))
        .envs(environment)
        .current_dir(root())
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("there are findings; each is listed above with its seed and number".into())
    }
}

/// The variables for options with their values.
fn environment<'a>(arguments: &[&'a str]) -> Result<Vec<(&'static str, &'a str)>, Failure> {
    let mut set = Vec::new();
    for pair in arguments.chunks(2) {
        let names = OPTIONS.map(|(name, _)| name).join(", ");
        let known = OPTIONS.iter().find(|(name, _)| *name == pair[0]);
        let (name, variable) = known.ok_or_else(|| format!("hostile has no option {:?}; it has {names}", pair[0]))?;
        let value = pair.get(1).ok_or_else(|| format!("{name} needs a value"))?;
        if *name != "--target" && !value.parse::<f64>().is_ok_and(|number| number >= 0.0 && number.is_finite()) {
            return Err(format!("{name} needs a number, not {value:?}"));
        }
        set.push((*variable, *value));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_variables_and_mistakes_are_named() {
        assert_eq!(
            environment(&["--minutes", "2.5", "--target", "gguf"]).unwrap(),
            [("TEMPER_HOSTILE_MINUTES", "2.5"), ("TEMPER_HOSTILE_TARGET", "gguf")]
        );
        assert!(environment(&["--hours", "1"]).unwrap_err().contains("--minutes, --inputs"));
        assert!(environment(&["--seed"]).unwrap_err().contains("needs a value"));
        assert!(environment(&["--seed", "x"]).unwrap_err().contains("\"x\""));
    }
}
