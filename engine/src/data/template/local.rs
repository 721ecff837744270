//! Templates that write a conversation message by message, so that one rendering shows where each message begins.
//!
//! Where an assistant's turn lies is read off two renderings of the conversation up to it, which for every turn of a long
//! chat takes quadratic time. Most templates are a head, one loop over the messages, and a tail; if what the loop writes
//! of a message cannot depend on what follows it, every such rendering is a prefix of the whole one and the tail. This file
//! reads a template's source and says yes only where that is certain:
//!
//! - `messages` appears in the one loop, outside of any block, and else only as `messages[0]`;
//! - `loop` appears only as `loop.first`, `loop.index` and `loop.index0`, which say nothing of what follows;
//! - nothing is called but functions whose results depend on their arguments alone;
//! - head and loop do not ask for `add_generation_prompt`, and the tail asks for nothing that head or loop could have set;
//! - there are no tags but `for`, `if` and `set`, so that no output is captured, included or written by a macro.

use std::iter::Peekable;
use std::str::CharIndices;

/// Name of the function that a marked template calls where a message begins, and behind the last one.
pub(super) const MARK: &str = "temper_mark";

/// The source with a call of [`MARK`] before each message and behind the last; `None` where the template is not certain
/// to write message by message. Output is the same.
pub(super) fn marked(source: &str) -> Option<String> {
    let mut place = Place::Head;
    let mut blocks: Vec<Block> = Vec::new();
    let mut marks: Vec<(usize, char)> = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{') {
        let start = at + open;
        let rest = &source[start..];
        if rest.starts_with("{#") {
            at = start + rest.find("#}")? + 2;
            continue;
        }
        let close = match rest.as_bytes().get(1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            _ => {
                at = start + 1;
                continue;
            }
        };
        let tag = Tag::read(&rest[2..], close)?;
        at = start + 2 + tag.length;
        let words = tag.words.as_slice();
        let begins = close == "%}" && is_loop_over_messages(words);
        if begins {
            if place != Place::Head || !blocks.is_empty() {
                return None;
            }
            place = Place::Loop;
            blocks.push(Block::Messages);
            marks.push((at, tag.control));
            continue;
        }
        if !place.allows(words) {
            return None;
        }
        if close == "}}" {
            continue;
        }
        match *words.first()? {
            "for" => blocks.push(Block::For),
            "if" => blocks.push(Block::If),
            "elif" | "else" if blocks.last() == Some(&Block::If) => {}
            "endif" if blocks.pop() == Some(Block::If) => {}
            // Without a value it captures output; what the tail asks for must stay what it is.
            "set" if words.contains(&"=") && !TAIL_WORDS.contains(words.get(1)?) => {}
            "endfor" => match blocks.pop()? {
                Block::For => {}
                Block::Messages => {
                    place = Place::Tail;
                    marks.push((at, tag.control));
                }
                Block::If => return None,
            },
            _ => return None,
        }
    }
    let whole = place == Place::Tail && blocks.is_empty();
    whole.then(|| {
        let mut out = source.to_owned();
        // From behind, so that places stay right. A tag behind a tag, which trims what follows as that one would.
        for (at, control) in marks.into_iter().rev() {
            let control = if control == '%' { String::new() } else { control.to_string() };
            out.insert_str(at, &format!("{{% set {MARK}_ = {MARK}() {control}%}}"));
        }
        out
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Loop,
    Tail,
}

#[derive(PartialEq, Eq)]
enum Block {
    Messages,
    For,
    If,
}

impl Place {
    /// Whether a tag of these words may stand here.
    fn allows(self, words: &[&str]) -> bool {
        let is_name = |word: &str| word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        (0..words.len()).filter(|&at| is_name(words[at])).all(|at| {
            let word = words[at];
            let (before, after) = (at.checked_sub(1).map_or("", |at| words[at]), &words[at + 1..]);
            if self == Self::Tail {
                return TAIL_WORDS.contains(&word);
            }
            // A field, a method or a filter: whatever it is called, its value comes from what it is applied to.
            if before == "." || before == "|" {
                return true;
            }
            match word {
                "messages" => after.starts_with(&["[", "0", "]"]),
                "loop" => after.starts_with(&["."]) && after.get(1).is_some_and(|of| LOOP_WORDS.contains(of)),
                "add_generation_prompt" | "self" => false,
                _ => !after.starts_with(&["("]) || CALLED.contains(&word),
            }
        })
    }
}

/// All that a tail may say: it writes the same whatever the messages are.
const TAIL_WORDS: [&str; 19] = [
    "if",
    "elif",
    "else",
    "endif",
    "and",
    "or",
    "not",
    "is",
    "defined",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "add_generation_prompt",
    "enable_thinking",
    "bos_token",
    "eos_token",
];
const LOOP_WORDS: [&str; 3] = ["first", "index", "index0"];
/// What may stand before a parenthesis: functions of their arguments, and operators.
const CALLED: [&str; 14] = [
    "raise_exception",
    "namespace",
    "range",
    "dict",
    "if",
    "elif",
    "and",
    "or",
    "not",
    "in",
    "is",
    "else",
    "defined",
    "set",
];

fn is_loop_over_messages(words: &[&str]) -> bool {
    matches!(words, ["for", name, "in", "messages"] if *name != "loop" && *name != "messages")
}

/// A tag's words, and where it ends.
struct Tag<'s> {
    /// Names, numbers, strings (as `"`) and single signs.
    words: Vec<&'s str>,
    /// Bytes up to the end of its closing sign.
    length: usize,
    /// `-` or `+` where it closes with one, else `%`.
    control: char,
}

impl<'s> Tag<'s> {
    /// Reads the text behind an opening sign. `None` where it does not end, or has braces inside, which might end it.
    fn read(text: &'s str, close: &str) -> Option<Self> {
        let mut words = Vec::new();
        let mut letters = text.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            if text[at..].starts_with(close) {
                let control = text[..at].chars().next_back().filter(|c| matches!(c, '-' | '+')).unwrap_or('%');
                // The sign that trims is none of the tag's words, neither here nor at its start.
                let words: Vec<&str> = words;
                let words = match words.as_slice() {
                    ["-" | "+", inner @ ..] => inner,
                    all => all,
                };
                let words = match words {
                    [inner @ .., "-" | "+"] => inner,
                    all => all,
                };
                return Some(Self { words: words.to_vec(), length: at + close.len(), control });
            }
            match letter {
                '{' | '}' => return None,
                '\'' | '"' => {
                    skip_string(&mut letters, letter)?;
                    words.push("\"");
                }
                c if c.is_alphanumeric() || c == '_' => {
                    let mut end = at + c.len_utf8();
                    while let Some((next, c)) = letters.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
                        end = next + c.len_utf8();
                    }
                    words.push(&text[at..end]);
                }
                c if c.is_whitespace() => {}
                c => words.push(&text[at..at + c.len_utf8()]),
            }
        }
        None
    }
}

/// Goes to the end of a string that began with `quote`.
fn skip_string(letters: &mut Peekable<CharIndices>, quote: char) -> Option<()> {
    while let Some((_, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            end if end == quote => return Some(()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";

    #[test]
    fn a_loop_over_messages_is_marked_behind_its_tags_with_their_own_way_of_trimming() {
        let found = marked(
            "a{%- for m in messages -%} {{ m.content }} {% endfor +%}\nb{% if add_generation_prompt %}c{% endif %}",
        );
        let expected = "a{%- for m in messages -%}{% set temper_mark_ = temper_mark() -%} {{ m.content }} \
                        {% endfor +%}{% set temper_mark_ = temper_mark() +%}\nb{% if add_generation_prompt %}c{% endif %}";
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn whatever_could_look_ahead_is_not_marked() {
        for (certain, source) in [
            (true, LOOP.to_owned()),
            (true, format!("{{% if messages[0].role == 'system' %}}s{{% endif %}}{LOOP}")),
            (true, LOOP.replace("{{ m", "{% if loop.first and (loop.index0 % 2) %}{{ bos_token }}{% endif %}{{ m")),
            (true, LOOP.replace("{{ m", "{% for c in m.calls %}{{ c | tojson }}{% endfor %}{{ m")),
            (true, format!("{{# messages[-1] #}}{{{{ 'messages[-1]' }}}}{LOOP}")),
            (true, format!("{{% set ns = namespace(a=1) %}}{}", LOOP.replace("{{ m", "{% set ns.a = 2 %}{{ m"))),
            (false, String::new()),
            (false, "{{ messages[0].content }}".into()),
            (false, format!("{LOOP}{LOOP}")),
            (false, format!("{{% if tools %}}{LOOP}{{% endif %}}")),
            (false, format!("{{{{ messages | length }}}}{LOOP}")),
            (false, format!("{{% set messages = messages[1:] %}}{LOOP}")),
            (false, format!("{{{{ messages[-1].role }}}}{LOOP}")),
            (false, LOOP.replace("{{ m", "{{ loop.last }}{{ m")),
            (false, LOOP.replace("{{ m", "{{ loop.length }}{{ m")),
            (false, LOOP.replace("{{ m", "{{ loop['last'] }}{{ m")),
            (false, LOOP.replace("{{ m", "{% set l = loop %}{{ m")),
            (false, LOOP.replace("{{ m", "{{ messages[loop.index0 + 1] }}{{ m")),
            (false, LOOP.replace("{{ m", "{{ add_generation_prompt }}{{ m")),
            (false, LOOP.replace("{{ m", "{{ debug() }}{{ m")),
            (false, LOOP.replace("in messages", "in messages | reverse")),
            (false, LOOP.replace("in messages", "in messages if m.role")),
            (false, LOOP.replace("in messages", "in messages recursive")),
            (false, LOOP.replace("{% endfor", "{% else %}{% endfor")),
            (false, format!("{{% macro f() %}}x{{% endmacro %}}{LOOP}")),
            (false, format!("{{% set x %}}{LOOP}{{% endset %}}")),
            (false, format!("{{% set ns = namespace(a=1) %}}{LOOP}{{{{ ns.a }}}}")),
            (false, format!("{{{{ {{'a': messages}} }}}}{LOOP}")),
            (false, format!("{{% raw %}}{LOOP}{{% endraw %}}")),
            (false, format!("{LOOP}{{{{ messages[0].content }}}}")),
            (false, LOOP.replace("{% endfor %}", "")),
        ] {
            assert_eq!(marked(&source).is_some(), certain, "{source}");
        }
    }
}
