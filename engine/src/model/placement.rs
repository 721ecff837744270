//! Which device holds which part of a model: the embedding lies on the first, consecutive blocks on each, the final norm and
//! the head on the last. Where the head is the embedding, both hold it.

use std::fmt;
use std::ops::Range;

use super::architecture::Architecture;
use crate::device::Device;
use crate::devices::Devices;
use crate::error::{Error, Result};

/// Consecutive blocks on one device.
#[derive(Clone)]
pub struct Stage {
    /// The device.
    pub device: Device,
    /// Its blocks; at least one.
    pub blocks: Range<usize>,
    /// Bytes of the blocks' frozen matrices that stay in memory; those behind them are read from their file each time they
    /// are used.
    pub resident: u64,
}

/// Where a model lies, stage after stage. Never empty.
#[derive(Clone)]
pub struct Placement(Vec<Stage>);

impl Placement {
    /// All on one device.
    pub fn whole(device: &Device, layers: usize) -> Self {
        Self(vec![Stage { device: device.clone(), blocks: 0..layers, resident: u64::MAX }])
    }

    /// The blocks of a model on these devices, so many on each.
    ///
    /// # Errors
    /// [`Error::Device`] where there is not a block for each device.
    pub fn new(devices: &Devices, counts: &[usize]) -> Result<Self> {
        let mut start = 0;
        let stages = devices.all().iter().zip(counts).map(|(device, &count)| {
            start += count;
            Stage { device: device.clone(), blocks: start - count..start, resident: u64::MAX }
        });
        let placement = Self(stages.collect());
        match placement.0.len() == devices.all().len() && placement.0.iter().all(|stage| !stage.blocks.is_empty()) {
            true => Ok(placement),
            false => Err(too_many(devices, counts.iter().sum())),
        }
    }

    /// The stages, first to last.
    pub fn stages(&self) -> &[Stage] {
        &self.0
    }

    /// The stages, first to last.
    pub fn stages_mut(&mut self) -> &mut [Stage] {
        &mut self.0
    }

    /// Where the embedding lies.
    pub fn first(&self) -> &Device {
        &self.0[0].device
    }

    /// Where the final norm and the head lie.
    pub fn last(&self) -> &Device {
        &self.0[self.0.len() - 1].device
    }

    /// Number of the stage that a block belongs to.
    pub fn stage_of(&self, block: usize) -> usize {
        self.0.iter().position(|stage| stage.blocks.contains(&block)).expect("every block is on a device")
    }

    /// Where a block lies.
    pub fn of_block(&self, block: usize) -> &Device {
        &self.0[self.stage_of(block)].device
    }

    /// The cause of an error where that is a device that is lost or memory that it did not have; the error itself
    /// elsewhere.
    pub fn explain(&self, error: Error) -> Error {
        self.0.iter().fold(error, |error, stage| stage.device.explain(error))
    }

    /// Makes room on every device after one ran out of memory ([`Device::make_room`]); false where it helps no more.
    pub fn make_room(&self) -> bool {
        let made: Vec<bool> = self.0.iter().map(|stage| stage.device.make_room()).collect();
        made.contains(&true)
    }

    /// True with more than one device.
    pub fn is_split(&self) -> bool {
        self.0.len() > 1
    }

    /// Refuses to train a matrix that two devices hold: each would step its own copy, by a part of its gradient.
    ///
    /// # Errors
    /// [`Error::Config`] where all weights are trained, the head is the embedding, and there are several devices.
    pub fn check_trained(&self, arch: &Architecture, full: bool) -> Result<()> {
        if !(full && arch.tied_head && self.is_split()) {
            return Ok(());
        }
        let problem = format!(
            "[run] device: this model's head is its embedding, which full fine-tuning would train on two devices ({}, {}) at \
             once; name one device, or train an adapter ([adapter] kind = \"lora\")",
            self.first().name(),
            self.last().name()
        );
        Err(Error::Config { problems: vec![problem] })
    }
}

impl fmt::Display for Placement {
    /// The device's name; of several, each with what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_split() {
            return f.write_str(self.first().name());
        }
        for (index, stage) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{}: {}", stage.device.name(), self.held_by(index))?;
        }
        Ok(())
    }
}

impl Placement {
    /// What a stage holds, in words.
    pub fn held_by(&self, stage: usize) -> String {
        let Range { start, end } = self.0[stage].blocks;
        let blocks = match end - start {
            1 => format!("block {start}"),
            _ => format!("blocks {start} to {}", end - 1),
        };
        let embedding = if stage == 0 { "embedding, " } else { "" };
        let head = if stage + 1 == self.0.len() { ", head" } else { "" };
        format!("{embedding}{blocks}{head}")
    }
}

fn too_many(devices: &Devices, layers: usize) -> Error {
    let (count, names) = (devices.all().len(), devices.names());
    let problem =
        format!("the model has fewer blocks ({layers}) than there are devices ({count}: {names}); name fewer devices");
    Error::Device { problem }
}

/// How many blocks of a model each device takes, so that what it holds, `fixed` and `each` a block, is to its memory as on
/// every other as nearly as whole blocks allow. At least one each.
///
/// # Errors
/// [`Error::Device`] where there are more devices than blocks.
pub fn shares(devices: &Devices, layers: usize, fixed: &[u64], each: u64, memory: &[u64]) -> Result<Vec<usize>> {
    let count = devices.all().len();
    if count > layers {
        return Err(too_many(devices, layers));
    }
    let sum = |values: &[u64]| values.iter().map(|&value| value as f64).sum::<f64>();
    let each = (each as f64).max(1.0);
    let all = sum(fixed) + each * layers as f64;
    let of_memory = all / sum(memory).max(1.0);
    let mut counts = Vec::with_capacity(count);
    let (mut wanted, mut taken) = (0.0, 0);
    for (stage, (&fixed, &memory)) in fixed.iter().zip(memory).enumerate() {
        wanted += ((memory as f64 * of_memory - fixed as f64) / each).max(0.0);
        let behind = count - 1 - stage;
        // Rounded as a sum, so that roundings do not add up; one is left for each device behind.
        let own = match behind {
            0 => layers - taken,
            _ => (wanted.round() as usize).saturating_sub(taken).clamp(1, layers - taken - behind),
        };
        counts.push(own);
        taken += own;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(count: usize) -> Devices {
        Devices::new(vec![Device::cpu(); count]).unwrap()
    }

    fn split(layers: usize, fixed: &[u64], each: u64, memory: &[u64]) -> Vec<usize> {
        shares(&devices(memory.len()), layers, fixed, each, memory).unwrap()
    }

    #[test]
    fn blocks_are_shared_in_proportion_to_memory_with_what_first_and_last_hold_besides() {
        assert_eq!(split(12, &[0, 0], 10, &[1, 1]), [6, 6]);
        assert_eq!(split(12, &[0, 0], 10, &[2, 1]), [8, 4]);
        assert_eq!(split(12, &[0, 0, 0], 10, &[1 << 40, 1 << 41, 3 << 40]), [2, 4, 6]);
        // A head as large as four blocks.
        assert_eq!(split(12, &[0, 40], 10, &[1, 1]), [8, 4]);
        assert_eq!(split(11, &[0, 0], 10, &[1, 1]), [6, 5]);
    }

    #[test]
    fn every_device_has_a_block_however_little_memory_it_has() {
        assert_eq!(split(4, &[0, 0], 10, &[1, 1000]), [1, 3]);
        assert_eq!(split(4, &[0, 0], 10, &[1000, 1]), [3, 1]);
        assert_eq!(split(3, &[1000, 0, 0], 1, &[1, 1, 1]), [1, 1, 1]);
        assert_eq!(split(4, &[0, 0], 0, &[0, 0]).iter().sum::<usize>(), 4);
        let error = shares(&devices(3), 2, &[0; 3], 1, &[1; 3]).unwrap_err();
        assert!(error.is_bad_input() && error.to_string().contains("blocks (2) than there are devices (3"));
    }

    #[test]
    fn a_placement_knows_each_blocks_device_and_says_what_each_holds() {
        let placement = Placement::new(&devices(3), &[2, 1, 3]).unwrap();
        assert_eq!((0..6).map(|block| placement.stage_of(block)).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 2]);
        assert_eq!(placement.to_string(), "CPU: embedding, blocks 0 to 1; CPU: block 2; CPU: blocks 3 to 5, head");
        assert_eq!(Placement::whole(&Device::cpu(), 6).to_string(), "CPU");
        assert!(Placement::new(&devices(2), &[3, 0]).is_err());
        assert!(Placement::new(&devices(2), &[3]).is_err());
    }
}
