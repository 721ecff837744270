// What the page says about the device: the self-test's result, how to get WebGPU, and what to do after an error.

import { $, el } from "./dom.js";
import { number, percent } from "./format.js";

export function showSelfTest({ passed, seconds, checks }) {
  const wrong = checks.filter((check) => !check.passed).length;
  $("self-test-summary").textContent = checks.length === 0 ? "Self-test: nothing to test on this device"
    : passed ? `Self-test: passed, ${checks.length} kernels in ${number(seconds, 2)} s`
    : `Self-test: ${wrong} of ${checks.length} kernels failed`;
  $("self-test").dataset.passed = String(passed);
  $("self-test-checks").replaceChildren(...checks.map((check) => el("tr", { class: check.passed ? "" : "bad" },
    el("th", { scope: "row", text: check.kernel }), el("td", { text: check.passed ? "passed" : "FAILED" }),
    el("td", { text: check.error.toExponential(1) }), el("td", { text: check.message }))));
}

/** @param {import("./messages.js").Profile} profile */
export function showProfile({ step, seconds, shares }) {
  $("profile-summary").textContent = `Where a step's time goes: ${number(1e3 * seconds, 3)} ms on the GPU, step ${step}`;
  $("profile-shares").replaceChildren(...shares.map((share) => el("tr", {},
    el("th", { scope: "row", text: share.kernel }), el("td", { text: percent(share.percent / 100) }),
    el("td", { text: number(1e3 * share.seconds, 3) }), el("td", { text: share.runs || "" }),
    el("td", { text: share.gflops === null ? "" : number(share.gflops, 3) }))));
}

const HELP = [
  ["Firefox", /Firefox\//,
    "Firefox: use version 141 or newer on Windows, 145 or newer on a Mac with Apple silicon. Elsewhere, open " +
    "about:config and set dom.webgpu.enabled to true, then reload."],
  ["Chrome or Edge on Linux", /(?=.*Linux)(?!.*Android).*Chrome\//,
    "Chrome on Linux: open chrome://flags, enable \"Unsafe WebGPU Support\" and \"Vulkan\", and restart the " +
    "browser. chrome://gpu says whether WebGPU is on and why not."],
  ["Chrome on Android", /Android.*Chrome\//,
    "Chrome on Android: version 121 or newer on Android 12 or newer, with a Qualcomm, ARM or Imagination graphics " +
    "unit."],
  ["Chrome or Edge", /Chrome\//,
    "Chrome or Edge: version 113 or newer, with \"Use graphics acceleration when available\" on in the system " +
    "settings of the browser. chrome://gpu says why WebGPU is off."],
  ["Safari", /Safari\//,
    "Safari: version 26 or newer (macOS 26, iOS 26). On older ones: Develop, Feature Flags, WebGPU."],
];

/** How to get WebGPU, for this browser first. */
export function helpForWebGpu() {
  const own = HELP.find(([, agent]) => agent.test(navigator.userAgent));
  const lines = [];
  if (!isSecureContext) {
    lines.push("This page was not loaded over https or from localhost; browsers offer WebGPU only there. Run " +
      "\"temper web\" on this machine, or serve the page over https.");
  }
  if (own) lines.push(own[2]);
  $("device-help-text").replaceChildren(
    ...lines.map((line) => el("p", { text: line })),
    el("p", { class: "note", text: "Then reload this page. Other browsers:" }),
    el("ul", {}, ...HELP.filter((entry) => entry !== own).map(([, , line]) => el("li", { text: line }))));
  $("device-help").hidden = false;
}

/** One sentence on what can be done, by the engine's kind of error. */
export function whatToDo({ kind }) {
  switch (kind) {
    case "config": return "Change the setting that is named, or press its reset button. Nothing was lost.";
    case "record": case "data": return "Mend the text file and choose it again. What was there is kept.";
    case "format": case "tensor": case "tokenizer": case "template": case "missing": case "unsupported":
      return "Choose another file, or all files of the model's folder. What was there is kept.";
    case "limit": return "Choose a smaller model, fewer tokens per batch, or LoRA instead of all weights.";
    case "lost": return "Reload the page. If it happens again, use the CPU, or update the graphics driver.";
    case "device": case "kernel": return "Choose the device \"CPU\" for experts, below, and reload, or update " +
      "the graphics driver.";
    case "non_finite": return "Training has run away: reset with a smaller learning rate.";
    case "checkpoint": return "Choose the model and text with which the checkpoint was made, then restore it again.";
    case "download": return "Reload the page: it then asks again for what did not arrive.";
    case "page": return "Reload the page. A browser without WebAssembly, or with too little memory, cannot run it.";
    default: return "Nothing that was recorded is lost. If it happens again, reload the page.";
  }
}
