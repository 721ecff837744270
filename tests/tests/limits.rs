//! Devices that allow little: wgpu itself refuses what outgrows a binding or a buffer, and results stay the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use temper_conformance::devices::{self, read};
use temper_conformance::models;
use temper_engine::configuration::ObjectiveSection;
use temper_engine::inside::device::Limits;
use temper_engine::inside::kernels::Indices;
use temper_engine::inside::kernels::attention::{self, Shape};
use temper_engine::inside::kernels::matmul::{AsOperand, Product};
use temper_engine::inside::model::adapter::LoraSettings;
use temper_engine::inside::model::parameter::{Parameter, from_host, to_host};
use temper_engine::inside::model::{Keep, load};
use temper_engine::inside::rng::Rng;
use temper_engine::inside::weights::{MemorySource, RawTensor, WeightFormat, WeightSource};
use temper_engine::models::{Architecture, Hold};
use temper_engine::{Device, Error, Objective, Session, adapters, wait};

const MIB: u64 = 1 << 20;

/// A further device on the adapter of the tests.
fn logical(limits: Limits) -> Device {
    let id = &adapters().first().expect("an adapter: run `cargo xtask test`, which installs one").id.clone();
    Device::logical(id, limits).expect("a logical device")
}

fn product(device: &Device) -> Vec<f32> {
    let whole = |count: usize| (0..count).map(|i| (i % 13) as f32 - 6.0).collect::<Vec<_>>();
    let tensor =
        |shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(whole(shape[0] * shape[1]), shape), device.burn());
    let (a, b) = (tensor([17, 40]), tensor([23, 40]));
    read(&Product::of(&a, b.transposed()).run(device).expect("a product")).expect("its values")
}

#[test]
fn several_logical_devices_on_one_adapter_compute_side_by_side() {
    let (one, other) = (logical(Limits::default()), logical(Limits::of(2 * MIB)));
    assert!(other.max_binding_bytes() == 2 * MIB && one.max_binding_bytes() > 2 * MIB);
    let expected = product(&Device::cpu());
    for device in [&one, &other, &one, &devices::gpu()] {
        assert_eq!(product(device), expected, "{}", device.name());
    }
}

/// Numbers in -1 .. 1.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| (rng.normal() * 0.5).clamp(-1.0, 1.0) as f32).collect()
}

fn relative(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert!(largest > 0.0, "nothing to compare with");
    got.iter().zip(want).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// A model whose vocabulary has 4 MiB in single precision, and whose blocks have matrices of `intermediate` * 2 KiB.
fn architecture(intermediate: usize) -> Architecture {
    let json = format!(
        r#"{{"model_type": "qwen3", "vocab_size": 4096, "hidden_size": 256, "intermediate_size": {intermediate},
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": false}}"#
    );
    Architecture::from_config_json(json.as_bytes(), "config.json").unwrap()
}

fn weights(arch: &Architecture, format: WeightFormat) -> Arc<dyn WeightSource> {
    let tensors = arch.tensor_specs().into_iter().enumerate().map(|(index, spec)| {
        let count: usize = spec.shape.iter().product();
        let values: Vec<f32> = match spec.shape.len() {
            1 => vec![1.0; count],
            _ => numbers(index as u64, count).iter().map(|x| x * 0.1).collect(),
        };
        let raw = RawTensor::from_f32(&spec.name, spec.shape.clone(), &values);
        if spec.shape.len() == 1 || format == WeightFormat::F32 { raw } else { raw.stored_as(format).unwrap() }
    });
    Arc::new(MemorySource::new(tensors).unwrap())
}

/// Loss, cross entropies and all gradients of one batch, and the losses of two steps.
fn trained(device: &Device, arch: &Architecture, source: &Arc<dyn WeightSource>, hold: Hold, full: bool) -> Trained {
    let mut model = load::load(arch, source, device, hold, u64::MAX, full).unwrap();
    if !full {
        let settings = LoraSettings { rank: 4, alpha: 8.0, dropout: 0.0, targets: Vec::new() };
        model.add_lora(&settings, 7).unwrap();
        // B begins with zeros, and nothing reaches A then.
        let mut seed = 100;
        let mut fill = |parameter: &mut Parameter| {
            if parameter.trained {
                let [rows, columns] = parameter.value.dims();
                let values = numbers(seed, rows * columns).iter().map(|x| x * 0.1).collect();
                parameter.value = from_host(values, [rows, columns], device);
                seed += 1;
            }
            Ok(())
        };
        model.visit_mut(&mut fill).unwrap();
    }
    let batch = models::packed(&[
        ((0..40).map(|i| (i * i * 7 + 13) % 4096).collect(), vec![true; 40]),
        ((0..20).map(|i| (i * 391 + 5) % 4096).collect(), vec![true; 20]),
    ]);
    let section = ObjectiveSection::from_overrides("eaft", &[]).unwrap();
    let mut session = Session {
        model,
        objective: Objective::from_section(&section).unwrap(),
        optimiser: models::golden_adamw(1.0),
        keep: Keep::Everything,
        together: false,
        seed: 3,
        step: 0,
    };
    let outcome = wait(session.gradients(std::slice::from_ref(&batch))).unwrap();
    let mut gradients: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for parameter in session.model.trained() {
        // Where the vocabulary is cut depends on the device.
        let name = parameter.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("+");
        if let Some(gradient) = &parameter.gradient {
            gradients.entry(name).or_default().extend(wait(to_host(gradient)).unwrap());
        }
    }
    session
        .model
        .visit_mut(&mut |p| {
            p.gradient = None;
            Ok(())
        })
        .unwrap();
    // The last loss is one of stepped weights.
    let mut losses = vec![outcome.loss as f32];
    for _ in 0..2 {
        losses.push(wait(session.step(std::slice::from_ref(&batch), 1e-3)).unwrap().loss as f32);
    }
    Trained { losses, entropies: outcome.rows.iter().map(|row| row.ce).collect(), gradients }
}

struct Trained {
    losses: Vec<f32>,
    entropies: Vec<f32>,
    gradients: BTreeMap<String, Vec<f32>>,
}

#[test]
fn training_steps_on_devices_with_bindings_of_2_16_and_128_mib_are_those_of_the_whole_device() {
    // With burn's products, whose kernels a software adapter compiles for long, the smallest device alone.
    for (hold, format, full, intermediate, with_burn) in [
        (Hold::Auto, WeightFormat::Q8_0, false, 1536, true),
        (Hold::Auto, WeightFormat::Bf16, false, 1536, false),
        (Hold::F32, WeightFormat::F32, false, 1536, false),
        (Hold::F32, WeightFormat::F32, true, 512, true),
    ] {
        let arch = architecture(intermediate);
        let source = weights(&arch, format);
        let both = [(true, [2, 16, 128].as_slice()), (false, &[2])];
        for (software, sizes) in both.into_iter().take(if with_burn { 2 } else { 1 }) {
            let whole = logical(Limits::default()).treated_as_software(software);
            let want = trained(&whole, &arch, &source, hold, full);
            for &mib in sizes {
                let small = logical(Limits::of(mib * MIB)).treated_as_software(software);
                let got = trained(&small, &arch, &source, hold, full);
                let case = format!("{format:?}, all trained: {full}, software: {software}, {mib} MiB");
                assert!(relative(&got.losses, &want.losses) < 1e-5, "{case}: {:?} {:?}", got.losses, want.losses);
                assert!(relative(&got.entropies, &want.entropies) < 1e-5, "{case}");
                assert!(got.gradients.len() >= 8 && got.gradients.keys().eq(want.gradients.keys()), "{case}");
                for (name, want) in &want.gradients {
                    let difference = relative(&got.gradients[name], want);
                    assert!(difference < 1e-5, "{case}: gradient of {name}: {difference}");
                }
            }
        }
    }
}

#[test]
fn attention_over_scores_that_no_binding_holds_is_that_of_the_cpu() {
    let (tokens, shape) = (640, Shape { heads: 4, kv_heads: 2, head_dim: 16 });
    // A document that begins in the middle of a tile, one of a single token, a long one.
    let starts: Vec<u32> = (0..tokens as u32).map(|t| [0, 300, 301].into_iter().rfind(|&s| s <= t).unwrap()).collect();
    let (qkv, dout) = (numbers(1, tokens * shape.width()), numbers(2, tokens * shape.heads * shape.head_dim));
    let run = |device: &Device| {
        let of = |values: &Vec<f32>| {
            let columns = values.len() / tokens;
            Tensor::<2>::from_data(TensorData::new(values.clone(), [tokens, columns]), device.burn())
        };
        let (qkv, dout, starts) = (of(&qkv), of(&dout), Indices::new(device, starts.clone()));
        let (out, state) = attention::forward(device, &qkv, shape, &starts).unwrap();
        let gradient = attention::backward(device, &qkv, &out, state, &dout, shape, &starts).unwrap();
        [read(&out).unwrap(), read(&gradient).unwrap()]
    };
    let want = run(&Device::cpu());
    // One key head's scores are 3.1 MiB.
    for (mib, software) in [(2, true), (2, false), (16, true)] {
        let got = run(&logical(Limits::of(mib * MIB)).treated_as_software(software));
        for (what, (got, want)) in ["output", "gradient"].iter().zip(got.iter().zip(&want)) {
            let difference = relative(got, want);
            assert!(difference < 1e-5, "{what} with {mib} MiB, software: {software}: {difference}");
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused_with_both_numbers_and_what_would_fit() {
    let device = logical(Limits::of(2 * MIB));
    let arch = architecture(1536);
    let source = weights(&arch, WeightFormat::F32);
    let refused = |error: Error, words: &[&str]| {
        let text = error.to_string();
        assert!(matches!(error, Error::Limit { .. }) && error.is_bad_input(), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{text}"));
    };
    let whole = load::load(&arch, &source, &device, Hold::F32, u64::MAX, true).err().expect("3 MiB trained as a whole");
    refused(whole, &["gate_proj", "3145728", "2097152", "lora"]);
    let mut model = load::load(&arch, &source, &device, Hold::Auto, u64::MAX, false).unwrap();
    let long = wait(model.logits(&vec![1; 171])).expect_err("an activation of 171 * 12 KiB");
    refused(long, &["171 tokens", "2101248", "2097152", "at most 170 tokens", "cutoff_length"]);
    wait(model.logits(&vec![1; 170])).unwrap();
}
