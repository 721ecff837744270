//! Devices that allow little: wgpu itself refuses what outgrows a binding or a buffer, and results stay the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use temper_conformance::devices::{self, read};
use temper_conformance::models;
use temper_engine::configuration::ObjectiveSection;
use temper_engine::host::{Clock, Folder, MemoryFolder};
use temper_engine::inside::data::MicroBatch;
use temper_engine::inside::device::Limits;
use temper_engine::inside::kernels::attention::{self, Shape};
use temper_engine::inside::kernels::matmul::{AsOperand, Product};
use temper_engine::inside::kernels::{Indices, Packed, Rows};
use temper_engine::inside::model::adapter::LoraSettings;
use temper_engine::inside::model::parameter::{Parameter, from_host, to_host};
use temper_engine::inside::model::{Keep, load};
use temper_engine::inside::rng::Rng;
use temper_engine::inside::weights::{MemorySource, RawTensor, WeightFormat, WeightSource};
use temper_engine::models::{Architecture, Hold};
use temper_engine::running::{About, Checkpoint, Execution, NamedFile};
use temper_engine::{
    Checkpoints, Config, Device, Document, Error, Host, Learner, Objective, Run, Session, Sets, adapters, wait,
};

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
        let settings =
            LoraSettings { rank: 4, alpha: 8.0, rslora: false, dropout: 0.0, targets: Vec::new(), some_layers: false };
        model.add_lora(&settings, 7).unwrap();
        // B begins with zeros, and nothing reaches A then.
        let mut seed = 100;
        let mut fill = |parameter: &mut Parameter| {
            if parameter.trained {
                let [rows, columns] = parameter.value.dims();
                let values = numbers(seed, rows * columns).iter().map(|x| x * 0.1).collect();
                parameter.value = from_host(values, [rows, columns], device).into();
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
    let objective = Objective::from_section(&section).unwrap();
    let mut session = Session { seed: 3, ..Session::new(model, objective, models::golden_adamw(1.0)) };
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
    // With the kernels of hardware, which a software adapter is slow at, the smallest device alone.
    for (hold, format, full, intermediate, as_hardware) in [
        (Hold::Auto, WeightFormat::Q8_0, false, 1536, true),
        (Hold::Auto, WeightFormat::Bf16, false, 1536, false),
        (Hold::F32, WeightFormat::F32, false, 1536, false),
        (Hold::F32, WeightFormat::F32, true, 512, true),
    ] {
        let arch = architecture(intermediate);
        let source = weights(&arch, format);
        let both = [(true, [2, 16, 128].as_slice()), (false, &[2])];
        for (software, sizes) in both.into_iter().take(if as_hardware { 2 } else { 1 }) {
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
fn attention_over_16384_tokens_holds_what_is_linear_in_them_and_is_that_of_the_cpu() {
    // The scores of the head are 1 GiB.
    let shape = Shape { heads: 1, kv_heads: 1, head_dim: 16 };
    let run = |device: &Device, tokens: usize| {
        // A document of half of the tokens, one of a single token, others that begin in the middle of a tile.
        let starts = (0..tokens as u32).map(|t| [0, 8191, 8192, 12_300].into_iter().rfind(|&s| s <= t).unwrap());
        let starts = starts.collect();
        let (qkv, dout) = (numbers(1, tokens * shape.width()), numbers(2, tokens * shape.heads * shape.head_dim));
        let of = |values: Vec<f32>| {
            let columns = values.len() / tokens;
            Tensor::<2>::from_data(TensorData::new(values, [tokens, columns]), device.burn())
        };
        let (qkv, dout, starts) = (of(qkv), of(dout), Indices::new(device, starts));
        let (out, lse) = attention::forward(device, &qkv, shape, &starts).unwrap();
        let gradient = attention::backward(device, &qkv, &out, &lse, &dout, shape, &starts).unwrap();
        let held = device.reserved_bytes();
        ([read(&out).unwrap(), read(&lse).unwrap(), read(&gradient).unwrap()], held)
    };
    let tokens = 16_384;
    let device = logical(Limits::of(16 * MIB));
    let (got, held) = run(&device, tokens);
    let (want, _) = run(&Device::cpu(), tokens);
    for (what, (got, want)) in ["output", "log-sum-exp", "gradient"].iter().zip(got.iter().zip(&want)) {
        let difference = relative(got, want);
        assert!(difference < 1e-5, "{what}: {difference}");
    }
    // qkv and its gradient, the output and its own, two numbers a query and head, the starts; the pool rounds up.
    let needed = (2 * tokens * (shape.width() + shape.heads * shape.head_dim + shape.heads) * 4 + tokens * 4) as u64;
    let held = held.expect("wgpu tells");
    assert!(held >= needed && held <= 4 * needed, "{held} bytes held, {needed} needed");
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

/// Three documents and a session that trains an adapter on a packed model.
fn lora_session(device: &Device) -> (Session, MicroBatch) {
    let arch = architecture(512);
    let source = weights(&arch, WeightFormat::Q8_0);
    let mut model = load::load(&arch, &source, device, Hold::Auto, u64::MAX, false).unwrap();
    let settings =
        LoraSettings { rank: 4, alpha: 8.0, rslora: false, dropout: 0.1, targets: Vec::new(), some_layers: false };
    model.add_lora(&settings, 7).unwrap();
    let section = ObjectiveSection::from_overrides("eaft", &[]).unwrap();
    let objective = Objective::from_section(&section).unwrap();
    let session = Session { together: true, seed: 3, ..Session::new(model, objective, models::golden_adamw(1.0)) };
    (session, models::packed(&[((0..12).map(|i| i * 300 + 1).collect(), vec![true; 12])]))
}

#[test]
fn a_step_for_which_memory_ran_out_is_made_once_more_and_comes_out_the_same() {
    let device = logical(Limits::default());
    let (mut session, batch) = lora_session(&device);
    let batch = std::slice::from_ref(&batch);
    let want: Vec<f64> = (0..3).map(|_| wait(session.step(batch, 1e-2)).unwrap().loss).collect();
    // At the first kernel, in the middle of a pass, and where nobody reads rows.
    for (succeed, unread) in [(0, false), (40, false), (40, true)] {
        let (mut session, _) = lora_session(&device);
        assert_eq!(wait(session.step(batch, 1e-2)).unwrap().loss, want[0]);
        device.fail_after(succeed, 1);
        let retried = match unread {
            true => wait(session.step_unread(batch, 1e-2)).unwrap().retried,
            false => {
                let outcome = wait(session.step(batch, 1e-2)).unwrap();
                assert_eq!((outcome.loss, outcome.step, outcome.rows.len()), (want[1], Some(2), 11));
                outcome.retried
            }
        };
        let told = retried.expect("the step was made twice");
        assert!(told.contains("ran out of memory: no room for the parameters of kernel"), "{told}");
        let after = wait(session.step(batch, 1e-2)).unwrap();
        assert_eq!((after.loss, after.retried), (want[2], None));
    }
}

#[test]
fn a_step_for_which_memory_runs_out_twice_fails_with_both_numbers_and_leaves_the_model_as_it_was() {
    let device = logical(Limits::default());
    let (mut session, batch) = lora_session(&device);
    let batch = std::slice::from_ref(&batch);
    device.fail_after(25, u32::MAX);
    let error = wait(session.step(batch, 1e-2)).expect_err("no memory");
    device.fail_after(0, 0);
    let text = error.to_string();
    assert!(matches!(error, Error::OutOfMemory { .. }) && !error.is_bad_input(), "{text}");
    assert!(
        text.contains("bytes), with ") && text.contains("of weights on it") && text.contains("batch_tokens"),
        "{text}"
    );
    let (mut fresh, _) = lora_session(&device);
    assert_eq!(wait(session.step(batch, 1e-2)).unwrap().loss, wait(fresh.step(batch, 1e-2)).unwrap().loss);
}

#[test]
fn weights_lie_in_buffers_as_large_as_they_are_and_are_counted() {
    let device = logical(Limits::of(2 * MIB));
    let held = || device.reserved_bytes().expect("wgpu tells");
    let (rows, columns) = (5001, 512);
    let bytes = vec![0; rows * columns * 34 / 32];
    let raw = RawTensor { name: "w".into(), shape: vec![rows, columns], format: WeightFormat::Q8_0, bytes };
    let before = held();
    let packed = Packed::new(&device, vec![raw.clone()], columns, Rows::Whole).unwrap();
    // In two parts, each of whole words.
    assert_eq!(held() - before, (rows * columns * 34 / 32) as u64);
    drop(packed);
    assert_eq!(held(), before);
    assert!(device.peak_bytes().unwrap() > before);
    device.fail_after(1, 1);
    let error = Packed::new(&device, vec![raw], columns, Rows::Whole).err().expect("no room for the second part");
    let text = error.to_string();
    assert!(text.contains("ran out of memory: no room for weights of w ("), "{text}");
    assert_eq!(held(), before);
}

/// A face that keeps checkpoints, and takes the memory away once there is one of a step.
struct Taking<'a> {
    device: &'a Device,
    at: u64,
    kept: BTreeMap<u64, Vec<NamedFile>>,
}

impl Checkpoints for Taking<'_> {
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> temper_engine::Result<String> {
        self.kept.insert(step, wait(checkpoint.in_memory())?);
        if step == self.at {
            self.device.fail_after(0, u32::MAX);
        }
        Ok(format!("step-{step}"))
    }

    fn stays(&mut self, _step: u64) {}

    fn open(&mut self, step: u64) -> temper_engine::Result<Box<dyn Folder>> {
        unreachable!("no run of this test chooses its result, as of step {step}")
    }
}

impl Clock for Taking<'_> {
    fn seconds(&self) -> f64 {
        0.0
    }
}

impl Host for Taking<'_> {
    fn checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        Some(self)
    }

    fn peak_bytes(&self) -> u64 {
        0
    }
}

#[test]
fn a_run_that_runs_out_of_memory_leaves_a_checkpoint_from_which_another_goes_on() {
    let device = logical(Limits::default());
    let text = "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n[adapter]\nkind = \"none\"\n[optim]\nlearning_rate = 1e-3\n\
                [run]\nsteps = 4\nbatch_tokens = 32\naccumulation = 1\nsave_every = 1\n";
    let config = Config::parse(text, "run", &[]).unwrap();
    let documents: Vec<Document> = (0..6_u32)
        .map(|i| Document {
            tokens: (0..12 + i).map(|t| (i * 37 + t * 11) % 200).collect(),
            trained: vec![true; 12 + i as usize],
            line: 1,
        })
        .collect();
    let run = || {
        let base = models::tiny("llama", &device, true);
        let execution = Execution::resident(Keep::Everything);
        let learner = Learner::new(config.clone(), &config.objective().unwrap(), base, execution).unwrap();
        Run::new(vec![learner], documents.clone(), Arc::new(Sets::default()), About::default()).unwrap()
    };
    let end = |run: &mut Run, at: u64| {
        let mut host = Taking { device: &device, at, kept: BTreeMap::new() };
        let error = loop {
            match wait(run.next(&mut host)) {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        device.fail_after(0, 0);
        (error, host.kept)
    };
    let (none, whole) = end(&mut run(), u64::MAX);
    assert!(none.is_none() && whole.contains_key(&4));
    let (error, kept) = end(&mut run(), 2);
    let error = error.expect("no memory after step 2");
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert_eq!(kept.keys().max(), Some(&2));
    let mut folder = MemoryFolder::new();
    kept[&2].iter().for_each(|(name, bytes)| folder.insert(name, bytes.clone()).unwrap());
    let mut again = run();
    again.resume(&folder).unwrap();
    let (none, resumed) = end(&mut again, u64::MAX);
    assert!(none.is_none());
    assert!(
        whole[&4]
            .iter()
            .filter(|(name, _)| name.ends_with("safetensors"))
            .eq(resumed[&4].iter().filter(|(name, _)| name.ends_with("safetensors")))
    );
}

#[test]
fn a_device_that_is_lost_is_an_error_with_its_name_whoever_notices_it() {
    let device = logical(Limits::default());
    let (mut session, batch) = lora_session(&device);
    let batch = std::slice::from_ref(&batch);
    wait(session.step(batch, 1e-2)).unwrap();
    let held = Tensor::<1>::from_data(TensorData::new(vec![1.0_f32; 8], [8]), device.burn());
    let raw = RawTensor { name: "w".into(), shape: vec![1, 32], format: WeightFormat::Q8_0, bytes: vec![0; 34] };
    device.sync().unwrap();
    device.lose();
    let name = adapters()[0].name.clone();
    let told = |error: Error| {
        let text = error.to_string();
        assert!(matches!(error, Error::Lost { .. }) && !error.is_bad_input(), "{text}");
        assert!(
            text.contains(&format!("the GPU {name} was lost")) && text.contains("saved before is intact"),
            "{text}"
        );
    };
    told(wait(session.step(batch, 1e-2)).map(|_| ()).expect_err("a step"));
    told(read(&held).expect_err("a read"));
    told(device.sync().expect_err("a wait"));
    told(Packed::new(&device, vec![raw], 32, Rows::Whole).map(|_| ()).expect_err("an upload"));
    told(temper_engine::lost().expect("the first loss"));
    // Other devices go on.
    assert_eq!(product(&devices::gpu()), product(&Device::cpu()));
}
