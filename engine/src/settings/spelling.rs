//! Which known name a misspelt one may have meant.

/// `; did you mean ...?` for a misspelt name, or nothing.
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// The known name with the smallest edit distance, if it is near enough to be a slip: a third of the length, at least 1.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::levenshtein(&name, &candidate.replace('-', "_")), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_at_most_a_third_of_the_name() {
        assert_eq!(nearest("learning-rte", &["learning_rate", "steps"]), Some("learning_rate"));
        assert_eq!(nearest("stp", &["steps"]), None);
        assert_eq!(nearest("step", &["steps"]), Some("steps"));
    }
}
