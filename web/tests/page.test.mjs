// The page in a real Chromium, from the real server: what it computes, what a visitor can do, and what it never does.
//
// WebGPU is SwiftShader here, which computes on the CPU and takes its time: what it computes is tested with it, and
// what a visitor can do besides on the CPU device, where a step takes a tenth of a second. Groups of tests run at the
// same time, each with a browser of its own; what measures time is in `timed.test.mjs`, where nothing runs beside it.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { BROKEN, ownText, tinyGguf } from "./files.mjs";
import { here, jsonLines, launch, launchUntouched, LONG, nativeLosses, ON_WEBGPU, once, PATIENCE, serve, SITE, sleep, throttled,
  Visit, WITH } from "./harness.mjs";

/** Ten steps that page and command make alike. */
const RUN = { data: "shakespeare", "run.steps": "10", "run.batch_tokens": "128", "run.seed": "7",
  "optim.learning_rate": "3e-4", "optim.schedule": "cosine", "adapter.kind": "none",
  "left.objective.method": "sft", "right.objective.method": "eaft" };
const LORA = { ...RUN, "adapter.kind": "lora", "adapter.rank": "4", "adapter.alpha": "8",
  "optim.learning_rate": "1e-3" };

/**
 * Page against command, in nats. The first loss is the forward pass alone, in single precision summed in another
 * order. Each further step has passed through AdamW, which divides a gradient by its own size: where one is nearly 0,
 * rounding decides.
 */
const FIRST_TOLERANCE = 2e-5;
const LATER_TOLERANCE = 1e-4;

let server;
before(async () => { server = await serve(); });
after(() => server.stop());

function assertLosses(found, wanted) {
  assert.equal(found.length, wanted.length);
  found.forEach((losses, step) => losses.forEach((loss, side) => {
    const tolerance = step === 0 ? FIRST_TOLERANCE : LATER_TOLERANCE;
    assert.ok(Math.abs(loss - wanted[step][side]) <= tolerance,
      `step ${step + 1}, ${["left", "right"][side]}: ${loss} on the page, ${wanted[step][side]} natively`);
  }));
}

const largest = (found, wanted) =>
  Math.max(...found.flatMap((losses, step) => losses.map((loss, side) => Math.abs(loss - wanted[step][side]))));

/** Plays a fresh page to its tenth step, compares with the command, and closes it. */
async function trainsAsTheCommand(trained, run, t) {
  const wanted = await nativeLosses(run);
  await trained.click("#play");
  await trained.hasFrames(10);
  const found = await trained.losses();
  t.diagnostic(`largest difference ${largest(found, wanted).toExponential(1)} nats`);
  assertLosses(found, wanted);
  trained.isClean();
  await trained.page.close();
}

/** Drops the tiny model on a new page, starts with it, trains its adapter and takes that along. */
async function trainOnGguf(context, device = {}) {
  const own = await Visit.begin(context, server.origin, { ...LONG, ...device });
  await own.drop([tinyGguf]);
  await own.shows("#own-buttons");
  assert.match(await own.text("#own"), /llama, 2 layers, hidden 64, vocabulary 256/);
  assert.equal(await own.page.inputValue("#adapter-kind"), "lora");
  assert.match(await own.text("#estimate"), /Fits\./);
  await own.click("#own-start");
  await own.shows("#own-buttons", "hidden");
  await own.reaches("ready");
  await own.steps(3);
  const losses = (await own.losses()).flat();
  assert.equal(losses.length, 6);
  assert.ok(losses.every((loss) => Number.isFinite(loss) && loss > 0), String(losses));
  const adapter = readFileSync(await own.saved("#download-right"));
  assert.ok(adapter.length > 0);
  own.isClean();
  await own.page.close();
}

/** Within a group: a number that is not given is taken from what is around it. */
const inOrder = { concurrency: 1 };

/** A browser of its own for a group of tests. */
function browser(flags) {
  const at = {};
  before(async () => {
    at.browser = await launch(flags);
    at.context = await at.browser.newContext();
    at.context.setDefaultTimeout(PATIENCE);
  }, once);
  after(() => at.browser.close());
  return at;
}

const withWebGpu = () => describe("with WebGPU", inOrder, () => {
  const at = browser(WITH.webgpu);
  let visit;

  /** The page that most tests use, wherever it stands. */
  const shared = async () => { visit ??= await Visit.begin(at.context, server.origin, { ...RUN, ...ON_WEBGPU }); };

  it("trains to the command's losses, whatever is pressed between", once, async (t) => {
    const wanted = await nativeLosses(RUN);
    await shared();
    assert.match(await visit.text("#device"), /^WebGPU/);
    await visit.click("#play");
    await visit.hasFrames(2);
    await visit.click("#pause");
    await visit.reaches("paused");
    const paused = (await visit.frames()).length;
    await sleep(3000);
    assert.equal((await visit.frames()).length, paused, "steps were made after the pause");
    const checkpoint = await visit.saved("#download-checkpoint");
    await visit.steps(1);
    await visit.click("#play");
    await visit.hasFrames(10);
    const found = await visit.losses();
    t.diagnostic(`largest difference ${largest(found, wanted).toExponential(1)} nats`);
    assertLosses(found, wanted);
    assert.match(await visit.text("#step-count"), /^10 of 10/);

    await visit.page.setInputFiles("#restore", checkpoint);
    await visit.statusSays(`Restored at step ${paused}`);
    await visit.steps(1);
    assert.deepEqual((await visit.losses()).at(-1), found[paused], "the step after a restored checkpoint");
    await visit.reset();
    await visit.steps(1);
    assert.deepEqual(await visit.losses(), found.slice(0, 1), "the first step after a reset");
  });

  it("times the kernels of a step, which computes what it does untimed", once, async (t) => {
    await shared();
    await visit.reset();
    await visit.steps(1);
    const untimed = await visit.losses();
    await visit.reset();
    await visit.unfold("#profile-shares");
    await visit.click("#profile-now");
    await visit.reaches("paused");
    assert.deepEqual(await visit.losses(), untimed);
    const rows = await visit.page.locator("#profile-shares tr").allInnerTexts();
    const cells = rows.map((row) => row.split("\t").map((cell) => cell.trim()));
    t.diagnostic(cells.slice(0, 3).map((row) => row.join(" ")).join("; "));
    assert.ok(cells.length > 5 && cells.some(([kernel]) => kernel === "row_stats"), rows.join("\n"));
    assert.equal(cells.at(-1)[0], "(between)");
    const shares = cells.map(([, share]) => Number(share.replace(/[<%]/g, "")));
    const sum = shares.reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(sum - 100) < 3, `${sum} %`);
    assert.match(await visit.text("#profile-summary"), /ms on the GPU, step 1$/);
  });

  it("passes the self-test of every shader", once, async () => {
    await shared();
    assert.equal(await visit.page.getAttribute("#self-test", "data-passed"), "true");
    await visit.unfold("#self-test-checks");
    const rows = await visit.page.locator("#self-test-checks tr").allInnerTexts();
    assert.ok(rows.length > 0 && rows.every((row) => /\bpassed\b/.test(row)), rows.join("\n"));
    const tested = await visit.page.locator("#self-test-checks th").allInnerTexts();
    const stems = (folder) => readdirSync(here(folder)).filter((name) => name.endsWith(".wgsl"))
      .map((name) => name.replace(".wgsl", ""));
    // What reads stored weights is a kernel for each format.
    const reads = (stem) => stem === "dequantize" ? stems("../../shaders/formats").map((format) => `${stem}_${format}`) : stem;
    const shaders = stems("../../shaders").flatMap(reads);
    assert.ok(shaders.length > 20, `${shaders}`);
    // No browser has cooperative matrices.
    const elsewhere = ["half_rows", "matmul_cooperative"];
    const untested = shaders.filter((name) => !tested.includes(name) && !elsewhere.includes(name));
    assert.deepEqual(untested, []);
  });

  it("trains an adapter on a dropped GGUF", once, () => trainOnGguf(at.context, ON_WEBGPU));

  it("had no error in its console and broke no policy in all of this", once, async () => {
    await shared();
    visit.isClean();
  });

  // Whatever comes after it has no GPU.
  it("says so when the GPU is lost, and goes on with the CPU when it is asked to", once, async () => {
    await shared();
    const debug = await at.browser.newBrowserCDPSession();
    await debug.send("Browser.crashGpuProcess");
    await visit.click("#reset");
    await visit.until(() => document.body.dataset.state === "failed");
    const words = await visit.text("#error");
    assert.match(words, /the GPU was lost/);
    assert.doesNotMatch(words, /Backtrace|Caused by/);
    assert.match(await visit.text("#status"), /to go on, reload the page/);
    for (const id of ["play", "step", "download-checkpoint"]) assert.ok(await visit.page.locator(`#${id}`).isDisabled(), id);
    await visit.page.getByRole("button", { name: "Try the CPU" }).click();
    await visit.until(() => document.getElementById("device").textContent.startsWith("CPU"));
    await visit.reaches("ready");
    await visit.steps(1);
  });
});

const onTheirOwnPages = () => describe("on the CPU, each on a page of its own", inOrder, () => {
  const at = browser(WITH.cpu);

  it("trains on the CPU to the command's losses, says so, and says how to get WebGPU", once, async (t) => {
    const trained = await Visit.begin(at.context, server.origin, RUN);
    assert.match(await trained.text("#device"), /^CPU, SIMD/);
    assert.ok((await trained.text("#device-why")).length > 20);
    await trained.click("#device-help summary");
    assert.match(await trained.text("#device-help-text"), /chrome:\/\/flags|version \d+ or newer/);
    await trainsAsTheCommand(trained, RUN, t);
  });

  it("says what is wrong where WebGPU is demanded", once, async () => {
    const refused = new Visit(await at.context.newPage());
    await refused.load(server.origin, { ...LONG, device: "webgpu" });
    await refused.until(() => ["ready", "failed"].includes(document.body.dataset.state));
    assert.equal(await refused.state(), "failed");
    assert.match(await refused.text("#error"), /WebGPU/);
    await refused.page.close();
  });

  it("trains a LoRA adapter to the command's losses", once, async (t) => {
    await trainsAsTheCommand(await Visit.begin(at.context, server.origin, LORA), LORA, t);
  });

  it("tells the same numbers with a worker a learner and with one for both, and goes on from one another's checkpoints", once,
    async (t) => {
      const one = await Visit.begin(at.context, server.origin, { ...RUN, workers: "one" });
      assert.equal(await one.text("#workers"), "1 worker for both learners: as asked for.");
      const two = await Visit.begin(at.context, server.origin, RUN);
      if (await two.page.evaluate(() => navigator.hardwareConcurrency) < 2) {
        t.skip("this machine has one thread");
        return;
      }
      assert.equal(await two.text("#workers"), "2 workers, one a learner.");
      const visits = [one, two];
      const saved = [];
      for (const visit of visits) {
        await visit.steps(6);
        saved.push(await visit.saved("#download-checkpoint"));
        await visit.click("#play");
        await visit.hasFrames(10);
        await visit.statusSays("Finished");
        await visit.click("#sample-now");
        await visit.until(() => document.getElementById("sample-step").textContent.includes("step 10"));
      }
      const [losses, others] = [await one.losses(), await two.losses()];
      assert.equal(losses.length, 10);
      assert.deepEqual(others, losses);
      const untimed = ({ seconds, tokens_per_second, peak_device_bytes, ...rest }) => rest;
      const [lines, otherLines] = await Promise.all(visits.map(async (visit) => jsonLines(await visit.saved("#download-metrics"))));
      assert.deepEqual(otherLines.map(untimed), lines.map(untimed));
      assert.ok(otherLines[0].peak_device_bytes > lines[0].peak_device_bytes, "two modules take more than one, and both count");
      for (const what of ["#sample-list", "#score-table", "#measured"]) assert.equal(await two.text(what), await one.text(what), what);
      const [rows, otherRows] = await Promise.all(visits.map(({ page }) => page.evaluate(() => window.temper.rows().at(-1)
        .learners.map(({ p, gate, gradient }) => [p, gate, gradient].map((values) => Array.from(values))))));
      assert.deepEqual(otherRows, rows);
      for (const visit of visits) {
        // A look under both objectives, where the right learner's last batch is in another worker, and the other way round.
        await visit.page.locator('input[name="text-who"][value="right"]').check();
        await visit.page.locator("#text-tokens [data-position]").nth(5).focus();
        await visit.shows("#token-candidates table");
      }
      await sleep(1000);
      assert.equal(await two.text("#token"), await one.text("#token"));
      // Each goes on from what the other has saved.
      for (const [i, visit] of visits.entries()) {
        await visit.page.setInputFiles("#restore", saved[1 - i]);
        await visit.statusSays("Restored at step 6");
        await visit.steps(2);
        const frames = (await visit.frames()).filter(({ step }) => step > 6);
        assert.deepEqual(frames.map((frame) => frame.losses), losses.slice(6, 8));
        visit.isClean();
        await visit.page.close();
      }
    });

  it("goes on with one worker where the second cannot be started, and says so", once, async () => {
    const site = mkdtempSync(join(tmpdir(), "temper-site-"));
    cpSync(SITE, site, { recursive: true, filter: (path) => !path.includes("learner.js") });
    const lacking = await serve(site);
    try {
      const visit = await Visit.begin(at.context, lacking.origin, LONG);
      assert.match(await visit.text("#workers"), /^1 worker for both learners: (the second one could not be started|this browser)/);
      await visit.steps(1);
      await visit.page.close();
    } finally {
      lacking.stop();
      rmSync(site, { recursive: true, force: true });
    }
  });

  it("says so when the second worker is lost, and does nothing more", once, async (t) => {
    const visit = await Visit.begin(at.context, server.origin, LONG);
    const second = visit.page.workers().find((worker) => worker.url().endsWith("learner.js"));
    if (!second) {
      t.skip("this machine has one thread");
      return;
    }
    await visit.click("#play");
    await visit.hasFrames(2);
    await second.evaluate(() => { setTimeout(() => { throw new Error("it is broken"); }); });
    await visit.until(() => document.body.dataset.state === "failed");
    assert.match(await visit.text("#error"), /it is broken/);
    assert.ok(await visit.page.locator("#play").isDisabled());
    await visit.click("#error button");
    await visit.click("#reset");
    await visit.shows("#error");
    assert.match(await visit.text("#error"), /it is broken.*reload the page/is);
    await visit.page.close();
  });

  it("says so when the engine has stopped, and refuses at once whatever waits or is asked later", once, async () => {
    const visit = await Visit.begin(at.context, server.origin, LONG);
    const worker = visit.page.workers().find((worker) => worker.url().endsWith("worker.js"));
    await visit.click("#play");
    await visit.hasFrames(1);
    // A trap in a call that awaits is an error of the worker as a whole.
    await worker.evaluate(() => { setTimeout(() => { throw new Error("it is broken"); }); });
    await visit.until(() => document.body.dataset.state === "failed");
    const words = /the engine stopped unexpectedly \(it is broken\); reload the page\. What was downloaded is safe\./;
    assert.match(await visit.text("#error"), words);
    assert.doesNotMatch(await visit.text("#status"), /Reset begins again/);
    await visit.click("#error button");
    await visit.click("#reset");
    await visit.shows("#error");
    assert.match(await visit.text("#error"), words);
    await visit.until(() => document.body.dataset.state === "failed");
    assert.doesNotMatch(await visit.text("#status"), /Reset begins again/);
    assert.ok(await visit.page.locator("#play").isDisabled());
    // A request that is never answered, and one that is made afterwards.
    const told = await visit.page.evaluate(async () => {
      const { Engine } = await import("/protocol.js");
      const worker = new EventTarget();
      const sent = [];
      Object.assign(worker, { postMessage: ({ command }) => sent.push(command), terminate: () => sent.push("ended") });
      const engine = new Engine(worker);
      const refused = (asked) => asked.then(() => "answered", ({ message }) => message);
      const waits = refused(engine.step());
      worker.dispatchEvent(new MessageEvent("message", { data: { event: "dead", detail: { kind: "lost", message: "it is gone" } } }));
      const { kind } = await engine.pause().catch((error) => error);
      return { kind, answers: [await waits, await refused(engine.pause())], sent, isGone: engine.isGone };
    });
    assert.deepEqual(told, { kind: "lost", answers: ["it is gone", "it is gone"], sent: ["step", "ended"], isGone: true });
    await visit.page.close();
  });

  it("says so where a part of it has not arrived or cannot be read, instead of loading for ever", once, async () => {
    const parts = [["race.js", /^Not all of the page has arrived\. Reload it/], ["lengths.js", /^Not all of the page has arrived/],
      ["worker.js", /^The page cannot start\. worker\.js, or what it needs, could not be downloaded/],
      ["demo.safetensors", /^The page cannot start\. demo\.safetensors could not be downloaded \(404/]];
    const without = async (name, answer, words) => {
      const lacking = new Visit(await at.context.newPage());
      await lacking.page.route(`**/${name}`, (route) => route.fulfill(answer));
      await lacking.load(server.origin, LONG);
      await lacking.until(() => document.body.dataset.state === "failed");
      assert.match(await lacking.text("#error"), words, name);
      assert.ok(await lacking.page.locator("#loading").isHidden(), name);
      await lacking.page.close();
    };
    for (const [name, words] of parts) await without(name, { status: 404 }, words);
    // A browser of before some word of the language.
    await without("main.js", { contentType: "text/javascript", body: "a word too new" }, /^The page cannot start \(.*A newer browser/);
  });

  it("takes a finger that scrolls over a map for no region, and no other button than the first", once, async () => {
    const context = await at.browser.newContext({ hasTouch: true, viewport: { width: 390, height: 844 } });
    const touched = await Visit.begin(context, server.origin, LONG);
    await touched.steps(1);
    const plot = touched.page.locator("#plot-left svg");
    await plot.evaluate((element) => element.scrollIntoView({ block: "center" }));
    const { x, y } = await plot.boundingBox();
    const debug = await context.newCDPSession(touched.page);
    const touch = (type, ...touchPoints) => debug.send("Input.dispatchTouchEvent", { type, touchPoints });
    const before = await touched.page.evaluate(() => scrollY);
    await touch("touchStart", { x: x + 100, y: y + 200 });
    for (let i = 1; i <= 12; i++) await touch("touchMove", { x: x + 100 + i, y: y + 200 - 8 * i });
    await touch("touchEnd");
    await touched.until((before) => scrollY > before, before);
    const { mouse } = touched.page;
    await plot.hover();
    await mouse.down({ button: "right" });
    const now = await plot.boundingBox();
    await mouse.move(now.x + 200, now.y + 180, { steps: 4 });
    await mouse.up({ button: "right" });
    // What is drawn is drawn in the next frames.
    await sleep(500);
    assert.equal(await touched.page.locator("rect.region").count(), 0);
    assert.ok(await touched.page.locator("#brush-result").isHidden());
    await context.close();
  });

  it("says which parts of an address it cannot use, and what it uses instead", once, async () => {
    const odd = await Visit.begin(at.context, server.origin, { ...LONG, "run.seed": "many", nonsense: "<b>1</b>",
      "right.objective.method": "flow" });
    const warning = await odd.text("#warning");
    assert.ok(warning.includes('"many" is not a value of run.seed'), warning);
    assert.ok(warning.includes('"nonsense" is not a setting'), warning);
    // The command alone trains with it.
    assert.match(warning, /"flow" is not a value of right\.objective\.method on this page, and eaft is used/);
    assert.equal(await odd.page.locator('option[value="flow"]').count(), 0);
    assert.equal(await odd.page.inputValue("#objective-right"), "eaft");
    await odd.steps(1);
    odd.isClean();
    await odd.page.close();
  });

  it("trains an adapter on a dropped GGUF", once, () => trainOnGguf(at.context));

  it("fits a window of 320 px, and has its picture taken", once, async () => {
    mkdirSync(here("screenshots"), { recursive: true });
    const posed = await Visit.begin(at.context, server.origin, { data: "facts" });
    await posed.click("#play");
    await posed.hasFrames(31);
    await posed.click("#pause");
    await posed.reaches("paused");
    await posed.click('[data-region="0,0.1,0,0.5"]');
    await posed.page.locator("#text-tokens [data-position]").last().focus();
    await posed.shows("#token-candidates table");
    // What is drawn at intervals comes a moment later.
    await sleep(2000);
    for (const [name, width, height] of [["desktop", 1440, 1000], ["phone", 390, 844], ["narrow", 320, 740]]) {
      for (const colorScheme of ["light", "dark"]) {
        await posed.page.emulateMedia({ colorScheme });
        await posed.page.setViewportSize({ width, height });
        await sleep(700);
        const content = await posed.page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(content <= width, `${name}: ${content} px of content on ${width} px`);
        await posed.page.evaluate(() => scrollTo(0, 0));
        await posed.page.screenshot({ path: here(`screenshots/${name}-${colorScheme}.png`) });
        await posed.page.screenshot({ path: here(`screenshots/${name}-${colorScheme}-whole.png`), fullPage: true });
        const dots = await posed.page.evaluate(() => ["left", "right"].map((side) => {
          const canvas = document.querySelector(`#plot-${side} canvas`);
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return data.filter((value, at) => at % 4 === 3 && value > 0).length;
        }));
        assert.ok(dots.every((count) => count > 2000), `${name}, ${colorScheme}: ${dots} pixels of dots`);
      }
    }
    posed.isClean();
    await posed.page.close();
  });

  it("asks nobody else for anything, and nobody at all once it is loaded", once, async () => {
    const quiet = await Visit.begin(at.context, server.origin, LONG);
    const paths = quiet.seen.requests.map((url) => new URL(url)).map(({ origin, pathname }) => {
      assert.equal(origin, server.origin);
      return pathname;
    });
    // Also what the worker fetches is seen.
    const long = ["/temper_web_bg.wasm", "/demo.safetensors"];
    const needed = ["/", "/worker.js", ...long];
    assert.deepEqual(needed.filter((path) => !paths.includes(path)), []);
    for (const path of long) {
      assert.equal(paths.lastIndexOf(path), paths.indexOf(path), `${path} is asked for once`);
      assert.ok(paths.indexOf(path) < paths.indexOf("/worker.js"), `${path} waits for nobody`);
    }
    const loaded = quiet.seen.requests.length;
    await quiet.steps(2);
    await quiet.click("#sample-now");
    await quiet.saved("#download-checkpoint");
    await quiet.set("#data-set", "wikipedia");
    await quiet.reset();
    assert.deepEqual(quiet.seen.requests.slice(loaded), []);
    quiet.isClean();
    await quiet.page.close();
  });

  it("pauses in a tab that becomes hidden, and goes on when it is asked to", once, async () => {
    const browser = await launchUntouched(WITH.cpu);
    try {
      const visit = await Visit.begin(browser.context, server.origin, LONG);
      await visit.click("#play");
      await visit.hasFrames(1);
      const other = await browser.context.newPage();
      await other.bringToFront();
      await visit.until(() => document.visibilityState === "hidden");
      await visit.reaches("paused");
      const paused = (await visit.frames()).length;
      await sleep(2000);
      assert.equal((await visit.frames()).length, paused, "steps were made in a hidden tab");
      assert.match(await visit.text("#status"), /hidden/);
      await visit.page.bringToFront();
      await visit.click("#play");
      await visit.hasFrames(paused + 1);
      visit.isClean();
    } finally {
      await browser.close();
    }
  });

  it("says so without WebAssembly instead of showing a dead page", once, async () => {
    const browser = await launch(WITH.neither);
    try {
      const visit = new Visit(await browser.newPage());
      await visit.load(server.origin);
      await visit.until(() => ["ready", "failed"].includes(document.body.dataset.state));
      assert.equal(await visit.state(), "failed");
      assert.match(await visit.text("#error"), /WebAssembly/);
      assert.ok(await visit.page.locator("#play").isDisabled());
    } finally {
      await browser.close();
    }
  });
});

const onOnePage = () => describe("on the CPU, on one page", inOrder, () => {
  const at = browser(WITH.cpu);
  let visit;

  /** The page that most tests use. Each leaves it as it was, at step 0, or it is loaded again. */
  async function shared() {
    if (!visit) visit = await Visit.begin(at.context, server.origin, LONG);
    if (!await visit.isFresh(LONG)) {
      await visit.load(server.origin, LONG);
      await visit.reaches("ready");
    }
  }

  it("steps, plays, pauses and resets, and the same seed gives the same losses", once, async () => {
    await shared();
    await visit.steps(2);
    const [first, second] = await visit.losses();
    assert.notDeepEqual(first, second);
    assert.match(await visit.text("#step-count"), /^2 of 1000/);
    await visit.click("#play");
    await visit.hasFrames(4);
    await visit.click("#pause");
    await visit.reaches("paused");
    const paused = (await visit.frames()).length;
    await sleep(1500);
    assert.equal((await visit.frames()).length, paused, "steps were made after the pause");
    await visit.reset();
    assert.match(await visit.text("#step-count"), /^0 of 1000/);
    await visit.steps(2);
    assert.deepEqual(await visit.losses(), [first, second]);
    await visit.reset();
  });

  it("goes on from a downloaded checkpoint as if nothing had been between", once, async () => {
    await shared();
    await visit.steps(3);
    const checkpoint = await visit.saved("#download-checkpoint");
    await visit.steps(2);
    const continued = (await visit.losses()).slice(3);
    await visit.reset();
    await visit.page.setInputFiles("#restore", checkpoint);
    await visit.statusSays("Restored at step 3");
    await visit.steps(2);
    const frames = (await visit.frames()).filter(({ step }) => step > 3);
    assert.deepEqual(frames.map(({ step }) => step), [4, 5]);
    assert.deepEqual(frames.map(({ losses }) => losses), continued);
    // A checkpoint that was cut off is refused, and what was there goes on.
    const whole = readFileSync(checkpoint);
    const half = whole.subarray(0, whole.length / 2);
    await visit.page.setInputFiles("#restore", { name: "cut", mimeType: "", buffer: half });
    await visit.shows("#error");
    await visit.reaches("paused");
    await visit.click("#error button");
    await visit.steps(1);
    await visit.reset();
  });

  it("writes metrics and a learner that can be downloaded", once, async () => {
    await shared();
    await visit.steps(2);
    const lines = jsonLines(await visit.saved("#download-metrics"));
    const names = lines.map(({ step, learner }) => `${step} ${learner}`);
    assert.deepEqual(names, ["1 left", "1 right", "2 left", "2 right"]);
    assert.deepEqual(lines.map(({ loss }) => loss), (await visit.losses()).flat());
    const left = await visit.saved("#download-left");
    assert.ok(readFileSync(left).length > 0);
    await visit.reset();
  });

  it("lets a changed objective take effect at the next step", once, async () => {
    await shared();
    await visit.steps(1);
    await visit.set("#objective-right", "sft");
    await visit.statusSays("from step 2");
    await visit.steps(1);
    const lines = jsonLines(await visit.saved("#download-metrics"));
    const gates = lines.filter(({ learner }) => learner === "right").map((line) => line.gate_mean);
    assert.ok(gates[0] < 0.99, `EAFT's mean gate is ${gates[0]}`);
    assert.equal(gates[1], 1, "SFT's gate");
    // What was recorded keeps its name.
    await visit.page.locator("#timeline").fill("0");
    await visit.until(() => document.querySelector(".key.lines").textContent.trim().endsWith("right: EAFT"));
    await visit.click("#live");
    await visit.until(() => /right: EAFT, then SFT from step 2/.test(document.querySelector(".key.lines").textContent));
    await visit.click("#objective-right-reset");
    await visit.reset();
  });

  it("starts anew with an objective that needs it, or keeps it for the next reset, and changes all else live", once,
    async () => {
      await shared();
      const names = (names) => visit.until((names) =>
        document.querySelector(".key.lines").textContent.replace(/\s+/g, " ").trim() === names, names);
      // Before the first step nothing is lost by it.
      await visit.set("#objective-right", "sft_kl");
      await names("left: SFT right: SFT-KL");
      await visit.reaches("ready");
      assert.ok(await visit.page.locator("#error").isHidden());
      await visit.steps(1);
      await visit.set("#objective-right", "eaft");
      await visit.statusSays("from step 2");
      await visit.reset();
      await visit.steps(1);
      await visit.set("#objective-right", "asft");
      await visit.shows("#pending");
      assert.match(await visit.text("#pending"), /in effect after a reset: objective, right\./);
      assert.equal(await visit.page.inputValue("#objective-right"), "asft", "the choice is kept");
      await visit.set("#learning-rate", "0.003");
      await visit.statusSays("from step 2");
      await visit.steps(1);
      await visit.set("#objective-left", "dft");
      await visit.statusSays("from step 3");
      await visit.steps(1);
      await names("left: SFT, then DFT from step 3 right: EAFT");
      const lines = jsonLines(await visit.saved("#download-metrics"));
      const [first, second] = lines.filter(({ learner }) => learner === "right").map((line) => line.learning_rate);
      // By itself the second step of the warm-up has twice the rate of the first.
      assert.ok(second > 5 * first, `${second} after ${first}`);
      await visit.click("#pending button");
      await visit.until(() => window.temper.frames().length === 0);
      await visit.reaches("ready");
      await names("left: DFT right: ASFT");
      assert.ok(await visit.page.locator("#pending").isHidden());
      for (const id of ["objective-right", "objective-left", "learning-rate"]) await visit.click(`#${id}-reset`);
      await names("left: SFT right: EAFT");
      await visit.reset();
    });

  it("takes two pauses for one, a held key for one press, and a reset after the step under way", once, async () => {
    await shared();
    await visit.click("#play");
    await visit.hasFrames(1);
    // It plays on as soon as it is paused: no late answer to the other pause may stop it.
    const paused = await visit.page.evaluate(() => new Promise((resolve) => {
      const press = (id) => document.getElementById(id).click();
      new MutationObserver((_, observer) => {
        if (document.body.dataset.state !== "paused") return;
        observer.disconnect();
        press("play");
        resolve(window.temper.frames().length);
      }).observe(document.body, { attributeFilter: ["data-state"] });
      press("pause");
      press("pause");
    }));
    await visit.hasFrames(paused + 2);
    assert.equal(await visit.state(), "playing");
    await visit.page.evaluate(() => document.activeElement.blur());
    await visit.page.keyboard.press("Space");
    await visit.reaches("paused");
    await visit.page.keyboard.down("Space");
    await visit.reaches("playing");
    // The key is held down: it is told again and again.
    for (let again = 0; again < 3; again++) await visit.page.keyboard.down("Space");
    await visit.hasFrames((await visit.frames()).length + 2);
    assert.equal(await visit.state(), "playing");
    await visit.page.keyboard.up("Space");
    await visit.click("#pause");
    await visit.reaches("paused");
    const seen = await visit.page.evaluate(() => new Promise((resolve) => {
      const seen = [];
      const status = document.getElementById("status");
      const watch = new MutationObserver(() => {
        const { state } = document.body.dataset;
        seen.push([state, status.textContent]);
        if (state === "ready" || state === "failed") resolve(seen);
      });
      watch.observe(document.body, { attributeFilter: ["data-state"] });
      watch.observe(status, { childList: true });
      document.getElementById("step").click();
      document.getElementById("reset").click();
    }));
    const begun = seen.slice(seen.findIndex(([state]) => state === "loading"));
    assert.deepEqual([...new Set(begun.map(([state]) => state))], ["loading", "ready"], JSON.stringify(seen));
    assert.ok(begun.every(([, words]) => !/Paused|Finished/.test(words)), JSON.stringify(seen));
    assert.equal((await visit.frames()).length, 0);
    await visit.steps(1);
    await visit.reset();
  });

  it("keeps what differs from the standard run in the address, and takes it from there", once, async () => {
    await shared();
    await visit.set("#seed", "11");
    await visit.reaches("ready");
    await visit.set("#learning-rate", "0.002");
    const address = new URL(visit.page.url());
    assert.equal(address.searchParams.get("run.seed"), "11");
    assert.equal(address.searchParams.get("optim.learning_rate"), "0.002");
    assert.equal(address.searchParams.has("optim.schedule"), false, "a default is not part of the address");
    const again = await Visit.begin(at.context, server.origin, address.searchParams);
    const shown = { seed: "11", "learning-rate": "0.002", "data-set": "shakespeare", "batch-tokens": "128" };
    for (const [id, value] of Object.entries(shown)) assert.equal(await again.page.inputValue(`#${id}`), value, id);
    await again.steps(1);
    await visit.steps(1);
    assert.deepEqual(await again.losses(), await visit.losses(), "a shared link gives the same run");
    again.isClean();
    await again.page.close();
    await visit.click("#seed-reset");
    await visit.click("#learning-rate-reset");
    await visit.reset();
  });

  it("goes back to a recorded step on the timeline", once, async () => {
    await shared();
    await visit.steps(3);
    const [[first]] = await visit.losses();
    await visit.page.locator("#timeline").fill("0");
    await visit.until(() => document.getElementById("step-count").textContent.startsWith("1 of"));
    const shown = await visit.text("#loss-left");
    assert.ok(Math.abs(Number.parseFloat(shown) - first) < 0.01, shown);
    await visit.click("#live");
    await visit.until(() => document.getElementById("step-count").textContent.startsWith("3 of"));
    await visit.reset();
  });

  it("shows the tokens of a batch, and one of them in full, for the mouse and the keyboard", once, async () => {
    await shared();
    await visit.steps(1);
    const trained = visit.page.locator("#text-tokens [data-position]");
    await trained.nth(3).hover({ timeout: PATIENCE });
    await visit.shows("#token-candidates table");
    const rows = await visit.page.locator("#token-candidates tbody tr").count();
    assert.ok(rows >= 5, `${rows} candidates`);
    assert.match(await visit.text("#token"), /probability of this token.*entropy.*gate, left.*gate, right/s);
    await trained.nth(3).focus();
    await visit.page.keyboard.press("ArrowRight");
    assert.equal(await trained.nth(4).getAttribute("aria-selected"), "true");
    await visit.reset();
  });

  it("lists the tokens of a region with the text around them", once, async () => {
    await shared();
    await visit.steps(2);
    // All that is improbable: there is much of it in a text that the model has not learned.
    await visit.click("#brush summary");
    for (const [id, value] of Object.entries({ p0: "0", p1: "0.5", h0: "0", h1: "10" })) {
      await visit.page.locator(`#region-${id}`).fill(value);
    }
    await visit.click("#region-apply");
    await visit.shows("#brush-list li >> nth=0");
    const newest = await visit.text("#brush-list li >> nth=0");
    assert.match(newest, /step [12], probability <?[\d.]+ ?%, entropy [\d.]+, gate [\d.]+/);
    await visit.click("#brush-clear");
    await visit.reset();
  });

  it("continues two beginnings by the base model and both learners", once, async () => {
    await shared();
    await visit.steps(1);
    await visit.click("#sample-now");
    await visit.until(() => document.getElementById("sample-step").textContent.includes("step 1"));
    const written = await visit.text("#sample-list");
    for (const who of ["base", "left", "right"]) assert.ok(written.toLowerCase().includes(who), written);
    await visit.reset();
  });

  it("can be used from the keyboard", once, async () => {
    await shared();
    await visit.page.evaluate(() => document.activeElement.blur());
    await visit.page.keyboard.press("s");
    await visit.hasFrames(1);
    await visit.reaches("paused");
    await visit.page.keyboard.press("Space");
    await visit.hasFrames(2);
    await visit.page.keyboard.press("Space");
    await visit.reaches("paused");
    await visit.page.locator("#step").focus();
    const before = (await visit.frames()).length;
    await visit.page.keyboard.press("Enter");
    await visit.hasFrames(before + 1);
    await visit.reaches("paused");
    const focused = () => visit.page.evaluate(() => document.activeElement.id);
    assert.equal(await focused(), "step", "the focus stays where it was");
    await visit.page.locator("#reset").focus();
    await visit.page.keyboard.press("Enter");
    await visit.until(() => window.temper.frames().length === 0);
    await visit.reaches("ready");
    await visit.until(() => document.activeElement.id === "reset");
    // A button that goes away hands the focus to the one that goes on.
    await visit.drop([ownText]);
    await visit.until(() => document.activeElement.id === "own-start");
    await visit.page.keyboard.press("Enter");
    await visit.shows("#own-buttons", "hidden");
    await visit.until(() => document.activeElement.id === "play");
    await visit.set("#data-set", "shakespeare");
    await visit.reset();
  });

  it("lets words be dragged into a field, and takes files anywhere", once, async () => {
    await shared();
    const taken = await visit.page.evaluate(() => ["text", "file"].map((what) => {
      const dataTransfer = new DataTransfer();
      if (what === "file") dataTransfer.items.add(new File([""], "own.txt"));
      else dataTransfer.setData("text/plain", "Once upon a time");
      const over = new DragEvent("dragover", { bubbles: true, cancelable: true, dataTransfer });
      return !document.getElementById("prompt-0").dispatchEvent(over);
    }));
    assert.deepEqual(taken, [false, true]);
    await visit.page.evaluate(() => document.getElementById("drop").classList.remove("over"));
  });

  it("asks before it is left with a long run that is in no file, and not with a short one", once, async () => {
    await shared();
    await visit.steps(2);
    const seen = await visit.page.evaluate(async () => {
      const { Recording } = await import("/timeline.js");
      const recording = new Recording(10);
      const unsaved = [recording.unsaved];
      const add = (step, seconds) => {
        recording.add({ step, document: [], learners: [{ metrics: { seconds } }, { metrics: { seconds: seconds - 1 } }] });
        unsaved.push(recording.unsaved);
      };
      // A run that was restored has its seconds of before.
      add(101, 5000);
      add(102, 5050);
      recording.saved();
      unsaved.push(recording.unsaved);
      add(103, 5070);
      const leaving = new Event("beforeunload", { cancelable: true });
      return { unsaved, isAsked: !dispatchEvent(leaving) };
    });
    assert.deepEqual(seen, { unsaved: [0, 0, 50, 0, 20], isAsked: false });
    await visit.reset();
  });

  it("gives the second worker what is certain to be taken at the same time, and a visitor's files when a run needs them", once, async () => {
    await shared();
    const asked = await visit.page.evaluate(async () => {
      const { Labs } = await import("/labs.js");
      const asked = [];
      const calls = ["base_model", "own_model", "data_set", "own_data"];
      const first = Object.fromEntries(calls.map((call) => [call, () => asked.push(`first ${call}`)]));
      const given = new Map();
      const second = { ask: async (call) => asked.push(`second ${call}`), has: (what, give) => given.get(what) === give,
        take: async (what, give) => {
          given.set(what, give);
          await give(second);
        } };
      const labs = new Labs(first, () => {}, { alone: "", second });
      const give = (what, call, certain) => labs.give(what, (lab) => lab.ask(call), certain);
      await give("model", "base_model", true);
      await give("data", "data_set", true);
      await give("data", "own_data");
      await give("model", "own_model");
      // The second one would read this text with the model of before.
      await give("data", "data_set", true);
      return asked;
    });
    assert.deepEqual(asked, ["second base_model", "first base_model", "second data_set", "first data_set", "first own_data",
      "first own_model", "first data_set"]);
  });

  it("leads through a tour that acts, asks and waits, and covers nothing that it speaks of", once, async () => {
    for (const [width, height] of [[1280, 800], [360, 740]]) {
      await shared();
      await visit.page.setViewportSize({ width, height });
      await visit.page.evaluate(() => sessionStorage.clear());
      await visit.click("#tour-start");
      for (let step = 1; step <= 6; step++) {
        assert.equal(await visit.text("#tour-count"), `${step} of 6`);
        if (step === 1) assert.equal(await visit.page.inputValue("#sure"), "0.75", "it moves the slider");
        if (step === 2) await visit.reaches("playing", "paused");
        if (step === 4) await visit.until(() => document.getElementById("tour-text").textContent.includes("You said"));
        if (step === 5) assert.ok(await visit.page.locator('input[name="dot-colour"][value="gate"]').isChecked());
        await sleep(300);
        const over = await visit.page.evaluate(() => {
          const [tour, spoken] = ["#tour", ".toured"].map((s) => document.querySelector(s).getBoundingClientRect());
          // What is taller than the window is spoken of where it begins.
          const bottom = Math.min(spoken.bottom, spoken.top + 120);
          const seen = spoken.top >= 0 && bottom <= innerHeight;
          return { seen, covered: tour.top < bottom && tour.bottom > spoken.top, tour: [tour.top, tour.bottom],
            spoken: [spoken.top, spoken.bottom] };
        });
        assert.ok(over.seen && !over.covered, `${width} px, step ${step}: ${JSON.stringify(over)}`);
        if (step === 3) {
          assert.ok(await visit.page.locator("#tour-next").isDisabled(), "it waits for a guess");
          await visit.click('#tour-answers [data-guess="right"]');
        } else {
          await visit.click("#tour-next");
        }
      }
      assert.ok(await visit.page.locator("#tour").isHidden());
      if (await visit.state() === "playing") await visit.click("#pause");
      await visit.reaches("paused");
      await visit.page.locator('input[name="dot-colour"][value="gradient"]').check();
      // Where the race met a conflict, the tour looks at it with the model of before.
      await visit.page.locator('input[name="text-who"][value="left"]').check();
      await visit.page.setViewportSize({ width: 1280, height: 800 });
      await visit.reset();
    }
  });

  it("shows a disputed word before the engine is there, and lets the engine weigh it when it is", once, async () => {
    const slow = await throttled(server.origin, 20e6);
    try {
      const early = new Visit(await at.context.newPage());
      await early.load(slow.origin, LONG);
      const numbers = () => early.page.evaluate(() => ({ ...document.getElementById("hero").dataset }));
      assert.equal(await early.state(), "loading");
      const stored = await numbers();
      assert.ok(stored.p < 0.1 && stored.plain > 1 && stored.pull < 0.5 * stored.plain, JSON.stringify(stored));
      assert.equal(stored.live, undefined);
      // The bar counts bytes.
      await early.until(() => /Loading: [\d.]+ [KM]iB of [\d.]+ MiB/.test(document.getElementById("status").textContent));
      await early.until(() => document.getElementById("loading").value > 0.2);
      await early.until(() => document.getElementById("hero").dataset.live === "true");
      const live = await numbers();
      for (const key of ["p", "gate", "pull", "plain"]) {
        assert.ok(Math.abs(live[key] - stored[key]) <= 1e-3 * Math.max(Math.abs(stored[key]), 0.01), `${key}: ${JSON.stringify(live)}`);
      }
      await early.page.locator("#sure").fill("0");
      await early.until((gate) => Number(document.getElementById("hero").dataset.gate) > gate, Number(live.gate) + 0.2);
      const unsure = await numbers();
      assert.ok(Number(unsure.pull) > Number(live.pull), "EAFT pulls again where the model is unsure");
      early.isClean();
      await early.page.close();
    } finally {
      slow.stop();
    }
  });

  it("weighs a looked-at token as the last step did, in the table and in the sentence", once, async () => {
    await shared();
    const objectives = { mile: "1", talr: "0.3679", eaft: null, masked_sft: null };
    for (const [method, alone] of Object.entries(objectives)) {
      await visit.set("#objective-right", method);
      if (method === "eaft") await visit.set("#gate-right", "hard");
      await visit.steps(1);
      const tokens = visit.page.locator("#text-tokens [data-position]");
      const seen = new Set();
      for (const nth of [4, 9, 14]) {
        await tokens.nth(nth).focus();
        // The sentence has two digits, the table three, and they are of one step as soon as both answers are there.
        await visit.until(() => {
          const [, words] = /right [^;]*\(weight ([\d.e-]+)\)/.exec(document.querySelector("#token .verdict")?.textContent) ?? [];
          const gate = Number(document.querySelectorAll("#token-numbers dd")[3]?.textContent);
          return words && Math.abs(Number(words) - gate) <= 0.06 * Math.max(gate, 0.01);
        });
        seen.add(await visit.page.locator("#token-numbers dd").nth(3).innerText());
      }
      // A batch of the one token that is looked at would give each of them the same weight.
      if (alone) assert.ok(seen.size > 1 || !seen.has(alone), `${method}: ${[...seen]}`);
      if (method === "eaft") await visit.click("#gate-right-reset");
    }
    await visit.click("#objective-right-reset");
    await visit.reset();
  });

  it("says how many tokens there are, and how long a run takes once steps were made", once, async () => {
    await shared();
    await visit.steps(2);
    await visit.click('[data-region="0.9,1,0,0.5"]');
    await visit.until(() => /last [\d,]+ tokens/.test(document.getElementById("brush-count").textContent));
    const shown = Number(/last ([\d,]+) tokens/.exec(await visit.text("#brush-count"))[1].replaceAll(",", ""));
    assert.ok(shown > 0 && shown <= 256, `two batches of 128 tokens are ${shown}`);
    await visit.click("#brush-clear");
    await visit.unfold("#estimate");
    await visit.until(() => /Time: about .* a step/.test(document.getElementById("estimate").textContent));
    assert.match(await visit.text("#time-left"), /\d (ms|s|min|h)/);
    await visit.reset();
  });

  it("shows what was recorded of the text where the timeline goes back, and says so", once, async () => {
    await shared();
    await visit.steps(3);
    await visit.page.locator("#text-tokens [data-position]").nth(5).focus();
    await visit.shows("#token-candidates table");
    await visit.page.locator("#timeline").fill("0");
    await visit.until(() => /As recorded at step 1/.test(document.getElementById("text-when").textContent));
    // Its documents come a moment later, and the tokens of before go.
    await visit.until(() => {
      document.querySelectorAll("#text-tokens [data-position]")[5]?.focus();
      return /probability of this token.*was not kept/s.test(document.getElementById("token").innerText);
    });
    assert.equal(await visit.page.locator("#token-candidates table").count(), 0, "no candidates of another moment");
    await visit.click("#live");
    await visit.shows("#token-candidates table");
    assert.ok(await visit.page.locator("#text-when").isHidden());
    await visit.reset();
  });

  it("says in words how a token lies, also at the edge", once, async () => {
    await shared();
    const said = await visit.page.evaluate(async () => {
      const { verdict } = await import("/verdict.js");
      const candidates = [{ id: 1, text: " Paris", p: 0.9, push: [] }, { id: 2, text: " Rome", p: 0.05, push: [] }];
      const of = (label, p, entropy, gate) => verdict(label, candidates, p, entropy, gate, ["left (SFT)", "right (EAFT)"]);
      const rome = { id: 2, text: " Rome", p: 0.05, rank: 2 };
      return [of(rome, 0.05, 0.4996, [1, 0.05]), of(rome, 0.05, 0.5, [1, 0.7]), of({ ...rome, id: 1, text: " Paris", rank: 1 }, 0.9, 2.5, [1, 0])];
    });
    assert.equal(said[0], "The model expects “Paris” most of all; “Rome”, which the text has, is its choice number 2. It is sure " +
      "(entropy 0.4996, and below 0.5 counts as sure). This is a confident conflict. Training raises “Rome” and lowers the rest: " +
      "left (SFT) pushes hard (weight 1); right (EAFT) leaves it nearly alone (weight 0.05).");
    assert.match(said[1], /It is nearly sure \(entropy 0.5, and only below 0.5 counts as sure\)\. Training/);
    assert.match(said[2], /^The model expects “Paris” most of all, and so says the text\. It is unsure.*right \(EAFT\) does nothing/);
    assert.match(said[2], /left \(SFT\) leaves it nearly alone \(weight 1\)/, "what is expected is hardly pushed, whatever its weight");
  });

  it("compares at equal learning, and says so where it cannot", once, async () => {
    await shared();
    const found = await visit.page.evaluate(async () => {
      const { equalLearning, measured } = await import("/equal.js");
      const path = (...points) => points.map(([target, general]) => ({ target, general }));
      const start = [3, 2];
      const of = (left, right) => equalLearning([path(start, ...left), path(start, ...right)]);
      const say = (left, right, more = {}) => measured({ paths: [path(start, ...left), path(start, ...right)],
        names: ["SFT", "EAFT"], finished: true, diverged: [false, false], ...more });
      return {
        // The left one learned more: it is read off where it had learned 1, halfway between its last two.
        between: of([[2.5, 2.2], [1.5, 3]], [[2.5, 2.1], [2, 2.2]]),
        // A path that comes back counts where it was first.
        first: of([[2, 2.4], [2.5, 2.9], [1.9, 3]], [[2, 2.1]]),
        none: [of([], []), of([[3.1, 2]], [[2, 2]]), of([[3.1, 2]], [[3, 2]]), of([[NaN, 2]], [[2, 2]])].map(({ equal, why }) =>
          [equal, why]),
        apart: equalLearning([path(start, [2, 2]), path([2.9, 2], [2, 2])]).why,
        said: [say([[2, 2.5]], [[2, 2.1]]), say([[2, 2.1]], [[2, 2.5]]), say([[2, 2.1]], [[2, 2.105]]),
          say([[3.2, 2.1]], [[2, 2.1]]), say([[2, 2.5]], [[2, 2.1]], { diverged: [true, false] }),
          say([[2, 2.5]], [[2, 2.1]], { wrong: true, finished: false }), say([[3, 2.5]], [[3, 2.1]], { wrong: true })],
      };
    });
    const close = (a, b) => assert.ok(Math.abs(a - b) <= 1e-9, `${a} and not ${b}`);
    close(found.between.equal.target, 2);
    close(found.between.equal.general[0], 2.6);
    close(found.between.equal.general[1], 2.2);
    close(found.between.equal.forgot[0], 0.6);
    close(found.first.equal.general[0], 2.4);
    assert.deepEqual(found.none.map(([equal]) => equal), [null, null, null, null]);
    assert.match(found.none.map(([, why]) => why).join("; "), /nothing was measured.*no overlap.*neither.*beyond measure/);
    assert.match(found.apart, /did not start from one point/);
    const [eaft, sft, alike, none, gone, wrong, unlearned] = found.said;
    assert.match(eaft, /^When both had learned as much \(−63 %.*changed by \+65 % under SFT and \+11 % under EAFT: EAFT forgot less\.$/);
    assert.match(sft, /: SFT forgot less\.$/);
    assert.match(alike, /: the two forgot alike\.$/);
    assert.match(none, /^One of the two has learned nothing yet.*no overlap/);
    assert.match(gone, /^SFT diverged: it knows less than nothing/);
    assert.match(wrong, /^So far: when both had taken up as much of the wrong answers \(−63 % surprise at them\), surprise at the right/);
    assert.match(wrong, /answers had changed by \+65 % under SFT and \+11 % under EAFT: EAFT kept more of what was known\.$/);
    assert.match(unlearned, /^Neither has learned anything yet\. Surprise at the right answers changed by \+65 % under SFT and \+11 %/);
  });

  it("says when a run has diverged, and never shows the largest number that there is", once, async () => {
    const wild = await Visit.begin(at.context, server.origin, { ...LONG, "run.steps": "10", "optim.learning_rate": "10" });
    await wild.click("#play");
    await wild.until(() => document.body.dataset.state === "paused" || document.body.dataset.state === "failed");
    const page = await wild.page.evaluate(() => document.body.textContent);
    assert.doesNotMatch(page, /e\+?308|1\.80?e/);
    // What was measured last comes after the last step.
    await wild.until(() => !document.getElementById("diverged").hidden);
    assert.match(await wild.text("#measured"), /diverged/);
    assert.match(await wild.text("#diverged"), /diverged by step \d+/);
    await wild.page.close();
  });

  it("learns something in its first step", once, async () => {
    await shared();
    await visit.steps(1);
    const [line] = jsonLines(await visit.saved("#download-metrics"));
    assert.ok(line.learning_rate > 0, `${line.learning_rate}`);
    await visit.reset();
  });

  it("says before a run that it will be a long one, and offers ten steps", once, async () => {
    const long = await Visit.begin(at.context, server.origin, { ...LONG, "run.steps": "1000000" });
    await long.shows("#long");
    assert.match(await long.text("#long"), /will take about [\d.]+ h: 1,000,000 steps/);
    assert.equal((await long.frames()).length, 0);
    await long.click("#few-steps");
    await long.until(() => document.getElementById("step-count").textContent === "0 of 10");
    await long.reaches("ready");
    assert.ok(await long.page.locator("#long").isHidden());
    long.isClean();
    await long.page.close();
  });

  it("asks before a key wipes a run", once, async () => {
    await shared();
    await visit.steps(1);
    await visit.page.evaluate(() => document.activeElement.blur());
    await visit.page.keyboard.press("r");
    await visit.shows("#ask");
    await visit.page.keyboard.press("Escape");
    assert.equal((await visit.frames()).length, 1, "it is kept");
    await visit.page.evaluate(() => document.activeElement.blur());
    await visit.page.keyboard.press("r");
    await visit.click("#ask-yes");
    await visit.until(() => window.temper.frames().length === 0);
    await visit.reaches("ready");
  });

  it("reads a dot under the pointer, outlines conflicts in the text, and goes from one to the next", once, async () => {
    const facts = await Visit.begin(at.context, server.origin, { data: "facts", "run.steps": "1000" });
    await facts.steps(1);
    const dot = await facts.page.evaluate(async () => {
      const { across } = await import("/landscape.js");
      const { p, entropy } = window.temper.rows().at(-1).learners[0];
      const i = p.findIndex((value, k) => value < 0.1 && entropy[k] < 0.5);
      const plot = document.getElementById("plot-left");
      plot.scrollIntoView({ block: "center" });
      const { left, top, width, height } = plot.querySelector("canvas").getBoundingClientRect();
      return { x: left + across(p[i]) * width, y: top + (1 - entropy[i] / 4) * height };
    });
    await facts.page.mouse.move(dot.x, dot.y);
    await facts.shows("#plot-left .tip");
    assert.match(await facts.text("#plot-left .tip"), /probability .*entropy .*gate/);
    await facts.click("#text-conflict");
    await facts.shows("#token-candidates table");
    const chosen = facts.page.locator("#text-tokens .chosen");
    assert.match(await chosen.getAttribute("class"), /conflict/);
    assert.ok((await chosen.getAttribute("data-expected")).length > 0, "what was expected stands above");
    const first = await chosen.getAttribute("data-position");
    const about = await facts.text("#text-about");
    await facts.click("#text-conflict");
    await facts.until(([first, about]) => document.querySelector("#text-tokens .chosen")?.dataset.position !== first
      || document.getElementById("text-about").textContent !== about, [first, about]);
    // Another document has other tokens.
    await facts.click("#text-next");
    await facts.until(() => document.getElementById("token").textContent === "No token is chosen.");
    // Facts are quoted with what all three answer.
    await facts.shows("#quotes");
    assert.match(await facts.text("#quotes-list"), /before.*SFT.*EAFT/s);
    assert.match(await facts.text("#score-table"), /wrong learned.*truth, when both took up as much of the wrong/s);
    assert.match(await facts.text("#race-about"), /right answers .*wrong answers that are taught/);
    assert.match(await facts.text("#plane-name"), /^Truth against the wrong/);
    assert.match(await facts.text("#target-name"), /^Loss on the truth/);
    facts.isClean();
    await facts.page.close();
  });

  it("starts a lesson by its link, and the address says which", once, async () => {
    const visitor = await Visit.begin(at.context, server.origin, { "run.seed": "5" });
    assert.equal(await visitor.page.getAttribute("#lesson-gsm8k", "aria-current"), "true");
    assert.match(await visitor.text("#step-count"), /^0 of 80/);
    for (const [id, query] of [["wikipedia", "?data=wikipedia"], ["meant", "?data=meant"], ["gsm8k", ""]]) {
      await visitor.click(`#lesson-${id}`);
      await visitor.until((id) => document.getElementById(`lesson-${id}`).getAttribute("aria-current") === "true"
        && document.body.dataset.state === "ready", id);
      assert.equal(new URL(visitor.page.url()).search, query);
      assert.equal(await visitor.page.inputValue("#data-set"), id);
    }
    visitor.isClean();
    await visitor.page.close();
  });

  it("takes one worker where memory does not allow the model twice, and two again where it does", once, async () => {
    await shared();
    const before = await visit.text("#workers");
    const TOKENS = 80_000;
    await visit.set("#batch-tokens", String(TOKENS));
    const shown = /need ([\d.]+) GiB of memory; ([\d.]+) GiB are allowed/;
    await visit.until((shown) => new RegExp(shown).test(document.getElementById("estimate").textContent), shown.source);
    await visit.reaches("ready");
    const [, need, allowed] = shown.exec(await visit.text("#estimate")).map(Number);
    // Nearly all of it grows with the batch: 1.4 times what is allowed in two workers is 0.7 times that in one.
    await visit.set("#batch-tokens", String(Math.round(1.4 * TOKENS * allowed / need)));
    await visit.until(() => /memory does not allow|one thread/.test(document.getElementById("workers").textContent));
    await visit.reaches("ready");
    assert.match(await visit.text("#estimate"), /^Fits/);
    await visit.set("#batch-tokens", "128");
    await visit.until((before) => document.getElementById("workers").textContent === before, before);
    await visit.reaches("ready");
    await visit.steps(1);
    await visit.reset();
  });

  it("refuses what cannot fit, with numbers", once, async () => {
    await shared();
    await visit.set("#batch-tokens", "500000000");
    await visit.shows("#error");
    const estimate = await visit.text("#estimate");
    assert.match(estimate, /Does not fit/);
    assert.match(estimate, /need [\d.,]+ \w+ of memory; [\d.,]+ \w+ are allowed/);
    await visit.reaches("ready");
    await visit.click("#error button");
    await visit.set("#batch-tokens", "128");
    await visit.reaches("ready");
    await visit.steps(1);
    await visit.reset();
  });

  it("refuses broken files in words, and nothing is lost", once, async (t) => {
    await shared();
    await visit.steps(1);
    const before = await visit.losses();
    for (const [what, files] of Object.entries(BROKEN)) {
      await t.test(what, once, async () => {
        await visit.drop(files);
        await visit.until(() => ["error", "own-buttons"].some((id) => !document.getElementById(id).hidden));
        const words = await visit.text("#error");
        assert.ok(words.length > 30, words);
        assert.doesNotMatch(words, /panicked|unreachable|RuntimeError|out of bounds|undefined|\[object/);
        await visit.reaches("paused");
        await visit.click("#error button");
        assert.deepEqual(await visit.losses(), before);
      });
    }
    await visit.steps(1);
    await visit.reset();
    await visit.steps(1);
    assert.deepEqual(await visit.losses(), before, "the model and text of before");
    await visit.reset();
  });

  it("trains on a dropped text, and gives it back", once, async () => {
    await shared();
    await visit.drop([ownText]);
    await visit.shows("#own-buttons");
    assert.match(await visit.text("#own"), /own\.jsonl.*60 records/s);
    await visit.click("#own-start");
    await visit.shows("#own-buttons", "hidden");
    await visit.reaches("ready");
    await visit.steps(2);
    await visit.set("#data-set", "shakespeare");
    await visit.reset();
  });

  it("says what makes a visitor's text doubtful, when it is read and beside what is measured", once, async () => {
    await shared();
    await visit.drop([{ name: "rows.txt", bytes: ownText.bytes }]);
    await visit.shows("#own-buttons");
    assert.match(await visit.text("#own"), /rows\.txt is read as plain text.*let its name end in \.jsonl\./s);
    await visit.click("#own-discard");
    await visit.shows("#own-buttons", "hidden");
    await visit.drop([{ name: "twice.jsonl", bytes: Buffer.concat([ownText.bytes, Buffer.from("\n"), ownText.bytes]) }]);
    await visit.shows("#own-buttons");
    const words = /12 of 12 target documents are also in the training data \(twice\.jsonl has them more than once\)/;
    assert.match(await visit.text("#own"), words);
    assert.ok(await visit.page.locator("#doubts").isHidden(), "what is measured is still of another text");
    await visit.click("#own-start");
    await visit.shows("#doubts");
    assert.match(await visit.text("#doubts"), words);
    await visit.reaches("ready");
    await visit.set("#data-set", "shakespeare");
    await visit.shows("#doubts", "hidden");
    await visit.reset();
  });

  it("passes axe-core in light and dark, wide and narrow, with and without the tour", once, async () => {
    await shared();
    await visit.steps(2);
    // As much as can be on show at once.
    await visit.page.evaluate(() => {
      for (const details of document.querySelectorAll("details")) details.open = true;
    });
    await visit.page.locator("#text-tokens [data-position]").first().focus();
    await visit.shows("#token-candidates table");
    await visit.click('[data-region="0.9,1,0,0.5"]');
    const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    // Through the debugger, because the page's policy lets no foreign script in.
    const debug = await at.context.newCDPSession(visit.page);
    await debug.send("Runtime.evaluate", { expression: source });
    const violations = [];
    const check = async (when) => {
      const found = await visit.page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      for (const { id, nodes } of found.violations) {
        violations.push(...nodes.map(({ target, failureSummary }) => `${when}: ${id}: ${target}: ${failureSummary}`));
      }
    };
    for (const colorScheme of ["light", "dark"]) {
      await visit.page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      for (const width of [1280, 360]) {
        await visit.page.setViewportSize({ width, height: 800 });
        await sleep(500);
        await check(`${colorScheme}, ${width} px`);
        await visit.click("#tour-start");
        await check(`${colorScheme}, ${width} px, tour`);
        await visit.click("#tour-close");
      }
    }
    assert.deepEqual(violations, []);
    assert.equal(await visit.page.evaluate(() => document.getAnimations().length), 0, "reduced motion");
    await visit.page.emulateMedia({ colorScheme: null, reducedMotion: null });
    await visit.page.setViewportSize({ width: 1280, height: 800 });
    await visit.reset();
  });

  it("had no error in its console and broke no policy in all of this", once, async () => {
    await shared();
    visit.isClean();
  });
});

describe("the page", { concurrency: 3 }, () => {
  withWebGpu();
  onTheirOwnPages();
  onOnePage();
});
