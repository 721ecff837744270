//! Which way through its model a run takes so that it fits the memory, decided before anything is loaded.

use super::execution::Execution;
use super::ledger::{Ledger, Load, Site};
use super::optimiser::Clipping;
use super::settings::Recompute;
use crate::config::Config;
use crate::model::Keep;
use crate::model::architecture::Architecture;
use crate::model::block::Activations;
use crate::model::load::Hold;
use crate::model::settings::AdapterKind;
use crate::weights::WeightSource;

/// What may be kept of a micro-batch where nobody tells how much memory there is.
const KEPT_IN_UNKNOWN_MEMORY: usize = 512 << 20;

/// How many times longer a byte takes from a file than between host and device: a drive gives 1 to 5 GB/s, a PCIe bus 12 to 25.
const FILE_IS_SLOWER: u64 = 5;

/// What a run is made of.
#[derive(Clone, Copy)]
struct Planned<'a> {
    config: &'a Config,
    arch: &'a Architecture,
    weights: Option<&'a dyn WeightSource>,
    learners: u64,
    load: Load,
}

impl Execution {
    /// The fastest that fits run.device_memory, or what memory there is; where none fits, what takes least. The data are not
    /// known yet: a step is taken to be as large as the configuration allows.
    pub fn plan(
        config: &Config,
        arch: &Architecture,
        weights: Option<&dyn WeightSource>,
        learners: u64,
        site: Site,
    ) -> Self {
        Planned { config, arch, weights, learners, load: Load::most(config) }.alone(site)
    }

    /// As [`Execution::plan`] for data of this shape, on each of several devices. What is kept and in which order is one decision
    /// for all of them: the one that suits whichever has least room.
    pub fn plan_each(
        config: &Config,
        arch: &Architecture,
        weights: Option<&dyn WeightSource>,
        learners: u64,
        load: Load,
        sites: &[Site],
    ) -> Vec<Self> {
        Planned { config, arch, weights, learners, load }.alike(sites)
    }
}

impl Planned<'_> {
    /// On one device, whatever others do.
    fn alone(&self, site: Site) -> Execution {
        let (config, recompute) = (self.config, self.config.run.recompute);
        // Blocks that are to be stepped in turn want all micro-batches to have passed them.
        let together = in_turn(config);
        let resident = |keep| Execution { together, ..Execution::resident(keep) };
        let (said, most) = budget(config, site);
        let Some(most) = most else {
            // Of the whole model, so that several devices decide alike.
            let tokens = self.load.tokens;
            let kept = Activations::bytes_per_token(self.arch).saturating_mul(self.arch.layers).saturating_mul(tokens);
            let everything = match recompute {
                Recompute::Auto => kept <= KEPT_IN_UNKNOWN_MEMORY,
                Recompute::Always => false,
                Recompute::Never => true,
            };
            return resident(if everything { Keep::Everything } else { Keep::Inputs });
        };
        let ample = if recompute == Recompute::Auto && said.is_none() { most / 2 } else { most };
        if recompute != Recompute::Always && self.takes(site, resident(Keep::Everything)) <= ample {
            return resident(Keep::Everything);
        }
        let keep = if recompute == Recompute::Never { Keep::Everything } else { Keep::Inputs };
        let whole = resident(keep);
        if self.takes(site, whole) <= most {
            return whole;
        }
        // A block travels once for all micro-batches where what is kept of them all fits.
        let ways = match (together, config.run.accumulation > 1) {
            (true, _) => &[true][..],
            (false, true) => &[true, false],
            (false, false) => &[false],
        };
        let streamed = |keep| ways.iter().find_map(|&together| self.streamed(site, most, keep, together));
        let by_file = streamed(keep);
        let least = |keep| Execution { resident: if can_be_left(config) { 0 } else { u64::MAX }, keep, together };
        if !site.own_memory || keep != Keep::Inputs {
            return by_file.unwrap_or(least(keep));
        }
        let on_host = Some(resident(Keep::InputsOnHost)).filter(|way| self.takes(site, *way) <= most);
        let left = self.takes(site, whole) - most;
        let found = match (by_file, on_host) {
            (Some(way), Some(_)) if self.file_is_nearer(site, way, left) => by_file,
            (by_file, on_host) => on_host.or(by_file),
        };
        found.or_else(|| streamed(Keep::InputsOnHost)).unwrap_or(least(Keep::InputsOnHost))
    }

    /// Whether `left` bytes of weights that are read from the file twice a pass come sooner than the blocks' inputs of a step
    /// from the host's memory, once there and once back.
    fn file_is_nearer(&self, site: Site, way: Execution, left: u64) -> bool {
        let Load { tokens, micro_batches, .. } = self.load;
        let passes = if way.together { 1 } else { micro_batches };
        let input = tokens.saturating_mul(self.arch.hidden).saturating_mul(4);
        let inputs = input.saturating_mul(micro_batches).saturating_mul(site.share.blocks(self.arch).len());
        left.saturating_mul(passes as u64).saturating_mul(FILE_IS_SLOWER) <= inputs as u64
    }

    /// On each of several devices.
    fn alike(&self, sites: &[Site]) -> Vec<Execution> {
        let config = self.config;
        let alone: Vec<Execution> = sites.iter().map(|site| self.alone(*site)).collect();
        let alike = |a: &Execution, b: &Execution| a.keep == b.keep && a.together == b.together;
        if alone.windows(2).all(|two| alike(&two[0], &two[1])) {
            return alone;
        }
        // What needs least of them all: inputs on the host, inputs, everything.
        let any = |keep: Keep| alone.iter().any(|one| one.keep == keep);
        let keep = [Keep::InputsOnHost, Keep::Inputs].into_iter().find(|keep| any(*keep)).unwrap_or(Keep::Everything);
        let within = |site: &Site, together: bool| {
            let whole = Execution { together, ..Execution::resident(keep) };
            match budget(config, *site).1 {
                Some(most) if self.takes(*site, whole) > most => self.streamed(*site, most, keep, together),
                _ => Some(whole),
            }
        };
        let each = |together| sites.iter().map(|site| within(site, together)).collect::<Option<Vec<Execution>>>();
        let together = if alone.iter().any(|one| one.together) { each(true) } else { None };
        let apart = || if in_turn(config) { None } else { each(false) };
        together.or_else(apart).unwrap_or_else(|| {
            let least = if can_be_left(config) { 0 } else { u64::MAX };
            let least = Execution { resident: least, keep, together: in_turn(config) };
            sites.iter().map(|site| within(site, least.together).unwrap_or(least)).collect()
        })
    }

    /// Most that the device holds.
    fn takes(&self, site: Site, execution: Execution) -> u64 {
        let Self { config, arch, weights, learners, load } = *self;
        Ledger::new(config, arch, weights, learners, load, site, execution).device_bytes()
    }

    /// With as many blocks left in their file as it takes to need no more than `most` bytes; none where that cannot be.
    fn streamed(&self, site: Site, most: u64, keep: Keep, together: bool) -> Option<Execution> {
        let left = Execution { resident: 0, keep, together };
        let resident = if can_be_left(self.config) { most.checked_sub(self.takes(site, left))? } else { return None };
        Some(Execution { resident, ..left })
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
