//! A compiled template with a guard at every instruction that can make something large or take long.
//!
//! minijinja bounds instructions but not what one does: `x ~ x` in a loop doubles a text, `[x]` nests, `a == b` compares
//! two lists of any size, and a filter can loop on its own. So the instructions are rewritten: what a guard must see goes
//! through a filter of ours (their names, [`names`], cannot be written in a template), before or behind the instruction.

use std::collections::BTreeMap;

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, parse};
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, State};

use super::limit::{Limit, NODE, VALUE, broken, keep, make, refused, text, weigh, work};
use super::source::WHITESPACE;
use super::{filters, slice};

type Result<T, E = minijinja::Error> = std::result::Result<T, E>;

/// Instructions of a template and of its blocks by name.
pub(super) struct Program<'a> {
    pub(super) main: Instructions<'a>,
    pub(super) blocks: BTreeMap<&'a str, Instructions<'a>>,
}

/// Compiles what [`super::source::prepare`] let through.
pub(super) fn compile<'a>(name: &'a str, source: &'a str) -> Result<Program<'a>> {
    let tree = parse(source, name, Default::default(), WHITESPACE)?;
    let mut generator = CodeGenerator::new(name, source);
    generator.compile_stmt(&tree);
    let (main, blocks) = generator.finish();
    let blocks = blocks.into_iter().map(|(name, code)| Ok((name, guarded(&code)?))).collect::<Result<_>>()?;
    Ok(Program { main: guarded(&main)?, blocks })
}

/// Filters that a template cannot name.
mod names {
    pub(super) const KEEP: &str = "~keep";
    pub(super) const MACRO: &str = "~macro";
    pub(super) const LOOP: &str = "~loop";
    pub(super) const ADD: &str = "~add";
    pub(super) const MULTIPLY: &str = "~multiply";
    pub(super) const CONCATENATE: &str = "~concatenate";
    pub(super) const COMPARE: &str = "~compare";
    pub(super) const INDEX: &str = "~index";
    pub(super) const SLICE: &str = "~slice";
    pub(super) const FILTER: &str = "~filter";
    pub(super) const TEST: &str = "~test";
    pub(super) const METHOD: &str = "~method";
}

pub(super) fn install(environment: &mut Environment) {
    environment.add_filter(names::KEEP, |state: &State, value: Value| keep(state, value, false));
    // Each is remembered until the end, and a macro's call copies the list of all.
    environment.add_filter(names::MACRO, |state: &State, _: Value| make(state, VALUE / 256));
    environment.add_filter(names::LOOP, over);
    environment.add_filter(names::ADD, add);
    environment.add_filter(names::MULTIPLY, multiply);
    environment.add_filter(names::CONCATENATE, concatenate);
    environment.add_filter(names::COMPARE, compare);
    environment.add_filter(names::INDEX, index);
    environment.add_filter(names::SLICE, slice::slice);
    environment.add_filter(names::FILTER, filter);
    environment.add_filter(names::TEST, test);
    environment.add_filter(names::METHOD, method);
}

fn guarded<'a>(code: &Instructions<'a>) -> Result<Instructions<'a>> {
    use Instruction as I;
    let apply = |name: &'static str, count: u16| I::ApplyFilter(name, Some(count), u8::MAX);
    let mut out = Writer { code: Instructions::new(code.name(), code.source()), next: 0 };
    // Where each instruction went, and the end.
    let mut places = Vec::new();
    for index in 0.. {
        places.push(out.next);
        let Some(instruction) = code.get(index) else { break };
        let same = || instruction.clone();
        // A guard takes two operands and gives them back as a list, the upper one first.
        let pair = |name| vec![apply(name, 2), I::UnpackList(2), same()];
        let kept = |mut made: Vec<I<'a>>| {
            made.push(apply(names::KEEP, 1));
            made
        };
        let new: Vec<I> = match *instruction {
            // The formatter counts what is written; this would pass it by.
            I::EmitRaw(raw) => vec![I::LoadConst(raw.into()), I::Emit],
            I::Add => kept(pair(names::ADD)),
            I::Mul => kept(pair(names::MULTIPLY)),
            I::StringConcat => kept(pair(names::CONCATENATE)),
            I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte | I::In | I::CompareAndPreserve(_) => pair(names::COMPARE),
            I::GetItem => pair(names::INDEX),
            I::Slice => kept(vec![apply(names::SLICE, 4)]),
            I::BuildList(_) | I::BuildMap(_) | I::MergeKwargs(_) => kept(vec![same()]),
            // In a list, so that the value itself is no namespace.
            I::SetAttr(_) => {
                vec![I::Swap, I::BuildList(Some(1)), apply(names::KEEP, 1), I::UnpackList(1), I::Swap, same()]
            }
            I::PushLoop(_) => vec![apply(names::LOOP, 1), same()],
            I::BuildMacro(..) => vec![I::LoadConst(1.into()), apply(names::MACRO, 1), I::DiscardTop, same()],
            I::ApplyFilter(name, count, _) => called(name, count, apply, names::FILTER)?,
            I::PerformTest(name, ..) if CHEAP_TESTS.contains(&name) => vec![same()],
            I::PerformTest(name, count, _) => called(name, count, apply, names::TEST)?,
            I::CallMethod(name, count) => called(name, count, apply, names::METHOD)?,
            I::CallFunction(_, None) | I::CallObject(None) => return Err(unpacked()),
            // At most 100,000 numbers, and most often only counted through.
            I::CallFunction("range", _) => vec![same()],
            I::CallFunction(..) | I::CallObject(_) => kept(vec![same()]),
            I::PushAutoEscape => return Err(refused("autoescape is not supported")),
            _ => vec![same()],
        };
        for instruction in new {
            out.add(instruction, code, index);
        }
    }
    for index in 0..out.next {
        if let Some(
            I::Jump(target)
            | I::JumpIfFalse(target)
            | I::JumpIfFalseOrPop(target)
            | I::JumpIfTrueOrPop(target)
            | I::Iterate(target)
            | I::BuildMacro(_, target, _),
        ) = out.code.get_mut(index)
        {
            *target = places[*target as usize];
        }
    }
    Ok(out.code)
}

/// A call whose guard gets the name behind the arguments.
fn called<'a>(
    name: &'a str,
    count: Option<u16>,
    apply: impl Fn(&'static str, u16) -> Instruction<'a>,
    guard: &'static str,
) -> Result<Vec<Instruction<'a>>> {
    let count = count.ok_or_else(unpacked)?.checked_add(1).ok_or_else(|| broken(Limit::Macros, u16::MAX.into()))?;
    Ok(vec![Instruction::LoadConst(name.into()), apply(guard, count)])
}

fn unpacked() -> minijinja::Error {
    refused("arguments unpacked with * are not supported")
}

struct Writer<'a> {
    code: Instructions<'a>,
    next: u32,
}

impl<'a> Writer<'a> {
    /// Adds an instruction at the place in the source of instruction `index` of `of`.
    fn add(&mut self, instruction: Instruction<'a>, of: &Instructions<'a>, index: u32) {
        let at = match (of.get_span(index), of.get_line(index)) {
            (Some(span), _) => self.code.add_with_span(instruction, span),
            (None, Some(line)) => self.code.add_with_line(instruction, line.min(u16::MAX.into()) as u16),
            (None, None) => self.code.add(instruction),
        };
        self.next = at + 1;
    }
}

/// Two operands for `UnpackList(2)`, which leaves the first on top.
fn operands(below: Value, above: Value) -> Value {
    Value::from(vec![above, below])
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn over(state: &State, value: Value) -> Result<Value> {
    work(state, value.as_str().map_or(0, str::len) as u64)?;
    Ok(value)
}

fn add(a: Value, b: Value) -> Result<Value> {
    if !(is_list(&a) && is_list(&b)) {
        return Ok(operands(a, b));
    }
    let (left, right) = (weigh(&a)?, weigh(&b)?);
    if left.bytes + right.bytes > VALUE {
        return Err(broken(Limit::Value, VALUE));
    }
    let whole: Vec<Value> = a.try_iter()?.chain(b.try_iter()?).collect();
    Ok(operands(whole.into(), Value::from(Vec::<Value>::new())))
}

fn multiply(a: Value, b: Value) -> Result<Value> {
    let (repeated, times) = match (a.as_str().is_some() || is_list(&a), b.as_str().is_some() || is_list(&b)) {
        (true, false) => (&a, &b),
        (false, true) => (&b, &a),
        _ => return Ok(operands(a, b)),
    };
    let Some(times) = times.as_usize() else { return Ok(operands(a, b)) };
    let bytes = match repeated.as_str() {
        Some(text) => text.len() as u64,
        // An empty one counts too: repeating it is a loop.
        None => weigh(repeated)?.bytes,
    };
    if bytes.checked_mul(times as u64).is_none_or(|bytes| bytes > VALUE) {
        return Err(broken(Limit::Value, VALUE));
    }
    if repeated.as_str().is_some() {
        return Ok(operands(a, b));
    }
    let items: Vec<Value> = repeated.try_iter()?.collect();
    let whole: Vec<Value> = (0..times).flat_map(|_| items.iter().cloned()).collect();
    Ok(operands(whole.into(), 1.into()))
}

fn concatenate(a: Value, b: Value) -> Result<Value> {
    let printed = |value: Value| match value.as_object() {
        Some(_) => text(&value).map(Value::from),
        None => Ok(value),
    };
    Ok(operands(printed(a)?, printed(b)?))
}

fn compare(state: &State, a: Value, b: Value) -> Result<Value> {
    for value in [&a, &b] {
        if value.as_object().is_some() || value.as_str().is_some() {
            work(state, weigh(value)?.work())?;
        }
    }
    Ok(operands(a, b))
}

fn index(state: &State, container: Value, key: Value) -> Result<Value> {
    match container.kind() {
        ValueKind::String => work(state, container.as_str().map_or(0, str::len) as u64)?,
        ValueKind::Iterable => work(state, weigh(&container)?.nodes * NODE)?,
        _ => {}
    }
    Ok(operands(container, key))
}

/// Filters that look at no more than a value's head.
const CHEAP: [&str; 6] = ["length", "count", "first", "last", "default", "d"];
/// Tests that do.
const CHEAP_TESTS: [&str; 14] = [
    "defined",
    "undefined",
    "none",
    "string",
    "mapping",
    "iterable",
    "sequence",
    "number",
    "integer",
    "float",
    "boolean",
    "true",
    "false",
    "callable",
];
/// Filters whose result can hold several lists.
const COPIES: [&str; 5] = ["map", "batch", "slice", "groupby", "items"];

/// The arguments of a call and the name behind them, with what looking at them costs.
fn arguments(state: &State, mut values: Rest<Value>) -> Result<(String, Vec<Value>)> {
    let name = values.pop().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    for value in values.iter() {
        match value.as_str() {
            Some(text) => work(state, text.len() as u64 / 8)?,
            None if CHEAP.contains(&name.as_str()) || value.as_object().is_none() => {}
            None => work(state, weigh(value)?.work())?,
        }
    }
    Ok((name, std::mem::take(&mut *values)))
}

fn filter(state: &State, values: Rest<Value>) -> Result<Value> {
    let (name, values) = arguments(state, values)?;
    let copies = COPIES.contains(&name.as_str());
    match state.apply_filter(&name, &values) {
        Err(error) if error.kind() == minijinja::ErrorKind::UnknownFilter => {
            Err(refused(format!("filter {name} is unknown")))
        }
        made => keep(state, made?, copies),
    }
}

fn test(state: &State, values: Rest<Value>) -> Result<bool> {
    let (name, values) = arguments(state, values)?;
    match state.perform_test(&name, &values) {
        Err(error) if error.kind() == minijinja::ErrorKind::UnknownTest => {
            Err(refused(format!("test {name} is unknown")))
        }
        result => result,
    }
}

fn method(state: &State, mut values: Rest<Value>) -> Result<Value> {
    let name = values.pop().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    let Some((object, rest)) = values.split_first() else { return Err(refused("a method needs a value")) };
    // A mapping's `get` is as quick as an index; what its lists cost, `keep` counts.
    for text in values.iter().filter_map(Value::as_str) {
        work(state, text.len() as u64 / 8)?;
    }
    if name == "count" && is_list(object) {
        work(state, weigh(object)?.work())?;
    }
    let made = match object.as_str() {
        Some(text) => filters::text_method(state, object, text, &name, rest)?,
        None => object.call_method(state, &name, rest)?,
    };
    keep(state, made, false)
}
