//! Products with a matrix that is expanded while it is used: no f32 copy of it exists, only of what stays in the caches.
//!
//! Each task of the packed kernel expands what it packs. Where there is no such kernel, and where a task's columns would cut
//! blocks so long that most of them were expanded for nothing, rectangles are expanded by all threads and multiplied one after the
//! other.

use std::cell::RefCell;
use std::ops::Range;

use super::super::par;
#[cfg(target_arch = "x86_64")]
use super::super::simd::{Level, level};
use super::{Layout, Sizes, depth_of_parts, matmul};
#[cfg(target_arch = "x86_64")]
use super::{Product, Right};

/// Writes a rectangle of a matrix in f32.
pub type Expand<'a> = dyn Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync + 'a;

/// The right side of a product: a matrix whose stored rows are expanded to f32 when they are asked for.
pub struct Stored<'a> {
    /// Writes a rectangle of stored rows and columns, row-major, completely.
    pub expand: &'a Expand<'a>,
    /// Rows as stored.
    pub rows: usize,
    /// Columns as stored.
    pub columns: usize,
    /// Columns of a rectangle begin and end at multiples of this, at least 1, or at the end of a row.
    pub block: usize,
    /// The product uses the transpose of what is stored.
    pub transposed: bool,
}

impl Stored<'_> {
    /// The whole blocks in which columns lie.
    pub(super) fn whole_blocks(&self, columns: Range<usize>) -> Range<usize> {
        columns.start / self.block * self.block..columns.end.next_multiple_of(self.block).min(self.columns)
    }

    /// Whether tasks expand what they pack. Where rows are outputs a task takes whole rows, as deep as it packs them.
    #[cfg(target_arch = "x86_64")]
    fn is_packed(&self) -> bool {
        level() >= Level::Avx2 && (self.transposed || self.block <= LONGEST_CUT)
    }
}

/// Longest blocks that a task's columns may cut.
#[cfg(target_arch = "x86_64")]
const LONGEST_CUT: usize = 64;
/// Outputs of a rectangle for each thread: as many columns of `c` as a task of a product takes, twice, so that a late
/// thread holds up nobody for long.
const OUTPUTS: usize = 384;
/// Outputs of the largest rectangle, which bounds memory on machines of many cores.
const MOST_OUTPUTS: usize = 8192;

thread_local! {
    /// The rectangle, kept so that a product allocates only once per thread.
    static RECTANGLE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Elements of the largest rectangle that is expanded at once.
pub(crate) fn rectangle_elements(threads: usize) -> usize {
    (OUTPUTS * threads).min(MOST_OUTPUTS) * super::DEPTH
}

/// `c [m, n] = alpha * a [m, k] b [k, n]`, plus `c` with `accumulate`: the bits of [`matmul`] with `b` expanded before.
///
/// # Panics
/// Where a slice is shorter than its sizes say.
pub fn matmul_stored(
    a: &[f32],
    a_layout: Layout,
    b: &Stored,
    m: usize,
    alpha: f32,
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
) {
    let (n, k) = if b.transposed { (b.rows, b.columns) } else { (b.columns, b.rows) };
    #[cfg(target_arch = "x86_64")]
    if b.is_packed() {
        let sizes = Sizes { m, n, k };
        if let Some(product) = Product::with(a, a_layout, Right::Stored(b), sizes, alpha, accumulate, c, c_stride) {
            product.run_packed(true);
        }
        return;
    }
    // Sums are cut where the product cuts them itself, so that bits stay the same.
    let depth = depth_of_parts(k);
    let outputs = (OUTPUTS * par::threads()).min(MOST_OUTPUTS).next_multiple_of(b.block.max(1));
    RECTANGLE.with_borrow_mut(|rectangle| {
        for j in (0..n).step_by(outputs) {
            let wide = outputs.min(n - j);
            for p in (0..k).step_by(depth) {
                let deep = depth.min(k - p);
                let (rows, columns) =
                    if b.transposed { (j..j + wide, p..p + deep) } else { (p..p + deep, j..j + wide) };
                // Blocks at the edges are expanded whole.
                let whole = b.whole_blocks(columns.clone());
                let length = rows.len() * whole.len();
                if rectangle.len() < length {
                    rectangle.resize(length, 0.0);
                }
                (b.expand)(rows, whole.clone(), &mut rectangle[..length]);
                let right = &rectangle[columns.start - whole.start..length];
                let right_layout = Layout { row_stride: whole.len(), transposed: b.transposed };
                let left = &a[p * a_layout.strides().1..];
                let sizes = Sizes { m, n: wide, k: deep };
                matmul(left, a_layout, right, right_layout, sizes, alpha, accumulate || p > 0, &mut c[j..], c_stride);
            }
        }
    });
}
