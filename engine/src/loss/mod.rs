//! The loss: a table of objectives, and a head that evaluates any of them without ever holding all logits.

pub mod head;
pub mod objective;
pub mod plan;
pub mod ready;
