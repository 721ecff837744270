//! Causal grouped-query attention within each document of a packed stream, and its backward pass.
//!
//! On the CPU one fused pair of functions, linear in memory; on a GPU batched matrix products around our softmax kernels, a
//! [`Tile`] at a time: some key heads, and where the scores of one are too large also some of the queries, with the keys that
//! these see.

use std::ops::Range;

use burn::tensor::Tensor;
use temper_shaders::{
    ATTENTION_SOFTMAX, ATTENTION_SOFTMAX_BACKWARD, AttentionSoftmaxBackwardBindings, AttentionSoftmaxBindings,
    AttentionSoftmaxParams,
};

use super::cpu;
pub use super::cpu::attention::Shape;
use super::launch::size;
use super::matmul::{AsOperand, Product};
use super::sample::{Case, matrix};
use super::tensor::{Indices, flat, from_cube, from_vec, gpu_of, into_gpu, on_cpu, on_gpu, slice};
use crate::device::Device;
use crate::error::{Error, Result};

/// What the backward pass needs besides q, k, v and the output.
#[derive(Clone)]
pub enum AttentionState {
    /// Log-sum-exp of each head's scores, `[heads, tokens]`; probabilities are made again from it.
    LogSumExp(Tensor<2>),
    /// Nothing: the GPU path makes scores and probabilities again.
    Nothing,
}

/// `qkv [tokens, (heads + 2 kv_heads) * head_dim]` -> `[tokens, heads * head_dim]`.
///
/// `document_start[t]` is the index of the first token of `t`'s document.
///
/// # Errors
/// Device errors; [`Error::Limit`] where the scores of one query outgrow a binding.
pub fn forward(
    device: &Device,
    qkv: &Tensor<2>,
    shape: Shape,
    document_start: &Indices,
) -> Result<(Tensor<2>, AttentionState)> {
    let tokens = qkv.dims()[0];
    if device.is_cpu() {
        let qkv = on_cpu(qkv);
        let (mut out, mut lse) = (vec![0.0; tokens * shape.heads * shape.head_dim], vec![0.0; shape.heads * tokens]);
        cpu::attention(shape, slice(&qkv), document_start.host(), &mut out, &mut lse);
        let state = AttentionState::LogSumExp(from_vec(lse, [shape.heads, tokens]));
        return Ok((from_vec(out, [tokens, shape.heads * shape.head_dim]), state));
    }
    device.submit();
    let (q, k, v) = heads_first(qkv, shape);
    let mut heads = Vec::new();
    for of_heads in tiles(device, shape, document_start.host())? {
        let mut outs = Vec::new();
        for tile in &of_heads {
            device.submit();
            let (q, k, v) = (tile.of_queries(&q), tile.of_keys(&k), tile.of_keys(&v));
            let p = probabilities(device, tile, &q, &k, shape, document_start)?;
            outs.push(tile.unstacked(Product::of(&p, &v).run(device)?));
        }
        device.submit();
        heads.push(joined(outs, 1));
    }
    Ok((tokens_first(joined(heads, 0)), AttentionState::Nothing))
}

/// Gradient by `qkv` from `dout [tokens, heads * head_dim]`; `out` is the forward result.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    device: &Device,
    qkv: &Tensor<2>,
    out: &Tensor<2>,
    state: AttentionState,
    dout: &Tensor<2>,
    shape: Shape,
    document_start: &Indices,
) -> Result<Tensor<2>> {
    let [tokens, width] = qkv.dims();
    if let AttentionState::LogSumExp(lse) = state {
        let (qkv, out, lse, dout) = (on_cpu(qkv), on_cpu(out), on_cpu(&lse), on_cpu(dout));
        let mut dqkv = vec![0.0; tokens * width];
        let starts = document_start.host();
        cpu::attention_backward(shape, slice(&qkv), starts, slice(&out), slice(&lse), slice(&dout), &mut dqkv);
        return Ok(from_vec(dqkv, [tokens, width]));
    }
    device.submit();
    let (q, k, v) = heads_first(qkv, shape);
    let dout = dout.clone().reshape([tokens, shape.heads, shape.head_dim]).swap_dims(0, 1);
    let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
    for of_heads in tiles(device, shape, document_start.host())? {
        let mut dqs = Vec::new();
        let (mut dks, mut dvs) = (None, None);
        for tile in &of_heads {
            device.submit();
            let (q, k, v, dout) = (tile.of_queries(&q), tile.of_keys(&k), tile.of_keys(&v), tile.of_queries(&dout));
            let p = probabilities(device, tile, &q, &k, shape, document_start)?;
            tile.add_keys(&mut dvs, Product::of(p.transposed(), &dout).run(device)?, tokens, device);
            let dp = Product::of(&dout, v.transposed()).run(device)?;
            let ds = softmax_backward(device, tile, &p, dp, shape)?;
            drop(p);
            dqs.push(tile.unstacked(Product::of(&ds, &k).run(device)?));
            tile.add_keys(&mut dks, Product::of(ds.transposed(), &q).run(device)?, tokens, device);
        }
        device.submit();
        dq.push(joined(dqs, 1));
        dk.extend(dks);
        dv.extend(dvs);
    }
    Ok(Tensor::cat([dq, dk, dv].map(|heads| tokens_first(joined(heads, 0))).to_vec(), 1))
}

/// q as `[heads, tokens, head_dim]`, k and v as `[kv_heads, tokens, head_dim]`.
fn heads_first(qkv: &Tensor<2>, shape: Shape) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
    let tokens = qkv.dims()[0];
    let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let split = |from: usize, width: usize, heads: usize| {
        let part = qkv.clone().slice([0..tokens, from..from + width]);
        part.reshape([tokens, heads, shape.head_dim]).swap_dims(0, 1)
    };
    (split(0, q, shape.heads), split(q, kv, shape.kv_heads), split(q + kv, kv, shape.kv_heads))
}

/// `[heads, tokens, head_dim]` -> `[tokens, heads * head_dim]`.
fn tokens_first(x: Tensor<3>) -> Tensor<2> {
    let [heads, tokens, head_dim] = x.dims();
    x.swap_dims(0, 1).reshape([tokens, heads * head_dim])
}

fn joined(mut parts: Vec<Tensor<3>>, along: usize) -> Tensor<3> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, along) }
}

/// What attention computes at once: scores `[key heads, group * queries, keys]`. The query heads of one key head are stacked,
/// so that no key is ever repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tile {
    key_heads: Range<usize>,
    /// Query heads of one key head.
    group: usize,
    queries: Range<usize>,
    /// Those that the queries see.
    keys: Range<usize>,
}

impl Tile {
    /// `[heads, tokens, head_dim]` -> `[key heads, group * queries, head_dim]`.
    fn of_queries(&self, x: &Tensor<3>) -> Tensor<3> {
        let heads = self.key_heads.start * self.group..self.key_heads.end * self.group;
        let part = part(x, heads, &self.queries);
        let [heads, queries, head_dim] = part.dims();
        part.reshape([heads / self.group, self.group * queries, head_dim])
    }

    /// `[kv_heads, tokens, head_dim]` -> `[key heads, keys, head_dim]`.
    fn of_keys(&self, x: &Tensor<3>) -> Tensor<3> {
        part(x, self.key_heads.clone(), &self.keys)
    }

    /// `[key heads, group * queries, head_dim]` -> `[heads, queries, head_dim]`.
    fn unstacked(&self, x: Tensor<3>) -> Tensor<3> {
        let [key_heads, stacked, head_dim] = x.dims();
        x.reshape([key_heads * self.group, stacked / self.group, head_dim])
    }

    /// Adds `[key heads, keys, head_dim]` to the keys' rows of `[key heads, tokens, head_dim]`.
    fn add_keys(&self, sum: &mut Option<Tensor<3>>, part: Tensor<3>, tokens: usize, device: &Device) {
        let [key_heads, keys, head_dim] = part.dims();
        device.submit();
        if sum.is_none() && keys == tokens {
            *sum = Some(part);
            return;
        }
        let all = sum.take().unwrap_or_else(|| Tensor::zeros([key_heads, tokens, head_dim], device.burn()));
        let own = [0..key_heads, self.keys.clone(), 0..head_dim];
        let added = all.clone().slice(own.clone()) + part;
        *sum = Some(all.slice_assign(own, added));
    }

    fn softmax_params(&self, shape: Shape) -> AttentionSoftmaxParams {
        AttentionSoftmaxParams {
            heads: size(self.key_heads.len() * self.group),
            queries: size(self.queries.len()),
            keys: size(self.keys.len()),
            first_query: size(self.queries.start),
            first_key: size(self.keys.start),
            scale: shape.scale(),
        }
    }

    /// Rows of the scores.
    fn rows(&self) -> u64 {
        (self.key_heads.len() * self.group * self.queries.len()) as u64
    }
}

fn part(x: &Tensor<3>, heads: Range<usize>, tokens: &Range<usize>) -> Tensor<3> {
    let [all_heads, all_tokens, head_dim] = x.dims();
    if heads.len() == all_heads && tokens.len() == all_tokens {
        return x.clone();
    }
    x.clone().slice([heads, tokens.clone(), 0..head_dim])
}

/// Tiles whose scores fit together, those of the same heads one after the other.
fn tiles(device: &Device, shape: Shape, document_start: &[u32]) -> Result<Vec<Vec<Tile>>> {
    let (tokens, group) = (document_start.len(), shape.heads / shape.kv_heads);
    let (heads_at_once, queries_at_once) = at_once(device.tile_bytes(), shape, tokens);
    let row = (group as u64).saturating_mul(tokens as u64 * 4);
    if row > device.max_binding_bytes() {
        return Err(Error::Limit {
            what: format!("one query's attention over {tokens} tokens"),
            needed: row,
            allowed: device.max_binding_bytes(),
            adapter: device.name().into(),
            advice: "use fewer tokens a micro-batch ([run] batch_tokens, [data] cutoff_length)".into(),
        });
    }
    let of_heads = |first: usize| {
        let key_heads = first..(first + heads_at_once).min(shape.kv_heads);
        let of_queries = |first: usize| {
            let queries = first..(first + queries_at_once).min(tokens);
            // Documents lie one after the other, so the first query sees farthest back.
            let seen = if queries.len() == tokens { 0 } else { document_start[first] as usize };
            Tile { key_heads: key_heads.clone(), group, keys: seen..queries.end, queries }
        };
        (0..tokens).step_by(queries_at_once).map(of_queries).collect()
    };
    Ok((0..shape.kv_heads).step_by(heads_at_once).map(of_heads).collect())
}

/// Key heads and queries of one tile: as many whole heads as fit, else queries of one.
fn at_once(tile_bytes: u64, shape: Shape, tokens: usize) -> (usize, usize) {
    match tile_bytes / score_bytes(shape, tokens).max(1) {
        0 => {
            let row = score_bytes(shape, tokens) / tokens as u64;
            (1, (tile_bytes / row).max(1) as usize)
        }
        heads => (heads.min(shape.kv_heads as u64) as usize, tokens),
    }
}

/// Most bytes that the scores of one tile take.
pub(crate) fn tile_score_bytes(tile_bytes: u64, shape: Shape, tokens: usize) -> u64 {
    if tokens == 0 {
        return 0;
    }
    let (heads, queries) = at_once(tile_bytes, shape, tokens);
    (score_bytes(shape, tokens) / tokens as u64).saturating_mul(queries as u64).saturating_mul(heads as u64)
}

/// Bytes of the scores of one key head.
fn score_bytes(shape: Shape, tokens: usize) -> u64 {
    let tokens = tokens as u64;
    ((shape.heads / shape.kv_heads * size_of::<f32>()) as u64).saturating_mul(tokens.saturating_mul(tokens))
}

/// Attention probabilities `[key heads, group * queries, keys]`.
fn probabilities(
    device: &Device,
    tile: &Tile,
    q: &Tensor<3>,
    k: &Tensor<3>,
    shape: Shape,
    start: &Indices,
) -> Result<Tensor<3>> {
    let scores = into_gpu(Product::of(q, k.transposed()).run(device)?);
    let tensors = AttentionSoftmaxBindings { scores: &scores, document_start: start.gpu() };
    gpu_of(device).run(&ATTENTION_SOFTMAX, tile.softmax_params(shape), tensors, tile.rows())?;
    Ok(from_cube(scores))
}

/// Gradient by the unscaled scores from that by the probabilities `p [key heads, group * queries, keys]`.
fn softmax_backward(device: &Device, tile: &Tile, p: &Tensor<3>, dp: Tensor<3>, shape: Shape) -> Result<Tensor<3>> {
    let (p, dp) = (on_gpu(p), into_gpu(dp));
    let tensors = AttentionSoftmaxBackwardBindings { probabilities: &p, dprobabilities: &dp };
    gpu_of(device).run(&ATTENTION_SOFTMAX_BACKWARD, tile.softmax_params(shape), tensors, tile.rows())?;
    Ok(from_cube(dp))
}

/// The self-test, on two documents of four and five tokens.
pub(crate) const SELF_TEST: &[Case] = &[
    ("attention_softmax", |d| {
        let (starts, shape, qkv) = sample(d);
        Ok(vec![flat(&forward(d, &qkv, shape, &starts)?.0)])
    }),
    ("attention_softmax_backward", |d| {
        let (starts, shape, qkv) = sample(d);
        let (out, state) = forward(d, &qkv, shape, &starts)?;
        let dout = matrix(d, 8, 9, shape.heads * shape.head_dim);
        Ok(vec![flat(&backward(d, &qkv, &out, state, &dout, shape, &starts)?)])
    }),
];

fn sample(device: &Device) -> (Indices, Shape, Tensor<2>) {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 16 };
    let starts = Indices::new(device, vec![0, 0, 0, 0, 4, 4, 4, 4, 4]);
    (starts, shape, matrix(device, 7, 9, (4 + 2 * 2) * 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { heads: 8, kv_heads: 4, head_dim: 16 };

    #[test]
    fn a_tile_has_as_many_whole_heads_as_fit_and_else_queries_of_one() {
        let head = 2 * 4 * 100 * 100;
        assert_eq!(at_once(u64::MAX, SHAPE, 100), (4, 100));
        assert_eq!(at_once(3 * head, SHAPE, 100), (3, 100));
        assert_eq!(at_once(head, SHAPE, 100), (1, 100));
        assert_eq!(at_once(head - 1, SHAPE, 100), (1, 99));
        assert_eq!(at_once(1, SHAPE, 100), (1, 1));
        for tile in [3 * head, head, head / 2, 801] {
            let bytes = tile_score_bytes(tile, SHAPE, 100);
            assert!(bytes <= tile && bytes > tile / 2, "{bytes} of {tile}");
        }
    }
}
