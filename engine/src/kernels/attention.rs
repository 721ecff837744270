//! Causal grouped-query attention within each document of a packed stream, and its backward pass, in memory linear in
//! the number of tokens: forward keeps the log-sum-exp of each query's scores, and backward makes the probabilities
//! again from it (Dao et al. 2022).

use burn::tensor::Tensor;
use burn_wgpu::CubeTensor;
use temper_shaders::{
    ATTENTION, ATTENTION_KEY_GRADIENT, ATTENTION_KEY_GRADIENT_VECTORS, ATTENTION_QUERY_GRADIENT,
    ATTENTION_QUERY_GRADIENT_VECTORS, ATTENTION_VECTORS, AttentionBindings, AttentionKeyGradientBindings,
    AttentionParams, AttentionQueryGradientBindings, Storage, TypedKernel,
};
#[cfg(not(target_family = "wasm"))]
use temper_shaders::{
    ATTENTION_KEY_GRADIENT_MATRICES, ATTENTION_MATRICES, ATTENTION_QUERY_GRADIENT_MATRICES,
    AttentionKeyGradientMatricesBindings, AttentionMatricesBindings, AttentionQueryGradientMatricesBindings,
};

use super::cpu;
pub use super::cpu::attention::Shape;
use super::launch::size;
#[cfg(not(target_family = "wasm"))]
use super::matmul::halved::rows_of;
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
    forward_by(device, Kind::best(device, shape), qkv, shape, document_start)
}

/// Which kernels a GPU takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tiles in workgroup memory.
    Tiles,
    /// Four numbers a load and nothing shared: for software adapters.
    Vectors,
    /// Tiles on tensor cores that multiply 16 x 16 x 16: forward out of halves and what rounding left of them, so that gates
    /// are nearly those of single precision, and back out of halves alone.
    #[cfg(not(target_family = "wasm"))]
    Matrices,
}

impl Kind {
    fn best(device: &Device, shape: Shape) -> Self {
        #[cfg(not(target_family = "wasm"))]
        if device.products().attention {
            return Self::Matrices;
        }
        if device.is_software() && shape.head_dim.is_multiple_of(4) { Self::Vectors } else { Self::Tiles }
    }

    /// Workgroups of any of the three kernels, for so many heads.
    fn workgroups(self, heads: usize, shape: Shape, tokens: usize) -> u64 {
        match self {
            Self::Vectors => ATTENTION_VECTORS.workgroups(heads as u64, tokens.div_ceil(4) as u64),
            // Those on tensor cores have tiles of the same size.
            _ => heads as u64 * ATTENTION.workgroups(tokens as u64, shape.head_dim as u64),
        }
    }
}

/// As [`forward`], with these kernels on a GPU: for tests and benchmarks.
///
/// # Errors
/// As [`forward`].
pub fn forward_by(
    device: &Device,
    kind: Kind,
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
    let launch = Launch {
        device,
        params: params(shape, tokens),
        groups: kind.workgroups(heads, shape, tokens),
        operations: 2.0 * product_operations(shape, starts),
    };
    match kind {
        Kind::Tiles => launch.run(&ATTENTION, tensors)?,
        Kind::Vectors => launch.run(&ATTENTION_VECTORS, tensors)?,
        #[cfg(not(target_family = "wasm"))]
        Kind::Matrices => {
            let rows = rows_of(device, &qkv, tokens * (heads + 2 * shape.kv_heads), head_dim)?;
            let qkv_exponents = &rows.exponents;
            let tensors = AttentionMatricesBindings { document_start, qkv: &qkv, out: &out, lse: &lse, qkv_exponents };
            launch.run(&ATTENTION_MATRICES, tensors)?;
        }
    }
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
    backward_by(device, Kind::best(device, shape), qkv, out, lse, dout, shape, document_start)
}

/// As [`backward`], with these kernels on a GPU: for tests and benchmarks.
///
/// # Errors
/// As [`backward`].
#[allow(clippy::too_many_arguments, reason = "those of backward")]
pub fn backward_by(
    device: &Device,
    kind: Kind,
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
    let operations = product_operations(shape, document_start.host());
    let (document_start, params) = (document_start.gpu(), params(shape, tokens));
    // Scores, gradients of the probabilities, and what comes of both.
    let by_queries =
        Launch { device, params, groups: kind.workgroups(shape.heads, shape, tokens), operations: 3.0 * operations };
    let by_keys =
        Launch { device, params, groups: kind.workgroups(shape.kv_heads, shape, tokens), operations: 4.0 * operations };
    let of_queries = AttentionQueryGradientBindings { document_start, qkv, out, lse, dout, mean, dqkv };
    let of_keys = AttentionKeyGradientBindings { document_start, qkv, lse, dout, mean, dqkv };
    match kind {
        Kind::Tiles => {
            by_queries.run(&ATTENTION_QUERY_GRADIENT, of_queries)?;
            by_keys.run(&ATTENTION_KEY_GRADIENT, of_keys)?;
        }
        Kind::Vectors => {
            by_queries.run(&ATTENTION_QUERY_GRADIENT_VECTORS, of_queries)?;
            by_keys.run(&ATTENTION_KEY_GRADIENT_VECTORS, of_keys)?;
        }
        #[cfg(not(target_family = "wasm"))]
        Kind::Matrices => {
            let qkv_rows = rows_of(device, qkv, tokens * (shape.heads + 2 * shape.kv_heads), shape.head_dim)?;
            let dout_rows = rows_of(device, dout, tokens * shape.heads, shape.head_dim)?;
            let (qkv_halves, qkv_exponents) = (&qkv_rows.halves, &qkv_rows.exponents);
            let (dout_halves, dout_exponents) = (&dout_rows.halves, &dout_rows.exponents);
            let of_queries = AttentionQueryGradientMatricesBindings {
                document_start,
                qkv_halves,
                out,
                lse,
                dout,
                mean,
                dqkv,
                qkv_exponents,
                dout_halves,
                dout_exponents,
            };
            by_queries.run(&ATTENTION_QUERY_GRADIENT_MATRICES, of_queries)?;
            let of_keys = AttentionKeyGradientMatricesBindings {
                document_start,
                qkv_halves,
                lse,
                dout,
                mean,
                dqkv,
                qkv_exponents,
                dout_halves,
                dout_exponents,
            };
            by_keys.run(&ATTENTION_KEY_GRADIENT_MATRICES, of_keys)?;
        }
    }
    Ok(from_cube(dqkv.clone()))
}

/// A kernel's launch but for what it binds.
struct Launch<'a> {
    device: &'a Device,
    params: AttentionParams,
    groups: u64,
    /// Floating-point operations.
    operations: f64,
}

impl Launch<'_> {
    fn run<B: Storage>(&self, kernel: &TypedKernel<AttentionParams, B>, tensors: B::Of<&CubeTensor>) -> Result<()> {
        gpu_of(self.device).run_counted(kernel, self.params, tensors, self.groups, self.operations)
    }
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

/// The self-test, on two documents of four and five tokens.
pub(crate) const SELF_TEST: &[Case] = &[
    ("attention", |d| output(d, Kind::Tiles)),
    ("attention_vectors", |d| output(d, Kind::Vectors)),
    ("attention_query_gradient", |d| Ok(vec![flat(&gradient(d, Kind::Tiles)?.slice([0..9, 0..64]))])),
    ("attention_query_gradient_vectors", |d| Ok(vec![flat(&gradient(d, Kind::Vectors)?.slice([0..9, 0..64]))])),
    ("attention_key_gradient", |d| Ok(vec![flat(&gradient(d, Kind::Tiles)?.slice([0..9, 64..128]))])),
    ("attention_key_gradient_vectors", |d| Ok(vec![flat(&gradient(d, Kind::Vectors)?.slice([0..9, 64..128]))])),
];

/// Whether a device can run the kernels on tensor cores: they are written for 16 x 16 x 16, and bind more than a browser allows.
#[cfg(not(target_family = "wasm"))]
pub fn has_matrices(device: &Device) -> bool {
    device.products().tile == Some(16)
        && device.gpu().is_some_and(|gpu| gpu.binds(ATTENTION_QUERY_GRADIENT_MATRICES.bindings.len()))
}

/// Attention and its gradient over two documents that end within tiles: for the self-test of the kernels on tensor cores.
///
/// # Errors
/// Device errors.
#[cfg(not(target_family = "wasm"))]
pub(super) fn both_ways(device: &Device, kind: Kind) -> Result<[Tensor<2>; 2]> {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 40 };
    let starts = Indices::new(device, [[0; 50].as_slice(), &[50; 90]].concat());
    let tokens = starts.host().len();
    // Scores that are not all alike, and numbers whose halves would overflow.
    let qkv = matrix(device, 9, tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_dim) * 4.0;
    let dout = matrix(device, 10, tokens, shape.heads * shape.head_dim) * 1e6;
    let (out, lse) = forward_by(device, kind, &qkv, shape, &starts)?;
    let dqkv = backward_by(device, kind, &qkv, &out, &lse, &dout, shape, &starts)?;
    Ok([out, dqkv])
}

fn output(device: &Device, kind: Kind) -> Result<Vec<Tensor<1>>> {
    let (starts, shape, qkv) = sample(device);
    let (out, lse) = forward_by(device, kind, &qkv, shape, &starts)?;
    Ok(vec![flat(&out), flat(&lse)])
}

fn sample(device: &Device) -> (Indices, Shape, Tensor<2>) {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 16 };
    let starts = Indices::new(device, vec![0, 0, 0, 0, 4, 4, 4, 4, 4]);
    (starts, shape, matrix(device, 7, 9, (4 + 2 * 2) * 16))
}

fn gradient(device: &Device, kind: Kind) -> Result<Tensor<2>> {
    let (starts, shape, qkv) = sample(device);
    let (out, lse) = forward_by(device, kind, &qkv, shape, &starts)?;
    let dout = matrix(device, 8, 9, shape.heads * shape.head_dim);
    let dqkv = backward_by(device, kind, &qkv, &out, &lse, &dout, shape, &starts)?;
    // burn cuts it into parts.
    device.submit();
    Ok(dqkv)
}
