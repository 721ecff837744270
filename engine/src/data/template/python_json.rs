//! Writes JSON the way Python's `json.dumps` does, since models were trained on its spacing and numbers.
//!
//! `serde_json` walks the value and escapes; the formatter decides what stands between items, and how floats and letters
//! beyond ASCII are written.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use serde_json::{Map, Value};

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
    let mut output = Vec::new();
    let formatter = Python { style, level: 0, empty: true };
    let mut serializer = Serializer::with_formatter(&mut output, formatter);
    let written = match style.sort_keys {
        true => sorted(value).serialize(&mut serializer),
        false => value.serialize(&mut serializer),
    };
    // Writing to memory cannot fail, every value is representable, and the formatter writes whole characters.
    written.ok().and_then(|()| String::from_utf8(output).ok()).expect("a JSON value is text")
}

/// The same value with every object's fields ordered by name.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            Value::Object(fields.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

struct Python<'a> {
    style: &'a Style,
    level: usize,
    /// Nothing was written yet in the list or object that is open.
    empty: bool,
}

impl Python<'_> {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.empty = true;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level -= 1;
        if !self.empty {
            self.new_line(out)?;
        }
        out.write_all(bracket)
    }

    fn separate<W: ?Sized + Write>(&self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.style.item.as_bytes())?;
        }
        self.new_line(out)
    }

    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        match self.style.indent {
            Some(indent) => write!(out, "\n{:1$}", "", indent * self.level),
            None => Ok(()),
        }
    }
}

impl Formatter for Python<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        out.write_all(float_repr(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if !self.style.ascii {
            return out.write_all(fragment.as_bytes());
        }
        for letter in fragment.chars() {
            match letter {
                ' '..='~' => write!(out, "{letter}")?,
                _ => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        out.write_all(match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(out, "\\u{byte:04x}"),
        })
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.style.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }
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

    #[test]
    fn every_style_is_pythons() {
        let value = serde_json::json!({
            "b": ["\u{7f}é😀\"\\/\u{1}\u{8}\u{c}\n\r\t", [], {}, [[1]], -3, 1e-7],
            "a": {"c": null, "B": true},
        });
        let write = |ascii: bool, sort_keys: bool, indent: Option<usize>| {
            let item = if indent.is_none() { ", " } else { "," };
            write(&value, &Style { ascii, sort_keys, indent, item: item.into(), key: ": ".into() })
        };
        // Written by Python 3.11's json.dumps.
        let plain = "\u{7f}é😀".to_string() + r#"\"\\/\u0001\b\f\n\r\t"#;
        let ascii = r#"\u007f\u00e9\ud83d\ude00\"\\/\u0001\b\f\n\r\t"#;
        assert_eq!(
            write(false, false, None),
            format!(r#"{{"b": ["{plain}", [], {{}}, [[1]], -3, 1e-07], "a": {{"c": null, "B": true}}}}"#)
        );
        assert_eq!(
            write(true, true, None),
            format!(r#"{{"a": {{"B": true, "c": null}}, "b": ["{ascii}", [], {{}}, [[1]], -3, 1e-07]}}"#)
        );
        let indented = format!(
            r#"{{
  "b": [
    "{ascii}",
    [],
    {{}},
    [
      [
        1
      ]
    ],
    -3,
    1e-07
  ],
  "a": {{
    "c": null,
    "B": true
  }}
}}"#
        );
        assert_eq!(write(true, false, Some(2)), indented);
        let flush: String = indented.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
        assert_eq!(write(true, false, Some(0)), flush);
    }
}
