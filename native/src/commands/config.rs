//! `temper config`: a configuration with all its defaults, each key explained, or what is known of every key.

use anyhow::Result;
use temper_engine::configuration;

use crate::cli::{ConfigArgs, Global};
use crate::output;
use crate::settings;

/// Runs the command.
pub fn run(args: ConfigArgs, global: &Global) -> Result<()> {
    if args.schema {
        return output::text(&format!("{}\n", serde_json::to_string_pretty(&configuration::schema())?));
    }
    let mut overrides = args.set;
    overrides.extend(global.device.as_ref().map(|device| ("run.device".to_string(), device.clone())));
    let config = match &args.config {
        Some(path) => settings::read(path, &overrides)?,
        None => settings::demo(&overrides)?,
    };
    output::text(&config.to_commented_toml())
}
