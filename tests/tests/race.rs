//! Learners that start from one model: what the page shows, tested where it can be compared with training alone.

use temper_conformance::{devices, models};
use temper_engine::config::Config;
use temper_engine::data::{Document, Loader};
use temper_engine::host::Clock;
use temper_engine::train::prepare;
use temper_engine::train::race::{Lap, Race, Who};
use temper_engine::{Device, Error, wait};

/// Time does not matter here.
struct Stopped;

impl Clock for Stopped {
    fn seconds(&self) -> f64 {
        0.0
    }
}

fn config(set: &[(&str, &str)]) -> Config {
    let text = "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\n[adapter]\nkind = \"none\"\n[optim]\nlearning_rate = 1e-3\n\
                [run]\nsteps = 6\nbatch_tokens = 48\naccumulation = 1\n";
    let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::parse(text, "race", &set).unwrap()
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

fn race(device: &Device, configs: Vec<Config>) -> Race {
    Race::new(configs, models::tiny("llama", device, true), documents()).unwrap()
}

fn lap(race: &mut Race) -> Lap {
    wait(race.step(&Stopped)).unwrap().expect("the race is not over")
}

fn losses(lap: &Lap) -> Vec<f64> {
    lap.learners.iter().map(|(metrics, _)| metrics.loss).collect()
}

#[test]
fn each_learner_of_a_race_trains_as_if_it_were_alone() {
    for device in devices::all() {
        let mut race = race(&device, pair(&[]));
        let together: Vec<Vec<f64>> = (0..3).map(|_| losses(&lap(&mut race))).collect();
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
        let mut race = race(&device, pair(&[]));
        let before = wait(race.model(Who::Base).logits(&[1, 2, 3])).unwrap();
        for _ in 0..3 {
            lap(&mut race);
        }
        assert_eq!(wait(race.model(Who::Base).logits(&[1, 2, 3])).unwrap(), before, "{}", device.name());
        let [left, right] = [0, 1].map(|i| wait(race.model(Who::Learner(i)).logits(&[1, 2, 3])).unwrap());
        assert!(left != before && right != before && left != right, "{}", device.name());
    }
}

#[test]
fn a_place_names_the_token_that_its_row_was_scored_on() {
    let mut race = race(&Device::cpu(), pair(&[]));
    let documents = documents();
    for _ in 0..4 {
        let lap = lap(&mut race);
        assert_eq!(lap.places.len(), lap.learners[0].1.rows.len());
        assert!(!lap.places.is_empty());
        for place in &lap.places {
            let document = &documents[place.document as usize];
            assert!(place.position > 0 && document.trained[place.position as usize], "{place:?}");
        }
    }
}

#[test]
fn a_restored_race_goes_on_to_the_bit() {
    let mut race = race(&Device::cpu(), pair(&[]));
    lap(&mut race);
    lap(&mut race);
    let saved = wait(race.save("a note")).unwrap();
    let on: Vec<_> = (0..2).map(|_| losses(&lap(&mut race))).collect();
    assert_eq!(Race::note(&saved).unwrap(), "a note");
    let mut again = self::race(&Device::cpu(), pair(&[]));
    again.restore(&saved).unwrap();
    assert_eq!(again.steps(), (6, 2));
    assert_eq!((0..2).map(|_| losses(&lap(&mut again))).collect::<Vec<_>>(), on);
}

#[test]
fn a_saved_race_that_does_not_fit_or_is_broken_is_refused() {
    let saved = wait(race(&Device::cpu(), pair(&[])).save("")).unwrap();
    for cut in [0, 1, 8, 100, saved.len() / 2, saved.len() - 1] {
        assert!(Race::note(&saved[..cut]).is_err(), "{cut} bytes");
        assert!(race(&Device::cpu(), pair(&[])).restore(&saved[..cut]).is_err(), "{cut} bytes");
    }
    let alone = race(&Device::cpu(), pair(&[])[..1].to_vec()).restore(&saved).unwrap_err().to_string();
    assert!(alone.contains("has 2 learners, and this race 1"), "{alone}");
    let mut other = documents();
    other[0].tokens[1] += 1;
    let mut other = Race::new(pair(&[]), models::tiny("llama", &Device::cpu(), true), other).unwrap();
    let problem = other.restore(&saved).unwrap_err().to_string();
    assert!(problem.contains("other training data"), "{problem}");
}

#[test]
fn objectives_and_rates_change_between_steps_and_anything_else_needs_a_new_race() {
    let mut race = race(&Device::cpu(), pair(&[]));
    lap(&mut race);
    let both_sft = vec![config(&[("objective.method", "sft"), ("optim.learning_rate", "5e-4")]); 2];
    race.change(both_sft).unwrap();
    let lap = lap(&mut race);
    assert!(lap.learners.iter().all(|(metrics, _)| metrics.gate_mean == 1.0), "both are SFT now");
    assert!(lap.learners[0].0.learning_rate <= 5e-4);
    let refused = race.change(pair(&[("run.steps", "7")])).unwrap_err();
    assert!(matches!(&refused, Error::Config { .. }) && refused.to_string().contains("reset"), "{refused}");
    let unequal = vec![config(&[]), config(&[("run.seed", "1")])];
    let refused = Race::new(unequal, models::tiny("llama", &Device::cpu(), true), documents()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("[objective] only"), "{refused}");
}

#[test]
fn a_race_ends_with_its_last_step() {
    let mut race = race(&Device::cpu(), pair(&[("run.steps", "2")]));
    lap(&mut race);
    lap(&mut race);
    assert!(wait(race.step(&Stopped)).unwrap().is_none());
    assert_eq!(race.steps(), (2, 2));
}
