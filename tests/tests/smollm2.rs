//! A real model end to end: SmolLM2-135M-Instruct from its GGUF file, against transformers.
//!
//! The file is 98 MB and not in the repository. `cargo xtask test` fetches it where it can and sets `TEMPER_SMOLLM2`;
//! `cargo xtask smollm2` does so by hand. Without it these tests say that they were left out.

use std::sync::Arc;

use temper_conformance::compare::{close, cosine};
use temper_conformance::devices;
use temper_conformance::golden::{GoldenFolder, Tensors, json};
use temper_conformance::models::packed;
use temper_conformance::skip;
use temper_engine::configuration::ObjectiveSection;
use temper_engine::inside::data::MicroBatch;
use temper_engine::inside::export::peft;
use temper_engine::inside::model::Keep;
use temper_engine::inside::model::adapter::LoraSettings;
use temper_engine::inside::model::gguf::GgufModel;
use temper_engine::inside::model::open::Opened;
use temper_engine::inside::model::parameter::to_host;
use temper_engine::inside::model::{load, open};
use temper_engine::inside::train::optimiser::AdamW;
use temper_engine::models::Hold;
use temper_engine::products::{Compute, Multiplier};
use temper_engine::{Device, Document, Model, Objective, Sampling, Session, generate, perplexity, wait};

fn open<T: Fn()>(test: T) -> Option<(Opened, Arc<GgufModel>)> {
    let bytes = skip::smollm2(test)?;
    Some(open::open_gguf(Arc::new(bytes), "SmolLM2").expect("the GGUF file opens"))
}

fn model(opened: &Opened, device: &Device, hold: Hold) -> Model {
    load::load(&opened.architecture, &opened.weights, device, hold, u64::MAX, false).expect("the model loads")
}

fn tokens(values: &[i64]) -> Vec<u32> {
    values.iter().map(|&t| t as u32).collect()
}

#[test]
fn logits_of_a_real_quantised_model_equal_transformers_on_every_device() {
    let Some((opened, _)) = open(logits_of_a_real_quantised_model_equal_transformers_on_every_device) else { return };
    let expected = Tensors::read("smollm2/expected.safetensors");
    let ids = tokens(expected.ints("prompt_ids"));
    let want: Vec<f64> = expected.ints("logits_512").iter().map(|&step| step as f64 / 512.0).collect();
    for device in [Device::cpu(), devices::gpu()] {
        for hold in [Hold::F32, Hold::Auto] {
            let logits = wait(model(&opened, &device, hold).logits(&ids)).unwrap();
            let what = format!("{hold:?} on {}", device.name());
            // Five thousandths, less what storing in steps of 1/512 may be off.
            close(&what, &logits, &want, 4e-3, 1e-3).unwrap();
        }
    }
}

#[test]
fn perplexity_of_the_stated_text_is_21_19() {
    let Some((opened, gguf)) = open(perplexity_of_the_stated_text_is_21_19) else { return };
    let tokenizer = gguf.tokenizer().unwrap();
    let text = include_str!("../golden/smollm2/wikitext2_test_20000.txt");
    let ids = tokenizer.encode(text).unwrap();
    let stated = &json("smollm2/expected.json")["wikitext2_test"];
    assert_eq!(ids.len() as u64, stated["tokens_total"].as_u64().unwrap());
    let windows = perplexity::windows(&ids[..4 * perplexity::WINDOW], perplexity::WINDOW);
    let mut model = model(&opened, &Device::cpu(), Hold::F32);
    let score = perplexity::score(&wait(perplexity::rows(&mut model, &windows, 20, &mut |_, _| {})).unwrap());
    assert_eq!(score.tokens, stated["scored"].as_u64().unwrap());
    let want = stated["ppl"].as_f64().unwrap();
    assert!((score.perplexity - want).abs() <= 2e-3, "{} instead of {want}", score.perplexity);
}

#[test]
fn greedy_chat_answers_equal_transformers() {
    let Some((opened, _)) = open(greedy_chat_answers_equal_transformers) else { return };
    let mut model = model(&opened, &Device::cpu(), Hold::F32);
    let expected = json("smollm2/expected.json");
    let chats = expected["chat"].as_array().unwrap();
    assert!(!chats.is_empty());
    for chat in chats {
        let ids = |key: &str| -> Vec<u32> {
            chat[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
        };
        let answer = ids("answer_ids");
        assert!(!answer.is_empty());
        let greedy = Sampling::greedy();
        let got = wait(generate(&mut model, &ids("prompt_ids"), answer.len(), greedy, &[2], &mut |_| {})).unwrap();
        assert_eq!(got, answer, "{}", chat["question"]);
    }
}

#[test]
fn lora_gradients_and_steps_on_a_real_sample_equal_peft() {
    let Some((opened, _)) = open(lora_gradients_and_steps_on_a_real_sample_equal_peft) else { return };
    let base = Tensors::read("smollm2/expected.safetensors");
    let expected = Tensors::read("smollm2/lora/expected.safetensors");
    let stated = &json("smollm2/expected.json")["lora"];
    let ids = tokens(base.ints("sft_ids"));
    let trained: Vec<bool> = base.ints("sft_labels").iter().map(|&l| l != -100).collect();
    let document = Document { tokens: ids.clone(), trained: trained.clone(), line: 1 };
    assert_eq!(document.trained_tokens(), 63);
    let batch = packed(&[(ids, trained)]);
    let (settings, values) = peft::read(&GoldenFolder::new("smollm2/lora")).unwrap();
    let mut model = model(&opened, &Device::cpu(), Hold::F32);
    model.load_lora(&settings, values, "golden adapter").unwrap();
    let section =
        ObjectiveSection::from_overrides("eaft", &[("objective.normalizer".into(), "const_3".into())]).unwrap();
    let optimiser = AdamW { max_grad_norm: 1.0, ..AdamW::default() };
    let objective = Objective::from_section(&section).unwrap();
    let mut session = Session { keep: Keep::Inputs, ..Session::new(model, objective, optimiser) };
    let outcome = wait(session.gradients(std::slice::from_ref(&batch))).unwrap();
    let want = stated["loss_eaft"].as_f64().unwrap();
    assert!((outcome.loss - want).abs() <= 1e-4 * want, "{} instead of {want}", outcome.loss);
    let mut compared = 0;
    session
        .model
        .visit_mut(&mut |parameter| {
            if let Some(gradient) = parameter.gradient.take() {
                let name = format!("grad.base_model.model.{}", parameter.parts[0].name);
                let want = expected.floats(&name);
                let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                close(&name, &wait(to_host(&gradient)).unwrap(), want, 1e-3 * largest, 1e-2).unwrap();
                compared += 1;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(compared, expected.names().len(), "every stored gradient is compared");
    let run = &stated["adamw_lr1e-3_wd0_clip1"];
    for step in 0..3 {
        let outcome = wait(session.step(std::slice::from_ref(&batch), 1e-3)).unwrap();
        let loss = run["losses_before_each_step_then_final"][step].as_f64().unwrap();
        let norm = run["grad_norms_before_clipping"][step].as_f64().unwrap();
        assert!((outcome.loss - loss).abs() <= 2e-3 * loss, "step {step}: loss {} instead of {loss}", outcome.loss);
        assert!((outcome.gradient_norm - norm).abs() <= 5e-3 * norm, "step {step}: norm {}", outcome.gradient_norm);
    }
}

/// What a pass through the model and back gave with the golden adapter.
struct Pulled {
    loss: f64,
    gates: Vec<f32>,
    gradients: Vec<(String, Vec<f32>)>,
}

impl Pulled {
    /// How far its gates are from another's at most.
    fn far(&self, other: &Self) -> f32 {
        assert_eq!(self.gates.len(), other.gates.len());
        self.gates.iter().zip(&other.gates).fold(0f32, |most, (got, want)| most.max((got - want).abs()))
    }
}

/// The sample that the goldens are of.
fn sample() -> MicroBatch {
    let base = Tensors::read("smollm2/expected.safetensors");
    let trained: Vec<bool> = base.ints("sft_labels").iter().map(|&l| l != -100).collect();
    packed(&[(tokens(base.ints("sft_ids")), trained)])
}

fn pulled_back(opened: &Opened, device: &Device, batch: &MicroBatch) -> Pulled {
    let (settings, values) = peft::read(&GoldenFolder::new("smollm2/lora")).unwrap();
    let section = ObjectiveSection::from_overrides("eaft", &[]).unwrap();
    let mut model = model(opened, device, Hold::Auto);
    model.load_lora(&settings, values, "golden adapter").unwrap();
    let objective = Objective::from_section(&section).unwrap();
    let mut session = Session { keep: Keep::Inputs, ..Session::new(model, objective, AdamW::default()) };
    let outcome = wait(session.gradients(std::slice::from_ref(batch))).unwrap();
    let gates = outcome.rows.iter().map(|row| row.entropy_top_k / 20f32.ln()).collect();
    let mut gradients = Vec::new();
    session
        .model
        .visit_mut(&mut |parameter| {
            if let Some(gradient) = parameter.gradient.take() {
                gradients.push((parameter.parts[0].name.clone(), wait(to_host(&gradient)).unwrap()));
            }
            Ok(())
        })
        .unwrap();
    Pulled { loss: outcome.loss, gates, gradients }
}

/// How far from single precision a precision may be: of the loss as a share, of any gate, and the least cosine of a gradient.
struct Bounds {
    loss: f64,
    gate: f32,
    cosine: f64,
}

impl Bounds {
    /// Asserts them; how many gradients differ from what they should be by more than single precision does.
    fn hold(&self, got: &Pulled, want: &Pulled) -> usize {
        assert!((got.loss - want.loss).abs() <= self.loss * want.loss, "loss {}, want {}", got.loss, want.loss);
        assert!(got.far(want) <= self.gate, "a gate is off by {}", got.far(want));
        assert!(got.gradients.len() == want.gradients.len() && want.gradients.len() > 100, "{}", want.gradients.len());
        let mut differ = 0;
        for ((name, got), (_, want)) in got.gradients.iter().zip(&want.gradients) {
            let wide: Vec<f64> = want.iter().map(|&x| f64::from(x)).collect();
            let cosine = cosine(got, &wide);
            assert!(cosine >= self.cosine, "{name}: {cosine}");
            let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
            differ += usize::from(got.iter().zip(want).any(|(a, b)| (a - b).abs() > 1e-5 * largest));
        }
        differ
    }
}

/// The same device settled for a precision on tensor cores, attention too.
fn on_tensor_cores(device: &Device, compute: Compute) -> Device {
    let (device, said) = device.computing(compute, &devices::NoClock).unwrap();
    assert_eq!(said, Vec::<String>::new(), "the driver computes right");
    device.halving_attention()
}

#[test]
fn half_precision_turns_no_gradient_of_a_real_model_by_two_degrees_and_moves_no_gate_by_two_thousandths() {
    let test = half_precision_turns_no_gradient_of_a_real_model_by_two_degrees_and_moves_no_gate_by_two_thousandths;
    let Some(device) = devices::with_matrices(test) else { return };
    let Some((opened, _)) = open(test) else { return };
    let device = on_tensor_cores(&device, Compute::F16);
    let bounds = Bounds { loss: 5e-3, gate: 2e-3, cosine: 0.9995 };
    let differ =
        bounds.hold(&pulled_back(&opened, &device, &sample()), &pulled_back(&opened, &Device::cpu(), &sample()));
    assert!(differ > 60, "only {differ} gradients were computed in half precision");
}

/// Bounds of products of two halves a number: no gate off by 0.001, no gradient turned by a degree.
const NEARLY_SINGLE: Bounds = Bounds { loss: 1e-4, gate: 1e-3, cosine: 0.9999 };

#[test]
fn half_precision_of_two_halves_a_number_turns_no_gradient_of_a_real_model_and_moves_no_gate() {
    const TOKENS: usize = 16;
    let test = half_precision_of_two_halves_a_number_turns_no_gradient_of_a_real_model_and_moves_no_gate;
    let Some(device) = devices::with_matrices(test) else { return };
    let Some((opened, gguf)) = open(test) else { return };
    let device = on_tensor_cores(&device, Compute::Split);
    // A quarter of the sample, since this driver takes minutes for all of it, which holds as well (`LOG.md`).
    let text = gguf.tokenizer().unwrap().encode(include_str!("../golden/smollm2/wikitext2_test_20000.txt")).unwrap();
    let batch = packed(&[(text[..TOKENS].to_vec(), vec![true; TOKENS])]);
    NEARLY_SINGLE.hold(&pulled_back(&opened, &device, &batch), &pulled_back(&opened, &Device::cpu(), &batch));
}

#[test]
fn operands_rounded_to_two_halves_a_number_turn_no_gradient_of_a_real_model_and_move_no_gate() {
    const TOKENS: usize = 128;
    let test = operands_rounded_to_two_halves_a_number_turn_no_gradient_of_a_real_model_and_move_no_gate;
    let Some((opened, gguf)) = open(test) else { return };
    let ids = gguf.tokenizer().unwrap().encode(include_str!("../golden/smollm2/wikitext2_test_20000.txt")).unwrap();
    let text = ids[..TOKENS].to_vec();
    for batch in [sample(), packed(&[(text, vec![true; TOKENS])])] {
        let on = |device: Device| pulled_back(&opened, &device, &batch);
        let (split, single) = (on(Device::cpu().halving_wide(Multiplier::Split)), on(Device::cpu()));
        NEARLY_SINGLE.hold(&split, &single);
        assert!(split.gradients != single.gradients, "nothing was rounded");
    }
}

#[test]
fn steps_with_operands_rounded_to_halves_lose_within_half_a_percent_of_what_those_in_single_precision_do() {
    /// Fifty were made once (`LOG.md`), which takes minutes.
    const STEPS: usize = 8;
    const TOKENS: usize = 64;
    let test = steps_with_operands_rounded_to_halves_lose_within_half_a_percent_of_what_those_in_single_precision_do;
    let Some((opened, gguf)) = open(test) else { return };
    let ids = gguf.tokenizer().unwrap().encode(include_str!("../golden/smollm2/wikitext2_test_20000.txt")).unwrap();
    let section = ObjectiveSection::from_overrides("eaft", &[]).unwrap();
    let losses = |device: Device| -> Vec<f64> {
        let mut model = model(&opened, &device, Hold::Auto);
        let settings = LoraSettings {
            rank: 16,
            alpha: 32.0,
            rslora: false,
            dropout: 0.0,
            targets: Vec::new(),
            some_layers: false,
        };
        model.add_lora(&settings, 1).unwrap();
        let objective = Objective::from_section(&section).unwrap();
        let mut session = Session { keep: Keep::Everything, ..Session::new(model, objective, AdamW::default()) };
        let batches = ids.chunks_exact(TOKENS).take(STEPS).map(|ids| packed(&[(ids.to_vec(), vec![true; ids.len()])]));
        batches.map(|batch| wait(session.step(std::slice::from_ref(&batch), 2e-4)).unwrap().loss).collect()
    };
    let (halved, single) = (losses(Device::cpu().halving_wide(Multiplier::Cooperative)), losses(Device::cpu()));
    assert_eq!(single.len(), STEPS);
    let off = |(got, want): (&f64, &f64)| (got / want - 1.0).abs();
    let most = halved.iter().zip(&single).map(off).fold(0.0, f64::max);
    assert!(most <= 5e-3, "a step's loss is off by {most}");
    assert!(halved.iter().zip(&single).any(|(a, b)| a != b), "nothing was rounded");
}
