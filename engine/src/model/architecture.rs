//! The description of a model: its shape and wiring, checked before anything is allocated from it.
//!
//! It comes out of a Hugging Face `config.json` ([`super::hugging_face`]), out of a GGUF file ([`super::gguf`]), or is
//! made by hand. Loading, the check of the weights and the exporters all ask this one type: which tensors there are and
//! how large ([`Architecture::tensor_specs`]), the rotary tables ([`Architecture::rope_tables`]), and how far back a block's
//! tokens see ([`Architecture::window_of`]).

use std::fmt;

use super::family::{AttentionBias, Family, periodic};
use super::layout::{BlockSpec, EMBEDDING, FINAL_NORM, HEAD, Kind, LinearSpec, Module, Name, Part, TensorSpec};
use super::rope::{LONGEST_CONTEXT, Rope, RopeScaling};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::Rotary;

/// Shape and wiring of a decoder-only transformer. All counts are in elements.
#[derive(Clone, PartialEq)]
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
    /// That of blocks within a window, where it differs.
    pub local_rope: Option<Rope>,
    /// Which blocks attend within a window.
    pub window: Option<Window>,
    /// Factor of attention's scores, where it is not `1 / sqrt(head_dim)`.
    pub attention_scale: Option<f64>,
    /// Factor of the embedding's rows as they enter the first block; a tied head has none.
    pub embedding_scale: f64,
    /// Biases on q, k and v (and on the output, where the family has it there).
    pub attention_bias: bool,
    /// The head is the embedding matrix.
    pub tied_head: bool,
    /// Longest sequence that the model takes, in tokens.
    pub context: usize,
}

/// Which blocks see only the last tokens before each, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tokens that a token sees, itself among them.
    pub tokens: usize,
    /// One a block: true within the window, false for all tokens before.
    pub pattern: Vec<bool>,
}

impl Window {
    /// The smallest period that gives this pattern ([`periodic`]), where there is one.
    pub fn period(&self) -> Option<usize> {
        (0..=self.pattern.len()).find(|&period| periodic(period, self.pattern.len()) == self.pattern)
    }

    /// The window of a model that reaches so far, where it makes a difference: blocks within one may have a rotation of their own.
    pub(super) fn that_matters(self, reach: usize, local_rope: Option<&Rope>) -> Option<Self> {
        let matters = self.pattern.contains(&true) && (self.tokens < reach || local_rope.is_some());
        matters.then_some(self)
    }
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
        for rope in self.local_rope.iter().chain([&self.rope]) {
            if !(rope.theta > 1.0 && rope.theta <= 1e12) {
                problems.push(format!("rope theta is {}; above 1 and at most 1e12 is possible", rope.theta));
            }
        }
        if let Some(scale) = self.attention_scale.filter(|scale| !(*scale > 0.0 && *scale <= 1.0)) {
            problems.push(format!("attention's scores are multiplied by {scale}; above 0 and at most 1 is possible"));
        }
        if let Some(Window { tokens, pattern }) = &self.window {
            if *tokens == 0 {
                problems.push("the sliding window is 0 tokens".into());
            }
            if pattern.len() != self.layers {
                problems.push(format!("{} kinds of attention for {} layers", pattern.len(), self.layers));
            }
        }
        // What a scaling needs of the rest is checked above.
        if problems.is_empty() {
            let of = |rope: &Rope| rope.scaling.as_ref().and_then(|scaling| scaling.problem(rope));
            problems.extend(self.local_rope.iter().chain([&self.rope]).filter_map(of));
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
        if self.attention_scale.is_some() && rotary != self.head_dim {
            let text =
                format!("{file}: a factor of attention's scores with only {rotary} of {} elements", self.head_dim);
            return Err(unsupported(text + " rotated"));
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

    /// Gives the model its window, where that makes a difference, and the rotation of the blocks within it.
    pub(super) fn set_window(&mut self, window: Option<Window>) {
        self.window = window.and_then(|window| window.that_matters(self.reach(), self.local_rope.as_ref()));
        if self.window.is_none() {
            self.local_rope = None;
        }
    }

    /// Tokens that a token of a block sees, itself among them; `None` where it sees all before it.
    pub fn window_of(&self, block: usize) -> Option<usize> {
        self.window.as_ref().filter(|window| window.pattern.get(block) == Some(&true)).map(|window| window.tokens)
    }

    /// Tokens that the model's files say it reaches; more than its context where they ask for other frequencies beyond.
    pub fn reach(&self) -> usize {
        match &self.rope.scaling {
            Some(RopeScaling::Long(long)) => long.reach,
            _ => self.context,
        }
    }

    /// Refuses a sequence for which the model's frequencies would have to be others. (Other scalings only get worse beyond the
    /// context.)
    ///
    /// # Errors
    /// [`Error::Config`] with both lengths.
    pub fn check_length(&self, tokens: usize) -> Result<()> {
        match &self.rope.scaling {
            Some(RopeScaling::Long(long)) if tokens > long.original_context => {
                let (original, reach) = (long.original_context, long.reach);
                let problem = format!(
                    "a sequence of {tokens} tokens, but this model is computed up to {original}, its original context; beyond, up \
                     to {reach}, it has other rotary frequencies (longrope's long factors), which are not implemented"
                );
                Err(Error::Config { problems: vec![problem] })
            }
            _ => Ok(()),
        }
    }

    /// See [`Rope::frequencies`].
    pub fn rope_frequencies(&self) -> Vec<f64> {
        self.rope.frequencies()
    }

    /// The tables as kernels read them, for positions `0 .. positions`.
    pub fn rotary(&self, device: &Device, positions: usize) -> Rotary {
        self.rotary_of(&self.rope, device, positions)
    }

    /// The same for blocks within a window, where these have their own.
    pub fn local_rotary(&self, device: &Device, positions: usize) -> Option<Rotary> {
        self.local_rope.as_ref().map(|rope| self.rotary_of(rope, device, positions))
    }

    fn rotary_of(&self, rope: &Rope, device: &Device, positions: usize) -> Rotary {
        let tables = rope.tables(positions, self.rotary_scale());
        Rotary::new(device, tables, rope.rotary_dim, rope.interleaved, positions)
    }

    /// See [`Rope::tables`].
    pub fn rope_tables(&self, positions: usize) -> (Vec<f32>, Vec<f32>) {
        self.rope.tables(positions, self.rotary_scale())
    }

    /// What cosines and sines are multiplied by, so that scores of attention, which kernels divide by `sqrt(head_dim)`, have
    /// the model's own factor: the rotation takes it into q and into k.
    fn rotary_scale(&self) -> f64 {
        self.attention_scale.map_or(1.0, |scale| (scale * (self.head_dim as f64).sqrt()).sqrt())
    }
}

/// Part of every model's digest, by which a run finds its model again: what most models lack is named only where a model has it.
impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut all = f.debug_struct("Architecture");
        all.field("family", &self.family)
            .field("vocab", &self.vocab)
            .field("hidden", &self.hidden)
            .field("layers", &self.layers)
            .field("heads", &self.heads)
            .field("kv_heads", &self.kv_heads)
            .field("head_dim", &self.head_dim)
            .field("intermediate", &self.intermediate)
            .field("norm_epsilon", &self.norm_epsilon)
            .field("rope", &self.rope)
            .field("attention_bias", &self.attention_bias)
            .field("tied_head", &self.tied_head)
            .field("context", &self.context);
        if let Some(rope) = &self.local_rope {
            all.field("local_rope", rope);
        }
        if let Some(window) = &self.window {
            all.field("window", window);
        }
        if let Some(scale) = &self.attention_scale {
            all.field("attention_scale", scale);
        }
        if self.embedding_scale != 1.0 {
            all.field("embedding_scale", &self.embedding_scale);
        }
        all.finish()
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
    use super::super::rope::LongRope;
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
            local_rope: None,
            window: None,
            attention_scale: None,
            embedding_scale: 1.0,
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

    #[test]
    fn a_sequence_beyond_longropes_original_context_is_refused_with_both_lengths() {
        let mut found = tiny(&family::phi3::FAMILY);
        found.check_length(1_000_000).unwrap();
        let factors = vec![1.0; 8];
        let (short, long) = (factors.clone(), factors);
        let long = LongRope { short, long, original_context: 64, reach: 128, attention: 1.0 };
        found.rope.scaling = Some(RopeScaling::Long(long));
        found.check_length(64).unwrap();
        let error = found.check_length(65).unwrap_err().to_string();
        for part in ["65 tokens", "up to 64", "128"] {
            assert!(error.contains(part), "{part} not in {error}");
        }
    }

    #[test]
    fn the_rotation_gives_scores_the_models_own_factor() {
        // Gemma 3 27B divides by sqrt(168), and its heads have 128 elements.
        let plain = tiny(&family::llama::FAMILY);
        let scaled = Architecture { attention_scale: Some(21_f64.sqrt().recip()), ..plain.clone() };
        scaled.validate("here").unwrap();
        let (plain, scaled) = (plain.rope_tables(3).0, scaled.rope_tables(3).0);
        for (plain, scaled) in plain.into_iter().zip(scaled) {
            // Once with q and once with k.
            let wanted = f64::from(plain).powi(2) * (16.0_f64 / 21.0).sqrt();
            assert!((f64::from(scaled).powi(2) - wanted).abs() <= 1e-6 * wanted.abs());
        }
    }

    #[test]
    fn every_so_manieth_block_sees_all_tokens_and_the_others_those_of_the_window() {
        let window = |pattern: Vec<bool>| Window { tokens: 8, pattern };
        let found = Architecture { layers: 7, window: Some(window(periodic(6, 7))), ..tiny(&family::llama::FAMILY) };
        found.validate("here").unwrap();
        let seen: Vec<_> = (0..7).map(|block| found.window_of(block)).collect();
        assert_eq!(seen, [Some(8), Some(8), Some(8), Some(8), Some(8), None, Some(8)]);
        for period in [0, 1, 2, 6] {
            assert_eq!(window(periodic(period, 7)).period(), Some(period));
        }
        assert_eq!(window(vec![false, true, true]).period(), None);
        let short = Architecture { window: Some(window(vec![true])), ..tiny(&family::llama::FAMILY) };
        let none = Architecture { window: Some(Window { tokens: 0, pattern: vec![true; 2] }), ..short.clone() };
        for (wrong, named) in [(short, "1 kinds of attention for 2 layers"), (none, "is 0 tokens")] {
            let error = wrong.validate("here").unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_only_new_families_have_leaves_the_digests_of_the_others_as_they_were() {
        let plain = tiny(&family::llama::FAMILY);
        let rope = "Rope { theta: 10000.0, rotary_dim: 16, interleaved: false, scaling: None }";
        let digested = format!(
            "Architecture {{ family: llama, vocab: 256, hidden: 64, layers: 2, heads: 4, kv_heads: 2, head_dim: 16, \
             intermediate: 128, norm_epsilon: 1e-5, rope: {rope}, attention_bias: false, tied_head: false, context: 128 }}"
        );
        assert_eq!(format!("{plain:?}"), digested);
        for other in [
            Architecture { local_rope: Some(plain.rope.clone()), ..plain.clone() },
            Architecture { window: Some(Window { tokens: 8, pattern: vec![true; 2] }), ..plain.clone() },
            Architecture { attention_scale: Some(0.5), ..plain.clone() },
            Architecture { embedding_scale: 8.0, ..plain.clone() },
        ] {
            assert_ne!(format!("{other:?}"), digested);
        }
    }
}
