//! What all reports draw with: colours, axes, tables, and the map of tokens by probability and entropy, as inline SVG.
//!
//! Place in the flow: a report's numbers -> [figures] -> `templates/*.html`. `templates/report.css` maps the placeholder colours of
//! the plots to the reader's colour scheme.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use serde::Serialize;
use temper_engine::events::Landscape;

use crate::progress::grouped;
use crate::templates::escape;

/// The style sheet of all reports.
pub const STYLE: &str = include_str!("../templates/report.css");

/// Placeholders for the colours of the reader's scheme.
pub const INK: RGBColor = RGBColor(1, 1, 1);
pub const SOFT: RGBColor = RGBColor(2, 2, 2);
pub const LINE: RGBColor = RGBColor(3, 3, 3);
pub const MAIN: RGBColor = RGBColor(4, 4, 4);
pub const SECOND: RGBColor = RGBColor(5, 5, 5);
pub const BASE: RGBColor = RGBColor(6, 6, 6);
pub const WARN: RGBColor = RGBColor(7, 7, 7);

/// Colours of middle lightness, which show on white and on black alike.
pub const RED: RGBColor = RGBColor(0xd6, 0x3f, 0x31);
pub const COPPER: RGBColor = RGBColor(0xd9, 0x6b, 0x1f);
pub const ORANGE: RGBColor = RGBColor(0xe0, 0x8b, 0x2c);
pub const BROWN: RGBColor = RGBColor(0xa8, 0x7b, 0x52);
pub const OLIVE: RGBColor = RGBColor(0x9a, 0x9f, 0x2f);
pub const GREEN: RGBColor = RGBColor(0x2f, 0x9e, 0x8a);
pub const SKY: RGBColor = RGBColor(0x4b, 0xa6, 0xc4);
pub const BLUE: RGBColor = RGBColor(0x3d, 0x7d, 0xd8);
pub const VIOLET: RGBColor = RGBColor(0x8e, 0x6b, 0xc9);
pub const PINK: RGBColor = RGBColor(0xc2, 0x5b, 0x9b);
pub const GREY: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

/// Classes of a landscape's cells: the upper bound of each, its colour and its name.
type Classes = [(f64, RGBColor, &'static str); 5];

/// By mean gate, from suppressed to fully trained.
const GATES: Classes = [
    (0.1, RED, "gate below 0.1"),
    (0.3, ORANGE, "0.1 to 0.3"),
    (0.6, OLIVE, "0.3 to 0.6"),
    (0.9, GREEN, "0.6 to 0.9"),
    (f64::INFINITY, BLUE, "0.9 and above"),
];

/// By mean norm of the gated gradient at the logits, which is at most the square root of 2.
const GRADIENTS: Classes = [
    (0.05, BLUE, "pull below 0.05"),
    (0.2, GREEN, "0.05 to 0.2"),
    (0.5, OLIVE, "0.2 to 0.5"),
    (0.9, ORANGE, "0.5 to 0.9"),
    (f64::INFINITY, RED, "0.9 and above"),
];

/// What is larger than this is left out of plots: a diverged run has perplexities up to f64's largest number, around which an
/// axis would have no end. The tables have it.
const LARGEST: f64 = 1e100;
pub const SIZE: (u32, u32) = (520, 300);
pub const MAP_SIZE: (u32, u32) = (520, 380);

pub type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A plot with its words.
#[derive(Serialize)]
pub struct Figure {
    pub title: String,
    pub unit: String,
    pub keys: Vec<Key>,
    pub svg: String,
}

impl Figure {
    /// As a file of its own, with its title and its keys below, in the colours of a light page.
    pub fn standalone(&self) -> String {
        const COLUMN: u32 = 172;
        const ROW: u32 = 20;
        let (width, height) = MAP_SIZE;
        let columns = width / COLUMN;
        let lines = (self.keys.len() as u32).div_ceil(columns);
        let below = 58 + ROW * lines;
        let mut plot = self.svg.clone();
        for (placeholder, colour) in [(INK, "#1b1f24"), (SOFT, "#5a6472"), (LINE, "#d8dce2"), (WARN, "#c0392b")] {
            plot = plot.replace(&css(placeholder), colour);
        }
        let keys = self.keys.iter().zip(0..).map(|(key, at): (_, u32)| {
            let (x, y) = (16 + COLUMN * (at % columns), height + 62 + ROW * (at / columns));
            let dash = if key.dashed { " stroke-dasharray=\"4 3\"" } else { "" };
            format!(
                "<line x1=\"{x}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"3\"{dash}/>\
                 <text x=\"{}\" y=\"{y}\" font-size=\"12\" fill=\"#1b1f24\">{}</text>\n",
                x + 18,
                y - 4,
                y - 4,
                key.colour,
                x + 24,
                escape(&key.name)
            )
        });
        let (keys, unit, title) = (keys.collect::<String>(), escape(&self.unit), escape(&self.title));
        let total = height + below;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{total}\" viewBox=\"0 0 {width} {total}\" \
             font-family=\"system-ui, sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"16\" y=\"22\" font-size=\"14\" font-weight=\"600\" fill=\"#1b1f24\">{title}</text>\n\
             <text x=\"16\" y=\"38\" font-size=\"12\" fill=\"#5a6472\">{unit}</text>\n\
             <g transform=\"translate(0 44)\">\n{plot}</g>\n{keys}</svg>\n"
        )
    }
}

/// A colour's meaning.
#[derive(Serialize)]
pub struct Key {
    pub name: String,
    pub colour: String,
    /// Its line is dashed.
    pub dashed: bool,
}

/// A table whose first column has no heading.
#[derive(Serialize)]
pub struct Table {
    pub columns: Vec<&'static str>,
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    pub cells: Vec<String>,
}

/// A line of a table of two columns.
#[derive(Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub value: String,
}

/// What a landscape's cells are coloured by.
#[derive(Clone, Copy)]
pub enum By {
    /// The mean gate of their tokens.
    Gate,
    /// How hard their tokens pull at the logits.
    Gradient,
}

impl By {
    fn classes(self) -> &'static Classes {
        match self {
            Self::Gate => &GATES,
            Self::Gradient => &GRADIENTS,
        }
    }

    /// What the colours mean.
    pub fn keys(self) -> Vec<Key> {
        let key = |(_, colour, name): &(f64, RGBColor, &str)| Key {
            name: (*name).into(),
            colour: css(*colour),
            dashed: false,
        };
        self.classes().iter().map(key).collect()
    }
}

/// Training tokens by probability and entropy.
///
/// # Errors
/// Only if it cannot be drawn, which no data can cause.
pub fn landscape(name: &str, map: &Landscape, by: By) -> Result<Figure> {
    let cells = || {
        (0..Landscape::ENTROPY_BINS).flat_map(|e| (0..Landscape::PROBABILITY_BINS).map(move |p| (e, p))).filter_map(
            |(e, p)| {
                let (count, gate) = map.cell(e, p)?;
                let value = match by {
                    By::Gate => gate,
                    By::Gradient => map.gradient(e, p)?,
                };
                Some((e, p, count, value))
            },
        )
    };
    let most = cells().map(|(_, _, count, _)| count).max().unwrap_or(1) as f64;
    let drawn = svg(MAP_SIZE, &format!("Training tokens {name}"), |root| {
        let top = f64::from(Landscape::ENTROPY_MAX);
        let (width, height) = (1.0 / Landscape::PROBABILITY_BINS as f64, top / Landscape::ENTROPY_BINS as f64);
        let mut chart = axes(root, 0.0..1.0, 0.0..top, "probability of the label", "entropy (nats)")?;
        draw(chart.draw_series(cells().map(|(e, p, count, value)| {
            let (x, y) = (p as f64 * width, e as f64 * height);
            let classes = by.classes();
            let colour =
                classes.iter().find(|(bound, ..)| value < *bound).map_or(classes[4].1, |(_, colour, _)| *colour);
            let strength = 0.18 + 0.82 * (count as f64).ln_1p() / most.ln_1p();
            Rectangle::new([(x, y), (x + width, y + height)], colour.mix(strength).filled())
        })))?;
        let bound = (0..=200).map(|i| f64::from(i) / 200.0).map(|p| (p, Landscape::lower_bound(p)));
        draw(chart.draw_series(LineSeries::new(bound, SOFT.stroke_width(2))))?;
        let (p, h) = (f64::from(Landscape::CONFLICT_REGION.0), f64::from(Landscape::CONFLICT_REGION.1));
        for edge in [vec![(0.0, h), (p, h)], vec![(p, 0.0), (p, h)]] {
            draw(chart.draw_series(DashedLineSeries::new(edge, 5, 3, WARN.stroke_width(2))))?;
        }
        Ok(())
    })?;
    let unit = format!(
        "{} tokens; confident conflicts: {} ({:.2} %); entropies of {} nats and more are in the top row",
        grouped(map.tokens()),
        grouped(map.conflicts),
        100.0 * map.conflict_share(),
        Landscape::ENTROPY_MAX
    );
    Ok(Figure { title: capitalised(name), unit, keys: Vec::new(), svg: drawn })
}

/// Draws onto an SVG of this size and names it for those who cannot see it.
pub fn svg(size: (u32, u32), title: &str, plot: impl FnOnce(&Root) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        plot(&root)?;
        draw(root.present())?;
    }
    let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(title));
    // Inside HTML the name space is known, and its address would look like a link.
    Ok(text.replacen("<svg ", &label, 1).replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1))
}

/// plotters' errors borrow the backend; only their words go on.
pub fn draw<T, E: std::fmt::Display>(result: std::result::Result<T, E>) -> Result<T> {
    result.map_err(|error| anyhow!("drawing a plot of the report: {error}"))
}

/// What is written along the axes, and how.
struct Frame<'a> {
    x_name: &'a str,
    y_name: &'a str,
    /// Pixels left of the y axis.
    left: u32,
    y_labels: usize,
    /// Lines across at each label of the y axis.
    y_lines: bool,
    y_label: &'a dyn Fn(&f64) -> String,
}

/// Axes with their names and a grid.
pub fn axes<'a, 'b>(
    root: &'a Root<'b>,
    x: Range<f64>,
    y: Range<f64>,
    x_name: &str,
    y_name: &str,
) -> Result<Chart<'a, 'b>> {
    let left = if y_name.is_empty() { 52 } else { 66 };
    let y_label = |value: &f64| tick(*value);
    framed(root, x, y, Frame { x_name, y_name, left, y_labels: 6, y_lines: true, y_label: &y_label })
}

/// Axes of horizontal bars, the first on top, at whole numbers from 0 upwards for the last.
pub fn bars<'a, 'b>(root: &'a Root<'b>, names: &[&str], most: f64, x_name: &str) -> Result<Chart<'a, 'b>> {
    let y_label = |y: &f64| match (y.round(), (y - y.round()).abs() < 1e-6) {
        (line, true) if line >= 0.0 && (line as usize) < names.len() => {
            names[names.len() - 1 - line as usize].to_string()
        }
        _ => String::new(),
    };
    let y = -0.6..names.len() as f64 - 0.4;
    let frame = Frame { x_name, y_name: "", left: 80, y_labels: names.len() + 1, y_lines: false, y_label: &y_label };
    framed(root, 0.0..most.max(1e-9), y, frame)
}

fn framed<'a, 'b>(root: &'a Root<'b>, x: Range<f64>, y: Range<f64>, frame: Frame) -> Result<Chart<'a, 'b>> {
    let label = |size: i32, colour: &'static RGBColor| ("sans-serif", size).into_font().color(colour);
    let mut chart = draw(
        ChartBuilder::on(root)
            .margin_top(10)
            .margin_right(18)
            .x_label_area_size(42)
            .y_label_area_size(frame.left)
            .build_cartesian_2d(x, y),
    )?;
    let mut mesh = chart.configure_mesh();
    if !frame.y_lines {
        mesh.disable_y_mesh();
    }
    draw(
        mesh.light_line_style(TRANSPARENT)
            .bold_line_style(LINE.stroke_width(1))
            .axis_style(LINE.stroke_width(1))
            .label_style(label(13, &SOFT))
            .axis_desc_style(label(14, &SOFT))
            .x_labels(7)
            .y_labels(frame.y_labels)
            .x_desc(frame.x_name)
            .y_desc(frame.y_name)
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(frame.y_label)
            .draw(),
    )?;
    Ok(chart)
}

/// A tick's value without trailing zeros.
fn tick(value: f64) -> String {
    match value.abs() {
        v if v < 1e-12 => "0".into(),
        v if !(1e-3..1e6).contains(&v) => format!("{value:.1e}"),
        _ => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    }
}

/// False for what no axis can hold.
pub fn can_be_drawn(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// The range of the values that can be drawn, widened on both sides by a share of itself; never empty.
pub fn padded(values: impl Iterator<Item = f64>, share: f64) -> Range<f64> {
    let (low, high) = values
        .filter(|v| can_be_drawn(*v))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    // A flat line gets a range around it; one that is 0 everywhere the range to 1.
    let width = if high > low { high - low } else { high.abs().max(if high == 0.0 { 1.0 } else { 0.0 }) };
    if high > low { low - share * width..high + share * width } else { low - 0.5 * width..high + 0.5 * width }
}

/// A colour as style sheets write it.
pub fn css(colour: RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
}

/// With a capital letter at its beginning.
pub fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
