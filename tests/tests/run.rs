//! A run of one or several learners: what the command drives and the page shows, tested where it can be compared with
//! training step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use temper_conformance::{devices, models};
use temper_engine::events::{Phase, StepMetrics, StepRows};
use temper_engine::host::{Clock, MemoryFolder};
use temper_engine::inside::train::prepare;
use temper_engine::reading::Loader;
use temper_engine::running::{About, Checkpoint, NamedFile};
use temper_engine::{
    Checkpoints, Config, Device, Document, Error, Event, Host, Learner, Objective, Run, Sets, perplexity, wait,
};

/// A face that shows rows, and keeps checkpoints where there is a place for them. Time does not matter here.
#[derive(Default)]
struct Watcher {
    kept: Option<Kept>,
    stop: bool,
}

#[derive(Default)]
struct Kept(BTreeMap<u64, Vec<NamedFile>>);

impl Checkpoints for Kept {
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> temper_engine::Result<String> {
        self.0.insert(step, wait(checkpoint.in_memory())?);
        Ok(format!("step-{step}"))
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

    fn shows_rows(&self) -> bool {
        true
    }

    fn peak_bytes(&self) -> u64 {
        0
    }

    fn stop_requested(&self) -> bool {
        self.stop
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

/// Eight documents of 9 to 23 tokens, every third token untrained.
fn documents() -> Vec<Document> {
    (0..8_u32)
        .map(|i| {
            let length = 9 + 2 * i;
            let tokens = (0..length).map(|t| (i * 37 + t * 11 + t * t) % 200).collect();
            Document { tokens, trained: (0..length).map(|t| t % 3 != 1).collect(), line: i as usize + 1 }
        })
        .collect()
}

fn try_run(device: &Device, configs: Vec<Config>, documents: Vec<Document>, sets: Sets) -> Result<Run, Error> {
    let base = models::tiny("llama", device, true);
    let learner = |config: Config| Learner::new(config.clone(), &config.objective()?, base.clone());
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
            let mut session = prepare::session(config, &config.objective().unwrap(), base).unwrap();
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
            |config: Config| Learner::new(config.clone(), &config.objective().unwrap(), base.clone()).unwrap();
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
    Sets { target: documents[..2].to_vec(), general: documents[2..4].to_vec(), landscape: documents[4..].to_vec() }
}

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
        let mut host = Watcher { kept: Some(Kept::default()), stop: false };
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

    let mut host = Watcher { kept: Some(Kept::default()), stop: false };
    let mut stopped = try_run(&Device::cpu(), configs(), documents(), sets()).unwrap();
    while stopped.steps().1 < 4 {
        wait(stopped.next(&mut host)).unwrap();
    }
    host.stop = true;
    let rest = told(&mut stopped, &mut host);
    assert_eq!(rest, ["rows 4", "evaluated During 4", "saved 4 step-4", "finished 4 true"]);

    let mut folder = MemoryFolder::new();
    for (name, bytes) in host.kept.take().unwrap().0.remove(&4).unwrap() {
        folder.insert(&name, bytes).unwrap();
    }
    let mut resumed = try_run(&Device::cpu(), configs(), documents(), sets()).unwrap();
    resumed.resume(&folder).unwrap();
    let mut host = Watcher { kept: Some(Kept::default()), stop: false };
    let on = told(&mut resumed, &mut host);
    let want = ["started 4", "step 5", "rows 5", "saved 5 step-5", "evaluated After 5", "landscape After"];
    assert_eq!(on[..6], want);
    assert_eq!(logits(&mut resumed, 0), logits(whole, 0));
    let refused = run(&Device::cpu(), pair(&EVERY)).resume(&folder).unwrap_err().to_string();
    assert!(refused.contains("this run has 2"), "{refused}");
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
