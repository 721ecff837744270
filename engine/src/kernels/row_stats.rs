//! Statistics of logits rows that every objective is made of, merged over tiles of the vocabulary.

use burn::tensor::Tensor;
use temper_shaders::{MAX_TOP_K, ROW_STATS, RowStatsBindings, RowStatsParams, STATS_WIDTH};

use super::cpu;
use super::launch::size;
use super::sample::{self, Case};
use super::tensor::{
    Indices, empty_gpu, flat, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice,
    slice_mut,
};
use crate::device::Device;
use crate::error::Result;

/// A confident conflict has a label probability below this ...
pub const CONFLICT_PROBABILITY: f32 = 0.1;
/// ... and a full entropy (nats) below this: the model is sure and the label disagrees.
pub const CONFLICT_ENTROPY: f32 = 0.5;
/// Entropies, in nats, up to which the model is sure of a token and from which on it is open.
pub const SURE: f32 = 0.5;
/// See [`SURE`].
pub const OPEN: f32 = 2.0;

/// Statistics of one row of logits `z` with label `y`. The row statistics kernel and its CPU twin produce these.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(Default))]
pub struct RowStats {
    /// Cross entropy in nats: `ln sum_v exp(z_v - max) + (max - z_y)`, formed by its producer from the shifted parts,
    /// since subtracting two large numbers of f32 would cost digits where logits are large.
    pub ce: f32,
    /// `H_K` in nats, clamped by its producer to `[0, ln min(K, V)]`.
    pub entropy_top_k: f32,
    /// How many tokens that entropy is of: `min(K, V)`, or as many as carry the share that was asked for.
    pub entropy_tokens: u32,
    /// `H` in nats, clamped by its producer to `[0, ln V]`.
    pub entropy_full: f32,
    /// `sum_v P(v)^2`, in `[1/V, 1]`.
    pub collision: f32,
}

impl RowStats {
    /// Probability of the label.
    pub fn p(&self) -> f32 {
        (-self.ce).exp()
    }

    /// False where the row holds a NaN or infinity, which includes a label whose own logit is minus infinity: the step
    /// must be abandoned and the row named.
    pub fn is_finite(&self) -> bool {
        [self.ce, self.entropy_top_k, self.entropy_full, self.collision].iter().all(|v| v.is_finite())
    }

    /// Norm of the cross entropy's gradient by this row's logits, `|P - onehot(y)|`: from 0 to the square root of 2.
    pub fn gradient_norm(&self) -> f32 {
        let p = self.p();
        ((1.0 - p).powi(2) + (self.collision - p * p).max(0.0)).sqrt()
    }

    /// The model is sure of the token: its entropy is at most [`SURE`]. The paper's low-entropy tokens (Figure 4).
    pub fn is_sure(&self) -> bool {
        self.entropy_full <= SURE
    }

    /// The model is open: its entropy is at least [`OPEN`]. The paper's high-entropy tokens.
    pub fn is_open(&self) -> bool {
        self.entropy_full >= OPEN
    }

    /// A confident conflict by the absolute thresholds [`CONFLICT_PROBABILITY`] and [`CONFLICT_ENTROPY`].
    pub fn is_conflict(&self) -> bool {
        self.p() < CONFLICT_PROBABILITY && self.entropy_full < CONFLICT_ENTROPY
    }
}

/// Statistics of some rows after the tiles seen so far.
pub struct Statistics {
    /// `[rows, 8]`; see the shader's header for the fields.
    pub fields: Tensor<2>,
    /// The largest values so far, `[rows, 64]`.
    pub top: Tensor<2>,
}

/// Adds a tile of logits, `[rows, columns]` from vocabulary entry `column_start` on. `top_k` is at most [`MAX_TOP_K`]; with
/// 0 the entropy is that of all tokens.
///
/// # Errors
/// Device errors.
pub fn accumulate(
    device: &Device,
    logits: &Tensor<2>,
    column_start: usize,
    labels: &Indices,
    top_k: usize,
    before: Option<Statistics>,
) -> Result<Statistics> {
    let [rows, columns] = logits.dims();
    let (slots, width) = (MAX_TOP_K, STATS_WIDTH);
    let params = RowStatsParams {
        rows: size(rows),
        cols: size(columns),
        column_start: size(column_start),
        top_k: size(top_k),
        first: u32::from(before.is_none()),
    };
    if device.is_cpu() {
        let logits = on_cpu(logits);
        let (mut top, mut fields) = match before {
            Some(before) => (into_cpu(before.top), into_cpu(before.fields)),
            None => (
                into_cpu(from_vec(vec![0.0; rows * slots], [rows, slots])),
                into_cpu(from_vec(vec![0.0; rows * width], [rows, width])),
            ),
        };
        cpu::row_stats(&params, slice(&logits), labels.host(), slice_mut(&mut top), slice_mut(&mut fields));
        return Ok(Statistics { fields: from_flex(fields), top: from_flex(top) });
    }
    let logits = on_gpu(logits);
    let (top, fields) = match before {
        Some(before) => (into_gpu(before.top), into_gpu(before.fields)),
        None => (empty_gpu(&logits, [rows, slots]), empty_gpu(&logits, [rows, width])),
    };
    let tensors = RowStatsBindings { logits: &logits, labels: labels.gpu(), top: &top, stats: &fields };
    gpu_of(device).run(&ROW_STATS, params, tensors, rows as u64)?;
    Ok(Statistics { fields: from_cube(fields), top: from_cube(top) })
}

/// Host statistics of one row from its fields; `None` where a logit was NaN or infinite.
pub fn from_fields(fields: &[f32]) -> Option<RowStats> {
    let [max, sum, u, sum_squares, label_logit, not_finite, count, entropy_top_k] =
        fields.try_into().expect("eight fields a row");
    let stats = RowStats {
        ce: sum.ln() + (max - label_logit),
        entropy_top_k,
        entropy_tokens: count as u32,
        entropy_full: (sum.ln() - u / sum).max(0.0),
        collision: sum_squares / (sum * sum),
    };
    (not_finite == 0.0 && sum > 0.0 && stats.is_finite()).then_some(stats)
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[("row_stats", |d| Ok(vec![flat(&sample_statistics(d)?)]))];

/// Fields of the self-test's logits.
pub(super) fn sample_statistics(device: &Device) -> Result<Tensor<2>> {
    Ok(accumulate(device, &sample::logits(device), 0, &sample::labels(device), 20, None)?.fields)
}
