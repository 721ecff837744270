//! `temper bench generate`: what reading a prompt and writing tokens takes out of a cache, one text and several at once,
//! beside reading the whole text again for each token.

use anyhow::Result;
use temper_engine::continuing::Cache;
use temper_engine::inside::rng::Rng;
use temper_engine::{Device, Model, wait};

use super::{Measurement, difference, measure_prepared, refuse_above};
use crate::cli::BenchGenerateArgs;
use crate::inputs::open_model;

/// Largest difference of logits, relative to the largest, between a cache in single precision and a pass over the whole text.
const EQUAL: f64 = 1e-4;
/// The same where the cache holds half precision.
const NEARLY: f64 = 1e-2;
/// Tokens of which recomputation is measured, spread evenly over those that are written.
const RECOMPUTED: usize = 8;

/// Measures what is compared.
pub fn bench_generate(device: &Device, args: &BenchGenerateArgs) -> Result<Vec<Measurement>> {
    let files = open_model(&args.model)?;
    let vocab = files.architecture.vocab;
    let mut model = files.load(device, args.storage, false, 0)?;
    let length = args.prompt + args.tokens;
    let mut rng = Rng::new(17);
    let texts: Vec<Vec<u32>> =
        (0..args.batch).map(|_| (0..length).map(|_| rng.below(vocab) as u32).collect()).collect();
    let error = check(&mut model, device, &texts, args.prompt)?;

    let mut measured = Vec::new();
    let whole = format!("{} + {} tokens", args.prompt, args.tokens);
    let read = &mut || {
        let mut cache = Cache::new(&model, 1, args.prompt)?;
        let hidden = model.read(&mut cache, 0, &texts[0][..args.prompt], &|| false)?.expect("nobody stops it");
        wait(model.rows_of_logits(&hidden)).map(drop)?;
        Ok(())
    };
    let shape = format!("{} tokens", args.prompt);
    let nothing = &mut || Ok(());
    measured.push(measure_prepared(
        device,
        &args.timing,
        "generate",
        "read a prompt",
        &shape,
        args.prompt,
        error,
        nothing,
        read,
    )?);
    let mut counts = vec![1, args.batch];
    counts.dedup();
    for count in counts {
        let texts = &texts[..count];
        let state = std::cell::RefCell::new((&mut model, None));
        let prepare = &mut || {
            let (model, cache) = &mut *state.borrow_mut();
            *cache = Some(filled(model, texts, args.prompt)?);
            Ok(())
        };
        let write = &mut || {
            let (model, cache) = &mut *state.borrow_mut();
            let cache = cache.as_mut().expect("prepared");
            for step in args.prompt..length {
                wait(step_of(model, cache, texts, step))?;
            }
            Ok(())
        };
        let (name, tokens) = (format!("write {count} at once"), args.tokens * count);
        measured.push(measure_prepared(
            device,
            &args.timing,
            "generate",
            &name,
            &whole,
            tokens,
            error,
            prepare,
            write,
        )?);
    }
    let anew = &mut || {
        for nth in 0..RECOMPUTED {
            let end = args.prompt + args.tokens * nth / RECOMPUTED;
            let mut cache = Cache::new(&model, 1, end)?;
            let hidden = model.read(&mut cache, 0, &texts[0][..end], &|| false)?.expect("nobody stops it");
            wait(model.rows_of_logits(&hidden))?;
        }
        Ok(())
    };
    let nothing = &mut || Ok(());
    let name = "read all for each token";
    measured.push(measure_prepared(device, &args.timing, "generate", name, &whole, RECOMPUTED, 0.0, nothing, anew)?);
    Ok(measured)
}

/// A cache that holds a prompt of each text.
fn filled(model: &mut Model, texts: &[Vec<u32>], prompt: usize) -> Result<Cache> {
    let mut cache = Cache::new(model, texts.len(), texts[0].len())?;
    for (at, text) in texts.iter().enumerate() {
        model.read(&mut cache, at, &text[..prompt], &|| false)?;
    }
    Ok(cache)
}

/// Logits behind token `step` of each text.
async fn step_of(
    model: &mut Model,
    cache: &mut Cache,
    texts: &[Vec<u32>],
    step: usize,
) -> temper_engine::Result<Vec<Vec<f32>>> {
    let new: Vec<(usize, &[u32])> = texts.iter().enumerate().map(|(at, text)| (at, &text[step..=step])).collect();
    let hidden = model.extend(cache, &new)?;
    model.rows_of_logits(&hidden).await
}

/// Largest difference between logits out of a cache and those of whole texts, over some tokens behind the prompts.
fn check(model: &mut Model, device: &Device, texts: &[Vec<u32>], prompt: usize) -> Result<f64> {
    let mut cache = filled(model, texts, prompt)?;
    let end = texts[0].len().min(prompt + 4);
    let mut worst = 0.0_f64;
    let mut found = Vec::new();
    for step in prompt..end {
        found.push(wait(step_of(model, &mut cache, texts, step))?);
    }
    let vocab = model.arch.vocab;
    for (at, text) in texts.iter().enumerate() {
        let whole = wait(model.logits(&text[..end]))?;
        for (step, found) in (prompt..end).zip(&found) {
            worst = worst.max(difference(&found[at], &whole[step * vocab..][..vocab]));
        }
    }
    let single = device.is_cpu() || device.is_software();
    refuse_above("what comes out of the cache", worst, if single { EQUAL } else { NEARLY })?;
    Ok(worst)
}
