//! Lists the files of `formats/` for `src/formats.rs`: a weight format that has a part there has its kernels, and no
//! table is edited.

#![allow(clippy::disallowed_methods, reason = "a build script runs on the host, whatever the target forbids")]

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=formats");
    let mut stems: Vec<String> = fs::read_dir("formats")
        .expect("shaders/formats is readable")
        .map(|entry| entry.expect("shaders/formats is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"))
        .map(|path| path.file_stem().expect("a file has a stem").to_string_lossy().into_owned())
        .collect();
    stems.sort();
    let lines: String = stems.iter().map(|stem| format!("{} = {stem:?};\n", stem.to_uppercase())).collect();
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("formats.rs"), format!("formats! {{\n{lines}}}\n")).expect("OUT_DIR is writable");
}
