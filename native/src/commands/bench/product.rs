//! `temper bench product`: our matrix products against the `gemm` crate's on the CPU, on a GPU each of our kernels and burn's.
//! Each is checked, timed and told by itself, so that one that is wrong or not there costs only its own figure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use burn::tensor::Tensor;
use serde::Serialize;
use serde_json::json;
use temper_engine::inside::kernels::calibration::self_test;
use temper_engine::inside::kernels::cpu::matmul::{Layout, Sizes, matmul, matmul_by_gemm};
use temper_engine::inside::kernels::matmul::{AsOperand, Operand, Product};
use temper_engine::inside::kernels::tensor;
use temper_engine::inside::model::parameter::from_host;
use temper_engine::inside::rng::Rng;
use temper_engine::products::Multiplier;
use temper_engine::{Device, wait};

use super::{TOLERANCE, check_shape, normal, spread};
use crate::cli::{BenchProductArgs, ProductLayout};
use crate::output;

/// Seconds that a timed repetition should last, so that starting and waiting for it do not count.
const REPETITION_S: f64 = 0.02;

/// One kernel's result. One JSON line.
#[derive(Debug, Serialize)]
struct Measurement {
    bench: &'static str,
    kernel: &'static str,
    layout: &'static str,
    shape: String,
    device: String,
    /// Largest difference of the product's rows, each weighted by the same random signs and summed, from those of an f64
    /// reference, relative to the largest of them.
    error: f64,
    /// Median seconds of a product, and the fastest and slowest repetition's.
    median_s: f64,
    min_s: f64,
    max_s: f64,
    gflops: f64,
}

/// The matrices as they are stored.
struct Problem {
    layout: ProductLayout,
    sizes: Sizes,
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Problem {
    fn new(layout: ProductLayout, [m, k, n]: [usize; 3]) -> Self {
        let mut rng = Rng::new(7);
        let (left, right) = (normal(&mut rng, m * k, 1.0), normal(&mut rng, k * n, 1.0));
        Self { layout, sizes: Sizes { m, n, k }, left, right }
    }

    fn transposed(&self) -> (bool, bool) {
        (self.layout == ProductLayout::Tn, self.layout == ProductLayout::Nt)
    }

    /// How slices hold the operands.
    fn layouts(&self) -> (Layout, Layout) {
        let Sizes { m, n, k } = self.sizes;
        let layout = |transposed, rows, columns| match transposed {
            true => Layout::transposed(rows),
            false => Layout::rows(columns),
        };
        let (left, right) = self.transposed();
        (layout(left, m, k), layout(right, k, n))
    }

    /// The matrices on a device.
    fn tensors(&self, device: &Device) -> [Tensor<2>; 2] {
        let Sizes { m, n, k } = self.sizes;
        let tensor = |values: &Vec<f32>, transposed, rows: usize, columns: usize| {
            from_host(values.clone(), if transposed { [columns, rows] } else { [rows, columns] }, device)
        };
        let (left, right) = self.transposed();
        [tensor(&self.left, left, m, k), tensor(&self.right, right, k, n)]
    }

    /// Error of a result without a second product: `C v` is `A (B v)` for any v, and one of random signs shows every wrong
    /// element in its row (Freivalds 1977).
    fn error(&self, product: &[f32]) -> f64 {
        let Sizes { m, n, k } = self.sizes;
        let mut rng = Rng::new(11);
        let signs: Vec<f64> = (0..n).map(|_| if rng.below(2) == 0 { -1.0 } else { 1.0 }).collect();
        let ((left_row, left_step), (right_step, right_column)) = {
            let (left, right) = self.layouts();
            (left.strides(), right.strides())
        };
        let right: Vec<f64> = (0..k)
            .map(|p| (0..n).map(|j| f64::from(self.right[p * right_step + j * right_column]) * signs[j]).sum())
            .collect();
        let (mut worst, mut largest) = (0.0f64, f64::MIN_POSITIVE);
        for i in 0..m {
            let want: f64 = (0..k).map(|p| f64::from(self.left[i * left_row + p * left_step]) * right[p]).sum();
            let got: f64 = product[i * n..(i + 1) * n].iter().zip(&signs).map(|(c, sign)| f64::from(*c) * sign).sum();
            let difference = (got - want).abs();
            if !(difference <= worst) {
                worst = if difference.is_nan() { f64::INFINITY } else { difference };
            }
            largest = largest.max(want.abs());
        }
        worst / largest
    }
}

/// Who computes a product.
enum Kernel {
    /// A function on slices, for the CPU.
    Slices(&'static str, CpuProduct),
    /// One of our kernels on a GPU.
    Ours(Multiplier),
    /// burn's on a GPU.
    Burn,
}

type CpuProduct = fn(&[f32], Layout, &[f32], Layout, Sizes, f32, bool, &mut [f32], usize);

/// Computes a product so many times and waits for the last.
type Run<'a> = Box<dyn FnMut(usize) -> Result<()> + 'a>;

impl Kernel {
    /// All that there are on a kind of device. Tensor cores are the last, since a driver may not survive them.
    fn all(cpu: bool) -> Vec<Self> {
        if cpu {
            return vec![Self::Slices("temper", matmul), Self::Slices("gemm", matmul_by_gemm)];
        }
        let (single, halving): (Vec<_>, Vec<_>) =
            Multiplier::ALL.into_iter().partition(|multiplier| multiplier.segments() == 0);
        let ours = |kernels: Vec<Multiplier>| kernels.into_iter().map(Self::Ours);
        ours(single).chain([Self::Burn]).chain(ours(halving)).collect()
    }

    fn name(&self) -> &'static str {
        match *self {
            Self::Slices(name, _) => name,
            Self::Ours(multiplier) => multiplier.name(),
            Self::Burn => "burn",
        }
    }

    /// Why a device has no such kernel.
    fn missing(&self, device: &Device) -> Option<&'static str> {
        let halves = matches!(self, Self::Ours(multiplier) if multiplier.segments() > 0);
        let missing = halves && !device.has_cooperative_matrices();
        missing.then_some("the device has no cooperative matrices with f16 operands and f32 sums")
    }

    /// Its way to compute a product, and the error of the first one.
    fn prepare<'a>(&self, problem: &'a Problem, device: &'a Device) -> Result<(f64, Run<'a>)> {
        let multiplier = match *self {
            Self::Slices(_, multiply) => return Ok(on_slices(problem, multiply)),
            Self::Ours(multiplier) => Some(multiplier),
            Self::Burn => None,
        };
        if let Some(multiplier) = multiplier.filter(|multiplier| multiplier.segments() > 0)
            && let Some(problem) = self_test(device, multiplier)?
        {
            bail!("{problem}");
        }
        let [left, right] = problem.tensors(device);
        let (left_transposed, right_transposed) = problem.transposed();
        let product = move || -> Result<Tensor<2>> {
            let Some(multiplier) = multiplier else {
                let turned = |tensor: &Tensor<2>, transposed| match transposed {
                    true => tensor.clone().transpose(),
                    false => tensor.clone(),
                };
                return Ok(turned(&left, left_transposed).matmul(turned(&right, right_transposed)));
            };
            let turned = |tensor: &Tensor<2>, transposed| -> Operand<2> {
                if transposed { tensor.transposed() } else { tensor.into() }
            };
            let (left, right) = (turned(&left, left_transposed), turned(&right, right_transposed));
            Ok(Product::of(left, right).by(multiplier).run(device)?)
        };
        let error = problem.error(&wait(tensor::read(&product()?))?);
        let run: Run = Box::new(move |count| {
            (0..count).try_for_each(|_| product().map(drop))?;
            Ok(device.sync()?)
        });
        Ok((error, run))
    }
}

fn on_slices(problem: &Problem, multiply: CpuProduct) -> (f64, Run<'_>) {
    let Sizes { m, n, .. } = problem.sizes;
    let (left, right) = problem.layouts();
    let mut c = vec![f32::NAN; m * n];
    let product = move |c: &mut [f32]| {
        multiply(&problem.left, left, &problem.right, right, problem.sizes, 1.0, false, c, n);
    };
    product(&mut c);
    let error = problem.error(&c);
    let run: Run = Box::new(move |count| {
        (0..count).for_each(|_| product(&mut c));
        Ok(())
    });
    (error, run)
}

/// The error of a kernel's product, and the seconds of one in each repetition.
///
/// # Errors
/// Where it is wrong, before it is timed; what the device refuses.
fn timed(kernel: &Kernel, problem: &Problem, device: &Device, repeat: usize) -> Result<(f64, Vec<f64>)> {
    let (error, mut run) = kernel.prepare(problem, device)?;
    if !(error <= TOLERANCE) {
        bail!("differs from the reference by {error:.1e} of its largest element; it was not timed");
    }
    let mut seconds_each = |count: usize| -> Result<f64> {
        let start = Instant::now();
        run(count)?;
        Ok(start.elapsed().as_secs_f64() / count as f64)
    };
    let count = ((REPETITION_S / seconds_each(1)?).ceil() as usize).clamp(1, 1000);
    let seconds = (0..repeat).map(|_| seconds_each(count)).collect::<Result<Vec<f64>>>()?;
    Ok((error, seconds))
}

/// What `work` gives. A kernel that a driver refuses ends in a panic, which here is an error like others.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|said| {
        let text = said.downcast_ref::<String>().map(String::as_str).or(said.downcast_ref::<&str>().copied());
        Err(anyhow!("{}", text.unwrap_or("it panicked")))
    })
}

/// Runs the benchmark and prints.
pub fn run(device: &Device, args: &BenchProductArgs) -> Result<()> {
    let [m, k, n] = args.shape;
    let (shape, layout, json) = (format!("{m}x{k}x{n}"), args.layout.name(), args.timing.json);
    // Operands as they were drawn and as a contender holds them.
    check_shape(&shape, &[(m, k, 3), (k, n, 3), (m, n, 3)])?;
    let problem = Problem::new(args.layout, args.shape);
    let tell = |kernel: &str, problem: &str| match json {
        true => output::json(&json!({
            "bench": "product", "kernel": kernel, "layout": layout, "shape": shape, "device": device.name(),
            "problem": problem,
        })),
        false => output::text(&format!("{kernel:<12} {problem}\n")),
    };
    let mut failed = Vec::new();
    for contender in Kernel::all(device.is_cpu()) {
        let kernel = contender.name();
        if let Some(why) = contender.missing(device) {
            tell(kernel, why)?;
            continue;
        }
        let (error, seconds) = match caught(|| timed(&contender, &problem, device, args.timing.repeat)) {
            Ok(timed) => timed,
            Err(error) => {
                tell(kernel, &format!("{error:#}"))?;
                failed.push(kernel);
                continue;
            }
        };
        let [min_s, median_s, max_s] = spread(seconds);
        let line = Measurement {
            bench: "product",
            kernel,
            layout,
            shape: shape.clone(),
            device: device.name().into(),
            error,
            median_s,
            min_s,
            max_s,
            gflops: 2.0 * m as f64 * n as f64 * k as f64 / median_s / 1e9,
        };
        if json {
            output::json(&line)?;
        } else {
            output::text(&format!(
                "{kernel:<12} {:>10.3} ms ({:.3} to {:.3})  {:>8.1} GFLOP/s  error {error:.1e}\n",
                median_s * 1e3,
                line.min_s * 1e3,
                line.max_s * 1e3,
                line.gflops,
            ))?;
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("wrong or refused: {}", failed.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_a_refused_and_a_missing_kernel_cost_their_own_figure_alone() {
        let device = Device::cpu();
        let problem = Problem::new(ProductLayout::Nt, [3, 5, 4]);
        let right = Kernel::Slices("right", matmul);
        let (error, seconds) = timed(&right, &problem, &device, 2).unwrap();
        assert!(error <= TOLERANCE && seconds.len() == 2, "{error}");

        let broken: CpuProduct = |left, a, right, b, sizes, alpha, add, c, stride| {
            matmul(left, a, right, b, sizes, alpha, add, c, stride);
            c[7] = f32::NAN;
        };
        let problem_of = |kernel| caught(|| timed(&kernel, &problem, &device, 2)).unwrap_err().to_string();
        assert!(problem_of(Kernel::Slices("broken", broken)).contains("differs from the reference by inf"));
        let refused: CpuProduct = |_, _, _, _, _, _, _, _, _| std::panic::resume_unwind(Box::new("refused"));
        assert_eq!(problem_of(Kernel::Slices("refused", refused)), "refused");

        // The last ones, and no others.
        let missing: Vec<_> = Kernel::all(false).iter().map(|kernel| kernel.missing(&device).is_some()).collect();
        assert_eq!(missing, [false, false, false, false, true, true]);
    }
}
