//! `[data]`: what to train and evaluate on.

use super::record::{OnError, RecordFormat};
use crate::settings::{Range, choice, settings};

choice! {
    /// Which assistant turns of a chat are trained.
    pub enum TrainOn {
        /// Every one.
        All = "all",
        /// The last one only.
        Last = "last",
    }
}

choice! {
    /// What makes one text of a conversation.
    pub enum Templating {
        /// The chat template that came with the model, if one did.
        Model = "model",
        /// None: prompt, newline, completion, end.
        Off = "none",
    }
}

settings! {
    /// What to train and evaluate on.
    pub struct DataSection in "data" {
        /// JSONL or text to train on.
        train: String = String::new(), required = "a JSONL file";
        /// JSONL or text on which the target loss is measured before and after.
        target: Option<String> = None;
        /// In place of a target: the share of the training documents, the last ones, that is measured and not trained on.
        hold_out: Option<f64> = None, range = Range::above(0.0).below(1.0);
        /// JSONL or text on which forgetting is measured before and after.
        general: Option<String> = None;
        /// JSONL or text with labels that should not be learned: how much of them was learned is measured before and after.
        wrong: Option<String> = None;
        /// Most tokens that are measured of each of these sets: its first documents.
        measured_tokens: Option<u64> = None, range = Range::at_least(2.0), derived = "all of them";
        /// What the records of the training set look like.
        format: RecordFormat = RecordFormat::Auto;
        /// Longest document in tokens; longer ones are cut.
        cutoff_length: usize = 2048, range = Range::at_least(2.0),
            derived = "2048, or run.batch_tokens where that is smaller", aliases = &["cutoff_len", "max_length"];
        /// Several documents in one row, each with its own attention and positions.
        packing: bool = true;
        /// What happens to a record that cannot be used.
        on_error: OnError = OnError::Stop;
        /// Which assistant turns of a chat are trained.
        train_on: TrainOn = TrainOn::All;
        /// Whether conversations are rendered with the model's chat template.
        template: Templating = Templating::Model;
    }
}
