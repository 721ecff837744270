//! Matrix product.

/// `a [m, k] b [k, n]`, each stored as is or transposed.
pub fn matmul(a: &[f32], a_transposed: bool, b: &[f32], b_transposed: bool, m: usize, n: usize, k: usize) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            for p in 0..k {
                let x = if a_transposed { a[p * m + i] } else { a[i * k + p] };
                let y = if b_transposed { b[j * k + p] } else { b[p * n + j] };
                c[i * n + j] += f64::from(x) * f64::from(y);
            }
        }
    }
    c
}
