// `temper bench web`: the page's engine and TensorFlow.js train the same model on the same batches in the same browser,
// a step each in turn, so that whatever else the machine does disturbs both. Both must find the same losses first.
//
//   node bench.mjs [--tokens 512] [--repeat 5] [--device webgpu|cpu] [--json] [--alone | --workers]
//
// `--alone` measures TensorFlow.js without ours, which needs no built page. `--workers` measures the page itself on the CPU, with its own
// settings and all that it draws: one worker for both learners against one for each.

import { createReadStream, existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { delimiter, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { chromium } from "playwright-core";

const DEVICES = ["webgpu", "cpu"];
/** Largest difference between the two sides' losses, in nats. */
const TOLERANCE = 1e-3;
/** Tokens of a document, where the batch is not shorter. */
const DOCUMENT = 128;
/** Small enough for the losses of both sides to stay together over all steps. */
const LEARNING_RATE = 1e-4;
/** Steps before the timed ones: shaders are compiled and memory is taken. */
const WARM_UP = 2;
/** Steps that the page plays at a time: as many as from one evaluation to the next. */
const PLAYED = 10;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const FOLDERS = {
  "/bench/": here("."),
  "/tfjs/": here("node_modules/@tensorflow"),
  "/base/": here("../../native/demo/base"),
  "/": here("../dist"),
};

const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** A server on loopback. Its pages are cross-origin isolated: WebAssembly may use threads and clocks are fine. */
async function serve() {
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    const [prefix, folder] = Object.entries(FOLDERS).find(([prefix]) => path.startsWith(prefix)) ?? ["", ""];
    const file = join(folder, path.slice(prefix.length));
    if (!extname(file) || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    });
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/**
 * Documents of known tokens: words that are one token each, and the end of the text. TensorFlow.js gets the tokens, our
 * page the text, and its tokens are compared with the words.
 */
async function makeDocuments(count, length) {
  const text = await readFile(here("../../native/demo/base/tokenizer.json"));
  const { model: { vocab }, added_tokens: [end] } = JSON.parse(text);
  const words = Object.entries(vocab).filter(([word]) => /^Ġ[a-z]{2,}$/.test(word)).sort(([, a], [, b]) => a - b);
  return Array.from({ length: count }, (_, document) => {
    const drawn = Array.from({ length: length - 1 }, (_, i) => {
      const place = document * length + i;
      return words[(place * 7919 + 13) % words.length];
    });
    return {
      words: drawn.map(([word]) => word.replace("Ġ", " ")),
      tokens: [...drawn.map(([, id]) => id), end.id],
    };
  });
}

/** One side of the comparison: a page that can `steps`. */
class Side {
  constructor(variant, page, about) {
    Object.assign(this, { variant, page, about, seconds: [], losses: [], error: 0 });
  }

  static async open(browser, origin, file, variant, options) {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(`${variant}: ${error.message}`));
    await page.goto(`${origin}/bench/${file}`);
    const about = await page.evaluate((options) => bench.open(options), options);
    return new Side(variant, page, about);
  }

  /** @returns {Promise<number[][] | undefined>} Our side's: which documents each step was made of. */
  async steps(what, timed) {
    const done = await this.page.evaluate((what) => bench.steps(what), what);
    if (timed) this.seconds.push(...done.map((step) => step.seconds));
    this.losses.push(...done.map((step) => step.losses[0]));
    return done.map((step) => step.documents);
  }

  /** Largest difference between this side's losses so far and another's. */
  compare(other) {
    const differences = this.losses.map((loss, i) => Math.abs(loss - other.losses[i]));
    this.error = Math.max(...differences);
    if (!(this.error <= TOLERANCE)) {
      throw new Error(
        `${this.variant} and ${other.variant} do not compute the same: losses ${this.losses} and ${other.losses}`,
      );
    }
  }

  async measurement({ tokens, length, browser }) {
    const seconds = this.seconds.toSorted((a, b) => a - b);
    const median = seconds[Math.floor(seconds.length / 2)];
    return {
      bench: "web",
      variant: this.variant,
      shape: `embedded base model, all parameters, ${tokens} tokens in documents of ${length}`,
      browser,
      device: this.about.device,
      version: this.about.version,
      median_s: median,
      min_s: seconds[0],
      max_s: seconds.at(-1),
      tokens_per_second: tokens / median,
      peak_bytes: await this.page.evaluate(() => bench.peakBytes()),
      first_loss: this.losses[0],
      error: this.error,
    };
  }
}

/** Both sides on one kind of device. */
async function compare(device, browser, origin, { tokens, repeat, alone }) {
  const length = Math.min(tokens, DOCUMENT);
  const perStep = tokens / length;
  const total = WARM_UP + repeat;
  // A tenth is held out by our page; no step may end its epoch early.
  const documents = await makeDocuments(Math.ceil((total * perStep) / 0.9) + 10, length);
  const common = { learningRate: LEARNING_RATE, length };
  // WebGPU's kernels for transposed operands are not slower than a transposition.
  const theirs = device === "webgpu"
    ? [["tfjs webgpu", { backend: "webgpu" }]]
    : [["tfjs wasm", { backend: "wasm" }], ["tfjs wasm, careful", { backend: "wasm", careful: true }]];
  const ours = alone ? [] : [[`temper ${device}`, 1], [`temper ${device}, two learners`, 2]];

  const sides = [];
  for (const [variant, learners] of ours) {
    const options = { ...common, device, learners, tokens, steps: total, documents };
    sides.push(await Side.open(browser, origin, "temper.html", variant, options));
  }
  const rivals = [];
  for (const [variant, options] of theirs) {
    rivals.push(await Side.open(browser, origin, "tfjs.html", variant, { ...common, ...options }));
  }

  let step = 0;
  async function turn(count, timed) {
    let batches = Array.from({ length: count }, (_, i) =>
      Array.from({ length: perStep }, (_, j) => (step + i) * perStep + j));
    for (const side of sides) batches = await side.steps(count, timed);
    for (const side of rivals) {
      await side.steps(batches.map((batch) => batch.map((document) => documents[document].tokens)), timed);
    }
    step += count;
  }
  await turn(WARM_UP, false);
  const [reference, ...others] = [...rivals, ...sides];
  for (const side of others) side.compare(reference);
  for (let i = 0; i < repeat; i++) await turn(1, true);
  for (const side of others) side.compare(reference);

  const about = { tokens, length, browser: `Chromium ${browser.version()}` };
  const measured = [];
  for (const side of [...rivals, ...sides]) {
    measured.push(await side.measurement(about));
    await side.page.close();
  }
  return measured;
}

/** The page as a visitor has it, which plays some steps at a time. */
class Played {
  constructor(variant, page) {
    Object.assign(this, { variant, page, seconds: [] });
  }

  static async open(browser, origin, variant, workers) {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(`${variant}: ${error.message}`));
    // More steps than are made, so that none is the last one, which is followed by more.
    await page.goto(`${origin}/index.html?${new URLSearchParams({ "run.steps": "100000", device: "cpu", workers })}`);
    await page.waitForFunction(() => ["ready", "failed"].includes(document.body.dataset.state), null, { polling: 50 });
    const side = new Played(variant, page);
    side.device = await page.evaluate(() => document.getElementById("workers").textContent);
    return side;
  }

  losses() { return this.page.evaluate(() => window.temper.frames().map(({ losses }) => losses)); }

  frames(count) {
    return this.page.waitForFunction((count) => {
      if (document.body.dataset.state === "failed") throw new Error(document.getElementById("error").textContent);
      return window.temper.frames().length >= count;
    }, count, { polling: 10, timeout: 0 });
  }

  /** Seconds of `PLAYED` steps, each by itself; an evaluation is among them. */
  async play(timed) {
    const { length } = await this.losses();
    await this.page.click("#play");
    await this.frames(length + 1);
    const start = performance.now();
    await this.frames(length + 1 + PLAYED);
    if (timed) this.seconds.push((performance.now() - start) / 1e3 / PLAYED);
    await this.page.click("#pause");
    await this.page.waitForFunction(() => document.body.dataset.state === "paused", null, { polling: 10 });
  }
}

/** One worker for both learners against one for each, in turns. */
async function compareWorkers(browser, origin, { repeat }) {
  const one = await Played.open(browser, origin, "page, one worker", "one");
  const two = await Played.open(browser, origin, "page, a worker a learner", "auto");
  if (!two.device.startsWith("2 workers")) throw new Error(`there are no two workers here: ${two.device}`);
  for (let i = 0; i <= repeat; i++) {
    for (const side of i % 2 ? [two, one] : [one, two]) await side.play(i > 0);
  }
  const [losses, others] = await Promise.all([one.losses(), two.losses()]);
  const both = Math.min(losses.length, others.length);
  if (JSON.stringify(losses.slice(0, both)) !== JSON.stringify(others.slice(0, both))) {
    throw new Error("one worker and two tell other losses");
  }
  const ratios = one.seconds.map((seconds, i) => seconds / two.seconds[i]).toSorted((a, b) => a - b);
  return [one, two].map(({ variant, device, seconds }) => {
    const sorted = seconds.toSorted((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    return { bench: "web", variant, shape: "the page's own settings, a step of both learners", browser: `Chromium ${browser.version()}`,
      device, median_s: median, min_s: sorted[0], max_s: sorted.at(-1), steps_per_second: 1 / median,
      ...(variant === two.variant ? { times_one_worker: ratios[Math.floor(ratios.length / 2)] } : {}) };
  });
}

/** Ours against each of theirs in tokens per second, and two learners against one in time. */
function addRatios(measured) {
  const [one, two] = measured.filter(({ variant }) => variant.startsWith("temper"));
  if (!one) return;
  const theirs = measured.filter(({ variant }) => variant.startsWith("tfjs"));
  one.times_faster_than = Object.fromEntries(theirs.map((m) => [m.variant, m.median_s / one.median_s]));
  two.times_one_learner = two.median_s / one.median_s;
}

function asText(m) {
  const ms = (seconds) => (seconds * 1e3).toFixed(1);
  if (m.steps_per_second) {
    return `${m.variant.padEnd(28)} ${ms(m.median_s).padStart(10)} ms (${ms(m.min_s)} to ${ms(m.max_s)})  ${
      m.steps_per_second.toFixed(2).padStart(8)} steps/s${m.times_one_worker ? `  ${m.times_one_worker.toFixed(2)} x one worker` : ""}`;
  }
  const ratios = Object.entries(m.times_faster_than ?? {}).map(([name, ratio]) => `  ${ratio.toFixed(2)} x ${name}`);
  if (m.times_one_learner) ratios.push(`  ${m.times_one_learner.toFixed(2)} x the time of one`);
  return `${m.variant.padEnd(28)} ${ms(m.median_s).padStart(10)} ms (${ms(m.min_s)} to ${ms(m.max_s)})`
    + `  ${m.tokens_per_second.toFixed(0).padStart(8)} tokens/s  ${(m.peak_bytes / 2 ** 20).toFixed(1).padStart(8)} MiB`
    + `  error ${m.error.toExponential(1)}${ratios.join("")}`;
}

function readArguments() {
  const { values } = parseArgs({
    options: {
      tokens: { type: "string", default: "512" },
      repeat: { type: "string", default: "5" },
      device: { type: "string" },
      chromium: { type: "string", default: "chromium" },
      json: { type: "boolean", default: false },
      alone: { type: "boolean", default: false },
      workers: { type: "boolean", default: false },
    },
  });
  if (values.device && !DEVICES.includes(values.device)) {
    throw new Error(`--device ${values.device}: expected ${DEVICES.join(" or ")}`);
  }
  const tokens = Number(values.tokens);
  const repeat = Number(values.repeat);
  if (!(Number.isInteger(tokens) && tokens >= 2 && (tokens <= DOCUMENT || tokens % DOCUMENT === 0))) {
    throw new Error(`--tokens ${values.tokens}: expected 2 to ${DOCUMENT}, or a multiple of ${DOCUMENT}`);
  }
  if (!(Number.isInteger(repeat) && repeat >= 1)) throw new Error(`--repeat ${values.repeat}: expected at least 1`);
  return { ...values, tokens, repeat };
}

/** A program by its path, or by its name as a shell finds it. */
function findProgram(name) {
  const places = name.includes("/") ? [name] : process.env.PATH.split(delimiter).map((folder) => join(folder, name));
  const found = places.find((place) => existsSync(place));
  if (!found) throw new Error(`there is no ${name} here; name Chromium's program with --chromium`);
  return found;
}

async function main() {
  const options = readArguments();
  if (!options.alone && !existsSync(join(FOLDERS["/"], "index.html"))) {
    throw new Error("the page is not built; build it with: cargo xtask web build");
  }
  const server = await serve();
  const origin = `http://127.0.0.1:${server.address().port}`;
  const browser = await chromium.launch({
    executablePath: findProgram(options.chromium),
    args: [
      "--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
  try {
    const tell = (measured) => measured.forEach((m) => console.log(options.json ? JSON.stringify(m) : asText(m)));
    if (options.workers) return tell(await compareWorkers(browser, origin, options));
    for (const device of options.device ? [options.device] : DEVICES) {
      const measured = await compare(device, browser, origin, options);
      addRatios(measured);
      tell(measured);
    }
  } finally {
    await browser.close();
    server.close();
  }
}

await main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
