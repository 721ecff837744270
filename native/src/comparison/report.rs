//! What a comparison says: in words, as tables and as pictures, in one HTML file and one of Markdown.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;
use plotters::prelude::*;
use serde::Serialize;
use temper_engine::Evaluation;
use temper_engine::events::{Evaluated, Landscape, StepMetrics};
use temper_engine::words::counted;

use super::frontier::{self, Difference, Frontier, Path};
use super::{Grid, Measure, Point};
use crate::figures::{
    BLUE, By, COPPER, Chart, Figure, GREEN, GREY, Key, MAP_SIZE, OLIVE, PINK, RED, Root, Row, SIZE, SKY, SOFT, STYLE,
    Table, VIOLET, axes, css, draw, landscape, padded, svg,
};
use crate::progress::change;
use crate::run_folder::{Landscapes, Summary};
use crate::templates;

/// A run that came to its end.
pub struct Done<'a> {
    /// Its place in the grid.
    pub point: &'a Point,
    /// Its path.
    pub path: Path,
    /// What was measured on the way, both ends included.
    pub history: Vec<Evaluated>,
    /// Its logged steps.
    pub metrics: Vec<StepMetrics>,
    /// What came out.
    pub summary: Summary,
    /// Its training tokens before and after.
    pub landscapes: Landscapes,
}

/// Colours of variants; what comes after has them once more, dashed.
const COLOURS: [RGBColor; 9] = [COPPER, BLUE, GREEN, VIOLET, RED, OLIVE, PINK, SKY, GREY];
/// Of more variants bands would hide each other, of more runs their own paths.
const MOST_BANDS: usize = 6;
const MOST_PATHS: usize = 60;

/// Name of the frontier's file.
pub const PICTURE: &str = "frontier.svg";
/// Points of a frontier's line.
const LINE: usize = 60;

fn colour(variant: usize) -> RGBColor {
    COLOURS[variant % COLOURS.len()]
}

fn is_dashed(variant: usize) -> bool {
    variant >= COLOURS.len()
}

/// A variant's line.
fn trace(chart: &mut Chart, variant: usize, points: Vec<(f64, f64)>, width: u32) -> Result<()> {
    let style = colour(variant).stroke_width(width);
    match is_dashed(variant) {
        false => draw(chart.draw_series(LineSeries::new(points, style)))?,
        true => draw(chart.draw_series(DashedLineSeries::new(points, 5, 3, style)))?,
    };
    Ok(())
}

/// What the template shows.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    title: &'a str,
    subtitle: String,
    question: &'static str,
    answer: &'a [String],
    frontier: Option<Figure>,
    about_frontier: String,
    about_differences: String,
    differences: Table,
    ends: Table,
    curves: Vec<Figure>,
    landscapes: Vec<Figure>,
    gates: Vec<Key>,
    pulls: Vec<Figure>,
    pull_keys: Vec<Key>,
    method: String,
    config: String,
}

/// A report in its forms.
pub struct Rendered {
    /// In a few sentences, with the differences.
    pub answer: String,
    /// With pictures.
    pub html: String,
    /// The same without them.
    pub markdown: String,
    /// The frontier, as SVG; none where nothing was measured.
    pub picture: Option<String>,
    /// All measured points of all runs, as CSV.
    pub paths: String,
    /// For scripts.
    pub numbers: serde_json::Value,
}

/// Makes the report.
///
/// # Errors
/// Only if a plot cannot be drawn, which no data can cause.
pub fn render(title: &str, grid: &Grid, done: &[&Done]) -> Result<Rendered> {
    let paths: Vec<Path> = done.iter().map(|run| run.path.clone()).collect();
    let frontier = Frontier::new(&paths);
    let compared = compared(grid, &frontier);
    let numbers = numbers(grid, done, &frontier, &compared);
    let drawn = drawn_frontier(grid, &frontier, &paths)?;
    let picture = drawn.as_ref().map(Figure::standalone);
    let answer = answer(grid, &frontier, &compared);
    let subtitle = subtitle(grid, done);
    let method = method(grid, done);
    let (differences, ends) = (differences(grid, &frontier, &compared), ends(grid, done));
    let mut said = answer.join("\n\n");
    if !differences.rows.is_empty() {
        let table = plain(&differences);
        // Writing to a string cannot fail.
        let _ = write!(said, "\n\n{}\n\n{}", about_differences(grid), table.trim_end());
    }
    let markdown = format!(
        "# {title}\n\n{subtitle}\n\n## {}\n\n{}{said}\n\n## Where each run ended\n\n{}\n\
         ## How it was made\n\n{method}\n",
        question(grid),
        if picture.is_some() { format!("![Learned against lost]({PICTURE})\n\n") } else { String::new() },
        plain(&ends)
    );
    let chosen: Vec<Vec<&Done>> = (0..grid.variants.len()).map(|variant| chosen(&frontier, variant, done)).collect();
    let page = Page {
        style: STYLE,
        title,
        subtitle,
        question: question(grid),
        answer: &answer,
        frontier: drawn,
        about_frontier: about_frontier(grid),
        about_differences: about_differences(grid),
        differences,
        ends,
        curves: curves(grid, &chosen)?,
        landscapes: landscapes(grid, &chosen)?,
        gates: By::Gate.keys(),
        pulls: pulls(grid, &chosen)?,
        pull_keys: By::Gradient.keys(),
        method,
        config: grid.base.to_toml(),
    };
    let html = templates::render("comparison.html", page)?;
    Ok(Rendered { answer: said, html, markdown, picture, paths: csv(grid, done), numbers })
}

fn subtitle(grid: &Grid, done: &[&Done]) -> String {
    let distinct = |of: fn(&Point) -> &str| done.iter().map(|run| of(run.point)).collect::<BTreeSet<_>>().len();
    let (seeds, settings) = (distinct(|point| &point.seed), distinct(|point| &point.setting));
    let about = done.first().map_or(String::new(), |run| {
        format!("; {} on {}; Temper {}", run.summary.started.model, run.summary.started.device, run.summary.temper)
    });
    format!(
        "{} of {}: {}, {}, {}{about}",
        done.len(),
        counted(grid.points.len(), "run"),
        counted(grid.variants.len(), "variant"),
        counted(settings, "setting"),
        counted(seeds, "seed")
    )
}

fn question(grid: &Grid) -> &'static str {
    match grid.measure {
        Measure::General => "Which forgets less at equal learning?",
        Measure::Truth => "Which keeps more of the truth where as much of the wrong was learned?",
    }
}

fn method(grid: &Grid, done: &[&Done]) -> String {
    let (learned, kept) = (grid.measure.learned(), grid.measure.kept());
    let sets = match grid.measure {
        Measure::General => "the target and the general set",
        Measure::Truth => "the truth, the wrong labels and the general set",
    };
    let run = &grid.base.run;
    let often = match run.eval_every {
        0 => format!("after each of {} equal parts", run.evaluations),
        1 => "after each step".into(),
        every => format!("every {every} steps"),
    };
    format!(
        "All runs start from the same model and see the same data, in an order that the seed decides. Each is measured on {sets} before \
         training, {often}, and after it. A variant's frontier is the least {kept}, over its settings and all its measured steps \
         with straight lines between them, at which a {learned} was reached. No checkpoint is chosen for it.{}",
        match done.iter().any(|run| run.summary.selected.is_some()) {
            true =>
                " Runs that chose their result (run.keep_best) show that step where it says where each ended, and in the maps.",
            false => "",
        }
    )
}

fn about_frontier(grid: &Grid) -> String {
    format!(
        "Across: nats per token that the {} came down. Up: nats per token that the {} rose. Lower is better. A line is a variant's \
         best over its settings, mean of its seeds{}.{}",
        grid.measure.learned(),
        grid.measure.kept(),
        if grid.variants.len() <= MOST_BANDS { "; its band goes from the best to the worst seed" } else { "" },
        if grid.points.len() <= MOST_PATHS { " Thin lines are the runs." } else { "" }
    )
}

fn about_differences(grid: &Grid) -> String {
    format!(
        "The {} where both had the same {}, less that of {}: below 0 {}. The interval is that of the mean over seeds, in pairs \
         (Student's t).",
        grid.measure.kept(),
        grid.measure.learned(),
        grid.variants[0].name,
        grid.measure.lost("less")
    )
}

/// A variant against the first one, with the share of the way at which they are compared, all of it first.
struct Compared {
    variant: usize,
    at: Vec<(f64, Difference)>,
}

fn compared(grid: &Grid, frontier: &Frontier) -> Vec<Compared> {
    let of = |variant: usize| {
        let levels = frontier.levels(variant, 0).into_iter();
        let at = levels.filter_map(|(share, learned)| Some((share, frontier.difference(variant, 0, learned)?)));
        Compared { variant, at: at.collect() }
    };
    (1..grid.variants.len()).map(of).collect()
}

/// In words, each other variant against the first one, at the lowest loss that both reached.
fn answer(grid: &Grid, frontier: &Frontier, compared: &[Compared]) -> Vec<String> {
    let name = |variant: usize| grid.variants[variant].name.as_str();
    let (learned, first) = (grid.measure.learned(), name(0));
    let Some(start) = frontier.start() else {
        return vec![
            "No run was measured on what is learned and on what is to be kept, so that nothing can be compared.".into(),
        ];
    };
    if grid.variants.len() == 1 {
        return vec!["There is one variant, and nothing to compare it with.".into()];
    }
    let mut said = vec![format!(
        "Each is compared with {first} at the lowest {learned} that both reached with every seed, down from {:.3} nats per token.",
        start.learned
    )];
    let sentences = compared.iter().map(|Compared { variant, at }| match at.first() {
        Some((_, found)) => sentence(grid, *variant, found, &at[1..]),
        None if frontier.reached_by(&[*variant, 0]).is_some() => {
            format!("{} and {first} have no seed in common.", name(*variant))
        }
        None => format!(
            "{} or {first} never came below the {learned} it started with: there is no equal learning.",
            name(*variant)
        ),
    });
    said.extend(sentences);
    said
}

/// Of a variant where both learned most; `earlier` is where they had learned less, with the shares of the way.
fn sentence(grid: &Grid, variant: usize, found: &Difference, earlier: &[(f64, Difference)]) -> String {
    let n = found.each.len();
    let (one, other, kept) = (&grid.variants[variant].name, &grid.variants[0].name, grid.measure.kept());
    // Where the seeds showed before that it lost less, or more.
    let shown = |less: bool| {
        let so = |(_, at): &&(f64, Difference)| at.is_beyond_spread() && (at.mean < 0.0) == less;
        let shares = earlier.iter().filter(so).map(|(share, _)| format!("{:.0} %", 100.0 * share));
        Some(shares.collect::<Vec<_>>().join(" and ")).filter(|shares| !shares.is_empty())
    };
    // No more than the seeds can show.
    let claim = match found.is_beyond_spread() {
        true => {
            let [how, opposite] = if found.mean < 0.0 { ["less", "more"] } else { ["more", "less"] };
            let but = shown(found.mean >= 0.0).map(|shares| format!(", but {opposite} at {shares} of the way"));
            format!("{one} {} than {other}{}", grid.measure.lost(how), but.unwrap_or_default())
        }
        false => {
            let before = [("less", true), ("more", false)].into_iter().filter_map(|(how, less)| {
                Some(format!("{one} {} at {} of the way", grid.measure.lost(how), shown(less)?))
            });
            let before = before.collect::<Vec<_>>().join(", and ");
            let but = if before.is_empty() { String::new() } else { format!(", but {before}") };
            format!("Between {one} and {other} there is no difference that {} can show{but}", counted(n, "seed"))
        }
    };
    let alike = found.each.iter().all(|d| *d < 0.0) || found.each.iter().all(|d| *d > 0.0);
    let spread = match (n, found.is_beyond_spread()) {
        (1, _) => "one seed, so nothing is known of the spread".to_string(),
        (2, _) => "two seeds, too few to know the spread".into(),
        (_, true) if alike => format!(
            "beyond the spread of {n} seeds, which all agree (by chance alone they would in one case of {})",
            1_u64 << (n - 1).min(62)
        ),
        (_, true) => format!("beyond the spread of {n} seeds"),
        (_, false) => format!("within the spread of {n} seeds"),
    };
    let interval = match found.interval {
        None => String::new(),
        Some([low, high]) => format!("; 95 % from {low:+.3} to {high:+.3}"),
    };
    format!(
        "{claim}: at {:.3}, {kept} {:.3} against {:.3} ({:+.3} nats per token{interval}), {spread}.",
        found.learned, found.kept[0], found.kept[1], found.mean
    )
}

fn differences(grid: &Grid, frontier: &Frontier, compared: &[Compared]) -> Table {
    let row = |variant: usize, (share, found): &(f64, Difference)| {
        let learned = found.learned;
        let each = found.each.iter().map(|d| format!("{d:+.3}")).collect::<Vec<_>>().join(", ");
        let setting = frontier.best_setting(variant, learned).map_or(String::new(), |(setting, n, of)| match n == of {
            true => setting.to_string(),
            false => format!("{setting} ({n} of {of} seeds)"),
        });
        let cells = vec![
            format!("{learned:.3} ({:.0} %)", 100.0 * share),
            format!("{:.3}", found.kept[0]),
            format!("{:+.3}", found.mean),
            found.interval.map_or("one seed".into(), |[low, high]| format!("{low:+.3} to {high:+.3}")),
            each,
            setting,
        ];
        Row { name: grid.variants[variant].name.clone(), cells }
    };
    let rows = compared.iter().flat_map(|one| one.at.iter().map(|at| row(one.variant, at)));
    Table {
        columns: match grid.measure {
            Measure::General => {
                vec!["target loss", "general loss", "difference", "95 % interval", "seed by seed", "with"]
            }
            Measure::Truth => {
                vec!["loss on the wrong", "loss on the truth", "difference", "95 % interval", "seed by seed", "with"]
            }
        },
        rows: rows.collect(),
    }
}

/// Mean and standard deviation over seeds.
fn spread(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
    if values.len() > 1 { format!("{mean:.4} ± {deviation:.4}") } else { format!("{mean:.4}") }
}

fn ends(grid: &Grid, done: &[&Done]) -> Table {
    let mut rows: Vec<Row> = Vec::new();
    type Of = fn(&Done) -> (Option<Evaluation>, Option<Evaluation>);
    let sets: [Of; 3] = [
        |run| (run.summary.retention.before.target, run.summary.retention.after.target),
        |run| (run.summary.retention.before.general, run.summary.retention.after.general),
        |run| (run.summary.retention.before.wrong, run.summary.retention.after.wrong),
    ];
    let cells = |runs: &[&Done]| -> Vec<String> {
        let of = |of: &Of| -> [String; 2] {
            let both: Vec<(Evaluation, Evaluation)> =
                runs.iter().map(|run| of(run)).filter_map(|(a, b)| Some((a?, b?))).collect();
            if both.is_empty() {
                return ["-".into(), "-".into()];
            }
            let mean = |of: fn(&(Evaluation, Evaluation)) -> f64| both.iter().map(of).sum::<f64>() / both.len() as f64;
            let after: Vec<f64> = both.iter().map(|pair| pair.1.loss).collect();
            [spread(&after), change(mean(|pair| pair.0.loss).exp(), mean(|pair| pair.1.loss).exp())]
        };
        let gate = runs.iter().map(|run| mean_gate(&run.metrics)).sum::<f64>() / runs.len().max(1) as f64;
        sets.iter().flat_map(of).chain([format!("{gate:.3}"), runs.len().to_string()]).collect()
    };
    if let Some(first) = done.first() {
        let before = |of: &Of| of(first).0.map_or("-".to_string(), |set| format!("{:.4}", set.loss));
        let cells =
            sets.iter().flat_map(|of| [before(of), String::new()]).chain([String::new(), String::new()]).collect();
        rows.push(Row { name: "before".into(), cells });
    }
    for (variant, own) in grid.variants.iter().enumerate() {
        let mut settings: Vec<&str> = Vec::new();
        for run in done.iter().filter(|run| run.point.variant == variant) {
            if !settings.contains(&run.point.setting.as_str()) {
                settings.push(&run.point.setting);
            }
        }
        for setting in settings {
            let of = |run: &&Done| run.point.variant == variant && run.point.setting == setting;
            let runs: Vec<&Done> = done.iter().copied().filter(of).collect();
            let name = format!("{} {setting}", own.name).trim_end().to_string();
            rows.push(Row { name, cells: cells(&runs) });
        }
    }
    Table {
        columns: vec![
            "target loss",
            "perplexity",
            "general loss",
            "perplexity",
            "wrong loss",
            "perplexity",
            "mean gate of the run",
            "seeds",
        ],
        rows,
    }
}

fn mean_gate(metrics: &[StepMetrics]) -> f64 {
    metrics.iter().map(|m| m.gate_mean).sum::<f64>() / metrics.len().max(1) as f64
}

/// A table of Markdown.
fn plain(table: &Table) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let head = line(&mut std::iter::once(String::new()).chain(table.columns.iter().map(|c| c.to_string())));
    let rule = line(&mut std::iter::repeat_n("---".to_string(), table.columns.len() + 1));
    let row = |row: &Row| line(&mut std::iter::once(row.name.clone()).chain(row.cells.iter().cloned()));
    table.rows.iter().fold(head + &rule, |text, one| text + &row(one))
}

/// Runs of a variant with the setting that kept most.
fn chosen<'a>(frontier: &Frontier, variant: usize, done: &[&'a Done<'a>]) -> Vec<&'a Done<'a>> {
    let own = done.iter().copied().filter(|run| run.point.variant == variant);
    let best = frontier.reached_by(&[variant, 0]).and_then(|lowest| frontier.best_setting(variant, lowest));
    match best {
        Some((setting, ..)) => own.filter(|run| run.point.setting == setting).collect(),
        None => own.collect(),
    }
}

/// Nats learned and nats forgotten.
fn drawn_frontier(grid: &Grid, frontier: &Frontier, paths: &[Path]) -> Result<Option<Figure>> {
    let Some(start) = frontier.start() else { return Ok(None) };
    let moved = |p: &frontier::Point| (start.learned - p.learned, p.kept - start.kept);
    let lines: Vec<Vec<(f64, f64)>> = paths
        .iter()
        .map(|path| path.points.iter().map(moved).filter(|p| p.0.is_finite() && p.1.is_finite()).collect())
        .collect();
    let most = lines.iter().flatten().map(|p| p.0).fold(0.0, f64::max);
    let band = |variant: usize| -> Vec<[f64; 4]> {
        let at = |step: usize| {
            let learned = most * step as f64 / LINE as f64;
            let kept: Option<Vec<f64>> = frontier.kept(variant, start.learned - learned).into_iter().collect();
            let kept: Vec<f64> = kept?.iter().map(|loss| loss - start.kept).collect();
            let fold = |of: fn(f64, f64) -> f64| kept.iter().copied().reduce(of);
            let mean = kept.iter().sum::<f64>() / kept.len().max(1) as f64;
            Some([learned, mean, fold(f64::min)?, fold(f64::max)?])
        };
        (0..=LINE).filter_map(at).collect()
    };
    let bands: Vec<Vec<[f64; 4]>> = (0..grid.variants.len()).map(band).collect();
    // Runs that went far astray would leave no room for the others: a frontier has none of that.
    let x = padded([0.0, most].into_iter(), 0.06);
    let y = padded(bands.iter().flatten().flat_map(|p| [p[2], p[3]]).chain([0.0]), 0.06);
    let inside = |p: &(f64, f64)| x.contains(&p.0) && y.contains(&p.1);
    let (title, unit) = match grid.measure {
        Measure::General => ("Learned against forgotten", "best is right and down: learned, and nothing forgotten"),
        Measure::Truth => {
            ("Wrong learned against truth lost", "lower is better: less of the truth lost for the same wrong")
        }
    };
    let drawn = svg(MAP_SIZE, title, |root: &Root| {
        let mut chart = axes(
            root,
            x.clone(),
            y.clone(),
            &format!("learned: {} came down by (nats)", grid.measure.learned()),
            &format!("lost: {} rose by (nats)", grid.measure.kept()),
        )?;
        draw(chart.draw_series(DashedLineSeries::new(vec![(x.start, 0.0), (x.end, 0.0)], 4, 4, SOFT.stroke_width(1))))?;
        for (path, line) in paths.iter().zip(&lines).filter(|_| grid.points.len() <= MOST_PATHS) {
            let line: Vec<_> = line.iter().copied().take_while(&inside).collect();
            draw(chart.draw_series(LineSeries::new(line, colour(path.variant).mix(0.3).stroke_width(1))))?;
        }
        for (variant, band) in bands.iter().enumerate() {
            if grid.variants.len() <= MOST_BANDS {
                let edge = band.iter().map(|p| (p[0], p[2])).chain(band.iter().rev().map(|p| (p[0], p[3])));
                draw(chart.draw_series([Polygon::new(edge.collect::<Vec<_>>(), colour(variant).mix(0.18).filled())]))?;
            }
            trace(&mut chart, variant, band.iter().map(|p| (p[0], p[1])).collect(), 3)?;
        }
        Ok(())
    })?;
    Ok(Some(Figure { title: title.into(), unit: unit.into(), keys: keys(grid), svg: drawn }))
}

fn keys(grid: &Grid) -> Vec<Key> {
    let key = |(variant, own): (usize, &super::Variant)| Key {
        name: own.name.clone(),
        colour: css(colour(variant)),
        dashed: is_dashed(variant),
    };
    grid.variants.iter().enumerate().map(key).collect()
}

/// Means over seeds, step by step.
fn curves(grid: &Grid, chosen: &[Vec<&Done>]) -> Result<Vec<Figure>> {
    type Points = Vec<(f64, f64)>;
    type OfRun = Box<dyn Fn(&Done) -> Points>;
    let measured = |of: fn(&Evaluated) -> Option<Evaluation>| -> OfRun {
        Box::new(move |run| run.history.iter().filter_map(|e| Some((e.step as f64, of(e)?.loss))).collect())
    };
    let logged = |of: fn(&StepMetrics) -> f64| -> OfRun {
        Box::new(move |run| run.metrics.iter().map(|m| (m.step as f64, of(m))).collect())
    };
    let figures: [(&str, &str, OfRun); 8] = [
        ("Target loss", "nats per token", measured(|e| e.target)),
        ("General loss", "nats per token", measured(|e| e.general)),
        ("Loss on wrong labels", "nats per token; lower: more of the wrong was learned", measured(|e| e.wrong)),
        ("Gate", "mean weight of a trained token", logged(|m| m.gate_mean)),
        ("Confident conflicts", "percent of trained tokens", logged(|m| 100.0 * m.conflict_share)),
        (
            "Loss of sure tokens",
            "nats per trained token whose entropy is then at most 0.5 nats",
            logged(|m| m.sure_cross_entropy.unwrap_or(f64::NAN)),
        ),
        (
            "Loss of open tokens",
            "nats per trained token whose entropy is then at least 2 nats",
            logged(|m| m.open_cross_entropy.unwrap_or(f64::NAN)),
        ),
        ("Gradient norm", "global, before clipping", logged(|m| m.gradient_norm)),
    ];
    let mut drawn = Vec::new();
    for (title, unit, of) in figures {
        let lines: Vec<Points> =
            chosen.iter().map(|runs| mean_line(runs.iter().map(|run| of(run)).collect())).collect();
        let all = || lines.iter().flatten();
        if all().next().is_none() {
            continue;
        }
        let (x, y) = (padded(all().map(|p| p.0), 0.0), padded(all().map(|p| p.1), 0.06));
        let svg = svg(SIZE, title, |root| {
            let mut chart = axes(root, x, y, "step", "")?;
            for (variant, line) in lines.iter().enumerate() {
                trace(&mut chart, variant, line.clone(), 2)?;
            }
            Ok(())
        })?;
        drawn.push(Figure { title: title.into(), unit: unit.into(), keys: keys(grid), svg });
    }
    Ok(drawn)
}

/// The mean of lines at the steps that all have, of what is finite.
fn mean_line(lines: Vec<Vec<(f64, f64)>>) -> Vec<(f64, f64)> {
    let Some((first, others)) = lines.split_first() else { return Vec::new() };
    let at = |(x, y): &(f64, f64)| {
        let same = |line: &Vec<(f64, f64)>| line.iter().find(|p| p.0 == *x).map(|p| p.1);
        let rest: Option<Vec<f64>> = others.iter().map(same).collect();
        let mean = (y + rest?.iter().sum::<f64>()) / lines.len() as f64;
        mean.is_finite().then_some((*x, mean))
    };
    first.iter().filter_map(at).collect()
}

fn landscapes(grid: &Grid, chosen: &[Vec<&Done>]) -> Result<Vec<Figure>> {
    let of = |runs: &Vec<&Done>| runs.first().map(|run| run.landscapes.clone());
    let before = chosen.iter().find_map(of).and_then(|maps| maps.before);
    let after = chosen
        .iter()
        .enumerate()
        .filter_map(|(variant, runs)| Some((format!("after {}", grid.variants[variant].name), of(runs)?.after?)));
    let maps: Vec<(String, Landscape)> =
        before.map(|map| ("before".to_string(), map)).into_iter().chain(after).collect();
    maps.iter().filter(|(_, map)| map.tokens() > 0).map(|(name, map)| landscape(name, map, By::Gate)).collect()
}

/// How hard each variant pulls at the tokens before it has moved anything: the paper's Figure 3.
fn pulls(grid: &Grid, chosen: &[Vec<&Done>]) -> Result<Vec<Figure>> {
    let of = |(variant, runs): (usize, &Vec<&Done>)| {
        let map = runs.first()?.landscapes.before.as_ref()?;
        let counted = map.tokens() > 0 && !map.gradient_sums.is_empty();
        counted.then(|| landscape(&grid.variants[variant].name, map, By::Gradient))
    };
    chosen.iter().enumerate().filter_map(of).collect()
}

/// A line a measured point.
fn csv(grid: &Grid, done: &[&Done]) -> String {
    let mut text = String::from("variant,setting,seed,step,target_loss,general_loss,wrong_loss\n");
    let quoted = |name: &str| match name.contains([',', '"']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_string(),
    };
    let loss = |set: Option<Evaluation>| set.map_or(String::new(), |set| format!("{:.5}", set.loss));
    for run in done {
        let Point { variant, setting, seed, .. } = run.point;
        let name = quoted(&grid.variants[*variant].name);
        for at in &run.history {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name},{},{seed},{},{},{},{}",
                quoted(setting),
                at.step,
                loss(at.target),
                loss(at.general),
                loss(at.wrong)
            );
        }
    }
    text
}

/// The frontier's numbers.
fn numbers(grid: &Grid, done: &[&Done], frontier: &Frontier, compared: &[Compared]) -> serde_json::Value {
    let differences = compared.iter().map(|Compared { variant, at }| {
        let at: Vec<&Difference> = at.iter().map(|(_, found)| found).collect();
        serde_json::json!({ "variant": grid.variants[*variant].name, "against": grid.variants[0].name, "at": at })
    });
    serde_json::json!({
        "variants": grid.variants.iter().map(|variant| &variant.name).collect::<Vec<_>>(),
        "runs": done.iter().map(|run| serde_json::json!({ "run": run.point.name, "path": run.path })).collect::<Vec<_>>(),
        "measure": grid.measure,
        "start": frontier.start(),
        "differences": differences.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\ntarget = \"a\"\ngeneral = \"g\"\n[run]\nsteps = 4\n";

    #[test]
    fn a_headline_claims_no_more_than_its_interval() {
        let vary = [("objective.method".to_string(), "sft,eaft".to_string())];
        let grid = Grid::of(TEXT, "c.toml", &[], &vary).unwrap();
        let said = |each: &[f64], interval: Option<[f64; 2]>| {
            let mean = each.iter().sum::<f64>() / each.len() as f64;
            let found = Difference { learned: 2.0, kept: [3.0 + mean, 3.0], each: each.into(), mean, interval };
            sentence(&grid, 1, &found, &[])
        };
        let less = said(&[-0.1, -0.12, -0.11], Some([-0.135, -0.085]));
        assert!(less.starts_with("eaft forgot less than sft: at 2.000, general loss 2.890 against 3.000"), "{less}");
        let more = said(&[0.1, 0.12, 0.11], Some([0.085, 0.135]));
        assert!(more.starts_with("eaft forgot more than sft: ") && more.contains("which all agree"), "{more}");
        for (each, interval, seeds) in [
            (&[0.1][..], None, "1 seed"),
            (&[0.1, 0.2], Some([-0.49, 0.79]), "2 seeds"),
            (&[0.1, -0.1, 0.2], Some([-0.31, 0.45]), "3 seeds"),
        ] {
            let found = said(each, interval);
            let claim = format!("Between eaft and sft there is no difference that {seeds} can show: at 2.000, ");
            assert!(found.starts_with(&claim) && !found.contains("forgot"), "{found}");
        }
    }

    #[test]
    fn a_headline_says_where_it_was_the_other_way_before() {
        let vary = [("objective.method".to_string(), "sft,eaft".to_string())];
        let grid = Grid::of(TEXT, "c.toml", &[], &vary).unwrap();
        let of = |mean: f64, half: f64| Difference {
            learned: 2.0,
            kept: [3.0 + mean, 3.0],
            each: vec![mean; 3],
            mean,
            interval: Some([mean - half, mean + half]),
        };
        let said = |earlier: [Difference; 2]| {
            let [one, other] = earlier;
            sentence(&grid, 1, &of(-0.1, 0.05), &[(0.75, one), (0.5, other)])
        };
        for (earlier, claim) in [
            ([of(0.1, 0.05), of(0.1, 0.2)], "eaft forgot less than sft, but more at 75 % of the way: at 2.000, "),
            ([of(0.1, 0.05), of(0.2, 0.1)], "eaft forgot less than sft, but more at 75 % and 50 % of the way: at "),
            ([of(-0.1, 0.05), of(0.1, 0.2)], "eaft forgot less than sft: at 2.000, "),
        ] {
            let found = said(earlier);
            assert!(found.starts_with(claim), "{found}");
        }
        let unsure = |earlier: [Difference; 2]| {
            let [one, other] = earlier;
            sentence(&grid, 1, &of(-0.1, 0.2), &[(0.75, one), (0.5, other)])
        };
        let none = "Between eaft and sft there is no difference that 3 seeds can show";
        for (earlier, claim) in [
            ([of(-0.1, 0.05), of(-0.2, 0.1)], ", but eaft forgot less at 75 % and 50 % of the way: at 2.000, "),
            (
                [of(-0.1, 0.05), of(0.2, 0.1)],
                ", but eaft forgot less at 75 % of the way, and eaft forgot more at 50 % of the way: at 2.000, ",
            ),
            ([of(0.1, 0.2), of(-0.1, 0.2)], ": at 2.000, "),
        ] {
            let found = unsure(earlier);
            assert!(found.starts_with(&format!("{none}{claim}")), "{found}");
        }
    }

    #[test]
    fn what_a_table_says_of_its_interval_and_of_the_gate_is_what_was_counted() {
        let vary = [("objective.method".to_string(), "sft,eaft".to_string())];
        let grid = Grid::of(TEXT, "c.toml", &[], &vary).unwrap();
        assert!(about_differences(&grid).ends_with("in pairs (Student's t)."));
        assert!(ends(&grid, &[]).columns.contains(&"mean gate of the run"), "it is over all logged steps");
    }
}
