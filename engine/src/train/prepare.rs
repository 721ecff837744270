//! What a configuration asks for, built: the session, its adapter, the shape of its run.

use super::execution::Execution;
use super::ledger::{Ledger, Load, Share, Site};
use super::optimiser::AdamW;
use super::schedule::Schedule;
use super::session::Session;
use super::settings::Recompute;
use crate::config::Config;
use crate::data::Loader;
use crate::device::Device;
use crate::devices::Devices;
use crate::error::{Error, Result};
use crate::export::merged::Adapter;
use crate::loss::objective::Objective;
use crate::model::adapter::LoraSettings;
use crate::model::architecture::Architecture;
use crate::model::block::Activations;
use crate::model::files::ModelFiles;
use crate::model::load::{Hold, Progress};
use crate::model::placement::{self, Placement};
use crate::model::settings::AdapterKind;
use crate::model::{Keep, Model};
use crate::rng::mix;
use crate::words::{bytes, counted};

/// Up to so many epochs, their steps are counted exactly and not estimated from the first.
const COUNTED_EPOCHS: f64 = 1000.0;

/// Shape of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Optimiser steps in all.
    pub steps: u64,
    /// Learning rates.
    pub schedule: Schedule,
    /// Tokens of a micro-batch, at most.
    pub batch_tokens: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Several documents in one micro-batch.
    pub packing: bool,
    /// A step in this many emits an event.
    pub log_every: u64,
    /// A step in this many is followed by a checkpoint; 0 means only the end.
    pub save_every: u64,
    /// A step in this many is followed by an evaluation; 0 means only before and after.
    pub eval_every: u64,
}

/// Where the model of a run lies: its blocks are shared so that what the run holds on each device is in proportion to the
/// device's memory, as run.device_memory says, or as all devices tell; where not all are known, equally.
///
/// # Errors
/// [`Error::Device`] with more devices than blocks; [`Error::Config`] where run.device_memory is not one amount for each device;
/// as [`Placement::check_trained`].
pub fn placement(config: &Config, files: &ModelFiles, devices: &Devices, memory: &[Option<u64>]) -> Result<Placement> {
    let (arch, weights) = (&files.architecture, files.weights.as_deref());
    let count = devices.all().len();
    let said = config.run.device_memory.as_ref().map(|sizes| sizes.bytes());
    if let Some(said) = &said
        && said.len() != count
    {
        let found = said.len();
        let example = vec!["8GiB"; count].join(",");
        let (found, devices) = (counted(found, "amount"), counted(count, "device"));
        let problem = format!("[run] device_memory: {found} of memory for {devices}; give one each: {example}");
        return Err(Error::Config { problems: vec![problem] });
    }
    let whole =
        Execution::resident(if config.run.recompute == Recompute::Always { Keep::Inputs } else { Keep::Everything });
    let held = |site| Ledger::new(config, arch, weights, 1, Load::most(config), site, whole).device_bytes();
    let memory = said.map_or(memory.to_vec(), |said| said.into_iter().map(Some).collect());
    let placement = shared(arch, devices, &memory, &held)?;
    placement.check_trained(arch, config.adapter.kind == AdapterKind::None)?;
    Ok(placement)
}

/// Where a model lies that is only used, in the same way.
///
/// # Errors
/// [`Error::Device`] with more devices than blocks.
pub fn placement_of_model(
    files: &ModelFiles,
    hold: Hold,
    devices: &Devices,
    memory: &[Option<u64>],
) -> Result<Placement> {
    let (arch, weights) = (&files.architecture, files.weights.as_deref());
    shared(arch, devices, memory, &|site| Ledger::of_model(arch, weights, hold, site).device_bytes())
}

/// The blocks in proportion to memory; `held` are the bytes that a site holds.
fn shared(
    arch: &Architecture,
    devices: &Devices,
    memory: &[Option<u64>],
    held: &dyn Fn(Site) -> u64,
) -> Result<Placement> {
    let (all, of) = (devices.all(), devices.all().len());
    if let [device] = all {
        return Ok(Placement::whole(device, arch.layers));
    }
    let bytes = |stage: usize, blocks: usize| {
        held(Site { share: Share { stage, of, start: 0, blocks }, ..Site::of(&all[stage]) })
    };
    let each = bytes(0, arch.layers).saturating_sub(bytes(0, 1)) / (arch.layers as u64).saturating_sub(1).max(1);
    let fixed: Vec<u64> = (0..of).map(|stage| bytes(stage, 1).saturating_sub(each)).collect();
    let known: Option<Vec<u64>> = memory.iter().copied().collect();
    let memory = known.filter(|known| known.len() == of).unwrap_or(vec![1; of]);
    Placement::new(devices, &placement::shares(devices, arch.layers, &fixed, each, &memory)?)
}

/// Refuses what cannot be trained of a model, or not like this, whatever the data and the device are.
///
/// # Errors
/// [`Error::Config`] for storage that full fine-tuning cannot use, and for modules that the model does not have.
pub fn check(config: &Config, architecture: &Architecture) -> Result<()> {
    let hold = config.run.storage;
    match config.adapter.kind {
        AdapterKind::Lora => lora_settings(config).check(architecture),
        AdapterKind::None if hold != Hold::Auto && hold.trained() != hold => {
            let problem = format!(
                "[run] storage: only frozen weights can be held in {hold}; use an adapter, or hold them in bf16"
            );
            Err(Error::Config { problems: vec![problem] })
        }
        AdapterKind::None => Ok(()),
    }
}

/// The model that a run starts from, on one device, without an adapter, to be gone through like this.
///
/// # Errors
/// As [`base_on`].
pub fn base(config: &Config, files: &ModelFiles, device: &Device, execution: Execution) -> Result<Model> {
    base_on(config, files, Placement::whole(device, files.architecture.layers), &[execution], &mut |_, _| {})
}

/// The model that a run starts from, on its devices, without an adapter, to be gone through like this on each.
///
/// # Errors
/// What the weights lack, device errors; as [`check`]; [`Error::Config`] where run.device_memory is less than a step of one
/// token takes.
pub fn base_on(
    config: &Config,
    files: &ModelFiles,
    mut placement: Placement,
    executions: &[Execution],
    progress: Progress,
) -> Result<Model> {
    check(config, &files.architecture)?;
    check_compute(config, &placement)?;
    let (arch, weights) = (&files.architecture, files.weights.as_deref());
    let budgets = config.run.device_memory.as_ref().map_or(Vec::new(), |sizes| sizes.bytes());
    let sites = Site::of_each(&placement);
    for (index, (stage, execution)) in placement.stages_mut().iter_mut().zip(executions).enumerate() {
        stage.resident = execution.resident;
        let least = || Ledger::new(config, arch, weights, 1, Load::LEAST, sites[index], *execution).device_bytes();
        if let (Some(&budget), 0) = (budgets.get(index), execution.resident)
            && let least = least()
            && least > budget
        {
            let problem = format!(
                "[run] device_memory: {} are less than the {} that a step of one token takes on {} with every frozen block left \
                 in its file; take a smaller model",
                bytes(budget),
                bytes(least),
                stage.device.name()
            );
            return Err(Error::Config { problems: vec![problem] });
        }
    }
    let full = config.adapter.kind == AdapterKind::None;
    files.load_onto(&placement, config.run.storage, full, config.run.seed, progress)
}

/// Refuses half precision on devices that were not settled for it ([`Device::computing`]): the page's, which has none.
fn check_compute(config: &Config, placement: &Placement) -> Result<()> {
    let compute = config.run.compute;
    let other = placement.stages().iter().find(|stage| stage.device.compute() != compute);
    match (compute.demanded(), other) {
        (Some(_), Some(stage)) => {
            let name = stage.device.name();
            let problem = format!("[run] compute: {name} does not multiply in half precision here; use auto or f32");
            Err(Error::Config { problems: vec![problem] })
        }
        _ => Ok(()),
    }
}

/// Refuses more tokens at once than the bindings of a device hold, before anything is loaded.
///
/// # Errors
/// [`Error::Limit`], with how many tokens there may be.
pub fn check_tokens(architecture: &Architecture, tokens: usize, device: &Device) -> Result<()> {
    Activations::check(architecture, tokens, device)
}

/// A session at its first step. Sessions made from clones of one base share its memory until they are stepped.
///
/// # Errors
/// An adapter that does not fit the model, device errors.
pub fn session(config: &Config, objective: &Objective, base: Model, execution: Execution) -> Result<Session> {
    session_from(config, objective, base, execution, None)
}

/// The same, whose adapter goes on from `start`.
///
/// # Errors
/// As [`session`]; [`Error::Config`] where `adapter.from` is set and there is no start, and for a start of another rank, alpha
/// or targets than the configuration's.
pub fn session_from(
    config: &Config,
    objective: &Objective,
    base: Model,
    execution: Execution,
    start: Option<&Adapter>,
) -> Result<Session> {
    check_start(config, start)?;
    let untouched = objective.needs_untouched().then(|| base.clone());
    let mut model = base;
    if config.adapter.kind == AdapterKind::Lora {
        // A random model trains everything by default; with an adapter only that.
        model.visit_mut(&mut |p| {
            p.trained = false;
            Ok(())
        })?;
        let settings = lora_settings(config);
        match start {
            Some(start) => model.load_lora(&settings, start.values.clone(), &start.file)?,
            None => model.add_lora(&settings, config.run.seed)?,
        }
    }
    Ok(Session {
        untouched,
        keep: execution.keep,
        together: execution.together,
        seed: mix(config.run.seed, 1),
        ..Session::new(model, *objective, optimiser(config))
    })
}

/// Refuses an adapter to go on from that is not there, or is other than the one that is configured.
fn check_start(config: &Config, start: Option<&Adapter>) -> Result<()> {
    let problems: Vec<String> = match (&config.adapter.from, start) {
        (_, Some(start)) => {
            let problems = lora_settings(config).problems_beside(&start.settings).into_iter();
            problems.map(|(key, problem)| format!("[adapter] {key}: {problem} ({})", start.file)).collect()
        }
        (Some(from), None) => {
            vec![format!("[adapter] from: {from} was not read; leave it out, or go on with temper train")]
        }
        (None, None) => Vec::new(),
    };
    if problems.is_empty() { Ok(()) } else { Err(Error::Config { problems }) }
}

/// The optimiser that a configuration asks for.
pub fn optimiser(config: &Config) -> AdamW {
    let optim = &config.optim;
    AdamW {
        beta1: optim.beta1,
        beta2: optim.beta2,
        epsilon: optim.epsilon,
        weight_decay: optim.weight_decay,
        decay_vectors: false,
        max_grad_norm: optim.max_grad_norm,
        clipping: optim.clipping,
        moments: config.run.moments,
    }
}

/// The shape of the run that a configuration asks for.
///
/// # Errors
/// [`Error::Config`] for a micro-batch that is too small for a document.
pub fn plan(config: &Config, loader: &Loader) -> Result<Plan> {
    let (run, optim) = (&config.run, &config.optim);
    let steps = match (run.steps, run.epochs) {
        (Some(steps), _) => steps,
        (None, epochs) => {
            let epochs = epochs.unwrap_or(1.0);
            let per_epoch = loader.steps_per_epoch(run.batch_tokens, run.accumulation)? as f64;
            // Epochs differ by a step or so, depending on how their order fills the steps.
            let whole = match epochs.floor() {
                few if few <= COUNTED_EPOCHS => {
                    loader.steps_in_epochs(few as u64, run.batch_tokens, run.accumulation)? as f64
                }
                many => many * per_epoch,
            };
            ((whole + epochs.fract() * per_epoch).ceil() as u64).max(1)
        }
    };
    Ok(Plan {
        steps,
        schedule: Schedule::new(
            optim.schedule,
            optim.learning_rate,
            optim.min_rate,
            optim.warmup_ratio,
            optim.warmup_steps,
            steps,
        ),
        batch_tokens: run.batch_tokens,
        accumulation: run.accumulation,
        packing: config.data.packing,
        log_every: run.log_every,
        save_every: run.save_every,
        eval_every: match (run.eval_every, run.evaluations) {
            (0, parts @ 1..) => steps.div_ceil(parts),
            (every, _) => every,
        },
    })
}

/// The adapter that a configuration asks for.
pub fn lora_settings(config: &Config) -> LoraSettings {
    LoraSettings::from(&config.adapter)
}
