//! Reads the golden vectors under `tests/golden/`; see the README there for how they were made.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use temper_engine::error::Result;
use temper_engine::host::{self, Bytes, Folder};

/// Absolute path of a golden file.
pub fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(relative)
}

/// A golden JSON file.
pub fn json(relative: &str) -> Value {
    let bytes = std::fs::read(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{relative}: {e}"))
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
        let bytes = std::fs::read(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"));
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
