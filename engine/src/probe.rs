//! A self-test of a device: every kernel on a small batch, against stored answers.
//!
//! In a browser a shader that does not compile is only a line in the log, and results are silently whatever the buffer
//! held. So the page runs this before it trusts a device. The answers, `probe.safetensors`, come beside the page: a bundle
//! with a file of little-endian f32 for each kernel, those of the CPU kernels on the machine where the test in
//! `tests/tests/probe.rs` was blessed last; it compares them on every device.

use burn::tensor::Tensor;
use serde::Serialize;

use crate::device::Device;
#[cfg(not(target_family = "wasm"))]
use crate::error::Error;
use crate::error::Result;
use crate::export::bundle;
use crate::kernels::tensor::{flat, read_all};
use crate::kernels::{self, dequantize, matmul, sample};
use crate::message::messages;
use crate::weights::WeightFormat;

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

/// Under what is noted that a driver's kernels are right.
#[cfg(not(target_family = "wasm"))]
const PROVED: &str = "self-test";

/// Runs every kernel once on a GPU whose driver was not tried yet with this version, beside the CPU's, and notes where all are
/// right: drivers compute wrong, and nobody would see it. Seconds the first time, nothing after; nothing on software adapters,
/// which the tests run on.
///
/// # Errors
/// [`Error::Device`] with the kernels that are wrong; device errors.
#[cfg(not(target_family = "wasm"))]
pub fn prove(device: &Device) -> Result<()> {
    const RIGHT: &str = "right";
    let known = device.kept().and_then(|kept| kept.measured(PROVED));
    if device.is_cpu() || device.is_software() || known.as_deref() == Some(RIGHT) {
        return Ok(());
    }
    let answers = pollster::block_on(answers(&Device::cpu()))?;
    let report = pollster::block_on(run(device, &answers))?;
    trusted(device.name(), &report)?;
    if let Some(kept) = device.kept() {
        kept.leave_measured(PROVED, RIGHT);
    }
    Ok(())
}

/// # Errors
/// [`Error::Device`] with the kernels that are wrong.
#[cfg(not(target_family = "wasm"))]
fn trusted(device: &str, report: &Report) -> Result<()> {
    let wrong = report.checks.iter().filter(|check| !check.passed);
    let wrong: Vec<String> = wrong.map(|check| format!("{}: {}", check.kernel, check.message)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let (count, all, wrong) = (wrong.len(), report.checks.len(), wrong.join("; "));
    Err(Error::Device {
        problem: format!(
            "{device}: its driver computes {count} of {all} kernels wrong ({wrong}); update the driver, or take another              device (--device cpu; `temper devices` lists them)"
        ),
    })
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
    sample::compare(got, want, TOLERANCE)
}

fn stored(answers: &[u8]) -> Result<Vec<(String, Vec<f32>)>> {
    let values = |bytes: Vec<u8>| bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(bundle::unpack("probe.safetensors", answers)?.into_iter().map(|(name, bytes)| (name, values(bytes))).collect())
}

async fn answer(device: &Device, case: Case) -> Result<Vec<f32>> {
    let values = match case {
        Case::Launch(launch) => launch(device)?,
        Case::Expand(format) => vec![flat(&dequantize::blocks(device, format)?.dense(device)?)],
        Case::Multiply(format) => vec![matmul::self_test(device, &dequantize::blocks(device, format)?)?],
    };
    Ok(read_all(values).await?.concat())
}

/// What makes a kernel's answer: a function that launches it, or blocks of a format, expanded or in a product.
#[derive(Clone, Copy)]
enum Case {
    Launch(fn(&Device) -> Result<Vec<Tensor<1>>>),
    Expand(WeightFormat),
    Multiply(WeightFormat),
}

/// Stems of the kernels that are run; `gather_rows` stands for what burn computes.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    cases().map(|(stem, _)| stem)
}

/// One case a kernel, under the kernel's stem.
fn cases() -> impl Iterator<Item = (&'static str, Case)> {
    let of_format = |f: WeightFormat| {
        let kernels = f.kernels()?;
        Some([(kernels.dequantize.stem, Case::Expand(f)), (kernels.matmul_few_rows.stem, Case::Multiply(f))])
    };
    let launched = kernels::SELF_TESTS.iter().copied().flatten();
    launched
        .map(|&(stem, launch)| (stem, Case::Launch(launch)))
        .chain(WeightFormat::ALL.into_iter().filter_map(of_format).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_a_wrong_kernel_is_refused_by_its_name_and_the_kernels() {
        let check =
            |kernel, message: &str| Check { kernel, passed: message.is_empty(), error: 0.0, message: message.into() };
        let mut checks = vec![check("rotary", ""), check("gate", "")];
        assert!(trusted("a card", &Report { passed: true, checks: checks.clone() }).is_ok());
        checks.push(check("row_stats", "element 3 is 0, expected 1"));
        let error = trusted("a card", &Report { passed: false, checks }).unwrap_err();
        let text = error.to_string();
        let parts = ["a card", "1 of 3", "row_stats: element 3", "--device cpu"];
        assert!(error.is_bad_input() && parts.iter().all(|part| text.contains(part)), "{text}");
    }
}
