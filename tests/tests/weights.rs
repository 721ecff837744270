//! Weights and descriptions: every golden model folder and GGUF file, and files that lie.
//!
//! Run with `cargo test --release -p temper-conformance --test weights`. The tests of the real model need its GGUF file
//! in `TEMPER_SMOLLM2` (`cargo xtask smollm2` prints the path of a copy) and are skipped with a note otherwise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use temper_conformance::compare::close;
use temper_conformance::golden::{self, GoldenFolder, Tensors, bytes};
use temper_conformance::models;
use temper_engine::host::{Folder, MemoryFolder};
use temper_engine::inside::export::{model, peft};
use temper_engine::inside::model::family::{glm4, llama};
use temper_engine::inside::model::gguf::{GgufModel, unpermuted_row};
use temper_engine::inside::model::rope::{RopeScaling, Yarn};
use temper_engine::inside::model::{load, open};
use temper_engine::inside::weights::gguf::Gguf;
use temper_engine::inside::weights::safetensors::SafetensorsFile;
use temper_engine::inside::weights::{MemorySource, RawTensor, WeightFormat, WeightSource};
use temper_engine::models::{Architecture, Hold, Quantised, Recipe};
use temper_engine::result::{Adapter, WEIGHTS, beside_weights, write_source};
use temper_engine::{Device, ModelFiles, Result, wait};

/// Every tiny model, and one in shards.
fn tiny_models() -> impl Iterator<Item = &'static str> {
    models::TINY.into_iter().chain(["qwen3_bf16_sharded"])
}

/// Notes the largest allocation of a thread, so that a test can say that a lying count allocates nothing.
struct Watch;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // A thread that is ending has no cell any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static WATCH: Watch = Watch;

/// The result of `work` and its largest allocation in bytes.
fn watched<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let result = work();
    (result, LARGEST.get())
}

fn smollm2<T: Fn()>(test: T) -> Option<(open::Opened, Arc<GgufModel>)> {
    let file = temper_conformance::skip::smollm2(test)?;
    Some(open::open_gguf(Arc::new(file), "smollm2.gguf").expect("the file opens"))
}

/// A raw tensor of any type out of a golden file, by the reference reader.
fn reference(file: &[u8], name: &str) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data().to_vec()
}

fn reference_f32(file: &[u8], name: &str) -> Vec<f32> {
    reference(file, name).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn both_styles_of_configuration_mean_the_same_model() {
    for name in tiny_models() {
        let read = |file: &str| Architecture::from_config_json(&bytes(&format!("tiny/{name}/{file}")), file).unwrap();
        let (old, new) = (read("config.json"), read("config_v5.json"));
        assert_eq!(old, new, "{name}");
        let (gemma, phi) = (name == "gemma3", name.starts_with("phi3"));
        let shape = if gemma {
            (256, 32, 7, 4, 1)
        } else if phi || name == "mistral_window" {
            (256, 32, 2, 2, 1)
        } else {
            (256, 64, 2, 4, 2)
        };
        assert_eq!((old.vocab, old.hidden, old.layers, old.heads, old.kv_heads), shape, "{name}");
        assert_eq!(old.head_dim, if name.starts_with("qwen3") { 32 } else { 16 }, "{name}");
        assert_eq!(old.attention_bias, name == "qwen2", "{name}");
        let block = &old.family.block;
        assert_eq!(block.q_norm.is_some() && block.k_norm.is_some(), gemma || name.starts_with("qwen3"), "{name}");
        assert_eq!(old.tied_head, gemma || matches!(name, "llama_tied" | "qwen2" | "phi3_longrope"), "{name}");
        assert_eq!(old.rope.scaling.is_some(), gemma || matches!(name, "llama3_rope" | "phi3_longrope"), "{name}");
        assert_eq!(old.window_of(0), models::WINDOWED.contains(&name).then_some(8), "{name}");
        assert_eq!(old.window_of(5), None, "{name}: the sixth layer sees everything, where there is one");
        let local = old.local_rope.as_ref().map(|rope| (rope.theta, rope.scaling.is_some()));
        assert_eq!(local, gemma.then_some((1e4, false)), "{name}");
        let scale = if gemma { 32_f32.sqrt() } else { 1.0 };
        assert_eq!((old.embedding_scale, old.attention_scale), (f64::from(scale), None), "{name}");
        let glm = old.family == &glm4::FAMILY;
        assert_eq!(glm, name == "glm4", "{name}");
        assert_eq!((old.rope.interleaved, old.rope.rotary_dim == 8), (glm, glm), "{name}");
        assert_eq!(old.rope.rotary_dim == 12, phi, "{name}");
        let sandwich = glm || gemma;
        assert_eq!((block.attention_norm.is_some(), block.mlp_output_norm.is_some()), (sandwich, sandwich), "{name}");
        assert_eq!(block.gate_up.len() == 1, glm || phi, "{name}");
    }
}

/// `tiny/gemma3` as the larger models of its kind are published: a part for text, whose tensors have this prefix, and one that
/// sees.
fn gemma_that_sees(prefix: &str, vision: &str) -> MemoryFolder {
    let file = bytes("tiny/gemma3/model.safetensors");
    let text = safetensors::SafeTensors::deserialize(&file).unwrap();
    let renamed = |name: String| format!("{prefix}{}", name.strip_prefix("model.").unwrap());
    let mut views: Vec<_> = text.tensors().into_iter().map(|(name, view)| (renamed(name), view)).collect();
    let pixels = [0; 16];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 2], &pixels).unwrap();
    for name in ["vision_tower.vision_model.embeddings.patch_embedding", "multi_modal_projector.mm_soft_emb_norm"] {
        views.push((format!("{vision}{name}.weight"), view.clone()));
    }
    let config = serde_json::json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "bos_token_id": 1, "eos_token_id": [2],
        "text_config": golden::json("tiny/gemma3/config.json"), "vision_config": {"model_type": "siglip_vision_model"},
    });
    let mut folder = MemoryFolder::new();
    folder.insert("config.json", config.to_string().into_bytes()).unwrap();
    folder.insert("model.safetensors", safetensors::serialize(views, None).unwrap()).unwrap();
    folder
}

#[test]
fn a_gemma_that_sees_is_the_model_of_its_text() {
    let plain = open::open_folder(&GoldenFolder::new("tiny/gemma3")).unwrap();
    let ids: Vec<u32> = (0..17).map(|i| i * 7 % 250).collect();
    let logits = |folder: &dyn Folder| wait(models::from_folder(folder, &Device::cpu(), false).logits(&ids)).unwrap();
    let expected = logits(&GoldenFolder::new("tiny/gemma3"));
    // As published, and as transformers saves it.
    for (prefix, vision) in [("language_model.model.", ""), ("model.language_model.", "model.")] {
        let folder = gemma_that_sees(prefix, vision);
        let opened = open::open_folder(&folder).unwrap();
        assert_eq!(opened.architecture, plain.architecture, "{prefix}");
        assert_eq!(opened.special, plain.special, "{prefix}");
        assert_eq!(logits(&folder), expected, "{prefix}");
    }
}

#[test]
fn every_sixth_layer_of_a_gemma_whose_configuration_lists_no_kinds_sees_everything() {
    let expected = open::open_folder(&GoldenFolder::new("tiny/gemma3")).unwrap().architecture;
    // As published: with the number, and without.
    for pattern in [Some(6), None] {
        let mut config = golden::json("tiny/gemma3/config.json");
        for key in ["layer_types", "_sliding_window_pattern"] {
            config.as_object_mut().unwrap().remove(key).expect("a key of the golden configuration");
        }
        if let Some(pattern) = pattern {
            config["sliding_window_pattern"] = pattern.into();
        }
        let found = Architecture::from_config_json(config.to_string().as_bytes(), "config.json").unwrap();
        assert_eq!(found, expected, "{pattern:?}");
    }
}

#[test]
fn every_golden_folder_has_exactly_the_tensors_that_its_description_lists() {
    for name in tiny_models() {
        let opened = open::open_folder(&GoldenFolder::new(&format!("tiny/{name}"))).unwrap();
        let mut expected: Vec<String> = opened.architecture.tensor_specs().into_iter().map(|s| s.name).collect();
        expected.sort_unstable();
        assert_eq!(opened.weights.names(), expected, "{name}");
        let total: usize = expected.iter().map(|n| opened.weights.read(n).unwrap().elements()).sum();
        assert_eq!(total as u64, opened.architecture.parameter_count(), "{name}");
        assert_eq!((opened.special.bos, opened.special.eos.as_slice()), (Some(1), &[2][..]), "{name}");
    }
}

#[test]
fn tensors_read_on_demand_equal_those_of_the_reference_reader() {
    let file = bytes("tiny/llama/model.safetensors");
    let opened = open::open_folder(&GoldenFolder::new("tiny/llama")).unwrap();
    for name in opened.weights.names() {
        assert_eq!(opened.weights.read(&name).unwrap().bytes, reference(&file, &name), "{name}");
    }
}

#[test]
fn bf16_shards_hold_the_f32_models_weights_rounded_once() {
    let whole = open::open_folder(&GoldenFolder::new("tiny/qwen3")).unwrap();
    let shards = open::open_folder(&GoldenFolder::new("tiny/qwen3_bf16_sharded")).unwrap();
    for name in whole.weights.names() {
        let (full, half) = (whole.weights.read(&name).unwrap(), shards.weights.read(&name).unwrap());
        assert_eq!(half.format, WeightFormat::Bf16, "{name}");
        let rounded = RawTensor::quantise(&name, &full.shape, &full.to_f32(), WeightFormat::Bf16).unwrap();
        assert_eq!(rounded, half, "{name}");
    }
    assert!(shards.weights.file_of("lm_head.weight").ends_with("model-00003-of-00003.safetensors"));
}

#[test]
fn blocks_of_every_type_mean_what_the_gguf_package_says() {
    let file = bytes("gguf/blocks.safetensors");
    for format in WeightFormat::ALL.into_iter().filter(|&format| format != WeightFormat::F32) {
        let raw = reference(&file, &format!("{}.raw", format.name()));
        let expected = reference_f32(&file, &format!("{}.f32", format.name()));
        let found = format.to_f32(&raw);
        assert_eq!(found.len(), expected.len(), "{format:?}");
        for (at, (x, y)) in found.iter().zip(&expected).enumerate() {
            // One rounding more or less, of the product or of the difference.
            assert!((x - y).abs() <= 1e-6 * y.abs().max(1e-3), "{format:?} {at}: {x}, expected {y}");
        }
    }
}

#[test]
fn rows_are_quantised_to_the_bytes_that_the_gguf_package_writes() {
    let file = bytes("gguf/blocks.safetensors");
    let rows = reference_f32(&file, "rows.f32");
    for format in [
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
        WeightFormat::Q5_0,
        WeightFormat::Q5_1,
        WeightFormat::Q8_0,
        WeightFormat::Bf16,
        WeightFormat::F16,
    ] {
        let found = RawTensor::quantise("rows", &[6, 64], &rows, format).unwrap();
        assert_eq!(found.bytes, reference(&file, &format!("rows.{}", format.name())), "{format:?}");
    }
}

#[test]
fn rows_are_quantised_to_the_bytes_of_ggmls_q4_k_reference() {
    let file = bytes("gguf/blocks.safetensors");
    let rows = reference_f32(&file, "long_rows.f32");
    let found = RawTensor::quantise("rows", &[12, 256], &rows, WeightFormat::Q4K).unwrap();
    let expected = reference(&file, "long_rows.Q4_K");
    for (row, (found, expected)) in found.bytes.chunks(144).zip(expected.chunks(144)).enumerate() {
        assert_eq!(found, expected, "row {row}");
    }
}

#[test]
fn rows_are_quantised_to_the_bytes_of_ggmls_q6_k_reference() {
    let file = bytes("gguf/blocks.safetensors");
    let rows = reference_f32(&file, "long_rows.f32");
    let found = RawTensor::quantise("rows", &[12, 256], &rows, WeightFormat::Q6K).unwrap();
    let expected = reference(&file, "long_rows.Q6_K");
    for (row, (found, expected)) in found.bytes.chunks(210).zip(expected.chunks(210)).enumerate() {
        assert_eq!(found, expected, "row {row}");
    }
    for large in [4e8, 1e13, 1e30] {
        let mut values = rows[..256].to_vec();
        values[100] = large;
        let problem = RawTensor::quantise("rows", &[1, 256], &values, WeightFormat::Q6K).unwrap_err().to_string();
        assert!(problem.contains("elements from 0 on are too large for Q6_K"), "{problem}");
    }
}

/// The tiny models that are there as GGUF files too.
const IN_GGUF: [&str; 5] = ["llama3_rope", "glm4", "gemma3", "phi3", "phi3_longrope"];

#[test]
fn a_gguf_file_is_the_same_model_as_the_folder_that_it_was_made_from() {
    for name in IN_GGUF {
        let folder = open::open_folder(&GoldenFolder::new(&format!("tiny/{name}"))).unwrap();
        let file = Arc::new(bytes(&format!("gguf/{name}.gguf")));
        let (opened, gguf) = open::open_gguf(file, name).unwrap();
        // Up to the rotary scaling's last digits, which GGUF stores as divisors only.
        let frequencies = folder.architecture.rope_frequencies();
        assert_eq!(opened.architecture.rope_frequencies().len(), frequencies.len());
        for (x, y) in opened.architecture.rope_frequencies().iter().zip(&frequencies) {
            assert!((x - y).abs() <= 1e-6 * y, "{name}: {x}, expected {y}");
        }
        let attention =
            |architecture: &Architecture| architecture.rope.scaling.as_ref().map_or(1.0, RopeScaling::attention);
        let (x, y) = (attention(&opened.architecture), attention(&folder.architecture));
        assert!((x - y).abs() <= 1e-6 * y, "{name}: {x}, expected {y}");
        let mut same = opened.architecture.clone();
        same.rope.scaling = folder.architecture.rope.scaling.clone();
        assert_eq!(same, folder.architecture, "{name}");
        assert_eq!(opened.weights.names(), folder.weights.names());
        for tensor in folder.weights.names() {
            let original = folder.weights.read(&tensor).unwrap();
            let expected = match original.shape.len() {
                1 => original,
                _ => RawTensor::quantise(&tensor, &original.shape, &original.to_f32(), WeightFormat::Q8_0).unwrap(),
            };
            assert_eq!(opened.weights.read(&tensor).unwrap(), expected, "{name} {tensor}");
        }
        let tokenizer = gguf.vocabulary().unwrap();
        assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_deref()), ("gpt2", Some("smollm")));
        assert_eq!((tokenizer.tokens.len(), tokenizer.tokens[255].as_str()), (256, "t255"));
        assert_eq!(tokenizer.merges, ["t t", "t 1"]);
        assert_eq!((tokenizer.bos, tokenizer.eos, tokenizer.add_bos), (Some(1), Some(2), Some(false)));
        assert_eq!(tokenizer.chat_template.as_deref(), Some("{{ messages }}"));
    }
}

/// A folder of one file.
fn alone(name: &str, bytes: &[u8]) -> MemoryFolder {
    let mut folder = MemoryFolder::new();
    folder.insert(name, bytes.to_vec()).unwrap();
    folder
}

/// A file as it would be written.
fn written(model: &Quantised) -> Arc<Vec<u8>> {
    let mut file = Vec::new();
    model.write(&mut file).unwrap();
    Arc::new(file)
}

/// A tensor of a file with matrices in `format`, of which the head has at least six bits.
fn stored_as(raw: &RawTensor, format: WeightFormat, is_head: bool) -> RawTensor {
    let few = [WeightFormat::Q4_0, WeightFormat::Q4K].contains(&format);
    let format = if few && is_head { WeightFormat::Q6K } else { format };
    match raw.shape.len() {
        1 => raw.stored_as(WeightFormat::F32).unwrap(),
        _ => raw.stored_as(format.for_rows(raw.shape[1])).unwrap(),
    }
}

/// True for the tensor that is the head of a model of these tensors.
fn is_head(name: &str, names: &[String]) -> bool {
    let heads = ["output.weight", "lm_head.weight"];
    match names.iter().any(|name| heads.contains(&name.as_str())) {
        true => heads.contains(&name),
        false => ["token_embd.weight", "model.embed_tokens.weight"].contains(&name),
    }
}

#[test]
fn a_quantised_gguf_file_differs_from_its_source_in_its_matrices_alone() {
    for name in IN_GGUF {
        let source = Arc::new(bytes(&format!("gguf/{name}.gguf")));
        let before = Gguf::open(source.clone(), name).unwrap();
        for format in [WeightFormat::Q4_0, WeightFormat::Q4K, WeightFormat::F16] {
            let file =
                written(&Quantised::of_gguf(&alone(name, &source), name, Recipe::Uniform(format), None).unwrap());
            let after = Gguf::open(file.clone(), name).unwrap();
            assert_eq!(after.names(), before.names());
            for tensor in before.names() {
                let expected = stored_as(&before.read(&tensor).unwrap(), format, is_head(&tensor, &before.names()));
                assert_eq!(after.read(&tensor).unwrap(), expected, "{name} {tensor} in {format:?}");
            }
            let values = |file: &Gguf| {
                let all = file.stored_values().map(|stored| stored.map(|(key, value)| (key.to_owned(), value)));
                let about = ["general.file_type", "general.quantization_version"];
                all.map(Result::unwrap).filter(|(key, _)| !about.contains(&key.as_str())).collect::<Vec<_>>()
            };
            assert_eq!(values(&after), values(&before), "{name}");
            assert_eq!(after.metadata().unsigned("general.quantization_version"), Some(2));
            let (opened, _) = open::open_gguf(file, name).unwrap();
            assert_eq!(opened.architecture, open::open_gguf(source.clone(), name).unwrap().0.architecture, "{name}");
        }
    }
}

/// A golden folder with a tokenizer of one token a byte.
struct WithTokenizer(GoldenFolder);

impl Folder for WithTokenizer {
    fn open(&self, name: &str) -> Result<Option<Arc<dyn temper_engine::host::Bytes>>> {
        if name != "tokenizer.json" {
            return self.0.open(name);
        }
        let visible = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let mut hidden = 256..;
        let spelt = (0..256_u32).map(|byte| if visible(&byte) { byte } else { hidden.next().unwrap() });
        let tokens = spelt.map(|code| char::from_u32(code).unwrap().to_string());
        let vocab: serde_json::Map<_, _> = tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
        let bytes = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        let model = serde_json::json!({"type": "BPE", "vocab": vocab, "merges": []});
        let file = serde_json::json!({"pre_tokenizer": bytes, "decoder": {"type": "ByteLevel"}, "model": model});
        Ok(Some(Arc::new(file.to_string().into_bytes())))
    }

    fn display(&self, name: &str) -> String {
        self.0.display(name)
    }
}

#[test]
fn a_folder_becomes_a_gguf_file_of_the_same_model() {
    for name in tiny_models() {
        let files = ModelFiles::open_folder(&WithTokenizer(GoldenFolder::new(&format!("tiny/{name}")))).unwrap();
        for format in [WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::F16] {
            let file = written(&Quantised::of_files(&files, name, Recipe::Uniform(format)).unwrap());
            let (opened, gguf) = open::open_gguf(file, name).unwrap();
            let mut same = opened.architecture.clone();
            // GGUF has Llama's name for Mistral, and of a rotary scaling the divisors only.
            same.family = files.architecture.family;
            same.rope.scaling = files.architecture.rope.scaling.clone();
            assert_eq!(same, files.architecture, "{name}");
            let source = files.weights.as_ref().unwrap();
            assert_eq!(opened.weights.names(), source.names(), "{name}");
            for tensor in source.names() {
                let expected = stored_as(&source.read(&tensor).unwrap(), format, is_head(&tensor, &source.names()));
                assert_eq!(opened.weights.read(&tensor).unwrap(), expected, "{name} {tensor} in {format:?}");
            }
            let (ours, read) = (files.tokenizer().unwrap(), gguf.tokenizer().unwrap());
            let text = "It's 1234 o'clock\n\n  naïve 𝄞";
            assert_eq!(read.encode(text).unwrap(), ours.encode(text).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_models_digest_is_the_same_loaded_and_unloaded() {
    let device = Device::cpu();
    for name in tiny_models() {
        let files = ModelFiles::open_folder(&GoldenFolder::new(&format!("tiny/{name}"))).unwrap();
        for hold in [Hold::Auto, Hold::Q8_0] {
            let loaded = files.load(&device, hold, false, 0).unwrap().origin;
            assert_eq!(files.origin().unwrap(), Some(loaded), "{name} held as {hold:?}");
        }
    }
}

/// `W + alpha / rank B A` of a golden adapter, in f64 with plain loops.
fn with_product(w: &RawTensor, adapter: &Adapter, (a, b): (&[f32], &[f32])) -> Vec<f64> {
    let (rank, columns) = (adapter.settings.rank, w.shape[1]);
    let product = |row: usize, column: usize| -> f64 {
        (0..rank).map(|r| f64::from(b[row * rank + r]) * f64::from(a[r * columns + column])).sum()
    };
    let scale = adapter.settings.alpha / rank as f64;
    let values = w.to_f32().into_iter().enumerate();
    values.map(|(at, value)| f64::from(value) + scale * product(at / columns, at % columns)).collect()
}

fn golden_adapter(name: &str) -> Adapter {
    let (settings, values) = peft::read(&GoldenFolder::new(&format!("tiny/{name}/lora"))).unwrap();
    Adapter { settings, values, file: "lora".into(), base: Hold::Auto }
}

#[test]
fn a_merged_adapter_is_the_sum_and_answers_as_peft_does_in_a_folder_and_in_gguf() {
    for name in models::ADAPTED {
        let open_base = || ModelFiles::open_folder(&WithTokenizer(GoldenFolder::new(&format!("tiny/{name}")))).unwrap();
        let (base, adapter) = (open_base(), golden_adapter(name));
        let before = base.weights.clone().unwrap();
        let f32s = Recipe::Uniform(WeightFormat::F32);
        let base_gguf = written(&Quantised::of_files(&base, name, f32s).unwrap());
        let merged = adapter.merged_into(base).unwrap();
        let after = merged.weights.clone().unwrap();
        for tensor in before.names() {
            let (was, is) = (before.read(&tensor).unwrap(), after.read(&tensor).unwrap());
            let pair = tensor.strip_suffix(".weight").and_then(|module| adapter.values.get(module));
            match pair {
                None => assert_eq!(is, was, "{name} {tensor}"),
                Some((a, b)) => {
                    let wanted = with_product(&was, &adapter, (a, b));
                    close(&tensor, &is.to_f32(), &wanted, 1e-6, 1e-6).unwrap();
                    assert_ne!(is.to_f32(), was.to_f32(), "{name} {tensor}");
                }
            }
        }

        // As a folder, and as a file out of a folder and out of a file: the same weights, and PEFT's logits.
        let expected = Tensors::read(&format!("tiny/{name}/lora/expected.safetensors"));
        let inputs = Tensors::read(&format!("tiny/{name}/expected.safetensors"));
        let ids: Vec<u32> = inputs.ints("input_ids")[..17].iter().map(|&t| t as u32).collect();
        let answers = |files: &ModelFiles, what: &str| {
            let mut model = files.load(&Device::cpu(), Hold::Auto, false, 0).unwrap();
            let logits = wait(model.logits(&ids)).unwrap();
            close(&format!("{name} {what}"), &logits, expected.floats("logits_row0"), 1e-4, 1e-4).unwrap();
        };
        let mut folder = MemoryFolder::new();
        for (file, contents) in beside_weights(&merged, WeightFormat::F32, &[]).unwrap() {
            folder.insert(&file, contents).unwrap();
        }
        let mut weights = Vec::new();
        write_source(&mut weights, &merged.architecture, after.as_ref(), WeightFormat::F32).unwrap();
        folder.insert(WEIGHTS, weights).unwrap();
        answers(&ModelFiles::open_folder(&folder).unwrap(), "as a folder");
        let out_of_folder = written(&Quantised::of_files(&merged, name, f32s).unwrap());
        answers(&ModelFiles::open_gguf(out_of_folder.clone(), name).unwrap(), "as a file");
        let out_of_file = Quantised::of_gguf(&alone(name, &base_gguf), name, f32s, Some(&adapter)).unwrap();
        let out_of_file = written(&out_of_file);
        let (one, other) = (Gguf::open(out_of_folder, name).unwrap(), Gguf::open(out_of_file.clone(), name).unwrap());
        for tensor in one.names() {
            assert_eq!(other.read(&tensor).unwrap(), one.read(&tensor).unwrap(), "{name} {tensor}");
        }
        let coarse =
            Quantised::of_gguf(&alone(name, &base_gguf), name, Recipe::Uniform(WeightFormat::Q8_0), Some(&adapter));
        let coarse = Gguf::open(written(&coarse.unwrap()), name).unwrap();
        for tensor in one.names() {
            let wanted = stored_as(&one.read(&tensor).unwrap(), WeightFormat::Q8_0, false);
            assert_eq!(coarse.read(&tensor).unwrap(), wanted, "{name} {tensor}");
        }

        // Alone: what llama.cpp adds to the file's own tensors gives the merged file's.
        let mut alone = Vec::new();
        adapter.write_gguf(&merged.architecture, &mut alone).unwrap();
        let alone = Gguf::open(Arc::new(alone), "adapter").unwrap();
        let text = |key: &str| alone.metadata().text(key);
        let family = merged.architecture.family.gguf_architecture;
        assert_eq!((text("general.type"), text("adapter.type")), (Some("adapter"), Some("lora")));
        assert_eq!(text("general.architecture"), family);
        assert_eq!(alone.metadata().number("adapter.lora.alpha"), Some(adapter.settings.alpha));
        assert_eq!(alone.names().len(), 2 * adapter.values.len());
        let base_file = Gguf::open(base_gguf, name).unwrap();
        for tensor in alone.names().iter().filter_map(|name| name.strip_suffix(".lora_a")) {
            let part = |end: &str| alone.read(&format!("{tensor}.{end}")).unwrap();
            let (a, b) = (part("lora_a"), part("lora_b"));
            let w = base_file.read(tensor).unwrap();
            let rank = adapter.settings.rank;
            assert_eq!((a.shape.as_slice(), b.shape.as_slice()), (&[rank, w.shape[1]][..], &[w.shape[0], rank][..]));
            let wanted = with_product(&w, &adapter, (&a.to_f32(), &b.to_f32()));
            close(tensor, &one.read(tensor).unwrap().to_f32(), &wanted, 1e-6, 1e-6).unwrap();
        }
    }
}

#[test]
fn an_adapter_is_merged_into_the_weights_that_it_was_trained_on_or_not_at_all() {
    let open_base = || ModelFiles::open_folder(&GoldenFolder::new("tiny/llama")).unwrap();
    let rounded = Adapter { base: Hold::Q8_0, ..golden_adapter("llama") };
    let merged = rounded.merged_into(open_base()).unwrap().weights.unwrap();
    let base = open_base().weights.unwrap();
    for tensor in base.names() {
        let raw = base.read(&tensor).unwrap();
        let held = if raw.shape.len() == 1 { raw } else { stored_as(&raw, WeightFormat::Q8_0, false) };
        match tensor.strip_suffix(".weight").and_then(|module| rounded.values.get(module)) {
            None => assert_eq!(merged.read(&tensor).unwrap(), held, "{tensor}"),
            Some((a, b)) => {
                let wanted = with_product(&held, &rounded, (a, b));
                close(&tensor, &merged.read(&tensor).unwrap().to_f32(), &wanted, 1e-6, 1e-6).unwrap();
            }
        }
        let format = merged.read(&tensor).unwrap().format;
        assert_eq!(merged.format(&tensor), Some(format), "{tensor}");
    }
    let wrong = |change: &dyn Fn(&mut Adapter)| {
        let mut adapter = golden_adapter("llama");
        change(&mut adapter);
        adapter.merged_into(open_base()).err().unwrap().to_string()
    };
    let module = "model.layers.0.mlp.up_proj";
    let pair = golden_adapter("llama").values[module].clone();
    for stranger in ["lm_head", "model.embed_tokens", "model.layers.99.mlp.up_proj", "model.layers.0.input_layernorm"] {
        let problem = wrong(&|adapter| drop(adapter.values.insert(stranger.into(), pair.clone())));
        assert!(problem.contains(stranger) && problem.contains("fits no linear layer"), "{problem}");
    }
    let problem = wrong(&|adapter| {
        adapter.values.get_mut(module).unwrap().0.pop();
    });
    assert!(problem.contains(module) && problem.contains("expected lora_A ["), "{problem}");
    let other = golden_adapter("llama");
    let no_weights = ModelFiles { weights: None, ..open_base() };
    assert!(other.merged_into(no_weights).err().unwrap().to_string().contains("no weights"));
}

/// A golden folder with another rotary scaling.
struct Rescaled(WithTokenizer, serde_json::Value);

impl Folder for Rescaled {
    fn open(&self, name: &str) -> Result<Option<Arc<dyn temper_engine::host::Bytes>>> {
        if name != "config.json" {
            return self.0.open(name);
        }
        let mut config = golden::json("tiny/llama/config.json");
        config["rope_scaling"] = self.1.clone();
        Ok(Some(Arc::new(config.to_string().into_bytes())))
    }

    fn display(&self, name: &str) -> String {
        self.0.display(name)
    }
}

fn rescaled(scaling: serde_json::Value) -> ModelFiles {
    ModelFiles::open_folder(&Rescaled(WithTokenizer(GoldenFolder::new("tiny/llama")), scaling)).unwrap()
}

#[test]
fn a_rotary_scaling_survives_quantising_out_of_a_folder_and_out_of_gguf() {
    for (scaling, keys) in [
        (serde_json::json!({"type": "linear", "factor": 4.0}), &["type", "factor"][..]),
        (
            serde_json::json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
            &["type", "factor", "original_context_length"],
        ),
        (
            serde_json::json!({"type": "yarn", "factor": 2.5, "beta_fast": 16.0, "beta_slow": 0.5}),
            &["type", "factor", "original_context_length", "yarn_beta_fast", "yarn_beta_slow"],
        ),
        (
            serde_json::json!({"type": "yarn", "factor": 4.0, "attention_factor": 1.25}),
            &["type", "factor", "original_context_length", "attn_factor"],
        ),
    ] {
        let files = rescaled(scaling.clone());
        let mut file = written(&Quantised::of_files(&files, "scaled", Recipe::Uniform(WeightFormat::Q8_0)).unwrap());
        for again in [false, true] {
            if again {
                file = written(
                    &Quantised::of_gguf(&alone("scaled", &file), "scaled", Recipe::Uniform(WeightFormat::Q4_0), None)
                        .unwrap(),
                );
            }
            let container = Gguf::open(file.clone(), "scaled").unwrap();
            let stored: Vec<String> = container.stored_values().map(|stored| stored.unwrap().0.to_owned()).collect();
            let prefix = "llama.rope.scaling.";
            let found: Vec<&str> = stored.iter().filter_map(|key| key.strip_prefix(prefix)).collect();
            assert_eq!(found, keys, "{scaling}");
            let (opened, _) = open::open_gguf(file.clone(), "scaled").unwrap();
            let (found, wanted) = (&opened.architecture, &files.architecture);
            assert_eq!(found.context, wanted.context, "{scaling}");
            assert_eq!(found.rope_frequencies(), wanted.rope_frequencies(), "{scaling}");
            let attention = |arch: &Architecture| arch.rope.scaling.as_ref().unwrap().attention();
            // GGUF's numbers are f32.
            assert!((attention(found) - attention(wanted)).abs() < 1e-7, "{scaling}");
        }
    }
    let exact = rescaled(serde_json::json!({"type": "yarn", "factor": 4.0, "truncate": false}));
    let problem = Quantised::of_files(&exact, "exact", Recipe::Uniform(WeightFormat::Q8_0)).err().unwrap().to_string();
    assert!(problem.contains("truncate = false"), "{problem}");
}

#[test]
fn ggufs_keys_of_a_rotary_scaling_mean_what_llama_cpp_takes_them_for() {
    let number = |file: GgufWriter, key: &str, x: f32| file.key(&format!("llama.{key}"), 6, &x.to_le_bytes());
    let scaling =
        |file: GgufWriter| open::open_gguf(Arc::new(file.file()), "t.gguf").unwrap().0.architecture.rope.scaling;
    let linear = scaling(number(small_gguf(), "rope.scaling.factor", 4.0)).unwrap();
    assert_eq!(linear, scaling(number(small_gguf(), "rope.scale_linear", 4.0)).unwrap());
    assert_eq!(linear, RopeScaling::Linear { factor: 4.0 });
    let none = number(small_gguf(), "rope.scaling.factor", 4.0).string("llama.rope.scaling.type", "none");
    assert_eq!(scaling(none), None);
    assert_eq!(scaling(number(small_gguf(), "rope.scaling.factor", 0.0)), None);

    let yarn = || number(small_gguf().string("llama.rope.scaling.type", "yarn"), "rope.scaling.factor", 4.0);
    let attention = |file| scaling(file).unwrap().attention();
    let usual = 0.1 * 4_f64.ln() + 1.0;
    assert_eq!(scaling(yarn()), Some(RopeScaling::Yarn(Yarn::new(4.0, 16.0))), "the original context is the file's");
    assert!((attention(number(yarn(), "rope.scaling.attn_factor", 0.5)) - 0.5 * usual).abs() < 1e-15);
    let divided = usual / (0.0707 * 4_f64.ln() + 1.0);
    assert!((attention(number(yarn(), "rope.scaling.yarn_log_multiplier", 0.707)) - divided).abs() < 1e-15);
}

#[test]
fn a_folders_tensors_are_written_as_the_gguf_package_writes_them() {
    for name in IN_GGUF {
        let files = ModelFiles::open_folder(&WithTokenizer(GoldenFolder::new(&format!("tiny/{name}")))).unwrap();
        let ours =
            Gguf::open(written(&Quantised::of_files(&files, name, Recipe::Uniform(WeightFormat::Q8_0)).unwrap()), name)
                .unwrap();
        let theirs = Gguf::open(Arc::new(bytes(&format!("gguf/{name}.gguf"))), name).unwrap();
        assert_eq!(ours.names(), theirs.names(), "{name}");
        for tensor in theirs.names() {
            let (ours, theirs) = (ours.read(&tensor).unwrap(), theirs.read(&tensor).unwrap());
            if tensor == "rope_freqs.weight" {
                let pairs = ours.to_f32().into_iter().zip(theirs.to_f32());
                pairs.for_each(|(x, y)| assert!((x - y).abs() <= 1e-6 * y, "{name}: {x}, expected {y}"));
            } else {
                assert_eq!(ours, theirs, "{name} {tensor}");
            }
        }
        for key in [
            "rope.freq_base",
            "rope.scaling.type",
            "rope.scaling.factor",
            "rope.scaling.attn_factor",
            "context_length",
            "attention.layer_norm_rms_epsilon",
            "attention.key_length",
            "block_count",
        ] {
            let key = format!("{}.{key}", theirs.metadata().text("general.architecture").unwrap());
            // What the package leaves to its readers may be said.
            if let Some(value) = theirs.metadata().get(&key) {
                assert_eq!(ours.metadata().get(&key), Some(value), "{name} {key}");
            }
        }
    }
}

#[test]
fn what_cannot_be_stored_is_named_with_its_file_and_nothing_is_written_for_a_folder_without_a_tokenizer() {
    let folder = GoldenFolder::new("tiny/llama");
    let bare = ModelFiles::open_folder(&folder).unwrap();
    let problem = Quantised::of_files(&bare, "llama", Recipe::Uniform(WeightFormat::Q8_0)).err().unwrap().to_string();
    assert!(problem.contains("no tokenizer.json"), "{problem}");
    let mut big = small_gguf().file();
    let embedding: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let at = big.windows(32).position(|bytes| bytes == embedding).unwrap();
    big[at + 20..at + 24].copy_from_slice(&1e6_f32.to_le_bytes());
    let model =
        Quantised::of_gguf(&alone("big.gguf", &big), "big.gguf", Recipe::Uniform(WeightFormat::F16), None).unwrap();
    let error = model.write(&mut Vec::new()).unwrap_err().downcast::<temper_engine::Error>().unwrap();
    assert!(error.is_bad_input());
    let text = error.to_string();
    for part in ["big.gguf", "token_embd.weight", "elements from 5 on are too large for F16"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

#[test]
fn smollm2_blocks_and_values_equal_the_goldens() {
    let Some((opened, gguf)) = smollm2(smollm2_blocks_and_values_equal_the_goldens) else { return };
    let file = bytes("smollm2/dequant.safetensors");
    for (stored, name) in [("attn_k", "self_attn.k_proj"), ("attn_v", "self_attn.v_proj")] {
        let found = opened.weights.read(&format!("model.layers.0.{name}.weight")).unwrap();
        assert_eq!((found.format, found.shape.as_slice()), (WeightFormat::Q4_1, &[192, 576][..]));
        let stored = format!("blk.0.{stored}.weight");
        let values = reference_f32(&file, &format!("{stored}.f32"));
        let order = reference(&file, &format!("{stored}.hf_rows"));
        let rows = order.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize);
        let expected: Vec<f32> = rows.flat_map(|row| &values[row * 576..][..576]).copied().collect();
        assert_eq!(found.to_f32(), expected, "{name}");
        // Row by row the very bytes of the file, only in another order for k.
        let (raw, row) = (reference(&file, &format!("{stored}.raw")), 576 / 32 * 20);
        for index in 0..192 {
            let source = if name.ends_with("k_proj") { unpermuted_row(index, 64) } else { index };
            assert_eq!(found.bytes[index * row..][..row], raw[source * row..][..row], "{name} row {index}");
        }
        assert_eq!(WeightFormat::Q4_1.to_f32(&raw), reference_f32(&file, &format!("{stored}.f32")));
    }
    let embedding = gguf.read("model.embed_tokens.weight").unwrap();
    let rows = 16 * 576 / 32 * 34;
    assert_eq!(embedding.bytes[..rows], reference(&file, "token_embd.rows0_16.raw"));
    assert_eq!(embedding.to_f32()[..16 * 576], reference_f32(&file, "token_embd.rows0_16.f32"));
}

#[test]
fn smollm2_sums_of_every_tensor_equal_the_goldens() {
    let Some((opened, _)) = smollm2(smollm2_sums_of_every_tensor_equal_the_goldens) else { return };
    let golden = golden::json("smollm2/dequant.json");
    let sums = golden["checksums_f64_sum_and_sumsq_hf_layout"].as_object().unwrap();
    assert_eq!(sums.len(), opened.weights.names().len());
    for (name, expected) in sums {
        let values = opened.weights.read(name).unwrap().to_f32();
        let sum: f64 = values.iter().map(|&x| f64::from(x)).sum();
        let squares: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
        let (wanted, wanted_squares) = (expected[0].as_f64().unwrap(), expected[1].as_f64().unwrap());
        // The order of summation is the only difference.
        assert!(
            (squares - wanted_squares).abs() <= 1e-9 * wanted_squares,
            "{name}: {squares}, expected {wanted_squares}"
        );
        assert!((sum - wanted).abs() <= 1e-6 + 1e-9 * wanted_squares, "{name}: {sum}, expected {wanted}");
    }
}

#[test]
fn smollm2_describes_itself_and_brings_its_tokenizer() {
    let Some((opened, gguf)) = smollm2(smollm2_describes_itself_and_brings_its_tokenizer) else { return };
    let found = &opened.architecture;
    assert_eq!((found.family, found.vocab, found.hidden, found.layers), (&llama::FAMILY, 49152, 576, 30));
    assert_eq!((found.heads, found.kv_heads, found.head_dim, found.intermediate), (9, 3, 64, 1536));
    assert_eq!((found.norm_epsilon, found.rope.theta, found.context), (1e-5, 1e5, 8192));
    assert!(found.tied_head && !found.attention_bias && found.rope.scaling.is_none());
    assert_eq!(found.parameter_count(), 134_515_008);
    let tokenizer = gguf.vocabulary().unwrap();
    assert_eq!((tokenizer.tokens.len(), tokenizer.merges.len(), tokenizer.token_types.len()), (49152, 48900, 49152));
    assert_eq!((tokenizer.pre.as_deref(), tokenizer.bos, tokenizer.eos), (Some("smollm"), Some(1), Some(2)));
    assert!(tokenizer.chat_template.unwrap().contains("<|im_start|>"));
}

#[test]
fn golden_adapters_read_and_write_back_to_the_same_keys_and_configuration() {
    for (folder, rank, alpha, modules) in [
        ("tiny/llama", 4, 8.0, 14),
        ("tiny/qwen3", 4, 8.0, 14),
        ("tiny/glm4", 4, 8.0, 12),
        ("tiny/gemma3", 4, 8.0, 49),
        ("tiny/phi3", 4, 8.0, 8),
        ("smollm2", 2, 4.0, 60),
    ] {
        let relative = format!("{folder}/lora");
        let (settings, values) = peft::read(&GoldenFolder::new(&relative)).unwrap();
        assert_eq!((settings.rank, settings.alpha, settings.dropout, values.len()), (rank, alpha, 0.0, modules));
        let golden = bytes(&format!("{relative}/adapter_model.safetensors"));
        let mut config = golden::json(&format!("{relative}/adapter_config.json"));
        let base = config["base_model_name_or_path"].as_str().map(str::to_owned);
        let written = peft::write(&settings, base.as_deref(), &values).unwrap();

        let mut found: serde_json::Value = serde_json::from_slice(&written[0].1).unwrap();
        for one in [&mut config, &mut found] {
            // PEFT writes a set, in no order.
            one["target_modules"].as_array_mut().unwrap().sort_by_key(|v| v.as_str().map(str::to_owned));
        }
        assert_eq!(found, config, "{folder}");

        let ours = safetensors::SafeTensors::deserialize(&written[1].1).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&golden).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{folder}");
        for (name, view) in theirs.tensors() {
            let found = ours.tensor(&name).unwrap();
            assert_eq!((found.shape(), found.data()), (view.shape(), view.data()), "{name}");
        }
    }
}

#[test]
fn an_exported_model_opens_as_the_model_that_it_was() {
    for name in tiny_models() {
        let opened = open::open_folder(&GoldenFolder::new(&format!("tiny/{name}"))).unwrap();
        let mut file = Vec::new();
        let loaded = models::from_folder(&GoldenFolder::new(&format!("tiny/{name}")), &Device::cpu(), true);
        wait(model::write(&mut file, &loaded)).unwrap();
        assert!(safetensors::SafeTensors::deserialize(&file).is_ok(), "{name}");
        let config = model::config_json(&opened.architecture, &opened.special, WeightFormat::F32);
        let mut folder = MemoryFolder::new();
        folder.insert("config.json", config.into_bytes()).unwrap();
        folder.insert("model.safetensors", file).unwrap();
        let again = open::open_folder(&folder).unwrap();
        assert_eq!(again.architecture, opened.architecture, "{name}");
        assert_eq!(again.special, opened.special, "{name}");
        for tensor in opened.weights.names() {
            let (old, new) = (opened.weights.read(&tensor).unwrap(), again.weights.read(&tensor).unwrap());
            assert_eq!(old.to_f32(), new.to_f32(), "{name} {tensor}");
        }
    }
}

#[test]
fn a_folder_whose_tensors_do_not_fit_is_refused_with_all_of_them_named() {
    let mut folder = MemoryFolder::new();
    folder.insert("config.json", bytes("tiny/qwen3/config.json")).unwrap();
    folder.insert("model.safetensors", bytes("tiny/llama/model.safetensors")).unwrap();
    let text = open::open_folder(&folder).err().unwrap().to_string();
    for part in
        ["model.safetensors: ", "q_norm.weight: is missing", "q_proj.weight: expected shape [128, 64], got [64, 64]"]
    {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

/// A small but complete file of each format, with everything that a reader must look at.
fn small_safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b.c":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"d":{"dtype":"F16","shape":[1],"data_offsets":[32,34]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(0..34_u8);
    file
}

/// Writes GGUF by hand, so that each field can lie.
struct GgufWriter {
    tensors: u64,
    keys: u64,
    metadata: Vec<u8>,
    table: Vec<u8>,
    data: Vec<u8>,
}

impl GgufWriter {
    fn new() -> Self {
        Self { tensors: 0, keys: 0, metadata: Vec::new(), table: Vec::new(), data: Vec::new() }
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.bytes());
    }

    fn key(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        Self::text(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
        self.keys += 1;
        self
    }

    fn string(self, key: &str, value: &str) -> Self {
        let mut bytes = Vec::new();
        Self::text(&mut bytes, value);
        self.key(key, 8, &bytes)
    }

    fn number(self, key: &str, value: u32) -> Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    /// `dims` are in the file's order, the fastest first.
    fn tensor_at(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        Self::text(&mut self.table, name);
        self.table.extend((dims.len() as u32).to_le_bytes());
        self.table.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        self.table.extend(kind.to_le_bytes());
        self.table.extend(offset.to_le_bytes());
        self.tensors += 1;
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, bytes: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        let offset = self.data.len() as u64;
        self.data.extend(bytes);
        self.tensor_at(name, dims, kind, offset)
    }

    fn file(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(self.tensors.to_le_bytes());
        file.extend(self.keys.to_le_bytes());
        file.extend(&self.metadata);
        file.extend(&self.table);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }

    fn open(&self) -> Result<Gguf> {
        Gguf::open(Arc::new(self.file()), "t.gguf")
    }
}

/// Metadata of a one-layer llama: two heads of two elements.
fn small_metadata() -> GgufWriter {
    let mut texts = 8_u32.to_le_bytes().to_vec();
    texts.extend(2_u64.to_le_bytes());
    GgufWriter::text(&mut texts, "x");
    GgufWriter::text(&mut texts, "é");
    let mut types = 5_u32.to_le_bytes().to_vec();
    types.extend(2_u64.to_le_bytes());
    types.extend([1, 0, 0, 0, 3, 0, 0, 0]);
    GgufWriter::new()
        .string("general.architecture", "llama")
        .number("llama.block_count", 1)
        .number("llama.context_length", 16)
        .number("llama.embedding_length", 4)
        .number("llama.feed_forward_length", 32)
        .number("llama.attention.head_count", 2)
        .number("llama.attention.head_count_kv", 1)
        .key("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes())
        .key("llama.rope.freq_base", 12, &1e4_f64.to_le_bytes())
        .string("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.tokens", 9, &texts)
        .key("tokenizer.ggml.token_type", 9, &types)
        .key("tokenizer.ggml.add_bos_token", 7, &[1])
        .number("tokenizer.ggml.eos_token_id", 1)
}

fn small_gguf() -> GgufWriter {
    let f32s = |n: usize| (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect::<Vec<u8>>();
    let halves = |n: usize| (0..n).flat_map(|i| [0, 60 + (i % 4) as u8]).collect::<Vec<u8>>();
    small_metadata()
        .tensor("token_embd.weight", &[4, 2], 0, &f32s(8))
        .tensor("blk.0.attn_norm.weight", &[4], 0, &f32s(4))
        .tensor("blk.0.attn_q.weight", &[4, 4], 0, &f32s(16))
        .tensor("blk.0.attn_k.weight", &[4, 2], 1, &halves(8))
        .tensor("blk.0.attn_v.weight", &[4, 2], 30, &halves(8))
        .tensor("blk.0.attn_output.weight", &[4, 4], 0, &f32s(16))
        .tensor("blk.0.ffn_norm.weight", &[4], 0, &f32s(4))
        .tensor("blk.0.ffn_gate.weight", &[4, 32], 1, &halves(128))
        .tensor("blk.0.ffn_up.weight", &[4, 32], 1, &halves(128))
        .tensor("blk.0.ffn_down.weight", &[32, 4], 2, &[3; 72])
        .tensor("output_norm.weight", &[4], 0, &f32s(4))
}

/// Everything that the engine does with a GGUF file of unknown origin.
fn use_gguf(file: Vec<u8>) -> Result<()> {
    let (opened, gguf) = open::open_gguf(Arc::new(file), "t.gguf")?;
    gguf.vocabulary()?;
    read_all(opened.weights.as_ref())
}

fn use_safetensors(file: Vec<u8>) -> Result<()> {
    read_all(&SafetensorsFile::open(Arc::new(file), "t.safetensors")?)
}

fn read_all(source: &dyn WeightSource) -> Result<()> {
    for name in source.names() {
        let tensor = source.read(&name)?;
        assert_eq!(tensor.to_f32().len(), tensor.elements(), "{name}");
    }
    Ok(())
}

#[test]
fn the_small_files_are_good_and_hold_what_was_written() {
    use_safetensors(small_safetensors()).unwrap();
    use_gguf(small_gguf().file()).unwrap();
    let (opened, gguf) = open::open_gguf(Arc::new(small_gguf().file()), "t.gguf").unwrap();
    assert_eq!(gguf.vocabulary().unwrap().tokens, ["x", "é"]);
    assert_eq!(opened.architecture.norm_epsilon, 1e-5);
    // Heads of two elements have one row in each half, so nothing moves.
    let q = opened.weights.read("model.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!(q.to_f32(), (0..16).map(|i| i as f32).collect::<Vec<_>>());
    // Q4_0 with scale bytes 03 03 and nibbles 3: all elements are equal.
    let down = opened.weights.read("model.layers.0.mlp.down_proj.weight").unwrap();
    assert_eq!((down.shape.as_slice(), down.format), (&[4, 32][..], WeightFormat::Q4_0));
}

/// llama.cpp has no architecture called Mistral: its converter writes such a model as a Llama, rows permuted like one's.
#[test]
fn a_gguf_file_of_a_mistral_is_the_llama_that_it_says_with_the_same_tensors() {
    let folder = open::open_folder(&GoldenFolder::new("tiny/mistral")).unwrap();
    let mut writer = GgufWriter::new()
        .string("general.architecture", "llama")
        .number("llama.block_count", 2)
        .number("llama.context_length", 128)
        .number("llama.embedding_length", 64)
        .number("llama.feed_forward_length", 128)
        .number("llama.attention.head_count", 4)
        .number("llama.attention.head_count_kv", 2)
        .key("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes())
        .key("llama.rope.freq_base", 6, &1e6_f32.to_le_bytes());
    for name in folder.weights.names() {
        let tensor = folder.weights.read(&name).unwrap();
        let dims: Vec<u64> = tensor.shape.iter().rev().map(|&d| d as u64).collect();
        let mut bytes = tensor.bytes;
        if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
            let rows: Vec<&[u8]> = bytes.chunks(64 * 4).collect();
            let halves = rows.chunks(16).flat_map(|head| (0..8).flat_map(move |i| [head[i], head[i + 8]]));
            bytes = halves.flatten().copied().collect();
        }
        let mut new = name.replace("model.layers.", "blk.");
        for (theirs, ours) in [
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("lm_head", "output"),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.", "attn_"),
            ("mlp.", "ffn_"),
            ("_proj", ""),
        ] {
            new = new.replace(theirs, ours);
        }
        writer = writer.tensor(&new, &dims, 0, &bytes);
    }
    let (opened, _) = open::open_gguf(Arc::new(writer.file()), "mistral.gguf").unwrap();
    assert_eq!(opened.architecture, Architecture { family: &llama::FAMILY, ..folder.architecture.clone() });
    assert_eq!(opened.weights.names(), folder.weights.names());
    for name in folder.weights.names() {
        assert_eq!(opened.weights.read(&name).unwrap(), folder.weights.read(&name).unwrap(), "{name}");
    }
}

#[test]
fn a_file_cut_off_at_any_byte_is_an_error() {
    let whole = small_safetensors();
    for length in 0..whole.len() {
        assert!(use_safetensors(whole[..length].to_vec()).is_err(), "safetensors of {length} bytes");
    }
    let whole = small_gguf().file();
    for length in 0..whole.len() {
        assert!(use_gguf(whole[..length].to_vec()).is_err(), "GGUF of {length} bytes");
    }
}

/// The same numbers everywhere (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

#[test]
fn damaged_bytes_never_panic_and_never_allocate_more_than_the_file_explains() {
    for (seed, whole, read) in [
        (1, small_safetensors(), use_safetensors as fn(Vec<u8>) -> Result<()>),
        (2, small_gguf().file(), use_gguf as fn(Vec<u8>) -> Result<()>),
    ] {
        let mut random = Random(seed);
        let mut refused = 0;
        for round in 0..6000 {
            let mut file = whole.clone();
            // One to four bytes each; most damage hits the header, which is the interesting part.
            for _ in 0..1 + random.next() % 4 {
                let at = random.next() as usize % file.len();
                file[at] = match random.next() % 3 {
                    0 => 0xff,
                    1 => file[at] ^ (1 << (random.next() % 8)),
                    _ => random.next() as u8,
                };
            }
            let length = file.len();
            let (result, largest) = watched(|| read(file));
            // Elements become f32 (up to 7 times their quantised size). A damaged layer count may list the tensors of
            // at most 1024 layers before they turn out to be missing, which is what the constant allows for.
            assert!(largest <= 8 * length + (1 << 20), "round {round}: {largest} bytes for a file of {length}");
            refused += usize::from(result.is_err());
        }
        assert!(refused > 1000, "only {refused} of 6000 damaged files were refused; is anything checked?");
    }
}

#[test]
fn each_lie_in_a_gguf_file_is_an_error_without_a_large_allocation() {
    let with = |at: usize, bytes: &[u8]| {
        let mut file = small_gguf().file();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let huge = u64::MAX.to_le_bytes();
    let array = |kind: u32, count: u64| [kind.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
    let tensor =
        |name: &str, dims: &[u64], kind: u32, offset: u64| small_gguf().tensor_at(name, dims, kind, offset).file();
    let f32s = [0_u8; 64];
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("magic", "no GGUF file", with(0, b"GGML")),
        ("version 1", "version 1", with(4, &1_u32.to_le_bytes())),
        ("version 9", "version 9", with(4, &9_u32.to_le_bytes())),
        ("big-endian", "big-endian", with(4, &3_u32.to_be_bytes())),
        ("tensor count", "at most 65536", with(8, &huge)),
        ("tensor count, merely large", "0 dimensions", with(8, &60_000_u64.to_le_bytes())),
        ("key count", "at most 65536 and 16384", with(16, &huge)),
        ("key length", "a key of 18446744073709551615 bytes", with(24, &huge)),
        ("text length", "k: 18446744073709551615 bytes", small_metadata().key("k", 8, &huge).file()),
        ("array of bytes", "k: 18446744073709551615 bytes", small_metadata().key("k", 9, &array(0, u64::MAX)).file()),
        (
            "array of numbers whose size overflows",
            "4611686018427387903 values",
            small_metadata().key("k", 9, &array(10, u64::MAX / 4)).file(),
        ),
        ("array of texts", "the file ends", small_metadata().key("k", 9, &array(8, u64::MAX)).file()),
        ("array of arrays", "arrays of type 9", small_metadata().key("k", 9, &array(9, 1)).file()),
        ("array of unknown type", "arrays of type 77", small_metadata().key("k", 9, &array(77, 1)).file()),
        ("unknown value type", "value type 13", small_metadata().key("k", 13, &[0; 8]).file()),
        ("key twice", "there twice", small_gguf().number("general.architecture", 1).file()),
        ("alignment 0", "general.alignment", small_gguf().number("general.alignment", 0).file()),
        ("alignment 48", "general.alignment", small_gguf().number("general.alignment", 48).file()),
        ("alignment 2^31", "general.alignment", small_gguf().number("general.alignment", 1 << 31).file()),
        ("alignment of text", "general.alignment", small_gguf().string("general.alignment", "32").file()),
        ("no dimensions", "x: 0 dimensions", tensor("x", &[], 0, 0)),
        ("five dimensions", "x: 5 dimensions", tensor("x", &[1, 1, 1, 1, 1], 0, 0)),
        ("dimension 0", "x: a dimension of 0", tensor("x", &[0], 0, 0)),
        ("dimensions overflow", "too large", tensor("x", &[1 << 40, 1 << 40], 0, 0)),
        ("past the end", "past the end of the file", tensor("x", &[1 << 20], 0, 0)),
        ("offset overflows", "past the end of the file", tensor("x", &[1], 0, u64::MAX - 31)),
        ("overlap", "two tensors share bytes", tensor("x", &[4], 0, 0)),
        ("unaligned", "no multiple of the alignment", tensor("x", &[1], 0, 4)),
        ("unsupported type", "type 28 (F64)", tensor("x", &[32], 28, 0)),
        ("unknown type", "type 99", tensor("x", &[32], 99, 0)),
        ("half a block", "not made of whole Q4_0 blocks", small_gguf().tensor("x", &[31], 2, &f32s).file()),
        ("name twice", "two of this name", small_gguf().tensor("output_norm.weight", &[4], 0, &f32s).file()),
        ("unexpected tensor", "x: is unexpected", small_gguf().tensor("x", &[4], 0, &f32s).file()),
        (
            "layer beyond the last",
            "layers.1.input_layernorm.weight: is unexpected",
            small_gguf().tensor("blk.1.attn_norm.weight", &[4], 0, &f32s).file(),
        ),
        (
            "rope divisors that mean nothing",
            "no Llama 3 scaling",
            small_gguf().tensor("rope_freqs.weight", &[4], 0, &f32s).file(),
        ),
        (
            "missing tensors",
            "10 tensors do not fit",
            small_metadata().tensor("token_embd.weight", &[4, 2], 0, &f32s).file(),
        ),
        ("split file", "split.no no part", small_gguf().number("split.count", 2).file()),
        (
            "one part of a split file",
            "is part 1 of 2 and was given alone",
            small_gguf().number("split.count", 2).number("split.no", 0).file(),
        ),
        ("experts", "llama.expert_count", small_gguf().number("llama.expert_count", 8).file()),
        ("longrope", "longrope", small_gguf().string("llama.rope.scaling.type", "longrope").file()),
        (
            "yarn without a factor",
            "llama.rope.scaling.factor",
            small_gguf().string("llama.rope.scaling.type", "yarn").file(),
        ),
        (
            "a linear scaling that divides by less than one",
            "impossible factors",
            small_gguf().key("llama.rope.scaling.factor", 6, &0.5_f32.to_le_bytes()).file(),
        ),
        (
            "another attention than yarn's",
            "attn_factor 1.5 without yarn",
            small_gguf().key("llama.rope.scaling.attn_factor", 6, &1.5_f32.to_le_bytes()).file(),
        ),
        (
            "yarn with another mixture",
            "yarn_ext_factor is 0.5",
            small_gguf()
                .string("llama.rope.scaling.type", "yarn")
                .key("llama.rope.scaling.factor", 6, &4_f32.to_le_bytes())
                .key("llama.rope.scaling.yarn_ext_factor", 6, &0.5_f32.to_le_bytes())
                .file(),
        ),
        (
            "padding token beyond the vocabulary",
            "the padding token is 2",
            small_gguf().number("tokenizer.ggml.padding_token_id", 2).file(),
        ),
        ("another architecture", "gemma2", GgufWriter::new().string("general.architecture", "gemma2").file()),
        ("no architecture", "general.architecture is missing", GgufWriter::new().file()),
    ];
    for (what, words, file) in cases {
        let length = file.len();
        let (result, largest) = watched(|| use_gguf(file));
        // For its own reason: most of these files lack or have a tensor that a model may not.
        let problem = result.expect_err(what).to_string();
        assert!(problem.contains(words), "{what}: {problem}");
        assert!(largest <= 8 * length + (1 << 14), "{what}: {largest} bytes for a file of {length}");
    }
    small_gguf().open().unwrap();
}

#[test]
fn a_gguf_type_that_is_not_supported_is_refused_by_name_with_advice() {
    for (number, name) in [(19, "IQ1_S"), (28, "F64"), (99, "unknown")] {
        let text = small_gguf().tensor_at("blk.0.x", &[256], number, 0).open().err().unwrap().to_string();
        let problem = format!("type {number} ({name}) is not supported; F32, F16, ");
        for part in ["t.gguf", "blk.0.x", problem.as_str(), "Q8_0", "llama-quantize"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }
}

/// `<stem>-00002-of-00003.gguf`.
fn part_name(stem: &str, number: usize, count: usize) -> String {
    format!("{stem}-{number:05}-of-{count:05}.gguf")
}

/// The golden model in three parts, as the gguf package splits it.
fn golden_parts() -> Vec<(String, Vec<u8>)> {
    let name = |number| part_name("llama3_rope", number, 3);
    (1..=3).map(|number| (name(number), bytes(&format!("gguf/{}", name(number))))).collect()
}

fn folder_of(files: &[(String, Vec<u8>)]) -> MemoryFolder {
    let mut folder = MemoryFolder::new();
    files.iter().for_each(|(name, bytes)| folder.insert(name, bytes.clone()).unwrap());
    folder
}

#[test]
fn any_part_of_a_split_gguf_opens_the_whole_model() {
    let parts = golden_parts();
    let folder = folder_of(&parts);
    let (whole, _) = open::open_gguf(Arc::new(bytes("gguf/llama3_rope.gguf")), "whole.gguf").unwrap();
    let origin = |model: open::Opened| {
        load::load(&model.architecture, &model.weights, &Device::cpu(), Hold::Auto, u64::MAX, false).unwrap().origin
    };
    for (name, _) in &parts {
        let (opened, gguf) = open::open_gguf_in(&folder, name).unwrap();
        assert_eq!(opened.architecture, whole.architecture, "{name}");
        assert_eq!(opened.weights.names(), whole.weights.names(), "{name}");
        for tensor in whole.weights.names() {
            assert_eq!(opened.weights.read(&tensor).unwrap(), whole.weights.read(&tensor).unwrap(), "{name} {tensor}");
        }
        assert_eq!(gguf.vocabulary().unwrap().tokens.len(), 256);
        let files: std::collections::BTreeSet<String> =
            opened.weights.names().iter().map(|tensor| opened.weights.file_of(tensor)).collect();
        assert_eq!(files.len(), 3, "a message names the part that a tensor is in: {files:?}");
        // Quantised, it is one file again.
        let one = written(&Quantised::of_gguf(&folder, name, Recipe::Uniform(WeightFormat::Q4_0), None).unwrap());
        let one = Gguf::open(one, "one.gguf").unwrap();
        assert_eq!(one.names().len(), 22);
        assert!(one.metadata().get("split.count").is_none() && one.metadata().get("general.architecture").is_some());
        assert_eq!(origin(opened), origin(open::open_gguf_in(&folder, name).unwrap().0));
    }
    // Digests are of every part.
    let digest = |files: &[(String, Vec<u8>)]| origin(open::open_gguf_in(&folder_of(files), &files[0].0).unwrap().0);
    assert_eq!(digest(&parts), origin(whole));
    for at in 0..3 {
        let mut changed = parts.clone();
        let last = changed[at].1.len() - 1;
        changed[at].1[last - 32] ^= 1;
        assert_ne!(digest(&changed), digest(&parts), "a bit of part {}", at + 1);
    }
}

#[test]
fn parts_that_are_missing_doubled_or_of_another_model_are_refused_by_the_names_of_their_files() {
    let parts = golden_parts();
    let refused = |files: &[(String, Vec<u8>)], opened: &str, words: &[&str]| {
        let problem = Gguf::open_in(&folder_of(files), opened).err().expect(opened).to_string();
        for word in words {
            assert!(problem.contains(word), "{word} not in: {problem}");
        }
    };
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
    let without = |at: usize| {
        let mut left = parts.clone();
        left.remove(at);
        left
    };
    refused(&without(1), names[2], &[names[1], "part 2 of 3 is missing", names[2]]);
    refused(&without(0), names[1], &[names[0], "part 1 of 3 is missing", names[1]]);
    refused(&without(2), names[2], &[names[2], "no such file"]);
    let with = |at: usize, bytes: Vec<u8>| {
        let mut changed = parts.clone();
        changed[at].1 = bytes;
        changed
    };
    // One part twice: found from a whole one and from the copy.
    let doubled = with(1, parts[0].1.clone());
    refused(&doubled, names[0], &[names[1], "is part 1 of 3 by what it says inside", "part 2 of 3", names[0], "copy"]);
    refused(&doubled, names[1], &[names[1], "part 1 of 3", "does not end in -00001-of-00003.gguf", "renamed"]);
    refused(&with(1, small_gguf().file()), names[0], &[names[1], "is no part of several", names[0]]);
    let split = |number: u16, count: u16, tensors: i32| {
        GgufWriter::new().key("split.no", 2, &number.to_le_bytes()).key("split.count", 2, &count.to_le_bytes()).key(
            "split.tensors.count",
            5,
            &tensors.to_le_bytes(),
        )
    };
    refused(&with(1, split(1, 4, 22).file()), names[0], &[names[1], "part 2 of 4", "part 2 of 3"]);
    refused(
        &with(1, split(1, 3, 147).file()),
        names[0],
        &[names[1], "a model of 147 tensors", names[0], "one of 22", "do not belong together"],
    );
    let f32s: Vec<u8> = vec![0; 256];
    refused(
        &with(1, split(1, 3, 22).tensor("x", &[4], 0, &f32s[..16]).file()),
        names[0],
        &[names[0], "announces 22 tensors", "which have 15"],
    );
    let mut twice = split(1, 3, 22);
    let first = Gguf::open_in(&folder_of(&parts), names[0]).unwrap();
    let in_first = first.names().into_iter().find(|name| first.file_of(name) == names[0]).unwrap();
    for name in [in_first.as_str(), "a", "b", "c", "d", "e", "f", "g"] {
        twice = twice.tensor(name, &[4], 0, &f32s[..16]);
    }
    refused(&with(1, twice.file()), names[0], &[names[1], &in_first, "as well", names[0]]);
    // Numbers that cannot be are no reason to look for files.
    for (number, count) in [(3, 3), (0, u16::MAX)] {
        refused(&with(0, split(number, count, 22).file()), names[0], &[names[0], "split.count"]);
    }
    let alone = Gguf::open(Arc::new(parts[1].1.clone()), "b.gguf").err().unwrap().to_string();
    assert!(alone.contains("b.gguf is part 2 of 3 and was given alone"), "{alone}");
}

#[test]
fn shards_that_are_missing_or_hold_a_tensor_twice_are_refused_by_the_names_of_their_files() {
    let golden = GoldenFolder::new("tiny/qwen3_bf16_sharded");
    let read = |name: &str| bytes(&format!("tiny/qwen3_bf16_sharded/{name}"));
    let shards: Vec<String> = (1..=3).map(|n| format!("model-{n:05}-of-00003.safetensors")).collect();
    let mut files: Vec<(String, Vec<u8>)> = shards.iter().map(|name| (name.clone(), read(name))).collect();
    for name in ["config.json", "model.safetensors.index.json"] {
        files.push((name.into(), read(name)));
    }
    open::open_folder(&golden).unwrap();
    open::open_folder(&folder_of(&files)).unwrap();
    let refused = |files: &[(String, Vec<u8>)], words: &[&str]| {
        let problem = open::open_folder(&folder_of(files)).err().unwrap().to_string();
        for word in words {
            assert!(problem.contains(word), "{word} not in: {problem}");
        }
    };
    let mut missing = files.clone();
    missing.remove(1);
    refused(&missing, &[&shards[1], "is listed in model.safetensors.index.json but missing"]);
    // A shard in the place of another: the index has that one's tensors there.
    let mut doubled = files.clone();
    doubled[1].1 = doubled[0].1.clone();
    refused(&doubled, &["model.safetensors.index.json", &format!("is not in {}", shards[1])]);
    // A tensor that two shards hold: the index can only say one.
    let mut index: serde_json::Value = serde_json::from_slice(&files[4].1).unwrap();
    let map = index["weight_map"].as_object_mut().unwrap();
    let moved = map.iter().find(|(_, shard)| **shard == shards[0]).unwrap().0.clone();
    map.remove(&moved);
    let mut unlisted = files.clone();
    unlisted[4].1 = index.to_string().into_bytes();
    refused(&unlisted, &[&shards[0], &moved, "is not listed for this file"]);
}

#[test]
fn a_shard_index_cannot_name_files_outside_the_folder() {
    struct Trap(MemoryFolder);
    impl Folder for Trap {
        fn open(&self, name: &str) -> Result<Option<Arc<dyn temper_engine::host::Bytes>>> {
            assert!(!name.contains(['/', '\\']), "{name} reached the host");
            self.0.open(name)
        }

        fn display(&self, name: &str) -> String {
            name.to_owned()
        }
    }
    for shard in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\b.safetensors", "c:b", ""] {
        let mut folder = MemoryFolder::new();
        folder.insert("config.json", bytes("tiny/llama/config.json")).unwrap();
        let index = serde_json::json!({"weight_map": {"lm_head.weight": shard}}).to_string();
        folder.insert("model.safetensors.index.json", index.into_bytes()).unwrap();
        let text = open::open_folder(&Trap(folder)).err().unwrap().to_string();
        assert!(text.contains("plain file name"), "{shard}: {text}");
    }
}

#[test]
fn random_weights_held_in_memory_are_a_source_like_any_other() {
    let opened = open::open_folder(&GoldenFolder::new("tiny/glm4")).unwrap();
    let zeros = opened.architecture.tensor_specs().into_iter().map(|spec| {
        let values = vec![0.0; spec.shape.iter().product()];
        RawTensor::from_f32(&spec.name, spec.shape, &values)
    });
    open::check(&MemorySource::new(zeros).unwrap(), &opened.architecture).unwrap();
}

#[test]
fn a_bias_in_blocks_is_refused_before_its_rows_are_moved() {
    let zeros = |count: usize| vec![0_u8; 4 * count];
    let with = |kind: u32, bias: &[u8]| {
        let writer = GgufWriter::new()
            .string("general.architecture", "llama")
            .number("llama.block_count", 1)
            .number("llama.context_length", 16)
            .number("llama.embedding_length", 32)
            .number("llama.feed_forward_length", 32)
            .number("llama.attention.head_count", 2)
            .key("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes())
            .tensor("token_embd.weight", &[32, 2], 0, &zeros(64))
            .tensor("output_norm.weight", &[32], 0, &zeros(32))
            .tensor("blk.0.attn_q.bias", &[32], kind, bias);
        let vectors = ["attn_norm.weight", "ffn_norm.weight", "attn_k.bias", "attn_v.bias", "attn_output.bias"];
        let writer =
            vectors.iter().fold(writer, |writer, name| writer.tensor(&format!("blk.0.{name}"), &[32], 0, &zeros(32)));
        let matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
        let writer = matrices
            .iter()
            .fold(writer, |writer, name| writer.tensor(&format!("blk.0.{name}.weight"), &[32, 32], 0, &zeros(1024)));
        open::open_gguf(Arc::new(writer.file()), "t.gguf").map(|(opened, _)| opened)
    };
    read_all(with(0, &zeros(32)).unwrap().weights.as_ref()).unwrap();
    for (kind, format, bytes) in [(8, "Q8_0", 34), (2, "Q4_0", 18)] {
        let text = with(kind, &vec![1; bytes]).err().unwrap().to_string();
        for part in ["t.gguf", "layers.0.self_attn.q_proj.bias", "is a vector in blocks of", format] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }
}
