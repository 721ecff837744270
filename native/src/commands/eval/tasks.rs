//! `temper eval --tasks`: benchmarks out of local files, item by item, so that a run that was stopped goes on where it
//! was.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use temper_engine::continuing::{Cache, Request, Writer, generate_all};
use temper_engine::models::Hold;
use temper_engine::reading::{ChatTemplate, Message, OnError, RenderOptions};
use temper_engine::running::Digest;
use temper_engine::tasks::answer::said;
use temper_engine::tasks::bfcl::{self, ToolQuestion};
use temper_engine::tasks::ifeval::{self, Followed};
use temper_engine::tasks::{Asked, Item, Items, Likelihoods, Task, TaskFolder, TaskOptions, judge, read_items, wilson};
use temper_engine::words::{counted, plural};
use temper_engine::{Error, Model, Sampling, Tokenizer, wait};

use crate::cli::{EvalArgs, Global, TaskArgs};
use crate::files::{io_error, read_error, read_small};
use crate::inputs::{Layout, ModelInUse, devices, read_data};
use crate::meter::Meter;
use crate::output;
use crate::progress::{duration, grouped};

/// The first line of a file of results: what the others were made with. Results of anything else are not mixed with
/// them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    what: String,
    /// As it was named, and a digest of its description and weights.
    model: String,
    origin: String,
    adapter: Option<String>,
    /// A digest of the adapter's files, whose folder a longer training writes again.
    #[serde(default)]
    adapter_digest: Option<String>,
    storage: Option<String>,
    shots: Option<usize>,
    chat: bool,
    /// What the chat template was told.
    #[serde(default)]
    variables: Map<String, Value>,
    max_tokens: Option<usize>,
}

/// One item's result; a line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answered {
    what: String,
    task: String,
    id: String,
    file: String,
    line: usize,
    /// The choice or the answer that was found in the text; none where there is none.
    answer: Option<String>,
    expected: String,
    correct: bool,
    /// Of GSM8K: right by the answer behind `#### ` too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    strict: Option<bool>,
    /// Of IFEval: which instructions it follows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    followed: Option<Followed>,
    /// Of calls that are wrong: why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    problem: Option<String>,
    /// A digest of what was asked: another question may have this id in another version of the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    asked: Option<String>,
    /// Of choices, in their order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    log_likelihoods: Option<Vec<f64>>,
    /// What was generated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    text: Option<String>,
    /// The prompt lost its beginning, because the model's context is shorter.
    truncated: bool,
}

impl Answered {
    /// To an item, nothing yet.
    fn to(task: Task, item: &Item, expected: &str) -> Self {
        Self {
            what: "item".into(),
            task: task.name().into(),
            id: item.id.clone(),
            file: item.file.clone(),
            line: item.line,
            answer: None,
            expected: expected.into(),
            correct: false,
            strict: None,
            followed: None,
            problem: None,
            asked: Some(digest(item)),
            log_likelihoods: None,
            text: None,
            truncated: false,
        }
    }
}

/// Of what an item asks and what is right.
fn digest(item: &Item) -> String {
    Digest::of(format!("{}\n{:?}", item.prompt, item.asked).as_bytes()).to_string()
}

/// How many of something there were.
#[derive(Clone, Debug, Serialize)]
struct Share {
    correct: u64,
    of: u64,
    accuracy: f64,
    /// Wilson's 95 % interval, where the things counted are items.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<[f64; 2]>,
}

/// One category of a task.
#[derive(Clone, Debug, Serialize)]
struct Category {
    category: &'static str,
    #[serde(flatten)]
    share: Share,
}

/// IFEval's four figures. Instructions of one prompt are not independent, so those have no interval.
#[derive(Clone, Debug, Serialize)]
struct Instructions {
    prompt_strict: Share,
    instruction_strict: Share,
    prompt_loose: Share,
    instruction_loose: Share,
    /// Instructions about a language that could not be told; not followed in the strict figures.
    language_open: u64,
    /// The first few items of these.
    language_open_items: Vec<String>,
}

/// What a task gave.
#[derive(Clone, Debug, Serialize)]
struct Score {
    task: &'static str,
    items: u64,
    correct: u64,
    accuracy: f64,
    /// Wilson's 95 % interval of the accuracy.
    interval: [f64; 2],
    /// Of GSM8K, by the answer behind `#### ` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict_accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<Category>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<Instructions>,
    shots: usize,
    /// Items that could not be used, and the first few reasons.
    skipped: u64,
    problems: Vec<String>,
    truncated: u64,
    /// Items that were read out of the file of results.
    resumed: u64,
    items_per_second: Option<f64>,
}

/// No larger file of results is read: a line for each of some hundred thousand items.
const MOST_RESULTS: u64 = 1 << 30;

/// Results, in memory and on the disk.
struct Results {
    out: Option<(PathBuf, File)>,
    all: Vec<Answered>,
    /// By task and id what was asked, where the file says it.
    known: HashMap<(String, String), Option<String>>,
}

/// Runs the command.
pub fn run(args: &EvalArgs, global: &Global) -> Result<()> {
    let tasks = tasks(&args.input.tasks)?;
    let given = &args.tasks;
    let (devices, why) = devices(global.device.as_deref())?;
    let chosen = ModelInUse::open(&args.model)?.told(&args.template.template_var)?;
    let tokenizer = chosen.files.tokenizer()?;
    let template = if given.chat { Some(template(&chosen)?) } else { None };
    let mut loaded = Vec::new();
    for task in tasks {
        loaded.push((task, items(task, given)?));
    }
    let arch = &chosen.files.architecture;
    let at_once = if loaded.iter().any(|(task, _)| task.is_generated()) { given.batch } else { 1 };
    let longest = longest(&loaded, given).min(arch.context);
    let mut model = chosen.load(&devices, Cache::bytes(arch, at_once, longest))?;
    let path = |path: &Path| path.display().to_string();
    let settings = Settings {
        what: "settings".into(),
        model: args.model.run.as_deref().map(path).or_else(|| args.model.model.clone()).unwrap_or_default(),
        origin: model.origin.to_string(),
        adapter: args.model.adapter.as_deref().map(path),
        adapter_digest: chosen.adapter_digest()?.map(|digest| digest.to_string()),
        storage: (chosen.storage != Hold::Auto).then(|| format!("{:?}", chosen.storage)),
        shots: given.shots,
        chat: given.chat,
        variables: if given.chat { chosen.variables.values().clone() } else { Map::new() },
        max_tokens: given.max_tokens,
    };
    let mut results = Results::open(given.results.as_deref(), &settings)?;
    let mut scores = Vec::new();
    for (task, items) in &loaded {
        let mut todo: Vec<&Item> = Vec::new();
        for item in &items.items {
            if !results.has(*task, item)? {
                todo.push(item);
            }
        }
        let begun = Instant::now();
        match task.is_generated() {
            true => generate(*task, &todo, &mut model, tokenizer, template.as_ref(), given, &mut results)?,
            false => choose(*task, &todo, &mut model, tokenizer, &mut results)?,
        }
        let speed = (!todo.is_empty()).then(|| todo.len() as f64 / begun.elapsed().as_secs_f64());
        scores.push(score(*task, items, &results, given, todo.len(), speed));
    }
    if args.json {
        return output::json(&serde_json::json!({ "tasks": scores }));
    }
    output::text(&text(&scores, &model, &why))
}

/// Tokens of the longest question with its answer, about: what is made with the model beside it.
fn longest(loaded: &[(Task, Items)], args: &TaskArgs) -> usize {
    /// Bytes of text a token has, at least.
    const BYTES: usize = 2;
    let of_task = |(task, items): &(Task, Items)| {
        let answer = if task.is_generated() { args.max_tokens.unwrap_or(task.answer_tokens()) } else { 1 };
        items.items.iter().map(|item| item.prompt.len() / BYTES).max().unwrap_or(0) + answer
    };
    loaded.iter().map(of_task).max().unwrap_or(0)
}

/// The tasks of these names.
fn tasks(names: &[String]) -> Result<Vec<Task>> {
    let known = || Task::ALL.map(|(name, _)| name).join(", ");
    let mut tasks = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        match Task::from_name(name) {
            Some(task) if tasks.contains(&task) => problems.push(format!("--tasks: {name} is there twice")),
            Some(task) => tasks.push(task),
            None => problems.push(format!("--tasks: there is no task {name:?}; there are {}", known())),
        }
    }
    match problems.is_empty() {
        true => Ok(tasks),
        false => Err(Error::Config { problems }.into()),
    }
}

fn template(model: &ModelInUse) -> Result<ChatTemplate> {
    let Layout::Chat(template) = model.layout()? else {
        let problem = "--chat: the model has no chat template, or its run was trained without";
        return Err(Error::Config { problems: vec![problem.into()] }.into());
    };
    Ok(template)
}

fn shots(task: Task, args: &TaskArgs) -> usize {
    if task.takes_shots() { args.shots.unwrap_or(task.shots()) } else { 0 }
}

fn items(task: Task, args: &TaskArgs) -> Result<Items> {
    let options = TaskOptions {
        shots: shots(task, args),
        limit: args.limit.unwrap_or(usize::MAX),
        on_error: if args.skip_broken { OnError::Skip } else { OnError::Stop },
    };
    items_in(task, args.task_data.as_deref().unwrap_or(Path::new("")), options)
}

/// Reads the items of a task out of its folder in this one.
pub(crate) fn items_in(task: Task, folder: &Path, options: TaskOptions) -> Result<Items> {
    let path = folder.join(task.name());
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Error::Missing {
            path: path.display().to_string(),
            problem: "there is no such folder; --task-data takes the folder that has one of each task's name".into(),
        },
        _ => read_error(&path, &error),
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // BFCL's answers are published in a folder of their own.
        if task == Task::Bfcl && name == "possible_answer" && entry.path().is_dir() {
            for inner in fs::read_dir(entry.path()).map_err(failed)? {
                let inner = inner.map_err(failed)?.file_name().into_string();
                names.extend(inner.map(|inner| format!("{name}/{inner}")));
            }
        }
        names.push(name);
    }
    names.sort();
    let read = |name: &str| read_data(&path.join(name).display().to_string());
    let folder = TaskFolder { path: path.display().to_string(), names, read: &read };
    Ok(read_items(task, &folder, options)?)
}

impl Results {
    /// Opens the file, if there is to be one, and reads what is in it. A last line that was being written when the
    /// program ended is cut off and said.
    fn open(path: Option<&Path>, settings: &Settings) -> Result<Self> {
        let mut results = Self { out: None, all: Vec::new(), known: HashMap::new() };
        let Some(path) = path else { return Ok(results) };
        let failed = |error: io::Error| io_error(path, &error);
        let file = path.display().to_string();
        let bytes = read_small(path, MOST_RESULTS)?.unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let no_results = "no results of temper eval --tasks begin so; name another file for --results";
        // A first line that was cut off is ours; anything else is somebody's and stays as it is.
        let ours = serde_json::to_string(settings)?;
        if whole == 0 && !ours.as_bytes().starts_with(&bytes) {
            return Err(Error::Record { file, line: 1, problem: no_results.into() }.into());
        }
        if whole < bytes.len() {
            let _ = writeln!(io::stderr(), "warning: {file}: its last line is cut off; that item is done again");
        }
        for (at, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let refuse = |problem: String| Error::Record { file: file.clone(), line: at + 1, problem };
            if at == 0 {
                let found: Settings = serde_json::from_slice(line).map_err(|_| refuse(no_results.into()))?;
                if found != *settings {
                    let json = |settings: &Settings| serde_json::to_string(settings).unwrap_or_default();
                    let problem = format!(
                        "these results were made with {}, and now it is {}; name another file for --results",
                        json(&found),
                        json(settings)
                    );
                    return Err(refuse(problem).into());
                }
                continue;
            }
            let answered: Answered = serde_json::from_slice(line)
                .map_err(|error| refuse(format!("not a result (column {})", error.column())))?;
            let id = (answered.task.clone(), answered.id.clone());
            if let Entry::Vacant(new) = results.known.entry(id) {
                new.insert(answered.asked.clone());
                results.all.push(answered);
            }
        }
        let out = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(failed)?;
        out.set_len(whole as u64).map_err(failed)?;
        drop(out);
        let out = OpenOptions::new().append(true).open(path).map_err(failed)?;
        results.out = Some((path.to_path_buf(), out));
        if whole == 0 {
            results.write(settings)?;
        }
        Ok(results)
    }

    /// Whether an item was done before.
    ///
    /// # Errors
    /// [`Error::Record`] where another question was done under its name.
    fn has(&self, task: Task, item: &Item) -> Result<bool> {
        let Some(asked) = self.known.get(&(task.name().to_owned(), item.id.clone())) else { return Ok(false) };
        if asked.as_ref().is_some_and(|asked| *asked != digest(item)) {
            let problem = format!(
                "item {} is not the question that the results hold an answer to; name another file for --results",
                item.id
            );
            return Err(Error::Record { file: item.file.clone(), line: item.line, problem }.into());
        }
        Ok(true)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let Some((path, out)) = &mut self.out else { return Ok(()) };
        let line = serde_json::to_string(line)? + "\n";
        out.write_all(line.as_bytes()).map_err(|error| io_error(path, &error))?;
        Ok(())
    }

    fn add(&mut self, answered: Answered) -> Result<()> {
        self.write(&answered)?;
        self.known.insert((answered.task.clone(), answered.id.clone()), answered.asked.clone());
        self.all.push(answered);
        Ok(())
    }
}

/// A question with choices, in tokens.
pub(crate) struct Question<'a> {
    pub(crate) item: &'a Item,
    choices: &'a [String],
    answer: usize,
    pub(crate) text: Vec<u32>,
    pub(crate) choices_tokens: Vec<Vec<u32>>,
    truncated: bool,
}

/// The tokens of questions with choices.
pub(crate) fn questions<'a>(items: &[&'a Item], tokenizer: &Tokenizer, context: usize) -> Result<Vec<Question<'a>>> {
    let mut asked = Vec::with_capacity(items.len());
    for item in items {
        let Asked::Choice { choices, answer } = &item.asked else { continue };
        let mut text = tokenizer.encode_begun(&item.prompt)?;
        // As lm-eval cuts: a choice is what text and choice together have beyond the text's own tokens.
        let behind = |choice: &String| -> Result<Vec<u32>> {
            let whole = tokenizer.encode_begun(&format!("{}{choice}", item.prompt))?;
            Ok(whole.get(text.len()..).unwrap_or_default().to_vec())
        };
        let choices_tokens = choices.iter().map(behind).collect::<Result<Vec<_>>>()?;
        let longest = choices_tokens.iter().map(Vec::len).max().unwrap_or(0);
        if choices_tokens.iter().any(Vec::is_empty) || longest >= context {
            let problem =
                "a choice has no token of its own behind the question, or more than the model's context".into();
            return Err(Error::Record { file: item.file.clone(), line: item.line, problem }.into());
        }
        let beyond = (text.len() + longest).saturating_sub(context);
        text.drain(..beyond);
        asked.push(Question { item, choices, answer: *answer, text, choices_tokens, truncated: beyond > 0 });
    }
    Ok(asked)
}

/// Tokens of the longest question with its longest choice.
pub(crate) fn longest_question(questions: &[Question]) -> usize {
    let of =
        |question: &Question| question.text.len() + question.choices_tokens.iter().map(Vec::len).max().unwrap_or(0);
    questions.iter().map(of).max().unwrap_or(0)
}

/// The likeliest choice; the first of equals.
pub(crate) fn likeliest(likelihoods: &[f64]) -> usize {
    (1..likelihoods.len()).fold(0, |best, at| if likelihoods[at] > likelihoods[best] { at } else { best })
}

/// Answers questions with choices by the likelihood of each.
fn choose(task: Task, items: &[&Item], model: &mut Model, tokenizer: &Tokenizer, results: &mut Results) -> Result<()> {
    let asked = questions(items, tokenizer, model.arch.context)?;
    if asked.is_empty() {
        return Ok(());
    }
    let mut reader = Likelihoods::new(model, longest_question(&asked))?;
    let meter = Meter::new(task.name());
    meter.of_items(asked.len() as u64);
    let mut read = 0;
    for (done, question) in asked.into_iter().enumerate() {
        let likelihoods = wait(reader.of(model, &question.text, &question.choices_tokens))?;
        let best = likeliest(&likelihoods);
        let Question { item, choices, answer, .. } = question;
        results.add(Answered {
            answer: Some(choices[best].trim().into()),
            correct: best == answer,
            log_likelihoods: Some(likelihoods),
            truncated: question.truncated,
            ..Answered::to(task, item, choices[answer].trim())
        })?;
        read += question.text.len() as u64;
        meter.at(done as u64 + 1, read);
    }
    meter.finish();
    Ok(())
}

/// Generates answers, several at once, and judges them.
fn generate(
    task: Task,
    items: &[&Item],
    model: &mut Model,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    args: &TaskArgs,
    results: &mut Results,
) -> Result<()> {
    let stops: Vec<String> = task.stops().iter().map(|stop| (*stop).to_owned()).collect();
    let ends = tokenizer.eos_ids();
    let meter = Meter::new(task.name());
    meter.of_items(items.len() as u64);
    let (mut done, mut written) = (0, 0);
    for some in items.chunks(args.batch) {
        let mut requests = Vec::with_capacity(some.len());
        let mut truncated = Vec::with_capacity(some.len());
        for item in some {
            let mut prompt = match (template, &item.asked) {
                (Some(template), Asked::Calls(question)) => tokenizer.encode(&with_tools(template, question)?)?,
                (Some(template), _) => {
                    tokenizer.encode(&template.render(&[Message::new("user", &item.prompt)], true)?)?
                }
                (None, _) => tokenizer.encode_begun(&item.prompt)?,
            };
            let count = args.max_tokens.unwrap_or(task.answer_tokens()).min(model.arch.context - 1);
            let beyond = (prompt.len() + count).saturating_sub(model.arch.context);
            prompt.drain(..beyond);
            truncated.push(beyond > 0);
            requests.push(Request { prompt, count, sampling: Sampling::greedy() });
        }
        let mut writers: Vec<Writer> = some.iter().map(|_| Writer::new(tokenizer, &stops)).collect();
        let mut texts = vec![String::new(); some.len()];
        let mut failed = None;
        wait(generate_all(model, &requests, args.batch, ends, &mut |at, token| {
            written += 1;
            meter.at(done, written);
            if ends.contains(&token) {
                return false;
            }
            match writers[at].push(token) {
                Ok(new) => texts[at] += &new,
                Err(error) => failed = Some(error),
            }
            failed.is_none() && !writers[at].ended()
        }))?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        for (((item, writer), mut text), truncated) in some.iter().zip(&mut writers).zip(texts).zip(truncated) {
            text += &writer.finish()?;
            let answered = judged(task, item, &text);
            results.add(Answered { text: Some(text), truncated, ..answered })?;
            done += 1;
            meter.at(done, written);
        }
    }
    meter.finish();
    Ok(())
}

/// A question with functions in a chat template; in words where the template does not take functions.
fn with_tools(template: &ChatTemplate, question: &ToolQuestion) -> Result<String> {
    let tools = Some(question.tools.clone());
    let options = RenderOptions { add_generation_prompt: true, tools, ..RenderOptions::default() };
    let with = template.render_with(&question.messages, &options)?;
    match with == template.render(&question.messages, true)? {
        true => Ok(template.render(&[Message::new("user", &question.told)], true)?),
        false => Ok(with),
    }
}

/// What a generated text is worth.
fn judged(task: Task, item: &Item, text: &str) -> Answered {
    match &item.asked {
        Asked::Answer { expected } => {
            let (answer, correct, strict) = judge(task, expected, said(text));
            Answered { answer, correct, strict, ..Answered::to(task, item, expected) }
        }
        Asked::Instructions(instructions) => {
            let followed = ifeval::follow(instructions, said(text));
            let correct = followed.strict.iter().all(|followed| *followed);
            let to = Answered::to(task, item, &followed.ids.join(", "));
            Answered { correct, followed: Some(followed), ..to }
        }
        Asked::Calls(question) => {
            let called = bfcl::call(question, text);
            let to = Answered::to(task, item, &question.answer.to_string());
            Answered { answer: called.calls, correct: called.right, problem: called.problem, ..to }
        }
        Asked::Choice { .. } => unreachable!("choices are not generated"),
    }
}

/// The categories of a task's items, in their order, with what was answered rightly.
fn categories(items: &Items, answered: &[&Answered]) -> Vec<Category> {
    let category = |item: &Item| match &item.asked {
        Asked::Calls(question) => Some(question.category),
        _ => None,
    };
    let of: HashMap<&str, &'static str> =
        items.items.iter().filter_map(|item| Some((item.id.as_str(), category(item)?))).collect();
    let mut names: Vec<&'static str> = items.items.iter().filter_map(category).collect();
    names.dedup();
    let count = |name: &'static str| {
        let own = answered.iter().filter(|answered| of.get(answered.id.as_str()) == Some(&name));
        let (correct, all) = own.fold((0, 0), |(correct, all), one| (correct + u64::from(one.correct), all + 1));
        Category { category: name, share: share(correct, all, true) }
    };
    names.into_iter().map(count).collect()
}

fn share(correct: u64, of: u64, of_items: bool) -> Share {
    let interval = of_items.then(|| wilson(correct, of));
    Share { correct, of, accuracy: correct as f64 / of.max(1) as f64, interval }
}

fn instructions(answered: &[&Answered]) -> Option<Instructions> {
    /// Items of an open language that are named.
    const NAMED: usize = 5;
    let all: Vec<(&str, &Followed)> =
        answered.iter().filter_map(|one| Some((one.id.as_str(), one.followed.as_ref()?))).collect();
    if all.is_empty() {
        return None;
    }
    let figures = |of: fn(&Followed) -> &[bool]| {
        let whole = all.iter().filter(|(_, followed)| of(followed).iter().all(|one| *one)).count();
        let single: Vec<bool> = all.iter().flat_map(|(_, followed)| of(followed)).copied().collect();
        let followed = single.iter().filter(|one| **one).count();
        [share(whole as u64, all.len() as u64, true), share(followed as u64, single.len() as u64, false)]
    };
    let [prompt_strict, instruction_strict] = figures(|followed| &followed.strict);
    let [prompt_loose, instruction_loose] = figures(|followed| &followed.loose);
    let is_open = |followed: &Followed| followed.open.iter().filter(|open| **open).count() as u64;
    let open = all.iter().filter(|(_, followed)| is_open(followed) > 0);
    Some(Instructions {
        prompt_strict,
        instruction_strict,
        prompt_loose,
        instruction_loose,
        language_open: all.iter().map(|(_, followed)| is_open(followed)).sum(),
        language_open_items: open.map(|(id, _)| (*id).to_owned()).take(NAMED).collect(),
    })
}

fn score(task: Task, items: &Items, results: &Results, args: &TaskArgs, fresh: usize, speed: Option<f64>) -> Score {
    let asked: HashSet<&str> = items.items.iter().map(|item| item.id.as_str()).collect();
    let of_task = |answered: &&Answered| answered.task == task.name() && asked.contains(answered.id.as_str());
    let answered: Vec<&Answered> = results.all.iter().filter(of_task).collect();
    let count = |is: &dyn Fn(&Answered) -> bool| answered.iter().filter(|answered| is(answered)).count() as u64;
    let (all, correct) = (answered.len() as u64, count(&|answered| answered.correct));
    let share = |count: u64| count as f64 / all.max(1) as f64;
    Score {
        task: task.name(),
        items: all,
        correct,
        accuracy: share(correct),
        interval: wilson(correct, all),
        strict_accuracy: answered
            .iter()
            .any(|answered| answered.strict.is_some())
            .then(|| share(count(&|answered| answered.strict == Some(true)))),
        categories: categories(items, &answered),
        instructions: instructions(&answered),
        shots: shots(task, args),
        skipped: items.skipped,
        problems: items.problems.clone(),
        truncated: count(&|answered| answered.truncated),
        resumed: all - fresh as u64,
        items_per_second: speed,
    }
}

fn text(scores: &[Score], model: &Model, why: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for s in scores {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let _ = write!(
            text,
            "{:<9} {:>7}  ({} to {})  {} of {} {}",
            s.task,
            percent(s.accuracy),
            percent(s.interval[0]),
            percent(s.interval[1]),
            grouped(s.correct),
            grouped(s.items),
            plural(s.items, "item")
        );
        if let Some(strict) = s.strict_accuracy {
            let _ = write!(text, "; behind ####: {}", percent(strict));
        }
        if s.shots > 0 {
            let _ = write!(text, "; {}", counted(s.shots, "shot"));
        }
        for (count, what) in [(s.skipped, "skipped"), (s.truncated, "prompts cut"), (s.resumed, "from before")] {
            if count > 0 {
                let _ = write!(text, "; {} {what}", grouped(count));
            }
        }
        if let Some(speed) = s.items_per_second {
            let _ = write!(text, "; {} an item", duration(1.0 / speed));
        }
        text.push('\n');
        let line = |share: &Share| {
            let interval = share.interval.map(|[low, high]| format!("  ({} to {})", percent(low), percent(high)));
            let counted = format!("{} of {}", grouped(share.correct), grouped(share.of));
            format!("{:>7}{}  {counted}", percent(share.accuracy), interval.unwrap_or_default())
        };
        for Category { category, share } in &s.categories {
            let _ = writeln!(text, "  {category:<20} {}", line(share));
        }
        if let Some(found) = &s.instructions {
            for (name, share) in [
                ("prompts, strict", &found.prompt_strict),
                ("prompts, loose", &found.prompt_loose),
                ("instructions, strict", &found.instruction_strict),
                ("instructions, loose", &found.instruction_loose),
            ] {
                let _ = writeln!(text, "  {name:<20} {}", line(share));
            }
            if found.language_open > 0 {
                let more = if found.language_open > found.language_open_items.len() as u64 { " and more" } else { "" };
                let _ = writeln!(
                    text,
                    "  of {} instructions the language could not be told; they count as not followed (items {}{more})",
                    grouped(found.language_open),
                    found.language_open_items.join(", ")
                );
            }
        }
        for problem in &s.problems {
            let _ = writeln!(text, "  skipped {problem}");
        }
    }
    let _ = writeln!(text, "device    {} ({why})", model.placement());
    text
}
