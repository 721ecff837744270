//! `temper bench product`: our matrix products against the `gemm` crate's on the CPU, on a GPU each of our kernels and burn's.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::Tensor;
use serde::Serialize;
use temper_engine::inside::kernels::cpu::matmul::{Layout, Sizes, matmul, matmul_by_gemm};
use temper_engine::inside::kernels::matmul::{AsOperand, Operand, Product};
use temper_engine::inside::kernels::tensor;
use temper_engine::inside::model::parameter::from_host;
use temper_engine::inside::rng::Rng;
use temper_engine::products::Multiplier;
use temper_engine::{Device, wait};

use super::{check_shape, normal, refuse, spread};
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

/// A kernel whose result was right.
struct Contender<'a> {
    kernel: &'static str,
    error: f64,
    /// Computes the product so many times and waits for the last.
    run: Box<dyn FnMut(usize) -> Result<()> + 'a>,
    /// Products of a repetition.
    count: usize,
    /// Seconds a product of each repetition.
    seconds: Vec<f64>,
}

impl Contender<'_> {
    fn seconds(&mut self) -> Result<f64> {
        let start = Instant::now();
        (self.run)(self.count)?;
        Ok(start.elapsed().as_secs_f64() / self.count as f64)
    }
}

/// Runs the benchmark and prints.
pub fn run(device: &Device, args: &BenchProductArgs) -> Result<()> {
    let [m, k, n] = args.shape;
    // Operands as they were drawn and as each contender holds them.
    check_shape(&format!("{m}x{k}x{n}"), &[(m, k, 3), (k, n, 3), (m, n, 3)])?;
    let problem = Problem::new(args.layout, args.shape);
    let mut contenders = if device.is_cpu() { on_cpu(&problem)? } else { on_gpu(&problem, device)? };
    for contender in &mut contenders {
        let once = contender.seconds()?;
        contender.count = ((REPETITION_S / once).ceil() as usize).clamp(1, 1000);
    }
    // In turns, so that whatever else the machine does meets all of them.
    for _ in 0..args.timing.repeat {
        for contender in &mut contenders {
            let seconds = contender.seconds()?;
            contender.seconds.push(seconds);
        }
    }
    for Contender { kernel, error, seconds, .. } in contenders {
        let [min_s, median_s, max_s] = spread(seconds);
        let Sizes { m, n, k } = problem.sizes;
        let line = Measurement {
            bench: "product",
            kernel,
            layout: args.layout.name(),
            shape: format!("{m}x{k}x{n}"),
            device: device.name().into(),
            error,
            median_s,
            min_s,
            max_s,
            gflops: 2.0 * m as f64 * n as f64 * k as f64 / median_s / 1e9,
        };
        if args.timing.json {
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
    Ok(())
}

/// Ours and the `gemm` crate's, on the same slices.
fn on_cpu(problem: &Problem) -> Result<Vec<Contender<'_>>> {
    let Sizes { m, n, .. } = problem.sizes;
    let (left, right) = problem.layouts();
    let mut contenders = Vec::new();
    for (kernel, multiply) in [("temper", matmul as CpuProduct), ("gemm", matmul_by_gemm)] {
        let mut c = vec![f32::NAN; m * n];
        let product = move |c: &mut [f32]| {
            multiply(&problem.left, left, &problem.right, right, problem.sizes, 1.0, false, c, n);
        };
        product(&mut c);
        let error = problem.error(&c);
        refuse(kernel, error)?;
        let run = Box::new(move |count| {
            (0..count).for_each(|_| product(&mut c));
            Ok(())
        });
        contenders.push(Contender { kernel, error, run, count: 1, seconds: Vec::new() });
    }
    Ok(contenders)
}

type CpuProduct = fn(&[f32], Layout, &[f32], Layout, Sizes, f32, bool, &mut [f32], usize);

/// Each of our kernels that the device has, and burn's products.
fn on_gpu<'a>(problem: &Problem, device: &Device) -> Result<Vec<Contender<'a>>> {
    let ours = Multiplier::ALL.into_iter().map(Some);
    let mut contenders = Vec::new();
    for multiplier in ours.chain([None]) {
        if multiplier == Some(Multiplier::Cooperative) && !device.has_cooperative_matrices() {
            continue;
        }
        let kernel = multiplier.map_or("burn", Multiplier::name);
        let (device, [left, right]) = (device.clone(), problem.tensors(device));
        let (left_transposed, right_transposed) = problem.transposed();
        let product = {
            let device = device.clone();
            move || -> Result<Tensor<2>> {
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
                Ok(Product::of(left, right).by(multiplier).run(&device)?)
            }
        };
        let error = problem.error(&wait(tensor::read(&product()?))?);
        refuse(kernel, error)?;
        let run = Box::new(move |count| {
            (0..count).try_for_each(|_| product().map(drop))?;
            Ok(device.sync()?)
        });
        contenders.push(Contender { kernel, error, run, count: 1, seconds: Vec::new() });
    }
    Ok(contenders)
}
