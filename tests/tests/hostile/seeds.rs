//! What inputs are made of: small good files, most of them the golden ones.

use std::sync::Arc;

use serde_json::{Value, json};
use temper_conformance::golden;
use temper_conformance::runs::Keeper;
use temper_engine::host::MemoryFolder;
use temper_engine::models::{Architecture, SpecialTokens};
use temper_engine::running::{About, Execution, Keep, base};
use temper_engine::{Config, Device, Document, Learner, ModelFiles, Run, Sets, wait};

use super::mutate::Input;

/// A file of two tensors.
fn small_safetensors() -> Vec<u8> {
    let header = json!({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}, "__metadata__": {"format": "pt"}})
    .to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend([0; 32]);
    bytes
}

pub fn gguf() -> Vec<Input> {
    ["gguf/glm4.gguf", "gguf/llama3_rope.gguf"].map(|file| vec![golden::bytes(file)]).to_vec()
}

/// `config.json`, `model.safetensors`, index, two shards.
pub fn safetensors() -> Vec<Input> {
    let none = Vec::new();
    let sharded = |file: &str| golden::bytes(&format!("tiny/qwen3_bf16_sharded/{file}"));
    let tiny = golden::bytes("tiny/llama/config.json");
    vec![
        vec![tiny, small_safetensors(), none.clone(), none.clone(), none.clone()],
        vec![
            sharded("config.json"),
            none,
            sharded("model.safetensors.index.json"),
            sharded("model-00001-of-00003.safetensors"),
            sharded("model-00002-of-00003.safetensors"),
        ],
    ]
}

fn tokenizer_of(normalizer: Value, pre_tokenizer: Value, decoder: Value) -> Value {
    let mut vocabulary = serde_json::Map::new();
    for token in ["▁", "a", "b", "ab", "Ġ", "Ġab", "<unk>", "h", "i", "1", "."] {
        vocabulary.insert(token.into(), vocabulary.len().into());
    }
    for byte in [0_u8, 10, 32, 97, 195, 169, 255] {
        vocabulary.insert(format!("<0x{byte:02X}>"), vocabulary.len().into());
    }
    let next = vocabulary.len();
    json!({
        "version": "1.0",
        "added_tokens": [
            {"id": next, "content": "<s>", "special": true, "normalized": false, "lstrip": false, "rstrip": true},
            {"id": next + 1, "content": "word", "special": false, "normalized": true, "single_word": true}],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]},
        "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"], ["Ġ", "ab"]], "byte_fallback": true,
            "unk_token": "<unk>", "fuse_unk": true, "ignore_merges": false}
    })
}

/// `tokenizer.json`, `tokenizer_config.json`.
pub fn tokenizers() -> Vec<Input> {
    let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "<s>", "add_bos_token": true,
        "chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}]});
    let pattern = |kind: &str, text: &str| json!({kind: text});
    let replace = |kind: &str, text: &str, content: &str| json!({"type": "Replace", "pattern": pattern(kind, text), "content": content});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true});
    let sequence = |list: &str, parts: Vec<Value>| json!({"type": "Sequence", list: parts});
    let kinds = [
        tokenizer_of(json!({"type": "NFC"}), byte_level.clone(), json!({"type": "ByteLevel"})),
        tokenizer_of(
            sequence("normalizers", vec![json!({"type": "Prepend", "prepend": "▁"}), replace("String", " ", "▁")]),
            Value::Null,
            sequence(
                "decoders",
                vec![
                    replace("String", "▁", " "),
                    json!({"type": "ByteFallback"}),
                    json!({"type": "Fuse"}),
                    json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
                ],
            ),
        ),
        tokenizer_of(
            sequence(
                "normalizers",
                vec![
                    json!({"type": "NFKD"}),
                    json!({"type": "StripAccents"}),
                    json!({"type": "Lowercase"}),
                    json!({"type": "Strip", "strip_left": true, "strip_right": true}),
                    replace("Regex", " {2,}|\\t", "▁"),
                ],
            ),
            sequence(
                "pretokenizers",
                vec![
                    json!({"type": "Split", "pattern": pattern("Regex", "\\p{N}{1,3}|\\s+(?!\\S)"), "behavior": "Isolated", "invert": false}),
                    json!({"type": "Digits", "individual_digits": true}),
                    json!({"type": "Punctuation", "behavior": "Contiguous"}),
                    json!({"type": "WhitespaceSplit"}),
                    json!({"type": "Whitespace"}),
                    byte_level,
                ],
            ),
            json!({"type": "ByteLevel"}),
        ),
        tokenizer_of(
            Value::Null,
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}),
            json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}),
        ),
    ];
    kinds.map(|file| vec![file.to_string().into_bytes(), config.to_string().into_bytes()]).to_vec()
}

pub fn templates() -> Vec<Input> {
    let of = |file: &str| golden::json(file)["chat_template"].as_str().expect("a template").as_bytes().to_vec();
    vec![
        vec![of("tokenizers/qwen3.json")],
        vec![of("tokenizers/smollm2.json")],
        vec![b"{% for m in messages %}{{ '<' + m.role + '>' + m.content | trim + '</>\n' }}{% endfor %}".to_vec()],
    ]
}

pub fn records() -> Vec<Input> {
    let lines = [
        r#"{"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "ab ab"}]}"#,
        r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
        r#"{"prompt": "ab", "completion": "b\u00e9\ud83d\ude00"}"#,
        r#"{"instruction": "a", "input": "b", "output": "ab", "history": [["a", "b"]], "system": "s"}"#,
        r#"{"question": "a", "answer": "b"}"#,
        r#"{"text": "ab ab ab"}"#,
        r#"{"messages": [{"role": "assistant", "content": [{"type": "text", "text": "ab"}], "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}], "tools": [{"type": "function"}]}"#,
    ];
    let mut seeds: Vec<Input> = lines.iter().map(|line| vec![line.as_bytes().to_vec()]).collect();
    seeds.push(vec![lines.join("\n").into_bytes()]);
    seeds
}

const CONFIGURATION: &str = "[model]\npath = \"m\"\n[data]\ntrain = \"t.jsonl\"\n";

pub fn configurations() -> Vec<Input> {
    let whole = Config::parse(CONFIGURATION, "c", &[]).expect("a configuration");
    [CONFIGURATION.into(), whole.to_toml(), whole.to_commented_toml()]
        .map(|text| vec![text.into_bytes(), b"run.steps=4\noptim.learning_rate=1e-3\nobjective.method=eaft".to_vec()])
        .to_vec()
}

/// `adapter_config.json`, `adapter_model.safetensors`.
pub fn adapters() -> Vec<Input> {
    ["llama", "glm4"]
        .map(|name| {
            ["adapter_config.json", "adapter_model.safetensors"]
                .map(|file| golden::bytes(&format!("tiny/{name}/lora/{file}")))
                .to_vec()
        })
        .to_vec()
}

/// A run of a model of one block and seven tokens.
pub fn run() -> Run {
    let description = br#"{"model_type": "llama", "vocab_size": 7, "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}"#;
    let architecture = Architecture::from_config_json(description, "config.json").expect("a model");
    let files = ModelFiles::random(architecture, SpecialTokens::default(), &MemoryFolder::new()).expect("a model");
    let text = "[model]\npath = \"tiny\"\ninit = \"random\"\n[data]\ntrain = \"counting\"\n[run]\nsteps = 4\nsave_every = 2\naccumulation = 1\n";
    let config = Config::parse(text, "example", &[]).expect("a configuration");
    let tokens: Vec<u32> = (0..30).map(|i| i % 7).collect();
    let documents = vec![Document { trained: vec![true; tokens.len()], tokens, line: 1 }];
    let execution = Execution::resident(Keep::Everything);
    let base = base(&config, &files, &Device::cpu(), execution).expect("a base");
    let learner =
        Learner::new(config.clone(), &config.objective().expect("an objective"), base, execution).expect("a learner");
    Run::new(vec![learner], documents, Arc::new(Sets::default()), About::default()).expect("a run")
}

/// The files of a checkpoint, in this order.
pub const CHECKPOINT: [&str; 3] = ["state.json", "trained.safetensors", "optimiser.safetensors"];

pub fn checkpoints() -> Vec<Input> {
    let mut keeper = Keeper::default();
    let mut run = run();
    while wait(run.next(&mut keeper)).expect("an event").is_some() {}
    let file = |name: &str| keeper.0.iter().find(|(file, _)| file == name).expect("a file").1.clone();
    vec![CHECKPOINT.map(file).to_vec()]
}
