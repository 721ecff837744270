//! Copies of blocks of `a` and `b` in the order in which the tiles read them.

use super::Product;
use super::tile::Kernel;

impl Product<'_> {
    /// Copies `b [p .. p + depth, j .. j + n]` into panels of whole vectors, zero-padded on the right; with `direct` only
    /// the panel that needs padding.
    ///
    /// # Safety
    /// The block lies inside b.
    pub(super) unsafe fn pack_b(
        &self,
        kernel: Kernel,
        p: usize,
        depth: usize,
        j: usize,
        n: usize,
        direct: bool,
        packed: &mut [f32],
    ) {
        let (b_row, b_column) = self.b_strides;
        let panel = kernel.panel();
        let mut column = 0;
        while column < n {
            let width = panel.min(n - column);
            let stride = width.next_multiple_of(kernel.lanes);
            if direct && width == stride {
                column += panel;
                continue;
            }
            let to = &mut packed[column * depth..column * depth + stride * depth];
            // SAFETY: inside b.
            unsafe {
                let from = self.b.as_ptr().add(p * b_row + (j + column) * b_column);
                if b_column == 1 {
                    for q in 0..depth {
                        let row = &mut to[q * stride..(q + 1) * stride];
                        std::ptr::copy_nonoverlapping(from.add(q * b_row), row.as_mut_ptr(), width);
                        row[width..].fill(0.0);
                    }
                } else {
                    transpose(kernel, from, b_column, width, depth, to, stride);
                }
            }
            column += panel;
        }
    }

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
                    unsafe {
                        let from = self.a.as_ptr().add(i + row + (p + q) * a_column);
                        std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), rows);
                    }
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

/// Writes `to[q * stride + j] = from[j * row_stride + q]` for `width` rows and `depth` columns of `from`, zeros for the
/// rest of each stride.
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
    assert!(to.len() >= depth * stride && width <= stride);
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
        to[q * stride + width..(q + 1) * stride].fill(0.0);
    }
}

/// Makes a buffer at least so long.
pub(super) fn grow(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
}
