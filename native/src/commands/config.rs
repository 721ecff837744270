//! `temper config`: a configuration with all its defaults, each key explained, or what is known of every key.

use anyhow::Result;
use temper_engine::configuration;
use temper_engine::{Config, Error};

use crate::cli::{ConfigArgs, Global};
use crate::inputs::{DEMO_CONFIG, read_data};
use crate::output;

/// Runs the command.
pub fn run(args: ConfigArgs, global: &Global) -> Result<()> {
    if args.schema {
        return output::text(&format!("{}\n", serde_json::to_string_pretty(&configuration::schema())?));
    }
    let mut overrides = args.set;
    overrides.extend(global.device.as_ref().map(|device| ("run.device".to_string(), device.clone())));
    let (text, name) = match &args.config {
        Some(path) => {
            let file = path.display().to_string();
            let problem = "a configuration is UTF-8 text".to_string();
            let text =
                String::from_utf8(read_data(&file)?).map_err(|_| Error::Format { file: file.clone(), problem })?;
            (text, file)
        }
        None => (DEMO_CONFIG.to_string(), "the embedded configuration".to_string()),
    };
    output::text(&Config::parse(&text, &name, &overrides)?.to_commented_toml())
}
