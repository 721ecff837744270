//! Training: one step, many steps, and what survives an interruption.

pub mod checkpoint;
mod divergence;
pub mod estimate;
pub mod event;
pub mod optimiser;
pub mod prepare;
pub mod result;
pub mod run;
pub mod schedule;
pub mod session;
pub mod settings;
