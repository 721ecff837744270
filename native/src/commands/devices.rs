//! `temper devices`: what there is, and which one a run would use.

use anyhow::Result;
use serde_json::json;
use temper_engine::{Devices, adapters};

use crate::cli::{DevicesArgs, Global};
use crate::output;

/// Runs the command.
pub fn run(args: DevicesArgs, global: &Global) -> Result<()> {
    let adapters = adapters();
    let (chosen, why) = Devices::choose(global.device.as_deref())?;
    if args.json {
        return output::json(&json!({ "chosen": chosen.names(), "why": why, "adapters": adapters }));
    }
    let mut text = String::from("id         kind        memory      binding     buffer      workgroup  f16  name\n");
    text += "cpu        cpu         -           -           -           -          -    CPU backend\n";
    for a in &adapters {
        text += &format!(
            "{:<10} {:<11} {:<11} {:<11} {:<11} {:<10} {:<4} {} ({})\n",
            a.id,
            a.kind,
            match (a.free_bytes, a.kind.as_str()) {
                (Some(free), _) => bytes(free),
                (None, "software") => "the host's".into(),
                (None, _) => "unknown".into(),
            },
            bytes(a.max_binding_bytes),
            bytes(a.max_buffer_bytes),
            bytes(a.workgroup_bytes.into()),
            if a.f16 { "yes" } else { "no" },
            a.name,
            a.driver
        );
    }
    text += &format!("\nwould use  {why}\n");
    output::text(&text)
}

fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 40 => "unlimited".into(),
        n if n >= 1 << 30 => format!("{:.1} GiB", n as f64 / f64::from(1 << 30)),
        n if n >= 1 << 20 => format!("{} MiB", n >> 20),
        n => format!("{} KiB", n >> 10),
    }
}
