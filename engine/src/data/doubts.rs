//! What whoever gave data should know of it, in words: a text that looks like records, conversations without a chat
//! template, what nothing writes of a record, and documents that are measured and trained on.

use crate::data::{Document, Unwritten, record, shared};
use crate::words::{grouped, plural};

/// Of a text whose first lines are JSON objects.
pub fn plain_text(path: &str) -> String {
    format!(
        "{path} is read as plain text, as its name says, though its first lines are JSON objects; to have them read as records, \
         let its name end in .jsonl"
    )
}

/// Of a text whose first lines are those of a table with such columns.
pub fn plain_table(path: &str, separator: char) -> String {
    let made = record::of_columns(path, separator);
    format!("{path} is read as plain text, though its first lines are those of a table; to have records of it, {made}")
}

/// Of so many conversations, for which the model has no chat template.
pub fn no_template(conversations: usize) -> String {
    let are = if conversations == 1 { "is" } else { "are" };
    format!(
        "the model has no chat template: {} {} {are} read as bare lines, without roles; put its chat_template.jinja \
         beside it, or say data.template = \"none\" to mean it",
        grouped(conversations as u64),
        plural(conversations, "conversation")
    )
}

/// Of what records say that is in no document.
pub fn unwritten(unwritten: Unwritten) -> Vec<String> {
    let Unwritten { thinking_by_template, thinking, tools } = unwritten;
    let of = |what: &str, count: usize, whose: &str| {
        (count > 0).then(|| format!("the {what} of {} {}", grouped(count as u64), plural(count, whose)))
    };
    let by_template = of("thinking", thinking_by_template, "trained turn").map(|thinking| {
        format!(
            "the chat template leaves out {thinking}, and what is learned is to answer without it; data.train_on = \"last\" \
             trains only each conversation's last turn, of which many templates write it; else put a template that does into \
             chat_template.jinja beside the model"
        )
    });
    let parts = [of("tools", tools, "conversation"), of("thinking", thinking, "turn")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let without_template = (!parts.is_empty()).then(|| {
        let parts = parts.join(" and ");
        format!(
            "without a chat template nothing writes {parts}; data.template = \"model\" takes the model's, if it has one"
        )
    });
    [by_template, without_template].into_iter().flatten().collect()
}

/// Of a set that is measured, where documents of it are trained on. `held_out` names the file that the set was held out of.
pub fn memorised(set: &str, measured: &[Document], train: &[Document], held_out: Option<&str>) -> Option<String> {
    let count = shared(train, measured).second.into_iter().filter(|is_shared| *is_shared).count();
    let (is, them, their) = if count == 1 { ("is", "it", "its") } else { ("are", "them", "their") };
    let twice = held_out.map_or(String::new(), |file| format!(" ({file} has {them} more than once)"));
    let (some, all) = (grouped(count as u64), grouped(measured.len() as u64));
    let documents = plural(measured.len(), "document");
    let line = format!(
        "{some} of {all} {set} {documents} {is} also in the training data{twice}; {their} loss says what was memorised"
    );
    (count > 0).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(numbers: std::ops::Range<u32>) -> Vec<Document> {
        numbers.map(|n| Document { tokens: vec![n; 4], trained: vec![true; 4], line: n as usize }).collect()
    }

    #[test]
    fn a_text_that_looks_like_a_table_is_told_with_the_way_to_records() {
        let said = plain_table("a.txt", ';');
        assert!(said.starts_with("a.txt is read as plain text, ") && said.contains("one JSON object a line"), "{said}");
        assert!(said.contains(r#"pandas.read_csv("a.txt", sep=";""#) && said.contains(r#""a.jsonl""#), "{said}");
    }

    #[test]
    fn conversations_without_a_template_are_counted_with_what_to_do() {
        let rest = "read as bare lines, without roles; put its chat_template.jinja beside it, or say data.template = \
                    \"none\" to mean it";
        assert_eq!(no_template(1200), format!("the model has no chat template: 1,200 conversations are {rest}"));
        assert_eq!(no_template(1), format!("the model has no chat template: 1 conversation is {rest}"));
    }

    #[test]
    fn what_nothing_writes_of_a_record_is_counted_with_what_to_do() {
        let none = Unwritten::default();
        assert!(unwritten(none).is_empty());
        let both = unwritten(Unwritten { thinking: 1, tools: 1200, ..none });
        let parts =
            "nothing writes the tools of 1,200 conversations and the thinking of 1 turn; data.template = \"model\"";
        assert!(both.len() == 1 && both[0].contains(parts), "{both:?}");
        let by_template = unwritten(Unwritten { thinking_by_template: 7, ..none });
        let parts = "the chat template leaves out the thinking of 7 trained turns, ";
        assert!(by_template.len() == 1 && by_template[0].starts_with(parts), "{by_template:?}");
    }

    #[test]
    fn a_measured_set_that_is_trained_on_is_warned_of_with_its_count() {
        let said = |held_out| memorised("target", &documents(0..12), &documents(9..40), held_out);
        let whole = "3 of 12 target documents are also in the training data; their loss says what was memorised";
        assert_eq!(said(None).as_deref(), Some(whole));
        assert!(said(Some("t.jsonl")).is_some_and(|said| said.contains("data (t.jsonl has them more than once); ")));
        let one = memorised("general", &documents(0..1), &documents(0..9), None);
        let alone = "1 of 1 general document is also in the training data; its loss says what was memorised";
        assert_eq!(one.as_deref(), Some(alone));
        assert_eq!(memorised("target", &documents(0..12), &documents(12..40), None), None);
        assert_eq!(memorised("target", &[], &documents(12..40), None), None);
    }
}
