//! Kinds of tokens, so that conflicts can be counted by them.

use serde::Serialize;

use crate::data::Tokenizer;
use crate::error::Result;

/// Characters with which LaTeX, Markdown, HTML and code mark text up.
const MARKUP: &str = "\\{}$#*_^|`~&<>=";

/// What a token is. Every token is exactly one of these, in this order of precedence: special, space and markup,
/// number, punctuation, then the beginning or the continuation of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenClass {
    /// Digits, with or without signs between them and a space before them; no letter.
    Number,
    /// Has a letter, and begins with a space or behind a token that does not end with a letter or digit.
    WordStart,
    /// Has a letter, and goes on with the word of the token before. Scripts without spaces have hardly another.
    WordContinuation,
    /// Neither letter nor digit, and something that is neither white space nor markup.
    Punctuation,
    /// White space alone, or with characters of markup (`\ { } $ # * _ ^ | ~ & < > =` and the backtick) alone.
    SpaceOrMarkup,
    /// A special token of the tokenizer, such as the end of a turn.
    Special,
}

impl TokenClass {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 6] =
        [Self::Number, Self::WordStart, Self::WordContinuation, Self::Punctuation, Self::SpaceOrMarkup, Self::Special];

    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::WordStart => "word start",
            Self::WordContinuation => "word continuation",
            Self::Punctuation => "punctuation",
            Self::SpaceOrMarkup => "space or markup",
            Self::Special => "special",
        }
    }
}

/// What is known of a token without its neighbours.
#[derive(Clone, Copy)]
struct Form {
    /// As if a word began with it, where it has a letter.
    class: TokenClass,
    begins_with_space: bool,
    ends_in_word: bool,
}

impl Form {
    /// `space` is true where the vocabulary spells the token with a space before it, whatever became of it in `text`.
    fn of(text: &str, space: bool, special: bool) -> Self {
        let any = |is: fn(char) -> bool| text.chars().any(is);
        let is_blank = |c: char| c.is_whitespace() || MARKUP.contains(c);
        let class = if special {
            TokenClass::Special
        } else if text.chars().all(is_blank) {
            TokenClass::SpaceOrMarkup
        } else if any(char::is_alphabetic) || any(|c| c == '\u{FFFD}') {
            // Part of a character's bytes: of a letter, mostly.
            TokenClass::WordStart
        } else if any(char::is_numeric) {
            TokenClass::Number
        } else {
            TokenClass::Punctuation
        };
        let word = |c: char| c.is_alphanumeric() || c == '\u{FFFD}';
        Self {
            class,
            begins_with_space: space || text.starts_with(char::is_whitespace),
            ends_in_word: !special && text.chars().next_back().is_some_and(word),
        }
    }
}

/// Tells the class of tokens; what a token is by itself is looked up once.
pub struct Classes<'a> {
    tokenizer: &'a Tokenizer,
    forms: Vec<Option<Form>>,
}

impl<'a> Classes<'a> {
    /// For the tokens of this tokenizer.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, forms: vec![None; tokenizer.vocab_size()] }
    }

    /// The class of `token` behind `before`; at the beginning of a text there is none.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] where it cannot decode.
    pub fn of(&mut self, before: Option<u32>, token: u32) -> Result<TokenClass> {
        let form = self.form(token)?;
        if form.class != TokenClass::WordStart || form.begins_with_space {
            return Ok(form.class);
        }
        let follows = before.map(|before| self.form(before)).transpose()?.is_some_and(|before| before.ends_in_word);
        Ok(if follows { TokenClass::WordContinuation } else { TokenClass::WordStart })
    }

    fn form(&mut self, token: u32) -> Result<Form> {
        let at = token as usize;
        if let Some(Some(form)) = self.forms.get(at) {
            return Ok(*form);
        }
        let spelt = self.tokenizer.token_text(token).unwrap_or_default();
        // Byte-level vocabularies and SentencePiece spell a space so.
        let space = spelt.starts_with(['\u{120}', '\u{2581}']);
        let form = Form::of(&self.tokenizer.decode(&[token], false)?, space, self.tokenizer.is_special(token));
        if let Some(place) = self.forms.get_mut(at) {
            *place = Some(form);
        }
        Ok(form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_its_characters_say() {
        let class = |text: &str| Form::of(text, false, false).class;
        for (text, expected) in [
            ("12", TokenClass::Number),
            (" 3.5", TokenClass::Number),
            (" the", TokenClass::WordStart),
            ("x1", TokenClass::WordStart),
            ("\u{6C34}", TokenClass::WordStart),
            ("),", TokenClass::Punctuation),
            (" -", TokenClass::Punctuation),
            ("\n\n", TokenClass::SpaceOrMarkup),
            (" $\\", TokenClass::SpaceOrMarkup),
            ("", TokenClass::SpaceOrMarkup),
            ("**", TokenClass::SpaceOrMarkup),
        ] {
            assert_eq!(class(text), expected, "{text:?}");
        }
        assert_eq!(Form::of("<end>", false, true).class, TokenClass::Special);
        assert!(Form::of("the", true, false).begins_with_space && !Form::of("the", false, false).begins_with_space);
        assert!(Form::of("a", false, false).ends_in_word && !Form::of("a.", false, false).ends_in_word);
        assert!(!Form::of("<end>x", false, true).ends_in_word);
    }
}
