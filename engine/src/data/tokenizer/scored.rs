//! A SentencePiece vocabulary out of a GGUF file (`tokenizer.ggml.model` is `llama`): Gemma's, Phi-3's, Llama 2's.
//!
//! Its pieces have scores, and what of a text two neighbours make together is merged where that is a piece, the one of the
//! highest score first. The tokenizers crate merges by a list of pairs; that list is made here as transformers makes the one
//! of a `tokenizer.json` (`generate_merges`). Pieces of the user's, which SentencePiece looks for before it merges anything,
//! come first: their scores mean nothing.

use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::Merges;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, SplitDelimiterBehavior};

use super::gguf::{CONTROL, GgufVocabulary, NORMAL, UNKNOWN, USER_DEFINED, ids_of};
use super::{BpeOptions, Tokenizer, build_bpe, failed, refuse};
use crate::error::Result;

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "▁";
/// Bytes of the longest piece: every place is looked at where one could be cut. Published ones have at most 200.
const LONGEST: usize = 1 << 10;
/// Special tokens of Phi-3 that leave the white space after them to the text; the others take it along.
const LEAVE_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

pub(super) fn load(source: GgufVocabulary) -> Result<Tokenizer> {
    check(&source)?;
    // GGUF files have true spaces in the user's pieces.
    let spelt = |(token, kind): (&String, &i32)| match *kind {
        USER_DEFINED => token.replace(' ', SPACE),
        _ => token.clone(),
    };
    let pieces: Vec<String> = source.tokens.iter().zip(&source.token_types).map(spelt).collect();
    let vocab = ids_of(&pieces)?;
    let merges = merges(&pieces, &source, &vocab);
    let of_kind = || source.token_types.iter().position(|kind| *kind == UNKNOWN);
    let unknown = source.unknown.map(|id| id as usize).or_else(of_kind).and_then(|id| pieces.get(id).cloned());
    let options = BpeOptions { unknown, fuse_unk: true, byte_fallback: true, ignore_merges: false };
    let mut inner = tokenizers::Tokenizer::new(build_bpe(vocab, merges, &options)?);
    surround(&mut inner, source.add_space_prefix.unwrap_or(true))?;
    let added = pieces.iter().zip(&source.token_types).filter_map(|(piece, kind)| {
        let token = match *kind {
            CONTROL | UNKNOWN => AddedToken::from(piece.as_str(), true),
            USER_DEFINED => AddedToken::from(piece.as_str(), false).normalized(false),
            _ => return None,
        };
        Some(token.rstrip(source.special_takes_space && !LEAVE_SPACE.contains(&piece.as_str())))
    });
    inner.add_tokens(added).map_err(|error| failed("special tokens", error))?;
    Tokenizer::assemble(inner, source.special(true))
}

fn check(source: &GgufVocabulary) -> Result<()> {
    let count = source.tokens.len();
    for (name, found) in [("scores", source.scores.len()), ("token_type", source.token_types.len())] {
        if found != count {
            return Err(refuse(format!("tokenizer.ggml.{name} has {found} entries for {count} tokens")));
        }
    }
    if let Some(id) = source.scores.iter().position(|score| score.is_nan()) {
        return Err(refuse(format!("the score of token {id} is no number")));
    }
    match source.tokens.iter().position(|token| token.len() > LONGEST) {
        Some(id) => {
            let length = source.tokens[id].len();
            Err(refuse(format!("token {id} has {length} bytes, and {LONGEST} are allowed in a vocabulary with scores")))
        }
        None => Ok(()),
    }
}

/// How spaces are written before merging, and undone after it. With `prefixed` a text, and what follows a special token, has
/// one in front.
fn surround(inner: &mut tokenizers::Tokenizer, prefixed: bool) -> Result<()> {
    let replace = |from: &str, to: &str| {
        Replace::new(ReplacePattern::String(from.to_owned()), to.to_owned())
            .map_err(|error| failed("normaliser", error))
    };
    let mut decoders: Vec<DecoderWrapper> =
        vec![replace(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    let mut normalizer: NormalizerWrapper = replace(" ", SPACE)?.into();
    if prefixed {
        normalizer = Sequence::new(vec![Prepend::new(SPACE.into()).into(), normalizer]).into();
        decoders.push(Strip::new(' ', 1, 0).into());
    } else {
        // Cuts nothing, since no space is left; Gemma's tokenizer.json has it.
        let split = Split::new(SplitPattern::String(" ".into()), SplitDelimiterBehavior::MergedWithPrevious, false);
        inner.with_pre_tokenizer(Some(split.map_err(|error| failed("pre-tokenizer", error))?));
    }
    inner.with_normalizer(Some(normalizer)).map_err(|error| failed("normaliser", error))?;
    inner.with_decoder(Some(DecoderSequence::new(decoders)));
    Ok(())
}

/// A way to put a piece together.
struct Merge<'a> {
    score: f32,
    left: &'a str,
    right: &'a str,
    /// Letters of both.
    letters: [usize; 2],
}

/// Every way to put together a piece of two others, the highest score first, then the longest on the left.
fn merges(pieces: &[String], source: &GgufVocabulary, vocab: &HashMap<String, u32>) -> Merges {
    let is_merged = |id: usize| matches!(source.token_types[id], NORMAL | USER_DEFINED);
    let id_of = |piece: &str| vocab.get(piece).map(|&id| id as usize).filter(|&id| is_merged(id));
    let mut all = Vec::new();
    for (id, piece) in pieces.iter().enumerate().filter(|(id, _)| is_merged(*id)) {
        let score = if source.token_types[id] == USER_DEFINED { f32::INFINITY } else { source.scores[id] };
        let letters = piece.chars().count();
        let mut own: Vec<([usize; 2], Merge)> = Vec::new();
        for (before, (cut, _)) in piece.char_indices().enumerate().skip(1) {
            let (left, right) = piece.split_at(cut);
            if let (Some(first), Some(second)) = (id_of(left), id_of(right)) {
                own.push(([first, second], Merge { score, left, right, letters: [before, letters - before] }));
            }
        }
        own.sort_by_key(|(ids, _)| *ids);
        all.extend(own.into_iter().map(|(_, merge)| merge));
    }
    // Stable: what is equal stays in the order of the vocabulary.
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.letters.cmp(&a.letters)));
    all.into_iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::gguf::BYTE;
    use super::*;

    /// Letters, what they make with scores, all bytes, and runs of spaces of the user's.
    fn vocabulary() -> GgufVocabulary {
        let mut source = GgufVocabulary { model: "llama".into(), ..Default::default() };
        let mut add = |token: &str, score: f32, kind: i32| {
            source.tokens.push(token.into());
            source.scores.push(score);
            source.token_types.push(kind);
        };
        add("<unk>", 0.0, UNKNOWN);
        add("<s>", 0.0, CONTROL);
        add("<|user|>", 0.0, CONTROL);
        add("  ", -1000.0, USER_DEFINED);
        add("   ", -1000.0, USER_DEFINED);
        (0..256).for_each(|byte| add(&format!("<0x{byte:02X}>"), 0.0, BYTE));
        for (at, piece) in ["ab", "bc", "▁a", "▁ab"].iter().enumerate() {
            add(piece, -(at as f32), NORMAL);
        }
        for letter in ["▁", "a", "b", "c", "<", "0", "x", "4", "1", ">"] {
            add(letter, -100.0, NORMAL);
        }
        source.bos = Some(1);
        source
    }

    fn spelt(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "and back");
        ids.into_iter().map(|id| tokenizer.token_text(id).unwrap()).collect()
    }

    #[test]
    fn the_highest_score_is_merged_first_and_bytes_stand_for_what_is_no_piece() {
        let gemma = load(GgufVocabulary { add_space_prefix: Some(false), ..vocabulary() }).unwrap();
        // "ab" before "bc", and "▁ab" although "▁a" is better, since "ab" is there first.
        assert_eq!(spelt(&gemma, "abc ab"), ["ab", "c", "▁ab"]);
        assert_eq!(spelt(&gemma, "bc ac"), ["bc", "▁a", "c"]);
        assert_eq!(spelt(&gemma, "aé"), ["a", "<0xC3>", "<0xA9>"]);
        // A piece that is a byte's name is no byte.
        assert_eq!(spelt(&gemma, "<0x41>").len(), 6);
        assert_eq!(spelt(&gemma, "a   ab    c"), ["a", "▁▁▁", "ab", "▁▁▁", "▁", "c"]);
        assert!(gemma.add_bos() && gemma.is_special(2) && !gemma.is_special(3));
    }

    #[test]
    fn a_space_is_put_in_front_unless_the_file_says_otherwise_and_phi_3s_special_tokens_take_what_follows() {
        let llama = load(vocabulary()).unwrap();
        assert_eq!(spelt(&llama, "ab"), ["▁ab"]);
        let ids = |source| load(source).unwrap().encode("<|user|>\nab<s>\n").unwrap().len();
        let phi = ids(GgufVocabulary { special_takes_space: true, ..vocabulary() });
        // The line's end after <|user|> is gone: a space in front and a byte.
        assert_eq!(ids(vocabulary()) - phi, 2);
    }

    #[test]
    fn a_vocabulary_with_scores_is_written_as_one_that_cuts_text_alike() {
        for prefix in [false, true] {
            let own = load(GgufVocabulary { add_space_prefix: Some(prefix), ..vocabulary() }).unwrap();
            let written = own.to_gguf(&[], 300).unwrap();
            assert_eq!(
                (written.model.as_str(), written.add_space_prefix, written.unknown),
                ("llama", Some(prefix), Some(0))
            );
            assert_eq!((written.tokens[4].as_str(), written.tokens.len(), written.merges.len()), ("   ", 300, 0));
            let read = load(written).unwrap();
            for text in ["abc ab", "a   ab    c", "<0x41>é\n", "<|user|> bc"] {
                assert_eq!(read.encode(text).unwrap(), own.encode(text).unwrap(), "{text:?}");
            }
        }
        // Special tokens that take space along: no key says so.
        let phi = load(GgufVocabulary { special_takes_space: true, ..vocabulary() }).unwrap();
        assert!(phi.to_gguf(&[], 300).unwrap_err().to_string().contains("its added tokens"));
    }

    #[test]
    fn contradictory_lists_are_refused() {
        let wrong = |change: fn(&mut GgufVocabulary)| {
            let mut source = vocabulary();
            change(&mut source);
            load(source).unwrap_err().to_string()
        };
        assert!(wrong(|source| source.scores.truncate(3)).contains("scores has 3 entries"));
        assert!(wrong(|source| source.token_types.clear()).contains("token_type has 0 entries"));
        assert!(wrong(|source| source.scores[7] = f32::NAN).contains("score of token 7"));
        assert!(wrong(|source| source.tokens[9] = "a".repeat(1025)).contains("token 9 has 1025 bytes"));
        assert!(wrong(|source| source.tokens[9] = "ab".into()).contains("is also token"));
    }
}
