//! How much memory this process holds and could still get, where the system tells, and what it is needed for.

use std::path::Path;

use serde::{Deserialize, Serialize};
use temper_engine::models::Hold;
use temper_engine::running::{Kind, Ledger, Placement, Site};
use temper_engine::words::counted;
use temper_engine::{Error, MemoryLimit, ModelFiles, Result};

/// `memory` of `summary.json`. What was planned comes from the run's shape, the rest is measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Most that the run was planned to hold on its device; of several, on each, together.
    pub planned_peak_bytes: u64,
    /// The same, measured: on the CPU what the process held beyond what it held before the model was loaded, without the pages
    /// of its own files; on a GPU what its memory pools reserved. `None` where nobody tells.
    pub peak_bytes: Option<u64>,
    /// What the plan is made of, at its peak; of several devices, at each one's own.
    pub planned_bytes: Planned,
    /// Highest resident set of the process by the end of each stage.
    pub measured_peak_resident_bytes: Peaks,
    /// On the CPU, what was resident at most beyond what was planned: the program, the data,
    /// and values on their way; none on a GPU, whose memory is not the process's.
    pub other_bytes: Option<u64>,
}

/// What a ledger's peak is made of, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The model as it is held, and the adapter.
    pub weights: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// Both moments of what is trained.
    pub optimiser_moments: u64,
    /// What a micro-batch's blocks hold for the way back and on the way.
    pub activations: u64,
    /// Logits of one chunk of the loss head.
    pub head_logits: u64,
    /// Operands of products in another form, and copies from and to files.
    pub scratch: u64,
    /// All of it.
    pub total: u64,
}

impl Planned {
    /// The peaks of each device's ledger.
    pub fn of(ledgers: &[Ledger]) -> Self {
        let kind = |kind| ledgers.iter().map(|ledger| ledger.peak().device.of(kind)).fold(0, u64::saturating_add);
        let of = |kinds: &[Kind]| kinds.iter().fold(0_u64, |sum, of| sum.saturating_add(kind(*of)));
        Self {
            weights: of(&[Kind::Weights, Kind::Adapter]),
            gradients: of(&[Kind::Gradients]),
            optimiser_moments: of(&[Kind::Moments]),
            activations: of(&[Kind::Kept, Kind::Activations, Kind::Scores]),
            head_logits: of(&[Kind::Logits]),
            scratch: of(&[Kind::Scratch, Kind::Transfer]),
            total: of(&Kind::ALL),
        }
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
    /// What was planned beside what was measured. `held` is the device's own peak where it has its memory to itself.
    pub fn new(ledgers: &[Ledger], measured: Peaks, own: Option<u64>, on_cpu: bool) -> Self {
        let planned_bytes = Planned::of(ledgers);
        let other = (on_cpu && measured.at_end > 0).then(|| measured.at_end.saturating_sub(planned_bytes.total));
        Self {
            planned_peak_bytes: planned_bytes.total,
            peak_bytes: own,
            planned_bytes,
            measured_peak_resident_bytes: measured,
            other_bytes: other,
        }
    }
}

/// What the process held when something began, to know what that took.
#[derive(Clone, Copy, Debug)]
pub struct Before(u64);

impl Before {
    /// Now; what was freed goes back to the system, and the peak so far is forgotten.
    pub fn now() -> Self {
        reset_peak();
        Self(status("RssAnon:"))
    }

    /// Most that was held beyond it since: pages of files, such as the program's own, do not count. `None` where the system
    /// does not tell.
    pub fn peak_since(self) -> Option<u64> {
        let most = status("VmHWM:");
        (most > 0 && self.0 > 0).then(|| most.saturating_sub(status("RssFile:")).saturating_sub(self.0))
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
            let (what, advice) = (what.into(), advice.into());
            Err(Error::Memory { what, needed, available, limit: MemoryLimit::Machine, advice })
        }
        _ => Ok(()),
    }
}

/// Refuses a model that does not fit when it is only used, held as `hold` says, with `more` bytes for what is made with it.
///
/// # Errors
/// As [`check`].
pub fn check_model(files: &ModelFiles, placement: &Placement, hold: Hold, more: u64) -> Result<()> {
    let (arch, source) = (&files.architecture, files.weights.as_deref());
    let in_host = |site: Site| {
        let ledger = Ledger::of_model(arch, source, hold, site);
        if site.cpu { ledger.device_bytes() } else { ledger.host_bytes() }
    };
    let needed = Site::of_each(placement).into_iter().map(in_host).fold(0, u64::saturating_add);
    let advice = "take a smaller one, or hold it in fewer bits with --storage";
    check(&described("the model", files), needed.saturating_add(more), advice)
}

/// What something is done with, and how large the model is.
pub fn described(what: &str, files: &ModelFiles) -> String {
    let arch = &files.architecture;
    format!(
        "{what} ({}, hidden {}, vocabulary {}: {} parameters)",
        counted(arch.layers, "layer"),
        arch.hidden,
        arch.vocab,
        arch.parameter_count()
    )
}

/// Bytes that this process could still get: what the system can free without swapping, what it could swap out, and not
/// more than its control group leaves it. `None` where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = kib(&machine, "MemAvailable:")?.saturating_add(kib(&machine, "SwapFree:").unwrap_or(0));
    Some(free.min(left_in_control_group().unwrap_or(u64::MAX)))
}

/// Bytes that this process could get if nobody else held any. `None` where the system does not tell.
pub fn total_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(kib(&machine, "MemTotal:")?.min(most_in_control_group().unwrap_or(u64::MAX)))
}

/// What a container or a service may still take.
fn left_in_control_group() -> Option<u64> {
    // Pages of files are given back on demand and do not count.
    let anonymous = |line: &str| line.strip_prefix("anon ")?.trim().parse::<u64>().ok();
    let held = control_group("memory.stat")?.lines().find_map(anonymous)?;
    Some(most_in_control_group()?.saturating_sub(held))
}

/// What a container or a service may take in all.
fn most_in_control_group() -> Option<u64> {
    control_group("memory.max")?.trim().parse().ok()
}

/// A file of this process's control group (version 2).
fn control_group(file: &str) -> Option<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_matches('/');
    std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(own).join(file)).ok()
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
