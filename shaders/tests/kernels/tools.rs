//! The translations under the Khronos tools: `spirv-val` (Debian `spirv-tools`) and `glslangValidator` (Debian
//! `glslang-tools`) with its HLSL and GLSL front ends.
//!
//! Where a tool is not installed its tests say `SKIPPED name: reason`, which `cargo xtask test` repeats at its end, except where
//! automation runs them (`CI` is set) or where that command has seen to the tool (`TEMPER_MAY_SKIP` is set, and does not
//! list its package): there it is a failure. A check that silently stops running is worse than none.

use std::env;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use naga::AddressSpace;
use temper_shaders::Kernel;

use crate::joined::{Joined, Valid, all_narrow, all_valid};
use crate::report;
use crate::translate::{TARGETS, Target, Translation, translate, translate_with};

const SPIRV_VAL: &str = "spirv-val";
const GLSLANG: &str = "glslangValidator";

/// Why glslang refuses the HLSL of a kernel with workgroup memory although DX12's compilers take it. The refusal is
/// demanded (where a newer tool accepts, the test fails until the exception is removed), and the same text without the
/// statement in question must pass.
const ARRAY_CAST: &str = "array constructor needs one argument per array element";
const CLEARING: &str =
    "naga clears workgroup memory by `(float[256])0`, a cast that glslang's HLSL front end does not know";

/// Why an older `spirv-val` refuses cooperative matrices, which came after it.
const UNKNOWN_CAPABILITY: &str = "Invalid capability operand: 6022";

fn has_workgroup_memory(valid: &Valid) -> bool {
    valid.module.global_variables.iter().any(|(_, variable)| variable.space == AddressSpace::WorkGroup)
}

/// Path of a tool, or `None` after saying that its test is skipped; fails in CI.
fn tool(name: &str, package: &str, test: &str) -> Option<PathBuf> {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        let allowed = env::var("TEMPER_MAY_SKIP").ok();
        let may_skip = allowed.is_none_or(|words| words.split_whitespace().any(|word| word == package));
        let may_skip = may_skip && env::var_os("CI").is_none();
        assert!(may_skip, "{name} is missing; install it with: apt-get install {package}");
        // Written past the test harness, which shows nothing of a test that passes.
        let line = format!("SKIPPED {test}: {name} is missing; apt-get install {package}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("standard error takes a line");
    }
    found
}

/// Runs the tool that judges a target on a translation. `Err` holds what it printed.
fn judge(tool: &PathBuf, target: Target, name: &str, translation: &Translation) -> Result<(), String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(target.to_string().replace(' ', "-"));
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let (bytes, extension) = match translation {
        Translation::Words(words) => (words.iter().flat_map(|word| word.to_le_bytes()).collect(), "spv"),
        Translation::Text(text) => (text.clone().into_bytes(), "comp"),
    };
    let file = folder.join(format!("{name}.{extension}"));
    fs::write(&file, bytes).map_err(|e| e.to_string())?;
    let mut command = Command::new(tool);
    match target {
        Target::SpirV(1, 0) => command.args(["--target-env", "vulkan1.0"]),
        Target::SpirV(1, 3) => command.args(["--target-env", "vulkan1.1"]),
        Target::SpirV(1, 5) => command.args(["--target-env", "vulkan1.2"]),
        Target::SpirV(..) => command.args(["--target-env", "vulkan1.3"]),
        // With -V it also builds SPIR-V, which makes it check more than the grammar.
        Target::Hlsl(_) => command.args(["-D", "-V", "-e", "main", "-S", "comp", "-o", "/dev/null"]),
        Target::Glsl(_) | Target::GlslEs(_) | Target::Msl(..) => command.args(["-S", "comp"]),
    };
    let output = command.arg(&file).output().map_err(|e| format!("{}: {e}", tool.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Judges every kernel in the languages that `wanted` picks, row kernels with both workgroup sizes; exceptions must really
/// be refused, with the words they name.
fn judge_all(tool: &PathBuf, wanted: fn(&Target) -> bool) {
    let whole = all_valid().into_iter().map(|(kernel, _, valid)| (kernel, kernel.stem.to_owned(), valid));
    let narrow =
        all_narrow().into_iter().map(|(kernel, size, valid)| (kernel, format!("{}-{size}", kernel.stem), valid));
    let kernels: Vec<(&Kernel, String, Valid)> = whole.chain(narrow).collect();
    let mut failures = Vec::new();
    let mut checked = 0;
    for target in TARGETS.iter().filter(|target| wanted(target)) {
        for (kernel, name, valid) in kernels.iter().filter(|(kernel, ..)| target.takes(kernel)) {
            checked += 1;
            let verdict = |clear| translate_with(*target, valid, clear).and_then(|t| judge(tool, *target, name, &t));
            let exception = matches!(target, Target::Hlsl(_)) && has_workgroup_memory(valid);
            let complaint = match (verdict(true), exception) {
                (Ok(()), false) => continue,
                (Err(message), _) if kernel.is_cooperative() && message.contains(UNKNOWN_CAPABILITY) => {
                    let line = format!("SKIPPED {name} as {target}: this {SPIRV_VAL} knows no cooperative matrices\n");
                    std::io::stderr().write_all(line.as_bytes()).expect("standard error takes a line");
                    continue;
                }
                (Ok(()), true) => format!("accepted now; remove the exception ({CLEARING})"),
                (Err(message), true) if message.contains(ARRAY_CAST) => match verdict(false) {
                    Ok(()) => continue,
                    Err(message) => format!("beside its exception:\n{message}"),
                },
                (Err(message), _) => message,
            };
            failures.push(format!("{name}: {target}: {complaint}"));
        }
    }
    report("translations under their tools", checked, &failures);
}

fn example(source: &str) -> Valid {
    Joined::new(&[("own.wgsl".into(), source.into())]).check().unwrap_or_else(|e| panic!("{e}"))
}

const EXAMPLE: &str = "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    x[lane] = exp(x[lane]);
}
";

#[test]
fn spirv_val_accepts_every_kernel() {
    if let Some(tool) = tool(SPIRV_VAL, "spirv-tools", "spirv_val_accepts_every_kernel") {
        judge_all(&tool, |target| matches!(target, Target::SpirV(..)));
    }
}

#[test]
fn glslang_accepts_every_kernel_as_hlsl() {
    if let Some(tool) = tool(GLSLANG, "glslang-tools", "glslang_accepts_every_kernel_as_hlsl") {
        judge_all(&tool, |target| matches!(target, Target::Hlsl(_)));
    }
}

#[test]
fn glslang_accepts_every_kernel_as_glsl() {
    if let Some(tool) = tool(GLSLANG, "glslang-tools", "glslang_accepts_every_kernel_as_glsl") {
        judge_all(&tool, |target| matches!(target, Target::Glsl(_) | Target::GlslEs(_)));
    }
}

#[test]
fn spirv_val_refuses_a_broken_module() {
    let Some(tool) = tool(SPIRV_VAL, "spirv-tools", "spirv_val_refuses_a_broken_module") else { return };
    let target = Target::SpirV(1, 3);
    let Ok(Translation::Words(mut words)) = translate(target, &example(EXAMPLE)) else { panic!("SPIR-V is words") };
    assert_eq!(judge(&tool, target, "accepted", &Translation::Words(words.clone())), Ok(()));
    // The last instruction ends the function; without it the module is not whole.
    words.pop();
    assert!(judge(&tool, target, "broken", &Translation::Words(words)).is_err());
}

#[test]
fn glslang_refuses_broken_texts() {
    let Some(tool) = tool(GLSLANG, "glslang-tools", "glslang_refuses_broken_texts") else { return };
    for target in
        TARGETS.iter().filter(|target| matches!(target, Target::Hlsl(_) | Target::Glsl(_) | Target::GlslEs(_)))
    {
        let Ok(Translation::Text(text)) = translate(*target, &example(EXAMPLE)) else { panic!("{target} is text") };
        let broken = text.replacen("exp(", "exponential(", 1);
        assert_ne!(broken, text, "{target}: the example has changed its form");
        assert_eq!(judge(&tool, *target, "accepted", &Translation::Text(text)), Ok(()), "{target}");
        assert!(judge(&tool, *target, "broken", &Translation::Text(broken)).is_err(), "{target}");
    }
}

#[test]
fn the_exception_is_for_some_kernels_and_not_for_all() {
    let kernels = all_valid();
    let excepted = kernels.iter().filter(|(.., valid)| has_workgroup_memory(valid)).count();
    assert!(excepted > 0 && excepted < kernels.len(), "{excepted} of {}", kernels.len());
}
