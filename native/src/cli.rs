//! What the command accepts. Scripts rely on these names: extend them, do not rename.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use temper_engine::configuration::setting_called;
use temper_engine::models::{Choice, Hold};
use temper_engine::products::Compute;
use temper_engine::reading::Fields;

/// Fine-tune language models without making them forget, on any GPU or on the CPU.
#[derive(Debug, Parser)]
#[command(name = "temper", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 the run failed, 2 something that was asked for cannot be, 130 stopped with Ctrl-C."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What the arguments, the program's name among them, ask for.
    ///
    /// # Errors
    /// clap's, which also answers `--help` and `--version`.
    pub fn of(arguments: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments).map_err(|error| with_setting(error, arguments))
    }
}

/// Commands whose settings are given with `--set`.
const WITH_SETTINGS: [&str; 4] = ["train", "compare", "plan", "config"];

/// An error of clap's; where it is about an option that is none but is called as a setting, it says how that is set.
fn with_setting(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let is_command = |argument: &OsString| WITH_SETTINGS.iter().any(|command| argument.as_os_str() == *command);
    if error.kind() != ErrorKind::UnknownArgument || !arguments.iter().any(is_command) {
        return error;
    }
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg).cloned() else { return error };
    let Some(name) = option.strip_prefix("--") else { return error };
    let Some(setting) = setting_called(name) else { return error };
    let given = arguments.iter().enumerate().find_map(|(at, argument)| {
        let rest = argument.to_str()?.strip_prefix(&option)?;
        if rest.is_empty() { arguments.get(at + 1)?.to_str() } else { rest.strip_prefix('=') }
    });
    // What others call so may be counted in something else.
    let is_own_name = setting.ends_with(&format!(".{}", name.replace('-', "_")));
    let value = given.filter(|value| is_own_name && !value.starts_with("--")).unwrap_or("...");
    let tip = format!("'{option}' is a setting: --set {setting}={value}");
    error.remove(ContextKind::SuggestedArg);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where to compute: cpu, vulkan, metal, dx12, or part of a GPU's name (`temper devices` lists them); with commas between
    /// them several, which share the model's blocks in this order. Without it: a hardware GPU if there is one, else the CPU.
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Log more to stderr; twice for every detail. The environment variable TEMPER_LOG selects finer (for example
    /// `temper_engine=debug`).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a model: with --model and --data, with a configuration, or, with neither, a small embedded demo.
    Train(TrainArgs),
    /// Train several objectives from one start, over learning rates and seeds, and say which forgets less at equal learning.
    Compare(CompareArgs),
    /// Say what a run would hold in memory and how long it would take, and what would make it fit. Loads no weights.
    Plan(PlanArgs),
    /// Print a configuration with all its defaults, each key explained.
    Config(ConfigArgs),
    /// Write a commented configuration to begin with.
    Init(InitArgs),
    /// Measure loss and perplexity of a model on a text or a data set, or its score on benchmarks.
    Eval(EvalArgs),
    /// Show how a data set meets a model, before anything is trained: where the model is sure and the data disagree.
    Scan(ScanArgs),
    /// List the GPUs of this machine, their limits, and whether one of them or the CPU would be chosen, and why.
    Devices(DevicesArgs),
    /// Let a model answer a prompt, or many of them.
    Generate(GenerateArgs),
    /// Talk with a model: it answers line by line, with its chat template, and remembers what was said.
    Chat(ChatArgs),
    /// Measure time and memory, after checking that the results are right.
    Bench(BenchArgs),
    /// Write what a run trained, or a model with its adapter, as one model for other programs.
    Export(ExportArgs),
    /// Write a model as a GGUF file whose matrices take fewer bits.
    Quantize(QuantizeArgs),
    /// Write a model file of a published shape with random weights, to try and to measure with.
    Fabricate(FabricateArgs),
    /// Evaluate an objective on given logits and labels.
    Loss(LossArgs),
    /// Write a model's logits for given tokens.
    Logits(LogitsArgs),
    /// Show the page on which two learners train in the browser, to this machine only.
    Web(WebArgs),
}

/// What a run is made of.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file in TOML. Without one, --model and --data are enough; without those too, the embedded model is
    /// trained on the embedded data.
    pub config: Option<PathBuf>,
    /// Hugging Face folder or GGUF file to fine-tune; the same as `--set model.path=...`.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    pub model: Option<String>,
    /// JSONL or text to train on; the same as `--set data.train=...`. May be repeated: all files are one training set, in
    /// which each may look different. Without a configuration, the last tenth of each is held out to measure what was
    /// learned.
    #[arg(long, value_name = "FILE")]
    pub data: Vec<String>,
    /// Adapter to go on from, PEFT's folder or that of a run; the same as `--set adapter.from=...`.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<String>,
    /// Override one value of the configuration, for example `--set run.steps=100`; with no value, as in `--set data.general=`,
    /// take back what the configuration says of a setting without a default. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

/// Arguments of `temper train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Folder for everything that the run writes; must be empty or not exist yet. Without it, one below `runs`, named
    /// after the configuration or after model and data.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the interrupted run in --out, from its last checkpoint. A configuration given again must be the run's
    /// own, but for what can change: more steps, how often something is logged, saved and measured, and the devices.
    #[arg(long, requires = "out")]
    pub resume: bool,
}

/// Arguments of `temper compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Configuration of a run, in TOML, which may end with tables [compare] and [[compare.variant]]; `embedded:train.toml` and
    /// `embedded:facts.toml` are inside the program.
    pub config: PathBuf,
    /// Values of one setting, for example `--vary objective.method=sft,eaft`, `--vary optim.learning_rate=1e-4,3e-4` and
    /// `--vary run.seed=1,2,3`. May be repeated: every combination is trained. Variants are what differs in `objective.`.
    /// Takes the place of what `[compare]` says of the same setting.
    #[arg(long = "vary", value_name = "SECTION.KEY=VALUES", value_parser = key_value)]
    pub vary: Vec<(String, String)>,
    /// Override one value of the configuration for all runs, or with no value take it back. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Folder for the runs and the report. The same command goes on with what is there. Without it, one below `runs`, named
    /// after the configuration.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only say which runs that would be.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `temper plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Memory of the device, for example 8GiB or 24GB: for a GPU that does not say how much it has, or to plan with less than
    /// there is. Of several devices, one for each, with commas between them.
    #[arg(long, value_name = "SIZE", value_parser = memory_size, value_delimiter = ',')]
    pub device_memory: Vec<u64>,
    /// Print one JSON object, with `peak_bytes`, `device_bytes`, `host_bytes`, `moments`, `seconds_per_step`, `fits` and
    /// `advice`. The exit code is 0 whether it fits or not.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `temper config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file in TOML; without one, the embedded one.
    pub config: Option<PathBuf>,
    /// Override one value of the configuration, for example `--set run.steps=100`; with no value, as in `--set data.general=`,
    /// take back what the configuration says of a setting without a default. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Print what is known of every key as JSON: type, default, range, choices and help.
    #[arg(long, conflicts_with_all = ["config", "set"])]
    pub schema: bool,
}

/// Arguments of `temper init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// File to write; never overwritten.
    #[arg(default_value = "temper.toml")]
    pub file: PathBuf,
    /// Hugging Face folder or GGUF file to fine-tune.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    pub model: Option<String>,
    /// JSONL or text to train on; may be repeated. With a model and data that can be read, what follows from them (how long
    /// documents are, how many steps, how much is measured) is written down as `temper train --model M --data FILE` has it.
    #[arg(long, value_name = "FILE")]
    pub data: Vec<String>,
}

/// Arguments of `temper export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// What to write; never overwritten. A name that ends in .gguf: a file for llama.cpp, Ollama and LM Studio; any other: a
    /// Hugging Face folder.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// How matrices are stored. In a folder: f16, bf16 or f32; in a GGUF file any of `temper quantize --to` too. Without it bf16,
    /// where the model's are bf16, or else f16. Few bits can round away what an adapter changes: measure with `temper eval`.
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<String>,
    /// Write only the adapter, as a GGUF file that llama.cpp puts on the model itself (`--lora`).
    #[arg(long, conflicts_with_all = ["to", "storage", "calibrate"])]
    pub adapter_only: bool,
    #[command(flatten)]
    pub calibrating: Calibrating,
}

/// By what matrices are rounded.
#[derive(Debug, Args)]
pub struct Calibrating {
    /// Text or records that the model reads meanwhile: the blocks' matrices are rounded so that what they make of it changes least
    /// (GPTQ), in the same formats and for the same readers. Best is what it is trained on. On the CPU, some minutes for a small
    /// model and hours for one of 4B; for q8_0, q4_0, q4_k, q4_1, q5_0 and q5_1, and what is q4_k or q5_0 of q4_k_m.
    #[arg(long, value_name = "FILE")]
    pub calibrate: Vec<String>,
    /// Most tokens that are read of these files together, of each as many.
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = at_least_two, requires = "calibrate")]
    pub calibrate_tokens: usize,
}

/// Arguments of `temper quantize`.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// Hugging Face folder or GGUF file.
    #[arg(value_name = "DIR_OR_GGUF")]
    pub model: String,
    /// GGUF file to write; never overwritten.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// How matrices are stored: q8_0, q4_0, q4_k_m (llama.cpp's mix of q4_k and q6_k), q4_k, q6_k, q4_1, q5_0, q5_1, f16, bf16 or f32.
    /// Where rows are no whole blocks of 256, q5_0 is taken for q4_k and q8_0 for q6_k, and f16 where they are none of 32. Norms
    /// and biases stay as they are.
    #[arg(long, value_name = "FORMAT")]
    pub to: String,
    #[command(flatten)]
    pub calibrating: Calibrating,
}

/// Arguments of `temper fabricate`.
#[derive(Debug, Args)]
pub struct FabricateArgs {
    /// Published model whose shape it has: qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen3-14b, qwen3-32b, qwen2.5-32b,
    /// glm4-9b, glm4-32b, llama3.1-8b, gemma3-270m, gemma3-1b, gemma3-4b or phi4-mini.
    #[arg(long, value_name = "MODEL")]
    pub like: String,
    /// How matrices are stored: q4_0, q4_k, q4_k_m (llama.cpp's mix of q4_k and q6_k), q5_0, q8_0 or bf16.
    #[arg(long, value_name = "FORMAT", default_value = "q4_0")]
    pub quant: String,
    /// Another number of blocks, for a smaller file.
    #[arg(long, value_name = "N")]
    pub layers: Option<usize>,
    /// Decides the weights.
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// GGUF file to write; never overwritten.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// A model to use: by its path, with an adapter or without, or the one that a run trained.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").args(["model", "run"]).required(true))]
pub struct ModelArgs {
    /// Hugging Face folder or GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// Adapter to put on the model: PEFT's folder, or that of a run that trained one.
    #[arg(long, value_name = "DIR", requires = "model")]
    pub adapter: Option<PathBuf>,
    /// Folder of a run, in place of --model: its model with the adapter that it trained, or the model that it trained whole.
    #[arg(long, value_name = "DIR", conflicts_with = "adapter")]
    pub run: Option<PathBuf>,
    /// What the run of --run had learned by this step, of which it keeps a checkpoint, in place of its result; also of a run that
    /// has not come to its end.
    #[arg(long, value_name = "N", value_parser = whole::<u64>, requires = "run", conflicts_with = "model")]
    pub step: Option<u64>,
    /// How matrices lie in memory: auto (as the file has them), f32, f16, bf16, q8_0, q4_0 or q4_k. Without it as the run
    /// had them, or auto.
    #[arg(long, value_name = "FORMAT", value_parser = one_of::<Hold>)]
    pub storage: Option<Hold>,
}

/// Arguments of `temper eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub template: TemplateArgs,
    #[command(flatten)]
    pub named: FieldArgs,
    #[command(flatten)]
    pub input: EvalInput,
    #[command(flatten)]
    pub tasks: TaskArgs,
    /// Print one JSON object with `loss`, `perplexity`, `tokens` and `skipped`, the records that were left out; with --tasks the
    /// list `tasks`.
    #[arg(long)]
    pub json: bool,
}

/// What a chat template is told.
#[derive(Debug, Args)]
pub struct TemplateArgs {
    /// Tell the model's chat template this, for example `enable_thinking=false`. May be repeated; a run's own
    /// (data.template_variables) hold where it is not given.
    #[arg(long, value_name = "NAME=VALUE")]
    pub template_var: Vec<String>,
}

/// What the fields of records are called.
#[derive(Debug, Args)]
pub struct FieldArgs {
    /// Read the records of --data by these fields, for example `prompt=question,completion=response`; a run's own (data.fields)
    /// hold where it is not given.
    #[arg(long, value_name = "NAME=FIELD,...", requires = "data")]
    pub fields: Option<Fields>,
}

/// Arguments of `temper eval --tasks`.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// Folder with one folder a task, of the task's name.
    #[arg(long, value_name = "DIR", requires = "tasks")]
    pub task_data: Option<PathBuf>,
    /// Ask only so many items of each task; of mmlu one of each subject in turn, of bfcl one of each category.
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "tasks")]
    pub limit: Option<usize>,
    /// Worked examples before each question of mmlu and gsm8k; 5 without it.
    #[arg(long, value_name = "N", value_parser = whole::<usize>, requires = "tasks")]
    pub shots: Option<usize>,
    /// File to add a line an item to as it is done; items that are in it are not asked again.
    #[arg(long, value_name = "FILE.jsonl", requires = "tasks")]
    pub results: Option<PathBuf>,
    /// Put generated tasks' questions into the model's chat template.
    #[arg(long, requires = "tasks")]
    pub chat: bool,
    /// Longest generated answer in tokens; without it 256 for gsm8k, 1024 for math500, 2048 for aime, 1280 for
    /// ifeval, 512 for bfcl.
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "tasks")]
    pub max_tokens: Option<usize>,
    /// How many answers are generated at once.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least_one, requires = "tasks")]
    pub batch: usize,
    /// Leave out and count records of --data, or items of --tasks, that cannot be used, instead of stopping at the first with its
    /// line.
    #[arg(long, conflicts_with = "text")]
    pub skip_broken: bool,
}

/// What to measure on: exactly one of the three.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct EvalInput {
    /// Plain text, in windows of 1024 tokens, each on its own.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// JSONL, scored on what would be trained.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Benchmarks with commas between them, from local files (--task-data): mmlu, medmcqa, medqa, pubmedqa, cluewsc, gsm8k,
    /// math500, aime, ifeval, bfcl.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "task_data")]
    pub tasks: Vec<String>,
}

/// Arguments of `temper scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub template: TemplateArgs,
    #[command(flatten)]
    pub named: FieldArgs,
    /// JSONL or text, scored on what would be trained; `-` is standard input. May be repeated.
    #[arg(long, required = true, value_name = "FILE")]
    pub data: Vec<String>,
    /// Folder for scan.html, scan.jsonl and summary.json; those of an earlier scan are replaced. Without it a new one below
    /// `runs`, named after model and data.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Exit with code 1 where more than this share of the tokens are confident conflicts, for example 0.05.
    #[arg(long, value_name = "SHARE", value_parser = share_or_none)]
    pub fail_above: Option<f64>,
    /// Write the records, as they are, whose share of conflicts is on the side that --keep says; never overwritten.
    #[arg(long, value_name = "OUT.jsonl")]
    pub curate: Option<PathBuf>,
    /// What --curate keeps: records up to the share of --above, or those beyond it.
    #[arg(long, value_enum, default_value_t = Keeping::Clean, requires = "curate")]
    pub keep: Keeping,
    /// Share of a record's tokens that are conflicts beyond which it is a conflicted one.
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", value_parser = share_or_none, requires = "curate")]
    pub above: f64,
    /// Let the model answer so many of the data's prompts itself, and compare its tokens with the data's; 32 tell enough.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = whole::<usize>)]
    pub on_policy: usize,
    /// Write a line a token into scan.jsonl too.
    #[arg(long)]
    pub tokens: bool,
    /// Of how many of the most likely tokens EAFT's gate takes the entropy (objective.top_k): 2 to 64.
    #[arg(long, default_value_t = 20, value_name = "K", value_parser = gate_k)]
    pub top_k: usize,
    /// Longest document, in tokens; never more than the model's context.
    #[arg(long, default_value_t = 2048, value_name = "N", value_parser = at_least_two)]
    pub cutoff_length: usize,
    /// Scan the first N records only.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Leave out and count records that cannot be used, instead of stopping at the first with its line.
    #[arg(long)]
    pub skip_broken: bool,
    /// Print summary.json in place of text.
    #[arg(long)]
    pub json: bool,
}

/// Which records `temper scan --curate` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keeping {
    /// Those with few conflicts.
    Clean,
    /// Those with many.
    Conflicted,
}

/// Arguments of `temper devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Run every kernel on the device and compare with the CPU.
    #[arg(long)]
    pub self_test: bool,
    /// Print JSON: one object with `chosen`, `why` and the list `adapters`; with --self-test a line for each kernel, with
    /// --calibrate one for each kernel and shape.
    #[arg(long)]
    pub json: bool,
    /// Time the kernels for matrix products on the device that would be used, in at most two seconds, and say which one
    /// each kind of shape gets.
    #[arg(long)]
    pub calibrate: bool,
}

/// Arguments of `temper generate`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("asked").args(["prompt", "prompts"]).required(true))]
pub struct GenerateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub template: TemplateArgs,
    /// What to answer.
    #[arg(long)]
    pub prompt: Option<String>,
    /// File with a prompt a line, `-` for standard input; blank lines are nothing. Prints one JSON object a prompt, in their
    /// order, with `prompt`, `answer`, `tokens` and `ended` (`token`, `string` or `length`). Each draws with a seed of its own,
    /// --seed and the number of lines before it.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<String>,
    /// How many of --prompts are answered at once. Answers do not depend on it, but memory and time do.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least_one)]
    pub batch: usize,
    /// What the model is told before each prompt, by its chat template.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Continue the prompt as it is, without the model's chat template.
    #[arg(long)]
    pub raw: bool,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub max_tokens: usize,
    #[command(flatten)]
    pub drawing: DrawingArgs,
    /// How freely tokens are drawn: 0 always takes the most likely one, 1 draws as the model has them.
    #[arg(long, default_value_t = 0.0, value_parser = temperature, allow_negative_numbers = true)]
    pub temperature: f32,
}

/// How tokens are drawn, and where an answer ends.
#[derive(Debug, Args)]
pub struct DrawingArgs {
    /// Draw from so many of the most likely tokens; 0 is all.
    #[arg(long, default_value_t = 0, value_name = "K", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top_k: usize,
    /// Draw from the most likely tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Seed of the drawing, with a temperature above 0.
    #[arg(long, default_value_t = 42, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// End an answer before this text. May be repeated.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
}

/// Arguments of `temper chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub template: TemplateArgs,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub max_tokens: usize,
    /// Most tokens of the whole conversation. Without it, what the model was made for, at most 8192.
    #[arg(long, value_name = "N", value_parser = at_least_two)]
    pub context: Option<usize>,
    #[command(flatten)]
    pub drawing: DrawingArgs,
    /// How freely tokens are drawn: 0 always takes the most likely one, 1 draws as the model has them.
    #[arg(long, default_value_t = 0.7, value_parser = temperature, allow_negative_numbers = true)]
    pub temperature: f32,
}

/// Arguments of `temper bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: Bench,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The loss head: loss and hidden gradient from hidden states, against plain tensor operations.
    Head(BenchHeadArgs),
    /// A whole training step of a model with LoRA on all linear layers.
    Step(BenchStepArgs),
    /// Loss and gradient on ready logits.
    Loss(BenchLossArgs),
    /// A matrix product: on the CPU ours against the `gemm` crate's, on a GPU ours against burn's.
    Product(BenchProductArgs),
    /// Continuing texts: reading prompts and writing tokens, one text and several at once, against reading the whole text for
    /// each token.
    Generate(BenchGenerateArgs),
    /// Scanning a text (`temper scan`) against a bare forward pass over it, in turns.
    Scan(BenchScanArgs),
    /// Multiple choice (`temper eval --tasks mmlu`): a question read once for its choices and what questions share read once,
    /// against every choice read whole, and with --python against transformers in the same turns.
    Eval(BenchEvalArgs),
    /// Reading a data set: from bytes to tokens.
    Data(BenchDataArgs),
    /// Large models on this machine's CPU, each trained for a step or a few: what they hold, how long they take.
    Capacity(BenchCapacityArgs),
    /// A tour of one device: are its kernels right, how fast are products, loss and whole steps.
    Hardware(BenchHardwareArgs),
    /// The page in Chromium, on WebGPU and on the CPU, against TensorFlow.js; needs the source tree and Node.js.
    Web(BenchWebArgs),
}

/// Arguments of `temper bench head`.
#[derive(Debug, Args)]
pub struct BenchHeadArgs {
    /// Width of the hidden states.
    #[arg(long, default_value_t = 576, value_parser = at_least_one)]
    pub hidden: usize,
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = 49_152, value_parser = at_least_one)]
    pub vocab: usize,
    /// Trained rows.
    #[arg(long, default_value_t = 1024, value_parser = at_least_one)]
    pub rows: usize,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench step`.
#[derive(Debug, Args)]
pub struct BenchStepArgs {
    /// Hugging Face folder or GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    pub model: String,
    /// Tokens of the sequence, at least 2.
    #[arg(long, default_value_t = 512, value_parser = at_least_two)]
    pub tokens: usize,
    /// LoRA rank.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub rank: usize,
    /// Objective, measured beside `sft`.
    #[arg(long, default_value = "eaft")]
    pub objective: String,
    /// Tokens of the sequence that are checked before anything is timed: all of them, unless it says fewer. A GPU is checked
    /// against the CPU, which takes long for large models.
    #[arg(long, value_parser = at_least_two, value_name = "N")]
    pub check_tokens: Option<usize>,
    /// Precision of matrix products: auto, f16 or split as run.compute has them, with the kernels that a calibration
    /// chooses; f32 with those that are there without one. Gradients are compared with the CPU's in f32 always, and the loss
    /// of another precision with that of f32.
    #[arg(long, value_name = "PRECISION", value_parser = one_of::<Compute>, default_value = "f32")]
    pub compute: Compute,
    /// Also tell in which kernels a GPU spends one more step.
    #[arg(long)]
    pub profile: bool,
    /// With --profile: write every kernel's begin and end to this file, for ui.perfetto.dev or chrome://tracing.
    #[arg(long, value_name = "FILE", requires = "profile")]
    pub trace: Option<PathBuf>,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench loss`.
#[derive(Debug, Args)]
pub struct BenchLossArgs {
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = 49_152, value_parser = at_least_one)]
    pub vocab: usize,
    /// Rows of logits.
    #[arg(long, default_value_t = 1024, value_parser = at_least_one)]
    pub rows: usize,
    /// Objective, measured beside `sft`.
    #[arg(long, default_value = "eaft")]
    pub objective: String,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench product`.
#[derive(Debug, Args)]
pub struct BenchProductArgs {
    /// Rows, depth and columns: `[M, K]` by `[K, N]`.
    #[arg(long, default_value = "512x576x1536", value_parser = product_shape, value_name = "MxKxN")]
    pub shape: [usize; 3],
    /// Which operand is stored transposed.
    #[arg(long, value_enum, default_value_t = ProductLayout::Nt)]
    pub layout: ProductLayout,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench generate`.
#[derive(Debug, Args)]
pub struct BenchGenerateArgs {
    /// Hugging Face folder or GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    pub model: String,
    /// How matrices lie in memory: auto (as the file has them), f32, f16, bf16, q8_0, q4_0 or q4_k.
    #[arg(long, value_name = "FORMAT", value_parser = one_of::<Hold>, default_value = "auto")]
    pub storage: Hold,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = at_least_two)]
    pub prompt: usize,
    /// Tokens that are written.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = at_least_two)]
    pub tokens: usize,
    /// Texts at once, beside one alone.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least_one)]
    pub batch: usize,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench scan`.
#[derive(Debug, Args)]
pub struct BenchScanArgs {
    /// Hugging Face folder or GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    pub model: String,
    /// Tokens of the text, at least 2.
    #[arg(long, default_value_t = 1024, value_parser = at_least_two, value_name = "N")]
    pub tokens: usize,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench eval`.
#[derive(Debug, Args)]
pub struct BenchEvalArgs {
    /// Hugging Face folder or GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    pub model: String,
    /// Folder with a folder `mmlu`.
    #[arg(long, value_name = "DIR")]
    pub task_data: PathBuf,
    /// Questions, one of each subject in turn.
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = at_least_one)]
    pub limit: usize,
    /// Worked examples before each question.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub shots: usize,
    /// A Python with torch and transformers, to be timed beside.
    #[arg(long, value_name = "PROGRAM")]
    pub python: Option<PathBuf>,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench data`.
#[derive(Debug, Args)]
pub struct BenchDataArgs {
    /// Hugging Face folder or GGUF file whose tokenizer and chat template are used.
    #[arg(long, default_value = "embedded:base", value_name = "DIR_OR_GGUF")]
    pub model: String,
    /// MiB of the text and of the records.
    #[arg(long, default_value_t = 20, value_parser = mebibytes, value_name = "N")]
    pub mib: usize,
    /// Turns of the conversation.
    #[arg(long, default_value_t = 4000, value_parser = turns, value_name = "N")]
    pub turns: usize,
    /// Longest document, in tokens.
    #[arg(long, default_value_t = 2048, value_parser = at_least_two, value_name = "N")]
    pub cutoff: usize,
    #[command(flatten)]
    pub timing: Timing,
}

/// The three layouts of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProductLayout {
    /// The right one: a layer's output.
    Nt,
    /// None: the gradient by a layer's input.
    Nn,
    /// The left one: the gradient by a layer's weight.
    Tn,
}

impl ProductLayout {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nt => "nt",
            Self::Nn => "nn",
            Self::Tn => "tn",
        }
    }
}

/// Arguments of `temper bench web`.
#[derive(Debug, Args)]
pub struct BenchWebArgs {
    /// Tokens of a batch: at most 128, or a multiple of 128.
    #[arg(long, default_value_t = 512, value_parser = whole_documents)]
    pub tokens: usize,
    /// Only the page itself on the CPU, with its own settings: one worker for both learners against one for each.
    #[arg(long)]
    pub workers: bool,
    #[command(flatten)]
    pub timing: Timing,
}

/// Arguments of `temper bench capacity`.
#[derive(Debug, Args)]
pub struct BenchCapacityArgs {
    /// Only these proofs.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub only: Vec<String>,
    /// Where model files are made; the largest takes 19 GB.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// A small model with real weights, for the proofs that need them.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    pub model: Option<String>,
    /// File to add one JSON line a proof to; proofs that are in it are not made again.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print one JSON line a proof.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `temper bench hardware`.
#[derive(Debug, Args)]
pub struct BenchHardwareArgs {
    /// When to stop at the latest.
    #[arg(long, default_value_t = 8.0, value_parser = minutes)]
    pub minutes: f64,
    /// File to add one JSON line a part to, as it is done.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where model files are made; the largest takes 5 GB.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// How a benchmark repeats and reports.
#[derive(Debug, Clone, Args)]
pub struct Timing {
    /// Timed repetitions of each variant, after one that is not timed.
    #[arg(long, default_value_t = 5, value_parser = at_least_one, value_name = "N")]
    pub repeat: usize,
    /// Print one JSON line per variant.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `temper loss`.
#[derive(Debug, Args)]
pub struct LossArgs {
    /// Safetensors file with `logits` [N, V] f32 and `labels` [N] i64 (-100: ignored).
    #[arg(long, value_name = "FILE")]
    pub logits: PathBuf,
    /// Objective.
    #[arg(long, default_value = "eaft")]
    pub objective: String,
    /// A constant of the objective, for example `--set objective.top_k=10`. May be repeated.
    #[arg(long = "set", value_name = "OBJECTIVE.KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Safetensors file to write: `ce`, `entropy`, `weight` [N], `loss` [1] and `grad` [N, V].
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `temper logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Numbers of tokens in the vocabulary, for example `1,2,3`.
    #[arg(long, value_delimiter = ',', required = true, value_name = "IDS", value_parser = token)]
    pub tokens: Vec<u32>,
    /// Safetensors file to write: `logits` [tokens, V] f32.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `temper web`.
#[derive(Debug, Args)]
pub struct WebArgs {
    /// Port to serve on, 0 for any; without it 8137, or the next one that is free.
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Folder of the built page; without it `web` beside this program, or the repository's `web/dist`.
    #[arg(long, value_name = "DIR")]
    pub site: Option<PathBuf>,
    /// Print the address only, and open no browser.
    #[arg(long)]
    pub no_open: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().into(), value.trim().into())),
        found => Err(match setting_called(found.map_or(text, |(key, _)| key).trim()) {
            Some(setting) => format!("expected SECTION.KEY=VALUE; did you mean {setting}=...?"),
            None => "expected SECTION.KEY=VALUE, for example run.steps=100".into(),
        }),
    }
}

fn one_of<T: Choice>(text: &str) -> Result<T, String> {
    let names = || T::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    T::from_name(text).ok_or_else(|| format!("expected one of {}", names()))
}

/// What chance begins with.
fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// A whole number, where 0 means something too.
fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number of at least 0".into())
}

fn token(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected numbers of tokens with commas between them, for example 1,2,3".into())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "expected a whole number of at least 1".into())
}

fn at_least_two(text: &str) -> Result<usize, String> {
    // The first token of a sequence is never trained.
    text.parse().ok().filter(|n| *n >= 2).ok_or_else(|| "expected a whole number of at least 2".into())
}

/// A time above 0, in minutes.
fn minutes(text: &str) -> Result<f64, String> {
    let fits = |minutes: &f64| *minutes > 0.0 && *minutes <= 1e6;
    text.parse().ok().filter(fits).ok_or_else(|| "expected a number of minutes above 0".into())
}

/// A number with a unit: B, KB, MB, GB, TB in thousands, KiB, MiB, GiB, TiB in 1024s.
fn memory_size(text: &str) -> Result<u64, String> {
    let refuse = || "expected a size above 0 with its unit, for example 8GiB, 24GB or 512MiB".to_string();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
    let (number, unit) = (text[..at].parse::<f64>().map_err(|_| refuse())?, text[at..].trim().to_ascii_lowercase());
    let exponent = "kmgt".find(unit.chars().next().unwrap_or(' ')).map_or(0, |place| place as i32 + 1);
    let base = match unit.get(usize::from(exponent > 0)..) {
        Some("b") => 1000.0_f64,
        Some("ib") if exponent > 0 => 1024.0,
        _ => return Err(refuse()),
    };
    let bytes = number * base.powi(exponent);
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(refuse()) }
}

fn mebibytes(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "expected a whole number from 1 to 1024".into())
}

fn turns(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (2..=100_000).contains(n));
    number.ok_or_else(|| "expected a whole number from 2 to 100000".into())
}

fn product_shape(text: &str) -> Result<[usize; 3], String> {
    let sizes: Vec<usize> = text.split('x').map(at_least_one).collect::<Result<_, _>>()?;
    sizes.try_into().map_err(|_| "expected three whole numbers, as in 512x576x1536".into())
}

fn whole_documents(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n >= 2 && (*n <= 128 || *n % 128 == 0));
    number.ok_or_else(|| "expected 2 to 128, or a multiple of 128".into())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}

fn gate_k(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|k| (2..=64).contains(k)).ok_or_else(|| "expected a whole number from 2 to 64".into())
}

fn share_or_none(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1, such as 0.05".into())
}

fn temperature(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok();
    number.filter(|t| t.is_finite() && *t >= 0.0).ok_or_else(|| "expected a number of at least 0".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_help_of_a_scan_says_how_many_tokens_its_gate_may_look_at() {
        let command = Cli::command();
        let scan = command.find_subcommand("scan").expect("a command");
        let top_k = scan.get_arguments().find(|argument| argument.get_id() == "top_k").expect("an option");
        assert!(top_k.get_help().expect("a help").to_string().contains("2 to 64"));
    }

    #[test]
    fn the_definition_is_consistent_and_every_command_has_help() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments().filter(|a| !a.is_global_set()) {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn the_commands_of_the_contract_are_accepted() {
        for line in [
            "temper train",
            "temper train run.toml --set run.steps=3 --set objective.method=sft --out runs/a --device cpu",
            "temper --device vulkan train --out runs/a --resume",
            "temper config run.toml --set run.steps=3",
            "temper config --schema",
            "temper train --model m --data d.jsonl",
            "temper train --model m --data d.jsonl --adapter runs/a",
            "temper plan --model m --data d.jsonl --adapter runs/a",
            "temper plan",
            "temper plan run.toml --model m --data d.jsonl --set run.steps=3 --device-memory 8GiB --json",
            "temper train run.toml --model m --data d.jsonl --set run.steps=3",
            "temper init",
            "temper init --model m --data d.jsonl run.toml",
            "temper eval --run runs/a --data d.jsonl",
            "temper generate --run runs/a --prompt hello",
            "temper generate --run runs/a --step 40 --prompt hello",
            "temper export --run runs/a --step 40 x.gguf",
            "temper eval --model m --text t.txt --json",
            "temper eval --model m --data d.jsonl --skip-broken --fields text=body",
            "temper scan --model m --data d.jsonl",
            "temper scan --model m --data d.jsonl --fields prompt=question,completion=response",
            "temper scan --run r --data d --data e --out o --fail-above 0.05 --curate c --keep conflicted --above 0.1",
            "temper scan --model m --data - --on-policy 8 --tokens --top-k 64 --limit 9 --skip-broken --json",
            "temper eval --model m --tasks mmlu,gsm8k --task-data d --limit 9 --shots 0 --results r --chat --max-tokens 9",
            "temper devices",
            "temper generate --model m --prompt hello --system brief",
            "temper generate --model m --prompts p.txt --batch 4 --top-k 20 --top-p 0.9 --stop x --stop y",
            "temper chat --model m --adapter a --system x --context 512 --max-tokens 7 --temperature 0",
            "temper bench generate --model m --storage f32 --prompt 8 --tokens 16 --batch 2 --json",
            "temper bench head --hidden 576 --vocab 49152 --rows 1024 --device cpu --json",
            "temper bench step --model m --tokens 512 --rank 16 --objective eaft --json",
            "temper bench step --model m --compute auto --check-tokens 8",
            "temper bench loss --json",
            "temper bench eval --model m --task-data d --limit 8 --shots 5 --python python3 --repeat 1 --json",
            "temper bench product --shape 64x32x48 --layout tn --device cpu --json",
            "temper devices --calibrate --device vulkan --json",
            "temper bench web --tokens 256 --json",
            "temper bench data --model m --mib 4 --turns 10 --cutoff 64 --json",
            "temper loss --logits x --objective eaft --set objective.normalizer=const_3 --device cpu --out y",
            "temper logits --model m --tokens 1,2,3 --out y",
            "temper web",
            "temper web --port 0 --site web/dist --no-open",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        let Command::Train(train) = parse("temper train a --set run.device=x=y").unwrap().command else {
            panic!("not train")
        };
        assert_eq!(train.run.set, [("run.device".to_string(), "x=y".to_string())]);
        let after = parse("temper train --device llvmpipe").unwrap().global.device;
        assert_eq!(after.as_deref(), Some("llvmpipe"));
    }

    #[test]
    fn a_size_has_a_unit_of_thousands_or_of_1024() {
        let sizes = ["8GiB", "1.5 GB", "512mib", "2TiB", "7B", "3kB"].map(|text| memory_size(text).unwrap());
        assert_eq!(sizes, [8 << 30, 1_500_000_000, 512 << 20, 2 << 40, 7, 3000]);
        for wrong in ["", "GiB", "8", "8 G", "-1GiB", "1.2.3GB", "8iB", "999999999TiB", "nanGB", "8µB"] {
            assert!(memory_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_that_cannot_be_is_refused_by_its_option_in_plain_words() {
        let generate = "temper generate --model m --prompt x";
        for (line, option, words) in [
            (format!("{generate} --temperature -1"), "--temperature", "a number of at least 0"),
            (format!("{generate} --top-p -0.5"), "--top-p", "a number above 0 and at most 1"),
            (format!("{generate} --max-tokens -1"), "--max-tokens", "a whole number of at least 0"),
            (format!("{generate} --max-tokens many"), "--max-tokens", "a whole number of at least 0"),
            (format!("{generate} --top-k -2"), "--top-k", "a whole number of at least 0"),
            (format!("{generate} --seed 1.5"), "--seed", "a whole number from 0 to 18446744073709551615"),
            ("temper chat --model m --max-tokens -1".into(), "--max-tokens", "a whole number of at least 1"),
            ("temper scan --model m --data d --on-policy x".into(), "--on-policy", "a whole number of at least 0"),
            ("temper scan --model m --data d --limit 0".into(), "--limit", "a whole number of at least 1"),
            ("temper scan --model m --data d --fail-above 5%".into(), "--fail-above", "a number from 0 to 1, such as"),
            ("temper logits --model m --tokens 1,x --out y".into(), "--tokens", "numbers of tokens with commas"),
        ] {
            let error = parse(&line).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains(&format!("expected {words}")), "{line}: {error}");
        }
    }

    #[test]
    fn who_gives_a_setting_as_an_option_or_without_its_section_is_told_how_it_is_set() {
        for (line, said) in [
            ("temper train --epochs 3", "tip: '--epochs' is a setting: --set run.epochs=3"),
            ("temper --device cpu plan --learning-rate=1e-3", "--set optim.learning_rate=1e-3"),
            ("temper train --batch-size 4", "--set run.batch_tokens=..."),
            ("temper train --steps --resume", "--set run.steps=..."),
            ("temper train --set lr=1", "did you mean optim.learning_rate=...?"),
            ("temper train --set learning_rate=1e-4", "did you mean optim.learning_rate=...?"),
            ("temper train --set nonsense=1", "for example run.steps=100"),
        ] {
            let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let error = Cli::of(&arguments).map(|_| ()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(said) && error.exit_code() == 2, "{line}: {text}");
            assert!(!text.contains("similar argument"), "{line}: {text}");
        }
        let arguments = ["temper", "generate", "--epochs", "3"].map(OsString::from);
        let other = Cli::of(&arguments).map(|_| ()).unwrap_err().to_string();
        assert!(!other.contains("--set"), "{other}");
    }

    #[test]
    fn contradictions_and_nonsense_are_usage_errors() {
        for line in [
            "temper",
            "temper eval --model m",
            "temper eval --text t",
            "temper eval --run r --model m --text t",
            "temper eval --run r --adapter a --text t",
            "temper generate --adapter a --prompt x",
            "temper eval --model m --step 4 --text t",
            "temper eval --run r --step last --text t",
            "temper eval --model m --text t --data d",
            "temper scan --model m",
            "temper scan --model m --data d --keep clean",
            "temper scan --model m --data d --top-k 1",
            "temper scan --model m --data d --fail-above 5",
            "temper eval --model m --tasks mmlu",
            "temper eval --model m --text t --limit 3",
            "temper eval --model m --text t --skip-broken",
            "temper eval --model m --tasks mmlu --task-data d --text t",
            "temper train --set steps=3",
            "temper train --resume",
            "temper config run.toml --schema",
            "temper plan --device-memory 8",
            "temper plan --device-memory 0GiB",
            "temper plan --device-memory 1e9GiB",
            "temper plan --out x",
            "temper bench head --rows 0",
            "temper bench step --model m --tokens 1",
            "temper bench step --model m --compute f8",
            "temper bench web --tokens 200",
            "temper bench product --shape 64x32",
            "temper bench data --mib 9223372036854775807",
            "temper bench product --shape 64x0x8",
            "temper logits --model m --tokens 1,x --out y",
            "temper generate --model m --prompt x --temperature nan",
            "temper generate --model m",
            "temper generate --model m --prompt x --prompts y",
            "temper generate --model m --prompt x --raw --system y",
            "temper generate --model m --prompt x --top-p 0",
            "temper generate --model m --prompt x --top-p nan",
            "temper generate --model m --prompts x --batch 0",
            "temper generate --model m --prompt x --stop=",
            "temper generate --model= --prompt x",
            "temper chat",
            "temper chat --model m --run r",
            "temper web --port 65536",
        ] {
            assert_eq!(parse(line).map(|_| ()).map_err(|error| error.exit_code()), Err(2), "{line}");
        }
    }
}
