//! How much memory this process holds, where the system tells.

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
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc's own function, without preconditions.
        unsafe { malloc_trim(0) };
    }
    // Refused without rights to the file; the peak is then that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status(field: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
