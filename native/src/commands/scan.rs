//! `temper scan`: how a data set meets a model, before anything is trained.
//!
//! Place in the flow: data files -> engine `scan::Stream` -> engine `scan::score_until` -> [counts] -> `scan.jsonl`,
//! `summary.json`, [page] and a few lines on the terminal. Documents are read, scored and counted window by window, so
//! that memory does not depend on the data's size.

mod advice;
pub mod counts;
mod on_policy;
mod page;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use temper_engine::configuration::ObjectiveSection;
use temper_engine::reading::{OnError, ReadOptions, refuse_table, unused_field};
use temper_engine::scan::{Classes, Fidelity, Stream, StreamReport, TokenScore, score_until};
use temper_engine::words::{counted, plural};
use temper_engine::{Document, Error, Model, Objective, Tokenizer, wait};

use self::counts::{Counts, Unit};
use self::on_policy::{Contrast, Prompts};
use crate::cli::{Global, Keeping, ScanArgs};
use crate::doubts;
use crate::files::{io_error, write_atomically};
use crate::inputs::{ModelInUse, devices, size_of_data, stream_data};
use crate::meter::Meter;
use crate::progress::{duration, grouped, number, perplexity};
use crate::run_folder::{self, RunFolder};
use crate::settings::{data_stem, free_folder, model_stem};
use crate::{interrupt, memory, output};

/// What is found of each record.
const LINES: &str = "scan.jsonl";
/// What is found of all.
const SUMMARY: &str = "summary.json";
/// The same to be looked at.
const PAGE: &str = "scan.html";
/// Tokens that are scored together. More pack no better.
const WINDOW_TOKENS: usize = 4096;
/// Tokens shown before and behind one that is looked at.
const CONTEXT: [usize; 2] = [28, 10];

/// All that a scan found.
pub struct Scan<'a> {
    pub model: String,
    pub device: String,
    pub data: &'a [String],
    pub counts: Counts,
    pub fidelity: Fidelity,
    pub reports: Vec<StreamReport>,
    pub contrast: Option<Contrast>,
    /// Seconds that the row statistics of some rows take, by K.
    pub kernel: Vec<(usize, f64)>,
    pub top_k: usize,
    pub seconds: f64,
}

/// Who scores, and where to.
struct Scanner<'a, 'b> {
    model: &'a mut Model,
    tokenizer: &'a Tokenizer,
    classes: Classes<'a>,
    gate: &'a Objective,
    counts: Counts,
    fidelity: Fidelity,
    prompts: Prompts,
    meter: Meter,
    with_tokens: bool,
    lines: &'b mut dyn Write,
    /// Where the lines go.
    lines_path: &'b Path,
    curated: Option<Curated<'b>>,
}

/// Where records go whose share of conflicts is on the wanted side.
struct Curated<'b> {
    out: &'b mut dyn Write,
    path: &'b Path,
    keep: Keeping,
    above: f64,
    kept: u64,
    left_out: u64,
}

/// Runs the command.
pub fn run(args: ScanArgs, global: &Global) -> Result<()> {
    let (devices, why) = devices(global.device.as_deref())?;
    let chosen = ModelInUse::open(&args.model)?.told(&args.template.template_var)?;
    let tokenizer = chosen.files.tokenizer()?;
    let overrides = [("objective.top_k".to_string(), args.top_k.to_string())];
    let gate = Objective::from_section(&ObjectiveSection::from_overrides("eaft", &overrides)?)?;
    let own = chosen.reading();
    let options = ReadOptions {
        on_error: if args.skip_broken { OnError::Skip } else { OnError::Stop },
        cutoff_length: args.cutoff_length.min(chosen.files.architecture.context),
        fields: args.named.fields.as_ref().or(own.fields),
        ..own
    };
    if let Some(path) = args.curate.as_deref().filter(|path| path.is_file() || path.is_dir()) {
        let problem = "is there already, and is not overwritten; name another file for --curate".into();
        return Err(Error::Missing { path: path.display().to_string(), problem }.into());
    }
    let name = || match args.model.run.as_ref() {
        Some(run) => run.display().to_string(),
        None => args.model.model.clone().unwrap_or_default(),
    };
    let out = args.out.clone().unwrap_or_else(|| {
        free_folder(&format!("scan-{}-{}", model_stem(&name()), data_stem(args.data.first().map_or("", |path| path))))
    });
    refuse_results_of_others(&out)?;
    args.curate.as_deref().map_or(Ok(()), |curated| refuse_own_file(curated, &out))?;
    // What cannot be read is known before the model is loaded.
    args.data.iter().try_for_each(|path| size_of_data(path).and_then(|_| refuse_table(path, options.format)))?;
    let mut model = chosen.load(&devices, 0)?;
    let device = model.placement().to_string();
    let _taken = run_folder::take(&out)?;

    let lines_path = out.join(LINES);
    let begun = Instant::now();
    let mut scanned = None;
    let mut curated = None;
    let scan_into = |lines: &mut dyn Write, curated_out: Option<&mut dyn Write>| -> Result<()> {
        let mut scanner = Scanner {
            model: &mut model,
            tokenizer,
            classes: Classes::new(tokenizer),
            gate: &gate,
            counts: Counts::new(args.data.len()),
            fidelity: Fidelity::default(),
            prompts: Prompts::new(args.on_policy),
            meter: Meter::new("scan"),
            with_tokens: args.tokens,
            lines,
            lines_path: &lines_path,
            curated: curated_out.zip(args.curate.as_deref()).map(|(out, path)| Curated {
                out,
                path,
                keep: args.keep,
                above: args.above,
                kept: 0,
                left_out: 0,
            }),
        };
        let mut reports = Vec::new();
        let mut left = args.limit.map_or(u64::MAX, |limit| limit as u64);
        for (file, path) in args.data.iter().enumerate() {
            reports.push(scanner.file(file, path, options, &mut left)?);
        }
        scanner.meter.finish();
        // Those of a run are for its own files.
        if args.named.fields.is_some() {
            warn_of_unused_field(&args.data, &reports);
        }
        if scanner.counts.all.tokens == 0 {
            return Err(nothing_scored(&args.data, &reports).into());
        }
        curated = scanner.curated.map(|curated| [curated.kept, curated.left_out]);
        scanned = Some((scanner.counts, scanner.fidelity, scanner.prompts, reports));
        Ok(())
    };
    write_both(&lines_path, args.curate.as_deref(), scan_into)?;
    let Some((counts, fidelity, prompts, reports)) = scanned else { bail!("nothing was scanned") };
    let seconds = begun.elapsed().as_secs_f64();
    let contrast = match args.on_policy {
        0 => None,
        _ => on_policy::contrast(&mut model, prompts, &gate, tokenizer.eos_ids())?,
    };
    let kernel = counts::kernel_seconds(&model)?;
    let data = &args.data;
    let at_step = args.model.step.map_or(String::new(), |step| format!(", step {step}"));
    let (model, top_k) = (name() + &at_step, args.top_k);
    let scan = Scan { model, device, data, counts, fidelity, reports, contrast, kernel, top_k, seconds };

    let summary = summary(&scan, curated);
    write_json(&out.join(SUMMARY), &summary)?;
    let page = page::render(&scan)?;
    write_atomically(&out.join(PAGE), |file| file.write_all(page.as_bytes()))?;
    if args.json {
        output::json(&summary)?;
    } else {
        output::text(&text(&scan, &out, &why, args.curate.as_deref().zip(curated)))?;
    }
    if let Some(most) = args.fail_above {
        let share = scan.counts.all.conflict_share();
        if share > most {
            bail!(
                "the check failed: {} % of the tokens are confident conflicts, more than the {} % of --fail-above",
                number(100.0 * share),
                number(100.0 * most)
            );
        }
    }
    Ok(())
}

/// Says so where none of the files has a field that was asked for: they were read as they are.
fn warn_of_unused_field(data: &[String], reports: &[StreamReport]) {
    let files = data.iter().zip(reports);
    let found: Vec<_> = files.filter_map(|(path, report)| Some((path.as_str(), report.fields.clone()?))).collect();
    if let Some(problem) = unused_field(&found) {
        // A closed stderr is no reason to end a scan.
        let _ = writeln!(io::stderr(), "warning: {}: {problem}", data.join(", "));
    }
}

/// What is wrong with data of which no token is scored.
fn nothing_scored(data: &[String], reports: &[StreamReport]) -> Error {
    let skipped: u64 = reports.iter().map(|report| report.skipped).sum();
    let why = match reports.iter().find_map(|report| report.problems.first()) {
        Some(first) => format!("{} skipped, the first because of: {first}", counted(skipped, "line")),
        None => "no record has an answer".into(),
    };
    Error::Data { file: data.join(", "), problem: format!("no token is scored: {why}") }
}

/// A folder keeps the results of what wrote it: a scan replaces those of an earlier scan, and no others of these names.
fn refuse_results_of_others(out: &Path) -> Result<()> {
    if out.exists() && !out.is_dir() {
        return Err(Error::Config { problems: vec![format!("--out {}: is not a folder", out.display())] }.into());
    }
    let there = |name: &str| out.join(name).exists();
    let whose = match RunFolder::look_into(out) {
        Ok(_) => "a run",
        Err(_) if there(SUMMARY) && !there(LINES) => "something else than a scan",
        Err(_) => return Ok(()),
    };
    let problem = format!("--out {}: holds the results of {whose}; choose another folder", out.display());
    Err(Error::Config { problems: vec![problem] }.into())
}

/// Records that are kept go into no file that the scan writes itself.
fn refuse_own_file(curated: &Path, out: &Path) -> Result<()> {
    let full = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let folder = |path: &Path| full(path).unwrap_or_else(|_| path.into());
    let is_own = [LINES, SUMMARY, PAGE].into_iter().any(|name| curated.file_name().is_some_and(|own| own == name));
    let parent = curated.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !is_own || folder(parent) != folder(out) {
        return Ok(());
    }
    let problem = "is a file that the scan writes itself into --out; name another one".into();
    Err(Error::Missing { path: format!("--curate {}", curated.display()), problem }.into())
}

/// Writes one file, or two at once; both are complete or absent.
fn write_both(
    lines: &Path,
    curated: Option<&Path>,
    mut write: impl FnMut(&mut dyn Write, Option<&mut dyn Write>) -> Result<()>,
) -> Result<()> {
    // The cause of a failure travels beside the writers, which know errors of files only.
    let mut cause = None;
    let mut keep = |result: Result<()>| {
        result.map_err(|error| {
            cause = Some(error);
            io::Error::other("see the cause")
        })
    };
    let written = match curated {
        None => write_atomically(lines, |out| keep(write(out, None))),
        Some(path) => write_atomically(path, |curated| {
            write_atomically(lines, |out| keep(write(out, Some(curated)))).map_err(io::Error::other)
        }),
    };
    match cause {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomically(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })?;
    Ok(())
}

impl Scanner<'_, '_> {
    /// Scans one file, at most `left` records of it.
    fn file(&mut self, file: usize, path: &str, options: ReadOptions, left: &mut u64) -> Result<StreamReport> {
        let (input, read) = stream_data(path)?;
        let name = if path == "-" { "standard input" } else { path };
        let mut stream = Stream::new(name, input, self.tokenizer, options)?;
        if stream.is_plain() && self.curated.is_some() {
            let problem =
                format!("--curate: {name} is plain text, which has no records to keep or leave out; give JSONL");
            return Err(Error::Config { problems: vec![problem] }.into());
        }
        if stream.looks_like_records() {
            // A closed stderr is no reason to end a scan.
            let _ = writeln!(io::stderr(), "warning: {}", doubts::plain_text(name));
        }
        if let Some(separator) = stream.looks_like_table() {
            let _ = writeln!(io::stderr(), "warning: {}", doubts::plain_table(name, separator));
        }
        self.meter.of_bytes(read.total());
        let mut window: Vec<Unit> = Vec::new();
        let mut tokens = 0;
        while *left > 0 {
            let Some(piece) = stream.next_piece()? else { break };
            *left -= 1;
            tokens += piece.documents.iter().map(|document| document.tokens.len()).sum::<usize>();
            match piece.raw {
                Some(raw) => window.push(Unit::new(file, piece.line, Some(raw), piece.documents)),
                // Of plain text each window is looked at by itself.
                None => {
                    window.extend(piece.documents.into_iter().map(|d| Unit::new(file, d.line, None, vec![d])));
                }
            }
            if tokens >= WINDOW_TOKENS {
                self.window(std::mem::take(&mut window), name)?;
                tokens = 0;
                self.meter.at(read.done(), self.counts.tokens_seen);
            }
        }
        self.window(window, name)?;
        self.meter.at(read.done(), self.counts.tokens_seen);
        if stream.bare() > 0 {
            let _ = writeln!(io::stderr(), "warning: {name}: {}", doubts::no_template(stream.bare() as usize));
        }
        let (report, unread) = (stream.report(), stream.unread());
        if let Some(fields) = doubts::not_read(&unread) {
            let _ = writeln!(io::stderr(), "{name}: {fields}");
        }
        let lost = stream.kind().and_then(|kind| doubts::lost_context(kind, &unread));
        let empty = doubts::empty_answers(report.empty_answers as usize);
        for line in lost.into_iter().chain(empty).chain(doubts::unwritten(stream.unwritten())) {
            let _ = writeln!(io::stderr(), "warning: {name}: {line}");
        }
        Ok(report)
    }

    /// Scores and counts some records.
    fn window(&mut self, mut units: Vec<Unit>, name: &str) -> Result<()> {
        let documents: Vec<(usize, Document)> = units
            .iter_mut()
            .enumerate()
            .flat_map(|(unit, of)| std::mem::take(&mut of.documents).into_iter().map(move |document| (unit, document)))
            .collect();
        let mut at = 0;
        // One record may have more tokens than a window.
        while at < documents.len() {
            let mut tokens = 0;
            let fits = |(_, document): &&(usize, Document)| {
                let before = tokens;
                tokens += document.tokens.len();
                before == 0 || tokens <= 2 * WINDOW_TOKENS
            };
            let count = documents[at..].iter().take_while(fits).count();
            let part = &documents[at..at + count];
            let given: Vec<&Document> = part.iter().map(|(_, document)| document).collect();
            // The lines are a file that is being written, so that nothing else ends a long window.
            let scored = score_until(self.model, &given, self.gate, &mut self.fidelity, &interrupt::stopped);
            let scores = wait(scored)?.ok_or_else(|| io_error(self.lines_path, &interrupt::nothing_left()))?;
            self.counts.tokens_seen += given.iter().map(|document| document.tokens.len() as u64).sum::<u64>();
            self.take(&mut units, part, &scores, name)?;
            at += count;
        }
        documents.iter().for_each(|(_, document)| self.prompts.offer(document));
        for unit in units {
            self.end(unit, name)?;
        }
        Ok(())
    }

    /// Counts scores.
    fn take(
        &mut self,
        units: &mut [Unit],
        documents: &[(usize, Document)],
        scores: &[TokenScore],
        name: &str,
    ) -> Result<()> {
        for of_document in scores.chunk_by(|a, b| a.document == b.document) {
            let (unit, document) = &documents[of_document[0].document as usize];
            let unit = &mut units[*unit];
            let mut ordinal = 0;
            let mut last = 0;
            for score in of_document {
                // A token's place in its answer: consecutive trained tokens are one.
                ordinal = if score.position == last + 1 && ordinal > 0 { ordinal + 1 } else { 1 };
                last = score.position;
                let at = score.position as usize;
                let class = self.classes.of(Some(document.tokens[at - 1]), score.token)?;
                self.counts.add(unit.file, ordinal, class, score);
                unit.add(score);
                if self.with_tokens {
                    let line = self.token_line(name, unit.line, score, class.name())?;
                    writeln!(self.lines, "{line}").map_err(|error| io_error(self.lines_path, &error))?;
                }
                if score.stats.is_conflict() {
                    // What it cost beyond what the model itself expected to pay.
                    let excess = f64::from(score.stats.ce - score.stats.entropy_full);
                    let tokenizer = self.tokenizer;
                    let shown = || Shown::of(tokenizer, document, score, name, unit.line);
                    unit.worst.offer(excess, shown);
                    self.counts.worst_tokens.offer(excess, shown);
                }
            }
        }
        Ok(())
    }

    /// Ends a record: its line, its place among the worst, and whether it is kept.
    fn end(&mut self, unit: Unit, name: &str) -> Result<()> {
        if let Some(curated) = &mut self.curated
            && let Some(raw) = &unit.raw
        {
            let above = unit.tally.conflict_share() > curated.above;
            let kept = above == (curated.keep == Keeping::Conflicted);
            *(if kept { &mut curated.kept } else { &mut curated.left_out }) += 1;
            if kept {
                let written = curated.out.write_all(raw).and_then(|()| curated.out.write_all(b"\n"));
                written.map_err(|error| io_error(curated.path, &error))?;
            }
        }
        let line = unit.line_of_json(name);
        writeln!(self.lines, "{line}").map_err(|error| io_error(self.lines_path, &error))?;
        self.counts.end(unit, name);
        Ok(())
    }

    fn token_line(&self, file: &str, line: usize, score: &TokenScore, class: &str) -> Result<Value> {
        let text = |token: u32| self.tokenizer.decode(&[token], false);
        Ok(json!({
            "what": "token",
            "file": file,
            "line": line,
            "position": score.position,
            "token": score.token,
            "text": text(score.token)?,
            "class": class,
            "p": score.stats.p(),
            "loss": score.stats.ce,
            "entropy": score.stats.entropy_full,
            "entropy_top_k": score.stats.entropy_top_k,
            "gate": score.gate,
            "wanted": score.wanted,
            "wanted_text": text(score.wanted)?,
            "wanted_p": score.wanted_p,
            "conflict": score.stats.is_conflict(),
        }))
    }
}

/// A token in its context, to be looked at.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Shown {
    pub file: String,
    pub line: usize,
    pub position: u32,
    pub before: String,
    pub token: String,
    pub after: String,
    pub wanted: String,
    pub p: f32,
    pub wanted_p: f32,
    pub entropy: f32,
    pub gate: f32,
}

impl Shown {
    fn of(tokenizer: &Tokenizer, document: &Document, score: &TokenScore, file: &str, line: usize) -> Self {
        let at = score.position as usize;
        let text = |tokens: &[u32]| tokenizer.decode(tokens, false).unwrap_or_default();
        // A decoder may treat a text's beginning in its own way, so that what is behind something is cut out of both.
        let behind = |start: usize, tokens: &[u32]| {
            let context = text(&document.tokens[start..at]);
            let whole = text(&[&document.tokens[start..at], tokens].concat());
            whole.strip_prefix(context.as_str()).map_or_else(|| text(tokens), str::to_owned)
        };
        let start = at.saturating_sub(CONTEXT[0]);
        let end = (at + 1 + CONTEXT[1]).min(document.tokens.len());
        Self {
            file: file.into(),
            line,
            position: score.position,
            before: text(&document.tokens[start..at]),
            token: behind(start, &document.tokens[at..=at]),
            after: text(&document.tokens[at + 1..end]),
            wanted: behind(start, &[score.wanted]),
            p: score.stats.p(),
            wanted_p: score.wanted_p,
            entropy: score.stats.entropy_full,
            gate: score.gate,
        }
    }
}

/// `summary.json`.
fn summary(scan: &Scan, curated: Option<[u64; 2]>) -> Value {
    let counts = &scan.counts;
    let sum = |of: fn(&StreamReport) -> u64| scan.reports.iter().map(of).sum::<u64>();
    let problems: Vec<&String> = scan.reports.iter().flat_map(|report| &report.problems).collect();
    let correlations = scan.fidelity.correlations().into_iter();
    json!({
        "temper": env!("CARGO_PKG_VERSION"),
        "model": scan.model,
        "data": scan.data,
        "device": scan.device,
        "seconds": scan.seconds,
        "tokens_per_second": counts.tokens_seen as f64 / scan.seconds,
        "peak_resident_bytes": memory::peak_resident_bytes(),
        "records": sum(|report| report.records),
        "skipped": sum(|report| report.skipped),
        "truncated": sum(|report| report.truncated),
        "problems": problems,
        "documents": counts.documents,
        "tokens": counts.tokens_seen,
        "scored": counts.all.tokens,
        "loss": counts.all.mean(counts.all.ce),
        "entropy": counts.all.mean(counts.all.entropy),
        "gate": {
            "objective": "eaft",
            "top_k": scan.top_k,
            "mean": counts.all.mean(counts.all.gate),
            "below_0_1": counts.gates_below_0_1 as f64 / counts.all.tokens as f64,
            "histogram": counts.gates,
        },
        "conflicts": counts.conflicts_json(scan.data),
        "confidence": {
            "expected_calibration_error": counts.reliability.expected_error(),
            "sure": counts.reliability.sure()[0],
            "sure_and_wrong": counts.reliability.sure()[1],
            "bins": counts.reliability.bins(),
        },
        "fidelity": correlations.map(|(k, pearson)| json!({ "k": k, "pearson": pearson })).collect::<Vec<_>>(),
        "kernel": scan.kernel.iter().map(|(k, seconds)| json!({ "k": k, "seconds": seconds })).collect::<Vec<_>>(),
        "on_policy": scan.contrast.as_ref().map(Contrast::json),
        "curated": curated.map(|[kept, left_out]| json!({ "kept": kept, "left_out": left_out })),
        "advice": advice::of(counts),
        "landscape": counts.landscape,
    })
}

/// What the terminal is told.
fn text(scan: &Scan, out: &Path, why: &str, curated: Option<(&Path, [u64; 2])>) -> String {
    let counts = &scan.counts;
    let all = &counts.all;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<11}{value}");
    };
    let percent = |share: f64| format!("{} %", number(100.0 * share));
    let count = |which: fn(&StreamReport) -> u64| scan.reports.iter().map(which).sum::<u64>();
    let (truncated, skipped) = (count(|report| report.truncated), count(|report| report.skipped));
    let tell = |count: u64, what: &str| match count {
        0 => String::new(),
        count => format!(", {} {what}", grouped(count)),
    };
    line(
        "data",
        format!(
            "{}: {} {}, {} tokens, {} scored{}{}",
            scan.data.join(", "),
            grouped(counts.documents),
            plural(counts.documents, "document"),
            grouped(counts.tokens_seen),
            grouped(all.tokens),
            tell(truncated, "cut off at the end"),
            tell(skipped, &(plural(skipped, "line") + " skipped")),
        ),
    );
    scan.reports.iter().flat_map(|report| &report.problems).for_each(|problem| line("skipped", problem.clone()));
    line("device", format!("{} ({why})", scan.device));
    let loss = all.mean(all.ce);
    line(
        "model",
        format!(
            "loss {loss:.4} nats a token (perplexity {}), entropy {:.4}, mean gate {:.3}",
            perplexity(loss.exp().min(f64::MAX), 3),
            all.mean(all.entropy),
            all.mean(all.gate)
        ),
    );
    let bottom = counts.bottoms.found();
    let by_rank = match bottom.exact {
        true => percent(bottom.share_least),
        false => format!("{} to {}", percent(bottom.share_least), percent(bottom.share_most)),
    };
    line(
        "conflicts",
        format!(
            "{} of the tokens ({}) have p < 0.1 and H < 0.5; {by_rank} are in the lowest 15 % of both",
            percent(all.conflict_share()),
            grouped(all.conflicts)
        ),
    );
    let classes = counts.by_class().into_iter().filter(|(_, tally)| tally.conflicts > 0);
    let classes: Vec<String> =
        classes.map(|(class, t)| format!("{} {}", class.name(), percent(t.conflict_share()))).collect();
    if !classes.is_empty() {
        line("", format!("by class: {}", classes.join(", ")));
    }
    let worst = counts.worst_documents.entries().iter().filter(|(_, document)| document.tally.conflicts > 0).take(3);
    let worst: Vec<String> = worst
        .map(|(_, d)| format!("{} line {} ({} of {})", d.file, d.line, d.tally.conflicts, d.tally.tokens))
        .collect();
    if !worst.is_empty() {
        line("", format!("most in: {}", worst.join(", ")));
    }
    let [sure, wrong] = counts.reliability.sure();
    line(
        "confidence",
        format!(
            "calibration error {:.4}; of {} tokens of which it is surer than 0.9 it is wrong about {}",
            counts.reliability.expected_error(),
            grouped(sure),
            percent(wrong as f64 / sure.max(1) as f64)
        ),
    );
    let correlation = scan.fidelity.correlations().into_iter().find(|(k, _)| *k == scan.top_k).and_then(|(_, r)| r);
    if let Some(r) = correlation {
        line("top K", format!("entropy of the {} most likely and of all: correlation {r:.4}", scan.top_k));
    }
    if let Some(contrast) = &scan.contrast {
        line("on policy", contrast.text());
    }
    for advice in advice::of(counts) {
        line("advice", advice.text);
    }
    if let Some((path, [kept, left_out])) = curated {
        let (records, left_out) = (plural(kept, "record"), grouped(left_out));
        line("curated", format!("{}: {} {records}, {left_out} left out", path.display(), grouped(kept)));
    }
    let speed = counts.tokens_seen as f64 / scan.seconds;
    line("time", format!("{}, {} tokens/s", duration(scan.seconds), grouped(speed.round() as u64)));
    let shown: PathBuf = out.join(PAGE);
    let _ = writeln!(text, "\n{:<11}{}", "report", shown.display());
    text
}
