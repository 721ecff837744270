//! How a run goes through its model. What it computes does not depend on it, to the bit. [`super::fit`] decides it.

use serde::Serialize;

use super::settings::OptimSection;
use crate::config::Config;
use crate::model::Keep;

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
        (self.together || micro_batches == 1) && !clipping.keeps_gradients(max_grad_norm)
    }
}
