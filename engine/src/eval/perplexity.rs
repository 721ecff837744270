//! Mean cross entropy and perplexity over documents, each alone; and the landscape of the tokens that were scored.

use crate::data::{Document, MicroBatch, pack};
use crate::error::Result;
use crate::kernels::row_stats::RowStats;
use crate::loss::head;
use crate::model::{Keep, Model};

/// Tokens of a window when plain text is evaluated, each window alone.
pub const WINDOW: usize = 1024;

/// Loss of a model on a set of documents.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// Mean cross entropy in nats over scored tokens.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Scored tokens.
    pub tokens: usize,
}

/// Splits tokens into windows that are scored alone; every token but a window's first is scored.
pub fn windows(tokens: &[u32], window: usize) -> Vec<Document> {
    tokens
        .chunks(window)
        .filter(|chunk| chunk.len() > 1)
        .map(|chunk| Document { tokens: chunk.to_vec(), trained: vec![true; chunk.len()], line: 1 })
        .collect()
}

/// Statistics of every scored token. `progress` hears of each finished micro-batch (done, of).
///
/// # Errors
/// [`crate::Error::NonFinite`] on NaN logits; device errors.
pub async fn rows(
    model: &mut Model,
    documents: &[Document],
    top_k: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<RowStats>> {
    let longest = documents.iter().map(|d| d.tokens.len()).max().unwrap_or(0);
    let documents: Vec<&Document> = documents.iter().collect();
    let batches: Vec<MicroBatch> = pack(&documents, longest.max(WINDOW), true)?;
    let mut rows = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let forward = model.forward(batch, Keep::Nothing, None)?;
        if let Some(trained) = model.trained_rows(batch, &forward)? {
            match head::statistics(model.device(), model.head(), &trained.hidden, &trained.labels, top_k).await {
                Ok(scored) => rows.extend(scored),
                Err(error) => return Err(model.blame(error).await),
            }
        }
        progress(index + 1, batches.len());
    }
    Ok(rows)
}

/// Loss and perplexity from scored rows. A perplexity beyond f64 is its largest number, because JSON knows no infinity.
pub fn score(rows: &[RowStats]) -> Score {
    let sum: f64 = rows.iter().map(|row| f64::from(row.ce)).sum();
    let loss = sum / rows.len().max(1) as f64;
    Score { loss, perplexity: loss.exp().min(f64::MAX), tokens: rows.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_text_and_drop_a_last_one_that_scores_nothing() {
        let tokens: Vec<u32> = (0..9).collect();
        let windows = windows(&tokens, 4);
        assert_eq!(windows.iter().map(|w| w.tokens.len()).collect::<Vec<_>>(), [4, 4]);
        assert_eq!(windows.iter().map(Document::trained_tokens).sum::<usize>(), 6);
    }
}
