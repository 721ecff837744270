//! Matrix products: most of a training step's time.
//!
//! `c = alpha * a b (+ c)` on row-major matrices with any row stride, each operand as it is or transposed. On x86-64
//! with AVX2 or AVX-512 a packed register-blocked kernel written here; elsewhere the `gemm` crate.
//!
//! How the packed kernel works (Goto and van de Geijn 2008): the columns of `c` are cut into blocks, one task each. A
//! task copies a `depth x columns` block of `b` into panels as wide as the accumulators, so that the innermost loop
//! reads it in order, then runs down the rows of `a`: a few rows of `a`, one number of each at a time broadcast, times
//! one panel of `b`, into accumulators that stay in registers.
//!
//! Every element of `c` is one chain of fused multiply-adds over ascending depth, cut at fixed depths. It does not depend
//! on how rows and columns were shared among threads, so results are the same for any number of threads.

use super::par;
use super::par::Shared;
#[cfg(target_arch = "x86_64")]
use super::simd::{Level, level};

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

/// `c [m, n] = alpha * a [m, k] b [n, k]^T`, plus `c` with `accumulate`: a linear layer's forward product `y = x W^T`.
pub fn matmul_nt(a: &[f32], b: &[f32], sizes: Sizes, alpha: f32, accumulate: bool, c: &mut [f32]) {
    matmul(a, Layout::rows(sizes.k), b, Layout::transposed(sizes.k), sizes, alpha, accumulate, c, sizes.n);
}

/// `c [m, n] = alpha * a [m, k] b [k, n]`, plus `c` with `accumulate`: a linear layer's input gradient `dx = dy W`.
pub fn matmul_nn(a: &[f32], b: &[f32], sizes: Sizes, alpha: f32, accumulate: bool, c: &mut [f32]) {
    matmul(a, Layout::rows(sizes.k), b, Layout::rows(sizes.n), sizes, alpha, accumulate, c, sizes.n);
}

/// `c [m, n] = alpha * a [k, m]^T b [k, n]`, plus `c` with `accumulate`: a linear layer's weight gradient `dW = dy^T x`.
pub fn matmul_tn(a: &[f32], b: &[f32], sizes: Sizes, alpha: f32, accumulate: bool, c: &mut [f32]) {
    matmul(a, Layout::transposed(sizes.m), b, Layout::rows(sizes.n), sizes, alpha, accumulate, c, sizes.n);
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
    run(a, a_layout, b, b_layout, sizes, alpha, accumulate, c, c_stride, true);
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
    run(a, a_layout, b, b_layout, sizes, alpha, accumulate, c, c_stride, false);
}

fn run(
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    sizes: Sizes,
    alpha: f32,
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
    shared: bool,
) {
    let Sizes { m, n, k } = sizes;
    assert!(a_layout.span(m, k) <= a.len(), "a is shorter than {m} x {k}");
    assert!(b_layout.span(k, n) <= b.len(), "b is shorter than {k} x {n}");
    assert!(n <= c_stride || m <= 1, "rows of c overlap");
    assert!(Layout::rows(c_stride).span(m, n) <= c.len(), "c is shorter than {m} x {n}");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.chunks_mut(c_stride.max(n)).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx2 {
        let product = packed::Product {
            a: a.as_ptr(),
            a_strides: a_layout.strides(),
            b: b.as_ptr(),
            b_strides: b_layout.strides(),
            sizes,
            alpha,
            accumulate,
            c: Shared::new(c),
            c_stride,
        };
        return product.run(shared);
    }
    portable(a, a_layout, b, b_layout, sizes, alpha, accumulate, c, c_stride, shared);
}

/// The `gemm` crate's product, cut into fixed column blocks that are computed by one thread each.
fn portable(
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    Sizes { m, n, k }: Sizes,
    alpha: f32,
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
    shared: bool,
) {
    const COLUMNS: usize = 128;
    let ((a_row, a_column), (b_row, b_column)) = (a_layout.strides(), b_layout.strides());
    let (a_slice, b_slice, c) = (a, b, Shared::new(c));
    let block = |index: usize| {
        let start = index * COLUMNS;
        let width = COLUMNS.min(n - start);
        // SAFETY: `run` checked that all three matrices lie inside their slices; blocks are disjoint columns of c.
        unsafe {
            gemm::gemm(
                m,
                width,
                k,
                c.pointer(start),
                1,
                c_stride as isize,
                accumulate,
                a_slice.as_ptr(),
                a_column as isize,
                a_row as isize,
                b_slice.as_ptr().add(start * b_column),
                b_column as isize,
                b_row as isize,
                1.0,
                alpha,
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

#[cfg(target_arch = "x86_64")]
mod packed {
    //! The packed kernel for AVX2 and AVX-512.

    use std::arch::x86_64::*;
    use std::cell::RefCell;

    use super::super::par::{self, Shared};
    use super::super::simd::{Level, level};
    use super::Sizes;

    /// Depth of a packed block of `b`: longer sums are cut here, so it is part of the result's definition.
    const DEPTH: usize = 512;
    /// Columns of a packed block: `DEPTH * COLUMNS` numbers stay in a core's second-level cache.
    const COLUMNS: usize = 192;

    /// Operations below which handing work to another thread costs more than it saves.
    const SERIAL: usize = 1_000_000;
    /// Rows up to which `b` is read where it lies: packing it would cost more than it saves.
    const FEW_ROWS: usize = 24;

    /// One vector register's worth of f32, and what the kernels do with it.
    trait Vector: Copy {
        const LANES: usize;
        unsafe fn zero() -> Self;
        unsafe fn splat(value: f32) -> Self;
        unsafe fn load(from: *const f32) -> Self;
        unsafe fn store(self, to: *mut f32);
        unsafe fn mul_add(self, b: Self, c: Self) -> Self;
        unsafe fn mul(self, b: Self) -> Self;
    }

    impl Vector for __m512 {
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            unsafe { _mm512_mul_ps(self, b) }
        }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            unsafe { _mm256_mul_ps(self, b) }
        }
    }

    /// A tile of `c` that one call of a kernel computes.
    #[derive(Clone, Copy)]
    struct Tile {
        a: *const f32,
        a_row: usize,
        a_step: usize,
        panel: *const f32,
        panel_step: usize,
        depth: usize,
        c: *mut f32,
        c_stride: usize,
        /// Columns of the tile that exist; the panel is padded with zeros to its full width.
        width: usize,
        alpha: f32,
        add: bool,
    }

    /// `R` rows by `W` vectors of `c`.
    ///
    /// # Safety
    /// The tile's pointers cover what its sizes say, and the vector's instructions exist on this machine.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // indices keep rows and vectors visible, and the loops unrolled
    unsafe fn tile<V: Vector, const R: usize, const W: usize>(t: Tile) {
        unsafe {
            let mut sums = [[V::zero(); W]; R];
            let mut panel = t.panel;
            let mut a = t.a;
            for _ in 0..t.depth {
                let mut b = [V::zero(); W];
                for w in 0..W {
                    b[w] = V::load(panel.add(w * V::LANES));
                }
                for r in 0..R {
                    let x = V::splat(*a.add(r * t.a_row));
                    for w in 0..W {
                        sums[r][w] = x.mul_add(b[w], sums[r][w]);
                    }
                }
                panel = panel.add(t.panel_step);
                a = a.add(t.a_step);
            }
            let alpha = V::splat(t.alpha);
            if t.width == W * V::LANES {
                for r in 0..R {
                    for w in 0..W {
                        let to = t.c.add(r * t.c_stride + w * V::LANES);
                        let value = if t.add { alpha.mul_add(sums[r][w], V::load(to)) } else { alpha.mul(sums[r][w]) };
                        value.store(to);
                    }
                }
                return;
            }
            // A tile that hangs over the right edge goes through a row buffer.
            let mut row = [0.0f32; 64];
            for r in 0..R {
                for w in 0..W {
                    sums[r][w].store(row.as_mut_ptr().add(w * V::LANES));
                }
                for (j, &sum) in row[..t.width].iter().enumerate() {
                    let to = t.c.add(r * t.c_stride + j);
                    *to = if t.add { t.alpha.mul_add(sum, *to) } else { t.alpha * sum };
                }
            }
        }
    }

    /// Kernels of one instruction set, by number of vectors and number of rows.
    macro_rules! kernels {
        ($name:ident, $features:literal, $vector:ty, $rows:literal; $($count:literal)*) => {
            /// # Safety
            /// As [`tile`].
            #[target_feature(enable = $features)]
            unsafe fn $name(vectors: usize, rows: usize, t: Tile) {
                // SAFETY: the caller's promise.
                unsafe {
                    match (vectors, rows) {
                        $((3, $count) => tile::<$vector, $count, 3>(t),
                          (2, $count) => tile::<$vector, $count, 2>(t),
                          (_, $count) => tile::<$vector, $count, 1>(t),)*
                        _ => unreachable!("no kernel of {rows} rows"),
                    }
                }
            }
        };
    }
    kernels!(tile_avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", __m512, 8; 1 2 3 4 5 6 7 8);
    kernels!(tile_avx2, "avx2,fma", __m256, 6; 1 2 3 4 5 6);

    /// What differs between instruction sets.
    #[derive(Clone, Copy)]
    struct Kernel {
        lanes: usize,
        /// Vectors in a full panel.
        vectors: usize,
        rows: usize,
        run: unsafe fn(usize, usize, Tile),
    }

    fn kernel() -> Kernel {
        match level() {
            Level::Avx512 => Kernel { lanes: 16, vectors: 3, rows: 8, run: tile_avx512 },
            _ => Kernel { lanes: 8, vectors: 2, rows: 6, run: tile_avx2 },
        }
    }

    /// A product, checked: all pointers cover what the sizes say.
    pub struct Product {
        pub a: *const f32,
        pub a_strides: (usize, usize),
        pub b: *const f32,
        pub b_strides: (usize, usize),
        pub sizes: Sizes,
        pub alpha: f32,
        pub accumulate: bool,
        pub c: Shared<f32>,
        pub c_stride: usize,
    }

    // SAFETY: a and b are only read, c is written at disjoint places.
    unsafe impl Sync for Product {}

    thread_local! {
        /// Packing buffers, kept so that a product allocates only once per thread.
        static BUFFERS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    }

    impl Product {
        pub fn run(&self, shared: bool) {
            let kernel = kernel();
            let Sizes { m, n, .. } = self.sizes;
            let panel = kernel.vectors * kernel.lanes;
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
            BUFFERS.with_borrow_mut(|(packed_b, packed_a)| {
                let k = self.sizes.k;
                let parts = k.div_ceil(DEPTH);
                let depth = k.div_ceil(parts);
                let panel = kernel.vectors * kernel.lanes;
                grow(packed_b, depth * n.next_multiple_of(kernel.lanes));
                let ((a_row, a_column), (b_row, b_column)) = (self.a_strides, self.b_strides);
                let direct = b_column == 1 && m <= FEW_ROWS;
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
                        self.pack_b(kernel, p, depth, j, n, direct, packed_b);
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
                                    (self.a.add((i + row) * a_row + p * a_column), a_row, a_column)
                                };
                                let whole = width.next_multiple_of(kernel.lanes);
                                let (panel, panel_step) = if direct && width == whole {
                                    (self.b.add(p * b_row + j + column), b_row)
                                } else {
                                    (packed_b.as_ptr().add(column * depth), whole)
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

        /// Copies `b [p .. p + depth, j .. j + n]` into panels of whole vectors, zero-padded on the right; with `direct` only
        /// the panel that needs padding.
        unsafe fn pack_b(
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
            let panel = kernel.vectors * kernel.lanes;
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
                    let from = self.b.add(p * b_row + (j + column) * b_column);
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
        unsafe fn pack_a(&self, kernel: Kernel, i: usize, m: usize, p: usize, depth: usize, packed: &mut [f32]) {
            let (a_row, a_column) = self.a_strides;
            let mut row = 0;
            while row < m {
                let rows = kernel.rows.min(m - row);
                let to = &mut packed[row * depth..(row + rows) * depth];
                if a_row == 1 {
                    for (q, to) in to.chunks_exact_mut(rows).enumerate() {
                        // SAFETY: inside a.
                        unsafe {
                            let from = self.a.add(i + row + (p + q) * a_column);
                            std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), rows);
                        }
                    }
                    row += kernel.rows;
                    continue;
                }
                for (q, to) in to.chunks_exact_mut(rows).enumerate() {
                    for (r, to) in to.iter_mut().enumerate() {
                        // SAFETY: inside a.
                        *to = unsafe { *self.a.add((i + row + r) * a_row + (p + q) * a_column) };
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
        if kernel.lanes == 16 {
            (done_rows, done_columns) = (width / 16 * 16, depth / 16 * 16);
            for q in (0..done_columns).step_by(16) {
                for j in (0..done_rows).step_by(16) {
                    // SAFETY: a 16 x 16 square inside both; AVX-512 was detected.
                    unsafe {
                        transpose_16(
                            from.add(j * row_stride + q),
                            row_stride,
                            to.as_mut_ptr().add(q * stride + j),
                            stride,
                        )
                    };
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

    /// Transposes a 16 x 16 square.
    ///
    /// # Safety
    /// Both pointers cover 16 rows of 16 elements.
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose_16(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut x = [_mm512_setzero_ps(); 16];
            // Rows are loaded as quarters, so that only shuffles inside quarters remain: register r + 4 g holds quarter g of
            // rows r, r + 4, r + 8, r + 12.
            for g in 0..4 {
                for r in 0..4 {
                    let quarter = |row: usize| _mm_loadu_ps(from.add(row * from_stride + 4 * g));
                    let v = _mm512_castps128_ps512(quarter(r));
                    let v = _mm512_insertf32x4::<1>(v, quarter(r + 4));
                    let v = _mm512_insertf32x4::<2>(v, quarter(r + 8));
                    x[4 * g + r] = _mm512_insertf32x4::<3>(v, quarter(r + 12));
                }
                let (a, b, c, d) = (x[4 * g], x[4 * g + 1], x[4 * g + 2], x[4 * g + 3]);
                let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                let columns = [
                    _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
                    _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
                    _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                    _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
                ];
                for (q, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((4 * g + q) * to_stride), column);
                }
            }
        }
    }

    fn grow(buffer: &mut Vec<f32>, length: usize) {
        if buffer.len() < length {
            buffer.resize(length, 0.0);
        }
    }
}
