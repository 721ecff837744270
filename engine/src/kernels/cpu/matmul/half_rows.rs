//! What a product in half precision makes of its operands, in single precision again.

use half::f16;
use temper_shaders::HalfRowsParams;

use super::super::par;

/// Rows of an operand, `[batches rows, inner]`, each number rounded to f16 under the power of two that `half_rows.wgsl` gives its
/// row: `value(offset + g batch + i row + p step)` for row `i` of matrix `g` and term `p`. With rests each number is its half and
/// the rest; a product of such rows has rests by rests too, 2^-22 of its terms, which tensor cores leave out.
pub fn half_rows(p: HalfRowsParams, values: &[f32]) -> Vec<f32> {
    let [rows, batches, inner, offset, batch, row, step] =
        [p.rows, p.batches, p.inner, p.offset, p.batch, p.row, p.step].map(|size| size as usize);
    let mut out = vec![0.0; batches * rows * inner];
    if out.is_empty() {
        return out;
    }
    let together = par::rows_per_task(inner);
    par::pieces(&mut out, together * inner, |task, piece| {
        for (index, out) in piece.chunks_exact_mut(inner).enumerate() {
            let index = task * together + index;
            let at = offset + index / rows * batch + index % rows * row;
            for (term, out) in out.iter_mut().enumerate() {
                *out = values[at + term * step];
            }
            round(out, p.rests != 0);
        }
    });
    out
}

fn round(row: &mut [f32], rests: bool) {
    let most = row.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
    let exponent = (most >> 23) as i32;
    let shift = if most != 0 && exponent != 255 { (141 - exponent).min(126) } else { 0 };
    let power = |exponent: i32| f32::from_bits(((127 + exponent) as u32) << 23);
    let half = |x: f32| f16::from_f32(x).to_f32();
    for x in row {
        let scaled = *x * power(shift);
        let nearest = half(scaled);
        let kept = if rests { nearest + half(scaled - nearest) } else { nearest };
        *x = if x.is_finite() { kept * power(-shift) } else { f32::NAN };
    }
}

#[cfg(test)]
mod tests {
    use temper_shaders::rests;

    use super::*;

    fn rounded(values: &[f32], rests: u32) -> Vec<f32> {
        let inner = values.len() as u32;
        let (rows, batches, padded, offset, batch, row, step) = (1, 1, inner, 0, 0, inner, 1);
        half_rows(HalfRowsParams { rows, batches, inner, padded, offset, batch, row, step, rests }, values)
    }

    #[test]
    fn numbers_keep_eleven_bits_whatever_their_size_and_what_is_tiny_beside_its_row_keeps_fewer() {
        for scale in [1e-30, 1.0, 1e6, 1e30] {
            let values: Vec<f32> = (1..200).map(|i| scale * (i as f32).sqrt()).collect();
            for (got, want) in rounded(&values, 0).iter().zip(&values) {
                assert!((got - want).abs() <= want / 2048.0, "{got} {want}");
            }
        }
        let beside = rounded(&[1.0, 1e-7, 1e-12], 0);
        assert!(beside[0] == 1.0 && (beside[1] - 1e-7).abs() < 1e-9 && beside[2] == 0.0, "{beside:?}");
        assert_eq!(rounded(&[0.0, -0.0], 0), [0.0, 0.0]);
    }

    #[test]
    fn with_rests_numbers_keep_twenty_two_bits_and_what_is_tiny_beside_its_row_the_last_place_of_its_largest() {
        for rests in [rests::OF_LEFT, rests::OF_RIGHT] {
            for scale in [1e-30, 1.0, 1e6, 1e30] {
                let values: Vec<f32> = (1..200).map(|i| scale * (i as f32).sqrt()).collect();
                let got = rounded(&values, rests);
                for (got, want) in got.iter().zip(&values) {
                    assert!((got - want).abs() <= want * 2f32.powi(-22), "{got} {want}");
                }
                assert!(got != rounded(&values, 0));
            }
            let beside = rounded(&[1.0, 1e-7, 1e-12], rests);
            let far = (beside[1] - 1e-7).abs();
            assert!(beside[0] == 1.0 && far <= 2f32.powi(-39) && beside[2] == 0.0, "{beside:?}");
        }
    }

    #[test]
    fn infinity_and_nan_become_nan_and_leave_their_neighbours() {
        for rests in [0, rests::OF_LEFT] {
            let row = rounded(&[2.0, f32::INFINITY, f32::NAN, -3.0], rests);
            assert!(row[0] == 2.0 && row[1].is_nan() && row[2].is_nan() && row[3] == -3.0, "{row:?}");
        }
    }

    #[test]
    fn rows_and_columns_are_read_where_they_lie() {
        // Columns 1 and 2 of two matrices of 2 x 3.
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let (rows, batches, inner, padded, offset, batch, row, step, rests) = (2, 2, 2, 8, 1, 6, 1, 3, 0);
        let params = HalfRowsParams { rows, batches, inner, padded, offset, batch, row, step, rests };
        assert_eq!(half_rows(params, &values), [1.0, 4.0, 2.0, 5.0, 7.0, 10.0, 8.0, 11.0]);
    }
}
