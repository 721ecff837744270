//! Everything that an interrupted run needs to go on as if nothing had happened, as named files.
//!
//! `state.json` holds counters, seeds, the resolved configuration, and digests: of the other files, of the training data, of
//! the model that the run began with, and of itself. `trained.safetensors` holds the trained parameters,
//! `optimiser.safetensors` both moments. All in f32, so that a resumed run gives the same losses to the bit on the same
//! device. The host writes and reads the files; see [`crate::host::Folder`].
//!
//! Whoever reads a checkpoint trusts nothing in it that its digests do not vouch for, so that an accident (a file of another
//! checkpoint, an edit, a flipped bit) is an error and never another result.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::session::Session;
use crate::data::Cursor;
use crate::digest::{Digest, Digesting};
use crate::error::{Error, Result};
use crate::export::stream::{Stream, into_error, wrong};
use crate::host::Folder;
use crate::model::layout::TensorSpec;
use crate::model::parameter::{Parameter, from_host, to_host};
use crate::weights::WeightFormat;

/// Version of the format; a reader refuses any other. Version 1 had no digests.
pub const VERSION: u32 = 2;
const STATE: &str = "state.json";
const TRAINED: &str = "trained.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";

/// The part of a checkpoint that is not tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Format version.
    version: u32,
    /// Optimiser steps applied.
    step: u64,
    /// Seed of dropout masks.
    seed: u64,
    /// What the run knows beyond its session.
    pub progress: Progress,
    /// Digest of the model that the run began with.
    model: Digest,
    /// Digests of the other files, by name.
    files: BTreeMap<String, Digest>,
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
    /// The resolved configuration, as TOML.
    pub config: String,
}

impl State {
    fn of(session: &Session, progress: Progress) -> Self {
        let (step, seed, model) = (session.step, session.seed, session.model.origin);
        let (files, state) = (BTreeMap::new(), Digest::default());
        Self { version: VERSION, step, seed, progress, model, files, state }
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

    /// The checkpoints of several sessions as one, the files of each below its number, behind a file that says so.
    pub fn of_several(header: NamedFile, sessions: Vec<Self>) -> Self {
        let mut files = vec![(header.0, Contents::Bytes(header.1))];
        for (index, own) in sessions.into_iter().enumerate() {
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
                let trained = session.model.trained().into_iter();
                (session, trained.map(|p| Kept::new(p, "", "", &p.value)).collect())
            }
            Some(Contents::Moments(session)) => {
                let both = |p: &'a Parameter| {
                    let (first, second) = p.moments.as_ref()?;
                    Some([
                        Kept::new(p, ".first", "first moment of ", first),
                        Kept::new(p, ".second", "second moment of ", second),
                    ])
                };
                (session, session.model.trained().into_iter().filter_map(both).flatten().collect())
            }
            None => return Err(wrong(broken(file, "is no file of a checkpoint".into()))),
        };
        let specs = tensors.iter().map(|t| TensorSpec { name: t.name.clone(), shape: t.tensor.dims().to_vec() });
        let mut stream = Stream::begin(out, specs.collect(), WeightFormat::F32)?;
        for Kept { parameter, name, what, tensor } in &tensors {
            let values = to_host(tensor).await.map_err(wrong)?;
            if let Some((name, row)) = parameter.first_non_finite(&values) {
                let step = Some(session.step);
                return Err(wrong(Error::NonFinite { tensor: format!("{what}{name}"), row, step }));
            }
            stream.tensor(name, &values)?;
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
    name: String,
    /// What it is of the parameter, for messages.
    what: &'static str,
    tensor: &'a Tensor<2>,
}

impl<'a> Kept<'a> {
    fn new(parameter: &'a Parameter, end: &str, what: &'static str, tensor: &'a Tensor<2>) -> Self {
        Self { parameter, name: format!("{}{end}", key(parameter)), what, tensor }
    }
}

/// Puts a checkpoint's trained parameters, moments and counters into a session built from the same configuration.
///
/// # Errors
/// [`Error::Checkpoint`] where a file is missing, broken or altered, or does not fit the session.
pub fn load(session: &mut Session, folder: &dyn Folder) -> Result<State> {
    let state = State::read(&read(folder, STATE)?)?;
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
    let vouched = |name: &str| -> Result<Vec<u8>> {
        let bytes = read(folder, name)?;
        let found = Digest::of(&bytes);
        match state.files.get(name) {
            Some(written) if *written == found => Ok(bytes),
            Some(written) => Err(altered(name, *written, found)),
            None => Err(broken(name, format!("{STATE} does not vouch for it"))),
        }
    };
    let mut trained = unpack(TRAINED, &vouched(TRAINED)?)?;
    let mut moments = unpack(OPTIMISER, &vouched(OPTIMISER)?)?;
    session.model.visit_placed_mut(&mut |device, parameter| {
        if !parameter.trained {
            return Ok(());
        }
        let (key, shape) = (key(parameter), parameter.value.dims());
        let take = |from: &mut Tensors, name: &str| -> Result<Option<_>> {
            match from.remove(name) {
                None => Ok(None),
                Some((found, _)) if found != shape => Err(broken(
                    name,
                    format!("expected shape {shape:?}, got {found:?}; is this another model or rank?"),
                )),
                Some((_, values)) => Ok(Some(from_host(values, shape, device))),
            }
        };
        let missing = |name: &str| broken(name, "is not in the checkpoint; is this another model or adapter?".into());
        parameter.value = take(&mut trained, &key)?.ok_or_else(|| missing(&key))?;
        let names = [".first", ".second"].map(|end| format!("{key}{end}"));
        parameter.moments = match (take(&mut moments, &names[0])?, take(&mut moments, &names[1])?) {
            (Some(first), Some(second)) => Some((first, second)),
            // Before the first step there are none.
            (None, None) if state.step == 0 => None,
            (None, _) => return Err(missing(&names[0])),
            (_, None) => return Err(missing(&names[1])),
        };
        Ok(())
    })?;
    if let Some(extra) = trained.keys().chain(moments.keys()).next() {
        return Err(broken(extra, "is in the checkpoint but not trained by this configuration".into()));
    }
    session.step = state.step;
    Ok(state)
}

/// Tiles of one matrix share a name; the first row tells them apart.
fn key(parameter: &Parameter) -> String {
    match parameter.tile_start {
        0 => parameter.parts[0].name.clone(),
        start => format!("{}@{start}", parameter.parts[0].name),
    }
}

pub(super) fn broken(field: &str, problem: String) -> Error {
    Error::Checkpoint { field: field.into(), problem }
}

fn read(folder: &dyn Folder, name: &str) -> Result<Vec<u8>> {
    let file = folder.open(name)?.ok_or_else(|| broken(name, "is missing from the checkpoint".into()))?;
    let mut bytes = vec![0; file.len() as usize];
    file.read(0, &mut bytes)?;
    Ok(bytes)
}

type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

fn unpack(file: &str, bytes: &[u8]) -> Result<Tensors> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| broken(file, format!("not readable: {e}")))?;
    tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            if view.dtype() != Dtype::F32 {
                return Err(broken(&name, format!("expected F32, got {:?}", view.dtype())));
            }
            // The file's bytes need not be aligned for f32.
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            Ok((name, (view.shape().to_vec(), values)))
        })
        .collect()
}
