// Holds the engine, or one half of it and the way to the other (`labs.js`). Requests are carried out one after another, since the engine
// is one object; while it plays, each pull of an event is one such piece of work, so that whatever the page asks for comes between
// two. What comes next, and when the run is over, the engine says (`Lab.next`); here it is only passed on. `protocol.js` documents
// the messages.

import { openLab } from "./instance.js";
import { Elsewhere, Labs } from "./labs.js";
import { refusal, stopped } from "./refusals.js";

const GIB = 2 ** 30;
const GPU = "the GPU that this browser offers";
const GPU_IN_SOFTWARE = "WebGPU in software, as asked for; the CPU is faster";
/** A WebAssembly memory ends at 4 GiB; some is left for what is not counted. */
const CPU_LIMIT = 3.5 * GIB;

let labs = null;
let device = "cpu";
let dead = null;
let queue = Promise.resolve();
let playing = null;

const post = (event, detail, transfer = []) => self.postMessage({ event, detail }, transfer);

/** Carries out `work` after everything that was asked for before. */
function later(work) {
  const done = queue.then(work);
  queue = done.catch(() => {});
  return done;
}

/** After a trap, or without its GPU, nothing else is done: the page is told once, and refuses by itself what it is asked from then on. */
function die(kind, message) {
  if (dead) return;
  dead = { kind, message };
  playing = null;
  post("dead", dead);
}

function refuseIfDead() {
  if (dead) throw dead;
}

/** What the page is told of an error. */
function failure(error) {
  const { kind, message, fatal } = refusal(error);
  if (fatal) die(kind, message);
  return { kind, message };
}

// A trap in a call that awaits rejects nothing: its promise is never settled, and what waits behind it would wait for
// ever.
self.addEventListener("error", (event) => {
  event.preventDefault();
  die("page", stopped(event.error?.message ?? event.message));
});

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

/** What `prepare` found out. */
let prepared = null;

/** Finds out what there is to compute on and starts the second worker, while the files that `open` takes are on their way. */
async function prepare({ device: wanted, workers }) {
  const found = wanted === "cpu" ? { why: "the CPU, as asked for" } : await findWebGpu();
  // As the command does: never in silence a GPU that a processor plays, which is slower than that processor by itself.
  const played = found.software && wanted === "auto";
  const why = played ? "no hardware GPU, and this browser's WebGPU in software is slower than the CPU" : found.why;
  const alone = workers === "one" ? "as asked for"
    : navigator.hardwareConcurrency < 2 ? "this browser offers one thread of the processor" : "";
  const second = why && wanted !== "webgpu" && !alone ? new Elsewhere() : null;
  prepared = { wanted, software: found.software, why, alone, second };
}

async function open({ compiled, assets }) {
  const { wanted, software, alone, second } = prepared;
  let { why } = prepared;
  let again = false;
  if (!why) {
    try {
      const opened = await openLab("webgpu", software, assets, compiled);
      const selfTest = await opened.lab.self_test();
      if (selfTest.passed) {
        labs = new Labs(opened.lab, post, { alone: "the GPU computes for both in turn" });
        return opened_(opened, "webgpu", software ? GPU_IN_SOFTWARE : GPU, selfTest);
      }
      const failed = selfTest.checks.filter((check) => !check.passed);
      why = `WebGPU failed its self-test (${failed.map((c) => `${c.kernel}: ${c.message}`).join("; ")})`;
    } catch (error) {
      why = `WebGPU could not be used: ${refusal(error).message}`;
    }
    again = true;
  }
  if (wanted === "webgpu") throw { kind: "device", message: `${why}; choose the CPU, or automatic` };
  // Asked first: from here on this worker is busy.
  second?.open(compiled, assets);
  const opened = await openLab("cpu", false, assets, compiled, again);
  const selfTest = await opened.lab.self_test();
  if (!selfTest.passed) {
    const failed = selfTest.checks.filter((check) => !check.passed);
    throw { kind: "device", message: `the CPU failed its self-test: ${failed.map((c) => c.kernel).join(", ")}` };
  }
  labs = new Labs(opened.lab, post, { alone, second, compiled, assets });
  return opened_(opened, "cpu", why, selfTest);
}

function opened_(opened, kind, why, selfTest) {
  device = kind;
  const name = kind === "cpu" ? "CPU (WebAssembly)" : opened.lab.device_name();
  // The module is built with SIMD: it would not have compiled here without.
  return { device: { kind, name, why, simd: true }, version: opened.version, selfTest };
}

async function model({ files }) {
  if (!files) return labs.give("model", (lab) => lab.ask("base_model"), true);
  for (const file of files) {
    if (file.size > CPU_LIMIT / 2) {
      const found = (file.size / GIB).toFixed(2);
      throw { kind: "limit", message: `${file.name} has ${found} GiB, and a page can hold ${CPU_LIMIT / 2 / GIB} GiB of files` };
    }
  }
  return labs.give("model", async (lab) => {
    const contents = [];
    for (const file of files) {
      post("loading", { what: file.name, done: contents.length, of: files.length });
      contents.push(new Uint8Array(await file.arrayBuffer()));
    }
    return lab.ask("own_model", files.map((file) => file.name), contents);
  });
}

async function data({ set, file }) {
  if (!file) return labs.give("data", (lab) => lab.ask("data_set", set), true);
  if (file.size > GIB / 4) throw { kind: "limit", message: `${file.name}: at most 256 MiB of data fit here` };
  return labs.give("data", async (lab) => lab.ask("own_data", file.name, new Uint8Array(await file.arrayBuffer())));
}

/** Browsers say how much memory there is only roughly, and of a GPU's not at all: half of what they say may be used. */
function allowedBytes() {
  const machine = (navigator.deviceMemory ?? 4) * GIB;
  return Math.min(machine / 2, CPU_LIMIT);
}

/** Pulls all that is left to tell before the next step. */
async function settle() {
  while (!labs.isBetweenSteps) await labs.next();
}

async function start({ settings }) {
  // Whatever was played, the new run waits to be.
  playing = null;
  const begun = await labs.start(settings, allowedBytes());
  // What is measured before the first step follows the answer.
  later(settle).catch((error) => post("warning", { message: failure(error).message }));
  return begun;
}

/** One step of both, with all that follows it; null where the run is over. */
async function step() {
  await settle();
  let told;
  do told = await labs.next();
  while (told && told.event !== "frame");
  await settle();
  return told?.detail ?? null;
}

/** A step whose kernels are timed. */
async function profile() {
  await settle();
  await labs.ask("begin_profile");
  let told, profiled;
  try {
    do told = await labs.next();
    while (told && told.event !== "frame");
  } finally {
    profiled = await labs.ask("end_profile");
  }
  await settle();
  return told ? profiled : null;
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
      const told = await later(() => labs.next());
      if (playing !== mine) return;
      if (!told || told.event === "finished") return stop("finished");
      // Messages that have arrived meanwhile are heard before the next pull.
      setTimeout(turn, 0);
    } catch (error) {
      const told = failure(error);
      if (playing === mine) stop("failed", told);
    }
  };
  turn();
}

function stop(reason, error = {}) {
  playing = null;
  post("paused", { reason, ...error });
}

/** Waits for whatever is under way, be it played or a single step. */
async function pause() {
  playing = null;
  await later(settle);
}

const commands = {
  prepare,
  open,
  model,
  data,
  estimate: ({ settings }) => labs.estimate(settings, allowedBytes()),
  start,
  step,
  profile,
  every: ({ evaluate, sample }) => labs.every(evaluate, sample),
  evaluate: () => toldToo("evaluated", labs.evaluate()),
  sample: ({ prompts, tokens }) => toldToo("samples", labs.sample(prompts, tokens)),
  document: ({ document }) => labs.ask("document", document),
  inspect: ({ document, who }) => labs.look("inspect", who, document),
  candidates: ({ document, position, who }) => labs.look("candidates", who, document, position),
  dispute: ({ prompt, text, temperature }) => labs.ask("dispute", prompt, text, temperature),
  quotes: () => labs.quotes(),
  beginning: () => labs.ask("beginning"),
  change: ({ settings }) => labs.change(settings),
  checkpoint: () => labs.checkpoint(),
  restore: ({ bytes }) => {
    playing = null;
    return labs.restore(bytes);
  },
  result: ({ side }) => labs.result(side),
};

/** Heard at once, even while a step is under way. */
const immediate = { play, pause };

self.addEventListener("message", async ({ data: { id, command, ...fields } }) => {
  try {
    refuseIfDead();
    if (!["prepare", "open"].includes(command) && !labs) throw { kind: "page", message: "the engine is not open" };
    const result = immediate[command] ? await immediate[command](fields) : await later(() => {
      refuseIfDead();
      return commands[command](fields);
    });
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: failure(error) });
  }
});
