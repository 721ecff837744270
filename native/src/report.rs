//! The report of a run: one HTML file that needs nothing else, in light and dark, with the plots as inline SVG.
//!
//! Place in the flow: run folder (metrics, summary, landscapes, configuration) -> [report] -> `report.html`. Here are the
//! numbers and the plots; `templates/report.html` is the page around them, and `templates/report.css` maps the placeholder
//! colours of the plots to the reader's colour scheme.

use anyhow::Result;
use plotters::prelude::*;
use serde::Serialize;
use temper_engine::Evaluation;
use temper_engine::events::{Evaluated, Landscape, StepMetrics};
use temper_engine::running::{Entry, Kind, Ledger, Sheet};
use temper_engine::words::counted;

use crate::figures::{
    BASE, BLUE, BROWN, By, Fact, Figure, GREEN, GREY, INK, Key, MAIN, MAP_SIZE, OLIVE, ORANGE, PINK, RED, Root, Row,
    SECOND, SIZE, SKY, SOFT, STYLE, Table, VIOLET, axes, bars, can_be_drawn, capitalised, css, draw, landscape, padded,
    svg,
};
use crate::progress::{change, duration, grouped, number};
use crate::run_folder::{FileShare, Landscapes, Measured, Summary};
use crate::templates;

/// Everything that a report shows.
pub struct Report<'a> {
    /// The resolved configuration, as TOML.
    pub config: &'a str,
    /// What came out.
    pub summary: &'a Summary,
    /// Logged steps of the run.
    pub metrics: &'a [StepMetrics],
    /// Logged steps of the baseline; empty where there is none.
    pub baseline: &'a [StepMetrics],
    /// Evaluations of the run, in order; drawn where there are some between the first and the last.
    pub history: &'a [Evaluated],
    /// Maps of the training tokens.
    pub landscapes: &'a Landscapes,
    /// The baseline's map after training, where there is one.
    pub baseline_landscape: Option<&'a Landscape>,
    /// What was planned to be held on each device, with its name.
    pub memory: &'a [(String, &'a Ledger)],
}

/// Colours of kinds of memory, in their order.
const KINDS: [RGBColor; Kind::ALL.len()] = [BLUE, GREEN, RED, ORANGE, VIOLET, OLIVE, PINK, SKY, GREY, BROWN];

/// A plot shows at most this many points a line; more are averaged in groups.
const POINTS: usize = 150;
/// One line of a plot.
struct Line {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// What the template shows; it does no more than put it in order.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    title: String,
    subtitle: String,
    /// What the run warned of.
    warnings: &'a [String],
    /// None without both a target and a general set.
    race: Option<Figure>,
    retention: Table,
    steps_a_point: usize,
    curves: Vec<Figure>,
    /// First and last logged step.
    ends: Table,
    landscapes: Vec<Figure>,
    gates: Vec<Key>,
    /// The planned memory of each device.
    memory: Vec<Figure>,
    facts: Vec<Fact>,
    config: &'a str,
}

/// Makes the report.
///
/// # Errors
/// Only if a plot cannot be drawn, which no data can cause: values that no axis can hold are left out.
pub fn render(report: &Report) -> Result<String> {
    let Report { summary, landscapes, .. } = report;
    let objective = &summary.started.objective;
    let baseline = report.baseline_landscape.map(|map| (format!("after {}", baseline_name(summary)), map));
    let maps = [("before".to_string(), &landscapes.before), (format!("after {objective}"), &landscapes.after)];
    let maps = maps.into_iter().filter_map(|(name, map)| Some((name, map.as_ref()?))).chain(baseline);
    let page = Page {
        style: STYLE,
        title: format!("{objective} on {}", summary.started.model),
        subtitle: subtitle(summary),
        warnings: &summary.warnings,
        race: race(report)?,
        retention: retention_table(summary),
        steps_a_point: group_size(report.metrics.len()),
        curves: curves(report)?,
        ends: steps_table(report),
        landscapes: maps
            .filter(|(_, map)| map.tokens() > 0)
            .map(|(name, map)| landscape(&name, map, By::Gate))
            .collect::<Result<_>>()?,
        gates: By::Gate.keys(),
        memory: report.memory.iter().flat_map(|(name, ledger)| memory(name, ledger)).collect::<Result<_>>()?,
        facts: facts(summary),
        config: report.config,
    };
    templates::render("report.html", page)
}

fn subtitle(summary: &Summary) -> String {
    let done = &summary.finished;
    let how = if done.interrupted { "stopped early" } else { "finished" };
    format!(
        "{how} after {} of {}, {} trained tokens, {} on {}; Temper {}",
        done.step,
        counted(summary.started.steps, "step"),
        grouped(done.tokens),
        duration(done.seconds),
        summary.started.device,
        summary.temper
    )
}

fn baseline_name(summary: &Summary) -> &str {
    summary.retention.baseline.as_ref().map_or("baseline", |baseline| &baseline.objective)
}

/// The curves over steps, one figure each.
fn curves(report: &Report) -> Result<Vec<Figure>> {
    let objective = &report.summary.started.objective;
    let base = baseline_name(report.summary);
    let line = |name: String, colour, of: fn(&StepMetrics) -> f64, from: &[StepMetrics]| Line {
        name,
        colour,
        points: thinned(from.iter().map(|m| (m.step as f64, of(m))).collect()),
    };
    let main = |name: &str, colour, of| line(format!("{objective} {name}"), colour, of, report.metrics);
    let other = |name: &str, of| line(format!("{base} {name}"), BASE, of, report.baseline);
    let measured = |name: &str, colour, of: fn(&Evaluated) -> Option<Evaluation>| Line {
        name: format!("{objective} {name}"),
        colour,
        points: match report.history.len() {
            // Before and after are in the table.
            0..=2 => Vec::new(),
            _ => report.history.iter().filter_map(|e| Some((e.step as f64, of(e)?.loss))).collect(),
        },
    };
    let figures: [(&str, &str, Vec<Line>); 8] = [
        (
            "Loss",
            "nats per trained token; the gated loss is what is minimised, the cross entropy is comparable",
            vec![
                main("gated loss", SECOND, |m| m.loss),
                main("cross entropy", MAIN, |m| m.cross_entropy),
                other("cross entropy", |m| m.cross_entropy),
            ],
        ),
        (
            "Held-out loss",
            "nats per token of the measured sets during training",
            vec![
                measured("target", MAIN, |e| e.target),
                measured("general", SECOND, |e| e.general),
                measured("wrong", BASE, |e| e.wrong),
            ],
        ),
        (
            "Gate",
            "mean weight of a token, and share of tokens with a weight below 0.1",
            vec![main("mean", MAIN, |m| m.gate_mean), main("share below 0.1", SECOND, |m| m.gate_below_0_1)],
        ),
        (
            "Confident conflicts",
            "percent of trained tokens with probability below 0.1 and entropy below 0.5 nats",
            vec![main("", MAIN, |m| 100.0 * m.conflict_share), other("", |m| 100.0 * m.conflict_share)],
        ),
        (
            "Sure and open tokens",
            "cross entropy (nats) of tokens whose entropy is then at most 0.5 nats, or at least 2",
            vec![
                main("sure", MAIN, |m| m.sure_cross_entropy.unwrap_or(f64::NAN)),
                other("sure", |m| m.sure_cross_entropy.unwrap_or(f64::NAN)),
                main("open", SECOND, |m| m.open_cross_entropy.unwrap_or(f64::NAN)),
            ],
        ),
        (
            "Gradient norm",
            "global, before clipping",
            vec![main("", MAIN, |m| m.gradient_norm), other("", |m| m.gradient_norm)],
        ),
        ("Learning rate", "of each step", vec![main("", MAIN, |m| m.learning_rate)]),
        (
            "Speed",
            "tokens through the model per second",
            vec![main("", MAIN, |m| m.tokens_per_second), other("", |m| m.tokens_per_second)],
        ),
    ];
    let drawn = figures.into_iter().filter_map(|(title, unit, lines)| {
        let lines: Vec<_> = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
        let svg = || svg(SIZE, title, |root| line_plot(root, &lines));
        (!lines.is_empty()).then(|| Ok(figure(title, unit, &lines, svg()?)))
    });
    drawn.collect()
}

fn line_plot(root: &Root, lines: &[Line]) -> Result<()> {
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let x = padded(all().map(|p| p.0), 0.0);
    let mut y = padded(all().map(|p| p.1), 0.06);
    // Shares, norms and rates start at 0; only something far from 0 may start elsewhere.
    if y.start > 0.0 && y.start < 0.4 * y.end || y.start < 0.0 && all().all(|p| p.1 >= 0.0) {
        y.start = 0.0;
    }
    let mut chart = axes(root, x, y, "step", "")?;
    for line in lines {
        if let [(x, y)] = line.points[..] {
            draw(chart.draw_series([Circle::new((x, y), 3, line.colour.filled())]))?;
        }
        draw(chart.draw_series(LineSeries::new(line.points.clone(), line.colour.stroke_width(2))))?;
    }
    Ok(())
}

/// The race in one plane: every result as a point, general perplexity across, target perplexity up. Down is learned, right
/// is forgotten.
fn race(report: &Report) -> Result<Option<Figure>> {
    let summary = report.summary;
    let point = |measured: &Measured| Some((measured.general?.perplexity, measured.target?.perplexity));
    let retention = &summary.retention;
    let base = retention.baseline.as_ref();
    let Some(before) = point(&retention.before) else { return Ok(None) };
    let after: Vec<(String, RGBColor, (f64, f64))> = [
        point(&retention.after).map(|p| (format!("after {}", summary.started.objective), MAIN, p)),
        base.and_then(|b| point(&b.after)).map(|p| (format!("after {}", baseline_name(summary)), BASE, p)),
    ]
    .into_iter()
    .flatten()
    .filter(|(_, _, (x, y))| can_be_drawn(*x) && can_be_drawn(*y))
    .collect();

    let drawn = svg(MAP_SIZE, "Target against general perplexity", |root| {
        let xs = after.iter().map(|(_, _, p)| p.0).chain([before.0]);
        let ys = after.iter().map(|(_, _, p)| p.1).chain([before.1]);
        let mut chart = axes(
            root,
            padded(xs, 0.3),
            padded(ys, 0.15),
            "general perplexity (right: forgotten)",
            "target perplexity (down: learned)",
        )?;
        // What is right of this line was paid for in general ability.
        let y = chart.y_range();
        draw(chart.draw_series(DashedLineSeries::new(
            vec![(before.0, y.start), (before.0, y.end)],
            4,
            4,
            SOFT.stroke_width(1),
        )))?;
        for (_, colour, point) in &after {
            draw(chart.draw_series(LineSeries::new([before, *point], colour.mix(0.45).stroke_width(2))))?;
            draw(chart.draw_series([Circle::new(*point, 6, colour.filled())]))?;
        }
        draw(chart.draw_series([Circle::new(before, 6, INK.filled())]))?;
        Ok(())
    })?;
    let keys: Vec<Line> = [("before".to_string(), INK)]
        .into_iter()
        .chain(after.iter().map(|(name, colour, _)| (name.clone(), *colour)))
        .map(|(name, colour)| Line { name, colour, points: vec![] })
        .collect();
    let best = "best is straight down: learned, and nothing forgotten";
    Ok(Some(figure("Target against general perplexity", best, &keys, drawn)))
}

/// What a device was planned to hold, moment by moment, and what the host holds beside it.
fn memory(name: &str, ledger: &Ledger) -> Vec<Result<Figure>> {
    let sides: [(String, Of); 2] =
        [(name.into(), |entry| &entry.device), (format!("{name}: the host beside it"), |entry| &entry.host)];
    let is_held = |of: &Of| ledger.moments.iter().any(|entry| of(entry).total() > 0);
    sides.into_iter().filter(|(_, of)| is_held(of)).map(|(title, of)| memory_of(&title, &ledger.moments, of)).collect()
}

/// One of both memories at a moment.
type Of = fn(&Entry) -> &Sheet;

fn memory_of(title: &str, moments: &[Entry], of: Of) -> Result<Figure> {
    let most = moments.iter().map(|entry| of(entry).total()).max().unwrap_or(0);
    let (scale, unit) = if most >= 1 << 30 { ((1_u64 << 30) as f64, "GiB") } else { ((1_u64 << 20) as f64, "MiB") };
    let names: Vec<&str> = moments.iter().map(|entry| entry.moment.words()).collect();
    let drawn = svg(SIZE, title, |root| {
        let mut chart = bars(root, &names, most as f64 / scale * 1.05, &format!("{unit} held, as planned"))?;
        for (line, entry) in moments.iter().enumerate() {
            let (y, mut x) = ((names.len() - 1 - line) as f64, 0.0);
            for (kind, colour) in Kind::ALL.into_iter().zip(KINDS) {
                let next = x + of(entry).of(kind) as f64 / scale;
                if next > x {
                    draw(chart.draw_series([Rectangle::new([(x, y - 0.36), (next, y + 0.36)], colour.filled())]))?;
                }
                x = next;
            }
        }
        Ok(())
    })?;
    let held = |kind: Kind| moments.iter().any(|entry| of(entry).of(kind) > 0);
    let keys = Kind::ALL.into_iter().zip(KINDS).filter(|(kind, _)| held(*kind));
    let keys =
        keys.map(|(kind, colour)| Key { name: kind.words().into(), colour: css(colour), dashed: false }).collect();
    let peak = moments.iter().max_by_key(|entry| of(entry).total()).map_or("", |entry| entry.moment.words());
    let unit = format!("{:.2} {unit} at most, in {peak}", most as f64 / scale);
    Ok(Figure { title: capitalised(title), unit, keys, svg: drawn })
}

/// How many neighbouring points become one.
fn group_size(points: usize) -> usize {
    points.div_ceil(POINTS).max(1)
}

/// At most [`POINTS`] points: groups of neighbours are averaged, so that a long run's curve stays readable and small.
/// Points that cannot be drawn are left out.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let points: Vec<_> = points.into_iter().filter(|p| can_be_drawn(p.0) && can_be_drawn(p.1)).collect();
    let group = group_size(points.len());
    let mean = |chunk: &[(f64, f64)]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(group).map(mean).collect()
}

fn figure(title: &str, unit: &str, lines: &[Line], svg: String) -> Figure {
    let colour = |line: &Line| match line.colour {
        INK => "var(--ink)",
        SECOND => "var(--second)",
        BASE => "var(--base)",
        _ => "var(--main)",
    };
    let key = |line: &Line| Key { name: line.name.trim().into(), colour: colour(line).into(), dashed: false };
    Figure { title: title.into(), unit: unit.into(), keys: lines.iter().map(key).collect(), svg }
}

fn retention_table(summary: &Summary) -> Table {
    let retention = &summary.retention;
    let mut measured = vec![("before".to_string(), retention.before)];
    measured.push((format!("after {}", summary.started.objective), retention.after));
    if let Some(baseline) = &retention.baseline {
        measured.push((format!("after {}", baseline.objective), baseline.after));
    }
    let cells = |now: Option<Evaluation>, before: Option<Evaluation>| match now {
        None => ["-"; 3].map(String::from),
        Some(now) => {
            let change = before.filter(|b| *b != now).map(|b| change(b.perplexity, now.perplexity));
            [format!("{:.4}", now.loss), number(now.perplexity), change.unwrap_or_default()]
        }
    };
    type Of = fn(&Measured) -> Option<Evaluation>;
    let sets: [(Of, [&str; 3]); 3] = [
        (|m| m.target, ["target loss (nats/token)", "target perplexity", "change"]),
        (|m| m.general, ["general loss (nats/token)", "general perplexity", "change"]),
        (|m| m.wrong, ["wrong loss (nats/token)", "wrong perplexity", "change"]),
    ];
    let was_measured = |of: Of| measured.iter().any(|(_, measured)| of(measured).is_some());
    let shown: Vec<(Of, [&str; 3])> = sets.into_iter().filter(|(of, _)| was_measured(*of)).collect();
    let row = |(name, measured): &(String, Measured)| {
        let cells = shown.iter().flat_map(|(of, _)| cells(of(measured), of(&retention.before))).collect();
        Row { name: name.clone(), cells }
    };
    let columns = shown.iter().flat_map(|(_, columns)| *columns).collect();
    Table { columns, rows: measured.iter().map(row).collect() }
}

/// First and last logged step, as numbers.
fn steps_table(report: &Report) -> Table {
    let objective = report.summary.started.objective.as_str();
    let parts = [(objective, report.metrics), (baseline_name(report.summary), report.baseline)];
    let row = |name: &str, m: &StepMetrics| Row {
        name: format!("{name}, step {}", m.step),
        cells: vec![
            grouped(m.tokens),
            format!("{:.4}", m.loss),
            format!("{:.4}", m.cross_entropy),
            format!("{:.3}", m.gate_mean),
            format!("{:.1} %", 100.0 * m.gate_below_0_1),
            format!("{:.2} %", 100.0 * m.conflict_share),
            number(m.gradient_norm),
            number(m.tokens_per_second),
        ],
    };
    let ends = |(name, metrics): (&str, &[StepMetrics])| {
        let ends = [metrics.first(), metrics.last().filter(|_| metrics.len() > 1)];
        ends.into_iter().flatten().map(|m| row(name, m)).collect::<Vec<_>>()
    };
    Table {
        columns: vec![
            "trained tokens",
            "gated loss (nats)",
            "cross entropy (nats)",
            "gate mean",
            "gate below 0.1",
            "conflicts",
            "gradient norm",
            "tokens/s",
        ],
        rows: parts.into_iter().flat_map(ends).collect(),
    }
}

fn facts(summary: &Summary) -> Vec<Fact> {
    let Summary { started, finished, selected, .. } = summary;
    let result = selected.as_ref().map(|selected| {
        let why = selected.ended.iter().map(|why| format!("; ended because {why}")).collect::<String>();
        ("Result", format!("step {} of the {} made, chosen by run.keep_best{why}", selected.step, selected.of))
    });
    let share = 100.0 * started.trainable as f64 / started.parameters.max(1) as f64;
    let memory = match summary.peak_device_bytes {
        0 => "not reported by the device".to_string(),
        bytes => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    };
    let facts = [
        ("Model", started.model.clone()),
        (
            "Parameters",
            format!("{}, of which {} trained ({share:.2} %)", grouped(started.parameters), grouped(started.trainable)),
        ),
        ("Objective", started.objective.clone()),
        ("Device", format!("{}: {}", started.device, started.why)),
        ("Seed", summary.seed.to_string()),
        (
            "Steps",
            format!("{} of {}{}", finished.step, started.steps, if finished.interrupted { ", stopped" } else { "" }),
        ),
        ("Trained tokens", grouped(finished.tokens)),
        ("Time", duration(finished.seconds)),
        ("Speed", format!("{} tokens/s", number(summary.tokens_per_second))),
        ("Peak device memory", memory),
        ("Temper", summary.temper.clone()),
    ];
    let of_file = |file: &FileShare| {
        let share = format!("{} {:.1} %", file.file, 100.0 * file.share);
        match file.left_out_documents {
            0 => share,
            left_out => {
                let all = grouped((file.documents + left_out) as u64);
                format!("{share} ({} of {all} documents left out)", grouped(left_out as u64))
            }
        }
    };
    let shares: Vec<String> = summary.shares.iter().map(of_file).collect();
    let shares = (!shares.is_empty()).then(|| ("Shares of trained tokens", shares.join(", ")));
    facts.into_iter().chain(shares).chain(result).map(|(name, value)| Fact { name, value }).collect()
}

#[cfg(test)]
mod tests {
    use temper_engine::events::RowStats;
    use temper_engine::events::{Finished, Phase, Selected, Started};

    use temper_engine::models::fabricated::Shape;
    use temper_engine::running::{Execution, Keep, Load, Site};
    use temper_engine::{Config, Device};

    use super::*;
    use crate::figures::{LINE, WARN};
    use crate::memory::Memory;
    use crate::run_folder::{BaselineMeasured, Retention};

    fn summary() -> Summary {
        let set = |loss: f64| Some(Evaluation { loss, perplexity: loss.exp(), tokens: 4096 });
        Summary {
            temper: "0.1.0".into(),
            started: Started {
                step: 0,
                steps: 300,
                device: "CPU".into(),
                why: "no hardware adapter was found".into(),
                model: "<script>alert(1)</script> & \"co\"".into(),
                parameters: 134_515_008,
                trainable: 4_884_480,
                objective: "eaft".into(),
            },
            finished: Finished { step: 300, tokens: 412_345, seconds: 4321.0, interrupted: false },
            seed: 42,
            records: None,
            tokens_per_second: 1234.5,
            peak_device_bytes: 734_003_200,
            memory: Memory::default(),
            selected: Some(Selected { step: 240, of: 270, ended: Some("at step 270 it had <forgotten>".into()) }),
            retention: Retention {
                before: Measured { target: set(1.52), general: set(3.05), wrong: set(6.2) },
                after: Measured { target: set(0.83), general: set(3.07), wrong: set(5.9) },
                baseline: Some(BaselineMeasured {
                    objective: "sft".into(),
                    after: Measured { target: set(0.78), general: set(3.19), wrong: set(0.4) },
                }),
            },
            shares: Vec::new(),
            warnings: vec!["eaft has diverged <b>".into()],
        }
    }

    fn noise(seed: &mut u64) -> f64 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*seed >> 33) as f64 / (1u64 << 31) as f64
    }

    fn metrics(level: f64, gated: bool) -> Vec<StepMetrics> {
        let mut seed = level.to_bits();
        (1..=300)
            .map(|step| {
                let t = step as f64 / 300.0;
                let cross_entropy = level + 0.9 * (-6.0 * t).exp() + 0.08 * noise(&mut seed);
                let gate_mean = if gated { 0.34 - 0.1 * t + 0.02 * noise(&mut seed) } else { 1.0 };
                StepMetrics {
                    step,
                    tokens: 1400,
                    loss: cross_entropy * gate_mean,
                    cross_entropy,
                    gate_mean,
                    gate_below_0_1: if gated { 0.3 + 0.1 * t } else { 0.0 },
                    conflict_share: 0.012 * (1.0 - 0.6 * t) + 0.001 * noise(&mut seed),
                    conflict_share_quantile: 0.01,
                    sure_cross_entropy: Some(0.3 * cross_entropy),
                    open_cross_entropy: (step % 7 > 0).then_some(2.0 * cross_entropy),
                    learning_rate: 1e-4 * (1.0 + (std::f64::consts::PI * t).cos()) / 2.0,
                    gradient_norm: 0.6 + 0.5 * noise(&mut seed),
                    tokens_per_second: 1150.0 + 150.0 * noise(&mut seed),
                    peak_device_bytes: 734_003_200,
                    seconds: 14.4 * step as f64,
                }
            })
            .collect()
    }

    fn map(certainty: f64, seed: u64) -> Landscape {
        let mut seed = seed;
        let mut map = Landscape::default();
        for _ in 0..20_000 {
            let p = noise(&mut seed).powf(certainty);
            let entropy = Landscape::lower_bound(p) + 3.0 * noise(&mut seed).powi(3) * (1.1 - p);
            let weight = (entropy / 3.0).min(1.0) as f32;
            let row = RowStats {
                ce: -(p.max(1e-9).ln() as f32),
                entropy_top_k: entropy as f32,
                entropy_tokens: 20,
                entropy_full: entropy as f32,
                collision: 0.5,
            };
            map.add(&row, weight);
        }
        map
    }

    fn ledger() -> Ledger {
        let arch = Shape::named("qwen3-0.6b").unwrap().architecture(Some(2));
        let config = Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "run.toml", &[]).unwrap();
        let (way, load) = (Execution::resident(Keep::Inputs), Load::most(&config));
        Ledger::new(&config, &arch, None, 1, load, Site::of(&Device::cpu()), way)
    }

    #[test]
    fn the_planned_memory_is_drawn_moment_by_moment_with_every_kind_that_is_held() {
        let (html, ledger) = (full(), ledger());
        let figure = &html[html.find("aria-label=\"CPU\"").expect("the plot")..];
        let figure = &figure[..figure.find("</svg>").unwrap()];
        for entry in &ledger.moments {
            assert!(figure.contains(entry.moment.words()), "{}", entry.moment.words());
        }
        let bars: usize =
            ledger.moments.iter().map(|e| Kind::ALL.iter().filter(|k| e.device.of(**k) > 0).count()).sum();
        let drawn = KINDS.map(|colour| figure.matches(&css(colour).to_uppercase()).count());
        assert_eq!(drawn.iter().sum::<usize>(), bars, "{drawn:?}");
        assert!(html.contains("MiB at most, in ") || html.contains("GiB at most, in "));
    }

    fn full() -> String {
        let (summary, landscapes) = (summary(), Landscapes { before: Some(map(0.7, 1)), after: Some(map(0.35, 2)) });
        let report = Report {
            config: "[model]\npath = \"<b>m</b>\"\n",
            summary: &summary,
            metrics: &metrics(0.85, true),
            baseline: &metrics(0.8, false),
            history: &history(3),
            landscapes: &landscapes,
            baseline_landscape: Some(&map(0.3, 3)),
            memory: &[("CPU".into(), &ledger())],
        };
        render(&report).unwrap()
    }

    fn history(evaluations: u64) -> Vec<Evaluated> {
        let set = |loss| Some(Evaluation::from_sum(loss, 1));
        let phase = Phase::During;
        (0..evaluations)
            .map(|n| Evaluated { phase, step: 10 * n, target: set(3.0 - n as f64), general: set(3.0), wrong: None })
            .collect()
    }

    #[test]
    fn evaluations_during_training_are_drawn_and_those_before_and_after_are_not() {
        assert!(full().contains("Held-out loss"));
    }

    #[test]
    fn a_report_is_one_file_that_asks_the_network_for_nothing() {
        let html = full();
        if let Some(path) = std::env::var_os("TEMPER_SAMPLE_REPORT") {
            std::fs::write(path, &html).unwrap();
        }
        for outside in ["src=", "href=", "url(", "@import", "<script", "http"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.len() < 2_000_000, "{} bytes", html.len());
    }

    /// plotters never ends where an axis is infinite.
    #[test]
    fn a_run_whose_perplexity_is_beyond_all_numbers_has_a_report() {
        let mut summary = summary();
        let beyond = Some(Evaluation::from_sum(1e6, 10));
        summary.retention.after = Measured { target: beyond, general: beyond, wrong: beyond };
        let flat = StepMetrics { step: 1, ..StepMetrics::default() };
        let steps = [flat.clone(), StepMetrics { step: 2, loss: f64::MAX, gradient_norm: 1e99, ..flat }];
        let report = Report {
            config: "",
            summary: &summary,
            metrics: &steps,
            baseline: &[],
            history: &[],
            landscapes: &Landscapes::default(),
            baseline_landscape: None,
            memory: &[],
        };
        let html = render(&report).unwrap();
        assert!(html.contains("1.798e308") && html.contains("100000.0000"), "the table has the numbers");
        // A change of so much is no number that anybody reads digit by digit.
        assert!(!html.contains(&"0".repeat(30)));
    }

    #[test]
    fn what_the_run_warned_of_stands_at_the_top() {
        let html = full();
        let warning = html.find("Warning: eaft has diverged &lt;b&gt;.").expect("the warning");
        assert!(warning < html.find("What was learned").unwrap());
    }

    #[test]
    fn the_shares_of_several_files_are_said_with_what_was_left_out_of_each() {
        let file = |file: &str, share: f64, left_out_documents: usize| FileShare {
            file: file.into(),
            share,
            documents: 100,
            trained_tokens: 1,
            left_out_documents,
            left_out_trained_tokens: 1,
        };
        let shares = vec![file("a.jsonl", 0.7, 0), file("b.jsonl", 0.3, 1_100)];
        let said = facts(&Summary { shares, ..summary() });
        let said = said.iter().find(|fact| fact.name == "Shares of trained tokens").expect("the fact");
        assert_eq!(said.value, "a.jsonl 70.0 %, b.jsonl 30.0 % (1,100 of 1,200 documents left out)");
        assert!(facts(&summary()).iter().all(|fact| !fact.name.contains("Shares")));
    }

    #[test]
    fn what_users_name_is_escaped() {
        let html = full();
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;co&quot;"));
        assert!(html.contains("&lt;b&gt;m&lt;/b&gt;"));
    }

    #[test]
    fn a_full_report_has_every_plot_and_balanced_tags() {
        let html = full();
        assert_eq!(html.matches("<svg ").count(), 13, "race, eight curves, three maps, memory");
        for tag in ["svg", "figure", "table", "tr", "td", "th", "div", "p", "details"] {
            let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        for colour in [INK, SOFT, LINE, MAIN, SECOND, BASE, WARN] {
            let attribute = format!("\"#{0:02X}{0:02X}{0:02X}\"", colour.0);
            assert!(html.contains(&format!("[fill={attribute}]")), "the style sheet maps {attribute}");
            assert!(html.matches(&attribute).count() > 2, "a plot uses {attribute}");
        }
    }

    #[test]
    fn a_run_with_nothing_to_show_still_has_a_report() {
        let mut summary = summary();
        summary.retention = Retention::default();
        let report = Report {
            config: "",
            summary: &summary,
            metrics: &[],
            baseline: &[],
            history: &history(2),
            landscapes: &Landscapes::default(),
            baseline_landscape: None,
            memory: &[],
        };
        let html = render(&report).unwrap();
        assert!(html.contains("No step was logged") && !html.contains("NaN") && !html.contains("Held-out loss"));
        assert!(retention_table(&summary).columns.is_empty() && !html.contains("<td>-</td>"));
        summary.retention.after.general = Some(Evaluation::from_sum(1.0, 1));
        let table = retention_table(&summary);
        let columns = ["general loss (nats/token)", "general perplexity", "change"];
        assert_eq!(table.columns, columns);
        assert_eq!(table.rows[1].cells[..2], ["1.0000", "2.718"]);
    }

    #[test]
    fn values_that_are_not_finite_or_all_equal_break_no_plot() {
        let poisoned = StepMetrics { step: 2, loss: f64::NAN, gradient_norm: f64::INFINITY, ..StepMetrics::default() };
        let flat = StepMetrics { step: 1, ..StepMetrics::default() };
        let summary = summary();
        for metrics in [vec![flat.clone()], vec![flat, poisoned]] {
            let report = Report {
                config: "",
                summary: &summary,
                metrics: &metrics,
                baseline: &[],
                history: &[],
                landscapes: &Landscapes { before: Some(Landscape::default()), after: None },
                baseline_landscape: None,
                memory: &[],
            };
            let drawn = render(&report).unwrap();
            let plots: String = drawn.split("<svg ").skip(1).collect();
            assert!(!plots.split("</svg>").any(|plot| plot.contains("points=\"NaN") || plot.contains("=\"inf")));
        }
        assert_eq!(padded([f64::NAN].into_iter(), 0.1), 0.0..1.0);
        let flat = padded([5.0].into_iter(), 0.1);
        assert!(flat.start < 5.0 && flat.end > 5.0);
    }

    #[test]
    fn a_long_run_is_averaged_down_to_a_readable_number_of_points() {
        let points: Vec<_> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        let thin = thinned(points);
        assert!((POINTS / 2..=POINTS).contains(&thin.len()) && thin.iter().all(|p| p.1 == 1.0));
        assert_eq!(thinned(vec![(1.0, 2.0), (2.0, f64::NAN)]), [(1.0, 2.0)]);
    }
}
