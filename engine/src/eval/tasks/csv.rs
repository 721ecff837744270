//! Comma-separated values (RFC 4180): fields in quotes may hold commas, quotes (doubled) and ends of lines.

/// A row, with the line that it begins in, from 1.
pub(super) type Row = (usize, Vec<String>);

/// The rows of a text.
///
/// # Errors
/// The line and what is wrong with it: a quote that is not closed, or is closed before a field's end.
pub(super) fn rows(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let mut rows = Vec::new();
    let mut characters = text.chars().peekable();
    let mut line = 1;
    while characters.peek().is_some() {
        let start = line;
        let mut fields = Vec::new();
        loop {
            let mut field = String::new();
            if characters.next_if_eq(&'"').is_some() {
                let opened = line;
                loop {
                    match characters.next() {
                        None => return Err((opened, "a quote is not closed before the end of the file".into())),
                        Some('"') if characters.next_if_eq(&'"').is_some() => field.push('"'),
                        Some('"') => break,
                        Some(character) => {
                            line += usize::from(character == '\n');
                            field.push(character);
                        }
                    }
                }
                if !matches!(characters.peek(), None | Some(',' | '\n' | '\r')) {
                    return Err((line, "a quote is closed before the end of its field: write it twice".into()));
                }
            } else {
                while let Some(character) = characters.next_if(|c| !matches!(c, ',' | '\n')) {
                    field.push(character);
                }
                if field.ends_with('\r') {
                    field.pop();
                }
            }
            fields.push(field);
            characters.next_if_eq(&'\r');
            match characters.next() {
                Some(',') => {}
                Some(_) => {
                    line += 1;
                    break;
                }
                None => break,
            }
        }
        // An empty line is no row of one empty field.
        if fields != [""] {
            rows.push((start, fields));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_hold_commas_quotes_and_lines_and_rows_know_where_they_begin() {
        let text = "a,b c,\"d, \"\"e\"\"\"\r\n\n\"two\nlines\",x,\nlast,,\"\"";
        let want = [(1, vec!["a", "b c", "d, \"e\""]), (3, vec!["two\nlines", "x", ""]), (5, vec!["last", "", ""])];
        let found = rows(text).unwrap();
        assert_eq!(found.len(), 3);
        for ((line, fields), (at, values)) in found.iter().zip(want) {
            assert_eq!((*line, fields), (at, &values.iter().map(|v| v.to_string()).collect::<Vec<_>>()));
        }
        assert!(rows("").unwrap().is_empty());
    }

    #[test]
    fn a_quote_that_is_not_closed_or_closed_too_early_is_named_with_its_line() {
        assert_eq!(rows("a,b\nc,\"d\ne").unwrap_err().0, 2);
        let (line, problem) = rows("a,b\n\"c\"d,e\n").unwrap_err();
        assert!(line == 2 && problem.contains("before the end of its field"), "{problem}");
    }
}
