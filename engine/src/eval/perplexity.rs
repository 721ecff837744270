//! Mean cross entropy and perplexity over documents, each alone; and the landscape of the tokens that were scored.

use serde::{Deserialize, Serialize};

use crate::data::{Document, MicroBatch, WINDOW, pack};
use crate::error::Result;
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;
use crate::loss::head;
use crate::message::messages;
use crate::model::{Keep, Model};

messages! {
    snake_case;

    /// Loss of a model on a set of documents.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Evaluation {
        /// Mean cross entropy in nats over scored tokens.
        pub loss: f64,
        /// `exp(loss)`.
        pub perplexity: f64,
        /// Scored tokens.
        pub tokens: u64,
    }
}

impl Evaluation {
    /// From a sum of cross entropies and their count; an empty set has loss 0. A perplexity beyond f64 is its largest
    /// number, because JSON knows no infinity.
    pub fn from_sum(sum: f64, tokens: u64) -> Self {
        let loss = sum / tokens.max(1) as f64;
        Self { loss, perplexity: loss.exp().min(f64::MAX), tokens }
    }
}

/// Loss of a model that knows nothing: every token of a vocabulary is as probable as any other, which costs ln V nats.
pub fn knowing_nothing(vocab: usize) -> f64 {
    (vocab as f64).ln()
}

/// Scored tokens, in the order of their documents.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// Statistics of each.
    pub rows: Vec<RowStats>,
    /// Index of the document that each belongs to: what [`Objective::batch`](crate::loss::objective::Objective::batch)
    /// takes for its sequences.
    pub documents: Vec<u32>,
}

/// Who looks on while tokens are scored.
pub trait Watch {
    /// So many micro-batches are done, of.
    fn done(&mut self, done: usize, of: usize);

    /// True once nobody wants the result any more. Asked before every block, so that the answer comes soon.
    fn stop(&self) -> bool {
        false
    }
}

/// Statistics of every scored token. `progress` hears of each finished micro-batch (done, of).
///
/// # Errors
/// [`crate::Error::NonFinite`] on NaN logits; device errors.
pub async fn rows(
    model: &mut Model,
    documents: &[Document],
    top_k: impl Into<Selection>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Scored> {
    struct ToTheEnd<'a>(&'a mut dyn FnMut(usize, usize));
    impl Watch for ToTheEnd<'_> {
        fn done(&mut self, done: usize, of: usize) {
            (self.0)(done, of);
        }
    }
    Ok(rows_until(model, documents, top_k, &mut ToTheEnd(progress)).await?.unwrap_or_default())
}

/// As [`rows`]; none where `watch` wants it to stop.
///
/// # Errors
/// As [`rows`].
pub async fn rows_until(
    model: &mut Model,
    documents: &[Document],
    top_k: impl Into<Selection>,
    watch: &mut dyn Watch,
) -> Result<Option<Scored>> {
    let scored = scored_until(model, documents, top_k.into(), watch).await;
    scored.map_err(|error| model.placement().explain(error))
}

async fn scored_until(
    model: &mut Model,
    documents: &[Document],
    top_k: Selection,
    watch: &mut dyn Watch,
) -> Result<Option<Scored>> {
    let longest = documents.iter().map(|d| d.tokens.len()).max().unwrap_or(0);
    let documents: Vec<&Document> = documents.iter().collect();
    let batches: Vec<MicroBatch> = pack(&documents, longest.max(WINDOW), true)?;
    let mut all = Scored::default();
    for (index, batch) in batches.iter().enumerate() {
        let Some(forward) = model.forward_until(batch, Keep::Nothing, None, &|| watch.stop())? else { return Ok(None) };
        if let Some(trained) = model.trained_rows(batch, &forward)? {
            let (hidden, labels) = (&trained.hidden, &trained.labels);
            let stop = || watch.stop();
            match head::statistics_until(model.placement().last(), model.head(), hidden, labels, top_k, &stop).await {
                Ok(None) => return Ok(None),
                Ok(Some(rows)) => {
                    all.rows.extend(rows);
                    all.documents.extend(trained.rows.iter().map(|&row| batch.document[row as usize]));
                }
                Err(error) => return Err(model.blame(error).await),
            }
        }
        watch.done(index + 1, batches.len());
    }
    Ok(Some(all))
}

/// Loss and perplexity of scored tokens.
pub fn score(scored: &Scored) -> Evaluation {
    Evaluation::from_sum(scored.rows.iter().map(|row| f64::from(row.ce)).sum(), scored.rows.len() as u64)
}

/// The beginning of a set, for what must not take long: as many whole documents as have at most `most` tokens together,
/// and never fewer than one.
pub fn first_tokens(documents: &[Document], most: usize) -> &[Document] {
    let mut tokens = 0;
    let within = |document: &&Document| {
        tokens += document.tokens.len();
        tokens <= most
    };
    let count = documents.iter().take_while(within).count();
    &documents[..count.max(1).min(documents.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_text_and_drop_a_last_one_that_scores_nothing() {
        let tokens: Vec<u32> = (0..9).collect();
        let windows = crate::data::windows(&tokens, 4);
        assert_eq!(windows.iter().map(|w| w.tokens.len()).collect::<Vec<_>>(), [4, 4]);
        assert_eq!(windows.iter().map(Document::trained_tokens).sum::<usize>(), 6);
    }

    #[test]
    fn the_beginning_of_a_set_ends_before_its_limit_and_is_never_empty() {
        let set: Vec<Document> =
            [5, 4, 3].into_iter().map(|n| Document { tokens: vec![0; n], trained: vec![true; n], line: 1 }).collect();
        let counts = [0, 4, 5, 8, 9, 11, 12, 99].map(|most| first_tokens(&set, most).len());
        assert_eq!(counts, [1, 1, 1, 1, 2, 2, 3, 3]);
        assert!(first_tokens(&[], 10).is_empty());
    }

    #[test]
    fn a_perplexity_beyond_all_numbers_still_reads_back_from_json() {
        let awful = Evaluation::from_sum(1e6, 10);
        let json = serde_json::to_string(&awful).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), awful);
    }

    #[test]
    fn an_evaluation_of_nothing_has_no_nan() {
        let nothing = Evaluation::from_sum(0.0, 0);
        assert_eq!((nothing.loss, nothing.perplexity, nothing.tokens), (0.0, 1.0, 0));
    }
}
