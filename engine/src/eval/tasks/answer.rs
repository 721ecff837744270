//! Answers out of generated text, and when two of them are the same.

/// What a model says once it has thought: what is behind the last `</think>`, nothing where it never came to an end of thinking.
pub fn said(text: &str) -> &str {
    const BEGIN: &str = "<think>";
    const END: &str = "</think>";
    match text.rsplit_once(END) {
        Some((_, said)) => said.trim_start(),
        None if text.trim_start().starts_with(BEGIN) => "",
        None => text,
    }
}

/// The answer that a solution of GSM8K marks with `#### `, as lm-eval's `strict-match` finds it: the first.
pub fn marked(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(at) = rest.find("#### ") {
        rest = &rest[at + 5..];
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].find(|c: char| !matches!(c, '0'..='9' | '.' | ',')).unwrap_or(rest.len() - sign);
        if digits > 0 {
            return Some(&rest[..sign + digits]);
        }
    }
    None
}

/// The last number of a text, as lm-eval's `flexible-extract` finds it: `(-?[$0-9.,]{2,})|(-?[0-9]+)`.
pub fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'$' | b'.' | b',');
    let (mut at, mut found) = (0, None);
    while at < bytes.len() {
        let sign = usize::from(bytes[at] == b'-');
        let rest = &bytes[at + sign..];
        let length = match rest.iter().take_while(|byte| in_number(byte)).count() {
            many @ 2.. => many,
            _ => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        };
        if length > 0 {
            found = Some(&text[at..at + sign + length]);
            at += sign + length;
        } else {
            at += 1;
        }
    }
    found
}

/// A number of GSM8K without what is not compared: commas, dollars, what stands before `#### `, a full stop at its end;
/// in small letters.
pub fn plain_number(text: &str) -> String {
    let text = text.rsplit_once("#### ").map_or(text, |(_, number)| number);
    let text: String = text.chars().filter(|c| !matches!(c, ',' | '$')).collect();
    text.strip_suffix('.').unwrap_or(&text).to_lowercase()
}

/// What the last `\boxed{..}` of a text holds, braces in it balanced; also `\boxed x`.
pub fn boxed(text: &str) -> Option<&str> {
    let rest = &text[text.rfind("\\boxed")? + "\\boxed".len()..];
    if let Some(rest) = rest.strip_prefix(' ') {
        return rest.split('$').next();
    }
    let inside = rest.strip_prefix('{')?;
    let mut depth = 1;
    for (at, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&inside[..at]);
        }
    }
    None
}

/// The answer of a solution of MATH: what is boxed, else what stands between the last two dollar signs.
pub fn of_solution(text: &str) -> Option<&str> {
    boxed(text).or_else(|| {
        let end = text.rfind('$')?;
        let start = text[..end].rfind('$')?;
        Some(&text[start + 1..end])
    })
}

/// The answer of a solution of AIME: what is boxed, else the last number that has no point.
pub fn integer(text: &str) -> Option<u64> {
    let digits = |text: &str| {
        let text = text.trim().trim_matches('$').trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    if let Some(number) = boxed(text).and_then(digits) {
        return Some(number);
    }
    last_number(text).and_then(|number| digits(number.trim_end_matches(['.', ','])))
}

/// True where two answers of MATH are the same after the normalisation of the benchmark's authors (Hendrycks et al.
/// 2021).
pub fn same_mathematics(a: &str, b: &str) -> bool {
    normalised(a) == normalised(b)
}

/// The normalisation, step by step as published: it knows some ways of writing, and no algebra.
fn normalised(text: &str) -> String {
    let mut text = text.replace('\n', "").replace("\\!", "").replace("\\\\", "\\");
    for (from, to) in [
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("\\$", ""),
    ] {
        text = text.replace(from, to);
    }
    // What follows is a unit.
    if let Some((value, _)) = text.split_once("\\text{ ") {
        text = value.to_owned();
    }
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.");
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    // `k = 5` is 5.
    if let [name, value] = text.split('=').collect::<Vec<_>>()[..]
        && name.len() <= 2
    {
        text = value.to_owned();
    }
    text = braced_roots(&text).replace(' ', "");
    text = braced_fractions(&text);
    if text == "0.5" {
        text = "\\frac{1}{2}".into();
    }
    if let [a, b] = text.split('/').collect::<Vec<_>>()[..]
        && let (Ok(a), Ok(b)) = (a.parse::<i64>(), b.parse::<i64>())
        && text == format!("{a}/{b}")
    {
        text = format!("\\frac{{{a}}}{{{b}}}");
    }
    text
}

/// `\sqrt3` as `\sqrt{3}`.
fn braced_roots(text: &str) -> String {
    let mut parts = text.split("\\sqrt");
    let mut braced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut characters = part.chars();
        match characters.next() {
            Some(first) if first != '{' => braced += &format!("\\sqrt{{{first}}}{}", characters.as_str()),
            _ => braced += &format!("\\sqrt{part}"),
        }
    }
    braced
}

/// `\frac12` and `\frac1{2}` as `\frac{1}{2}`; as it is where a fraction has no two parts.
fn braced_fractions(text: &str) -> String {
    let mut parts = text.split("\\frac");
    let mut braced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if part.starts_with('{') {
            braced += &format!("\\frac{part}");
            continue;
        }
        let mut characters = part.chars();
        let (Some(above), Some(below)) = (characters.next(), characters.next()) else { return text.to_owned() };
        let rest = characters.as_str();
        braced += &match below {
            '{' => format!("\\frac{{{above}}}{{{rest}"),
            _ => format!("\\frac{{{above}}}{{{below}}}{rest}"),
        };
    }
    braced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_thought_is_no_answer_and_thinking_that_does_not_end_has_none() {
        for (text, want) in [
            ("4", "4"),
            ("<think>2 and 2</think>\n\n4", "4"),
            ("2 and 2</think> no</think> 4", "4"),
            (" <think>2 and 2", ""),
            ("I <think> 4", "I <think> 4"),
        ] {
            assert_eq!(said(text), want, "{text}");
        }
    }

    #[test]
    fn numbers_of_gsm8k_are_found_as_the_two_filters_of_lm_eval_find_them() {
        let text = "So 3 apples cost $1,234.50.\n#### 1,234.5\nThat is 7.";
        assert_eq!(marked(text), Some("1,234.5"));
        assert_eq!(last_number(text), Some("7."));
        assert_eq!(plain_number("7."), "7");
        assert_eq!(last_number("it costs -5"), Some("-5"));
        assert_eq!(last_number("$5"), Some("$5"));
        assert_eq!([plain_number("$1,234."), plain_number("x\n#### 18")], ["1234", "18"]);
        for none in ["", "no number", "####18", "#### x"] {
            assert_eq!(marked(none), None, "{none}");
        }
        assert_eq!(last_number("$ - ."), None);
        assert_eq!(marked("#### x #### -3"), Some("-3"));
        assert_eq!(last_number("ä 12 ö"), Some("12"));
    }

    #[test]
    fn a_box_is_the_last_one_with_its_braces_balanced() {
        assert_eq!(boxed("\\boxed{1} then \\boxed{\\frac{1}{2}}."), Some("\\frac{1}{2}"));
        assert_eq!(boxed("$\\boxed 5$ is it"), Some("5"));
        assert_eq!([boxed("\\boxed{1"), boxed("none"), boxed("\\boxed")], [None; 3]);
        assert_eq!(of_solution("so $x$ is $3$"), Some("3"));
        assert_eq!(of_solution("so $3"), None);
    }

    #[test]
    fn answers_written_differently_are_the_same_and_different_ones_are_not() {
        for (a, b) in [
            ("\\frac12", "\\dfrac{1}{2}"),
            ("1/2", "\\frac{1}{2}"),
            ("0.5", "\\tfrac{1}{2}"),
            (".5", "0.5"),
            ("\\sqrt3", "\\sqrt{3}"),
            ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"),
            ("x = 5", "5"),
            ("90^\\circ", "90"),
            ("50\\%", "50"),
            ("12\\text{ cm}", "12"),
            ("\\frac1{72}", "\\frac{1}{72}"),
        ] {
            assert!(same_mathematics(a, b), "{a} and {b}: {} and {}", normalised(a), normalised(b));
        }
        for (a, b) in [("1/2", "2"), ("3", "-3"), ("\\frac{1}{2}", "\\frac{2}{1}"), ("x=5", "6"), ("", "0")] {
            assert!(!same_mathematics(a, b), "{a} and {b}");
        }
        // Nothing panics on what is no mathematics.
        for odd in ["\\frac", "\\frac1", "\\sqrt", "\\frac{", "=", "/", "ä/ö", "\\fracäö", "\\sqrtü"] {
            assert!(same_mathematics(odd, odd), "{odd}");
        }
    }

    #[test]
    fn an_integer_is_the_boxed_one_or_the_last() {
        assert_eq!(integer("about 12, so \\boxed{073}"), Some(73));
        assert_eq!(integer("It is 204."), Some(204));
        assert_eq!(integer("It is 2.5"), None);
        assert_eq!(integer("\\boxed{x} so 5"), Some(5));
        assert_eq!(integer("nothing"), None);
    }
}
