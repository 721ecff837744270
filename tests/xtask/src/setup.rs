//! What the machine must offer before anything is built: Rust components and targets, and Debian packages.
//!
//! Missing things are installed where that needs no question (rustup; apt as root or with a sudo that asks for no
//! password). Where it would, the exact line is printed and the run stops, since the tests could only fail.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;

/// Targets that are compiled beside the host's own.
pub const TARGETS: [&str; 3] = ["wasm32-unknown-unknown", "x86_64-pc-windows-msvc", "aarch64-apple-darwin"];

/// Cargo subcommands that a minimal toolchain lacks, and the rustup component of each.
pub const COMPONENTS: [&str; 2] = ["clippy", "rustfmt"];

/// Something from the distribution: the Debian package and how to see that it is there.
pub struct Tool {
    /// What it is for.
    pub what: &'static str,
    /// Debian and Ubuntu package.
    pub package: &'static str,
    /// True if this machine has it.
    pub present: fn() -> bool,
}

/// What the tests use beside Rust.
pub const TOOLS: [Tool; 6] = [
    Tool { what: "software Vulkan driver", package: "mesa-vulkan-drivers", present: has_software_vulkan },
    Tool { what: "SPIR-V validator", package: "spirv-tools", present: || on_path("spirv-val") },
    Tool { what: "HLSL front end", package: "glslang-tools", present: || on_path("glslangValidator") },
    Tool { what: "Chromium, which the browser tests drive", package: "chromium", present: has_chromium },
    Tool { what: "Node.js 18 or later, which runs them", package: "nodejs", present: has_node },
    Tool { what: "npm, which brings what they need", package: "npm", present: || on_path("npm") },
];

/// The names that Chromium's packages use, as the browser tests know them too.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What the browser tests need and this machine lacks. Where packages can be installed, [`ensure`] has seen to it.
pub fn missing_for_browser_tests() -> Vec<&'static str> {
    let needed = TOOLS.iter().filter(|tool| ["chromium", "nodejs", "npm"].contains(&tool.package));
    needed.filter(|tool| !(tool.present)()).map(|tool| tool.package).collect()
}

/// Installs what is missing, or says how.
pub fn ensure() -> Result<(), Failure> {
    ensure_rust()?;
    ensure_packages()
}

/// The Rust side alone.
pub fn ensure_rust() -> Result<(), Failure> {
    let components: Vec<&str> = COMPONENTS.into_iter().filter(|name| !has_component(name)).collect();
    let targets: Vec<&str> = TARGETS.into_iter().filter(|name| !has_target(name)).collect();
    for (kind, missing) in [("component", components), ("target", targets)] {
        if missing.is_empty() {
            continue;
        }
        let line = format!("rustup {kind} add {}", missing.join(" "));
        println!("== {line}");
        if !succeeds(Command::new("rustup").args([kind, "add"]).args(&missing)) {
            return Err(format!("the tests need Rust {kind}s that are not installed; run:\n  {line}"));
        }
    }
    Ok(())
}

fn ensure_packages() -> Result<(), Failure> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !(tool.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if !on_path("apt-get") {
        // macOS has Metal, Windows has DX12 and WARP; tests that need one of these tools name it.
        for tool in missing {
            println!("== not here: {} (Debian package {}); tests that need it will say so", tool.what, tool.package);
        }
        return Ok(());
    }
    install(&packages)
}

/// Installs Debian packages, or says how.
pub fn install(packages: &[&str]) -> Result<(), Failure> {
    let line = format!("apt-get update && sudo apt-get install -y --no-install-recommends {}", packages.join(" "));
    let advice = format!("the tests need {}; run:\n  sudo {line}", packages.join(", "));
    let as_root: &[&str] = if is_root() {
        &["env"]
    } else if succeeds(quietly(Command::new("sudo").args(["-n", "true"]))) {
        &["sudo", "-n", "env"]
    } else {
        return Err(advice);
    };
    let apt = |arguments: &[&str]| {
        println!("== apt-get {}", arguments.join(" "));
        succeeds(
            Command::new(as_root[0])
                .args(&as_root[1..])
                .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
                .args(arguments),
        )
    };
    // A broken extra repository fails the update but may leave what is needed installable; a fresh container has no lists.
    apt(&["update"]);
    let install: Vec<&str> =
        ["install", "-y", "--no-install-recommends"].into_iter().chain(packages.iter().copied()).collect();
    if apt(&install) { Ok(()) } else { Err(advice) }
}

/// True if cargo has this subcommand.
pub fn has_component(name: &str) -> bool {
    let subcommand = if name == "rustfmt" { "fmt" } else { name };
    succeeds(quietly(Command::new("cargo").args([subcommand, "--version"])))
}

/// True if the standard library for this target is there (also where rustup is not).
pub fn has_target(name: &str) -> bool {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Path::new(&sysroot).join("lib/rustlib").join(name).join("lib").is_dir()
}

/// True if a program of this name is on the path.
pub fn on_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    let file = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&path).any(|folder| folder.join(&file).is_file())
}

/// True if Mesa's lavapipe is registered with the Vulkan loader.
fn has_software_vulkan() -> bool {
    ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("lvp_icd"))
}

fn has_chromium() -> bool {
    std::env::var_os("CHROMIUM").is_some() || CHROMIUM.into_iter().any(on_path)
}

fn has_node() -> bool {
    let output = Command::new("node").arg("--version").output();
    output.is_ok_and(|output| major(&String::from_utf8_lossy(&output.stdout)).is_some_and(|major| major >= 18))
}

/// 20 of `v20.1.0`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// True if this process may do everything.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn quietly(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// True if the command could be started and ended well.
fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_not_taken_for_present() {
        assert!(!on_path("no-such-program-anywhere"));
        assert!(!has_target("no-such-target"));
        assert!(!has_component("no-such-subcommand"));
        assert!(!succeeds(&mut Command::new("no-such-program-anywhere")));
    }

    #[test]
    fn nodes_version_is_compared_as_a_number() {
        assert_eq!(major("v20.20.2\n"), Some(20));
        assert_eq!(major("v9.1.0"), Some(9));
        assert_eq!(major("command not found"), None);
    }

    #[test]
    fn what_runs_this_test_is_seen_as_present() {
        assert!(on_path("cargo"));
        assert!(succeeds(quietly(Command::new("cargo").arg("--version"))));
    }
}
