//! Products of a few rows, such as one token of each sequence, with a matrix as it is stored: bound by how fast the matrix
//! comes out of memory, so that it is read once, in order, and nothing of it is written but a piece of a row that stays in
//! the first cache.
//!
//! An element of the result is a sum over lanes, and then over the lanes. It does not depend on how many rows there are, on
//! which are beside its own, nor on the number of threads; but its bits are not those of [`super::matmul`], which forms one
//! chain.

use std::cell::RefCell;
use std::ops::Range;

use super::super::par::{self, Shared};
use super::super::simd::sum_lanes;
#[cfg(target_arch = "x86_64")]
use super::super::simd::{Level, level};

/// Elements of a row that are expanded at once: a multiple of every format's block.
pub const PIECE: usize = 2048;
/// Elements of the matrix below which handing work to another thread costs more than it saves.
const SERIAL: usize = 65_536;
/// Elements of the matrix for each task, at least.
const TASK: usize = 32_768;
/// Tasks for each thread, so that a late thread holds up nobody for long.
const TASKS: usize = 4;

thread_local! {
    /// A piece of a row, expanded.
    static EXPANDED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Rows of a matrix that are stored in one way.
pub struct Segment<'a> {
    /// Number of rows.
    pub rows: usize,
    /// The rows, one after the other.
    pub stored: RowsOf<'a>,
}

/// Blocks that are multiplied as they come, without an expanded piece. All of them are of 32 elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// f16 `d`, 16 bytes of nibbles: `d (q - 8)`.
    Q4_0,
    /// f16 `d`, f16 `m`, 16 bytes of nibbles: `d q + m`.
    Q4_1,
    /// f16 `d`, 32 signed bytes: `d q`.
    Q8_0,
    /// Any others.
    Other,
}

#[cfg(target_arch = "x86_64")]
impl Blocks {
    /// Bytes of whole blocks of so many elements; none where they are no whole blocks, or of another kind.
    fn bytes_of(self, elements: usize) -> usize {
        let bytes = match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
            Self::Other => 0,
        };
        if elements.is_multiple_of(32) { elements / 32 * bytes } else { 0 }
    }
}

/// How they are stored.
pub enum RowsOf<'a> {
    /// As numbers.
    Plain(&'a [f32]),
    /// In blocks.
    Blocks {
        /// What is known of them here.
        kind: Blocks,
        /// Bytes of all rows.
        bytes: &'a [u8],
        /// Expands whole blocks.
        expand: fn(&[u8], &mut [f32]),
        /// Bytes of [`PIECE`] elements.
        piece_bytes: usize,
    },
}

/// `c [m, n] = alpha * a [m, k] bᵀ`, plus `c` with `accumulate`, `b [n, k]` in segments one below the other; rows of `a` and
/// of `c` are so many elements apart.
///
/// # Panics
/// Where a slice is shorter than its sizes say.
pub fn matmul_few_rows(
    a: &[f32],
    a_stride: usize,
    b: &[Segment],
    m: usize,
    k: usize,
    alpha: f32,
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
) {
    let n: usize = b.iter().map(|segment| segment.rows).sum();
    assert!(m > 0 && n > 0 && k > 0 && k <= a_stride && n <= c_stride, "a product of {m} x {k} by {k} x {n}");
    assert!((m - 1) * a_stride + k <= a.len(), "a is shorter than {m} x {k}");
    assert!((m - 1) * c_stride + n <= c.len(), "c is shorter than {m} x {n}");
    let c = Shared::new(c);
    let task = |rows: Range<usize>| {
        EXPANDED.with_borrow_mut(|expanded| {
            expanded.resize(PIECE, 0.0);
            let mut sums = vec![0.0_f32; m];
            let mut start = 0;
            for segment in b {
                let end = start + segment.rows;
                for row in rows.start.max(start)..rows.end.min(end) {
                    sums.fill(0.0);
                    segment.dots(row - start, a, a_stride, k, expanded, &mut sums);
                    for (r, &sum) in sums.iter().enumerate() {
                        // SAFETY: this task alone writes this column.
                        let to = unsafe { &mut c.slice(r * c_stride + row, 1)[0] };
                        *to = if accumulate { alpha * sum + *to } else { alpha * sum };
                    }
                }
                start = end;
            }
        });
    };
    let elements = n.saturating_mul(k);
    let tasks = (elements / TASK).min(par::threads() * TASKS).min(n);
    if tasks <= 1 || elements.saturating_mul(m) < SERIAL {
        return task(0..n);
    }
    par::tasks(tasks, |index| task(index * n / tasks..(index + 1) * n / tasks));
}

impl Segment<'_> {
    /// Adds to `sums` what a row gives with each row of `a`.
    fn dots(&self, row: usize, a: &[f32], a_stride: usize, k: usize, expanded: &mut [f32], sums: &mut [f32]) {
        match &self.stored {
            RowsOf::Plain(values) => dots(&values[row * k..(row + 1) * k], a, a_stride, sums),
            RowsOf::Blocks { kind, bytes, expand, piece_bytes } => {
                let row_bytes = bytes.len() / self.rows;
                let mut stored = &bytes[row * row_bytes..(row + 1) * row_bytes];
                for first in (0..k).step_by(PIECE) {
                    let count = PIECE.min(k - first);
                    let (piece, rest) = stored.split_at(stored.len().min(*piece_bytes));
                    if !block_dots(*kind, piece, &a[first..], a_stride, count, sums) {
                        let out = &mut expanded[..count];
                        expand(piece, out);
                        dots(out, &a[first..], a_stride, sums);
                    }
                    stored = rest;
                }
            }
        }
    }
}

/// As [`dots`] of a piece as it is stored: with the same bits, and without anything in f32. False where there is no way.
fn block_dots(kind: Blocks, stored: &[u8], a: &[f32], a_stride: usize, k: usize, sums: &mut [f32]) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        if level() == Level::Baseline || kind == Blocks::Other {
            return false;
        }
        assert!((sums.len() - 1) * a_stride + k <= a.len() && stored.len() == kind.bytes_of(k));
        let most = if level() == Level::Avx512 { 8 } else { 4 };
        for (index, sums) in sums.chunks_mut(most).enumerate() {
            // SAFETY: rows and blocks lie inside `a` and `stored`, checked above; the instructions are this machine's.
            unsafe {
                let a = a.as_ptr().add(index * most * a_stride);
                match level() {
                    Level::Avx512 => wide::blocks_avx512(kind, stored, k, a, a_stride, sums),
                    _ => wide::blocks_avx2(kind, stored, k, a, a_stride, sums),
                }
            }
        }
        true
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (kind, stored, a, a_stride, k, sums);
        false
    }
}

/// Adds `w . a[r]` to each `sums[r]`, rows of `a` being so many elements apart.
fn dots(w: &[f32], a: &[f32], a_stride: usize, sums: &mut [f32]) {
    let (rows, k) = (sums.len(), w.len());
    assert!((rows - 1) * a_stride + k <= a.len());
    #[cfg(target_arch = "x86_64")]
    if level() > Level::Baseline {
        let most = if level() == Level::Avx512 { 8 } else { 4 };
        for (index, sums) in sums.chunks_mut(most).enumerate() {
            // SAFETY: the rows lie inside `a`, checked above; the instructions are this machine's.
            unsafe {
                let a = a.as_ptr().add(index * most * a_stride);
                match level() {
                    Level::Avx512 => wide::avx512(w, a, a_stride, sums),
                    _ => wide::avx2(w, a, a_stride, sums),
                }
            }
        }
        return;
    }
    for (r, sum) in sums.iter_mut().enumerate() {
        let row = &a[r * a_stride..][..k];
        let mut lanes = [0.0_f32; 16];
        let ((w, w_rest), (x, x_rest)) = (w.as_chunks::<16>(), row.as_chunks::<16>());
        for (w, x) in w.iter().zip(x) {
            for l in 0..16 {
                lanes[l] += w[l] * x[l];
            }
        }
        let mut total = sum_lanes(&lanes);
        for (w, x) in w_rest.iter().zip(x_rest) {
            total += w * x;
        }
        *sum += total;
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    use super::super::super::simd::sum_lanes;
    use super::super::tile::Vector;
    use super::Blocks;

    /// Bytes ahead of a block that are asked for when it is read: the next rows.
    const AHEAD: usize = 2048;

    /// What a sum begins with: two vectors for each of `M` rows.
    type Sums<V, const M: usize> = [[V; 2]; M];

    /// `M` rows of `a` by `w`, two vectors of each at a time.
    ///
    /// # Safety
    /// The rows are as long as `w`, and the vector's instructions exist on this machine.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices keep rows and vectors visible, and the loops unrolled
    unsafe fn rows<V: Vector, const M: usize>(w: &[f32], a: *const f32, a_stride: usize, to: &mut [f32]) {
        unsafe {
            let pair = 2 * V::LANES;
            let whole = w.len() / pair * pair;
            let mut sums = [[V::zero(); 2]; M];
            let mut p = 0;
            while p < whole {
                for half in 0..2 {
                    let at = p + half * V::LANES;
                    let weight = V::load(w.as_ptr().add(at));
                    for r in 0..M {
                        sums[r][half] = V::load(a.add(r * a_stride + at)).mul_add(weight, sums[r][half]);
                    }
                }
                p += pair;
            }
            for r in 0..M {
                let mut sum = total(&sums[r]);
                for q in whole..w.len() {
                    sum = w[q].mul_add(*a.add(r * a_stride + q), sum);
                }
                to[r] += sum;
            }
        }
    }

    /// The sum of all lanes, in a fixed order.
    ///
    /// # Safety
    /// The vector's instructions exist on this machine.
    #[inline(always)]
    unsafe fn total<V: Vector>(sums: &[V; 2]) -> f32 {
        let mut lanes = [[0.0_f32; 16]; 2];
        // SAFETY: a vector has at most 16 lanes.
        unsafe {
            sums[0].store(lanes[0].as_mut_ptr());
            sums[1].store(lanes[1].as_mut_ptr());
        }
        sum_lanes(&lanes[0]) + sum_lanes(&lanes[1])
    }

    /// Numbers out of bytes, as many as a vector has lanes.
    trait Bytes: Vector {
        /// The sixteen numbers that a block's nibbles stand for, or what they are made of.
        type Levels: Copy;
        /// The half-precision number there, in every lane.
        unsafe fn half(from: *const u8) -> Self;
        /// Signed bytes.
        unsafe fn signed(from: *const u8) -> Self;
        /// `d (q - 8)`.
        unsafe fn levels_q4_0(block: *const u8) -> Self::Levels;
        /// `d q + m`.
        unsafe fn levels_q4_1(block: *const u8) -> Self::Levels;
        /// Vector `v` of a block whose nibbles are in the 16 bytes there: low ones first.
        unsafe fn of_nibbles(levels: Self::Levels, from: *const u8, v: usize) -> Self;
    }

    /// A nibble picks one of 16 lanes, which takes fewer instructions than to compute with it.
    impl Bytes for __m512 {
        type Levels = __m512;

        #[inline(always)]
        unsafe fn half(from: *const u8) -> Self {
            unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(from.cast::<i16>().read_unaligned())) }
        }
        #[inline(always)]
        unsafe fn signed(from: *const u8) -> Self {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn levels_q4_0(block: *const u8) -> Self {
            unsafe {
                let q = _mm512_setr_ps(
                    -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
                );
                _mm512_mul_ps(Self::half(block), q)
            }
        }
        #[inline(always)]
        unsafe fn levels_q4_1(block: *const u8) -> Self {
            unsafe {
                let q = _mm512_setr_ps(
                    0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
                );
                // Both at once: d in the even lanes, m in the odd ones.
                let both = _mm512_cvtph_ps(_mm256_set1_epi32(block.cast::<i32>().read_unaligned()));
                _mm512_add_ps(_mm512_mul_ps(_mm512_moveldup_ps(both), q), _mm512_movehdup_ps(both))
            }
        }
        #[inline(always)]
        unsafe fn of_nibbles(levels: Self, from: *const u8, v: usize) -> Self {
            unsafe {
                // Of each index only the lowest four bits are looked at.
                let low = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
                _mm512_permutexvar_ps(if v == 0 { low } else { _mm512_srli_epi32::<4>(low) }, levels)
            }
        }
    }

    impl Bytes for __m256 {
        /// `d`, and `m` where there is one.
        type Levels = (__m256, Option<__m256>);

        #[inline(always)]
        unsafe fn half(from: *const u8) -> Self {
            unsafe { _mm256_cvtph_ps(_mm_set1_epi16(from.cast::<i16>().read_unaligned())) }
        }
        #[inline(always)]
        unsafe fn signed(from: *const u8) -> Self {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn levels_q4_0(block: *const u8) -> Self::Levels {
            unsafe { (Self::half(block), None) }
        }
        #[inline(always)]
        unsafe fn levels_q4_1(block: *const u8) -> Self::Levels {
            unsafe { (Self::half(block), Some(Self::half(block.add(2)))) }
        }
        #[inline(always)]
        unsafe fn of_nibbles((d, m): Self::Levels, from: *const u8, v: usize) -> Self {
            unsafe {
                let bytes = _mm_loadl_epi64(from.add(v % 2 * 8).cast());
                let nibbles = _mm_and_si128(if v < 2 { bytes } else { _mm_srli_epi16::<4>(bytes) }, _mm_set1_epi8(15));
                let q = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(nibbles));
                match m {
                    None => _mm256_mul_ps(d, _mm256_add_ps(q, _mm256_set1_ps(-8.0))),
                    Some(m) => _mm256_add_ps(_mm256_mul_ps(d, q), m),
                }
            }
        }
    }

    /// `M` rows of `a` by blocks of `bytes` bytes and 32 elements. `weight` gives vector `v` of a block.
    ///
    /// # Safety
    /// As [`rows`], with as many elements as the blocks hold.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as in `rows`
    unsafe fn of_blocks<V: Bytes, const M: usize, S: Copy>(
        stored: &[u8],
        (bytes, k): (usize, usize),
        a: *const f32,
        a_stride: usize,
        to: &mut [f32],
        scale: impl Fn(*const u8) -> S,
        weight: impl Fn(*const u8, S, usize) -> V,
    ) {
        unsafe {
            let mut sums: Sums<V, M> = [[V::zero(); 2]; M];
            for index in 0..k / 32 {
                let block = stored.as_ptr().add(index * bytes);
                _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD).cast());
                let scale = scale(block);
                for v in 0..32 / V::LANES {
                    let at = index * 32 + v * V::LANES;
                    let weight = weight(block, scale, v);
                    for r in 0..M {
                        sums[r][v % 2] = V::load(a.add(r * a_stride + at)).mul_add(weight, sums[r][v % 2]);
                    }
                }
            }
            for r in 0..M {
                to[r] += total(&sums[r]);
            }
        }
    }

    /// As [`of_blocks`], for each kind. Products are rounded before anything is added, as where blocks are expanded.
    ///
    /// # Safety
    /// As [`of_blocks`].
    #[inline(always)]
    unsafe fn of_kind<V: Bytes, const M: usize>(
        kind: Blocks,
        stored: &[u8],
        k: usize,
        a: *const f32,
        a_stride: usize,
        to: &mut [f32],
    ) {
        unsafe {
            match kind {
                Blocks::Q4_0 => {
                    let weight = |block: *const u8, levels, v| V::of_nibbles(levels, block.add(2), v);
                    let bytes = Blocks::Q4_0.bytes_of(32);
                    of_blocks::<V, M, _>(stored, (bytes, k), a, a_stride, to, |block| V::levels_q4_0(block), weight);
                }
                Blocks::Q4_1 => {
                    let weight = |block: *const u8, levels, v| V::of_nibbles(levels, block.add(4), v);
                    let bytes = Blocks::Q4_1.bytes_of(32);
                    of_blocks::<V, M, _>(stored, (bytes, k), a, a_stride, to, |block| V::levels_q4_1(block), weight);
                }
                Blocks::Q8_0 => {
                    let weight = |block: *const u8, d: V, v: usize| d.mul(V::signed(block.add(2 + v * V::LANES)));
                    let bytes = Blocks::Q8_0.bytes_of(32);
                    of_blocks::<V, M, _>(stored, (bytes, k), a, a_stride, to, |block| V::half(block), weight);
                }
                Blocks::Other => unreachable!("these are expanded"),
            }
        }
    }

    macro_rules! kernel {
        ($name:ident, $blocks:ident, $features:literal, $vector:ty; $($count:literal)*) => {
            /// # Safety
            /// As [`rows`].
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(w: &[f32], a: *const f32, a_stride: usize, sums: &mut [f32]) {
                // SAFETY: the caller's promise.
                unsafe {
                    match sums.len() {
                        $($count => rows::<$vector, $count>(w, a, a_stride, sums),)*
                        other => unreachable!("no kernel of {other} rows"),
                    }
                }
            }

            /// # Safety
            /// As [`of_blocks`].
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $blocks(
                kind: Blocks,
                stored: &[u8],
                k: usize,
                a: *const f32,
                a_stride: usize,
                sums: &mut [f32],
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    match sums.len() {
                        $($count => of_kind::<$vector, $count>(kind, stored, k, a, a_stride, sums),)*
                        other => unreachable!("no kernel of {other} rows"),
                    }
                }
            }
        };
    }
    kernel!(avx512, blocks_avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", __m512; 1 2 3 4 5 6 7 8);
    kernel!(avx2, blocks_avx2, "avx2,fma,f16c", __m256; 1 2 3 4);
}
