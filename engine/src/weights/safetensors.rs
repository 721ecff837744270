//! safetensors files: one file or a set of shards with an index, headers first, tensors on demand.
//!
//! A file is a little-endian u64 header length, a JSON header `{"name": {"dtype", "shape", "data_offsets"}, ...}` and
//! the tensors' bytes end to end. The reference reader wants the whole file in memory to check it; this one reads the
//! header alone and is stricter: doubled keys, unknown keys, holes, overlaps and trailing bytes are refused. The writer
//! is in
//! [`crate::export::stream`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{RawTensor, WeightFormat, WeightSource, absent, read_range, read_small, refuse_pointer, tensor_error};
use crate::error::{Error, Result};
use crate::host::{Bytes, Folder, check_name, shorten};

/// Name of an unsharded model's file.
pub const SINGLE: &str = "model.safetensors";
/// Name of the file that lists a sharded model's tensors.
pub const INDEX: &str = "model.safetensors.index.json";

/// As in the reference implementation.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes of the length field.
const LENGTH_FIELD: u64 = 8;
/// More tensors than any published model has, few enough that a lying header cannot fill memory.
const MOST_TENSORS: usize = 1 << 16;
const MOST_DIMENSIONS: usize = 8;

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    format: WeightFormat,
    shape: Vec<usize>,
    /// From the start of the file.
    offset: u64,
    length: u64,
}

/// One opened file.
pub struct SafetensorsFile {
    bytes: Arc<dyn Bytes>,
    file: String,
    entries: BTreeMap<String, Entry>,
}

impl SafetensorsFile {
    /// Reads and checks the header; `file` is the file's name in messages.
    ///
    /// # Errors
    /// As [`stored`]; [`Error::Tensor`] for a tensor of a type other than F32, F16 and BF16.
    pub fn open(bytes: Arc<dyn Bytes>, file: &str) -> Result<Self> {
        let entry = |(name, tensor): (String, Stored)| {
            let Stored { dtype, shape, offset, length } = tensor;
            let format = match dtype.as_str() {
                "F32" => WeightFormat::F32,
                "F16" => WeightFormat::F16,
                "BF16" => WeightFormat::Bf16,
                other => {
                    let problem = format!("type {} is not supported; F32, F16 and BF16 are", shorten(other));
                    return Err(tensor_error(file, &name, problem));
                }
            };
            if format.bytes_for_shape(&shape).map(|n| n as u64) != Some(length) {
                let problem = format!("{length} bytes are no {} tensor of shape {shape:?}", format.name());
                return Err(tensor_error(file, &name, problem));
            }
            Ok((name, Entry { format, shape, offset, length }))
        };
        let entries = stored(bytes.as_ref(), file)?.into_iter().map(entry).collect::<Result<_>>()?;
        Ok(Self { bytes, file: file.to_owned(), entries })
    }
}

/// A tensor as the header of its file describes it. Whether shape and type make so many bytes is for whoever knows the type.
pub(crate) struct Stored {
    /// Type, as it is written.
    pub dtype: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// From the start of the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The tensors of a file, of which the header is read and checked; `file` is the file's name in messages.
///
/// # Errors
/// [`Error::Format`] for a malformed header and sizes that do not agree with the file, [`Error::Tensor`] for tensors that leave
/// holes or overlap, [`Error::Io`] where the host cannot read.
pub(crate) fn stored(bytes: &dyn Bytes, file: &str) -> Result<BTreeMap<String, Stored>> {
    let wrong = |problem: String| Error::Format { file: file.to_owned(), problem };
    let total = bytes.len();
    if total < LENGTH_FIELD {
        return Err(wrong(format!("{total} bytes are no safetensors file; is the download complete?")));
    }
    let mut length = [0; LENGTH_FIELD as usize];
    bytes.read(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > total - LENGTH_FIELD {
        refuse_pointer(bytes, file)?;
        return Err(wrong(format!("a header of {length} bytes is announced, but the file has {total} bytes")));
    }
    let text = read_range(bytes, LENGTH_FIELD, length, file)?;
    let header: Header = serde_json::from_slice(&text).map_err(|e| wrong(format!("header: {e}")))?;
    lay_out(header, LENGTH_FIELD + length, total, file)
}

/// Checks that the tensors cover the data without holes or overlaps, and turns their offsets into file offsets.
fn lay_out(header: Header, start: u64, total: u64, file: &str) -> Result<BTreeMap<String, Stored>> {
    let mut order: Vec<(u64, u64, &str)> =
        header.0.iter().map(|(name, t)| (t.data_offsets.0, t.data_offsets.1, name.as_str())).collect();
    order.sort_unstable();
    let mut end = 0;
    for (from, to, name) in order {
        if from != end || to < from {
            let problem = format!("lies at bytes {from} to {to}, but the tensor before it ends at {end}");
            return Err(tensor_error(file, name, problem));
        }
        end = to;
    }
    if start.checked_add(end) != Some(total) {
        let problem = format!("{end} bytes of tensors are announced, but {} follow the header", total - start);
        return Err(Error::Format { file: file.to_owned(), problem });
    }
    let stored = |(name, tensor): (String, Info)| {
        let Info { dtype, shape, data_offsets: (from, to) } = tensor;
        (name, Stored { dtype, shape: shape.0, offset: start + from, length: to - from })
    };
    Ok(header.0.into_iter().map(stored).collect())
}

impl WeightSource for SafetensorsFile {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        self.entries.get(name).map(|e| e.format)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let entry = self.entries.get(name).ok_or_else(|| absent(&self.file, name))?;
        let bytes = read_range(self.bytes.as_ref(), entry.offset, entry.length, &self.file)?;
        Ok(RawTensor { name: name.to_owned(), shape: entry.shape.clone(), format: entry.format, bytes })
    }

    fn file_of(&self, _name: &str) -> String {
        self.file.clone()
    }
}

/// A whole model: one file, or several with an index.
pub struct Safetensors {
    files: Vec<SafetensorsFile>,
    /// Index into `files` by tensor name.
    place: BTreeMap<String, usize>,
    /// Where a tensor would be looked for.
    main: String,
}

/// Opens [`SINGLE`] where it is there, else the shards of [`INDEX`]. Shard names must be plain file names, so that an
/// index cannot point outside the folder.
///
/// # Errors
/// [`Error::Io`] where neither file is there or a shard is missing, otherwise as [`SafetensorsFile::open`];
/// [`Error::Tensor`] where index and shards disagree.
pub fn open_folder(folder: &dyn Folder) -> Result<Safetensors> {
    let main = folder.display(SINGLE);
    if let Some(bytes) = folder.open(SINGLE)? {
        let file = SafetensorsFile::open(bytes, &main)?;
        let place = file.entries.keys().map(|name| (name.clone(), 0)).collect();
        return Ok(Safetensors { files: vec![file], place, main });
    }
    if folder.open(INDEX)?.is_none() {
        return Err(Error::Missing { path: main, problem: no_weights(folder) });
    }
    let (text, index) = read_small(folder, INDEX, LONGEST_HEADER)?;
    let listed: Index =
        serde_json::from_slice(&text).map_err(|e| Error::Format { file: index.clone(), problem: e.to_string() })?;

    let mut files: Vec<SafetensorsFile> = Vec::new();
    let mut number: HashMap<String, usize> = HashMap::new();
    let mut place = BTreeMap::new();
    for (tensor, shard) in listed.weight_map.0 {
        let at = match number.get(&shard) {
            Some(&at) => at,
            None => {
                check_name(&shard).map_err(|_| {
                    tensor_error(&index, &tensor, format!("\"{}\" is no plain file name", shorten(&shard)))
                })?;
                let path = folder.display(&shard);
                let Some(bytes) = folder.open(&shard)? else {
                    return Err(Error::Missing {
                        path,
                        problem: format!("this shard is listed in {index} but missing"),
                    });
                };
                files.push(SafetensorsFile::open(bytes, &path)?);
                number.insert(shard.clone(), files.len() - 1);
                files.len() - 1
            }
        };
        if !files[at].entries.contains_key(&tensor) {
            return Err(tensor_error(&index, &tensor, format!("is not in {}, where the index has it", files[at].file)));
        }
        place.insert(tensor, at);
    }
    // A tensor that only a shard knows of would be read by some programs and not by others.
    for (at, file) in files.iter().enumerate() {
        if let Some(name) = file.entries.keys().find(|&name| place.get(name) != Some(&at)) {
            return Err(tensor_error(&file.file, name, format!("is not listed for this file in {index}")));
        }
    }
    Ok(Safetensors { files, place, main: index })
}

/// What is missing of a folder that has neither a file nor an index, and what to do about weights of another format.
fn no_weights(folder: &dyn Folder) -> String {
    const PICKLED: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    let missing = format!("there is neither this file nor {INDEX}");
    match PICKLED.into_iter().find(|name| matches!(folder.open(name), Ok(Some(_)))) {
        None => missing,
        Some(name) => format!(
            "{missing}, only {name}, which is not read; write the model anew in Python, from its folder DIR to OUT: \
             AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT, safe_serialization=True) and \
             AutoTokenizer.from_pretrained(DIR).save_pretrained(OUT)"
        ),
    }
}

impl Safetensors {
    fn file(&self, name: &str) -> Option<&SafetensorsFile> {
        self.place.get(name).map(|&at| &self.files[at])
    }
}

impl WeightSource for Safetensors {
    fn names(&self) -> Vec<String> {
        self.place.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.file(name)?.shape(name)
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        self.file(name)?.format(name)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        self.file(name).ok_or_else(|| absent(&self.main, name))?.read(name)
    }

    fn file_of(&self, name: &str) -> String {
        self.file(name).map_or_else(|| self.main.clone(), |f| f.file.clone())
    }
}

/// The header as written. Parsed by hand where serde's derive would be too lenient: it keeps the last of two equal
/// keys, and grows lists without limit.
struct Header(BTreeMap<String, Info>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<usize>);

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(UniqueKeys::<Info> { skip: "__metadata__", value: std::marker::PhantomData }).map(Self)
    }
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(UniqueKeys::<String> { skip: "", value: std::marker::PhantomData }).map(Self)
    }
}

/// A JSON object in which every key but `skip` names a tensor, once.
struct UniqueKeys<T> {
    skip: &'static str,
    value: std::marker::PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueKeys<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with a key for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if !self.skip.is_empty() && name == self.skip {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if found.len() == MOST_TENSORS {
                return Err(de::Error::custom(format!("more than {MOST_TENSORS} tensors")));
            }
            let value = map.next_value::<T>()?;
            if found.contains_key(&name) {
                return Err(de::Error::custom(format!("two tensors are called \"{}\"", shorten(&name))));
            }
            found.insert(name, value);
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Vec<usize>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "at most {MOST_DIMENSIONS} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<usize>, A::Error> {
                let mut shape = Vec::new();
                while let Some(n) = list.next_element::<usize>()? {
                    if shape.len() == MOST_DIMENSIONS {
                        return Err(de::Error::invalid_length(MOST_DIMENSIONS + 1, &self));
                    }
                    shape.push(n);
                }
                Ok(shape)
            }
        }
        from.deserialize_seq(Dimensions).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::MemoryFolder;

    /// A file out of a header and zeros for data.
    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn open(header: &str, data: usize) -> Result<SafetensorsFile> {
        SafetensorsFile::open(Arc::new(file(header, data)), "t.safetensors")
    }

    #[test]
    fn a_header_that_tells_the_truth_is_read() {
        let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[3],"data_offsets":[8,14]},
            "a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
        let found = open(header, 14).unwrap();
        assert_eq!(found.names(), ["a", "b"]);
        assert_eq!((found.shape("a"), found.format("b")), (Some(&[1, 2][..]), Some(WeightFormat::F16)));
        assert_eq!(found.read("b").unwrap().bytes.len(), 6);
        assert!(found.read("c").is_err());
        assert!(open("{}", 0).unwrap().names().is_empty());
    }

    #[test]
    fn each_lie_in_a_header_is_an_error() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        for (what, header, data) in [
            ("wrong size", one("F32", "[2]", "[0,4]"), 4),
            ("hole at the start", one("F32", "[1]", "[4,8]"), 8),
            ("trailing bytes", one("F32", "[1]", "[0,4]"), 5),
            ("past the end", one("F32", "[2]", "[0,8]"), 4),
            ("backwards", one("F32", "[1]", "[4,0]"), 4),
            ("product overflows", one("F32", "[4294967296,4294967296]", "[0,0]"), 0),
            ("bytes overflow", one("F32", "[9223372036854775807]", "[0,4]"), 4),
            ("negative", one("F32", "[-1]", "[0,4]"), 4),
            ("offset beyond u64", one("F32", "[1]", "[0,18446744073709551616]"), 4),
            ("end near u64::MAX", one("F32", "[1]", "[0,18446744073709551615]"), 4),
            ("f64", one("F64", "[1]", "[0,8]"), 8),
            ("integers", one("I64", "[1]", "[0,8]"), 8),
            ("no such type", one("F33", "[1]", "[0,4]"), 4),
            ("too many dimensions", one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4),
            ("three offsets", one("F32", "[1]", "[0,4,8]"), 4),
            ("unknown key", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#.into(), 4),
            ("key twice", r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.into(), 4),
            ("missing key", r#"{"a":{"dtype":"F32","shape":[1]}}"#.into(), 4),
            ("not an object", "[]".into(), 0),
            ("not JSON", "{".into(), 0),
        ] {
            assert!(open(&header, data).is_err(), "{what}");
        }
        let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        assert!(open(&format!(r#"{{"a":{entry},"b":{entry}}}"#), 4).is_err(), "overlap");
        assert!(open(&format!(r#"{{"a":{entry},"a":{entry}}}"#), 4).is_err(), "name twice");
        for length in [u64::MAX, u64::MAX - 7, 1 << 40, 3] {
            let mut bytes = file("{}", 0);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            assert!(SafetensorsFile::open(Arc::new(bytes), "t").is_err(), "header of {length} bytes");
        }
    }

    #[test]
    fn shards_are_found_through_the_index_and_must_agree_with_it() {
        let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        let folder = |index: &str| {
            let mut folder = MemoryFolder::new();
            folder.insert(INDEX, index.as_bytes().to_vec()).unwrap();
            folder.insert("1.safetensors", file(&format!(r#"{{"a":{entry}}}"#), 4)).unwrap();
            folder.insert("2.safetensors", file(&format!(r#"{{"b":{entry}}}"#), 4)).unwrap();
            folder
        };
        let map = |a: &str, b: &str| format!(r#"{{"metadata":{{}},"weight_map":{{"a":"{a}","b":"{b}"}}}}"#);
        let found = open_folder(&folder(&map("1.safetensors", "2.safetensors"))).unwrap();
        assert_eq!(found.names(), ["a", "b"]);
        assert_eq!(found.file_of("b"), "2.safetensors");
        assert_eq!(found.read("a").unwrap().shape, [1]);
        for (what, index) in [
            ("swapped", map("2.safetensors", "1.safetensors")),
            ("missing shard", map("1.safetensors", "3.safetensors")),
            ("above the folder", map("1.safetensors", "../2.safetensors")),
            ("absolute", map("1.safetensors", "/2.safetensors")),
            ("unlisted tensor", r#"{"weight_map":{"a":"1.safetensors"},"x":1}"#.replace("\"a\"", "\"c\"")),
            ("same name twice", r#"{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}"#.into()),
            ("no map", "{}".into()),
        ] {
            assert!(open_folder(&folder(&index)).is_err(), "{what}");
        }
        assert!(open_folder(&MemoryFolder::new()).is_err());
    }

    #[test]
    fn a_pointer_of_git_and_weights_of_another_format_are_named_with_the_way_to_safetensors() {
        let said = |name: &str, contents: &[u8]| {
            let mut folder = MemoryFolder::new();
            folder.insert(name, contents.to_vec()).unwrap();
            let error = open_folder(&folder).err().expect("no weights");
            assert!(error.is_bad_input());
            error.to_string()
        };
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 538090408\n";
        let message = said(SINGLE, pointer.as_bytes());
        assert!(message.starts_with("model.safetensors: is a Git LFS pointer"), "{message}");
        assert!(message.contains("git lfs pull") && !message.contains("announced"), "{message}");
        assert!(said(SINGLE, b"version ").contains("announced"), "too short for one");
        for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
            let message = said(name, b"");
            assert!(message.contains(&format!("there is neither this file nor {INDEX}, only {name}, ")), "{message}");
            assert!(message.contains("save_pretrained(OUT, safe_serialization=True)"), "{message}");
        }
        assert!(said("other.bin", b"").ends_with(INDEX));
    }
}
