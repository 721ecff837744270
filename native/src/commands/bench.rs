//! `temper bench`: time and memory, measured after the results were checked.
//!
//! Every variant of one benchmark runs in one process on one device, so that their ratio means something. A variant whose
//! result is wrong is reported as an error and not timed.

mod capacity;
mod data;
mod eval;
mod generate;
mod hardware;
mod product;
mod profile;
mod scan;

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};
use burn::tensor::{Int, Tensor, TensorData, activation};
use serde::Serialize;
use temper_engine::configuration::ObjectiveSection;
use temper_engine::events::RowStats;
use temper_engine::inside::data::{IGNORE, MicroBatch};
use temper_engine::inside::kernels;
use temper_engine::inside::kernels::profile::shares;
use temper_engine::inside::kernels::statistics::Selection;
use temper_engine::inside::kernels::{Columns, Indices, tensor};
use temper_engine::inside::loss::{head, ready};
use temper_engine::inside::model::Keep;
use temper_engine::inside::model::adapter::LoraSettings;
use temper_engine::inside::model::parameter::{Parameter, from_host};
use temper_engine::inside::model::vocabulary::{Tile, VocabularyMatrix};
use temper_engine::inside::rng::Rng;
use temper_engine::inside::train::optimiser::AdamW;
use temper_engine::models::Hold;
use temper_engine::products::Compute;
use temper_engine::{Device, Error, ModelFiles, Objective, Session, wait};

use crate::cli::{Bench, BenchArgs, BenchHeadArgs, BenchLossArgs, BenchStepArgs, BenchWebArgs, Global, Timing};
use crate::files::web_sources;
use crate::inputs::{open_model, read_data};
use crate::memory;
use crate::output;
use crate::plan::Since;

/// Largest difference, relative to the largest element, that counts as the same result.
const TOLERANCE: f64 = 1e-3;
/// The same of a loss whose products are in half precision: gradients differ by more, after many blocks.
const HALVED_LOSS_TOLERANCE: f64 = 5e-3;

/// One variant's result. One JSON line.
#[derive(Debug, Serialize)]
struct Measurement {
    bench: &'static str,
    variant: String,
    shape: String,
    device: String,
    /// How wide matrix products were computed, where that could be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    products: Option<&'static str>,
    /// Median seconds of a repetition.
    median_s: f64,
    /// Fastest and slowest repetition.
    min_s: f64,
    max_s: f64,
    tokens_per_second: f64,
    /// Highest memory during the variant above what it began with (CPU), or what the device's pools reserve (GPU).
    peak_bytes: u64,
    /// Largest difference from the reference before timing, relative to the reference's largest element.
    error: f64,
    /// Submissions to a GPU in one repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    submissions: Option<u64>,
}

/// Runs the command.
pub fn run(args: BenchArgs, global: &Global) -> Result<()> {
    let device = || Device::choose(global.device.as_deref(), &Since::now()).map(|(device, _)| device);
    let (timing, measured) = match args.what {
        Bench::Head(args) => (args.timing.clone(), bench_head(&device()?, &args)?),
        Bench::Step(args) => (args.timing.clone(), bench_step(&device()?, &args)?),
        Bench::Loss(args) => (args.timing.clone(), bench_loss(&device()?, &args)?),
        Bench::Generate(args) => (args.timing.clone(), generate::bench_generate(&device()?, &args)?),
        Bench::Scan(args) => return scan::run(&device()?, &args),
        Bench::Eval(args) => return eval::run(&device()?, &args),
        Bench::Data(args) => return data::run(&args),
        Bench::Capacity(args) => return capacity::run(&args),
        Bench::Hardware(args) => return hardware::run(&args, global.device.as_deref()),
        Bench::Product(args) => return product::run(&device()?, &args),
        // The browser chooses the device, and the script prints.
        Bench::Web(args) => return bench_web(&args),
    };
    for m in &measured {
        if timing.json {
            output::json(m)?;
        } else {
            output::text(&format!(
                "{:<28} {:>10.1} ms ({:.1} to {:.1})  {:>10.0} tokens/s  {:>8.1} MiB  error {:.1e}{}\n",
                m.variant,
                m.median_s * 1e3,
                m.min_s * 1e3,
                m.max_s * 1e3,
                m.tokens_per_second,
                m.peak_bytes as f64 / f64::from(1 << 20),
                m.error,
                m.products.map_or(String::new(), |products| format!("  products {products}"))
            ))?;
        }
    }
    Ok(())
}

/// The smallest of these numbers, their median, and the largest; NaN of none.
fn spread(mut numbers: Vec<f64>) -> [f64; 3] {
    numbers.sort_by(f64::total_cmp);
    let at = |index: usize| numbers.get(index).copied().unwrap_or(f64::NAN);
    let last = numbers.len().saturating_sub(1);
    [at(0), (at(last / 2) + at(last.div_ceil(2))) / 2.0, at(last)]
}

/// A variant that was timed in turns with others: what their JSON lines have in common.
#[derive(Debug, Serialize)]
struct InTurns {
    bench: &'static str,
    variant: &'static str,
    shape: String,
    device: String,
    median_s: f64,
    min_s: f64,
    max_s: f64,
    /// Median over the turns of this variant's time over that of the first one in the same turn.
    ratio: f64,
}

impl InTurns {
    /// Of the seconds that it and the first variant took in each turn.
    fn of(
        bench: &'static str,
        variant: &'static str,
        shape: &str,
        device: &Device,
        own: &[f64],
        first: &[f64],
    ) -> Self {
        let [_, ratio, _] = spread(own.iter().zip(first).map(|(own, first)| own / first).collect());
        let [min_s, median_s, max_s] = spread(own.to_vec());
        Self { bench, variant, shape: shape.into(), device: device.name().into(), median_s, min_s, max_s, ratio }
    }
}

fn objective(method: &str) -> Result<Objective, Error> {
    Objective::from_section(&ObjectiveSection::from_overrides(method, &[])?)
}

/// Times `body` and watches its memory; `tokens` per repetition.
fn measure(
    device: &Device,
    timing: &Timing,
    bench: &'static str,
    variant: &str,
    shape: &str,
    tokens: usize,
    error: f64,
    body: &mut dyn FnMut() -> Result<()>,
) -> Result<Measurement> {
    measure_prepared(device, timing, bench, variant, shape, tokens, error, &mut || Ok(()), body)
}

/// As [`measure`], with something to be done before each repetition that is not timed.
fn measure_prepared(
    device: &Device,
    timing: &Timing,
    bench: &'static str,
    variant: &str,
    shape: &str,
    tokens: usize,
    error: f64,
    prepare: &mut dyn FnMut() -> Result<()>,
    body: &mut dyn FnMut() -> Result<()>,
) -> Result<Measurement> {
    prepare()?;
    // What was checked before must not hide what is needed now.
    device.release_unused();
    memory::reset_peak();
    let before = memory::resident_bytes();
    body()?;
    let mut submissions = None;
    let mut seconds = Vec::new();
    for _ in 0..timing.repeat {
        prepare()?;
        let submitted = device.submissions();
        let start = Instant::now();
        body()?;
        seconds.push(start.elapsed().as_secs_f64());
        submissions = (!device.is_cpu()).then(|| device.submissions() - submitted);
    }
    let [min_s, median_s, max_s] = spread(seconds);
    Ok(Measurement {
        bench,
        variant: variant.into(),
        shape: shape.into(),
        device: device.name().into(),
        products: None,
        median_s,
        min_s,
        max_s,
        tokens_per_second: tokens as f64 / median_s,
        peak_bytes: match device.is_cpu() {
            true => memory::peak_resident_bytes().saturating_sub(before),
            false => device.reserved_bytes().unwrap_or(0),
        },
        error,
        submissions,
    })
}

fn normal(rng: &mut Rng, count: usize, scale: f64) -> Vec<f32> {
    (0..count).map(|_| (rng.normal() * scale) as f32).collect()
}

/// Largest difference relative to the reference's largest element; NaN counts as infinite.
fn difference(got: &[f32], want: &[f32]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let mut worst = 0.0f64;
    for (g, w) in got.iter().zip(want) {
        let d = f64::from((g - w).abs());
        if !(d <= worst) {
            worst = if d.is_nan() { f64::INFINITY } else { d };
        }
    }
    worst / f64::from(largest.max(f32::MIN_POSITIVE))
}

/// Refuses a shape that this machine has no memory for: matrices of f32 by rows, columns and how often they are there.
fn check_shape(shape: &str, matrices: &[(usize, usize, u64)]) -> Result<(), Error> {
    let bytes = matrices.iter().fold(0_u64, |sum, &(rows, columns, copies)| {
        sum.saturating_add((rows as u64).saturating_mul(columns as u64).saturating_mul(4 * copies))
    });
    memory::check(shape, bytes, "measure a smaller shape")
}

fn refuse(what: &str, error: f64) -> Result<()> {
    refuse_above(what, error, TOLERANCE)
}

fn refuse_above(what: &str, error: f64, tolerance: f64) -> Result<()> {
    if !(error <= tolerance) {
        bail!(
            "{what} is wrong: it differs from the reference by {error:.1e} of its largest element; nothing was timed"
        );
    }
    Ok(())
}

/// Loss and hidden gradient of EAFT from hidden states: ours, ours with SFT, and the same in plain tensor operations
/// under autodiff.
fn bench_head(device: &Device, args: &BenchHeadArgs) -> Result<Vec<Measurement>> {
    let (rows, hidden, vocab) = (args.rows, args.hidden, args.vocab);
    let shape = format!("[{rows}, {hidden}] x [{vocab}, {hidden}]");
    // The plain operations keep logits and their gradient in several forms.
    check_shape(&shape, &[(rows, hidden, 4), (vocab, hidden, 4), (rows, vocab, 6)])?;
    let mut rng = Rng::new(7);
    let x = from_host(normal(&mut rng, rows * hidden, 1.0), [rows, hidden], device);
    let weight = normal(&mut rng, vocab * hidden, 2.5 / (hidden as f64).sqrt());
    let labels: Vec<u32> = (0..rows).map(|_| rng.below(vocab) as u32).collect();
    let at_once = temper_engine::inside::loss::plan::columns_per_tile(hidden, vocab, device.max_binding_bytes())?;
    let tiles = weight.chunks(at_once * hidden).enumerate().map(|(index, rows)| {
        let value = from_host(rows.to_vec(), [rows.len() / hidden, hidden], device);
        Tile { start: index * at_once, weight: Parameter::new("head", value, false).into() }
    });
    let mut matrix = VocabularyMatrix::new(tiles.collect());
    drop(weight);
    let tiles: Vec<Tensor<2>> =
        matrix.tiles().iter().filter_map(|t| t.weight.parameter()).map(|p| p.value.single().clone()).collect();
    let label = Tensor::<1, Int>::from_data(
        TensorData::new(labels.iter().map(|&l| l as i32).collect::<Vec<_>>(), [rows]),
        device.burn(),
    );
    let mut ours = |objective: &Objective| -> Result<Vec<f32>> {
        let batch = objective.without_batch(vocab);
        let (output, dhidden) = head::gradient(device, &mut matrix, &x, &labels, objective, &batch, 1.0 / rows as f32)?;
        wait(output.rows())?;
        Ok(wait(tensor::read(&dhidden))?)
    };
    let mut checked = Vec::new();
    for (name, method) in [("temper eaft", "eaft"), ("temper sft", "sft")] {
        let objective = objective(method)?;
        let want = plain_head(&x, &tiles, &label, method == "eaft")?;
        let error = difference(&ours(&objective)?, &want);
        refuse(&format!("the head's gradient of {method}"), error)?;
        checked.push((name, objective, error));
    }
    let mut measured = Vec::new();
    for (name, objective, error) in &checked {
        let body = &mut || ours(objective).map(drop);
        measured.push(measure(device, &args.timing, "head", name, &shape, rows, *error, body)?);
    }
    let body = &mut || plain_head(&x, &tiles, &label, true).map(drop);
    measured.push(measure(device, &args.timing, "head", "plain burn operations", &shape, rows, 0.0, body)?);
    Ok(measured)
}

/// SFT, or EAFT where `gated`, in burn's own operations, differentiated by burn: what one would write without this engine.
fn plain_head(x: &Tensor<2>, tiles: &[Tensor<2>], labels: &Tensor<1, Int>, gated: bool) -> Result<Vec<f32>> {
    let rows = x.dims()[0];
    let device = x.device().autodiff();
    let x = Tensor::<2>::from_data(x.to_data(), &device).require_grad();
    let products: Vec<Tensor<2>> =
        tiles.iter().map(|w| x.clone().matmul(Tensor::from_inner(w.clone()).transpose())).collect();
    let logits = Tensor::cat(products, 1);
    let gate = gated.then(|| {
        let log_q = activation::log_softmax(logits.clone().detach().topk(20, 1), 1);
        (log_q.clone().exp() * log_q).sum_dim(1).neg().div_scalar(20f32.ln()).detach()
    });
    let labels = labels.clone().reshape([rows, 1]).to_device(&device);
    let ce = activation::log_softmax(logits, 1).gather(1, labels).neg();
    let weighted = match gate {
        Some(gate) => ce * gate,
        None => ce,
    };
    let gradients = weighted.sum().div_scalar(rows as f32).backward();
    let Some(dx) = x.grad(&gradients) else { bail!("burn gave no gradient") };
    Ok(wait(tensor::read(&dx))?)
}

/// One training step with LoRA on all linear layers: the objective and SFT beside it. What is compared with the CPU first
/// has products in single precision, whatever is timed then: half precision differs by more than a wrong kernel may.
fn bench_step(device: &Device, args: &BenchStepArgs) -> Result<Vec<Measurement>> {
    let (settled, said) = match args.compute {
        Compute::F32 => (device.clone(), Vec::new()),
        compute => device.computing(compute, &Since::now())?,
    };
    said.iter().for_each(|line| tracing::warn!("{line}"));
    let files = open_model(&args.model)?;
    let tokenizer = files.tokenizer()?;
    let text = String::from_utf8(read_data("embedded:general.txt")?)?;
    let ids = tokenizer.encode(&text)?;
    if ids.len() <= args.tokens {
        let problem = format!("--tokens: the embedded text has only {} for this tokenizer; ask for fewer", ids.len());
        return Err(Error::Config { problems: vec![problem] }.into());
    }
    let batch = scored(&ids[..args.tokens]);
    let checked_batch = scored(&ids[..args.check_tokens.unwrap_or(args.tokens).min(args.tokens)]);
    let shape = format!("1 x {} tokens, LoRA rank {}", args.tokens, args.rank);
    let mut methods = vec![args.objective.as_str()];
    if args.objective != "sft" {
        methods.push("sft");
    }
    let mut checked = Vec::new();
    let mut losses: Vec<f32> = Vec::new();
    for method in methods {
        let (error, loss) = check_step(&files, device, args.rank, method, &checked_batch)?;
        losses.push(loss as f32);
        checked.push((method, error));
    }
    // The same weights and tokens: the ungated loss may not depend on the objective.
    refuse("the loss of one of the objectives", difference(&losses, &vec![losses[0]; losses.len()]))?;
    let device = &settled;
    let products = device.precision();
    let mut measured = Vec::new();
    for ((method, mut error), loss) in checked.into_iter().zip(losses) {
        let mut session = step_session(&files, device, args.rank, method)?;
        if args.compute != Compute::F32 {
            let keep = session.keep;
            let halved = Gradients::of(&mut session, &checked_batch, keep)?.cross_entropy;
            let off = difference(&[halved as f32], &[loss]);
            refuse_above(&format!("the loss of {method} with products {products}"), off, HALVED_LOSS_TOLERANCE)?;
            error = error.max(off);
        }
        let name = format!("temper {method}");
        let timed = measure(device, &args.timing, "step", &name, &shape, args.tokens, error, &mut || {
            wait(session.step(std::slice::from_ref(&batch), 1e-4))?;
            Ok(device.sync()?)
        })?;
        measured.push(Measurement { products: Some(products), ..timed });
    }
    if args.profile {
        let mut session = step_session(&files, device, args.rank, &args.objective)?;
        let mut step = || -> Result<()> {
            wait(session.step(std::slice::from_ref(&batch), 1e-4))?;
            Ok(device.sync()?)
        };
        // Pipelines are compiled in the first one.
        step()?;
        device.begin_profile()?;
        let done = step();
        let times = wait(device.end_profile());
        done?;
        let times = times?;
        let shares = shares(&times);
        if args.timing.json {
            shares.iter().map(profile::Line::from).try_for_each(|line| output::json(&line))?;
        } else {
            output::text(&profile::table(&shares))?;
        }
        if let Some(file) = &args.trace {
            profile::write_trace(&times, device.name(), file)?;
        }
    }
    Ok(measured)
}

/// One document of which every token is scored.
fn scored(ids: &[u32]) -> MicroBatch {
    let mut batch = MicroBatch::whole(ids);
    batch.labels = ids[1..].iter().map(|&t| t as i32).chain([IGNORE]).collect();
    batch
}

/// A session with LoRA on all linear layers. `B` is not 0, as it is where training begins: the gradients of all `A` would
/// be 0 then, and there would be nothing to compare.
fn step_session(files: &ModelFiles, device: &Device, rank: usize, method: &str) -> Result<Session> {
    let (mut model, objective) = (files.load(device, Hold::Auto, false, 0)?, objective(method)?);
    let untouched = objective.needs_untouched().then(|| model.clone());
    let alpha = 2.0 * rank as f64;
    let settings = LoraSettings { rank, alpha, rslora: false, dropout: 0.0, targets: Vec::new(), some_layers: false };
    model.add_lora(&settings, 0)?;
    let mut rng = Rng::new(11);
    model.visit_mut(&mut |p| {
        if p.trained && p.parts[0].name.ends_with("lora_B.weight") {
            p.value = from_host(normal(&mut rng, p.count(), 0.02), p.value.dims(), device).into();
        }
        Ok(())
    })?;
    let optimiser = AdamW { max_grad_norm: 1.0, ..AdamW::default() };
    // Of the one document that a step has.
    let sample_weights = vec![0.5];
    Ok(Session { untouched, sample_weights, ..Session::new(model, objective, optimiser) })
}

/// The gradients of a step: with every block run twice against the same with everything kept, which takes another path
/// through the memory, and, on a GPU, against the CPU backend. Gives the largest difference and the ungated loss.
fn check_step(
    files: &ModelFiles,
    device: &Device,
    rank: usize,
    method: &str,
    batch: &MicroBatch,
) -> Result<(f64, f64)> {
    let mut session = step_session(files, device, rank, method)?;
    let once = Gradients::of(&mut session, batch, Keep::Everything)?;
    let again = Gradients::of(&mut session, batch, Keep::Inputs)?;
    drop(session);
    let mut error = again.difference(&once);
    refuse(&format!("a step of {method} that runs every block twice"), error)?;
    if !device.is_cpu() {
        let mut reference = step_session(files, &Device::cpu(), rank, method)?;
        let difference = once.difference(&Gradients::of(&mut reference, batch, Keep::Everything)?);
        refuse(&format!("a step of {method} against the CPU backend"), difference)?;
        error = error.max(difference);
    }
    Ok((error, once.cross_entropy))
}

/// What a step would change.
struct Gradients {
    /// Ungated, in nats per token.
    cross_entropy: f64,
    /// Of each trained parameter, in their order.
    values: Vec<Vec<f32>>,
}

impl Gradients {
    /// Takes the gradients of a batch; the session is as before.
    fn of(session: &mut Session, batch: &MicroBatch, keep: Keep) -> Result<Self> {
        session.keep = keep;
        let outcome = wait(session.gradients(std::slice::from_ref(batch)))?;
        let mut tensors = Vec::new();
        session.model.visit_mut(&mut |p| {
            tensors.extend(p.gradient.take());
            Ok(())
        })?;
        let values = tensors.iter().map(|tensor| wait(tensor::read(tensor))).collect::<temper_engine::Result<_>>()?;
        Ok(Self { cross_entropy: outcome.cross_entropy, values })
    }

    /// The largest difference of one parameter's gradient, relative to that gradient's largest element, or of the loss.
    fn difference(&self, want: &Self) -> f64 {
        if self.values.len() != want.values.len() || want.values.is_empty() {
            return f64::INFINITY;
        }
        let loss = difference(&[self.cross_entropy as f32], &[want.cross_entropy as f32]);
        self.values.iter().zip(&want.values).map(|(got, want)| difference(got, want)).fold(loss, f64::max)
    }
}

/// Loss and gradient on logits that are already there, written over them.
fn bench_loss(device: &Device, args: &BenchLossArgs) -> Result<Vec<Measurement>> {
    let (rows, vocab) = (args.rows, args.vocab);
    let shape = format!("[{rows}, {vocab}]");
    check_shape(&shape, &[(rows, vocab, 4)])?;
    let mut rng = Rng::new(7);
    let logits = normal(&mut rng, rows * vocab, 2.5);
    let labels: Vec<u32> = (0..rows).map(|_| rng.below(vocab) as u32).collect();
    let bytes = rows as u64 * vocab as u64 * 4;
    if bytes > device.max_binding_bytes() {
        let advice = "take fewer --rows, or a smaller --vocab".into();
        let (adapter, allowed) = (device.name().into(), device.max_binding_bytes());
        return Err(Error::Limit { what: format!("{shape} logits"), needed: bytes, allowed, adapter, advice }.into());
    }
    let mut methods = vec![args.objective.clone()];
    if args.objective != "sft" {
        methods.push("sft".into());
    }
    let mut measured = Vec::new();
    for method in &methods {
        let objective = objective(method)?;
        if objective.needs_batch() || objective.needs_untouched() {
            let problem = format!(
                "--objective {method}: needs more than a row's logits; measure it with temper bench step --objective {method}"
            );
            return Err(Error::Config { problems: vec![problem] }.into());
        }
        let error = check_loss(device, &logits, &labels, vocab, &objective)?;
        refuse("the gradient", error)?;
        let batch = objective.without_batch(vocab);
        let gate = objective.gate_params(&batch);
        let indices = Indices::new(device, labels.clone());
        let name = format!("temper {method}");
        // The logits are overwritten, so each repetition gets fresh ones in the same memory, outside the time.
        let tensor = RefCell::new(from_host(logits.clone(), [rows, vocab], device));
        let mut prepare = || -> Result<()> {
            let old = tensor.replace(from_host(vec![0.0], [1, 1], device));
            drop(old);
            tensor.replace(from_host(logits.clone(), [rows, vocab], device));
            device.sync()?;
            Ok(())
        };
        let mut body = || -> Result<()> {
            let z = tensor.replace(from_host(vec![0.0], [1, 1], device));
            let stats = kernels::statistics::of_tiles(device, &[&z], &indices, head::top_k(&objective))?;
            let weight = kernels::gate::weights(device, &stats.fields, &gate, 1.0 / rows as f32)?;
            let z = kernels::loss_gradient::over_logits(device, z, 0, &indices, &weight, &stats.fields)?;
            // Reading a row's statistics back waits for the work on any device.
            wait(tensor::read(&stats.fields))?;
            device.sync()?;
            tensor.replace(z);
            Ok(())
        };
        measured.push(measure_prepared(
            device,
            &args.timing,
            "loss",
            &name,
            &shape,
            rows,
            error,
            &mut prepare,
            &mut body,
        )?);
    }
    // What the memory allows: the logits read once and written once, where a loss reads them twice and writes them once.
    let z = from_host(logits, [rows, vocab], device);
    let all = Columns { offset: 0, width: vocab };
    let mut copy = || -> Result<()> {
        drop(kernels::elementwise::columns(device, &z, all)?);
        Ok(device.sync()?)
    };
    measured.push(measure(device, &args.timing, "loss", "copy of the logits", &shape, rows, 0.0, &mut copy)?);
    Ok(measured)
}

/// Our gradient of a few rows against f64.
fn check_loss(device: &Device, logits: &[f32], labels: &[u32], vocab: usize, objective: &Objective) -> Result<f64> {
    let rows = labels.len().min(8);
    let batch = objective.without_batch(vocab);
    let wide: Vec<i64> = labels[..rows].iter().map(|&l| i64::from(l)).collect();
    let ours = wait(ready::evaluate(device, logits[..rows * vocab].to_vec(), &wide, vocab, objective))?;
    let mut want = Vec::with_capacity(rows * vocab);
    for row in 0..rows {
        let z = &logits[row * vocab..][..vocab];
        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = z.iter().map(|&v| f64::from(v - max).exp()).sum();
        let mut sorted = z.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let Selection::Top(k) = head::top_k(objective) else { bail!("a benchmark takes a K that is a number") };
        sorted.truncate(k);
        let top: f64 = sorted.iter().map(|&v| f64::from(v - max).exp()).sum();
        let entropy: f64 = sorted.iter().map(|&v| f64::from(v - max).exp() / top).map(|q| -q * q.ln()).sum();
        let full: f64 = z.iter().map(|&v| f64::from(v - max)).map(|d| d.exp() / sum * (sum.ln() - d)).sum();
        let stats = RowStats {
            ce: (sum.ln() + f64::from(max - z[labels[row] as usize])) as f32,
            entropy_top_k: entropy as f32,
            entropy_tokens: sorted.len() as u32,
            entropy_full: full as f32,
            collision: (z.iter().map(|&v| f64::from(2.0 * (v - max)).exp()).sum::<f64>() / (sum * sum)) as f32,
        };
        let weight = f64::from(objective.weight(&stats, &batch));
        for (column, &v) in z.iter().enumerate() {
            let p = f64::from(v - max).exp() / sum;
            let onehot = f64::from(u8::from(column == labels[row] as usize));
            want.push((weight * (p - onehot) / rows as f64) as f32);
        }
    }
    Ok(difference(&ours.gradient, &want))
}

/// The page in Chromium against TensorFlow.js, which a script in the source tree measures: its lines are this command's.
fn bench_web(args: &BenchWebArgs) -> Result<()> {
    let web = web_sources();
    let folder = web.join("bench");
    let packages = format!(
        "TensorFlow.js and what drives the browser are not here; run:\n  npm ci --no-audit --no-fund --prefix {}",
        output::quoted(&folder)
    );
    let needed = [
        (folder.join("bench.mjs"), "not here; this benchmark runs from the source tree that built the command"),
        (
            web.join("dist/index.html"),
            "the page is not built; build it in the repository with:\n  cargo xtask web build",
        ),
        (folder.join("node_modules"), packages.as_str()),
    ];
    if let Some((path, problem)) = needed.into_iter().find(|(path, _)| !path.exists()) {
        return Err(Error::Missing { path: path.display().to_string(), problem: problem.into() }.into());
    }
    let chromium = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| starts(name));
    let (true, Some(chromium)) = (starts("node"), chromium) else {
        let problem = "not found; on Debian or Ubuntu run:\n  sudo apt-get install nodejs chromium";
        return Err(Error::Missing { path: "Node.js or Chromium".into(), problem: problem.into() }.into());
    };

    let mut script = Command::new("node");
    script.arg(folder.join("bench.mjs")).args(["--chromium", chromium]);
    script.args(["--tokens", &args.tokens.to_string(), "--repeat", &args.timing.repeat.to_string()]);
    if args.timing.json {
        script.arg("--json");
    }
    if args.workers {
        script.arg("--workers");
    }
    if !script.status()?.success() {
        bail!("the benchmark in the browser failed; the reason is above");
    }
    Ok(())
}

/// True if a program is there: it says its version.
fn starts(program: &str) -> bool {
    let quiet = Stdio::null;
    let status = Command::new(program).arg("--version").stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_smallest_the_middle_and_the_largest() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(vec![8.0, 1.0, 2.0, 3.0]), [1.0, 2.5, 8.0], "of an even number between the two middle");
        assert_eq!(spread(vec![4.0]), [4.0; 3]);
        assert!(spread(Vec::new()).iter().all(|number| number.is_nan()));
    }

    #[test]
    fn a_step_with_the_right_loss_and_wrong_gradients_is_refused() {
        let (files, device) = (open_model("embedded:base").unwrap(), Device::cpu());
        let batch = scored(&(0..24).map(|n| n * 37 % 2000).collect::<Vec<_>>());
        let gradients = |method| {
            let mut session = step_session(&files, &device, 2, method).unwrap();
            Gradients::of(&mut session, &batch, Keep::Everything).unwrap()
        };
        let (eaft, sft) = (gradients("eaft"), gradients("sft"));
        assert!(difference(&[eaft.cross_entropy as f32], &[sft.cross_entropy as f32]) < TOLERANCE, "one loss");
        assert!(refuse("a step", eaft.difference(&sft)).is_err(), "and two gradients");
        assert!(eaft.values.iter().all(|values| values.iter().any(|v| *v != 0.0)), "every gradient says something");

        let mut broken = gradients("sft");
        broken.values.last_mut().unwrap()[3] = f32::NAN;
        assert!(refuse("a step", broken.difference(&sft)).is_err());
        let (error, loss) = check_step(&files, &device, 2, "eaft", &batch).unwrap();
        assert!(error <= TOLERANCE && loss == eaft.cross_entropy, "{error}");
    }
}
