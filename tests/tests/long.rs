//! Documents of up to 16,384 tokens on the CPU: packed or not, saved and resumed, measured, and what they hold.
//!
//! Run with `cargo test --release -p temper-conformance --test long`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use temper_engine::events::StepMetrics;
use temper_engine::host::{Clock, Folder, MemoryFolder};
use temper_engine::inside::model::block::Activations;
use temper_engine::inside::train::prepare;
use temper_engine::models::fabricated::Shape;
use temper_engine::models::{Architecture, SpecialTokens};
use temper_engine::running::{About, Checkpoint, Execution, Ledger, Load, NamedFile, Site};
use temper_engine::{
    Checkpoints, Config, Device, Document, Evaluation, Event, Host, Learner, ModelFiles, Run, Sets, wait,
};

/// Counts what is allocated, and the most that was at once.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time, since the count is of all.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const LONG: usize = 16_384;

#[derive(Default)]
struct Keeper(Option<BTreeMap<u64, Vec<NamedFile>>>);

impl Clock for Keeper {
    fn seconds(&self) -> f64 {
        0.0
    }
}

impl Checkpoints for Keeper {
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> temper_engine::Result<String> {
        let files = wait(checkpoint.in_memory())?;
        self.0.get_or_insert_default().insert(step, files);
        Ok(format!("step-{step}"))
    }

    fn stays(&mut self, _step: u64) {}

    fn open(&mut self, step: u64) -> temper_engine::Result<Box<dyn Folder>> {
        unreachable!("no run of this test chooses its result, as of step {step}")
    }
}

impl Host for Keeper {
    fn checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        self.0.is_some().then_some(self as &mut dyn Checkpoints)
    }

    fn peak_bytes(&self) -> u64 {
        0
    }
}

fn architecture() -> Architecture {
    let config = r#"{"model_type": "llama", "vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 4096,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}"#;
    let arch = Architecture::from_config_json(config.as_bytes(), "config.json").unwrap();
    assert_eq!(arch.context, LONG);
    arch
}

fn config(set: &[(&str, &str)]) -> Config {
    let text = "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\ncutoff_length = 16384\n[adapter]\nkind = \"none\"\n\
                [objective]\nmethod = \"sft\"\n[optim]\nlearning_rate = 1e-3\n\
                [run]\nsteps = 1\nbatch_tokens = 16384\naccumulation = 1\n";
    let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::parse(text, "run", &set).unwrap()
}

/// Documents of these lengths, every third token untrained.
fn documents(lengths: &[usize]) -> Vec<Document> {
    let document = |(line, &length): (usize, &usize)| {
        let token = |t: usize| ((line * 37 + t * 11 + t * t / 7) % 251) as u32;
        Document {
            tokens: (0..length).map(token).collect(),
            trained: (0..length).map(|t| t % 3 != 1).collect(),
            line: line + 1,
        }
    };
    lengths.iter().enumerate().map(document).collect()
}

fn run(set: &[(&str, &str)], train: Vec<Document>, sets: Sets) -> Run {
    let config = config(set);
    let files = ModelFiles::random(architecture(), SpecialTokens::default(), &MemoryFolder::new()).unwrap();
    let execution = Execution::plan(&config, &files.architecture, None, 1, Site::of(&Device::cpu()));
    let base = prepare::base(&config, &files, &Device::cpu(), execution).unwrap();
    let learner = Learner::new(config.clone(), &config.objective().unwrap(), base, execution).unwrap();
    Run::new(vec![learner], train, Arc::new(sets), About::default()).unwrap()
}

/// Steps and evaluations (of the target) to the end.
fn to_the_end(run: &mut Run, host: &mut Keeper) -> (Vec<StepMetrics>, Vec<Evaluation>) {
    let (mut steps, mut measured) = (Vec::new(), Vec::new());
    while let Some(event) = wait(run.next(host)).unwrap() {
        match event {
            Event::Step { learners } => steps.extend(learners),
            Event::Evaluated { learners } => measured.extend(learners.into_iter().filter_map(|one| one.target)),
            _ => {}
        }
    }
    (steps, measured)
}

#[test]
fn a_step_of_16384_tokens_is_the_same_packed_and_unpacked() {
    let _one = alone();
    let step = |lengths: &[usize], packing: &str| {
        let mut run = run(&[("data.packing", packing)], documents(lengths), Sets::default());
        to_the_end(&mut run, &mut Keeper::default()).0.remove(0)
    };
    // One document is one stream either way.
    let (packed, unpacked) = (step(&[LONG], "true"), step(&[LONG], "false"));
    assert_eq!((packed.loss, packed.gradient_norm), (unpacked.loss, unpacked.gradient_norm));
    assert_eq!(packed.tokens, (1..LONG).filter(|t| t % 3 != 1).count() as u64);
    // Several are the same but for the order of sums.
    let lengths = [8191, 5000, 3000, 193];
    let (packed, unpacked) = (step(&lengths, "true"), step(&lengths, "false"));
    for (packed, unpacked) in [(packed.loss, unpacked.loss), (packed.gradient_norm, unpacked.gradient_norm)] {
        assert!((packed - unpacked).abs() <= 1e-6 * unpacked, "{packed} and {unpacked}");
    }
    assert_eq!(packed.tokens, unpacked.tokens);
}

#[test]
fn a_run_on_16384_tokens_resumes_to_the_bit_and_measures_the_loss_that_it_trains() {
    let _one = alone();
    let set = [("run.steps", "2"), ("run.save_every", "1")];
    let train = documents(&[LONG, 9000, 7384]);
    let target = Sets { target: vec![train[0].clone()], ..Sets::default() };
    let mut host = Keeper(Some(BTreeMap::new()));
    let mut whole = run(&set, train.clone(), target.clone());
    let (steps, measured) = to_the_end(&mut whole, &mut host);
    assert_eq!((steps.len(), measured.len()), (2, 2));

    let mut folder = MemoryFolder::new();
    let saved = host.0.as_ref().and_then(|kept| kept.get(&1)).unwrap();
    saved.iter().for_each(|(name, bytes)| folder.insert(name, bytes.clone()).unwrap());
    let mut resumed = run(&set, train.clone(), target);
    resumed.resume(&folder).unwrap();
    let (after, again) = to_the_end(&mut resumed, &mut Keeper::default());
    assert_eq!((after.len(), after[0].loss, after[0].gradient_norm), (1, steps[1].loss, steps[1].gradient_norm));
    assert_eq!(again.last(), measured.last());

    // Before the first step the model is that of the first step: the same document has the same loss.
    let one = Sets { target: vec![train[0].clone()], ..Sets::default() };
    let (steps, measured) = to_the_end(&mut run(&[], vec![train[0].clone()], one), &mut Keeper::default());
    let (trained, measured) = (steps[0].cross_entropy, measured[0].loss);
    assert!((trained - measured).abs() <= 1e-6 * measured, "{trained} and {measured}");
}

fn planned(config: &Config, arch: &Architecture, load: Load, site: Site) -> u64 {
    Ledger::new(config, arch, None, 1, load, site, Execution::plan(config, arch, None, 1, site)).device_bytes()
}

/// Most that a run of one step of one document holds, by the allocator and by the ledger.
fn held(tokens: usize, recompute: &str) -> (usize, u64) {
    let set = [("run.recompute", recompute)];
    let train = documents(&[tokens]);
    let load = Load::of(&config(&set), &train, &[]);
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    to_the_end(&mut run(&set, train, Sets::default()), &mut Keeper::default());
    let most = MOST.load(Ordering::Relaxed) - before;
    (most, planned(&config(&set), &architecture(), load, Site::of(&Device::cpu())))
}

/// Twice the tokens may add at most this times as much: tokens to the power of 1.05.
const LINEAR: f64 = 2.071;

#[test]
fn what_a_step_holds_grows_no_faster_than_its_tokens_and_is_what_the_ledger_says() {
    let _one = alone();
    for recompute in ["never", "always"] {
        held(2048, recompute); // What threads keep is there from here on.
        let [two, four, eight] = [2048, 4096, 8192].map(|tokens| held(tokens, recompute));
        for (tokens, (counted, planned)) in [(2048, two), (4096, four), (8192, eight)] {
            let (counted, planned) = (counted as f64, planned as f64);
            // Threads' own memory was taken before, and the metrics and documents are in no ledger.
            let near = counted <= 1.06 * planned + 1e6 && counted >= 0.94 * planned - 4e6;
            assert!(near, "{tokens} tokens, {recompute}: {counted} counted and {planned} planned");
        }
        let counted = (eight.0 - four.0) as f64 / (four.0 - two.0) as f64;
        let planned = (eight.1 - four.1) as f64 / (four.1 - two.1) as f64;
        assert!(counted <= LINEAR && planned <= LINEAR, "{recompute}: counted {counted}, planned {planned}");
    }
}

#[test]
fn a_real_models_plan_grows_no_faster_than_its_tokens() {
    let arch = Shape::named("qwen3-4b").unwrap().architecture(None);
    let set = [("adapter.kind", "lora"), ("run.recompute", "always")];
    // A driver that gives out 2 GiB - 1 at once; what a block makes of so many tokens is less.
    let gpu = Site { cpu: false, max_binding_bytes: (1 << 31) - 1, ..Site::default() };
    assert!((Activations::widest_bytes_per_token(&arch) * LONG) as u64 <= gpu.max_binding_bytes);
    for site in [Site::of(&Device::cpu()), gpu] {
        let all = [2048, 4096, 8192, LONG].map(|tokens| {
            let load = Load::of(&config(&set), &documents(&[tokens]), &[]);
            planned(&config(&set), &arch, load, site)
        });
        for triple in all.windows(3) {
            let ratio = (triple[2] - triple[1]) as f64 / (triple[1] - triple[0]) as f64;
            assert!((1.0..=LINEAR).contains(&ratio), "{all:?} on {site:?}");
        }
    }
}
