//! Blocks whose matrices are left in their file: in memory while they are used, the next one read while this one computes.
//!
//! Two are held, until others are needed: a pass that turns round, as the backward pass does after the forward pass, finds
//! both there.

#[cfg(not(target_family = "wasm"))]
use std::thread::JoinHandle;

use super::block::Block;
use super::layout::Part;
use super::weight::Weight;
use crate::device::Device;
use crate::error::Result;
use crate::kernels::{InFile, Packed};

/// Blocks that are held or on their way.
const SLOTS: usize = 2;

/// Which blocks are held that lie in their file, and which one is on its way. A clone knows of none.
#[derive(Default)]
pub struct Slots {
    held: Vec<usize>,
    ahead: Option<(usize, Reading)>,
}

impl Clone for Slots {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Slots {
    /// Sees to it that a block can be used, and begins to read the one after it.
    ///
    /// # Errors
    /// What reading gives.
    pub fn enter(&mut self, blocks: &mut [Block], index: usize, next: Option<usize>, device: &Device) -> Result<()> {
        let wanted: Vec<usize> = [Some(index), next]
            .into_iter()
            .flatten()
            .filter(|&wanted| packed(&blocks[wanted]).any(Packed::lies_in_file))
            .collect();
        let coming = wanted.iter().filter(|wanted| !self.held.contains(wanted)).count();
        while self.held.len() + coming > SLOTS
            && let Some(at) = self.held.iter().position(|held| !wanted.contains(held))
        {
            packed_mut(&mut blocks[self.held.remove(at)]).for_each(Packed::release);
        }
        let missing = missing(&blocks[index]);
        if !missing.is_empty() {
            let reading = match self.ahead.take() {
                Some((ahead, reading)) if ahead == index => reading,
                _ => Reading::begin(missing),
            };
            let mut read = reading.end()?.into_iter();
            packed_mut(&mut blocks[index]).for_each(|packed| packed.hold(device, &mut read));
            self.held.push(index);
        }
        if let Some(next) = next {
            let missing = self::missing(&blocks[next]);
            self.ahead = (!missing.is_empty()).then(|| (next, Reading::begin(missing)));
        }
        Ok(())
    }
}

/// What has to be read of a block.
fn missing(block: &Block) -> Vec<InFile> {
    packed(block).flat_map(Packed::missing).cloned().collect()
}

fn packed(block: &Block) -> impl Iterator<Item = &Packed> {
    block.parts().filter_map(|part| match part {
        Part::Linear(linear) => match &linear.weight {
            Weight::Packed(packed, _) => Some(packed),
            Weight::Dense(_) => None,
        },
        Part::Norm(_) => None,
    })
}

fn packed_mut(block: &mut Block) -> impl Iterator<Item = &mut Packed> {
    block.parts_mut().filter_map(|part| match part {
        Part::Linear(linear) => match &mut linear.weight {
            Weight::Packed(packed, _) => Some(packed),
            Weight::Dense(_) => None,
        },
        Part::Norm(_) => None,
    })
}

/// Bytes on their way from a file, on a thread of their own where there are threads.
#[cfg(not(target_family = "wasm"))]
struct Reading(JoinHandle<Result<Vec<Vec<u8>>>>);

#[cfg(not(target_family = "wasm"))]
impl Reading {
    fn begin(files: Vec<InFile>) -> Self {
        Self(std::thread::spawn(move || files.iter().map(InFile::read).collect()))
    }

    fn end(self) -> Result<Vec<Vec<u8>>> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Bytes that are read when they are needed.
#[cfg(target_family = "wasm")]
struct Reading(Vec<InFile>);

#[cfg(target_family = "wasm")]
impl Reading {
    fn begin(files: Vec<InFile>) -> Self {
        Self(files)
    }

    fn end(self) -> Result<Vec<Vec<u8>>> {
        self.0.iter().map(InFile::read).collect()
    }
}
