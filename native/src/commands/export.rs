//! `temper export`: what a run trained, or a model with its adapter, as one model for other programs.

use std::fs;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::Result;
use temper_engine::models::{Quantised, Recipe, quantised};
use temper_engine::result::{Adapter, WEIGHTS, WeightFormat, beside_weights, write_source};
use temper_engine::{Error, ModelFiles};

use crate::calibrating::{calibrated, documents, refuse_in_vain};
use crate::cli::ExportArgs;
use crate::files::{Beside, write_atomically, write_folder_with, write_new};
use crate::inputs::{EMBEDDED, ModelInUse, files_beside};
use crate::output;
use crate::progress::{grouped, progress};

/// What a Hugging Face folder's matrices can be stored as.
const IN_FOLDERS: [WeightFormat; 3] = [WeightFormat::F16, WeightFormat::Bf16, WeightFormat::F32];

/// How much of an adapter rounding may leave without a warning.
const ABOUT_ALL: RangeInclusive<f64> = 0.95..=1.05;

/// Runs the command.
pub fn run(args: &ExportArgs) -> Result<()> {
    let out = args.out.as_path();
    let is_gguf = out.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    refuse_if_there(out)?;
    if args.adapter_only && !is_gguf {
        return Err(refused(format!("{}: an adapter alone is written as a file that ends in .gguf", out.display())));
    }
    // Refused before anything is read.
    let asked = args.to.as_deref().map(|to| recipe(to, is_gguf)).transpose()?;
    let model = ModelInUse::open(&args.model)?;
    let recipe = asked.unwrap_or_else(|| Recipe::Uniform(unasked(&model.files)));
    let adapter = model.adapter()?;
    if let (None, Some(storage)) = (&adapter, args.model.storage) {
        let path = &model.path;
        let problem = format!(
            "--storage {storage}: says how an adapter's base is rounded before it is merged, and {path} has none; leave it \
             out, or say with --to how matrices are written"
        );
        return Err(refused(problem));
    }
    model.refuse_other(|| model.files.origin())?;
    if args.adapter_only {
        let nothing = || {
            let (path, why) = match &args.model.run {
                Some(run) => (run.display().to_string(), ", since all weights were trained; leave --adapter-only out"),
                None => (model.path.clone(), "; give one with --adapter, or such a run with --run"),
            };
            refused(format!("--adapter-only: {path} has no adapter{why}"))
        };
        return write_adapter(out, &model, &adapter.ok_or_else(nothing)?);
    }
    refuse_in_vain(&args.calibrating, recipe)?;
    let documents = documents(&args.calibrating, &model.files, model.reading())?;
    let ModelInUse { path: base, files, is_of_checkpoint, .. } = model;
    // What was trained is called as its run, and not as what it was trained on.
    let run = args.model.run.as_deref().map(name_of_folder);
    let (path, arch, weights) = (Path::new(&base), files.architecture.clone(), files.weights.clone());
    let files = match &adapter {
        Some(adapter) => adapter.merged_into(files)?,
        None => files,
    };
    if is_gguf && !is_of_checkpoint && !base.starts_with(EMBEDDED) && path.is_file() {
        let (folder, file) = Beside::of(path)?;
        let model = Quantised::of_gguf(&folder, &file, recipe, adapter.as_ref())?;
        let model = match &run {
            Some(run) => model.named(run),
            None => model,
        };
        write_gguf(out, &calibrated(model, &files, &documents, recipe)?)?;
    } else {
        match in_folder(recipe).filter(|_| !is_gguf) {
            None => {
                let model = Quantised::of_files(&files, &run.unwrap_or_else(|| name_of(&base)), recipe)?;
                write_gguf(out, &calibrated(model, &files, &documents, recipe)?)?;
            }
            Some(format) => write_folder(out, &base, &files, format)?,
        }
    }
    let Some(adapter) = adapter else { return Ok(()) };
    let (rank, count) = (adapter.settings.rank, adapter.values.len());
    output::text(&format!("merged {} (rank {rank}) into {count} matrices of {base}\n", adapter.file))?;
    // Single precision rounds nothing away, and what is rounded by what it reads is not to be counted element by element.
    let rounds = recipe != Recipe::Uniform(WeightFormat::F32) && documents.is_empty();
    match weights.filter(|_| rounds) {
        Some(weights) => tell_left(adapter.left_in(weights.as_ref(), &arch, recipe)?, recipe),
        None => Ok(()),
    }
}

/// Says how much of an adapter rounding has left, and what keeps it where that is too little or too much.
fn tell_left(left: Option<f64>, to: Recipe) -> Result<()> {
    let Some(left) = left else { return Ok(()) };
    let (to, percent) = (to.name(), (100.0 * left).round() as i64);
    output::text(&format!("of the adapter, {percent} % is left after rounding to {to}\n"))?;
    if !ABOUT_ALL.contains(&left) {
        let _ = writeln!(
            io::stderr(),
            "warning: rounded to {to} the adapter counts {percent} % of what it did: what it changes is small beside the steps \
             of {to}. `--to f32` keeps it as it is; so does the adapter by itself (`--adapter-only`, a file that ends in .gguf)"
        );
    }
    Ok(())
}

/// What a model of this path is called.
pub fn name_of(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_string(), |name| name.to_string_lossy().into_owned())
}

/// The name of a folder, also where it is given as `.`.
fn name_of_folder(path: &Path) -> String {
    name_of(&fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()).to_string_lossy())
}

/// How `--to` stores matrices in a GGUF file, or in a Hugging Face folder.
fn recipe(to: &str, is_gguf: bool) -> Result<Recipe> {
    let in_files = || quantised::targets().collect::<Vec<_>>().join(", ");
    let in_folders = IN_FOLDERS.map(|format| format.name().to_lowercase()).join(", ");
    let problem = match quantised::target(to) {
        Some(recipe) if is_gguf || in_folder(recipe).is_some() => return Ok(recipe),
        Some(_) => format!("a folder takes {in_folders}; {to} is possible in a file that ends in .gguf"),
        None if is_gguf => format!("is not one of {}", in_files()),
        None => format!("a folder takes {in_folders}, and a file that ends in .gguf {}", in_files()),
    };
    Err(refused(format!("--to {to}: {problem}")))
}

/// How matrices are stored unless asked: in bf16 where all of the model's are, since its numbers can be too large for f16; in f16
/// else.
fn unasked(files: &ModelFiles) -> WeightFormat {
    let stored_as = |name: &str| files.weights.as_ref()?.format(name);
    let specs = files.architecture.tensor_specs();
    let mut matrices = specs.iter().filter(|spec| spec.shape.len() > 1);
    match matrices.all(|spec| stored_as(&spec.name) == Some(WeightFormat::Bf16)) {
        true => WeightFormat::Bf16,
        false => WeightFormat::F16,
    }
}

/// The format that a recipe has in a Hugging Face folder.
fn in_folder(recipe: Recipe) -> Option<WeightFormat> {
    IN_FOLDERS.into_iter().find(|format| recipe == Recipe::Uniform(*format))
}

fn refused(problem: String) -> anyhow::Error {
    Error::Config { problems: vec![problem] }.into()
}

/// Nothing that is there is written over.
///
/// # Errors
/// [`Error::Config`] where something is there.
pub fn refuse_if_there(out: &Path) -> Result<()> {
    match out.exists() {
        true => Err(refused(format!("{}: is already there; name another file or folder", out.display()))),
        false => Ok(()),
    }
}

/// Writes a GGUF file and says what is in it.
///
/// # Errors
/// As [`Quantised::write`].
pub fn write_gguf(out: &Path, model: &Quantised) -> Result<()> {
    let all = model.bytes();
    progress("writing", |heard| write_atomically(out, |file| model.write(&mut Counted { file, done: 0, all, heard })))?;
    let matrices = model.matrices();
    let matrices: Vec<String> =
        matrices.iter().map(|(format, count)| format!("{count} in {}", format.name())).collect();
    let bytes = fs::metadata(out).map_or(0, |found| found.len());
    output::text(&format!("wrote {}: {} bytes; matrices: {}\n", out.display(), grouped(bytes), matrices.join(", ")))
}

fn write_folder(out: &Path, base: &str, files: &ModelFiles, format: WeightFormat) -> Result<()> {
    let small = beside_weights(files, format, &files_beside(base)?)?;
    let arch = &files.architecture;
    let missing = || Error::Missing { path: base.into(), problem: "has no weights".into() };
    let weights = files.weights.as_ref().ok_or_else(missing)?;
    let stored = |shape: &[usize]| if shape.len() == 1 { WeightFormat::F32 } else { format };
    let bytes = |shape: &[usize]| stored(shape).bytes_for_shape(shape).unwrap_or(0) as u64;
    let all = arch.tensor_specs().iter().map(|spec| bytes(&spec.shape)).sum();
    progress("writing", |heard| {
        write_folder_with(out, &small, |folder| {
            write_new(&folder.join(WEIGHTS), |file| {
                write_source(&mut Counted { file, done: 0, all, heard }, arch, weights.as_ref(), format)
            })
        })
    })?;
    let size = fs::metadata(out.join(WEIGHTS)).map_or(0, |found| found.len());
    let names: Vec<&str> = small.iter().map(|(name, _)| name.as_str()).collect();
    output::text(&format!(
        "wrote {}: {WEIGHTS} ({} bytes in {}), {}\n",
        out.display(),
        grouped(size),
        format.name(),
        names.join(", ")
    ))
}

fn write_adapter(out: &Path, model: &ModelInUse, adapter: &Adapter) -> Result<()> {
    write_atomically(out, |file| adapter.write_gguf(&model.files.architecture, file))?;
    let bytes = fs::metadata(out).map_or(0, |found| found.len());
    let count = adapter.values.len();
    output::text(&format!(
        "wrote {}: {} bytes; an adapter of rank {} for {count} matrices of {}\n",
        out.display(),
        grouped(bytes),
        adapter.settings.rank,
        model.path
    ))
}

/// Tells how much was written.
struct Counted<'a> {
    file: &'a mut dyn Write,
    done: u64,
    all: u64,
    heard: &'a mut dyn FnMut(u64, u64),
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.done += count as u64;
        (self.heard)(self.done.min(self.all), self.all);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
