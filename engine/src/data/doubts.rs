//! What whoever gave data should know of it, in words: a text that looks like records, conversations without a chat
//! template, fields that are not read, answers that say nothing, what nothing writes of a record, and documents that are
//! measured and trained on.

use crate::data::{Document, Kind, Unread, Unwritten, overlap, record, shared};
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

/// Which fields are not read: the first few of these, with how many records have each; nothing where there are none.
pub fn not_read(fields: &[Unread]) -> Option<String> {
    const SHOWN: usize = 5;
    let of = |Unread { field, records }: &Unread| {
        // The name is out of the file.
        let field: String = field.chars().take(40).collect();
        format!("{field} ({} {})", grouped(*records as u64), plural(*records, "record"))
    };
    let mut shown: Vec<String> = fields.iter().take(SHOWN).map(of).collect();
    if fields.len() > SHOWN {
        shown.push(format!("and {} more", fields.len() - SHOWN));
    }
    (!shown.is_empty()).then(|| format!("not read: {}", shown.join(", ")))
}

/// Of a field that by its name is a part of the question, where records of this kind have one that is not read.
pub fn lost_context(kind: Kind, fields: &[Unread]) -> Option<String> {
    let (asked, answer) = match kind {
        Kind::PromptCompletion => ("prompt", "completion"),
        Kind::QuestionAnswer => ("question", "answer"),
        Kind::Instruction => ("instruction", "output"),
        Kind::Messages | Kind::Text => return None,
    };
    let Unread { field, records } =
        fields.iter().find(|unread| ["context", "input"].contains(&unread.field.as_str()))?;
    Some(format!(
        "the {field} of {} {} is not read, and the answer may need it; \
         data.fields=instruction={asked},input={field},output={answer} (of scan and eval --fields) puts it behind the {asked}",
        grouped(*records as u64),
        plural(*records, "record")
    ))
}

/// Of so many records with an answer that says nothing.
pub fn empty_answers(records: usize) -> Option<String> {
    let (have, they) = if records == 1 { ("has", "it trains") } else { ("have", "they train") };
    let count = grouped(records as u64);
    let records_of = plural(records, "record");
    (records > 0).then(|| format!("{count} {records_of} {have} an empty answer: {they} only the end of the turn"))
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

/// Of a set that is measured, where documents of it are trained on, or at least half of what they score. `held_out` names the
/// file that the set was held out of.
pub fn memorised(set: &str, measured: &[Document], train: &[Document], held_out: Option<&str>) -> Option<String> {
    let count = |found: Vec<bool>| found.into_iter().filter(|is| *is).count();
    let equal = count(overlap::equal(measured, train));
    let half = count(shared(train, measured).second) - equal;
    let (is, them) = if equal == 1 { ("is", "it") } else { ("are", "them") };
    let twice = held_out.map_or(String::new(), |file| format!(" ({file} has {them} more than once)"));
    let [equals, halves, all] = [equal, half, measured.len()].map(|count| grouped(count as u64));
    let documents = plural(measured.len(), "document");
    let what = match (equal, half) {
        (0, 0) => return None,
        (0, _) => {
            format!(
                "at least half of what is scored in {halves} of {all} {set} {documents} is also in the training data"
            )
        }
        (_, 0) => format!("{equals} of {all} {set} {documents} {is} also in the training data{twice}"),
        _ => format!(
            "{equals} of {all} {set} {documents} {is} also in the training data{twice}, and so is at least half of what is \
             scored in {halves} more"
        ),
    };
    let their = if equal + half == 1 { "its" } else { "their" };
    Some(format!("{what}; {their} loss says what was memorised"))
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

    #[test]
    fn documents_of_which_only_what_is_scored_is_trained_on_are_told_from_equal_ones() {
        let asked = |question: u32| {
            let tokens = [vec![question; 9], (100..160).collect()].concat();
            let trained = (0..tokens.len()).map(|at| at >= 9).collect();
            Document { tokens, trained, line: question as usize }
        };
        let said = |measured: &[Document]| memorised("target", measured, &[asked(1), asked(2)], Some("t.jsonl"));
        let half = "at least half of what is scored in 2 of 2 target documents is also in the training data; their loss \
                    says what was memorised";
        assert_eq!(said(&[asked(3), asked(4)]).as_deref(), Some(half));
        let both = "1 of 2 target documents is also in the training data (t.jsonl has it more than once), and so is at \
                    least half of what is scored in 1 more; their loss says what was memorised";
        assert_eq!(said(&[asked(2), asked(3)]).as_deref(), Some(both));
    }

    #[test]
    fn fields_that_are_not_read_are_named_and_one_of_the_question_with_what_to_do() {
        let of = |fields: &[(&str, usize)]| -> Vec<Unread> {
            fields.iter().map(|(field, records)| Unread { field: field.to_string(), records: *records }).collect()
        };
        assert_eq!(not_read(&[]), None);
        let two = of(&[("context", 1200), ("id", 1)]);
        assert_eq!(not_read(&two).as_deref(), Some("not read: context (1,200 records), id (1 record)"));
        let seven = not_read(&of(&[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1), ("g", 1)])).unwrap();
        assert!(seven.ends_with("e (1 record), and 2 more"), "{seven}");
        let said = lost_context(Kind::QuestionAnswer, &two).unwrap();
        let way = "data.fields=instruction=question,input=context,output=answer (of scan and eval --fields)";
        assert!(said.starts_with("the context of 1,200 records is not read, ") && said.contains(way), "{said}");
        assert_eq!(lost_context(Kind::Text, &two), None);
        assert_eq!(lost_context(Kind::QuestionAnswer, &two[1..]), None);
    }

    #[test]
    fn answers_that_say_nothing_are_counted() {
        let rest = "an empty answer: they train only the end of the turn";
        assert_eq!(empty_answers(30), Some(format!("30 records have {rest}")));
        assert!(empty_answers(1).is_some_and(|said| said.starts_with("1 record has an empty answer: it trains")));
        assert_eq!(empty_answers(0), None);
    }
}
