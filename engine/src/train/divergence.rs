//! Whether a learner still learns: says once where a run has diverged, so that nobody takes its result for one, and once where
//! several steps trained nothing.
//!
//! **The rule.** A model that knows nothing gives every token of its vocabulary the same probability, which costs ln V nats.
//! A run has diverged once a cross entropy is at least ln V and lies at least a tenth of ln V above the least that the same
//! learner had on the same set. So a model that begins at ln V, such as one with random weights, is not blamed for where it
//! begins. The sets are the target set, the general set, and the batches of the logged steps; of these the running mean is
//! taken in which each step counts as much as all before it, since a batch may be a few tokens and one of them a surprise.
//!
//! A resumed run looks from where it goes on: what it said before stands in what the host keeps.

use crate::eval::perplexity::knowing_nothing;
use crate::loss::objective::Method;

/// How far above its least a cross entropy has to lie, as a share of ln V.
const CLEARLY: f64 = 0.1;

/// So many steps one after the other without any gradient are no accident of a batch.
const STEPS_WITHOUT_GRADIENT: u64 = 3;

/// What a cross entropy was measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The batch of a step.
    Batch,
    /// The target set.
    Target,
    /// The general set.
    General,
}

/// A learner when it was measured.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Steps done.
    pub step: u64,
    /// Its objective.
    pub objective: Method,
    /// Tokens that its model knows.
    pub vocab: usize,
    /// Peak of its learning rate.
    pub peak: f64,
}

/// What one learner's losses have been.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    /// Least cross entropy on each of [`On`], nats.
    least: [Option<f64>; 3],
    /// Running mean over batches, nats.
    batches: Option<f64>,
    said: bool,
    /// Steps one after the other whose gradient was 0; a step with one begins anew, and what was said is not said again.
    without_gradient: u64,
    said_nothing_is_trained: bool,
}

impl Divergence {
    /// True once [`Divergence::see`] has warned.
    pub fn said(&self) -> bool {
        self.said
    }

    /// Takes a step's gradient norm; gives the warning where this is the last of several steps that trained nothing, as where an
    /// objective gives every token the weight 0. A run that has diverged may have none either, and that was said.
    pub fn see_norm(&mut self, norm: f64, at: Moment) -> Option<String> {
        self.without_gradient = if norm == 0.0 { self.without_gradient + 1 } else { 0 };
        if self.said || self.said_nothing_is_trained || self.without_gradient < STEPS_WITHOUT_GRADIENT {
            return None;
        }
        self.said_nothing_is_trained = true;
        let Moment { step, objective, .. } = at;
        let advice = match objective {
            Method::Profit => "a lower objective.threshold lets more tokens through",
            _ => "set [objective] otherwise",
        };
        Some(format!(
            "{objective} has trained nothing in the last {STEPS_WITHOUT_GRADIENT} steps, up to step {step}: their gradient \
             is 0, as where every token has the weight 0 or is learned to the last bit; {advice}"
        ))
    }

    /// Takes a mean cross entropy in nats; gives the warning where this is the first sign that the run has diverged.
    pub fn see(&mut self, on: On, cross_entropy: f64, at: Moment) -> Option<String> {
        let loss = match on {
            On::Batch => *self.batches.insert(self.batches.map_or(cross_entropy, |mean| 0.5 * (mean + cross_entropy))),
            On::Target | On::General => cross_entropy,
        };
        let least = self.least[on as usize].get_or_insert(loss);
        *least = least.min(loss);
        let nothing = knowing_nothing(at.vocab);
        if self.said || loss < nothing || loss < *least + CLEARLY * nothing {
            return None;
        }
        self.said = true;
        let before = match *least >= nothing {
            true => format!(" (the model knew nothing of it before either: {least:.2})"),
            false => String::new(),
        };
        let Moment { step, objective, vocab, peak } = at;
        let on = match on {
            On::Batch => "its last batches",
            On::Target => "the target set",
            On::General => "the general set",
        };
        Some(format!(
            "{objective} has diverged: after step {step} its cross entropy on {on} is {loss:.2} nats per token, and knowing \
             nothing costs ln {vocab} = {nothing:.2}{before}; lower optim.learning_rate (it is {peak}) or warm up longer \
             (optim.warmup_ratio)"
        ))
    }
}

/// What is to be said of a peak of the learning rate with which no step moves a weight.
pub fn too_small(peak: f64) -> Option<String> {
    let message = "optim.learning_rate is smaller than any f32 above 0, so no step changes a weight; raise it";
    (peak as f32 == 0.0).then(|| format!("{message} (it is {peak:e})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment { step: 7, objective: Method::Sft, vocab: 2048, peak: 10.0 };

    const NEVER: [usize; 0] = [];

    /// At which of these losses something is said.
    fn said(on: On, losses: &[f64]) -> Vec<usize> {
        let mut divergence = Divergence::default();
        let mut says = |loss: &f64| divergence.see(on, *loss, AT).is_some();
        losses.iter().enumerate().filter_map(|(index, loss)| says(loss).then_some(index)).collect()
    }

    // ln 2048 is 7.62; a tenth of it 0.76.

    #[test]
    fn a_loss_that_was_below_that_of_knowing_nothing_and_reaches_it_is_said_once() {
        for on in [On::Target, On::General] {
            assert_eq!(said(on, &[6.3, 2.6, 7.7, 50.0, 60.0]), [2]);
            assert_eq!(said(on, &[6.3, 2.6, 7.6]), NEVER);
        }
        assert_eq!(said(On::Batch, &[6.5, 40.0, 300.0]), [1]);
        assert_eq!(said(On::Batch, &[6.5, 8.1, 8.0, 8.2]), [2], "the means are 6.5, 7.3, 7.65 ...");
    }

    #[test]
    fn a_model_that_begins_with_knowing_nothing_is_not_blamed_for_it() {
        for on in [On::Batch, On::Target, On::General] {
            assert_eq!(said(on, &[7.64, 7.7, 7.63, 7.5, 7.1, 7.65]), NEVER, "{on:?}");
            // Worse than nothing at first, as with a foreign tokenizer, and getting better.
            assert_eq!(said(on, &[12.0, 11.5, 12.1, 9.0, 8.0]), NEVER, "{on:?}");
        }
        assert_eq!(said(On::Target, &[7.64, 9.0]), [1], "but for getting much worse than that");
    }

    #[test]
    fn one_surprising_batch_of_few_tokens_is_no_divergence() {
        assert_eq!(said(On::Batch, &[0.4, 0.5, 13.0, 0.3, 0.6]), NEVER);
    }

    #[test]
    fn the_sets_are_not_compared_with_one_another() {
        let mut divergence = Divergence::default();
        assert_eq!(divergence.see(On::General, 3.0, AT), None);
        assert_eq!(divergence.see(On::Target, 9.0, AT), None, "a target that the model does not know at all");
        assert!(divergence.see(On::General, 9.0, AT).is_some());
    }

    #[test]
    fn the_warning_names_the_step_the_loss_that_of_knowing_nothing_the_rate_and_what_to_do() {
        let mut divergence = Divergence::default();
        assert_eq!(divergence.see(On::Target, 6.25, AT), None);
        let message = divergence.see(On::Target, 54.321, AT).unwrap();
        for part in ["sft", "step 7", "target", "54.32", "ln 2048 = 7.62", "optim.learning_rate (it is 10)", "warmup"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }

    #[test]
    fn the_warning_says_where_the_model_knew_nothing_before_either() {
        let mut divergence = Divergence::default();
        assert_eq!(divergence.see(On::General, 9.6, AT), None);
        let message = divergence.see(On::General, 10.49, AT).unwrap();
        let parts = ["10.49", "ln 2048 = 7.62 (the model knew nothing of it before either: 9.60); lower"];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        let mut divergence = Divergence::default();
        assert_eq!(divergence.see(On::General, 7.0, AT), None);
        assert!(divergence.see(On::General, 10.49, AT).is_some_and(|message| !message.contains("before")));
    }

    #[test]
    fn steps_without_a_gradient_are_said_once_where_there_are_several_one_after_the_other() {
        let said = |objective, norms: &[f64]| {
            let mut divergence = Divergence::default();
            let mut see = |norm: &f64| divergence.see_norm(*norm, Moment { objective, ..AT });
            norms.iter().map(&mut see).enumerate().filter_map(|(at, said)| Some((at, said?))).collect::<Vec<_>>()
        };
        assert!(said(Method::Profit, &[0.0, 0.0, 1e-30, 0.0, 0.0, 0.1]).is_empty());
        let found = said(Method::Profit, &[0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0]);
        assert_eq!(found.len(), 1);
        assert!(found[0].0 == 3 && found[0].1.contains("objective.threshold"), "{found:?}");
        assert!(said(Method::Eaft, &[0.0; 3])[0].1.starts_with("eaft has trained nothing in the last 3 steps"));
    }

    #[test]
    fn a_rate_that_is_0_in_the_arithmetic_of_a_step_is_said() {
        assert!(too_small(1e-60).unwrap().contains("1e-60"));
        assert_eq!(too_small(1e-40), None);
    }
}
