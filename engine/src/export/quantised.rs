//! A model as a GGUF file whose matrices are stored in another format, with one tensor in memory at a time.
//!
//! Out of a GGUF file everything else is carried over as it is there: names, metadata, tokenizer, vectors; but for a chat
//! template that lies beside it and is read in place of its own. Out of a Hugging
//! Face folder it is written as llama.cpp's converter writes it: names and order of rows by the family
//! ([`crate::model::gguf`]), the tokenizer where GGUF can say what it does ([`crate::data::tokenizer::to_gguf`]).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use super::calibrated::Rounded;
use super::gguf::{Announced, Field, write};
use super::merged::Adapter;
use super::recipe::{Matrix, Recipe};
use crate::data::tokenizer::gguf::GgufVocabulary;
use crate::error::{Error, Result, wrong};
use crate::host::Folder;
use crate::model::architecture::Architecture;
use crate::model::family;
use crate::model::files::{ModelFiles, template_beside};
use crate::model::gguf::{
    LOCAL_BASES, PATTERN, WINDOW, implied_scale, permute, rope_divisors, stored_tensors, written_as,
};
use crate::model::layout::HEAD;
use crate::model::open;
use crate::model::rope::{RopeScaling, Yarn};
use crate::weights::gguf::Gguf;
use crate::weights::{RawTensor, WeightFormat, WeightSource};

/// What GGUF calls a chat template.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// What matrices can be stored as, with the number that GGUF's `general.file_type` has for a file of them.
const TARGETS: [(Recipe, u32); 11] = [
    (Recipe::Uniform(WeightFormat::Q8_0), 7),
    (Recipe::Uniform(WeightFormat::Q4_0), 2),
    (Recipe::Q4KM, 15),
    (Recipe::Uniform(WeightFormat::Q4K), 14),
    (Recipe::Uniform(WeightFormat::Q6K), 18),
    (Recipe::Uniform(WeightFormat::Q4_1), 3),
    (Recipe::Uniform(WeightFormat::Q5_0), 8),
    (Recipe::Uniform(WeightFormat::Q5_1), 9),
    (Recipe::Uniform(WeightFormat::F16), 1),
    (Recipe::Uniform(WeightFormat::Bf16), 32),
    (Recipe::Uniform(WeightFormat::F32), 0),
];

/// Names of the recipes that matrices can be stored by, in small letters.
pub fn targets() -> impl Iterator<Item = String> {
    TARGETS.iter().map(|(recipe, _)| recipe.name().to_lowercase())
}

/// The recipe of such a name.
pub fn target(name: &str) -> Option<Recipe> {
    TARGETS.iter().map(|(recipe, _)| *recipe).find(|recipe| recipe.name().eq_ignore_ascii_case(name))
}

/// A GGUF file that can be written: what it says and where its tensors come from.
pub struct Quantised {
    fields: Vec<(String, Field)>,
    tensors: Vec<Announced>,
    /// A tensor each.
    origins: Vec<Origin>,
    weights: Arc<dyn WeightSource>,
    /// Tensors that were rounded already, under their names in `weights`.
    rounded: Rounded,
}

/// Where a tensor's bytes come from.
enum Origin {
    /// The source's tensor of this name; its rows are permuted within heads of so many.
    Source(String, Option<usize>),
    /// These values.
    Given(Vec<f32>),
}

impl Origin {
    fn source(&self) -> Option<&str> {
        match self {
            Self::Source(name, _) => Some(name),
            Self::Given(_) => None,
        }
    }
}

impl Quantised {
    /// Of a GGUF file of a folder, in one part or several, its matrices stored by `recipe`, with an adapter in them.
    ///
    /// # Errors
    /// As [`open::open_gguf_in`] and [`Adapter::merged_into_gguf`]; [`Error::Io`] where the host cannot read.
    pub fn of_gguf(folder: &dyn Folder, name: &str, recipe: Recipe, adapter: Option<&Adapter>) -> Result<Self> {
        // A file that cannot be used is refused before anything is written.
        let arch = open::open_gguf_in(folder, name)?.0.architecture;
        let (layers, source) = (arch.layers, Gguf::open_in(folder, name)?);
        let mut fields = Vec::new();
        for stored in source.stored_values() {
            let (key, value) = stored?;
            // How matrices were stored before, and how the file is laid out, are about the other file.
            let other = ["general.file_type", "general.quantization_version", "general.alignment"].contains(&key);
            if !other && !key.starts_with("quantize.") && !key.starts_with("split.") {
                fields.push((key.to_owned(), Field::Stored(value)));
            }
        }
        if let Some(template) = template_beside(folder)? {
            fields.retain(|(key, _)| key != CHAT_TEMPLATE);
            fields.push((CHAT_TEMPLATE.into(), Field::Text(template)));
        }
        fields.extend(about(recipe));
        let tied = source.shape(HEAD.gguf).is_none();
        let announce = |name: &String| {
            let shape = source.shape(name)?.to_vec();
            let format = match shape.as_slice() {
                [_] => source.format(name)?,
                [.., row] => recipe.format(Matrix { name, row: *row, layers, tied }),
                [] => return None,
            };
            Some(Announced { name: name.clone(), shape, format })
        };
        let tensors: Vec<_> = source.names().iter().filter_map(announce).collect();
        let origins = tensors.iter().map(|tensor| Origin::Source(tensor.name.clone(), None)).collect();
        let mut weights: Arc<dyn WeightSource> = Arc::new(source);
        if let Some(adapter) = adapter {
            weights = adapter.merged_into_gguf(weights, &arch)?;
        }
        Ok(Self { fields, tensors, origins, weights, rounded: Rounded::new() })
    }

    /// Of other files; `name` becomes the model's. Vectors are stored in f32.
    ///
    /// # Errors
    /// [`Error::Missing`] for files without weights, [`Error::Tokenizer`] for files without a tokenizer, and for one that
    /// GGUF has no name for.
    pub fn of_files(files: &ModelFiles, name: &str, recipe: Recipe) -> Result<Self> {
        let arch = &files.architecture;
        let weights = files.weights.clone();
        let weights = weights.ok_or_else(|| Error::Missing { path: name.into(), problem: "has no weights".into() })?;
        let mut fields = description(arch, name)?;
        fields.extend(vocabulary(files.tokenizer()?.to_gguf(&family::pre_tokenizers(), arch.vocab)?));
        fields.extend(about(recipe));
        let (mut tensors, mut origins) = (Vec::new(), Vec::new());
        for stored in stored_tensors(arch) {
            let row = stored.spec.shape.last().copied().unwrap_or(1);
            let matrix = Matrix { name: &stored.name, row, layers: arch.layers, tied: arch.tied_head };
            let format = if stored.spec.shape.len() == 1 { WeightFormat::F32 } else { recipe.format(matrix) };
            tensors.push(Announced { name: stored.name, shape: stored.spec.shape, format });
            origins.push(Origin::Source(stored.spec.name, stored.permuted_head));
        }
        for (name, divisors) in rope_divisors(arch) {
            tensors.push(Announced { name: name.into(), shape: vec![divisors.len()], format: WeightFormat::F32 });
            origins.push(Origin::Given(divisors));
        }
        Ok(Self { fields, tensors, origins, weights, rounded: Rounded::new() })
    }

    /// Under this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.fields.retain(|(key, _)| key != NAME);
        self.fields.push((NAME.into(), Field::Text(name.into())));
        self
    }

    /// With these matrices of its blocks in place of those that it would round itself.
    #[must_use]
    pub fn with_rounded(mut self, arch: &Architecture, mut rounded: Rounded) -> Self {
        let sources: BTreeSet<&str> = self.origins.iter().filter_map(Origin::source).collect();
        for stored in stored_tensors(arch) {
            let Some(mut raw) = rounded.remove(&stored.spec.name) else { continue };
            // Out of a GGUF file tensors are written as they lie there, out of a folder as Hugging Face has them.
            if !sources.contains(stored.spec.name.as_str()) {
                if let Some(head) = stored.permuted_head {
                    raw.bytes = permute(&raw.bytes, raw.shape[0], head);
                }
                raw.name = stored.name;
            }
            rounded.insert(raw.name.clone(), raw);
        }
        self.rounded = rounded;
        self
    }

    /// Formats of the matrices, each with how many there are, in the order in which they first occur.
    pub fn matrices(&self) -> Vec<(WeightFormat, usize)> {
        let mut counts: Vec<(WeightFormat, usize)> = Vec::new();
        for tensor in self.tensors.iter().filter(|tensor| tensor.shape.len() > 1) {
            match counts.iter_mut().find(|(format, _)| *format == tensor.format) {
                Some((_, count)) => *count += 1,
                None => counts.push((tensor.format, 1)),
            }
        }
        counts
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.length().unwrap_or(0)).sum()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The writer's; an [`Error`] inside for what cannot be read or stored (see [`crate::error::into_error`]).
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write(out, &self.fields, &self.tensors, &mut |index, out| {
            let format = self.tensors[index].format;
            match &self.origins[index] {
                Origin::Given(values) => values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes())),
                Origin::Source(name, permuted_head) => {
                    let raw = self.stored(name, format).map_err(wrong)?;
                    match permuted_head {
                        Some(head) => out.write_all(&permute(&raw.bytes, raw.shape[0], *head)),
                        None => out.write_all(&raw.bytes),
                    }
                }
            }
        })
    }

    fn stored(&self, name: &str, format: WeightFormat) -> Result<RawTensor> {
        if let Some(raw) = self.rounded.get(name).filter(|raw| raw.format == format) {
            return Ok(raw.clone());
        }
        let raw = self.weights.read(name)?;
        if raw.format == format {
            return Ok(raw);
        }
        raw.stored_as(format).map_err(|error| match error {
            Error::Tensor { tensor, problem, .. } => {
                Error::Tensor { file: self.weights.file_of(name), tensor, problem }
            }
            other => other,
        })
    }
}

/// What the model is called.
const NAME: &str = "general.name";

/// What is said of how matrices are stored.
fn about(recipe: Recipe) -> [(String, Field); 2] {
    let number = TARGETS.iter().find(|(known, _)| *known == recipe).map_or(0, |(_, number)| *number);
    [
        ("general.file_type".into(), Field::Count(number)),
        // Of the quantised types themselves, in ggml since 2023.
        ("general.quantization_version".into(), Field::Count(2)),
    ]
}

/// What a file says of the model in it.
///
/// # Errors
/// [`Error::Unsupported`] for a rotary scaling, or a factor of attention's scores, that GGUF has no word for.
pub fn description(arch: &Architecture, name: &str) -> Result<Vec<(String, Field)>> {
    let prefix = written_as(arch).gguf_architecture.unwrap_or_default();
    let count = |n: usize| Field::Count(n as u32);
    let own = [
        ("context_length", count(arch.reach())),
        ("embedding_length", count(arch.hidden)),
        ("block_count", count(arch.layers)),
        ("feed_forward_length", count(arch.intermediate)),
        ("attention.head_count", count(arch.heads)),
        ("attention.head_count_kv", count(arch.kv_heads)),
        ("attention.key_length", count(arch.head_dim)),
        ("attention.value_length", count(arch.head_dim)),
        ("attention.layer_norm_rms_epsilon", Field::Number(arch.norm_epsilon as f32)),
        ("rope.freq_base", Field::Number(arch.rope.theta as f32)),
        ("rope.dimension_count", count(arch.rope.rotary_dim)),
    ];
    let mut fields =
        vec![("general.architecture".to_string(), Field::Text(prefix.into())), (NAME.into(), Field::Text(name.into()))];
    fields.extend(own.map(|(key, field)| (format!("{prefix}.{key}"), field)));
    fields.extend(window(arch)?.into_iter().map(|(key, field)| (format!("{prefix}.{key}"), field)));
    let scaling = scaling(arch)?.into_iter();
    fields.extend(scaling.map(|(key, field)| (format!("{prefix}.rope.scaling.{key}"), field)));
    Ok(fields)
}

/// What is said of windows and of what goes with them.
fn window(arch: &Architecture) -> Result<Vec<(&'static str, Field)>> {
    if arch.attention_scale != implied_scale(arch) {
        let problem = format!(
            "scores of attention that are multiplied by {:?} in {} layers cannot be said in GGUF",
            arch.attention_scale, arch.layers
        );
        return Err(Error::Unsupported { problem });
    }
    let mut fields = Vec::new();
    if let Some(window) = &arch.window {
        fields.push((WINDOW, Field::Count(window.tokens as u32)));
        // Read back it may be of another family, whose usual pattern is the same.
        if window.pattern != arch.family.windows.usual_pattern(arch.layers) {
            let period = window.period().map(|period| Field::Count(period as u32));
            fields.push((PATTERN, period.unwrap_or_else(|| Field::Flags(window.pattern.clone()))));
        }
    }
    fields.extend(arch.local_rope.iter().map(|rope| (LOCAL_BASES[0], Field::Number(rope.theta as f32))));
    Ok(fields)
}

/// A rotary scaling as metadata; Llama 3's is a tensor instead, and of LongRoPE what divides frequencies ([`rope_divisors`]).
/// What is as usual is left out.
fn scaling(arch: &Architecture) -> Result<Vec<(&'static str, Field)>> {
    let number = |x: f64| Field::Number(x as f32);
    match &arch.rope.scaling {
        None | Some(RopeScaling::Llama3(_)) => Ok(Vec::new()),
        Some(RopeScaling::Linear { factor }) => {
            Ok(vec![("type", Field::Text("linear".into())), ("factor", number(*factor))])
        }
        // As llama.cpp's converter writes it: the type goes without saying.
        Some(RopeScaling::Long(long)) => Ok(vec![
            ("original_context_length", Field::Count(long.original_context as u32)),
            ("attn_factor", number(long.attention)),
        ]),
        Some(RopeScaling::Yarn(yarn)) if !yarn.truncate => {
            let problem =
                "YaRN whose ramp does not end at whole pairs (truncate = false) cannot be said in GGUF".into();
            Err(Error::Unsupported { problem })
        }
        Some(RopeScaling::Yarn(yarn)) => {
            let mut fields = vec![
                ("type", Field::Text("yarn".into())),
                ("factor", number(yarn.factor)),
                ("original_context_length", Field::Count(yarn.original_context as u32)),
            ];
            // llama.cpp multiplies the usual factor by this one.
            let attention = yarn.attention / Yarn::attention_of(yarn.factor, 1.0);
            let rest = [
                ("attn_factor", attention, 1.0),
                ("yarn_beta_fast", yarn.beta_fast, Yarn::BETA_FAST),
                ("yarn_beta_slow", yarn.beta_slow, Yarn::BETA_SLOW),
            ];
            fields.extend(rest.iter().filter(|(_, x, usual)| x != usual).map(|(key, x, _)| (*key, number(*x))));
            Ok(fields)
        }
    }
}

/// A tokenizer as metadata.
fn vocabulary(vocabulary: GgufVocabulary) -> Vec<(String, Field)> {
    let id = |id: Option<u32>| id.map(Field::Count);
    // SentencePiece's.
    let is_scored = !vocabulary.scores.is_empty();
    let fields = [
        ("ggml.model", Some(Field::Text(vocabulary.model))),
        ("ggml.pre", vocabulary.pre.map(Field::Text)),
        ("ggml.tokens", Some(Field::Texts(vocabulary.tokens))),
        ("ggml.token_type", Some(Field::Integers(vocabulary.token_types))),
        ("ggml.merges", (!is_scored).then_some(Field::Texts(vocabulary.merges))),
        ("ggml.scores", is_scored.then_some(Field::Numbers(vocabulary.scores))),
        ("ggml.bos_token_id", id(vocabulary.bos)),
        ("ggml.eos_token_id", id(vocabulary.eos)),
        ("ggml.padding_token_id", id(vocabulary.pad)),
        ("ggml.unknown_token_id", id(vocabulary.unknown)),
        ("ggml.add_bos_token", vocabulary.add_bos.map(Field::Flag)),
        ("ggml.add_space_prefix", vocabulary.add_space_prefix.map(Field::Flag)),
        ("chat_template", vocabulary.chat_template.map(Field::Text)),
    ];
    fields.into_iter().filter_map(|(key, field)| Some((format!("tokenizer.{key}"), field?))).collect()
}
