//! The vocabulary inside a GGUF file (`tokenizer.ggml.*`), and the tokenizer of a byte-level BPE one.
//!
//! Of a byte-level BPE GGUF stores tokens and merges but names the pre-tokenizer only; the splits behind the names ([`PreTokenizer`]) are the
//! ones that llama.cpp and the models' own `tokenizer.json` use. Those of a family stand in its file; here are the two
//! that belong to none. SentencePiece vocabularies are in `scored.rs`.

use std::collections::HashMap;

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::{BpeOptions, Special, Tokenizer, build_bpe, failed, refuse};
use crate::error::Result;
use crate::weights::gguf::{Metadata, Texts, Value};

/// The `tokenizer.*` metadata of a GGUF file, as stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: `gpt2` means byte-level BPE, `llama` SentencePiece's.
    pub model: String,
    /// `tokenizer.ggml.pre`: name of the pre-tokenizer.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the spelling of each id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.merges`: "left right", best first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.scores` per id, of SentencePiece's.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type` per id (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte), or empty.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// White space after a special token belongs to it. No file says so: llama.cpp knows it by a Phi-3's name.
    pub special_takes_space: bool,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

impl GgufVocabulary {
    /// Reads a file's metadata; `file` is its name in messages.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] where there is no vocabulary, or an id or count does not fit it.
    pub fn read(metadata: &Metadata, file: &str) -> Result<Self> {
        let wrong = |problem: String| Err(refuse(format!("{file}: {problem}")));
        let Some(model) = metadata.text("tokenizer.ggml.model") else {
            return wrong("the file holds no tokenizer (no tokenizer.ggml.model)".into());
        };
        let Some(tokens) = metadata.texts("tokenizer.ggml.tokens") else {
            return wrong("tokenizer.ggml.tokens is missing or no list of texts".into());
        };
        let token_types = match metadata.get("tokenizer.ggml.token_type") {
            None => Vec::new(),
            Some(_) => {
                let types = metadata.integers("tokenizer.ggml.token_type").unwrap_or_default();
                if types.len() != tokens.len() {
                    return wrong(format!("{} token types for {} tokens", types.len(), tokens.len()));
                }
                types
            }
        };
        let id = |name| match token_id(metadata, name, file)? {
            Some(id) if id as usize >= tokens.len() => {
                let problem = format!("the {name} token is {id}, but there are {} tokens", tokens.len());
                Err(refuse(format!("{file}: {problem}")))
            }
            found => Ok(found),
        };
        let name = metadata.text("general.name").unwrap_or_default().to_lowercase();
        let owned = |texts: &Texts| texts.iter().map(str::to_owned).collect::<Vec<_>>();
        Ok(Self {
            model: model.to_owned(),
            pre: metadata.text("tokenizer.ggml.pre").map(str::to_owned),
            tokens: owned(tokens),
            merges: metadata.texts("tokenizer.ggml.merges").map(owned).unwrap_or_default(),
            scores: scores(metadata),
            token_types,
            unknown: token_id(metadata, "unknown", file)?.filter(|&id| (id as usize) < tokens.len()),
            add_space_prefix: metadata.flag("tokenizer.ggml.add_space_prefix"),
            special_takes_space: ["phi-3", "phi3"].iter().any(|phi| name.contains(phi)),
            bos: id("bos")?,
            eos: id("eos")?,
            pad: id("padding")?,
            add_bos: metadata.flag("tokenizer.ggml.add_bos_token"),
            chat_template: metadata.text("tokenizer.chat_template").map(str::to_owned),
        })
    }

    /// What it says of special tokens; `add_bos` where it does not say whether raw text begins with one.
    pub(super) fn special(self, add_bos: bool) -> Special {
        Special {
            bos: self.bos,
            eos: self.eos,
            pad: self.pad,
            add_bos: self.add_bos.unwrap_or(add_bos),
            chat_template: self.chat_template,
        }
    }
}

/// `tokenizer.ggml.scores`; empty where it is absent or no list of numbers.
fn scores(metadata: &Metadata) -> Vec<f32> {
    let Some(Value::Numbers(numbers)) = metadata.get("tokenizer.ggml.scores") else { return Vec::new() };
    let score = |value| match value {
        Value::F32(score) => Some(score),
        _ => None,
    };
    numbers.iter().map(score).collect::<Option<_>>().unwrap_or_default()
}

/// The token id under `tokenizer.ggml.<name>_token_id`.
///
/// # Errors
/// [`crate::Error::Tokenizer`] where it is no token id.
pub fn token_id(metadata: &Metadata, name: &str, file: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    if metadata.get(&key).is_none() {
        return Ok(None);
    }
    let found = metadata.unsigned(&key).and_then(|n| u32::try_from(n).ok());
    found.map(Some).ok_or_else(|| refuse(format!("{file}: {key} is no token id")))
}

/// What a pre-tokenizer's name stands for.
#[derive(Clone, Copy, Debug)]
pub struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`.
    pub names: &'static [&'static str],
    /// How a text is cut before its pieces are merged.
    pub split: Split,
    /// Text is brought into Unicode's form NFC first.
    pub nfc: bool,
    /// A piece that is a token as a whole is taken as it is, without merging.
    pub whole_words_first: bool,
    /// Raw text begins with the beginning-of-sequence token, where the file is silent about it.
    pub add_bos: bool,
}

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug)]
pub enum Split {
    /// GPT-2's split.
    Gpt2,
    /// Every numeric character alone, then GPT-2's split.
    DigitsThenGpt2,
    /// Regular expressions, each applied to the pieces of the one before.
    Patterns(&'static [&'static str]),
}

impl PreTokenizer {
    /// Known by these names, with GPT-2's split and nothing special.
    pub const fn named(names: &'static [&'static str]) -> Self {
        Self { names, split: Split::Gpt2, nfc: false, whole_words_first: false, add_bos: false }
    }
}

pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// GPT-2's split. Spelt out only where the byte-level stage cannot do it itself.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// llama.cpp's `default`: four splits, each applied to the pieces of the one before.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

/// What belongs to no family.
static GENERAL: [PreTokenizer; 2] = [
    PreTokenizer::named(&["gpt-2"]),
    PreTokenizer { split: Split::Patterns(&DEFAULT), ..PreTokenizer::named(&["default"]) },
];

/// The families' pre-tokenizers and the general ones.
pub(super) fn known<'a>(families: &'a [&'static PreTokenizer]) -> impl Iterator<Item = &'static PreTokenizer> + 'a {
    families.iter().copied().chain(&GENERAL)
}

/// The tokenizer of a byte-level BPE vocabulary.
pub(super) fn load(source: GgufVocabulary, families: &[&'static PreTokenizer]) -> Result<Tokenizer> {
    let name = source.pre.as_deref().unwrap_or("default");
    let Some(known) = known(families).find(|known| known.names.contains(&name)) else {
        let names: Vec<&str> = known(families).flat_map(|known| known.names).copied().collect();
        return Err(refuse(format!("tokenizer.ggml.pre is {name:?}, and these are supported: {}", names.join(", "))));
    };
    let (count, types) = (source.tokens.len(), source.token_types.len());
    if types != 0 && types != count {
        return Err(refuse(format!("tokenizer.ggml.token_type has {types} entries for {count} tokens")));
    }

    let vocab = ids_of(&source.tokens)?;
    let mut merges = Vec::with_capacity(source.merges.len());
    for (index, merge) in source.merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(refuse(format!("merge {index} ({merge:?}) is not two tokens with a space between")));
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    let options = BpeOptions { ignore_merges: known.whole_words_first, ..BpeOptions::default() };
    let mut inner = tokenizers::Tokenizer::new(build_bpe(vocab, merges, &options)?);
    if known.nfc {
        inner.with_normalizer(Some(NFC)).map_err(|error| failed("normaliser", error))?;
    }
    inner.with_pre_tokenizer(Some(pre_tokenizer(known.split)?));
    inner.with_decoder(Some(ByteLevel::new(false, false, false)));
    // Control and user-defined tokens are recognised whole in a text; only control tokens count as special.
    let added = source.tokens.iter().zip(&source.token_types).filter_map(|(token, kind)| match *kind {
        CONTROL => Some(AddedToken::from(token.as_str(), true)),
        USER_DEFINED => Some(AddedToken::from(token.as_str(), false).normalized(false)),
        _ => None,
    });
    inner.add_tokens(added).map_err(|error| failed("special tokens", error))?;

    Tokenizer::assemble(inner, source.special(known.add_bos))
}

/// The id of each token.
pub(super) fn ids_of(tokens: &[String]) -> Result<HashMap<String, u32>> {
    let mut vocab = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if let Some(earlier) = vocab.insert(token.clone(), id as u32) {
            return Err(refuse(format!("token {id} ({token:?}) is also token {earlier}")));
        }
    }
    Ok(vocab)
}

pub(super) fn pre_tokenizer(split: Split) -> Result<PreTokenizerWrapper> {
    let bytes = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, false, use_regex));
    let splits = match split {
        Split::Gpt2 => return Ok(bytes(true)),
        Split::DigitsThenGpt2 => return Ok(Sequence::new(vec![Digits::new(true).into(), bytes(true)]).into()),
        Split::Patterns(patterns) => patterns,
    };
    let mut stages = Vec::with_capacity(splits.len() + 1);
    for split in splits {
        let pattern = SplitPattern::Regex((*split).to_owned());
        let split = tokenizers::pre_tokenizers::split::Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        stages.push(split.map_err(|error| failed("pre-tokenizer", error))?.into());
    }
    stages.push(bytes(false));
    Ok(Sequence::new(stages).into())
}
