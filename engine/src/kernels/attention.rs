//! Causal grouped-query attention within each document of a packed stream, and its backward pass, in memory linear in
//! the number of tokens: forward keeps the log-sum-exp of each query's scores, and backward makes the probabilities
//! again from it (Dao et al. 2022).

use burn::tensor::Tensor;
use temper_shaders::{
    ATTENTION, ATTENTION_KEY_GRADIENT, ATTENTION_QUERY_GRADIENT, AttentionBindings, AttentionKeyGradientBindings,
    AttentionParams, AttentionQueryGradientBindings,
};

use super::cpu;
pub use super::cpu::attention::Shape;
use super::launch::size;
use super::sample::{Case, matrix};
use super::tensor::{Indices, empty_gpu, flat, from_cube, from_vec, gpu_of, on_cpu, on_gpu, slice};
use crate::device::Device;
use crate::error::Result;

/// `qkv [tokens, (heads + 2 kv_heads) * head_dim]` -> `[tokens, heads * head_dim]`, and for the backward pass the
/// log-sum-exp of each query's scores, `[heads, tokens]`.
///
/// `document_start[t]` is the index of the first token of `t`'s document.
///
/// # Errors
/// Device errors.
pub fn forward(
    device: &Device,
    qkv: &Tensor<2>,
    shape: Shape,
    document_start: &Indices,
) -> Result<(Tensor<2>, Tensor<2>)> {
    let Shape { heads, head_dim, .. } = shape;
    let tokens = qkv.dims()[0];
    if device.is_cpu() {
        let qkv = on_cpu(qkv);
        let (mut out, mut lse) = (vec![0.0; tokens * heads * head_dim], vec![0.0; heads * tokens]);
        cpu::attention(shape, slice(&qkv), document_start.host(), &mut out, &mut lse);
        return Ok((from_vec(out, [tokens, heads * head_dim]), from_vec(lse, [heads, tokens])));
    }
    let qkv = on_gpu(qkv);
    let (out, lse) = (empty_gpu(&qkv, [tokens, heads * head_dim]), empty_gpu(&qkv, [heads, tokens]));
    let (document_start, starts) = (document_start.gpu(), document_start.host());
    let tensors = AttentionBindings { document_start, qkv: &qkv, out: &out, lse: &lse };
    let operations = 2.0 * product_operations(shape, starts);
    let groups = workgroups(heads, shape, tokens);
    gpu_of(device).run_counted(&ATTENTION, params(shape, tokens), tensors, groups, operations)?;
    Ok((from_cube(out), from_cube(lse)))
}

/// Gradient by `qkv` from `dout [tokens, heads * head_dim]`; `out` and `lse` are what [`forward`] gave.
///
/// # Errors
/// Device errors.
pub fn backward(
    device: &Device,
    qkv: &Tensor<2>,
    out: &Tensor<2>,
    lse: &Tensor<2>,
    dout: &Tensor<2>,
    shape: Shape,
    document_start: &Indices,
) -> Result<Tensor<2>> {
    let [tokens, width] = qkv.dims();
    if device.is_cpu() {
        let (qkv, out, lse, dout) = (on_cpu(qkv), on_cpu(out), on_cpu(lse), on_cpu(dout));
        let mut dqkv = vec![0.0; tokens * width];
        let starts = document_start.host();
        cpu::attention_backward(shape, slice(&qkv), starts, slice(&out), slice(&lse), slice(&dout), &mut dqkv);
        return Ok(from_vec(dqkv, [tokens, width]));
    }
    let (qkv, out, lse, dout) = (&on_gpu(qkv), &on_gpu(out), &on_gpu(lse), &on_gpu(dout));
    let (dqkv, mean) = (&empty_gpu(qkv, [tokens, width]), &empty_gpu(qkv, [shape.heads, tokens]));
    // Scores, gradients of the probabilities, and what comes of both.
    let operations = product_operations(shape, document_start.host());
    let (document_start, params) = (document_start.gpu(), params(shape, tokens));
    let tensors = AttentionQueryGradientBindings { document_start, qkv, out, lse, dout, mean, dqkv };
    let groups = workgroups(shape.heads, shape, tokens);
    gpu_of(device).run_counted(&ATTENTION_QUERY_GRADIENT, params, tensors, groups, 3.0 * operations)?;
    let tensors = AttentionKeyGradientBindings { document_start, qkv, lse, dout, mean, dqkv };
    let groups = workgroups(shape.kv_heads, shape, tokens);
    gpu_of(device).run_counted(&ATTENTION_KEY_GRADIENT, params, tensors, groups, 4.0 * operations)?;
    Ok(from_cube(dqkv.clone()))
}

fn params(shape: Shape, tokens: usize) -> AttentionParams {
    AttentionParams {
        tokens: size(tokens),
        heads: size(shape.heads),
        kv_heads: size(shape.kv_heads),
        head_dim: size(shape.head_dim),
        scale: shape.scale(),
    }
}

/// Floating-point operations of one product of all queries with all keys that they see.
fn product_operations(shape: Shape, document_start: &[u32]) -> f64 {
    let pairs: f64 = document_start.iter().enumerate().map(|(t, &start)| (t - start as usize + 1) as f64).sum();
    2.0 * pairs * (shape.heads * shape.head_dim) as f64
}

/// Of any of the three kernels, for so many heads.
fn workgroups(heads: usize, shape: Shape, tokens: usize) -> u64 {
    heads as u64 * ATTENTION.workgroups(tokens as u64, shape.head_dim as u64)
}

/// The self-test, on two documents of four and five tokens.
pub(crate) const SELF_TEST: &[Case] = &[
    ("attention", |d| {
        let (starts, shape, qkv) = sample(d);
        let (out, lse) = forward(d, &qkv, shape, &starts)?;
        Ok(vec![flat(&out), flat(&lse)])
    }),
    ("attention_query_gradient", |d| Ok(vec![flat(&gradient(d)?.slice([0..9, 0..64]))])),
    ("attention_key_gradient", |d| Ok(vec![flat(&gradient(d)?.slice([0..9, 64..128]))])),
];

fn sample(device: &Device) -> (Indices, Shape, Tensor<2>) {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 16 };
    let starts = Indices::new(device, vec![0, 0, 0, 0, 4, 4, 4, 4, 4]);
    (starts, shape, matrix(device, 7, 9, (4 + 2 * 2) * 16))
}

fn gradient(device: &Device) -> Result<Tensor<2>> {
    let (starts, shape, qkv) = sample(device);
    let (out, lse) = forward(device, &qkv, shape, &starts)?;
    let dout = matrix(device, 8, 9, shape.heads * shape.head_dim);
    let dqkv = backward(device, &qkv, &out, &lse, &dout, shape, &starts)?;
    // burn cuts it into parts.
    device.submit();
    Ok(dqkv)
}
