//! Causal grouped-query attention within each document of a packed stream, and its backward pass.
//!
//! On the CPU one fused pair of functions, linear in memory; on a GPU burn's batched matrix products around our softmax
//! kernels, a chunk of key heads at a time so that the scores fit one binding.

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
/// Device errors; [`Error::Limit`] where the scores of one key head outgrow a binding.
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
    let (q, k, v) = heads_first(qkv, shape);
    let mut outs = Vec::new();
    for range in chunks(device, shape, tokens)? {
        let (q, k, v) = (part(&q, &range), part(&k, &range), part(&v, &range));
        let p = probabilities(device, &q, &k, shape, document_start)?;
        outs.push(Product::of(&p, &v).run(device)?);
    }
    Ok((tokens_first(Tensor::cat(outs, 0), shape.heads, shape.head_dim), AttentionState::Nothing))
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
    let group = shape.heads / shape.kv_heads;
    let (q, k, v) = heads_first(qkv, shape);
    let dout = dout.clone().reshape([tokens, shape.heads, shape.head_dim]).swap_dims(0, 1).reshape([
        shape.kv_heads,
        group * tokens,
        shape.head_dim,
    ]);
    let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
    for range in chunks(device, shape, tokens)? {
        let (q, k, v, dout) = (part(&q, &range), part(&k, &range), part(&v, &range), part(&dout, &range));
        let p = probabilities(device, &q, &k, shape, document_start)?;
        dv.push(Product::of(p.transposed(), &dout).run(device)?);
        let dp = Product::of(&dout, v.transposed()).run(device)?;
        let ds = softmax_backward(device, &p, dp, shape)?;
        dq.push(Product::of(&ds, &k).run(device)?);
        dk.push(Product::of(ds.transposed(), &q).run(device)?);
    }
    let dq = tokens_first(Tensor::cat(dq, 0), shape.heads, shape.head_dim);
    let dk = tokens_first(Tensor::cat(dk, 0), shape.kv_heads, shape.head_dim);
    let dv = tokens_first(Tensor::cat(dv, 0), shape.kv_heads, shape.head_dim);
    Ok(Tensor::cat(vec![dq, dk, dv], 1))
}

/// q as `[kv_heads, group * tokens, head_dim]`, k and v as `[kv_heads, tokens, head_dim]`: query heads of one key head
/// are stacked, so that no key is ever repeated.
fn heads_first(qkv: &Tensor<2>, shape: Shape) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
    let tokens = qkv.dims()[0];
    let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let split = |from: usize, width: usize, heads: usize| {
        qkv.clone()
            .slice([0..tokens, from..from + width])
            .reshape([tokens, heads, shape.head_dim])
            .swap_dims(0, 1)
            .reshape([shape.kv_heads, heads / shape.kv_heads * tokens, shape.head_dim])
    };
    (split(0, q, shape.heads), split(q, kv, shape.kv_heads), split(q + kv, kv, shape.kv_heads))
}

fn tokens_first(x: Tensor<3>, heads: usize, head_dim: usize) -> Tensor<2> {
    let tokens = x.dims().iter().product::<usize>() / (heads * head_dim);
    x.reshape([heads, tokens, head_dim]).swap_dims(0, 1).reshape([tokens, heads * head_dim])
}

fn part(x: &Tensor<3>, range: &std::ops::Range<usize>) -> Tensor<3> {
    if *range == (0..x.dims()[0]) { x.clone() } else { x.clone().slice([range.clone()]) }
}

/// Ranges of key heads whose scores `[heads, tokens, tokens]` fit one binding together.
fn chunks(device: &Device, shape: Shape, tokens: usize) -> Result<Vec<std::ops::Range<usize>>> {
    let at_once = key_heads_at_once(device.max_binding_bytes(), shape, tokens) as usize;
    if at_once == 0 {
        return Err(Error::Limit {
            what: format!("attention over {tokens} tokens"),
            needed: score_bytes(shape, tokens),
            allowed: device.max_binding_bytes(),
            adapter: device.name().into(),
            advice: "use fewer tokens a micro-batch ([run] batch_tokens, [data] cutoff_length)".into(),
        });
    }
    Ok((0..shape.kv_heads).step_by(at_once).map(|start| start..(start + at_once).min(shape.kv_heads)).collect())
}

/// Bytes of the scores of one key head.
pub(crate) fn score_bytes(shape: Shape, tokens: usize) -> u64 {
    let tokens = tokens as u64;
    ((shape.heads / shape.kv_heads * size_of::<f32>()) as u64).saturating_mul(tokens.saturating_mul(tokens))
}

/// Key heads whose scores fit one binding together.
pub(crate) fn key_heads_at_once(max_binding_bytes: u64, shape: Shape, tokens: usize) -> u64 {
    (max_binding_bytes / score_bytes(shape, tokens).max(1)).min(shape.kv_heads as u64)
}

/// Attention probabilities `[kv heads, group * tokens, tokens]`.
fn probabilities(device: &Device, q: &Tensor<3>, k: &Tensor<3>, shape: Shape, start: &Indices) -> Result<Tensor<3>> {
    let tokens = k.dims()[1];
    let scores = into_gpu(Product::of(q, k.transposed()).run(device)?);
    let heads = q.dims()[0] * q.dims()[1] / tokens;
    let params = AttentionSoftmaxParams { heads: size(heads), tokens: size(tokens), scale: shape.scale() };
    let tensors = AttentionSoftmaxBindings { scores: &scores, document_start: start.gpu() };
    gpu_of(device).run(&ATTENTION_SOFTMAX, params, tensors, (heads * tokens) as u64)?;
    Ok(from_cube(scores))
}

/// Gradient by the unscaled scores from that by the probabilities `p [kv heads, group * tokens, tokens]`.
fn softmax_backward(device: &Device, p: &Tensor<3>, dp: Tensor<3>, shape: Shape) -> Result<Tensor<3>> {
    let [kv, stacked, tokens] = p.dims();
    let heads = kv * stacked / tokens;
    let (p, dp) = (on_gpu(p), into_gpu(dp));
    let params = AttentionSoftmaxParams { heads: size(heads), tokens: size(tokens), scale: shape.scale() };
    let tensors = AttentionSoftmaxBackwardBindings { probabilities: &p, dprobabilities: &dp };
    gpu_of(device).run(&ATTENTION_SOFTMAX_BACKWARD, params, tensors, (heads * tokens) as u64)?;
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
