//! Words and sentences of a text as NLTK counts them, which the instructions of IFEval are counted with.
//!
//! *Words* are runs of letters, numbers and underscores, `\w+` of Python's `re`: marks (the vowel signs of Hindi, say)
//! are no letters there, and split words here too. *Words in capitals* are counted as `nltk.word_tokenize` cuts
//! (`DON'T` is two). *Sentences* are those of Punkt (Kiss and Strunk 2006), its decisions with a list of abbreviations
//! and of words that begin sentences written here, instead of the tables that NLTK learned from newspapers: which words
//! were seen with capitals inside sentences is not known. Where an abbreviation, an initial or a number comes before a
//! full stop, the two can differ by a sentence; a full stop elsewhere, `?` and `!` are the same.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// White space, as Python's `str.isspace` has it.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// A text without white space at its ends.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// True for a character of a word, `\w` of Python: a letter or a number by its general category, or an underscore.
pub(super) fn is_word(character: char) -> bool {
    static RANGES: OnceLock<Vec<(char, char)>> = OnceLock::new();
    if character.is_ascii() {
        return character.is_ascii_alphanumeric() || character == '_';
    }
    let ranges = RANGES.get_or_init(|| {
        let parsed = regex_syntax::parse(r"[\p{L}\p{N}]").expect("a class of letters and numbers");
        match parsed.into_kind() {
            HirKind::Class(Class::Unicode(class)) => class.iter().map(|range| (range.start(), range.end())).collect(),
            other => unreachable!("a class was parsed as {other:?}"),
        }
    });
    let at = ranges.partition_point(|(_, end)| *end < character);
    ranges.get(at).is_some_and(|(start, _)| *start <= character)
}

/// Words of a text.
pub(super) fn words(text: &str) -> usize {
    text.split(|character| !is_word(character)).filter(|word| !word.is_empty()).count()
}

/// True where a text has letters with case, and all of them are capitals: Python's `str.isupper`.
pub(super) fn is_upper(text: &str) -> bool {
    let small = |c: char| c.is_lowercase() || is_title(c);
    text.chars().any(char::is_uppercase) && !text.chars().any(small)
}

/// True where a text has letters with case, and none of them is a capital: Python's `str.islower`.
pub(super) fn is_lower(text: &str) -> bool {
    let capital = |c: char| c.is_uppercase() || is_title(c);
    text.chars().any(char::is_lowercase) && !text.chars().any(capital)
}

/// Digraphs whose first letter alone is a capital.
fn is_title(character: char) -> bool {
    !character.is_uppercase() && !character.is_lowercase() && character.to_lowercase().ne([character])
}

/// Words in capitals, as `nltk.word_tokenize` cuts words.
pub(super) fn capital_words(text: &str) -> usize {
    /// Words that are cut in two.
    const CUT: [&str; 7] = ["cannot", "gimme", "gonna", "gotta", "lemme", "wanna", "more'n"];
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = vec![String::new()];
    let mut at = 0;
    while at < characters.len() {
        let here = characters[at];
        let next = characters.get(at + 1).copied();
        let run = || characters[at..].iter().take_while(|other| **other == here).count();
        let parts = match here {
            '.' | '-' | '\'' => Some(run()).filter(|run| *run >= 2),
            ':' | ',' => (!next.is_some_and(char::is_numeric)).then_some(1),
            '«'
            | '“'
            | '‘'
            | '„'
            | '`'
            | '»'
            | '”'
            | '’'
            | '"'
            | ';'
            | '@'
            | '#'
            | '$'
            | '%'
            | '&'
            | '?'
            | '!'
            | '*'
            | '['
            | ']'
            | '('
            | ')'
            | '{'
            | '}'
            | '<'
            | '>'
            | '\u{2012}'..='\u{2015}' => Some(1),
            _ => is_space(here).then_some(1),
        };
        match parts {
            Some(length) => {
                tokens.push(String::new());
                at += length;
            }
            None => {
                tokens.last_mut().expect("one was there").push(here);
                at += 1;
            }
        }
    }
    let mut count = 0;
    for token in &tokens {
        let mut rest = token.as_str();
        // What is cut off behind an apostrophe is a word of its own: 's, 'm, 'd, then 'll, 're, 've, n't.
        for ending in ["'s", "'S", "'m", "'M", "'d", "'D", "'ll", "'LL", "'re", "'RE", "'ve", "'VE", "n't", "N'T"] {
            if let Some(before) = rest.strip_suffix(ending)
                && !before.is_empty()
                && !before.ends_with('\'')
            {
                count += usize::from(is_upper(ending));
                rest = before;
                break;
            }
        }
        if is_upper(rest) {
            let small = rest.to_lowercase();
            let two = |part: &str| CUT.contains(&part);
            count += 1 + small.split(|c| !is_word(c) && c != '\'').filter(|part| two(part)).count();
        }
    }
    count
}

/// Abbreviations that end with a full stop, without it.
const ABBREVIATIONS: [&str; 96] = [
    "adm", "ala", "apr", "ariz", "aug", "ave", "bros", "calif", "cie", "co", "col", "colo", "conn", "corp", "cos",
    "ct", "dec", "dr", "feb", "fla", "fri", "ft", "ga", "gen", "ill", "inc", "jan", "jr", "kan", "ky", "lt", "ltd",
    "maj", "messrs", "mich", "minn", "mr", "mrs", "ms", "nev", "nov", "oct", "okla", "ore", "pa", "ph.d", "prof",
    "rep", "reps", "sen", "sep", "sept", "sr", "st", "tenn", "tues", "va", "vs", "vt", "wash", "wed", "wis", "yr",
    "a.m", "p.m", "u.s", "u.s.a", "u.k", "u.n", "d.c", "n.y", "l.a", "n.c", "s.c", "n.j", "ok", "mg", "c", "d", "e",
    "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "b.c", "a.d", "chg",
];

/// Words that begin a sentence where they are written with a capital behind an abbreviation.
const STARTERS: [&str; 89] = [
    "a",
    "after",
    "all",
    "also",
    "although",
    "among",
    "an",
    "and",
    "another",
    "are",
    "as",
    "at",
    "because",
    "before",
    "both",
    "but",
    "by",
    "despite",
    "did",
    "do",
    "does",
    "each",
    "even",
    "every",
    "finally",
    "first",
    "for",
    "from",
    "he",
    "her",
    "here",
    "his",
    "how",
    "however",
    "i",
    "if",
    "in",
    "indeed",
    "instead",
    "is",
    "it",
    "its",
    "many",
    "meanwhile",
    "moreover",
    "most",
    "my",
    "nevertheless",
    "next",
    "no",
    "nor",
    "not",
    "now",
    "on",
    "once",
    "one",
    "our",
    "please",
    "she",
    "similarly",
    "since",
    "so",
    "some",
    "that",
    "the",
    "their",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "though",
    "thus",
    "to",
    "under",
    "until",
    "was",
    "we",
    "were",
    "what",
    "when",
    "where",
    "while",
    "why",
    "with",
    "yet",
    "you",
    "your",
];

/// Characters that are a token of their own at the end of a word.
fn is_mark(character: char) -> bool {
    matches!(character, ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '?' | '!')
}

/// Sentences of a text.
pub(super) fn sentences(text: &str) -> usize {
    let characters: Vec<char> = strip(text).chars().collect();
    if characters.is_empty() {
        return 0;
    }
    let mut count = 0;
    // Where the sentence begins, and the word that is looked at.
    let (mut start, mut word) = (0, 0);
    let mut at = 0;
    while at < characters.len() {
        // One word, up to white space; its last sign of an end that something follows decides.
        while at < characters.len() && is_space(characters[at]) {
            at += 1;
        }
        word = word.max(at);
        let mut end = at;
        while end < characters.len() && !is_space(characters[end]) {
            end += 1;
        }
        let mut next = end;
        while next < characters.len() && is_space(characters[next]) {
            next += 1;
        }
        let follows = |sign: usize| match characters.get(sign + 1) {
            Some(after) if is_mark(*after) => true,
            Some(after) => is_space(*after) && next < characters.len(),
            None => false,
        };
        let sign = (at..end).rev().find(|&sign| matches!(characters[sign], '.' | '?' | '!') && follows(sign));
        if let Some(sign) = sign {
            let marked = sign + 1 < end;
            let following = if marked { &characters[sign + 1..sign + 2] } else { &characters[next..] };
            if ends(&characters[at..=sign], following) {
                count += usize::from(sign + 1 > start);
                // Quotation marks and brackets that close go with the sentence, if white space or the end follows.
                start = if marked { sign + 1 } else { next };
                let mut close = start;
                while close < characters.len() && matches!(characters[close], '"' | '\'' | ')' | ']' | '}') {
                    close += 1;
                }
                if close > start && (close == characters.len() || is_space(characters[close])) {
                    start = close;
                    while start < characters.len() && is_space(characters[start]) {
                        start += 1;
                    }
                }
            }
        }
        at = end.max(at + 1);
    }
    count + usize::from(start < characters.len())
}

/// Whether a sentence ends with the last character of a word that ends with `.`, `?` or `!`.
fn ends(word: &[char], following: &[char]) -> bool {
    if word.ends_with(&['?']) || word.ends_with(&['!']) {
        return true;
    }
    // The token that the full stop belongs to.
    let divides = |c: char| is_mark(c) || matches!(c, ',' | '`' | '#' | '&' | '-');
    let start = (0..word.len() - 1).rev().find(|&at| divides(word[at]));
    // An apostrophe, a `?` or a `!` begins the token behind it.
    let begins = |&at: &usize| if matches!(word[at], '\'' | '?' | '!') { at } else { at + 1 };
    let hyphen = start.filter(|&at| word[at] == '-' && at > 0 && word[at - 1] != '-');
    let token: String = word[start.as_ref().map_or(0, begins)..word.len() - 1].iter().collect();
    let next: String = following.iter().take_while(|c| !is_space(**c) && !is_mark(**c)).collect();
    let next = if next.is_empty() { following.iter().take(1).collect() } else { next };
    let upper = next.chars().next().is_some_and(char::is_uppercase);
    let starter = || STARTERS.contains(&next.trim_end_matches(['.', ',']).to_lowercase().as_str());
    let opens = |next: &str| {
        // Punctuation begins no sentence, nor does a word in small letters.
        !matches!(next, ";" | ":" | "," | "." | "!" | "?") && !next.chars().next().is_some_and(char::is_lowercase)
    };
    if token.ends_with('.') {
        return upper;
    }
    let initial = token.chars().count() == 1 && token.chars().all(char::is_alphabetic) && hyphen.is_none();
    let number = {
        let digits = token.trim_start_matches('-').trim_start_matches(['.', ',']);
        digits.starts_with(|c: char| c.is_numeric())
            && digits.chars().all(|c| c.is_numeric() || matches!(c, ',' | '.' | '-'))
    };
    let abbreviated = ABBREVIATIONS.contains(&token.to_lowercase().as_str());
    if abbreviated {
        return !initial && upper && starter();
    }
    if initial {
        return opens(&next) && (!upper || starter());
    }
    !number || opens(&next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_numbers_and_underscores() {
        for (text, count) in [
            ("", 0),
            ("one", 1),
            ("Don't stop: 3.5 times, well-known_things", 8),
            ("  two\twords\n", 2),
            ("été à Köln", 3),
            ("naïve 你好 x", 3),
            // Vowel signs are marks, and no letters of Python's.
            ("हिन्दी", 3),
            ("---", 0),
        ] {
            assert_eq!(words(text), count, "{text}");
        }
    }

    #[test]
    fn letters_with_case_decide_what_is_in_capitals() {
        for text in ["ABC", "A-1!", "ÄÖ", "X 1"] {
            assert!(is_upper(text) && !is_lower(text), "{text}");
        }
        for text in ["abc", "a-1!", "äö", "ß"] {
            assert!(is_lower(text) && !is_upper(text), "{text}");
        }
        for text in ["", "123", "Abc", "aB", "你好", "ǅ", "aǅ", "Aǅ"] {
            assert!(!is_upper(text) && !is_lower(text), "{text}");
        }
    }

    #[test]
    fn words_in_capitals_are_cut_as_nltk_cuts_them() {
        for (text, count) in [
            ("The UN and NASA said NO.", 3),
            ("I am A-OK", 2),
            ("DON'T", 2),
            ("IT'S", 2),
            ("I'll", 1),
            ("WELL-KNOWN", 1),
            ("A,B:C 3,4", 3),
            ("A/B", 1),
            ("*BOLD*TEXT", 2),
            ("YES!NO", 2),
            ("U.S. HELLO.THERE", 2),
            ("WAIT...WHAT", 2),
            ("CANNOT", 2),
            ("cannot Can 3K B2", 2),
            ("DON’T", 2),
            ("\"QUOTED\"", 1),
            ("", 0),
        ] {
            assert_eq!(capital_words(text), count, "{text}");
        }
    }

    #[test]
    fn sentences_end_where_punkt_ends_them() {
        for (text, count) in [
            ("", 0),
            (" \n ", 0),
            ("no end", 1),
            ("One. Two! Three?", 3),
            ("One.Two", 1),
            ("Really?! Yes.", 2),
            ("He said \"Go.\" Then he left.", 2),
            ("(All of it.) And more.", 2),
            ("Mr. Smith met Dr. Who at 5 p.m. in Rome.", 1),
            ("It opens at 5 p.m. The door is blue.", 2),
            ("Wait... what?", 1),
            ("Wait... What?", 2),
            ("We can't. DON'T ask.", 2),
            ("It cost 3.50 dollars. Cheap.", 2),
            ("1. Buy milk\n2. Go home", 3),
            ("It was 1999. then more", 1),
            ("A title\n\nA paragraph. Another", 2),
            ("J. Bach wrote it. Good.", 2),
            ("Hello!!! there", 2),
            ("**Bold.** Plain.", 2),
        ] {
            assert_eq!(sentences(text), count, "{text}");
        }
    }
}
