//! The objective table: what each trained token's cross entropy is multiplied by.
//!
//! Place in the flow: `logits tile -> row statistics -> [objective: weight] -> gradient over the logits`. An objective
//! is a *weight per token*, computed from that token's row statistics (and for some objectives from statistics of the
//! whole optimiser batch) and treated as a constant by the gradient. For every objective of the table
//!
//! ```text
//! loss     = sum_t value_t / N
//! gradient = weight_t * (softmax(z_t) - onehot(y_t)) / N
//! ```
//!
//! with `N` the trained tokens of the whole accumulated batch and `value_t = weight_t * ce_t` (DEFT alone has another
//! value, see [`deft`]; its gradient has the same form). Notation of the table: `ce = lse - z_y` (nats),
//! `p = exp(-ce)`, `H_K` the entropy of the softmax over the K largest logits only (renormalised, nats), `H` the entropy
//! of the full softmax (nats), `h = H_K / normalizer`, `q15(x)` the 15th percentile of `x` over the batch.
//!
//! | objective | weight | value | source |
//! |---|---|---|---|
//! | `sft` | scale: 1, another constant, or the batch's mean of EAFT's gate | w ce | the scaled ones are controls |
//! | `eaft`, gate `linear` | h | h ce | arXiv 2601.02151 Eq. 3; K = 20 |
//! | `eaft`, gate `power` | h^exponent | h^e ce | same, section 5.1 (exponent 2, 3) |
//! | `eaft`, gate `sigmoid` | 1 / (1 + exp(-steepness (h - midpoint))) | w ce | same, 30 and 0.17 |
//! | `eaft`, gate `hard` | 1 if H_K > q15(H_K), else 0 | w ce | same, Eq. 4 |
//! | `eaft`, `gates = "shuffled"` | any of the above, of another token of the batch | w ce | a control |
//! | `masked_sft` | 0 if H_K <= q15(H_K) and p <= q15(p), else 1 | w ce | same, section 3.2 (the pilot) |
//! | `dft` | p | p ce | arXiv 2508.05629 |
//! | `talr` | max(exp(-ce / tau), w_min), tau = median over sequences of the mean ce | w ce | arXiv 2509.20758 |
//! | `mile` | (sigma + H)^gamma / batch mean of the same | w ce | arXiv 2310.19531 |
//! | `deft` | p^a, a = sum_v P(v)^2 | (1 - p^a) / a | arXiv 2602.11424 |
//! | `profit` | 1 if p > threshold, else 0 | w ce | arXiv 2601.09195; 0.1 |
//! | `sft_kl` | 1 | ce + beta KL | arXiv 2601.02151, appendix E: beta 0.5 |
//! | `asft` | p | p ce + beta KL | arXiv 2509.23753; beta 0.1 |
//! | `flow` | exp(-L / tau), L the sample's mean ce under the untouched model, tau the median of L | w ce | arXiv 2502.02797 |
//!
//! Choices where the sources are silent or differ:
//! - *Batch* means all trained rows of one optimiser step, over all its micro-batches: the result does not depend on how
//!   the batch is split or packed. Rows with an ignored label are in no statistic and no denominator.
//! - What one objective decides for itself stands in its file.
//!
//! **What rows alone do not tell.** The device's gate kernel only fills a buffer of one weight a row, and the gradient kernel
//! only reads it. Weights that the host knows (FLOW's of samples, shuffled gates) take its place. The *untouched model* of
//! SFT-KL and ASFT gives logits of the same rows; the row's gradient is then `weight (P - onehot) + beta (P - Q)`, or
//! `beta P (ln P - ln Q - KL)` for the reverse divergence, in one pass over both tiles. The session brings both to the head.
//!
//! **An objective is one file**: its constants (declared settings), formula, batch statistics, kernel parameters and tests.
//! A new one takes that file, its lines in this one, and a kind in `gate.wgsl`, its CPU twin and the oracle.

use serde::{Deserialize, Serialize};
use toml::Value;

use self::rule::Rule;
use crate::error::{Error, Result};
use crate::kernels::gate::GateParams;
use crate::kernels::row_stats::RowStats;
use crate::kernels::statistics::Selection;
use crate::settings::{Key, Problem, Reader, Setting, Settings, choice};

pub mod deft;
pub mod dft;
pub mod eaft;
pub mod flow;
pub mod masked_sft;
pub mod mile;
pub mod profit;
mod quantile;
pub mod reference;
mod rule;
#[cfg(test)]
mod samples;
pub mod sft;
pub mod shuffle;
pub mod talr;

pub use eaft::TOP_K_MIN;
pub use quantile::conflict_share_quantile;
pub use rule::{BatchStats, Divergence};

/// The list of objectives: the name in a configuration and the rule of each, made of the constants of a section.
macro_rules! objectives {
    ($($(#[doc = $help:literal])+
    $variant:ident($rule:ty) = $name:literal as $label:literal, |$constants:pat_param| $make:expr;)+) => {
        choice! {
            /// Objective names as a configuration spells them.
            pub enum Method { $($(#[doc = $help])+ $variant = $name as $label),+ }
        }

        /// One row of the table with its constants. Build it with [`Objective::from_section`], which validates.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Objective { $($(#[doc = $help])+ $variant($rule)),+ }

        impl Objective {
            fn of(section: &ObjectiveSection) -> Self {
                match section.method {
                    $(Method::$variant => {
                        let $constants = section;
                        Self::$variant($make)
                    })+
                }
            }

            fn rule(&self) -> &dyn Rule {
                match self {
                    $(Self::$variant(rule) => rule),+
                }
            }

            /// The name in a configuration.
            pub fn method(&self) -> Method {
                match self {
                    $(Self::$variant(_) => Method::$variant),+
                }
            }
        }
    };
}

objectives! {
    /// Plain fine-tuning: every token counts the same, also those on which the text contradicts the model.
    Sft(sft::Sft) = "sft" as "SFT: every token counts", |section| sft::Sft { scale: section.sft, eaft: section.eaft };
    /// Entropy-adaptive fine-tuning: a token counts as much as the model is unsure, so confident conflicts hardly do.
    Eaft(eaft::Eaft) = "eaft" as "EAFT: unsure tokens count", |section| section.eaft;
    /// Plain fine-tuning without the tokens that are lowest in both entropy and probability.
    MaskedSft(masked_sft::MaskedSft) = "masked_sft" as "Masked SFT: conflicts left out", |section| masked_sft::MaskedSft {
        selection: section.eaft.selection(),
        edges: section.masked_sft,
    };
    /// Dynamic fine-tuning: a token counts by its probability p.
    Dft(dft::Dft) = "dft" as "DFT: expected tokens count", |_| dft::Dft;
    /// Token-adaptive loss reweighting: a token counts by exp(-loss / tau), but never less than a floor.
    Talr(talr::Talr) = "talr" as "TALR: easy tokens first", |section| section.talr;
    /// MiLe loss: a token counts by (sigma + entropy)^gamma, 1 on average over the batch.
    Mile(mile::Mile) = "mile" as "MiLe: unsure tokens count more", |section| section.mile;
    /// Dynamic entropy fine-tuning: a token counts by p^a, where a is near 1 if the prediction has one peak.
    Deft(deft::Deft) = "deft" as "DEFT: by the prediction's peak", |_| deft::Deft;
    /// Probability-guided selection: tokens above a probability count, the others are left out.
    Profit(profit::Profit) = "profit" as "ProFiT: likely tokens only", |section| section.profit;
    /// Plain fine-tuning held back: beta times the divergence from the untouched model is added to each token's loss.
    SftKl(reference::Beside<reference::Plain>) = "sft_kl" as "SFT-KL: near the untouched model", |section| reference::Beside {
        rule: reference::Plain,
        held: section.held,
        beta: 0.5,
    };
    /// Dynamic fine-tuning held back: a token counts by its probability p, and beta times the divergence is added.
    Asft(reference::Beside<dft::Dft>) = "asft" as "ASFT: DFT near the untouched model", |section| reference::Beside {
        rule: dft::Dft,
        held: section.held,
        beta: 0.1,
    };
    /// Sample weighting: all tokens of a document count by how easy it was for the untouched model.
    Flow(flow::Flow) = "flow" as "FLOW: easy documents count", |_| flow::Flow;
}

/// The section `[objective]`: the method, and the constants that the objectives' files declare.
macro_rules! section {
    ($($(#[doc = $about:literal])+ $part:ident: $type:ty),+ $(,)?) => {
        /// `[objective]`: the row of the objective table and its constants. Keys of a file that the method does not read are
        /// checked and otherwise ignored, so that one file can be run with several methods.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct ObjectiveSection {
            /// What each token's cross entropy is multiplied by.
            pub method: Method,
            $($(#[doc = $about])+ #[serde(flatten)] pub $part: $type),+
        }

        impl Default for ObjectiveSection {
            fn default() -> Self {
                Self { method: Method::Eaft, $($part: <$type>::default()),+ }
            }
        }

        impl Settings for ObjectiveSection {
            const SECTION: &'static str = "objective";
            const HELP: &'static str =
                "What is minimised. Constants in a file that the method does not read are checked and ignored.";

            fn keys() -> Vec<&'static Key> {
                const METHOD: &Key = &Key {
                    name: "method",
                    help: "What each token's cross entropy is multiplied by.",
                    label: "objective",
                    kind: Method::KIND,
                    aliases: &["loss"],
                    ..Key::PLAIN
                };
                let mut keys = vec![METHOD];
                $(keys.extend(<$type>::keys());)+
                keys
            }

            fn read(reader: &mut Reader, base: Self) -> Self {
                Self {
                    method: reader.value(Self::SECTION, "method", base.method),
                    $($part: <$type>::read(reader, base.$part)),+
                }
            }

            fn values(&self) -> Vec<Option<Value>> {
                let mut values = vec![self.method.to_value()];
                $(values.extend(self.$part.values());)+
                values
            }
        }
    };
}

section! {
    /// Of plain fine-tuning.
    sft: sft::Scale,
    /// Of the entropy gate; K is masked SFT's, too.
    eaft: eaft::Eaft,
    /// Of masked SFT.
    masked_sft: masked_sft::Edges,
    /// Of TALR.
    talr: talr::Talr,
    /// Of MiLe.
    mile: mile::Mile,
    /// Of ProFiT.
    profit: profit::Profit,
    /// Of SFT-KL and ASFT.
    held: reference::Held,
}

impl ObjectiveSection {
    /// Takes the section out of a reader, with the defaults that depend on what is given.
    pub fn resolve(reader: &mut Reader) -> Self {
        let base = Self { eaft: eaft::Eaft::defaults(reader), ..Self::default() };
        let section = Self::read(reader, base);
        // A gate that could not be read would make its parameters look wrong too; those wait for the next attempt.
        let unread = ["gate", "exponent"].iter().any(|key| reader.refused(Self::SECTION, key));
        if let Some(Problem { key, problem }) = section.eaft.contradiction().filter(|_| !unread) {
            reader.problem(Self::SECTION, key, problem);
        }
        section
    }

    /// Reads `[objective]` alone, from overrides of the form `(objective.key, value)`: for commands that evaluate an
    /// objective without a run. `method` is applied first.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem, among them keys of other sections.
    pub fn from_overrides(method: &str, overrides: &[(String, String)]) -> Result<Self> {
        let mut all = vec![("objective.method".to_string(), method.to_string())];
        all.extend_from_slice(overrides);
        let mut reader = Reader::new(vec![Self::section()], "", "", &all);
        let objective = Self::resolve(&mut reader);
        reader.finish()?;
        Ok(objective)
    }
}

impl Objective {
    /// Validates a configuration section. Every value is checked, also those that the chosen method does not read, so
    /// that one file can be run with several methods.
    ///
    /// # Errors
    /// [`Error::Config`] with all problems at once.
    pub fn from_section(section: &ObjectiveSection) -> Result<Self> {
        let mut problems = section.problems();
        problems.extend(section.eaft.contradiction());
        match problems.is_empty() {
            true => Ok(Self::of(section)),
            false => Err(Error::Config {
                problems: problems.iter().map(|p| format!("[objective] {}: {}", p.key, p.problem)).collect(),
            }),
        }
    }

    /// True where no weight is known before the statistics of the whole optimiser batch are: the head then sweeps all
    /// rows once for statistics before it computes any gradient.
    pub fn needs_batch(&self) -> bool {
        self.rule().needs_batch()
    }

    /// The tokens whose entropy the weight reads, `None` where it reads none.
    pub fn top_k(&self) -> Option<Selection> {
        self.rule().top_k()
    }

    /// The divergence from the untouched model in the loss.
    pub fn divergence(&self) -> Option<Divergence> {
        self.rule().divergence()
    }

    /// True where weights are of whole samples ([`flow::weights`]).
    pub fn weighs_samples(&self) -> bool {
        self.rule().weighs_samples()
    }

    /// True where each row of a batch gets the weight of another one ([`shuffle::shuffled`]).
    pub fn is_shuffled(&self) -> bool {
        self.rule().is_shuffled()
    }

    /// True where the untouched model is asked: in every step, or once before the first.
    pub fn needs_untouched(&self) -> bool {
        self.divergence().is_some() || self.weighs_samples()
    }

    /// Reduces all trained rows of an optimiser batch to the scalars this objective needs.
    ///
    /// `sequence_of_row[i]` says to which document row `i` belongs (any numbering; only TALR reads it). A document
    /// without trained rows has no part in any statistic. The order of the rows does not matter.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two slices differ in length; [`Error::NonFinite`] naming the first row that holds a NaN
    /// or an infinity, since such a row would poison every threshold.
    pub fn batch(&self, rows: &[RowStats], sequence_of_row: &[u32], vocab: usize) -> Result<BatchStats> {
        if rows.len() != sequence_of_row.len() {
            return Err(Error::Shape {
                what: "sequence_of_row of the objective's batch statistics".into(),
                expected: format!("[{}]", rows.len()),
                got: format!("[{}]", sequence_of_row.len()),
            });
        }
        if let Some(row) = rows.iter().position(|row| !row.is_finite()) {
            return Err(Error::NonFinite { tensor: "logits".into(), row, step: None });
        }
        let mut batch = self.without_batch(vocab);
        if !rows.is_empty() {
            self.rule().gather(rows, sequence_of_row, &mut batch);
        }
        Ok(batch)
    }

    /// The statistics to use where [`Self::needs_batch`] is false.
    pub fn without_batch(&self, vocab: usize) -> BatchStats {
        let mut batch = BatchStats::neutral(vocab);
        self.rule().fix(&mut batch);
        batch
    }

    /// The weight of a row: the readable definition, which kernels and their twins are tested against.
    pub fn weight(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        self.rule().weight(row, batch)
    }

    /// What a row adds to the loss before the division by N: `weight * ce`, and for DEFT the deformed logarithm
    /// `(1 - p^a) / a`, whose derivative is `weight` times that of the cross entropy.
    pub fn loss(&self, row: &RowStats, batch: &BatchStats) -> f32 {
        self.rule().loss(row, batch)
    }

    /// The same weight in the form the device's gate kernel evaluates.
    pub fn gate_params(&self, batch: &BatchStats) -> GateParams {
        self.rule().gate(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{close, plain, sample, twin};
    use super::*;
    use crate::settings::{Choice, NumberOr};

    fn section(method: Method) -> ObjectiveSection {
        ObjectiveSection { method, ..ObjectiveSection::default() }
    }

    fn with(eaft: eaft::Eaft) -> Objective {
        Objective::from_section(&ObjectiveSection { eaft, ..section(Method::Eaft) }).unwrap()
    }

    /// Every method, and every gate.
    fn everything() -> Vec<Objective> {
        use eaft::{Eaft, GateShape};
        let default = |(_, method): &(&str, Method)| Objective::from_section(&section(*method)).unwrap();
        let mut all: Vec<_> = Method::ALL.iter().map(default).collect();
        let power = |exponent| with(Eaft { gate: GateShape::Power, exponent, ..Eaft::default() });
        all.extend([2.0, 0.5, 0.0].map(power));
        all.extend([GateShape::Sigmoid, GateShape::Hard].map(|gate| with(Eaft { gate, ..Eaft::default() })));
        let sft =
            |scale| Objective::from_section(&ObjectiveSection { sft: sft::Scale { scale }, ..section(Method::Sft) });
        all.push(sft(NumberOr::Number(0.3)).unwrap());
        all.push(sft(NumberOr::Named(sft::ScaleBy::GateMean)).unwrap());
        let of = |top_k| with(Eaft { top_k: NumberOr::Named(top_k), ..Eaft::default() });
        all.extend([eaft::KBy::Full, eaft::KBy::Adaptive].map(of));
        all
    }

    #[test]
    fn the_kernel_parameters_and_the_readable_definition_give_the_same_weight() {
        let (rows, sequences) = sample();
        for objective in everything() {
            let batch = objective.batch(&rows, &sequences, 50).unwrap();
            let weights = twin(&objective.gate_params(&batch), &rows);
            for (row, b) in rows.iter().zip(weights) {
                let a = objective.weight(row, &batch);
                assert!(close(a, b, 1e-6), "{objective:?}: {a} against {b} for {row:?}");
            }
        }
    }

    #[test]
    fn objectives_without_batch_statistics_have_the_same_weights_with_neutral_ones() {
        let (rows, sequences) = sample();
        for objective in everything().into_iter().filter(|o| !o.needs_batch()) {
            let (with, without) = (objective.batch(&rows, &sequences, 50).unwrap(), objective.without_batch(50));
            assert_eq!(objective.gate_params(&with), objective.gate_params(&without), "{objective:?}");
        }
        let needing: Vec<_> = everything().into_iter().filter(Objective::needs_batch).map(|o| o.method()).collect();
        assert_eq!(needing, [Method::MaskedSft, Method::Talr, Method::Mile, Method::Eaft, Method::Sft]);
    }

    /// The gradient holds the weight constant, while `loss` moves with all that the weight reads: what the weight's own
    /// slope adds is taken off. DEFT's value has no weight as a factor and nothing is to be taken off.
    #[test]
    fn the_slope_of_every_value_by_the_cross_entropy_is_its_weight() {
        let (rows, sequences) = sample();
        for objective in everything() {
            let batch = objective.batch(&rows, &sequences, 50).unwrap();
            let mut compared = 0;
            for row in rows.iter().filter(|r| r.ce < 8.0) {
                let step = 1.0 / 64.0;
                let (up, down) = (RowStats { ce: row.ce + step, ..*row }, RowStats { ce: row.ce - step, ..*row });
                let slope = |of: &dyn Fn(&RowStats) -> f32| (of(&up) - of(&down)) / (2.0 * step);
                let moved = slope(&|row| objective.weight(row, &batch));
                if moved.abs() > 20.0 {
                    // The step crosses the edge of a yes or no.
                    continue;
                }
                let own = if objective.method() == Method::Deft { 0.0 } else { moved * row.ce };
                let (found, weight) = (slope(&|row| objective.loss(row, &batch)) - own, objective.weight(row, &batch));
                assert!((found - weight).abs() <= 1e-3, "{objective:?}: slope {found}, weight {weight} for {row:?}");
                compared += 1;
            }
            assert!(compared > rows.len() / 2, "{objective:?}: {compared} rows");
        }
    }

    #[test]
    fn an_empty_batch_gives_neutral_statistics() {
        for objective in everything() {
            let batch = objective.batch(&[], &[], 50).unwrap();
            let params = objective.gate_params(&batch);
            assert!(twin(&params, &[plain(1.0, 1.0)])[0].is_finite(), "{objective:?}");
            let GateParams { exponent, normalizer, a, b, threshold, scale, .. } = params;
            assert!([exponent, normalizer, a, b, threshold, scale].iter().all(|v| v.is_finite()), "{params:?}");
        }
    }

    #[test]
    fn a_row_that_is_not_finite_is_named_and_never_enters_a_threshold() {
        let mut rows = vec![plain(1.0, 1.0); 5];
        rows[3].ce = f32::INFINITY;
        let objective = Objective::from_section(&section(Method::MaskedSft)).unwrap();
        let error = objective.batch(&rows, &[0; 5], 50).unwrap_err();
        assert!(matches!(error, Error::NonFinite { row: 3, .. }), "{error}");
        assert!(matches!(objective.batch(&rows, &[0; 4], 50), Err(Error::Shape { .. })));
        for poisoned in [f32::NAN, f32::INFINITY] {
            assert!(!RowStats { entropy_full: poisoned, ..plain(1.0, 1.0) }.is_finite());
        }
    }

    #[test]
    fn every_value_out_of_range_is_reported_at_once_and_k_of_one_says_why() {
        let bad = ObjectiveSection {
            eaft: eaft::Eaft {
                top_k: NumberOr::Number(1),
                exponent: f64::NAN,
                gate: eaft::GateShape::Power,
                percentile: 0.15,
                ..eaft::Eaft::default()
            },
            talr: talr::Talr { tau: Some(0.0), w_min: -0.1 },
            profit: profit::Profit { threshold: 1.5 },
            ..section(Method::Eaft)
        };
        let problems = bad.problems();
        let keys: Vec<_> = problems.iter().map(|p| p.key).collect();
        assert_eq!(keys, ["top_k", "exponent", "percentile", "tau", "w_min", "threshold"]);
        assert!(problems[0].problem.contains("entropy of 0"));
        assert!(problems[2].problem.contains("write 15"));
        assert!(problems[3].problem.contains("leave it out for the batch's median"));
        let Err(Error::Config { problems: told }) = Objective::from_section(&bad) else { panic!("it is refused") };
        assert_eq!(told.len(), problems.len());
        let good =
            |eaft: eaft::Eaft| Objective::from_section(&ObjectiveSection { eaft, ..section(Method::Eaft) }).is_ok();
        for (top_k, expected) in [(0, false), (2, true), (64, true), (65, true), (151_936, true)] {
            let eaft = eaft::Eaft { top_k: NumberOr::Number(top_k), ..eaft::Eaft::default() };
            assert_eq!(good(eaft), expected, "{top_k}");
        }
        for (mass, expected) in [(0.0, false), (0.95, true), (1.0, false), (f64::NAN, false)] {
            assert_eq!(good(eaft::Eaft { mass, ..eaft::Eaft::default() }), expected, "{mass}");
        }
        for (exponent, expected) in [(-1.0, false), (0.0, true), (3.0, true), (f64::INFINITY, false), (1e300, false)] {
            let eaft = eaft::Eaft { exponent, gate: eaft::GateShape::Power, ..eaft::Eaft::default() };
            assert_eq!(good(eaft), expected, "{exponent}");
        }
    }

    #[test]
    fn every_condition_under_which_a_constant_is_read_names_a_key_and_values_that_there_are() {
        let keys = ObjectiveSection::keys();
        for key in &keys {
            for (other, values) in key.used {
                let of = keys.iter().find(|key| key.name == *other).unwrap_or_else(|| panic!("{}: {other}", key.name));
                let problems = values.iter().filter_map(|value| of.problem_of(&Value::String(value.to_string())));
                assert_eq!(problems.collect::<Vec<_>>(), [""; 0], "{}", key.name);
            }
        }
        let without: Vec<_> = keys.iter().filter(|key| key.used.is_empty()).map(|key| key.name).collect();
        assert_eq!(without, ["method"], "a constant belongs to a method");
    }

    #[test]
    fn an_objective_alone_is_read_from_overrides_and_refuses_other_sections() {
        let set = [("objective.top_k".to_string(), "5".to_string())];
        let section = ObjectiveSection::from_overrides("eaft", &set).unwrap();
        assert_eq!((section.method, section.eaft.top_k), (Method::Eaft, NumberOr::Number(5)));
        let other = [("run.steps".to_string(), "5".to_string())];
        assert!(ObjectiveSection::from_overrides("eaft", &other).is_err());
        assert!(ObjectiveSection::from_overrides("eeft", &[]).unwrap_err().to_string().contains("did you mean eaft?"));
    }

    #[test]
    fn a_scale_and_a_k_are_numbers_or_names() {
        let read = |method: &str, set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (format!("objective.{k}"), v.to_string())).collect();
            ObjectiveSection::from_overrides(method, &set).map(|section| Objective::from_section(&section).unwrap())
        };
        assert_eq!(read("eaft", &[("top_k", "full")]).unwrap().top_k(), Some(Selection::Full));
        let adaptive = read("eaft", &[("top_k", "adaptive"), ("mass", "0.9")]).unwrap();
        assert_eq!(adaptive.top_k(), Some(Selection::Share(0.9)));
        assert_eq!(read("eaft", &[("top_k", "49152")]).unwrap().top_k(), Some(Selection::Top(49_152)));
        let scaled = read("sft", &[("scale", "0.25")]).unwrap();
        assert_eq!(scaled.weight(&plain(1.0, 1.0), &scaled.without_batch(50)), 0.25);
        assert!(read("sft", &[("scale", "gate_mean")]).unwrap().needs_batch());
        let problem = |method, key, value| read(method, &[(key, value)]).unwrap_err().to_string();
        let told = problem("eaft", "top_k", "ful");
        assert!(told.contains("whole number of at least 2 or \"full\" or \"adaptive\"; did you mean full?"), "{told}");
        assert!(problem("sft", "scale", "0").contains("above 0 or \"gate_mean\""));
        assert!(problem("eaft", "top_k", "2.5").contains("2.5 is not a whole number"));
    }

    #[test]
    fn of_the_divergence_each_method_has_its_own_factor_and_both_take_another() {
        let of = |method: &str, set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (format!("objective.{k}"), v.to_string())).collect();
            let section = ObjectiveSection::from_overrides(method, &set).unwrap();
            Objective::from_section(&section).unwrap().divergence()
        };
        use crate::kernels::reference::Direction::{Forward, Reverse};
        let both = [("beta", "2"), ("kl", "reverse")];
        for (method, beta) in [("sft_kl", 0.5), ("asft", 0.1)] {
            assert_eq!(of(method, &[]), Some(Divergence { beta, direction: Forward }));
            assert_eq!(of(method, &both), Some(Divergence { beta: 2.0, direction: Reverse }));
        }
        assert_eq!(of("sft", &both), None);
        let asft = Objective::from_section(&section(Method::Asft)).unwrap();
        let dft = Objective::from_section(&section(Method::Dft)).unwrap();
        let (row, none) = (plain(1.5, 1.0), BatchStats::neutral(50));
        assert_eq!(
            (asft.weight(&row, &none), asft.gate_params(&none)),
            (dft.weight(&row, &none), dft.gate_params(&none))
        );
    }

    #[test]
    fn an_adaptive_gate_is_even_at_one_whatever_its_k_and_a_single_token_has_none() {
        let objective = with(eaft::Eaft { top_k: NumberOr::Named(eaft::KBy::Adaptive), ..eaft::Eaft::default() });
        let none = BatchStats::neutral(50);
        for k in [1u32, 2, 7, 300] {
            let row = RowStats { entropy_tokens: k, ..plain(1.0, (k as f32).ln()) };
            let weight = objective.weight(&row, &none);
            assert!(close(weight, if k == 1 { 0.0 } else { 1.0 }, 1e-6), "{k}: {weight}");
            assert!(close(twin(&objective.gate_params(&none), &[row])[0], weight, 1e-6), "{k}");
        }
        let nats = with(eaft::Eaft {
            top_k: NumberOr::Named(eaft::KBy::Adaptive),
            normalizer: eaft::Normalizer::None,
            ..eaft::Eaft::default()
        });
        assert_eq!(nats.weight(&RowStats { entropy_tokens: 7, ..plain(1.0, 1.5) }, &none), 1.5);
    }

    #[test]
    fn an_exponent_that_the_gate_would_ignore_is_refused() {
        let eaft = eaft::Eaft { exponent: 2.0, gate: eaft::GateShape::Linear, ..eaft::Eaft::default() };
        let refused = Objective::from_section(&ObjectiveSection { eaft, ..section(Method::Eaft) });
        assert!(refused.unwrap_err().to_string().contains("gate = \"power\" only"));
    }

    #[test]
    fn masked_sft_ranks_the_entropy_over_the_one_k_that_there_is() {
        let eaft = eaft::Eaft { top_k: NumberOr::Number(7), ..eaft::Eaft::default() };
        let masked = Objective::from_section(&ObjectiveSection { eaft, ..section(Method::MaskedSft) }).unwrap();
        assert_eq!((masked.top_k(), with(eaft).top_k()), (Some(Selection::Top(7)), Some(Selection::Top(7))));
    }

    #[test]
    fn a_fixed_tau_needs_no_batch_and_is_the_same_with_one() {
        let talr = talr::Talr { tau: Some(0.5), ..talr::Talr::default() };
        let objective = Objective::from_section(&ObjectiveSection { talr, ..section(Method::Talr) }).unwrap();
        assert!(!objective.needs_batch());
        assert_eq!(objective.without_batch(50).tau, 0.5);
        assert_eq!(objective.batch(&[plain(3.0, 1.0)], &[0], 50).unwrap().tau, 0.5);
    }

    #[test]
    fn full_entropy_is_never_below_the_binary_entropy_of_the_label() {
        let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        for row in sample().0 {
            let p = f64::from(row.p());
            assert!(f64::from(row.entropy_full) >= term(p) + term(1.0 - p) - 1e-5, "{row:?}");
        }
    }
}
