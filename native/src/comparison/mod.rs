//! Runs that differ in a few settings, from one start, and what they say together.
//!
//! Place in the flow: configuration, `[compare]` and `--vary` -> [`Grid`] -> a run each, by `temper train` -> [`frontier`] ->
//! [`report`].

pub mod frontier;
pub mod made_of;
pub mod report;

use std::collections::BTreeSet;

use serde::Serialize;
use temper_engine::events::Evaluated;
use temper_engine::{Config, Error, Result};

use crate::doubts;
use crate::inputs::Start;

/// Settings as `--set` takes them.
pub type Set = Vec<(String, String)>;

const OBJECTIVE: &str = "objective.";
const SEED: &str = "run.seed";
/// A grid of more runs is a mistake.
const MOST_RUNS: usize = 10_000;
/// How often a run is measured where its configuration does not say it: a path of that many pieces.
const MEASURED: u64 = 8;

/// What is compared: an objective with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// For people and folders.
    pub name: String,
    /// Its settings.
    pub set: Set,
}

/// One run of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name of its folder.
    pub name: String,
    /// Which variant it is.
    pub variant: usize,
    /// Its seed, as it was written; empty where seeds do not differ.
    pub seed: String,
    /// What else differs, such as `optim.learning_rate=3e-4`.
    pub setting: String,
    /// All its settings.
    pub set: Set,
    /// Its whole configuration, as TOML.
    pub config: String,
}

/// What runs are compared by: the loss on what is learned, and on what is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The target set is learned and the general set kept.
    General,
    /// The labels are wrong (`data.wrong`): they are what is learned, and the truth, which is the target set, what is to be
    /// kept.
    Truth,
}

impl Measure {
    /// Of runs that share a configuration.
    fn of(base: &Config) -> Self {
        if base.data.wrong.is_some() { Self::Truth } else { Self::General }
    }

    /// What a run of this configuration would have to be given to be compared; none where it has all.
    fn lacks(self, config: &Config) -> Option<String> {
        let data = &config.data;
        let target = ("data.target (or data.hold_out)", data.target.is_some() || data.hold_out.is_some());
        let sets = match self {
            Self::General => [target, ("data.general", data.general.is_some())],
            Self::Truth => [("data.wrong", data.wrong.is_some()), target],
        };
        let missing: Vec<&str> = sets.iter().filter(|(_, given)| !given).map(|(name, _)| *name).collect();
        let are = if missing.len() == 1 { "is" } else { "are" };
        (!missing.is_empty()).then(|| {
            format!(
                "nothing could be compared: runs are compared by their loss on {} and on {}, and {} {are} not given",
                sets[0].0,
                sets[1].0,
                missing.join(" and ")
            )
        })
    }

    /// Where a run was.
    pub fn point(self, at: &Evaluated) -> Option<frontier::Point> {
        let (learned, kept) = match self {
            Self::General => (at.target?, at.general?),
            Self::Truth => (at.wrong?, at.target?),
        };
        Some(frontier::Point { step: at.step, learned: learned.loss, kept: kept.loss })
    }

    /// Name of the loss on what is learned.
    pub fn learned(self) -> &'static str {
        match self {
            Self::General => "target loss",
            Self::Truth => "loss on the wrong labels",
        }
    }

    /// Name of the loss on what is to be kept.
    pub fn kept(self) -> &'static str {
        match self {
            Self::General => "general loss",
            Self::Truth => "loss on the truth",
        }
    }

    /// What a variant did to what is to be kept: forgot less, lost more of the truth.
    pub fn lost(self, how: &str) -> String {
        match self {
            Self::General => format!("forgot {how}"),
            Self::Truth => format!("lost {how} of the truth"),
        }
    }
}

/// All runs of a comparison.
#[derive(Debug)]
pub struct Grid {
    /// What the runs share.
    pub base: Config,
    /// What they are compared by.
    pub measure: Measure,
    /// What is compared, the first one with all others.
    pub variants: Vec<Variant>,
    /// The runs: all variants of a setting and a seed follow each other, so that what is there early can be compared.
    pub points: Vec<Point>,
}

/// A setting and its values.
type Axis = (String, Vec<String>);

impl Grid {
    /// From a configuration's text, whose tables `[compare]` and `[[compare.variant]]` come last, and `--vary`.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem of the grid, or of the runs' configurations.
    pub fn of(text: &str, file: &str, overrides: &[(String, String)], vary: &[(String, String)]) -> Result<Self> {
        let (own, compare) = split(text);
        // A baseline is a variant here.
        let without = ("run.baseline".to_string(), String::new());
        let shared = [overrides, &[without]].concat();
        let mut base = Config::shared(own, file, &shared).map_err(|error| with_vary(error, overrides))?;
        if let Some(from) = &base.adapter.from {
            base = Start::open(from)?.configured(own, file, &shared)?;
        }
        let (mut axes, mut variants) = read(compare, file)?;
        // As `--set` beats the file.
        axes.retain(|(key, _)| vary.iter().all(|(varied, _)| varied != key));
        for (key, values) in vary {
            axes.push((key.clone(), values.split(',').map(|value| value.trim().to_string()).collect()));
        }
        let mut problems = Vec::new();
        for (at, (key, values)) in axes.iter().enumerate() {
            if axes[..at].iter().any(|(other, _)| other == key) {
                problems.push(format!("{key}: is varied twice"));
            }
            if values.iter().collect::<BTreeSet<_>>().len() != values.len() || values.is_empty() {
                problems.push(format!("{key}: needs values that differ"));
            }
        }
        let (of_objective, others): (Vec<Axis>, Vec<Axis>) =
            axes.into_iter().partition(|(key, _)| key.starts_with(OBJECTIVE));
        if !of_objective.is_empty() && !variants.is_empty() {
            problems
                .push(format!("{}: stands beside [[compare.variant]]; put it into the variants", of_objective[0].0));
        }
        if variants.is_empty() {
            variants = product(&of_objective).into_iter().map(|set| Variant { name: values_of(&set), set }).collect();
            if of_objective.is_empty() {
                variants[0].name = base.objective.method.to_string();
            }
        }
        for (at, variant) in variants.iter().enumerate() {
            if variants[..at].iter().any(|other| other.name == variant.name) {
                problems.push(format!("[[compare.variant]]: two are called {:?}", variant.name));
            }
        }
        let (seeds, settings): (Vec<Axis>, Vec<Axis>) = others.into_iter().partition(|(key, _)| key == SEED);
        let runs = [&seeds, &settings].into_iter().flatten().map(|(_, values)| values.len().max(1));
        let runs = runs.fold(variants.len(), usize::saturating_mul);
        if runs > MOST_RUNS {
            problems.push(format!("the comparison would be {runs} runs; at most {MOST_RUNS} are made"));
        }
        if !problems.is_empty() {
            return Err(Error::Config { problems });
        }
        // Of epochs the steps are known once the data are.
        if base.run.eval_every == 0 && base.run.evaluations == 0 {
            match base.run.steps {
                Some(steps) => base.run.eval_every = (steps / MEASURED).max(1),
                None => base.run.evaluations = MEASURED,
            }
        }
        let mut points = Vec::with_capacity(runs);
        for seed in product(&seeds) {
            for setting in product(&settings) {
                for (variant, own) in variants.iter().enumerate() {
                    let set: Set = [&own.set[..], &setting, &seed].concat();
                    let label = |set: &Set| set.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
                    // Of a path its last part.
                    let last = |text: &str, at: char| text.rsplit(at).next().unwrap_or(text).to_string();
                    let short = |(key, value): &(String, String)| format!("{}-{}", last(key, '.'), last(value, '/'));
                    let parts = std::iter::once(own.name.clone()).chain(setting.iter().chain(&seed).map(short));
                    let name = parts.collect::<Vec<_>>().join("_");
                    let name = name.replace(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)), "-");
                    let seed = seed.first().map_or(String::new(), |(_, value)| value.clone());
                    let setting = label(&setting).join(" ");
                    points.push(Point { name, variant, seed, setting, set, config: String::new() });
                }
            }
        }
        let mut grid = Self { measure: Measure::of(&base), base, variants, points };
        grid.configure()?;
        grid.refuse_unread(own, file, &shared)?;
        grid.refuse_unmeasured()?;
        Ok(grid)
    }

    /// What is to be known before anything is trained: that there is nothing to compare.
    pub fn warning(&self) -> Option<String> {
        let [one] = &self.variants[..] else { return None };
        Some(format!(
            "there is one variant, {}, and nothing to compare it with: the report shows its runs side by side; two are compared \
             with, for example, --vary objective.method=sft,eaft",
            one.name
        ))
    }

    /// Gives each run its configuration, if it can be used.
    fn configure(&mut self) -> Result<()> {
        let text = self.base.to_toml();
        let mut problems = Vec::new();
        for point in &mut self.points {
            let usable = |config: Config| -> Result<Config> {
                config.objective()?;
                doubts::refuse_measured_replay(&config)?;
                doubts::refuse_repeated_file(&config)?;
                doubts::refuse_contradictions(&config)?;
                Ok(config)
            };
            match Config::parse(&text, "the configuration", &point.set).and_then(usable) {
                Ok(config) => point.config = config.to_toml(),
                Err(Error::Config { problems: own }) => {
                    let of = called(point, &self.variants);
                    problems.extend(own.into_iter().map(|problem| format!("{of}: {problem}")));
                }
                Err(other) => return Err(other),
            }
        }
        let mut names = BTreeSet::new();
        problems.extend(self.points.iter().filter(|point| !names.insert(&point.name)).map(|point| {
            let of = called(point, &self.variants);
            format!("{of}: two runs would have this folder; give variants and values other names")
        }));
        if problems.is_empty() { Ok(()) } else { Err(Error::Config { problems }) }
    }

    /// Refuses what all runs are given and none reads.
    fn refuse_unread(&self, text: &str, file: &str, shared: &Set) -> Result<()> {
        let refused = |point: &Point| match Config::parse(text, file, &[&shared[..], &point.set].concat()) {
            Err(Error::Config { problems }) => problems,
            _ => Vec::new(),
        };
        // Of "--set section.key: why", where the reason may be another for another run.
        let key = |problem: &String| {
            problem.split_once(": ").map(|(key, _)| key.to_string()).filter(|key| key.starts_with("--set "))
        };
        let Some((first, others)) = self.points.split_first() else { return Ok(()) };
        let mut problems = refused(first);
        problems.retain(|problem| key(problem).is_some());
        for point in others {
            if problems.is_empty() {
                break;
            }
            let keys: Vec<_> = refused(point).iter().map(key).collect();
            problems.retain(|problem| keys.contains(&key(problem)));
        }
        if !others.is_empty() {
            problems.iter_mut().for_each(|problem| *problem += &format!(" (no run reads it; this is {})", first.name));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Config { problems }) }
    }

    /// Refuses runs that would not be measured on what they are compared by.
    fn refuse_unmeasured(&self) -> Result<()> {
        let mut lacking: Vec<(&Point, String)> = Vec::new();
        for point in &self.points {
            let config = Config::parse(&point.config, &point.name, &[])?;
            lacking.extend(self.measure.lacks(&config).map(|problem| (point, problem)));
        }
        let Some((_, first)) = lacking.first() else { return Ok(()) };
        let is_so_for_all = lacking.len() == self.points.len() && lacking.iter().all(|(_, other)| other == first);
        let named = |(point, problem): &(&Point, String)| format!("{}: {problem}", called(point, &self.variants));
        let problems = if is_so_for_all { vec![first.clone()] } else { lacking.iter().map(named).collect() };
        Err(Error::Config { problems })
    }
}

/// A run in a message: a variant alone is called by its own name, which may be no more than a number.
fn called(point: &Point, variants: &[Variant]) -> String {
    let what = if variants[point.variant].name == point.name { "variant" } else { "run" };
    format!("{what} {:?}", point.name)
}

/// The error, with how several values of a setting are compared where one was given several.
fn with_vary(error: Error, overrides: &[(String, String)]) -> Error {
    let advised = |problem: String| {
        let about = |(key, value): &&(String, String)| {
            value.contains(',') && problem.starts_with(&format!("--set {key}: ")) && !problem.contains("did you mean")
        };
        match overrides.iter().find(about) {
            Some((key, value)) => format!("{problem}; to compare these values use --vary {key}={value}"),
            None => problem,
        }
    };
    match error {
        Error::Config { problems } => Error::Config { problems: problems.into_iter().map(advised).collect() },
        other => other,
    }
}

/// The run's own part of a configuration, and the comparison's, which comes last.
fn split(text: &str) -> (&str, &str) {
    let begins = |line: &str| {
        let name = line.trim_start().trim_start_matches('[').trim_start();
        line.trim_start().starts_with('[')
            && name.strip_prefix("compare").is_some_and(|rest| rest.starts_with(['.', ']', ' ']))
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if begins(line) {
            return text.split_at(at);
        }
        at += line.len();
    }
    (text, "")
}

/// What is varied, and the variants, of the tables `[compare]` and `[[compare.variant]]`.
fn read(text: &str, file: &str) -> Result<(Vec<Axis>, Vec<Variant>)> {
    let refuse = |problem: String| Error::Config { problems: vec![format!("{file}: {problem}")] };
    let mut whole: toml::Table = text.parse().map_err(|error| refuse(format!("[compare]: {error}")))?;
    let compare = whole.remove("compare").unwrap_or(toml::Value::Table(toml::Table::new()));
    if let Some(other) = whole.keys().next() {
        return Err(refuse(format!("[{other}] follows [compare], which has to come last")));
    }
    let toml::Value::Table(compare) = compare else { return Err(refuse("compare has to be a table".into())) };
    let (mut axes, mut variants) = (Vec::new(), Vec::new());
    for (key, value) in compare {
        match value {
            toml::Value::Array(all) if key == "variant" => {
                for one in all {
                    variants.push(variant(one).map_err(|problem| refuse(format!("[[compare.variant]]: {problem}")))?);
                }
            }
            toml::Value::Array(values) => axes.push((key, values.iter().map(plain).collect())),
            _ => {
                let problem =
                    format!("[compare] {key}: has to be a list, as in \"optim.learning_rate\" = [1e-4, 3e-4]");
                return Err(refuse(problem));
            }
        }
    }
    Ok((axes, variants))
}

fn variant(value: toml::Value) -> std::result::Result<Variant, String> {
    let toml::Value::Table(mut table) = value else { return Err("has to be a table".into()) };
    let name = table.remove("name").ok_or("needs a name")?;
    let set = table.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
    Ok(Variant { name: plain(&name), set })
}

/// A value as it is written on a command line.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn values_of(set: &Set) -> String {
    set.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("-")
}

/// Every choice of one value of each axis; one empty choice where there is no axis.
fn product(axes: &[Axis]) -> Vec<Set> {
    axes.iter().fold(vec![Set::new()], |so_far, (key, values)| {
        let with = |set: &Set| {
            let set = set.clone();
            values.iter().map(move |value| [&set[..], &[(key.clone(), value.clone())]].concat()).collect::<Vec<_>>()
        };
        so_far.iter().flat_map(with).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "[model]\npath = \"m\"\n[data]\ntrain = \"t\"\ntarget = \"a\"\ngeneral = \"g\"\n[run]\nsteps = 40\n\
                       baseline = \"sft\"\n";

    fn grid(compare: &str, vary: &[(&str, &str)]) -> Result<Grid> {
        let vary: Vec<_> = vary.iter().map(|(key, values)| (key.to_string(), values.to_string())).collect();
        Grid::of(&format!("{RUN}{compare}"), "c.toml", &[], &vary)
    }

    fn problem(compare: &str, vary: &[(&str, &str)]) -> String {
        grid(compare, vary).expect_err(compare).to_string()
    }

    #[test]
    fn every_variant_runs_with_every_setting_and_seed() {
        let by_flag =
            grid("", &[("objective.method", "sft, eaft"), ("optim.learning_rate", "1e-4,3e-4"), ("run.seed", "1,2,3")]);
        let by_table = grid(
            "[compare]\n\"objective.method\" = [\"sft\", \"eaft\"]\n\"optim.learning_rate\" = [\"1e-4\", \"3e-4\"]\n\
             \"run.seed\" = [1, 2, 3]\n",
            &[],
        );
        let by_flag = by_flag.unwrap();
        assert_eq!(by_flag.points, by_table.unwrap().points);
        assert_eq!(by_flag.points.len(), 12);
        assert_eq!(by_flag.variants.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["sft", "eaft"]);
        let first = &by_flag.points[1];
        assert_eq!(first.name, "eaft_learning_rate-1e-4_seed-1");
        assert_eq!((first.variant, first.seed.as_str(), first.setting.as_str()), (1, "1", "optim.learning_rate=1e-4"));
        assert_eq!(first.set.len(), 3);
        // A baseline would be trained once more for each, and paths need points.
        assert_eq!((by_flag.base.run.baseline, by_flag.base.run.eval_every), (None, 5));
    }

    #[test]
    fn variants_have_names_and_any_settings_of_their_own() {
        let text = "[[compare.variant]]\nname = \"EAFT, squared\"\n\"objective.gate\" = \"power\"\n\"objective.exponent\" = 2\n\
                    [[compare.variant]]\nname = \"sft\"\n\"objective.method\" = \"sft\"\n";
        let found = grid(text, &[("run.seed", "7")]).unwrap();
        assert_eq!(
            found.points.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            ["EAFT--squared_seed-7", "sft_seed-7"]
        );
        assert_eq!(found.variants[0].set[0], ("objective.exponent".to_string(), "2".to_string()));
        assert!(problem(text, &[("objective.method", "sft,eaft")]).contains("stands beside [[compare.variant]]"));
    }

    #[test]
    fn one_run_is_a_comparison_too() {
        let found = grid("", &[]).unwrap();
        assert_eq!((found.points.len(), found.points[0].name.as_str()), (1, "eaft"));
    }

    #[test]
    fn a_single_variant_is_warned_of_and_two_are_not() {
        let found = grid("", &[("optim.learning_rate", "1e-4,3e-4"), ("run.seed", "1,2")]).unwrap();
        assert!(found.warning().unwrap().contains("one variant, eaft, and nothing to compare it with"));
        assert_eq!(grid("", &[("objective.method", "sft,eaft")]).unwrap().warning(), None);
    }

    #[test]
    fn what_all_runs_share_may_be_for_some_of_them_and_what_a_variant_asks_for_in_vain_is_refused_by_its_name() {
        let tau = [("objective.tau".to_string(), "0.5".to_string())];
        let methods = [("objective.method".to_string(), "sft,talr".to_string())];
        let found = Grid::of(RUN, "c.toml", &tau, &methods).unwrap();
        assert!(found.points.iter().all(|point| point.config.contains("tau = 0.5")), "{:?}", found.points);
        let known = "[adapter]\nrank = 8\n[compare]\n\"adapter.kind\" = [\"lora\", \"none\"]\n";
        assert_eq!(grid(known, &[]).unwrap().points.len(), 2);
        let vain = problem("", &[("objective.method", "sft,eaft"), ("objective.top_k", "5,20")]);
        assert!(vain.contains("variant \"sft-5\": --set objective.top_k: ") && !vain.contains("sft-20"), "{vain}");
    }

    #[test]
    fn what_all_runs_are_given_and_none_reads_is_refused_as_a_run_of_its_own_refuses_it() {
        let of = |set: &[(&str, &str)], vary: &str| {
            let set: Set = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            Grid::of(RUN, "c.toml", &set, &[("objective.method".to_string(), vary.to_string())])
        };
        let refused = of(&[("objective.tau", "0.5"), ("run.keep", "3")], "sft,eaft").unwrap_err().to_string();
        assert!(refused.contains("tau: 0.5 is read with objective.method = "), "{refused}");
        assert!(refused.contains("(no run reads it; this is sft)") && !refused.contains("run.keep"), "{refused}");
        let refused = of(&[("adapter.kind", "none"), ("adapter.rank", "9")], "sft").unwrap_err().to_string();
        assert!(refused.contains("rank: 9 is read with ") && !refused.contains("no run"), "{refused}");
        assert!(of(&[("adapter.rank", "9")], "sft,eaft").is_ok());
    }

    #[test]
    fn what_is_measured_is_not_mixed_in_by_a_comparison_either() {
        let refused = problem("", &[("data.general", "embedded:general.txt"), ("data.replay", "embedded:general.txt")]);
        assert!(refused.contains("data.replay and data.general are one file, embedded:general.txt"), "{refused}");
    }

    #[test]
    fn runs_that_are_not_measured_on_what_they_are_compared_by_are_refused_with_both_settings() {
        let of = |set: &[(&str, &str)]| {
            let set: Set = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            Grid::of(RUN, "c.toml", &set, &[("objective.method".to_string(), "sft,eaft".to_string())])
        };
        let why = "by their loss on data.target (or data.hold_out) and on data.general, and ";
        for (set, missing) in [
            (&[("data.target", "")][..], "data.target (or data.hold_out) is not given"),
            (&[("data.general", "")], "data.general is not given"),
            (&[("data.general", ""), ("data.target", "")], "data.target (or data.hold_out) and data.general are not"),
        ] {
            let refused = of(set).unwrap_err().to_string();
            assert!(refused.contains(&format!("{why}{missing}")) && !refused.contains("variant"), "{refused}");
            assert_eq!(refused.matches(why).count(), 1, "{refused}");
        }
        assert!(of(&[("data.target", ""), ("data.hold_out", "0.1")]).is_ok());
        assert!(of(&[("data.general", ""), ("data.wrong", "w")]).is_ok(), "the truth is what is kept");
        let refused = of(&[("data.target", ""), ("data.wrong", "w")]).unwrap_err().to_string();
        assert!(refused.contains("on data.wrong and on data.target (or data.hold_out), and "), "{refused}");
        let one = "[[compare.variant]]\nname = \"blind\"\n\"data.general\" = \"\"\n\
                   [[compare.variant]]\nname = \"sees\"\n\"objective.method\" = \"sft\"\n";
        let refused = problem(one, &[]);
        assert!(refused.contains("variant \"blind\": nothing") && !refused.contains("\"sees\""), "{refused}");
    }

    #[test]
    fn several_values_that_are_set_are_pointed_to_vary_and_a_list_that_may_be_set_is_not() {
        let of = |set: (&str, &str)| Grid::of(RUN, "c.toml", &[(set.0.into(), set.1.into())], &[]);
        let refused = of(("run.seed", "1,2,3")).unwrap_err().to_string();
        assert!(refused.ends_with("; to compare these values use --vary run.seed=1,2,3"), "{refused}");
        assert!(of(("adapter.targets", "q_proj,v_proj")).is_ok());
        assert!(!of(("adapter.targets", "q_porj,v_proj")).unwrap_err().to_string().contains("--vary"));
    }

    #[test]
    fn how_often_is_measured_may_be_varied_either_way() {
        let found = grid("", &[("run.evaluations", "2,4")]).unwrap();
        assert!(found.points.iter().all(|point| point.config.contains("eval_every = 0\n")), "{:?}", found.points);
    }

    #[test]
    fn training_files_are_varied_one_by_one_and_in_a_table_also_several_together() {
        let trained = |grid: Grid| -> Vec<String> {
            let train =
                |point: &Point| point.config.lines().find(|line| line.starts_with("train = ")).map(str::to_owned);
            grid.points.iter().filter_map(train).collect()
        };
        let by_flag = grid("", &[("data.train", "a.jsonl,b.jsonl")]).unwrap();
        assert_eq!(trained(by_flag), ["train = \"a.jsonl\"", "train = \"b.jsonl\""]);
        let by_table = grid("[compare]\n\"data.train\" = [\"a\", [\"b\", \"c\"]]\n", &[]).unwrap();
        assert_eq!(trained(by_table), ["train = \"a\"", "train = [\"b\", \"c\"]"]);
        assert!(problem("", &[("data.train", "a"), ("data.shares", "[1]")]).contains("data.train is one"));
    }

    #[test]
    fn what_cannot_be_run_is_refused_before_anything_is_with_the_name_of_the_run() {
        let refused = problem("", &[("optim.learning_rate", "1e-4,-1")]);
        assert!(refused.contains("run \"eaft_learning_rate--1\": "), "{refused}");
        let refused = problem("", &[("objective.method", "sft"), ("objective.exponent", "2,1")]);
        assert!(refused.contains("variant \"sft-2\": --set objective.exponent: "), "{refused}");
        assert!(problem("", &[("objective.method", "sft,eeft")]).contains("eeft"));
        assert!(problem("", &[("run.seed", "1,1")]).contains("run.seed: needs values that differ"));
        assert!(problem("", &[("run.seed", "1"), ("run.seed", "2")]).contains("varied twice"));
        let beaten = grid("[compare]\n\"run.seed\" = [1, 2]\n", &[("run.seed", "1,2,3")]).unwrap();
        assert_eq!(beaten.points.len(), 3, "--vary beats the file's values of that key");
        assert!(problem("[compare]\n\"run.seed\" = 3\n", &[]).contains("has to be a list"));
        assert!(problem("[compare]\n\"run.seed\" = [3]\n[optim]\nlearning_rate = 1\n", &[]).contains("come last"));
        assert!(problem("[[compare.variant]]\n\"objective.method\" = \"sft\"\n", &[]).contains("needs a name"));
        let twice = "[[compare.variant]]\nname = \"a\"\n[[compare.variant]]\nname = \"a\"\n";
        assert!(problem(twice, &[]).contains("two are called \"a\""));
        let many = (0..200).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert!(problem("", &[("run.seed", &many), ("run.batch_tokens", &many)]).contains("40000 runs"));
    }
}
