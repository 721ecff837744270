//! `temper bench data`: time and memory from the bytes of a data set to its documents.

use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;
use temper_engine::reading::{OnError, ReadOptions, RecordFormat, Templating, read_set};
use temper_engine::{Document, Tokenizer};

use super::spread;
use crate::cli::BenchDataArgs;
use crate::inputs::{open_model, read_data};
use crate::memory;
use crate::output;

/// One kind of data set. One JSON line.
#[derive(Debug, Serialize)]
struct Measurement {
    bench: &'static str,
    variant: &'static str,
    /// Bytes of the file.
    bytes: usize,
    /// Turns, where it is one conversation.
    turns: usize,
    tokens: usize,
    /// Median seconds of a repetition.
    median_s: f64,
    min_s: f64,
    max_s: f64,
    tokens_per_second: f64,
    /// Highest memory above what the program took before, the file's own bytes included; 0 where the system does not tell.
    peak_bytes: u64,
    /// The same a byte of the file.
    bytes_per_byte: f64,
}

/// Runs the benchmark.
pub fn run(args: &BenchDataArgs) -> Result<()> {
    let files = open_model(&args.model)?;
    let tokenizer = files.tokenizer()?;
    let book = String::from_utf8(read_data("embedded:general.txt")?)?;
    let paragraphs = || book.lines().filter(|line| !line.trim().is_empty()).cycle();
    let most = args.mib << 20;
    let text = book.repeat(most.div_ceil(book.len()));
    let records = || {
        let mut records = String::new();
        for paragraph in paragraphs() {
            records += &format!("{}\n", json!({ "text": paragraph }));
            if records.len() >= most {
                break;
            }
        }
        records
    };
    let chat = || {
        let roles = ["user", "assistant"].into_iter().cycle();
        let turns = roles.zip(paragraphs()).take(args.turns);
        let messages: Vec<_> = turns.map(|(role, text)| json!({ "role": role, "content": text })).collect();
        json!({ "messages": messages }).to_string()
    };
    for (variant, name, turns, contents) in [
        ("text", "bench.txt", 0, text),
        ("records", "bench.jsonl", 0, records()),
        ("one chat", "bench.jsonl", args.turns, chat()),
    ] {
        let measured = measure(args, variant, name, turns, contents, tokenizer)?;
        if args.timing.json {
            output::json(&measured)?;
        } else {
            output::text(&format!(
                "{variant:<10} {:>12} bytes {:>10.1} ms ({:.1} to {:.1})  {:>10.0} tokens/s  {:>8.1} MiB, {:.1} bytes a byte\n",
                measured.bytes,
                measured.median_s * 1e3,
                measured.min_s * 1e3,
                measured.max_s * 1e3,
                measured.tokens_per_second,
                measured.peak_bytes as f64 / f64::from(1 << 20),
                measured.bytes_per_byte
            ))?;
        }
    }
    Ok(())
}

fn measure(
    args: &BenchDataArgs,
    variant: &'static str,
    name: &str,
    turns: usize,
    contents: String,
    tokenizer: &Tokenizer,
) -> Result<Measurement> {
    let options = ReadOptions {
        format: RecordFormat::Auto,
        fields: None,
        on_error: OnError::Stop,
        cutoff_length: args.cutoff,
        last_turn_only: false,
        template: Templating::Model,
        variables: None,
    };
    memory::reset_peak();
    let before = memory::resident_bytes();
    let mut seconds = Vec::new();
    let (mut tokens, mut above) = (0, 0);
    for repetition in 0..=args.timing.repeat {
        let start = Instant::now();
        let set = read_set(name, contents.as_bytes(), tokenizer, options)?;
        match repetition {
            0 => {
                above = memory::peak_resident_bytes().saturating_sub(before);
                tokens = set.encoding.tokens;
                check(variant, &set.documents, &contents, tokenizer)?;
            }
            _ => seconds.push(start.elapsed().as_secs_f64()),
        }
    }
    let [min_s, median_s, max_s] = spread(seconds);
    let peak_bytes = if above == 0 { 0 } else { above + contents.len() as u64 };
    Ok(Measurement {
        bench: "data",
        variant,
        bytes: contents.len(),
        turns,
        tokens,
        median_s,
        min_s,
        max_s,
        tokens_per_second: tokens as f64 / median_s,
        peak_bytes,
        bytes_per_byte: peak_bytes as f64 / contents.len() as f64,
    })
}

/// The tokens of a text are those of the text.
fn check(variant: &str, documents: &[Document], contents: &str, tokenizer: &Tokenizer) -> Result<()> {
    if variant != "text" {
        return Ok(());
    }
    let mut rest = contents;
    for document in documents {
        // A document may end within a letter.
        let mut tokens = document.tokens.as_slice();
        if let [text @ .., last] = tokens
            && Some(*last) == tokenizer.eos_id()
        {
            tokens = text;
        }
        let decoded = tokenizer.decode(tokens, false)?;
        let whole = decoded.trim_matches('\u{FFFD}');
        let Some(at) = rest.find(whole).filter(|at| *at <= 3) else {
            bail!("the tokens of a text are wrong: they give {decoded:?} for {:?}", &rest.get(..200));
        };
        rest = &rest[at + whole.len()..];
    }
    Ok(())
}
