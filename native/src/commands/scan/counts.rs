//! What is counted of scored tokens; its size does not depend on how many there are.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use temper_engine::events::Landscape;
use temper_engine::inside::kernels::{Indices, row_stats, tensor};
use temper_engine::inside::rng::Rng;
use temper_engine::scan::{Bottoms, Highest, Reliability, Tally, TokenClass, TokenScore, wilson};
use temper_engine::{Document, Model, wait};

use super::Shown;

/// Thresholds of label probability and entropy (nats) by which conflicts are counted; the middle ones are ours.
pub const PROBABILITIES: [f32; 4] = [0.05, 0.1, 0.2, 0.35];
pub const ENTROPIES: [f32; 4] = [0.25, 0.5, 1.0, 1.6];
/// Bins of the gate's histogram, each 0.05 wide.
pub const GATES: usize = 20;
/// Places in an answer: 1, 2 to 3, 4 to 7 and so on.
pub const PLACES: usize = 14;
/// Bins of documents by their share of conflicts, each half a percent wide.
const SHARES: usize = 201;
/// How many of the worst are shown.
const WORST_DOCUMENTS: usize = 25;
const WORST_TOKENS: usize = 40;
/// Values of K whose kernel is timed.
const TIMED: [usize; 8] = [2, 4, 8, 16, 20, 32, 48, 64];

/// A record, or a window of plain text, while it is scored.
pub struct Unit {
    pub file: usize,
    pub line: usize,
    pub raw: Option<Vec<u8>>,
    pub documents: Vec<Document>,
    pub tally: Tally,
    /// Its most conflicted token.
    pub worst: Highest<Shown>,
}

impl Unit {
    pub fn new(file: usize, line: usize, raw: Option<Vec<u8>>, documents: Vec<Document>) -> Self {
        Self { file, line, raw, documents, tally: Tally::default(), worst: Highest::new(1) }
    }

    pub fn add(&mut self, score: &TokenScore) {
        self.tally.add(score);
    }

    /// Its line of `scan.jsonl`.
    pub fn line_of_json(&self, file: &str) -> Value {
        let t = &self.tally;
        json!({
            "what": "document",
            "file": file,
            "line": self.line,
            "tokens": t.tokens,
            "conflicts": t.conflicts,
            "conflict_share": t.conflict_share(),
            "loss": t.mean(t.ce),
            "entropy": t.mean(t.entropy),
            "gate": t.mean(t.gate),
            "worst": self.worst.entries().first().map(|(_, shown)| shown),
        })
    }
}

/// A document among the most conflicted ones.
pub struct Conflicted {
    pub file: String,
    pub line: usize,
    pub tally: Tally,
    pub worst: Option<Shown>,
}

/// Documents by their share of conflicts.
#[derive(Clone, Copy, Default)]
struct Shares {
    documents: u64,
    conflicts: u64,
}

/// All counts of a scan.
pub struct Counts {
    /// Records, or windows of plain text.
    pub documents: u64,
    /// Tokens that went through the model.
    pub tokens_seen: u64,
    pub all: Tally,
    pub by_file: Vec<Tally>,
    classes: [Tally; TokenClass::ALL.len()],
    pub places: [Tally; PLACES],
    /// Conflicts by thresholds, `[probability][entropy]`.
    pub thresholds: [[u64; ENTROPIES.len()]; PROBABILITIES.len()],
    pub bottoms: Bottoms,
    pub landscape: Landscape,
    pub gates: [u64; GATES],
    pub gates_below_0_1: u64,
    pub reliability: Reliability,
    shares: Vec<Shares>,
    pub worst_documents: Highest<Conflicted>,
    pub worst_tokens: Highest<Shown>,
}

impl Counts {
    pub fn new(files: usize) -> Self {
        Self {
            documents: 0,
            tokens_seen: 0,
            all: Tally::default(),
            by_file: vec![Tally::default(); files],
            classes: Default::default(),
            places: Default::default(),
            thresholds: Default::default(),
            bottoms: Bottoms::default(),
            landscape: Landscape::default(),
            gates: [0; GATES],
            gates_below_0_1: 0,
            reliability: Reliability::default(),
            shares: vec![Shares::default(); SHARES],
            worst_documents: Highest::new(WORST_DOCUMENTS),
            worst_tokens: Highest::new(WORST_TOKENS),
        }
    }

    /// Counts a token of this place in its answer, from 1 on.
    pub fn add(&mut self, file: usize, ordinal: u32, class: TokenClass, score: &TokenScore) {
        self.all.add(score);
        self.by_file[file].add(score);
        if let Some(at) = TokenClass::ALL.iter().position(|other| *other == class) {
            self.classes[at].add(score);
        }
        self.places[(ordinal.max(1).ilog2() as usize).min(PLACES - 1)].add(score);
        let (p, entropy) = (score.stats.p(), score.stats.entropy_full);
        for (row, below) in self.thresholds.iter_mut().zip(PROBABILITIES) {
            for (count, under) in row.iter_mut().zip(ENTROPIES) {
                *count += u64::from(p < below && entropy < under);
            }
        }
        self.bottoms.add(score);
        self.landscape.add(&score.stats, score.gate);
        // Rounding may leave a gate a little above 1.
        self.gates[((f64::from(score.gate) * GATES as f64) as usize).min(GATES - 1)] += 1;
        self.gates_below_0_1 += u64::from(score.gate < 0.1);
        self.reliability.add(score);
    }

    /// Counts a record whose tokens are all counted.
    pub fn end(&mut self, unit: Unit, file: &str) {
        self.documents += 1;
        let t = unit.tally;
        let bin = &mut self.shares[((t.conflict_share() * (SHARES - 1) as f64).ceil() as usize).min(SHARES - 1)];
        bin.documents += 1;
        bin.conflicts += t.conflicts;
        // By the lower end of an interval, so that one of a document's two tokens does not lead.
        let score = if t.tokens == 0 { f64::NAN } else { wilson(t.conflicts, t.tokens)[0] };
        self.worst_documents.offer(score, || Conflicted {
            file: file.into(),
            line: unit.line,
            tally: t,
            worst: unit.worst.entries().first().map(|(_, shown)| shown.clone()),
        });
    }

    /// Tokens by class, in the order of [`TokenClass::ALL`].
    pub fn by_class(&self) -> Vec<(TokenClass, Tally)> {
        TokenClass::ALL.into_iter().zip(self.classes).collect()
    }

    /// Documents with a larger share of conflicts than this multiple of 0.005, and the conflicts in them.
    pub fn above(&self, share: f64) -> [u64; 2] {
        let first = (share * (SHARES - 1) as f64).round() as usize + 1;
        let above = self.shares.get(first..).unwrap_or_default().iter();
        above.fold([0; 2], |[documents, conflicts], bin| [documents + bin.documents, conflicts + bin.conflicts])
    }

    /// The name of a place in an answer.
    pub fn place_name(place: usize) -> String {
        match place {
            0 => "1".into(),
            place if place == PLACES - 1 => format!("{} and on", 1 << place),
            place => format!("{} to {}", 1 << place, (1 << (place + 1)) - 1),
        }
    }

    /// `conflicts` of `summary.json`.
    pub fn conflicts_json(&self, files: &[String]) -> Value {
        let tally = |name: &str, t: &Tally| json!({ "name": name, "tokens": t.tokens, "conflicts": t.conflicts, "share": t.conflict_share() });
        let mut thresholds = Vec::new();
        for (row, p) in self.thresholds.iter().zip(PROBABILITIES) {
            for (count, entropy) in row.iter().zip(ENTROPIES) {
                let share = *count as f64 / self.all.tokens.max(1) as f64;
                thresholds.push(json!({ "p_below": p, "entropy_below": entropy, "tokens": count, "share": share }));
            }
        }
        let above = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].map(|share| {
            let [documents, conflicts] = self.above(share);
            json!({ "share": share, "documents": documents, "conflicts": conflicts })
        });
        let places = self.places.iter().enumerate().filter(|(_, t)| t.tokens > 0);
        let documents = self.worst_documents.entries().iter().map(|(_, d)| {
            json!({
                "file": d.file,
                "line": d.line,
                "tokens": d.tally.tokens,
                "conflicts": d.tally.conflicts,
                "share": d.tally.conflict_share(),
            })
        });
        json!({
            "count": self.all.conflicts,
            "share": self.all.conflict_share(),
            "interval": wilson(self.all.conflicts, self.all.tokens),
            "by_quantile": self.bottoms.found(),
            "by_threshold": thresholds,
            "by_file": self.by_file.iter().zip(files).map(|(t, name)| tally(name, t)).collect::<Vec<_>>(),
            "by_class": self.by_class().iter().map(|(class, t)| tally(class.name(), t)).collect::<Vec<_>>(),
            "by_place": places.map(|(at, t)| tally(&Self::place_name(at), t)).collect::<Vec<_>>(),
            "documents_above": above,
            "worst_documents": documents.collect::<Vec<_>>(),
            "worst_tokens": self.worst_tokens.entries().iter().map(|(_, shown)| shown).collect::<Vec<_>>(),
        })
    }
}

/// Seconds that the row statistics of some rows of made-up logits take on the model's device, by K: the fastest of
/// three.
pub fn kernel_seconds(model: &Model) -> Result<Vec<(usize, f64)>> {
    /// Bytes of the logits.
    const BYTES: usize = 32 << 20;
    const ROWS: usize = 128;
    let device = model.placement().last();
    // One tile of the vocabulary is enough.
    let columns = model.head().tiles().first().map_or(2, |tile| tile.weight.dims()[0]);
    let rows = (BYTES / (4 * columns)).clamp(1, ROWS);
    let mut rng = Rng::new(11);
    let values: Vec<f32> = (0..rows * columns).map(|_| (rng.normal() * 3.0) as f32).collect();
    let logits = temper_engine::inside::model::parameter::from_host(values, [rows, columns], device);
    let labels = Indices::new(device, vec![0; rows]);
    let once = |k: usize| -> Result<f64> {
        let begun = Instant::now();
        let found = row_stats::accumulate(device, &logits, 0, &labels, k, None)?;
        wait(tensor::read(&found.fields))?;
        Ok(begun.elapsed().as_secs_f64())
    };
    // The first one prepares.
    once(TIMED[0])?;
    let timed = TIMED.into_iter().filter(|k| *k <= columns).map(|k| {
        let seconds = (0..3).map(|_| once(k)).collect::<Result<Vec<f64>>>()?;
        Ok((k, seconds.into_iter().fold(f64::INFINITY, f64::min)))
    });
    timed.collect()
}
