// What the tests stand on: the real server, a real Chromium, and a page that is watched from its first byte.

import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

export const here = (path) => fileURLToPath(new URL(path, import.meta.url));
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** SwiftShader computes on the CPU, and everything else does too: this is patience, not a promise. */
export const PATIENCE = 180_000;
/** For a test as a whole. */
export const once = { timeout: 2 * PATIENCE };

/** WebGPU in software is used where it is asked for; by itself the page then takes the CPU. */
export const ON_WEBGPU = { device: "webgpu" };
/** More steps than any test makes. In the order in which the page writes them into its address. */
export const LONG = { data: "shakespeare", "run.steps": "1000", "run.batch_tokens": "128" };

const FLAGS = ["--no-sandbox", "--no-first-run", "--disable-quic", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
/** Switches of the three browsers that a visitor may have. SwiftShader offers WebGPU only where it is asked to. */
export const WITH = {
  webgpu: ["--enable-unsafe-webgpu"],
  neither: ["--disable-features=WebGPU", "--js-flags=--jitless"],
  cpu: ["--disable-features=WebGPU"],
};

const TEMPER = process.env.TEMPER ?? assert.fail("TEMPER has to name the built program; run: cargo xtask web test");

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    try {
      return execFileSync("which", [name], { encoding: "utf8" }).trim();
    } catch {
      // The next name.
    }
  }
  return assert.fail("no Chromium on the path; name one in CHROMIUM");
}

const CHROMIUM = findChromium();
export const SITE = process.env.SITE ?? here("../dist");

/** `temper web` on a free port. */
export async function serve(site = SITE) {
  const server = spawn(TEMPER, ["web", "--port", "0", "--no-open", "--site", site],
    { stdio: ["ignore", "pipe", "inherit"] });
  const origin = await new Promise((resolve, reject) => {
    let text = "";
    server.stdout.on("data", (part) => {
      text += part;
      const found = /http:\/\/127\.0\.0\.1:\d+/.exec(text);
      if (found) resolve(found[0]);
    });
    server.on("error", reject);
    server.on("exit", (code) => reject(new Error(`temper web ended with ${code}: ${text}`)));
  });
  return { origin, stop: () => server.kill() };
}

export const launch = (flags) => chromium.launch({ executablePath: CHROMIUM, args: [...FLAGS, ...flags] });

/**
 * A way to a server on which so many bits a second come through, over all connections together, as on a line; `sent` says
 * how many bytes did.
 */
export async function throttled(origin, bitsPerSecond) {
  const { port } = new URL(origin);
  const PIECE_MS = 10;
  let allowance = 0;
  let sent = 0;
  const waiting = [];
  const tick = setInterval(() => {
    allowance = Math.min(allowance + bitsPerSecond / 8 * PIECE_MS / 1000, bitsPerSecond / 8 / 10);
    while (waiting.length && allowance > 0) {
      const [{ piece, send }] = waiting;
      const now = piece.subarray(0, Math.ceil(allowance));
      allowance -= now.length;
      sent += now.length;
      if (now.length === piece.length) waiting.shift();
      else waiting[0].piece = piece.subarray(now.length);
      send(now, now.length === piece.length);
    }
  }, PIECE_MS);
  const proxy = createServer((client) => {
    const upstream = connect(Number(port), "127.0.0.1");
    client.on("data", (data) => upstream.write(data));
    upstream.on("data", (data) => {
      upstream.pause();
      waiting.push({ piece: data, send: (now, isLast) => {
        client.write(now);
        if (isLast) upstream.resume();
      } });
    });
    // What waits is sent first.
    upstream.on("end", () => waiting.push({ piece: Buffer.alloc(0), send: () => client.end() }));
    for (const [one, other] of [[client, upstream], [upstream, client]]) one.on("error", () => other.destroy());
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return { origin: `http://127.0.0.1:${proxy.address().port}`, sent: () => sent, stop: () => {
    clearInterval(tick);
    proxy.close();
  } };
}

/**
 * A browser whose tabs may become hidden. Playwright tells every page of a browser that it starts itself that it has
 * the focus, and such a page is never hidden; so this one is started by hand.
 */
export async function launchUntouched(flags) {
  const profile = mkdtempSync(join(tmpdir(), "temper-browser-"));
  const child = spawn(CHROMIUM, ["--headless=new", ...FLAGS, ...flags, "--remote-debugging-port=0",
    `--user-data-dir=${profile}`, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const address = await new Promise((resolve, reject) => {
    let text = "";
    child.stderr.on("data", (part) => {
      text += part;
      const found = /DevTools listening on (ws:\S+)/.exec(text);
      if (found) resolve(found[1]);
    });
    ended.then(() => reject(new Error(`Chromium ended: ${text}`)));
  });
  const browser = await chromium.connectOverCDP(address, { noDefaults: true });
  return {
    context: browser.contexts()[0],
    close: async () => {
      const debug = await browser.newBrowserCDPSession();
      await debug.send("Browser.close");
      await ended;
      // Its other processes end a little later, and write until then.
      rmSync(profile, { recursive: true, force: true, maxRetries: 20 });
    },
  };
}

export const jsonLines = (path) => readFileSync(path, "utf8").trim().split("\n").map((line) => JSON.parse(line));

const known = new Map();

/** Losses of both learners from the command, with the settings that the page has: `[[left, right], ...]`. */
export function nativeLosses(settings) {
  const key = JSON.stringify(settings);
  // A promise is remembered: tests that run at the same time wait for one run of the command.
  if (!known.has(key)) known.set(key, train(settings));
  return known.get(key);
}

async function train(settings) {
  const folder = mkdtempSync(join(tmpdir(), "temper-native-"));
  try {
    const { data, "left.objective.method": left, "right.objective.method": right, ...common } = settings;
    const set = { ...common, "data.cutoff_length": common["run.batch_tokens"], "run.accumulation": "1",
      "run.log_every": "1", "run.save_every": "0", "objective.method": right, "run.baseline": left };
    const train = JSON.stringify(here(`../data/${data}/train.txt`));
    writeFileSync(join(folder, "run.toml"), `[model]\npath = "embedded:base"\n[data]\ntrain = ${train}\n`);
    const overrides = Object.entries(set).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
    const out = join(folder, "out");
    const line = ["train", join(folder, "run.toml"), "--device", "cpu", "--out", out, ...overrides];
    await promisify(execFile)(TEMPER, line);
    const losses = (file) => jsonLines(join(out, file)).map(({ loss }) => loss);
    const [main, baseline] = [losses("metrics.jsonl"), losses("baseline/metrics.jsonl")];
    return baseline.map((loss, step) => [loss, main[step]]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Tasks of the pages' main threads for a while, in milliseconds: by the clock (`wall`) and of the thread's own
 * processor time (`work`); and how long the kernel (Linux) let these threads wait for a core meanwhile.
 */
export async function mainThreadTasks(browser, page, ms) {
  const before = waits();
  await browser.startTracing(page, { categories: ["disabled-by-default-devtools.timeline"] });
  await sleep(ms);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const after = waits();
  // The main thread of a process has the process's number.
  const isMain = ({ pid, tid }) => pid === tid && after.has(pid);
  const tasks = traceEvents.filter((event) => event.name === "RunTask" && event.ph === "X" && isMain(event));
  const pids = [...new Set(tasks.map(({ pid }) => pid))];
  return {
    // Now and then Chromium gives no processor time: the clock's is the most that it can have been.
    tasks: tasks.map(({ dur, tdur }) => ({ wall: dur / 1000, work: (tdur ?? dur) / 1000 })),
    waited: pids.reduce((sum, pid) => sum + after.get(pid) - (before.get(pid) ?? 0), 0),
  };
}

/** For the main thread of each page's process: for how long it was ready to run and had no core, in milliseconds. */
function waits() {
  const found = new Map();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--type=renderer")) continue;
      const [, waited] = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "utf8").split(" ");
      found.set(Number(pid), Number(waited) / 1e6);
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

/** Everything about a page that must not happen, and what it asked the network for. */
function watch(page) {
  const seen = { problems: [], requests: [] };
  // What these name is in the tab already.
  const isInside = (request) => /^(blob|data):/.test(request.url());
  page.on("console", (message) => {
    if (message.type() === "error") seen.problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => seen.problems.push(`uncaught: ${error.stack}`));
  page.on("crash", () => seen.problems.push("the tab crashed"));
  page.on("requestfailed", (request) => {
    if (!isInside(request)) seen.problems.push(`failed: ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on("request", (request) => {
    if (!isInside(request)) seen.requests.push(request.url());
  });
  return seen;
}

/** The page under test, and what a visitor does with it. */
export class Visit {
  constructor(page) {
    Object.assign(this, { page, seen: watch(page) });
  }

  /** Loads the page and waits until both learners are there. */
  static async begin(context, origin, settings = {}) {
    const visit = new Visit(await context.newPage());
    await visit.load(origin, settings);
    await visit.reaches("ready");
    return visit;
  }

  async load(origin, settings = {}) {
    await this.page.addInitScript(() => {
      addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile, lineNumber }) =>
        console.error(`policy broken: ${violatedDirective}: ${blockedURI} ${sourceFile}:${lineNumber}`));
    });
    await this.page.goto(`${origin}/?${new URLSearchParams(settings)}`);
  }

  /** Waits for one of these states; a failure of the page is told in its own words. */
  async reaches(...states) {
    await this.until((wanted) => [...wanted, "failed"].includes(document.body.dataset.state), states);
    const state = await this.state();
    if (!states.includes(state)) assert.fail(`the page is ${state}: ${await this.text("#error")}`);
  }

  state() { return this.page.evaluate(() => document.body.dataset.state); }

  /** Opens what is folded around an element, as a visitor would who wants to see it. */
  async unfold(selector) {
    await this.page.locator(selector).first().evaluate((element) => {
      const own = element.closest("summary")?.parentElement;
      for (let at = element.parentElement; at; at = at.parentElement) {
        if (at.localName === "details" && at !== own) at.open = true;
      }
    });
  }

  async text(selector) {
    await this.unfold(selector);
    return this.page.locator(selector).innerText();
  }

  frames() { return this.page.evaluate(() => window.temper.frames()); }
  async losses() { return (await this.frames()).map((frame) => frame.losses); }
  async click(selector) {
    await this.unfold(selector);
    return this.page.locator(selector).click({ timeout: PATIENCE });
  }


  /** Waits until a condition holds in the page. Asked at intervals: a hidden page draws no frames to ask in. */
  async until(condition, argument = null) {
    try {
      await this.page.waitForFunction(condition, argument, { timeout: PATIENCE, polling: 50 });
    } catch (error) {
      const parts = await this.page.locator("#status, #error").allInnerTexts();
      throw new Error(`waited in vain for ${condition}; the page says: ${parts.join(" ")}`, { cause: error });
    }
  }

  async shows(selector, state = "visible") {
    if (state === "visible" && await this.page.locator(selector).count()) await this.unfold(selector);
    return this.page.locator(selector).waitFor({ state, timeout: PATIENCE });
  }

  statusSays(words) {
    return this.until((words) => document.getElementById("status").textContent.includes(words), words);
  }

  async hasFrames(count) {
    await this.until((count) => window.temper.frames().length >= count, count);
  }

  /** Steps one at a time. */
  async steps(count) {
    for (let made = 0; made < count; made++) {
      const before = (await this.frames()).length;
      await this.click("#step");
      await this.hasFrames(before + 1);
      await this.reaches("ready", "paused");
    }
  }

  async reset() {
    await this.click("#reset");
    await this.until(() => window.temper.frames().length === 0);
    await this.reaches("ready");
  }

  /** Changes a setting as a visitor would. */
  async set(selector, value) {
    await this.unfold(selector);
    const control = this.page.locator(selector);
    const isList = await control.evaluate((element) => element.localName === "select");
    if (isList) return control.selectOption(value);
    await control.fill(value);
    return control.blur();
  }

  /** Lets files fall on the page: `{name, bytes}`. */
  async drop(files) {
    const coded = files.map(({ name, bytes }) => ({ name, base64: Buffer.from(bytes).toString("base64") }));
    const transfer = await this.page.evaluateHandle((files) => {
      const made = new DataTransfer();
      for (const { name, base64 } of files) {
        made.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name));
      }
      return made;
    }, coded);
    await this.page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
  }

  /** What a click makes the browser save: its path on the disk. */
  async saved(selector) {
    const offered = this.page.waitForEvent("download", { timeout: PATIENCE });
    await this.click(selector);
    return (await offered).path();
  }

  /** True at step 0, with nothing changed and nothing to tell. */
  isFresh(settings) {
    return this.page.evaluate((query) => {
      const isHidden = (id) => document.getElementById(id).hidden;
      return document.body.dataset.state === "ready" && window.temper.frames().length === 0
        && location.search === query && ["error", "own-buttons", "tour", "ask"].every(isHidden);
    }, `?${new URLSearchParams(settings)}`);
  }

  /** Nothing that must not happen has happened, in the page and in its worker. */
  isClean() { assert.deepEqual(this.seen.problems, []); }
}
