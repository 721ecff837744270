//! Translation to what drivers take: SPIR-V (Vulkan), MSL (Metal), HLSL (DX12) and GLSL (OpenGL, WebGL-class devices),
//! with the options that wgpu uses, so that a construct that cannot reach one of them is caught here.

use std::fmt;

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::Capabilities;
use naga::{AddressSpace, Module, ResourceBinding, ShaderStage, TypeInner};

use crate::joined::{Joined, Valid, all_narrow, all_valid};
use crate::report;

/// A language, in a version that some device needs.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// SPIR-V of a version.
    SpirV(u8, u8),
    /// Metal shading language of a version.
    Msl(u8, u8),
    /// HLSL of a shader model.
    Hlsl(hlsl::ShaderModel),
    /// GLSL for desktop OpenGL.
    Glsl(u16),
    /// GLSL for OpenGL ES.
    GlslEs(u16),
}

/// All that we promise: wgpu's SPIR-V for Vulkan 1.0 to 1.3, the oldest and a current MSL, both HLSL compilers, both GLSLs.
pub const TARGETS: &[Target] = &[
    Target::SpirV(1, 0),
    Target::SpirV(1, 3),
    Target::SpirV(1, 5),
    Target::SpirV(1, 6),
    Target::Msl(2, 0),
    Target::Msl(3, 1),
    Target::Hlsl(hlsl::ShaderModel::V5_1),
    Target::Hlsl(hlsl::ShaderModel::V6_0),
    Target::Glsl(430),
    Target::GlslEs(310),
];

impl Target {
    /// Whether a kernel is meant for it: one with cooperative matrices is for Vulkan 1.1 and later, and those of Apple's size
    /// for Metal. naga's writers of the other languages know none.
    pub fn takes(self, kernel: &temper_shaders::Kernel) -> bool {
        match self {
            _ if !kernel.is_cooperative() => true,
            Self::SpirV(major, minor) => (major, minor) >= (1, 3),
            Self::Msl(major, _) => major >= 3 && kernel.stem.ends_with("_8"),
            _ => false,
        }
    }
}

/// Whether a module needs more than every device has.
fn is_cooperative(module: &Module) -> bool {
    module.types.iter().any(|(_, t)| matches!(t.inner, TypeInner::CooperativeMatrix { .. }))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpirV(major, minor) => write!(f, "SPIR-V {major}.{minor}"),
            Self::Msl(major, minor) => write!(f, "MSL {major}.{minor}"),
            Self::Hlsl(model) => write!(f, "HLSL {}", model.to_str()),
            Self::Glsl(version) => write!(f, "GLSL {version}"),
            Self::GlslEs(version) => write!(f, "GLSL ES {version}"),
        }
    }
}

/// A translation: words for SPIR-V, text for the others.
pub enum Translation {
    /// SPIR-V.
    Words(Vec<u32>),
    /// A source text.
    Text(String),
}

/// Translates entry point `main`, or says why it cannot be done.
pub fn translate(target: Target, valid: &Valid) -> Result<Translation, String> {
    translate_with(target, valid, true)
}

/// As [`translate`], with the choice of leaving out the statements by which naga makes HLSL clear workgroup memory.
pub fn translate_with(target: Target, valid: &Valid, clear_in_hlsl: bool) -> Result<Translation, String> {
    let Valid { module, info, .. } = valid;
    // wgpu restricts indices unless told to trust a shader, and that must translate as well.
    let policies = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: BoundsCheckPolicy::Restrict,
        image_load: BoundsCheckPolicy::Unchecked,
        binding_array: BoundsCheckPolicy::Unchecked,
    };
    let bound: Vec<ResourceBinding> = module.global_variables.iter().filter_map(|(_, v)| v.binding).collect();
    let entry = "main".to_owned();
    match target {
        Target::SpirV(major, minor) => {
            let mut capabilities = vec![spv::Capability::Shader, spv::Capability::Matrix];
            if is_cooperative(module) {
                // Those that wgpu grants with the features that such a kernel is used with.
                capabilities.extend([
                    spv::Capability::Float16,
                    spv::Capability::StorageBuffer16BitAccess,
                    spv::Capability::UniformAndStorageBuffer16BitAccess,
                    spv::Capability::StorageInputOutput16,
                    spv::Capability::GroupNonUniform,
                    spv::Capability::CooperativeMatrixKHR,
                    spv::Capability::VulkanMemoryModel,
                ]);
            }
            let options = spv::Options {
                lang_version: (major, minor),
                capabilities: Some(capabilities.into_iter().collect()),
                bounds_check_policies: policies,
                ..Default::default()
            };
            let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry };
            spv::write_vec(module, info, &options, Some(&pipeline)).map(Translation::Words).map_err(|e| e.to_string())
        }
        Target::Msl(major, minor) => {
            let resources = msl::EntryPointResources {
                resources: bound
                    .iter()
                    .zip(0..)
                    .map(|(binding, slot)| {
                        (*binding, msl::BindTarget { buffer: Some(slot), mutable: true, ..Default::default() })
                    })
                    .collect(),
                immediates_buffer: None,
                sizes_buffer: Some(bound.len() as u8),
            };
            let options = msl::Options {
                lang_version: (major, minor),
                per_entry_point_map: [(entry.clone(), resources)].into_iter().collect(),
                fake_missing_bindings: false,
                bounds_check_policies: policies,
                ..Default::default()
            };
            let pipeline =
                msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry)), ..Default::default() };
            let (text, names) = msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
            names.entry_point_names.into_iter().try_for_each(|name| name.map(drop)).map_err(|e| e.to_string())?;
            Ok(Translation::Text(text))
        }
        Target::Hlsl(shader_model) => {
            // num_workgroups is no builtin of HLSL: wgpu passes it as a constant.
            let constants = hlsl::BindTarget { space: 1, ..Default::default() };
            let options = hlsl::Options {
                shader_model,
                binding_map: bound
                    .iter()
                    .map(|binding| (*binding, hlsl::BindTarget { register: binding.binding, ..Default::default() }))
                    .collect(),
                fake_missing_bindings: false,
                special_constants_binding: Some(constants),
                zero_initialize_workgroup_memory: clear_in_hlsl,
                ..Default::default()
            };
            let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry)) };
            let mut text = String::new();
            let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
                .write(module, info, None)
                .map_err(|e| e.to_string())?;
            reflection.entry_point_names.into_iter().try_for_each(|name| name.map(drop)).map_err(|e| e.to_string())?;
            Ok(Translation::Text(text))
        }
        Target::Glsl(version) => glsl_text(glsl::Version::Desktop(version), valid, policies),
        Target::GlslEs(version) => glsl_text(glsl::Version::new_gles(version), valid, policies),
    }
}

fn glsl_text(version: glsl::Version, valid: &Valid, policies: BoundsCheckPolicies) -> Result<Translation, String> {
    let Valid { module, info, .. } = valid;
    // OpenGL numbers uniform and storage blocks apart.
    let mut uniforms = 0..;
    let mut storages = 0..;
    let binding_map = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let slots: &mut std::ops::RangeFrom<u8> =
                if variable.space == AddressSpace::Uniform { &mut uniforms } else { &mut storages };
            variable.binding.map(|binding| (binding, slots.next().expect("few bindings")))
        })
        .collect();
    let options = glsl::Options { version, binding_map, ..Default::default() };
    let pipeline =
        glsl::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into(), multiview: None };
    let mut text = String::new();
    glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write())
        .map_err(|e| e.to_string())?;
    Ok(Translation::Text(text))
}

#[test]
fn every_kernel_translates_to_every_language() {
    let kernels = all_valid();
    let mut failures = Vec::new();
    let mut checked = 0;
    for (kernel, _, valid) in &kernels {
        for target in TARGETS.iter().filter(|target| target.takes(kernel)) {
            checked += 1;
            match translate(*target, valid) {
                Ok(Translation::Words(words)) if words.len() > 5 => {}
                Ok(Translation::Text(text)) if text.contains("main") => {}
                Ok(_) => failures.push(format!("{}: {target}: the translation is empty", kernel.stem)),
                Err(message) => failures.push(format!("{}: {target}: {message}", kernel.stem)),
            }
        }
    }
    report("translation", checked, &failures);
}

#[test]
fn cooperative_kernels_reach_vulkan_and_metal_with_matrices_and_no_language_without_them() {
    let kernels = all_valid();
    let mut seen = 0;
    for (kernel, _, valid) in kernels.iter().filter(|(kernel, ..)| kernel.is_cooperative()) {
        let taken: Vec<Target> = TARGETS.iter().copied().filter(|target| target.takes(kernel)).collect();
        assert_eq!(taken.len(), if kernel.stem.ends_with("_8") { 4 } else { 3 }, "{}", kernel.stem);
        for target in taken {
            seen += 1;
            match translate(target, valid) {
                Ok(Translation::Text(text)) => {
                    assert!(text.contains("simdgroup_half8x8") && text.contains("simdgroup_float8x8"), "{text}");
                }
                // OpCapability CooperativeMatrixKHR.
                Ok(Translation::Words(words)) => {
                    assert!(words.windows(2).any(|pair| pair == [2 << 16 | 17, 6022]), "{}: {target}", kernel.stem);
                }
                Err(message) => panic!("{}: {target}: {message}", kernel.stem),
            }
        }
        // naga gives up on these in its own ways; where it does not any more, DX12 may take the kernel too.
        let dx12 = Target::Hlsl(hlsl::ShaderModel::V6_0);
        let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| translate(dx12, valid).is_ok()));
        assert!(!matches!(written, Ok(true)), "{}: HLSL has cooperative matrices now", kernel.stem);
    }
    assert_eq!(seen, 16);
}

#[test]
fn every_row_kernel_translates_with_the_workgroup_of_a_software_adapter() {
    let kernels = all_narrow();
    let mut failures = Vec::new();
    for (kernel, size, valid) in &kernels {
        for target in TARGETS {
            match translate(*target, valid) {
                // Where the size stands in the text, it is the narrow one.
                Ok(Translation::Text(text)) => {
                    let wanted = match target {
                        Target::Hlsl(_) => format!("[numthreads({size}, 1, 1)]"),
                        Target::Glsl(_) | Target::GlslEs(_) => format!("local_size_x = {size},"),
                        _ => String::new(),
                    };
                    if !text.contains(&wanted) {
                        failures.push(format!("{}: {target}: no `{wanted}`", kernel.stem));
                    }
                }
                Ok(Translation::Words(_)) => {}
                Err(message) => failures.push(format!("{}: {target}: {message}", kernel.stem)),
            }
        }
    }
    report("narrow translation", kernels.len() * TARGETS.len(), &failures);
}

#[test]
fn what_a_language_lacks_is_refused() {
    let double = "@group(0) @binding(0) var<storage, read_write> x: array<f64>;\n@compute @workgroup_size(1)\nfn main() {\n    x[0] = x[0] * 2.0lf;\n}\n";
    let wide = "@group(0) @binding(0) var<storage, read_write> x: array<u64>;\n@compute @workgroup_size(1)\nfn main() {\n    x[0] = x[0] * 2lu;\n}\n";
    let ballot = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;\n@compute @workgroup_size(1)\nfn main() {\n    x[0] = subgroupAdd(x[0]);\n}\n";
    let reverse = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;\n@compute @workgroup_size(1)\nfn main() {\n    x[0] = reverseBits(x[0]);\n}\n";
    let immediate = "var<immediate> x: u32;\n@compute @workgroup_size(1)\nfn main() {\n    _ = x;\n}\n";
    for (target, source) in [
        (Target::SpirV(1, 3), ballot),
        (Target::Msl(1, 0), reverse),
        (Target::Hlsl(hlsl::ShaderModel::V5_1), immediate),
        (Target::Glsl(430), wide),
        (Target::GlslEs(310), double),
    ] {
        let joined = Joined::new(&[("own.wgsl".into(), source.into())]);
        let valid =
            joined.check_with(Capabilities::all()).unwrap_or_else(|e| panic!("legal with every capability: {e}"));
        assert!(translate(target, &valid).is_err(), "{target} took:\n{source}");
    }
}
