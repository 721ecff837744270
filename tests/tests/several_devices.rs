//! A model on several devices of one machine: the same run as on one of them.

use std::sync::Arc;

use temper_conformance::compare::close;
use temper_conformance::runs::{Keeper, documents};
use temper_conformance::{devices, models};
use temper_engine::events::StepMetrics;
use temper_engine::host::MemoryFolder;
use temper_engine::inside::device::Limits;
use temper_engine::models::Architecture;
use temper_engine::models::fabricated::{FORMATS, Shape, fabricate};
use temper_engine::running::{
    About, Execution, Keep, Ledger, Load, NamedFile, Placement, Site, base_on, placement, placement_of_model,
};
use temper_engine::{
    Config, Device, Devices, Error, Event, Learner, ModelFiles, Run, Sampling, Sets, generate, perplexity, wait,
};

/// Two logical devices on one adapter, of which neither can see what the other holds.
fn twins() -> [Device; 2] {
    let id = temper_engine::adapters().first().expect("an adapter, as in `devices::gpu`").id.clone();
    [0; 2].map(|_| Device::logical(&id, Limits::default()).expect("a further device"))
}

/// A model of six blocks: with a head of its own or without, dense or in 4 bits.
fn files(tied: bool, quantised: bool) -> ModelFiles {
    let whole = Shape::named("qwen3-0.6b").unwrap().architecture(Some(6));
    let small = Architecture { vocab: 300, hidden: 128, heads: 2, kv_heads: 1, intermediate: 192, ..whole };
    let arch = Architecture { tied_head: tied, ..small };
    let name = if quantised { "Q4_0" } else { "BF16" };
    let format = FORMATS.into_iter().find(|format| format.name() == name).unwrap();
    let mut bytes = Vec::new();
    fabricate(&mut bytes, &arch, format, 1).unwrap();
    ModelFiles::open_gguf(Arc::new(bytes), "model.gguf").unwrap()
}

fn config(set: &[(&str, &str)]) -> Config {
    let text = "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n[optim]\nlearning_rate = 1e-3\n[run]\nsteps = 3\n\
                batch_tokens = 48\naccumulation = 2\n";
    let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::parse(text, "run", &set).unwrap()
}

fn on(all: &[&Device], counts: &[usize]) -> Placement {
    let devices = Devices::new(all.iter().map(|&device| device.clone()).collect()).unwrap();
    Placement::new(&devices, counts).unwrap()
}

fn start(config: &Config, files: &ModelFiles, placement: &Placement) -> Result<Run, Error> {
    let sites = Site::of_each(placement);
    let executions =
        Execution::plan_each(config, &files.architecture, files.weights.as_deref(), 1, Load::most(config), &sites);
    let base = base_on(config, files, placement.clone(), &executions, &mut |_, _| {})?;
    let learner = Learner::new(config.clone(), &config.objective()?, base, executions[0])?;
    Run::new(vec![learner], documents(), Arc::new(Sets::default()), About::default())
}

/// The metrics of all steps that are left.
fn finish(run: &mut Run, keeper: &mut Keeper) -> Vec<StepMetrics> {
    let mut all = Vec::new();
    while let Some(event) = wait(run.next(keeper)).unwrap() {
        if let Event::Step { mut learners } = event {
            all.push(learners.remove(0));
        }
    }
    all
}

/// Losses and gradient norms of all steps, and what was learned.
fn trained(config: &Config, files: &ModelFiles, placement: &Placement) -> (Vec<f64>, Vec<Vec<f32>>) {
    let mut run = start(config, files, placement).unwrap();
    let steps = finish(&mut run, &mut Keeper::default());
    // The first and the last are always told.
    assert!(steps.len() >= 2 && steps.last().map(|step| step.step) == config.run.steps);
    let numbers = steps.iter().flat_map(|step| [step.loss, step.gradient_norm]).collect();
    let model = &run.learners()[0].session().model;
    let learned = model.trained().into_iter().map(|p| wait(p.value.read()).unwrap()).collect();
    (numbers, learned)
}

fn assert_near(what: &str, found: &[f64], want: &[f64], relative: f64) {
    assert_eq!(found.len(), want.len(), "{what}");
    for (at, (found, want)) in found.iter().zip(want).enumerate() {
        let difference = (found - want).abs();
        assert!(difference <= relative * want.abs(), "{what}: number {at} is {found} and not {want}");
    }
}

/// Ways to train: an adapter with dropout, clipped; with blocks run twice; all weights, clipped and stepped block by block; an
/// objective that goes through its batch once more.
const WAYS: [&[(&str, &str)]; 5] = [
    &[("adapter.dropout", "0.1"), ("optim.max_grad_norm", "0.1")],
    &[("run.recompute", "always"), ("objective.method", "sft")],
    &[("adapter.kind", "none"), ("optim.max_grad_norm", "0.1")],
    &[("adapter.kind", "none"), ("optim.max_grad_norm", "0"), ("run.accumulation", "1"), ("run.batch_tokens", "96")],
    &[("objective.method", "talr"), ("run.log_every", "3")],
];

#[test]
fn a_run_on_a_gpu_and_the_cpu_has_the_losses_of_either_alone() {
    let (gpu, cpu) = (devices::gpu(), Device::cpu());
    let files = files(false, false);
    for (index, way) in WAYS.into_iter().enumerate() {
        let config = config(way);
        let (want, learned) = trained(&config, &files, &Placement::whole(&cpu, 6));
        let split = on(&[&gpu, &cpu], &[2, 4]);
        // The others once: software takes its time.
        let others = [on(&[&cpu, &gpu], &[5, 1]), on(&[&gpu], &[6])];
        for placement in [split].into_iter().chain(others.into_iter().filter(|_| index == 0)) {
            let what = format!("{way:?} on {placement}");
            let (found, weights) = trained(&config, &files, &placement);
            // As far as the devices differ from each other wherever they are compared.
            assert_near(&what, &found, &want, 1e-4);
            assert_eq!(weights.len(), learned.len());
            for (found, want) in weights.iter().zip(&learned) {
                // AdamW moves an element whose gradient is next to nothing by its rounding: few of them, and none by a whole step.
                let far = found.iter().zip(want).filter(|(found, want)| !((*found - *want).abs() <= 2e-4)).count();
                assert!(far * 100 <= found.len(), "{what}: {far} of {} elements", found.len());
                let want: Vec<f64> = want.iter().copied().map(f64::from).collect();
                close(&what, found, &want, 1e-3, 0.0).unwrap();
            }
        }
    }
}

#[test]
fn a_run_on_two_devices_of_a_kind_is_that_of_one_to_the_bit() {
    let [a, b] = twins();
    let compare = |files: &ModelFiles, way: &[(&str, &str)], counts: [usize; 2]| {
        let config = config(way);
        let (want, learned) = trained(&config, files, &Placement::whole(&a, 6));
        let (found, weights) = trained(&config, files, &on(&[&a, &b], &counts));
        assert_eq!(found, want, "{way:?}, {counts:?} blocks");
        assert!(weights == learned, "{way:?}, {counts:?} blocks: other weights");
    };
    let dense = files(false, false);
    WAYS.into_iter().for_each(|way| compare(&dense, way, [2, 4]));
    // A head that is the embedding, on both devices.
    compare(&files(true, true), WAYS[0], [5, 1]);
}

fn folder(files: &[NamedFile]) -> MemoryFolder {
    let mut folder = MemoryFolder::new();
    files.iter().for_each(|(name, bytes)| folder.insert(name, bytes.clone()).unwrap());
    folder
}

#[test]
fn a_checkpoint_knows_no_devices_and_goes_on_with_another_split_or_on_one() {
    let (gpu, cpu) = (devices::gpu(), Device::cpu());
    let files = files(true, true);
    let split = on(&[&gpu, &cpu], &[2, 4]);
    let config = config(&[("run.save_every", "2"), ("adapter.dropout", "0.1"), ("run.steps", "4")]);
    let mut whole = start(&config, &files, &split).unwrap();
    let mut keeper = Keeper::default();
    let mut want = Vec::new();
    // Up to the checkpoint of the second step, which the third one's metrics follow.
    while want.len() < 2 || keeper.0.is_empty() {
        if let Some(Event::Step { mut learners }) = wait(whole.next(&mut keeper)).unwrap() {
            want.push(learners.remove(0).loss);
        }
    }
    assert_eq!(want.len(), 2);
    let saved = folder(&keeper.0);
    let rest: Vec<f64> = finish(&mut whole, &mut Keeper::default()).iter().map(|step| step.loss).collect();
    assert_eq!(rest.len(), 2);
    for (placement, tolerance) in [
        (split.clone(), 0.0),
        (on(&[&gpu, &cpu], &[5, 1]), 1e-4),
        (on(&[&cpu, &gpu], &[1, 5]), 1e-4),
        (Placement::whole(&cpu, 6), 1e-4),
    ] {
        let mut again = start(&config, &files, &placement).unwrap();
        again.resume(&saved).unwrap();
        assert_eq!(again.steps(), (4, 2));
        let found: Vec<f64> = finish(&mut again, &mut Keeper::default()).iter().map(|step| step.loss).collect();
        assert_near(&format!("gone on with on {placement}"), &found, &rest, tolerance);
    }
}

#[test]
fn a_split_model_is_measured_and_writes_as_on_one_device() {
    let (gpu, cpu) = (devices::gpu(), Device::cpu());
    for name in ["llama_tied", "qwen3"] {
        let sampling = Sampling::greedy();
        let of = |placement: &Placement| {
            let folder = temper_conformance::golden::GoldenFolder::new(&format!("tiny/{name}"));
            let files = ModelFiles::open_folder(&folder).unwrap();
            let mut model =
                files.load_onto(placement, temper_engine::models::Hold::Auto, false, 0, &mut |_, _| {}).unwrap();
            if name == "qwen3" {
                models::with_golden_lora(&mut model, name);
            }
            let scored = wait(perplexity::rows(&mut model, &documents(), 20, &mut |_, _| {})).unwrap();
            let logits = wait(model.logits(&[1, 2, 3, 5, 8])).unwrap();
            let text = wait(generate(&mut model, &[1, 2, 3], 12, sampling, &[], &mut |_| {})).unwrap();
            (perplexity::score(&scored).loss, logits, text, model.origin)
        };
        let (loss, logits, text, origin) = of(&Placement::whole(&cpu, 2));
        for placement in [on(&[&gpu, &cpu], &[1, 1]), on(&[&cpu, &gpu], &[1, 1])] {
            let found = of(&placement);
            assert_near(name, &[found.0], &[loss], 1e-5);
            let want: Vec<f64> = logits.iter().copied().map(f64::from).collect();
            close(name, &found.1, &want, 1e-4, 1e-4).unwrap();
            assert_eq!((found.2, found.3), (text.clone(), origin), "{name} on {placement}");
        }
    }
}

#[test]
fn each_device_has_a_budget_of_its_own_and_reads_what_does_not_fit_from_the_file() {
    let (gpu, cpu) = (devices::gpu(), Device::cpu());
    let files = files(true, true);
    let split = on(&[&gpu, &cpu], &[3, 3]);
    let set = [("run.recompute", "always"), ("run.steps", "2"), ("run.accumulation", "1"), ("run.batch_tokens", "96")];
    let (want, _) = trained(&config(&set), &files, &split);
    let least = Execution { resident: 0, keep: Keep::Inputs, together: false };
    let lora = config(&set);
    let takes: Vec<u64> = Site::of_each(&split)
        .into_iter()
        .map(|site| {
            let (arch, weights) = (&files.architecture, files.weights.as_deref());
            Ledger::new(&lora, arch, weights, 1, Load::most(&lora), site, least).device_bytes()
        })
        .collect();
    for (budget, resident) in [
        (format!("1GiB,{}", takes[1]), [u64::MAX, 0]),
        (format!("{},1GiB", takes[0]), [0, u64::MAX]),
        (format!("{},{}", takes[0], takes[1]), [0, 0]),
    ] {
        let config = config(&[&set[..], &[("run.device_memory", &budget)]].concat());
        let sites = Site::of_each(&split);
        let executions = Execution::plan_each(
            &config,
            &files.architecture,
            files.weights.as_deref(),
            1,
            Load::most(&config),
            &sites,
        );
        assert_eq!(executions.iter().map(|one| one.resident).collect::<Vec<_>>(), resident, "{budget}");
        assert!(executions.iter().all(|one| one.keep == Keep::Inputs && !one.together), "{executions:?}");
        assert_eq!(trained(&config, &files, &split).0, want, "{budget}");
    }
    // Where one device has no room to keep everything, none keeps it.
    let auto = config(
        &[&set[..], &[("run.recompute", "auto"), ("run.device_memory", &format!("1GiB,{}", takes[1]))]].concat(),
    );
    let sites = Site::of_each(&split);
    let executions =
        Execution::plan_each(&auto, &files.architecture, files.weights.as_deref(), 1, Load::most(&auto), &sites);
    assert_eq!([executions[0].keep, executions[1].keep], [Keep::Inputs; 2]);
    assert_eq!(trained(&auto, &files, &split).0, want);
    let short = config(&[&set[..], &[("run.device_memory", "1GiB,4KiB")]].concat());
    let refused = start(&short, &files, &split).err().expect("it does not fit").to_string();
    assert!(refused.contains("device_memory: 4 KiB are less than") && refused.contains("on CPU"), "{refused}");
}

#[test]
fn blocks_are_shared_by_what_each_device_would_hold_and_has() {
    let (gpu, cpu) = (devices::gpu(), Device::cpu());
    let files = files(false, false);
    let both = Devices::new(vec![gpu.clone(), cpu.clone()]).unwrap();
    let counts = |set: &[(&str, &str)], memory: [Option<u64>; 2]| {
        let placement = placement(&config(set), &files, &both, &memory).unwrap();
        placement.stages().iter().map(|stage| stage.blocks.len()).collect::<Vec<_>>()
    };
    // Where one does not tell, as if all had the same.
    assert_eq!(counts(&[], [None, Some(1 << 40)]), counts(&[], [Some(1), Some(1)]));
    assert_eq!(counts(&[], [Some(1 << 40), Some(1)]), [5, 1]);
    assert_eq!(counts(&[], [Some(1), Some(1 << 40)]), [1, 5]);
    // What was said comes before what devices tell.
    assert_eq!(counts(&[("run.device_memory", "1GiB,64GiB")], [Some(1 << 40), Some(1)]), [1, 5]);
    let of_model = placement_of_model(&files, temper_engine::models::Hold::Auto, &both, &[None, None]).unwrap();
    assert_eq!(of_model.stages().len(), 2);
    // The parts together hold what a whole model holds, and what is made on the way on either.
    let lora = config(&[]);
    let ledger = |site| {
        let keep = Execution::resident(Keep::Everything);
        Ledger::new(&lora, &files.architecture, files.weights.as_deref(), 1, Load::most(&lora), site, keep)
    };
    let weights = |ledger: &Ledger| ledger.moments[0].device.of(temper_engine::running::Kind::Weights);
    let whole = ledger(Site::of(&cpu));
    let parts: Vec<Ledger> = Site::of_each(&on(&[&cpu, &cpu], &[3, 3])).into_iter().map(ledger).collect();
    assert_eq!(parts.iter().map(weights).sum::<u64>(), weights(&whole));
    assert!(parts.iter().all(|part| part.device_bytes() < whole.device_bytes()));
    assert_eq!(parts.len(), 2);
}

#[test]
fn what_cannot_be_split_is_refused_with_its_reason() {
    let (gpu, cpu) = (devices::gpu(), Device::cpu());
    let both = Devices::new(vec![gpu.clone(), cpu.clone()]).unwrap();
    let tied = files(true, false);
    let refused = |config: &Config, files: &ModelFiles, devices: &Devices| {
        let error = placement(config, files, devices, &[None; 7]).err().expect("no such placement");
        assert!(error.is_bad_input());
        error.to_string()
    };
    let full = config(&[("adapter.kind", "none")]);
    let error = refused(&full, &tied, &both);
    assert!(error.contains("head is its embedding") && error.contains("adapter"), "{error}");
    // Nor does a face get round it.
    let error = start(&full, &tied, &on(&[&gpu, &cpu], &[2, 4])).err().expect("two copies would be trained");
    assert!(error.to_string().contains("head is its embedding"), "{error}");
    let one = config(&[("run.device_memory", "8GiB")]);
    let error = refused(&one, &tied, &both);
    assert!(error.contains("1 amount of memory for 2 devices") && error.contains("8GiB,8GiB"), "{error}");
    let six = Devices::new(vec![cpu; 7]).unwrap();
    let error = refused(&config(&[]), &tied, &six);
    assert!(error.contains("blocks (6) than there are devices (7"), "{error}");
}
