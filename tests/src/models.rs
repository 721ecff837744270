//! The tiny golden models on a device, and their batch.

use temper_engine::host::Folder;
use temper_engine::inside::data::{IGNORE, MicroBatch};
use temper_engine::inside::model::adapter::LoraSettings;
use temper_engine::inside::model::{load, open};
use temper_engine::inside::train::optimiser::AdamW;
use temper_engine::models::Hold;
use temper_engine::{Device, Model};

use crate::golden::{GoldenFolder, Tensors};

/// All tiny models with their own weights in f32.
pub const TINY: [&str; 11] = [
    "llama",
    "llama_tied",
    "llama3_rope",
    "qwen2",
    "qwen3",
    "glm4",
    "mistral",
    "gemma3",
    "phi3",
    "phi3_longrope",
    "mistral_window",
];

/// Those of them with a golden adapter.
pub const ADAPTED: [&str; 5] = ["llama", "qwen3", "glm4", "gemma3", "phi3"];

/// Those of them whose tokens see the last eight only, in some blocks at least.
pub const WINDOWED: [&str; 3] = ["gemma3", "phi3", "mistral_window"];

/// Loads `tiny/<name>`, all parameters trained where `full`.
pub fn tiny(name: &str, device: &Device, full: bool) -> Model {
    from_folder(&GoldenFolder::new(&format!("tiny/{name}")), device, full)
}

/// Loads a Hugging Face folder.
pub fn from_folder(folder: &dyn Folder, device: &Device, full: bool) -> Model {
    let opened = open::open_folder(folder).expect("the golden folder opens");
    load::load(&opened.architecture, &opened.weights, device, Hold::F32, u64::MAX, full).expect("the model loads")
}

/// Puts the golden adapter of `tiny/<name>` on a model.
pub fn with_golden_lora(model: &mut Model, name: &str) -> LoraSettings {
    let folder = GoldenFolder::new(&format!("tiny/{name}/lora"));
    let (settings, values) = temper_engine::result::read(&folder).expect("the golden adapter reads");
    model.load_lora(&settings, values, name).expect("the golden adapter fits");
    settings
}

/// The optimiser of the golden runs: decay on every parameter.
pub fn golden_adamw(max_grad_norm: f64) -> AdamW {
    AdamW { weight_decay: 0.01, decay_vectors: true, max_grad_norm, ..AdamW::default() }
}

/// Rows of the golden batch as documents without their padding: `(tokens, trained)`.
pub fn golden_documents(expected: &Tensors) -> Vec<(Vec<u32>, Vec<bool>)> {
    let width = expected.shape("input_ids")[1];
    let rows = expected.ints("input_ids").chunks(width).zip(expected.ints("labels").chunks(width));
    rows.zip(expected.ints("attention_mask").chunks(width))
        .map(|((ids, labels), mask)| {
            let kept = |t: &usize| mask[*t] == 1;
            (
                (0..width).filter(kept).map(|t| ids[t] as u32).collect(),
                (0..width).filter(kept).map(|t| labels[t] != IGNORE as i64).collect(),
            )
        })
        .collect()
}

/// One stream out of documents, end to end.
pub fn packed(documents: &[(Vec<u32>, Vec<bool>)]) -> MicroBatch {
    let mut batch = MicroBatch::default();
    for (ordinal, (tokens, trained)) in documents.iter().enumerate() {
        append(&mut batch, tokens, trained, ordinal as u32);
    }
    batch
}

/// A stream a document, their ordinals as in [`packed`].
pub fn unpacked(documents: &[(Vec<u32>, Vec<bool>)]) -> Vec<MicroBatch> {
    let one = |(ordinal, (tokens, trained)): (usize, &(Vec<u32>, Vec<bool>))| {
        let mut batch = MicroBatch::default();
        append(&mut batch, tokens, trained, ordinal as u32);
        batch
    };
    documents.iter().enumerate().map(one).collect()
}

fn append(batch: &mut MicroBatch, tokens: &[u32], trained: &[bool], ordinal: u32) {
    let start = batch.tokens.len() as u32;
    for (t, &token) in tokens.iter().enumerate() {
        batch.tokens.push(token);
        let next = tokens.get(t + 1).filter(|_| trained[t + 1]);
        batch.labels.push(next.map_or(IGNORE, |&next| next as i32));
        batch.positions.push(t as u32);
        batch.document_start.push(start);
        batch.document.push(ordinal);
    }
}
