//! `cooperative`: a software Vulkan driver with cooperative matrices, on which the kernels for tensor cores are tested.
//!
//! Mesa's software driver has them from 25.2 on, which no stable Debian ships. So a small root folder of a newer Debian is
//! made in the cache folder (debootstrap, half a GB, a minute), and a test program runs with that folder's loader, C library
//! and driver: nothing of the system is changed, and running needs no rights. Making it does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step::Step;
use crate::{Failure, setup, smollm2};

/// The Debian whose Mesa is taken.
const SUITE: &str = "forky";
/// Where its packages are, where the system names no mirror of its own.
const MIRROR: &str = "http://deb.debian.org/debian";
/// Written last, so that a folder that was not finished is not taken for one.
const READY: &str = ".ready";
/// Where the folder keeps its libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Test programs with such tests.
pub const PROGRAMS: [&str; 3] = ["tests/kernels", "tests/models", "tests/smollm2"];
/// What the names of these tests contain.
pub const FILTER: &str = "half_precision";
/// What a test that is left out lacks, for `TEMPER_MAY_SKIP`.
pub const THING: &str = "cooperative";

/// The root folder, made if it is not there.
///
/// # Errors
/// Why it cannot be had here.
pub fn fetch() -> Result<PathBuf, Failure> {
    let folder = smollm2::cache_folder()?.join("mesa-cooperative");
    if is_ready(&folder) {
        return Ok(folder);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("Mesa's software driver for it runs on Linux on x86-64 here".into());
    }
    if !setup::is_root() {
        return Err("making its root folder needs root: run `sudo -E cargo xtask cooperative` once".into());
    }
    if !setup::on_path("debootstrap") {
        setup::install(&["debootstrap"])?;
    }
    // What is left of an earlier try would stop this one.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("== a Debian {SUITE} with Mesa's software driver, into {}", folder.display());
    let script = Path::new("/usr/share/debootstrap/scripts/sid");
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", "--include=mesa-vulkan-drivers,libvulkan1", SUITE]);
    let made = command.arg(&folder).arg(mirror()).arg(script).stdout(Stdio::null()).status();
    let made = made.map_err(|error| format!("debootstrap could not be started: {error}"))?;
    if !made.success() || !driver(&folder).is_file() {
        return Err(format!("debootstrap could not make a Debian {SUITE} (is there a network?); its words are above"));
    }
    std::fs::write(folder.join(READY), "").map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// The root folder, if it was made.
pub fn stored() -> Option<PathBuf> {
    smollm2::cache_folder().ok().map(|cache| cache.join("mesa-cooperative")).filter(|folder| is_ready(folder))
}

fn is_ready(folder: &Path) -> bool {
    folder.join(READY).is_file() && driver(folder).is_file()
}

fn driver(folder: &Path) -> PathBuf {
    folder.join("usr/share/vulkan/icd.d/lvp_icd.json")
}

/// The system's own mirror of Debian, which may be the only one that can be reached.
fn mirror() -> String {
    let lists = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
    let text: String = lists.iter().filter_map(|list| std::fs::read_to_string(list).ok()).collect();
    mirror_in(&text).unwrap_or(MIRROR).to_owned()
}

/// The first address of a mirror of Debian, but no archive of security updates or of one day.
fn mirror_in(sources: &str) -> Option<&str> {
    let lines = sources.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    words
        .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
        .find(|word| word.trim_end_matches('/').ends_with("/debian"))
}

/// The tests for tensor cores in a test program, on the driver in `root`.
pub fn step(name: &str, program: &str, crate_folder: &Path, root: &Path) -> Step {
    let libraries = root.join(LIBRARIES).display().to_string();
    Step::program(name, &format!("{libraries}/ld-linux-x86-64.so.2"), "--library-path")
        .argument(&libraries)
        .argument(program)
        .argument(FILTER)
        .inside(crate_folder)
        .with("VK_DRIVER_FILES", driver(root).display().to_string())
        .hidden("CARGO_MANIFEST_DIR", crate_folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_mirror_is_found_in_both_styles_of_lists() {
        let old = "# deb http://old.example/debian x\ndeb http://security.example/debian-security x\n\
                   deb http://near.example/debian x main\n";
        assert_eq!(mirror_in(old), Some("http://near.example/debian"));
        assert_eq!(mirror_in("Types: deb\nURIs: http://deb.debian.org/debian\n"), Some(MIRROR));
        assert_eq!(mirror_in("deb http://archive.example/ubuntu x main\n"), None);
    }

    #[test]
    fn a_folder_that_was_not_finished_is_not_taken_for_one() {
        assert!(!is_ready(Path::new("no-such-folder")));
    }

    #[test]
    fn the_tests_run_with_the_folders_own_loader_and_driver() {
        let line =
            step("tests/kernels-cooperative", "/d/deps/kernels-2", Path::new("/t/tests"), Path::new("/r")).line();
        assert_eq!(
            line,
            "cd /t/tests && VK_DRIVER_FILES=/r/usr/share/vulkan/icd.d/lvp_icd.json \
             /r/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path /r/usr/lib/x86_64-linux-gnu \
             /d/deps/kernels-2 half_precision"
        );
    }
}
