//! What whoever gave data should know of it: records that are left out, a text that looks like records,
//! conversations without a chat template, what nothing writes of a record, and documents that are measured and trained on;
//! and what a new run is asked for in vain.

use std::fs;

pub use temper_engine::reading::doubts::{
    empty_answers, lost_context, memorised, no_template, not_read, plain_table, plain_text, unwritten,
};
use temper_engine::reading::{EncodeReport, Report, shared, tokens_of};
use temper_engine::words::{counted, plural};
use temper_engine::{Config, Document, Error, Result};

use crate::progress::grouped;

/// What to do about a text that is measured and mixed in.
const APART: &str = "give data.replay a file of its own, such as one half of that file, and measure on the other half";

/// Something to know of a file that was read.
pub struct Doubt {
    /// In short, as it stands beside results.
    pub what: String,
    /// Why, for the first records that it is about.
    reasons: Vec<String>,
}

impl Doubt {
    /// As it is said when the file is read, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let follow = if self.reasons.is_empty() { "" } else { ", the first for these reasons:" };
        let reasons = self.reasons.iter().map(|reason| format!("  {reason}"));
        std::iter::once(format!("warning: {}{follow}", self.what)).chain(reasons)
    }
}

/// How a file was read, as far as it may not be what was meant. `set` is what the file is for.
pub fn of_reading(set: &str, path: &str, records: &Report, encoding: &EncodeReport) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    if records.looks_like_records {
        doubts.push(Doubt { what: format!("{set}: {}", plain_text(path)), reasons: Vec::new() });
    }
    if let Some(separator) = records.looks_like_table {
        doubts.push(Doubt { what: format!("{set}: {}", plain_table(path, separator)), reasons: Vec::new() });
    }
    if encoding.bare > 0 {
        doubts.push(Doubt { what: format!("{set}: {}", no_template(encoding.bare)), reasons: Vec::new() });
    }
    let lost = lost_context(records.kind, &records.unread).into_iter().chain(empty_answers(encoding.empty_answers));
    let unwritten = lost.chain(unwritten(encoding.unwritten));
    doubts.extend(unwritten.map(|line| Doubt { what: format!("{set}: {line}"), reasons: Vec::new() }));
    let skipped = records.skipped + encoding.skipped;
    if skipped > 0 {
        let were = if skipped == 1 { "was" } else { "were" };
        doubts.push(Doubt {
            what: format!("{set}: {} {were} skipped", counted(skipped, "record")),
            reasons: records.problems.iter().chain(&encoding.problems).cloned().collect(),
        });
    }
    doubts
}

/// Refuses one file to be trained on twice, under two names.
///
/// # Errors
/// [`Error::Config`] with both.
pub fn refuse_repeated_file(config: &Config) -> Result<()> {
    let paths = config.data.train.paths();
    let repeated = |(index, path): (usize, &String)| {
        let first = paths[..index].iter().find(|first| are_one(first, path))?;
        Some(format!("data.train: {first} and {path} are one file: leave one out"))
    };
    match paths.iter().enumerate().find_map(repeated) {
        None => Ok(()),
        Some(problem) => Err(Error::Config { problems: vec![problem] }),
    }
}

/// Refuses settings of a new run of which one makes another pointless. What a run was begun with is never refused.
///
/// # Errors
/// [`Error::Config`] with both settings of each pair.
pub fn refuse_contradictions(config: &Config) -> Result<()> {
    let (method, run) = (config.objective.method, &config.run);
    let mut problems = Vec::new();
    if run.baseline == Some(method) {
        problems.push(format!(
            "run.baseline: the baseline is the same objective, {method}, and would only train the same again: give another, or \
             leave it out (--set run.baseline=)"
        ));
    }
    if run.eval_every > 0 && run.evaluations > 0 {
        problems.push(format!(
            "run.evaluations: {} is read where run.eval_every is 0, and that is {}: leave one out",
            run.evaluations, run.eval_every
        ));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Config { problems }) }
}

/// Refuses what a new run is told of measuring where it measures nothing; `set` are its overrides, which may take back the
/// sets of a file that goes on saying how often.
///
/// # Errors
/// [`Error::Config`] with every such setting.
pub fn refuse_unmeasured(config: &Config, set: &[(String, String)]) -> Result<()> {
    let (data, run) = (&config.data, &config.run);
    let sets = [
        ("data.target", data.target.is_some()),
        ("data.hold_out", data.hold_out.is_some()),
        ("data.general", data.general.is_some()),
        ("data.wrong", data.wrong.is_some()),
    ];
    if sets.iter().any(|(_, given)| *given) {
        return Ok(());
    }
    let is_set = |key: &str| set.iter().any(|(name, _)| name == key);
    let taken_back = sets.iter().any(|(key, _)| is_set(key));
    let asked = [
        ("run.eval_every", run.eval_every > 0),
        ("run.evaluations", run.evaluations > 0),
        ("data.measured_tokens", data.measured_tokens.is_some()),
    ];
    let in_vain = asked.into_iter().filter(|(key, asked)| *asked && (is_set(key) || !taken_back));
    let refused = |(key, _): (&str, bool)| {
        let instead = "give data.target, data.hold_out or data.general, or leave it out";
        format!("{key}: is about what is measured, and nothing is: {instead}")
    };
    let problems: Vec<String> = in_vain.map(refused).collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Config { problems }) }
}

/// Whether two paths lead to one file.
fn are_one(one: &str, other: &str) -> bool {
    one == other || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}

/// Refuses one file to be mixed in and measured.
///
/// # Errors
/// [`Error::Config`] naming both settings.
pub fn refuse_measured_replay(config: &Config) -> Result<()> {
    let data = &config.data;
    let Some(replay) = &data.replay else { return Ok(()) };
    let measured = [("target", &data.target), ("general", &data.general), ("wrong", &data.wrong)];
    match measured.into_iter().find(|(_, path)| path.iter().any(|path| are_one(path, replay))) {
        None => Ok(()),
        Some((set, _)) => Err(Error::Config {
            problems: vec![format!(
                "data.replay and data.{set} are one file, {replay}: what is measured must not be trained on, since its loss \
                 would say what was memorised; {APART}"
            )],
        }),
    }
}

/// The documents of replay that are in none of the `measured` sets, each with its name, and a line that says what was left out.
///
/// # Errors
/// [`Error::Data`] where none is left.
pub fn apart(
    replay: Vec<Document>,
    path: &str,
    measured: &[(&str, &[Document])],
) -> Result<(Vec<Document>, Option<String>)> {
    let (all, all_tokens) = (replay.len(), tokens_of(&replay));
    let mut left = replay;
    let mut why = Vec::new();
    for (set, documents) in measured {
        let before = left.len();
        let mut is_shared = shared(&left, documents).first.into_iter();
        left.retain(|_| is_shared.next() != Some(true));
        if left.len() < before {
            why.push(format!("{} in {set}", before - left.len()));
        }
    }
    let (why, gone) = (why.join(", "), all - left.len());
    if gone == 0 {
        return Ok((left, None));
    }
    if left.is_empty() {
        let problem = format!(
            "nothing of it is left to mix in: all of its {} are measured, too ({why}), and what is measured must not be \
             trained on; {APART}",
            counted(all, "document")
        );
        return Err(Error::Data { file: path.into(), problem });
    }
    let are = if gone == 1 { "is" } else { "are" };
    let gone_tokens = all_tokens - tokens_of(&left);
    let line = format!(
        "replay     {} of {} {}, {} {}, {are} left out: also in a set that is measured ({why}), and not to be trained on",
        grouped(gone as u64),
        grouped(all as u64),
        plural(all, "document"),
        grouped(gone_tokens as u64),
        plural(gone_tokens, "token")
    );
    Ok((left, Some(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(numbers: std::ops::Range<u32>) -> Vec<Document> {
        let trained = || vec![true; 4];
        numbers.map(|n| Document { tokens: vec![n; 4], trained: trained(), line: n as usize }).collect()
    }

    #[test]
    fn what_is_measured_is_left_out_of_replay_and_counted_by_its_set() {
        let (target, general) = (documents(0..2), documents(10..13));
        let measured: [(&str, &[Document]); 3] = [("target", &target), ("general", &general), ("wrong", &[])];
        let (left, said) = apart(documents(1..14), "old.txt", &measured).unwrap();
        assert_eq!(left, [documents(2..10), documents(13..14)].concat());
        let words =
            "4 of 13 documents, 16 tokens, are left out: also in a set that is measured (1 in target, 3 in general)";
        assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{said:?}");
        let (left, said) = apart(documents(20..24), "old.txt", &measured).unwrap();
        assert_eq!((left.len(), said), (4, None));
        let Err(error) = apart(documents(10..13), "old.txt", &measured) else { panic!("all of it is measured") };
        let message = error.to_string();
        assert!(error.is_bad_input() && message.starts_with("data set old.txt: nothing of it is left"), "{message}");
        assert!(message.contains("all of its 3 documents are measured, too (3 in general)"), "{message}");
        assert!(message.contains("give data.replay a file of its own"), "{message}");
    }

    fn config(text: &str, set: &[(String, String)]) -> Config {
        Config::parse(&format!("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n{text}"), "x", set).unwrap()
    }

    #[test]
    fn a_baseline_of_the_same_objective_and_two_ways_to_say_how_often_are_refused() {
        let refused = |run: &str, method: &str| {
            let text = format!("target = \"a\"\n[objective]\nmethod = \"{method}\"\n[run]\n{run}");
            refuse_contradictions(&config(&text, &[])).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let same = refused("baseline = \"sft\"\n", "sft");
        assert!(same.contains("run.baseline: the baseline is the same objective, sft"), "{same}");
        assert_eq!(refused("baseline = \"sft\"\n", "eaft"), "");
        let both = refused("eval_every = 4\nevaluations = 3\n", "sft");
        assert!(both.contains("run.evaluations: 3 is read where run.eval_every is 0, and that is 4"), "{both}");
        assert_eq!(refused("eval_every = 4\n", "sft"), "");
        assert_eq!(refused("evaluations = 3\n", "sft"), "");
    }

    #[test]
    fn how_often_nothing_is_measured_is_refused_but_in_a_file_whose_sets_are_taken_back() {
        let refused = |text: &str, set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            refuse_unmeasured(&config(text, &set), &set).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for key in ["run.eval_every", "run.evaluations", "data.measured_tokens"] {
            let found = refused("", &[(key, "4")]);
            assert!(found.contains(&format!("{key}: is about what is measured, and nothing is")), "{found}");
            for given in [("data.target", "a"), ("data.hold_out", "0.1"), ("data.general", "g"), ("data.wrong", "w")] {
                assert_eq!(refused("", &[(key, "4"), given]), "", "{given:?}");
            }
        }
        assert!(refused("[run]\neval_every = 4\n", &[]).contains("run.eval_every: is about"));
        let file = "target = \"a\"\nmeasured_tokens = 9\n[run]\neval_every = 4\n";
        assert_eq!(refused(file, &[("data.target", "")]), "");
        let again = refused(file, &[("data.target", ""), ("run.eval_every", "2")]);
        assert!(again.contains("run.eval_every: ") && !again.contains("measured_tokens"), "{again}");
        assert_eq!(refused("", &[]), "");
    }

    #[test]
    fn one_file_is_not_trained_on_twice_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one.txt", "two.txt"].map(|name| folder.path().join(name));
        [&one, &two].into_iter().for_each(|file| fs::write(file, "a").unwrap());
        let refused = |paths: [&std::path::Path; 2]| {
            let set = [("data.train".to_string(), format!("{paths:?}"))];
            let config = Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "x", &set).unwrap();
            refuse_repeated_file(&config).err().map(|error| error.to_string())
        };
        assert_eq!(refused([&one, &two]), None);
        let again = folder.path().join(".").join("one.txt");
        let said = refused([&one, &again]).expect("one file");
        assert!(said.contains(&format!("{} and ", one.display())) && said.contains("are one file"), "{said}");
    }

    #[test]
    fn one_file_is_not_both_measured_and_mixed_in_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("g.txt");
        fs::write(&file, "a").unwrap();
        let other = folder.path().join(".").join("g.txt");
        let (own, other) = (file.to_str().unwrap(), other.to_str().unwrap());
        let refused = |set: &str, measured: &str, replay: &str| {
            let set = [(format!("data.{set}"), format!("{measured:?}")), ("data.replay".into(), format!("{replay:?}"))];
            let config = Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "x", &set).unwrap();
            refuse_measured_replay(&config).err().map(|error| error.to_string())
        };
        for (measured, replay) in [("embedded:general.txt", "embedded:general.txt"), (own, other), ("gone", "gone")] {
            for set in ["target", "general", "wrong"] {
                let said = refused(set, measured, replay).expect("one file");
                assert!(said.contains(&format!("data.replay and data.{set} are one file, ")), "{said}");
            }
        }
        assert_eq!(refused("general", own, "elsewhere"), None);
    }
}
