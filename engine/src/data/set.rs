//! A data set as documents: parsed, rendered with the model's chat template, tokenised.

use crate::data::{
    ChatTemplate, Content, DataSection, Document, EncodeOptions, EncodeReport, Fields, Kind, OnError, Record,
    RecordFormat, Report, TemplateVariables, Templating, Tokenizer, TrainOn, encode, record,
};
use crate::error::{Error, Result};
use crate::rng::{Rng, mix};

/// How a data set is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// What its records look like.
    pub format: RecordFormat,
    /// What their fields are called, where they have other names than those that are read.
    pub fields: Option<&'a Fields>,
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
            fields: config.fields.as_ref(),
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

    /// Whether records of this kind lose their roles without anybody having asked for that. Those of other kinds have
    /// none to lose: two parts, one after the other, are what they say.
    pub(super) fn reads_bare(&self, kind: Kind, template: Option<&ChatTemplate>) -> bool {
        kind == Kind::Messages && self.lacks(template)
    }

    /// Whether the model came without a template that is wanted.
    fn lacks(&self, template: Option<&ChatTemplate>) -> bool {
        self.template == Templating::Model && template.is_none()
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
    let (records, report) = record::parse_named(name, bytes, options.format, options.fields, options.on_error)?;
    let text = match records.as_slice() {
        [Record { content: Content::Text(text), .. }] if report.plain => text,
        _ => return read_set(name, bytes, tokenizer, options),
    };
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
    let (records, report) = record::parse_named(name, bytes, options.format, options.fields, options.on_error)?;
    let template = options.chat_template(tokenizer)?;
    let encoding = EncodeOptions {
        cutoff_length: options.cutoff_length,
        last_turn_only: options.last_turn_only,
        on_error: options.on_error,
    };
    let mut encoded = encode(name, &records, tokenizer, template.as_ref(), encoding)?;
    if options.reads_bare(report.kind, template.as_ref()) {
        encoded.report.bare = encoded.documents.len();
    } else if report.kind != Kind::Text && options.lacks(template.as_ref()) {
        encoded.report.pairs = encoded.documents.len();
    }
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
pub fn drawn(documents: Vec<Document>, tokens: usize, share: f64, seed: u64) -> Vec<Document> {
    /// Tells this draw from the others that a run's seed decides.
    const REPLAY: u64 = 0x7265_706c_6179;
    let sizes: Vec<usize> = documents.iter().map(|document| document.tokens.len()).collect();
    let order = draw(&sizes, tokens as f64 * share / (1.0 - share), mix(seed, REPLAY));
    taken(documents, order)
}

/// Which part of the trained tokens of each set is used where these are in `shares` and as many as there can be: all of the
/// set that is scarcest for its share.
pub fn parts_for_shares<'a>(sets: impl IntoIterator<Item = &'a [Document]>, shares: &[f64]) -> Vec<f64> {
    // Shares have any sum, and could be too large to be added.
    let largest = shares.iter().copied().fold(0.0, f64::max);
    let trained = |set: &[Document]| set.iter().map(Document::trained_tokens).sum::<usize>() as f64;
    let supplies: Vec<f64> =
        sets.into_iter().zip(shares).map(|(set, share)| trained(set) / (share / largest)).collect();
    let scarcest = supplies.iter().copied().fold(f64::INFINITY, f64::min);
    supplies.into_iter().map(|supply| scarcest / supply).collect()
}

/// Of a set the documents, drawn by the seed, that have such a part of its trained tokens, the last of them with a part beyond;
/// all of them for 1. They stay in their order, and which they are depends on no other set.
pub fn drawn_part(documents: Vec<Document>, part: f64, seed: u64) -> Vec<Document> {
    /// As that of replay.
    const SHARES: u64 = 0x7368_6172_6573;
    let sizes: Vec<usize> = documents.iter().map(Document::trained_tokens).collect();
    // As with what is held out: a part of a whole number may be that of a document more, in f64.
    let wanted = part * sizes.iter().sum::<usize>() as f64 * (1.0 - 1e-12);
    let mut order = draw(&sizes, wanted, mix(seed, SHARES));
    order.sort_unstable();
    taken(documents, order)
}

/// Which of things of these sizes are drawn by the seed, in the order in which they are, until they have `wanted` together; all
/// of them where that is more. None is drawn twice.
fn draw(sizes: &[usize], wanted: f64, seed: u64) -> Vec<usize> {
    let mut rng = Rng::new(seed);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    let (mut count, mut sum) = (0, 0);
    while count < order.len() && (sum as f64) < wanted {
        let next = count + rng.below(order.len() - count);
        order.swap(count, next);
        sum += sizes[order[count]];
        count += 1;
    }
    order.truncate(count);
    order
}

/// The documents of these indices, each of which is there once.
fn taken(documents: Vec<Document>, order: Vec<usize>) -> Vec<Document> {
    let mut documents: Vec<Option<Document>> = documents.into_iter().map(Some).collect();
    order.into_iter().filter_map(|index| documents[index].take()).collect()
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

    /// Documents of one to twenty trained tokens, behind the first one.
    fn uneven(count: usize, seed: u64) -> Vec<Document> {
        let mut rng = Rng::new(seed);
        let document = |line| {
            let length = 2 + rng.below(20);
            Document { tokens: vec![1; length], trained: vec![true; length], line }
        };
        (1..=count).map(document).collect()
    }

    fn trained(set: &[Document]) -> usize {
        set.iter().map(Document::trained_tokens).sum()
    }

    /// What is trained on of each set.
    fn in_shares(sets: &[Vec<Document>], shares: &[f64], seed: u64) -> Vec<Vec<Document>> {
        let parts = parts_for_shares(sets.iter().map(Vec::as_slice), shares);
        sets.iter().zip(parts).map(|(set, part)| drawn_part(set.clone(), part, seed)).collect()
    }

    #[test]
    fn trained_tokens_are_in_their_shares_to_within_a_document_and_the_scarcest_set_is_used_whole() {
        let sets = [uneven(100, 1), uneven(700, 2), uneven(300, 3)];
        for (shares, scarcest) in
            [([0.5, 0.3, 0.2], 0), ([1.0, 1.0, 8.0], 2), ([5e-9, 7e-7, 1e-9], 1), ([1.5e308, 1e308, 2e307], 0)]
        {
            let found = in_shares(&sets, &shares, 7);
            assert_eq!(found[scarcest], sets[scarcest], "{shares:?}");
            let unit = trained(&sets[scarcest]) as f64 / shares[scarcest];
            for ((found, share), set) in found.iter().zip(shares).zip(&sets) {
                let beyond = trained(found) as f64 - unit * share;
                assert!((-1e-6..20.0).contains(&beyond), "{shares:?}: {beyond}");
                // In the set's own order, and none of them twice.
                assert!(found.is_sorted_by(|one, other| one.line < other.line) && found.len() <= set.len());
            }
        }
        // What is read and not trained does not count.
        let silent = |count: usize| -> Vec<Document> {
            let trained = [false, false, false, true].to_vec();
            (1..=count).map(|line| Document { tokens: vec![1; 4], trained: trained.clone(), line }).collect()
        };
        let found = in_shares(&[silent(40), set(90)], &[1.0, 1.0], 1);
        assert_eq!([found[0].len(), found[1].len()], [40, 40]);
    }

    #[test]
    fn which_documents_of_a_set_have_its_share_is_decided_by_the_seed_and_by_no_other_set() {
        let (few, many, other) = (uneven(100, 1), uneven(500, 2), uneven(100, 4));
        let of_many = |sets: [&Vec<Document>; 2], shares: [f64; 2], seed: u64| -> Vec<usize> {
            let sets = sets.map(Vec::clone);
            let at = sets.iter().position(|set| *set == many).unwrap();
            in_shares(&sets, &shares, seed)[at].iter().map(|document| document.line).collect()
        };
        let lines = of_many([&few, &many], [0.5, 0.5], 1);
        assert_eq!(lines, of_many([&few, &many], [0.5, 0.5], 1));
        assert_ne!(lines, of_many([&few, &many], [0.5, 0.5], 2));
        assert_eq!(lines, of_many([&many, &few], [3.0, 3.0], 1), "in whichever order they are given");
        assert!(lines.iter().any(|line| *line > 400) && lines.iter().any(|line| *line < 100), "from everywhere");
        // A larger share has those of a smaller one, and more.
        let more = of_many([&other, &many], [0.2, 0.8], 1);
        assert!(more.len() > lines.len() && lines.iter().all(|line| more.contains(line)));
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
