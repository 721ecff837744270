//! The day that a template is told, and Python's `strftime` for it.

/// A day of the Gregorian calendar. Templates see midnight of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year, 1 to 9999.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
}

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
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Date {
    /// Formats as `strftime` does in the C locale. A directive that it does not know is written as it stands.
    pub(super) fn format(self, format: &str) -> String {
        let month_name = MONTHS[usize::from(self.month.clamp(1, 12)) - 1];
        let day_name = DAYS[self.weekday()];
        let mut output = String::with_capacity(format.len() * 2);
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                output.push(letter);
                continue;
            }
            // `%-d` is the GNU spelling of a number without padding.
            let mut directive = letters.next();
            let padded = directive != Some('-');
            if !padded {
                directive = letters.next();
            }
            let number = |value: u16, width: usize| {
                if padded { format!("{value:0width$}") } else { value.to_string() }
            };
            match directive {
                Some('Y') => output.push_str(&number(self.year, 4)),
                Some('y') => output.push_str(&number(self.year % 100, 2)),
                Some('m') => output.push_str(&number(self.month.into(), 2)),
                Some('d') => output.push_str(&number(self.day.into(), 2)),
                Some('e') => output.push_str(&format!("{:>2}", self.day)),
                Some('B') => output.push_str(month_name),
                Some('b' | 'h') => output.push_str(&month_name[..3]),
                Some('A') => output.push_str(day_name),
                Some('a') => output.push_str(&day_name[..3]),
                Some('j') => output.push_str(&number(self.day_of_year(), 3)),
                Some('H' | 'M' | 'S') => output.push_str(&number(0, 2)),
                Some('I') => output.push_str(&number(12, 2)),
                Some('p') => output.push_str("AM"),
                Some('F') => output.push_str(&format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)),
                Some('%') => output.push('%'),
                other => {
                    output.push('%');
                    output.extend(other);
                }
            }
        }
        output
    }

    fn day_of_year(self) -> u16 {
        let leap = self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][usize::from(self.month.clamp(1, 12)) - 1];
        before + u16::from(self.day) + u16::from(leap && self.month > 2)
    }

    /// 0 for Monday. Days since 1 January of year 1, which was a Monday.
    fn weekday(self) -> usize {
        let years = usize::from(self.year.max(1)) - 1;
        (years * 365 + years / 4 - years / 100 + years / 400 + usize::from(self.day_of_year()).saturating_sub(1)) % 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_strftime_writes_them() {
        let cases = [
            (
                (2024, 7, 26),
                "%A %a %d %B %b %Y %y %m %e %j %F %H:%M %-d %%",
                "Friday Fri 26 July Jul 2024 24 07 26 208 2024-07-26 00:00 26 %",
            ),
            ((2000, 12, 31), "%a %j", "Sun 366"),
            ((1900, 3, 1), "%A %j %-d", "Thursday 060 1"),
            ((2025, 1, 5), "%e|%q|%", " 5|%q|%"),
        ];
        for ((year, month, day), format, expected) in cases {
            assert_eq!(Date { year, month, day }.format(format), expected);
        }
    }
}
