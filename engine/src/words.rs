//! Counts as people say them.

/// A count with its noun, which takes an s: `1 step`, `2 steps`.
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", plural(count, noun))
}

/// The noun of a count that is written in another way: `step` of one, `steps` of any other number.
pub fn plural(count: impl TryInto<u64>, noun: &str) -> String {
    match count.try_into() {
        Ok(1) => noun.to_string(),
        _ => format!("{noun}s"),
    }
}

/// `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An amount of memory or of a file: `312 KiB`, `45 MiB`, `3.7 GiB`.
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib >= 1000.0 => format!("{:.1} GiB", mib / 1024.0),
        mib if mib >= 1.0 => format!("{mib:.0} MiB"),
        _ if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        _ => counted(bytes, "byte"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural_and_none_and_several_are() {
        assert_eq!([0_u64, 1, 2].map(|count| counted(count, "step")), ["0 steps", "1 step", "2 steps"]);
        assert_eq!([plural(1_usize, "token"), plural(2_048_usize, "token")], ["token", "tokens"]);
    }

    #[test]
    fn digits_of_large_numbers_stand_in_threes() {
        assert_eq!([grouped(0), grouped(999), grouped(1_234_567)], ["0", "999", "1,234,567"]);
    }

    #[test]
    fn an_amount_has_the_unit_in_which_it_is_no_long_number() {
        let said = [1_u64, 1000, 5 << 10, 45 << 20, 100 << 20, 999 << 20, 2500 << 20, 8 << 30].map(bytes);
        assert_eq!(said, ["1 byte", "1000 bytes", "5 KiB", "45 MiB", "100 MiB", "999 MiB", "2.4 GiB", "8.0 GiB"]);
    }
}
