//! A model as its files describe it: shape, weights and tokenizer, not yet on a device.

use std::sync::Arc;

use super::architecture::{Architecture, SpecialTokens};
use super::gguf::GgufModel;
use super::load::{self, Hold, Progress};
use super::placement::Placement;
use super::{Model, open};
use crate::data::Tokenizer;
use crate::device::Device;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::host::{Bytes, Folder};
use crate::weights::{WeightSource, read_if_there};

/// No tokenizer file is read past this, since what is made of it takes several times its size. Four times the largest that
/// is published (Gemma 3: 33 MB).
pub const MOST_TOKENIZER_BYTES: u64 = 128 << 20;

const TOKENIZER: &str = "tokenizer.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// A model's description, weights and tokenizer.
pub struct ModelFiles {
    /// Shape and wiring.
    pub architecture: Architecture,
    /// The weights; none for a model that starts from random ones.
    pub weights: Option<Arc<dyn WeightSource>>,
    /// The tokenizer, where the files hold one.
    pub tokenizer: Option<Tokenizer>,
    /// Token ids that the configuration names.
    pub special: SpecialTokens,
    /// Where the tokenizer lies or would lie, for messages; empty where no folder is known.
    pub tokenizer_file: String,
    /// Whether the chat template is not the GGUF file's own, but lies beside it.
    pub template_beside: bool,
    /// Whether a `tokenizer.model` lies beside them, which is not read.
    pub has_tokenizer_model: bool,
}

impl ModelFiles {
    /// Opens a GGUF file, which holds everything.
    ///
    /// # Errors
    /// What is missing or malformed.
    pub fn open_gguf(bytes: Arc<dyn Bytes>, file: &str) -> Result<Self> {
        Self::of_gguf(open::open_gguf(bytes, file)?)
    }

    /// Opens a GGUF file of a folder; where it is one part of several, the others beside it as well. A `chat_template.jinja`
    /// beside it is taken in place of its own, as in a Hugging Face folder.
    ///
    /// # Errors
    /// What is missing or malformed, with its file.
    pub fn open_gguf_in(folder: &dyn Folder, name: &str) -> Result<Self> {
        let files = Self::of_gguf(open::open_gguf_in(folder, name)?)?;
        let Some(template) = template_beside(folder)? else { return Ok(files) };
        let tokenizer = files.tokenizer.map(|tokenizer| tokenizer.with_chat_template(template));
        Ok(Self { tokenizer, template_beside: true, ..files })
    }

    fn of_gguf((opened, gguf): (open::Opened, Arc<GgufModel>)) -> Result<Self> {
        Self::new(opened.architecture, Some(opened.weights), Some(gguf.tokenizer()?), opened.special)
    }

    /// Opens a Hugging Face folder.
    ///
    /// # Errors
    /// What is missing or malformed, with its file.
    pub fn open_folder(folder: &dyn Folder) -> Result<Self> {
        let opened = open::open_folder(folder)?;
        let tokenizer = read_tokenizer(folder)?;
        Ok(Self::new(opened.architecture, Some(opened.weights), tokenizer, opened.special)?.of_folder(folder))
    }

    /// A model without weights: the architecture of a `config.json` and the tokenizer of a folder.
    ///
    /// # Errors
    /// As [`ModelFiles::open_folder`].
    pub fn random(architecture: Architecture, special: SpecialTokens, folder: &dyn Folder) -> Result<Self> {
        Ok(Self::new(architecture, None, read_tokenizer(folder)?, special)?.of_folder(folder))
    }

    fn of_folder(self, folder: &dyn Folder) -> Self {
        let tokenizer_file = folder.display(TOKENIZER);
        Self { tokenizer_file, has_tokenizer_model: has_tokenizer_model(folder), ..self }
    }

    fn new(
        architecture: Architecture,
        weights: Option<Arc<dyn WeightSource>>,
        mut tokenizer: Option<Tokenizer>,
        special: SpecialTokens,
    ) -> Result<Self> {
        if let Some(tokenizer) = &mut tokenizer {
            if tokenizer.vocab_size() > architecture.vocab {
                return Err(Error::Tokenizer {
                    problem: format!(
                        "it has {} tokens and the model only {}: they do not belong together",
                        tokenizer.vocab_size(),
                        architecture.vocab
                    ),
                });
            }
            tokenizer.add_eos_ids(&special.eos)?;
        }
        Ok(Self {
            architecture,
            weights,
            tokenizer,
            special,
            tokenizer_file: String::new(),
            template_beside: false,
            has_tokenizer_model: false,
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the files hold none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let only = match self.has_tokenizer_model {
                true => {
                    ", only tokenizer.model, which is not read; make one of it in Python, DIR being the model's folder: \
                     AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
                }
                false => "",
            };
            // In memory a folder has no path, and names only the file.
            let at = match self.tokenizer_file.as_str() {
                "" | TOKENIZER => String::new(),
                path => format!(" ({path})"),
            };
            Error::Tokenizer { problem: format!("there is no {TOKENIZER} beside the model{at}{only}") }
        })
    }

    /// The digest that the model has once it is loaded ([`Model::origin`]); none without weights.
    ///
    /// # Errors
    /// As [`load::origin`].
    pub fn origin(&self) -> Result<Option<Digest>> {
        self.weights.as_ref().map(|weights| load::origin(&self.architecture, weights.as_ref())).transpose()
    }

    /// The digest that the model has once it is made of random weights of this seed ([`load::random`]).
    pub fn origin_of_random(&self, seed: u64) -> Digest {
        load::origin_of_random(&self.architecture, seed)
    }

    /// Puts the model on a device, all parameters trained where `full`.
    ///
    /// # Errors
    /// What the weights lack; device errors.
    pub fn load(&self, device: &Device, hold: Hold, full: bool, seed: u64) -> Result<Model> {
        let placement = Placement::whole(device, self.architecture.layers);
        self.load_onto(&placement, hold, full, seed, &mut |_, _| {})
    }

    /// As [`ModelFiles::load`], on several devices; see [`load::load_onto`]. `progress` hears of the bytes that were read, of all.
    ///
    /// # Errors
    /// As [`ModelFiles::load`] and [`Placement::check_trained`].
    pub fn load_onto(
        &self,
        placement: &Placement,
        hold: Hold,
        full: bool,
        seed: u64,
        progress: Progress,
    ) -> Result<Model> {
        match &self.weights {
            Some(weights) => load::load_onto(&self.architecture, weights, placement, hold, full, progress),
            None => load::random(&self.architecture, seed, placement, hold),
        }
    }
}

fn has_tokenizer_model(folder: &dyn Folder) -> bool {
    matches!(folder.open("tokenizer.model"), Ok(Some(_)))
}

fn read_tokenizer(folder: &dyn Folder) -> Result<Option<Tokenizer>> {
    let Some(tokenizer) = read_if_there(folder, TOKENIZER, MOST_TOKENIZER_BYTES)? else { return Ok(None) };
    let mut config = read_if_there(folder, "tokenizer_config.json", MOST_TOKENIZER_BYTES)?;
    if let Some(template) = read_if_there(folder, CHAT_TEMPLATE, MOST_TOKENIZER_BYTES)? {
        config = Some(with_chat_template(config, template)?);
    }
    Tokenizer::from_json(&tokenizer, config.as_deref()).map(Some)
}

/// The chat template that lies beside a GGUF file, where one does: it is taken in place of the file's own.
pub(crate) fn template_beside(folder: &dyn Folder) -> Result<Option<String>> {
    read_if_there(folder, CHAT_TEMPLATE, MOST_TOKENIZER_BYTES)?.map(template_text).transpose()
}

/// Newer folders keep the chat template in a file of its own.
fn with_chat_template(config: Option<Vec<u8>>, template: Vec<u8>) -> Result<Vec<u8>> {
    let wrong = |problem: String| Error::Template { problem };
    let mut config: serde_json::Map<String, serde_json::Value> = match config {
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| wrong(format!("tokenizer_config.json is not JSON: {e}")))?
        }
        None => serde_json::Map::new(),
    };
    config.insert("chat_template".into(), template_text(template)?.into());
    serde_json::to_vec(&config).map_err(|e| wrong(e.to_string()))
}

fn template_text(template: Vec<u8>) -> Result<String> {
    String::from_utf8(template).map_err(|_| Error::Template { problem: format!("{CHAT_TEMPLATE} is not UTF-8") })
}
