//! How a data set meets a model before it is trained: one forward pass, and of every trained token what the model
//! thought of it.
//!
//! Place in the flow: documents -> [score] -> [`Tally`](super::tally::Tally) and the other counts of `tally.rs`.
//! Documents come in windows of any number; nothing is kept from one to the next but what the counts hold.

use burn::tensor::Tensor;
use temper_shaders::{LOWEST, MAX_TOP_K, NO_LABEL, STATS_WIDTH, stat};

use super::tally::{Fidelity, TokenScore};
use crate::data::{Document, WINDOW, pack};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::row_stats::{self, RowStats};
use crate::kernels::statistics::Selection;
use crate::kernels::tensor::{flat, read_all};
use crate::kernels::{self, Indices, top_tokens};
use crate::loss::objective::Objective;
use crate::loss::plan::{HeadLimits, head_plan};
use crate::model::vocabulary::VocabularyMatrix;
use crate::model::{Keep, Model};

/// Scores every trained token of some documents, in their order. `gate` is an objective whose weight needs no
/// statistics of a batch; `fidelity` hears of the entropies of every K.
///
/// # Errors
/// [`Error::NonFinite`] on NaN logits, device errors.
///
/// # Panics
/// Where `gate` needs a batch, or reads another entropy than that of the K most likely tokens with a K up to [`MAX_TOP_K`].
pub async fn score(
    model: &mut Model,
    documents: &[&Document],
    gate: &Objective,
    fidelity: &mut Fidelity,
) -> Result<Vec<TokenScore>> {
    Ok(score_until(model, documents, gate, fidelity, &|| false).await?.expect("nobody stops it"))
}

/// As [`score`]; none where `stop`, which is asked before every block and every chunk of logits, says so.
///
/// # Errors
/// As [`score`].
///
/// # Panics
/// As [`score`].
pub async fn score_until(
    model: &mut Model,
    documents: &[&Document],
    gate: &Objective,
    fidelity: &mut Fidelity,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<TokenScore>>> {
    assert!(!gate.needs_batch(), "a weight that is known token by token");
    let scored = score_all(model, documents, gate, fidelity, stop).await;
    scored.map_err(|error| model.placement().explain(error))
}

async fn score_all(
    model: &mut Model,
    documents: &[&Document],
    gate: &Objective,
    fidelity: &mut Fidelity,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<TokenScore>>> {
    let longest = documents.iter().map(|d| d.tokens.len()).max().unwrap_or(0);
    let vocab = model.arch.vocab;
    let top_k = match gate.top_k() {
        Some(Selection::Top(k)) if k <= MAX_TOP_K => k,
        other => panic!("entropies of up to {MAX_TOP_K} tokens are made, not of {other:?}"),
    };
    let constants = gate.without_batch(vocab);
    let mut scores = Vec::new();
    for batch in pack(documents, longest.max(WINDOW), true)? {
        let Some(forward) = model.forward_until(&batch, Keep::Nothing, None, stop)? else { return Ok(None) };
        let Some(trained) = model.trained_rows(&batch, &forward)? else { continue };
        let device = model.placement().last();
        let seen = match look(device, model.head(), &trained.hidden, &trained.labels, stop).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(None),
            Err(error) => return Err(model.blame(error).await),
        };
        for ((&row, &token), seen) in trained.rows.iter().zip(&trained.labels).zip(&seen) {
            let row = row as usize;
            let mut stats = seen.stats;
            fidelity.add(&seen.top, f64::from(stats.entropy_full), |k, entropy| {
                if k == top_k {
                    stats.entropy_top_k = entropy as f32;
                }
            });
            scores.push(TokenScore {
                document: batch.document[row],
                position: batch.positions[row] + 1,
                token,
                stats,
                gate: gate.weight(&stats, &constants),
                wanted: seen.wanted,
                wanted_p: seen.wanted_p,
            });
        }
    }
    Ok(Some(scores))
}

/// What is read of a row of logits.
struct Seen {
    stats: RowStats,
    wanted: u32,
    wanted_p: f32,
    /// The largest logits, descending; [`LOWEST`] where there are no more.
    top: [f32; MAX_TOP_K],
}

/// Statistics of rows of final-norm outputs, chunk by chunk as the loss head makes them; read back once. None where `stop`
/// said so.
async fn look(
    device: &Device,
    head: &VocabularyMatrix,
    hidden: &Tensor<2>,
    labels: &[u32],
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Seen>>> {
    let [rows, width] = hidden.dims();
    let limits = HeadLimits::new(device.max_binding_bytes(), device.tile_bytes());
    let at_once = head_plan(rows, width, head.rows(), limits)?.rows_per_chunk;
    let mut on_device = Vec::new();
    for start in (0..rows).step_by(at_once) {
        if stop() {
            return Ok(None);
        }
        let end = (start + at_once).min(rows);
        let labels = Indices::new(device, labels[start..end].to_vec());
        let logits = head.logits(device, &kernels::tensor::rows(hidden, start..end))?;
        let mut found = None;
        for (tile, logits) in head.tiles().iter().zip(&logits) {
            found = Some(row_stats::accumulate(device, logits, tile.start, &labels, MAX_TOP_K, found)?);
        }
        let found = found.expect("a head has at least one tile");
        on_device.extend([flat(&found.fields), flat(&found.top)]);
        on_device.extend(top_tokens::most_likely(device, &logits, &found)?);
    }
    let read = read_all(on_device).await?;
    let mut seen = Vec::with_capacity(rows);
    for chunk in read.chunks_exact(2 + head.tiles().len()) {
        let [fields, top, tokens @ ..] = chunk else { unreachable!("statistics, logits and a tensor a tile") };
        let rows = fields.chunks_exact(STATS_WIDTH).zip(top.chunks_exact(MAX_TOP_K));
        for (row, (fields, top)) in rows.enumerate() {
            let stats = row_stats::from_fields(fields);
            let stats = stats.ok_or(Error::NonFinite { tensor: "logits".into(), row: seen.len(), step: None })?;
            // The first tile that has the largest logit has the lowest token; -2 is a tile of too many equals.
            let first = tokens.iter().map(|tile| tile[row * MAX_TOP_K]).find(|token| *token != -1.0).unwrap_or(-1.0);
            let wanted = match first {
                token if token >= 0.0 => token as u32,
                _ => first_of_equals(device, head, hidden, seen.len()).await?,
            };
            let top = top.try_into().expect("64 values a row");
            seen.push(Seen { stats, wanted, wanted_p: 1.0 / fields[stat::SUM], top });
        }
    }
    Ok(Some(seen))
}

/// The most likely token of a row in which more are equal than a kernel counts.
async fn first_of_equals(device: &Device, head: &VocabularyMatrix, hidden: &Tensor<2>, row: usize) -> Result<u32> {
    let logits = head.logits(device, &kernels::tensor::rows(hidden, row..row + 1))?;
    let mut best = (NO_LABEL, LOWEST);
    for (tile, logits) in head.tiles().iter().zip(&logits) {
        for (column, z) in kernels::tensor::read(logits).await?.into_iter().enumerate() {
            if z > best.1 {
                best = ((tile.start + column) as u32, z);
            }
        }
    }
    Ok(best.0)
}
