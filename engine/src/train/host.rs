//! What a run asks of the program around it.

use super::checkpoint::Checkpoint;
use crate::error::Result;
use crate::host::{Clock, Folder};

/// What a run needs from outside.
pub trait Host: Clock {
    /// Where checkpoints go; `None` where none are kept.
    fn checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        None
    }

    /// True where somebody looks at the rows of every logged step ([`Event::Rows`](super::event::Event::Rows)).
    fn shows_rows(&self) -> bool {
        false
    }

    /// Highest device memory so far, in bytes; 0 where nobody knows.
    fn peak_bytes(&self) -> u64;

    /// True once the user wants to stop: after the step under way, or in the middle of an evaluation, which is then made again
    /// by whoever goes on.
    fn stop_requested(&self) -> bool {
        false
    }

    /// What was left under this name by [`Host::keep`], where the host keeps such things for the runs of one folder.
    ///
    /// # Errors
    /// What is there and cannot be read.
    fn recall(&mut self, _name: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Keeps what is costly to make again and only depends on what the run begins with.
    ///
    /// # Errors
    /// Whatever ends the run, such as a full disk.
    fn keep(&mut self, _name: &str, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Progress within an evaluation: micro-batches done, of.
    fn evaluating(&mut self, _what: &str, _done: usize, _of: usize) {}
}

/// Where a host keeps checkpoints.
pub trait Checkpoints {
    /// Stores a checkpoint so that it is complete or absent, and returns its name for people.
    ///
    /// # Errors
    /// Whatever ends the run, such as a full disk.
    fn save(&mut self, step: u64, checkpoint: &Checkpoint) -> Result<String>;

    /// Said before a checkpoint is stored: the one of this earlier step will be asked for, and has to stay.
    fn stays(&mut self, step: u64);

    /// The files of a checkpoint that had to stay.
    ///
    /// # Errors
    /// Where it is not there any more.
    fn open(&mut self, step: u64) -> Result<Box<dyn Folder>>;
}
