//! The limits that a chat template works under, and how one that breaks them is refused.
//!
//! Instructions are counted by minijinja (its fuel). It does not count what one instruction does, so the rest is counted
//! here, in two sums of one rendering: [`MADE`], the bytes of values that came to be, and [`WORK`], the bytes that had to
//! be looked at. Both are deterministic: the same template is refused natively and in a page.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use minijinja::value::{Object, ObjectRepr, Value, ValueKind};
use minijinja::{ErrorKind, State};

use crate::error::Error;

/// Instructions of one rendering. Real templates need about two hundred a message.
pub(super) const INSTRUCTIONS: u64 = 5_000_000;
/// Depth of macros and nested blocks.
pub(super) const RECURSION: usize = 120;
/// Bytes of one value, as if nothing in it were shared: what it would have as a text, and [`NODE`] for each part.
pub(super) const VALUE: u64 = 64 << 20;
/// Bytes of all values that one rendering makes, its output among them.
const MADE: u64 = 512 << 20;
/// Bytes of values that one rendering looks at.
const WORK: u64 = 1 << 30;
/// Bytes that a number or an entry of a list counts as, which is what one takes in memory.
pub(super) const NODE: u64 = 24;
/// Lists and mappings inside each other.
const DEPTH: usize = 64;

/// A limit, as it is named to whoever brought the template.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    Source,
    Tokens,
    Links,
    Constants,
    Elifs,
    Instructions,
    Value,
    Made,
    Work,
    Depth,
    Argument,
    Macros,
    #[cfg(not(target_family = "wasm"))]
    Seconds,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "bytes of source",
            Self::Tokens => "words and signs in one tag",
            Self::Links => "operators and brackets in one tag",
            Self::Constants => "bytes of one tag, times its operators",
            Self::Elifs => "elif",
            Self::Instructions => "instructions in one rendering (fuel)",
            Self::Value => "bytes in one value",
            Self::Made => "bytes of values made in one rendering",
            Self::Work => "bytes of values looked at in one rendering",
            Self::Depth => "lists and mappings inside each other",
            Self::Argument => "as a width, a count or a number of letters to strip",
            Self::Macros => "arguments of one call or entries of one mapping",
            #[cfg(not(target_family = "wasm"))]
            Self::Seconds => "seconds for one conversation",
        })
    }
}

/// What can be done about a template that cannot be used.
pub(super) const ADVICE: &str =
    "set data.template to \"none\" to train without it, or put another one into chat_template.jinja beside the model";

/// The same where nothing but a template writes what is meant.
pub(super) const OTHER: &str = "put another one into chat_template.jinja beside the model";

/// Refuses a template; `found` where it is known.
pub(super) fn exceeded(limit: Limit, found: usize, allowed: usize) -> Error {
    Error::Template { problem: format!("it exceeds the limit of {allowed} {limit} (it has {found}); {ADVICE}") }
}

/// As [`exceeded`], from inside a rendering.
pub(super) fn broken(limit: Limit, allowed: u64) -> minijinja::Error {
    refused(format!("it exceeds the limit of {allowed} {limit}"))
}

/// Any other refusal from inside a rendering.
pub(super) fn refused(why: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, why.into())
}

/// What is left of the two sums.
#[derive(Debug)]
struct Budget {
    made: AtomicU64,
    work: AtomicU64,
}

impl Object for Budget {}

fn take(state: &State, sum: fn(&Budget) -> &AtomicU64, amount: u64) -> bool {
    let fresh = || Budget { made: MADE.into(), work: WORK.into() };
    let budget = state.get_or_set_temp_object("budget", fresh);
    // One thread renders.
    let left = sum(&budget).load(Ordering::Relaxed).checked_sub(amount);
    sum(&budget).store(left.unwrap_or(0), Ordering::Relaxed);
    left.is_some()
}

/// Counts `bytes` that come to be.
pub(super) fn make(state: &State, bytes: u64) -> Result<(), minijinja::Error> {
    if bytes > VALUE {
        return Err(broken(Limit::Value, VALUE));
    }
    take(state, |budget| &budget.made, bytes).then_some(()).ok_or_else(|| broken(Limit::Made, MADE))
}

/// Counts bytes that are written.
pub(super) fn write(state: &State, bytes: usize) -> Result<(), minijinja::Error> {
    written_so_far(state).0.fetch_add(bytes, Ordering::Relaxed);
    make(state, bytes as u64)
}

/// Bytes that a rendering has written: where it stands in its output, for templates that do not capture any.
pub(super) fn written(state: &State) -> usize {
    written_so_far(state).0.load(Ordering::Relaxed)
}

#[derive(Debug, Default)]
struct Written(AtomicUsize);

impl Object for Written {}

fn written_so_far(state: &State) -> Arc<Written> {
    state.get_or_set_temp_object("written", Written::default)
}

/// Counts `bytes` that are looked at.
pub(super) fn work(state: &State, bytes: u64) -> Result<(), minijinja::Error> {
    take(state, |budget| &budget.work, bytes).then_some(()).ok_or_else(|| broken(Limit::Work, WORK))
}

/// What a value amounts to, as if nothing in it were shared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    /// The value and all its parts.
    pub(super) nodes: u64,
    /// Bytes of its texts, and [`NODE`] for each node.
    pub(super) bytes: u64,
    /// Some part of it is computed only when it is looked at.
    pub(super) lazy: bool,
}

impl Weight {
    /// What looking at all of it costs: a text is read eight bytes at a time.
    pub(super) fn work(self) -> u64 {
        self.nodes * NODE + self.bytes / 8
    }
}

/// Weighs a value.
///
/// # Errors
/// One that is too large or too deep, and one with a namespace in it, since that could come to contain itself.
pub(super) fn weigh(value: &Value) -> Result<Weight, minijinja::Error> {
    let mut weight = Weight::default();
    walk(value, 0, &mut weight)?;
    Ok(weight)
}

fn walk(value: &Value, depth: usize, weight: &mut Weight) -> Result<(), minijinja::Error> {
    weight.nodes += 1;
    weight.bytes += NODE;
    if depth > DEPTH {
        return Err(broken(Limit::Depth, DEPTH as u64));
    }
    if let Some(text) = value.as_str() {
        weight.bytes += text.len() as u64;
    } else if let Some(bytes) = value.as_bytes() {
        weight.bytes += bytes.len() as u64;
    }
    if weight.bytes > VALUE {
        return Err(broken(Limit::Value, VALUE));
    }
    if let Some(object) = value.as_object() {
        if depth > 0 && is_namespace(value) {
            return Err(refused("a namespace cannot be put into a list, a mapping or another namespace"));
        }
        match object.repr() {
            ObjectRepr::Map => {
                for (key, value) in object.try_iter_pairs().into_iter().flatten() {
                    walk(&key, depth + 1, weight)?;
                    walk(&value, depth + 1, weight)?;
                }
            }
            ObjectRepr::Seq | ObjectRepr::Iterable => {
                weight.lazy |= object.repr() == ObjectRepr::Iterable;
                for item in object.try_iter().into_iter().flatten() {
                    walk(&item, depth + 1, weight)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The one kind of value that a template can change.
pub(super) fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// A value as it is printed, up to the limit of one value.
pub(super) fn text(value: &Value) -> Result<String, minijinja::Error> {
    let mut limited = Limited(String::new());
    fmt::write(&mut limited, format_args!("{value}")).map_err(|_| broken(Limit::Value, VALUE))?;
    Ok(limited.0)
}

struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > VALUE as usize {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// A value that an instruction made, if it may be; what is computed lazily is computed now, so that it costs once and
/// nothing lazy is put into something lazy. `copies` where it may hold copies, not only what was there before.
pub(super) fn keep(state: &State, value: Value, copies: bool) -> Result<Value, minijinja::Error> {
    let weight = match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain => weigh(&value)?,
        ValueKind::String | ValueKind::Bytes => {
            let bytes = value.as_str().map_or(0, str::len).max(value.as_bytes().map_or(0, <[u8]>::len)) as u64;
            make(state, bytes)?;
            return Ok(value);
        }
        _ => return Ok(value),
    };
    work(state, weight.nodes * NODE)?;
    let nodes = if copies || weight.lazy { weight.nodes } else { 1 + value.len().unwrap_or(0) as u64 };
    make(state, nodes * NODE)?;
    Ok(if weight.lazy { solid(&value) } else { value })
}

/// The same with every lazy part as a list. Mappings are made of values that were solid before.
fn solid(value: &Value) -> Value {
    match value.as_object() {
        // A group is a list with names for its two items.
        Some(object) if object.type_name().ends_with("::GroupTuple") => value.clone(),
        Some(object) if matches!(object.repr(), ObjectRepr::Seq | ObjectRepr::Iterable) => {
            Value::from(object.try_iter().into_iter().flatten().map(|item| solid(&item)).collect::<Vec<_>>())
        }
        _ => value.clone(),
    }
}
