//! Rounding that makes up for itself: what one element of a row is off by, the elements behind it are moved against before they
//! are rounded, so that what the matrix makes of its inputs changes least.
//!
//! GPTQ (Frantar et al. 2022, arXiv 2210.17323), without an inverse. With `H = Σ x xᵀ` over inputs `x`, a row `w` that is off by
//! `e = w - q` changes its outputs by `e H eᵀ` in squares. With `H = V Vᵀ`, `V` upper triangular, that is the sum over `k` of
//! `(Σ_{j ≤ k} e_j V_jk)²`, whose term `k` is least where `q_k` is the rounded `w_k + Σ_{j < k} e_j V_jk / V_kk`: the errors
//! before `k` are known, and those behind it do not occur in it.

use super::format::{Levels, QuantiseBlock};
use super::{RawTensor, WeightFormat, tensor_error};
use crate::error::Result;
use crate::kernels::cpu::par;
use crate::kernels::cpu::simd::{dot, fma, vectorised};

/// Share of the mean of `H`'s diagonal that is added to it, so that inputs which hardly occur do not decide.
const DAMPING: f32 = 0.01;
/// Rows that are rounded together and so read the factor once.
const ROWS: usize = 16;
/// What a block's scale is tried times: the largest element may be cut off where that is better for the others, and where levels
/// reach further down than up, either end may be the long one.
const SCALES: [f32; 12] = [1.0, 1.06, 0.95, 0.9, 0.85, 0.8, 0.75, -1.14, -1.05, -1.0, -0.93, -0.86];

/// How a matrix's inputs go together.
pub struct Correlations {
    /// `V_jk / V_kk` for `j < k`, `[inputs, inputs]`.
    factor: Vec<f32>,
    /// `V_kk²`: what an error that nothing makes up for weighs.
    weights: Vec<f32>,
    inputs: usize,
}

impl Correlations {
    /// Of `sums = Σ x xᵀ`, `[inputs, inputs]`.
    pub fn of(mut sums: Vec<f32>, inputs: usize) -> Self {
        let mean = (0..inputs).map(|k| sums[k * inputs + k]).sum::<f32>() / inputs as f32;
        // Where nothing was seen all inputs are alike, and rounding is plain.
        let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
        (0..inputs).for_each(|k| sums[k * inputs + k] += damping);
        let mut roots = vec![0.0_f32; inputs];
        let rows = par::rows_per_task(inputs);
        for k in (0..inputs).rev() {
            let own = sums[k * inputs..][..inputs].to_vec();
            // What f32 leaves of a pivot that is nearly nothing is noise, and no pivot is below what was added.
            let pivot = (own[k] - product(&own[k + 1..], &own[k + 1..])).max(damping / 2.0);
            let root = pivot.sqrt();
            roots[k] = root;
            par::pieces(&mut sums[..k * inputs], rows * inputs, |_, piece| {
                for row in piece.chunks_exact_mut(inputs) {
                    row[k] = (row[k] - product(&row[k + 1..], &own[k + 1..])) / root;
                }
            });
        }
        par::pieces(&mut sums, rows * inputs, |_, piece| {
            for row in piece.chunks_exact_mut(inputs) {
                row.iter_mut().zip(&roots).for_each(|(x, root)| *x /= root);
            }
        });
        let weights = roots.iter().map(|root| root * root).collect();
        Self { factor: sums, weights, inputs }
    }

    /// A matrix `[out, inputs]` in this format: its blocks' scales so that what their elements are off by weighs least, its
    /// elements so that errors make up for each other.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) where a value or a block's scale is no finite number in that format, or its
    /// elements have no levels.
    pub fn stored(&self, matrix: &RawTensor, format: WeightFormat) -> Result<RawTensor> {
        let refuse = |problem: String| Err(tensor_error("values to store", &matrix.name, problem));
        let (Some(levels), Some(quantise)) = (format.levels(), format.quantise_block()) else {
            return refuse(format!("elements of {} are not rounded one by one", format.name()));
        };
        let (n, block, block_bytes) = (self.inputs, format.block_elements(), format.block_bytes());
        if matrix.shape.last() != Some(&n) || format.bytes_for_shape(&matrix.shape).is_none() {
            return refuse(format!("shape {:?} with {n} inputs in blocks of {block}", matrix.shape));
        }
        let values = matrix.to_f32();
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return refuse(format!("element {at} is {}", values[at]));
        }
        let pieces: Vec<&[f32]> = values.chunks(ROWS * n).collect();
        let stored = par::map(pieces.len(), |index| {
            let given = pieces[index];
            let (mut wanted, rows) = (given.to_vec(), given.len() / n);
            let mut bytes = vec![vec![0; n / block * block_bytes]; rows];
            let mut fits = true;
            for start in (0..n).step_by(block) {
                let place = start / block * block_bytes..(start / block + 1) * block_bytes;
                for (wanted, bytes) in wanted.chunks_exact(n).zip(&mut bytes) {
                    let best = scaled(&wanted[start..start + block], &self.weights[start..], quantise, levels);
                    match best {
                        Some(best) => bytes[place.clone()].copy_from_slice(&best),
                        None => fits = false,
                    }
                }
                for k in start..start + block {
                    let factor = &self.factor[k * n + k + 1..(k + 1) * n];
                    for (row, bytes) in bytes.iter_mut().enumerate() {
                        let (bytes, wanted) = (&mut bytes[place.clone()], &mut wanted[row * n..][..n]);
                        let (level, value) = nearest(levels, bytes, k - start, wanted[k]);
                        (levels.put)(bytes, k - start, level);
                        let error = given[row * n + k] - value;
                        add_times(&mut wanted[k + 1..], factor, error);
                    }
                }
            }
            (bytes.concat(), fits)
        });
        if !stored.iter().all(|(_, fits)| *fits) {
            return refuse(format!("values are too large for {}", format.name()));
        }
        let bytes = stored.into_iter().flat_map(|(bytes, _)| bytes).collect();
        Ok(RawTensor { name: matrix.name.clone(), shape: matrix.shape.clone(), format, bytes })
    }
}

/// The nearest level of an element of a block, and its value.
fn nearest(levels: &Levels, block: &[u8], element: usize, wanted: f32) -> (u8, f32) {
    let (step, least) = (levels.of)(block, element);
    let level = if step == 0.0 { 0.0 } else { (wanted - least) / step };
    let level = level.round().clamp(0.0, f32::from(levels.most));
    (level as u8, step * level + least)
}

/// A block with the scale of [`SCALES`] whose levels are nearest, each element by its weight; none where no scale is finite.
fn scaled(block: &[f32], weights: &[f32], quantise: QuantiseBlock, levels: &Levels) -> Option<Vec<u8>> {
    let mut best: Option<(f32, Vec<u8>)> = None;
    for scale in SCALES {
        let tried: Vec<f32> = block.iter().map(|x| x * scale).collect();
        let mut bytes = Vec::new();
        if !quantise(&tried, &mut bytes) {
            continue;
        }
        let off = |(k, x): (usize, &f32)| weights[k] * (nearest(levels, &bytes, k, *x).1 - x).powi(2);
        let error: f32 = block.iter().enumerate().map(off).sum();
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, bytes));
        }
    }
    best.map(|(_, bytes)| bytes)
}

vectorised! {
    fn product<FMA>(x: &[f32], y: &[f32]) -> f32 {
        dot::<FMA>(x, y)
    }

    /// `x += factor y`.
    fn add_times<FMA>(x: &mut [f32], y: &[f32], factor: f32) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x = fma::<FMA>(factor, *y, *x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const FORMATS: [WeightFormat; 6] = [
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
        WeightFormat::Q5_0,
        WeightFormat::Q5_1,
        WeightFormat::Q8_0,
        WeightFormat::Q4K,
    ];

    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        (0..count).map(|_| rng.normal() as f32).collect()
    }

    /// Inputs `[count, n]` that go together: neighbours have much in common, and some are far larger.
    fn inputs(count: usize, n: usize) -> Vec<f32> {
        let mut x = normal(count * n, 1);
        for row in x.chunks_exact_mut(n) {
            for k in 1..n {
                row[k] = 0.9 * row[k - 1] + 0.4 * row[k];
            }
            (0..n).step_by(17).for_each(|k| row[k] *= 8.0);
        }
        x
    }

    /// `Σ x xᵀ`, in f64 on the way.
    fn sums(x: &[f32], n: usize) -> Vec<f32> {
        let mut sums = vec![0.0_f64; n * n];
        for row in x.chunks_exact(n) {
            for i in 0..n {
                (0..n).for_each(|j| sums[i * n + j] += f64::from(row[i]) * f64::from(row[j]));
            }
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    /// Squares by which outputs change, over all inputs and rows.
    fn change(x: &[f32], n: usize, before: &[f32], after: &[f32]) -> f64 {
        let mut sum = 0.0;
        for x in x.chunks_exact(n) {
            for (before, after) in before.chunks_exact(n).zip(after.chunks_exact(n)) {
                let off: f64 = (0..n).map(|k| f64::from(x[k]) * (f64::from(before[k]) - f64::from(after[k]))).sum();
                sum += off * off;
            }
        }
        sum
    }

    #[test]
    fn outputs_change_by_far_less_than_with_plain_rounding_in_every_format_that_has_levels() {
        let (n, rows) = (256, 19);
        let (x, weights) = (inputs(600, n), normal(rows * n, 2));
        let correlations = Correlations::of(sums(&x, n), n);
        let matrix = RawTensor::from_f32("w", vec![rows, n], &weights);
        for format in FORMATS {
            let plain = change(&x, n, &weights, &matrix.stored_as(format).unwrap().to_f32());
            let found = correlations.stored(&matrix, format).unwrap();
            assert_eq!(found.bytes.len(), format.bytes_for_shape(&[rows, n]).unwrap());
            let compensated = change(&x, n, &weights, &found.to_f32());
            assert!(compensated < 0.35 * plain, "{format:?}: {compensated} of {plain}");
        }
    }

    #[test]
    fn every_level_reads_back_as_the_value_it_stands_for() {
        for format in FORMATS {
            let (levels, n) = (format.levels().unwrap(), format.block_elements());
            let mut bytes = Vec::new();
            assert!(format.quantise_block().unwrap()(&normal(n, 3), &mut bytes));
            let chosen: Vec<u8> = (0..n).map(|k| (k * 7 % (usize::from(levels.most) + 1)) as u8).collect();
            chosen.iter().enumerate().for_each(|(k, &level)| (levels.put)(&mut bytes, k, level));
            for (k, value) in format.to_f32(&bytes).into_iter().enumerate() {
                let (step, least) = (levels.of)(&bytes, k);
                let expected = step * f32::from(chosen[k]) + least;
                assert!((value - expected).abs() <= 1e-5 * expected.abs().max(step), "{format:?}: {value}, {expected}");
            }
        }
    }

    #[test]
    fn inputs_that_have_nothing_in_common_leave_plain_rounding() {
        let n = 64;
        let weights = normal(3 * n, 4);
        let matrix = RawTensor::from_f32("w", vec![3, n], &weights);
        let alone: Vec<f32> = (0..n * n).map(|at| if at % (n + 1) == 0 { 5.0 } else { 0.0 }).collect();
        for sums in [alone, vec![0.0; n * n]] {
            let found = Correlations::of(sums, n).stored(&matrix, WeightFormat::Q8_0).unwrap().to_f32();
            let plain = matrix.stored_as(WeightFormat::Q8_0).unwrap().to_f32();
            // ggml rounds with a scale that is not yet in half precision.
            let most = |i: usize| 2e-2 * plain[i / 32 * 32..][..32].iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            (0..plain.len()).for_each(|i| assert!((found[i] - plain[i]).abs() <= most(i), "{i}"));
        }
    }

    #[test]
    fn the_factor_multiplies_to_the_sums_that_it_is_of() {
        let n = 40;
        let (x, damped) = (inputs(100, n), |sums: &[f32]| {
            let mean = (0..n).map(|k| sums[k * n + k]).sum::<f32>() / n as f32;
            (0..n * n).map(|at| sums[at] + if at % (n + 1) == 0 { DAMPING * mean } else { 0.0 }).collect::<Vec<_>>()
        });
        let sums = sums(&x, n);
        let (factor, wanted) = (Correlations::of(sums.clone(), n).factor, damped(&sums));
        // The diagonal of V follows from H's last columns: V = factor times it.
        let mut diagonal = vec![0.0_f64; n];
        for k in (0..n).rev() {
            let behind: f64 = (k + 1..n).map(|m| (f64::from(factor[k * n + m]) * diagonal[m]).powi(2)).sum();
            diagonal[k] = (f64::from(wanted[k * n + k]) - behind).sqrt();
        }
        let v = |i: usize, k: usize| match i.cmp(&k) {
            std::cmp::Ordering::Less => f64::from(factor[i * n + k]) * diagonal[k],
            std::cmp::Ordering::Equal => diagonal[k],
            std::cmp::Ordering::Greater => 0.0,
        };
        let largest = wanted.iter().fold(0.0_f64, |most, &x| most.max(f64::from(x).abs()));
        for i in 0..n {
            for j in 0..n {
                let product: f64 = (0..n).map(|k| v(i, k) * v(j, k)).sum();
                assert!((product - f64::from(wanted[i * n + j])).abs() <= 1e-4 * largest, "{i}, {j}: {product}");
            }
        }
    }

    #[test]
    fn what_cannot_be_rounded_so_is_refused_by_name() {
        let correlations = Correlations::of(vec![0.0; 64 * 64], 64);
        let refused = |values: &[f32], shape: &[usize], format| {
            correlations.stored(&RawTensor::from_f32("w", shape.to_vec(), values), format).unwrap_err().to_string()
        };
        assert!(refused(&[0.0; 64], &[1, 64], WeightFormat::F16).contains("F16 are not rounded one by one"));
        assert!(refused(&[0.0; 32], &[1, 32], WeightFormat::Q4_0).contains("with 64 inputs"));
        let mut values = [0.0; 64];
        values[40] = f32::NAN;
        assert!(refused(&values, &[1, 64], WeightFormat::Q4_0).contains("element 40 is NaN"));
        values[40] = 1e9;
        assert!(refused(&values, &[1, 64], WeightFormat::Q4_0).contains("too large for Q4_0"));
    }
}
