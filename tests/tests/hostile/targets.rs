//! What hostile files are given to: one target for each kind of file that comes from outside.

use std::sync::Arc;

use temper_engine::host::MemoryFolder;
use temper_engine::inside::data::{EncodeOptions, encode, record};
use temper_engine::models::Hold;
use temper_engine::reading::{ChatTemplate, Message, OnError, RecordFormat};
use temper_engine::{Config, Device, ModelFiles, Tokenizer, result};

use super::mutate::Input;
use super::seeds;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Gguf,
    Safetensors,
    Tokenizer,
    Template,
    Jsonl,
    Configuration,
    Checkpoint,
    Adapter,
    /// Bad on purpose: what the watching itself is tested with.
    Broken,
}

/// How many inputs there are for [`Target::Broken`].
pub const BROKEN_INPUTS: u64 = 9;

impl Target {
    pub const ALL: [Self; 8] = [
        Self::Gguf,
        Self::Safetensors,
        Self::Tokenizer,
        Self::Template,
        Self::Jsonl,
        Self::Configuration,
        Self::Checkpoint,
        Self::Adapter,
    ];

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    pub fn named(name: &str) -> Self {
        let names = Self::ALL.map(Self::name).join(", ");
        let mut all = Self::ALL.into_iter().chain([Self::Broken]);
        all.find(|target| target.name() == name)
            .unwrap_or_else(|| panic!("there is no target {name:?}; there are {names}"))
    }

    pub fn seeds(self) -> Vec<Input> {
        match self {
            Self::Gguf => seeds::gguf(),
            Self::Safetensors => seeds::safetensors(),
            Self::Tokenizer => seeds::tokenizers(),
            Self::Template => seeds::templates(),
            Self::Jsonl => seeds::records(),
            Self::Configuration => seeds::configurations(),
            Self::Checkpoint => seeds::checkpoints(),
            Self::Adapter => seeds::adapters(),
            Self::Broken => vec![Input::new()],
        }
    }

    /// Words that mean something in its files.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Template => &[
                "{% for m in messages %}",
                "{% endfor %}",
                "{{ ",
                " }}",
                "{%",
                "%}",
                "{#",
                "#}",
                " | ",
                "'",
                "loop",
                "range(9)",
                "namespace(a=1)",
                "~",
                " * 99999999",
                "[::-1]",
                ".count('')",
                "{% set x = ",
                "{% macro f() %}",
                "[",
                "(",
                ")",
            ],
            Self::Configuration => &[
                "=",
                "\n",
                "[",
                "]",
                "\"",
                "'''",
                "1e309",
                "-1",
                "nan",
                "inf",
                "0x",
                "true",
                "[run]",
                "[data]",
                "steps",
                "path",
                "99999999999999999999",
                "0.5",
                "#",
                "{",
                "}",
                "[[a]]",
                "a.b.c = 1",
                "2020-01-01",
                "method = \"eaft\"",
            ],
            _ => &[
                "\"",
                ",",
                ":",
                "{",
                "}",
                "[",
                "]",
                "null",
                "-1",
                "1e999",
                "\\u0000",
                "\\ud800",
                "\u{FEFF}",
                "\n",
                "\"role\"",
                "\"content\"",
                "\"messages\"",
                "\"text\"",
                "18446744073709551615",
                "é",
            ],
        }
    }

    /// What reads an input. Errors are what is wanted; it does not matter which.
    pub fn runner(self) -> Box<dyn FnMut(&Input)> {
        match self {
            Self::Gguf => Box::new(|input| {
                if let Ok(files) = ModelFiles::open_gguf(Arc::new(input[0].clone()), "m.gguf") {
                    use_model(&files);
                }
            }),
            Self::Safetensors => Box::new(|input| {
                let names = [
                    "config.json",
                    "model.safetensors",
                    "model.safetensors.index.json",
                    "model-00001-of-00003.safetensors",
                    "model-00002-of-00003.safetensors",
                ];
                if let Ok(files) = ModelFiles::open_folder(&folder(&names, input)) {
                    use_model(&files);
                }
            }),
            Self::Tokenizer => Box::new(|input| {
                if let Ok(tokenizer) = Tokenizer::from_json(&input[0], Some(&input[1])) {
                    use_tokenizer(&tokenizer);
                }
            }),
            Self::Template => Box::new(|input| {
                let source = String::from_utf8_lossy(&input[0]);
                if let Ok(template) = ChatTemplate::new(&source, Some("<s>"), Some("</s>")) {
                    let messages = [
                        Message::new("system", "Be kind."),
                        Message::new("user", "é😀 ab\n"),
                        Message::new("assistant", "<think>\nx\n</think>\n\nab"),
                    ];
                    let _ = template.render(&messages, true);
                    let _ = template.render(&messages[1..], false);
                }
            }),
            Self::Jsonl => {
                let tokenizer = &seeds::tokenizers()[1];
                let tokenizer = Tokenizer::from_json(&tokenizer[0], Some(&tokenizer[1])).expect("a tokenizer");
                let source = String::from_utf8(seeds::templates()[2][0].clone()).expect("a template");
                let template = ChatTemplate::new(&source, None, None).expect("a template");
                Box::new(move |input| {
                    let options = EncodeOptions { cutoff_length: 64, last_turn_only: false, on_error: OnError::Skip };
                    for name in ["d.jsonl", "d.txt"] {
                        if let Ok((records, _)) = record::parse(name, &input[0], RecordFormat::Auto, OnError::Skip) {
                            let _ = encode("d", &records, &tokenizer, Some(&template), options);
                            let _ = encode("d", &records, &tokenizer, None, options);
                        }
                    }
                })
            }
            Self::Configuration => Box::new(|input| {
                let text = String::from_utf8_lossy(&input[0]);
                let more = String::from_utf8_lossy(&input[1]);
                let set: Vec<(String, String)> =
                    more.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
                for set in [&[][..], &set] {
                    if let Ok(config) = Config::parse(&text, "c.toml", set) {
                        let _ = (config.objective(), config.baseline());
                        Config::parse(&config.to_toml(), "again", &[])
                            .expect("what was accepted can be written and read");
                    }
                }
            }),
            Self::Checkpoint => {
                let mut run = seeds::run();
                Box::new(move |input| {
                    let _ = run.resume(&folder(&seeds::CHECKPOINT, input));
                })
            }
            Self::Adapter => Box::new(|input| {
                let _ = result::read(&folder(&["adapter_config.json", "adapter_model.safetensors"], input));
            }),
            Self::Broken => Box::new(|input| match input[0][0] {
                1 => panic!("on purpose"),
                3 => {
                    // As where the engine turns a panic into an error.
                    let _ = std::panic::catch_unwind(|| panic!("and hidden"));
                }
                5 => loop {
                    std::hint::spin_loop();
                },
                7 => {
                    std::hint::black_box(vec![1_u8; 3 << 30]);
                }
                _ => {}
            }),
        }
    }
}

fn folder(names: &[&str], input: &Input) -> MemoryFolder {
    let mut folder = MemoryFolder::new();
    for (name, bytes) in names.iter().zip(input).filter(|(_, bytes)| !bytes.is_empty()) {
        folder.insert(name, bytes.clone()).expect("a plain name");
    }
    folder
}

fn use_model(files: &ModelFiles) {
    if let Some(tokenizer) = &files.tokenizer {
        use_tokenizer(tokenizer);
    }
    for hold in [Hold::F32, Hold::Auto] {
        let _ = files.load(&Device::cpu(), hold, false, 0);
    }
}

const TEXTS: [&str; 5] = ["", "ab  ab\n\tword 123 <s>é😀.", " ", "\u{0}\u{FFFD}\u{301}a\u{301}", "▁a<0x0A>abhi"];

fn use_tokenizer(tokenizer: &Tokenizer) {
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode(text) {
            let _ = tokenizer.decode(&ids, false);
            let _ = tokenizer.decode(&ids, true);
        }
        if let Ok(tokens) = tokenizer.encode_with_offsets(text) {
            assert_eq!(tokens.ids.len(), tokens.offsets.len());
        }
    }
    let every: Vec<u32> = (0..tokenizer.vocab_size().min(300) as u32).chain([u32::MAX]).collect();
    let _ = tokenizer.decode(&every, false);
    if let Ok([(_, file), (_, config)]) = tokenizer.to_files() {
        let _ = Tokenizer::from_json(&file, Some(&config));
    }
}
