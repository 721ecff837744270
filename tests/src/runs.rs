//! What tests of whole runs share.

use temper_engine::host::{Clock, Folder};
use temper_engine::running::{Checkpoint, NamedFile};
use temper_engine::{Checkpoints, Document, Host, wait};

/// A face that keeps the newest checkpoint, and for which no time passes.
#[derive(Default)]
pub struct Keeper(pub Vec<NamedFile>);

impl Checkpoints for Keeper {
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> temper_engine::Result<String> {
        self.0 = wait(checkpoint.in_memory())?;
        Ok(format!("step-{step}"))
    }

    fn stays(&mut self, _step: u64) {}

    fn open(&mut self, step: u64) -> temper_engine::Result<Box<dyn Folder>> {
        unreachable!("no such run chooses its result, as of step {step}")
    }
}

impl Clock for Keeper {
    fn seconds(&self) -> f64 {
        0.0
    }
}

impl Host for Keeper {
    fn checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        Some(self)
    }

    fn peak_bytes(&self) -> u64 {
        0
    }
}

/// Eight documents of 9 to 23 tokens, every third token untrained.
pub fn documents() -> Vec<Document> {
    (0..8_u32)
        .map(|i| {
            let length = 9 + 2 * i;
            let tokens = (0..length).map(|t| (i * 37 + t * 11 + t * t) % 200).collect();
            Document { tokens, trained: (0..length).map(|t| t % 3 != 1).collect(), line: i as usize + 1 }
        })
        .collect()
}
