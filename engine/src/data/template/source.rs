//! A template's source before it is compiled: limits on what the compiler would recurse into, and two rewritings.
//!
//! minijinja's own lexer cuts the source into tokens, so nothing is read differently here than there; it is a loop, while
//! its parser, compiler and the drop of its tree call themselves once a level. Every level of the tree needs an operator,
//! a bracket or a keyword, so their number in one tag bounds its depth.
//!
//! Rewritten are `{% generation %}`, which marks trained text for Hugging Face's own masks and has no effect on a rendering
//! (it becomes an `if` that is always true, which keeps the white-space control of its tags), and multiplications: the
//! compiler would carry out those of literals itself, where no limit holds, and a variable between the factors
//! ([`ONE`]) leaves them to the rendering.

use std::ops::Range;

use minijinja::machinery::{Token, WhitespaceConfig, tokenize};

use super::limit::{Limit, exceeded};
use crate::error::Result;

/// Bytes of a template's source. The longest that come with models today have 30 thousand.
pub(super) const BYTES: usize = 128 << 10;
/// Tokens of one tag.
const TOKENS: usize = 8192;
/// Operators, brackets and keywords of one tag. Real ones have up to fifty.
const LINKS: usize = 300;
/// Bytes of a tag times its links: the compiler computes with literals once for each operator around them.
const BYTES_TIMES_LINKS: usize = 2 << 20;
/// `elif` in a template: each nests in the one before.
const ELIFS: usize = 300;
/// The variable that is 1.
pub(super) const ONE: &str = "__temper_one";

/// As templates of models are written for.
pub(super) const WHITESPACE: WhitespaceConfig =
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };

/// The source to compile.
///
/// # Errors
/// [`crate::Error::Template`] with the limit that `source` breaks.
pub(super) fn prepare(source: &str) -> Result<String> {
    if source.len() > BYTES {
        return Err(exceeded(Limit::Source, source.len(), BYTES));
    }
    let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
    let mut tag = Tag::default();
    let mut elifs = 0;
    // What the lexer does not understand, the parser refuses with the same words and the line.
    for (token, span) in tokenize(source, false, Default::default(), WHITESPACE).map_while(|token| token.ok()) {
        let place = span.start_offset as usize..span.end_offset as usize;
        match token {
            Token::TemplateData(_) => continue,
            Token::VariableStart | Token::BlockStart => {
                tag = Tag { start: place.start, block: matches!(token, Token::BlockStart), ..Tag::default() }
            }
            Token::BlockEnd if tag.tokens == 1 => edits.extend(tag.generation.take()),
            Token::Ident(word) if tag.block && tag.tokens == 0 => {
                elifs += usize::from(word == "elif");
                tag.tokens = 1;
                tag.links = 1;
                tag.generation = match word {
                    "generation" => Some((place, "if true")),
                    "endgeneration" => Some((place, "endif")),
                    _ => None,
                };
            }
            token => {
                if matches!(token, Token::Mul) {
                    edits.push((place.end..place.end, ONE_MORE));
                }
                tag.tokens += 1;
                tag.links += usize::from(nests(&token));
                let bytes = place.end.saturating_sub(tag.start);
                for (limit, found, allowed) in [
                    (Limit::Tokens, tag.tokens, TOKENS),
                    (Limit::Links, tag.links, LINKS),
                    (Limit::Constants, tag.links * bytes, BYTES_TIMES_LINKS),
                ] {
                    if found > allowed {
                        return Err(exceeded(limit, found, allowed));
                    }
                }
            }
        }
        if elifs > ELIFS {
            return Err(exceeded(Limit::Elifs, elifs, ELIFS));
        }
    }
    let mut prepared = String::with_capacity(source.len());
    let mut end = 0;
    for (place, text) in edits {
        prepared.push_str(&source[end..place.start]);
        prepared.push_str(text);
        end = place.end;
    }
    prepared.push_str(&source[end..]);
    Ok(prepared)
}

/// Behind a `*`.
const ONE_MORE: &str = " __temper_one *";

/// What was seen of the tag that is open.
#[derive(Default)]
struct Tag<'a> {
    start: usize,
    block: bool,
    tokens: usize,
    links: usize,
    /// The place of a tag's only word, and what stands there instead.
    generation: Option<(Range<usize>, &'a str)>,
}

/// Whether a token can put one expression inside another.
fn nests(token: &Token) -> bool {
    match token {
        Token::Ident(word) => matches!(*word, "not" | "and" | "or" | "if" | "else" | "in" | "is"),
        Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => false,
        Token::Comma | Token::Colon | Token::Assign => false,
        Token::BracketClose | Token::ParenClose | Token::BraceClose => false,
        _ => true,
    }
}
