//! What a model makes of one token: how it ranks what could have been there, and how hard training pulls.

use crate::data::{Document, Tokenizer, pack};
use crate::device::Device;
use crate::error::Result;
use crate::eval::perplexity::Scored;
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;
use crate::kernels::tensor::{self, read};
use crate::loss::head;
use crate::loss::objective::Objective;
use crate::loss::ready;
use crate::model::cache::Cache;
use crate::model::{Keep, Model, TrainedRows};

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
    top_k: Selection,
    all: bool,
) -> Result<Position> {
    let end = if all { document.tokens.len() } else { position + 1 };
    let trained = (0..end).map(|at| at == position || (all && document.trained[at])).collect();
    let document = Document { tokens: document.tokens[..end].to_vec(), trained, line: document.line };
    let (trained, rows) = scored(model, &document, top_k).await?.expect("the position itself is trained");
    let row = trained.rows.iter().position(|&row| row as usize + 1 == position).expect("it is among the rows");
    let mut logits = Vec::with_capacity(model.arch.vocab);
    for tile in model.head().logits(model.placement().last(), &tensor::rows(&trained.hidden, row..row + 1))? {
        logits.extend(read(&tile).await?);
    }
    Ok(Position { scored: Scored { documents: vec![0; rows.len()], rows }, row, logits })
}

/// The trained tokens of a document from one forward pass, and their statistics; none where it has no such token.
async fn scored(
    model: &mut Model,
    document: &Document,
    top_k: Selection,
) -> Result<Option<(TrainedRows, Vec<RowStats>)>> {
    let batch = pack(&[document], document.tokens.len(), true)?.remove(0);
    let forward = model.forward(&batch, Keep::Nothing, None)?;
    let Some(trained) = model.trained_rows(&batch, &forward)? else { return Ok(None) };
    match head::statistics(model.placement().last(), model.head(), &trained.hidden, &trained.labels, top_k).await {
        Ok(rows) => Ok(Some((trained, rows))),
        Err(error) => Err(model.blame(error).await),
    }
}

/// Every trained token of a document, and what `model` expects most where it and the text are in conflict.
///
/// # Errors
/// [`crate::Error::NonFinite`] on NaN logits; device errors.
pub async fn document(
    model: &mut Model,
    document: &Document,
    top_k: Selection,
) -> Result<(Scored, Vec<Option<usize>>)> {
    let Some((trained, rows)) = scored(model, document, top_k).await? else { return Ok((Scored::default(), vec![])) };
    let mut expected = vec![None; rows.len()];
    for row in (0..rows.len()).filter(|&row| rows[row].is_conflict()) {
        let logits = model.rows_of_logits(&tensor::rows(&trained.hidden, row..row + 1)).await?.remove(0);
        expected[row] = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
    }
    Ok((Scored { documents: vec![0; rows.len()], rows }, expected))
}

/// Logits of the token after a beginning of at least one token.
///
/// # Errors
/// [`crate::Error::NonFinite`] on NaN logits; device errors.
pub async fn after(model: &mut Model, beginning: &[u32]) -> Result<Vec<f32>> {
    let mut cache = Cache::new(model, 1, beginning.len())?;
    let hidden = model.read(&mut cache, 0, beginning, &|| false)?.expect("nobody stops it");
    Ok(model.rows_of_logits(&hidden).await?.remove(0))
}

/// The first token of `word` as it follows `beginning`, and the tokens of the beginning.
///
/// # Errors
/// [`crate::Error::Config`] where one of them has no token.
pub fn first_of(tokenizer: &Tokenizer, beginning: &str, word: &str) -> Result<(Vec<u32>, usize)> {
    let tokens = tokenizer.encode_begun(beginning)?;
    let both = tokenizer.encode_begun(&format!("{beginning}{word}"))?;
    // Where the word's first letters join the beginning's last token it is taken alone.
    let word = match both.strip_prefix(tokens.as_slice()) {
        Some(rest) => rest.to_vec(),
        None => tokenizer.encode(word)?,
    };
    match (word.first(), tokens.is_empty()) {
        (Some(&first), false) => Ok((tokens, first as usize)),
        _ => Err(super::bad("a question and its answers need a token each")),
    }
}

/// A row of logits with a label, under some objectives.
pub struct Weighed {
    /// Probability of the label.
    pub p: f32,
    /// Entropy over the whole vocabulary, nats.
    pub entropy: f32,
    /// Entropy over the objectives' top K, nats; 0 where none of them has a K.
    pub entropy_top_k: f32,
    /// Weight under each objective.
    pub gate: Vec<f32>,
    /// Norm of the gradient over the logits under each objective.
    pub gradient: Vec<f32>,
}

/// What objectives make of a row of logits divided by `temperature`, the row being a batch of its own.
///
/// # Errors
/// As [`ready::evaluate`].
pub async fn weigh(
    device: &Device,
    logits: &[f32],
    label: usize,
    temperature: f32,
    objectives: &[Objective],
) -> Result<Weighed> {
    let logits: Vec<f32> = logits.iter().map(|z| z / temperature).collect();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|z| (z - largest).exp()).sum();
    let term = |z: &f32| {
        let below = z - largest;
        below.exp() / sum * (sum.ln() - below)
    };
    let mut weighed = Weighed { p: 0.0, entropy: 0.0, entropy_top_k: 0.0, gate: Vec::new(), gradient: Vec::new() };
    // Beyond the range of single precision a term is 0 times a large number.
    weighed.entropy = logits.iter().map(term).filter(|term| term.is_finite()).sum::<f32>().max(0.0);
    for objective in objectives {
        let found = ready::evaluate(device, logits.clone(), &[label as i64], logits.len(), objective).await?;
        weighed.p = (-found.ce[0]).exp();
        if objective.top_k().is_some() {
            weighed.entropy_top_k = found.entropy[0];
        }
        weighed.gate.push(found.weight[0]);
        weighed.gradient.push(found.gradient.iter().map(|g| g * g).sum::<f32>().sqrt());
    }
    Ok(weighed)
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
    use crate::loss::objective::ObjectiveSection;
    use crate::wait;

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
    fn a_sure_model_is_pulled_alike_by_sft_and_left_alone_by_eaft() {
        let objectives = ["sft", "eaft"]
            .map(|name| Objective::from_section(&ObjectiveSection::from_overrides(name, &[]).unwrap()).unwrap());
        let logits = [4.0f32, 0.5, -1.0, 0.0, 1.5];
        let mut gates = Vec::new();
        for temperature in [4.0f32, 1.0, 0.25] {
            let found = wait(weigh(&Device::cpu(), &logits, 1, temperature, &objectives)).unwrap();
            let scaled: Vec<f64> = logits.iter().map(|z| f64::from(z / temperature)).collect();
            let sum: f64 = scaled.iter().map(|z| z.exp()).sum();
            let p: Vec<f64> = scaled.iter().map(|z| z.exp() / sum).collect();
            let entropy: f64 = -p.iter().map(|p| p * p.ln()).sum::<f64>();
            let norm = (0..5).map(|v| (p[v] - f64::from(u8::from(v == 1))).powi(2)).sum::<f64>().sqrt();
            let gate = entropy / 5f64.ln();
            let close = |found: f32, wanted: f64| (f64::from(found) - wanted).abs() <= 1e-5;
            assert!(close(found.p, p[1]) && close(found.entropy, entropy), "{} {}", found.p, found.entropy);
            assert!(close(found.entropy_top_k, entropy), "all five are within K: {}", found.entropy_top_k);
            assert!(close(found.gate[0], 1.0) && close(found.gate[1], gate), "{:?} and not {gate}", found.gate);
            assert!(close(found.gradient[0], norm) && close(found.gradient[1], gate * norm), "{:?}", found.gradient);
            gates.push(found.gate[1]);
        }
        assert!(gates[0] > 0.9 && gates[2] < 0.01, "the surer, the smaller: {gates:?}");
        // At the end of single precision nothing becomes NaN.
        let sure = wait(weigh(&Device::cpu(), &[300.0, -300.0], 1, 1.0, &objectives)).unwrap();
        assert_eq!((sure.p, sure.entropy, sure.gate[1], sure.gradient[1]), (0.0, 0.0, 0.0, 0.0));
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
