//! Which kernel multiplies: by the device, by the shape, and on hardware by what was measured.
//!
//! Software adapters, where barriers and workgroup memory cost more than they save, have one kernel for all but few rows. Hardware
//! has a tiled one, one for few rows or columns and, where it lists cooperative matrices with f16 operands and f32 sums,
//! one for tensor cores. Which of them is fastest for what depends on the device; natively a [`calibration`](calibrate)
//! of at most [`MOST_SECONDS`] finds out, after each has shown that it computes right.

use super::cpu::matmul::Sizes;
use super::launch::Gpu;
use crate::settings::choice;

#[cfg(not(target_family = "wasm"))]
use super::matmul::{AsOperand, Operand, Product};
#[cfg(not(target_family = "wasm"))]
use super::{sample, tensor};
#[cfg(not(target_family = "wasm"))]
use crate::device::Device;
#[cfg(not(target_family = "wasm"))]
use crate::error::{Error, Result};
#[cfg(not(target_family = "wasm"))]
use crate::host::Clock;

choice! {
    /// In which precision matrices are multiplied; sums are always in single precision.
    pub enum Compute {
        /// Half precision on tensor cores where the device has them and is faster so; else single precision.
        Auto = "auto",
        /// Single precision.
        F32 = "f32",
        /// Half precision on tensor cores, with a scale for each row; logits stay in single precision.
        F16 = "f16",
    }
}

/// A WGSL kernel for matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplier {
    /// `matmul_vectors.wgsl`, or `matmul.wgsl` where strides do not permit it: without workgroup memory.
    Software,
    /// `matmul_tiled.wgsl`, which reads four numbers at a time where strides permit: tiles in workgroup memory.
    Tiled,
    /// `matmul_few_rows.wgsl`: an element's terms shared among invocations.
    FewRows,
    /// `matmul_cooperative.wgsl`: f16 operands on tensor cores.
    Cooperative,
}

impl Multiplier {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cooperative, Self::Tiled, Self::Software, Self::FewRows];

    /// What benchmarks and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Tiled => "tiled",
            Self::FewRows => "few_rows",
            Self::Cooperative => "cooperative",
        }
    }

    /// Largest error relative to the largest element that rounding makes.
    #[cfg(not(target_family = "wasm"))]
    fn tolerance(self) -> f32 {
        if self == Self::Cooperative { 2e-3 } else { 2e-5 }
    }
}

/// Rows up to which a product is [`Class::Few`].
const FEW: usize = 8;
/// Rows or columns up to which it is [`Class::Thin`].
const THIN: usize = 32;

/// Shapes for which the same kernel is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// At most 8 rows: generation.
    Few,
    /// At most 32 rows or columns: the thin sides of an adapter.
    Thin,
    /// Everything else.
    Wide,
    /// The same where single precision is demanded, or there are too few terms to be worth halving.
    Exact,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Few, Self::Thin, Self::Wide, Self::Exact];

    fn of(Sizes { m, n, k }: Sizes, exact: bool) -> Self {
        if m <= FEW {
            Self::Few
        } else if m.min(n) <= THIN {
            Self::Thin
        } else if exact || k < THIN {
            Self::Exact
        } else {
            Self::Wide
        }
    }

    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Thin => "thin",
            Self::Wide => "wide",
            Self::Exact => "exact",
        }
    }

    /// Sizes that stand for it in a calibration, of which the first that a layer has are the terms.
    #[cfg(not(target_family = "wasm"))]
    fn sizes(self) -> Sizes {
        match self {
            Self::Few => Sizes { m: 1, n: 4096, k: 2048 },
            Self::Thin => Sizes { m: 512, n: 16, k: 2048 },
            Self::Wide | Self::Exact => Sizes { m: 512, n: 2048, k: 1024 },
        }
    }

    /// Kernels that may be best for it.
    #[cfg(not(target_family = "wasm"))]
    fn candidates(self) -> &'static [Multiplier] {
        match self {
            Self::Few | Self::Thin => &[Multiplier::FewRows, Multiplier::Tiled, Multiplier::Software],
            Self::Exact => &[Multiplier::Tiled, Multiplier::Software],
            Self::Wide => &[Multiplier::Tiled, Multiplier::Cooperative, Multiplier::Software],
        }
    }
}

/// Which kernel multiplies what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice([Multiplier; 4]);

impl Choice {
    /// Of a device before anything is measured.
    pub fn unmeasured(software: bool) -> Self {
        // On lavapipe few rows take a third of the time; browsers' software is slower at barriers.
        let few = if cfg!(target_family = "wasm") { Multiplier::Software } else { Multiplier::FewRows };
        match software {
            true => Self([few, Multiplier::Software, Multiplier::Software, Multiplier::Software]),
            false => Self([Multiplier::FewRows, Multiplier::FewRows, Multiplier::Tiled, Multiplier::Tiled]),
        }
    }

    /// The kernel for a product of these sizes; one in single precision where `exact`.
    pub fn of(&self, sizes: Sizes, exact: bool) -> Multiplier {
        match self.for_class(Class::of(sizes, exact)) {
            Multiplier::Cooperative if exact => self.for_class(Class::Exact),
            multiplier => multiplier,
        }
    }

    /// The kernel for shapes of a class.
    pub fn for_class(&self, class: Class) -> Multiplier {
        self.0[class as usize]
    }

    #[cfg(not(target_family = "wasm"))]
    fn with(mut self, class: Class, multiplier: Multiplier) -> Self {
        self.0[class as usize] = multiplier;
        self
    }
}

/// What a device knows of products.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Products {
    /// Rows, columns and terms that its tensor cores multiply together; none without them.
    pub(crate) tile: Option<u32>,
    /// Which kernel multiplies what, where that was settled.
    pub(crate) choice: Option<Choice>,
    /// For what it was settled.
    pub(crate) compute: Compute,
}

impl Products {
    /// Of a device for which nothing is settled.
    pub(crate) fn of(gpu: Option<&Gpu>) -> Self {
        Self { tile: gpu.and_then(cooperative_tile), choice: None, compute: Compute::Auto }
    }
}

/// The larger of the sizes that a kernel of ours is written for and the device lists, with f16 operands and f32 sums.
fn cooperative_tile(gpu: &Gpu) -> Option<u32> {
    #[cfg(target_family = "wasm")]
    {
        let _ = gpu;
        None
    }
    #[cfg(not(target_family = "wasm"))]
    {
        use wgpu::{CooperativeScalarType, Features};
        let needed = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16 | Features::SUBGROUP;
        if !gpu.device_features().contains(needed) {
            return None;
        }
        let listed = gpu.adapter().cooperative_matrix_properties();
        let has = |tile: &u32| {
            listed.iter().any(|p| {
                [p.m_size, p.n_size, p.k_size] == [*tile; 3]
                    && p.ab_type == CooperativeScalarType::F16
                    && p.cr_type == CooperativeScalarType::F32
            })
        };
        [16, 8].into_iter().find(has)
    }
}

/// Most seconds that a calibration takes.
#[cfg(not(target_family = "wasm"))]
pub const MOST_SECONDS: f64 = 2.0;
/// Seconds for which a kernel is timed with one shape, and how often at least.
#[cfg(not(target_family = "wasm"))]
const SECONDS_EACH: f64 = 0.05;
#[cfg(not(target_family = "wasm"))]
const LEAST_REPETITIONS: usize = 2;
/// Half precision is taken where it makes wide products this much faster; less is not worth its rounding.
#[cfg(not(target_family = "wasm"))]
const WORTH_HALVING: f64 = 1.2;

/// One kernel with the sizes of one class.
#[cfg(not(target_family = "wasm"))]
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

#[cfg(not(target_family = "wasm"))]
impl Timed {
    /// Billions of floating point operations a second.
    pub fn gflops(&self) -> f64 {
        2.0 * self.sizes.iter().map(|&size| size as f64).product::<f64>() / self.seconds / 1e9
    }
}

/// What a calibration found.
#[cfg(not(target_family = "wasm"))]
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
#[cfg(not(target_family = "wasm"))]
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
#[cfg(not(target_family = "wasm"))]
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

/// What is wrong with what a kernel computes on a device: products of sizes beside its tiles' edges in the three layouts of
/// training, against those of the CPU.
///
/// # Errors
/// Device errors.
#[cfg(not(target_family = "wasm"))]
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
        if let Some(problem) = difference(&got[range.clone()], &want[range], multiplier.tolerance()) {
            return Ok(Some(problem));
        }
    }
    Ok(None)
}

/// Where results differ by more than rounding; NaN does.
#[cfg(not(target_family = "wasm"))]
fn difference(got: &[f32], want: &[f32], tolerance: f32) -> Option<String> {
    let largest = want.iter().fold(f32::MIN_POSITIVE, |largest, v| largest.max(v.abs()));
    let wrong = |(got, want): &(&f32, &f32)| !((*got - *want).abs() / largest <= tolerance);
    let (got, want) = got.iter().zip(want).find(wrong)?;
    Some(format!("an element is {got:e} where it should be {want:e}"))
}

#[cfg(not(target_family = "wasm"))]
impl Device {
    /// The same device, with the kernels for products settled for this precision, and what there is to say about it.
    /// Hardware is [calibrated](calibrate); a software adapter takes its own kernel, and tensor cores where f16 is asked for.
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
            false => calibrate(self, compute, clock)?,
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

    /// The same device with every product in half precision but those in [`Class::Exact`], however small: for tests.
    #[doc(hidden)]
    pub fn halving_all(&self) -> Self {
        let classes = [Class::Few, Class::Thin, Class::Wide];
        let choice = classes.into_iter().fold(self.choice(), |c, class| c.with(class, Multiplier::Cooperative));
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

    #[test]
    fn what_has_few_rows_or_terms_or_must_be_exact_is_never_halved() {
        let of = |m, n, k, exact| Class::of(Sizes { m, n, k }, exact);
        assert_eq!([of(1, 4096, 64, false), of(8, 8, 8, true)], [Class::Few; 2]);
        assert_eq!([of(9, 4096, 64, false), of(4096, 32, 64, true)], [Class::Thin; 2]);
        assert_eq!([of(33, 33, 31, false), of(512, 512, 512, true)], [Class::Exact; 2]);
        assert_eq!(of(33, 33, 32, false), Class::Wide);
    }

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
    fn what_must_be_exact_is_so_whatever_its_class_takes() {
        let halving =
            Choice([Multiplier::Cooperative, Multiplier::Cooperative, Multiplier::Cooperative, Multiplier::Tiled]);
        for m in [1, 20, 64] {
            let sizes = Sizes { m, n: 64, k: 64 };
            assert_eq!(
                [halving.of(sizes, false), halving.of(sizes, true)],
                [Multiplier::Cooperative, Multiplier::Tiled]
            );
        }
    }

    #[test]
    fn a_wrong_and_a_missing_number_are_told_from_rounding() {
        assert_eq!(difference(&[1.0, -2.0], &[1.00001, -2.0], 1e-4), None);
        assert!(difference(&[1.0, -2.0], &[1.01, -2.0], 1e-4).is_some());
        assert!(difference(&[f32::NAN, -2.0], &[1.0, -2.0], 1e-4).is_some());
        assert!(difference(&[0.0, f32::INFINITY], &[0.0, 0.0], 1e-4).is_some());
    }
}
