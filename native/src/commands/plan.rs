//! `temper plan`: what a run would hold and how long it would take, without loading it.

use anyhow::Result;
use serde_json::json;
use temper_engine::words::{bytes, counted};

use crate::cli::{Global, PlanArgs};
use crate::commands::train::Read;
use crate::output;
use crate::plan::{Change, Plan, Room, Time, changes};
use crate::settings::Settings;

/// Seconds that the device is measured for.
const CALIBRATION_S: f64 = 2.0;

/// Runs the command.
pub fn run(args: PlanArgs, global: &Global) -> Result<()> {
    let device = global.device.as_ref().map(|device| ("run.device".to_string(), device.clone()));
    let sizes = args.device_memory.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let memory = (!sizes.is_empty()).then(|| ("run.device_memory".to_string(), sizes));
    let settings = Settings::of(&args.run, device.into_iter().chain(memory).collect())?;
    settings.refuse_vain(&args.run)?;
    let read = Read::of(settings, &|_| Ok(()))?;
    let measured = read.measured();
    let subject = read.subject(&measured);
    let Read { devices, why, .. } = &read;
    let room = Room::of(devices, &read.config);
    let plan = Plan::of(&subject, &room)?;
    let time = Time::measure(&subject, &plan, CALIBRATION_S)?;
    let fits = plan.fits(&room);
    let advice: Vec<Change> = match fits {
        true => Vec::new(),
        false => changes(&subject, &plan, &room).into_iter().map(|change| change.timed(&time)).collect(),
    };
    if args.json {
        let moments = plan.stages().flat_map(|(stage, ledger)| {
            ledger.moments.iter().map(|entry| {
                json!({
                    "on": stage.device.name(),
                    "moment": entry.moment,
                    "device_bytes": entry.device.total(),
                    "host_bytes": entry.host.total(),
                    "device": entry.device,
                    "host": entry.host,
                })
            })
        });
        let devices = plan.stages().zip(&room.devices).zip(&plan.executions).enumerate();
        let devices = devices.map(|(index, (((stage, ledger), available), execution))| {
            json!({
                "device": stage.device.name(),
                "holds": plan.placement.held_by(index),
                "blocks": stage.blocks.len(),
                "device_bytes": ledger.device_bytes(),
                "host_bytes": ledger.host_bytes(),
                "available_bytes": available,
                "execution": execution,
            })
        });
        return output::json(&json!({
            "peak_bytes": plan.device_bytes(),
            "peak_moment": plan.fullest().peak().moment,
            "device_bytes": plan.device_bytes(),
            "host_bytes": plan.host_bytes(),
            "available_bytes": room.devices.iter().copied().reduce(|a, b| Some(a?.saturating_add(b?))).flatten(),
            "available_host_bytes": room.host,
            "fits": fits,
            "moments": moments.collect::<Vec<_>>(),
            "devices": devices.collect::<Vec<_>>(),
            "tokens": plan.load.tokens,
            "rows": plan.load.rows,
            "micro_batches": plan.load.micro_batches,
            "execution": plan.executions[0],
            "steps": time.steps,
            "seconds_per_step": time.seconds_per_step,
            "measuring_seconds": time.measuring_seconds,
            "seconds": time.seconds,
            "operations_per_step": time.operations_per_step,
            "operations_per_second": time.operations_per_second,
            "advice": advice,
            "device": plan.placement.to_string(),
        }));
    }
    let peak = plan.fullest().peak().moment.words();
    let mut text = format!("{}\n", plan.table());
    text += &format!("device     {} ({why})\n", plan.placement);
    text += &format!("plan       {}\n", plan.line(&room, Some(&time)));
    text += &format!(
        "           at {} tokens a micro-batch, most in {peak}; {}, {:.1} GFLOP each at {:.1} GFLOP/s\n",
        plan.load.tokens,
        counted(time.steps, "step"),
        time.operations_per_step / 1e9,
        time.operations_per_second / 1e9
    );
    text += &match (fits, room.devices.iter().all(Option::is_some)) {
        (true, true) => "fits       yes\n".to_string(),
        (true, false) if devices.all().len() == 1 => {
            "fits       unknown: the device does not say how much memory it has (--device-memory 8GiB)\n".to_string()
        }
        (true, false) => {
            let sizes = vec!["8GiB"; devices.all().len()].join(",");
            format!("fits       unknown: not every device says how much memory it has (--device-memory {sizes})\n")
        }
        (false, _) => "fits       no\n".to_string(),
    };
    for change in &advice {
        let verdict = if change.fits { "fits" } else { "too much still" };
        let seconds = crate::progress::duration(change.seconds_per_step.unwrap_or(0.0));
        text += &format!(
            "  {}: peak {}, {seconds} a step, {verdict} ({})\n",
            change.arguments(),
            bytes(change.peak_bytes),
            change.cost
        );
    }
    if !fits && advice.is_empty() {
        text += "  nothing that can be set makes it smaller; take a smaller model\n";
    }
    output::text(&text)
}
