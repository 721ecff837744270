//! How a run goes through its model so that it fits the memory, decided before anything is loaded. What it computes does not
//! depend on it, to the bit.

use serde::Serialize;

use super::ledger::{Ledger, Load, Site};
use super::optimiser::Clipping;
use super::settings::OptimSection;
use crate::config::Config;
use crate::model::Keep;
use crate::model::architecture::Architecture;
use crate::model::block::Activations;
use crate::model::load::Hold;
use crate::model::settings::AdapterKind;
use crate::settings::choice;
use crate::weights::WeightSource;

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

/// What may be kept of a micro-batch where nobody tells how much memory there is.
const KEPT_IN_UNKNOWN_MEMORY: usize = 512 << 20;

/// How a run goes through its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// So many bytes of the blocks' frozen matrices stay in memory, all where it is [`u64::MAX`]; blocks behind them are read
    /// from the file when they are used.
    pub resident: u64,
    /// What is kept of a forward pass.
    pub keep: Keep,
    /// All micro-batches of a step pass a block before the next one.
    pub together: bool,
}

impl Execution {
    /// All blocks in memory.
    pub fn resident(keep: Keep) -> Self {
        Self { resident: u64::MAX, keep, together: false }
    }

    /// True where no other group of micro-batches can change a block's gradients once it was passed, so that it is stepped
    /// then, as clipping allows.
    pub fn steps_in_turn(self, config: &Config, micro_batches: usize) -> bool {
        let OptimSection { max_grad_norm, clipping, .. } = config.optim;
        (self.together || micro_batches == 1) && (max_grad_norm <= 0.0 || clipping != Clipping::Kept)
    }

    /// The fastest that fits run.device_memory, or what memory there is; where none fits, what takes least. The data are not
    /// known yet: a step is taken to be as large as the configuration allows.
    pub fn plan(
        config: &Config,
        arch: &Architecture,
        weights: Option<&dyn WeightSource>,
        learners: u64,
        site: Site,
    ) -> Self {
        let (recompute, load) = (config.run.recompute, Load::most(config));
        // Blocks that are to be stepped in turn want all micro-batches to have passed them.
        let together = in_turn(config);
        let resident = |keep| Self { together, ..Self::resident(keep) };
        let (said, most) = budget(config, site);
        let Some(most) = most else {
            // Of the whole model, so that several devices decide alike.
            let kept = Activations::bytes_per_token(arch).saturating_mul(arch.layers).saturating_mul(load.tokens);
            let everything = match recompute {
                Recompute::Auto => kept <= KEPT_IN_UNKNOWN_MEMORY,
                Recompute::Always => false,
                Recompute::Never => true,
            };
            return resident(if everything { Keep::Everything } else { Keep::Inputs });
        };
        let takes = |execution| Ledger::new(config, arch, weights, learners, load, site, execution).device_bytes();
        let ample = if recompute == Recompute::Auto && said.is_none() { most / 2 } else { most };
        if recompute != Recompute::Always && takes(resident(Keep::Everything)) <= ample {
            return resident(Keep::Everything);
        }
        let keep = if recompute == Recompute::Never { Keep::Everything } else { Keep::Inputs };
        let whole = resident(keep);
        if !can_be_left(config) || takes(whole) <= most {
            return whole;
        }
        // A block travels once for all micro-batches where what is kept of them all fits.
        let ways = match (together, config.run.accumulation > 1) {
            (true, _) => &[true][..],
            (false, true) => &[true, false],
            (false, false) => &[false],
        };
        let ways = ways.iter().map(|&together| Self { resident: 0, keep, together });
        let left = |way: Self| Some(Self { resident: most.checked_sub(takes(way))?, ..way });
        ways.clone().find_map(left).unwrap_or(Self { resident: 0, keep, together })
    }

    /// As [`Execution::plan`], for each of several devices. What is kept and in which order is one decision for all of them: the
    /// one that suits whichever has least room.
    pub fn plan_each(
        config: &Config,
        arch: &Architecture,
        weights: Option<&dyn WeightSource>,
        learners: u64,
        sites: &[Site],
    ) -> Vec<Self> {
        let alone: Vec<Self> = sites.iter().map(|site| Self::plan(config, arch, weights, learners, *site)).collect();
        let alike = |a: &Self, b: &Self| a.keep == b.keep && a.together == b.together;
        if alone.windows(2).all(|two| alike(&two[0], &two[1])) {
            return alone;
        }
        let everything = alone.iter().all(|one| one.keep == Keep::Everything);
        let keep = if everything { Keep::Everything } else { Keep::Inputs };
        let within = |site: &Site, together: bool| {
            let whole = Self { resident: u64::MAX, keep, together };
            let Some(most) = budget(config, *site).1 else { return Some(whole) };
            let load = Load::most(config);
            let takes = |way| Ledger::new(config, arch, weights, learners, load, *site, way).device_bytes();
            if takes(whole) <= most {
                return Some(whole);
            }
            let left = Self { resident: 0, ..whole };
            let resident = if can_be_left(config) { most.checked_sub(takes(left))? } else { return None };
            Some(Self { resident, ..left })
        };
        let each = |together| sites.iter().map(|site| within(site, together)).collect::<Option<Vec<Self>>>();
        let together = if alone.iter().any(|one| one.together) { each(true) } else { None };
        let apart = || if in_turn(config) { None } else { each(false) };
        together.or_else(apart).unwrap_or_else(|| {
            let least = if can_be_left(config) { 0 } else { u64::MAX };
            let least = Self { resident: least, keep, together: in_turn(config) };
            sites.iter().map(|site| within(site, least.together).unwrap_or(least)).collect()
        })
    }
}

/// Whether blocks are to be stepped one after the other although gradients are clipped.
fn in_turn(config: &Config) -> bool {
    config.optim.max_grad_norm > 0.0 && config.optim.clipping != Clipping::Kept
}

/// Bytes that a device was said to have, and that a run may take there.
fn budget(config: &Config, site: Site) -> (Option<u64>, Option<u64>) {
    let said = config.run.device_memory.as_ref().and_then(|sizes| sizes.bytes().get(site.share.stage).copied());
    (said, [said, site.memory].into_iter().flatten().min())
}

/// Whether blocks can be read from their file while the run goes on.
fn can_be_left(config: &Config) -> bool {
    config.adapter.kind == AdapterKind::Lora && config.run.storage == Hold::Auto
}
