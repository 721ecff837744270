//! `temper loss`: an objective on given logits, for other frameworks to compare themselves with.

use anyhow::Result;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use temper_engine::configuration::ObjectiveSection;
use temper_engine::logits;
use temper_engine::{Device, Error, Objective, wait};

use super::logits::little_endian;
use crate::cli::{Global, LossArgs};
use crate::files::write_atomically;
use crate::inputs::read_data;
use crate::plan::Since;

/// Runs the command.
pub fn run(args: LossArgs, global: &Global) -> Result<()> {
    let objective = Objective::from_section(&ObjectiveSection::from_overrides(&args.objective, &args.set)?)?;
    let (device, _) = Device::choose(global.device.as_deref(), &Since::now())?;
    let file = args.logits.display().to_string();
    let bytes = read_data(&file)?;
    let (logits, labels, rows, vocab) = read(&bytes, &file)?;
    let result = wait(logits::evaluate(&device, logits, &labels, vocab, &objective))?;
    let column = |values: &[f32]| little_endian(values);
    let (ce, entropy, weight) = (column(&result.ce), column(&result.entropy), column(&result.weight));
    let (loss, grad) = (column(&[result.loss]), column(&result.gradient));
    let views = [
        ("ce", TensorView::new(Dtype::F32, vec![rows], &ce)?),
        ("entropy", TensorView::new(Dtype::F32, vec![rows], &entropy)?),
        ("weight", TensorView::new(Dtype::F32, vec![rows], &weight)?),
        ("loss", TensorView::new(Dtype::F32, vec![1], &loss)?),
        ("grad", TensorView::new(Dtype::F32, vec![rows, vocab], &grad)?),
    ];
    let file = safetensors::serialize(views, None)?;
    write_atomically(&args.out, |out| out.write_all(&file)).map_err(Error::into)
}

type Input = (Vec<f32>, Vec<i64>, usize, usize);

fn read(bytes: &[u8], file: &str) -> Result<Input, Error> {
    let wrong = |problem: String| Error::Format { file: file.into(), problem };
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
    let get = |name: &str, dtype: Dtype, rank: usize| {
        let missing = |problem: String| Error::Tensor { file: file.into(), tensor: name.into(), problem };
        let view = tensors.tensor(name).map_err(|_| missing("is missing; give `logits` and `labels`".into()))?;
        if view.dtype() != dtype || view.shape().len() != rank {
            let found = format!("expected {dtype:?} of rank {rank}, got {:?} {:?}", view.dtype(), view.shape());
            return Err(missing(found));
        }
        Ok(view)
    };
    let logits = get("logits", Dtype::F32, 2)?;
    let labels = get("labels", Dtype::I64, 1)?;
    let (rows, vocab) = (logits.shape()[0], logits.shape()[1]);
    if labels.shape()[0] != rows {
        let got = format!("[{}]", labels.shape()[0]);
        return Err(Error::Shape { what: format!("{file}: labels"), expected: format!("[{rows}]"), got });
    }
    let values = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let integer = |b: &[u8]| i64::from_le_bytes(b.try_into().unwrap_or_default());
    Ok((
        logits.data().chunks_exact(4).map(values).collect(),
        labels.data().chunks_exact(8).map(integer).collect(),
        rows,
        vocab,
    ))
}
