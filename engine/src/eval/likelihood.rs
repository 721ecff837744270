//! How likely a model finds each of several continuations of one text.
//!
//! The text is read once for all of them, and what it has in common with the one before it (an instruction, worked
//! examples) not again.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::cache::Cache;

/// Reads texts, one after the other.
pub struct Likelihoods {
    cache: Cache,
    held: Vec<u32>,
}

impl Likelihoods {
    /// For texts of at most `capacity` tokens with their continuations.
    ///
    /// # Errors
    /// [`Error::Limit`] where they do not fit a device.
    pub fn new(model: &Model, capacity: usize) -> Result<Self> {
        Ok(Self { cache: Cache::new(model, 1, capacity)?, held: Vec::new() })
    }

    /// Sum over each continuation's tokens of the logarithm of their probability, each behind the text and the tokens
    /// before it.
    ///
    /// # Errors
    /// [`Error::Config`] where the text or a continuation has no token, or both are longer than the capacity; otherwise
    /// as [`Model::extend`] and [`Model::rows_of_logits`].
    pub async fn of(&mut self, model: &mut Model, text: &[u32], continuations: &[Vec<u32>]) -> Result<Vec<f64>> {
        let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
        let most = self.cache.capacity();
        if text.is_empty() || continuations.iter().any(Vec::is_empty) || text.len() + longest > most {
            let problem = format!(
                "a text of {} tokens with continuations of up to {longest}: each has at least one, and together {most} are possible",
                text.len()
            );
            return Err(Error::Config { problems: vec![problem] });
        }
        // The last token is run in any case: its logits are wanted.
        let known = self.held.iter().zip(text).take_while(|(held, new)| held == new).count().min(text.len() - 1);
        self.cache.truncate(0, known);
        self.held.truncate(known);
        let hidden = model.read(&mut self.cache, 0, &text[known..], &|| false)?.expect("nobody stops it");
        self.held.extend_from_slice(&text[known..]);
        let behind = log_softmax(&model.rows_of_logits(&hidden).await?[0]);
        let mut sums = Vec::with_capacity(continuations.len());
        for tokens in continuations {
            let mut sum = at(&behind, tokens[0])?;
            for pair in tokens.windows(2) {
                let hidden = model.extend(&mut self.cache, &[(0, &pair[..1])])?;
                sum += at(&log_softmax(&model.rows_of_logits(&hidden).await?[0]), pair[1])?;
            }
            self.cache.truncate(0, text.len());
            sums.push(sum);
        }
        Ok(sums)
    }
}

fn at(row: &[f64], token: u32) -> Result<f64> {
    let found = row.get(token as usize).copied();
    found.ok_or(Error::Label { row: 0, label: i64::from(token), vocab: row.len() })
}

/// Logarithms of the softmax.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|z| f64::from(z - max).exp()).sum();
    logits.iter().map(|z| f64::from(z - max) - sum.ln()).collect()
}
