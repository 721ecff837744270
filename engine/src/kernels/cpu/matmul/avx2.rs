//! Tiles of 6 rows by 16 columns in AVX2 registers.

use std::arch::x86_64::*;

use super::tile::{Kernel, Tile, Vector, kernels, tile};

/// What these tiles are.
pub(super) const KERNEL: Kernel = Kernel { lanes: 8, vectors: 2, rows: 6, run: tiles, transpose: None };

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

kernels!(tiles, "avx2,fma", __m256, 6; 1 2 3 4 5 6);
