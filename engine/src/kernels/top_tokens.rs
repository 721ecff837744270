//! The most likely tokens of a row of logits, found where the logits lie: a row of them is large, and reading it back takes
//! longer on a GPU than making it.

use burn::tensor::Tensor;
use temper_shaders::{MAX_TOP_K, NO_LABEL, TOP_TOKENS, TopTokensBindings, TopTokensParams, stat};

use super::launch::size;
use super::sample::{self, Case};
use super::tensor::{Indices, empty_gpu, flat, from_cube, from_vec, gpu_of, on_cpu, on_gpu, read_all, slice};
use super::{cpu, row_stats};
use crate::device::Device;
use crate::error::Result;

/// The most likely tokens of a row and their logits, in descending order.
pub type Top = Vec<(u32, f32)>;

/// What is known of some rows.
pub enum Found {
    /// The most likely tokens of each.
    Top(Vec<Top>),
    /// The first row with a logit that is NaN or infinite.
    NonFinite(usize),
    /// More tokens are as likely as the last one that was asked for than a kernel counts: whole rows must be read.
    Ties,
}

/// The `top_k` (at most 64) most likely tokens of each row of logits, `[rows, tile]` a tile of the vocabulary.
///
/// # Errors
/// Device errors.
pub async fn top_tokens(device: &Device, tiles: &[Tensor<2>], top_k: usize) -> Result<Found> {
    let mut read = Vec::with_capacity(3 * tiles.len());
    let mut start = 0;
    for logits in tiles {
        read.extend(of_tile(device, logits, start, top_k)?);
        start += logits.dims()[1];
    }
    let rows = tiles.first().map_or(0, |tile| tile.dims()[0]);
    let read = read_all(read).await?;
    let mut found = vec![Top::new(); rows];
    for tile in read.chunks_exact(3) {
        let [tokens, values, fields] = tile else { unreachable!("three tensors a tile") };
        let width = fields.len() / rows.max(1);
        if let Some(row) = fields.chunks_exact(width.max(1)).position(|fields| fields[stat::NONFINITE] != 0.0) {
            return Ok(Found::NonFinite(row));
        }
        let lists = tokens.chunks_exact(MAX_TOP_K).zip(values.chunks_exact(MAX_TOP_K));
        for (found, (tokens, values)) in found.iter_mut().zip(lists) {
            if tokens[0] < -1.0 {
                return Ok(Found::Ties);
            }
            found.extend(
                tokens.iter().zip(values).take_while(|(token, _)| **token >= 0.0).map(|(t, v)| (*t as u32, *v)),
            );
        }
    }
    for top in &mut found {
        // Stable: of equals the one of the earlier tile comes first.
        top.sort_by(|a, b| b.1.total_cmp(&a.1));
        top.truncate(top_k);
    }
    Ok(Found::Top(found))
}

/// Tokens, their logits, and statistics of a tile.
fn of_tile(device: &Device, logits: &Tensor<2>, column_start: usize, top_k: usize) -> Result<[Tensor<1>; 3]> {
    let labels = Indices::new(device, vec![NO_LABEL; logits.dims()[0]]);
    let statistics = row_stats::accumulate(device, logits, column_start, &labels, top_k, None)?;
    let tokens = tokens_of(device, logits, column_start, top_k, &statistics.top)?;
    Ok([flat(&tokens), flat(&statistics.top), flat(&statistics.fields)])
}

/// Where the values `top [rows, 64]` stand in a tile, `[rows, 64]`.
fn tokens_of(
    device: &Device,
    logits: &Tensor<2>,
    column_start: usize,
    top_k: usize,
    top: &Tensor<2>,
) -> Result<Tensor<2>> {
    let [rows, columns] = logits.dims();
    let params =
        TopTokensParams { rows: size(rows), cols: size(columns), column_start: size(column_start), top_k: size(top_k) };
    if device.is_cpu() {
        let (logits, top) = (on_cpu(logits), on_cpu(top));
        let mut tokens = vec![0.0; rows * MAX_TOP_K];
        cpu::top_tokens(&params, slice(&logits), slice(&top), &mut tokens);
        return Ok(from_vec(tokens, [rows, MAX_TOP_K]));
    }
    let (logits, top) = (on_gpu(logits), on_gpu(top));
    let tokens = empty_gpu(&logits, [rows, MAX_TOP_K]);
    let tensors = TopTokensBindings { logits: &logits, top: &top, tokens: &tokens };
    gpu_of(device).run(&TOP_TOKENS, params, tensors, rows as u64)?;
    Ok(from_cube(tokens))
}

/// The most likely token of each row whose whole statistics are known, `[rows * 64]` a tile of the vocabulary: the token in the
/// first place of a row where it lies in this tile, -1 where it does not, -2 where more are equally likely than a kernel counts.
///
/// # Errors
/// Device errors.
#[cfg(not(target_family = "wasm"))]
pub fn most_likely(device: &Device, tiles: &[Tensor<2>], statistics: &row_stats::Statistics) -> Result<Vec<Tensor<1>>> {
    let mut start = 0;
    let of_tile = |logits: &Tensor<2>| {
        let found = tokens_of(device, logits, start, 1, &statistics.top)?;
        start += logits.dims()[1];
        Ok(flat(&found))
    };
    tiles.iter().map(of_tile).collect()
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[("top_tokens", |d| {
    let [tokens, ..] = of_tile(d, &sample::logits(d), 0, 20)?;
    Ok(vec![tokens])
})];
