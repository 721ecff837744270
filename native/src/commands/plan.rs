//! `temper plan`: what a run would hold and how long it would take, without loading it.

use anyhow::Result;
use serde_json::json;

use crate::cli::{Global, PlanArgs};
use crate::commands::train::Read;
use crate::output;
use crate::plan::{Change, Plan, Room, Time, bytes, changes};
use crate::settings::Settings;

/// Seconds that the device is measured for.
const CALIBRATION_S: f64 = 2.0;

/// Runs the command.
pub fn run(args: PlanArgs, global: &Global) -> Result<()> {
    let device = global.device.as_ref().map(|device| ("run.device".to_string(), device.clone()));
    let memory = args.device_memory.map(|bytes| ("run.device_memory".to_string(), bytes.to_string()));
    let settings = Settings::of(&args.run, device.into_iter().chain(memory).collect())?;
    let read = Read::of(settings, &|_| Ok(()))?;
    let measured = read.measured();
    let subject = read.subject(&measured);
    let Read { device, why, .. } = &read;
    let room = Room::of(device, &read.config);
    let plan = Plan::of(&subject, room)?;
    let time = Time::measure(&subject, &plan, CALIBRATION_S)?;
    let fits = plan.fits(room);
    let advice: Vec<Change> = match fits {
        true => Vec::new(),
        false => changes(&subject, &plan, room).into_iter().map(|change| change.timed(&time)).collect(),
    };
    if args.json {
        let moments = plan.ledger.moments.iter().map(|entry| {
            json!({
                "moment": entry.moment,
                "device_bytes": entry.device.total(),
                "host_bytes": entry.host.total(),
                "device": entry.device,
                "host": entry.host,
            })
        });
        return output::json(&json!({
            "peak_bytes": plan.ledger.device_bytes(),
            "peak_moment": plan.ledger.peak().moment,
            "device_bytes": plan.ledger.device_bytes(),
            "host_bytes": plan.ledger.host_bytes(),
            "available_bytes": room.device,
            "available_host_bytes": room.host,
            "fits": fits,
            "moments": moments.collect::<Vec<_>>(),
            "tokens": plan.load.tokens,
            "rows": plan.load.rows,
            "micro_batches": plan.load.micro_batches,
            "execution": plan.execution,
            "steps": time.steps,
            "seconds_per_step": time.seconds_per_step,
            "seconds": time.seconds,
            "operations_per_step": time.operations_per_step,
            "operations_per_second": time.operations_per_second,
            "advice": advice,
            "device": device.name(),
        }));
    }
    let peak = plan.ledger.peak().moment.words();
    let mut text = format!("{}\n", plan.table(device.is_cpu()));
    text += &format!("device     {} ({why})\n", device.name());
    text += &format!("plan       {}\n", plan.line(room, Some(&time)));
    text += &format!(
        "           at {} tokens a micro-batch, most in {peak}; {} steps, {:.1} GFLOP each at {:.1} GFLOP/s\n",
        plan.load.tokens,
        time.steps,
        time.operations_per_step / 1e9,
        time.operations_per_second / 1e9
    );
    text += &match (fits, room.device) {
        (true, Some(_)) => "fits       yes\n".to_string(),
        (true, None) => {
            "fits       unknown: the device does not say how much memory it has (--device-memory 8GiB)\n".to_string()
        }
        (false, _) => "fits       no\n".to_string(),
    };
    for change in &advice {
        let verdict = if change.fits { "fits" } else { "too much still" };
        let seconds = crate::progress::duration(change.seconds_per_step.unwrap_or(0.0));
        text += &format!("  {}: peak {}, {seconds} a step, {verdict}\n", change.arguments(), bytes(change.peak_bytes));
    }
    if !fits && advice.is_empty() {
        text += "  nothing that can be set makes it smaller; take a smaller model\n";
    }
    output::text(&text)
}
