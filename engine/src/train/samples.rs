//! How much each training document counts, where the objective weighs whole samples (FLOW): measured once, with the model as it
//! is before the first step, and kept by the host for whoever goes on with the run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::host::Host;
use crate::data::{Document, fingerprint};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::eval::perplexity::{self, Watch};
use crate::kernels::statistics::Selection;
use crate::loss::objective::flow;
use crate::model::Model;
use crate::words::counted;

/// Tokens of the documents that are scored before the host is asked again; statistics of no more are held at once.
const AT_ONCE: usize = 1 << 16;
const VERSION: u32 = 1;

/// Losses of the training documents under the untouched model, and the weights that follow from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Mean cross entropy in nats over a document's trained tokens; none where it has none.
    losses: Vec<Option<f32>>,
    weights: Vec<f32>,
    by_content: BTreeMap<u64, f32>,
}

/// The file of the host.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    losses: Vec<Option<f32>>,
    digest: Digest,
}

impl Samples {
    fn new(losses: Vec<Option<f32>>, documents: &[Document]) -> Self {
        let wide: Vec<Option<f64>> = losses.iter().map(|loss| loss.map(f64::from)).collect();
        let weights = flow::weights(&wide);
        let by_content = documents.iter().map(content).zip(weights.iter().copied()).collect();
        Self { losses, weights, by_content }
    }

    /// The name under which a host keeps those of this model and these training documents.
    pub fn name(model: Digest, data: Digest) -> String {
        format!("sample_losses-{}.json", Digest::of(format!("{model}{data}").as_bytes()))
    }

    /// Runs the untouched model over all documents. None where the user wants to stop.
    ///
    /// # Errors
    /// As [`perplexity::rows`].
    pub async fn measure(model: &mut Model, documents: &[Document], host: &mut dyn Host) -> Result<Option<Self>> {
        struct Watching<'a>(&'a mut dyn Host, usize, usize);
        impl Watch for Watching<'_> {
            fn done(&mut self, done: usize, of: usize) {
                if done == of {
                    self.0.evaluating("samples", self.1, self.2);
                }
            }

            fn stop(&self) -> bool {
                self.0.stop_requested()
            }
        }
        let mut losses = Vec::with_capacity(documents.len());
        let mut start = 0;
        while start < documents.len() {
            let some = perplexity::first_tokens(&documents[start..], AT_ONCE);
            start += some.len();
            let mut watch = Watching(&mut *host, start, documents.len());
            // No entropy is looked at.
            let scored = perplexity::rows_until(model, some, Selection::Top(1), &mut watch).await?;
            let Some(scored) = scored else { return Ok(None) };
            let mut sums = vec![(0.0, 0_u32); some.len()];
            for (row, &document) in scored.rows.iter().zip(&scored.documents) {
                let (sum, count) = &mut sums[document as usize];
                *sum += f64::from(row.ce);
                *count += 1;
            }
            losses.extend(sums.into_iter().map(|(sum, count)| (count > 0).then(|| (sum / f64::from(count)) as f32)));
        }
        Ok(Some(Self::new(losses, documents)))
    }

    /// What the host is to keep.
    pub fn write(&self) -> Vec<u8> {
        let stored = Stored { version: VERSION, losses: self.losses.clone(), digest: digest(&self.losses) };
        // Numbers and their list: nothing in it can fail.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// What the host kept under `name`, of these documents.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it is damaged or of other documents.
    pub fn read(name: &str, bytes: &[u8], documents: &[Document]) -> Result<Self> {
        let broken = |problem: String| Error::Checkpoint {
            field: name.into(),
            problem: format!("{problem}; remove the file, and the samples are measured again"),
        };
        let stored: Stored = serde_json::from_slice(bytes).map_err(|e| broken(format!("is not readable: {e}")))?;
        if stored.version != VERSION {
            return Err(broken(format!("is of version {}, and this program reads {VERSION}", stored.version)));
        }
        if stored.digest != digest(&stored.losses) {
            return Err(broken("was altered".into()));
        }
        if stored.losses.len() != documents.len() {
            let (found, expected) = (counted(stored.losses.len(), "sample"), documents.len());
            return Err(broken(format!("has {found}, and the training data {expected}")));
        }
        Ok(Self::new(stored.losses, documents))
    }

    /// The weight of each training document.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The weight of a document, or of the one that it is a part of, among those that were measured; 0 where it is none.
    pub fn weight_of(&self, document: &Document, measured: &[Document]) -> f32 {
        let tokens = document.tokens.as_slice();
        let is_part = |whole: &Document| {
            whole.line == document.line
                && !tokens.is_empty()
                && whole.tokens.windows(tokens.len()).any(|part| part == tokens)
        };
        let of_whole = || measured.iter().position(is_part).and_then(|at| self.weights.get(at)).copied();
        self.by_content.get(&content(document)).copied().or_else(of_whole).unwrap_or(0.0)
    }
}

fn content(document: &Document) -> u64 {
    fingerprint(std::slice::from_ref(document), 0)
}

fn digest(losses: &[Option<f32>]) -> Digest {
    let bits = losses.iter().map(|loss| loss.map_or(u32::MAX, f32::to_bits));
    Digest::of(&bits.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(count: u32) -> Vec<Document> {
        (0..count).map(|n| Document { tokens: vec![n, 1, 2], trained: vec![true; 3], line: n as usize }).collect()
    }

    #[test]
    fn what_the_host_kept_gives_the_same_weights_and_no_other_file_does() {
        let documents = documents(4);
        let samples = Samples::new(vec![Some(2.1), None, Some(0.3), Some(5.7e-5)], &documents);
        let bytes = samples.write();
        assert_eq!(Samples::read("f", &bytes, &documents).unwrap(), samples);
        let weight_of = |document: &Document| samples.weight_of(document, &documents);
        assert_eq!(weight_of(&documents[1]), 0.0);
        assert_eq!(weight_of(&documents[2]), samples.weights()[2]);
        let cut = |tokens: &[u32]| Document { tokens: tokens.to_vec(), ..documents[2].clone() };
        assert_eq!([weight_of(&cut(&[2, 1])), weight_of(&cut(&[1, 2]))], [samples.weights()[2]; 2], "parts of it");
        assert!(samples.weights()[2] > 0.0);
        assert_eq!([weight_of(&cut(&[9, 9])), weight_of(&cut(&[]))], [0.0; 2]);
        let text = String::from_utf8(bytes).unwrap();
        for (other, said) in [
            (text.replace("2.1", "2.2"), "was altered"),
            (text.replace("null", "0.5"), "was altered"),
            (text.replace("\"version\":1", "\"version\":2"), "version 2"),
            (text[..text.len() / 2].to_string(), "not readable"),
            (
                String::from_utf8(Samples::new(vec![Some(1.0)], &documents[..1]).write()).unwrap(),
                "has 1 sample, and the training data 4",
            ),
        ] {
            let error = Samples::read("f", other.as_bytes(), &documents).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("remove the file"), "{error}");
        }
    }

    #[test]
    fn another_model_or_other_data_have_another_name() {
        let [a, b]: [Digest; 2] = [1.into(), 2.into()];
        assert_ne!(Samples::name(a, b), Samples::name(b, a));
        assert_eq!(Samples::name(a, b), Samples::name(a, b));
    }
}
