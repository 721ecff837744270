//! `temper logits`: a model's logits, for other frameworks to compare themselves with.

use anyhow::Result;
use safetensors::tensor::{Dtype, TensorView};
use temper_engine::{Error, wait};

use crate::cli::{Global, LogitsArgs};
use crate::files::write_atomically;
use crate::inputs::{ModelInUse, devices};

/// Runs the command.
pub fn run(args: LogitsArgs, global: &Global) -> Result<()> {
    let (devices, _) = devices(global.device.as_deref())?;
    let chosen = ModelInUse::open(&args.model)?;
    let (count, arch) = (args.tokens.len(), &chosen.files.architecture);
    let context = arch.context;
    if count > context {
        let problem = format!("--tokens: {count} tokens, but the model's context is {context}");
        return Err(Error::Config { problems: vec![problem] }.into());
    }
    // Known before the model is loaded.
    if let Some(at) = args.tokens.iter().position(|token| *token as usize >= arch.vocab) {
        return Err(Error::Token { place: at + 1, token: args.tokens[at], vocab: arch.vocab }.into());
    }
    // On the device, read back, as bytes, and as a file.
    let more = (arch.vocab as u64).saturating_mul(count as u64).saturating_mul(4 * 4);
    let mut model = chosen.load(&devices, more)?;
    let logits = wait(model.logits(&args.tokens))?;
    let bytes = little_endian(&logits);
    let view = TensorView::new(Dtype::F32, vec![count, arch.vocab], &bytes)?;
    let file = safetensors::serialize([("logits", view)], None)?;
    write_atomically(&args.out, |out| out.write_all(&file)).map_err(Error::into)
}

/// Bytes of a safetensors F32 tensor.
pub fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
