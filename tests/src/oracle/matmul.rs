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

/// An operand as f16 with a power of two a row holds it, widened: rows of `inner` terms, `largest` of each scaled into
/// [2^14, 2^15), rounded to 11 bits (ties to even; below 2^-14 to multiples of 2^-24), scaled back.
///
/// # Panics
/// On what is not finite: it has no such value.
pub fn halved(rows: &[f64], inner: usize) -> Vec<f64> {
    split(rows, inner).0
}

/// The same, and what that leaves of each number, in f16 under the same power of two.
///
/// # Panics
/// As [`halved`].
pub fn split(rows: &[f64], inner: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut halves, mut rests) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows.chunks(inner) {
        let largest = row.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(largest.is_finite());
        // The factor is an f32 of its own, so that a row of denormals is not scaled all the way.
        let shift = if largest == 0.0 { 0 } else { (14 - exponent(largest)).min(126) };
        let factor = 2f64.powi(shift);
        halves.extend(row.iter().map(|value| rounded(value * factor) / factor));
        rests.extend(row.iter().map(|value| rounded(value * factor - rounded(value * factor)) / factor));
    }
    (halves, rests)
}

/// e of 2^e <= x < 2^(e + 1).
fn exponent(x: f64) -> i32 {
    let mut e = x.log2().floor() as i32;
    // The logarithm may be rounded over the edge.
    while 2f64.powi(e) > x {
        e -= 1;
    }
    while 2f64.powi(e + 1) <= x {
        e += 1;
    }
    e
}

fn rounded(x: f64) -> f64 {
    if x == 0.0 {
        return x;
    }
    let step = 2f64.powi(exponent(x.abs()).max(-14) - 10);
    (x / step).round_ties_even() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_keep_eleven_bits_of_what_is_near_the_largest_and_less_of_what_is_far_below() {
        assert_eq!(halved(&[1.0, -0.333_333_333, 0.0], 3), [1.0, -0.333_251_953_125, 0.0]);
        // 2049 / 2048 lies between two and goes to the even one; rows do not know of each other.
        assert_eq!(halved(&[2049.0 / 2048.0, 1e6], 1), [1.0, 999_936.0]);
        let far = halved(&[1.0, 1.0 + 2f64.powi(-9), 2f64.powi(-28) * 1.001, 2f64.powi(-40)], 4);
        assert_eq!(far[1], 1.0 + 2f64.powi(-9));
        assert_eq!(far[2], 2f64.powi(-28) * (1.0 + 1.0 / 1024.0));
        assert_eq!(far[3], 0.0);
        assert_eq!(halved(&[0.0, 0.0], 2), [0.0, 0.0]);
    }

    #[test]
    fn a_half_and_its_rest_are_the_number_to_twenty_two_bits() {
        let (halves, rests) = split(&[1.0, -1.0 / 3.0, 0.0], 3);
        assert_eq!((halves[1], rests[0], rests[2]), (-0.333_251_953_125, 0.0, 0.0));
        assert!((halves[1] + rests[1] + 1.0 / 3.0).abs() < 2f64.powi(-24));
    }
}
