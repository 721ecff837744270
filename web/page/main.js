// The page: makes its parts, passes the worker's events to them, and keeps the one state that all of them share.
//
// State is `body[data-state]`: `loading`, `ready` (at step 0), `playing`, `paused`, or `failed`. What asks the worker
// for something long goes through `exclusive`, one after the other; what only looks (texts, candidates) does not
// wait.

import { draw, histogram } from "./charts.js";
import { helpForWebGpu, showProfile, showSelfTest, whatToDo } from "./device.js";
import { $, chosen, el, latest, onChosen, Painter, say, settled, SIDES } from "./dom.js";
import { arrived } from "./download.js";
import { describeData, describeModel, metricsLines, save, showEstimate, watchFiles } from "./files.js";
import { bytes, duration, loss, number, percent } from "./format.js";
import { Hero } from "./hero.js";
import { CONFLICT, Landscape, tokensIn } from "./landscape.js";
import { Lessons } from "./lessons.js";
import { Engine, Refusal } from "./protocol.js";
import { Race } from "./race.js";
import { Region } from "./region.js";
import { SAMPLE_EVERY, Samples } from "./samples.js";
import schema from "./schema.js";
import { Scoreboard, showQuotes } from "./score.js";
import { Settings } from "./settings.js";
import { Documents, scaleKey, TextView } from "./text.js";
import { Recording, Timeline } from "./timeline.js";
import { watchTour } from "./tour.js";

const MAPS_EVERY_MS = 100;
const CHARTS_EVERY_MS = 300;
const TEXT_EVERY_MS = 1500;
/** A run that takes longer says so before it starts ... */
const LONG_SECONDS = 600;
/** ... and offers so many steps. */
const FEW_STEPS = 10;
/** Time left is reckoned from so many of the last steps. */
const STEPS_TIMED = 10;
/** Settings are changed live one of these parts at a time. */
const PARTS = ["common", ...SIDES];
const GONE = "The engine has stopped. What was recorded is kept; to go on, reload the page.";
/** A pause that takes longer says that it is on its way, in milliseconds. */
const SLOW_PAUSE_MS = 500;
/** A run of which more than this is in no file is not left without being asked. */
const WORTH_ASKING_SECONDS = 60;

const engine = new Engine();
const painter = new Painter();
const documents = new Documents(engine);

/** What the learners were started with: settings (with what was changed live since), model and data; null before the
 *  first start. `refused` are the live settings that the engine did not take, as text by part. */
let started = null;
/** Files that were read but not started with: `{model, data}` say what they are, `before` and `kind` what they would
 *  replace. */
let offered = null;
/** Where model and data come from: of the learners, and of what the worker holds now; `doubts` are those of that data. */
let source = { model: null, data: null, doubts: [] };
let device = null;
/** Not all of the page has arrived. */
let incomplete = false;
/** Seconds that a step takes by the last estimate; 0 while nothing is known. */
let secondsPerStep = 0;
/** Device and workers that were asked for, and how many workers there are. */
let openedWith = [];
let workers = 1;

// ---- parts --------------------------------------------------------------------------------------------------------

const hero = new Hero(engine, (error) => report("The word at the top cannot be weighed", error));
const lessons = new Lessons((values) => {
  settings.lesson(values);
  lessons.current = wantedData();
  if (device !== null) exclusive("Starting the lesson failed", begin);
});
const panels = SIDES.map((side, index) => makePanel(side, index));
const settings = new Settings(onSetting);
const timeline = new Timeline(showMoment);
const race = new Race(timeline);
const score = new Scoreboard(timeline);
const text = new TextView(engine, documents, painter, (error) => report("Looking at a token failed", error));
const region = new Region({ panels, documents, onError: report, onWarning: warn,
  onOpen: (...token) => text.open(...token) });
const samples = new Samples(engine, timeline, (error) => report("Writing samples failed", error));

function makePanel(side, index) {
  const plot = el("div", { class: "plot", id: `plot-${side}` });
  const summary = el("p", { id: `landscape-${side}`, class: "summary", text: "No token yet." });
  const bars = el("div", { class: "chart low", id: `histogram-${side}` });
  const shares = el("div", { class: "chart low", id: `course-${side}` });
  $("panels").append(el("section", { class: `panel learner ${side}`, "aria-label": `Learner, ${side}` },
    el("div", { id: `objective-of-${side}` }),
    el("details", { class: "more" }, el("summary", { text: "Details of this objective" }),
      el("div", { class: "settings", id: `details-of-${side}` }),
      el("p", { class: "note", id: `no-details-${side}`, text: "It has no further settings." })),
    plot, summary, el("details", { class: "more", open: true }, el("summary", { text: "Conflicts over the steps" }), shares),
    el("details", { class: "more" }, el("summary", { text: "Gates of the batch" }), bars)));
  const course = () => {
    const { recording, isLive, step: at } = timeline;
    const point = (f) => [f.step, f.metrics[index].conflict_share];
    const now = recording.frames[timeline.index]?.metrics[index].conflict_share;
    draw(shares, { lines: [{ name: side, items: recording.frames, point }], x: "step",
      span: [0, recording.steps || 1], least: 0.02,
      format: (v) => `${number(100 * Math.max(0, v), 2)} %`, cursor: isLive ? undefined : at,
      describe: now === undefined ? `Share of conflicts, ${side}: no step yet`
        : `Share of conflicts among the trained tokens, ${side}, at step ${at}: ${percent(now)}` });
  };
  const landscape = new Landscape(plot, summary, { index, painter, course: () => painter.ask(course),
    onRegion: (...drawn) => region.choose(...drawn), onHover: (token) => region.words(token).catch(() => null) });
  return { side, landscape, drawHistogram: () => {
    const frame = landscape.frames.at(-1);
    histogram(bars, frame ? frame.learners[index].gate : [], side);
  } };
}

// ---- state, messages ----------------------------------------------------------------------------------------------

function setState(state, words) {
  document.body.dataset.state = state;
  if (words) say("status", words);
  const has = started !== null && !offered;
  const still = state === "ready" || state === "paused" || state === "failed";
  const finished = has && lastStep() >= timeline.recording.steps;
  $("play").disabled = !(still && has) || finished || state === "failed";
  $("step").disabled = $("profile-now").disabled = $("play").disabled;
  $("pause").disabled = state !== "playing";
  $("reset").disabled = !(still || state === "playing") || device === null;
  for (const what of ["checkpoint", ...SIDES]) $(`download-${what}`).disabled = state === "loading" || !has || engine.isGone;
  $("download-metrics").disabled = timeline.recording.frames.length === 0;
  if (state !== "loading") $("loading").hidden = true;
  showTimeLeft();
}

const state = () => document.body.dataset.state;
const lastStep = () => timeline.recording.frames.at(-1)?.step ?? timeline.recording.first;
/** `ready` at step 0, else `paused`. */
const still = () => (lastStep() === 0 ? "ready" : "paused");

/** All errors, in full, with what can be done; they stay until dismissed. */
function report(what, error) {
  const box = $("error");
  // All that was asked for fails for the same reason; what was said first stays.
  if (engine.isGone && !box.hidden && box.textContent.includes(error.message)) return;
  const lines = [el("strong", { text: `${what}. ` }), el("span", { class: "long", text: error.message }),
    el("p", { text: whatToDo(error) })];
  box.replaceChildren(...lines, dismissal(box));
  bring(box);
}

/** A message comes to where the visitor looks; at once, since movement may be unwelcome. */
function bring(box) {
  box.hidden = false;
  box.scrollIntoView({ block: "nearest", behavior: "instant" });
}

function dismissal(box) {
  return el("button", { type: "button", text: "Dismiss", onclick: () => {
    box.hidden = true;
    box.replaceChildren();
  } });
}

function warn(message) {
  const box = $("warning");
  if (box.hidden) box.replaceChildren(dismissal(box));
  box.prepend(el("p", { text: message }));
  bring(box);
}

let chain = Promise.resolve();

/** A button that was off meanwhile, or is gone, has lost the focus or is about to: it gets it back, or the one that goes on. */
function giveBackFocus(asked) {
  const isThere = (element) => element !== document.body && element.getClientRects().length > 0 && !element.disabled;
  if (asked === document.body || isThere(document.activeElement)) return;
  (isThere(asked) ? asked : $("play")).focus({ preventScroll: true });
}

/** Runs long requests one after the other; a failure is reported and the page goes on from where it was. */
function exclusive(what, task) {
  const asked = document.activeElement;
  const done = chain.then(async () => {
    if (state() === "playing") await pause();
    setState("loading");
    try {
      await task();
    } catch (error) {
      report(what, error);
      if (!started) setState("failed", "There are no learners. See the message above.");
      else if (engine.isGone) setState("failed", GONE);
      else setState(still(), "Nothing was changed.");
      showPending();
    }
    giveBackFocus(asked);
    // What was changed live meanwhile was left for now.
    changeNow();
  });
  chain = done;
  return done;
}

// ---- starting -----------------------------------------------------------------------------------------------------

async function open() {
  const unusable = settings.readAddress();
  openedWith = settings.device;
  if (unusable.length) warn(`The link to this run has parts that cannot be used: ${unusable.join("; ")}.`);
  setState("loading", "Starting the engine.");
  const opened = await engine.open(...openedWith, arrived(showLoading)).catch(noDevice);
  device = opened.device;
  const kind = device.kind === "webgpu" ? "WebGPU" : `CPU${device.simd ? ", SIMD" : ""}`;
  $("device").textContent = `${kind}: ${device.name}`;
  $("device-why").textContent = device.why;
  $("version").textContent = opened.version;
  showSelfTest(opened.selfTest);
  $("profile").hidden = device.kind !== "webgpu";
  if (device.kind !== "webgpu") helpForWebGpu();
  await engine.every(schema.page.initial["run.eval_every"], SAMPLE_EVERY);
  say("status", "Loading the model.");
  source.info = await engine.baseModel();
  lessons.current = wantedData();
  await loadData(wantedData());
  await begin();
}

/** The engine runs on nothing that was asked for: says so where the device stands, and offers what is left to try. */
function noDevice(error) {
  if (error.kind === "download") {
    incomplete = true;
    $("device").textContent = "not started";
    $("device-why").textContent = "Not all of the page has arrived.";
    throw error;
  }
  $("device").textContent = "no device works";
  $("device-why").textContent = openedWith[0] === "auto"
    ? "Neither WebGPU nor the processor (WebAssembly) could be started in this browser."
    : "The chosen device could not be started.";
  helpForWebGpu();
  $("expert").open = true;
  throw error;
}

/** What the control of the text to learn shows for what the worker holds. */
const dataValue = () => (typeof source.data === "string" ? source.data : "own");
const wantedData = () => (settings.value("page", "data") === "own" ? source.own : settings.value("page", "data"));

async function loadData(wanted) {
  say("status", "Reading the text.");
  const info = typeof wanted === "string" ? await engine.data(wanted) : await engine.ownData(wanted);
  Object.assign(source, { data: wanted, doubts: info.doubts });
  return info;
}

/** Makes both learners anew. What was recorded is given up only once they are there. */
async function begin() {
  const { invalid } = settings;
  if (invalid) throw new Error(`${invalid.spec.label}: ${invalid.input.validationMessage}`);
  if (wantedData() !== source.data) await loadData(wantedData());
  say("status", "Making both learners and examining them.");
  const sent = settings.toEngine();
  const estimate = await engine.estimate(sent);
  estimated(estimate, Number(sent.common["run.steps"]));
  if (!estimate.fits) throw new Refusal({ kind: "limit", message: estimate.problem });
  const before = timeline.recording;
  // Evaluation and samples at the start may come before the answer.
  timeline.recording = new Recording(Number(sent.common["run.steps"]));
  let answer;
  try {
    answer = await engine.start(sent);
  } catch (error) {
    // The worker let the old learners go to make room; what they did can still be looked at and saved.
    timeline.recording = before;
    started = null;
    throw error;
  }
  await adopt(answer, sent);
  const model = source.info.base ? "the model of this page" : source.info.name;
  setState("ready", `Ready: ${model}, ${answer.steps} steps. Press Play.`);
}

/** Learners that were just made or restored become what the page shows. */
async function adopt(answer, sent) {
  started = { settings: sent, model: source.model, data: source.data, refused: new Map() };
  offered = null;
  Object.assign(timeline.recording, { steps: answer.steps, first: answer.step });
  const names = trainedNames();
  timeline.recording.named(names);
  samples.names = names;
  lessons.current = source.data;
  timeline.reset(timeline.recording);
  documents.clear();
  text.clear();
  $("own-buttons").hidden = true;
  const model = source.info.base ? "the small model that comes with the page" : describeModel(source.info);
  const trained = answer.learners.map((l, i) =>
    `${l.trainable.toLocaleString("en")} of ${l.parameters.toLocaleString("en")} parameters trained ${SIDES[i]}`);
  $("own").textContent = `Now: ${model}; ${trained.join(", ")}.`;
  $("doubts").hidden = source.doubts.length === 0;
  $("doubts").replaceChildren(...source.doubts.map((doubt) => el("p", { text: `${doubt}.` })));
  showNames();
  showPending();
  showMoment();
  samples.begin(source.data, typeof source.data === "string" ? "" : await engine.beginning());
  if ($("sure").disabled) hero.ask();
}

/** What really trains, whatever the controls say. */
const trainedNames = () => SIDES.map((side) => settings.method(side, started.settings));

/** Gates are those of the objectives of now; what was recorded keeps the names that it had. */
function showNames() {
  text.names = trainedNames();
  painter.ask(...race.views, score.draw);
}

/** An estimate, wherever it is shown: memory, time, and whether the run will be a long one. */
function estimated(estimate, steps) {
  secondsPerStep = estimate.secondsPerStep;
  showEstimate(estimate, steps);
  $("own-start").disabled = !estimate.fits;
  const all = secondsPerStep * steps;
  const long = estimate.fits && all > LONG_SECONDS && (lastStep() === 0 || offered !== null);
  $("long").hidden = !long;
  if (long) {
    $("long").replaceChildren(`This run will take about ${duration(all)}: ${number(steps, 9)} steps of ` +
      `${duration(secondsPerStep)} each. `,
    el("button", { type: "button", id: "few-steps", text: `Make ${FEW_STEPS} steps`, onclick: () => {
      settings.set("common", "run.steps", String(FEW_STEPS));
      settings.writeAddress();
      $("long").hidden = true;
      // Files that were offered are started with by their own button.
      if (offered) estimateSoon();
      else exclusive("Starting anew failed", begin);
    } }));
  }
  showTimeLeft();
}

function showTimeLeft() {
  const { frames, steps, first } = timeline.recording;
  const done = frames.at(-1)?.step ?? first;
  let each = secondsPerStep;
  if (frames.length > 0) {
    const from = frames[Math.max(0, frames.length - 1 - STEPS_TIMED)];
    const [now, before] = [frames.at(-1), from].map(({ metrics }) => Math.max(...metrics.map((m) => m.seconds)));
    each = frames.length > 1 ? (now - before) / (done - from.step) : each || now;
  }
  $("time-left").textContent = steps > 0 && done >= steps ? "done"
    : each > 0 && steps > 0 ? duration(each * (steps - done)) : "–";
}

// ---- events of the worker -----------------------------------------------------------------------------------------

const maps = throttled(() => {
  for (const { landscape } of panels) landscape.redraw();
  painter.ask(...panels.map((p) => p.drawHistogram));
}, MAPS_EVERY_MS);
const charts = throttled(() => painter.ask(...race.views, score.draw), CHARTS_EVERY_MS);
const quotesAgain = latest(async () => {
  const { step: at, recording } = timeline;
  showQuotes(await engine.quotes(), SIDES.map((side) => recording.nameAt(side, at)), lastStep());
}, (error) => report("The facts cannot be quoted", error));
/** While learners are made there are none to look with. */
const look = () => { if (state() !== "loading") text.refresh(); };
const lookAgain = throttled(look, TEXT_EVERY_MS);
const brushAgain = throttled(() => { if (state() !== "loading") region.list(); }, TEXT_EVERY_MS);

/** Calls `run` at once, then at most every `ms`, and a last time after the last call. */
function throttled(run, ms) {
  let last = -Infinity;
  let timer = 0;
  return () => {
    clearTimeout(timer);
    const wait = Math.max(0, last + ms - performance.now());
    timer = setTimeout(() => { last = performance.now(); run(); }, wait);
  };
}

engine.on("frame", (frame) => {
  timeline.recording.add(frame);
  readout();
  if (timeline.isLive) {
    for (const { landscape } of panels) landscape.append(frame);
    maps();
  }
  if (timeline.isLive) text.batch(frame);
  // The first steps say how long the others will take.
  if (timeline.recording.frames.length === 2) estimateSoon();
  charts();
  lookAgain();
  brushAgain();
});

engine.on("evaluated", (evaluated) => {
  const { evaluations } = timeline.recording;
  if (evaluations.at(-1)?.step === evaluated.step) evaluations.pop();
  evaluations.push(evaluated);
  charts();
  if (evaluated.step === 0 && secondsPerStep === 0) estimateSoon();
  // Answers come without being asked for only before there is a run.
  if (started) quotesAgain();
});

engine.on("samples", (sample) => {
  timeline.recording.samples.push(sample);
  painter.ask(samples.draw);
});

engine.on("paused", ({ reason, ...error }) => {
  if (reason === "failed") {
    report(started ? "Training stopped" : "The page cannot start", error);
    setState("failed", engine.isGone ? GONE : "Stopped by an error. What was recorded is kept; Reset begins again.");
    showPending();
  } else {
    const { steps } = timeline.recording;
    setState("paused", `Finished: all ${steps} steps are made. Go back with the timeline, reset, or try another lesson.`);
  }
});

engine.on("warning", ({ message }) => warn(message));

engine.on("workers", ({ count, why }) => {
  workers = count;
  $("workers").textContent = count > 1 ? `${count} workers, one a learner.` : `1 worker for both learners: ${why}.`;
});

/** `what` is a file of the visitor's, or empty for the bytes of the page itself. */
function showLoading({ what, done, of }) {
  const bar = $("loading");
  bar.hidden = state() !== "loading";
  // The bar moves all the time; each tenth is said.
  const isSaid = !what && bar.hasAttribute("value") && Math.floor(10 * done / of) === Math.floor(10 * bar.value);
  if (of > 0) bar.value = done / of;
  else bar.removeAttribute("value");
  const words = what || `Loading: ${bytes(done)} of ${bytes(of)}`;
  bar.setAttribute("aria-label", what || "Bytes of the page");
  if (state() === "loading" && !isSaid) say("status", words);
}

engine.on("loading", showLoading);

// ---- what is drawn ------------------------------------------------------------------------------------------------

function readout() {
  timeline.refresh();
  const { recording, index } = timeline;
  const shown = recording.frames[index];
  $("step-count").textContent = `${timeline.step} of ${recording.steps}`;
  const [left, right] = shown?.metrics ?? [];
  $("loss-left").textContent = left ? loss(left.loss) : "-";
  $("loss-right").textContent = right ? loss(right.loss) : "-";
  // So many tokens of both go through a second: side by side at the pace of the slower one, or in turns.
  const speeds = left ? [left.tokens_per_second, right.tokens_per_second] : [];
  $("speed").textContent = left ? number(workers > 1 ? 2 * Math.min(...speeds) : 2 / (1 / speeds[0] + 1 / speeds[1]), 3) : "-";
  showTimeLeft();
  $("memory").textContent = left ? bytes(Math.max(left.peak_device_bytes, right.peak_device_bytes)) : "-";
}

/** Draws everything at the moment that the timeline shows. */
function showMoment() {
  const { recording, index } = timeline;
  const window = index >= 0 ? recording.window(index) : [];
  for (const { landscape } of panels) landscape.show(window);
  readout();
  painter.ask(...panels.map((p) => p.drawHistogram), ...race.views, score.draw, samples.draw);
  region.list();
  const past = timeline.isLive ? null : recording.frames[index];
  text.moment(past?.full ?? null, past && !past.full ? past.step : null);
}

function redrawAll() {
  for (const { landscape } of panels) landscape.redraw();
  painter.ask(...panels.map((p) => p.drawHistogram), ...race.views);
}

addEventListener("resize", settled(redrawAll, 150));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

function dotColour(quantity) {
  for (const { landscape } of panels) landscape.quantity = quantity;
  $("dot-key").replaceChildren(...scaleKey(quantity));
}

onChosen("dot-colour", dotColour);
dotColour(chosen("dot-colour"));

// ---- settings -----------------------------------------------------------------------------------------------------

const estimateSoon = settled(async () => {
  if (!(started || offered) || settings.invalid) return;
  try {
    estimated(await engine.estimate(settings.toEngine()), Number(settings.value("common", "run.steps")));
  } catch (error) {
    $("own-start").disabled = true;
    report("The settings cannot be used", error);
  }
}, 300);

/** Sends what of the live settings is not in effect yet. */
const changeNow = settled(latest(async () => {
  const run = started;
  if (!run || offered || settings.invalid || state() === "loading") return;
  const wanted = settings.liveOver(run.settings);
  let isChanged = false;
  let refusal = null;
  for (const part of PARTS) {
    const text = JSON.stringify(wanted[part]);
    const isInEffect = text === JSON.stringify(run.settings[part]);
    if (isInEffect) run.refused.delete(part);
    // What was refused is asked for once, so that it does not keep the rest from being changed.
    if (isInEffect || text === run.refused.get(part)) continue;
    const next = { ...run.settings, [part]: wanted[part] };
    try {
      await engine.change(next);
      run.settings = next;
      run.refused.delete(part);
      isChanged = true;
    } catch (error) {
      if (error.kind !== "config") throw error;
      run.refused.set(part, text);
      refusal = error;
    }
    // Meanwhile others may have been started.
    if (started !== run) return;
  }
  if (isChanged) {
    timeline.recording.named(trainedNames());
    showNames();
    look();
  }
  showPending();
  if (state() === "loading") return;
  // Nothing is lost by starting anew before the first step.
  if (refusal && state() === "ready") exclusive("Starting anew failed", begin);
  else if (refusal) say("status", `Training goes on as before: ${refusal.message}`);
  else if (isChanged && lastStep() > 0) say("status", `Changed: in effect from step ${lastStep() + 1}.`);
}, (error) => report("The change was refused", error)), 60);

function onSetting(setting) {
  const ofDevice = setting.scope === "page" && setting.key !== "data";
  if (ofDevice) showPending();
  if (!setting.valid || ofDevice) return;
  if (!started && !offered) {
    // The start was refused, or has not come about yet.
    if (device !== null) exclusive("Starting failed", begin);
  } else if (setting.live) {
    changeNow();
  } else {
    estimateSoon();
    // Nothing is lost by starting anew before the first step.
    if (lastStep() === 0 && !offered) exclusive("Starting anew failed", begin);
    else showPending();
  }
}

/** What was changed and waits, with the button that applies it. */
function showPending() {
  const waits = started && !offered ? settings.needReset(started) : [];
  if (started && !offered && wantedData() !== started.data) waits.unshift("text to learn");
  const box = $("pending");
  const parts = [];
  if (waits.length) {
    parts.push(`Changed, in effect after a reset: ${waits.join(", ")}. `,
      el("button", { type: "button", text: "Reset now", onclick: reset }));
  }
  const wanted = settings.device;
  const reload = el("button", { type: "button", text: "Reload now", onclick: () => location.reload() });
  const tryTheCpu = el("button", { type: "button", text: "Try the CPU", onclick: () => {
    settings.set("page", "device", "cpu");
    settings.writeAddress();
    location.reload();
  } });
  if (incomplete) {
    parts.push("What is missing may arrive now. ", reload);
  } else if (device === null && wanted[0] !== "cpu") {
    parts.push("The processor may still work. ", tryTheCpu);
  } else if (device !== null && engine.isGone) {
    parts.splice(0, parts.length, "Only a reload starts the engine again. ", reload);
    if (device.kind === "webgpu") parts.push(" ", tryTheCpu);
  } else if (String(wanted) !== String(openedWith)) {
    parts.push(`${wanted[0] === openedWith[0] ? "So many workers are" : "Another device is"} used after a reload. `, reload);
  }
  box.replaceChildren(...parts);
  box.hidden = parts.length === 0;
}

// ---- controls -----------------------------------------------------------------------------------------------------

function play() {
  if ($("play").disabled) return;
  const focused = document.activeElement === $("play");
  setState("playing", "Training both learners.");
  // The button that was pressed is off now; the focus goes to its counterpart.
  if (focused) $("pause").focus({ preventScroll: true });
  engine.play().catch((error) => {
    report("Training stopped", error);
    if (state() === "playing") setState(still(), `Paused at step ${lastStep()}.`);
  });
}

/** The learners stand between two steps. */
function standStill(words = `Paused at step ${lastStep()}.`) {
  const finished = lastStep() >= timeline.recording.steps;
  setState(still(), finished ? `Finished: all ${lastStep()} steps are made.` : words);
}

let pausing = null;

/** Waits for what is under way. Who asks for a second pause meanwhile waits for the first. */
function pause(words) {
  pausing ??= halt(words).finally(() => { pausing = null; });
  return pausing;
}

async function halt(words) {
  const focused = document.activeElement === $("pause");
  const slow = setTimeout(() => { if (state() === "playing") say("status", "Pausing after the step under way."); }, SLOW_PAUSE_MS);
  try {
    await engine.pause();
  } catch (error) {
    report("Pausing failed", error);
  }
  clearTimeout(slow);
  if (state() === "playing") standStill(words);
  if (focused) $("play").focus({ preventScroll: true });
}

/** One step, made by `make`; the button that asked for it keeps the focus. */
async function step(button = "step", make = () => engine.step()) {
  if ($(button).disabled) return;
  const focused = document.activeElement === $(button);
  setState("playing", "One step.");
  try {
    await make();
  } catch (error) {
    report("The step failed", error);
  }
  // A pause that waits for this step says it, and what waits for the pause goes on from there.
  if (state() === "playing" && !pausing) standStill();
  if (focused) $(button).focus({ preventScroll: true });
}

async function profile() {
  const profile = await engine.profile();
  if (profile) showProfile(profile);
}

function reset() {
  if (!$("reset").disabled) exclusive("The reset failed", begin);
}

/** A key that is hit by mistake does not wipe a run. */
function askToReset() {
  if ($("reset").disabled) return;
  if (lastStep() === 0) return reset();
  $("ask-words").textContent = `Begin again, and wipe this run of ${lastStep()} steps? `;
  $("ask").hidden = false;
  $("ask-no").focus();
}

for (const [id, then] of [["ask-yes", reset], ["ask-no", () => {}]]) {
  $(id).addEventListener("click", () => {
    $("ask").hidden = true;
    then();
    $("play").focus({ preventScroll: true });
  });
}
$("ask").addEventListener("keydown", (event) => { if (event.key === "Escape") $("ask-no").click(); });

$("play").addEventListener("click", play);
$("pause").addEventListener("click", () => pause());
$("step").addEventListener("click", () => step());
$("profile-now").addEventListener("click", () => step("profile-now", profile));
$("reset").addEventListener("click", reset);

addEventListener("keydown", (event) => {
  const taken = event.ctrlKey || event.metaKey || event.altKey || !$("shortcuts").checked
    || event.target.closest?.("input, select, textarea, button, summary, a, [role=option]");
  if (taken) return;
  if (event.key === " ") {
    // A key that is held down is one press.
    if (!event.repeat) state() === "playing" ? pause() : play();
  } else if (event.key === "s") step();
  else if (event.key === "r") askToReset();
  else return;
  event.preventDefault();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden && state() === "playing") {
    pause("Paused because this tab was hidden. Press Play to go on.");
  }
});

addEventListener("beforeunload", (event) => {
  if (!engine.isGone && timeline.recording.unsaved > WORTH_ASKING_SECONDS) event.preventDefault();
});

$("share").addEventListener("click", async () => {
  settings.writeAddress();
  const link = $("share-link");
  try {
    await navigator.clipboard.writeText(location.href);
    say("status", "The link to this run is copied. Own files are not part of it.");
  } catch {
    // Without leave to use the clipboard the link is shown to be copied by hand.
    link.hidden = false;
    link.value = location.href;
    link.select();
    say("status", "Copy the link beside the button.");
  }
});

// ---- own files, checkpoints ---------------------------------------------------------------------------------------

watchFiles({
  onModel: (files) => offer("The model cannot be used", async () => {
    const info = await engine.ownModel(files);
    const held = source;
    const kind = settings.value("common", "adapter.kind");
    source = { ...source, model: files, info };
    // Texts are made of the model's own tokens.
    try {
      const data = await loadData(source.data);
      offered = { before: held, kind, ...offered, data, model: info };
    } catch (error) {
      await putBack(held);
      throw error;
    }
    settings.set("common", "adapter.kind", "lora");
  }),
  onData: (file) => offer("The text cannot be used", async () => {
    const info = await engine.ownData(file);
    offered = { before: source, kind: settings.value("common", "adapter.kind"), ...offered, data: info };
    source = { ...source, data: file, own: file, doubts: info.doubts };
    settings.ownData(file.name);
    settings.set("page", "data", "own");
  }),
  onError: (error) => report("The files cannot be used", error),
});

/** Reads files, then shows what they are and what training on them takes, before anything is replaced. */
function offer(what, read) {
  return exclusive(what, async () => {
    say("status", "Reading the files.");
    await read();
    settings.writeAddress();
    const lines = [offered.model && describeModel(offered.model), offered.data && describeData(offered.data)];
    $("own").replaceChildren(...lines.filter(Boolean).map((line) => el("span", { class: "part", text: line })),
      ...source.doubts.map((doubt) => el("span", { class: "part message", text: `${doubt}.` })));
    // From here on there is a way back, whatever the engine says of training on them. Files can fall anywhere on the page.
    $("expert").open = true;
    $("own-buttons").hidden = false;
    $("own-start").disabled = true;
    showPending();
    const sent = settings.toEngine();
    const estimate = await engine.estimate(sent).catch((error) => report("Training on the files is refused", error));
    if (estimate) estimated(estimate, Number(sent.common["run.steps"]));
    setState(still(), !estimate ? "The files are read, but training on them is refused. See the message above."
      : estimate.fits ? "The files are read. Start with them, or keep what was there."
        : `The files are read, but training does not fit. ${estimate.problem}`);
    estimate?.fits ? $("own-start").focus() : $("own-discard").focus();
  });
}

/** The worker gets back the model and text of before. */
async function putBack(before) {
  if (before.model !== source.model) {
    before.info = before.model ? await engine.ownModel(before.model) : await engine.baseModel();
  }
  source = before;
  await loadData(before.data);
}

$("own-start").addEventListener("click", () => exclusive("Starting with the files failed", begin));
$("own-discard").addEventListener("click", () => exclusive("Going back failed", async () => {
  await putBack(offered.before);
  settings.set("common", "adapter.kind", offered.kind);
  settings.set("page", "data", dataValue());
  settings.writeAddress();
  offered = null;
  $("own-buttons").hidden = true;
  $("own").textContent = "What was there is kept.";
  showPending();
  estimateSoon();
  setState(still(), "What was there is kept.");
}));

const download = (id, what, make) => $(id).addEventListener("click", async () => {
  try {
    await make();
  } catch (error) {
    report(`${what} failed`, error);
  }
});

download("download-checkpoint", "Making the checkpoint", async () => {
  const content = await engine.checkpoint();
  // While it plays, steps are made before it is this one's turn.
  save(`temper-step-${lastStep()}.checkpoint`, content);
  timeline.recording.saved();
});
download("download-metrics", "Writing the metrics", () =>
  save("metrics.jsonl", metricsLines(timeline.recording.frames), "application/jsonl"));
for (const side of SIDES) {
  download(`download-${side}`, `Writing the ${side} learner`, async () => {
    for (const { name, bytes: content } of await engine.result(side)) save(`${side}-${name}`, content);
  });
}

$("restore").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  exclusive("The checkpoint cannot be restored", async () => {
    say("status", "Restoring the checkpoint.");
    const before = timeline.recording;
    timeline.recording = new Recording();
    let restored;
    try {
      restored = await engine.restore(new Uint8Array(await file.arrayBuffer()));
    } catch (error) {
      timeline.recording = before;
      throw error;
    }
    const { begun: answer } = restored;
    settings.fromEngine(restored.settings, dataValue());
    await adopt(answer, settings.toEngine());
    await engine.evaluate();
    setState(still(), `Restored at step ${answer.step} of ${answer.steps}. Press Play to go on.`);
  });
});

// ---- go -----------------------------------------------------------------------------------------------------------

/** Opens the newest conflict that is on the map, as the model saw it before training. */
function pickConflict() {
  const [token] = tokensIn(panels[0].landscape.frames, 0, CONFLICT, 1).tokens;
  if (token) text.open(token.document, token.position, "base");
}

watchTour({ play, state, pick: pickConflict, timeline, dotColour: (quantity) => {
  document.querySelector(`input[name="dot-colour"][value="${quantity}"]`).checked = true;
  dotColour(quantity);
} });
$("text-key").replaceChildren(...scaleKey(chosen("text-colour")));

/** For tests and the curious: what was recorded. */
window.temper = Object.freeze({
  frames: () => Object.freeze(timeline.recording.frames.map(({ step: made, metrics }) =>
    Object.freeze({ step: made, losses: Object.freeze(metrics.map((m) => m.loss)) }))),
  /** Steps whose tokens are kept. */
  rows: () => Object.freeze(timeline.recording.frames.map(({ full }) => full).filter(Boolean)),
});

exclusive("The page cannot start", open);
