//! Comparison of what a kernel wrote with what its oracle says.
//!
//! NaN is never close to anything, a wrong length is a failure, and the message shows the first five differences and
//! the worst, so that a failing test says whether one element, one row or everything is off.

use std::fmt::Write;

/// How many differences a message lists.
const LISTED: usize = 5;

/// Passes where `|got - want| <= absolute + relative * |want|` for every element.
///
/// An infinity is close only to the same infinity; NaN on either side is a failure.
///
/// # Errors
/// A message with `name`, the number of differences, the first five and the worst.
pub fn close(name: &str, got: &[f32], want: &[f64], absolute: f64, relative: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{name}: {} elements, expected {}", got.len(), want.len()));
    }
    // Excess over the tolerance orders the differences; NaN counts as infinitely far.
    let mut worst = (0, 0.0f64);
    let mut count = 0;
    let mut listed = String::new();
    for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(got);
        let difference = if got == want { 0.0 } else { (got - want).abs() };
        let allowed = if want.is_finite() { absolute + relative * want.abs() } else { 0.0 };
        if difference <= allowed {
            continue;
        }
        count += 1;
        let excess = if difference.is_nan() { f64::INFINITY } else { difference - allowed };
        if excess > worst.1 || count == 1 {
            worst = (index, excess);
        }
        if count <= LISTED {
            let _ = write!(listed, "\n  [{index}] got {got:e}, expected {want:e}, allowed {allowed:e}");
        }
    }
    if count == 0 {
        return Ok(());
    }
    let (at, _) = worst;
    Err(format!(
        "{name}: {count} of {} elements differ; the first:{listed}\n  worst [{at}] got {:e}, expected {:e}",
        got.len(),
        got[at],
        want[at]
    ))
}

/// Passes where both arrays hold the same bits.
///
/// # Errors
/// A message with `name`, the number of differences and the first five.
pub fn same_bits(name: &str, got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{name}: {} elements, expected {}", got.len(), want.len()));
    }
    let different: Vec<usize> = (0..got.len()).filter(|&i| got[i].to_bits() != want[i].to_bits()).collect();
    if different.is_empty() {
        return Ok(());
    }
    let mut message = format!("{name}: {} of {} elements differ in their bits", different.len(), got.len());
    for &i in different.iter().take(LISTED) {
        let _ = write!(message, "\n  [{i}] got {:e}, expected {:e}", got[i], want[i]);
    }
    Err(message)
}

/// Cosine of the angle between two gradients; NaN where one is nothing or not finite.
pub fn cosine(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let dot = |pairs: &mut dyn Iterator<Item = (f64, f64)>| pairs.map(|(a, b)| a * b).sum::<f64>();
    let got = || got.iter().map(|v| f64::from(*v));
    let product = dot(&mut got().zip(want.iter().copied()));
    product / (dot(&mut got().zip(got())) * dot(&mut want.iter().map(|v| (*v, *v)))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_and_nearly_equal_arrays_pass() {
        assert!(close("x", &[1.0, -2.0, 0.0], &[1.0, -2.0, 0.0], 0.0, 0.0).is_ok());
        assert!(close("x", &[1.0 + 1e-6, 1e-8], &[1.0, 0.0], 1e-7, 1e-5).is_ok());
        assert!(close("x", &[], &[], 0.0, 0.0).is_ok());
    }

    #[test]
    fn a_single_element_outside_the_tolerance_is_refused_and_named() {
        let mut got = vec![1.0; 100];
        got[37] = 1.001;
        let message = close("norm", &got, &[1.0; 100], 1e-6, 1e-6).unwrap_err();
        assert!(message.contains("norm: 1 of 100") && message.contains("[37]"), "{message}");
    }

    #[test]
    fn nan_is_refused_on_either_side_and_on_both() {
        assert!(close("x", &[f32::NAN], &[0.0], 1e30, 1e30).is_err());
        assert!(close("x", &[0.0], &[f64::NAN], 1e30, 1e30).is_err());
        assert!(close("x", &[f32::NAN], &[f64::NAN], 1e30, 1e30).is_err());
    }

    #[test]
    fn an_infinity_is_close_only_to_itself() {
        assert!(close("x", &[f32::INFINITY], &[f64::INFINITY], 0.0, 0.0).is_ok());
        assert!(close("x", &[f32::INFINITY], &[1.0], 1e9, 1e9).is_err());
        assert!(close("x", &[1.0], &[f64::INFINITY], 1e9, 1e9).is_err());
        assert!(close("x", &[f32::NEG_INFINITY], &[f64::INFINITY], 1e9, 1e9).is_err());
    }

    #[test]
    fn an_answer_shifted_by_one_element_or_of_another_length_is_refused() {
        let want: Vec<f64> = (0..50).map(f64::from).collect();
        let shifted: Vec<f32> = (1..51).map(|i| i as f32).collect();
        let message = close("x", &shifted, &want, 1e-3, 1e-3).unwrap_err();
        assert!(message.contains("50 of 50") && message.matches("\n  [").count() == 5, "{message}");
        assert!(close("x", &shifted[1..], &want, 1e9, 1e9).is_err());
        assert!(close("x", &[], &want, 1e9, 1e9).is_err());
    }

    #[test]
    fn the_worst_difference_is_shown_even_where_it_is_not_among_the_first() {
        let mut got = vec![1.1; 20];
        got[15] = 9.0;
        let message = close("x", &got, &[1.0; 20], 0.0, 0.0).unwrap_err();
        assert!(message.contains("worst [15]"), "{message}");
    }

    #[test]
    fn same_bits_tells_zero_from_minus_zero() {
        assert!(same_bits("x", &[0.0, f32::NAN], &[0.0, f32::NAN]).is_ok());
        assert!(same_bits("x", &[0.0], &[-0.0]).is_err());
        assert!(same_bits("x", &[0.0], &[0.0, 0.0]).is_err());
    }

    #[test]
    fn the_angle_between_gradients_is_told_and_nothing_has_none() {
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert!(cosine(&[0.0, 0.0], &[0.0, 1.0]).is_nan() && cosine(&[f32::NAN, 0.0], &[0.0, 1.0]).is_nan());
    }
}
