//! How sure a share is that was counted.

/// The 97.5th percentile of the standard normal: intervals hold 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval (1927) of a share of which `hits` of `count` were seen. Of nothing it is everything, 0 to 1.
pub fn wilson(hits: u64, count: u64) -> [f64; 2] {
    if count == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (count as f64, hits as f64 / count as f64);
    let (scale, middle) = (1.0 + Z * Z / n, p + Z * Z / (2.0 * n));
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    // Both ends are exact in theory, and not in floating point.
    let low = if hits == 0 { 0.0 } else { ((middle - half) / scale).max(0.0) };
    let high = if hits == count { 1.0 } else { ((middle + half) / scale).min(1.0) };
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_that_of_the_published_examples_and_never_leaves_the_unit() {
        // Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (hits, count, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let [a, b] = wilson(hits, count);
            assert!((a - low).abs() <= 5e-5 && (b - high).abs() <= 5e-5, "{hits} of {count}: {a} to {b}");
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
        for count in 1..2000 {
            let ([low, some], [most, high]) = (wilson(0, count), wilson(count, count));
            assert!(low == 0.0 && some > 0.0 && most < 1.0 && high == 1.0, "{count}");
        }
    }
}
