//! A run of one or several learners: what the command drives and the page shows, tested where it can be compared with
//! training step by step.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use temper_conformance::compare::close;
use temper_conformance::golden::GoldenFolder;
use temper_conformance::runs::documents;
use temper_conformance::{devices, models};
use temper_engine::events::{Evaluated, Phase, Selected, StepMetrics, StepRows};
use temper_engine::host::{Bytes, Clock, Folder, MemoryFolder};
use temper_engine::inside::model::{load, open};
use temper_engine::inside::train::optimiser::Clipping;
use temper_engine::inside::train::prepare;
use temper_engine::models::fabricated::{FORMATS, Shape, fabricate};
use temper_engine::models::{Architecture, Recipe};
use temper_engine::reading::Loader;
use temper_engine::running::{
    About, Checkpoint, Digest, Execution, Keep, Ledger, Load, NamedFile, Site, without_result,
};
use temper_engine::{
    Checkpoints, Config, Device, Document, Error, Event, Host, Learner, ModelFiles, Objective, Run, Sets, perplexity,
    wait,
};

/// A face that shows rows, and keeps checkpoints where there is a place for them. Time does not matter here.
#[derive(Default)]
struct Watcher {
    kept: Option<Kept>,
    stop: bool,
    /// What runs keep for those that go on with them.
    files: BTreeMap<String, Vec<u8>>,
    /// Wants to stop once it was asked so often whether it does.
    patience: Option<Cell<usize>>,
}

impl Watcher {
    fn keeping() -> Self {
        Self { kept: Some(Kept::default()), ..Self::default() }
    }

    fn pruning() -> Self {
        Self { kept: Some(Kept { prunes: true, ..Kept::default() }), ..Self::default() }
    }

    /// The files of its checkpoint of a step.
    fn checkpoint(&self, step: u64) -> Vec<NamedFile> {
        self.kept.as_ref().unwrap().all[&step].clone()
    }
}

fn folder(files: &[NamedFile]) -> MemoryFolder {
    let mut folder = MemoryFolder::new();
    files.iter().for_each(|(name, bytes)| folder.insert(name, bytes.clone()).unwrap());
    folder
}

#[derive(Default)]
struct Kept {
    all: BTreeMap<u64, Vec<NamedFile>>,
    /// Which were said to be asked for, in the order in which that was said.
    stays: Vec<u64>,
    /// The newest is kept, and what stays; nothing else.
    prunes: bool,
}

impl Checkpoints for Kept {
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> temper_engine::Result<String> {
        self.all.insert(step, wait(checkpoint.in_memory())?);
        if self.prunes {
            self.all.retain(|other, _| *other == step || self.stays.last() == Some(other));
        }
        Ok(format!("step-{step}"))
    }

    fn stays(&mut self, step: u64) {
        self.stays.push(step);
    }

    fn open(&mut self, step: u64) -> temper_engine::Result<Box<dyn Folder>> {
        match self.all.get(&step) {
            Some(files) => Ok(Box::new(folder(files))),
            None => Err(Error::Missing { path: format!("step-{step}"), problem: "is gone".into() }),
        }
    }
}

impl Clock for Watcher {
    fn seconds(&self) -> f64 {
        0.0
    }
}

impl Host for Watcher {
    fn checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        self.kept.as_mut().map(|kept| kept as &mut dyn Checkpoints)
    }

    fn recall(&mut self, name: &str) -> temper_engine::Result<Option<Vec<u8>>> {
        Ok(self.files.get(name).cloned())
    }

    fn keep(&mut self, name: &str, bytes: &[u8]) -> temper_engine::Result<()> {
        self.files.insert(name.into(), bytes.to_vec());
        Ok(())
    }

    fn shows_rows(&self) -> bool {
        true
    }

    fn peak_bytes(&self) -> u64 {
        0
    }

    fn stop_requested(&self) -> bool {
        let left = self.patience.as_ref().map(|left| left.replace(left.get().saturating_sub(1)));
        self.stop || left == Some(0)
    }
}

fn config(set: &[(&str, &str)]) -> Config {
    let text = "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n[adapter]\nkind = \"none\"\n[optim]\nlearning_rate = 1e-3\n\
                [run]\nsteps = 6\nbatch_tokens = 48\naccumulation = 1\n";
    let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::parse(text, "run", &set).unwrap()
}

fn pair(more: &[(&str, &str)]) -> Vec<Config> {
    ["sft", "eaft"].map(|method| config(&[&[("objective.method", method)], more].concat())).to_vec()
}

fn try_run(device: &Device, configs: Vec<Config>, documents: Vec<Document>, sets: Sets) -> Result<Run, Error> {
    let base = models::tiny("llama", device, true);
    let learner = |config: Config| Learner::new(config.clone(), &config.objective()?, base.clone(), KEPT);
    let learners = configs.into_iter().map(learner).collect::<Result<_, _>>()?;
    Run::new(learners, documents, Arc::new(sets), About::default())
}

fn run(device: &Device, configs: Vec<Config>) -> Run {
    try_run(device, configs, documents(), Sets::default()).unwrap()
}

/// What a run tells of one step.
struct Lap {
    metrics: Vec<StepMetrics>,
    rows: StepRows,
}

fn lap(run: &mut Run) -> Lap {
    let mut metrics = Vec::new();
    loop {
        match wait(run.next(&mut Watcher::default())).unwrap().expect("the run is not over") {
            Event::Step { learners } => metrics = learners,
            Event::Rows(rows) => return Lap { metrics, rows },
            _ => {}
        }
    }
}

fn losses(lap: &Lap) -> Vec<f64> {
    lap.metrics.iter().map(|metrics| metrics.loss).collect()
}

/// All events, by name and step.
fn told(run: &mut Run, host: &mut Watcher) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(event) = wait(run.next(host)).unwrap() {
        names.push(match event {
            Event::Started { learners } => format!("started {}", learners[0].step),
            Event::Step { learners } => format!("step {}", learners[0].step),
            Event::Rows(rows) => format!("rows {}", rows.step),
            Event::Evaluated { learners } => format!("evaluated {:?} {}", learners[0].phase, learners[0].step),
            Event::Landscape { phase, .. } => format!("landscape {phase:?}"),
            Event::Saved { step, path } => format!("saved {step} {path}"),
            Event::Selected(selected) => format!("selected {} of {}", selected.step, selected.of),
            Event::Warning { message } => message,
            Event::Finished(finished) => format!("finished {} {}", finished.step, finished.interrupted),
        });
    }
    names
}

fn logits(run: &mut Run, learner: usize) -> Vec<f32> {
    wait(run.learners_mut()[learner].model().logits(&[1, 2, 3])).unwrap()
}

#[test]
fn each_learner_of_a_run_trains_as_if_it_were_alone() {
    for device in devices::all() {
        let mut run = run(&device, pair(&[]));
        let together: Vec<Vec<f64>> = (0..3).map(|_| losses(&lap(&mut run))).collect();
        for (learner, config) in pair(&[]).iter().enumerate() {
            let base = models::tiny("llama", &device, true);
            let mut session = prepare::session(config, &config.objective().unwrap(), base, KEPT).unwrap();
            let mut loader = Loader::new("t", documents(), config.run.seed).unwrap();
            let plan = prepare::plan(config, &loader).unwrap();
            for (step, together) in together.iter().enumerate() {
                let batches = loader.next_step(plan.batch_tokens, plan.accumulation, plan.packing).unwrap();
                let alone = wait(session.step(&batches, plan.schedule.at(step as u64))).unwrap().loss;
                assert_eq!(alone, together[learner], "step {step} of learner {learner} on {}", device.name());
            }
        }
    }
}

#[test]
fn the_base_stays_what_it_was_while_its_learners_share_its_memory() {
    for device in devices::all() {
        let mut base = models::tiny("llama", &device, true);
        let before = wait(base.logits(&[1, 2, 3])).unwrap();
        let learner =
            |config: Config| Learner::new(config.clone(), &config.objective().unwrap(), base.clone(), KEPT).unwrap();
        let learners = pair(&[]).into_iter().map(learner).collect();
        let mut run = Run::new(learners, documents(), Arc::default(), About::default()).unwrap();
        for _ in 0..3 {
            lap(&mut run);
        }
        assert_eq!(wait(base.logits(&[1, 2, 3])).unwrap(), before, "{}", device.name());
        let [left, right] = [0, 1].map(|learner| logits(&mut run, learner));
        assert!(left != before && right != before && left != right, "{}", device.name());
    }
}

#[test]
fn a_place_names_the_token_that_its_row_was_scored_on() {
    let mut run = run(&Device::cpu(), pair(&[]));
    let documents = documents();
    for _ in 0..4 {
        let Lap { rows, .. } = lap(&mut run);
        assert_eq!(rows.places.len(), rows.learners[0].stats.len());
        assert!(!rows.places.is_empty());
        for place in &rows.places {
            let document = &documents[place.document as usize];
            assert!(place.position > 0 && document.trained[place.position as usize], "{place:?}");
        }
    }
}

#[test]
fn a_restored_run_goes_on_to_the_bit() {
    let mut run = run(&Device::cpu(), pair(&[]));
    lap(&mut run);
    lap(&mut run);
    let saved = wait(run.bundle("a note")).unwrap();
    let on: Vec<_> = (0..2).map(|_| losses(&lap(&mut run))).collect();
    assert_eq!(Run::note(&saved).unwrap(), "a note");
    let mut again = self::run(&Device::cpu(), pair(&[]));
    again.restore(&saved).unwrap();
    assert_eq!(again.steps(), (6, 2));
    assert_eq!((0..2).map(|_| losses(&lap(&mut again))).collect::<Vec<_>>(), on);
}

#[test]
fn a_saved_run_that_does_not_fit_or_is_broken_is_refused() {
    let saved = wait(run(&Device::cpu(), pair(&[])).bundle("")).unwrap();
    for cut in [0, 1, 8, 100, saved.len() / 2, saved.len() - 1] {
        assert!(Run::note(&saved[..cut]).is_err(), "{cut} bytes");
        assert!(run(&Device::cpu(), pair(&[])).restore(&saved[..cut]).is_err(), "{cut} bytes");
    }
    let alone = run(&Device::cpu(), pair(&[])[..1].to_vec()).restore(&saved).unwrap_err().to_string();
    assert!(alone.contains("has 2 learners, and this race 1"), "{alone}");
    let mut other = documents();
    other[0].tokens[1] += 1;
    let mut other = try_run(&Device::cpu(), pair(&[]), other, Sets::default()).unwrap();
    let problem = other.restore(&saved).unwrap_err().to_string();
    assert!(problem.contains("other training data"), "{problem}");
}

#[test]
fn objectives_and_rates_change_between_steps_and_anything_else_needs_a_new_run() {
    let mut run = run(&Device::cpu(), pair(&[]));
    lap(&mut run);
    let both_sft = vec![config(&[("objective.method", "sft"), ("optim.learning_rate", "5e-4")]); 2];
    run.change(both_sft).unwrap();
    let lap = lap(&mut run);
    assert!(lap.metrics.iter().all(|metrics| metrics.gate_mean == 1.0), "both are SFT now");
    assert!(lap.metrics[0].learning_rate <= 5e-4);
    let refused = run.change(pair(&[("run.steps", "7")])).unwrap_err();
    assert!(matches!(&refused, Error::Config { .. }) && refused.to_string().contains("reset"), "{refused}");
    let unequal = vec![config(&[]), config(&[("run.seed", "1")])];
    let refused = try_run(&Device::cpu(), unequal, documents(), Sets::default()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("[objective] only"), "{refused}");
}

#[test]
fn a_run_ends_with_its_last_step() {
    let mut run = run(&Device::cpu(), pair(&[("run.steps", "2")]));
    lap(&mut run);
    lap(&mut run);
    let finished = wait(run.next(&mut Watcher::default())).unwrap();
    assert!(matches!(finished, Some(Event::Finished(finished)) if finished.step == 2 && !finished.interrupted));
    for _ in 0..2 {
        assert!(wait(run.next(&mut Watcher::default())).unwrap().is_none());
    }
    assert_eq!(run.steps(), (2, 2));
}

fn sets() -> Sets {
    let documents = documents();
    let part = |range: std::ops::Range<usize>| documents[range].to_vec();
    Sets { target: part(0..2), general: part(2..4), wrong: part(1..3), landscape: part(4..documents.len()) }
}

/// All in memory, and nothing computed twice.
const KEPT: Execution = Execution { resident: u64::MAX, keep: Keep::Everything, together: false };

const EVERY: [(&str, &str); 4] =
    [("run.steps", "5"), ("run.log_every", "2"), ("run.save_every", "3"), ("run.eval_every", "2")];

#[test]
fn one_learner_and_two_tell_the_same_events_in_the_same_order() {
    let want = [
        "started 0",
        "evaluated Before 0",
        "landscape Before",
        "step 1",
        "rows 1",
        "step 2",
        "rows 2",
        "evaluated During 2",
        "saved 3 step-3",
        "step 4",
        "rows 4",
        "evaluated During 4",
        "step 5",
        "rows 5",
        "saved 5 step-5",
        "evaluated After 5",
        "landscape After",
        "finished 5 false",
    ];
    for learners in [1, 2] {
        let configs = pair(&EVERY)[..learners].to_vec();
        let mut host = Watcher::keeping();
        let mut run = try_run(&Device::cpu(), configs.clone(), documents(), sets()).unwrap();
        assert_eq!(told(&mut run, &mut host), want, "{learners} learners");

        // A host that keeps no checkpoints is told of none, and a start that was measured is not measured again.
        let mut run = try_run(&Device::cpu(), configs, documents(), sets()).unwrap().without_start();
        let more = |name: &&&str| !name.contains("Before") && !name.starts_with("saved");
        let want: Vec<&str> = want.iter().filter(more).copied().collect();
        assert_eq!(told(&mut run, &mut Watcher::default()), want, "{learners} learners");
    }
}

#[test]
fn a_run_that_is_told_to_stop_saves_and_goes_on_from_there_to_the_bit() {
    let configs = || pair(&EVERY)[1..].to_vec();
    let whole = &mut try_run(&Device::cpu(), configs(), documents(), sets()).unwrap();
    told(whole, &mut Watcher::default());

    let mut host = Watcher::keeping();
    let mut stopped = try_run(&Device::cpu(), configs(), documents(), sets()).unwrap();
    while stopped.steps().1 < 4 {
        wait(stopped.next(&mut host)).unwrap();
    }
    host.stop = true;
    let rest = told(&mut stopped, &mut host);
    assert_eq!(rest, ["rows 4", "saved 4 step-4", "finished 4 true"], "what was to be measured can wait");

    let folder = folder(&host.checkpoint(4));
    let mut resumed = try_run(&Device::cpu(), configs(), documents(), sets()).unwrap();
    resumed.resume(&folder).unwrap();
    let mut host = Watcher::keeping();
    let on = told(&mut resumed, &mut host);
    let want = [
        "started 4",
        "evaluated During 4",
        "step 5",
        "rows 5",
        "saved 5 step-5",
        "evaluated After 5",
        "landscape After",
    ];
    assert_eq!(on[..7], want);
    assert_eq!(logits(&mut resumed, 0), logits(whole, 0));
    let refused = run(&Device::cpu(), pair(&EVERY)).resume(&folder).unwrap_err().to_string();
    assert!(refused.contains("this run has 2"), "{refused}");
}

/// One learner with an adapter that sees every set.
fn alone(more: &[(&str, &str)]) -> Result<Run, Error> {
    let set = [&EVERY[..], &[("adapter.kind", "lora"), ("adapter.rank", "4")], more].concat();
    try_run(&Device::cpu(), vec![config(&set)], documents(), sets())
}

/// All that a run measures, by its phase and step.
fn measured(run: &mut Run, host: &mut Watcher) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    while let Some(event) = wait(run.next(host)).unwrap() {
        match event {
            Event::Evaluated { learners } => {
                all.insert(format!("{:?} {}", learners[0].phase, learners[0].step), format!("{learners:?}"))
            }
            Event::Landscape { phase, learners } => all.insert(format!("landscape {phase:?}"), format!("{learners:?}")),
            Event::Selected(selected) => all.insert("selected".into(), format!("{selected:?}")),
            _ => None,
        };
    }
    all
}

#[test]
fn an_evaluation_that_was_due_when_a_run_was_killed_is_made_when_it_goes_on() {
    let every = [("run.save_every", "2")];
    let whole = measured(&mut alone(&every).unwrap(), &mut Watcher::keeping());
    for step in [2, 4] {
        let mut host = Watcher::keeping();
        let mut killed = alone(&every).unwrap();
        let saved = |event: &Option<Event>| matches!(event, Some(Event::Saved { step: of, .. }) if *of == step);
        while !saved(&wait(killed.next(&mut host)).unwrap()) {}
        let mut resumed = alone(&every).unwrap();
        resumed.resume(&folder(&host.checkpoint(step))).unwrap();
        let found = measured(&mut resumed, &mut Watcher::keeping());
        assert_eq!(found.get(&format!("During {step}")), whole.get(&format!("During {step}")), "step {step}");
        assert!(found.iter().all(|(name, what)| whole[name] == *what), "step {step}");
    }
}

#[test]
fn a_run_stops_in_the_middle_of_any_measurement_and_leaves_it_to_whoever_goes_on() {
    let whole = &mut alone(&[]).unwrap();
    let all = measured(whole, &mut Watcher::keeping());
    let mut stopped_at = Vec::new();
    for patience in 0.. {
        let mut host = Watcher { patience: Some(Cell::new(patience)), ..Watcher::keeping() };
        let mut run = alone(&[]).unwrap();
        let mut found = measured(&mut run, &mut host);
        let (_, step) = run.steps();
        let kept = host.kept.take().unwrap().all;
        let mut resumed = alone(&[]).unwrap();
        match kept.last_key_value() {
            Some((of, files)) => {
                assert_eq!(*of, step, "the step that it stopped at is saved");
                resumed.resume(&folder(files)).unwrap();
            }
            None => {
                assert_eq!(step, 0);
                found.clear();
            }
        }
        stopped_at.push((step, found.len()));
        let over = found == all;
        found.extend(measured(&mut resumed, &mut Watcher::keeping()));
        assert_eq!(found, all, "stopped when asked for the {patience}. time");
        assert_eq!(logits(&mut resumed, 0), logits(whole, 0));
        if over {
            break;
        }
    }
    // Before the first step, between two, and after the last one, before all was measured there.
    for moment in [(0, 0), (2, 2), (4, 3), (5, 4), (5, 5), (5, 6)] {
        assert!(stopped_at.contains(&moment), "{moment:?} in {stopped_at:?}");
    }
}

/// A run that chooses its result among eight steps of a rate at which it soon gets worse again.
fn choosing(more: &[(&str, &str)]) -> Run {
    let set = [
        &[("data.target", "a"), ("data.general", "b"), ("run.keep_best", "true"), ("optim.schedule", "constant")][..],
        &[("optim.warmup_ratio", "0"), ("optim.learning_rate", "0.02"), ("run.steps", "8"), ("run.eval_every", "1")],
        more,
    ];
    let adapter = [("adapter.kind", "lora"), ("adapter.rank", "4"), ("run.log_every", "1"), ("run.save_every", "3")];
    try_run(&Device::cpu(), vec![config(&[&adapter[..], &set.concat()].concat())], documents(), sets()).unwrap()
}

/// What a whole run measured, by step; and which step it says is its result, of how many, and why it ended.
struct Chosen {
    target: Vec<f64>,
    general: Vec<f64>,
    after: (u64, f64),
    selected: Selected,
    finished: u64,
}

fn chosen(run: &mut Run, host: &mut Watcher) -> Chosen {
    let (mut target, mut general) = (Vec::new(), Vec::new());
    let (mut after, mut selected, mut finished) = (None, None, None);
    while let Some(event) = wait(run.next(host)).unwrap() {
        match event {
            Event::Evaluated { learners } => {
                let [Evaluated { phase, step, target: Some(on_target), general: Some(on_general), .. }] = learners[..]
                else {
                    panic!("{learners:?}")
                };
                match phase {
                    Phase::After => after = Some((step, on_target.loss)),
                    _ => (target.push(on_target.loss), general.push(on_general.loss)).0,
                }
            }
            Event::Selected(event) => selected = Some(event),
            Event::Finished(event) => finished = Some(event.step),
            _ => {}
        }
    }
    Chosen { target, general, after: after.unwrap(), selected: selected.unwrap(), finished: finished.unwrap() }
}

/// Step of the lowest loss after the first step.
fn lowest(losses: &[f64]) -> usize {
    (1..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap()
}

/// What a run has learned by a step.
fn learned_by(step: u64, mut run: Run) -> Vec<f32> {
    while run.steps().1 < step {
        wait(run.next(&mut Watcher::keeping())).unwrap();
    }
    logits(&mut run, 0)
}

#[test]
fn the_best_step_is_the_result_and_its_weights_are_the_ones_of_that_step() {
    let (mut run, mut host) = (choosing(&[]), Watcher::pruning());
    let found = chosen(&mut run, &mut host);
    let best = lowest(&found.target);
    assert!((1..8).contains(&best), "nothing to choose: {:?}", found.target);
    assert_eq!(found.selected, Selected { step: best as u64, of: 8, ended: None });
    assert_eq!(found.after, (best as u64, found.target[best]));
    assert_eq!((found.target.len(), found.finished), (9, 8), "each step was measured once, and all were made");
    assert_eq!(logits(&mut run, 0), learned_by(best as u64, choosing(&[])));
    assert_eq!(host.kept.unwrap().all.keys().copied().collect::<Vec<_>>(), [best as u64, 8]);
}

#[test]
fn a_run_ends_where_it_forgets_more_than_it_may_or_learns_nothing_more() {
    let fast = [("optim.learning_rate", "0.05")];
    let whole = chosen(&mut choosing(&fast), &mut Watcher::keeping());
    let rise = |step: usize| whole.general[step] - whole.general[0];
    // The first that forgot more than any before it and than none.
    let before = |step: usize| (1..step).map(rise).fold(0.0, f64::max);
    let beyond = (2..9).find(|&step| rise(step) > before(step)).unwrap_or_else(|| panic!("{:?}", whole.general));
    let most = 0.5 * (rise(beyond) + before(beyond));
    let mut run = choosing(&[&fast[..], &[("run.forget_at_most", &*most.to_string())]].concat());
    let found = chosen(&mut run, &mut Watcher::keeping());
    let best = lowest(&whole.target[..beyond]);
    assert_eq!((found.selected.step, found.selected.of, found.finished), (best as u64, beyond as u64, beyond as u64));
    let ended = found.selected.ended.unwrap();
    assert!(ended.contains(&format!("at step {beyond} ")) && ended.contains("run.forget_at_most"), "{ended}");
    assert_eq!(logits(&mut run, 0), learned_by(best as u64, choosing(&fast)));

    let found = chosen(&mut choosing(&[&fast[..], &[("run.patience", "2")]].concat()), &mut Watcher::keeping());
    // The untouched model is the first of those that are to be beaten.
    let least = |until: usize| whole.target[..until].iter().copied().fold(f64::INFINITY, f64::min);
    let worse = |step: &usize| (step - 1..=*step).all(|s| whole.target[s] >= least(s));
    let last = (2..9).find(worse).expect("it gets worse");
    assert_eq!((found.selected.of, found.finished), (last as u64, last as u64), "{:?}", whole.target);
    assert!(found.selected.ended.unwrap().contains("run.patience is 2"));

    // A checkpoint of the step that ends it is made before it is measured, too.
    let mut none = choosing(&[("run.forget_at_most", "0"), ("optim.learning_rate", "0.5"), ("run.save_every", "1")]);
    let mut host = Watcher::keeping();
    let error = loop {
        match wait(none.next(&mut host)) {
            Ok(event) => assert!(event.is_some(), "a run without a step that may be its result has one"),
            Err(error) => break error,
        }
    };
    assert!(!error.is_bad_input() && error.to_string().contains("run.forget_at_most is 0"), "{error}");
    let kept = &host.kept.as_ref().unwrap().all;
    let of = |files: Option<&Vec<NamedFile>>| without_result(&folder(files.expect("a checkpoint"))).unwrap();
    assert!(of(kept.values().next_back()).unwrap().contains("run.forget_at_most is 0"));
    let mut host = Watcher::keeping();
    chosen(&mut choosing(&[]), &mut host);
    assert_eq!(of(host.kept.unwrap().all.values().next_back()), None);
}

#[test]
fn a_run_of_which_no_step_is_better_than_the_untouched_model_loses_patience_and_says_so() {
    let mut run = choosing(&[("run.patience", "1"), ("optim.learning_rate", "10")]);
    let (mut host, mut said, mut selected) = (Watcher::keeping(), Vec::new(), None);
    while let Some(event) = wait(run.next(&mut host)).unwrap() {
        match event {
            Event::Warning { message } => said.push(message),
            Event::Selected(event) => selected = Some(event),
            _ => {}
        }
    }
    let Selected { step, of, ended } = selected.expect("the best step is the result all the same");
    assert_eq!((step, of), (1, 1));
    assert!(ended.unwrap().contains("had not come below its lowest for 1 evaluation, and run.patience is 1"));
    let words = "no measured step has a lower target loss than the untouched model";
    assert_eq!(said.iter().filter(|message| message.contains(words)).count(), 1, "{said:?}");
}

#[test]
fn a_warm_up_that_is_longer_than_the_run_is_warned_of_before_the_first_step() {
    let text = "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n[adapter]\nkind = \"none\"\n[optim]\nwarmup_steps = 9\n\
                [run]\nsteps = 2\nbatch_tokens = 48\naccumulation = 1\n";
    let mut run = run(&Device::cpu(), vec![Config::parse(text, "run", &[]).unwrap()]);
    let told = told(&mut run, &mut Watcher::default());
    assert!(told[1].contains("optim.warmup_steps is 9 and the run has 2 steps"), "{told:?}");
}

#[test]
fn a_run_that_chooses_goes_on_from_any_moment_to_the_same_result() {
    for more in [&[][..], &[("run.patience", "2")]] {
        let whole = &mut choosing(more);
        let all = measured(whole, &mut Watcher::keeping());
        assert!(all.contains_key("selected"));
        for patience in 0.. {
            let mut host = Watcher { patience: Some(Cell::new(patience)), ..Watcher::pruning() };
            let mut run = choosing(more);
            let mut found = measured(&mut run, &mut host);
            let newest = host.kept.as_ref().unwrap().all.keys().max().copied();
            let mut resumed = choosing(more);
            match newest {
                Some(step) => resumed.resume(&folder(&host.checkpoint(step))).unwrap(),
                None => found.clear(),
            }
            let over = found == all;
            host.patience = None;
            found.extend(measured(&mut resumed, &mut host));
            assert_eq!(found, all, "stopped when asked for the {patience}. time");
            assert_eq!(logits(&mut resumed, 0), logits(whole, 0));
            if over {
                break;
            }
        }
    }
}

#[test]
fn a_run_that_chose_and_then_computes_what_is_no_number_ends_with_what_it_chose() {
    // The first steps learn; then a rate that no weight survives.
    let mut run = choosing(&[("run.forget_at_most", "1e9"), ("run.save_every", "0")]);
    let mut host = Watcher::pruning();
    while run.steps().1 < 3 || !run.is_between_steps() {
        wait(run.next(&mut host)).unwrap();
    }
    let config = run.learners()[0].config().with(&[("optim.learning_rate".into(), "1e38".into())]).unwrap();
    run.change(vec![config]).unwrap();
    let (mut selected, mut after) = (None, None);
    while let Some(event) = wait(run.next(&mut host)).unwrap() {
        match event {
            Event::Selected(event) => selected = Some(event),
            Event::Evaluated { learners } if learners[0].phase == Phase::After => after = Some(learners[0].step),
            _ => {}
        }
    }
    let selected = selected.expect("it has a result");
    assert!(selected.step <= 3 && after == Some(selected.step), "{selected:?}, {after:?}");
    assert!(selected.ended.unwrap().contains("not a finite number"));
    assert_eq!(logits(&mut run, 0), learned_by(selected.step, choosing(&[])));
}

#[test]
fn a_run_that_has_ended_takes_no_more_steps() {
    // Also where a checkpoint of its last step is made before that is measured.
    for save_every in ["1", "100"] {
        let set = [("run.patience", "1"), ("optim.learning_rate", "0.05"), ("run.save_every", save_every)];
        let mut host = Watcher::pruning();
        let ended = chosen(&mut choosing(&set), &mut host).selected;
        assert!(ended.ended.is_some());
        let mut longer = choosing(&[&set[..], &[("run.steps", "20")]].concat());
        let refused = longer.resume(&folder(&host.checkpoint(ended.of))).unwrap_err().to_string();
        assert!(refused.contains("steps: the run has ended") && refused.contains("run.patience"), "{refused}");
    }
    // One that came to its last step goes on from there, and what was best stays the best until something is better.
    let mut host = Watcher::pruning();
    let first = chosen(&mut choosing(&[]), &mut host).selected;
    let mut longer = choosing(&[("run.steps", "9")]);
    longer.resume(&folder(&host.checkpoint(8))).unwrap();
    let second = chosen(&mut longer, &mut host);
    let better = second.target[0] < chosen(&mut choosing(&[]), &mut Watcher::keeping()).target[first.step as usize];
    assert_eq!((second.selected.step, second.selected.of), (if better { 9 } else { first.step }, 9));
}

#[test]
fn a_run_that_cannot_choose_says_so_before_its_first_step() {
    let error = wait(choosing(&[]).next(&mut Watcher::default())).unwrap_err().to_string();
    assert!(error.contains("keep_best") && error.contains("checkpoints"), "{error}");
    let given = [("run.keep_best", "true"), ("data.target", "a")];
    let error = try_run(&Device::cpu(), pair(&given), documents(), sets()).err().unwrap().to_string();
    assert!(error.contains("keep_best") && error.contains("several learners"), "{error}");
    // The checkpoint of the best step was removed by somebody.
    let (mut run, mut host) = (choosing(&[]), Watcher::keeping());
    let mut problem: Option<String> = None;
    while problem.is_none() {
        match wait(run.next(&mut host)) {
            Ok(Some(Event::Saved { step, .. })) if step < 8 => drop(host.kept.as_mut().unwrap().all.remove(&step)),
            Ok(event) => assert!(event.is_some(), "it ended well"),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    assert!(problem.unwrap().contains("is gone"));
}

#[test]
fn the_wish_to_stop_is_looked_at_before_every_block_and_every_chunk_of_the_head() {
    struct Asked(Cell<usize>);
    impl perplexity::Watch for Asked {
        fn done(&mut self, _done: usize, _of: usize) {}

        fn stop(&self) -> bool {
            self.0.set(self.0.get() + 1);
            false
        }
    }
    let mut model = models::tiny("llama", &Device::cpu(), false);
    // One micro-batch of 600 scored tokens, which the head takes in chunks of 256 at most.
    let long = Document { tokens: (0..601).map(|t| t % 200).collect(), trained: vec![true; 601], line: 1 };
    let mut asked = Asked(Cell::new(0));
    wait(perplexity::rows_until(&mut model, &[long], 20, &mut asked)).unwrap().unwrap();
    assert_eq!(asked.0.get(), model.arch.layers + 3);
}

/// The files with another state, vouched for by a digest as if it had been written like that.
fn with_state(files: &[NamedFile], change: &dyn Fn(&mut serde_json::Value)) -> Vec<NamedFile> {
    let mut files = files.to_vec();
    let (_, state) = files.iter_mut().find(|(name, _)| name == "state.json").unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(state).unwrap();
    change(&mut json);
    json["state"] = Digest::default().to_string().into();
    json["state"] = Digest::of(&serde_json::to_vec(&json).unwrap()).to_string().into();
    *state = serde_json::to_vec_pretty(&json).unwrap();
    files
}

fn checkpoint() -> Vec<NamedFile> {
    let mut host = Watcher::keeping();
    told(&mut alone(&[]).unwrap(), &mut host);
    host.checkpoint(3)
}

fn refused(run: Result<Run, Error>, files: &[NamedFile]) -> String {
    let error = run.unwrap().resume(&folder(files)).unwrap_err();
    assert!(error.is_bad_input(), "{error}");
    error.to_string()
}

#[test]
fn a_checkpoint_with_any_byte_changed_cut_off_or_missing_is_refused() {
    let files = checkpoint();
    alone(&[]).unwrap().resume(&folder(&files)).unwrap();
    for (at, (name, bytes)) in files.iter().enumerate() {
        let mut other = files.clone();
        for place in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            other[at].1[place] ^= 4;
            refused(alone(&[]), &other);
            other[at].1[place] = bytes[place];
        }
        other[at].1.truncate(bytes.len() / 2);
        assert!(refused(alone(&[]), &other).contains(name), "{name}");
        other.remove(at);
        assert!(refused(alone(&[]), &other).contains(&format!("{name}: is missing")), "{name}");
    }
    // A file of another checkpoint.
    let mut host = Watcher::keeping();
    told(&mut alone(&[]).unwrap(), &mut host);
    let mut mixed = files.clone();
    mixed[1] = host.checkpoint(5)[1].clone();
    assert!(refused(alone(&[]), &mixed).contains("optimiser.safetensors: was changed"));
}

#[test]
fn a_checkpoint_of_another_run_is_refused_and_says_what_is_other() {
    let files = checkpoint();
    for (key, value, words) in [
        ("optim.learning_rate", "2e-3", "optim.learning_rate = 0.001, and now it is 0.002"),
        ("objective.method", "sft", "objective.method"),
        ("adapter.alpha", "3", "adapter.alpha"),
        ("adapter.dropout", "0.5", "adapter.dropout"),
        ("run.seed", "1", "seed"),
        ("run.steps", "4", "at step 3 of 5, and the configuration now has 4 steps"),
    ] {
        let problem = refused(alone(&[(key, value)]), &files);
        assert!(problem.contains(words), "{problem}");
    }
    // What earlier steps do not depend on may be other.
    for (key, value) in [("run.steps", "9"), ("run.log_every", "1"), ("run.keep", "7"), ("run.device", "gpu")] {
        alone(&[(key, value)]).unwrap().resume(&folder(&files)).unwrap();
    }
    let base = models::tiny("llama", &Device::cpu(), true);
    let mut other = base.clone();
    other.origin = Digest::of(b"other weights");
    let set = [&EVERY[..], &[("adapter.kind", "lora"), ("adapter.rank", "4")]].concat();
    let with = |model| {
        let config = config(&set);
        let learner = Learner::new(config.clone(), &config.objective().unwrap(), model, KEPT).unwrap();
        Run::new(vec![learner], documents(), Arc::new(sets()), About::default())
    };
    with(base).unwrap().resume(&folder(&files)).unwrap();
    assert!(refused(with(other), &files).contains("other weights"));
    assert_ne!(models::tiny("qwen2", &Device::cpu(), true).origin, models::tiny("llama", &Device::cpu(), true).origin);
}

#[test]
fn a_checkpoint_that_contradicts_itself_is_refused_even_where_its_digests_agree() {
    let files = checkpoint();
    alone(&[]).unwrap().resume(&folder(&with_state(&files, &|_| {}))).unwrap();
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let changes: [(Change, &str); 5] = [
        (&|state| state["step"] = 100.into(), "step 100 of 5"),
        (&|state| state["seed"] = 1.into(), "seed"),
        (&|state| state["version"] = 1.into(), "format 1"),
        (&|state| state["progress"]["cursor"]["index"] = 100.into(), "document 100"),
        (&|state| state["more"] = 1.into(), "more"),
    ];
    for (change, words) in changes {
        let problem = refused(alone(&[]), &with_state(&files, change));
        assert!(problem.contains(words), "{problem}");
    }
    // Without the moments of one tensor, of all, and with one too many.
    let name = "optimiser.safetensors";
    let at = files.iter().position(|(file, _)| file == name).unwrap();
    let all = safetensors::SafeTensors::deserialize(&files[at].1).unwrap().tensors();
    let rewritten = |tensors: Vec<(String, safetensors::tensor::TensorView)>| {
        let bytes = safetensors::serialize(tensors, None).unwrap();
        let digest = Digest::of(&bytes).to_string();
        let mut files = with_state(&files, &|state| state["files"][name] = digest.clone().into());
        files[at].1 = bytes;
        refused(alone(&[]), &files)
    };
    assert!(rewritten(all[1..].to_vec()).contains("not in the checkpoint"));
    assert!(rewritten(Vec::new()).contains("not in the checkpoint"));
    let more = ("more".to_string(), all[0].1.clone());
    assert!(rewritten(all.iter().cloned().chain([more]).collect()).contains("more"));
}

#[test]
fn a_saved_run_of_several_with_any_byte_changed_is_refused() {
    let mut race = run(&Device::cpu(), pair(&[]));
    lap(&mut race);
    let saved = wait(race.bundle("note")).unwrap();
    run(&Device::cpu(), pair(&[])).restore(&saved).unwrap();
    let mut other = saved.clone();
    for at in (saved.len() / 100..saved.len()).step_by(saved.len() / 25) {
        other[at] ^= 1;
        assert!(run(&Device::cpu(), pair(&[])).restore(&other).is_err(), "byte {at}");
        other[at] = saved[at];
    }
    let problem = run(&Device::cpu(), pair(&[("optim.learning_rate", "1e-4")])).restore(&saved).unwrap_err();
    assert!(problem.to_string().contains("optim.learning_rate"), "{problem}");
    // What was changed while it went on is part of it.
    let changed = || pair(&[("optim.learning_rate", "1e-4")]);
    race.change(changed()).unwrap();
    let saved = wait(race.bundle("note")).unwrap();
    run(&Device::cpu(), changed()).restore(&saved).unwrap();
    assert!(run(&Device::cpu(), pair(&[])).restore(&saved).is_err());
}

#[test]
fn a_step_that_nobody_sees_is_the_same_step_to_the_bit() {
    for device in devices::all() {
        // With clipping all is stepped at the end; without, each block as soon as its gradients are complete.
        for norm in ["1", "0"] {
            for method in ["eaft", "mile"] {
                let set = [("optim.max_grad_norm", norm), ("objective.method", method)];
                let [seen, unseen] = ["1", "100"].map(|every| {
                    let mut run = run(&device, vec![config(&[&set[..], &[("run.log_every", every)]].concat())]);
                    (told(&mut run, &mut Watcher::default()), logits(&mut run, 0))
                });
                assert_eq!(unseen.0, ["started 0", "step 1", "rows 1", "step 6", "rows 6", "finished 6 false"]);
                assert_eq!(seen.0.len(), 14);
                assert_eq!(seen.1, unseen.1, "{method}, clipped to {norm}, on {}", device.name());
            }
        }
    }
}

#[test]
fn a_step_that_nobody_sees_stops_at_the_same_number_that_is_none() {
    for norm in ["1", "0"] {
        let [seen, unseen] = ["1", "100"].map(|every| {
            let set = [("optim.max_grad_norm", norm), ("optim.learning_rate", "1e37"), ("run.log_every", every)];
            let mut run = run(&Device::cpu(), vec![config(&[&set[..], &[("optim.warmup_ratio", "0")]].concat())]);
            loop {
                match wait(run.next(&mut Watcher::default())) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the run should not end well"),
                    Err(error) => return (error.to_string(), run.steps().1),
                }
            }
        });
        assert!(seen.0.contains("not a finite number at row") && seen.0.contains("in step 2"), "{}", seen.0);
        assert_eq!(seen, unseen);
    }
}

/// A run of one learner on a tied model, all of whose weights are trained, held as the configuration says.
fn full(device: &Device, set: &[(&str, &str)]) -> Run {
    let config = config(set);
    let opened = open::open_folder(&GoldenFolder::new("tiny/llama_tied")).unwrap();
    let (arch, weights) = (&opened.architecture, &opened.weights);
    let base = load::load(arch, weights, device, config.run.storage, u64::MAX, true).unwrap();
    let way = Execution::plan(&config, arch, Some(weights.as_ref()), 1, Site::of(device));
    assert_eq!(way.together, config.optim.clipping != Clipping::Kept);
    // A tied matrix sums the head's and the embedding's gradients of all micro-batches in an order that depends on it.
    let way = Execution { together: true, ..way };
    let learner = Learner::new(config.clone(), &config.objective().unwrap(), base, way).unwrap();
    Run::new(vec![learner], documents(), Arc::default(), About::default()).unwrap()
}

/// Every step's loss and norm as bits, and what the model says at the end.
fn course(mut run: Run) -> (Vec<[u64; 2]>, Vec<f32>) {
    let steps = (0..run.steps().0 - run.steps().1)
        .map(|_| {
            let metrics = &lap(&mut run).metrics[0];
            [metrics.loss.to_bits(), metrics.gradient_norm.to_bits()]
        })
        .collect();
    (steps, logits(&mut run, 0))
}

const HELD: [[(&str, &str); 2]; 6] = [
    [("run.storage", "f32"), ("run.moments", "f32")],
    [("run.storage", "f32"), ("run.moments", "8bit")],
    [("run.storage", "bf16"), ("run.moments", "f32")],
    [("run.storage", "bf16"), ("run.moments", "8bit")],
    [("run.storage", "bf16_compensated"), ("run.moments", "f32")],
    [("run.storage", "bf16_compensated"), ("run.moments", "8bit")],
];

#[test]
fn gradients_pulled_back_twice_make_the_steps_of_kept_ones_to_the_bit() {
    for device in devices::all() {
        for recompute in ["always", "never"] {
            for accumulation in ["1", "3"] {
                // One of each is enough where a processor plays the GPU.
                if !device.is_cpu() && (recompute, accumulation) != ("never", "3") {
                    continue;
                }
                for held in [HELD[0], HELD[3]] {
                    let run = |clipping| {
                        let set = [
                            ("optim.max_grad_norm", "0.3"),
                            ("optim.clipping", clipping),
                            ("run.recompute", recompute),
                            ("run.accumulation", accumulation),
                        ];
                        course(full(&device, &[&set[..], &held].concat()))
                    };
                    let (kept, twice) = (run("kept"), run("twice"));
                    assert!(kept.0.iter().any(|[_, norm]| f64::from_bits(*norm) > 0.3), "nothing to clip");
                    assert_eq!(kept, twice, "{recompute}, {accumulation}, {held:?} on {}", device.name());
                }
            }
        }
    }
}

#[test]
fn clipping_by_the_last_norm_scales_a_step_by_the_norm_of_the_one_before() {
    for device in devices::all() {
        let config = config(&[("optim.max_grad_norm", "0.3"), ("optim.clipping", "last_norm")]);
        let session = |config: &Config| {
            let base = models::tiny("llama_tied", &device, true);
            let way = Execution { together: true, ..Execution::resident(Keep::Everything) };
            prepare::session(config, &config.objective().unwrap(), base, way).unwrap()
        };
        let (mut last, mut kept) = (session(&config), session(&config));
        kept.optimiser.clipping = Clipping::Kept;
        let mut loader = Loader::new("t", documents(), 1).unwrap();
        let mut before = None;
        for step in 0..3 {
            let batches = loader.next_step(48, 2, true).unwrap();
            // What the step before says, and of the first step its own norm, is made the limit of the other's own.
            let norm = {
                let mut look = session(&config);
                look.model = kept.model.clone();
                look.step = kept.step;
                wait(look.gradients(&batches)).unwrap().gradient_norm
            };
            let limit = 0.3 / (before.unwrap_or(norm) + 1e-6);
            kept.optimiser.max_grad_norm = limit.min(1.0) * (norm + 1e-6);
            let [found, want] = [&mut last, &mut kept].map(|s| wait(s.step(&batches, 1e-3)).unwrap().gradient_norm);
            assert!((found / want - 1.0).abs() < 1e-5, "{found} and {want}");
            before = Some(found);
            let [found, want] = [&mut last, &mut kept].map(|s| wait(s.model.logits(&[1, 2, 3])).unwrap());
            let wide: Vec<f64> = want.iter().map(|&x| x.into()).collect();
            close(&format!("step {step} on {}", device.name()), &found, &wide, 2e-5, 2e-5).unwrap();
        }
    }
}

#[test]
fn a_run_of_fewer_bits_goes_on_from_its_checkpoint_to_the_bit() {
    for device in devices::all() {
        for held in HELD {
            for clipping in ["kept", "last_norm"] {
                // As above.
                if (held != HELD[3] && clipping != "kept") || (!device.is_cpu() && held[1].1 == "f32") {
                    continue;
                }
                let set = [
                    ("optim.max_grad_norm", "0.3"),
                    ("optim.clipping", clipping),
                    ("run.save_every", "2"),
                    ("run.accumulation", "2"),
                    ("run.steps", "4"),
                ];
                let set = [&set[..], &held].concat();
                let mut host = Watcher::keeping();
                let mut whole = full(&device, &set);
                told(&mut whole, &mut host);
                let files = host.checkpoint(2);
                let mut resumed = full(&device, &set);
                resumed.resume(&folder(&files)).unwrap();
                told(&mut resumed, &mut Watcher::default());
                let what = format!("{held:?}, {clipping} on {}", device.name());
                assert_eq!(logits(&mut resumed, 0), logits(&mut whole, 0), "{what}");
                // What is written is what is held, and no byte more.
                let size = |name: &str| files.iter().find(|(file, _)| file == name).map_or(0, |(_, bytes)| bytes.len());
                let parameters = whole.learners_mut()[0].model().arch.parameter_count() as usize;
                let each = [("trained.safetensors", if held[0].1 == "bf16" { 2 } else { 4 })];
                let moments = ("optimiser.safetensors", if held[1].1 == "8bit" { 2 } else { 8 });
                for (name, bytes) in each.into_iter().chain([moments]) {
                    let (found, want) = (size(name), bytes * parameters);
                    // Vectors stay in single precision; the header names every tensor.
                    assert!(found >= want && found < want + want / 8 + 20_000, "{what}: {name} {found} for {want}");
                }
            }
        }
    }
}

#[test]
fn a_base_of_fewer_bits_stays_what_it_was_while_its_learner_is_stepped() {
    for device in devices::all() {
        for held in &HELD[3..] {
            let config = config(held);
            let opened = open::open_folder(&GoldenFolder::new("tiny/qwen2")).unwrap();
            let (arch, weights) = (&opened.architecture, &opened.weights);
            let mut base = load::load(arch, weights, &device, config.run.storage, u64::MAX, true).unwrap();
            let before = wait(base.logits(&[1, 2, 3])).unwrap();
            let learner = Learner::new(config.clone(), &config.objective().unwrap(), base.clone(), KEPT).unwrap();
            let mut run = Run::new(vec![learner], documents(), Arc::default(), About::default()).unwrap();
            lap(&mut run);
            lap(&mut run);
            assert_eq!(wait(base.logits(&[1, 2, 3])).unwrap(), before, "{held:?} on {}", device.name());
            assert_ne!(logits(&mut run, 0), before, "{held:?} on {}", device.name());
        }
    }
}

/// A tiny model learns its few documents by heart in 60 steps, however its weights and moments are held.
#[test]
fn a_run_of_fewer_bits_learns_what_one_of_single_precision_learns() {
    let last = |held: &[(&str, &str)]| {
        let set = [("run.steps", "60"), ("run.batch_tokens", "200"), ("optim.learning_rate", "3e-3")];
        let mut run = full(&Device::cpu(), &[&set[..], held].concat());
        (0..60).map(|_| losses(&lap(&mut run))[0]).collect::<Vec<f64>>()
    };
    let want = last(&HELD[0]);
    assert!(want[59] < 0.7 * want[0], "{} and then {}", want[0], want[59]);
    for held in &HELD[1..] {
        let found = last(held);
        // Of what was learned, not of what is left.
        let learned = (found[0] - found[59]) / (want[0] - want[59]);
        assert!((learned - 1.0).abs() < 0.05, "{held:?}: {learned} of what single precision learned");
    }
}

#[test]
fn a_checkpoint_of_other_storage_is_refused_and_impossible_storage_too() {
    let set = [("run.save_every", "2"), ("run.steps", "2")];
    let mut host = Watcher::keeping();
    told(&mut full(&Device::cpu(), &[&set[..], &HELD[3]].concat()), &mut host);
    for held in [HELD[0], HELD[2], HELD[5]] {
        let error = full(&Device::cpu(), &[&set[..], &held].concat()).resume(&folder(&host.checkpoint(2))).unwrap_err();
        assert!(error.is_bad_input() && error.to_string().contains("run."), "{error}");
    }
    let refused = Config::parse(
        "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n[run]\nstorage = \"bf16_compensated\"\n",
        "run.toml",
        &[],
    );
    let problem = refused.unwrap_err().to_string();
    assert!(problem.contains("an adapter trains none") && problem.contains("run.toml:6"), "{problem}");
}

#[test]
fn a_host_that_reads_no_adapter_to_go_on_from_trains_no_fresh_one_in_its_place() {
    let config = config(&[("adapter.kind", "lora"), ("adapter.from", "first")]);
    let refused = try_run(&Device::cpu(), vec![config], documents(), Sets::default()).err().unwrap();
    assert!(refused.is_bad_input() && refused.to_string().contains("from: first was not read"), "{refused}");
}

#[test]
fn the_only_step_of_a_run_trains_although_it_is_its_warm_up() {
    let mut run = run(&Device::cpu(), vec![config(&[("run.steps", "1")])]);
    let before = logits(&mut run, 0);
    let lap = lap(&mut run);
    assert!(lap.metrics[0].learning_rate > 0.0);
    assert_ne!(logits(&mut run, 0), before);
}

fn warnings(set: &[(&str, &str)], sets: Sets) -> Vec<String> {
    let mut run = try_run(&Device::cpu(), pair(set), documents(), sets).unwrap();
    let mut warnings = Vec::new();
    while let Some(event) = wait(run.next(&mut Watcher::default())).unwrap() {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    }
    warnings
}

#[test]
fn a_run_that_has_diverged_says_so_once_for_each_learner_and_one_that_learns_does_not() {
    let measured = || Sets { target: documents(), general: documents(), ..Sets::default() };
    // The tiny model's weights are random: it knows nothing, which costs ln 256 = 5.55 at the least.
    assert_eq!(warnings(&[], measured()), [""; 0]);
    for (set, on) in [(&[("run.eval_every", "1")][..], "the target set"), (&[], "its last batches")] {
        let set = [set, &[("optim.learning_rate", "10"), ("run.steps", "8")]].concat();
        let mut warnings = warnings(&set, if on.contains("target") { measured() } else { Sets::default() });
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        warnings.sort();
        for (warning, method) in warnings.iter().zip(["eaft", "sft"]) {
            assert!(warning.starts_with(method), "{warning}");
            for part in ["has diverged: after step", on, "ln 256 = 5.55", "optim.learning_rate (it is 10)"] {
                assert!(warning.contains(part), "{part} is not in {warning}");
            }
        }
    }
}

#[test]
fn a_rate_too_small_to_change_anything_is_said_at_the_start() {
    let warnings = warnings(&[("optim.learning_rate", "1e-50")], Sets::default());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("optim.learning_rate") && warnings[0].contains("1e-50"), "{warnings:?}");
}

#[test]
fn a_step_tells_the_statistics_of_its_batch_and_they_are_what_its_weights_are_of() {
    for method in ["talr", "mile"] {
        let config = config(&[("objective.method", method)]);
        let objective = config.objective().unwrap();
        let mut run = run(&Device::cpu(), vec![config]);
        let Lap { rows, .. } = lap(&mut run);
        let learner = &rows.learners[0];
        let documents: Vec<u32> = rows.places.iter().map(|place| place.document).collect();
        assert_eq!(learner.batch, objective.batch(&learner.stats, &documents, 256).unwrap());
        for (row, gate) in learner.stats.iter().zip(&learner.gates) {
            let want = objective.weight(row, &learner.batch);
            assert!((gate - want).abs() <= 1e-5 * want, "{method}: {gate} and not {want}");
        }
    }
}

/// TALR's tau is the median of the documents' mean losses; over all tokens as one document it would be their mean.
#[test]
fn a_landscape_takes_its_documents_for_the_sequences_of_its_batch() {
    let config = config(&[("objective.method", "talr")]);
    let objective: Objective = config.objective().unwrap();
    let sets = Sets { landscape: documents(), ..Sets::default() };
    let mut run = try_run(&Device::cpu(), vec![config], documents(), sets).unwrap();
    let landscape = loop {
        if let Some(Event::Landscape { phase: Phase::Before, learners }) =
            wait(run.next(&mut Watcher::default())).unwrap()
        {
            break learners.into_iter().next().unwrap();
        }
    };
    let mut model = models::tiny("llama", &Device::cpu(), true);
    let scored = wait(perplexity::rows(&mut model, &documents(), 20, &mut |_, _| {})).unwrap();
    let mut means: Vec<f32> = (0..8)
        .map(|document| {
            let own = scored.documents.iter().zip(&scored.rows).filter(|(of, _)| **of == document);
            let ces: Vec<f32> = own.map(|(_, row)| row.ce).collect();
            ces.iter().sum::<f32>() / ces.len() as f32
        })
        .collect();
    means.sort_by(f32::total_cmp);
    let median = (means[3] + means[4]) / 2.0;
    let sum = |tau: f32| scored.rows.iter().map(|row| f64::from((-row.ce / tau).exp().max(0.01))).sum::<f64>();
    let found: f64 = landscape.gate_sums.iter().sum();
    let whole = scored.rows.iter().map(|row| row.ce).sum::<f32>() / scored.rows.len() as f32;
    assert!((sum(median) - sum(whole)).abs() > 1e-3, "the two definitions have to differ here");
    assert!((found - sum(median)).abs() <= 1e-4, "{found} and not {}", sum(median));
    assert_eq!(objective.method().to_string(), "talr");
}

/// A file that counts what is read of it.
struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
    /// One bit of all that is read is another.
    changed: AtomicBool,
}

impl Bytes for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.read.fetch_add(out.len() as u64, Relaxed);
        self.bytes.read(offset, out)?;
        if let (true, Some(first)) = (self.changed.load(Relaxed), out.first_mut()) {
            *first ^= 1;
        }
        Ok(())
    }
}

impl Counted {
    fn of(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.to_vec(), read: 0.into(), changed: false.into() })
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Relaxed)
    }
}

/// A model of four blocks, quantised.
fn quantised() -> (Architecture, Vec<u8>) {
    let whole = Shape::named("qwen3-0.6b").unwrap().architecture(Some(4));
    let arch = Architecture { vocab: 300, hidden: 256, heads: 2, kv_heads: 1, intermediate: 320, ..whole };
    let format = FORMATS.into_iter().find(|format| format.name() == "Q4_0").unwrap();
    let mut bytes = Vec::new();
    fabricate(&mut bytes, &arch, format, 1).unwrap();
    (arch, bytes)
}

/// Bytes of a block's matrices in it.
const BLOCK: u64 = (256 * (256 + 2 * 128 + 256) + 3 * 256 * 320) / 32 * 18;

/// Three steps of an adapter on that model, of three micro-batches each: losses, and bytes read after loading.
fn three_steps(device: &Device, execution: Execution) -> Result<(Vec<f64>, u64), Error> {
    let file = Counted::of(&quantised().1);
    let files = ModelFiles::open_gguf(file.clone(), "model.gguf")?;
    let config = config(&[("adapter.kind", "lora"), ("run.steps", "3"), ("run.accumulation", "3")]);
    let base = prepare::base(&config, &files, device, execution)?;
    let loaded = file.bytes_read();
    assert!(loaded < 2 * file.len(), "{loaded} of {} bytes", file.len());
    let learner = Learner::new(config.clone(), &config.objective()?, base, execution)?;
    let mut run = Run::new(vec![learner], documents(), Arc::default(), About::default())?;
    let losses = (0..3).map(|_| lap(&mut run).metrics[0].loss).collect();
    Ok((losses, file.bytes_read() - loaded))
}

#[test]
fn blocks_that_are_left_in_their_file_give_the_same_losses_to_the_bit_and_travel_as_seldom_as_they_can() {
    for device in devices::all() {
        // The devices differ in how they hold what is read, not in when it is read.
        let cpu = device.is_cpu();
        let keeps = if cpu { [Keep::Everything, Keep::Inputs] } else { [Keep::Inputs, Keep::InputsOnHost] };
        let orders = if cpu { &[true, false][..] } else { &[true] };
        let (want, read) = three_steps(&device, KEPT).unwrap();
        assert_eq!(read, 0, "nothing is read twice where all fits");
        for keep in keeps {
            for &together in orders {
                // A pass goes through the four blocks and back, and finds the two at each turn in their slots: 6 blocks the
                // first time, 4 each time after it; three steps of eleven micro-batches in all make eleven passes or three.
                let passes = if together { 3 } else { 11 };
                let cases = [(u64::MAX, 0), (0, (4 * passes + 2) * BLOCK), (2 * BLOCK, 2 * BLOCK)];
                for (resident, all) in cases {
                    let execution = Execution { resident, keep, together };
                    let (found, read) = three_steps(&device, execution).unwrap();
                    let what = format!("{execution:?} on {}", device.name());
                    assert_eq!(found, want, "{what}");
                    assert!(read.abs_diff(all) <= all / 100, "{what}: {read} bytes were read, not {all}");
                }
            }
        }
    }
}

#[test]
fn a_plan_is_the_fastest_way_through_the_model_that_fits_its_budget() {
    let (arch, bytes) = quantised();
    let files = ModelFiles::open_gguf(Arc::new(bytes), "model.gguf").unwrap();
    let weights = files.weights.as_deref();
    let configured = |set: &[(&str, &str)]| {
        let own = [("adapter.kind", "lora"), ("run.accumulation", "3"), ("run.batch_tokens", "40")];
        let rank = (!set.contains(&("adapter.kind", "none"))).then_some(("adapter.rank", "2"));
        config(&[&own, rank.as_slice(), set].concat())
    };
    for device in devices::all() {
        let site = Site::of(&device);
        let takes = |execution| {
            let config = configured(&[]);
            Ledger::new(&config, &arch, weights, 1, Load::most(&config), site, execution).device_bytes()
        };
        let plan = |budget: u64, set: &[(&str, &str)]| {
            let config = configured(&[&[("run.device_memory", &*budget.to_string())], set].concat());
            Execution::plan(&config, &arch, weights, 1, site)
        };
        let inputs = Execution { keep: Keep::Inputs, ..KEPT };
        let [together, apart] = [true, false].map(|together| Execution { resident: 0, keep: Keep::Inputs, together });
        let sizes = [KEPT, inputs, together, apart].map(takes);
        assert!(sizes.is_sorted_by(|more, less| more > less), "{sizes:?} on {}", device.name());
        let [all, inputs_bytes, together_bytes, apart_bytes] = sizes;
        assert_eq!(plan(all, &[]), KEPT);
        assert_eq!(plan(all - 1, &[]), inputs);
        assert_eq!(plan(all, &[("run.recompute", "always")]), inputs);
        let some = plan(inputs_bytes - 1, &[]);
        assert_eq!(some, Execution { resident: inputs_bytes - 1 - together_bytes, ..together });
        assert!(takes(some) < inputs_bytes, "{} of {inputs_bytes}", takes(some));
        assert_eq!(plan(together_bytes, &[]), together);
        assert_eq!(plan(together_bytes - 1, &[]), Execution { resident: together_bytes - 1 - apart_bytes, ..apart });
        assert_eq!(plan(apart_bytes - 1, &[]), apart, "the least there is");
        // Half of what is there is left to others, and all of what was said is taken.
        let there =
            |memory| Execution::plan(&configured(&[]), &arch, weights, 1, Site { memory: Some(memory), ..site });
        assert_eq!([there(2 * all), there(2 * all - 2)], [KEPT, inputs]);
        // What is not as the file has it cannot be left there.
        assert_eq!(plan(apart_bytes, &[("run.storage", "q8_0")]), inputs);
        assert_eq!(plan(apart_bytes, &[("adapter.kind", "none")]), inputs);
        // The blocks' inputs wait on the host where the device's memory is its own, and they take less time than the weights
        // that would be read instead.
        if !device.is_cpu() {
            let site = Site { own_memory: true, ..site };
            let plan = |budget: u64, kind: &str| {
                let config = configured(&[("run.device_memory", &budget.to_string()), ("adapter.kind", kind)]);
                Execution::plan(&config, &arch, weights, 1, site)
            };
            let on_host = Execution { keep: Keep::InputsOnHost, ..KEPT };
            assert!(takes(on_host) < inputs_bytes);
            assert_eq!(plan(inputs_bytes - 1, "lora"), some, "a byte of the weights is read sooner");
            assert_eq!(plan(takes(on_host), "lora"), on_host);
            let least = Execution { keep: Keep::InputsOnHost, ..together };
            assert_eq!(plan(takes(least), "lora"), least, "{} and {apart_bytes}", takes(least));
            assert_eq!([plan(1 << 40, "none"), plan(1, "none")], [KEPT, on_host]);
        }

        let config = configured(&[("run.device_memory", "4KiB")]);
        let Err(Error::Config { problems }) = prepare::base(&config, &files, &device, plan(4 << 10, &[])) else {
            panic!("it does not fit")
        };
        assert!(problems[0].contains("device_memory: 4 KiB are less than the "), "{problems:?}");
    }
}

/// A model with one matrix or more in each format that llama.cpp's mix has, for a tiny shape.
fn mixed() -> Vec<u8> {
    let whole = Shape::named("qwen3-0.6b").unwrap().architecture(Some(3));
    let arch = Architecture { vocab: 300, hidden: 256, heads: 2, kv_heads: 1, intermediate: 544, ..whole };
    let mut bytes = Vec::new();
    fabricate(&mut bytes, &arch, Recipe::Q4KM, 1).unwrap();
    bytes
}

#[test]
fn a_file_of_llama_cpps_q4_k_m_mix_trains_an_adapter_as_its_values_in_single_precision_do() {
    let bytes = mixed();
    let files = ModelFiles::open_gguf(Arc::new(bytes.clone()), "mix.gguf").unwrap();
    let source = files.weights.as_ref().unwrap();
    let format = |name: &str| source.format(name).unwrap().name();
    let block = |layer: usize, module: &str| format(&format!("model.layers.{layer}.{module}.weight"));
    assert_eq!(format("model.embed_tokens.weight"), "Q6_K");
    // Of three blocks the last one has more bits; rows of 544 are no whole blocks of 256.
    assert_eq!([0, 1, 2].map(|layer| block(layer, "self_attn.v_proj")), ["Q4_K", "Q4_K", "Q6_K"]);
    assert_eq!([0, 1, 2].map(|layer| block(layer, "mlp.down_proj")), ["Q5_0", "Q5_0", "Q8_0"]);
    assert_eq!([0, 1, 2].map(|layer| block(layer, "mlp.gate_proj")), ["Q4_K"; 3]);
    assert_eq!(block(0, "input_layernorm"), "F32");
    for device in devices::all() {
        let losses = |storage: &str| -> Vec<f64> {
            let config = config(&[("adapter.kind", "lora"), ("run.storage", storage), ("run.steps", "4")]);
            let execution = Execution::resident(Keep::Everything);
            let base = prepare::base(&config, &files, &device, execution).unwrap();
            let learner = Learner::new(config.clone(), &config.objective().unwrap(), base, execution).unwrap();
            let mut run = Run::new(vec![learner], documents(), Arc::default(), About::default()).unwrap();
            (0..4).map(|_| lap(&mut run).metrics[0].loss).collect()
        };
        let (stored, single) = (losses("auto"), losses("f32"));
        for (stored, single) in stored.iter().zip(&single) {
            assert!((stored - single).abs() <= 1e-5 * single, "{stored}, expected {single} on {}", device.name());
        }
    }
}

#[test]
fn a_file_that_is_changed_or_cut_short_under_a_run_ends_it_with_its_name() {
    let (arch, bytes) = quantised();
    let file = Counted::of(&bytes);
    let files = ModelFiles::open_gguf(file.clone(), "model.gguf").unwrap();
    let config = config(&[("adapter.kind", "lora"), ("run.steps", "3")]);
    let execution = Execution { resident: 0, keep: Keep::Inputs, together: false };
    let device = Device::cpu();
    let base = prepare::base(&config, &files, &device, execution).unwrap();
    assert_eq!(base.arch, arch);
    let learner = Learner::new(config.clone(), &config.objective().unwrap(), base, execution).unwrap();
    let mut run = Run::new(vec![learner], documents(), Arc::default(), About::default()).unwrap();
    lap(&mut run);
    file.changed.store(true, Relaxed);
    let error = loop {
        match wait(run.next(&mut Watcher::default())) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the run went on with other weights"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("model.gguf") && error.contains("the file was changed under the run"), "{error}");
}

// What rows alone do not tell: shuffled gates, the untouched model, weights of samples.

/// The rows that a run of one learner tells of its first steps.
fn laps_with(run: &mut Run, host: &mut Watcher, count: usize) -> Vec<Lap> {
    let mut laps = Vec::new();
    let mut metrics = Vec::new();
    while laps.len() < count {
        match wait(run.next(host)).unwrap().expect("the run is not over") {
            Event::Step { learners } => metrics = learners,
            Event::Rows(rows) => laps.push(Lap { metrics: std::mem::take(&mut metrics), rows }),
            _ => {}
        }
    }
    laps
}

#[test]
fn a_shuffled_learner_trains_with_eafts_gates_on_other_tokens_and_a_mean_gate_with_their_mean() {
    for device in devices::all() {
        let set = |more: &[(&str, &str)]| config(&[&[("objective.method", "eaft")], more].concat());
        let mean = config(&[("objective.method", "sft"), ("objective.scale", "gate_mean")]);
        let configs = vec![set(&[]), set(&[("objective.gates", "shuffled")]), mean];
        let Lap { metrics, rows } = lap(&mut run(&device, configs));
        let [own, mixed, mean] = [0, 1, 2].map(|learner| rows.learners[learner].gates.clone());
        let sorted = |gates: &[f32]| {
            let mut gates = gates.to_vec();
            gates.sort_by(f32::total_cmp);
            gates.into_iter().map(f64::from).collect::<Vec<_>>()
        };
        // The first step begins with one model, so its gates are the same.
        let sorted_mixed: Vec<f32> = sorted(&mixed).into_iter().map(|gate| gate as f32).collect();
        close(device.name(), &sorted_mixed, &sorted(&own), 1e-6, 1e-6).unwrap();
        assert!(
            own.len() > 8 && own.iter().zip(&mixed).filter(|(a, b)| (*a - *b).abs() > 1e-4).count() > own.len() / 2
        );
        let average = own.iter().map(|&gate| f64::from(gate)).sum::<f64>() / own.len() as f64;
        assert!(mean.iter().all(|&gate| (f64::from(gate) - average).abs() <= 1e-6), "{}", device.name());
        let want = |gates: &[f32], learner: usize| {
            let rows = gates.iter().zip(&rows.learners[learner].stats);
            rows.map(|(&gate, row)| f64::from(gate) * f64::from(row.ce)).sum::<f64>() / gates.len() as f64
        };
        for (learner, gates) in [&own, &mixed, &mean].into_iter().enumerate() {
            let want = want(gates, learner);
            assert!((metrics[learner].loss - want).abs() <= 1e-5 * want, "{learner}: {} {want}", metrics[learner].loss);
        }
        // Another step, another permutation; another seed, another one too.
        let seeded = |seed: &str| {
            let mut run = run(&device, vec![set(&[("objective.gates", "shuffled"), ("run.seed", seed)])]);
            lap(&mut run).rows.learners[0].gates.clone()
        };
        assert_ne!(seeded("1"), seeded("2"));
    }
}

#[test]
fn a_divergence_is_nothing_at_first_and_what_the_loss_is_beyond_the_cross_entropy_then() {
    for device in devices::all() {
        for adapter in ["none", "lora"] {
            let of = |set: &[(&str, &str)]| {
                let dropout: &[_] = if adapter == "lora" { &[("adapter.dropout", "0.1")] } else { &[] };
                let both = [("adapter.kind", adapter), ("optim.learning_rate", "1e-3")];
                config(&[&both[..], dropout, set].concat())
            };
            let held = |kl, beta| of(&[("objective.method", "sft_kl"), ("objective.kl", kl), ("objective.beta", beta)]);
            let configs = vec![
                of(&[("objective.method", "sft")]),
                held("forward", "0"),
                held("forward", "1e4"),
                held("reverse", "1e4"),
                of(&[("objective.method", "dft")]),
                of(&[("objective.method", "asft")]),
            ];
            let mut run = run(&device, configs);
            let laps = laps_with(&mut run, &mut Watcher::default(), 5);
            let [first, last] = [&laps[0].metrics, &laps[4].metrics];
            for (with, without) in [(1, 0), (2, 0), (3, 0), (5, 4)] {
                // Dropout is drawn alike, but the untouched model has none; without dropout both are one model.
                if adapter == "none" {
                    let difference = (first[with].loss - first[without].loss).abs();
                    assert!(difference <= 1e-5, "{adapter}, learner {with}: {difference} on {}", device.name());
                }
            }
            // A factor of 0 is plain fine-tuning.
            assert!((last[1].loss - last[0].loss).abs() <= 2e-4, "{} {}", last[1].loss, last[0].loss);
            // What the loss is beyond the cross entropy is the divergence.
            assert!(last[2].loss > last[2].cross_entropy && last[3].loss > last[3].cross_entropy);
        }
    }
}

#[test]
fn flow_weighs_each_document_by_its_loss_under_the_untouched_model() {
    for device in devices::all() {
        let mut base = models::tiny("llama", &device, true);
        let mut losses = Vec::new();
        for document in documents() {
            let scored = wait(perplexity::rows(&mut base, &[document], 2, &mut |_, _| {})).unwrap();
            let sum: f64 = scored.rows.iter().map(|row| f64::from(row.ce)).sum();
            losses.push(sum / scored.rows.len() as f64);
        }
        let mut sorted = losses.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let tau = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        let (mut host, config) = (Watcher::keeping(), config(&[("objective.method", "flow")]));
        let mut run = run(&device, vec![config]);
        for lap in laps_with(&mut run, &mut host, 4) {
            let (mut got, mut want) = (Vec::new(), Vec::new());
            for (place, gate) in lap.rows.places.iter().zip(&lap.rows.learners[0].gates) {
                got.push(*gate);
                want.push((-losses[place.document as usize] / tau).exp());
            }
            assert!(!got.is_empty());
            close(device.name(), &got, &want, 1e-6, 2e-5).unwrap();
            let rows = lap.rows.learners[0].stats.iter().zip(&want);
            let loss = rows.map(|(row, weight)| f64::from(row.ce) * weight).sum::<f64>() / want.len() as f64;
            assert!((lap.metrics[0].loss - loss).abs() <= 1e-4 * loss);
        }
        assert_eq!(host.files.len(), 1, "kept once");
        assert!(run.learners()[0].session().untouched.is_none(), "given up once it was asked");
    }
}

#[test]
fn a_run_goes_on_to_the_same_bits_whatever_its_weights_come_from() {
    let device = Device::cpu();
    let sets: [&[(&str, &str)]; 6] = [
        &[("objective.method", "flow")],
        &[("objective.method", "sft_kl")],
        &[("objective.method", "asft"), ("objective.kl", "reverse"), ("adapter.kind", "lora")],
        &[("objective.method", "eaft"), ("objective.gates", "shuffled")],
        &[("objective.method", "sft"), ("objective.scale", "gate_mean")],
        &[("objective.method", "eaft"), ("objective.top_k", "adaptive")],
    ];
    for set in sets {
        let config = || config(&[set, &[("run.save_every", "3")]].concat());
        let mut host = Watcher::keeping();
        let mut whole = run(&device, vec![config()]);
        told(&mut whole, &mut host);
        let mut resumed = run(&device, vec![config()]);
        resumed.resume(&folder(&host.checkpoint(3))).unwrap();
        let mut again = Watcher { files: host.files.clone(), ..Watcher::keeping() };
        let steps = told(&mut resumed, &mut again);
        assert!(steps.contains(&"step 4".into()) && !steps.contains(&"step 3".into()), "{set:?}");
        assert_eq!(logits(&mut resumed, 0), logits(&mut whole, 0), "{set:?}");
        assert_eq!(again.checkpoint(6), host.checkpoint(6), "{set:?}");
        // Where nothing was kept the untouched model is asked again, and says the same.
        let mut without = run(&device, vec![config()]);
        without.resume(&folder(&host.checkpoint(3))).unwrap();
        told(&mut without, &mut Watcher::keeping());
        assert_eq!(logits(&mut without, 0), logits(&mut whole, 0), "{set:?}");
    }
}

#[test]
fn what_the_host_kept_of_the_samples_is_what_counts_and_a_damaged_file_is_refused() {
    let (device, config) = (Device::cpu(), || config(&[("objective.method", "flow")]));
    let mut host = Watcher::default();
    laps_with(&mut run(&device, vec![config()]), &mut host, 1);
    let (name, bytes) = host.files.pop_first().expect("the samples' losses");
    let damaged = String::from_utf8(bytes).unwrap().replacen("losses\":[", "losses\":[1.5,", 1);
    let mut host = Watcher { files: [(name.clone(), damaged.into_bytes())].into(), ..Watcher::default() };
    let mut refused = run(&device, vec![config()]);
    let error = loop {
        match wait(refused.next(&mut host)) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a damaged file was used"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains(&name) && error.contains("was altered") && error.contains("remove the file"), "{error}");
    // A stop while the samples are weighed leaves nothing, and no step is made.
    let mut host = Watcher { patience: Some(Cell::new(1)), ..Watcher::keeping() };
    let names = told(&mut run(&device, vec![config()]), &mut host);
    assert_eq!(names.last().unwrap(), "finished 0 true", "{names:?}");
    assert!(host.files.is_empty());
}

#[test]
fn an_objective_that_asks_the_untouched_model_cannot_be_changed_to_without_one() {
    let method = |method: &str| vec![config(&[("objective.method", method)])];
    let mut run = run(&Device::cpu(), method("sft"));
    lap(&mut run);
    for other in ["sft_kl", "asft", "flow"] {
        let error = run.change(method(other)).unwrap_err().to_string();
        assert!(error.contains(other) && error.contains("needs a reset"), "{error}");
    }
    run.change(method("dft")).unwrap();
    let mut held = self::run(&Device::cpu(), method("sft_kl"));
    lap(&mut held);
    held.change(method("asft")).unwrap();
    lap(&mut held);
}
