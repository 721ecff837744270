//! The texts with holes that the command writes: the HTML of reports.

use anyhow::{Context, Result};
use minijinja::{AutoEscape, Environment, Value};
use serde::Serialize;

/// Names and sources. What ends in `.html` is escaped, but for what is marked `safe`.
const TEMPLATES: [(&str, &str); 4] = [
    ("parts.html", include_str!("../templates/parts.html")),
    ("report.html", include_str!("../templates/report.html")),
    ("comparison.html", include_str!("../templates/comparison.html")),
    ("scan.html", include_str!("../templates/scan.html")),
];

/// Fills a template in. A name that it has and `values` lack is an error, not an empty place.
///
/// # Errors
/// A mistake in the template: no value can cause one.
pub fn render(name: &str, values: impl Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| match name.ends_with(".html") {
        true => AutoEscape::Html,
        false => AutoEscape::None,
    });
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    environment.set_formatter(|out, state, value| match value.as_str() {
        // The same characters as in the SVGs, and no more: a path should stay readable in the source.
        Some(text) if state.auto_escape() == AutoEscape::Html && !value.is_safe() => Ok(out.write_str(&escape(text))?),
        _ => minijinja::escape_formatter(out, state, value),
    });
    let template = environment.get_template(name)?;
    template.render(Value::from_serialize(&values)).with_context(|| format!("filling in {name}"))
}

/// Text as HTML, for element contents and quoted attributes.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(character),
        }
    }
    html
}
