//! Chat templates made up from Jinja's grammar: most of them parse, so what they do is tried and not only how they read.

use super::mutate::Dice;

const NAMES: [&str; 12] =
    ["messages", "m", "n", "n.x", "n.y", "x", "y", "loop", "bos_token", "tools", "range", "namespace"];
const CONSTANTS: [&str; 18] = [
    "0",
    "1",
    "2",
    "-1",
    "7",
    "100000",
    "1000000000",
    "9223372036854775807",
    "1.5",
    "''",
    "'a'",
    "'ab\\nc'",
    "'%s'",
    "'{}'",
    "'é😀'",
    "true",
    "none",
    "'%99999d'",
];
const OPERATORS: [&str; 18] =
    ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or", "is", "if"];
const FILTERS: [&str; 44] = [
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "length",
    "list",
    "string",
    "int",
    "float",
    "bool",
    "abs",
    "round",
    "first",
    "last",
    "min",
    "max",
    "sum",
    "sort",
    "unique",
    "reverse",
    "join",
    "replace",
    "split",
    "lines",
    "batch",
    "slice",
    "indent",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "groupby",
    "dictsort",
    "items",
    "default",
    "attr",
    "format",
    "tojson",
    "escape",
    "safe",
    "pprint",
    "chain",
];
const METHODS: [&str; 24] = [
    "upper",
    "lower",
    "strip",
    "lstrip",
    "rstrip",
    "replace",
    "title",
    "split",
    "splitlines",
    "capitalize",
    "count",
    "find",
    "rfind",
    "format",
    "startswith",
    "endswith",
    "join",
    "isdigit",
    "keys",
    "values",
    "items",
    "get",
    "append",
    "nothing",
];
const TESTS: [&str; 14] = [
    "defined",
    "none",
    "string",
    "mapping",
    "iterable",
    "sequence",
    "number",
    "odd",
    "even",
    "in",
    "eq",
    "startingwith",
    "divisibleby",
    "sameas",
];

/// A template.
pub fn source(dice: &mut Dice) -> String {
    let mut out =
        String::from("{% set n = namespace(x='ab', y=[1, 'b']) %}{% set x = 'text' %}{% set y = [1, 2.5, 'c'] %}");
    let statements = 1 + dice.below(6);
    for _ in 0..statements {
        statement(&mut out, dice, 3);
    }
    out
}

fn statement(out: &mut String, dice: &mut Dice, depth: usize) {
    let inner = |out: &mut String, dice: &mut Dice| {
        if depth > 0 {
            let count = 1 + dice.below(2);
            (0..count).for_each(|_| statement(out, dice, depth - 1));
        }
    };
    match dice.below(14) {
        0..=2 => {
            *out += "{{ ";
            expression(out, dice, depth);
            *out += " }}";
        }
        3 | 4 => {
            *out += "{% set n.x = ";
            expression(out, dice, depth);
            *out += " %}";
        }
        5 => {
            *out += "{% set n.y = ";
            expression(out, dice, depth);
            *out += " %}";
        }
        6 => {
            *out += "{% set ";
            *out += dice.pick(&["x", "y", "x, y", "m", "n"]);
            *out += " = ";
            expression(out, dice, depth);
            *out += " %}";
        }
        7 | 8 => {
            *out += "{% for ";
            *out += dice.pick(&["m", "x, y", "i"]);
            *out += " in ";
            match dice.below(3) {
                0 => *out += "range(90000)",
                1 => *out += "messages",
                _ => expression(out, dice, depth),
            }
            *out += dice.pick(&[" %}", " %}", " recursive %}", " if loop %}", " if m %}"]);
            inner(out, dice);
            *out += dice.pick(&["", "{% break %}", "{{ loop.index }}", "{{ loop(m) }}", "{% else %}e"]);
            *out += "{% endfor %}";
        }
        9 => {
            *out += "{% if ";
            expression(out, dice, depth);
            *out += " %}";
            inner(out, dice);
            *out += "{% elif x %}{% else %}";
            inner(out, dice);
            *out += "{% endif %}";
        }
        10 => {
            *out += "{% macro f(a, b=1) %}{{ a }}";
            inner(out, dice);
            *out += "{% endmacro %}{{ f(";
            expression(out, dice, depth);
            *out += ") }}";
        }
        11 => {
            *out += "{% set x %}";
            inner(out, dice);
            *out += "{% endset %}";
        }
        12 => {
            *out += dice.pick(&["{% filter upper %}", "{% filter indent(9) %}", "{% filter replace('', 'ab') %}"]);
            inner(out, dice);
            *out += "{% endfilter %}";
        }
        _ => *out += dice.pick(&["{%", "%}", "{{", "}}", "{% generation %}", "{% raw %}", "text", "{#", "{%- ", "\n"]),
    }
}

fn expression(out: &mut String, dice: &mut Dice, depth: usize) {
    if depth == 0 {
        return *out += if dice.one_in(2) { dice.pick(&NAMES) } else { dice.pick(&CONSTANTS) };
    }
    let inner = |out: &mut String, dice: &mut Dice| expression(out, dice, depth - 1);
    match dice.below(12) {
        0 => *out += dice.pick(&NAMES),
        1 => *out += dice.pick(&CONSTANTS),
        2..=4 => {
            *out += "(";
            inner(out, dice);
            *out += " ";
            *out += dice.pick(&OPERATORS);
            *out += " ";
            inner(out, dice);
            *out += ")";
        }
        5 | 6 => {
            inner(out, dice);
            *out += " | ";
            *out += dice.pick(&FILTERS);
            arguments(out, dice, depth);
        }
        7 => {
            inner(out, dice);
            *out += ".";
            *out += dice.pick(&METHODS);
            arguments(out, dice, depth);
            if out.ends_with(|letter: char| letter != ')') {
                *out += "()";
            }
        }
        8 => {
            *out += "[";
            inner(out, dice);
            *out += ", ";
            inner(out, dice);
            *out += "]";
        }
        9 => {
            *out += "{'a': ";
            inner(out, dice);
            *out += "}";
        }
        10 => {
            inner(out, dice);
            *out += "[";
            inner(out, dice);
            *out += dice.pick(&["]", ":]", "::-1]", ":9]", ":-1:2]"]);
        }
        _ => {
            inner(out, dice);
            *out += " is ";
            *out += dice.pick(&TESTS);
            arguments(out, dice, depth);
        }
    }
}

fn arguments(out: &mut String, dice: &mut Dice, depth: usize) {
    let count = dice.below(4);
    if count == 0 {
        return;
    }
    *out += "(";
    for _ in 1..count {
        match dice.below(8) {
            0 => *out += "attribute='a', ",
            1 => *out += "width=99999, ",
            _ => {
                expression(out, dice, depth - 1);
                *out += ", ";
            }
        }
    }
    match dice.below(4) {
        0 => {
            *out += "'";
            *out += dice.pick(&FILTERS);
            *out += "'";
        }
        _ => expression(out, dice, depth - 1),
    }
    *out += ")";
}
