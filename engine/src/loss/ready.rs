//! An objective on logits that already exist, for comparison with other frameworks and for `temper bench loss`.
//!
//! The same kernels as the head's, without its matrix products. The gradient is written over the logits.

use super::head;
use super::objective::Objective;
use super::objective::shuffle::shuffled;
use super::plan::columns_per_tile;
use crate::data::IGNORE;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::row_stats::{RowStats, from_fields};
use crate::kernels::tensor::read;
use crate::kernels::{self, Indices};
use crate::model::parameter::from_host;

/// What an objective makes of logits and labels.
pub struct Evaluated {
    /// Cross entropy per row in nats; 0 where the label is ignored.
    pub ce: Vec<f32>,
    /// Top-K entropy per row in nats; 0 where the label is ignored.
    pub entropy: Vec<f32>,
    /// Weight per row; 0 where the label is ignored.
    pub weight: Vec<f32>,
    /// Sum of the rows' losses over the number of rows that are not ignored.
    pub loss: f32,
    /// Gradient of that loss by the logits, `[rows, vocab]`; exactly 0 in ignored rows.
    pub gradient: Vec<f32>,
}

/// Evaluates `objective` on `logits [rows, vocab]` and `labels [rows]`, -100 meaning ignored.
///
/// Each row is a sequence of its own to objectives that ask (TALR). Shuffled gates are shuffled with seed 0.
///
/// # Errors
/// [`Error::Config`] for an objective that needs the untouched model, of which there are no logits here; [`Error::Label`], [`Error::Shape`], [`Error::NonFinite`] naming the row as given, device errors.
pub async fn evaluate(
    device: &Device,
    mut logits: Vec<f32>,
    labels: &[i64],
    vocab: usize,
    objective: &Objective,
) -> Result<Evaluated> {
    if objective.needs_untouched() {
        let problem = format!(
            "[objective] method: {} needs the untouched model, and there are logits of one model only",
            objective.method()
        );
        return Err(Error::Config { problems: vec![problem] });
    }
    let rows = labels.len();
    if logits.len() != rows * vocab || vocab == 0 {
        return Err(Error::Shape {
            what: "logits".into(),
            expected: format!("[{rows}, {vocab}]"),
            got: format!("{} values", logits.len()),
        });
    }
    let scored: Vec<usize> = (0..rows).filter(|&row| labels[row] != i64::from(IGNORE)).collect();
    if let Some(&row) = scored.iter().find(|&&row| labels[row] < 0 || labels[row] >= vocab as i64) {
        return Err(Error::Label { row, label: labels[row], vocab });
    }
    let mut result = Evaluated {
        ce: vec![0.0; rows],
        entropy: vec![0.0; rows],
        weight: vec![0.0; rows],
        loss: 0.0,
        gradient: Vec::new(),
    };
    if scored.is_empty() {
        logits.fill(0.0);
        result.gradient = logits;
        return Ok(result);
    }
    // Ignored rows never reach a kernel: what they hold cannot matter.
    let compact: Vec<f32> = scored.iter().flat_map(|&row| logits[row * vocab..][..vocab].iter().copied()).collect();
    let label: Vec<u32> = scored.iter().map(|&row| labels[row] as u32).collect();
    let n = scored.len();
    let label = Indices::new(device, label);
    // A tile is at most a quarter of a binding wide, so that some rows fit too.
    let width = columns_per_tile(1, vocab, device.max_binding_bytes())?.min(vocab);
    let at_once = ((device.max_binding_bytes() / 4) as usize / width).clamp(1, n);
    let mut stats: Vec<RowStats> = Vec::with_capacity(n);
    let mut parts = Vec::new();
    for start in (0..n).step_by(at_once) {
        let end = (start + at_once).min(n);
        let indices = Indices::new(device, label.host()[start..end].to_vec());
        let tensor = from_host(compact[start * vocab..end * vocab].to_vec(), [end - start, vocab], device);
        let statistics = kernels::statistics::of_tiles(device, &[&tensor], &indices, head::top_k(objective))?;
        for fields in read(&statistics.fields).await?.chunks_exact(temper_shaders::STATS_WIDTH) {
            let row = scored[stats.len()];
            stats.push(from_fields(fields).ok_or(Error::NonFinite { tensor: "logits".into(), row, step: None })?);
        }
        parts.push((tensor, indices, statistics));
    }
    let sequences: Vec<u32> = (0..n as u32).collect();
    let batch = match objective.needs_batch() {
        true => objective.batch(&stats, &sequences, vocab)?,
        false => objective.without_batch(vocab),
    };
    let gate = objective.gate_params(&batch);
    let reciprocal = 1.0 / n as f32;
    let (mut weights, mut gradient) = (Vec::with_capacity(n), Vec::with_capacity(n * vocab));
    for (.., statistics) in &parts {
        weights.extend(read(&kernels::gate::weights(device, &statistics.fields, &gate, 1.0)?).await?);
    }
    if objective.is_shuffled() {
        let places: Vec<_> = sequences.iter().map(|&row| (row, 0)).collect();
        weights = shuffled(&weights, &places, 0);
    }
    let mut start = 0;
    for (tensor, indices, statistics) in parts {
        let of_part = start..start + indices.host().len();
        start = of_part.end;
        let weight = match objective.is_shuffled() {
            true => head::given(device, weights[of_part].iter().map(|weight| weight * reciprocal).collect()),
            false => kernels::gate::weights(device, &statistics.fields, &gate, reciprocal)?,
        };
        let over = kernels::loss_gradient::over_logits(device, tensor, 0, &indices, &weight, &statistics.fields)?;
        gradient.extend(read(&over).await?);
    }
    let mut sum = 0.0;
    logits.fill(0.0);
    for (index, &row) in scored.iter().enumerate() {
        result.ce[row] = stats[index].ce;
        result.entropy[row] = stats[index].entropy_top_k;
        result.weight[row] = weights[index];
        sum += f64::from(match objective.is_shuffled() {
            true => weights[index] * stats[index].ce,
            false => objective.loss(&stats[index], &batch),
        });
        logits[row * vocab..][..vocab].copy_from_slice(&gradient[index * vocab..][..vocab]);
    }
    result.loss = (sum / n as f64) as f32;
    result.gradient = logits;
    Ok(result)
}
