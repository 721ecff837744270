//! What users get, from the real program: run folders, resumed runs, exported models, exit codes and error messages.
//!
//! Every test runs `temper` on the CPU with models of a few thousand parameters (the golden ones of `tests/golden/tiny`, with
//! a tokenizer of one token a byte), so that a whole training run takes well under a second. Whatever a test asks for, the
//! program must never panic: [`Ran`] checks that each time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a run of the program gave.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// A run that is over, checked for what no run may show.
    fn of(output: std::process::Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let ran = Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        for never in ["panicked", "backtrace", "XDG_RUNTIME_DIR"] {
            assert!(!ran.stderr.contains(never), "{never} in:\n{}", ran.stderr);
        }
        ran
    }

    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Failed with this exit code and one message that contains all of `parts`.
    fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.stderr.matches("temper: error:").count(), 1, "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.stdout))
    }
}

/// The program, on the CPU, asking for backtraces so that a panic cannot hide.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_temper"));
    command.env("RUST_BACKTRACE", "1").env_remove("TEMPER_LOG").env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
    command.args(["--device", "cpu"]);
    command
}

fn temper<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    Ran::of(program().args(args).output().expect("the program starts"))
}

/// As [`temper`], from one line without quotes.
fn line(args: &str) -> Ran {
    temper(args.split_whitespace())
}

fn golden(path: &str) -> PathBuf {
    // Asked at run time where possible: a shared target folder outlives a checkout.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).join("../tests/golden").join(path)
}

/// How byte-level tokenizers write a byte: printable ones as themselves, the others as U+0100 and on.
fn byte_symbols() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).expect("a character")
            }
        })
        .collect()
}

/// A tokenizer of one token a byte, and `more` tokens that no text has.
fn byte_tokenizer(more: usize) -> String {
    let mut vocabulary: serde_json::Map<String, Value> =
        byte_symbols().iter().enumerate().map(|(id, symbol)| (symbol.to_string(), id.into())).collect();
    (0..more).for_each(|n| {
        vocabulary.insert(format!("extra {n}"), (256 + n).into());
    });
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
    .to_string()
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read_tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let owned =
        |(name, view): (String, TensorView)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    file.tensors().into_iter().map(owned).collect()
}

fn write_tensors(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("a valid tensor"))
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn f32s(tensors: &Tensors, name: &str) -> Vec<f32> {
    let (dtype, _, data) = &tensors[name];
    assert_eq!(*dtype, Dtype::F32, "{name}");
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn f64s(tensors: &Tensors, name: &str) -> Vec<f64> {
    let (dtype, _, data) = &tensors[name];
    assert_eq!(*dtype, Dtype::F64, "{name}");
    data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn i64s(tensors: &Tensors, name: &str) -> Vec<i64> {
    let (dtype, _, data) = &tensors[name];
    assert_eq!(*dtype, Dtype::I64, "{name}");
    data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The tiny Llama and the byte tokenizer as a GGUF file, in f32.
fn gguf() -> Vec<u8> {
    gguf_part(0, 1)
}

/// Part `number` (from 0 on) of `count` of that file, as llama.cpp splits one: all metadata are in the first part.
fn gguf_part(number: u32, count: u32) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }
    const U32: u32 = 4;
    const F32: u32 = 6;
    const TEXT: u32 = 8;
    const LIST: u32 = 9;
    let mut tensors = read_tensors(&golden("tiny/llama/model.safetensors"));
    let all = tensors.len() as u32;
    let mut index = 0..;
    tensors.retain(|_, _| index.next().is_some_and(|at: u32| at * count / all == number));
    let split = [("split.no", number), ("split.count", count), ("split.tensors.count", all)];
    let numbers = [
        ("llama.block_count", 2),
        ("llama.context_length", 128),
        ("llama.embedding_length", 64),
        ("llama.feed_forward_length", 128),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("llama.rope.dimension_count", 16),
        ("tokenizer.ggml.eos_token_id", 2),
    ];
    let fractions = [("llama.attention.layer_norm_rms_epsilon", 1e-5f32), ("llama.rope.freq_base", 1e4)];
    let texts = [
        ("general.architecture", "llama"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "gpt-2"),
        ("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}\n{% endfor %}"),
    ];
    let lists: [(&str, Vec<String>); 2] = [
        ("tokenizer.ggml.tokens", byte_symbols().iter().map(char::to_string).collect()),
        ("tokenizer.ggml.merges", Vec::new()),
    ];
    let (numbers, fractions, texts, lists) = match number {
        0 => (&numbers[..], &fractions[..], &texts[..], &lists[..]),
        _ => (&[][..], &[][..], &[][..], &[][..]),
    };
    let numbers: Vec<(&str, u32)> = numbers.iter().copied().chain(split).collect();
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(((numbers.len() + fractions.len() + texts.len() + lists.len()) as u64).to_le_bytes());
    let key = |out: &mut Vec<u8>, name: &str, kind: u32| {
        text(out, name);
        out.extend(kind.to_le_bytes());
    };
    for (name, number) in numbers {
        key(&mut out, name, U32);
        out.extend(u32::to_le_bytes(number));
    }
    for &(name, number) in fractions {
        key(&mut out, name, F32);
        out.extend(number.to_le_bytes());
    }
    for &(name, value) in texts {
        key(&mut out, name, TEXT);
        text(&mut out, value);
    }
    for (name, values) in lists {
        key(&mut out, name, LIST);
        out.extend(TEXT.to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| text(&mut out, value));
    }
    let names = [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let mut offset = 0u64;
    for (name, (_, shape, data)) in &tensors {
        text(&mut out, &names.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to)));
        out.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|length| out.extend((*length as u64).to_le_bytes()));
        out.extend(0u32.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += data.len().next_multiple_of(32) as u64;
    }
    for (name, (_, _, data)) in &tensors {
        out.resize(out.len().next_multiple_of(32), 0);
        let rotated = name.contains("q_proj") || name.contains("k_proj");
        // Rows of a head lie interleaved: GGUF's row 2 i + j is Hugging Face's row 8 j + i.
        for (row, bytes) in data.chunks_exact(64 * 4).enumerate() {
            let (head, within) = (row / 16, row % 16);
            let from = head * 16 + within % 2 * 8 + within / 2;
            out.extend(if rotated { &data[from * 64 * 4..][..64 * 4] } else { bytes });
        }
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out
}

/// Fails on NaN too.
fn assert_close(what: &str, got: impl IntoIterator<Item = f64>, want: impl IntoIterator<Item = f64>, tolerance: f64) {
    let (got, want): (Vec<f64>, Vec<f64>) = (got.into_iter().collect(), want.into_iter().collect());
    assert_eq!(got.len(), want.len(), "{what}");
    for (index, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= tolerance, "{what} {index}: {g} and not {w}");
    }
}

/// A folder with a model, data and a configuration, and whatever a test puts beside them.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.model("llama");
        let sum = |a: usize, b: usize| {
            json!({"question": format!("What is {a} plus {b}?"), "answer": format!("{a} plus {b} is {}.", a + b)})
                .to_string()
        };
        let records = |range: std::ops::Range<usize>| {
            range.map(|n| sum(n * 7 % 23, n * 5 % 19)).collect::<Vec<_>>().join("\n") + "\n"
        };
        place.write("train.jsonl", &records(0..48));
        place.write("target.jsonl", &records(48..60));
        place.write("general.txt", &"It rained all night, and in the morning the river had left its bed.\n".repeat(6));
        place.configure("");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a temporary path is UTF-8").to_owned()
    }

    fn write(&self, name: &str, contents: &str) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// A golden model as `model/`, with the byte tokenizer.
    fn model(&self, name: &str) {
        let model = self.path("model");
        fs::create_dir_all(&model).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(golden(&format!("tiny/{name}/{file}")), model.join(file)).unwrap();
        }
        fs::write(model.join("tokenizer.json"), byte_tokenizer(0)).unwrap();
    }

    /// `run.toml`: ten steps with LoRA, and `more` at its end, which is in `[run]`.
    fn configure(&self, more: &str) {
        let text = format!(
            "[model]\npath = {:?}\n[data]\ntrain = {:?}\ntarget = {:?}\ngeneral = {:?}\ncutoff_length = 128\n\
             [adapter]\nrank = 4\nalpha = 8\n[optim]\nlearning_rate = 5e-3\n\
             [run]\nbatch_tokens = 128\naccumulation = 2\nseed = 7\nsave_every = 4\n{more}",
            self.text("model"),
            self.text("train.jsonl"),
            self.text("target.jsonl"),
            self.text("general.txt"),
        );
        let steps = if more.contains("steps") { "" } else { "steps = 10\n" };
        self.write("run.toml", &(text + steps));
    }

    fn train(&self, out: &str, set: &[&str]) -> Ran {
        temper(self.arguments(out, set))
    }

    fn arguments(&self, out: &str, set: &[&str]) -> Vec<String> {
        let mut args = vec!["train".into(), self.text("run.toml"), "--out".into(), self.text(out)];
        set.iter().for_each(|set| args.extend(["--set".into(), (*set).to_string()]));
        args
    }

    fn resume(&self, out: &str) -> Ran {
        self.resume_with(out, &[])
    }

    fn resume_with(&self, out: &str, set: &[&str]) -> Ran {
        let set: String = set.iter().map(|set| format!(" --set {set}")).collect();
        line(&format!("train --resume --out {}{set}", self.text(out)))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn metrics(&self, out: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(&format!("{out}/metrics.jsonl"))).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// How often TensorBoard is told of this.
    fn told_tensorboard(&self, run: &str, tag: &str) -> usize {
        let file = fs::read(self.path(&format!("{run}/events.out.tfevents.temper"))).unwrap();
        file.windows(tag.len()).filter(|window| *window == tag.as_bytes()).count()
    }

    /// Everything that the seed decides about a run: its metrics without times and memory, and what it trained.
    fn result(&self, out: &str) -> (Vec<Value>, Vec<u8>) {
        let mut metrics = self.metrics(out);
        for line in &mut metrics {
            for measured in ["tokens_per_second", "peak_device_bytes", "seconds"] {
                line.as_object_mut().unwrap().remove(measured).expect("a promised field");
            }
        }
        let adapter = self.path(&format!("{out}/adapter/adapter_model.safetensors"));
        let model = self.path(&format!("{out}/model/model.safetensors"));
        (metrics, fs::read(adapter).or_else(|_| fs::read(model)).expect("a trained adapter or model"))
    }

    /// Starts a run and waits until it has logged so many steps.
    fn start(&self, out: &str, set: &[&str], steps: usize) -> Child {
        let mut child =
            program().args(self.arguments(out, set)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let metrics = self.path(&format!("{out}/metrics.jsonl"));
        let begin = Instant::now();
        while fs::read(&metrics).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count()) < steps {
            assert!(begin.elapsed() < Duration::from_secs(60), "the run does not get to step {steps}");
            assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
            sleep(Duration::from_millis(2));
        }
        child
    }
}

/// Waits for a run that was told to end; its stderr is small enough for a pipe.
fn wait(mut child: Child) -> Ran {
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Ran { code, stdout: String::new(), stderr }
}

// What a run leaves.

#[test]
fn a_run_leaves_exactly_the_promised_folder() {
    let place = Place::new();
    let ran = place.train("out", &["run.steps=11", "run.log_every=2", "run.eval_every=4", "run.baseline=sft"]).ok();
    assert!(ran.stdout.contains("after eaft") && ran.stdout.contains("after sft"), "{}", ran.stdout);
    assert!(ran.stdout.contains("report.html"), "{}", ran.stdout);
    let promised = [
        "adapter",
        "baseline",
        "checkpoints",
        "config.toml",
        "evaluations.json",
        "events.out.tfevents.temper",
        "landscape.json",
        "metrics.jsonl",
        "report.html",
        "summary.json",
    ];
    assert_eq!(place.names("out"), promised);
    for (part, steps) in [("out", 7), ("out/baseline", 7)] {
        assert_eq!(place.told_tensorboard(part, "train/loss"), steps);
    }
    assert_eq!(place.told_tensorboard("out", "eval/general_loss"), 4, "before, after steps 4 and 8, after");
    assert_eq!(place.names("out/adapter"), ["adapter_config.json", "adapter_model.safetensors"]);
    assert_eq!(place.names("out/checkpoints"), ["step-00000008", "step-00000011"], "the newest two");

    let steps: Vec<u64> = place.metrics("out").iter().map(|m| m["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 4, 6, 8, 10, 11], "every second step, the first and the last");
    for metrics in place.metrics("out") {
        for field in [
            "tokens",
            "loss",
            "cross_entropy",
            "gate_mean",
            "gate_below_0_1",
            "conflict_share",
            "learning_rate",
            "gradient_norm",
            "tokens_per_second",
            "peak_device_bytes",
        ] {
            assert!(metrics[field].is_number(), "{field} in {metrics}");
        }
    }

    let summary = place.json("out/summary.json");
    let retention = &summary["retention"];
    for set in ["target", "general"] {
        for moment in [&retention["before"], &retention["after"], &retention["baseline"]["after"]] {
            let (loss, perplexity) =
                (moment[set]["loss"].as_f64().unwrap(), moment[set]["perplexity"].as_f64().unwrap());
            assert!((loss.exp() - perplexity).abs() <= 1e-9 * perplexity, "{moment}");
            assert!(moment[set]["tokens"].as_u64().unwrap() > 50);
        }
    }
    let target = |moment: &str| retention[moment]["target"]["loss"].as_f64().unwrap();
    assert!(target("after") < target("before") - 0.1, "{retention}");
    assert_eq!((&summary["seed"], &summary["finished"]["interrupted"]), (&json!(7), &json!(false)));

    let report = fs::read_to_string(place.path("out/report.html")).unwrap();
    for outside in ["http", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!report.contains(outside), "{outside} in the report");
    }
    assert!(report.matches("<svg").count() >= 8 && report.contains("Held-out loss"), "plots are missing");
}

#[test]
fn the_resolved_configuration_repeats_the_run_to_the_bit() {
    let place = Place::new();
    place.train("first", &["adapter.dropout=0.1", "run.recompute=always"]).ok();
    fs::copy(place.path("first/config.toml"), place.path("run.toml")).unwrap();
    place.train("second", &[]).ok();
    assert_eq!(place.result("second"), place.result("first"));
    assert_eq!(
        fs::read_to_string(place.path("second/config.toml")).unwrap(),
        fs::read_to_string(place.path("first/config.toml")).unwrap()
    );
    place.train("third", &["run.recompute=never"]).ok();
    assert_eq!(place.result("third"), place.result("first"), "running a block again gives the same bits");
}

#[test]
fn an_adapter_has_the_names_and_settings_that_peft_accepts() {
    let place = Place::new();
    place.train("out", &["adapter.targets=q_proj,down_proj", "run.steps=1"]).ok();
    let config = place.json("out/adapter/adapter_config.json");
    assert_eq!((&config["peft_type"], &config["r"], &config["lora_alpha"]), (&json!("LORA"), &json!(4), &json!(8)));
    assert_eq!(config["target_modules"], json!(["down_proj", "q_proj"]));
    assert_eq!(config["base_model_name_or_path"], json!(place.text("model")));
    let tensors = read_tensors(&place.path("out/adapter/adapter_model.safetensors"));
    assert_eq!(tensors.len(), 8, "two layers, two modules, A and B");
    let shape = |name: &str| tensors[&format!("base_model.model.model.layers.1.{name}.weight")].1.clone();
    assert_eq!(shape("mlp.down_proj.lora_A"), [4, 128]);
    assert_eq!(shape("mlp.down_proj.lora_B"), [64, 4]);
    assert_eq!(shape("self_attn.q_proj.lora_B"), [64, 4]);
}

#[test]
fn a_rank_stabilised_adapter_is_one_of_another_alpha_to_whoever_reads_it() {
    let place = Place::new();
    // 8 / sqrt(4) and 16 / 4.
    place.train("stable", &["run.steps=4", "adapter.rslora=true"]).ok();
    place.train("plain", &["run.steps=4", "adapter.alpha=16"]).ok();
    assert!(place.result("stable") == place.result("plain"), "another scale was trained with");
    let config = place.json("stable/adapter/adapter_config.json");
    assert_eq!((&config["use_rslora"], &config["lora_alpha"], &config["r"]), (&json!(true), &json!(8), &json!(4)));
    assert_eq!(place.json("plain/adapter/adapter_config.json")["use_rslora"], false);
    for out in ["stable", "plain"] {
        line(&format!("export --run {} {} --to f32", place.text(out), place.text(&format!("{out}-merged")))).ok();
    }
    let merged = |out: &str| fs::read(place.path(&format!("{out}-merged/model.safetensors"))).unwrap();
    assert!(merged("stable") == merged("plain"), "another scale was merged with");
    let logits = |out: &str| {
        let (model, adapter) = (place.text("model"), place.text(&format!("{out}/adapter")));
        let data = place.text("target.jsonl");
        line(&format!("eval --json --model {model} --adapter {adapter} --data {data}")).ok().json()
    };
    assert_eq!(logits("stable"), logits("plain"));
}

#[test]
fn an_exported_adapter_loads_back_and_gives_the_perplexity_of_the_summary() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let after = &place.json("out/summary.json")["retention"]["after"];
    let with = format!("eval --json --model {} --adapter {}", place.text("model"), place.text("out/adapter"));
    for (set, input) in [("target", "--data"), ("general", "--text"), ("general", "--data")] {
        let file = if set == "target" { "target.jsonl" } else { "general.txt" };
        let found = line(&format!("{with} {input} {}", place.text(file))).ok().json();
        let number = |from: &Value| from["perplexity"].as_f64().unwrap();
        let (got, want) = (number(&found), number(&after[set]));
        assert!((got / want - 1.0).abs() <= 1e-6, "{set}: {got} and not {want}");
        assert_eq!(found["tokens"], after[set]["tokens"], "{set}");
    }
    let base = line(&format!("eval --json --model {} --data {}", place.text("model"), place.text("target.jsonl"))).ok();
    assert_ne!(base.json()["perplexity"], after["target"]["perplexity"], "without its adapter the model is another");

    // The run stands for its adapter, as in training, and only beside the model that it was trained on.
    let eval = |model: &str, adapter: &str| {
        let (model, adapter, data) = (place.text(model), place.text(adapter), place.text("target.jsonl"));
        line(&format!("eval --json --model {model} --adapter {adapter} --data {data}"))
    };
    assert_eq!(eval("model", "out").ok().json(), eval("model", "out/adapter").ok().json());
    eval("model", "model").fails(2, &["model: is neither an adapter", "nor the folder of a run"]);
    let file = place.path("model/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    eval("model", "out").fails(2, &["is not the model that this run's adapter was trained on"]);
    eval("model", "out/adapter").ok();
}

#[test]
fn training_goes_on_from_an_adapter_where_its_own_training_ended() {
    let place = Place::new();
    place.train("first", &["adapter.targets=q_proj,down_proj", "adapter.rslora=true"]).ok();
    let losses = |out: &str, when: &str| {
        let measured = place.json(&format!("{out}/summary.json"))["retention"][when].clone();
        ["target", "general"].map(|set| measured[set]["loss"].as_f64().unwrap())
    };
    let plain = fs::read_to_string(place.path("run.toml")).unwrap().replace("rank = 4\nalpha = 8\n", "");
    place.write("run.toml", &plain);
    for (out, from) in [("of-run", "first"), ("of-folder", "first/adapter")] {
        let ran = place.train(out, &[&format!("adapter.from={}", place.text(from)), "run.steps=6"]).ok();
        assert!(ran.stderr.contains("first/adapter: rank 4, alpha 8, 4 pairs\n"), "{}", ran.stderr);
        assert_close("loss", losses(out, "before"), losses("first", "after"), 1e-6);
        assert!(losses("first", "before")[0] > losses("first", "after")[0] + 1e-3, "the start is another");
        assert!(losses(out, "after")[0] < losses(out, "before")[0], "it learned");
    }
    assert!(place.result("of-run") == place.result("of-folder"));
    let config = |out: &str| place.json(&format!("{out}/adapter/adapter_config.json"));
    assert_eq!(config("of-run"), config("first"), "rank, alpha, scaling and targets are those it had");
    assert_ne!(place.result("of-run").1, place.result("first").1);

    let (model, data, from) = (place.text("model"), place.text("train.jsonl"), place.text("of-run"));
    let planned = line(&format!("plan --model {model} --data {data} --adapter {from} --json")).ok();
    let wider = line(&format!("plan --model {model} --data {data} --json")).ok();
    let peak = |ran: &Ran| ran.json()["peak_bytes"].as_u64().unwrap();
    assert!(peak(&planned) < peak(&wider), "of its rank and targets");

    let (run, out) = (place.text("run.toml"), place.text("all"));
    let vary = format!("--vary objective.method=sft,eaft --set adapter.from={from} --set run.steps=2");
    line(&format!("compare {run} {vary} --out {out}")).ok();
    for run in ["sft", "eaft"] {
        let compared = config(&format!("all/runs/{run}"));
        assert_eq!((&compared["r"], &compared["lora_alpha"]), (&json!(4), &json!(8)), "{run}");
    }
}

#[test]
fn a_run_that_began_with_an_adapter_goes_on_from_its_checkpoint_and_only_beside_that_adapter() {
    let place = Place::new();
    place.train("first", &[]).ok();
    let from = format!("adapter.from={}", place.text("first"));
    place.train("out", &[&from, "run.steps=8", "adapter.dropout=0.1"]).ok();
    let result = place.result("out");
    fs::remove_dir_all(place.path("out/checkpoints/step-00000008")).unwrap();
    place.resume("out").ok();
    assert!(place.result("out") == result, "another start than the checkpoint");

    let file = place.path("first/adapter/adapter_model.safetensors");
    let own = fs::read(&file).unwrap();
    let mut other = own.clone();
    let last = other.len() - 4;
    other[last] ^= 1;
    fs::write(&file, other).unwrap();
    place.resume("out").fails(2, &["adapter.from", "holds another adapter than the run began with"]);
    fs::write(&file, own).unwrap();
    place.resume("out").ok();
    fs::rename(place.path("first"), place.path("moved")).unwrap();
    place.resume("out").fails(2, &["first"]);
}

#[test]
fn an_adapter_that_cannot_be_gone_on_from_is_refused_and_leaves_nothing() {
    let place = Place::new();
    place.train("first", &["run.steps=1"]).ok();
    place.train("whole", &["run.steps=1", "adapter.kind=none"]).ok();
    let refused = |from: &str, set: &[&str], parts: &[&str]| {
        let from = format!("adapter.from={}", place.text(from));
        place.train("refused", &[&[&*from], set].concat()).fails(2, parts);
        assert!(!place.path("refused").exists());
    };
    refused("first", &["adapter.rank=8"], &["--set adapter.rank", "is 8, and in the adapter to go on from 4", "first"]);
    refused("first", &["adapter.targets=q_proj"], &["adapter.targets", "is q_proj, and in the adapter", "down_proj"]);
    let held = ["run.storage: is f32", "was held as auto", "leave it out", "first/adapter"];
    refused("first", &["run.storage=f32"], &held);
    refused("first", &["adapter.kind=none"], &["adapter.from", "all weights are trained", "temper export"]);
    refused("first", &["objective.method=sft_kl"], &["adapter.from", "sft_kl asks the model", "temper export"]);
    refused("nowhere", &[], &["nowhere"]);
    refused("model", &[], &["model: ", "is neither an adapter", "nor the folder of a run"]);
    refused("whole", &[], &["whole trained all weights and has no adapter", "whole/model"]);

    // Its matrices are not the model's.
    let adapter = place.path("first/adapter/adapter_model.safetensors");
    let own = read_tensors(&adapter);
    let mut lacking = own.clone();
    lacking.retain(|name, _| !name.contains("layers.1.self_attn.q_proj"));
    write_tensors(&adapter, &lacking);
    refused("first/adapter", &[], &["layers.1.self_attn.q_proj", "has no lora_A and lora_B"]);
    write_tensors(&adapter, &own);

    // Another model with the same description.
    let file = place.path("model/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    refused("first", &[], &["is not the model that the run's adapter was trained on", "digest", "first/adapter"]);
    let folder = format!("adapter.from={}", place.text("first/adapter"));
    place.train("other", &[&folder, "run.steps=1", "run.storage=f32"]).ok();
}

#[test]
fn a_run_that_goes_on_from_another_holds_its_model_as_that_one_did() {
    let place = Place::new();
    place.train("first", &["run.steps=1", "run.storage=f16"]).ok();
    let from = format!("adapter.from={}", place.text("first"));
    place.train("next", &[&from, "run.steps=1"]).ok();
    let config = fs::read_to_string(place.path("next/config.toml")).unwrap();
    assert!(config.contains("storage = \"f16\""), "{config}");
}

#[test]
fn an_adapter_of_some_layers_is_used_as_it_is_and_not_gone_on_from() {
    let place = Place::new();
    place.train("first", &["run.steps=2"]).ok();
    let (model, adapter, data) = (place.text("model"), place.text("first/adapter"), place.text("target.jsonl"));
    let with = format!("eval --json --model {model} --adapter {adapter} --data {data}");
    let of = |ran: Ran| ran.ok().json()["loss"].as_f64().unwrap();
    let whole = of(line(&with));
    let file = place.path("first/adapter/adapter_model.safetensors");
    let mut tensors = read_tensors(&file);
    tensors.retain(|name, _| !name.contains("layers.1."));
    write_tensors(&file, &tensors);
    line(&with).fails(2, &["layers.1.", "has no lora_A and lora_B"]);
    let mut config = place.json("first/adapter/adapter_config.json");
    config["layers_to_transform"] = json!([0]);
    place.write("first/adapter/adapter_config.json", &config.to_string());
    let part = of(line(&with));
    let bare = of(line(&format!("eval --json --model {model} --data {data}")));
    assert!(part != whole && part != bare, "{part}, {whole}, {bare}");
    let from = format!("adapter.from={adapter}");
    place.train("refused", &[&from]).fails(2, &["[adapter] from", "is of some layers only", "temper export"]);
}

#[test]
fn an_exported_model_loads_back_and_gives_the_perplexity_of_the_summary() {
    for name in ["qwen3", "llama_tied"] {
        let place = Place::new();
        place.model(name);
        place.train("out", &["adapter.kind=none", "optim.learning_rate=1e-3", "run.steps=4"]).ok();
        assert_eq!(place.names("out/model"), ["config.json", "model.safetensors", "tokenizer.json"]);
        let after = &place.json("out/summary.json")["retention"]["after"]["target"];
        let command = format!("eval --json --model {} --data {}", place.text("out/model"), place.text("target.jsonl"));
        let found = line(&command).ok().json();
        let (got, want) = (found["perplexity"].as_f64().unwrap(), after["perplexity"].as_f64().unwrap());
        assert!((got / want - 1.0).abs() <= 1e-6, "{name}: {got} and not {want}");
    }
}

#[test]
fn a_model_trained_from_a_gguf_file_takes_its_tokenizer_along() {
    let place = Place::new();
    fs::write(place.path("m.gguf"), gguf()).unwrap();
    let path = format!("model.path={}", place.text("m.gguf"));
    place.train("out", &[&path, "adapter.kind=none", "optim.learning_rate=1e-3", "run.steps=2"]).ok();
    assert_eq!(
        place.names("out/model"),
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
    let command = format!("eval --json --model {} --data {}", place.text("out/model"), place.text("target.jsonl"));
    let found = line(&command).ok().json();
    let after = &place.json("out/summary.json")["retention"]["after"]["target"];
    let (got, want) = (found["perplexity"].as_f64().unwrap(), after["perplexity"].as_f64().unwrap());
    assert!((got / want - 1.0).abs() <= 1e-6, "{got} and not {want}");
}

#[test]
fn a_chat_template_beside_a_gguf_file_is_taken_and_a_run_does_not_go_on_with_another() {
    let place = Place::new();
    fs::write(place.path("m.gguf"), gguf()).unwrap();
    let own = "train run.toml --set model.path=m.gguf --set run.steps=1 --set data.general= --out";
    let said = "template   chat_template.jinja beside the model";
    let ran = temper_in(&place, &format!("{own} own")).ok();
    assert!(!ran.stderr.contains(said), "{}", ran.stderr);
    place.write("chat_template.jinja", TEMPLATE);
    let ran = temper_in(&place, &format!("{own} other")).ok();
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    // It is in what is made of the file, too.
    temper_in(&place, "quantize m.gguf q.gguf --to f32").ok();
    let written = fs::read(place.path("q.gguf")).unwrap();
    assert!(written.windows(TEMPLATE.len()).any(|bytes| bytes == TEMPLATE.as_bytes()));
    temper_in(&place, "train --resume --out own").fails(2, &["train", "began with"]);
    fs::remove_file(place.path("chat_template.jinja")).unwrap();
    temper_in(&place, "train --resume --out own").ok();
    place.write("chat_template.jinja", "{% for m in messages %}{{ ");
    temper_in(&place, &format!("{own} broken")).fails(2, &["template"]);
}

#[test]
fn what_of_records_is_not_read_is_said_where_they_are_read() {
    let place = Place::new();
    let with = |name: &str, of: &str| {
        let text = fs::read_to_string(place.path(name)).unwrap().replace("{\"", &format!("{{{of},\""));
        place.write(name, &text);
    };
    with("train.jsonl", "\"id\":3,\"context\":\"c\"");
    with("target.jsonl", "\"id\":3");
    let ran = temper_in(&place, "train run.toml --set run.steps=1 --set data.general= --out out").ok();
    for (set, fields) in [("train", "context (48 records), id (48 records)"), ("target", "id (12 records)")] {
        let is_said = |line: &str| line.starts_with(set) && line.ends_with(&format!(", not read: {fields}"));
        assert!(ran.stderr.lines().any(is_said), "{fields}\n{}", ran.stderr);
    }
    let lost = "warning: train: the context of 48 records is not read, ";
    assert!(ran.stderr.contains(lost) && ran.stderr.contains("input=context"), "{}", ran.stderr);
    let target = |line: &str| line.starts_with("target") && line.contains(" scored");
    assert!(ran.stderr.lines().any(target), "what is only measured is not trained: {}", ran.stderr);
    for command in ["eval --model model --data target.jsonl", "scan --model model --data target.jsonl --out scanned"] {
        let ran = temper_in(&place, command).ok();
        assert!(ran.stderr.contains("target.jsonl: not read: id (12 records)"), "{}", ran.stderr);
    }
    let empty = "{\"question\":\"a\",\"answer\":\"\"}\n".repeat(3);
    place.write("train.jsonl", &(fs::read_to_string(place.path("train.jsonl")).unwrap() + &empty));
    let ran = temper_in(&place, "train run.toml --set run.steps=1 --set data.general= --out empty").ok();
    let warning = "warning: train: 3 records have an empty answer: they train only the end of the turn";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
}

#[test]
fn a_model_of_an_inline_architecture_is_trained_from_random_weights_with_the_embedded_tokenizer() {
    let place = Place::new();
    let architecture = "{ model_type = \"llama\", vocab_size = 2048, hidden_size = 32, intermediate_size = 64, \
                        num_hidden_layers = 1, num_attention_heads = 2, num_key_value_heads = 1, \
                        max_position_embeddings = 128, tie_word_embeddings = true, eos_token_id = 0 }";
    let text = format!(
        "[model]\npath = \"embedded:base\"\ninit = \"random\"\narchitecture = {architecture}\n[data]\ntrain = {:?}\n\
         target = {:?}\ncutoff_length = 128\n[objective]\nmethod = \"sft\"\n[run]\nepochs = 2\nbatch_tokens = 128\n\
         accumulation = 2\n",
        place.text("train.jsonl"),
        place.text("target.jsonl"),
    );
    place.write("run.toml", &text);
    place.train("out", &[]).ok();
    let before = &place.json("out/summary.json")["retention"]["before"]["target"]["loss"];
    assert!((before.as_f64().unwrap() - 2048f64.ln()).abs() < 0.1, "random weights know nothing: {before}");
    assert_eq!(
        place.names("out/model"),
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
}

/// Remade by running this test after a change that is meant to change results: it prints the ten losses that it found.
#[test]
fn ten_steps_reproduce_ten_stored_losses() {
    const LOSSES: [f64; 10] =
        [6.082509, 5.993127, 6.297271, 6.315208, 5.749289, 5.258190, 4.840985, 4.622054, 4.410905, 4.347517];
    let place = Place::new();
    place.train("out", &[]).ok();
    let found: Vec<f64> = place.metrics("out").iter().map(|m| m["loss"].as_f64().unwrap()).collect();
    let same = |(found, stored): (&f64, &f64)| (found / stored - 1.0).abs() <= 1e-4;
    assert!(found.len() == 10 && found.iter().zip(&LOSSES).all(same), "{found:?} and not {LOSSES:?}");
}

// First contact.

/// As [`temper`], with the place's folder as the one that the user is in.
fn temper_in(place: &Place, args: &str) -> Ran {
    Ran::of(program().args(args.split_whitespace()).current_dir(place.folder.path()).output().unwrap())
}

#[test]
fn a_model_and_data_are_all_that_a_first_run_needs() {
    let place = Place::new();
    let ran = temper_in(&place, "train --model model --data train.jsonl").ok();
    let held_out = "target     held out: the last 5 of these 48 documents, ";
    assert!(ran.stderr.contains(held_out) && ran.stderr.contains("not trained on"), "{}", ran.stderr);
    assert!(ran.stderr.contains("plan       1 step of up to 2,048 tokens: one pass over "), "{}", ran.stderr);
    assert!(ran.stderr.contains("which is little; --set run.epochs=20 takes more"), "{}", ran.stderr);
    assert!(ran.stdout.contains("runs/model-train/report.html"), "{}", ran.stdout);
    let config = fs::read_to_string(place.path("runs/model-train/config.toml")).unwrap();
    for line in ["hold_out = 0.1", "method = \"eaft\"", "kind = \"lora\"", "general = \"embedded:general.txt\""] {
        assert!(config.lines().any(|l| l == line), "{line} in\n{config}");
    }
    assert!(config.contains("cutoff_length = 128"), "as the model's context: {config}");
    let before = &place.json("runs/model-train/summary.json")["retention"]["before"];
    let held_out: usize = fs::read_to_string(place.path("train.jsonl")).unwrap().lines().skip(43).map(answer).sum();
    assert_eq!(before["target"]["tokens"], held_out, "the answers of the last five records");
    // A short run does not measure for longer than it trains.
    let general = before["general"]["tokens"].as_u64().unwrap();
    assert!(general > 1000 && general <= 2048, "{general}");
    assert!(ran.stderr.contains("general    measured on its first "), "{}", ran.stderr);
    assert!(place.path("runs/model-train/adapter").exists());

    // The same by --set, and never over an earlier run.
    let ran = temper_in(&place, "train --set model.path=model --set data.train=train.jsonl --set data.general=").ok();
    assert!(ran.stdout.contains("runs/model-train-2/report.html"), "{}", ran.stdout);
    assert_eq!(place.result("runs/model-train-2"), place.result("runs/model-train"));
    // The folder's own configuration says what was held out.
    temper_in(&place, "train runs/model-train-2/config.toml --out again").ok();
    assert_eq!(place.result("again"), place.result("runs/model-train-2"));
    let newest = place.names("again/checkpoints").pop().unwrap();
    fs::remove_dir_all(place.path("again/checkpoints").join(newest)).unwrap();
    // As if it had been killed before its first checkpoint.
    fs::remove_file(place.path("again/summary.json")).unwrap();
    let ran = temper_in(&place, "train --resume --out again").ok();
    assert!(ran.stderr.contains("the last 5 of these 48 documents"), "{}", ran.stderr);
    assert_eq!(place.result("again"), place.result("runs/model-train-2"));
}

/// Tokens of a record's answer, of a byte each, and the end of the sequence where there is one.
fn answer(record: &str) -> usize {
    let record: Value = serde_json::from_str(record).unwrap();
    record["answer"].as_str().unwrap().len() + 1
}

#[test]
fn a_model_without_data_or_data_without_a_model_does_not_train_the_demo() {
    let place = Place::new();
    for (args, missing) in [
        ("train --model model", "add --data FILE"),
        ("train --set model.path=model", "add --data FILE"),
        ("train --data train.jsonl", "add --model DIR_OR_GGUF"),
        ("train --set data.train=train.jsonl --set adapter.kind=none", "add --model DIR_OR_GGUF"),
    ] {
        temper_in(&place, args).fails(2, &[missing, "temper init"]);
    }
    assert!(!place.path("runs").exists());
    // With a configuration, each alone only changes it.
    let other = fs::read_to_string(place.path("train.jsonl")).unwrap().replace("What is", "What's");
    place.write("other.jsonl", &other);
    temper_in(&place, "train run.toml --data other.jsonl --set run.steps=1 --out out").ok();
    let config = fs::read_to_string(place.path("out/config.toml")).unwrap();
    assert!(config.contains("train = \"other.jsonl\"") && config.contains("rank = 4"), "{config}");
    // One document cannot be split.
    place.write("one.jsonl", other.lines().next().unwrap());
    let ways = ["--set data.hold_out=", "data.target=FILE", "data.cutoff_length"];
    let ran = temper_in(&place, "train --model model --data one.jsonl");
    ran.fails(2, &[&["one.jsonl", "one document"][..], &ways].concat());
    assert!(!place.path("runs/model-one").exists());
    let all = "--set data.hold_out= --set data.general= --set run.steps=1 --out whole";
    temper_in(&place, &format!("train --model model --data one.jsonl {all}")).ok();
    let none = "to hold nothing out leave it out (--set data.hold_out=)";
    temper_in(&place, "train --model model --data one.jsonl --set data.hold_out=0").fails(2, &[none]);
}

// What is said to who asks for what cannot be.

#[test]
fn who_names_no_model_is_told_how_to_get_one() {
    let place = Place::new();
    for args in [
        "train --model Qwen/Qwen3-0.6B --data train.jsonl",
        "generate --model Qwen/Qwen3-0.6B --prompt x",
        "quantize Qwen/Qwen3-0.6B small.gguf --to q8_0",
    ] {
        let how = "`hf download Qwen/Qwen3-0.6B --local-dir Qwen3-0.6B`, or a GGUF file of it";
        temper_in(&place, args)
            .fails(2, &["Qwen/Qwen3-0.6B: there is no such file or folder", "downloads nothing", how]);
    }
    temper_in(&place, "generate --model model/model.safetensors --prompt x").fails(2, &["give the folder"]);
    fs::write(place.path("m.gguf"), gguf()).unwrap();
    temper_in(&place, "generate --model . --prompt x").fails(2, &["no config.json", "m.gguf: give that file"]);
}

#[test]
fn memory_that_lacks_is_said_to_lack_by_whoever_limits_it() {
    let place = Place::new();
    let parts = ["even training on a single token (2 layers", "and run.device_memory allows 1 KiB: "];
    place.train("out", &["run.device_memory=1KiB"]).fails(2, &parts);
    assert!(!place.path("out").exists());
}

#[test]
fn what_cannot_be_written_is_named_as_asked_for_without_advice_that_another_command_takes() {
    let place = Place::new();
    let (model, nowhere) = (place.text("model"), place.text("no/where"));
    for command in [
        format!("quantize embedded:base {nowhere}.gguf --to q8_0"),
        format!("export --model {model} {nowhere}"),
        format!("export --model embedded:base {nowhere}.gguf"),
        format!("logits --model {model} --tokens 1 --out {nowhere}"),
    ] {
        let ran = line(&command).fails(2, &[&nowhere, "make it first"]);
        for never in [".partial-", "--out", "--resume", "configuration"] {
            assert!(!ran.stderr.contains(never), "{command}: {}", ran.stderr);
        }
    }
    line(&format!("logits --model {model} --tokens 1 --out {model}")).fails(2, &["is a folder; name a file"]);
    let data = place.text("target.jsonl");
    let scan = format!("scan --model {model} --data {data} --out");
    line(&format!("{scan} {data}")).fails(2, &["--out", "target.jsonl: is not a folder"]);
    line(&format!("{scan} {} --curate {model}", place.text("scan"))).fails(2, &["is there already", "--curate"]);
    // What is to be pasted into a shell is quoted where that is needed.
    let file = place.text("my run.toml");
    assert!(temper(["init", &file]).ok().stdout.contains(&format!("temper train '{file}'")));
}

#[test]
fn an_option_that_cannot_be_is_refused_in_one_line_with_what_can() {
    let place = Place::new();
    let (model, x) = (place.text("model"), place.text("x"));
    for (command, said) in [
        (format!("quantize {model} {x}.gguf --to q3"), "error: --to q3: is not one of q8_0, "),
        (format!("export --model {model} {x} --to q3"), "error: --to q3: a folder takes f16, bf16, f32, and a file "),
        (format!("eval --model {model} --task-data {x} --tasks mmlu"), "x/mmlu: there is no such folder; --task-data "),
        ("bench loss --objective talr --rows 8 --vocab 64".into(), "error: --objective talr: needs more than a row's"),
        (format!("bench capacity --only small --folder {x}"), "x: there is no such file or folder"),
    ] {
        let ran = line(&command);
        assert!(ran.code == Some(2) && ran.stderr.contains(said), "{command}: {}", ran.stderr);
    }
}

#[test]
fn init_writes_a_commented_configuration_that_trains_and_overwrites_nothing() {
    let place = Place::new();
    let ran = temper_in(&place, "init").ok();
    assert!(ran.stdout.contains("temper train temper.toml"), "{}", ran.stdout);
    temper_in(&place, "train temper.toml").fails(2, &["[model] path: is empty", "[data] train: is empty"]);
    let text = fs::read_to_string(place.path("temper.toml")).unwrap();
    assert!(text.lines().filter(|line| line.contains('#')).count() > 20, "{text}");
    temper_in(&place, "init").fails(2, &["temper.toml", "already there"]);
    assert_eq!(fs::read_to_string(place.path("temper.toml")).unwrap(), text);

    temper_in(&place, "init --model model --data train.jsonl own.toml").ok();
    // The defaults suit a model with a longer context.
    let set = "--set data.cutoff_length=128 --set data.general=general.txt --set run.steps=1";
    temper_in(&place, &format!("train own.toml {set}")).ok();
    assert!(place.path("runs/own/adapter").exists());
    temper_in(&place, "init no/where.toml").fails(2, &["no/where.toml"]);

    // Both ways to begin are one: what follows from model and data is in the file.
    temper_in(&place, "train own.toml --out by-file").ok();
    temper_in(&place, "train --model model --data train.jsonl --out by-flags").ok();
    let [by_file, by_flags] = ["by-file", "by-flags"].map(|out| {
        let text = fs::read_to_string(place.path(&format!("{out}/config.toml"))).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(by_file, by_flags);
    for line in ["measured_tokens = 2048", "cutoff_length = 128"] {
        assert!(by_file.iter().any(|found| found == line), "{line}: {by_file:#?}");
    }
    let ran = temper_in(&place, "init --model nowhere --data train.jsonl later.toml").ok();
    assert!(ran.stderr.contains("warning: nothing is fitted to model and data: nowhere"), "{}", ran.stderr);
    assert!(fs::read_to_string(place.path("later.toml")).unwrap().contains("\n# measured_tokens =\n"));
}

#[test]
fn a_run_folder_stands_for_the_model_that_it_trained() {
    let place = Place::new();
    let target = place.text("target.jsonl");
    let fewer = ["run.storage=bf16", "run.moments=8bit", "optim.clipping=twice"];
    for (out, kind, set) in [("adapted", "lora", &[][..]), ("whole", "none", &[]), ("fewer", "none", &fewer)] {
        place.train(out, &[&[&*format!("adapter.kind={kind}"), "run.steps=4"], set].concat()).ok();
        let found = line(&format!("eval --json --run {} --data {target}", place.text(out))).ok().json();
        let after = &place.json(&format!("{out}/summary.json"))["retention"]["after"]["target"];
        let (got, want) = (found["perplexity"].as_f64().unwrap(), after["perplexity"].as_f64().unwrap());
        assert!((got / want - 1.0).abs() <= 1e-6, "{kind}: {got} and not {want}");
        let base = line(&format!("eval --json --model {} --data {target}", place.text("model"))).ok().json();
        assert_ne!(base["perplexity"], found["perplexity"]);
    }
    let generate = |which: [&str; 4], prompt: &str, more: &[&str]| {
        let own = ["--prompt", prompt, "--max-tokens", "8"];
        temper([&["generate"][..], &which[..], &own[..], more].concat()).ok().stdout
    };
    let (model, adapter) = (place.text("model"), place.text("adapted/adapter"));
    let by_path = ["--model", &model, "--adapter", &adapter];
    let adapted = place.text("adapted");
    let by_run = ["--device", "cpu", "--run", &adapted];
    // It learned questions with a line end behind them; by itself a model without a template goes on with a text.
    assert_eq!(generate(by_run, "Rain", &[]), generate(by_path, "Rain\n", &[]));
    assert_eq!(generate(by_run, "Rain", &["--raw"]), generate(by_path, "Rain", &[]));
    place.write("texts.jsonl", &format!("{}\n", json!({"text": "It rained all night, and all day."})).repeat(8));
    place.train("texts", &["run.steps=1", &format!("data.train={}", place.text("texts.jsonl"))]).ok();
    let texts = place.text("texts");
    let by_texts = ["--device", "cpu", "--run", &texts];
    assert_eq!(generate(by_texts, "Rain", &[]), generate(by_texts, "Rain", &["--raw"]));

    // As it was trained, so it is measured.
    place.train("short", &["run.steps=2", "data.cutoff_length=24", "data.train_on=last"]).ok();
    let found = line(&format!("eval --json --run {} --data {target}", place.text("short"))).ok().json();
    let after = &place.json("short/summary.json")["retention"]["after"]["target"];
    assert_eq!(found["tokens"], after["tokens"]);
    assert_close("loss", found["loss"].as_f64(), after["loss"].as_f64(), 1e-6);

    fs::remove_dir_all(place.path("adapted/adapter")).unwrap();
    let eval = |out: &str| line(&format!("eval --run {} --data {target}", place.text(out)));
    eval("adapted").fails(2, &["adapter", "has not come to its end", "--resume"]);
    eval("model").fails(2, &["model", "holds no run"]);
}

#[test]
fn a_run_is_measured_and_exported_as_it_was_at_each_of_its_checkpoints_and_the_last_one_is_its_result() {
    let place = Place::new();
    let (run, target) = (place.text("out"), place.text("target.jsonl"));
    let eval = |more: &str| line(&format!("eval --json --run {run} --data {target} {more}"));
    let export = |more: &str, name: &str| {
        line(&format!("export --run {run} {more} {} --to f32", place.text(name))).ok();
        let read = |file: String| fs::read(place.path(name).join(file)).unwrap();
        let files: Vec<Vec<u8>> = place.names(name).into_iter().map(read).collect();
        fs::remove_dir_all(place.path(name)).unwrap();
        files
    };
    let bf16 = ["adapter.kind=none", "run.storage=bf16", "run.moments=8bit"];
    let compensated = ["adapter.kind=none", "run.storage=bf16_compensated"];
    for set in [&["adapter.kind=lora"][..], &["adapter.kind=none"], &bf16, &compensated] {
        place.train("out", &[set, &["run.keep=9", "run.eval_every=4"]].concat()).ok();
        let history = place.json("out/evaluations.json")["history"].as_array().unwrap().clone();
        assert_eq!(history.iter().map(|at| at["step"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 4, 8, 10]);
        for at in &history[1..] {
            let found = eval(&format!("--step {}", at["step"])).ok().json();
            assert_close(set[0], found["loss"].as_f64(), at["target"]["loss"].as_f64(), 1e-6);
            assert_eq!(found["tokens"], at["target"]["tokens"]);
        }
        assert_eq!(eval("--step 10").ok().json(), eval("").ok().json(), "{set:?}");
        assert!(export("--step 10", "last") == export("", "result"), "{set:?}");
        assert!(export("--step 4", "first") != export("", "result"), "{set:?}");
        eval("--step 5").fails(2, &["--step 5", "has no checkpoint of that step", "steps 4, 8, 10"]);
        fs::remove_dir_all(&run).unwrap();
    }
    // Of a file's matrices nothing is left once all of them are trained.
    line(&format!("quantize embedded:base {} --to f32", place.text("base.gguf"))).ok();
    let path = format!("model.path={}", place.text("base.gguf"));
    place.train("out", &[&path, "adapter.kind=none", "run.steps=2", "optim.learning_rate=1e-2"]).ok();
    let whole = place.text("whole.gguf");
    line(&format!("export --run {run} --step 2 {whole} --to f32")).ok();
    let exported = line(&format!("eval --json --model {whole} --data {target}")).ok().json();
    assert_close("whole.gguf", exported["loss"].as_f64(), eval("").ok().json()["loss"].as_f64(), 1e-6);
    // One that begins with random weights has a model of no file.
    let random = ["model.path=embedded:base", "model.init=random", "run.steps=2"];
    fs::remove_dir_all(&run).unwrap();
    place.train("out", &random).ok();
    assert_eq!(eval("--step 2").ok().json(), eval("").ok().json());
}

#[test]
fn an_interrupted_run_is_used_by_its_newest_checkpoint_which_whoever_asks_for_its_result_is_told() {
    let place = Place::new();
    place.train("whole", &with_long(&["run.keep=99"])).ok();
    let mut child = place.start("killed", &LONG, 45);
    child.kill().unwrap();
    wait(child);
    let checkpoints = place.names("killed/checkpoints");
    let newest = checkpoints.iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok()).max().unwrap();
    let (killed, whole, target) = (place.text("killed"), place.text("whole"), place.text("target.jsonl"));
    let generate = |run: &str, prompt: &str, more: &str| {
        let own = ["generate", "--run", run, "--max-tokens", "8", "--prompt", prompt];
        temper(own.into_iter().chain(more.split_whitespace()))
    };
    let advice = format!("--resume, or use its newest checkpoint with --step {newest}");
    generate(&killed, "Rain", "").fails(2, &["adapter: is not there", "has not come to its end", &advice]);
    let step = format!("--step {newest}");
    let answer = generate(&killed, "Rain", &step).ok().stdout;
    assert_eq!(answer, generate(&whole, "Rain", &step).ok().stdout);
    // How its records were read is known before its end, too.
    assert_eq!(answer, generate(&killed, "Rain\n", &format!("{step} --raw")).ok().stdout);
    let eval = |run: &str| line(&format!("eval --json --run {run} {step} --data {target}")).ok().json();
    assert_eq!(eval(&killed), eval(&whole));
    let scan = |run: &str, out: &str| {
        let (out, file) = (place.text(out), format!("{out}/scan.jsonl"));
        line(&format!("scan --run {run} {step} --data {target} --out {out}")).ok();
        fs::read(place.path(&file)).unwrap()
    };
    assert_eq!(scan(&killed, "one"), scan(&whole, "two"));
    assert_eq!(place.json("one/summary.json")["model"], format!("{killed}, step {newest}"));
}

#[test]
fn the_best_measured_step_is_what_a_run_leaves_and_a_limit_on_forgetting_ends_it() {
    let place = Place::new();
    let fast =
        ["optim.learning_rate=0.05", "run.steps=24", "run.eval_every=2", "optim.schedule=constant", "run.keep=1"];
    let general = |out: &str| {
        let history = place.json(&format!("{out}/evaluations.json"))["history"].as_array().unwrap().clone();
        history.iter().map(|at| at["general"]["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    place.train("last", &fast).ok();
    let losses = general("last");
    let most = losses.iter().map(|loss| loss - losses[0]).fold(0.0, f64::max) / 2.0;
    assert!(most > 0.0, "it forgets nothing: {losses:?}");

    let limit = format!("run.forget_at_most={most}");
    let ran = place.train("best", &[&fast[..], &[&*limit]].concat()).ok();
    let summary = place.json("best/summary.json");
    let (step, of) = (summary["selected"]["step"].as_u64().unwrap(), summary["selected"]["of"].as_u64().unwrap());
    assert!(0 < step && step < of && of <= 24, "{summary:#}");
    for said in
        [format!("result     step {step} of the {of} made"), format!("ended      at step {of} general loss was ")]
    {
        assert!(ran.stderr.contains(&said), "{said}: {}", ran.stderr);
    }
    let report = fs::read_to_string(place.path("best/report.html")).unwrap();
    assert!(
        report.contains(&format!("step {step} of the {of} made, chosen by run.keep_best; ended because")),
        "no word of it"
    );
    let evaluations = place.json("best/evaluations.json");
    let history = evaluations["history"].as_array().unwrap();
    assert_eq!(history.len() as u64, 1 + of / 2, "each step was measured once");
    let best = history.iter().find(|at| at["step"] == step).unwrap();
    assert_eq!(summary["retention"]["after"]["target"], best["target"]);
    assert!(best["general"]["loss"].as_f64().unwrap() - losses[0] <= most);
    // What other programs load is of that step.
    let target = place.text("target.jsonl");
    let found = line(&format!("eval --json --run {} --data {target}", place.text("best"))).ok().json();
    assert_close("loss", found["loss"].as_f64(), best["target"]["loss"].as_f64(), 1e-6);
    let kept: Vec<String> = [step, of].iter().map(|step| format!("step-{step:08}")).collect();
    assert_eq!(place.names("best/checkpoints"), kept, "the newest one, and the one of the result");
    assert_eq!(place.told_tensorboard("best", "eval/target_loss"), history.len());

    // A finished run that is resumed stays as it is.
    let adapter = fs::read(place.path("best/adapter/adapter_model.safetensors")).unwrap();
    place.resume("best").ok();
    assert_eq!(fs::read(place.path("best/adapter/adapter_model.safetensors")).unwrap(), adapter);
    assert_eq!(place.json("best/summary.json")["selected"], summary["selected"]);

    // A model that knows something to forget, of which steps of this rate leave little.
    let known = ["model.path=embedded:base", "data.general=embedded:general.txt", "data.measured_tokens=512"];
    let coarse = ["run.forget_at_most=0", "run.steps=4", "run.eval_every=4", "optim.learning_rate=0.3"];
    place
        .train("none", &[&known[..], &coarse].concat())
        .fails(1, &["no measured step can be the result", "run.forget_at_most is 0", "in a new run"]);
    for (set, parts) in [
        (&["run.forget_at_most=0.1", "data.general="][..], &["forget_at_most", "data.general"][..]),
        (&["run.patience=2", "data.target="], &["patience", "data.target or data.hold_out"]),
        (&["run.keep_best=true", "data.target="], &["keep_best", "data.target or data.hold_out"]),
        (&["run.keep_best=false", "run.patience=2"], &["keep_best", "leave one out"]),
        (&["run.keep_best=true", "run.eval_every=0"], &["keep_best", "run.evaluations"]),
        (&["optim.warmup_steps=2", "optim.warmup_ratio=0.1"], &["warmup_steps", "leave one out"]),
        (&["run.keep_best=true", "run.baseline=sft"], &["baseline", "temper compare"]),
        (&["run.forget_at_most=-1"], &["forget_at_most", "-1"]),
        (&["run.patience=0"], &["patience", "0"]),
    ] {
        place.train("refused", set).fails(2, parts);
    }
}

#[test]
fn a_killed_run_that_chooses_its_result_goes_on_to_the_same_bits() {
    let place = Place::new();
    // The best step is long past when the run is killed.
    let set =
        ["run.keep_best=true", "run.keep=1", "run.save_every=5", "run.eval_every=3", "run.steps=200", "data.general="];
    let set = [&set[..], &["optim.learning_rate=0.3", "optim.schedule=constant"]].concat();
    place.train("whole", &set).ok();
    let selected = place.json("whole/summary.json")["selected"].clone();
    let best = selected["step"].as_u64().unwrap();
    killed_it_goes_on_as_if_whole(&place, &set, best as usize + 20);
    assert_eq!(place.json("killed/summary.json")["selected"], selected);
    assert_eq!(
        place.told_tensorboard("killed", "eval/target_loss"),
        place.told_tensorboard("whole", "eval/target_loss")
    );
}

#[test]
fn replay_is_mixed_into_what_is_trained_and_goes_on_after_a_stop() {
    let place = Place::new();
    let text = (0..90).map(|n| format!("The river has {n} stones, and each of them has a name.\n")).collect::<String>();
    place.write("old.txt", &text);
    place.write("few.txt", "A short text.\n");
    let replay = format!("data.replay={}", place.text("old.txt"));
    let share = |ran: &Ran| {
        let line =
            ran.stderr.lines().find(|line| line.contains("are mixed in: ")).unwrap_or_else(|| panic!("{}", ran.stderr));
        line.split("mixed in: ").nth(1).unwrap().split(" %").next().unwrap().parse::<f64>().unwrap()
    };
    let ran = place.train("out", &[&replay, "data.replay_share=0.3", "data.cutoff_length=32"]).ok();
    assert!((30.0..33.0).contains(&share(&ran)), "{}", ran.stderr);
    place.train("without", &["data.cutoff_length=32"]).ok();
    let losses = |out: &str| place.metrics(out).iter().map(|m| m["loss"].as_f64().unwrap()).collect::<Vec<_>>();
    assert_ne!(losses("out"), losses("without"));
    // What is measured and what is mapped is the same.
    let before = |out: &str| place.json(&format!("{out}/summary.json"))["retention"]["before"].clone();
    assert_eq!(before("out"), before("without"));
    place.train("half", &[&replay, "data.replay_share=0.3", "data.cutoff_length=32", "run.steps=4"]).ok();
    place.resume_with("half", &["run.steps=10"]).ok();
    assert_eq!(losses("half").len(), 10);
    fs::write(place.path("old.txt"), text.replace("stones", "pebbles")).unwrap();
    place.resume_with("half", &["run.steps=12"]).fails(2, &["data.replay", "old.txt: gives another text to mix in"]);
    let ran = place.train("few", &[&format!("data.replay={}", place.text("few.txt")), "data.replay_share=0.5"]).ok();
    assert!(ran.stderr.contains("which are all: less than data.replay_share asks for"), "{}", ran.stderr);
    place.train("none", &["data.replay=nowhere.txt"]).fails(2, &["[data] replay", "nowhere.txt"]);
    place.train("much", &[&replay, "data.replay_share=1"]).fails(2, &["data.replay_share"]);
}

/// The setting that names two files of a place.
fn both(place: &Place, one: &str, two: &str) -> String {
    format!("data.train=[{:?}, {:?}]", place.text(one), place.text(two))
}

/// Writes `train.jsonl` as two files, of 20 and 28 records.
fn divide(place: &Place) {
    let text = fs::read_to_string(place.path("train.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (name, part) in [("math.jsonl", &lines[..20]), ("more.jsonl", &lines[20..])] {
        place.write(name, &(part.join("\n") + "\n"));
    }
}

#[test]
fn records_whose_fields_have_other_names_are_read_by_what_the_user_says_they_are() {
    let place = Place::new();
    place.train("usual", &[]).ok();
    let usual = fs::read_to_string(place.path("train.jsonl")).unwrap();
    place.write("usual.jsonl", &usual);
    place.write("train.jsonl", &usual.replace("\"question\":", "\"asked\":").replace("\"answer\":", "\"said\":"));
    let file = place.text("train.jsonl");
    place.train("out", &[]).fails(2, &[&format!("{file}, line 1: unknown kind of record: it has"), "data.fields"]);
    for (fields, parts) in [
        ("prompt=asked,completion=sad", ["line 1: field `sad` is missing, which is `completion`", "`said`"]),
        ("prompt=asked,completion=said,system=rules", ["no record has a field `rules`", "`asked`"]),
        ("promt=asked", ["--set data.fields: [data] fields: \"promt\"", "did you mean prompt?"]),
    ] {
        place.train("out", &[&format!("data.fields={fields}")]).fails(2, &parts);
        assert!(!place.path("out").exists(), "{fields} left a folder behind");
    }
    let fields = "prompt=asked,completion=said";
    let ran = place.train("out", &[&format!("data.fields={fields}")]).ok();
    let read = format!("train      {file}: 48 records (prompt_completion), 48 documents, ");
    assert!(ran.stderr.lines().any(|line| line.starts_with(&read)), "{}", ran.stderr);
    assert!(place.result("out") == place.result("usual"), "what is trained is the same");
    let other = ["data.fields=prompt=said,completion=asked"];
    place.resume_with("out", &other).fails(2, &["data.fields is", "cannot become", "another folder"]);

    let eval =
        |model: &str, name: &str, more: &str| line(&format!("eval {model} --json --data {} {more}", place.text(name)));
    let (model, run) = (format!("--model {}", place.text("model")), format!("--run {}", place.text("out")));
    let named = format!("--fields {fields}");
    let expected = eval(&model, "usual.jsonl", "").ok().json();
    assert_eq!(eval(&model, "train.jsonl", &named).ok().json(), expected);
    let ran = eval(&model, "usual.jsonl", &named).fails(2, &["usual.jsonl: no record has a field `asked`"]);
    assert!(ran.stderr.contains("`question`"), "{}", ran.stderr);
    // A run's own hold where none are given, and where a file has them.
    let of_run = eval(&run, "train.jsonl", "").ok().json();
    assert_eq!(eval(&run, "usual.jsonl", "").ok().json(), of_run);

    let warning = "no record has a field `asked`";
    let ran = scan(&place, &format!("--data {file} {named}")).ok();
    assert!(!ran.stderr.contains(warning), "{}", ran.stderr);
    let ran = scan(&place, &format!("--data {} {named}", place.text("usual.jsonl"))).ok();
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
}

#[test]
fn several_files_train_as_if_they_were_one_and_each_is_read_and_named_on_its_own() {
    let place = Place::new();
    divide(&place);
    let files = both(&place, "math.jsonl", "more.jsonl");
    let ran = place.train("two", &[&files]).ok();
    for (name, count) in [("math.jsonl", 20), ("more.jsonl", 28)] {
        let read = format!("train      {}: {count} records (question_answer), {count} documents, ", place.text(name));
        assert!(ran.stderr.lines().any(|line| line.starts_with(&read)), "{read}\n{}", ran.stderr);
    }
    place.train("one", &[]).ok();
    assert!(place.result("two") == place.result("one"), "what is trained is the same");
    assert!(place.json("two/summary.json")["shares"].is_null());

    place.write("old.txt", &stones(0..20));
    let ran = place.train("mixed", &[&both(&place, "train.jsonl", "old.txt"), "run.steps=1"]).ok();
    assert!(ran.stderr.contains(&format!("train      {}: 1 record (text), ", place.text("old.txt"))), "{}", ran.stderr);
    assert_eq!(place.json("mixed/summary.json")["records"], "question_answer, text");

    let more = fs::read_to_string(place.path("more.jsonl")).unwrap();
    let (first, rest) = more.split_once('\n').unwrap();
    place.write("more.jsonl", &format!("{first}\n{{\n{rest}"));
    let line = format!("{}, line 2: not a JSON object", place.text("more.jsonl"));
    let ran = place.train("refused", &[&files]).fails(2, &["while reading [data] train", &line]);
    assert!(!ran.stderr.contains("math.jsonl, line"), "{}", ran.stderr);
    let twice = both(&place, "math.jsonl", "math.jsonl");
    place.train("refused", &[&twice]).fails(2, &["[data] train: ", "math.jsonl is in the list twice"]);
    let again = both(&place, "math.jsonl", "./math.jsonl");
    place.train("refused", &[&again]).fails(2, &["data.train: ", "math.jsonl are one file: leave one out"]);
    assert!(!place.path("refused").exists());
}

#[test]
fn several_files_on_the_command_line_name_the_run_and_the_end_of_each_is_held_out() {
    let place = Place::new();
    divide(&place);
    let data = "--model model --data math.jsonl --data more.jsonl";
    let ran = temper_in(&place, &format!("train {data}")).ok();
    let held_out =
        "target     held out: the last 2 of 20 documents of math.jsonl, the last 3 of 28 documents of more.jsonl, ";
    assert!(ran.stderr.contains(held_out), "{}", ran.stderr);
    let run = "runs/model-math+more";
    let config = fs::read_to_string(place.path(run).join("config.toml")).unwrap();
    assert!(config.lines().any(|line| line == "train = [\"math.jsonl\", \"more.jsonl\"]"), "{config}");
    let answers = |name: &str, records: std::ops::Range<usize>| -> usize {
        let text = fs::read_to_string(place.path(name)).unwrap();
        text.lines().skip(records.start).take(records.len()).map(answer).sum()
    };
    let measured =
        |out: &str| place.json(&format!("{out}/summary.json"))["retention"]["before"]["target"]["tokens"].clone();
    assert_eq!(measured(run), answers("math.jsonl", 18..20) + answers("more.jsonl", 25..28));
    // Of what is held out the beginning of each file's part.
    temper_in(&place, &format!("train {data} --set data.measured_tokens=60 --set run.steps=1 --out few")).ok();
    assert_eq!(measured("few"), answers("math.jsonl", 18..19) + answers("more.jsonl", 25..26));

    temper_in(&place, &format!("init {data} two.toml")).ok();
    temper_in(&place, "train two.toml --out by-file").ok();
    assert!(place.result("by-file") == place.result(run), "both ways to begin are one");
    temper_in(&place, "init --data math.jsonl --data math.jsonl twice.toml").fails(2, &["is in the list twice"]);
    #[cfg(target_os = "linux")]
    {
        let train = "train --model model --data math.jsonl --data - --out piped < more.jsonl";
        let script = format!("cd {}; exec \"$0\" --device cpu {train}", place.text("."));
        let ran = Command::new("bash").args(["-c", &script, env!("CARGO_BIN_EXE_temper")]).output().unwrap();
        Ran::of(ran).ok();
        assert!(place.result("piped") == place.result(run), "one of several files may come through a pipe");
    }
}

#[test]
fn several_files_are_trained_on_in_their_shares_and_what_is_left_out_is_said() {
    let place = Place::new();
    place.write("old.txt", &stones(0..90));
    let files = both(&place, "train.jsonl", "old.txt");
    let set = [&*files, "data.shares=[4, 1]", "data.cutoff_length=32"];
    let ran = place.train("out", &set).ok();
    let summary = place.json("out/summary.json");
    let [train, old] = &summary["shares"].as_array().unwrap()[..] else { panic!("{summary}") };
    assert_eq!([&train["documents"], &train["left_out_documents"]], [48, 0]);
    // To within a document of 32 tokens.
    let share = old["share"].as_f64().unwrap();
    assert!((0.199..0.24).contains(&share) && old["left_out_documents"].as_u64().unwrap() > 100, "{old}");
    let [all, some] = ["train.jsonl", "old.txt"].map(|name| {
        let begin = format!("shares     {}: ", place.text(name));
        let said = ran.stderr.lines().find(|line| line.starts_with(&begin));
        said.unwrap_or_else(|| panic!("{begin} is not in {}", ran.stderr))
    });
    assert!(all.ends_with(" % of the trained tokens, all of 48 documents"), "{all}");
    assert!(some.contains(" of 152 documents; ") && some.ends_with(" trained tokens) are left out"), "{some}");
    assert!(fs::read_to_string(place.path("out/report.html")).unwrap().contains("Shares of trained tokens"));

    let held = [&set[..], &["data.hold_out=0.25", "run.steps=1"]].concat();
    let ran = place.train("held", &held).ok();
    let ends = format!(
        "target     held out: the last 12 of 48 documents of {}, the last 2 of 152 documents of {}, ",
        place.text("train.jsonl"),
        place.text("old.txt")
    );
    assert!(ran.stderr.contains(&ends), "in their shares: {}", ran.stderr);

    // Replay is mixed into what the files give together.
    place.write("replay.txt", &"It snowed all day, and in the evening the lake had a roof.\n".repeat(40));
    let replay = format!("data.replay={}", place.text("replay.txt"));
    let ran = place.train("replayed", &[&set[..], &[&*replay, "run.steps=1"]].concat()).ok();
    assert!(ran.stderr.contains("are mixed in: 1"), "{}", ran.stderr);

    let result = place.result("out");
    place.resume("out").ok();
    assert!(place.result("out") == result);
    let named = |name: &str| format!("data.train {}: gives other training data", place.text(name));
    for (changed, other) in [("train.jsonl", "old.txt"), ("old.txt", "train.jsonl")] {
        let own = fs::read_to_string(place.path(changed)).unwrap();
        let record = json!({"question": "What is 2 plus 2?", "answer": "4."}).to_string();
        place.write(changed, &format!("{own}{record}\n"));
        let ran = place.resume("out").fails(2, &[&named(changed), "restore that to go on"]);
        assert!(!ran.stderr.contains(&named(other)), "{other} did not change:\n{}", ran.stderr);
        place.write(changed, &own);
    }
}

#[test]
fn shares_that_are_none_or_not_one_for_each_of_several_files_are_refused() {
    let place = Place::new();
    place.write("old.txt", &stones(0..9));
    let files = both(&place, "train.jsonl", "old.txt");
    for (shares, words) in [
        ("data.shares=[1]", "1 share for the 2 files of data.train: give one for each"),
        ("data.shares=[1, 2, 3]", "3 shares for the 2 files of data.train"),
        ("data.shares=[1, -1]", "is not a list of numbers above 0"),
        ("data.shares=[1, 0]", "is not a list of numbers above 0"),
    ] {
        place.train("refused", &[&files, shares]).fails(2, &["--set data.shares: [data] shares: ", words]);
    }
    place.train("refused", &["data.shares=[1]"]).fails(2, &["is about several files, and data.train is one"]);
    assert!(!place.path("refused").exists());
}

#[test]
fn a_run_is_used_with_the_model_that_it_was_trained_on_or_not_at_all() {
    let place = Place::new();
    place.train("out", &["run.steps=1"]).ok();
    place.train("whole", &["run.steps=1", "adapter.kind=none"]).ok();
    let (run, text) = (place.text("out"), place.text("general.txt"));
    let used = [
        format!("eval --run {run} --text {text}"),
        format!("generate --run {run} --prompt Rain --max-tokens 1"),
        format!("export --run {run} {}", place.text("merged")),
    ];
    line(&used[0]).ok();
    // Another model with the same description.
    let file = place.path("model/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    for used in &used {
        line(used).fails(2, &["is not the model that this run's adapter was trained on", "digest"]);
        let at_step = line(&used.replace("--run", "--step 1 --run"));
        at_step.fails(2, &["is not the model that this run's adapter was trained on", "digest", "restore that one"]);
    }
    assert!(!place.path("merged").exists());
    let whole = format!("--run {} --text {text}", place.text("whole"));
    line(&format!("eval {whole}")).ok();
    line(&format!("eval --step 1 {whole}")).fails(2, &["is not the model that this run began with", "digest"]);
    fs::rename(place.path("model"), place.path("moved")).unwrap();
    line(&used[0]).fails(2, &["it is the model of the run", "model.path"]);
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_models_folder_is_refused_before_the_training_that_would_copy_it() {
    let place = Place::new();
    place.write("secret.json", "{}");
    std::os::unix::fs::symlink(place.path("secret.json"), place.path("model/generation_config.json")).unwrap();
    place.train("out", &["run.steps=1", "adapter.kind=none"]).fails(2, &["generation_config.json", "a link out of"]);
    assert!(!place.path("out").exists());
    line(&format!("export --model {} {}", place.text("model"), place.text("x"))).fails(2, &["a link out of"]);
    place.train("out", &["run.steps=1"]).ok();
}

// Memory.

#[test]
fn the_summary_says_where_the_memory_goes() {
    let place = Place::new();
    let planned = |out: &str, set: &[&str]| {
        place.train(out, &[set, &["run.steps=2", "data.general="]].concat()).ok();
        let memory = place.json(&format!("{out}/summary.json"))["memory"].clone();
        let of = |kind: &str| memory["planned_bytes"][kind].as_u64().unwrap_or_else(|| panic!("{kind} in {memory}"));
        let kinds = ["weights", "gradients", "optimiser_moments", "activations", "head_logits", "scratch"];
        assert_eq!(of("total"), kinds.iter().map(|kind| of(kind)).sum::<u64>(), "{memory}");
        assert_eq!(memory["planned_peak_bytes"], of("total"));
        (kinds.map(of), memory)
    };
    let parameters = 4 * place_parameters(&place);
    let (full, memory) = planned("full", &["adapter.kind=none"]);
    assert_eq!([full[0], full[2]], [parameters, 2 * parameters]);
    let (lora, _) = planned("lora", &[]);
    let adapter = 4 * place.json("lora/summary.json")["started"]["trainable"].as_u64().unwrap();
    assert_eq!([lora[0], lora[2]], [parameters + adapter, 2 * adapter]);
    assert!(full[3] > 0 && full[5] > 0);
    if cfg!(target_os = "linux") {
        let stages = ["after_loading", "after_first_step", "after_training", "after_saving", "at_end"];
        let peaks = stages.map(|stage| memory["measured_peak_resident_bytes"][stage].as_u64().unwrap());
        assert!(peaks[0] > 0 && peaks.is_sorted(), "{memory}");
        assert_eq!(memory["other_bytes"], peaks[4].saturating_sub(memory["planned_bytes"]["total"].as_u64().unwrap()));
        assert!(memory["peak_bytes"].as_u64().unwrap() < peaks[3], "{memory}");
    }
}

/// A configuration of a model of random weights, 8 to 12 million parameters, on three full windows of 256 tokens.
#[cfg(target_os = "linux")]
fn write_sized(place: &Place, name: &str, architecture: &str, more: &str) {
    let text = format!(
        "[model]\npath = \"embedded:base\"\ninit = \"random\"\narchitecture = {{ model_type = \"llama\", {architecture}, \
         max_position_embeddings = 256 }}\n[data]\ntrain = {:?}\ncutoff_length = 256\n[run]\nsteps = 3\n\
         batch_tokens = 256\n{more}",
        place.text("long.txt"),
    );
    place.write(name, &text);
}

/// The plan against what the system counts, for each way in which a run can hold memory. Every large block gets pages of its
/// own here, so that what is compared is what the run asks for: between its usual blocks glibc's allocator leaves gaps, which
/// were up to 7 % more where blocks run twice. What is left are small blocks and the threads' stacks.
#[cfg(target_os = "linux")]
#[test]
fn what_was_planned_is_what_a_run_holds_within_six_percent() {
    const TOLERANCE: f64 = 0.06;
    let place = Place::new();
    let line = "It rained all night, and in the morning the river had left its bed and stood in the lower fields.\n";
    // As many tokens as three windows have, and a little more.
    place.write("long.txt", &line.repeat(24));
    let deep = "vocab_size = 2048, hidden_size = 384, intermediate_size = 1152, num_hidden_layers = 6, \
                num_attention_heads = 6, num_key_value_heads = 6, tie_word_embeddings = true";
    let wide = "vocab_size = 8192, hidden_size = 256, intermediate_size = 512, num_hidden_layers = 8, \
                num_attention_heads = 8, num_key_value_heads = 2, tie_word_embeddings = false";
    write_sized(&place, "deep.toml", deep, "accumulation = 1\n");
    write_sized(&place, "wide.toml", wide, "accumulation = 1\n");
    let run = |out: &str, config: &str, set: &[&str]| {
        let mut args = vec!["train".to_string(), place.text(config), "--out".into(), place.text(out)];
        set.iter().for_each(|set| args.extend(["--set".into(), (*set).to_string()]));
        let ran = program().args(args).env("MALLOC_MMAP_THRESHOLD_", "1048576").output().expect("the program starts");
        let ran = Ran::of(ran).ok();
        assert!(ran.stderr.contains("plan       peak ") && ran.stderr.contains(" a step, "), "{}", ran.stderr);
        let memory = place.json(&format!("{out}/summary.json"))["memory"].clone();
        let of = |key: &str| memory[key].as_u64().unwrap_or_else(|| panic!("{key} in {memory}")) as f64;
        let (planned, measured) = (of("planned_peak_bytes"), of("peak_bytes"));
        assert!(measured > 40e6, "{out} is too small to say anything: {memory}");
        let off = planned / measured - 1.0;
        assert!(off.abs() < TOLERANCE, "{out}: planned {planned}, measured {measured}: {off:+.3}\n{memory}");
        planned
    };
    let kept = run("full", "deep.toml", &[]);
    let again = run("again", "deep.toml", &["run.recompute=always"]);
    assert!(again <= kept);
    run("accumulated", "deep.toml", &["run.accumulation=3"]);
    run("untied", "wide.toml", &[]);
    run("unclipped", "wide.toml", &["optim.max_grad_norm=0"]);
    let twice = ["run.storage=bf16", "run.moments=8bit", "optim.clipping=twice"];
    let compact = run("compact", "deep.toml", &twice);
    assert!(compact < 0.5 * kept, "{compact} of {kept}");
    run("compact-untied", "wide.toml", &[&twice[..], &["run.recompute=always", "run.accumulation=2"]].concat());
    run("compensated", "deep.toml", &["run.storage=bf16_compensated", "optim.clipping=last_norm"]);
    let text = format!(
        "[model]\npath = {:?}\n[data]\ntrain = {:?}\ncutoff_length = 256\n[run]\nsteps = 3\nbatch_tokens = 256\naccumulation = 1\n",
        place.text("full/model"),
        place.text("long.txt"),
    );
    place.write("lora.toml", &text);
    let adapted = run("lora", "lora.toml", &[]);
    run("dropped", "lora.toml", &["adapter.dropout=0.1", "run.recompute=always"]);
    assert!(adapted < kept);
}

#[test]
fn a_plan_says_what_a_run_would_hold_and_take_and_loads_nothing() {
    let place = Place::new();
    let plan = |more: &str| line(&format!("plan {} {more}", place.text("run.toml")));
    let found = plan("--json").ok().json();
    assert_eq!(found["fits"], true, "{found}");
    assert_eq!(found["peak_bytes"], found["device_bytes"]);
    assert_eq!((&found["host_bytes"], &found["steps"]), (&json!(0), &json!(10)));
    assert_eq!(found["advice"], json!([]));
    let time_of =
        |found: &Value| ["seconds_per_step", "measuring_seconds", "seconds"].map(|name| found[name].as_f64().unwrap());
    // The speed is measured anew each time, so that only what is counted by it can be compared.
    let share_of_measuring = |found: &Value| {
        let [step, measuring, all] = time_of(found);
        assert!(step > 0.0 && (all - 10.0 * step - measuring).abs() < 1e-9 * all, "{found}");
        measuring / step
    };
    let (few, more) =
        (share_of_measuring(&found), share_of_measuring(&plan("--json --set run.eval_every=1").ok().json()));
    assert!(few > 0.0 && more > 2.0 * few, "measured twice {few} steps, eleven times {more}");
    let [step, measuring, all] = time_of(&plan("--json --set run.baseline=sft").ok().json());
    assert!((all - 20.0 * step - measuring).abs() < 1e-9 * all && measuring > 1.4 * few * step, "the baseline's too");
    let moments: Vec<&str> =
        found["moments"].as_array().unwrap().iter().map(|m| m["moment"].as_str().unwrap()).collect();
    let all = ["loading", "loaded", "evaluation", "forward", "head", "backward", "step", "saving"];
    assert_eq!(moments, all);
    let most = found["moments"].as_array().unwrap().iter().map(|m| m["device_bytes"].as_u64().unwrap()).max();
    assert_eq!(most, found["peak_bytes"].as_u64());
    for moment in found["moments"].as_array().unwrap() {
        let kinds = moment["device"].as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap());
        assert_eq!(kinds.sum::<u64>(), moment["device_bytes"].as_u64().unwrap(), "{moment}");
    }
    // The run itself plans the same.
    place.train("out", &[]).ok();
    assert_eq!(place.json("out/summary.json")["memory"]["planned_peak_bytes"], found["peak_bytes"]);

    let text = plan("").ok().stdout;
    for part in ["weights", "backward", "plan       peak ", "fits       yes", "GFLOP/s"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // Weights that are cut short are not noticed, since they are not read.
    let weights = fs::read(place.path("model/model.safetensors")).unwrap();
    let mut cut = weights.clone();
    cut[weights.len() - 100..].fill(0xff);
    fs::write(place.path("model/model.safetensors"), cut).unwrap();
    plan("").ok();
    assert!(!place.path("runs").exists());
    assert_eq!(plan("--device-memory 8").code, Some(2));
}

/// What the description of these settings promises: 1.7 billion parameters, trained whole, in 10 GiB.
#[test]
fn a_model_of_1_7_billion_parameters_is_planned_to_be_trained_whole_in_ten_gib() {
    let place = Place::new();
    let architecture = "architecture = { model_type = \"qwen3\", vocab_size = 151936, hidden_size = 2048, \
                        intermediate_size = 6144, num_hidden_layers = 28, num_attention_heads = 16, \
                        num_key_value_heads = 8, head_dim = 128, max_position_embeddings = 4096, \
                        tie_word_embeddings = true }";
    let text = format!(
        "[model]\npath = \"embedded:base\"\ninit = \"random\"\n{architecture}\n[data]\ntrain = {:?}\n\
         cutoff_length = 512\n[run]\nsteps = 3\nbatch_tokens = 512\naccumulation = 1\n",
        place.text("train.jsonl"),
    );
    place.write("large.toml", &text);
    let peak = |set: &str| {
        let plan = line(&format!("plan {} --json --device cpu {set}", place.text("large.toml"))).ok().json();
        plan["peak_bytes"].as_u64().unwrap() as f64 / f64::from(1 << 30)
    };
    let small =
        peak("--set run.storage=bf16 --set run.moments=8bit --set optim.clipping=twice --set run.recompute=always");
    assert!(peak("") > 25.0 && small < 9.5, "{small} GiB");
    // Each of these is proposed where memory lacks.
    let lacking =
        line(&format!("plan {} --json --device cpu --device-memory 12GiB", place.text("large.toml"))).ok().json();
    for setting in ["optim.clipping=twice", "run.storage=bf16", "run.moments=8bit"] {
        let proposed = lacking["advice"].as_array().unwrap().iter().any(|change| change["set"] == json!([setting]));
        assert!(proposed, "{setting} in {}", lacking["advice"]);
    }
}

#[test]
fn a_plan_that_does_not_fit_names_changes_that_do_with_their_peaks() {
    let place = Place::new();
    let plan = |set: &str, memory: &str| {
        line(&format!("plan {} --json --device-memory {memory} {set}", place.text("run.toml"))).ok().json()
    };
    // More tokens at once than an evaluation has, so that the way back is what holds most.
    let full = "--set adapter.kind=none --set data.general= --set data.target= --set run.batch_tokens=2048 \
                --set run.accumulation=1 --set run.recompute=never";
    let whole = plan(full, "1TiB");
    assert_eq!(whole["fits"], true);
    let peak = whole["peak_bytes"].as_u64().unwrap();
    let found = plan(full, &format!("{}B", peak - 1));
    assert_eq!(found["fits"], false, "{found}");
    let advice = found["advice"].as_array().unwrap();
    assert!(!advice.is_empty(), "{found}");
    assert!(advice.iter().any(|change| change["fits"] == true), "{found}");
    for change in advice {
        // Each is what a plan with it says.
        let set: String =
            change["set"].as_array().unwrap().iter().map(|s| format!(" --set {}", s.as_str().unwrap())).collect();
        let again = plan(&format!("{full}{set}"), &format!("{}B", peak - 1));
        assert_eq!(again["peak_bytes"], change["peak_bytes"], "{change}");
        assert_eq!(again["fits"], change["fits"], "{change}");
        assert!(change["peak_bytes"].as_u64().unwrap() < peak);
    }
    let found = plan(full, "1KiB");
    assert!(found["advice"].as_array().unwrap().iter().all(|change| change["fits"] == false), "{found}");
}

#[test]
fn what_needs_less_is_proposed_by_what_it_costs_and_a_plan_with_it_needs_as_much_as_was_said() {
    let place = Place::new();
    let line_of_text = "It rained all night, and in the morning the river had left its bed.\n";
    let record =
        |n: usize| json!({"question": format!("Tell story {n}."), "answer": line_of_text.repeat(3)}).to_string() + "\n";
    place.write("train.jsonl", &(0..20).map(record).collect::<String>());
    place.write("general.txt", &line_of_text.repeat(40));
    let shared = "--set adapter.rank=64 --set adapter.alpha=128 --set run.batch_tokens=256 --set run.accumulation=1";
    let plan = |more: &str| {
        let configuration = place.text("run.toml");
        line(&format!("plan {configuration} --json --device-memory 1KiB {shared} {more}")).ok().json()
    };
    let (less, narrower) = ("data.measured_tokens", "adapter.rank=1");
    // How many tokens depends on the machine, whose threads have scratch of their own.
    fn named(set: &str) -> &str {
        if set.starts_with("data.measured_tokens=") { "data.measured_tokens" } else { set }
    }
    for (sets, proposed, changed) in [
        // What is measured holds most.
        ("", &[less, "run.storage=q4_0", "run.moments=8bit", narrower][..], &[less, narrower][..]),
        // The way back does.
        (
            "--set data.target= --set data.general=",
            &[
                "optim.clipping=twice",
                "run.batch_tokens=128",
                "run.storage=q4_0",
                "run.moments=8bit",
                narrower,
                "data.cutoff_length=64",
            ],
            &["data.cutoff_length=64"],
        ),
    ] {
        let found = plan(sets);
        let advice = found["advice"].as_array().unwrap();
        let first: Vec<&str> = advice.iter().map(|change| named(change["set"][0].as_str().unwrap())).collect();
        // The last one is all of them together.
        assert_eq!(first[..first.len() - 1], *proposed, "{found}");
        for change in advice.iter().filter(|change| changed.contains(&named(change["set"][0].as_str().unwrap()))) {
            let set = change["set"].as_array().unwrap();
            let set: String = set.iter().map(|set| format!(" --set {}", set.as_str().unwrap())).collect();
            assert_eq!(plan(&format!("{sets}{set}"))["peak_bytes"], change["peak_bytes"], "{change}");
            assert!(change["peak_bytes"].as_u64() < found["peak_bytes"].as_u64(), "{change}");
        }
        let narrow = advice.iter().find(|change| change["set"] == json!([narrower, "adapter.alpha=2"])).unwrap();
        assert_eq!(narrow["cost"], "trains fewer values");
    }
}

#[test]
fn what_is_planned_to_fit_is_trained_and_what_cannot_be_trained_is_not_planned() {
    let place = Place::new();
    let plan = |set: &str| line(&format!("plan {} --json {set}", place.text("run.toml")));
    // What is measured takes most, and a step less than the configuration allows.
    let set = ["run.batch_tokens=4096", "run.steps=1"];
    let sets = set.map(|set| format!("--set {set}")).join(" ");
    let least = plan(&format!("{sets} --device-memory 1KiB")).ok().json();
    assert_eq!((&least["fits"], &least["execution"]["resident"]), (&json!(false), &json!(0)));
    let least = least["peak_bytes"].as_u64().unwrap();
    for more in [0, 20_000, 100_000] {
        let budget = format!("{}B", least + more);
        let found = plan(&format!("{sets} --device-memory {budget}")).ok().json();
        assert_eq!(found["fits"], true, "{more} bytes above the least: {found}");
        let budget = format!("run.device_memory={budget}");
        place.train(&format!("out-{more}"), &[set[0], set[1], &budget]).ok();
    }
    plan("--set adapter.targets=gate_up_proj").fails(2, &["no module \"gate_up_proj\"; it has q_proj, "]);
    plan("--set adapter.kind=none --set run.storage=q8_0").fails(2, &["only frozen weights can be held in q8_0"]);
}

fn place_parameters(place: &Place) -> u64 {
    let tensors = read_tensors(&place.path("model/model.safetensors"));
    tensors.values().map(|(_, shape, _)| shape.iter().product::<usize>() as u64).sum()
}

/// A model of 12 million parameters, so that its weights stand out from the program's own memory: with gradients and
/// moments 200 MB. Checkpoints and the model are written tensor by tensor; copies of all of them would take 150 MB, and the
/// files in memory another 150.
#[cfg(target_os = "linux")]
#[test]
fn saving_makes_no_second_copy_of_weights_and_moments() {
    let place = Place::new();
    let architecture = "{ model_type = \"llama\", vocab_size = 2048, hidden_size = 384, intermediate_size = 1152, \
                        num_hidden_layers = 6, num_attention_heads = 6, num_key_value_heads = 6, \
                        max_position_embeddings = 128, tie_word_embeddings = true, eos_token_id = 0 }";
    let text = format!(
        "[model]\npath = \"embedded:base\"\ninit = \"random\"\narchitecture = {architecture}\n[data]\ntrain = {:?}\n\
         cutoff_length = 128\n[run]\nsteps = 3\nbatch_tokens = 128\naccumulation = 1\nsave_every = 2\n",
        place.text("train.jsonl"),
    );
    place.write("run.toml", &text);
    place.train("out", &[]).ok();
    let memory = &place.json("out/summary.json")["memory"];
    let planned = memory["planned_bytes"]["total"].as_u64().unwrap();
    let other = memory["other_bytes"].as_u64().unwrap();
    assert!(planned > 170_000_000 && other < 120_000_000, "{memory}");
}

#[test]
fn wrong_labels_are_measured_beside_what_is_learned_and_what_is_kept() {
    let place = Place::new();
    place.write("wrong.jsonl", "{\"question\": \"What is 1 plus 1?\", \"answer\": \"1 plus 1 is 3.\"}\n");
    let ran = place.train("out", &["run.steps=3", &format!("data.wrong={}", place.text("wrong.jsonl"))]).ok();
    assert!(
        ran.stderr.contains("before     target perplexity") && ran.stderr.contains(" wrong perplexity "),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains("wrong"), "{}", ran.stdout);
    let retention = &place.json("out/summary.json")["retention"];
    let [before, after] = ["before", "after"].map(|when| retention[when]["wrong"]["loss"].as_f64().unwrap());
    assert!(before.is_finite() && after.is_finite() && before != after, "{retention}");
    let report = fs::read_to_string(place.path("out/report.html")).unwrap();
    assert!(report.contains("wrong loss (nats/token)"));
}

// Comparisons.

#[test]
fn a_comparison_trains_each_combination_once_says_who_forgot_less_and_only_adds_what_is_new() {
    let place = Place::new();
    place.configure("steps = 6\n");
    let run = |more: &str| {
        let vary = "--vary objective.method=sft,eaft";
        line(&format!("compare {} {vary} --out {} {more}", place.text("run.toml"), place.text("all")))
    };
    let ran = run("--vary run.seed=1,2,3").ok();
    for said in ["the lowest target loss that both reached", "3 seeds", "report.html"] {
        assert!(ran.stdout.contains(said), "{said:?} in:\n{}", ran.stdout);
    }
    let made_of = ["compare.toml", "comparison.json", "files.json"];
    let reported = ["frontier.svg", "logs", "paths.csv", "report.html", "report.md", "runs"];
    assert_eq!(place.names("all"), [&made_of[..], &reported].concat());
    let runs = ["eaft_seed-1", "eaft_seed-2", "eaft_seed-3", "sft_seed-1", "sft_seed-2", "sft_seed-3"];
    assert_eq!(place.names("all/runs"), runs);
    // Each is the run that `temper train` makes.
    place.train("alone", &["objective.method=sft", "run.seed=2", "run.eval_every=1"]).ok();
    assert!(place.result("alone") == place.result("all/runs/sft_seed-2"));
    let found = place.json("all/comparison.json");
    let history = place.json("alone/evaluations.json")["history"].clone();
    let path = found["runs"].as_array().unwrap().iter().find(|run| run["run"] == "sft_seed-2").unwrap();
    let losses =
        |points: &Value, of: fn(&Value) -> [Value; 2]| points.as_array().unwrap().iter().map(of).collect::<Vec<_>>();
    assert_eq!(
        losses(&path["path"]["points"], |p| [p["learned"].clone(), p["kept"].clone()]),
        losses(&history, |e| [e["target"]["loss"].clone(), e["general"]["loss"].clone()])
    );
    let difference = &found["differences"][0]["at"][0];
    assert!(difference["learned"].as_f64() < found["start"]["learned"].as_f64(), "{difference}");
    assert_eq!(difference["each"].as_array().unwrap().len(), 3);
    let [low, high] = [0, 1].map(|end| difference["interval"][end].as_f64().unwrap());
    let claim = match low > 0.0 || high < 0.0 {
        true => "\neaft forgot ",
        false => "\nBetween eaft and sft there is no difference that 3 seeds can show: at ",
    };
    assert!(ran.stdout.contains(claim), "{claim:?} in:\n{}", ran.stdout);

    let summary = fs::metadata(place.path("all/runs/sft_seed-1/summary.json")).unwrap().modified().unwrap();
    run("--vary run.seed=1,4").ok();
    assert_eq!(place.names("all/runs").len(), 8, "two are new");
    assert_eq!(fs::metadata(place.path("all/runs/sft_seed-1/summary.json")).unwrap().modified().unwrap(), summary);
    run("--vary run.seed=1 --set optim.learning_rate=1e-3").fails(2, &["all", "share other settings"]);
    run("--vary run.seed=1,x").fails(2, &["sft_seed-x", "run.seed"]);
    let dry = run("--vary run.seed=1,2 --dry-run").ok();
    assert_eq!(dry.stdout.lines().count(), 4);
    assert!(dry.stdout.contains("eaft_seed-2 --set objective.method=eaft --set run.seed=2"), "{}", dry.stdout);
}

#[test]
fn a_comparison_of_epochs_measures_on_the_way_and_mixes_no_files() {
    let place = Place::new();
    let text = fs::read_to_string(place.path("run.toml")).unwrap().replace("steps = 10\n", "epochs = 2\n");
    place.write("run.toml", &text);
    let run = |seeds: &str| {
        let vary = format!("--vary objective.method=sft,eaft --vary run.seed={seeds}");
        line(&format!("compare {} {vary} --out {}", place.text("run.toml"), place.text("all")))
    };
    run("1").ok();
    let found = place.json("all/comparison.json");
    let points = found["runs"][0]["path"]["points"].as_array().unwrap().len();
    let steps = place.json("all/runs/sft_seed-1/summary.json")["finished"]["step"].as_u64().unwrap();
    assert!(points >= 8.min(steps as usize) && points > 3, "{points} points of {steps} steps");
    let report = fs::read_to_string(place.path("all/report.md")).unwrap();
    assert!(report.contains("after each of 8 equal parts"), "{report}");
    // The same command over other files would put old and new runs side by side, also of a version that wrote no digests.
    place.write("general.txt", "Nothing is as it was, and the river has another bed.\n");
    fs::remove_file(place.path("all/files.json")).unwrap();
    run("1,2").fails(2, &["sft_seed-2", "began with another general than", "sft_seed-1"]);
}

#[test]
fn where_labels_are_wrong_a_comparison_asks_what_is_left_of_the_truth() {
    let place = Place::new();
    place.configure("steps = 6\n");
    place.write("wrong.jsonl", "{\"question\": \"What is 1 plus 1?\", \"answer\": \"1 plus 1 is 3.\"}\n");
    let set = format!("--set data.wrong={} --vary objective.method=sft,eaft", place.text("wrong.jsonl"));
    let ran = line(&format!("compare {} {set} --out {}", place.text("run.toml"), place.text("all"))).ok();
    assert!(ran.stdout.contains("the lowest loss on the wrong labels that both reached"), "{}", ran.stdout);
    let claim = "Between eaft and sft there is no difference that 1 seed can show: at ";
    assert!(ran.stdout.contains(claim) && ran.stdout.contains(", loss on the truth "), "{}", ran.stdout);
    let found = place.json("all/comparison.json");
    let history = place.json("all/runs/sft/evaluations.json")["history"].clone();
    let (point, last) = (&found["runs"][0]["path"]["points"], history.as_array().unwrap().last().unwrap());
    let point = point.as_array().unwrap().last().unwrap();
    assert_eq!([&point["learned"], &point["kept"]], [&last["wrong"]["loss"], &last["target"]["loss"]]);
    let report = fs::read_to_string(place.path("all/report.html")).unwrap();
    assert!(report.contains("Which keeps more of the truth where as much of the wrong was learned?"));
}

#[test]
fn what_is_asked_for_in_vain_is_refused_before_anything_is_trained() {
    let place = Place::new();
    for more in ["", "--dry-run"] {
        let (run, out) = (place.text("run.toml"), place.text("all"));
        line(&format!("compare {run} --vary run.seed=1,2 --set data.target= --out {out} {more}"))
            .fails(2, &["nothing could be compared", "data.target (or data.hold_out)", "data.general"]);
        assert!(!place.path("all").exists());
    }
    for (set, part) in [
        (&["objective.method=sft", "run.baseline=sft"][..], "the baseline is the same objective, sft"),
        (&["run.eval_every=2", "run.evaluations=3"], "run.evaluations: 3 is read where run.eval_every is 0"),
        (&["run.eval_every=2", "data.target=", "data.general="], "run.eval_every: is about what is measured"),
    ] {
        place.train("out", set).fails(2, &[part]);
        assert!(!place.path("out").exists());
    }
}

#[test]
fn a_comparison_reports_what_it_can_where_a_run_fails_and_names_the_run() {
    let place = Place::new();
    place.configure("steps = 3\n");
    fs::create_dir_all(place.path("all")).unwrap();
    let args = format!(
        "compare {} --vary data.train={},{} --out {}",
        place.text("run.toml"),
        place.text("train.jsonl"),
        place.text("nowhere.jsonl"),
        place.text("all")
    );
    let ran = line(&args).fails(1, &["1 of 2 runs failed", "nowhere.jsonl"]);
    assert!(ran.stdout.contains("report.html"), "{}", ran.stdout);
    assert_eq!(place.json("all/comparison.json")["runs"].as_array().unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_comparison_that_is_told_to_stop_goes_on_to_the_same_results() {
    let place = Place::new();
    let set = measured_long();
    let compare = |methods: &str, out: &str| {
        format!("compare {} --vary objective.method={methods} {set} --out {}", place.text("run.toml"), place.text(out))
    };
    let args = |out: &str| compare("sft,eaft", out);
    // One that is done before, behind the one that is stopped.
    line(&compare("eaft", "stopped")).ok();
    let start = |out: &str| {
        let mut child = program();
        child.args(args(out).split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let child = start("stopped");
    let metrics = place.path("stopped/runs/sft/metrics.jsonl");
    let begin = Instant::now();
    while fs::read(&metrics).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count()) < 30 {
        assert!(begin.elapsed() < Duration::from_secs(60), "the first run does not begin");
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let ran = wait(child);
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("go on with: the same command (done: 1 of 2 runs)"), "{}", ran.stderr);
    assert!(!place.path("stopped/runs/sft/summary.json").exists());
    line(&args("stopped")).ok();
    line(&args("whole")).ok();
    for run in ["runs/sft", "runs/eaft"] {
        assert!(place.result(&format!("stopped/{run}")) == place.result(&format!("whole/{run}")), "{run}");
    }
}

#[cfg(unix)]
#[test]
fn a_comparison_that_is_going_on_is_written_by_nobody_else() {
    let place = Place::new();
    let set = measured_long();
    let (configuration, out) = (place.text("run.toml"), place.text("all"));
    let arguments = format!("compare {configuration} --vary objective.method=sft,eaft {set} --out {out}");
    let mut first = program();
    first.args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut first = first.spawn().unwrap();
    let begin = Instant::now();
    while !place.path("all/runs/sft/metrics.jsonl").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the first run does not begin");
        assert_eq!(first.try_wait().unwrap(), None, "the comparison ended before it could be disturbed");
        sleep(Duration::from_millis(2));
    }
    let written = fs::read(place.path("all/files.json")).unwrap();
    let holder = format!("process {} is writing", first.id());
    line(&arguments).fails(2, &[&out, &holder]);
    assert_eq!(fs::read(place.path("all/files.json")).unwrap(), written);
    let (ran, _) = terminate(first);
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    // Its lock is gone with it.
    assert!(!place.names("all").contains(&".lock".to_string()));
}

#[test]
fn a_comparison_of_which_every_run_is_refused_leaves_the_folder_as_it_was() {
    let place = Place::new();
    place.configure("steps = 3\n");
    let compare = |vary: &str, out: &str| {
        line(&format!("compare {} --vary {vary} --out {}", place.text("run.toml"), place.text(out)))
    };
    let refused = |out: &str| {
        let ran = compare("adapter.rank=100000,100001", out);
        let ran = ran.fails(2, &["2 of 2 runs failed: eaft_rank-100000, eaft_rank-100001", "100000", "q_proj"]);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains(".log"), "{}\n{}", ran.stdout, ran.stderr);
    };
    refused("new/below/all");
    assert!(!place.path("new").exists());
    fs::create_dir(place.path("empty")).unwrap();
    refused("empty");
    assert_eq!(place.names("empty"), [""; 0]);
    // What another comparison left stays.
    compare("objective.method=sft", "all").ok();
    let (names, report) = (place.names("all"), fs::read(place.path("all/report.html")).unwrap());
    refused("all");
    assert_eq!((place.names("all"), fs::read(place.path("all/report.html")).unwrap()), (names, report));
    assert_eq!(place.names("all/runs"), ["sft"]);
}

#[test]
fn a_comparison_whose_files_changed_is_refused_with_the_setting_and_the_file_before_anything_is_trained_or_reported() {
    let place = Place::new();
    place.configure("steps = 3\n");
    let run = |seeds: &str| {
        let vary = format!("--vary objective.method=sft,eaft --vary run.seed={seeds}");
        line(&format!("compare {} {vary} --out {}", place.text("run.toml"), place.text("all")))
    };
    run("1").ok();
    let (tokenizer, longer) = ("model/tokenizer.json", byte_tokenizer(1));
    let changes = [
        ("train.jsonl", "data.train", place.text("train.jsonl"), "{\"question\": \"a\", \"answer\": \"b\"}\n"),
        ("target.jsonl", "data.target", place.text("target.jsonl"), "{\"question\": \"c\", \"answer\": \"d\"}\n"),
        ("general.txt", "data.general", place.text("general.txt"), "The river has another bed.\n"),
        (tokenizer, "model.path", place.text("model"), longer.as_str()),
    ];
    for (file, setting, path, other) in changes {
        let before = fs::read_to_string(place.path(file)).unwrap();
        place.write(file, other);
        for seeds in ["1", "1,2"] {
            let ran = run(seeds).fails(2, &[&format!("{setting} {path}: is not what it was when"), "sft_seed-1"]);
            assert!(ran.stdout.is_empty() && !ran.stderr.contains("seed-2"), "{}\n{}", ran.stdout, ran.stderr);
        }
        assert_eq!(place.names("all/runs"), ["eaft_seed-1", "sft_seed-1"], "nothing was trained");
        place.write(file, &before);
    }
    // Weights of the same size.
    let weights = place.path("model/model.safetensors");
    let before = fs::read(&weights).unwrap();
    let mut other = before.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&weights, other).unwrap();
    run("1").fails(2, &[&format!("model.path {}: is not what it was when", place.text("model"))]);
    fs::write(&weights, before).unwrap();
    assert!(run("1").ok().stdout.contains("report.html"));
    assert!(run("1,2").ok().stdout.contains("report.html"));
    // A file that was mended before any run began is no other.
    let before = fs::read_to_string(place.path("train.jsonl")).unwrap();
    place.write("train.jsonl", "{\n");
    let (set, out) = ("--vary objective.method=sft,eaft", place.text("mended"));
    let mended = || line(&format!("compare {} {set} --out {out}", place.text("run.toml")));
    mended().fails(2, &["2 of 2 runs failed: sft, eaft"]);
    place.write("train.jsonl", &before);
    mended().ok();
}

#[test]
fn a_comparison_refuses_before_it_trains_what_all_its_runs_would_refuse() {
    let place = Place::new();
    let compare = |more: &str| {
        let vary = "--vary objective.method=sft,eaft";
        line(&format!("compare {} {vary} --out {} {more}", place.text("run.toml"), place.text("all")))
    };
    let replay = format!("--set data.replay={}", place.text("general.txt"));
    for (set, parts) in [
        (
            "--set adapter.kind=none --set adapter.rank=9",
            &["--set adapter.rank: ", "9 is read with", "no run reads it"][..],
        ),
        ("--set objective.tau=1", &["--set objective.tau: ", "objective.method = \"talr\""]),
        (replay.as_str(), &["variant \"sft\": data.replay and data.general are one file"]),
    ] {
        compare(set).fails(2, parts);
        compare(&format!("{set} --dry-run")).fails(2, parts);
        assert!(!place.path("all").exists(), "{set} left a folder behind");
    }
    let varied = "--vary adapter.kind=lora,none --set adapter.rank=9 --dry-run";
    assert_eq!(compare(varied).ok().stdout.lines().count(), 4, "some of its runs read it");
}

// Runs that are interrupted.

/// Settings of a run that takes long enough to be interrupted.
const LONG: [&str; 4] = ["run.steps=240", "run.accumulation=4", "run.save_every=20", "data.general="];

/// The same for a comparison, which measures the general text.
fn measured_long() -> String {
    LONG.iter().filter(|set| **set != "data.general=").map(|set| format!("--set {set}")).collect::<Vec<_>>().join(" ")
}

fn with_long<'a>(more: &[&'a str]) -> Vec<&'a str> {
    LONG.into_iter().chain(more.iter().copied()).collect()
}

/// A run that is killed after so many steps and resumed (`killed`) leaves what the uninterrupted one (`whole`) left.
fn killed_it_goes_on_as_if_whole(place: &Place, set: &[&str], steps: usize) {
    let mut child = place.start("killed", set, steps);
    child.kill().unwrap();
    wait(child);
    assert!(!place.path("killed/summary.json").exists(), "it was killed before its end");
    let ran = place.resume("killed").ok();
    assert!(ran.stderr.contains("from step "), "{}", ran.stderr);
    assert!(place.result("killed") == place.result("whole"), "the resumed run differs from the uninterrupted one");
}

fn a_killed_run_goes_on_to_the_same_bits(more: &[&str]) {
    let place = Place::new();
    let set = with_long(more);
    place.train("whole", &set).ok();
    killed_it_goes_on_as_if_whole(&place, &set, 47);
    for tag in ["train/loss", "eval/general_loss"] {
        assert_eq!(place.told_tensorboard("killed", tag), place.told_tensorboard("whole", tag), "{tag}");
    }
    let (killed, whole) = (place.json("killed/summary.json"), place.json("whole/summary.json"));
    assert_eq!(killed["retention"], whole["retention"]);
    assert_eq!(killed["finished"]["tokens"], whole["finished"]["tokens"], "tokens of all steps");
}

#[test]
fn a_killed_run_with_an_adapter_and_dropout_goes_on_to_the_same_bits() {
    a_killed_run_goes_on_to_the_same_bits(&["adapter.dropout=0.2"]);
}

#[test]
fn a_killed_run_of_all_weights_goes_on_to_the_same_bits() {
    a_killed_run_goes_on_to_the_same_bits(&["adapter.kind=none", "optim.learning_rate=1e-3", "optim.weight_decay=0.1"]);
}

#[test]
fn a_killed_run_without_clipping_and_of_a_batch_objective_goes_on_to_the_same_bits() {
    a_killed_run_goes_on_to_the_same_bits(&[
        "optim.max_grad_norm=0",
        "run.accumulation=1",
        "run.batch_tokens=512",
        "objective.gate=hard",
    ]);
}

#[test]
fn a_killed_run_that_weighs_its_samples_goes_on_to_the_same_bits() {
    a_killed_run_goes_on_to_the_same_bits(&["objective.method=flow"]);
}

#[test]
fn a_killed_run_that_stays_near_the_untouched_model_goes_on_to_the_same_bits() {
    a_killed_run_goes_on_to_the_same_bits(&[
        "objective.method=sft_kl",
        "adapter.kind=none",
        "optim.learning_rate=1e-3",
        "run.accumulation=1",
    ]);
}

#[test]
fn what_samples_are_weighed_by_stays_in_the_run_folder_and_is_refused_once_it_was_altered() {
    let place = Place::new();
    place.train("out", &["objective.method=flow"]).ok();
    let names = place.names("out");
    let kept = names.iter().find(|name| name.starts_with("sample_losses-")).expect("the samples' losses");
    let file = place.path("out").join(kept);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"losses\":[", "\"losses\":[0.5,", 1)).unwrap();
    place.resume_with("out", &["run.steps=12"]).fails(2, &["was altered", "remove the file"]);
    fs::remove_file(&file).unwrap();
    place.resume_with("out", &["run.steps=12"]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "measured again, with the untouched model");
}

#[cfg(unix)]
#[test]
fn a_run_that_is_told_to_stop_saves_says_how_to_go_on_and_does() {
    let place = Place::new();
    place.train("whole", &LONG).ok();
    let child = place.start("stopped", &LONG, 33);
    // A process that began with interrupts ignored (a background job of a plain shell) passes that on to its children.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim).unwrap_or_default();
    let ignored = u64::from_str_radix(ignored, 16).unwrap_or(0) & 2 != 0;
    let signal = if ignored { "-TERM" } else { "-INT" };
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let ran = wait(child);
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    let advice = format!("temper: stopped as asked; go on with: temper train --out {} --resume", place.text("stopped"));
    assert!(ran.stderr.lines().any(|line| line == advice), "{}", ran.stderr);
    assert!(!place.path("stopped/summary.json").exists() && !place.path("stopped/adapter").exists());
    let last = place.metrics("stopped").last().unwrap()["step"].as_u64().unwrap();
    assert!(place.names("stopped/checkpoints").contains(&format!("step-{last:08}")), "the last step is saved");

    place.resume("stopped").ok();
    assert!(place.result("stopped") == place.result("whole"), "the resumed run differs from the uninterrupted one");
    for tag in ["train/loss", "eval/general_loss"] {
        assert_eq!(place.told_tensorboard("stopped", tag), place.told_tensorboard("whole", tag), "{tag}");
    }
}

#[test]
fn a_run_that_is_going_on_is_written_by_nobody_else() {
    let place = Place::new();
    let mut child = place.start("out", &LONG, 3);
    let holder = format!("process {} is writing", child.id());
    place.resume("out").fails(2, &[&holder]);
    place.train("out", &LONG).fails(2, &["already holds a run"]);
    child.kill().unwrap();
    wait(child);
    // Its lock is gone with it.
    place.resume("out").ok();
}

#[test]
fn a_finished_run_that_is_resumed_stays_as_it_is() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let (result, summary) = (place.result("out"), place.json("out/summary.json"));
    place.resume("out").ok();
    assert_eq!(place.result("out"), result);
    assert_eq!(place.json("out/summary.json")["retention"], summary["retention"]);
    assert_eq!(place.json("out/summary.json")["finished"]["tokens"], summary["finished"]["tokens"]);
}

#[test]
fn a_run_is_not_resumed_on_other_data_or_with_another_configuration() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let again = |set: &[&str]| {
        let mut args = place.arguments("out", set);
        args.push("--resume".into());
        temper(args)
    };
    again(&[]).ok();
    again(&["run.seed=20"]).fails(2, &["run.seed is 7", "cannot become 20", "another folder"]);
    place
        .resume_with("out", &["optim.learning_rate=1e-3"])
        .fails(2, &["optim.learning_rate is 0.005", "cannot become 0.001"]);
    let data = fs::read_to_string(place.path("train.jsonl")).unwrap();
    place.write("train.jsonl", &data.replace("What is 0", "What's 0"));
    place.resume("out").fails(2, &["other training data"]);
    place.write("train.jsonl", &data);
    place.resume("out").ok();
}

#[test]
fn a_run_is_not_resumed_on_other_weights_or_other_sets() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let result = place.result("out");
    let weights = "model/model.safetensors";
    let mut bytes = fs::read(place.path(weights)).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    let described = fs::read_to_string(place.path("model/config.json")).unwrap();
    let (target, general) = ("target.jsonl", "general.txt");
    let text = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    let epsilon = described.replace("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 2e-05");
    assert_ne!(epsilon, described);
    for (name, other, words) in [
        (weights, bytes, "holds other weights"),
        ("model/config.json", epsilon.into_bytes(), "describes the model otherwise"),
        (target, text(target).replace("What", "what").into_bytes(), "another target set"),
        (general, text(general).replace("rained", "snowed").into_bytes(), "another general set"),
    ] {
        let own = fs::read(place.path(name)).unwrap();
        fs::write(place.path(name), other).unwrap();
        let file = if name.starts_with("model/") { "model" } else { name };
        place.resume("out").fails(2, &[words, &place.text(file), "restore that"]);
        fs::write(place.path(name), own).unwrap();
    }
    place.resume("out").ok();
    assert_eq!(place.result("out"), result);
}

#[test]
fn an_edited_configuration_is_refused_with_the_key_and_both_values() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let path = place.path("out/config.toml");
    let own = fs::read_to_string(&path).unwrap();
    for (from, to, words) in [
        ("learning_rate = 0.005", "learning_rate = 0.01", "optim.learning_rate was 0.005, and now is 0.01"),
        ("method = \"eaft\"", "method = \"sft\"", "objective.method was \"eaft\", and now is \"sft\""),
        ("alpha = 8.0", "alpha = 9.0", "adapter.alpha was 8.0, and now is 9.0"),
        ("dropout = 0.0", "dropout = 0.1", "adapter.dropout was 0.0, and now is 0.1"),
        ("steps = 10", "steps = 20", "run.steps was 10, and now is 20"),
        ("seed = 7", "seed = 8", "run.seed was 7, and now is 8"),
    ] {
        assert!(own.contains(from), "{from} in {own}");
        fs::write(&path, own.replace(from, to)).unwrap();
        place.resume("out").fails(2, &[words, "config.toml", "restore it", "--set"]);
    }
    // A configuration without its digests, as an older version wrote it.
    let old: String = own.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    fs::write(&path, old).unwrap();
    place.resume("out").fails(2, &["older version", "begin a new run"]);
    fs::write(&path, own).unwrap();
    place.resume("out").ok();
}

#[test]
fn what_may_change_when_a_run_goes_on_changes_and_is_written_down() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let ten = place.metrics("out");
    let ran = place.resume_with("out", &["run.steps=14", "run.save_every=3"]).ok();
    let jumps = "changed    at step 10: run.steps from 10 to 14; the rate there goes from ";
    assert!(ran.stderr.contains(jumps) && !ran.stderr.contains("from 4 to 3; the rate"), "{}", ran.stderr);
    let steps = |out: &str| place.metrics(out).iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(steps("out"), (1..=14).collect::<Vec<_>>());
    assert_eq!(place.metrics("out")[..10], ten, "what was done stays");
    assert_eq!(place.names("out/checkpoints"), ["step-00000012", "step-00000014"]);
    let history = place.json("out/evaluations.json")["history"].clone();
    assert_eq!(history.as_array().unwrap().len(), 2, "before, and after the last step: {history}");
    let config = fs::read_to_string(place.path("out/config.toml")).unwrap();
    assert!(config.contains("# at step 10: run.steps from 10 to 14\n# at step 10: run.save_every from 4 to 3\n"));
    assert!(config.contains("steps = 14\n") && config.contains("save_every = 3\n"), "{config}");

    // It is that run's now.
    let result = place.result("out");
    place.resume("out").ok();
    assert_eq!(place.result("out"), result);
    assert_eq!(fs::read_to_string(place.path("out/config.toml")).unwrap(), config);
    place.resume_with("out", &["run.steps=12"]).fails(2, &["at step 14 of 14", "12 steps", "only become more"]);
    assert_eq!(fs::read_to_string(place.path("out/config.toml")).unwrap(), config, "what is refused changes nothing");
}

#[test]
fn a_damaged_line_of_metrics_is_named_and_the_others_are_kept() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let result = place.result("out");
    let path = place.path("out/metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    // A last line that a kill cut off is nobody's fault.
    fs::write(&path, text.clone() + "{\"step\":11,\"lo").unwrap();
    let ran = place.resume("out").ok();
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // A line that is readable and not what was written.
    fs::write(&path, text.replace("\"step\":2,", "\"step\":3,")).unwrap();
    let ran = place.resume("out").ok();
    assert!(ran.stderr.contains("is not what was written up to step 10"), "{}", ran.stderr);
    // One that is not readable.
    let third = text.lines().nth(2).unwrap();
    fs::write(&path, text.replace(third, &third[..third.len() / 2])).unwrap();
    fs::remove_dir_all(place.path("out/checkpoints/step-00000010")).unwrap();
    let ran = place.resume("out").ok();
    let warning = format!("warning: {}, line 3: is damaged and left out", path.display());
    assert_eq!(ran.stderr.matches(&warning).count(), 2, "when it goes on, and in the report: {}", ran.stderr);
    let (metrics, weights) = place.result("out");
    let kept: Vec<Value> = result.0.iter().filter(|line| line["step"] != 3).cloned().collect();
    assert_eq!((metrics, weights), (kept, result.1));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 10, "nothing is thrown away");
}

/// Ends a process as a scheduler does, and says after how long it was over.
#[cfg(unix)]
fn terminate(child: Child) -> (Ran, Duration) {
    let begin = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let ran = wait(child);
    (ran, begin.elapsed())
}

#[cfg(unix)]
#[test]
fn a_run_that_is_told_to_stop_before_it_has_begun_says_so_and_leaves_nothing() {
    let place = Place::new();
    let mut child = program();
    // Its data never come.
    child.args(place.arguments("new/stopped", &["data.train=-"]));
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !place.path("new/stopped/checkpoints").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
        sleep(Duration::from_millis(2));
    }
    let (ran, _) = terminate(child);
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("temper: stopped as asked; nothing was begun"), "{}", ran.stderr);
    assert!(!place.path("new").exists(), "also what was made above it");
}

#[cfg(unix)]
#[test]
fn a_run_that_is_told_to_stop_in_its_first_evaluation_stops_within_a_second_and_goes_on_to_the_same_bits() {
    let place = Place::new();
    let text = "It rained all night, and in the morning the river had left its bed.\n";
    place.write("general.txt", &text.repeat(1500));
    place.train("whole", &["run.steps=2"]).ok();
    let mut child = program();
    child.args(place.arguments("stopped", &["run.steps=2"])).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    while !place.path("stopped/metrics.jsonl").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
        sleep(Duration::from_millis(2));
    }
    sleep(Duration::from_millis(20));
    let (ran, took) = terminate(child);
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert!(!place.path("stopped/evaluations.json").exists(), "it was in the middle of it");
    place.resume("stopped").ok();
    assert!(place.result("stopped") == place.result("whole"));
    for file in ["evaluations.json", "landscape.json"] {
        let read = |out: &str| fs::read(place.path(&format!("{out}/{file}"))).unwrap();
        assert!(read("stopped") == read("whole"), "{file}");
    }
}

#[cfg(unix)]
#[test]
fn a_run_whose_folder_is_moved_says_so_and_goes_on_from_where_it_is_now() {
    let place = Place::new();
    place.train("whole", &LONG).ok();
    for (what, elsewhere) in [("", "elsewhere"), ("/checkpoints", "kept"), ("/metrics.jsonl", "lines")] {
        let child = place.start("out", &LONG, 25);
        let moved = place.text(&format!("out{what}"));
        fs::rename(&moved, place.path(elsewhere)).unwrap();
        let ran = wait(child).fails(1, &[&format!("{moved}: is gone"), "moved or removed"]);
        if cfg!(target_os = "linux") {
            assert!(ran.stderr.contains(&place.text(elsewhere)), "{}", ran.stderr);
        }
        assert!(!Path::new(&moved).exists(), "nothing is made anew in its place");
        if !what.is_empty() {
            fs::rename(place.path(elsewhere), &moved).unwrap();
            fs::rename(place.path("out"), place.path("elsewhere")).unwrap();
        }
        let left = place.names("elsewhere/checkpoints");
        assert!(left.iter().all(|name| name.starts_with("step-")), "{left:?}");
        place.resume("elsewhere").ok();
        assert!(place.result("elsewhere") == place.result("whole"));
        fs::remove_dir_all(place.path("elsewhere")).unwrap();
    }
    // Removed altogether.
    let child = place.start("out", &LONG, 3);
    while fs::remove_dir_all(place.path("out")).is_err() {}
    wait(child).fails(1, &["is gone"]);
    assert!(!place.path("out").exists());
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_serves() {
    let place = Place::new();
    place.train("out", &[]).ok();
    let result = place.result("out");
    for file in ["trained.safetensors", "optimiser.safetensors", "state.json", "record.json"] {
        let path = place.path("out/checkpoints/step-00000010").join(file);
        let whole = fs::read(&path).unwrap();
        let mut other = whole.clone();
        other[whole.len() - 30] ^= 1;
        fs::write(&path, other).unwrap();
        place.resume("out").fails(2, &["step-00000010", file, "the one before"]);
        // Who only uses what was learned reads no moments.
        let used = line(&format!("eval --run {} --step 10 --text {}", place.text("out"), place.text("general.txt")));
        match file {
            "optimiser.safetensors" => used.ok(),
            _ => used.fails(2, &["step-00000010", file]),
        };
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        place.resume("out").fails(2, &["step-00000010", file, "the one before"]);
        fs::remove_file(&path).unwrap();
        place.resume("out").fails(2, &["step-00000010", file, "missing"]);
        fs::write(&path, &whole).unwrap();
    }
    let checkpoints = place.path("out/checkpoints");
    fs::rename(checkpoints.join("step-00000010"), checkpoints.join("step-00000009")).unwrap();
    place.resume("out").fails(2, &["of step 10", "step 9"]);
    line(&format!("eval --run {} --step 9 --text {}", place.text("out"), place.text("general.txt")))
        .fails(2, &["step-00000009", "of step 10", "step 9"]);
    fs::remove_dir_all(checkpoints.join("step-00000009")).unwrap();
    place.resume("out").ok();
    assert_eq!(place.result("out"), result);
}

#[test]
fn a_folder_that_holds_a_run_is_never_overwritten_and_one_that_holds_none_is_never_resumed() {
    let place = Place::new();
    place.train("out", &["run.steps=1"]).ok();
    let before = place.result("out");
    place.train("out", &[]).fails(2, &["already holds a run", "--resume"]);
    assert_eq!(place.result("out"), before);
    place.train("model", &[]).fails(2, &["is not empty"]);
    place.resume("nowhere").fails(2, &["nowhere", "no run to go on with"]);
    assert!(!place.path("nowhere").exists());
    let alone = line("train --resume");
    assert_eq!(alone.code, Some(2), "{}", alone.stderr);
}

// The other commands.

#[test]
fn logits_are_those_of_transformers() {
    let place = Place::new();
    let expected = read_tensors(&golden("tiny/llama/expected.safetensors"));
    let ids = i64s(&expected, "input_ids");
    let tokens: Vec<String> = ids[..17].iter().map(i64::to_string).collect();
    let out = place.text("y.safetensors");
    line(&format!("logits --model {} --tokens {} --out {out}", place.text("model"), tokens.join(","))).ok();
    let found = read_tensors(Path::new(&out));
    assert_eq!(found["logits"].1, [17, 256]);
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from);
    assert_close("logit", wide(f32s(&found, "logits")), wide(f32s(&expected, "logits_row0")), 1e-4);

    // The same from a GGUF file.
    fs::write(place.path("m.gguf"), gguf()).unwrap();
    line(&format!("logits --model {} --tokens {} --out {out}", place.text("m.gguf"), tokens.join(","))).ok();
    assert_eq!(read_tensors(Path::new(&out)), found);

    let adapter = golden("tiny/llama/lora");
    let expected = read_tensors(&adapter.join("expected.safetensors"));
    line(&format!(
        "logits --model {} --adapter {} --tokens {} --out {out}",
        place.text("model"),
        adapter.display(),
        tokens.join(",")
    ))
    .ok();
    let found = read_tensors(Path::new(&out));
    assert_close("logit", wide(f32s(&found, "logits")), wide(f32s(&expected, "logits_row0")), 1e-4);
}

/// A golden case of the EAFT loss as the input of `temper loss`; gives back all golden tensors.
fn loss_input(place: &Place, case: &str) -> Tensors {
    let all = read_tensors(&golden("eaft_loss.safetensors"));
    let input = ["logits", "labels"].map(|name| (name.to_string(), all[&format!("{case}.{name}")].clone()));
    write_tensors(&place.path("x.safetensors"), &input.into());
    all
}

#[test]
fn the_loss_command_gives_the_golden_loss_gate_and_gradient() {
    let place = Place::new();
    let case = "n16_v257_ignore";
    let all = loss_input(&place, case);
    let (x, y) = (place.text("x.safetensors"), place.text("y.safetensors"));
    line(&format!("loss --logits {x} --objective eaft --set objective.normalizer=const_3 --out {y}")).ok();
    let found = read_tensors(Path::new(&y));
    for name in ["ce", "entropy", "weight"] {
        let want = f64s(&all, &format!("{case}.{name}"));
        assert_close(name, f32s(&found, name).into_iter().map(f64::from), want, 2e-5);
    }
    let cases: Value = serde_json::from_slice(&fs::read(golden("eaft_loss.json")).unwrap()).unwrap();
    let stated = cases["cases"].as_array().unwrap().iter().find(|c| c["name"] == case).unwrap();
    assert_close("loss", f32s(&found, "loss").into_iter().map(f64::from), [stated["loss"].as_f64().unwrap()], 2e-5);
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from);
    assert_close("grad", wide(f32s(&found, "grad")), wide(f32s(&all, &format!("{case}.grad"))), 1e-6);

    line(&format!("loss --logits {x} --objective sft --out {y}")).ok();
    let sft = f32s(&read_tensors(Path::new(&y)), "loss");
    assert_close("loss", sft.into_iter().map(f64::from), [stated["loss_sft"].as_f64().unwrap()], 2e-5);
}

#[test]
fn a_text_is_measured_in_windows_and_an_answer_is_generated() {
    let place = Place::new();
    let found = line(&format!("eval --json --model {} --text {}", place.text("model"), place.text("general.txt"))).ok();
    let bytes = fs::metadata(place.path("general.txt")).unwrap().len();
    let windows = bytes.div_ceil(128);
    assert_eq!(found.json()["tokens"], bytes - windows, "every token but the first of each window of the context");
    let fields: Vec<_> = found.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["loss", "perplexity", "tokens", "skipped"]);

    let generate = |more: &str| line(&format!("generate --model {} {more}", place.text("model")));
    assert_eq!(generate("--prompt Rain --max-tokens 8").ok().stdout, most_likely(&place, "Rain", 8) + "\n");
    let drawn = |seed: u32| {
        let more = format!("--prompt Rain --max-tokens 24 --temperature 0.8 --seed {seed} --raw");
        generate(&more).ok().stdout
    };
    assert_eq!(drawn(3), drawn(3));
    assert_ne!(drawn(3), drawn(4), "another seed draws another text");
    temper(["generate", "--model", &place.text("model"), "--prompt", ""]).fails(2, &["prompt is empty"]);
    generate(&format!("--prompt {}", "a".repeat(128))).fails(2, &["has 128 tokens", "context of 128 has to hold"]);
}

/// Benchmarks for [`eval_tasks`], in `tasks/`.
fn task_files(place: &Place) {
    for folder in ["mmlu", "gsm8k", "medmcqa"] {
        fs::create_dir_all(place.path("tasks").join(folder)).unwrap();
    }
    let rows = |n: usize| {
        (0..n).map(|at| format!("\"is {at}, odd?\",yes,no,{at},x,{}\n", ["A", "B"][at % 2])).collect::<String>()
    };
    place.write("tasks/mmlu/parity_test.csv", &rows(5));
    place.write("tasks/mmlu/sums_test.csv", &rows(3));
    place.write("tasks/mmlu/sums_dev.csv", &rows(1));
    let sum = |n: usize| json!({"question": format!("{n}+1?"), "answer": format!("#### {}", n + 1)}).to_string();
    place.write("tasks/gsm8k/test.jsonl", &[sum(1), sum(2), sum(3)].join("\n"));
    let bad = json!({"question": "Q", "options": {"A": "1"}, "answer_idx": "A"});
    let good = json!({"question": "Q", "options": {"A": "1", "B": "2", "C": "3", "D": "4"}, "answer_idx": "D"});
    place.write("tasks/medmcqa/test.jsonl", &format!("{good}\n{bad}\n{good}\n"));
}

fn eval_tasks(place: &Place, more: &str) -> Ran {
    let (model, data) = (place.text("model"), place.text("tasks"));
    line(&format!("eval --model {model} --task-data {data} --shots 0 --max-tokens 6 {more}"))
}

#[test]
fn benchmarks_go_on_after_a_stop_and_give_what_one_go_gives() {
    let place = Place::new();
    task_files(&place);
    let (whole, parts) = (place.text("whole.jsonl"), place.text("parts.jsonl"));
    let found = eval_tasks(&place, &format!("--tasks mmlu,gsm8k --results {whole} --batch 2 --json")).ok().json();
    let tasks = found["tasks"].as_array().unwrap().clone();
    assert_eq!((&tasks[0]["task"], &tasks[0]["items"], &tasks[1]["items"]), (&json!("mmlu"), &json!(8), &json!(3)));
    let lines = lines_of(Path::new(&whole));
    assert_eq!(lines.len(), 1 + 8 + 3);
    let right = lines.iter().filter(|l| l["task"] == "mmlu" && l["correct"] == true).count() as u64;
    assert_eq!(tasks[0]["correct"], right);
    for line in &lines[1..9] {
        let likelihoods: Vec<f64> =
            line["log_likelihoods"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
        let best = (1..4).fold(0, |best, at| if likelihoods[at] > likelihoods[best] { at } else { best });
        assert_eq!(line["answer"], ["A", "B", "C", "D"][best]);
        assert_eq!(line["correct"], line["answer"] == line["expected"]);
    }
    // A first part, and one more item of which only half was written.
    eval_tasks(&place, &format!("--tasks mmlu --limit 3 --results {parts}")).ok();
    let first = fs::read_to_string(&parts).unwrap();
    assert_eq!(first.lines().count(), 4);
    fs::write(&parts, format!("{first}{{\"what\":\"item\",\"task\":\"mm")).unwrap();
    let ran = eval_tasks(&place, &format!("--tasks mmlu,gsm8k --results {parts} --json")).ok();
    assert!(ran.stderr.contains("its last line is cut off"), "{}", ran.stderr);
    let again = ran.json();
    assert_eq!(again["tasks"][0]["resumed"], 3);
    for (at, field) in [(0, "correct"), (0, "items"), (0, "interval"), (1, "correct"), (1, "strict_accuracy")] {
        assert_eq!(again["tasks"][at][field], tasks[at][field], "{field}");
    }
    let by_id = |path: &str| {
        let key = |line: &Value| (line["task"].to_string(), line["id"].to_string(), line["answer"].to_string());
        lines_of(Path::new(path))[1..].iter().map(key).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(by_id(&parts), by_id(&whole));
    // Nothing is left to do, and nothing is written.
    let before = fs::read(&parts).unwrap();
    let text = eval_tasks(&place, &format!("--tasks mmlu,gsm8k --results {parts}")).ok().stdout;
    assert!(text.contains("8 from before") && text.contains("of 3 items"), "{text}");
    assert_eq!(fs::read(&parts).unwrap(), before);
    eval_tasks(&place, &format!("--tasks mmlu --results {parts} --storage f16"))
        .fails(2, &["parts.jsonl, line 1", "were made with", "name another file"]);
    eval_tasks(&place, &format!("--tasks mmlu --results {}", place.text("train.jsonl")))
        .fails(2, &["train.jsonl, line 1"]);
    place.write("notes.txt", "without a line end");
    eval_tasks(&place, &format!("--tasks mmlu --results {}", place.text("notes.txt"))).fails(2, &["notes.txt, line 1"]);
    assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "without a line end");
    // Only its own first line was being written.
    place.write("cut.jsonl", &first[..20]);
    eval_tasks(&place, &format!("--tasks mmlu --limit 3 --results {}", place.text("cut.jsonl"))).ok();
    assert_eq!(fs::read_to_string(place.path("cut.jsonl")).unwrap(), first);
}

#[test]
fn results_of_another_adapter_or_of_other_questions_are_not_taken_for_these() {
    let place = Place::new();
    task_files(&place);
    let run = place.text("out");
    place.train("out", &["run.steps=1"]).ok();
    let eval = || {
        let (data, results) = (place.text("tasks"), place.text("results.jsonl"));
        line(&format!("eval --run {run} --task-data {data} --shots 0 --tasks mmlu --results {results}"))
    };
    eval().ok();
    assert!(eval().ok().stdout.contains("8 from before"));
    place.resume_with("out", &["run.steps=2"]).ok();
    eval().fails(2, &["results.jsonl, line 1", "adapter_digest", "name another file"]);
    fs::remove_file(place.path("results.jsonl")).unwrap();
    eval().ok();
    let asked = fs::read_to_string(place.path("tasks/mmlu/sums_test.csv")).unwrap();
    place.write("tasks/mmlu/sums_test.csv", &asked.replace("is 1, odd", "is 1 odd"));
    eval().fails(2, &["sums_test.csv, line 2", "not the question that the results hold an answer to"]);
}

#[test]
fn tasks_that_cannot_be_are_refused_by_name_file_and_line() {
    let place = Place::new();
    task_files(&place);
    eval_tasks(&place, "--tasks mmlu,hellaswag").fails(2, &["no task \"hellaswag\"", "mmlu, medmcqa", "aime"]);
    eval_tasks(&place, "--tasks IFEval").fails(2, &["no task \"IFEval\"", "ifeval, bfcl"]);
    eval_tasks(&place, "--tasks ifeval").fails(2, &["tasks/ifeval"]);
    eval_tasks(&place, "--tasks mmlu,mmlu").fails(2, &["mmlu is there twice"]);
    eval_tasks(&place, "--tasks aime").fails(2, &["tasks/aime"]);
    eval_tasks(&place, "--tasks gsm8k --chat").fails(2, &["no chat template"]);
    eval_tasks(&place, "--tasks medmcqa").fails(2, &["medmcqa/test.jsonl, line 2: ", "there are 1 options"]);
    let ran = eval_tasks(&place, "--tasks medmcqa --skip-broken").ok();
    assert!(
        ran.stdout.contains("of 2 items; 1 skipped") && ran.stdout.contains("test.jsonl, line 2: "),
        "{}",
        ran.stdout
    );
    let (model, data) = (place.text("model"), place.text("tasks"));
    line(&format!("eval --model {model} --task-data {data} --tasks mmlu"))
        .fails(2, &["parity_dev.csv", "is not there"]);
}

#[test]
fn instructions_and_calls_are_scored_by_the_embedded_model_in_parts_as_in_one_go() {
    let place = Place::new();
    for folder in ["ifeval", "bfcl"] {
        fs::create_dir_all(place.path("tasks").join(folder)).unwrap();
        for file in fs::read_dir(golden(&format!("tasks/{folder}"))).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), place.path("tasks").join(folder).join(file.file_name())).unwrap();
        }
    }
    let (data, whole, parts) = (place.text("tasks"), place.text("whole.jsonl"), place.text("parts.jsonl"));
    let eval = |more: &str| {
        line(&format!("eval --model embedded:base --task-data {data} --tasks ifeval,bfcl --max-tokens 4 {more}"))
    };
    let found = eval(&format!("--limit 10 --results {whole} --json")).ok().json();
    let [following, calling] = &found["tasks"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&following["items"], &calling["items"]), (&json!(10), &json!(10)));
    let lines = lines_of(Path::new(&whole));
    assert_eq!(lines.len(), 1 + 10 + 10);
    // The figures are those of the lines.
    let of = |field: &str| {
        let all = lines[1..11].iter().flat_map(|line| line["followed"][field].as_array().unwrap());
        let all: Vec<bool> = all.map(|one| one.as_bool().unwrap()).collect();
        (all.iter().filter(|one| **one).count(), all.len())
    };
    for (figure, field) in [("instruction_strict", "strict"), ("instruction_loose", "loose")] {
        let (correct, all) = of(field);
        let figure = &following["instructions"][figure];
        assert_eq!((&figure["correct"], &figure["of"]), (&json!(correct), &json!(all)));
        assert!(figure.get("interval").is_none());
    }
    let whole_prompts = |field: &str| {
        let all = |line: &&Value| line["followed"][field].as_array().unwrap().iter().all(|one| one == true);
        lines[1..11].iter().filter(all).count()
    };
    for (figure, field) in [("prompt_strict", "strict"), ("prompt_loose", "loose")] {
        let figure = &following["instructions"][figure];
        assert_eq!((&figure["correct"], &figure["of"]), (&json!(whole_prompts(field)), &json!(10)));
        assert_eq!(figure["interval"].as_array().unwrap().len(), 2);
    }
    assert_eq!(following["correct"], following["instructions"]["prompt_strict"]["correct"]);
    let categories = calling["categories"].as_array().unwrap();
    let names: Vec<&str> = categories.iter().map(|one| one["category"].as_str().unwrap()).collect();
    assert_eq!(names, ["simple", "multiple", "parallel", "parallel_multiple", "irrelevance"]);
    assert!(categories.iter().all(|one| one["of"] == 2), "{calling}");
    let sum: u64 = categories.iter().map(|one| one["correct"].as_u64().unwrap()).sum();
    assert_eq!(calling["correct"], sum);
    for line in &lines[11..] {
        assert_eq!(line["correct"], line.get("problem").is_none(), "{line}");
        assert!(line["text"].is_string() && line["expected"].is_string(), "{line}");
    }
    // This model calls nothing, which is right where no function fits.
    assert_eq!((&categories[0]["correct"], &categories[4]["correct"]), (&json!(0), &json!(2)));

    eval(&format!("--limit 4 --results {parts}")).ok();
    let again = eval(&format!("--limit 10 --results {parts} --json")).ok().json();
    for (at, field) in [(0, "correct"), (0, "instructions"), (1, "correct"), (1, "categories")] {
        assert_eq!(again["tasks"][at][field], found["tasks"][at][field], "{field}");
    }
    assert_eq!((&again["tasks"][0]["resumed"], &again["tasks"][1]["resumed"]), (&json!(4), &json!(4)));
    let text = eval(&format!("--limit 10 --results {parts}")).ok().stdout;
    for words in ["prompts, strict", "instructions, loose", "parallel_multiple", "10 from before", "of 10 items"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }

    // Wrong lines are named, or counted.
    let file = place.path("tasks").join("ifeval/input_data.jsonl");
    let published = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{published}{{\"key\": 0}}\n")).unwrap();
    eval("").fails(2, &["ifeval/input_data.jsonl, line 21: "]);
    let ran = eval("--limit 2 --skip-broken").ok();
    assert!(ran.stdout.contains("1 skipped") && ran.stdout.contains("line 21: "), "{}", ran.stdout);
    fs::remove_file(place.path("tasks").join("bfcl/possible_answer_parallel.json")).unwrap();
    eval("--skip-broken").fails(2, &["possible_answer_parallel.json", "is not there"]);
}

/// The scan of a place's data into `scan/`.
fn scan(place: &Place, more: &str) -> Ran {
    let (model, out) = (place.text("model"), place.text("scan"));
    temper(format!("scan --model {model} --out {out} {more}").split_whitespace())
}

fn lines_of(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_scan_counts_every_token_once_and_its_files_agree_with_each_other_and_with_eval() {
    let place = Place::new();
    let (train, target) = (place.text("train.jsonl"), place.text("target.jsonl"));
    let ran =
        scan(&place, &format!("--data {train} --data {target} --tokens --on-policy 4 --json --cutoff-length 128")).ok();
    let summary = ran.json();
    let written: Value = serde_json::from_slice(&fs::read(place.path("scan/summary.json")).unwrap()).unwrap();
    assert_eq!(summary, written);
    let (number, whole) = (|v: &Value| v.as_f64().unwrap(), |v: &Value| v.as_u64().unwrap());
    let lines = lines_of(&place.path("scan/scan.jsonl"));
    let documents: Vec<&Value> = lines.iter().filter(|line| line["what"] == "document").collect();
    let tokens: Vec<&Value> = lines.iter().filter(|line| line["what"] == "token").collect();
    assert_eq!((documents.len(), documents.len() + tokens.len()), (60, lines.len()));
    assert_eq!(whole(&summary["documents"]), 60);
    assert_eq!(whole(&summary["scored"]), tokens.len() as u64);
    assert_eq!(documents.iter().map(|d| whole(&d["tokens"])).sum::<u64>(), tokens.len() as u64);

    // What eval measures on the same documents.
    let eval = |data: &str| line(&format!("eval --json --model {} --data {data}", place.text("model"))).ok().json();
    let (a, b) = (eval(&train), eval(&target));
    let of = |v: &Value| (whole(&v["tokens"]) as f64, number(&v["loss"]));
    let ((n, x), (m, y)) = (of(&a), of(&b));
    assert_eq!(tokens.len() as f64, n + m);
    assert!((number(&summary["loss"]) - (n * x + m * y) / (n + m)).abs() <= 1e-5, "{}", summary["loss"]);

    // Conflicts by tokens, by documents, by thresholds, by class, place and file.
    let is_conflict = |t: &&&Value| number(&t["p"]) < 0.1 && number(&t["entropy"]) < 0.5;
    let conflicts = tokens.iter().filter(is_conflict).count() as u64;
    let found = &summary["conflicts"];
    assert_eq!(whole(&found["count"]), conflicts);
    assert_eq!(documents.iter().map(|d| whole(&d["conflicts"])).sum::<u64>(), conflicts);
    for by in ["by_file", "by_class", "by_place"] {
        let sum = |field: &str| found[by].as_array().unwrap().iter().map(|row| whole(&row[field])).sum::<u64>();
        assert_eq!((sum("tokens"), sum("conflicts")), (tokens.len() as u64, conflicts), "{by}");
    }
    for row in found["by_threshold"].as_array().unwrap() {
        let (p, h) = (number(&row["p_below"]) as f32, number(&row["entropy_below"]) as f32);
        let below = |t: &&&Value| (number(&t["p"]) as f32) < p && (number(&t["entropy"]) as f32) < h;
        assert_eq!(whole(&row["tokens"]), tokens.iter().filter(below).count() as u64, "{row}");
    }
    let sorted = |field: &str| {
        let mut values: Vec<f64> = tokens.iter().map(|t| number(&t[field])).collect();
        values.sort_by(f64::total_cmp);
        values[(15 * values.len()).div_ceil(100) - 1]
    };
    let (p, h) = (sorted("p"), sorted("entropy"));
    let quantile = tokens.iter().filter(|t| number(&t["p"]) < p && number(&t["entropy"]) < h).count();
    let share = number(&found["by_quantile"]["share_least"]);
    assert_eq!(found["by_quantile"]["exact"], true);
    assert!((share - quantile as f64 / tokens.len() as f64).abs() <= 1e-12, "{share} and {quantile}");
    assert!((number(&found["by_quantile"]["entropy"]) - h).abs() <= 1e-6);

    // The calibration error, from the lines.
    let mut bins = [(0.0, 0.0); 20];
    for t in &tokens {
        let bin = &mut bins[((number(&t["wanted_p"]) * 20.0) as usize).min(19)];
        bin.0 += number(&t["wanted_p"]);
        bin.1 += f64::from(u8::from(t["wanted"] == t["token"]));
    }
    let error = bins.iter().map(|(sure, right)| (sure - right).abs()).sum::<f64>() / tokens.len() as f64;
    let stated = number(&summary["confidence"]["expected_calibration_error"]);
    assert!((stated - error).abs() <= 1e-6, "{stated} and {error}");
    assert_eq!(summary["fidelity"].as_array().unwrap().len(), 63);
    assert!(!summary["kernel"].as_array().unwrap().is_empty() && !summary["advice"].as_array().unwrap().is_empty());
    let histogram = summary["gate"]["histogram"].as_array().unwrap();
    assert_eq!(histogram.iter().map(whole).sum::<u64>(), tokens.len() as u64);
    assert_eq!(summary["on_policy"]["prompts"], 4);
    assert!(whole(&summary["on_policy"]["model"]["tokens"]) > 0);

    let html = fs::read_to_string(place.path("scan/scan.html")).unwrap();
    for outside in ["src=", "href=", "url(", "@import", "<script", "http", "NaN"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert_eq!(html.matches("<svg ").count(), 8, "three maps, two plots of where, three of trust");
    for tag in ["svg", "figure", "table", "tr", "td", "th", "div", "p", "code", "mark"] {
        let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn a_scan_curates_to_both_sides_and_fails_only_above_its_limit() {
    let place = Place::new();
    let train = place.text("train.jsonl");
    scan(&place, &format!("--data {train}")).ok();
    let share = |line: &Value| line["conflict_share"].as_f64().unwrap();
    let mut shares: Vec<f64> = lines_of(&place.path("scan/scan.jsonl")).iter().map(share).collect();
    shares.sort_by(f64::total_cmp);
    // Between two documents, where they differ; the tiny model is hardly ever sure, and then all are clean.
    let above = shares[shares.len() / 2];
    let mut kept = Vec::new();
    for keep in ["clean", "conflicted"] {
        let out = place.text(&format!("{keep}.jsonl"));
        scan(&place, &format!("--data {train} --curate {out} --keep {keep} --above {above}")).ok();
        kept.extend(fs::read_to_string(&out).unwrap().lines().map(str::to_owned));
        scan(&place, &format!("--data {train} --curate {out}")).fails(2, &[&out, "is not overwritten"]);
    }
    let mut all: Vec<String> = fs::read_to_string(&train).unwrap().lines().map(str::to_owned).collect();
    kept.sort();
    all.sort();
    assert_eq!(kept, all, "each record is on one side, as it was");
    let folder = place.text("own");
    for name in ["scan.jsonl", "summary.json", "scan.html"] {
        let model = place.text("model");
        let own = format!("scan --model {model} --data {train} --out {folder} --curate {folder}/./{name}");
        line(&own).fails(2, &[name, "is a file that the scan writes itself"]);
    }
    assert!(!place.path("own").exists());
    let text = place.text("general.txt");
    scan(&place, &format!("--data {text} --curate {}", place.text("c"))).fails(2, &["general.txt", "no records"]);
    assert!(!place.path("c").exists());

    // Swapped labels make conflicts with any model that is sure; the exit code follows the share.
    let found = scan(&place, &format!("--data {train} --json")).ok().json();
    let share = found["conflicts"]["share"].as_f64().unwrap();
    scan(&place, &format!("--data {train} --fail-above 1")).ok();
    scan(&place, &format!("--data {train} --fail-above {share}")).ok();
    if share > 0.0 {
        scan(&place, &format!("--data {train} --fail-above {}", share / 2.0))
            .fails(1, &["the check failed", "--fail-above"]);
    }
}

/// A model that is sure of everything: its head is scaled up a thousand times.
fn sure_model(place: &Place) {
    let path = place.path("model/model.safetensors");
    let mut tensors = read_tensors(&path);
    let (dtype, _, data) = tensors.get_mut("lm_head.weight").expect("an untied head");
    assert_eq!(*dtype, Dtype::F32);
    for value in data.chunks_exact_mut(4) {
        let scaled = 1000.0 * f32::from_le_bytes(value.try_into().unwrap());
        value.copy_from_slice(&scaled.to_le_bytes());
    }
    write_tensors(&path, &tensors);
}

#[test]
fn data_that_contradict_a_sure_model_fail_the_check_and_are_called_knowledge_editing() {
    let place = Place::new();
    sure_model(&place);
    let train = place.text("train.jsonl");
    // Twice, because advice needs a thousand tokens.
    let ran = scan(&place, &format!("--data {train} --data {train} --fail-above 0.05")).fails(1, &["the check failed"]);
    assert!(ran.stdout.contains("knowledge editing") && ran.stdout.contains("most in: "), "{}", ran.stdout);
    let summary: Value = serde_json::from_slice(&fs::read(place.path("scan/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["advice"][0]["rule"], "knowledge_editing");
    assert_eq!(summary["advice"][1]["rule"], "sure_and_wrong");
    assert!(summary["conflicts"]["share"].as_f64().unwrap() > 0.5);
    let worst = summary["conflicts"]["worst_tokens"][0].clone();
    assert!(worst["p"].as_f64().unwrap() < 1e-3 && worst["wanted_p"].as_f64().unwrap() > 0.9, "{worst}");
    // Its context is that of its record.
    let line = worst["line"].as_u64().unwrap() as usize;
    let record: Value =
        serde_json::from_str(fs::read_to_string(&train).unwrap().lines().nth(line - 1).unwrap()).unwrap();
    let text = ["before", "token", "after"].map(|part| worst[part].as_str().unwrap()).concat();
    let answer = record["answer"].as_str().unwrap();
    assert!(text.contains(&answer[..4]) || answer.contains(text.trim()), "{text:?} of {record}");
    let html = fs::read_to_string(place.path("scan/scan.html")).unwrap();
    assert!(html.contains("<mark>") && html.contains("train.jsonl line"));
    let clean = place.text("clean.jsonl");
    scan(&place, &format!("--data {train} --curate {clean} --above 0.01")).ok();
    assert_eq!(fs::read_to_string(&clean).unwrap(), "", "no record is clean");
}

#[test]
fn a_scan_names_damaged_records_counts_what_it_leaves_out_and_reads_pipes() {
    let place = Place::new();
    let good = fs::read_to_string(place.path("train.jsonl")).unwrap();
    let first = good.lines().next().unwrap();
    place.write("bad.jsonl", &format!("{first}\nnot json\n{first}\n{}", &first[..10]));
    let bad = place.text("bad.jsonl");
    scan(&place, &format!("--data {bad}")).fails(2, &["bad.jsonl, line 2: not a JSON object"]);
    assert!(!place.path("scan/scan.jsonl").exists(), "nothing half done is left");
    let ran = scan(&place, &format!("--data {bad} --skip-broken")).ok();
    for part in ["2 documents", "2 lines skipped", "bad.jsonl, line 2: ", "bad.jsonl, line 4: "] {
        assert!(ran.stdout.contains(part), "{part} is not in {}", ran.stdout);
    }
    scan(&place, &format!("--data {}", place.text("none.jsonl"))).fails(2, &["none.jsonl"]);
    let limited = scan(&place, &format!("--data {} --limit 3 --json", place.text("train.jsonl"))).ok().json();
    assert_eq!(limited["documents"], 3);

    fs::write(place.path("packed.jsonl.gz"), packed(good.as_bytes())).unwrap();
    let loss = |ran: Ran| ran.ok().json()["loss"].as_f64().unwrap();
    let want = loss(scan(&place, &format!("--data {} --json", place.text("train.jsonl"))));
    assert_eq!(loss(scan(&place, &format!("--data {} --json", place.text("packed.jsonl.gz")))), want);
    #[cfg(target_os = "linux")]
    for data in ["--data - < train.jsonl", "--data <(cat train.jsonl)"] {
        let script =
            format!("cd {}; exec \"$0\" --device cpu scan --json --model model --out piped {data}", place.text("."));
        let ran = Command::new("bash").args(["-c", &script, env!("CARGO_BIN_EXE_temper")]).output().unwrap();
        assert_eq!(loss(Ran::of(ran)), want, "{data}");
    }
}

#[test]
fn a_scan_is_measured_against_a_bare_pass_in_turns() {
    let place = Place::new();
    let ran = line(&format!("bench scan --model {} --tokens 200 --repeat 2 --json", place.text("model"))).ok();
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let variants: Vec<&str> = lines.iter().map(|line| line["variant"].as_str().unwrap()).collect();
    assert_eq!(variants, ["bare forward", "loss and entropies (eval)", "scan"]);
    assert_eq!(lines[0]["ratio"], 1.0);
    assert!(lines.iter().all(|line| line["ratio"].as_f64().unwrap() > 0.0 && line["error"].as_f64().unwrap() <= 1e-5));
}

#[test]
fn multiple_choice_is_measured_against_reading_every_choice_whole_and_its_choices_are_the_same() {
    let place = Place::new();
    task_files(&place);
    let bench = format!("bench eval --model {} --task-data {}", place.text("model"), place.text("tasks"));
    let ran = line(&format!("{bench} --limit 5 --repeat 2 --json")).ok();
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let variants: Vec<&str> = lines.iter().map(|line| line["variant"].as_str().unwrap()).collect();
    assert_eq!(variants, ["prefix shared (temper eval)", "every choice read whole"]);
    assert_eq!(lines[0]["ratio"], 1.0);
    for line in &lines {
        assert!(line["other_choices"] == 0 && line["error"].as_f64().unwrap() <= 1e-3, "{line}");
        assert!(line["items_per_second"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["shape"].as_str().unwrap().starts_with("5 questions of "), "{line}");
    }
    let text = line(&format!("{bench} --limit 5 --repeat 1")).ok().stdout;
    assert!(text.contains("items/s") && text.contains("0 other choices"), "{text}");
    // Whatever it is, it is no Python with torch.
    line(&format!("{bench} --limit 2 --repeat 1 --python {}", env!("CARGO_BIN_EXE_temper")))
        .fails(1, &["the Python script ended"]);
    line(&format!("{bench} --python {}", place.text("nothing"))).fails(1, &["nothing cannot be run"]);
    line(&format!("{bench} --shots 2")).fails(2, &["parity_dev.csv", "is not there"]);
}

/// A template in which a conversation is a few bytes.
const TEMPLATE: &str =
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

#[test]
fn many_prompts_are_answered_as_each_alone_and_an_answer_ends_at_a_string() {
    let place = Place::new();
    let model = place.text("model");
    let prompts = ["Rain", "a longer prompt than the others", "", "x"];
    place.write("prompts.txt", &(prompts.join("\n") + "\n"));
    place.write("model/chat_template.jinja", TEMPLATE);
    for drawing in ["", "--temperature 0.9 --top-k 40 --top-p 0.95"] {
        let alone = |nth: usize, more: &str| -> String {
            let seed = format!("{}", 5 + nth);
            let base = ["generate", "--model", &model, "--max-tokens", "12", "--prompt", prompts[nth], "--seed", &seed];
            temper(base.into_iter().chain(drawing.split_whitespace()).chain(more.split_whitespace())).ok().stdout
        };
        let all = |batch: usize| -> Vec<Value> {
            let path = place.text("prompts.txt");
            let asked = format!("generate --model {model} --prompts {path} --max-tokens 12 --seed 5 --batch {batch}");
            let ran = line(&format!("{asked} {drawing}")).ok();
            ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let found = all(3);
        // A blank line is none, and those behind it keep their numbers.
        let asked = prompts.iter().enumerate().filter(|(_, prompt)| !prompt.is_empty());
        let asked: Vec<usize> = asked.map(|(nth, _)| nth).collect();
        assert_eq!(found.len(), asked.len());
        for (nth, answer) in asked.into_iter().zip(&found) {
            assert_eq!(answer["prompt"], prompts[nth]);
            assert_eq!(answer["answer"].as_str().unwrap().to_owned() + "\n", alone(nth, ""), "{drawing}");
            let (tokens, ended) = (answer["tokens"].as_u64().unwrap(), answer["ended"].as_str().unwrap());
            assert!(ended == "length" && tokens == 12 || ended == "token" && tokens <= 12, "{answer}");
        }
        assert_eq!([all(1), all(100)], [found.clone(), found.clone()]);

        let whole = found[0]["answer"].as_str().unwrap();
        let (at, stop) = whole.char_indices().skip(2).find(|(_, c)| c.is_ascii_graphic()).expect("a printable byte");
        let at = whole[..at].find(stop).unwrap_or(at);
        assert_eq!(alone(0, &format!("--stop {stop}")), whole[..at].to_owned() + "\n");
    }
    // As some editors save it.
    place.write("marked.txt", "\u{feff}x\n");
    let marked = format!("generate --model {model} --max-tokens 1 --prompts");
    let from_file = line(&format!("{marked} {}", place.text("marked.txt")));
    for ran in [from_file, chat(&format!("{marked} -"), b"\xEF\xBB\xBFx\n")] {
        assert_eq!(ran.ok().json()["prompt"], "x");
    }
    line(&format!("generate --model {model} --prompts {}", place.text("none.txt"))).fails(2, &["none.txt"]);
    place.write("empty.txt", "\n \n");
    line(&format!("generate --model {model} --prompts {}", place.text("empty.txt"))).fails(2, &["has no line"]);
    place.write("long.txt", &format!("short\n{}\n", "a".repeat(128)));
    line(&format!("generate --model {model} --prompts {}", place.text("long.txt"))).fails(2, &["line 2", "128"]);
}

/// A conversation from a pipe.
fn chat(args: &str, said: &[u8]) -> Ran {
    let mut command = program();
    command.args(args.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that has ended already does not read what is said.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), said);
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn a_chat_answers_each_line_with_what_was_said_before_it() {
    let place = Place::new();
    let model = place.text("model");
    let talk = format!("chat --model {model} --temperature 0 --max-tokens 6");
    chat(&talk, b"Hi\n").fails(2, &["no chat template", "temper generate"]);
    line(&format!("generate --model {model} --system Be --prompt Hi")).fails(2, &["--system", "no chat template"]);
    place.write("model/chat_template.jinja", TEMPLATE);
    // What the model says to a text as it is.
    let raw = |prompt: &str| {
        let ran = temper(["generate", "--model", &model, "--max-tokens", "6", "--raw", "--prompt", prompt]).ok();
        ran.stdout.strip_suffix('\n').unwrap().to_owned()
    };
    let first = raw("u:Hi\na:");
    let second = raw(&format!("u:Hi\na:{first}\nu:Ho\na:"));
    let told = raw("s:Be\nu:Hi\na:");
    let talked = chat(&talk, b"Hi\n\n  Ho \n").ok();
    assert!(talked.stdout == format!("{first}\n{second}\n") && !talked.stderr.contains("full"), "{}", talked.stderr);
    let said = b"Hi\n/reset\nHi\n/system Be\nHi\n/system\nHi\n/quit\nnot heard\n";
    assert_eq!(chat(&talk, said).ok().stdout, format!("{first}\n{first}\n{told}\n{first}\n"));
    assert_eq!(chat(&format!("{talk} --system Be"), b"Hi").ok().stdout, format!("{told}\n"));
    let asked = format!("generate --model {model} --max-tokens 6 --system Be --prompt Hi");
    assert_eq!(line(&asked).ok().stdout, format!("{told}\n"));
    let unknown = chat(&talk, b"/what\nHi\n").ok();
    assert!(unknown.stdout == format!("{first}\n") && unknown.stderr.contains("/what"), "{}", unknown.stderr);
    assert_eq!(chat(&talk, b"").ok().stdout, "");

    // A line for which there is no room is not answered, and the conversation goes on once some is forgotten.
    let long = "a".repeat(200);
    let full = chat(&talk, format!("Hi\n{long}\n/reset\nHi\n").as_bytes());
    assert_eq!(full.stdout, format!("{first}\n{first}\n"));
    let why = ["not answered: the conversation has ", "the context of 128 ", "/reset", "--context cannot be larger"];
    full.fails(2, &[&why[..], &["error: 1 line not answered"]].concat());
    chat(&format!("{talk} --context 16"), b"a longer line\n").fails(2, &["--context N allows up to 128"]);
    // An answer that fills the context says so itself.
    for (most, is_cut) in [(8, false), (9, true), (100, true)] {
        let ran = chat(&format!("chat --model {model} --temperature 0 --max-tokens {most} --context 16"), b"Hi\n").ok();
        let said = ran.stderr.contains("the answer ends here: the context of 16 tokens is full. /reset forgets");
        assert_eq!((said, ran.stdout.len() > 1), (is_cut, true), "{most}: {}", ran.stderr);
    }
    chat(&format!("{talk} --context 129"), b"Hi\n").fails(2, &["--context 129", "128"]);
    chat(&talk, b"\xff\n").fails(2, &["UTF-8"]);
}

/// What follows a prompt if the most likely token is taken each time, from the logits of `temper logits`.
fn most_likely(place: &Place, prompt: &str, count: usize) -> String {
    let (model, out) = (place.text("model"), place.text("y.safetensors"));
    let config = fs::read_to_string(place.path("model/config.json")).unwrap();
    let eos = serde_json::from_str::<Value>(&config).unwrap()["eos_token_id"].as_u64();
    // A token is a byte here.
    let mut tokens: Vec<u64> = prompt.bytes().map(u64::from).collect();
    for _ in 0..count {
        let ids: Vec<String> = tokens.iter().map(u64::to_string).collect();
        line(&format!("logits --model {model} --tokens {} --out {out}", ids.join(","))).ok();
        let logits = f32s(&read_tensors(Path::new(&out)), "logits");
        let last = &logits[logits.len() - 256..];
        let best = (0..256).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap() as u64;
        if Some(best) == eos {
            break;
        }
        tokens.push(best);
    }
    let bytes: Vec<u8> = tokens[prompt.len()..].iter().map(|&token| token as u8).collect();
    // A character that is not whole yet is not shown.
    String::from_utf8_lossy(&bytes).trim_end_matches('\u{FFFD}').to_string()
}

#[test]
fn every_kernel_of_a_device_is_tested_and_a_profile_says_where_a_step_goes() {
    let place = Place::new();
    let gpu = adapter();
    let json =
        |ran: Ran| -> Vec<Value> { ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };

    let checks = json(line(&format!("devices --self-test --json --device {gpu}")).ok());
    assert!(checks.len() > 20 && checks.iter().all(|check| check["passed"] == true), "{checks:?}");

    let (model, trace) = (place.text("model"), place.text("trace.json"));
    let step = format!("bench step --model {model} --tokens 24 --rank 2 --repeat 1 --check-tokens 12");
    let lines = json(line(&format!("{step} --profile --trace {trace} --json --device {gpu}")).ok());
    let (shares, steps): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["bench"] == "profile");
    let submissions = |line: &Value| line["submissions"].as_u64().unwrap();
    let runs: u64 = shares.iter().map(|share| share["runs"].as_u64().unwrap()).sum();
    assert!(steps.len() == 2 && steps.iter().all(|step| (1..runs / 2).contains(&submissions(step))), "{steps:?}");
    let percent: f64 = shares.iter().map(|share| share["percent"].as_f64().unwrap()).sum();
    assert!((percent - 100.0).abs() < 1.0, "{percent} of {shares:?}");
    assert!(shares.iter().any(
        |share| share["kernel"].as_str().unwrap().starts_with("attention") && share["gflops"].as_f64() > Some(0.0)
    ));
    let events = place.json("trace.json")["traceEvents"].as_array().unwrap().len() as u64;
    assert_eq!(events, runs + 1, "an event a kernel, and the device's name");

    line(&format!("{step} --profile --device cpu")).fails(2, &["kernels are timed on GPUs", "--device"]);
    let without = line(&format!("{step} --trace {trace}"));
    assert!(without.code == Some(2) && without.stderr.contains("--profile"), "{}", without.stderr);
}

#[test]
fn a_tour_of_a_device_writes_each_part_as_it_is_done_and_says_what_there_was_no_time_for() {
    let place = Place::new();
    let out = place.text("tour.jsonl");
    let ran = line(&format!("bench hardware --minutes 0.02 --json {out} --device cpu"));
    let text = fs::read_to_string(&out).unwrap();
    let parts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(parts[0]["part"] == "devices" && parts[0]["ok"] == true, "{text}");
    assert!(parts[0]["lines"][0]["adapters"].is_array(), "{text}");
    assert!(parts[1]["part"] == "calibrate" && ran.stdout.contains("CPU, as asked for"), "{text}\n{}", ran.stdout);
    let last = parts.last().unwrap();
    assert!(last["part"] == "head" && last["problem"] == "there was no time left", "{text}");
    assert!(ran.code == Some(1) && ran.stderr.contains("head"), "{}", ran.stderr);
    assert_eq!(line("bench hardware --minutes 0").code, Some(2));
}

#[test]
fn devices_and_benchmarks_speak_json() {
    let place = Place::new();
    let devices = line("devices --json").ok().json();
    assert_eq!(devices["chosen"], "CPU");
    assert!(devices["adapters"].is_array() && devices["why"].is_string());
    let lines = |command: &str, variants: usize| {
        let ran = line(command).ok();
        let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), variants, "{}", ran.stdout);
        for line in &lines {
            for field in ["variant", "shape", "device"] {
                assert!(line[field].is_string(), "{field} in {line}");
            }
            for field in ["median_s", "min_s", "max_s", "tokens_per_second", "peak_bytes", "error"] {
                assert!(line[field].is_number(), "{field} in {line}");
            }
        }
        lines
    };
    let head = lines("bench head --hidden 32 --vocab 300 --rows 24 --repeat 2 --json", 3);
    let error = |index: usize| head[index]["error"].as_f64().unwrap();
    assert_eq!([&head[0]["variant"], &head[1]["variant"]], ["temper eaft", "temper sft"]);
    assert!(error(0) > 0.0 && error(1) > 0.0 && error(0) != error(1), "each variant has an error of its own: {head:?}");
    lines("bench loss --vocab 300 --rows 24 --repeat 2 --json", 3);
    let model = place.text("model");
    let step = format!("bench step --model {model} --tokens 48 --rank 2 --objective eaft --repeat 2 --json");
    for compute in ["f32", "auto"] {
        let steps = lines(&format!("{step} --compute {compute}"), 2);
        assert!(steps.iter().all(|line| line["products"] == "in single precision"), "{steps:?}");
    }
    line(&format!("{step} --compute f16")).fails(2, &["compute", "CPU", "cooperative matrices"]);
    lines(&format!("bench generate --model {model} --prompt 5 --tokens 9 --batch 3 --repeat 2 --json"), 4);
    let ran = line("bench product --shape 9x20x33 --layout tn --repeat 2 --json").ok();
    let products: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(products.iter().map(|line| line["kernel"].as_str().unwrap()).collect::<Vec<_>>(), ["temper", "gemm"]);
    for line in &products {
        assert!(line["error"].as_f64().unwrap() < 1e-5 && line["gflops"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["median_s"].as_f64().unwrap() > 0.0, "{line}");
    }
}

/// The program on these devices, which the others of these tests leave to the CPU.
fn temper_on(devices: &str, args: &[String]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_temper"));
    command.env("RUST_BACKTRACE", "1").env_remove("TEMPER_LOG").env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
    Ran::of(command.args(args).args(["--device", devices]).output().expect("the program starts"))
}

/// Words as arguments.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// A graphics adapter's name for `--device`.
fn adapter() -> String {
    let devices = line("devices --json").ok().json();
    devices["adapters"][0]["id"].as_str().expect("no adapter: `cargo xtask test` installs a software one").to_owned()
}

#[test]
fn a_run_on_two_devices_says_what_each_holds_and_goes_on_with_another_split() {
    let place = Place::new();
    let gpu = adapter();
    let (both, turned) = (format!("{gpu},cpu"), format!("cpu,{gpu}"));
    let set = ["run.steps=4"];
    place.train("one", &set).ok();
    let two = temper_on(&both, &place.arguments("two", &set)).ok();
    for part in ["): embedding, block 0; CPU: block 1, head (", "as asked for; CPU, as asked for)", " on CPU, about "] {
        assert!(two.stderr.contains(part), "{part} in\n{}", two.stderr);
    }
    let losses = |out: &str| place.metrics(out).iter().map(|m| m["loss"].as_f64().unwrap()).collect::<Vec<_>>();
    assert_close("losses", losses("two"), losses("one"), 1e-4);
    let started = place.json("two/summary.json")["started"]["device"].clone();
    assert!(started.as_str().unwrap().ends_with("CPU: block 1, head"), "{started}");

    // The rest of a longer run, with the devices the other way round.
    place.train("one", &["run.steps=6"]).fails(2, &["--resume"]);
    line(&format!("train --resume --out {} --set run.steps=6", place.text("one"))).ok();
    let resume = format!("train --resume --out {} --set run.steps=6", place.text("two"));
    let resumed = temper_on(&turned, &words(&resume)).ok();
    assert!(resumed.stderr.contains("CPU: embedding, block 0; "), "{}", resumed.stderr);
    assert_close("losses", losses("two"), losses("one"), 1e-4);
    assert_eq!(losses("two").len(), 6);

    let measured = |devices: &str| {
        let eval = format!("eval --json --run {} --text {}", place.text("two"), place.text("general.txt"));
        temper_on(devices, &words(&eval)).ok().json()["loss"].as_f64().unwrap()
    };
    assert_close("loss", [measured(&both)], [measured("cpu")], 1e-5);
    let generate = format!("generate --run {} --prompt What --max-tokens 8 --raw", place.text("two"));
    let texts = [&both, "cpu"].map(|devices| temper_on(devices, &words(&generate)).ok().stdout);
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn every_kernel_for_products_is_measured_after_it_was_right_and_one_of_each_kind_is_taken() {
    let read = |ran: Ran| ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let bench = "bench product --shape 9x20x36 --layout nn --repeat 1 --json";
    let measured = read(temper_on(&adapter(), &words(bench)).ok());
    let named: Vec<&str> = measured.iter().map(|line| line["kernel"].as_str().unwrap()).collect();
    assert_eq!(named, ["tiled", "software", "few_rows", "burn", "cooperative", "split"]);
    for line in &measured[4..] {
        assert!(line["problem"].as_str().is_none_or(|problem| problem.contains("no cooperative matrices")), "{line}");
    }
    for line in measured.iter().filter(|line| line["problem"].is_null()) {
        let most = if line["kernel"] == "cooperative" { 1e-3 } else { 1e-5 };
        assert!(line["error"].as_f64().unwrap() < most && line["gflops"].as_f64().unwrap() > 0.0, "{line}");
    }

    let calibrated = read(temper_on(&adapter(), &words("devices --calibrate --json")).ok());
    assert!(!calibrated.is_empty());
    for line in &calibrated {
        assert!(line["problem"].is_null() || line["cut_off"] == true, "{line}");
    }
    for line in calibrated.iter().filter(|line| line["cut_off"].is_null()) {
        let of_class: Vec<_> = calibrated.iter().filter(|other| other["class"] == line["class"]).collect();
        assert_eq!(of_class.iter().filter(|other| other["taken"] == true).count(), 1, "{of_class:?}");
    }
    let cpu = line("devices --calibrate --json").ok().json();
    assert_eq!((&cpu["device"], &cpu["calibrated"]), (&Value::from("CPU"), &Value::from(false)));
}

#[test]
fn half_precision_is_refused_where_there_are_no_matrices_for_it() {
    let place = Place::new();
    let refused = |more: &[&str]| temper_on("cpu", &place.arguments("out", more));
    for compute in ["f16", "split"] {
        let said = format!("[run] compute = \"{compute}\"");
        refused(&[&format!("run.compute={compute}")]).fails(2, &[&said, "CPU", "cooperative matrices", "auto"]);
    }
    refused(&["run.compute=f8"]).fails(2, &["run.compute", "f16", "split"]);
}

#[test]
fn a_plan_for_two_devices_has_a_table_for_each_and_counts_the_hosts_memory() {
    let place = Place::new();
    let both = format!("{},cpu", adapter());
    let plan = |more: &str| temper_on(&both, &words(&format!("plan {} {more}", place.text("run.toml"))));
    let found = plan("--json").ok().json();
    let devices = found["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2, "{found}");
    assert_eq!([&devices[0]["blocks"], &devices[1]["blocks"]], [1, 1]);
    assert_eq!(devices[1]["holds"], "block 1, head");
    let of = |value: &Value| value.as_u64().unwrap();
    let bytes: Vec<u64> = devices.iter().map(|device| of(&device["device_bytes"])).collect();
    assert_eq!(of(&found["peak_bytes"]), bytes[0] + bytes[1]);
    // The host holds the CPU's part and what the other device leaves there.
    assert!(
        of(&devices[0]["host_bytes"]) > 0
            && found["available_host_bytes"].is_u64()
            && devices[0]["available_bytes"].is_u64()
    );
    assert_eq!(found["moments"].as_array().unwrap().len(), 16);
    let text = plan("").ok().stdout;
    for part in ["): embedding, block 0\nMiB ", "\nCPU: block 1, head\nMiB ", " on CPU, about "] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(plan("--device-memory 1GiB,1GiB").ok().stdout.contains("fits       yes"));
    let tight = plan("--json --device-memory 1GiB,4KiB").ok().json();
    assert_eq!(tight["fits"], false, "{tight}");
    plan("--device-memory 8GiB").fails(2, &["1 amount of memory for 2 devices", "8GiB,8GiB"]);
    // What the host cannot hold fits nowhere, however much was promised for each device.
    let beside = plan("--json --device-memory 1GiB,1GiB --set run.host_memory=1MiB").ok().json();
    assert_eq!(beside["fits"], false, "{beside}");
}

#[test]
fn devices_that_cannot_be_had_together_are_refused_by_name() {
    let place = Place::new();
    let gpu = adapter();
    for (devices, parts) in [
        ("cpu,cpu".to_string(), &["\"cpu,cpu\" names CPU twice"][..]),
        (format!("{gpu}, CPU,{gpu}"), &["twice"]),
        ("cpu,gpu9".to_string(), &["there is no device \"gpu9\"", "choose one of"]),
        ("cpu,".to_string(), &["an empty name"]),
    ] {
        temper_on(&devices, &place.arguments("out", &[])).fails(2, parts);
        assert!(!place.path("out").exists(), "{devices} left a folder behind");
    }
    let both = format!("{gpu},cpu");
    let one_block = "model.architecture={ model_type = \"llama\", vocab_size = 260, hidden_size = 32, intermediate_size = 64, \
                     num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 128 }";
    let random = ["model.init=random", one_block, "adapter.kind=none"];
    temper_on(&both, &place.arguments("out", &random)).fails(2, &["fewer blocks (1) than there are devices (2"]);
    place.model("llama_tied");
    let full = ["adapter.kind=none", "data.target="];
    temper_on(&both, &place.arguments("out", &full)).fails(2, &["[run] device", "head is its embedding", "lora"]);
    assert!(!place.path("out").exists());
    temper_on(&both, &place.arguments("out", &["run.steps=1"])).ok();
}

#[test]
fn help_is_success_and_wrong_usage_is_exit_code_2() {
    for help in ["--help", "--version", "train --help", "bench head --help"] {
        line(help).ok();
    }
    for wrong in ["", "trian", "eval --model m", "train --set steps=3", "loss", "train --resume"] {
        let ran = line(wrong);
        assert_eq!(ran.code, Some(2), "{wrong}: {}", ran.stderr);
    }
    let ran = temper(["train", "--device", "gpu9"]);
    assert_eq!(ran.code, Some(2), "an option twice: {}", ran.stderr);
}

#[test]
fn a_quantised_file_measures_as_the_model_held_so_and_quantises_again() {
    let place = Place::new();
    let eval = |model: &str, storage: &str| {
        let text = place.text("general.txt");
        line(&format!("eval --json --model {model} --storage {storage} --text {text}")).ok().json()
    };
    let plain = eval("embedded:base", "auto");
    // Rows of 128 and 384 are no whole blocks of Q4_K and Q6_K, and a head has at least six bits.
    for (to, matrices) in [
        ("q8_0", "29 in Q8_0"),
        ("q4_0", "1 in Q8_0, 28 in Q4_0"),
        ("q4_k", "1 in Q8_0, 28 in Q5_0"),
        ("q6_k", "29 in Q8_0"),
    ] {
        let file = place.text(&format!("{to}.gguf"));
        let ran = line(&format!("quantize embedded:base {file} --to {to}")).ok();
        assert!(ran.stdout.contains(&format!("matrices: {matrices}")), "{}", ran.stdout);
        let measured = eval(&file, "auto");
        if to != "q6_k" {
            assert_eq!(measured, eval("embedded:base", to), "{to}");
        }
        assert_ne!(measured["loss"], plain["loss"], "{to}");
        // To the format that it has: the same bytes of every tensor.
        let again = place.text(&format!("{to}-again.gguf"));
        line(&format!("quantize {file} {again} --to {to}")).ok();
        assert_eq!(eval(&again, "auto"), measured, "{to}");
        line(&format!("quantize {file} {again} --to {to}")).fails(2, &["is already there"]);
    }
    line(&format!("quantize embedded:base {} --to q3", place.text("x")))
        .fails(2, &["--to q3", "q8_0, q4_0, q4_k_m, q4_k"]);
    line(&format!("quantize {} {} --to q8_0", place.text("general.txt"), place.text("x"))).fails(2, &["no GGUF file"]);
    line(&format!("quantize {} {} --to q8_0", place.text("model"), place.text("x")))
        .fails(2, &["GGUF cannot say what this tokenizer does", "cuts text"]);
    line(&format!("quantize nowhere {} --to q8_0", place.text("x"))).fails(2, &["nowhere"]);
    assert!(!place.path("x").exists());
    let ran = line(&format!("eval --model embedded:base --storage q3 --text {}", place.text("general.txt")));
    assert!(ran.code == Some(2) && ran.stderr.contains("q4_k"), "{}", ran.stderr);
}

#[test]
fn a_file_quantised_by_what_the_model_reads_is_the_same_from_a_folder_and_a_file_and_in_the_format_asked_for() {
    let place = Place::new();
    let text = "embedded:general.txt";
    let loss =
        |model: &str| line(&format!("eval --json --model {model} --text {text}")).ok().json()["loss"].as_f64().unwrap();
    let whole = place.text("whole.gguf");
    line(&format!("quantize embedded:base {whole} --to f32")).ok();
    let quantise = |from: &str, name: &str, how: &str| {
        let file = place.text(name);
        let ran = line(&format!("quantize {from} {file} --to {how}")).ok();
        assert_eq!(ran.stderr.contains("rounding   4 of 4  "), how.contains("--calibrate"), "{}", ran.stderr);
        (loss(&file), ran.stdout)
    };
    let read = format!("--calibrate {text} --calibrate-tokens 3000");
    for to in ["q4_0", "q4_1"] {
        let (plain, rounded) = quantise("embedded:base", &format!("{to}.gguf"), to);
        let (folder, said) = quantise("embedded:base", &format!("{to}-folder.gguf"), &format!("{to} {read}"));
        let (file, _) = quantise(&whole, &format!("{to}-file.gguf"), &format!("{to} {read}"));
        assert!(said.contains(" tokens of embedded:general.txt"), "{said}");
        let matrices = |said: &str| said.split_once("matrices: ").unwrap().1.to_string();
        assert_eq!(matrices(&said), matrices(&rounded));
        assert_eq!(folder, file, "{to}: rows that a file permutes are found again");
        assert_ne!(folder, plain, "{to}");
    }
    // What is stored so already stays, to the bit, and what each element is rounded to alone needs no reading.
    let again = quantise(&place.text("q4_0-file.gguf"), "again.gguf", &format!("q4_0 {read}")).0;
    assert_eq!(again, loss(&place.text("q4_0-file.gguf")));
    let out = place.text("x.gguf");
    line(&format!("quantize embedded:base {out} --to f16 {read}")).fails(2, &["--calibrate", "leave it out"]);
    line(&format!("quantize embedded:base {out} --to q4_0 --calibrate nowhere.txt")).fails(2, &["nowhere.txt"]);
    let two = "--calibrate nowhere.txt --calibrate no.txt --calibrate-tokens 3";
    line(&format!("quantize embedded:base {out} --to q4_0 {two}")).fails(2, &["--calibrate-tokens 3", "at least 4"]);
    let ran = line(&format!("quantize embedded:base {out} --to q4_0 --calibrate-tokens 9"));
    assert!(ran.code == Some(2) && ran.stderr.contains("--calibrate <FILE>"), "{}", ran.stderr);
    assert!(!place.path("x.gguf").exists());
}

/// `general.name` of a GGUF file.
fn model_name(path: &Path) -> String {
    const KEY: &[u8] = b"general.name";
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(KEY.len()).position(|window| window == KEY).expect("a name") + KEY.len();
    // The type of a text, its length, and it.
    assert_eq!(bytes[at..at + 4], 8_u32.to_le_bytes());
    let length = u64::from_le_bytes(bytes[at + 4..at + 12].try_into().unwrap()) as usize;
    String::from_utf8(bytes[at + 12..at + 12 + length].to_vec()).unwrap()
}

#[test]
fn an_exported_run_measures_as_the_run_does_and_every_program_finds_its_files() {
    let place = Place::new();
    let text = place.text("general.txt");
    let loss = |what: &str| line(&format!("eval --json {what} --text {text}")).ok().json()["loss"].as_f64().unwrap();
    line(&format!("quantize embedded:base {} --to f32", place.text("base.gguf"))).ok();
    for base in ["embedded:base".to_string(), place.text("base.gguf")] {
        let out = if base.ends_with("gguf") { "of-gguf" } else { "of-folder" };
        place.train(out, &["run.steps=4", &format!("model.path={base}"), "adapter.rank=4"]).ok();
        let run = format!("--run {}", place.text(out));
        let trained = loss(&run);
        assert!((trained - loss(&format!("--model {base}"))).abs() > 1e-3, "the adapter changes something");
        for (to, tolerance) in [("f32", 1e-6), ("f16", 1e-3), ("bf16", 1e-2)] {
            let folder = place.text(&format!("{out}-{to}"));
            let ran = line(&format!("export {run} {folder} --to {to}")).ok();
            assert!(ran.stdout.contains("(rank 4) into 28 matrices of"), "{}", ran.stdout);
            let left = format!("of the adapter, 100 % is left after rounding to {}\n", to.to_uppercase());
            assert_eq!(ran.stdout.ends_with(&left), to != "f32", "{}", ran.stdout);
            assert!(!ran.stderr.contains("warning: rounded"), "{}", ran.stderr);
            assert_close(to, Some(loss(&format!("--model {folder}"))), Some(trained), tolerance);
            let config = place.json(&format!("{out}-{to}/config.json"));
            let dtype = if to == "f32" {
                "float32"
            } else if to == "f16" {
                "float16"
            } else {
                "bfloat16"
            };
            assert!(config.to_string().contains(dtype), "{config}");
            for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
                assert!(place.path(&format!("{out}-{to}/{file}")).is_file(), "{out} {to}: {file}");
            }
        }
        for (to, tolerance) in [("f32", 1e-6), ("f16", 1e-3), ("q8_0", 5e-3), ("q4_0", 0.2)] {
            let file = place.text(&format!("{out}-{to}.gguf"));
            line(&format!("export {run} {file} --to {to}")).ok();
            assert_close(to, Some(loss(&format!("--model {file}"))), Some(trained), tolerance);
        }
        let file = place.text(&format!("{out}-calibrated.gguf"));
        line(&format!("export {run} {file} --to q4_0 --calibrate {text} --calibrate-tokens 400")).ok();
        let plain = loss(&format!("--model {}", place.text(&format!("{out}-q4_0.gguf"))));
        let calibrated = loss(&format!("--model {file}"));
        assert!((calibrated - trained).abs() < 0.1 && calibrated != plain, "{calibrated}, {plain} of {trained}");
        let adapter = place.text(&format!("{out}-adapter.gguf"));
        let ran = line(&format!("export {run} --adapter-only {adapter}")).ok();
        assert!(ran.stdout.contains("an adapter of rank 4 for 28 matrices of"), "{}", ran.stdout);
        assert!(fs::read(&adapter).unwrap().starts_with(b"GGUF"));
        line(&format!("generate --model {adapter} --prompt x"))
            .fails(2, &["is an adapter and no model (general.type)"]);
        assert_eq!(model_name(&place.path(&format!("{out}-f16.gguf"))), out, "as the run");
        line(&format!("export {run} {adapter}")).fails(2, &["is already there"]);
        line(&format!("export {run} {}", place.text(out))).fails(2, &["is already there"]);
    }
    // A model and an adapter by themselves are what a run is; a model alone is only written anew.
    let adapter = place.text("of-folder/adapter");
    line(&format!("export --model embedded:base --adapter {adapter} {} --to f32", place.text("by-hand"))).ok();
    let weights = |folder: &str| fs::read(place.path(&format!("{folder}/model.safetensors"))).unwrap();
    assert_eq!(weights("by-hand"), weights("of-folder-f32"));
    line(&format!("export --model embedded:base {} --to f32", place.text("plain"))).ok();
    // Unless asked, bf16 stays bf16, and all else becomes f16.
    line(&format!("export --model embedded:base {} --to bf16", place.text("upper"))).ok();
    for (model, format) in [(place.text("upper"), "BF16"), (place.text("plain"), "F16")] {
        let file = line(&format!("export --model {model} {model}-unasked.gguf")).ok().stdout;
        assert!(file.contains(&format!("matrices: 29 in {format}\n")), "{file}");
        let folder = line(&format!("export --model {model} {model}-unasked")).ok().stdout;
        assert!(folder.contains(&format!("bytes in {format})")), "{folder}");
    }
    let plain = loss("--model embedded:base");
    assert_close("plain", Some(loss(&format!("--model {}", place.text("plain")))), Some(plain), 1e-6);
    // A model that was trained whole.
    place.train("full", &["run.steps=2", "model.path=embedded:base", "adapter.kind=none"]).ok();
    let run = format!("--run {}", place.text("full"));
    line(&format!("export {run} {} --to f32", place.text("full.gguf"))).ok();
    assert_eq!(model_name(&place.path("full.gguf")), "full");
    assert_close("full", Some(loss(&format!("--model {}", place.text("full.gguf")))), Some(loss(&run)), 1e-6);

    let out = place.text("x");
    for (wrong, parts) in [
        (format!("{run} {out} --to q8_0"), &["--to q8_0", "f16, bf16, f32", "in a file that ends in .gguf"][..]),
        (format!("{run} {out}.gguf --to q3"), &["--to q3", "q8_0, q4_0, q4_k_m, q4_k"]),
        (format!("{run} {out}.gguf --adapter-only"), &["full has no adapter, since all weights were trained"]),
        (format!("{run} {out} --adapter-only"), &["ends in .gguf"]),
        (format!("{run} {out} --storage f16"), &["--storage f16", "has none", "--to"]),
        (format!("--model nowhere {out}"), &["nowhere"]),
        (format!("--model {} --adapter {adapter} {out}", place.text("model")), &["lora_A"]),
        (format!("--run {} {out}", place.text("no-run")), &["no-run"]),
    ] {
        line(&format!("export {wrong}")).fails(2, parts);
    }
    assert!(!place.path("x").exists() && !place.path("x.gguf").exists());
}

#[test]
fn an_export_says_how_much_of_an_adapter_rounding_leaves_and_warns_where_a_grid_swallows_it() {
    let place = Place::new();
    place.train("out", &["run.steps=4", "model.path=embedded:base", "adapter.rank=4", "run.storage=q4_0"]).ok();
    let export = |to: &str| {
        let file = place.text(&format!("{to}.gguf"));
        line(&format!("export --run {} {file} --to {to}", place.text("out"))).ok()
    };
    let ran = export("q4_0");
    let percent = ran.stdout.lines().last().and_then(|last| {
        last.strip_prefix("of the adapter, ")?.strip_suffix(" % is left after rounding to Q4_0")?.parse::<i64>().ok()
    });
    assert!(percent.is_some_and(|percent| percent < 50), "{}", ran.stdout);
    let warned = ran.stderr.lines().find(|line| line.starts_with("warning: ")).expect("a warning");
    let said = format!("{} % of what it did", percent.unwrap());
    assert!([said.as_str(), "Q4_0", "--to f32", "--adapter-only"].iter().all(|part| warned.contains(part)), "{warned}");
    let ran = export("f32");
    assert!(
        !ran.stdout.contains("of the adapter") && !ran.stderr.contains("warning: rounded"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
}

// What a newcomer asks for, and what comes of it.

#[test]
fn an_override_without_effect_is_refused_and_an_empty_one_takes_back_what_may_be_left_out() {
    let place = Place::new();
    for (set, parts) in [
        (&["adapter.kind=none", "adapter.rank=8"][..], ["--set adapter.rank", "adapter.kind = \"lora\""]),
        (&["optim.schedule=constant", "optim.min_rate=0.1"], ["--set optim.min_rate", "optim.schedule"]),
        (&["optim.warmup_steps=11"], ["--set optim.warmup_steps", "run.steps, which is 10"]),
        (&["data.replay_share=0.2"], ["--set data.replay_share", "data.replay, which is not given"]),
        (&["objective.tau=0.5"], ["--set objective.tau", "objective.method = \"talr\""]),
        (&["run.steps=", "run.epochs=1e300"], ["--set run.epochs", "below 1000000"]),
        (&["run.seed="], ["--set run.seed", "is not a whole number"]),
        (&["run.seed=-1"], ["--set run.seed", "-1 is not a whole number from 0 to 9223372036854775807"]),
        (&["run.seed=18446744073709551616"], ["--set run.seed", "from 0 to 9223372036854775807"]),
        (&["run.patience=", "run.patince="], ["--set run.patince", "did you mean patience?"]),
    ] {
        place.train("out", set).fails(2, &parts);
        assert!(!place.path("out").exists(), "{set:?} left a folder behind");
    }
    let printed = |set: &[&str]| {
        let set = set.iter().flat_map(|set| ["--set", set].map(str::to_string));
        temper(["config".to_string(), place.text("run.toml")].into_iter().chain(set)).ok().stdout
    };
    let without = printed(&["data.target=", "data.general=", "run.steps=", "run.patience=2", "run.patience="]);
    for line in ["# target =", "# general =", "# steps =", "epochs = 1.0", "# patience =", "keep_best = false"] {
        assert!(without.lines().any(|found| found == line), "{line} is not in:\n{without}");
    }
    // What the file has of an adapter is printed, read again and trained without.
    let whole = printed(&["adapter.kind=none"]);
    assert!(whole.contains("\nrank = 4\n"), "{whole}");
    fs::write(place.path("printed.toml"), &whole).unwrap();
    assert_eq!(temper(["config", &place.text("printed.toml")]).ok().stdout, whole);
    place.train("whole", &["adapter.kind=none", "adapter.dropout=0", "run.steps=1", "data.target="]).ok();
    assert!(place.json("whole/summary.json")["retention"]["after"]["target"].is_null());
}

#[test]
fn a_run_without_a_result_says_why_to_whoever_asks_for_one_and_takes_no_more_steps() {
    let place = Place::new();
    // A model that knows something to forget, of which steps of this rate leave little.
    let known = ["model.path=embedded:base", "data.general=embedded:general.txt", "data.measured_tokens=512"];
    let coarse = ["run.forget_at_most=0", "run.steps=4", "run.eval_every=4", "optim.learning_rate=0.3"];
    let why = ["at step 4 general loss was ", "run.forget_at_most is 0", "in a new run a lower [optim] learning_rate"];
    place.train("none", &[&known[..], &coarse].concat()).fails(1, &why);
    let (run, text) = (place.text("none"), place.text("general.txt"));
    for command in [
        format!("generate --run {run} --prompt ab"),
        format!("chat --run {run}"),
        format!("eval --run {run} --text {text}"),
        format!("export --run {run} {}", place.text("out.gguf")),
    ] {
        let gone = "adapter: is not there, since the run ended without a result";
        let ran = line(&command).fails(2, &[&[gone, "used all the same with --step 4"], &why[..]].concat());
        assert!(!ran.stderr.contains("--resume"), "{command}: {}", ran.stderr);
    }
    line(&format!("eval --run {run} --step 4 --text {text}")).ok();
    let ran = place.resume("none").fails(1, &[&["no measured step can be the result"], &why[..]].concat());
    assert!(!ran.stderr.contains("train      "), "nothing was read for it: {}", ran.stderr);
    place.resume_with("none", &["run.steps=8"]).fails(1, &why);
}

#[test]
fn a_result_that_is_no_better_than_the_untouched_model_is_warned_of_wherever_it_is_shown() {
    let place = Place::new();
    let set = ["model.path=embedded:base", "adapter.kind=none", "optim.learning_rate=10", "run.eval_every=2"];
    let ran = place.train("out", &[&set[..], &["run.patience=1"]].concat()).ok();
    let warning = "no measured step has a lower target loss than the untouched model: ";
    let warned: Vec<&str> = ran.stderr.lines().filter(|line| line.contains(warning)).collect();
    assert!(warned.len() == 1 && warned[0].starts_with("warning: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("result     step 2 of the 2 made"), "{}", ran.stderr);
    let summary = place.json("out/summary.json");
    let kept = |message: &Value| message.as_str().unwrap().starts_with(warning);
    assert!(summary["warnings"].as_array().unwrap().iter().any(kept), "{summary:#}");
    assert!(fs::read_to_string(place.path("out/report.html")).unwrap().contains(&format!("Warning: {warning}")));
}

#[test]
fn a_comparison_of_a_single_variant_says_so_before_it_trains_anything() {
    let place = Place::new();
    let compare = |more: &str| line(&format!("compare {} --dry-run {more}", place.text("run.toml"))).ok().stderr;
    let said = compare("--vary run.seed=1,2");
    assert!(said.contains("warning: there is one variant, eaft, and nothing to compare it with"), "{said}");
    assert_eq!(compare("--vary objective.method=sft,eaft"), "");
}

#[test]
fn a_document_of_16384_tokens_trains_saves_resumes_and_is_measured() {
    let place = Place::new();
    let config: Value = serde_json::from_slice(&fs::read(place.path("model/config.json")).unwrap()).unwrap();
    let mut longer = config;
    longer["rope_scaling"] = json!({"type": "yarn", "factor": 128.0, "original_max_position_embeddings": 128});
    place.write("model/config.json", &longer.to_string());
    let text = |seed: usize| (0..20_000).map(|at| char::from(97 + ((at * at + seed) % 23) as u8)).collect::<String>();
    place.write("long.jsonl", &format!("{}\n{}\n", json!({"text": text(1)}), json!({"text": text(5)})));
    place.write(
        "long_target.jsonl",
        &(json!({"prompt": text(2)[..16_000], "completion": text(3)[..300]}).to_string() + "\n"),
    );
    let (train, target) = (place.text("long.jsonl"), place.text("long_target.jsonl"));
    let set = |steps: &str, packing: &str| {
        [
            format!("data.train={train}"),
            format!("data.target={target}"),
            "data.general=".into(),
            "data.cutoff_length=16384".into(),
            format!("data.packing={packing}"),
            "run.batch_tokens=16384".into(),
            "run.accumulation=1".into(),
            format!("run.steps={steps}"),
            "run.save_every=1".into(),
        ]
    };
    let go = |out: &str, steps: &str, packing: &str| {
        let set = set(steps, packing);
        place.train(out, &set.iter().map(String::as_str).collect::<Vec<_>>()).ok()
    };
    // A text is cut into documents of the length: of 20,001 tokens each, one of 16,384 and the rest.
    let ran = go("packed", "2", "true");
    assert!(ran.stderr.contains("4 documents, 40002 tokens"), "{}", ran.stderr);
    // A pass of three steps; two of them train 26,668 of its tokens in the mean, and a sixteenth of that is mapped.
    assert!(ran.stderr.contains("landscape  1,666 tokens of train, measured before and after"), "{}", ran.stderr);
    let losses = |out: &str| -> Vec<f64> { place.metrics(out).iter().map(|m| m["loss"].as_f64().unwrap()).collect() };
    go("unpacked", "2", "false");
    assert_close("loss", losses("unpacked"), losses("packed"), 1e-4);
    go("half", "1", "true");
    place.resume_with("half", &["run.steps=2"]).ok();
    assert_eq!(losses("half").len(), 2);
    assert!(place.json("half/summary.json")["retention"]["after"]["target"]["tokens"].as_u64().unwrap() >= 300);
    let ran = line(&format!("eval --json --run {} --data {target}", place.text("packed"))).ok().json();
    let after = &place.json("packed/summary.json")["retention"]["after"]["target"];
    assert_eq!(ran["tokens"], after["tokens"]);
    assert_close("loss", ran["loss"].as_f64(), after["loss"].as_f64(), 1e-6);
}

#[test]
fn a_split_gguf_is_one_model_by_the_name_of_any_of_its_parts() {
    let place = Place::new();
    let name = |number: u32| format!("m-{number:05}-of-00003.gguf");
    for number in 1..=3 {
        fs::write(place.path(&name(number)), gguf_part(number - 1, 3)).unwrap();
    }
    fs::write(place.path("whole.gguf"), gguf()).unwrap();
    let logits = |model: &str| {
        let out = place.text("logits.safetensors");
        line(&format!("logits --model {} --tokens 5,17,200,3 --out {out}", place.text(model))).ok();
        fs::read(&out).unwrap()
    };
    for number in 1..=3 {
        assert_eq!(logits(&name(number)), logits("whole.gguf"), "part {number}");
    }
    let quantise =
        |from: &str, to: &str| line(&format!("quantize {} {} --to q4_0", place.text(from), place.text(to))).ok().stdout;
    assert!(quantise(&name(2), "one.gguf").contains("15 in Q4_0"));
    quantise("whole.gguf", "other.gguf");
    assert_eq!(logits("one.gguf"), logits("other.gguf"));
    fs::remove_file(place.path(&name(3))).unwrap();
    let args = format!("logits --model {} --tokens 1 --out {}", place.text(&name(1)), place.text("x"));
    line(&args).fails(2, &[&name(3), "part 3 of 3 is missing", &name(1)]);
    line(&args.replace(&name(1), &name(3))).fails(2, &[&name(3), "no such file"]);
}

#[test]
fn a_run_on_weights_quantised_on_load_holds_fewer_bytes_and_resumes() {
    let place = Place::new();
    place.train("plain", &[]).ok();
    place.train("out", &["run.storage=q8_0", "run.steps=6"]).ok();
    let weights = |out: &str| {
        let summary = place.json(&format!("{out}/summary.json"));
        summary["memory"]["planned_bytes"]["weights"].as_u64().unwrap()
    };
    // 34 bytes a block of 32 in place of 128; norms and the adapter are f32 in both.
    assert!(weights("out") * 2 < weights("plain"), "{} of {}", weights("out"), weights("plain"));
    let ran = temper(["train", "--out", &place.text("out"), "--resume", "--set", "run.steps=8"]).ok();
    assert_eq!(place.metrics("out").len(), 8, "{}", ran.stderr);
    let after = &place.json("out/summary.json")["retention"]["after"]["target"]["perplexity"];
    let eval = |storage: &str| {
        let (run, data) = (place.text("out"), place.text("target.jsonl"));
        line(&format!("eval --json --run {run} --data {data} {storage}")).ok().json()["perplexity"].as_f64().unwrap()
    };
    let (as_trained, after) = (eval(""), after.as_f64().unwrap());
    assert!((as_trained / after - 1.0).abs() <= 1e-6, "{as_trained} and not {after}");
    assert_ne!(eval("--storage f32"), as_trained, "on the weights as the file has them");
    temper(["train", "--out", &place.text("out"), "--resume", "--set", "run.storage=q4_0"]).fails(2, &["storage"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    for arguments in [
        format!("eval --model embedded:base --text {}", place.text("general.txt")),
        format!("generate --model {} --prompt Rain --max-tokens 4", place.text("model")),
        "devices".into(),
    ] {
        let mut child =
            program().args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = wait(child);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments}");
    }
    // Nobody listens to the progress of a run: it goes on all the same.
    let mut child =
        program().args(place.arguments("out", &[])).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(place.path("out/summary.json").exists());
}

// Bad input.

#[test]
fn everything_wrong_with_a_configuration_is_reported_at_once_with_lines_and_suggestions() {
    let place = Place::new();
    place.configure("stepz = 5\nlog_every = 0\nstorage = \"f8\"\n");
    let lines = fs::read_to_string(place.path("run.toml")).unwrap();
    let at =
        |key: &str| format!("run.toml:{}: [run] {key}", lines.lines().position(|l| l.starts_with(key)).unwrap() + 1);
    place.train("out", &["objective.methd=sft", "optim.learning_rate=-1"]).fails(
        2,
        &[
            &format!("{}: unknown key; did you mean steps?", at("stepz")),
            &format!("{}: 0 is not a whole number of at least 1", at("log_every")),
            &at("storage"),
            "--set objective.methd: [objective] methd: unknown key; did you mean method?",
            "--set optim.learning_rate: [optim] learning_rate: -1 is not",
        ],
    );
    assert!(!place.path("out").exists(), "a mistake leaves no folder behind");
    place.write("run.toml", "[model\npath = 3\n");
    place.train("out", &[]).fails(2, &["run.toml:1: not valid TOML"]);
    fs::write(place.path("run.toml"), b"\xff\xfe").unwrap();
    place.train("out", &[]).fails(2, &["run.toml", "UTF-8"]);
    fs::remove_file(place.path("run.toml")).unwrap();
    place.train("out", &[]).fails(2, &["run.toml: there is no such file"]);
}

#[test]
fn data_and_models_that_are_given_as_a_configuration_are_told_where_they_go() {
    let place = Place::new();
    for (command, file) in [
        ("train", "train.jsonl"),
        ("plan", "general.txt"),
        ("config", "model/config.json"),
        ("train", "model/model.safetensors"),
        ("train", "model"),
        ("compare", "m.gguf"),
    ] {
        let said = format!("{file}: a configuration is TOML; data go behind --data, a model behind --model");
        line(&format!("{command} {}", place.text(file))).fails(2, &[&said]);
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let place = Place::new();
    for (set, parts) in [
        ("model.path=nowhere", &["nowhere"][..]),
        ("data.train=nowhere.jsonl", &["nowhere.jsonl", "train"]),
        ("data.train=embedded:nothing", &["embedded are"]),
        ("adapter.targets=gate_up_proj", &["gate_up_proj", "it has", "gate_proj"]),
        ("objective.top_k=1", &["top_k"]),
        ("data.cutoff_length=129", &["cutoff_length"]),
    ] {
        place.train("out", &[set]).fails(2, parts);
        assert!(!place.path("out").exists(), "{set} left a folder behind");
    }
    place.train("out", &["adapter.kind=none", "run.storage=f16"]).fails(2, &["storage"]);
    place.train("out", &["adapter.kind=none", "run.storage=q4_k"]).fails(2, &["[run] storage", "held in q4_k"]);
    let args = ["train", &place.text("run.toml"), "--out", &place.text("out")].map(str::to_owned);
    temper_on("gpu9", &args).fails(2, &["no device \"gpu9\"", "cpu"]);
    temper_on("", &["devices".into()]).fails(2, &["no device \"\"", "cpu"]);
    assert!(!place.path("out").exists());
    place.train("out", &[]).ok();
}

#[test]
fn a_long_document_is_refused_with_its_line_and_both_numbers() {
    let place = Place::new();
    let long = json!({"question": "a".repeat(100), "answer": "b".repeat(100)}).to_string();
    place.write("train.jsonl", &format!("{{\"question\":\"a\",\"answer\":\"b\"}}\n{long}\n"));
    place
        .train("out", &["data.cutoff_length=200", "run.batch_tokens=256"])
        .fails(2, &["train.jsonl, line 2", "context is 128", "cutoff_length"]);
}

#[test]
fn broken_records_stop_with_file_and_line_or_are_skipped_and_counted() {
    let place = Place::new();
    let good = fs::read_to_string(place.path("train.jsonl")).unwrap();
    let first: String = good.lines().take(5).map(|line| format!("{line}\n")).collect();
    let rest: String = good.lines().skip(5).map(|line| format!("{line}\n")).collect();
    for (broken, parts) in [
        ("{\"question\":\"half", &["not a JSON object", "column"][..]),
        ("{\"question\":\"a\"}", &["`answer` is missing"]),
        ("{\"question\":3,\"answer\":\"b\"}", &["`question` must be a string"]),
    ] {
        place.write("train.jsonl", &format!("{first}{broken}\n{rest}"));
        let ran = place.train("out", &[]);
        ran.fails(2, &["train.jsonl, line 6", parts[0], parts[parts.len() - 1]]);
        assert!(!place.path("out").exists());
        let ran = place.train("skipped", &["data.on_error=skip", "run.steps=1"]).ok();
        assert!(ran.stderr.contains("warning: train: 1 record was skipped"), "{}", ran.stderr);
        assert!(ran.stderr.contains("train.jsonl, line 6"), "{}", ran.stderr);
        assert_eq!(place.json("skipped/summary.json")["warnings"], json!(["train: 1 record was skipped"]));
        fs::remove_dir_all(place.path("skipped")).unwrap();
    }
    let mut bytes = first.into_bytes();
    bytes.extend(b"{\"question\":\"\xff\",\"answer\":\"b\"}\n");
    fs::write(place.path("train.jsonl"), bytes).unwrap();
    place.train("out", &[]).fails(2, &["train.jsonl, line 6", "UTF-8"]);
}

#[test]
fn what_happens_to_a_broken_record_is_the_same_in_the_sets_that_are_measured() {
    let place = Place::new();
    let good = fs::read_to_string(place.path("target.jsonl")).unwrap();
    place.write("target.jsonl", &format!("{good}not JSON\n"));
    place.train("out", &[]).fails(2, &["target.jsonl, line"]);
    let ran = place.train("skipped", &["data.on_error=skip", "run.steps=1"]).ok();
    assert!(ran.stderr.contains("warning: target: 1 record was skipped"), "{}", ran.stderr);
}

#[test]
fn a_rank_above_a_layers_width_is_refused_with_both_numbers_before_anything_is_allocated() {
    let place = Place::new();
    let rank = (i32::MAX).to_string();
    place.train("out", &[&format!("adapter.rank={rank}")]).fails(2, &[&rank, "q_proj", "inputs"]);
    assert!(!place.path("out").exists());
}

#[test]
fn data_of_which_nothing_is_left_to_train_on_is_refused() {
    let place = Place::new();
    let silent = json!({"messages": [{"role": "user", "content": "Nobody answers."}]}).to_string();
    for (data, on_error, parts) in [
        ("", "stop", &["train.jsonl", "empty"][..]),
        ("\n \n", "skip", &["train.jsonl", "empty"]),
        ("{\n{\n", "skip", &["train.jsonl", "no usable record", "2 lines"]),
        (&silent, "stop", &["train.jsonl, line 1", "no token is trained"]),
        (&silent, "skip", &["train.jsonl", "no record is left", "line 1"]),
    ] {
        place.write("train.jsonl", data);
        place.train("out", &[&format!("data.on_error={on_error}")]).fails(2, parts);
    }
}

/// `temper logits` on `model/`, which reads all of it.
fn logits(place: &Place) -> Ran {
    line(&format!("logits --model {} --tokens 1,2 --out {}", place.text("model"), place.text("y.safetensors")))
}

#[test]
fn truncated_and_lying_safetensors_are_refused_with_the_numbers() {
    let place = Place::new();
    let path = place.path("model/model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    for length in [0, 7, 8, 100, header, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        logits(&place).fails(2, &["model.safetensors"]);
    }
    let lying = |from: &str, to: &str| {
        let text = String::from_utf8(whole[8..header].to_vec()).unwrap();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend(&whole[header..]);
        fs::write(&path, bytes).unwrap();
        logits(&place).fails(2, &["model.safetensors"])
    };
    lying("\"data_offsets\":[0,", "\"data_offsets\":[4,");
    lying("\"shape\":[", "\"shape\":[18446744073709551615,");
    lying("\"shape\":[", "\"shape\":[-1,");
    lying("\"dtype\":\"F32\"", "\"dtype\":\"I64\"").fails(2, &["I64 is not supported"]);
    lying("\"dtype\":\"F32\"", "\"dtype\":\"BF16\"");
    let mut bytes = whole.clone();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    logits(&place).fails(2, &["18446744073709551615 bytes is announced"]);
    bytes = whole.clone();
    bytes.push(0);
    fs::write(&path, &bytes).unwrap();
    logits(&place).fails(2, &["bytes of tensors are announced"]);
    fs::write(&path, &whole).unwrap();
    logits(&place).ok();
}

#[test]
fn truncated_and_lying_gguf_files_are_refused() {
    let place = Place::new();
    let whole = gguf();
    let read = |bytes: &[u8]| {
        fs::write(place.path("m.gguf"), bytes).unwrap();
        let command = format!("logits --model {} --tokens 1 --out {}", place.text("m.gguf"), place.text("y"));
        line(&command)
    };
    for length in [0, 3, 4, 8, 16, 24, 100, 1000, whole.len() / 2, whole.len() - 33] {
        read(&whole[..length]).fails(2, &["m.gguf"]);
    }
    // Version, number of tensors, number of keys, length of the first key, its type.
    for (at, value) in [(4, 99), (8, u64::MAX), (16, u64::MAX), (24, u64::MAX), (8, 1 << 40), (16, 1 << 40)] {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        read(&bytes).fails(2, &["m.gguf"]);
    }
    read(&whole).ok();
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_named_together() {
    let place = Place::new();
    let path = place.path("model/model.safetensors");
    let mut tensors = read_tensors(&path);
    let norm = tensors.remove("model.norm.weight").unwrap();
    write_tensors(&path, &tensors);
    logits(&place).fails(2, &["model.safetensors", "model.norm.weight", "is missing", "[64]"]);
    tensors.insert("model.layers.7.mlp.up_proj.weight".into(), norm);
    tensors.get_mut("lm_head.weight").unwrap().1 = vec![64, 256];
    write_tensors(&path, &tensors);
    logits(&place).fails(
        2,
        &["3 tensors", "expected shape [256, 64], got [64, 256]", "layers.7.mlp.up_proj.weight: is unexpected"],
    );
    fs::remove_file(&path).unwrap();
    logits(&place).fails(2, &["model.safetensors", "there is neither"]);
}

#[test]
fn a_model_whose_description_is_wrong_is_refused() {
    let place = Place::new();
    let config = fs::read_to_string(place.path("model/config.json")).unwrap();
    for (from, to, part) in [
        ("\"llama\"", "\"mamba\"", "mamba"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", "number of layers is 0"),
        ("\"num_attention_heads\": 4", "\"num_attention_heads\": 3", "config.json"),
        ("\"hidden_size\": 64", "\"hidden_size\": 18446744073709551615", "config.json"),
        ("{", "{{", "config.json"),
    ] {
        assert!(config.contains(from), "{from}");
        place.write("model/config.json", &config.replacen(from, to, 1));
        logits(&place).fails(2, &[part]);
    }
}

#[test]
fn a_tokenizer_that_does_not_fit_the_vocabulary_is_refused() {
    let place = Place::new();
    place.write("model/tokenizer.json", &byte_tokenizer(1));
    place.train("out", &[]).fails(2, &["it has 257 tokens and the model only 256"]);
    place.write("model/tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}");
    place.train("out", &[]).fails(2, &["Unigram"]);
    place.write("model/tokenizer.json", "{");
    place.train("out", &[]).fails(2, &["tokenizer"]);
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    place.train("out", &[]).fails(2, &["no tokenizer.json", &place.text("model/tokenizer.json")]);
    logits(&place).ok();
    place.write("model/tokenizer.model", "");
    let way = "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)";
    place.train("out", &[]).fails(2, &["no tokenizer.json", "only tokenizer.model, which is not read", way]);
    logits(&place).ok();
}

#[test]
fn a_hostile_chat_template_is_refused_with_the_limit_and_can_be_left_out() {
    let place = Place::new();
    let doubling = "{% set n = namespace(x='aa') %}{% for i in range(64) %}{% set n.x = n.x ~ n.x %}{% endfor %}";
    place.write("model/chat_template.jinja", doubling);
    place
        .train("out", &[])
        .fails(2, &["train.jsonl, line 1", "exceeds the limit of", "bytes in one value", "data.template"]);
    assert!(!place.path("out").exists());
    place.train("out", &["data.on_error=skip"]).fails(2, &["no record is left", "data.template"]);
    place.train("out", &["data.template=none"]).ok();
}

#[test]
fn tokens_and_labels_out_of_range_are_named() {
    let place = Place::new();
    let many = ["1"; 129].join(",");
    line(&format!("logits --model {} --tokens {many} --out {}", place.text("model"), place.text("y")))
        .fails(2, &["129 tokens", "context is 128"]);
    let command = format!("logits --model {} --tokens 1,256 --out {}", place.text("model"), place.text("y"));
    let ran = line(&command).fails(2, &["token 256 (number 2 of the text)", "vocabulary of 256 tokens"]);
    assert!(!ran.stderr.contains("label"), "{}", ran.stderr);
    let mut tensors = loss_input(&place, "n7_v32_k20_a1");
    tensors.retain(|name, _| name == "n7_v32_k20_a1.logits" || name == "n7_v32_k20_a1.labels");
    let mut input: Tensors =
        tensors.into_iter().map(|(name, tensor)| (name.rsplit_once('.').unwrap().1.to_string(), tensor)).collect();
    let loss = |input: &Tensors| {
        write_tensors(&place.path("x.safetensors"), input);
        line(&format!("loss --logits {} --out {}", place.text("x.safetensors"), place.text("y")))
    };
    for label in [32, -1, i64::MAX, i64::MIN] {
        let mut wrong = input.clone();
        wrong.get_mut("labels").unwrap().2[16..24].copy_from_slice(&label.to_le_bytes());
        loss(&wrong).fails(2, &["row 2", &label.to_string(), "vocabulary of 32"]);
    }
    for value in [f32::NAN, f32::INFINITY] {
        let mut wrong = input.clone();
        wrong.get_mut("logits").unwrap().2[5 * 32 * 4..][..4].copy_from_slice(&value.to_le_bytes());
        loss(&wrong).fails(1, &["logits", "row 5"]);
    }
    loss(&input).ok();
    input.remove("labels");
    loss(&input).fails(2, &["x.safetensors", "labels", "is missing"]);
    fs::write(place.path("x.safetensors"), b"1234567890").unwrap();
    line(&format!("loss --logits {} --out {}", place.text("x.safetensors"), place.text("y")))
        .fails(2, &["x.safetensors"]);
    line(&format!("loss --logits {} --objective eeft --out y", place.text("x.safetensors"))).fails(2, &["eaft"]);
}

#[test]
fn a_weight_that_is_not_a_number_is_found_and_named() {
    let place = Place::new();
    let path = place.path("model/model.safetensors");
    let mut tensors = read_tensors(&path);
    let name = "model.layers.1.mlp.down_proj.weight";
    let at = (5 * 128 + 3) * 4;
    tensors.get_mut(name).unwrap().2[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    write_tensors(&path, &tensors);
    let named = format!("because of weight {name}, row 5");
    place.train("measured", &[]).fails(1, &["logits", &named]);
    line(&format!("eval --model {} --text {}", place.text("model"), place.text("general.txt")))
        .fails(1, &["logits", &named]);
    line(&format!("generate --model {} --prompt Rain", place.text("model"))).fails(1, &["logits", &named]);
    line(&format!("logits --model {} --tokens 1,2 --out {}", place.text("model"), place.text("y")))
        .fails(1, &["logits", &named]);
    assert!(!place.path("y").exists());
}

#[test]
fn a_run_that_diverges_stops_at_its_step_and_keeps_the_last_good_checkpoint() {
    let place = Place::new();
    let set = ["optim.learning_rate=1e37", "optim.warmup_ratio=0", "run.save_every=1"];
    let ran = place.train("out", &set).fails(1, &["not a finite number at row", "in step 2", "before it is intact"]);
    assert_eq!(place.metrics("out").len(), 1);
    assert_eq!(place.names("out/checkpoints"), ["step-00000001"]);
    assert!(!place.path("out/adapter").exists());
    // The checkpoint can be read: the run goes on from it to the same error.
    let again = place.resume("out").fails(1, &["in step 2"]);
    let message = |ran: &Ran| ran.stderr.lines().find(|line| line.starts_with("temper: error")).unwrap().to_string();
    assert_eq!(message(&again), message(&ran));
    let asked = |out: &str| line(&format!("generate --run {} --prompt Rain", place.text(out)));
    let why = "adapter: is not there: numbers of the run overflowed in step ";
    let ran = asked("out").fails(2, &[why, "step 2,", "lower optim.learning_rate", "before that with --step 1"]);
    assert!(!ran.stderr.contains("go on with it"), "{}", ran.stderr);
    // Without clipping, blocks are stepped one by one: weights that are no longer numbers may not be saved.
    let set = [&set[..], &["optim.max_grad_norm=0", "run.accumulation=1"]].concat();
    place.train("one-by-one", &set).fails(1, &["not a finite number at row", "in step", "before it is intact"]);
    // Where it comes out in a measurement, the step before it is to blame and not a file.
    let set = ["optim.learning_rate=1e37", "run.steps=1"];
    place.train("measured", &set).fails(1, &["not a finite number at row", "in step 1", "learning_rate"]);
    let ran = asked("measured").fails(2, &[why, "step 1,", "lower optim.learning_rate"]);
    assert!(!ran.stderr.contains("--step"), "no checkpoint is of an earlier step: {}", ran.stderr);
}

#[test]
fn a_run_that_diverges_with_finite_numbers_warns_in_the_command_the_summary_and_the_report_and_so_does_eval() {
    let place = Place::new();
    // This model knows something, which it can lose.
    let base = ["model.path=embedded:base", "adapter.kind=none"];
    let ran = place.train("out", &[&base[..], &["optim.learning_rate=10", "run.baseline=sft"]].concat()).ok();
    let warned: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("has diverged")).collect();
    assert_eq!(warned.len(), 2, "{}", ran.stderr);
    assert!(warned[0].starts_with("warning: eaft") && warned[1].starts_with("warning: sft"), "{warned:?}");
    let summary = place.json("out/summary.json");
    let report = fs::read_to_string(place.path("out/report.html")).unwrap();
    for (index, warned) in warned.iter().enumerate() {
        let message = warned.strip_prefix("warning: ").unwrap();
        assert_eq!(summary["warnings"][index], *message);
        assert!(report.contains(&format!("Warning: {message}.")), "{message}");
    }
    let eval = |of: &str| line(&format!("eval {of} --text {} --json", place.text("general.txt"))).ok();
    let diverged = eval(&format!("--run {}", place.text("out")));
    assert!(diverged.json()["loss"].as_f64().unwrap() > 2048f64.ln());
    assert!(diverged.stderr.lines().any(|line| line.contains("ln 2048 = 7.62")), "{}", diverged.stderr);

    let none = ["objective.method=profit", "objective.threshold=1", "run.steps=4", "run.log_every=2"];
    let ran = place.train("none", &[&base[..], &none].concat()).ok();
    let warned: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("has trained nothing")).collect();
    assert!(warned.len() == 1 && warned[0].starts_with("warning: profit"), "{}", ran.stderr);

    place.train("good", &[&base[..], &["optim.learning_rate=3e-4"]].concat()).ok();
    let report = fs::read_to_string(place.path("good/report.html")).unwrap();
    assert!(!report.contains("has diverged"));
    let untrained = eval("--model embedded:base");
    assert!(!untrained.stderr.contains("knowing nothing"), "{}", untrained.stderr);
}

// What files may be.

/// A run's message names the file and says all of `parts`; nothing was written.
fn refuses_data(place: &Place, path: &str, parts: &[&str]) {
    let set = format!("data.train={path}");
    place.train("out", &[&set]).fails(2, &[&[path], parts].concat());
    assert!(!place.path("out").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_or_a_folder_is_refused_as_data_configuration_and_model_before_it_is_read() {
    let place = Place::new();
    let model = place.text("model");
    refuses_data(&place, "/dev/zero", &["is a device", "a file, a pipe, or - for standard input"]);
    refuses_data(&place, &model, &["is a folder"]);
    for command in [
        format!("eval --model {model} --text /dev/zero"),
        format!("eval --model {model} --data /dev/zero"),
        "train /dev/zero".to_string(),
        "config /dev/zero".to_string(),
        format!("loss --logits /dev/zero --out {}", place.text("y")),
        format!("train --model {model} --data /dev/zero"),
    ] {
        line(&command).fails(2, &["/dev/zero", "is a device"]);
    }
    for path in ["/dev/zero", "/dev/null"] {
        line(&format!("eval --model {path} --text {}", place.text("general.txt")))
            .fails(2, &[path, "not a regular file"]);
    }
}

#[test]
fn a_file_that_is_larger_than_its_kind_can_be_is_refused_with_both_numbers() {
    let place = Place::new();
    let grow = |name: &str, bytes: u64| {
        let file = fs::OpenOptions::new().create(true).append(true).open(place.path(name)).unwrap();
        file.set_len(bytes).unwrap();
    };
    // These are holes: nothing lies on the disk.
    grow("large.jsonl", (4 << 30) + 1);
    let path = place.text("large.jsonl");
    refuses_data(&place, &path, &["4294967297 bytes", "at most 4294967296", "head -n"]);
    grow("large.toml", (1 << 20) + 1);
    line(&format!("config {}", place.text("large.toml"))).fails(2, &["large.toml", "1048577 bytes", "at most 1048576"]);
    let eval = format!("eval --model {} --text {}", place.text("model"), place.text("general.txt"));
    grow("model/tokenizer_config.json", (128 << 20) + 1);
    line(&eval).fails(2, &["tokenizer_config.json", "134217729 bytes", "at most 134217728"]);
    grow("model/config.json", (1 << 20) + 1);
    line(&eval).fails(2, &["config.json", "1048577 bytes", "at most 1048576"]);
}

/// As gzip packs it.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_a_small_file_unpacks_to_is_limited_with_a_number() {
    let place = Place::new();
    fs::write(place.path("good.jsonl.gz"), packed(&fs::read(place.path("train.jsonl")).unwrap())).unwrap();
    place.train("good", &[&format!("data.train={}", place.text("good.jsonl.gz")), "run.steps=1"]).ok();
    // 64 MiB of zeros, 17 times: a gzip file may have several parts.
    let bomb = packed(&vec![0; 64 << 20]).repeat(17);
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    fs::write(place.path("bomb.jsonl.gz"), &bomb).unwrap();
    let path = place.text("bomb.jsonl.gz");
    refuses_data(&place, &path, &["more than 1073741824 bytes when unpacked", "at most 1073741824", "gunzip"]);
    fs::write(place.path("bomb.toml.gz"), &bomb).unwrap();
    line(&format!("config {}", place.text("bomb.toml.gz"))).fails(2, &["bomb.toml.gz", "at most 1048576"]);
}

#[test]
fn a_record_longer_than_a_line_may_be_is_refused_with_its_line_and_both_numbers() {
    let place = Place::new();
    let good = fs::read_to_string(place.path("train.jsonl")).unwrap();
    let long = json!({"question": "a", "answer": "b".repeat(16 << 20)}).to_string();
    for name in ["long.jsonl", "long.jsonl.gz"] {
        let contents = format!("{good}{long}\n");
        let bytes = if name.ends_with("gz") { packed(contents.as_bytes()) } else { contents.into_bytes() };
        fs::write(place.path(name), bytes).unwrap();
        let length = long.len().to_string();
        refuses_data(&place, &place.text(name), &["line 49", &length, "16777216", "split the record"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn data_may_come_through_a_pipe_or_standard_input() {
    let place = Place::new();
    let model = place.text("model");
    let eval = |data: &str| {
        let script = format!("cd {0}; exec \"$0\" --device cpu eval --json --model {model} {data}", place.text("."));
        let mut bash = Command::new("bash");
        Ran::of(bash.args(["-c", &script, env!("CARGO_BIN_EXE_temper")]).output().unwrap())
    };
    let expected = eval("--data target.jsonl").ok().json();
    for data in [
        "--data - < target.jsonl",
        "--data /dev/stdin < target.jsonl",
        "--data <(cat target.jsonl)",
        "--data - < <(cat target.jsonl)",
    ] {
        assert_eq!(eval(data).ok().json(), expected, "{data}");
    }
    assert_eq!(eval("--text <(cat general.txt)").ok().json(), eval("--text general.txt").ok().json());
    // More than a configuration may have comes out of this pipe, and is not waited for.
    let script = "exec \"$0\" config <(yes '# a long comment')";
    let endless = Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_temper")]).output().unwrap();
    Ran::of(endless).fails(2, &["more than 1048576 bytes"]);
}

#[test]
fn a_run_whose_data_came_from_standard_input_goes_on_once_they_are_piped_in_again() {
    let place = Place::new();
    let piped = |arguments: Vec<String>| {
        let data = fs::File::open(place.path("train.jsonl")).unwrap();
        Ran::of(program().args(arguments).stdin(data).output().unwrap())
    };
    piped(place.arguments("out", &["data.train=-", "run.steps=2"])).ok();
    let more = || format!("train --resume --out {} --set run.steps=4", place.text("out"));
    line(&more()).fails(2, &["data came from standard input (-) and must be piped in again", "[data] train"]);
    piped(words(&more())).ok();
    assert_eq!(place.metrics("out").len(), 4);
    // What never had any is only empty.
    let ran = place.train("none", &["data.train=-"]).fails(2, &["data set -: the file is empty"]);
    assert!(!ran.stderr.contains("again"), "{}", ran.stderr);
}

#[test]
fn a_model_that_another_program_shortens_during_a_run_is_an_error_with_its_name_and_both_sizes() {
    for baseline in ["run.baseline=sft", "run.baseline=dft"] {
        let place = Place::new();
        // The model is read again when the baseline begins.
        let child = place.start("out", &["run.steps=150", baseline], 1);
        let path = place.path("model/model.safetensors");
        let length = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
        let (had, has) = (format!("had {length} bytes"), format!("has {} now", length / 2));
        wait(child).fails(1, &["model.safetensors", "changed by another program", &had, &has, "start again"]);
    }
}

#[test]
fn reading_a_data_set_takes_a_few_bytes_of_memory_a_byte() {
    let ran = line("bench data --mib 8 --turns 400 --repeat 1 --json").ok();
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let variants: Vec<&str> = lines.iter().map(|line| line["variant"].as_str().unwrap()).collect();
    assert_eq!(variants, ["text", "records", "one chat"]);
    for (measured, most) in lines.iter().zip([10.0, 10.0, f64::INFINITY]) {
        let per_byte = measured["bytes_per_byte"].as_f64().unwrap();
        // Systems that tell nothing of memory give 0.
        assert!(per_byte <= most && (per_byte > 1.0 || !cfg!(target_os = "linux")), "{measured}");
        assert!(measured["tokens"].as_u64().unwrap() > 1000, "{measured}");
    }
}

// Sizes that no machine has.

#[cfg(target_os = "linux")]
#[test]
fn a_model_that_needs_more_memory_than_there_is_is_refused_with_both_numbers_before_it_is_allocated() {
    let place = Place::new();
    let architecture = |keys: &[(&str, u64)]| {
        let mut config: Value = serde_json::from_slice(&fs::read(golden("tiny/llama/config.json")).unwrap()).unwrap();
        keys.iter().for_each(|(key, value)| config[*key] = (*value).into());
        place.write("huge.json", &config.to_string());
        let of = format!("model.architecture={}", place.text("huge.json"));
        let ran = place.train("out", &["model.init=random", "adapter.kind=none", &of]);
        assert!(!place.path("out").exists());
        ran
    };
    for keys in [
        &[("hidden_size", 1_000_000), ("intermediate_size", 1_000_000)][..],
        &[("vocab_size", 1 << 24), ("hidden_size", 1 << 16)],
        &[("intermediate_size", 1 << 20), ("hidden_size", 1 << 16)],
        &[("num_hidden_layers", 1 << 10), ("hidden_size", 1 << 20)],
        &[("num_attention_heads", 1 << 12), ("head_dim", 1 << 12), ("hidden_size", 1 << 20)],
    ] {
        // Each number is possible for itself.
        let ran = architecture(keys).fails(2, &["this machine has", "GiB available", "parameters) needs"]);
        assert!(!ran.stderr.contains("memory allocation"), "{}", ran.stderr);
    }
    for key in ["hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"] {
        for value in [i32::MAX as u64, i64::MAX as u64, u64::MAX] {
            architecture(&[(key, value)]).fails(2, &["huge.json"]);
        }
    }
    // The same numbers beside weights that are there.
    let config = fs::read_to_string(place.path("model/config.json")).unwrap();
    let mut huge: Value = serde_json::from_str(&config).unwrap();
    huge["hidden_size"] = 1_048_576.into();
    place.write("model/config.json", &huge.to_string());
    logits(&place).fails(2, &["tensors do not fit", "1048576"]);
}

#[test]
fn no_number_however_large_ends_the_program_otherwise_than_with_a_message() {
    let place = Place::new();
    for value in [i64::from(i32::MAX), i64::MAX] {
        let value = value.to_string();
        let runs = |set: &[&str], code: i32| {
            let ran = place.train("out", &[set, &["run.steps=2"]].concat());
            assert_eq!(ran.code, Some(code), "{set:?}: {}", ran.stderr);
            let _ = fs::remove_dir_all(place.path("out"));
        };
        // Counts of what is in memory end at 2147483647; up to there they only allow more than there is.
        let count = if value == i32::MAX.to_string() { 0 } else { 2 };
        for (key, code) in [
            ("run.batch_tokens", count),
            ("run.accumulation", count),
            ("run.keep", count),
            ("run.save_every", 0),
            ("run.eval_every", 0),
            ("run.log_every", 0),
            ("run.seed", 0),
            ("adapter.rank", 2),
            ("objective.top_k", count),
        ] {
            runs(&[&format!("{key}={value}")], code);
        }
        runs(&[&format!("data.cutoff_length={value}"), &format!("run.batch_tokens={value}")], count);

        let model = place.text("model");
        let ran = line(&format!("generate --model {model} --prompt ab --raw --max-tokens {value}"));
        assert_eq!(ran.code, Some(0), "--max-tokens {value}: {}", ran.stderr);
        for command in [
            "bench head --hidden 4096 --rows 8 --vocab ",
            "bench head --hidden 4096 --vocab 9999 --rows ",
            "bench head --rows 4096 --vocab 9999 --hidden ",
            "bench loss --vocab 9999 --rows ",
            "bench loss --rows 4096 --vocab ",
            "bench step --rank 2 --model embedded:base --tokens ",
            "bench step --tokens 16 --model embedded:base --rank ",
            "bench product --shape 4096x4096x",
            "bench data --mib ",
            "bench data --turns ",
        ] {
            let ran = line(&format!("{command}{value}"));
            assert_eq!(ran.code, Some(2), "{command}{value}: {}", ran.stderr);
        }
    }
}

/// As [`temper`], unable to write files of more than so many KiB.
#[cfg(target_os = "linux")]
fn limited(kib: usize, arguments: &[String]) -> Ran {
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("ulimit -f {kib}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_temper"), "--device", "cpu"]);
    Ran::of(bash.args(arguments).env("RUST_BACKTRACE", "1").output().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_a_run_with_advice_and_loses_nothing_that_was_saved() {
    let place = Place::new();
    let small = ["adapter.rank=1"];
    place.train("whole", &small).ok();
    // Too little for the first checkpoint.
    let again = format!("begins again with: temper train --out {} --resume", place.text("small"));
    let ran = limited(21, &place.arguments("small", &small)).fails(1, &["checkpoints/step-", "ulimit -f", &again]);
    assert!(!ran.stderr.contains(".partial-"), "{}", ran.stderr);
    assert_eq!(place.metrics("small").len(), 4);
    assert_eq!(place.names("small/checkpoints"), Vec::<String>::new(), "nothing half-written is left");
    place.resume("small").ok();
    assert_eq!(place.result("small"), place.result("whole"));
    // Enough for all but the report.
    let report = fs::metadata(place.path("whole/report.html")).unwrap().len() / 1024;
    limited(report as usize - 1, &place.arguments("almost", &small)).fails(1, &["report.html", "ulimit -f"]);
    assert_eq!(place.result("almost"), place.result("whole"), "the adapter was saved");
    place.resume("almost").ok();
    assert!(place.path("almost/report.html").exists());

    let model = place.text("model");
    let ran = line(&format!("logits --model {model} --tokens 1 --out /dev/full"));
    let ran = ran.fails(1, &["/dev/full", "the disk is full"]);
    assert!(!ran.stderr.contains("--resume"), "there is no run to go on with: {}", ran.stderr);
    assert!(!fs::metadata("/dev/full").unwrap().is_file(), "a device stays what it is");
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_to_is_named() {
    let place = Place::new();
    let sys = ["train".into(), place.text("run.toml"), "--out".into(), "/sys/temper-run".into()];
    temper(sys).fails(1, &["/sys/temper-run"]);
    place.train("run.toml", &[]).fails(2, &["run.toml", "is not a folder"]);
    place.train("run.toml/below", &[]).fails(2, &["run.toml/below", "is not a folder"]);
    let model = place.text("model");
    line(&format!("logits --model {model} --tokens 1 --out {}", place.text("no/where"))).fails(2, &["no/where"]);
}

#[test]
fn a_printed_configuration_explains_every_key_and_reads_back_as_it_was() {
    let place = Place::new();
    let run = place.text("run.toml");
    let printed = temper(["config", &run, "--set", "run.steps=3", "--set", "objective.gate=hard"]).ok().stdout;
    for part in ["\n# Optimiser steps, over which the schedule is spread.", "\nsteps = 3\n", "\ngate = \"hard\"\n"] {
        assert!(printed.contains(part), "{part:?} is not in:\n{printed}");
    }
    fs::write(place.path("printed.toml"), &printed).unwrap();
    assert_eq!(temper(["config", &place.text("printed.toml")]).ok().stdout, printed);
    assert!(line("config").ok().stdout.contains("path = \"embedded:base\""));
    temper(["config", &run, "--set", "run.stepz=3"]).fails(2, &["did you mean steps?"]);
}

/// The page makes its controls of a copy of what the command says of every setting. Where this fails after a change of a
/// setting, run it once with the variable `TEMPER_BLESS=1`, which writes the copy anew.
#[test]
fn the_pages_copy_of_the_schema_is_what_the_command_prints() {
    let path = golden("../../web/page/schema.js");
    let schema = line("config --schema").ok();
    assert_eq!(schema.json()["sections"][2]["name"], "objective");
    let wanted = format!(
        "// Written by `TEMPER_BLESS=1 cargo test --release -p temper --test cli schema`: what `temper config --schema` prints.\n\
         export default {};\n",
        schema.stdout.trim_end()
    );
    if std::env::var_os("TEMPER_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} is stale: see the test's comment", path.display());
}

// What was asked for and what is decided, whatever happens to the output.

#[test]
fn a_scan_replaces_no_results_but_those_of_a_scan() {
    let place = Place::new();
    place.train("out", &["run.steps=1"]).ok();
    let before = place.json("out/summary.json");
    let scan_into = |out: &str| {
        let (model, data) = (place.text("model"), place.text("target.jsonl"));
        line(&format!("scan --model {model} --data {data} --out {}", place.text(out)))
    };
    scan_into("out").fails(2, &["--out", "holds the results of a run"]);
    assert_eq!(place.json("out/summary.json"), before);
    fs::create_dir(place.path("other")).unwrap();
    place.write("other/summary.json", "{}");
    scan_into("other").fails(2, &["--out", "holds the results of something else than a scan"]);
    for _ in 0..2 {
        scan_into("scan").ok();
        assert_eq!(place.names("scan"), ["scan.html", "scan.jsonl", "summary.json"]);
    }
}

/// Waits until something is half-written in a folder.
fn wait_for_partial(place: &Place, folder: &str, child: &mut Child) {
    let begin = Instant::now();
    while !place.path(folder).is_dir() || !place.names(folder).iter().any(|name| name.starts_with(".partial-")) {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing is written");
        assert_eq!(child.try_wait().unwrap(), None, "it ended before");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn two_scans_do_not_write_one_folder_at_once() {
    let place = Place::new();
    let arguments = format!("scan --model {} --out {} --data", place.text("model"), place.text("scan"));
    let mut first = program();
    first.args(arguments.split_whitespace()).arg("-");
    let mut first = first.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_partial(&place, "scan", &mut first);
    let holder = format!("process {} is writing", first.id());
    line(&format!("{arguments} {}", place.text("train.jsonl"))).fails(2, &[&holder]);
    let records = fs::read(place.path("target.jsonl")).unwrap();
    std::io::Write::write_all(&mut first.stdin.take().unwrap(), &records).unwrap();
    let ran = wait(first);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(lines_of(&place.path("scan/scan.jsonl")).len(), 12);
}

#[cfg(unix)]
#[test]
fn a_file_whose_writing_is_stopped_is_gone() {
    let place = Place::new();
    fs::create_dir(place.path("made")).unwrap();
    let made = place.text("made");
    for arguments in [
        format!("fabricate --like qwen3-0.6b --quant bf16 --out {made}/model.gguf"),
        format!("scan --model {} --data - --out {} --curate {made}/kept", place.text("model"), place.text("scan")),
    ] {
        let mut child = program();
        child.args(arguments.split_whitespace());
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let records = fs::read(place.path("target.jsonl")).unwrap();
        if arguments.starts_with("scan") {
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), &records).unwrap();
            wait_for_partial(&place, "scan", &mut child);
        }
        wait_for_partial(&place, "made", &mut child);
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        drop(child.stdin.take());
        let ran = wait(child);
        assert_eq!(ran.code, Some(130), "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains("stopped as asked; nothing of it is left"), "{}", ran.stderr);
        assert_eq!(place.names("made"), [""; 0], "{arguments}");
    }
    assert!(!place.path("scan").exists(), "its folder was made for what is gone");
}

#[test]
fn a_check_fails_although_nobody_reads_what_it_prints() {
    let place = Place::new();
    sure_model(&place);
    let (model, train, out) = (place.text("model"), place.text("train.jsonl"), place.text("scan"));
    let arguments = format!("scan --model {model} --data {train} --out {out} --fail-above 0.05 --json");
    let mut child = program();
    child.args(arguments.split_whitespace());
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = wait(child);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("the check failed"), "{}", ran.stderr);
}

// What a run reads, and its folder.

/// Lines that no other file of a place has.
fn stones(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|n| format!("The river has {n} stones, and each of them has a name.\n")).collect()
}

#[test]
fn what_is_measured_is_left_out_of_replay_and_a_replay_of_nothing_else_is_refused() {
    let place = Place::new();
    let general = fs::read_to_string(place.path("general.txt")).unwrap();
    let (before, mixed) = (stones(0..40), stones(0..40) + &general + &stones(40..60));
    place.write("mixed.txt", &mixed);
    let replay = |name: &str| format!("data.replay={}", place.text(name));
    let ran = place.train("out", &[&replay("mixed.txt"), "data.cutoff_length=32", "run.steps=1"]).ok();
    // Documents of 32 bytes, and those of which at least half is measured.
    let (from, to) = (before.len(), before.len() + general.len());
    let is_measured = |&n: &usize| (32 * (n + 1)).min(to).saturating_sub(from.max(32 * n)) >= 16;
    let (all, gone) = (mixed.len() / 32 + 1, (0..=mixed.len() / 32).filter(is_measured).count());
    let (count, why) = (format!("{gone} of {all} documents, {} tokens", 32 * gone), format!("({gone} in general)"));
    let line =
        format!("replay     {count}, are left out: also in a set that is measured {why}, and not to be trained on");
    assert!(gone > 5 && ran.stderr.lines().any(|said| said == line), "{line}\n{}", ran.stderr);
    assert!(ran.stderr.contains("are mixed in: "), "{}", ran.stderr);
    // What is held out is measured, too.
    let ran = place.train("held", &[&replay("train.jsonl"), "data.hold_out=0.1", "run.steps=1"]).ok();
    for part in ["replay     5 of 48 documents, ", "(5 in target)"] {
        assert!(ran.stderr.contains(part), "{part} is not in {}", ran.stderr);
    }
    place.write("copy.txt", &general);
    let (same, copy) = (place.text("general.txt"), place.text("copy.txt"));
    let advice = "give data.replay a file of its own";
    let ran = place.train("refused", &[&replay("general.txt")]);
    ran.fails(2, &["data.replay and data.general are one file", &same, advice]);
    let ran = place.train("refused", &[&replay("copy.txt")]);
    ran.fails(2, &[&copy, "nothing of it is left", "all of its 4 documents are measured, too (4 in general)", advice]);
    assert!(!place.path("refused").exists());
}

#[test]
fn measured_documents_that_are_trained_on_are_warned_of_and_the_report_says_so() {
    let place = Place::new();
    let text = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    let (train, target, general) = (text("train.jsonl"), text("target.jsonl"), text("general.txt"));
    let three: String = target.lines().take(3).map(|line| format!("{line}\n")).collect();
    place.write("both.jsonl", &format!("{train}{three}"));
    place.write("twice.jsonl", &train.repeat(2));
    place.write("texts.jsonl", &format!("{}\n", json!({"text": general})));
    let end = "their loss says what was memorised";
    let twice = place.text("twice.jsonl");
    for (data, more, warning) in [
        ("both", &[][..], format!("3 of 12 target documents are also in the training data; {end}")),
        (
            "twice",
            &["data.hold_out=0.1"],
            format!("10 of 10 target documents are also in the training data ({twice} has them more than once); {end}"),
        ),
        // The end of the text is trained on, and not measured.
        (
            "texts",
            &[],
            format!(
                "3 of 4 general documents are also in the training data, and so is at least half of what is scored in 1 \
                 more; {end}"
            ),
        ),
    ] {
        let set = format!("data.train={}", place.text(&format!("{data}.jsonl")));
        let ran = place.train(data, &[&[&*set, "run.steps=1"][..], more].concat()).ok();
        assert!(ran.stderr.lines().any(|line| line == format!("warning: {warning}")), "{warning}\n{}", ran.stderr);
        let summary = place.json(&format!("{data}/summary.json"));
        assert!(summary["warnings"].as_array().unwrap().contains(&json!(warning)), "{summary:#}");
        let report = fs::read_to_string(place.path(data).join("report.html")).unwrap();
        assert!(report.contains("says what was memorised"), "{data}");
    }
    let ran = place.train("apart", &["run.steps=1"]).ok();
    assert!(!ran.stderr.contains("in the training data"), "{}", ran.stderr);
}

#[test]
fn a_run_with_replay_that_is_resumed_names_the_setting_and_the_file_that_changed_and_no_other() {
    let place = Place::new();
    let record = |answer: &str| json!({"question": "What is 2 plus 2?", "answer": answer}).to_string() + "\n";
    place.write("old.txt", &stones(0..60));
    place.write("wrong.jsonl", &record("5."));
    let sets = [("replay", "old.txt"), ("wrong", "wrong.jsonl")];
    let sets = sets.map(|(set, file)| format!("data.{set}={}", place.text(file)));
    place.train("out", &[&sets[0], &sets[1], "run.steps=2"]).ok();
    let files = [
        ("data.replay", "old.txt"),
        ("data.train", "train.jsonl"),
        ("data.target", "target.jsonl"),
        ("data.general", "general.txt"),
        ("data.wrong", "wrong.jsonl"),
    ];
    let named = |(setting, file): (&str, &str)| format!("{setting} {}: gives ", place.text(file));
    for changed in files {
        let own = fs::read_to_string(place.path(changed.1)).unwrap();
        let more = if changed.1.ends_with(".txt") { "And so on.\n".to_string() } else { record("6.") };
        place.write(changed.1, &(own.clone() + &more));
        let ran = place.resume("out").fails(2, &[&named(changed), "restore that to go on"]);
        for other in files.into_iter().filter(|other| *other != changed) {
            assert!(!ran.stderr.contains(&named(other)), "{other:?} did not change:\n{}", ran.stderr);
        }
        place.write(changed.1, &own);
    }
    place.resume("out").ok();
}

#[test]
fn a_finished_run_without_checkpoints_is_not_trained_again_and_an_unfinished_one_says_that_it_begins_again() {
    let place = Place::new();
    place.train("out", &["run.steps=2"]).ok();
    let result = place.result("out");
    fs::remove_dir_all(place.path("out/checkpoints")).unwrap();
    for set in [&[][..], &["run.steps=4"]] {
        let adapter = format!("its result is {}", place.path("out").join("adapter").display());
        place.resume_with("out", set).fails(2, &["the run is finished", &adapter, "another --out"]);
    }
    assert!(place.result("out") == result, "what is refused changes nothing");
    assert!(!place.path("out/checkpoints").exists());
    fs::remove_file(place.path("out/summary.json")).unwrap();
    let ran = place.resume("out").ok();
    let line = format!("resume     {} has no checkpoint: the run begins again, at its first step", place.text("out"));
    assert!(ran.stderr.lines().any(|said| said == line), "{}", ran.stderr);
    assert!(place.result("out") == result);
}

#[test]
fn what_is_refused_leaves_no_folder_behind_and_none_above_it() {
    let place = Place::new();
    place.write("bad.jsonl", "not json\nnor this\n");
    let refused = |arguments: &str| {
        temper_in(&place, &format!("{arguments} --model model --data bad.jsonl")).fails(2, &["bad.jsonl, line 1"]);
    };
    let all = ["train", "scan", "scan --skip-broken", "train --out new/below/run", "scan --out new/below/scan"];
    for arguments in all {
        refused(arguments);
        assert!(!place.path("runs").exists() && !place.path("new").exists(), "{arguments}");
    }
    // What was there before stays.
    fs::create_dir_all(place.path("runs")).unwrap();
    fs::create_dir_all(place.path("new/below")).unwrap();
    all.into_iter().for_each(refused);
    assert_eq!(place.names("runs"), [""; 0]);
    assert_eq!(place.names("new/below"), [""; 0]);
}

#[test]
fn a_table_is_refused_with_the_way_to_records_wherever_data_are_read() {
    let place = Place::new();
    place.write("t.csv", "question,answer\nWhat is 1 plus 1?,1 plus 1 is 2.\n");
    place.write("t.parquet", "PAR1");
    let (model, scan) = (place.text("model"), place.text("scan"));
    for name in ["t.csv", "t.parquet"] {
        let file = place.text(name);
        let train = |set: &str| place.train("out", &[&format!("data.{set}={file}")]);
        for ran in [
            train("train"),
            train("general"),
            train("replay"),
            line(&format!("eval --model {model} --data {file}")),
            line(&format!("scan --model {model} --data {file} --out {scan}")),
        ] {
            ran.fails(2, &[&file, "is a table", "one JSON object a line", "`messages`", ".to_json("]);
        }
    }
    assert!(!place.path("out").exists() && !place.path("scan").exists());
    // A text, where that is asked for.
    let csv = place.text("t.csv");
    line(&format!("eval --model {model} --text {csv}")).ok();
    place.train("out", &[&format!("data.train={csv}"), "data.format=text", "run.steps=1"]).ok();
}

#[test]
fn a_text_file_that_seems_to_hold_records_is_read_as_text_and_that_is_said() {
    let place = Place::new();
    fs::copy(place.path("train.jsonl"), place.path("records.txt")).unwrap();
    let (file, model, scan) = (place.text("records.txt"), place.text("model"), place.text("scan"));
    for (what, ran) in [
        ("train: ", place.train("out", &[&format!("data.train={file}"), "run.steps=1"])),
        ("data: ", line(&format!("eval --model {model} --data {file}"))),
        ("", line(&format!("scan --model {model} --data {file} --out {scan}"))),
    ] {
        let (ran, warning) = (ran.ok(), format!("warning: {what}{file} is read as plain text, "));
        let said = ran.stderr.lines().any(|line| line.starts_with(&warning) && line.contains("end in .jsonl"));
        assert!(said, "{warning}\n{}", ran.stderr);
    }
    let ran = place.train("own", &["run.steps=1"]).ok();
    assert!(!ran.stderr.contains("is read as plain text"), "{}", ran.stderr);
}

#[test]
fn data_that_are_no_utf_8_text_are_named_with_the_way_to_it_wherever_data_are_read() {
    let place = Place::new();
    let records = fs::read(place.path("train.jsonl")).unwrap();
    let utf_16: Vec<u8> = [0xFF, 0xFE].into_iter().chain(records.iter().flat_map(|byte| [*byte, 0])).collect();
    let (model, scan, file) = (place.text("model"), place.text("scan"), place.text("d.jsonl"));
    for (bytes, parts) in [
        (utf_16.as_slice(), ["is UTF-16", "iconv -f utf-16 -t utf-8"]),
        (&[0xFE, 0xFF, 0, b'{'][..], ["is UTF-16", "iconv -f utf-16 -t utf-8"]),
        (&packed(&records)[..], ["packed with gzip", "name it .gz"]),
        (&b"PK\x03\x04\x14"[..], ["is a zip file", "unzip it"]),
    ] {
        fs::write(&file, bytes).unwrap();
        for ran in [
            place.train("out", &[&format!("data.train={file}"), "data.on_error=skip"]),
            place.train("out", &[&format!("data.general={file}")]),
            line(&format!("eval --model {model} --data {file}")),
            line(&format!("eval --model {model} --text {file}")),
            line(&format!("scan --model {model} --data {file} --out {scan}")),
            line(&format!("generate --model {model} --prompts {file}")),
        ] {
            ran.fails(2, &parts).fails(2, &[&file]);
        }
    }
}

#[test]
fn conversations_that_lose_their_roles_for_want_of_a_template_are_warned_of_and_no_others() {
    let place = Place::new();
    let chat = |n: usize| {
        let [user, assistant] = [("user", format!("What is {n}?")), ("assistant", format!("{n} is a number."))]
            .map(|(role, content)| json!({"role": role, "content": content}));
        json!({"messages": [user, assistant]}).to_string()
    };
    place.write("chats.jsonl", &(0..12).map(|n| chat(n) + "\n").collect::<String>());
    let (file, model) = (place.text("chats.jsonl"), place.text("model"));
    let chats = format!("data.train={file}");
    let warning = "the model has no chat template: 12 conversations are read as bare lines, without roles; ";
    let says = |ran: Ran, set: &str| ran.ok().stderr.contains(&format!("warning: {set}: {warning}"));
    assert!(says(place.train("out", &[&chats, "run.steps=1"]), "train"));
    let summary = place.json("out/summary.json");
    let stands = summary["warnings"].as_array().unwrap().iter().filter_map(Value::as_str);
    assert!(stands.clone().any(|stands| stands.starts_with(&format!("train: {warning}"))), "{summary:#}");
    assert_eq!(stands.filter(|stands| stands.contains("no chat template")).count(), 1, "of no other set: {summary:#}");
    assert!(says(line(&format!("eval --model {model} --data {file}")), "data"));
    let scan = |out: &str| line(&format!("scan --model {model} --data {file} --out {}", place.text(out)));
    assert!(says(scan("one"), &file));

    let ran = place.train("pairs", &["run.steps=1"]).ok();
    let pairs = "no chat template: each is the prompt, a newline, the completion, and the end of text";
    assert_eq!(ran.stderr.matches(pairs).count(), 1, "{}", ran.stderr);

    let silent = |ran: Ran| assert!(!ran.stderr.contains("no chat template"), "{}", ran.stderr);
    silent(place.train("meant", &[&chats, "data.template=none", "run.steps=1"]).ok());
    silent(line(&format!("eval --run {} --data {file}", place.text("meant"))).ok());
    place.write("model/chat_template.jinja", TEMPLATE);
    silent(scan("two").ok());
    silent(line(&format!("eval --model {model} --data {file}")).ok());
}

#[test]
fn eval_leaves_out_broken_records_where_it_is_told_to_and_says_which() {
    let place = Place::new();
    let good = fs::read_to_string(place.path("target.jsonl")).unwrap();
    place.write("some.jsonl", &format!("{{half\n{good}not json\n"));
    place.write("all.jsonl", "{half\nnot json\n");
    place.write("one.jsonl", "{half\n");
    place.write("silent.jsonl", &json!({"messages": [{"role": "user", "content": "Nobody answers."}]}).to_string());
    let model = place.text("model");
    let eval =
        |name: &str, more: &str| line(&format!("eval --json --model {model} --data {} {more}", place.text(name)));
    eval("some.jsonl", "").fails(2, &["some.jsonl, line 1: not a JSON object"]);
    let ran = eval("some.jsonl", "--skip-broken").ok();
    for part in ["warning: data: 2 records were skipped", "some.jsonl, line 1: ", "some.jsonl, line 14: "] {
        assert!(ran.stderr.contains(part), "{part} is not in {}", ran.stderr);
    }
    let (some, all) = (ran.json(), eval("target.jsonl", "").ok().json());
    assert!(some["skipped"] == 2 && all["skipped"] == 0, "{some} {all}");
    assert!(some["loss"] == all["loss"] && some["tokens"] == all["tokens"], "{some} {all}");
    for (name, problem) in [
        ("all.jsonl", "no usable record: all 2 lines were skipped, the first because of: "),
        ("one.jsonl", "no usable record: its only line was skipped, because of: "),
        ("silent.jsonl", "no record is left: its only record was skipped, because of: "),
    ] {
        let first = format!("{problem}{}, line 1: ", place.text(name));
        eval(name, "--skip-broken").fails(2, &[&first]);
    }
    let ran = line(&format!("eval --model {model} --text {} --skip-broken", place.text("general.txt")));
    assert_eq!(ran.code, Some(2), "a text has no records: {}", ran.stderr);
}
