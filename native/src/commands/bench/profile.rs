//! `temper bench step --profile`: in which kernels a GPU spends a step.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use temper_engine::Result;
use temper_engine::inside::kernels::profile::{KernelTime, Share};

use crate::files::write_atomically;

/// What one kernel took in a step. One JSON line.
#[derive(Serialize)]
pub struct Line<'a> {
    bench: &'static str,
    #[serde(flatten)]
    share: &'a Share,
}

impl<'a> From<&'a Share> for Line<'a> {
    fn from(share: &'a Share) -> Self {
        Self { bench: "profile", share }
    }
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
    use temper_engine::inside::kernels::profile::shares;

    use super::*;

    #[test]
    fn a_step_is_told_as_a_table_and_as_lines_with_the_largest_share_first() {
        let time =
            |kernel, begin_s, end_s| KernelTime { kernel, begin_s, end_s, operations: 6e9, bytes: 1_000_000_000 };
        let shares = shares(&[time("norm", 10.0, 11.0), time("product", 11.0, 14.0)]);
        assert!(table(&shares).lines().nth(1).unwrap().starts_with("product"), "{}", table(&shares));
        let line = serde_json::to_value(Line::from(&shares[0])).unwrap();
        let expected = json!({
            "bench": "profile", "kernel": "product", "runs": 1, "seconds": 3.0, "percent": 75.0, "gflops": 2.0,
            "bound_gbytes_per_s": 1.0 / 3.0,
        });
        assert_eq!(line, expected);
    }
}
