// Files in and out: a visitor's own model and text, checkpoints, adapters and metrics. Nothing leaves the tab.

import { $, el } from "./dom.js";
import { bytes, duration, number } from "./format.js";

/** Files of a drop; a folder gives the files that lie in it. */
async function dropped({ items, files }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...files];
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) found.push(await new Promise((ok, no) => entry.file(ok, no)));
    else found.push(...await inFolder(entry));
  }
  return found;
}

async function inFolder(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    // A reader gives its entries in parts; an empty part is the end.
    const part = await new Promise((ok, no) => reader.readEntries(ok, no));
    if (part.length === 0) return found;
    for (const entry of part) if (entry.isFile) found.push(await new Promise((ok, no) => entry.file(ok, no)));
  }
}

const isModel = (files) => files.some(({ name }) => /\.(gguf|safetensors)$/i.test(name) || name === "config.json");

/** Watches the drop place, the whole page and both file buttons. */
export function watchFiles({ onModel, onData, onError }) {
  const take = (files) => {
    if (files.length === 0) return;
    if (isModel(files)) onModel(files);
    else if (files.length === 1) onData(files[0]);
    else onError(new Error(`${files.length} files were dropped and none of them is a model ` +
      "(config.json, *.safetensors, *.gguf); give the files of one model, or one file of text."));
  };
  // Words may be dragged into a field, as anywhere.
  const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    $("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    $("drop").classList.remove("over");
    dropped(event.dataTransfer).then(take).catch(onError);
  });
  // The same file can be chosen again after it was mended.
  const picked = (id, use) => $(id).addEventListener("change", ({ target }) => {
    const files = [...target.files];
    target.value = "";
    if (files.length) use(files);
  });
  picked("file-model", onModel);
  picked("file-data", ([file]) => onData(file));
}

export function describeModel(m) {
  return `${m.name}: ${m.family}, ${m.layers} layers, hidden ${m.hidden}, vocabulary ${number(m.vocabulary, 6)}, ` +
    `${m.parameters.toLocaleString("en")} parameters`;
}

export function describeData(d) {
  const skipped = d.skipped ? `; ${d.skipped} records skipped: ${d.problems.join("; ")}` : "";
  const cut = d.truncated ? `, ${d.truncated} of them cut at the end` : "";
  return `${d.name}: ${number(d.records, 9)} records, ${number(d.documents, 9)} documents${cut}, ` +
    `${number(d.trainedTokens, 9)} trained tokens${skipped}`;
}

/** The estimate, or the refusal with its numbers. */
export function showEstimate(estimate, steps) {
  const { fits, needBytes, allowedBytes, secondsPerStep, parts, problem } = estimate;
  const time = secondsPerStep > 0
    ? `about ${duration(secondsPerStep)} a step, ${duration(secondsPerStep * steps)} for ` +
      `${steps.toLocaleString("en")} steps`
    : "time is known after the first steps";
  const place = $("estimate");
  place.classList.toggle("bad", !fits);
  place.replaceChildren(el("strong", { text: fits ? "Fits. " : "Does not fit. " }),
    `Both learners need ${bytes(needBytes)} of memory; ${bytes(allowedBytes)} are allowed. ` +
      (fits ? `Time: ${time}.` : problem),
    ...parts.map((part) => el("span", { class: "part", text: part })));
}

/** Hands a file to the visitor, and keeps a link to it for a browser that asks first. */
export function save(name, content, type = "application/octet-stream") {
  const blob = new Blob([content], { type });
  const link = el("a", { href: URL.createObjectURL(blob), download: name, text: name });
  const list = $("downloads");
  const entry = el("li", {}, link, ` ${bytes(blob.size)}`);
  list.prepend(entry);
  // A checkpoint can be large: only the newest few are kept in memory.
  while (list.children.length > 8) {
    URL.revokeObjectURL(list.lastElementChild.querySelector("a").href);
    list.lastElementChild.remove();
  }
  link.click();
}

/** The recorded metrics, a line a step and learner, as the command writes them plus the learner's name. */
export function metricsLines(frames) {
  return frames.flatMap(({ metrics }) => metrics.map((m, i) =>
    `${JSON.stringify({ learner: ["left", "right"][i], ...m })}\n`)).join("");
}
