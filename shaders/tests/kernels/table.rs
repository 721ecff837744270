//! The Rust table against the folder and against naga's reflection: sizes, names, order, types and shared constants.

use std::collections::BTreeSet;

use naga::{AddressSpace, TypeInner};
use temper_shaders::{
    Grid, HALF_TERMS, KERNELS, Kernel, LOWEST, MAX_TOP_K, NO_LABEL, STATS_WIDTH, Scalar, WIDE_ENTROPY_STATE,
    WORKGROUP_SIZE, activation, compact, stat,
};

use crate::house::{constant, literal};
use crate::joined::{Joined, Valid, all_valid, root, stems};
use crate::report;

/// Where an entry of the table differs from the text it describes.
fn differences(kernel: &Kernel, joined: &Joined, valid: &Valid) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, table: String, text: String| {
        if table != text {
            found.push(format!("{}: {what}: the table says {table}, the text {text}", kernel.stem));
        }
    };
    if kernel.source != joined.text {
        compare("source", "other text".into(), "than the files (is the build stale?)".into());
    }
    let module = &valid.module;
    let entry = &module.entry_points[0];
    compare("workgroup size", format!("{:?}", [kernel.workgroup_size, 1, 1]), format!("{:?}", entry.workgroup_size));
    // A software adapter's launch sets this one, of kernels that work on rows.
    let overrides: &[&str] = if kernel.narrow_size().is_some() { &[WORKGROUP_SIZE] } else { &[] };
    compare("overrides", format!("{overrides:?}"), format!("{:?}", valid.overrides()));

    let mut storage: Vec<(u32, &str)> = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let name = variable.name.as_deref().unwrap_or("?");
        match variable.space {
            AddressSpace::Storage { .. } => storage.push((variable.binding.map_or(0, |b| b.binding), name)),
            AddressSpace::Uniform => {
                let TypeInner::Struct { members, span } = &module.types[variable.ty].inner else { continue };
                let names: Vec<_> = members.iter().map(|m| m.name.as_deref().unwrap_or("?")).collect();
                let types: Vec<_> = members
                    .iter()
                    .map(|m| match module.types[m.ty].inner {
                        TypeInner::Scalar(naga::Scalar::U32) => Some(Scalar::U32),
                        TypeInner::Scalar(naga::Scalar::F32) => Some(Scalar::F32),
                        _ => None,
                    })
                    .collect();
                let offsets: Vec<_> = members.iter().map(|m| m.offset as usize).collect();
                let want_types: Vec<_> = kernel.param_types.iter().copied().map(Some).collect();
                compare("params", format!("{:?}", kernel.params), format!("{names:?}"));
                compare("types of params", format!("{want_types:?}"), format!("{types:?}"));
                compare("offsets of params", format!("{:?}", kernel.param_offsets), format!("{offsets:?}"));
                if (*span as usize) > kernel.params_size() {
                    compare("bytes of params", kernel.params_size().to_string(), span.to_string());
                }
            }
            _ => {}
        }
    }
    storage.sort_unstable();
    let names: Vec<_> = storage.iter().map(|(_, name)| *name).collect();
    compare("bindings", format!("{:?}", kernel.bindings), format!("{names:?}"));

    let (height, width) = match kernel.grid {
        Grid::Tile(height, width) => (Some(height), Some(width)),
        Grid::RowTile(width) | Grid::ColumnTile(width) => (None, Some(width)),
        Grid::Rows(height) => (Some(height), None),
        Grid::Row(_) | Grid::Elements => (None, None),
    };
    compare("columns of a tile", format!("{width:?}"), format!("{:?}", constant(valid, "COLUMNS_PER_WORKGROUP")));
    compare("rows of a tile", format!("{height:?}"), format!("{:?}", constant(valid, "ROWS_PER_WORKGROUP")));
    for (name, value) in [
        ("MAX_TOP_K", MAX_TOP_K as u32),
        ("STATS_WIDTH", STATS_WIDTH as u32),
        ("STAT_MAX", stat::MAX as u32),
        ("STAT_SUM", stat::SUM as u32),
        ("STAT_SUM_SHIFTED", stat::SUM_SHIFTED as u32),
        ("STAT_SUM_SQUARED", stat::SUM_SQUARED as u32),
        ("STAT_LABEL_LOGIT", stat::LABEL_LOGIT as u32),
        ("STAT_NONFINITE", stat::NONFINITE as u32),
        ("STAT_COUNT", stat::COUNT as u32),
        ("STATE_WIDTH", WIDE_ENTROPY_STATE as u32),
        ("STAT_ENTROPY_TOP_K", stat::ENTROPY_TOP_K as u32),
        ("NO_LABEL", NO_LABEL),
        ("HALF_TERMS", HALF_TERMS as u32),
        ("WEIGHTS_F32", compact::WEIGHTS_F32),
        ("WEIGHTS_SPLIT", compact::WEIGHTS_SPLIT),
        ("BLOCK_INVOCATIONS", compact::BLOCK as u32 / 4),
        ("FIRST_BASE", compact::FIRST_BASE),
        ("SECOND_BASE", compact::SECOND_BASE),
        ("GELU_TANH", activation::GELU_TANH),
    ] {
        if let Some(text) = constant(valid, name) {
            compare(name, value.to_string(), text.to_string());
        }
    }
    if let Some(text) = literal(valid, "LOWEST") {
        compare("LOWEST", format!("{:?}", naga::Literal::F32(LOWEST)), format!("{text:?}"));
    }
    found
}

#[test]
fn the_table_and_the_folder_list_the_same_kernels() {
    let on_disk = stems(&root());
    let in_table: BTreeSet<&str> = KERNELS.iter().map(|kernel| kernel.file).collect();
    assert!(!on_disk.is_empty(), "no .wgsl file in {}", root().display());
    assert_eq!(in_table.into_iter().collect::<Vec<_>>(), on_disk, "left: src/lib.rs, right: *.wgsl");
    let names: BTreeSet<&str> = KERNELS.iter().map(|kernel| kernel.stem).collect();
    assert_eq!(names.len(), KERNELS.len(), "a stem is in the table twice");
    // Those that share a file are told apart by what comes behind its name.
    for kernel in KERNELS.iter().filter(|kernel| kernel.format.is_none()) {
        assert!(kernel.stem.starts_with(kernel.file), "{} in {}", kernel.stem, kernel.file);
    }
}

#[test]
fn every_format_part_is_read_by_every_entry_that_reads_formats() {
    let on_disk = stems(&root().join("formats"));
    assert!(!on_disk.is_empty(), "no part in formats/");
    let files: BTreeSet<&str> =
        KERNELS.iter().filter(|kernel| kernel.format.is_some()).map(|kernel| kernel.file).collect();
    assert!(files.contains("dequantize"), "{files:?}");
    for file in files {
        let parts: Vec<&str> =
            KERNELS.iter().filter(|kernel| kernel.file == file).filter_map(|kernel| kernel.format).collect();
        assert_eq!(parts, on_disk, "{file}: left: the table, right: formats/*.wgsl");
    }
}

#[test]
fn a_format_part_serves_an_entry_that_nobody_wrote_yet() {
    // A product expands a tile of its packed operand into workgroup memory: the part must need nothing of
    // `dequantize.wgsl` but the name of the array.
    let entry = "@group(0) @binding(0) var<storage, read_write> packed_words: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
var<workgroup> tile: array<f32, 64>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    tile[lane] = element(lane * 128u);
    workgroupBarrier();
    result[lane] = tile[63u - lane];
}
";
    for part in stems(&root().join("formats")) {
        let files = ["shared/bytes.wgsl".into(), format!("formats/{part}.wgsl")].map(|name: String| {
            let text = std::fs::read_to_string(root().join(&name)).unwrap_or_else(|e| panic!("shaders/{name}: {e}"));
            (name, text)
        });
        let joined = Joined::new(&[&files[..], &[("entry.wgsl".into(), entry.into())]].concat());
        let valid = joined.check().unwrap_or_else(|message| panic!("{message}"));
        assert_eq!(valid.module.entry_points.len(), 1, "{part}");
        assert_eq!(valid.module.global_variables.len(), 3, "{part}: a part binds nothing of its own");
    }
}

#[test]
fn every_shared_part_is_used() {
    let used: BTreeSet<String> =
        KERNELS.iter().flat_map(|kernel| kernel.shared).map(|stem| (*stem).to_owned()).collect();
    assert_eq!(
        used.into_iter().collect::<Vec<_>>(),
        stems(&root().join("shared")),
        "left: src/lib.rs, right: shared/*.wgsl"
    );
}

#[test]
fn the_table_repeats_what_the_text_declares() {
    let kernels = all_valid();
    let failures: Vec<String> =
        kernels.iter().flat_map(|(kernel, joined, valid)| differences(kernel, joined, valid)).collect();
    report("table", kernels.len(), &failures);
}

#[test]
fn the_constants_that_kernels_share_are_found_in_their_texts() {
    // `differences` compares only what it finds; here it is said where it must be found.
    let kernels = all_valid();
    let of = |stem: &str| {
        kernels.iter().find(|(kernel, ..)| kernel.stem == stem).map(|(_, _, valid)| valid).expect("in the table")
    };
    assert_eq!(constant(of("row_stats"), "MAX_TOP_K"), Some(64));
    assert_eq!(constant(of("row_stats"), "NO_LABEL"), Some(u32::MAX));
    for stem in ["row_stats", "gate", "loss_gradient"] {
        assert_eq!(constant(of(stem), "STATS_WIDTH"), Some(8), "{stem}");
    }
    assert_eq!(constant(of("row_stats"), "STAT_ENTROPY_TOP_K"), Some(7));
    assert_eq!(constant(of("matmul_cooperative_16"), "HALF_TERMS"), Some(32));
    assert_eq!(constant(of("half_rows"), "SEGMENTS"), Some(temper_shaders::rests::SEGMENTS as u32));
    assert_eq!(literal(of("row_stats"), "LOWEST"), Some(naga::Literal::F32(f32::MIN)));
}

#[test]
fn a_table_that_lies_is_refused() {
    let kernels = all_valid();
    let (kernel, joined, valid) =
        kernels.iter().find(|(kernel, ..)| kernel.stem == "loss_gradient").expect("in the table");
    let lies = [
        ("source", Kernel { source: "", ..**kernel }),
        ("workgroup size", Kernel { workgroup_size: 128, ..**kernel }),
        ("columns of a tile", Kernel { grid: Grid::RowTile(512), ..**kernel }),
        ("overrides", Kernel { grid: Grid::Row(4), ..**kernel }),
        ("bindings", Kernel { bindings: &["logits", "weight", "labels", "stats"], ..**kernel }),
        ("params", Kernel { params: &["cols", "rows", "column_start"], ..**kernel }),
        ("types of params", Kernel { param_types: &[Scalar::U32, Scalar::U32, Scalar::F32], ..**kernel }),
        ("offsets of params", Kernel { param_offsets: &[0, 4, 12], ..**kernel }),
    ];
    assert_eq!(differences(kernel, joined, valid), Vec::<String>::new());
    for (what, lie) in lies {
        let found = differences(&lie, joined, valid);
        assert!(found.iter().any(|line| line.contains(&format!("loss_gradient: {what}: "))), "{what}: {found:?}");
    }
}
