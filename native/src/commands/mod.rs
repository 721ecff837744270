//! One module a command; each has `run(args, &Global) -> anyhow::Result<()>`, without the second where it uses no device.

pub mod bench;
pub mod chat;
pub mod compare;
pub mod config;
pub mod devices;
pub mod eval;
pub mod export;
pub mod fabricate;
pub mod generate;
pub mod init;
pub mod logits;
pub mod loss;
pub mod plan;
pub mod quantize;
pub mod scan;
pub mod train;
pub mod web;
