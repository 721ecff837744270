// Holds the engine. Requests are carried out one after another, since the engine is one object; while it plays, each pull of
// an event is one such piece of work, so that whatever the page asks for comes between two. What comes next, and when the
// run is over, the engine says (`Lab.next`); here it is only passed on. `protocol.js` documents the messages.

import lengths from "./lengths.js";

const GIB = 2 ** 30;
const GPU = "the GPU that this browser offers";
const GPU_IN_SOFTWARE = "WebGPU in software, as asked for; the CPU is faster";
/** A WebAssembly memory ends at 4 GiB; some is left for what is not counted. */
const CPU_LIMIT = 3.5 * GIB;

let lab = null;
let device = "cpu";
let dead = "";
let queue = Promise.resolve();
let playing = null;

const post = (event, detail, transfer = []) => self.postMessage({ event, detail }, transfer);

/** Carries out `work` after everything that was asked for before. */
function later(work) {
  const done = queue.then(work);
  queue = done.catch(() => {});
  return done;
}

/** Errors of the engine are plain objects; anything else that is thrown is a trap, after which its memory is not to be trusted. */
function refusal(error) {
  if (error && typeof error.kind === "string") return { kind: error.kind, message: error.message };
  if (globalThis.WebAssembly && error instanceof WebAssembly.RuntimeError) {
    dead = `the engine stopped unexpectedly (${error.message}); reload the page. What was downloaded is safe.`;
    return { kind: "page", message: dead };
  }
  return { kind: "page", message: String(error?.message ?? error) };
}

const MODULE = "temper_web_bg.wasm";
const DEMO = "demo.safetensors";
/** Bytes that have come, as they are unpacked, and how many there will be. */
const coming = { done: 0, told: 0, of: lengths[MODULE] + lengths[DEMO] };

/** Fetches a file and tells how much of it has come. */
async function get(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw { kind: "page", message: `${name}: ${response.status} ${response.statusText}` };
  const counter = new TransformStream({ transform(chunk, to) {
    coming.done += chunk.byteLength;
    if (coming.done - coming.told > coming.of / 200 || coming.done >= coming.of) {
      coming.told = coming.done;
      post("loading", { what: "", done: coming.done, of: coming.of });
    }
    to.enqueue(chunk);
  } });
  // What streaming compilation asks of a response.
  const headers = { "Content-Type": response.headers.get("Content-Type") };
  return new Response(response.body.pipeThrough(counter), { headers });
}

async function load(kind, software, assets, compiled, fresh) {
  // A second instance needs a module of its own: the first may have stopped half-way.
  const module = await import(fresh ? "./temper_web.js?again" : "./temper_web.js");
  await module.default({ module_or_path: compiled });
  return { lab: await module.Lab.open(kind, software, assets), version: module.version() };
}

/** What WebGPU would run on, or why there is none. */
async function findWebGpu() {
  if (!self.isSecureContext) return { why: "WebGPU needs a secure address: https, or localhost" };
  if (!navigator.gpu) return { why: "this browser does not offer WebGPU" };
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  if (!adapter) return { why: "this browser offers WebGPU but no GPU to go with it" };
  const { architecture = "", description = "", isFallbackAdapter } = adapter.info ?? {};
  const software = Boolean(isFallbackAdapter) || /swiftshader|llvmpipe|basic render/i.test(`${architecture} ${description}`);
  return { why: "", software };
}

async function open({ device: wanted }) {
  if (!globalThis.WebAssembly) throw { kind: "page", message: "this browser has no WebAssembly, or it is switched off" };
  const [compiled, assets, found] = await Promise.all([
    get(MODULE).then((response) => WebAssembly.compileStreaming(response)),
    get(DEMO).then(async (response) => new Uint8Array(await response.arrayBuffer())),
    wanted === "cpu" ? { why: "the CPU, as asked for" } : findWebGpu(),
  ]);
  // As the command does: never in silence a GPU that a processor plays, which is slower than that processor by itself.
  const played = found.software && wanted === "auto";
  let why = played ? "no hardware GPU, and this browser's WebGPU in software is slower than the CPU" : found.why;
  let fresh = false;
  if (!why) {
    try {
      const opened = await load("webgpu", found.software, assets, compiled, fresh);
      const selfTest = await opened.lab.self_test();
      if (selfTest.passed) return opened_(opened, "webgpu", found.software ? GPU_IN_SOFTWARE : GPU, selfTest);
      const failed = selfTest.checks.filter((check) => !check.passed);
      why = `WebGPU failed its self-test (${failed.map((c) => `${c.kernel}: ${c.message}`).join("; ")})`;
    } catch (error) {
      why = `WebGPU could not be used: ${refusal(error).message}`;
      dead = "";
    }
    fresh = true;
  }
  if (wanted === "webgpu") throw { kind: "device", message: `${why}; choose the CPU, or automatic` };
  const opened = await load("cpu", false, assets, compiled, fresh);
  const selfTest = await opened.lab.self_test();
  if (!selfTest.passed) {
    const failed = selfTest.checks.filter((check) => !check.passed);
    throw { kind: "device", message: `the CPU failed its self-test: ${failed.map((c) => c.kernel).join(", ")}` };
  }
  return opened_(opened, "cpu", why, selfTest);
}

function opened_(opened, kind, why, selfTest) {
  lab = opened.lab;
  device = kind;
  const name = kind === "cpu" ? "CPU (WebAssembly)" : lab.device_name();
  // The module is built with SIMD: it would not have compiled here without.
  return { device: { kind, name, why, simd: true }, version: opened.version, selfTest };
}

async function model({ files }) {
  if (!files) return lab.base_model();
  const contents = [];
  for (const file of files) {
    if (file.size > CPU_LIMIT / 2) {
      const found = (file.size / GIB).toFixed(2);
      throw { kind: "limit", message: `${file.name} has ${found} GiB, and a page can hold ${CPU_LIMIT / 2 / GIB} GiB of files` };
    }
    post("loading", { what: file.name, done: contents.length, of: files.length });
    contents.push(new Uint8Array(await file.arrayBuffer()));
  }
  return lab.own_model(files.map((file) => file.name), contents);
}

async function data({ set, file }) {
  if (!file) return lab.data_set(set);
  if (file.size > GIB / 4) throw { kind: "limit", message: `${file.name}: at most 256 MiB of data fit here` };
  return lab.own_data(file.name, new Uint8Array(await file.arrayBuffer()));
}

/** Browsers say how much memory there is only roughly, and of a GPU's not at all: half of what they say may be used. */
function allowedBytes() {
  const machine = (navigator.deviceMemory ?? 4) * GIB;
  return Math.min(machine / 2, CPU_LIMIT);
}

/** Passes the next event on and returns it; null where the run is over. */
async function pull() {
  const told = await lab.next();
  // That the run is over is told as a pause.
  if (told && told.event !== "finished") post(told.event, told.detail);
  return told;
}

/** Pulls all that is left to tell before the next step. */
async function settle() {
  while (!lab.is_between_steps()) await pull();
}

function start({ settings }) {
  const begun = lab.start(JSON.stringify(settings));
  // What is measured before the first step follows the answer.
  later(settle).catch((error) => post("warning", { message: refusal(error).message }));
  return begun;
}

/** One step of both, with all that follows it; null where the run is over. */
async function step() {
  await settle();
  let told;
  do told = await pull();
  while (told && told.event !== "frame");
  await settle();
  return told?.detail ?? null;
}

/** An answer that is told as an event too. */
async function toldToo(event, answer) {
  const detail = await answer;
  post(event, detail);
  return detail;
}

function play() {
  if (playing) return;
  const mine = (playing = {});
  const turn = async () => {
    if (playing !== mine) return;
    try {
      const told = await later(pull);
      if (playing !== mine) return;
      if (!told || told.event === "finished") return stop("finished", "");
      // Messages that have arrived meanwhile are heard before the next pull.
      setTimeout(turn, 0);
    } catch (error) {
      if (playing === mine) stop("failed", refusal(error).message);
    }
  };
  turn();
}

function stop(reason, message) {
  playing = null;
  post("paused", { reason, message });
}

async function pause() {
  if (!playing) return;
  playing = null;
  await later(settle);
  post("paused", { reason: "asked", message: "" });
}

const commands = {
  open,
  model,
  data,
  estimate: ({ settings }) => lab.estimate(JSON.stringify(settings), allowedBytes()),
  start,
  step,
  every: ({ evaluate, sample }) => lab.every(evaluate, sample),
  evaluate: () => toldToo("evaluated", lab.evaluate()),
  sample: ({ prompts, tokens }) => toldToo("samples", lab.sample(JSON.stringify(prompts), tokens)),
  document: ({ document }) => lab.document(document),
  inspect: ({ document, who }) => lab.inspect(document, who),
  candidates: ({ document, position, who }) => lab.candidates(document, position, who),
  dispute: ({ prompt, text, temperature }) => lab.dispute(prompt, text, temperature),
  quotes: () => lab.quotes(),
  beginning: () => lab.beginning(),
  change: ({ settings }) => lab.change(JSON.stringify(settings)),
  checkpoint: () => lab.checkpoint(),
  restore: ({ bytes }) => lab.restore(bytes),
  result: ({ side }) => lab.result(side),
};

/** Heard at once, even while a step is under way. */
const immediate = { play, pause };

self.addEventListener("message", async ({ data: { id, command, ...fields } }) => {
  try {
    if (dead) throw { kind: "page", message: dead };
    if (command !== "open" && !lab) throw { kind: "page", message: "the engine is not open" };
    const result = immediate[command] ? await immediate[command](fields) : await later(() => commands[command](fields));
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: refusal(error) });
  }
});
