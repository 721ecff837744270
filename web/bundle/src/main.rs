//! Puts the page's folder together: bindings and module, the page itself, and one file with the base model and the data sets.
//!
//! Place in the flow: `cargo xtask web build` compiles `temper-web` for wasm32, then **this** writes `web/dist`, which
//! `temper web` or any static host serves. The folder is complete or untouched, and never beyond its size budget.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to whoever runs it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use safetensors::tensor::{Dtype, TensorView};
use wasm_bindgen_cli_support::Bindgen;

/// Everything that a visitor downloads, after gzip, in bytes.
const PAGE_BUDGET: u64 = 8 << 20;
/// The WebAssembly module alone.
const MODULE_BUDGET: u64 = 4 << 20;

const STEM: &str = "temper_web";
const MODULE: &str = "temper_web_bg.wasm";
const DEMO: &str = "demo.safetensors";
/// What the loading bar counts towards: a browser tells a page what it has unpacked, and of a compressed file not how much there
/// will be.
const LENGTHS: &str = "lengths.js";
/// Added to the name of a file that is kept compressed beside itself, for hosts that send it so. `temper web` does.
const GZIP: &str = ".gz";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [module, out] = &arguments[..] else {
        eprintln!("Usage: temper-web-bundle MODULE.wasm OUT_FOLDER   (cargo xtask web build runs it)");
        return ExitCode::from(2);
    };
    match bundle(module, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("temper-web-bundle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bundle(module: &Path, out: &Path) -> Result<()> {
    // Asked at run time where possible: a shared target folder outlives a checkout.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let web = Path::new(&here).parent().context("this crate lies in web/")?.to_path_buf();
    let root = web.parent().context("web/ lies in the repository")?;

    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let folder = builder.tempdir_in(parent).with_context(|| parent.display().to_string())?;

    bindings(module, folder.path())?;
    for (name, path) in files(&web.join("page"))? {
        let copy = folder.path().join(&name);
        ensure!(!copy.exists(), "{} has the name of a generated file", path.display());
        fs::create_dir_all(copy.parent().expect("it is inside the folder"))?;
        fs::copy(&path, &copy).with_context(|| path.display().to_string())?;
    }
    ensure!(folder.path().join("index.html").is_file(), "{} has no index.html", web.join("page").display());
    let mut demo = demo_files(&root.join("native/demo"), &web.join("data"))?;
    // What the page's self-test compares a device with.
    demo.insert("probe.safetensors".into(), read(&root.join("engine/src/probe.safetensors"))?);
    write_demo(&folder.path().join(DEMO), &demo)?;
    write_lengths(folder.path())?;

    let sizes = compress(folder.path())?;
    for (name, size) in &sizes {
        println!("{name:<28} {:>11} bytes {:>11} compressed", size.bytes, size.compressed);
    }
    within_budget(&sizes)?;
    replace(folder, out)
}

/// The module's JavaScript half, as an ES module; the worker tells it where the WebAssembly half lies.
fn bindings(module: &Path, folder: &Path) -> Result<()> {
    Bindgen::new()
        .input_path(module)
        .out_name(STEM)
        .web(true)?
        .typescript(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate_output()?
        .emit(folder)
}

/// What the page needs to begin: name in `demo.safetensors` and contents.
fn demo_files(demo: &Path, data: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut sources = BTreeMap::new();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        sources.insert(format!("base/{name}"), demo.join("base").join(name));
    }
    for name in ["train.jsonl", "target.jsonl"] {
        sources.insert(format!("data/gsm8k/{name}"), demo.join(name));
    }
    for folder in ["facts", "meant"] {
        for (name, path) in files(&demo.join(folder))? {
            sources.insert(format!("data/{folder}/{name}"), path);
        }
    }
    sources.insert("data/general.txt".into(), demo.join("general.txt"));
    for (name, path) in files(data)? {
        // Beside the data lie where it comes from and how it was made.
        if matches!(path.extension().and_then(|e| e.to_str()), Some("jsonl" | "txt")) {
            let taken = sources.insert(format!("data/{name}"), path);
            ensure!(taken.is_none(), "there are two files data/{name}: of the command's demo and of the page");
        }
    }
    has_both_parts(sources.keys())?;
    sources.into_iter().map(|(name, path)| Ok((name, read(&path)?))).collect()
}

/// Every data set has something to learn from and something to measure on.
fn has_both_parts<'a>(names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut parts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        if let [folder, part] = name.strip_prefix("data/").map_or(vec![], |rest| rest.split('/').collect())[..] {
            parts.entry(folder).or_default().push(part.split('.').next().unwrap_or(part));
        }
    }
    for (folder, mut parts) in parts {
        parts.sort_unstable();
        // Labels that should not be learned are measured, and facts quoted, where there are some.
        parts.retain(|part| !["wrong", "quotes"].contains(part));
        ensure!(parts == ["target", "train"], "data set {folder} should have train and target, and has {parts:?}");
    }
    Ok(())
}

/// A safetensors file in which each tensor is one file, byte for byte.
fn write_demo(path: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let views = files
        .iter()
        .map(|(name, bytes)| Ok((name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    fs::write(path, safetensors::serialize(views, None)?).with_context(|| path.display().to_string())
}

/// Bytes of the two files that take time.
fn write_lengths(folder: &Path) -> Result<()> {
    let mut text = String::from("// Bytes of what takes time to load. Written by the build.\nexport default {\n");
    for name in [DEMO, MODULE] {
        let path = folder.join(name);
        let length = fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        text += &format!("  \"{name}\": {length},\n");
    }
    text += "};\n";
    let path = folder.join(LENGTHS);
    ensure!(!path.exists(), "{} has the name of a generated file", path.display());
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// All files below a folder by their paths inside it, with `/` on every system. Hidden ones are left out.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: its name is not text", path.display()))?.to_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|(inner, path)| (format!("{name}/{inner}"), path)));
        } else {
            found.insert(name, path);
        }
    }
    Ok(found)
}

/// A file's size as it is and as a host sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    bytes: u64,
    compressed: u64,
}

/// Writes every file compressed beside itself, and says how large both are.
fn compress(folder: &Path) -> Result<BTreeMap<String, Size>> {
    let size = |name: &str, path: &Path| -> Result<Size> {
        let contents = read(path)?;
        let compressed = compressed(&contents)?;
        let beside = folder.join(format!("{name}{GZIP}"));
        fs::write(&beside, &compressed).with_context(|| beside.display().to_string())?;
        Ok(Size { bytes: contents.len() as u64, compressed: compressed.len() as u64 })
    };
    let files = files(folder)?;
    files.into_iter().map(|(name, path)| size(&name, &path).map(|size| (name, size))).collect()
}

fn compressed(contents: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(contents)?;
    Ok(encoder.finish()?)
}

fn within_budget(sizes: &BTreeMap<String, Size>) -> Result<()> {
    let module = sizes.get(MODULE).with_context(|| format!("{MODULE} was not written"))?.compressed;
    let page: u64 = sizes.values().map(|size| size.compressed).sum();
    for (what, size, budget) in [("the WebAssembly module", module, MODULE_BUDGET), ("the page", page, PAGE_BUDGET)] {
        ensure!(size <= budget, "{what} is {size} bytes compressed and may be at most {budget}");
        println!("{what}: {size} of at most {budget} bytes, compressed");
    }
    Ok(())
}

/// Moves the finished folder to its place. Only an earlier bundle is replaced.
fn replace(folder: tempfile::TempDir, out: &Path) -> Result<()> {
    if out.exists() {
        let ours = out.join(MODULE).is_file() && out.join("index.html").is_file();
        ensure!(ours, "{} is there already and is no earlier bundle; remove it or name another", out.display());
        fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    }
    fs::rename(folder.path(), out).with_context(|| out.display().to_string())?;
    // Its name is no longer the temporary one: there is nothing to clean up.
    let _moved = folder.keep();
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn size(compressed: u64) -> Size {
        Size { bytes: 2 * compressed, compressed }
    }

    fn page(module: u64, rest: u64) -> BTreeMap<String, Size> {
        BTreeMap::from([(MODULE.to_owned(), size(module)), ("demo.safetensors".to_owned(), size(rest))])
    }

    #[test]
    fn a_broken_budget_is_refused_with_both_numbers() {
        within_budget(&page(MODULE_BUDGET, PAGE_BUDGET - MODULE_BUDGET)).unwrap();
        let module = within_budget(&page(MODULE_BUDGET + 1, 0)).unwrap_err().to_string();
        assert!(module.contains("module is 4194305") && module.contains("at most 4194304"), "{module}");
        let whole = within_budget(&page(1, PAGE_BUDGET)).unwrap_err().to_string();
        assert!(whole.contains("page is 8388609") && whole.contains("at most 8388608"), "{whole}");
        assert!(within_budget(&BTreeMap::new()).is_err(), "a page without a module");
    }

    #[test]
    fn what_repeats_compresses_and_noise_does_not() {
        assert!(compressed(&[7; 100_000]).unwrap().len() < 1000);
        let noise: Vec<u8> = (0..10_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(compressed(&noise).unwrap().len() > 1000);
    }

    #[test]
    fn files_are_found_in_all_folders_but_not_the_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        for name in ["index.html", "a/b/train.txt", ".hidden"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let found = files(folder.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a/b/train.txt", "index.html"]);
        let sizes = compress(folder.path()).unwrap();
        assert_eq!((sizes.len(), sizes["a/b/train.txt"].bytes), (2, 13));
        let mut unpacked = String::new();
        let packed = fs::File::open(folder.path().join("a/b/train.txt.gz")).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, "a/b/train.txt");
    }

    #[test]
    fn a_data_set_without_its_held_out_part_is_refused() {
        let check =
            |names: &[&str]| has_both_parts(names.iter().map(|name| name.to_string()).collect::<Vec<_>>().iter());
        check(&["base/config.json", "data/general.txt", "data/a/train.jsonl", "data/a/target.txt"]).unwrap();
        check(&["data/a/train.jsonl", "data/a/target.txt", "data/a/wrong.jsonl", "data/a/quotes.json"]).unwrap();
        let problem = check(&["data/a/train.jsonl"]).unwrap_err().to_string();
        assert!(problem.contains("data set a") && problem.contains(r#"["train"]"#), "{problem}");
        assert!(check(&["data/a/train.jsonl", "data/a/train.txt", "data/a/target.txt"]).is_err());
    }

    #[test]
    fn the_demo_reads_back_byte_for_byte_and_has_no_file_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (demo, data) = (folder.path().join("demo"), folder.path().join("data"));
        for (name, contents) in [
            ("demo/base/config.json", "{}"),
            ("demo/base/model.safetensors", "weights"),
            ("demo/base/tokenizer.json", "{\"a\": 1}"),
            ("demo/base/tokenizer_config.json", "{}"),
            ("demo/train.jsonl", "1\n"),
            ("demo/target.jsonl", "2\n"),
            ("demo/general.txt", "3"),
            ("demo/facts/train.jsonl", "5\n"),
            ("demo/facts/target.jsonl", "6\n"),
            ("demo/facts/wrong.jsonl", "7\n"),
            ("demo/facts/quotes.json", "[]"),
            ("demo/meant/train.jsonl", "8\n"),
            ("demo/meant/target.jsonl", "9\n"),
            ("data/SOURCE.md", "not data"),
            ("data/endings/train.jsonl", "4\n"),
            ("data/endings/target.jsonl", ""),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let packed = demo_files(&demo, &data).unwrap();
        let path = folder.path().join("demo.safetensors");
        write_demo(&path, &packed).unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |name: &str| file.tensor(name).unwrap().data().to_vec();
        assert_eq!(file.len(), 15);
        assert_eq!(tensor("data/facts/wrong.jsonl"), b"7\n");
        assert_eq!(tensor("base/tokenizer.json"), b"{\"a\": 1}");
        assert_eq!(tensor("data/gsm8k/target.jsonl"), b"2\n");
        assert_eq!(tensor("data/endings/train.jsonl"), b"4\n");
        assert_eq!(tensor("data/endings/target.jsonl"), b"");

        // The page's data may not quietly take the place of the command's.
        fs::create_dir_all(data.join("gsm8k")).unwrap();
        fs::write(data.join("gsm8k/train.jsonl"), "other").unwrap();
        assert!(demo_files(&demo, &data).unwrap_err().to_string().contains("data/gsm8k/train.jsonl"));
    }

    #[test]
    fn the_loading_bar_knows_how_much_there_will_be() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_lengths(folder.path()).is_err(), "there is nothing to load");
        fs::write(folder.path().join(DEMO), [7; 300]).unwrap();
        fs::write(folder.path().join(MODULE), [7; 20]).unwrap();
        write_lengths(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join(LENGTHS)).unwrap();
        assert!(text.contains("\"demo.safetensors\": 300,") && text.contains("\"temper_web_bg.wasm\": 20,"), "{text}");
        assert!(write_lengths(folder.path()).is_err(), "the page may not have a file of that name");
    }

    #[test]
    fn only_an_earlier_bundle_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("dist");
        let fresh = |contents: &str| {
            let folder = tempfile::tempdir_in(place.path()).unwrap();
            fs::write(folder.path().join(MODULE), contents).unwrap();
            fs::write(folder.path().join("index.html"), contents).unwrap();
            folder
        };
        replace(fresh("first"), &out).unwrap();
        replace(fresh("second"), &out).unwrap();
        assert_eq!(fs::read(out.join("index.html")).unwrap(), b"second");
        fs::remove_file(out.join(MODULE)).unwrap();
        assert!(replace(fresh("third"), &out).unwrap_err().to_string().contains("no earlier bundle"));
        assert_eq!(fs::read(out.join("index.html")).unwrap(), b"second");
    }
}
