//! Attention of new tokens over the keys and values that a cache holds, and what puts them there.
//!
//! A row of the cache is a token's key heads and then its value heads. Two numbers say where a new token stands: the first
//! row of its sequence, and how many of the rows from there on it sees, its own as the last.

use std::cell::RefCell;

use temper_shaders::{AppendKeysParams, CachedAttentionParams};

use super::attention::{exp_and_sum, max_of};
use super::par::{self, Shared};
use super::simd::{dot, fma, vectorised};

/// Products below which handing work to another thread costs more than it saves.
const SERIAL: usize = 100_000;

thread_local! {
    /// Scaled queries and probabilities of one task, kept by its thread.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Copies columns `source_offset .. source_offset + width` of each row of `source` into the row of `key_values [.., width]`
/// that is its own.
///
/// # Panics
/// Where a place lies outside the cache, or f16 is asked for: the CPU holds f32.
pub fn append_keys(params: &AppendKeysParams, source: &[f32], places: &[u32], key_values: &mut [f32]) {
    let [rows, width, stride, offset] =
        [params.rows, params.width, params.source_stride, params.source_offset].map(|size| size as usize);
    assert!(params.halves == 0 && places.len() == 2 * rows && source.len() >= rows * stride);
    for (row, place) in places.as_chunks::<2>().0.iter().enumerate() {
        let to = (place[0] + place[1] - 1) as usize;
        key_values[to * width..][..width].copy_from_slice(&source[row * stride + offset..][..width]);
    }
}

/// `out [rows, heads * head_dim]` from the query heads of `qkv [rows, stride]`.
///
/// What a row gives depends on its own queries and keys alone, whichever rows are beside it.
///
/// # Panics
/// Where a place lies outside the cache, or f16 is asked for: the CPU holds f32.
pub fn cached_attention(params: &CachedAttentionParams, qkv: &[f32], places: &[u32], cache: &[f32], out: &mut [f32]) {
    let [rows, heads, kv_heads, head_dim, stride] =
        [params.rows, params.heads, params.kv_heads, params.head_dim, params.stride].map(|size| size as usize);
    assert!(params.halves == 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads) && heads * head_dim <= stride);
    assert!(places.len() == 2 * rows && qkv.len() >= rows * stride && out.len() == rows * heads * head_dim);
    let (group, width, scale) = (heads / kv_heads, 2 * kv_heads * head_dim, params.scale);
    let out = Shared::new(out);
    let work = |task: usize| {
        let (row, kv) = (task / kv_heads, task % kv_heads);
        let (first, count) = (places[2 * row] as usize, places[2 * row + 1] as usize);
        let cache = &cache[first * width..(first + count) * width];
        let place = row * heads * head_dim + kv * group * head_dim;
        // SAFETY: this task alone writes these heads of this row.
        let out = unsafe { out.slice(place, group * head_dim) };
        out.fill(0.0);
        SCRATCH.with_borrow_mut(|(queries, scores)| {
            queries.clear();
            let of_group = &qkv[row * stride + kv * group * head_dim..][..group * head_dim];
            queries.extend(of_group.iter().map(|q| q * scale));
            scores.resize(scores.len().max(group * count), 0.0);
            let scores = &mut scores[..group * count];
            score(queries, head_dim, cache, width, kv * head_dim, scores);
            if count > 0 {
                scores.chunks_exact_mut(count).for_each(softmax);
            }
            mix(scores, head_dim, cache, width, (kv_heads + kv) * head_dim, out);
        });
    };
    let products: usize = places.as_chunks::<2>().0.iter().map(|place| place[1] as usize * heads * head_dim).sum();
    let tasks = rows * kv_heads;
    if products > SERIAL { par::tasks(tasks, work) } else { (0..tasks).for_each(work) }
}

/// Scores to probabilities, in place.
fn softmax(scores: &mut [f32]) {
    let max = max_of(scores);
    let inverse = 1.0 / exp_and_sum(scores, max);
    scores.iter_mut().for_each(|score| *score *= inverse);
}

vectorised! {
    /// Scores `[group, keys]` of some query heads by the keys that begin at a column of each row.
    fn score<FMA>(queries: &[f32], head_dim: usize, cache: &[f32], width: usize, column: usize, scores: &mut [f32]) {
        let count = cache.len() / width;
        for (key, row) in cache.chunks_exact(width).enumerate() {
            let key_head = &row[column..column + head_dim];
            for (g, query) in queries.chunks_exact(head_dim).enumerate() {
                scores[g * count + key] = dot::<FMA>(query, key_head);
            }
        }
    }

    /// Adds the values that begin at a column of each row, each times its probability, to `out [group, head_dim]`.
    fn mix<FMA>(probabilities: &[f32], head_dim: usize, cache: &[f32], width: usize, column: usize, out: &mut [f32]) {
        let count = cache.len() / width;
        for (key, row) in cache.chunks_exact(width).enumerate() {
            let values = &row[column..column + head_dim];
            for (g, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let p = probabilities[g * count + key];
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = fma::<FMA>(p, value, *out);
                }
            }
        }
    }
}
