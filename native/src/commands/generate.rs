//! `temper generate`: a model's answer to a prompt.

use anyhow::Result;
use temper_engine::Device;
use temper_engine::data::{ChatTemplate, Message};
use temper_engine::eval::generate::{Sampling, generate};

use crate::cli::{GenerateArgs, Global};
use crate::inputs::ModelFiles;
use crate::output;

/// Runs the command. Text appears as it is made.
pub fn run(args: GenerateArgs, global: &Global) -> Result<()> {
    let (device, _) = Device::choose(global.device.as_deref())?;
    let files = ModelFiles::open(&args.model)?;
    let tokenizer = files.tokenizer()?;
    let prompt = match tokenizer.chat_template().filter(|_| !args.raw) {
        Some(source) => {
            let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
            let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
            let template = ChatTemplate::new(source, bos.as_deref(), eos.as_deref(), None)?;
            template.render(&[Message::new("user", &args.prompt)], true)?
        }
        None => args.prompt.clone(),
    };
    let prompt = tokenizer.encode(&prompt)?;
    let mut model = files.load_frozen(&device, args.adapter.as_deref())?;
    let sampling = Sampling { temperature: args.temperature.into(), top_p: 1.0, seed: args.seed };
    let room = files.architecture.context.saturating_sub(prompt.len());
    let mut shown = String::new();
    let mut tokens = Vec::new();
    let mut failed = None;
    generate(&mut model, &prompt, args.max_tokens.min(room), sampling, tokenizer.eos_ids(), &mut |token| {
        tokens.push(token);
        // A token may end within a character; it is shown once the character is whole.
        let Ok(text) = tokenizer.decode(&tokens, true) else { return };
        let whole = text.trim_end_matches('\u{FFFD}');
        if let Some(new) = whole.strip_prefix(shown.as_str())
            && !new.is_empty()
        {
            failed = output::text(new).err().or(failed.take());
            shown = whole.to_string();
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => output::text("\n"),
    }
}
