//! A model's matrices in fewer bits, each rounded so that what it makes of its inputs changes least
//! ([`crate::weights::compensated`]). Texts go through the model block by block; a block's matrices are rounded by what they read
//! there, and the texts go on through the rounded block, so that later blocks see what earlier ones have become.

use std::collections::BTreeMap;

use super::recipe::{Matrix, Recipe};
use crate::data::{Document, WINDOW, pack};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::matmul::{AsOperand, Product};
use crate::kernels::tensor::read;
use crate::kernels::{Packed, Rows};
use crate::model::files::ModelFiles;
use crate::model::gguf::stored_tensors;
use crate::model::layout::Part;
use crate::model::load::{Hold, load};
use crate::model::weight::Weight;
use crate::weights::compensated::Correlations;
use crate::weights::{RawTensor, WeightFormat};

/// The matrices of a model's blocks under their Hugging Face names, in the formats of a recipe.
pub type Rounded = BTreeMap<String, RawTensor>;

/// Rounds the matrices of a model's blocks by what they read of these documents, on the CPU. In memory are the model as it is
/// stored, the rounded matrices, the documents' hidden states, and for one block `inputs²` numbers for each of its layers.
/// `progress` hears of each finished block (done, of).
///
/// # Errors
/// [`Error::Missing`] for files without weights; what the model's loading gives; [`Error::Tensor`] for what does not fit the
/// format.
pub async fn calibrate(
    files: &ModelFiles,
    documents: &[Document],
    recipe: Recipe,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Rounded> {
    let (arch, device) = (&files.architecture, &Device::cpu());
    let Some(source) = &files.weights else {
        return Err(Error::Missing { path: "the model".into(), problem: "has no weights".into() });
    };
    let (layers, tied) = (arch.layers, arch.tied_head);
    let formats: BTreeMap<String, WeightFormat> = stored_tensors(arch)
        .into_iter()
        .filter_map(|stored| {
            let row = *stored.spec.shape.get(1)?;
            Some((stored.spec.name, recipe.format(Matrix { name: &stored.name, row, layers, tied })))
        })
        .collect();
    let mut model = load(arch, source, device, Hold::Auto, u64::MAX, false)?;
    let longest = documents.iter().map(|document| document.tokens.len()).max().unwrap_or(0);
    let batches = pack(&documents.iter().collect::<Vec<_>>(), longest.max(WINDOW), true)?;
    let mut streams = model.enter_all(&batches)?;
    let mut rounded = Rounded::new();
    for index in 0..layers {
        // One after the other, since the later ones read what the earlier ones have become.
        for (layer, spec) in arch.block(index).linears().enumerate() {
            let mut sum = None;
            for stream in &mut streams {
                let x = &model.inputs_of_block(index, stream)?[layer];
                sum = Some(Product::of(x.transposed(), x).added_to(sum.take()).run(device)?);
            }
            let Some(sum) = sum else { continue };
            let correlations = Correlations::of(read(&sum).await?, spec.inputs);
            let mut raws = Vec::with_capacity(spec.modules.len());
            for module in &spec.modules {
                let name = spec.weight(module).name;
                let (raw, format) = (source.read(&name)?, formats[&name]);
                let raw = match format.levels() {
                    _ if raw.format == format => raw,
                    Some(_) => correlations.stored(&raw, format)?,
                    None => raw.stored_as(format)?,
                };
                raws.push(raw.clone());
                rounded.insert(name, raw);
            }
            let packed = Packed::new(device, raws, spec.inputs, Rows::Whole)?;
            if let Some(linear) = linears(model.blocks[index].parts_mut()).nth(layer) {
                linear.weight = Weight::Packed(packed, linear.weight.parts().to_vec());
            }
        }
        model.through_block(index, &mut streams)?;
        progress(index + 1, layers);
    }
    Ok(rounded)
}

fn linears<'a, N: 'a, L: 'a>(
    parts: impl Iterator<Item = Part<&'a mut N, &'a mut L>>,
) -> impl Iterator<Item = &'a mut L> {
    parts.filter_map(|part| match part {
        Part::Linear(linear) => Some(linear),
        Part::Norm(_) => None,
    })
}
