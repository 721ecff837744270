//! What a test does without something that it needs and the repository does not hold.
//!
//! libtest knows no test that leaves itself out while it runs: one that returns has passed. So it says
//! `SKIPPED name: reason` past libtest's capture, which `cargo xtask test` repeats at its end; and where that command has
//! seen to it that the thing is there (`TEMPER_MAY_SKIP` is set, and does not list it), its absence is a failure.

use std::io::Write;

/// Says that `test`, a test's function, is left out for lack of `thing`.
///
/// # Panics
/// Where `TEMPER_MAY_SKIP` is set and `thing` is none of its words.
pub fn skip<T: Fn()>(test: T, thing: &str, reason: &str) {
    let test = std::any::type_name_of_val(&test);
    match line(test, thing, reason, std::env::var("TEMPER_MAY_SKIP").ok().as_deref()) {
        // Not `eprintln!`, which libtest keeps to itself where a test passes.
        Ok(line) => std::io::stderr().write_all(line.as_bytes()).expect("standard error takes a line"),
        Err(problem) => panic!("{problem}"),
    }
}

/// What is said of a test that may be left out; `allowed` are the things that may lack, all of them where `None`.
fn line(test: &str, thing: &str, reason: &str, allowed: Option<&str>) -> Result<String, String> {
    if allowed.is_none_or(|words| words.split_whitespace().any(|word| word == thing)) {
        Ok(format!("SKIPPED {test}: {reason}\n"))
    } else {
        Err(format!("{thing} is missing, and this test must not be left out: {reason}"))
    }
}

/// Bytes of the SmolLM2 model's GGUF file (98 MB), which `TEMPER_SMOLLM2` names; without it `test` is left out.
///
/// # Panics
/// Where it names no readable file, and as [`skip`].
pub fn smollm2<T: Fn()>(test: T) -> Option<Vec<u8>> {
    let Some(path) = std::env::var_os("TEMPER_SMOLLM2") else {
        skip(test, "smollm2", "TEMPER_SMOLLM2 names no GGUF file (`cargo xtask smollm2` prints a path for it)");
        return None;
    };
    Some(std::fs::read(&path).expect("TEMPER_SMOLLM2 names a readable file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_may_be_left_out_only_where_nobody_forbids_it() {
        let told = Ok("SKIPPED t: no file\n".to_owned());
        assert_eq!(line("t", "model", "no file", None), told);
        assert_eq!(line("t", "model", "no file", Some("tool model")), told);
        assert!(line("t", "model", "no file", Some("")).unwrap_err().contains("no file"));
        assert!(line("t", "model", "no file", Some("models tool")).is_err());
    }
}
