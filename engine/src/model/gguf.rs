//! A model in a GGUF file: its description, and its tensors under Hugging Face names and in Hugging Face layout.
//!
//! The container is read by [`crate::weights::gguf`]. What differs from Hugging Face is undone here and nowhere else:
//! names ([`huggingface_name`]) and, in Llama's files, permuted rows of q and k ([`unpermuted_row`]).

use std::collections::BTreeMap;

use super::architecture::{Architecture, SpecialTokens, Window, format_error, missing, unsupported};
use super::family::{self, Family, Windows, listed, periodic};
use super::layout::{EMBEDDING, FINAL_NORM, HEAD, Kind, Name, Part, TensorSpec};
use super::rope::{Llama3Scaling, LongRope, Rope, RopeScaling, Yarn};
use crate::data::tokenizer::Tokenizer;
use crate::data::tokenizer::gguf::{GgufVocabulary, token_id};
use crate::error::{Error, Result};
use crate::host::shorten;
use crate::weights::gguf::{Gguf, Metadata, Value};
use crate::weights::{RawTensor, WeightFormat, WeightSource, absent, tensor_error};

/// Divisors of the rotary frequencies, in files of Llama 3.1 and later.
const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// Those of LongRoPE up to the original context, and beyond it.
const LONG_DIVISORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];
/// Base of the frequencies within windows: llama.cpp's key, and Ollama's.
pub const LOCAL_BASES: [&str; 2] = ["rope.freq_base_swa", "rope.local.freq_base"];

/// An opened GGUF file, a [`WeightSource`] under Hugging Face names.
pub struct GgufModel {
    container: Gguf,
    architecture: Architecture,
    tensors: BTreeMap<String, Origin>,
}

/// Where a tensor comes from.
struct Origin {
    /// Its name in the file.
    name: String,
    /// Rows of so many elements are permuted within each head.
    permuted_head: Option<usize>,
}

impl GgufModel {
    /// Reads and checks the description, and finds the tensors under their names.
    ///
    /// # Errors
    /// [`Error::Format`] for missing, mistyped or impossible values of the description,
    /// [`Error::Unsupported`] for what the engine does not implement, [`Error::Tensor`] where two tensors stand for one
    /// or permuted rows are no whole heads.
    pub fn new(container: Gguf) -> Result<Self> {
        let file = container.file();
        let architecture = read_architecture(&container, file)?;
        let tensors = under_huggingface_names(&container, &architecture, file)?;
        Ok(Self { container, architecture, tensors })
    }

    /// The model's description.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The token ids that the metadata names.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where one of them is no token id.
    pub fn special_tokens(&self) -> Result<SpecialTokens> {
        let id = |name| token_id(self.container.metadata(), name, self.container.file());
        Ok(SpecialTokens { bos: id("bos")?, eos: id("eos")?.into_iter().collect(), pad: id("padding")? })
    }

    /// The vocabulary as stored.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where there is none, or an id or count does not fit the vocabulary or the embedding.
    pub fn vocabulary(&self) -> Result<GgufVocabulary> {
        let file = self.container.file();
        let vocabulary = GgufVocabulary::read(self.container.metadata(), file)?;
        let (tokens, rows) = (vocabulary.tokens.len(), self.architecture.vocab);
        if tokens > rows {
            let problem = format!("{file}: {tokens} tokens, but the embedding has {rows} rows");
            return Err(Error::Tokenizer { problem });
        }
        Ok(vocabulary)
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// As [`GgufModel::vocabulary`] and [`Tokenizer::from_gguf`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_gguf(self.vocabulary()?, &family::pre_tokenizers())
    }
}

impl WeightSource for GgufModel {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.container.shape(&self.tensors.get(name)?.name)
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        self.container.format(&self.tensors.get(name)?.name)
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let origin = self.tensors.get(name).ok_or_else(|| absent(self.container.file(), name))?;
        let mut raw = self.container.read(&origin.name)?;
        name.clone_into(&mut raw.name);
        if let Some(head) = origin.permuted_head {
            raw.bytes = unpermute(&raw.bytes, raw.shape[0], head);
        }
        Ok(raw)
    }

    fn file_of(&self, name: &str) -> String {
        self.container.file_of(self.tensors.get(name).map_or(name, |origin| &origin.name))
    }
}

/// Typed look-ups under `<architecture>.`.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
    file: &'a str,
}

impl Keys<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.prefix)
    }

    fn count(&self, suffix: &str) -> Result<Option<usize>> {
        let (key, file) = (self.key(suffix), self.file);
        match (self.metadata.get(&key), self.metadata.unsigned(&key)) {
            (None, _) => Ok(None),
            (Some(_), Some(n)) => usize::try_from(n).map(Some).map_err(|_| format_error(file, format!("{key} is {n}"))),
            (Some(_), None) => Err(unsupported(format!("{file}: {key} is not one whole number"))),
        }
    }

    fn required(&self, suffix: &str) -> Result<usize> {
        self.count(suffix)?.ok_or_else(|| self.missing(suffix))
    }

    fn number(&self, suffix: &str) -> Option<f64> {
        self.metadata.number(&self.key(suffix))
    }

    fn missing(&self, suffix: &str) -> Error {
        missing(self.file, &self.key(suffix))
    }
}

/// The description, out of the metadata and, where that is silent, out of which tensors there are.
fn read_architecture(container: &Gguf, file: &str) -> Result<Architecture> {
    let metadata = container.metadata();
    if metadata.text("general.type") == Some("adapter") {
        let problem = "is an adapter and no model (general.type): it needs the model that it was trained on, to which llama.cpp \
                       adds it (--lora); here that model is given, and beside it the adapter as PEFT has it";
        return Err(Error::Format { file: file.into(), problem: problem.into() });
    }
    let prefix = metadata.text("general.architecture").ok_or_else(|| missing(file, "general.architecture"))?;
    let family = family::of_gguf(prefix).ok_or_else(|| {
        let known: Vec<&str> = family::ALL.iter().filter_map(|family| family.gguf_architecture).collect();
        unsupported(format!("{file}: model kind \"{}\"; {} are", shorten(prefix), listed(&known)))
    })?;
    let keys = Keys { metadata, prefix, file };
    refuse_other_wiring(&keys)?;

    let heads = keys.required("attention.head_count")?;
    let hidden = keys.required("embedding_length")?;
    let head_dim = match keys.count("attention.key_length")? {
        Some(found) => found,
        None if heads > 0 && hidden % heads == 0 => hidden / heads,
        None => return Err(keys.missing("attention.key_length")),
    };
    if keys.count("attention.value_length")?.is_some_and(|v| v != head_dim) {
        return Err(unsupported(format!("{file}: value heads of another width than key heads")));
    }
    let embedding = container.shape(EMBEDDING.gguf);
    let query_bias = format!("blk.0.{}.bias", family.block.qkv[0].gguf);
    let context = keys.required("context_length")?;
    let scaling = match read_long(container, &keys, context)? {
        Some(long) => Some(RopeScaling::Long(long)),
        None => read_scaling(&keys, context)?,
    };
    let layers = keys.required("block_count")?;
    let rope = Rope {
        theta: keys.number("rope.freq_base").unwrap_or(family.defaults.theta),
        rotary_dim: keys.count("rope.dimension_count")?.unwrap_or(head_dim),
        interleaved: family.interleaved_rotary,
        scaling,
    };
    let local = family.local_theta.map(|usual| Rope {
        theta: LOCAL_BASES.iter().find_map(|key| keys.number(key)).unwrap_or(usual),
        scaling: None,
        ..rope.clone()
    });
    let mut architecture = Architecture {
        family,
        vocab: embedding.and_then(|shape| shape.first().copied()).unwrap_or(0),
        hidden,
        layers,
        heads,
        kv_heads: keys.count("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        intermediate: keys.required("feed_forward_length")?,
        norm_epsilon: keys
            .number("attention.layer_norm_rms_epsilon")
            .ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon"))?,
        context: rope.scaling.as_ref().map_or(context, |scaling| scaling.context(context)),
        local_rope: local.filter(|local| *local != rope),
        rope,
        window: None,
        attention_scale: None,
        embedding_scale: family.embedding_scale(hidden),
        attention_bias: container.shape(&query_bias).is_some(),
        tied_head: container.shape(HEAD.gguf).is_none(),
    };
    architecture.validate(file)?;
    architecture.attention_scale = implied_scale(&architecture);
    // Only now is the number of layers one to make a list for.
    architecture.set_window(read_window(&keys, family, layers)?);
    architecture.validate(file)?;
    if architecture.window.is_some() && family.windows == Windows::Never {
        // Llama has no windows: it is a Mistral, which GGUF has no name for.
        if family != &family::llama::FAMILY || architecture.attention_bias {
            let (key, family) = (keys.key(WINDOW), family.model_type);
            return Err(unsupported(format!("{file}: {key} in a {family} model with biases or without windows")));
        }
        architecture.family = &family::mistral::FAMILY;
    }
    if container.shape(ROPE_DIVISORS).is_some() {
        if architecture.rope.scaling.is_some() {
            return Err(unsupported(format!("{file}: {ROPE_DIVISORS} beside another rope scaling")));
        }
        let divisors = container.read(ROPE_DIVISORS)?.to_f32();
        let found = scaling_of_divisors(&divisors, &architecture.rope_frequencies());
        let problem = || unsupported(format!("{file}: {ROPE_DIVISORS} holds no Llama 3 scaling"));
        architecture.rope.scaling = Some(RopeScaling::Llama3(found.ok_or_else(problem)?));
    }
    Ok(architecture)
}

/// Refuses metadata that mean another computation than the one implemented.
fn refuse_other_wiring(keys: &Keys) -> Result<()> {
    for (suffix, what) in [
        ("expert_count", "mixtures of experts are not supported"),
        ("attn_logit_softcapping", "capped scores are not supported"),
        ("final_logit_softcapping", "capped logits are not supported"),
    ] {
        if keys.number(suffix).unwrap_or(0.0) != 0.0 {
            return Err(unsupported(format!("{}: {} is not zero; {what}", keys.file, keys.key(suffix))));
        }
    }
    Ok(())
}

/// Tokens of the window.
pub const WINDOW: &str = "attention.sliding_window";
/// Every how manieth block sees all tokens, or one flag a block; absent where it is as usual in the family.
pub const PATTERN: &str = "attention.sliding_window_pattern";

/// Which blocks attend within a window; zero means none.
fn read_window(keys: &Keys, family: &Family, layers: usize) -> Result<Option<Window>> {
    let Some(tokens) = keys.count(WINDOW)?.filter(|&tokens| tokens > 0) else { return Ok(None) };
    let pattern = match keys.metadata.get(&keys.key(PATTERN)) {
        None => family.windows.usual_pattern(layers),
        Some(Value::Numbers(all)) => {
            all.iter().map(|one| !matches!(one, Value::Bool(false) | Value::Unsigned(0))).collect()
        }
        Some(_) => periodic(keys.count(PATTERN)?.unwrap_or(0), layers),
    };
    Ok(Some(Window { tokens, pattern }))
}

/// Attention's factor of the one model of a family whose scores do not go by the heads' width, as llama.cpp knows it: by its
/// number of blocks.
pub fn implied_scale(architecture: &Architecture) -> Option<f64> {
    let Architecture { family, layers, hidden, heads, .. } = *architecture;
    let known = family.gguf_scores_by_hidden == Some(layers) && architecture.query_width() != hidden;
    known.then(|| ((hidden / heads) as f64).sqrt().recip())
}

/// LongRoPE, whose divisors are tensors.
fn read_long(container: &Gguf, keys: &Keys, reach: usize) -> Result<Option<LongRope>> {
    const ORIGINAL: &str = "rope.scaling.original_context_length";
    let [short, long] = LONG_DIVISORS;
    if container.shape(short).is_none() && container.shape(long).is_none() {
        return Ok(None);
    }
    let original_context = keys.required(ORIGINAL)?;
    let [short, long] = [container.read(short)?.to_f32(), container.read(long)?.to_f32()];
    let mut found = LongRope { short, long, original_context, reach, attention: 1.0 };
    if let Some(attention) = keys.number("rope.scaling.attn_factor") {
        // The file's is in single precision.
        let usual = found.usual_attention();
        found.attention = if attention as f32 == usual as f32 { usual } else { attention };
    }
    Ok(Some(found))
}

/// The scaling that the metadata name, as llama.cpp means them: a factor without a type is linear.
fn read_scaling(keys: &Keys, context: usize) -> Result<Option<RopeScaling>> {
    let number = |suffix: &str| keys.number(&format!("rope.scaling.{suffix}"));
    let refuse = |text: String| Err(unsupported(format!("{}: {text}", keys.file)));
    let kind = keys.metadata.text(&keys.key("rope.scaling.type"));
    // Zero means none, as does the older key that only linear scaling had.
    let factor = number("factor").or_else(|| keys.number("rope.scale_linear")).filter(|&factor| factor != 0.0);
    let attention = number("attn_factor").unwrap_or(1.0);
    let only_yarns = |found| match attention == 1.0 {
        true => Ok(found),
        false => refuse(format!("rope.scaling.attn_factor {attention} without yarn is not implemented")),
    };
    match (kind, factor) {
        (None | Some("none"), None) | (Some("none"), Some(_)) | (Some("linear"), None) => only_yarns(None),
        (None | Some("linear"), Some(factor)) => only_yarns(Some(RopeScaling::Linear { factor })),
        (Some("yarn"), Some(factor)) => {
            for (suffix, only) in [("yarn_ext_factor", 1.0), ("yarn_attn_factor", 1.0)] {
                if let Some(other) = number(suffix).filter(|&found| found != only) {
                    return refuse(format!("rope.scaling.{suffix} is {other}; only {only} is implemented"));
                }
            }
            // What it is multiplied by is what llama.cpp calls mscale_all_dim.
            let all = number("yarn_log_multiplier").filter(|&all| all != 0.0);
            let usual = Yarn::attention_of(factor, 1.0);
            Ok(Some(RopeScaling::Yarn(Yarn {
                beta_fast: number("yarn_beta_fast").unwrap_or(Yarn::BETA_FAST),
                beta_slow: number("yarn_beta_slow").unwrap_or(Yarn::BETA_SLOW),
                attention: attention * all.map_or(usual, |all| usual / Yarn::attention_of(factor, all)),
                ..Yarn::new(factor, number("original_context_length").unwrap_or(context as f64))
            })))
        }
        (Some("yarn"), None) => Err(keys.missing("rope.scaling.factor")),
        (Some(other), _) => refuse(format!(
            "rope scaling \"{}\"; none, linear, yarn, llama3's and longrope's (with its tensors) are",
            shorten(other)
        )),
    }
}

/// The scaling behind `rope_freqs.weight`, which stores only the resulting divisors.
///
/// All published models use factors 1 and 4; the largest divisor is `factor`, and the original context is the power of
/// two that gives these very divisors. `None` where there is none.
fn scaling_of_divisors(divisors: &[f32], frequencies: &[f64]) -> Option<Llama3Scaling> {
    let factor = f64::from(divisors.iter().copied().fold(1.0_f32, f32::max));
    (4..=22).map(|power| f64::from(1_u32 << power)).find_map(|original_context| {
        let scaling = Llama3Scaling { factor, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_context };
        let fits = divisors.len() == frequencies.len()
            && divisors.iter().zip(frequencies).all(|(&found, &frequency)| {
                let expected = scaling.divisor(frequency);
                (f64::from(found) - expected).abs() <= 1e-4 * expected
            });
        fits.then_some(scaling)
    })
}

/// The file's tensors by their Hugging Face names. Unknown names stay as they are, for [`super::open::check`] to report.
fn under_huggingface_names(
    container: &Gguf,
    architecture: &Architecture,
    file: &str,
) -> Result<BTreeMap<String, Origin>> {
    let family = written_as(architecture);
    let mut tensors = BTreeMap::new();
    let divisors = [&[ROPE_DIVISORS][..], &LONG_DIVISORS[..]].concat();
    for name in container.names().into_iter().filter(|name| !divisors.contains(&name.as_str())) {
        let known = module_of(&name, family);
        let mut permuted_head = None;
        if let Some((_, module, _)) = known
            && family.gguf_rows_permuted
            && family.rotated().contains(module)
        {
            let head = architecture.head_dim;
            let rows = container.shape(&name).and_then(|shape| shape.first().copied()).unwrap_or(0);
            if !rows.is_multiple_of(head) {
                return Err(tensor_error(file, &name, format!("{rows} rows are no whole heads of {head}")));
            }
            permuted_head = Some(head);
        }
        let new = huggingface_name(&name, family).unwrap_or_else(|| name.clone());
        if tensors.contains_key(&new) {
            return Err(tensor_error(file, &name, "stands for the same tensor as another name".into()));
        }
        tensors.insert(new, Origin { name, permuted_head });
    }
    Ok(tensors)
}

/// Hugging Face's name of a tensor, or `None` for one that this family does not have.
fn huggingface_name(name: &str, family: &'static Family) -> Option<String> {
    if let Some(whole) = [EMBEDDING, FINAL_NORM, HEAD].into_iter().find(|whole| whole.gguf == name) {
        return Some(whole.hugging_face.to_owned());
    }
    let (layer, module, kind) = module_of(name, family)?;
    Some(format!("model.layers.{layer}.{}.{kind}", module.hugging_face))
}

/// Layer, module and kind (`weight` or `bias`) of a block's tensor.
fn module_of<'a>(name: &'a str, family: &'static Family) -> Option<(u32, &'static Name, &'a str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    // Exactly the digits that Rust would print, so that no two names become one.
    let layer = layer.parse::<u32>().ok().filter(|n| n.to_string() == layer)?;
    let module = family.block.parts().find_map(|part| match part {
        Part::Norm(norm) => (norm.gguf == module).then_some(norm),
        Part::Linear(modules) => modules.iter().find(|m| m.gguf == module),
    })?;
    Some((layer, module, kind))
}

/// The GGUF row that holds Hugging Face row `row` of llama's q or k: within a head, GGUF's rows `(i, j)` of
/// `[head / 2, 2]` are Hugging Face's rows `(j, i)` of `[2, head / 2]`.
pub fn unpermuted_row(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    let (j, i) = (within / (head / 2), within % (head / 2));
    start + i * 2 + j
}

/// A tensor of a model as a GGUF file holds it.
pub struct Stored {
    /// Its Hugging Face name and its shape.
    pub spec: TensorSpec,
    /// Its name in the file.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its rows are permuted within heads of so many.
    pub permuted_head: Option<usize>,
}

/// The family whose files hold a model: its own, or Llama's for one that GGUF has no name for.
pub fn written_as(architecture: &Architecture) -> &'static Family {
    match architecture.family.gguf_architecture {
        Some(_) => architecture.family,
        None => &family::llama::FAMILY,
    }
}

/// All tensors of a model but the divisors of its rotary frequencies, first to last.
pub fn stored_tensors(architecture: &Architecture) -> Vec<Stored> {
    let whole = |name: &Name, spec, kind| Stored { spec, name: name.gguf.to_owned(), kind, permuted_head: None };
    let permuted = written_as(architecture).gguf_rows_permuted;
    let mut tensors = vec![whole(&EMBEDDING, architecture.embedding(), Kind::Matrix)];
    for index in 0..architecture.layers {
        let name = |name: &Name, kind: &str| format!("blk.{index}.{}.{kind}", name.gguf);
        for (part, names) in architecture.block(index).parts().zip(architecture.family.block.parts()) {
            match (part, names) {
                (Part::Norm(spec), Part::Norm(norm)) => tensors.push(Stored {
                    spec: spec.clone(),
                    name: name(norm, "weight"),
                    kind: Kind::Norm,
                    permuted_head: None,
                }),
                (Part::Linear(linear), Part::Linear(names)) => {
                    for (module, own) in linear.modules.iter().zip(names.iter()) {
                        let rotated = permuted && architecture.family.rotated().contains(own);
                        let permuted_head = rotated.then_some(architecture.head_dim);
                        let (spec, kind) = (linear.weight(module), linear.kind);
                        tensors.push(Stored { spec, name: name(own, "weight"), kind, permuted_head });
                        if let Some(spec) = linear.bias(module) {
                            tensors.push(Stored { spec, name: name(own, "bias"), kind: Kind::Bias, permuted_head });
                        }
                    }
                }
                _ => unreachable!("a block is made from its family's names"),
            }
        }
    }
    tensors.push(whole(&FINAL_NORM, architecture.final_norm(), Kind::Norm));
    tensors.extend(architecture.head().map(|head| whole(&HEAD, head, Kind::Matrix)));
    tensors
}

/// The divisors of the rotary frequencies as tensors, where the model has Llama 3's scaling or LongRoPE.
pub fn rope_divisors(architecture: &Architecture) -> Vec<(&'static str, Vec<f32>)> {
    match &architecture.rope.scaling {
        Some(RopeScaling::Llama3(scaling)) => {
            let plain = Rope { scaling: None, ..architecture.rope.clone() };
            let divisors = plain.frequencies().into_iter().map(|f| scaling.divisor(f) as f32).collect();
            vec![(ROPE_DIVISORS, divisors)]
        }
        Some(RopeScaling::Long(long)) => {
            LONG_DIVISORS.into_iter().zip([long.short.clone(), long.long.clone()]).collect()
        }
        _ => Vec::new(),
    }
}

/// Rows of bytes or numbers in Hugging Face's order as a GGUF file has them; the inverse of what reading does.
pub fn permute<T: Copy + Default>(values: &[T], rows: usize, head: usize) -> Vec<T> {
    let width = values.len() / rows.max(1);
    let mut permuted = vec![T::default(); values.len()];
    for (row, values) in values.chunks_exact(width.max(1)).enumerate() {
        permuted[unpermuted_row(row, head) * width..][..width].copy_from_slice(values);
    }
    permuted
}

/// Rows of any format in Hugging Face order; whole rows move, so quantised blocks stay as they are.
fn unpermute(bytes: &[u8], rows: usize, head: usize) -> Vec<u8> {
    let width = bytes.len() / rows.max(1);
    let row = |row| &bytes[unpermuted_row(row, head) * width..][..width];
    (0..rows).flat_map(row).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::family::{gemma3, glm4, llama, phi3, qwen2};
    use super::*;

    #[test]
    fn llamas_rows_are_paired_halves_again() {
        // A head of 6: GGUF has 0 3 1 4 2 5.
        let stored: Vec<u8> = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11].iter().flat_map(|&r| [r, r]).collect();
        let expected: Vec<u8> = (0..12).flat_map(|r| [r, r]).collect();
        assert_eq!(unpermute(&stored, 12, 6), expected);
        assert_eq!(permute(&expected, 12, 6), stored);
    }

    #[test]
    fn names_become_hugging_faces_own_and_unknown_ones_stay_unknown() {
        let name = |n, f: &'static Family| huggingface_name(n, f);
        assert_eq!(name("blk.12.attn_q.bias", &qwen2::FAMILY).unwrap(), "model.layers.12.self_attn.q_proj.bias");
        assert_eq!(name("blk.0.ffn_up.weight", &llama::FAMILY).unwrap(), "model.layers.0.mlp.up_proj.weight");
        assert_eq!(name("blk.0.ffn_up.weight", &glm4::FAMILY).unwrap(), "model.layers.0.mlp.gate_up_proj.weight");
        assert_eq!(name("blk.0.attn_qkv.weight", &phi3::FAMILY).unwrap(), "model.layers.0.self_attn.qkv_proj.weight");
        assert_eq!(
            name("blk.3.ffn_norm.weight", &gemma3::FAMILY).unwrap(),
            "model.layers.3.pre_feedforward_layernorm.weight"
        );
        assert_eq!(
            name("blk.3.post_ffw_norm.weight", &glm4::FAMILY).unwrap(),
            "model.layers.3.post_mlp_layernorm.weight"
        );
        for unknown in
            ["blk.0.post_ffw_norm.weight", "blk.01.attn_q.weight", "blk.x.attn_q.weight", "blk.0.attn_q.scale", "a"]
        {
            assert_eq!(name(unknown, &llama::FAMILY), None, "{unknown}");
        }
    }

    #[test]
    fn scores_of_the_gemma_of_62_blocks_go_by_the_hidden_size_as_llama_cpp_knows() {
        let config = |layers: usize| {
            let text = format!(
                r#"{{"model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": {layers},
                "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 168}}"#
            );
            Architecture::from_config_json(text.as_bytes(), "config.json").unwrap()
        };
        let of_62 = config(62);
        assert!(of_62.attention_scale.is_some());
        assert_eq!(implied_scale(&of_62), of_62.attention_scale);
        assert_eq!(implied_scale(&config(48)), None);
    }

    #[test]
    fn llama3_scaling_is_found_again_in_its_own_divisors() {
        let frequencies: Vec<f64> = (0..8).map(|i| 10_000.0_f64.powf(-f64::from(2 * i) / 16.0)).collect();
        for (factor, original_context) in [(8.0, 32.0), (8.0, 8192.0), (32.0, 8192.0)] {
            let scaling =
                Llama3Scaling { factor, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_context };
            let divisors: Vec<f32> = frequencies.iter().map(|&f| scaling.divisor(f) as f32).collect();
            let found = scaling_of_divisors(&divisors, &frequencies).unwrap();
            for &f in &frequencies {
                assert!((found.divisor(f) - scaling.divisor(f)).abs() <= 1e-4 * scaling.divisor(f));
            }
        }
        assert!(scaling_of_divisors(&[1.0, 3.0, 2.0, 1.0, 5.0, 1.0, 1.0, 2.0], &frequencies).is_none());
        assert!(scaling_of_divisors(&[1.0], &frequencies).is_none());
    }
}
