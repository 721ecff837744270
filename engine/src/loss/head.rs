//! The chunked loss head: hidden states of trained rows in, per-row statistics and the hidden gradient out.
//!
//! Per chunk of rows: a product with each vocabulary tile, one sweep for the row statistics, the gate, the gradient
//! written over the logits, and a product back. Two matrix products, no recomputation, no second copy of the logits.

use burn::tensor::Tensor;

use super::objective::{BatchStats, Objective};
use super::plan::{HeadLimits, head_plan};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::adamw::{self, SumSquares};
use crate::kernels::matmul::{AsOperand, Product};
use crate::kernels::row_stats::RowStats;
use crate::kernels::row_stats::Statistics;
use crate::kernels::tensor::{flat, joined, read_all};
use crate::kernels::{self, Columns, Indices};
use crate::model::vocabulary::VocabularyMatrix;
use temper_shaders::stat;

/// What the head computed for a set of rows.
pub struct HeadOutput {
    /// Statistics, chunk by chunk, still on the device.
    statistics: Vec<Tensor<2>>,
    /// Gradient weights, chunk by chunk, times the reciprocal token count.
    weights: Vec<Tensor<1>>,
}

impl HeadOutput {
    /// What [`rows_of`] wants read back: each chunk's statistics, then each chunk's weights.
    pub fn on_device(&self) -> Vec<Tensor<1>> {
        self.statistics.iter().map(flat).chain(self.weights.iter().cloned()).collect()
    }

    /// Reads statistics and gradient weights of all rows back, the weights as the device used them (already divided by the
    /// token count).
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first row that has a NaN or infinite logit; device errors.
    pub async fn rows(&self) -> Result<(Vec<RowStats>, Vec<f32>)> {
        rows_of(&read_all(self.on_device()).await?)
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
/// not, and of the squares of their largest and label's logits with what lies between in `stats`. The gradient's norm does not
/// tell: a row of weight 0 leaves no gradient, whatever its logits are.
///
/// # Errors
/// Device errors.
pub fn sums(device: &Device, outputs: &[HeadOutput]) -> Result<[SumSquares; 2]> {
    let sum = |offset, width| {
        let fields = outputs.iter().flat_map(|output| &output.statistics);
        let columns = fields.map(|fields| kernels::elementwise::columns(device, fields, Columns { offset, width }));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        adamw::sum_squares(device, &columns.iter().collect::<Vec<_>>())
    };
    Ok([sum(stat::NONFINITE, 1)?, sum(stat::MAX, stat::LABEL_LOGIT + 1 - stat::MAX)?])
}

/// True where the rows have to be read to know whether all are finite: one of [`sums`]' logits is not, or so large that the
/// difference of two of them, and with it a loss, may not be. Two finite f32 differ by more than f32 holds only if one of them
/// is above half of its largest; on a GPU, where the squares are f32, that one's is infinite.
pub fn is_suspect([counts, sizes]: [f64; 2]) -> bool {
    let half = f64::from(f32::MAX) / 2.0;
    counts != 0.0 || sizes.is_nan() || sizes >= half * half
}

/// Statistics and weights from the host copies of [`HeadOutput::on_device`].
///
/// # Errors
/// [`Error::NonFinite`] with the first row that has a NaN or infinite logit.
pub fn rows_of(read: &[Vec<f32>]) -> Result<(Vec<RowStats>, Vec<f32>)> {
    let (statistics, weights) = read.split_at(read.len() / 2);
    Ok((statistics_of(statistics)?, weights.concat()))
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
    top_k: usize,
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
    top_k: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<RowStats>>> {
    let mut collected = Vec::new();
    for chunk in chunks(device, head, hidden, labels)? {
        if stop() {
            return Ok(None);
        }
        let logits = head.logits(device, &chunk.hidden)?;
        collected.push(chunk_statistics(device, head, &logits, &chunk.labels, top_k)?.fields);
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
/// [`Error::Label`] on a label outside the vocabulary, device errors.
pub fn gradient(
    device: &Device,
    head: &mut VocabularyMatrix,
    hidden: &Tensor<2>,
    labels: &[u32],
    objective: &Objective,
    batch: &BatchStats,
    reciprocal: f32,
) -> Result<(HeadOutput, Tensor<2>)> {
    let mut output = (Vec::new(), Vec::new(), Vec::new());
    let gate = objective.gate_params(batch);
    for chunk in chunks(device, head, hidden, labels)? {
        let mut logits = head.logits(device, &chunk.hidden)?;
        let statistics = chunk_statistics(device, head, &logits, &chunk.labels, top_k(objective))?;
        let weight = kernels::gate::weights(device, &statistics.fields, &gate, reciprocal)?;
        let mut dhidden: Option<Tensor<2>> = None;
        for (tile, tile_logits) in head.tiles_mut().iter_mut().zip(logits.drain(..)) {
            let start = tile.start;
            let dlogits = kernels::loss_gradient::over_logits(
                device,
                tile_logits,
                start,
                &chunk.labels,
                &weight,
                &statistics.fields,
            )?;
            dhidden = Some(Product::of(&dlogits, tile.weight.operand()).added_to(dhidden).run(device)?);
            if let Some(weight) = tile.weight.trained_mut() {
                let sum = weight.gradient.take();
                weight.gradient = Some(Product::of(dlogits.transposed(), &chunk.hidden).added_to(sum).run(device)?);
            }
        }
        output.0.push(statistics.fields);
        output.1.push(weight);
        output.2.extend(dhidden);
    }
    let (statistics, weights, dhidden) = output;
    Ok((HeadOutput { statistics, weights }, joined(dhidden, 0)))
}

/// The K of the row statistics: the objective's own, or the method's default where its weight reads no top-K entropy, so
/// that what is reported about a run means the same for every objective.
pub fn top_k(objective: &Objective) -> usize {
    objective.top_k().unwrap_or(20)
}

struct Chunk {
    hidden: Tensor<2>,
    labels: Indices,
}

fn chunks(device: &Device, head: &VocabularyMatrix, hidden: &Tensor<2>, labels: &[u32]) -> Result<Vec<Chunk>> {
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
    let plan = head_plan(rows, width, head.rows(), HeadLimits::new(device.max_binding_bytes(), device.tile_bytes()))?;
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

fn chunk_statistics(
    device: &Device,
    head: &VocabularyMatrix,
    logits: &[Tensor<2>],
    labels: &Indices,
    top_k: usize,
) -> Result<Statistics> {
    let mut statistics: Option<Statistics> = None;
    for (tile, logits) in head.tiles().iter().zip(logits) {
        statistics = Some(kernels::row_stats::accumulate(device, logits, tile.start, labels, top_k, statistics)?);
    }
    Ok(statistics.expect("a head has at least one tile"))
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
