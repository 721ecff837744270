//! The `gemm` crate's product: where no kernel of ours exists, and for comparison.

use super::super::par;
use super::{Product, Right, Sizes};

/// Columns of a block.
const COLUMNS: usize = 128;

impl Product<'_> {
    /// Computes the product in fixed blocks of columns, one thread each: the same bits on any number of threads.
    pub(super) fn run_portable(&self, shared: bool) {
        let Sizes { m, n, k } = self.sizes;
        let (a_row, a_column) = self.a_strides;
        let (b, (b_row, b_column)) = match self.b {
            Right::Held(b, strides) => (b, strides),
            #[cfg(target_arch = "x86_64")]
            Right::Stored(_) => unreachable!("only packed products expand their right side"),
        };
        let block = |index: usize| {
            let start = index * COLUMNS;
            let width = COLUMNS.min(n - start);
            // SAFETY: all three matrices lie inside their slices, as for every `Product`; blocks are disjoint columns of c.
            unsafe {
                gemm::gemm(
                    m,
                    width,
                    k,
                    self.c.pointer(start),
                    1,
                    self.c_stride as isize,
                    self.accumulate,
                    self.a.as_ptr(),
                    a_column as isize,
                    a_row as isize,
                    b.as_ptr().add(start * b_column),
                    b_column as isize,
                    b_row as isize,
                    1.0,
                    self.alpha,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        };
        let blocks = n.div_ceil(COLUMNS);
        if shared { par::tasks(blocks, block) } else { (0..blocks).for_each(block) }
    }
}
