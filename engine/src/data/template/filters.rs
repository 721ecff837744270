//! Filters and text methods that could make something much larger than they are given, or loop: each says first how large
//! its result will be. `map` calls them without a guard, so the count is theirs.

use minijinja::filters;
use minijinja::value::{Kwargs, Rest, StringInput, Value, from_args};
use minijinja::{Environment, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::limit::{Limit, NODE, broken, make, refused, text, weigh};

type Result<T, E = minijinja::Error> = std::result::Result<T, E>;

/// Largest width, count or set of letters that a template may ask for.
const ARGUMENT: usize = 4096;

pub(super) fn install(environment: &mut Environment) {
    environment.add_filter("batch", batch);
    environment.add_filter("slice", slice);
    environment.add_filter("indent", indent);
    environment.add_filter("join", |state: &State, values: &Value, joiner: Option<StringInput>| {
        join(state, values, joiner.as_ref().map_or("", StringInput::as_str))
    });
    environment.add_filter("replace", |state: &State, value: StringInput, from: StringInput, to: StringInput| {
        replace(state, value.as_str(), from.as_str(), to.as_str(), usize::MAX)
    });
    environment.add_filter("format", |state: &State, value: &Value, values: Rest<Value>| {
        check_format(state, value.as_str().unwrap_or_default(), &values)?;
        filters::format(state, value, values)
    });
    environment.add_filter("trim", |value: StringInput, letters: Option<std::borrow::Cow<str>>| {
        bounded(letters.as_ref().map_or(0, |letters| letters.chars().count()))?;
        Ok::<_, minijinja::Error>(filters::trim(value, letters))
    });
    environment.add_filter("string", |state: &State, value: &Value| {
        let text = text(value)?;
        make(state, text.len() as u64)?;
        Ok::<_, minijinja::Error>(text)
    });
    // minijinja's own divides by zero.
    environment.add_test("divisibleby", |value: Value, by: Value| match (i128::try_from(value), i128::try_from(by)) {
        (_, Ok(0)) => Err(refused("divisibleby zero")),
        (Ok(value), Ok(by)) => Ok(value.checked_rem(by).unwrap_or(0) == 0),
        _ => Ok(false),
    });
    // What Jinja in Python does not have, no model's template needs: lazy lists in lazy lists, and pictures of everything.
    for name in ["chain", "zip", "pprint"] {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.set_unknown_method_callback(|state, value, method, arguments| match value.as_str() {
        Some(text) => text_method(state, value, text, method, arguments),
        None => unknown_method_callback(state, value, method, arguments),
    });
}

fn bounded(argument: usize) -> Result<()> {
    if argument > ARGUMENT { Err(broken(Limit::Argument, ARGUMENT as u64)) } else { Ok(()) }
}

/// A method of a Python `str`.
pub(super) fn text_method(state: &State, value: &Value, text: &str, name: &str, arguments: &[Value]) -> Result<Value> {
    let argument = |at: usize| arguments.get(at).and_then(Value::as_str);
    match (name, argument(0), argument(1)) {
        // Python finds the empty text around every letter; minijinja looks for it forever.
        ("count", Some(what), None) if arguments.len() == 1 => {
            let places = if what.is_empty() { text.chars().count() + 1 } else { text.matches(what).count() };
            return Ok(places.into());
        }
        ("replace", Some(from), Some(to)) if arguments.len() <= 3 => {
            let times = match arguments.get(2) {
                None => usize::MAX,
                Some(times) if times.is_none() => usize::MAX,
                // Below zero means every one.
                Some(times) => usize::try_from(i64::try_from(times.clone())?).unwrap_or(usize::MAX),
            };
            return replace(state, text, from, to, times).map(Value::from);
        }
        ("join", _, _) => {
            let [values] = arguments else { return Err(refused("join takes one argument")) };
            return join(state, values, text).map(Value::from);
        }
        ("strip" | "lstrip" | "rstrip", Some(letters), _) => bounded(letters.chars().count())?,
        ("format", _, _) => check_format(state, text, arguments)?,
        _ => {}
    }
    unknown_method_callback(state, value, name, arguments)
}

fn batch(state: &State, value: Value, count: usize, fill: Option<Value>) -> Result<Value> {
    bounded(count)?;
    let items = value.len().unwrap_or(0);
    make(state, (items + count) as u64 * 2 * NODE)?;
    filters::batch(state, value, count, fill)
}

fn slice(state: &State, value: Value, count: usize, fill: Option<Value>) -> Result<Value> {
    bounded(count)?;
    let items = value.len().unwrap_or(0);
    make(state, (items + count) as u64 * 2 * NODE)?;
    filters::slice(state, value, count, fill)
}

fn indent(state: &State, value: StringInput, arguments: Rest<Value>) -> Result<Value> {
    let (width, first, blank, options): (Option<usize>, Option<bool>, Option<bool>, Kwargs) = from_args(&arguments)?;
    let width = match width {
        Some(width) => width,
        None => options.get::<Option<usize>>("width")?.unwrap_or(4),
    };
    bounded(width)?;
    let lines = value.as_str().matches('\n').count() + 1;
    make(state, (value.as_str().len() + lines * width) as u64)?;
    filters::indent(value, Some(width), first, blank, options)
}

fn join(state: &State, values: &Value, joiner: &str) -> Result<String> {
    let mut whole = String::new();
    let values = values.try_iter().map_err(|_| refused(format!("cannot join value of type {}", values.kind())))?;
    for (place, value) in values.enumerate() {
        let joiner = if place == 0 { "" } else { joiner };
        let printed = text(&value)?;
        make(state, (joiner.len() + printed.len()) as u64)?;
        whole.push_str(joiner);
        whole.push_str(&printed);
    }
    Ok(whole)
}

fn replace(state: &State, text: &str, from: &str, to: &str, times: usize) -> Result<String> {
    let places = text.matches(from).take(times).count();
    let bytes = places.checked_mul(to.len()).and_then(|added| added.checked_add(text.len()));
    make(state, bytes.map_or(u64::MAX, |bytes| bytes as u64))?;
    Ok(text.replacen(from, to, times))
}

/// Bounds what `%` or `{}` formatting makes: widths and precisions, and how often an argument is written.
fn check_format(state: &State, pattern: &str, arguments: &[Value]) -> Result<()> {
    let (mut digits, mut open, mut previous) = (0, false, ' ');
    for letter in pattern.chars() {
        digits = if letter.is_ascii_digit() { digits + 1 } else { 0 };
        // A width that is an argument itself.
        let inner = letter == '{' && open && previous != '{';
        if digits > 4 || inner || letter == '*' && pattern.contains('%') {
            return Err(refused("a format may have widths and precisions of four digits, written out"));
        }
        open = match letter {
            '{' => !(open && previous == '{'),
            '}' => false,
            _ => open,
        };
        previous = letter;
    }
    let places = pattern.matches(['%', '{']).count() as u64;
    let mut widest = 10_000;
    for argument in arguments {
        widest = widest.max(weigh(argument)?.bytes);
    }
    // A text inside a list is written with escapes.
    make(state, places.saturating_mul(widest).saturating_mul(4).saturating_add(pattern.len() as u64))
}
