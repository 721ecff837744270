//! Causal grouped-query attention within each document of a packed stream, or a window of it, and its gradient, in memory
//! linear in length.
//!
//! Forward keeps, per query, the log-sum-exp of its scores; backward makes the probabilities again from it (Dao et al.
//! 2022). Work is cut into blocks of queries of one key head; the query heads that share it are stacked, so keys and
//! values are read once for all of them.
//!
//! Layout: `qkv [tokens, (heads + 2 kv_heads) head_dim]`, each row all query heads, then key heads, then value heads.

use std::cell::RefCell;

use super::matmul::{Layout, Sizes, matmul_serial};
use super::par::{self, Shared};
use super::simd::{self, exp, sum_lanes, vectorised};

/// Queries of one block.
const QUERIES: usize = 64;
/// Keys of one block.
const KEYS: usize = 256;

/// One task's working memory, kept by its thread: fresh pages for every task would cost more than the arithmetic.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    d_out: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    sums: Vec<f32>,
    /// Running maximum and sum of each row.
    running: Vec<(f32, f32)>,
    /// Token, log-sum-exp and D of each row.
    rows: Vec<(usize, f32, f32)>,
}

/// Elements of a thread's [`Scratch`] once it has done a backward pass.
pub(crate) fn scratch_elements(shape: Shape) -> usize {
    shape.group() * QUERIES * (2 * KEYS + 3 * shape.head_dim)
}

/// Stripes that the blocks of queries of each key head are dealt to in the backward pass. Fixed by the shape alone, so that
/// the sums' order never depends on the machine.
fn stripes(shape: Shape, tokens: usize) -> usize {
    (12 / shape.kv_heads).clamp(1, tokens.div_ceil(QUERIES).clamp(1, 8))
}

/// Elements of the stripes' gradients by keys and values.
pub(crate) fn stripes_elements(shape: Shape, tokens: usize) -> usize {
    stripes(shape, tokens).saturating_mul(shape.kv_heads).saturating_mul(tokens).saturating_mul(2 * shape.head_dim)
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn grow(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
}

/// Heads of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Shape {
    /// Factor on the scores (Vaswani et al. 2017).
    pub fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Width of a row of `qkv`.
    pub fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Query heads per key head.
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    fn check(self, qkv: &[f32], document_start: &[u32], out: &[f32], lse: &[f32]) {
        let tokens = document_start.len();
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads), "key heads must divide the query heads");
        assert_eq!(qkv.len(), tokens * self.width());
        assert_eq!(out.len(), tokens * self.heads * self.head_dim);
        assert_eq!(lse.len(), self.heads * tokens);
        let in_order = document_start.iter().enumerate().all(|(t, &start)| start as usize <= t)
            && document_start.windows(2).all(|w| w[0] <= w[1]);
        assert!(in_order, "starts must ascend and not lie behind their token");
    }

    /// Columns of the `kv`-th key and value head.
    fn key_columns(self, kv: usize) -> (usize, usize) {
        ((self.heads + kv) * self.head_dim, (self.heads + self.kv_heads + kv) * self.head_dim)
    }

    /// Copies one block of queries' rows of `source [tokens, stride]` for each head of the group, stacked by head.
    fn gather(self, source: &[f32], stride: usize, kv: usize, block: Block, factor: f32, to: &mut Vec<f32>) {
        to.clear();
        for g in 0..self.group() {
            let column = (kv * self.group() + g) * self.head_dim;
            for t in block.start..block.end {
                to.extend(source[t * stride + column..][..self.head_dim].iter().map(|x| x * factor));
            }
        }
    }
}

/// Queries `start .. end`, whose keys lie in `first_key .. end`.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    end: usize,
    first_key: usize,
}

impl Block {
    fn new(index: usize, tokens: usize, document_start: &[u32]) -> Self {
        let start = index * QUERIES;
        Self { start, end: tokens.min(start + QUERIES), first_key: document_start[start] as usize }
    }

    fn queries(self) -> usize {
        self.end - self.start
    }

    /// Key blocks (start, length).
    fn keys(self) -> impl Iterator<Item = (usize, usize)> {
        (self.first_key..self.end).step_by(KEYS).map(move |k| (k, KEYS.min(self.end - k)))
    }

    /// Part of the key block `(start, length)` that query `t` sees, relative to the block.
    fn visible(self, t: usize, document_start: &[u32], (start, length): (usize, usize)) -> (usize, usize) {
        let low = (document_start[t] as usize).saturating_sub(start).min(length);
        let high = (t + 1).saturating_sub(start).min(length);
        (low, high.max(low))
    }
}

/// `out [tokens, heads head_dim]` and `lse [heads, tokens]` from `qkv`. Token t sees tokens `document_start[t] ..= t`, where
/// the starts ascend: those of documents, or of windows.
pub fn attention(shape: Shape, qkv: &[f32], document_start: &[u32], out: &mut [f32], lse: &mut [f32]) {
    shape.check(qkv, document_start, out, lse);
    let Shape { heads, kv_heads, head_dim } = shape;
    let (tokens, scale) = (document_start.len(), shape.scale());
    let (group, width, out_stride) = (shape.group(), shape.width(), heads * head_dim);
    let blocks = tokens.div_ceil(QUERIES);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let work = |task: usize, scratch: &mut Scratch| {
        let Scratch { queries: q, scores, sums, running, .. } = scratch;
        // The longest blocks first, so that threads finish together.
        let (kv, index) = (task % kv_heads, blocks - 1 - task / kv_heads);
        let block = Block::new(index, tokens, document_start);
        let (queries, rows) = (block.queries(), group * block.queries());
        let (key_column, value_column) = shape.key_columns(kv);
        shape.gather(qkv, width, kv, block, scale, q);
        grow(scores, rows * KEYS);
        grow(sums, rows * head_dim);
        running.clear();
        running.resize(rows, (f32::NEG_INFINITY, 0.0));
        for (nth, keys) in block.keys().enumerate() {
            let (key, count) = keys;
            let sizes = Sizes { m: rows, n: count, k: head_dim };
            let k_block = &qkv[key * width + key_column..];
            let k_layout = Layout::transposed(width);
            matmul_serial(q, Layout::rows(head_dim), k_block, k_layout, sizes, 1.0, false, scores, KEYS);
            for (r, (max, sum)) in running.iter_mut().enumerate() {
                let (low, high) = block.visible(block.start + r % queries, document_start, keys);
                let row = &mut scores[r * KEYS..r * KEYS + count];
                row[..low].fill(0.0);
                row[high..].fill(0.0);
                let new_max = max.max(max_of(&row[low..high]));
                if low == high || new_max == f32::NEG_INFINITY {
                    row[low..high].fill(0.0);
                    continue;
                }
                let part = exp_and_sum(&mut row[low..high], new_max);
                if new_max > *max {
                    let factor = (*max - new_max).exp();
                    *sum *= factor;
                    if nth > 0 {
                        sums[r * head_dim..(r + 1) * head_dim].iter_mut().for_each(|x| *x *= factor);
                    }
                }
                *max = new_max;
                *sum += part;
            }
            let sizes = Sizes { m: rows, n: head_dim, k: count };
            let v_block = &qkv[key * width + value_column..];
            let v_layout = Layout::rows(width);
            matmul_serial(scores, Layout::rows(KEYS), v_block, v_layout, sizes, 1.0, nth > 0, sums, head_dim);
        }
        for (r, (&(max, sum), values)) in running.iter().zip(sums.chunks_exact(head_dim)).enumerate() {
            let (head, t) = (kv * group + r / queries, block.start + r % queries);
            // SAFETY: this task alone writes these heads of these tokens.
            let (row, lse) =
                unsafe { (out.slice(t * out_stride + head * head_dim, head_dim), lse.slice(head * tokens + t, 1)) };
            let inverse = 1.0 / sum;
            row.iter_mut().zip(values).for_each(|(row, value)| *row = value * inverse);
            lse[0] = max + sum.ln();
            if row.iter().any(|value| !value.is_finite()) {
                // A hidden key's probability is 0, but 0 times NaN is NaN. The token is not to be blamed for it.
                let query = &q[r * head_dim..(r + 1) * head_dim];
                row.fill(0.0);
                for key in document_start[t] as usize..=t {
                    let of = |column: usize| &qkv[key * width + column..][..head_dim];
                    let probability = (dot(query, of(key_column)) - lse[0]).exp();
                    row.iter_mut().zip(of(value_column)).for_each(|(row, value)| *row += probability * value);
                }
            }
        }
    };
    par::tasks(blocks * kv_heads, |task| SCRATCH.with_borrow_mut(|scratch| work(task, scratch)));
}

/// Gradient `dqkv` by `qkv` from `dout [tokens, heads head_dim]`; `out` and `lse` are what [`attention`] wrote.
///
/// With P the probabilities and D = sum of dout * out per query and head: dV = P^T dO, dS = P * (dO V^T - D),
/// dQ = scale dS K, dK = scale dS^T Q. Where there are few key heads, the blocks of queries of each are dealt to a fixed
/// number of stripes with their own dK and dV, which are added in order.
pub fn attention_backward(
    shape: Shape,
    qkv: &[f32],
    document_start: &[u32],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    dqkv: &mut [f32],
) {
    shape.check(qkv, document_start, out, lse);
    assert!(dqkv.len() == qkv.len() && dout.len() == out.len());
    let Shape { heads, kv_heads, head_dim } = shape;
    let (tokens, scale) = (document_start.len(), shape.scale());
    let (group, width, out_stride) = (shape.group(), shape.width(), heads * head_dim);
    let blocks = tokens.div_ceil(QUERIES);
    let stripes = stripes(shape, tokens);
    let mut key_value = vec![0.0f32; stripes_elements(shape, tokens)];
    let per_task = tokens * 2 * head_dim;
    let d_queries = Shared::new(dqkv);
    let work = |task: usize, key_value: &mut [f32], scratch: &mut Scratch| {
        let Scratch { queries: q, d_out, scores: p, d_scores: ds, sums: dq, rows: rows_info, .. } = scratch;
        let (kv, stripe) = (task % kv_heads, task / kv_heads);
        let (d_keys, d_values) = key_value.split_at_mut(tokens * head_dim);
        let (key_column, value_column) = shape.key_columns(kv);
        let most = group * QUERIES;
        grow(p, most * KEYS);
        grow(ds, most * KEYS);
        grow(dq, most * head_dim);
        for index in (stripe..blocks).step_by(stripes) {
            let block = Block::new(index, tokens, document_start);
            let (queries, rows) = (block.queries(), group * block.queries());
            shape.gather(qkv, width, kv, block, scale, q);
            shape.gather(dout, out_stride, kv, block, 1.0, d_out);
            rows_info.clear();
            for (r, d_out) in d_out.chunks_exact(head_dim).enumerate() {
                let (head, t) = (kv * group + r / queries, block.start + r % queries);
                let out = &out[t * out_stride + head * head_dim..][..head_dim];
                rows_info.push((t, lse[head * tokens + t], dot(d_out, out)));
            }
            for (nth, keys) in block.keys().enumerate() {
                let (key, count) = keys;
                let (k_block, v_block) = (&qkv[key * width + key_column..], &qkv[key * width + value_column..]);
                let by_head = Layout::rows(head_dim);
                let sizes = Sizes { m: rows, n: count, k: head_dim };
                matmul_serial(q, by_head, k_block, Layout::transposed(width), sizes, 1.0, false, p, KEYS);
                matmul_serial(d_out, by_head, v_block, Layout::transposed(width), sizes, 1.0, false, ds, KEYS);
                for (r, &(t, lse, d)) in rows_info.iter().enumerate() {
                    let (low, high) = block.visible(t, document_start, keys);
                    let (p, ds) = (&mut p[r * KEYS..r * KEYS + count], &mut ds[r * KEYS..r * KEYS + count]);
                    for row in [&mut *p, &mut *ds] {
                        row[..low].fill(0.0);
                        row[high..].fill(0.0);
                    }
                    score_gradient(&mut p[low..high], &mut ds[low..high], lse, d);
                }
                let (scores, scores_t) = (Layout::rows(KEYS), Layout::transposed(KEYS));
                let sizes = Sizes { m: count, n: head_dim, k: rows };
                let here = key * head_dim..(key + count) * head_dim;
                matmul_serial(p, scores_t, d_out, by_head, sizes, 1.0, true, &mut d_values[here.clone()], head_dim);
                matmul_serial(ds, scores_t, q, by_head, sizes, 1.0, true, &mut d_keys[here], head_dim);
                let sizes = Sizes { m: rows, n: head_dim, k: count };
                matmul_serial(ds, scores, k_block, Layout::rows(width), sizes, scale, nth > 0, dq, head_dim);
            }
            for (r, dq) in dq.chunks_exact(head_dim).take(rows).enumerate() {
                let (head, t) = (kv * group + r / queries, block.start + r % queries);
                // SAFETY: this task alone writes these query heads of these tokens.
                unsafe { d_queries.slice(t * width + head * head_dim, head_dim) }.copy_from_slice(dq);
            }
        }
    };
    par::pieces(&mut key_value, per_task, |task, key_value| {
        SCRATCH.with_borrow_mut(|scratch| work(task, key_value, scratch));
    });
    // Keys and values: stripes are added in order.
    let key_value = &key_value;
    let block = par::rows_per_task(2 * kv_heads * head_dim);
    par::pieces(dqkv, block * width, |index, piece| {
        for (r, row) in piece.chunks_exact_mut(width).enumerate() {
            let t = index * block + r;
            for kv in 0..kv_heads {
                let (key_column, value_column) = shape.key_columns(kv);
                for (part, column) in [(0, key_column), (1, value_column)] {
                    let to = &mut row[column..column + head_dim];
                    to.fill(0.0);
                    for stripe in 0..stripes {
                        let at = (stripe * kv_heads + kv) * per_task + (part * tokens + t) * head_dim;
                        to.iter_mut().zip(&key_value[at..at + head_dim]).for_each(|(to, from)| *to += from);
                    }
                }
            }
        }
    });
}

vectorised! {
    pub(super) fn max_of<FMA>(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let (whole, rest) = x.as_chunks::<16>();
        for chunk in whole {
            for l in 0..16 {
                lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
            }
        }
        for (l, &x) in rest.iter().enumerate() {
            lanes[l] = if x > lanes[l] { x } else { lanes[l] };
        }
        lanes.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
    }

    /// Writes e^(x - max) and returns the sum.
    pub(super) fn exp_and_sum<FMA>(x: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0.0f32; 16];
        let (whole, rest) = x.as_chunks_mut::<16>();
        for chunk in whole {
            for l in 0..16 {
                chunk[l] = exp::<FMA>(chunk[l] - max);
                lanes[l] += chunk[l];
            }
        }
        for (l, x) in rest.iter_mut().enumerate() {
            *x = exp::<FMA>(*x - max);
            lanes[l] += *x;
        }
        sum_lanes(&lanes)
    }

    /// p: scores to probabilities; ds: dP to dS = p (dP - d).
    fn score_gradient<FMA>(p: &mut [f32], ds: &mut [f32], lse: f32, d: f32) {
        for (p, ds) in p.iter_mut().zip(ds) {
            *p = exp::<FMA>(*p - lse);
            *ds = *p * (*ds - d);
        }
    }

    fn dot<FMA>(x: &[f32], y: &[f32]) -> f32 {
        simd::dot::<FMA>(x, y)
    }
}
