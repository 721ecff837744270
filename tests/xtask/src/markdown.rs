//! `markdown`: what no compiler sees. Tables that do not render and links that lead nowhere, in every Markdown file.
//!
//! Not a parser of Markdown: it knows fenced code, code spans, tables, links, headings and HTML's `src` and `href`, and
//! nothing else. A table (GitHub's) is a header, a line of dashes and rows, without a blank line; all have the same number
//! of cells. A link to a file of the repository leads to one that is there, and its `#anchor` to a heading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::format::find;
use crate::{Failure, root};

/// Refuses every broken table and link of the repository at once; says how many files it has read.
pub fn check() -> Result<String, Failure> {
    let root = root();
    let mut files = Vec::new();
    find(Path::new(""), ".md", &mut files)?;
    files.sort_unstable();
    let mut texts = BTreeMap::new();
    for file in &files {
        let text = std::fs::read_to_string(root.join(file)).map_err(|error| format!("{}: {error}", file.display()))?;
        texts.insert(file.clone(), text);
    }
    let problems = problems(&texts, &|path| root.join(path).exists());
    // A search that finds nothing would accept everything.
    if !files.iter().any(|file| file == Path::new("README.md")) {
        return Err(format!("no README.md below {}", root.display()));
    }
    if problems.is_empty() {
        Ok(format!("tables and links of {} Markdown files are whole", files.len()))
    } else {
        Err(format!("{} faults in Markdown:\n  {}", problems.len(), problems.join("\n  ")))
    }
}

/// Faults as `file:line: what`, files in their order. `exists` tells of a path from the repository's root.
fn problems(texts: &BTreeMap<PathBuf, String>, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        texts.iter().map(|(file, text)| (file.as_path(), anchors(&without_fences(text)))).collect();
    let mut all = Vec::new();
    for (file, text) in texts {
        let lines = without_fences(text);
        let mut found = tables(&lines);
        for (line, target) in links(&lines) {
            if let Err(problem) = follow(file, &target, &anchors, exists) {
                found.push((line, problem));
            }
        }
        found.sort();
        all.extend(found.into_iter().map(|(line, problem)| format!("{}:{line}: {problem}", file.display())));
    }
    all
}

/// The lines, those of fenced code emptied, so that numbers stay right.
fn without_fences(text: &str) -> Vec<&str> {
    // What closes a fence: the same character, as often at least, and nothing after it.
    let mut open: Option<(char, usize)> = None;
    text.lines()
        .map(|line| {
            let code = line.trim_start().trim_start_matches("> ");
            let mark = code.chars().next().filter(|c| ['`', '~'].contains(c));
            let length = mark.map_or(0, |mark| code.chars().take_while(|&c| c == mark).count());
            let rest = &code[length..];
            match (open, mark) {
                (None, Some(mark)) if length >= 3 && !(mark == '`' && rest.contains('`')) => {
                    open = Some((mark, length));
                    "```"
                }
                (None, _) => line,
                (Some((opened, least)), Some(mark)) if mark == opened && length >= least && rest.trim().is_empty() => {
                    open = None;
                    "```"
                }
                (Some(_), _) => "",
            }
        })
        .collect()
}

/// Faults of tables with their line, from 1.
fn tables(lines: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Columns of the table that the line before belongs to.
    let mut table: Option<usize> = None;
    let mut index = 0;
    while index < lines.len() {
        let line = lines[index].trim();
        let dashes = lines.get(index + 1).filter(|next| is_delimiter(next.trim()));
        if let Some(columns) = table {
            if ends_a_table(line) {
                table = None;
            } else if cells(line) != columns {
                found.push((index + 1, format!("{} cells in a table of {columns} columns", cells(line))));
            }
        } else if let Some(dashes) = dashes.filter(|_| line.contains('|')) {
            let (header, columns) = (cells(line), cells(dashes.trim()));
            if header != columns {
                found.push((index + 1, format!("{header} cells in the header, {columns} in the line of dashes")));
            }
            table = Some(columns);
            index += 1;
        } else if line.starts_with('|') {
            found.push((index + 1, "a row outside of a table: a blank line above it, or no line of dashes".into()));
        }
        index += 1;
    }
    found
}

/// `|---|:-:|`, at least two columns or one with a bar.
fn is_delimiter(line: &str) -> bool {
    let is_dashes = |cell: &str| {
        let cell = cell.trim();
        let cell = cell.strip_prefix(':').unwrap_or(cell);
        let cell = cell.strip_suffix(':').unwrap_or(cell);
        !cell.is_empty() && cell.chars().all(|c| c == '-')
    };
    line.contains('|') && split(line).iter().all(|cell| is_dashes(cell))
}

/// A blank line or the start of something else. Any other line directly below a table becomes a row of it.
fn ends_a_table(line: &str) -> bool {
    line.is_empty() || ["#", ">", "```", "- ", "* ", "+ ", "<"].iter().any(|start| line.starts_with(start))
}

fn cells(line: &str) -> usize {
    split(line).len()
}

/// Cells of a row. A bar in a code span ends a cell too, unless it is written `\|`.
fn split(line: &str) -> Vec<&str> {
    let line = line.strip_prefix('|').unwrap_or(line);
    let mut cells = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in line.char_indices() {
        if c == '|' && !escaped {
            cells.push(&line[start..at]);
            start = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    // What follows the last bar is a cell only if the row does not end with one.
    if start < line.len() {
        cells.push(&line[start..]);
    }
    cells
}

/// Targets of links and pictures with the line they stand on: `](target)`, `[name]: target`, `src="…"`, `href="…"`.
fn links(lines: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in without_code_spans(lines) {
        let definition = text.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = definition.filter(|(name, _)| !name.contains(['[', ']']) && !name.starts_with('^')) {
            found.push((line, bare(target)));
        }
        for (at, _) in text.match_indices("](") {
            let rest = &text[at + 2..];
            // Up to the bracket that closes it: a target may hold pairs of them.
            let mut depth = 0;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth < 0
            });
            match end {
                Some(end) => found.push((line, bare(&rest[..end]))),
                None => found.push((line, format!("{rest} (not closed on its line)"))),
            }
        }
        for attribute in ["src=\"", "href=\""] {
            for (at, _) in text.match_indices(attribute) {
                let rest = &text[at + attribute.len()..];
                found.push((line, rest.split('"').next().unwrap_or(rest).to_owned()));
            }
        }
    }
    found
}

/// A target without its title and angle brackets.
fn bare(target: &str) -> String {
    let target = target.trim();
    match target.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((inside, _)) => inside.to_owned(),
        None => target.split_whitespace().next().unwrap_or("").to_owned(),
    }
}

/// The lines, numbered from 1, with code spans emptied. A span may go on over lines, but not over a blank one.
fn without_code_spans(lines: &[&str]) -> Vec<(usize, String)> {
    let mut done = Vec::new();
    let mut first = 0;
    for block in lines.split(|line| line.trim().is_empty()) {
        let text = block.join("\n");
        let mut kept = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find('`') {
            let ticks = rest[at..].len() - rest[at..].trim_start_matches('`').len();
            let after = &rest[at + ticks..];
            kept += &rest[..at];
            let Some(length) = closing(after, ticks) else {
                // Nothing closes it: these are plain characters.
                rest = after;
                continue;
            };
            kept.extend(after[..length].chars().filter(|&c| c == '\n'));
            rest = &after[length + ticks..];
        }
        kept += rest;
        done.extend(kept.split('\n').enumerate().map(|(offset, line)| (first + offset + 1, line.to_owned())));
        first += block.len() + 1;
    }
    done
}

/// Where the next run of exactly `ticks` back ticks begins.
fn closing(text: &str, ticks: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        let run = text[start..].len() - text[start..].trim_start_matches('`').len();
        if run == ticks {
            return Some(start);
        }
        at = start + run;
    }
    None
}

/// Fails with words where a link of `file` leads to nothing. Other machines are not asked.
fn follow(
    file: &Path,
    target: &str,
    anchors: &BTreeMap<&Path, BTreeSet<String>>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<(), String> {
    if target.is_empty() {
        return Err("a link without a target".into());
    }
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let place = if path.is_empty() { Some(file.to_path_buf()) } else { resolve(file, &decoded(path)) };
    let Some(place) = place.filter(|place| exists(place)) else {
        return Err(format!("a link to {target}, which is not there"));
    };
    match (anchor, anchors.get(place.as_path())) {
        (Some(anchor), Some(known)) if !known.contains(anchor) => {
            Err(format!("a link to {target}, and {} has no such heading", place.display()))
        }
        _ => Ok(()),
    }
}

/// A link of `file` as a path from the root, which it must not leave. One that begins with `/` begins there.
fn resolve(file: &Path, link: &str) -> Option<PathBuf> {
    let mut parts: Vec<&str> = match link.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => file.parent()?.iter().map(|part| part.to_str()).collect::<Option<_>>()?,
    };
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            name => parts.push(name),
        }
    }
    Some(parts.iter().collect())
}

/// `%20` and the like as what they stand for.
fn decoded(link: &str) -> String {
    let bytes = link.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| link.get(at + 1..at + 3)).flatten();
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What GitHub lets `#…` name: the headings in small letters, blanks as dashes, without other signs; repeated ones counted.
fn anchors(lines: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in lines {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let slug: String = heading
            .trim()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                c if c.is_alphanumeric() => Some(c),
                _ => None,
            })
            .flat_map(char::to_lowercase)
            .collect();
        let mut name = slug.clone();
        let mut count = 0;
        while !found.insert(name.clone()) {
            count += 1;
            name = format!("{slug}-{count}");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [&str; 5] = ["README.md", "docs", "docs/guide.md", "docs/a picture.png", "LICENSE"];

    /// Faults of a text that lies at `docs/guide.md`, beside [`PLACES`].
    fn faults(text: &str) -> Vec<String> {
        let other = "# Temper\n\n## How fast, and why?\n\n## Again\n\n## Again\n";
        let texts = BTreeMap::from([
            (PathBuf::from("README.md"), other.to_owned()),
            (PathBuf::from("docs/guide.md"), text.to_owned()),
        ]);
        problems(&texts, &|path| PLACES.iter().any(|place| Path::new(place) == path))
    }

    #[track_caller]
    fn accepted(text: &str) {
        assert_eq!(faults(text), Vec::<String>::new(), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, fault: &str) {
        assert_eq!(faults(text), [format!("docs/guide.md:{fault}")], "{text}");
    }

    #[test]
    fn whole_tables_are_accepted() {
        accepted("| a | b |\n|---|:-:|\n| 1 | 2 |\n| | 3 |\n\ntext | with a bar\n");
        accepted("a | b\n--- | ---\n1 | 2\n# heading");
        accepted("| a | b |\n|---|---|\n| `x \\| y` | 2 |\n\n| c |\n|---|\n| 1 |");
        accepted("text\n```\n| a |\n\n| b | c |\n```\n~~~~ text\n| x |\n~~~\n| y |\n~~~~\n");
    }

    #[test]
    fn a_row_with_too_many_or_too_few_cells_is_refused() {
        refused("| a | b |\n|---|---|\n| 1 | 2 |\n| 1 |\n", "4: 1 cells in a table of 2 columns");
        refused("| a | b |\n|---|---|\n| 1 | 2 | 3 |\n", "3: 3 cells in a table of 2 columns");
        refused("| a | b |\n|---|---|\n| `x | y` | 2 |\n", "3: 3 cells in a table of 2 columns");
        refused("| a | b |\n|---|---|\n| 1 | 2 |\nnot a row\n", "4: 1 cells in a table of 2 columns");
        refused("| a | b | c |\n|---|---|\n| 1 | 2 |\n", "1: 3 cells in the header, 2 in the line of dashes");
    }

    #[test]
    fn a_table_that_a_blank_line_tears_apart_is_refused() {
        let fault = "5: a row outside of a table: a blank line above it, or no line of dashes";
        refused("| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n", fault);
        refused("| a | b |\n|---|---|\n```\n```\n| 1 | 2 |\n", fault);
        refused("text\n\n\n\n| a | b |\n", fault);
    }

    #[test]
    fn links_that_lead_somewhere_are_accepted() {
        accepted("[a](../README.md), [b](guide.md), ![c](<a picture.png>) and [d](a%20picture.png \"title\")");
        accepted("[a](/LICENSE) [b](https://example.com/x) [c](mailto:a@b) [d](.) [e](http://x.y/(z))");
        accepted(
            "[two\nlines](../LICENSE) <img src=\"a picture.png\"> <a href=\"../LICENSE\">x</a>\n\n[x]: ../README.md",
        );
        accepted("`[no](link)` and ``[`no](`` and `over\nlines [no](x)` and \\`\n```\n[no](link)\n```");
        accepted("# Own heading\n[a](#own-heading) [b](../README.md#how-fast-and-why) [c](../README.md#again-1)");
        accepted("[^1] a footnote\n\n[^1]: its words");
    }

    #[test]
    fn links_to_what_is_not_there_are_refused() {
        refused("\n[a](README.md)", "2: a link to README.md, which is not there");
        refused("x `code` ![a](picture.png)", "1: a link to picture.png, which is not there");
        refused("<img alt=\"\" src=\"b.png\">", "1: a link to b.png, which is not there");
        refused("a\n\n[x]: c.md", "3: a link to c.md, which is not there");
        refused("[a](../../outside)", "1: a link to ../../outside, which is not there");
        refused("[a]()", "1: a link without a target");
        refused("`a\nb` [a](d.md)", "2: a link to d.md, which is not there");
        refused("a ` tick [a](d.md)", "1: a link to d.md, which is not there");
        refused("[a](../README.md#none)", "1: a link to ../README.md#none, and README.md has no such heading");
        refused("[a](#none)", "1: a link to #none, and docs/guide.md has no such heading");
    }
}
