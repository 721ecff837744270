//! Builds a model on a device from a weight source, one block at a time, or from a seed.

use std::sync::Arc;

use super::Model;
use super::architecture::Architecture;
use super::layout::{Kind, LinearSpec, TensorSpec, is_head};
use super::linear::{Linear, LoraScale};
use super::open::check;
use super::parameter::{Parameter, Part, from_host};
use super::placement::Placement;
use super::vocabulary::{Tile, VocabularyMatrix, columns_per_tile};
use super::weight::Weight;
use crate::device::Device;
use crate::digest::{Digest, Digester};
use crate::error::{Error, Result};
use crate::kernels::{InFile, Packed, Rows, Weights};
use crate::rng::{Rng, mix};
use crate::settings::choice;
use crate::weights::{RawTensor, WeightFormat, WeightSource};

choice! {
    /// How matrices are held on the device.
    pub enum Hold {
        /// Frozen matrices as the file has them, until they are used; single precision where all weights are trained.
        Auto = "auto",
        /// Everything in single precision.
        F32 = "f32",
        /// Matrices in bf16, 2 bytes a parameter, frozen or trained. A step rounds what it trains up or down by chance, so
        /// that steps smaller than the distance between two bf16 are not lost; the seed decides, so that runs repeat.
        Bf16 = "bf16",
        /// Trained matrices in bf16, and beside it what is missing to single precision: 4 bytes a parameter. Products read
        /// bf16, steps lose nothing.
        Bf16Compensated = "bf16_compensated",
        /// Frozen matrices in half precision; products are in single precision.
        F16 = "f16",
        /// Frozen matrices in 8 bits, in blocks of 32.
        Q8_0 = "q8_0",
        /// Frozen matrices in 4 bits, in blocks of 32; the coarsest. The head, and the embedding where it is the head, has 6 bits, or
        /// 8 where a row is no whole number of blocks of 256, as in llama.cpp's files.
        Q4_0 = "q4_0",
        /// Frozen matrices in 4 bits, in blocks of 256 with scales and minima of their own. Where a row is no whole number
        /// of blocks, in 5 bits in blocks of 32, as llama.cpp does; where it is none of these either, in half precision. The
        /// head as with q4_0.
        Q4K = "q4_k",
    }
}

impl Hold {
    /// The format of a frozen matrix, the model's head or not, whose rows have so many elements; none where it is the file's, or
    /// single precision.
    pub fn format(self, is_head: bool, row: usize) -> Option<WeightFormat> {
        let format = match self {
            Self::Auto | Self::F32 => return None,
            Self::Bf16 | Self::Bf16Compensated => WeightFormat::Bf16,
            Self::F16 => WeightFormat::F16,
            Self::Q8_0 => WeightFormat::Q8_0,
            Self::Q4_0 | Self::Q4K if is_head => HEAD_OF_FOUR_BITS,
            Self::Q4_0 => WeightFormat::Q4_0,
            Self::Q4K => WeightFormat::Q4K,
        };
        Some(format.for_rows(row))
    }

    /// A frozen matrix as it is held, but for single precision, to which it is expanded later.
    ///
    /// # Errors
    /// As [`RawTensor::stored_as`].
    pub fn frozen(self, matrix: RawTensor, is_head: bool) -> Result<RawTensor> {
        match self.format(is_head, matrix.shape[1]) {
            Some(format) if format != matrix.format => matrix.stored_as(format),
            _ => Ok(matrix),
        }
    }

    /// What the head of a frozen model of four bits is held in, where it is one.
    pub fn head_of_four_bits(self) -> Option<WeightFormat> {
        matches!(self, Self::Q4_0 | Self::Q4K).then_some(HEAD_OF_FOUR_BITS)
    }

    /// Bytes of an element of a trained matrix.
    pub fn trained_bytes(self) -> u64 {
        if self.trained() == Self::Bf16 { 2 } else { 4 }
    }

    /// Held so where all weights are trained: what only frozen weights can be is single precision then.
    pub fn trained(self) -> Self {
        match self {
            Self::Bf16 | Self::Bf16Compensated => self,
            _ => Self::F32,
        }
    }
}

/// Every token's probability goes through the head: of SmolLM2 in four bits, two fifths of what is lost is lost there.
const HEAD_OF_FOUR_BITS: WeightFormat = WeightFormat::Q6K;

/// Standard deviation of random weights, as the Hugging Face configurations' `initializer_range` default.
const INITIAL_STD: f64 = 0.02;

/// Who hears of the bytes that were read of a model's files, and of all that they have.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Loads a model onto one device. With `full` every parameter is trained, matrices as [`Hold::trained`] says; otherwise none
/// is. Of the blocks' matrices that are held as stored, so many bytes stay in memory; those behind them are read from the file
/// when their block is used.
///
/// # Errors
/// As [`load_onto`].
pub fn load(
    arch: &Architecture,
    source: &Arc<dyn WeightSource>,
    device: &Device,
    hold: Hold,
    resident: u64,
    full: bool,
) -> Result<Model> {
    let mut placement = Placement::whole(device, arch.layers);
    placement.stages_mut()[0].resident = resident;
    load_onto(arch, source, &placement, hold, full, &mut |_, _| {})
}

/// As [`load`], onto one or several devices.
///
/// # Errors
/// What the source reports of its tensors; device errors; as [`Placement::check_trained`].
pub fn load_onto(
    arch: &Architecture,
    source: &Arc<dyn WeightSource>,
    placement: &Placement,
    hold: Hold,
    full: bool,
    progress: Progress,
) -> Result<Model> {
    check(source.as_ref(), arch)?;
    let bytes_of = |name: &String| source.format(name)?.bytes_for_shape(source.shape(name)?);
    let all: u64 = source.names().iter().filter_map(bytes_of).map(|bytes| bytes as u64).sum();
    let (mut read, mut done) = (described(arch), 0);
    let mut maker = |spec: &TensorSpec, _| {
        let raw = source.read(&spec.name)?;
        note(&mut read, &raw);
        done += raw.bytes.len() as u64;
        progress(done, all);
        Ok(raw)
    };
    let hold = if full { hold.trained() } else { hold };
    let mut model = build(arch, &mut maker, placement, hold, Some(source), full)?;
    model.origin = read.digest();
    // A file may have tensors that the model does not use.
    progress(all, all);
    Ok(model)
}

/// The beginning of a model's digest.
fn described(arch: &Architecture) -> Digester {
    let mut digester = Digester::default();
    digester.add(format!("{arch:?}").as_bytes());
    digester
}

/// Another tensor of the digest.
fn note(digester: &mut Digester, raw: &RawTensor) {
    digester.add(format!("{} {:?} {}", raw.name, raw.shape, raw.format.name()).as_bytes());
    digester.add(&raw.bytes);
}

/// The digest that a model has which is loaded from this source ([`Model::origin`]), without loading it: one tensor is in
/// memory at a time.
///
/// # Errors
/// As [`check`]; [`Error::Io`] where the host cannot read.
pub fn origin(arch: &Architecture, source: &dyn WeightSource) -> Result<Digest> {
    check(source, arch)?;
    let mut digester = described(arch);
    for spec in arch.fused().into_iter().flatten() {
        note(&mut digester, &source.read(&spec.name)?);
    }
    Ok(digester.digest())
}

/// The digest of a model with random weights of this seed ([`random`]).
pub fn origin_of_random(arch: &Architecture, seed: u64) -> Digest {
    let mut made = described(arch);
    made.add(&seed.to_le_bytes());
    made.digest()
}

/// A model with random weights: normal with standard deviation 0.02, residual projections scaled down by
/// `sqrt(2 layers)` (Radford et al. 2019), norms one, biases zero. All parameters are trained, matrices as [`Hold::trained`]
/// says.
///
/// # Errors
/// Device errors; as [`Placement::check_trained`].
pub fn random(arch: &Architecture, seed: u64, placement: &Placement, hold: Hold) -> Result<Model> {
    let mut maker = |spec: &TensorSpec, kind| {
        let count: usize = spec.shape.iter().product();
        let mut rng = Rng::new(mix(seed, name_hash(&spec.name)));
        let std = if kind == Kind::Residual { INITIAL_STD / (2.0 * arch.layers as f64).sqrt() } else { INITIAL_STD };
        let values: Vec<f32> = match kind {
            Kind::Bias => vec![0.0; count],
            Kind::Norm => vec![1.0; count],
            Kind::Matrix | Kind::Residual => (0..count).map(|_| (rng.normal() * std) as f32).collect(),
        };
        Ok(RawTensor::from_f32(&spec.name, spec.shape.clone(), &values))
    };
    let mut model = build(arch, &mut maker, placement, hold.trained(), None, true)?;
    model.origin = origin_of_random(arch, seed);
    Ok(model)
}

/// FNV-1a, so that a tensor's random values depend on its name and not on the order of loading.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

/// Where a tensor's elements come from.
type Maker<'a> = &'a mut dyn FnMut(&TensorSpec, Kind) -> Result<RawTensor>;

fn build(
    arch: &Architecture,
    maker: Maker,
    placement: &Placement,
    hold: Hold,
    source: Option<&Arc<dyn WeightSource>>,
    full: bool,
) -> Result<Model> {
    placement.check_trained(arch, full)?;
    let tied = arch.tied_head;
    let norm_offset = arch.family.norm_offset;
    let builder = Builder { maker, device: placement.first(), hold, tied, norm_offset, source, room: 0, full };
    built(arch, builder, placement).map_err(|error| placement.explain(error))
}

fn built<'a>(arch: &Architecture, mut builder: Builder<'a>, placement: &'a Placement) -> Result<Model> {
    let spec = arch.embedding();
    let matrix = builder.matrix(&spec, Kind::Matrix)?;
    // Of a head that is the embedding, and lies on another device.
    let second = (arch.tied_head && placement.is_split()).then(|| matrix.clone());
    let embedding = builder.vocabulary(&spec, matrix, Rows::ByIndex)?;
    builder.device = placement.last();
    let head = match arch.head() {
        Some(spec) => Some((builder.matrix(&spec, Kind::Matrix)?, spec)),
        None => second.map(|matrix| (matrix, spec)),
    };
    let head = head.map(|(matrix, spec)| builder.vocabulary(&spec, matrix, Rows::Whole)).transpose()?;
    let mut blocks = Vec::with_capacity(arch.layers);
    for stage in placement.stages() {
        (builder.device, builder.room) = (&stage.device, stage.resident);
        for index in stage.blocks.clone() {
            blocks.push(arch.block(index).try_map(&mut builder, Builder::norm, Builder::linear)?);
        }
    }
    let final_norm = builder.norm(&arch.final_norm())?;
    Ok(Model::new(arch.clone(), embedding, blocks, final_norm, head, placement.clone()))
}

struct Builder<'a> {
    maker: Maker<'a>,
    /// Where what is built next lies.
    device: &'a Device,
    hold: Hold,
    /// The head is the embedding.
    tied: bool,
    /// What norms are where files have zeros, to which decay draws them.
    norm_offset: f32,
    /// Where matrices could be left.
    source: Option<&'a Arc<dyn WeightSource>>,
    /// How many bytes of the blocks' matrices the device may still keep in memory.
    room: u64,
    full: bool,
}

impl Builder<'_> {
    fn vocabulary(&self, spec: &TensorSpec, raw: RawTensor, lookup: Rows) -> Result<VocabularyMatrix> {
        let (vocab, hidden) = (spec.shape[0], spec.shape[1]);
        let rows = columns_per_tile(hidden, vocab, self.device.max_binding_bytes())?;
        let tile = |(start, raw): (usize, RawTensor)| -> Result<Tile> {
            let count = raw.shape[0];
            let weight = if self.packs(std::slice::from_ref(&raw)) {
                let part = Part { name: spec.name.clone(), rows: count };
                Weight::Packed(Packed::new(self.device, vec![raw], hidden, lookup)?, vec![part])
            } else {
                let value = self.dense(vec![raw], [count, hidden])?;
                Parameter { tile_start: start, ..Parameter::new(&spec.name, value, self.full) }.into()
            };
            Ok(Tile { start, weight })
        };
        Ok(VocabularyMatrix::new(raw.into_row_tiles(rows).into_iter().map(tile).collect::<Result<_>>()?))
    }

    /// A matrix in the format in which it is held.
    fn matrix(&mut self, spec: &TensorSpec, kind: Kind) -> Result<RawTensor> {
        let raw = (self.maker)(spec, kind)?;
        // Trained, it becomes what it is held in, as a whole.
        if self.full { Ok(raw) } else { self.hold.frozen(raw, is_head(&spec.name, self.tied)) }
    }

    /// Matrices of a block: in memory as long as there is room, else left in their file.
    fn packed(&mut self, raws: Vec<RawTensor>, columns: usize) -> Result<Packed> {
        let bytes: u64 = raws.iter().map(|raw| raw.bytes.len() as u64).sum();
        match self.source {
            // What was converted is not what the file has.
            Some(source) if self.hold == Hold::Auto && bytes > self.room => {
                self.room = 0;
                let left = |raw: RawTensor| {
                    let (rows, digest) = (raw.shape[0], Digest::of(&raw.bytes));
                    InFile { source: source.clone(), name: raw.name, rows, format: raw.format, digest }
                };
                Ok(Packed::in_file(raws.into_iter().map(left).collect(), columns))
            }
            _ => {
                self.room = self.room.saturating_sub(bytes);
                Packed::new(self.device, raws, columns, Rows::Whole)
            }
        }
    }

    /// Matrices of a block that are trained, or held in single precision: as one tensor where a binding holds it, else like
    /// stored ones, in buffers of their own.
    fn unpacked(&self, raws: Vec<RawTensor>, spec: &LinearSpec, parts: Vec<Part>) -> Result<Weight> {
        let each = if self.full { self.hold.trained_bytes() } else { 4 };
        let bytes = spec.rows() as u64 * spec.inputs as u64 * each;
        if bytes <= self.device.max_binding_bytes() {
            let value = self.dense(raws, [spec.rows(), spec.inputs])?;
            return Ok(Weight::Dense(Parameter::fused(parts, value, self.full)));
        }
        if self.full {
            return Err(Error::Limit {
                what: format!("{}, which is trained as a whole,", parts[0].name),
                needed: bytes,
                allowed: self.device.max_binding_bytes(),
                adapter: self.device.name().into(),
                advice: "train an adapter ([adapter] kind = \"lora\"), or choose another device with --device".into(),
            });
        }
        let raws = raws.into_iter().map(|raw| RawTensor::from_f32(&raw.name, raw.shape.clone(), &raw.to_f32()));
        Ok(Weight::Packed(Packed::new(self.device, raws.collect(), spec.inputs, Rows::Whole)?, parts))
    }

    /// True where matrices stay as they are stored. What one product reads is packed as a whole or not at all.
    fn packs(&self, raws: &[RawTensor]) -> bool {
        !self.full && self.hold != Hold::F32 && raws.iter().all(|raw| raw.format != WeightFormat::F32)
    }

    /// Matrices below each other as a parameter holds them.
    fn dense(&self, raws: Vec<RawTensor>, shape: [usize; 2]) -> Result<Weights> {
        match self.hold {
            Hold::Bf16 if self.full => Weights::bf16(self.device, raws, shape[1], false),
            Hold::Bf16Compensated if self.full => Weights::bf16(self.device, raws, shape[1], true),
            _ => {
                // Each straight into its rows of the whole.
                let mut values = vec![0.0; shape[0] * shape[1]];
                let mut rest = values.as_mut_slice();
                for raw in raws {
                    let (own, others) = rest.split_at_mut(raw.elements());
                    raw.format.expand(&raw.bytes, own);
                    rest = others;
                }
                Ok(from_host(values, shape, self.device).into())
            }
        }
    }

    fn norm(&mut self, spec: &TensorSpec) -> Result<Parameter> {
        let raw = (self.maker)(spec, Kind::Norm)?;
        let vector = self.vector(std::slice::from_ref(spec), raw.to_f32());
        Ok(Parameter { decays_to: self.norm_offset, ..vector })
    }

    fn linear(&mut self, spec: &LinearSpec) -> Result<Linear> {
        let weights: Vec<TensorSpec> = spec.modules.iter().map(|module| spec.weight(module)).collect();
        let biases: Vec<TensorSpec> = spec.modules.iter().filter_map(|module| spec.bias(module)).collect();
        let raws: Vec<RawTensor> =
            weights.iter().map(|matrix| self.matrix(matrix, spec.kind)).collect::<Result<_>>()?;
        let weight = if self.packs(&raws) {
            Weight::Packed(self.packed(raws, spec.inputs)?, parts(&weights))
        } else {
            self.unpacked(raws, spec, parts(&weights))?
        };
        let bias = match biases.is_empty() {
            true => None,
            false => {
                let mut values = Vec::with_capacity(spec.rows());
                for bias in &biases {
                    values.extend((self.maker)(bias, Kind::Bias)?.to_f32());
                }
                Some(self.vector(&biases, values))
            }
        };
        Ok(Linear { weight, bias, lora: Vec::new(), lora_scale: LoraScale { scale: 0.0, dropout: 0.0 } })
    }

    fn vector(&self, specs: &[TensorSpec], values: Vec<f32>) -> Parameter {
        let shape = [1, values.len()];
        Parameter::vector(parts(specs), from_host(values, shape, self.device), self.full)
    }
}

/// Names and rows of what a parameter fuses.
fn parts(specs: &[TensorSpec]) -> Vec<Part> {
    specs.iter().map(|spec| Part { name: spec.name.clone(), rows: spec.shape[0] }).collect()
}
