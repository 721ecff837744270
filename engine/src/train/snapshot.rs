//! What a run had learned by one of its checkpoints, to be used as its result is: an adapter, or a whole model's weights.
//!
//! Nothing is put on a device here. A whole model's tensors are read out of the checkpoint's file when they are asked for, as
//! out of any other source; a session holds some of them fused and some cut into tiles, and here each is by itself again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::checkpoint::{LOWER, TRAINED, state, tile_start, vouched};
use super::prepare::lora_settings;
use crate::config::Config;
use crate::digest::Digest;
use crate::error::Result;
use crate::export::merged::Adapter;
use crate::export::peft;
use crate::host::{Bytes, Folder};
use crate::model::adapter::LoraSettings;
use crate::model::architecture::Architecture;
use crate::model::layout::TensorSpec;
use crate::model::load::Hold;
use crate::weights::safetensors::{SafetensorsFile, Stored, stored};
use crate::weights::{RawTensor, WeightFormat, WeightSource, absent, tensor_error};

/// What a run had learned by one of its steps.
pub struct Snapshot {
    /// How many steps it had made.
    pub step: u64,
    /// Digest of the model that it began with ([`crate::Model::origin`]).
    pub origin: Digest,
    /// Digest of what it had trained.
    pub digest: Digest,
    /// Of the adapter, where it is one.
    adapter: LoraSettings,
    trained: Arc<dyn Bytes>,
    /// What is trained, for messages.
    file: String,
}

impl Snapshot {
    /// Opens a checkpoint. What is read of it has its digests; moments are not read.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`] where a file is missing, broken or altered; [`crate::Error::Format`] where its state is larger
    /// than any.
    pub fn open(folder: &dyn Folder) -> Result<Self> {
        let state = state(folder)?;
        let trained = vouched(folder, &state, TRAINED)?;
        let config = Config::parse(&state.progress.config, "the checkpoint's configuration", &[])?;
        let (step, origin, digest) = (state.step, state.model, state.files[TRAINED]);
        Ok(Self { step, origin, digest, adapter: lora_settings(&config), trained, file: folder.display(TRAINED) })
    }

    /// The adapter of a run that trains one. `base` is how the matrices are held that it is added to.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] for what is no matrix of an adapter.
    pub fn adapter(&self, base: Hold) -> Result<Adapter> {
        let source = SafetensorsFile::open(self.trained.clone(), &self.file)?;
        let values = peft::read_matrices(&source, "", self.adapter.rank, &self.file)?;
        Ok(Adapter { settings: self.adapter.clone(), values, file: self.file.clone(), base })
    }

    /// The weights of a run that trains a whole model, which is of this architecture: each as the result of the run would have
    /// it.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] for one that is missing, of another size, or not the model's.
    pub fn weights(&self, architecture: &Architecture) -> Result<Arc<dyn WeightSource>> {
        let mut left = stored(self.trained.as_ref(), &self.file)?;
        // Steps are made with what rounding took away, answers are not.
        left.retain(|name, _| !name.ends_with(LOWER));
        let mut tensors = BTreeMap::new();
        for fused in architecture.fused() {
            let (format, mut places) = self.take(&mut left, &fused)?;
            for TensorSpec { name, shape } in fused {
                let places = first(&mut places, bytes(format, &shape));
                tensors.insert(name, Tensor { shape, format, places });
            }
        }
        match left.keys().next() {
            Some(extra) => Err(tensor_error(&self.file, extra, "is none of the model's".into())),
            None => Ok(Arc::new(Whole { trained: self.trained.clone(), file: self.file.clone(), tensors })),
        }
    }

    /// Takes the tensor that these are fused to, or the tiles that it is cut into: how it is stored, and where.
    fn take(
        &self,
        left: &mut BTreeMap<String, Stored>,
        fused: &[TensorSpec],
    ) -> Result<(WeightFormat, VecDeque<Range<u64>>)> {
        let name = &fused[0].name;
        let refuse = |problem: String| tensor_error(&self.file, name, problem);
        let mut tiles: Vec<(usize, String)> =
            left.keys().filter_map(|tile| Some((tile_start(tile, name)?, tile.clone()))).collect();
        tiles.sort();
        let tiles: Vec<Stored> = tiles.iter().filter_map(|(_, tile)| left.remove(tile)).collect();
        let format = match tiles.first().map(|tile| tile.dtype.as_str()) {
            Some("F32") => WeightFormat::F32,
            Some("BF16") => WeightFormat::Bf16,
            Some(_) => return Err(refuse("is neither F32 nor BF16".into())),
            None => return Err(refuse("is not in the checkpoint; is this another model?".into())),
        };
        let held: u64 = tiles.iter().map(|tile| tile.length).sum();
        let wanted: u64 = fused.iter().map(|spec| bytes(format, &spec.shape)).sum();
        if held != wanted {
            return Err(refuse(format!("has {held} bytes, and the model's has {wanted}; is this another model?")));
        }
        Ok((format, tiles.iter().map(|tile| tile.offset..tile.offset + tile.length).collect()))
    }
}

fn bytes(format: WeightFormat, shape: &[usize]) -> u64 {
    format.bytes_for_shape(shape).unwrap_or(0) as u64
}

/// Takes so many bytes from the front of what lies at these places.
fn first(places: &mut VecDeque<Range<u64>>, mut bytes: u64) -> Vec<Range<u64>> {
    let mut taken = Vec::new();
    while bytes > 0
        && let Some(place) = places.front_mut()
    {
        let end = place.end.min(place.start + bytes);
        taken.push(place.start..end);
        bytes -= end - place.start;
        place.start = end;
        if place.is_empty() {
            places.pop_front();
        }
    }
    taken
}

/// The weights of a whole model in the file of a checkpoint.
struct Whole {
    trained: Arc<dyn Bytes>,
    file: String,
    tensors: BTreeMap<String, Tensor>,
}

/// A tensor of the model.
struct Tensor {
    shape: Vec<usize>,
    format: WeightFormat,
    /// Where its bytes lie, in their order.
    places: Vec<Range<u64>>,
}

impl WeightSource for Whole {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        self.tensors.get(name).map(|tensor| tensor.format)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let Tensor { shape, format, places } = self.tensors.get(name).ok_or_else(|| absent(&self.file, name))?;
        let length = |place: &Range<u64>| (place.end - place.start) as usize;
        // No more than the file has.
        let mut bytes = vec![0; places.iter().map(length).sum()];
        let mut rest = bytes.as_mut_slice();
        for place in places {
            let (own, others) = rest.split_at_mut(length(place));
            self.trained.read(place.start, own)?;
            rest = others;
        }
        Ok(RawTensor { name: name.to_owned(), shape: shape.clone(), format: *format, bytes })
    }

    fn file_of(&self, _name: &str) -> String {
        self.file.clone()
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    fn architecture() -> Architecture {
        let config = r#"{"model_type": "llama", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "attention_bias": true, "intermediate_size": 6,
            "max_position_embeddings": 16}"#;
        Architecture::from_config_json(config.as_bytes(), "config.json").unwrap()
    }

    /// A tensor of a file: its name, shape and numbers.
    type Named = (String, Vec<usize>, Vec<f32>);

    /// The tensors of a model as its session holds them, and as they are.
    fn model() -> (Vec<Named>, Vec<Named>) {
        let (mut held, mut own, mut next) = (Vec::new(), Vec::new(), 0.0);
        for fused in architecture().fused() {
            let mut all = Vec::new();
            for spec in &fused {
                let count: usize = spec.shape.iter().product();
                let values: Vec<f32> = (0..count).map(|at| next + at as f32).collect();
                next += count as f32;
                all.extend(values.iter().copied());
                own.push((spec.name.clone(), spec.shape.clone(), values));
            }
            let columns = if fused[0].shape.len() == 1 { all.len() } else { fused[0].shape[1] };
            held.push((fused[0].name.clone(), vec![all.len() / columns, columns], all));
        }
        // Ten comes before two where letters decide.
        let (name, _, values) = held.remove(0);
        for (start, end) in [(10, 12), (0, 2), (2, 10)] {
            let name = if start == 0 { name.clone() } else { format!("{name}@{start}") };
            held.push((name, vec![end - start, 4], values[4 * start..4 * end].to_vec()));
        }
        (held, own)
    }

    fn snapshot(tensors: &[Named]) -> Snapshot {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let adapter =
            LoraSettings { rank: 1, alpha: 1.0, rslora: false, dropout: 0.0, targets: Vec::new(), some_layers: false };
        Snapshot {
            step: 3,
            origin: Digest::default(),
            digest: Digest::default(),
            adapter,
            trained: Arc::new(safetensors::serialize(views, None).unwrap()),
            file: "trained".into(),
        }
    }

    #[test]
    fn what_is_fused_or_cut_into_tiles_is_read_as_the_tensors_of_the_model() {
        let (held, own) = model();
        assert!(held.len() < own.len(), "something is fused");
        let source = snapshot(&held).weights(&architecture()).unwrap();
        crate::model::open::check(source.as_ref(), &architecture()).unwrap();
        for (name, shape, values) in own {
            assert_eq!(source.read(&name).unwrap(), RawTensor::from_f32(&name, shape, &values));
        }
        assert!(source.read("other").unwrap_err().to_string().contains("trained: tensor other"));
    }

    #[test]
    fn another_models_tensors_are_refused_by_name() {
        let (held, _) = model();
        let refused = |tensors: &[Named]| snapshot(tensors).weights(&architecture()).err().unwrap().to_string();
        for at in 0..held.len() {
            let mut fewer = held.clone();
            let (name, ..) = fewer.remove(at);
            let problem = refused(&fewer);
            let name = name.split('@').next().unwrap();
            assert!(problem.contains(name) && problem.contains("is this another model?"), "{problem}");
        }
        let one = |name: &str| (name.to_string(), vec![1, 1], vec![0.0]);
        let more = |name: &str| [&held[..], &[one(name)]].concat();
        let problem = refused(&more("model.layers.2.mlp.up_proj.weight"));
        assert!(problem.contains("layers.2") && problem.contains("none of the model's"), "{problem}");
        // What makes bf16 whole is left where it is.
        assert!(snapshot(&more("model.norm.weight.lower")).weights(&architecture()).is_ok());
        let problem = snapshot(&held).adapter(Hold::Auto).err().unwrap().to_string();
        assert!(problem.contains("is no lora_A or lora_B"), "{problem}");
    }
}
