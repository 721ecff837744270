//! `study`: the comparisons behind `STUDY.md`, run by run, and the document's tables out of what they found.
//!
//! A part is a situation (`native/study/NAME.toml`) with the variants that are compared in it. `temper compare` trains what is not
//! there yet, so the same command goes on after an interruption; what it found is copied beside the situation (`NAME.csv`,
//! `NAME.svg`), and what it says goes into the document between the marks of that part. Runs of the large model take hours: what is
//! known of a finished one is kept in `native/study/runs`, and another machine goes on with the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step::{Step, run_in_order};
use crate::{Failure, root, smollm2, web};

/// Variants by their names in `native/study/variants.toml`: those that the question is about, and these with what is compared once on
/// the large model. None are all.
const FEW: &[&str] = &["sft", "eaft", "sft, mean gate", "eaft, shuffled", "dft"];
const PAIR: &[&str] = &["sft", "eaft"];
const OTHERS: &[&str] = &[
    "sft",
    "eaft",
    "sft_kl",
    "masked_sft",
    "talr",
    "flow",
    "eaft, squared",
    "eaft, hard",
    "eaft, all tokens",
    "eaft, adaptive K",
];
/// Two with and without text of before mixed in.
const REPLAYED: &[&str] = &["sft", "eaft", "sft, replay", "eaft, replay"];
const VARIANTS: &str = "variants.toml";
/// What is compared where, cheapest first.
const PARTS: [(&str, &[&str]); 9] = [
    ("wrong", &[]),
    ("ordinary", &[]),
    ("replay", REPLAYED),
    ("replaced-10", FEW),
    ("replaced-30", FEW),
    ("smollm2-lora", FEW),
    ("smollm2-medicine", PAIR),
    ("smollm2-others", OTHERS),
    ("smollm2-full", FEW),
];
/// What is learned one after the other, after the parts above: name, what is trained, what is measured.
const SEQUENCE: &str = "sequence";
const DOMAINS: [(&str, &str, &str); 5] = [
    ("mathematics", "embedded:train.jsonl", "embedded:target.jsonl"),
    ("tool calls", "native/study/data/toolcalls.train.jsonl", "native/study/data/toolcalls.target.jsonl"),
    ("medicine", "native/study/data/pubmedqa.train.jsonl", "native/study/data/pubmedqa.target.jsonl"),
    ("cases", "native/study/data/medqa.train.jsonl", "native/study/data/medqa.target.jsonl"),
    ("Shakespeare", "web/data/shakespeare/train.txt", "web/data/shakespeare/target.txt"),
];
const SEEDS: [u32; 3] = [1, 2, 3];
const FOLDER: &str = "native/study";
/// Data that a part names, and where they lie.
const OWN_DATA: [(&str, &str); 3] = [
    ("pubmedqa.train.jsonl", "native/study/data"),
    ("pubmedqa.target.jsonl", "native/study/data"),
    ("pretrain.txt", "native/demo"),
];
const DOCUMENT: &str = "STUDY.md";
const DATA: &str = "native/demo/train.jsonl";
/// Which lines of ten have another one's answer.
const REPLACED: [(&str, &[usize]); 2] = [("replaced-10.jsonl", &[3]), ("replaced-30.jsonl", &[1, 4, 7])];
const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// What models of that one are asked before and after, out of `native/study/tasks`: 100 and 300 items.
const TASKS: [&str; 2] = ["gsm8k", "mmlu"];

/// What all runs of a comparison share.
const SHARED: &str = "compare.toml";
/// Files of a run that a comparison reads; a run is finished once it has the first.
const OF_A_RUN: [&str; 4] = [SUMMARY, "config.toml", "metrics.jsonl", "evaluations.json"];
const SUMMARY: &str = "summary.json";

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
    let all: Vec<&str> = PARTS.iter().map(|(part, _)| *part).chain([SEQUENCE]).collect();
    if let Some(name) = only.iter().find(|name| !all.contains(name)) {
        return Err(format!("study: there is no part \"{name}\"; there are {}", all.join(", ")));
    }
    let chosen = PARTS.iter().filter(|(part, _)| only.is_empty() || only.contains(part));
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    if train {
        run_in_order(&[Step::cargo("command", "build --release --locked")])?;
    }
    let temper = web::target_folder()?.join("release").join(format!("temper{}", std::env::consts::EXE_SUFFIX));
    let compare = |name: &str| -> Result<(), Failure> {
        if !train {
            return Ok(());
        }
        let done = Command::new(&temper)
            .args(["compare", &format!("{name}.toml"), "--device", "cpu", "--out", name])
            .current_dir(&out)
            .status()
            .map_err(|error| format!("{}: {error}", temper.display()))?;
        match done.success() {
            true => Ok(()),
            false => Err(format!("{name} did not come to its end; the same command goes on with it")),
        }
    };
    for (part, names) in chosen {
        prepare(part, names, &out)?;
        let (found, kept) = (out.join(part), root().join(FOLDER).join("runs").join(part));
        let slow = read(&out.join(format!("{part}.toml")))?.contains(MODEL);
        if slow {
            bring(&kept, &found)?;
        }
        let asked = compare(part).and_then(|()| match slow {
            true => tasks(&found, &out.join(MODEL), train.then_some(&temper)),
            false => Ok(String::new()),
        });
        // Also of what did not come to its end.
        if slow {
            bring(&found, &kept)?;
        }
        let asked = asked?;
        publish(part, &found, &asked)?;
    }
    if only.is_empty() || only.contains(&SEQUENCE) {
        sequence(&out, &compare)?;
    }
    Ok(())
}

/// Brings what a comparison needs of its finished runs, and how their models answered, from one folder to another: runs of the
/// large model are kept in the repository, so that another machine goes on with them.
fn bring(from: &Path, to: &Path) -> Result<(), Failure> {
    let shared = from.join(SHARED);
    if !shared.is_file() {
        return Ok(());
    }
    let mut files = vec![PathBuf::from(SHARED)];
    for run in entries(&from.join("runs"))? {
        if from.join("runs").join(&run).join(SUMMARY).is_file() {
            files.extend(OF_A_RUN.map(|file| Path::new("runs").join(&run).join(file)));
        }
    }
    // How many answers were right; the answers themselves name files where they were asked for.
    let counts = entries(&from.join("tasks"))?.into_iter().filter(|file| file.extension().is_some_and(|e| e == "json"));
    files.extend(counts.map(|file| Path::new("tasks").join(file)));
    for file in files.iter().filter(|file| from.join(file).is_file() && !to.join(file).is_file()) {
        let (from, to) = (from.join(file), to.join(file));
        let folder = to.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        write(&to, &read(&from)?)?;
    }
    Ok(())
}

/// Names of what is in a folder; none where there is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let problem = |error| format!("{}: {error}", folder.display());
    let all = fs::read_dir(folder).map_err(problem)?;
    let mut names: Vec<PathBuf> =
        all.map(|entry| Ok(PathBuf::from(entry.map_err(problem)?.file_name()))).collect::<Result<_, Failure>>()?;
    names.sort();
    Ok(names)
}

/// Five domains one after the other: for each seed a comparison a domain, whose variants start from the models that they left.
fn sequence(out: &Path, compare: &dyn Fn(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let (shared, few) = (read(&root().join(FOLDER).join("sequence.toml"))?, variants(FEW)?);
    for path in DOMAINS.iter().flat_map(|(_, train, target)| [train, target]).filter(|path| !path.contains(':')) {
        write(&out.join(path.replace('/', "-")), &read(&root().join(path))?)?;
    }
    let mut table = Vec::new();
    for seed in SEEDS {
        for (at, (_, train, target)) in DOMAINS.iter().enumerate() {
            let name = format!("{SEQUENCE}-{seed}-{}", at + 1);
            let data = format!(
                "[data]\ntrain = \"{}\"\ntarget = \"{}\"\ngeneral = \"embedded:general.txt\"\nwrong = \"{}\"\nmeasured_tokens = 8192\n\
                 cutoff_length = 512\non_error = \"skip\"\n\n",
                train.replace('/', "-"),
                target.replace('/', "-"),
                DOMAINS[0].2
            );
            let variants = match at {
                0 => few.clone(),
                _ => from_their_models(&few, &format!("{SEQUENCE}-{seed}-{at}"), seed),
            };
            let seeds = format!("[compare]\n\"run.seed\" = [{seed}]\n\n");
            write(&out.join(format!("{name}.toml")), &format!("{shared}{data}{seeds}{variants}"))?;
            compare(&name)?;
            let points = read(&out.join(&name).join("paths.csv"))?;
            table.push((seed, at, points));
        }
    }
    let document = root().join(DOCUMENT);
    let text = between(&read(&document)?, SEQUENCE, &sequence_table(&table)?)?;
    write(&document, &text)?;
    let all = table.iter().map(|(seed, at, points)| {
        let lines = points.lines().skip(1).map(|line| format!("{seed},{},{line}\n", DOMAINS[*at].0));
        lines.collect::<String>()
    });
    let head = "sequence_seed,domain,variant,setting,seed,step,target_loss,general_loss,first_domain_loss\n";
    write(&root().join(FOLDER).join("sequence.csv"), &(head.to_string() + &all.collect::<String>()))
}

/// Variants that start from the models which the same variants left in another comparison.
fn from_their_models(variants: &str, comparison: &str, seed: u32) -> String {
    const NAME: &str = "name = \"";
    let line = |line: &str| match line.strip_prefix(NAME) {
        Some(rest) => {
            let name = folder_name(rest.trim_end_matches('"'));
            format!("{line}\n\"model.path\" = \"{comparison}/runs/{name}_seed-{seed}/model\"\n")
        }
        None => format!("{line}\n"),
    };
    variants.lines().map(line).collect()
}

/// How the model, and of each variant and seed the run that ended at the lowest target loss, answer the tasks. Without the
/// program only what was asked before.
fn tasks(found: &Path, model: &Path, temper: Option<&PathBuf>) -> Result<String, Failure> {
    let folder = found.join("tasks");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let ask = |name: &str, of: [&str; 2]| -> Result<Option<String>, Failure> {
        let (results, said) = (folder.join(format!("{name}.jsonl")), folder.join(format!("{name}.json")));
        let (Some(temper), false) = (temper, said.exists()) else { return Ok(read(&said).ok()) };
        let done = Command::new(temper)
            .args(["eval", of[0], of[1], "--tasks", &TASKS.join(","), "--shots", "0", "--chat", "--limit", "300"])
            .args(["--device", "cpu", "--json", "--task-data"])
            .arg(root().join(FOLDER).join("tasks"))
            .arg("--results")
            .arg(results)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{}: {error}", temper.display()))?;
        if !done.status.success() {
            return Err(format!("{name} was not asked to the end; the same command goes on with it"));
        }
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        write(&said, &text)?;
        Ok(Some(text))
    };
    let path = |path: &Path| path.display().to_string();
    let before = ask("before", ["--model", &path(model)])?;
    let mut asked = Vec::new();
    for run in lowest(&read(&found.join("paths.csv"))?) {
        let name = run.folder();
        let mut trained = found.join("runs").join(&name);
        let has_model = |folder: &Path| ["adapter", "model"].iter().any(|model| folder.join(model).is_dir());
        if let (Some(temper), false, false) =
            (temper, has_model(&trained), folder.join(format!("{name}.json")).exists())
        {
            // Another machine's: its model did not come along, and is trained again, to the same bits.
            let config = trained.join("config.toml");
            trained = found.join("again").join(&name);
            let out = found.parent().expect("a comparison is in a folder");
            train_again(temper, &config, &trained, out)?;
        }
        if let Some(said) = ask(&name, ["--run", &path(&trained)])? {
            asked.push((run, said));
        }
    }
    Ok(tasks_table(before.as_deref(), &asked))
}

/// Trains what a run's configuration says, in a folder of its own; goes on with it where it was begun.
fn train_again(temper: &Path, config: &Path, into: &Path, out: &Path) -> Result<(), Failure> {
    let mut command = Command::new(temper);
    command.arg("train").arg("--out").arg(into).current_dir(out);
    match into.join("config.toml").is_file() {
        true if into.join(SUMMARY).is_file() => return Ok(()),
        true => command.arg("--resume"),
        false => command.arg(config),
    };
    let done = command.status().map_err(|error| format!("{}: {error}", temper.display()))?;
    match done.success() {
        true => Ok(()),
        false => Err(format!("{} was not trained again; the same command goes on with it", config.display())),
    }
}

/// A row of a comparison's table of points.
struct Point {
    variant: String,
    setting: String,
    seed: String,
    step: u64,
    /// Target loss, general loss, and that of the first domain, which only a sequence measures.
    losses: [Option<f64>; 3],
}

impl Point {
    fn of(line: &str) -> Option<Self> {
        // A variant's name can hold commas; what follows cannot.
        let cells: Vec<&str> = line.rsplitn(7, ',').collect();
        let [first, general, target, step, seed, setting, variant] = cells[..] else { return None };
        let losses = [target, general, first].map(|loss| loss.parse().ok());
        let [variant, setting, seed] = [variant.trim_matches('"'), setting, seed].map(str::to_string);
        Some(Self { variant, setting, seed, step: step.parse().ok()?, losses })
    }

    /// Name of its folder.
    fn folder(&self) -> String {
        let (_, setting) = self.setting.split_once('.').unwrap_or_default();
        format!("{}_{}_seed-{}", folder_name(&self.variant), setting.replace('=', "-"), self.seed)
    }
}

/// Of each variant and seed the run with the lowest target loss at its end, in the order of the table.
fn lowest(points: &str) -> Vec<Point> {
    let mut ends: Vec<Point> = Vec::new();
    for point in
        points.lines().skip(1).filter_map(Point::of).filter(|point| point.losses[..2].iter().all(Option::is_some))
    {
        let same =
            |end: &&mut Point| (&end.variant, &end.setting, &end.seed) == (&point.variant, &point.setting, &point.seed);
        match ends.iter_mut().find(same) {
            Some(end) if end.step < point.step => *end = point,
            Some(_) => {}
            None => ends.push(point),
        }
    }
    let mut lowest: Vec<Point> = Vec::new();
    for end in ends {
        match lowest.iter_mut().find(|other| (&other.variant, &other.seed) == (&end.variant, &end.seed)) {
            Some(other) if end.losses[0] < other.losses[0] => *other = end,
            Some(_) => {}
            None => lowest.push(end),
        }
    }
    lowest
}

fn tasks_table(before: Option<&str>, asked: &[(Point, String)]) -> String {
    // Of what `temper eval --json` prints: "task":"gsm8k","items":100,"correct":3.
    let right = |said: &str, task: &str| -> Option<String> {
        let (_, rest) = said.split_once(&format!("\"task\":\"{task}\""))?;
        let number = |name: &str| {
            let (_, rest) = rest.split_once(&format!("\"{name}\":"))?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        Some(format!("{} of {}", number("correct")?, number("items")?))
    };
    let cells = |said: &str| TASKS.map(|task| right(said, task).unwrap_or_else(|| "?".into())).join(" | ");
    let Some(before) = before else { return String::new() };
    let mut text = format!(
        "Asked before, and of each variant and seed at the rate that left the lowest target loss:\n\n\
         |  | with | seed | target loss | general loss | GSM8K | MMLU |\n|---|---|---|---|---|---|---|\n\
         | before |  |  |  |  | {} |\n",
        cells(before)
    );
    for (end, said) in asked {
        let Point { variant, setting, seed, losses, .. } = end;
        let [target, general, _] = losses.map(|loss| loss.unwrap_or(f64::NAN));
        text += &format!("| {variant} | {setting} | {seed} | {target:.3} | {general:.3} | {} |\n", cells(said));
    }
    text
}

/// A variant's name in the name of a folder.
fn folder_name(variant: &str) -> String {
    variant.replace(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)), "-")
}

/// Target loss, general loss, and that of the first domain.
type Losses = [f64; 3];

/// Variant, step and losses of a row, all three of them.
fn point(line: &str) -> Option<(String, u64, Losses)> {
    let Point { variant, step, losses, .. } = Point::of(line)?;
    let [Some(target), Some(general), Some(first)] = losses else { return None };
    Some((variant, step, [target, general, first]))
}

/// General loss after each domain, and what is left of the first: mean of the seeds and their spread.
fn sequence_table(all: &[(u32, usize, String)]) -> Result<String, Failure> {
    let mut variants: Vec<String> = Vec::new();
    // By variant and domain, a run each seed: before and after.
    let mut found: BTreeMap<(String, usize), Vec<[Losses; 2]>> = BTreeMap::new();
    for (_, at, text) in all {
        let points: Vec<_> = text.lines().skip(1).filter_map(point).collect();
        for (variant, _, before) in points.iter().filter(|(_, step, _)| *step == 0) {
            let last = points.iter().filter(|(other, ..)| other == variant).max_by_key(|(_, step, _)| *step);
            let (_, _, after) = last.ok_or("a variant has no points")?;
            if !variants.contains(variant) {
                variants.push(variant.clone());
            }
            found.entry((variant.clone(), *at)).or_default().push([*before, *after]);
        }
    }
    let spread = |values: Vec<f64>| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
        format!("{mean:.3} ± {deviation:.3}")
    };
    let heads: Vec<String> = DOMAINS.iter().map(|(name, ..)| format!("after {name}")).collect();
    let mut text = format!(
        "| general loss | before | {} | learned, mean of the five | {} at the end |\n|---|---|{}---|---|\n",
        heads.join(" | "),
        DOMAINS[0].0,
        "---|".repeat(DOMAINS.len())
    );
    for variant in &variants {
        let at = |domain: usize| found.get(&(variant.clone(), domain)).map(Vec::as_slice).unwrap_or_default();
        let cells: Vec<String> =
            (0..DOMAINS.len()).map(|k| spread(at(k).iter().map(|[_, after]| after[1]).collect())).collect();
        let runs = (0..DOMAINS.len()).map(|k| at(k).len()).min().unwrap_or(0);
        let learned = (0..runs).map(|run| {
            let each = (0..DOMAINS.len()).map(|k| at(k)[run][0][0] - at(k)[run][1][0]);
            each.sum::<f64>() / DOMAINS.len() as f64
        });
        let before = at(0).first().map_or(f64::NAN, |[before, _]| before[1]);
        text += &format!(
            "| {variant} | {before:.3} | {} | {} | {} |\n",
            cells.join(" | "),
            spread(learned.collect()),
            spread(at(DOMAINS.len() - 1).iter().map(|[_, after]| after[2]).collect())
        );
    }
    Ok(text.trim_end().to_string())
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The variants of these names, as a configuration has them; where none is named all that differ in their objective alone.
fn variants(names: &[&str]) -> Result<String, Failure> {
    const BEGIN: &str = "[[compare.variant]]\n";
    let text = read(&root().join(FOLDER).join(VARIANTS))?;
    let all: Vec<&str> = text.split(BEGIN).skip(1).collect();
    let named = |variant: &&str, name: &str| variant.starts_with(&format!("name = \"{name}\"\n"));
    if let Some(name) = names.iter().find(|name| !all.iter().any(|variant| named(variant, name))) {
        return Err(format!("{FOLDER}/{VARIANTS}: there is no variant \"{name}\""));
    }
    let chosen = all.iter().filter(|variant| match names.is_empty() {
        true => !variant.contains("\"data."),
        false => names.iter().any(|name| named(variant, name)),
    });
    Ok(chosen.map(|variant| format!("{BEGIN}{variant}")).collect())
}

/// The part's configuration, and the data and the model that it names.
fn prepare(part: &str, names: &[&str], out: &Path) -> Result<(), Failure> {
    let config = format!("{}\n{}", read(&root().join(FOLDER).join(format!("{part}.toml")))?, variants(names)?);
    write(&out.join(format!("{part}.toml")), &config)?;
    for (name, lines) in REPLACED.iter().filter(|(name, _)| config.contains(name)) {
        write(&out.join(name), &replaced(&read(&root().join(DATA))?, lines)?)?;
    }
    for (name, folder) in OWN_DATA.iter().filter(|(name, _)| config.contains(name)) {
        write(&out.join(name), &read(&root().join(folder).join(name))?)?;
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

/// Copies what a part found, and puts what it says, and how tasks were answered, into the document.
fn publish(part: &str, found: &Path, tasks: &str) -> Result<(), Failure> {
    let folder = root().join(FOLDER);
    write(&folder.join(format!("{part}.csv")), &read(&found.join("paths.csv"))?)?;
    write(&folder.join(format!("{part}.svg")), &read(&found.join("frontier.svg"))?)?;
    let document = root().join(DOCUMENT);
    let text = format!("{}\n\n{tasks}", summary(part, &read(&found.join("report.md"))?));
    let text = between(&read(&document)?, part, text.trim_end())?;
    write(&document, &text)
}

/// Of a comparison's report: how many runs there are, what is compared, and each variant where it learned most and at three
/// quarters of the way there.
fn summary(part: &str, report: &str) -> String {
    let runs = report.lines().nth(2).and_then(|line| line.split_once(';')).map_or("", |(runs, _)| runs);
    let answer = report.lines().skip_while(|line| !line.starts_with("## ")).skip(1);
    let answer = answer.take_while(|line| !line.starts_with("## "));
    // Its sentences say what the table says.
    let kept = answer.filter(|line| match line.strip_prefix('|') {
        Some(cells) => {
            ["(100 %)", "(75 %)"].iter().any(|share| line.contains(share))
                || cells.starts_with("  |")
                || cells.contains("---")
        }
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
    text.trim_end().to_string()
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
                      |  | target loss |\n| --- | --- |\n| eaft | 2.0 (100 %) |\n| eaft | 3.0 (75 %) |\n| eaft | 4.0 (50 %) |\n\n## Where\n\n| sft | 1 |\n";
        let said = summary("x", report);
        assert_eq!(
            said,
            "![Learned against lost](native/study/x.svg)\n\n3 of 4 runs: 2 variants.\n\nEach is compared.\n\n\
             |  | target loss |\n| --- | --- |\n| eaft | 2.0 (100 %) |\n| eaft | 3.0 (75 %) |"
        );
        let document = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        assert_eq!(between(document, "x", &said).unwrap(), format!("a\n<!-- x -->\n\n{said}\n\n<!-- /x -->\nb\n"));
        assert!(between(document, "y", "").unwrap_err().contains("<!-- y -->"));
    }

    #[test]
    fn a_sequence_goes_on_from_each_variants_own_model_and_its_table_has_means_and_spreads() {
        let few = "[[compare.variant]]\nname = \"sft, mean gate\"\n\"objective.method\" = \"sft\"\n";
        assert_eq!(
            from_their_models(few, "sequence-2-1", 2),
            "[[compare.variant]]\nname = \"sft, mean gate\"\n\
             \"model.path\" = \"sequence-2-1/runs/sft--mean-gate_seed-2/model\"\n\"objective.method\" = \"sft\"\n"
        );
        let line = "\"sft, mean gate\",,2,80,3.5,4.25,2.0";
        assert_eq!(point(line), Some(("sft, mean gate".into(), 80, [3.5, 4.25, 2.0])));
        assert_eq!(point("sft,,2,80,3.5,4.25,"), None);
        let of = |general: f64| format!("h\nsft,,1,0,6.0,3.0,6.0\nsft,,1,80,4.0,{general},5.0\n");
        let all: Vec<_> =
            [1, 2].iter().flat_map(|seed| (0..5).map(|at| (*seed, at, of(3.0 + f64::from(*seed))))).collect();
        let table = sequence_table(&all).unwrap();
        let row = table.lines().last().unwrap();
        assert_eq!(
            row,
            format!("| sft | 3.000 | {} | 2.000 ± 0.000 | 5.000 ± 0.000 |", ["4.500 ± 0.707"; 5].join(" | "))
        );
        assert_eq!(row.matches('|').count(), table.lines().nth(1).unwrap().matches('|').count());
    }

    #[test]
    fn tasks_are_asked_of_the_run_that_learned_most_and_their_answers_are_counted() {
        let points = "variant,setting,seed,step,target_loss,general_loss,wrong_loss\n\
                      \"sft, mean gate\",optim.learning_rate=0.0001,1,0,3.0,2.0,\n\
                      \"sft, mean gate\",optim.learning_rate=0.0001,1,50,2.5,2.25,\n\
                      \"sft, mean gate\",optim.learning_rate=0.0002,1,0,1.0,2.0,\n\
                      \"sft, mean gate\",optim.learning_rate=0.0002,1,50,2.0,2.5,\n\
                      eaft,optim.learning_rate=0.0001,1,50,2.75,2.0,\n";
        let runs = lowest(points);
        let names: Vec<_> = runs.iter().map(Point::folder).collect();
        assert_eq!(names, ["sft--mean-gate_learning_rate-0.0002_seed-1", "eaft_learning_rate-0.0001_seed-1"]);
        let said = |correct| {
            format!(
                "{{\"tasks\":[{{\"task\":\"gsm8k\",\"items\":100,\"correct\":{correct},\"accuracy\":0.1}},\
                 {{\"task\":\"mmlu\",\"items\":300,\"correct\":75}}]}}"
            )
        };
        let asked: Vec<_> = runs.into_iter().map(|run| (run, said(7))).collect();
        let table = tasks_table(Some(&said(3)), &asked);
        let rows: Vec<_> = table.lines().skip(4).collect();
        assert_eq!(rows[0], "| before |  |  |  |  | 3 of 100 | 75 of 300 |");
        let row = "| sft, mean gate | optim.learning_rate=0.0002 | 1 | 2.000 | 2.500 | 7 of 100 | 75 of 300 |";
        assert_eq!(rows[1], row);
        assert_eq!(tasks_table(None, &asked), "");
        assert!(tasks_table(Some("{}"), &[]).contains("| ? | ? |"));
    }

    #[test]
    fn finished_runs_and_answers_go_to_another_machine_and_what_is_there_stays() {
        let base = std::env::temp_dir().join(format!("temper-study-{}", std::process::id()));
        let (here, kept, there) = (base.join("here"), base.join("kept"), base.join("there"));
        let put = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, text).unwrap();
        };
        bring(&here, &kept).unwrap();
        assert!(!kept.exists(), "of no comparison nothing is brought");
        put(here.join(SHARED), "shared");
        for file in OF_A_RUN {
            put(here.join("runs/sft_seed-1").join(file), file);
        }
        put(here.join("runs/sft_seed-1/checkpoints/a"), "large");
        put(here.join("runs/sft_seed-2/config.toml"), "under way");
        put(here.join("tasks/before.json"), "{}");
        put(here.join("tasks/before.jsonl"), "answers");
        bring(&here, &kept).unwrap();
        assert!(kept.join("tasks/before.json").is_file() && !kept.join("tasks/before.jsonl").exists());
        put(there.join("tasks/before.json"), "newer");
        bring(&kept, &there).unwrap();
        for file in OF_A_RUN {
            assert_eq!(read(&there.join("runs/sft_seed-1").join(file)).unwrap(), file);
        }
        assert_eq!(read(&there.join(SHARED)).unwrap(), "shared");
        assert_eq!(read(&there.join("tasks/before.json")).unwrap(), "newer");
        assert!(!there.join("runs/sft_seed-1/checkpoints").exists() && !there.join("runs/sft_seed-2").exists());
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn every_part_has_its_files_and_its_place_in_the_document() {
        let document = read(&root().join(DOCUMENT)).unwrap();
        for (part, names) in PARTS {
            assert!(root().join(FOLDER).join(format!("{part}.toml")).is_file(), "{part}");
            between(&document, part, "").unwrap();
            let compared = variants(names).unwrap();
            let count = compared.matches("[[compare.variant]]").count();
            assert!(if names.is_empty() { count > OTHERS.len() } else { count == names.len() }, "{part}: {compared}");
            // The first is what all others are compared with.
            assert!(compared.starts_with("[[compare.variant]]\nname = \"sft\"\n"), "{part}: {compared}");
        }
        assert!(variants(&["sft", "eaft, no such"]).unwrap_err().contains("no variant \"eaft, no such\""));
        between(&document, SEQUENCE, "").unwrap();
    }
}
