//! A self-test of a device: every kernel on a small batch, against stored answers.
//!
//! In a browser a shader that does not compile is only a line in the log, and results are silently whatever the buffer
//! held. So the page runs this before it trusts a device. The answers, `probe.safetensors`, come beside the page: a bundle
//! with a file of little-endian f32 for each kernel, those of the CPU kernels on the machine where the test in
//! `tests/tests/probe.rs` was blessed last; it compares them on every device.

use burn::tensor::Tensor;
use serde::Serialize;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::export::bundle;
use crate::kernels::attention::Shape;
use crate::kernels::cpu::gate::kind;
use crate::kernels::gate::GateParams;
use crate::kernels::matmul::{AsOperand, Product};
use crate::kernels::tensor::{flat, read_all};
use crate::kernels::{self, Columns, Indices, Packed, adamw, elementwise};
use crate::message::messages;
use crate::model::architecture::Architecture;
use crate::model::parameter::from_host;
use crate::rng::Rng;
use crate::weights::{RawTensor, WeightFormat};

/// Largest difference that passes, relative to the answer's largest element. Far above rounding, far below a wrong index.
const TOLERANCE: f32 = 2e-4;

/// What a device made of every kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// True where every kernel passed.
    pub passed: bool,
    /// A kernel each.
    pub checks: Vec<Check>,
}

messages! {
    camel_case;

    /// What a device made of one kernel.
    #[derive(Clone, Debug, Serialize)]
    pub struct Check {
        /// The kernel's stem.
        pub kernel: &'static str,
        /// True where the result is the stored one.
        pub passed: bool,
        /// Largest difference, relative to the answer's largest element; -1 where there is no finite one.
        pub error: f32,
        /// Empty, or what went wrong.
        pub message: String,
    }
}

/// Runs every kernel on `device` and compares with the stored `answers`.
///
/// # Errors
/// [`Error::Format`] where the stored answers are broken. What the device does wrong is in the report.
pub async fn run(device: &Device, answers: &[u8]) -> Result<Report> {
    let answers = stored(answers)?;
    let mut checks = Vec::new();
    for (kernel, case) in cases() {
        let (error, message) = match answer(device, case).await {
            Ok(got) => match answers.iter().find(|(name, _)| name == kernel) {
                Some((_, want)) => compare(&got, want),
                None => (-1.0, "there is no stored answer".into()),
            },
            Err(error) => (-1.0, error.to_string()),
        };
        checks.push(Check { kernel, passed: message.is_empty(), error, message });
    }
    Ok(Report { passed: checks.iter().all(|check| check.passed), checks })
}

/// A bundle of answers as `device` gives them now.
///
/// # Errors
/// Device errors.
pub async fn answers(device: &Device) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    for (kernel, case) in cases() {
        let values = answer(device, case).await?;
        files.push((kernel.to_string(), values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    bundle::pack("probe.safetensors", &files)
}

/// Largest difference relative to the largest element of `want`, and what is wrong; NaN is.
pub fn compare(got: &[f32], want: &[f32]) -> (f32, String) {
    if got.len() != want.len() {
        return (-1.0, format!("{} values, expected {}", got.len(), want.len()));
    }
    let largest = want.iter().fold(0.0_f32, |largest, v| largest.max(v.abs())).max(f32::MIN_POSITIVE);
    let mut error = 0.0_f32;
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let difference = (got - want).abs() / largest;
        if !difference.is_finite() {
            return (-1.0, format!("element {at} is {got}, expected {want}"));
        }
        error = error.max(difference);
    }
    match error <= TOLERANCE {
        true => (error, String::new()),
        false => (error, format!("differs by {error:.1e} of its largest element, allowed are {TOLERANCE:.0e}")),
    }
}

fn stored(answers: &[u8]) -> Result<Vec<(String, Vec<f32>)>> {
    let values = |bytes: Vec<u8>| bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(bundle::unpack("probe.safetensors", answers)?.into_iter().map(|(name, bytes)| (name, values(bytes))).collect())
}

async fn answer(device: &Device, case: Case) -> Result<Vec<f32>> {
    let values = match case {
        Case::Launch(launch) => launch(device)?,
        Case::Expand(format) => packed(device, format)?,
    };
    Ok(read_all(values).await?.concat())
}

type Launch = fn(&Device) -> Result<Vec<Tensor<1>>>;

/// What makes a kernel's answer: a function that launches it, or blocks of a format.
#[derive(Clone, Copy)]
enum Case {
    Launch(Launch),
    Expand(WeightFormat),
}

/// Stems of the kernels that are run; `matmul` and `gather_rows` stand for what burn computes.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    cases().map(|(stem, _)| stem)
}

/// One case a kernel, under the kernel's stem.
fn cases() -> impl Iterator<Item = (&'static str, Case)> {
    let formats = WeightFormat::ALL.into_iter();
    let expand = formats.filter_map(|f| f.kernels().map(|kernels| (kernels.dequantize.stem, Case::Expand(f))));
    CASES.iter().map(|&(stem, case)| (stem, Case::Launch(case))).chain(expand)
}

const CASES: &[(&str, Launch)] = &[
    ("row_stats", |d| Ok(vec![flat(&statistics(d)?.fields)])),
    ("gate", |d| {
        let fields = statistics(d)?.fields;
        let constant =
            GateParams { rows: 0, kind: 0, exponent: 2.0, normalizer: 3.0, a: 1.0, b: 0.1, threshold: 1.0, scale: 1.0 };
        let exponent = |kind| if kind == kind::MILE { 1.0 } else { 2.0 };
        let gates = kind::ALL.iter().map(|&(_, kind)| GateParams { kind, exponent: exponent(kind), ..constant });
        gates.map(|gate| kernels::gate::weights(d, &fields, &gate, 0.5)).collect()
    }),
    ("loss_gradient", |d| {
        let (fields, weight) = (statistics(d)?.fields, from_host(random(21, ROWS), [1, ROWS], d).reshape([ROWS]));
        let over = kernels::loss_gradient::over_logits(d, logits(d), 0, &labels(d), &weight, &fields)?;
        Ok(vec![flat(&over)])
    }),
    ("rms_norm", |d| {
        let (y, inverse) = kernels::rms_norm::forward(d, &matrix(d, 1, 5, 70), &vector(d, 2, 70), 1e-5)?;
        Ok(vec![flat(&y), inverse])
    }),
    ("rms_norm_backward", |d| {
        let (x, scale) = (matrix(d, 1, 5, 70), vector(d, 2, 70));
        let inverse = kernels::rms_norm::forward(d, &x, &scale, 1e-5)?.1;
        Ok(vec![flat(&kernels::rms_norm::backward(d, &x, &scale, &inverse, &matrix(d, 3, 5, 70))?)])
    }),
    ("rms_norm_scale_gradient", |d| {
        let x = matrix(d, 1, 5, 70);
        let inverse = kernels::rms_norm::forward(d, &x, &vector(d, 2, 70), 1e-5)?.1;
        Ok(vec![kernels::rms_norm::scale_gradient(d, &x, &inverse, &matrix(d, 3, 5, 70))?])
    }),
    ("rotary", |d| {
        let rotary = tiny()?.rotary(d, 16);
        let positions = Indices::new(d, vec![0, 1, 2, 7, 15]);
        Ok(vec![flat(&kernels::rotary::rotate(d, matrix(d, 4, 5, 3 * 16), 2, 16, &rotary, &positions, false)?)])
    }),
    ("gated_mlp", |d| Ok(vec![flat(&kernels::gated_mlp::forward(d, &matrix(d, 5, 7, 130))?)])),
    ("gated_mlp_backward", |d| {
        Ok(vec![flat(&kernels::gated_mlp::backward(d, matrix(d, 5, 7, 130), &matrix(d, 6, 7, 65))?)])
    }),
    ("attention_softmax", |d| {
        Ok(vec![flat(&kernels::attention::forward(d, &matrix(d, 7, 9, HEADS_WIDTH), HEADS, &starts(d))?.0)])
    }),
    ("attention_softmax_backward", |d| {
        let qkv = matrix(d, 7, 9, HEADS_WIDTH);
        let (out, state) = kernels::attention::forward(d, &qkv, HEADS, &starts(d))?;
        let dout = matrix(d, 8, 9, HEADS.heads * HEADS.head_dim);
        Ok(vec![flat(&kernels::attention::backward(d, &qkv, &out, state, &dout, HEADS, &starts(d))?)])
    }),
    ("adamw", |d| {
        let params = adamw::AdamwParams {
            count: 0,
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            bias1: 0.1,
            bias2: 0.001,
            gradient_scale: 0.5,
        };
        let second = matrix(d, 12, 3, 100).powf_scalar(2.0);
        let (p, m, v) =
            adamw::step(d, matrix(d, 9, 3, 100), &matrix(d, 10, 3, 100), matrix(d, 11, 3, 100), second, &params)?;
        Ok(vec![flat(&p), flat(&m), flat(&v)])
    }),
    ("sum_squares", |d| {
        let x = matrix(d, 13, 40, 100);
        // On a GPU partial sums; their sum is what counts.
        match adamw::sum_squares(d, &[&x])? {
            adamw::SumSquares::Known(sum) => Ok(vec![from_host(vec![sum as f32], [1, 1], d).reshape([1])]),
            adamw::SumSquares::Partials(partials) => Ok(vec![partials.sum()]),
        }
    }),
    ("dropout", |d| Ok(vec![flat(&elementwise::dropout(d, &matrix(d, 14, 6, 60), 42, 0.75)?)])),
    ("add_bias", |d| Ok(vec![flat(&elementwise::add_bias(d, matrix(d, 15, 6, 60), &vector(d, 16, 60))?)])),
    ("copy_columns", |d| {
        let columns = Columns { offset: 7, width: 20 };
        let taken = elementwise::columns(d, &matrix(d, 17, 6, 60), columns)?;
        Ok(vec![flat(&elementwise::add_columns(d, matrix(d, 18, 6, 60), columns, &taken)?)])
    }),
    ("matmul", |d| {
        let (a, b) = (matrix(d, 19, 37, 70), matrix(d, 20, 45, 70));
        let nt = Product::of(&a, b.transposed()).run(d)?;
        let nn = Product::of(&nt, &b).run(d)?;
        let tn = Product::of(nt.transposed(), &a).run(d)?;
        Ok(vec![flat(&nt), flat(&nn), flat(&tn)])
    }),
    ("gather_rows", |d| {
        let rows = elementwise::gather_rows(d, &matrix(d, 22, 10, 33), &[0, 9, 4, 4], 0)?;
        Ok(vec![flat(&elementwise::scatter_add_rows(d, matrix(d, 23, 6, 33), &[1, 1, 5, 0], 0, &rows)?)])
    }),
];

const ROWS: usize = 6;
const VOCAB: usize = 300;
const HEADS: Shape = Shape { heads: 4, kv_heads: 2, head_dim: 16 };
const HEADS_WIDTH: usize = (4 + 2 * 2) * 16;

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| (2.0 * rng.uniform() - 1.0) as f32).collect()
}

fn matrix(device: &Device, seed: u64, rows: usize, columns: usize) -> Tensor<2> {
    from_host(random(seed, rows * columns), [rows, columns], device)
}

fn vector(device: &Device, seed: u64, length: usize) -> Tensor<1> {
    matrix(device, seed, 1, length).reshape([length])
}

fn logits(device: &Device) -> Tensor<2> {
    matrix(device, 24, ROWS, VOCAB) * 6.0
}

fn labels(device: &Device) -> Indices {
    Indices::new(device, vec![0, 1, 77, 150, 298, 299])
}

fn statistics(device: &Device) -> Result<kernels::row_stats::Statistics> {
    kernels::row_stats::accumulate(device, &logits(device), 0, &labels(device), 20, None)
}

/// Two documents of four and five tokens.
fn starts(device: &Device) -> Indices {
    Indices::new(device, vec![0, 0, 0, 0, 4, 4, 4, 4, 4])
}

fn packed(device: &Device, format: WeightFormat) -> Result<Vec<Tensor<1>>> {
    let (rows, columns) = (3, 512);
    let bytes =
        format.bytes_for(rows * columns).ok_or_else(|| Error::Unsupported { problem: "a probe's shape".into() })?;
    let mut rng = Rng::new(25);
    let mut bytes: Vec<u8> = (0..bytes).map(|_| (rng.next_u64() & 0xff) as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        // The exponents are kept small.
        format.halves().iter().for_each(|at| block[at + 1] = 0x2c | block[at + 1] & 0x83);
    }
    let raw = RawTensor { name: "probe".into(), shape: vec![rows, columns], format, bytes };
    Ok(vec![flat(&kernels::dequantize::dense(device, &[Packed::new(device, raw, columns)])?)])
}

fn tiny() -> Result<Architecture> {
    Architecture::from_config_json(
        br#"{"model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 65,
             "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
             "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}"#,
        "the probe's architecture",
    )
}
