//! The learning rate of each optimiser step.
//!
//! With `W = ceil(steps * warmup_ratio)`, or `warmup_steps` where they are given, `m = min_rate` and the step counted from 0,
//!
//! ```text
//! step <  W:  peak * (step + 1) / (W + 1)
//! cosine:     peak * (m + (1 - m) (1 + cos(pi * q)) / 2)       q = min(1, (step - W) / max(1, steps - W))
//! linear:     peak * (m + (1 - m) (1 - q))
//! constant:   peak
//! ```
//!
//! The warm-up is nanoGPT's (`get_lr` of its `train.py`): every step trains, the rate rises by the same amount each step, and
//! the peak is reached once, after it. In transformers' `get_cosine_schedule_with_warmup` and its kin it is
//! `peak * step / W`, so the first step has rate 0: a batch that is computed and not learned from, and in a run of one step
//! nothing learned at all. From step W on the numbers are those of transformers.

use crate::settings::choice;
use crate::words::counted;

choice! {
    /// Course of the learning rate after warm-up.
    pub enum ScheduleKind {
        /// The rate falls to min_rate along half a cosine.
        Cosine = "cosine",
        /// The rate falls to min_rate in a straight line.
        Linear = "linear",
        /// The rate stays as it is.
        Constant = "constant",
    }
}

/// Learning rate as a function of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Course after warm-up.
    pub kind: ScheduleKind,
    /// Highest rate.
    pub peak: f64,
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Lowest rate after it, as a share of the highest.
    pub least: f64,
}

impl Schedule {
    /// The schedule of a run of `steps` optimiser steps that warms up over a share of them, or over `warmup_steps` where
    /// they are given, and no longer than the run.
    pub fn new(
        kind: ScheduleKind,
        peak: f64,
        least: f64,
        warmup_ratio: f64,
        warmup_steps: Option<u64>,
        steps: u64,
    ) -> Self {
        let warmup = warmup_steps.unwrap_or((steps as f64 * warmup_ratio).ceil() as u64).min(steps);
        Self { kind, peak, steps, warmup, least }
    }

    /// Rate of the optimiser step `step`, counted from 0. Steps past the end have the rate of the end.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * ((step + 1) as f64 / (self.warmup + 1) as f64);
        }
        let after = (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        let after = after.min(1.0);
        let share = match self.kind {
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * after).cos()),
            ScheduleKind::Linear => 1.0 - after,
            ScheduleKind::Constant => 1.0,
        };
        self.peak * (self.least + (1.0 - self.least) * share)
    }
}

/// What is to be said of a warm-up that was asked for and is longer than its run.
pub fn too_long(warmup_steps: Option<u64>, steps: u64) -> Option<String> {
    let warmup = warmup_steps.filter(|warmup| *warmup > steps)?;
    Some(format!(
        "optim.warmup_steps is {warmup} and the run has {}, so that the rate never comes to its peak; lower it",
        counted(steps, "step")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, steps: u64, warmup: u64) -> Schedule {
        Schedule { kind, peak: 1e-3, steps, warmup, least: 0.0 }
    }

    fn assert_rates(schedule: Schedule, expected: &[f64]) {
        for (step, expected) in expected.iter().enumerate() {
            let rate = schedule.at(step as u64);
            assert!((rate - expected).abs() <= 1e-15, "step {step}: {rate} and not {expected}");
        }
    }

    #[test]
    fn cosine_gives_the_rates_of_transformers_after_the_warm_up() {
        // 1/3 and 2/3 in the warm-up of two steps, then (1 + cos(pi k / 8)) / 2 for k = 0..8.
        assert_rates(
            schedule(ScheduleKind::Cosine, 10, 2),
            &[
                0.000_333_333_333_333_333_3,
                0.000_666_666_666_666_666_6,
                0.001,
                0.000_961_939_766_255_643_4,
                0.000_853_553_390_593_273_8,
                0.000_691_341_716_182_544_9,
                0.0005,
                0.000_308_658_283_817_455,
                0.000_146_446_609_406_726_2,
                0.000_038_060_233_744_356_63,
                0.0,
            ],
        );
    }

    #[test]
    fn linear_and_constant_give_the_rates_of_transformers_after_the_warm_up() {
        let linear = [0.000_25, 0.0005, 0.000_75, 0.001, 0.000_75, 0.0005, 0.000_25, 0.0, 0.0];
        assert_rates(schedule(ScheduleKind::Linear, 7, 3), &linear);
        assert_rates(schedule(ScheduleKind::Constant, 4, 1), &[0.0005, 0.001, 0.001, 0.001]);
        assert_rates(schedule(ScheduleKind::Linear, 4, 0), &[0.001, 0.000_75, 0.0005, 0.000_25, 0.0]);
    }

    fn of(kind: ScheduleKind, peak: f64, warmup_ratio: f64, steps: u64) -> Schedule {
        Schedule::new(kind, peak, 0.0, warmup_ratio, None, steps)
    }

    #[test]
    fn warm_up_takes_as_many_steps_as_were_asked_for_and_the_rate_falls_no_lower_than_that() {
        let of = |kind, warmup| Schedule::new(kind, 1e-3, 0.1, 0.03, Some(warmup), 6);
        // 1/3 and 2/3, then 0.1 + 0.9 (1 + cos(pi k / 4)) / 2 for k = 0..4, of the peak.
        let rates = [
            1e-3 / 3.0,
            2e-3 / 3.0,
            1e-3,
            0.000_868_198_051_533_946_4,
            0.000_55,
            0.000_231_801_948_466_053_6,
            1e-4,
            1e-4,
        ];
        assert_rates(of(ScheduleKind::Cosine, 2), &rates);
        let linear = [1e-3 / 3.0, 2e-3 / 3.0, 1e-3, 0.000_775, 0.000_55, 0.000_325, 1e-4];
        assert_rates(of(ScheduleKind::Linear, 2), &linear);
        assert_eq!(of(ScheduleKind::Constant, 2).at(5), 1e-3);
        assert_eq!(of(ScheduleKind::Cosine, 9).warmup, 6, "no more than there are");
    }

    #[test]
    fn a_warm_up_that_is_longer_than_its_run_is_warned_of_with_both_numbers() {
        let warning = too_long(Some(9), 1).unwrap();
        assert!(warning.contains("optim.warmup_steps is 9 and the run has 1 step,"), "{warning}");
        assert_eq!([too_long(Some(6), 6), too_long(None, 1)], [None, None]);
    }

    #[test]
    fn warm_up_is_rounded_up_to_whole_steps() {
        let of = |warmup_ratio, steps| of(ScheduleKind::Cosine, 1e-4, warmup_ratio, steps);
        assert_eq!(of(0.03, 100).warmup, 3);
        assert_eq!(of(0.03, 101).warmup, 4);
        assert_eq!(of(0.0, 100).warmup, 0);
        // All warm-up: 1/5, 2/5, 3/5 and 4/5 of the peak.
        assert_eq!(of(1.0, 4).at(3), 1e-4 * 0.8);
    }

    #[test]
    fn every_step_of_a_run_has_a_rate_above_zero_also_the_only_one() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Constant] {
            for warmup_ratio in [0.0, 0.03, 0.5, 1.0] {
                for steps in [1, 2, 3, 10, 100] {
                    let schedule = of(kind, 1e-3, warmup_ratio, steps);
                    for step in 0..steps {
                        let rate = schedule.at(step);
                        assert!(rate > 0.0, "{kind}, warm-up {warmup_ratio}, step {step} of {steps}: {rate}");
                    }
                }
            }
        }
        assert_eq!(of(ScheduleKind::Cosine, 1e-3, 0.03, 1).at(0), 0.0005);
    }

    #[test]
    fn no_step_has_a_rate_outside_zero_to_the_peak() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Constant] {
            for (steps, warmup) in [(0, 0), (1, 0), (1, 1), (7, 3), (7, 7)] {
                for step in 0..12 {
                    let rate = schedule(kind, steps, warmup).at(step);
                    assert!((0.0..=1e-3).contains(&rate), "{kind} {steps} {warmup} {step}: {rate}");
                }
            }
        }
    }
}
