//! IFEval (Zhou et al. 2023): instructions that a program can check in an answer, all 25 kinds of the published file.
//!
//! The checks follow the definitions of `instruction_following_eval` of google-research. Where this differs:
//!
//! * Keywords, markers and section names are what they say; the reference reads them as regular expressions.
//! * The language of an answer is told by script and common words ([`super::language`]). Where that leaves it open, the
//!   instruction counts as not followed and is counted apart; the reference counts it as followed where `langdetect`
//!   fails, and takes its guess otherwise.
//! * Sentences are cut without NLTK's learned tables ([`super::counting`]).
//! * JSON is that of RFC 8259, without Python's `NaN` and `Infinity`.
//! * An instruction that lacks an argument is a broken item; the reference draws one by chance.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Checked;
use super::counting::{capital_words, is_lower, is_space, is_upper, is_word, sentences, strip, words};
use super::language;

/// Which side of a number a count must be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    LessThan,
    AtLeast,
}

/// How often something must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    relation: Relation,
    number: usize,
}

impl Count {
    fn holds(self, found: usize) -> bool {
        match self.relation {
            Relation::LessThan => found < self.number,
            Relation::AtLeast => found >= self.number,
        }
    }
}

/// What is checked.
#[derive(Clone, Debug, PartialEq)]
enum Check {
    Existence(Vec<String>),
    Frequency(String, Count),
    Forbidden(Vec<String>),
    Letter(char, Count),
    Language(String),
    Sentences(Count),
    Paragraphs(usize),
    Words(Count),
    FirstWord { paragraphs: usize, nth: usize, word: String },
    Placeholders(usize),
    Postscript(String),
    Bullets(usize),
    Constrained,
    Highlights(usize),
    Sections { name: String, number: usize },
    Json,
    Title,
    TwoResponses,
    Repeat(String),
    End(String),
    Capitals,
    SmallLetters,
    CapitalWords(Count),
    NoComma,
    Quotation,
}

/// One instruction of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// As the file names its kind.
    pub id: String,
    check: Check,
}

/// What was found of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Followed,
    Not,
    /// The language stays open.
    Open,
}

/// Which instructions of a question an answer follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The instructions, in the file's order.
    pub ids: Vec<String>,
    /// Whether the answer follows each, as it is.
    pub strict: Vec<bool>,
    /// Whether it does, or does without its first or last line, or without asterisks.
    pub loose: Vec<bool>,
    /// Of which the language could not be told: not followed in `strict`.
    pub open: Vec<bool>,
}

/// Arguments of an instruction, of which each must be used.
struct Arguments<'a> {
    of: &'a str,
    left: Map<String, Value>,
}

impl Arguments<'_> {
    fn take(&mut self, name: &str) -> Checked<Value> {
        self.left.remove(name).ok_or_else(|| format!("instruction `{}` lacks its argument `{name}`", self.of))
    }

    fn text(&mut self, name: &str) -> Checked<String> {
        match self.take(name)? {
            Value::String(text) if !strip(&text).is_empty() => Ok(text),
            _ => Err(format!("argument `{name}` of instruction `{}` is no text, or an empty one", self.of)),
        }
    }

    fn texts(&mut self, name: &str) -> Checked<Vec<String>> {
        let wrong = || format!("argument `{name}` of instruction `{}` is no list of texts, or an empty one", self.of);
        let Value::Array(list) = self.left.remove(name).ok_or_else(wrong)? else { return Err(wrong()) };
        let texts: Option<Vec<String>> = list.iter().map(|text| text.as_str().map(str::to_owned)).collect();
        texts.filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty())).ok_or_else(wrong)
    }

    /// A whole number, which Python may have written with a point.
    fn number(&mut self, name: &str) -> Checked<usize> {
        let value = self.take(name)?;
        let whole = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e9).contains(number));
        let refuse = || format!("argument `{name}` of instruction `{}` is no whole number from 0 on", self.of);
        Ok(whole.ok_or_else(refuse)? as usize)
    }

    fn count(&mut self, number: &str, relation: &str) -> Checked<Count> {
        let number = self.number(number)?;
        let relation = match self.text(relation)?.as_str() {
            "less than" => Relation::LessThan,
            "at least" => Relation::AtLeast,
            other => {
                let of = self.of;
                return Err(format!(
                    "instruction `{of}` has the relation {other:?}; there are `less than`, `at least`"
                ));
            }
        };
        Ok(Count { relation, number })
    }
}

impl Instruction {
    /// Reads an instruction by its kind and its arguments, of which nulls are none.
    fn new(id: &str, arguments: &Map<String, Value>) -> Checked<Self> {
        let left = arguments.iter().filter(|(_, value)| !value.is_null());
        let mut given = Arguments { of: id, left: left.map(|(name, value)| (name.clone(), value.clone())).collect() };
        let check = match id {
            "keywords:existence" => Check::Existence(given.texts("keywords")?),
            "keywords:frequency" => Check::Frequency(given.text("keyword")?, given.count("frequency", "relation")?),
            "keywords:forbidden_words" => Check::Forbidden(given.texts("forbidden_words")?),
            "keywords:letter_frequency" => {
                let text = given.text("letter")?.to_lowercase();
                let [letter] = text.chars().collect::<Vec<_>>()[..] else {
                    return Err(format!("argument `letter` of instruction `{id}` is {text:?}, not one character"));
                };
                Check::Letter(letter, given.count("let_frequency", "let_relation")?)
            }
            "language:response_language" => {
                let language = given.text("language")?;
                if !language::is_known(&language) {
                    return Err(format!(
                        "instruction `{id}` asks for the language {language:?}, which is not told here"
                    ));
                }
                Check::Language(language)
            }
            "length_constraints:number_sentences" => Check::Sentences(given.count("num_sentences", "relation")?),
            "length_constraints:number_paragraphs" => Check::Paragraphs(given.number("num_paragraphs")?),
            "length_constraints:number_words" => Check::Words(given.count("num_words", "relation")?),
            "length_constraints:nth_paragraph_first_word" => {
                let (paragraphs, nth) = (given.number("num_paragraphs")?, given.number("nth_paragraph")?);
                if nth == 0 || nth > paragraphs {
                    return Err(format!("instruction `{id}` asks for paragraph {nth} of {paragraphs}"));
                }
                Check::FirstWord { paragraphs, nth, word: given.text("first_word")?.to_lowercase() }
            }
            "detectable_content:number_placeholders" => Check::Placeholders(given.number("num_placeholders")?),
            "detectable_content:postscript" => Check::Postscript(strip(&given.text("postscript_marker")?).to_owned()),
            "detectable_format:number_bullet_lists" => Check::Bullets(given.number("num_bullets")?),
            "detectable_format:constrained_response" => Check::Constrained,
            "detectable_format:number_highlighted_sections" => Check::Highlights(given.number("num_highlights")?),
            "detectable_format:multiple_sections" => Check::Sections {
                name: strip(&given.text("section_spliter")?).to_owned(),
                number: given.number("num_sections")?,
            },
            "detectable_format:json_format" => Check::Json,
            "detectable_format:title" => Check::Title,
            "combination:two_responses" => Check::TwoResponses,
            "combination:repeat_prompt" => Check::Repeat(given.text("prompt_to_repeat")?),
            "startend:end_checker" => Check::End(given.text("end_phrase")?),
            "startend:quotation" => Check::Quotation,
            "change_case:english_capital" => Check::Capitals,
            "change_case:english_lowercase" => Check::SmallLetters,
            "change_case:capital_word_frequency" => {
                Check::CapitalWords(given.count("capital_frequency", "capital_relation")?)
            }
            "punctuation:no_comma" => Check::NoComma,
            _ => return Err(format!("there is no instruction {id:?}")),
        };
        match given.left.keys().next() {
            Some(name) => Err(format!("instruction `{id}` has no argument `{name}`")),
            None => Ok(Self { id: id.into(), check }),
        }
    }

    /// Whether a text follows it.
    fn found(&self, text: &str) -> Found {
        let plain = |follows: bool| if follows { Found::Followed } else { Found::Not };
        if strip(text).is_empty() {
            return Found::Not;
        }
        plain(match &self.check {
            Check::Existence(keywords) => {
                let text = text.to_lowercase();
                keywords.iter().all(|keyword| text.contains(&keyword.to_lowercase()))
            }
            Check::Frequency(keyword, count) => {
                count.holds(text.to_lowercase().matches(&strip(keyword).to_lowercase()).count())
            }
            Check::Forbidden(words) => {
                let text = text.to_lowercase();
                !words.iter().any(|word| has_word(&text, &word.to_lowercase()))
            }
            Check::Letter(letter, count) => count.holds(text.to_lowercase().chars().filter(|c| c == letter).count()),
            Check::Language(language) => return told(text, language),
            Check::Sentences(count) => count.holds(sentences(text)),
            Check::Paragraphs(number) => divided(text) == Some(*number),
            Check::Words(count) => count.holds(words(text)),
            Check::FirstWord { paragraphs, nth, word } => first_word(text, *paragraphs, *nth, word),
            Check::Placeholders(number) => placeholders(text) >= *number,
            Check::Postscript(marker) => postscript(&text.to_lowercase(), marker),
            Check::Bullets(number) => bullets(text) == *number,
            Check::Constrained => {
                ["My answer is yes.", "My answer is no.", "My answer is maybe."].iter().any(|one| text.contains(one))
            }
            Check::Highlights(number) => highlights(text) >= *number,
            Check::Sections { name, number } => sections(text, name) >= *number,
            Check::Json => is_json(text),
            Check::Title => text.split('\n').any(has_title),
            Check::TwoResponses => two_responses(text),
            Check::Repeat(prompt) => strip(text).to_lowercase().starts_with(&strip(prompt).to_lowercase()),
            Check::End(phrase) => strip(text).trim_matches('"').to_lowercase().ends_with(&strip(phrase).to_lowercase()),
            Check::Capitals if is_upper(text) => return told(text, "en"),
            Check::SmallLetters if is_lower(text) => return told(text, "en"),
            Check::Capitals | Check::SmallLetters => false,
            Check::CapitalWords(count) => count.holds(capital_words(text)),
            Check::NoComma => !text.contains(','),
            Check::Quotation => {
                let text = strip(text);
                text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }
        })
    }
}

/// The instructions of a record.
pub(super) fn instructions(record: &Value) -> Checked<Vec<Instruction>> {
    let list = |name: &str| {
        let list = record.get(name).ok_or_else(|| format!("field `{name}` is missing"))?;
        list.as_array().ok_or_else(|| format!("field `{name}` is no list"))
    };
    let (ids, arguments) = (list("instruction_id_list")?, list("kwargs")?);
    if ids.len() != arguments.len() || ids.is_empty() {
        return Err(format!("there are {} instructions and arguments for {}", ids.len(), arguments.len()));
    }
    let read = |(id, arguments): (&Value, &Value)| {
        let id = id.as_str().ok_or("field `instruction_id_list` is no list of texts")?;
        Instruction::new(id, arguments.as_object().ok_or("field `kwargs` is no list of objects")?)
    };
    ids.iter().zip(arguments).map(read).collect()
}

/// Which of these instructions an answer follows. Loosely means: as it is, without its first line, its last line or
/// both, each also without asterisks.
pub fn follow(instructions: &[Instruction], answer: &str) -> Followed {
    let lines: Vec<&str> = answer.split('\n').collect();
    let (most, last) = (lines.len().min(1), lines.len() - 1);
    let part = |lines: &[&str]| strip(&lines.join("\n")).to_owned();
    let mut variants =
        vec![answer.to_owned(), part(&lines[most..]), part(&lines[..last]), part(&lines[most.min(last)..last])];
    variants.extend(variants.clone().iter().map(|variant| variant.replace('*', "")));
    let mut followed = Followed::default();
    for instruction in instructions {
        let strict = instruction.found(answer);
        followed.ids.push(instruction.id.clone());
        followed.strict.push(strict == Found::Followed);
        followed.loose.push(variants.iter().any(|variant| instruction.found(variant) == Found::Followed));
        followed.open.push(strict == Found::Open);
    }
    followed
}

fn told(text: &str, language: &str) -> Found {
    match language::detect(text) {
        Some(found) if found == language => Found::Followed,
        Some(_) => Found::Not,
        // Without a letter it is in no language.
        None if !text.chars().any(char::is_alphabetic) => Found::Not,
        None => Found::Open,
    }
}

/// True where a word is in a text with ends of words on both sides, `\b` of Python's `re`.
fn has_word(text: &str, word: &str) -> bool {
    let is = |character: Option<char>| character.is_some_and(is_word);
    let boundary = |at: usize| is(text[..at].chars().next_back()) != is(text[at..].chars().next());
    let mut from = 0;
    while let Some(found) = text[from..].find(word) {
        let at = from + found;
        if boundary(at) && boundary(at + word.len()) {
            return true;
        }
        from = at + text[at..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// Paragraphs that three asterisks divide; none where an empty one is between others.
fn divided(text: &str) -> Option<usize> {
    let parts: Vec<&str> = text.split("***").collect();
    let mut number = parts.len();
    for (at, part) in parts.iter().enumerate() {
        if strip(part).is_empty() {
            if at != 0 && at != parts.len() - 1 {
                return None;
            }
            number -= 1;
        }
    }
    Some(number)
}

/// Whether there are so many paragraphs, divided by empty lines, and the first word of one of them is this one.
fn first_word(text: &str, paragraphs: usize, nth: usize, word: &str) -> bool {
    let parts: Vec<&str> = text.split("\n\n").collect();
    let number = parts.iter().filter(|part| !strip(part).is_empty()).count();
    let Some(part) = parts.get(nth - 1).filter(|_| nth <= number) else { return false };
    let first = part.split(is_space).find(|word| !word.is_empty()).unwrap_or_default();
    let first = first.trim_start_matches('\'').trim_start_matches('"');
    let first = first.split(['.', ',', '?', '!', '\'', '"']).next().unwrap_or_default();
    number == paragraphs && first.to_lowercase() == word
}

/// Square brackets that close in their line.
fn placeholders(text: &str) -> usize {
    let of_line = |line: &str| {
        let (mut rest, mut count) = (line, 0);
        while let Some(open) = rest.find('[') {
            let Some(close) = rest[open..].find(']') else { break };
            count += 1;
            rest = &rest[open + close + 1..];
        }
        count
    };
    text.split('\n').map(of_line).sum()
}

/// True where a text in small letters has a postscript.
fn postscript(text: &str, marker: &str) -> bool {
    // What follows, with one white space before it at most.
    fn next<'a>(rest: &'a str, part: &str) -> Option<&'a str> {
        rest.strip_prefix(part).or_else(|| rest.strip_prefix(is_space)?.strip_prefix(part))
    }
    let mut behind = text.match_indices("p.").map(|(at, _)| &text[at + 2..]);
    match marker {
        "P.P.S" => behind.any(|rest| next(rest, "p.").is_some_and(|rest| next(rest, "s").is_some())),
        "P.S." => behind.any(|rest| next(rest, "s.").is_some()),
        other => text.contains(&other.to_lowercase()),
    }
}

/// Lines that begin with an asterisk and something else, or with a hyphen.
fn bullets(text: &str) -> usize {
    let characters: Vec<char> = text.chars().collect();
    let of_mark = |mark: char| {
        let (mut at, mut count) = (0, 0);
        while at < characters.len() {
            if at > 0 && characters[at - 1] != '\n' {
                at += 1;
                continue;
            }
            let mut begin = at;
            while begin < characters.len() && is_space(characters[begin]) {
                begin += 1;
            }
            let second = characters.get(begin + 1);
            if characters.get(begin) == Some(&mark) && (mark == '-' || second.is_some_and(|other| *other != '*')) {
                count += 1;
                // The character behind an asterisk may be the end of the line.
                at = begin + if mark == '*' { 2 } else { 1 };
                while at < characters.len() && characters[at] != '\n' {
                    at += 1;
                }
            } else {
                at = begin.max(at + 1);
            }
        }
        count
    };
    of_mark('*') + of_mark('-')
}

/// Parts between single or double asterisks in one line, those with nothing in them left out.
fn highlights(text: &str) -> usize {
    let of_line = |line: &str, mark: &str| {
        let (mut from, mut count) = (0, 0);
        while let Some(open) = line[from..].find(mark).map(|at| from + at) {
            let inside = &line[open + mark.len()..];
            let length = inside.find('*').unwrap_or(inside.len());
            if inside[length..].starts_with(mark) {
                count += usize::from(!strip(&inside[..length]).is_empty());
                from = open + 2 * mark.len() + length;
            } else {
                from = open + 1;
            }
        }
        count
    };
    text.split('\n').map(|line| of_line(line, "*") + of_line(line, "**")).sum()
}

/// How often a name of sections stands before a number.
fn sections(text: &str, name: &str) -> usize {
    let (mut rest, mut count) = (text, 0);
    while let Some(at) = rest.find(name) {
        let behind = &rest[at + name.len()..];
        let numbered = behind.strip_prefix(is_space).unwrap_or(behind);
        if numbered.starts_with(char::is_numeric) {
            count += 1;
            rest = numbered.trim_start_matches(char::is_numeric);
        } else {
            let step = rest[at..].chars().next().map_or(1, char::len_utf8);
            rest = &rest[at + step..];
        }
    }
    count
}

fn is_json(text: &str) -> bool {
    let mut text = strip(text);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    serde_json::from_str::<Value>(strip(text.strip_suffix("```").unwrap_or(text))).is_ok()
}

/// A line with something between `<<` and `>>`.
fn has_title(line: &str) -> bool {
    let (Some(open), Some(close)) = (line.find("<<"), line.rfind(">>")) else { return false };
    let inside = line.get(open + 2..close).unwrap_or_default();
    !inside.is_empty() && !strip(line[open..close].trim_start_matches('<').trim_end_matches('>')).is_empty()
}

fn two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(strip).collect();
    let between = &parts[1.min(parts.len() - 1)..parts.len() - 1];
    if between.iter().any(|part| part.is_empty()) {
        return false;
    }
    let given: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    given.len() == 2 && given[0] != given[1]
}
