//! Which kernel for products is fastest on a device, measured, after each has shown that it computes right.

use super::cpu::matmul::Sizes;
use super::matmul::{AsOperand, Operand, Product};
use super::multiplier::{Choice, Class, Compute, Multiplier, Products};
use super::{sample, tensor};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::host::Clock;

/// Most seconds that a calibration takes.
pub const MOST_SECONDS: f64 = 2.0;
/// Seconds for which a kernel is timed with one shape, and how often at least.
const SECONDS_EACH: f64 = 0.05;
const LEAST_REPETITIONS: usize = 2;
/// Half precision is taken where it makes wide products this much faster; less is not worth its rounding.
const WORTH_HALVING: f64 = 1.2;

/// One kernel with the sizes of one class.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// The class.
    pub class: Class,
    /// The kernel.
    pub multiplier: Multiplier,
    /// Rows, columns and terms.
    pub sizes: [usize; 3],
    /// Seconds a product.
    pub seconds: f64,
}

impl Timed {
    /// Billions of floating point operations a second.
    pub fn gflops(&self) -> f64 {
        2.0 * self.sizes.iter().map(|&size| size as f64).product::<f64>() / self.seconds / 1e9
    }
}

/// What a calibration found.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Every measurement, in the order in which they were made.
    pub timed: Vec<Timed>,
    /// Kernels that compute wrong on this device, named with what is wrong.
    pub wrong: Vec<(Multiplier, String)>,
    /// What it settles, with half precision where that is faster.
    pub choice: Choice,
}

/// Times the kernels on a device, each after its self-test; what there is no time for keeps its place.
///
/// # Errors
/// Device errors.
pub fn calibrate(device: &Device, compute: Compute, clock: &dyn Clock) -> Result<Calibration> {
    let begin = clock.seconds();
    let mut wrong: Vec<(Multiplier, String)> = Vec::new();
    let mut right = Vec::new();
    for multiplier in Multiplier::ALL {
        if multiplier == Multiplier::Cooperative && (compute == Compute::F32 || device.products().tile.is_none()) {
            continue;
        }
        match self_test(device, multiplier)? {
            None => right.push(multiplier),
            Some(problem) => wrong.push((multiplier, problem)),
        }
    }
    let mut timed: Vec<Timed> = Vec::new();
    for class in Class::ALL {
        let Sizes { m, n, k } = class.sizes();
        let left = sample::matrix(device, 31, m, k);
        let weight = sample::matrix(device, 32, n, k);
        for &multiplier in class.candidates().iter().filter(|candidate| right.contains(candidate)) {
            if clock.seconds() - begin > MOST_SECONDS - 2.0 * SECONDS_EACH {
                break;
            }
            let once = || -> Result<()> {
                Product::of(&left, weight.transposed()).by(multiplier).run(device)?;
                device.sync()
            };
            // The first compiles what the self-test's sizes did not.
            once()?;
            let (start, mut count) = (clock.seconds(), 0);
            while count < LEAST_REPETITIONS || clock.seconds() - start < SECONDS_EACH {
                once()?;
                count += 1;
            }
            let seconds = (clock.seconds() - start) / count as f64;
            timed.push(Timed { class, multiplier, sizes: [m, n, k], seconds });
        }
    }
    let choice = settle(Choice::unmeasured(device.is_software()), compute, &timed, &wrong);
    Ok(Calibration { timed, wrong, choice })
}

/// The fastest kernel of each class. A kernel that computes wrong is never taken: where it would have been, the tiled one is.
fn settle(unmeasured: Choice, compute: Compute, timed: &[Timed], wrong: &[(Multiplier, String)]) -> Choice {
    let mut choice = unmeasured;
    for class in Class::ALL {
        let is_wrong = |multiplier: Multiplier| wrong.iter().any(|(other, _)| *other == multiplier);
        if is_wrong(choice.for_class(class)) {
            choice = choice.with(class, Multiplier::Tiled);
        }
        let seconds = |t: &Timed| match t.multiplier {
            Multiplier::Cooperative if compute == Compute::F16 => 0.0,
            Multiplier::Cooperative => t.seconds * WORTH_HALVING,
            _ => t.seconds,
        };
        let of_class = timed.iter().filter(|t| t.class == class && !is_wrong(t.multiplier));
        if let Some(fastest) = of_class.min_by(|a, b| seconds(a).total_cmp(&seconds(b))) {
            choice = choice.with(class, fastest.multiplier);
        }
    }
    choice
}

/// Under what a calibration's choice is kept.
fn measured_for(compute: Compute) -> String {
    format!("products-{compute}")
}

/// What is wrong with what a kernel computes on a device: products of sizes beside its tiles' edges in the three layouts of
/// training, against those of the CPU.
///
/// # Errors
/// Device errors.
pub fn self_test(device: &Device, multiplier: Multiplier) -> Result<Option<String>> {
    let results = |device: &Device, by: Option<Multiplier>| -> Result<Vec<f32>> {
        let (a, b) = (sample::matrix(device, 33, 131, 100), sample::matrix(device, 34, 68, 100));
        // Numbers whose halves would overflow, and a row that is much smaller than its neighbours.
        let (a, b) = (a * 1e6, b);
        let dy = sample::matrix(device, 35, 131, 68);
        let pairs: [(Operand<2>, Operand<2>); 3] =
            [((&a).into(), b.transposed()), ((&dy).into(), (&b).into()), (dy.transposed(), (&a).into())];
        let mut all = Vec::new();
        for (left, right) in pairs {
            let product = Product::of(left, right);
            let product = if let Some(multiplier) = by { product.by(multiplier) } else { product };
            all.extend(pollster::block_on(tensor::read(&product.run(device)?))?);
        }
        Ok(all)
    };
    let (want, got) = (results(&Device::cpu(), None)?, results(device, Some(multiplier))?);
    // Each product by its own largest element.
    let ends = [0, 131 * 68, 131 * 68 + 131 * 100, want.len()];
    for range in ends.windows(2).map(|ends| ends[0]..ends[1]) {
        let (_, problem) = sample::compare(&got[range.clone()], &want[range], multiplier.tolerance());
        if !problem.is_empty() {
            return Ok(Some(problem));
        }
    }
    Ok(None)
}

impl Device {
    /// The same device, with the kernels for products settled for this precision, and what there is to say about it.
    /// Hardware is [calibrated](calibrate), or takes what an earlier run found the fastest, after another self-test; a software
    /// adapter takes its own kernel, and tensor cores where f16 is asked for.
    ///
    /// # Errors
    /// [`Error::Device`] where f16 is asked for and the device has no such matrices; device errors.
    pub fn computing(&self, compute: Compute, clock: &dyn Clock) -> Result<(Self, Vec<String>)> {
        let tile = self.products().tile;
        if compute == Compute::F16 && tile.is_none() {
            let problem = format!(
                "[run] compute = \"f16\": {} has no cooperative matrices with f16 operands and f32 sums; use \"auto\" or \
                 \"f32\", or another device ([run] device)",
                self.name()
            );
            return Err(Error::Device { problem });
        }
        if self.is_cpu() || self.is_software() && compute != Compute::F16 {
            return Ok((self.with_products(Products { compute, ..*self.products() }), Vec::new()));
        }
        let calibration = match self.is_software() {
            false => match self.calibrated_before(compute)? {
                Some(calibration) => calibration,
                None => {
                    let calibration = calibrate(self, compute, clock)?;
                    if let (Some(kept), true) = (self.kept(), calibration.wrong.is_empty()) {
                        kept.leave_measured(&measured_for(compute), &calibration.choice.names());
                    }
                    calibration
                }
            },
            // Never timed: that a processor is slow at it is known.
            true => {
                let problem = self_test(self, Multiplier::Cooperative)?;
                let wrong: Vec<_> = problem.map(|problem| (Multiplier::Cooperative, problem)).into_iter().collect();
                let software = Choice::unmeasured(true);
                let choice = match wrong.is_empty() {
                    true => software.with(Class::Wide, Multiplier::Cooperative),
                    false => software.with(Class::Wide, Multiplier::Tiled),
                };
                Calibration { timed: Vec::new(), wrong, choice }
            }
        };
        Ok(self.settled(compute, &calibration))
    }

    /// What an earlier run settled, where all its kernels still compute right.
    fn calibrated_before(&self, compute: Compute) -> Result<Option<Calibration>> {
        let measured = self.kept().and_then(|kept| kept.measured(&measured_for(compute)));
        let Some(choice) = measured.and_then(|names| Choice::from_names(&names)) else { return Ok(None) };
        for multiplier in Multiplier::ALL {
            let taken = Class::ALL.iter().any(|class| choice.for_class(*class) == multiplier);
            let there = multiplier != Multiplier::Cooperative || self.products().tile.is_some();
            if taken && (!there || self_test(self, multiplier)?.is_some()) {
                return Ok(None);
            }
        }
        Ok(Some(Calibration { timed: Vec::new(), wrong: Vec::new(), choice }))
    }

    /// The same device with every product in half precision but those in [`Class::Exact`], however small: for tests.
    #[doc(hidden)]
    pub fn halving_all(&self) -> Self {
        let classes = [Class::Few, Class::Thin, Class::Wide];
        let choice = classes.into_iter().fold(self.choice(), |c, class| c.with(class, Multiplier::Cooperative));
        self.with_products(Products { choice: Some(choice), ..*self.products() })
    }

    /// The same device with what a device with tensor cores computes in half precision computed so; on the CPU with operands that are
    /// rounded alike: for tests.
    #[doc(hidden)]
    pub fn halving_wide(&self) -> Self {
        let choice = self.choice().with(Class::Wide, Multiplier::Cooperative);
        self.with_products(Products { choice: Some(choice), ..*self.products() })
    }

    fn settled(&self, compute: Compute, calibration: &Calibration) -> (Self, Vec<String>) {
        let said = calibration.wrong.iter().map(|(multiplier, problem)| {
            let name = multiplier.name();
            format!("{}: the {name} kernel computes wrong ({problem}); the tiled one is used in its place", self.name())
        });
        let products = Products { choice: Some(calibration.choice), compute, ..*self.products() };
        (self.with_products(products), said.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(class: Class, multiplier: Multiplier, seconds: f64) -> Timed {
        Timed { class, multiplier, sizes: [1, 1, 1], seconds }
    }

    #[test]
    fn the_fastest_kernel_of_each_class_is_taken_and_half_precision_where_it_is_worth_it() {
        let hardware = Choice::unmeasured(false);
        assert_eq!(settle(hardware, Compute::Auto, &[], &[]), hardware);
        let mut all = vec![
            timed(Class::Few, Multiplier::FewRows, 2.0),
            timed(Class::Few, Multiplier::Software, 1.0),
            timed(Class::Wide, Multiplier::Tiled, 1.0),
            timed(Class::Wide, Multiplier::Cooperative, 0.9),
        ];
        let choice = settle(hardware, Compute::Auto, &all, &[]);
        assert_eq!(
            Class::ALL.map(|class| choice.for_class(class)),
            [Multiplier::Software, Multiplier::FewRows, Multiplier::Tiled, Multiplier::Tiled]
        );
        // As asked for, whatever it costs.
        assert_eq!(settle(hardware, Compute::F16, &all, &[]).for_class(Class::Wide), Multiplier::Cooperative);
        all[3].seconds = 0.5;
        assert_eq!(settle(hardware, Compute::Auto, &all, &[]).for_class(Class::Wide), Multiplier::Cooperative);
    }

    #[test]
    fn a_kernel_that_computes_wrong_is_never_taken_and_the_tiled_one_stands_in_for_it() {
        let all = [timed(Class::Wide, Multiplier::Tiled, 1.0), timed(Class::Wide, Multiplier::Cooperative, 0.1)];
        let wrong = [(Multiplier::Cooperative, String::new()), (Multiplier::FewRows, String::new())];
        for compute in [Compute::Auto, Compute::F16] {
            let choice = settle(Choice::unmeasured(false), compute, &all, &wrong);
            assert_eq!(Class::ALL.map(|class| choice.for_class(class)), [Multiplier::Tiled; 4]);
        }
        let calibration = Calibration {
            timed: Vec::new(),
            wrong: vec![(Multiplier::Cooperative, "an element is NaN".into())],
            choice: Choice::unmeasured(false),
        };
        let (_, said) = Device::cpu().settled(Compute::F16, &calibration);
        assert_eq!(said.len(), 1);
        assert!(["CPU", "cooperative", "NaN", "tiled"].iter().all(|word| said[0].contains(word)), "{said:?}");
    }

    #[test]
    fn a_wrong_and_a_missing_number_are_told_from_rounding() {
        let differs = |got: [f32; 2], want: [f32; 2]| !sample::compare(&got, &want, 1e-4).1.is_empty();
        assert!(!differs([1.0, -2.0], [1.00001, -2.0]));
        assert!(differs([1.0, -2.0], [1.01, -2.0]));
        assert!(differs([f32::NAN, -2.0], [1.0, -2.0]));
        assert!(differs([0.0, f32::INFINITY], [0.0, 0.0]));
    }
}
