//! What whoever gave data should know of it: records that are left out, a text that looks like records, and documents that are
//! measured and trained on.

use std::fs;

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

/// Of a text whose first lines are JSON objects.
pub fn plain_text(path: &str) -> String {
    format!(
        "{path} is read as plain text, as its name says, though its first lines are JSON objects; to have them read as records, \
         let its name end in .jsonl"
    )
}

/// Of a set that is measured, where documents of it are trained on. `held_out` names the file that the set was held out of.
pub fn memorised(set: &str, measured: &[Document], train: &[Document], held_out: Option<&str>) -> Option<String> {
    let count = shared(train, measured).second.into_iter().filter(|is_shared| *is_shared).count();
    let (is, them, their) = if count == 1 { ("is", "it", "its") } else { ("are", "them", "their") };
    let twice = held_out.map_or(String::new(), |file| format!(" ({file} has {them} more than once)"));
    let (some, all) = (grouped(count as u64), grouped(measured.len() as u64));
    let documents = plural(measured.len(), "document");
    let line = format!(
        "{some} of {all} {set} {documents} {is} also in the training data{twice}; {their} loss says what was memorised"
    );
    (count > 0).then_some(line)
}

/// Refuses one file to be mixed in and measured.
///
/// # Errors
/// [`Error::Config`] naming both settings.
pub fn refuse_measured_replay(config: &Config) -> Result<()> {
    let data = &config.data;
    let Some(replay) = &data.replay else { return Ok(()) };
    let is_same = |path: &String| {
        path == replay || fs::canonicalize(path).is_ok_and(|one| fs::canonicalize(replay).is_ok_and(|two| one == two))
    };
    let measured = [("target", &data.target), ("general", &data.general), ("wrong", &data.wrong)];
    match measured.into_iter().find(|(_, path)| path.iter().any(is_same)) {
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

    #[test]
    fn a_measured_set_that_is_trained_on_is_warned_of_with_its_count() {
        let said = |held_out| memorised("target", &documents(0..12), &documents(9..40), held_out);
        let whole = "3 of 12 target documents are also in the training data; their loss says what was memorised";
        assert_eq!(said(None).as_deref(), Some(whole));
        assert!(said(Some("t.jsonl")).is_some_and(|said| said.contains("data (t.jsonl has them more than once); ")));
        let one = memorised("general", &documents(0..1), &documents(0..9), None);
        let alone = "1 of 1 general document is also in the training data; its loss says what was memorised";
        assert_eq!(one.as_deref(), Some(alone));
        assert_eq!(memorised("target", &documents(0..12), &documents(12..40), None), None);
        assert_eq!(memorised("target", &[], &documents(12..40), None), None);
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
