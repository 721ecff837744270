//! `[optim]` and `[run]`: how parameters are stepped, for how long, on what, and what is kept.

use super::optimiser::{Clipping, MomentBits};
use super::schedule::ScheduleKind;
use crate::kernels::multiplier::Compute;
use crate::loss::objective::Method;
use crate::model::load::Hold;
use crate::settings::{ByteSize, ByteSizes, Range, choice, settings};

choice! {
    /// Whether blocks run a second time in the backward pass (gradient checkpointing).
    pub enum Recompute {
        /// Where keeping everything would take more than run.device_memory, or more than half of the memory that there is.
        Auto = "auto",
        /// In every step: least memory.
        Always = "always",
        /// In no step: a third fewer operations.
        Never = "never",
    }
}

settings! {
    /// AdamW and its schedule.
    pub struct OptimSection in "optim" {
        /// Peak of the learning rate: how far one step moves the weights; larger learns and forgets faster.
        learning_rate: f64 = 1e-4, range = Range::above(0.0),
            derived = "1e-4 with an adapter, 1e-5 for full fine-tuning, 1e-3 from random weights", aliases = &["lr"];
        /// Course of the learning rate after the warm-up.
        schedule: ScheduleKind = ScheduleKind::Cosine, aliases = &["lr_scheduler_type"];
        /// Share of the steps over which the rate rises to its peak; every step trains, also the first.
        warmup_ratio: f64 = 0.03, range = Range::within(0.0, 1.0), aliases = &["warmup"];
        /// Steps over which it rises, in place of warmup_ratio; no more than the run has.
        warmup_steps: Option<u64> = None, range = Range::at_least(0.0), derived = "warmup_ratio of the steps",
            aliases = &["num_warmup_steps"];
        /// Where the rate falls to, as a share of learning_rate.
        min_rate: f64 = 0.0, range = Range::within(0.0, 1.0), label = "lowest rate",
            used = &[("schedule", &["cosine", "linear"])], aliases = &["min_lr_rate"];
        /// Decoupled weight decay of matrices; norms and biases are left out.
        weight_decay: f64 = 0.0, range = Range::at_least(0.0);
        /// Global norm to which gradients are clipped; 0 turns clipping off.
        max_grad_norm: f64 = 1.0, range = Range::at_least(0.0), hint = " (0: no clipping)",
            aliases = &["max_norm", "clip", "grad_clip"];
        /// How the norm is known that gradients are clipped by.
        clipping: Clipping = Clipping::Kept;
        /// Decay of the first moment.
        beta1: f64 = 0.9, range = Range::until(0.0, 1.0);
        /// Decay of the second moment.
        beta2: f64 = 0.999, range = Range::until(0.0, 1.0);
        /// Added to the denominator of a step.
        epsilon: f64 = 1e-8, range = Range::above(0.0), aliases = &["eps"];
    }
}

settings! {
    /// How long, on what, and what is kept.
    pub struct RunSection in "run" {
        /// Optimiser steps, over which the schedule is spread.
        steps: Option<u64> = None, range = Range::at_least(1.0), derived = "as many as the epochs take",
            aliases = &["max_steps"];
        /// Passes over the training data, in place of steps.
        epochs: Option<f64> = None, range = Range::above(0.0).below(1e6), derived = "1 where steps is not given",
            aliases = &["num_train_epochs"];
        /// Most tokens that a micro-batch reads; longer documents are cut.
        batch_tokens: usize = 2048, range = Range::at_least(2.0), label = "tokens per batch",
            derived = "2048, or data.cutoff_length where that is larger",
            aliases = &["batch_size", "per_device_train_batch_size"];
        /// Micro-batches of one optimiser step.
        accumulation: usize = 8, range = Range::at_least(1.0), aliases = &["gradient_accumulation_steps"];
        /// Decides the order of the data and everything random: the same seed gives the same run.
        seed: u64 = 42, range = Range::at_least(0.0);
        /// Steps between two lines of metrics.
        log_every: u64 = 1, range = Range::at_least(1.0);
        /// Steps between two checkpoints; 0 keeps only the end.
        save_every: u64 = 100, range = Range::at_least(0.0);
        /// Newest checkpoints to keep, beside that of the best step where one is chosen.
        keep: usize = 2, range = Range::at_least(1.0);
        /// Steps between two evaluations; 0 evaluates only before and after.
        eval_every: u64 = 0, range = Range::at_least(0.0);
        /// Where eval_every is 0: into how many equal parts evaluations divide the run, at most; 0 evaluates only before and after.
        evaluations: u64 = 0, range = Range::at_least(0.0);
        /// Whether the result is the measured step with the lowest target loss, and not the last step; the target set chooses
        /// then, so that its own loss is a little better than on text that chose nothing. The untouched model is no result: where
        /// no step has a lower target loss than it, the best step is the result and the run warns.
        keep_best: bool = false, derived = "true where forget_at_most or patience is given",
            aliases = &["load_best_model_at_end"];
        /// Most that the general loss may rise above its start, in nats per token: the first evaluation beyond it ends the run,
        /// and the result is the best step within it.
        forget_at_most: Option<f64> = None, range = Range::at_least(0.0), derived = "no limit";
        /// Evaluations in a row after which the run ends if none has a lower target loss than all before, of which the untouched
        /// model is the first.
        patience: Option<u64> = None, range = Range::at_least(1.0), derived = "no limit",
            aliases = &["early_stopping_patience"];
        /// Objective that is also trained from the same start, for comparison.
        baseline: Option<Method> = None;
        /// Where to compute: auto, cpu, vulkan, metal, dx12, or part of an adapter's name; with commas between them several
        /// devices, which share the blocks in proportion to their memory.
        device: String = "auto".into();
        /// In which precision matrices are multiplied.
        compute: Compute = Compute::Auto;
        /// How the model's matrices lie in device memory.
        storage: Hold = Hold::Auto, aliases = &["bf16"];
        /// How the optimiser's moments lie in device memory.
        moments: MomentBits = MomentBits::F32;
        /// Most device memory that the run may take, of several devices one for each with commas between them; frozen blocks
        /// that do not fit into it stay in the model's file and are read whenever they are used.
        device_memory: Option<ByteSizes> = None, derived = "what there is, where the system tells";
        /// Most memory that the run may take on the host beside a device that has its own; on the CPU device_memory says it.
        host_memory: Option<ByteSize> = None, derived = "what there is, where the system tells";
        /// Whether blocks run a second time in the backward pass, for less memory and the same results to the bit.
        recompute: Recompute = Recompute::Auto, aliases = &["gradient_checkpointing"];
    }
}
