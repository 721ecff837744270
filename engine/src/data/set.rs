//! A data set as documents: parsed, rendered with the model's chat template, tokenised.

use crate::data::{
    ChatTemplate, Content, DataSection, Document, EncodeOptions, EncodeReport, OnError, Record, RecordFormat, Report,
    TemplateVariables, Templating, Tokenizer, TrainOn, encode, record,
};
use crate::error::{Error, Result};
use crate::rng::{Rng, mix};

/// How a data set is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// What its records look like.
    pub format: RecordFormat,
    /// What happens to a broken record.
    pub on_error: OnError,
    /// Longest document, in tokens.
    pub cutoff_length: usize,
    /// Train the last assistant turn only.
    pub last_turn_only: bool,
    /// Whether conversations are rendered with the model's chat template.
    pub template: Templating,
    /// What the template is told beside the conversation.
    pub variables: Option<&'a TemplateVariables>,
}

impl<'a> ReadOptions<'a> {
    /// How a configuration wants its training set read.
    pub fn of(config: &'a DataSection) -> Self {
        Self {
            format: config.format,
            on_error: config.on_error,
            cutoff_length: config.cutoff_length,
            last_turn_only: config.train_on == TrainOn::Last,
            template: config.template,
            variables: config.template_variables.as_ref(),
        }
    }

    /// The same for a set that is only measured: it may look different.
    pub fn measured(self) -> Self {
        Self { format: RecordFormat::Auto, ..self }
    }

    /// The template that renders conversations, where the model came with one that is wanted.
    pub(super) fn chat_template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        match self.template {
            Templating::Model => ChatTemplate::of(tokenizer, self.variables),
            Templating::Off => Ok(None),
        }
    }
}

/// A data set as documents.
pub struct DataSet {
    /// The documents.
    pub documents: Vec<Document>,
    /// What the file held.
    pub records: Report,
    /// What became of it.
    pub encoding: EncodeReport,
}

/// Reads a set on which loss is only measured. Records are scored on what would be trained; a plain text is cut into
/// windows of [`WINDOW`] tokens, each on its own and without tokens around it, or shorter ones where the model's context
/// or the options' `cutoff_length` is shorter.
///
/// # Errors
/// As [`read_set`].
pub fn read_measured(
    name: &str,
    bytes: &[u8],
    tokenizer: &Tokenizer,
    context: usize,
    options: ReadOptions<'_>,
) -> Result<DataSet> {
    let (records, report) = record::parse(name, bytes, options.format, options.on_error)?;
    let [Record { content: Content::Text(text), .. }] = records.as_slice() else {
        return read_set(name, bytes, tokenizer, options);
    };
    if bytes.strip_prefix(record::BYTE_ORDER_MARK).unwrap_or(bytes) != text.as_bytes() {
        // The one record of a file of records.
        return read_set(name, bytes, tokenizer, options);
    }
    let documents = windows(&tokenizer.encode(text)?, WINDOW.min(context).min(options.cutoff_length));
    if documents.is_empty() {
        return Err(Error::Data { file: name.into(), problem: "it has fewer than two tokens".into() });
    }
    let sum = |of: fn(&Document) -> usize| documents.iter().map(of).sum();
    let encoding = EncodeReport {
        documents: documents.len(),
        tokens: sum(|d| d.tokens.len()),
        trained_tokens: sum(Document::trained_tokens),
        longest: documents.iter().map(|d| d.tokens.len()).max().unwrap_or(0),
        ..EncodeReport::default()
    };
    Ok(DataSet { documents, records: report, encoding })
}

/// Reads and tokenises a data set. `name` is the file's, for messages.
///
/// # Errors
/// Broken records with their line, and a set of which nothing is left.
pub fn read_set(name: &str, bytes: &[u8], tokenizer: &Tokenizer, options: ReadOptions<'_>) -> Result<DataSet> {
    let (records, report) = record::parse(name, bytes, options.format, options.on_error)?;
    let template = options.chat_template(tokenizer)?;
    let encoding = EncodeOptions {
        cutoff_length: options.cutoff_length,
        last_turn_only: options.last_turn_only,
        on_error: options.on_error,
    };
    let encoded = encode(name, &records, tokenizer, template.as_ref(), encoding)?;
    Ok(DataSet { documents: encoded.documents, records: report, encoding: encoded.report })
}

/// Tokens of a window when plain text is evaluated, each window alone.
pub const WINDOW: usize = 1024;

/// Splits tokens into windows that are scored alone; every token but a window's first is scored.
pub fn windows(tokens: &[u32], window: usize) -> Vec<Document> {
    tokens
        .chunks(window)
        .filter(|chunk| chunk.len() > 1)
        .map(|chunk| Document { tokens: chunk.to_vec(), trained: vec![true; chunk.len()], line: 1 })
        .collect()
}

/// Takes the last documents out of a training set, to measure on them what was learned: `share` of them (0.1: a tenth),
/// rounded up, at least one and never all. The same documents for the same data, whatever the seed. `name` is the file's,
/// for messages.
///
/// # Errors
/// [`Error::Data`] where there are not two documents.
pub fn hold_out(documents: &mut Vec<Document>, name: &str, share: f64) -> Result<Vec<Document>> {
    let count = documents.len();
    if count < 2 {
        let problem = "it has one document, and one must be held out to see what is learned; give at least two";
        return Err(Error::Data { file: name.into(), problem: problem.into() });
    }
    // A tenth of 70 is 7.000000000000001 in f64.
    let wanted = (count as f64 * share * (1.0 - 1e-12)).ceil() as usize;
    Ok(documents.split_off(count - wanted.clamp(1, count - 1)))
}

/// Of a set that is mixed into training data of so many tokens: documents drawn by the seed until they have `share` of all
/// tokens, the last of them with a part beyond; all of them where those are fewer.
pub fn drawn(mut documents: Vec<Document>, tokens: usize, share: f64, seed: u64) -> Vec<Document> {
    /// Tells this draw from the others that a run's seed decides.
    const REPLAY: u64 = 0x7265_706c_6179;
    let wanted = tokens as f64 * share / (1.0 - share);
    let mut rng = Rng::new(mix(seed, REPLAY));
    let (mut taken, mut sum) = (0, 0);
    while taken < documents.len() && (sum as f64) < wanted {
        let next = taken + rng.below(documents.len() - taken);
        documents.swap(taken, next);
        sum += documents[taken].tokens.len();
        taken += 1;
    }
    documents.truncate(taken);
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(count: usize) -> Vec<Document> {
        (1..=count).map(|line| Document { tokens: vec![1, 2], trained: vec![true; 2], line }).collect()
    }

    #[test]
    fn replay_has_its_share_of_all_tokens_and_is_drawn_by_the_seed() {
        let lines = |share: f64, seed: u64| -> Vec<usize> {
            drawn(set(400), 900, share, seed).iter().map(|document| document.line).collect()
        };
        // Documents of two tokens, beside 900: a tenth of all are 100.
        assert_eq!((lines(0.1, 1).len(), lines(0.5, 1).len(), lines(1e-9, 1).len()), (50, 400, 1));
        assert_eq!(lines(0.1, 1), lines(0.1, 1));
        assert_ne!(lines(0.1, 1), lines(0.1, 2));
        let mut each = lines(0.1, 3);
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), 50, "none is drawn twice");
        assert!(each.iter().any(|line| *line > 300) && each.iter().any(|line| *line < 100), "from everywhere");
        assert!(drawn(Vec::new(), 900, 0.1, 1).is_empty());
    }

    #[test]
    fn the_last_tenth_is_held_out_rounded_up_and_never_all() {
        for count in 2..400 {
            let mut train = set(count);
            let held = hold_out(&mut train, "d", 0.1).unwrap();
            assert_eq!(held.len(), count.div_ceil(10), "of {count}");
            let lines: Vec<usize> = train.iter().chain(&held).map(|d| d.line).collect();
            assert_eq!(lines, (1..=count).collect::<Vec<_>>(), "the last ones, in their order, and none is lost");
        }
        assert_eq!(hold_out(&mut set(3), "d", 0.999).unwrap().len(), 2);
        assert_eq!(hold_out(&mut set(3), "d", 1e-9).unwrap().len(), 1);
        let Err(error) = hold_out(&mut set(1), "d.jsonl", 0.1) else { panic!("one document was held out") };
        assert!(error.to_string().contains("d.jsonl: it has one document"), "{error}");
    }
}
