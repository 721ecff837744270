//! What a model makes of one token: how it ranks what could have been there, and how hard training pulls.

use crate::data::{Document, pack};
use crate::error::Result;
use crate::eval::perplexity::Scored;
use crate::kernels::row_stats::{RowStats, Selection};
use crate::kernels::tensor::{self, read};
use crate::loss::head;
use crate::model::{Keep, Model};

/// Norm of a row's gradient by its logits under weight 1: `|softmax - onehot|`, from
/// `(1 - p)^2 + sum_v P(v)^2 - p^2`.
pub fn pull(row: &RowStats) -> f32 {
    let p = row.p();
    ((1.0 - p).powi(2) + (row.collision - p * p).max(0.0)).sqrt()
}

/// One position of a document, from one forward pass.
pub struct Position {
    /// What was scored: this position, or with `all` every trained token of the document.
    pub scored: Scored,
    /// Index of this position among them.
    pub row: usize,
    /// Its logits over the vocabulary.
    pub logits: Vec<f32>,
}

/// Runs `model` over a document once and looks at the token at `position`, which is above 0 and within the document; with
/// `all`, every trained token is scored too.
///
/// # Errors
/// [`crate::Error::NonFinite`] on NaN logits; device errors.
pub async fn position(
    model: &mut Model,
    document: &Document,
    position: usize,
    top_k: impl Into<Selection>,
    all: bool,
) -> Result<Position> {
    let end = if all { document.tokens.len() } else { position + 1 };
    let trained = (0..end).map(|at| at == position || (all && document.trained[at])).collect();
    let document = Document { tokens: document.tokens[..end].to_vec(), trained, line: document.line };
    let batch = pack(&[&document], end, true)?.remove(0);
    let forward = model.forward(&batch, Keep::Nothing, None)?;
    let trained = model.trained_rows(&batch, &forward)?.expect("the position itself is trained");
    let rows =
        match head::statistics(model.placement().last(), model.head(), &trained.hidden, &trained.labels, top_k).await {
            Ok(rows) => rows,
            Err(error) => return Err(model.blame(error).await),
        };
    let row = trained.rows.iter().position(|&row| row as usize + 1 == position).expect("it is among the rows");
    let mut logits = Vec::with_capacity(model.arch.vocab);
    for tile in model.head().logits(model.placement().last(), &tensor::rows(&trained.hidden, row..row + 1))? {
        logits.extend(read(&tile).await?);
    }
    Ok(Position { scored: Scored { documents: vec![0; rows.len()], rows }, row, logits })
}

/// Tokens by their probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Place of the label, from 1; of equals the first in the vocabulary comes first.
    pub rank: usize,
    /// The most probable tokens with their probabilities, and the label where it is not among them.
    pub shown: Vec<(usize, f32)>,
}

/// The `most` most probable tokens of a row of logits, and the label.
pub fn ranking(logits: &[f32], label: usize, most: usize) -> Ranking {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|z| (z - largest).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let rank = order.iter().position(|&token| token == label).unwrap_or(0) + 1;
    let mut shown = order[..most.min(order.len())].to_vec();
    if !shown.contains(&label) {
        shown.push(label);
    }
    Ranking { rank, shown: shown.into_iter().map(|token| (token, (logits[token] - largest).exp() / sum)).collect() }
}

/// Change of a token's logit that one unit step against the gradient makes under each weight: `weight * (onehot - p)`.
pub fn pushes(weights: &[f32], is_label: bool, p: f32) -> Vec<f32> {
    let toward = f32::from(u8::from(is_label)) - p;
    weights.iter().map(|weight| weight * toward).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_of_a_row_is_the_norm_of_softmax_minus_onehot() {
        let logits = [0.3f32, -1.2, 2.0, 0.0];
        let label = 1;
        let sum: f32 = logits.iter().map(|z| z.exp()).sum();
        let p: Vec<f32> = logits.iter().map(|z| z.exp() / sum).collect();
        let norm = (0..4).map(|v| (p[v] - if v == label { 1.0 } else { 0.0 }).powi(2)).sum::<f32>().sqrt();
        let collision = p.iter().map(|p| p * p).sum();
        let row = RowStats { ce: -p[label].ln(), entropy_top_k: 0.0, entropy_tokens: 4, entropy_full: 0.0, collision };
        assert!((pull(&row) - norm).abs() <= 1e-6, "{} and not {norm}", pull(&row));
        let sure = RowStats { ce: 0.0, entropy_top_k: 0.0, entropy_tokens: 4, entropy_full: 0.0, collision: 1.0 };
        assert_eq!(pull(&sure), 0.0);
    }

    #[test]
    fn candidates_are_the_most_probable_tokens_and_the_label_with_its_rank() {
        let logits = [1.0f32.ln(), 4.0f32.ln(), 2.0f32.ln(), 1.0f32.ln(), 2.0f32.ln()];
        let top = ranking(&logits, 2, 3);
        assert_eq!(top.rank, 2, "of equals the first in the vocabulary comes first");
        assert_eq!(top.shown.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 2, 4]);
        for ((_, p), want) in top.shown.iter().zip([0.4f32, 0.2, 0.2]) {
            assert!((p - want).abs() <= 1e-6, "{p} and not {want}");
        }
        let below = ranking(&logits, 3, 2);
        assert_eq!((below.rank, below.shown.last().unwrap().0, below.shown.len()), (5, 3, 3));
        assert_eq!(ranking(&logits, 0, 99).shown.len(), 5);
    }

    #[test]
    fn a_step_pushes_the_label_up_and_the_rest_down() {
        assert_eq!(pushes(&[1.0, 0.5], true, 0.25), [0.75, 0.375]);
        assert_eq!(pushes(&[1.0, 0.5], false, 0.25), [-0.25, -0.125]);
    }
}
