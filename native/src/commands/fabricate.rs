//! `temper fabricate`: a model file of a published shape with random weights.

use anyhow::Result;
use temper_engine::Error;
use temper_engine::models::fabricated::{FORMATS, PUBLISHED, Shape, fabricate};
use temper_engine::words::counted;

use crate::cli::FabricateArgs;
use crate::files::write_atomically;
use crate::output;
use crate::progress::grouped;

/// Runs the command.
pub fn run(args: FabricateArgs) -> Result<()> {
    let one_of = |option: &str, found: &str, known: Vec<&str>| Error::Config {
        problems: vec![format!("{option} {found}: is not one of {}", known.join(", "))],
    };
    let shape = Shape::named(&args.like)
        .ok_or_else(|| one_of("--like", &args.like, PUBLISHED.iter().map(|shape| shape.name).collect()))?;
    let recipe = FORMATS
        .into_iter()
        .find(|recipe| recipe.name().eq_ignore_ascii_case(&args.quant))
        .ok_or_else(|| one_of("--quant", &args.quant, FORMATS.map(|recipe| recipe.name()).to_vec()))?;
    let arch = shape.architecture(args.layers);
    arch.validate("--layers")?;
    if args.out.exists() {
        let problem = format!("--out {}: is already there; name another file", args.out.display());
        return Err(Error::Config { problems: vec![problem] }.into());
    }
    write_atomically(&args.out, |out| fabricate(out, &arch, recipe, args.seed))?;
    output::text(&format!(
        "wrote {}: the shape of {} with {} and random weights, {} parameters in {}\n",
        args.out.display(),
        shape.source,
        counted(arch.layers, "block"),
        grouped(arch.parameter_count()),
        recipe.name()
    ))
}
