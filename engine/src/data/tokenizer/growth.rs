//! What a `tokenizer.json` asks for before and after the merges, checked before the crate is handed it: a step that makes a
//! text longer does so to what the step before made, so ten short lines could ask for more memory than there is; and the
//! crate panics where a replacement matches nothing or a prefix is empty.

use regex_syntax::hir::Hir;
use tokenizers::normalizers::replace::ReplacePattern;

use super::refuse;
use crate::error::Result;

/// How much longer all steps of a list may make a text. Spaces written as `▁` make it 3 times as long, bytes written as
/// letters twice.
const FACTOR: usize = 16;
/// Steps of a list, with those inside steps.
const STEPS: usize = 64;
/// Bytes of a prefix: it is put before every piece of a text.
const PREFIX: usize = 64;

/// What the steps of one list add up to.
pub(super) struct Growth {
    /// The field of the file, such as `normalizer`.
    field: &'static str,
    steps: usize,
    factor: usize,
}

impl Growth {
    pub(super) fn new(field: &'static str) -> Self {
        Self { field, steps: 0, factor: 1 }
    }

    /// Counts one step, whatever it does.
    pub(super) fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > STEPS {
            return Err(refuse(format!("tokenizer.json: {} has more than {STEPS} steps", self.field)));
        }
        Ok(())
    }

    /// A `Prepend`.
    pub(super) fn prefix(&self, prefix: &str) -> Result<()> {
        match prefix.len() {
            0 => Err(self.at("prepend is empty; leave the step out")),
            1..=PREFIX => Ok(()),
            long => Err(self.at(&format!("prepend has {long} bytes, and {PREFIX} are allowed"))),
        }
    }

    /// A `Replace` of what `pattern` matches by `content`.
    pub(super) fn replace(&mut self, pattern: &ReplacePattern, content: &str) -> Result<()> {
        let shortest = match pattern {
            ReplacePattern::String(text) => text.len(),
            ReplacePattern::Regex(expression) => regex_syntax::parse(expression)
                .map_err(|error| {
                    // What is no error to the crate (looking ahead or back) has a length that cannot be told.
                    self.at(&format!("pattern {expression:?} is not a regular expression that can be bounded: {error}"))
                })
                .map(|hir: Hir| hir.properties().minimum_len().unwrap_or(1))?,
        };
        if shortest == 0 {
            return Err(self.at("pattern matches the empty text; give one that needs a letter at least"));
        }
        self.longer(content.len().div_ceil(shortest))
    }

    /// A `ByteLevel`, which writes a byte as a letter of up to two. Where it puts a space before every piece, a piece of one
    /// byte has two by then.
    pub(super) fn byte_level(&mut self, add_prefix_space: bool) -> Result<()> {
        self.longer(if add_prefix_space { 4 } else { 2 })
    }

    /// A `Metaspace`, which writes each space as `replacement`, and puts one before every piece where it `prepends`: a piece
    /// may be a single letter.
    pub(super) fn metaspace(&mut self, replacement: char, prepends: bool) -> Result<()> {
        self.longer(replacement.len_utf8() + usize::from(prepends))
    }

    /// A step that may make a text so many times as long.
    fn longer(&mut self, factor: usize) -> Result<()> {
        self.factor = self.factor.saturating_mul(factor.max(1));
        if self.factor > FACTOR {
            return Err(self.at(&format!(
                "with it, the steps make a text up to {} times as long, and {FACTOR} are allowed",
                self.factor
            )));
        }
        Ok(())
    }

    fn at(&self, problem: &str) -> crate::Error {
        refuse(format!("tokenizer.json: {}, step {}: {problem}", self.field, self.steps))
    }
}
