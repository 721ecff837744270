//! Yields the documents of each training step, for ever: seeded order, epochs, and a cursor that resumes exactly.
//!
//! **What a step is.** Documents are taken in the epoch's order while their tokens fit `batch_tokens * accumulation`
//! together, and a step ends with its epoch, so that every document is seen once an epoch. That choice looks neither at
//! `packing` nor at how the budget is split into micro-batches, so neither changes what is learned. The price: gaps at
//! the ends of streams can make a step one or more micro-batches longer than `accumulation`.
//!
//! **The order** is part of the file format of a run, and will not change: with
//! `mix(z) = { z = (z ^ z>>30) * 0xBF58476D1CE4E5B9; z = (z ^ z>>27) * 0x94D049BB133111EB; z ^ z>>31 }` (the finaliser
//! of splitmix64) and all arithmetic modulo 2^64, epoch `e` of seed `s` starts a counter at `mix(mix(s) + e)`; each draw adds
//! `0x9E3779B97F4A7C15` to the counter and mixes it; Fisher-Yates goes from the last index `i` down to 1 and swaps with
//! index `(draw * (i + 1)) >> 64`.

use serde::{Deserialize, Serialize};

use crate::data::packing::{check_length, pack};
use crate::data::{Document, MicroBatch};
use crate::error::{Error, Result};

/// Where a run stands in its data: everything that a checkpoint needs to go on with the next document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Documents of this epoch's order already used.
    pub index: u64,
}

/// Endless, ordered supply of training steps.
#[derive(Clone, Debug)]
pub struct Loader {
    /// The data's name, for messages.
    file: String,
    documents: Vec<Document>,
    seed: u64,
    cursor: Cursor,
    /// The order of the cursor's epoch.
    order: Vec<u32>,
    /// The documents of the step that was yielded last.
    last_step: Vec<u32>,
}

impl Loader {
    /// A loader at the start of epoch 0.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no document, or none has a trained token.
    pub fn new(file: &str, documents: Vec<Document>, seed: u64) -> Result<Self> {
        check(file, &documents)?;
        let order = order(seed, 0, documents.len());
        let (file, cursor) = (file.into(), Cursor::default());
        Ok(Self { file, documents, seed, cursor, order, last_step: Vec::new() })
    }

    /// The documents, in file order.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// The seed of the order.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where the next step begins. Store it after a step to resume with the one that follows.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Hash of seed, tokens and trained marks: equal only for the same data in the same order. A checkpoint stores it so
    /// that a cursor is never applied to other data.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(&self.documents, self.seed)
    }

    /// Goes to a stored place.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the data set has fewer documents than the cursor counts.
    pub fn resume(&mut self, cursor: Cursor) -> Result<()> {
        if cursor.index > self.documents.len() as u64 {
            let (index, count) = (cursor.index, self.documents.len());
            return Err(Error::Checkpoint {
                field: "cursor.index".into(),
                problem: format!(
                    "the checkpoint stands at document {index} of its epoch, but the data set has {count}; resume with \
                     the data that the run was started with"
                ),
            });
        }
        self.cursor = cursor;
        self.order = order(self.seed, cursor.epoch, self.documents.len());
        Ok(())
    }

    /// The documents of the next step, laid out as `packing` says; moves the cursor.
    ///
    /// # Errors
    /// [`Error::Config`] if `accumulation` is 0 or a document is longer than `batch_tokens`; the cursor then stays.
    pub fn next_step(&mut self, batch_tokens: usize, accumulation: usize, packing: bool) -> Result<Vec<MicroBatch>> {
        let budget = budget(&self.file, &self.documents, batch_tokens, accumulation)?;
        let mut cursor = self.cursor;
        if cursor.index >= self.documents.len() as u64 {
            cursor = Cursor { epoch: cursor.epoch + 1, index: 0 };
            self.order = order(self.seed, cursor.epoch, self.documents.len());
            self.cursor = cursor;
        }
        let start = cursor.index as usize;
        let end = step_end(&self.documents, &self.order, start, budget);
        let step: Vec<&Document> =
            self.order[start..end].iter().map(|index| &self.documents[*index as usize]).collect();
        let batches = pack(&step, batch_tokens, packing)?;
        self.cursor.index = end as u64;
        self.last_step = self.order[start..end].to_vec();
        Ok(batches)
    }

    /// Indices of the documents of the step that [`Loader::next_step`] yielded last: what [`MicroBatch::document`] counts.
    pub fn last_step(&self) -> &[u32] {
        &self.last_step
    }

    /// Steps in the first epoch. Other epochs can differ by a step or so, since their order fills steps differently; see
    /// [`Loader::steps_in_epochs`].
    ///
    /// # Errors
    /// As [`Loader::next_step`].
    pub fn steps_per_epoch(&self, batch_tokens: usize, accumulation: usize) -> Result<u64> {
        self.steps_in_epochs(1, batch_tokens, accumulation)
    }

    /// Steps in the first `epochs` epochs, counted exactly.
    ///
    /// # Errors
    /// As [`Loader::next_step`].
    pub fn steps_in_epochs(&self, epochs: u64, batch_tokens: usize, accumulation: usize) -> Result<u64> {
        let budget = budget(&self.file, &self.documents, batch_tokens, accumulation)?;
        Ok((0..epochs).map(|epoch| steps_in_epoch(&self.documents, self.seed, epoch, budget)).sum())
    }
}

/// Steps in the first epoch of documents that no loader holds yet: as [`Loader::steps_per_epoch`] of a loader of them.
///
/// # Errors
/// As [`Loader::new`] and [`Loader::next_step`].
pub fn steps_per_epoch(
    file: &str,
    documents: &[Document],
    seed: u64,
    batch_tokens: usize,
    accumulation: usize,
) -> Result<u64> {
    check(file, documents)?;
    Ok(steps_in_epoch(documents, seed, 0, budget(file, documents, batch_tokens, accumulation)?))
}

/// Makes sure that there is something to train on.
fn check(file: &str, documents: &[Document]) -> Result<()> {
    let refuse = |problem: &str| Err(Error::Data { file: file.into(), problem: problem.into() });
    if documents.is_empty() {
        return refuse("there are no documents to train on");
    }
    if documents.len() > u32::MAX as usize {
        return refuse("more than 4,294,967,295 documents are not supported");
    }
    if documents.iter().all(|document| document.trained_tokens() == 0) {
        return refuse("no document has a trained token, so there is nothing to learn");
    }
    Ok(())
}

/// Token budget of a step, after making sure that every document fits a stream.
fn budget(file: &str, documents: &[Document], batch_tokens: usize, accumulation: usize) -> Result<usize> {
    if accumulation == 0 {
        return Err(Error::Config { problems: vec!["run.accumulation is 0: use at least 1".into()] });
    }
    if let Some(longest) = documents.iter().max_by_key(|document| document.tokens.len()) {
        check_length(Some(file), longest, batch_tokens)?;
    }
    Ok(batch_tokens.saturating_mul(accumulation))
}

fn steps_in_epoch(documents: &[Document], seed: u64, epoch: u64, budget: usize) -> u64 {
    let order = order(seed, epoch, documents.len());
    let (mut steps, mut index) = (0, 0);
    while index < order.len() {
        index = step_end(documents, &order, index, budget);
        steps += 1;
    }
    steps
}

/// Index after the last document of the step that begins at `start`; takes at least one.
fn step_end(documents: &[Document], order: &[u32], start: usize, budget: usize) -> usize {
    let mut used = 0_usize;
    let fitting = order[start..].iter().take_while(|index| {
        used = used.saturating_add(documents[**index as usize].tokens.len());
        used <= budget
    });
    start + fitting.count().max(1)
}

/// Hash of tokens and trained marks, and of a seed.
pub fn fingerprint(documents: &[Document], seed: u64) -> u64 {
    let mut state = mix(seed);
    let mut absorb = |value: u64| state = mix(state.wrapping_mul(GOLDEN) ^ value);
    for document in documents {
        absorb(document.tokens.len() as u64);
        for (token, trained) in document.tokens.iter().zip(&document.trained) {
            absorb(u64::from(*token) << 1 | u64::from(*trained));
        }
    }
    state
}

/// Increment of splitmix64's counter.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Finaliser of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The order of `count` documents in one epoch, as the file header defines it.
fn order(seed: u64, epoch: u64, count: usize) -> Vec<u32> {
    let mut counter = mix(mix(seed).wrapping_add(epoch));
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        counter = counter.wrapping_add(GOLDEN);
        let other = (u128::from(mix(counter)) * (last as u128 + 1)) >> 64;
        order.swap(last, other as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(lengths: &[usize]) -> Vec<Document> {
        let make = |(index, length): (usize, &usize)| Document {
            tokens: (0..*length).map(|token| (index * 100 + token) as u32).collect(),
            trained: vec![true; *length],
            line: index + 1,
        };
        lengths.iter().enumerate().map(make).collect()
    }

    #[test]
    fn the_order_of_a_seed_never_changes() {
        // Computed independently, in Python, from the definition in the file header.
        assert_eq!(order(0, 0, 10), [4, 9, 2, 5, 1, 7, 6, 0, 3, 8]);
        assert_eq!(order(42, 3, 10), [8, 1, 5, 7, 2, 4, 6, 3, 0, 9]);
    }

    #[test]
    fn the_steps_of_documents_are_those_of_a_loader_of_them() {
        let documents = documents(&[9, 3, 4, 8, 2, 7, 1, 6]);
        let loader = Loader::new("d", documents.clone(), 42).unwrap();
        for (batch_tokens, accumulation) in [(9, 1), (10, 1), (9, 2), (40, 1)] {
            let steps = steps_per_epoch("d", &documents, 42, batch_tokens, accumulation).unwrap();
            assert_eq!(steps, loader.steps_per_epoch(batch_tokens, accumulation).unwrap());
            let mut loader = loader.clone();
            (0..steps).for_each(|_| drop(loader.next_step(batch_tokens, accumulation, true).unwrap()));
            assert_eq!(loader.cursor(), Cursor { epoch: 0, index: 8 }, "{steps} steps are one pass");
        }
        assert!(steps_per_epoch("d", &[], 42, 9, 1).is_err() && steps_per_epoch("d", &documents, 42, 8, 1).is_err());
    }

    #[test]
    fn a_data_set_without_a_trained_token_is_refused() {
        let mut silent = documents(&[4, 4]);
        silent.iter_mut().for_each(|document| document.trained = vec![true, false, false, false]);
        assert!(Loader::new("d", silent, 0).unwrap_err().to_string().contains("no document has a trained token"));
        assert!(Loader::new("d", vec![], 0).is_err());
    }

    #[test]
    fn fingerprints_differ_when_data_or_seed_differ() {
        let print = |documents, seed| Loader::new("d", documents, seed).unwrap().fingerprint();
        let base = print(documents(&[3, 4]), 1);
        assert_eq!(base, print(documents(&[3, 4]), 1));
        assert_ne!(base, print(documents(&[4, 3]), 1));
        assert_ne!(base, print(documents(&[3, 4]), 2));
        let mut marked = documents(&[3, 4]);
        marked[0].trained[1] = false;
        assert_ne!(base, print(marked, 1));
    }

    #[test]
    fn a_cursor_beyond_the_data_is_refused() {
        let mut loader = Loader::new("d", documents(&[3, 4]), 1).unwrap();
        assert!(loader.resume(Cursor { epoch: 0, index: 3 }).unwrap_err().to_string().contains("document 3"));
    }
}
