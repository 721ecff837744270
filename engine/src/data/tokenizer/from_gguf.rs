//! A tokenizer from the vocabulary inside a GGUF file, by its kind.

use super::gguf::{self, GgufVocabulary, PreTokenizer};
use super::{Tokenizer, refuse, scored};
use crate::error::Result;

impl Tokenizer {
    /// Builds a tokenizer from the vocabulary of a GGUF file. `families` are the pre-tokenizers that the families of models
    /// know by name.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for another kind of vocabulary, an unknown pre-tokenizer name and contradictory lists.
    pub fn from_gguf(vocabulary: GgufVocabulary, families: &[&'static PreTokenizer]) -> Result<Self> {
        match vocabulary.model.as_str() {
            "gpt2" => gguf::load(vocabulary, families),
            "llama" => scored::load(vocabulary),
            other => Err(refuse(format!(
                "tokenizer.ggml.model is {other:?}, and only \"gpt2\" (byte-level BPE) and \"llama\" (SentencePiece) are \
                 supported; use the model's Hugging Face folder with its tokenizer.json"
            ))),
        }
    }
}
