//! Which measured step becomes the result of a run, and when what is measured says that it is time to end.
//!
//! Place in the flow: evaluations of a [run](super::run) -> [selection] -> the checkpoint that the result is taken from. The losses
//! that choose are those of the measured sets, so that the loss reported on the target set is that of the best of several: a
//! little better than on text that chose nothing. [`RunSection`] says so to whoever asks for it.
//!
//! The untouched model is the first that is measured, and the target loss that patience waits to see beaten is the lowest so far,
//! its own included. It is never the result, since it has learned nothing: where no step is better, the best step is, with a
//! warning.

use serde::{Deserialize, Serialize};

use super::event::{Evaluated, Phase, Selected};
use super::settings::RunSection;
use crate::error::{Error, Result};
use crate::words::counted;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Most that the general loss may rise above that before the first step, in nats per token.
    forget_at_most: Option<f64>,
    /// Evaluations in a row without a target loss below all before that end the run.
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
    /// Target loss before the first step; none in checkpoints of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_target: Option<f64>,
    /// The best of the evaluations after it.
    best: Option<Evaluated>,
    /// Evaluations since the lowest target loss, of which the first is that before the first step.
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
                self.start_target = at.target.map(|set| set.loss).filter(|loss| loss.is_finite());
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
        // The first, and where nothing says what was learned, is better: the longer it trained, the more.
        let falls_below = |before: Option<f64>| match (at.target.map(|set| set.loss), before) {
            (Some(loss), Some(before)) => loss < before,
            _ => true,
        };
        let is_measured = [at.target, at.general, at.wrong].into_iter().flatten().all(|set| set.loss.is_finite());
        let is_best = is_measured && falls_below(self.best_target());
        self.since = if is_best && falls_below(self.start_target) { 0 } else { self.since + 1 };
        if is_best {
            self.best = Some(at.clone());
        }
        if rule.patience.is_some_and(|patience| self.since >= patience) {
            let since = counted(self.since, "evaluation");
            self.ended = Some(format!(
                "at step {step} the target loss had not come below its lowest for {since}, and run.patience is {}",
                self.since
            ));
        }
        is_best
    }

    fn best_target(&self) -> Option<f64> {
        self.best.as_ref()?.target.map(|set| set.loss)
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

    /// Why the run has ended without a result, and takes no more steps; none of any other.
    pub fn without_result(&self) -> Option<&str> {
        self.ended().filter(|_| self.best.is_none())
    }

    /// What is to be said of a result that is no better than the untouched model.
    pub fn warning(&self) -> Option<String> {
        let (start, best) = (self.start_target?, self.best_target()?);
        let step = self.best_step()?;
        (best >= start).then(|| {
            format!(
                "no measured step has a lower target loss than the untouched model: {best:.4} at step {step}, the best, and \
                 {start:.4} before the first; lower optim.learning_rate, or measure more often (run.evaluations)"
            )
        })
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
    fn patience_counts_from_the_untouched_model_which_is_never_the_result() {
        let rule = Rule { forget_at_most: None, patience: Some(2) };
        let (selection, better) = seen(&rule, &[(4.0, 3.0), (4.2, 3.0), (4.1, 3.0)]);
        assert_eq!(better, [false, true, true], "the best so far, and none is better than the start");
        assert_eq!(selection.since, 2);
        let result = selection.result(2).unwrap();
        assert_eq!((result.step, result.of), (2, 2));
        assert!(
            result.ended.unwrap().contains("at step 2 the target loss had not come below its lowest for 2 evaluations")
        );
        let warning = selection.warning().unwrap();
        for part in ["4.1000 at step 2", "4.0000 before the first", "optim.learning_rate"] {
            assert!(warning.contains(part), "{warning}");
        }
        let (selection, better) = seen(&rule, &[(4.0, 3.0), (4.2, 3.0), (3.9, 3.0), (4.1, 3.0)]);
        assert_eq!((better, selection.since, selection.ended()), (vec![false, true, true, false], 1, None));
        assert_eq!((selection.warning(), selection.best_step()), (None, Some(2)));
        assert!(seen(&rule, &[(4.0, 3.0), (4.0, 3.0)]).0.warning().is_some(), "as good is not better");
        assert!(seen(&Rule { patience: Some(1), ..rule }, &[(4.0, 3.0), (4.5, 3.0)]).0.ended().is_some());
        // Any number is better than none.
        let (selection, _) = seen(&rule, &[(f64::NAN, 3.0), (9.0, 3.0)]);
        assert_eq!((selection.since, selection.warning()), (0, None));
    }

    #[test]
    fn only_a_run_that_ended_and_chose_nothing_is_without_a_result() {
        let rule = Rule { forget_at_most: Some(0.1), patience: None };
        let ended = |all: &[(f64, f64)]| seen(&rule, all).0.without_result().map(str::to_string);
        assert!(ended(&[(4.0, 3.0), (3.0, 3.2)]).unwrap().contains("at step 1 general loss was 3.2000"));
        assert_eq!(ended(&[(4.0, 3.0), (3.0, 3.05), (2.0, 3.2)]), None);
        assert_eq!(ended(&[(4.0, 3.0)]), None);
    }

    #[test]
    fn a_selection_of_an_older_version_is_read_and_written_again_to_the_letter() {
        let old = r#"{"start":3.1,"best":null,"since":1,"ended":null}"#;
        let selection: Selection = serde_json::from_str(old).unwrap();
        assert_eq!((selection.start_target, selection.warning()), (None, None));
        // The digest of a checkpoint's state is of this text.
        assert_eq!(serde_json::to_string(&selection).unwrap(), old);
    }

    #[test]
    fn a_selection_comes_back_out_of_json_as_it_was() {
        let (selection, _) =
            seen(&Rule { forget_at_most: Some(0.1), patience: None }, &[(4.0, 3.1), (3.3, 3.15), (2.0, 3.3)]);
        let text = serde_json::to_string(&selection).unwrap();
        assert_eq!(serde_json::from_str::<Selection>(&text).unwrap(), selection);
    }
}
