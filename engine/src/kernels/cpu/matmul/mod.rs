//! Matrix products: most of a training step's time.
//!
//! `c = alpha * a b (+ c)` on row-major matrices with any row stride, each operand as it is or transposed. On x86-64
//! with AVX2 or AVX-512 a packed register-blocked kernel written here; elsewhere the `gemm` crate.
//!
//! How the packed kernel works (Goto and van de Geijn 2008): the columns of `c` are cut into blocks, one task each. A
//! task copies a `depth x columns` block of `b` into panels as wide as the accumulators, so that the innermost loop
//! reads it in order (expanding it first where `b` is a frozen matrix of few bits), then runs down the rows of `a`: a few rows of `a`, one number of each at a time broadcast, times
//! one panel of `b`, into accumulators that stay in registers.
//!
//! Nearly all of the engine's `unsafe` is in this folder: `packed` deals blocks to threads, `packing` copies them in the
//! order of reading, `tile` with `avx512` and `avx2` is the innermost loop. It is kept beside `gemm` because it is faster
//! where training spends most of its products, and because every stored result of the CPU backend is its bits: on two cores
//! of an AMD EPYC with AVX-512 that other work kept busy, `temper bench product` gave it 2 to 25 % more than `gemm` for `nt`,
//! about the same for `nn` and 8 to 21 % less for `tn`; with 8 rows (generation, short batches) 2, 1.45 and 1.08 times as much.
//!
//! Every element of `c` is one chain of fused multiply-adds over ascending depth, cut at fixed depths. It does not depend
//! on how rows and columns were shared among threads, so results are the same for any number of threads.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod few_rows;
mod half_rows;
#[cfg(target_arch = "x86_64")]
mod packed;
#[cfg(target_arch = "x86_64")]
mod packing;
mod portable;
mod stored;
#[cfg(target_arch = "x86_64")]
mod tile;

pub use few_rows::{Blocks, PIECE, RowsOf, Segment, matmul_few_rows};
pub use half_rows::half_rows;
pub(crate) use stored::rectangle_elements;
pub use stored::{Stored, matmul_stored};

use super::par::Shared;
#[cfg(target_arch = "x86_64")]
use super::simd::{Level, level};

/// Longest sum that is formed in one go: longer ones are cut, so it is part of the result's definition.
const DEPTH: usize = 512;

/// Terms of each part of a sum of `k`: where the packed kernel cuts it.
fn depth_of_parts(k: usize) -> usize {
    k.div_ceil(k.div_ceil(DEPTH).max(1)).max(1)
}

/// Elements that a thread keeps once it has multiplied: a packed block of `b`, and of `a [m, k]` where it is `transposed`.
pub(crate) fn scratch_elements(transposed: Option<[usize; 2]>) -> usize {
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx2 {
        let packed = transposed.map_or(0, |[m, k]| packed::packed_elements(m, k));
        return packed::panel_elements().saturating_add(packed);
    }
    let _ = transposed;
    0
}

/// How a matrix argument lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Elements between the starts of two stored rows.
    pub row_stride: usize,
    /// The product uses the transpose of what is stored.
    pub transposed: bool,
}

impl Layout {
    /// Stored as used, rows `row_stride` elements apart.
    pub fn rows(row_stride: usize) -> Self {
        Self { row_stride, transposed: false }
    }

    /// The transpose of what is stored is used; stored rows are `row_stride` elements apart.
    pub fn transposed(row_stride: usize) -> Self {
        Self { row_stride, transposed: true }
    }

    /// (row stride, column stride) of the matrix as the product uses it.
    pub fn strides(self) -> (usize, usize) {
        if self.transposed { (1, self.row_stride) } else { (self.row_stride, 1) }
    }

    /// Elements that a `rows x columns` matrix of this layout spans.
    fn span(self, rows: usize, columns: usize) -> usize {
        if rows == 0 || columns == 0 {
            return 0;
        }
        let (row, column) = self.strides();
        (rows - 1) * row + (columns - 1) * column + 1
    }
}

/// Sizes of a product: `c [m, n]`, depth `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of `a` and `c`.
    pub m: usize,
    /// Columns of `b` and `c`.
    pub n: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
}

/// `c [m, n] = alpha * a [m, k] b [k, n]`, plus `c` with `accumulate`; `c`'s rows are `c_stride` elements apart and
/// what lies between them is left alone. Shared among all threads.
///
/// # Panics
/// Where a slice is shorter than its sizes say.
pub fn matmul(
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    sizes: Sizes,
    alpha: f32,
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
) {
    if let Some(product) = Product::new(a, a_layout, b, b_layout, sizes, alpha, accumulate, c, c_stride) {
        product.run(true);
    }
}

/// As [`matmul`], on the calling thread alone: for callers that are tasks themselves.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_serial(
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    sizes: Sizes,
    alpha: f32,
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
) {
    if let Some(product) = Product::new(a, a_layout, b, b_layout, sizes, alpha, accumulate, c, c_stride) {
        product.run(false);
    }
}

/// As [`matmul`], by the `gemm` crate on any machine: what `temper bench product` compares with.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_by_gemm(
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    sizes: Sizes,
    alpha: f32,
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
) {
    if let Some(product) = Product::new(a, a_layout, b, b_layout, sizes, alpha, accumulate, c, c_stride) {
        product.run_portable(true);
    }
}

/// The right side of a product.
#[derive(Clone, Copy)]
enum Right<'a> {
    /// Numbers, and their strides.
    Held(&'a [f32], (usize, usize)),
    /// A matrix that is expanded while it is packed.
    #[cfg(target_arch = "x86_64")]
    Stored(&'a Stored<'a>),
}

/// A product whose matrices lie inside their slices: every index that the sizes allow is one. `m`, `n` and `k` are at
/// least 1.
struct Product<'a> {
    a: &'a [f32],
    a_strides: (usize, usize),
    b: Right<'a>,
    sizes: Sizes,
    alpha: f32,
    accumulate: bool,
    c: Shared<f32>,
    c_stride: usize,
}

impl<'a> Product<'a> {
    /// Checks the sizes. `None` where nothing is left to compute.
    fn new(
        a: &'a [f32],
        a_layout: Layout,
        b: &'a [f32],
        b_layout: Layout,
        sizes: Sizes,
        alpha: f32,
        accumulate: bool,
        c: &'a mut [f32],
        c_stride: usize,
    ) -> Option<Self> {
        let Sizes { n, k, .. } = sizes;
        assert!(b_layout.span(k, n) <= b.len(), "b is shorter than {k} x {n}");
        Self::with(a, a_layout, Right::Held(b, b_layout.strides()), sizes, alpha, accumulate, c, c_stride)
    }

    /// As [`Product::new`], with a right side that covers `k x n`.
    fn with(
        a: &'a [f32],
        a_layout: Layout,
        b: Right<'a>,
        sizes: Sizes,
        alpha: f32,
        accumulate: bool,
        c: &'a mut [f32],
        c_stride: usize,
    ) -> Option<Self> {
        let Sizes { m, n, k } = sizes;
        assert!(a_layout.span(m, k) <= a.len(), "a is shorter than {m} x {k}");
        assert!(n <= c_stride || m <= 1, "rows of c overlap");
        assert!(Layout::rows(c_stride).span(m, n) <= c.len(), "c is shorter than {m} x {n}");
        if m == 0 || n == 0 {
            return None;
        }
        if k == 0 {
            if !accumulate {
                c.chunks_mut(c_stride.max(n)).take(m).for_each(|row| row[..n].fill(0.0));
            }
            return None;
        }
        Some(Self { a, a_strides: a_layout.strides(), b, sizes, alpha, accumulate, c: Shared::new(c), c_stride })
    }

    fn run(&self, shared: bool) {
        #[cfg(target_arch = "x86_64")]
        if level() >= Level::Avx2 {
            return self.run_packed(shared);
        }
        self.run_portable(shared);
    }
}
