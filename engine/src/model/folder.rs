//! A model in a Hugging Face folder: its tensors under the names and with the values that the engine has.
//!
//! Most families' are so as they lie there. Gemma's norms are stored without the 1 that the norm adds, and of a Gemma that
//! sees, the part for text is a part of the whole: what sees (`vision_tower`, `multi_modal_projector`) is left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::family::Family;
use crate::error::Result;
use crate::weights::{RawTensor, WeightFormat, WeightSource, absent, tensor_error};

/// The tensors of a folder as a model of this family has them.
///
/// # Errors
/// [`crate::Error::Tensor`] where two tensors stand for one.
pub fn of_family(files: Arc<dyn WeightSource>, family: &'static Family) -> Result<Arc<dyn WeightSource>> {
    if family.text_of.is_none() && family.norm_offset == 0.0 {
        return Ok(files);
    }
    let mut names = BTreeMap::new();
    for stored in files.names() {
        let Some(name) = name_in_text(&stored, family) else { continue };
        if names.contains_key(&name) {
            let problem = format!("stands for {name}, as another tensor does");
            return Err(tensor_error(&files.file_of(&stored), &stored, problem));
        }
        names.insert(name, stored);
    }
    Ok(Arc::new(OfFamily { files, family, names }))
}

/// What a tensor is called in the part of a model that is for text; none for one of another part. Folders of before and since
/// 2025 put that part's name in other places.
fn name_in_text(stored: &str, family: &Family) -> Option<String> {
    if family.text_of.is_none() {
        return Some(stored.to_owned());
    }
    let inner = stored.strip_prefix("model.").unwrap_or(stored);
    if inner.starts_with("vision_tower.") || inner.starts_with("multi_modal_projector.") {
        return None;
    }
    match (stored.strip_prefix("language_model."), stored.strip_prefix("model.language_model.")) {
        (Some(text), _) => Some(text.to_owned()),
        (None, Some(text)) => Some(format!("model.{text}")),
        (None, None) => Some(stored.to_owned()),
    }
}

struct OfFamily {
    files: Arc<dyn WeightSource>,
    family: &'static Family,
    /// Names in the files by the engine's.
    names: BTreeMap<String, String>,
}

impl OfFamily {
    fn offset(&self, name: &str) -> f32 {
        self.shape(name).map_or(0.0, |shape| self.family.offset_of(name, shape))
    }
}

impl WeightSource for OfFamily {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.files.shape(self.names.get(name)?)
    }

    fn format(&self, name: &str) -> Option<WeightFormat> {
        let stored = self.files.format(self.names.get(name)?)?;
        Some(if self.offset(name) == 0.0 { stored } else { WeightFormat::F32 })
    }

    fn read(&self, name: &str) -> Result<RawTensor> {
        let stored = self.names.get(name).ok_or_else(|| absent(&self.files.file_of(name), name))?;
        let mut raw = self.files.read(stored)?;
        name.clone_into(&mut raw.name);
        let offset = self.offset(name);
        if offset == 0.0 {
            return Ok(raw);
        }
        let values: Vec<f32> = raw.to_f32().into_iter().map(|value| value + offset).collect();
        Ok(RawTensor::from_f32(name, raw.shape, &values))
    }

    fn file_of(&self, name: &str) -> String {
        self.files.file_of(self.names.get(name).map_or(name, String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::{gemma3, llama};
    use super::*;
    use crate::weights::MemorySource;

    fn files(names: &[&str]) -> Arc<dyn WeightSource> {
        let tensor = |name: &&str| {
            let shape = if name.ends_with("norm.weight") { vec![2] } else { vec![1, 2] };
            RawTensor::from_f32(name, shape, &[0.25, -0.5])
        };
        Arc::new(MemorySource::new(names.iter().map(tensor)).unwrap())
    }

    #[test]
    fn the_text_of_a_gemma_that_sees_has_the_names_of_one_that_reads_and_its_norms_the_one_that_they_add() {
        for [norm, matrix, seen] in [
            ["model.norm.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"],
            [
                "language_model.model.norm.weight",
                "language_model.model.layers.0.mlp.up_proj.weight",
                "vision_tower.a.weight",
            ],
            [
                "model.language_model.norm.weight",
                "model.language_model.layers.0.mlp.up_proj.weight",
                "model.vision_tower.a.weight",
            ],
            ["model.norm.weight", "model.layers.0.mlp.up_proj.weight", "multi_modal_projector.mm_soft_emb_norm.weight"],
        ] {
            let found = of_family(files(&[norm, matrix, seen]), &gemma3::FAMILY).unwrap();
            let mut names = found.names();
            names.retain(|name| name != "lm_head.weight");
            assert_eq!(names, ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]);
            let norm = found.read("model.norm.weight").unwrap();
            assert_eq!((norm.name.as_str(), norm.to_f32()), ("model.norm.weight", vec![1.25, 0.5]));
            assert_eq!(found.format("model.norm.weight"), Some(WeightFormat::F32));
            assert_eq!(found.read("model.layers.0.mlp.up_proj.weight").unwrap().to_f32(), [0.25, -0.5]);
        }
        assert!(found_twice().to_string().contains("as another tensor does"));
        let plain = of_family(files(&["model.norm.weight"]), &llama::FAMILY).unwrap();
        assert_eq!(plain.read("model.norm.weight").unwrap().to_f32(), [0.25, -0.5]);
    }

    fn found_twice() -> crate::Error {
        let both = files(&["model.norm.weight", "language_model.model.norm.weight"]);
        of_family(both, &gemma3::FAMILY).err().expect("two tensors are one")
    }
}
