//! Amounts of memory, as people write them.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::{Kind, Setting};

/// A number of bytes: a whole number, or a text such as `"6GiB"`, `"512 MiB"`, `"8GB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl ByteSize {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (number, unit) = unit.map_or((text, 1), |(name, unit)| (text[..text.len() - name.len()].trim_end(), *unit));
        let bytes = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)? * unit as f64;
        // Every whole number up to here is one of f64.
        (bytes <= (1_u64 << 53) as f64).then_some(Self(bytes as u64))
    }

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Self),
            Value::String(text) => Self::parse(text),
            _ => None,
        }
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit of which it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS[..4].iter().rev().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        let (name, unit) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("\"{text}\" is not {WORDS}"))
    }
}

const WORDS: &str = "an amount of memory such as \"6GiB\", \"512MiB\" or a number of bytes";

impl Setting for ByteSize {
    const KIND: Kind = Kind::Other {
        words: WORDS,
        check: |value| match Self::from_value(value) {
            Some(_) => Ok(()),
            None => Err(format!("{value} is not {WORDS}")),
        },
    };

    fn from_value(value: &Value) -> Option<Self> {
        Self::of(value)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

/// Amounts of memory, one for each device of a run: as [`ByteSize`], or a text of several with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSizes(Vec<ByteSize>);

impl ByteSizes {
    /// Bytes for each device, in order.
    pub fn bytes(&self) -> Vec<u64> {
        self.0.iter().map(|ByteSize(bytes)| *bytes).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(ByteSize::parse).collect::<Option<_>>().map(Self)
    }

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            value => ByteSize::of(value).map(|size| Self(vec![size])),
        }
    }
}

impl fmt::Display for ByteSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(ByteSize::to_string).collect::<Vec<_>>().join(","))
    }
}

impl From<ByteSizes> for String {
    fn from(sizes: ByteSizes) -> Self {
        sizes.to_string()
    }
}

impl TryFrom<String> for ByteSizes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("\"{text}\" is not {SEVERAL}"))
    }
}

const SEVERAL: &str = "an amount of memory such as \"6GiB\", \"512MiB\" or a number of bytes, or one for each device, such as \
                       \"8GiB,16GiB\"";

impl Setting for ByteSizes {
    const KIND: Kind = Kind::Other {
        words: SEVERAL,
        check: |value| match Self::from_value(value) {
            Some(_) => Ok(()),
            None => Err(format!("{value} is not {SEVERAL}")),
        },
    };

    fn from_value(value: &Value) -> Option<Self> {
        Self::of(value)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_any_unit_and_written_in_the_largest_whole_one() {
        for (text, bytes, written) in [
            ("6GiB", 6 << 30, "6GiB"),
            ("512 MiB", 512 << 20, "512MiB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("8GB", 8_000_000_000, "7812500KiB"),
            ("17", 17, "17B"),
            ("17 B", 17, "17B"),
            ("0", 0, "0B"),
        ] {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, written), "{text}");
            assert_eq!(ByteSize::parse(written), Some(size));
        }
        for wrong in ["", "GiB", "-1GiB", "nan", "inf", "6 gibibytes", "1e30", "99999999TiB"] {
            assert_eq!(ByteSize::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn several_amounts_are_read_and_written_with_commas_between_them() {
        let sizes = ByteSizes::parse("8GiB, 512 MiB").unwrap();
        assert_eq!((sizes.bytes(), sizes.to_string().as_str()), (vec![8 << 30, 512 << 20], "8GiB,512MiB"));
        assert_eq!(ByteSizes::of(&Value::Integer(17)), Some(ByteSizes(vec![ByteSize(17)])));
        for wrong in ["", "8GiB,", ",", "8GiB;6GiB"] {
            assert_eq!(ByteSizes::parse(wrong), None, "{wrong}");
        }
    }
}
