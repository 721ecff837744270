//! Percentiles and medians over the rows of a batch, and the measure of conflicts that is made of them.

use crate::kernels::row_stats::RowStats;

/// The share of confident conflicts by rank uses this percentile of the batch for both of its quantities.
const CONFLICT_PERCENTILE: f64 = 15.0;

/// The `percent`-th percentile by nearest rank: the smallest of the values that at least `percent` % of all values do
/// not exceed, so it is one of the values. `x <= percentile` is "in the bottom `percent` %", and Eq. 4's
/// `x > percentile` is its exact complement; of equal values at the edge all are in the bottom. 0 % is minus infinity
/// (nothing is in the bottom), as is any percentile of nothing.
pub(super) fn quantile(mut values: Vec<f32>, percent: f64) -> f32 {
    // percent * n / 100 and not (percent / 100) * n: exact for whole percentages, so the ceiling does not jump a rank.
    let rank = (percent * values.len() as f64 / 100.0).ceil() as usize;
    if rank == 0 || values.is_empty() {
        return f32::NEG_INFINITY;
    }
    let index = rank.min(values.len()) - 1;
    *values.select_nth_unstable_by(index, f32::total_cmp).1
}

/// The middle of at least one value; of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// Share of rows strictly below the batch's own 15th percentile in both label probability and full entropy. Unlike the
/// absolute form it compares rows with each other, so it stays small where nearly all tokens are certain and right.
pub fn conflict_share_quantile(rows: &[RowStats]) -> f64 {
    let entropy = quantile(rows.iter().map(|r| r.entropy_full).collect(), CONFLICT_PERCENTILE);
    let minus_ce = quantile(rows.iter().map(|r| -r.ce).collect(), CONFLICT_PERCENTILE);
    let count = rows.iter().filter(|r| r.entropy_full < entropy && -r.ce < minus_ce).count();
    count as f64 / rows.len().max(1) as f64
}

/// Refuses a share below 1 % where percent are wanted: nearly always a fraction.
pub(super) fn refuse_fraction(percent: f64) -> Option<String> {
    (percent > 0.0 && percent < 1.0).then(|| {
        format!("{percent} is a percentage below 1 %: percentiles are given in percent, write {}", percent * 100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::plain;
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values_and_its_bottom_share_is_at_or_below_it() {
        let values: Vec<f32> = (1..=20).rev().map(|i| i as f32).collect();
        assert_eq!(quantile(values.clone(), 15.0), 3.0);
        assert_eq!(quantile(values.clone(), 15.1), 4.0);
        assert_eq!(quantile(values.clone(), 100.0), 20.0);
        assert_eq!(quantile(values, 0.0), f32::NEG_INFINITY);
        assert_eq!(quantile(vec![], 15.0), f32::NEG_INFINITY);
        assert_eq!(quantile((1..=100).map(|i| i as f32).collect(), 7.0), 7.0);
    }

    #[test]
    fn a_median_is_the_middle_value_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median(vec![9.0, 2.0, 4.0]), 4.0);
        assert_eq!(median(vec![4.0, 2.0]), 3.0);
        assert_eq!(median(vec![1.5]), 1.5);
    }

    #[test]
    fn a_confident_conflict_is_unlikely_and_certain_at_once() {
        assert!(plain(5.0, 0.2).is_conflict());
        assert!(!plain(5.0, 1.2).is_conflict(), "uncertain");
        assert!(!plain(0.1, 0.2).is_conflict(), "likely");
        let mut rows = vec![plain(0.1, 2.0); 18];
        rows.extend([plain(7.0, 0.1), plain(8.0, 0.1)]);
        // Strict, so that the 18 equal rows at the percentile itself do not count.
        assert!((conflict_share_quantile(&rows) - 0.1).abs() <= 1e-12);
        assert_eq!(conflict_share_quantile(&[]), 0.0);
    }
}
