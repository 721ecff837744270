//! Benchmarks out of local files: what is asked, and when an answer is right.
//!
//! | task | files | prompt | scored by | shots |
//! |---|---|---|---|---|
//! | `mmlu` | `<subject>_test.csv`, `<subject>_dev.csv` | `The following are multiple choice questions (with answers) about <subject>.`, question, `A. ..` to `D. ..`, `Answer:` | likelihood of ` A` to ` D` | 5, the first of `dev` |
//! | `medmcqa` | `test.jsonl` | `Question: ..`, `Choices:`, `A. ..` to `D. ..`, `Answer:` | likelihood of the letters | 0 |
//! | `medqa` | `test.jsonl` | `Question: ..`, `A. ..` and on, `Answer:` | likelihood of the letters | 0 |
//! | `pubmedqa` | `ori_pqal.json`, `test_ground_truth.json` | `Abstract: ..`, `Question: ..`, `Answer:` | likelihood of ` yes`, ` no`, ` maybe` | 0 |
//! | `cluewsc` | `dev.json` | the text, a question whether the pronoun means the noun, `答：` | likelihood of `是`, `否` | 0 |
//! | `gsm8k` | `test.jsonl`, `train.jsonl` | `Question: ..`, `Answer:` | the last number of a greedy answer; also the one behind `#### ` | 5, the first of `train` |
//! | `math500` | `test.jsonl` | the problem, `Please reason step by step, and put your final answer within \boxed{}.` | the boxed answer, normalised | 0 |
//! | `aime` | `aime24.jsonl`, `aime25.jsonl` | as `math500` | the boxed integer, or the last one | 0 |
//! | `ifeval` | `input_data.jsonl` | the prompt | instructions that a program checks ([`ifeval`]) | 0 |
//! | `bfcl` | `BFCL_v4_<category>.json`, `possible_answer_<category>.json` | the functions and the question | abstract-syntax match of calls ([`bfcl`]) | 0 |
//!
//! Prompts, likelihoods and extraction are those of lm-eval 0.4 (EleutherAI) where it has the task. Where this differs:
//! MMLU has 5 shots here and is one number over all items, not a mean of subjects; MedQA's file has five options and
//! lm-eval's four; CLUEWSC is not in lm-eval, and the question is OpenCompass's; GSM8K's shots are the first records of
//! the training set, lm-eval draws them; MATH-500 and AIME are asked as Qwen's evaluation asks, without shots, and
//! compared by the normalisation of MATH's authors alone, with no algebra. A text longer than the model's context loses
//! its beginning, as in lm-eval; it is counted.

pub mod answer;
pub mod bfcl;
pub mod calls;
mod counting;
mod csv;
pub mod ifeval;
mod language;

use std::collections::HashMap;

use serde_json::Value;

use crate::data::OnError;
use crate::error::{Error, Result};

/// A longer line is no item.
const MAX_LINE_BYTES: usize = 16 << 20;
/// How many reasons for leaving out are kept.
const KEPT_PROBLEMS: usize = 5;
const LETTERS: [&str; 10] = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"];

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Massive multitask language understanding (Hendrycks et al. 2021), 57 subjects.
    Mmlu,
    /// Questions of Indian medical entrance exams (Pal et al. 2022).
    MedMcqa,
    /// Questions of the United States medical licensing exam (Jin et al. 2021).
    MedQa,
    /// Yes, no or maybe by an abstract (Jin et al. 2019).
    PubMedQa,
    /// Chinese Winograd schemas (Xu et al. 2020).
    ClueWsc,
    /// Grade school mathematics (Cobbe et al. 2021).
    Gsm8k,
    /// 500 problems of MATH (Hendrycks et al. 2021).
    Math500,
    /// American invitational mathematics examination, 2024 and 2025.
    Aime,
    /// Instructions that a program can check (Zhou et al. 2023).
    IfEval,
    /// Calls of functions, Berkeley Function Calling Leaderboard 4 (Patil et al. 2025).
    Bfcl,
}

impl Task {
    /// All of them with the names by which they are asked for.
    pub const ALL: [(&'static str, Self); 10] = [
        ("mmlu", Self::Mmlu),
        ("medmcqa", Self::MedMcqa),
        ("medqa", Self::MedQa),
        ("pubmedqa", Self::PubMedQa),
        ("cluewsc", Self::ClueWsc),
        ("gsm8k", Self::Gsm8k),
        ("math500", Self::Math500),
        ("aime", Self::Aime),
        ("ifeval", Self::IfEval),
        ("bfcl", Self::Bfcl),
    ];

    /// The task of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(other, _)| *other == name).map(|(_, task)| task)
    }

    /// Its name, which is its folder's too.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, task)| *task == self).map_or("", |(name, _)| name)
    }

    /// Worked examples before a question, unless asked otherwise.
    pub fn shots(self) -> usize {
        if self.takes_shots() { 5 } else { 0 }
    }

    /// True where its files have examples beside the questions.
    pub fn takes_shots(self) -> bool {
        matches!(self, Self::Mmlu | Self::Gsm8k)
    }

    /// True where an answer is generated.
    pub fn is_generated(self) -> bool {
        matches!(self, Self::Gsm8k | Self::Math500 | Self::Aime | Self::IfEval | Self::Bfcl)
    }

    /// Longest generated answer, in tokens, unless asked otherwise.
    pub fn answer_tokens(self) -> usize {
        match self {
            Self::Gsm8k => 256,
            Self::Aime => 2048,
            Self::IfEval => 1280,
            Self::Bfcl => 512,
            _ => 1024,
        }
    }

    /// Texts that end a generated answer.
    pub fn stops(self) -> &'static [&'static str] {
        if matches!(self, Self::Gsm8k | Self::Bfcl) { &["Question:"] } else { &[] }
    }
}

/// What an item asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// One of these continuations.
    Choice {
        /// With what separates them from the prompt.
        choices: Vec<String>,
        /// Index of the right one.
        answer: usize,
    },
    /// Generated text.
    Answer {
        /// What it is compared with.
        expected: String,
    },
    /// Generated text that follows these.
    Instructions(Vec<ifeval::Instruction>),
    /// Calls of functions.
    Calls(Box<bfcl::ToolQuestion>),
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its name in its task; unique there.
    pub id: String,
    /// File and line that it came from.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What the model reads.
    pub prompt: String,
    /// What is asked for.
    pub asked: Asked,
}

/// The items of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    /// Those that can be used, in the order in which they are asked.
    pub items: Vec<Item>,
    /// How many were left out.
    pub skipped: u64,
    /// The first few reasons, with file and line.
    pub problems: Vec<String>,
}

/// A task's folder, as a host gives it.
pub struct TaskFolder<'a> {
    /// As the user knows it.
    pub path: String,
    /// Names of its files.
    pub names: Vec<String>,
    /// Contents of one of them.
    pub read: &'a dyn Fn(&str) -> Result<Vec<u8>>,
}

/// How items are read.
#[derive(Clone, Copy, Debug)]
pub struct TaskOptions {
    /// Worked examples before each question, where the task takes some.
    pub shots: usize,
    /// Most items; of a task with subjects one of each in turn.
    pub limit: usize,
    /// What happens to an item that cannot be used.
    pub on_error: OnError,
}

/// What is wrong with a record.
type Checked<T> = Result<T, String>;

impl Items {
    fn take(&mut self, file: &str, line: usize, item: Checked<Item>, on_error: OnError) -> Result<()> {
        match item {
            Ok(item) => self.items.push(item),
            Err(problem) => {
                let error = Error::Record { file: file.into(), line, problem };
                if on_error == OnError::Stop {
                    return Err(error);
                }
                self.skipped += 1;
                if self.problems.len() < KEPT_PROBLEMS {
                    self.problems.push(error.to_string());
                }
            }
        }
        Ok(())
    }
}

/// Reads the items of a task.
///
/// # Errors
/// [`Error::Missing`] for a file that the task needs, [`Error::Record`] with file and line for an item that cannot be
/// used (unless such are left out), [`Error::Data`] where none is left.
pub fn read_items(task: Task, folder: &TaskFolder, options: TaskOptions) -> Result<Items> {
    let mut items = match task {
        Task::Mmlu => mmlu(folder, options)?,
        Task::MedMcqa => {
            lines(folder, "test.jsonl", options, |at, record| lettered(at, record, 4, "Question: ", "Choices:\n"))?
        }
        Task::MedQa => lines(folder, "test.jsonl", options, |at, record| lettered(at, record, 5, "Question: ", ""))?,
        Task::PubMedQa => pubmedqa(folder, options)?,
        Task::ClueWsc => lines(folder, "dev.json", options, cluewsc)?,
        Task::Gsm8k => gsm8k(folder, options)?,
        Task::Math500 => lines(folder, "test.jsonl", options, |at, record| {
            problem(text(record, "unique_id").unwrap_or_else(|_| at.to_string()), record, text(record, "answer")?)
        })?,
        Task::Aime => aime(folder, options)?,
        Task::IfEval => ifeval(folder, options)?,
        Task::Bfcl => bfcl(folder, options)?,
    };
    items.items.truncate(options.limit);
    if items.items.is_empty() {
        let first = items.problems.first().map(|problem| format!(", the first because of: {problem}"));
        let problem = format!("no item of {} is left{}", task.name(), first.unwrap_or_default());
        return Err(Error::Data { file: folder.path.clone(), problem });
    }
    Ok(items)
}

fn display(folder: &TaskFolder, name: &str) -> String {
    format!("{}/{name}", folder.path)
}

/// Contents of a file, which must be UTF-8.
fn contents(folder: &TaskFolder, name: &str) -> Result<String> {
    if !folder.names.iter().any(|other| other == name) {
        let problem = "is not there, and the task needs it".into();
        return Err(Error::Missing { path: display(folder, name), problem });
    }
    let bytes = (folder.read)(name)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").map_or(bytes.as_slice(), |rest| rest).to_vec();
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        Error::Record { file: display(folder, name), line, problem: "not UTF-8 text".into() }
    })
}

/// Items of a file with a JSON object a line.
fn lines(
    folder: &TaskFolder,
    name: &str,
    options: TaskOptions,
    mut item: impl FnMut(usize, &Value) -> Checked<Item>,
) -> Result<Items> {
    let mut items = Items::default();
    let file = display(folder, name);
    for (line, record) in records(folder, name)? {
        let parsed = record.and_then(|record| item(line - 1, &record));
        let placed = parsed.map(|item| Item { file: file.clone(), line, ..item });
        items.take(&file, line, placed, options.on_error)?;
    }
    Ok(items)
}

/// The lines of a file, from 1, each of which should be a JSON object. A line that is not UTF-8 is one bad line, not a
/// bad file.
fn records(folder: &TaskFolder, name: &str) -> Result<Vec<(usize, Checked<Value>)>> {
    let file = display(folder, name);
    if !folder.names.iter().any(|other| other == name) {
        let problem = "is not there, and the task needs it".into();
        return Err(Error::Missing { path: file, problem });
    }
    let bytes = (folder.read)(name)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let end = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
    if bytes[..end].starts_with(b"[") {
        return Err(Error::Data { file, problem: "is a JSON array; one JSON object a line is needed".into() });
    }
    let lines = bytes[..end].split(|byte| *byte == b'\n').enumerate().filter(|_| end > 0);
    Ok(lines.map(|(at, line)| (at + 1, json_line(line))).collect())
}

fn json_line(line: &[u8]) -> Checked<Value> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("the line has {} bytes, and {MAX_LINE_BYTES} are allowed", line.len()));
    }
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 text (byte {})", error.valid_up_to()))?;
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON (column {})", error.column()))?;
    if value.is_object() { Ok(value) } else { Err("not a JSON object".into()) }
}

/// A field that is a text, and not an empty one.
fn text(record: &Value, name: &str) -> Checked<String> {
    match record.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::String(_)) => Err(format!("field `{name}` is empty")),
        Some(_) => Err(format!("field `{name}` is no text")),
        None => Err(format!("field `{name}` is missing")),
    }
}

fn item(id: impl Into<String>, prompt: String, asked: Asked) -> Item {
    Item { id: id.into(), file: String::new(), line: 0, prompt, asked }
}

fn letters(count: usize) -> Vec<String> {
    LETTERS[..count].iter().map(|letter| format!(" {letter}")).collect()
}

/// Which letter of so many an answer is.
fn letter_index(answer: &str, count: usize) -> Checked<usize> {
    let found = LETTERS[..count].iter().position(|letter| *letter == answer.trim());
    found.ok_or_else(|| format!("the answer is {answer:?}, and A to {} are possible", LETTERS[count - 1]))
}

/// A question with options by letter, as MedMCQA and MedQA have it.
fn lettered(at: usize, record: &Value, count: usize, before: &str, between: &str) -> Checked<Item> {
    let options = record.get("options").and_then(Value::as_object).ok_or("field `options` is no object of letters")?;
    if options.len() != count {
        return Err(format!("there are {} options, and {count} are needed", options.len()));
    }
    let mut prompt = format!("{before}{}\n{between}", text(record, "question")?);
    for letter in &LETTERS[..count] {
        let option =
            options.get(*letter).and_then(Value::as_str).ok_or_else(|| format!("option {letter} is missing"))?;
        prompt += &format!("{letter}. {option}\n");
    }
    prompt += "Answer:";
    let answer = letter_index(&text(record, "answer_idx")?, count)?;
    Ok(item(at.to_string(), prompt, Asked::Choice { choices: letters(count), answer }))
}

fn cluewsc(at: usize, record: &Value) -> Checked<Item> {
    let target = record.get("target").ok_or("field `target` is missing")?;
    let (noun, pronoun) = (text(target, "span1_text")?, text(target, "span2_text")?);
    let answer = match text(record, "label")?.as_str() {
        "true" => 0,
        "false" => 1,
        other => return Err(format!("the label is {other:?}, and \"true\" and \"false\" are possible")),
    };
    let prompt = format!("{}\n此处，“{pronoun}”是否指代“{noun}”?\n答：", text(record, "text")?);
    let choices = ["是", "否"].map(String::from).into();
    Ok(item(at.to_string(), prompt, Asked::Choice { choices, answer }))
}

/// The question of a row of MMLU with its options.
fn mmlu_question(row: &[String]) -> Checked<(String, usize)> {
    let [question, a, b, c, d, answer] = row else {
        return Err(format!(
            "the row has {} columns, and 6 are needed: question, four options, the answer's letter",
            row.len()
        ));
    };
    let text = format!("{}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:", question.trim());
    Ok((text, letter_index(answer, 4)?))
}

fn mmlu(folder: &TaskFolder, options: TaskOptions) -> Result<Items> {
    let mut subjects: Vec<&str> = folder.names.iter().filter_map(|name| name.strip_suffix("_test.csv")).collect();
    subjects.sort_unstable();
    if subjects.is_empty() {
        let problem = "has no file <subject>_test.csv".into();
        return Err(Error::Missing { path: folder.path.clone(), problem });
    }
    let mut all = Items::default();
    let mut of_subjects = Vec::new();
    for subject in subjects {
        let rows_of = |name: &str| {
            let text = contents(folder, name)?;
            csv::rows(&text).map_err(|(line, problem)| Error::Record { file: display(folder, name), line, problem })
        };
        let about = subject.replace('_', " ");
        let mut before = format!("The following are multiple choice questions (with answers) about {about}.\n\n");
        if options.shots > 0 {
            let name = format!("{subject}_dev.csv");
            let examples = rows_of(&name)?;
            for (line, row) in examples.iter().take(options.shots) {
                let refuse = |problem| Error::Record { file: display(folder, &name), line: *line, problem };
                let (question, answer) = mmlu_question(row).map_err(refuse)?;
                before += &format!("{question} {}\n\n", LETTERS[answer]);
            }
            if examples.len() < options.shots {
                let problem = format!("has {} examples, and {} are asked for", examples.len(), options.shots);
                return Err(Error::Data { file: display(folder, &name), problem });
            }
        }
        let name = format!("{subject}_test.csv");
        let file = display(folder, &name);
        let mut items = Items::default();
        for (at, (line, row)) in rows_of(&name)?.iter().enumerate() {
            let made = mmlu_question(row).map(|(question, answer)| Item {
                file: file.clone(),
                line: *line,
                ..item(
                    format!("{subject}/{at}"),
                    before.clone() + &question,
                    Asked::Choice { choices: letters(4), answer },
                )
            });
            items.take(&file, *line, made, options.on_error)?;
        }
        all.skipped += items.skipped;
        all.problems.extend(items.problems.into_iter().take(KEPT_PROBLEMS - all.problems.len()));
        of_subjects.push(items.items);
    }
    all.items = in_turn(of_subjects, options.limit);
    Ok(all)
}

/// At most so many items: one of each part in turn while there is a limit, then in the order of parts, whose examples
/// are so read once.
fn in_turn(parts: Vec<Vec<Item>>, limit: usize) -> Vec<Item> {
    let mut taken = vec![0; parts.len()];
    let mut left = limit;
    while left > 0 {
        let before = left;
        for (taken, items) in taken.iter_mut().zip(&parts) {
            if *taken < items.len() && left > 0 {
                *taken += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    parts.into_iter().zip(taken).flat_map(|(items, taken)| items.into_iter().take(taken)).collect()
}

fn pubmedqa(folder: &TaskFolder, options: TaskOptions) -> Result<Items> {
    let name = "ori_pqal.json";
    let file = display(folder, name);
    let source = contents(folder, name)?;
    let object = |source: &str, file: &str| match serde_json::from_str::<Value>(source) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::Data { file: file.into(), problem: "is no JSON object of items by their ids".into() }),
        Err(error) => Err(Error::Record {
            file: file.into(),
            line: error.line(),
            problem: format!("not JSON (column {})", error.column()),
        }),
    };
    let records = object(&source, &file)?;
    let truth = "test_ground_truth.json";
    let tested = object(&contents(folder, truth)?, &display(folder, truth))?;
    let mut items = Items::default();
    let (mut from, mut line) = (0, 1);
    for (id, record) in &records {
        // The ids stand in the order of the file.
        if let Some(at) = source[from..].find(&format!("\"{id}\"")) {
            line += source[from..from + at].matches('\n').count();
            from += at;
        }
        let Some(label) = tested.get(id) else { continue };
        let made = pubmedqa_item(id, record, label).map(|item| Item { file: file.clone(), line, ..item });
        items.take(&file, line, made, options.on_error)?;
    }
    Ok(items)
}

fn pubmedqa_item(id: &str, record: &Value, label: &Value) -> Checked<Item> {
    let contexts = record.get("CONTEXTS").and_then(Value::as_array).ok_or("field `CONTEXTS` is no list")?;
    let contexts: Option<Vec<&str>> = contexts.iter().map(Value::as_str).collect();
    let contexts = contexts.ok_or("field `CONTEXTS` is no list of texts")?;
    let words = ["yes", "no", "maybe"];
    let label = label.as_str().unwrap_or_default();
    let answer = words.iter().position(|word| *word == label);
    let answer = answer.ok_or_else(|| format!("the answer is {label:?}, and yes, no and maybe are possible"))?;
    let prompt = format!("Abstract: {}\nQuestion: {}\nAnswer:", contexts.join("\n"), text(record, "QUESTION")?);
    Ok(item(id, prompt, Asked::Choice { choices: words.map(|word| format!(" {word}")).into(), answer }))
}

fn gsm8k(folder: &TaskFolder, options: TaskOptions) -> Result<Items> {
    let mut before = String::new();
    if options.shots > 0 {
        let whole = TaskOptions { on_error: OnError::Stop, ..options };
        let examples = lines(folder, "train.jsonl", whole, |at, record| {
            let prompt = format!("Question: {}\nAnswer: {}\n\n", text(record, "question")?, text(record, "answer")?);
            Ok(item(at.to_string(), prompt, Asked::Answer { expected: String::new() }))
        })?;
        if examples.items.len() < options.shots {
            let problem = format!("has {} examples, and {} are asked for", examples.items.len(), options.shots);
            return Err(Error::Data { file: display(folder, "train.jsonl"), problem });
        }
        before = examples.items.into_iter().take(options.shots).map(|example| example.prompt).collect();
    }
    lines(folder, "test.jsonl", options, |at, record| {
        let expected = text(record, "answer")?;
        if answer::marked(&expected).is_none() {
            return Err("the answer has no number behind `#### `".into());
        }
        let prompt = format!("{before}Question: {}\nAnswer:", text(record, "question")?);
        Ok(item(at.to_string(), prompt, Asked::Answer { expected: answer::plain_number(&expected) }))
    })
}

fn problem(id: String, record: &Value, expected: String) -> Checked<Item> {
    let asked = "Please reason step by step, and put your final answer within \\boxed{}.";
    Ok(item(id, format!("{}\n{asked}", text(record, "problem")?), Asked::Answer { expected }))
}

fn aime(folder: &TaskFolder, options: TaskOptions) -> Result<Items> {
    let mut all = Items::default();
    for year in ["aime24", "aime25"] {
        let items = lines(folder, &format!("{year}.jsonl"), options, |at, record| {
            let answer = match record.get("answer") {
                Some(Value::Number(number)) => number.as_u64(),
                Some(Value::String(text)) => text.trim().parse().ok(),
                _ => return Err("field `answer` is missing".into()),
            };
            let answer = answer.filter(|answer| *answer <= 999).ok_or("the answer is no whole number from 0 to 999")?;
            problem(format!("{year}/{at}"), record, answer.to_string())
        })?;
        all.skipped += items.skipped;
        all.items.extend(items.items);
        all.problems.extend(items.problems.into_iter().take(KEPT_PROBLEMS - all.problems.len()));
    }
    Ok(all)
}

/// Names of items and where they are, of which none may be there twice.
fn once(seen: &mut HashMap<String, String>, id: &str, place: String) -> Checked<()> {
    match seen.insert(id.to_owned(), place) {
        Some(first) => Err(format!("{id} is there twice, first in {first}")),
        None => Ok(()),
    }
}

fn ifeval(folder: &TaskFolder, options: TaskOptions) -> Result<Items> {
    let mut seen = HashMap::new();
    lines(folder, "input_data.jsonl", options, |at, record| {
        let id = match record.get("key") {
            Some(Value::Number(number)) => number.to_string(),
            _ => text(record, "key")?,
        };
        let asked = Asked::Instructions(ifeval::instructions(record)?);
        once(&mut seen, &id, format!("line {}", at + 1))?;
        Ok(item(id, text(record, "prompt")?, asked))
    })
}

fn bfcl(folder: &TaskFolder, options: TaskOptions) -> Result<Items> {
    let mut all = Items::default();
    let (mut parts, mut seen) = (Vec::new(), HashMap::new());
    for (category, file) in bfcl::CATEGORIES {
        // Published in a folder of its own, under the question's name.
        let nested = format!("possible_answer/BFCL_v4_{file}.json");
        let flat = format!("possible_answer_{file}.json");
        let name = if folder.names.contains(&nested) { nested } else { flat };
        let answers = match category {
            "irrelevance" => None,
            _ => Some(bfcl::Answers::new(display(folder, &name), records(folder, &name)?.into_iter())),
        };
        let name = format!("BFCL_v4_{file}.json");
        let items = lines(folder, &name, options, |at, record| {
            let id = text(record, "id")?;
            let question = bfcl::question(category, record, answers.as_ref())?;
            once(&mut seen, &id, format!("line {} of {name}", at + 1))?;
            Ok(item(id, format!("{}\nAnswer:", question.told), Asked::Calls(Box::new(question))))
        })?;
        all.skipped += items.skipped;
        all.problems.extend(items.problems.into_iter().take(KEPT_PROBLEMS - all.problems.len()));
        parts.push(items.items);
    }
    all.items = in_turn(parts, options.limit);
    Ok(all)
}

/// What a generated text answers to a problem, as it is compared, and whether that is right. GSM8K's stricter reading is second.
pub fn judge(task: Task, expected: &str, text: &str) -> (Option<String>, bool, Option<bool>) {
    match task {
        Task::Gsm8k => {
            let found = answer::last_number(text).map(answer::plain_number);
            let strict = answer::marked(text).map(answer::plain_number).as_deref() == Some(expected);
            let right = found.as_deref() == Some(expected);
            (found, right, Some(strict))
        }
        Task::Aime => {
            let found = answer::integer(text);
            (found.map(|number| number.to_string()), found.is_some() && found == expected.parse().ok(), None)
        }
        _ => {
            let found = answer::of_solution(text);
            (found.map(str::to_owned), found.is_some_and(|found| answer::same_mathematics(found, expected)), None)
        }
    }
}
