//! Continuations that people read: greedy, in whole characters, and without the mark that texts have where a word was unknown.
//!
//! Place in the flow: a beginning -> **this** -> `Continued` of the messages. Texts of Wikipedia have `<unk>` in place of rare words. A
//! vocabulary may spell that in several pieces, each of which is a fine token elsewhere; so the whole mark is recognised in what
//! was written, taken back, and its first piece not written at that place.

use std::collections::BTreeSet;

use crate::data::Tokenizer;
use crate::error::Result;
use crate::model::Model;
use crate::model::cache::Cache;

/// What stands in a text where a word was unknown.
const UNKNOWN: &str = "<unk>";
/// Most tokens after the first of an answer that is spelled out.
const ANSWER: usize = 6;
/// Stands for bytes that are no whole character.
const BROKEN: char = '\u{FFFD}';

/// At most `count` tokens after `beginning`, of which there is at least one; stops before one of the tokenizer's ends of text.
///
/// # Errors
/// [`crate::Error::NonFinite`] on NaN logits; device errors.
pub async fn greedy(model: &mut Model, tokenizer: &Tokenizer, beginning: &[u32], count: usize) -> Result<String> {
    let mut cache = Cache::new(model, 1, beginning.len() + count)?;
    let mut hidden = model.read(&mut cache, 0, beginning, &|| false)?.expect("nobody stops it");
    let mut new: Vec<u32> = Vec::new();
    // Tokens that are not written at a place.
    let mut refused: BTreeSet<(usize, u32)> = BTreeSet::new();
    while new.len() < count {
        let logits = model.rows_of_logits(&hidden).await?.remove(0);
        let allowed = (0..logits.len() as u32).filter(|&token| !refused.contains(&(new.len(), token)));
        let most = allowed.max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize]).then(b.cmp(&a)));
        let Some(token) = most.filter(|token| !tokenizer.eos_ids().contains(token)) else { break };
        new.push(token);
        if let Some(begin) = unknown(tokenizer, &new)? {
            refused.insert((begin, new[begin]));
            new.truncate(begin);
            cache.truncate(0, beginning.len() + begin);
            // The last token is run again: its logits are wanted.
            let last = *new.last().unwrap_or(&beginning[beginning.len() - 1]);
            cache.truncate(0, beginning.len() + begin - 1);
            hidden = model.extend(&mut cache, &[(0, &[last])])?;
        } else if new.len() < count {
            hidden = model.extend(&mut cache, &[(0, &[token])])?;
        }
    }
    Ok(without_half_a_mark(whole(&tokenizer.decode(&new, true)?)).into())
}

/// The answer that begins with the token `first`: what the model goes on with, to the end of the line.
///
/// # Errors
/// As [`greedy`].
pub async fn answer(model: &mut Model, tokenizer: &Tokenizer, beginning: &[u32], first: u32) -> Result<String> {
    let begun = tokenizer.decode(&[first], false)?;
    if tokenizer.eos_ids().contains(&first) || begun.trim().is_empty() {
        return Ok(begun);
    }
    let rest = greedy(model, tokenizer, &[beginning, &[first]].concat(), ANSWER).await?;
    Ok(format!("{begun}{rest}").lines().next().unwrap_or_default().trim_end().into())
}

/// Where the mark of an unknown word begins, if that is what `tokens` end with.
fn unknown(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<Option<usize>> {
    // More than the mark has letters are not needed.
    for begin in (tokens.len().saturating_sub(UNKNOWN.len())..tokens.len()).rev() {
        if tokenizer.decode(&tokens[begin..], false)?.contains(UNKNOWN) {
            return Ok(Some(begin));
        }
    }
    Ok(None)
}

/// A text that was cut inside the mark of an unknown word, without what there is of it.
fn without_half_a_mark(text: &str) -> &str {
    let begun = (2..UNKNOWN.len()).rev().find_map(|letters| text.strip_suffix(&UNKNOWN[..letters]));
    begun.or_else(|| text.strip_suffix(" <")).unwrap_or(text)
}

/// A text without the part of a character at its end.
pub fn whole(text: &str) -> &str {
    text.trim_end_matches(BROKEN)
}

/// What each token spells. A character that several tokens spell stands at the first of them, and the others spell nothing.
///
/// # Errors
/// As [`Tokenizer::decode`].
pub fn spelled(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<Vec<String>> {
    let mut texts = Vec::with_capacity(tokens.len());
    while texts.len() < tokens.len() {
        let begin = texts.len();
        let mut text = tokenizer.decode(&tokens[begin..=begin], false)?;
        // A character has at most four bytes.
        for end in begin + 1..(begin + 4).min(tokens.len()) {
            if !text.ends_with(BROKEN) {
                break;
            }
            let longer = tokenizer.decode(&tokens[begin..=end], false)?;
            if !longer.contains(BROKEN) {
                texts.push(longer);
                texts.resize(end, String::new());
                text.clear();
            }
        }
        texts.push(text);
    }
    Ok(texts)
}

/// A sentence, or most of one, with which a document begins to be trained: what a template or a question puts before is left out.
///
/// # Errors
/// As [`Tokenizer::decode`].
pub fn beginning(tokenizer: &Tokenizer, tokens: &[u32], trained: &[bool], count: usize) -> Result<String> {
    let words: Vec<u32> = tokens
        .iter()
        .zip(trained)
        .filter(|&(&token, &trained)| trained && !tokenizer.is_special(token))
        .map(|(&token, _)| token)
        .take(count)
        .collect();
    Ok(whole(&tokenizer.decode(&words, true)?).trim_start().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
        let base = std::path::Path::new(&crate_folder).join("../native/demo/base");
        let read = |name: &str| std::fs::read(base.join(name)).unwrap();
        Tokenizer::from_json(&read("tokenizer.json"), Some(&read("tokenizer_config.json"))).unwrap()
    }

    #[test]
    fn the_mark_of_an_unknown_word_is_found_where_it_begins_and_a_word_like_it_is_not() {
        let tokenizer = tokenizer();
        let before = tokenizer.encode("He was").unwrap();
        let with = tokenizer.encode("He was <unk>").unwrap();
        assert!(with.len() > before.len() && with.starts_with(&before));
        assert_eq!(unknown(&tokenizer, &with).unwrap(), Some(before.len()));
        for fine in ["He was drunk", "He was <", "He was < unk", ""] {
            assert_eq!(unknown(&tokenizer, &tokenizer.encode(fine).unwrap()).unwrap(), None, "{fine:?}");
        }
    }

    #[test]
    fn a_text_that_is_cut_inside_the_mark_has_no_half_of_it() {
        for (cut, kept) in
            [("and <unk", "and "), ("and <u", "and "), ("and <", "and"), ("4 - 2 = <<", "4 - 2 = <<"), ("", "")]
        {
            assert_eq!(without_half_a_mark(cut), kept, "{cut:?}");
        }
    }

    #[test]
    fn a_character_that_several_tokens_spell_stands_whole_at_the_first() {
        let tokenizer = tokenizer();
        for text in ["a \u{1F600}b", "\u{4E2D}\u{6587}", "plain words", "\u{1F600}\u{1F600}"] {
            let tokens = tokenizer.encode(text).unwrap();
            let texts = spelled(&tokenizer, &tokens).unwrap();
            assert_eq!(texts.len(), tokens.len());
            assert_eq!(texts.concat(), text);
        }
        let smiley = tokenizer.encode("\u{1F600}").unwrap();
        assert!(smiley.len() > 1, "this vocabulary has no token for it");
        assert_eq!(spelled(&tokenizer, &smiley).unwrap()[0], "\u{1F600}");
        // A text that is cut inside it has no half of it, and loses nothing else.
        let cut = tokenizer.decode(&smiley[..smiley.len() - 1], true).unwrap();
        assert_eq!(whole(&format!("word{cut}")), "word");
        assert_eq!(spelled(&tokenizer, &smiley[..1]).unwrap().len(), 1);
    }

    #[test]
    fn a_beginning_is_what_is_trained_without_what_a_template_puts_before() {
        let tokenizer = tokenizer();
        let mut tokens = tokenizer.encode("system: be brief.\n").unwrap();
        let before = tokens.len();
        tokens.push(tokenizer.eos_id().unwrap());
        tokens.extend(tokenizer.encode("The river flows through the town and on.").unwrap());
        let trained: Vec<bool> = (0..tokens.len()).map(|at| at >= before).collect();
        let found = beginning(&tokenizer, &tokens, &trained, 5).unwrap();
        assert!("The river flows through the town".starts_with(&found) && found.starts_with("The"), "{found:?}");
        assert_eq!(beginning(&tokenizer, &tokens, &vec![false; tokens.len()], 5).unwrap(), "");
    }
}
