//! The scan of a data set: every token's score against plain f64 loops over the model's logits, on every device;
//! documents read from a stream against those read whole; streams that are damaged.
//!
//! Run with `cargo test --release -p temper-conformance --test scan`.

use std::io::{BufReader, Read};

use serde_json::json;
use temper_conformance::compare::close;
use temper_conformance::golden::tokenizer_json;
use temper_conformance::oracle::row_stats::{entropy, row_stats};
use temper_conformance::{devices, models};
use temper_engine::configuration::ObjectiveSection;
use temper_engine::reading::{OnError, ReadOptions, RecordFormat, Templating, read_measured, read_set};
use temper_engine::scan::{Fidelity, Piece, Stream, StreamReport, TokenScore, score, score_until};
use temper_engine::{Document, Error, Model, Objective, Tokenizer, wait};

fn gate(top_k: usize) -> Objective {
    let overrides = [("objective.top_k".to_string(), top_k.to_string())];
    Objective::from_section(&ObjectiveSection::from_overrides("eaft", &overrides).unwrap()).unwrap()
}

fn documents() -> Vec<Document> {
    let document = |seed: u32, length: u32, from: u32| Document {
        tokens: (0..length).map(|i| (i * i * 7 + i * 13 + seed * 31) % 250).collect(),
        trained: (0..length).map(|i| i >= from && i % 5 != 3).collect(),
        line: 1,
    };
    vec![document(1, 21, 4), document(2, 2, 0), document(3, 40, 39), document(4, 33, 0), document(5, 3, 3)]
}

/// What the definitions say of each trained token, from the logits of each document alone.
fn check(what: &str, model: &mut Model, top_k: usize) {
    let documents = documents();
    let given: Vec<&Document> = documents.iter().collect();
    let mut fidelity = Fidelity::default();
    let found = wait(score(model, &given, &gate(top_k), &mut fidelity)).unwrap();
    let vocab = model.arch.vocab;
    let mut nth = found.iter();
    let mut pairs: Vec<Vec<f64>> = Vec::new();
    for (ordinal, document) in documents.iter().enumerate() {
        let logits = wait(model.logits(&document.tokens)).unwrap();
        for at in (1..document.tokens.len()).filter(|at| document.trained[*at]) {
            let row = &logits[(at - 1) * vocab..at * vocab];
            let token = document.tokens[at];
            let want = row_stats(row, Some(token as usize), vocab);
            let found: &TokenScore = nth.next().expect("a score a trained token");
            assert_eq!((found.document, found.position, found.token), (ordinal as u32, at as u32, token), "{what}");
            let h = entropy(&want.top[..top_k.min(vocab)]);
            let full = entropy(&want.top);
            let ce = want.lse - want.label_logit;
            let got = [found.stats.ce, found.stats.entropy_full, found.stats.entropy_top_k, found.gate, found.wanted_p];
            let p = (want.max - want.lse).exp();
            close(what, &got, &[ce, full, h, h / (top_k as f64).ln(), p], 2e-4, 2e-4).unwrap();
            // Logits of two kernels differ in their last bits, so that of nearly equal ones either may be the largest.
            let wanted = f64::from(row[found.wanted as usize]);
            assert!(want.max - wanted <= 1e-4, "{what}: {wanted} is not the largest, {}", want.max);
            let of_k = Fidelity::K.map(|k| entropy(&want.top[..k.min(want.top.len())]));
            pairs.push(of_k.chain([full]).collect());
        }
    }
    assert!(nth.next().is_none() && pairs.len() > 40, "{what}: {}", pairs.len());
    let mean = |k: usize| pairs.iter().map(|row| row[k]).sum::<f64>() / pairs.len() as f64;
    let last = pairs[0].len() - 1;
    for (k, found) in fidelity.correlations() {
        let (x, y) = (mean(k - 2), mean(last));
        let sum = |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|row| of(row[k - 2] - x, row[last] - y)).sum::<f64>();
        let want = sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
        let found = found.expect("entropies differ");
        assert!((found - want).abs() <= 2e-3, "{what}, K = {k}: {found} and {want}");
    }
}

#[test]
fn every_score_is_that_of_its_definition_on_every_device() {
    let mut checked = 0;
    for device in devices::all() {
        for (name, top_k) in [("llama_tied", 20), ("qwen3", 64), ("glm4", 2)] {
            check(&format!("{name} on {}", device.name()), &mut models::tiny(name, &device, false), top_k);
            checked += 1;
        }
    }
    assert!(checked >= 3);
}

#[test]
fn a_scan_that_is_stopped_ends_before_the_next_block_and_before_the_logits() {
    let mut model = models::tiny("llama", &temper_engine::Device::cpu(), false);
    let (documents, gate) = (documents(), gate(20));
    let given: Vec<&Document> = documents.iter().collect();
    let blocks = model.blocks.len();
    for before in [0, 1, blocks] {
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == before;
        let found = wait(score_until(&mut model, &given, &gate, &mut Fidelity::default(), &stop)).unwrap();
        assert!(found.is_none() && asked.get() == before + 1, "{before}: asked {} times", asked.get());
    }
    let found = wait(score_until(&mut model, &given, &gate, &mut Fidelity::default(), &|| false)).unwrap();
    assert!(found.is_some_and(|scores| scores.len() > 40), "nobody stops it");
}

#[test]
fn the_wanted_tokens_of_a_gpu_are_those_of_the_cpu() {
    let mut whole = models::tiny("llama", &temper_engine::Device::cpu(), false);
    let documents = documents();
    let given: Vec<&Document> = documents.iter().collect();
    let score_of = |model: &mut Model| wait(score(model, &given, &gate(20), &mut Fidelity::default())).unwrap();
    let want = score_of(&mut whole);
    let device = devices::gpu().treated_as_software(true);
    let found = score_of(&mut models::tiny("llama", &device, false));
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(&want) {
        assert!(found.wanted == want.wanted || (found.wanted_p - want.wanted_p).abs() <= 1e-5, "{found:?} {want:?}");
    }
}

#[test]
fn a_token_of_many_that_are_equally_likely_is_the_lowest_of_them() {
    use temper_engine::inside::kernels::{Indices, row_stats, tensor, top_tokens};
    use temper_engine::inside::model::parameter::from_host;
    let device = temper_engine::Device::cpu();
    let (rows, columns) = (3, 500);
    let mut values = vec![0.5_f32; rows * columns];
    values[columns + 17] = 0.75;
    values[2 * columns + 499] = 9.0;
    let whole = from_host(values.clone(), [rows, columns], &device);
    let halves = [0..250, 250..500].map(|range: std::ops::Range<usize>| {
        let part: Vec<f32> = values.chunks(columns).flat_map(|row| row[range.clone()].to_vec()).collect();
        from_host(part, [rows, 250], &device)
    });
    for tiles in [vec![whole], halves.to_vec()] {
        let labels = Indices::new(&device, vec![0; rows]);
        let mut found = None;
        let mut start = 0;
        for tile in &tiles {
            found = Some(row_stats::accumulate(&device, tile, start, &labels, 64, found).unwrap());
            start += tile.dims()[1];
        }
        let tokens = top_tokens::most_likely(&device, &tiles, &found.unwrap()).unwrap();
        let read: Vec<Vec<f32>> = tokens.iter().map(|tile| wait(tensor::read(tile)).unwrap()).collect();
        let of = |row: usize| read.iter().map(|tile| tile[row * 64]).find(|token| *token != -1.0).unwrap();
        assert_eq!([of(0), of(1), of(2)], [0.0, 17.0, 499.0]);
    }
}

// Streams of documents.

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(&tokenizer_json("smollm2"), None).expect("the golden tokenizer reads")
}

fn options(on_error: OnError) -> ReadOptions<'static> {
    ReadOptions {
        format: RecordFormat::Auto,
        fields: None,
        on_error,
        cutoff_length: 64,
        last_turn_only: false,
        template: Templating::Model,
        variables: None,
    }
}

/// A reader that gives a few bytes at a time.
struct Drops<'a>(&'a [u8], usize);

impl Read for Drops<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(out.len()).min(self.0.len());
        out[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn streamed(name: &str, bytes: &[u8], drop: usize, on_error: OnError) -> Result<(Vec<Piece>, StreamReport), Error> {
    let tokenizer = tokenizer();
    let input = BufReader::with_capacity(drop.max(16), Drops(bytes, drop));
    let mut stream = Stream::new(name, Box::new(input), &tokenizer, options(on_error))?;
    let mut pieces = Vec::new();
    while let Some(piece) = stream.next_piece()? {
        pieces.push(piece);
    }
    Ok((pieces, stream.report()))
}

fn record(n: usize) -> String {
    let answer = format!("{n} and {} are {}.", n + 1, 2 * n + 1);
    json!({"question": format!("What are {n} and {}?", n + 1), "answer": answer.repeat(1 + n % 7)}).to_string()
}

#[test]
fn a_stream_gives_the_documents_that_reading_the_whole_file_gives_however_it_comes() {
    let lines: Vec<String> = (0..60).map(record).collect();
    let chats = lines.join("\n") + "\n\n \n";
    let texts: Vec<String> = (0..20).map(|n| json!({"text": record(n).repeat(4)}).to_string()).collect();
    let plain = "\u{FEFF}Rain fell, and the river rose.\n\nÄpfel und Öl.\n".repeat(9);
    let mut compared = 0;
    for (name, bytes) in [("a.jsonl", chats.clone()), ("b", texts.join("\r\n")), ("c.jsonl", chats.trim_end().into())] {
        let whole = read_set(name, bytes.as_bytes(), &tokenizer(), options(OnError::Stop)).unwrap();
        for drop in [1, 7, 1 << 20] {
            let (pieces, report) = streamed(name, bytes.as_bytes(), drop, OnError::Stop).unwrap();
            let found: Vec<&Document> = pieces.iter().flat_map(|piece| &piece.documents).collect();
            assert_eq!(found, whole.documents.iter().collect::<Vec<_>>(), "{name}, {drop} bytes at a time");
            assert_eq!(report.records, pieces.len() as u64);
            assert_eq!(report.truncated, whole.encoding.truncated as u64, "{name}");
            for piece in &pieces {
                let line = bytes.split('\n').nth(piece.line - 1).unwrap();
                assert_eq!(piece.raw.as_deref(), Some(line.as_bytes()), "records are given as they are");
            }
            compared += found.len();
        }
    }
    assert!(compared > 300, "{compared}");
    for name in ["d.txt", "d"] {
        let whole = read_measured(name, plain.as_bytes(), &tokenizer(), 64, options(OnError::Stop)).unwrap();
        let (pieces, _) = streamed(name, plain.as_bytes(), 5, OnError::Stop).unwrap();
        let tokens = |documents: &[Document]| documents.iter().map(|d| d.tokens.clone()).collect::<Vec<_>>();
        let found: Vec<Document> = pieces.into_iter().flat_map(|piece| piece.documents).collect();
        assert_eq!(tokens(&found).concat().len(), tokens(&whole.documents).concat().len());
        assert_eq!(tokens(&found), tokens(&whole.documents), "{name}");
        assert!(found.is_sorted_by_key(|d| d.line) && found.last().unwrap().line > 9, "lines of windows");
    }
}

#[test]
fn line_ends_of_windows_in_plain_text_are_plain_ones_read_at_once_or_as_it_comes() {
    let plain = "Rain fell, and the river rose.\n\nIt fell again.\n".repeat(9);
    let tokens = |documents: &[Document]| documents.iter().map(|d| d.tokens.clone()).collect::<Vec<_>>();
    let read = |text: &str| {
        let (bytes, tokenizer) = (text.as_bytes(), tokenizer());
        let measured = read_measured("d.txt", bytes, &tokenizer, 64, options(OnError::Stop)).unwrap().documents;
        let trained = read_set("d.txt", bytes, &tokenizer, options(OnError::Stop)).unwrap().documents;
        let (pieces, _) = streamed("d.txt", bytes, 5, OnError::Stop).unwrap();
        let streamed: Vec<Document> = pieces.into_iter().flat_map(|piece| piece.documents).collect();
        assert_eq!(tokens(&streamed), tokens(&measured));
        assert!(streamed.last().unwrap().line > 9, "lines are counted");
        (tokens(&measured), tokens(&trained))
    };
    assert_eq!(read(&plain.replace('\n', "\r\n")), read(&plain));
    // A piece ends between both halves of a line end.
    let long = "ab ".repeat(((1 << 20) - 1) / 3) + "\r\nThe last line.\r\n";
    let (pieces, _) = streamed("long.txt", long.as_bytes(), 1 << 16, OnError::Stop).unwrap();
    let tokens: Vec<u32> = pieces.iter().flat_map(|p| &p.documents).flat_map(|d| d.tokens.clone()).collect();
    let text = tokenizer().decode(&tokens, false).unwrap();
    assert!(pieces.len() == 2 && !text.contains('\r') && text.contains("The last line."), "{}", pieces.len());
}

#[test]
fn plain_text_of_many_pieces_loses_no_token_and_no_character_is_cut() {
    // No line end in the first 3 MiB: pieces end behind a whole character.
    let long = "äöü€𝄞 x".repeat((3 << 20) / 15) + "\n" + &"The last lines.\n".repeat(20_000);
    let (pieces, report) = streamed("long.txt", long.as_bytes(), 1 << 16, OnError::Stop).unwrap();
    assert!(pieces.len() >= 3 && report.records == pieces.len() as u64, "{}", pieces.len());
    let tokenizer = tokenizer();
    let tokens: Vec<u32> = pieces.iter().flat_map(|p| &p.documents).flat_map(|d| d.tokens.clone()).collect();
    // A window of one token, which nothing predicts, may be left out at the end of each piece.
    let lost = tokenizer.encode(&long).unwrap().len() - tokens.len();
    assert!(lost <= pieces.len() && !tokenizer.decode(&tokens, false).unwrap().contains('\u{FFFD}'), "{lost}");
    let broken = [&b"good line\nsecond \xFF line\n"[..], &[b'x'; 3 << 20]].concat();
    let error = streamed("bad.txt", &broken, 1 << 16, OnError::Stop).err().expect("not UTF-8").to_string();
    assert!(error.contains("bad.txt, line 2: not UTF-8"), "{error}");
}

#[test]
fn damaged_lines_stop_with_file_and_line_or_are_counted_and_never_hide_their_neighbours() {
    let good = record(1);
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat((16 << 20) + 5));
    let cases: [(&str, Vec<u8>, usize, &str); 7] = [
        ("half", format!("{good}\n{}", &good[..20]).into_bytes(), 2, "not a JSON object"),
        ("utf8", [good.as_bytes(), b"\n\xFF\xFE\n", good.as_bytes()].concat(), 2, "not UTF-8"),
        ("long", format!("{good}\n{long}\n{good}\n").into_bytes(), 2, "16777216 are allowed"),
        ("blank", format!("\n{good}\n\n \r\n[1]\n\n{good}\n\n").into_bytes(), 5, "found a list"),
        ("array", format!("{good}\n[1]\n{good}").into_bytes(), 2, "found a list"),
        ("kind", format!("{good}\n{{\"text\": \"a text\"}}\n").into_bytes(), 2, "a file is of one kind"),
        ("silent", format!("{good}\n{{\"question\": \"a\", \"answer\": 3}}\n{good}").into_bytes(), 2, "answer"),
    ];
    for (name, bytes, line, words) in cases {
        let file = format!("{name}.jsonl");
        let error = streamed(&file, &bytes, 1 << 16, OnError::Stop).err().expect(name);
        assert!(error.is_bad_input(), "{name}");
        let message = error.to_string();
        assert!(message.contains(&format!("{file}, line {line}: ")) && message.contains(words), "{message}");
        let (pieces, report) = streamed(&file, &bytes, 1 << 16, OnError::Skip).unwrap();
        let goods = bytes.windows(good.len()).filter(|window| *window == good.as_bytes()).count();
        assert_eq!(pieces.len(), goods, "{name}");
        assert_eq!(report.skipped, 1, "{name}");
        assert!(report.problems[0].contains(&format!("{file}, line {line}: ")), "{:?}", report.problems);
    }
    let error = streamed("e.jsonl", b"", 16, OnError::Skip).err().expect("refused").to_string();
    assert!(error.contains("is empty"), "{error}");
    let utf16: Vec<u8> = record(2).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&b"\xFF\xFE"[..], &utf16].concat();
    let error = streamed("utf16.jsonl", &marked, 64, OnError::Stop).err().expect("refused").to_string();
    assert!(error.contains("utf16.jsonl: it is UTF-16") && error.contains("iconv -f utf-16 -t utf-8"), "{error}");
}
