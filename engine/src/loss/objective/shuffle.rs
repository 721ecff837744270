//! A control: every token of a batch gets the gate of another one, so that the gates' distribution stays and what they select
//! does not.

use crate::rng::Rng;

/// Where a row stands in its optimiser batch: which of its documents it belongs to, and where in that.
pub type Place = (u32, u32);

/// The weights of a batch's rows, permuted among them. What the permutation is depends on `seed` and on the rows' places, which
/// are all different; so not on the order of the rows, nor on how documents are split into micro-batches.
pub fn shuffled(weights: &[f32], places: &[Place], seed: u64) -> Vec<f32> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&row| places[row]);
    let mut from = order.clone();
    let mut rng = Rng::new(seed);
    // Fisher and Yates.
    for left in (1..from.len()).rev() {
        from.swap(left, rng.below(left + 1));
    }
    let mut mixed = vec![0.0; weights.len()];
    for (row, from) in order.into_iter().zip(from) {
        mixed[row] = weights[from];
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> (Vec<f32>, Vec<Place>) {
        let weights = (0..60).map(|row| row as f32 / 60.0).collect();
        (weights, (0..60).map(|row| (row / 7, row % 7)).collect())
    }

    #[test]
    fn shuffled_gates_are_the_same_gates_elsewhere_and_the_seed_says_where() {
        let (weights, places) = batch();
        let mixed = shuffled(&weights, &places, 3);
        let sorted = |mut weights: Vec<f32>| {
            weights.sort_by(f32::total_cmp);
            weights
        };
        assert_eq!(sorted(mixed.clone()), sorted(weights.clone()));
        let stayed = mixed.iter().zip(&weights).filter(|(a, b)| a == b).count();
        assert!(stayed < 10, "{stayed} of 60 stayed");
        assert_eq!(mixed, shuffled(&weights, &places, 3));
        assert_ne!(mixed, shuffled(&weights, &places, 4));
        assert_eq!(shuffled(&[0.5], &[(0, 0)], 1), [0.5]);
        assert!(shuffled(&[], &[], 1).is_empty());
    }

    #[test]
    fn each_row_gets_the_same_gate_in_whatever_order_the_rows_come() {
        let (weights, places) = batch();
        let mixed = shuffled(&weights, &places, 9);
        let reversed: Vec<usize> = (0..60).rev().collect();
        let of = |values: &[f32]| reversed.iter().map(|&row| values[row]).collect::<Vec<_>>();
        let places: Vec<Place> = reversed.iter().map(|&row| places[row]).collect();
        assert_eq!(shuffled(&of(&weights), &places, 9), of(&mixed));
    }

    #[test]
    fn every_row_is_as_likely_to_give_its_gate_to_any_other() {
        let (weights, places): (Vec<f32>, Vec<Place>) =
            ((0..4).map(|w| w as f32).collect(), (0..4).map(|p| (0, p)).collect());
        let mut counts = [[0; 4]; 4];
        for seed in 0..4000 {
            for (row, weight) in shuffled(&weights, &places, seed).into_iter().enumerate() {
                counts[row][weight as usize] += 1;
            }
        }
        assert!(counts.as_flattened().iter().all(|count| (880..1120).contains(count)), "{counts:?}");
    }
}
