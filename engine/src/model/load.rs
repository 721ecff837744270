//! Builds a model on a device from a weight source, one block at a time, or from a seed.

use burn::tensor::Tensor;

use super::Model;
use super::architecture::Architecture;
use super::block::Block;
use super::linear::{Linear, LoraScale, Weight};
use super::parameter::{Parameter, Part, from_host};
use super::vocabulary::{Tile, VocabularyMatrix};
use crate::device::Device;
use crate::error::Result;
use crate::kernels::Packed;
use crate::loss::plan::columns_per_tile;
use crate::rng::{Rng, mix};
use crate::settings::choice;
use crate::weights::{RawTensor, WeightFormat, WeightSource};

choice! {
    /// How frozen matrices are held on the device.
    pub enum Hold {
        /// Everything in single precision.
        F32 = "f32",
        /// Frozen block matrices in half precision, on any device; products are in single precision.
        F16 = "f16",
        /// Frozen block matrices as the file has them: quantised blocks stay quantised until they are used.
        AsStored = "as-is",
    }
}

/// Standard deviation of random weights, as the Hugging Face configurations' `initializer_range` default.
const INITIAL_STD: f64 = 0.02;

/// Loads a model. With `full` every parameter is trained (and held in f32); otherwise none is.
///
/// # Errors
/// What the source reports of its tensors; device errors.
pub fn load(arch: &Architecture, source: &dyn WeightSource, device: &Device, hold: Hold, full: bool) -> Result<Model> {
    crate::weights::check(source, arch)?;
    let mut maker = |name: &str| source.read(name);
    build(arch, &mut maker, device, if full { Hold::F32 } else { hold }, full)
}

/// A model with random weights: normal with standard deviation 0.02, residual projections scaled down by
/// `sqrt(2 layers)` (Radford et al. 2019), norms one, biases zero. All parameters are trained.
///
/// # Errors
/// Device errors.
pub fn random(arch: &Architecture, seed: u64, device: &Device) -> Result<Model> {
    let shapes: std::collections::HashMap<String, Vec<usize>> =
        arch.tensor_specs().into_iter().map(|spec| (spec.name, spec.shape)).collect();
    let mut maker = |name: &str| {
        let shape = shapes[name].clone();
        let count: usize = shape.iter().product();
        let mut rng = Rng::new(mix(seed, name_hash(name)));
        let residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
        let std = if residual { INITIAL_STD / (2.0 * arch.layers as f64).sqrt() } else { INITIAL_STD };
        let values: Vec<f32> = match shape.len() {
            1 if name.ends_with(".bias") => vec![0.0; count],
            1 => vec![1.0; count],
            _ => (0..count).map(|_| (rng.normal() * std) as f32).collect(),
        };
        Ok(RawTensor::from_f32(name, shape, &values))
    };
    build(arch, &mut maker, device, Hold::F32, true)
}

/// FNV-1a, so that a tensor's random values depend on its name and not on the order of loading.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

type Maker<'a> = &'a mut dyn FnMut(&str) -> Result<RawTensor>;

fn build(arch: &Architecture, maker: Maker, device: &Device, hold: Hold, full: bool) -> Result<Model> {
    let mut builder = Builder { arch, maker, device, hold, full };
    let embedding = builder.vocabulary("model.embed_tokens.weight")?;
    let head = match arch.tied_head {
        true => None,
        false => Some(builder.vocabulary("lm_head.weight")?),
    };
    let blocks = (0..arch.layers).map(|index| builder.block(index)).collect::<Result<_>>()?;
    let final_norm = builder.vector("model.norm.weight")?;
    Ok(Model::new(arch.clone(), embedding, blocks, final_norm, head, device.clone()))
}

struct Builder<'a> {
    arch: &'a Architecture,
    maker: Maker<'a>,
    device: &'a Device,
    hold: Hold,
    full: bool,
}

impl Builder<'_> {
    fn vocabulary(&mut self, name: &str) -> Result<VocabularyMatrix> {
        let raw = (self.maker)(name)?;
        let values = raw.to_f32();
        let hidden = self.arch.hidden;
        let rows = columns_per_tile(hidden, self.arch.vocab, self.device.max_binding_bytes())?;
        let tiles = values
            .chunks(rows * hidden)
            .enumerate()
            .map(|(index, chunk)| {
                let value = from_host(chunk.to_vec(), [chunk.len() / hidden, hidden], self.device);
                let mut weight = Parameter::new(name, value, self.full);
                weight.tile_start = index * rows;
                Tile { start: index * rows, weight }
            })
            .collect();
        Ok(VocabularyMatrix::new(tiles))
    }

    fn block(&mut self, index: usize) -> Result<Block> {
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let arch = self.arch;
        let (q, kv) = (arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim);
        let qkv = [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)];
        let gate_up: &[(&str, usize)] = match arch.fused_gate_up {
            true => &[("mlp.gate_up_proj", 2 * arch.intermediate)],
            false => &[("mlp.gate_proj", arch.intermediate), ("mlp.up_proj", arch.intermediate)],
        };
        let qk_norm = match arch.qk_norm {
            true => Some((self.vector(&at("self_attn.q_norm.weight"))?, self.vector(&at("self_attn.k_norm.weight"))?)),
            false => None,
        };
        // GLM-4 calls the norm before the MLP what others call the one after attention, too.
        let (attention_norm, mlp_output_norm) = match arch.sandwich_norms {
            true => (
                Some(self.vector(&at("post_self_attn_layernorm.weight"))?),
                Some(self.vector(&at("post_mlp_layernorm.weight"))?),
            ),
            false => (None, None),
        };
        Ok(Block {
            index,
            input_norm: self.vector(&at("input_layernorm.weight"))?,
            qkv: self.linear(index, &qkv, arch.hidden, arch.attention_bias)?,
            qk_norm,
            output: self.linear(index, &[("self_attn.o_proj", arch.hidden)], q, arch.attention_output_bias())?,
            attention_norm,
            mlp_norm: self.vector(&at("post_attention_layernorm.weight"))?,
            gate_up: self.linear(index, gate_up, arch.hidden, false)?,
            down: self.linear(index, &[("mlp.down_proj", arch.hidden)], arch.intermediate, false)?,
            mlp_output_norm,
        })
    }

    fn linear(&mut self, block: usize, parts: &[(&str, usize)], inputs: usize, bias: bool) -> Result<Linear> {
        let name = |part: &str, what: &str| format!("model.layers.{block}.{part}.{what}");
        let named = |what: &str| -> Vec<Part> {
            parts.iter().map(|&(part, rows)| Part { name: name(part, what), rows }).collect()
        };
        let mut raws = parts.iter().map(|(part, _)| (self.maker)(&name(part, "weight"))).collect::<Result<Vec<_>>>()?;
        if self.hold == Hold::F16 {
            for raw in raws.iter_mut().filter(|raw| raw.format != WeightFormat::F16) {
                *raw = RawTensor::quantise(&raw.name, &raw.shape, &raw.to_f32(), WeightFormat::F16)?;
            }
        }
        let outputs: usize = parts.iter().map(|p| p.1).sum();
        let packed = self.hold != Hold::F32 && raws.iter().all(|r| r.format != WeightFormat::F32);
        let weight = if packed {
            let packed = raws.into_iter().map(|raw| Packed::new(self.device, raw, inputs)).collect();
            Weight::Packed(packed, named("weight"))
        } else {
            let values: Vec<f32> = raws.iter().flat_map(RawTensor::to_f32).collect();
            Weight::Dense(Parameter::fused(
                named("weight"),
                from_host(values, [outputs, inputs], self.device),
                self.full,
            ))
        };
        let bias = match bias {
            true => {
                let mut values = Vec::with_capacity(outputs);
                for (part, _) in parts {
                    values.extend((self.maker)(&name(part, "bias"))?.to_f32());
                }
                Some(Parameter::vector(named("bias"), from_host(values, [1, outputs], self.device), self.full))
            }
            false => None,
        };
        Ok(Linear { weight, bias, lora: Vec::new(), lora_scale: LoraScale { scale: 0.0, dropout: 0.0 } })
    }

    fn vector(&mut self, name: &str) -> Result<Parameter> {
        let values = (self.maker)(name)?.to_f32();
        let n = values.len();
        let value: Tensor<2> = from_host(values, [1, n], self.device);
        Ok(Parameter::vector(vec![Part { name: name.into(), rows: n }], value, self.full))
    }
}
