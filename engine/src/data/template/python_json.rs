//! Writes JSON the way Python's `json.dumps` does, since models were trained on its spacing and numbers.

use serde_json::Value;

/// The arguments of `json.dumps`.
pub(super) struct Style {
    /// Write letters beyond ASCII as `\u` escapes.
    pub(super) ascii: bool,
    /// Order an object's fields by name.
    pub(super) sort_keys: bool,
    /// Spaces a level, and a line for each item; `None` for one line.
    pub(super) indent: Option<usize>,
    /// Between items.
    pub(super) item: String,
    /// Between name and value.
    pub(super) key: String,
}

/// `json.dumps(value)`.
pub(super) fn write(value: &Value, style: &Style) -> String {
    let mut output = String::new();
    append(&mut output, value, style, 0);
    output
}

fn append(output: &mut String, value: &Value, style: &Style, level: usize) {
    match value {
        Value::Null => output.push_str("null"),
        Value::Bool(flag) => output.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => output.push_str(&float_repr(float)),
            _ => output.push_str(&number.to_string()),
        },
        Value::String(text) => append_string(output, text, style.ascii),
        Value::Array(items) if items.is_empty() => output.push_str("[]"),
        Value::Object(fields) if fields.is_empty() => output.push_str("{}"),
        Value::Array(items) => {
            output.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(output, style, level + 1, index);
                append(output, item, style, level + 1);
            }
            close(output, style, level, ']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            if style.sort_keys {
                fields.sort_by_key(|(name, _)| *name);
            }
            output.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                separate(output, style, level + 1, index);
                append_string(output, name, style.ascii);
                output.push_str(&style.key);
                append(output, value, style, level + 1);
            }
            close(output, style, level, '}');
        }
    }
}

fn separate(output: &mut String, style: &Style, level: usize, index: usize) {
    if index > 0 {
        output.push_str(&style.item);
    }
    new_line(output, style, level);
}

fn close(output: &mut String, style: &Style, level: usize, bracket: char) {
    new_line(output, style, level);
    output.push(bracket);
}

fn new_line(output: &mut String, style: &Style, level: usize) {
    if let Some(indent) = style.indent {
        output.push('\n');
        output.extend(std::iter::repeat_n(' ', indent * level));
    }
}

fn append_string(output: &mut String, text: &str, ascii: bool) {
    output.push('"');
    for letter in text.chars() {
        match letter {
            '"' => output.push_str("\\\""),
            '\\' => output.push_str("\\\\"),
            '\n' => output.push_str("\\n"),
            '\r' => output.push_str("\\r"),
            '\t' => output.push_str("\\t"),
            '\u{8}' => output.push_str("\\b"),
            '\u{c}' => output.push_str("\\f"),
            _ if u32::from(letter) < 0x20 || (ascii && !letter.is_ascii()) || (ascii && letter == '\u{7f}') => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    output.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => output.push(letter),
        }
    }
    output.push('"');
}

/// Python's `repr` of a float: shortest digits, an exponent below 1e-4 and from 1e16 on.
fn float_repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let power: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&power) || value == 0.0 {
        return format!("{value:?}");
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", power.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases: [(f64, &str); 9] = [
            (2.5, "2.5"),
            (1.0, "1.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-1.25e300, "-1.25e+300"),
            (0.0, "0.0"),
        ];
        for (value, expected) in cases {
            assert_eq!(float_repr(value), expected);
        }
    }
}
