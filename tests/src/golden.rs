//! Reads the golden vectors under `tests/golden/`; see the README there for how they were made.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use temper_engine::host::{Bytes, Folder};
use temper_engine::{Result, host};

/// A file of the repository. Cargo says at run time where that is: a shared target folder outlives a checkout.
pub fn repository(relative: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("..").join(relative)
}

/// Absolute path of a golden file.
pub fn path(relative: &str) -> PathBuf {
    repository("tests/golden").join(relative)
}

/// Contents of a golden file; the large ones are stored as `<relative>.gz`.
pub fn bytes(relative: &str) -> Vec<u8> {
    let packed = path(&format!("{relative}.gz"));
    let read = if packed.exists() {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(packed);
        file.and_then(|file| flate2::read::GzDecoder::new(file).read_to_end(&mut bytes)).map(|_| bytes)
    } else {
        std::fs::read(path(relative))
    };
    read.unwrap_or_else(|e| panic!("{relative}: {e}"))
}

/// A golden JSON file.
pub fn json(relative: &str) -> Value {
    serde_json::from_slice(&bytes(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
}

/// Tensors of a golden safetensors file, as f64 or i64.
pub struct Tensors(HashMap<String, (Vec<usize>, Numbers)>);

enum Numbers {
    Float(Vec<f64>),
    Int(Vec<i64>),
}

impl Tensors {
    /// Reads a file.
    pub fn read(relative: &str) -> Self {
        let bytes = bytes(relative);
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{relative}: {e}"));
        let numbers = |dtype: Dtype, data: &[u8]| match dtype {
            Dtype::F32 => {
                Numbers::Float(data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect())
            }
            Dtype::F64 => {
                Numbers::Float(data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect())
            }
            Dtype::I64 => {
                Numbers::Int(data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect())
            }
            Dtype::I16 => {
                Numbers::Int(data.chunks_exact(2).map(|b| i16::from_le_bytes(b.try_into().unwrap()).into()).collect())
            }
            other => panic!("{relative}: {other:?}"),
        };
        Self(
            file.tensors()
                .into_iter()
                .map(|(name, view)| (name, (view.shape().to_vec(), numbers(view.dtype(), view.data()))))
                .collect(),
        )
    }

    /// Names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.entry(name).0
    }

    /// Floats of a tensor.
    pub fn floats(&self, name: &str) -> &[f64] {
        match &self.entry(name).1 {
            Numbers::Float(values) => values,
            Numbers::Int(_) => panic!("{name} holds integers"),
        }
    }

    /// Floats of a tensor that was f32.
    pub fn f32s(&self, name: &str) -> Vec<f32> {
        self.floats(name).iter().map(|&v| v as f32).collect()
    }

    /// Integers of a tensor.
    pub fn ints(&self, name: &str) -> &[i64] {
        match &self.entry(name).1 {
            Numbers::Int(values) => values,
            Numbers::Float(_) => panic!("{name} holds floats"),
        }
    }

    fn entry(&self, name: &str) -> &(Vec<usize>, Numbers) {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}; there are {:?}", self.names()))
    }
}

/// `eaft_loss.safetensors` with what is not stored of its widest case, because it follows from the rest: its logits are
/// generated, and an element's gradient depends on its logit alone, the label's apart.
pub fn eaft_loss() -> Tensors {
    const CASE: &str = "n2_v151936";
    let mut tensors = Tensors::read("eaft_loss.safetensors");
    let levels = tensors.shape(&format!("{CASE}.grad_by_level"))[1];
    let (rows, vocab) = (2, 151_936);
    let level: Vec<usize> = (1..=rows * vocab).map(|n| wide_level(n as u64)).collect();
    let mut gradient = Vec::with_capacity(level.len());
    let by_level = tensors.floats(&format!("{CASE}.grad_by_level"));
    for (row, of_row) in level.chunks(vocab).enumerate() {
        gradient.extend(of_row.iter().map(|&level| by_level[row * levels + level]));
    }
    let labels = tensors.ints(&format!("{CASE}.labels"));
    for (row, (&label, &of_label)) in labels.iter().zip(tensors.floats(&format!("{CASE}.grad_of_label"))).enumerate() {
        gradient[row * vocab + label as usize] = of_label;
    }
    let logits = level.iter().map(|&level| (level as f64 - 1020.0) * 3.0 / 256.0).collect();
    for (name, values) in [("logits", logits), ("grad", gradient)] {
        assert!(values.iter().all(|v: &f64| v.is_finite()), "{name}: a value that the generator cannot give");
        tensors.0.insert(format!("{CASE}.{name}"), (vec![rows, vocab], Numbers::Float(values)));
    }
    tensors
}

/// Sum of the bytes of SplitMix64's `n`-th number from 1, seed 0. `make_golden.py` has the same.
fn wide_level(n: u64) -> usize {
    let x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).to_le_bytes().into_iter().map(usize::from).sum()
}

/// A golden `tokenizer.json`: `<name>_tokenizer.json` with the part of the vocabulary that is not stored, because the
/// results of the merges, in order, are its last tokens.
pub fn tokenizer_json(name: &str) -> Vec<u8> {
    let mut file = json(&format!("tokenizers/{name}_tokenizer.json"));
    let text = |value: &Value| value.as_str().expect("a token").to_owned();
    let merges = file["model"]["merges"].as_array().expect("a list of merges");
    let merged: Vec<String> = merges.iter().map(|pair| text(&pair[0]) + &text(&pair[1])).collect();
    let vocab = file["model"]["vocab"].as_object_mut().expect("a vocabulary");
    for token in merged {
        let id = vocab.len();
        assert!(vocab.insert(token, id.into()).is_none(), "token {id} is there twice");
    }
    serde_json::to_vec(&file).expect("JSON")
}

/// A golden folder, as the engine reads folders.
pub struct GoldenFolder {
    root: PathBuf,
    /// Read this file where `config.json` is asked for.
    config: &'static str,
}

impl GoldenFolder {
    /// A folder under `tests/golden/`.
    pub fn new(relative: &str) -> Self {
        Self { root: path(relative), config: "config.json" }
    }

    /// The same folder with the configuration as transformers 5 writes it.
    pub fn with_v5_config(self) -> Self {
        Self { config: "config_v5.json", ..self }
    }
}

impl Folder for GoldenFolder {
    fn open(&self, name: &str) -> Result<Option<Arc<dyn Bytes>>> {
        host::check_name(name)?;
        let name = if name == "config.json" { self.config } else { name };
        Ok(std::fs::read(self.root.join(name)).ok().map(|bytes| Arc::new(bytes) as Arc<dyn Bytes>))
    }

    fn display(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }
}
