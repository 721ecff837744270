//! Everything that an interrupted run needs to go on as if nothing had happened, as named files.
//!
//! `state.json` holds counters, seeds and the resolved configuration; `trained.safetensors` the trained parameters;
//! `optimiser.safetensors` both moments. All in f32, so that a resumed run gives the same losses to the bit on the same
//! device. The host writes and reads the files; see [`crate::host::Folder`].

use std::collections::HashMap;

use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::session::Session;
use crate::data::Cursor;
use crate::error::{Error, Result};
use crate::host::Folder;
use crate::model::parameter::{Parameter, from_host, to_host};

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

/// The files of a checkpoint.
///
/// # Errors
/// [`Error::NonFinite`] where the last step made NaN or infinity: a good checkpoint must not be replaced by one that
/// cannot go on. Device errors while reading tensors back.
pub async fn save(
    session: &Session,
    cursor: Cursor,
    data_fingerprint: u64,
    done: Done,
    config: &str,
) -> Result<Vec<NamedFile>> {
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
    let (mut trained, mut moments) = (Vec::new(), Vec::new());
    let read = async |parameter: &Parameter, tensor: &Tensor<2>, what: &str| -> Result<Vec<f32>> {
        let values = to_host(tensor).await?;
        match parameter.first_non_finite(&values) {
            None => Ok(values),
            Some((name, row)) => {
                Err(Error::NonFinite { tensor: format!("{what}{name}"), row, step: Some(session.step) })
            }
        }
    };
    for parameter in session.model.trained() {
        let shape = parameter.value.dims().to_vec();
        trained.push((key(parameter), shape.clone(), read(parameter, &parameter.value, "").await?));
        if let Some((first, second)) = &parameter.moments {
            let first = read(parameter, first, "first moment of ").await?;
            let second = read(parameter, second, "second moment of ").await?;
            moments.push((format!("{}.first", key(parameter)), shape.clone(), first));
            moments.push((format!("{}.second", key(parameter)), shape, second));
        }
    }
    Ok(vec![
        (TRAINED.into(), pack(TRAINED, &trained)?),
        (OPTIMISER.into(), pack(OPTIMISER, &moments)?),
        // Last, so that a host which writes in order never leaves a state without its tensors.
        (STATE.into(), state),
    ])
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

/// Reads only the state, to learn what a checkpoint is before building its session.
///
/// # Errors
/// [`Error::Checkpoint`] where it is missing or broken.
pub fn state(folder: &dyn Folder) -> Result<State> {
    serde_json::from_slice(&read(folder, STATE)?).map_err(|e| broken(STATE, format!("not readable: {e}")))
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

fn pack(file: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<Vec<u8>> {
    let views = tensors
        .iter()
        .map(|(name, shape, values)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
            Ok((name.as_str(), view.map_err(|e| broken(file, e.to_string()))?))
        })
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, None).map_err(|e| broken(file, e.to_string()))
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
