//! From a data file to packed batches: the first four arrows of the engine's flow.
//!
//! ```text
//! bytes --record--> Record --template--> text + trained spans --encode--> Document --packing--> MicroBatch
//!                                        (tokenizer)                       (loader: order, epochs, cursor)
//! ```
//!
//! Nothing here opens a file: every entry point takes bytes and the name by which the user knows them.

pub mod doubts;
pub mod encode;
pub mod fields;
pub mod files;
pub mod loader;
pub mod overlap;
pub mod packing;
pub mod record;
pub mod set;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use encode::{EncodeOptions, EncodeReport, Unwritten, encode};
pub use fields::{Fields, refuse_unused_field, unused_field};
pub use loader::{Cursor, Loader, fingerprint, steps_per_epoch};
pub use overlap::{Shared, shared};
pub use packing::pack;
pub use record::{
    Content, Conversation, Kind, Message, OnError, Record, RecordFormat, Report, TO_UTF_8, Unread, refuse_no_text,
    refuse_table,
};
pub use set::{
    DataSet, ReadOptions, WINDOW, drawn, drawn_part, hold_out, parts_for_shares, read_measured, read_set, windows,
};
pub use settings::{DataSection, TemplateVariables, Templating, TrainOn};
pub use template::{ChatTemplate, RenderOptions};
pub use tokenizer::Tokenizer;
pub use tokenizer::gguf::GgufVocabulary;

/// The label of a position that is not scored. Never an index.
pub const IGNORE: i32 = -100;

/// One independent token sequence: attention and positions never cross its borders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Token ids, in order.
    pub tokens: Vec<u32>,
    /// `trained[i]`: token `i` is a target. Same length as `tokens`. `trained[0]` has no effect, since nothing in the
    /// document predicts its first token.
    pub trained: Vec<bool>,
    /// Line of the file that it came from, from 1; parts of one text have the same.
    pub line: usize,
}

impl Document {
    /// Number of positions that are scored: trained tokens that have a predecessor.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().skip(1).filter(|trained| **trained).count()
    }
}

/// Tokens of all these documents.
pub fn tokens_of(documents: &[Document]) -> usize {
    documents.iter().map(|document| document.tokens.len()).sum()
}

/// One stream of tokens that goes through the model at once: one or more documents, end to end. All vectors have the
/// same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Token ids, in order.
    pub tokens: Vec<u32>,
    /// `labels[t] = tokens[t + 1]` if that token is trained and belongs to the same document, else [`IGNORE`]; so the
    /// last token of every document is [`IGNORE`].
    pub labels: Vec<i32>,
    /// Position inside the document, from 0: what rotary embedding sees.
    pub positions: Vec<u32>,
    /// Index in this stream of the first token of the document that token `t` belongs to: attention reaches from there
    /// to `t`.
    pub document_start: Vec<u32>,
    /// Ordinal of the document among all documents of the step, for per-sequence statistics.
    pub document: Vec<u32>,
}

impl MicroBatch {
    /// One document of which nothing is trained, for looking at logits.
    pub fn whole(tokens: &[u32]) -> Self {
        let n = tokens.len();
        Self {
            tokens: tokens.to_vec(),
            labels: vec![IGNORE; n],
            positions: (0..n as u32).collect(),
            document_start: vec![0; n],
            document: vec![0; n],
        }
    }

    /// Number of scored positions (labels that are not [`IGNORE`]).
    pub fn trained_tokens(&self) -> usize {
        self.labels.iter().filter(|label| **label != IGNORE).count()
    }
}
