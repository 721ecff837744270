//! What `data.train` gives: its files, read one by one; what is held out of each, and how much of each is trained on.

use temper_engine::reading::{
    DataSet, ReadOptions, drawn_part, hold_out, parts_for_shares, read_set, refuse_unused_field, tokens_of,
};
use temper_engine::{Config, Document, Error, Result, Tokenizer};

use crate::inputs::read_data;
use crate::run_folder::FileShare;

/// A file of training data.
pub struct TrainingFile {
    /// Where it is.
    pub path: String,
    /// What kind of records it has.
    pub kind: String,
    /// What it gives, in its order.
    pub documents: Vec<Document>,
}

/// All files of a run.
pub struct TrainingSet {
    /// In the order in which they were given; at least one.
    pub files: Vec<TrainingFile>,
    /// How much of what is trained each has; none where all of each is trained on.
    shares: Option<Vec<f64>>,
}

impl TrainingSet {
    /// Reads the files; `heard` is told of each, and may refuse it.
    ///
    /// # Errors
    /// What cannot be read, with its file; a field that is asked for and that none of the files has; as `heard`.
    pub fn read(
        config: &Config,
        tokenizer: &Tokenizer,
        heard: &mut dyn FnMut(&str, &DataSet) -> Result<()>,
    ) -> Result<Self> {
        let data = &config.data;
        let (mut files, mut fields) = (Vec::new(), Vec::new());
        for path in data.train.paths() {
            let set = read_set(path, &read_data(path)?, tokenizer, ReadOptions::of(data))?;
            heard(path, &set)?;
            fields.extend(set.records.fields.map(|found| (path.as_str(), found)));
            let (path, kind) = (path.clone(), set.records.kind.to_string());
            files.push(TrainingFile { path, kind, documents: set.documents });
        }
        refuse_unused_field(&fields)?;
        Ok(Self { files, shares: data.shares.as_ref().map(|shares| shares.each().to_vec()) })
    }

    /// Takes the end of each file out, to measure on it what was learned: `share` of what is used of the file, so that what is
    /// measured is mixed as what is trained. The same documents for the same data, whatever the seed.
    ///
    /// # Errors
    /// A file that has a single document.
    pub fn hold_out(&mut self, share: f64) -> Result<Vec<Vec<Document>>> {
        let parts = self.parts();
        let end = |(file, part): (&mut TrainingFile, f64)| {
            hold_out(&mut file.documents, &file.path, share * part).map_err(with_other_ways)
        };
        self.files.iter_mut().zip(parts).map(end).collect()
    }

    /// Leaves out what is beyond each file's share, drawn by the seed, and says what; nothing where there are no shares.
    pub fn draw(&mut self, seed: u64) -> Vec<FileShare> {
        if self.shares.is_none() {
            return Vec::new();
        }
        let parts = self.parts();
        let draw = |(file, part): (&mut TrainingFile, f64)| {
            let (documents, tokens) = (file.documents.len(), trained(&file.documents));
            file.documents = drawn_part(std::mem::take(&mut file.documents), part, seed);
            let trained_tokens = trained(&file.documents);
            FileShare {
                file: file.path.clone(),
                share: 0.0,
                documents: file.documents.len(),
                trained_tokens,
                left_out_documents: documents - file.documents.len(),
                left_out_trained_tokens: tokens - trained_tokens,
            }
        };
        let mut shares: Vec<FileShare> = self.files.iter_mut().zip(parts).map(draw).collect();
        let all: usize = shares.iter().map(|one| one.trained_tokens).sum();
        shares.iter_mut().for_each(|one| one.share = one.trained_tokens as f64 / all.max(1) as f64);
        shares
    }

    /// Which part of each file's trained tokens is used.
    fn parts(&self) -> Vec<f64> {
        match &self.shares {
            Some(shares) => parts_for_shares(self.files.iter().map(|file| &file.documents[..]), shares),
            None => vec![1.0; self.files.len()],
        }
    }

    /// What kinds of records the files have, each once.
    pub fn kinds(&self) -> String {
        let mut kinds: Vec<&str> = Vec::new();
        for file in &self.files {
            if !kinds.contains(&file.kind.as_str()) {
                kinds.push(&file.kind);
            }
        }
        kinds.join(", ")
    }

    /// How many documents each file has.
    pub fn counts(&self) -> Vec<usize> {
        self.files.iter().map(|file| file.documents.len()).collect()
    }

    /// All documents, file after file.
    pub fn into_documents(self) -> Vec<Document> {
        self.files.into_iter().flat_map(|file| file.documents).collect()
    }
}

/// A file that is too short for a part to be held out, with what else can be done.
fn with_other_ways(error: Error) -> Error {
    let Error::Data { file, problem } = error else { return error };
    let ways = "or hold nothing out (--set data.hold_out=), or measure on another file (data.target=FILE); a text becomes more \
                documents with a smaller data.cutoff_length";
    Error::Data { file, problem: format!("{problem}, {ways}") }
}

fn trained(documents: &[Document]) -> usize {
    documents.iter().map(Document::trained_tokens).sum()
}

/// Documents of several files, so many of each, file after file, with what each has of `most` tokens: as much as it has of all.
pub fn of_each_file<'a>(
    documents: &'a [Document],
    counts: &'a [usize],
    most: usize,
) -> impl Iterator<Item = (&'a [Document], usize)> {
    let all = tokens_of(documents).max(1) as u128;
    let mut rest = documents;
    counts.iter().map(move |count| {
        let (own, others) = rest.split_at(*count);
        rest = others;
        (own, (most as u128 * tokens_of(own) as u128 / all) as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, documents: usize, tokens: usize) -> TrainingFile {
        let document = |line| Document { tokens: vec![1; tokens], trained: vec![true; tokens], line };
        TrainingFile { path: path.into(), kind: "text".into(), documents: (1..=documents).map(document).collect() }
    }

    fn set(shares: Option<Vec<f64>>) -> TrainingSet {
        TrainingSet { files: vec![file("a", 40, 11), file("b", 300, 6)], shares }
    }

    fn lines(documents: &[Document]) -> Vec<usize> {
        documents.iter().map(|document| document.line).collect()
    }

    #[test]
    fn the_end_of_each_file_is_held_out_in_its_share_and_nothing_is_lost() {
        let mut all = set(None);
        let ends = all.hold_out(0.1).unwrap();
        assert_eq!(lines(&ends[0]), (37..=40).collect::<Vec<_>>());
        assert_eq!(lines(&ends[1]), (271..=300).collect::<Vec<_>>());
        assert!(all.draw(1).is_empty() && all.counts() == [36, 270]);
        // Of 400 and 1,500 trained tokens as many of each: of the second file 400, which 80 documents have.
        let mut equal = set(Some(vec![1.0, 1.0]));
        let ends = equal.hold_out(0.1).unwrap();
        assert_eq!(lines(&ends[0]), (37..=40).collect::<Vec<_>>());
        assert_eq!(lines(&ends[1]), (293..=300).collect::<Vec<_>>());
        let shares = equal.draw(1);
        assert_eq!(equal.counts(), [36, 72]);
        let found = shares.iter().map(|one| (one.share, one.trained_tokens, one.left_out_documents));
        assert_eq!(found.collect::<Vec<_>>(), [(0.5, 360, 0), (0.5, 360, 220)]);
        assert_eq!(shares[1].left_out_trained_tokens, 1_100);
        assert!(lines(&equal.into_documents())[36..].iter().all(|line| *line <= 292), "not what is held out");
    }

    #[test]
    fn a_file_of_one_document_is_named_where_one_is_to_be_held_out() {
        let mut set = TrainingSet { files: vec![file("a", 40, 11), file("b.txt", 1, 6)], shares: None };
        let error = set.hold_out(0.1).expect_err("nothing would be left of it").to_string();
        assert!(error.contains("b.txt: it has one document"), "{error}");
    }

    #[test]
    fn the_kinds_of_several_files_are_said_once_each() {
        let mut files = set(None);
        assert_eq!(files.kinds(), "text");
        files.files[0].kind = "messages".into();
        files.files.push(file("c", 1, 2));
        assert_eq!(files.kinds(), "messages, text");
    }

    #[test]
    fn a_number_of_tokens_is_divided_among_files_as_their_tokens_are() {
        let (counts, documents) = (set(None).counts(), set(None).into_documents());
        let found = |most| of_each_file(&documents, &counts, most).map(|(own, most)| (own.len(), most)).collect();
        let both: Vec<(usize, usize)> = found(560);
        assert_eq!(both, [(40, 110), (300, 450)]);
        let one: Vec<_> = of_each_file(&documents, &[340], usize::MAX).map(|(_, most)| most).collect();
        assert_eq!(one, [usize::MAX]);
        assert_eq!(of_each_file(&[], &[0], 9).map(|(own, _)| own.len()).collect::<Vec<_>>(), [0]);
    }
}
