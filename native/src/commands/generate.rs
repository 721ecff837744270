//! `temper generate`: a model's answer to a prompt.

use anyhow::Result;
use temper_engine::reading::{ChatTemplate, Message};
use temper_engine::{Devices, Error, Sampling, generate, wait};

use crate::cli::{GenerateArgs, Global};
use crate::inputs::ModelInUse;
use crate::output;

/// Runs the command. Text appears as it is made.
pub fn run(args: GenerateArgs, global: &Global) -> Result<()> {
    let (devices, _) = Devices::choose(global.device.as_deref())?;
    let chosen = ModelInUse::open(&args.model)?;
    let files = &chosen.files;
    let tokenizer = files.tokenizer()?;
    let template = tokenizer.chat_template().filter(|_| !args.raw);
    let untemplated = template.is_none();
    let prompt = match template {
        Some(source) => {
            let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
            let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
            let template = ChatTemplate::new(source, bos.as_deref(), eos.as_deref())?;
            template.render(&[Message::new("user", &args.prompt)], true)?
        }
        None => args.prompt.clone(),
    };
    let mut prompt = tokenizer.encode(&prompt)?;
    if let Some(bos) = tokenizer.bos_id().filter(|_| untemplated && tokenizer.add_bos()) {
        // A template writes it itself.
        prompt.insert(0, bos);
    }
    let context = files.architecture.context;
    let Some(room) = context.checked_sub(prompt.len()).filter(|room| *room > 0) else {
        let problem = format!("--prompt has {} tokens, and the model's context is {context}", prompt.len());
        return Err(Error::Config { problems: vec![problem] }.into());
    };
    let mut model = chosen.load(&devices, 0)?;
    let sampling = Sampling { temperature: args.temperature.into(), top_p: 1.0, seed: args.seed };
    let mut shown = String::new();
    let mut tokens = Vec::new();
    let mut failed = None;
    let count = args.max_tokens.min(room);
    wait(generate(&mut model, &prompt, count, sampling, tokenizer.eos_ids(), &mut |token| {
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
    }))?;
    match failed {
        Some(error) => Err(error),
        None => output::text("\n"),
    }
}
