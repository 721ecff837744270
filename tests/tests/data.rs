//! The data pipeline against Hugging Face's tokenizers and templates, and its promises about spans, packing, order and
//! bad input. Run with `cargo test -p temper-conformance --test data`.

use std::io::BufReader;
use std::sync::Arc;

use serde_json::Value;
use temper_conformance::golden::{bytes, tokenizer_json};
use temper_engine::inside::data::{
    Conversation, Cursor, EncodeOptions, GgufVocabulary, IGNORE, Kind, MicroBatch, RenderOptions, encode, pack, record,
};
use temper_engine::inside::model::family::pre_tokenizers;
use temper_engine::inside::weights::gguf::Gguf;
use temper_engine::reading::{
    ChatTemplate, Loader, Message, OnError, ReadOptions, RecordFormat, read_set, unused_field,
};
use temper_engine::scan::Stream;
use temper_engine::{Config, Document, Tokenizer};

const SMOLLM2: &str = include_str!("../golden/tokenizers/smollm2.json");
const SMOLLM2_GSM8K: &str = include_str!("../golden/tokenizers/smollm2_gsm8k_row0.json");
const QWEN3: &str = include_str!("../golden/tokenizers/qwen3.json");
const GEMMA: &str = include_str!("../golden/tokenizers/gemma.json");

/// GLM-4's way of writing a chat: no token ends a turn.
const OPEN_ENDED: &str = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}\
                          {% if add_generation_prompt %}<|assistant|>\n{% endif %}";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A `tokenizer_config.json` with what the golden file recorded.
fn config(golden: &Value) -> Vec<u8> {
    serde_json::json!({"bos_token": golden["bos"], "eos_token": golden["eos"], "pad_token": golden["pad"],
        "chat_template": golden["chat_template"]})
    .to_string()
    .into_bytes()
}

fn smollm2() -> Tokenizer {
    Tokenizer::from_json(&tokenizer_json("smollm2"), Some(&config(&json(SMOLLM2)))).unwrap()
}

fn qwen3() -> Tokenizer {
    Tokenizer::from_json(&tokenizer_json("qwen3"), Some(&config(&json(QWEN3)))).unwrap()
}

/// The smollm2 vocabulary in the form in which a GGUF file holds it.
fn smollm2_vocabulary() -> GgufVocabulary {
    let file: Value = serde_json::from_slice(&tokenizer_json("smollm2")).unwrap();
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let mut token_types = vec![1; tokens.len()];
    for added in file["added_tokens"].as_array().unwrap() {
        token_types[added["id"].as_u64().unwrap() as usize] = 3;
    }
    let pair = |merge: &Value| format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
    let merges: Vec<String> = file["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
    let golden = json(SMOLLM2);
    GgufVocabulary {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        tokens,
        merges,
        token_types,
        bos: Some(1),
        eos: Some(2),
        pad: Some(2),
        add_bos: Some(false),
        chat_template: golden["chat_template"].as_str().map(str::to_owned),
        ..Default::default()
    }
}

fn smollm2_from_gguf() -> Tokenizer {
    Tokenizer::from_gguf(smollm2_vocabulary(), &pre_tokenizers()).unwrap()
}

/// A small SentencePiece vocabulary as Gemma's.
fn gemma() -> Tokenizer {
    Tokenizer::from_json(&bytes("tokenizers/gemma_tokenizer.json"), Some(&config(&json(GEMMA)))).unwrap()
}

/// The same out of a GGUF file, which has scores where `tokenizer.json` has merges.
fn gemma_from_gguf() -> Tokenizer {
    let file = Gguf::open(Arc::new(bytes("tokenizers/gemma.gguf")), "gemma.gguf").unwrap();
    let vocabulary = GgufVocabulary::read(file.metadata(), file.file()).unwrap();
    Tokenizer::from_gguf(vocabulary, &pre_tokenizers()).unwrap()
}

/// How a tokenizer's answers to the golden strings differ from the recorded ones; empty is what is promised.
fn string_differences(tokenizer: &Tokenizer, golden: &Value) -> Vec<String> {
    let rows = golden["encode"].as_array().unwrap();
    assert!(rows.len() >= 39, "every golden file has these strings, or more");
    let mut differences = Vec::new();
    for row in rows {
        let expected = ids(&row["ids"]);
        let got = tokenizer.encode(text(row, "text")).unwrap();
        let with_offsets = tokenizer.encode_with_offsets(text(row, "text")).unwrap();
        let decoded = tokenizer.decode(&expected, false).unwrap();
        if got != expected || with_offsets.ids != expected || decoded != text(row, "decoded") {
            differences.push(format!("{:?}: {expected:?} became {got:?}, decoded {decoded:?}", text(row, "text")));
        }
    }
    differences
}

fn check_against_golden(tokenizer: &Tokenizer, golden: &str) {
    let golden = json(golden);
    let none: Vec<String> = Vec::new();
    assert_eq!(string_differences(tokenizer, &golden), none);
    assert_eq!(tokenizer.vocab_size() as u64, golden["vocab_size"].as_u64().unwrap());
    let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).map_or(Value::Null, Value::from);
    assert_eq!(spelling(tokenizer.bos_id()), golden["bos"]);
    assert_eq!(spelling(tokenizer.eos_id()), golden["eos"]);
    // Temper never pads: the token is only passed on.
    let [_, (name, written)] = tokenizer.to_files().unwrap();
    assert_eq!(name, "tokenizer_config.json");
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap()["pad_token"], golden["pad"]);
}

fn template(tokenizer: &Tokenizer) -> ChatTemplate {
    let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
    let (bos, eos) = (spelling(tokenizer.bos_id()), spelling(tokenizer.eos_id()));
    ChatTemplate::new(tokenizer.chat_template().unwrap(), bos.as_deref(), eos.as_deref()).unwrap()
}

fn check_chats(tokenizer: &Tokenizer, golden: &str, count: usize) {
    let golden = json(golden);
    let template = template(tokenizer);
    let chats = golden["chat"].as_array().unwrap();
    assert_eq!(chats.len(), count);
    for chat in chats {
        let messages: Vec<Message> = chat["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| Message::new(text(message, "role"), text(message, "content")))
            .collect();
        let mut options = RenderOptions {
            add_generation_prompt: chat["add_generation_prompt"].as_bool().unwrap(),
            tools: chat.get("tools").cloned(),
            ..RenderOptions::default()
        };
        if let Some(flag) = chat.get("enable_thinking") {
            options.variables.insert("enable_thinking".into(), flag.clone());
        }
        let rendered = template.render_with(&messages, &options).unwrap();
        assert_eq!(rendered, text(chat, "text"));
        assert_eq!(tokenizer.encode(&rendered).unwrap(), ids(&chat["ids"]));
    }
}

const EVERY_TURN: EncodeOptions = EncodeOptions { cutoff_length: 4096, last_turn_only: false, on_error: OnError::Stop };

fn documents(
    lines: &str,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: EncodeOptions,
) -> Vec<Document> {
    let (records, _) = record::parse("d.jsonl", lines.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
    encode("d.jsonl", &records, tokenizer, template, options).unwrap().documents
}

/// The trained tokens of a document as text, a string for each run.
fn trained_runs(document: &Document, tokenizer: &Tokenizer) -> Vec<String> {
    let mut runs: Vec<Vec<u32>> = Vec::new();
    let mut inside = false;
    for (token, trained) in document.tokens.iter().zip(&document.trained) {
        match runs.last_mut() {
            Some(run) if inside && *trained => run.push(*token),
            _ if *trained => runs.push(vec![*token]),
            _ => {}
        }
        inside = *trained;
    }
    runs.iter().map(|run| tokenizer.decode(run, false).unwrap()).collect()
}

#[test]
fn smollm2_ids_and_decodings_equal_those_of_transformers() {
    check_against_golden(&smollm2(), SMOLLM2);
}

#[test]
fn smollm2_ids_from_a_gguf_vocabulary_equal_those_of_transformers() {
    let tokenizer = smollm2_from_gguf();
    check_against_golden(&tokenizer, SMOLLM2);
    check_chats(&tokenizer, SMOLLM2, 4);
}

#[test]
fn qwen3_ids_and_decodings_equal_those_of_transformers() {
    check_against_golden(&qwen3(), QWEN3);
}

#[test]
fn ids_and_decodings_of_a_gemma_equal_those_of_sentencepiece_out_of_either_file() {
    for tokenizer in [gemma(), gemma_from_gguf()] {
        check_against_golden(&tokenizer, GEMMA);
        check_chats(&tokenizer, GEMMA, 4);
    }
    assert!(gemma_from_gguf().add_bos(), "as the file says");
}

#[test]
fn smollm2_chats_render_as_in_transformers() {
    check_chats(&smollm2(), SMOLLM2, 4);
}

#[test]
fn qwen3_chats_with_tools_and_thinking_render_as_in_transformers() {
    check_chats(&qwen3(), QWEN3, 6);
}

#[test]
fn tokenizers_written_for_gguf_encode_the_golden_strings_as_before() {
    for (tokenizer, golden, pre, chats) in
        [(smollm2(), SMOLLM2, "smollm", 4), (qwen3(), QWEN3, "qwen2", 6), (gemma(), GEMMA, "default", 4)]
    {
        let rows = tokenizer.vocab_size() + 7;
        let vocabulary = tokenizer.to_gguf(&pre_tokenizers(), rows).unwrap();
        assert_eq!((vocabulary.pre.as_deref(), vocabulary.tokens.len()), (Some(pre), rows));
        let last = format!("[PAD{}]", rows - 1);
        assert_eq!((vocabulary.tokens[rows - 1].as_str(), vocabulary.token_types[rows - 1]), (last.as_str(), 5));
        let read = Tokenizer::from_gguf(vocabulary, &pre_tokenizers()).unwrap();
        assert_eq!(string_differences(&read, &json(golden)), Vec::<String>::new());
        assert_eq!(
            (read.bos_id(), read.eos_id(), read.add_bos()),
            (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.add_bos())
        );
        assert_eq!(read.chat_template(), tokenizer.chat_template());
        check_chats(&read, golden, chats);
    }
}

#[test]
fn a_tokenizer_that_gguf_cannot_say_is_refused_with_the_part_that_differs() {
    let written = |change: &dyn Fn(&mut Value)| {
        let mut file: Value = serde_json::from_slice(&tokenizer_json("smollm2")).unwrap();
        change(&mut file);
        let tokenizer = Tokenizer::from_json(file.to_string().as_bytes(), Some(&config(&json(SMOLLM2)))).unwrap();
        tokenizer.to_gguf(&pre_tokenizers(), tokenizer.vocab_size()).map(|_| ()).map_err(|error| error.to_string())
    };
    written(&|_| ()).unwrap();
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let changes: [Change; 5] = [
        ("the way in which it cuts text", &|file| file["pre_tokenizer"] = serde_json::json!({"type": "Whitespace"})),
        ("the way in which it cuts text", &|file| file["model"]["ignore_merges"] = true.into()),
        ("its normaliser", &|file| file["normalizer"] = serde_json::json!({"type": "Lowercase"})),
        ("its added tokens", &|file| file["added_tokens"][0]["lstrip"] = true.into()),
        ("how it merges", &|file| file["model"]["byte_fallback"] = true.into()),
    ];
    for (part, change) in changes {
        let problem = written(change).unwrap_err();
        assert!(problem.contains("GGUF cannot say what this tokenizer does") && problem.contains(part), "{problem}");
        assert!(problem.contains("a Hugging Face folder"), "{problem}");
    }
    let problem = smollm2().to_gguf(&pre_tokenizers(), 100).unwrap_err().to_string();
    assert!(problem.contains("beyond the 100 rows"), "{problem}");
}

#[test]
fn the_golden_comparison_sees_a_wrong_tokenizer() {
    let mut golden = json(SMOLLM2);
    golden["encode"][6]["ids"][0] = 1.into();
    golden["encode"][7]["decoded"] = "x".into();
    assert_eq!(string_differences(&smollm2(), &golden).len(), 2);
}

#[test]
fn offsets_point_at_the_text_of_each_token() {
    let tokenizer = smollm2();
    let source = "The café costs 12 €.\n<|im_end|>";
    let tokens = tokenizer.encode_with_offsets(source).unwrap();
    assert_eq!(tokens.ids.len(), tokens.offsets.len());
    let mut covered = 0;
    for (id, &(start, end)) in tokens.ids.iter().zip(&tokens.offsets) {
        let piece = tokenizer.decode(&[*id], false).unwrap();
        // A token that is a part of a letter's bytes covers the whole letter.
        assert!(source[start..end] == piece || piece.contains('\u{fffd}'), "{piece:?} is not {start}..{end}");
        assert!(start <= covered && end >= covered, "{start}..{end} after {covered}");
        covered = end;
    }
    assert_eq!(covered, source.len(), "the tokens cover all of the text");
}

/// Long texts of what is hard to cut, each longer than several pieces of the tokenizer.
fn long_texts() -> Vec<(&'static str, String)> {
    let golden = json(SMOLLM2);
    let strings: Vec<&str> = golden["encode"].as_array().unwrap().iter().map(|row| text(row, "text")).collect();
    let lines: String =
        (0..30_000).map(|n| format!("{}line {n}{}", " ".repeat(n % 5), "\n".repeat(1 + n % 4))).collect();
    let mixed = [
        "word",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "。",
        "这是",
        "🦀",
        "👩‍👩‍👧",
        "e\u{301}",
        "\u{301}",
        "12345",
        "'s",
        "!?",
        "\u{a0}",
        "\u{3000}",
        "\u{2028}",
        "\u{85}",
        "<|im_end|>",
        "<|im_start|>",
        "<",
        "한글",
        "का",
        "\u{b}",
        "/",
        "...\n",
        "x\u{338}",
    ];
    // A sequence of a fixed generator, so that every pair of neighbours occurs.
    let mut state = 7_u64;
    let mut random = String::new();
    while random.len() < 400_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random.push_str(mixed[(state >> 33) as usize % mixed.len()]);
    }
    vec![
        ("golden strings", strings.join(" ").repeat(60)),
        ("golden strings in lines", strings.join("\r\n").repeat(60)),
        ("lines", lines),
        ("lines of Windows", "One line.\r\nAnother one!\r\n\r\n".repeat(8_000)),
        ("Chinese", "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。\n\n".repeat(3_000)),
        ("Chinese of Windows", "春眠不觉晓，处处闻啼鸟。\r\n".repeat(6_000)),
        ("emoji", "🦀👩‍👩‍👧 é ".repeat(8_000)),
        ("long words", format!("{} {}\n{}", "abc".repeat(40_000), "1".repeat(70_000), "?!".repeat(40_000))),
        ("no place to cut", "x".repeat(200_000)),
        ("spaces", format!("a{}b{}c", " ".repeat(70_000), "\n".repeat(70_000))),
        ("all of it", random),
    ]
}

fn check_pieces(tokenizer: &Tokenizer) {
    let whole = tokenizer.clone().uncut();
    for (what, text) in long_texts() {
        let expected = whole.encode_with_offsets(&text).unwrap();
        assert!(tokenizer.encode(&text).unwrap() == expected.ids, "{what}");
        assert!(tokenizer.encode_with_offsets(&text).unwrap() == expected, "{what}, with offsets");
    }
}

#[test]
fn a_long_text_has_the_same_tokens_in_pieces_as_whole() {
    for tokenizer in [smollm2(), smollm2_from_gguf(), qwen3()] {
        assert!(tokenizer.cuts(), "the golden tokenizers cut");
        check_pieces(&tokenizer);
    }
}

#[test]
fn every_pre_tokenizer_of_gguf_files_cuts_long_texts_into_the_same_tokens() {
    let golden = smollm2_vocabulary();
    let families = pre_tokenizers();
    let names = families.iter().map(|family| family.names[0]).chain(["gpt-2", "default"]);
    for name in names {
        let vocabulary = GgufVocabulary { pre: Some(name.into()), ..golden.clone() };
        let tokenizer = Tokenizer::from_gguf(vocabulary, &families).unwrap();
        assert!(tokenizer.cuts(), "{name}");
        check_pieces(&tokenizer);
    }
}

#[test]
fn a_tokenizer_of_which_no_certain_place_to_cut_is_known_encodes_every_text_whole() {
    let file: Value = serde_json::from_slice(&tokenizer_json("smollm2")).unwrap();
    let with = |path: &str, value: Value| {
        let mut file = file.clone();
        *file.pointer_mut(path).unwrap() = value;
        Tokenizer::from_json(file.to_string().as_bytes(), None).unwrap()
    };
    let bytes = |regex: bool, space: bool| serde_json::json!({"type": "ByteLevel", "use_regex": regex, "add_prefix_space": space, "trim_offsets": true});
    assert!(with("/pre_tokenizer", bytes(true, false)).cuts());
    assert!(!with("/pre_tokenizer", bytes(false, false)).cuts());
    assert!(!with("/pre_tokenizer", bytes(true, true)).cuts());
    let split =
        serde_json::json!({"type": "Split", "pattern": {"Regex": "a b"}, "behavior": "Isolated", "invert": false});
    assert!(!with("/pre_tokenizer", split).cuts());
    assert!(
        !with("/normalizer", serde_json::json!({"type": "Replace", "pattern": {"String": "a b"}, "content": "c"}))
            .cuts()
    );
    assert!(!with("/added_tokens/0/rstrip", true.into()).cuts());
    assert!(!with("/added_tokens/0/single_word", true.into()).cuts());
}

fn record_of(conversation: Conversation) -> record::Record {
    record::Record { line: 1, number: None, content: record::Content::Chat(conversation) }
}

/// A conversation of so many turns, in which the assistant's are told apart.
fn long_chat(turns: usize) -> Vec<record::Record> {
    let message = |at: usize| match at % 2 {
        0 => Message::new("user", format!("What is number {at}?")),
        _ => Message::new("assistant", format!("It is {}.\n", at * 7)),
    };
    let conversation = Conversation { messages: (0..turns).map(message).collect(), tools: None };
    vec![record_of(conversation)]
}

#[test]
fn a_chat_that_is_cut_off_keeps_the_tokens_and_marks_of_the_whole() {
    for tokenizer in [smollm2(), qwen3()] {
        let template = template(&tokenizer);
        let records = long_chat(40);
        let of = |cutoff_length, last_turn_only| {
            let options = EncodeOptions { cutoff_length, last_turn_only, on_error: OnError::Stop };
            encode("d", &records, &tokenizer, Some(&template), options).map(|made| made.documents[0].clone())
        };
        let whole = of(100_000, false).unwrap();
        assert_eq!(trained_runs(&whole, &tokenizer).len(), 20);
        for cutoff in [64, 65, 66, 67, 200, whole.tokens.len() - 1, whole.tokens.len()] {
            let cut = of(cutoff, false).unwrap();
            assert_eq!(cut.tokens, whole.tokens[..cutoff]);
            assert_eq!(cut.trained, whole.trained[..cutoff], "cutoff {cutoff}");
        }
        let error = of(5, false).unwrap_err().to_string();
        for part in ["no trained token is left", "the 5 that are kept", "run.batch_tokens", "data.on_error=skip"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        let error = of(64, true).unwrap_err().to_string();
        assert!(error.contains("no trained token is left"), "{error}");
    }
}

#[test]
fn the_time_of_a_long_chat_grows_with_its_length_and_not_with_its_square() {
    // Qwen3 writes earlier turns differently, so that each has to be looked for: there the cutoff bounds the time.
    for (tokenizer, cutoff_length) in [(smollm2(), usize::MAX), (qwen3(), 64)] {
        let template = template(&tokenizer);
        let options = EncodeOptions { cutoff_length, ..EVERY_TURN };
        let seconds = |turns: usize| {
            let records = long_chat(turns);
            let once = || {
                let begin = std::time::Instant::now();
                encode("d", &records, &tokenizer, Some(&template), options).unwrap();
                begin.elapsed().as_secs_f64()
            };
            (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
        };
        let (short, long) = (seconds(500), seconds(8_000));
        // Sixteen times the turns: a square would take 256 times as long.
        assert!(long < 60.0 * short, "500 turns take {short} s, 8,000 take {long} s");
    }
}

#[test]
fn a_gsm8k_record_becomes_the_golden_ids_with_the_answer_trained() {
    let golden = json(SMOLLM2_GSM8K);
    let (expected, prompt) = (ids(&golden["ids"]), golden["prompt_tokens"].as_u64().unwrap() as usize);
    let answer_tokens = expected.len() - prompt;
    let line = serde_json::json!({"question": golden["question"], "answer": golden["answer"]}).to_string();
    for tokenizer in [smollm2(), smollm2_from_gguf()] {
        let made = documents(&line, &tokenizer, Some(&template(&tokenizer)), EVERY_TURN);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].tokens, expected);
        let marks: Vec<bool> = (0..expected.len()).map(|index| index >= prompt).collect();
        assert_eq!(made[0].trained, marks);
        assert_eq!(made[0].trained_tokens(), answer_tokens);
        let runs = trained_runs(&made[0], &tokenizer);
        assert_eq!(runs, [format!("{}<|im_end|>\n", text(&golden, "answer"))]);
    }
}

#[test]
fn every_assistant_turn_is_trained_or_only_the_last() {
    let line = r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"one"},{"role":"user","content":"one"},{"role":"assistant","content":"two"}]}"#;
    let last = EncodeOptions { last_turn_only: true, ..EVERY_TURN };
    let tokenizer = smollm2();
    let template = template(&tokenizer);
    let runs = |options| trained_runs(&documents(line, &tokenizer, Some(&template), options)[0], &tokenizer);
    assert_eq!(runs(EVERY_TURN), ["one<|im_end|>\n", "two<|im_end|>\n"]);
    assert_eq!(runs(last), ["two<|im_end|>\n"]);
}

#[test]
fn qwen3_turns_are_found_although_it_drops_earlier_thinking() {
    let line = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"<think>\nhm\n</think>\n\none"},{"role":"user","content":"one"},{"role":"assistant","content":"<think>\nso\n</think>\n\ntwo"}]}"#;
    let tokenizer = qwen3();
    let template = template(&tokenizer);
    let runs = trained_runs(&documents(line, &tokenizer, Some(&template), EVERY_TURN)[0], &tokenizer);
    assert_eq!(runs, ["one<|im_end|>\n", "<think>\nso\n</think>\n\ntwo<|im_end|>\n"]);
}

#[test]
fn qwen3_tool_calls_are_trained_and_tool_answers_are_not() {
    let line = r#"{"messages":[{"role":"user","content":"w?"},{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]},{"role":"tool","content":"sun"},{"role":"assistant","content":"It is sunny."}],"tools":[{"type":"function","function":{"name":"f"}}]}"#;
    let tokenizer = qwen3();
    let template = template(&tokenizer);
    let document = &documents(line, &tokenizer, Some(&template), EVERY_TURN)[0];
    let runs = trained_runs(document, &tokenizer);
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(
        runs[0].ends_with("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call><|im_end|>\n"),
        "{runs:?}"
    );
    assert!(runs[1].ends_with("It is sunny.<|im_end|>\n") && !runs[1].contains("sun\n"), "{runs:?}");
    assert!(tokenizer.decode(&document.tokens, false).unwrap().contains("# Tools"));
}

#[test]
fn tools_of_share_gpt_are_written_as_those_of_openai_where_the_template_knows_them() {
    let call = r#"{"name":"f","arguments":{"x":1}}"#;
    let share_gpt = |observation: &str| {
        let turns = [("human", "w?"), ("function_call", call), (observation, "sun"), ("gpt", "It is sunny.")];
        let turns = turns.map(|(from, value)| serde_json::json!({"from": from, "value": value}));
        serde_json::json!({"conversations": turns}).to_string()
    };
    let openai = serde_json::json!({"messages": [
        {"role": "user", "content": "w?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "sun"},
        {"role": "assistant", "content": "It is sunny."},
    ]});
    let tokenizer = qwen3();
    let qwen = template(&tokenizer);
    let expected = documents(&openai.to_string(), &tokenizer, Some(&qwen), EVERY_TURN);
    let said = tokenizer.decode(&expected[0].tokens, false).unwrap();
    assert!(said.contains("<tool_call>") && said.contains("<tool_response>\nsun\n</tool_response>"), "{said}");
    for observation in ["observation", "function_response"] {
        assert_eq!(documents(&share_gpt(observation), &tokenizer, Some(&qwen), EVERY_TURN), expected, "{observation}");
    }

    // A template that knows no tool_calls keeps the text, and one that compares with the role keeps the role.
    let tokenizer = smollm2();
    let chatml = tokenizer.chat_template().unwrap();
    let knowing = format!("{{% if messages[0].role == 'observation' %}}{{% endif %}}{chatml}");
    for (source, role) in [(chatml, "tool"), (knowing.as_str(), "observation")] {
        let template = ChatTemplate::new(source, None, None).unwrap();
        let document = &documents(&share_gpt("observation"), &tokenizer, Some(&template), EVERY_TURN)[0];
        assert_eq!(trained_runs(document, &tokenizer)[0], format!("{call}<|im_end|>\n"));
        let said = tokenizer.decode(&document.tokens, false).unwrap();
        assert!(said.contains(&format!("<|im_start|>{role}\nsun<|im_end|>")), "{said}");
    }
}

#[test]
fn what_nothing_writes_of_records_that_are_used_is_counted() {
    let thought =
        |n: usize| serde_json::json!({"role": "assistant", "content": "b", "reasoning_content": format!("c{n}")});
    let asked = serde_json::json!({"role": "user", "content": "a"});
    let thinking = serde_json::json!({"messages": [asked, thought(1), asked, thought(2), asked, thought(3)]});
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f"}}]);
    let tools = serde_json::json!({"messages": [asked, thought(4)], "tools": tools});
    let lines = format!("{thinking}\n{tools}");
    let (records, _) = record::parse("d.jsonl", lines.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
    let tokenizer = qwen3();
    let qwen = template(&tokenizer);
    let counts = |template: Option<&ChatTemplate>, last_turn_only: bool| {
        let options = EncodeOptions { last_turn_only, ..EVERY_TURN };
        let of = encode("d.jsonl", &records, &tokenizer, template, options).unwrap().report.unwritten;
        [of.thinking_by_template, of.thinking, of.tools]
    };
    assert_eq!(counts(Some(&qwen), false), [2, 0, 0], "Qwen3 writes what was thought before a last turn alone");
    assert_eq!(counts(Some(&qwen), true), [0, 0, 0]);
    assert_eq!(counts(None, false), [0, 4, 1]);
}

#[test]
fn what_a_template_or_the_layout_without_one_would_leave_out_is_refused_or_skipped() {
    let good = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    let of = |message: &str| good.replace(r#"[{"role":"user""#, &format!(r#"[{message},{{"role":"user""#));
    let developer = of(r#"{"role":"developer","content":" Be terse. "}"#);
    let calls = of(r#"{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]}"#);
    let empty = of(r#"{"role":"developer","content":" "}"#);
    let (qwen, smol) = (qwen3(), smollm2());
    let (of_qwen, of_smol) = (template(&qwen), template(&smol));
    let made = |line: &str, tokenizer: &Tokenizer, template: Option<&ChatTemplate>, on_error: OnError| {
        let lines = format!("{good}\n{line}");
        let (records, _) = record::parse("d.jsonl", lines.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
        encode("d.jsonl", &records, tokenizer, template, EncodeOptions { on_error, ..EVERY_TURN })
    };
    let cases = [
        (&developer, &qwen, Some(&of_qwen), "it leaves out the content of the role \"developer\" (message 1)"),
        (
            &calls,
            &smol,
            Some(&of_smol),
            "it leaves out the tool_calls (message 1), so that it would be missing from the text; use what the template \
             writes, or put another one into chat_template.jinja beside the model",
        ),
        (
            &calls,
            &smol,
            None,
            "message 1 has tool_calls, which only a chat template writes: give the model one that has them",
        ),
    ];
    for (line, tokenizer, template, problem) in cases {
        let error = made(line, tokenizer, template, OnError::Stop).unwrap_err().to_string();
        assert!(error.starts_with("d.jsonl, line 2: ") && error.contains(problem), "{error}");
        let skipped = made(line, tokenizer, template, OnError::Skip).unwrap();
        assert_eq!((skipped.documents.len(), skipped.report.skipped), (1, 1));
        assert!(skipped.report.problems[0].contains(problem));
    }
    for (line, tokenizer, template) in
        [(&developer, &smol, Some(&of_smol)), (&developer, &smol, None), (&empty, &qwen, Some(&of_qwen))]
    {
        assert_eq!(made(line, tokenizer, template, OnError::Stop).unwrap().documents.len(), 2, "{line}");
    }
    // The content is written trimmed: it is there.
    let trimming = smol.chat_template().unwrap().replace("['content']", "['content'] | trim");
    let trimming = ChatTemplate::new(&trimming, None, None).unwrap();
    assert_eq!(made(&developer, &smol, Some(&trimming), OnError::Stop).unwrap().documents.len(), 2);
}

#[test]
fn an_assistants_turn_that_is_not_to_be_trained_is_only_read() {
    let line = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0},
        {"role":"user","content":"c"},{"role":"assistant","content":"d","weight":1}]}"#;
    let line = line.replace('\n', "");
    let all = line.replace(r#","weight":0"#, "");
    let last = EncodeOptions { last_turn_only: true, ..EVERY_TURN };
    for tokenizer in [smollm2(), qwen3()] {
        let rendered = template(&tokenizer);
        for template in [Some(&rendered), None] {
            let of = |line: &str, options| documents(line, &tokenizer, template, options).remove(0);
            let (whole, part) = (of(&all, EVERY_TURN), of(&line, EVERY_TURN));
            assert_eq!(part.tokens, whole.tokens, "it is read as before");
            let runs = trained_runs(&whole, &tokenizer);
            assert_eq!(runs.len(), 2);
            assert_eq!(trained_runs(&part, &tokenizer), runs[1..]);
            assert_eq!(of(&line, last), part);
            let swapped = line.replace("\"weight\":1", "\"train\":false").replace("\"weight\":0", "\"weight\":1");
            assert_eq!(trained_runs(&of(&swapped, last), &tokenizer), runs[..1], "the last one that is trained");
            let none = line.replace("\"weight\":1", "\"weight\":0");
            let (records, _) = record::parse("d", none.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
            let error = encode("d", &records, &tokenizer, template, EVERY_TURN).unwrap_err().to_string();
            assert!(error.contains("no token is trained"), "{error}");
        }
    }
}

#[test]
fn a_prompt_and_completion_of_messages_are_the_conversation_with_the_completion_trained() {
    let tokenizer = smollm2();
    let template = template(&tokenizer);
    let line = r#"{"prompt":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"completion":[{"role":"assistant","content":"d"}]}"#;
    let as_messages = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}"#;
    for template in [Some(&template), None] {
        let of = |line: &str| documents(line, &tokenizer, template, EVERY_TURN);
        assert_eq!(of(line), of(as_messages));
    }
}

/// A configuration with these settings.
fn configured(set: &[(&str, &str)]) -> Config {
    let set: Vec<_> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Config::parse("[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n", "c.toml", &set).unwrap()
}

#[test]
fn template_variables_of_a_configuration_reach_every_rendering() {
    let line = r#"{"prompt":"hi","completion":"yes"}"#;
    let tokenizer = qwen3();
    for (variables, trained) in
        [("", "<think>\n\n</think>\n\nyes<|im_end|>\n"), ("{ enable_thinking = false }", "yes<|im_end|>\n")]
    {
        let config = configured(&[("data.template_variables", variables)]);
        let options = ReadOptions::of(&config.data).measured();
        let read = read_set("d.jsonl", line.as_bytes(), &tokenizer, options).unwrap().documents;
        assert_eq!(trained_runs(&read[0], &tokenizer), [trained]);
        let mut stream = Stream::new("d.jsonl", Box::new(line.as_bytes()), &tokenizer, options).unwrap();
        assert_eq!(stream.next_piece().unwrap().unwrap().documents, read);
        let template = ChatTemplate::of(&tokenizer, config.data.template_variables.as_ref()).unwrap().unwrap();
        let prompt = template.render(&[Message::new("user", "hi")], true).unwrap();
        assert_eq!(prompt.ends_with("assistant\n"), variables.is_empty(), "{prompt}");
        // What one rendering is given counts more.
        let own = serde_json::Map::from_iter([("enable_thinking".to_string(), Value::from(true))]);
        let options = RenderOptions { add_generation_prompt: true, variables: own, ..RenderOptions::default() };
        assert!(template.render_with(&[Message::new("user", "hi")], &options).unwrap().ends_with("assistant\n"));
    }
}

#[test]
fn fields_of_other_names_give_the_documents_of_the_usual_ones_read_at_once_or_as_they_come() {
    let tokenizer = qwen3();
    let config = configured(&[("data.fields", "prompt=input_text,completion=target_text")]);
    let usual = ["{\"prompt\":\"hi\",\"completion\":\"yes\"}", "{\"prompt\":\"so\",\"completion\":\"no\"}"].join("\n");
    let other = usual.replace("\"prompt\"", "\"input_text\"").replace("\"completion\"", "\"target_text\"");
    let documents = read_set("d.jsonl", usual.as_bytes(), &tokenizer, ReadOptions::of(&configured(&[]).data)).unwrap();
    let documents = documents.documents;
    let options = ReadOptions::of(&config.data);
    let streamed = |text: &str| {
        let mut stream = Stream::new("d.jsonl", Box::new(text.as_bytes()), &tokenizer, options).unwrap();
        let mut documents = Vec::new();
        while let Some(piece) = stream.next_piece().unwrap() {
            documents.extend(piece.documents);
        }
        (documents, stream.report().fields.unwrap())
    };
    // What is measured may have the usual names, or those of the training set.
    for options in [options, options.measured()] {
        for (text, is_used) in [(&other, true), (&usual, false)] {
            let read = read_set("d.jsonl", text.as_bytes(), &tokenizer, options).unwrap();
            assert_eq!(read.documents, documents);
            let (found, fields) = streamed(text);
            assert_eq!((found, Some(&fields)), (read.documents, read.records.fields.as_ref()));
            assert_eq!(unused_field(&[("d.jsonl", fields)]).is_none(), is_used, "{text}");
        }
    }
    let broken =
        Stream::new("d.jsonl", Box::new(&b"{\"input_text\":\"a\"}"[..]), &tokenizer, options).unwrap().next_piece();
    let error = broken.err().expect("half of a record").to_string();
    assert!(error.starts_with("d.jsonl, line 1: field `target_text` is missing, which is `completion`"), "{error}");
}

#[test]
fn a_json_array_gives_the_documents_of_its_records_read_at_once_or_as_it_comes() {
    let one =
        |n: usize| serde_json::json!({"prompt": format!("What, {n}?\n"), "completion": "It [is]. ".repeat(1 + n)});
    let records: Vec<String> = (0..20).map(|n| one(n).to_string()).collect();
    let tokenizer = smollm2();
    let config = configured(&[]);
    let options = ReadOptions::of(&config.data);
    let read = |name: &str, text: &str| read_set(name, text.as_bytes(), &tokenizer, options).map(|set| set.documents);
    let streamed = |name: &str, text: &str| -> temper_engine::Result<(Vec<String>, Vec<Document>)> {
        let input = BufReader::with_capacity(7, text.as_bytes());
        let mut stream = Stream::new(name, Box::new(input), &tokenizer, options)?;
        let (mut raws, mut documents) = (Vec::new(), Vec::new());
        while let Some(piece) = stream.next_piece()? {
            raws.push(String::from_utf8(piece.raw.unwrap()).unwrap());
            documents.extend(piece.documents);
        }
        Ok((raws, documents))
    };
    let seen = |documents: &[Document]| -> Vec<(Vec<u32>, Vec<bool>)> {
        documents.iter().map(|document| (document.tokens.clone(), document.trained.clone())).collect()
    };
    let lines = read("d.jsonl", &records.join("\n")).unwrap();
    for between in [",", ",\n", "\n ,\n  "] {
        let array = format!("[{}\n]\n", records.join(between));
        // What it begins with tells what it is, also where its first bytes are not enough.
        let begun_late = array.replacen('[', "[         ", 1);
        for (name, array) in [("d.json", &array), ("d.json.gz", &array), ("d", &begun_late), ("-", &begun_late)] {
            let whole = read(name, array).unwrap();
            assert_eq!(seen(&whole), seen(&lines), "{name}");
            assert_eq!(streamed(name, array).unwrap(), (records.clone(), whole), "{name}");
        }
    }
    // What is found when it is rendered has its place too.
    let silent = "[{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]},\n\
                  {\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}]";
    for error in [read("d.json", silent).err(), streamed("d.json", silent).err()] {
        let error = error.unwrap().to_string();
        assert!(error.starts_with("d.json, line 2: record 2: no token is trained"), "{error}");
    }
}

#[test]
fn ids_of_a_conversation_equal_those_of_its_whole_text() {
    let tokenizer = qwen3();
    let template = template(&tokenizer);
    let messages = vec![Message::new("user", "naïve é 12"), Message::new("assistant", "\n  e\u{301}tude 3.14\n")];
    let whole = tokenizer.encode(&template.render(&messages, false).unwrap()).unwrap();
    let record = record_of(Conversation { messages, tools: None });
    let made = encode("d", &[record], &tokenizer, Some(&template), EVERY_TURN).unwrap();
    assert_eq!(made.documents[0].tokens, whole);
}

#[test]
fn a_template_that_ends_no_turn_gets_the_end_of_sequence_token() {
    let tokenizer = smollm2();
    let template = ChatTemplate::new(OPEN_ENDED, None, None).unwrap();
    let line = r#"{"prompt":"hi","completion":"yes"}"#;
    let document = &documents(line, &tokenizer, Some(&template), EVERY_TURN)[0];
    assert_eq!(trained_runs(document, &tokenizer), ["yes<|im_end|>"]);
    assert_eq!(document.tokens.last().copied(), tokenizer.eos_id());
}

/// A tokenizer that knows GLM-4's speakers as tokens, which end turns in generation.
fn glm4() -> Tokenizer {
    let mut vocabulary = smollm2_vocabulary();
    for token in ["<|user|>", "<|assistant|>", "<|observation|>"] {
        vocabulary.tokens.push(token.into());
        vocabulary.token_types.push(CONTROL);
    }
    Tokenizer::from_gguf(vocabulary, &pre_tokenizers()).unwrap()
}

#[test]
fn every_turn_learns_its_end_where_that_is_the_next_speakers_token() {
    let tokenizer = glm4();
    assert!(tokenizer.eos_ids().contains(&tokenizer.token_id("<|user|>").unwrap()));
    let line = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"f(1)"},{"role":"observation","content":"1"},{"role":"assistant","content":"one"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}"#;
    let open = format!("{{% if messages[0].role == 'observation' %}}{{% endif %}}{OPEN_ENDED}");
    let open = ChatTemplate::new(&open, None, None).unwrap();
    let runs = |line: &str, template: &ChatTemplate, options| {
        trained_runs(&documents(line, &tokenizer, Some(template), options)[0], &tokenizer)
    };
    assert_eq!(runs(line, &open, EVERY_TURN), ["f(1)<|observation|>", "one<|user|>", "d<|im_end|>"]);
    let second = line.replace(r#""f(1)""#, r#""f(1)","weight":0"#);
    assert_eq!(runs(&second, &open, EVERY_TURN), ["one<|user|>", "d<|im_end|>"]);
    assert_eq!(runs(line, &open, EncodeOptions { last_turn_only: true, ..EVERY_TURN }), ["d<|im_end|>"]);

    // A template that ends turns itself, with a line's end behind.
    let closed = OPEN_ENDED.replace("m.content }}", "m.content }}<|im_end|>{{ '\\n' }}");
    let closed = ChatTemplate::new(&closed, None, None).unwrap();
    assert_eq!(runs(line, &closed, EVERY_TURN), ["f(1)<|im_end|>\n", "one<|im_end|>\n", "d<|im_end|>\n"]);
}

#[test]
fn a_text_that_has_its_beginning_and_end_is_given_no_others() {
    let golden = json(SMOLLM2);
    let mut config: Value = serde_json::from_slice(&config(&golden)).unwrap();
    config["add_bos_token"] = true.into();
    let tokenizer = Tokenizer::from_json(&tokenizer_json("smollm2"), Some(config.to_string().as_bytes())).unwrap();
    let of = |line: Value| {
        let document = documents(&line.to_string(), &tokenizer, None, EVERY_TURN).remove(0);
        tokenizer.decode(&document.tokens, false).unwrap()
    };
    for (text, expected) in [
        ("hi", "<|im_start|>hi<|im_end|>"),
        ("<|im_start|>hi", "<|im_start|>hi<|im_end|>"),
        ("hi<|im_end|>", "<|im_start|>hi<|im_end|>"),
        ("<|im_start|>user\nhi<|im_end|>\n", "<|im_start|>user\nhi<|im_end|>\n"),
        ("<|im_end|> hi ", "<|im_start|><|im_end|> hi <|im_end|>"),
    ] {
        assert_eq!(of(serde_json::json!({"text": text})), expected);
        let begun = tokenizer.decode(&tokenizer.encode_begun(text).unwrap(), false).unwrap();
        assert_eq!(begun, format!("<|im_start|>{}", text.trim_start_matches("<|im_start|>")));
    }
    for (prompt, completion, expected) in [
        ("a", "b", "<|im_start|>a\nb<|im_end|>"),
        ("<|im_start|>a", "b<|im_end|>", "<|im_start|>a\nb<|im_end|>"),
        ("<|im_start|>a", "b<|im_end|>\n", "<|im_start|>a\nb<|im_end|>\n"),
    ] {
        assert_eq!(of(serde_json::json!({"prompt": prompt, "completion": completion})), expected);
    }
}

#[test]
fn without_a_template_a_document_is_prompt_newline_completion_end() {
    let tokenizer = smollm2();
    let document = &documents(r#"{"prompt":"2+2?","completion":"4"}"#, &tokenizer, None, EVERY_TURN)[0];
    assert_eq!(tokenizer.decode(&document.tokens, false).unwrap(), "2+2?\n4<|im_end|>");
    assert_eq!(trained_runs(document, &tokenizer), ["4<|im_end|>"]);
    let turns = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}"#;
    let document = &documents(turns, &tokenizer, None, EVERY_TURN)[0];
    assert_eq!(tokenizer.decode(&document.tokens, false).unwrap(), "a\nb<|im_end|>c\nd<|im_end|>");
    assert_eq!(trained_runs(document, &tokenizer), ["b<|im_end|>", "d<|im_end|>"]);
}

#[test]
fn a_text_is_cut_into_windows_that_lose_no_token_but_a_single_last_one() {
    let tokenizer = smollm2();
    let source = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    let mut whole = tokenizer.encode(&source).unwrap();
    whole.extend(tokenizer.eos_id());
    let (records, report) = record::parse("fox.txt", source.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
    assert_eq!((report.kind, report.records), (Kind::Text, 1));
    for cutoff_length in [2, 7, 50, whole.len() - 1, whole.len(), 4096] {
        let options = EncodeOptions { cutoff_length, ..EVERY_TURN };
        let made = encode("fox.txt", &records, &tokenizer, None, options).unwrap();
        let joined: Vec<u32> = made.documents.iter().flat_map(|document| document.tokens.clone()).collect();
        let kept = if whole.len() % cutoff_length == 1 { whole.len() - 1 } else { whole.len() };
        assert_eq!(joined, whole[..kept], "cutoff {cutoff_length}");
        assert!(made.documents.iter().all(|document| document.trained.iter().all(|trained| *trained)));
        assert_eq!(made.report.trained_tokens, kept - made.documents.len());
    }
}

#[test]
fn conversations_are_cut_at_the_cutoff_and_counted() {
    let tokenizer = smollm2();
    let lines = "{\"prompt\":\"a\",\"completion\":\"one two three four five six\"}\n{\"prompt\":\"a\",\"completion\":\"b\"}\n\
                 {\"prompt\":\"one two three four five six seven\",\"completion\":\"b\"}";
    let (records, _) = record::parse("d.jsonl", lines.as_bytes(), RecordFormat::Auto, OnError::Stop).unwrap();
    let options = EncodeOptions { cutoff_length: 6, ..EVERY_TURN };
    let error = encode("d.jsonl", &records, &tokenizer, None, options).unwrap_err().to_string();
    assert!(error.starts_with("d.jsonl, line 3: no trained token is left: the record has 10 tokens"), "{error}");
    let skip = EncodeOptions { on_error: OnError::Skip, ..options };
    let made = encode("d.jsonl", &records, &tokenizer, None, skip).unwrap();
    assert_eq!((made.documents.len(), made.report.truncated, made.report.skipped), (2, 1, 1));
    assert_eq!((made.report.longest, made.documents[0].tokens.len()), (6, 6));
    assert!(made.report.problems[0].contains("line 3"));
    let all_bad = encode("d.jsonl", &records[2..], &tokenizer, None, skip).unwrap_err().to_string();
    assert!(all_bad.starts_with("data set d.jsonl: no record is left: its only record was skipped"), "{all_bad}");
}

#[test]
fn bad_input_names_the_file_the_line_and_what_is_allowed() {
    let good = "{\"prompt\":\"a\",\"completion\":\"b\"}\n";
    let cases: [(&[u8], &str); 21] = [
        (b"", "data set d.jsonl: the file is empty"),
        (b"\n \n", "data set d.jsonl: the file is empty"),
        (b"[{\"text\":\"a\"},\n{}]", "line 2: record 2: field `text` is missing (found no fields)"),
        (b"\n{\"text\":\"a\"}\n\r\n{", "line 4: not a JSON object"),
        (b"{\"text\":\"a\"}\n{\"text\":\"b", "line 2: not a JSON object (EOF while parsing a string, column 10)"),
        (b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}", "line 2: not UTF-8 text (byte 9 of the line)"),
        (b"{\"text\":\"\\ud800\"}", "line 1: not a JSON object"),
        (b"{\"text\":\"a\"}\n3", "line 2: expected a JSON object, found a number"),
        (b"{\"text\":\"\"}", "line 1: field `text` is empty"),
        (b"{\"texts\":\"a\"}", "line 1: unknown kind of record: it has fields `texts`, but needs `messages`"),
        (
            b"{\"text\":\"a\"}\n{\"prompt\":\"a\",\"completion\":\"b\"}",
            "kind prompt_completion, but the file's kind is text",
        ),
        (
            b"{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\":\"a\"}",
            "line 2: field `answer` is missing (found no fields)",
        ),
        (b"{\"prompt\":\"a\",\"completion\":null}", "field `completion` must be a string, found null"),
        (b"{\"prompt\":[\"a\"],\"completion\":\"b\"}", "field `prompt` must be a string, found a list"),
        (b"{\"messages\":[]}", "field `messages` is an empty list"),
        (b"{\"messages\":{}}", "field `messages` must be a list of messages, found an object"),
        (b"{\"messages\":[\"a\"]}", "messages[0]: a message must be an object, found a string"),
        (
            b"{\"messages\":[{\"role\":\"user\",\"content\":null}]}",
            "messages[0]: field `content` must be a string, found null",
        ),
        (
            b"{\"messages\":[{\"role\":\"asistant\",\"content\":\"a\"}]}",
            "unknown `role` \"asistant\": use one of system",
        ),
        (b"{\"messages\":[{\"content\":\"a\"}]}", "messages[0]: field `role` is missing (found fields `content`)"),
        (b"{\"instruction\":\"a\",\"output\":\"b\",\"input\":3}", "field `input` must be a string, found a number"),
    ];
    for (bytes, expected) in cases {
        let error = record::parse("d.jsonl", bytes, RecordFormat::Auto, OnError::Stop).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} lacks {expected:?}");
        assert!(error.to_string().contains("d.jsonl") && error.is_bad_input());
    }
    let demanded =
        record::parse("d.jsonl", good.as_bytes(), RecordFormat::Messages, OnError::Stop).unwrap_err().to_string();
    assert!(demanded.contains("kind prompt_completion, but the file's kind is messages"), "{demanded}");
    let mixed = format!("{{half\n{good}\n{good}");
    let (records, report) = record::parse("d.jsonl", mixed.as_bytes(), RecordFormat::Auto, OnError::Skip).unwrap();
    assert_eq!((records.len(), report.records, report.skipped), (2, 2, 1), "the empty line is no record");
    assert!(
        record::parse("d.jsonl", b"{half\n", RecordFormat::Auto, OnError::Skip)
            .unwrap_err()
            .to_string()
            .contains("no usable record")
    );
    let nested = format!("{{\"text\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(record::parse("d.jsonl", nested.as_bytes(), RecordFormat::Auto, OnError::Stop).is_err());
}

/// Documents of varied lengths and marks, the same on every run.
fn varied(count: usize, longest: usize) -> Vec<Document> {
    let mut state = 7_u64;
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let make = |line: usize| {
        let length = 2 + draw() % (longest - 1);
        let tokens = (0..length).map(|at| (line * 1000 + at) as u32).collect();
        Document { tokens, trained: (0..length).map(|_| draw() % 3 > 0).collect(), line: line + 1 }
    };
    (0..count).map(make).collect()
}

/// What the model sees of each position, in order: independent of how documents are laid out.
fn positions(batches: &[MicroBatch]) -> Vec<(u32, i32, u32, u32)> {
    let each = |batch: &MicroBatch| -> Vec<(u32, i32, u32, u32)> {
        (0..batch.tokens.len())
            .map(|at| (batch.tokens[at], batch.labels[at], batch.positions[at], batch.document[at]))
            .collect()
    };
    batches.iter().flat_map(each).collect()
}

#[test]
fn packed_and_unpacked_batches_hold_the_same_positions_labels_and_documents() {
    let documents = varied(200, 30);
    let step: Vec<&Document> = documents.iter().collect();
    let alone = pack(&step, 64, false).unwrap();
    assert_eq!(alone.len(), documents.len());
    for batch_tokens in [30, 64, 1000, 1_000_000] {
        let packed = pack(&step, batch_tokens, true).unwrap();
        assert_eq!(positions(&packed), positions(&alone));
        assert!(packed.len() < alone.len());
        let trained: usize = packed.iter().map(MicroBatch::trained_tokens).sum();
        assert_eq!(trained, documents.iter().map(Document::trained_tokens).sum::<usize>());
        for batch in &packed {
            assert!(batch.tokens.len() <= batch_tokens);
            for at in 0..batch.tokens.len() {
                let start = batch.document_start[at] as usize;
                assert_eq!(batch.positions[at] as usize, at - start);
                assert_eq!(batch.document[start], batch.document[at]);
                let last = at + 1 == batch.tokens.len() || batch.document[at + 1] != batch.document[at];
                let label = batch.labels[at];
                assert!(
                    label == IGNORE || (!last && label as u32 == batch.tokens[at + 1]),
                    "no label crosses a border"
                );
            }
        }
    }
}

#[test]
fn steps_hold_the_same_documents_however_they_are_packed_or_split() {
    let loader = Loader::new("d", varied(100, 30), 3).unwrap();
    let run = |batch_tokens, accumulation, packing| -> Vec<Vec<(u32, i32, u32, u32)>> {
        let mut loader = loader.clone();
        (0..40).map(|_| positions(&loader.next_step(batch_tokens, accumulation, packing).unwrap())).collect()
    };
    let expected = run(120, 1, true);
    assert_eq!(run(120, 1, false), expected);
    assert_eq!(run(60, 2, true), expected);
    assert_eq!(run(40, 3, false), expected);
    assert_eq!(run(30, 4, true), expected);
}

#[test]
fn every_epoch_sees_every_document_once_in_an_order_of_its_own() {
    let documents = varied(50, 20);
    let mut loader = Loader::new("d", documents.clone(), 11).unwrap();
    let mut orders = Vec::new();
    for epoch in 0..3 {
        let mut order = Vec::new();
        let mut steps = 0;
        while orders.is_empty() && steps == 0 || loader.cursor() != (Cursor { epoch, index: 50 }) {
            let batches = loader.next_step(64, 2, true).unwrap();
            assert_eq!(loader.cursor().epoch, epoch);
            let firsts = |batch: &MicroBatch| -> Vec<u32> {
                (0..batch.tokens.len())
                    .filter(|at| batch.positions[*at] == 0)
                    .map(|at| batch.tokens[at] / 1000)
                    .collect()
            };
            order.extend(batches.iter().flat_map(firsts));
            steps += 1;
        }
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<u32>>());
        assert!(!orders.contains(&order));
        orders.push(order);
        if epoch == 0 {
            assert_eq!(steps, loader.steps_per_epoch(64, 2).unwrap());
        }
    }
    let counted = loader.steps_in_epochs(3, 64, 2).unwrap();
    let mut again = Loader::new("d", documents, 11).unwrap();
    for _ in 0..counted {
        again.next_step(64, 2, true).unwrap();
    }
    assert_eq!(again.cursor(), Cursor { epoch: 2, index: 50 });
}

#[test]
fn a_resumed_loader_goes_on_exactly_where_it_stood() {
    let documents = varied(37, 25);
    let mut whole = Loader::new("d", documents.clone(), 5).unwrap();
    for step in 0..60 {
        let stored = serde_json::to_string(&whole.cursor()).unwrap();
        let mut resumed = Loader::new("d", documents.clone(), 5).unwrap();
        resumed.resume(serde_json::from_str(&stored).unwrap()).unwrap();
        let expected = whole.next_step(50, 2, true).unwrap();
        assert_eq!(resumed.next_step(50, 2, true).unwrap(), expected, "step {step}");
        assert_eq!(resumed.cursor(), whole.cursor());
    }
    assert!(whole.cursor().epoch > 2, "the test crosses epochs");
}

#[test]
fn seeds_give_different_orders_and_bad_sizes_are_refused() {
    let documents = varied(30, 20);
    let first = |seed| Loader::new("d", documents.clone(), seed).unwrap().next_step(100, 1, true).unwrap();
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
    let mut loader = Loader::new("d.jsonl", documents.clone(), 1).unwrap();
    let longest = documents.iter().map(|document| document.tokens.len()).max().unwrap();
    let error = loader.next_step(longest - 1, 1, true).unwrap_err().to_string();
    assert!(
        error.contains(&format!("run.batch_tokens is {}", longest - 1)) && error.contains(&longest.to_string()),
        "{error}"
    );
    assert!(error.contains(" of d.jsonl has "), "{error}");
    assert!(loader.next_step(100, 0, true).unwrap_err().to_string().contains("run.accumulation is 0"));
    assert_eq!(loader.cursor(), Cursor::default());
}

// Tokenizers out of GGUF vocabularies.

/// Types of tokens that are only ever whole, in `tokenizer.ggml.token_type`: control tokens, and a user's own.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// The printable bytes as single tokens, and one merge, with a pre-tokenizer.
fn gguf_vocabulary(pre: &str) -> GgufVocabulary {
    let mut tokens: Vec<String> = (b'!'..=b'~').map(|byte| char::from(byte).to_string()).collect();
    tokens.extend(["Ġ".into(), "Ċ".into(), "12".into(), "123".into(), "<e>".into()]);
    let merges = vec!["1 2".into(), "12 3".into()];
    GgufVocabulary { model: "gpt2".into(), pre: Some(pre.into()), tokens, merges, ..Default::default() }
}

fn digits(pre: &str) -> Vec<String> {
    let tokenizer = Tokenizer::from_gguf(gguf_vocabulary(pre), &pre_tokenizers()).unwrap();
    tokenizer.encode("1234").unwrap().into_iter().map(|id| tokenizer.token_text(id).unwrap()).collect()
}

#[test]
fn each_pre_tokenizer_groups_digits_in_its_own_way() {
    for pre in ["smollm", "qwen2"] {
        assert_eq!(digits(pre), ["1", "2", "3", "4"], "{pre}");
    }
    for pre in ["llama-bpe", "llama3", "glm4", "chatglm-bpe", "gpt-4o", "gpt-2", "default"] {
        assert_eq!(digits(pre), ["123", "4"], "{pre}");
    }
}

#[test]
fn the_files_of_a_gguf_tokenizer_read_back_as_the_same_tokenizer() {
    for pre in ["smollm", "qwen2", "llama-bpe", "gpt-2", "default"] {
        let mut source = gguf_vocabulary(pre);
        let last = source.tokens.len() - 1;
        source.token_types = vec![1; last + 1];
        source.token_types[last] = CONTROL;
        source.eos = Some(last as u32);
        source.bos = Some(last as u32);
        source.chat_template = Some("{{ messages }}".into());
        let tokenizer = Tokenizer::from_gguf(source, &pre_tokenizers()).unwrap();
        let [(_, json), (_, config)] = tokenizer.to_files().unwrap();
        let again = Tokenizer::from_json(&json, Some(&config)).unwrap();
        for text in ["1234 it's 12", "a<e>b\n\n1 23", "  Hello, world "] {
            assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{pre}: {text:?}");
        }
        assert_eq!((again.eos_ids(), again.bos_id()), (tokenizer.eos_ids(), tokenizer.bos_id()));
        assert_eq!((again.add_bos(), again.chat_template()), (tokenizer.add_bos(), Some("{{ messages }}")));
        assert_eq!(tokenizer.add_bos(), pre == "llama-bpe", "llama.cpp's own default for Llama 3 alone");
    }
}

#[test]
fn contradictory_vocabularies_are_refused_with_what_is_wrong() {
    let good = || gguf_vocabulary("gpt-2");
    let twice = [good().tokens, vec!["!".into()]].concat();
    let cases = [
        (GgufVocabulary { model: "bert".into(), ..good() }, "byte-level BPE"),
        (gguf_vocabulary("tekken"), "these are supported: smollm"),
        (GgufVocabulary { token_types: vec![1], ..good() }, "1 entries"),
        (GgufVocabulary { tokens: twice, ..good() }, "is also token 0"),
        (GgufVocabulary { tokens: Vec::new(), ..good() }, "empty"),
        (GgufVocabulary { merges: vec!["123 123".into()], ..good() }, "not in the vocabulary"),
        (GgufVocabulary { merges: vec!["nospace".into()], ..good() }, "not two tokens"),
        (GgufVocabulary { eos: Some(4000), ..good() }, "eos token 4000"),
    ];
    for (source, expected) in cases {
        let error = Tokenizer::from_gguf(source, &pre_tokenizers()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn control_tokens_are_special_and_user_defined_ones_are_only_whole() {
    let mut source = gguf_vocabulary("gpt-2");
    source.tokens.push("<u>".into());
    source.token_types = vec![1; source.tokens.len()];
    let (control, user) = (source.tokens.len() - 2, source.tokens.len() - 1);
    source.token_types[control] = CONTROL;
    source.token_types[user] = USER_DEFINED;
    source.eos = Some(control as u32);
    let tokenizer = Tokenizer::from_gguf(source, &pre_tokenizers()).unwrap();
    let ids = tokenizer.encode("a<e><u>").unwrap();
    assert_eq!(ids[1..], [control as u32, user as u32]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a<u>");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a<e><u>");
    assert!(tokenizer.is_special(control as u32) && !tokenizer.is_special(user as u32));
}
