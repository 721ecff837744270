// The page's engine, spoken to as the page does, with the settings of which `tfjs.js` is the counterpart.

import { arrived } from "/download.js";
import { Engine } from "/protocol.js";

const engine = new Engine();
let documents;
let peak = 0;

/** Opens the device, loads model and documents, and makes one learner or two. */
async function open({ device, learners, learningRate, tokens, steps, documents: wanted }) {
  const { device: { name, kind, why }, version } = await engine.open(device, "auto", arrived());
  await engine.baseModel();
  documents = wanted;
  const lines = documents.map(({ words }) => JSON.stringify({ text: words.join("") }));
  await engine.ownData(new File([lines.join("\n")], "bench.jsonl"));
  engine.every(0, 0);
  const evaluated = new Promise((resolve) => engine.on("evaluated", resolve));
  await engine.start({
    common: {
      "adapter.kind": "none",
      "optim.learning_rate": String(learningRate),
      "optim.schedule": "constant",
      "optim.warmup_ratio": "0",
      "optim.max_grad_norm": "0",
      "run.batch_tokens": String(tokens),
      // The last step of a run would be followed by an evaluation, and the steps here are timed.
      "run.steps": String(steps + 1),
    },
    left: { "objective.method": "sft" },
    right: learners === 2 ? { "objective.method": "eaft" } : null,
  });
  await evaluated;
  return { version: `Temper ${version}`, device: kind === "cpu" ? `${name}: ${why}` : name };
}

/** Our tokens must be the words that the other side is given as tokens. */
async function check(document) {
  const { words, tokens } = documents[document];
  const ours = (await engine.document(document)).tokens.map(({ text }) => text.trim());
  const same = ours.length === tokens.length && words.every((word, i) => word.trim() === ours[i]);
  if (!same) throw new Error(`document ${document} became other tokens: ${ours.join("|")}`);
}

/** Optimiser steps of every learner; each waits for its frame. */
async function steps(count) {
  const done = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const frame = await engine.step();
    const seconds = (performance.now() - start) / 1e3;
    peak = Math.max(peak, ...frame.learners.map(({ metrics }) => metrics.peak_device_bytes));
    const batch = [...new Set(frame.document)];
    for (const document of batch) await check(document);
    done.push({ seconds, losses: frame.learners.map(({ metrics }) => metrics.loss), documents: batch });
  }
  return done;
}

window.bench = { open, steps, peakBytes: () => peak };
