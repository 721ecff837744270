//! `temper devices`: what there is, and which one a run would use.

use anyhow::{Result, bail};
use serde_json::json;
use temper_engine::inside::kernels::calibration::MOST_SECONDS;
use temper_engine::inside::probe;
use temper_engine::products::{Calibration, Class, Compute, calibrate};
use temper_engine::{Device, Devices, adapters, wait};

use crate::cli::{DevicesArgs, Global};
use crate::output;
use crate::plan::Since;

/// Runs the command.
pub fn run(args: DevicesArgs, global: &Global) -> Result<()> {
    if args.calibrate {
        return calibrated(args.json, global);
    }
    let adapters = adapters();
    let (chosen, why) = Devices::choose(global.device.as_deref(), &Since::now())?;
    if args.self_test {
        return self_test(global, args.json);
    }
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
    for a in &adapters {
        if let (Some(free), Some(uncounted)) = (a.free_bytes, a.uncounted_bytes) {
            text += &format!(
                "\n{}: its own {} are counted; {} of the host's, which it shares, are not, since no buffer is put into \
                 them (the firmware's settings may give it more of its own)\n",
                a.id,
                bytes(free),
                bytes(uncounted)
            );
        }
    }
    text += &format!("\nwould use  {why}\n");
    output::text(&text)
}

/// Every kernel on the chosen device, against the CPU's result.
fn self_test(global: &Global, json: bool) -> Result<()> {
    let (device, why) = Device::choose(global.device.as_deref(), &Since::now())?;
    let answers = wait(probe::answers(&Device::cpu()))?;
    let report = wait(probe::run(&device, &answers))?;
    for check in &report.checks {
        if json {
            output::json(check)?;
        } else {
            let result = if check.passed { format!("right, to {:.1e}", check.error) } else { check.message.clone() };
            output::text(&format!("{:<28} {result}\n", check.kernel))?;
        }
    }
    if !json {
        output::text(&format!("\ndevice  {why}\n"))?;
    }
    let wrong: Vec<&str> = report.checks.iter().filter(|check| !check.passed).map(|check| check.kernel).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let (name, wrong) = (device.name(), wrong.join(", "));
    bail!("{name} computes wrong results in {wrong}; a newer driver may mend that, and --device cpu does without it")
}

/// Times the kernels for products on each device that would be used, and prints which one each kind of shape gets.
fn calibrated(json: bool, global: &Global) -> Result<()> {
    let (chosen, _) = Devices::choose(global.device.as_deref(), &Since::now())?;
    for device in chosen.all() {
        if device.is_cpu() {
            let line = "has one kernel for products: there is nothing to choose";
            match json {
                true => output::json(&json!({ "device": device.name(), "calibrated": false, "why": line }))?,
                false => output::text(&format!("{} {line}\n", device.name()))?,
            }
            continue;
        }
        let Calibration { timed, refused, cut_off, too_slow, choice, .. } =
            calibrate(device, Compute::Auto, &Since::now())?;
        if !json {
            output::text(&format!("{}\n", device.name()))?;
        }
        for t in &timed {
            let taken = choice.for_class(t.class) == t.multiplier;
            let shape = {
                let [m, n, k] = t.sizes;
                format!("{m}x{k}x{n}")
            };
            let (class, kernel) = (t.class.name(), t.multiplier.name());
            match json {
                true => output::json(&json!({
                    "device": device.name(), "class": class, "shape": shape, "kernel": kernel, "seconds": t.seconds,
                    "gflops": t.gflops(), "taken": taken,
                }))?,
                false => output::text(&format!(
                    "{class:<6} {shape:<14} {kernel:<12} {:>9.3} ms {:>9.1} GFLOP/s{}\n",
                    t.seconds * 1e3,
                    t.gflops(),
                    if taken { "  taken" } else { "" }
                ))?,
            }
        }
        for (kernel, problem) in &refused {
            let kernel = kernel.name();
            match json {
                true => output::json(&json!({ "device": device.name(), "kernel": kernel, "problem": problem }))?,
                false => output::text(&format!("{kernel} {problem}\n"))?,
            }
        }
        if cut_off {
            let problem = format!("not every kernel was measured within {MOST_SECONDS} seconds");
            match json {
                true => output::json(&json!({ "device": device.name(), "cut_off": true, "problem": problem }))?,
                false => output::text(&format!("{problem}; the others keep their places\n"))?,
            }
        }
        if !json {
            output::text(&without_matrices(device))?;
            too_slow.map_or(Ok(()), |why| output::text(&format!("{why}\n")))?;
            let all: Vec<_> = Class::ALL.map(|c| format!("{} {}", c.name(), choice.for_class(c).name())).to_vec();
            output::text(&format!("chosen  {}\n", all.join(", ")))?;
        }
    }
    Ok(())
}

fn without_matrices(device: &Device) -> String {
    match device.has_cooperative_matrices() {
        true => String::new(),
        false => "no cooperative matrices with f16 operands and f32 sums: products are in single precision\n".into(),
    }
}

fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 40 => "unlimited".into(),
        n if n >= 1 << 30 => format!("{:.1} GiB", n as f64 / f64::from(1 << 30)),
        n if n >= 1 << 20 => format!("{} MiB", n >> 20),
        n => format!("{} KiB", n >> 10),
    }
}
