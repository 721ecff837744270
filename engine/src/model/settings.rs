//! `[model]` and `[adapter]`: where to start from, and what of it is trained.

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::settings::{Composed, Kind, Range, Setting, choice, did_you_mean, settings};

choice! {
    /// Where the weights to start from come from.
    pub enum Init {
        /// From the model's files.
        Pretrained = "pretrained",
        /// Drawn from the run's seed; the files give only the architecture and the tokenizer.
        Random = "random",
    }
}

settings! {
    /// Where to start from.
    pub struct ModelSection in "model" {
        /// The model: a Hugging Face folder or a GGUF file.
        path: String = String::new(), required = "a Hugging Face folder or a GGUF file";
        /// Where the weights to start from come from.
        init: Init = Init::Pretrained;
        /// The architecture of random weights: the path of a config.json, or its keys as an inline table.
        architecture: Option<ArchitectureSource> = None, derived = "the one in path", used = &[("init", &["random"])];
    }
}

/// An architecture given in the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ArchitectureSource {
    /// Path of a `config.json`.
    Path(String),
    /// The keys of a Hugging Face `config.json` as an inline table.
    Inline(toml::Table),
}

impl Setting for ArchitectureSource {
    const KIND: Kind = Kind::Other {
        words: "an inline table or the path of a config.json",
        check: |value| match value {
            Value::String(_) | Value::Table(_) => Ok(()),
            _ => Err(format!("{value} is not an inline table or the path of a config.json")),
        },
    };

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(path) => Some(Self::Path(path.clone())),
            Value::Table(table) => Some(Self::Inline(table.clone())),
            _ => None,
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(match self {
            Self::Path(path) => Value::String(path.clone()),
            Self::Inline(table) => Value::Table(table.clone()),
        })
    }
}

choice! {
    /// What is trained.
    pub enum AdapterKind {
        /// The weights stay; small factors beside them learn, which needs far less memory.
        Lora = "lora" as "LoRA adapter",
        /// Every weight of the model changes.
        None = "none" as "all weights (full)",
    }
}

settings! {
    /// What is trained.
    pub struct AdapterSection in "adapter" {
        /// What is trained: low-rank factors beside frozen weights, or the weights themselves.
        kind: AdapterKind = AdapterKind::Lora, label = "what is trained",
            derived = "lora, or none with random weights";
        /// A trained adapter to go on from, PEFT's folder or that of a run: rank, alpha, rslora and targets are those it has.
        from: Option<String> = None, label = "goes on from", derived = "factors that change nothing yet", used = LORA,
            aliases = &["adapter_name_or_path", "resume_adapter_file", "lora_model_dir"];
        /// Width of the factors: more can learn more.
        rank: usize = 16, range = Range::at_least(1.0), label = "LoRA rank", used = LORA,
            aliases = &["r", "lora_r", "lora_rank"];
        /// The factors' output is scaled by alpha / rank.
        alpha: f64 = 32.0, range = Range::above(0.0), label = "LoRA alpha", used = LORA, aliases = &["lora_alpha"];
        /// Whether it is scaled by alpha / sqrt(rank) instead (rsLoRA), so that a larger rank does not learn more slowly.
        rslora: bool = false, label = "rank-stabilised", used = LORA, aliases = &["use_rslora"];
        /// Probability of dropping an input of the factors in training.
        dropout: f64 = 0.0, range = Range::until(0.0, 1.0), used = LORA;
        /// Linear layers of every block that get factors.
        targets: Targets = Targets::AllLinear, used = LORA, aliases = &["target_modules"];
    }
}

const LORA: &[crate::settings::Used] = &[("kind", &["lora"])];

/// Linear layers of a block by the names that Hugging Face and PEFT use, in the order in which a block applies them.
pub const LINEAR_NAMES: [&str; 9] =
    ["q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"];

/// Linear layers that get an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub enum Targets {
    /// Every linear layer of every block; never the output head.
    AllLinear,
    /// Those of these names, out of [`LINEAR_NAMES`].
    Names(Vec<String>),
}

impl Targets {
    /// True where the linear layer of this name gets an adapter.
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::AllLinear => true,
            Self::Names(names) => names.iter().any(|known| known == name),
        }
    }
}

impl Composed for Targets {
    const WORDS: &'static str = "\"all-linear\" or a list of layer names";
}

impl From<Targets> for Value {
    fn from(targets: Targets) -> Self {
        match targets {
            Targets::AllLinear => Self::String("all-linear".into()),
            Targets::Names(names) => Self::Array(names.into_iter().map(Self::String).collect()),
        }
    }
}

impl TryFrom<Value> for Targets {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let names: Vec<String> = match &value {
            Value::String(text) if text == "all-linear" => return Ok(Self::AllLinear),
            Value::String(text) => text.split(',').map(|name| name.trim().to_string()).collect(),
            Value::Array(items) if items.iter().all(Value::is_str) => {
                items.iter().filter_map(Value::as_str).map(str::to_string).collect()
            }
            _ => return Err(format!("{value} is not \"all-linear\" or a list of layer names")),
        };
        if names.is_empty() {
            return Err("the list is empty; use \"all-linear\" or name at least one layer".into());
        }
        match names.iter().find(|name| !LINEAR_NAMES.contains(&name.as_str())) {
            Some(unknown) => Err(format!(
                "\"{unknown}\" is not \"all-linear\" or one of {}{}",
                LINEAR_NAMES.join(", "),
                did_you_mean(unknown, &LINEAR_NAMES)
            )),
            None => Ok(Self::Names(names)),
        }
    }
}
