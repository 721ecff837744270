//! Causal grouped-query attention within each document of a packed stream, or a window of it, and its backward pass, in
//! memory linear in the number of tokens: forward keeps the log-sum-exp of each query's scores, and backward makes the
//! probabilities again from it (Dao et al. 2022).

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
use super::multiplier::Compute;
use super::sample::{Case, matrix};
use super::tensor::{Indices, empty_gpu, flat, from_cube, from_vec, gpu_of, on_cpu, on_gpu, slice};
use crate::device::Device;
use crate::error::Result;

/// `qkv [tokens, (heads + 2 kv_heads) * head_dim]` -> `[tokens, heads * head_dim]`, and for the backward pass the
/// log-sum-exp of each query's scores, `[heads, tokens]`.
///
/// `document_start[t]` is the index of the first token that token `t` sees: that of its document, or of its window where that
/// begins later. They ascend; nothing more is taken of them.
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
        Self::in_single(device, shape)
    }

    /// The same for gradients, of which halves alone are too little where products are of two halves a number.
    fn best_back(device: &Device, shape: Shape) -> Self {
        if device.compute() == Compute::Split { Self::in_single(device, shape) } else { Self::best(device, shape) }
    }

    fn in_single(device: &Device, shape: Shape) -> Self {
        if device.is_software() && shape.head_dim.is_multiple_of(4) { Self::Vectors } else { Self::Tiles }
    }

    /// Tokens of a block: an invocation's where it shares nothing, else a tile's.
    fn block(self) -> usize {
        match self {
            Self::Vectors => 4,
            // Those on tensor cores have tiles of the same size.
            _ => 64,
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
    let work = Work { kind, shape, starts, rows: Rows::Queries, products: 2.0 };
    match kind {
        Kind::Tiles => work.run(device, &ATTENTION, tensors)?,
        Kind::Vectors => work.run(device, &ATTENTION_VECTORS, tensors)?,
        #[cfg(not(target_family = "wasm"))]
        Kind::Matrices => {
            let rows = rows_of(device, &qkv, tokens * (heads + 2 * shape.kv_heads), head_dim)?;
            let qkv_exponents = &rows.exponents;
            let tensors = AttentionMatricesBindings { document_start, qkv: &qkv, out: &out, lse: &lse, qkv_exponents };
            work.run(device, &ATTENTION_MATRICES, tensors)?;
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
    backward_by(device, Kind::best_back(device, shape), qkv, out, lse, dout, shape, document_start)
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
    let (document_start, starts) = (document_start.gpu(), document_start.host());
    // Scores, gradients of the probabilities, and what comes of both.
    let by_queries = Work { kind, shape, starts, rows: Rows::Queries, products: 3.0 };
    let by_keys = Work { kind, shape, starts, rows: Rows::Keys, products: 4.0 };
    let of_queries = AttentionQueryGradientBindings { document_start, qkv, out, lse, dout, mean, dqkv };
    let of_keys = AttentionKeyGradientBindings { document_start, qkv, lse, dout, mean, dqkv };
    match kind {
        Kind::Tiles => {
            by_queries.run(device, &ATTENTION_QUERY_GRADIENT, of_queries)?;
            by_keys.run(device, &ATTENTION_KEY_GRADIENT, of_keys)?;
        }
        Kind::Vectors => {
            by_queries.run(device, &ATTENTION_QUERY_GRADIENT_VECTORS, of_queries)?;
            by_keys.run(device, &ATTENTION_KEY_GRADIENT_VECTORS, of_keys)?;
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
            by_queries.run(device, &ATTENTION_QUERY_GRADIENT_MATRICES, of_queries)?;
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
            by_keys.run(device, &ATTENTION_KEY_GRADIENT_MATRICES, of_keys)?;
        }
    }
    Ok(from_cube(dqkv.clone()))
}

/// Part of the operations that a dispatch may have for attention: the pace is that of products, which are faster, on tensor
/// cores above all.
pub(super) const SHARE: f64 = 0.25;

/// Whose blocks a kernel's workgroups have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Queries,
    Keys,
}

/// What one of the three kernels does.
struct Work<'a> {
    kind: Kind,
    shape: Shape,
    /// First token that each token sees.
    starts: &'a [u32],
    rows: Rows,
    /// Products of all queries with all keys that they see.
    products: f64,
}

/// Workgroups of one dispatch. Where these are so many that a few more start, those do what the next piece does again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    pub first: u64,
    pub groups: u64,
    /// Floating-point operations.
    pub operations: f64,
}

/// Workgroups of so many operations each: as many at once as have no more than `most`, or one.
pub(super) fn pieces(each: impl IntoIterator<Item = f64>, most: f64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (first, operations) in (0..).zip(each) {
        match pieces.last_mut() {
            Some(piece) if piece.operations + operations <= most => {
                piece.groups += 1;
                piece.operations += operations;
            }
            _ => pieces.push(Piece { first, groups: 1, operations }),
        }
    }
    pieces
}

impl Work<'_> {
    /// Launches it, in as many pieces as keep each short.
    fn run<'t, B: Storage>(
        &self,
        device: &Device,
        kernel: &TypedKernel<AttentionParams, B>,
        tensors: B::Of<&'t CubeTensor>,
    ) -> Result<()>
    where
        B::Of<&'t CubeTensor>: Copy,
    {
        let gpu = gpu_of(device);
        let Shape { heads, kv_heads, head_dim } = self.shape;
        for Piece { first, groups, operations } in pieces(self.of_groups(), SHARE * gpu.most_of_dispatch()) {
            let params = AttentionParams {
                tokens: size(self.starts.len()),
                heads: size(heads),
                kv_heads: size(kv_heads),
                head_dim: size(head_dim),
                first_group: size(first as usize),
                scale: self.shape.scale(),
            };
            gpu.run_counted(kernel, params, tensors, groups, operations)?;
        }
        Ok(())
    }

    /// Operations of each workgroup, in the order in which the kernels number them.
    fn of_groups(&self) -> Vec<f64> {
        let heads = match self.rows {
            Rows::Queries => self.shape.heads,
            Rows::Keys => self.shape.kv_heads,
        };
        // Of one head.
        let mut blocks = self.of_blocks();
        blocks.iter_mut().for_each(|operations| *operations /= heads as f64);
        if self.kind == Kind::Vectors {
            // Head by head, a block an invocation.
            let all: Vec<f64> = (0..heads).flat_map(|_| blocks.iter().copied()).collect();
            let size = ATTENTION_VECTORS.workgroup_size as usize;
            return all.chunks(size).map(|group| group.iter().sum::<f64>()).collect();
        }
        // Block by block, those with the most to do first.
        if self.rows == Rows::Queries {
            blocks.reverse();
        }
        let parts = ATTENTION.workgroups(1, self.shape.head_dim as u64) as usize;
        let of_block = |operations: f64| std::iter::repeat_n(operations / parts as f64, heads * parts);
        blocks.into_iter().flat_map(of_block).collect()
    }

    /// Operations of each block of tokens, of all heads.
    fn of_blocks(&self) -> Vec<f64> {
        let each = self.products * 2.0 * (self.shape.heads * self.shape.head_dim) as f64;
        let of_block = |tokens: &[usize]| each * tokens.iter().map(|&pairs| pairs as f64).sum::<f64>();
        self.pairs().chunks(self.kind.block()).map(of_block).collect()
    }

    /// How many keys each query sees, or queries each key.
    fn pairs(&self) -> Vec<usize> {
        let (tokens, starts) = (self.starts.len(), self.starts);
        if self.rows == Rows::Queries {
            return starts.iter().enumerate().map(|(token, &start)| token + 1 - start as usize).collect();
        }
        let mut past = 0;
        let readers = |key: usize| {
            past += starts[past..].iter().take_while(|&&start| start as usize <= key).count();
            past - key
        };
        (0..tokens).map(readers).collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 2] = [Kind::Tiles, Kind::Vectors];

    /// The three kernels on documents of 100, 1 and 99 tokens.
    fn all_work(kind: Kind, starts: &[u32]) -> [Work<'_>; 3] {
        let shape = Shape { heads: 6, kv_heads: 3, head_dim: 136 };
        let work = |rows, products| Work { kind, shape, starts, rows, products };
        [work(Rows::Queries, 2.0), work(Rows::Queries, 3.0), work(Rows::Keys, 4.0)]
    }

    fn starts() -> Vec<u32> {
        [[0; 100].as_slice(), &[100], &[101; 99]].concat()
    }

    #[test]
    fn what_is_short_is_launched_at_once_with_all_workgroups_and_all_operations() {
        let starts = starts();
        // 5,050 pairs, 1 and 4,950.
        let products = 2.0 * 10_001.0 * f64::from(6 * 136);
        // Four tiles of 64 tokens and two of 128 numbers; blocks of 4 tokens, 16 in a workgroup.
        for (kind, groups) in KINDS.into_iter().zip([[48, 48, 24], [19, 19, 10]]) {
            for (work, groups) in all_work(kind, &starts).iter().zip(groups) {
                let [piece] = pieces(work.of_groups(), f64::INFINITY)[..] else { panic!("several pieces") };
                assert_eq!((piece.first, piece.groups), (0, groups));
                assert!((piece.operations / (work.products * products) - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn pieces_follow_each_other_and_have_no_more_operations_than_they_may_unless_they_are_one_workgroup() {
        let starts = starts();
        for work in KINDS.iter().flat_map(|&kind| all_work(kind, &starts)) {
            let [whole] = pieces(work.of_groups(), f64::INFINITY)[..] else { panic!("several pieces") };
            for share in [0.9, 0.2, 0.03, 0.0] {
                let most = share * whole.operations;
                let pieces = pieces(work.of_groups(), most);
                assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.groups == 1 || piece.operations <= most));
                let mut next = 0;
                for piece in &pieces {
                    assert_eq!(piece.first, next);
                    next += piece.groups;
                }
                assert_eq!(next, whole.groups);
                let sum: f64 = pieces.iter().map(|piece| piece.operations).sum();
                assert!((sum / whole.operations - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn late_queries_and_early_keys_of_a_document_have_the_most_to_do() {
        let starts = vec![0; 256];
        let [forward, _, by_keys] = all_work(Kind::Tiles, &starts);
        let falls = |each: &[f64]| each.is_sorted_by(|a, b| a >= b) && each[0] > 5.0 * each[each.len() - 1];
        assert!(falls(&forward.of_groups()), "the last queries first");
        assert!(falls(&by_keys.of_groups()), "the first keys first");
        assert_eq!(forward.pairs()[255], 256);
        assert_eq!(by_keys.pairs()[0], 256);
    }

    #[test]
    fn within_a_window_queries_and_keys_have_the_same_pairs() {
        // Documents of 5 and 3 tokens, of which each sees itself and two before.
        let [forward, _, by_keys] = all_work(Kind::Tiles, &[0, 0, 0, 1, 2, 5, 5, 5]);
        assert_eq!(forward.pairs(), [1, 2, 3, 3, 3, 1, 2, 3]);
        assert_eq!(by_keys.pairs(), [3, 3, 3, 2, 1, 3, 2, 1]);
    }

    #[test]
    fn nothing_is_launched_of_no_tokens() {
        let mut all = KINDS.iter().flat_map(|&kind| all_work(kind, &[]));
        assert!(all.all(|work| pieces(work.of_groups(), 1.0).is_empty()));
    }
}
