//! `study`: the comparisons behind `STUDY.md`, run by run, and the document's tables out of what they found.
//!
//! A part is a situation (`native/study/NAME.toml`) with the variants that are compared in it. `temper compare` trains what is not
//! there yet, so the same command goes on after an interruption; what it found is copied beside the situation (`NAME.csv`,
//! `NAME.svg`), and what it says goes into the document between the marks of that part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::step::{Step, run_in_order};
use crate::{Failure, root, smollm2, web};

/// What is compared where, cheapest first.
const PARTS: [(&str, &str); 6] = [
    ("wrong", "variants"),
    ("ordinary", "variants"),
    ("replaced-10", "few"),
    ("replaced-30", "few"),
    ("smollm2-full", "few"),
    ("smollm2-lora", "few"),
];
const FOLDER: &str = "native/study";
const DOCUMENT: &str = "STUDY.md";
const DATA: &str = "native/demo/train.jsonl";
/// Which lines of ten have another one's answer.
const REPLACED: [(&str, &[usize]); 2] = [("replaced-10.jsonl", &[3]), ("replaced-30.jsonl", &[1, 4, 7])];
const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Trains what is missing and writes the document's tables. `--only NAME` (may be repeated), `--out DIR`, `--tables` (trains
/// nothing and takes what is there).
pub fn run(arguments: &[&str]) -> Result<(), Failure> {
    let mut only = Vec::new();
    let (mut out, mut train) = (root().join("runs/study"), true);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
        match *argument {
            "--only" => only.push(*value()?),
            "--out" => out = PathBuf::from(value()?),
            "--tables" => train = false,
            other => return Err(format!("study: there is no option \"{other}\"")),
        }
    }
    if let Some(name) = only.iter().find(|name| !PARTS.iter().any(|(part, _)| part == *name)) {
        let all: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
        return Err(format!("study: there is no part \"{name}\"; there are {}", all.join(", ")));
    }
    let chosen = PARTS.iter().filter(|(part, _)| only.is_empty() || only.contains(part));
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    if train {
        run_in_order(&[Step::cargo("command", "build --release --locked")])?;
    }
    let temper = web::target_folder()?.join("release").join(format!("temper{}", std::env::consts::EXE_SUFFIX));
    for (part, variants) in chosen {
        prepare(part, variants, &out)?;
        if train {
            let done = Command::new(&temper)
                .args(["compare", &format!("{part}.toml"), "--device", "cpu", "--out", part])
                .current_dir(&out)
                .status()
                .map_err(|error| format!("{}: {error}", temper.display()))?;
            if !done.success() {
                return Err(format!("the part {part} did not come to its end; the same command goes on with it"));
            }
        }
        publish(part, &out.join(part))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The part's configuration, and the data and the model that it names.
fn prepare(part: &str, variants: &str, out: &Path) -> Result<(), Failure> {
    let of = |name: &str| read(&root().join(FOLDER).join(format!("{name}.toml")));
    let config = format!("{}\n{}", of(part)?, of(variants)?);
    write(&out.join(format!("{part}.toml")), &config)?;
    for (name, lines) in REPLACED.iter().filter(|(name, _)| config.contains(name)) {
        write(&out.join(name), &replaced(&read(&root().join(DATA))?, lines)?)?;
    }
    let model = out.join(MODEL);
    if config.contains(MODEL) && !model.exists() {
        // A link where the system has them, so that reports name no folder of this machine.
        let stored = smollm2::fetch()?;
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(&stored, &model);
        #[cfg(not(unix))]
        let linked = fs::copy(&stored, &model).map(|_| ());
        linked.map_err(|error| format!("{}: {error}", model.display()))?;
    }
    Ok(())
}

/// Records with a question and an answer, of which these of each ten have the answer of the record half the file on.
fn replaced(text: &str, of_ten: &[usize]) -> Result<String, Failure> {
    const ANSWER: &str = ", \"answer\": ";
    let records: Vec<(&str, &str)> = text
        .lines()
        .map(|line| line.rsplit_once(ANSWER).ok_or_else(|| format!("{DATA}: a line has no answer at its end")))
        .collect::<Result<_, _>>()?;
    let line = |(at, (question, answer)): (usize, &(&str, &str))| {
        let other = records[(at + records.len() / 2) % records.len()].1;
        format!("{question}{ANSWER}{}\n", if of_ten.contains(&(at % 10)) { other } else { answer })
    };
    Ok(records.iter().enumerate().map(line).collect())
}

/// Copies what a part found, and puts what it says into the document.
fn publish(part: &str, found: &Path) -> Result<(), Failure> {
    let folder = root().join(FOLDER);
    write(&folder.join(format!("{part}.csv")), &read(&found.join("paths.csv"))?)?;
    write(&folder.join(format!("{part}.svg")), &read(&found.join("frontier.svg"))?)?;
    let document = root().join(DOCUMENT);
    let text = between(&read(&document)?, part, &summary(part, &read(&found.join("report.md"))?))?;
    write(&document, &text)
}

/// Of a comparison's report: how many runs there are, what is compared, and each variant where it learned most.
fn summary(part: &str, report: &str) -> String {
    let runs = report.lines().nth(2).and_then(|line| line.split_once(';')).map_or("", |(runs, _)| runs);
    let answer = report.lines().skip_while(|line| !line.starts_with("## ")).skip(1);
    let answer = answer.take_while(|line| !line.starts_with("## "));
    // Its sentences say what the table says.
    let kept = answer.filter(|line| match line.strip_prefix('|') {
        Some(cells) => line.contains("(100 %)") || cells.starts_with("  |") || cells.contains("---"),
        None => line.starts_with("Each is compared") || line.is_empty() || line.starts_with("The "),
    });
    let mut text = format!("![Learned against lost]({FOLDER}/{part}.svg)\n\n{runs}.\n");
    let mut blank = false;
    for line in kept {
        if !(blank && line.is_empty()) {
            text += &format!("{line}\n");
        }
        blank = line.is_empty();
    }
    text.trim_end().replace(" (100 %)", "")
}

/// The document with another text between a part's marks.
fn between(document: &str, part: &str, text: &str) -> Result<String, Failure> {
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- /{part} -->"));
    let missing = || format!("{DOCUMENT}: has no {} and {end} for this part", begin.trim());
    let (before, rest) = document.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n{text}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_replaced_in_as_many_of_ten_and_questions_never() {
        let text: String = (0..20).map(|n| format!("{{\"question\": \"q{n}\", \"answer\": \"a{n}\"}}\n")).collect();
        let found = replaced(&text, &[1, 4, 7]).unwrap();
        let other: Vec<usize> =
            (0..20).filter(|n| !found.contains(&format!("\"q{n}\", \"answer\": \"a{n}\"}}"))).collect();
        assert_eq!(other, [1, 4, 7, 11, 14, 17]);
        assert!(found.contains("\"q1\", \"answer\": \"a11\"") && found.lines().count() == 20);
        assert!(replaced("{}\n", &[1]).is_err());
    }

    #[test]
    fn a_report_is_put_between_its_marks_and_nothing_else_is_touched() {
        let report = "# Comparison: x\n\n3 of 4 runs: 2 variants; m on cpu\n\n## Which?\n\n![L](frontier.svg)\n\nEach is compared.\n\neaft forgot less.\n\n\
                      |  | target loss |\n| --- | --- |\n| eaft | 2.0 (100 %) |\n| eaft | 3.0 (75 %) |\n\n## Where\n\n| sft | 1 |\n";
        let said = summary("x", report);
        assert_eq!(
            said,
            "![Learned against lost](native/study/x.svg)\n\n3 of 4 runs: 2 variants.\n\nEach is compared.\n\n\
             |  | target loss |\n| --- | --- |\n| eaft | 2.0 |"
        );
        let document = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        assert_eq!(between(document, "x", &said).unwrap(), format!("a\n<!-- x -->\n\n{said}\n\n<!-- /x -->\nb\n"));
        assert!(between(document, "y", "").unwrap_err().contains("<!-- y -->"));
    }

    #[test]
    fn every_part_has_its_files_and_its_place_in_the_document() {
        let document = read(&root().join(DOCUMENT)).unwrap();
        for (part, variants) in PARTS {
            for name in [part, variants] {
                assert!(root().join(FOLDER).join(format!("{name}.toml")).is_file(), "{name}");
            }
            between(&document, part, "").unwrap();
        }
    }
}
