//! Text out of tokens as they come, up to a string that ends it.

use crate::data::Tokenizer;
use crate::error::Result;

/// Makes text of tokens. A token may end within a character, and a string that ends the text may begin in one token and end in
/// another: what is not certain is held back.
pub struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    stops: &'a [String],
    tokens: Vec<u32>,
    /// Tokens `from .. to` are the last whose text is out, and give what follows its context: decoders treat the beginning of a
    /// text in their own ways.
    from: usize,
    to: usize,
    /// Text that could be the beginning of a string that ends it.
    held: String,
    ended: bool,
}

impl<'a> Writer<'a> {
    /// Without a token. The text ends before the first of `stops`, none of which is empty.
    pub fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Self {
        Self { tokenizer, stops, tokens: Vec::new(), from: 0, to: 0, held: String::new(), ended: false }
    }

    /// What makes its text.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// True once a string was met that ends the text.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Takes a token; what of the text is certain now and was not before.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] where it cannot decode.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let context = self.tokenizer.decode(&self.tokens[self.from..self.to], true)?;
        let text = self.tokenizer.decode(&self.tokens[self.from..], true)?;
        // A character that is not whole yet.
        if text.ends_with('\u{FFFD}') || text.len() <= context.len() {
            return Ok(String::new());
        }
        let Some(new) = text.get(context.len()..) else { return Ok(String::new()) };
        (self.from, self.to) = (self.to, self.tokens.len());
        Ok(self.take(new))
    }

    /// The rest of the text, when no more tokens come. Bytes that are no whole character are left out.
    pub fn finish(&mut self) -> Result<String> {
        let context = self.tokenizer.decode(&self.tokens[self.from..self.to], true)?;
        let text = self.tokenizer.decode(&self.tokens[self.from..], true)?;
        let new = text.get(context.len()..).unwrap_or_default().trim_end_matches('\u{FFFD}').to_owned();
        let shown = self.take(&new);
        Ok(shown + &std::mem::take(&mut self.held))
    }

    fn take(&mut self, new: &str) -> String {
        if self.ended {
            return String::new();
        }
        self.held.push_str(new);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.ended = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }
}
