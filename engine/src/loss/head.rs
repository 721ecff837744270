//! The chunked loss head: hidden states of trained rows in, per-row statistics and the hidden gradient out.
//!
//! Per chunk of rows: a product with each vocabulary tile, one sweep for the row statistics, the gate, the gradient
//! written over the logits, and a product back. Two matrix products, no recomputation, no second copy of the logits.

use burn::tensor::Tensor;

use super::objective::{BatchStats, Divergence, Objective};
use super::plan::{HeadLimits, head_plan};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::adamw::{self, SumSquares};
use crate::kernels::matmul::{AsOperand, Product};
use crate::kernels::reference::{self, OfReference, Pulled};
use crate::kernels::row_stats::{RowStats, Statistics};
use crate::kernels::statistics::Selection;
use crate::kernels::tensor::{flat, joined, read_all};
use crate::kernels::{self, Columns, Indices};
use crate::model::parameter::from_host;
use crate::model::vocabulary::VocabularyMatrix;
use temper_shaders::stat;

/// What the head computed for a set of rows.
pub struct HeadOutput {
    /// Statistics, chunk by chunk, still on the device.
    statistics: Vec<Tensor<2>>,
    /// Gradient weights, chunk by chunk, times the reciprocal token count.
    weights: Vec<Tensor<1>>,
    /// Divergences from the untouched model in nats, chunk by chunk, where the objective has one.
    divergences: Vec<Tensor<2>>,
}

/// What of the rows was read back.
#[derive(Debug, Default)]
pub struct HeadRows {
    /// Statistics.
    pub stats: Vec<RowStats>,
    /// Gradient weights, already divided by the token count.
    pub weights: Vec<f32>,
    /// Divergences from the untouched model in nats; none where the objective has none.
    pub divergences: Vec<f32>,
}

/// What a step knows of its rows besides their hidden states and labels.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    /// The weight of each row, in place of what the gate makes of its statistics.
    pub weights: Option<&'a [f32]>,
    /// The untouched model's head, and its final-norm outputs of the same rows.
    pub untouched: Option<(&'a VocabularyMatrix, &'a Tensor<2>)>,
}

impl HeadOutput {
    /// What [`HeadOutput::rows_of`] wants read back: each chunk's statistics, then each chunk's weights, then its divergences.
    pub fn on_device(&self) -> Vec<Tensor<1>> {
        let weights = self.weights.iter().cloned();
        self.statistics.iter().map(flat).chain(weights).chain(self.divergences.iter().map(flat)).collect()
    }

    /// Reads statistics and gradient weights of all rows back, the weights as the device used them (already divided by the
    /// token count).
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first row that has a NaN or infinite logit; device errors.
    pub async fn rows(&self) -> Result<(Vec<RowStats>, Vec<f32>)> {
        let HeadRows { stats, weights, .. } = self.rows_of(&read_all(self.on_device()).await?)?;
        Ok((stats, weights))
    }

    /// Rows from the host copies of [`HeadOutput::on_device`].
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first row that has a NaN or infinite logit, or an infinite divergence.
    pub fn rows_of(&self, read: &[Vec<f32>]) -> Result<HeadRows> {
        let (statistics, rest) = read.split_at(self.statistics.len());
        let (weights, divergences) = rest.split_at(self.weights.len());
        let rows = HeadRows {
            stats: statistics_of(statistics)?,
            weights: weights.concat(),
            divergences: divergences.concat(),
        };
        match rows.divergences.iter().position(|kl| !kl.is_finite()) {
            Some(row) => {
                Err(Error::NonFinite { tensor: "the divergence from the untouched model".into(), row, step: None })
            }
            None => Ok(rows),
        }
    }

    /// Refuses a row with a NaN or infinite logit or loss. The rows themselves are read back only to name such a row.
    ///
    /// # Errors
    /// As [`HeadOutput::rows`].
    pub async fn check(&self, device: &Device) -> Result<()> {
        let [counts, sizes] = sums(device, std::slice::from_ref(self))?;
        if !is_suspect([counts.read().await?, sizes.read().await?]) {
            return Ok(());
        }
        self.rows().await.map(|_| ())
    }
}

/// Two sums that tell [`is_suspect`] whether a row may not be finite: of the squares of the rows' counts of logits that are
/// not, and of the squares of their largest and label's logits with what lies between in `stats`, and of the rows' divergences. The gradient's norm does not
/// tell: a row of weight 0 leaves no gradient, whatever its logits are.
///
/// # Errors
/// Device errors.
pub fn sums(device: &Device, outputs: &[HeadOutput]) -> Result<[SumSquares; 2]> {
    let columns = |offset, width| {
        let fields = outputs.iter().flat_map(|output| &output.statistics);
        let columns = fields.map(|fields| kernels::elementwise::columns(device, fields, Columns { offset, width }));
        columns.collect::<Result<Vec<_>>>()
    };
    let sum = |columns: Vec<Tensor<2>>| adamw::sum_squares(device, &columns.iter().collect::<Vec<_>>());
    let mut sizes = columns(stat::MAX, stat::LABEL_LOGIT + 1 - stat::MAX)?;
    sizes.extend(outputs.iter().flat_map(|output| output.divergences.iter().cloned()));
    Ok([sum(columns(stat::NONFINITE, 1)?)?, sum(sizes)?])
}

/// True where the rows have to be read to know whether all are finite: one of [`sums`]' logits is not, or so large that the
/// difference of two of them, and with it a loss, may not be. Two finite f32 differ by more than f32 holds only if one of them
/// is above half of its largest; on a GPU, where the squares are f32, that one's is infinite.
pub fn is_suspect([counts, sizes]: [f64; 2]) -> bool {
    let half = f64::from(f32::MAX) / 2.0;
    counts != 0.0 || sizes.is_nan() || sizes >= half * half
}

/// Row statistics alone, for evaluation and for objectives that need the whole batch's before any weight is known.
///
/// `hidden [rows, hidden]` are final-norm outputs; `labels` one per row.
///
/// # Errors
/// [`Error::NonFinite`] on NaN or infinite logits, [`Error::Label`] on a label outside the vocabulary, device errors.
pub async fn statistics(
    device: &Device,
    head: &VocabularyMatrix,
    hidden: &Tensor<2>,
    labels: &[u32],
    top_k: impl Into<Selection>,
) -> Result<Vec<RowStats>> {
    Ok(statistics_until(device, head, hidden, labels, top_k, &|| false).await?.expect("nobody stops it"))
}

/// As [`statistics`]; none where `stop`, which is asked before every chunk, says so.
///
/// # Errors
/// As [`statistics`].
pub async fn statistics_until(
    device: &Device,
    head: &VocabularyMatrix,
    hidden: &Tensor<2>,
    labels: &[u32],
    top_k: impl Into<Selection>,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<RowStats>>> {
    let (mut collected, selection) = (Vec::new(), top_k.into());
    for chunk in chunks(device, head, hidden, labels, 1)? {
        if stop() {
            return Ok(None);
        }
        let logits = head.logits(device, &chunk.hidden)?;
        collected.push(chunk_statistics(device, &logits, &chunk.labels, selection)?.fields);
    }
    statistics_of(&read_all(collected.iter().map(flat).collect()).await?).map(Some)
}

/// Statistics, gate and gradient of `objective` for rows of final-norm outputs; beside them the gradient of the loss by each
/// hidden row, `[rows, hidden]`.
///
/// `reciprocal` is one over the trained tokens of the whole accumulated batch: the only division there is. The head's
/// own gradient is added where its weight is trained.
///
/// # Errors
/// [`Error::Label`] on a label outside the vocabulary, [`Error::Config`] for an objective that needs what only a session knows
/// ([`gradient_of_known`]), device errors.
pub fn gradient(
    device: &Device,
    head: &mut VocabularyMatrix,
    hidden: &Tensor<2>,
    labels: &[u32],
    objective: &Objective,
    batch: &BatchStats,
    reciprocal: f32,
) -> Result<(HeadOutput, Tensor<2>)> {
    gradient_of_known(device, head, hidden, labels, objective, batch, Known::default(), reciprocal)
}

/// As [`gradient`], with what else is known of the rows: weights, where the objective's are not the rows' own, and the untouched
/// model, where the objective measures the divergence from it.
///
/// The untouched model's logits of a chunk lie beside the model's, so the two share what a chunk may take.
///
/// # Errors
/// As [`gradient`]; [`Error::Config`] where something is not known that the objective needs; [`Error::Shape`] with another
/// number of weights or rows.
#[allow(clippy::too_many_arguments, reason = "a step's batch is described by all of them, each for itself")]
pub fn gradient_of_known(
    device: &Device,
    head: &mut VocabularyMatrix,
    hidden: &Tensor<2>,
    labels: &[u32],
    objective: &Objective,
    batch: &BatchStats,
    known: Known,
    reciprocal: f32,
) -> Result<(HeadOutput, Tensor<2>)> {
    check_known(objective, known, hidden, head)?;
    let mut output = HeadOutput { statistics: Vec::new(), weights: Vec::new(), divergences: Vec::new() };
    let (mut gradients, mut row) = (Vec::new(), 0);
    let gate = objective.gate_params(batch);
    let untouched = objective.divergence().zip(known.untouched);
    for chunk in chunks(device, head, hidden, labels, if untouched.is_some() { 2 } else { 1 })? {
        let rows = row..row + chunk.labels.host().len();
        row = rows.end;
        let mut logits = head.logits(device, &chunk.hidden)?;
        let statistics = chunk_statistics(device, &logits, &chunk.labels, top_k(objective))?;
        let weight = match known.weights {
            Some(weights) => given(device, weights[rows.clone()].iter().map(|weight| weight * reciprocal).collect()),
            None => kernels::gate::weights(device, &statistics.fields, &gate, reciprocal)?,
        };
        let mut beside = untouched
            .map(|(divergence, (head, hidden))| {
                let hidden = kernels::tensor::rows(hidden, rows.clone());
                Untouched::of(device, head, &hidden, &chunk.labels, &logits, &statistics, divergence)
            })
            .transpose()?;
        let mut dhidden: Option<Tensor<2>> = None;
        for (index, (tile, tile_logits)) in head.tiles_mut().iter_mut().zip(logits.drain(..)).enumerate() {
            let start = tile.start;
            let dlogits = match &mut beside {
                None => {
                    let (labels, fields) = (&chunk.labels, &statistics.fields);
                    kernels::loss_gradient::over_logits(device, tile_logits, start, labels, &weight, fields)?
                }
                Some(beside) => {
                    let of = Pulled {
                        labels: &chunk.labels,
                        weight: &weight,
                        statistics: &statistics,
                        reference: &beside.statistics,
                        divergence: &beside.sums,
                        direction: beside.divergence.direction,
                        beta: beside.divergence.beta * reciprocal,
                    };
                    reference::over_logits(device, tile_logits, &beside.logits[index], start, &of)?
                }
            };
            dhidden = Some(Product::of(&dlogits, tile.weight.operand()).added_to(dhidden).run(device)?);
            if let Some(weight) = tile.weight.trained_mut() {
                let sum = weight.gradient.take();
                weight.gradient = Some(Product::of(dlogits.transposed(), &chunk.hidden).added_to(sum).run(device)?);
            }
        }
        output.statistics.push(statistics.fields);
        output.weights.push(weight);
        output.divergences.extend(beside.map(|beside| beside.sums));
        gradients.extend(dhidden);
    }
    Ok((output, joined(gradients, 0)))
}

/// Weights of rows that the host knows.
pub(super) fn given(device: &Device, weights: Vec<f32>) -> Tensor<1> {
    let rows = weights.len();
    from_host(weights, [1, rows], device).reshape([rows])
}

/// Refuses to train something else than what was asked for.
fn check_known(objective: &Objective, known: Known, hidden: &Tensor<2>, head: &VocabularyMatrix) -> Result<()> {
    let lacks = |what: &str| {
        let problem = format!("[objective] method: {} needs {what}, which only a run has", objective.method());
        Err(Error::Config { problems: vec![problem] })
    };
    if objective.divergence().is_some() && known.untouched.is_none() {
        return lacks("the untouched model");
    }
    if objective.weighs_samples() && known.weights.is_none() {
        return lacks("the weights of its samples");
    }
    if objective.is_shuffled() && known.weights.is_none() {
        return lacks("the gates of the whole batch");
    }
    let rows = hidden.dims()[0];
    if let Some(weights) = known.weights.filter(|weights| weights.len() != rows) {
        let (what, expected) = ("weights of the loss head".into(), format!("[{rows}]"));
        return Err(Error::Shape { what, expected, got: format!("[{}]", weights.len()) });
    }
    if let Some((other, untouched)) = known.untouched {
        let shape = |rows: usize, head: &VocabularyMatrix| {
            let tiles: Vec<_> = head.tiles().iter().map(|tile| tile.start).collect();
            format!("[{rows}, {}] in tiles from {tiles:?}", head.rows())
        };
        let (expected, got) = (shape(rows, head), shape(untouched.dims()[0], other));
        if expected != got {
            return Err(Error::Shape { what: "logits of the untouched model".into(), expected, got });
        }
    }
    Ok(())
}

/// The untouched model's logits of a chunk.
struct Untouched {
    logits: Vec<Tensor<2>>,
    statistics: Statistics,
    /// The divergence of each row, `[rows, 1]`.
    sums: Tensor<2>,
    divergence: Divergence,
}

impl Untouched {
    fn of(
        device: &Device,
        head: &VocabularyMatrix,
        hidden: &Tensor<2>,
        labels: &Indices,
        own: &[Tensor<2>],
        statistics: &Statistics,
        divergence: Divergence,
    ) -> Result<Self> {
        let logits = head.logits(device, hidden)?;
        let of_reference = chunk_statistics(device, &logits, labels, Selection::Top(1))?;
        let beside = OfReference { tiles: &logits, statistics: &of_reference };
        let sums = reference::divergence(device, own, statistics, &beside, divergence.direction)?;
        Ok(Self { logits, statistics: of_reference, sums, divergence })
    }
}

/// The tokens of the row statistics' entropy: the objective's own, or the method's default where its weight reads none, so
/// that what is reported about a run means the same for every objective.
pub fn top_k(objective: &Objective) -> Selection {
    objective.top_k().unwrap_or(Selection::Top(20))
}

struct Chunk {
    hidden: Tensor<2>,
    labels: Indices,
}

/// Chunks of rows, of which so many `models` have logits at once.
fn chunks(
    device: &Device,
    head: &VocabularyMatrix,
    hidden: &Tensor<2>,
    labels: &[u32],
    models: u64,
) -> Result<Vec<Chunk>> {
    let [rows, width] = hidden.dims();
    if rows != labels.len() {
        return Err(Error::Shape {
            what: "labels of the loss head".into(),
            expected: format!("[{rows}]"),
            got: format!("[{}]", labels.len()),
        });
    }
    if let Some(row) = labels.iter().position(|&l| l as usize >= head.rows()) {
        return Err(Error::Label { row, label: labels[row] as i32 as i64, vocab: head.rows() });
    }
    let limits = HeadLimits::new(device.max_binding_bytes(), device.tile_bytes()).shared_by(models);
    let plan = head_plan(rows, width, head.rows(), limits)?;
    Ok((0..rows)
        .step_by(plan.rows_per_chunk)
        .map(|start| {
            let end = (start + plan.rows_per_chunk).min(rows);
            Chunk {
                hidden: kernels::tensor::rows(hidden, start..end),
                labels: Indices::new(device, labels[start..end].to_vec()),
            }
        })
        .collect())
}

/// Statistics of rows from all tiles of their logits.
fn chunk_statistics(
    device: &Device,
    logits: &[Tensor<2>],
    labels: &Indices,
    selection: Selection,
) -> Result<Statistics> {
    kernels::statistics::of_tiles(device, &logits.iter().collect::<Vec<_>>(), labels, selection)
}

/// Host statistics from device fields, refusing what is not finite.
fn statistics_of(chunks: &[Vec<f32>]) -> Result<Vec<RowStats>> {
    let mut rows = Vec::new();
    for fields in chunks {
        for fields in fields.chunks_exact(temper_shaders::STATS_WIDTH) {
            let stats = kernels::row_stats::from_fields(fields);
            match stats {
                Some(stats) => rows.push(stats),
                None => return Err(Error::NonFinite { tensor: "logits".into(), row: rows.len(), step: None }),
            }
        }
    }
    Ok(rows)
}
