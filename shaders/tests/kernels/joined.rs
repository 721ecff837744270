//! Reads the folder as it is on disk, joins a kernel with its shared parts, and lets naga judge the result.

use std::fs;
use std::path::{Path, PathBuf};

use naga::back::PipelineConstants;
use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage, SourceLocation};

use crate::report;

/// A kernel's text with the files it came from, so that a line can be named as the author knows it.
pub struct Joined {
    /// Text handed to naga.
    pub text: String,
    /// File name and its first line in `text` (from 1), in order.
    parts: Vec<(String, u32)>,
}

/// A text that naga accepted, as a pipeline makes it.
pub struct Valid {
    /// The module with every `override` replaced by its value: what the writers of other languages get.
    pub module: Module,
    /// What validation learned about it.
    pub info: ModuleInfo,
    /// The module as it was parsed, with all that the text declares.
    pub declared: Module,
}

impl Valid {
    /// Names that the text declares with `override`.
    pub fn overrides(&self) -> Vec<&str> {
        self.declared.overrides.iter().filter_map(|(_, o)| o.name.as_deref()).collect()
    }
}

impl Joined {
    /// Joins `(file name, text)` pairs.
    pub fn new(files: &[(String, String)]) -> Self {
        let mut text = String::new();
        let mut parts = Vec::new();
        for (name, part) in files {
            parts.push((name.clone(), text.lines().count() as u32 + 1));
            text.push_str(part);
        }
        Self { text, parts }
    }

    /// Joins a kernel of the table from the files on disk.
    pub fn of(kernel: &temper_shaders::Kernel) -> Self {
        let shared = kernel.shared.iter().map(|stem| format!("shared/{stem}.wgsl"));
        let format = kernel.format.map(|stem| format!("formats/{stem}.wgsl"));
        let files: Vec<_> = shared
            .chain(format)
            .chain([format!("{}.wgsl", kernel.file)])
            .map(|name| {
                let text = fs::read_to_string(root().join(&name)).unwrap_or_else(|e| panic!("shaders/{name}: {e}"));
                (name, text)
            })
            .collect();
        Self::new(&files)
    }

    /// The file and the line in it of a line of the joined text.
    pub fn place(&self, line: u32) -> (&str, u32) {
        let (name, first) = self.parts.iter().rev().find(|(_, first)| *first <= line).expect("lines count from 1");
        (name, line - first + 1)
    }

    /// Parses and validates with what every WebGPU device offers: naga's default capabilities, all validation on.
    pub fn check(&self) -> Result<Valid, String> {
        self.check_with(Capabilities::default())
    }

    /// As [`Self::check`], with capabilities of the caller's choice (to make broken examples for later stages).
    pub fn check_with(&self, capabilities: Capabilities) -> Result<Valid, String> {
        self.check_for(capabilities, &[])
    }

    /// As [`Self::check_with`], for a pipeline that gives overrides these values.
    pub fn check_for(&self, capabilities: Capabilities, constants: &[(&str, u32)]) -> Result<Valid, String> {
        let module = naga::front::wgsl::parse_str(&self.text).map_err(|e| {
            self.describe(e.location(&self.text), e.message(), &e.emit_to_string_with_path(&self.text, "joined text"))
        })?;
        let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module).map_err(|e| {
            let rendered = e.emit_to_string_with_path(&self.text, "joined text");
            self.describe(e.location(&self.text), &e.as_inner().to_string(), &rendered)
        })?;
        let declared = module.clone();
        // A text without overrides stays as it is: resolving them drops what no entry point needs.
        if module.overrides.is_empty() {
            return Ok(Valid { module, info, declared });
        }
        let mut values = PipelineConstants::default();
        values.extend(constants.iter().map(|(name, value)| ((*name).to_owned(), f64::from(*value))));
        let (module, info) = process_overrides(&declared, &info, Some((ShaderStage::Compute, "main")), &values)
            .map_err(|e| self.describe(None, &e.to_string(), ""))?;
        Ok(Valid { module: module.into_owned(), info: info.into_owned(), declared })
    }

    /// `file:line:column: message`, the line with a caret under it, and naga's own rendering with its notes.
    fn describe(&self, location: Option<SourceLocation>, message: &str, rendered: &str) -> String {
        let Some(at) = location else {
            let (name, _) = self.parts.last().expect("a joined text has parts");
            return format!("shaders/{name}: {message}\n{rendered}");
        };
        let (name, line) = self.place(at.line_number);
        let code = self.text.lines().nth(at.line_number as usize - 1).unwrap_or_default();
        let caret = " ".repeat(at.line_position as usize - 1);
        format!("shaders/{name}:{line}:{}: {message}\n    {code}\n    {caret}^\n{rendered}", at.line_position)
    }
}

/// The folder of the crate, which is the folder of the shaders. Cargo says at run time where that is: a shared target folder
/// outlives a checkout.
pub fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
}

/// Stems of the `.wgsl` files of a folder, sorted.
pub fn stems(folder: &Path) -> Vec<String> {
    let mut stems: Vec<String> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"))
        .map(|path| path.file_stem().expect("a file has a stem").to_string_lossy().into_owned())
        .collect();
    stems.sort();
    stems
}

/// What a kernel may need: every WebGPU device's, or for cooperative ones what naga calls the features of such a device.
pub fn capabilities(kernel: &temper_shaders::Kernel) -> Capabilities {
    match kernel.is_cooperative() {
        true => {
            Capabilities::default()
                | Capabilities::COOPERATIVE_MATRIX
                | Capabilities::SHADER_FLOAT16
                | Capabilities::SUBGROUP
        }
        false => Capabilities::default(),
    }
}

/// Every kernel, joined and valid; panics with all failures if one is not.
pub fn all_valid() -> Vec<(&'static temper_shaders::Kernel, Joined, Valid)> {
    let mut failures = Vec::new();
    let mut valid = Vec::new();
    for kernel in temper_shaders::KERNELS {
        let joined = Joined::of(kernel);
        match joined.check_with(capabilities(kernel)) {
            Ok(checked) => valid.push((kernel, joined, checked)),
            Err(message) => failures.push(message),
        }
    }
    report("validation", valid.len() + failures.len(), &failures);
    valid
}

/// Every row kernel for the pipeline of a software adapter.
pub fn all_narrow() -> Vec<(&'static temper_shaders::Kernel, u32, Valid)> {
    let rows = temper_shaders::KERNELS.iter().filter_map(|kernel| Some((kernel, kernel.narrow_size()?)));
    rows.map(|(kernel, size)| {
        let constants = [(temper_shaders::WORKGROUP_SIZE, size)];
        let valid = Joined::of(kernel).check_for(Capabilities::default(), &constants);
        (kernel, size, valid.unwrap_or_else(|message| panic!("{}: {message}", kernel.stem)))
    })
    .collect()
}

#[test]
fn every_row_kernel_is_valid_with_the_workgroup_of_a_software_adapter() {
    let narrow = all_narrow();
    assert!(!narrow.is_empty(), "no kernel works on rows");
    for (kernel, size, valid) in narrow {
        assert_eq!(valid.module.entry_points[0].workgroup_size, [size, 1, 1], "{}", kernel.stem);
    }
}

fn broken(shared: &str, own: &str) -> Result<Valid, String> {
    Joined::new(&[("shared/part.wgsl".into(), shared.into()), ("own.wgsl".into(), own.into())]).check()
}

const EMPTY_MAIN: &str = "@compute @workgroup_size(64)\nfn main() {\n}\n";

#[test]
fn every_kernel_is_legal_with_the_default_capabilities_or_says_that_it_needs_cooperative_matrices() {
    let kernels = all_valid();
    assert_eq!(kernels.len(), temper_shaders::KERNELS.len());
    let cooperative: Vec<_> = kernels.iter().filter(|(kernel, ..)| kernel.is_cooperative()).collect();
    assert_eq!(cooperative.len(), 5);
    for (kernel, joined, _) in cooperative {
        assert!(joined.check().is_err(), "{} needs nothing", kernel.stem);
    }
}

#[test]
fn a_legal_text_is_accepted() {
    assert!(broken("fn one() -> f32 {\n    return 1.0;\n}\n", EMPTY_MAIN).is_ok());
}

#[test]
fn a_syntax_error_is_refused_with_its_file_line_and_caret() {
    let message =
        broken("const A: u32 = 1u;\n", "const B: u32 = 2u;\nconst C: u32 = missing;\n").err().expect("refused");
    assert!(message.starts_with("shaders/own.wgsl:2:16: "), "{message}");
    assert!(message.contains("\n    const C: u32 = missing;\n                   ^\n"), "{message}");
}

#[test]
fn an_error_in_a_shared_part_names_the_shared_file() {
    let message = broken("\nconst A: u32 = missing;\n", EMPTY_MAIN).err().expect("refused");
    assert!(message.starts_with("shaders/shared/part.wgsl:2:16: "), "{message}");
}

#[test]
fn an_error_that_only_validation_sees_is_refused_with_its_line() {
    // An array whose length is known only at run time has no place in workgroup memory.
    let own = format!("var<workgroup> w: array<f32>;\n{EMPTY_MAIN}");
    let message = broken("const A: u32 = 1u;\n", &own).err().expect("refused");
    assert!(message.starts_with("shaders/own.wgsl:1:"), "{message}");
}

#[test]
fn what_needs_a_device_feature_is_refused() {
    for own in [
        "@compute @workgroup_size(64)\nfn main() {\n    let d = f64(1.0);\n    _ = d;\n}\n",
        "@compute @workgroup_size(64)\nfn main(@builtin(subgroup_size) s: u32) {\n    _ = s;\n}\n",
        "enable f16;\n@compute @workgroup_size(64)\nfn main() {\n    let h = f16(1.0);\n    _ = h;\n}\n",
    ] {
        assert!(broken("", own).is_err(), "accepted:\n{own}");
    }
}
