//! `scan.html`: one file that needs nothing else, in the look of a run's report.

use anyhow::Result;
use plotters::prelude::*;
use serde::Serialize;
use temper_engine::scan::Tally;
use temper_engine::words::plural;

use super::advice::{self, Advice};
use super::counts::{Counts, ENTROPIES, GATES as GATE_BINS, PROBABILITIES};
use super::{Scan, Shown};
use crate::figures::{
    By, Fact, Figure, Key, MAIN, Row, SECOND, SIZE, SOFT, STYLE, Table, WARN, axes, draw, landscape, svg,
};
use crate::progress::{duration, grouped, number, perplexity, two_digits};
use crate::templates;

/// What the template shows; it does no more than put it in order.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    title: String,
    subtitle: String,
    problems: Vec<&'a String>,
    advice: Vec<Advice>,
    facts: Vec<Fact>,
    on_policy: bool,
    gates: Vec<Key>,
    landscapes: Vec<Figure>,
    where_they_are: Vec<Figure>,
    classes: Table,
    thresholds: Table,
    files: Table,
    above: Table,
    documents: Vec<Document<'a>>,
    tokens: Vec<Token<'a>>,
    trust: Vec<Figure>,
}

#[derive(Serialize)]
struct Document<'a> {
    place: String,
    conflicts: String,
    share: String,
    loss: String,
    worst: &'a Shown,
}

#[derive(Serialize)]
struct Token<'a> {
    place: String,
    p: String,
    entropy: String,
    gate: String,
    wanted_p: String,
    shown: &'a Shown,
}

/// Makes the page.
///
/// # Errors
/// Only if a plot cannot be drawn, which no data can cause.
pub fn render(scan: &Scan) -> Result<String> {
    let counts = &scan.counts;
    let contrast = scan.contrast.as_ref();
    let mut landscapes = vec![landscape("all scored tokens", &counts.landscape, By::Gate)?];
    if let Some(contrast) = contrast {
        landscapes.push(landscape("the data's answers", &contrast.data.1, By::Gate)?);
        landscapes.push(landscape("the model's own answers", &contrast.model.1, By::Gate)?);
    }
    let documents = counts.worst_documents.entries().iter().filter_map(|(_, document)| {
        Some(Document {
            place: format!("{} line {}", document.file, document.line),
            conflicts: format!("{} of {}", document.tally.conflicts, grouped(document.tally.tokens)),
            share: percent(document.tally.conflict_share()),
            loss: format!("{:.3}", document.tally.mean(document.tally.ce)),
            worst: document.worst.as_ref()?,
        })
    });
    let tokens = counts.worst_tokens.entries().iter().map(|(_, shown)| Token {
        place: format!("{} line {}, token {}", shown.file, shown.line, shown.position),
        p: number(f64::from(shown.p)),
        entropy: format!("{:.3}", shown.entropy),
        gate: format!("{:.3}", shown.gate),
        wanted_p: format!("{:.3}", shown.wanted_p),
        shown,
    });
    let page = Page {
        style: STYLE,
        title: format!("{} meets {}", scan.data.join(", "), scan.model),
        subtitle: format!(
            "{} tokens scored in {} {}, {} on {}; Temper {}",
            grouped(counts.all.tokens),
            grouped(counts.documents),
            plural(counts.documents, "document"),
            duration(scan.seconds),
            scan.device,
            env!("CARGO_PKG_VERSION")
        ),
        problems: scan.reports.iter().flat_map(|report| &report.problems).collect(),
        advice: advice::of(counts),
        facts: facts(scan),
        on_policy: contrast.is_some(),
        gates: By::Gate.keys(),
        landscapes,
        where_they_are: vec![places(counts)?, gates(counts)?],
        classes: tallies(counts.by_class().iter().map(|(class, t)| (class.name().into(), *t))),
        thresholds: thresholds(counts),
        files: match scan.data.len() {
            1 => Table { columns: Vec::new(), rows: Vec::new() },
            _ => tallies(scan.data.iter().cloned().zip(counts.by_file.iter().copied())),
        },
        above: above(counts),
        documents: documents.collect(),
        tokens: tokens.collect(),
        trust: vec![reliability(counts)?, fidelity(scan)?, kernel(scan)?],
    };
    templates::render("scan.html", page)
}

fn percent(share: f64) -> String {
    format!("{} %", number(100.0 * share))
}

fn facts(scan: &Scan) -> Vec<Fact> {
    let counts = &scan.counts;
    let all = &counts.all;
    let loss = all.mean(all.ce);
    let bottom = counts.bottoms.found();
    let by_rank = match bottom.exact {
        true => percent(bottom.share_least),
        false => format!("{} to {}", percent(bottom.share_least), percent(bottom.share_most)),
    };
    let [sure, wrong] = counts.reliability.sure();
    let mut facts = vec![
        Fact {
            name: "Loss",
            value: format!("{loss:.4} nats a token, perplexity {}", perplexity(loss.exp().min(f64::MAX), 3)),
        },
        Fact { name: "Entropy", value: format!("{:.4} nats a token", all.mean(all.entropy)) },
        Fact {
            name: "Confident conflicts",
            value: format!(
                "{} of {} tokens ({}): label probability below 0.1, entropy below 0.5 nats",
                grouped(all.conflicts),
                grouped(all.tokens),
                percent(all.conflict_share())
            ),
        },
        Fact {
            name: "By quantiles",
            value: format!(
                "{by_rank} of the tokens are in the lowest 15 % of both: p below {}, entropy below {} nats",
                two_digits(bottom.probability),
                number(bottom.entropy)
            ),
        },
        Fact {
            name: "Gate",
            value: format!(
                "mean {:.3}; below 0.1 for {} of the tokens (EAFT, linear, K = {})",
                all.mean(all.gate),
                percent(counts.gates_below_0_1 as f64 / all.tokens.max(1) as f64),
                scan.top_k
            ),
        },
        Fact {
            name: "Confidence",
            value: format!(
                "expected calibration error {:.4}; wrong about {} of the {} tokens of which it is surer than 0.9",
                counts.reliability.expected_error(),
                percent(wrong as f64 / sure.max(1) as f64),
                grouped(sure)
            ),
        },
    ];
    if let Some(contrast) = &scan.contrast {
        facts.push(Fact { name: "On policy", value: contrast.text() });
    }
    facts
}

/// Bars over `0 .. bars.len()`, one each, with the axis in units of `step`.
fn bars(title: &str, unit: String, name: [&str; 2], step: f64, bars: &[f64], colour: RGBColor) -> Result<Figure> {
    let drawn = svg(SIZE, title, |root| {
        let most = bars.iter().copied().fold(0.0, f64::max);
        let top = if most > 0.0 { 1.05 * most } else { 1.0 };
        let mut chart = axes(root, 0.0..step * bars.len() as f64, 0.0..top, name[0], name[1])?;
        draw(chart.draw_series(bars.iter().enumerate().map(|(at, height)| {
            let left = step * at as f64;
            Rectangle::new([(left + 0.06 * step, 0.0), (left + 0.94 * step, *height)], colour.filled())
        })))?;
        Ok(())
    })?;
    Ok(Figure { title: title.into(), unit, keys: Vec::new(), svg: drawn })
}

fn places(counts: &Counts) -> Result<Figure> {
    let last = counts.places.iter().rposition(|tally| tally.tokens > 0).unwrap_or(0);
    let shares: Vec<f64> = counts.places[..=last].iter().map(|tally| 100.0 * tally.conflict_share()).collect();
    let unit = "percent of conflicts by place in the answer; each bar is twice as far as the one before: 1, 2 to 3, 4 to 7, ..";
    bars("Conflicts by position", unit.into(), ["log2 of the token's place", ""], 1.0, &shares, WARN)
}

fn gates(counts: &Counts) -> Result<Figure> {
    let all = counts.all.tokens.max(1) as f64;
    let shares: Vec<f64> = counts.gates.iter().map(|count| 100.0 * *count as f64 / all).collect();
    let unit = format!("percent of tokens by gate; mean {:.3}", counts.all.mean(counts.all.gate));
    bars("Gate", unit, ["gate", ""], 1.0 / GATE_BINS as f64, &shares, MAIN)
}

fn tallies(rows: impl Iterator<Item = (String, Tally)>) -> Table {
    let row = |(name, t): (String, Tally)| Row {
        name,
        cells: vec![
            grouped(t.tokens),
            grouped(t.conflicts),
            percent(t.conflict_share()),
            format!("{:.3}", t.mean(t.ce)),
            format!("{:.3}", t.mean(t.entropy)),
            format!("{:.3}", t.mean(t.gate)),
        ],
    };
    Table {
        columns: vec!["tokens", "conflicts", "share", "loss (nats)", "entropy (nats)", "mean gate"],
        rows: rows.map(row).collect(),
    }
}

fn thresholds(counts: &Counts) -> Table {
    let share = |count: &u64| percent(*count as f64 / counts.all.tokens.max(1) as f64);
    let rows = counts.thresholds.iter().zip(PROBABILITIES);
    let rows = rows.map(|(row, p)| Row { name: format!("p below {p}"), cells: row.iter().map(share).collect() });
    const { assert!(ENTROPIES.len() == 4) };
    Table { columns: vec!["entropy below 0.25", "below 0.5 nats", "below 1", "below 1.6"], rows: rows.collect() }
}

fn above(counts: &Counts) -> Table {
    let row = |share: f64| {
        let [documents, conflicts] = counts.above(share);
        Row {
            name: format!("documents with more than {}", percent(share)),
            cells: vec![
                grouped(documents),
                percent(documents as f64 / counts.documents.max(1) as f64),
                percent(conflicts as f64 / counts.all.conflicts.max(1) as f64),
            ],
        }
    };
    Table {
        columns: vec!["documents", "of all", "of the conflicts"],
        rows: [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].map(row).into(),
    }
}

/// The reliability diagram: how often the most likely token is the label, by how likely it was.
fn reliability(counts: &Counts) -> Result<Figure> {
    let bins = counts.reliability.bins();
    let width = 1.0 / bins.len() as f64;
    let drawn = svg(SIZE, "Reliability of the model's confidence", |root| {
        let mut chart = axes(root, 0.0..1.0, 0.0..1.0, "probability of the most likely token", "it is the label")?;
        let most = bins.iter().map(|bin| bin.tokens).max().unwrap_or(1).max(1) as f64;
        draw(chart.draw_series(bins.iter().enumerate().filter(|(_, bin)| bin.tokens > 0).map(|(at, bin)| {
            let (left, height) = (at as f64 * width, bin.right as f64 / bin.tokens as f64);
            // Fewer tokens, fainter.
            let strength = 0.25 + 0.75 * (bin.tokens as f64).ln_1p() / most.ln_1p();
            Rectangle::new([(left + 0.002, 0.0), (left + width - 0.002, height)], MAIN.mix(strength).filled())
        })))?;
        let diagonal = vec![(0.0, 0.0), (1.0, 1.0)];
        draw(chart.draw_series(DashedLineSeries::new(diagonal, 5, 4, SOFT.stroke_width(2))))?;
        Ok(())
    })?;
    let unit = format!(
        "share of right ones; above the dashed line it is less sure than right. Expected calibration error {:.4}",
        counts.reliability.expected_error()
    );
    Ok(Figure { title: "Reliability of the model's confidence".into(), unit, keys: Vec::new(), svg: drawn })
}

fn line(title: &str, unit: String, name: [&str; 2], points: &[(f64, f64)], from_zero: bool) -> Result<Figure> {
    let drawn = svg(SIZE, title, |root| {
        let ends = |of: fn(&(f64, f64)) -> f64| {
            let values = points.iter().map(of);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((left, right), (low, high)) = match points.is_empty() {
            true => ((0.0, 1.0), (0.0, 1.0)),
            false => (ends(|p| p.0), ends(|p| p.1)),
        };
        let room = (0.06 * (high - low)).max(1e-9 * high.abs()).max(1e-12);
        let y = if from_zero { 0.0..high * 1.1 } else { low - room..high + room };
        let mut chart = axes(root, left.min(right - 1.0)..right, y, name[0], name[1])?;
        draw(chart.draw_series(LineSeries::new(points.iter().copied(), SECOND.stroke_width(2))))?;
        draw(chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, SECOND.filled()))))?;
        Ok(())
    })?;
    Ok(Figure { title: title.into(), unit, keys: Vec::new(), svg: drawn })
}

fn fidelity(scan: &Scan) -> Result<Figure> {
    let correlations = scan.fidelity.correlations();
    let points: Vec<(f64, f64)> = correlations.iter().filter_map(|(k, r)| Some((*k as f64, (*r)?))).collect();
    let at = correlations.iter().find(|(k, _)| *k == scan.top_k).and_then(|(_, r)| *r);
    let at = at.map_or(String::new(), |r| format!("; K = {}: {r:.4}", scan.top_k));
    let unit = format!("Pearson correlation of the entropy of the K most likely tokens with that of all{at}");
    line("Top-K entropy against exact entropy", unit, ["K", ""], &points, false)
}

fn kernel(scan: &Scan) -> Result<Figure> {
    let points: Vec<(f64, f64)> = scan.kernel.iter().map(|(k, seconds)| (*k as f64, 1e3 * seconds)).collect();
    let unit = "milliseconds of the row statistics kernel for some rows of made-up logits, by K".into();
    line("Time of the kernel", unit, ["K", "ms"], &points, true)
}
