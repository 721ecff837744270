//! GGUF files, versions 2 and 3: metadata, tokenizer and tensors, under Hugging Face names and in Hugging Face layout.
//!
//! A file is a magic number, counts, key-value metadata, a table of tensors and, aligned, their bytes (format: ggml's
//! `docs/gguf.md`). What differs from Hugging Face is undone here and nowhere else: names ([`huggingface_name`]),
//! dimension order (GGUF has the fastest one first), and llama's permuted rows of q and k ([`unpermuted_row`]).
//!
//! Files are untrusted. Every count is limited by a constant, every length by the rest of the file, before memory is
//! taken; metadata arrays are kept in the width they have in the file. That is why this is no crate's reader: it works on
//! any host's bytes (a mapped file, a page's buffer), trusts no number, and names the field that is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dequantize::blocks_to_f32;
use super::{RawTensor, Storage, WeightSource, absent, read_range, tensor_error};
use crate::data::GgufVocabulary;
use crate::error::{Error, Result};
use crate::host::{Bytes, shorten};
use crate::model::architecture::{Architecture, Family, GgufFacts, SpecialTokens};

const MAGIC: [u8; 4] = *b"GGUF";
/// Large models have some hundred tensors and some dozen keys; these leave room and keep tables small.
const MOST_TENSORS: u64 = 1 << 16;
const MOST_KEYS: u64 = 1 << 14;
const LONGEST_NAME: u64 = 1 << 10;
const MOST_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer type.
    Unsigned(u64),
    /// Any signed integer type.
    Signed(i64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// Boolean.
    Bool(bool),
    /// Text.
    Text(String),
    /// Texts.
    Texts(Texts),
    /// Numbers or booleans.
    Numbers(Numbers),
}

/// Many texts in one allocation, so that a file of a million empty ones does not become a million allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}

/// An array of numbers in the width that the file has.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    kind: Scalar,
    bytes: Vec<u8>,
}

impl Numbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.width()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Value> {
        self.bytes.chunks_exact(self.kind.width()).map(|b| self.kind.value(b))
    }
}

/// The fixed-width value types, by their number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

const TEXT_TYPE: u32 = 8;
const ARRAY_TYPE: u32 = 9;

impl Scalar {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    fn width(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Reads `width` little-endian bytes.
    fn value(self, bytes: &[u8]) -> Value {
        let mut eight = [0; 8];
        eight[..self.width()].copy_from_slice(bytes);
        let raw = u64::from_le_bytes(eight);
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Unsigned(raw),
            Self::I8 => Value::Signed((raw as u8).cast_signed().into()),
            Self::I16 => Value::Signed((raw as u16).cast_signed().into()),
            Self::I32 => Value::Signed((raw as u32).cast_signed().into()),
            Self::I64 => Value::Signed(raw.cast_signed()),
            Self::F32 => Value::F32(f32::from_bits(raw as u32)),
            Self::F64 => Value::F64(f64::from_bits(raw)),
            Self::Bool => Value::Bool(raw != 0),
        }
    }
}

/// The key-value part of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// A value of any type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A non-negative integer of any width.
    pub fn unsigned(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Unsigned(n) => Some(*n),
            Value::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A number of any type. An f32 becomes the f64 with the same shortest decimal, because the f32 was rounded from
    /// such a decimal: 1e-5 stays 1e-5.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Unsigned(n) => Some(*n as f64),
            Value::Signed(n) => Some(*n as f64),
            Value::F32(x) => x.to_string().parse().ok(),
            Value::F64(x) => Some(*x),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<&Texts> {
        match self.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// A list of integers of any width that fit an i32.
    pub fn integers(&self, key: &str) -> Option<Vec<i32>> {
        let Value::Numbers(numbers) = self.get(key)? else { return None };
        let integer = |value| match value {
            Value::Unsigned(n) => i32::try_from(n).ok(),
            Value::Signed(n) => i32::try_from(n).ok(),
            _ => None,
        };
        numbers.iter().map(integer).collect()
    }
}

/// A file's tokenizer, as stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokenizer {
    /// `tokenizer.ggml.model`: `gpt2` means byte-level BPE.
    pub model: String,
    /// `tokenizer.ggml.pre`: name of the pre-tokenizer.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the spelling of each id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type` per id, or empty.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: "left right", best first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

impl GgufTokenizer {
    /// As the tokenizer reads it.
    pub fn vocabulary(&self) -> GgufVocabulary<'_> {
        GgufVocabulary {
            model: &self.model,
            pre: self.pre.as_deref(),
            tokens: &self.tokens,
            merges: &self.merges,
            token_types: &self.token_types,
            bos: self.bos,
            eos: self.eos,
            pad: self.pad,
            add_bos: self.add_bos,
            chat_template: self.chat_template.as_deref(),
        }
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    storage: Storage,
    shape: Vec<usize>,
    /// From the start of the file.
    offset: u64,
    /// Rows of so many elements are permuted within each head.
    permuted_head: Option<usize>,
}

/// An opened GGUF file, a [`WeightSource`] under Hugging Face names.
pub struct Gguf {
    bytes: Arc<dyn Bytes>,
    file: String,
    metadata: Metadata,
    entries: BTreeMap<String, Entry>,
    rope_divisors: Option<Vec<f32>>,
}

const ROPE_DIVISORS: &str = "rope_freqs.weight";

impl Gguf {
    /// Reads and checks metadata and tensor table; `file` is the file's name in messages.
    ///
    /// # Errors
    /// [`Error::Format`] and [`Error::Tensor`] for what is malformed or does not agree with the file's size,
    /// [`Error::Unsupported`] for other versions, split files and model kinds, [`Error::Io`] where the host cannot
    /// read.
    pub fn open(bytes: Arc<dyn Bytes>, file: &str) -> Result<Self> {
        let mut cursor = Cursor::new(bytes.as_ref(), file);
        let (tensors, keys) = read_start(&mut cursor)?;
        let metadata = read_metadata(&mut cursor, keys)?;
        if metadata.unsigned("split.count").is_some_and(|n| n > 1) {
            let problem = format!("{file} is one part of several; join them first (llama-gguf-split --merge)");
            return Err(Error::Unsupported { problem });
        }
        let table = read_table(&mut cursor, tensors)?;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(_) => metadata.unsigned("general.alignment").unwrap_or(0),
        };
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(cursor.wrong("general.alignment is no power of two up to 2^20".into()));
        }
        let start = cursor.at.next_multiple_of(alignment);
        let mut entries = lay_out(table, start, alignment, bytes.len(), file)?;

        let rope_divisors = match entries.remove(ROPE_DIVISORS) {
            None => None,
            Some(entry) => {
                let length = entry.storage.bytes_for_shape(&entry.shape).unwrap_or(0) as u64;
                Some(blocks_to_f32(entry.storage, &read_range(bytes.as_ref(), entry.offset, length, file)?))
            }
        };
        let gguf = Self { bytes, file: file.to_owned(), metadata, entries, rope_divisors };
        gguf.under_huggingface_names()
    }

    /// The key-value part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The model's description.
    ///
    /// # Errors
    /// As [`Architecture::from_gguf_metadata`].
    pub fn architecture(&self) -> Result<Architecture> {
        let embedding = self.shape("model.embed_tokens.weight");
        let facts = GgufFacts {
            vocab: embedding.and_then(|shape| shape.first().copied()).unwrap_or(0),
            tied_head: self.shape("lm_head.weight").is_none(),
            attention_bias: self.shape("model.layers.0.self_attn.q_proj.bias").is_some(),
            rope_divisors: self.rope_divisors.clone(),
        };
        Architecture::from_gguf_metadata(&self.metadata, &facts, &self.file)
    }

    /// The tokenizer's parts.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where there is none, or an id or count does not fit the vocabulary or the embedding.
    pub fn tokenizer(&self) -> Result<GgufTokenizer> {
        let refuse = |problem: String| Err(Error::Tokenizer { problem: format!("{}: {problem}", self.file) });
        let meta = &self.metadata;
        let Some(model) = meta.text("tokenizer.ggml.model") else {
            return refuse("the file holds no tokenizer (no tokenizer.ggml.model)".into());
        };
        let Some(tokens) = meta.texts("tokenizer.ggml.tokens") else {
            return refuse("tokenizer.ggml.tokens is missing or no list of texts".into());
        };
        let owned = |texts: &Texts| texts.iter().map(str::to_owned).collect::<Vec<_>>();
        let token_types = match meta.get("tokenizer.ggml.token_type") {
            None => Vec::new(),
            Some(_) => meta.integers("tokenizer.ggml.token_type").unwrap_or_default(),
        };
        if meta.get("tokenizer.ggml.token_type").is_some() && token_types.len() != tokens.len() {
            return refuse(format!("{} token types for {} tokens", token_types.len(), tokens.len()));
        }
        if let Some(rows) = self.shape("model.embed_tokens.weight").and_then(|s| s.first())
            && tokens.len() > *rows
        {
            return refuse(format!("{} tokens, but the embedding has {rows} rows", tokens.len()));
        }
        let special = self.special_tokens()?;
        for (what, id) in [("bos", special.bos), ("eos", special.eos.first().copied()), ("padding", special.pad)] {
            if let Some(id) = id
                && id as usize >= tokens.len()
            {
                return refuse(format!("the {what} token is {id}, but there are {} tokens", tokens.len()));
            }
        }
        Ok(GgufTokenizer {
            model: model.to_owned(),
            pre: meta.text("tokenizer.ggml.pre").map(str::to_owned),
            tokens: owned(tokens),
            token_types,
            merges: meta.texts("tokenizer.ggml.merges").map(owned).unwrap_or_default(),
            bos: special.bos,
            eos: special.eos.first().copied(),
            pad: special.pad,
            add_bos: meta.flag("tokenizer.ggml.add_bos_token"),
            chat_template: meta.text("tokenizer.chat_template").map(str::to_owned),
        })
    }

    /// The token ids that the metadata names.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where one of them is no token id.
    pub fn special_tokens(&self) -> Result<SpecialTokens> {
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            if self.metadata.get(&key).is_none() {
                return Ok(None);
            }
            let found = self.metadata.unsigned(&key).and_then(|n| u32::try_from(n).ok());
            let wrong = || Error::Tokenizer { problem: format!("{}: {key} is no token id", self.file) };
            found.map(Some).ok_or_else(wrong)
        };
        Ok(SpecialTokens { bos: id("bos")?, eos: id("eos")?.into_iter().collect(), pad: id("padding")? })
    }

    /// Renames the tensors and marks those whose rows are permuted. Unknown names stay as they are, for
    /// [`super::check`] to report.
    fn under_huggingface_names(mut self) -> Result<Self> {
        let kind = self.metadata.text("general.architecture").unwrap_or_default();
        let Some(family) = Family::ALL.into_iter().find(|f| f.model_type() == kind) else {
            let names = "llama, qwen2, qwen3 and glm4 are";
            let problem = format!("{}: model kind \"{}\"; {names}", self.file, shorten(kind));
            return Err(Error::Unsupported { problem });
        };
        // Only llama's rotary pairs are neighbours in GGUF and halves in Hugging Face.
        let head_dim = match family {
            Family::Llama => Some(self.architecture_head_dim()?),
            _ => None,
        };
        let mut renamed = BTreeMap::new();
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            let new = huggingface_name(&name, family).unwrap_or_else(|| name.clone());
            let rotated = new.contains(".self_attn.q_proj.") || new.contains(".self_attn.k_proj.");
            if let Some(head) = head_dim.filter(|_| rotated) {
                let rows = entry.shape.first().copied().unwrap_or(0);
                if head < 2 || head % 2 != 0 || !rows.is_multiple_of(head) {
                    return Err(tensor_error(&self.file, &name, format!("{rows} rows are no whole heads of {head}")));
                }
                entry.permuted_head = Some(head);
            }
            if renamed.insert(new, entry).is_some() {
                return Err(tensor_error(&self.file, &name, "stands for the same tensor as another name".into()));
            }
        }
        self.entries = renamed;
        Ok(self)
    }

    fn architecture_head_dim(&self) -> Result<usize> {
        let number = |key: &str| self.metadata.unsigned(key).and_then(|n| usize::try_from(n).ok());
        let by_heads = || {
            let heads = number("llama.attention.head_count").filter(|&n| n > 0)?;
            Some(number("llama.embedding_length")? / heads)
        };
        number("llama.attention.key_length").or_else(by_heads).ok_or_else(|| Error::Format {
            file: self.file.clone(),
            problem: "llama.attention.head_count or llama.embedding_length is missing".into(),
        })
    }
}

impl WeightSource for Gguf {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    fn storage(&self, name: &str) -> Option<Storage> {
        self.entries.get(name).map(|e| e.storage)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let entry = self.entries.get(name).ok_or_else(|| absent(&self.file, name))?;
        let length = entry.storage.bytes_for_shape(&entry.shape).unwrap_or(0);
        let mut bytes = read_range(self.bytes.as_ref(), entry.offset, length as u64, &self.file)?;
        if let Some(head) = entry.permuted_head {
            bytes = unpermute(&bytes, entry.shape[0], head);
        }
        Ok(RawTensor { name: name.to_owned(), shape: entry.shape.clone(), storage: entry.storage, bytes })
    }

    fn file_of(&self, _name: &str) -> String {
        self.file.clone()
    }
}

/// Hugging Face's name of a tensor, or `None` for one that this family does not have.
pub fn huggingface_name(name: &str, family: Family) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(whole.to_owned());
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    // Exactly the digits that Rust would print, so that no two names become one.
    let layer = layer.parse::<u32>().ok().filter(|n| n.to_string() == layer)?;
    let glm = family == Family::Glm4;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_up" if glm => "mlp.gate_up_proj", // gate half first, as in Hugging Face
        "ffn_up" => "mlp.up_proj",
        "ffn_gate" if !glm => "mlp.gate_proj",
        "ffn_down" => "mlp.down_proj",
        "post_attention_norm" if glm => "post_self_attn_layernorm",
        "post_ffw_norm" if glm => "post_mlp_layernorm",
        _ => return None,
    };
    matches!(kind, "weight" | "bias").then(|| format!("model.layers.{layer}.{part}.{kind}"))
}

/// The GGUF row that holds Hugging Face row `row` of llama's q or k: within a head, GGUF's rows `(i, j)` of
/// `[head / 2, 2]` are Hugging Face's rows `(j, i)` of `[2, head / 2]`.
pub fn unpermuted_row(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    let (j, i) = (within / (head / 2), within % (head / 2));
    start + i * 2 + j
}

/// Rows of any storage in Hugging Face order; whole rows move, so quantised blocks stay as they are.
fn unpermute(bytes: &[u8], rows: usize, head: usize) -> Vec<u8> {
    let width = bytes.len() / rows.max(1);
    let row = |row| &bytes[unpermuted_row(row, head) * width..][..width];
    (0..rows).flat_map(row).copied().collect()
}

/// Checks the start of the file; gives the number of tensors and of keys.
fn read_start(cursor: &mut Cursor) -> Result<(u64, u64)> {
    if cursor.array::<4>("the magic number")? != MAGIC {
        return Err(cursor.wrong("this is no GGUF file; is the download complete?".into()));
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        big if matches!(big.swap_bytes(), 1..=3) => {
            let problem = format!("{}: this GGUF file is big-endian; convert it again", cursor.file);
            return Err(Error::Unsupported { problem });
        }
        other => {
            let problem = format!("{}: GGUF version {other}; 2 and 3 are supported", cursor.file);
            return Err(Error::Unsupported { problem });
        }
    }
    let tensors = cursor.u64("the number of tensors")?;
    let keys = cursor.u64("the number of keys")?;
    if tensors > MOST_TENSORS || keys > MOST_KEYS {
        let text = format!("{tensors} tensors and {keys} keys; at most {MOST_TENSORS} and {MOST_KEYS} are possible");
        return Err(cursor.wrong(text));
    }
    Ok((tensors, keys))
}

fn read_metadata(cursor: &mut Cursor, keys: u64) -> Result<Metadata> {
    let mut values = BTreeMap::new();
    for _ in 0..keys {
        let key = cursor.text("a key", LONGEST_NAME)?;
        let kind = cursor.u32("a value's type")?;
        let value = read_value(cursor, &key, kind)?;
        if values.contains_key(&key) {
            return Err(cursor.wrong(format!("the key {} is there twice", shorten(&key))));
        }
        values.insert(key, value);
    }
    Ok(Metadata { values })
}

fn read_value(cursor: &mut Cursor, key: &str, kind: u32) -> Result<Value> {
    if kind == TEXT_TYPE {
        return Ok(Value::Text(cursor.text(key, u64::MAX)?));
    }
    if kind != ARRAY_TYPE {
        let Some(scalar) = Scalar::from_number(kind) else {
            return Err(cursor.wrong(format!("{}: value type {kind} is unknown", shorten(key))));
        };
        return Ok(scalar.value(&cursor.bytes(scalar.width() as u64, key)?));
    }
    let kind = cursor.u32(key)?;
    let count = cursor.u64(key)?;
    if kind == TEXT_TYPE {
        let mut texts = Texts::default();
        for _ in 0..count {
            texts.text.push_str(&cursor.text(key, u64::MAX)?);
            texts.ends.push(texts.text.len());
        }
        return Ok(Value::Texts(texts));
    }
    let Some(scalar) = Scalar::from_number(kind) else {
        return Err(cursor.wrong(format!("{}: arrays of type {kind} are not supported", shorten(key))));
    };
    let Some(length) = count.checked_mul(scalar.width() as u64) else {
        return Err(cursor.wrong(format!("{}: {count} values are announced", shorten(key))));
    };
    Ok(Value::Numbers(Numbers { kind: scalar, bytes: cursor.bytes(length, key)? }))
}

/// A line of the tensor table, offset still from the start of the data.
struct Line {
    name: String,
    storage: Storage,
    shape: Vec<usize>,
    offset: u64,
}

fn read_table(cursor: &mut Cursor, tensors: u64) -> Result<Vec<Line>> {
    let mut table = Vec::new();
    for _ in 0..tensors {
        let name = cursor.text("a tensor's name", LONGEST_NAME)?;
        let refuse = |problem: String| Err(tensor_error(cursor.file, &name, problem));
        let dimensions = cursor.u32(&name)?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return refuse(format!("{dimensions} dimensions; 1 to {MOST_DIMENSIONS} are possible"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = cursor.u64(&name)?;
            match usize::try_from(size) {
                Ok(size) if size > 0 => shape.push(size),
                _ => return Err(tensor_error(cursor.file, &name, format!("a dimension of {size}"))),
            }
        }
        shape.reverse(); // the file has the fastest dimension first
        let kind = cursor.u32(&name)?;
        let offset = cursor.u64(&name)?;
        let storage = storage_of(kind).map_err(|problem| tensor_error(cursor.file, &name, problem))?;
        table.push(Line { name, storage, shape, offset });
    }
    Ok(table)
}

/// Checks that the tensors lie in the file, aligned and apart, and turns their offsets into file offsets.
fn lay_out(table: Vec<Line>, start: u64, alignment: u64, total: u64, file: &str) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    let mut ranges = Vec::new();
    for line in table {
        let Line { name, storage, shape, offset } = line;
        let refuse = |problem: String| Err(tensor_error(file, &name, problem));
        let Some(length) = storage.bytes_for_shape(&shape) else {
            return refuse(format!("shape {shape:?} is not made of whole {} blocks, or is too large", storage.name()));
        };
        let begin = start.checked_add(offset);
        let end = begin.and_then(|b| b.checked_add(length as u64));
        let (Some(begin), Some(end)) = (begin, end.filter(|&end| end <= total)) else {
            return refuse(format!(
                "{length} bytes at {offset} of the data, which starts at {start}, reach past the end of the file at {total}; \
                 is the download complete?"
            ));
        };
        if !offset.is_multiple_of(alignment) {
            return refuse(format!("offset {offset} is no multiple of the alignment {alignment}"));
        }
        ranges.push((begin, end));
        let entry = Entry { storage, shape, offset: begin, permuted_head: None };
        if entries.insert(name.clone(), entry).is_some() {
            return refuse("there are two of this name".into());
        }
    }
    ranges.sort_unstable();
    if let Some(pair) = ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        let problem = format!("two tensors share bytes {} to {}", pair[1].0, pair[0].1.min(pair[1].1));
        return Err(Error::Format { file: file.to_owned(), problem });
    }
    Ok(entries)
}

/// The storage behind ggml's type number; the message names a type that is not supported.
fn storage_of(kind: u32) -> Result<Storage, String> {
    const OTHERS: [(u32, &str); 25] = [
        (6, "Q5_0"),
        (7, "Q5_1"),
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (13, "Q5_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (39, "MXFP4"),
        (40, "NVFP4"),
    ];
    Ok(match kind {
        0 => Storage::F32,
        1 => Storage::F16,
        2 => Storage::Q4_0,
        3 => Storage::Q4_1,
        8 => Storage::Q8_0,
        12 => Storage::Q4K,
        14 => Storage::Q6K,
        30 => Storage::Bf16,
        _ => {
            let name = OTHERS.iter().find(|(number, _)| *number == kind).map_or("unknown", |(_, name)| name);
            let supported: Vec<_> = Storage::ALL.into_iter().map(Storage::name).collect();
            return Err(format!("type {kind} ({name}) is not supported; {} are", supported.join(", ")));
        }
    })
}

/// Reads forward through a file with a small buffer, never past its end.
struct Cursor<'a> {
    source: &'a dyn Bytes,
    file: &'a str,
    at: u64,
    total: u64,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    buffered_from: u64,
}

impl<'a> Cursor<'a> {
    const BUFFER: u64 = 1 << 16;

    fn new(source: &'a dyn Bytes, file: &'a str) -> Self {
        Self { source, file, at: 0, total: source.len(), buffer: Vec::new(), buffered_from: 0 }
    }

    fn wrong(&self, problem: String) -> Error {
        Error::Format { file: self.file.to_owned(), problem }
    }

    /// Fails unless `length` bytes are left, so that nothing is allocated for what is not there.
    fn claim(&self, length: u64, what: &str) -> Result<()> {
        if length <= self.total - self.at {
            return Ok(());
        }
        let left = self.total - self.at;
        let what = shorten(what);
        let text = format!("{what}: {length} bytes are announced at {}, but the file ends after {left} more", self.at);
        Err(self.wrong(text))
    }

    fn fill(&mut self, out: &mut [u8], what: &str) -> Result<()> {
        let length = out.len() as u64;
        self.claim(length, what)?;
        let buffered_to = self.buffered_from + self.buffer.len() as u64;
        if length > Self::BUFFER {
            self.source.read(self.at, out)?;
        } else {
            if self.at < self.buffered_from || self.at + length > buffered_to {
                self.buffer.resize(Self::BUFFER.min(self.total - self.at) as usize, 0);
                self.source.read(self.at, &mut self.buffer)?;
                self.buffered_from = self.at;
            }
            let start = (self.at - self.buffered_from) as usize;
            out.copy_from_slice(&self.buffer[start..start + out.len()]);
        }
        self.at += length;
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn bytes(&mut self, length: u64, what: &str) -> Result<Vec<u8>> {
        self.claim(length, what)?;
        let length = usize::try_from(length).map_err(|_| self.wrong(format!("{}: too large", shorten(what))))?;
        let mut out = vec![0; length];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    fn text(&mut self, what: &str, longest: u64) -> Result<String> {
        let length = self.u64(what)?;
        if length > longest {
            return Err(self.wrong(format!("{} of {length} bytes; {longest} are possible", shorten(what))));
        }
        let bytes = self.bytes(length, what)?;
        String::from_utf8(bytes).map_err(|_| self.wrong(format!("{} is not UTF-8", shorten(what))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llamas_rows_are_paired_halves_again() {
        // A head of 6: GGUF has 0 3 1 4 2 5.
        let stored: Vec<u8> = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11].iter().flat_map(|&r| [r, r]).collect();
        let expected: Vec<u8> = (0..12).flat_map(|r| [r, r]).collect();
        assert_eq!(unpermute(&stored, 12, 6), expected);
    }

    #[test]
    fn names_become_hugging_faces_own_and_unknown_ones_stay_unknown() {
        let name = |n, f| huggingface_name(n, f);
        assert_eq!(name("blk.12.attn_q.bias", Family::Qwen2).unwrap(), "model.layers.12.self_attn.q_proj.bias");
        assert_eq!(name("blk.0.ffn_up.weight", Family::Llama).unwrap(), "model.layers.0.mlp.up_proj.weight");
        assert_eq!(name("blk.0.ffn_up.weight", Family::Glm4).unwrap(), "model.layers.0.mlp.gate_up_proj.weight");
        assert_eq!(
            name("blk.3.post_ffw_norm.weight", Family::Glm4).unwrap(),
            "model.layers.3.post_mlp_layernorm.weight"
        );
        for unknown in
            ["blk.0.post_ffw_norm.weight", "blk.01.attn_q.weight", "blk.x.attn_q.weight", "blk.0.attn_q.scale", "a"]
        {
            assert_eq!(name(unknown, Family::Llama), None, "{unknown}");
        }
    }

    #[test]
    fn a_type_that_is_not_supported_is_named() {
        assert!(storage_of(13).unwrap_err().contains("Q5_K"));
        assert!(storage_of(4).unwrap_err().contains("unknown"));
        assert_eq!(storage_of(14), Ok(Storage::Q6K));
    }
}
