//! `strftime_now`, with which a template writes the day: the one that the variable of this name gives, such as `2026-01-31`.
//! The engine knows no other, and a run that asked a calendar could not be repeated on another day.

use minijinja::{Error, ErrorKind};

/// The function, and the variable.
pub(super) const NAME: &str = "strftime_now";
/// How a day is given, for messages.
pub(super) const EXAMPLE: &str = "2026-01-31";
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    year: usize,
    /// From 1.
    month: usize,
    /// From 1.
    day: usize,
}

impl Day {
    /// As it is written in [`EXAMPLE`]; none for anything else.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_written_so = text.len() == EXAMPLE.len()
            && text.bytes().zip(EXAMPLE.bytes()).all(|(found, shown)| match shown {
                b'-' => found == b'-',
                _ => found.is_ascii_digit(),
            });
        if !is_written_so {
            return None;
        }
        let number = |from: usize, to: usize| text[from..to].parse::<usize>().ok();
        let day = Self { year: number(0, 4)?, month: number(5, 7)?, day: number(8, 10)? };
        let is_there = (1..=12).contains(&day.month) && day.day >= 1 && day.day <= day.days_of_month(day.month);
        (is_there && day.year >= 1).then_some(day)
    }

    /// As Python's `strftime` in English, of what a day alone has.
    ///
    /// # Errors
    /// What else is asked for.
    pub(super) fn write(self, format: &str) -> Result<String, Error> {
        let Self { year, month, day } = self;
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let mut code = letters.next();
            let is_bare = code == Some('-');
            if is_bare {
                code = letters.next();
            }
            let numbered = |number: usize, width: usize| match is_bare {
                true => number.to_string(),
                false => format!("{number:0width$}"),
            };
            let written = match code {
                Some('Y') => year.to_string(),
                Some('y') => numbered(year % 100, 2),
                Some('m') => numbered(month, 2),
                Some('d') => numbered(day, 2),
                Some('e') => format!("{day:2}"),
                Some('j') => numbered(self.day_of_year(), 3),
                Some('B') => MONTHS[month - 1].into(),
                Some('b') => MONTHS[month - 1][..3].into(),
                Some('A') => self.weekday().into(),
                Some('a') => self.weekday()[..3].into(),
                Some('%') => "%".into(),
                other => {
                    let code = other.map_or(String::new(), String::from);
                    let problem = format!("{NAME}: a day has no %{code}, only %Y %y %m %d %e %j %B %b %A %a");
                    return Err(Error::new(ErrorKind::InvalidOperation, problem));
                }
            };
            text.push_str(&written);
        }
        Ok(text)
    }

    fn is_leap_year(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn days_of_month(self, month: usize) -> usize {
        match month {
            2 if self.is_leap_year() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// From 1.
    fn day_of_year(self) -> usize {
        (1..self.month).map(|month| self.days_of_month(month)).sum::<usize>() + self.day
    }

    fn weekday(self) -> &'static str {
        let years = self.year - 1;
        // The first day of the year 1 was a Monday.
        WEEKDAYS[(365 * years + years / 4 - years / 100 + years / 400 + self.day_of_year()) % 7]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_as_python_writes_it() {
        let written = |day: &str, format: &str| Day::read(day).expect("a day").write(format).map_err(|e| e.to_string());
        for (day, format, expected) in [
            ("2026-01-31", "%Y-%m-%d", "2026-01-31"),
            ("2026-01-31", "%A, %d %B %Y", "Saturday, 31 January 2026"),
            ("2024-02-29", "%a %-d %b %y, day %j, 100%%", "Thu 29 Feb 24, day 060, 100%"),
            ("2000-12-03", "%e|%-m|%d", " 3|12|03"),
            ("1900-03-01", "%A %-j", "Thursday 60"),
        ] {
            assert_eq!(written(day, format).as_deref(), Ok(expected), "{day}");
        }
        for format in ["%H:%M", "%", "%-", "%Q"] {
            assert!(written("2026-01-31", format).unwrap_err().contains("a day has no %"), "{format}");
        }
    }

    #[test]
    fn what_is_no_day_is_none() {
        for text in ["", "today", "2026-02-29", "1900-02-29", "2026-13-01", "2026-00-01", "2026-01-00", "2026-1-31"] {
            assert_eq!(Day::read(text), None, "{text}");
        }
        for text in ["0000-01-01", "+026-01-31", "2026/01/31", "2026-01-311", "２26-01-3"] {
            assert_eq!(Day::read(text), None, "{text}");
        }
    }
}
