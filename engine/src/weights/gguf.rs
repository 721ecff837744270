//! GGUF files, versions 2 and 3, as containers: metadata, tensor table and bytes, under the file's own names.
//!
//! A file is a magic number, counts, key-value metadata, a table of tensors and, aligned, their bytes (format: ggml's
//! `docs/gguf.md`). Large models come in parts, each of which is such a file ([`Gguf::open_in`]). The one thing undone here is the order of dimensions (GGUF has the fastest one first); what the
//! metadata and names mean for a model is read by `model/gguf.rs` and `data/tokenizer/`.
//!
//! Files are untrusted. Every count is limited by a constant, every length by the rest of the file, before memory is
//! taken; metadata arrays are kept in the width they have in the file. That is why this is no crate's reader: it works on
//! any host's bytes (a file, a page's buffer), trusts no number, and names the field that is wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{RawTensor, WeightFormat, WeightSource, absent, read_range, refuse_pointer, tensor_error};
use crate::error::{Error, Result};
use crate::host::{Bytes, Folder, shorten};

const MAGIC: [u8; 4] = *b"GGUF";
/// Large models have some hundred tensors and some dozen keys; these leave room and keep tables small.
const MOST_TENSORS: u64 = 1 << 16;
const MOST_KEYS: u64 = 1 << 14;
const LONGEST_NAME: u64 = 1 << 10;
const MOST_DIMENSIONS: u32 = 4;
const MOST_PARTS: u64 = 1 << 10;
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

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    format: WeightFormat,
    shape: Vec<usize>,
    /// From the start of the file.
    offset: u64,
}

/// Where each key's value lies, its type first, in the order of the file.
type Places = Vec<(String, Range<u64>)>;

/// An opened GGUF model, a [`WeightSource`] under the files' own names: one file, or the parts of a split one.
pub struct Gguf {
    /// In their order; the first has the metadata.
    parts: Vec<Part>,
    /// Index into `parts` by tensor name.
    place: BTreeMap<String, usize>,
}

impl Gguf {
    /// Reads and checks metadata and tensor table of one file; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Format`] and [`Error::Tensor`] for what is malformed or does not agree with the file's size,
    /// [`Error::Unsupported`] for other versions and for one part of several, [`Error::Io`] where the host cannot read.
    pub fn open(bytes: Arc<dyn Bytes>, file: &str) -> Result<Self> {
        let part = Part::open(bytes, file)?;
        match part.split()? {
            None => Self::of(vec![part]),
            Some(Split { number, count, .. }) => {
                let problem = format!(
                    "{file} is part {number} of {count} and was given alone; give all parts, or join them (llama-gguf-split \
                     --merge)"
                );
                Err(Error::Unsupported { problem })
            }
        }
    }

    /// Opens a file of a folder and, where it says that it is one part of several, the others beside it, which are found by
    /// their names: `<model>-00001-of-00003.gguf`, as llama.cpp has them.
    ///
    /// # Errors
    /// As [`Gguf::open`]; [`Error::Missing`] for a part that is not there, [`Error::Format`] for one that is of another model
    /// or another part than its name says, [`Error::Tensor`] for a tensor in two parts.
    pub fn open_in(folder: &dyn Folder, name: &str) -> Result<Self> {
        let open = |name: &str| match folder.open(name)? {
            Some(bytes) => Part::open(bytes, &folder.display(name)).map(Some),
            None => Ok(None),
        };
        let Some(named) = open(name)? else {
            return Err(Error::Missing { path: folder.display(name), problem: "there is no such file".into() });
        };
        let Some(split) = named.split()? else { return Self::of(vec![named]) };
        let stem = name.strip_suffix(&split.suffix()).ok_or_else(|| {
            let problem = format!(
                "is part {} of {} by what it says inside, and its name does not end in {}, so that the other parts cannot be \
                 found; is it a copy of another part, or renamed?",
                split.number,
                split.count,
                split.suffix()
            );
            Error::Format { file: named.file.clone(), problem }
        })?;
        let (known, mut named) = (named.file.clone(), Some(named));
        let mut parts = Vec::new();
        for number in 1..=split.count {
            let expected = Split { number, ..split };
            let sibling = format!("{stem}{}", expected.suffix());
            let part = match named.take_if(|_| number == split.number) {
                Some(part) => part,
                None => open(&sibling)?.ok_or_else(|| Error::Missing {
                    path: folder.display(&sibling),
                    problem: format!("part {number} of {} is missing; it belongs beside {known}", split.count),
                })?,
            };
            part.refuse_other(expected, &known)?;
            parts.push(part);
        }
        let found: usize = parts.iter().map(|part| part.entries.len()).sum();
        if let Some(announced) = split.tensors.filter(|&announced| announced != found as u64) {
            let problem = format!("announces {announced} tensors in {} parts, which have {found}", split.count);
            return Err(Error::Format { file: known, problem });
        }
        Self::of(parts)
    }

    fn of(parts: Vec<Part>) -> Result<Self> {
        let mut place = BTreeMap::new();
        for (at, part) in parts.iter().enumerate() {
            for name in part.entries.keys() {
                if let Some(before) = place.insert(name.clone(), at) {
                    return Err(tensor_error(&part.file, name, format!("is in {} as well", parts[before].file)));
                }
            }
        }
        Ok(Self { parts, place })
    }

    fn entry(&self, name: &str) -> Option<(&Part, &Entry)> {
        let part = &self.parts[*self.place.get(name)?];
        Some((part, part.entries.get(name)?))
    }

    /// The name in messages of the file that has the metadata.
    pub fn file(&self) -> &str {
        &self.parts[0].file
    }

    /// The key-value part.
    pub fn metadata(&self) -> &Metadata {
        &self.parts[0].metadata
    }

    /// Keys in the order of the file, each with its value as the file has it: its type, then its bytes.
    ///
    /// # Errors
    /// [`Error::Io`] where the host cannot read.
    pub fn stored_values(&self) -> impl Iterator<Item = Result<(&str, Vec<u8>)>> {
        let Part { values, bytes, file, .. } = &self.parts[0];
        values.iter().map(move |(key, range)| {
            let length = range.end - range.start;
            Ok((key.as_str(), read_range(bytes.as_ref(), range.start, length, file)?))
        })
    }
}

impl WeightSource for Gguf {
    fn names(&self) -> Vec<String> {
        self.place.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entry(name).map(|(_, entry)| entry.shape.as_slice())
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        self.entry(name).map(|(_, entry)| entry.format)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let (part, entry) = self.entry(name).ok_or_else(|| absent(self.file(), name))?;
        let length = entry.format.bytes_for_shape(&entry.shape).unwrap_or(0);
        let bytes = read_range(part.bytes.as_ref(), entry.offset, length as u64, &part.file)?;
        Ok(RawTensor { name: name.to_owned(), shape: entry.shape.clone(), format: entry.format, bytes })
    }

    fn file_of(&self, name: &str) -> String {
        self.entry(name).map_or_else(|| self.file(), |(part, _)| &part.file).to_owned()
    }
}

/// One opened file.
struct Part {
    bytes: Arc<dyn Bytes>,
    file: String,
    metadata: Metadata,
    values: Places,
    entries: BTreeMap<String, Entry>,
}

impl Part {
    fn open(bytes: Arc<dyn Bytes>, file: &str) -> Result<Self> {
        let mut cursor = Cursor::new(bytes.as_ref(), file);
        let (tensors, keys) = read_start(&mut cursor)?;
        let (metadata, values) = read_metadata(&mut cursor, keys)?;
        let table = read_table(&mut cursor, tensors)?;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(_) => metadata.unsigned("general.alignment").unwrap_or(0),
        };
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(cursor.wrong("general.alignment is no power of two up to 2^20".into()));
        }
        let start = cursor.at.next_multiple_of(alignment);
        let entries = lay_out(table, start, alignment, bytes.len(), file)?;
        Ok(Self { bytes, file: file.to_owned(), metadata, values, entries })
    }

    /// What it says of being one part of several.
    fn split(&self) -> Result<Option<Split>> {
        let Some(count) = self.metadata.unsigned("split.count").filter(|&count| count > 1) else { return Ok(None) };
        let at = self.metadata.unsigned("split.no").filter(|&at| at < count && count <= MOST_PARTS);
        let Some(at) = at else {
            let problem = format!("split.count is {count} and split.no no part of 0 to {} of them", MOST_PARTS - 1);
            return Err(Error::Format { file: self.file.clone(), problem });
        };
        Ok(Some(Split { number: at + 1, count, tensors: self.metadata.unsigned("split.tensors.count") }))
    }

    /// Fails where this is another part than `expected`, or of another model; `known` is the file that says what to expect.
    fn refuse_other(&self, expected: Split, known: &str) -> Result<()> {
        let Split { number, count, tensors } = expected;
        let problem = match self.split()? {
            None => format!("is no part of several, and {known} says that it is part {number} of {count}"),
            Some(found) if (found.number, found.count) != (number, count) => format!(
                "is part {} of {} by what it says inside, and part {number} of {count} by its name and {known}; is it a copy of \
                 another part, or of another model?",
                found.number, found.count
            ),
            Some(found) if found.tensors != tensors => {
                let say = |tensors: Option<u64>| tensors.map_or("none".into(), |count| count.to_string());
                let (found, tensors) = (say(found.tensors), say(tensors));
                format!(
                    "is of a model of {found} tensors, and {known} of one of {tensors}; they do not belong together"
                )
            }
            Some(_) => return Ok(()),
        };
        Err(Error::Format { file: self.file.clone(), problem })
    }
}

/// What a file says of being one part of several.
#[derive(Clone, Copy)]
struct Split {
    /// From 1 on.
    number: u64,
    count: u64,
    /// Tensors of all parts together.
    tensors: Option<u64>,
}

impl Split {
    /// The end of the part's name.
    fn suffix(self) -> String {
        format!("-{:05}-of-{:05}.gguf", self.number, self.count)
    }
}

/// Checks the start of the file; gives the number of tensors and of keys.
fn read_start(cursor: &mut Cursor) -> Result<(u64, u64)> {
    if cursor.array::<4>("the magic number")? != MAGIC {
        refuse_pointer(cursor.source, cursor.file)?;
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

fn read_metadata(cursor: &mut Cursor, keys: u64) -> Result<(Metadata, Places)> {
    let mut values = BTreeMap::new();
    let mut places = Vec::new();
    for _ in 0..keys {
        let key = cursor.text("a key", LONGEST_NAME)?;
        let start = cursor.at;
        let kind = cursor.u32("a value's type")?;
        let value = read_value(cursor, &key, kind)?;
        places.push((key.clone(), start..cursor.at));
        if values.insert(key.clone(), value).is_some() {
            return Err(cursor.wrong(format!("the key {} is there twice", shorten(&key))));
        }
    }
    Ok((Metadata { values }, places))
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
    format: WeightFormat,
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
        let format = WeightFormat::of_gguf_type(kind).map_err(|problem| tensor_error(cursor.file, &name, problem))?;
        table.push(Line { name, format, shape, offset });
    }
    Ok(table)
}

/// Checks that the tensors lie in the file, aligned and apart, and turns their offsets into file offsets.
fn lay_out(table: Vec<Line>, start: u64, alignment: u64, total: u64, file: &str) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    let mut ranges = Vec::new();
    for line in table {
        let Line { name, format, shape, offset } = line;
        let refuse = |problem: String| Err(tensor_error(file, &name, problem));
        let Some(length) = format.bytes_for_shape(&shape) else {
            return refuse(format!("shape {shape:?} is not made of whole {} blocks, or is too large", format.name()));
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
        let entry = Entry { format, shape, offset: begin };
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
