//! Training: one step, many steps, and what survives an interruption.

pub mod checkpoint;
pub mod event;
pub mod optimiser;
pub mod run;
pub mod schedule;
pub mod session;
