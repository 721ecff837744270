//! Rules of the shader contract that are not naga's job: what a default browser's limits allow, and what our launch
//! layer relies on. `README.md` words them for authors.

use naga::proc::{IndexableLength, Layouter};
use naga::{AddressSpace, ArraySize, Scalar, ScalarKind, ShaderStage, StorageAccess, TypeInner, VectorSize};

use crate::joined::{Joined, Valid, all_valid};
use crate::report;

/// Invocations of a workgroup that every WebGPU device allows.
const MAX_INVOCATIONS: u32 = 256;
/// Bytes of workgroup memory that every WebGPU device allows.
const MAX_WORKGROUP_BYTES: u32 = 16 * 1024;
/// And those that devices with cooperative matrices have.
const MAX_COOPERATIVE_BYTES: u32 = 32 * 1024;
/// What the texts of those may ask for.
const COOPERATIVE_DIRECTIVES: [&str; 2] = ["enable f16;", "enable wgpu_cooperative_matrix;"];
/// Storage bindings of a stage that every WebGPU device allows.
const MAX_STORAGE_BINDINGS: usize = 8;
/// And those that devices with cooperative matrices have.
const MAX_COOPERATIVE_BINDINGS: usize = 10;
/// Characters of a line.
const MAX_LINE: usize = 120;

/// Everything about a kernel that breaks a house rule; other rules where it needs cooperative matrices.
pub fn violations(joined: &Joined, valid: &Valid, cooperative: bool) -> Vec<String> {
    let mut found = Vec::new();
    entry_point(valid, &mut found);
    workgroup_memory(valid, cooperative, &mut found);
    bindings(valid, cooperative, &mut found);
    text(joined, valid, cooperative, &mut found);
    found
}

fn entry_point(valid: &Valid, found: &mut Vec<String>) {
    let [entry] = valid.module.entry_points.as_slice() else {
        found.push(format!("{} entry points; a file has one", valid.module.entry_points.len()));
        return;
    };
    if entry.name != "main" || entry.stage != ShaderStage::Compute {
        found.push(format!("the entry point is {:?} {}; it must be compute `main`", entry.stage, entry.name));
    }
    let [x, y, z] = entry.workgroup_size;
    if y != 1 || z != 1 {
        found.push(format!("a workgroup of {x} x {y} x {z}; ours are one-dimensional"));
    }
    let invocations = x.saturating_mul(y).saturating_mul(z);
    if invocations > MAX_INVOCATIONS {
        found.push(format!("{invocations} invocations a workgroup; {MAX_INVOCATIONS} are allowed everywhere"));
    }
    match constant(valid, "WORKGROUP_SIZE") {
        Some(size) if size == x => {}
        Some(size) => found.push(format!("WORKGROUP_SIZE is {size}, but @workgroup_size says {x}")),
        None => found.push("no `const` or `override WORKGROUP_SIZE: u32`".into()),
    }
}

fn workgroup_memory(valid: &Valid, cooperative: bool, found: &mut Vec<String>) {
    let context = valid.module.to_ctx();
    let mut layouter = Layouter::default();
    layouter.update(context).expect("a valid module has layouts");
    let bytes: u32 = valid
        .module
        .global_variables
        .iter()
        .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
        .map(|(_, variable)| {
            let stride = match valid.module.types[variable.ty].inner {
                // The length of an array that an override decided is not in its layout.
                TypeInner::Array { size, stride, .. } => match size.resolve(context) {
                    Ok(IndexableLength::Known(length)) => length * stride,
                    other => panic!("an array in workgroup memory of length {other:?}"),
                },
                _ => layouter[variable.ty].to_stride(),
            };
            stride.next_multiple_of(16)
        })
        .sum();
    let most = if cooperative { MAX_COOPERATIVE_BYTES } else { MAX_WORKGROUP_BYTES };
    if bytes > most {
        found.push(format!("{bytes} bytes of workgroup memory; {most} are allowed everywhere"));
    }
}

fn bindings(valid: &Valid, cooperative: bool, found: &mut Vec<String>) {
    let module = &valid.module;
    let mut storage = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let name = variable.name.as_deref().unwrap_or("?");
        let inner = &module.types[variable.ty].inner;
        match variable.space {
            AddressSpace::Uniform => {
                let at = variable.binding.map(|b| (b.group, b.binding));
                if name != "params" || at != Some((0, 0)) {
                    found.push(format!("uniform `{name}` at {at:?}; the only one is `params` at group 0, binding 0"));
                }
                params(valid, inner, found);
            }
            AddressSpace::Storage { access } => {
                if access != StorageAccess::LOAD | StorageAccess::STORE {
                    // cubecl carves tensors out of shared buffers, and wgpu refuses one buffer under two usages.
                    found.push(format!("storage `{name}` is not read_write"));
                }
                let four_bytes = match *inner {
                    TypeInner::Array { base, size: ArraySize::Dynamic, .. } => match module.types[base].inner {
                        TypeInner::Scalar(Scalar::F32 | Scalar::U32) => true,
                        TypeInner::Vector { size: VectorSize::Quad, scalar } => {
                            scalar == Scalar::F32 || scalar == Scalar::U32 || cooperative && scalar == Scalar::F16
                        }
                        _ => false,
                    },
                    _ => false,
                };
                if !four_bytes {
                    found.push(format!("storage `{name}` is no array of f32 or u32, or of vectors of four"));
                }
                let at = variable.binding.expect("validation demands a binding");
                if at.group != 0 {
                    found.push(format!("storage `{name}` is in group {}; ours are in group 0", at.group));
                }
                storage.push(at.binding);
            }
            _ => {}
        }
    }
    let most = if cooperative { MAX_COOPERATIVE_BINDINGS } else { MAX_STORAGE_BINDINGS };
    if storage.len() > most {
        found.push(format!("{} storage bindings; {most} are allowed everywhere", storage.len()));
    }
    storage.sort_unstable();
    if storage.is_empty() || storage.iter().zip(1..).any(|(&have, want)| have != want) {
        found.push(format!("storage bindings {storage:?}; they count from 1 on"));
    }
}

fn params(valid: &Valid, inner: &TypeInner, found: &mut Vec<String>) {
    let TypeInner::Struct { members, .. } = inner else {
        found.push("`params` is not a struct".into());
        return;
    };
    for (index, member) in members.iter().enumerate() {
        let name = member.name.as_deref().unwrap_or("?");
        match valid.module.types[member.ty].inner {
            TypeInner::Scalar(Scalar { kind: ScalarKind::Uint | ScalarKind::Float, width: 4 }) => {}
            ref other => found.push(format!("params.{name} is {other:?}; only u32 and f32 are written by the host")),
        }
        if member.offset as usize != 4 * index {
            found.push(format!("params.{name} lies at byte {}; fields follow each other without gaps", member.offset));
        }
    }
}

fn text(joined: &Joined, valid: &Valid, cooperative: bool, found: &mut Vec<String>) {
    let text = &joined.text;
    if !text.ends_with('\n') {
        found.push("the file does not end with a line feed".into());
    }
    let mut before = "";
    for (line, number) in text.lines().zip(1..) {
        let (file, own_line) = joined.place(number);
        let mut complain = |problem: &str| found.push(format!("shaders/{file}:{own_line}: {problem}\n    {line}"));
        if line.contains("{{") {
            complain("`{{` is a hole to template engines, which would delete what is inside");
        }
        let code = line.trim_start();
        let directive = ["enable ", "requires ", "diagnostic"].iter().any(|word| code.starts_with(word));
        if directive && !(cooperative && COOPERATIVE_DIRECTIVES.contains(&code)) {
            complain("directives ask for more than a default browser grants");
        }
        if (code.starts_with("workgroupBarrier") || code.starts_with("storageBarrier"))
            && !before.trim_start().starts_with("//")
        {
            complain("a barrier needs a comment above it that says what breaks without it");
        }
        if !code.starts_with("//") && (code.contains("e38") || code.contains("e+38")) {
            complain("Chrome refuses 3.4028235e38 (naga does not): the largest f32 is 0x1.fffffep+127");
        }
        if line.chars().count() > MAX_LINE {
            complain("longer than 120 characters");
        }
        if line.contains('\t') || line.ends_with(' ') {
            complain("tab or trailing space");
        }
        before = line;
    }
    for word in ["// Bindings\n", "// Launch: ", "Before", "After: "] {
        if !text.contains(word) {
            found.push(format!("the header lacks `{}`", word.trim()));
        }
    }
    for (_, variable) in valid.module.global_variables.iter() {
        if let (AddressSpace::Storage { .. }, Some(name), Some(at)) =
            (variable.space, &variable.name, &variable.binding)
        {
            let row = format!("//   {} {name} ", at.binding);
            if !text.lines().any(|line| line.starts_with(&row)) {
                found.push(format!("the header has no line `{row}[shape] in|out ...`"));
            }
        }
    }
}

/// Value of a module-scope `const` or `override` of type u32.
pub fn constant(valid: &Valid, name: &str) -> Option<u32> {
    match literal(valid, name)? {
        naga::Literal::U32(value) => Some(value),
        _ => None,
    }
}

/// Value of a module-scope `const` or `override`.
pub fn literal(valid: &Valid, name: &str) -> Option<naga::Literal> {
    // An override is a constant only where it was resolved; a constant that nothing needs is only declared.
    [&valid.declared, &valid.module].into_iter().find_map(|module| {
        let (_, constant) = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name))?;
        match module.global_expressions[constant.init] {
            naga::Expression::Literal(literal) => Some(literal),
            _ => None,
        }
    })
}

#[test]
fn every_kernel_keeps_the_house_rules() {
    let kernels = all_valid();
    let failures: Vec<String> = kernels
        .iter()
        .flat_map(|(kernel, joined, valid)| {
            violations(joined, valid, kernel.is_cooperative())
                .into_iter()
                .map(|problem| format!("{}: {problem}", kernel.stem))
        })
        .collect();
    report("house rules", kernels.len(), &failures);
}

/// A kernel that keeps every rule; the cases below break one each.
const GOOD: &str = "// Doubles.
//
// Bindings
//   1 x [count]  in/out
// Launch: one invocation an element. Before: nothing. After: nothing.

struct Params {
    count: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;

const WORKGROUP_SIZE: u32 = 64u;

var<workgroup> shared_values: array<f32, 64>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(local_invocation_index) lane: u32) {
    shared_values[lane] = params.scale;
    // Without this barrier the value of another invocation is read too early.
    workgroupBarrier();
    if (lane < params.count) {
        x[lane] = x[lane] * shared_values[63u - lane];
    }
}
";

fn violations_after(from: &str, to: &str) -> Vec<String> {
    assert!(from.is_empty() || GOOD.contains(from), "{from}");
    let changed = if from.is_empty() { GOOD.to_owned() } else { GOOD.replace(from, to) };
    let joined = Joined::new(&[("own.wgsl".into(), changed)]);
    let valid = joined.check().unwrap_or_else(|e| panic!("the example must be legal WGSL: {e}"));
    violations(&joined, &valid, false)
}

#[test]
fn a_kernel_that_keeps_the_rules_is_accepted() {
    assert_eq!(violations_after("", ""), Vec::<String>::new());
}

#[test]
fn each_rule_refuses_a_kernel_that_breaks_it() {
    for (from, to, expected) in [
        ("fn main(", "fn run(", "it must be compute `main`"),
        ("WORKGROUP_SIZE: u32 = 64u", "WORKGROUP_SIZE: u32 = 257u", "257 invocations"),
        ("@workgroup_size(WORKGROUP_SIZE)", "@workgroup_size(32)", "@workgroup_size says 32"),
        ("@workgroup_size(WORKGROUP_SIZE)", "@workgroup_size(WORKGROUP_SIZE, 2)", "one-dimensional"),
        ("array<f32, 64>", "array<f32, 4097>", "16400 bytes of workgroup memory"),
        (
            "const WORKGROUP_SIZE: u32 = 64u;\n\nvar<workgroup> shared_values: array<f32, 64>;",
            "override WORKGROUP_SIZE: u32 = 64u;\n\nvar<workgroup> shared_values: array<f32, 65u * WORKGROUP_SIZE>;",
            "16640 bytes of workgroup memory",
        ),
        (
            "var<storage, read_write> x: array<f32>;",
            "var<storage, read_write> x: array<vec2<f32>>;",
            "is no array of f32",
        ),
        ("@binding(1) var<storage, read_write>", "@binding(2) var<storage, read_write>", "count from 1"),
        ("@group(0) @binding(1)", "@group(1) @binding(1)", "is in group 1"),
        ("uniform> params", "uniform> settings", "the only one is `params`"),
        ("scale: f32,", "scale: i32,", "only u32 and f32"),
        ("    count: u32,", "    @align(16) count: u32,\n    @align(16) other: f32,", "without gaps"),
        ("// Doubles.", "// Doubles {{ hole }}.", "`{{` is a hole"),
        ("// Doubles.", "enable f16;\n// Doubles.", "directives"),
        (
            "    // Without this barrier the value of another invocation is read too early.\n",
            "",
            "a barrier needs a comment",
        ),
        ("* shared_values", "* min(3.4028235e38, 1.0) * shared_values", "0x1.fffffep+127"),
        ("// Launch: ", "// Start: ", "the header lacks `// Launch:`"),
        ("//   1 x [count]  in/out", "//   1 y [count]  in/out", "the header has no line `//   1 x "),
    ] {
        // Some examples must stay legal to reach the rule, so names follow the change.
        let mut source = GOOD.replace(from, to);
        assert_ne!(source, GOOD, "`{from}` is not in the example");
        match expected {
            "the only one is `params`" => source = source.replace("params.", "settings."),
            "only u32 and f32" => source = source.replace("params.scale", "f32(params.scale)"),
            "is no array of f32" => {
                source = source.replace("shared_values[63u - lane];", "vec2<f32>(shared_values[63u - lane]);")
            }
            _ => {}
        }
        let joined = Joined::new(&[("own.wgsl".into(), source)]);
        let capabilities = naga::valid::Capabilities::default() | naga::valid::Capabilities::SHADER_FLOAT16;
        let valid = joined
            .check_with(capabilities)
            .unwrap_or_else(|e| panic!("the example for `{expected}` must be legal: {e}"));
        let found = violations(&joined, &valid, false);
        assert!(found.iter().any(|problem| problem.contains(expected)), "`{expected}` was not found: {found:?}");
    }
}

#[test]
fn read_only_storage_and_too_many_bindings_are_refused() {
    let mut source = GOOD.replace("read_write> x", "read> x").replace("x[lane] = ", "_ = ");
    for binding in 2..10 {
        source.push_str(&format!("@group(0) @binding({binding}) var<storage, read_write> x{binding}: array<f32>;\n"));
    }
    let joined = Joined::new(&[("own.wgsl".into(), source)]);
    let found = violations(&joined, &joined.check().unwrap_or_else(|e| panic!("{e}")), false);
    assert!(found.iter().any(|problem| problem.contains("is not read_write")), "{found:?}");
    assert!(found.iter().any(|problem| problem.contains("9 storage bindings")), "{found:?}");
}
