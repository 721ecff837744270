//! The packed kernel for AVX2 and AVX-512: which task computes which block of `c`, and the loops over a block's tiles.

use std::cell::RefCell;

use super::super::par;
use super::super::simd::{Level, level};
use super::packing::grow;
use super::tile::{Kernel, Tile};
use super::{Product, Right, Sizes, avx2, avx512, depth_of_parts};

/// Columns of a packed block: [`DEPTH`](super::DEPTH) times so many numbers stay in a core's second-level cache.
const COLUMNS: usize = 192;

/// The machine's best tiles.
fn best() -> Kernel {
    match level() {
        Level::Avx512 => avx512::KERNEL,
        _ => avx2::KERNEL,
    }
}

/// Operations below which handing work to another thread costs more than it saves.
const SERIAL: usize = 1_000_000;
/// Rows up to which `b` is read where it lies: packing it would cost more than it saves.
const FEW_ROWS: usize = 24;

thread_local! {
    /// Packing buffers, kept so that a product allocates only once per thread: of `b`, of `a`, and of what is expanded of `b`.
    static BUFFERS: RefCell<[Vec<f32>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
}

/// Elements of a thread's packed block of `b`, at most.
pub(super) fn panel_elements() -> usize {
    super::DEPTH * COLUMNS
}

/// Elements of a thread's packed `a`, which a product `[m, k] [k, n]` packs whole where it is transposed and `n` has columns
/// enough for all threads.
pub(super) fn packed_elements(m: usize, k: usize) -> usize {
    depth_of_parts(k).saturating_mul(m.next_multiple_of(best().rows))
}

impl Product<'_> {
    /// Computes the product on all threads, or on the calling one alone.
    pub(super) fn run_packed(&self, shared: bool) {
        let kernel = best();
        let Sizes { m, n, .. } = self.sizes;
        let panel = kernel.panel();
        let panels = n.div_ceil(panel);
        let shared = shared && 2 * m * n * self.sizes.k > SERIAL;
        let threads = if shared { par::threads() } else { 1 };
        // Columns are cut so that tasks are a multiple of the threads where there are panels enough; rows are cut
        // too where there are not.
        let most = COLUMNS / panel;
        let column_tasks = panels.div_ceil(most).next_multiple_of(threads).min(panels);
        let row_tasks = if column_tasks >= threads { 1 } else { threads.div_ceil(column_tasks) };
        let row_tasks = row_tasks.min(m.div_ceil(kernel.rows));
        let rows = m.div_ceil(row_tasks).next_multiple_of(kernel.rows);
        let task = |index: usize| {
            let (column, row) = (index / row_tasks, index % row_tasks);
            let edge = |column: usize| n.min(column * panels / column_tasks * panel);
            let (j, i) = (edge(column), row * rows);
            if i < m {
                self.block(kernel, i, rows.min(m - i), j, edge(column + 1) - j);
            }
        };
        let count = column_tasks * row_tasks;
        if shared { par::tasks(count, task) } else { (0..count).for_each(task) }
    }

    /// Computes `c [i .. i + m, j .. j + n]`.
    fn block(&self, kernel: Kernel, i: usize, m: usize, j: usize, n: usize) {
        BUFFERS.with_borrow_mut(|[packed_b, packed_a, expanded]| {
            let k = self.sizes.k;
            let depth = depth_of_parts(k);
            let parts = k.div_ceil(depth);
            let panel = kernel.panel();
            grow(packed_b, depth * n.next_multiple_of(kernel.lanes));
            let (a_row, a_column) = self.a_strides;
            let direct = match self.b {
                Right::Held(b, (row, 1)) if m <= FEW_ROWS => Some((b.as_ptr(), row)),
                _ => None,
            };
            // Broadcasting reads a few rows of `a` at once, each in order; a transposed `a` is packed to be so.
            let pack_a = a_column != 1;
            if pack_a {
                grow(packed_a, depth * m.next_multiple_of(kernel.rows));
            }
            for part in 0..parts {
                let p = part * depth;
                let depth = depth.min(k - p);
                // SAFETY: the block lies inside a and b; the buffers hold a whole block.
                unsafe {
                    match self.b {
                        Right::Held(b, strides) => {
                            super::packing::pack_b(kernel, b, strides, p, depth, j, n, direct.is_some(), packed_b);
                        }
                        Right::Stored(b) => b.pack(kernel, p, depth, j, n, packed_b, expanded),
                    }
                    if pack_a {
                        self.pack_a(kernel, i, m, p, depth, packed_a);
                    }
                }
                let mut row = 0;
                while row < m {
                    let rows = kernel.rows.min(m - row);
                    let mut column = 0;
                    while column < n {
                        let width = panel.min(n - column);
                        // SAFETY: the tile lies inside c and is this task's alone.
                        unsafe {
                            let (a, a_row, a_step) = if pack_a {
                                (packed_a.as_ptr().add(row * depth), 1, rows)
                            } else {
                                (self.a.as_ptr().add((i + row) * a_row + p * a_column), a_row, a_column)
                            };
                            let whole = width.next_multiple_of(kernel.lanes);
                            let (panel, panel_step) = match direct {
                                Some((b, row)) if width == whole => (b.add(p * row + j + column), row),
                                _ => (packed_b.as_ptr().add(column * depth), whole),
                            };
                            let tile = Tile {
                                a,
                                a_row,
                                a_step,
                                panel,
                                panel_step,
                                depth,
                                c: self.c.pointer((i + row) * self.c_stride + j + column),
                                c_stride: self.c_stride,
                                width,
                                alpha: self.alpha,
                                add: self.accumulate || part > 0,
                            };
                            (kernel.run)(width.div_ceil(kernel.lanes), rows, tile);
                        }
                        column += panel;
                    }
                    row += kernel.rows;
                }
            }
        });
    }
}
