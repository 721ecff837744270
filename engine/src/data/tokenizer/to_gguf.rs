//! A tokenizer as GGUF stores it.
//!
//! GGUF holds tokens and merges, of SentencePiece's tokens and scores, and of everything else only a name, so not every
//! tokenizer can be said in it. What is written is read back here, and must be the same tokenizer part by part; else it is
//! refused, since a model whose text is cut otherwise than in its training is silently worse. Of a SentencePiece vocabulary
//! one thing is not compared: how a run of spaces is cut that is longer than the longest piece of spaces (31 of Gemma), where
//! the tokenizers crate and SentencePiece itself differ.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::gguf::{
    BYTE, CONTROL, GgufVocabulary, NORMAL, PreTokenizer, UNKNOWN, UNUSED, USER_DEFINED, known, pre_tokenizer,
};
use super::scored::SPACE;
use super::{Tokenizer, failed, refuse};
use crate::error::Result;

/// What to do instead.
const ELSEWHERE: &str = "quantize writes nothing else, but export writes a Hugging Face folder, with the tokenizer as it is, \
                         where OUT does not end in .gguf";

const MERGING: &str = "how it merges";

impl Tokenizer {
    /// The vocabulary that [`Tokenizer::from_gguf`] reads back as this tokenizer. `rows` are those of the embedding; those
    /// without a token get one that no text has. `families` are the pre-tokenizers that the families of models know by name.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] where GGUF cannot say what the tokenizer does.
    pub fn to_gguf(&self, families: &[&'static PreTokenizer], rows: usize) -> Result<GgufVocabulary> {
        let own = self.as_json()?;
        // Of bytes as letters the decoder is a single step.
        if own["model"]["byte_fallback"] == true && own["decoder"]["type"] == "Sequence" {
            return self.to_scored(&own, rows);
        }
        let candidates = known(families).filter(|known| cuts_like(known, &own));
        let mut vocabulary = self.vocabulary_of(&own, rows)?;
        let mut differs = "the way in which it cuts text is none that llama.cpp has a name for";
        for candidate in candidates {
            vocabulary.pre = candidate.names.first().map(|&name| name.to_owned());
            let read = Self::from_gguf(vocabulary.clone(), families)?.as_json()?;
            match difference(&own, &read, own["model"]["merges"] == read["model"]["merges"]) {
                None => return Ok(vocabulary),
                Some(part) => differs = part,
            }
        }
        Err(cannot_say(differs))
    }

    /// The same of a SentencePiece vocabulary, whose scores say in which order pieces are put together.
    fn to_scored(&self, own: &Value, rows: usize) -> Result<GgufVocabulary> {
        let ways = ways(own).ok_or_else(|| cannot_say(MERGING))?;
        let mut vocabulary = GgufVocabulary {
            model: "llama".into(),
            pre: Some("default".into()),
            merges: Vec::new(),
            // Only those begin with two steps, the first of which puts a space in front.
            add_space_prefix: Some(own["normalizer"]["type"] == "Sequence"),
            ..self.vocabulary_of(own, rows)?
        };
        let places: HashMap<&str, usize> =
            ways.iter().enumerate().map(|(at, (piece, _))| (piece.as_str(), at)).collect();
        // What is put together of nothing comes last.
        let score = |token: &String| -(places.get(token.as_str()).copied().unwrap_or(ways.len()) as f32);
        vocabulary.scores = vocabulary.tokens.iter().map(score).collect();
        for (id, token) in vocabulary.tokens.iter_mut().enumerate() {
            let kind = &mut vocabulary.token_types[id];
            if own["model"]["unk_token"].as_str() == Some(token.as_str()) {
                (*kind, vocabulary.unknown) = (UNKNOWN, Some(id as u32));
            } else if *kind == NORMAL && is_byte(token) {
                *kind = BYTE;
            } else if *kind == USER_DEFINED {
                *token = token.replace(SPACE, " ");
            }
        }
        let read = Self::from_gguf(vocabulary.clone(), &[])?.as_json()?;
        match difference(own, &read, self::ways(&read).is_some_and(|read| read == ways)) {
            None => Ok(vocabulary),
            Some(part) => Err(cannot_say(part)),
        }
    }

    fn as_json(&self) -> Result<Value> {
        let text = self.inner.to_string(false).map_err(|error| failed("cannot write the tokenizer", error))?;
        serde_json::from_str(&text).map_err(|error| failed("cannot write the tokenizer", error))
    }

    /// Everything but the pre-tokenizer's name.
    fn vocabulary_of(&self, own: &Value, rows: usize) -> Result<GgufVocabulary> {
        let mut tokens = vec![None; rows];
        for (token, id) in self.inner.get_vocab(true) {
            match tokens.get_mut(id as usize) {
                Some(place) => *place = Some(token),
                None => return Err(refuse(format!("token {id} is beyond the {rows} rows of the embedding"))),
            }
        }
        let mut token_types: Vec<i32> = tokens.iter().map(|t| if t.is_some() { NORMAL } else { UNUSED }).collect();
        for (id, added) in self.inner.get_added_vocabulary().get_added_tokens_decoder() {
            token_types[*id as usize] = if added.special { CONTROL } else { USER_DEFINED };
        }
        let merges = own["model"]["merges"].as_array().into_iter().flatten();
        let merge = |merge: &Value| match (merge[0].as_str(), merge[1].as_str()) {
            (Some(left), Some(right)) if !left.contains(' ') && !right.contains(' ') => Ok(format!("{left} {right}")),
            _ => Err(refuse(format!("merge {merge} is not two tokens without spaces; {ELSEWHERE}"))),
        };
        Ok(GgufVocabulary {
            model: "gpt2".into(),
            pre: None,
            // As llama.cpp's converter names rows without a token.
            tokens: tokens.into_iter().enumerate().map(|(id, t)| t.unwrap_or_else(|| format!("[PAD{id}]"))).collect(),
            merges: merges.map(merge).collect::<Result<_>>()?,
            token_types,
            bos: self.bos,
            eos: self.eos_id(),
            pad: self.pad,
            add_bos: Some(self.add_bos),
            chat_template: self.chat_template.clone(),
            ..GgufVocabulary::default()
        })
    }
}

fn cannot_say(problem: &str) -> crate::Error {
    refuse(format!("GGUF cannot say what this tokenizer does: {problem}; {ELSEWHERE}"))
}

/// True for the name of a byte, such as `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// A piece, and the pairs of which it can be put together.
type Ways<'a> = (String, BTreeSet<[&'a str; 2]>);

/// The pieces in the order in which a tokenizer puts them together; none where the ways to one of them are not in one place,
/// since all of them have its score. In which order these stand is not compared: two versions of transformers differ there.
/// Added tokens are left out: SentencePiece looks for them before it merges anything.
fn ways(own: &Value) -> Option<Vec<Ways<'_>>> {
    let added: HashSet<&str> =
        own["added_tokens"].as_array().into_iter().flatten().filter_map(|token| token["content"].as_str()).collect();
    let (mut ways, mut seen) = (Vec::<Ways>::new(), HashSet::new());
    for merge in own["model"]["merges"].as_array()? {
        let (left, right) = (merge[0].as_str()?, merge[1].as_str()?);
        let piece = format!("{left}{right}");
        if added.contains(piece.as_str()) {
            continue;
        }
        match ways.last_mut().filter(|(last, _)| *last == piece) {
            Some((_, pairs)) => {
                pairs.insert([left, right]);
            }
            None if !seen.insert(piece.clone()) => return None,
            None => ways.push((piece, BTreeSet::from([[left, right]]))),
        }
    }
    Some(ways)
}

/// True where a name stands for this cut, before anything large is compared.
fn cuts_like(known: &PreTokenizer, own: &Value) -> bool {
    let cut = pre_tokenizer(known.split).ok().and_then(|cut| serde_json::to_value(cut).ok());
    cut.as_ref() == Some(&own["pre_tokenizer"]) && own["model"]["ignore_merges"] == known.whole_words_first
}

/// The first part in which a tokenizer differs from what was read back, where there is one; the merges were compared.
fn difference(own: &Value, read: &Value, same_merges: bool) -> Option<&'static str> {
    let same = |part: &str| own[part] == read[part];
    // In a vocabulary with all bytes nothing is unknown.
    let all_bytes = ByteLevel::alphabet().iter().all(|byte| own["model"]["vocab"].get(byte.to_string()).is_some());
    let unknown = ["unk_token", "fuse_unk"].iter().all(|key| all_bytes || own["model"][key] == read["model"][key]);
    let merging = ["byte_fallback", "ignore_merges", "dropout"];
    // Without a normaliser it makes no difference whether a token is looked for before it or after.
    let added = |tokenizer: &Value| {
        let mut tokens = tokenizer["added_tokens"].clone();
        if tokenizer["normalizer"].is_null() {
            tokens.as_array_mut().into_iter().flatten().for_each(|token| token["normalized"] = false.into());
        }
        tokens
    };
    match () {
        () if !same("normalizer") => Some("its normaliser"),
        () if !same("pre_tokenizer") => Some("its pre-tokenizer"),
        () if !same("decoder") => Some("its decoder"),
        () if !unknown => Some("what it makes of what it does not know"),
        () if !same_merges || merging.iter().any(|key| own["model"][key] != read["model"][key]) => Some(MERGING),
        () if added(own) != added(read) => Some("its added tokens"),
        () => None,
    }
}
