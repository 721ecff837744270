//! How much memory this process holds, where the system tells, and what a run needs it for.

use serde::{Deserialize, Serialize};
use temper_engine::configuration::AdapterKind;
use temper_engine::running::Estimate;
use temper_engine::{Config, ModelFiles};

/// `memory` of `summary.json`. The first part is reckoned from the run's shape, the second measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// What the run needs on its device, by kind.
    pub planned_bytes: Planned,
    /// Highest resident set of the process by the end of each stage.
    pub measured_peak_resident_bytes: Peaks,
    /// On the CPU, what was resident at most beyond what was planned: the program, the files that are mapped, the data,
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
    /// Of a run of this configuration.
    pub fn of(config: &Config, files: &ModelFiles) -> Self {
        let estimate = Estimate::new(config, &files.architecture, files.weights.as_deref(), 1);
        let value = estimate.trained * 4;
        let adapter = if config.adapter.kind == AdapterKind::Lora { value } else { 0 };
        let planned = Self {
            weights: estimate.base + adapter,
            gradients: value,
            optimiser_moments: 2 * value,
            activations: estimate.activations,
            head_logits: estimate.logits,
            total: 0,
        };
        let Self { weights, gradients, optimiser_moments, activations, head_logits, .. } = planned;
        Self { total: weights + gradients + optimiser_moments + activations + head_logits, ..planned }
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
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
