//! Everything that an interrupted run needs to go on as if nothing had happened, as named files.
//!
//! `state.json` holds counters, seeds, the resolved configuration, and digests: of the other files, of the training data, of
//! the model that the run began with, and of itself. `trained.safetensors` holds the trained parameters,
//! `optimiser.safetensors` both moments. All as they are held (f32, halves of 16 bits, codes with their scales), so that a
//! resumed run gives the same losses to the bit on the same device. They are written and read one tensor at a time. The host
//! writes and reads the files; see [`crate::host::Folder`].
//!
//! Whoever reads a checkpoint trusts nothing in it that its digests do not vouch for, so that an accident (a file of another
//! checkpoint, an edit, a flipped bit) is an error and never another result.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::optimiser::Clipping;
use super::selection::Selection;
use super::session::Session;
use crate::data::Cursor;
use crate::digest::{Digest, Digester, Digesting};
use crate::error::{Error, Result, into_error, wrong};
use crate::export::stream::{Store, Stream};
use crate::host::{Bytes, Folder, MOST_CONFIGURATION_BYTES};
use crate::kernels::compact::{Bf16, Coded};
use crate::kernels::{Moments, Weights, Words};
use crate::model::layout::TensorSpec;
use crate::model::parameter::{Parameter, from_host, to_host};
use crate::weights::safetensors::{Stored, stored};
use crate::weights::{WeightFormat, read_if_there};
use temper_shaders::compact::BLOCK;

/// Version of the format; a reader refuses any other. Version 1 had no digests.
pub const VERSION: u32 = 2;
const STATE: &str = "state.json";
/// Most bytes of a state: a configuration, whose letters may be written as several, and a few numbers.
const MOST_STATE_BYTES: u64 = 8 * MOST_CONFIGURATION_BYTES;
pub(super) const TRAINED: &str = "trained.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";

/// The part of a checkpoint that is not tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Format version.
    version: u32,
    /// Optimiser steps applied.
    pub(super) step: u64,
    /// Seed of dropout masks.
    seed: u64,
    /// Global gradient norm of the last step, where the next one is clipped by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_norm: Option<f64>,
    /// What the run knows beyond its session.
    pub progress: Progress,
    /// Digest of the model that the run began with.
    pub(super) model: Digest,
    /// Digests of the other files, by name.
    pub(super) files: BTreeMap<String, Digest>,
    /// Digest of all of the above.
    state: Digest,
}

/// What a run knows beyond its session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Where the data order stands.
    pub cursor: Cursor,
    /// Digest of the training data and the seed of its order.
    pub data: Digest,
    /// True where an evaluation of this step was still to be made.
    pub evaluation_due: bool,
    /// What was done before the checkpoint.
    pub done: Done,
    /// What the evaluations have chosen, in a run that chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// The resolved configuration, as TOML.
    pub config: String,
}

impl State {
    fn of(session: &Session, progress: Progress) -> Self {
        let (step, seed, model) = (session.step, session.seed, session.model.origin);
        let last_norm = session.last_norm.filter(|_| session.optimiser.clipping == Clipping::LastNorm);
        let (files, state) = (BTreeMap::new(), Digest::default());
        Self { version: VERSION, step, seed, last_norm, progress, model, files, state }
    }

    /// The digest that `state` is to have.
    fn digest(&self) -> serde_json::Result<Digest> {
        let unsigned = Self { state: Digest::default(), ..self.clone() };
        Ok(Digest::of(&serde_json::to_vec(&unsigned)?))
    }

    /// As a file that vouches for these.
    fn to_file(&self, files: BTreeMap<String, Digest>) -> serde_json::Result<Vec<u8>> {
        let mut state = Self { files, ..self.clone() };
        state.state = state.digest()?;
        serde_json::to_vec_pretty(&state)
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let unreadable = |e: serde_json::Error| broken(STATE, format!("not readable: {e}"));
        let Versioned { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if version != VERSION {
            return Err(other_version("version", version));
        }
        let state: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        let found = state.digest().map_err(unreadable)?;
        match found == state.state {
            true => Ok(state),
            false => Err(altered(STATE, state.state, found)),
        }
    }
}

/// A checkpoint of a version that this program does not read.
pub fn other_version(field: &str, version: u32) -> Error {
    let advice = "end the run with the program that began it, or begin a new one";
    broken(field, format!("this is format {version}, and only {VERSION} is read; {advice}"))
}

fn altered(file: &str, written: Digest, found: Digest) -> Error {
    let problem = format!("was changed after it was written: its digest is {found}, and was {written}; restore it");
    broken(file, problem)
}

/// Sums over a run that go on through its interruptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Trained tokens of all steps.
    pub tokens: u64,
    /// Wall time, without interruptions.
    pub seconds: f64,
}

/// Name and contents of one file of a checkpoint.
pub type NamedFile = (String, Vec<u8>);

/// A checkpoint on its way to files. Tensors stay on the device until the file that they belong to is written, so that
/// weights and moments do not exist a second time.
pub struct Checkpoint<'a> {
    files: Vec<(String, Contents<'a>)>,
    /// Digests of the files that were written.
    written: RefCell<BTreeMap<String, Digest>>,
}

enum Contents<'a> {
    Bytes(Vec<u8>),
    Trained(&'a Session),
    Moments(&'a Session),
    /// Vouches for the files beside it.
    State(State),
}

impl<'a> Checkpoint<'a> {
    /// The checkpoint of a session as it stands.
    pub fn new(session: &'a Session, progress: Progress) -> Self {
        // The state is last: it vouches for the others, and a host that writes in order never leaves one without its tensors.
        let files = [
            (TRAINED, Contents::Trained(session)),
            (OPTIMISER, Contents::Moments(session)),
            (STATE, Contents::State(State::of(session, progress))),
        ];
        let files = files.into_iter().map(|(name, contents)| (name.to_string(), contents)).collect();
        Self { files, written: RefCell::default() }
    }

    /// The checkpoints of several sessions as one, the files of each below its number, from `first` on, behind a file that
    /// says so.
    pub fn of_several(header: NamedFile, first: usize, sessions: Vec<Self>) -> Self {
        let mut files = vec![(header.0, Contents::Bytes(header.1))];
        for (index, own) in (first..).zip(sessions) {
            files.extend(own.files.into_iter().map(|(name, contents)| (format!("{index}/{name}"), contents)));
        }
        Self { files, written: RefCell::default() }
    }

    /// Names of the files, in the order in which they are to be written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// Writes one of the files, in the order of [`Checkpoint::names`].
    ///
    /// # Errors
    /// The writer's, and, inside an [`io::Error`] (see [`into_error`]): [`Error::NonFinite`] where the last step made NaN
    /// or infinity, since a good checkpoint must not be replaced by one that cannot go on; device errors while reading
    /// tensors back.
    pub async fn write(&self, file: &str, out: &mut dyn Write) -> io::Result<()> {
        let mut out = Digesting::new(out);
        self.write_contents(file, &mut out).await?;
        self.written.borrow_mut().insert(file.to_string(), out.digest());
        Ok(())
    }

    async fn write_contents(&self, file: &str, out: &mut dyn Write) -> io::Result<()> {
        let contents = self.files.iter().find(|(name, _)| name == file).map(|(_, contents)| contents);
        let (session, tensors): (&Session, Vec<Kept>) = match contents {
            Some(Contents::Bytes(bytes)) => return out.write_all(bytes),
            Some(Contents::State(state)) => return out.write_all(&state.to_file(self.written_beside(file)?)?),
            Some(Contents::Trained(session)) => {
                (session, session.model.trained().into_iter().flat_map(Kept::of_weights).collect())
            }
            Some(Contents::Moments(session)) => {
                (session, session.model.trained().into_iter().flat_map(Kept::of_moments).collect())
            }
            None => return Err(wrong(broken(file, "is no file of a checkpoint".into()))),
        };
        let mut stream = Stream::begin_mixed(out, tensors.iter().map(|t| (t.spec.clone(), t.store())).collect())?;
        for tensor in &tensors {
            tensor.write(&mut stream, session.step).await?;
        }
        stream.finish()
    }

    /// Digests of what a state vouches for.
    fn written_beside(&self, state: &str) -> io::Result<BTreeMap<String, Digest>> {
        let (folder, written) = (state.trim_end_matches(STATE), self.written.borrow());
        let of = |name: &str| match written.get(&format!("{folder}{name}")) {
            Some(digest) => Ok((name.to_string(), *digest)),
            None => Err(wrong(broken(state, format!("is written after {name}")))),
        };
        [TRAINED, OPTIMISER].into_iter().map(of).collect()
    }

    /// All files in memory, for a host without a disk.
    ///
    /// # Errors
    /// As [`Checkpoint::write`].
    pub async fn in_memory(&self) -> Result<Vec<NamedFile>> {
        let mut files = Vec::new();
        for name in self.names() {
            let mut bytes = Vec::new();
            self.write(name, &mut bytes).await.map_err(|error| into_error(error, name))?;
            files.push((name.to_string(), bytes));
        }
        Ok(files)
    }
}

/// A tensor of a checkpoint.
struct Kept<'a> {
    parameter: &'a Parameter,
    spec: TensorSpec,
    /// What it is of the parameter, for messages.
    what: &'static str,
    contents: Numbers<'a>,
}

/// Where a tensor's numbers lie.
enum Numbers<'a> {
    /// In single precision.
    Single(&'a Tensor<2>),
    /// Scales of blocks.
    Scales(&'a Tensor<1>),
    /// bf16.
    Bf16(&'a Words),
    /// Lower halves of single precision.
    Lower(&'a Words),
    /// Codes of moments.
    Codes(&'a Words),
}

/// What is behind a parameter's name in the name of a tensor that is not its value in single precision or bf16.
pub(super) const LOWER: &str = ".lower";
const FIRST: &str = ".first";
const SECOND: &str = ".second";
const SCALES: &str = ".scales";

impl<'a> Kept<'a> {
    fn new(parameter: &'a Parameter, end: &str, what: &'static str, contents: Numbers<'a>) -> Self {
        let shape = match &contents {
            Numbers::Scales(scales) => scales.dims().to_vec(),
            _ => parameter.value.dims().to_vec(),
        };
        let spec = TensorSpec { name: format!("{}{end}", key(parameter)), shape };
        Self { parameter, spec, what, contents }
    }

    fn of_weights(parameter: &'a Parameter) -> Vec<Self> {
        match &parameter.value {
            Weights::F32(values) => vec![Self::new(parameter, "", "", Numbers::Single(values))],
            Weights::Bf16(matrix) => {
                let lower = matrix.lower.iter().map(|lower| Self::new(parameter, LOWER, "", Numbers::Lower(lower)));
                std::iter::once(Self::new(parameter, "", "", Numbers::Bf16(&matrix.upper))).chain(lower).collect()
            }
        }
    }

    fn of_moments(parameter: &'a Parameter) -> Vec<Self> {
        const WHAT: [(&str, &str); 2] = [(FIRST, "first moment of "), (SECOND, "second moment of ")];
        match &parameter.moments {
            None => Vec::new(),
            Some(Moments::F32(first, second)) => {
                let both = WHAT.into_iter().zip([first, second]);
                both.map(|((end, what), moment)| Self::new(parameter, end, what, Numbers::Single(moment))).collect()
            }
            Some(Moments::Coded(both)) => {
                let of = |((end, what), coded): ((&str, &'static str), &'a Coded)| {
                    let scales = Self::new(parameter, &format!("{end}{SCALES}"), what, Numbers::Scales(&coded.scales));
                    [Self::new(parameter, end, what, Numbers::Codes(&coded.codes)), scales]
                };
                WHAT.into_iter().zip(both).flat_map(of).collect()
            }
        }
    }

    fn store(&self) -> Store {
        match self.contents {
            Numbers::Single(_) | Numbers::Scales(_) => Store::Float(WeightFormat::F32),
            Numbers::Bf16(_) => Store::Float(WeightFormat::Bf16),
            Numbers::Lower(_) => Store::U16,
            Numbers::Codes(_) => Store::U8,
        }
    }

    /// Writes it, unless one of its numbers is none.
    async fn write(&self, stream: &mut Stream<'_>, step: u64) -> io::Result<()> {
        let refuse = |element: usize| {
            let (name, row) = self.parameter.locate(element);
            wrong(Error::NonFinite { tensor: format!("{}{name}", self.what), row, step: Some(step) })
        };
        let name = &self.spec.name;
        match self.contents {
            Numbers::Single(tensor) => {
                let values = to_host(tensor).await.map_err(wrong)?;
                match values.iter().position(|value| !value.is_finite()) {
                    Some(element) => Err(refuse(element)),
                    None => stream.tensor(name, &values),
                }
            }
            Numbers::Scales(tensor) => {
                let values = to_host(tensor).await.map_err(wrong)?;
                match values.iter().position(|value| !value.is_finite()) {
                    Some(block) => Err(refuse(block * BLOCK)),
                    None => stream.tensor(name, &values),
                }
            }
            Numbers::Bf16(words) => {
                let bytes = words.read().await.map_err(wrong)?;
                let infinite = |half: &[u8; 2]| u16::from_le_bytes(*half) & 0x7f80 == 0x7f80;
                match bytes.as_chunks::<2>().0.iter().position(infinite) {
                    Some(element) => Err(refuse(element)),
                    None => stream.append_bytes(name, &bytes),
                }
            }
            Numbers::Lower(words) | Numbers::Codes(words) => {
                stream.append_bytes(name, &words.read().await.map_err(wrong)?)
            }
        }
    }
}

/// The step at which a checkpoint stands.
///
/// # Errors
/// [`Error::Checkpoint`] where its state is missing, broken or altered, [`Error::Format`] where it is larger than any.
pub fn step(folder: &dyn Folder) -> Result<u64> {
    Ok(state(folder)?.step)
}

/// Why the run of a checkpoint has ended without a result, and takes no more steps; none of any other.
///
/// # Errors
/// As [`step`].
pub fn without_result(folder: &dyn Folder) -> Result<Option<String>> {
    let selection = state(folder)?.progress.selection;
    Ok(selection.and_then(|selection| selection.without_result().map(str::to_string)))
}

/// Puts a checkpoint's trained parameters, moments and counters into a session built from the same configuration.
///
/// # Errors
/// [`Error::Checkpoint`] where a file is missing, broken or altered, or does not fit the session; [`Error::Format`] where the
/// state is larger than any.
pub fn load(session: &mut Session, folder: &dyn Folder) -> Result<State> {
    let state = state(folder)?;
    if state.model != session.model.origin {
        let (was, is) = (state.model, session.model.origin);
        let problem = format!(
            "the run began with other weights or another description of the model (digest {was}, and now {is}); restore \
             those files to go on"
        );
        return Err(broken("model", problem));
    }
    if state.seed != session.seed {
        let problem = format!("dropout has seed {}, and that of the configuration gives {}", state.seed, session.seed);
        return Err(broken("seed", problem));
    }
    let tensors = |name: &str| Tensors::of(name, vouched(folder, &state, name)?);
    let (mut trained, mut moments) = (tensors(TRAINED)?, tensors(OPTIMISER)?);
    let eight = session.optimiser.moments;
    session.model.visit_placed_mut(&mut |device, parameter| {
        if !parameter.trained {
            return Ok(());
        }
        let (key, shape) = (key(parameter), parameter.value.dims());
        let missing = |name: &str| broken(name, "is not in the checkpoint; is this another model or adapter?".into());
        parameter.value = match &parameter.value {
            Weights::F32(_) => {
                let values = trained.floats(&key, &shape)?.ok_or_else(|| missing(&key))?;
                from_host(values, shape, device).into()
            }
            Weights::Bf16(matrix) => {
                let halved = trained.has(&format!("{key}{LOWER}"));
                let mut take = |name: &str, dtype| -> Result<Words> {
                    let bytes = trained.bytes(name, dtype, &shape)?.ok_or_else(|| missing(name))?;
                    Ok(Words::new(device, bytes))
                };
                let upper = take(&key, "BF16")?;
                let lower = match matrix.lower {
                    Some(_) if !halved => {
                        let problem =
                            "has no lower halves in the checkpoint: run.storage is another than that of the run";
                        return Err(broken(&key, problem.into()));
                    }
                    Some(_) => Some(take(&format!("{key}{LOWER}"), "U16")?),
                    None => None,
                };
                Weights::Bf16(Bf16::new(upper, lower, shape))
            }
        };
        let names = [FIRST, SECOND].map(|end| format!("{key}{end}"));
        // Before the first step there are none.
        let there = names.iter().any(|name| moments.has(name));
        parameter.moments = match (there, eight.coded(parameter.vector)) {
            (false, _) if state.step == 0 => None,
            (_, false) => {
                let mut take = |name: &str| -> Result<Tensor<2>> {
                    let values = moments.floats(name, &shape)?.ok_or_else(|| missing(name))?;
                    Ok(from_host(values, shape, device))
                };
                Some(Moments::F32(take(&names[0])?, take(&names[1])?))
            }
            (_, true) => {
                let mut take = |name: &str| -> Result<Coded> {
                    let codes = moments.bytes(name, "U8", &shape)?.ok_or_else(|| missing(name))?;
                    let (scales, blocks) = (format!("{name}{SCALES}"), [Coded::blocks(codes.len())]);
                    let values = moments.floats(&scales, &blocks)?.ok_or_else(|| missing(&scales))?;
                    let scales = Tensor::from_data(TensorData::new(values, blocks), device.burn());
                    Ok(Coded { codes: Words::new(device, codes), scales })
                };
                Some(Moments::Coded([take(&names[0])?, take(&names[1])?]))
            }
        };
        Ok(())
    })?;
    if let Some(extra) = trained.rest().or(moments.rest()) {
        return Err(broken(extra, "is in the checkpoint but not trained by this configuration".into()));
    }
    session.step = state.step;
    session.last_norm = state.last_norm;
    Ok(state)
}

/// Tiles of one matrix share a name; the first row tells them apart.
fn key(parameter: &Parameter) -> String {
    match parameter.tile_start {
        0 => parameter.parts[0].name.clone(),
        start => format!("{}@{start}", parameter.parts[0].name),
    }
}

/// First row of the tile of `matrix` that this tensor is; none where it is none of its tiles.
pub(super) fn tile_start(tensor: &str, matrix: &str) -> Option<usize> {
    match tensor.strip_prefix(matrix)? {
        "" => Some(0),
        behind => behind.strip_prefix('@')?.parse().ok(),
    }
}

pub(super) fn broken(field: &str, problem: String) -> Error {
    Error::Checkpoint { field: field.into(), problem }
}

fn absent(name: &str) -> Error {
    broken(name, "is missing from the checkpoint".into())
}

fn open(folder: &dyn Folder, name: &str) -> Result<Arc<dyn Bytes>> {
    folder.open(name)?.ok_or_else(|| absent(name))
}

pub(super) fn state(folder: &dyn Folder) -> Result<State> {
    State::read(&read_if_there(folder, STATE, MOST_STATE_BYTES)?.ok_or_else(|| absent(STATE))?)
}

/// A file that has the digest which the state beside it has of it.
pub(super) fn vouched(folder: &dyn Folder, state: &State, name: &str) -> Result<Arc<dyn Bytes>> {
    let file = open(folder, name)?;
    let found = digest_of(file.as_ref())?;
    match state.files.get(name) {
        Some(written) if *written == found => Ok(file),
        Some(written) => Err(altered(name, *written, found)),
        None => Err(broken(name, format!("{STATE} does not vouch for it"))),
    }
}

/// The digest of a file, read piece by piece.
fn digest_of(file: &dyn Bytes) -> Result<Digest> {
    let mut digester = Digester::default();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < file.len() {
        let length = (file.len() - at).min(piece.len() as u64) as usize;
        file.read(at, &mut piece[..length])?;
        digester.add(&piece[..length]);
        at += length as u64;
    }
    Ok(digester.digest())
}

/// The tensors of a file that nobody has taken yet. Each is read when it is asked for, so that a model and its moments are
/// never held twice.
struct Tensors {
    name: String,
    file: Arc<dyn Bytes>,
    entries: BTreeMap<String, Stored>,
}

impl Tensors {
    fn of(name: &str, file: Arc<dyn Bytes>) -> Result<Self> {
        let entries = stored(file.as_ref(), name).map_err(|e| broken(name, format!("not readable: {e}")))?;
        Ok(Self { name: name.into(), file, entries })
    }

    fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// A tensor that was not asked for.
    fn rest(&self) -> Option<&str> {
        self.entries.keys().next().map(String::as_str)
    }

    /// Takes a tensor's bytes.
    fn bytes(&mut self, name: &str, dtype: &str, shape: &[usize]) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.entries.remove(name) else { return Ok(None) };
        if entry.shape != shape {
            let problem = format!("expected shape {shape:?}, got {:?}; is this another model or rank?", entry.shape);
            return Err(broken(name, problem));
        }
        if entry.dtype != dtype {
            let problem = format!(
                "expected {dtype}, got {}: run.storage or run.moments is another than that of the run",
                entry.dtype
            );
            return Err(broken(name, problem));
        }
        let width = match dtype {
            "F32" => 4,
            "U8" => 1,
            _ => 2,
        };
        let length = shape.iter().product::<usize>().saturating_mul(width);
        if entry.length != length as u64 {
            return Err(broken(&self.name, format!("not readable: {name} is not {length} bytes")));
        }
        let mut bytes = vec![0; length];
        self.file.read(entry.offset, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Takes a tensor in single precision.
    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let bytes = self.bytes(name, "F32", shape)?;
        Ok(bytes.map(|bytes| bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::MemoryFolder;

    /// A file of a tebibyte, of which nothing may be read.
    struct Huge;

    impl Bytes for Huge {
        fn len(&self) -> u64 {
            1 << 40
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            panic!("{} bytes at {offset} were read", out.len())
        }
    }

    #[test]
    fn a_state_that_is_larger_than_any_is_refused_with_both_numbers_before_it_is_read() {
        let mut folder = MemoryFolder::new();
        folder.insert(STATE, Huge).unwrap();
        let refused = step(&folder).unwrap_err();
        let message = refused.to_string();
        assert!(refused.is_bad_input() && message.contains(STATE), "{message}");
        assert!(message.contains("1099511627776 bytes") && message.contains("at most 8388608"), "{message}");
    }
}
