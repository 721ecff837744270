//! Calls of functions out of a model's text: Python's syntax and JSON, read and never run.
//!
//! A text is wholly calls, or makes none. In this order:
//!
//! * What the model thought is left out ([`said`]).
//! * Text between `<tool_call>` and `</tool_call>`, or its end, is calls; around such parts anything may stand.
//! * Back-quotes and the word of a fence (```` ```json ````, ```` ```python ````, ```` ```tool_code ````) are left out.
//! * A `{`, or a `[` before a `{`, opens JSON: an object, a list, or objects one after the other, each with `name` (or
//!   `function`) and `arguments` (or `parameters`), which may be a text of JSON.
//! * All else is Python: calls between square brackets, or without them, with commas between.
//!
//! As in the public checker, values without a name are left out, a name without quotes is its text, and a call as a value
//! is its text, or where it has named values an object. Arithmetic is not calculated: such a text makes no call.

use serde_json::Value;

use super::answer::said;

/// Levels of lists and calls in each other.
const MAX_DEPTH: usize = 64;
/// A longer text is no answer; names are compared with all before them.
const MAX_BYTES: usize = 1 << 16;

/// A value of Python or JSON.
#[derive(Clone, Debug)]
pub enum Literal {
    /// `None` or `null`.
    None,
    /// `True` or `true`.
    Bool(bool),
    /// A whole number. Beyond 128 bits it is a [`Literal::Float`].
    Integer(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Literal>),
    /// A tuple, which JSON does not have.
    Tuple(Vec<Literal>),
    /// A dictionary or object, in its order.
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Integer(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| matches!(name, Self::Text(text) if text == key)).map(|(_, value)| value)
    }
}

/// Python's `==`: numbers and truth values by their value, a list never a tuple, dictionaries without their order.
impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => a == b,
            (Self::Dict(a), Self::Dict(b)) => {
                let in_b = |(key, value): &(Self, Self)| b.iter().any(|(name, other)| name == key && other == value);
                a.len() == b.len() && a.iter().all(in_b)
            }
            _ => self.number().is_some() && self.number() == other.number(),
        }
    }
}

impl From<&Value> for Literal {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::None,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match number.as_i128() {
                Some(whole) => Self::Integer(whole),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(list) => Self::List(list.iter().map(Self::from).collect()),
            Value::Object(fields) => {
                Self::Dict(fields.iter().map(|(name, value)| (Self::Text(name.clone()), value.into())).collect())
            }
        }
    }
}

/// As Python writes it.
impl std::fmt::Display for Literal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |out: &mut std::fmt::Formatter<'_>, items: &[Self]| {
            for (at, item) in items.iter().enumerate() {
                write!(out, "{}{item}", if at > 0 { ", " } else { "" })?;
            }
            Ok(())
        };
        match self {
            Self::None => out.write_str("None"),
            Self::Bool(true) => out.write_str("True"),
            Self::Bool(false) => out.write_str("False"),
            Self::Integer(value) => write!(out, "{value}"),
            Self::Float(value) => write!(out, "{value:?}"),
            Self::Text(text) => write!(out, "{text:?}"),
            Self::List(items) => {
                out.write_str("[")?;
                list(out, items)?;
                out.write_str("]")
            }
            Self::Tuple(items) => {
                out.write_str("(")?;
                list(out, items)?;
                out.write_str(if items.len() == 1 { ",)" } else { ")" })
            }
            Self::Dict(pairs) => {
                out.write_str("{")?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    write!(out, "{}{key}: {value}", if at > 0 { ", " } else { "" })?;
                }
                out.write_str("}")
            }
        }
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Of the function, with its points.
    pub name: String,
    /// Values by the names of parameters.
    pub arguments: Vec<(String, Literal)>,
}

impl Call {
    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&Literal> {
        self.arguments.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}(", self.name)?;
        for (at, (name, value)) in self.arguments.iter().enumerate() {
            write!(out, "{}{name}={value}", if at > 0 { ", " } else { "" })?;
        }
        out.write_str(")")
    }
}

/// The calls of a model's text.
///
/// # Errors
/// Why the text is not calls.
pub fn calls(text: &str) -> Result<Vec<Call>, String> {
    const OPEN: &str = "<tool_call>";
    let text = said(text);
    if text.len() > MAX_BYTES {
        return Err(format!("the text has {} bytes, and {MAX_BYTES} are read", text.len()));
    }
    if !text.contains(OPEN) {
        return untagged(text);
    }
    let mut all = Vec::new();
    for part in text.split(OPEN).skip(1) {
        all.extend(untagged(part.split("</tool_call>").next().unwrap_or_default())?);
    }
    Ok(all)
}

fn untagged(text: &str) -> Result<Vec<Call>, String> {
    let edge = |c: char| c == '`' || c.is_whitespace();
    let fenced = text.trim_start().starts_with("```");
    let mut text = text.trim_matches(edge);
    if fenced {
        for word in ["json", "python", "tool_code", "tool_call"] {
            text = text.strip_prefix(word).filter(|rest| rest.starts_with(edge)).unwrap_or(text);
        }
        text = text.trim_matches(edge);
    }
    let inside = text.strip_prefix('[').map_or(text, str::trim_start);
    if inside.starts_with('{') { from_json(text) } else { Python::new(text).all() }
}

fn from_json(text: &str) -> Result<Vec<Call>, String> {
    let mut all = Vec::new();
    // serde_json has a limit of its own for depth.
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match value.map_err(|error| format!("not JSON (line {}, column {})", error.line(), error.column()))? {
            Value::Array(list) => all.extend(list),
            one => all.push(one),
        }
    }
    all.iter().map(json_call).collect()
}

fn json_call(value: &Value) -> Result<Call, String> {
    let value = value.get("function").filter(|inner| inner.is_object()).unwrap_or(value);
    let name = value.get("name").or_else(|| value.get("function")).and_then(Value::as_str);
    let name = name.ok_or("a JSON object without `name` is no call")?;
    let given = value.get("arguments").or_else(|| value.get("parameters"));
    let parsed;
    let given = match given {
        // OpenAI's way: the arguments are a text that holds JSON.
        Some(Value::String(text)) => {
            parsed = serde_json::from_str(text).map_err(|_| "`arguments` is a text that is no JSON".to_owned())?;
            Some(&parsed)
        }
        other => other,
    };
    let arguments = match given {
        None => Vec::new(),
        Some(Value::Object(fields)) => fields.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
        Some(_) => return Err("`arguments` is no object".into()),
    };
    Ok(Call { name: name.into(), arguments })
}

/// Words that are no names in Python.
const RESERVED: [&str; 32] = [
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else", "except",
    "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise",
    "return", "try", "while", "with", "yield",
];

/// A reader of calls in Python's syntax.
struct Python<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Read<T> = Result<T, String>;

impl<'a> Python<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn refuse<T>(&self, what: &str) -> Read<T> {
        Err(format!("{what} at character {}", self.text[..self.at].chars().count() + 1))
    }

    /// Leaves out white space and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn eat(&mut self, what: char) -> bool {
        self.space();
        let there = self.rest().starts_with(what);
        self.at += if there { what.len_utf8() } else { 0 };
        there
    }

    fn need(&mut self, what: char) -> Read<()> {
        if self.eat(what) { Ok(()) } else { self.refuse(&format!("{what:?} is missing")) }
    }

    /// All calls of the text. Brackets around them may be missing, one of them too, as the public checker has it.
    fn all(mut self) -> Read<Vec<Call>> {
        self.eat('[');
        let mut calls = Vec::new();
        loop {
            self.eat_end(&mut calls)?;
            if self.rest().is_empty() {
                return Ok(calls);
            }
        }
    }

    /// The next call, or the end.
    fn eat_end(&mut self, calls: &mut Vec<Call>) -> Read<()> {
        self.space();
        if self.rest().is_empty() {
            return Ok(());
        }
        if self.eat(']') {
            self.space();
            return if self.rest().is_empty() { Ok(()) } else { self.refuse("there is text behind the calls") };
        }
        calls.push(self.call()?);
        self.space();
        let ended = self.rest().is_empty() || self.rest().starts_with(']');
        if !ended && !self.eat(',') {
            return self.refuse("there is text behind a call");
        }
        Ok(())
    }

    /// A name: letters, digits and underscores, not a digit first. Empty where none is there.
    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let length = match rest.chars().next() {
            Some(first) if first == '_' || first.is_alphabetic() => {
                rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len())
            }
            _ => 0,
        };
        self.at += length;
        &rest[..length]
    }

    /// A name that Python allows.
    fn name(&mut self) -> Read<&'a str> {
        let word = self.word();
        if word.is_empty() || RESERVED.contains(&word) || matches!(word, "None" | "True" | "False") {
            return self.refuse("a name is missing");
        }
        Ok(word)
    }

    fn call(&mut self) -> Read<Call> {
        let mut name = self.name()?.to_owned();
        while self.eat('.') {
            name.push('.');
            name += self.name()?;
        }
        self.need('(')?;
        let arguments = self.arguments()?;
        Ok(Call { name, arguments: arguments.0 })
    }

    /// What stands between the round brackets of a call, of which the first is read. Also whether values without a name
    /// were there.
    fn arguments(&mut self) -> Read<(Vec<(String, Literal)>, bool)> {
        self.deeper()?;
        let mut arguments: Vec<(String, Literal)> = Vec::new();
        let mut unnamed = false;
        while !self.eat(')') {
            let before = self.at;
            let word = self.word();
            self.space();
            let named = !word.is_empty() && self.rest().starts_with('=') && !self.rest().starts_with("==");
            if named {
                self.at = before;
                let name = self.name()?;
                self.need('=')?;
                if arguments.iter().any(|(other, _)| other == name) {
                    return self.refuse(&format!("{name} is given twice"));
                }
                let value = self.value()?;
                arguments.push((name.to_owned(), value));
            } else if arguments.is_empty() {
                self.at = before;
                self.value()?;
                unnamed = true;
            } else {
                return self.refuse("a value without a name follows one with a name");
            }
            if !self.eat(',') {
                self.need(')')?;
                break;
            }
        }
        self.depth -= 1;
        Ok((arguments, unnamed))
    }

    fn deeper(&mut self) -> Read<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { self.refuse(&format!("more than {MAX_DEPTH} levels")) } else { Ok(()) }
    }

    fn value(&mut self) -> Read<Literal> {
        self.space();
        let begin = self.at;
        let Some(first) = self.rest().chars().next() else { return self.refuse("a value is missing") };
        match first {
            '[' => {
                self.at += 1;
                Ok(Literal::List(self.items(']')?.0))
            }
            '(' => {
                self.at += 1;
                let (mut items, comma) = self.items(')')?;
                // One value in brackets is itself.
                if items.len() == 1 && !comma {
                    return Ok(items.remove(0));
                }
                Ok(Literal::Tuple(items))
            }
            '{' => {
                self.at += 1;
                self.pairs()
            }
            '-' | '+' => {
                self.at += 1;
                self.space();
                if !self.rest().starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                    return self.refuse("a number is missing");
                }
                // The public checker takes any sign for a minus; so would a plus be wrong there, and is a number here.
                Ok(match (self.number()?, first) {
                    (Literal::Integer(value), '-') => Literal::Integer(-value),
                    (Literal::Float(value), '-') => Literal::Float(-value),
                    (value, _) => value,
                })
            }
            '0'..='9' => self.number(),
            '.' if self.rest().starts_with("...") => {
                self.at += 3;
                Ok(Literal::Text("...".into()))
            }
            '.' => self.number(),
            '"' | '\'' => self.texts(),
            _ => self.named(begin),
        }
    }

    /// A value that begins with a name.
    fn named(&mut self, begin: usize) -> Read<Literal> {
        let word = self.word();
        if self.rest().starts_with(['"', '\'']) && matches!(word, "r" | "R" | "u" | "U") {
            self.at = begin;
            return self.texts();
        }
        match word {
            "True" => return Ok(Literal::Bool(true)),
            "False" => return Ok(Literal::Bool(false)),
            "None" => return Ok(Literal::None),
            _ if word.is_empty() || RESERVED.contains(&word) => return self.refuse("there is no value"),
            _ => {}
        }
        let mut name = word.to_owned();
        let mut pointed = false;
        while self.eat('.') {
            name.push('.');
            name += self.name()?;
            pointed = true;
        }
        self.space();
        if self.rest().starts_with('(') {
            self.at += 1;
            let (arguments, _) = self.arguments()?;
            if arguments.is_empty() {
                return Ok(Literal::Text(self.text[begin..self.at].into()));
            }
            let fields = arguments.into_iter().map(|(name, value)| (Literal::Text(name), value)).collect();
            return Ok(Literal::Dict(vec![(Literal::Text(name), Literal::Dict(fields))]));
        }
        if self.rest().starts_with('[') {
            self.at += 1;
            self.deeper()?;
            self.value()?;
            self.need(']')?;
            self.depth -= 1;
            return Ok(Literal::Text(self.text[begin..self.at].into()));
        }
        if pointed { self.refuse("a name with points is no value") } else { Ok(Literal::Text(name)) }
    }

    /// The values up to a closing bracket, and whether a comma was among them.
    fn items(&mut self, close: char) -> Read<(Vec<Literal>, bool)> {
        self.deeper()?;
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.eat(close) {
            items.push(self.value()?);
            if self.eat(',') {
                comma = true;
            } else {
                self.need(close)?;
                break;
            }
        }
        self.depth -= 1;
        Ok((items, comma))
    }

    fn pairs(&mut self) -> Read<Literal> {
        self.deeper()?;
        let mut pairs: Vec<(Literal, Literal)> = Vec::new();
        while !self.eat('}') {
            let key = self.value()?;
            if matches!(key, Literal::List(_) | Literal::Dict(_)) {
                return self.refuse("a list is no key");
            }
            self.need(':')?;
            let value = self.value()?;
            // The last of equal keys is kept.
            match pairs.iter_mut().find(|(other, _)| *other == key) {
                Some((_, old)) => *old = value,
                None => pairs.push((key, value)),
            }
            if !self.eat(',') {
                self.need('}')?;
                break;
            }
        }
        self.depth -= 1;
        Ok(Literal::Dict(pairs))
    }

    fn number(&mut self) -> Read<Literal> {
        let rest = self.rest();
        for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
            if let Some(digits) = rest.strip_prefix(prefix) {
                let length = digits.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(digits.len());
                self.at += 2 + length;
                let value = i128::from_str_radix(&digits[..length].replace('_', ""), radix);
                return value.map(Literal::Integer).or_else(|_| self.refuse("a number is wrong"));
            }
        }
        let bytes = rest.as_bytes();
        let digits = |from: usize| {
            bytes[from..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count() + from
        };
        let whole = digits(0);
        let mut end = whole;
        if bytes.get(end) == Some(&b'.') {
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
            let behind = digits(end + 1 + sign);
            end = if behind > end + 1 + sign { behind } else { end };
        }
        self.at += end;
        let written = &rest[..end];
        let next = rest[end..].chars().next();
        let odd = next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.')
            || written.starts_with('_')
            || written.contains("__")
            || written.ends_with('_');
        let plain = written.replace('_', "");
        if odd || (end == whole && plain.len() > 1 && plain.starts_with('0') && plain.bytes().any(|byte| byte != b'0'))
        {
            return self.refuse("a number is wrong");
        }
        if end == whole
            && let Ok(value) = plain.parse()
        {
            return Ok(Literal::Integer(value));
        }
        plain.parse().map(Literal::Float).or_else(|_| self.refuse("a number is wrong"))
    }

    /// A text, or several one after the other, which are one.
    fn texts(&mut self) -> Read<Literal> {
        let mut all = String::new();
        loop {
            self.one_text(&mut all)?;
            self.space();
            let rest = self.rest();
            let prefixed = rest.starts_with(['r', 'R', 'u', 'U']) && rest[1..].starts_with(['"', '\'']);
            if !prefixed && !rest.starts_with(['"', '\'']) {
                return Ok(Literal::Text(all));
            }
        }
    }

    fn one_text(&mut self, into: &mut String) -> Read<()> {
        let raw = self.rest().starts_with(['r', 'R']);
        self.at += usize::from(self.rest().starts_with(['r', 'R', 'u', 'U']));
        let quote = &self.rest()[..1];
        let triple = self.rest().starts_with(&quote.repeat(3));
        let close = if triple { quote.repeat(3) } else { quote.to_owned() };
        self.at += close.len();
        loop {
            if self.rest().starts_with(&close) {
                self.at += close.len();
                return Ok(());
            }
            let Some(character) = self.rest().chars().next() else { return self.refuse("a text does not end") };
            if character == '\n' && !triple {
                return self.refuse("a text does not end in its line");
            }
            self.at += character.len_utf8();
            if character != '\\' {
                into.push(character);
                continue;
            }
            let Some(escaped) = self.rest().chars().next() else { return self.refuse("a text does not end") };
            self.at += escaped.len_utf8();
            if raw {
                into.extend(['\\', escaped]);
            } else {
                self.escape(escaped, into)?;
            }
        }
    }

    /// What a backslash and a character stand for.
    fn escape(&mut self, escaped: char, into: &mut String) -> Read<()> {
        let code = |digits: &str, radix: u32| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        let length = match escaped {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => {
                into.push(escaped);
                return Ok(());
            }
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='7' => {
                let more = self.rest().bytes().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                let digits = format!("{escaped}{}", &self.rest()[..more]);
                self.at += more;
                into.extend(code(&digits, 8));
                return Ok(());
            }
            'N' => return self.refuse("a character by its name is not read"),
            other => {
                let plain =
                    [('n', '\n'), ('t', '\t'), ('r', '\r'), ('a', '\x07'), ('b', '\x08'), ('f', '\x0c'), ('v', '\x0b')];
                match plain.iter().find(|(name, _)| *name == other) {
                    Some((_, character)) => into.push(*character),
                    None => into.extend(['\\', other]),
                }
                return Ok(());
            }
        };
        let digits = self.rest().get(..length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| code(digits, 16)) {
            Some(character) => {
                into.push(character);
                self.at += length;
                Ok(())
            }
            None => self.refuse("an escape is wrong"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        match calls(text) {
            Ok(calls) => calls.iter().map(Call::to_string).collect::<Vec<_>>().join("; "),
            Err(problem) => format!("! {problem}"),
        }
    }

    #[test]
    fn calls_of_python_are_read_with_every_kind_of_literal() {
        for (text, want) in [
            ("[f(a=1)]", "f(a=1)"),
            ("f(a=1)", "f(a=1)"),
            ("[f(a=1), g.h(b='x', c=None)]", "f(a=1); g.h(b=\"x\", c=None)"),
            ("```python\n[f(a=1)]\n```", "f(a=1)"),
            ("<think>f(x=1)?</think>\n[f(a=2)]", "f(a=2)"),
            ("<think>f(x=1)", ""),
            (
                "f(a=-1, b=+2, c=1.5, d=-2e3, e=.5, g=1_000, h=0x1F)",
                "f(a=-1, b=2, c=1.5, d=-2000.0, e=0.5, g=1000, h=31)",
            ),
            ("f(a=True, b=False, c=None, d=...)", "f(a=True, b=False, c=None, d=\"...\")"),
            (
                "f(a=[1, [2, 3]], b=(1, 2), c=(1), d=(1,), e={'k': [1]}, g=[], h={})",
                "f(a=[1, [2, 3]], b=(1, 2), c=1, d=(1,), e={\"k\": [1]}, g=[], h={})",
            ),
            (
                r#"f(a="q\"uote", b='\x41\u00e9\101\n', c=r'\n', d='a' "b", e='\q')"#,
                r#"f(a="q\"uote", b="AéA\n", c="\\n", d="ab", e="\\q")"#,
            ),
            ("f(a='''two\nlines''')", r#"f(a="two\nlines")"#),
            (
                "f(a=name, b=g(1, 2), c=h(x=1), d=l[0])",
                "f(a=\"name\", b=\"g(1, 2)\", c={\"h\": {\"x\": 1}}, d=\"l[0]\")",
            ),
            ("f(1, 'x')", "f()"),
            ("f(\n  a=1,  # one\n  b=2,\n)", "f(a=1, b=2)"),
            ("[f(a=1),]", "f(a=1)"),
            ("[f(a=1)", "f(a=1)"),
            ("", ""),
            ("[]", ""),
        ] {
            assert_eq!(written(text), want, "{text}");
        }
    }

    #[test]
    fn calls_of_json_are_read_alone_in_lists_and_in_tags() {
        let one = r#"{"name": "f", "arguments": {"a": 1, "b": 2.0, "c": [true, null], "d": {"e": "x"}}}"#;
        let want = "f(a=1, b=2.0, c=[True, None], d={\"e\": \"x\"})";
        for text in [
            one.to_owned(),
            format!("[{one}]"),
            format!("```json\n{one}\n```"),
            format!("<tool_call>\n{one}\n</tool_call>"),
            format!("I will look.\n<tool_call>{one}"),
            one.replace("arguments", "parameters"),
            format!(r#"{{"type": "function", "function": {one}}}"#),
        ] {
            assert_eq!(written(&text), want, "{text}");
        }
        let two = format!("<tool_call>{one}</tool_call> and <tool_call>[g(x=1)]</tool_call>");
        assert_eq!(written(&two), format!("{want}; g(x=1)"));
        assert_eq!(written(&format!("{one}\n{one}")), format!("{want}; {want}"));
        assert_eq!(written(r#"{"name": "f", "arguments": "{\"a\": 1}"}"#), "f(a=1)");
        assert_eq!(written(r#"{"name": "f"}"#), "f()");
    }

    #[test]
    fn a_text_that_is_not_wholly_calls_makes_none_and_says_why() {
        for (text, words) in [
            ("I cannot help with that.", "'(' is missing"),
            ("[f(a=1)] and so on", "behind the calls"),
            ("f(a=1) is it", "behind a call"),
            ("f(a=1", "')' is missing"),
            ("f(a=1, a=2)", "given twice"),
            ("f(a=1, 2)", "without a name follows"),
            ("f(class=1)", "a name is missing"),
            ("f(a=2*3)", "')' is missing"),
            ("f(a='x", "does not end"),
            ("f(a='x\ny')", "in its line"),
            ("f(a=)", "there is no value"),
            ("f(a=007)", "number is wrong"),
            ("f(a=1__0)", "number is wrong"),
            ("f(a=1j)", "number is wrong"),
            ("f(a=b.c)", "is no value"),
            ("f(a={[1]: 2})", "no key"),
            ("f(**{'a': 1})", "there is no value"),
            ("[[f(a=1)]]", "a name is missing"),
            ("{\"a\": 1}", "without `name`"),
            ("{'name': 'f'}", "not JSON"),
            ("{\"name\": \"f\", \"arguments\": [1]}", "no object"),
            ("{\"name\": \"f\", \"arguments\": \"x\"}", "no JSON"),
            ("<tool_call>{</tool_call>", "not JSON"),
        ] {
            let found = written(text);
            assert!(found.starts_with("! ") && found.contains(words), "{text}: {found}");
        }
    }

    #[test]
    fn hostile_texts_end_without_a_panic() {
        let many = MAX_BYTES - 16;
        for part in [
            "[",
            "(",
            "{",
            "f(",
            "f(a=",
            "a[",
            "-",
            "'",
            "\"",
            "\\",
            "1",
            "1e",
            "#",
            ",",
            "f(a=[",
            "{\"a\":",
            "é",
            "#\n",
            "<tool_call>",
            "f(a=a[",
            "a.",
            "'' ",
            "f(a=1),",
            "a=1,",
        ] {
            for before in ["", "f(a=", "[f(a=1), ", "f(a=[", "f(a={"] {
                let _ = calls(&format!("{before}{}", part.repeat(many / part.len())));
            }
        }
        assert!(calls(&"f(a=[".repeat(100)).is_err());
        assert!(calls(&format!("f(a={}", "[".repeat(100))).unwrap_err().contains("64 levels"));
        assert!(calls(&"x".repeat(MAX_BYTES + 1)).unwrap_err().contains("are read"));
        for odd in [
            "f(a='\\",
            "f(a='\\x4",
            "f(a='\\uD800')",
            "f(a='\\777')",
            "f(a=r'",
            "f(é=1)",
            "f(a=0x)",
            "f(a=1e)",
            "f(a=-)",
        ] {
            let _ = calls(odd);
        }
    }

    #[test]
    fn literals_are_equal_as_in_python() {
        let value = |text: &str| calls(&format!("f(a={text})")).unwrap()[0].arguments[0].1.clone();
        for (a, b) in [("1", "1.0"), ("1", "True"), ("[1, 2.0]", "[1.0, 2]"), ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}")]
        {
            assert_eq!(value(a), value(b), "{a} and {b}");
        }
        for (a, b) in [
            ("1", "2"),
            ("1", "'1'"),
            ("[1, 2]", "(1, 2)"),
            ("[1, 2]", "[2, 1]"),
            ("None", "False"),
            ("{'a': 1}", "{'a': 1, 'b': 2}"),
        ] {
            assert_ne!(value(a), value(b), "{a} and {b}");
        }
    }
}
