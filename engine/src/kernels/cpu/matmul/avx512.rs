//! Tiles of 8 rows by 48 columns in AVX-512 registers.

use std::arch::x86_64::*;

use super::tile::{Kernel, Tile, Vector, kernels, tile};

/// What these tiles are.
pub(super) const KERNEL: Kernel = Kernel { lanes: 16, vectors: 3, rows: 8, run: tiles, transpose: Some(transpose) };

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

kernels!(tiles, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", __m512, 8; 1 2 3 4 5 6 7 8);

/// Transposes a 16 x 16 square.
///
/// # Safety
/// Both pointers cover 16 rows of 16 elements.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
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
