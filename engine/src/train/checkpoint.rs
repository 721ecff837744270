//! Everything that an interrupted run needs to go on as if nothing had happened, as named files.
//!
//! `state.json` holds counters, seeds and the resolved configuration; `trained.safetensors` the trained parameters;
//! `optimiser.safetensors` both moments. All in f32, so that a resumed run gives the same losses to the bit on the same
//! device. The host writes and reads the files; see [`crate::host::Folder`].

use std::collections::HashMap;
use std::io::{self, Write};

use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::session::Session;
use crate::data::Cursor;
use crate::error::{Error, Result};
use crate::export::stream::{Stream, into_error, wrong};
use crate::host::Folder;
use crate::model::layout::TensorSpec;
use crate::model::parameter::{Parameter, from_host, to_host};
use crate::weights::WeightFormat;

/// Version of the format; a reader refuses any other.
const VERSION: u32 = 1;
const STATE: &str = "state.json";
const TRAINED: &str = "trained.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";

/// The part of a checkpoint that is not tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Format version.
    pub version: u32,
    /// Optimiser steps applied.
    pub step: u64,
    /// Where the data order stands.
    pub cursor: Cursor,
    /// Fingerprint of the data set, so that a run is not resumed on other data.
    pub data_fingerprint: u64,
    /// Seed of dropout masks.
    pub seed: u64,
    /// What was done before the checkpoint.
    #[serde(default)]
    pub done: Done,
    /// The resolved configuration, as TOML.
    pub config: String,
}

/// Sums over a run that go on through its interruptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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
}

enum Contents<'a> {
    Bytes(Vec<u8>),
    Trained(&'a Session),
    Moments(&'a Session),
}

impl<'a> Checkpoint<'a> {
    /// The checkpoint of a session as it stands.
    ///
    /// # Errors
    /// None in practice: the state is plain numbers and text.
    pub fn new(session: &'a Session, cursor: Cursor, data_fingerprint: u64, done: Done, config: &str) -> Result<Self> {
        let state = State {
            version: VERSION,
            step: session.step,
            cursor,
            data_fingerprint,
            seed: session.seed,
            done,
            config: config.into(),
        };
        let state = serde_json::to_vec_pretty(&state).map_err(|e| broken(STATE, e.to_string()))?;
        // The state is last, so that a host which writes in order never leaves one without its tensors.
        let files = [
            (TRAINED, Contents::Trained(session)),
            (OPTIMISER, Contents::Moments(session)),
            (STATE, Contents::Bytes(state)),
        ];
        Ok(Self { files: files.into_iter().map(|(name, contents)| (name.to_string(), contents)).collect() })
    }

    /// The checkpoints of several sessions as one, the files of each below its number, behind a file that says so.
    pub fn of_several(header: NamedFile, sessions: Vec<Self>) -> Self {
        let mut files = vec![(header.0, Contents::Bytes(header.1))];
        for (index, own) in sessions.into_iter().enumerate() {
            files.extend(own.files.into_iter().map(|(name, contents)| (format!("{index}/{name}"), contents)));
        }
        Self { files }
    }

    /// Names of the files, in the order in which they are to be written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// Writes one of the files.
    ///
    /// # Errors
    /// The writer's, and, inside an [`io::Error`] (see [`into_error`]): [`Error::NonFinite`] where the last step made NaN
    /// or infinity, since a good checkpoint must not be replaced by one that cannot go on; device errors while reading
    /// tensors back.
    pub async fn write(&self, file: &str, out: &mut dyn Write) -> io::Result<()> {
        let contents = self.files.iter().find(|(name, _)| name == file).map(|(_, contents)| contents);
        let (session, tensors): (&Session, Vec<Kept>) = match contents {
            Some(Contents::Bytes(bytes)) => return out.write_all(bytes),
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
/// [`Error::Checkpoint`] where a file is missing or broken, or does not fit the session.
pub fn load(session: &mut Session, folder: &dyn Folder) -> Result<State> {
    let state: State =
        serde_json::from_slice(&read(folder, STATE)?).map_err(|e| broken(STATE, format!("not readable: {e}")))?;
    if state.version != VERSION {
        return Err(broken("version", format!("this is format {}, and only {VERSION} is known", state.version)));
    }
    let mut trained = unpack(TRAINED, &read(folder, TRAINED)?)?;
    let mut moments = unpack(OPTIMISER, &read(folder, OPTIMISER)?)?;
    let device = session.device().clone();
    session.model.visit_mut(&mut |parameter| {
        if !parameter.trained {
            return Ok(());
        }
        let (key, shape) = (key(parameter), parameter.value.dims());
        let take = |from: &mut HashMap<String, (Vec<usize>, Vec<f32>)>, name: &str| -> Result<Option<_>> {
            match from.remove(name) {
                None => Ok(None),
                Some((found, _)) if found != shape => Err(broken(
                    name,
                    format!("expected shape {shape:?}, got {found:?}; is this another model or rank?"),
                )),
                Some((_, values)) => Ok(Some(from_host(values, shape, &device))),
            }
        };
        let missing = || broken(&key, "is not in the checkpoint; is this another model or adapter?".into());
        parameter.value = take(&mut trained, &key)?.ok_or_else(missing)?;
        let first = take(&mut moments, &format!("{key}.first"))?;
        let second = take(&mut moments, &format!("{key}.second"))?;
        parameter.moments = first.zip(second);
        Ok(())
    })?;
    if let Some(extra) = trained.keys().next() {
        return Err(broken(extra, "is in the checkpoint but not trained by this configuration".into()));
    }
    session.step = state.step;
    session.seed = state.seed;
    Ok(state)
}

/// Tiles of one matrix share a name; the first row tells them apart.
fn key(parameter: &Parameter) -> String {
    match parameter.tile_start {
        0 => parameter.parts[0].name.clone(),
        start => format!("{}@{start}", parameter.parts[0].name),
    }
}

fn broken(field: &str, problem: String) -> Error {
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
