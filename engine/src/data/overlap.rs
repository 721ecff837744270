//! Which documents of one set are in another one: what is measured says nothing once it is trained on.
//!
//! Equal documents have equal tokens. A text may be cut otherwise in each set, or be a part of a longer one there, so
//! runs of [`RUN`] trained tokens are compared too: those of one set that begin at every [`EVERY`]th token of a text with
//! those at every place of the other set. Prompts do not count, since many records have the same. The time grows with
//! the number of tokens, not with its square.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;

use crate::data::{Document, tokens_of};

/// Tokens of a run. Phrases that texts share by accident are shorter.
const RUN: usize = 32;
/// Tokens from the beginning of a run that is looked for to that of the next one.
const EVERY: usize = 8;

/// Which documents of two sets are in the other one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Of the first set, in its order.
    pub first: Vec<bool>,
    /// Of the second set, in its order.
    pub second: Vec<bool>,
}

/// Compares two sets. A document is in the other set where that has one of the same tokens, or where at least half of
/// its trained tokens are in texts of that set. One of `first` is also where it holds at least half of a document of
/// `second`.
pub fn shared(first: &[Document], second: &[Document]) -> Shared {
    if first.is_empty() || second.is_empty() {
        return Shared { first: vec![false; first.len()], second: vec![false; second.len()] };
    }
    let mut shared = Shared { first: equal(first, second), second: equal(second, first) };
    let runs = Runs::of(second);
    let found = runs.found_in(first);
    add(&mut shared.first, &found.hold_one);
    add(&mut shared.first, &mostly(first, &found.covered));
    add(&mut shared.second, &mostly(second, &runs.covered(&found.seen)));
    shared
}

/// What is in one of both.
fn add(found: &mut [bool], more: &[bool]) {
    found.iter_mut().zip(more).for_each(|(one, other)| *one |= *other);
}

/// Whether there is a document of the same tokens in `other`, for each of `documents`.
pub(super) fn equal(documents: &[Document], other: &[Document]) -> Vec<bool> {
    let other: HashSet<&[u32]> = other.iter().map(|document| document.tokens.as_slice()).collect();
    documents.iter().map(|document| other.contains(document.tokens.as_slice())).collect()
}

/// Whether at least half of the trained tokens of each document are covered. `covered` is of all tokens, end to end.
fn mostly(documents: &[Document], covered: &[bool]) -> Vec<bool> {
    let mut rest = covered;
    let is_covered = |document: &Document| {
        let (own, after) = rest.split_at(document.tokens.len());
        rest = after;
        let count = document.trained.iter().zip(own).filter(|(trained, covered)| **trained && **covered).count();
        count > 0 && 2 * count >= trained_tokens(document)
    };
    documents.iter().map(is_covered).collect()
}

fn trained_tokens(document: &Document) -> usize {
    document.trained.iter().filter(|trained| **trained).count()
}

/// Where trained tokens of one text follow one another, in all tokens end to end. Documents of one line that follow one
/// another are parts of one text.
fn stretches(documents: &[Document]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let (mut at, mut line) = (0, None);
    for document in documents {
        let mut goes_on = line.replace(document.line) == Some(document.line);
        for trained in &document.trained {
            match found.last_mut().filter(|last| goes_on && last.end == at) {
                Some(last) if *trained => last.end = at + 1,
                _ if *trained => found.push(at..at + 1),
                _ => {}
            }
            goes_on = true;
            at += 1;
        }
    }
    found
}

/// Runs of a set, which are looked for in another one.
struct Runs<'a> {
    documents: &'a [Document],
    /// Where each document ends in all tokens end to end, and how many it trains.
    ends: Vec<(usize, usize)>,
    /// Where each run begins, and its number: runs of the same tokens have one.
    all: Vec<(usize, usize)>,
    /// Where the first run of each number begins.
    first: Vec<usize>,
    /// Numbers, by the hash of the tokens.
    numbers: HashMap<u64, usize>,
}

/// What was found of the runs of one set in the documents of another one.
struct Found {
    /// Whether a token of theirs is in a run, for all tokens end to end.
    covered: Vec<bool>,
    /// Whether each of them holds at least half of a document of the runs' set.
    hold_one: Vec<bool>,
    /// Whether a run was found, by its number.
    seen: Vec<bool>,
}

impl<'a> Runs<'a> {
    fn of(documents: &'a [Document]) -> Self {
        let mut end = 0;
        let ends = documents.iter().map(|document| {
            end += document.tokens.len();
            (end, trained_tokens(document))
        });
        let ends = ends.collect();
        let mut runs = Self { documents, ends, all: Vec::new(), first: Vec::new(), numbers: HashMap::new() };
        for stretch in stretches(documents).into_iter().filter(|stretch| stretch.len() >= RUN) {
            // The last one ends with its text.
            let last = stretch.end - RUN;
            (stretch.start..last).step_by(EVERY).chain([last]).for_each(|at| runs.add(at));
        }
        runs
    }

    fn add(&mut self, at: usize) {
        let hash = self.tokens(at).fold(0, rolled);
        let number = match self.numbers.get(&hash).copied() {
            Some(number) if self.tokens(self.first[number]).eq(self.tokens(at)) => number,
            // Other tokens of the same hash.
            Some(_) => return,
            None => {
                self.numbers.insert(hash, self.first.len());
                self.first.push(at);
                self.first.len() - 1
            }
        };
        self.all.push((at, number));
    }

    /// The document that a token belongs to.
    fn document(&self, at: usize) -> usize {
        self.ends.partition_point(|(end, _)| *end <= at)
    }

    /// The tokens of a run that begins there.
    fn tokens(&self, at: usize) -> impl Iterator<Item = u32> {
        let index = self.document(at);
        let (own, behind) = (&self.documents[index].tokens, &self.documents[index + 1..]);
        let from = at + own.len() - self.ends[index].0;
        own[from..].iter().chain(behind.iter().flat_map(|document| &document.tokens)).copied().take(RUN)
    }

    /// Looks for the runs at every place of other documents.
    fn found_in(&self, documents: &[Document]) -> Found {
        let count = tokens_of(documents);
        let mut found =
            Found { covered: vec![false; count], hold_one: Vec::new(), seen: vec![false; self.first.len()] };
        let (mut at, mut line, mut window) = (0, None, Window::default());
        for document in documents {
            if line.replace(document.line) != Some(document.line) {
                window.clear();
            }
            let mut parts = Vec::new();
            for (index, (token, trained)) in document.tokens.iter().zip(&document.trained).enumerate() {
                at += 1;
                if !trained {
                    window.clear();
                    continue;
                }
                let Some(number) = window.push(*token).and_then(|hash| self.numbered(hash, &window)) else { continue };
                found.covered[at - RUN..at].fill(true);
                found.seen[number] = true;
                // Its beginning may be in the document before.
                let end = self.first[number] + RUN;
                parts.push(end - RUN.min(index + 1)..end);
            }
            found.hold_one.push(self.has_half_of_one(parts));
        }
        found
    }

    /// The number of a run of these tokens.
    fn numbered(&self, hash: u64, window: &Window) -> Option<usize> {
        let number = *self.numbers.get(&hash)?;
        self.tokens(self.first[number]).eq(window.tokens.iter().copied()).then_some(number)
    }

    /// Whether these parts of all tokens have at least half of what one of the documents trains.
    fn has_half_of_one(&self, mut parts: Vec<Range<usize>>) -> bool {
        parts.sort_unstable_by_key(|part| part.start);
        let mut held: BTreeMap<usize, usize> = BTreeMap::new();
        let mut end = 0;
        for part in parts {
            // Parts overlap, and one may reach into the next document.
            let mut from = part.start.max(end);
            end = end.max(part.end);
            while from < end {
                let document = self.document(from);
                let to = end.min(self.ends[document].0);
                *held.entry(document).or_default() += to - from;
                from = to;
            }
        }
        held.into_iter().any(|(document, count)| 2 * count >= self.ends[document].1)
    }

    /// Whether a token is in a run that was seen, for all tokens end to end.
    fn covered(&self, seen: &[bool]) -> Vec<bool> {
        let mut covered = vec![false; self.ends.last().map_or(0, |(end, _)| *end)];
        for (at, _) in self.all.iter().filter(|(_, number)| seen[*number]) {
            covered[*at..*at + RUN].fill(true);
        }
        covered
    }
}

/// An odd number whose bits are mixed.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
/// What a token counts in the hash that is [`RUN`] tokens back.
const BACK: u64 = FACTOR.wrapping_pow(RUN as u32);

/// The hash of a token more.
fn rolled(hash: u64, token: u32) -> u64 {
    hash.wrapping_mul(FACTOR).wrapping_add(u64::from(token) + 1)
}

/// The last [`RUN`] trained tokens of a text.
#[derive(Default)]
struct Window {
    tokens: VecDeque<u32>,
    hash: u64,
}

impl Window {
    fn clear(&mut self) {
        self.tokens.clear();
        self.hash = 0;
    }

    /// Takes the next token; the hash of the last ones, once they are enough.
    fn push(&mut self, token: u32) -> Option<u64> {
        self.hash = rolled(self.hash, token);
        self.tokens.push_back(token);
        if self.tokens.len() > RUN
            && let Some(gone) = self.tokens.pop_front()
        {
            self.hash = self.hash.wrapping_sub((u64::from(gone) + 1).wrapping_mul(BACK));
        }
        (self.tokens.len() == RUN).then_some(self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::windows;
    use crate::rng::Rng;

    /// A text of so many tokens, another one for each seed.
    fn text(count: usize, seed: u64) -> Vec<u32> {
        let mut rng = Rng::new(seed);
        (0..count).map(|_| rng.below(5_000) as u32).collect()
    }

    fn document(tokens: &[u32], line: usize) -> Document {
        Document { tokens: tokens.to_vec(), trained: vec![true; tokens.len()], line }
    }

    fn answer(prompt: &[u32], tokens: &[u32], line: usize) -> Document {
        let trained = (0..prompt.len() + tokens.len()).map(|at| at >= prompt.len()).collect();
        Document { tokens: [prompt, tokens].concat(), trained, line }
    }

    fn all(of: &[bool]) -> bool {
        of.iter().all(|is| *is)
    }

    fn none(of: &[bool]) -> bool {
        of.iter().all(|is| !is)
    }

    #[test]
    fn equal_documents_are_found_however_short_and_however_often() {
        let set = |seeds: &[u64]| -> Vec<Document> {
            seeds.iter().enumerate().map(|(line, seed)| document(&text(5, *seed), line)).collect()
        };
        let found = shared(&set(&[1, 2, 3, 2]), &set(&[7, 2, 2, 8, 3]));
        assert_eq!(found.first, [false, true, true, true]);
        assert_eq!(found.second, [false, true, true, false, true]);
        for (one, two) in [(&[][..], &[1_u64][..]), (&[1], &[]), (&[], &[])] {
            let found = shared(&set(one), &set(two));
            assert!(none(&found.first) && none(&found.second));
            assert_eq!((found.first.len(), found.second.len()), (one.len(), two.len()));
        }
    }

    #[test]
    fn a_text_is_found_wherever_it_is_cut_with_what_stands_around_it_to_its_last_token() {
        let (begin, noise, end) = ([9_000], text(77, 2), [9_001]);
        for length in [40, 1_024, 3_000, 3_089] {
            let tokens = text(length, 1);
            let measured = windows(&tokens, 1_024);
            for cutoff in [16, 100, 511, 1_024, 2_048, 3_088] {
                for before in [&[][..], &begin, &noise] {
                    let found = shared(&windows(&[before, &tokens, &end].concat(), cutoff), &measured);
                    let other = found.first.iter().filter(|is| !**is).count();
                    // A document that is more than half of what stands before the text is none of it.
                    let most = before.len() / cutoff + usize::from(2 * (before.len() % cutoff) > cutoff);
                    assert!(other <= most, "{length} tokens in {cutoff}: {:?}", found.first);
                    assert!(all(&found.second), "{length} tokens in {cutoff}: {:?}", found.second);
                }
                let found = shared(&windows(&text(length, 3), cutoff), &measured);
                assert!(none(&found.first) && none(&found.second), "another text of {length} tokens in {cutoff}");
            }
        }
    }

    #[test]
    fn a_part_of_a_text_and_a_text_around_a_part_are_found_at_every_place() {
        let long = text(400, 1);
        for at in 0..60 {
            let part = [document(&long[at..at + 47], 1)];
            // The part is measured, and what holds it is trained on: both are told.
            let found = shared(&[document(&text(400, 2), 1), document(&long, 2)], &part);
            assert_eq!((found.first, found.second), (vec![false, true], vec![true]), "{at}");
            // The part is trained on: so much of the long text is not.
            let found = shared(&part, &[document(&long, 1)]);
            assert_eq!((found.first, found.second), (vec![true], vec![false]), "{at}");
        }
        // Half of a text is in another one, and less than half.
        for (count, is_half) in [(200, true), (190, false)] {
            let other = [&long[..count], &text(400 - count, 3)].concat();
            let found = shared(&[document(&other, 1)], &[document(&long, 1)]);
            assert_eq!((found.first, found.second), (vec![is_half], vec![is_half]), "{count}");
        }
    }

    #[test]
    fn what_is_repeated_is_found_at_each_of_its_places() {
        let sentence = text(17, 1);
        let repeated: Vec<u32> = sentence.iter().copied().cycle().take(500).collect();
        let found = shared(&windows(&repeated, 64), &windows(&repeated, 100));
        assert!(all(&found.first) && all(&found.second), "{found:?}");
        let copies: Vec<Document> = (1..4).map(|line| document(&text(200, 2), line)).collect();
        let found = shared(&[document(&[&text(50, 3)[..], &text(200, 2)].concat(), 1)], &copies);
        assert!(all(&found.first) && all(&found.second), "{found:?}");
    }

    #[test]
    fn prompts_that_all_records_share_say_nothing_and_answers_do() {
        let system = text(300, 1);
        let records = |seeds: Range<u64>| -> Vec<Document> {
            seeds.map(|seed| answer(&system, &text(40, seed), seed as usize)).collect()
        };
        let found = shared(&records(10..20), &records(20..30));
        assert!(none(&found.first) && none(&found.second));
        let found = shared(&records(10..20), &records(15..25));
        assert_eq!(found.first, (10..20).map(|seed| seed >= 15).collect::<Vec<_>>());
        assert_eq!(found.second, (15..25).map(|seed| seed < 20).collect::<Vec<_>>());
        // The same answer to another question, and an answer that is read and not trained.
        let read = [&text(40, 13)[..], &system].concat();
        let other = [answer(&text(300, 2), &text(40, 12), 1), answer(&read, &[1, 2], 2)];
        let found = shared(&other, &records(10..20));
        assert_eq!(found.first, [true, false]);
    }

    #[test]
    fn records_beside_one_another_are_no_text() {
        // Each has half of what is measured, but for a token.
        let tokens = text(60, 1);
        let halves = [document(&tokens[..30], 1), document(&tokens[30..], 2)];
        let found = shared(&halves, &[document(&tokens, 1)]);
        assert!(none(&found.first) && none(&found.second));
        let parts = [document(&tokens[..30], 1), document(&tokens[30..], 1)];
        assert!(all(&shared(&parts, &[document(&tokens, 1)]).first), "of one line they are");
    }
}
