//! `temper bench scan`: what `temper scan` takes beyond a bare forward pass over the same tokens: embedding, blocks,
//! final norm and the logits of every token, of which nothing is read but one number.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use temper_engine::inside::data::{MicroBatch, pack};
use temper_engine::inside::kernels::tensor;
use temper_engine::inside::loss::plan::{HeadLimits, head_plan};
use temper_engine::inside::model::Keep;
use temper_engine::scan::{Classes, Fidelity, TokenScore, score};
use temper_engine::{Device, Document, Error, Model, Objective, perplexity, wait};

use super::{InTurns, difference, objective, refuse};
use crate::cli::BenchScanArgs;
use crate::commands::scan::counts::Counts;
use crate::inputs::{open_model, read_data};
use crate::output;

/// One JSON line.
#[derive(Debug, Serialize)]
struct Compared {
    #[serde(flatten)]
    timed: InTurns,
    tokens_per_second: f64,
    /// How far its mean loss is from that of `temper eval`, relatively.
    error: f64,
}

/// Runs the benchmark: after one turn that is not timed, each turn times every variant once.
pub fn run(device: &Device, args: &BenchScanArgs) -> Result<()> {
    let files = open_model(&args.model)?;
    let tokenizer = files.tokenizer()?;
    let text = String::from_utf8(read_data("embedded:general.txt")?)?;
    let ids = tokenizer.encode(&text)?;
    if ids.len() < args.tokens {
        let problem = format!("--tokens: the embedded text has only {} for this tokenizer; ask for fewer", ids.len());
        return Err(Error::Config { problems: vec![problem] }.into());
    }
    let window = files.architecture.context.min(512);
    let documents = perplexity::windows(&ids[..args.tokens], window);
    let given: Vec<&Document> = documents.iter().collect();
    let batches = pack(&given, window.max(perplexity::WINDOW), true)?;
    let gate = objective("eaft")?;
    let mut model = files.load(device, temper_engine::models::Hold::Auto, false, 0)?;

    let mut classes = Classes::new(tokenizer);
    let (scores, _) = scan(&mut model, &given, &gate, &mut classes)?;
    let mean = |scores: &[TokenScore]| scores.iter().map(|s| f64::from(s.stats.ce)).sum::<f64>() / scores.len() as f64;
    let eval = wait(perplexity::rows(&mut model, &documents, 20, &mut |_, _| {}))?;
    let error = difference(&[mean(&scores) as f32], &[perplexity::score(&eval).loss as f32]);
    refuse("the loss of the scan", error)?;
    drop(scores);

    let names = ["bare forward", "loss and entropies (eval)", "scan"];
    let mut seconds = [const { Vec::new() }; 3];
    for turn in 0..=args.timing.repeat {
        for (which, seconds) in seconds.iter_mut().enumerate() {
            let begun = Instant::now();
            match which {
                0 => bare(&mut model, &batches)?,
                1 => drop(wait(perplexity::rows(&mut model, &documents, 20, &mut |_, _| {}))?),
                _ => drop(scan(&mut model, &given, &gate, &mut classes)?),
            }
            // The first turn prepares.
            if turn > 0 {
                seconds.push(begun.elapsed().as_secs_f64());
            }
        }
    }
    let shape = format!("{} tokens in windows of {window}", args.tokens);
    for (variant, own) in names.into_iter().zip(&seconds) {
        let timed = InTurns::of("scan", variant, &shape, device, own, &seconds[0]);
        let tokens_per_second = args.tokens as f64 / timed.median_s;
        let compared = Compared { timed, tokens_per_second, error: if variant == "scan" { error } else { 0.0 } };
        if args.timing.json {
            output::json(&compared)?;
        } else {
            output::text(&format!(
                "{variant:<28} {:>10.1} ms ({:.1} to {:.1})  {tokens_per_second:>8.0} tokens/s  {:.3} of the bare pass\n",
                compared.timed.median_s * 1e3,
                compared.timed.min_s * 1e3,
                compared.timed.max_s * 1e3,
                compared.timed.ratio
            ))?;
        }
    }
    Ok(())
}

/// All that the command does with the documents, but for its files.
fn scan(
    model: &mut Model,
    documents: &[&Document],
    gate: &Objective,
    classes: &mut Classes,
) -> Result<(Vec<TokenScore>, Counts)> {
    let mut fidelity = Fidelity::default();
    let scores = wait(score(model, documents, gate, &mut fidelity))?;
    let mut counts = Counts::new(1);
    for score in &scores {
        let document = documents[score.document as usize];
        let class = classes.of(Some(document.tokens[score.position as usize - 1]), score.token)?;
        counts.add(0, score.position, class, score);
    }
    Ok((scores, counts))
}

/// Logits of every scored token, chunk by chunk; one number of each chunk is read, since only that waits for it.
fn bare(model: &mut Model, batches: &[MicroBatch]) -> Result<()> {
    for batch in batches {
        let forward = model.forward(batch, Keep::Nothing, None)?;
        let Some(trained) = model.trained_rows(batch, &forward)? else { continue };
        let device = model.placement().last();
        let [rows, width] = trained.hidden.dims();
        let limits = HeadLimits::new(device.max_binding_bytes(), u64::MAX);
        let at_once = head_plan(rows, width, model.head().rows(), limits)?.rows_per_chunk;
        let mut last = None;
        for start in (0..rows).step_by(at_once) {
            let chunk = tensor::rows(&trained.hidden, start..(start + at_once).min(rows));
            last = model.head().logits(device, &chunk)?.pop();
        }
        if let Some(logits) = last {
            let columns = logits.dims()[1];
            let corner = temper_engine::inside::kernels::Columns { offset: columns - 1, width: 1 };
            let column = temper_engine::inside::kernels::elementwise::columns(device, &logits, corner)?;
            wait(tensor::read(&column))?;
        }
    }
    Ok(())
}
