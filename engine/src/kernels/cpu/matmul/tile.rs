//! The innermost loop: a tile of `c` in registers, one instruction set a file.

/// One vector register's worth of f32, and what the kernels do with it.
pub(super) trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
}

/// A tile of `c` that one call of a kernel computes.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub a: *const f32,
    pub a_row: usize,
    pub a_step: usize,
    pub panel: *const f32,
    pub panel_step: usize,
    pub depth: usize,
    pub c: *mut f32,
    pub c_stride: usize,
    /// Columns of the tile that exist; the panel is padded with zeros to its full width.
    pub width: usize,
    pub alpha: f32,
    pub add: bool,
}

/// `R` rows by `W` vectors of `c`.
///
/// # Safety
/// The tile's pointers cover what its sizes say, and the vector's instructions exist on this machine.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // indices keep rows and vectors visible, and the loops unrolled
pub(super) unsafe fn tile<V: Vector, const R: usize, const W: usize>(t: Tile) {
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
        pub(in super::super) unsafe fn $name(vectors: usize, rows: usize, t: Tile) {
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
pub(super) use kernels;

/// What differs between instruction sets.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Numbers in a vector.
    pub lanes: usize,
    /// Vectors in a full panel.
    pub vectors: usize,
    /// Rows of a full tile.
    pub rows: usize,
    /// Computes a tile of so many vectors by so many rows.
    pub run: unsafe fn(usize, usize, Tile),
    /// Transposes squares of `lanes` numbers, where there is a fast way: source and its stride, target and its stride.
    pub transpose: Option<unsafe fn(*const f32, usize, *mut f32, usize)>,
}

impl Kernel {
    /// Columns of a full panel.
    pub fn panel(self) -> usize {
        self.vectors * self.lanes
    }
}
