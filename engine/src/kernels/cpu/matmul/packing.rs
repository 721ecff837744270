//! Copies of blocks of `a` and `b` in the order in which the tiles read them.

use std::ops::Range;

use super::tile::Kernel;
use super::{Product, Stored};

/// Copies `b [p .. p + depth, j .. j + n]` into panels of whole vectors, zero-padded on the right; with `direct` only
/// the panel that needs padding.
///
/// # Safety
/// The block lies inside b, of which `strides` are the distances from row to row and from column to column.
pub(super) unsafe fn pack_b(
    kernel: Kernel,
    b: &[f32],
    strides: (usize, usize),
    p: usize,
    depth: usize,
    j: usize,
    n: usize,
    direct: bool,
    packed: &mut [f32],
) {
    let (row, column) = strides;
    for Panel { start, width, stride } in panels(kernel, n) {
        if direct && width == stride {
            continue;
        }
        let to = &mut packed[start * depth..(start + stride) * depth];
        // SAFETY: inside b.
        unsafe {
            let from = b.as_ptr().add(p * row + (j + start) * column);
            if column == 1 {
                for (q, to) in to.chunks_exact_mut(stride).enumerate() {
                    copy(from.add(q * row), &mut to[..width]);
                }
            } else {
                transpose(kernel, from, column, width, depth, to, stride);
            }
        }
        pad(to, stride, width);
    }
}

impl Stored<'_> {
    /// As [`pack_b`], of a matrix that is expanded a few rows at a time into `expanded`: they stay in the first-level cache.
    pub(super) fn pack(
        &self,
        kernel: Kernel,
        p: usize,
        depth: usize,
        j: usize,
        n: usize,
        packed: &mut [f32],
        expanded: &mut Vec<f32>,
    ) {
        let columns = if self.transposed { p..p + depth } else { j..j + n };
        let whole = self.whole_blocks(columns.clone());
        let (length, skip) = (whole.len(), columns.start - whole.start);
        grow(expanded, ROWS * length);
        let mut expand = |rows: Range<usize>| {
            let expanded = &mut expanded[..rows.len() * length];
            (self.expand)(rows, whole.clone(), expanded);
            // SAFETY: there are rows, and `skip` lies in the first.
            unsafe { expanded.as_ptr().add(skip) }
        };
        if self.transposed {
            for Panel { start, width, stride } in panels(kernel, n) {
                let to = &mut packed[start * depth..(start + stride) * depth];
                for row in (0..width).step_by(ROWS) {
                    let rows = ROWS.min(width - row);
                    let from = expand(j + start + row..j + start + row + rows);
                    // SAFETY: so many rows were expanded.
                    unsafe { transpose(kernel, from, length, rows, depth, &mut to[row..], stride) };
                }
                pad(to, stride, width);
            }
            return;
        }
        for row in (0..depth).step_by(ROWS) {
            let rows = ROWS.min(depth - row);
            let from = expand(p + row..p + row + rows);
            for Panel { start, width, stride } in panels(kernel, n) {
                let to = &mut packed[start * depth + row * stride..][..rows * stride];
                for (q, to) in to.chunks_exact_mut(stride).enumerate() {
                    // SAFETY: so many rows were expanded.
                    unsafe { copy(from.add(q * length + start), &mut to[..width]) };
                }
                pad(to, stride, width);
            }
        }
    }
}

/// Rows of a stored matrix that are expanded at once: a square of the transposing kernel is as high.
const ROWS: usize = 16;

/// A panel of a packed block.
struct Panel {
    /// Its first column in the block.
    start: usize,
    /// Columns of the block in it.
    width: usize,
    /// The same in whole vectors.
    stride: usize,
}

/// The panels of a block of `n` columns.
fn panels(kernel: Kernel, n: usize) -> impl Iterator<Item = Panel> {
    (0..n).step_by(kernel.panel()).map(move |start| {
        let width = kernel.panel().min(n - start);
        Panel { start, width, stride: width.next_multiple_of(kernel.lanes) }
    })
}

/// Zeros behind the columns of a panel.
fn pad(panel: &mut [f32], stride: usize, width: usize) {
    if width < stride {
        panel.chunks_exact_mut(stride).for_each(|row| row[width..].fill(0.0));
    }
}

/// Copies numbers: full rows of a panel and columns of a tile without a call of memcpy, which would take as long as they do.
///
/// # Safety
/// `from` covers as many as `to` has.
#[inline(always)]
unsafe fn copy(from: *const f32, to: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match to.len() {
            8 => copy_array::<8>(from, to.as_mut_ptr()),
            16 => copy_array::<16>(from, to.as_mut_ptr()),
            // One copy of 48 would be a call.
            48 => {
                copy_array::<16>(from, to.as_mut_ptr());
                copy_array::<16>(from.add(16), to.as_mut_ptr().add(16));
                copy_array::<16>(from.add(32), to.as_mut_ptr().add(32));
            }
            count => std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), count),
        }
    }
}

/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn copy_array<const COUNT: usize>(from: *const f32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { to.cast::<[f32; COUNT]>().write_unaligned(from.cast::<[f32; COUNT]>().read_unaligned()) }
}

impl Product<'_> {
    /// Copies `a [i .. i + m, p .. p + depth]` into groups of rows, one number of each row after the other.
    ///
    /// # Safety
    /// The block lies inside a.
    pub(super) unsafe fn pack_a(&self, kernel: Kernel, i: usize, m: usize, p: usize, depth: usize, packed: &mut [f32]) {
        let (a_row, a_column) = self.a_strides;
        let mut row = 0;
        while row < m {
            let rows = kernel.rows.min(m - row);
            let to = &mut packed[row * depth..(row + rows) * depth];
            if a_row == 1 {
                for (q, to) in to.chunks_exact_mut(rows).enumerate() {
                    // SAFETY: inside a.
                    unsafe { copy(self.a.as_ptr().add(i + row + (p + q) * a_column), to) };
                }
                row += kernel.rows;
                continue;
            }
            for (q, to) in to.chunks_exact_mut(rows).enumerate() {
                for (r, to) in to.iter_mut().enumerate() {
                    // SAFETY: inside a.
                    *to = unsafe { *self.a.as_ptr().add((i + row + r) * a_row + (p + q) * a_column) };
                }
            }
            row += kernel.rows;
        }
    }
}

/// Writes `to[q * stride + j] = from[j * row_stride + q]` for `width` rows and `depth` columns of `from`.
///
/// # Safety
/// `from` covers `width` rows of `depth` elements.
unsafe fn transpose(
    kernel: Kernel,
    from: *const f32,
    row_stride: usize,
    width: usize,
    depth: usize,
    to: &mut [f32],
    stride: usize,
) {
    assert!(width <= stride && to.len() >= (depth - 1) * stride + width);
    let (mut done_rows, mut done_columns) = (0, 0);
    if let Some(transpose_square) = kernel.transpose {
        let lanes = kernel.lanes;
        (done_rows, done_columns) = (width / lanes * lanes, depth / lanes * lanes);
        for q in (0..done_columns).step_by(lanes) {
            for j in (0..done_rows).step_by(lanes) {
                let target = to[q * stride + j..].as_mut_ptr();
                // SAFETY: a square inside both; the kernel is one of this machine.
                unsafe { transpose_square(from.add(j * row_stride + q), row_stride, target, stride) };
            }
        }
    }
    for q in 0..depth {
        let start = if q < done_columns { done_rows } else { 0 };
        for j in start..width {
            // SAFETY: inside from.
            to[q * stride + j] = unsafe { *from.add(j * row_stride + q) };
        }
    }
}

/// Makes a buffer at least so long.
pub(super) fn grow(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
}
