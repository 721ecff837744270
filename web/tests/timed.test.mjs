// What the page takes, in a real Chromium, from the real server: the first step, and the main thread while it trains.
//
// Run alone: whatever computes beside it takes the time that is measured here.

import assert from "node:assert/strict";
import { after, before, it } from "node:test";

import { launch, LONG, mainThreadTasks, ON_WEBGPU, once, serve, throttled, Visit, WITH } from "./harness.mjs";

/** From the navigation to the first trained step, in seconds, with the page's own settings. */
const FIRST_STEP_WITHIN = 15;
/** The page is ready within so many seconds on a line of so many bits a second. */
const READY_WITHIN = 8;
const LINE = 10e6;
/** The one-minute test: a conflict on show, and a comparison at equal learning after Play, in seconds. */
const CONFLICT_WITHIN = 3;
const COMPARED_WITHIN = 45;
/** Longest task of the main thread while training, in milliseconds. */
const LONGEST_TASK = 50;

let server;
before(async () => { server = await serve(); });
after(() => server.stop());

/** A test with a browser of its own. */
function itWith(flags, what, test) {
  it(what, once, async (t) => {
    const browser = await launch(flags);
    try {
      await test(browser, t);
    } finally {
      await browser.close();
    }
  });
}

itWith(WITH.webgpu, "makes the first step in time, with everything at its default", async (browser, t) => {
  const first = new Visit(await browser.newPage());
  const start = performance.now();
  await first.load(server.origin);
  await first.reaches("ready");
  const ready = performance.now();
  await first.click("#step");
  await first.hasFrames(1);
  const seconds = (performance.now() - start) / 1000;
  t.diagnostic(`first step after ${seconds.toFixed(1)} s, of which loading ${((ready - start) / 1000).toFixed(1)} s`);
  first.isClean();
  assert.ok(seconds <= FIRST_STEP_WITHIN, `${seconds.toFixed(1)} s, and at most ${FIRST_STEP_WITHIN} s are allowed`);
});

itWith(WITH.cpu, "is ready in time on a line of 10 Mbit/s", async (browser, t) => {
  const line = await throttled(server.origin, LINE);
  try {
    const visit = new Visit(await browser.newPage());
    const start = performance.now();
    await visit.load(line.origin);
    await visit.reaches("ready");
    const seconds = (performance.now() - start) / 1000;
    const bytes = await visit.page.evaluate(() => performance.getEntriesByType("resource").concat(
      performance.getEntriesByType("navigation")).reduce((sum, entry) => sum + entry.transferSize, 0));
    t.diagnostic(`ready after ${seconds.toFixed(1)} s at 10 Mbit/s; the page's own thread fetched ${bytes} bytes`);
    visit.isClean();
    assert.ok(seconds <= READY_WITHIN, `${seconds.toFixed(1)} s, and at most ${READY_WITHIN} s are allowed`);
  } finally {
    line.stop();
  }
});

itWith(WITH.cpu, "teaches in one minute: a conflict on show, one press of Play, a comparison, and what was measured in words",
  async (browser, t) => {
    const visit = new Visit(await browser.newPage({ viewport: { width: 1280, height: 800 } }));
    const start = performance.now();
    await visit.load(server.origin);
    await visit.until(() => Number(document.getElementById("hero").dataset.p) < 0.1);
    const conflict = (performance.now() - start) / 1000;
    await visit.reaches("ready");
    const pressed = performance.now();
    await visit.click("#play");
    await visit.until(() => [...document.querySelectorAll("#score-table td.equal")].every((cell) => /[+−][\d.]+ %/.test(cell.textContent)));
    const compared = (performance.now() - pressed) / 1000;
    await visit.until(() => document.body.dataset.state === "paused");
    const finished = (performance.now() - pressed) / 1000;
    // All of it without scrolling.
    const out = await visit.page.evaluate(() => ["hero", "lessons", "play", "score-table", "measured"].filter((id) => {
      const { top, bottom } = document.getElementById(id).getBoundingClientRect();
      return top < 0 || bottom > innerHeight;
    }).concat(scrollY === 0 ? [] : ["it was scrolled"]));
    // What is drawn at intervals comes a moment later.
    await visit.until(() => !/^So far/.test(document.getElementById("measured").textContent));
    const words = await visit.text("#measured");
    const board = (await visit.text("#score-table")).replaceAll("\n", " ");
    t.diagnostic(`conflict after ${conflict.toFixed(1)} s; compared ${compared.toFixed(1)} s after Play, finished after ` +
      `${finished.toFixed(1)} s: ${words} | ${board}`);
    visit.isClean();
    assert.deepEqual(out, []);
    assert.match(words, /forgot (less|alike)\.|diverged/);
    assert.ok(conflict <= CONFLICT_WITHIN, `the conflict after ${conflict.toFixed(1)} s`);
    assert.ok(compared <= COMPARED_WITHIN, `compared ${compared.toFixed(1)} s after Play`);
  });

itWith(WITH.webgpu, "never holds the main thread for long while training with WebGPU", async (browser, t) => {
  await assertUnblocked(browser, await Visit.begin(browser, server.origin, { ...LONG, ...ON_WEBGPU }), t);
});

itWith(WITH.cpu, "never holds the main thread for long while training on the CPU", async (browser, t) => {
  await assertUnblocked(browser, await Visit.begin(browser, server.origin, LONG), t);
});

/**
 * No task of the main thread takes over 50 ms while training. Where all cores are busy, as with SwiftShader, a task
 * also waits for its turn, which is not the page's doing. So the thread's own work counts, and what a task took beyond
 * that has to be time that the kernel kept the thread waiting for a core, not time that it waited for something else.
 */
async function assertUnblocked(browser, visit, t) {
  await visit.click("#play");
  await visit.hasFrames(2);
  const { tasks, waited } = await mainThreadTasks(browser, visit.page, 10_000);
  await visit.click("#pause");
  await visit.reaches("paused");
  visit.isClean();
  assert.ok(tasks.length > 50, `only ${tasks.length} tasks were seen`);
  const long = tasks.filter(({ wall }) => wall > LONGEST_TASK);
  const [work, wall] = ["work", "wall"].map((key) => Math.max(...tasks.map((task) => task[key])));
  const beyond = long.reduce((sum, task) => sum + task.wall - task.work, 0);
  t.diagnostic(`${tasks.length} tasks; longest ${work.toFixed(1)} ms of work, ${wall.toFixed(1)} ms by the clock; `
    + `${long.length} over ${LONGEST_TASK} ms by the clock; ${waited.toFixed(0)} ms in all waiting for a core`);
  assert.ok(work <= LONGEST_TASK, `a task worked for ${work.toFixed(1)} ms`);
  assert.ok(beyond <= waited, `tasks stood still for ${beyond.toFixed(0)} ms, waiting for other than a core`);
}
