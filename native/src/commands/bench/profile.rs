//! `temper bench step --profile`: in which kernels a GPU spends a step.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use temper_engine::Result;
use temper_engine::inside::kernels::profile::KernelTime;

use crate::files::write_atomically;

/// What one kernel took in a step. One JSON line.
#[derive(Debug, Serialize, PartialEq)]
pub struct Share {
    bench: &'static str,
    pub kernel: String,
    pub runs: usize,
    pub seconds: f64,
    /// Of the time from the first kernel's begin to the last one's end.
    pub percent: f64,
    /// Where its operations are counted.
    pub gflops: Option<f64>,
    /// Bytes of the buffers that it binds, a second: more than it moves, where it reads a part of them.
    pub bound_gbytes_per_s: f64,
}

/// Shares of a step, the largest first; what no kernel of ours took is the last one, `(between)`: burn's kernels, and waiting.
pub fn shares(times: &[KernelTime]) -> Vec<Share> {
    let begin = times.iter().map(|time| time.begin_s).fold(f64::INFINITY, f64::min);
    let end = times.iter().map(|time| time.end_s).fold(f64::NEG_INFINITY, f64::max);
    let whole = (end - begin).max(f64::MIN_POSITIVE);
    let share = |kernel: &str, runs, seconds: f64, operations: f64, bytes: u64| Share {
        bench: "profile",
        kernel: kernel.into(),
        runs,
        seconds,
        percent: 100.0 * seconds / whole,
        gflops: (operations > 0.0 && seconds > 0.0).then(|| operations / seconds / 1e9),
        bound_gbytes_per_s: bytes as f64 / seconds.max(f64::MIN_POSITIVE) / 1e9,
    };
    let mut shares: Vec<Share> = Vec::new();
    let mut names: Vec<&str> = times.iter().map(|time| time.kernel).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let own: Vec<&KernelTime> = times.iter().filter(|time| time.kernel == name).collect();
        let seconds = own.iter().map(|time| time.end_s - time.begin_s).sum();
        let operations = own.iter().map(|time| time.operations).sum();
        shares.push(share(name, own.len(), seconds, operations, own.iter().map(|time| time.bytes).sum()));
    }
    shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let taken: f64 = shares.iter().map(|share| share.seconds).sum();
    if !shares.is_empty() {
        shares.push(share("(between)", 0, (whole - taken).max(0.0), 0.0, 0));
    }
    shares
}

/// A table of shares.
pub fn table(shares: &[Share]) -> String {
    let mut text =
        format!("{:<28} {:>6} {:>7} {:>10} {:>10} {:>12}\n", "kernel", "%", "runs", "ms", "GFLOP/s", "bound GB/s");
    for share in shares {
        let gflops = share.gflops.map_or(String::new(), |gflops| format!("{gflops:.1}"));
        let moved = if share.runs > 0 { format!("{:.1}", share.bound_gbytes_per_s) } else { String::new() };
        text += &format!(
            "{:<28} {:>6.1} {:>7} {:>10.2} {gflops:>10} {moved:>12}\n",
            share.kernel,
            share.percent,
            share.runs,
            share.seconds * 1e3,
        );
    }
    text
}

/// Writes every kernel's begin and end in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open.
///
/// # Errors
/// What writing gives.
pub fn write_trace(times: &[KernelTime], device: &str, file: &Path) -> Result<()> {
    let begin = times.iter().map(|time| time.begin_s).fold(f64::INFINITY, f64::min);
    let event = |time: &KernelTime| {
        json!({
            "name": time.kernel, "ph": "X", "pid": 1, "tid": 1, "cat": "kernel",
            "ts": (time.begin_s - begin) * 1e6, "dur": (time.end_s - time.begin_s) * 1e6,
            "args": { "operations": time.operations, "bytes": time.bytes },
        })
    };
    let name = json!({ "name": "process_name", "ph": "M", "pid": 1, "args": { "name": device } });
    let events: Vec<Value> = std::iter::once(name).chain(times.iter().map(event)).collect();
    let trace = json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string();
    write_atomically(file, |out| out.write_all(trace.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(kernel: &'static str, begin_s: f64, end_s: f64, operations: f64) -> KernelTime {
        KernelTime { kernel, begin_s, end_s, operations, bytes: 1_000_000_000 }
    }

    #[test]
    fn shares_add_up_to_the_whole_and_the_largest_comes_first() {
        let times = [time("norm", 10.0, 11.0, 0.0), time("product", 11.0, 14.0, 6e9), time("norm", 15.0, 16.0, 0.0)];
        let shares = shares(&times);
        let of: Vec<_> = shares.iter().map(|s| (s.kernel.as_str(), s.runs, s.seconds.round())).collect();
        assert_eq!(of, [("product", 1, 3.0), ("norm", 2, 2.0), ("(between)", 0, 1.0)]);
        assert!((shares.iter().map(|share| share.percent).sum::<f64>() - 100.0).abs() < 1e-9);
        assert_eq!((shares[0].gflops, shares[1].gflops), (Some(2.0), None));
        assert!((shares[1].bound_gbytes_per_s - 1.0).abs() < 1e-9);
        assert!(table(&shares).lines().nth(1).unwrap().starts_with("product"), "{}", table(&shares));
        assert!(super::shares(&[]).is_empty());
    }
}
