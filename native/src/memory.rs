//! How much memory this process holds and could still get, where the system tells, and what it is needed for.

use std::path::Path;

use serde::{Deserialize, Serialize};
use temper_engine::configuration::AdapterKind;
use temper_engine::models::Hold;
use temper_engine::running::{Estimate, held_bytes, passing_bytes};
use temper_engine::{Config, Device, Error, ModelFiles, Result};

/// `memory` of `summary.json`. The first part is reckoned from the run's shape, the second measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// What the run needs on its device, by kind.
    pub planned_bytes: Planned,
    /// Highest resident set of the process by the end of each stage.
    pub measured_peak_resident_bytes: Peaks,
    /// On the CPU, what was resident at most beyond what was planned: the program, the data,
    /// and values on their way; none on a GPU, whose memory is not the process's.
    pub other_bytes: Option<u64>,
}

/// What a run needs on its device, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The model as it is held, and the adapter.
    pub weights: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// Both moments of what is trained.
    pub optimiser_moments: u64,
    /// What the forward pass of one micro-batch leaves for the way back.
    pub activations: u64,
    /// Logits of one chunk of the loss head.
    pub head_logits: u64,
    /// All of it.
    pub total: u64,
}

impl Planned {
    /// Of a run of this configuration whose largest micro-batch has so many tokens. Saturates where numbers are absurd.
    pub fn of(config: &Config, files: &ModelFiles, tokens: usize) -> Self {
        let mut config = config.clone();
        config.run.batch_tokens = tokens;
        let estimate = Estimate::new(&config, &files.architecture, files.weights.as_deref(), 1);
        let value = estimate.trained.saturating_mul(4);
        let adapter = if config.adapter.kind == AdapterKind::Lora { value } else { 0 };
        let planned = Self {
            weights: estimate.base.saturating_add(adapter),
            gradients: value,
            optimiser_moments: value.saturating_mul(2),
            activations: estimate.activations,
            head_logits: estimate.logits,
            total: 0,
        };
        let Self { weights, gradients, optimiser_moments, activations, head_logits, .. } = planned;
        let parts = [weights, gradients, optimiser_moments, activations, head_logits];
        Self { total: parts.into_iter().fold(0, u64::saturating_add), ..planned }
    }
}

/// Highest resident set of the process up to a moment, in bytes; 0 where the system does not tell. Each includes what came
/// before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// The model is loaded.
    pub after_loading: u64,
    /// The first step is done, and the evaluation before it.
    pub after_first_step: u64,
    /// All steps, checkpoints and evaluations are done.
    pub after_training: u64,
    /// The adapter or model is saved.
    pub after_saving: u64,
    /// The baseline is trained too, where there is one.
    pub at_end: u64,
}

impl Memory {
    /// What was planned beside what was measured. `on_cpu`: the device's memory is the process's.
    pub fn new(planned_bytes: Planned, measured: Peaks, on_cpu: bool) -> Self {
        let other = (on_cpu && measured.at_end > 0).then(|| measured.at_end.saturating_sub(planned_bytes.total));
        Self { planned_bytes, measured_peak_resident_bytes: measured, other_bytes: other }
    }
}

/// Refuses what this machine has no memory for. An allocation that fails would end the process without a word, and one that
/// succeeds beyond what is there the machine with it, so sizes are compared before anything is allocated.
///
/// # Errors
/// [`Error::Memory`] with both numbers.
pub fn check(what: &str, needed: u64, advice: &str) -> Result<()> {
    match available_bytes() {
        Some(available) if needed > available => {
            Err(Error::Memory { what: what.into(), needed, available, advice: advice.into() })
        }
        _ => Ok(()),
    }
}

/// Refuses a model that does not fit when it is only used, held as `hold` says, with `more` bytes for what is made with it.
///
/// # Errors
/// As [`check`].
pub fn check_model(files: &ModelFiles, device: &Device, hold: Hold, more: u64) -> Result<()> {
    let (arch, source) = (&files.architecture, files.weights.as_deref());
    let weights = if device.is_cpu() { held_bytes(arch, source, hold) } else { 0 };
    let needed = weights.saturating_add(passing_bytes(arch, source)).saturating_add(more);
    check(&described("the model", files), needed, "take a smaller one, or hold it in fewer bits with --storage")
}

/// Refuses a run that does not fit. `tokens` are those of its largest micro-batch.
///
/// # Errors
/// As [`check`].
pub fn check_run(config: &Config, files: &ModelFiles, device: &Device, tokens: usize) -> Result<()> {
    let mut needed = passing_bytes(&files.architecture, files.weights.as_deref());
    if device.is_cpu() {
        // A rank above the width of a layer is refused where the layer is known.
        let mut config = config.clone();
        let arch = &files.architecture;
        config.adapter.rank = config.adapter.rank.min(arch.hidden.max(arch.intermediate));
        needed = needed.saturating_add(Planned::of(&config, files, tokens).total);
    }
    let what = described(&format!("training on {tokens} tokens at once"), files);
    let advice = "a smaller model, an adapter in place of all weights, or a lower run.batch_tokens and data.cutoff_length \
                  need less";
    check(&what, needed, advice)
}

fn described(what: &str, files: &ModelFiles) -> String {
    let arch = &files.architecture;
    format!(
        "{what} ({} layers, hidden {}, vocabulary {}: {} parameters)",
        arch.layers,
        arch.hidden,
        arch.vocab,
        arch.parameter_count()
    )
}

/// Bytes that this process could still get: what the system can free without swapping, what it could swap out, and not
/// more than its control group leaves it. `None` where the system does not tell.
fn available_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = kib(&machine, "MemAvailable:")?.saturating_add(kib(&machine, "SwapFree:").unwrap_or(0));
    Some(free.min(left_in_control_group().unwrap_or(u64::MAX)))
}

/// What a container or a service may still take (control groups, version 2).
fn left_in_control_group() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_matches('/');
    let file = |name: &str| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(own).join(name)).ok();
    let most: u64 = file("memory.max")?.trim().parse().ok()?;
    // Pages of files are given back on demand and do not count.
    let held = file("memory.stat")?.lines().find_map(|line| line.strip_prefix("anon ")?.trim().parse::<u64>().ok())?;
    Some(most.saturating_sub(held))
}

/// Highest resident set so far, in bytes; 0 where unknown.
pub fn peak_resident_bytes() -> u64 {
    status("VmHWM:")
}

/// Resident set now, in bytes; 0 where unknown.
pub fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// Gives freed memory back to the system and forgets the peak so far, so that a benchmark's variants do not hide in each
/// other's leftovers.
pub fn reset_peak() {
    // SAFETY: it has no preconditions.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0)
    };
    // Refused without rights to the file; the peak is then that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status(field: &str) -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|text| kib(&text, field)).unwrap_or(0)
}

/// The bytes of a line like `VmRSS:  12 kB`.
fn kib(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_more_than_the_machine_has_is_refused_with_both_numbers() {
        let available = available_bytes().expect("Linux tells");
        assert!(available > 1 << 20, "{available}");
        check("little", 1 << 20, "").unwrap();
        let error = check("everything", u64::MAX, "take less").unwrap_err();
        assert!(error.is_bad_input());
        let text = error.to_string();
        assert!(text.starts_with("everything needs 17179869184.0 GiB, and this machine has "), "{text}");
        assert!(text.ends_with(" GiB available: take less"), "{text}");
    }
}
