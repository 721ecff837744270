//! Lays documents end to end into the streams that go through the model. Between `encode` and the training step.
//!
//! Packing only decides how many documents share a stream. Labels stop at a document's end, positions restart, and
//! `document_start` keeps attention inside, so the gradient of a step is the same however its documents are laid out.

use crate::data::{Document, IGNORE, MicroBatch};
use crate::error::{Error, Result};

/// Lays `documents` into micro-batches of at most `batch_tokens` tokens each, in order: a document goes into the current
/// stream if it still fits and opens the next one otherwise. Without `packing` every document is a stream of its own.
///
/// A document's ordinal in [`MicroBatch::document`] is its index in `documents`.
///
/// # Errors
/// [`Error::Config`] if a document alone is longer than `batch_tokens`.
pub fn pack(documents: &[&Document], batch_tokens: usize, packing: bool) -> Result<Vec<MicroBatch>> {
    let mut batches: Vec<MicroBatch> = Vec::new();
    for (ordinal, document) in documents.iter().enumerate() {
        let length = document.tokens.len();
        check_length(None, document, batch_tokens)?;
        if length == 0 {
            continue;
        }
        match batches.last() {
            Some(batch) if packing && batch.tokens.len() + length <= batch_tokens => {}
            _ => batches.push(MicroBatch::default()),
        }
        if let Some(batch) = batches.last_mut() {
            append(batch, document, ordinal as u32);
        }
    }
    Ok(batches)
}

/// Refuses a document that no stream can hold. `file` is its file's name, where that is known.
pub(crate) fn check_length(file: Option<&str>, document: &Document, batch_tokens: usize) -> Result<()> {
    let length = document.tokens.len();
    if length <= batch_tokens {
        return Ok(());
    }
    let (line, of_file) = (document.line, file.map_or(String::new(), |file| format!(" of {file}")));
    Err(Error::Config {
        problems: vec![format!(
            "run.batch_tokens is {batch_tokens}, but the document of line {line}{of_file} has {length} tokens: raise \
             run.batch_tokens to at least {length} or lower data.cutoff_length to at most {batch_tokens}"
        )],
    })
}

fn append(batch: &mut MicroBatch, document: &Document, ordinal: u32) {
    let (start, length) = (batch.tokens.len() as u32, document.tokens.len());
    batch.tokens.extend_from_slice(&document.tokens);
    batch.positions.extend(0..length as u32);
    batch.document_start.extend(std::iter::repeat_n(start, length));
    batch.document.extend(std::iter::repeat_n(ordinal, length));
    let next = document.tokens.iter().zip(&document.trained).skip(1);
    batch.labels.extend(next.map(|(token, trained)| if *trained { *token as i32 } else { IGNORE }));
    batch.labels.push(IGNORE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(tokens: &[u32], trained: &[bool]) -> Document {
        Document { tokens: tokens.to_vec(), trained: trained.to_vec(), line: 1 }
    }

    #[test]
    fn labels_are_the_next_token_and_stop_at_the_end_of_a_document() {
        let a = document(&[10, 11, 12], &[true, false, true]);
        let b = document(&[20, 21], &[true, true]);
        let batches = pack(&[&a, &b], 5, true).unwrap();
        assert_eq!(batches.len(), 1);
        let batch = &batches[0];
        assert_eq!(batch.tokens, [10, 11, 12, 20, 21]);
        assert_eq!(batch.labels, [IGNORE, 12, IGNORE, 21, IGNORE]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1]);
        assert_eq!(batch.document_start, [0, 0, 0, 3, 3]);
        assert_eq!(batch.document, [0, 0, 0, 1, 1]);
        assert_eq!(batch.trained_tokens(), a.trained_tokens() + b.trained_tokens());
    }

    #[test]
    fn a_document_longer_than_the_batch_is_refused_with_both_numbers() {
        let a = document(&[1, 2, 3], &[true; 3]);
        let error = pack(&[&a], 2, true).unwrap_err().to_string();
        assert!(error.contains("run.batch_tokens is 2") && error.contains("has 3 tokens"), "{error}");
    }

    #[test]
    fn without_packing_every_document_is_a_stream_and_nothing_else_changes() {
        let a = document(&[1, 2, 3], &[true; 3]);
        let b = document(&[4, 5], &[false, true]);
        let batches = pack(&[&a, &b], 100, false).unwrap();
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[1].document, [1, 1]);
        assert_eq!(batches[1].labels, [5, IGNORE]);
    }
}
