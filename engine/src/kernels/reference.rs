//! How far each row's distribution is from that of another model's logits, and the gradient of a loss with that in it.

use burn::tensor::Tensor;
use temper_shaders::{
    REFERENCE_DIVERGENCE, REFERENCE_GRADIENT, ReferenceDivergenceBindings, ReferenceDivergenceParams,
    ReferenceGradientBindings, ReferenceGradientParams,
};

use super::cpu;
use super::launch::size;
use super::row_stats::Statistics;
use super::sample::{self, Case};
use super::statistics::of_tiles;
use super::tensor::{
    Indices, empty_gpu, flat, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice,
    slice_mut,
};
use crate::device::Device;
use crate::error::Result;
use crate::settings::choice;

choice! {
    /// Which of the two divergences, with P the model's distribution of a token and Q the untouched model's.
    pub enum Direction {
        /// KL(Q || P): what the untouched model expected must stay possible.
        Forward = "forward" as "forward: keep what it expected",
        /// KL(P || Q): what the untouched model did not expect must stay unlikely.
        Reverse = "reverse" as "reverse: expect nothing new",
    }
}

impl Direction {
    fn kind(self) -> u32 {
        match self {
            Self::Forward => 0,
            Self::Reverse => 1,
        }
    }
}

/// Another model's logits of the same rows.
pub struct OfReference<'a> {
    /// A tensor `[rows, columns]` for each tile of the vocabulary.
    pub tiles: &'a [Tensor<2>],
    /// Their statistics.
    pub statistics: &'a Statistics,
}

/// The divergence of each row in nats, `[rows, 1]`, of logits in as many tiles.
///
/// # Errors
/// Device errors.
pub fn divergence(
    device: &Device,
    tiles: &[Tensor<2>],
    statistics: &Statistics,
    reference: &OfReference,
    direction: Direction,
) -> Result<Tensor<2>> {
    let rows = statistics.fields.dims()[0];
    let params = |tile: &Tensor<2>, first: bool| ReferenceDivergenceParams {
        rows: size(rows),
        cols: size(tile.dims()[1]),
        first: u32::from(first),
        kind: direction.kind(),
    };
    let pairs = tiles.iter().zip(reference.tiles).enumerate();
    if device.is_cpu() {
        let (stats, reference_stats) = (on_cpu(&statistics.fields), on_cpu(&reference.statistics.fields));
        let mut sums = vec![0.0; rows];
        for (index, (tile, other)) in pairs {
            let (logits, other, params) = (on_cpu(tile), on_cpu(other), params(tile, index == 0));
            let stats = [slice(&stats), slice(&reference_stats)];
            cpu::reference_divergence(&params, slice(&logits), slice(&other), stats, &mut sums);
        }
        return Ok(from_vec(sums, [rows, 1]));
    }
    let (stats, reference_stats) = (on_gpu(&statistics.fields), on_gpu(&reference.statistics.fields));
    let sums = empty_gpu(&stats, [rows, 1]);
    for (index, (tile, other)) in pairs {
        let (logits, reference, params) = (on_gpu(tile), on_gpu(other), params(tile, index == 0));
        let tensors = ReferenceDivergenceBindings {
            logits: &logits,
            reference: &reference,
            stats: &stats,
            reference_stats: &reference_stats,
            divergence: &sums,
        };
        gpu_of(device).run(&REFERENCE_DIVERGENCE, params, tensors, rows as u64)?;
    }
    Ok(from_cube(sums))
}

/// What [`over_logits`] makes a gradient of, beside the tile itself.
pub struct Pulled<'a> {
    /// Labels of the rows.
    pub labels: &'a Indices,
    /// Weight of each row's cross entropy, `[rows]`, already divided by the token count.
    pub weight: &'a Tensor<1>,
    /// Statistics of the model's logits.
    pub statistics: &'a Statistics,
    /// Those of the reference's.
    pub reference: &'a Statistics,
    /// What [`divergence`] gave.
    pub divergence: &'a Tensor<2>,
    /// Which it is.
    pub direction: Direction,
    /// Factor on it, already divided by the token count.
    pub beta: f32,
}

/// Overwrites a tile of logits `[rows, columns]`, from vocabulary entry `column_start` on, by the gradient of the weighted cross
/// entropy and `beta` times the divergence; `other` is the same tile of the reference.
///
/// # Errors
/// Device errors.
pub fn over_logits(
    device: &Device,
    logits: Tensor<2>,
    other: &Tensor<2>,
    column_start: usize,
    of: &Pulled,
) -> Result<Tensor<2>> {
    let [rows, columns] = logits.dims();
    let params = ReferenceGradientParams {
        rows: size(rows),
        cols: size(columns),
        column_start: size(column_start),
        kind: of.direction.kind(),
        beta: of.beta,
    };
    if device.is_cpu() {
        let (mut logits, other, weight, sums) =
            (into_cpu(logits), on_cpu(other), on_cpu(of.weight), on_cpu(of.divergence));
        let (stats, reference) = (on_cpu(&of.statistics.fields), on_cpu(&of.reference.fields));
        let of_rows = cpu::ReferenceRows {
            labels: of.labels.host(),
            weight: slice(&weight),
            stats: slice(&stats),
            reference_stats: slice(&reference),
            divergence: slice(&sums),
        };
        cpu::reference_gradient(&params, slice_mut(&mut logits), slice(&other), &of_rows);
        return Ok(from_flex(logits));
    }
    let (logits, other, weight, sums) = (into_gpu(logits), on_gpu(other), on_gpu(of.weight), on_gpu(of.divergence));
    let (stats, reference) = (on_gpu(&of.statistics.fields), on_gpu(&of.reference.fields));
    let tensors = ReferenceGradientBindings {
        logits: &logits,
        reference: &other,
        labels: of.labels.gpu(),
        weight: &weight,
        stats: &stats,
        reference_stats: &reference,
        divergence: &sums,
    };
    let workgroups = REFERENCE_GRADIENT.workgroups(rows as u64, columns as u64);
    gpu_of(device).run(&REFERENCE_GRADIENT, params, tensors, workgroups)?;
    Ok(from_cube(logits))
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[
    ("reference_divergence", |d| Ok(sampled(d)?.into_iter().map(|(divergence, _)| flat(&divergence)).collect())),
    ("reference_gradient", |d| Ok(sampled(d)?.into_iter().map(|(_, gradient)| flat(&gradient)).collect())),
];

/// Divergence and gradient of the self-test's logits in both directions.
fn sampled(device: &Device) -> Result<Vec<(Tensor<2>, Tensor<2>)>> {
    let (labels, weight) = (sample::labels(device), sample::vector(device, 21, sample::ROWS));
    let (logits, other) = (sample::logits(device), sample::other_logits(device));
    let statistics = of_tiles(device, &[&logits], &labels, 1)?;
    let reference = of_tiles(device, &[&other], &labels, 1)?;
    let of = |direction| {
        let (tiles, others) = (std::slice::from_ref(&logits), std::slice::from_ref(&other));
        let beside = OfReference { tiles: others, statistics: &reference };
        let divergence = divergence(device, tiles, &statistics, &beside, direction)?;
        let pulled = Pulled {
            labels: &labels,
            weight: &weight,
            statistics: &statistics,
            reference: &reference,
            divergence: &divergence,
            direction,
            beta: 0.5,
        };
        // A copy, since it is written over and still needed.
        let copy = sample::logits(device);
        let gradient = over_logits(device, copy, &other, 0, &pulled)?;
        Ok((divergence, gradient))
    };
    [Direction::Forward, Direction::Reverse].into_iter().map(of).collect()
}
