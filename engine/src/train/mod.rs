//! Training: one step, many steps, and what survives an interruption.

pub mod checkpoint;
mod divergence;
pub mod event;
pub mod execution;
mod fit;
pub mod host;
pub mod ledger;
pub mod optimiser;
pub mod prepare;
pub mod result;
pub mod run;
mod samples;
pub mod schedule;
mod selection;
pub mod session;
pub mod settings;
pub mod snapshot;
pub mod work;
