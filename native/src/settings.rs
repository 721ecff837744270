//! Which configuration a run follows, and what its folder is called.
//!
//! | given | configuration |
//! | --- | --- |
//! | a file | the file, with `--model`, `--data` and `--set` over it |
//! | a model and data, by flag or `--set` | those of [`own`], fitted to the model and the data |
//! | neither | the embedded demo, with `--set` over it |
//!
//! A model without data, or data without a model, is refused: nobody who names a model wants the demo's settings. A file is
//! fitted to nothing: it says what is done. `temper init` writes into it what would be fitted.

use std::path::{Path, PathBuf};

use anyhow::Result;
use temper_engine::reading::{steps_per_epoch, tokens_of};
use temper_engine::words::plural;
use temper_engine::{Config, Document, Error, Result as EngineResult};

use crate::cli::RunArgs;
use crate::doubts;
use crate::inputs::{DEMO_CONFIG, EMBEDDED, Start, open_model, read_configuration};
use crate::plan::{measurements, trained_tokens};
use crate::progress::grouped;
use crate::training_set::TrainingSet;

/// Most steps of a run of which only model and data were given: about a million tokens, so that a large file does not mean
/// a day of work that nobody asked for.
const MOST_STEPS: u64 = 500;
/// Below so many steps there is little to see.
const FEW_STEPS: u64 = 20;

/// What a written file says of what is fitted to model and data.
const FITTED: &str = "\
# Fitted to model and data, as `temper train --model M --data FILE` does it: data.cutoff_length ends
# where the model's context does, run.steps is at most 500, and data.measured_tokens is so small that
# measuring takes at most a tenth of the run. Without measured_tokens all of each set is measured.

";
const UNFITTED: &str = "\
# Nothing here is fitted to model and data. `temper train --model M --data FILE` ends data.cutoff_length
# where the model's context does, makes at most 500 run.steps, and keeps data.measured_tokens so small
# that measuring takes at most a tenth of the run; `temper init --model M --data FILE` writes that down.
# Without measured_tokens all of each set is measured, which can be most of a short run.

";

const MODEL: &str = "model.path";
const DATA: &str = "data.train";
const ADAPTER: &str = "adapter.from";
/// What [`own`] is called in messages.
const OWN: &str = "the settings for a model and data";

/// A token in so many of those that are trained is measured of a set, before and after, or as many over all of more measurements:
/// each takes at most half of what a trained one takes.
const MEASURED_SHARE: u64 = 10;
/// Fewer tokens say little about a set.
const LEAST_MEASURED: u64 = 2048;

/// A configuration, and what it leaves to be fitted once model and data are known.
pub struct Settings {
    /// The configuration.
    pub config: Config,
    /// Name of the run, for its folder.
    pub name: String,
    /// The longest document follows the model's context.
    fit_cutoff: bool,
    /// The number of steps is bounded.
    fit_steps: bool,
    /// What is measured follows what is trained.
    fit_measured: bool,
}

impl Settings {
    /// What the arguments ask for, with more overrides after theirs.
    ///
    /// # Errors
    /// Every invalid value; what is missing where only one of model and data is given; a file that cannot be read.
    pub fn of(args: &RunArgs, more: Vec<(String, String)>) -> Result<Self> {
        let overrides: Vec<_> = overrides(args).into_iter().chain(more).collect();
        if let Some(path) = &args.config {
            let name = path.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
            return Ok(Self::fixed(read(path, &overrides)?, name));
        }
        let given = |key: &str| overrides.iter().any(|(name, _)| name == key);
        match (given(MODEL), given(DATA)) {
            (false, false) => Ok(Self::fixed(demo(&overrides)?, "demo".into())),
            (true, true) => {
                let config = parse(&own("", &[]), OWN, &overrides)?;
                let name = format!("{}-{}", model_stem(&config.model.path), data_stems(config.data.train.paths()));
                let fit_cutoff = !given("data.cutoff_length");
                let fit_steps = !given("run.steps") && !given("run.epochs");
                let fit_measured = !given("data.measured_tokens");
                Ok(Self { config, name, fit_cutoff, fit_steps, fit_measured })
            }
            (true, false) => Err(one_of_two("a model is given but no data to train it on: add --data FILE").into()),
            (false, true) => Err(one_of_two("data is given but no model to train: add --model DIR_OR_GGUF").into()),
        }
    }

    /// A configuration that says all there is to say.
    pub fn fixed(config: Config, name: String) -> Self {
        Self { config, name, fit_cutoff: false, fit_steps: false, fit_measured: false }
    }

    /// Refuses what these arguments ask of a new run in vain.
    ///
    /// # Errors
    /// [`Error::Config`] with what contradicts another setting, or is about measuring where nothing is measured.
    pub fn refuse_vain(&self, args: &RunArgs) -> EngineResult<()> {
        doubts::refuse_contradictions(&self.config)?;
        doubts::refuse_unmeasured(&self.config, &overrides(args))
    }

    /// Cuts documents where the model's context ends, unless a length was asked for.
    pub fn fit_to_model(&mut self, context: usize) {
        if self.fit_cutoff {
            self.config.data.cutoff_length = self.config.data.cutoff_length.min(context);
        }
    }

    /// Bounds the number of steps and of tokens that are measured, unless numbers were asked for, and says what will be done;
    /// `None` where the user knows.
    ///
    /// # Errors
    /// As [`steps_per_epoch`].
    pub fn fit_to_data(&mut self, documents: &[Document]) -> EngineResult<Option<String>> {
        let said = self.fit_steps_to(documents)?;
        if self.fit_measured {
            let trained = trained_tokens(&self.config, documents)?;
            let times = measurements(&self.config, documents)?;
            self.config.data.measured_tokens = Some((2 * trained / (MEASURED_SHARE * times)).max(LEAST_MEASURED));
        }
        Ok(said)
    }

    fn fit_steps_to(&mut self, documents: &[Document]) -> EngineResult<Option<String>> {
        if !self.fit_steps {
            return Ok(None);
        }
        let (data, run) = (&self.config.data, &mut self.config.run);
        let files = data.train.to_string();
        let pass = steps_per_epoch(&files, documents, run.seed, run.batch_tokens, run.accumulation)?;
        let step = run.batch_tokens.saturating_mul(run.accumulation);
        let all = tokens_of(documents);
        let of = |steps: u64| {
            let tokens = grouped(step as u64);
            format!("plan       {} {} of up to {tokens} tokens", grouped(steps), plural(steps, "step"))
        };
        if pass > MOST_STEPS {
            (run.steps, run.epochs) = (Some(MOST_STEPS), None);
            return Ok(Some(format!(
                "{}, a part of the data: one pass over all {} tokens takes {} steps (--set run.epochs=1)",
                of(MOST_STEPS),
                grouped(all as u64),
                grouped(pass)
            )));
        }
        let more = match pass < FEW_STEPS {
            true => format!(", which is little; --set run.epochs={} takes more", FEW_STEPS.div_ceil(pass).max(3)),
            false => String::new(),
        };
        Ok(Some(format!("{}: one pass over {} tokens{more}", of(pass), grouped(all as u64))))
    }
}

/// The configuration in a file, with overrides.
///
/// # Errors
/// A file that cannot be read or is no text; every invalid value.
pub fn read(path: &Path, overrides: &[(String, String)]) -> EngineResult<Config> {
    refuse_other_files(path)?;
    let file = path.display().to_string();
    let problem = || "a configuration is UTF-8 text".to_string();
    let text = String::from_utf8(read_configuration(&file)?)
        .map_err(|_| Error::Format { file: file.clone(), problem: problem() })?;
    parse(&text, &file, overrides)
}

/// Refuses what is data or a model by its name, before it is taken for a configuration.
///
/// # Errors
/// [`Error::Config`].
pub fn refuse_other_files(path: &Path) -> EngineResult<()> {
    const OTHERS: [&str; 5] = ["json", "jsonl", "txt", "gguf", "safetensors"];
    let ends_with = |path: &Path, known: &str| path.extension().is_some_and(|end| end.eq_ignore_ascii_case(known));
    let packed = ends_with(path, "gz").then(|| path.with_extension(""));
    let unpacked = packed.as_deref().unwrap_or(path);
    let is_other = OTHERS.iter().any(|other| ends_with(unpacked, other));
    if !is_other && !path.is_dir() {
        return Ok(());
    }
    let advice = "data go behind --data, a model behind --model (in it they are data.train and model.path)";
    Err(Error::Config { problems: vec![format!("{}: a configuration is TOML; {advice}", path.display())] })
}

/// The embedded demo's configuration, with overrides.
///
/// # Errors
/// Every invalid value.
pub fn demo(overrides: &[(String, String)]) -> EngineResult<Config> {
    parse(DEMO_CONFIG, "the embedded configuration", overrides)
}

/// The configuration in a text, with overrides; where it goes on from an adapter, of that one's rank, alpha, targets and storage.
fn parse(text: &str, file: &str, overrides: &[(String, String)]) -> EngineResult<Config> {
    let config = Config::parse(text, file, overrides)?;
    match &config.adapter.from {
        Some(from) => Start::open(from)?.configured(text, file, overrides),
        None => Ok(config),
    }
}

/// What the arguments set, in the order in which it applies: the flags, then `--set`.
pub fn overrides(args: &RunArgs) -> Vec<(String, String)> {
    // Quoted, since a folder may be called `2024` or `true`.
    let model = args.model.as_ref().map(|model| (MODEL.to_string(), quote(model)));
    let data = (!args.data.is_empty()).then(|| (DATA.to_string(), quote_all(&args.data)));
    let adapter = args.adapter.as_ref().map(|adapter| (ADAPTER.to_string(), quote(adapter)));
    model.into_iter().chain(data).chain(adapter).chain(args.set.iter().cloned()).collect()
}

/// What a run on one's own model and data sets; all else are defaults.
fn own(model: &str, data: &[String]) -> String {
    format!(
        "[model]\npath = {}\n[data]\ntrain = {}\nhold_out = 0.1\ngeneral = \"{EMBEDDED}general.txt\"\n\
         [run]\naccumulation = 1\n",
        quote(model),
        quote_all(data)
    )
}

/// The configuration of a run on this model and these files, with what is fitted to them.
///
/// # Errors
/// What is missing or malformed, with its file.
pub fn fitted(model: &str, data: &[String]) -> Result<Config> {
    let args = RunArgs { config: None, model: Some(model.into()), data: data.to_vec(), adapter: None, set: Vec::new() };
    let mut settings = Settings::of(&args, Vec::new())?;
    let files = open_model(model)?;
    settings.fit_to_model(files.architecture.context);
    let mut training = TrainingSet::read(&settings.config, files.tokenizer()?, &mut |_, _| Ok(()))?;
    if let Some(share) = settings.config.data.hold_out {
        training.hold_out(share)?;
    }
    settings.fit_to_data(&training.into_documents())?;
    Ok(settings.config)
}

/// The same as a file to begin with: every key under its explanation, those that are not set commented out, so that
/// defaults which depend on others still follow them. What is fitted is set.
///
/// # Errors
/// A file that is there twice; all else is this program's own.
pub fn commented(model: &str, data: &[String], fitted: Option<&Config>) -> Result<String> {
    // A place for what is not known yet; nothing is called by a space.
    const UNKNOWN: &str = " ";
    let model = if model.is_empty() { UNKNOWN } else { model };
    let text = if data.is_empty() { own(model, &[UNKNOWN.to_string()]) } else { own(model, data) };
    let set: toml::Table = toml::from_str(&text)?;
    let plain = Config::parse(&text, OWN, &[])?;
    let config = fitted.unwrap_or(&plain);
    let fits: Vec<String> = plain.differences(config).into_iter().map(|(key, ..)| key).collect();
    let mut file =
        String::from("# A run of Temper: `temper train THIS_FILE`. Keys that are commented out have their defaults.\n");
    file += match fitted {
        Some(_) => FITTED,
        None => UNFITTED,
    };
    let mut section = "";
    let all = config.to_commented_toml();
    for line in all.lines() {
        section = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(section);
        let key = line.split_once(" = ").map(|(key, _)| key).filter(|key| !key.starts_with('#'));
        let is_set = |key: &str| {
            set.get(section).is_some_and(|keys| keys.get(key).is_some()) || fits.contains(&format!("{section}.{key}"))
        };
        file += if key.is_some_and(|key| !is_set(key)) { "# " } else { "" };
        file += &line.replace(&quote(UNKNOWN), &quote(""));
        file.push('\n');
    }
    Ok(file)
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// One path or none, or a list of several.
fn quote_all(paths: &[String]) -> String {
    match paths {
        [] => quote(""),
        [path] => quote(path),
        paths => toml::Value::from(paths.to_vec()).to_string(),
    }
}

fn one_of_two(problem: &str) -> Error {
    let advice = "or give a configuration file (temper init writes one); without either, the demo is trained";
    Error::Config { problems: vec![format!("{problem}; {advice}")] }
}

/// Short name of a model: that of its folder or file, or, in the hub's cache, the model's own.
pub fn model_stem(path: &str) -> String {
    let path = path.strip_prefix(EMBEDDED).unwrap_or(path);
    let full = Path::new(path).canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let name = |path: &Path| path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let snapshots = full.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent);
    let stem = match snapshots {
        // models--OWNER--NAME/snapshots/COMMIT
        Some(model) => name(model).rsplit("--").next().unwrap_or_default().to_owned(),
        None => name(&full),
    };
    plain(stem.strip_suffix(".gguf").unwrap_or(&stem), "model")
}

/// Short name of several data files: the first few of theirs.
fn data_stems(paths: &[String]) -> String {
    const MOST: usize = 3;
    let stems = paths.iter().take(MOST).map(|path| data_stem(path));
    let more = paths.len().checked_sub(MOST).filter(|more| *more > 0).map(|more| format!("{more}-more"));
    stems.chain(more).collect::<Vec<_>>().join("+")
}

/// Short name of a data file: without its endings.
pub fn data_stem(path: &str) -> String {
    let path = path.strip_prefix(EMBEDDED).unwrap_or(path);
    let name = Path::new(path).file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    plain(Path::new(name).file_stem().map_or("".into(), |stem| stem.to_string_lossy()).as_ref(), "data")
}

/// A name that needs no quotes in any shell.
fn plain(name: &str, otherwise: &str) -> String {
    let harmless = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().map(harmless).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { otherwise.into() } else { name.into() }
}

/// `runs/<name>`, or the first of `-2`, `-3` ... that does not exist yet.
pub fn free_folder(name: &str) -> PathBuf {
    let first = Path::new("runs").join(name);
    let mut out = first.clone();
    let mut n = 2;
    while out.exists() {
        out = first.with_file_name(format!("{name}-{n}"));
        n += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: Option<&str>, model: Option<&str>, data: Option<&str>, set: &[(&str, &str)]) -> RunArgs {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        RunArgs {
            config: config.map(PathBuf::from),
            model: owned(model),
            data: owned(data).into_iter().collect(),
            adapter: None,
            set: set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        }
    }

    fn documents(count: usize, tokens: usize) -> Vec<Document> {
        vec![Document { tokens: vec![1; tokens], trained: vec![true; tokens], line: 1 }; count]
    }

    #[test]
    fn the_demos_settings_count_only_where_neither_model_nor_data_is_given() {
        let demo = Settings::of(&args(None, None, None, &[("run.steps", "3")]), vec![]).unwrap();
        assert_eq!((demo.name.as_str(), demo.config.data.target.as_deref()), ("demo", Some("embedded:target.jsonl")));
        let ways = [
            args(None, Some("m"), Some("d.jsonl"), &[]),
            args(None, None, Some("d.jsonl"), &[("model.path", "m")]),
            args(None, None, None, &[("model.path", "m"), ("data.train", "d.jsonl")]),
        ];
        for way in &ways {
            let own = Settings::of(way, vec![]).unwrap();
            assert_eq!(own.name, "m-d");
            assert_eq!(own.config.adapter.kind.to_string(), "lora");
            assert_eq!((own.config.data.target, own.config.data.hold_out), (None, Some(0.1)));
            assert_eq!((own.config.optim.learning_rate, own.config.run.epochs), (1e-4, Some(1.0)));
        }
        let own = Settings::of(&args(None, Some("m"), Some("d"), &[("data.target", "t")]), vec![]).unwrap();
        assert_eq!((own.config.data.target.as_deref(), own.config.data.hold_out), (Some("t"), None));
        let own = Settings::of(&args(None, Some("2024"), Some("true"), &[]), vec![]).unwrap();
        assert_eq!((own.config.model.path.as_str(), &*own.config.data.train.to_string()), ("2024", "true"));
        for (one, missing) in [
            (args(None, Some("m"), None, &[]), "--data"),
            (args(None, None, None, &[("model.path", "m")]), "--data"),
            (args(None, None, Some("d"), &[]), "--model"),
            (args(None, None, None, &[("data.train", "d")]), "--model"),
        ] {
            let error = Settings::of(&one, vec![]).err().expect("half of what is needed").to_string();
            assert!(error.contains(missing), "{error}");
        }
    }

    #[test]
    fn what_comes_with_the_program_and_what_init_writes_asks_for_nothing_in_vain() {
        for given in [args(None, None, None, &[]), args(None, Some("m"), Some("d"), &[])] {
            Settings::of(&given, vec![]).unwrap().refuse_vain(&given).unwrap();
        }
        let given = args(None, None, None, &[("objective.method", "sft")]);
        let refused = Settings::of(&given, vec![]).unwrap().refuse_vain(&given).unwrap_err().to_string();
        assert!(refused.contains("the baseline is the same objective, sft"), "{refused}");
        let blind = [("data.hold_out", ""), ("data.general", ""), ("run.eval_every", "2")];
        let given = args(None, Some("m"), Some("d"), &blind);
        let refused = Settings::of(&given, vec![]).unwrap().refuse_vain(&given).unwrap_err().to_string();
        assert!(refused.contains("run.eval_every: is about what is measured"), "{refused}");
    }

    #[test]
    fn a_large_file_is_bounded_and_what_will_happen_is_said() {
        let mut own = Settings::of(&args(None, Some("m"), Some("d"), &[]), vec![]).unwrap();
        own.fit_to_model(1024);
        assert_eq!(own.config.data.cutoff_length, 1024);
        let said = own.fit_to_data(&documents(2_000, 1_000)).unwrap().unwrap();
        assert_eq!((own.config.run.steps, own.config.run.epochs), (Some(500), None));
        // A tenth of a million.
        assert_eq!(own.config.data.measured_tokens, Some(100_000));
        assert!(said.contains("500 steps") && said.contains("2,000,000 tokens takes 1,000 steps"), "{said}");

        let mut own = Settings::of(&args(None, Some("m"), Some("d"), &[]), vec![]).unwrap();
        let said = own.fit_to_data(&documents(100, 1_000)).unwrap().unwrap();
        assert_eq!((own.config.run.steps, own.config.run.epochs), (None, Some(1.0)));
        assert!(said.ends_with("50 steps of up to 2,048 tokens: one pass over 100,000 tokens"), "{said}");
        let said = own.fit_to_data(&documents(2, 1_000)).unwrap().unwrap();
        assert!(said.contains(" 1 step of") && said.contains("run.epochs=20"), "{said}");
        assert_eq!(own.config.data.measured_tokens, Some(2048));

        let set = [("run.epochs", "1"), ("data.cutoff_length", "2000"), ("data.measured_tokens", "7")];
        let mut own = Settings::of(&args(None, Some("m"), Some("d"), &set), vec![]).unwrap();
        own.fit_to_model(1024);
        assert_eq!(own.fit_to_data(&documents(2_000, 1_000)).unwrap(), None);
        assert_eq!((own.config.data.cutoff_length, own.config.run.epochs), (2000, Some(1.0)), "as asked for");
        assert_eq!(own.config.data.measured_tokens, Some(7), "as asked for");
    }

    #[test]
    fn what_the_commented_configuration_calls_a_default_is_one() {
        let data = ["d".to_string()];
        let text = commented("m", &data, None).unwrap();
        let plain = Config::parse(&text, "own.toml", &[]).unwrap();
        assert_eq!(plain, Config::parse(&own("m", &data), "own.toml", &[]).unwrap());
        // `steps` and `epochs` exclude each other, as `target` and `hold_out` do: what has no value has no line to set it.
        let is_key = |rest: &str| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let shown = |line: &str| line.strip_prefix("# ").filter(|rest| is_key(rest)).map(str::to_owned);
        let all: String = text.lines().map(|line| format!("{}\n", shown(line).unwrap_or(line.into()))).collect();
        let keys = |text: &str| text.lines().filter(|line| is_key(line)).count();
        assert!(keys(&text) == 5 && keys(&all) > 35, "{all}");
        assert_eq!(Config::parse(&all, "own.toml", &[]).unwrap_or_else(|error| panic!("{error}\n{all}")), plain);
        assert!(commented("", &data, None).unwrap().contains("path = \"\"\n"));
        assert!(commented("m", &[], None).unwrap().contains("train = \"\"\n"));
    }

    #[test]
    fn what_is_fitted_to_model_and_data_is_written_down_and_read_back() {
        let (model, data) = ("embedded:base", ["embedded:train.jsonl".to_string()]);
        let mut fit = fitted(model, &data).unwrap();
        assert!(fit.data.measured_tokens.is_some_and(|tokens| tokens > LEAST_MEASURED), "{fit:?}");
        for steps in [None, Some(MOST_STEPS)] {
            if steps.is_some() {
                (fit.run.steps, fit.run.epochs) = (steps, None);
            }
            let text = commented(model, &data, Some(&fit)).unwrap();
            assert_eq!(Config::parse(&text, "own.toml", &[]).unwrap(), fit, "{text}");
            assert!(text.contains("\nmeasured_tokens = ") && !text.contains("\nepochs = "), "{text}");
        }
        assert!(fitted("nowhere", &data).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn a_run_is_named_after_its_model_and_data_without_quotes_or_endings() {
        assert_eq!(model_stem("embedded:base"), "base");
        assert_eq!(model_stem("models/SmolLM2 135M.Q4_1.gguf"), "SmolLM2-135M.Q4_1");
        assert_eq!(model_stem("models--Qwen--Qwen3-0.6B/snapshots/c0ffee"), "Qwen3-0.6B");
        assert_eq!(model_stem(""), "model");
        assert_eq!(data_stem("embedded:train.jsonl"), "train");
        assert_eq!(data_stem("x/my data.jsonl.gz"), "my-data");
        assert_eq!(data_stem(".jsonl"), "jsonl");
        let stems = |paths: &[&str]| data_stems(&paths.iter().map(|path| path.to_string()).collect::<Vec<_>>());
        assert_eq!(stems(&["x/math.jsonl", "my chat.txt"]), "math+my-chat");
        assert_eq!(stems(&["a", "b", "c"]), "a+b+c");
        assert_eq!(stems(&["a", "b", "c", "d", "e"]), "a+b+c+2-more");
    }

    #[test]
    fn several_files_of_data_are_a_list_and_one_is_a_path() {
        let given = |data: &[&str]| {
            let data = data.iter().map(|path| path.to_string()).collect();
            overrides(&RunArgs { config: None, model: None, data, adapter: None, set: Vec::new() })
        };
        assert!(given(&[]).is_empty());
        for (data, value) in [(&["a.jsonl"][..], "\"a.jsonl\""), (&["a.jsonl", "b c"], "[\"a.jsonl\", \"b c\"]")] {
            assert_eq!(given(data), [(DATA.to_string(), value.to_string())]);
        }
        let adapter = Some("2024".to_string());
        let with = overrides(&RunArgs { config: None, model: None, data: Vec::new(), adapter, set: Vec::new() });
        assert_eq!(with, [(ADAPTER.to_string(), "\"2024\"".to_string())]);
        let data = ["embedded:train.jsonl", "embedded:general.txt"].map(str::to_string);
        let fit = fitted("embedded:base", &data).unwrap();
        let text = commented("embedded:base", &data, Some(&fit)).unwrap();
        assert_eq!(Config::parse(&text, "own.toml", &[]).unwrap(), fit, "{text}");
        assert_eq!(fit.data.train.paths(), data);
    }
}
