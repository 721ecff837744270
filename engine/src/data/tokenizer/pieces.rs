//! Where a text may be cut so that its pieces, each encoded alone, give the ids of the whole.
//!
//! Encoding takes more than a hundred bytes of memory a byte of text, so a book or a data set of plain text is not encoded
//! at once. A tokenizer first cuts a text itself, by fixed rules, and never merges across its cuts. Where one of them is
//! certain from two letters alone, whatever stands before and after, we may cut as well. That is so where
//!
//! - one of the patterns below, whose matches are the tokenizer's pieces, matches nothing across it, whatever surrounds it:
//!   all of them only look ahead (`\s+(?!\S)`), past white space, and a piece of ours never ends in what that would see
//!   differently;
//! - no added token can reach across it: none has white space in it or takes the white space around it along;
//! - NFC, if the tokenizer brings text into that form, changes nothing across it: ASCII never composes with what stands
//!   before it, nor a line's end with what follows.
//!
//! For any other tokenizer there is no such place, and a text is encoded whole, as is one in which no such place comes. How
//! long it may be is therefore limited.

use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::refuse;
use crate::error::Result;

/// Bytes of a piece, at least, where the text goes on. Encoded, it takes less than 10 MB.
const PIECE_BYTES: usize = 1 << 16;
/// Bytes of memory that encoding takes for each byte of a piece, as measured.
const BYTES_A_BYTE: u64 = 136;
/// Most bytes of memory that encoding a piece may take: a text of 126 MB, as long as a hundred novels.
const MOST_BYTES: u64 = 16 << 30;

/// GPT-2's pattern, as models and as llama.cpp spell it: white space is never in one match with what stands before it.
const WORDS: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
];

/// The patterns of Llama 3 and GLM-4, of Qwen2 and Qwen3, and of GPT-4o and Phi-4-mini: a space is never in one match with what
/// stands before it; the end of a line may be, but is never with what follows, unless that is white space too or, in the last, a
/// slash.
const LINES: [&str; 3] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Patterns that may stand before those: they match no white space and look at nothing around a match, so they neither
/// cut at such a place nor depend on it.
const BEFORE: [&str; 1] = [r"[\p{P}\$\+<=>\^~\|]+"];

/// A rule by which a tokenizer certainly cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Between anything and white space.
    BeforeSpace,
    /// Between anything and a space; between the end of a line and anything but white space and slashes.
    BetweenLines,
}

impl Cut {
    /// The rule of a tokenizer, where one is known.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let normalises_safely = matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::NFC(_)));
        let stays_inside = tokenizer.get_added_tokens_decoder().values().all(|token| {
            !token.lstrip && !token.rstrip && !token.single_word && !token.content.contains(char::is_whitespace)
        });
        if !normalises_safely || !stays_inside {
            return None;
        }
        match tokenizer.get_pre_tokenizer()? {
            PreTokenizerWrapper::Sequence(stages) => Self::of_stages(stages.as_ref()),
            one => Self::of_stages(std::slice::from_ref(one)),
        }
    }

    /// Stages are applied to the pieces of those before, so what follows the first that certainly cuts does not matter.
    fn of_stages(stages: &[PreTokenizerWrapper]) -> Option<Self> {
        for stage in stages {
            match stage {
                PreTokenizerWrapper::ByteLevel(bytes) if bytes.use_regex && !bytes.add_prefix_space => {
                    return Some(Self::BeforeSpace);
                }
                PreTokenizerWrapper::Digits(_) => {}
                PreTokenizerWrapper::Split(split)
                    if split.behavior == SplitDelimiterBehavior::Isolated && !split.invert =>
                {
                    let SplitPattern::Regex(pattern) = &split.pattern else { return None };
                    let is_one_of = |known: &[&str]| known.contains(&pattern.as_str());
                    if is_one_of(&WORDS) {
                        return Some(Self::BeforeSpace);
                    }
                    if is_one_of(&LINES) {
                        return Some(Self::BetweenLines);
                    }
                    if !is_one_of(&BEFORE) {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        None
    }

    /// True where a text may be cut between these letters.
    fn is_between(self, before: char, after: char) -> bool {
        match self {
            Self::BeforeSpace => !before.is_whitespace() && after.is_ascii_whitespace(),
            Self::BetweenLines => match before {
                '\r' | '\n' => !after.is_whitespace() && after != '/',
                _ => !before.is_whitespace() && after == ' ',
            },
        }
    }
}

/// The pieces of a text, in order, where encoding the longest does not take more memory than is sane.
///
/// # Errors
/// [`crate::Error::Tokenizer`] with the bytes that it would take, and those that are allowed.
pub(super) fn checked_pieces(text: &str, cut: Option<Cut>) -> Result<impl Iterator<Item = &str>> {
    check(pieces(text, cut).map(str::len).max().unwrap_or(0))?;
    Ok(pieces(text, cut))
}

fn check(longest: usize) -> Result<()> {
    let needed = (longest as u64).saturating_mul(BYTES_A_BYTE);
    if needed <= MOST_BYTES {
        return Ok(());
    }
    Err(refuse(format!(
        "{longest} bytes of text hold no place where this tokenizer certainly cuts; encoding them at once takes about \
         {needed} bytes of memory, and {MOST_BYTES} are allowed: give the text in parts, such as one JSONL record a chapter"
    )))
}

/// The pieces of a text, in order; a single one where no place to cut is known.
pub(super) fn pieces(text: &str, cut: Option<Cut>) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(end_of_piece(rest, cut));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn end_of_piece(text: &str, cut: Option<Cut>) -> usize {
    let Some(cut) = cut.filter(|_| text.len() > PIECE_BYTES) else { return text.len() };
    let start = text.floor_char_boundary(PIECE_BYTES);
    let mut letters = text[start..].char_indices().peekable();
    while let Some((_, before)) = letters.next() {
        if let Some(&(at, after)) = letters.peek()
            && cut.is_between(before, after)
        {
            return start + at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_at_the_first_certain_place_after_enough_bytes_and_lose_nothing() {
        let word = "x".repeat(PIECE_BYTES + 3);
        let text = format!("{word} \n{word}\n\n{word}\u{3000}{word}。\n{word}");
        let lengths = |cut| pieces(&text, cut).map(str::len).collect::<Vec<_>>();
        let w = word.len();
        assert_eq!(lengths(Some(Cut::BeforeSpace)), [w, w + 2, w + 2 + w + 3 + 3, w + 1]);
        assert_eq!(lengths(Some(Cut::BetweenLines)), [w, 2 + w + 2, w + 3 + w + 4, w]);
        assert_eq!(lengths(None), [text.len()]);
        for cut in [None, Some(Cut::BeforeSpace), Some(Cut::BetweenLines)] {
            assert_eq!(pieces(&text, cut).collect::<String>(), text);
            assert_eq!(pieces("", cut).count(), 0);
            assert_eq!(pieces("short text", cut).collect::<Vec<_>>(), ["short text"]);
            assert_eq!(checked_pieces(&text, cut).unwrap().collect::<String>(), text);
        }
    }

    #[test]
    fn a_piece_that_takes_more_memory_than_is_sane_is_refused_with_both_numbers() {
        check(126_000_000).unwrap();
        let problem = check(127_000_000).unwrap_err().to_string();
        for part in ["127000000 bytes of text", "about 17272000000 bytes of memory", "17179869184 are allowed"] {
            assert!(problem.contains(part), "{part} is not in {problem}");
        }
    }
}
