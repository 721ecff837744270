//! Which kernel for products is fastest on a device, measured, after each has shown that it computes right.

use burn::tensor::Tensor;

use super::cpu::matmul::Sizes;
use super::dequantize::blocks;
use super::kept::Untried;
use super::matmul::{AsOperand, Operand, Product};
use super::multiplier::{Choice, Class, Compute, Multiplier, Products};
use super::{attention, sample, tensor};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::host::Clock;
use crate::weights::WeightFormat;

/// Most seconds that a calibration takes.
pub const MOST_SECONDS: f64 = 2.0;
/// Seconds for which a kernel is timed with one shape, and how often at least.
const SECONDS_EACH: f64 = 0.05;
const LEAST_REPETITIONS: usize = 2;
/// Seconds that as many products last as are waited for at once, so that starting and waiting for them do not count;
/// and how many that are at most.
const SECONDS_AT_ONCE: f64 = 0.01;
const MOST_AT_ONCE: usize = 1024;
/// A device that is done with a product sooner is timed with a larger one, where the class has one.
const TOO_SOON: f64 = 1e-3;
/// Half precision is taken where it makes wide products this much faster; less is not worth its rounding.
const WORTH_HALVING: f64 = 1.2;
/// Classes as they are timed: what most of a step is comes first, in case there is no time for all.
const IN_ORDER: [Class; 4] = [Class::Wide, Class::Exact, Class::Few, Class::Thin];

/// Largest error of attention's gradient relative to its largest element that half precision makes.
const ATTENTION_TOLERANCE: f32 = 4e-3;

/// Rows, terms and columns of a product of many workgroups and long sums, of no whole tiles.
const LARGE: [usize; 3] = [515, 2052, 1029];
/// How often that one is computed: what is wrong now and then shows in one of them.
const TIMES: usize = 3;
/// How a matrix is stored that a self-test multiplies with.
const STORED: WeightFormat = WeightFormat::Q4K;

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
    /// Kernels that are not taken on this device, named with what is said of them: that they compute wrong, and how.
    pub refused: Vec<(Multiplier, String)>,
    /// True where there was no time for all of it.
    pub cut_off: bool,
    /// Why tensor cores are not taken, where they compute right and are too slow for it.
    pub too_slow: Option<String>,
    /// What it settles, with half precision where that is faster.
    pub choice: Choice,
    /// Floating-point operations a second of wide products by the kernel that is taken, where that was timed.
    pub pace: Option<f64>,
}

/// Before what a calibration writes of the pace.
const PACE: &str = "pace ";

impl Calibration {
    /// A choice of which nothing was measured now.
    fn known(choice: Choice, too_slow: Option<String>) -> Self {
        Self { timed: Vec::new(), refused: Vec::new(), cut_off: false, too_slow, choice, pace: None }
    }

    /// As later runs read it.
    fn written(&self) -> String {
        let pace = self.pace.map(|pace| format!("{PACE}{pace}"));
        [self.choice.names()].into_iter().chain(pace).chain(self.too_slow.clone()).collect::<Vec<_>>().join("\n")
    }

    /// What an earlier run wrote; none where that is not all there or was written by nobody.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let choice = lines.next().and_then(Choice::from_names)?;
        let (pace, rest): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with(PACE));
        let pace = pace.first().and_then(|line| line.strip_prefix(PACE)?.parse().ok()).filter(|pace| *pace > 0.0);
        Some(Self { pace, ..Self::known(choice, rest.first().map(|line| (*line).to_owned())) })
    }
}

/// Times the kernels on a device, each after its self-test; what there is no time for keeps its place.
///
/// # Errors
/// Device errors.
pub fn calibrate(device: &Device, compute: Compute, clock: &dyn Clock) -> Result<Calibration> {
    let begin = clock.seconds();
    let (mut right, mut refused) = (Vec::new(), Vec::new());
    for multiplier in Multiplier::ALL {
        if !compute.admits(multiplier) || !has(device, multiplier) {
            continue;
        }
        match self_test(device, multiplier)? {
            None => right.push(multiplier),
            Some(problem) => refused.push((multiplier, problem)),
        }
    }
    let (mut timed, mut cut_off) = (Vec::new(), false);
    for class in IN_ORDER {
        let (mut work, mut larger) = (Work::of(device, class.sizes()), class.larger());
        for &multiplier in class.candidates().iter().filter(|candidate| right.contains(candidate)) {
            if clock.seconds() - begin > MOST_SECONDS - 2.0 * SECONDS_EACH {
                cut_off = true;
                break;
            }
            // The first compiles what the self-test's sizes did not.
            work.run(multiplier, 1)?;
            // All of a class are timed with the same sizes: those that suit the first.
            if let Some(sizes) = larger.take()
                && work.seconds_of(multiplier, 1, clock)? < TOO_SOON
            {
                work = Work::of(device, sizes);
            }
            let Sizes { m, n, k } = work.sizes;
            timed.push(Timed { class, multiplier, sizes: [m, n, k], seconds: work.seconds(multiplier, clock)? });
        }
    }
    let choice = settle(Choice::unmeasured(device.is_software()), compute, &timed, &right);
    let too_slow = too_slow(&timed, choice);
    let wide = |t: &&Timed| t.class == Class::Wide && t.multiplier == choice.for_class(Class::Wide);
    let pace = timed.iter().find(wide).map(|timed| timed.gflops() * 1e9);
    Ok(Calibration { timed, refused, cut_off, too_slow, choice, pace })
}

/// Whether a device has what a kernel is made of.
fn has(device: &Device, multiplier: Multiplier) -> bool {
    multiplier.segments() == 0 || device.products().tile.is_some()
}

/// A product that kernels are timed with.
struct Work<'a> {
    device: &'a Device,
    sizes: Sizes,
    left: Tensor<2>,
    weight: Tensor<2>,
}

impl<'a> Work<'a> {
    fn of(device: &'a Device, sizes: Sizes) -> Self {
        let Sizes { m, n, k } = sizes;
        Self { device, sizes, left: sample::matrix(device, 31, m, k), weight: sample::matrix(device, 32, n, k) }
    }

    /// Computes it so many times and waits for the last.
    fn run(&self, by: Multiplier, count: usize) -> Result<()> {
        for _ in 0..count {
            Product::of(&self.left, self.weight.transposed()).by(by).run(self.device)?;
        }
        self.device.sync()
    }

    /// Seconds that so many take together.
    fn seconds_of(&self, by: Multiplier, count: usize, clock: &dyn Clock) -> Result<f64> {
        let start = clock.seconds();
        self.run(by, count)?;
        Ok(clock.seconds() - start)
    }

    /// Seconds of one: the least of several measurements, since a card is slower while its clock still rises.
    fn seconds(&self, by: Multiplier, clock: &dyn Clock) -> Result<f64> {
        let start = clock.seconds();
        let (mut count, mut repetitions, mut least) = (1, 0, f64::INFINITY);
        while repetitions < LEAST_REPETITIONS || clock.seconds() - start < SECONDS_EACH {
            let seconds = self.seconds_of(by, count, clock)?;
            if seconds < SECONDS_AT_ONCE && count < MOST_AT_ONCE {
                count *= 2;
                continue;
            }
            least = least.min(seconds / count as f64);
            repetitions += 1;
        }
        Ok(least)
    }
}

/// Seconds that attention over one document of a usual shape takes with these kernels: the least of a few.
fn attention_seconds(device: &Device, kind: attention::Kind, clock: &dyn Clock) -> Result<f64> {
    const TOKENS: usize = 1024;
    const REPETITIONS: usize = 3;
    let shape = attention::Shape { heads: 16, kv_heads: 8, head_dim: 128 };
    let qkv = sample::matrix(device, 40, TOKENS, (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    let starts = tensor::Indices::new(device, vec![0; TOKENS]);
    let mut least = f64::INFINITY;
    // The first compiles.
    for repetition in 0..=REPETITIONS {
        device.sync()?;
        let start = clock.seconds();
        attention::forward_by(device, kind, &qkv, shape, &starts)?;
        device.sync()?;
        if repetition > 0 {
            least = least.min(clock.seconds() - start);
        }
    }
    Ok(least)
}

/// The fastest kernel of each class, of those that compute right: where another one would have been, the tiled one is.
/// Tensor cores where they are asked for, whatever they take, and also where there was no time to measure it.
fn settle(unmeasured: Choice, compute: Compute, timed: &[Timed], right: &[Multiplier]) -> Choice {
    let mut choice = unmeasured;
    for class in Class::ALL {
        if !right.contains(&choice.for_class(class)) {
            choice = choice.with(class, Multiplier::Tiled);
        }
        let seconds = |t: &Timed| match t.multiplier {
            Multiplier::Cooperative => t.seconds * WORTH_HALVING,
            _ => t.seconds,
        };
        let of_class = timed.iter().filter(|t| t.class == class && right.contains(&t.multiplier));
        if let Some(fastest) = of_class.min_by(|a, b| seconds(a).total_cmp(&seconds(b))) {
            choice = choice.with(class, fastest.multiplier);
        }
    }
    match compute.demanded().filter(|multiplier| right.contains(multiplier)) {
        Some(multiplier) => choice.with(Class::Wide, multiplier),
        None => choice,
    }
}

/// Why tensor cores were timed and are not in a choice: both times.
fn too_slow(timed: &[Timed], choice: Choice) -> Option<String> {
    let of = |multiplier| timed.iter().find(|t| t.class == Class::Wide && t.multiplier == multiplier);
    let taken = choice.for_class(Class::Wide);
    let (halved, single) = (of(Multiplier::Cooperative)?, of(taken)?);
    let [m, n, k] = halved.sizes;
    (taken != Multiplier::Cooperative).then(|| {
        format!(
            "tensor cores are not used: a product of {m}x{k}x{n} takes {:.3} ms on them and {:.3} ms with the {} \
             kernel, and half precision is taken where it is {WORTH_HALVING} times as fast ([run] compute = \"f16\" \
             takes it always)",
            halved.seconds * 1e3,
            single.seconds * 1e3,
            taken.name()
        )
    })
}

/// Under what a calibration's choice is kept.
fn measured_for(compute: Compute) -> String {
    format!("products-{compute}")
}

/// What is to be said of a kernel that a device cannot use: as a rule that it computes wrong, and how. For tensor cores
/// on hardware also that an earlier run ended while this was found out, since a driver may crash over them, or that another
/// process is at it.
///
/// # Errors
/// Device errors.
pub fn self_test(device: &Device, multiplier: Multiplier) -> Result<Option<String>> {
    let test = || unless_refused(computes_wrong(device, multiplier));
    // Those on tensor cores are one kernel: a driver that does not survive one is not asked for the other.
    if multiplier.segments() > 0 { attempt(device, Multiplier::Cooperative.name(), test) } else { test() }
}

/// A kernel that the driver does not compile is one that the device cannot use, and no reason to end.
fn unless_refused(tested: Result<Option<String>>) -> Result<Option<String>> {
    match tested {
        Err(Error::Kernel { name, message }) => Ok(Some(format!("cannot be used ({name}: {message})"))),
        tested => tested,
    }
}

/// What a test of kernels for tensor cores says; on hardware also where an earlier run ended in the middle of it.
fn attempt(device: &Device, name: &str, test: impl FnOnce() -> Result<Option<String>>) -> Result<Option<String>> {
    let Some(kept) = device.kept().filter(|_| !device.is_software()) else { return test() };
    kept.attempt(name, test).unwrap_or_else(|untried| {
        Ok(Some(match untried {
            Untried::Ended(file) => format!(
                "is not tried (an earlier run ended while the driver compiled it or first ran it; to try it again, remove \
                 {file} from temper's cache folder, which is the one in TEMPER_CACHE where that is set)"
            ),
            Untried::Busy => {
                "is not tried (another process has been trying it for minutes; the next run tries it again)".into()
            }
        }))
    })
}

/// What is wrong with what a kernel computes on a device: small products against those of the CPU, and for tensor
/// cores, where drivers are young, what they are for: a matrix as it is stored, and on hardware a large product.
fn computes_wrong(device: &Device, multiplier: Multiplier) -> Result<Option<String>> {
    let (cpu, tolerance) = (Device::cpu(), multiplier.tolerance());
    let by = Some(multiplier);
    let small = differs("small products", &small(device, by)?, &small(&cpu, None)?, tolerance);
    if small.is_some() || multiplier.segments() == 0 {
        return Ok(small);
    }
    let stored = differs("products with a stored matrix", &stored(device, by)?, &stored(&cpu, None)?, tolerance);
    // A processor would take too long for more.
    if stored.is_some() || device.is_software() {
        return Ok(stored);
    }
    let tiled = large(device, Multiplier::Tiled)?;
    Ok(differs("a large product beside the tiled kernel's", &large(device, multiplier)?, &tiled, tolerance))
}

/// What is wrong with what the kernels for attention on tensor cores compute: against the CPU.
///
/// # Errors
/// Device errors.
pub fn attention_computes_wrong(device: &Device) -> Result<Option<String>> {
    let on = |device: &Device, kind| -> Result<Vec<Vec<f32>>> {
        let both = attention::both_ways(device, kind)?;
        both.into_iter().map(|tensor| pollster::block_on(tensor::read(&tensor))).collect()
    };
    let (got, want) = (on(device, attention::Kind::Matrices)?, on(&Device::cpu(), attention::Kind::Tiles)?);
    Ok(differs("forward and back", &got, &want, ATTENTION_TOLERANCE))
}

/// That a kernel computes wrong and how, where a product is not what it should be. Each is measured by its own largest
/// element.
fn differs(what: &str, got: &[Vec<f32>], want: &[Vec<f32>], tolerance: f32) -> Option<String> {
    let mut problems = got.iter().zip(want).map(|(got, want)| sample::compare(got, want, tolerance).1);
    let problem = problems.find(|problem| !problem.is_empty())?;
    Some(format!("computes wrong ({what}: {problem})"))
}

/// Products of sizes beside the tiles' edges in the three layouts of training.
fn small(device: &Device, by: Option<Multiplier>) -> Result<Vec<Vec<f32>>> {
    let (a, b) = (sample::matrix(device, 33, 131, 100), sample::matrix(device, 34, 68, 100));
    // Numbers whose halves would overflow.
    let a = a * 1e6;
    let dy = sample::matrix(device, 35, 131, 68);
    let forward = (Operand::from(&a), b.transposed());
    products(device, by, [forward, (Operand::from(&dy), Operand::from(&b)), (dy.transposed(), Operand::from(&a))])
}

/// Products with a matrix that is read as it is stored, forward and back.
fn stored(device: &Device, by: Option<Multiplier>) -> Result<Vec<Vec<f32>>> {
    let packed = blocks(device, STORED)?;
    let frozen = || Operand::from(&packed);
    let (x, dy) = (sample::matrix(device, 36, 40, packed.columns()), sample::matrix(device, 37, 40, packed.rows()));
    products(device, by, [(Operand::from(&x), frozen().transposed()), (Operand::from(&dy), frozen())])
}

/// A large product several times.
fn large(device: &Device, by: Multiplier) -> Result<Vec<Vec<f32>>> {
    let [m, k, n] = LARGE;
    let (a, b) = (sample::matrix(device, 38, m, k), sample::matrix(device, 39, n, k));
    products(device, Some(by), [(); TIMES].map(|()| (Operand::from(&a), b.transposed())))
}

/// The products of these pairs, by one kernel or by the one that a device takes.
fn products<const N: usize>(
    device: &Device,
    by: Option<Multiplier>,
    pairs: [(Operand<2>, Operand<2>); N],
) -> Result<Vec<Vec<f32>>> {
    let product = |(left, right): (Operand<2>, Operand<2>)| {
        let product = Product::of(left, right);
        let product = if let Some(multiplier) = by { product.by(multiplier) } else { product };
        pollster::block_on(tensor::read(&product.run(device)?))
    };
    pairs.into_iter().map(product).collect()
}

impl Device {
    /// The same device, with the kernels for products settled for this precision, and what there is to say about it.
    /// Hardware is [calibrated](calibrate), or takes what an earlier run found the fastest, after another self-test; a software
    /// adapter takes its own kernel, and tensor cores where they are asked for.
    ///
    /// # Errors
    /// [`Error::Device`] where f16 or split is asked for and the device has no such matrices, or cannot use them; device
    /// errors.
    pub fn computing(&self, compute: Compute, clock: &dyn Clock) -> Result<(Self, Vec<String>)> {
        let demanded = compute.demanded();
        if demanded.is_some_and(|multiplier| !has(self, multiplier)) {
            let problem = format!(
                "[run] compute = \"{compute}\": {} has no cooperative matrices with f16 operands and f32 sums; use \"auto\" \
                 or \"f32\", or another device ([run] device)",
                self.name()
            );
            return Err(Error::Device { problem });
        }
        let as_it_is = || self.with_products(Products { compute, ..*self.products() });
        if self.is_cpu() {
            return Ok((as_it_is(), Vec::new()));
        }
        let calibration = match (self.is_software(), demanded) {
            (false, _) => match self.calibrated_before(compute)? {
                Some(calibration) => calibration,
                None => {
                    let calibration = calibrate(self, compute, clock)?;
                    let whole = calibration.refused.is_empty() && !calibration.cut_off;
                    if let (Some(kept), true) = (self.kept(), whole) {
                        kept.leave_measured(&measured_for(compute), &calibration.written());
                    }
                    calibration
                }
            },
            (true, None) => return Ok((as_it_is(), Vec::new())),
            // Never timed: that a processor is slow at it is known.
            (true, Some(multiplier)) => {
                let problem = self_test(self, multiplier)?;
                let choice = Choice::unmeasured(true).with(Class::Wide, multiplier);
                let refused = problem.map(|problem| (multiplier, problem)).into_iter().collect();
                Calibration { refused, ..Calibration::known(choice, None) }
            }
        };
        let (settled, mut said) = self.settled(compute, &calibration)?;
        let (attending, why) = settled.attending(clock)?;
        said.extend(why);
        Ok((attending, said))
    }

    /// What an earlier run settled, where all its kernels can still be used, and it is what is asked for.
    fn calibrated_before(&self, compute: Compute) -> Result<Option<Calibration>> {
        let measured = self.kept().and_then(|kept| kept.measured(&measured_for(compute)));
        let Some(known) = measured.and_then(|text| Calibration::read(&text)) else { return Ok(None) };
        if compute.demanded().is_some_and(|multiplier| known.choice.for_class(Class::Wide) != multiplier) {
            return Ok(None);
        }
        for multiplier in Multiplier::ALL {
            let taken = Class::ALL.iter().any(|class| known.choice.for_class(*class) == multiplier);
            let there = compute.admits(multiplier) && has(self, multiplier);
            if taken && (!there || self_test(self, multiplier)?.is_some()) {
                return Ok(None);
            }
        }
        Ok(Some(known))
    }

    /// The same device with every product by this kernel on tensor cores but those in [`Class::Exact`], however small: for
    /// tests.
    #[doc(hidden)]
    pub fn halving_all(&self, by: Multiplier) -> Self {
        let classes = [Class::Few, Class::Thin, Class::Wide];
        let choice = classes.into_iter().fold(self.choice(), |c, class| c.with(class, by));
        self.with_products(Products { choice: Some(choice), ..*self.products() })
    }

    /// The same device with what a device with tensor cores computes by this kernel of theirs computed so; on the CPU with
    /// operands that are rounded alike: for tests.
    #[doc(hidden)]
    pub fn halving_wide(&self, by: Multiplier) -> Self {
        let choice = self.choice().with(Class::Wide, by);
        self.with_products(Products { choice: Some(choice), ..*self.products() })
    }

    /// The same device with attention on tensor cores: for tests, since the software driver multiplies 16 x 16 x 16 without
    /// listing it.
    #[doc(hidden)]
    pub fn halving_attention(&self) -> Self {
        self.with_products(Products { attention: true, ..*self.products() })
    }

    /// The same device with attention on tensor cores where its products are, if it has those of the size that attention is
    /// written for, they compute it right and, on hardware, sooner; else what is to be said.
    fn attending(&self, clock: &dyn Clock) -> Result<(Self, Option<String>)> {
        let with = |attention| self.with_products(Products { attention, ..*self.products() });
        if !self.halves() || !attention::has_matrices(self) {
            return Ok((with(false), None));
        }
        let said = match attempt(self, "attention", || unless_refused(attention_computes_wrong(self)))? {
            Some(problem) => Some(format!("attention on tensor cores {problem}")),
            // Never timed: that a processor is slow at it is known.
            None if self.is_software() => None,
            None => {
                let seconds = |kind| attention_seconds(self, kind, clock);
                let (halved, single) = (seconds(attention::Kind::Matrices)?, seconds(attention::Kind::Tiles)?);
                let times = [halved, single].map(|seconds| format!("{:.3} ms", seconds * 1e3)).join(", and ");
                (halved >= single).then(|| format!("attention takes longer on tensor cores: {times} without"))
            }
        };
        let said =
            said.map(|why| format!("{}: {why}; the kernels in single precision are used in their place", self.name()));
        Ok((with(said.is_none()), said))
    }

    fn settled(&self, compute: Compute, calibration: &Calibration) -> Result<(Self, Vec<String>)> {
        let Calibration { refused, cut_off, too_slow, choice, pace, .. } = calibration;
        if let (Some(gpu), Some(pace)) = (self.gpu(), *pace) {
            gpu.pace(pace);
        }
        let demanded = refused.iter().find(|(multiplier, _)| Some(*multiplier) == compute.demanded());
        if let Some((kernel, problem)) = demanded {
            let (device, kernel) = (self.name(), kernel.name());
            let problem = format!(
                "[run] compute = \"{compute}\": {device}: the {kernel} kernel {problem}; use \"auto\" or \"f32\", or \
                 another device ([run] device)"
            );
            return Err(Error::Device { problem });
        }
        let unused = refused.iter().map(|(multiplier, problem)| {
            format!("the {} kernel {problem}; the tiled one is used in its place", multiplier.name())
        });
        let unmeasured = cut_off.then(|| {
            format!(
                "not every kernel for products was measured within {MOST_SECONDS} seconds; the others keep their \
                 places, and the next run measures again"
            )
        });
        let said = unused.chain(unmeasured).chain(too_slow.clone()).map(|line| format!("{}: {line}", self.name()));
        let products = Products { choice: Some(*choice), compute, ..*self.products() };
        Ok((self.with_products(products), said.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(class: Class, multiplier: Multiplier, seconds: f64) -> Timed {
        Timed { class, multiplier, sizes: [1, 1, 1], seconds }
    }

    fn kernels(choice: Choice) -> [Multiplier; 4] {
        Class::ALL.map(|class| choice.for_class(class))
    }

    #[test]
    fn the_fastest_kernel_of_each_class_is_taken_and_half_precision_where_it_is_worth_it() {
        let hardware = Choice::unmeasured(false);
        let settle = |compute, timed: &[Timed]| settle(hardware, compute, timed, &Multiplier::ALL);
        assert_eq!(settle(Compute::Auto, &[]), hardware);
        let mut all = vec![
            timed(Class::Few, Multiplier::FewRows, 2.0),
            timed(Class::Few, Multiplier::Software, 1.0),
            timed(Class::Wide, Multiplier::Tiled, 1.0),
            timed(Class::Wide, Multiplier::Cooperative, 0.9),
        ];
        let choice = settle(Compute::Auto, &all);
        assert_eq!(kernels(choice), [Multiplier::Software, Multiplier::FewRows, Multiplier::Tiled, Multiplier::Tiled]);
        let why = too_slow(&all, choice).expect("tensor cores were timed");
        assert!(
            ["tensor cores", "900.000 ms", "1000.000 ms", "tiled", "1.2", "f16"].iter().all(|part| why.contains(part)),
            "{why}"
        );
        // As asked for, whatever it costs, and also where nothing was timed.
        for timed in [&all[..], &[]] {
            let choice = settle(Compute::F16, timed);
            assert_eq!(choice.for_class(Class::Wide), Multiplier::Cooperative);
            assert_eq!((choice.for_class(Class::Exact), too_slow(timed, choice)), (Multiplier::Tiled, None));
            assert_eq!(settle(Compute::Split, timed).for_class(Class::Wide), Multiplier::Split);
        }
        all[3].seconds = 0.5;
        let choice = settle(Compute::Auto, &all);
        assert_eq!((choice.for_class(Class::Wide), too_slow(&all, choice)), (Multiplier::Cooperative, None));
    }

    #[test]
    fn a_kernel_that_computes_wrong_is_never_taken_and_the_tiled_one_stands_in_for_it() {
        let all = [timed(Class::Wide, Multiplier::Tiled, 1.0), timed(Class::Wide, Multiplier::Cooperative, 0.1)];
        let right = [Multiplier::Tiled, Multiplier::Software];
        for compute in [Compute::Auto, Compute::F16, Compute::Split] {
            let choice = settle(Choice::unmeasured(false), compute, &all, &right);
            assert_eq!(kernels(choice), [Multiplier::Tiled; 4]);
        }
        let refused = vec![(Multiplier::Cooperative, "computes wrong (an element is NaN)".to_string())];
        let calibration = Calibration { refused, ..Calibration::known(Choice::unmeasured(false), None) };
        let (_, said) = Device::cpu().settled(Compute::Auto, &calibration).unwrap();
        assert_eq!(said.len(), 1);
        assert!(["CPU", "cooperative", "NaN", "tiled"].iter().all(|word| said[0].contains(word)), "{said:?}");
        // Who asks for half precision never gets something else.
        for multiplier in [Multiplier::Cooperative, Multiplier::Split] {
            let compute = if multiplier == Multiplier::Split { Compute::Split } else { Compute::F16 };
            let refused = vec![(multiplier, "computes wrong (an element is NaN)".to_string())];
            let calibration = Calibration { refused, ..calibration.clone() };
            let error = Device::cpu().settled(compute, &calibration).err().expect("it cannot be had");
            let (text, said) = (error.to_string(), format!("[run] compute = \"{compute}\""));
            let parts = [said.as_str(), "CPU", multiplier.name(), "NaN", "auto"];
            assert!(error.is_bad_input() && parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn what_was_not_measured_and_what_was_too_slow_are_said() {
        let known = Calibration::known(Choice::unmeasured(false), Some("tensor cores are slow".into()));
        let calibration = Calibration { cut_off: true, ..known };
        let (_, said) = Device::cpu().settled(Compute::Auto, &calibration).unwrap();
        assert!(said.len() == 2 && said[0].contains("within 2 seconds"), "{said:?}");
        assert_eq!(said[1], "CPU: tensor cores are slow");
    }

    #[test]
    fn a_calibration_is_read_as_it_was_written_with_what_was_said_of_it() {
        for (why, pace) in [(None, Some(2.5e12)), (Some("tensor cores are slow".to_string()), None), (None, None)] {
            let known = Calibration { pace, ..Calibration::known(Choice::unmeasured(false), why.clone()) };
            let read = Calibration::read(&known.written()).expect("it was written");
            assert_eq!((read.choice, read.too_slow, read.pace), (known.choice, why, pace));
        }
        // Nobody's pace is no number, or nothing.
        for odd in ["pace fast", "pace -1", "pace 0", "pace NaN"] {
            let text = format!("{}\n{odd}", Choice::unmeasured(false).names());
            assert_eq!(Calibration::read(&text).expect("its choice is one").pace, None, "{odd}");
        }
        assert!(Calibration::read("").is_none() && Calibration::read("tiled\ntiled").is_none());
    }

    #[test]
    fn a_kernel_that_the_driver_refuses_is_one_that_is_not_used_and_a_lost_device_is_an_error() {
        let refused = Error::Kernel { name: "matmul_tiled".into(), message: "no such extension".into() };
        let said = unless_refused(Err(refused)).unwrap().expect("it is said");
        assert!(said.contains("matmul_tiled") && said.contains("no such extension"), "{said}");
        assert!(unless_refused(Err(Error::Lost { problem: String::new() })).is_err());
        assert_eq!(unless_refused(Ok(None)).unwrap(), None);
    }

    #[test]
    fn a_wrong_and_a_missing_number_are_told_from_rounding() {
        let differs = |got: [f32; 2], want: [f32; 2]| {
            let problem = differs("a product", &[vec![1.0], got.to_vec()], &[vec![1.0], want.to_vec()], 1e-4);
            assert!(problem.iter().all(|problem| problem.starts_with("computes wrong (a product: ")), "{problem:?}");
            problem.is_some()
        };
        assert!(!differs([1.0, -2.0], [1.00001, -2.0]));
        assert!(differs([1.0, -2.0], [1.01, -2.0]));
        assert!(differs([f32::NAN, -2.0], [1.0, -2.0]));
        assert!(differs([0.0, f32::INFINITY], [0.0, 0.0]));
    }
}
