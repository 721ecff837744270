//! The learning rate of each optimiser step.
//!
//! Same numbers as Hugging Face transformers' `get_cosine_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
//! `get_constant_schedule_with_warmup`: with `W = ceil(steps * warmup_ratio)` and the step counted from 0,
//!
//! ```text
//! step <  W:  peak * step / W                                 (so the first step of a warm-up has rate 0)
//! cosine:     peak * max(0, (1 + cos(pi * q)) / 2)            q = (step - W) / max(1, steps - W)
//! linear:     peak * max(0, 1 - q)
//! constant:   peak
//! ```

use crate::settings::choice;

choice! {
    /// Course of the learning rate after warm-up.
    pub enum ScheduleKind {
        /// The rate falls to 0 along half a cosine.
        Cosine = "cosine",
        /// The rate falls to 0 in a straight line.
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
}

impl Schedule {
    /// The schedule of a run of `steps` optimiser steps, `warmup_ratio` of which are its warm-up.
    pub fn new(kind: ScheduleKind, peak: f64, warmup_ratio: f64, steps: u64) -> Self {
        Self { kind, peak, steps, warmup: (steps as f64 * warmup_ratio).ceil() as u64 }
    }

    /// Rate of the optimiser step `step`, counted from 0. Steps past the end have the rate of the end.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step as f64 / self.warmup as f64);
        }
        let after = (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        let after = after.min(1.0);
        self.peak
            * match self.kind {
                ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * after).cos()),
                ScheduleKind::Linear => 1.0 - after,
                ScheduleKind::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, steps: u64, warmup: u64) -> Schedule {
        Schedule { kind, peak: 1e-3, steps, warmup }
    }

    fn assert_rates(schedule: Schedule, expected: &[f64]) {
        for (step, expected) in expected.iter().enumerate() {
            let rate = schedule.at(step as u64);
            assert!((rate - expected).abs() <= 1e-15, "step {step}: {rate} and not {expected}");
        }
    }

    #[test]
    fn cosine_gives_the_rates_of_transformers() {
        // (1 + cos(pi k / 8)) / 2 for k = 0..8, after two steps of warm-up.
        assert_rates(
            schedule(ScheduleKind::Cosine, 10, 2),
            &[
                0.0,
                0.0005,
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
    fn linear_and_constant_give_the_rates_of_transformers() {
        let linear = [0.0, 0.0005, 0.001, 0.000_75, 0.0005, 0.000_25, 0.0, 0.0];
        assert_rates(schedule(ScheduleKind::Linear, 6, 2), &linear);
        assert_rates(schedule(ScheduleKind::Constant, 4, 2), &[0.0, 0.0005, 0.001, 0.001, 0.001]);
        assert_rates(schedule(ScheduleKind::Linear, 4, 0), &[0.001, 0.000_75, 0.0005, 0.000_25, 0.0]);
    }

    #[test]
    fn warm_up_is_rounded_up_to_whole_steps() {
        let of = |warmup_ratio, steps| Schedule::new(ScheduleKind::Cosine, 1e-4, warmup_ratio, steps);
        assert_eq!(of(0.03, 100).warmup, 3);
        assert_eq!(of(0.03, 101).warmup, 4);
        assert_eq!(of(0.0, 100).warmup, 0);
        assert_eq!(of(1.0, 5).at(4), 1e-4 * 0.8);
        assert!(of(1.0, 1).at(0) == 0.0);
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
