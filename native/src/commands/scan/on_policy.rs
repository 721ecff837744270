//! The on-policy contrast, the paper's Figure 1: the same prompts, answered by the data and by the model itself.

use anyhow::Result;
use serde_json::{Value, json};
use temper_engine::continuing::{Request, generate_all};
use temper_engine::events::Landscape;
use temper_engine::inside::rng::Rng;
use temper_engine::scan::{Fidelity, Tally, score};
use temper_engine::words::counted;
use temper_engine::{Document, Model, Objective, Sampling, wait};

use crate::meter::Meter;
use crate::progress::{grouped, number};

/// Longest answer, in tokens; the data's are cut off there too.
const ANSWER: usize = 256;
/// Answers that are written at once.
const AT_ONCE: usize = 8;
const SEED: u64 = 42;

/// A prompt and the data's answer to it.
struct Prompt {
    tokens: Vec<u32>,
    answer: Vec<u32>,
}

/// Prompts drawn out of all documents, each with the same chance, however many there are.
pub struct Prompts {
    most: usize,
    seen: u64,
    kept: Vec<Prompt>,
    rng: Rng,
}

impl Prompts {
    pub fn new(most: usize) -> Self {
        Self { most, seen: 0, kept: Vec::new(), rng: Rng::new(SEED) }
    }

    /// Offers a document: its prompt is what stands before its first answer; where hardly anything does, its first half
    /// is the prompt and its second one the answer.
    pub fn offer(&mut self, document: &Document) {
        if self.most == 0 {
            return;
        }
        let Some(prompt) = prompt(document) else { return };
        self.seen += 1;
        if self.kept.len() < self.most {
            self.kept.push(prompt);
        } else if let Some(place) = self.kept.get_mut(self.rng.below(self.seen as usize)) {
            *place = prompt;
        }
    }
}

fn prompt(document: &Document) -> Option<Prompt> {
    /// A shorter one is no prompt, but what a tokenizer puts first.
    const LEAST: usize = 4;
    let first = document.trained.iter().position(|trained| *trained)?;
    let start = if first < LEAST { document.tokens.len() / 2 } else { first };
    let answer = document.trained[start..].iter().take_while(|trained| **trained).count().min(ANSWER);
    let prompt =
        Prompt { tokens: document.tokens[..start].to_vec(), answer: document.tokens[start..][..answer].to_vec() };
    (start > 0 && answer > 0).then_some(prompt)
}

/// Both sides.
pub struct Contrast {
    pub prompts: usize,
    pub data: (Tally, Landscape),
    pub model: (Tally, Landscape),
}

impl Contrast {
    pub fn json(&self) -> Value {
        let side = |(tally, map): &(Tally, Landscape)| {
            json!({
                "tokens": tally.tokens,
                "conflict_share": tally.conflict_share(),
                "loss": tally.mean(tally.ce),
                "entropy": tally.mean(tally.entropy),
                "gate": tally.mean(tally.gate),
                "landscape": map,
            })
        };
        json!({ "prompts": self.prompts, "data": side(&self.data), "model": side(&self.model) })
    }

    pub fn text(&self) -> String {
        let side = |(tally, _): &(Tally, Landscape)| {
            format!("{} % of {}", number(100.0 * tally.conflict_share()), grouped(tally.tokens))
        };
        format!(
            "answers to {}: conflicts {} tokens in the data, {} where the model answers",
            counted(self.prompts, "prompt"),
            side(&self.data),
            side(&self.model)
        )
    }
}

/// Lets the model answer the prompts, drawn at temperature 1, each at most as long as the data's answer, and scores
/// both. None without a prompt.
pub fn contrast(model: &mut Model, prompts: Prompts, gate: &Objective, ends: &[u32]) -> Result<Option<Contrast>> {
    let prompts = prompts.kept;
    if prompts.is_empty() {
        return Ok(None);
    }
    let request = |(nth, prompt): (usize, &Prompt)| Request {
        prompt: prompt.tokens.clone(),
        count: prompt.answer.len(),
        sampling: Sampling { temperature: 1.0, seed: SEED + nth as u64, ..Sampling::greedy() },
    };
    let requests: Vec<Request> = prompts.iter().enumerate().map(request).collect();
    let meter = Meter::new("answers");
    let most: usize = requests.iter().map(|request| request.count).sum();
    meter.of_items(most as u64);
    let mut written = 0;
    let answers = wait(generate_all(model, &requests, AT_ONCE, ends, &mut |_, _| {
        written += 1;
        meter.at(written, written);
        true
    }))?;
    meter.finish();
    let document = |prompt: &Prompt, answer: &[u32]| Document {
        tokens: [&prompt.tokens, answer].concat(),
        trained: (0..prompt.tokens.len() + answer.len()).map(|at| at >= prompt.tokens.len()).collect(),
        line: 1,
    };
    let mut side = |documents: Vec<Document>| -> Result<(Tally, Landscape)> {
        let mut found = (Tally::default(), Landscape::default());
        for document in &documents {
            for score in wait(score(model, &[document], gate, &mut Fidelity::default()))? {
                found.0.add(&score);
                found.1.add(&score.stats, score.gate);
            }
        }
        Ok(found)
    };
    let data = side(prompts.iter().map(|prompt| document(prompt, &prompt.answer)).collect())?;
    let answers = prompts.iter().zip(&answers).filter(|(_, answer)| !answer.is_empty());
    let own = side(answers.map(|(prompt, answer)| document(prompt, answer)).collect())?;
    Ok(Some(Contrast { prompts: prompts.len(), data, model: own }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(length: usize, trained: std::ops::Range<usize>) -> Document {
        Document {
            tokens: (0..length as u32).collect(),
            trained: (0..length).map(|at| trained.contains(&at)).collect(),
            line: 1,
        }
    }

    #[test]
    fn a_prompt_is_what_stands_before_the_first_answer_or_the_first_half() {
        let found = prompt(&document(20, 8..15)).unwrap();
        assert_eq!((found.tokens.len(), found.answer), (8, (8..15).collect()));
        let found = prompt(&document(20, 1..20)).unwrap();
        assert_eq!((found.tokens.len(), found.answer.len()), (10, 10));
        let found = prompt(&document(1000, 9..1000)).unwrap();
        assert_eq!(found.answer.len(), ANSWER);
        assert!(prompt(&document(20, 20..20)).is_none() && prompt(&document(1, 0..1)).is_none());
    }

    #[test]
    fn prompts_are_drawn_from_all_documents_with_the_same_chance() {
        let mut early = 0;
        for seed in 0..200 {
            let mut prompts = Prompts::new(4);
            prompts.rng = Rng::new(seed);
            (0..40).for_each(|at| prompts.offer(&document(10 + at, 8..10)));
            assert_eq!(prompts.kept.len(), 4);
            early += prompts.kept.iter().filter(|prompt| prompt.answer.len() == 2).count();
        }
        assert_eq!(early, 800, "each has an answer of two tokens");
        let mut firsts = 0;
        for seed in 0..400 {
            let mut prompts = Prompts::new(4);
            prompts.rng = Rng::new(seed);
            (0..40).for_each(|at| prompts.offer(&document(60, 8 + at..59)));
            firsts += prompts.kept.iter().filter(|prompt| prompt.tokens.len() < 18).count();
        }
        // A quarter of the documents: 400 of 1600 in the mean, with a deviation of about 17.
        assert!((330..470).contains(&firsts), "{firsts}");
    }
}
