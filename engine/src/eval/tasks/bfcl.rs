//! Calls of functions from the Berkeley Function Calling Leaderboard (Patil et al. 2025), version 4, Python: one call,
//! one of several functions, several calls, both, and questions that no function answers.
//!
//! A text's calls ([`super::calls`]) are right where the public checker's abstract-syntax match finds them so: as many
//! calls as are expected, in any order; of each the name, all required parameters, none that is not known; of each
//! parameter the type, and a value among those that are possible, texts compared without ` ,./-_*^`, in small letters and
//! with one kind of quotation marks; a parameter with `""` among its possible values may be left out. Where nothing
//! fits, no call is right.
//!
//! Differences: a text is read once, whatever its syntax, where the public handlers know the syntax of each model; names
//! keep their points; arithmetic in a value is not calculated; `+1` is 1; values that would stop the checker (a number
//! where a list is described) are wrong.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::calls::{Call, Literal, calls};
use super::{Checked, text};
use crate::data::Message;

/// Categories, as they are called here and in the files' names.
pub(super) const CATEGORIES: [(&str, &str); 5] = [
    ("simple", "simple_python"),
    ("multiple", "multiple"),
    ("parallel", "parallel"),
    ("parallel_multiple", "parallel_multiple"),
    ("irrelevance", "irrelevance"),
];

/// Python's type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    None,
    Bool,
    Integer,
    Float,
    Text,
    List,
    Tuple,
    Dict,
}

impl Type {
    fn of(value: &Literal) -> Self {
        match value {
            Literal::None => Self::None,
            Literal::Bool(_) => Self::Bool,
            Literal::Integer(_) => Self::Integer,
            Literal::Float(_) => Self::Float,
            Literal::Text(_) => Self::Text,
            Literal::List(_) => Self::List,
            Literal::Tuple(_) => Self::Tuple,
            Literal::Dict(_) => Self::Dict,
        }
    }

    /// The type that a description names.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "string" | "any" => Self::Text,
            "integer" => Self::Integer,
            "float" => Self::Float,
            "boolean" => Self::Bool,
            "array" | "tuple" => Self::List,
            "dict" => Self::Dict,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Parameter {
    name: String,
    of: Type,
    /// Described as a tuple, which JSON cannot hold.
    tuple: bool,
    /// Of a list.
    items: Option<Type>,
}

/// A call that is expected.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    name: String,
    parameters: Vec<Parameter>,
    required: Vec<String>,
    /// Values that are possible, by the name of a parameter.
    possible: Vec<(String, Vec<Literal>)>,
}

/// A question with functions.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolQuestion {
    /// `simple`, `multiple`, `parallel`, `parallel_multiple` or `irrelevance`.
    pub category: &'static str,
    /// For a chat template that takes functions.
    pub messages: Vec<Message>,
    /// The functions as such a template expects them: JSON Schema, each in `{"type": "function", "function": ..}`.
    pub tools: Value,
    /// The functions and the question in words, where no template takes them.
    pub told: String,
    /// The expected calls as the file has them.
    pub answer: Value,
    expected: Vec<Expected>,
}

/// What was found in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
    /// The calls that it makes; none where it makes none.
    pub calls: Option<String>,
    /// Whether they are right.
    pub right: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// Whether the calls of a text are those that a question expects.
pub fn call(question: &ToolQuestion, text: &str) -> Called {
    let found = calls(text);
    let written = found.as_ref().ok().filter(|calls| !calls.is_empty());
    let written =
        written.map(|calls| format!("[{}]", calls.iter().map(Call::to_string).collect::<Vec<_>>().join(", ")));
    let problem = match (found, question.category) {
        (Ok(calls), "irrelevance") if !calls.is_empty() => Some("a function is called, and none fits".into()),
        (_, "irrelevance") => None,
        (Err(problem), _) => Some(format!("the text is not calls: {problem}")),
        (Ok(calls), _) => all_match(&question.expected, &calls).err(),
    };
    Called { calls: written, right: problem.is_none(), problem }
}

/// A question of a category, with its answer out of the other file.
pub(super) fn question(category: &'static str, record: &Value, answers: Option<&Answers>) -> Checked<ToolQuestion> {
    let turns = record.get("question").and_then(Value::as_array).ok_or("field `question` is no list")?;
    let [turn] = turns.as_slice() else { return Err(format!("there are {} turns, and one is needed", turns.len())) };
    let turn = turn.as_array().filter(|turn| !turn.is_empty()).ok_or("field `question` is no list of lists")?;
    let message = |message: &Value| Ok(Message::new(text(message, "role")?, text(message, "content")?));
    let messages: Vec<Message> = turn.iter().map(message).collect::<Checked<_>>()?;
    let functions = record.get("function").and_then(Value::as_array).filter(|list| !list.is_empty());
    let functions = functions.ok_or("field `function` is no list of functions")?;
    let described = functions.iter().map(described).collect::<Checked<Vec<_>>>()?;
    let (answer, expected) = match answers {
        None => (json!([]), Vec::new()),
        Some(answers) => {
            let answer = answers.of(&text(record, "id")?)?;
            let list =
                answer.as_array().filter(|list| !list.is_empty()).ok_or("its `ground_truth` is no list of calls")?;
            (answer.clone(), list.iter().map(|call| expected(call, &described)).collect::<Checked<_>>()?)
        }
    };
    let words: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
    let told = format!(
        "You can call functions. Answer with the calls that the question takes, one or several, and nothing else, in the \
         form [name(parameter=value, ...), ...]. If no function fits, or the question lacks a value that is required, \
         say so instead.\n\nFunctions:\n{}\n\nQuestion: {}",
        functions.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
        words.join("\n")
    );
    let tools = functions.iter().map(|function| json!({"type": "function", "function": schema(function)})).collect();
    Ok(ToolQuestion { category, messages, tools, told, answer, expected })
}

/// The file of answers of a category.
pub(super) struct Answers {
    file: String,
    by_id: HashMap<String, Value>,
    /// The first line that cannot be read, and why.
    broken: Option<String>,
}

impl Answers {
    /// Reads the lines; a line that cannot be read is a problem of whatever question lacks its answer.
    pub(super) fn new(file: String, lines: impl Iterator<Item = (usize, Checked<Value>)>) -> Self {
        let mut answers = Self { file, by_id: HashMap::new(), broken: None };
        for (line, record) in lines {
            let read = record.and_then(|record| {
                let id = text(&record, "id")?;
                let truth = record.get("ground_truth").ok_or("field `ground_truth` is missing")?.clone();
                match answers.by_id.insert(id.clone(), truth) {
                    Some(_) => Err(format!("{id} is there twice")),
                    None => Ok(()),
                }
            });
            if let Err(problem) = read {
                answers.broken.get_or_insert(format!("line {line}: {problem}"));
            }
        }
        answers
    }

    fn of(&self, id: &str) -> Checked<&Value> {
        let broken = self.broken.as_ref().map(|broken| format!("; its {broken}")).unwrap_or_default();
        self.by_id.get(id).ok_or_else(|| format!("{} has no answer for {id}{broken}", self.file))
    }
}

/// Name, parameters and names of the required ones of a function.
type Described = (String, Vec<Parameter>, Vec<String>);

fn described(function: &Value) -> Checked<Described> {
    let name = text(function, "name")?;
    let parameters = function.get("parameters").ok_or_else(|| format!("function {name} has no `parameters`"))?;
    let properties = parameters.get("properties").and_then(Value::as_object);
    let properties = properties.ok_or_else(|| format!("the parameters of function {name} have no `properties`"))?;
    let required = match parameters.get("required") {
        None => Vec::new(),
        Some(list) => {
            let names = list.as_array().map(|list| list.iter().map(|name| name.as_str().map(str::to_owned)));
            let names: Option<Vec<String>> = names.and_then(Iterator::collect);
            names.ok_or_else(|| format!("`required` of function {name} is no list of texts"))?
        }
    };
    let mut all = Vec::new();
    for (parameter, about) in properties {
        let kind = |about: &Value| {
            let named = about.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
            let of = Type::named(&named).ok_or_else(|| {
                format!("parameter {parameter} of function {name} has the type {named:?}, which is none of BFCL's")
            });
            of.map(|of| (of, named))
        };
        let (of, named) = kind(about)?;
        let items = match (of, about.get("items")) {
            (Type::List, None) => {
                return Err(format!("parameter {parameter} of function {name} is a list without `items`"));
            }
            (Type::List, Some(items)) => Some(kind(items)?.0),
            _ => None,
        };
        all.push(Parameter { name: parameter.clone(), of, tuple: named == "tuple", items });
    }
    Ok((name, all, required))
}

fn expected(call: &Value, described: &[Described]) -> Checked<Expected> {
    let call = call.as_object().filter(|call| call.len() == 1).and_then(|call| call.iter().next());
    let (name, values) = call.ok_or("its `ground_truth` is no list of calls, each an object with one name")?;
    let function = described.iter().find(|(other, ..)| other == name);
    let (_, parameters, required) = function.ok_or_else(|| format!("the answer calls {name}, which is not offered"))?;
    let wrong = || format!("the answer's values of {name} are no object of lists");
    let possible = values.as_object().ok_or_else(wrong)?.iter().map(|(parameter, values)| {
        let values = values.as_array().ok_or_else(wrong)?;
        Ok((parameter.clone(), values.iter().map(Literal::from).collect()))
    });
    Ok(Expected {
        name: name.clone(),
        parameters: parameters.clone(),
        required: required.clone(),
        possible: possible.collect::<Checked<_>>()?,
    })
}

/// A function with the types of JSON Schema.
fn schema(function: &Value) -> Value {
    fn types(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let field = |(name, value): (&String, &Value)| {
                    let value = match value.as_str().filter(|_| name == "type") {
                        Some("dict") => json!("object"),
                        Some("float") => json!("number"),
                        Some("tuple") => json!("array"),
                        Some("any") => json!("string"),
                        _ => types(value),
                    };
                    (name.clone(), value)
                };
                Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(types).collect(),
            other => other.clone(),
        }
    }
    types(function)
}

/// Whether each expected call is made by one of the calls, in any order.
fn all_match(expected: &[Expected], calls: &[Call]) -> Checked<()> {
    if calls.len() != expected.len() {
        return Err(format!("there are {} calls, and {} are expected", calls.len(), expected.len()));
    }
    let mut left: Vec<&Call> = calls.iter().collect();
    for one in expected {
        let mut problem = String::new();
        let found = left.iter().position(|call| match matches(one, call) {
            Ok(()) => true,
            Err(why) => {
                // The reason of a call of that name tells more.
                if problem.is_empty() || call.name == one.name {
                    problem = why;
                }
                false
            }
        });
        match found {
            Some(at) => drop(left.remove(at)),
            None => return Err(problem),
        }
    }
    Ok(())
}

/// Whether a call is the expected one.
fn matches(expected: &Expected, call: &Call) -> Checked<()> {
    if call.name != expected.name {
        return Err(format!("{} is called, and {} is expected", call.name, expected.name));
    }
    if let Some(name) = expected.required.iter().find(|name| call.get(name).is_none()) {
        return Err(format!("the required parameter {name} is missing"));
    }
    for (name, value) in &call.arguments {
        let parameter = expected.parameters.iter().find(|parameter| parameter.name == *name);
        let possible = expected.possible.iter().find(|(other, _)| other == name);
        let (Some(parameter), Some((_, possible))) = (parameter, possible) else {
            return Err(format!("parameter {name} is not expected"));
        };
        let converted = match (value, parameter.of) {
            (Literal::Tuple(items), _) if parameter.tuple => Literal::List(items.clone()),
            (Literal::Integer(whole), Type::Float) => Literal::Float(*whole as f64),
            (value, _) => value.clone(),
        };
        let Some(is_variable) = typed(&converted, possible, parameter.of, parameter.items) else {
            return Err(format!("parameter {name} has a value of another type: {value}"));
        };
        let right = match (parameter.of, &converted) {
            _ if is_variable => possible.contains(&converted),
            (Type::Dict, value) => possible.iter().any(|possible| dict(value, possible)),
            (Type::List, Literal::List(items)) if parameter.items == Some(Type::Dict) => {
                possible.iter().any(|possible| dicts(items, possible))
            }
            (Type::Text, Literal::Text(text)) => {
                let of = |other: &Literal| matches!(other, Literal::Text(other) if plain(other) == plain(text));
                possible.iter().any(of)
            }
            (Type::List, Literal::List(items)) => {
                let own: Vec<Literal> = items.iter().map(standard).collect();
                let of =
                    |other: &Literal| values(other).is_some_and(|v| v.iter().map(standard).eq(own.iter().cloned()));
                possible.iter().any(of)
            }
            (_, value) => possible.contains(value),
        };
        if !right {
            return Err(format!("parameter {name} has a wrong value: {value}"));
        }
    }
    let left_out = |(name, values): &&(String, Vec<Literal>)| call.get(name).is_none() && !values.iter().any(is_empty);
    match expected.possible.iter().find(left_out) {
        Some((name, _)) => Err(format!("parameter {name} is missing")),
        None => Ok(()),
    }
}

/// `""`: a parameter may be left out.
fn is_empty(value: &Literal) -> bool {
    matches!(value, Literal::Text(text) if text.is_empty())
}

/// Whether a value has the type that is described, or that of the possible values: the name of a variable is a text,
/// whatever it stands for, and then the answer is true.
fn typed(value: &Literal, possible: &[Literal], of: Type, items: Option<Type>) -> Option<bool> {
    let of_possible = possible.iter().find(|value| !is_empty(value)).map(Type::of);
    if Type::of(value) != of {
        return (of_possible == Some(Type::of(value))).then_some(true);
    }
    let is_variable = of_possible.is_some_and(|other| other != of);
    let (Some(inner), Literal::List(own)) = (items, value) else { return Some(is_variable) };
    let fits = |possible: &Literal| match possible {
        Literal::List(others) => own.iter().all(|value| typed(value, others, inner, None).is_some()),
        _ => true,
    };
    possible.iter().any(fits).then_some(is_variable)
}

/// A text without what is not compared.
fn plain(text: &str) -> String {
    let kept = text.chars().filter(|c| !matches!(c, ' ' | ',' | '.' | '/' | '-' | '_' | '*' | '^'));
    kept.collect::<String>().to_lowercase().replace('\'', "\"")
}

fn standard(value: &Literal) -> Literal {
    match value {
        Literal::Text(text) => Literal::Text(plain(text)),
        other => other.clone(),
    }
}

/// What Python goes through in a list, or in a text.
fn values(of: &Literal) -> Option<Vec<Literal>> {
    match of {
        Literal::List(items) => Some(items.clone()),
        Literal::Text(text) => Some(text.chars().map(|c| Literal::Text(c.to_string())).collect()),
        _ => None,
    }
}

/// Whether a dictionary has the keys of a possible one, each with one of its values; keys with `""` may be missing.
fn dict(value: &Literal, possible: &Literal) -> bool {
    let (Literal::Dict(own), Literal::Dict(possible_pairs)) = (value, possible) else { return false };
    let known = |(key, value): &(Literal, Literal)| {
        let Literal::Text(key) = key else { return false };
        let others = possible.get(key).and_then(values).unwrap_or_default();
        others.iter().any(|other| standard(other) == standard(value))
    };
    let there = |(key, others): &(Literal, Literal)| {
        own.iter().any(|(name, _)| name == key) || values(others).is_some_and(|others| others.iter().any(is_empty))
    };
    own.iter().all(known) && possible_pairs.iter().all(there)
}

/// The same for a list of dictionaries, in order.
fn dicts(own: &[Literal], possible: &Literal) -> bool {
    let Some(possible) = values(possible) else { return false };
    own.len() == possible.len() && own.iter().zip(&possible).all(|(own, possible)| dict(own, possible))
}
