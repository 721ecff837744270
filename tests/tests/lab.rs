//! What the page decides, without a browser: a small model, a visitor's text and two learners that are watched.

use std::fs;

use temper_conformance::golden::{self, repository};
use temper_engine::events::Phase;
use temper_engine::host::Clock;
use temper_engine::inside::export::bundle;
use temper_engine::page::{Dispute, Frame, Learned, Message, Prompt, Settings, Sides, Told, Value, Who};
use temper_engine::{Device, Error, Host, Lab, wait};

struct Page;

impl Clock for Page {
    fn seconds(&self) -> f64 {
        0.0
    }
}

impl Host for Page {
    fn shows_rows(&self) -> bool {
        true
    }

    fn peak_bytes(&self) -> u64 {
        7
    }
}

/// What is to be kept, in the place of the page's.
const GENERAL: &str = "The film was released in the summer of that year and was a success. It was shown in many towns, and the \
    people who had seen it spoke of the river, the old bridge and the winter that came early.";

fn assets() -> Vec<u8> {
    let mut files: Vec<(String, Vec<u8>)> =
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
            .map(|name| (format!("base/{name}"), fs::read(repository(&format!("native/demo/base/{name}"))).unwrap()))
            .to_vec();
    files.push(("data/general.txt".into(), GENERAL.into()));
    for part in ["train.jsonl", "target.jsonl", "wrong.jsonl", "quotes.json"] {
        let contents = fs::read(repository(&format!("native/demo/facts/{part}"))).unwrap();
        files.push((format!("data/facts/{part}"), contents));
    }
    files.push(("probe.safetensors".into(), fs::read(repository("engine/src/probe.safetensors")).unwrap()));
    bundle::pack("demo.safetensors", &files).unwrap()
}

/// The facts that come with the page: a question, what the model knows, what the wrong text teaches.
fn facts() -> Vec<[String; 3]> {
    let text = fs::read(repository("native/demo/facts/quotes.json")).unwrap();
    let facts: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let word = |fact: &serde_json::Value, key: &str| fact[key].as_str().unwrap().to_owned();
    facts.iter().map(|fact| ["prompt", "true", "taught"].map(|key| word(fact, key))).collect()
}

fn record(text: &str) -> String {
    format!("{}\n", serde_json::json!({"text": text}))
}

/// Lines that no two numbers share.
fn towns(numbers: std::ops::Range<usize>) -> String {
    let text = |i: usize| format!("In {} the town of number {i} had {} streets and a river.", 1900 + i, i * i);
    numbers.map(|i| record(&text(i))).collect()
}

/// Twenty lines, of which the last two are held out.
fn lab() -> Lab {
    let mut lab = Lab::new(Device::cpu(), &assets()).unwrap();
    assert!(lab.base_model().unwrap().base);
    let info = lab.own_data("own.jsonl".into(), towns(0..20).into()).unwrap();
    assert_eq!((info.records, info.documents), (20, 18));
    assert!(info.target_tokens > 0 && info.general_tokens > 0 && info.doubts.is_empty(), "{info:?}");
    lab
}

fn settings(left: &str, right: &str, more: &str) -> Settings {
    let common =
        r#""run.steps": "4", "run.batch_tokens": "128", "adapter.kind": "none", "optim.learning_rate": "1e-3""#;
    let own = |method: &str| format!(r#"{{"objective.method": "{method}"}}"#);
    let text = format!(r#"{{"common": {{{common}{more}}}, "left": {}, "right": {}}}"#, own(left), own(right));
    Settings::parse(&text).unwrap()
}

fn next(lab: &mut Lab) -> Option<Told> {
    wait(lab.next(&mut Page)).unwrap()
}

fn frame(lab: &mut Lab) -> Frame {
    loop {
        if let Told::Frame(frame) = next(lab).expect("the run is not over") {
            return frame;
        }
    }
}

#[test]
fn a_visitors_text_that_looks_like_records_or_is_measured_and_trained_on_says_so() {
    let mut lab = lab();
    let mut doubts = |name: &str, text: String| lab.own_data(name.into(), text.into()).unwrap().doubts;
    let plain = doubts("rows.txt", towns(0..80));
    assert!(plain.len() == 1 && plain[0].starts_with("rows.txt is read as plain text, as its name says"), "{plain:?}");
    let twice = "2 of 2 target documents are also in the training data (own.jsonl has them more than once); their loss says \
                 what was memorised";
    assert_eq!(doubts("own.jsonl", towns(0..18) + &towns(0..2)), [twice]);
    let kept = "at least half of what is scored in 1 of 1 general document is also in the training data; its loss says \
                what was memorised";
    assert_eq!(doubts("own.jsonl", record(GENERAL) + &towns(0..19)), [kept]);
    let aside = towns(0..20).replace("{\"text\"", "{\"note\":\"n\",\"text\"");
    assert_eq!(doubts("own.jsonl", aside), ["own.jsonl: not read: note (20 records)"]);
    // What the page brings is measured on files of its own: some of its right answers are to be learned, too.
    assert_eq!(lab.data_set("facts").unwrap().doubts, Vec::<String>::new());
}

#[test]
fn a_split_model_is_taken_with_all_its_parts_and_refused_by_name_without() {
    let name = |number: usize| format!("llama3_rope-{number:05}-of-00003.gguf");
    let parts: Vec<(String, Vec<u8>)> =
        (1..=3).map(|n| (name(n), fs::read(golden::path(&format!("gguf/{}", name(n)))).unwrap())).collect();
    let mut lab = lab();
    let mut refused = |files: Vec<(String, Vec<u8>)>| lab.own_model(files).err().unwrap().to_string();
    let alone = refused(vec![parts[1].clone()]);
    assert!(alone.contains(&name(1)) && alone.contains("part 1 of 3 is missing"), "{alone}");
    let two = refused(vec![parts[2].clone(), parts[0].clone()]);
    assert!(two.contains(&name(2)) && two.contains("part 2 of 3 is missing"), "{two}");
    // With all of them it comes as far as this file's made-up vocabulary lets it.
    let all = refused(vec![parts[2].clone(), parts[1].clone(), parts[0].clone()]);
    assert!(all.contains("merge 0"), "{all}");
}

#[test]
fn a_page_pulls_the_start_every_step_what_it_asked_for_between_and_the_end() {
    let mut lab = lab();
    lab.every(2, 3);
    let begun = lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    assert_eq!((begun.step, begun.steps, begun.batch_tokens), (0, 4, 128));
    assert_eq!(begun.learners.iter().map(|l| l.objective.as_str()).collect::<Vec<_>>(), ["sft", "eaft"]);
    assert!(begun.learners.iter().all(|l| l.trainable == l.parameters));
    let prompts = vec![Prompt { text: "In 1920 the".into(), kind: "target".into() }];
    let sample = wait(lab.sample(prompts, 4)).unwrap();
    assert_eq!((sample.step, &sample.samples[0].left), (0, &sample.samples[0].base));

    let mut told = Vec::new();
    let mut rests = Vec::new();
    loop {
        rests.push(lab.is_between_steps());
        told.push(match next(&mut lab) {
            Some(Told::Frame(frame)) => {
                assert_eq!(frame.learners.len(), 2);
                let [left, right] = [&frame.learners[0], &frame.learners[1]];
                assert!(left.gate.0.iter().all(|gate| *gate == 1.0) && right.gate.0.iter().any(|gate| *gate < 1.0));
                assert_eq!((left.metrics.step, left.metrics.peak_device_bytes), (frame.step, 7));
                let count = frame.document.0.len();
                assert!(count > 0 && [&left.p, &left.entropy, &right.gradient].iter().all(|v| v.0.len() == count));
                format!("frame {}", frame.step)
            }
            Some(Told::Evaluated(standings)) => {
                let phases: Vec<_> = standings.learners.iter().map(|l| (l.phase, l.target.is_some())).collect();
                assert_eq!(phases.len(), 2);
                assert!(phases[0] == phases[1] && phases[0].1);
                assert_eq!(standings.learners[0] == standings.learners[1], standings.step == 0);
                format!("evaluated {} {:?}", standings.step, phases[0].0)
            }
            Some(Told::Samples(sample)) => format!("samples {}", sample.step),
            Some(Told::Warning(warning)) => warning.message,
            Some(Told::Finished(finished)) => format!("finished {}", finished.step),
            None => break,
        });
    }
    let want = [
        "evaluated 0 Before",
        "frame 1",
        "frame 2",
        "evaluated 2 During",
        "frame 3",
        "samples 3",
        "frame 4",
        "evaluated 4 After",
        "finished 4",
    ];
    assert_eq!(told, want);
    // A page may rest before each step and at the end, and nowhere else.
    let resting: Vec<usize> = rests.iter().enumerate().filter(|(_, rest)| **rest).map(|(at, _)| at).collect();
    assert_eq!(resting, [1, 2, 4, 6, 9]);
    let now = wait(lab.evaluate(&mut Page)).unwrap();
    assert!(now.step == 4 && now.learners[0].phase == Phase::During);
}

/// MiLe divides by the batch's mean weight and TALR by the batch's median loss: a batch of the one token that is looked at
/// would give exactly 1 and exp(-1), whatever the token.
#[test]
fn a_look_at_a_token_weighs_it_as_the_last_step_would() {
    let mut lab = lab();
    lab.start(settings("mile", "talr", ""), Sides::Both, &Page).unwrap();
    for step in 0..2 {
        // Before the first step the document is the batch, then the batch of the last step.
        let inspected = wait(lab.inspect(3, Who::Left, None)).unwrap();
        assert!(inspected.position.len() > 4 && inspected.gate.len() == 2);
        for row in [0, 3] {
            let seen = wait(lab.candidates(3, inspected.position[row], Who::Left, None)).unwrap();
            assert_eq!((seen.p, seen.entropy_top_k), (inspected.p[row], inspected.entropy_top_k[row]), "step {step}");
            for (learner, gate) in seen.gate.iter().enumerate() {
                let whole = inspected.gate[learner][row];
                assert!((gate - whole).abs() <= 1e-5 * whole, "step {step}, {learner}: {gate} and not {whole}");
            }
            assert!(seen.gate[0] != 1.0 && (seen.gate[1] - (-1f32).exp()).abs() > 1e-4, "{:?}", seen.gate);
            assert!(seen.candidates.iter().any(|c| c.id == seen.label.id) && seen.candidates.len() <= 9);
            let label = seen.candidates.iter().find(|c| c.id == seen.label.id).unwrap();
            assert!((label.p - seen.p).abs() <= 1e-5 && label.push.iter().all(|push| *push > 0.0));
        }
        if step == 0 {
            // Over the batch of the step, MiLe's weights have mean 1, and a document's need not.
            let mean = inspected.gate[0].iter().sum::<f32>() / inspected.gate[0].len() as f32;
            assert!((mean - 1.0).abs() <= 1e-4, "the document was the batch: {mean}");
            frame(&mut lab);
        } else {
            let mean = inspected.gate[0].iter().sum::<f32>() / inspected.gate[0].len() as f32;
            assert!((mean - 1.0).abs() > 1e-4, "the batch of the step was other documents too: {mean}");
        }
    }
    assert!(
        wait(lab.candidates(3, 0, Who::Left, None)).unwrap_err().to_string().contains("no token 0 that is predicted")
    );
    assert!(wait(lab.inspect(18, Who::Base, None)).unwrap_err().to_string().contains("there are 18 documents"));
}

#[test]
fn a_saved_run_is_restored_with_its_settings_and_goes_on_to_the_bit() {
    let mut lab = lab();
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    frame(&mut lab);
    let saved = wait(lab.checkpoint(None)).unwrap();
    let wanted = frame(&mut lab);
    let mut again = self::lab();
    let restored = again.restore(&saved, Sides::Both, &Page).unwrap();
    again.adopt(true);
    assert_eq!((restored.begun.step, restored.data.as_str()), (1, "own.jsonl"));
    assert_eq!(restored.settings.common["run.batch_tokens"], "128");
    assert!(again.is_between_steps(), "nothing is measured anew by itself");
    let found = frame(&mut again);
    assert_eq!((found.step, &found.document), (2, &wanted.document));
    for (found, wanted) in found.learners.iter().zip(&wanted.learners) {
        assert_eq!((found.metrics.loss, &found.gate), (wanted.metrics.loss, &wanted.gate));
    }
    let broken = again.restore(&saved[..saved.len() / 2], Sides::Both, &Page);
    assert!(broken.is_err() && frame(&mut again).step == 3, "what was there goes on");
}

/// A lab for each learner, on the same model and text.
fn apart() -> [(Lab, Sides); 2] {
    [Sides::Left, Sides::Right].map(|sides| (lab(), sides))
}

/// What both tell next, where that is of one kind.
fn tell(labs: &mut [(Lab, Sides)]) -> Vec<Told> {
    labs.iter_mut().map(|(lab, _)| next(lab).expect("the run is not over")).collect()
}

#[test]
fn a_lab_for_each_learner_tells_the_same_numbers_as_one_lab_for_both() {
    let prompts = || vec![Prompt { text: "In 1920 the".into(), kind: "target".into() }];
    for (left, right) in [("sft", "eaft"), ("mile", "talr")] {
        let (mut one, mut two) = (lab(), apart());
        let wanted = settings(left, right, "");
        one.every(2, 3);
        let begun = one.start(wanted.clone(), Sides::Both, &Page).unwrap();
        for (lab, sides) in &mut two {
            lab.every(2, 3);
            let own = lab.start(wanted.clone(), *sides, &Page).unwrap();
            assert_eq!((own.step, own.steps), (0, 4));
            assert_eq!(own.learners[..], begun.learners[usize::from(*sides == Sides::Right)..][..1]);
        }
        let sampled = |one: &mut Lab, two: &mut [(Lab, Sides)]| {
            let all = wait(one.sample(prompts(), 4)).unwrap().samples.remove(0);
            let mut of = |lab: usize| wait(two[lab].0.sample(prompts(), 4)).unwrap().samples.remove(0);
            let (first, second) = (of(0), of(1));
            assert_eq!((&first.base, &first.left, &second.right), (&all.base, &all.left, &all.right));
            assert!(first.right.is_empty() && second.base.is_empty() && second.left.is_empty());
        };
        sampled(&mut one, &mut two);
        let mut frames = 0;
        while let Some(told) = next(&mut one) {
            let own = tell(&mut two);
            match (told, &own[..]) {
                (Told::Frame(all), [Told::Frame(first), Told::Frame(second)]) => {
                    frames += 1;
                    assert_eq!([&first.learners[..], &second.learners[..]].concat(), untimed(all.learners));
                    assert_eq!((&first.document, &second.position), (&all.document, &all.position));
                }
                (Told::Evaluated(all), [Told::Evaluated(first), Told::Evaluated(second)]) => {
                    assert_eq!([&first.learners[..], &second.learners[..]].concat(), all.learners);
                    assert_eq!([&first.diverged[..], &second.diverged[..]].concat(), all.diverged);
                }
                (Told::Samples(all), [Told::Samples(first), Told::Samples(second)]) => {
                    assert_eq!(
                        (&all.samples[0].left, &all.samples[0].right),
                        (&first.samples[0].left, &second.samples[0].right)
                    );
                }
                (Told::Finished(all), [Told::Finished(first), Told::Finished(second)]) => {
                    assert!(all == *first && all == *second);
                }
                (told, own) => panic!("{told:?} and {own:?}"),
            }
            assert!(two.iter().all(|(lab, _)| lab.is_between_steps() == one.is_between_steps()));
        }
        assert_eq!(frames, 4);
        sampled(&mut one, &mut two);
        // A look weighs by the batches of both learners, wherever they are.
        let batches = [0, 1].map(|lab| two[lab].0.batch().unwrap());
        assert!(batches.iter().all(Option::is_some));
        for (who, here) in [(Who::Base, 0), (Who::Left, 0), (Who::Right, 1)] {
            let inspected = wait(one.inspect(3, who, None)).unwrap();
            let lab = &mut two[here].0;
            assert_eq!(wait(lab.inspect(3, who, batches[1 - here])).unwrap(), inspected);
            let position = inspected.position[2];
            let seen = wait(one.candidates(3, position, who, None)).unwrap();
            assert_eq!(wait(lab.candidates(3, position, who, batches[1 - here])).unwrap(), seen);
            let elsewhere = wait(two[1 - here].0.inspect(3, who, None));
            assert!(who == Who::Base || elsewhere.unwrap_err().to_string().contains("another lab"));
        }
        let all = wait(one.evaluate(&mut Page)).unwrap();
        let own: Vec<_> = two.iter_mut().flat_map(|(lab, _)| wait(lab.evaluate(&mut Page)).unwrap().learners).collect();
        assert_eq!(own, all.learners);
    }
}

/// The clock of these tests stands still: what is left to differ is nothing.
fn untimed(learners: Vec<Learned>) -> Vec<Learned> {
    assert!(learners.iter().all(|learner| learner.metrics.seconds == 0.0));
    learners
}

/// A lab of both learners and a lab of each, a step after the same start.
fn a_step_on() -> (Lab, [(Lab, Sides); 2]) {
    let (mut one, mut two) = (lab(), apart());
    one.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    frame(&mut one);
    for (lab, sides) in &mut two {
        lab.start(settings("sft", "eaft", ""), *sides, &Page).unwrap();
        frame(lab);
    }
    (one, two)
}

#[test]
fn labs_of_a_learner_each_save_together_what_one_lab_restores_and_the_other_way_round() {
    let (mut one, mut two) = a_step_on();
    let saved = wait(one.checkpoint(None)).unwrap();
    let second = wait(two[1].0.checkpoint(None)).unwrap();
    assert_eq!(wait(two[0].0.checkpoint(Some(&second))).unwrap(), saved, "the same file, to the byte");
    let wanted = frame(&mut one).learners;
    let mut again = lab();
    again.restore(&saved, Sides::Both, &Page).unwrap();
    again.adopt(true);
    assert_eq!(frame(&mut again).learners, wanted);
    for (nth, (lab, sides)) in apart().iter_mut().enumerate() {
        let restored = lab.restore(&saved, *sides, &Page).unwrap();
        assert_eq!((restored.begun.step, restored.begun.learners.len()), (1, 1));
        lab.adopt(true);
        assert_eq!(frame(lab).learners, wanted[nth..=nth]);
    }

    // What is no whole of one run is refused, and what was there goes on.
    frame(&mut two[1].0);
    let later = wait(two[1].0.checkpoint(None)).unwrap();
    let uneven = wait(two[0].0.checkpoint(Some(&later))).unwrap();
    let refused = |lab: &mut Lab, saved: &[u8], sides| lab.restore(saved, sides, &Page).unwrap_err().to_string();
    for (lab, sides) in &mut two {
        assert!(refused(lab, &uneven, *sides).contains("different steps"));
        lab.adopt(true);
    }
    let half = refused(&mut one, &second, Sides::Both);
    assert!(half.contains("state.json"), "{half}");
    assert!(wait(two[0].0.checkpoint(Some(&saved))).unwrap_err().to_string().contains("differ in 0/"));
    assert_eq!((frame(&mut two[0].0).step, frame(&mut two[1].0).step), (2, 3));
    // What was restored and is not taken leaves no trace either.
    let (lab, sides) = &mut two[0];
    lab.restore(&saved, *sides, &Page).unwrap();
    lab.adopt(false);
    assert_eq!(frame(lab).step, 3);
}

#[test]
fn a_change_is_looked_at_by_every_lab_before_one_makes_it_and_is_the_same_in_all() {
    let (mut one, mut two) = a_step_on();
    // Only the right learner did not keep what its new objective asks.
    let (dft, kl) = (settings("sft", "dft", ""), settings("sft", "sft_kl", ""));
    assert!(one.check_change(&kl).is_err() && one.check_change(&dft).is_ok());
    assert!(two[0].0.check_change(&kl).is_ok());
    assert!(two[1].0.check_change(&kl).unwrap_err().to_string().contains("did not keep"));
    one.change(dft.clone()).unwrap();
    two.iter_mut().for_each(|(lab, _)| lab.change(dft.clone()).unwrap());
    let wanted = frame(&mut one).learners;
    assert!(wanted[1].gate.0.iter().zip(&wanted[1].p.0).all(|(gate, p)| (gate - p).abs() <= 1e-5), "DFT weighs by p");
    let found: Vec<_> = two.iter_mut().flat_map(|(lab, _)| frame(lab).learners).collect();
    assert_eq!(found, wanted);
    two.iter_mut().for_each(|(lab, _)| lab.end());
    assert!(two[0].0.check_change(&dft).unwrap_err().to_string().contains("start first"));
    let alone = r#"{"common": {}, "left": {}, "right": null}"#;
    assert!(two[1].0.start(Settings::parse(alone).unwrap(), Sides::Right, &Page).is_err(), "there is no right learner");
}

#[test]
fn what_was_learned_comes_as_the_files_of_an_adapter_or_of_a_model() {
    let mut lab = lab();
    let names =
        |lab: &Lab, who| -> Vec<String> { wait(lab.result(who)).unwrap().into_iter().map(|file| file.name).collect() };
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    let model = names(&lab, Who::Left);
    assert!(["config.json", "tokenizer.json", "model.safetensors"].iter().all(|n| model.iter().any(|m| m == n)));
    let adapter = settings("sft", "eaft", r#", "adapter.kind": "lora""#);
    lab.start(adapter, Sides::Both, &Page).unwrap();
    assert_eq!(names(&lab, Who::Right), ["adapter_config.json", "adapter_model.safetensors"]);
    assert!(wait(lab.result(Who::Base)).is_err());
}

#[test]
fn an_estimate_says_whether_a_run_fits_and_a_measured_step_how_long_others_take() {
    let mut lab = lab();
    let full = lab.estimate(&settings("sft", "eaft", ""), false, u64::MAX).unwrap();
    assert!(full.fits && full.seconds_per_step == 0.0);
    let (first, last) = (&full.parts[0], &full.parts[full.parts.len() - 1]);
    assert!(first.starts_with("weights: ") && last.starts_with("all, at 128 tokens and 2 times "), "{:?}", full.parts);
    let tight = lab.estimate(&settings("sft", "eaft", ""), false, full.need_bytes - 1).unwrap();
    assert!(!tight.fits && tight.problem.contains("choose LoRA"));
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    frame(&mut lab);
    assert!(lab.estimate(&settings("sft", "eaft", ""), false, u64::MAX).unwrap().seconds_per_step > 0.0);
}

#[test]
fn what_cannot_be_is_refused_and_what_was_there_stays() {
    let mut lab = lab();
    assert!(wait(lab.next(&mut Page)).unwrap_err().to_string().contains("start first"));
    assert!(lab.own_data("one.jsonl".into(), br#"{"text": "a single line"}"#.to_vec()).is_err());
    assert!(lab.data_set("nowhere").unwrap_err().to_string().contains("nowhere"));
    let begun = lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    assert_eq!(begun.steps, 4);
    let other = settings("sft", "dft", r#", "run.seed": "9""#);
    assert!(matches!(lab.change(other), Err(Error::Config { .. })));
    lab.change(settings("sft", "dft", "")).unwrap();
    let test = wait(lab.self_test(&Page)).unwrap();
    assert!(test.passed && test.checks.len() > 10);
}

/// A message as JavaScript has it. Numbers of single precision are written as short as they read back.
fn json(value: Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => value.into(),
        Value::Number(value) => match value.fract() == 0.0 && value.abs() < 1e15 {
            true => (value as i64).into(),
            false => (value as f32).to_string().parse::<f64>().unwrap().into(),
        },
        Value::Text(value) => value.into(),
        Value::List(values) => values.into_iter().map(json).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, json(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Floats(values) => values.into_iter().map(|value| json(Value::Number(value.into()))).collect(),
        other => panic!("{other:?} is in no message here"),
    }
}

const FIRST: &str = "\
// What the engine says of the disputed word at the top of the page, shown until the engine is there. Written by
//   TEMPER_BLESS=1 cargo test --release --workspace --exclude temper-web-bundle --test lab disputed
export default ";

/// The page shows these numbers before its engine is there; they are the engine's own.
#[test]
fn the_disputed_word_that_the_page_begins_with_is_what_the_engine_says_of_it() {
    let mut lab = lab();
    let early = wait(lab.dispute("a", "b", 1.0)).unwrap_err().to_string();
    assert!(early.contains("start first"), "{early}");
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    let [prompt, known, taught] = &facts()[0];
    let at = |lab: &mut Lab, temperature| wait(lab.dispute(prompt, taught, temperature)).unwrap();
    let first = at(&mut lab, 1.0);
    let top = |dispute: &Dispute| dispute.candidates.iter().max_by(|a, b| a.p.total_cmp(&b.p)).unwrap().text.clone();
    assert_eq!(known, &top(&first), "the model knows {known}: {:?}", first.candidates);
    assert!(first.p < 0.1 && first.entropy < 0.5, "a conflict: {} and {} nats", first.p, first.entropy);
    assert!(
        first.gate[0] == 1.0 && first.gradient[0] > 1.0 && first.gradient[1] < 0.5 * first.gradient[0],
        "{first:?}"
    );
    // The less sure, the wider the gate; the arrow of plain fine-tuning hardly cares.
    let gates: Vec<f32> = [0.25, 1.0, 3.0, 8.0].iter().map(|t| at(&mut lab, *t).gate[1]).collect();
    assert!(gates.is_sorted() && gates[3] > gates[1], "{gates:?}");
    for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(wait(lab.dispute(prompt, taught, wrong)).is_err(), "{wrong}");
    }
    // Training does not move it: it is the base model's.
    frame(&mut lab);
    assert_eq!(at(&mut lab, 1.0), first);

    let mut told = json(first.into_value());
    told["text"] = taught.as_str().into();
    let path = repository("web/page/first.js");
    if std::env::var_os("TEMPER_BLESS").is_some() {
        fs::write(&path, format!("{FIRST}{};\n", serde_json::to_string_pretty(&told).unwrap())).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let stored = text.strip_prefix(FIRST).and_then(|rest| rest.trim_end().strip_suffix(';')).expect("a module");
    same(&serde_json::from_str(stored).unwrap(), &told, "first.js");
}

/// Equal, numbers within what another processor's rounding may change.
fn same(found: &serde_json::Value, wanted: &serde_json::Value, at: &str) {
    use serde_json::Value::{Array, Number, Object};
    match (found, wanted) {
        (Number(a), Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1e-3), "{at}: {a} is stored, and the engine says {b}");
        }
        (Array(a), Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            a.iter().zip(b).enumerate().for_each(|(nth, (a, b))| same(a, b, &format!("{at}[{nth}]")));
        }
        (Object(a), Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{at}");
            a.iter().for_each(|(key, value)| same(value, &b[key], &format!("{at}.{key}")));
        }
        _ => assert_eq!(found, wanted, "{at}"),
    }
}

#[test]
fn facts_are_quoted_with_what_base_and_learners_answer_now() {
    let mut lab = lab();
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    assert!(wait(lab.quotes()).unwrap().is_empty(), "this data set quotes nothing");
    lab.data_set("facts").unwrap();
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    let before = wait(lab.quotes()).unwrap();
    assert_eq!(before.len(), facts().len());
    for (quoted, [prompt, known, taught]) in before.iter().zip(facts()) {
        assert_eq!((&quoted.prompt, &quoted.expected, &quoted.taught), (&prompt, &known, &taught));
        let [base, left, right] = &quoted.answers[..] else { panic!("{quoted:?}") };
        assert_eq!((base.who, left.who, right.who), (Who::Base, Who::Left, Who::Right));
        assert_eq!((&base.top, base.taught), (&left.top, left.taught), "before the first step all are one");
        assert!(base.top.len() == 2 && base.top[0].p >= base.top[1].p && base.top[0].p <= 1.0);
        assert_eq!(known, base.top[0].text, "the model knows {known}: {base:?}");
        assert!(base.expected == base.top[0].p && base.taught < base.expected, "{base:?}");
    }
    for _ in 0..2 {
        frame(&mut lab);
    }
    let after = wait(lab.quotes()).unwrap();
    assert_eq!(after[0].answers[0], before[0].answers[0], "the base model stays");
    assert_ne!(after[0].answers[1].top[0].p, before[0].answers[1].top[0].p, "the left learner has learned");
}

#[test]
fn a_conflict_says_what_was_expected_and_only_a_conflict_does() {
    let mut lab = lab();
    lab.data_set("facts").unwrap();
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    let (mut conflicts, mut others) = (0, 0);
    for document in 0..60 {
        let seen = wait(lab.inspect(document, Who::Base, None)).unwrap();
        for (row, expected) in seen.expected.iter().enumerate() {
            let is_conflict = seen.p[row] < 0.1 && seen.entropy[row] < 0.5;
            assert_eq!(is_conflict, !expected.is_empty(), "document {document}, row {row}: {expected:?}");
            if is_conflict {
                conflicts += 1;
                let top = wait(lab.candidates(document, seen.position[row], Who::Base, None)).unwrap();
                assert_eq!(&top.candidates[0].text, expected);
            } else {
                others += 1;
            }
        }
    }
    assert!(conflicts > 3 && others > 3, "{conflicts} and {others}");
}

#[test]
fn what_the_page_writes_has_no_unknown_words_and_no_half_characters() {
    let mut lab = lab();
    lab.start(settings("sft", "eaft", ""), Sides::Both, &Page).unwrap();
    let begins = lab.beginning().unwrap();
    assert!(begins.starts_with("In 19") && !begins.contains('\u{FFFD}'), "{begins:?}");
    let texts = ["The film was released in", "In the", "He was", "The battle of", "It is also known as"];
    let prompts = texts.map(|text| Prompt { text: text.into(), kind: "general".into() }).to_vec();
    let sample = wait(lab.sample(prompts, 40)).unwrap();
    for continued in &sample.samples {
        assert!(!continued.base.is_empty());
        assert!(!continued.base.contains("<unk") && !continued.base.contains('\u{FFFD}'), "{:?}", continued.base);
    }
    let empty = vec![Prompt { text: String::new(), kind: "general".into() }];
    assert!(wait(lab.sample(empty, 4)).unwrap_err().to_string().contains("empty"));
}

#[test]
fn time_is_known_before_the_first_step_and_a_run_that_diverges_is_marked() {
    struct Clocked(std::time::Instant);
    impl Clock for Clocked {
        fn seconds(&self) -> f64 {
            self.0.elapsed().as_secs_f64()
        }
    }
    impl Host for Clocked {
        fn shows_rows(&self) -> bool {
            true
        }

        fn peak_bytes(&self) -> u64 {
            0
        }
    }
    let mut host = Clocked(std::time::Instant::now());
    let mut lab = lab();
    lab.every(1, 0);
    let wild = Settings::parse(
        r#"{"common": {"run.steps": "4", "run.batch_tokens": "128", "adapter.kind": "none", "optim.learning_rate": "10"},
            "left": {"objective.method": "sft"}, "right": {"objective.method": "sft"}}"#,
    )
    .unwrap();
    assert_eq!(lab.estimate(&wild, false, u64::MAX).unwrap().seconds_per_step, 0.0);
    lab.start(wild.clone(), Sides::Both, &host).unwrap();
    let mut marked = Vec::new();
    while let Some(told) = wait(lab.next(&mut host)).unwrap() {
        if let Told::Evaluated(standings) = told {
            if standings.step == 0 {
                let seconds = lab.estimate(&wild, false, u64::MAX).unwrap().seconds_per_step;
                assert!(seconds > 0.0 && seconds.is_finite(), "{seconds}");
            }
            marked.push((standings.step, standings.diverged));
        }
    }
    assert_eq!(marked[0], (0, vec![false, false]));
    assert_eq!(marked.last().unwrap(), &(4, vec![true, true]), "{marked:?}");
}
