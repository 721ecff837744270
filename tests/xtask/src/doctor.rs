//! `doctor`: what this machine has and lacks, without changing anything.

use std::process::Command;

use crate::{Failure, cooperative, setup, smollm2};

/// Prints one line for each thing; fails if something that the tests need is missing.
pub fn run() -> Result<(), Failure> {
    let mut complete = true;
    let mut needed = |present: bool, what: &str, remedy: &str| {
        complete &= present;
        line(present, what, remedy);
    };
    println!("{}", first_line("rustc", &["--version"]).unwrap_or_else(|| "rustc does not run".into()));
    println!("{} cores", std::thread::available_parallelism().map_or(1, usize::from));

    println!("\nfor `cargo xtask test` (which installs what it may)");
    for name in setup::COMPONENTS {
        needed(setup::has_component(name), name, &format!("rustup component add {name}"));
    }
    for name in setup::TARGETS {
        needed(setup::has_target(name), name, &format!("rustup target add {name}"));
    }
    for tool in &setup::TOOLS {
        needed((tool.present)(), tool.what, &format!("Debian, Ubuntu: apt-get install {}", tool.package));
    }
    let python = setup::on_path("python3");
    line(python, "python3 (fetches the SmolLM2 test model)", "the tests of that model are left out without it");
    let model = smollm2::stored();
    let what =
        model.as_ref().map_or("SmolLM2 test model".into(), |path| format!("SmolLM2 test model, {}", path.display()));
    line(model.is_some(), &what, "cargo xtask smollm2");

    let driver = "software driver with cooperative matrices";
    line(cooperative::stored().is_some(), driver, "cargo xtask cooperative (as root); else its tests are left out");

    println!("\nGPU adapters");
    match adapters() {
        Some(names) if names.is_empty() => println!("  none that Vulkan can see: training uses the CPU"),
        Some(names) => names.iter().for_each(|name| println!("  {name}")),
        None => println!("  vulkaninfo is not installed (package vulkan-tools); `temper devices` lists them too"),
    }
    if complete { Ok(()) } else { Err("something that the tests need is missing; see above".into()) }
}

fn line(present: bool, what: &str, remedy: &str) {
    if present {
        println!("  ok       {what}");
    } else {
        println!("  missing  {what}: {remedy}");
    }
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Names of the Vulkan adapters, or `None` where `vulkaninfo` cannot be asked.
fn adapters() -> Option<Vec<String>> {
    let output = Command::new("vulkaninfo").arg("--summary").output().ok()?;
    Some(device_names(&String::from_utf8_lossy(&output.stdout)))
}

fn device_names(summary: &str) -> Vec<String> {
    let field = |line: &str, name: &str| {
        line.trim().strip_prefix(name).and_then(|rest| rest.trim_start().strip_prefix('=')).map(|v| v.trim().to_owned())
    };
    summary.lines().filter_map(|line| field(line, "deviceName")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapter_names_are_read_from_the_summary_of_vulkaninfo() {
        let summary =
            "Devices:\n========\nGPU0:\n\tapiVersion         = 1.3.230\n\tdeviceName         = llvmpipe (LLVM 15)\n";
        assert_eq!(device_names(summary), ["llvmpipe (LLVM 15)"]);
        assert!(device_names("").is_empty());
    }
}
