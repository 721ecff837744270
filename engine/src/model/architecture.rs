//! The description of a model: its shape and wiring, checked before anything is allocated from it.
//!
//! It comes out of a Hugging Face `config.json` ([`super::hugging_face`]), out of a GGUF file ([`super::gguf`]), or is
//! made by hand. Loading, the check of the weights and the exporters all ask this one type: which tensors there are and
//! how large ([`Architecture::tensor_specs`]), and the rotary tables ([`Architecture::rope_tables`]).

use super::family::{AttentionBias, Family};
use super::layout::{BlockSpec, EMBEDDING, FINAL_NORM, HEAD, Kind, LinearSpec, Module, Name, Part, TensorSpec};
use super::rope::{LONGEST_CONTEXT, Rope};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::Rotary;

/// Shape and wiring of a decoder-only transformer. All counts are in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Published family: which tensors a block has and how it is wired.
    pub family: &'static Family,
    /// Rows of the embedding (at least the tokenizer's size; some models pad it).
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; `heads * head_dim` need not be `hidden`.
    pub head_dim: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Biases on q, k and v (and on the output, where the family has it there).
    pub attention_bias: bool,
    /// The head is the embedding matrix.
    pub tied_head: bool,
    /// Longest sequence that the model was made for, in tokens.
    pub context: usize,
}

/// Token ids that travel with a model from one configuration file to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Start of a document.
    pub bos: Option<u32>,
    /// Ends of an answer; several models have more than one.
    pub eos: Vec<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

// Larger than any published model by an order of magnitude, small enough that no product of three overflows a u64.
const MOST_LAYERS: usize = 1 << 10;
const MOST_HEADS: usize = 1 << 12;
const WIDEST_HEAD: usize = 1 << 12;
const WIDEST_LAYER: usize = 1 << 20;
const LARGEST_VOCABULARY: usize = 1 << 24;

impl Architecture {
    /// Checks every number; `file` is where they came from.
    ///
    /// # Errors
    /// [`Error::Format`] listing all impossible values, [`Error::Unsupported`] for possible ones that are not
    /// implemented.
    pub fn validate(&self, file: &str) -> Result<()> {
        let mut problems = Vec::new();
        for (what, found, most) in [
            ("vocabulary", self.vocab, LARGEST_VOCABULARY),
            ("hidden size", self.hidden, WIDEST_LAYER),
            ("number of layers", self.layers, MOST_LAYERS),
            ("number of heads", self.heads, MOST_HEADS),
            ("number of key-value heads", self.kv_heads, MOST_HEADS),
            ("head size", self.head_dim, WIDEST_HEAD),
            ("intermediate size", self.intermediate, WIDEST_LAYER),
            ("context length", self.context, LONGEST_CONTEXT),
        ] {
            if found == 0 || found > most {
                problems.push(format!("{what} is {found}; 1 to {most} is possible"));
            }
        }
        if self.kv_heads > 0 && !self.heads.is_multiple_of(self.kv_heads) {
            problems.push(format!("{} heads cannot share {} key-value heads evenly", self.heads, self.kv_heads));
        }
        let rotary = self.rope.rotary_dim;
        if rotary == 0 || !rotary.is_multiple_of(2) || rotary > self.head_dim {
            problems
                .push(format!("{rotary} rotated elements in a head of {}; an even number is needed", self.head_dim));
        }
        // Written so that NaN is refused as well.
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon <= 0.1) {
            problems.push(format!("norm epsilon is {}; above 0 and at most 0.1 is possible", self.norm_epsilon));
        }
        if !(self.rope.theta > 1.0 && self.rope.theta <= 1e12) {
            problems.push(format!("rope theta is {}; above 1 and at most 1e12 is possible", self.rope.theta));
        }
        // What a scaling needs of the rest is checked above.
        if problems.is_empty() {
            problems.extend(self.rope.scaling.and_then(|scaling| scaling.problem(&self.rope)));
        }
        if problems.is_empty() && self.total_elements().is_none() {
            problems.push("the tensors are too large for this machine's addresses".into());
        }
        if !problems.is_empty() {
            return Err(format_error(file, problems.join("; ")));
        }
        if self.family.partial_rotary.is_none() && rotary != self.head_dim {
            let family = self.family.model_type;
            let text = format!("{file}: {family} with only {rotary} of {} elements rotated", self.head_dim);
            return Err(unsupported(text));
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together (and of all value heads).
    pub fn key_value_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Names and shapes of the parameters of one block.
    pub fn block(&self, index: usize) -> BlockSpec {
        let names = &self.family.block;
        let full = |name: &Name| format!("model.layers.{index}.{}", name.hugging_face);
        let norm = |name: &Name, width| TensorSpec::new(format!("{}.weight", full(name)), &[width]);
        // Where files hold one matrix for all that is fused, it has everybody's rows.
        let linear = |names: &[Name], rows: &[usize], inputs, bias, kind| {
            let all = [rows.iter().sum()];
            let rows = if names.len() == 1 { &all } else { rows };
            let modules = names.iter().zip(rows).map(|(name, &rows)| Module { name: full(name), rows });
            LinearSpec { modules: modules.collect(), inputs, bias, kind }
        };
        let (hidden, query, key, mlp) = (self.hidden, self.query_width(), self.key_value_width(), self.intermediate);
        let bias = self.attention_bias;
        let output_bias = bias && self.family.attention_bias == AttentionBias::Configured { output: true };
        BlockSpec {
            index,
            input_norm: norm(&names.input_norm, hidden),
            qkv: linear(names.qkv, &[query, key, key], hidden, bias, Kind::Matrix),
            q_norm: names.q_norm.as_ref().map(|name| norm(name, self.head_dim)),
            k_norm: names.k_norm.as_ref().map(|name| norm(name, self.head_dim)),
            output: linear(names.output, &[hidden], query, output_bias, Kind::Residual),
            attention_norm: names.attention_norm.as_ref().map(|name| norm(name, hidden)),
            mlp_norm: norm(&names.mlp_norm, hidden),
            gate_up: linear(names.gate_up, &[mlp, mlp], hidden, false, Kind::Matrix),
            down: linear(names.down, &[hidden], mlp, false, Kind::Residual),
            mlp_output_norm: names.mlp_output_norm.as_ref().map(|name| norm(name, hidden)),
        }
    }

    /// The embedding.
    pub fn embedding(&self) -> TensorSpec {
        TensorSpec::new(EMBEDDING.hugging_face, &[self.vocab, self.hidden])
    }

    /// The norm before the head.
    pub fn final_norm(&self) -> TensorSpec {
        TensorSpec::new(FINAL_NORM.hugging_face, &[self.hidden])
    }

    /// The head, where it is not the embedding.
    pub fn head(&self) -> Option<TensorSpec> {
        (!self.tied_head).then(|| TensorSpec::new(HEAD.hugging_face, &[self.vocab, self.hidden]))
    }

    /// Every tensor that the model must have: embedding, blocks in order, final norm, and the head unless it is tied.
    pub fn tensor_specs(&self) -> Vec<TensorSpec> {
        let mut specs = vec![self.embedding()];
        for layer in 0..self.layers {
            specs.extend(self.block(layer).tensors());
        }
        specs.push(self.final_norm());
        specs.extend(self.head());
        specs
    }

    /// The same tensors in the order in which a model is built of them; those that it fuses are together, below one another.
    pub fn fused(&self) -> Vec<Vec<TensorSpec>> {
        let mut all = vec![vec![self.embedding()]];
        all.extend(self.head().map(|head| vec![head]));
        for index in 0..self.layers {
            for part in self.block(index).parts() {
                match part {
                    Part::Norm(norm) => all.push(vec![norm.clone()]),
                    Part::Linear(linear) => {
                        all.push(linear.modules.iter().map(|module| linear.weight(module)).collect());
                        all.push(linear.modules.iter().filter_map(|module| linear.bias(module)).collect());
                    }
                }
            }
        }
        all.push(vec![self.final_norm()]);
        // Most layers have no biases.
        all.retain(|fused| !fused.is_empty());
        all
    }

    /// The linear layers of one block by their short name (`q_proj`, `down_proj`, ...), those that LoRA can adapt.
    /// Gives `(module, out, in)` with the module's full name, such as `model.layers.0.self_attn.q_proj`.
    pub fn linear_modules(&self, layer: usize) -> Vec<(String, usize, usize)> {
        let block = self.block(layer);
        let modules = block.linears().flat_map(|l| l.modules.iter().map(|m| (m.name.clone(), m.rows, l.inputs)));
        modules.collect()
    }

    /// Number of parameters, each tensor counted once (a tied head is the embedding).
    pub fn parameter_count(&self) -> u64 {
        self.total_elements().unwrap_or(u64::MAX)
    }

    /// Sum of all tensors' elements; `None` where a tensor's bytes in f32, or the sum, cannot be counted here.
    fn total_elements(&self) -> Option<u64> {
        let sum = |specs: Vec<TensorSpec>| {
            specs.iter().try_fold(0_u64, |sum, s| {
                let elements = s.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
                // An allocation holds at most isize::MAX bytes.
                isize::try_from(elements.checked_mul(4)?).ok()?;
                sum.checked_add(elements as u64)
            })
        };
        let outside = [self.embedding(), self.final_norm()].into_iter().chain(self.head()).collect();
        sum(self.block(0).tensors())?.checked_mul(self.layers as u64)?.checked_add(sum(outside)?)
    }

    /// Angle by which each of the `rotary_dim / 2` pairs turns from one token to the next, in radians:
    /// `theta ^ (-2 i / rotary_dim)`, changed as the scaling says.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let rope = &self.rope;
        let plain = |pair: usize| rope.theta.powf(-((2 * pair) as f64) / rope.rotary_dim as f64);
        let scaled = |pair| rope.scaling.map_or(plain(pair), |scaling| scaling.frequency(pair, plain(pair), rope));
        (0..rope.rotary_dim / 2).map(scaled).collect()
    }

    /// The tables as kernels read them, for positions `0 .. positions`.
    pub fn rotary(&self, device: &Device, positions: usize) -> Rotary {
        let Rope { rotary_dim, interleaved, .. } = self.rope;
        Rotary::new(device, self.rope_tables(positions), rotary_dim, interleaved, positions)
    }

    /// Cosines and sines `[positions, rotary_dim / 2]`, row-major, computed in f64 and rounded once. Both are multiplied by
    /// the scaling's factor, if it has one; the way back through the rotation is then still its transpose.
    pub fn rope_tables(&self, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.rope_frequencies();
        let attention = self.rope.scaling.map_or(1.0, |scaling| scaling.attention());
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        let table = |of: fn(f64) -> f64| angles().map(|a| (attention * of(a)) as f32).collect();
        (table(f64::cos), table(f64::sin))
    }
}

pub(super) fn format_error(file: &str, problem: String) -> Error {
    Error::Format { file: file.to_owned(), problem }
}

pub(super) fn missing(file: &str, key: &str) -> Error {
    format_error(file, format!("{key} is missing"))
}

pub(super) fn unsupported(problem: String) -> Error {
    Error::Unsupported { problem }
}

#[cfg(test)]
mod tests {
    use super::super::family;
    use super::*;

    fn tiny(family: &'static Family) -> Architecture {
        Architecture {
            family,
            vocab: 256,
            hidden: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            intermediate: 128,
            norm_epsilon: 1e-5,
            rope: Rope { theta: 10_000.0, rotary_dim: 16, interleaved: false, scaling: None },
            attention_bias: family.attention_bias == AttentionBias::Always,
            tied_head: false,
            context: 128,
        }
    }

    #[test]
    fn rotary_tables_start_at_angle_zero_and_turn_the_first_pair_by_one_radian() {
        let (cos, sin) = tiny(&family::llama::FAMILY).rope_tables(3);
        assert_eq!((cos.len(), sin.len()), (24, 24));
        assert!(cos[..8].iter().all(|&c| c == 1.0) && sin[..8].iter().all(|&s| s == 0.0));
        assert_eq!((cos[8], sin[8]), (1.0_f64.cos() as f32, 1.0_f64.sin() as f32));
        assert_eq!(cos[17], (2.0 * 10_000.0_f64.powf(-2.0 / 16.0)).cos() as f32);
    }

    #[test]
    fn parameters_are_counted_as_the_tensors_that_are_listed() {
        for family in family::ALL {
            let found = tiny(family);
            found.validate("here").unwrap();
            let listed: usize = found.tensor_specs().iter().map(|s| s.shape.iter().product::<usize>()).sum();
            assert_eq!(found.parameter_count(), listed as u64, "{family:?}");
        }
        let found = tiny(&family::llama::FAMILY);
        assert_eq!(found.linear_modules(1)[0], ("model.layers.1.self_attn.q_proj".to_owned(), 64, 64));
        assert_eq!(found.linear_modules(0).len(), 7);
    }

    #[test]
    fn a_bias_is_where_the_family_has_it() {
        for (family, expected) in [
            (&family::llama::FAMILY, &["q_proj", "k_proj", "v_proj", "o_proj"][..]),
            (&family::qwen2::FAMILY, &["q_proj", "k_proj", "v_proj"]),
            (&family::glm4::FAMILY, &["q_proj", "k_proj", "v_proj"]),
        ] {
            let found = Architecture { attention_bias: true, ..tiny(family) }.block(0).tensors();
            let biases = found.iter().filter_map(|s| s.name.strip_suffix(".bias")?.rsplit('.').next());
            assert_eq!(biases.collect::<Vec<_>>(), expected, "{family:?}");
        }
    }
}
