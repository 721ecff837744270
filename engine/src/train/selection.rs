//! Which measured step becomes the result of a run, and when what is measured says that it is time to end.
//!
//! Place in the flow: evaluations of a [run](super::run) -> [selection] -> the checkpoint that the result is taken from. The losses
//! that choose are those of the measured sets, so that the loss reported on the target set is that of the best of several: a
//! little better than on text that chose nothing. [`RunSection`] says so to whoever asks for it.

use serde::{Deserialize, Serialize};

use super::event::{Evaluated, Phase, Selected};
use super::settings::RunSection;
use crate::error::{Error, Result};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Most that the general loss may rise above that before the first step, in nats per token.
    forget_at_most: Option<f64>,
    /// Evaluations in a row without a lower target loss that end the run.
    patience: Option<u64>,
}

impl Rule {
    /// None where the last step is the result.
    pub fn of(run: &RunSection) -> Option<Self> {
        let RunSection { forget_at_most, patience, .. } = *run;
        run.keep_best.then_some(Self { forget_at_most, patience })
    }
}

/// What the evaluations so far have chosen. A checkpoint keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// General loss before the first step.
    start: Option<f64>,
    /// The best of the evaluations.
    best: Option<Evaluated>,
    /// Evaluations since.
    since: u64,
    /// Why the run ends before its last step.
    ended: Option<String>,
}

impl Selection {
    /// Takes an evaluation into account: true where it is the best so far.
    pub fn see(&mut self, rule: &Rule, at: &Evaluated) -> bool {
        let general = at.general.map(|set| set.loss);
        match at.phase {
            Phase::Before => {
                self.start = general;
                return false;
            }
            Phase::During => {}
            Phase::After => return false,
        }
        let step = at.step;
        if let (Some(most), Some(start), Some(general)) = (rule.forget_at_most, self.start, general) {
            let rise = general - start;
            // No number is no loss that was kept.
            if rise.is_nan() || rise > most {
                self.ended = Some(format!(
                    "at step {step} general loss was {general:.4}, {rise:.4} above its start, and run.forget_at_most is {most}"
                ));
                return false;
            }
        }
        let best = self.best.as_ref().and_then(|best| best.target).map(|set| set.loss);
        let better = match (at.target.map(|set| set.loss), best) {
            (Some(loss), Some(best)) => loss < best,
            // The first; or nothing says what was learned: the longer it trained, the more.
            _ => true,
        };
        if better && [at.target, at.general, at.wrong].into_iter().flatten().all(|set| set.loss.is_finite()) {
            (self.best, self.since) = (Some(at.clone()), 0);
            return true;
        }
        self.since += 1;
        if rule.patience.is_some_and(|patience| self.since >= patience) {
            let since = self.since;
            self.ended = Some(format!(
                "at step {step} the target loss had not fallen for {since} evaluations, and run.patience is {since}"
            ));
        }
        false
    }

    /// Step of the best evaluation so far.
    pub fn best_step(&self) -> Option<u64> {
        self.best.as_ref().map(|best| best.step)
    }

    /// The best evaluation, where it is of this step.
    pub fn best_at(&self, step: u64) -> Option<&Evaluated> {
        self.best.as_ref().filter(|best| best.step == step)
    }

    /// Why the run ends before its last step; none where it goes on.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Ends the run.
    pub fn end(&mut self, why: String) {
        self.ended = Some(why);
    }

    /// What the run leaves after `steps` steps.
    ///
    /// # Errors
    /// [`Error::Selection`] where no evaluation is good enough.
    pub fn result(&self, steps: u64) -> Result<Selected> {
        match &self.best {
            Some(best) => Ok(Selected { step: best.step, of: steps, ended: self.ended.clone() }),
            None => {
                Err(Error::Selection { problem: self.ended.clone().unwrap_or_else(|| "no loss was a number".into()) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::perplexity::Evaluation;

    fn at(step: u64, target: f64, general: f64) -> Evaluated {
        let of = |loss: f64| Some(Evaluation::from_sum(loss, 1));
        let phase = if step == 0 { Phase::Before } else { Phase::During };
        Evaluated { phase, step, target: of(target), general: of(general), wrong: None }
    }

    fn seen(rule: &Rule, all: &[(f64, f64)]) -> (Selection, Vec<bool>) {
        let mut selection = Selection::default();
        let better = (0..).zip(all).map(|(step, (target, general))| selection.see(rule, &at(step, *target, *general)));
        let better = better.collect();
        (selection, better)
    }

    #[test]
    fn the_lowest_target_loss_is_the_best_and_the_first_of_equals() {
        let rule = Rule { forget_at_most: None, patience: None };
        let (selection, better) = seen(&rule, &[(1.0, 3.0), (2.0, 9.0), (1.5, 9.0), (1.5, 2.0), (1.6, 2.0)]);
        assert_eq!(better, [false, true, true, false, false]);
        assert_eq!((selection.best_step(), selection.ended()), (Some(2), None));
        assert_eq!(selection.result(7).unwrap(), Selected { step: 2, of: 7, ended: None });
        assert!(selection.best_at(2).is_some() && selection.best_at(3).is_none());
    }

    #[test]
    fn what_has_forgotten_too_much_is_no_result_and_ends_the_run() {
        let rule = Rule { forget_at_most: Some(0.1), patience: None };
        let (selection, better) = seen(&rule, &[(4.0, 3.0), (3.0, 3.05), (2.0, 3.2)]);
        assert_eq!(better, [false, true, false]);
        let result = selection.result(2).unwrap();
        assert_eq!((result.step, result.of), (1, 2));
        let words = "at step 2 general loss was 3.2000, 0.2000 above its start, and run.forget_at_most is 0.1";
        assert_eq!(result.ended.as_deref(), Some(words));
        let (selection, better) = seen(&rule, &[(4.0, 3.0), (3.0, f64::NAN)]);
        assert!(selection.ended().is_some() && !better[1], "{selection:?}");
        let problem = seen(&rule, &[(4.0, 3.0), (3.0, 3.2)]).0.result(1).unwrap_err().to_string();
        assert!(
            problem.contains("at step 1 general loss was 3.2000") && problem.contains("run.evaluations"),
            "{problem}"
        );
    }

    #[test]
    fn without_a_target_the_last_step_within_the_limit_is_the_best() {
        let rule = Rule { forget_at_most: Some(0.1), patience: None };
        let mut selection = Selection::default();
        for (step, general) in [(0, 3.0), (1, 3.0), (2, 3.09), (3, 3.2)] {
            selection.see(&rule, &Evaluated { target: None, ..at(step, 0.0, general) });
        }
        assert_eq!((selection.best_step(), selection.ended().is_some()), (Some(2), true));
    }

    #[test]
    fn patience_counts_evaluations_in_a_row_and_no_number_is_never_the_best() {
        let rule = Rule { forget_at_most: None, patience: Some(2) };
        let all = [(9.0, 3.0), (f64::NAN, 3.0), (5.0, 3.0), (5.0, 3.0), (4.0, 3.0), (4.5, 3.0), (f64::INFINITY, 3.0)];
        let (selection, better) = seen(&rule, &all[..6]);
        assert_eq!(better, [false, false, true, false, true, false]);
        assert!(selection.ended().is_none());
        let (selection, _) = seen(&rule, &all);
        assert_eq!((selection.best_step(), selection.ended().is_some()), (Some(4), true));
        let ended = selection.result(6).unwrap().ended.unwrap();
        assert!(ended.contains("at step 6") && ended.contains("run.patience is 2"), "{ended}");
        let problem = seen(&Rule { patience: None, ..rule }, &all[..2]).0.result(1).unwrap_err().to_string();
        assert!(problem.contains("no loss was a number"), "{problem}");
    }

    #[test]
    fn a_selection_comes_back_out_of_json_as_it_was() {
        let (selection, _) =
            seen(&Rule { forget_at_most: Some(0.1), patience: None }, &[(4.0, 3.1), (3.3, 3.15), (2.0, 3.3)]);
        let text = serde_json::to_string(&selection).unwrap();
        assert_eq!(serde_json::from_str::<Selection>(&text).unwrap(), selection);
    }
}
