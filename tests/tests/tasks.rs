//! Benchmarks out of local files: prompts and answers by hand-checked items, choices against lm-eval's on the same
//! items, files that are wrong.
//!
//! Run with `cargo test --release -p temper-conformance --test tasks`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use temper_conformance::compare::close;
use temper_conformance::{golden, models, skip};
use temper_engine::host::MemoryFolder;
use temper_engine::models::Hold;
use temper_engine::reading::OnError;
use temper_engine::tasks::{
    Asked, Item, Items, Likelihoods, Task, TaskFolder, TaskOptions, bfcl, ifeval, judge, read_items,
};
use temper_engine::{Device, Error, ModelFiles, Result, wait};

/// A task's folder in memory.
type Files = BTreeMap<&'static str, Vec<u8>>;

fn items(task: Task, files: &Files, options: TaskOptions) -> Result<Items> {
    let read = |name: &str| Ok(files[name].clone());
    let names = files.keys().map(|name| name.to_string()).collect();
    read_items(task, &TaskFolder { path: format!("d/{}", task.name()), names, read: &read }, options)
}

const ALL: TaskOptions = TaskOptions { shots: 0, limit: usize::MAX, on_error: OnError::Stop };
const SKIPPING: TaskOptions = TaskOptions { on_error: OnError::Skip, ..ALL };

fn files(list: &[(&'static str, &str)]) -> Files {
    list.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect()
}

fn choices(items: &Items, at: usize) -> (&str, Vec<&str>, usize) {
    let item = &items.items[at];
    let Asked::Choice { choices, answer } = &item.asked else { panic!("{item:?}") };
    (&item.prompt, choices.iter().map(String::as_str).collect(), *answer)
}

#[test]
fn mmlu_is_asked_as_lm_eval_asks_with_the_first_examples_and_one_of_each_subject_in_turn() {
    let rows = |name: &str| {
        (0..3).map(|n| format!("\"{name}, {n}?\",a{n},b,c,d,{}\n", ["A", "C", "D"][n])).collect::<String>()
    };
    let found = files(&[
        ("high_school_physics_test.csv", &rows("force")),
        ("high_school_physics_dev.csv", &rows("mass")),
        ("anatomy_test.csv", &rows("bone")),
        ("anatomy_dev.csv", &rows("skin")),
        ("README.txt", "not a subject"),
    ]);
    let two = items(Task::Mmlu, &found, TaskOptions { shots: 2, limit: 3, ..ALL }).unwrap();
    assert_eq!(
        two.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(),
        ["anatomy/0", "anatomy/1", "high_school_physics/0"]
    );
    let (prompt, letters, answer) = choices(&two, 2);
    assert_eq!(
        prompt,
        "The following are multiple choice questions (with answers) about high school physics.\n\n\
         mass, 0?\nA. a0\nB. b\nC. c\nD. d\nAnswer: A\n\n\
         mass, 1?\nA. a1\nB. b\nC. c\nD. d\nAnswer: C\n\n\
         force, 0?\nA. a0\nB. b\nC. c\nD. d\nAnswer:"
    );
    assert_eq!((letters, answer), (vec![" A", " B", " C", " D"], 0));
    assert_eq!(items(Task::Mmlu, &found, ALL).unwrap().items.len(), 6);
    let error = items(Task::Mmlu, &found, TaskOptions { shots: 4, ..ALL }).unwrap_err().to_string();
    assert!(error.contains("anatomy_dev.csv") && error.contains("3 examples, and 4"), "{error}");
}

#[test]
fn every_other_task_is_asked_as_it_says() {
    let med = json!({"question": "Which?", "options": {"A": "w", "B": "x", "C": "y", "D": "z"}, "answer_idx": "C"})
        .to_string();
    let found = items(Task::MedMcqa, &files(&[("test.jsonl", &med)]), ALL).unwrap();
    let want = "Question: Which?\nChoices:\nA. w\nB. x\nC. y\nD. z\nAnswer:";
    assert_eq!(choices(&found, 0), (want, vec![" A", " B", " C", " D"], 2));

    let five =
        json!({"question": "Why?", "options": {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5"}, "answer_idx": "E"});
    let found = items(Task::MedQa, &files(&[("test.jsonl", &five.to_string())]), ALL).unwrap();
    assert_eq!(choices(&found, 0).0, "Question: Why?\nA. 1\nB. 2\nC. 3\nD. 4\nE. 5\nAnswer:");
    assert_eq!((choices(&found, 0).1.len(), choices(&found, 0).2), (5, 4));

    let pubmed = json!({
        "7": {"QUESTION": "Not asked?", "CONTEXTS": ["x"]},
        "12": {"QUESTION": "Does it?", "CONTEXTS": ["One.", "Two."]},
    });
    let pubmed = serde_json::to_string_pretty(&pubmed).unwrap();
    let found = files(&[("ori_pqal.json", &pubmed), ("test_ground_truth.json", "{\"12\": \"maybe\"}")]);
    let found = items(Task::PubMedQa, &found, ALL).unwrap();
    let want = "Abstract: One.\nTwo.\nQuestion: Does it?\nAnswer:";
    assert_eq!(choices(&found, 0), (want, vec![" yes", " no", " maybe"], 2));
    let line = pubmed.lines().position(|line| line.contains("\"12\"")).unwrap() + 1;
    assert_eq!((found.items.len(), found.items[0].line, found.items[0].id.as_str()), (1, line, "12"));

    let wsc = json!({
        "target": {"span1_text": "小明", "span2_text": "他", "span1_index": 0, "span2_index": 5},
        "idx": 0, "label": "false", "text": "小明说他累了。",
    });
    let found = items(Task::ClueWsc, &files(&[("dev.json", &wsc.to_string())]), ALL).unwrap();
    assert_eq!(choices(&found, 0), ("小明说他累了。\n此处，“他”是否指代“小明”?\n答：", vec!["是", "否"], 1));

    let sum = |n: u32| json!({"question": format!("{n}?"), "answer": format!("<<{n}>>\n#### {n},000")}).to_string();
    let found = files(&[("test.jsonl", &sum(3)), ("train.jsonl", &[sum(1), sum(2), sum(9)].join("\n"))]);
    let found = items(Task::Gsm8k, &found, TaskOptions { shots: 2, ..ALL }).unwrap();
    assert_eq!(
        found.items[0].prompt,
        "Question: 1?\nAnswer: <<1>>\n#### 1,000\n\nQuestion: 2?\nAnswer: <<2>>\n#### 2,000\n\nQuestion: 3?\nAnswer:"
    );
    assert_eq!(found.items[0].asked, Asked::Answer { expected: "3000".into() });

    let math = json!({"problem": "Solve.", "answer": "\\frac{1}{2}", "unique_id": "test/a/1.json"}).to_string();
    let found = items(Task::Math500, &files(&[("test.jsonl", &math)]), ALL).unwrap();
    let asked = "Please reason step by step, and put your final answer within \\boxed{}.";
    assert_eq!(
        (found.items[0].prompt.clone(), found.items[0].id.as_str()),
        (format!("Solve.\n{asked}"), "test/a/1.json")
    );

    let one = json!({"problem": "P", "answer": 70, "id": "0"}).to_string();
    let two = json!({"problem": "Q", "answer": "073"}).to_string();
    let found = items(Task::Aime, &files(&[("aime24.jsonl", &one), ("aime25.jsonl", &two)]), ALL).unwrap();
    assert_eq!(found.items[1].asked, Asked::Answer { expected: "73".into() });
    assert_eq!(found.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["aime24/0", "aime25/0"]);
}

#[test]
fn generated_answers_are_judged_by_hand_checked_cases() {
    for (task, expected, text, answer, right, strict) in [
        (Task::Gsm8k, "18", "16 - 3 - 4 = 9, 9 * 2 = $18.\n#### 18", Some("18"), true, Some(true)),
        (Task::Gsm8k, "18", "She makes $18", Some("18"), true, Some(false)),
        (Task::Gsm8k, "18", "#### 18\nor 19", Some("19"), false, Some(true)),
        (Task::Gsm8k, "1000", "It is 1,000.", Some("1000"), true, Some(false)),
        (Task::Gsm8k, "3", "no idea", None, false, Some(false)),
        (Task::Math500, "\\frac{1}{2}", "so \\boxed{\\dfrac12}", Some("\\dfrac12"), true, None),
        (Task::Math500, "\\frac{1}{2}", "so $\\frac{1}{3}$", Some("\\frac{1}{3}"), false, None),
        (Task::Math500, "5", "nothing", None, false, None),
        (Task::Aime, "73", "\\boxed{073}", Some("73"), true, None),
        (Task::Aime, "73", "74", Some("74"), false, None),
        (Task::Aime, "73", "?", None, false, None),
    ] {
        let want = (answer.map(String::from), right, strict);
        assert_eq!(judge(task, expected, text), want, "{text}");
    }
}

#[test]
fn damaged_items_are_named_with_file_and_line_or_counted_and_a_wrong_file_is_refused() {
    let med = |answer: &str, options: usize| {
        let options: serde_json::Map<String, Value> =
            ["A", "B", "C", "D", "E"][..options].iter().map(|letter| (letter.to_string(), json!("x"))).collect();
        json!({"question": "Q", "options": options, "answer_idx": answer}).to_string()
    };
    let good = med("A", 4);
    let long = format!("{{\"question\": \"{}\"}}", "x".repeat(100 << 20));
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("a choice is missing", med("A", 3).into(), "there are 3 options, and 4 are needed"),
        ("an answer is out of range", med("E", 4).into(), "\"E\", and A to D are possible"),
        (
            "no answer",
            json!({"question": "Q", "options": {"A": "1", "B": "1", "C": "1", "D": "1"}}).to_string().into(),
            "`answer_idx` is missing",
        ),
        ("an encoding", b"{\"question\": \"\xE4\"}".into(), "not UTF-8"),
        ("100 MB", long.into(), "16777216 are allowed"),
        ("half a line", good.as_bytes()[..good.len() - 5].into(), "not JSON"),
        ("another type", b"[1, 2]".into(), "not a JSON object"),
    ];
    for (what, line, words) in cases {
        let bytes = [good.as_bytes(), b"\n", &line, b"\n", good.as_bytes(), b"\n"].concat();
        let files: Files = [("test.jsonl", bytes)].into();
        let error = items(Task::MedMcqa, &files, ALL).unwrap_err();
        assert!(error.is_bad_input(), "{what}");
        let message = error.to_string();
        assert!(message.starts_with("d/medmcqa/test.jsonl, line 2: ") && message.contains(words), "{what}: {message}");
        let found = items(Task::MedMcqa, &files, SKIPPING).unwrap();
        assert_eq!((found.items.len(), found.skipped, found.items[1].line), (2, 1, 3), "{what}");
        assert!(found.problems[0].contains("line 2: ") && found.problems[0].contains(words), "{:?}", found.problems);
    }
    let refused = |task, list: &[(&'static str, &str)], parts: &[&str]| {
        let message = items(task, &files(list), SKIPPING).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(message.contains(part), "{part} is not in {message}"));
    };
    refused(Task::MedMcqa, &[], &["d/medmcqa/test.jsonl", "is not there"]);
    refused(Task::MedMcqa, &[("test.jsonl", "[{}]")], &["JSON array"]);
    refused(Task::MedMcqa, &[("test.jsonl", "")], &["no item of medmcqa is left"]);
    refused(
        Task::MedMcqa,
        &[("test.jsonl", "question,A,B\n1,2,3")],
        &["no item of medmcqa is left", "line 1: not JSON"],
    );
    refused(Task::Mmlu, &[("test.jsonl", "x")], &["<subject>_test.csv"]);
    refused(Task::Mmlu, &[("a_test.csv", "q,a,b,c,d,A\n\"open,a")], &["d/mmlu/a_test.csv, line 2", "not closed"]);
    refused(Task::Mmlu, &[("a_test.csv", "q,a,b,A")], &["line 1", "4 columns, and 6"]);
    refused(
        Task::PubMedQa,
        &[("ori_pqal.json", "{\n\n nonsense"), ("test_ground_truth.json", "{}")],
        &["line 3", "not JSON"],
    );
    refused(
        Task::Gsm8k,
        &[("test.jsonl", "{\"question\": \"1?\", \"answer\": \"2\"}")],
        &["line 1", "no number behind"],
    );
    refused(
        Task::Aime,
        &[("aime24.jsonl", "{\"problem\": \"p\", \"answer\": 1000}"), ("aime25.jsonl", "")],
        &["line 1", "0 to 999"],
    );
    let latin: Files = [("a_test.csv", b"q,a,b,c,d,A\nq\xE4,a,b,c,d,A\n".to_vec())].into();
    let error = items(Task::Mmlu, &latin, ALL).unwrap_err();
    assert!(matches!(&error, Error::Record { line: 2, .. }), "{error}");
}

#[test]
fn likelihoods_are_those_of_the_whole_text_whatever_was_read_before() {
    let vocab_of = |logits: &[f32], vocab: usize, at: usize, token: u32| {
        let row = &logits[at * vocab..(at + 1) * vocab];
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|z| f64::from(z - max).exp()).sum();
        f64::from(row[token as usize] - max) - sum.ln()
    };
    let mut compared = 0;
    for name in ["llama", "qwen3"] {
        let mut model = models::tiny(name, &Device::cpu(), false);
        let vocab = model.arch.vocab;
        let mut reader = Likelihoods::new(&model, 40).unwrap();
        let shared: Vec<u32> = (0..12).map(|n| n * 17 % 250).collect();
        for tail in [vec![3, 4], vec![3, 9, 8, 7], vec![], vec![5]] {
            let text = [shared.clone(), tail].concat();
            let continuations = vec![vec![7], vec![7, 8, 9], vec![200, 1]];
            let found = wait(reader.of(&mut model, &text, &continuations)).unwrap();
            for (found, tokens) in found.iter().zip(&continuations) {
                let whole = [text.clone(), tokens.clone()].concat();
                let logits = wait(model.logits(&whole)).unwrap();
                let of = |(nth, token): (usize, &u32)| vocab_of(&logits, vocab, text.len() - 1 + nth, *token);
                let want: f64 = tokens.iter().enumerate().map(of).sum();
                close(name, &[*found as f32], &[want], 1e-3, 1e-4).unwrap();
                compared += 1;
            }
        }
        assert!(wait(reader.of(&mut model, &[], &[vec![1]])).is_err());
        assert!(wait(reader.of(&mut model, &[1], &[vec![]])).is_err());
        assert!(wait(reader.of(&mut model, &[1; 40], &[vec![1]])).unwrap_err().to_string().contains("40 are possible"));
    }
    assert_eq!(compared, 24);
}

/// A line of `mmlu_choices.jsonl` as a row of the original file.
fn csv_row(item: &Value) -> String {
    let quoted = |text: &Value| format!("\"{}\"", text.as_str().expect("a text").replace('"', "\"\""));
    let choices = item["choices"].as_array().expect("choices").iter().map(quoted).collect::<Vec<_>>().join(",");
    let letter = ["A", "B", "C", "D"][item["answer"].as_u64().expect("an index") as usize];
    format!("{},{choices},{letter}\n", quoted(&item["question"]))
}

#[test]
fn smollm2_chooses_as_lm_eval_does_on_at_least_99_percent_of_mmlu_items() {
    let Some(bytes) = skip::smollm2(smollm2_chooses_as_lm_eval_does_on_at_least_99_percent_of_mmlu_items) else {
        return;
    };
    let text = String::from_utf8(golden::bytes("tasks/mmlu_choices.jsonl")).unwrap();
    let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut csv: BTreeMap<String, String> = BTreeMap::new();
    for item in &expected {
        *csv.entry(format!("{}_test.csv", item["subject"].as_str().unwrap())).or_default() += &csv_row(item);
    }
    let read = |name: &str| Ok(csv[name].clone().into_bytes());
    let folder = TaskFolder { path: "mmlu".into(), names: csv.keys().cloned().collect(), read: &read };
    let items = read_items(Task::Mmlu, &folder, ALL).unwrap();
    assert_eq!(items.items.len(), expected.len());
    assert!(expected.len() >= 285);

    let mut folder = MemoryFolder::new();
    folder.insert("model.gguf", bytes).unwrap();
    let files = ModelFiles::open_gguf_in(&folder, "model.gguf").unwrap();
    let tokenizer = files.tokenizer().unwrap();
    let mut model = files.load(&Device::cpu(), Hold::Auto, false, 0).unwrap();
    let mut reader = Likelihoods::new(&model, 2048).unwrap();
    let (mut same, mut worst) = (0, 0.0_f64);
    for (item, expected) in items.items.iter().zip(&expected) {
        let Asked::Choice { choices, .. } = &item.asked else { panic!("{item:?}") };
        let prompt = tokenizer.encode(&item.prompt).unwrap();
        let behind =
            |choice: &String| tokenizer.encode(&format!("{}{choice}", item.prompt)).unwrap()[prompt.len()..].to_vec();
        let choices: Vec<Vec<u32>> = choices.iter().map(behind).collect();
        let found = wait(reader.of(&mut model, &prompt, &choices)).unwrap();
        let theirs: Vec<f64> =
            expected["log_likelihoods"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
        let best = |of: &[f64]| (1..of.len()).fold(0, |best, at| if of[at] > of[best] { at } else { best });
        same += usize::from(best(&found) == best(&theirs));
        for (found, theirs) in found.iter().zip(&theirs) {
            let difference = (found - theirs).abs();
            worst = if difference <= worst { worst } else { difference };
        }
    }
    assert!(same * 100 >= 99 * expected.len(), "{same} of {} choices are the same", expected.len());
    assert!(worst <= 0.02, "log-likelihoods differ by up to {worst}");
}

/// A record of IFEval with these instructions, as an item.
fn asked_to_follow(key: usize, ids: &Value, kwargs: &Value) -> Asked {
    let record = json!({"key": key, "prompt": "p", "instruction_id_list": ids, "kwargs": kwargs}).to_string();
    items(Task::IfEval, &files(&[("input_data.jsonl", &record)]), ALL).unwrap().items.remove(0).asked
}

fn followed(asked: &Asked, answer: &str) -> ifeval::Followed {
    let Asked::Instructions(instructions) = asked else { panic!("{asked:?}") };
    ifeval::follow(instructions, answer)
}

#[test]
fn each_instruction_of_ifeval_is_followed_by_hand_checked_answers_and_not_by_others() {
    // Kind, arguments, answers that follow it, and such that do not.
    let cases: [(&str, Value, &[&str], &[&str]); 28] = [
        ("keywords:existence", json!({"keywords": ["cat", "Dog"]}), &["A CAT and dogs."], &["A cat.", ""]),
        (
            "keywords:frequency",
            json!({"keyword": "sun", "frequency": 2, "relation": "at least"}),
            &["Sun, sunny"],
            &["One sun.", "none"],
        ),
        (
            "keywords:frequency",
            json!({"keyword": "sun", "frequency": 2, "relation": "less than"}),
            &["One sun.", "none"],
            &["Sun, sunny"],
        ),
        (
            "keywords:forbidden_words",
            json!({"forbidden_words": ["run", "yes"]}),
            &["A runner said yess.", "re_run"],
            &["Run!", "so (yes)", "re-run"],
        ),
        (
            "keywords:letter_frequency",
            json!({"letter": "E", "let_frequency": 3, "let_relation": "at least"}),
            &["Eels see"],
            &["an eel", "x"],
        ),
        (
            "keywords:letter_frequency",
            json!({"letter": "!", "let_frequency": 1, "let_relation": "less than"}),
            &["no"],
            &["yes!"],
        ),
        (
            "language:response_language",
            json!({"language": "de"}),
            &["Das ist ein Haus und es ist nicht für dich."],
            &["This is a house and it is not for you.", "C'est une maison et elle est dans la ville.", "12!", "Xyzzy"],
        ),
        (
            "length_constraints:number_sentences",
            json!({"num_sentences": 2, "relation": "at least"}),
            &["One. Two.", "Is it? Yes"],
            &["One.", "Mr. Smith came."],
        ),
        (
            "length_constraints:number_paragraphs",
            json!({"num_paragraphs": 2}),
            &["a\n***\nb", "***\na***b\n***"],
            &["a", "a***b***c", "a\n***\n***\nb"],
        ),
        (
            "length_constraints:number_words",
            json!({"num_words": 3, "relation": "less than"}),
            &["two words"],
            &["now three words", "it's two"],
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"}),
            &["One.\n\nThen two.", "One.\n\n\"THEN, two\""],
            &["Then.\n\nTwo", "One.\n\nThens", "One.\n\nThen\n\nthree", "One\nThen"],
        ),
        (
            "detectable_content:number_placeholders",
            json!({"num_placeholders": 2}),
            &["[a] [b]", "[][]"],
            &["[a]", "[a\nb] [c]"],
        ),
        (
            "detectable_content:postscript",
            json!({"postscript_marker": "P.S."}),
            &["x\nP.S. y", "x p. s. y"],
            &["x\nPS y", "P.S y", "P.P.S y"],
        ),
        (
            "detectable_content:postscript",
            json!({"postscript_marker": "P.P.S"}),
            &["x\nP.P.S. y", "p. p. s"],
            &["P.S. y", "PPS"],
        ),
        (
            "detectable_format:number_bullet_lists",
            json!({"num_bullets": 2}),
            &["* a\n* b", "x\n- a\n  * b"],
            &["* a", "* a\n* b\n- c", "** a\n** b", "x * a * b"],
        ),
        (
            "detectable_format:constrained_response",
            json!({}),
            &["My answer is yes.", "I say: My answer is maybe. OK"],
            &["My answer is yes", "my answer is no."],
        ),
        (
            "detectable_format:number_highlighted_sections",
            json!({"num_highlights": 2}),
            &["*a* *b*", "**a** and *b*"],
            &["*a*", "*a\nb* *c*", "** ** *a*"],
        ),
        (
            "detectable_format:multiple_sections",
            json!({"section_spliter": "Section", "num_sections": 2}),
            &["Section 1\na\nSection 2\nb", "**Section1** Section 2"],
            &["Section 1", "section 1 section 2", "Section A Section B"],
        ),
        (
            "detectable_format:json_format",
            json!({}),
            &["{\"a\": 1}", "```json\n[1]\n```", "\"x\""],
            &["{a: 1}", "Sure: {\"a\": 1}", "{\"a\": 1"],
        ),
        ("detectable_format:title", json!({}), &["<<x>>", "a <<b c>> d"], &["<x>", "<< >>", "<<a\nb>>", "<<>>"]),
        (
            "combination:two_responses",
            json!({}),
            &["a******b", "******\na\n******\nb"],
            &["a", "a******a", "a******b******c", "a***b", "a****** ******b"],
        ),
        (
            "combination:repeat_prompt",
            json!({"prompt_to_repeat": "Say it. "}),
            &["Say it. It.", "\nSAY IT."],
            &["I say it.", "It. Say it."],
        ),
        (
            "startend:end_checker",
            json!({"end_phrase": "The end."}),
            &["x the END.", "\"x. The end.\"\n"],
            &["The end", "The end. x"],
        ),
        ("startend:quotation", json!({}), &["\"a\"", " \"a\" b\"\n"], &["\"a", "a", "“a”", "\""]),
        (
            "change_case:english_capital",
            json!({}),
            &["THIS IS AN ANSWER, AND IT IS FOR YOU."],
            &["This is it.", "DAS IST EIN HAUS UND ES IST NICHT FÜR DICH.", "123", "XYZZY"],
        ),
        (
            "change_case:english_lowercase",
            json!({}),
            &["this is an answer, and it is for you."],
            &["This is it.", "das ist ein haus und es ist nicht für dich.", "xyzzy"],
        ),
        (
            "change_case:capital_word_frequency",
            json!({"capital_frequency": 2, "capital_relation": "at least"}),
            &["NASA and I", "DON'T"],
            &["NASA and me", "None"],
        ),
        ("punctuation:no_comma", json!({}), &["a; b"], &["a, b"]),
    ];
    let mut compared = 0;
    for (kind, arguments, right, wrong) in cases {
        let asked = asked_to_follow(1, &json!([kind]), &json!([arguments]));
        for (answers, want) in [(right, true), (wrong, false)] {
            for answer in answers {
                assert_eq!(followed(&asked, answer).strict, [want], "{kind} {arguments}: {answer:?}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 100, "{compared}");
}

#[test]
fn loosely_an_answer_may_have_a_line_more_at_either_end_or_asterisks_and_an_open_language_is_told_apart() {
    let quoted = asked_to_follow(1, &json!(["startend:quotation", "punctuation:no_comma"]), &json!([{}, {}]));
    for (answer, strict, loose) in [
        ("\"a\"", [true, true], [true, true]),
        ("Sure, here:\n\"a\"", [false, false], [true, true]),
        ("\"a\"\nThat is it, bye", [false, false], [true, true]),
        ("Sure, here\n\"a\"\nthat is it, bye", [false, false], [true, true]),
        ("*\"a\"*", [false, true], [true, true]),
        ("x, y\nb, c\nz, w", [false, false], [false, false]),
        ("", [false, false], [false, false]),
    ] {
        let found = followed(&quoted, answer);
        assert_eq!((&found.strict[..], &found.loose[..]), (&strict[..], &loose[..]), "{answer:?}");
        assert_eq!(found.ids, ["startend:quotation", "punctuation:no_comma"]);
        assert_eq!(found.open, [false, false]);
    }
    let german = asked_to_follow(1, &json!(["language:response_language"]), &json!([{"language": "de"}]));
    for (answer, strict, open) in
        [("Das ist es und nicht mehr.", true, false), ("Xyzzy", false, true), ("12", false, false)]
    {
        let found = followed(&german, answer);
        assert_eq!((found.strict[0], found.open[0]), (strict, open), "{answer}");
    }
}

#[test]
fn ifeval_is_judged_as_its_own_checker_judges() {
    let text = String::from_utf8(golden::bytes("tasks/ifeval_verdicts.jsonl")).unwrap();
    // Of each kind: verdicts that are the same, and all.
    let mut kinds: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let (mut both, mut different) = ([0, 0], Vec::new());
    for (line, record) in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).enumerate() {
        let answer = record["response"].as_str().unwrap();
        let asked = asked_to_follow(line, &record["instruction_id_list"], &record["kwargs"]);
        let found = followed(&asked, answer);
        for (at, id) in found.ids.iter().enumerate() {
            let count = kinds.entry(id.clone()).or_default();
            for (ours, theirs) in [(found.strict[at], &record["strict"][at]), (found.loose[at], &record["loose"][at])] {
                let theirs = theirs.as_bool().unwrap();
                count[1] += 1;
                both[usize::from(theirs)] += 1;
                if ours == theirs {
                    count[0] += 1;
                } else {
                    different.push(format!(
                        "line {}: {id} {} is {ours} here: {answer:?}",
                        line + 1,
                        record["kwargs"][at]
                    ));
                }
            }
        }
    }
    let [same, all] = kinds.values().fold([0, 0], |[same, all], [a, b]| [same + a, all + b]);
    assert_eq!(kinds.len(), 25);
    assert!(all >= 2500 && both.iter().all(|count| *count >= 700), "{all}: {both:?}");
    assert!(same * 100 >= 99 * all, "{same} of {all} verdicts are the same: {kinds:?}\n{}", different.join("\n"));
    // Kinds in which the two may differ, and in how many of a hundred.
    let may = |kind: &str| match kind {
        "language:response_language" | "change_case:english_capital" | "change_case:english_lowercase" => 5,
        "length_constraints:number_sentences" => 4,
        _ => 0,
    };
    for (kind, [same, all]) in &kinds {
        let few = (all - same) * 100 <= may(kind) * all;
        assert!(*all >= 10 && few, "{kind}: {same} of {all}\n{}", different.join("\n"));
    }
}

/// The folder of BFCL with what was taken out of the published files.
fn bfcl_files() -> Files {
    let names = [
        "BFCL_v4_simple_python.json",
        "BFCL_v4_multiple.json",
        "BFCL_v4_parallel.json",
        "BFCL_v4_parallel_multiple.json",
        "BFCL_v4_irrelevance.json",
        "possible_answer_simple_python.json",
        "possible_answer_multiple.json",
        "possible_answer_parallel.json",
        "possible_answer_parallel_multiple.json",
    ];
    names.into_iter().map(|name| (name, golden::bytes(&format!("tasks/bfcl/{name}")))).collect()
}

#[test]
fn bfcl_is_judged_as_its_own_checker_judges() {
    let questions = items(Task::Bfcl, &bfcl_files(), ALL).unwrap();
    assert_eq!(questions.items.len(), 90);
    let by_id: BTreeMap<&str, &Asked> = questions.items.iter().map(|item| (item.id.as_str(), &item.asked)).collect();
    let text = String::from_utf8(golden::bytes("tasks/bfcl_verdicts.jsonl")).unwrap();
    let mut categories: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let (mut both, mut different) = ([0, 0], Vec::new());
    for record in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let Asked::Calls(question) = by_id[record["id"].as_str().unwrap()] else { panic!("{record}") };
        let called = bfcl::call(question, record["text"].as_str().unwrap());
        assert_eq!(called.right, called.problem.is_none());
        let theirs = record["right"].as_bool().unwrap();
        let count = categories.entry(question.category).or_default();
        count[1] += 1;
        both[usize::from(theirs)] += 1;
        if called.right == theirs {
            count[0] += 1;
        } else {
            different.push(format!("{}, answer {}: {called:?}, {theirs} there", record["text"], question.answer));
        }
    }
    assert_eq!(categories.len(), 5);
    assert!(both.iter().all(|count| *count >= 250), "{both:?}");
    assert!(different.is_empty(), "{categories:?}\n{}", different.join("\n"));
}

/// A question of BFCL in which `pay(to, amount, rate, note, parts, tags, opts, rows, flag)` may be called.
fn bfcl_question(category: &'static str, truth: &Value) -> Result<Items> {
    let property = |kind: &str| json!({"type": kind, "description": "d"});
    let list = |of: &str| json!({"type": "array", "items": {"type": of}});
    let pay = json!({"name": "bank.pay", "description": "d", "parameters": {"type": "dict", "required": ["to"], "properties": {
        "to": property("string"), "amount": property("integer"), "rate": property("float"), "flag": property("boolean"),
        "parts": list("integer"), "tags": list("string"), "opts": property("dict"), "rows": list("dict"),
        "pair": {"type": "tuple", "items": {"type": "float"}}, "who": property("any"),
    }}});
    let other = json!({"name": "other", "parameters": {"type": "dict", "properties": {"a": property("integer")}}});
    let question = json!({"id": "q", "question": [[{"role": "user", "content": "Pay?"}]], "function": [pay, other]});
    let answer = json!({"id": "q", "ground_truth": truth});
    let (question, answer) = (question.to_string(), answer.to_string());
    let mut found = bfcl_files();
    for (name, file) in [
        ("simple", "simple_python"),
        ("multiple", "multiple"),
        ("parallel", "parallel"),
        ("parallel_multiple", "parallel_multiple"),
        ("irrelevance", "irrelevance"),
    ] {
        if name == category {
            for (path, contents) in &mut found {
                if *path == format!("BFCL_v4_{file}.json") {
                    *contents = question.clone().into();
                } else if *path == format!("possible_answer_{file}.json") {
                    *contents = answer.clone().into();
                }
            }
        }
    }
    let mut all = items(Task::Bfcl, &found, SKIPPING)?;
    let of = |asked: &Asked| matches!(asked, Asked::Calls(question) if question.category == category);
    all.items.retain(|item| of(&item.asked));
    Ok(all)
}

/// Whether a text is right, and why not.
fn called(items: &Items, text: &str) -> std::result::Result<(), String> {
    let Asked::Calls(question) = &items.items[0].asked else { panic!("{items:?}") };
    let found = bfcl::call(question, text);
    found.problem.map_or(Ok(()), Err)
}

#[test]
fn each_rule_of_bfcl_lets_hand_checked_calls_pass_and_refuses_others_for_its_own_reason() {
    // Possible values of one parameter beside `to`, values that are right, and such that are not with the reason.
    type Case<'a> = (&'a str, Value, &'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [Case; 10] = [
        (
            "amount",
            json!([5, 7]),
            &["5", "7"],
            &[("6", "wrong value"), ("5.0", "another type"), ("'5'", "another type"), ("True", "another type")],
        ),
        ("rate", json!([0.5, 2.0]), &["0.5", "2", "2.0"], &[("0.6", "wrong value"), ("'0.5'", "another type")]),
        (
            "flag",
            json!([true]),
            &["True"],
            &[("False", "wrong value"), ("1", "another type"), ("'True'", "another type")],
        ),
        ("who", json!(["Bob"]), &["'bob'", "bob"], &[("'Rob'", "wrong value"), ("1", "another type")]),
        (
            "parts",
            json!([[1, 2]]),
            &["[1, 2]"],
            &[
                ("[2, 1]", "wrong value"),
                ("[1]", "wrong value"),
                ("['1', '2']", "another type"),
                ("(1, 2)", "another type"),
                ("1", "another type"),
            ],
        ),
        ("tags", json!([["A b", "c-d"]]), &["['a B', 'cd']"], &[("['a', 'b']", "wrong value")]),
        (
            "pair",
            json!([[1.0, 2.0]]),
            &["(1.0, 2.0)", "[1.0, 2.0]"],
            &[("(2.0, 1.0)", "wrong value"), ("('1', '2')", "another type")],
        ),
        (
            "opts",
            json!([{"k": ["X y", "z"], "n": [1, ""]}]),
            &["{'k': 'xy', 'n': 1}", "{'k': 'Z'}", "{'n': 1, 'k': 'z'}"],
            &[
                ("{'n': 1}", "wrong value"),
                ("{'k': 'w'}", "wrong value"),
                ("{'k': 'z', 'm': 1}", "wrong value"),
                ("[1]", "another type"),
            ],
        ),
        (
            "rows",
            json!([[{"k": [1]}, {"k": [2]}]]),
            &["[{'k': 1}, {'k': 2}]"],
            &[("[{'k': 2}, {'k': 1}]", "wrong value"), ("[{'k': 1}]", "wrong value"), ("[1, 2]", "another type")],
        ),
        // The name of a variable where a number is described.
        ("amount", json!(["total"]), &["total", "'total'"], &[("'sum'", "wrong value"), ("5", "wrong value")]),
    ];
    let mut compared = 0;
    for (parameter, possible, right, wrong) in cases {
        let truth = json!([{"bank.pay": {"to": ["Dr. Who's"], parameter: possible}}]);
        let question = bfcl_question("simple", &truth).unwrap();
        for value in right {
            let text = format!("[bank.pay(to='dr who\"s', {parameter}={value})]");
            assert_eq!(called(&question, &text), Ok(()), "{text}");
            compared += 1;
        }
        for (value, words) in wrong {
            let text = format!("[bank.pay(to='Dr. Who\\'s', {parameter}={value})]");
            let problem = called(&question, &text).unwrap_err();
            assert!(problem.contains(words) && problem.contains(parameter), "{text}: {problem}");
            compared += 1;
        }
    }
    assert!(compared >= 40, "{compared}");

    let truth = json!([{"bank.pay": {"to": ["A"], "amount": ["", 5], "flag": [true]}}]);
    let question = bfcl_question("multiple", &truth).unwrap();
    for (text, words) in [
        ("bank.pay(to='A', flag=True)", ""),
        ("bank.pay(flag=True, amount=5, to='A')", ""),
        (r#"<tool_call>{"name": "bank.pay", "arguments": {"to": "A", "flag": true}}</tool_call>"#, ""),
        ("bank.pay(flag=True)", "required parameter to is missing"),
        ("bank.pay(to='A')", "parameter flag is missing"),
        ("bank.pay(to='A', flag=True, rate=1.0)", "rate is not expected"),
        ("bank.pay(to='A', flag=True, more=1)", "more is not expected"),
        ("other(a=1)", "other is called, and bank.pay is expected"),
        ("bank_pay(to='A', flag=True)", "bank_pay is called"),
        ("[bank.pay(to='A', flag=True), other(a=1)]", "2 calls, and 1 are expected"),
        ("[]", "0 calls, and 1 are expected"),
        ("I cannot.", "missing"),
    ] {
        match called(&question, text) {
            Ok(()) => assert!(words.is_empty(), "{text}"),
            Err(problem) => assert!(!words.is_empty() && problem.contains(words), "{text}: {problem}"),
        }
    }

    let truth = json!([{"bank.pay": {"to": ["A"]}}, {"bank.pay": {"to": ["B"]}}, {"other": {"a": [1]}}]);
    let question = bfcl_question("parallel_multiple", &truth).unwrap();
    for (text, right) in [
        ("[bank.pay(to='A'), bank.pay(to='B'), other(a=1)]", true),
        ("[other(a=1), bank.pay(to='B'), bank.pay(to='A')]", true),
        ("[bank.pay(to='A'), bank.pay(to='A'), other(a=1)]", false),
        ("[bank.pay(to='A'), bank.pay(to='B')]", false),
        ("[bank.pay(to='A'), bank.pay(to='B'), other(a=1), other(a=1)]", false),
    ] {
        assert_eq!(called(&question, text).is_ok(), right, "{text}");
    }

    let question = bfcl_question("irrelevance", &json!([])).unwrap();
    for (text, right) in [
        ("No function fits that.", true),
        ("[]", true),
        ("", true),
        ("bank.pay(to='A')", false),
        (r#"{"name": "anything", "arguments": {}}"#, false),
    ] {
        assert_eq!(called(&question, text).is_ok(), right, "{text}");
    }
}

#[test]
fn bfcl_is_asked_in_words_and_as_json_schema_and_one_of_each_category_in_turn() {
    let all = items(Task::Bfcl, &bfcl_files(), TaskOptions { limit: 7, ..ALL }).unwrap();
    let category = |item: &Item| match &item.asked {
        Asked::Calls(question) => question.category,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        all.items.iter().map(category).collect::<Vec<_>>(),
        ["simple", "simple", "multiple", "multiple", "parallel", "parallel_multiple", "irrelevance"]
    );
    let question = bfcl_question("simple", &json!([{"other": {"a": [1]}}])).unwrap();
    let Asked::Calls(asked) = &question.items[0].asked else { panic!("{question:?}") };
    assert!(question.items[0].prompt.ends_with("\n\nQuestion: Pay?\nAnswer:"), "{}", question.items[0].prompt);
    assert!(question.items[0].prompt.contains("\"name\":\"bank.pay\""), "{}", question.items[0].prompt);
    let parameters = &asked.tools[0]["function"]["parameters"];
    assert_eq!((&parameters["type"], &parameters["properties"]["rate"]["type"]), (&json!("object"), &json!("number")));
    assert_eq!(parameters["properties"]["pair"], json!({"type": "array", "items": {"type": "number"}}));
    assert_eq!(parameters["properties"]["rows"]["items"]["type"], "object");
    assert_eq!((asked.messages[0].role.as_str(), asked.messages[0].content.as_str()), ("user", "Pay?"));
    // As published: answers in a folder of their own.
    let nested: Files = bfcl_files()
        .into_iter()
        .map(|(name, contents)| match name {
            "possible_answer_simple_python.json" => ("possible_answer/BFCL_v4_simple_python.json", contents),
            "possible_answer_multiple.json" => ("possible_answer/BFCL_v4_multiple.json", contents),
            "possible_answer_parallel.json" => ("possible_answer/BFCL_v4_parallel.json", contents),
            "possible_answer_parallel_multiple.json" => ("possible_answer/BFCL_v4_parallel_multiple.json", contents),
            _ => (name, contents),
        })
        .collect();
    assert_eq!(items(Task::Bfcl, &nested, ALL).unwrap().items.len(), 90);
}

#[test]
fn ifeval_reads_items_of_the_published_file_and_names_what_is_wrong_with_others() {
    let found: Files = [("input_data.jsonl", golden::bytes("tasks/ifeval/input_data.jsonl"))].into();
    let all = items(Task::IfEval, &found, ALL).unwrap();
    assert_eq!((all.items.len(), all.skipped, all.items[0].line), (20, 0, 1));
    let kinds: std::collections::BTreeSet<String> =
        all.items.iter().flat_map(|item| followed(&item.asked, "x").ids).collect();
    assert_eq!(kinds.len(), 25);

    let record = |ids: Value, kwargs: Value| {
        json!({"key": 2, "prompt": "p", "instruction_id_list": ids, "kwargs": kwargs}).to_string()
    };
    let one = |id: &str, arguments: Value| record(json!([id]), json!([arguments]));
    let good =
        json!({"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"x": null}]});
    for (line, words) in [
        (one("punctuation:no_dash", json!({})), "there is no instruction \"punctuation:no_dash\""),
        (one("length_constraints:number_words", json!({"num_words": 3})), "lacks its argument `relation`"),
        (one("length_constraints:number_words", json!({"num_words": -1, "relation": "at least"})), "no whole number"),
        (one("length_constraints:number_words", json!({"num_words": 3, "relation": "at most"})), "\"at most\""),
        (one("keywords:existence", json!({"keywords": []})), "no list of texts"),
        (
            one("keywords:letter_frequency", json!({"letter": "ab", "let_frequency": 1, "let_relation": "at least"})),
            "not one character",
        ),
        (one("language:response_language", json!({"language": "xx"})), "\"xx\", which is not told here"),
        (
            one(
                "length_constraints:nth_paragraph_first_word",
                json!({"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}),
            ),
            "paragraph 3 of 2",
        ),
        (one("punctuation:no_comma", json!({"number": 3})), "has no argument `number`"),
        (record(json!(["punctuation:no_comma"]), json!([])), "1 instructions and arguments for 0"),
        (record(json!([]), json!([])), "0 instructions"),
        (record(json!("x"), json!([])), "`instruction_id_list` is no list"),
        (json!({"key": 2, "prompt": "p"}).to_string(), "`instruction_id_list` is missing"),
        (
            json!({"key": 2, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}).to_string(),
            "`prompt` is missing",
        ),
        (
            json!({"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}).to_string(),
            "`key` is missing",
        ),
        (good.to_string(), "1 is there twice, first in line 1"),
        ("{\"key\": ".into(), "not JSON"),
    ] {
        let list = files(&[("input_data.jsonl", &format!("{good}\n{line}\n"))]);
        let message = items(Task::IfEval, &list, ALL).unwrap_err().to_string();
        assert!(message.starts_with("d/ifeval/input_data.jsonl, line 2: ") && message.contains(words), "{message}");
        let skipping = items(Task::IfEval, &list, SKIPPING).unwrap();
        assert_eq!((skipping.items.len(), skipping.skipped), (1, 1), "{line}");
        assert!(skipping.problems[0].contains(words), "{:?}", skipping.problems);
    }
    let latin: Files = [("input_data.jsonl", b"{\"key\": \"\xE4\"}\n".to_vec())].into();
    assert!(items(Task::IfEval, &latin, ALL).unwrap_err().to_string().contains("line 1: not UTF-8"));
    let message = items(Task::IfEval, &Files::new(), ALL).unwrap_err().to_string();
    assert!(message.contains("d/ifeval/input_data.jsonl") && message.contains("is not there"), "{message}");
}

#[test]
fn questions_and_answers_of_bfcl_that_cannot_be_used_are_named_with_file_and_line() {
    let questions = "BFCL_v4_multiple.json";
    let answers = "possible_answer_multiple.json";
    let text = |name: &str| String::from_utf8(bfcl_files()[name].clone()).unwrap();
    let nth = |name: &str, line: usize| serde_json::from_str::<Value>(text(name).lines().nth(line).unwrap()).unwrap();
    // The second line of one file, changed.
    let changed = |name: &'static str, line: &str| {
        let mut lines: Vec<String> = text(name).lines().map(str::to_owned).collect();
        lines[1] = line.to_owned();
        let mut found = bfcl_files();
        found.insert(name, lines.join("\n").into());
        found
    };
    let with = |name: &str, field: &str, value: Value| {
        let mut record = nth(name, 1);
        record[field] = value;
        record.to_string()
    };
    let id = nth(questions, 1)["id"].as_str().unwrap().to_owned();
    let function = |parameters: Value| json!([{"name": "f", "parameters": parameters}]);
    for (name, line, words) in [
        (questions, "{".to_owned(), "not JSON"),
        (questions, with(questions, "question", json!([])), "0 turns, and one is needed"),
        (questions, with(questions, "question", json!([[{"role": "user"}]])), "`content` is missing"),
        (questions, with(questions, "question", json!("x")), "`question` is no list"),
        (questions, with(questions, "function", json!([])), "`function` is no list of functions"),
        (questions, with(questions, "function", json!([{"name": "f"}])), "function f has no `parameters`"),
        (questions, with(questions, "function", function(json!({}))), "have no `properties`"),
        (
            questions,
            with(questions, "function", function(json!({"properties": {"a": {"type": "long"}}}))),
            "the type \"long\", which is none of BFCL's",
        ),
        (
            questions,
            with(questions, "function", function(json!({"properties": {"a": {"type": "array"}}}))),
            "a list without `items`",
        ),
        (questions, nth(questions, 0).to_string(), "is there twice, first in line 1"),
        (questions, with(questions, "id", json!("multiple_x")), "has no answer for multiple_x"),
        (answers, "{".to_owned(), "its line 2: not JSON"),
        (answers, with(answers, "id", json!("another")), "has no answer for "),
        (answers, json!({"id": id}).to_string(), "`ground_truth` is missing"),
        (answers, with(answers, "ground_truth", json!([])), "no list of calls"),
        (answers, with(answers, "ground_truth", json!([{"g": {}}])), "calls g, which is not offered"),
        (answers, with(answers, "ground_truth", json!([{"a": {}, "b": {}}])), "each an object with one name"),
    ] {
        let found = changed(name, &line);
        let message = items(Task::Bfcl, &found, ALL).unwrap_err().to_string();
        assert!(message.starts_with(&format!("d/bfcl/{questions}, line 2: ")), "{message}");
        assert!(message.contains(words), "{words} is not in {message}");
        let skipping = items(Task::Bfcl, &found, SKIPPING).unwrap();
        assert_eq!((skipping.items.len(), skipping.skipped), (89, 1), "{line}");
        assert!(skipping.problems[0].contains(words), "{:?}", skipping.problems);
    }
    // Results are known by these names, so that none may be in two categories either.
    let mut found = bfcl_files();
    let twice = nth("BFCL_v4_simple_python.json", 0)["id"].clone();
    let mut record = nth("BFCL_v4_irrelevance.json", 0);
    record["id"] = twice;
    found.insert("BFCL_v4_irrelevance.json", record.to_string().into());
    let message = items(Task::Bfcl, &found, ALL).unwrap_err().to_string();
    assert!(message.contains("is there twice, first in line 1 of BFCL_v4_simple_python.json"), "{message}");
    for name in [questions, answers] {
        let mut found = bfcl_files();
        found.remove(name);
        let message = items(Task::Bfcl, &found, SKIPPING).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("is not there"), "{message}");
        found.insert(name, b"[{}]".to_vec());
        assert!(items(Task::Bfcl, &found, SKIPPING).unwrap_err().to_string().contains("JSON array"));
    }
}
