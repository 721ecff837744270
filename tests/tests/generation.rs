//! Texts continued out of a cache of keys and values, against passes over the whole text: every tiny golden model, adapters,
//! packed and streamed weights, several devices; texts beside each other; text that ends at a string.
//!
//! Run with `cargo test --release -p temper-conformance --test generation`.

use burn::tensor::Tensor;
use temper_conformance::compare::{close, same_bits};
use temper_conformance::golden::{GoldenFolder, Tensors, tokenizer_json};
use temper_conformance::{devices, models};
use temper_engine::continuing::{Cache, Precision, Request, Talk, Writer, generate_all};
use temper_engine::inside::model::architecture::Window;
use temper_engine::inside::model::load::load;
use temper_engine::inside::model::open::open_folder;
use temper_engine::inside::model::rope::Rope;
use temper_engine::models::Hold;
use temper_engine::running::Placement;
use temper_engine::{Device, Devices, Model, ModelFiles, Sampling, Tokenizer, generate, wait};

/// The devices of these tests: how a hardware GPU multiplies makes no difference to a cache, and burn tunes its products anew for
/// every size, so that few models are tried there.
fn devices_for(names: &'static [&'static str]) -> Vec<(Device, &'static [&'static str])> {
    let of = |device: Device| match device.is_cpu() || device.is_software() {
        true => (device, names),
        false => (device, &names[..1]),
    };
    devices::all().into_iter().map(of).collect()
}

/// Texts of unequal lengths.
fn texts() -> Vec<Vec<u32>> {
    let text = |seed: u32, length: u32| (0..length).map(|i| (i * i * 7 + i * 13 + seed * 31) % 250).collect();
    vec![text(1, 21), text(2, 14), text(3, 30)]
}

/// Tokens of each text that are read before it is continued; the first has a single one.
const PROMPTS: [usize; 3] = [1, 9, 20];

const SINGLE: Option<Precision> = Some(Precision::F32);

/// Logits of every position behind the prompts, a row each, out of a cache in which the texts lie beside each other.
fn cached(model: &mut Model, texts: &[Vec<u32>], precision: Option<Precision>) -> Vec<Vec<Vec<f32>>> {
    let longest = texts.iter().map(Vec::len).max().unwrap();
    let cache = match precision {
        Some(precision) => Cache::with_precision(model, texts.len(), longest, |_| precision),
        None => Cache::new(model, texts.len(), longest),
    };
    let mut cache = cache.unwrap();
    let mut found = vec![Vec::new(); texts.len()];
    for (at, text) in texts.iter().enumerate() {
        let hidden = model.read(&mut cache, at, &text[..PROMPTS[at]], &|| false).unwrap().unwrap();
        found[at].extend(wait(model.rows_of_logits(&hidden)).unwrap());
    }
    loop {
        let going: Vec<usize> = (0..texts.len()).filter(|&at| cache.length(at) < texts[at].len()).collect();
        if going.is_empty() {
            return found;
        }
        let new: Vec<(usize, &[u32])> = going.iter().map(|&at| (at, &texts[at][cache.length(at)..][..1])).collect();
        let hidden = model.extend(&mut cache, &new).unwrap();
        for (at, row) in going.into_iter().zip(wait(model.rows_of_logits(&hidden)).unwrap()) {
            found[at].push(row);
        }
    }
}

/// Compares with one pass over each whole text.
fn check(what: &str, model: &mut Model, precision: Option<Precision>, absolute: f64) {
    let texts = texts();
    let found = cached(model, &texts, precision);
    let vocab = model.arch.vocab;
    for (at, text) in texts.iter().enumerate() {
        let whole = wait(model.logits(text)).unwrap();
        let want: Vec<f64> = whole[(PROMPTS[at] - 1) * vocab..].iter().copied().map(f64::from).collect();
        assert_eq!(found[at].len(), text.len() - PROMPTS[at] + 1);
        close(&format!("{what}, text {at}"), &found[at].concat(), &want, absolute, 1e-4).unwrap();
    }
}

#[test]
fn every_family_continues_as_if_the_whole_text_were_read_each_time() {
    for (device, names) in devices_for(&models::TINY) {
        for name in names {
            let mut model = models::tiny(name, &device, false);
            check(&format!("{name} on {}", device.name()), &mut model, SINGLE, 1e-4);
        }
    }
}

#[test]
fn half_precision_of_keys_and_values_changes_logits_by_little_more_than_their_rounding() {
    for (device, names) in devices_for(&["qwen3", "glm4"]).into_iter().filter(|(device, _)| !device.is_cpu()) {
        for name in names {
            let mut model = models::tiny(name, &device, false);
            check(&format!("{name} on {}", device.name()), &mut model, Some(Precision::F16), 5e-3);
            // It is another precision.
            let [half, single] =
                [Precision::F16, Precision::F32].map(|of| cached(&mut model, &texts(), Some(of))[0].concat());
            assert_ne!(half, single);
        }
    }
}

#[test]
fn blocks_with_a_window_continue_as_if_the_whole_text_were_read_each_time() {
    for (device, names) in devices_for(&["llama"]) {
        for name in names {
            let without = cached(&mut models::tiny(name, &device, false), &texts(), SINGLE);
            // Before its first pass, which makes the rotary tables.
            let mut model = models::tiny(name, &device, false);
            let pattern = (0..model.arch.layers).map(|block| block % 2 == 0).collect();
            model.arch.window = Some(Window { tokens: 5, pattern });
            model.arch.local_rope = Some(Rope { theta: 100.0, ..model.arch.rope.clone() });
            model.arch.embedding_scale = 8.0;
            check(&format!("{name} with windows on {}", device.name()), &mut model, SINGLE, 1e-4);
            assert_ne!(cached(&mut model, &texts(), SINGLE), without);
        }
    }
}

#[test]
fn adapters_take_part_in_every_step() {
    for (device, names) in devices_for(&["glm4", "qwen3", "gemma3", "phi3"]) {
        for name in names {
            let mut model = models::tiny(name, &device, false);
            let without = cached(&mut model, &texts(), SINGLE);
            models::with_golden_lora(&mut model, name);
            check(&format!("{name} with an adapter on {}", device.name()), &mut model, SINGLE, 1e-4);
            assert_ne!(cached(&mut model, &texts(), SINGLE), without);
        }
    }
}

#[test]
fn packed_weights_are_continued_with_in_memory_and_out_of_their_file() {
    for (device, names) in devices_for(&["llama_tied", "qwen2", "glm4"]) {
        for (name, hold) in names.iter().zip([Hold::Q4_0, Hold::Q8_0, Hold::F16]) {
            let opened = open_folder(&GoldenFolder::new(&format!("tiny/{name}"))).unwrap();
            let mut model = load(&opened.architecture, &opened.weights, &device, hold, u64::MAX, false).unwrap();
            check(&format!("{name} in {hold} on {}", device.name()), &mut model, SINGLE, 1e-4);
        }
        if names.len() == 1 {
            continue;
        }
        // Only what lies in the file as it is held can be left there.
        let opened = open_folder(&GoldenFolder::new("tiny/qwen3_bf16_sharded")).unwrap();
        let load =
            |resident| load(&opened.architecture, &opened.weights, &device, Hold::Auto, resident, false).unwrap();
        let mut streamed = load(0);
        check(&format!("streamed on {}", device.name()), &mut streamed, SINGLE, 1e-4);
        let held = cached(&mut load(u64::MAX), &texts(), SINGLE);
        assert_eq!(cached(&mut streamed, &texts(), SINGLE), held, "where weights lie changes no bit");
    }
}

#[test]
fn blocks_on_several_devices_have_their_keys_beside_them() {
    let files = ModelFiles::open_folder(&GoldenFolder::new("tiny/qwen3")).unwrap();
    let two = Devices::new(vec![Device::cpu(), devices::gpu()]).unwrap();
    let mut model =
        files.load_onto(&Placement::new(&two, &[1, 1]).unwrap(), Hold::F32, false, 0, &mut |_, _| {}).unwrap();
    check("qwen3 on two devices", &mut model, SINGLE, 1e-4);
}

#[test]
fn a_prompt_of_several_pieces_is_the_prompt_read_at_once() {
    let mut model = models::tiny("qwen3", &Device::cpu(), false);
    let prompt: Vec<u32> = (0..1100).map(|i| i * i % 250).collect();
    let whole = wait(model.logits(&prompt)).unwrap();
    let mut cache = Cache::new(&model, 2, prompt.len()).unwrap();
    let hidden = model.read(&mut cache, 1, &prompt, &|| false).unwrap().unwrap();
    assert_eq!((cache.length(0), cache.length(1)), (0, 1100));
    let found = wait(model.rows_of_logits(&hidden)).unwrap().remove(0);
    let want: Vec<f64> = whole[whole.len() - found.len()..].iter().copied().map(f64::from).collect();
    close("the last token of 1100", &found, &want, 1e-4, 1e-4).unwrap();
    // Stopped between two pieces: what was read is held.
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 1;
    assert!(model.read(&mut cache, 0, &prompt, &stop).unwrap().is_none());
    assert_eq!(cache.length(0), 512);
}

#[test]
fn a_long_prompt_is_one_piece_for_a_hardware_gpu_and_what_follows_it_sees_all_of_it() {
    let mut model = models::tiny("qwen3", &devices::gpu().treated_as_software(false), false);
    let prompt: Vec<u32> = (0..700).map(|i| i * i % 250).collect();
    let whole = wait(model.logits(&prompt)).unwrap();
    let mut cache = Cache::with_precision(&model, 1, prompt.len(), |_| Precision::F32).unwrap();
    let asked = std::cell::Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        false
    };
    let mut rows = Vec::new();
    for tokens in [&prompt[..690], &prompt[690..]] {
        let hidden = model.read(&mut cache, 0, tokens, &count).unwrap().unwrap();
        rows.push(wait(model.rows_of_logits(&hidden)).unwrap().remove(0));
    }
    assert_eq!((asked.get(), cache.length(0)), (2, 700));
    for (row, last) in rows.iter().zip([689, 699]) {
        let vocab = row.len();
        let want: Vec<f64> = whole[last * vocab..][..vocab].iter().copied().map(f64::from).collect();
        close(&format!("token {last}"), row, &want, 1e-4, 1e-4).unwrap();
    }
}

#[test]
fn a_text_gives_the_same_bits_alone_and_beside_others_on_the_cpu() {
    for (name, hold) in [("qwen3", Hold::F32), ("glm4", Hold::Q8_0)] {
        let opened = open_folder(&GoldenFolder::new(&format!("tiny/{name}"))).unwrap();
        let mut model = load(&opened.architecture, &opened.weights, &Device::cpu(), hold, u64::MAX, false).unwrap();
        let text: Vec<u32> = (0..24).map(|i| i * 11 % 250).collect();
        // Ten texts a step, more than a kernel takes rows at once; the one that is looked at lies at both ends and alone.
        let rows = |model: &mut Model, places: usize, own: usize| -> Vec<f32> {
            let mut cache = Cache::new(model, places, 24).unwrap();
            let other: Vec<u32> = (0..24).map(|i| (i * 7 + 3) % 250).collect();
            for place in 0..places {
                let prompt = if place == own { &text[..5] } else { &other[..5 + place] };
                model.read(&mut cache, place, prompt, &|| false).unwrap().unwrap();
            }
            let mut found = Vec::new();
            for step in 5..14 {
                let new: Vec<(usize, &[u32])> = (0..places)
                    .map(|place| (place, if place == own { &text[step..=step] } else { &other[step..=step] }))
                    .collect();
                let hidden: Tensor<2> = model.extend(&mut cache, &new).unwrap();
                found.extend(wait(model.rows_of_logits(&hidden)).unwrap().swap_remove(own));
            }
            found
        };
        let alone = rows(&mut model, 1, 0);
        for (places, own) in [(2, 1), (10, 0), (10, 9)] {
            same_bits(&format!("{name}, {own} of {places}"), &rows(&mut model, places, own), &alone).unwrap();
        }
    }
}

fn requests() -> Vec<Request> {
    let texts = texts();
    let request = |at: usize| {
        let sampling = match at % 3 {
            0 => Sampling::greedy(),
            1 => Sampling { temperature: 0.9, top_k: 20, top_p: 1.0, seed: at as u64 },
            _ => Sampling { temperature: 1.1, top_k: 0, top_p: 0.9, seed: at as u64 },
        };
        Request { prompt: texts[at % 3][..1 + 2 * at].to_vec(), count: 4 + 3 * at, sampling }
    };
    (0..6).map(request).collect()
}

#[test]
fn what_is_drawn_for_a_prompt_does_not_depend_on_how_many_are_answered_at_once() {
    for device in [Device::cpu(), devices::gpu()] {
        let mut model = models::tiny("qwen3", &device, false);
        let requests = requests();
        let mut all = |at_once| wait(generate_all(&mut model, &requests, at_once, &[7], &mut |_, _| true)).unwrap();
        let alone = all(1);
        assert!(alone.iter().zip(&requests).all(|(text, request)| {
            let ended = text.last() == Some(&7);
            text.len() == request.count || ended && text.len() < request.count
        }));
        for at_once in [2, 4, 100] {
            assert_eq!(all(at_once), alone, "{at_once} at once on {}", device.name());
        }
        for (request, text) in requests.iter().zip(&alone) {
            let mut heard = Vec::new();
            let hear = &mut |token| heard.push(token);
            let one = generate(&mut model, &request.prompt, request.count, request.sampling, &[7], hear);
            assert_eq!(&wait(one).unwrap(), text);
            assert_eq!(&heard, text);
        }
    }
}

#[test]
fn a_text_that_its_hearer_ends_makes_room_and_the_others_go_on() {
    let mut model = models::tiny("llama", &Device::cpu(), false);
    let requests: Vec<Request> =
        texts().into_iter().map(|prompt| Request { prompt, count: 9, sampling: Sampling::greedy() }).collect();
    let mut heard = [0; 3];
    let found = wait(generate_all(&mut model, &requests, 2, &[], &mut |at, _| {
        heard[at] += 1;
        at != 1 || heard[at] < 4
    }));
    assert_eq!(found.unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [9, 4, 9]);
    let none = Request { count: 0, ..requests[0].clone() };
    assert_eq!(wait(generate_all(&mut model, &[none], 8, &[], &mut |_, _| true)).unwrap(), [[0_u32; 0]]);
    assert!(wait(generate_all(&mut model, &[], 8, &[], &mut |_, _| true)).unwrap().is_empty());
    let empty = Request { prompt: Vec::new(), ..requests[0].clone() };
    let error = wait(generate_all(&mut model, &[empty], 1, &[], &mut |_, _| true)).unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("prompt is empty"), "{error}");
}

#[test]
fn a_talk_reads_what_is_new_alone_and_answers_as_if_it_read_all() {
    let expected = Tensors::read("tiny/qwen3/expected.safetensors");
    let ids: Vec<u32> = expected.ints("input_ids")[..17].iter().map(|&t| t as u32).collect();
    let mut model = models::tiny("qwen3", &Device::cpu(), false);
    let mut talk = Talk::new(&model, 64).unwrap();
    let mut answer = |model: &mut Model, prompt: &[u32], known: usize| {
        assert_eq!(talk.known(prompt), known);
        let request = Request { prompt: prompt.to_vec(), count: 8, sampling: Sampling::greedy() };
        let found = wait(talk.answer(model, &request, &[], &|| false, &mut |_| true)).unwrap();
        let fresh = wait(generate(model, prompt, 8, Sampling::greedy(), &[], &mut |_| {})).unwrap();
        assert_eq!(found, fresh);
        found
    };
    let first = answer(&mut model, &ids[..6], 0);
    // The answer's last token was never run.
    let second = [&ids[..6], &first, &ids[6..9]].concat();
    answer(&mut model, &second, 13);
    answer(&mut model, &second, second.len());
    // A history that was changed in its middle.
    let mut changed = second.clone();
    changed[4] += 1;
    answer(&mut model, &changed, 4);
    answer(&mut model, &ids[..2], 2);

    let mut request = Request { prompt: vec![1; 64], count: 8, sampling: Sampling::greedy() };
    let error = wait(talk.answer(&mut model, &request, &[], &|| false, &mut |_| true)).unwrap_err();
    assert!(error.to_string().contains("64 tokens"), "{error}");
    // Room for two more, and one who stops.
    request.prompt.truncate(62);
    assert_eq!(wait(talk.answer(&mut model, &request, &[], &|| false, &mut |_| true)).unwrap().len(), 2);
    assert!(wait(talk.answer(&mut model, &request, &[], &|| true, &mut |_| true)).unwrap().is_empty());
}

#[test]
fn a_cache_that_outgrows_a_device_is_refused_with_what_fits() {
    let device = devices::gpu();
    let model = models::tiny("llama", &device, false);
    let most = Cache::most_tokens(&model, 3);
    assert!(Cache::new(&model, 3, most).is_ok());
    let error = Cache::new(&model, 3, most + 1).err().expect("one too many");
    assert!(error.is_bad_input() && error.to_string().contains(&format!("at most {most} tokens")), "{error}");
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(&tokenizer_json("smollm2"), None).unwrap()
}

/// What is shown token by token, and whether the text ended at a string.
fn written(tokenizer: &Tokenizer, tokens: &[u32], stops: &[&str]) -> (Vec<String>, bool) {
    let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
    let mut writer = Writer::new(tokenizer, &stops);
    let mut shown = Vec::new();
    for &token in tokens {
        shown.push(writer.push(token).unwrap());
        if writer.ended() {
            break;
        }
    }
    shown.push(writer.finish().unwrap());
    (shown, writer.ended())
}

#[test]
fn text_appears_token_by_token_and_never_with_half_a_character() {
    let tokenizer = tokenizer();
    for text in ["Rain falls on the roof.", "  two  spaces\n\nand lines", "naïve 🦀🦀 日本語 é", "🦀"] {
        let tokens = tokenizer.encode(text).unwrap();
        let (shown, ended) = written(&tokenizer, &tokens, &[]);
        assert_eq!((shown.concat().as_str(), ended), (text, false));
        assert!(shown.iter().all(|piece| !piece.contains('\u{FFFD}')), "{shown:?}");
        if text.is_ascii() {
            assert!(shown[..tokens.len()].iter().all(|piece| !piece.is_empty()), "{shown:?}");
        }
        // Cut anywhere, what is shown is a beginning of the text.
        for length in 0..tokens.len() {
            let cut = written(&tokenizer, &tokens[..length], &[]).0.concat();
            assert!(text.starts_with(&cut), "{cut:?} of {text:?}");
        }
    }
}

#[test]
fn a_text_ends_before_the_first_stop_string_wherever_tokens_begin() {
    let tokenizer = tokenizer();
    let text = "The answer is 42.\n\nQuestion: what else? ENDING";
    let tokens = tokenizer.encode(text).unwrap();
    for (stops, want) in [
        (&["\nQuestion:"][..], "The answer is 42.\n"),
        (&["swer is 4"], "The an"),
        (&["else", "Quest", "ENDING"], "The answer is 42.\n\n"),
        (&["T"], ""),
    ] {
        let (shown, ended) = written(&tokenizer, &tokens, stops);
        assert_eq!((shown.concat().as_str(), ended), (want, true), "{stops:?}");
    }
    // The beginning of a stop string that does not come is shown in the end.
    let (shown, ended) = written(&tokenizer, &tokens, &["ENDING and more"]);
    assert_eq!((shown.concat().as_str(), ended), (text, false));
    assert_eq!(shown.last().unwrap(), "ENDING");
}
