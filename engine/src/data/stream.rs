//! A data file as documents, read as it is used: what is held does not depend on the file's size.
//!
//! Records of JSONL are read line by line, those of a JSON array element by element, with the rules and the words of
//! [`record`](super::record). Plain text is read in pieces of about a MiB that end with a line; each is tokenised alone
//! and cut into windows, of which none crosses into the next piece. A text of one piece so gives the windows of
//! [`read_measured`](super::read_measured).

use std::io::{self, BufRead, Cursor, Read};

use super::fields::FieldsFound;
use super::record::{
    self, Elements, KEPT_PROBLEMS, MAX_RECORD_BYTES, OnError, Raw, Record, RecordFormat, Shape, TO_UTF_8, Unread,
};
use super::set::ReadOptions;
use super::{ChatTemplate, Document, EncodeOptions, Kind, Tokenizer, Unwritten, WINDOW, encode};
use crate::error::{Error, Result, into_error};

/// Bytes of a piece of plain text, about.
const PIECE: usize = 1 << 20;

/// What one record became, or one piece of a text.
pub struct Piece {
    /// Its line, from 1; of a text, its first one.
    pub line: usize,
    /// The record as the file has it, without the end of its line, or on one line where it is an element of a JSON
    /// array; none of plain text.
    pub raw: Option<Vec<u8>>,
    /// Its documents, at least one.
    pub documents: Vec<Document>,
}

/// What became of the lines of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StreamReport {
    /// Records that gave documents, or pieces of plain text.
    pub records: u64,
    /// Records that lost their end to the longest length of a document.
    pub truncated: u64,
    /// Records that have a trained turn without any text.
    pub empty_answers: u64,
    /// Lines that were left out, or elements of a JSON array.
    pub skipped: u64,
    /// The first few reasons for leaving out, with file and line.
    pub problems: Vec<String>,
    /// What became of the fields that were given other names, where some were.
    #[serde(skip)]
    pub fields: Option<FieldsFound>,
}

/// A line, of which no more is held than may be.
struct Line {
    bytes: Vec<u8>,
    /// As it was in the file.
    length: u64,
}

/// The same stream, which gives at once what decides what it holds: a pipe may give a byte at a time.
fn with_beginning<'a>(mut input: Box<dyn BufRead + 'a>) -> io::Result<Box<dyn BufRead + 'a>> {
    /// A byte order mark, and two characters.
    const DECIDE: usize = record::BYTE_ORDER_MARK.len() + 2;
    let mut begins: Vec<u8> = Vec::new();
    while begins.len() < PIECE && begins.iter().filter(|byte| !byte.is_ascii_whitespace()).count() < DECIDE {
        let found = input.fill_buf()?;
        if found.is_empty() {
            break;
        }
        begins.extend_from_slice(found);
        let used = found.len();
        input.consume(used);
    }
    Ok(Box::new(Cursor::new(begins).chain(input)))
}

/// Documents of a file, in order.
pub struct Stream<'a> {
    name: String,
    input: Box<dyn BufRead + 'a>,
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    options: ReadOptions<'a>,
    shape: Shape<'a>,
    plain: bool,
    looks_like_records: bool,
    looks_like_table: Option<char>,
    /// The file is a JSON array.
    elements: Option<Elements>,
    /// Lines that were read.
    line: usize,
    /// The end of a piece of plain text that belongs to the next one.
    rest: Vec<u8>,
    report: StreamReport,
    unwritten: Unwritten,
}

impl<'a> Stream<'a> {
    /// Begins to read. `name` is the file's, for messages, and its ending says what it holds, as for
    /// [`record::parse`].
    ///
    /// # Errors
    /// [`Error::Data`] for an empty file, [`Error::Template`], [`Error::Io`]; as [`record::refuse_table`] and
    /// [`record::refuse_no_text`].
    pub fn new(
        name: &str,
        input: Box<dyn BufRead + 'a>,
        tokenizer: &'a Tokenizer,
        options: ReadOptions<'a>,
    ) -> Result<Self> {
        record::refuse_table(name, options.format)?;
        let failed = |error: io::Error| into_error(error, name);
        let mut input = with_beginning(input).map_err(failed)?;
        let begins = input.fill_buf().map_err(failed)?;
        record::refuse_no_text(name, begins)?;
        let mark = if begins.starts_with(record::BYTE_ORDER_MARK) { record::BYTE_ORDER_MARK.len() } else { 0 };
        let data_error = |problem: &str| Error::Data { file: name.into(), problem: problem.into() };
        let first = begins[mark..].iter().find(|byte| !byte.is_ascii_whitespace()).copied();
        if begins.len() == mark {
            return Err(data_error("the file is empty: give JSONL (one JSON object a line) or a text file"));
        }
        let plain = record::is_plain(name, options.format, &begins[mark..]);
        let elements = (!plain && first == Some(b'[')).then(Elements::default);
        // The last line of what is there may go on.
        let whole = begins.iter().rposition(|byte| *byte == b'\n').unwrap_or(begins.len());
        let looks_like_records = plain && record::looks_like_records(&begins[mark..whole]);
        let is_unasked = plain && options.format == RecordFormat::Auto;
        let looks_like_table = record::looks_like_table(&begins[mark..whole]).filter(|_| is_unasked);
        if !plain {
            record::refuse_columns(name, &begins[mark..whole])?;
        }
        input.consume(mark);
        Ok(Self {
            name: name.into(),
            input,
            tokenizer,
            template: options.chat_template(tokenizer)?,
            options,
            shape: Shape::new(options.format, options.fields),
            plain,
            looks_like_records,
            looks_like_table,
            elements,
            line: 0,
            rest: Vec::new(),
            report: StreamReport::default(),
            unwritten: Unwritten::default(),
        })
    }

    /// What became of the lines so far.
    pub fn report(&self) -> StreamReport {
        let fields = match self.plain {
            true => self.options.fields.map(FieldsFound::none),
            false => self.shape.fields(),
        };
        StreamReport { fields, ..self.report.clone() }
    }

    /// True where the file is plain text, and has no records.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// True where the file is plain text by its name, and its first lines are JSON objects: perhaps it has records.
    pub fn looks_like_records(&self) -> bool {
        self.looks_like_records
    }

    /// What separates columns, where the file is plain text, and its first lines are those of a table.
    pub fn looks_like_table(&self) -> Option<char> {
        self.looks_like_table
    }

    /// What kind of records it has, once one was read.
    pub fn kind(&self) -> Option<Kind> {
        self.shape.kind
    }

    /// Fields of records so far that are not read, the most frequent first.
    pub fn unread(&self) -> Vec<Unread> {
        self.shape.unread()
    }

    /// Conversations so far that were read as bare lines ([`EncodeReport::bare`](super::EncodeReport::bare)).
    pub fn bare(&self) -> u64 {
        let is_bare = |kind| self.options.reads_bare(kind, self.template.as_ref());
        if self.shape.kind.is_some_and(is_bare) { self.report.records } else { 0 }
    }

    /// What records so far say that is in none of their documents.
    pub fn unwritten(&self) -> Unwritten {
        self.unwritten
    }

    /// The next record or piece that has documents; none at the end.
    ///
    /// # Errors
    /// [`Error::Record`] for a line that cannot be used, unless such are left out; [`Error::Io`].
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        if self.plain { self.next_text() } else { self.next_record() }
    }

    fn next_record(&mut self) -> Result<Option<Piece>> {
        while let Some(Raw { line, number, bytes }) = self.next_raw()? {
            let parsed = bytes.and_then(|bytes| Ok((self.shape.read(&bytes)?, bytes)));
            let made = match parsed {
                Ok((content, raw)) => self.encode(Record { line, number, content }).map(|documents| (raw, documents)),
                Err(problem) => {
                    let problem = record::numbered(number, problem);
                    Err(Error::Record { file: self.name.clone(), line, problem })
                }
            };
            match made {
                Ok((raw, documents)) => {
                    self.report.records += 1;
                    return Ok(Some(Piece { line, raw: Some(raw), documents }));
                }
                Err(error) => self.leave_out(error)?,
            }
        }
        Ok(None)
    }

    /// The next record as the file has it.
    fn next_raw(&mut self) -> Result<Option<Raw>> {
        if let Some(elements) = &mut self.elements {
            loop {
                let found = self.input.fill_buf().map_err(|error| into_error(error, &self.name))?;
                if found.is_empty() {
                    return Ok(elements.end());
                }
                let (used, raw) = elements.cut(found);
                self.input.consume(used);
                if raw.is_some() {
                    return Ok(raw);
                }
            }
        }
        let Some(Line { bytes, length }) = self.next_line()? else { return Ok(None) };
        let bytes = if length > MAX_RECORD_BYTES as u64 { Err(record::too_long(length)) } else { Ok(bytes) };
        Ok(Some(Raw { line: self.line, number: None, bytes }))
    }

    fn encode(&mut self, record: Record) -> Result<Vec<Document>> {
        let options = EncodeOptions {
            cutoff_length: self.options.cutoff_length,
            last_turn_only: self.options.last_turn_only,
            on_error: OnError::Stop,
        };
        let encoded = encode(&self.name, &[record], self.tokenizer, self.template.as_ref(), options)?;
        self.report.truncated += encoded.report.truncated as u64;
        self.report.empty_answers += encoded.report.empty_answers as u64;
        self.unwritten.add(encoded.report.unwritten);
        Ok(encoded.documents)
    }

    /// Counts a record that cannot be used, or fails because of it.
    fn leave_out(&mut self, error: Error) -> Result<()> {
        if self.options.on_error == OnError::Stop || !matches!(error, Error::Record { .. }) {
            return Err(error);
        }
        self.report.skipped += 1;
        if self.report.problems.len() < KEPT_PROBLEMS {
            self.report.problems.push(error.to_string());
        }
        Ok(())
    }

    /// The next line that is not empty.
    fn next_line(&mut self) -> Result<Option<Line>> {
        while let Some(line) = self.read_line()? {
            self.line += 1;
            if line.length > MAX_RECORD_BYTES as u64 || !line.bytes.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn read_line(&mut self) -> Result<Option<Line>> {
        let mut line = Line { bytes: Vec::new(), length: 0 };
        loop {
            let found = self.input.fill_buf().map_err(|error| into_error(error, &self.name))?;
            if found.is_empty() {
                return Ok((line.length > 0).then_some(line));
            }
            let end = found.iter().position(|byte| *byte == b'\n');
            let part = &found[..end.unwrap_or(found.len())];
            let room = (MAX_RECORD_BYTES + 1).saturating_sub(line.bytes.len());
            line.bytes.extend_from_slice(&part[..part.len().min(room)]);
            line.length += part.len() as u64;
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }

    fn next_text(&mut self) -> Result<Option<Piece>> {
        loop {
            let mut bytes = std::mem::take(&mut self.rest);
            let mut over = false;
            while bytes.len() < PIECE && !over {
                let found = self.input.fill_buf().map_err(|error| into_error(error, &self.name))?;
                over = found.is_empty();
                bytes.extend_from_slice(found);
                let used = found.len();
                self.input.consume(used);
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            if !over {
                // Behind the last line, or behind the last whole character where all is one line.
                let whole = match std::str::from_utf8(&bytes) {
                    Err(error) if error.error_len().is_none() => error.valid_up_to(),
                    _ => bytes.len(),
                };
                let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(whole, |last| last + 1);
                // What may be one half of a line end goes with the other half.
                let end = if bytes[..end].ends_with(b"\r") { end - 1 } else { end };
                self.rest = bytes.split_off(end);
            }
            let first = self.line + 1;
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            let text = std::str::from_utf8(&bytes).map_err(|error| Error::Record {
                file: self.name.clone(),
                line: first + lines(&bytes[..error.valid_up_to()]),
                problem: format!("not UTF-8 text: {TO_UTF_8}"),
            })?;
            let text = record::line_ends(text);
            self.line += lines(text.as_bytes());
            let window = WINDOW.min(self.options.cutoff_length).max(2);
            let tokens = self.tokenizer.encode_with_offsets(&text)?;
            let (mut line, mut counted) = (first, 0);
            let windows = tokens.ids.chunks(window).zip(tokens.offsets.chunks(window));
            let mut documents = Vec::new();
            for (ids, offsets) in windows {
                let start = offsets[0].0.clamp(counted, text.len());
                line += lines(&text.as_bytes()[counted..start]);
                counted = start;
                // Nothing predicts the only token of a window.
                if ids.len() > 1 {
                    documents.push(Document { tokens: ids.to_vec(), trained: vec![true; ids.len()], line });
                }
            }
            if !documents.is_empty() {
                self.report.records += 1;
                return Ok(Some(Piece { line: first, raw: None, documents }));
            }
        }
    }
}
