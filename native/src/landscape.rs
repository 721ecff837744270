//! Which training tokens the entropy-by-probability maps of a run are drawn from.
//!
//! They are measured before the first step and after the last one, so how many there are follows from how much the run
//! trains. A forward pass takes at most half of what training the same tokens takes, so two maps of a tenth of a run's
//! tokens add at most a tenth to its time.

use temper_engine::{Config, Document, Result};

use crate::plan::trained_tokens;
use crate::training_set::of_each_file;

/// More tokens make no better picture.
const MOST: u64 = 16_384;
/// The share of a long run's tokens.
const SHARE: u64 = 16;
/// Fewer tokens hardly make a picture: a short run takes a larger share for them, up to [`LARGEST_SHARE`].
const LEAST: u64 = 64;
/// The share of a run's tokens that is never exceeded.
const LARGEST_SHARE: u64 = 10;

/// How many tokens are measured for a run that trains so many.
fn tokens(trained: u64) -> u64 {
    (trained / SHARE).max(LEAST.min(trained / LARGEST_SHARE)).min(MOST)
}

/// The documents: the first ones of each file of the training set, which has so many of each, as many as there is time for.
/// Where that is less than the first of them, a part of it; nothing where no scored token would be in it.
///
/// # Errors
/// As [`trained_tokens`].
pub fn documents(config: &Config, train: &[Document], counts: &[usize]) -> Result<Vec<Document>> {
    let most = tokens(trained_tokens(config, train)?) as usize;
    Ok(of_each_file(train, counts, most).flat_map(|(own, most)| beginning(own, most)).collect())
}

/// Whole documents of at most `most` tokens together, or a part of the first one.
fn beginning(train: &[Document], most: usize) -> Vec<Document> {
    let mut tokens = 0;
    let within = |document: &&Document| {
        tokens += document.tokens.len();
        tokens <= most
    };
    let whole: Vec<Document> = train.iter().take_while(within).cloned().collect();
    match (train.first(), whole.is_empty()) {
        (Some(first), true) => part(first, most).into_iter().collect(),
        _ => whole,
    }
}

/// So many tokens of a document, half of them before its first trained one where there are as many.
fn part(document: &Document, most: usize) -> Option<Document> {
    let first = document.trained.iter().position(|&trained| trained)?;
    let length = document.tokens.len();
    let start = first.saturating_sub(most / 2).min(length.saturating_sub(most));
    let range = start..(start + most).min(length);
    let part = Document {
        tokens: document.tokens[range.clone()].to_vec(),
        trained: document.trained[range].to_vec(),
        line: document.line,
    };
    (part.trained_tokens() > 0).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_maps_take_at_most_a_tenth_of_a_run_and_never_more_than_their_most() {
        for trained in (0..5_000).chain([100_000, 1 << 18, 1 << 40]) {
            // A forward pass is at most half of a training pass.
            assert!(2 * tokens(trained) * LARGEST_SHARE <= 2 * trained, "{trained}");
            assert!(tokens(trained) <= MOST);
        }
        let found = [512, 640, 1024, 2048, 65_536, 1 << 18, 1 << 20].map(tokens);
        assert_eq!(found, [51, 64, 64, 128, 4096, 16_384, 16_384]);
    }

    #[test]
    fn a_document_that_is_too_long_is_cut_around_the_first_token_that_it_trains() {
        let document = |length: usize, from: usize| Document {
            tokens: (0..length as u32).collect(),
            trained: (0..length).map(|at| at >= from).collect(),
            line: 7,
        };
        let short = [document(30, 5), document(20, 3), document(60, 0)];
        assert_eq!(beginning(&short, 60), short[..2]);
        assert_eq!(beginning(&short, 30), short[..1]);
        let cut = beginning(&[document(16_384, 16_000)], 64);
        assert_eq!((cut.len(), cut[0].tokens[0], cut[0].tokens.len(), cut[0].trained_tokens()), (1, 15_968, 64, 32));
        let cut = beginning(&[document(16_384, 16_380)], 64);
        assert_eq!((cut[0].tokens[0], cut[0].tokens.len(), cut[0].trained_tokens()), (16_320, 64, 4));
        let cut = beginning(&[document(100, 10)], 64);
        assert_eq!((cut[0].tokens[0], cut[0].trained_tokens(), cut[0].line), (0, 54, 7));
        for nothing in [beginning(&[document(100, 10)], 0), beginning(&[document(100, 100)], 64), beginning(&[], 64)] {
            assert!(nothing.is_empty());
        }
    }
}
