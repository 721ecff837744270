//! Text to token ids and back: a wrapper over the `tokenizers` crate that knows the model's special tokens.
//!
//! Two sources: `tokenizer.json` with `tokenizer_config.json` ([`Tokenizer::from_json`], file `tokenizer/json.rs`) and the
//! vocabulary inside a GGUF file ([`Tokenizer::from_gguf`], file `tokenizer/from_gguf.rs`). Both are untrusted. The crate's own
//! reader can panic on malformed parts, so the parts are read and checked here and only then handed over.

mod from_gguf;
pub mod gguf;
mod growth;
mod json;
mod pieces;
mod scored;
mod to_gguf;

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges};

use self::pieces::{Cut, checked_pieces};
use crate::error::{Error, Result};

/// No token id may reach this: ids size embedding tables, and 16 million is a hundred times any real vocabulary.
const MAX_ID: u32 = 1 << 24;

/// Tokens that end an assistant's turn in the families of models that the engine knows; those that a vocabulary holds as
/// special tokens stop generation beside its own end-of-sequence token.
const END_OF_TURN: [&str; 10] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<|user|>",
    "<|observation|>",
];

/// A tokenizer with the special tokens of its model.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Vec<u32>,
    pad: Option<u32>,
    add_bos: bool,
    chat_template: Option<String>,
    /// Where a long text may be cut.
    cut: Option<Cut>,
}

/// Ids with the byte range of the text that each came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids.
    pub ids: Vec<u32>,
    /// `[start, end)` in bytes of the text given, per token.
    pub offsets: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// Ids of `text`. No token is added around it, but special tokens written out in it are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for piece in checked_pieces(text, self.cut)? {
            let encoding = apart("cannot encode a text", || self.inner.encode_fast(piece, false))?;
            ids.extend_from_slice(encoding.get_ids());
        }
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], with the beginning-of-sequence token first where the model expects one and the text does not
    /// begin with it already.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_begun(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        Ok(self.missing_bos(&ids).into_iter().chain(ids).collect())
    }

    /// The beginning-of-sequence token, where the model expects one and these ids of a raw text do not begin with it.
    pub(super) fn missing_bos(&self, ids: &[u32]) -> Option<u32> {
        self.bos_id().filter(|bos| self.add_bos() && ids.first() != Some(bos))
    }

    /// As [`Tokenizer::encode`], with the place of each token in `text`.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Tokens> {
        let mut tokens = Tokens { ids: Vec::new(), offsets: Vec::new() };
        let mut at = 0;
        for piece in checked_pieces(text, self.cut)? {
            let encoding = apart("cannot encode a text", || self.inner.encode(piece, false))?;
            tokens.ids.extend_from_slice(encoding.get_ids());
            tokens.offsets.extend(encoding.get_offsets().iter().map(|(start, end)| (at + start, at + end)));
            at += piece.len();
        }
        Ok(tokens)
    }

    /// True where long texts are encoded in pieces, for tests.
    #[doc(hidden)]
    pub fn cuts(&self) -> bool {
        self.cut.is_some()
    }

    /// The same tokenizer, but one that encodes every text whole, for tests of the pieces.
    #[doc(hidden)]
    #[must_use]
    pub fn uncut(self) -> Self {
        Self { cut: None, ..self }
    }

    /// Text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids outside the vocabulary are left out, and special tokens
    /// too if `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        apart("cannot decode", || self.inner.decode(ids, skip_special))
    }

    /// One more than the highest id: the least number of rows an embedding table needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// A token as the vocabulary spells it (byte-level symbols, not text), if the id exists.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Id of a token as the vocabulary spells it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether `id` is a special token: marked so, or beginning or end of sequence.
    pub fn is_special(&self, id: u32) -> bool {
        Some(id) == self.bos
            || self.eos.contains(&id)
            || self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Beginning-of-sequence token.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sequence token that ends a document.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos.first().copied()
    }

    /// Every token that stops generation: [`Tokenizer::eos_id`] first, then what the configuration and the vocabulary
    /// know beside it.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Whether the model expects [`Tokenizer::bos_id`] before raw text. (A chat template writes it itself.)
    pub fn add_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// The same with another chat template.
    #[must_use]
    pub fn with_chat_template(self, template: String) -> Self {
        Self { chat_template: Some(template), ..self }
    }

    /// The chat template that came with the tokenizer.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// `tokenizer.json` and `tokenizer_config.json` that read back as this tokenizer, for a model whose own file (GGUF)
    /// other programs could not take the tokenizer from.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the crate cannot write one of its parts.
    pub fn to_files(&self) -> Result<[(String, Vec<u8>); 2]> {
        let tokenizer = self.inner.to_string(false).map_err(|error| failed("cannot write tokenizer.json", error))?;
        let text = |id: Option<u32>| id.and_then(|id| self.token_text(id));
        let mut config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": text(self.bos),
            "eos_token": text(self.eos_id()),
            "pad_token": text(self.pad),
            "add_bos_token": self.add_bos,
            "clean_up_tokenization_spaces": false,
        });
        if let Some(template) = &self.chat_template {
            config["chat_template"] = template.as_str().into();
        }
        let config = format!("{config:#}\n");
        Ok([("tokenizer.json".into(), tokenizer.into_bytes()), ("tokenizer_config.json".into(), config.into_bytes())])
    }

    /// Adds stop tokens that a model's own configuration names (`eos_token_id` of `config.json` or
    /// `generation_config.json`). The first becomes [`Tokenizer::eos_id`] only where the tokenizer named none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id outside the vocabulary.
    pub fn add_eos_ids(&mut self, ids: &[u32]) -> Result<()> {
        for id in ids {
            if self.token_text(*id).is_none() {
                return Err(refuse(format!(
                    "eos_token_id {id} is not in the vocabulary of {} tokens",
                    self.vocab_size
                )));
            }
            if !self.eos.contains(id) {
                self.eos.push(*id);
            }
        }
        Ok(())
    }

    /// Puts the checked parts together.
    fn assemble(inner: tokenizers::Tokenizer, special: Special) -> Result<Self> {
        let highest = inner.get_vocab(true).into_values().max();
        let vocab_size = highest.map_or(0, |id| id as usize + 1);
        for (name, id) in [("bos", special.bos), ("eos", special.eos), ("pad", special.pad)] {
            if let Some(id) = id.filter(|id| inner.id_to_token(*id).is_none()) {
                return Err(refuse(format!("the {name} token {id} is not in the vocabulary of {vocab_size} tokens")));
            }
        }
        let mut tokenizer = Self {
            cut: Cut::of(&inner),
            inner,
            vocab_size,
            bos: special.bos,
            eos: special.eos.into_iter().collect(),
            pad: special.pad,
            add_bos: special.add_bos,
            chat_template: special.chat_template,
        };
        for token in END_OF_TURN {
            if let Some(id) = tokenizer.token_id(token)
                && tokenizer.is_special(id)
                && !tokenizer.eos.is_empty()
                && !tokenizer.eos.contains(&id)
            {
                tokenizer.eos.push(id);
            }
        }
        Ok(tokenizer)
    }
}

/// What surrounds a vocabulary.
#[derive(Default)]
struct Special {
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    add_bos: bool,
    chat_template: Option<String>,
}

/// Builds the BPE model after checking what the crate takes for granted: its builder indexes out of bounds when the
/// result of a merge is missing and longer than every token.
fn build_bpe(vocab: HashMap<String, u32>, merges: Merges, options: &BpeOptions) -> Result<BPE> {
    if vocab.is_empty() {
        return Err(refuse("the vocabulary is empty".into()));
    }
    if let Some((token, id)) = vocab.iter().find(|(_, id)| **id >= MAX_ID) {
        return Err(refuse(format!("token {token:?} has id {id}, and ids below {MAX_ID} are allowed")));
    }
    let mut joined = String::new();
    for (index, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if let Some(missing) = [left, right, &joined].into_iter().find(|token| !vocab.contains_key(*token)) {
            return Err(refuse(format!(
                "merge {index} ({left:?} {right:?}) needs {missing:?}, which is not in the vocabulary"
            )));
        }
    }
    let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(options.fuse_unk)
        .byte_fallback(options.byte_fallback)
        .ignore_merges(options.ignore_merges);
    if let Some(unknown) = &options.unknown {
        builder = builder.unk_token(unknown.clone());
    }
    builder.build().map_err(|error| failed("the merges do not fit the vocabulary", error))
}

/// Switches of the BPE model.
#[derive(Default)]
struct BpeOptions {
    unknown: Option<String>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
}

/// Calls the crate where a panic is an error. What it shares between calls is a cache of whole pieces, which a panic leaves
/// as it was. In a page a panic ends the module, so what is known to panic is refused before (`tokenizer/growth.rs`).
fn apart<T>(what: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| failed(what, error)),
        Err(_) => {
            Err(refuse(format!("{what}: the tokenizers library failed on it; use the tokenizer.json of another model")))
        }
    }
}

fn refuse(problem: String) -> Error {
    Error::Tokenizer { problem }
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    refuse(format!("{what}: {error}"))
}
