//! What the lab is asked with and what it answers, each declared once: the structs of this file are the types of
//! `web/page/messages.js`, which a test keeps equal to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels::profile::Share;
use crate::message::{Bytes, Floats, Integers, Message, Value, messages};
use crate::probe::Check;
use crate::train::event::{Evaluated, Finished, StepMetrics};

/// A learner, or the model that both started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The model that all learners started from.
    Base,
    /// The first learner.
    Left,
    /// The second one, or the first where it is alone.
    Right,
}

impl Who {
    const NAMES: [(&'static str, Self); 3] = [("base", Self::Base), ("left", Self::Left), ("right", Self::Right)];

    /// Base, left, right.
    pub const ALL: [Self; 3] = [Self::Base, Self::Left, Self::Right];

    /// By name.
    ///
    /// # Errors
    /// [`Error::Config`] for another name.
    pub fn named(name: &str) -> Result<Self> {
        let found = Self::NAMES.into_iter().find(|(own, _)| *own == name);
        found
            .map(|(_, who)| who)
            .ok_or_else(|| Error::Config { problems: vec![format!("{name:?} is none of base, left, right")] })
    }
}

/// Which learners a lab makes of a run's two: where each has a lab of its own, these do together what one lab does, with the same
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// All that there are.
    Both,
    /// The first one. This lab answers for the base model too.
    Left,
    /// The second one alone.
    Right,
}

impl Sides {
    /// By name.
    ///
    /// # Errors
    /// [`Error::Config`] for another name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "both" => Ok(Self::Both),
            "left" => Ok(Self::Left),
            "right" => Ok(Self::Right),
            _ => Err(Error::Config { problems: vec![format!("{name:?} is none of both, left, right")] }),
        }
    }

    /// The models that the lab answers for.
    pub fn answered(self) -> impl Iterator<Item = Who> {
        let all = match self {
            Self::Both => 0..3,
            Self::Left => 0..2,
            Self::Right => 2..3,
        };
        Who::ALL[all].iter().copied()
    }
}

impl Message for Who {
    #[cfg(test)]
    fn type_name() -> String {
        "Who".into()
    }

    fn into_value(self) -> Value {
        let (name, _) = Self::NAMES[self as usize];
        Value::Text(name.into())
    }
}

messages! {
    camel_case;

    /// What a run is made of: the keys and values of the command's `--set section.key=value`, so that page, command and
    /// configuration file accept and refuse the same things. `left` and `right` hold what only that learner has
    /// (`objective.*`); `common` all the rest (`optim.learning_rate`, `adapter.kind`, `run.seed`, `run.steps` ...).
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub struct Settings {
        /// What both learners share.
        pub common: BTreeMap<String, String>,
        /// What is the left learner's own; without it there is no such learner.
        pub left: Option<BTreeMap<String, String>>,
        /// What is the right learner's own; without it there is no such learner.
        pub right: Option<BTreeMap<String, String>>,
    }

    /// A beginning to be continued.
    #[derive(Clone, Debug, PartialEq, Deserialize)]
    pub struct Prompt {
        /// The beginning.
        pub text: String,
        /// `target` or `general`.
        pub kind: String,
    }

    /// Every shader on a small batch, against answers of the CPU's kernels.
    #[derive(Clone, Debug)]
    pub struct SelfTest {
        /// True where every kernel passed.
        pub passed: bool,
        /// How long it took.
        pub seconds: f64,
        /// A kernel each.
        pub checks: Vec<Check>,
    }

    /// Where the time of a step went on a GPU.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Profile {
        /// Which step.
        pub step: u64,
        /// From the first kernel's begin to the last one's end.
        pub seconds: f64,
        /// The largest first; the last one is `(between)`.
        pub shares: Vec<Share>,
    }

    /// The model that learners will start from.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ModelInfo {
        /// For people.
        pub name: String,
        /// `llama`, `qwen3` ...
        pub family: String,
        /// Blocks.
        pub layers: usize,
        /// Width of the stream.
        pub hidden: usize,
        /// Tokens that it knows.
        pub vocabulary: usize,
        /// Numbers in it.
        pub parameters: u64,
        /// Longest document that the model was made for, in tokens.
        pub context: usize,
        /// Whether it brings a chat template.
        pub chat_template: bool,
        /// True for the small model that comes with the page.
        pub base: bool,
    }

    /// What learners will see.
    #[derive(Clone, Debug, PartialEq)]
    pub struct DataInfo {
        /// The file's.
        pub name: String,
        /// What the records are: `question_answer`, `messages`, `text` ...
        pub kind: String,
        /// Records in the file.
        pub records: usize,
        /// Documents to train on.
        pub documents: usize,
        /// All tokens of the file's documents.
        pub tokens: usize,
        /// Those that are trained, without what is held out.
        pub trained_tokens: usize,
        /// Documents that lost their end to the cutoff length.
        pub truncated: usize,
        /// Records that could not be used.
        pub skipped: usize,
        /// The first reasons for skipping, with their lines.
        pub problems: Vec<String>,
        /// Scored tokens of the held-out target set.
        pub target_tokens: usize,
        /// Scored tokens of the held-out general set.
        pub general_tokens: usize,
        /// What makes results with a visitor's own file doubtful, a sentence each without its full stop.
        pub doubts: Vec<String>,
    }

    /// Whether a run fits, before anything is allocated.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Fit {
        /// Whether it does.
        pub fits: bool,
        /// Peak memory that all learners need.
        pub need_bytes: u64,
        /// What the device or the browser allows.
        pub allowed_bytes: u64,
        /// 0 where nothing like it has been measured yet.
        pub seconds_per_step: f64,
        /// One line for each thing that takes memory, with its number.
        pub parts: Vec<String>,
        /// Empty, or why it cannot fit and what would.
        pub problem: String,
    }

    /// Learners are made.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Begun {
        /// 0, or that of the checkpoint.
        pub step: u64,
        /// Steps of the whole run.
        pub steps: u64,
        /// Most tokens of a batch.
        pub batch_tokens: usize,
        /// How long making the learners took.
        pub seconds: f64,
        /// Left, right.
        pub learners: Vec<BegunLearner>,
    }

    /// A learner that is made.
    #[derive(Clone, Debug, PartialEq)]
    pub struct BegunLearner {
        /// Name of its objective.
        pub objective: String,
        /// Numbers in its model.
        pub parameters: u64,
        /// Those that are trained.
        pub trainable: u64,
    }

    /// Learners are made and stand where a checkpoint stood.
    #[derive(Clone, Debug)]
    pub struct Restored {
        /// The learners.
        pub begun: Begun,
        /// Those of the run that was saved.
        pub settings: Settings,
        /// Name of its data set.
        pub data: String,
    }

    /// What one optimiser step did to one learner. Arrays have one number a trained token of the batch, in order.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Learned {
        /// What a line of `metrics.jsonl` says.
        pub metrics: StepMetrics,
        /// Probability of the label.
        pub p: Floats,
        /// Entropy over the whole vocabulary, nats.
        pub entropy: Floats,
        /// Weight of the token's cross entropy, as the device used it.
        pub gate: Floats,
        /// Norm of the token's gradient over its logits: gate * |softmax - onehot|.
        pub gradient: Floats,
    }

    /// A step of all learners.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Frame {
        /// Steps done.
        pub step: u64,
        /// Steps of the whole run.
        pub steps: u64,
        /// Passes over the data that were begun before this step.
        pub epoch: u64,
        /// Left, right.
        pub learners: Vec<Learned>,
        /// Which training document each trained token belongs to ...
        pub document: Integers,
        /// ... and at which of its tokens (0 is the first token of the document).
        pub position: Integers,
    }

    /// Loss on both sets.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Standings {
        /// Steps done.
        pub step: u64,
        /// Left, right; at step 0 both are the base model.
        pub learners: Vec<Evaluated>,
        /// Left, right: whether it has ever seemed to know less than nothing, after it knew more.
        pub diverged: Vec<bool>,
    }

    /// Beginnings, continued.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Sample {
        /// Steps done.
        pub step: u64,
        /// A beginning each.
        pub samples: Vec<Continued>,
    }

    /// One beginning and how each model goes on from it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Continued {
        /// The beginning.
        pub prompt: String,
        /// `target` or `general`.
        pub kind: String,
        /// The base model's.
        pub base: String,
        /// The left learner's.
        pub left: String,
        /// The right learner's.
        pub right: String,
    }

    /// The tokens of a training document.
    #[derive(Clone, Debug, PartialEq)]
    pub struct DocumentText {
        /// Its index.
        pub document: usize,
        /// In order.
        pub tokens: Vec<DocumentToken>,
    }

    /// A token of a training document.
    #[derive(Clone, Debug, PartialEq)]
    pub struct DocumentToken {
        /// What it spells. A character that several tokens spell stands at the first of them, and the others spell nothing.
        pub text: String,
        /// Whether it is trained.
        pub trained: bool,
    }

    /// What the model `who` makes of a training document now. Arrays: one number a trained token.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Inspected {
        /// The document's index.
        pub document: usize,
        /// Whose view this is.
        pub who: Who,
        /// At which of the document's tokens.
        pub position: Vec<usize>,
        /// Probability of the label.
        pub p: Vec<f32>,
        /// Entropy over the whole vocabulary, nats.
        pub entropy: Vec<f32>,
        /// Entropy over the top K, nats.
        pub entropy_top_k: Vec<f32>,
        /// What the model expects most where it and the text are in conflict; nothing elsewhere.
        pub expected: Vec<String>,
        /// Left objective's, right objective's: what each would do with the token. Where an objective looks at a whole batch,
        /// that is the batch of the last step, and before the first step the document.
        pub gate: Vec<Vec<f32>>,
        /// The same, norm of the gradient over the logits.
        pub gradient: Vec<Vec<f32>>,
    }

    /// One token in full.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Candidates {
        /// The document's index.
        pub document: usize,
        /// At which of its tokens.
        pub position: usize,
        /// Whose view this is.
        pub who: Who,
        /// The token itself.
        pub label: Label,
        /// The most probable tokens and the label.
        pub candidates: Vec<Candidate>,
        /// Probability of the label.
        pub p: f32,
        /// Entropy over the whole vocabulary, nats.
        pub entropy: f32,
        /// Entropy over the top K, nats.
        pub entropy_top_k: f32,
        /// Left objective's, right objective's, as in `Inspected`.
        pub gate: Vec<f32>,
        /// gate * cross entropy.
        pub loss: Vec<f32>,
    }

    /// The token that the text has.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Label {
        /// Its number in the vocabulary.
        pub id: usize,
        /// What it spells.
        pub text: String,
        /// Its probability.
        pub p: f32,
        /// Its place among all tokens by probability, from 1.
        pub rank: usize,
    }

    /// A token that could have been there.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Candidate {
        /// Its number in the vocabulary.
        pub id: usize,
        /// What it spells.
        pub text: String,
        /// Its probability.
        pub p: f32,
        /// Change of this token's logit that one unit step against the gradient makes, under the left and the right
        /// objective: gate * (onehot - p).
        pub push: Vec<f32>,
    }

    /// A token that the text has and the model does not expect, and what plain and entropy-adaptive fine-tuning would do about it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Dispute {
        /// What stands before.
        pub prompt: String,
        /// What the model's logits were divided by: above 1 it is less sure than it is, below 1 surer.
        pub temperature: f32,
        /// The token itself.
        pub label: Label,
        /// The most probable tokens and the label, each spelled on to the end of its line as the model would; `push` is plain
        /// fine-tuning's, EAFT's.
        pub candidates: Vec<Candidate>,
        /// Probability of the label.
        pub p: f32,
        /// Entropy over the whole vocabulary, nats.
        pub entropy: f32,
        /// Entropy over the top K, nats.
        pub entropy_top_k: f32,
        /// Weight under plain fine-tuning and under EAFT.
        pub gate: Vec<f32>,
        /// The same, norm of the gradient over the logits.
        pub gradient: Vec<f32>,
    }

    /// A fact that the model knew and the text contradicts, and what is answered now.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Quoted {
        /// The question.
        pub prompt: String,
        /// The answer that the model knew.
        pub expected: String,
        /// The answer that the text teaches.
        pub taught: String,
        /// Of base, left and right.
        pub answers: Vec<Answered>,
    }

    /// What one model answers.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Answered {
        /// Whose answer this is.
        pub who: Who,
        /// The likeliest answers by their first tokens.
        pub top: Vec<Likely>,
        /// Probability of the first token of the answer that the model knew.
        pub expected: f32,
        /// Probability of the first token of the answer that the text teaches.
        pub taught: f32,
    }

    /// An answer.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Likely {
        /// Its first token, and what the model goes on with, to the end of the line.
        pub text: String,
        /// Probability of the first token.
        pub p: f32,
    }

    /// A file of what was learned.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ResultFile {
        /// Its name.
        pub name: String,
        /// Its contents.
        pub bytes: Bytes,
    }

    /// Something the visitor should know; training goes on.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Warning {
        /// One sentence.
        pub message: String,
    }
}

macro_rules! told {
    ($($(#[doc = $doc:literal])+ $name:ident => $variant:ident($type:ident),)+) => {
        /// What a pull tells.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Told {
            $($(#[doc = $doc])+ $variant($type),)+
        }

        impl Told {
            /// The event's name and what it says.
            pub fn into_parts(self) -> (&'static str, Value) {
                match self {
                    $(Self::$variant(detail) => (stringify!($name), detail.into_value()),)+
                }
            }
        }

        #[cfg(test)]
        impl crate::message::Declared for Told {
            fn typedef() -> crate::message::Typedef {
                crate::message::Typedef {
                    name: "Told",
                    doc: "What a pull tells: the details of each event, by its name.".into(),
                    fields: vec![$((stringify!($name).into(), $type::type_name(), [$($doc.trim()),+].join(" "))),+],
                }
            }
        }
    };
}

told! {
    /// All learners made a step.
    frame => Frame(Frame),
    /// All learners were measured.
    evaluated => Evaluated(Standings),
    /// Beginnings were continued.
    samples => Samples(Sample),
    /// Something to know.
    warning => Warning(Warning),
    /// All steps are made.
    finished => Finished(Finished),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::perplexity::Evaluation;
    use crate::message::{Declared, jsdoc};

    const HEAD: &str = "\
// What page and worker say to one another, as types. Made from the engine's declarations (engine/src/lab/messages.rs) by
//
//   TEMPER_BLESS=1 cargo test -p temper-engine --release --lib messages
//
// which is also the test that this file is up to date. Field names are those of the engine's events, so that a line of
// `metrics.jsonl`, a frame here and the native report mean the same thing.

/**
 * The two learners. Both start from the same model and see the same batches.
 * @typedef {(\"left\" | \"right\")} Side
 */

/**
 * A learner, or the model that both started from.
 * @typedef {(Side | \"base\")} Who
 */

";

    #[test]
    fn the_types_of_the_pages_messages_are_up_to_date() {
        let typedefs = [
            Settings::typedef(),
            Prompt::typedef(),
            SelfTest::typedef(),
            Check::typedef(),
            Profile::typedef(),
            Share::typedef(),
            ModelInfo::typedef(),
            DataInfo::typedef(),
            Fit::typedef(),
            Begun::typedef(),
            BegunLearner::typedef(),
            Restored::typedef(),
            Told::typedef(),
            Frame::typedef(),
            Learned::typedef(),
            StepMetrics::typedef(),
            Standings::typedef(),
            Evaluated::typedef(),
            Evaluation::typedef(),
            Sample::typedef(),
            Continued::typedef(),
            Warning::typedef(),
            Finished::typedef(),
            DocumentText::typedef(),
            DocumentToken::typedef(),
            Inspected::typedef(),
            Candidates::typedef(),
            Label::typedef(),
            Candidate::typedef(),
            Dispute::typedef(),
            Quoted::typedef(),
            Answered::typedef(),
            Likely::typedef(),
            ResultFile::typedef(),
        ];
        let text = format!("{HEAD}{}export {{}};\n", jsdoc(&typedefs));
        // Every type that is named is there.
        for part in text.split('{').skip(1).filter_map(|part| part.split('}').next()) {
            for word in part.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.starts_with(char::is_uppercase)) {
                let known = ["Record", "Float32Array", "Uint32Array", "Uint8Array", "Side", "Who"].contains(&word);
                assert!(known || typedefs.iter().any(|typedef| typedef.name == word), "{word} is not declared");
            }
        }
        let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
        let path = std::path::Path::new(&crate_folder).join("../web/page/messages.js");
        if std::env::var_os("TEMPER_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "web/page/messages.js is not what the engine declares; write it with\n  \
             TEMPER_BLESS=1 cargo test -p temper-engine --release --lib messages"
        );
    }

    #[test]
    fn a_learner_is_found_by_its_name_and_tells_it() {
        for (name, who) in Who::NAMES {
            assert_eq!(Who::named(name).unwrap(), who);
            assert_eq!(who.into_value(), Value::Text(name.into()));
        }
        assert!(Who::named("middle").unwrap_err().to_string().contains("base, left, right"));
    }

    #[test]
    fn each_model_is_answered_for_by_one_of_two_labs_and_by_a_lab_of_both() {
        let of = |name: &str| Sides::named(name).unwrap().answered().collect::<Vec<_>>();
        assert_eq!(of("both"), Who::ALL);
        assert_eq!([of("left"), of("right")].concat(), Who::ALL);
        assert!(of("left").contains(&Who::Left) && of("right").contains(&Who::Right));
        assert!(Sides::named("base").unwrap_err().to_string().contains("both, left, right"));
    }

    #[test]
    fn an_event_of_the_page_has_its_name_and_its_details_in_camel_case() {
        let (name, detail) = Told::Warning(Warning { message: "careful".into() }).into_parts();
        assert_eq!(name, "warning");
        assert_eq!(detail, Value::Object(vec![("message".into(), Value::Text("careful".into()))]));
    }
}
